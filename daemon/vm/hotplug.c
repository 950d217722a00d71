/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Handlers of vm.attach and vm.detach. Owns struct plug, one for each call at work, and struct unplug, one for each that
 * waits for a guest. An attach holds the VM's turn (ops.h) until it is done; a detach only until the guest was asked, so
 * that a guest that does not answer holds up nobody. Loop thread.
 */
#include "daemon/vm/hotplug.h"

#include "api-schema/gen/methods.h"
#include "api-schema/json/codec.h"
#include "api-schema/json/json.h"
#include "api-schema/net/tapdev.h"
#include "daemon/auth/access.h"
#include "daemon/calls.h"
#include "daemon/daemon.h"
#include "daemon/events.h"
#include "daemon/ops.h"
#include "daemon/registry.h"
#include "daemon/network/networks.h"
#include "daemon/run/give.h"
#include "daemon/run/proc.h"
#include "daemon/run/runfs.h"
#include "daemon/run/spawner.h"
#include "daemon/run/supervise.h"
#include "daemon/storage/pools.h"
#include "daemon/vm/channels.h"
#include "daemon/vm/memdev.h"
#include "daemon/vm/nics.h"
#include "daemon/vm/preflight.h"
#include "daemon/vm/reconnect.h"
#include "daemon/vm/shares.h"
#include "engine/base/loop.h"
#include "engine/base/fd.h"
#include "engine/base/mem.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define ASK_NS INT64_C(20000000000)
#define MS_NS INT64_C(1000000)
#define NAMES_MAX 64 /* that are tried for a device without one */

struct plug {
    struct vmd *d;
    int64_t vm;
    struct op *op;
    enum api_device_kind kind;
    bool nic, live, config, waits; /* nic: of the kind; waits: registered with the run */
    char *name;
    bool chosen; /* the name is ours */
    unsigned tries;
    struct api_vm_config made; /* the definition with it, or without it */
    int64_t timeout_ms;
    int end[TAP_MAX_QUEUES]; /* of a card or share, until the emulator has them */
    unsigned n_ends, given;  /* given: queues beside the first */
};

struct unplug {
    struct list link; /* vmd.unplugs */
    struct vm *vm;
    struct api_call *call;
    enum api_device_kind kind;
    char *name;
    int64_t ms;
    struct loop_timer *timer;
};

/* ---- both ---- */

/* The operation, unless it went with its VM. */
static struct op *op_of(struct plug *k)
{
    struct vm *vm = vm_by_id(k->d, k->vm);

    return vm && vm->op == k->op ? k->op : NULL;
}

static void plug_free(struct plug *k)
{
    for (unsigned i = 0; i < k->n_ends; i++) {
        fd_autoclose(&k->end[i]);
    }
    api_release(&api_type_vm_config, &k->made);
    free(k->name);
    free(k);
}

static void fail(struct plug *k, const struct api_error *x)
{
    struct op *op = op_of(k);

    plug_free(k);
    if (op) {
        op_fail(op, x);
    }
}

static void failf(struct plug *k, int code, const char *remedy, const char *text)
{
    struct api_error x = API_ERROR_INIT;

    api_error_set(&x, code, k->name ? k->name : "?", remedy, "VM '%s': %s",
                  k->op->vm->config.name, text);
    fail(k, &x);
}

/* What the emulator said, with the VM's name before it. */
static void fail_as(struct plug *k, const struct api_error *x)
{
    bool known = x->code == API_E_EXISTS || x->code == API_E_HOST_LIMIT ||
                 x->code == API_E_UNSUPPORTED || x->code == API_E_INVALID_PARAMS ||
                 x->code == API_E_FILE_ERROR || x->code == API_E_NOT_FOUND ||
                 x->code == API_E_BUSY || x->code == API_E_BAD_STATE;

    failf(k, known ? x->code : API_E_UNRESPONSIVE, x->remedy[0] ? x->remedy : NULL, x->message);
}

static void vm_ended(void *arg, struct vm *vm, bool gone)
{
    struct plug *k = arg;

    (void)vm;
    (void)gone;
    k->waits = false;
    failf(k, API_E_BAD_STATE, NULL, "it ended meanwhile");
}

