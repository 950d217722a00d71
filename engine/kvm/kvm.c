/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The engine on KVM: struct engine_ops, VMs and vCPUs made and ended, what is common to architectures. Owns the descriptors of VM and vCPUs.
 */
#include "engine/kvm/internal.h"

#include "engine/base/buf.h"
#include "engine/base/log.h"
#include "engine/base/mem.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#if defined(__x86_64__)
extern const struct kvm_arch kvm_arch_x86;
const struct kvm_arch *const kvm_arch = &kvm_arch_x86;
#else
const struct kvm_arch *const kvm_arch = NULL;
#endif

int kvm_call(int fd, unsigned long request, void *arg)
{
    int rc;
    do {
        rc = ioctl(fd, request, arg);
    } while (rc < 0 && errno == EINTR);
    return rc;
}

static const struct {
    int cap;
    const char *what;
} needed[] = {
    { KVM_CAP_USER_MEMORY, "user memory" },       { KVM_CAP_IMMEDIATE_EXIT, "immediate exits" },
    { KVM_CAP_READONLY_MEM, "read-only memory" }, { KVM_CAP_SIGNAL_MSI, "MSIs" },
    { KVM_CAP_MP_STATE, "processor activity" },
};

int kvm_usable(int fd, const char *arch, struct err *e)
{
    if (fd < 0) {
        return err_set(e, -ENODEV,
                       "engine kvm: /dev/kvm was not opened; load the module kvm_intel or "
                       "kvm_amd (virtualization must be on in "
                       "the firmware's set-up), or set \"engine\" to \"tcg\" where it runs %s",
                       arch);
    }
    if (!kvm_arch || strcmp(kvm_arch->name, arch) != 0) {
        return err_set(
            e, -ENOTSUP,
            "engine kvm: this host runs %s by itself, not %s; set \"engine\" to \"tcg\"",
            kvm_arch ? kvm_arch->name : "no guest", arch);
    }
    int version = kvm_call(fd, KVM_GET_API_VERSION, NULL);
    if (version != KVM_API_VERSION) {
        return err_set(e, -ENOTSUP, "engine kvm: /dev/kvm has interface %d, not %d", version,
                       KVM_API_VERSION);
    }
    for (unsigned i = 0; i < ARRAY_LEN(needed); i++) {
        if (kvm_call(fd, KVM_CHECK_EXTENSION, (void *)(uintptr_t)needed[i].cap) <= 0) {
            return err_set(e, -ENOTSUP,
                           "engine kvm: the host's kernel is too old: it has no %s",
                           needed[i].what);
        }
    }
    return kvm_arch->check(fd, e);
}

static int new_vm(struct vm *vm, struct kvm_vm *k, struct err *e)
{
    k->fd = kvm_call(k->dev_fd, KVM_CREATE_VM, (void *)kvm_arch->type(k->dev_fd));
    if (k->fd < 0) {
        return errno == EBUSY ? err_set(e, -EBUSY,
                                        "engine kvm: another hypervisor of this host uses the "
                                        "processor's virtualization (VirtualBox, "
                                        "VMware?); end it, or set \"engine\" to \"tcg\"")
                              : err_errno(e, errno, "engine kvm: no VM can be made");
    }
    int slots = kvm_call(k->dev_fd, KVM_CHECK_EXTENSION,
                         (void *)(uintptr_t)KVM_CAP_NR_MEMSLOTS);
    k->max_slots = slots > 0 ? (unsigned)slots : 32;
    k->run_size = kvm_call(k->dev_fd, KVM_GET_VCPU_MMAP_SIZE, NULL);
    if (k->run_size < (int)sizeof(struct kvm_run)) {
        return err_set(e, -ENOTSUP, "engine kvm: vCPUs would have %d bytes to talk by",
                       k->run_size);
    }
    kvm_bells_init(vm);
    return kvm_arch->vm_init(vm, e);
}

static void kvm_vm_done(struct vm *vm)
{
    struct kvm_vm *k = vm->engine_data;
    if (!k) {
        return;
    }
    kvm_arch->vm_done(vm);
    kvm_bells_done(k);
    kvm_mem_done(k);
    if (k->fd >= 0) {
        close(k->fd);
    }
    free(k);
    vm->engine_data = NULL;
}

static int kvm_vm_init(struct vm *vm, struct err *e)
{
    const struct kvm_config *config = vm->engine_config;
    int rc = kvm_usable(config ? config->fd : -1, vm->arch->name, e);
    if (rc < 0) {
        return rc;
    }
    struct kvm_vm *k = xnew(struct kvm_vm);
    k->dev_fd = config->fd;
    k->fd = -1;
    k->pid = config->pid;
    vm->engine_data = k;
    rc = new_vm(vm, k, e);
    if (rc < 0) {
        kvm_vm_done(vm);
    }
    return rc;
}

static void kvm_vcpu_done(struct vcpu *c)
{
    struct kvm_vcpu *v = c->engine_data;
    if (!v) {
        return;
    }
    if (v->run) {
        munmap(v->run, (size_t)v->vm->run_size);
    }
    if (v->fd >= 0) {
        close(v->fd);
    }
    free(v->cpu);
    free(v);
    c->engine_data = c->cpu = NULL;
}

static int new_vcpu(struct vcpu *c, struct kvm_vcpu *v, struct err *e)
{
    v->fd = kvm_call(v->vm->fd, KVM_CREATE_VCPU, (void *)(uintptr_t)c->index);
    if (v->fd < 0) {
        return err_errno(e, errno, "engine kvm: vCPU %u cannot be made", c->index);
    }
    void *at = mmap(NULL, (size_t)v->vm->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, v->fd,
                    0);
    if (at == MAP_FAILED) {
        return err_errno(e, errno, "engine kvm: vCPU %u: mmap", c->index);
    }
    v->run = at;
    return kvm_arch->vcpu_init(c, e);
}

