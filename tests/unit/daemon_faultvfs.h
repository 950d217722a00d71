/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A SQLite VFS over the system's that fails writes, syncs and truncations on demand. Process-wide,
 * as SQLite's registration is; armed by one thread, counted by any.
 */
#ifndef VMD_TESTS_DAEMON_FAULTVFS_H
#define VMD_TESTS_DAEMON_FAULTVFS_H

#include <stdbool.h>

enum fault {
    FAULT_WRITE, /* nothing is written, I/O error */
    FAULT_TORN,  /* the first half is written, I/O error */
    FAULT_FULL,  /* nothing is written, disk full */
    FAULT_SYNC,  /* I/O error; what was written may or may not be on the disk */
    FAULT_KINDS
};

/* Registers the VFS "fault". */
void fault_register(void);
/* The n-th write (or sync) from now fails, and with forever all that follow. */
void fault_arm(enum fault kind, int n, bool forever);
void fault_disarm(void);
/* Has a fault been delivered since it was armed? */
bool fault_fired(void);

#endif
