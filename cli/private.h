/* SPDX-License-Identifier: Apache-2.0 */
/* A daemon of one's own in a temporary folder, for `vmctl run --private`. One thread. */
#ifndef VMD_CLI_PRIVATE_H
#define VMD_CLI_PRIVATE_H

#include "engine/base/err.h"

#include <signal.h>

struct private_daemon;

/* Starts vmd (the one beside this program, else the installed one) and waits until it greets, or
 * *flag is raised. NULL with e set on failure; nothing is left behind then. */
struct private_daemon *private_start(const volatile sig_atomic_t *flag, struct err *e);
/* Its folder, as for --dir; borrowed. */
const char *private_dir(const struct private_daemon *d);
/* Ends its VMs and the daemon, removes the folder, frees. */
void private_stop(struct private_daemon *d);

#endif
