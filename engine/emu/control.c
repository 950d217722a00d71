/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The control socket: JSON-RPC methods emu.*, several clients at a time, state events to all of
 * them. The schema is api-schema/schema/emu.json. Main thread.
 */
#include "api-schema/gen/methods.h"
#include "api-schema/guest/balloon.h"
#include "api-schema/json/json.h"
#include "api-schema/rpc/call.h"
#include "api-schema/rpc/server.h"
#include "engine/base/fd.h"
#include "engine/base/mem.h"
#include "engine/emu/emu.h"
#include "engine/emu/replay/replay.h"
#include "storage/block.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define MAX_SESSIONS 16
#define DRAIN_TURNS 50
#define DRAIN_NS 20000000 /* each */

struct emu_control {
    struct emu *emu;
    struct rpc_server *server;
    struct rpc_session *session[MAX_SESSIONS];
    unsigned n_sessions;
    bool quit_posted;
};

struct emu *control_emu(struct api_call *call)
{
    return ((struct emu_control *)api_call_app(call))->emu;
}

int control_passed_fd(struct api_call *call)
{
    struct rpc_session *s = api_call_session(call);

    return s ? rpc_conn_passed_fd(s->conn) : -1;
}

static enum api_emu_state state_of(const struct emu *m)
{
    static const enum api_emu_state names[] = {
        [VM_PAUSED] = API_EMU_STATE_PAUSED,
        [VM_RUNNING] = API_EMU_STATE_RUNNING,
        [VM_STOPPED] = API_EMU_STATE_STOPPED,
    };

    return names[m->vm->state];
}

const char *emu_state_name(const struct emu *m)
{
    return api_enum_name(&api_type_emu_state, (int)state_of(m));
}

/* --- methods
 * --------------------------------------------------------------------------------- */

static bool cookie_ok(const struct emu *m, const char *given)
{
    return !given || strcmp(given, m->cookie) == 0;
}

void api_handle_emu_hello(struct api_call *call, struct api_emu_hello_in *in)
{
    struct emu *m = control_emu(call);
    char *open[BOARD_MAX_DISKS];
    struct api_emu_hello_out out = {
        .pid = m->pid,
        .open_trays = open,
        .uuid = m->vm->uuid,
        .name = m->vm->name,
        .state = state_of(m),
        .reason = m->reason,
        .cookie = m->cookie,
        .replay = !record_active(m) ? API_REPLAY_MODE_NONE
                  : m->opt.replay   ? API_REPLAY_MODE_REPLAY
                                    : API_REPLAY_MODE_RECORD,
    };

    if (!cookie_ok(m, in->cookie)) {
        api_fail(call, API_E_DENIED, m->vm->name,
                 "this is another start of the VM; look it up again",
                 "the cookie is not the one this emulator was started with");
        return;
    }
    for (unsigned i = 0; i < m->n_disks; i++) {
        if (m->disks.disk[i].tray_open) {
            open[out.n_open_trays++] = (char *)blk_name(m->disk[i]);
        }
    }
    api_reply_emu_hello(call, &out);
}

void api_handle_emu_status(struct api_call *call, struct api_emu_status_in *in)
{
    struct emu *m = control_emu(call);
    struct api_emu_status_out out = { .state = state_of(m), .reason = m->reason };

    (void)in;
    api_reply_emu_status(call, &out);
}

/* Answers for the call when the VM is not in the state the method needs. */
static bool wrong_state(struct api_call *call, const struct emu *m, enum vm_state need,
                        const char *word)
{
    if (m->vm->state == need) {
        return false;
    }
    api_fail(call, API_E_BAD_STATE, m->vm->name, NULL, "the VM is %s, not %s",
             emu_state_name(m), word);
    return true;
}

