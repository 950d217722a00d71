/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Snapshots of VMs. Each is a row of the store (an object of the kind "snapshot", scope: the VM's UUID), a file of the VM's
 * memory and devices, LIB/vm/ID/snapshots/NAME, unless it is of disks alone, and a snapshot inside each disk's image, called by the
 * row's tag.
 *
 * The row is there before anything of it is made and says what is being done; whatever dies, the next daemon carries on: what was
 * being made or deleted goes, a revert is done again from its beginning, which comes to the same. Loop thread.
 */
#ifndef VMD_DAEMON_SNAPSHOT_H
#define VMD_DAEMON_SNAPSHOT_H

#include "api-schema/gen/methods.h"
#include "api-schema/gen/types.h"
#include "engine/base/list.h"

#include <stdbool.h>

struct api_error;
struct change;
struct err;
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
    bool start;               /* who goes back to it wants the VM to run then */
};

void snapshots_load(struct vmd *d, const struct store_object *row);
/* Emulators were taken up: carries on what the last daemon left. */
void snapshots_begin(struct vmd *d);
/* The daemon ends, the loop runs no more: nothing goes on. Then, when no thread is at work and nobody calls back, the rest. */
void snapshots_end(struct vmd *d);
void snapshots_free(struct vmd *d);

/* One that the VM was going back to and has not reached, or whose import was broken off and is not undone; NULL: it may be started. */
const struct snapshot *snapshot_in_doubt(const struct vm *vm);
bool snapshots_any(const struct vm *vm);
/* The VM is deleted: rows in c; then, when that is durable, the rest. Images keep what is in them. */
void snapshots_drop_rows(struct vm *vm, struct change *c);
void snapshots_drop_files(struct vm *vm);

/* ---- inside: snapshot.c, snapshot_disks.c, snapshot_work.c, snapshot_ops.c,
 * snapshot_archive.c, snapshot_xml.c ---- */

struct snapshot *snapshot_find(struct vmd *d, const char *uuid, const char *name);
/* One that is being imported: its disks' images may hold its contents for the moment. */
bool snapshot_is_import(const struct snapshot *s);
/* By its time of creation among the VM's. */
void snapshot_insert(struct vmd *d, struct snapshot *s);
struct snapshot *snapshot_current(struct vmd *d, const char *uuid);
void snapshot_put(const struct snapshot *s, struct change *c);
void snapshot_del(const struct snapshot *s, struct change *c);
void snapshot_free(struct snapshot *s);
/* Of the VM as it is now, which may be (below); listed, not in the store. */
struct snapshot *snapshot_new(struct vm *vm, const struct api_snapshot_create_in *in);
/* Would one of the VM as it is now hold memory? */
bool snapshot_has_memory(const struct vm *vm, const struct api_snapshot_create_in *in);
/* snapshot_disks.c: may this be taken now? False: x says why not. */
bool snapshot_may_create(const struct vm *vm, const struct api_snapshot_create_in *in,
                         struct api_error *x);
/* What it holds of each disk that can be written, by its name in the definition. 0, or -1 and x. */
int snapshot_choose_disks(const struct vm *vm, const struct api_snapshot_create_in *in,
                          struct api_snapshot *out, struct api_error *x);
/* Is the disk of this name left out of it? */
bool snapshot_leaves_out(const struct snapshot *s, const char *disk);
/* The definition as it was; false: unreadable. The caller's. */
bool snapshot_config(const struct snapshot *s, struct api_vm_config *out);
char *snapshots_dir(const struct vm *vm);
/* The file of its memory and devices, dir: snapshots_dir(); the caller's. */
char *snapshot_file(const char *dir, const struct snapshot *s);
/* What an external one is called until it is whole; NULL: it is none. The caller's. */
char *snapshot_file_part(const struct snapshot *s);
/* It goes, by either name, as far as it is the snapshot's own. */
int snapshot_file_drop(const char *dir, const struct snapshot *s, struct err *e);
/* Does it hold anything of a disk? */
bool snapshot_has_disks(const struct snapshot *s);

#endif
