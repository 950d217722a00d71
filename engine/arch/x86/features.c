/* SPDX-License-Identifier: Apache-2.0 */
/*
 * CPU models of x86: names of features, models as lists of names, and the leaves that say how many processors there are. Owns
 * nothing.
 */
#include "engine/arch/x86/features.h"

#include "engine/base/mem.h"
#include "engine/base/str.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* Where CPUID tells of a feature. `v`: the level of the x86-64 psABI that has it first, 0: none. */
static const struct feature {
    const char *name;
    uint32_t leaf;
    uint8_t sub, reg, bit, v;
} features[] = {
    { "fpu", 1, 0, X86_EDX, 0, 1 },
    { "tsc", 1, 0, X86_EDX, 4, 1 },
    { "msr", 1, 0, X86_EDX, 5, 1 },
    { "pae", 1, 0, X86_EDX, 6, 1 },
    { "cx8", 1, 0, X86_EDX, 8, 1 },
    { "apic", 1, 0, X86_EDX, 9, 1 },
    { "cmov", 1, 0, X86_EDX, 15, 1 },
    { "mmx", 1, 0, X86_EDX, 23, 1 },
    { "fxsr", 1, 0, X86_EDX, 24, 1 },
    { "sse", 1, 0, X86_EDX, 25, 1 },
    { "sse2", 1, 0, X86_EDX, 26, 1 },
    { "syscall", 0x80000001, 0, X86_EDX, 11, 1 },
    { "nx", 0x80000001, 0, X86_EDX, 20, 1 },
    { "lm", 0x80000001, 0, X86_EDX, 29, 1 },
    { "vme", 1, 0, X86_EDX, 1, 0 },
    { "de", 1, 0, X86_EDX, 2, 0 },
    { "pse", 1, 0, X86_EDX, 3, 0 },
    { "mce", 1, 0, X86_EDX, 7, 0 },
    { "sep", 1, 0, X86_EDX, 11, 0 },
    { "mtrr", 1, 0, X86_EDX, 12, 0 },
    { "pge", 1, 0, X86_EDX, 13, 0 },
    { "mca", 1, 0, X86_EDX, 14, 0 },
    { "pat", 1, 0, X86_EDX, 16, 0 },
    { "pse36", 1, 0, X86_EDX, 17, 0 },
    { "clflush", 1, 0, X86_EDX, 19, 0 },
    { "sse3", 1, 0, X86_ECX, 0, 2 },
    { "ssse3", 1, 0, X86_ECX, 9, 2 },
    { "cx16", 1, 0, X86_ECX, 13, 2 },
    { "sse4.1", 1, 0, X86_ECX, 19, 2 },
    { "sse4.2", 1, 0, X86_ECX, 20, 2 },
    { "popcnt", 1, 0, X86_ECX, 23, 2 },
    { "lahf_lm", 0x80000001, 0, X86_ECX, 0, 2 },
    { "fma", 1, 0, X86_ECX, 12, 3 },
    { "movbe", 1, 0, X86_ECX, 22, 3 },
    { "xsave", 1, 0, X86_ECX, 26, 3 },
    { "avx", 1, 0, X86_ECX, 28, 3 },
    { "f16c", 1, 0, X86_ECX, 29, 3 },
    { "abm", 0x80000001, 0, X86_ECX, 5, 3 },
    { "bmi1", 7, 0, X86_EBX, 3, 3 },
    { "avx2", 7, 0, X86_EBX, 5, 3 },
    { "bmi2", 7, 0, X86_EBX, 8, 3 },
    { "avx512f", 7, 0, X86_EBX, 16, 4 },
    { "avx512dq", 7, 0, X86_EBX, 17, 4 },
    { "avx512cd", 7, 0, X86_EBX, 28, 4 },
    { "avx512bw", 7, 0, X86_EBX, 30, 4 },
    { "avx512vl", 7, 0, X86_EBX, 31, 4 },
    { "pclmulqdq", 1, 0, X86_ECX, 1, 0 },
    { "pcid", 1, 0, X86_ECX, 17, 0 },
    { "x2apic", 1, 0, X86_ECX, 21, 0 },
    { "tsc-deadline", 1, 0, X86_ECX, 24, 0 },
    { "aes", 1, 0, X86_ECX, 25, 0 },
    { "rdrand", 1, 0, X86_ECX, 30, 0 },
    { "hypervisor", 1, 0, X86_ECX, 31, 0 },
    { "fsgsbase", 7, 0, X86_EBX, 0, 0 },
    { "tsc_adjust", 7, 0, X86_EBX, 1, 0 },
    { "smep", 7, 0, X86_EBX, 7, 0 },
    { "erms", 7, 0, X86_EBX, 9, 0 },
    { "invpcid", 7, 0, X86_EBX, 10, 0 },
    { "rdseed", 7, 0, X86_EBX, 18, 0 },
    { "adx", 7, 0, X86_EBX, 19, 0 },
    { "smap", 7, 0, X86_EBX, 20, 0 },
    { "clflushopt", 7, 0, X86_EBX, 23, 0 },
    { "clwb", 7, 0, X86_EBX, 24, 0 },
    { "sha-ni", 7, 0, X86_EBX, 29, 0 },
    { "umip", 7, 0, X86_ECX, 2, 0 },
    { "pku", 7, 0, X86_ECX, 3, 0 },
    { "gfni", 7, 0, X86_ECX, 8, 0 },
    { "vaes", 7, 0, X86_ECX, 9, 0 },
    { "rdpid", 7, 0, X86_ECX, 22, 0 },
    { "spec-ctrl", 7, 0, X86_EDX, 26, 0 },
    { "pdpe1gb", 0x80000001, 0, X86_EDX, 26, 0 },
    { "rdtscp", 0x80000001, 0, X86_EDX, 27, 0 },
    { "svm", 0x80000001, 0, X86_ECX, 2, 0 },
    { "vmx", 1, 0, X86_ECX, 5, 0 },
};

