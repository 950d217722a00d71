/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Copies of the store: made while vmd runs and checked before they count, and put back while none
 * runs. Only SQLite's backup API reads or writes a database here. Any thread; no state.
 */
#ifndef VMD_DAEMON_STORE_BACKUP_H
#define VMD_DAEMON_STORE_BACKUP_H

#include "engine/base/err.h"

#include <stdbool.h>
#include <stdint.h>

struct store_copy {
    int64_t bytes, vms;
    int schema;
};

/* Copies the store at `path` to the file `to`: to a file beside it, which is checked
 * (integrity_check), synced and then given the name. On failure nothing is left and a file of that name
 * is as it was. `vfs` as in store_open. -EEXIST when there is one and `overwrite` is not set. */
int store_backup(const char *path, const char *vfs, const char *to, bool overwrite,
                 struct store_copy *out, struct err *e);
/* Puts the backup `from` in the place of the store at `path`; no vmd may have it open. The former
 * store stays beside it as PATH.before-restore. The backup is checked first; numbers of VMs and
 * events go on from the former store's, so that none is used twice. */
int store_restore(const char *path, const char *from, struct store_copy *out, struct err *e);

#endif
