/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The orderly shutdown of the host's VMs. Each VM that runs is asked to power off, has the time its
 * definition gives it, is then told to quit, and killed when it does not. A VM is asked only when
 * those that come after it (autostart.after) have ended. Owns struct shutdown. Loop thread.
 */
#include "daemon/vm/policy.h"

#include "api-schema/gen/types.h"
#include "api-schema/json/json.h"
#include "daemon/daemon.h"
#include "daemon/vm/agent.h"
#include "daemon/vm/policy_in.h"
#include "daemon/vm/save.h"
#include "daemon/registry.h"
#include "daemon/run/run.h"
#include "engine/base/log.h"
#include "engine/base/loop.h"
#include "engine/base/mem.h"

#include <string.h>

#define MS INT64_C(1000000)
#define ASK_NS (10000 * MS)
#define QUIT_NS (5000 * MS) /* flushing its disks, then it is killed */
#define DEFAULT_MS 60000

enum stage { WAITS, ASKED, QUITTING, KILLED, ENDED, LEFT };

struct ending {
    struct shutdown *s;
    int64_t id;
    char *name;
    enum stage stage;
    bool forced;
    struct loop_timer *timer;
};
struct shutdown {
    struct vmd *d;
    struct ending *all;
    size_t n, open;
    void (*fn)(void *arg, struct json_object *take_result);
    void *arg;
};

bool policy_is_shutting(const struct vmd *d)
{
    return d->policy && d->policy->shutdown;
}

static struct json_object *names(const struct shutdown *s, enum stage stage, bool forced)
{
    struct json_object *list = json_object_new_array();
    for (size_t i = 0; i < s->n; i++) {
        if (s->all[i].stage == stage && s->all[i].forced == forced) {
            json_object_array_add(list, json_object_new_string(s->all[i].name));
        }
    }
    return list;
}

static void shutdown_done(void *arg)
{
    struct shutdown *s = arg;
    struct json_object *o = json_object_new_object();
    api_json_set(o, "stopped", names(s, ENDED, false));
    api_json_set(o, "forced", names(s, ENDED, true));
    api_json_set(o, "left", names(s, LEFT, false));
    s->d->policy->shutdown = NULL;
    s->fn(s->arg, o);
    for (size_t i = 0; i < s->n; i++) {
        loop_timer_free(s->all[i].timer);
        free(s->all[i].name);
    }
    free(s->all);
    free(s);
}

static void begin_free(struct shutdown *s);

static void on_end(void *arg, struct vm *vm, bool gone)
{
    struct ending *k = arg;
    struct shutdown *s = k->s;
    (void)vm;
    (void)gone;
    loop_timer_free(k->timer);
    k->timer = NULL;
    k->stage = ENDED;
    s->open--;
    if (s->open == 0) {
        loop_post(s->d->loop, shutdown_done, s); /* the VM's own end is still being handled */
    } else {
        begin_free(s);
    }
}

static void on_answer(void *arg, struct json_object *result, const struct api_error *x)
{
    (void)arg;
    (void)result;
    (void)x; /* its end tells, or the time it has */
}

static void on_time(void *arg)
{
    struct ending *k = arg;
    struct vm *vm = vm_by_id(k->s->d, k->id);
    if (!vm || !vm->run) {
        return; /* its end is on the way */
    }
    k->forced = true;
    if (k->stage == ASKED) {
        log_warn("daemon", "VM '%s' has not powered off in its time; it is ended", k->name);
        k->stage = QUITTING;
        run_expect_end(vm->run, "quit");
        if (run_call(vm->run, "emu.quit", QUIT_NS, on_answer, NULL)) {
            loop_timer_arm(k->timer, QUIT_NS);
            return;
        }
    }
    k->stage = KILLED;
    run_kill(vm->run);
}

/* No board, no guest or no emulator that could be asked: not worth waiting for. */
static void on_asked(void *arg, struct json_object *result, const struct api_error *x)
{
    struct vm *vm = arg;
    (void)result;
    struct shutdown *s = vm->d->policy->shutdown;
    for (size_t i = 0; x && s && i < s->n; i++) {
        if (s->all[i].id == vm->id && s->all[i].stage == ASKED) {
            loop_timer_arm(s->all[i].timer, 0);
        }
    }
}

static void on_agent(void *arg, struct json_object *result, const struct api_error *x)
{
    (void)arg;
    (void)result;
    (void)x; /* it has its time whatever it says */
}

