/* SPDX-License-Identifier: Apache-2.0 */
/*
 * QMP's block jobs: jobs of the kinds disk.*, begun and told what to do by the methods of the API. A job has the name that QMP
 * gave it ("id" in its result), else its disk's. Loop thread.
 */
#include "api-schema/rpc/call.h"
#include "daemon/jobs.h"
#include "daemon/qmp/cmd.h"
#include "daemon/qmp/qmp.h"
#include "daemon/qmp/session.h"
#include "engine/base/mem.h"
#include "engine/base/str.h"

#include <stdio.h>
#include <string.h>

static const struct {
    const char *kind, *type;
} kinds[] = { { "disk.mirror", "mirror" },
              { "disk.backup", "backup" },
              { "disk.stream", "stream" },
              { "disk.commit", "commit" } };

/* What QMP calls it; NULL: no block job. */
static const char *type_of(const struct api_job *job)
{
    for (unsigned i = 0; i < ARRAY_LEN(kinds); i++) {
        if (strcmp(job->kind, kinds[i].kind) == 0) {
            return kinds[i].type;
        }
    }
    return NULL;
}

static const char *id_of(const struct api_job *job)
{
    const char *id = api_json_get_str(job->result, "id");
    const char *disk = api_json_get_str(job->result, "disk");

    return id ? id : disk ? disk : "";
}

static const char *status_of(const struct api_job *job)
{
    const char *state = api_json_get_str(job->result, "state");

    if (job->state == API_JOB_STATE_QUEUED || !state) {
        return "created";
    }
    return strcmp(state, "ending") == 0 || strcmp(state, "ended") == 0 ? "waiting" : state;
}

/* --- events ------------------------------------------------------------------------------------------- */

static struct json_object *job_data(const struct api_job *job)
{
    struct json_object *o = json_object_new_object();

    api_json_set_str(o, "device", id_of(job));
    api_json_set_int(o, "len", job->total);
    api_json_set_int(o, "offset", job->done);
    api_json_set_int(o, "speed", api_json_get_int(job->result, "speed", 0));
    api_json_set_str(o, "type", type_of(job));
    return o;
}

struct telling {
    void (*tell)(void *arg, const char *event, struct json_object *take_data);
    void *arg;
};

static void tell_status(const struct telling *t, const char *id, const char *status)
{
    struct json_object *o = json_object_new_object();

    api_json_set_str(o, "status", status);
    api_json_set_str(o, "id", id);
    t->tell(t->arg, "JOB_STATUS_CHANGE", o);
}

/* What failed has no result any more: its name is the one that was told before. */
static void tell_end(const struct telling *t, const struct api_job *job, const char *id)
{
    struct json_object *data = job_data(job);

    api_json_set_str(data, "device", id);
    if (job->state == API_JOB_STATE_DONE) {
        tell_status(t, id, "waiting");
        tell_status(t, id, "pending");
    } else {
        tell_status(t, id, "aborting");
    }
    if (job->state == API_JOB_STATE_FAILED && job->error) {
        api_json_set_str(data, "error", job->error->message);
    }
    t->tell(t->arg,
            job->state == API_JOB_STATE_CANCELLED ? "BLOCK_JOB_CANCELLED"
                                                  : "BLOCK_JOB_COMPLETED",
            data);
    tell_status(t, id, "concluded");
    tell_status(t, id, "null");
}

void qmp_blockjob_event(struct vmd *d, const struct api_job *job,
                        void (*tell)(void *arg, const char *event,
                                     struct json_object *take_data),
                        void *arg)
{
    const struct telling t = { tell, arg };
    struct job *j = type_of(job) ? job_find(d, job->job) : NULL;
    const char *now;

    if (!j) {
        return;
    }
    if (job->state != API_JOB_STATE_QUEUED && job->state != API_JOB_STATE_RUNNING) {
        tell_end(&t, job, id_of(job)[0] ? id_of(job) : j->name);
        return;
    }
    if (id_of(&j->info)
            [0]) { /* it got that after its first event was made, and loses it with its end */
        snprintf(j->name, sizeof(j->name), "%s", id_of(&j->info));
    }
    now = status_of(job);
    if (strcmp(now, j->told) == 0 || strcmp(now, "waiting") == 0) {
        return;
    }
    tell_status(&t, j->name, now);
    if (strcmp(now, "ready") == 0 && strcmp(j->told, "standby") != 0) {
        tell(arg, "BLOCK_JOB_READY", job_data(job));
    }
    snprintf(j->told, sizeof(j->told), "%s", now);
}

