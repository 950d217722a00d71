/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The source of a migration: handler of migrate.start, and what goes on after a restart. Owns struct migrate_out: one for
 * each VM that moves away, or of whose migration the other daemon has still to be told. Loop thread.
 */
#include "daemon/vm/migrate.h"

#include "api-schema/gen/methods.h"
#include "api-schema/json/codec.h"
#include "api-schema/json/json.h"
#include "api-schema/rpc/client.h"
#include "daemon/calls.h"
#include "daemon/daemon.h"
#include "daemon/jobs.h"
#include "daemon/ops.h"
#include "daemon/registry.h"
#include "daemon/run/proc.h"
#include "daemon/run/runfs.h"
#include "daemon/run/supervise.h"
#include "daemon/vm/migrate_out.h"
#include "daemon/vm/peer.h"
#include "daemon/waits.h"
#include "engine/base/fd.h"
#include "engine/base/log.h"
#include "engine/base/loop.h"
#include "engine/base/mem.h"
#include "engine/base/str.h"

#include <errno.h>
#include <stdarg.h>
#include <string.h>
#include <unistd.h>

#define MS INT64_C(1000000)
#define TICK_NS (300 * MS)
#define ASK_NS (10000 * MS)
#define PREPARE_NS (60000 * MS)
#define SWITCH_NS (120000 * MS)
#define COMPLETE_NS (30000 * MS) /* all is sent, the other side says that it has it */
#define QUIT_NS (5000 * MS)
#define RETRY_FIRST_NS (500 * MS)
#define RETRY_MOST_NS (10000 * MS)

static const char held[] = "is being moved to another host";
static const char doubted[] =
    "was given to another host, which has not said yet that it has it; it stays paused";

static void dial_again(struct migrate_out *k);
static void clean(struct migrate_out *k);

struct vm *migrate_out_vm(const struct migrate_out *k)
{
    return vm_by_id(k->d, k->vm);
}

void migrate_out_why(struct migrate_out *k, int code, const char *remedy, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    if (!k->x.code) {
        api_error_vset(&k->x, code, k->name, remedy, fmt, ap);
    }
    va_end(ap);
}

/* ---- rows ---- */

static void put_row(struct migrate_out *k, struct change *c, const char *state)
{
    const struct migrate_row row = { .uuid = k->uuid,
                                     .name = (char *)"out",
                                     .state = (char *)(uintptr_t)state,
                                     .ticket = k->ticket,
                                     .host = k->host,
                                     .port = k->port,
                                     .paused = k->paused,
                                     .keep = k->keep };
    migrate_row_put(c, &row);
    k->marked = true;
}

static void write_row(struct migrate_out *k, const char *state,
                      void (*fn)(void *arg, const struct err *e))
{
    struct change *c = change_new(k->d);
    if (state) {
        put_row(k, c, state);
    } else {
        migrate_row_del(c, k->uuid, "out");
    }
    change_commit(c, fn, k);
}

/* ---- ends ---- */

static void out_free(struct migrate_out *k)
{
    list_remove(&k->link);
    peer_drop(k->dial);
    rpc_client_free(k->client);
    loop_timer_free(k->timer);
    peer_close(k->link_tls);
    for (unsigned i = 0; i < PEER_LANES; i++) {
        fd_autoclose(&k->lane_fd[i]);
        peer_close(k->lane[i]);
    }
    json_object_put(k->warnings);
    json_object_put(k->there);
    migrate_out_disks_free(k);
    free(k->uuid);
    free(k->name);
    free(k->host);
    free(k->url);
    k->over = true;
    if (k->asked == 0) {
        free(k);
    }
}

bool migrate_out_asked(struct migrate_out *k, bool was_asked)
{
    k->asked += was_asked;
    return was_asked;
}

bool migrate_out_answered(struct migrate_out *k)
{
    k->asked--;
    if (k->over && k->asked == 0) {
        free(k);
        return false;
    }
    return !k->over;
}

static void tell_job(struct migrate_out *k, struct json_object *take_result)
{
    struct job *job = job_find(k->d, k->job);
    if (!job || !job_active(job)) {
        json_object_put(take_result);
        return;
    }
    struct change *c = change_new(k->d);
    job->on_cancel = NULL;
    job_end(k->d, job, c, k->x.code ? &k->x : NULL, take_result);
    wait_job_end(k->d, k->job, c);
}