/* Asks the emulator; fn gets k. */
static void ask(struct plug *k, const char *method, struct json_object *take_params,
                int owned_fd, rpc_done_fn *fn)
{
    struct run *run = k->op->vm->run;

    k->waits = true;
    run_on_end(run, vm_ended, k);
    if (!(owned_fd >= 0 ? run_call_fd(run, method, take_params, owned_fd, ASK_NS, fn, k)
                        : run_call_with(run, method, take_params, ASK_NS, fn, k))) {
        run_on_end_cancel(run, k);
        k->waits = false;
        failf(k, API_E_UNRESPONSIVE, "'vmctl stop --force' ends it whatever it does",
              "its emulator does not answer");
    }
}

static void answered(struct plug *k)
{
    run_on_end_cancel(k->op->vm->run, k);
    k->waits = false;
}

static bool runs(const struct vm *vm)
{
    return vm->run && (vm->state == API_VM_STATE_RUNNING || vm->state == API_VM_STATE_PAUSED ||
                       vm->state == API_VM_STATE_STOPPING);
}

/* Which of the two; false after the call was answered. */
static bool choose(struct plug *k, bool live, bool config)
{
    struct vm *vm = k->op->vm;

    k->live = live || (!config && runs(vm));
    k->config = config || !k->live;
    if (k->live && !runs(vm)) {
        failf(k, API_E_BAD_STATE, "start it, or change its definition (config)",
              "it does not run");
        return false;
    }
    if (k->config && vm->transient) {
        failf(k, API_E_BAD_STATE, "change the running VM (live)",
              "its definition goes when it ends");
        return false;
    }
    return true;
}

static struct json_object *device_detail(enum api_device_kind kind, const char *name)
{
    struct json_object *o = json_object_new_object();

    api_json_set_str(o, "kind", api_device_kind_name(kind));
    api_json_set_str(o, "name", name);
    return o;
}

static void tell(struct vm *vm, struct change *c, const char *what, enum api_device_kind kind,
                 const char *name)
{
    AUTO_JSON detail = device_detail(kind, name);

    vm_event(vm, c, API_EVENT_TYPE_VM_DEVICE, what, detail);
}

/* The definition is durable, or not. */
static void take_made(struct plug *k, const struct err *e)
{
    struct vm *vm = vm_by_id(k->d, k->vm);

    if (!e && vm && k->config) {
        struct api_vm_config was = vm->config;

        vm->config = k->made;
        k->made = was;
        vm->restart_needed = vm->restart_needed || (vm->run && !k->live);
    }
}

static void put_made(struct plug *k, struct change *c)
{
    struct vm *vm = k->op->vm;

    if (k->config) {
        vm_put_as(vm, &k->made, c);
        vm_event(vm, c, API_EVENT_TYPE_VM_CHANGED, NULL, NULL);
    }
}

/* ---- attach ---- */

static void on_attach_durable(void *arg, const struct err *e)
{
    struct plug *k = arg;
    struct op *op = op_of(k);

    take_made(k, e);
    plug_free(k);
    if (op) {
        op->call = NULL; /* answered right after this */
        op_end(op);
    }
}

static void attach_done(struct plug *k)
{
    struct vm *vm = k->op->vm;
    struct change *c = change_new(k->d);
    struct api_vm_attach_out out = {
        .kind = k->kind, .name = k->name, .live = k->live, .config = k->config
    };

    if (k->live && k->kind == API_DEVICE_KIND_DISK && vm->run) {
        reconnect_learn(vm->run, &k->made.disks[k->made.n_disks - 1]);
    }
    put_made(k, c);
    if (k->live) {
        change_must_tell(c);
        tell(vm, c, "attached", k->kind, k->name);
    }
    call_commit(k->d, k->op->call, c, vm->config.name,
                api_encode(&api_type_vm_attach_out, &out), on_attach_durable, k);
}

static struct api_disk *the_disk(struct plug *k)
{
    return &k->made.disks[k->made.n_disks - 1];
}

static struct api_nic *the_nic(struct plug *k)
{
    return &k->made.nics[k->made.n_nics - 1];
}

static struct api_share *the_share(struct plug *k)
{
    return &k->made.shares[k->made.n_shares - 1];
}

