/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The RISC-V guest as the translator knows it (trans.c). Constant; any thread.
 */
#ifndef VMD_TCG_GUEST_RISCV_GUEST_H
#define VMD_TCG_GUEST_RISCV_GUEST_H

struct tcg_guest;

/* Both widths from the same code: tcg_mode.code tells which a block is for. */
extern const struct tcg_guest riscv64_guest, riscv32_guest;

#endif
