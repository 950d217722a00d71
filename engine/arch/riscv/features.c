/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The table of RISC-V extensions and what is made from it: CPU models, misa, ISA strings.
 * Constant data and pure functions, any thread.
 */
#include "engine/arch/riscv/features.h"
#include "engine/base/buf.h"
#include "engine/base/str.h"

#include <errno.h>
#include <string.h>

#define BOTH (RISCV_RV32 | RISCV_RV64)
#define F(x) (1ull << RISCV_EXT_##x)

/* In the order of the ISA string: single letters in the canonical order of the Unprivileged
 * manual §27, then Z by category, then S. */
const struct riscv_ext riscv_exts[RISCV_EXT_COUNT] = {
    { "i", RISCV_EXT_I, BOTH, true, true, 0, "base integer instructions" },
    { "m", RISCV_EXT_M, BOTH, true, false, 0, "multiplication and division" },
    { "a", RISCV_EXT_A, BOTH, true, false, 0, "atomics" },
    { "f", RISCV_EXT_F, BOTH, true, false, F(ZICSR), "single-precision floating point" },
    { "d", RISCV_EXT_D, BOTH, true, false, F(F), "double-precision floating point" },
    { "c", RISCV_EXT_C, BOTH, true, false, 0, "compressed instructions" },
    { "zicntr", RISCV_EXT_ZICNTR, BOTH, true, false, F(ZICSR),
      "cycle, time and instret counters" },
    { "zicsr", RISCV_EXT_ZICSR, BOTH, true, true, 0, "control and status registers" },
    { "zifencei", RISCV_EXT_ZIFENCEI, BOTH, true, true, 0, "fence.i" },
    { "zba", RISCV_EXT_ZBA, BOTH, true, false, 0, "address generation" },
    { "zbb", RISCV_EXT_ZBB, BOTH, true, false, 0, "basic bit manipulation" },
    { "zbs", RISCV_EXT_ZBS, BOTH, true, false, 0, "single-bit instructions" },
    { "sstc", RISCV_EXT_SSTC, BOTH, true, false, F(S) | F(ZICNTR), "supervisor timer compare" },
    { "svadu", RISCV_EXT_SVADU, BOTH, true, false, F(S), "hardware updates of A and D bits" },
    { "svvptc", RISCV_EXT_SVVPTC, BOTH, true, false, F(S),
      "new mappings need no fence (invalid entries are never cached)" },
    { "s", RISCV_EXT_S, BOTH, false, false, F(U), "supervisor mode and address translation" },
    { "u", RISCV_EXT_U, BOTH, false, false, 0, "user mode" },
    { "sv39", RISCV_EXT_SV39, RISCV_RV64, false, false, F(S), "39-bit virtual addresses" },
    { "sv48", RISCV_EXT_SV48, RISCV_RV64, false, false, F(SV39), "48-bit virtual addresses" },
    { "sv57", RISCV_EXT_SV57, RISCV_RV64, false, false, F(SV48), "57-bit virtual addresses" },
};

static const struct riscv_ext *find_ext(const char *name, unsigned xlen)
{
    for (size_t i = 0; i < RISCV_EXT_COUNT; i++) {
        if (strcmp(riscv_exts[i].name, name) == 0 &&
            (riscv_exts[i].xlens & (xlen == 32 ? RISCV_RV32 : RISCV_RV64))) {
            return &riscv_exts[i];
        }
    }
    return NULL;
}

static uint64_t all_features(unsigned xlen)
{
    uint64_t all = 0;
    for (size_t i = 0; i < RISCV_EXT_COUNT; i++) {
        if (riscv_exts[i].xlens & (xlen == 32 ? RISCV_RV32 : RISCV_RV64)) {
            all |= 1ull << riscv_exts[i].bit;
        }
    }
    return all;
}

static int unknown_ext(const char *word, unsigned xlen, struct err *e)
{
    AUTO_BUF names = BUF_INIT;
    for (size_t i = 0; i < RISCV_EXT_COUNT; i++) {
        if (find_ext(riscv_exts[i].name, xlen) && !riscv_exts[i].fixed) {
            buf_printf(&names, "%s%s", names.len ? ", " : "", riscv_exts[i].name);
        }
    }
    return err_set(e, -EINVAL, "rv%u has no extension '%s' to switch; it has: %s", xlen, word,
                   names.data);
}