/* --- looking ------------------------------------------------------------------------------------------- */

struct looking {
    const char *uuid, *id;
    void (*each)(struct looking *l, struct job *job);
    struct job *found;
    struct json_object *list;
};

static void look_at(void *arg, struct job *job)
{
    struct looking *l = arg;

    if (job_active(job) && type_of(&job->info) && job->info.vm &&
        strcmp(job->info.vm, l->uuid) == 0) {
        l->each(l, job);
    }
}

static void is_it(struct looking *l, struct job *job)
{
    if (strcmp(id_of(&job->info), l->id) == 0) {
        l->found = job;
    }
}

static struct job *find(struct qmp_cmd *c, const char *id)
{
    struct looking l = { .uuid = c->vm->config.uuid, .id = id, .each = is_it };

    jobs_each(c->d, look_at, &l);
    return l.found;
}

bool qmp_blockjob_is(struct qmp_cmd *c, const char *id)
{
    return find(c, id) != NULL;
}

static void list_block_job(struct looking *l, struct job *job)
{
    struct json_object *o = job_data(&job->info);
    const char *status = status_of(&job->info);
    bool stands = strcmp(status, "paused") == 0 || strcmp(status, "standby") == 0;

    api_json_set_bool(o, "busy", !stands);
    api_json_set_bool(o, "paused", stands);
    api_json_set_str(o, "io-status", "ok");
    api_json_set_bool(o, "ready",
                      strcmp(status, "ready") == 0 || strcmp(status, "standby") == 0);
    api_json_set_str(o, "status", status);
    api_json_set_bool(o, "auto-finalize", true);
    api_json_set_bool(o, "auto-dismiss", true);
    json_object_array_add(l->list, o);
}

static void list_job(struct looking *l, struct job *job)
{
    struct json_object *o = json_object_new_object();

    api_json_set_str(o, "id", id_of(&job->info));
    api_json_set_str(o, "type", type_of(&job->info));
    api_json_set_str(o, "status", status_of(&job->info));
    api_json_set_int(o, "current-progress", job->info.done);
    api_json_set_int(o, "total-progress", job->info.total);
    json_object_array_add(l->list, o);
}

void qmp_do_query_block_jobs(struct qmp_cmd *c)
{
    struct looking l = { .uuid = c->vm->config.uuid,
                         .each = list_block_job,
                         .list = json_object_new_array() };

    jobs_each(c->d, look_at, &l);
    qmp_return(c, l.list);
}

void qmp_do_query_jobs(struct qmp_cmd *c)
{
    struct looking l = { .uuid = c->vm->config.uuid,
                         .each = list_job,
                         .list = json_object_new_array() };

    jobs_each(c->d, look_at, &l);
    qmp_snapshot_jobs(c->vm, l.list);
    qmp_return(c, l.list);
}

/* --- beginning ----------------------------------------------------------------------------------------- */

/* Arguments whose other values vmd has no meaning for. */
static const struct {
    const char *name, *only; /* word; "true" and "false" are booleans */
} only[] = {
    { "on-source-error", "report" }, { "on-target-error", "enospc" }, { "on-error", "report" },
    { "auto-finalize", "true" },     { "auto-dismiss", "true" },      { "compress", "false" },
    { "copy-mode", "background" },   { "bitmap-mode", "on-success" },
};