/* The VM is its own master again. */
static void let_go(struct migrate_out *k)
{
    struct vm *vm = migrate_out_vm(k);
    if (k->watching && vm && vm->run) {
        run_on_end_cancel(vm->run, k);
    }
    k->watching = false;
    if (vm && k->op) {
        vm->moving = NULL;
    }
    if (k->op) {
        struct op *op = take_ptr(k->op);
        op->job = NULL;
        op_end(op);
    }
}

static void drop_client(struct migrate_out *k)
{
    rpc_client_free(take_ptr(k->client));
    peer_close(take_ptr(k->link_tls));
}

static void on_row_gone(void *arg, const struct err *e)
{
    (void)e; /* else the next daemon tells once more */
    out_free(arg);
}

/* Nothing is left to be said to the other daemon. */
static void forget(struct migrate_out *k)
{
    k->step = OVER;
    drop_client(k);
    if (k->marked) {
        write_row(k, NULL, on_row_gone);
    } else {
        out_free(k);
    }
}

/* ---- the other daemon is told that it stayed here ---- */

static void on_aborted(void *arg, struct json_object *result, const struct api_error *x)
{
    struct migrate_out *k = arg;
    (void)result;
    k->telling = false;
    if (!x || x->code == API_E_NOT_FOUND) {
        forget(k);
    } else if (x->code == API_E_BAD_STATE) { /* a person said there that it is there */
        log_error("daemon",
                  "VM '%s' is here and at %s: two owners, as somebody said there; end one",
                  k->name, k->url);
        forget(k);
    } else {
        dial_again(k);
    }
}

static struct json_object *with_ticket(const struct migrate_out *k)
{
    struct json_object *o = json_object_new_object();
    api_json_set_str(o, "ticket", k->ticket);
    return o;
}

static void tell_back(struct migrate_out *k)
{
    if (!k->ticket[0]) {
        forget(k);
    } else if (!k->client) {
        dial_again(k);
    } else if (!k->telling) {
        k->telling = true;
        rpc_client_call(k->client, "migrate.abort", with_ticket(k), ASK_NS, on_aborted, k);
    }
}

static void on_back(void *arg, const struct err *e)
{
    struct migrate_out *k = arg;
    (void)e; /* the row that is there means the same, but `given`, which is not there then */
    tell_back(k);
}

static void on_ignored(void *arg, struct json_object *result, const struct api_error *x)
{
    (void)arg, (void)result, (void)x;
}

/* It stays here: the guest runs on if it ran. */
static void stay(struct migrate_out *k)
{
    struct vm *vm = migrate_out_vm(k);
    if (k->engaged && vm && vm->run && !run_has_ended(vm->run)) {
        run_call(vm->run, "emu.migrate_cancel", ASK_NS, on_ignored, NULL);
    }
    for (unsigned i = 0; i < PEER_LANES; i++) { /* nothing waits for the other host */
        peer_close(take_ptr(k->lane[i]));
    }
    k->step = BACK;
    k->retry_ns = 0;
    let_go(k);
    tell_job(k, NULL);
}

void migrate_out_fail(struct migrate_out *k)
{
    if (k->step >= GIVE) {
        return; /* too late; these end in their own way */
    }
    loop_timer_disarm(k->timer);
    peer_drop(take_ptr(k->dial));
    log_warn("daemon", "VM '%s' does not move to %s: %s", k->name, k->url, k->x.message);
    stay(k);
    if (k->marked) {
        write_row(k, "back", on_back);
    } else {
        tell_back(k);
    }
}

/* ---- taken back, given ---- */

static void answer_resolve(struct migrate_out *k)
{
    struct api_call *call = take_ptr(k->resolving);
    if (call) {
        call_finish(k->d, call, k->name, json_object_new_object());
    }
}

static void on_taken(void *arg, const struct err *e)
{
    struct migrate_out *k = arg;
    if (e) { /* it is not known that it is ours: asked again */
        k->step = GIVEN;
        dial_again(k);
        return;
    }
    log_warn("daemon", "VM '%s' is here again: %s", k->name, k->x.message);
    answer_resolve(k);
    stay(k);
    tell_back(k);
}

