/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Architectural state of an x86 processor in any of its modes (Intel SDM volume 3, AMD APM volume 2), with its local
 * APIC: what every engine fills and none adds to. Belongs to the vCPU's thread; see engine/core/vcpu.h.
 */
#ifndef VMD_ARCH_X86_CPU_H
#define VMD_ARCH_X86_CPU_H

#include "engine/arch/x86/features.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct vcpu;
struct arch_ops;

/* In the order of instruction encodings. */
enum { X86_RAX, X86_RCX, X86_RDX, X86_RBX, X86_RSP, X86_RBP, X86_RSI, X86_RDI, X86_GPRS = 16 };
enum x86_seg_name { X86_ES, X86_CS, X86_SS, X86_DS, X86_FS, X86_GS, X86_LDT, X86_TR, X86_SEGS };

/* A segment register with its hidden part. attr has the bits of a descriptor's second word from bit 8 on (type 3:0, S 4,
 * DPL 6:5, P 7, AVL 12, L 13, D/B 14, G 15), and X86_SEG_UNUSABLE after a null selector was loaded. */
struct x86_seg {
    uint64_t base;
    uint32_t limit; /* in bytes, whatever G says */
    uint32_t attr;
    uint16_t selector;
};
#define X86_SEG_P (1u << 7)
#define X86_SEG_L (1u << 13)
#define X86_SEG_DB (1u << 14)
#define X86_SEG_G (1u << 15)
#define X86_SEG_UNUSABLE (1u << 16)

#define X86_CR0_PE 1ull
#define X86_CR0_ET (1ull << 4)
#define X86_CR0_NW (1ull << 29)
#define X86_CR0_CD (1ull << 30)
#define X86_CR0_PG (1ull << 31)
#define X86_EFER_LME (1ull << 8)
#define X86_EFER_LMA (1ull << 10)
#define X86_APIC_BASE 0xfee00000ull
#define X86_APIC_BASE_BSP (1ull << 8)
#define X86_APIC_BASE_ENABLE (1ull << 11)

/* What a processor does that does not execute (SDM 3 §8.4). */
enum x86_activity {
    X86_RUNS,
    X86_WAITS_FOR_SIPI,
    X86_HALTED,
    X86_GOT_INIT,
    X86_GOT_SIPI,
    X86_ACTIVITIES
};

/* Interrupt inputs (bits of vcpu->irq_level). */
enum { X86_IRQ_EXTINT, X86_IRQ_NMI };

/* Model-specific registers that are plain values: one row each for state, engines and people. */
#define X86_MSRS(M)                                                                            \
    M(star, 0xc0000081, "targets of syscall, legacy")                                          \
    M(lstar, 0xc0000082, "target of syscall, 64-bit")                                          \
    M(cstar, 0xc0000083, "target of syscall, compatibility mode")                              \
    M(sfmask, 0xc0000084, "flags that syscall clears")                                         \
    M(kernel_gs_base, 0xc0000102, "what swapgs brings")                                        \
    M(tsc_aux, 0xc0000103, "what rdtscp and rdpid say")                                        \
    M(sysenter_cs, 0x174, "code segment of sysenter")                                          \
    M(sysenter_esp, 0x175, "stack of sysenter")                                                \
    M(sysenter_eip, 0x176, "target of sysenter")                                               \
    M(pat, 0x277, "page attribute table")                                                      \
    M(misc_enable, 0x1a0, "miscellaneous features")                                            \
    M(tsc, 0x10, "time-stamp counter")                                                         \
    M(tsc_adjust, 0x3b, "what was added to the time-stamp counter")                            \
    M(tsc_deadline, 0x6e0, "APIC timer's deadline")                                            \
    M(spec_ctrl, 0x48, "speculation control")                                                  \
    M(xss, 0xda0, "supervisor state components")                                               \
    M(kvmclock_wall, 0x4b564d00, "page of the wall clock")                                     \
    M(kvmclock_system, 0x4b564d01, "page of the system time")                                  \
    M(kvm_async_pf, 0x4b564d02, "page of asynchronous page faults")                            \
    M(kvm_steal_time, 0x4b564d03, "page of stolen time")                                       \
    M(kvm_pv_eoi, 0x4b564d04, "page of exit-less EOI")                                         \
    M(kvm_poll_control, 0x4b564d05, "polling before a halt")                                   \
    M(kvm_async_pf_int, 0x4b564d06, "vector of asynchronous page faults")

#define X86_XSAVE_SIZE 4096 /* standard format, up to AVX-512 and PKRU */
#define X86_APIC_SIZE 1024  /* registers at their offsets in the xAPIC page */

/* What was under way between two instructions. */
struct x86_events {
    uint8_t exception_vector;
    bool exception_injected, exception_pending, exception_has_error;
    uint32_t exception_error;
    bool interrupt_injected, interrupt_soft;
    uint8_t interrupt_vector;
    uint8_t shadow; /* 1: by mov ss, 2: by sti */
    bool nmi_injected, nmi_pending, nmi_masked;
    uint8_t sipi_vector;
};

struct x86_cpu {
    uint64_t gpr[X86_GPRS];
    uint64_t rip, rflags;
    struct x86_seg seg[X86_SEGS];
    uint64_t gdt_base, idt_base;
    uint16_t gdt_limit, idt_limit;
    uint64_t cr0, cr2, cr3, cr4, cr8, efer, xcr0;
    uint64_t dr[4], dr6, dr7;
    uint64_t apic_base;
#define X86_MSR_FIELD(name, number, doc) uint64_t name;
    X86_MSRS(X86_MSR_FIELD)
#undef X86_MSR_FIELD
    struct x86_events events;
    uint8_t activity; /* enum x86_activity */
    _Alignas(64) uint8_t xsave[X86_XSAVE_SIZE];
    uint8_t apic[X86_APIC_SIZE];

    /* From here on set by cpu_init, and no part of a reset. */
    struct vcpu *vcpu;
    struct x86_features features; /* what CPUID says */
    uint32_t cpuid[X86_WORDS];    /* of them what a state says; always of `features` */
    /* What the engine can give, filled by it before cpu_init. */
    struct x86_features offered;
};

extern const struct arch_ops x86_64_arch;

/* 64-bit code is what runs. */
static inline bool x86_in_64(const struct x86_cpu *c)
{
    return c->efer & X86_EFER_LMA && c->seg[X86_CS].attr & X86_SEG_L;
}

#endif
