/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SMBIOS structures of the q35 board (DSP0134 3.3; entry point of 2.1, §5.2.1), which firmware puts into memory with one about itself: system, chassis, processors, memory. Main thread; owns nothing.
 */
#include "devices/board/q35.h"

#include "devices/board/aml.h"
#include "engine/arch/x86/cpu.h"
#include "engine/core/vm.h"

#include <string.h>

enum {
    HANDLE_SYSTEM = 0x100,
    HANDLE_CHASSIS = 0x300,
    HANDLE_CPU = 0x400,
    HANDLE_ARRAY = 0x1000,
    HANDLE_DIMM = 0x1100,
    HANDLE_MAP = 0x1300,
    HANDLE_BOOT = 0x2000,
    HANDLE_END = 0x7f00
};
#define DIMM_MOST (16ull << 30)
#define DIMMS_MOST 64u
#define KIB 1024ull
#define MIB (1024 * KIB)

struct smbios {
    struct buf *b;
    size_t at; /* of the structure */
    unsigned n, longest;
};

static void begin(struct smbios *l, unsigned type, unsigned length, unsigned handle)
{
    l->at = l->b->len;
    aml_add(l->b, type, 1);
    aml_add(l->b, length, 1);
    aml_add(l->b, handle, 2);
}

/* Its strings, ended by NULL, behind what was said of its length. */
static void end(struct smbios *l, const char *const *strings)
{
    size_t n;

    for (unsigned i = 0; strings && strings[i]; i++) {
        buf_add(l->b, strings[i], strlen(strings[i]) + 1);
    }
    aml_add(l->b, 0, strings && strings[0] ? 1 : 2);
    n = l->b->len - l->at;
    l->longest = n > l->longest ? (unsigned)n : l->longest;
    l->n++;
}

static void add_system(const struct board *b, struct smbios *l)
{
    static const char *const strings[] = { "vmd", "PC (Q35 + ICH9)", NULL };
    uint8_t uuid[16] = { 0 };

    (void)parts_uuid(&b->p, uuid);
    begin(l, 1, 27, HANDLE_SYSTEM);
    aml_add(l->b, 1 | 2 << 8, 4);
    for (unsigned i = 0; i < 16; i++) { /* §7.2.1: the first three fields are little-endian */
        static const uint8_t order[16] = {
            3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15
        };

        aml_add(l->b, uuid[order[i]], 1);
    }
    aml_add(l->b, 6, 1); /* by the power switch */
    aml_add(l->b, 0, 2);
    end(l, strings);
}

static void add_chassis(struct smbios *l)
{
    static const char *const strings[] = { "vmd", NULL };

    begin(l, 3, 22, HANDLE_CHASSIS);
    aml_add(l->b, 1 | 1 << 8, 5); /* of a kind that is not listed */
    aml_add(l->b, 0x02030303, 4); /* safe; no security */
    aml_add(l->b, 0, 8);
    aml_add(l->b, 0, 1);
    end(l, strings);
}

static void add_processor(const struct board *b, unsigned i, struct smbios *l)
{
    static const char *const strings[] = { "CPU", "vmd", NULL };
    const struct x86_cpu *x = b->p.vm->vcpus[i]->cpu;
    const struct x86_cpuid *one = x86_leaf((struct x86_features *)(uintptr_t)&x->features, 1,
                                           0);

    begin(l, 4, 42, HANDLE_CPU + i);
    aml_add(l->b, 1 | 3 << 8 | 1 << 16 | 2 << 24, 4);
    aml_add(l->b, one ? one->reg[X86_EAX] : 0, 4);
    aml_add(l->b, one ? one->reg[X86_EDX] : 0, 4);
    aml_add(l->b, 0, 2);
    aml_add(l->b, 0, 2);
    aml_add(l->b, 2000 | 2000 << 16, 4); /* MHz, as others say who do not know */
    aml_add(l->b, 0x41 | 1 << 8, 2);     /* there, enabled; its socket is not listed */
    aml_add(l->b, 0xffffffffffff, 6);    /* caches are not told of */
    aml_add(l->b, 0, 3);
    aml_add(l->b, 1 | 1 << 8 | 1 << 16, 3);
    aml_add(l->b, 2, 2);
    aml_add(l->b, 1, 2);
    end(l, strings);
}

