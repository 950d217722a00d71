/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Watching an emulator: its pidfd and its monitor's, the control connection, its notifications, and
 * whether it still answers. Part of struct run (run.h). Loop thread; the emulator is not trusted:
 * what it sends is decoded against the schema and rate-limited.
 */
#include "api-schema/gen/methods.h"
#include "api-schema/json/codec.h"
#include "api-schema/json/json.h"
#include "daemon/daemon.h"
#include "daemon/events.h"
#include "daemon/registry.h"
#include "daemon/run/run.h"
#include "daemon/run/runfs.h"
#include "daemon/spawn/proto.h"
#include "daemon/run/stats.h"
#include "daemon/vm/agent.h"
#include "daemon/vm/balloon.h"
#include "daemon/vm/memdev.h"
#include "daemon/vm/channels.h"
#include "daemon/vm/hotplug.h"
#include "daemon/vm/media.h"
#include "daemon/vm/reconnect.h"
#include "engine/base/fd.h"
#include "engine/base/log.h"
#include "engine/base/loop.h"
#include "engine/base/mem.h"
#include "engine/base/str.h"

#include <errno.h>
#include <string.h>

#define MS INT64_C(1000000)
#define RETRY_FIRST_NS (1 * MS)
#define RETRY_MOST_NS (50 * MS)
#define HELLO_NS (3000 * MS)
#define PING_EVERY_NS (3000 * MS)
#define PING_NS (2500 * MS)
#define RECORD_NS (2000 * MS) /* how long a monitor may take for its record */
#define RESETS_PER_S 10
#define ERRORS_PER_S 20
#define CHANNELS_PER_S 20
#define TRAYS_PER_S 200
#define STOPS_PER_S 1000
#define LOST_PER_S 64

static void say_hello(struct run *run);

/* ---- processes ---- */

static void on_no_record(void *arg)
{
    struct run *run = arg;
    log_warn("daemon", "VM '%s': its monitor (pid %d) left no record", run->vm->config.name,
             (int)run->mon_pid);
    run->mon_dead = true;
    run_finish(run);
}

static void wait_for_record(struct run *run)
{
    loop_timer_free(run->grace);
    run->grace = loop_timer_new(run->d->loop, on_no_record, run);
    loop_timer_arm(run->grace, RECORD_NS);
}

static void on_process_end(void *arg, int fd, unsigned events)
{
    (void)events;
    struct run *run = arg;
    if (fd == run->pidfd) {
        loop_fd_free(run->w_pid);
        run->w_pid = NULL;
        run->emu_dead = true;
    } else {
        loop_fd_free(run->w_mon);
        run->w_mon = NULL;
        run->mon_dead = true;
    }
    if (run->emu_dead && run->mon_dead) {
        run_finish(run);
    } else if (run->emu_dead) {
        wait_for_record(run);
    } else {
        log_warn("daemon",
                 "VM '%s': its monitor (pid %d) is gone; how it will end cannot be told",
                 run->vm->config.name, (int)run->mon_pid);
    }
}

void run_attach(struct run *run, int take_pidfd, int take_mon_pidfd, int take_stats)
{
    struct err e = ERR_INIT;
    run->pidfd = take_pidfd;
    run->mon_pidfd = take_mon_pidfd;
    run->emu_dead = take_pidfd < 0;
    run->mon_dead = take_mon_pidfd < 0;
    if (take_stats >= 0) {
        run->stats = stats_open(take_stats, &e);
        if (!run->stats) {
            log_warn("daemon", "VM '%s': no statistics: %s", run->vm->config.name, e.msg);
        }
    }
    if (take_pidfd >= 0) {
        run->w_pid = loop_fd_new(run->d->loop, take_pidfd, LOOP_READ, on_process_end, run);
    }
    if (take_mon_pidfd >= 0) {
        run->w_mon = loop_fd_new(run->d->loop, take_mon_pidfd, LOOP_READ, on_process_end, run);
    }
    if (run->emu_dead && run->mon_dead) {
        run_finish(run);
    } else if (run->emu_dead) {
        wait_for_record(run);
    }
}

void run_settle(struct run *run)
{
    void (*fn)(void *arg) = run->settled;
    run->settled = NULL;
    if (fn) {
        fn(run->settled_arg);
    }
}

/* ---- states ---- */

