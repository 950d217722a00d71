/* SPDX-License-Identifier: Apache-2.0 */
/*
 * KVM on x86-64 hosts: registers to and from engine/arch/x86, CPUID, local APICs (in the kernel, split mode: I/O APIC, PIC and PIT are
 * device classes), debugging. Threads as in internal.h.
 */
#if defined(__x86_64__)
#include "engine/kvm/internal.h"

#include "engine/arch/x86/cpu.h"
#include "engine/base/log.h"
#include "engine/base/mem.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define IOAPIC_PINS 24
/* Three pages and one that the kernel takes of guest physical memory on processors that need them; below the local APIC, where no board puts anything. */
#define TSS_ADDRESS 0xfeffd000
#define IDENTITY_ADDRESS 0xfeffc000
#define HW_BREAKPOINTS 4
#define MSRS_MAX 64

struct x86_vm {
    struct kvm_msr_list *msrs; /* that KVM knows */
    struct kvm_cpuid2 *cpuid;  /* that KVM offers */
};

static unsigned long vm_type(int dev_fd)
{
    (void)dev_fd;
    return 0;
}

static int check(int dev_fd, struct err *e)
{
    static const struct {
        int cap;
        const char *what;
    } needed[] = {
        { KVM_CAP_SPLIT_IRQCHIP, "split interrupt controller" },
        { KVM_CAP_XSAVE, "XSAVE" },
        { KVM_CAP_XCRS, "XCR0" },
        { KVM_CAP_VCPU_EVENTS, "vCPU events" },
        { KVM_CAP_DEBUGREGS, "debug registers" },
    };
    for (unsigned i = 0; i < ARRAY_LEN(needed); i++) {
        if (kvm_call(dev_fd, KVM_CHECK_EXTENSION, (void *)(uintptr_t)needed[i].cap) <= 0) {
            return err_set(e, -ENOTSUP, "engine kvm: the host's kernel gives guests no %s",
                           needed[i].what);
        }
    }
    return 0;
}

/* ---- VM ---- */

static int get_lists(struct kvm_vm *k, struct x86_vm *x, struct err *e)
{
    struct kvm_msr_list probe = { .nmsrs = 0 };
    (void)kvm_call(k->dev_fd, KVM_GET_MSR_INDEX_LIST, &probe); /* E2BIG, and says how many */
    if (probe.nmsrs > 4096) {
        return err_set(e, -ENOTSUP, "engine kvm: %u MSRs are more than is sane", probe.nmsrs);
    }
    x->msrs = xalloc(sizeof(*x->msrs) + probe.nmsrs * sizeof(uint32_t));
    x->msrs->nmsrs = probe.nmsrs;
    x->cpuid = xalloc(sizeof(*x->cpuid) + X86_CPUID_MAX * sizeof(x->cpuid->entries[0]));
    x->cpuid->nent = X86_CPUID_MAX;
    if (kvm_call(k->dev_fd, KVM_GET_MSR_INDEX_LIST, x->msrs) != 0) {
        return err_errno(e, errno, "engine kvm: its MSRs");
    }
    if (kvm_call(k->dev_fd, KVM_GET_SUPPORTED_CPUID, x->cpuid) != 0) {
        return err_errno(e, errno, "engine kvm: its CPUID");
    }
    if (kvm_call(k->dev_fd, KVM_CHECK_EXTENSION,
                 (void *)(uintptr_t)KVM_CAP_TSC_DEADLINE_TIMER) > 0) {
        for (unsigned i = 0; i < x->cpuid->nent; i++) { /* the APIC's, so CPUID does not tell */
            x->cpuid->entries[i].ecx |= x->cpuid->entries[i].function == 1 ? 1u << 24 : 0;
        }
    }
    return 0;
}

static int vm_init(struct vm *vm, struct err *e)
{
    struct kvm_vm *k = vm->engine_data;
    struct x86_vm *x = xnew(struct x86_vm);
    uint64_t identity = IDENTITY_ADDRESS;
    struct kvm_enable_cap split = { .cap = KVM_CAP_SPLIT_IRQCHIP, .args = { IOAPIC_PINS } };
    k->arch = x;
    int rc = get_lists(k, x, e);
    if (rc < 0) {
        return rc;
    }
    if (kvm_call(k->fd, KVM_SET_IDENTITY_MAP_ADDR, &identity) != 0 ||
        kvm_call(k->fd, KVM_SET_TSS_ADDR, (void *)(uintptr_t)TSS_ADDRESS) != 0) {
        return err_errno(e, errno, "engine kvm: pages for real mode");
    }
    if (kvm_call(k->fd, KVM_ENABLE_CAP, &split) != 0) {
        return err_errno(e, errno, "engine kvm: local APICs");
    }
    return 0;
}

