/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The VMs the daemon knows: definition, state, the one operation that works on each, and who waits
 * for it. Answers every read; the store only makes it durable.
 *
 * States: stopped -> starting -> running <-> paused -> stopping -> stopped or crashed; an emulator
 * that lives but does not answer is unresponsive until it does.
 * Loop thread.
 */
#ifndef VMD_DAEMON_REGISTRY_H
#define VMD_DAEMON_REGISTRY_H

#include "api-schema/gen/types.h"
#include "daemon/vm/dump.h"
#include "engine/base/err.h"
#include "engine/base/list.h"

#include <stdbool.h>
#include <stdint.h>

struct agent;
struct api_call;
struct buf;
struct loop_timer;
struct change;
struct kept;
struct qmp_vm;
struct registry;
struct run;
struct vmd;
struct vnc_door;

struct vm {
    struct vmd *d;
    int64_t id;                  /* never reused; names its folders */
    struct api_vm_config config; /* owned; name and uuid are always set */
    int64_t owner;               /* uid */
    bool transient;              /* the definition goes when the VM ends */
    bool pending;                /* not durable yet: takes its name, is not shown */
    int64_t created_ns;
    enum api_vm_state state;
    char *reason;
    int64_t since_ms;
    struct api_vm_exit *exit;                 /* how the last run ended; NULL: never ran */
    bool saved;                               /* a state waits for its next start; vm/save.c */
    int64_t move_bandwidth, move_downtime_ms; /* migrate.set; 0: no limit, nothing said */
    const char *moving;  /* being moved: what is said to who wants it (static); vm/migrate*.c */
    bool restart_needed; /* runs with a former definition */
    unsigned restarts;   /* in a row; policy.c, as all of these */
    int64_t restart_due_ms; /* CLOCK_REALTIME, for people; 0: none is due */
    bool end_decided;       /* of the last run: policy_ending() was there */
    bool restart_row;       /* the store has a row of it */
    struct loop_timer *restart_timer;
    struct run *run;       /* while there is, or is about to be, an emulator; supervise.c */
    struct op *op;         /* what works on it; ops.c */
    struct list ops;       /* what waits to */
    struct kept *kept;     /* what is told of it while it does not run; registry.c */
    struct dump_seen dump; /* its last dump; dump.c */
    int dump_fd;           /* given to the next one by the caller; -1: none */
    struct qmp_vm *qmp;    /* its QMP socket; qmp/qmp.c */
    struct list waiters;   /* vm.wait calls; rpc_vm.c */
    struct vnc_door *vnc;  /* its listener for viewers; screen/vnc.h; NULL: never had one */
    struct agent *agent;   /* what is known of its guest agent; vm/agent.c; NULL: nothing */
};

struct registry *registry_new(struct vmd *d);
void registry_free(struct registry *r); /* VMs must have no run left */
int registry_load(struct registry *r, struct err *e);

/* A new VM, pending. Takes *config (cleared). Name and UUID must be free. */
struct vm *vm_new(struct vmd *d, struct api_vm_config *take_config, int64_t owner,
                  bool transient);
/* Forgets it: not in the registry any more, freed. Calls that wait must have been answered. */
void vm_free(struct vm *vm);
/* Adds its row, as it is now. */
void vm_put(struct vm *vm, struct change *c);
void vm_put_as(struct vm *vm, const struct api_vm_config *config, struct change *c);

/* By name or UUID; NULL when there is none. Pending ones are found only when asked for. */
struct vm *vm_find(struct vmd *d, const char *ref, bool with_pending);
struct vm *vm_by_id(struct vmd *d, int64_t id);
/* A second name, while a rename is on its way, and its end. */
void vm_name_add(struct vm *vm, const char *name);
void vm_name_drop(struct vm *vm, const char *name);

/* Sorted by name, NULL at the end; the caller frees the array. Pending ones are left out. */
struct vm **vm_list(struct vmd *d, size_t *n);
/* All of them, pending ones too, in no order; the caller frees the array. */
struct vm **vm_list_all(struct vmd *d, size_t *n);
size_t vm_count(struct vmd *d);
size_t vm_count_active(struct vmd *d);

/* Sets the state now; the event goes into c, which the caller commits. reason may be NULL. */
/* Runs or is paused, in an emulator that can be asked. */
bool vm_is_live(const struct vm *vm);
void vm_set_state(struct vm *vm, enum api_vm_state state, const char *reason, struct change *c);
/* A change that only tells of a new state: made, committed; told even when not durable. */
void vm_tell_state(struct vm *vm, enum api_vm_state state, const char *reason);
/* An event about the VM. */
void vm_event(struct vm *vm, struct change *c, enum api_event_type type, const char *reason,
              struct json_object *detail);
/* Answers the vm.wait calls that are satisfied; after the change is durable. rpc_wait.c. */
void vm_wake(struct vm *vm, bool deleted);

/* JSON of VmInfo; the caller's. */
struct json_object *vm_info(struct vm *vm, bool config, bool stats);
/* Its text, appended, for lists; and as a raw value (json/text.h), for what is only sent. */
void vm_info_write(struct vm *vm, bool config, bool stats, struct buf *to);
struct json_object *vm_info_raw(struct vm *vm, bool config, bool stats);

#endif