/* Answers for the call while the guest must stand still. */
static bool is_held(struct api_call *call, const struct emu *m)
{
    if (dump_at_work(m)) {
        api_fail(call, API_E_BAD_STATE, m->vm->name, "wait for it, or cancel it: 'vmctl jobs'",
                 "its memory is being dumped");
        return true;
    }
    if (state_at_work(m)) {
        api_fail(call, API_E_BAD_STATE, m->vm->name, "wait for it, or cancel it: 'vmctl jobs'",
                 "its state is being saved or loaded");
        return true;
    }
    if (migrate_holds(m)) {
        api_fail(call, API_E_BAD_STATE, m->vm->name, "look at it: 'vmctl migrate list'",
                 "it is being moved to another host, or from there");
        return true;
    }
    if (m->unfit) {
        api_fail(call, API_E_BAD_STATE, m->vm->name, "stop it, and start it again",
                 "a state was loaded in part only");
        return true;
    }
    return false;
}

void api_handle_emu_pause(struct api_call *call, struct api_emu_pause_in *in)
{
    struct emu *m = control_emu(call);

    (void)in;
    if (!wrong_state(call, m, VM_RUNNING, "running")) {
        vm_pause(m->vm);
        api_reply_emu_pause(call);
    }
}

void api_handle_emu_resume(struct api_call *call, struct api_emu_resume_in *in)
{
    struct emu *m = control_emu(call);

    (void)in;
    if (wrong_state(call, m, VM_PAUSED, "paused") || is_held(call, m)) {
        return;
    }
    if (m->vm->ended) {
        api_fail(call, API_E_BAD_STATE, m->vm->name, "reset it: 'vmctl reset', then resume it",
                 "its guest has powered off");
        return;
    }
    struct err e = ERR_INIT;
    if (record_begin(m, &e) != 0) {
        api_fail_err(call, API_E_BAD_STATE, m->vm->name, NULL, &e);
        return;
    }
    vm_resume(m->vm);
    media_tray_moved(m); /* a state that was loaded may have other trays open */
    api_reply_emu_resume(call);
}

void api_handle_emu_reset(struct api_call *call, struct api_emu_reset_in *in)
{
    struct emu *m = control_emu(call);

    (void)in;
    if (m->vm->state == VM_STOPPED) {
        wrong_state(call, m, VM_RUNNING, "running");
        return;
    }
    if (is_held(call, m)) {
        return;
    }
    if (m->vm->reset_ends && !m->vm->ended) { /* once it was answered */
        vm_request(m->vm, VM_REQ_RESET, "host-reset");
        api_reply_emu_reset(call);
        return;
    }
    vm_reset(m->vm);
    control_event(m, "reset", "reset");
    api_reply_emu_reset(call);
}

void api_handle_emu_set_action(struct api_call *call, struct api_emu_set_action_in *in)
{
    struct emu *m = control_emu(call);

    if (in->has_watchdog && !guard_set(m, in->watchdog) &&
        in->watchdog != API_GUEST_WATCHDOG_ACTION_NONE) {
        api_fail(call, API_E_UNSUPPORTED, m->vm->name,
                 "give it one: 'vmctl set VM --guest-watchdog reset', then start it anew",
                 "the VM has no watchdog");
        return;
    }
    if (in->has_reboot) {
        m->vm->reset_ends = in->reboot == API_EMU_REBOOT_SHUTDOWN;
    }
    if (in->has_shutdown) {
        m->vm->end_pauses = in->shutdown == API_EMU_SHUTDOWN_PAUSE;
    }
    if (in->has_panic) {
        m->vm->panic = in->panic == API_EMU_PANIC_PAUSE  ? VM_PANIC_PAUSE
                       : in->panic == API_EMU_PANIC_NONE ? VM_PANIC_NONE
                                                         : VM_PANIC_END;
    }
    api_reply_emu_set_action(call);
}