static void vm_done(struct vm *vm)
{
    struct kvm_vm *k = vm->engine_data;
    struct x86_vm *x = k->arch;
    if (x) {
        free(x->msrs);
        free(x->cpuid);
        free(x);
    }
    k->arch = NULL;
}

static int vcpu_init(struct vcpu *c, struct err *e)
{
    struct kvm_vcpu *v = c->engine_data;
    const struct kvm_cpuid2 *from = ((const struct x86_vm *)v->vm->arch)->cpuid;
    struct x86_features *f = &((struct x86_cpu *)c->cpu)->offered;
    (void)e;
    f->n = from->nent < X86_CPUID_MAX ? from->nent : X86_CPUID_MAX;
    for (unsigned i = 0; i < f->n; i++) {
        const struct kvm_cpuid_entry2 *k = &from->entries[i];
        f->leaf[i] = (struct x86_cpuid){ .leaf = k->function,
                                         .sub = k->index,
                                         .has_sub = k->flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
                                         .reg = { k->eax, k->ebx, k->ecx, k->edx } };
    }
    return 0;
}

static int refused(struct vcpu *c, const char *what)
{
    log_error("kvm", "vCPU %u: KVM refuses %s: %s", c->index, what, strerror(errno));
    return -1;
}

static int put_cpuid(struct vcpu *c)
{
    struct kvm_vcpu *v = c->engine_data;
    const struct x86_features *f = &((const struct x86_cpu *)c->cpu)->features;
    struct kvm_cpuid2 *to = xalloc(sizeof(*to) + X86_CPUID_MAX * sizeof(to->entries[0]));
    to->nent = f->n;
    for (unsigned i = 0; i < f->n; i++) {
        const struct x86_cpuid *l = &f->leaf[i];
        to->entries[i] = (struct kvm_cpuid_entry2){
            .function = l->leaf,
            .index = l->sub,
            .flags = l->has_sub ? KVM_CPUID_FLAG_SIGNIFCANT_INDEX : 0,
            .eax = l->reg[0],
            .ebx = l->reg[1],
            .ecx = l->reg[2],
            .edx = l->reg[3]
        };
    }
    int rc = kvm_call(v->fd, KVM_SET_CPUID2, to);
    free(to);
    return rc == 0 ? 0 : refused(c, "the CPU model");
}

/* On the vCPU's thread, before its sandbox closes: what a VM says once. */
static void thread_start(struct vcpu *c)
{
    if (put_cpuid(c) != 0) {
        vm_request(c->vm, VM_REQ_CRASH, "crash: the engine failed");
    }
}

/* ---- general registers ---- */

/* kvm_regs has its own order of the first eight. */
#define GPRS(M)                                                                                \
    M(rax, X86_RAX)                                                                            \
    M(rbx, X86_RBX)                                                                            \
    M(rcx, X86_RCX)                                                                            \
    M(rdx, X86_RDX)                                                                            \
    M(rsi, X86_RSI)                                                                            \
    M(rdi, X86_RDI)                                                                            \
    M(rsp, X86_RSP)                                                                            \
    M(rbp, X86_RBP)                                                                            \
    M(r8, 8)                                                                                   \
    M(r9, 9)                                                                                   \
    M(r10, 10)                                                                                 \
    M(r11, 11)                                                                                 \
    M(r12, 12)                                                                                 \
    M(r13, 13)                                                                                 \
    M(r14, 14)                                                                                 \
    M(r15, 15)

static int put_regs(struct vcpu *c)
{
    const struct x86_cpu *x = c->cpu;
    struct kvm_regs r = { .rip = x->rip, .rflags = x->rflags };
#define PUT(name, n) r.name = x->gpr[n];
    GPRS(PUT)
#undef PUT
    return kvm_call(((struct kvm_vcpu *)c->engine_data)->fd, KVM_SET_REGS, &r) == 0
               ? 0
               : refused(c, "registers");
}

