/* SPDX-License-Identifier: Apache-2.0 */
/*
 * QMP commands and events about migration: what migrate.start does, in QEMU's words. Capabilities and parameters are kept with the VM's
 * run, as QEMU keeps them with its process. Loop thread.
 */
#include "api-schema/rpc/call.h"
#include "daemon/jobs.h"
#include "daemon/qmp/cmd.h"
#include "daemon/qmp/qmp.h"
#include "daemon/qmp/session.h"
#include "daemon/vm/migrate.h"
#include "engine/base/mem.h"
#include "engine/base/str.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#define KIND "vm.migrate"
#define PAGE 4096

/* --- capabilities ----------------------------------------------------------------------------------------- */

enum { CAP_XBZRLE, CAP_AUTO_CONVERGE, CAP_EVENTS, CAP_MULTIFD, CAP_RETURN_PATH, CAP_OTHERS };

/* In the order of enum; those from CAP_OTHERS on are never on. */
static const char *const caps[] = { "xbzrle",
                                    "auto-converge",
                                    "events",
                                    "multifd",
                                    "return-path",
                                    "rdma-pin-all",
                                    "zero-blocks",
                                    "compress",
                                    "postcopy-ram",
                                    "x-colo",
                                    "release-ram",
                                    "block",
                                    "pause-before-switchover",
                                    "dirty-bitmaps",
                                    "postcopy-blocktime",
                                    "late-block-activate",
                                    "x-ignore-shared",
                                    "validate-uuid",
                                    "background-snapshot",
                                    "zero-copy-send" };

void qmp_migration_init(struct qmp_migration *m)
{
    *m = (struct qmp_migration){ .streams = 2, .downtime_ms = 30, .cache = 64 << 20 };
}

static bool has(const struct qmp_migration *m, unsigned cap)
{
    return m->caps >> cap & 1;
}

/* NULL after the command was answered: the VM does not run. */
static struct qmp_migration *migration_of(struct qmp_cmd *c)
{
    if (!c->vm->qmp) {
        qmp_error(c, "GenericError", "VM '%s' is %s", c->vm->config.name,
                  api_vm_state_name(c->vm->state));
        return NULL;
    }
    return &c->vm->qmp->migration;
}

void qmp_do_query_migrate_capabilities(struct qmp_cmd *c)
{
    const struct qmp_migration *m = migration_of(c);
    struct json_object *list;

    if (!m) {
        return;
    }
    list = json_object_new_array();
    for (unsigned i = 0; i < ARRAY_LEN(caps); i++) {
        struct json_object *o = json_object_new_object();

        api_json_set_bool(o, "state", has(m, i));
        api_json_set_str(o, "capability", caps[i]);
        json_object_array_add(list, o);
    }
    qmp_return(c, list);
}

static unsigned cap_of(const char *name)
{
    unsigned i = 0;

    while (i < ARRAY_LEN(caps) && strcmp(caps[i], name) != 0) {
        i++;
    }
    return i;
}

/* --- the migration at work ------------------------------------------------------------------------------------ */

struct seen {
    const char *uuid;
    bool found;
    enum api_migration_state state;
    int64_t job, rounds;
    bool check;
};

static void see(void *arg, const struct api_migration *m)
{
    struct seen *s = arg;

    if (strcmp(m->uuid, s->uuid) == 0) {
        s->found = true;
        s->state = m->state;
        s->job = m->has_job ? m->job : 0;
        s->rounds = m->has_rounds ? m->rounds : 0;
        s->check = m->check;
    }
}

/* Of those that go from here; one that stayed here is over. */
static struct seen look(const struct vm *vm)
{
    struct seen s = { .uuid = vm->config.uuid };

    migrate_outs_each(vm->d, see, &s);
    s.found = s.found && !s.check && s.state != API_MIGRATION_STATE_BACK;
    return s;
}

static const char *status_of(enum api_migration_state state)
{
    return state == API_MIGRATION_STATE_PREPARING ? "setup"
           : state == API_MIGRATION_STATE_COPYING ? "active"
                                                  : "device";
}

/* Answers the command when one is at work. */
static bool at_work(struct qmp_cmd *c)
{
    if (look(c->vm).found) {
        qmp_error(c, "GenericError", "There's a migration process in progress");
        return true;
    }
    return false;
}

void qmp_do_migrate_set_capabilities(struct qmp_cmd *c)
{
    struct qmp_migration *m = migration_of(c);
    struct json_object *list = api_json_get(c->args, "capabilities");
    uint32_t now;

    if (!m || at_work(c)) {
        return;
    }
    now = m->caps;
    for (size_t i = 0; i < json_object_array_length(list); i++) {
        struct json_object *o = json_object_array_get_idx(list, i);
        const char *name = api_json_get_str(o, "capability");
        unsigned cap = cap_of(name);
        bool on = api_json_get_bool(o, "state", false);

        if (on && cap >= CAP_OTHERS) {
            qmp_error(c, "GenericError", "Capability %s is not supported", name);
            return;
        }
        now = on ? now | 1U << cap : now & ~(1U << cap);
    }
    m->caps = now;
    qmp_return_nothing(c);
}

