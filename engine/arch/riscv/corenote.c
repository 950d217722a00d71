/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Notes of a hart in an ELF core: struct elf_prstatus and the floating-point registers as Linux for RISC-V lays them out
 * (psABI; the kernel's user_regs_struct: pc, then x1 to x31). Main thread, the hart at the barrier.
 */
#include "engine/arch/riscv/corenote.h"

#include "engine/arch/riscv/cpu.h"
#include "engine/core/core_image.h"
#include "engine/core/vcpu.h"

#include <elf.h>
#include <string.h>

static void put(uint8_t *at, uint64_t v, unsigned bytes)
{
    for (unsigned i = 0; i < bytes; i++) {
        at[i] = (uint8_t)(v >> 8 * i);
    }
}

void riscv_core_notes(struct vcpu *v, struct buf *out)
{
    const struct riscv_cpu *c = v->cpu;
    const unsigned word = c->xlen / 8;
    const size_t pid = word == 8 ? 32 : 24, regs = word == 8 ? 112 : 72;
    const size_t size = word == 8 ? 376 : 204;
    uint8_t status[376] = { 0 }, fp[33 * 8] = { 0 };

    put(status + pid, v->index + 1, 4); /* what debuggers tell threads apart by; 0 is none */
    put(status + regs, c->pc, word);
    for (unsigned i = 1; i < 32; i++) {
        put(status + regs + i * word, c->x[i], word);
    }
    core_note(out, "CORE", NT_PRSTATUS, status, size);
    for (unsigned i = 0; i < 32; i++) {
        put(fp + i * 8, c->f[i], 8);
    }
    put(fp + 32 * 8, (uint64_t)c->frm << 5 | c->fflags, 4);
    core_note(out, "CORE", NT_FPREGSET, fp, sizeof(fp));
}
