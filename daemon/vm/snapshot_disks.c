/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which snapshots may be taken, which disks they hold, and the making of those that hold disks alone: of a stopped VM by the process
 * that works on images, of one that runs by its emulator, all at one instant, with the guest's file systems frozen when that was
 * asked for. Loop thread.
 */
#include "daemon/vm/snapshot_work.h"

#include "api-schema/json/codec.h"
#include "api-schema/json/json.h"
#include "daemon/daemon.h"
#include "daemon/registry.h"
#include "daemon/run/supervise.h"
#include "daemon/vm/agent.h"
#include "daemon/xml/xml.h"
#include "engine/base/log.h"
#include "engine/base/mem.h"

#include <string.h>

#define ACT_NS INT64_C(60000000000)
#define AGENT_MS 60000
#define THAWS 3u
#define LISTEN_NS INT64_C(200000000)
#define LISTENS 50u

/* ---- may it be? ---- */

static bool is_up(const struct vm *vm)
{
    return vm->run && (vm->state == API_VM_STATE_RUNNING || vm->state == API_VM_STATE_PAUSED);
}

bool snapshot_has_memory(const struct vm *vm, const struct api_snapshot_create_in *in)
{
    return in->has_memory ? in->memory != API_MEMORY_MODE_NO : is_up(vm) || in->memory_only;
}

/* What is said of memory. */
static int may_have_memory(const struct vm *vm, const struct api_snapshot_create_in *in,
                           bool memory, struct api_error *x)
{
    const char *file = in->memory_file;

    if (!memory && (in->memory_only || file)) {
        return api_error_set(x, API_E_INVALID_PARAMS, in->memory_only ? "memory_only" : file,
                             "start the VM first, and take it with memory",
                             "a snapshot of VM '%s' without memory would hold none",
                             vm->config.name);
    }
    for (size_t i = 0; i < in->n_disks && in->memory_only; i++) {
        if (in->disks[i].snapshot != API_SNAPSHOT_MODE_NO) {
            return api_error_set(x, API_E_INVALID_PARAMS, in->disks[i].name, "leave one away",
                                 "disk '%s' would be in a snapshot of memory alone",
                                 in->disks[i].name);
        }
    }
    if (in->has_memory && (in->memory == API_MEMORY_MODE_EXTERNAL) != (file != NULL)) {
        return api_error_set(x, API_E_INVALID_PARAMS, "memory_file",
                             "give both: external memory, and its file",
                             file ? "'%s' would hold memory that is not external"
                                  : "external memory needs a file%s",
                             file ? file : "");
    }
    list_for_each (it, &vm->d->snapshots) {
        const struct snapshot *s = list_entry(it, struct snapshot, link);

        if (file && s->info.memory_file && strcmp(s->info.memory_file, file) == 0) {
            return api_error_set(x, API_E_EXISTS, file, "choose another",
                                 "'%s' is the memory of snapshot '%s'", file, s->info.name);
        }
    }
    return 0;
}

static int may_by_state(const struct vm *vm, bool memory, struct api_error *x)
{
    const char *name = vm->config.name;
    const struct snapshot *doubt = snapshot_in_doubt(vm);
    bool stopped = !vm->run &&
                   (vm->state == API_VM_STATE_STOPPED || vm->state == API_VM_STATE_CRASHED);

    if (!is_up(vm) && (memory || !stopped)) {
        return api_error_set(x, API_E_BAD_STATE, name,
                             stopped ? "start it first, or take its disks alone: 'memory': 'no'"
                                     : "wait until it runs, or has stopped",
                             "VM '%s' is %s", name, api_vm_state_name(vm->state));
    }
    if (vm->transient) {
        return api_error_set(
            x, API_E_UNSUPPORTED, name, "define it: 'vmctl define', and start that",
            "VM '%s' is transient: its snapshots would have no VM to go back to", name);
    }
    if (vm->restart_needed) {
        return api_error_set(
            x, API_E_BAD_STATE, name, "start it anew first",
            "VM '%s' runs with a former definition, and nothing could go back to that", name);
    }
    if (stopped && vm->saved) {
        return api_error_set(
            x, API_E_BAD_STATE, name, "start it, or forget that state: 'vmctl start --fresh'",
            "VM '%s' has a saved state, which its disks alone do not hold", name);
    }
    if (stopped && doubt && snapshot_is_import(doubt)) {
        return api_error_set(x, API_E_BAD_STATE, name, "delete that one first",
                             "the import of snapshot '%s' into VM '%s' was broken off, and is "
                             "not undone",
                             doubt->info.name, name);
    }
    if (stopped && doubt) {
        return api_error_set(x, API_E_BAD_STATE, name, "go back again, to it or to another",
                             "VM '%s' was going back to snapshot '%s' and has not arrived",
                             name, doubt->info.name);
    }
    return 0;
}