/* --- parameters ------------------------------------------------------------------------------------------------ */

static const struct {
    const char *name;
    int64_t min, max;
    size_t at;
} params[] = {
    { "downtime-limit", 1, 100000, offsetof(struct qmp_migration, downtime_ms) },
    { "max-bandwidth", 0, INT64_C(1) << 40, offsetof(struct qmp_migration, bandwidth) },
    { "multifd-channels", 1, 16, offsetof(struct qmp_migration, streams) },
    { "xbzrle-cache-size", PAGE, INT64_C(1) << 34, offsetof(struct qmp_migration, cache) },
};

void qmp_do_query_migrate_parameters(struct qmp_cmd *c)
{
    const struct qmp_migration *m = migration_of(c);
    struct json_object *o;

    if (!m) {
        return;
    }
    o = json_object_new_object();
    for (unsigned i = 0; i < ARRAY_LEN(params); i++) {
        int64_t v;

        memcpy(&v, (const char *)m + params[i].at, sizeof(v));
        api_json_set_int(o, params[i].name, v);
    }
    api_json_set_str(o, "tls-creds", "");
    api_json_set_str(o, "tls-hostname", "");
    qmp_return(c, o);
}

static void on_limits(struct qmp_cmd *c, struct json_object *result)
{
    (void)result;
    qmp_return_nothing(c);
}

/* The emulator is told of limits that hold from now on. */
static void limit_at_work(struct qmp_cmd *c, const struct qmp_migration *m)
{
    struct json_object *o = json_object_new_object();

    api_json_set_int(o, "bandwidth", m->bandwidth);
    api_json_set_int(o, "downtime_ms", m->downtime_ms);
    qmp_ask(c, "emu.migrate_set", o, on_limits);
}

void qmp_do_migrate_set_parameters(struct qmp_cmd *c)
{
    struct qmp_migration *m = migration_of(c), now;
    const char *tls = qmp_arg(c, "tls-creds"), *host = qmp_arg(c, "tls-hostname");
    struct seen s;

    if (!m) {
        return;
    }
    now = *m;
    for (unsigned i = 0; i < ARRAY_LEN(params); i++) {
        int64_t v;

        memcpy(&v, (char *)&now + params[i].at, sizeof(v));
        v = api_json_get_int(c->args, params[i].name, v);
        if (v < params[i].min || v > params[i].max) {
            qmp_error(c, "GenericError",
                      "Parameter '%s' expects an integer in the range of "
                      "%lld to %lld",
                      params[i].name, (long long)params[i].min, (long long)params[i].max);
            return;
        }
        memcpy((char *)&now + params[i].at, &v, sizeof(v));
    }
    if ((tls && tls[0]) || (host && host[0])) {
        qmp_error(c, "GenericError",
                  "the daemon's own certificates are used: 'vmctl peer add' got them");
        return;
    }
    *m = now;
    s = look(c->vm);
    if (s.found && s.state == API_MIGRATION_STATE_COPYING) {
        limit_at_work(c, m);
    } else {
        qmp_return_nothing(c);
    }
}

/* --- migrate --------------------------------------------------------------------------------------------------- */

void qmp_do_migrate(struct qmp_cmd *c)
{
    bool blk = api_json_get_bool(c->args, "blk", false),
         inc = api_json_get_bool(c->args, "inc", false);
    const struct qmp_migration *m = migration_of(c);
    const char *uri = qmp_arg(c, "uri");
    struct json_object *p;

    if (!m || at_work(c)) {
        return;
    }
    if (api_json_get_bool(c->args, "resume", false)) {
        qmp_error(c, "GenericError", "'resume' is not supported");
        return;
    }
    if (blk && inc) {
        qmp_error(c, "GenericError",
                  "'blk' copies disks whole, 'inc' what their topmost "
                  "images hold: choose one");
        return;
    }
    if (!str_starts(uri, "vmd+tls://")) {
        qmp_error(c, "GenericError",
                  "Parameter 'uri' expects vmd+tls://HOST[:PORT]: VMs move between daemons "
                  "that know each other");
        return;
    }
    p = qmp_vm_param(c);
    api_json_set_str(p, "to", uri);
    api_json_set_bool(p, "copy_storage_all", blk);
    api_json_set_bool(p, "copy_storage_inc", inc);
    api_json_set_bool(p, "reuse_images", blk || inc); /* as QEMU, which makes none */
    api_json_set_int(p, "streams", has(m, CAP_MULTIFD) ? m->streams : 1);
    api_json_set_int(p, "downtime_ms", m->downtime_ms);
    api_json_set_int(p, "bandwidth", m->bandwidth);
    api_json_set_bool(p, "auto_converge", has(m, CAP_AUTO_CONVERGE));
    api_json_set_int(p, "cache", has(m, CAP_XBZRLE) ? m->cache : 0);
    api_call_nested(c->call, "migrate.start", p, qmp_on_done, c);
}

