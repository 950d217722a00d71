/* SPDX-License-Identifier: Apache-2.0 */
/* Checkpoints of VMs: names of dirty bitmaps that were made at one instant. Loop thread. */
#ifndef VMD_DAEMON_CHECKPOINT_H
#define VMD_DAEMON_CHECKPOINT_H

#include <stdbool.h>

struct api_checkpoint;
struct api_checkpoint_create_in;
struct api_error;
struct change;
struct json_object;
struct store_object;
struct vm;
struct vmd;

#define CHECKPOINT_KIND "checkpoint"

/* A row of the store. */
void checkpoints_load(struct vmd *d, const struct store_object *row);
void checkpoints_free(struct vmd *d);
bool checkpoints_any(const struct vm *vm);
/* The VM goes: its rows in c; what is in memory once that is durable. */
void checkpoints_clear(const struct vm *vm, struct change *c);
void checkpoints_gone(const struct vm *vm);

/* NULL: there is none of that name. */
const struct api_checkpoint *checkpoint_find(const struct vm *vm, const char *name);
/* The checkpoint's bitmap of a disk; NULL: it has none. */
const char *checkpoint_bitmap(const struct api_checkpoint *p, const char *disk);

/* Making one in two steps. First: what disk.transaction has to do, appended to `actions`; the checkpoint, the caller's (of
 * api_type_checkpoint). NULL: x says why not. */
struct json_object *checkpoint_plan(const struct vm *vm,
                                    const struct api_checkpoint_create_in *in,
                                    struct json_object *actions, struct api_error *x);
/* Then, when that is done: it is known, and its row in c. False: one of that name was made meanwhile. */
bool checkpoint_keep(struct vm *vm, struct json_object *checkpoint, struct change *c);

#endif