static enum api_vm_state vm_state_of(enum api_emu_state s)
{
    switch (s) {
    case API_EMU_STATE_RUNNING:
        return API_VM_STATE_RUNNING;
    case API_EMU_STATE_PAUSED:
        return API_VM_STATE_PAUSED;
    default:
        return API_VM_STATE_STOPPING;
    }
}

/* "guest-poweroff" and "poweroff" are the same to whoever reads how a VM ended; without a daemon
 * there is only the exit status to tell it from. */
static const char *plain(const char *reason)
{
    return reason && str_starts(reason, "guest-") ? reason + strlen("guest-") : reason;
}

bool run_is_kept(enum api_vm_state state, const char *reason)
{
    static const char *const ends[] = { "poweroff", "fail", "reset", "host-reset" };

    for (unsigned i = 0; state == API_VM_STATE_PAUSED && reason && i < ARRAY_LEN(ends); i++) {
        if (strcmp(reason, ends[i]) == 0) {
            return true;
        }
    }
    return false;
}

static void take_state(struct run *run, enum api_emu_state s, const char *raw)
{
    enum api_vm_state state = vm_state_of(s);
    const char *reason = plain(raw);
    if (s == API_EMU_STATE_STOPPED && reason) {
        str_copy(run->said, sizeof(run->said), reason);
    }
    if (!run->up || run->ended) {
        return;
    }
    /* A guest asked to power off stays `stopping` while it works on it. */
    if (run->vm->state == API_VM_STATE_STOPPING && s == API_EMU_STATE_RUNNING) {
        return;
    }
    if (run->vm->state != state ||
        run_is_kept(state, reason) != run_is_kept(state, run->vm->reason)) {
        vm_tell_state(run->vm, state, reason);
    }
}

/* What a guest can make happen as often as it likes is told only so often. */
static void tell_some(struct run *run, enum api_event_type type, const char *reason)
{
    int64_t now = time_mono_ns();
    if (now - run->resets_ns > 1000 * MS) {
        run->resets_ns = now;
        run->resets = 0;
    }
    if (run->resets++ < RESETS_PER_S) {
        struct change *c = change_new(run->d);
        change_must_tell(c);
        vm_event(run->vm, c, type, reason, NULL);
        change_commit(c, NULL, NULL);
    }
}

static void on_reset(struct run *run, const char *reason)
{
    tell_some(run, API_EVENT_TYPE_VM_RESET,
              reason && strcmp(reason, "guest-reset") == 0 ? "guest-reset" : "reset");
}

static void on_panic(struct run *run, const char *what)
{
    static const char *const words[] = { "shutdown", "pause", "none" };
    for (unsigned i = 0; what && i < ARRAY_LEN(words); i++) {
        if (strcmp(words[i], what) == 0) {
            tell_some(run, API_EVENT_TYPE_VM_PANIC, words[i]);
        }
    }
}

static void on_watchdog(struct run *run, const char *what)
{
    static const char *const words[] = { "reset", "poweroff", "pause", "none" };
    for (unsigned i = 0; what && i < ARRAY_LEN(words); i++) {
        if (strcmp(words[i], what) == 0) {
            tell_some(run, API_EVENT_TYPE_VM_WATCHDOG, words[i]);
        }
    }
}

/* Somebody looks at the screen, or no longer. */
static void on_vnc(struct run *run, const char *what)
{
    static const char *const words[] = { "connected", "initialized", "disconnected" };
    for (unsigned i = 0; what && i < ARRAY_LEN(words); i++) {
        if (strcmp(words[i], what) == 0) {
            tell_some(run, API_EVENT_TYPE_VM_VNC, words[i]);
        }
    }
}

/* A disk's request failed; the state that follows from it is told by itself. */
static void on_io_error(struct run *run, struct json_object *params)
{
    const char *action = api_json_get_str(params, "action");
    int64_t now = time_mono_ns();
    if (!run->up || run->ended || !action) {
        return;
    }
    if (now - run->errors_ns > 1000 * MS) {
        run->errors_ns = now;
        run->errors = 0;
    }
    /* A pause takes somebody who resumes: he is told of each. */
    bool stop = strcmp(action, "stop") == 0;
    if (run->errors++ >= (stop ? STOPS_PER_S : ERRORS_PER_S)) {
        return;
    }
    static const char *const members[] = { "disk", "operation", "error" };
    struct json_object *detail = json_object_new_object();
    for (unsigned i = 0; i < ARRAY_LEN(members); i++) {
        const char *text = api_json_get_str(params, members[i]);
        if (text) {
            api_json_set_str(detail, members[i], text);
        }
    }
    api_json_set_bool(detail, "nospace", api_json_get_bool(params, "nospace", false));
    struct change *c = change_new(run->d);
    change_must_tell(c);
    vm_event(run->vm, c, API_EVENT_TYPE_VM_IO_ERROR,
             stop                            ? "stop"
             : strcmp(action, "ignore") == 0 ? "ignore"
                                             : "report",
             detail);
    change_commit(c, NULL, NULL);
    json_object_put(detail);
}