static int get_regs(struct vcpu *c)
{
    struct x86_cpu *x = c->cpu;
    struct kvm_regs r;
    if (kvm_call(((struct kvm_vcpu *)c->engine_data)->fd, KVM_GET_REGS, &r) != 0) {
        return refused(c, "to tell registers");
    }
#define GET(name, n) x->gpr[n] = r.name;
    GPRS(GET)
#undef GET
    x->rip = r.rip;
    x->rflags = r.rflags | 2;
    return 0;
}

/* ---- segments and control registers ---- */

#define SEGS(M)                                                                                \
    M(es, X86_ES)                                                                              \
    M(cs, X86_CS)                                                                              \
    M(ss, X86_SS)                                                                              \
    M(ds, X86_DS)                                                                              \
    M(fs, X86_FS)                                                                              \
    M(gs, X86_GS)                                                                              \
    M(ldt, X86_LDT)                                                                            \
    M(tr, X86_TR)

static struct kvm_segment to_segment(const struct x86_seg *s)
{
    return (struct kvm_segment){ .base = s->base,
                                 .limit = s->limit,
                                 .selector = s->selector,
                                 .type = s->attr & 15,
                                 .s = s->attr >> 4 & 1,
                                 .dpl = s->attr >> 5 & 3,
                                 .present = s->attr >> 7 & 1,
                                 .avl = s->attr >> 12 & 1,
                                 .l = s->attr >> 13 & 1,
                                 .db = s->attr >> 14 & 1,
                                 .g = s->attr >> 15 & 1,
                                 .unusable = s->attr >> 16 & 1 };
}

static struct x86_seg from_segment(const struct kvm_segment *s)
{
    return (struct x86_seg){ .base = s->base,
                             .limit = s->limit,
                             .selector = s->selector,
                             .attr = (uint32_t)(s->type | s->s << 4 | s->dpl << 5 |
                                                s->present << 7 | s->avl << 12 | s->l << 13 |
                                                s->db << 14 | s->g << 15 | s->unusable << 16) };
}

static int put_sregs(struct vcpu *c)
{
    const struct x86_cpu *x = c->cpu;
    struct kvm_sregs r = { .gdt = { .base = x->gdt_base, .limit = x->gdt_limit },
                           .idt = { .base = x->idt_base, .limit = x->idt_limit },
                           .cr0 = x->cr0,
                           .cr2 = x->cr2,
                           .cr3 = x->cr3,
                           .cr4 = x->cr4,
                           .cr8 = x->cr8,
                           .efer = x->efer,
                           .apic_base = x->apic_base };
#define PUT(name, n) r.name = to_segment(&x->seg[n]);
    SEGS(PUT)
#undef PUT
    return kvm_call(((struct kvm_vcpu *)c->engine_data)->fd, KVM_SET_SREGS, &r) == 0
               ? 0
               : refused(c, "segments or control registers");
}

static int get_sregs(struct vcpu *c)
{
    struct x86_cpu *x = c->cpu;
    struct kvm_sregs r;
    if (kvm_call(((struct kvm_vcpu *)c->engine_data)->fd, KVM_GET_SREGS, &r) != 0) {
        return refused(c, "to tell segments");
    }
#define GET(name, n) x->seg[n] = from_segment(&r.name);
    SEGS(GET)
#undef GET
    x->gdt_base = r.gdt.base;
    x->gdt_limit = r.gdt.limit;
    x->idt_base = r.idt.base;
    x->idt_limit = r.idt.limit;
    x->cr0 = r.cr0;
    x->cr2 = r.cr2;
    x->cr3 = r.cr3;
    x->cr4 = r.cr4;
    x->cr8 = r.cr8;
    x->efer = r.efer;
    x->apic_base = r.apic_base;
    return 0;
}

/* ---- model-specific registers ---- */

static const struct msr {
    uint32_t number;
    uint32_t offset;
} msrs[] = {
#define MSR(name, number, doc) { number, offsetof(struct x86_cpu, name) },
    X86_MSRS(MSR)
#undef MSR
};
_Static_assert(ARRAY_LEN(msrs) <= MSRS_MAX, "one call takes them all");

/* head.entries has room for MSRS_MAX. */
union msr_call {
    struct kvm_msrs head;
    uint8_t room[sizeof(struct kvm_msrs) + MSRS_MAX * sizeof(struct kvm_msr_entry)];
};

static bool known(const struct kvm_vcpu *v, uint32_t number)
{
    const struct x86_vm *x = v->vm->arch;
    for (uint32_t i = 0; i < x->msrs->nmsrs; i++) {
        if (x->msrs->indices[i] == number) {
            return true;
        }
    }
    return false;
}

