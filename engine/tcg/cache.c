/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Translated blocks: found by guest physical address and mode, linked to each other, dropped when their bytes change,
 * evicted a region (a sixteenth of the cache) at a time.
 *
 * tcg_vm.lock protects everything but the lock-free cache_find(). An invalidated block stays in memory until its region is
 * evicted; its entry is patched to leave to the dispatcher, so that no list of incoming links is needed.
 */
#include "engine/tcg/instrument.h"
#include "engine/tcg/tier2.h"

#include "engine/base/log.h"
#include "engine/base/mem.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define PAGE_MASK 0xfffull

static unsigned hash_of(uint64_t gpa, uint32_t mode)
{
    uint64_t h = (gpa >> 1) * 0x9e3779b97f4a7c15ull ^ (uint64_t)mode * 0xff51afd7ed558ccdull;
    return (unsigned)(h >> (64 - TCG_HASH_BITS));
}

int cache_init(struct tcg_vm *t, struct err *e)
{
    int rc = codebuf_init(&t->buf, t->config.cache_size, t->config.perf_map, e);
    if (rc < 0) {
        return rc;
    }
    pthread_mutex_init(&t->lock, NULL);
    if (t->config.backend == TCG_JIT) {
        t->reserved = (tcg_host()->init(t, e) + 63) & ~(size_t)63;
    }
    t->region_size = t->buf.size / TCG_REGIONS;
    t->region = 0;
    t->region_used = t->reserved;
    return 0;
}

static void free_block(struct tcg_block *b)
{
    free(b->entries);
    free(b->exits);
    free(b->sites);
    free(b->counts);
    instrument_free(b->note);
    free(b);
}

void cache_done(struct tcg_vm *t)
{
    for (unsigned r = 0; r < TCG_REGIONS; r++) {
        for (unsigned i = 0; i < t->n_by_host[r]; i++) {
            free_block(t->by_host[r][i]);
        }
        free(t->by_host[r]);
    }
    free(t->pages);
    free(t->host_data);
    codebuf_done(&t->buf);
    pthread_mutex_destroy(&t->lock);
}

struct tcg_page *cache_page(struct tcg_vm *t, const struct mem_range *r, uint64_t gpa)
{
    if (r->kind != MEM_RAM) {
        return NULL;
    }
    uint64_t n = r->ram_page + (gpa - r->base) / MEM_PAGE_SIZE;
    return n < t->n_pages ? &t->pages[n] : NULL;
}

static struct tcg_block *chain(struct tcg_vm *t, uint64_t gpa, uint32_t mode)
{
    return atomic_load_explicit(&t->hash[hash_of(gpa, mode)], memory_order_acquire);
}

static struct tcg_block *after(struct tcg_block *b)
{
    return atomic_load_explicit(&b->hash_next, memory_order_acquire);
}

static bool serves(const struct tcg_block *b, uint64_t gpa, uint32_t mode)
{
    return b->gpa == gpa && b->mode == mode && !atomic_load_explicit(&b->invalid, memory_order_relaxed);
}

struct tcg_block *cache_find(struct tcg_vm *t, uint64_t gpa, uint32_t mode, uint32_t variant)
{
    struct tcg_block *generic = NULL;
    for (struct tcg_block *b = chain(t, gpa, mode); b; b = after(b)) {
        if (!serves(b, gpa, mode)) {
            continue;
        }
        if (b->generic) {
            generic = b;
        } else if (!b->uses_variant || b->variant == variant) {
            return b;
        }
    }
    return generic;
}

struct tcg_block *cache_next_variant(struct tcg_vm *t, uint64_t gpa, uint32_t mode, uint64_t serial)
{
    struct tcg_block *best = NULL;
    for (struct tcg_block *b = chain(t, gpa, mode); b; b = after(b)) {
        if (serves(b, gpa, mode) && b->serial > serial && (!best || b->serial < best->serial)) {
            best = b;
        }
    }
    return best;
}

unsigned cache_count_variants(struct tcg_vm *t, uint64_t gpa, uint32_t mode)
{
    unsigned n = 0;
    for (struct tcg_block *b = chain(t, gpa, mode); b; b = after(b)) {
        n += serves(b, gpa, mode) && b->uses_variant && !b->generic;
    }
    return n;
}

