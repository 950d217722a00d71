/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Images at the destination of a migration that brings disks with it: where they are to be, whether there is room, making them,
 * and taking them away when the VM does not come. Loop thread; what waits for a disk is done by threads of
 * daemon/storage/work.h.
 */
#ifndef VMD_DAEMON_MIGRATE_PLACE_H
#define VMD_DAEMON_MIGRATE_PLACE_H

#include "api-schema/gen/types.h"
#include "api-schema/json/error.h"

#include <stdbool.h>
#include <stddef.h>

struct api_call;
struct change;
struct vmd;

struct place_disk {
    char *name, *file, *backing, *backing_format;
    const char *format; /* static */
    int64_t size, used;
    char *pool, *volume; /* that did not know it before; NULL: it is none, or was there */
    bool there;          /* written over: it was there before */
    bool made;
};
struct place {
    struct vmd *d;
    struct place_disk *disk;
    size_t n;
    char mark[33];      /* on each file that is made: an extended attribute */
    bool at_work, dead; /* a thread has it; freed when that ends */
};

/* Gives the disks that come their files here, in the definition as well. NULL and *x: it cannot be. Nothing is looked at yet. */
struct place *place_new(struct vmd *d, const struct api_migrate_prepare_in *in,
                        struct api_error *x);
/* Files that a former daemon was about to make. Those that do not carry its mark are somebody else's. */
struct place *place_of_files(struct vmd *d, char *const *files, size_t n, const char *mark);
/* The definition is complete: volumes are known, and the caller may use the files. */
int place_settle(struct api_call *call, struct place *p, const struct api_vm_config *config,
                 bool reuse, struct api_error *x);
/* Looks whether they can be made, and with `make` makes them. fn(arg, x) once, perhaps before this returns, unless p is freed
 * before; x NULL: well. */
void place_work(struct place *p, bool make, void (*fn)(void *arg, const struct api_error *x),
                void *arg);
/* The VM is here, with its volumes. */
void place_keep(struct place *p, struct change *c);
/* Takes away what was made. NULL is fine. */
void place_undo(struct place *p, struct change *c);
void place_free(struct place *p); /* NULL is fine */

#endif