/* Rows of msrs[] that KVM has, into call and row[]. */
static unsigned collect(const struct kvm_vcpu *v, union msr_call *call, unsigned *row)
{
    unsigned n = 0;
    for (unsigned i = 0; i < ARRAY_LEN(msrs); i++) {
        if (known(v, msrs[i].number)) {
            call->head.entries[n].index = msrs[i].number;
            call->head.entries[n].data = *(const uint64_t *)((const char *)v->cpu +
                                                             msrs[i].offset);
            row[n++] = i;
        }
    }
    call->head.nmsrs = n;
    return n;
}

static int put_msrs(struct vcpu *c)
{
    struct kvm_vcpu *v = c->engine_data;
    union msr_call call = { .room = { 0 } };
    unsigned row[MSRS_MAX], n = collect(v, &call, row);
    int done = kvm_call(v->fd, KVM_SET_MSRS, &call);
    if (done == (int)n) {
        return 0;
    }
    log_error("kvm", "vCPU %u: KVM refuses MSR 0x%x = 0x%llx", c->index,
              call.head.entries[done < 0 ? 0 : done].index,
              (unsigned long long)call.head.entries[done < 0 ? 0 : done].data);
    return -1;
}

static int get_msrs(struct vcpu *c)
{
    struct kvm_vcpu *v = c->engine_data;
    union msr_call call = { .room = { 0 } };
    unsigned row[MSRS_MAX], n = collect(v, &call, row);
    if (kvm_call(v->fd, KVM_GET_MSRS, &call) != (int)n) {
        return refused(c, "to tell MSRs");
    }
    for (unsigned i = 0; i < n; i++) {
        *(uint64_t *)((char *)c->cpu + msrs[row[i]].offset) = call.head.entries[i].data;
    }
    return 0;
}

/* ---- state components, debug registers, APIC, what is under way ---- */

static int put_rest(struct vcpu *c)
{
    const struct x86_cpu *x = c->cpu;
    const struct x86_events *ev = &x->events;
    int fd = ((struct kvm_vcpu *)c->engine_data)->fd;
    struct kvm_xcrs xcr = { .nr_xcrs = 1, .xcrs = { { .xcr = 0, .value = x->xcr0 } } };
    struct kvm_debugregs dr = { .db = { x->dr[0], x->dr[1], x->dr[2], x->dr[3] },
                                .dr6 = x->dr6,
                                .dr7 = x->dr7 };
    struct kvm_vcpu_events e = {
        .exception = { .injected = ev->exception_injected || ev->exception_pending,
                       .nr = ev->exception_vector,
                       .has_error_code = ev->exception_has_error,
                       .error_code = ev->exception_error },
        .interrupt = { .injected = ev->interrupt_injected,
                       .nr = ev->interrupt_vector,
                       .soft = ev->interrupt_soft,
                       .shadow = ev->shadow },
        .nmi = { .injected = ev->nmi_injected,
                 .pending = ev->nmi_pending,
                 .masked = ev->nmi_masked },
        .sipi_vector = ev->sipi_vector,
        .flags = KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SIPI_VECTOR |
                 KVM_VCPUEVENT_VALID_SHADOW,
    };
    static const uint32_t activity[] = { KVM_MP_STATE_RUNNABLE, KVM_MP_STATE_UNINITIALIZED,
                                         KVM_MP_STATE_HALTED, KVM_MP_STATE_INIT_RECEIVED,
                                         KVM_MP_STATE_SIPI_RECEIVED };
    struct kvm_mp_state mp = {
        .mp_state = activity[x->activity < X86_ACTIVITIES ? x->activity : 0]
    };
    struct kvm_xsave xsave;
    struct kvm_lapic_state apic;
    memcpy(&xsave, x->xsave, sizeof(x->xsave));
    memcpy(&apic, x->apic, sizeof(x->apic));
    return kvm_call(fd, KVM_SET_XCRS, &xcr) != 0      ? refused(c, "XCR0")
           : kvm_call(fd, KVM_SET_XSAVE, &xsave) != 0 ? refused(c, "state components")
           : kvm_call(fd, KVM_SET_LAPIC, &apic) != 0  ? refused(c, "the local APIC")
           : put_msrs(c) != 0 ? -1 /* the APIC's deadline comes after its mode */
           : kvm_call(fd, KVM_SET_MP_STATE, &mp) != 0   ? refused(c, "the activity")
           : kvm_call(fd, KVM_SET_VCPU_EVENTS, &e) != 0 ? refused(c, "events")
           : kvm_call(fd, KVM_SET_DEBUGREGS, &dr) != 0  ? refused(c, "debug registers")
                                                        : 0;
}