void api_handle_emu_powerdown(struct api_call *call, struct api_emu_powerdown_in *in)
{
    struct emu *m = control_emu(call);
    struct err e = ERR_INIT;

    (void)in;
    if (m->vm->state == VM_STOPPED) {
        wrong_state(call, m, VM_RUNNING, "running");
    } else if (!m->board_class->powerdown) {
        api_fail(call, API_E_UNSUPPORTED, m->vm->name,
                 "power off from within the guest, or stop the VM",
                 "board %s has no power button", m->board_class->name);
    } else if (m->board_class->powerdown(m->board, &e) < 0) {
        api_fail(call, API_E_UNSUPPORTED, m->vm->name,
                 "load virtio_input in the guest, power off from within it, or stop the VM",
                 "the guest does not listen to its power button: %s", e.msg);
    } else {
        api_reply_emu_powerdown(call);
    }
}

void api_handle_emu_wake(struct api_call *call, struct api_emu_wake_in *in)
{
    struct emu *m = control_emu(call);

    (void)in;
    if (m->vm->state == VM_STOPPED) {
        wrong_state(call, m, VM_RUNNING, "running");
    } else if (!m->vm->asleep) {
        api_fail(call, API_E_BAD_STATE, m->vm->name, NULL,
                 "its guest does not sleep: there is nothing to wake");
    } else if (!is_held(call, m)) {
        vm_wake(m->vm);
        api_reply_emu_wake(call);
    }
}

static void on_quit(void *arg)
{
    emu_quit(arg, "quit");
}

void api_handle_emu_quit(struct api_call *call, struct api_emu_quit_in *in)
{
    struct emu *m = control_emu(call);

    (void)in;
    api_reply_emu_quit(call);
    if (!m->control->quit_posted) {
        m->control->quit_posted = true;
        loop_post(m->loop, on_quit, m);
    }
}

/* --- statistics as the schema has them
 * ------------------------------------------------------- */

static void fill_vcpus(const struct stats_page *p, struct api_vcpu_stats *v)
{
    for (unsigned i = 0; i < p->n_vcpus; i++) {
        v[i] = (struct api_vcpu_stats){
            .index = i,
            .instructions = (int64_t)p->vcpu[i].instructions,
            .has_instructions = p->vcpu[i].instructions != STATS_NOT_COUNTED,
            .cpu_time_ns = (int64_t)p->vcpu[i].cpu_time_ns,
            .halted = p->vcpu[i].halted != 0,
        };
    }
}

static void fill_disks(struct stats_page *p, struct api_disk_stats *d)
{
    for (unsigned i = 0; i < p->n_disks; i++) {
        d[i] = (struct api_disk_stats){
            .name = p->disk[i].name,
            .reads = (int64_t)p->disk[i].reads,
            .read_bytes = (int64_t)p->disk[i].read_bytes,
            .writes = (int64_t)p->disk[i].writes,
            .written_bytes = (int64_t)p->disk[i].written_bytes,
            .flushes = (int64_t)p->disk[i].flushes,
            .errors = (int64_t)p->disk[i].errors,
        };
    }
}

static void fill_nics(struct stats_page *p, struct api_nic_stats *n)
{
    for (unsigned i = 0; i < p->n_nics; i++) {
        n[i] = (struct api_nic_stats){
            .name = p->nic[i].name,
            .link = p->links >> i & 1,
            .rx_frames = (int64_t)p->nic[i].rx_frames,
            .rx_bytes = (int64_t)p->nic[i].rx_bytes,
            .rx_dropped = (int64_t)p->nic[i].rx_dropped,
            .rx_errors = (int64_t)p->nic[i].rx_errors,
            .tx_frames = (int64_t)p->nic[i].tx_frames,
            .tx_bytes = (int64_t)p->nic[i].tx_bytes,
            .tx_dropped = (int64_t)p->nic[i].tx_dropped,
            .tx_errors = (int64_t)p->nic[i].tx_errors,
        };
    }
}