static int may_quiesce(const struct vm *vm, bool memory, struct api_error *x)
{
    const char *name = vm->config.name;

    if (memory) {
        return api_error_set(x, API_E_INVALID_PARAMS, "quiesce", "take the disks alone",
                             "a snapshot with memory holds what the guest has not written yet: "
                             "it is not quiesced");
    }
    if (vm->state != API_VM_STATE_RUNNING) {
        return api_error_set(x, API_E_BAD_STATE, name, "take it without",
                             "VM '%s' is %s: nobody in it could freeze its file systems", name,
                             api_vm_state_name(vm->state));
    }
    if (!agent_listens(vm)) {
        return api_error_set(x, API_E_BAD_STATE, name,
                             "give the VM 'agent': true, and start qemu-guest-agent in the "
                             "guest; or take it without",
                             "no agent listens in the guest of VM '%s' that could freeze its "
                             "file systems",
                             name);
    }
    return 0;
}

bool snapshot_may_create(const struct vm *vm, const struct api_snapshot_create_in *in,
                         struct api_error *x)
{
    struct api_snapshot disks = { .name = NULL };
    bool memory = snapshot_has_memory(vm, in), ok;
    unsigned n = 0;

    list_for_each (it, &vm->d->snapshots) {
        n += strcmp(list_entry(it, struct snapshot, link)->vm, vm->config.uuid) == 0;
    }
    if (may_have_memory(vm, in, memory, x) < 0 || may_by_state(vm, memory, x) < 0 ||
        (in->quiesce && may_quiesce(vm, memory, x) < 0)) {
        return false;
    }
    if (snapshot_find(vm->d, vm->config.uuid, in->name)) {
        api_error_set(x, API_E_EXISTS, in->name, "choose another name, or delete that one",
                      "VM '%s' has a snapshot '%s' already", vm->config.name, in->name);
        return false;
    }
    if (n >= SNAPSHOTS_MAX) {
        api_error_set(x, API_E_OVERLOAD, vm->config.name, "delete some",
                      "VM '%s' has %u snapshots", vm->config.name, n);
        return false;
    }
    ok = snapshot_choose_disks(vm, in, &disks, x) == 0;
    api_release(&api_type_snapshot, &disks);
    return ok;
}

/* ---- disks ---- */

static bool is_written(const struct api_disk *disk)
{
    return !disk->readonly && !disk->cdrom;
}

/* By the definition's name, libvirt's, or the file. -1: there is none. */
static int index_of(const struct vm *vm, char *const *dev, const char *name)
{
    const struct api_disk *disk = vm->config.disks;
    size_t n = vm->config.n_disks;

    for (size_t i = 0; i < n; i++) {
        if (disk[i].name && strcmp(disk[i].name, name) == 0) {
            return (int)i;
        }
    }
    for (size_t i = 0; i < n && dev[i]; i++) {
        if (strcmp(dev[i], name) == 0) {
            return (int)i;
        }
    }
    for (size_t i = 0; i < n; i++) {
        if (disk[i].file && strcmp(disk[i].file, name) == 0) {
            return (int)i;
        }
    }
    return -1;
}

static char **devs_of(const struct vm *vm)
{
    AUTO_JSON config = api_encode(&api_type_vm_config, &vm->config);

    return xml_disk_devs(config);
}

static void devs_free(char **dev)
{
    for (size_t i = 0; dev[i]; i++) {
        free(dev[i]);
    }
    free(dev);
}

/* What is said of disks: mode[i] of the VM's i-th. */
static int read_modes(const struct vm *vm, const struct api_snapshot_create_in *in, int *mode,
                      struct api_error *x)
{
    char **dev = devs_of(vm);
    int rc = 0;

