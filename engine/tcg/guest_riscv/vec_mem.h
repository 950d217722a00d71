/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The encoding of vector loads and stores (V 1.0, section 7). Pure functions of an instruction that the decoder has
 * accepted; any thread.
 */
#ifndef VMD_TCG_GUEST_RISCV_VEC_MEM_H
#define VMD_TCG_GUEST_RISCV_VEC_MEM_H

#include "engine/tcg/guest_riscv/vec.h"

static inline bool v_is_store(uint32_t insn)
{
    return (insn & 0x7f) == 0x27;
}
/* 0 unit stride, 1 and 3 indexed, 2 strided */
static inline unsigned v_mop(uint32_t insn)
{
    return insn >> 26 & 3;
}
/* Fields of a segment; registers of a whole-register access. */
static inline unsigned v_nf(uint32_t insn)
{
    return (insn >> 29) + 1;
}
static inline bool v_is_whole(uint32_t insn)
{
    return v_mop(insn) == 0 && v_vs2(insn) == 8;
}
static inline bool v_is_mask(uint32_t insn)
{
    return v_mop(insn) == 0 && v_vs2(insn) == 11;
}
static inline bool v_is_first_fault(uint32_t insn)
{
    return v_mop(insn) == 0 && v_vs2(insn) == 16;
}

/* May it run with this vtype? helper_v_mem.c */
bool v_mem_legal(const struct riscv_cpu *c, uint32_t insn, uint64_t vtype);

#endif