void api_handle_emu_stats(struct api_call *call, struct api_emu_stats_in *in)
{
    struct stats_page p = { 0 };
    struct api_vcpu_stats vcpus[STATS_MAX_VCPUS];
    struct api_disk_stats disks[STATS_MAX_DISKS];
    struct api_nic_stats nics[STATS_MAX_NICS];
    struct api_balloon_stats balloon;
    char *layers[16];
    unsigned n_layers = confine_describe(control_emu(call), layers, ARRAY_LEN(layers));

    (void)in;
    stats_collect(control_emu(call), &p);
    fill_vcpus(&p, vcpus);
    fill_disks(&p, disks);
    fill_nics(&p, nics);
    struct api_vm_stats out = {
        .uptime_ns = (int64_t)(p.published_ns - p.started_ns),
        .guest_time_ns = (int64_t)p.guest_time_ns,
        .cpu_time_ns = (int64_t)p.cpu_time_ns,
        .instructions = (int64_t)p.instructions,
        .has_instructions = p.instructions != STATS_NOT_COUNTED,
        .memory_rss = (int64_t)p.memory_rss,
        .tb_translated = (int64_t)p.tb_translated,
        .tb_flushes = (int64_t)p.tb_flushes,
        .cache_used = (int64_t)p.cache_used,
        .cache_size = (int64_t)p.cache_size,
        .exits = (int64_t)p.exits,
        .mmio = (int64_t)p.mmio,
        .interrupts = (int64_t)p.interrupts,
        .console_in = (int64_t)p.console_in,
        .console_out = (int64_t)p.console_out,
        .vcpus = vcpus,
        .n_vcpus = p.n_vcpus,
        .disks = disks,
        .n_disks = p.n_disks,
        .nics = nics,
        .n_nics = p.n_nics,
        .sandbox = layers,
        .n_sandbox = n_layers,
    };
    if (balloon_stats(&p.balloon, (int64_t)p.published_ns, &balloon)) {
        out.balloon = &balloon;
    }
    api_reply_emu_stats(call, &out);
    while (n_layers > 0) {
        free(layers[--n_layers]);
    }
}

/* --- the engine's counters
 * ------------------------------------------------------------------- */

/* "name value meaning" lines as lists; everything points into the text, which is cut up. */
struct engine_lists {
    struct api_engine_counter *vm;
    size_t n_vm;
    struct api_engine_vcpu *vcpus;
    size_t n_vcpus;
    int64_t instructions;
    bool counted;
};

static struct api_engine_vcpu *engine_vcpu(struct engine_lists *l, unsigned index)
{
    if (l->n_vcpus == 0 || l->vcpus[l->n_vcpus - 1].index != (int64_t)index) {
        l->vcpus = xrealloc_n(l->vcpus, l->n_vcpus + 1, sizeof(l->vcpus[0]));
        l->vcpus[l->n_vcpus++] = (struct api_engine_vcpu){ .index = index };
    }
    return &l->vcpus[l->n_vcpus - 1];
}

static void engine_line(struct engine_lists *l, char *line)
{
    char *name = strsep(&line, " "), *value = strsep(&line, " ");
    struct api_engine_counter c;
    struct api_engine_counter **list = &l->vm;
    size_t *n = &l->n_vm;
    unsigned index;
    int skip = 0;

    if (!value) {
        return;
    }
    if (sscanf(name, "cpu%u.%n", &index, &skip) == 1 && skip > 0) {
        struct api_engine_vcpu *v = engine_vcpu(l, index);
        list = &v->counters;
        n = &v->n_counters;
    }
    c = (struct api_engine_counter){ .name = name + skip,
                                     .value = (int64_t)strtoull(value, NULL, 10),
                                     .doc = line };
    if (strcmp(c.name, "instructions") == 0) {
        l->counted = true;
        l->instructions += c.value;
    }
    *list = xrealloc_n(*list, *n + 1, sizeof(c));
    (*list)[(*n)++] = c;
}

