/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Handlers of event.*, job.*, host.* and vm.wait. Loop thread.
 */
#include "api-schema/gen/methods.h"
#include "api-schema/json/codec.h"
#include "api-schema/json/json.h"
#include "api-schema/json/text.h"
#include "api-schema/rpc/server.h"
#include "daemon/auth/access.h"
#include "daemon/calls.h"
#include "daemon/daemon.h"
#include "daemon/events.h"
#include "daemon/host/hostinfo.h"
#include "daemon/jobs.h"
#include "daemon/vm/policy.h"
#include "daemon/vm/preflight.h"
#include "daemon/registry.h"
#include "daemon/run/spawner.h"
#include "daemon/store/store.h"
#include "daemon/run/supervise.h"
#include "daemon/vm/supply.h"
#include "daemon/waits.h"
#include "engine/base/buf.h"
#include "engine/base/mem.h"
#include "engine/base/str.h"

#include <errno.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

/* ---- events ---- */

/* False after the call was answered. */
static bool make_filter(struct api_call *call, const char *ref,
                        const enum api_event_type *types, size_t n, struct event_filter *f)
{
    memset(f, 0, sizeof(*f));
    str_copy(f->user, sizeof(f->user), api_call_peer(call)->user);
    for (size_t i = 0; i < n; i++) {
        f->types |= UINT64_C(1) << types[i];
    }
    if (ref) {
        struct vm *vm = vm_find(call_daemon(call), ref, false);
        /* The events of a VM that is gone are still there, by its UUID. */
        if (!vm && !uuid_ok(ref)) {
            return call_vm(call, ref) != NULL;
        }
        str_copy(f->vm, sizeof(f->vm), vm ? vm->config.uuid : ref);
    }
    return true;
}

static bool cursor_ok(struct api_call *call, int64_t after)
{
    struct events *ev = call_daemon(call)->events;
    int64_t oldest = events_oldest(ev), newest = events_newest(ev);
    if (after > newest) {
        api_fail(call, API_E_CURSOR_LOST, "after",
                 "read the state anew: 'vm.list' gives a cursor",
                 "cursor %lld is ahead of the newest event %lld: it is of another store",
                 (long long)after, (long long)newest);
        return false;
    }
    if (after > 0 && after + 1 < oldest) {
        api_fail(call, API_E_CURSOR_LOST, "after",
                 "read the state anew: 'vm.list' gives a cursor",
                 "the journal begins at event %lld, cursor %lld is older", (long long)oldest,
                 (long long)after);
        return false;
    }
    return true;
}

void api_handle_event_subscribe(struct api_call *call, struct api_event_subscribe_in *in)
{
    struct vmd *d = call_daemon(call);
    struct event_filter f;
    struct rpc_session *s = api_call_session(call);
    if (!make_filter(call, in->vm, in->types, in->n_types, &f)) {
        return;
    }
    if (in->has_after && !cursor_ok(call, in->after)) {
        return;
    }
    int64_t id = s ? events_subscribe(d->events, s, in->has_after ? in->after : -1, &f)
                   : -EPIPE;
    if (id < 0) {
        api_fail(call, API_E_OVERLOAD, NULL, "end some with 'event.unsubscribe'",
                 "this connection has too many subscriptions");
        return;
    }
    api_reply_event_subscribe(
        call, &(struct api_event_subscribe_out){ .subscription = id,
                                                 .cursor = events_newest(d->events) });
}

void api_handle_event_unsubscribe(struct api_call *call, struct api_event_unsubscribe_in *in)
{
    struct rpc_session *s = api_call_session(call);
    if (!s || events_unsubscribe(call_daemon(call)->events, s, in->subscription) < 0) {
        api_fail(call, API_E_NOT_FOUND, "subscription", NULL,
                 "this connection has no subscription %lld", (long long)in->subscription);
        return;
    }
    api_reply_event_unsubscribe(call);
}

static void add_event(void *arg, const char *event)
{
    struct buf *to = arg;
    if (to->data[to->len - 1] != '[') {
        buf_add_char(to, ',');
    }
    buf_add_str(to, event);
}

void api_handle_event_list(struct api_call *call, struct api_event_list_in *in)
{
    struct vmd *d = call_daemon(call);
    struct event_filter f;
    if (!make_filter(call, in->vm, in->types, in->n_types, &f) || !cursor_ok(call, in->after)) {
        return;
    }
    AUTO_BUF text = BUF_INIT;
    buf_add_str(&text, "{\"events\":[");
    int64_t cursor = events_page(d->events, in->after, (unsigned)in->limit, &f, add_event,
                                 &text);
    buf_printf(&text, "],\"cursor\":%lld,\"oldest\":%lld,\"newest\":%lld}", (long long)cursor,
               (long long)events_oldest(d->events), (long long)events_newest(d->events));
    api_reply_json(call, api_json_raw(&text));
}

