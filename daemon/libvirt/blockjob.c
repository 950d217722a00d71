/* SPDX-License-Identifier: Apache-2.0 */
/* Jobs on disks of domains that run: copies, commits, pulls; and jobs on whole domains, as tools look at them. */
#include "daemon/daemon.h"
#include "daemon/jobs.h"
#include "daemon/libvirt/call.h"
#include "daemon/libvirt/jobs.h"
#include "daemon/libvirt/parts.h"
#include "daemon/libvirt/procs.h"
#include "daemon/registry.h"
#include "daemon/vm/backup.h"
#include "daemon/xml/tree.h"
#include "daemon/run/proc.h"

#include <string.h>

enum { MIB = 1 << 20 };

/* --- beginning ------------------------------------------------------------------------------------------ */

/* {vm, disk} of the argument `what`; NULL: the call has failed. */
static struct json_object *of_disk(struct lv_call *c, const char *what)
{
    const struct vm *vm = lv_the_vm(c);
    struct json_object *params;
    char name[80];
    int at = lv_disk(c, vm, lv_str(c, what));

    if (at < 0) {
        return NULL;
    }
    lv_disk_name(vm, at, name, sizeof(name));
    params = lv_vm(c);
    api_json_set_str(params, "disk", name);
    return params;
}

/* The file of the argument `what`, which may be said by the disk's name. */
static const char *file_of(struct lv_call *c, const char *what)
{
    return lv_str(c, what) && lv_str(c, what)[0] ? lv_str(c, what) : NULL;
}

/* A bandwidth of a call: MiB a second, or bytes. */
static void set_speed(struct json_object *params, int64_t bandwidth, bool bytes)
{
    if (bandwidth > 0) {
        api_json_set_int(params, "speed",
                         bytes                         ? bandwidth
                         : bandwidth < INT64_MAX / MIB ? bandwidth * MIB
                                                       : INT64_MAX);
    }
}

/* Once the emulator has it: from then on it can be looked at, told something and ended. One that cannot begin fails the call. */
static void on_beginning(struct lv_call *c, struct json_object *job)
{
    enum { LOOK_AGAIN_MS = 20 };
    const char *state = api_json_get_str(job, "state"),
               *why = api_json_get_str(api_json_get(job, "error"), "message");
    struct json_object *params;

    if (state && (strcmp(state, "failed") == 0 || strcmp(state, "cancelled") == 0)) {
        lv_fail(c, LV_E_OPERATION_FAILED, "%s", why ? why : "it was cancelled");
    } else if (api_json_get(job, "ended_ms") ||
               api_json_get(api_json_get(job, "result"), "state")) {
        lv_reply(c, NULL);
    } else {
        params = json_object_new_object();
        api_json_set_int(params, "job", c->number);
        if (job) {
            api_json_set_int(params, "timeout_ms", LOOK_AGAIN_MS);
        }
        c->late = true; /* when that time is over it is looked at again */
        lv_ask(c, "domain", job ? "job.wait" : "job.get", params, on_beginning);
    }
}

static void on_accepted(struct lv_call *c, struct json_object *result)
{
    c->number = api_json_get_int(result, "job", 0);
    on_beginning(c, NULL);
}

static void pull(struct lv_call *c, const char *base, bool bytes)
{
    struct json_object *params = of_disk(c, "path");

    if (params) {
        if (base) {
            api_json_set_str(params, "base", base);
        }
        set_speed(params, lv_int(c, "bandwidth"), bytes);
        lv_ask(c, "domain", "disk.stream", params, on_accepted);
    }
}

void lv_do_domain_block_pull(struct lv_call *c)
{
    enum { BYTES = 64 };

    pull(c, NULL, lv_int(c, "flags") & BYTES);
}