void api_handle_emu_engine(struct api_call *call, struct api_emu_engine_in *in)
{
    struct emu *m = control_emu(call);
    struct engine_lists l = { 0 };
    AUTO_BUF b = BUF_INIT;
    char *rest, *line;

    (void)in;
    if (m->vm->engine->stats) {
        m->vm->engine->stats(m->vm, &b);
    }
    rest = b.data;
    while (rest && (line = strsep(&rest, "\n"))) {
        engine_line(&l, line);
    }
    struct api_engine_stats out = {
        .engine = m->config.engine,
        .instructions = l.instructions,
        .has_instructions = l.counted,
        .counters = l.vm,
        .n_counters = l.n_vm,
        .vcpus = l.vcpus,
        .n_vcpus = l.n_vcpus,
    };
    api_reply_emu_engine(call, &out);
    for (size_t i = 0; i < l.n_vcpus; i++) {
        free(l.vcpus[i].counters);
    }
    free(l.vcpus);
    free(l.vm);
}

/* --- server
 * ---------------------------------------------------------------------------------- */

static void on_opened(void *arg, struct rpc_session *s)
{
    struct emu_control *c = arg;

    if (c->n_sessions < MAX_SESSIONS) {
        c->session[c->n_sessions++] = s;
        rpc_conn_take_fds(s->conn);
    }
}

static void on_closed(void *arg, struct rpc_session *s)
{
    struct emu_control *c = arg;

    for (unsigned i = 0; i < c->n_sessions; i++) {
        if (c->session[i] == s) {
            c->session[i] = c->session[--c->n_sessions];
            return;
        }
    }
}

static bool on_call(void *arg, struct api_call *call)
{
    (void)arg;
    return record_refuses(call);
}

static const struct rpc_server_ops server_ops = {
    .before = on_call,
    .opened = on_opened,
    .closed = on_closed,
};

int control_start(struct emu *m, struct err *e)
{
    const struct rpc_server_config config = {
        .program = "vmd-emu",
        .handlers = &api_handlers_emu,
        .max_clients = MAX_SESSIONS,
    };
    struct emu_control *c = xnew(struct emu_control);
    int fd = take_fd(&m->opt.control_fd), rc = fd_set_nonblock(fd, true, e);

    c->emu = m;
    m->control = c;
    if (rc == 0 && listen(fd, MAX_SESSIONS) != 0) {
        rc = err_errno(e, errno, "control socket: listen");
    }
    if (rc != 0) {
        close(fd);
        return rc;
    }
    c->server = rpc_server_new(m->loop, &config, &server_ops, c);
    return rpc_server_listen(c->server, fd, API_ROLE_ADMIN, e);
}

void control_event(struct emu *m, const char *type, const char *reason)
{
    struct json_object *params;

    if (!m->control || !m->control->server) {
        return;
    }
    params = json_object_new_object();
    json_object_object_add(params, "type", json_object_new_string(type));
    json_object_object_add(params, "state", json_object_new_string(emu_state_name(m)));
    json_object_object_add(params, "reason", json_object_new_string(reason));
    rpc_server_notify_all(m->control->server, "event", params);
    json_object_put(params);
}

void control_io_error(struct emu *m, const char *disk, const char *operation,
                      const char *action, int error)
{
    struct json_object *p;

    if (!m->control || !m->control->server) {
        return;
    }
    p = json_object_new_object();
    json_object_object_add(p, "type", json_object_new_string("io-error"));
    json_object_object_add(p, "disk", json_object_new_string(disk));
    json_object_object_add(p, "operation", json_object_new_string(operation));
    json_object_object_add(p, "action", json_object_new_string(action));
    json_object_object_add(p, "error", json_object_new_string(disks_error(error)));
    json_object_object_add(p, "nospace",
                           json_object_new_boolean(error == -ENOSPC || error == -EDQUOT));
    rpc_server_notify_all(m->control->server, "event", p);
    json_object_put(p);
}