/* One "ext=on" or "ext=off". */
static int apply_word(char *word, unsigned xlen, uint64_t *features, struct err *e)
{
    char *value = strchr(word, '=');
    bool on = value && strcmp(value, "=on") == 0;
    if (!on && !(value && strcmp(value, "=off") == 0)) {
        return err_set(e, -EINVAL,
                       "'%s' is no part of a CPU model: write extension=on or extension=off",
                       word);
    }
    *value = '\0';
    const struct riscv_ext *x = find_ext(word, xlen);
    if (!x) {
        return unknown_ext(word, xlen, e);
    }
    if (x->fixed && !on) {
        return err_set(e, -EINVAL, "extension '%s' cannot be switched off", word);
    }
    *features = on ? *features | (1ull << x->bit) : *features & ~(1ull << x->bit);
    return 0;
}

static const char *name_of(uint64_t bits)
{
    for (size_t i = 0; i < RISCV_EXT_COUNT; i++) {
        if (bits & (1ull << riscv_exts[i].bit)) {
            return riscv_exts[i].name;
        }
    }
    return "?";
}

static int check_needs(uint64_t features, unsigned xlen, struct err *e)
{
    for (size_t i = 0; i < RISCV_EXT_COUNT; i++) {
        const struct riscv_ext *x = &riscv_exts[i];
        uint64_t missing = x->needs & ~features;
        if (RISCV_HAS(features, x->bit) && missing) {
            return err_set(e, -EINVAL, "extension '%s' needs '%s': switch both off or both on",
                           x->name, name_of(missing));
        }
    }
    if (xlen == 64 && RISCV_HAS(features, RISCV_EXT_S) &&
        !RISCV_HAS(features, RISCV_EXT_SV39)) {
        return err_set(e, -EINVAL, "extension 's' needs 'sv39': switch both off or both on");
    }
    return 0;
}

int riscv_features_parse(const char *model, unsigned xlen, uint64_t *features, struct err *e)
{
    AUTO_FREE char *text = xstrdup(model);
    char *rest = text, *word = strsep(&rest, ",");
    const char *own = xlen == 32 ? "rv32" : "rv64";
    if (strcmp(word, "max") != 0 && strcmp(word, own) != 0) {
        return err_set(e, -EINVAL, "riscv%u has no CPU model '%s'; it has: max, %s", xlen, word,
                       own);
    }
    uint64_t f = all_features(xlen);
    while ((word = strsep(&rest, ","))) {
        int ret = apply_word(word, xlen, &f, e);
        if (ret < 0) {
            return ret;
        }
    }
    int ret = check_needs(f, xlen, e);
    if (ret == 0) {
        *features = f;
    }
    return ret;
}

uint64_t riscv_misa(uint64_t features, unsigned xlen)
{
    uint64_t misa = xlen == 32 ? 1ull << 30 : 2ull << 62;
    for (size_t i = 0; i < RISCV_EXT_COUNT; i++) {
        const char *name = riscv_exts[i].name;
        if (name[1] == '\0' && RISCV_HAS(features, riscv_exts[i].bit)) {
            misa |= 1ull << (name[0] - 'a');
        }
    }
    return misa;
}

void riscv_isa_format(uint64_t features, unsigned xlen, char *out, size_t n)
{
    AUTO_BUF b = BUF_INIT;
    buf_printf(&b, "rv%u", xlen);
    for (size_t i = 0; i < RISCV_EXT_COUNT; i++) {
        const struct riscv_ext *x = &riscv_exts[i];
        if (x->in_isa && RISCV_HAS(features, x->bit)) {
            buf_printf(&b, "%s%s", x->name[1] ? "_" : "", x->name);
        }
    }
    str_copy(out, n, b.data);
}

const char *riscv_mmu_type(uint64_t features, unsigned xlen)
{
    if (!RISCV_HAS(features, RISCV_EXT_S)) {
        return "riscv,none";
    }
    return xlen == 32                            ? "riscv,sv32"
           : RISCV_HAS(features, RISCV_EXT_SV57) ? "riscv,sv57"
           : RISCV_HAS(features, RISCV_EXT_SV48) ? "riscv,sv48"
                                                 : "riscv,sv39";
}