static void add_dimm(struct smbios *l, unsigned i, uint64_t size)
{
    static const char *const strings[] = { "DIMM", "vmd", NULL };
    uint64_t mib = size / MIB;

    begin(l, 17, 34, HANDLE_DIMM + i);
    aml_add(l->b, HANDLE_ARRAY, 2);
    aml_add(l->b, 0xfffe, 2);
    aml_add(l->b, 0xffffffff, 4); /* widths are not known */
    aml_add(l->b, mib < 0x7fff ? mib : 0x7fff, 2);
    aml_add(l->b, 9 | 1 << 16, 4); /* a DIMM, of no set */
    aml_add(l->b, 7, 1);           /* RAM */
    aml_add(l->b, 2, 2);
    aml_add(l->b, 0, 2);
    aml_add(l->b, 2, 1);
    aml_add(l->b, 0, 4);
    aml_add(l->b, mib, 4);
    aml_add(l->b, 0, 2);
    end(l, strings);
}

static void add_range(struct smbios *l, unsigned i, uint64_t at, uint64_t size)
{
    begin(l, 19, 31, HANDLE_MAP + i);
    aml_add(l->b, UINT32_MAX, 4); /* by the wide fields behind */
    aml_add(l->b, UINT32_MAX, 4);
    aml_add(l->b, HANDLE_ARRAY, 2);
    aml_add(l->b, 1, 1);
    aml_add(l->b, at, 8);
    aml_add(l->b, at + size - 1, 8);
    end(l, NULL);
}

static void add_memory(const struct board *b, struct smbios *l)
{
    uint64_t all = b->p.cfg.memory, low = q35_low_ram(b);
    uint64_t each = all / DIMM_MOST < DIMMS_MOST ? DIMM_MOST
                                                 : (all / DIMMS_MOST + MIB) & ~(MIB - 1);
    unsigned n = (unsigned)((all + each - 1) / each);

    begin(l, 16, 23, HANDLE_ARRAY);
    aml_add(l->b, 1 | 3 << 8 | 6 << 16, 3); /* of the system, corrects errors */
    aml_add(l->b, 0x80000000u, 4);          /* the wide field behind */
    aml_add(l->b, 0xfffe, 2);
    aml_add(l->b, n, 2);
    aml_add(l->b, all, 8);
    end(l, NULL);
    for (unsigned i = 0; i < n; i++) {
        add_dimm(l, i, i + 1 < n ? each : all - each * (n - 1));
    }
    add_range(l, 0, 0, low);
    if (all > low) {
        add_range(l, 1, Q35_HIGH, all - low);
    }
}

void q35_smbios(const struct board *b, struct buf *anchor, struct buf *tables)
{
    struct smbios l = { .b = tables };

    add_system(b, &l);
    add_chassis(&l);
    for (unsigned i = 0; i < b->p.cfg.cpus; i++) {
        add_processor(b, i, &l);
    }
    add_memory(b, &l);
    begin(&l, 32, 11, HANDLE_BOOT);
    aml_add(tables, 0, 7);
    end(&l, NULL);
    begin(&l, 127, 4, HANDLE_END);
    end(&l, NULL);
    buf_add(anchor, "_SM_\0\x1f\2\x8", 8);
    aml_add(anchor, l.longest, 2);
    aml_add(anchor, 0, 6);
    buf_add(anchor, "_DMI_\0", 6);
    aml_add(anchor, tables->len, 2);
    aml_add(anchor, 0, 4);
    aml_add(anchor, l.n, 2);
    aml_add(anchor, 0x28, 1);
    aml_set_sum(anchor, 16, 15, 21);
    aml_set_sum(anchor, 0, 31, 4);
}
