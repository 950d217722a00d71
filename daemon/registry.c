/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The VMs in memory. Owns struct vm and the tables by name, UUID and number. Loop thread.
 */
#include "daemon/vm/agent.h"
#include "daemon/registry.h"

#include "api-schema/json/json.h"
#include "api-schema/json/text.h"
#include "daemon/daemon.h"
#include "daemon/events.h"
#include "daemon/vm/policy.h"
#include "daemon/run/proc.h"
#include "daemon/qmp/qmp.h"
#include "daemon/run/stats.h"
#include "daemon/run/supervise.h"
#include "daemon/screen/vnc.h"
#include "engine/base/buf.h"
#include "engine/base/hash.h"
#include "engine/base/log.h"
#include "engine/base/loop.h"
#include "engine/base/mem.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

struct registry {
    struct vmd *d;
    struct hash *by_name, *by_uuid, *by_id;
    int64_t next_id;
    struct vm **sorted; /* all of them by name; NULL: to be made when asked for */
    size_t n_sorted;
};

/* Names or VMs have changed. */
static void unsort(struct registry *r)
{
    free(r->sorted);
    r->sorted = NULL;
}

struct registry *registry_new(struct vmd *d)
{
    struct registry *r = xnew(struct registry);
    r->d = d;
    r->by_name = hash_new_str();
    r->by_uuid = hash_new_str();
    r->by_id = hash_new_u64();
    r->next_id = 1;
    return r;
}

static struct vm *vm_add(struct registry *r, int64_t id, struct api_vm_config *take_config)
{
    struct vm *vm = xnew(struct vm);
    vm->dump_fd = -1;
    vm->d = r->d;
    vm->id = id;
    vm->config = *take_config;
    memset(take_config, 0, sizeof(*take_config));
    vm->state = API_VM_STATE_STOPPED;
    list_init(&vm->ops);
    list_init(&vm->waiters);
    unsort(r);
    hash_put_str(r->by_name, vm->config.name, vm);
    hash_put_str(r->by_uuid, vm->config.uuid, vm);
    hash_put_u64(r->by_id, (uint64_t)id, vm);
    return vm;
}

struct vm *vm_new(struct vmd *d, struct api_vm_config *take_config, int64_t owner,
                  bool transient)
{
    struct vm *vm = vm_add(d->vms, d->vms->next_id++, take_config);
    vm->owner = owner;
    vm->transient = transient;
    vm->pending = true;
    vm->created_ns = time_real_ns();
    vm->since_ms = vm->created_ns / 1000000;
    return vm;
}

static void forget(struct vm *vm);

void vm_free(struct vm *vm)
{
    if (!vm) {
        return;
    }
    struct registry *r = vm->d->vms;
    unsort(r);
    if (hash_get_str(r->by_name, vm->config.name) == vm) {
        hash_del_str(r->by_name, vm->config.name);
    }
    hash_del_str(r->by_uuid, vm->config.uuid);
    hash_del_u64(r->by_id, (uint64_t)vm->id);
    api_release(&api_type_vm_config, &vm->config);
    if (vm->exit) {
        api_release(&api_type_vm_exit, vm->exit);
        free(vm->exit);
    }
    loop_timer_free(vm->restart_timer);
    vnc_free(vm);
    free(vm->reason);
    if (vm->dump_fd >= 0) {
        close(vm->dump_fd);
    }
    forget(vm);
    free(vm);
}

static bool collect(const char *skey, uint64_t ukey, void *value, void *arg)
{
    (void)skey;
    (void)ukey;
    struct vm ***at = arg;
    *(*at)++ = value;
    return true;
}

static struct vm **all_vms(struct registry *r, size_t *n)
{
    *n = hash_count(r->by_id);
    struct vm **list = xnew_n(struct vm *, *n + 1), **at = list;
    hash_each(r->by_id, collect, &at);
    return list;
}

void registry_free(struct registry *r)
{
    if (!r) {
        return;
    }
    size_t n;
    struct vm **list = all_vms(r, &n);
    for (size_t i = 0; i < n; i++) {
        vm_free(list[i]);
    }
    free(list);
    unsort(r);
    hash_free(r->by_name);
    hash_free(r->by_uuid);
    hash_free(r->by_id);
    free(r);
}

