/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Image files of projects, LIB/images/PROJECT/NAME: sent and fetched in pieces. Names are names (no
 * slash, no dot in front), files are opened below the folder and never through a link. All work on
 * files is done by threads of their own, so that a slow or hanging disk holds up no call but those
 * about it. Storage pools are to take this over: they need the same begin, write, finish, read.
 *
 * Loop thread, except the workers inside.
 */
#ifndef VMD_DAEMON_AUTH_IMAGES_H
#define VMD_DAEMON_AUTH_IMAGES_H

#include <stdbool.h>

struct images;
struct vmd;

struct images *images_new(struct vmd *d);
void images_free(struct images *s); /* calls still open are answered */
/* May a VM of this project name this file? */
bool images_may_use(const struct vmd *d, const char *project, const char *path);

#endif