static void copy(struct lv_call *c, const char *file, const char *format, int64_t bandwidth,
                 bool bytes, bool shallow, bool reuse)
{
    struct json_object *params = of_disk(c, "path");

    if (!params) {
        return;
    }
    api_json_set_str(params, "file", file);
    api_json_set_str(params, "image_format", format);
    api_json_set_str(params, "sync", shallow ? "top" : "full");
    api_json_set_bool(params, "reuse", reuse);
    set_speed(params, bandwidth, bytes);
    lv_ask(c, "domain", "disk.mirror", params, on_accepted);
}

/* The format of the disk's own image; NULL: the call has failed. */
static const char *own_format(struct lv_call *c)
{
    const struct vm *vm = lv_the_vm(c);
    int at = lv_disk(c, vm, lv_str(c, "path"));

    return at < 0 ? NULL : api_disk_format_name(vm->config.disks[at].format);
}

void lv_do_domain_block_rebase(struct lv_call *c)
{
    enum { SHALLOW = 1, REUSE = 2, RAW = 4, COPY = 8, BYTES = 64, KNOWN = 79 };
    int64_t flags = lv_int(c, "flags");
    const char *format;

    if (flags & ~KNOWN) {
        lv_fail(c, LV_E_ARGUMENT_UNSUPPORTED, "copies go to files, whose names are whole");
    } else if (!(flags & COPY)) {
        pull(c, file_of(c, "base"), flags & BYTES);
    } else if (!file_of(c, "base")) {
        lv_fail(c, LV_E_INVALID_ARG, "a copy has the name of a file");
    } else {
        format = flags & RAW ? "raw" : own_format(c);
        if (format) {
            copy(c, file_of(c, "base"), format, lv_int(c, "bandwidth"), flags & BYTES,
                 flags & SHALLOW, flags & REUSE);
        }
    }
}

/* <disk type='file'><source file='...'/><driver type='...'/></disk> */
void lv_do_domain_block_copy(struct lv_call *c)
{
    static const char *const known[] = { "bandwidth", NULL };
    enum { SHALLOW = 1, REUSE = 2, KNOWN = 3 };
    const char *text = lv_str(c, "destxml"), *file = NULL, *format = NULL;
    int64_t flags = lv_int(c, "flags");
    struct err e = ERR_INIT;
    const struct xml_node *source, *driver;

    if (!lv_only(c, known)) {
        return;
    }
    struct xml_node *root = xml_read(text, strlen(text), &e);
    if (!root) {
        lv_fail(c, LV_E_XML, "%s", e.msg);
        return;
    }
    source = xml_get_kid(root, "source");
    driver = xml_get_kid(root, "driver");
    file = source ? xml_get_attr(source, "file") : NULL;
    format = driver ? xml_get_attr(driver, "type") : NULL;
    if (!file || (flags & ~KNOWN)) {
        lv_fail(c, LV_E_ARGUMENT_UNSUPPORTED, "copies go to files: <source file='...'/>");
    } else {
        copy(c, file, format ? format : "raw", json_object_get_int64(lv_given(c, "bandwidth")),
             true, flags & SHALLOW, flags & REUSE);
    }
    xml_node_free(root);
}

void lv_do_domain_block_commit(struct lv_call *c)
{
    enum { ACTIVE = 4, BYTES = 16, KNOWN = 20 };
    int64_t flags = lv_int(c, "flags");
    const struct vm *vm = lv_the_vm(c);
    struct json_object *params = NULL;
    const char *top = file_of(c, "top"), *base = file_of(c, "base");

    if (flags & ~KNOWN) {
        lv_fail(c, LV_E_ARGUMENT_UNSUPPORTED,
                "images stay when they were committed, and their names are whole");
        return;
    }
    if (!base) {
        lv_fail(c, LV_E_ARGUMENT_UNSUPPORTED, "say which image is written to: --base FILE");
        return;
    }
    params = of_disk(c, "disk");
    if (!params) {
        return;
    }
    int at = lv_disk(c, vm, lv_str(c, "disk"));
    bool active = !top ||
                  (vm->config.disks[at].file && strcmp(vm->config.disks[at].file, top) == 0);
    if (active && !(flags & ACTIVE)) {
        json_object_put(params);
        lv_fail(c, LV_E_INVALID_ARG, "--active: it is the disk's own image that is committed");
        return;
    }
    if (!active) {
        api_json_set_str(params, "top", top);
    }
    set_speed(params, lv_int(c, "bandwidth"), flags & BYTES);
    api_json_set_str(params, "base", base);
    lv_ask(c, "domain", "disk.commit", params, on_accepted);
}