/* As QEMU's, it has nothing to say when there is none, or when it is too late. */
static void on_cancelled(void *arg, struct json_object *result, const struct api_error *x)
{
    (void)result;
    if (x && x->code == API_E_BAD_STATE) {
        qmp_return_nothing(arg);
    } else {
        qmp_on_done(arg, result, x);
    }
}

void qmp_do_migrate_cancel(struct qmp_cmd *c)
{
    const struct seen s = look(c->vm);
    struct json_object *p;

    if (!s.found || !s.job) {
        qmp_return_nothing(c);
        return;
    }
    p = json_object_new_object();
    api_json_set_int(p, "job", s.job);
    api_call_nested(c->call, "job.cancel", p, on_cancelled, c);
}

/* --- query-migrate ----------------------------------------------------------------------------------------------- */

static int64_t now_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * INT64_C(1000) + t.tv_nsec / 1000000;
}

static struct json_object *ram(struct json_object *from)
{
    static const char *const none[] = { "skipped",        "dirty-pages-rate",
                                        "multifd-bytes",  "postcopy-requests",
                                        "downtime-bytes", "dirty-sync-missed-zero-copy",
                                        "postcopy-bytes" };
    struct json_object *o = json_object_new_object();
    int64_t sent = api_json_get_int(from, "sent", 0), rate = api_json_get_int(from, "rate", 0);
    int64_t whole = api_json_get_int(from, "whole", 0) + api_json_get_int(from, "differing", 0);

    for (unsigned i = 0; i < ARRAY_LEN(none); i++) {
        api_json_set_int(o, none[i], 0);
    }
    api_json_set_int(o, "total", api_json_get_int(from, "total", 0));
    api_json_set_int(o, "remaining", api_json_get_int(from, "remaining", 0));
    api_json_set_int(o, "transferred", sent);
    api_json_set_int(o, "precopy-bytes", sent);
    api_json_set_int(o, "duplicate", api_json_get_int(from, "zero", 0));
    api_json_set_int(o, "normal", whole);
    api_json_set_int(o, "normal-bytes", whole * PAGE);
    api_json_set_int(o, "dirty-sync-count", api_json_get_int(from, "rounds", 0));
    api_json_set_int(o, "page-size", PAGE);
    api_json_set_int(o, "pages-per-second", rate / PAGE);
    json_object_object_add(o, "mbps", json_object_new_double((double)rate * 8 / 1e6));
    return o;
}

static struct json_object *disk(struct json_object *from)
{
    static const char *const none[] = { "duplicate",        "skipped",
                                        "normal",           "normal-bytes",
                                        "dirty-pages-rate", "dirty-sync-count",
                                        "page-size",        "multifd-bytes",
                                        "pages-per-second", "postcopy-requests",
                                        "precopy-bytes",    "downtime-bytes",
                                        "postcopy-bytes",   "dirty-sync-missed-zero-copy" };
    struct json_object *o = json_object_new_object();
    int64_t total = api_json_get_int(from, "disk_total", 0),
            left = api_json_get_int(from, "disk_remaining", 0);

    for (unsigned i = 0; i < ARRAY_LEN(none); i++) {
        api_json_set_int(o, none[i], 0);
    }
    api_json_set_int(o, "total", total);
    api_json_set_int(o, "remaining", left);
    api_json_set_int(o, "transferred", total - left);
    json_object_object_add(o, "mbps", json_object_new_double(0));
    return o;
}

static struct json_object *times(const struct qmp_migration *m, const char *status)
{
    struct json_object *o = json_object_new_object();

    api_json_set_str(o, "status", status);
    if (m->began_ms) {
        api_json_set_int(o, "total-time", (m->ended_ms ? m->ended_ms : now_ms()) - m->began_ms);
        api_json_set_int(o, "setup-time", m->active_ms ? m->active_ms - m->began_ms : 0);
    }
    return o;
}

