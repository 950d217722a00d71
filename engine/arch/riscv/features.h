/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a RISC-V hart may have: one table of extensions (extensions.def), from which come CPU
 * models, misa, the ISA strings of the device tree and the checks of the translator. Constant
 * data, any thread.
 */
#ifndef VMD_ARCH_RISCV_FEATURES_H
#define VMD_ARCH_RISCV_FEATURES_H

#include "engine/base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Rows of the table: RISCV_EXT_I and so on. The number is internal and never leaves the process
 * (snapshots carry names). */
enum riscv_feature {
#define EXT(id, name, xlens, flags, profiles, needs, doc) RISCV_EXT_##id,
#include "engine/arch/riscv/extensions.def"
#undef EXT
    RISCV_EXT_COUNT
};

enum { RISCV_FEATURE_WORDS = (RISCV_EXT_COUNT + 63) / 64 };

/* What one hart has. */
struct riscv_features {
    uint64_t word[RISCV_FEATURE_WORDS];
    uint16_t vlen; /* bits of a vector register, 0 without vectors */
};

#define RISCV_HAS(features, ext) (((features).word[(ext) / 64] >> ((ext) % 64)) & 1)

static inline void riscv_features_set(struct riscv_features *f, enum riscv_feature ext, bool on)
{
    uint64_t bit = 1ull << (ext % 64);
    f->word[ext / 64] = on ? f->word[ext / 64] | bit : f->word[ext / 64] & ~bit;
}

enum { RISCV_RV32 = 1, RISCV_RV64 = 2 };

/* Bytes of a cache block, for cbo.* and the device tree. */
enum { RISCV_CACHE_BLOCK = 64 };

enum {
    RISCV_EXT_IN_ISA = 1,   /* named in the ISA string (s, u and the paging modes are not) */
    RISCV_EXT_FIXED = 2,    /* cannot be switched off */
    RISCV_EXT_READY = 4,    /* offered */
    RISCV_EXT_BY_NAME = 8,  /* offered, but not part of "max" */
    RISCV_EXT_DERIVED = 16, /* not switched: on when all that it needs is on */
    RISCV_EXT_GROUP = 32,   /* switches what it needs, and is on when all of that is */
    RISCV_EXT_MARK = 64,    /* adds nothing of its own: left out of short ISA strings */
};

struct riscv_ext {
    const char *name;  /* as written in CPU models and ISA strings: "zba" */
    uint8_t xlens;     /* RISCV_RV32 | RISCV_RV64 */
    uint8_t flags;     /* RISCV_EXT_IN_ISA ... */
    uint8_t profiles;  /* internal to features.c */
    const char *needs; /* names without which it cannot be on, separated by spaces */
    const char *doc;
};

/* RISCV_EXT_COUNT rows, in the order of the ISA string. */
extern const struct riscv_ext riscv_exts[RISCV_EXT_COUNT];

/* Row of the extension of this name (n bytes), RISCV_EXT_COUNT when there is none. */
unsigned riscv_ext_find(const char *name, size_t n);

/*
 * Features of a CPU model: "max" (everything for the width), "rv64" or "rv32" (the same, but
 * the width must match), a profile with what it demands and no more,
 * followed by any number of ",ext=on", ",ext=off" and ",vlen=BITS". Switching on brings what
 * the extension needs, switching off takes what needs it; words that contradict each other are
 * an error. xlen is 32 or 64. Errors name the word and what would do; *f is untouched then.
 */
int riscv_features_parse(const char *model, unsigned xlen, struct riscv_features *f,
                         struct err *e);
/* The i-th model name for this width, NULL behind the last. */
const char *riscv_model_name(unsigned i, unsigned xlen);
/* misa for these features (MXL included). */
uint64_t riscv_misa(const struct riscv_features *f, unsigned xlen);

enum { RISCV_ISA_MAX = 2048 };
/* The ISA string; always terminated, cut when n is too small (RISCV_ISA_MAX is enough). */
void riscv_isa_format(const struct riscv_features *f, unsigned xlen, char *out, size_t n);
/* The same without the names that add nothing, for the old property riscv,isa: firmware keeps it
 * in small buffers (U-Boot 2023.01 refuses to start with 512 bytes or more). */
enum { RISCV_ISA_SHORT_MAX = 511 };
void riscv_isa_format_short(const struct riscv_features *f, unsigned xlen, char *out, size_t n);
/* The same names as in riscv_isa_format() one after the other, each terminated, as a list of strings in the device tree
 * (riscv,isa-extensions). Returns the bytes used; RISCV_ISA_MAX is enough, what does not fit is
 * left out. */
size_t riscv_isa_list(const struct riscv_features *f, char *out, size_t n);
/* "riscv,sv57" and so on, for the device tree's mmu-type. */
const char *riscv_mmu_type(const struct riscv_features *f, unsigned xlen);

#endif