static struct api_memory_device *the_memory(struct plug *k)
{
    return &k->made.memory_devices[k->made.n_memory_devices - 1];
}

static void plug_disk(struct plug *k);
static void plug_memory(struct plug *k);

/* Nobody knows here what else was attached to a VM that runs: another name is tried. */
static bool try_next_name(struct plug *k, const struct api_error *x)
{
    bool memory = k->kind == API_DEVICE_KIND_MEMORY;
    char **name;

    if ((!memory && k->kind != API_DEVICE_KIND_DISK) || !k->chosen || x->code != API_E_EXISTS ||
        k->tries++ >= NAMES_MAX) {
        return false;
    }
    name = memory ? &the_memory(k)->name : &the_disk(k)->name;
    free(k->name);
    k->name = xasprintf("%s%zu", api_device_kind_name(k->kind),
                        (memory ? k->made.n_memory_devices : k->made.n_disks) - 1 + k->tries);
    free(*name);
    *name = xstrdup(k->name);
    return true;
}

static void on_dropped(void *arg, struct json_object *result, const struct api_error *x)
{
    (void)arg;
    (void)result;
    (void)x;
}

static void on_plugged(void *arg, struct json_object *result, const struct api_error *x)
{
    struct plug *k = arg;

    (void)result;
    answered(k);
    if (!x) {
        attach_done(k);
    } else if (try_next_name(k, x)) {
        (k->kind == API_DEVICE_KIND_MEMORY ? plug_memory : plug_disk)(k);
    } else {
        if (k->kind == API_DEVICE_KIND_DISK &&
            the_disk(k)->file) { /* it would be in the way the next time */
            struct json_object *in = json_object_new_object();

            api_json_set_str(in, "path", the_disk(k)->file);
            run_call_with(k->op->vm->run, "emu.file_drop", in, ASK_NS, on_dropped, NULL);
        }
        fail_as(k, x);
    }
}

static void plug_disk(struct plug *k)
{
    struct json_object *in = json_object_new_object();

    api_json_set(in, "disk", api_encode(&api_type_disk, the_disk(k)));
    ask(k, "emu.attach_disk", in, -1, on_plugged);
}

static void on_given(void *arg, const struct api_error *x)
{
    struct plug *k = arg;

    if (x) {
        fail(k, x);
    } else if (!op_of(k) || !runs(k->op->vm)) {
        plug_free(k);
    } else {
        plug_disk(k);
    }
}

static void plug_nic(struct plug *k)
{
    struct json_object *in = json_object_new_object();
    int fd = k->n_ends > 0 ? take_fd(&k->end[0]) : -1;

    api_json_set(in, "nics", json_object_new_array());
    json_object_array_add(api_json_get(in, "nics"), api_encode(&api_type_nic, the_nic(k)));
    networks_resolve(k->d, in);
    api_json_set(in, "nic",
                 json_object_get(json_object_array_get_idx(api_json_get(in, "nics"), 0)));
    json_object_object_del(in, "nics");
    ask(k, "emu.attach_nic", in, fd, on_plugged);
}

static void give_queue(struct plug *k, unsigned number);

/* An emulator of an older release does without: it has one queue. */
static void on_queue(void *arg, struct json_object *result, const struct api_error *x)
{
    struct plug *k = arg;

    (void)result;
    answered(k);
    k->given = x ? k->n_ends : k->given;
    give_queue(k, k->given + 1);
}

/* The queues of a tap beside the first, one after another, then the card. */
static void give_queue(struct plug *k, unsigned number)
{
    struct json_object *in;

    if (number >= k->n_ends) {
        plug_nic(k);
        return;
    }
    in = json_object_new_object();
    api_json_set_str(in, "nic", the_nic(k)->name);
    api_json_set_int(in, "number", number);
    k->given = number;
    ask(k, "emu.nic_queue", in, take_fd(&k->end[number]), on_queue);
}