/* The other daemon does not have it and never will, or a person says so. */
static void take_back(struct migrate_out *k)
{
    loop_timer_disarm(k->timer);
    k->step = TAKE;
    k->engaged = true;
    write_row(k, "back", on_taken);
}

static void finish_well(struct migrate_out *k)
{
    struct json_object *o = json_object_new_object();
    api_json_set_int(o, "downtime_ns", k->down_ns);
    api_json_set_int(o, "bytes", k->bytes);
    api_json_set_int(o, "rounds", k->rounds);
    if (k->warnings) {
        api_json_set(o, "warnings", json_object_get(k->warnings));
    }
    tell_job(k, o);
}

static void on_committed(void *arg, struct json_object *result, const struct api_error *x)
{
    struct migrate_out *k = arg;
    (void)result;
    k->telling = false;
    if (k->step != GIVEN) {
        return;
    }
    if (!x) {
        k->down_ns = k->still_ns ? time_mono_ns() - k->still_ns : 0;
        clean(k);
    } else if (x->code == API_E_NOT_FOUND) {
        migrate_out_why(k, API_E_CANCELLED, "migrate it again",
                        "%s lost it before it had it: %s", k->url, x->message);
        take_back(k);
    } else {
        str_copy(k->why, sizeof(k->why), x->message);
        dial_again(k);
    }
}

static void say_commit(struct migrate_out *k)
{
    if (!k->client) {
        dial_again(k);
    } else if (!k->telling) {
        k->telling = true;
        rpc_client_call(k->client, "migrate.commit", with_ticket(k), ASK_NS, on_committed, k);
    }
}

static void on_given(void *arg, const struct err *e)
{
    struct migrate_out *k = arg;
    if (e) { /* nothing of it was kept: it is ours as before */
        migrate_out_why(k, API_E_STORE_ERROR, "mend the disk under the store", "%s", e->msg);
        k->step = SWITCH;
        migrate_out_fail(k);
        return;
    }
    struct vm *vm = migrate_out_vm(k);
    k->step = GIVEN;
    if (vm) {
        vm->moving = doubted;
    }
    say_commit(k);
}

/* ---- nothing is left here ---- */

static void on_finished(void *arg, struct json_object *result, const struct api_error *x)
{
    (void)result, (void)x; /* the other daemon's row is small, and goes with the VM */
    struct migrate_out *k = arg;
    k->marked = false;
    forget(k);
}

/* The VM is gone here, its row too. */
static void cleaned(struct migrate_out *k)
{
    k->vm = 0;
    k->op = NULL;
    k->watching = false;
    loop_timer_disarm(k->timer);
    answer_resolve(k);
    finish_well(k);
    k->step = OVER;
    if (k->client) {
        rpc_client_call(k->client, "migrate.finish", with_ticket(k), ASK_NS, on_finished, k);
    } else {
        out_free(k);
    }
}

static void on_row_dropped(void *arg, const struct err *e)
{
    (void)e; /* a row without a VM is dropped by the next daemon */
    cleaned(arg);
}

static void unrun_gone(void *arg, const struct err *e)
{
    struct migrate_out *k = arg;
    struct vm *vm = migrate_out_vm(k);
    if (e) {
        k->step = GIVEN;
        dial_again(k); /* what stands in the store is told again */
        return;
    }
    if (vm) {
        ops_drop(vm, API_E_NOT_FOUND, "the VM has moved to another host");
        vm_wake(vm, true);
        runfs_clean_lib(&vm->d->opt, vm->id);
        vm_free(vm);
    }
    cleaned(k);
}

static void on_quit_late(void *arg)
{
    struct migrate_out *k = arg;
    struct vm *vm = migrate_out_vm(k);
    if (vm && vm->run) {
        run_kill(vm->run);
    }
}

static void on_kept(void *arg, const struct err *e)
{
    struct migrate_out *k = arg;
    if (e) {
        k->step = GIVEN;
        dial_again(k); /* what stands in the store is told again */
        return;
    }
    let_go(k);
    cleaned(k);
}

