/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A vCPU's thread in KVM: running, exits, kicks.
 *
 * A kick sets `kicked`, then kvm_run.immediate_exit, then signals a thread that is in KVM_RUN. The signal is blocked everywhere but inside
 * KVM_RUN, so it has no handler: one that comes too early or too late waits there and makes the next KVM_RUN return. A device access is finished by
 * KVM only when KVM_RUN is called again, so nothing leaves the loop but where KVM_RUN was interrupted.
 */
#include "engine/kvm/internal.h"

#include "engine/base/log.h"
#include "engine/core/bus.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define RUN_ON (-1)

void kvm_vcpu_thread(struct vcpu *c)
{
    struct kvm_vcpu *v = c->engine_data;
    const uint32_t len = 8;
    const uint64_t mask = ~(1ull << (KVM_KICK_SIGNAL - 1));
    _Static_assert(offsetof(struct kvm_signal_mask, sigset) == 4,
                   "the mask follows the length");
    uint8_t bytes[12];
    sigset_t kick;

    memcpy(bytes, &len, 4);
    memcpy(bytes + 4, &mask, 8);
    sigemptyset(&kick);
    sigaddset(&kick, KVM_KICK_SIGNAL);
    pthread_sigmask(SIG_BLOCK, &kick, NULL);
    kvm_arch->thread_start(c);
    v->tid = (pid_t)syscall(SYS_gettid);
    if (kvm_call(v->fd, KVM_SET_SIGNAL_MASK, bytes) != 0) {
        log_error("kvm", "vCPU %u: no signal mask: %s", c->index, strerror(errno));
        vm_request(c->vm, VM_REQ_CRASH, "crash: the engine failed");
    }
}

/* Written by this thread alone. */
static void count(_Atomic uint64_t *n)
{
    atomic_store_explicit(n, atomic_load_explicit(n, memory_order_relaxed) + 1,
                          memory_order_relaxed);
}

/* Makes KVM_RUN return; what for, the caller has said before. */
static void interrupt(struct kvm_vcpu *v)
{
    __atomic_store_n(&v->run->immediate_exit, 1, __ATOMIC_SEQ_CST);
    if (atomic_load(&v->in_run)) {
        (void)syscall(SYS_tgkill, v->vm->pid, v->tid, KVM_KICK_SIGNAL);
    }
}

void kvm_kick(struct vcpu *c)
{
    struct kvm_vcpu *v = c->engine_data;
    atomic_store(&v->kicked, true);
    interrupt(v);
}

void kvm_irq(struct vcpu *c)
{
    interrupt(c->engine_data);
}

static void eat_signal(void)
{
    const struct timespec now = { 0, 0 };
    sigset_t kick;

    sigemptyset(&kick);
    sigaddset(&kick, KVM_KICK_SIGNAL);
    (void)sigtimedwait(&kick, NULL, &now);
}

/* ---- exits ---- */

/* Bytes of kvm_run, one to eight, as the host has them: of a size that is known when this is compiled, since these are on the way of every exit. */
static uint64_t bytes_get(const void *at, unsigned size)
{
    uint64_t value = 0;

    switch (size) {
    case 1:
        return *(const uint8_t *)at;
    case 2:
        return *(const uint16_t *)at;
    case 4:
        return *(const uint32_t *)at;
    default:
        memcpy(&value, at, size < 8 ? size : 8);
        return value;
    }
}

static void bytes_put(void *at, unsigned size, uint64_t value)
{
    switch (size) {
    case 1:
        *(uint8_t *)at = (uint8_t)value;
        break;
    case 2:
        *(uint16_t *)at = (uint16_t)value;
        break;
    case 4:
        *(uint32_t *)at = (uint32_t)value;
        break;
    default:
        memcpy(at, &value, size < 8 ? size : 8);
    }
}

