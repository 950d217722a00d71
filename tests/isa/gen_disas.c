/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gen_disas XLEN: reads "pc bits" pairs in hexadecimal from standard input, writes the
 * disassembly of each on a line. Helper of gen_objdump.py.
 */
#include "engine/tcg/gen/isa.h"
#include "engine/tcg/guest_riscv/disas.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv)
{
    unsigned xlen = argc > 1 ? (unsigned)strtoul(argv[1], NULL, 10) : 64;
    uint64_t pc;
    uint32_t bits;

    while (scanf("%" SCNx64 " %" SCNx32, &pc, &bits) == 2) {
        char text[ISA_DISAS_MAX];

        riscv_disas(pc, bits, xlen, text, sizeof(text));
        puts(text);
    }
    return 0;
}