/* Features that a model has beside those of its level where they are offered: nothing is refused for them. */
#define MODEL_EXTRA                                                                            \
    "vme de pse mce sep mtrr pge mca pat pse36 clflush x2apic tsc-deadline hypervisor "        \
    "tsc_adjust rdtscp"

static const struct {
    const char *name;
    uint8_t level; /* 0: all that is offered */
} models[] = {
    { "host", 0 },      { "max", 0 },       { "x86-64", 1 },    { "x86-64-v1", 1 },
    { "x86-64-v2", 2 }, { "x86-64-v3", 3 }, { "x86-64-v4", 4 },
};

struct x86_cpuid *x86_leaf(struct x86_features *f, uint32_t leaf, uint32_t sub)
{
    for (unsigned i = 0; i < f->n; i++) {
        if (f->leaf[i].leaf == leaf && (!f->leaf[i].has_sub || f->leaf[i].sub == sub)) {
            return &f->leaf[i];
        }
    }
    return NULL;
}

static const struct feature *find(const char *name, size_t len)
{
    for (unsigned i = 0; i < ARRAY_LEN(features); i++) {
        if (strlen(features[i].name) == len && memcmp(features[i].name, name, len) == 0) {
            return &features[i];
        }
    }
    return NULL;
}

static bool has(const struct x86_features *f, const struct feature *t)
{
    const struct x86_cpuid *l = x86_leaf((struct x86_features *)(uintptr_t)f, t->leaf, t->sub);
    return l && l->reg[t->reg] >> t->bit & 1;
}

bool x86_has(const struct x86_features *f, const char *name)
{
    const struct feature *t = find(name, strlen(name));
    return t && has(f, t);
}

static void set(struct x86_features *f, const struct feature *t, bool on)
{
    struct x86_cpuid *l = x86_leaf(f, t->leaf, t->sub);
    if (l) {
        l->reg[t->reg] = (l->reg[t->reg] & ~(1u << t->bit)) | (uint32_t)on << t->bit;
    }
}

/* A word of a list of words with blanks between them. */
static bool listed(const char *list, const char *name)
{
    size_t n = strlen(name);
    for (const char *p = list; (p = strstr(p, name)) != NULL; p += n) {
        if ((p == list || p[-1] == ' ') && (p[n] == ' ' || p[n] == 0)) {
            return true;
        }
    }
    return false;
}

struct lacking {
    char text[160];
};

static void lack(struct lacking *l, const char *name)
{
    size_t n = strlen(l->text);
    snprintf(l->text + n, sizeof(l->text) - n, "%s%s", n ? ", " : "", name);
}

static void apply_level(struct x86_features *f, unsigned level, struct lacking *l)
{
    for (unsigned i = 0; i < ARRAY_LEN(features); i++) {
        const struct feature *t = &features[i];
        bool want = t->v && t->v <= level;
        if (want && !has(f, t)) {
            lack(l, t->name);
        }
        if (!want && !listed(MODEL_EXTRA, t->name)) {
            set(f, t, false);
        }
    }
}

/* ",+name,-name" or ",name=on,name=off" */
static int apply_changes(struct x86_features *f, const struct x86_features *offered,
                         const char *p, struct lacking *l, struct err *e)
{
    while (*p == ',') {
        size_t n = strcspn(p + 1, ","), eq = strcspn(p + 1, "=");
        bool word = eq < n,
             on = word ? n - eq == 3 && memcmp(p + 1 + eq, "=on", 3) == 0 : p[1] == '+';
        bool off = word ? n - eq == 4 && memcmp(p + 1 + eq, "=off", 4) == 0 : p[1] == '-';
        const struct feature *t = n > 1 && (on || off)
                                      ? word ? find(p + 1, eq) : find(p + 2, n - 1)
                                      : NULL;
        if (!t) {
            return err_set(e, -EINVAL,
                           "cpu: unknown feature '%.*s'; write +name, -name, name=on or "
                           "name=off, e.g. -avx2",
                           (int)n, p + 1);
        }
        if (on && !has(offered, t)) {
            lack(l, t->name);
        }
        set(f, t, on);
        p += n + 1;
    }
    return 0;
}

