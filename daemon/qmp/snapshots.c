/* SPDX-License-Identifier: Apache-2.0 */
/*
 * QMP's snapshot-save, snapshot-load and snapshot-delete, and the human monitor's savevm, loadvm, delvm and info snapshots: the methods
 * snapshot.create, snapshot.revert and snapshot.delete. What such a command finds wrong is told by its job, which stays until
 * job-dismiss, as QEMU has it. Owns struct qmp_snapjob. Loop thread.
 */
#include "api-schema/rpc/call.h"
#include "daemon/jobs.h"
#include "daemon/qmp/cmd.h"
#include "daemon/qmp/qmp.h"
#include "daemon/qmp/session.h"
#include "daemon/run/supervise.h"
#include "daemon/vm/snapshot.h"
#include "engine/base/buf.h"
#include "engine/base/mem.h"
#include "engine/base/str.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

enum { JOBS_MAX = 64 };

struct qmp_snapjob {
    struct list link; /* qmp_vm.snapjobs */
    char *id, *error;
    const char *type, *status;
    int64_t job; /* number; 0: it never had one */
    int64_t done, total;
};

static void drop(struct qmp_vm *v, struct qmp_snapjob *j)
{
    list_remove(&j->link);
    v->n_snapjobs--;
    free(j->id);
    free(j->error);
    free(j);
}

void qmp_snapshots_free(struct qmp_vm *v)
{
    while (!list_empty(&v->snapjobs)) {
        drop(v, list_entry(v->snapjobs.next, struct qmp_snapjob, link));
    }
}

static struct qmp_snapjob *find(const struct vm *vm, const char *id)
{
    if (vm->qmp) {
        list_for_each (it, &vm->qmp->snapjobs) {
            struct qmp_snapjob *j = list_entry(it, struct qmp_snapjob, link);

            if (strcmp(j->id, id) == 0) {
                return j;
            }
        }
    }
    return NULL;
}

bool qmp_snapshot_job_is(const struct vm *vm, const char *id)
{
    return find(vm, id) != NULL;
}

void qmp_snapshot_jobs(const struct vm *vm, struct json_object *list)
{
    if (!vm->qmp) {
        return;
    }
    list_for_each (it, &vm->qmp->snapjobs) {
        const struct qmp_snapjob *j = list_entry(it, struct qmp_snapjob, link);
        struct json_object *o = json_object_new_object();

        api_json_set_str(o, "id", j->id);
        api_json_set_str(o, "type", j->type);
        api_json_set_str(o, "status", j->status);
        api_json_set_int(o, "current-progress", j->done);
        api_json_set_int(o, "total-progress", j->total);
        if (j->error) {
            api_json_set_str(o, "error", j->error);
        }
        json_object_array_add(list, o);
    }
}

/* --- events ------------------------------------------------------------------------------------------- */

static void set_status(struct vm *vm, struct qmp_snapjob *j, const char *status)
{
    struct json_object *o = json_object_new_object();

    j->status = status;
    api_json_set_str(o, "status", status);
    api_json_set_str(o, "id", j->id);
    qmp_tell(vm, "JOB_STATUS_CHANGE", o);
}

static void conclude(struct vm *vm, struct qmp_snapjob *j, const char *error)
{
    if (strcmp(j->status, "created") == 0) {
        set_status(vm, j, "running");
    }
    if (error) {
        j->error = xstrdup(error);
        set_status(vm, j, "aborting");
    } else {
        set_status(vm, j, "waiting");
        set_status(vm, j, "pending");
        j->done = j->total = j->total > 0 ? j->total : 1;
    }
    set_status(vm, j, "concluded");
}