static void get_events(struct x86_events *ev, const struct kvm_vcpu_events *e)
{
    *ev = (struct x86_events){
        .exception_injected = e->exception.injected,
        .exception_vector = e->exception.nr,
        .exception_has_error = e->exception.has_error_code,
        .exception_error = e->exception.error_code,
        .interrupt_injected = e->interrupt.injected,
        .interrupt_vector = e->interrupt.nr,
        .interrupt_soft = e->interrupt.soft,
        .shadow = e->interrupt.shadow,
        .nmi_injected = e->nmi.injected,
        .nmi_pending = e->nmi.pending,
        .nmi_masked = e->nmi.masked,
        .sipi_vector = (uint8_t)e->sipi_vector,
    };
}

static uint8_t activity_of(uint32_t mp)
{
    return mp == KVM_MP_STATE_UNINITIALIZED   ? X86_WAITS_FOR_SIPI
           : mp == KVM_MP_STATE_HALTED        ? X86_HALTED
           : mp == KVM_MP_STATE_INIT_RECEIVED ? X86_GOT_INIT
           : mp == KVM_MP_STATE_SIPI_RECEIVED ? X86_GOT_SIPI
                                              : X86_RUNS;
}

static int get_rest(struct vcpu *c)
{
    struct x86_cpu *x = c->cpu;
    int fd = ((struct kvm_vcpu *)c->engine_data)->fd;
    struct kvm_xcrs xcr = { .nr_xcrs = 0 };
    struct kvm_debugregs dr = { .dr6 = 0 };
    struct kvm_vcpu_events e = { .flags = 0 };
    struct kvm_mp_state mp = { .mp_state = 0 };
    struct kvm_xsave xsave;
    struct kvm_lapic_state apic;
    /* The activity first: asking for it makes the kernel take up an INIT or start-up IPI that waits. */
    if (kvm_call(fd, KVM_GET_MP_STATE, &mp) != 0 || kvm_call(fd, KVM_GET_XCRS, &xcr) != 0 ||
        kvm_call(fd, KVM_GET_XSAVE, &xsave) != 0 || kvm_call(fd, KVM_GET_LAPIC, &apic) != 0 ||
        kvm_call(fd, KVM_GET_VCPU_EVENTS, &e) != 0 ||
        kvm_call(fd, KVM_GET_DEBUGREGS, &dr) != 0) {
        return refused(c, "to tell its state");
    }
    x->activity = activity_of(mp.mp_state);
    x->xcr0 = xcr.nr_xcrs ? xcr.xcrs[0].value : 1;
    memcpy(x->xsave, &xsave, sizeof(x->xsave));
    memcpy(x->apic, &apic, sizeof(x->apic));
    get_events(&x->events, &e);
    memcpy(x->dr, dr.db, sizeof(x->dr));
    x->dr6 = dr.dr6;
    x->dr7 = dr.dr7;
    return 0;
}

static int put(struct vcpu *c)
{
    int rc = put_sregs(c);
    rc = rc != 0 ? rc : put_regs(c);
    return rc != 0 ? rc : put_rest(c);
}

static int get(struct vcpu *c)
{
    int rc = get_rest(c); /* may deliver what waits, so first */
    rc = rc != 0 ? rc : get_regs(c);
    rc = rc != 0 ? rc : get_sregs(c);
    return rc != 0 ? rc : get_msrs(c);
}

/* ---- interrupts ---- */

static void before(struct vcpu *c)
{
    struct kvm_vcpu *v = c->engine_data;
    uint64_t level = atomic_load_explicit(&c->irq_level, memory_order_relaxed);
    v->run->request_interrupt_window = 0;
    if (!level) {
        return;
    }
    if (level & 1ull << X86_IRQ_NMI &&
        atomic_fetch_and(&c->irq_level, ~(1ull << X86_IRQ_NMI)) & 1ull << X86_IRQ_NMI) {
        (void)kvm_call(v->fd, KVM_NMI, NULL);
    }
    if (level & 1ull << X86_IRQ_EXTINT && c->vm->extint.ack) {
        int vector = v->run->ready_for_interrupt_injection
                         ? c->vm->extint.ack(c->vm->extint.opaque)
                         : -1;
        struct kvm_interrupt i = { .irq = (uint32_t)vector };
        if (vector >= 0) {
            (void)kvm_call(v->fd, KVM_INTERRUPT, &i);
        }
        v->run->request_interrupt_window = vector < 0;
    }
}