static void clean(struct migrate_out *k)
{
    struct vm *vm = migrate_out_vm(k);
    if (k->step != CLEAN) {
        log_info("daemon", "VM '%s' has moved to %s", k->name, k->url);
    }
    k->step = CLEAN;
    if (vm && vm->run) {
        if (!k->watching || run_has_ended(vm->run)) { /* on_vm_end() goes on */
            return;
        }
        if (!k->keep) {
            vm->transient = true; /* the definition goes with the run, in one transaction */
        }
        run_expect_end(vm->run, "migrated");
        if (!run_call(vm->run, "emu.quit", QUIT_NS, on_ignored, NULL)) {
            run_kill(vm->run);
        }
        loop_timer_arm(k->timer, QUIT_NS);
        return;
    }
    struct change *c = change_new(k->d);
    migrate_row_del(c, k->uuid, "out");
    if (vm && k->keep) {
        migrate_out_keep(vm, c);
        change_commit(c, on_kept, k);
        return;
    }
    if (vm) {
        vm->pending = true;
        store_tx_vm_del(change_tx(c), vm->id);
        vm_event(vm, c, API_EVENT_TYPE_VM_DELETED, "migrated", NULL);
    }
    change_commit(c, unrun_gone, k);
}

static void on_vm_end(void *arg, struct vm *vm, bool gone)
{
    struct migrate_out *k = arg;
    k->watching = false;
    if (gone) {
        k->op = NULL; /* goes with the VM */
        k->vm = 0;
    }
    if (k->step == CLEAN) {
        if (gone) {
            write_row(k, NULL, on_row_dropped);
        } else {
            clean(k);
        }
    } else if (k->step < GIVE) { /* an ordinary end */
        migrate_out_why(k, API_E_BAD_STATE, NULL, "VM '%s' ended meanwhile: %s", k->name,
                        vm->reason ? vm->reason : "stopped");
        k->engaged = false;
        migrate_out_fail(k);
    }
}

/* ---- the connection ---- */

static void on_closed(void *arg, const struct err *why)
{
    struct migrate_out *k = arg;
    k->telling = false;
    drop_client(k);
    str_copy(k->why, sizeof(k->why), why && why->code ? why->msg : "the connection ended");
    if (k->step < GIVE) {
        migrate_out_why(k, API_E_UNRESPONSIVE, "migrate it again",
                        "the connection to %s ended: %s", k->url, k->why);
        migrate_out_fail(k);
    } else if (k->step == GIVEN || k->step == BACK) {
        dial_again(k);
    } else if (k->step == OVER) {
        k->marked = false;
        forget(k);
    }
}

static void on_notify(void *arg, const char *method, struct json_object *params)
{
    (void)arg, (void)method, (void)params; /* of no use here */
}

static const struct rpc_client_ops client_ops = { .notify = on_notify, .closed = on_closed };

static void ask(struct migrate_out *k);

static void on_dialled(void *arg, struct peer_dial *dial)
{
    struct migrate_out *k = arg;
    struct err e = dial->e;
    k->dial = NULL;
    if (!e.code) {
        k->link_tls = take_ptr(dial->tls[0]);
        k->client = rpc_client_new(k->d->loop, take_fd(&dial->fd[0]), k->url, &client_ops, k,
                                   &e);
    }
    if (!k->client) {
        peer_close(take_ptr(k->link_tls));
        str_copy(k->why, sizeof(k->why), e.msg);
        if (k->step == DIAL) {
            migrate_out_why(k, e.code == -EACCES ? API_E_DENIED : API_E_UNRESPONSIVE,
                            e.code == -EACCES ? "'vmctl peer add' gets a certificate"
                                              : "see that vmd listens there: 'vmctl host tls'",
                            "%s", e.msg);
            migrate_out_fail(k);
        } else if (k->step == BACK && !k->marked) {
            forget(k); /* it never had all of it, and drops it by itself */
        } else {
            dial_again(k);
        }
        return;
    }
    k->retry_ns = 0;
    if (k->step == DIAL) {
        ask(k);
    } else if (k->step == GIVEN) {
        say_commit(k);
    } else if (k->step == BACK) {
        tell_back(k);
    }
}

static void on_timer(void *arg);
static void copy(struct migrate_out *k);