/* A device has gone, or is kept. So often as somebody asked for one. */
static void on_device(struct run *run, struct json_object *params, bool refused)
{
    const char *kind = api_json_get_str(params, "kind"),
               *name = api_json_get_str(params, "name");
    if (run->up && !run->ended && kind && name && strlen(name) < 64) {
        hotplug_told(run->vm, kind, name, refused);
    }
}

/* A program of the guest has opened a channel, or closed it. */
static void on_channel(struct run *run, struct json_object *params)
{
    const char *name = api_json_get_str(params, "name");
    bool open = api_json_get_bool(params, "open", false);
    int64_t now = time_mono_ns();
    if (!name || strlen(name) >= 64 || !run->up || run->ended) {
        return;
    }
    agent_channel(run->vm, name, open);
    if (now - run->channels_ns > 1000 * MS) {
        run->channels_ns = now;
        run->channels = 0;
    }
    if (run->channels++ < CHANNELS_PER_S) {
        struct json_object *detail = json_object_new_object();
        struct change *c = change_new(run->d);
        api_json_set_str(detail, "name", name);
        change_must_tell(c);
        vm_event(run->vm, c, API_EVENT_TYPE_VM_CHANNEL, open ? "opened" : "closed", detail);
        change_commit(c, NULL, NULL);
        json_object_put(detail);
    }
}

/* A tray has moved. */
static void on_tray(struct run *run, struct json_object *params)
{
    const char *name = api_json_get_str(params, "name");
    bool open = api_json_get_bool(params, "open", false);
    int64_t now = time_mono_ns();
    if (!name || strlen(name) >= 64 || !run->up || run->ended || !media_told(run, name, open)) {
        return;
    }
    if (now - run->trays_ns > 1000 * MS) {
        run->trays_ns = now;
        run->trays_told = 0;
    }
    if (run->trays_told++ < TRAYS_PER_S) {
        struct json_object *detail = json_object_new_object();
        struct change *c = change_new(run->d);
        api_json_set_str(detail, "name", name);
        change_must_tell(c);
        vm_event(run->vm, c, API_EVENT_TYPE_VM_TRAY, open ? "opened" : "closed", detail);
        change_commit(c, NULL, NULL);
        json_object_put(detail);
    }
}

/* The guest has another size. */
static void on_balloon(struct run *run, struct json_object *params)
{
    if (run->up && !run->ended) {
        balloons_told(run->vm, api_json_get_int(params, "actual", 0));
    }
}

/* It has another size of a memory device. */
static void on_memory(struct run *run, struct json_object *params)
{
    const char *name = api_json_get_str(params, "name");
    if (name && strlen(name) <= 63 && run->up && !run->ended) {
        memory_told(run->vm, name, api_json_get_int(params, "actual", 0));
    }
}

/* An emulator asks again by itself, for each of its disks. */
static void on_disk_lost(struct run *run, const char *disk)
{
    int64_t now = time_mono_ns();
    if (now - run->lost_ns > 1000 * MS) {
        run->lost_ns = now;
        run->lost = 0;
    }
    if (disk && strlen(disk) <= 64 && run->up && !run->ended && run->lost++ < LOST_PER_S) {
        reconnect_disk(run, disk);
    }
}

/* What becomes of a recording or a replay; each is told once, or when somebody moves it. */
static void on_tape(struct run *run, const char *type, struct json_object *params)
{
    static const char *const words[] = { "record-failed", "replay-point", "replay-end",
                                         "replay-diverged" };
    const char *text = api_json_get_str(params, "text");
    for (unsigned i = 0; i < ARRAY_LEN(words) && run->up && !run->ended; i++) {
        if (strcmp(words[i], type) == 0) {
            struct json_object *detail = json_object_new_object();
            struct change *c = change_new(run->d);
            api_json_set_int(detail, "count", api_json_get_int(params, "count", 0));
            api_json_set_str(detail, "text", text ? text : "");
            if (i == 0) {
                log_warn("daemon", "VM '%s': its recording has ended, it runs on: %s",
                         run->vm->config.name, text ? text : "?");
            }
            change_must_tell(c);
            vm_event(run->vm, c, API_EVENT_TYPE_VM_REPLAY, words[i], detail);
            change_commit(c, NULL, NULL);
        }
    }
}

