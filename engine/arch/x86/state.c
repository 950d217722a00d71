/* SPDX-License-Identifier: Apache-2.0 */
/*
 * x86-64 for the core: the state table of a processor, reset, and where a kernel starts. Owns nothing.
 */
#include "engine/arch/x86/cpu.h"
#include "engine/arch/x86/gdb.h"
#include "engine/core/state.h"
#include "engine/core/vm.h"

#include <elf.h>
#include <errno.h>
#include <string.h>

/* ---- saved state ---- */

#define SEG(member, kind, doc) ST_FIELD(struct x86_seg, member, kind, 1, doc)
static const struct st_field seg_fields[] = {
    SEG(base, ST_U64, "linear address"),
    SEG(limit, ST_U32, "highest offset, in bytes"),
    SEG(attr, ST_U32, "type, S, DPL, P, AVL, L, D/B, G; bit 16: unusable"),
    SEG(selector, ST_U16, "selector"),
    ST_END,
};
static const struct st_table seg_table = { .name = "x86-segment",
                                           .version = 1,
                                           .fields = seg_fields };

#define EV(member, kind, doc) ST_FIELD(struct x86_events, member, kind, 1, doc)
static const struct st_field event_fields[] = {
    EV(exception_vector, ST_U8, "exception under way"),
    EV(exception_injected, ST_BOOL, "it is being delivered"),
    EV(exception_pending, ST_BOOL, "it waits"),
    EV(exception_has_error, ST_BOOL, "it has an error code"),
    EV(exception_error, ST_U32, "which"),
    EV(interrupt_injected, ST_BOOL, "an interrupt is being delivered"),
    EV(interrupt_soft, ST_BOOL, "by an instruction"),
    EV(interrupt_vector, ST_U8, "its vector"),
    EV(shadow, ST_U8, "interrupts held back for an instruction: 1 mov ss, 2 sti"),
    EV(nmi_injected, ST_BOOL, "an NMI is being delivered"),
    EV(nmi_pending, ST_BOOL, "one waits"),
    EV(nmi_masked, ST_BOOL, "till iret"),
    EV(sipi_vector, ST_U8, "page where a start-up IPI sends the processor"),
    ST_END,
};
static const struct st_table event_table = { .name = "x86-events",
                                             .version = 1,
                                             .fields = event_fields };

#define CPU(member, kind, doc) ST_FIELD(struct x86_cpu, member, kind, 1, doc)
#define CPU_N(member, kind, n, doc) ST_ARRAY(struct x86_cpu, member, kind, n, 1, doc)
#define CPU_MSR(member, number, doc) CPU(member, ST_U64, doc),
static const struct st_field fields[] = {
    CPU_N(gpr, ST_U64, X86_GPRS, "general registers, in the order of encodings"),
    CPU(rip, ST_U64, "instruction pointer"),
    CPU(rflags, ST_U64, "flags"),
    { .name = "seg",
      .kind = ST_STRUCT,
      .offset = offsetof(struct x86_cpu, seg),
      .count = X86_SEGS,
      .stride = sizeof(struct x86_seg),
      .since = 1,
      .table = &seg_table,
      .doc = "es, cs, ss, ds, fs, gs, ldtr, tr" },
    CPU(gdt_base, ST_U64, "global descriptor table"),
    CPU(gdt_limit, ST_U16, "its highest offset"),
    CPU(idt_base, ST_U64, "interrupt descriptor table"),
    CPU(idt_limit, ST_U16, "its highest offset"),
    CPU(cr0, ST_U64, "control register 0"),
    CPU(cr2, ST_U64, "address of the last page fault"),
    CPU(cr3, ST_U64, "page table"),
    CPU(cr4, ST_U64, "control register 4"),
    CPU(cr8, ST_U64, "task priority"),
    CPU(efer, ST_U64, "extended features"),
    CPU(xcr0, ST_U64, "state components in use"),
    CPU_N(dr, ST_U64, 4, "breakpoint addresses"),
    CPU(dr6, ST_U64, "debug status"),
    CPU(dr7, ST_U64, "debug control"),
    CPU(apic_base, ST_U64, "place and mode of the local APIC"),
    X86_MSRS(CPU_MSR){ .name = "events",
                       .kind = ST_STRUCT,
                       .offset = offsetof(struct x86_cpu, events),
                       .count = 1,
                       .stride = sizeof(struct x86_events),
                       .since = 1,
                       .table = &event_table,
                       .doc = "what was under way" },
    CPU(activity, ST_U8,
        "0 runs, 1 waits for a start-up IPI, 2 halted, 3 got INIT, 4 got the IPI"),
    CPU_N(xsave, ST_BYTES, X86_XSAVE_SIZE, "XSAVE area, standard format"),
    CPU_N(apic, ST_BYTES, X86_APIC_SIZE, "local APIC, registers at their offsets"),
    ST_ARRAY(struct x86_cpu, cpuid, ST_U32, X86_WORDS, 2,
             "features that CPUID tells the guest"),
    ST_END,
};

/* A guest whose programs use what is not there dies of it later, and of nothing that says why. */
static int check_cpuid(struct x86_cpu *c, struct err *e)
{
    uint32_t want[X86_WORDS];
    struct err why = ERR_INIT;
    int rc;

    memcpy(want, c->cpuid, sizeof(want));
    x86_features_words(&c->features, c->cpuid);
    rc = x86_features_cover(c->cpuid, want, &why);
    return rc == 0 ? 0 : err_set(e, rc, "vCPU %u, cpuid: %s", c->vcpu->index, why.msg);
}

