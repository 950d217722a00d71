/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The soft TLB as guest memory accesses use it: filling, and their slow paths. What holds its entries is in space.c.
 *
 * Runs on the thread of the vCPU whose space it is.
 */
#include "engine/tcg/hostops.h"
#include "engine/tcg/instrument.h"

#include "engine/base/log.h"
#include "engine/base/mem.h"
#include "engine/core/bus.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define PAGE_MASK 0xfffull

/* ---- filling ---- */

static void no_memory(struct tcg_vcpu *v, uint64_t va, uint64_t gpa, enum tcg_access access,
                      struct tcg_walk *w)
{
    w->cause = 0;
    w->tval = va;
    v->tcg->guest->bus_fault(v->cpu, va, gpa, access, &w->cause, &w->tval);
}

/* Page walk and the range behind it. 0, or nonzero with w->cause and w->tval. */
static int walk(struct tcg_vcpu *v, uint64_t va, enum tcg_access access, struct tcg_walk *w,
                const struct mem_range **range)
{
    *w = (struct tcg_walk){ .va = va, .access = access, .mmu = v->space->mode.mmu };
    v->n_walk[access]++;
    if (v->tcg->guest->walk(v->cpu, w)) {
        return -1;
    }
    *range = mem_find(v->tcg->vm->mem, w->gpa);
    if (!*range) {
        no_memory(v, va, w->gpa, access, w);
        return -1;
    }
    return 0;
}

/* Does the range hold the whole page of gpa? Anything smaller goes the uncached way. */
static bool whole_page(const struct mem_range *r, uint64_t gpa)
{
    uint64_t page = gpa & ~PAGE_MASK;
    return page >= r->base && page - r->base + MEM_PAGE_SIZE <= r->size;
}

static bool fast_write_ok(struct tcg_vcpu *v, const struct mem_range *r, uint64_t gpa)
{
    return !mem_dirty_logging(v->tcg->vm->mem) && cache_writers(v->tcg, r, gpa) &&
           !cache_page_has_code(cache_page(v->tcg, r, gpa));
}

/* A tag for fast stores was written: announces it and looks again whether the page may have one. The translator marks the page
 * first, asks who announced second and looks for their tags third (cache_claim()): either it finds this tag, or it is seen here.
 * Translators are vCPUs: where there is but one, it is this thread. */
static void announce_write(struct tcg_vcpu *v, const struct mem_range *r, uint64_t gpa, unsigned i)
{
    _Atomic uint8_t *writers = cache_writers(v->tcg, r, gpa);
    uint8_t self = (uint8_t)(1u << v->vcpu->index % 8);
    if (!writers) {
        return;
    }
    if (v->tcg->n_vcpus > 1) {
        atomic_thread_fence(memory_order_seq_cst); /* the tag is there before the bit is seen or made */
    }
    if (!(atomic_load_explicit(writers, memory_order_relaxed) & self)) {
        atomic_fetch_or(writers, self);
    }
    if (cache_page_has_code(cache_page(v->tcg, r, gpa))) {
        tag_set(&v->space->tlb[i].tag[TCG_WRITE],
                atomic_load_explicit(&v->space->tlb[i].tag[TCG_WRITE], memory_order_relaxed) | TLB_SLOW);
    }
}

/* The entry of a page of the first level, which translated code reads. gpa and va are those of the page. */
static void fill(struct tcg_vcpu *v, uint64_t va, uint64_t gpa, unsigned prot, const struct mem_range *r)
{
    struct tcg_space *s = v->space;
    unsigned i = tlb_index(va);
    bool write = prot & TCG_PROT_W, fast = write && fast_write_ok(v, r, gpa);
    space_uses(s, i);
    s->tlb[i].range = r;
    uint64_t host = r->host ? (uint64_t)(uintptr_t)(r->host + (gpa - r->base)) : gpa;
    s->tlb[i].addend = alias_of(v, va, host) - va;
    tag_set(&s->tlb[i].tag[TCG_READ], !(prot & TCG_PROT_R) ? UINT64_MAX : va | (r->host ? 0 : TLB_SLOW));
    if (fast) {
        space_writes(s, host);
    }
    tag_set(&s->tlb[i].tag[TCG_WRITE], !write ? UINT64_MAX : va | (fast ? 0 : TLB_SLOW));
    if (fast) {
        announce_write(v, r, gpa, i);
    }
}