/* ---- loading ---- */

static void load_vm(void *arg, const struct store_vm *row)
{
    struct registry *r = arg;
    AUTO_JSON o = NULL;
    struct err e = ERR_INIT;
    struct api_error x = API_ERROR_INIT;
    struct api_vm_config config;
    if (api_json_parse(row->config, strlen(row->config), &o, &e) < 0 ||
        api_decode(&api_type_vm_config, o, API_LENIENT, "config", &config, &x) < 0) {
        log_error("daemon", "definition of VM '%s' left out: %s", row->name,
                  x.code ? x.message : e.msg);
        return;
    }
    struct vm *vm = vm_add(r, row->id, &config);
    vm->owner = row->owner;
    vm->transient = row->transient;
    vm->created_ns = row->created_ns;
    vm->since_ms = row->changed_ns / 1000000;
}

static void load_exit(void *arg, const struct store_exit *row)
{
    struct registry *r = arg;
    struct vm *vm = hash_get_u64(r->by_id, (uint64_t)row->vm);
    if (!vm) {
        return;
    }
    if (!vm->exit) {
        vm->exit = xnew(struct api_vm_exit);
    }
    api_release(&api_type_vm_exit, vm->exit);
    *vm->exit = (struct api_vm_exit){ .reason = xstrdup(row->reason),
                                      .status = row->status,
                                      .has_status = row->status >= 0,
                                      .signal = row->signal,
                                      .has_signal = row->signal > 0,
                                      .message = row->message[0] ? xstrdup(row->message) : NULL,
                                      .time_ms = row->ended_ns / 1000000,
                                      .has_time_ms = true };
    vm->state = exit_is_crash(row->reason) ? API_VM_STATE_CRASHED : API_VM_STATE_STOPPED;
    vm->since_ms = vm->exit->time_ms;
    free(vm->reason);
    vm->reason = xstrdup(row->reason);
}

int registry_load(struct registry *r, struct err *e)
{
    int64_t job, event;
    int rc = store_load_vms(r->d->store, load_vm, r, e);
    if (rc == 0) {
        rc = store_load_exits(r->d->store, load_exit, r, e);
    }
    return rc < 0 ? rc : store_next_ids(r->d->store, &r->next_id, &job, &event, e);
}

/* ---- looking ---- */

struct vm *vm_find(struct vmd *d, const char *ref, bool with_pending)
{
    struct vm *vm = hash_get_str(d->vms->by_name, ref);
    if (!vm) {
        vm = hash_get_str(d->vms->by_uuid, ref);
    }
    return vm && vm->pending && !with_pending ? NULL : vm;
}

struct vm *vm_by_id(struct vmd *d, int64_t id)
{
    return hash_get_u64(d->vms->by_id, (uint64_t)id);
}

void vm_name_add(struct vm *vm, const char *name)
{
    unsort(vm->d->vms);
    hash_put_str(vm->d->vms->by_name, name, vm);
}

void vm_name_drop(struct vm *vm, const char *name)
{
    unsort(vm->d->vms);
    if (hash_get_str(vm->d->vms->by_name, name) == vm) {
        hash_del_str(vm->d->vms->by_name, name);
    }
}

static int by_name(const void *a, const void *b)
{
    const struct vm *const *x = a, *const *y = b;
    return strcmp((*x)->config.name, (*y)->config.name);
}

struct vm **vm_list(struct vmd *d, size_t *n)
{
    struct registry *r = d->vms;
    size_t kept = 0;
    if (!r->sorted) {
        r->sorted = all_vms(r, &r->n_sorted);
        qsort(r->sorted, r->n_sorted, sizeof(*r->sorted), by_name);
    }
    struct vm **list = xalloc_n(r->n_sorted + 1, sizeof(*list));
    for (size_t i = 0; i < r->n_sorted; i++) {
        if (!r->sorted[i]->pending) {
            list[kept++] = r->sorted[i];
        }
    }
    list[kept] = NULL;
    *n = kept;
    return list;
}

struct vm **vm_list_all(struct vmd *d, size_t *n)
{
    return all_vms(d->vms, n);
}

