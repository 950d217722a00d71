/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The inside of a migration's source (migrate_out.c). Loop thread.
 */
#ifndef VMD_DAEMON_MIGRATE_OUT_H
#define VMD_DAEMON_MIGRATE_OUT_H

#include "api-schema/gen/types.h"
#include "api-schema/json/error.h"
#include "daemon/vm/peer.h"
#include "engine/base/list.h"

#include <stdbool.h>
#include <stdint.h>

struct api_call;
struct change;
struct json_object;
struct loop_timer;
struct op;
struct rpc_client;
struct vm;

/* What is done next, or is being done. */
enum migrate_step {
    FIT,    /* the emulator is asked whether its VM can move */
    DIAL,   /* to the other daemon */
    ASK,    /* migrate.prepare */
    LANES,  /* streams are connected */
    LEND,   /* and given to the emulator */
    FOLLOW, /* disks go, with what the guest writes to them */
    COPY,   /* memory goes while the guest runs */
    MARK,   /* handing-over becomes durable */
    SWITCH, /* the guest stands still, the rest goes; the other side has it all */
    GIVE,   /* given becomes durable */
    GIVEN,  /* the other daemon records that it is the owner; asked until it is known */
    CLEAN,  /* nothing of it is left here */
    TAKE,   /* it was taken back; the row goes */
    BACK,   /* it stayed here; the other daemon is told */
    OVER
};

/* A disk that goes with its VM. */
struct migrate_out_disk {
    char *name, *backing,
        *backing_format; /* backing: what is there already; NULL: all is copied */
    int64_t size, used;
};

struct migrate_out {
    struct list link; /* vmd.migrate_outs */
    struct vmd *d;
    int64_t vm, job;
    struct op *op; /* holds the VM's turn; NULL when it went with the VM, or BACK */
    enum migrate_step step;
    unsigned asked; /* answers of the emulator that are still to come */
    bool over;      /* all but this is gone; the last answer frees it */
    char *uuid, *name, *host, *url;
    int port;
    char ticket[65];
    struct api_migrate_start_in in; /* numbers alone */
    struct json_object *there;      /* the definition there; NULL: as it is here */
    bool keep;                      /* the definition stays here, too */
    bool copies;                    /* disks go, too */
    char **only, *folder;           /* only those; where to, NULL: the same paths */
    size_t n_only;
    struct migrate_out_disk disk[PEER_LANES];
    unsigned n_disks;
    struct loop_timer *timer;
    int64_t retry_ns;
    struct peer_dial *dial;
    struct tls_link *link_tls, *lane[PEER_LANES];
    struct rpc_client *client;
    unsigned lent;
    int lane_fd[PEER_LANES]; /* until lent */
    bool watching;           /* registered with the run */
    bool marked;             /* the store has a row */
    bool engaged;            /* the emulator was told to send */
    bool paused;             /* the guest was, before */
    bool switched, complete, telling;
    int64_t still_ns; /* when the guest stood still, CLOCK_MONOTONIC */
    int64_t down_ns;  /* until it ran there */
    int64_t bytes, rounds;
    struct api_call *resolving;
    struct json_object *warnings;
    struct api_error x; /* why it failed; code 0: it has not */
    char why[256];      /* of the last attempt to reach the other daemon */
};

/* ---- migrate_out.c ---- */
struct vm *migrate_out_vm(const struct migrate_out *k); /* NULL: it is gone */
/* The first reason is kept. */
void migrate_out_why(struct migrate_out *k, int code, const char *remedy, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
void migrate_out_fail(struct migrate_out *k);
/* The emulator answered wrongly, or (x NULL) cannot be asked. */
void migrate_out_emulator(struct migrate_out *k, const struct api_error *x);
/* Counts a call to the emulator whose answer knows k; was_asked: run_call()'s. */
bool migrate_out_asked(struct migrate_out *k, bool was_asked);
/* An answer is here: may k be looked at? */
bool migrate_out_answered(struct migrate_out *k);
void migrate_out_dial(
    struct migrate_out *k); /* the emulator can send: goes to the other daemon */
/* The emulator has all connections: disks first, and what the guest writes to them from then on. */
void migrate_out_follow(struct migrate_out *k);

/* ---- migrate_out_there.c ---- */
/* The VM's definition with what `given` (NULL: nothing) may differ in, the caller's, NULL: as it is. False: *x says why not. */
bool migrate_out_there(const struct vm *vm, const struct api_vm_config *given,
                       struct json_object **there, struct api_error *x);
/* Takes the numbers of the call. */
void migrate_out_take(struct migrate_out *k, const struct vm *vm,
                      const struct api_migrate_start_in *in);
/* What migrate.prepare is told of the VM. */
void migrate_out_tell(const struct migrate_out *k, const struct vm *vm,
                      struct json_object *prepare);

/* The definition that stays here, stopped: it runs there, and here not before somebody says so. */
void migrate_out_keep(struct vm *vm, struct change *c);

/* ---- migrate_out_lanes.c ---- */
void migrate_out_lanes(void *arg, struct peer_dial *dial); /* of peer_dial(): they are there */

/* ---- migrate_out_disks.c ---- */
void migrate_out_disks_take(struct migrate_out *k, const struct api_migrate_start_in *in);
void migrate_out_disks_free(struct migrate_out *k);
/* Asks the emulator for its disks; goes on with migrate_out_dial(). */
void migrate_out_disks_look(struct migrate_out *k);
void migrate_out_disks_tell(const struct migrate_out *k, struct json_object *prepare);
/* Whose connection has this number; NULL: it carries memory. */
const struct migrate_out_disk *migrate_out_disk_of(const struct migrate_out *k,
                                                   unsigned number);
/* What emu.migrate_status said becomes progress of the job. */
void migrate_out_progress(struct migrate_out *k, struct json_object *status);

#endif
