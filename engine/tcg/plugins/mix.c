/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Example plugin: which instructions a guest executes. Counts by mnemonic and prints the most frequent ones at the end.
 *
 *     vmd-emu --plugin mix.so,top=20 ...
 *
 * Each mnemonic has one counter a vCPU, so vCPU threads never write the same word.
 */
#include <vmd/plugin.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MNEMONICS 2048 /* a power of two; what finds no room is counted as "(other)" */

struct mnemonic {
    char name[24];
    uint64_t *count; /* by vCPU */
};

static struct mix {
    const struct vmd_plugin_api *api;
    struct vmd_plugin *self;
    unsigned top, used;
    struct mnemonic table[MNEMONICS], other;
} mix = { .top = 10 };

static void count(void *user, unsigned vcpu)
{
    const struct mnemonic *m = user;
    m->count[vcpu * 8]++; /* a cache line each */
}

static struct mnemonic *new_mnemonic(struct mnemonic *m, const char *name, size_t n)
{
    m->count = calloc(mix.api->vcpus * 8ul, sizeof(uint64_t));
    if (!m->count) {
        return &mix.other;
    }
    memcpy(m->name, name, n);
    m->name[n] = 0;
    mix.used++;
    return m;
}

/* The entry of the first word of a disassembly. Blocks are shown one at a time, so this needs no lock. */
static struct mnemonic *find(const char *text)
{
    size_t n = strcspn(text, " \t");
    uint32_t h = 2166136261u;
    if (n >= sizeof(mix.other.name)) {
        n = sizeof(mix.other.name) - 1;
    }
    for (size_t i = 0; i < n; i++) {
        h = (h ^ (uint8_t)text[i]) * 16777619u;
    }
    for (;; h++) {
        struct mnemonic *m = &mix.table[h % MNEMONICS];
        if (!m->count) {
            return mix.used < MNEMONICS / 2 ? new_mnemonic(m, text, n) : &mix.other;
        }
        if (strncmp(m->name, text, n) == 0 && m->name[n] == 0) {
            return m;
        }
    }
}

static void on_block(void *user, struct vmd_block *b)
{
    (void)user;
    for (size_t i = 0; i < mix.api->insns(b); i++) {
        struct vmd_insn insn;
        mix.api->insn(b, i, &insn);
        mix.api->call_insn(b, i, count, find(insn.text));
    }
}

static uint64_t total(const struct mnemonic *m)
{
    uint64_t n = 0;
    for (unsigned i = 0; m->count && i < mix.api->vcpus; i++) {
        n += m->count[i * 8];
    }
    return n;
}

/* The most frequent one from entry `from` on comes to that place. No qsort(): it asks the system how much memory there
 * is, which the sandbox does not allow. */
static void select_next(unsigned from)
{
    unsigned best = from;
    for (unsigned i = from + 1; i < MNEMONICS; i++) {
        best = total(&mix.table[i]) > total(&mix.table[best]) ? i : best;
    }
    struct mnemonic m = mix.table[from];
    mix.table[from] = mix.table[best];
    mix.table[best] = m;
}

static void report(void)
{
    uint64_t all = total(&mix.other);
    char line[128];
    for (unsigned i = 0; i < MNEMONICS; i++) {
        all += total(&mix.table[i]);
    }
    snprintf(line, sizeof(line), "%" PRIu64 " instructions, %u mnemonics", all, mix.used);
    mix.api->print(mix.self, line);
    for (unsigned i = 0; i < mix.top; i++) {
        select_next(i);
        uint64_t n = total(&mix.table[i]);
        if (n == 0) {
            return;
        }
        snprintf(line, sizeof(line), "%-16s %14" PRIu64 "  %5.2f%%", mix.table[i].name, n,
                 100.0 * (double)n / (double)all);
        mix.api->print(mix.self, line);
    }
}

static void on_exit_(void *user)
{
    (void)user;
    report();
    for (unsigned i = 0; i < MNEMONICS; i++) {
        free(mix.table[i].count);
    }
    free(mix.other.count);
}

__attribute__((visibility("default"))) int vmd_plugin_init(const struct vmd_plugin_api *api,
                                                           struct vmd_plugin *self, int n_args, char **args)
{
    mix.api = api;
    mix.self = self;
    for (int i = 0; i < n_args; i++) {
        if (sscanf(args[i], "top=%u", &mix.top) != 1 || mix.top > MNEMONICS) {
            api->print(self, "arguments: top=N");
            return 1;
        }
    }
    mix.other.count = calloc(api->vcpus * 8ul, sizeof(uint64_t));
    if (!mix.other.count) {
        return 1;
    }
    memcpy(mix.other.name, "(other)", 8);
    api->on_block(self, on_block, NULL);
    api->on_exit(self, on_exit_, NULL);
    return 0;
}