/* What a walk found, for both levels. */
static void fill_walked(struct tcg_vcpu *v, const struct tcg_walk *w, const struct mem_range *r)
{
    uint64_t va = w->va & ~PAGE_MASK, gpa = w->gpa & ~PAGE_MASK;
    v->n_tlb_fill++;
    v->n_fill[w->access]++;
    v->space->local |= !w->global;
    if (r->host) {
        mem_range_settle(r, gpa);
    }
    fill(v, va, gpa, w->prot, r);
    tlb2_insert(v, va, gpa, w->prot, r);
}

/* Translation of one access within a page: from the first level, the second, or by a walk. Raises. */
static void translate(struct tcg_vcpu *v, uint64_t va, enum tcg_access access,
                      struct tcg_tlb_info *out)
{
    static const unsigned wants[] = { [TCG_READ] = TCG_PROT_R, [TCG_WRITE] = TCG_PROT_W };
    struct tcg_space *s = v->space;
    unsigned i = tlb_index(va);
    uint64_t tag = atomic_load_explicit(&s->tlb[i].tag[access], memory_order_relaxed);
    if ((tag & ~PAGE_MASK) == (va & ~PAGE_MASK) && !(tag & TLB_INVALID)) {
        const struct mem_range *r = s->tlb[i].range;
        uint64_t at = tlb_host(v, &s->tlb[i], va & ~PAGE_MASK) + (va & PAGE_MASK);
        *out = (struct tcg_tlb_info){ r->host ? r->base + (at - (uint64_t)(uintptr_t)r->host) : at, r };
        return;
    }
    unsigned prot = wants[access];
    if (tlb2_find(v, va & ~PAGE_MASK, &prot, out)) {
        v->n_tlb2_hit++;
        fill(v, va & ~PAGE_MASK, out->gpa, prot, out->range);
        out->gpa |= va & PAGE_MASK;
        return;
    }
    struct tcg_walk w;
    const struct mem_range *r;
    if (walk(v, va, access, &w, &r)) {
        tcg_raise(v->cpu, w.cause, w.tval);
    }
    if (!w.uncached && whole_page(r, w.gpa)) {
        fill_walked(v, &w, r);
    }
    *out = (struct tcg_tlb_info){ w.gpa, r };
}

const struct tcg_fetch *tlb_fetch(struct tcg_vcpu *v, uint64_t va, struct tcg_fetch *uncached,
                                  uint32_t *cause, uint64_t *tval)
{
    struct tcg_space *s = v->space;
    struct tcg_fetch *f = &s->fetch[(va >> 12) % FTLB_SIZE];
    if (f->tag == (va & ~PAGE_MASK)) {
        return f;
    }
    struct tcg_walk w;
    const struct mem_range *r;
    if (walk(v, va, TCG_FETCH, &w, &r)) {
        *cause = w.cause;
        *tval = w.tval;
        return NULL;
    }
    if (!r->host || !whole_page(r, w.gpa)) {
        no_memory(v, va, w.gpa, TCG_FETCH, &w);
        *cause = w.cause;
        *tval = w.tval;
        return NULL;
    }
    if (w.uncached) {
        *uncached = (struct tcg_fetch){ (va & ~PAGE_MASK) | TLB_SLOW, w.gpa & ~PAGE_MASK, r };
        return uncached;
    }
    space_fetches(s, va);
    s->local |= !w.global;
    v->n_fill[TCG_FETCH]++;
    *f = (struct tcg_fetch){ va & ~PAGE_MASK, w.gpa & ~PAGE_MASK, r };
    return f;
}

/* ---- slow paths ---- */

