/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Can this process use that file, and if not, why exactly: names the uid, the path (or the folder
 * on the way to it) and its mode. Shared by vmd (before anything is changed) and vmd-spawn (when
 * it opens). Pure functions on the filesystem, any thread.
 */
#ifndef VMD_DAEMON_FILECHECK_H
#define VMD_DAEMON_FILECHECK_H

#include "engine/base/err.h"

#include <stdbool.h>
#include <sys/types.h>

enum file_kind {
    FILE_DATA, /* a regular file, not empty */
    FILE_DISK, /* a regular file or a block device */
    FILE_MADE, /* a regular file, made for writing when it is not there; may be empty */
    FILE_NEW,  /* a regular file that is made, for writing and for its owner alone */
};

/* Opens for reading, or reading and writing; close-on-exec, blocking. `what` ("kernel") starts
 * the message. Never blocks on a FIFO. Returns the descriptor or a negative code. */
int file_open_checked(const char *what, const char *path, enum file_kind kind, bool write,
                      struct err *e);
/* The same as a question; 0 when it would open. dev and ino (may be NULL) name the file. */
int file_check(const char *what, const char *path, enum file_kind kind, bool write, dev_t *dev,
               ino_t *ino, struct err *e);

#endif