static void on_socket(void *arg, struct json_object *images, int *take_fds, unsigned n,
                      const char *path, const struct err *e)
{
    struct plug *k = arg;

    (void)images;
    for (unsigned i = 0; i < n; i++) {
        if (k->n_ends < TAP_MAX_QUEUES) {
            k->end[k->n_ends++] = take_fds[i];
        } else {
            close(take_fds[i]);
        }
    }
    if (!op_of(k)) {
        plug_free(k);
    } else if (e || !runs(k->op->vm)) {
        failf(k,
              e && (path[0] || k->kind == API_DEVICE_KIND_SHARE) ? API_E_FILE_ERROR
              : e                                                ? API_E_INTERNAL_ERROR
                                                                 : API_E_BAD_STATE,
              NULL, e ? e->msg : "it ended meanwhile");
    } else if (k->kind == API_DEVICE_KIND_SHARE) {
        struct json_object *in = json_object_new_object();

        api_json_set(in, "share", api_encode(&api_type_share, the_share(k)));
        ask(k, "emu.attach_share", in, k->n_ends > 0 ? take_fd(&k->end[0]) : -1, on_plugged);
    } else {
        give_queue(k, 1);
    }
}

static bool name_taken(const struct api_vm_config *c, enum api_device_kind kind,
                       const char *name);

static void plug_channel(struct plug *k)
{
    const struct api_channel *channel = &k->made.channels[k->made.n_channels - 1];
    struct json_object *in;
    struct err e = ERR_INIT;
    int fd;

    if (name_taken(&k->op->vm->config, k->kind, k->name)) {
        failf(k, API_E_EXISTS, "give it another name", "a channel has that name already");
        return;
    }
    fd = channels_listen(k->op->vm, channel->name, &e);
    if (fd < 0) {
        failf(k, fd == -EADDRINUSE ? API_E_EXISTS : API_E_HOST_LIMIT, "give it another name",
              e.msg);
        return;
    }
    in = json_object_new_object();
    api_json_set_str(in, "name", channel->name);
    api_json_set_bool(in, "console", channel->console);
    ask(k, "emu.channel_add", in, fd, on_plugged);
}

static void plug_rng(struct plug *k)
{
    struct json_object *in = json_object_new_object();

    api_json_set_str(in, "name", k->name);
    ask(k, "emu.attach_rng", in, -1, on_plugged);
}

static void plug_memory(struct plug *k)
{
    struct json_object *in;
    struct err e = ERR_INIT;
    int fd = memory_file(the_memory(k)->size, &e);

    if (fd < 0) {
        failf(k, API_E_HOST_LIMIT, NULL, e.msg);
        return;
    }
    in = json_object_new_object();
    api_json_set(in, "memory_device", api_encode(&api_type_memory_device, the_memory(k)));
    ask(k, "emu.attach_memory", in, fd, on_plugged);
}

static void go_live(struct plug *k)
{
    struct vm *vm = k->op->vm;
    const struct api_disk *disk;
    struct json_object *list;

    if (k->kind == API_DEVICE_KIND_CHANNEL || k->kind == API_DEVICE_KIND_RNG) {
        (k->kind == API_DEVICE_KIND_CHANNEL ? plug_channel : plug_rng)(k);
        return;
    }
    if (k->kind == API_DEVICE_KIND_MEMORY) {
        plug_memory(k);
        return;
    }
    if (k->nic) {
        list = json_object_new_array();
        if (the_nic(k)->type != API_NIC_TYPE_NONE) {
            list = (json_object_put(list), nics_request_one(k->d, vm, the_nic(k)));
        }
        spawner_open_ends(k->d->spawner, vm->id, vm->config.name, "nics", list, on_socket, k);
        return;
    }
    if (k->kind == API_DEVICE_KIND_SHARE) {
        list = shares_request(the_share(k), 1);
        spawner_open_ends(k->d->spawner, vm->id, vm->config.name, "shares", list, on_socket, k);
        return;
    }
    disk = the_disk(k);
    if (!disk->file) {
        plug_disk(k);
        return;
    }
    list = json_object_new_array();
    json_object_array_add(list,
                          give_file("disk", disk->file, api_disk_format_name(disk->format),
                                    !disk->readonly && !disk->cdrom));
    give_files(vm->run, list, on_given, k);
}

/* Is there a slot for one more that can be taken out after the next start? */
static bool has_slot(const struct api_vm_config *c)
{
    int64_t used = 0;

    for (size_t i = 0; i < c->n_disks; i++) {
        used += c->disks[i].hotplug;
    }
    for (size_t i = 0; i < c->n_nics; i++) {
        used += c->nics[i].hotplug;
    }
    for (size_t i = 0; i < c->n_shares; i++) {
        used += c->shares[i].hotplug;
    }
    return used < c->root_ports;
}