/* It may have ended meanwhile: then it is told as it was last seen. */
static void with_numbers(struct qmp_cmd *c, struct json_object *result)
{
    const struct seen s = look(c->vm);
    struct qmp_migration none = { 0 };
    const struct qmp_migration *m = c->vm->qmp ? &c->vm->qmp->migration : &none;
    struct json_object *o = times(m, s.found ? status_of(s.state) : "device");
    int64_t throttle = api_json_get_int(result, "throttle", 0);

    api_json_set(o, "ram", ram(result));
    if (api_json_get_int(result, "disk_total", 0) > 0) {
        api_json_set(o, "disk", disk(result));
    }
    api_json_set_int(o, "expected-downtime",
                     api_json_get_int(result, "expected_downtime_ns", 0) / 1000000);
    if (throttle > 0) {
        api_json_set_int(o, "cpu-throttle-percentage", throttle);
    }
    qmp_return(c, o);
}

void qmp_do_query_migrate(struct qmp_cmd *c)
{
    const struct qmp_migration *m = c->vm->qmp ? &c->vm->qmp->migration : NULL;
    const struct seen s = look(c->vm);
    struct json_object *o;

    if (s.found && s.state == API_MIGRATION_STATE_COPYING) {
        qmp_ask(c, "emu.migrate_status", NULL, with_numbers);
    } else if (m && s.found) {
        qmp_return(c, times(m, status_of(s.state)));
    } else if (m && m->status) {
        o = times(m, m->status);
        if (m->error[0]) {
            api_json_set_str(o, "error-desc", m->error);
        }
        qmp_return(c, o);
    } else {
        qmp_return_nothing(c);
    }
}

/* --- events -------------------------------------------------------------------------------------------------------- */

struct telling {
    struct qmp_migration *m;
    void (*tell)(void *arg, const char *event, struct json_object *take_data);
    void *arg;
};

static void tell_status(const struct telling *t, const char *status)
{
    struct json_object *o;

    t->m->status = status;
    if (has(t->m, CAP_EVENTS)) {
        o = json_object_new_object();
        api_json_set_str(o, "status", status);
        t->tell(t->arg, "MIGRATION", o);
    }
}

/* Each step of a migration that gets there is told, also those that were over before anybody looked. */
static void tell_up_to(const struct telling *t, const char *status)
{
    static const char *const steps[] = { "setup", "active", "device", "completed" };
    unsigned at = 0, to = 0;

    for (unsigned i = 0; i < ARRAY_LEN(steps); i++) {
        at = t->m->status && strcmp(steps[i], t->m->status) == 0 ? i + 1 : at;
        to = strcmp(steps[i], status) == 0 ? i : to;
    }
    for (; at <= to; at++) {
        if (at == 0) {
            t->m->began_ms = now_ms();
            t->m->active_ms = t->m->ended_ms = t->m->passes = 0;
            t->m->error[0] = '\0';
        } else if (at == 1) {
            t->m->active_ms = now_ms();
        }
        tell_status(t, steps[at]);
    }
}

static void tell_passes(const struct telling *t, int64_t rounds)
{
    for (; t->m->passes < rounds; t->m->passes++) {
        if (has(t->m, CAP_EVENTS)) {
            struct json_object *o = json_object_new_object();

            api_json_set_int(o, "pass", t->m->passes + 1);
            t->tell(t->arg, "MIGRATION_PASS", o);
        }
    }
}

static bool is_over(const struct qmp_migration *m)
{
    return !m->status || strcmp(m->status, "completed") == 0 ||
           strcmp(m->status, "failed") == 0 || strcmp(m->status, "cancelled") == 0;
}

static void tell_end(const struct telling *t, const struct api_job *job)
{
    if (is_over(t->m)) {
        return; /* it only looked whether it would go */
    }
    t->m->ended_ms = now_ms();
    if (job->state == API_JOB_STATE_CANCELLED) {
        tell_status(t, "cancelling");
        tell_status(t, "cancelled");
        return;
    }
    snprintf(t->m->error, sizeof(t->m->error), "%s", job->error ? job->error->message : "");
    tell_status(t, "failed");
}

bool qmp_migration_leaves(const struct vm *vm)
{
    const struct seen s = look(vm);

    return s.found && s.state == API_MIGRATION_STATE_GIVEN;
}

void qmp_migration_event(struct vm *vm, const struct api_job *job, bool moved,
                         void (*tell)(void *arg, const char *event,
                                      struct json_object *take_data),
                         void *arg)
{
    const struct telling t = { &vm->qmp->migration, tell, arg };
    struct seen s;

    if (moved) {
        tell_up_to(&t, "completed");
        return;
    }
    if (job && strcmp(job->kind, KIND) != 0) {
        return;
    }
    if (job && job->state != API_JOB_STATE_QUEUED && job->state != API_JOB_STATE_RUNNING) {
        tell_end(&t, job);
        return;
    }
    s = look(vm);
    if (s.found) {
        if (is_over(t.m)) {
            t.m->status = NULL;
        }
        tell_up_to(&t, status_of(s.state));
        tell_passes(&t, s.rounds);
    }
}
