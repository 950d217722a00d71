/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The life of a virtual machine: made, started, paused, reset, stopped. Owns struct vm and
 * everything below it. Main thread, but for vm_request().
 *
 * A request posts to the main loop at most once until it is served, so a guest that writes
 * its power-off register in a loop grows nothing. The post may be delivered after the VM is
 * gone: it carries the door, not the VM.
 */
#include "engine/core/vm.h"
#include "engine/base/log.h"
#include "engine/base/mem.h"
#include "engine/base/str.h"
#include "engine/core/device.h"

#include <assert.h>
#include <errno.h>

/* Counted by the VM and by each post under way; freed on the main thread. */
struct vm_door {
    struct vm *vm; /* NULL once the VM is gone; main thread */
    _Atomic unsigned refs;
};

static void door_unref(struct vm_door *d)
{
    if (atomic_fetch_sub(&d->refs, 1) == 1) {
        free(d);
    }
}

static void engine_commit(void *arg, const struct mem_flat *flat)
{
    struct vm *vm = arg;
    if (vm->engine->mem_commit) {
        vm->engine->mem_commit(vm, flat);
    }
}

static void engine_dirty(void *arg)
{
    struct vm *vm = arg;
    vm->engine->mem_dirty(vm);
}

static void engine_written(void *arg, uint64_t gpa, uint64_t n)
{
    struct vm *vm = arg;
    if (vm->engine->mem_written) {
        vm->engine->mem_written(vm, gpa, n);
    }
}

int vm_new(const char *name, const struct arch_ops *arch, const struct engine_ops *engine,
           struct loop *loop, void *engine_config, struct vm **out, struct err *e)
{
    struct vm *vm = xnew(struct vm);
    vm->name = xstrdup(name);
    vm->arch = arch;
    vm->engine = engine;
    vm->engine_config = engine_config;
    vm->loop = loop;
    vm->state = VM_PAUSED;
    list_init(&vm->devices);
    vm->clock = clock_new(loop, e);
    if (!vm->clock) {
        free(vm->name);
        free(vm);
        return -EMFILE;
    }
    vm->root = mem_new_container("memory", 1ull << 56);
    vm->mem = mem_space_new(vm->root);
    vm->port_root = mem_new_container("ports", 1 << 16);
    vm->ports = mem_space_new(vm->port_root);
    vm->door = xnew(struct vm_door);
    vm->door->vm = vm;
    atomic_init(&vm->door->refs, 1);
    int ret = engine->vm_init ? engine->vm_init(vm, e) : 0;
    if (ret < 0) {
        vm->engine = NULL;
        vm_free(vm);
        return ret;
    }
    mem_set_hooks(vm->mem, engine_commit, engine_written, vm);
    mem_set_dirty_hook(vm->mem, engine->mem_dirty ? engine_dirty : NULL);
    *out = vm;
    return 0;
}

/* Undoes what add_vcpu did, as far as it came. */
static void drop_vcpu(struct vcpu *c, bool engine, bool arch)
{
    if (arch && c->vm->arch->cpu_done) {
        c->vm->arch->cpu_done(c);
    }
    if (engine && c->vm->engine->vcpu_done) {
        c->vm->engine->vcpu_done(c);
    }
    vcpu_free(c);
}

static int add_vcpu(struct vm *vm, unsigned index, const char *cpu_model, struct err *e)
{
    struct vcpu *c = vcpu_new(vm, index);
    int ret = vm->engine->vcpu_init(c, e);
    if (ret < 0) {
        drop_vcpu(c, false, false);
        return ret;
    }
    ret = vm->arch->cpu_init ? vm->arch->cpu_init(c, cpu_model, e) : 0;
    if (ret < 0) {
        drop_vcpu(c, true, false);
        return ret;
    }
    vm->vcpus[vm->n_vcpus++] = c;
    return 0;
}

static void drop_vcpus(struct vm *vm)
{
    while (vm->n_vcpus) {
        drop_vcpu(vm->vcpus[--vm->n_vcpus], true, true);
    }
    free(vm->vcpus);
    vm->vcpus = NULL;
}

