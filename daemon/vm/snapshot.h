/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Snapshots of whole VMs. Each is a row of the store (an object of the kind "snapshot", scope: the VM's UUID), a file of the VM's
 * memory and devices, LIB/vm/ID/snapshots/NAME, and a snapshot inside each writable disk's image, called by the row's tag.
 *
 * The row is there before anything of it is made and says what is being done; whatever dies, the next daemon carries on: what was
 * being made or deleted goes, a revert is done again from its beginning, which comes to the same. Loop thread.
 */
#ifndef VMD_DAEMON_SNAPSHOT_H
#define VMD_DAEMON_SNAPSHOT_H

#include "api-schema/gen/types.h"
#include "engine/base/list.h"

#include <stdbool.h>

struct change;
struct store_object;
struct vm;
struct vmd;

#define SNAPSHOT_KIND "snapshot"
#define SNAPSHOTS_MAX 4096

struct snapshot {
    struct list link;         /* vmd.snapshots, the oldest first */
    char *vm;                 /* UUID */
    struct api_snapshot info; /* owned */
    char *config;             /* the VM's definition then, JSON */
};

void snapshots_load(struct vmd *d, const struct store_object *row);
/* Emulators were taken up: carries on what the last daemon left. */
void snapshots_begin(struct vmd *d);
/* The daemon ends, the loop runs no more: nothing goes on. Then, when no thread is at work and nobody calls back, the rest. */
void snapshots_end(struct vmd *d);
void snapshots_free(struct vmd *d);

/* One that the VM was going back to and has not reached; NULL: it may be started. */
const struct snapshot *snapshot_in_doubt(const struct vm *vm);
bool snapshots_any(const struct vm *vm);
/* The VM is deleted: rows in c; then, when that is durable, the rest. Images keep what is in them. */
void snapshots_drop_rows(struct vm *vm, struct change *c);
void snapshots_drop_files(struct vm *vm);

/* ---- inside: snapshot.c, snapshot_work.c, snapshot_ops.c ---- */

struct snapshot *snapshot_find(struct vmd *d, const char *uuid, const char *name);
struct snapshot *snapshot_current(struct vmd *d, const char *uuid);
void snapshot_put(const struct snapshot *s, struct change *c);
void snapshot_del(const struct snapshot *s, struct change *c);
void snapshot_free(struct snapshot *s);
/* Of the VM as it is now; listed, not in the store. */
struct snapshot *snapshot_new(struct vm *vm, const char *name, const char *description);
char *snapshots_dir(const struct vm *vm);

#endif