size_t vm_count(struct vmd *d)
{
    return hash_count(d->vms->by_id);
}

size_t vm_count_active(struct vmd *d)
{
    size_t n, active = 0;
    struct vm **list = all_vms(d->vms, &n);
    for (size_t i = 0; i < n; i++) {
        active += list[i]->run != NULL;
    }
    free(list);
    return active;
}

/* ---- changing ---- */

void vm_put_as(struct vm *vm, const struct api_vm_config *config, struct change *c)
{
    AUTO_BUF text = BUF_INIT;
    api_write(&api_type_vm_config, config, &text);
    store_tx_vm_put(change_tx(c), &(struct store_vm){ .id = vm->id,
                                                      .uuid = config->uuid,
                                                      .name = config->name,
                                                      .config = text.data,
                                                      .owner = vm->owner,
                                                      .transient = vm->transient,
                                                      .created_ns = vm->created_ns,
                                                      .changed_ns = time_real_ns() });
}

void vm_put(struct vm *vm, struct change *c)
{
    vm_put_as(vm, &vm->config, c);
}

void vm_event(struct vm *vm, struct change *c, enum api_event_type type, const char *reason,
              struct json_object *detail)
{
    bool state = type == API_EVENT_TYPE_VM_STATE;
    change_event(c, &(struct api_event){ .type = type,
                                         .vm = vm->config.uuid,
                                         .name = vm->config.name,
                                         .state = vm->state,
                                         .has_state = state,
                                         .reason = (char *)reason,
                                         .detail = detail });
}

bool vm_is_live(const struct vm *vm)
{
    return vm->run && (vm->state == API_VM_STATE_RUNNING || vm->state == API_VM_STATE_PAUSED);
}

void vm_set_state(struct vm *vm, enum api_vm_state state, const char *reason, struct change *c)
{
    vm->state = state;
    vm->since_ms = time_real_ns() / 1000000;
    free(vm->reason);
    vm->reason = reason ? xstrdup(reason) : NULL;
    vnc_changed(vm);
    vm_event(vm, c, API_EVENT_TYPE_VM_STATE, reason, NULL);
}

struct told {
    struct vmd *d;
    int64_t id;
};

static void told(void *arg, const struct err *e)
{
    (void)e;
    struct told *t = arg;
    struct vm *vm = vm_by_id(t->d, t->id);
    if (vm) {
        vm_wake(vm, false);
    }
    free(t);
}

void vm_tell_state(struct vm *vm, enum api_vm_state state, const char *reason)
{
    struct change *c = change_new(vm->d);
    struct told *t = xnew(struct told);
    *t = (struct told){ .d = vm->d, .id = vm->id };
    change_must_tell(c);
    vm_set_state(vm, state, reason, c);
    change_commit(c, told, t);
}

/* What VmInfo says, borrowed from the VM; `figures` is what `info` may point to, to be released when has_stats. */
struct shown {
    struct api_vm_info info;
    struct api_vm_stats figures;
};

static void show(struct vm *vm, bool config, bool stats, struct shown *s)
{
    bool live = vm->run && !run_has_ended(vm->run);
    bool has = stats && live && run_stats(vm->run, &s->figures);
    pid_t pid = live ? run_pid(vm->run) : 0;
    int64_t due_ms = policy_restart_due_ms(vm);
    enum api_replay_mode mode = live ? run_replay_mode(vm->run) : API_REPLAY_MODE_NONE;
    size_t n_addresses;
    char **addresses = agent_addresses(vm, &n_addresses);
    s->info = (struct api_vm_info){
        .name = vm->config.name,
        .uuid = vm->config.uuid,
        .state = vm->state,
        .reason = vm->reason,
        .since_ms = vm->since_ms,
        .arch = vm->config.arch,
        .cpus = vm->config.cpus,
        .memory = vm->config.memory,
        .pid = pid,
        .has_pid = pid > 0,
        .agent = agent_listens(vm),
        .addresses = addresses,
        .n_addresses = n_addresses,
        .restarts = vm->restarts,
        .restart_due_ms = due_ms,
        .has_restart_due_ms = due_ms != 0,
        .qmp = vm->run && run_has_ended(vm->run) ? NULL : qmp_vm_path(vm),
        .transient = vm->transient,
        .saved = vm->saved,
        .replay = mode,
        .has_replay = mode != API_REPLAY_MODE_NONE,
        .project = vm->config.project,
        .exit = live ? NULL : vm->exit,
        .config = config ? &vm->config : NULL,
        .stats = has ? &s->figures : NULL,
    };
}