int vm_add_vcpus(struct vm *vm, unsigned n, const char *cpu_model, struct err *e)
{
    assert(!vm->vcpus && !vm->started);
    if (n == 0 || n > vm->arch->max_vcpus) {
        return err_set(e, -EINVAL, "VM '%s' cannot have %u vCPUs: %s takes 1 to %u", vm->name,
                       n, vm->arch->name, vm->arch->max_vcpus);
    }
    vm->vcpus = xnew_n(struct vcpu *, n);
    vm->n_vcpus_wanted = n;
    for (unsigned i = 0; i < n; i++) {
        int ret = add_vcpu(vm, i, cpu_model, e);
        if (ret < 0) {
            drop_vcpus(vm);
            return ret;
        }
    }
    return 0;
}

static void set_state(struct vm *vm, enum vm_state state, const char *reason)
{
    vm->state = state;
    if (vm->on_state) {
        vm->on_state(vm->on_state_arg, state, reason);
    }
}

static void barrier_close(struct vm *vm)
{
    for (unsigned i = 0; i < vm->n_vcpus; i++) {
        vcpu_pause_ask(vm->vcpus[i]);
    }
    for (unsigned i = 0; i < vm->n_vcpus; i++) {
        vcpu_pause_wait(vm->vcpus[i]);
    }
    clock_stop(vm->clock);
    mem_reclaim(vm->mem);
    mem_reclaim(vm->ports);
}

void vm_set_asleep(struct vm *vm, bool asleep)
{
    for (unsigned i = 0; i < vm->n_vcpus; i++) {
        if (asleep) {
            vcpu_park(vm->vcpus[i]);
        } else if (vm->asleep && !vm->vcpus[i]->debug_stop) {
            vcpu_unpark(vm->vcpus[i]);
        }
    }
    vm->asleep = asleep;
}

static void barrier_open(struct vm *vm)
{
    clock_start(vm->clock);
    if (vm->asleep) {
        vm_set_asleep(vm, true); /* whoever let a vCPU go meanwhile */
    }
    for (unsigned i = 0; i < vm->n_vcpus; i++) {
        vcpu_unpause(vm->vcpus[i]);
    }
}

void vm_at_barrier(struct vm *vm, void (*fn)(void *arg), void *arg)
{
    bool running = vm->state == VM_RUNNING;

    if (running) {
        barrier_close(vm);
    }
    fn(arg);
    if (running) {
        barrier_open(vm);
    }
}

void vm_remap(struct vm *vm)
{
    bool any = false;

    list_for_each (it, &vm->devices) {
        struct device *d = list_entry(it, struct device, node);

        if (d->cls->remap) {
            d->cls->remap(d);
            any = true;
        }
    }
    if (any) {
        mem_commit(vm->mem);
        mem_commit(vm->ports);
    }
}

/* vCPUs that asked for it go on. */
static void serve_remap(struct vm *vm)
{
    vm_remap(vm);
    for (unsigned i = 0; i < vm->n_vcpus; i++) {
        if (!vm->vcpus[i]->debug_stop) {
            vcpu_unpark(vm->vcpus[i]);
        }
    }
}

/* With the vCPUs at the barrier, or not started. */
static void reset_all(struct vm *vm)
{
    atomic_fetch_and(&vm->requests, ~(unsigned)VM_REQ_RESET);
    vm->ended = false;
    vm->asleep = false;
    list_for_each (it, &vm->devices) {
        dev_reset(list_entry(it, struct device, node));
    }
    for (unsigned i = 0; i < vm->n_vcpus; i++) {
        vm->arch->cpu_reset(vm->vcpus[i]);
    }
    vm_remap(vm);
    if (vm->on_reset) {
        vm->on_reset(vm->on_reset_arg);
    }
    for (unsigned i = 0; i < vm->n_vcpus; i++) {
        if (vm->engine->regs_put) {
            vm->engine->regs_put(vm->vcpus[i]);
        }
        vcpu_cleared(vm->vcpus[i]);
    }
}

