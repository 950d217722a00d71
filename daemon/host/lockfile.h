/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One daemon for one store and one run folder. A lock file is held by an open-file-description lock,
 * which goes when the process does; its text is the holder's pid, for the message.
 */
#ifndef VMD_DAEMON_LOCKFILE_H
#define VMD_DAEMON_LOCKFILE_H

#include "engine/base/err.h"

/* Descriptor that holds the lock until closed. -EBUSY names the process that has it; `what` ("the store
 * /x/vmd.db") starts the message. */
int lockfile_take(const char *path, const char *what, struct err *e);

#endif