static void on_port(struct vcpu *c)
{
    struct kvm_vcpu *v = c->engine_data;
    struct kvm_run *r = v->run;
    uint8_t *p = (uint8_t *)r + r->io.data_offset;

    count(&v->n_port);
    for (uint32_t i = 0; i < r->io.count; i++, p += r->io.size) {
        if (r->io.direction == KVM_EXIT_IO_OUT) {
            bus_port_write(c->vm->ports, r->io.port, r->io.size,
                           (uint32_t)bytes_get(p, r->io.size));
        } else {
            bytes_put(p, r->io.size, bus_port_read(c->vm->ports, r->io.port, r->io.size));
        }
    }
}

/* Naturally aligned pieces: KVM's may have any size to 8 and cross from one device to the next. */
static void on_mmio(struct vcpu *c)
{
    struct kvm_vcpu *v = c->engine_data;
    struct kvm_run *r = v->run;
    unsigned left = r->mmio.len < 8 ? r->mmio.len : 8, done = 0;

    count(&v->n_mmio);
    while (done < left) {
        uint64_t gpa = r->mmio.phys_addr + done, value = 0;
        unsigned n = 8;
        while (n > left - done || gpa % n) {
            n /= 2;
        }
        const struct mem_range *range = mem_find(c->vm->mem, gpa);
        if (r->mmio.is_write) {
            value = bytes_get(r->mmio.data + done, n);
            if (range) {
                (void)bus_write(c->vm->mem, range, gpa, n, value);
            }
        } else {
            if (!range || bus_read(range, gpa, n, &value) != BUS_OK) {
                value = UINT64_MAX; /* nobody answers */
            }
            bytes_put(r->mmio.data + done, n, value);
        }
        done += n;
    }
}

static int on_system_event(struct vcpu *c, uint32_t type)
{
    if (type == KVM_SYSTEM_EVENT_SHUTDOWN) {
        vm_request(c->vm, VM_REQ_POWEROFF, "guest-poweroff");
    } else if (type == KVM_SYSTEM_EVENT_RESET) {
        vm_request(c->vm, VM_REQ_RESET, "guest-reset");
    } else {
        vm_request(c->vm, VM_REQ_PANIC, "guest-panic");
    }
    return RUN_ON;
}

static int broken(struct vcpu *c, const char *what, uint64_t detail)
{
    struct kvm_vcpu *v = c->engine_data;
    (void)v;
    log_error("kvm", "vCPU %u: %s (0x%" PRIx64 ")", c->index, what, detail);
    return VCPU_EXIT_ERROR;
}

/* With the instruction, where KVM tells it. */
static int not_emulated(struct vcpu *c)
{
    const struct kvm_run *r = ((struct kvm_vcpu *)c->engine_data)->run;
    char bytes[48] = "";
    bool told = r->internal.suberror == KVM_INTERNAL_ERROR_EMULATION &&
                r->internal.ndata >= 4 &&
                r->emulation_failure.flags &
                    KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES;

    for (unsigned i = 0; told && i < r->emulation_failure.insn_size && i < 15; i++) {
        snprintf(bytes + i * 3, sizeof(bytes) - i * 3, " %02x",
                 r->emulation_failure.insn_bytes[i]);
    }
    log_error("kvm", "vCPU %u: KVM cannot carry out the guest's instruction%s (%u)", c->index,
              bytes, r->internal.suberror);
    return VCPU_EXIT_ERROR;
}

/* What to do about the exit: RUN_ON, or why run() returns. */
static int on_exit_reason(struct vcpu *c)
{
    struct kvm_vcpu *v = c->engine_data;
    struct kvm_run *r = v->run;
    int why = RUN_ON;

    switch (r->exit_reason) {
    case KVM_EXIT_IO:
        on_port(c);
        return RUN_ON;
    case KVM_EXIT_MMIO:
        on_mmio(c);
        return RUN_ON;
    case KVM_EXIT_IRQ_WINDOW_OPEN:
    case KVM_EXIT_INTR:
        return RUN_ON;
    case KVM_EXIT_HLT:
        return VCPU_EXIT_HALT;
    case KVM_EXIT_DEBUG:
        return VCPU_EXIT_DEBUG;
    case KVM_EXIT_SHUTDOWN: /* a triple fault: the board's reset line */
        vm_request(c->vm, VM_REQ_RESET, "guest-reset");
        return RUN_ON;
    case KVM_EXIT_SYSTEM_EVENT:
        return on_system_event(c, r->system_event.type);
    case KVM_EXIT_FAIL_ENTRY:
        return broken(c, "the processor refuses the guest's state",
                      r->fail_entry.hardware_entry_failure_reason);
    case KVM_EXIT_INTERNAL_ERROR:
        return not_emulated(c);
    default:
        return kvm_arch->exit(c, &why) ? why
                                       : broken(c, "an exit that is not known", r->exit_reason);
    }
}