static uint64_t extend(uint64_t v, unsigned mo)
{
    if (mo & MO_ONES) {
        return v | 0xffffffff00000000u;
    }
    switch (mo & (MO_SIZE | MO_SIGN)) {
    case MO_8:
        return (uint8_t)v;
    case MO_16:
        return (uint16_t)v;
    case MO_32:
        return (uint32_t)v;
    case MO_8 | MO_SIGN:
        return (uint64_t)(int8_t)v;
    case MO_16 | MO_SIGN:
        return (uint64_t)(int16_t)v;
    case MO_32 | MO_SIGN:
        return (uint64_t)(int32_t)v;
    default:
        return v;
    }
}

static void bus_error(struct tcg_vcpu *v, uint64_t va, uint64_t gpa, enum tcg_access access)
{
    struct tcg_walk w;
    no_memory(v, va, gpa, access, &w);
    tcg_raise(v->cpu, w.cause, w.tval);
}

/* One access that lies within a page. */
static uint64_t load_within(struct tcg_vcpu *v, uint64_t va, unsigned size, enum tcg_access access)
{
    struct tcg_tlb_info at;
    uint64_t value = 0;
    translate(v, va, access, &at);
    const struct mem_range *r = at.range;
    if (at.gpa - r->base + size > r->size) {
        bus_error(v, va, at.gpa, access);
    }
    if (r->host) {
        const uint8_t *p = r->host + (at.gpa - r->base);
        switch (size) { /* single accesses: other vCPUs must not see or make halves */
        case 1:
            return *p;
        case 2:
            return __atomic_load_n((const uint16_t *)(const void *)p, __ATOMIC_RELAXED);
        case 4:
            return __atomic_load_n((const uint32_t *)(const void *)p, __ATOMIC_RELAXED);
        case 8:
            return __atomic_load_n((const uint64_t *)(const void *)p, __ATOMIC_RELAXED);
        default:
            memcpy(&value, p, size);
            return value;
        }
    }
    tcg_io_begin(v->cpu);
    v->n_mmio_read++;
    if (bus_read(r, at.gpa, size, &value) != BUS_OK) {
        bus_error(v, va, at.gpa, access);
    }
    if (v->tcg->trace) {
        trace_mmio(v, false, at.gpa, size, value);
    }
    return value;
}

static void store_host(uint8_t *p, uint64_t value, unsigned size)
{
    switch (size) {
    case 1:
        *p = (uint8_t)value;
        break;
    case 2:
        __atomic_store_n((uint16_t *)(void *)p, (uint16_t)value, __ATOMIC_RELAXED);
        break;
    case 4:
        __atomic_store_n((uint32_t *)(void *)p, (uint32_t)value, __ATOMIC_RELAXED);
        break;
    case 8:
        __atomic_store_n((uint64_t *)(void *)p, value, __ATOMIC_RELAXED);
        break;
    default:
        memcpy(p, &value, size);
    }
}

/* After a store to RAM that took the slow path: code made from it goes, a page without code becomes fast again. */
static void stored(struct tcg_vcpu *v, const struct mem_range *r, uint64_t va, uint64_t gpa,
                   unsigned size)
{
    struct tcg_page *p = cache_page(v->tcg, r, gpa);
    if (mem_dirty_logging(v->tcg->vm->mem)) {
        mem_written(v->tcg->vm->mem, gpa, size); /* comes back to cache_invalidate */
        return;
    }
    if (cache_page_has_code(p)) {
        atomic_thread_fence(memory_order_seq_cst);
        cache_invalidate(v->tcg, gpa, size);
    }
    unsigned i = tlb_index(va);
    uint64_t tag = atomic_load_explicit(&v->space->tlb[i].tag[TCG_WRITE], memory_order_relaxed);
    if (tag == ((va & ~PAGE_MASK) | TLB_SLOW) && !cache_page_has_code(p) &&
        fast_write_ok(v, r, gpa)) {
        space_writes(v->space, tlb_host(v, &v->space->tlb[i], va & ~PAGE_MASK));
        tag_set(&v->space->tlb[i].tag[TCG_WRITE], va & ~PAGE_MASK);
        announce_write(v, r, gpa, i);
    }
}