/* --- looking, telling ------------------------------------------------------------------------------------- */

int lv_block_job_type(const char *kind)
{
    static const struct {
        const char *kind;
        int type;
    } kinds[] = {
        { "disk.stream", 1 }, { "disk.mirror", 2 }, { "disk.commit", 3 }, { "disk.backup", 5 }
    };

    for (unsigned i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        if (kind && strcmp(kind, kinds[i].kind) == 0) {
            return kinds[i].type;
        }
    }
    return 0;
}

/* The job of the argument "path" that is alive; NULL: there is none. Sets *failed when the call has failed. */
static struct json_object *job_of(struct lv_call *c, struct json_object *result, bool *failed)
{
    struct json_object *jobs = api_json_get(result, "jobs");
    const struct vm *vm = lv_the_vm(c);
    char name[80];
    int at = lv_disk(c, vm, lv_str(c, "path"));

    *failed = at < 0;
    if (at < 0) {
        return NULL;
    }
    lv_disk_name(vm, at, name, sizeof(name));
    for (size_t i = 0; i < json_object_array_length(jobs); i++) {
        struct json_object *job = json_object_array_get_idx(jobs, i),
                           *r = api_json_get(job, "result");
        const char *uuid = api_json_get_str(job, "vm"), *disk = api_json_get_str(r, "disk");
        if (uuid && disk && strcmp(uuid, vm->config.uuid) == 0 && strcmp(disk, name) == 0 &&
            lv_block_job_type(api_json_get_str(job, "kind"))) {
            return job;
        }
    }
    return NULL;
}

static bool is_ready(struct json_object *job)
{
    const char *state = api_json_get_str(api_json_get(job, "result"), "state");

    return state && strcmp(state, "ready") == 0;
}

static void active_jobs(struct lv_call *c,
                        void (*then)(struct lv_call *c, struct json_object *r))
{
    struct json_object *params = json_object_new_object();

    api_json_set_bool(params, "active", true);
    lv_ask(c, NULL, "job.list", params, then);
}

static void on_look(struct lv_call *c, struct json_object *result)
{
    enum { BYTES = 1 };
    struct json_object *o, *job;
    bool failed;

    job = job_of(c, result, &failed);
    if (failed) {
        return;
    }
    o = json_object_new_object();
    if (job) {
        int64_t done = api_json_get_int(job, "done", 0),
                total = api_json_get_int(job, "total", 0),
                speed = api_json_get_int(api_json_get(job, "result"), "speed", 0);
        bool ready = is_ready(job);
        api_json_set_int(o, "found", 1);
        api_json_set_int(o, "type", lv_block_job_type(api_json_get_str(job, "kind")));
        api_json_set_int(o, "bandwidth", lv_int(c, "flags") & BYTES ? speed : speed / MIB);
        /* Equal means ready, nothing else does. */
        api_json_set_int(o, "cur", ready ? total : done < total ? done : total);
        api_json_set_int(o, "end", ready || done < total ? total : total + 1);
    }
    lv_reply(c, o);
}

void lv_do_domain_block_job(struct lv_call *c)
{
    active_jobs(c, on_look);
}

static void on_told(struct lv_call *c, struct json_object *result)
{
    enum { ASYNC = 1 };
    struct json_object *o;

    (void)result;
    if (lv_int(c, "flags") & ASYNC) {
        lv_reply(c, NULL);
        return;
    }
    o = json_object_new_object();
    api_json_set_int(o, "job", c->number);
    lv_wait_any(c, o);
    json_object_put(o);
}

