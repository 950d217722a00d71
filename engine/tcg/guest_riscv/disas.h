/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Text of RISC-V instructions, for logs and debuggers. Holds no state; any thread may call.
 */
#ifndef VMD_TCG_GUEST_RISCV_DISAS_H
#define VMD_TCG_GUEST_RISCV_DISAS_H

#include <stddef.h>
#include <stdint.h>

/*
 * Writes the instruction in the low bits of `bits` (all 32 given, although it may be a
 * compressed one) at pc into buf: canonical mnemonics, no pseudo-instructions, every supported
 * extension taken as present. xlen is 32 or 64. The text is cut to n bytes and terminated
 * (n > 0). What is no instruction becomes ".4byte 0x..." or ".2byte 0x...".
 * Returns the length in bytes: 2 or 4.
 */
unsigned riscv_disas(uint64_t pc, uint32_t bits, unsigned xlen, char *buf, size_t n);

#endif