static void unhash(struct tcg_vm *t, struct tcg_block *b)
{
    _Atomic(struct tcg_block *) *p = &t->hash[hash_of(b->gpa, b->mode)];
    for (struct tcg_block *it; (it = atomic_load_explicit(p, memory_order_relaxed));
         p = &it->hash_next) {
        if (it == b) {
            /* b keeps its own link, so that a reader standing on it goes on. */
            atomic_store_explicit(p, atomic_load(&b->hash_next), memory_order_release);
            return;
        }
    }
}

/* Which of the two chains of a block belongs to this page. */
static unsigned side(const struct tcg_block *b, uint64_t gpa_page)
{
    return (b->gpa & ~PAGE_MASK) == gpa_page ? 0 : 1;
}

static void page_union(struct tcg_page *p, uint64_t gpa_page)
{
    p->made = 0;
    for (struct tcg_block *b = p->blocks; b; b = b->page_next[side(b, gpa_page)]) {
        p->made |= side(b, gpa_page) ? b->granules2 : b->granules;
    }
    __atomic_store_n(&p->granules, p->claims ? UINT64_MAX : p->made, __ATOMIC_SEQ_CST);
}

static void page_remove(struct tcg_page *p, struct tcg_block *b, uint64_t gpa_page)
{
    struct tcg_block **at = &p->blocks;
    while (*at && *at != b) {
        at = &(*at)->page_next[side(*at, gpa_page)];
    }
    if (*at) {
        *at = b->page_next[side(b, gpa_page)];
    }
}

struct tcg_page *cache_page_of(struct tcg_vm *t, uint64_t gpa)
{
    const struct mem_range *r = mem_find(t->vm->mem, gpa);
    return r ? cache_page(t, r, gpa) : NULL;
}

/* Takes a block out of the hash and its pages; its memory stays. */
static void retire(struct tcg_vm *t, struct tcg_block *b)
{
    if (atomic_exchange(&b->invalid, true)) {
        return;
    }
    if (t->tier2) {
        tier2_retired(t, b);
    }
    unhash(t, b);
    uint64_t pages[2] = { b->gpa & ~PAGE_MASK, b->gpa_page2 };
    for (unsigned i = 0; i < 2; i++) {
        struct tcg_page *p = pages[i] == UINT64_MAX ? NULL : cache_page_of(t, pages[i]);
        if (p) {
            page_remove(p, b, pages[i]);
            page_union(p, pages[i]);
        }
    }
}

uint32_t cache_fill_point(const struct tcg_vm *t)
{
    return (uint32_t)(t->region * t->region_size + t->region_used);
}

static size_t region_start(const struct tcg_vm *t, unsigned r)
{
    return r == 0 ? t->reserved : 0;
}

/* Host memory of a block beside its code. */
static size_t table_bytes(const struct tcg_block *b)
{
    return sizeof(*b) + b->n_exits * sizeof(b->exits[0]) + b->n_sites * sizeof(b->sites[0]) +
           (b->counts ? b->n_insns * 4ul : 0);
}

/* Frees everything in a region; nobody is inside translated code. */
static void evict(struct tcg_vm *t, unsigned r)
{
    if (t->n_by_host[r] == 0) {
        return;
    }
    size_t lo = r * t->region_size, hi = lo + t->region_size;
    for (unsigned i = 0; i < t->n_by_host[r]; i++) {
        retire(t, t->by_host[r][i]);
    }
    for (unsigned o = 0; o < TCG_REGIONS; o++) {
        for (unsigned i = 0; o != r && i < t->n_by_host[o]; i++) {
            struct tcg_block *b = t->by_host[o][i];
            for (unsigned x = 0; x < b->n_exits; x++) {
                struct tcg_exit *ex = &b->exits[x];
                const struct tcg_block *to = ex->to;
                if (to && to->code >= lo && to->code < hi) {
                    tcg_host()->patch(t, ex, ex->stub);
                    ex->to = NULL;
                }
            }
            if (b->forward && b->forward->code >= lo && b->forward->code < hi) {
                tcg_host()->kill(t, b, NULL);
                b->forward = NULL;
            }
        }
    }
    for (unsigned i = 0; i < t->n_by_host[r]; i++) {
        t->stats.blocks--;
        t->stats.code_bytes -= t->by_host[r][i]->code_size;
        t->stats.table_bytes -= table_bytes(t->by_host[r][i]);
        free_block(t->by_host[r][i]);
    }
    t->n_by_host[r] = 0;
    for (unsigned i = 0; i < t->n_vcpus; i++) {
        tlb_flush_vcpu(t->vcpus[i]);
    }
    t->stats.evictions++;
}