static bool understood(struct qmp_cmd *c)
{
    for (unsigned i = 0; i < ARRAY_LEN(only); i++) {
        struct json_object *v = api_json_get(c->args, only[i].name);
        const char *is = v ? json_object_get_string(v) : NULL;

        if (is && strcmp(is, only[i].only) != 0) {
            qmp_error(c, "GenericError", "'%s' is %s, always", only[i].name, only[i].only);
            return false;
        }
    }
    return true;
}

static const struct api_disk *disk_of(struct qmp_cmd *c, const char *class)
{
    const struct api_disk *disk = qmp_disk(c, qmp_arg(c, "device"));

    if (!disk) {
        qmp_error(c, class, "there is no device or node '%s'", qmp_arg(c, "device"));
    }
    return disk;
}

/* Parameters that all kinds have; NULL after the command was answered: without the disk by an error of that class. */
static struct json_object *common(struct qmp_cmd *c, const char *class)
{
    const char *id = qmp_arg(c, "job-id");
    const struct api_disk *disk = understood(c) ? disk_of(c, class) : NULL;
    struct json_object *p;

    if (!disk) {
        return NULL; /* answered: the command has gone */
    }
    int64_t speed = api_json_get_int(c->args, "speed", 0);
    if (find(c, id ? id : disk->name) || qmp_snapshot_job_is(c->vm, id ? id : disk->name)) {
        qmp_error(c, "GenericError", "job '%s' is there already", id ? id : disk->name);
        return NULL;
    }
    if (id && (!id[0] || strlen(id) >= sizeof(((struct job *)NULL)->name))) {
        qmp_error(c, "GenericError", "the name of a job has 1 to 127 bytes");
        return NULL;
    }
    if (speed < 0) {
        qmp_error(c, "GenericError", "a speed is not negative");
        return NULL;
    }
    p = qmp_vm_param(c);
    api_json_set_str(p, "disk", disk->name);
    if (id) {
        api_json_set_str(p, "id", id);
    }
    api_json_set_int(p, "speed", speed);
    return p;
}

/* Where a copy goes: a file by name, or a node (blockdev-add), which is there. False after the command was answered. */
static bool copy_target(struct qmp_cmd *c, struct json_object *p, bool node)
{
    const char *format = qmp_arg(c, "format"), *mode = qmp_arg(c, "mode");
    const char *file = qmp_arg(c, "target");
    const struct qmp_node *n = node ? qmp_node_free(c, file) : NULL;

    if (node && !n) {
        return false;
    }
    if (n) {
        file = n->file;
        format = n->format;
    } else if (str_starts(file, "file:")) {
        file += strlen("file:");
    }
    api_json_set_str(p, "file", file);
    if (format) {
        api_json_set_str(p, "image_format", format);
    }
    api_json_set_bool(p, "reuse", n || (mode && strcmp(mode, "existing") == 0));
    return true;
}

/* False after the command was answered. */
static bool copy_sync(struct qmp_cmd *c, struct json_object *p)
{
    const char *sync = qmp_arg(c, "sync"), *replaces = qmp_arg(c, "replaces");

    if (replaces && strcmp(replaces, api_json_get_str(p, "disk")) != 0) {
        qmp_error(c, "GenericError", "'replaces' is the disk itself, always");
        return false;
    }
    if (strcmp(sync, "incremental") != 0 && strcmp(sync, "bitmap") != 0) {
        api_json_set_str(p, "sync", sync);
    } else if (!qmp_arg(c, "bitmap")) {
        qmp_error(c, "GenericError", "sync '%s' needs a bitmap", sync);
        return false;
    } else {
        api_json_set_str(p, "bitmap", qmp_arg(c, "bitmap"));
    }
    return true;
}

struct json_object *qmp_copy_params(struct qmp_cmd *c, bool node)
{
    struct json_object *p = common(c, "GenericError");

    if (p && !(copy_sync(c, p) && copy_target(c, p, node))) {
        json_object_put(p);
        return NULL;
    }
    return p;
}

static void copy(struct qmp_cmd *c, const char *method, bool node)
{
    struct json_object *p = qmp_copy_params(c, node);

    if (p) {
        api_call_nested(c->call, method, p, qmp_on_done, c);
    }
}