static void on_notify(void *arg, const char *method, struct json_object *params)
{
    struct run *run = arg;
    if (strcmp(method, "event") != 0) {
        return;
    }
    const char *type = api_json_get_str(params, "type");
    const char *word = api_json_get_str(params, "state");
    const char *reason = api_json_get_str(params, "reason");
    if (type && strcmp(type, "reset") == 0) {
        on_reset(run, reason);
    } else if (type && strcmp(type, "vnc") == 0) {
        on_vnc(run, reason);
    } else if (type && strcmp(type, "watchdog") == 0) {
        on_watchdog(run, reason);
    } else if (type && strcmp(type, "panic") == 0) {
        on_panic(run, reason);
    } else if (type && strcmp(type, "io-error") == 0) {
        on_io_error(run, params);
    } else if (type && strcmp(type, "balloon") == 0) {
        on_balloon(run, params);
    } else if (type && strcmp(type, "memory") == 0) {
        on_memory(run, params);
    } else if (type && strcmp(type, "tray") == 0) {
        on_tray(run, params);
    } else if (type && strcmp(type, "channel") == 0) {
        on_channel(run, params);
    } else if (type && strcmp(type, "disk-lost") == 0) {
        on_disk_lost(run, api_json_get_str(params, "disk"));
    } else if (type && (strcmp(type, "record-failed") == 0 || str_starts(type, "replay-"))) {
        on_tape(run, type, params);
    } else if (type && str_starts(type, "device-")) {
        on_device(run, params, strcmp(type, "device-refused") == 0);
    } else if (type && strcmp(type, "state") == 0 && word) {
        int state = api_enum_value(&api_type_emu_state, word);
        if (state >= 0) {
            take_state(run, (enum api_emu_state)state, reason);
        }
    }
}

/* ---- is it well ---- */

static void unresponsive(struct run *run, const char *why)
{
    bool known = run->vm->state == API_VM_STATE_UNRESPONSIVE && run->mute;
    if (!run->ended && !known && !run->started) {
        run->mute = true;
        log_warn("daemon", "VM '%s' (pid %d) does not answer: %s", run->vm->config.name,
                 (int)run->pid, why);
        vm_tell_state(run->vm, API_VM_STATE_UNRESPONSIVE, "no answer");
    }
    run_settle(run);
}

static void on_status(void *arg, struct json_object *result, const struct api_error *x)
{
    struct run *run = arg;
    struct api_emu_status_out out;
    if (x) {
        if (x->code == API_E_TIMEOUT) {
            unresponsive(run, x->message);
            loop_timer_arm(run->timer, 0);
        }
        return;
    }
    if (api_decode(&api_type_emu_status_out, result, API_LENIENT, "", &out, NULL) == 0) {
        if (run->vm->state == API_VM_STATE_UNRESPONSIVE) {
            vm_tell_state(run->vm, vm_state_of(out.state), "answers again");
        } else {
            take_state(run, out.state, out.reason);
        }
        api_release(&api_type_emu_status_out, &out);
    }
    loop_timer_arm(run->timer, PING_EVERY_NS);
}

/* ---- the connection ---- */

static void connect_later(struct run *run)
{
    /* Pauses stay below an eighth of what was waited already: a start is not told of much later than it was done. */
    run->retry_ns = run->retry_ns ? run->retry_ns + run->retry_ns / 8 : RETRY_FIRST_NS;
    if (run->retry_ns > RETRY_MOST_NS) {
        run->retry_ns = RETRY_MOST_NS;
    }
    loop_timer_arm(run->timer, run->retry_ns);
}

static void on_closed(void *arg, const struct err *why)
{
    struct run *run = arg;
    (void)why;
    rpc_client_free(run->client);
    run->client = NULL;
    if (!run->ended) {
        connect_later(run);
    }
}

static const struct rpc_client_ops client_ops = { .notify = on_notify, .closed = on_closed };

/* Whoever listens there must be our emulator. */
static bool hello_ok(struct run *run, const struct api_emu_hello_out *out)
{
    const struct rpc_peer *peer = rpc_client_peer(run->client);
    return peer->pid == run->pid && out->cookie && strcmp(out->cookie, run->cookie) == 0 &&
           strcmp(out->uuid, run->vm->config.uuid) == 0;
}

