/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Vector crypto instructions as macros of the assembler, for assemblers that do not know them yet.
 * Registers are given as numbers. RISC-V cryptography extensions, volume II: vector.
 */
#ifndef BENCH_GUEST_VCRYPTO_H
#define BENCH_GUEST_VCRYPTO_H

__asm__(".macro vcrypto funct6, vd, vs2, vs1\n"
        "   .4byte 0x2002077 | \\funct6 << 26 | \\vs2 << 20 | \\vs1 << 15 | \\vd << 7\n"
        ".endm\n"
        ".macro vaesem_vs vd, vs2\n   vcrypto 0x29, \\vd, \\vs2, 2\n.endm\n"
        ".macro vaesef_vs vd, vs2\n   vcrypto 0x29, \\vd, \\vs2, 3\n.endm\n"
        ".macro vaesz_vs vd, vs2\n    vcrypto 0x29, \\vd, \\vs2, 7\n.endm\n"
        ".macro vghsh_vv vd, vs2, vs1\n   vcrypto 0x2c, \\vd, \\vs2, \\vs1\n.endm\n"
        ".macro vsha2ms_vv vd, vs2, vs1\n vcrypto 0x2d, \\vd, \\vs2, \\vs1\n.endm\n"
        ".macro vsha2ch_vv vd, vs2, vs1\n vcrypto 0x2e, \\vd, \\vs2, \\vs1\n.endm\n"
        ".macro vsha2cl_vv vd, vs2, vs1\n vcrypto 0x2f, \\vd, \\vs2, \\vs1\n.endm\n"
        ".macro vrev8_v vd, vs2\n"
        "   .4byte 0x4a04a057 | \\vs2 << 20 | \\vd << 7\n"
        ".endm\n");

#endif