static void store_within(struct tcg_vcpu *v, uint64_t va, uint64_t value, unsigned size)
{
    struct tcg_tlb_info at;
    translate(v, va, TCG_WRITE, &at);
    const struct mem_range *r = at.range;
    if (at.gpa - r->base + size > r->size) {
        bus_error(v, va, at.gpa, TCG_WRITE);
    }
    if (r->kind == MEM_RAM) {
        store_host(r->host + (at.gpa - r->base), value, size);
        stored(v, r, va, at.gpa, size);
    } else {
        tcg_io_begin(v->cpu);
        v->n_mmio_write++;
        if (bus_write(v->tcg->vm->mem, r, at.gpa, size, value) == BUS_NONE) {
            bus_error(v, va, at.gpa, TCG_WRITE);
        }
        if (v->tcg->trace) {
            trace_mmio(v, true, at.gpa, size, value);
        }
    }
}

static bool crosses(uint64_t va, unsigned size)
{
    return (va & PAGE_MASK) + size > MEM_PAGE_SIZE;
}

static void check_align(struct tcg_vcpu *v, uint64_t va, unsigned size, enum tcg_access access)
{
    if (va & (size - 1)) {
        uint32_t cause = 0;
        uint64_t tval = va;
        v->tcg->guest->align_fault(v->cpu, va, access, &cause, &tval);
        tcg_raise(v->cpu, cause, tval);
    }
}

uint64_t tlb_load(void *cpu, uint64_t va, uint64_t mo)
{
    struct tcg_vcpu *v = tcg_of(cpu);
    unsigned size = 1u << (mo & MO_SIZE);
    enum tcg_access access = mo & MO_AMO ? TCG_WRITE : TCG_READ;
    v->n_slow++;
    v->n_load++;
    va &= v->tcg->guest->pc_mask;
    if (v->guess_left < 0) {
        alias_guessed(v, va);
    }
    if (mo & MO_ALIGN) {
        check_align(v, va, size, access);
    }
    if (!crosses(va, size)) {
        return extend(load_within(v, va, size, access), (unsigned)mo);
    }
    unsigned first = MEM_PAGE_SIZE - (unsigned)(va & PAGE_MASK);
    uint64_t lo = 0, hi = 0;
    for (unsigned i = 0; i < first; i++) {
        lo |= load_within(v, va + i, 1, access) << 8 * i;
    }
    for (unsigned i = first; i < size; i++) {
        hi |= load_within(v, (va + i) & v->tcg->guest->pc_mask, 1, access) << 8 * i;
    }
    return extend(lo | hi, (unsigned)mo);
}

void tlb_store(void *cpu, uint64_t va, uint64_t value, uint64_t mo)
{
    struct tcg_vcpu *v = tcg_of(cpu);
    unsigned size = 1u << (mo & MO_SIZE);
    v->n_slow++;
    v->n_store++;
    va &= v->tcg->guest->pc_mask;
    if (v->guess_left < 0) {
        alias_guessed(v, va);
    }
    if (mo & MO_ALIGN) {
        check_align(v, va, size, TCG_WRITE);
    }
    if (!crosses(va, size)) {
        store_within(v, va, value, size);
        return;
    }
    /* Both pages must be writable before any byte is stored; the lower one's fault is told. */
    struct tcg_tlb_info probe;
    translate(v, va, TCG_WRITE, &probe);
    translate(v, ((va | PAGE_MASK) + 1) & v->tcg->guest->pc_mask, TCG_WRITE, &probe);
    for (unsigned i = 0; i < size; i++) {
        store_within(v, (va + i) & v->tcg->guest->pc_mask, value >> 8 * i & 0xff, 1);
    }
}

