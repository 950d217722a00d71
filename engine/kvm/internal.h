/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside of engine/kvm: what its files share. An architecture is struct kvm_arch in arch_X.c, compiled on hosts of X.
 */
#ifndef VMD_KVM_INTERNAL_H
#define VMD_KVM_INTERNAL_H

#include "engine/core/mem.h"
#include "engine/core/vcpu.h"
#include "engine/core/vm.h"
#include "engine/kvm/kvm.h"

#include <linux/kvm.h>
#include <sys/types.h>

#define KVM_BREAKPOINTS_MAX 256

/* One slot of KVM's: a copy of the range it shows (size 0: free), of which the whole pages are there. */
struct kvm_slot {
    struct mem_range range;
    uint64_t base, size;
    uint32_t flags;
};

/* vm->engine_data. Main thread, but for what is constant once made. */
struct kvm_vm {
    int fd;     /* of the VM */
    int dev_fd; /* /dev/kvm, borrowed */
    int run_size;
    pid_t pid;
    struct kvm_slot *slot;
    unsigned n_slots, max_slots;
    uint64_t breakpoint[KVM_BREAKPOINTS_MAX];
    unsigned n_breakpoints;
    unsigned debug_change;   /* counts changes of them */
    struct kvm_bells *bells; /* NULL: KVM rings none */
    void *arch;              /* the architecture's own */
};

/* vcpu->engine_data. The vCPU's thread (main thread at the barrier), but for the atomics. */
struct kvm_vcpu {
    struct vcpu *vcpu;
    struct kvm_vm *vm;
    int fd;
    struct kvm_run *run;
    pid_t tid;
    bool fetched; /* vcpu->cpu is what KVM has */
    bool changed; /* ... and KVM shall have what is in vcpu->cpu */
    bool step;
    unsigned debug_seen; /* kvm_vm.debug_change when KVM was told */
    bool debug_step_seen;
    _Atomic bool kicked, in_run;
    _Atomic uint64_t n_exit, n_port, n_mmio, n_kick;
    void *cpu; /* vcpu->cpu, owned */
};

/* What an architecture adds. */
struct kvm_arch {
    const char *name; /* arch_ops.name */
    unsigned long (*type)(int dev_fd);
    int (*check)(int dev_fd, struct err *e);
    int (*vm_init)(struct vm *vm, struct err *e);
    void (*vm_done)(struct vm *vm);
    int (*vcpu_init)(struct vcpu *c, struct err *e);
    void (*thread_start)(struct vcpu *c);
    /* 0 or negative: what KVM refused was logged. */
    int (*put)(struct vcpu *c);
    int (*get)(struct vcpu *c);
    /* An exit that is the architecture's own; false: unknown. *why is preset to "run on" (a negative value). */
    bool (*exit)(struct vcpu *c, int *why);
    /* Before each KVM_RUN: interrupt inputs. */
    void (*before)(struct vcpu *c);
    bool (*at_breakpoint)(struct vcpu *c);
    /* Tells KVM of steps and breakpoints. */
    int (*debug)(struct vcpu *c);
    void (*msi)(struct vm *vm, uint64_t address, uint32_t data);
    void (*level_pins)(struct vm *vm, const struct irq_message *pin, unsigned n);
};

/* The architecture of this host; NULL: KVM is not used on it. */
extern const struct kvm_arch *const kvm_arch;

/* ioctl() that is begun again when a signal interrupts it; -1 and errno. */
int kvm_call(int fd, unsigned long request, void *arg);

/* --- memslot.c --- */
void kvm_mem_commit(struct vm *vm, const struct mem_flat *flat);
void kvm_mem_dirty(struct vm *vm);
void kvm_mem_done(struct kvm_vm *k);

/* --- bell.c --- */
void kvm_bells_init(struct vm *vm);
void kvm_bells_commit(struct vm *vm, const void *owner, const struct mem_flat *flat,
                      uint64_t from, uint64_t to);
void kvm_bells_stats(const struct kvm_vm *k, struct buf *out);
void kvm_bells_done(struct kvm_vm *k);

/* --- vcpu.c --- */
enum vcpu_exit kvm_run_vcpu(struct vcpu *c);
void kvm_kick(struct vcpu *c);
void kvm_irq(struct vcpu *c);
void kvm_vcpu_thread(struct vcpu *c);

#endif
