/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One QMP command about a VM: what its qmp_do_*() sees and how it answers, once, then or later. Inside of
 * daemon/qmp. Loop thread.
 */
#ifndef VMD_DAEMON_QMP_CMD_H
#define VMD_DAEMON_QMP_CMD_H

#include "api-schema/gen/qmp_table.h"
#include "api-schema/json/json.h"
#include "daemon/daemon.h"
#include "daemon/registry.h"

#include <stdbool.h>

struct api_call;
struct api_error;
struct buf;
struct qmp_cmd;
struct qmp_migration;
struct qmp_node;
struct qmp_vm;

struct qmp_cmd {
    struct api_call *call; /* vm.qmp */
    struct vmd *d;
    struct vm *vm;            /* valid until the command first waits; then as qmp_ask() says */
    struct json_object *args; /* checked against the table; NULL: none */
    bool beginning, over;     /* its function has not returned; it was answered meanwhile */
    bool asking;              /* the emulator; registered with the run */
    void (*then)(struct qmp_cmd *c, struct json_object *result);
    void *data;               /* the command's own, freed with it */
    struct json_object *kept; /* the same */
};

void qmp_return(struct qmp_cmd *c, struct json_object *take_value);
void qmp_return_nothing(struct qmp_cmd *c);
void qmp_error(struct qmp_cmd *c, const char *class, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* Asks the VM's emulator; then(c, result) when it answered, with c->vm valid. When it has none, does not answer in
 * time or refuses, the command fails by itself. Parameters are taken; NULL: none. */
void qmp_ask(struct qmp_cmd *c, const char *method, struct json_object *take_params,
             void (*then)(struct qmp_cmd *c, struct json_object *result));

/* For api_call_nested(): answers the command (its argument) with nothing, or with what went wrong. */
void qmp_on_done(void *arg, struct json_object *result, const struct api_error *x);
/* Parameters of a method: {"vm": ...}; the caller's. */
struct json_object *qmp_vm_param(const struct qmp_cmd *c);

/* Arguments; NULL, false when absent. */
const char *qmp_arg(const struct qmp_cmd *c, const char *name);

/* qom-set of requested-size of a memory device. */
void qmp_resize_memory(struct qmp_cmd *c, const char *name, struct json_object *value);

/* Data of the event DUMP_COMPLETED; the caller's. */
struct json_object *qmp_dump_completed(const struct vm *vm, const struct api_job *job);
/* Data of the events about VNC clients; the caller's. */
struct json_object *qmp_vnc_event(const struct vm *vm);
/* What QMP tells of a change of a job, if that is a block job; tell() takes the data. */
void qmp_blockjob_event(struct vmd *d, const struct api_job *job,
                        void (*tell)(void *arg, const char *event,
                                     struct json_object *take_data),
                        void *arg);
/* snapshots.c: jobs that QMP calls snapshot-..., which stay until they are dismissed. */
void qmp_snapshots_free(struct qmp_vm *v);
bool qmp_snapshot_job_is(const struct vm *vm, const char *id);
void qmp_snapshot_jobs(const struct vm *vm, struct json_object *list);
/* The VM has a QMP side, and may have none when this returns. */
void qmp_snapshot_event(struct vm *vm, const struct api_job *job);
/* False: the argument id names none of them; else the command was answered, or will be. */
bool qmp_snapshot_job_act(struct qmp_cmd *c, const char *verb);
/* The human monitor's command of n bytes, and what stands behind it; false: it is another. */
bool qmp_snapshot_line(struct qmp_cmd *c, const char *command, size_t n, const char *name);
void qmp_snapshot_table(const struct vm *vm, struct buf *b);
/* An event that is now, to those who have selected the VM. */
void qmp_tell(const struct vm *vm, const char *name, struct json_object *take_data);
/* Is it a block job that has not ended? */
bool qmp_blockjob_is(struct qmp_cmd *c, const char *id);
bool qmp_id_ok(const char *id);
void qmp_migration_init(struct qmp_migration *m);
void qmp_nodes_free(struct qmp_vm *v);
/* What QMP tells of a VM that moves away, after a change of its job (NULL: of its state); moved: it is the other daemon's. The VM has
 * a QMP side. */
void qmp_migration_event(struct vm *vm, const struct api_job *job, bool moved,
                         void (*tell)(void *arg, const char *event,
                                      struct json_object *take_data),
                         void *arg);
/* It is the other daemon's by now: what ends here is no shut-down of the guest. */
bool qmp_migration_leaves(const struct vm *vm);
/* Where it stands, for query-status. */
const char *qmp_run_state(const struct vm *vm);
/* Has its machine a sleep in RAM? */
bool qmp_guest_sleeps(const struct vm *vm);
/* An entry of a list; the caller's. */
struct json_object *qmp_named(const char *name);
/* Host thread of a vCPU, 0 when it cannot be told. */
int qmp_vcpu_thread(const struct vm *vm, int64_t index);
/* The disk that is meant by its own name, or the device that it is; NULL: none is. */
const struct api_disk *qmp_disk(const struct qmp_cmd *c, const char *name);
/* Parameters of the method disk.backup for the command drive-backup (node: blockdev-backup); the caller's. NULL after the
 * command was answered. */
struct json_object *qmp_copy_params(struct qmp_cmd *c, bool node);
/* A node of blockdev-add that no disk has and that may be written; NULL after the command was answered. */
const struct qmp_node *qmp_node_free(struct qmp_cmd *c, const char *name);
/* NULL: there is none of that name. */
const struct qmp_node *qmp_node_find(const struct qmp_cmd *c, const char *name);
/* Name of the device that disk i is. */
void qmp_disk_device(unsigned i, char out[24]);

#endif