static void say_topology(struct x86_features *f, unsigned apic_id, unsigned cpus)
{
    struct x86_cpuid *l = x86_leaf(f, 1, 0);
    if (l) {
        l->reg[X86_EBX] = (l->reg[X86_EBX] & 0xff00) | apic_id << 24 | (cpus & 0xff) << 16;
        l->reg[X86_EDX] = (l->reg[X86_EDX] & ~(1u << 28)) | (uint32_t)(cpus > 1) << 28;
        l->reg[X86_ECX] |= 1u << 31; /* under a hypervisor */
    }
    for (unsigned i = 0; i < f->n; i++) {
        if (f->leaf[i].leaf == 0xb || f->leaf[i].leaf == 0x1f) {
            f->leaf[i].reg[X86_EDX] = apic_id;
        }
    }
}

/* `moves`: bits that follow control registers, the number of processors or the host's way to say so, and say nothing of what programs may use. */
static const struct word {
    uint32_t leaf;
    uint8_t sub, reg;
    uint32_t moves;
} words[X86_WORDS] = {
    { 1, 0, X86_EDX, 1u << 9 | 1u << 28 },
    { 1, 0, X86_ECX, 1u << 27 | 1u << 31 },
    { 7, 0, X86_EBX, 0 },
    { 7, 0, X86_ECX, 1u << 4 },
    { 7, 0, X86_EDX, 0 },
    { 7, 1, X86_EAX, 0 },
    { 0xd, 0, X86_EAX, 0 },
    { 0xd, 1, X86_EAX, 0 },
    { 0x80000001, 0, X86_EDX, 1u << 9 },
    { 0x80000001, 0, X86_ECX, 0 },
    { 0x80000008, 0, X86_EBX, 0 },
    { 0x40000001, 0, X86_EAX, 0 },
};

void x86_features_words(const struct x86_features *f, uint32_t *out)
{
    for (unsigned i = 0; i < X86_WORDS; i++) {
        const struct word *w = &words[i];
        const struct x86_cpuid *l = x86_leaf((struct x86_features *)(uintptr_t)f, w->leaf,
                                             w->sub);
        out[i] = l ? l->reg[w->reg] & ~w->moves : 0;
    }
}

/* A bit of a word: by its feature's name, or by its place. */
static void lack_bit(struct lacking *l, const struct word *w, unsigned bit)
{
    static const char *const registers[] = { "eax", "ebx", "ecx", "edx" };
    char place[48];

    for (unsigned i = 0; i < ARRAY_LEN(features); i++) {
        const struct feature *t = &features[i];
        if (t->leaf == w->leaf && t->sub == w->sub && t->reg == w->reg && t->bit == bit) {
            lack(l, t->name);
            return;
        }
    }
    snprintf(place, sizeof(place), "CPUID 0x%x.%u %s bit %u", w->leaf, w->sub,
             registers[w->reg], bit);
    lack(l, place);
}

int x86_features_cover(const uint32_t *have, const uint32_t *want, struct err *e)
{
    struct lacking l = { "" };

    for (unsigned i = 0; i < X86_WORDS; i++) {
        for (uint32_t left = want[i] & ~have[i] & ~words[i].moves; left; left &= left - 1) {
            lack_bit(&l, &words[i], (unsigned)__builtin_ctz(left));
        }
    }
    return l.text[0]
               ? err_set(e, -ENOTSUP,
                         "the guest was started with what this machine's CPU does not "
                         "have: %s; go on where there is the same 'cpu', and for VMs that "
                         "move choose a model that all hosts have, as x86-64-v2",
                         l.text)
               : 0;
}

int x86_features_make(const char *model, const struct x86_features *offered, unsigned apic_id,
                      unsigned cpus, struct x86_features *out, struct err *e)
{
    size_t n = strcspn(model, ",");
    struct x86_features f = *offered;
    struct lacking l = { "" };
    int level = n == 0 ? 0 : -1;
    for (unsigned i = 0; i < ARRAY_LEN(models); i++) {
        if (strlen(models[i].name) == n && memcmp(models[i].name, model, n) == 0) {
            level = models[i].level;
        }
    }
    if (level < 0) {
        return err_set(e, -EINVAL,
                       "cpu: unknown model '%.*s'; there are host, max, x86-64, x86-64-v2, "
                       "x86-64-v3 and x86-64-v4",
                       (int)n, model);
    }
    if (level > 0) {
        apply_level(&f, (unsigned)level, &l);
    }
    int rc = apply_changes(&f, offered, model + n, &l, e);
    if (rc < 0) {
        return rc;
    }
    if (l.text[0]) {
        return err_set(e, -ENOTSUP, "cpu: model '%s' needs what this host cannot give: %s",
                       model, l.text);
    }
    say_topology(&f, apic_id, cpus);
    *out = f;
    return 0;
}