/*
 * A VM that does not run is told of with the same words until something of it changes: they are kept, with what they were
 * made from. Whatever is told of such a VM stands in here, so that nobody who changes a VM has to think of this.
 */
struct kept {
    struct api_vm_info of; /* its texts and the exit are our own */
    struct api_vm_exit exit;
    bool has_exit;
    char *text;
    size_t len;
};

static bool same_text(const char *a, const char *b)
{
    return a == b || (a && b && strcmp(a, b) == 0);
}

static bool same_exit(const struct kept *k, const struct api_vm_exit *x)
{
    return k->has_exit == (x != NULL) &&
           (!x ||
            (x->time_ms == k->exit.time_ms && x->status == k->exit.status &&
             x->signal == k->exit.signal && x->has_time_ms == k->exit.has_time_ms &&
             x->has_status == k->exit.has_status && x->has_signal == k->exit.has_signal &&
             same_text(x->reason, k->exit.reason) && same_text(x->message, k->exit.message)));
}

static bool still_so(const struct kept *k, const struct api_vm_info *now)
{
    return k->of.state == now->state && k->of.since_ms == now->since_ms &&
           k->of.arch == now->arch && k->of.cpus == now->cpus && k->of.memory == now->memory &&
           k->of.restarts == now->restarts && k->of.restart_due_ms == now->restart_due_ms &&
           k->of.transient == now->transient && k->of.saved == now->saved &&
           same_text(k->of.name, now->name) && same_text(k->of.reason, now->reason) &&
           same_text(k->of.project, now->project) && same_exit(k, now->exit);
}

static void forget(struct vm *vm)
{
    struct kept *k = take_ptr(vm->kept);
    if (k) {
        free(k->of.name);
        free(k->of.reason);
        free(k->of.project);
        free(k->exit.reason);
        free(k->exit.message);
        free(k->text);
        free(k);
    }
}

static char *copy_of(const char *s)
{
    return s ? xstrdup(s) : NULL;
}

static void keep(struct vm *vm, const struct api_vm_info *now, const char *text, size_t len)
{
    struct kept *k = vm->kept = xnew(struct kept);
    k->of = *now;
    k->of.name = copy_of(now->name);
    k->of.reason = copy_of(now->reason);
    k->of.project = copy_of(now->project);
    k->has_exit = now->exit != NULL;
    if (now->exit) {
        k->exit = *now->exit;
        k->exit.reason = copy_of(now->exit->reason);
        k->exit.message = copy_of(now->exit->message);
    }
    k->text = xalloc(len);
    memcpy(k->text, text, len);
    k->len = len;
}

static void show_done(struct shown *s)
{
    if (s->info.stats) {
        api_release(&api_type_vm_stats, &s->figures);
    }
}

struct json_object *vm_info(struct vm *vm, bool config, bool stats)
{
    struct shown s;
    show(vm, config, stats, &s);
    struct json_object *o = api_encode(&api_type_vm_info, &s.info);
    show_done(&s);
    return o;
}

void vm_info_write(struct vm *vm, bool config, bool stats, struct buf *to)
{
    struct shown s;
    size_t from = to->len;
    show(vm, config, stats, &s);
    bool lasts = !vm->run && !config && !s.info.agent && s.info.n_addresses == 0;
    if (lasts && vm->kept && still_so(vm->kept, &s.info)) {
        buf_add(to, vm->kept->text, vm->kept->len);
        return;
    }
    api_write(&api_type_vm_info, &s.info, to);
    forget(vm);
    if (lasts) {
        keep(vm, &s.info, to->data + from, to->len - from);
    }
    show_done(&s);
}

struct json_object *vm_info_raw(struct vm *vm, bool config, bool stats)
{
    AUTO_BUF text = BUF_INIT;
    vm_info_write(vm, config, stats, &text);
    return api_json_raw(&text);
}
