/* SPDX-License-Identifier: Apache-2.0 */
/*
 * plic: RISC-V Platform-Level Interrupt Controller (PLIC specification 1.0.0), level-triggered
 * gateways. Context 2h is M-mode of hart h, 2h+1 its S-mode. Drives MEIP and SEIP.
 *
 * The device lock is an irqchip lock: devices call in (irq_set) with their own lock held; it
 * calls only into vCPUs. A source that falls before it is claimed is withdrawn, so that guests
 * see no spurious claims.
 */
#include "devices/irqchip/plic.h"

#include "devices/registry.h"
#include "engine/arch/riscv/cpu.h"
#include "engine/base/log.h"
#include "engine/core/vm.h"

#include <errno.h>

#define WORDS ((PLIC_SOURCES + 1 + 31) / 32)
#define MAX_CONTEXTS 1024
#define ENABLE_WORDS 32 /* words of address space a context */

struct plic_context {
    uint32_t enable[WORDS];
    uint32_t threshold;
};

struct plic {
    struct device dev;
    uint32_t priority[PLIC_SOURCES + 1];
    uint32_t level[WORDS];   /* inputs */
    uint32_t pending[WORDS]; /* waiting for a claim */
    uint32_t claimed[WORDS]; /* handed out, not completed */
    struct plic_context context[MAX_CONTEXTS];
    bool output[MAX_CONTEXTS];
    unsigned n_contexts;
};

static bool bit_get(const uint32_t *w, unsigned n)
{
    return w[n / 32] >> (n % 32) & 1;
}

static void bit_put(uint32_t *w, unsigned n, bool v)
{
    w[n / 32] = (w[n / 32] & ~(1u << (n % 32))) | (uint32_t)v << (n % 32);
}

/* The pending, enabled source of highest priority above `floor`; the lowest number among
 * equals; 0: none. */
static unsigned plic_best(const struct plic *p, const struct plic_context *c, uint32_t floor)
{
    unsigned best = 0;

    for (unsigned w = 0; w < WORDS; w++) {
        uint32_t ready = p->pending[w] & c->enable[w];

        while (ready) {
            unsigned n = w * 32 + (unsigned)__builtin_ctz(ready);

            if (p->priority[n] > floor) {
                floor = p->priority[n];
                best = n;
            }
            ready &= ready - 1;
        }
    }
    return best;
}

static void plic_update(struct plic *p)
{
    for (unsigned i = 0; i < p->n_contexts; i++) {
        const struct plic_context *c = &p->context[i];
        bool on = plic_best(p, c, c->threshold) != 0;

        if (on != p->output[i]) {
            p->output[i] = on;
            vcpu_irq_set(p->dev.vm->vcpus[i / 2], i & 1 ? RISCV_IRQ_SEI : RISCV_IRQ_MEI, on);
        }
    }
}

static void plic_set(void *opaque, unsigned n, bool level)
{
    struct plic *p = opaque;

    bus_lock(&p->dev.lock);
    if (bit_get(p->level, n) != level) {
        bit_put(p->level, n, level);
        if (!bit_get(p->claimed, n)) {
            bit_put(p->pending, n, level);
            plic_update(p);
        }
    }
    bus_unlock(&p->dev.lock);
}

struct irq_line plic_input(struct device *plic, unsigned n)
{
    return (struct irq_line){ .set = plic_set, .opaque = plic, .n = n };
}

/* --- registers
 * ------------------------------------------------------------------------------- */

static void plic_written_priority(struct device *d, const struct dev_reg *r, unsigned index,
                                  uint64_t old, uint64_t value)
{
    struct plic *p = (struct plic *)d;

    (void)r, (void)old, (void)value;
    if (index == 0) {
        p->priority[0] = 0;
    }
    plic_update(p);
}

/* NULL when there is no such word: reads as zero, writes are dropped. */
static uint32_t *plic_enable_word(struct plic *p, unsigned index)
{
    unsigned context = index / ENABLE_WORDS, word = index % ENABLE_WORDS;

    if (context >= p->n_contexts || word >= WORDS) {
        return NULL;
    }
    return &p->context[context].enable[word];
}