static void follow(struct vm *vm, struct qmp_snapjob *j, const struct api_job *job)
{
    if (strcmp(j->status, "concluded") == 0) {
        return;
    }
    j->done = job->done;
    j->total = job->total;
    if (job->state == API_JOB_STATE_DONE) {
        conclude(vm, j, NULL);
    } else if (job->state == API_JOB_STATE_FAILED || job->state == API_JOB_STATE_CANCELLED) {
        conclude(vm, j, job->error ? job->error->message : "Operation canceled");
    } else if (job->state == API_JOB_STATE_RUNNING && strcmp(j->status, "created") == 0) {
        set_status(vm, j, "running");
    }
}

void qmp_snapshot_event(struct vm *vm, const struct api_job *job)
{
    bool over = job->state != API_JOB_STATE_QUEUED && job->state != API_JOB_STATE_RUNNING;

    list_for_each (it, &vm->qmp->snapjobs) {
        struct qmp_snapjob *j = list_entry(it, struct qmp_snapjob, link);

        if (j->job == job->job) {
            follow(vm, j, job);
            break;
        }
    }
    if (over && vm->qmp->loads == job->job) {
        vm->qmp->loads = 0;
        if (!vm->run) { /* it has not come back */
            qmp_vm_gone(vm);
        }
    }
}

/* --- what is asked of a job ------------------------------------------------------------------------------- */

bool qmp_snapshot_job_act(struct qmp_cmd *c, const char *verb)
{
    struct vm *vm = c->vm;
    struct qmp_snapjob *j = find(vm, qmp_arg(c, "id"));
    bool over = j && strcmp(j->status, "concluded") == 0;

    if (!j) {
        return false;
    }
    if (over && strcmp(verb, "dismiss") == 0) {
        qmp_return_nothing(c);
        set_status(vm, j, "null");
        drop(vm->qmp, j);
    } else if (!over && strcmp(verb, "cancel") == 0) {
        struct json_object *params = json_object_new_object();

        api_json_set_int(params, "job", j->job);
        api_call_nested(c->call, "job.cancel", params, qmp_on_done, c);
    } else {
        qmp_error(c, "GenericError", "Job '%s' in state '%s' cannot accept command verb '%s'",
                  j->id, j->status, verb);
    }
    return true;
}

/* --- beginning ---------------------------------------------------------------------------------------------- */

struct beginning {
    struct qmp_cmd *c;
    struct vmd *d;
    int64_t vm;
    const char *type;
    char *id;
};

static void begin_free(struct beginning *b)
{
    free(b->id);
    free(b);
}

/* number 0: nothing was begun; error says why. */
static void begun(struct beginning *b, int64_t number, const char *error)
{
    struct vm *vm = vm_by_id(b->d, b->vm);
    struct qmp_cmd *c = b->c;
    struct qmp_snapjob *j;
    struct job *job;

    if (!vm || !vm->qmp || vm->qmp->n_snapjobs >= JOBS_MAX) {
        qmp_error(c, "GenericError", "%s",
                  error ? error : "too many jobs have ended: job-dismiss lets them go");
        begin_free(b);
        return;
    }
    qmp_return_nothing(c);
    j = xnew(struct qmp_snapjob);
    j->id = take_ptr(b->id);
    j->type = b->type;
    j->job = number;
    list_append(&vm->qmp->snapjobs, &j->link);
    vm->qmp->n_snapjobs++;
    begin_free(b);
    set_status(vm, j, "created");
    job = job_find(vm->d, number);
    if (error) {
        conclude(vm, j, error);
    } else if (job) {
        if (strcmp(j->type, "snapshot-load") == 0 && job_active(job)) {
            vm->qmp->loads = number;
        }
        follow(vm, j, &job->info);
    }
}

static void on_begun(void *arg, struct json_object *result, const struct api_error *x)
{
    begun(arg, x ? 0 : api_json_get_int(result, "job", 0), x ? x->message : NULL);
}