static void on_abort(struct lv_call *c, struct json_object *result)
{
    enum { PIVOT = 2 };
    struct json_object *job, *params;
    bool failed, pivot = lv_int(c, "flags") & PIVOT;

    job = job_of(c, result, &failed);
    if (failed) {
        return;
    }
    if (!job) {
        lv_fail(c, LV_E_OPERATION_INVALID, "no job is at work on disk '%s'", lv_str(c, "path"));
        return;
    }
    if (pivot && !is_ready(job)) {
        lv_fail(c, LV_E_OPERATION_INVALID, "the copy of disk '%s' is not ready for it",
                lv_str(c, "path"));
        return;
    }
    c->number = api_json_get_int(job, "job", 0);
    params = of_disk(c, "path");
    if (params) {
        api_json_set_str(params, "act",
                         pivot           ? "complete"
                         : is_ready(job) ? "finish"
                                         : "cancel");
        lv_ask(c, "domain", "disk.job", params, on_told);
    }
}

void lv_do_domain_block_job_abort(struct lv_call *c)
{
    active_jobs(c, on_abort);
}

void lv_do_domain_block_job_speed(struct lv_call *c)
{
    enum { BYTES = 1 };
    struct json_object *params = of_disk(c, "path");
    int64_t bandwidth = lv_int(c, "bandwidth");

    if (params) {
        api_json_set_int(params, "speed", 0);
        set_speed(params, bandwidth, lv_int(c, "flags") & BYTES);
        lv_ask(c, "domain", "disk.job", params, lv_done);
    }
}

/* --- jobs on whole domains ---------------------------------------------------------------------------------- */

enum { JOB_NONE = 0, JOB_BOUNDED = 1, JOB_UNBOUNDED = 2 };

bool lv_is_backup(struct json_object *job, const struct vm *vm)
{
    const char *uuid = api_json_get_str(job, "vm"), *kind = api_json_get_str(job, "kind");

    return uuid && kind && strcmp(uuid, vm->config.uuid) == 0 &&
           strcmp(kind, "disk.backup") == 0;
}

/* The job that has the whole domain, else one of a backup; NULL: none. */
static struct json_object *whole_job(struct lv_call *c, struct json_object *result)
{
    struct json_object *jobs = api_json_get(result, "jobs"), *backup = NULL;
    const struct vm *vm = lv_the_vm(c);

    for (size_t i = 0; vm && i < json_object_array_length(jobs); i++) {
        struct json_object *job = json_object_array_get_idx(jobs, i);
        const char *uuid = api_json_get_str(job, "vm"), *kind = api_json_get_str(job, "kind");
        if (uuid && strcmp(uuid, vm->config.uuid) == 0 && !lv_block_job_type(kind)) {
            return job;
        }
        backup = lv_is_backup(job, vm) ? job : backup;
    }
    return backup;
}

struct progress {
    int64_t type, done, total, ms;
    bool memory;
};

static struct progress progress_of(struct json_object *job)
{
    struct progress p = { .type = JOB_NONE };
    const char *unit = api_json_get_str(job, "unit");

    if (job) {
        p.done = api_json_get_int(job, "done", 0);
        p.total = api_json_get_int(job, "total", 0);
        p.type = p.total ? JOB_BOUNDED : JOB_UNBOUNDED;
        p.ms = time_real_ns() / 1000000 - api_json_get_int(job, "created_ms", 0);
        p.memory = unit && strcmp(unit, "bytes") == 0;
    }
    return p;
}

static void on_job_info(struct lv_call *c, struct json_object *result)
{
    struct progress p = progress_of(whole_job(c, result));
    struct json_object *o = json_object_new_object();

    api_json_set_int(o, "type", p.type);
    api_json_set_int(o, "time_elapsed", p.ms);
    if (p.memory) {
        api_json_set_int(o, "data_total", p.total);
        api_json_set_int(o, "data_processed", p.done);
        api_json_set_int(o, "data_remaining", p.total > p.done ? p.total - p.done : 0);
        api_json_set_int(o, "mem_total", p.total);
        api_json_set_int(o, "mem_processed", p.done);
        api_json_set_int(o, "mem_remaining", p.total > p.done ? p.total - p.done : 0);
    }
    lv_reply(c, o);
}

