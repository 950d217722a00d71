/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One QMP client: negotiation, the order of its commands, what it is sent. Inside of daemon/qmp. Loop thread.
 */
#ifndef VMD_DAEMON_QMP_SESSION_H
#define VMD_DAEMON_QMP_SESSION_H

#include "api-schema/rpc/server.h"
#include "daemon/events.h"
#include "engine/base/list.h"

#include <stdbool.h>
#include <stdint.h>

struct json_object;
struct loop_timer;
struct qmp_order;
struct vm;
struct vmd;

struct qmp {
    struct vmd *d;
    struct list sessions; /* struct qmp_session.link */
    struct list later;    /* struct qmp_vm.later: sockets to be made */
    struct loop_timer *make;
    struct event_listener heard;
    bool begun;
    struct qmp_session *calling; /* its command is about to begin; else NULL */
};

/* What QMP's clients set for migrations and were told of them; migrate.c. */
struct qmp_migration {
    uint32_t caps;
    int64_t streams, downtime_ms, bandwidth, cache;
    const char *status; /* as told last; NULL: there was none */
    char error[256];
    int64_t passes, began_ms, active_ms, ended_ms; /* CLOCK_MONOTONIC; 0: not yet */
};

/* An image that blockdev-add named: for what takes a node. It is looked at when a command uses it; nodes.c. */
struct qmp_node {
    struct list link;           /* qmp_vm.nodes */
    char *name, *file, *format; /* a word of DiskFormat */
    bool protocol, readonly, direct;
};

/* The QMP side of a VM that runs. */
struct qmp_vm {
    struct list nodes;
    unsigned n_nodes;
    struct list backs, plugged; /* plug.h */
    unsigned n_backs;
    struct qmp_migration migration;
    struct list snapjobs; /* snapshots.c */
    unsigned n_snapjobs;
    int64_t
        loads; /* the job by which its clients take it back to a snapshot: they stay while its emulator goes; else 0 */
    struct rpc_listener *listener; /* NULL: none any more */
    char *path;
    bool shutdown_told;
    bool runs; /* as told last */
    struct vm *vm;
    struct list later;
};

enum { QMP_QUEUE = 8, QMP_FDS = 32, QMP_CLIENTS = 16 };

struct qmp_fd {
    struct list link;
    char *name;
    int fd;
};

struct qmp_session {
    struct list link;
    struct vmd *d;
    struct rpc_session *s;
    int64_t vm;        /* its number; 0: none selected */
    bool bound;        /* the VM's own socket */
    bool ready;        /* negotiated */
    bool oob;          /* and out-of-band execution with it */
    bool held;         /* too many commands: not read */
    bool at_it;        /* run_queue() is on the stack */
    struct list queue; /* struct qmp_order.link, in-band, not begun */
    unsigned n_queue;
    struct list begun;        /* struct qmp_order.link, not answered */
    struct qmp_order *now;    /* in-band, of these */
    unsigned n_oob;           /* out of band, begun */
    struct json_object *kept; /* events that go after the answer to `now`; NULL: none */
    struct list fds;
    unsigned n_fds;
};

/* For listeners of VMs; its argument is struct vm. */
extern const struct rpc_dialect qmp_vm_dialect;

/* A descriptor that getfd took under the name, on the connection whose command begins just now; the caller's then. -1: there
 * is none. */
int qmp_session_take_fd(struct qmp *q, const char *name);
/* One object, on a line of its own. */
void qmp_session_send(struct qmp_session *q, struct json_object *o);
/* An event about VM `vm`: at once, or after the answer of a command that it follows from. */
void qmp_session_event(struct qmp_session *q, int64_t vm, struct json_object *event);

#endif