static int kvm_vcpu_init(struct vcpu *c, struct err *e)
{
    struct kvm_vcpu *v = xnew(struct kvm_vcpu);
    v->vcpu = c;
    v->vm = c->vm->engine_data;
    v->fd = -1;
    v->cpu = xalloc_aligned(64, (c->vm->arch->cpu_size + 63) & ~(size_t)63);
    c->engine_data = v;
    c->cpu = v->cpu;
    int rc = new_vcpu(c, v, e);
    if (rc < 0) {
        kvm_vcpu_done(c);
    }
    return rc;
}

/* ---- registers ---- */

static void kvm_regs_put(struct vcpu *c)
{
    struct kvm_vcpu *v = c->engine_data;
    v->changed = v->fetched = true; /* KVM gets it before it runs */
}

static void kvm_regs_get(struct vcpu *c)
{
    struct kvm_vcpu *v = c->engine_data;
    if (!v->fetched && !v->changed && kvm_arch->get(c) == 0) {
        v->fetched = true;
    }
}

/* ---- debugging ---- */

static bool kvm_debug_translate(struct vcpu *c, uint64_t va, uint64_t *gpa)
{
    struct kvm_vcpu *v = c->engine_data;
    struct kvm_translation t = { .linear_address = va };
    if (v->changed && kvm_arch->put(c) == 0) {
        v->changed = false;
    }
    if (kvm_call(v->fd, KVM_TRANSLATE, &t) != 0 || !t.valid) {
        return false;
    }
    *gpa = t.physical_address;
    return true;
}

static int kvm_debug_breakpoints(struct vm *vm, const uint64_t *va, unsigned n)
{
    struct kvm_vm *k = vm->engine_data;
    if (n > KVM_BREAKPOINTS_MAX) {
        return -ENOSPC;
    }
    if (n) {
        memcpy(k->breakpoint, va, n * sizeof(*va));
    }
    k->n_breakpoints = n;
    k->debug_change++;
    return 0;
}

static void kvm_debug_step(struct vcpu *c, bool on)
{
    struct kvm_vcpu *v = c->engine_data;
    v->step = on;
}

/* ---- the rest ---- */

static void kvm_msi(struct vm *vm, uint64_t address, uint32_t data)
{
    kvm_arch->msi(vm, address, data);
}

static void kvm_level_pins(struct vm *vm, const struct irq_message *pin, unsigned n)
{
    kvm_arch->level_pins(vm, pin, n);
}

static void kvm_stats(struct vm *vm, struct buf *out)
{
    kvm_bells_stats(vm->engine_data, out);
    for (unsigned i = 0; i < vm->n_vcpus; i++) {
        const struct kvm_vcpu *v = vm->vcpus[i]->engine_data;
        const struct {
            const char *name, *meaning;
            uint64_t value;
        } row[] = {
            { "exits", "times KVM asked for something", atomic_load(&v->n_exit) },
            { "port-exits", "accesses to I/O ports", atomic_load(&v->n_port) },
            { "mmio-exits", "accesses to device memory", atomic_load(&v->n_mmio) },
            { "kicks", "times it was called out of guest code", atomic_load(&v->n_kick) },
        };
        for (unsigned j = 0; j < ARRAY_LEN(row); j++) {
            buf_printf(out, "cpu%u.%s %" PRIu64 " %s\n", i, row[j].name, row[j].value,
                       row[j].meaning);
        }
    }
}

const struct engine_ops kvm_engine_ops = {
    .name = "kvm",
    .vm_init = kvm_vm_init,
    .vm_done = kvm_vm_done,
    .vcpu_init = kvm_vcpu_init,
    .vcpu_done = kvm_vcpu_done,
    .vcpu_thread = kvm_vcpu_thread,
    .mem_commit = kvm_mem_commit,
    .mem_dirty = kvm_mem_dirty,
    .run = kvm_run_vcpu,
    .kick = kvm_kick,
    .irq = kvm_irq,
    .regs_put = kvm_regs_put,
    .regs_get = kvm_regs_get,
    .msi = kvm_msi,
    .level_pins = kvm_level_pins,
    .bells = kvm_bells_commit,
    .debug_translate = kvm_debug_translate,
    .debug_breakpoints = kvm_debug_breakpoints,
    .debug_step = kvm_debug_step,
    .stats = kvm_stats,
};

const unsigned long kvm_requests[] = {
    KVM_RUN,
    KVM_SET_USER_MEMORY_REGION,
    KVM_GET_DIRTY_LOG,
    KVM_SIGNAL_MSI,
    KVM_IOEVENTFD,
    KVM_TRANSLATE,
    KVM_SET_GUEST_DEBUG,
    KVM_GET_MP_STATE,
    KVM_SET_MP_STATE,
    KVM_GET_REGS,
    KVM_SET_REGS,
#ifdef __x86_64__
    KVM_GET_SREGS,
    KVM_SET_SREGS,
    KVM_GET_MSRS,
    KVM_SET_MSRS,
    KVM_GET_XSAVE,
    KVM_SET_XSAVE,
    KVM_GET_XCRS,
    KVM_SET_XCRS,
    KVM_GET_DEBUGREGS,
    KVM_SET_DEBUGREGS,
    KVM_GET_VCPU_EVENTS,
    KVM_SET_VCPU_EVENTS,
    KVM_GET_LAPIC,
    KVM_SET_LAPIC,
    KVM_INTERRUPT,
    KVM_NMI,
    KVM_SET_GSI_ROUTING,
#endif
};
const unsigned kvm_n_requests = ARRAY_LEN(kvm_requests);