static void dial_again(struct migrate_out *k)
{
    drop_client(k);
    k->retry_ns = k->retry_ns == 0 ? RETRY_FIRST_NS : k->retry_ns * 2;
    k->retry_ns = k->retry_ns > RETRY_MOST_NS ? RETRY_MOST_NS : k->retry_ns;
    loop_timer_arm(k->timer, k->retry_ns);
}

/* ---- the emulator ---- */

static void on_status(void *arg, struct json_object *result, const struct api_error *x)
{
    struct vm *vm = arg; /* lives as long as its connection */
    list_for_each_safe (it, &vm->d->migrate_outs) {
        struct migrate_out *k = list_entry(it, struct migrate_out, link);
        if (k->vm != vm->id || x || (k->step != COPY && k->step != FOLLOW)) {
            continue;
        }
        migrate_out_progress(k, result);
        if (k->step != FOLLOW) {
            continue;
        }
        if (api_json_get_bool(result, "disks_failed", false)) {
            const char *why = api_json_get_str(result, "error");
            migrate_out_why(k, API_E_FILE_ERROR, "migrate it again", "VM '%s': %s", k->name,
                            why ? why : "a disk could not be copied");
            migrate_out_fail(k);
        } else if (api_json_get_bool(result, "disks_ready", false)) {
            copy(k);
        }
    }
}

static void on_timer(void *arg)
{
    struct migrate_out *k = arg;
    struct vm *vm = migrate_out_vm(k);
    if ((k->step == COPY || k->step == FOLLOW) && vm && vm->run) {
        run_call(vm->run, "emu.migrate_status", ASK_NS, on_status, vm);
        loop_timer_arm(k->timer, TICK_NS);
    } else if (k->step == SWITCH) { /* the guest does not stand still for a link that is dead */
        migrate_out_why(k, API_E_UNRESPONSIVE, "migrate it again",
                        "%s has not said that it has all of it", k->url);
        migrate_out_fail(k);
    } else if (k->step == CLEAN) {
        on_quit_late(k);
    } else if ((k->step == GIVEN || k->step == BACK) && !k->client && !k->dial) {
        k->dial = peer_dial(k->d, k->host, k->port, NULL, 1, on_dialled, k);
    }
}

void migrate_out_emulator(struct migrate_out *k, const struct api_error *x)
{
    migrate_out_why(k, x ? x->code : API_E_UNRESPONSIVE,
                    x ? NULL : "'vmctl stop --force' ends it", "VM '%s': %s", k->name,
                    x ? x->message : "its emulator does not answer");
    migrate_out_fail(k);
}

/* Both: the guest stands still, all of it has arrived. */
static void maybe_give(struct migrate_out *k)
{
    if (k->step == SWITCH && k->switched && k->complete) {
        k->step = GIVE;
        loop_timer_disarm(k->timer);
        write_row(k, "given", on_given);
    }
}

static void on_complete(void *arg, struct json_object *result, const struct api_error *x)
{
    struct migrate_out *k = arg;
    (void)result;
    if (x && k->step < GIVE) {
        migrate_out_why(k, x->code, x->remedy[0] ? x->remedy : NULL, "%s: %s", k->url,
                        x->message);
        migrate_out_fail(k);
    } else if (!x) {
        k->complete = true;
        maybe_give(k);
    }
}

static void on_switched(void *arg, struct json_object *result, const struct api_error *x)
{
    struct migrate_out *k = arg;
    if (!migrate_out_answered(k) || k->step != SWITCH) {
        return;
    }
    if (x) {
        migrate_out_emulator(k, x);
        return;
    }
    k->switched = true;
    loop_timer_arm(k->timer, COMPLETE_NS);
    k->bytes = api_json_get_int(result, "sent", 0);
    if (api_json_get_bool(result, "running", false)) {
        k->still_ns = time_mono_ns() - api_json_get_int(result, "paused_ns", 0);
    }
    maybe_give(k);
}