/* Each of the command's disks, by nodes or devices: true and named[i] of the VM's i-th. */
static bool find_disks(struct qmp_cmd *c, bool *named, char *why, size_t size)
{
    struct json_object *list = api_json_get(c->args, "devices");
    const char *state = qmp_arg(c, "vmstate");

    for (size_t i = 0; i < json_object_array_length(list); i++) {
        const char *name = json_object_get_string(json_object_array_get_idx(list, i));
        const struct api_disk *disk = qmp_disk(c, name);

        if (!disk) {
            snprintf(why, size, "No block device node '%s'", name);
            return false;
        }
        named[disk - c->vm->config.disks] = true;
    }
    if (state && !qmp_disk(c, state)) {
        snprintf(why, size, "No block device node '%s'", state);
        return false;
    }
    return true;
}

/* Those that can be written and were not named are left out. */
static void leave_out(struct qmp_cmd *c, const bool *named, struct json_object *params)
{
    struct json_object *list = json_object_new_array();

    for (size_t i = 0; i < c->vm->config.n_disks; i++) {
        const struct api_disk *disk = &c->vm->config.disks[i];

        if (!named[i] && !disk->readonly && !disk->cdrom) {
            struct json_object *o = qmp_named(disk->name);

            api_json_set_str(o, "snapshot", "no");
            json_object_array_add(list, o);
        }
    }
    api_json_set(params, "disks", list);
}

static void begin(struct qmp_cmd *c, const char *type, const char *method)
{
    const char *id = qmp_arg(c, "job-id");
    AUTO_FREE bool *named = xnew_n(bool, c->vm->config.n_disks + 1);
    struct json_object *params;
    struct beginning *b;
    char why[200];

    if (!qmp_id_ok(id)) {
        qmp_error(c, "GenericError", "Invalid job ID '%s'", id);
        return;
    }
    if (find(c->vm, id) || qmp_blockjob_is(c, id)) {
        qmp_error(c, "GenericError", "Job ID '%s' already in use", id);
        return;
    }
    b = xnew(struct beginning);
    *b = (struct beginning){
        .c = c, .d = c->d, .vm = c->vm->id, .type = type, .id = xstrdup(id)
    };
    if (c->vm->qmp && c->vm->qmp->n_snapjobs >= JOBS_MAX) {
        begun(b, 0, NULL);
        return;
    }
    if (!find_disks(c, named, why, sizeof(why))) {
        begun(b, 0, why);
        return;
    }
    params = qmp_vm_param(c);
    api_json_set_str(params, "name", qmp_arg(c, "tag"));
    if (strcmp(method, "snapshot.create") == 0) {
        api_json_set_str(params, "memory", "internal");
        leave_out(c, named, params);
    }
    api_call_nested(c->call, method, params, on_begun, b);
}

void qmp_do_snapshot_save(struct qmp_cmd *c)
{
    begin(c, "snapshot-save", "snapshot.create");
}

void qmp_do_snapshot_load(struct qmp_cmd *c)
{
    begin(c, "snapshot-load", "snapshot.revert");
}

void qmp_do_snapshot_delete(struct qmp_cmd *c)
{
    begin(c, "snapshot-delete", "snapshot.delete");
}

/* --- the human monitor ------------------------------------------------------------------------------------ */

/* One line; the last step's answer is the line's. */
struct line {
    struct vmd *d;
    int64_t vm;
    const char *method, *next; /* next NULL: none follows */
    char name[256];
};

static void step(struct qmp_cmd *c);

static void say_error(struct qmp_cmd *c, const char *why)
{
    AUTO_FREE char *text = xasprintf("Error: %s\r\n", why);

    qmp_return(c, json_object_new_string(text));
}

static void on_ended(void *arg, struct json_object *result, const struct api_error *x)
{
    struct qmp_cmd *c = arg;
    struct line *l = c->data;
    struct json_object *error = x ? NULL : api_json_get(result, "error");

    if (x || error) {
        const char *why = x ? x->message : api_json_get_str(error, "message");

        say_error(c, why ? why : "it failed");
    } else if (l->next) {
        l->method = l->next;
        l->next = NULL;
        step(c);
    } else {
        qmp_return(c, json_object_new_string(""));
    }
}