int vm_start(struct vm *vm, struct err *e)
{
    assert(vm->n_vcpus && !vm->started && vm->state == VM_PAUSED);
    mem_commit(vm->mem);
    mem_commit(vm->ports);
    reset_all(vm);
    vm->started = true;
    for (unsigned i = 0; i < vm->n_vcpus; i++) {
        int ret = vcpu_thread_start(vm->vcpus[i], e);
        if (ret < 0) {
            while (i) {
                vcpu_thread_stop(vm->vcpus[--i]);
            }
            vm->started = false;
            return ret;
        }
    }
    for (unsigned i = 0; i < vm->n_vcpus; i++) {
        vcpu_pause_wait(vm->vcpus[i]);
    }
    return 0;
}

void vm_resume(struct vm *vm)
{
    if (vm->state != VM_PAUSED || !vm->started || vm->ended) {
        return;
    }
    struct err e = ERR_INIT;
    if (vm->may_run && vm->may_run(vm->on_state_arg, &e) < 0) {
        log_error("vm", "%s", e.msg);
        return;
    }
    vm->state = VM_RUNNING; /* before a vCPU can reach a device that asks */
    barrier_open(vm);
    set_state(vm, VM_RUNNING, vm->asleep ? "suspended" : "resume");
    if (vm->replay && !vm->settled) {
        return; /* nothing was put off: it waits between two instructions, as the vCPUs do */
    }
    vm->settled = false;
    list_for_each (it, &vm->devices) {
        struct device *d = list_entry(it, struct device, node);
        if (d->cls->resumed) {
            d->cls->resumed(d);
        }
    }
}

void vm_pause(struct vm *vm)
{
    if (vm->state != VM_RUNNING) {
        return;
    }
    barrier_close(vm);
    set_state(vm, VM_PAUSED, "pause");
}

/* Tells that it fell asleep, or that it has woken, unless it is paused: the reason for that stays. */
static void tell_sleep(struct vm *vm, bool slept)
{
    if (vm->asleep != slept && vm->state == VM_RUNNING) {
        set_state(vm, VM_RUNNING, vm->asleep ? "suspended" : "wakeup");
    }
}

/* With the vCPUs at the barrier. */
static void wake_up(struct vm *vm)
{
    vm->waking = true;
    reset_all(vm);
    vm->waking = false;
}

void vm_wake(struct vm *vm)
{
    bool running = vm->state == VM_RUNNING;

    if (!vm->asleep || vm->state == VM_STOPPED) {
        return;
    }
    if (running) {
        barrier_close(vm);
    }
    wake_up(vm);
    if (running) {
        barrier_open(vm);
    }
    tell_sleep(vm, true);
}

void vm_reset(struct vm *vm)
{
    if (vm->state == VM_STOPPED) {
        return;
    }
    bool running = vm->state == VM_RUNNING, ended = vm->ended, slept = vm->asleep;
    if (running) {
        barrier_close(vm);
    }
    reset_all(vm);
    if (running) {
        barrier_open(vm);
    }
    if (ended) {
        set_state(vm, VM_PAUSED, "start");
    }
    tell_sleep(vm, slept);
}

static void stop_threads(struct vm *vm)
{
    for (unsigned i = 0; vm->started && i < vm->n_vcpus; i++) {
        vcpu_pause_ask(vm->vcpus[i]); /* so that they all stop at once */
    }
    for (unsigned i = 0; vm->started && i < vm->n_vcpus; i++) {
        vcpu_thread_stop(vm->vcpus[i]);
    }
    vm->started = false;
    clock_stop(vm->clock);
    mem_reclaim(vm->mem);
    mem_reclaim(vm->ports);
}

void vm_stop(struct vm *vm, const char *reason)
{
    if (vm->state == VM_STOPPED) {
        return;
    }
    stop_threads(vm);
    str_copy(vm->stop_reason, sizeof(vm->stop_reason), reason);
    set_state(vm, VM_STOPPED, vm->stop_reason);
}

void vm_free_devices(struct vm *vm)
{
    stop_threads(vm);
    while (!list_empty(&vm->devices)) {
        dev_free(list_entry(vm->devices.prev, struct device, node));
    }
}

void vm_free(struct vm *vm)
{
    if (!vm) {
        return;
    }
    vm_free_devices(vm);
    drop_vcpus(vm);
    if (vm->engine && vm->engine->vm_done) {
        vm->engine->vm_done(vm);
    }
    mem_space_free(vm->mem);
    mem_free(vm->root);
    mem_space_free(vm->ports);
    mem_free(vm->port_root);
    clock_free(vm->clock);
    vm->door->vm = NULL;
    door_unref(vm->door);
    free(vm->name);
    free(vm);
}