static void on_marked(void *arg, const struct err *e)
{
    struct migrate_out *k = arg;
    struct vm *vm = migrate_out_vm(k);
    if (k->step != MARK) {
        return;
    }
    if (e) {
        k->marked = false;
        migrate_out_why(k, API_E_STORE_ERROR, "mend the disk under the store", "%s", e->msg);
        migrate_out_fail(k);
        return;
    }
    k->step = SWITCH;
    if (!vm || !vm->run ||
        !migrate_out_asked(
            k, run_call(vm->run, "emu.migrate_switch", SWITCH_NS, on_switched, k))) {
        migrate_out_emulator(k, NULL);
    }
}

static void on_ready(void *arg, struct json_object *result, const struct api_error *x)
{
    struct migrate_out *k = arg;
    if (!migrate_out_answered(k) || k->step != COPY) {
        return;
    }
    if (x) {
        migrate_out_emulator(k, x);
        return;
    }
    k->rounds = api_json_get_int(result, "rounds", 0);
    loop_timer_disarm(k->timer);
    k->step = MARK;
    write_row(k, "handing-over", on_marked);
}

static void copy(struct migrate_out *k)
{
    struct vm *vm = migrate_out_vm(k);
    struct json_object *o = json_object_new_object();
    api_json_set_int(o, "streams", k->in.streams);
    api_json_set_int(o, "downtime_ms", k->in.downtime_ms);
    api_json_set_int(o, "bandwidth", k->in.bandwidth);
    api_json_set_int(o, "cache", k->in.cache);
    api_json_set_bool(o, "auto_converge", k->in.auto_converge);
    api_json_set_int(o, "disks", k->n_disks);
    k->step = COPY;
    if (!vm || !vm->run ||
        !migrate_out_asked(k, run_call_with(vm->run, "emu.migrate_out", o, 0, on_ready, k))) {
        migrate_out_emulator(k, NULL);
        return;
    }
    loop_timer_arm(k->timer, TICK_NS);
}

void migrate_out_follow(struct migrate_out *k)
{
    rpc_client_call(k->client, "migrate.complete", with_ticket(k), 0, on_complete, k);
    if (k->n_disks == 0) {
        copy(k);
        return;
    }
    k->step = FOLLOW;
    loop_timer_arm(k->timer, TICK_NS);
}

/* ---- the other daemon's word ---- */

static void on_prepared(void *arg, struct json_object *result, const struct api_error *x)
{
    struct migrate_out *k = arg;
    const char *ticket = x ? NULL : api_json_get_str(result, "ticket");
    if (k->step != ASK) {
        return;
    }
    if (x) {
        migrate_out_why(k, x->code == API_E_INTERNAL_ERROR ? API_E_UNRESPONSIVE : x->code,
                        x->remedy[0] ? x->remedy : NULL, "%s: %s", k->url, x->message);
        migrate_out_fail(k);
        return;
    }
    struct json_object *list = api_json_get(result, "warnings");
    k->warnings = list && json_object_array_length(list) > 0 ? json_object_get(list) : NULL;
    if (k->in.check) {
        struct json_object *o = json_object_new_object();
        if (k->warnings) {
            api_json_set(o, "warnings", json_object_get(k->warnings));
        }
        tell_job(k, o);
        stay(k);
        forget(k);
        return;
    }
    if (!ticket || !str_copy(k->ticket, sizeof(k->ticket), ticket)) {
        migrate_out_why(k, API_E_UNSUPPORTED, NULL, "%s gave no ticket", k->url);
        migrate_out_fail(k);
        return;
    }
    k->step = LANES;
    k->dial = peer_dial(k->d, k->host, k->port, k->ticket, (unsigned)k->in.streams + k->n_disks,
                        migrate_out_lanes, k);
}

static void ask(struct migrate_out *k)
{
    struct vm *vm = migrate_out_vm(k);
    struct json_object *o = json_object_new_object();
    migrate_out_tell(k, vm, o);
    migrate_out_disks_tell(k, o);
    k->step = ASK;
    rpc_client_call(k->client, "migrate.prepare", o, PREPARE_NS, on_prepared, k);
}

/* ---- migrate.start ---- */