void lv_do_domain_job_info(struct lv_call *c)
{
    active_jobs(c, on_job_info);
}

/* virDomainJobOperation */
static int operation_of(const char *kind)
{
    static const struct {
        const char *kind;
        int operation;
    } known[] = {
        { "vm.save", 2 }, { "vm.migrate", 5 }, { "vm.dump", 8 }, { "disk.backup", 9 }
    };

    for (unsigned i = 0; kind && i < ARRAY_LEN(known); i++) {
        if (strcmp(kind, known[i].kind) == 0) {
            return known[i].operation;
        }
    }
    return 0;
}

static void on_job_stats(struct lv_call *c, struct json_object *result)
{
    enum { COMPLETED = 1 };
    bool past = lv_int(c, "flags") & COMPLETED;
    struct json_object *job = past ? NULL : whole_job(c, result);
    struct progress p = progress_of(job);
    struct json_object *o = json_object_new_object(), *list = json_object_new_array();

    if (p.type != JOB_NONE) {
        lv_param(list, "operation", 'i', operation_of(api_json_get_str(job, "kind")));
        lv_param(list, "time_elapsed", 'H', p.ms);
    }
    if (p.memory) {
        static const char *const sets[] = { "data", "memory" };

        for (unsigned i = 0; i < ARRAY_LEN(sets); i++) {
            AUTO_FREE char *total = xasprintf("%s_total", sets[i]),
                           *done = xasprintf("%s_processed", sets[i]),
                           *left = xasprintf("%s_remaining", sets[i]);

            lv_param(list, total, 'H', p.total);
            lv_param(list, done, 'H', p.done);
            lv_param(list, left, 'H', p.total > p.done ? p.total - p.done : 0);
        }
    }
    api_json_set_int(o, "type", p.type);
    api_json_set(o, "params", list);
    lv_reply(c, o);
}

void lv_do_domain_job_stats(struct lv_call *c)
{
    active_jobs(c, on_job_stats);
}

static void on_abort_whole(struct lv_call *c, struct json_object *result);

static void on_one_ended(struct lv_call *c, struct json_object *job)
{
    (void)job;
    active_jobs(c, on_abort_whole);
}

static void on_one_told(struct lv_call *c, struct json_object *result)
{
    struct json_object *params = json_object_new_object();

    (void)result;
    api_json_set_int(params, "job", c->number);
    lv_ask(c, NULL, "job.wait", params, on_one_ended);
}

/* A backup is a job for each of its disks: all of them end, one after the other. */
static void on_abort_whole(struct lv_call *c, struct json_object *result)
{
    struct json_object *job = whole_job(c, result), *params;
    const struct vm *vm = lv_the_vm(c);

    if (!job && c->number) {
        lv_reply(c, NULL);
        return;
    }
    if (!job) {
        lv_fail(c, LV_E_OPERATION_INVALID, "no job is active on the domain");
        return;
    }
    params = json_object_new_object();
    api_json_set_int(params, "job", api_json_get_int(job, "job", 0));
    if (vm && lv_is_backup(job, vm) && backups_any(vm)) {
        json_object_put(params);
        lv_ask(c, "domain", "backup.end", lv_vm(c), lv_done);
    } else if (vm && lv_is_backup(job, vm)) {
        c->number = api_json_get_int(job, "job", 0);
        lv_ask(c, NULL, "job.cancel", params, on_one_told);
    } else {
        lv_ask(c, NULL, "job.cancel", params, lv_done);
    }
}

void lv_do_domain_abort_job(struct lv_call *c)
{
    active_jobs(c, on_abort_whole);
}