bool cache_reserve(struct tcg_vm *t, size_t max, bool may_evict)
{
    if (t->region_used + max <= t->region_size) {
        codebuf_grow(&t->buf, t->region * t->region_size + t->region_used + max);
        return true;
    }
    unsigned next = (t->region + 1) % TCG_REGIONS;
    if (t->n_by_host[next] && !may_evict) {
        return false;
    }
    evict(t, next);
    t->region = next;
    t->region_used = region_start(t, next);
    codebuf_grow(&t->buf, next * t->region_size + t->region_used + max);
    return true;
}

void cache_insert(struct tcg_vm *t, struct tcg_block *b, struct tcg_page *page,
                  struct tcg_page *page2)
{
    unsigned r = t->region;
    b->region = r;
    b->serial = ++t->serial;
    t->region_used = (t->region_used + b->code_size + 15) & ~(size_t)15;
    if (t->n_by_host[r] == t->cap_by_host[r]) {
        t->cap_by_host[r] = t->cap_by_host[r] ? t->cap_by_host[r] * 2 : 256;
        t->by_host[r] = xrealloc_n(t->by_host[r], t->cap_by_host[r], sizeof(t->by_host[r][0]));
    }
    t->by_host[r][t->n_by_host[r]++] = b;
    struct tcg_page *p[2] = { page, page2 };
    uint64_t g[2] = { b->granules, b->granules2 };
    for (unsigned i = 0; i < 2; i++) {
        if (p[i]) {
            b->page_next[i] = p[i]->blocks;
            p[i]->blocks = b;
            p[i]->made |= g[i]; /* granules follow at cache_unclaim() */
        }
    }
    _Atomic(struct tcg_block *) *head = &t->hash[hash_of(b->gpa, b->mode)];
    atomic_store_explicit(&b->hash_next, atomic_load_explicit(head, memory_order_relaxed),
                          memory_order_relaxed);
    atomic_store_explicit(head, b, memory_order_release);
    t->stats.blocks++;
    t->stats.made++;
    t->stats.table_bytes += table_bytes(b);
    t->stats.insns += b->n_insns;
    t->stats.code_bytes += b->code_size;
}

void cache_claim(struct tcg_vcpu *v, struct tcg_page *p, const uint8_t *host_page)
{
    struct tcg_vm *t = v->tcg;
    pthread_mutex_lock(&t->lock);
    p->claims++;
    __atomic_store_n(&p->granules, UINT64_MAX, __ATOMIC_SEQ_CST);
    uint32_t writers = atomic_exchange(&p->writers, 0);
    /* Another claim of this page may have taken tags away just now, and waits for their stores. */
    uint32_t wait = p->claims > 1 && t->revoking ? UINT32_MAX : 0;
    t->revoking += writers != 0;
    pthread_mutex_unlock(&t->lock);
    bool revoked = false;
    for (unsigned i = 0; writers && i < t->n_vcpus; i++) {
        uint32_t bit = 1u << t->vcpus[i]->vcpu->index % 32;
        if (writers & bit && tlb_revoke_write(t->vcpus[i], host_page)) {
            revoked = true;
            wait |= t->vcpus[i] == v ? 0 : bit;
        }
    }
    if (wait) {
        tcg_quiesce(v, wait); /* no store may be in flight between its check and its effect */
    }
    if (writers) {
        pthread_mutex_lock(&t->lock);
        t->revoking--;
        t->stats.revokes += revoked;
        pthread_mutex_unlock(&t->lock);
    }
}

void cache_unclaim(struct tcg_vm *t, struct tcg_page *p)
{
    (void)t;
    if (--p->claims == 0) {
        __atomic_store_n(&p->granules, p->made, __ATOMIC_SEQ_CST);
    }
}

void cache_link(struct tcg_vm *t, struct tcg_exit *x, struct tcg_block *to)
{
    pthread_mutex_lock(&t->lock);
    if (!x->to && !atomic_load(&to->invalid) && !atomic_load(&x->block->invalid)) {
        x->to = to;
        tcg_host()->patch(t, x, to->code);
        t->stats.links++;
    }
    pthread_mutex_unlock(&t->lock);
}