static struct migrate_out *out_new(struct vmd *d, struct vm *vm, const char *uuid,
                                   const char *host, int port)
{
    struct migrate_out *k = xnew(struct migrate_out);
    *k = (struct migrate_out){ .d = d, .vm = vm ? vm->id : 0, .port = port };
    k->x = (struct api_error)API_ERROR_INIT;
    for (unsigned i = 0; i < PEER_LANES; i++) {
        k->lane_fd[i] = -1;
    }
    k->uuid = xstrdup(uuid);
    k->name = xstrdup(vm ? vm->config.name : uuid);
    k->host = xstrdup(host);
    k->url = xasprintf(strchr(host, ':') ? "vmd+tls://[%s]:%d" : "vmd+tls://%s:%d", host, port);
    k->timer = loop_timer_new(d->loop, on_timer, k);
    list_append(&d->migrate_outs, &k->link);
    return k;
}

static void on_cancel(void *arg)
{
    struct migrate_out *k = arg;
    if (k->step < GIVE) {
        migrate_out_why(k, API_E_CANCELLED, NULL, "the job was cancelled");
        migrate_out_fail(k);
    }
}

static void on_fit(void *arg, struct json_object *result, const struct api_error *x)
{
    struct migrate_out *k = arg;
    const char *stays = x ? NULL : api_json_get_str(result, "stays");
    if (!migrate_out_answered(k) || k->step != FIT) {
        return;
    }
    if (x) {
        migrate_out_emulator(k, x);
    } else if (stays) {
        migrate_out_why(k, API_E_BAD_STATE, "undo that, or move the VM while it is stopped",
                        "%s", stays);
        migrate_out_fail(k);
    } else if (k->copies) {
        migrate_out_disks_look(k);
    } else {
        migrate_out_dial(k);
    }
}

void migrate_out_dial(struct migrate_out *k)
{
    k->step = DIAL;
    k->dial = peer_dial(k->d, k->host, k->port, NULL, 1, on_dialled, k);
}

/* The VM's turn has come. */
static void out_begin(struct op *op)
{
    struct migrate_out *k = op->in;
    struct vm *vm = op->vm;
    struct change *c = change_new(vm->d);
    struct api_error x = API_ERROR_INIT;
    op->in = NULL;
    k->op = op;
    job_progress(op->job, c, 0);
    change_commit(c, NULL, NULL);
    if (op->job->cancel) {
        migrate_out_why(k, API_E_CANCELLED, NULL, "the job was cancelled");
    } else if (!vm_is_live(vm)) {
        migrate_out_why(k, API_E_BAD_STATE, "start it first: 'vmctl start'", "VM '%s' is %s",
                        vm->config.name, api_vm_state_name(vm->state));
    } else if (!migrate_movable(vm, k->copies, k->only, k->n_only, &x)) {
        migrate_out_why(k, x.code, x.remedy, "%s", x.message);
    } else {
        op->job->on_cancel = on_cancel;
        op->job->arg = k;
        vm->moving = held;
        k->paused = vm->state == API_VM_STATE_PAUSED;
        k->watching = true;
        run_on_end(vm->run, on_vm_end, k);
        if (!migrate_out_asked(k, run_call(vm->run, "emu.migrate_status", ASK_NS, on_fit, k))) {
            migrate_out_emulator(k, NULL);
        }
        return;
    }
    migrate_out_fail(k);
}

static void accepted(void *arg, const struct err *e)
{
    struct migrate_out *k = arg;
    if (!op_queue_job(k->d, migrate_out_vm(k), k->job, e, k, out_begin)) {
        out_free(k);
    }
}