/* ---- the loop ---- */

/* KVM gets what others wrote to the state. */
static bool prepare(struct vcpu *c)
{
    struct kvm_vcpu *v = c->engine_data;
    if (v->changed) {
        if (kvm_arch->put(c) != 0) {
            return false;
        }
        v->changed = false;
    }
    if (v->debug_seen != v->vm->debug_change || v->debug_step_seen != v->step) {
        if (kvm_arch->debug(c) != 0) {
            return false;
        }
        v->debug_seen = v->vm->debug_change;
        v->debug_step_seen = v->step;
    }
    return true;
}

static int enter(struct kvm_vcpu *v)
{
    atomic_store(&v->in_run, true); /* seen before KVM looks at immediate_exit */
    int rc = ioctl(v->fd, KVM_RUN, 0);
    atomic_store_explicit(&v->in_run, false, memory_order_release);
    return rc;
}

/* KVM_RUN was interrupted, all accesses are finished. */
static void interrupted(struct kvm_vcpu *v)
{
    eat_signal();
    __atomic_store_n(&v->run->immediate_exit, 0, __ATOMIC_SEQ_CST);
}

static int failed_run(struct vcpu *c)
{
    log_error("kvm", "vCPU %u: KVM_RUN: %s", c->index, strerror(errno));
    return VCPU_EXIT_ERROR;
}

/* On a kick: what KVM still has to tell (the EOI of a level-triggered interrupt) is part of no state, and must not wait for another run. With a
 * signal pending KVM_RUN tells it, and runs no instruction. */
static int settle(struct vcpu *c)
{
    struct kvm_vcpu *v = c->engine_data;

    for (;;) {
        (void)syscall(SYS_tgkill, v->vm->pid, v->tid, KVM_KICK_SIGNAL);
        int rc = enter(v), why = rc < 0 ? VCPU_EXIT_KICK : on_exit_reason(c);
        if (rc < 0 && errno != EINTR && errno != EAGAIN) {
            return failed_run(c);
        }
        interrupted(v);
        if (rc < 0) {
            count(&v->n_kick);
            atomic_store(&v->kicked, false);
            return VCPU_EXIT_KICK;
        }
        if (why != RUN_ON) {
            kvm_kick(c); /* it stays */
            return why;
        }
    }
}

enum vcpu_exit kvm_run_vcpu(struct vcpu *c)
{
    struct kvm_vcpu *v = c->engine_data;

    if (!prepare(c)) {
        return VCPU_EXIT_ERROR;
    }
    if (v->vm->n_breakpoints && !v->step && kvm_arch->at_breakpoint(c)) {
        return VCPU_EXIT_DEBUG;
    }
    v->fetched = false;
    for (;;) {
        kvm_arch->before(c);
        if (enter(v) < 0) {
            if (errno != EINTR && errno != EAGAIN) {
                return (enum vcpu_exit)failed_run(c);
            }
            interrupted(v);
            if (!atomic_load(&v->kicked)) {
                continue;
            }
            return (enum vcpu_exit)settle(c);
        }
        count(&v->n_exit);
        int why = on_exit_reason(c);
        if (why == VCPU_EXIT_DEBUG && v->vm->n_breakpoints && !v->step &&
            !kvm_arch->at_breakpoint(c)) {
            continue; /* a step on the way to one of many breakpoints */
        }
        if (why != RUN_ON) {
            return (enum vcpu_exit)why;
        }
    }
}