/* 64-byte pieces of a page that [from, to] touches (offsets within the page). */
static uint64_t mask_of(uint64_t from, uint64_t to)
{
    unsigned a = (unsigned)(from / 64), z = (unsigned)(to / 64);
    return UINT64_MAX >> (63 - (z - a)) << a;
}

static void kill_block(struct tcg_vm *t, struct tcg_block *b)
{
    retire(t, b);
    if (t->config.backend == TCG_JIT) {
        tcg_host()->kill(t, b, NULL);
    }
}

void cache_drop(struct tcg_vm *t, struct tcg_block *b)
{
    pthread_mutex_lock(&t->lock);
    if (!atomic_load(&b->invalid)) {
        kill_block(t, b);
    }
    pthread_mutex_unlock(&t->lock);
}

static bool invalidate_page(struct tcg_vm *t, struct tcg_page *p, uint64_t gpa_page, uint64_t mask)
{
    bool any = false;
    if (p->claims) {
        __atomic_store_n(&p->changes, p->changes + 1, __ATOMIC_SEQ_CST);
    }
    struct tcg_block *next;
    for (struct tcg_block *b = p->blocks; b; b = next) {
        unsigned s = side(b, gpa_page);
        next = b->page_next[s];
        if ((s ? b->granules2 : b->granules) & mask) {
            kill_block(t, b);
            t->stats.invalidations++;
            any = true;
        }
    }
    return any;
}

bool cache_invalidate(struct tcg_vm *t, uint64_t gpa, uint64_t n)
{
    bool any = false;
    if (n == 0 || gpa + n - 1 < gpa) {
        return false;
    }
    uint64_t end = gpa + n - 1;
    for (uint64_t page = gpa & ~PAGE_MASK;; page += MEM_PAGE_SIZE) {
        struct tcg_page *p = cache_page_of(t, page);
        if (p && cache_page_has_code(p)) {
            uint64_t from = page < gpa ? gpa & PAGE_MASK : 0;
            uint64_t to = end - page < PAGE_MASK ? end - page : PAGE_MASK;
            pthread_mutex_lock(&t->lock);
            any |= invalidate_page(t, p, page, mask_of(from, to));
            pthread_mutex_unlock(&t->lock);
        }
        if (end - page <= PAGE_MASK) {
            return any;
        }
    }
}

void cache_flush_all(struct tcg_vm *t)
{
    pthread_mutex_lock(&t->lock);
    t->stats.flushes++;
    for (unsigned r = 0; r < TCG_REGIONS; r++) {
        evict(t, r);
    }
    t->region = 0;
    t->region_used = t->reserved;
    pthread_mutex_unlock(&t->lock);
}

struct tcg_block *cache_by_host(struct tcg_vm *t, uint64_t host)
{
    uint64_t off = host - (uint64_t)(uintptr_t)t->buf.rx;
    unsigned r = (unsigned)(off / t->region_size);
    if (off >= t->buf.size || r >= TCG_REGIONS) {
        return NULL;
    }
    unsigned lo = 0, hi = t->n_by_host[r];
    while (lo < hi) { /* the last block that starts at or before off */
        unsigned mid = (lo + hi) / 2;
        if (t->by_host[r][mid]->code <= off) {
            lo = mid + 1;
        } else {
            hi = mid;
        }
    }
    return lo ? t->by_host[r][lo - 1] : NULL;
}

void cache_forward(struct tcg_vm *t, struct tcg_block *stale, struct tcg_block *to)
{
    pthread_mutex_lock(&t->lock);
    if (!stale->forward && atomic_load(&stale->invalid) && !atomic_load(&to->invalid)) {
        stale->forward = to;
        t->stats.forwards++;
        tcg_host()->kill(t, stale, to);
    }
    pthread_mutex_unlock(&t->lock);
}

bool cache_site(struct tcg_vm *t, uint64_t host, int32_t *insn)
{
    bool found = false;
    pthread_mutex_lock(&t->lock);
    struct tcg_block *b = cache_by_host(t, host);
    uint64_t off = host - (uint64_t)(uintptr_t)t->buf.rx;
    for (uint32_t l = 0, h = b ? b->n_sites : 0; l < h && !found;) {
        uint32_t mid = (l + h) / 2;
        if (b->sites[mid].host == off) {
            *insn = b->sites[mid].insn;
            found = true;
        } else if (b->sites[mid].host < off) {
            l = mid + 1;
        } else {
            h = mid;
        }
    }
    pthread_mutex_unlock(&t->lock);
    return found;
}