void vm_debug_clear(struct vm *vm)
{
    atomic_fetch_and(&vm->requests, ~(unsigned)VM_REQ_DEBUG);
    for (unsigned i = 0; i < vm->n_vcpus; i++) {
        if (vm->vcpus[i]->debug_stop) {
            vm->vcpus[i]->debug_stop = false;
            vcpu_unpark(vm->vcpus[i]);
        }
    }
}

/* The guest has powered off and is kept. Its vCPUs stay parked until a reset. */
static void keep_ended(struct vm *vm, const char *reason)
{
    vm_debug_clear(vm);
    vm->ended = true;
    set_state(vm, VM_PAUSED, reason);
}

/* The guest has panicked. True: that ended the VM, or stopped it. */
static bool panicked(struct vm *vm, bool running)
{
    enum vm_panic what = vm->panic;
    if (vm->on_panic) {
        vm->on_panic(vm->on_state_arg, what);
    }
    if (what == VM_PANIC_NONE) {
        return false;
    }
    if (what == VM_PANIC_END && !vm->end_pauses) {
        vm_stop(vm, "guest-panic");
    } else if (running) {
        vm_debug_clear(vm);
        set_state(vm, VM_PAUSED, "guest-panic");
    }
    return true;
}

/* Does what was asked for; the strongest wish wins. The barrier is closed before the
 * requests are taken, so that what several vCPUs ask at once is served once. */
static void serve(struct vm *vm)
{
    bool running = vm->state == VM_RUNNING;
    if (vm->state == VM_STOPPED) {
        atomic_store(&vm->requests, 0);
        return;
    }
    if (running) {
        barrier_close(vm);
    }
    unsigned wanted = atomic_exchange(&vm->requests, 0);
    const char *reason = atomic_load(&vm->request_reason);
    bool reset = wanted & VM_REQ_RESET;
    bool end = (wanted & VM_REQ_POWEROFF) || (reset && vm->reset_ends);
    if ((wanted & VM_REQ_CRASH) || (end && !vm->end_pauses)) {
        vm_stop(vm, reason);
        return;
    }
    if (end) {
        keep_ended(vm, reason);
        return;
    }
    if (!reset && (wanted & VM_REQ_REMAP)) {
        serve_remap(vm);
    }
    if (!reset && (wanted & VM_REQ_PANIC) && panicked(vm, running)) {
        return;
    }
    bool slept = vm->asleep;
    if (reset) {
        reset_all(vm);
    } else if (wanted & VM_REQ_WAKE && (slept || wanted & VM_REQ_SLEEP)) {
        wake_up(vm);
    } else if (wanted & VM_REQ_SLEEP) {
        vm_set_asleep(vm, true);
    }
    bool debug = (wanted & VM_REQ_DEBUG) && vm->on_debug;
    if (running && !debug) {
        vm_debug_clear(vm); /* the debugger went meanwhile */
        barrier_open(vm);
    }
    tell_sleep(vm, slept);
    if (reset) {
        set_state(vm, vm->state, "guest-reset");
    }
    if (debug && vm->on_debug) {
        vm->state = VM_PAUSED;
        vm->on_debug(vm->on_debug_arg);
        if (running) {
            set_state(vm, VM_PAUSED, "debug");
        }
    }
}

static void on_request(void *arg)
{
    struct vm_door *door = arg;
    if (door->vm && atomic_load(&door->vm->requests)) {
        serve(door->vm);
    }
    door_unref(door);
}

void vm_request(struct vm *vm, enum vm_request what, const char *reason)
{
    if (what != VM_REQ_DEBUG && what != VM_REQ_REMAP && what != VM_REQ_SLEEP &&
        what != VM_REQ_WAKE) {
        atomic_store(&vm->request_reason, reason);
    }
    if (atomic_fetch_or(&vm->requests, what) == 0) {
        atomic_fetch_add(&vm->door->refs, 1);
        loop_post(vm->loop, on_request, vm->door);
    }
    struct vcpu *c = vcpu_current();
    if (c && c->vm == vm) {
        vcpu_park(c);
    }
}