static uint64_t plic_read_enable(struct device *d, const struct dev_reg *r, unsigned index)
{
    uint32_t *w = plic_enable_word((struct plic *)d, index);

    (void)r;
    return w ? *w : 0;
}

static void plic_written_enable(struct device *d, const struct dev_reg *r, unsigned index,
                                uint64_t old, uint64_t value)
{
    struct plic *p = (struct plic *)d;
    uint32_t *w = plic_enable_word(p, index);
    unsigned word = index % ENABLE_WORDS;

    (void)r, (void)old;
    if (!w) {
        return;
    }
    if (word == 0) {
        value &= ~1ull;
    }
    if (word == WORDS - 1) {
        value &= (2ull << (PLIC_SOURCES % 32)) - 1;
    }
    *w = value;
    plic_update(p);
}

static uint64_t plic_read_threshold(struct device *d, const struct dev_reg *r, unsigned index)
{
    struct plic *p = (struct plic *)d;

    (void)r;
    return index < p->n_contexts ? p->context[index].threshold : 0;
}

static void plic_written_threshold(struct device *d, const struct dev_reg *r, unsigned index,
                                   uint64_t old, uint64_t value)
{
    struct plic *p = (struct plic *)d;

    (void)r, (void)old;
    if (index < p->n_contexts) {
        p->context[index].threshold = value;
        plic_update(p);
    }
}

static uint64_t plic_claim(struct device *d, const struct dev_reg *r, unsigned index)
{
    struct plic *p = (struct plic *)d;
    unsigned n;

    (void)r;
    if (index >= p->n_contexts) {
        return 0;
    }
    /* A claim ignores the threshold (PLIC 1.0.0, "Interrupt Claim Process"). */
    n = plic_best(p, &p->context[index], 0);
    if (n) {
        bit_put(p->pending, n, false);
        bit_put(p->claimed, n, true);
        plic_update(p);
    }
    return n;
}

static void plic_complete(struct device *d, const struct dev_reg *r, unsigned index,
                          uint64_t old, uint64_t value)
{
    struct plic *p = (struct plic *)d;
    unsigned n = value <= PLIC_SOURCES ? (unsigned)value : 0;

    (void)r, (void)old;
    if (index >= p->n_contexts || n == 0 || !bit_get(p->context[index].enable, n) ||
        !bit_get(p->claimed, n)) {
        log_trace('u', "%s: completion of source %llu that context %u does not serve", d->id,
                  (unsigned long long)value, index);
        return;
    }
    bit_put(p->claimed, n, false);
    bit_put(p->pending, n, bit_get(p->level, n));
    plic_update(p);
}

/* --- class
 * ----------------------------------------------------------------------------------- */

static int plic_realize(struct device *d, struct err *e)
{
    struct plic *p = (struct plic *)d;

    if (d->vm->n_vcpus * 2 > MAX_CONTEXTS) {
        return err_set(e, -EINVAL, "plic: %u harts, at most %d can be served", d->vm->n_vcpus,
                       MAX_CONTEXTS / 2);
    }
    p->n_contexts = d->vm->n_vcpus * 2;
    return 0;
}

/* Input levels belong to the devices and stay. */
static void plic_reset(struct device *d)
{
    struct plic *p = (struct plic *)d;

    for (unsigned i = 0; i < MAX_CONTEXTS; i++) {
        p->context[i] = (struct plic_context){ .threshold = 0 };
    }
    for (unsigned w = 0; w < WORDS; w++) {
        p->claimed[w] = 0;
        p->pending[w] = p->level[w];
    }
    plic_update(p);
}