static size_t count(const struct api_vm_config *c, enum api_device_kind kind)
{
    return kind == API_DEVICE_KIND_NIC       ? c->n_nics
           : kind == API_DEVICE_KIND_DISK    ? c->n_disks
           : kind == API_DEVICE_KIND_CHANNEL ? c->n_channels
           : kind == API_DEVICE_KIND_SHARE   ? c->n_shares
           : kind == API_DEVICE_KIND_MEMORY  ? c->n_memory_devices
                                             : 0; /* definitions have none with a name */
}

static const char *name_at(const struct api_vm_config *c, enum api_device_kind kind, size_t i)
{
    return kind == API_DEVICE_KIND_NIC      ? c->nics[i].name
           : kind == API_DEVICE_KIND_DISK   ? c->disks[i].name
           : kind == API_DEVICE_KIND_SHARE  ? c->shares[i].tag
           : kind == API_DEVICE_KIND_MEMORY ? c->memory_devices[i].name
                                            : c->channels[i].name;
}

static bool name_taken(const struct api_vm_config *c, enum api_device_kind kind,
                       const char *name)
{
    for (size_t i = 0; i < count(c, kind); i++) {
        const char *at = name_at(c, kind, i);

        if (at && strcmp(at, name) == 0) {
            return true;
        }
    }
    return false;
}

static char *free_name(const struct api_vm_config *c, enum api_device_kind kind)
{
    size_t n = count(c, kind);
    char *name = xasprintf("%s%zu", api_device_kind_name(kind), n);

    while (name_taken(c, kind, name)) {
        free(name);
        name = xasprintf("%s%zu", api_device_kind_name(kind), ++n);
    }
    return name;
}

/* What the caller left out of the bus is not the bus of disks at the start. */
static bool bus_given(struct api_call *call, const char *what)
{
    struct json_object *o = api_json_get(api_call_params(call), what);

    return o && api_json_get(o, "bus");
}

static void add_disk(struct plug *k, const struct api_disk *disk)
{
    struct api_vm_config *c = &k->made;
    bool slot = has_slot(c);

    c->disks = xrealloc_n(c->disks, c->n_disks + 1, sizeof(c->disks[0]));
    api_copy(&api_type_disk, disk, &c->disks[c->n_disks++]);
    struct api_disk *own = the_disk(k);
    if (!bus_given(k->op->call, "disk")) {
        own->bus = API_DISK_BUS_VIRTIO_PCI;
    }
    free(own->name);
    own->name = xstrdup(k->name);
    own->hotplug = own->hotplug ||
                   (slot && (own->bus == API_DISK_BUS_VIRTIO_PCI ||
                             (own->bus == API_DISK_BUS_NVME && !own->has_controller)));
    own->has_hotplug = own->hotplug;
}

static char *any_mac(void)
{
    char random[COOKIE_LEN + 1];

    cookie_make(random);
    return xasprintf("52:54:00:%.2s:%.2s:%.2s", random, random + 2, random + 4);
}

static void add_nic(struct plug *k, const struct api_nic *nic)
{
    struct api_vm_config *c = &k->made;
    bool slot = has_slot(c);

    c->nics = xrealloc_n(c->nics, c->n_nics + 1, sizeof(c->nics[0]));
    api_copy(&api_type_nic, nic, &c->nics[c->n_nics++]);
    struct api_nic *own = the_nic(k);
    if (!bus_given(k->op->call, "nic")) {
        own->bus = API_NIC_BUS_VIRTIO_PCI;
    }
    free(own->name);
    own->name = xstrdup(k->name);
    if (own->type == API_NIC_TYPE_NETWORK && !own->mac) {
        own->mac =
            any_mac(); /* the network has to know it, and its place is the emulator's choice */
    }
    own->hotplug = own->hotplug || (slot && own->bus == API_NIC_BUS_VIRTIO_PCI);
    own->has_hotplug = own->hotplug;
}