    for (size_t i = 0; i < in->n_disks && rc == 0; i++) {
        const char *name = in->disks[i].name;
        int at = index_of(vm, dev, name);

        if (at < 0) {
            rc = api_error_set(x, API_E_NOT_FOUND, name,
                               "see 'vmctl show' for the names of disks",
                               "VM '%s' has no disk '%s'", vm->config.name, name);
        } else if (mode[at] >= 0) {
            rc = api_error_set(x, API_E_INVALID_PARAMS, name, "name it once",
                               "disk '%s' of VM '%s' is named twice", vm->config.disks[at].name,
                               vm->config.name);
        } else {
            mode[at] = (int)in->disks[i].snapshot;
        }
    }
    devs_free(dev);
    return rc;
}

/* The disk is to be in it. */
static int can_hold(const struct vm *vm, const struct api_disk *disk, bool memory,
                    struct api_error *x)
{
    if (!is_written(disk)) {
        return api_error_set(x, API_E_UNSUPPORTED, disk->name, "leave it out",
                             "disk '%s' of VM '%s' is read-only: it needs no snapshot",
                             disk->name, vm->config.name);
    }
    if (!memory && disk->format != API_DISK_FORMAT_QCOW2) {
        return api_error_set(
            x, API_E_UNSUPPORTED, disk->name,
            "leave it out, convert it to qcow2, or make it read-only",
            "disk '%s' of VM '%s' is no qcow2 image: it cannot hold a snapshot", disk->name,
            vm->config.name);
    }
    return 0;
}

/* Is every disk that is written said to be none of it? */
static bool all_left_out(const struct vm *vm, const int *mode)
{
    size_t n = 0;

    for (size_t i = 0; i < vm->config.n_disks; i++) {
        bool written = is_written(&vm->config.disks[i]);

        if (written && mode[i] != API_SNAPSHOT_MODE_NO) {
            return false;
        }
        n += written;
    }
    return n > 0;
}

int snapshot_choose_disks(const struct vm *vm, const struct api_snapshot_create_in *in,
                          struct api_snapshot *out, struct api_error *x)
{
    bool memory = snapshot_has_memory(vm, in);
    size_t n = vm->config.n_disks, held = 0;
    AUTO_FREE int *mode = xnew_n(int, n + 1);
    bool alone;
    int rc;

    memset(mode, -1, n * sizeof(*mode));
    rc = read_modes(vm, in, mode, x);
    alone = in->memory_only || (memory && all_left_out(vm, mode));
    for (size_t i = 0; i < n && in->memory_only; i++) {
        mode[i] = API_SNAPSHOT_MODE_NO;
    }
    for (size_t i = 0; i < n && rc == 0; i++) {
        const struct api_disk *disk = &vm->config.disks[i];
        bool in_it = mode[i] < 0 ? is_written(disk) : mode[i] != API_SNAPSHOT_MODE_NO;

        if (in_it) {
            rc = can_hold(vm, disk, memory, x);
            held++;
        } else if (memory && !alone && is_written(disk)) {
            rc = api_error_set(x, API_E_UNSUPPORTED, disk->name,
                               "take the disks alone, make it read-only, or leave out all of "
                               "them",
                               "disk '%s' of VM '%s' cannot be left out of a snapshot with "
                               "memory: the two would not fit",
                               disk->name, vm->config.name);
        }
    }
    if (rc == 0 && !memory && held == 0) {
        rc = api_error_set(x, API_E_BAD_STATE, vm->config.name, NULL,
                           "VM '%s' has no disk that would be in it", vm->config.name);
    }
    if (rc < 0) {
        return rc;
    }
    out->disks = xnew_n(struct api_snapshot_disk, n + 1);
    for (size_t i = 0; i < n; i++) {
        const struct api_disk *disk = &vm->config.disks[i];

        if (is_written(disk)) {
            out->disks[out->n_disks++] = (struct api_snapshot_disk){
                .name = xstrdup(disk->name),
                .snapshot = mode[i] == API_SNAPSHOT_MODE_NO ? API_SNAPSHOT_MODE_NO
                                                            : API_SNAPSHOT_MODE_INTERNAL
            };
        }
    }
    return 0;
}

bool snapshot_leaves_out(const struct snapshot *s, const char *disk)
{
    for (size_t i = 0; i < s->info.n_disks && disk; i++) {
        if (strcmp(s->info.disks[i].name, disk) == 0) {
            return s->info.disks[i].snapshot == API_SNAPSHOT_MODE_NO;
        }
    }
    return false;
}

/* ---- making them ---- */

static void over(struct work_on *k)
{
    if (k->x.code) {
        work_drop(k);
    } else {
        work_kept(k);
    }
}

static void thaw(struct work_on *k);