void qmp_do_drive_mirror(struct qmp_cmd *c)
{
    copy(c, "disk.mirror", false);
}

void qmp_do_drive_backup(struct qmp_cmd *c)
{
    copy(c, "disk.backup", false);
}

void qmp_do_blockdev_mirror(struct qmp_cmd *c)
{
    copy(c, "disk.mirror", true);
}

void qmp_do_blockdev_backup(struct qmp_cmd *c)
{
    copy(c, "disk.backup", true);
}

void qmp_do_block_stream(struct qmp_cmd *c)
{
    struct json_object *p = common(c, "GenericError");

    if (p) {
        if (qmp_arg(c, "base")) {
            api_json_set_str(p, "base", qmp_arg(c, "base"));
        }
        api_call_nested(c->call, "disk.stream", p, qmp_on_done, c);
    }
}

void qmp_do_block_commit(struct qmp_cmd *c)
{
    struct json_object *p = common(c, "DeviceNotFound");

    if (p) {
        api_json_set_str(p, "base", qmp_arg(c, "base"));
        if (qmp_arg(c, "top")) {
            api_json_set_str(p, "top", qmp_arg(c, "top"));
        }
        api_call_nested(c->call, "disk.commit", p, qmp_on_done, c);
    }
}

/* --- telling ------------------------------------------------------------------------------------------- */

/* act NULL: only the speed. */
static void act_on(struct qmp_cmd *c, const struct job *job, const char *act)
{
    struct json_object *p = qmp_vm_param(c);

    api_json_set_str(p, "disk", api_json_get_str(job->info.result, "disk"));
    if (act) {
        api_json_set_str(p, "act", act);
    } else {
        api_json_set_int(p, "speed", api_json_get_int(c->args, "speed", 0));
    }
    api_call_nested(c->call, "disk.job", p, qmp_on_done, c);
}

static void block_job_act(struct qmp_cmd *c, const char *act)
{
    const struct job *job = find(c, qmp_arg(c, "device"));

    if (!job) {
        qmp_error(c, "DeviceNotActive", "Block job '%s' not found", qmp_arg(c, "device"));
    } else {
        act_on(c, job, act);
    }
}

/* act NULL: nothing of a block job. */
static void job_act(struct qmp_cmd *c, const char *verb, const char *act)
{
    const struct job *job = find(c, qmp_arg(c, "id"));

    if (qmp_snapshot_job_act(c, verb)) {
        return;
    }
    if (!job) {
        qmp_error(c, "GenericError", "Job not found");
    } else if (!act) {
        qmp_error(c, "GenericError", "job '%s' is %s and goes by itself when it has ended",
                  qmp_arg(c, "id"), status_of(&job->info));
    } else {
        act_on(c, job, act);
    }
}

void qmp_do_block_job_cancel(struct qmp_cmd *c)
{
    block_job_act(c, api_json_get_bool(c->args, "force", false) ? "cancel" : "finish");
}

void qmp_do_block_job_set_speed(struct qmp_cmd *c)
{
    if (api_json_get_int(c->args, "speed", 0) < 0) {
        qmp_error(c, "GenericError", "a speed is not negative");
    } else {
        block_job_act(c, NULL);
    }
}

#define BLOCK_JOB(name, act)                                                                   \
    void qmp_do_##name(struct qmp_cmd *c)                                                      \
    {                                                                                          \
        block_job_act(c, act);                                                                 \
    }
#define JOB(name, verb, act)                                                                   \
    void qmp_do_##name(struct qmp_cmd *c)                                                      \
    {                                                                                          \
        job_act(c, verb, act);                                                                 \
    }

BLOCK_JOB(block_job_pause, "pause")
BLOCK_JOB(block_job_resume, "resume")
BLOCK_JOB(block_job_complete, "complete")
JOB(job_pause, "pause", "pause")
JOB(job_resume, "resume", "resume")
JOB(job_cancel, "cancel", "cancel")
JOB(job_complete, "complete", "complete")
JOB(job_dismiss, "dismiss", NULL)
JOB(job_finalize, "finalize", NULL)