static void on_accepted(void *arg, struct json_object *result, const struct api_error *x)
{
    struct qmp_cmd *c = arg;
    struct line *l = c->data;
    struct vm *vm = vm_by_id(l->d, l->vm);
    int64_t number = x ? 0 : api_json_get_int(result, "job", 0);
    struct job *job = job_find(l->d, number);
    struct json_object *params;

    if (x) {
        say_error(c, x->message);
        return;
    }
    if (vm && vm->qmp && job && job_active(job) && strcmp(l->method, "snapshot.revert") == 0) {
        vm->qmp->loads = number;
    }
    params = json_object_new_object();
    api_json_set_int(params, "job", number);
    api_call_nested(c->call, "job.wait", params, on_ended, c);
}

static void step(struct qmp_cmd *c)
{
    struct line *l = c->data;
    struct vm *vm = vm_by_id(l->d, l->vm);
    struct json_object *params = json_object_new_object();

    api_json_set_str(params, "vm", vm ? vm->config.uuid : "");
    if (l->name[0]) {
        api_json_set_str(params, "name", l->name);
    }
    if (strcmp(l->method, "snapshot.create") == 0) {
        api_json_set_str(params, "memory", "internal");
    }
    api_call_nested(c->call, l->method, params, on_accepted, c);
}

bool qmp_snapshot_line(struct qmp_cmd *c, const char *command, size_t n, const char *name)
{
    static const struct {
        const char *command, *method;
    } lines[] = { { "savevm", "snapshot.create" },
                  { "loadvm", "snapshot.revert" },
                  { "delvm", "snapshot.delete" } };
    struct line *l;

    for (unsigned i = 0; i < ARRAY_LEN(lines); i++) {
        if (strlen(lines[i].command) != n || memcmp(lines[i].command, command, n) != 0) {
            continue;
        }
        if (!name[0] && i > 0) {
            AUTO_FREE char *text = xasprintf("%s: string expected\r\n", lines[i].command);

            qmp_return(c, json_object_new_string(text));
            return true;
        }
        l = xnew(struct line);
        *l = (struct line){ .d = c->d, .vm = c->vm->id, .method = lines[i].method };
        str_copy(l->name, sizeof(l->name), name);
        for (size_t end = strlen(l->name); end > 0 && l->name[end - 1] == ' '; end--) {
            l->name[end - 1] = 0;
        }
        c->data = l;
        if (i == 0 && snapshot_find(c->d, c->vm->config.uuid, l->name)) {
            l->next = l->method; /* it takes the place of the one that has its name */
            l->method = "snapshot.delete";
        }
        step(c);
        return true;
    }
    return false;
}

void qmp_snapshot_table(const struct vm *vm, struct buf *b)
{
    bool any = false;

    list_for_each (it, &vm->d->snapshots) {
        const struct snapshot *s = list_entry(it, struct snapshot, link);
        time_t at = (time_t)(s->info.created_ms / 1000);
        struct tm tm;
        char when[32], size[32];

        if (strcmp(s->vm, vm->config.uuid) != 0 || s->info.state != API_SNAPSHOT_STATE_KEPT ||
            !s->info.memory) {
            continue;
        }
        if (!any) {
            buf_printf(b, "List of snapshots present on all disks:\r\n%-9s %-16s %10s %19s\r\n",
                       "ID", "TAG", "VM SIZE", "DATE");
        }
        any = true;
        localtime_r(&at, &tm);
        strftime(when, sizeof(when), "%Y-%m-%d %H:%M:%S", &tm);
        snprintf(size, sizeof(size), "%.3g MiB", (double)s->info.bytes / (1 << 20));
        buf_printf(b, "%-9s %-16s %10s %19s\r\n", "--", s->info.name, size, when);
    }
    if (!any) {
        buf_add_str(b, "There is no snapshot available.\r\n");
    }
}