/* ---- jobs ---- */

struct job_listing {
    struct api_call *call;
    struct json_object *list;
    bool active;
};

static void add_job(void *arg, struct job *job)
{
    struct job_listing *k = arg;
    struct vm *vm = job->info.vm ? vm_find(call_daemon(k->call), job->info.vm, false) : NULL;
    if ((job_active(job) || !k->active) &&
        access_sees(k->call, vm ? vm->config.project : ACCESS_HOST)) {
        json_object_array_add(k->list, api_encode(&api_type_job, &job->info));
    }
}

void api_handle_job_list(struct api_call *call, struct api_job_list_in *in)
{
    struct json_object *o = json_object_new_object(), *list = json_object_new_array();
    struct job_listing k = { .call = call, .list = list, .active = in->active };
    jobs_each(call_daemon(call), add_job, &k);
    api_json_set(o, "jobs", list);
    api_reply_json(call, o);
}

static struct job *call_job(struct api_call *call, int64_t id)
{
    struct job *job = job_find(call_daemon(call), id);
    if (!job) {
        api_fail(call, API_E_NOT_FOUND, "job", "'vmctl jobs' shows the jobs there are",
                 "there is no job %lld", (long long)id);
    }
    return job;
}

void api_handle_job_get(struct api_call *call, struct api_job_get_in *in)
{
    struct job *job = call_job(call, in->job);
    if (job) {
        api_reply(call, &job->info);
    }
}

void api_handle_job_wait(struct api_call *call, struct api_job_wait_in *in)
{
    struct job *job = call_job(call, in->job);
    if (job) {
        wait_job(call, job, in->has_timeout_ms ? in->timeout_ms : -1);
    }
}

void api_handle_job_cancel(struct api_call *call, struct api_job_cancel_in *in)
{
    struct vmd *d = call_daemon(call);
    struct job *job = call_job(call, in->job);
    if (!job) {
        return;
    }
    if (!job_active(job)) {
        api_fail(call, API_E_BAD_STATE, "job", NULL, "job %lld has ended: %s",
                 (long long)in->job, api_job_state_name(job->info.state));
        return;
    }
    job->cancel = true;
    if (job->on_cancel) {
        job->on_cancel(job->arg);
    }
    call_finish(d, call, job->info.name ? job->info.name : "",
                api_encode(&api_type_job, &job->info));
}

/* ---- vm.wait ---- */

void api_handle_vm_wait(struct api_call *call, struct api_vm_wait_in *in)
{
    struct vm *vm = call_vm(call, in->vm);
    if (vm) {
        wait_vm(call, vm, in->states, in->n_states, in->has_timeout_ms ? in->timeout_ms : -1);
    }
}

/* ---- host ---- */

static void reply_info(void *arg)
{
    struct api_call *call = arg;
    struct vmd *d = call_daemon(call);
    struct hostinfo h;
    char why[256];
    enum store_health health = store_health(d->store, why, sizeof(why));
    int64_t used_cpus, used_memory;
    hostinfo_read(d, &h);
    supply_used(d, &used_cpus, &used_memory);
    struct utsname u;
    int64_t total, available;
    uname(&u);
    preflight_memory(&total, &available);
    api_reply_host_info(call, &(struct api_host_info_out){
                                  .hostname = u.nodename,
                                  .kernel = u.release,
                                  .arch = u.machine,
                                  .cpus = sysconf(_SC_NPROCESSORS_ONLN),
                                  .memory = total,
                                  .memory_free = available,
                                  .version = (char *)PACKAGE_VERSION,
                                  .schema = (char *)api_schema_hash,
                                  .pid = getpid(),
                                  .started_ms = d->started_ns / 1000000,
                                  .user = geteuid(),
                                  .socket = d->opt.socket,
                                  .store = d->opt.store,
                                  .store_schema = STORE_SCHEMA,
                                  .store_state = (enum api_store_state)health,
                                  .store_problem = why[0] ? why : NULL,
                                  .cpus_used = used_cpus,
                                  .memory_used = used_memory,
                                  .cpu_overcommit = d->opt.cpu_overcommit,
                                  .memory_overcommit = d->opt.memory_overcommit,
                                  .numa = h.nodes,
                                  .n_numa = h.n_nodes,
                                  .kvm = !h.kvm_problem,
                                  .kvm_problem = h.kvm_problem,
                                  .cgroup = (char *)cgroup_text(&d->cgroup),
                                  .sandbox = h.layers,
                                  .n_sandbox = h.n_layers,
                                  .vms = (int64_t)vm_count(d),
                                  .vms_active = (int64_t)vm_count_active(d),
                                  .connections = rpc_server_clients(d->server),
                              });
    hostinfo_done(&h);
}