static int plic_loaded(void *obj, struct err *e)
{
    struct plic *p = obj;

    for (unsigned i = 0; i <= PLIC_SOURCES; i++) {
        if (p->priority[i] > 7) {
            return err_set(e, -EINVAL, "plic: priority of source %u is above 7", i);
        }
    }
    for (unsigned i = 0; i < p->n_contexts; i++) {
        bool on = plic_best(p, &p->context[i], p->context[i].threshold) != 0;

        p->output[i] = on;
        vcpu_irq_set(p->dev.vm->vcpus[i / 2], i & 1 ? RISCV_IRQ_SEI : RISCV_IRQ_MEI, on);
    }
    return 0;
}

static const struct st_field plic_context_fields[] = {
    ST_ARRAY(struct plic_context, enable, ST_U32, WORDS, 1, "enabled sources"),
    ST_FIELD(struct plic_context, threshold, ST_U32, 1, "priorities up to this are masked"),
    ST_END,
};
static const struct st_table plic_context_state = {
    .name = "plic-context",
    .version = 1,
    .fields = plic_context_fields,
};
static const struct st_field plic_fields[] = {
    ST_ARRAY(struct plic, priority, ST_U32, PLIC_SOURCES + 1, 1, "priority of each source"),
    ST_ARRAY(struct plic, level, ST_U32, WORDS, 1, "input levels"),
    ST_ARRAY(struct plic, pending, ST_U32, WORDS, 1, "sources waiting for a claim"),
    ST_ARRAY(struct plic, claimed, ST_U32, WORDS, 1, "sources claimed and not completed"),
    { .name = "context",
      .kind = ST_STRUCT,
      .offset = offsetof(struct plic, context),
      .count = MAX_CONTEXTS,
      .stride = sizeof(struct plic_context),
      .since = 1,
      .table = &plic_context_state,
      .doc = "M and S mode of each hart" },
    ST_END,
};
static const struct st_table plic_state = {
    .name = "plic",
    .version = 1,
    .fields = plic_fields,
    .loaded = plic_loaded,
};

static const struct dev_reg plic_regs[] = {
    { .name = "PRIORITY",
      .doc = "priority of source n, 0 never interrupts",
      .offset = 0,
      .size = 4,
      .count = PLIC_SOURCES + 1,
      .writable = 7,
      .field = offsetof(struct plic, priority),
      .written = plic_written_priority },
    { .name = "PENDING",
      .doc = "pending sources, a bit each",
      .offset = 0x1000,
      .size = 4,
      .count = WORDS,
      .field = offsetof(struct plic, pending) },
    { .name = "ENABLE",
      .doc = "enabled sources, a bit each; 32 words a context",
      .offset = 0x2000,
      .size = 4,
      .count = MAX_CONTEXTS * ENABLE_WORDS,
      .writable = UINT32_MAX,
      .field = DEV_NO_FIELD,
      .read = plic_read_enable,
      .written = plic_written_enable },
    { .name = "THRESHOLD",
      .doc = "context n is interrupted by priorities above this",
      .offset = 0x200000,
      .size = 4,
      .count = MAX_CONTEXTS,
      .stride = 0x1000,
      .writable = 7,
      .field = DEV_NO_FIELD,
      .read = plic_read_threshold,
      .written = plic_written_threshold },
    { .name = "CLAIM",
      .doc = "read: claims a source for context n; write: completes it",
      .offset = 0x200004,
      .size = 4,
      .count = MAX_CONTEXTS,
      .stride = 0x1000,
      .writable = UINT32_MAX,
      .field = DEV_NO_FIELD,
      .read = plic_claim,
      .written = plic_complete },
    { .name = NULL },
};

static const struct dev_reg_block plic_blocks[] = {
    { .name = "mmio", .size = 0x600000, .regs = plic_regs, .min_size = 4, .max_size = 4 },
    { .name = NULL },
};

const struct device_class plic_class = {
    .name = "plic",
    .doc = "RISC-V platform-level interrupt controller, 96 sources",
    .size = sizeof(struct plic),
    .blocks = plic_blocks,
    .state = &plic_state,
    .realize = plic_realize,
    .reset = plic_reset,
};
