/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is made from the table of RISC-V extensions: CPU models, misa, ISA strings. Constant
 * data and pure functions, any thread.
 */
#include "engine/arch/riscv/features.h"
#include "engine/base/buf.h"
#include "engine/base/str.h"

#include <errno.h>
#include <string.h>

/* Profiles: each holds what those named in its mask demand (RISC-V Profiles 1.0, RVA23 1.0). */
enum { U20 = 1, U22 = 2, U23 = 4, S20 = 8, S22 = 16, S23 = 32 };

#define BOTH (RISCV_RV32 | RISCV_RV64)
#define ISA RISCV_EXT_IN_ISA
#define FIXED RISCV_EXT_FIXED
#define READY RISCV_EXT_READY
#define BY_NAME RISCV_EXT_BY_NAME
#define DERIVED RISCV_EXT_DERIVED
#define GROUP RISCV_EXT_GROUP
#define MARK RISCV_EXT_MARK

const struct riscv_ext riscv_exts[RISCV_EXT_COUNT] = {
#define EXT(id, name, xlens, flags, profiles, needs, doc)                                      \
    [RISCV_EXT_##id] = { name, xlens, flags, profiles, needs, doc },
#include "engine/arch/riscv/extensions.def"
#undef EXT
};

static const struct {
    const char *name;
    uint8_t xlens;
    uint8_t profiles; /* 0: everything but what is BY_NAME */
} models[] = {
    { "max", BOTH, 0 },
    { "rv64", RISCV_RV64, 0 },
    { "rv32", RISCV_RV32, 0 },
    { "rva20u64", RISCV_RV64, U20 },
    { "rva20s64", RISCV_RV64, U20 | S20 },
    { "rva22u64", RISCV_RV64, U20 | U22 },
    { "rva22s64", RISCV_RV64, U20 | U22 | S20 | S22 },
    { "rva23u64", RISCV_RV64, U20 | U22 | U23 },
    { "rva23s64", RISCV_RV64, U20 | U22 | U23 | S20 | S22 | S23 },
};

enum { VLEN_DEFAULT = 256, VLEN_MIN = 128, VLEN_MAX = 1024 };

/* A CPU model while its words are read. */
struct model {
    struct riscv_features f, said_on, said_off;
    unsigned xlen;
    unsigned vlen; /* 0: not said */
};

static uint8_t width(unsigned xlen)
{
    return xlen == 32 ? RISCV_RV32 : RISCV_RV64;
}

unsigned riscv_ext_find(const char *name, size_t n)
{
    for (unsigned i = 0; i < RISCV_EXT_COUNT; i++) {
        if (strncmp(riscv_exts[i].name, name, n) == 0 && riscv_exts[i].name[n] == '\0') {
            return i;
        }
    }
    return RISCV_EXT_COUNT;
}

/* The next of the names in *list, RISCV_EXT_COUNT at its end. */
static unsigned next_name(const char **list)
{
    size_t n = strcspn(*list, " ");
    if (n == 0) {
        return RISCV_EXT_COUNT;
    }
    unsigned i = riscv_ext_find(*list, n);
    *list += n + ((*list)[n] == ' ');
    return i;
}

static bool needs(unsigned x, unsigned other)
{
    const char *list = riscv_exts[x].needs;
    for (unsigned i; (i = next_name(&list)) < RISCV_EXT_COUNT;) {
        if (i == other) {
            return true;
        }
    }
    return false;
}

/* Offered for this width. */
static bool offered(unsigned i, unsigned xlen)
{
    return (riscv_exts[i].xlens & width(xlen)) && (riscv_exts[i].flags & READY);
}

static bool switchable(unsigned i, unsigned xlen)
{
    return offered(i, xlen) && !(riscv_exts[i].flags & (FIXED | DERIVED));
}

static int contradiction(unsigned x, unsigned other, struct err *e)
{
    return err_set(e, -EINVAL, "extension '%s' needs '%s': switch both off or both on",
                   riscv_exts[x].name, riscv_exts[other].name);
}

/* The table is a few levels deep and has no circle (riscv_test checks), so these end. */
static int switch_on(struct model *m, unsigned x, struct err *e)
{
    const char *list = riscv_exts[x].needs;
    int ret = 0;
    riscv_features_set(&m->f, x, true);
    for (unsigned i; ret == 0 && (i = next_name(&list)) < RISCV_EXT_COUNT;) {
        if (RISCV_HAS(m->said_off, i)) {
            return contradiction(x, i, e);
        }
        ret = switch_on(m, i, e);
    }
    return ret;
}

static int switch_off(struct model *m, unsigned x, struct err *e)
{
    int ret = 0;
    riscv_features_set(&m->f, x, false);
    for (unsigned i = 0; ret == 0 && i < RISCV_EXT_COUNT; i++) {
        if (!RISCV_HAS(m->f, i) || !needs(i, x)) {
            continue;
        }
        if (RISCV_HAS(m->said_on, i)) {
            return contradiction(i, x, e);
        }
        ret = switch_off(m, i, e);
    }
    return ret;
}

/* A group that is switched off takes its members along. */
static int switch_group_off(struct model *m, unsigned x, struct err *e)
{
    const char *list = riscv_exts[x].needs;
    int ret = 0;
    for (unsigned i; ret == 0 && (i = next_name(&list)) < RISCV_EXT_COUNT;) {
        ret = riscv_exts[i].flags & GROUP ? switch_group_off(m, i, e) : switch_off(m, i, e);
    }
    return ret;
}

static int unknown_ext(const char *word, unsigned xlen, struct err *e)
{
    AUTO_BUF names = BUF_INIT;
    for (unsigned i = 0; i < RISCV_EXT_COUNT; i++) {
        if (switchable(i, xlen)) {
            buf_printf(&names, "%s%s", names.len ? ", " : "", riscv_exts[i].name);
        }
    }
    return err_set(e, -EINVAL, "rv%u has no extension '%s' to switch; it has: %s", xlen, word,
                   names.data);
}

static int apply_vlen(struct model *m, const char *value, struct err *e)
{
    unsigned bits = 0;
    for (const char *p = value; *p && bits <= VLEN_MAX; p++) {
        bits = *p >= '0' && *p <= '9' ? bits * 10 + (unsigned)(*p - '0') : VLEN_MAX + 1;
    }
    if (bits < VLEN_MIN || bits > VLEN_MAX || (bits & (bits - 1))) {
        return err_set(e, -EINVAL, "vlen=%s: write a power of two from %d to %d", value,
                       VLEN_MIN, VLEN_MAX);
    }
    m->vlen = bits;
    return 0;
}

/* One "ext=on" or "ext=off", or "vlen=...". */
static int apply_word(struct model *m, char *word, struct err *e)
{
    char *value = strchr(word, '=');
    if (value && strncmp(word, "vlen=", 5) == 0) {
        return apply_vlen(m, value + 1, e);
    }
    bool on = value && strcmp(value, "=on") == 0;
    if (!on && !(value && strcmp(value, "=off") == 0)) {
        return err_set(e, -EINVAL,
                       "'%s' is no part of a CPU model: write extension=on, extension=off or "
                       "vlen=bits",
                       word);
    }
    *value = '\0';
    unsigned x = riscv_ext_find(word, strlen(word));
    if (x == RISCV_EXT_COUNT || !offered(x, m->xlen)) {
        return unknown_ext(word, m->xlen, e);
    }
    uint8_t flags = riscv_exts[x].flags;
    if (flags & DERIVED) {
        return err_set(e, -EINVAL,
                       "extension '%s' cannot be switched: it is on when %s is on; switch that",
                       word, riscv_exts[x].needs);
    }
    if ((flags & FIXED) && !on) {
        return err_set(e, -EINVAL, "extension '%s' cannot be switched off", word);
    }
    riscv_features_set(&m->said_on, x, on);
    riscv_features_set(&m->said_off, x, !on);
    if (on) {
        return switch_on(m, x, e);
    }
    return flags & GROUP ? switch_group_off(m, x, e) : switch_off(m, x, e);
}

static const struct {
    uint16_t bits;
    enum riscv_feature ext;
} zvl[] = {
    { 32, RISCV_EXT_ZVL32B },   { 64, RISCV_EXT_ZVL64B },   { 128, RISCV_EXT_ZVL128B },
    { 256, RISCV_EXT_ZVL256B }, { 512, RISCV_EXT_ZVL512B }, { 1024, RISCV_EXT_ZVL1024B }
};

/* Groups and derived extensions are on when all that they need is; those of vlen by its size. */
static void derive(struct model *m)
{
    for (bool changed = true; changed;) {
        changed = false;
        for (unsigned x = 0; x < RISCV_EXT_COUNT; x++) {
            const char *list = riscv_exts[x].needs;
            bool all = offered(x, m->xlen);
            if (!(riscv_exts[x].flags & (GROUP | DERIVED))) {
                continue;
            }
            for (unsigned i; all && (i = next_name(&list)) < RISCV_EXT_COUNT;) {
                all = RISCV_HAS(m->f, i);
            }
            changed |= all != RISCV_HAS(m->f, x);
            riscv_features_set(&m->f, x, all);
        }
    }
    m->f.vlen = RISCV_HAS(m->f, RISCV_EXT_ZVE32X) ? (uint16_t)m->vlen : 0;
    for (size_t i = 0; i < sizeof(zvl) / sizeof(zvl[0]); i++) {
        riscv_features_set(&m->f, zvl[i].ext, m->f.vlen >= zvl[i].bits);
    }
}

static int finish(struct model *m, struct err *e)
{
    if (m->vlen && !RISCV_HAS(m->f, RISCV_EXT_ZVE32X)) {
        return err_set(e, -EINVAL, "vlen=%u needs vectors, which this CPU model is without",
                       m->vlen);
    }
    m->vlen = m->vlen ? m->vlen : VLEN_DEFAULT;
    derive(m);
    if (m->xlen == 64 && RISCV_HAS(m->f, RISCV_EXT_S) && !RISCV_HAS(m->f, RISCV_EXT_SV39)) {
        return contradiction(RISCV_EXT_S, RISCV_EXT_SV39, e);
    }
    return 0;
}

const char *riscv_model_name(unsigned i, unsigned xlen)
{
    for (size_t k = 0; k < sizeof(models) / sizeof(models[0]); k++) {
        if ((models[k].xlens & width(xlen)) && i-- == 0) {
            return models[k].name;
        }
    }
    return NULL;
}

/* What the model named so starts with. */
static int start(struct model *m, const char *name, struct err *e)
{
    for (size_t k = 0; k < sizeof(models) / sizeof(models[0]); k++) {
        if (strcmp(models[k].name, name) != 0 || !(models[k].xlens & width(m->xlen))) {
            continue;
        }
        int ret = 0;
        for (unsigned i = 0; ret == 0 && i < RISCV_EXT_COUNT; i++) {
            const struct riscv_ext *x = &riscv_exts[i];
            bool in = models[k].profiles ? x->profiles & models[k].profiles || x->flags & FIXED
                                         : !(x->flags & (BY_NAME | DERIVED));
            if (in && offered(i, m->xlen)) {
                ret = switch_on(m, i, e);
            }
        }
        return ret;
    }
    AUTO_BUF names = BUF_INIT;
    const char *known;
    for (unsigned i = 0; (known = riscv_model_name(i, m->xlen)); i++) {
        buf_printf(&names, "%s%s", i ? ", " : "", known);
    }
    return err_set(e, -EINVAL, "riscv%u has no CPU model '%s'; it has: %s", m->xlen, name,
                   names.data);
}

int riscv_features_parse(const char *model, unsigned xlen, struct riscv_features *f,
                         struct err *e)
{
    AUTO_FREE char *text = xstrdup(model);
    char *rest = text, *word = strsep(&rest, ",");
    struct model m = { .xlen = xlen };
    int ret = start(&m, word, e);
    while (ret == 0 && (word = strsep(&rest, ","))) {
        ret = apply_word(&m, word, e);
    }
    if (ret == 0) {
        ret = finish(&m, e);
    }
    if (ret == 0) {
        *f = m.f;
    }
    return ret;
}

uint64_t riscv_misa(const struct riscv_features *f, unsigned xlen)
{
    uint64_t misa = xlen == 32 ? 1ull << 30 : 2ull << 62;
    for (unsigned i = 0; i < RISCV_EXT_COUNT; i++) {
        const char *name = riscv_exts[i].name;
        if (name[1] == '\0' && RISCV_HAS(*f, i)) {
            misa |= 1ull << (name[0] - 'a');
        }
    }
    return misa;
}

/* Without the rows that have one of the flags `without`. */
static void isa_string(const struct riscv_features *f, unsigned xlen, unsigned without, char *out,
                       size_t n)
{
    AUTO_BUF b = BUF_INIT;
    buf_printf(&b, "rv%u", xlen);
    for (unsigned i = 0; i < RISCV_EXT_COUNT; i++) {
        const struct riscv_ext *x = &riscv_exts[i];
        if ((x->flags & ISA) && !(x->flags & without) && RISCV_HAS(*f, i)) {
            buf_printf(&b, "%s%s", x->name[1] ? "_" : "", x->name);
        }
    }
    str_copy(out, n, b.data);
}

void riscv_isa_format(const struct riscv_features *f, unsigned xlen, char *out, size_t n)
{
    isa_string(f, xlen, 0, out, n);
}

void riscv_isa_format_short(const struct riscv_features *f, unsigned xlen, char *out, size_t n)
{
    isa_string(f, xlen, RISCV_EXT_MARK, out, n);
}

size_t riscv_isa_list(const struct riscv_features *f, char *out, size_t n)
{
    size_t used = 0;
    for (unsigned i = 0; i < RISCV_EXT_COUNT; i++) {
        const struct riscv_ext *x = &riscv_exts[i];
        size_t len = strlen(x->name) + 1;
        if ((x->flags & ISA) && RISCV_HAS(*f, i) && len <= n - used) {
            memcpy(out + used, x->name, len);
            used += len;
        }
    }
    return used;
}

const char *riscv_mmu_type(const struct riscv_features *f, unsigned xlen)
{
    if (!RISCV_HAS(*f, RISCV_EXT_S)) {
        return "riscv,none";
    }
    return xlen == 32                      ? "riscv,sv32"
           : RISCV_HAS(*f, RISCV_EXT_SV57) ? "riscv,sv57"
           : RISCV_HAS(*f, RISCV_EXT_SV48) ? "riscv,sv48"
                                           : "riscv,sv39";
}