/* Right after a start the layers of confinement are still being tried. */
void api_handle_host_info(struct api_call *call, struct api_host_info_in *in)
{
    (void)in;
    spawner_when_told(call_daemon(call)->spawner, reply_info, call);
}

/* What the emulator does to itself, whatever the host; listed with what vmd-spawn does. */
static void add_layers(struct vmd *d, struct json_object *to)
{
    struct json_object *layers = spawner_layers(d->spawner);
    for (size_t i = 0; layers && i < json_object_array_length(layers); i++) {
        json_object_array_add(to, json_object_get(json_object_array_get_idx(layers, i)));
    }
}

/* Of one architecture; NULL: this host cannot run it. */
static struct json_object *describe_arch(enum api_arch arch)
{
    static const char *const firmware[] = { [API_ARCH_RISCV64] = DEFAULT_FIRMWARE_64,
                                            [API_ARCH_RISCV32] = DEFAULT_FIRMWARE_32,
                                            [API_ARCH_X86_64] = DEFAULT_FIRMWARE_PC };
    bool pc = arch == API_ARCH_X86_64;
    enum api_engine engine = pc ? API_ENGINE_KVM : API_ENGINE_TCG;
    enum api_machine machines[] = { pc ? API_MACHINE_MICROVM : API_MACHINE_RV_VIRT,
                                    API_MACHINE_Q35 };
    const char *path = firmware[arch], *remedy;
    size_t n;
    const char *const *models = preflight_cpu_models(arch, &n);
    struct api_arch_info info = { .arch = arch,
                                  .n_engines = 1,
                                  .engines = &engine,
                                  .n_machines = pc ? 2 : 1,
                                  .machines = machines,
                                  .n_cpus = n,
                                  .cpus = (char **)(uintptr_t)models, /* only encoded */
                                  .max_cpus = preflight_max_cpus() };
    info.firmware = path && access(path, R_OK) == 0 ? (char *)(uintptr_t)path : NULL;
    return pc && hostinfo_kvm(arch, &remedy, NULL) < 0 ? NULL
                                                       : api_encode(&api_type_arch_info, &info);
}

static void reply_capabilities(void *arg)
{
    struct api_call *call = arg;
    static const enum api_arch archs[] = { API_ARCH_RISCV64, API_ARCH_RISCV32,
                                           API_ARCH_X86_64 };
    struct vmd *d = call_daemon(call);
    struct json_object *list = json_object_new_array(), *o = json_object_new_object();
    for (unsigned i = 0; i < ARRAY_LEN(archs); i++) {
        struct json_object *info = describe_arch(archs[i]);
        if (info) {
            json_object_array_add(list, info);
        }
    }
    struct json_object *sandbox = json_object_new_array();
    add_layers(d, sandbox);
    api_json_set(o, "archs", list);
    api_json_set(o, "sandbox", sandbox);
    api_json_set_str(o, "emulator", d->opt.emulator);
    api_reply_json(call, o);
}

/* Right after a start the layers are still being tried. */
void api_handle_host_capabilities(struct api_call *call, struct api_host_capabilities_in *in)
{
    (void)in;
    spawner_when_told(call_daemon(call)->spawner, reply_capabilities, call);
}

struct host_down {
    struct vmd *d;
    struct api_call *call;
    bool keep;
};

static void down_end(void *arg, const struct err *e)
{
    struct vmd *d = arg;
    (void)e; /* the VMs have ended, whatever the store says */
    vmd_end(d, false);
}

static void down_done(void *arg, struct json_object *take_result)
{
    struct host_down *k = arg;
    call_commit(k->d, k->call, change_new(k->d), "host", take_result, k->keep ? NULL : down_end,
                k->d);
    free(k);
}

void api_handle_host_shutdown(struct api_call *call, struct api_host_shutdown_in *in)
{
    struct vmd *d = call_daemon(call);
    struct host_down *k = xnew(struct host_down);
    *k = (struct host_down){ .d = d, .call = call, .keep = in->keep_daemon };
    if (!policy_shutdown(d, down_done, k)) {
        free(k);
        api_fail(call, API_E_BUSY, "host", "wait until it has ended",
                 "the host is being shut down already");
    }
}

static void end_now(void *arg, const struct err *e)
{
    struct vmd *d = arg;
    if (!e) {
        vmd_end(d, d->end_stop_vms);
    }
}

void api_handle_host_shutdown_daemon(struct api_call *call,
                                     struct api_host_shutdown_daemon_in *in)
{
    struct vmd *d = call_daemon(call);
    d->end_stop_vms = in->stop_vms;
    call_commit(d, call, change_new(d), "vmd", json_object_new_object(), end_now, d);
}