static void add_channel(struct plug *k, const struct api_channel *channel)
{
    struct api_vm_config *c = &k->made;

    c->channels = xrealloc_n(c->channels, c->n_channels + 1, sizeof(c->channels[0]));
    api_copy(&api_type_channel, channel, &c->channels[c->n_channels++]);
}

static void add_share(struct plug *k, const struct api_share *share)
{
    struct api_vm_config *c = &k->made;
    bool slot = has_slot(c);

    c->shares = xrealloc_n(c->shares, c->n_shares + 1, sizeof(c->shares[0]));
    api_copy(&api_type_share, share, &c->shares[c->n_shares++]);
    the_share(k)->hotplug = the_share(k)->hotplug || slot;
    the_share(k)->has_hotplug = the_share(k)->hotplug;
}

static void add_memory(struct plug *k, const struct api_memory_device *memory)
{
    struct api_vm_config *c = &k->made;

    c->memory_devices = xrealloc_n(c->memory_devices, c->n_memory_devices + 1,
                                   sizeof(c->memory_devices[0]));
    api_copy(&api_type_memory_device, memory, &c->memory_devices[c->n_memory_devices++]);
    free(the_memory(k)->name);
    the_memory(k)->name = xstrdup(k->name);
}

/* The one that was given; DISK when it is not one. */
static enum api_device_kind given(bool nic, bool channel, bool rng, bool share, bool memory)
{
    return nic       ? API_DEVICE_KIND_NIC
           : channel ? API_DEVICE_KIND_CHANNEL
           : rng     ? API_DEVICE_KIND_RNG
           : share   ? API_DEVICE_KIND_SHARE
           : memory  ? API_DEVICE_KIND_MEMORY
                     : API_DEVICE_KIND_DISK;
}

static const char *const give_one =
    "give 'disk', 'nic', 'channel', 'rng', 'share' or 'memory_device'";

static void add_device(struct plug *k, const struct api_vm_attach_in *in)
{
    if (in->channel) {
        add_channel(k, in->channel);
    } else if (in->share) {
        add_share(k, in->share);
    } else if (in->memory_device) {
        add_memory(k, in->memory_device);
    } else if (k->nic) {
        add_nic(k, in->nic);
    } else if (in->disk) {
        add_disk(k, in->disk);
    }
}

static void attach_begin(struct op *op)
{
    struct vm *vm = op->vm;
    struct api_vm_attach_in *in = op->in;
    struct plug *k = xnew(struct plug);
    struct api_error x = API_ERROR_INIT;
    const char *name;

    *k = (struct plug){ .d = vm->d, .vm = vm->id, .op = op, .nic = in->nic != NULL };
    k->kind = given(in->nic, in->channel, in->rng, in->share, in->memory_device);
    api_copy(&api_type_vm_config, &vm->config, &k->made);
    if ((in->disk != NULL) + (in->nic != NULL) + (in->channel != NULL) + (in->rng != NULL) +
            (in->share != NULL) + (in->memory_device != NULL) !=
        1) {
        failf(k, API_E_INVALID_PARAMS, give_one, "one device is attached at a time");
        return;
    }
    name = in->nic             ? in->nic->name
           : in->channel       ? in->channel->name
           : in->rng           ? in->rng
           : in->share         ? in->share->tag
           : in->memory_device ? in->memory_device->name
                               : in->disk->name;
    k->chosen = !name || !name[0];
    k->name = k->chosen ? free_name(&k->made, k->kind) : xstrdup(name);
    if (!choose(k, in->live, in->config)) {
        return;
    }
    if (k->config && name_taken(&k->made, k->kind, k->name)) {
        failf(k, API_E_EXISTS, "give it another name", "a device has that name already");
        return;
    }
    if (k->config && in->rng) {
        failf(k, API_E_UNSUPPORTED, "that of the definition is its member 'rng'",
              "an entropy device with a name is there while the VM runs");
        return;
    }
    add_device(k, in);
    /* The definition with it must make sense, and its files be where the caller may point. */
    if ((k->config ? preflight_change(vm->d, &k->made, &x)
                   : pools_resolve(vm->d, &k->made, &x)) < 0 ||
        (k->nic && (networks_check(vm->d, &k->made, &x) < 0 ||
                    (k->live && networks_ready(vm->d, &k->made, &x) < 0))) ||
        access_config(op->call, &k->made, API_ROLE_OPERATOR, &x) < 0) {
        fail(k, &x);
        return;
    }
    if (k->live) {
        go_live(k);
    } else {
        attach_done(k);
    }
}

