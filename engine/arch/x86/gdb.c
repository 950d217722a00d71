/* SPDX-License-Identifier: Apache-2.0 */
/*
 * x86-64 registers for GDB and for ELF cores. GDB is told the architecture alone and so takes its own numbering (rax, rbx, rcx,
 * rdx, rsi, rdi, rbp, rsp, r8 to r15, rip, eflags, cs, ss, ds, es, fs, gs); an ELF core has Linux's struct elf_prstatus (psABI, AMD64). Main thread, vCPU
 * at the barrier.
 */
#include "engine/arch/x86/gdb.h"

#include "engine/arch/x86/cpu.h"
#include "engine/base/buf.h"
#include "engine/base/mem.h"
#include "engine/core/core_image.h"
#include "engine/core/vcpu.h"

#include <elf.h>
#include <string.h>

#define REG_RIP 16
#define REG_EFLAGS 17
#define REG_SEG 18
#define REGS 24

static const uint8_t gpr[16] = { X86_RAX, X86_RBX, X86_RCX, X86_RDX, X86_RSI, X86_RDI,
                                 X86_RBP, X86_RSP, 8,       9,       10,      11,
                                 12,      13,      14,      15 };
static const uint8_t segs[6] = { X86_CS, X86_SS, X86_DS, X86_ES, X86_FS, X86_GS };

static unsigned reg_size(struct vcpu *v, unsigned n)
{
    (void)v;
    return n <= REG_RIP ? 8 : n < REGS ? 4 : 0;
}

static uint64_t reg_get(struct vcpu *v, unsigned n)
{
    const struct x86_cpu *c = v->cpu;
    return n < REG_RIP       ? c->gpr[gpr[n]]
           : n == REG_RIP    ? c->rip
           : n == REG_EFLAGS ? c->rflags
                             : c->seg[segs[n - REG_SEG]].selector;
}

/* Selectors are the guest's to load: their hidden parts come from its tables. */
static bool reg_put(struct vcpu *v, unsigned n, uint64_t value)
{
    struct x86_cpu *c = v->cpu;
    if (n < REG_RIP) {
        c->gpr[gpr[n]] = value;
    } else if (n == REG_RIP) {
        c->rip = value;
    } else if (n == REG_EFLAGS) {
        c->rflags = (value & 0x3f7fd5) | 2;
    } else {
        return value == c->seg[segs[n - REG_SEG]].selector;
    }
    return true;
}

static void xml(struct vcpu *v, struct buf *b)
{
    (void)v;
    buf_add_str(b, "<?xml version=\"1.0\"?>\n<!DOCTYPE target SYSTEM \"gdb-target.dtd\">\n"
                   "<target>\n<architecture>i386:x86-64</architecture>\n</target>\n");
}

const struct gdb_arch x86_64_gdb = {
    .n_general = REGS, .size = reg_size, .get = reg_get, .put = reg_put, .xml = xml
};

static void put64(uint8_t *at, uint64_t v)
{
    for (unsigned i = 0; i < 8; i++) {
        at[i] = (uint8_t)(v >> 8 * i);
    }
}

void x86_64_core_notes(struct vcpu *v, struct buf *out)
{
    /* struct user_regs_struct: r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi orig_rax rip cs eflags rsp ss fs_base gs_base ds es
     * fs gs, at 112; the whole is 336 bytes, pid at 32. */
    static const uint8_t first[15] = { 15, 14, 13,      12,      X86_RBP, X86_RBX, 11,     10,
                                       9,  8,  X86_RAX, X86_RCX, X86_RDX, X86_RSI, X86_RDI };
    const struct x86_cpu *c = v->cpu;
    const struct x86_seg *s = c->seg;
    uint8_t status[336] = { 0 };
    const uint64_t rest[12] = { UINT64_MAX,         c->rip,
                                s[X86_CS].selector, c->rflags,
                                c->gpr[X86_RSP],    s[X86_SS].selector,
                                s[X86_FS].base,     s[X86_GS].base,
                                s[X86_DS].selector, s[X86_ES].selector,
                                s[X86_FS].selector, s[X86_GS].selector };
    put64(status + 32, v->index + 1);
    for (unsigned i = 0; i < ARRAY_LEN(first); i++) {
        put64(status + 112 + i * 8, c->gpr[first[i]]);
    }
    for (unsigned i = 0; i < ARRAY_LEN(rest); i++) {
        put64(status + 112 + (15 + i) * 8, rest[i]);
    }
    core_note(out, "CORE", NT_PRSTATUS, status, sizeof(status));
    core_note(out, "CORE", NT_FPREGSET, c->xsave, 512);
}