/* A start ends there; a VM that was taken up is listed unresponsive, for a person to look at. */
static void refuse_stranger(struct run *run)
{
    if (run->started) {
        str_copy(run->failure, sizeof(run->failure),
                 "the emulator that answered is not the one that was started; it was killed");
        run->fail_code = API_E_START_FAILED;
        run_kill(run);
    } else {
        unresponsive(run, "another process answered");
    }
}

static void on_hello(void *arg, struct json_object *result, const struct api_error *x)
{
    struct run *run = arg;
    struct api_emu_hello_out out;
    if (x && x->code == API_E_TIMEOUT) {
        unresponsive(run, x->message);
        say_hello(run);
        return;
    }
    if (x) {
        return; /* the connection ended; on_closed tries again */
    }
    if (api_decode(&api_type_emu_hello_out, result, API_LENIENT, "", &out, NULL) < 0) {
        unresponsive(run, "its hello cannot be understood");
        return;
    }
    if (!hello_ok(run, &out)) {
        log_error("daemon",
                  "VM '%s': process %d behind its control socket is not its emulator %d",
                  run->vm->config.name, (int)rpc_client_peer(run->client)->pid, (int)run->pid);
        refuse_stranger(run);
    } else {
        bool first = !run->up;
        run->adopting = false;
        media_learn(run, out.open_trays, out.n_open_trays);
        run->mode = out.replay;
        if (out.state == API_EMU_STATE_STOPPED && out.reason) {
            str_copy(run->said, sizeof(run->said), plain(out.reason));
        }
        if (first) {
            bool say = run->started || run_is_kept(vm_state_of(out.state), plain(out.reason)) ||
                       (out.reason && (strcmp(out.reason, "io-error") == 0 ||
                                       strcmp(out.reason, "incoming") == 0));
            run_is_up(run, vm_state_of(out.state), say ? plain(out.reason) : "adopted",
                      out.reason);
        } else if (run->vm->state == API_VM_STATE_UNRESPONSIVE) {
            vm_tell_state(run->vm, vm_state_of(out.state), "answers again");
        } else {
            take_state(run, out.state, out.reason);
        }
        if (!first) {
            agent_up(run->vm);
        }
        run->retry_ns = 0;
        run_settle(run);
        loop_timer_arm(run->timer, PING_EVERY_NS);
    }
    api_release(&api_type_emu_hello_out, &out);
}

static void say_hello(struct run *run)
{
    struct json_object *params = json_object_new_object();
    api_json_set_str(params, "cookie", run->cookie);
    rpc_client_call(run->client, "emu.hello", params, HELLO_NS, on_hello, run);
}

static void on_timer(void *arg)
{
    struct run *run = arg;
    if (run->client && run->up) {
        rpc_client_call(run->client, "emu.status", NULL, PING_NS, on_status, run);
    } else if (!run->client && !run->emu_dead) {
        run_connect(run);
    }
}

void run_connect(struct run *run)
{
    struct err e = ERR_INIT;
    if (!run->timer) {
        run->timer = loop_timer_new(run->d->loop, on_timer, run);
    }
    AUTO_FREE char *path = runfs_path(&run->d->opt, run->vm->id, VM_CONTROL);
    AUTO_FREE char *name = xasprintf("emulator of VM '%s'", run->vm->config.name);
    run->client = rpc_client_connect(run->d->loop, path, name, &client_ops, run, &e);
    if (!run->client) {
        connect_later(run);
        return;
    }
    say_hello(run);
}

bool run_call_fd(struct run *run, const char *method, struct json_object *take_params,
                 int owned_fd, int64_t deadline_ns, rpc_done_fn *fn, void *arg)
{
    AUTO_FD fd = owned_fd;
    if (!run->client || !run->up || run->ended) {
        json_object_put(take_params);
        return false;
    }
    rpc_client_call_fd(run->client, method, take_params, take_fd(&fd), deadline_ns, fn, arg);
    return true;
}

bool run_call_with(struct run *run, const char *method, struct json_object *take_params,
                   int64_t deadline_ns, rpc_done_fn *fn, void *arg)
{
    return run_call_fd(run, method, take_params, -1, deadline_ns, fn, arg);
}

bool run_call(struct run *run, const char *method, int64_t deadline_ns, rpc_done_fn *fn,
              void *arg)
{
    return run_call_with(run, method, NULL, deadline_ns, fn, arg);
}