void api_handle_vm_attach(struct api_call *call, struct api_vm_attach_in *in)
{
    struct vm *vm = call_vm(call, in->vm);

    if (vm) {
        op_queue(vm, call, NULL, in, attach_begin, false);
    }
}

/* ---- detach ---- */

static void unplug_free(struct unplug *u)
{
    list_remove(&u->link);
    loop_timer_free(u->timer);
    free(u->name);
    free(u);
}

static struct json_object *detached(enum api_device_kind kind, char *name)
{
    struct api_vm_detach_out out = { .kind = kind, .name = name };

    return api_encode(&api_type_vm_detach_out, &out);
}

static void on_late(void *arg)
{
    struct unplug *u = arg;

    run_on_end_cancel(u->vm->run, u);
    api_fail(u->call, API_E_TIMEOUT, u->name,
             "the request stays; the event vm-device tells when it has gone",
             "the guest of VM '%s' has not let go of '%s' within %lld ms", u->vm->config.name,
             u->name, (long long)u->ms);
    unplug_free(u);
}

static void on_vm_end(void *arg, struct vm *vm, bool gone)
{
    struct unplug *u = arg;

    (void)gone;
    api_fail(u->call, API_E_BAD_STATE, u->name, NULL,
             "VM '%s' ended before its guest had let go of '%s'", vm->config.name, u->name);
    unplug_free(u);
}

void hotplug_told(struct vm *vm, const char *kind, const char *name, bool refused)
{
    int which = api_enum_value(&api_type_device_kind, kind);
    struct change *c;

    if (which < 0) {
        return;
    }
    c = change_new(vm->d);

    change_must_tell(c);
    tell(vm, c, refused ? "refused" : "detached", (enum api_device_kind)which, name);
    change_commit(c, NULL, NULL);
    list_for_each_safe (n, &vm->d->unplugs) {
        struct unplug *u = list_entry(n, struct unplug, link);

        if (u->vm != vm || (int)u->kind != which || strcmp(u->name, name) != 0) {
            continue;
        }
        run_on_end_cancel(vm->run, u);
        if (refused) {
            api_fail(u->call, API_E_BUSY, u->name, "free it in the guest, and try again",
                     "the guest of VM '%s' keeps '%s'", vm->config.name, u->name);
        } else {
            call_finish(vm->d, u->call, vm->config.name, detached(u->kind, u->name));
        }
        unplug_free(u);
    }
}

static void on_definition(void *arg, const struct err *e)
{
    struct plug *k = arg;

    take_made(k, e);
    plug_free(k);
}

/* The guest was asked: others get their turn, the call waits. */
static void wait_for_guest(struct plug *k)
{
    struct vm *vm = k->op->vm;
    struct unplug *u = xnew(struct unplug);
    struct op *op = k->op;

    *u = (struct unplug){ .vm = vm,
                          .call = take_ptr(op->call),
                          .kind = k->kind,
                          .name = xstrdup(k->name),
                          .ms = k->timeout_ms };
    u->timer = loop_timer_new(vm->d->loop, on_late, u);
    loop_timer_arm(u->timer, u->ms * MS_NS);
    list_append(&vm->d->unplugs, &u->link);
    run_on_end(vm->run, on_vm_end, u);
    if (k->config) {
        struct change *c = change_new(k->d);

        put_made(k, c);
        change_commit(c, on_definition, k);
    } else {
        plug_free(k);
    }
    op_end(op);
}

/* Nobody has to let go of a channel. */
static void channel_gone(struct plug *k)
{
    struct vm *vm = k->op->vm;
    struct change *c = change_new(k->d);
    AUTO_FREE char *path = runfs_channel(&k->d->opt, vm->id, k->name);

    unlink(path);
    put_made(k, c);
    change_must_tell(c);
    tell(vm, c, "detached", k->kind, k->name);
    call_commit(k->d, k->op->call, c, vm->config.name, detached(k->kind, k->name),
                on_attach_durable, k);
}

