/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a RISC-V hart may have: one table of extensions, from which come CPU models, misa,
 * the ISA string of the device tree and the checks of the translator. Constant data, any
 * thread.
 */
#ifndef VMD_ARCH_RISCV_FEATURES_H
#define VMD_ARCH_RISCV_FEATURES_H

#include "engine/base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Bits of riscv_cpu.features; the number is internal and never leaves the process (snapshots
 * carry names). */
enum riscv_feature {
    RISCV_EXT_I,
    RISCV_EXT_M,
    RISCV_EXT_A,
    RISCV_EXT_F,
    RISCV_EXT_D,
    RISCV_EXT_C,
    RISCV_EXT_S,
    RISCV_EXT_U,
    RISCV_EXT_ZICNTR,
    RISCV_EXT_ZICSR,
    RISCV_EXT_ZIFENCEI,
    RISCV_EXT_ZBA,
    RISCV_EXT_ZBB,
    RISCV_EXT_ZBS,
    RISCV_EXT_SSTC,
    RISCV_EXT_SVADU,
    RISCV_EXT_SVVPTC,
    RISCV_EXT_SV39, /* address translation modes; RV32 has Sv32 in their place */
    RISCV_EXT_SV48,
    RISCV_EXT_SV57,
    RISCV_EXT_COUNT
};
#define RISCV_HAS(features, ext) (((features) >> (ext)) & 1)

enum { RISCV_RV32 = 1, RISCV_RV64 = 2 };

struct riscv_ext {
    const char *name; /* as written in CPU models and ISA strings: "zba" */
    enum riscv_feature bit;
    uint8_t xlens;  /* RISCV_RV32 | RISCV_RV64 */
    bool in_isa;    /* appears in the ISA string (s, u and the paging modes do not) */
    bool fixed;     /* cannot be switched off */
    uint64_t needs; /* feature bits without which it cannot be on */
    const char *doc;
};

/* RISCV_EXT_COUNT rows, in the order of the ISA string. */
extern const struct riscv_ext riscv_exts[RISCV_EXT_COUNT];

/* Features of a CPU model: "max" (everything for the width), "rv64" or "rv32" (the same, but
 * the width must match), followed by any number of ",ext=on" and ",ext=off". xlen is 32 or
 * 64. Errors name the word and list what is known. */
int riscv_features_parse(const char *model, unsigned xlen, uint64_t *features, struct err *e);
/* misa for these features (MXL included). */
uint64_t riscv_misa(uint64_t features, unsigned xlen);
/* The ISA string; always terminated, cut when n is too small (256 is enough). */
void riscv_isa_format(uint64_t features, unsigned xlen, char *out, size_t n);
/* "riscv,sv57" and so on, for the device tree's mmu-type. */
const char *riscv_mmu_type(uint64_t features, unsigned xlen);

#endif
