/* SPDX-License-Identifier: Apache-2.0 */
/* Text of RISC-V instructions: the generic disassembler over the generated tables. */
#include "engine/tcg/guest_riscv/disas.h"

#include "engine/tcg/guest_riscv/riscv_isa.h"

unsigned riscv_disas(uint64_t pc, uint32_t bits, unsigned xlen, char *buf, size_t n)
{
    isa_features features = ~(xlen == 32 ? RISCV_ISA_RV64 : RISCV_ISA_RV32);

    return isa_disas(&riscv_isa, pc, bits, features, xlen, buf, n);
}
