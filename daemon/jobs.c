/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The table of jobs in memory and its rows in the store. Owns struct job. Loop thread.
 */
#include "daemon/jobs.h"

#include "api-schema/json/json.h"
#include "daemon/daemon.h"
#include "daemon/events.h"
#include "daemon/run/proc.h"
#include "engine/base/hash.h"
#include "engine/base/log.h"
#include "engine/base/mem.h"

#include <string.h>

struct jobs {
    struct vmd *d;
    struct hash *by_id;
    struct list all; /* oldest first */
    int64_t next_id;
};

struct jobs *jobs_new(struct vmd *d)
{
    struct jobs *j = xnew(struct jobs);
    j->d = d;
    j->by_id = hash_new_u64();
    j->next_id = 1;
    list_init(&j->all);
    return j;
}

static void job_free(struct jobs *j, struct job *job)
{
    hash_del_u64(j->by_id, (uint64_t)job->info.job);
    list_remove(&job->link);
    api_release(&api_type_job, &job->info);
    free(job);
}

void jobs_free(struct jobs *j)
{
    if (!j) {
        return;
    }
    while (!list_empty(&j->all)) {
        job_free(j, list_entry(j->all.next, struct job, link));
    }
    hash_free(j->by_id);
    free(j);
}

bool job_active(const struct job *job)
{
    return job->info.state == API_JOB_STATE_QUEUED || job->info.state == API_JOB_STATE_RUNNING;
}

static void job_link(struct jobs *j, struct job *job)
{
    list_init(&job->waiters);
    list_append(&j->all, &job->link);
    hash_put_u64(j->by_id, (uint64_t)job->info.job, job);
    /* As many as the store keeps; those that go on stay. */
    for (struct list *n = j->all.next;
         hash_count(j->by_id) > STORE_JOBS_KEPT && n != &j->all;) {
        struct job *old = list_entry(n, struct job, link);
        n = n->next;
        if (!job_active(old) && list_empty(&old->waiters)) {
            job_free(j, old);
        }
    }
}

static void load_one(void *arg, const struct store_job *row)
{
    struct jobs *j = arg;
    AUTO_JSON o = NULL;
    struct err e = ERR_INIT;
    struct api_error x = API_ERROR_INIT;
    struct job *job = xnew(struct job);
    if (api_json_parse(row->body, strlen(row->body), &o, &e) < 0 ||
        api_decode(&api_type_job, o, API_LENIENT, "job", &job->info, &x) < 0) {
        log_warn("daemon", "job %lld left out: %s", (long long)row->id,
                 x.code ? x.message : e.msg);
        free(job);
        return;
    }
    job->owner = row->owner;
    job_link(j, job);
}

int jobs_load(struct jobs *j, struct err *e)
{
    int64_t vm, event;
    int rc = store_load_jobs(j->d->store, load_one, j, e);
    return rc < 0 ? rc : store_next_ids(j->d->store, &vm, &j->next_id, &event, e);
}

static void job_tell(struct job *job, struct change *c)
{
    AUTO_JSON o = api_encode(&api_type_job, &job->info);
    store_tx_job_put(change_tx(c), &(struct store_job){ .id = job->info.job,
                                                        .owner = job->owner,
                                                        .active = job_active(job),
                                                        .body = api_json_text(o) });
    change_event(c, &(struct api_event){ .type = API_EVENT_TYPE_JOB,
                                         .vm = job->info.vm,
                                         .name = job->info.name,
                                         .job = &job->info });
}

struct job *job_new(struct vmd *d, struct change *c, const char *kind, const char *vm_uuid,
                    const char *vm_name, int64_t total, const char *unit, int64_t owner,
                    struct json_object *take_result)
{
    struct job *job = xnew(struct job);
    job->info = (struct api_job){ .job = d->jobs->next_id++,
                                  .kind = xstrdup(kind),
                                  .vm = xstrdup(vm_uuid),
                                  .name = xstrdup(vm_name),
                                  .state = API_JOB_STATE_QUEUED,
                                  .total = total,
                                  .unit = xstrdup(unit),
                                  .created_ms = time_real_ns() / 1000000,
                                  .result = take_result };
    job->owner = owner;
    job_link(d->jobs, job);
    job_tell(job, c);
    return job;
}

void job_forget(struct vmd *d, struct job *job)
{
    job_free(d->jobs, job);
}

void job_progress(struct job *job, struct change *c, int64_t done)
{
    job->info.state = API_JOB_STATE_RUNNING;
    job->info.done = done;
    job_tell(job, c);
}

void job_end(struct vmd *d, struct job *job, struct change *c, const struct api_error *x,
             struct json_object *take_result)
{
    (void)d;
    struct api_job *i = &job->info;
    i->has_ended_ms = true;
    i->ended_ms = time_real_ns() / 1000000;
    job->on_cancel = NULL;
    if (!x) {
        i->state = API_JOB_STATE_DONE;
        i->done = i->total;
        i->result = take_result;
    } else {
        json_object_put(take_result);
        i->state = x->code == API_E_CANCELLED && job->cancel ? API_JOB_STATE_CANCELLED
                                                             : API_JOB_STATE_FAILED;
        i->error = xnew(struct api_job_error);
        *i->error = (struct api_job_error){ .code = x->code,
                                            .error = xstrdup(api_code_name(x->code)),
                                            .message = xstrdup(x->message),
                                            .object = x->object[0] ? xstrdup(x->object) : NULL,
                                            .remedy = x->remedy[0] ? xstrdup(x->remedy)
                                                                   : NULL };
    }
    job_tell(job, c);
}

struct job *job_find(struct vmd *d, int64_t id)
{
    return id > 0 ? hash_get_u64(d->jobs->by_id, (uint64_t)id) : NULL;
}

void jobs_each(struct vmd *d, void (*fn)(void *arg, struct job *job), void *arg)
{
    struct list *prev;
    for (struct list *n = d->jobs->all.prev; n != &d->jobs->all; n = prev) {
        prev = n->prev;
        fn(arg, list_entry(n, struct job, link));
    }
}

unsigned jobs_active(struct vmd *d)
{
    unsigned n = 0;
    list_for_each (l, &d->jobs->all) {
        n += job_active(list_entry(l, struct job, link));
    }
    return n;
}