static int loaded(void *obj, struct err *e)
{
    struct x86_cpu *c = obj;
    if (c->activity >= X86_ACTIVITIES || !(c->rflags & 2) || c->cr0 >> 32 || c->dr6 >> 32 ||
        c->dr7 >> 32 || c->cr8 > 15) {
        return err_set(
            e, -EINVAL,
            "vCPU %u: activity, rflags, cr0, cr8, dr6 or dr7 hold an impossible value",
            c->vcpu->index);
    }
    return check_cpuid(c, e);
}

static const struct st_table state_table = {
    .name = "x86-cpu", .version = 2, .fields = fields, .loaded = loaded
};

/* ---- life ---- */

static int cpu_init(struct vcpu *v, const char *model, struct err *e)
{
    struct x86_cpu *c = v->cpu;
    c->vcpu = v;
    int rc = x86_features_make(model ? model : "", &c->offered, v->index, v->vm->n_vcpus_wanted,
                               &c->features, e);

    if (rc == 0) {
        x86_features_words(&c->features, c->cpuid);
    }
    return rc;
}

static void set_seg(struct x86_cpu *c, enum x86_seg_name n, uint16_t selector, uint64_t base,
                    uint32_t limit, uint32_t attr)
{
    c->seg[n] = (struct x86_seg){
        .selector = selector, .base = base, .limit = limit, .attr = attr
    };
}

static void put32(uint8_t *at, uint32_t v)
{
    for (unsigned i = 0; i < 4; i++) {
        at[i] = (uint8_t)(v >> 8 * i);
    }
}

/* SDM 3 §10.4.7.1: all masked, logical destinations unset, spurious vector 255. */
static void reset_apic(struct x86_cpu *c)
{
    put32(c->apic + 0x20, (uint32_t)c->vcpu->index << 24);
    put32(c->apic + 0x30, 5u << 16 | 0x14); /* version, highest LVT entry */
    put32(c->apic + 0xe0, UINT32_MAX);
    put32(c->apic + 0xf0, 0xff);
    for (unsigned lvt = 0x320; lvt <= 0x370; lvt += 0x10) {
        put32(c->apic + lvt, 1u << 16);
    }
    c->apic_base = X86_APIC_BASE | X86_APIC_BASE_ENABLE |
                   (c->vcpu->index == 0 ? X86_APIC_BASE_BSP : 0);
}

/* SDM 3 §9.1.1, power-up. */
static void cpu_reset(struct vcpu *v)
{
    struct x86_cpu *c = v->cpu;
    memset(c, 0, offsetof(struct x86_cpu, vcpu));
    c->rip = 0xfff0;
    c->rflags = 2;
    c->gpr[X86_RDX] = 0x600;
    c->cr0 = X86_CR0_ET | X86_CR0_NW | X86_CR0_CD;
    c->xcr0 = 1;
    c->dr6 = 0xffff0ff0;
    c->dr7 = 0x400;
    c->gdt_limit = c->idt_limit = 0xffff;
    for (unsigned i = X86_ES; i <= X86_GS; i++) {
        set_seg(c, i, 0, 0, 0xffff, X86_SEG_P | 0x13);
    }
    set_seg(c, X86_CS, 0xf000, 0xffff0000, 0xffff, X86_SEG_P | 0x1b);
    set_seg(c, X86_LDT, 0, 0, 0xffff, X86_SEG_P | 2);
    set_seg(c, X86_TR, 0, 0, 0xffff, X86_SEG_P | 11);
    c->pat = 0x0007040600070406;
    c->misc_enable = 1; /* fast strings */
    c->kvm_poll_control = 1;
    c->xsave[0] = 0x40; /* FCW after reset */
    put32(c->xsave + 24, 0x1f80);
    reset_apic(c);
    c->activity = v->index == 0 ? X86_RUNS : X86_WAITS_FOR_SIPI;
}

/* As a PVH kernel starts, and one of Linux's boot protocol: 32-bit protected mode, flat segments (the latter's selectors), no paging; arg0 in ebx, arg1 in esi.
 * The others wait for the first one's IPIs. */
static void cpu_boot(struct vcpu *v, uint64_t pc, uint64_t arg0, uint64_t arg1, uint64_t arg2)
{
    struct x86_cpu *c = v->cpu;
    (void)arg2;
    if (v->index != 0) {
        return;
    }
    for (unsigned i = X86_ES; i <= X86_GS; i++) {
        set_seg(c, i, 0x18, 0, UINT32_MAX, X86_SEG_P | X86_SEG_DB | X86_SEG_G | 0x13);
    }
    set_seg(c, X86_CS, 0x10, 0, UINT32_MAX, X86_SEG_P | X86_SEG_DB | X86_SEG_G | 0x1b);
    set_seg(c, X86_TR, 0, 0, 0x67, X86_SEG_P | 11);
    c->cr0 = X86_CR0_PE | X86_CR0_ET;
    c->rip = pc;
    c->gpr[X86_RBX] = arg0;
    c->gpr[X86_RSI] = arg1;
}

/* Engines whose local APICs are their own sleep themselves; others look at inputs. */
static bool cpu_has_work(struct vcpu *v)
{
    return atomic_load(&v->irq_level) != 0;
}

const struct arch_ops x86_64_arch = {
    .name = "x86_64",
    .cpu_size = sizeof(struct x86_cpu),
    .state = &state_table,
    .max_vcpus = 64,
    .gdb = &x86_64_gdb,
    .cpu_reset = cpu_reset,
    .cpu_init = cpu_init,
    .cpu_has_work = cpu_has_work,
    .cpu_boot = cpu_boot,
    .elf_machine = EM_X86_64,
    .elf64 = true,
    .core_notes = x86_64_core_notes,
};
