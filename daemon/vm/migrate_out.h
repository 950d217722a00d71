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
struct json_object;
struct loop_timer;
struct op;
struct rpc_client;

/* What is done next, or is being done. */
enum migrate_step {
    FIT,    /* the emulator is asked whether its VM can move */
    DIAL,   /* to the other daemon */
    ASK,    /* migrate.prepare */
    LANES,  /* streams are connected */
    LEND,   /* and given to the emulator */
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

#endif