void api_handle_migrate_start(struct api_call *call, struct api_migrate_start_in *in)
{
    struct vmd *d = call_daemon(call);
    struct vm *vm = call_vm(call, in->vm);
    struct err e = ERR_INIT;
    struct api_error x = API_ERROR_INIT;
    AUTO_FREE char *host = NULL;
    AUTO_JSON there = NULL;
    int port = 0;
    if (!vm) {
        return;
    }
    if (!migrate_out_there(vm, in->there, &there, &x)) {
        api_reply_error(call, &x);
    } else if (peer_parse(in->to, &host, &port, &e) < 0) {
        api_fail(call, API_E_INVALID_PARAMS, "to", NULL, "%s", e.msg);
    } else if (vm->moving) {
        api_fail(call, API_E_BAD_STATE, vm->config.name, "'vmctl migrate list' shows it",
                 "VM '%s' %s", vm->config.name, vm->moving);
    } else if (!vm_is_live(vm)) {
        api_fail(call, API_E_BAD_STATE, vm->config.name, "start it first: 'vmctl start'",
                 "VM '%s' is %s", vm->config.name, api_vm_state_name(vm->state));
    } else if (in->copy_storage_all && in->copy_storage_inc) {
        api_fail(call, API_E_INVALID_PARAMS, "copy_storage_inc", "choose one",
                 "disks are copied whole, or what their topmost images hold");
    } else if ((in->n_migrate_disks > 0 || in->disk_folder || in->reuse_images) &&
               !in->copy_storage_all && !in->copy_storage_inc) {
        api_fail(call, API_E_INVALID_PARAMS, "copy_storage_all",
                 "say --copy-storage-all or --copy-storage-inc", "no disks are copied");
    } else if (!peer_known(d, host, port)) {
        api_fail(call, API_E_DENIED, in->to,
                 "'vmctl token create' there, then 'vmctl peer add' here",
                 "there is no certificate for %s", in->to);
    } else if (jobs_active(d) >= 256) {
        api_fail(call, API_E_OVERLOAD, vm->config.name, "wait until some have ended",
                 "256 jobs are at work already");
    } else {
        struct change *c = change_new(d);
        struct job *job = job_new(d, c, "vm.migrate", vm->config.uuid, vm->config.name, 0,
                                  "bytes", api_call_peer(call)->principal, NULL);
        struct migrate_out *k = out_new(d, vm, vm->config.uuid, host, port);
        struct api_migrate_start_out out = { .job = job->info.job, .name = vm->config.name };
        k->job = job->info.job;
        k->there = take_ptr(there);
        migrate_out_take(k, vm, in);
        migrate_out_disks_take(k, in);
        call_commit(d, call, c, vm->config.name, api_encode(&api_type_migrate_start_out, &out),
                    accepted, k);
    }
}

/* ---- after a restart ---- */

static void hold_begin(struct op *op)
{
    struct migrate_out *k = op->in;
    op->in = NULL;
    k->op = op;
}

void migrate_out_load(struct vmd *d, const struct migrate_row *row)
{
    struct vm *vm = vm_find(d, row->uuid, true);
    struct migrate_out *k = out_new(d, vm, row->uuid, row->host, row->port);
    bool given = strcmp(row->state, "given") == 0;
    str_copy(k->ticket, sizeof(k->ticket), row->ticket);
    k->marked = true;
    k->paused = row->paused;
    k->keep = row->keep;
    if (!vm && given) { /* its definition went, the row was about to */
        k->step = OVER;
        write_row(k, NULL, on_row_gone);
        return;
    }
    if (!given) {
        k->engaged = strcmp(row->state, "back") != 0 || (vm && vm->run);
        stay(k);
        write_row(k, "back", on_back);
        return;
    }
    k->step = GIVEN;
    vm->moving = NULL;
    op_queue(vm, NULL, NULL, k, hold_begin, false);
    vm->moving = doubted;
    if (vm->run) {
        k->watching = true;
        run_on_end(vm->run, on_vm_end, k);
    }
    log_warn("daemon", "VM '%s' %s: %s is asked", k->name, doubted, k->url);
    k->dial = peer_dial(d, k->host, k->port, NULL, 1, on_dialled, k);
}

void migrate_outs_end(struct vmd *d)
{
    while (!list_empty(&d->migrate_outs)) {
        out_free(list_entry(d->migrate_outs.next, struct migrate_out, link));
    }
}

/* ---- resolving ---- */

bool migrate_out_resolve(struct vm *vm, struct api_call *call, bool here)
{
    list_for_each (it, &vm->d->migrate_outs) {
        struct migrate_out *k = list_entry(it, struct migrate_out, link);
        if (k->vm != vm->id || k->step != GIVEN || k->resolving) {
            continue;
        }
        k->resolving = call;
        drop_client(k);
        peer_drop(take_ptr(k->dial));
        k->telling = false;
        if (here) {
            migrate_out_why(k, API_E_CANCELLED, NULL, "somebody said that it is here");
            take_back(k);
        } else {
            clean(k);
        }
        return true;
    }
    return false;
}