void control_disk_lost(struct emu *m, const char *disk)
{
    struct json_object *p;

    if (!m->control || !m->control->server) {
        return;
    }
    p = json_object_new_object();
    json_object_object_add(p, "type", json_object_new_string("disk-lost"));
    json_object_object_add(p, "disk", json_object_new_string(disk));
    rpc_server_notify_all(m->control->server, "event", p);
    json_object_put(p);
}

void control_device(struct emu *m, const char *type, const char *kind, const char *name)
{
    struct json_object *p;

    if (!m->control || !m->control->server) {
        return;
    }
    p = json_object_new_object();
    json_object_object_add(p, "type", json_object_new_string(type));
    json_object_object_add(p, "kind", json_object_new_string(kind));
    json_object_object_add(p, "name", json_object_new_string(name));
    rpc_server_notify_all(m->control->server, "event", p);
    json_object_put(p);
}

void control_tray(struct emu *m, const char *disk, bool open)
{
    struct json_object *p;

    if (!m->control || !m->control->server) {
        return;
    }
    p = json_object_new_object();
    json_object_object_add(p, "type", json_object_new_string("tray"));
    json_object_object_add(p, "name", json_object_new_string(disk));
    json_object_object_add(p, "open", json_object_new_boolean(open));
    rpc_server_notify_all(m->control->server, "event", p);
    json_object_put(p);
}

void control_channel(struct emu *m, const char *name, bool open)
{
    struct json_object *p;

    if (!m->control || !m->control->server) {
        return;
    }
    p = json_object_new_object();
    json_object_object_add(p, "type", json_object_new_string("channel"));
    json_object_object_add(p, "name", json_object_new_string(name));
    json_object_object_add(p, "open", json_object_new_boolean(open));
    rpc_server_notify_all(m->control->server, "event", p);
    json_object_put(p);
}

void control_balloon(struct emu *m, uint64_t actual)
{
    struct json_object *p;

    if (!m->control || !m->control->server) {
        return;
    }
    p = json_object_new_object();
    json_object_object_add(p, "type", json_object_new_string("balloon"));
    json_object_object_add(p, "actual", json_object_new_int64((int64_t)actual));
    rpc_server_notify_all(m->control->server, "event", p);
    json_object_put(p);
}

void control_memory(struct emu *m, const char *name, uint64_t plugged)
{
    struct json_object *p;

    if (!m->control || !m->control->server) {
        return;
    }
    p = json_object_new_object();
    json_object_object_add(p, "type", json_object_new_string("memory"));
    json_object_object_add(p, "name", json_object_new_string(name));
    json_object_object_add(p, "actual", json_object_new_int64((int64_t)plugged));
    rpc_server_notify_all(m->control->server, "event", p);
    json_object_put(p);
}

void control_record(struct emu *m, const char *type, uint64_t count, const char *text)
{
    struct json_object *p;

    if (!m->control || !m->control->server) {
        return;
    }
    p = json_object_new_object();
    json_object_object_add(p, "type", json_object_new_string(type));
    json_object_object_add(p, "count", json_object_new_int64((int64_t)count));
    json_object_object_add(p, "text", json_object_new_string(text));
    rpc_server_notify_all(m->control->server, "event", p);
    json_object_put(p);
}

static bool queued(const struct emu_control *c)
{
    for (unsigned i = 0; i < c->n_sessions; i++) {
        if (rpc_conn_queued(c->session[i]->conn) > 0) {
            return true;
        }
    }
    return false;
}

void control_drain(struct emu *m)
{
    if (!m->control || !m->control->server) {
        return;
    }
    rpc_server_drain(m->control->server);
    for (unsigned i = 0; i < DRAIN_TURNS && queued(m->control); i++) {
        (void)loop_run_once(m->loop, DRAIN_NS, NULL);
    }
}

void control_free(struct emu *m)
{
    if (m->control) {
        rpc_server_free(m->control->server);
        free(m->control);
        m->control = NULL;
    }
}
