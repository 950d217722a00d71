/* SPDX-License-Identifier: Apache-2.0 */
/* What the web console gives out: its own page, and files of noVNC and xterm.js where the host has them. Any thread. */
#ifndef VMD_DAEMON_WEB_FILES_H
#define VMD_DAEMON_WEB_FILES_H

#include "engine/base/buf.h"

#include <stdbool.h>

#define WEB_FILE_MAX (2 << 20)

extern const char web_page_html[], web_page_js[], web_page_css[];

/* A part of the page itself, for everyone; NULL: it is none. */
const char *web_page(const char *path, const char **type);
/* A file of /novnc/ or /xterm/ into `body`, and its type. Looked for in the folder `modules` first, unless it is NULL. 0, or -ENOENT,
 * or another negative code. */
int web_file(const char *modules, const char *path, struct buf *body, const char **type);

#endif