static void msi(struct vm *vm, uint64_t address, uint32_t data)
{
    struct kvm_msi m = { .address_lo = (uint32_t)address,
                         .address_hi = (uint32_t)(address >> 32),
                         .data = data };
    (void)kvm_call(((struct kvm_vm *)vm->engine_data)->fd, KVM_SIGNAL_MSI,
                   &m); /* to nobody: lost, as on the bus */
}

/* In split mode the kernel looks at the routes of the I/O APIC's pins for vectors whose EOI is an exit. They lead nothing in. */
static void level_pins(struct vm *vm, const struct irq_message *pin, unsigned n)
{
    struct {
        struct kvm_irq_routing head;
        struct kvm_irq_routing_entry pin[IOAPIC_PINS];
    } table = { .head = { .nr = 0 } };

    for (unsigned i = 0; i < n && i < IOAPIC_PINS; i++) {
        if (pin[i].address) {
            table.pin[table.head.nr++] = (struct kvm_irq_routing_entry){
                .gsi = i,
                .type = KVM_IRQ_ROUTING_MSI,
                .u.msi = { .address_lo = (uint32_t)pin[i].address,
                           .address_hi = (uint32_t)(pin[i].address >> 32),
                           .data = pin[i].data }
            };
        }
    }
    if (kvm_call(((struct kvm_vm *)vm->engine_data)->fd, KVM_SET_GSI_ROUTING, &table) != 0) {
        log_error("kvm", "KVM refuses routes of interrupts: %s", strerror(errno));
        vm_request(vm, VM_REQ_CRASH, "crash: the engine failed");
    }
}

static bool on_exit_x86(struct vcpu *c, int *why)
{
    const struct kvm_vcpu *v = c->engine_data;
    (void)why;
    switch (v->run->exit_reason) {
    case KVM_EXIT_SET_TPR:
        return true;
    case KVM_EXIT_IOAPIC_EOI:
        if (c->vm->extint.eoi) {
            c->vm->extint.eoi(c->vm->extint.opaque, v->run->eoi.vector);
        }
        return true;
    default:
        return false;
    }
}

/* ---- debugging ---- */

static bool at_breakpoint(struct vcpu *c)
{
    const struct kvm_vcpu *v = c->engine_data;
    struct kvm_regs r;
    struct kvm_sregs s;
    if (kvm_call(v->fd, KVM_GET_REGS, &r) != 0 || kvm_call(v->fd, KVM_GET_SREGS, &s) != 0) {
        return false;
    }
    for (unsigned i = 0; i < v->vm->n_breakpoints; i++) {
        if (v->vm->breakpoint[i] == s.cs.base + r.rip) {
            return true;
        }
    }
    return false;
}

/* The processor's own breakpoints where they are enough; else it steps and run() compares. */
static int debug(struct vcpu *c)
{
    const struct kvm_vcpu *v = c->engine_data;
    const struct kvm_vm *k = v->vm;
    struct kvm_guest_debug g = { .control = 0 };
    if (v->step || k->n_breakpoints > HW_BREAKPOINTS) {
        g.control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP;
    } else if (k->n_breakpoints) {
        g.control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_HW_BP;
        g.arch.debugreg[7] = 0x600;
        for (unsigned i = 0; i < k->n_breakpoints; i++) {
            g.arch.debugreg[i] = k->breakpoint[i];
            g.arch.debugreg[7] |= 2ull << i * 2;
        }
    }
    return kvm_call(v->fd, KVM_SET_GUEST_DEBUG, &g) == 0 ? 0 : refused(c, "to be debugged");
}

extern const struct kvm_arch kvm_arch_x86;
const struct kvm_arch kvm_arch_x86 = {
    .name = "x86_64",
    .type = vm_type,
    .check = check,
    .vm_init = vm_init,
    .vm_done = vm_done,
    .vcpu_init = vcpu_init,
    .thread_start = thread_start,
    .put = put,
    .get = get,
    .exit = on_exit_x86,
    .before = before,
    .at_breakpoint = at_breakpoint,
    .debug = debug,
    .msi = msi,
    .level_pins = level_pins,
};
#else
typedef int kvm_not_this_host; /* a file without a declaration is no C */
#endif