static void ask_agent(struct work_on *k, const char *command, agent_fn *fn)
{
    k->asks_agent = true;
    agent_ask(work_vm(k), command, NULL, AGENT_MS, false, fn, k);
}

/* False: the daemon ends. */
static bool agent_answered(struct work_on *k)
{
    k->asks_agent = false;
    if (k->orphan) {
        work_free(k);
        return false;
    }
    return !k->dead;
}

/* Whatever became of it, a guest must not stay frozen; nobody notices one that does before long. */
static void on_thawed(void *arg, struct json_object *result, const struct api_error *x)
{
    struct work_on *k = arg;
    struct vm *vm;

    (void)result;
    if (!agent_answered(k)) {
        return;
    }
    vm = work_vm(k);
    if (x && agent_listens(vm) && ++k->tries < THAWS) {
        thaw(k);
        return;
    }
    k->tries = 0;
    if (x && vm->run) {
        log_warn("daemon", "VM '%s': the file systems of its guest may still be frozen: %s",
                 vm->config.name, x->message);
        work_set_why(k, API_E_UNRESPONSIVE, "'vmctl agent thaw' lets it write again",
                     "the guest's agent does not thaw its file systems: %s", x->message);
    }
    over(k);
}

static void thaw(struct work_on *k)
{
    ask_agent(k, "guest-fsfreeze-thaw", on_thawed);
}

static void on_acted(struct work_on *k, struct json_object *result, const struct api_error *x)
{
    (void)result;
    if (x) {
        work_set_why(k, x->code == API_E_INTERNAL_ERROR ? API_E_UNRESPONSIVE : x->code,
                     x->remedy[0] ? x->remedy : NULL, "%s", x->message);
    }
    if (k->s->info.quiesced) {
        thaw(k);
    } else {
        over(k);
    }
}

static void act(struct work_on *k)
{
    struct json_object *o = json_object_new_object(), *list = json_object_new_array();

    for (size_t i = 0; i < k->s->info.n_disks; i++) {
        const struct api_snapshot_disk *disk = &k->s->info.disks[i];
        const struct api_disk_action a = { .act = API_DISK_ACTION_KIND_SNAPSHOT,
                                           .disk = disk->name,
                                           .name = k->s->info.tag };

        if (disk->snapshot != API_SNAPSHOT_MODE_NO) {
            json_object_array_add(list, api_encode(&api_type_disk_action, &a));
        }
    }
    api_json_set(o, "actions", list);
    work_ask(k, "emu.disk_actions", o, false, ACT_NS, on_acted);
}

static void on_frozen(void *arg, struct json_object *result, const struct api_error *x)
{
    struct work_on *k = arg;

    (void)result;
    if (!agent_answered(k)) {
        return;
    }
    if (x) { /* it may be frozen all the same */
        work_set_why(k, x->code, x->remedy[0] ? x->remedy : NULL, "%s", x->message);
        thaw(k);
    } else {
        act(k);
    }
}

static void taken(struct work_on *k)
{
    if (k->w.e.code) {
        work_set_why(k, API_E_FILE_ERROR, "see that the images are sound, with room for more",
                     "%s", k->w.e.msg);
    }
    over(k);
}

void work_take_disks(struct work_on *k)
{
    if (k->s->info.stopped) {
        if (!work_find_images(k)) {
            work_drop(k);
        } else {
            work_start(k, work_run_take, taken);
        }
    } else if (k->s->info.quiesced) {
        ask_agent(k, "guest-fsfreeze-freeze", on_frozen);
    } else {
        act(k);
    }
}

/* ---- after a daemon that died meanwhile ---- */

static void on_freed(void *arg, struct json_object *result, const struct api_error *x)
{
    struct work_on *k = arg;

    (void)result;
    if (agent_answered(k)) {
        if (x && work_vm(k)->run) {
            log_warn("daemon", "VM '%s': the file systems of its guest may still be frozen: %s",
                     work_vm(k)->config.name, x->message);
        }
        work_drop(k);
    }
}

void work_free_guest(struct work_on *k)
{
    struct vm *vm = work_vm(k);
    bool up = vm->run && !run_has_ended(vm->run);

    if (up && !agent_listens(vm) && ++k->tries < LISTENS) { /* its channel is being opened */
        work_later(k, LISTEN_NS, work_free_guest);
        return;
    }
    k->tries = 0;
    if (up) {
        ask_agent(k, "guest-fsfreeze-thaw", on_freed);
    } else {
        work_drop(k);
    }
}