static void on_asked(void *arg, struct json_object *result, const struct api_error *x)
{
    struct plug *k = arg;

    (void)result;
    answered(k);
    if (x) {
        fail_as(k, x);
    } else if (k->kind == API_DEVICE_KIND_CHANNEL) {
        channel_gone(k);
    } else {
        wait_for_guest(k);
    }
}

static void drop_from(struct plug *k, size_t at)
{
    struct api_vm_config *c = &k->made;

    if (k->kind == API_DEVICE_KIND_CHANNEL) {
        api_release(&api_type_channel, &c->channels[at]);
        memmove(&c->channels[at], &c->channels[at + 1],
                (--c->n_channels - at) * sizeof(c->channels[0]));
    } else if (k->kind == API_DEVICE_KIND_MEMORY) {
        api_release(&api_type_memory_device, &c->memory_devices[at]);
        memmove(&c->memory_devices[at], &c->memory_devices[at + 1],
                (--c->n_memory_devices - at) * sizeof(c->memory_devices[0]));
    } else if (k->kind == API_DEVICE_KIND_SHARE) {
        api_release(&api_type_share, &c->shares[at]);
        memmove(&c->shares[at], &c->shares[at + 1],
                (--c->n_shares - at) * sizeof(c->shares[0]));
    } else if (k->nic) {
        api_release(&api_type_nic, &c->nics[at]);
        memmove(&c->nics[at], &c->nics[at + 1], (--c->n_nics - at) * sizeof(c->nics[0]));
    } else {
        api_release(&api_type_disk, &c->disks[at]);
        memmove(&c->disks[at], &c->disks[at + 1], (--c->n_disks - at) * sizeof(c->disks[0]));
    }
}

/* Takes it out of the definition; false: it is not in it. */
static bool undefine(struct plug *k)
{
    for (size_t i = 0; i < count(&k->made, k->kind); i++) {
        const char *at = name_at(&k->made, k->kind, i);

        if (at && strcmp(at, k->name) == 0) {
            drop_from(k, i);
            return true;
        }
    }
    return false;
}

static void detach_begin(struct op *op)
{
    struct vm *vm = op->vm;
    struct api_vm_detach_in *in = op->in;
    struct plug *k = xnew(struct plug);
    struct json_object *ask_for;

    *k = (struct plug){
        .d = vm->d, .vm = vm->id, .op = op, .nic = in->nic != NULL, .timeout_ms = in->timeout_ms
    };
    k->kind = given(in->nic, in->channel, in->rng, in->share, in->memory_device);
    api_copy(&api_type_vm_config, &vm->config, &k->made);
    if ((in->disk != NULL) + (in->nic != NULL) + (in->channel != NULL) + (in->rng != NULL) +
            (in->share != NULL) + (in->memory_device != NULL) !=
        1) {
        failf(k, API_E_INVALID_PARAMS, give_one, "one device is detached at a time");
        return;
    }
    k->name = xstrdup(in->nic             ? in->nic
                      : in->channel       ? in->channel
                      : in->rng           ? in->rng
                      : in->share         ? in->share
                      : in->memory_device ? in->memory_device
                                          : in->disk);
    if (!choose(k, in->live, in->config)) {
        return;
    }
    if (k->config && !undefine(k)) {
        failf(k, API_E_NOT_FOUND, "'vmctl show' tells what it has",
              "its definition has no such device");
        return;
    }
    if (k->live) {
        if (k->kind == API_DEVICE_KIND_CHANNEL) {
            ask_for = json_object_new_object();
            api_json_set_str(ask_for, "name", k->name);
            ask(k, "emu.channel_remove", ask_for, -1, on_asked);
        } else {
            ask_for = device_detail(k->kind, k->name);
            ask(k, "emu.detach", ask_for, -1, on_asked);
        }
        return;
    }
    struct change *c = change_new(k->d);
    put_made(k, c);
    call_commit(k->d, op->call, c, vm->config.name, detached(k->kind, k->name),
                on_attach_durable, k);
}

void api_handle_vm_detach(struct api_call *call, struct api_vm_detach_in *in)
{
    struct vm *vm = call_vm(call, in->vm);

    if (vm) {
        op_queue(vm, call, NULL, in, detach_begin, false);
    }
}