static void ask_guest(struct ending *k, struct vm *vm)
{
    const struct api_host_shutdown *h = vm->config.host_shutdown;
    int64_t ms = h ? h->timeout_ms : DEFAULT_MS;
    run_asked(vm->run);
    if (vm->state == API_VM_STATE_PAUSED) {
        run_call(vm->run, "emu.resume", ASK_NS, on_answer, NULL); /* else it cannot react */
    }
    if (ms > 0 && agent_listens(vm)) {
        struct json_object *how = json_object_new_object();
        api_json_set_str(how, "mode", "powerdown");
        agent_ask(vm, "guest-shutdown", how, ms, true, on_agent, NULL);
        loop_timer_arm(k->timer, ms * MS);
        return;
    }
    bool asked = ms > 0 && run_call(vm->run, "emu.powerdown", ms < 10000 ? ms * MS : ASK_NS,
                                    on_asked, vm);
    loop_timer_arm(k->timer, asked ? ms * MS : 0);
}

/* A VM that could not be saved. */
static void not_saved(struct vm *vm)
{
    struct shutdown *s = vm->d->policy->shutdown;
    for (size_t i = 0; s && i < s->n; i++) {
        if (s->all[i].id == vm->id && s->all[i].stage == ASKED) {
            ask_guest(&s->all[i], vm);
        }
    }
}

static void ask(struct ending *k, struct vm *vm)
{
    const struct api_host_shutdown *h = vm->config.host_shutdown;
    bool live = vm->state == API_VM_STATE_RUNNING || vm->state == API_VM_STATE_PAUSED;
    k->stage = ASKED;
    k->timer = loop_timer_new(vm->d->loop, on_time, k);
    run_on_end(vm->run, on_end, k);
    if (h && h->mode == API_HOST_SHUTDOWN_MODE_SAVE && live && !vm->op && !vm->transient) {
        save_quietly(vm, not_saved); /* has the time that it takes */
    } else {
        ask_guest(k, vm);
    }
}

/* Must k wait for a VM that comes after it? */
static bool must_wait(const struct shutdown *s, const struct ending *k, const struct vm *vm)
{
    for (size_t i = 0; i < s->n; i++) {
        const struct ending *o = &s->all[i];
        struct vm *other = o->stage == ENDED || o->stage == LEFT || o == k
                               ? NULL
                               : vm_by_id(s->d, o->id);
        if (other && policy_comes_after(other, vm)) {
            return true;
        }
    }
    return false;
}

static bool begin_some(struct shutdown *s, bool circle)
{
    bool begun = false;
    for (size_t i = 0; i < s->n; i++) {
        struct ending *k = &s->all[i];
        struct vm *vm = k->stage == WAITS ? vm_by_id(s->d, k->id) : NULL;
        if (vm && vm->run && (circle || !must_wait(s, k, vm))) {
            ask(k, vm);
            begun = true;
        }
    }
    return begun;
}

static void begin_free(struct shutdown *s)
{
    bool busy = begin_some(s, false);
    for (size_t i = 0; i < s->n; i++) {
        busy |= s->all[i].stage == ASKED || s->all[i].stage == QUITTING ||
                s->all[i].stage == KILLED;
    }
    if (!busy) {
        begin_some(s, true); /* 'after' goes in a circle */
    }
}

static bool is_left(const struct vm *vm)
{
    return vm->config.host_shutdown &&
           vm->config.host_shutdown->mode == API_HOST_SHUTDOWN_MODE_LEAVE;
}

bool policy_shutdown(struct vmd *d, void (*fn)(void *arg, struct json_object *take_result),
                     void *arg)
{
    size_t n;
    if (policy_is_shutting(d)) {
        return false;
    }
    struct shutdown *s = xnew(struct shutdown);
    struct vm **list = vm_list(d, &n);
    *s = (struct shutdown){ .d = d, .fn = fn, .arg = arg };
    s->all = xnew_n(struct ending, n + 1);
    d->policy->shutdown = s;
    for (size_t i = 0; i < n; i++) {
        if (list[i]->run && !run_has_ended(list[i]->run)) {
            bool left = is_left(list[i]);
            s->all[s->n++] = (struct ending){ .s = s,
                                              .id = list[i]->id,
                                              .name = xstrdup(list[i]->config.name),
                                              .stage = left ? LEFT : WAITS };
            s->open += !left;
        }
    }
    free(list);
    if (s->open == 0) {
        loop_post(d->loop, shutdown_done, s);
    } else {
        begin_free(s);
    }
    return true;
}