static uint64_t amo_result(enum ir_amo kind, uint64_t old, uint64_t v, unsigned size)
{
    unsigned shift = 64 - 8 * size;
    uint64_t uo = old << shift >> shift, uv = v << shift >> shift;
    int64_t so = (int64_t)(old << shift), sv = (int64_t)(v << shift);
    switch (kind) {
    case IR_AMO_SWAP:
        return v;
    case IR_AMO_ADD:
        return old + v;
    case IR_AMO_AND:
        return old & v;
    case IR_AMO_OR:
        return old | v;
    case IR_AMO_XOR:
        return old ^ v;
    case IR_AMO_MIN:
        return so < sv ? old : v;
    case IR_AMO_MAX:
        return so > sv ? old : v;
    case IR_AMO_MINU:
        return uo < uv ? old : v;
    default: /* IR_AMO_MAXU */
        return uo > uv ? old : v;
    }
}

#define CAS(bits)                                                                               \
    {                                                                                           \
        uint##bits##_t was = (uint##bits##_t)expect;                                            \
        __atomic_compare_exchange_n((uint##bits##_t *)(void *)p, &was, (uint##bits##_t)value,   \
                                    false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);                 \
        return was;                                                                             \
    }

/* What was there before, zero-extended. */
static uint64_t cas_host(uint8_t *p, uint64_t expect, uint64_t value, unsigned size)
{
    switch (size) {
    case 1:
        CAS(8)
    case 2:
        CAS(16)
    case 4:
        CAS(32)
    default:
        CAS(64)
    }
}

static uint64_t load_host(const uint8_t *p, unsigned size)
{
    switch (size) {
    case 1:
        return __atomic_load_n(p, __ATOMIC_RELAXED);
    case 2:
        return __atomic_load_n((const uint16_t *)(const void *)p, __ATOMIC_RELAXED);
    case 4:
        return __atomic_load_n((const uint32_t *)(const void *)p, __ATOMIC_RELAXED);
    default:
        return __atomic_load_n((const uint64_t *)(const void *)p, __ATOMIC_RELAXED);
    }
}

/* Atomics need natural alignment (4, 8 or 16 bytes) and RAM; on a device they are a read and a write. */
static uint8_t *atomic_target(struct tcg_vcpu *v, uint64_t va, unsigned size, struct tcg_tlb_info *at)
{
    check_align(v, va, size, TCG_WRITE);
    translate(v, va, TCG_WRITE, at);
    if (at->gpa - at->range->base + size > at->range->size) {
        bus_error(v, va, at->gpa, TCG_WRITE);
    }
    return at->range->kind == MEM_RAM ? at->range->host + (at->gpa - at->range->base) : NULL;
}

uint64_t tlb_amo(void *cpu, uint64_t va, uint64_t value, uint64_t mo_kind)
{
    struct tcg_vcpu *v = tcg_of(cpu);
    unsigned mo = mo_kind & 0xff, size = 1u << (mo & MO_SIZE);
    enum ir_amo kind = (enum ir_amo)(mo_kind >> 8);
    struct tcg_tlb_info at;
    v->n_atomic++;
    va &= v->tcg->guest->pc_mask;
    uint8_t *p = atomic_target(v, va, size, &at);
    uint64_t old;
    if (!p) {
        old = load_within(v, va, size, TCG_WRITE);
        store_within(v, va, amo_result(kind, old, value, size), size);
        return extend(old, mo);
    }
    do {
        old = load_host(p, size);
    } while (cas_host(p, old, amo_result(kind, old, value, size), size) != old);
    stored(v, at.range, va, at.gpa, size);
    return extend(old, mo);
}

uint64_t tlb_cas(void *cpu, uint64_t va, uint64_t expect, uint64_t value, uint64_t mo)
{
    struct tcg_vcpu *v = tcg_of(cpu);
    unsigned size = 1u << (mo & MO_SIZE);
    struct tcg_tlb_info at;
    v->n_atomic++;
    va &= v->tcg->guest->pc_mask;
    uint8_t *p = atomic_target(v, va, size, &at);
    uint64_t want = extend(expect, (unsigned)mo & MO_SIZE), old;
    if (!p) {
        old = load_within(v, va, size, TCG_WRITE);
        if (old == want) {
            store_within(v, va, value, size);
        }
        return extend(old, (unsigned)mo);
    }
    old = cas_host(p, expect, value, size);
    if (old == want) {
        stored(v, at.range, va, at.gpa, size);
    }
    return extend(old, (unsigned)mo);
}

/* A helper's access, told to plugins. */
static void seen(void *cpu, uint64_t va, unsigned mo, unsigned what)
{
    struct tcg_vcpu *v = tcg_of(cpu);
    if (v->tcg->plugins) {
        instrument_access(v, va, what | 1u << (mo & MO_SIZE));
    }
}

void tcg_cas16(void *cpu, uint64_t va, const uint64_t expect[2], const uint64_t value[2], uint64_t old[2])
{
    struct tcg_vcpu *v = tcg_of(cpu);
    struct tcg_tlb_info at;
    va &= v->tcg->guest->pc_mask;
    uint8_t *p = atomic_target(v, va, 16, &at);
    if (!p) {
        old[0] = load_within(v, va, 8, TCG_WRITE);
        old[1] = load_within(v, va + 8, 8, TCG_WRITE);
        if (old[0] == expect[0] && old[1] == expect[1]) {
            store_within(v, va, value[0], 8);
            store_within(v, va + 8, value[1], 8);
        }
    } else if (host_cas16(p, expect, value, old)) {
        stored(v, at.range, va, at.gpa, 16);
    }
    seen(cpu, va, MO_64, ACCESS_LOAD | ACCESS_STORE);
    seen(cpu, va + 8, MO_64, ACCESS_LOAD | ACCESS_STORE);
}

uint64_t tcg_ld(void *cpu, uint64_t va, unsigned mo)
{
    uint64_t value = tlb_load(cpu, va, mo);
    seen(cpu, va, mo, mo & MO_AMO ? ACCESS_LOAD | ACCESS_STORE : ACCESS_LOAD);
    return value;
}

void tcg_st(void *cpu, uint64_t va, uint64_t v, unsigned mo)
{
    tlb_store(cpu, va, v, mo);
    seen(cpu, va, mo, ACCESS_STORE);
}

uint8_t *tcg_host_span(void *cpu, uint64_t va, unsigned n, enum tcg_access access)
{
    struct tcg_vcpu *v = tcg_of(cpu);
    struct tcg_space *s = v->space;
    va &= v->tcg->guest->pc_mask;
    unsigned i = tlb_index(va);
    uint64_t tag = atomic_load_explicit(&s->tlb[i].tag[access], memory_order_relaxed);
    if (tag != (va & ~PAGE_MASK) || crosses(va, n) || v->tcg->plugins) { /* plugins see each access */
        return NULL;
    }
    return (uint8_t *)(uintptr_t)(s->tlb[i].addend + va);
}

bool tcg_readable(void *cpu, uint64_t va, unsigned n)
{
    struct tcg_vcpu *v = tcg_of(cpu);
    for (unsigned done = 0; done < n;) {
        uint64_t at = (va + done) & v->tcg->guest->pc_mask;
        struct tcg_walk w;
        const struct mem_range *r;
        if (!tcg_host_span(cpu, at, 1, TCG_READ) &&
            (walk(v, at, TCG_READ, &w, &r) || !r->host || w.uncached || !whole_page(r, w.gpa))) {
            return false;
        }
        done += MEM_PAGE_SIZE - (unsigned)(at & PAGE_MASK);
    }
    return true;
}

uint64_t tcg_amo(void *cpu, enum ir_amo kind, uint64_t va, uint64_t v, unsigned mo)
{
    uint64_t old = tlb_amo(cpu, va, v, mo | (uint64_t)kind << 8);
    seen(cpu, va, mo, ACCESS_LOAD | ACCESS_STORE);
    return old;
}

uint64_t tcg_cas(void *cpu, uint64_t va, uint64_t expect, uint64_t v, unsigned mo)
{
    uint64_t old = tlb_cas(cpu, va, expect, v, mo);
    seen(cpu, va, mo, ACCESS_LOAD | ACCESS_STORE);
    return old;
}
