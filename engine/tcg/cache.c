/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Translated blocks: found by guest physical address and mode, linked to each other, dropped when their bytes change.
 *
 * tcg_vm.lock protects everything but the lock-free cache_find(). An invalidated block stays in memory until its region is
 * evicted (evict.c); its entry is patched to leave to the dispatcher, so that no list of incoming links is needed.
 */
#include "engine/tcg/instrument.h"
#include "engine/tcg/tier2.h"


#define PAGE_MASK 0xfffull

static unsigned hash_of(const struct tcg_vm *t, uint64_t gpa, uint32_t mode)
{
    uint64_t h = (gpa >> 1) * 0x9e3779b97f4a7c15ull ^ (uint64_t)mode * 0xff51afd7ed558ccdull;
    return (unsigned)(h >> (64 - t->hash_bits));
}

static struct tcg_block *chain(struct tcg_vm *t, uint64_t gpa, uint32_t mode)
{
    return cache_at(t, atomic_load_explicit(&t->hash[hash_of(t, gpa, mode)], memory_order_acquire));
}

static struct tcg_block *after(const struct tcg_vm *t, struct tcg_block *b)
{
    return cache_at(t, atomic_load_explicit(&b->hash_next, memory_order_acquire));
}

static bool serves(const struct tcg_block *b, uint64_t gpa, uint32_t mode)
{
    return b->gpa == gpa && b->mode == mode && !atomic_load_explicit(&b->invalid, memory_order_relaxed);
}

struct tcg_block *cache_find(struct tcg_vm *t, uint64_t gpa, uint32_t mode, uint32_t variant)
{
    struct tcg_block *generic = NULL;
    for (struct tcg_block *b = chain(t, gpa, mode); b; b = after(t, b)) {
        if (!serves(b, gpa, mode)) {
            continue;
        }
        if (b->generic) {
            generic = b;
        } else if (!b->uses_variant || cache_extra(t, b)->variant == variant) {
            return b;
        }
    }
    return generic;
}

/* Serial numbers wrap around; two blocks that live are never half their range apart. */
static bool newer(uint32_t a, uint32_t b)
{
    return (int32_t)(a - b) > 0;
}

static uint32_t serial_of(const struct tcg_vm *t, const struct tcg_block *b)
{
    return cache_extra(t, b)->serial;
}

struct tcg_block *cache_next_variant(struct tcg_vm *t, uint64_t gpa, uint32_t mode, const struct tcg_block *than)
{
    struct tcg_block *best = NULL;
    bool any = !than || !than->uses_variant; /* that one is gone if there are others */
    for (struct tcg_block *b = chain(t, gpa, mode); b; b = after(t, b)) {
        if (serves(b, gpa, mode) && !b->uses_variant) {
            return b;
        }
        if (serves(b, gpa, mode) && (any || newer(serial_of(t, b), serial_of(t, than))) &&
            (!best || newer(serial_of(t, best), serial_of(t, b)))) {
            best = b;
        }
    }
    return best;
}

unsigned cache_count_variants(struct tcg_vm *t, uint64_t gpa, uint32_t mode)
{
    unsigned n = 0;
    for (struct tcg_block *b = chain(t, gpa, mode); b; b = after(t, b)) {
        n += serves(b, gpa, mode) && b->uses_variant && !b->generic;
    }
    return n;
}

static void unhash(struct tcg_vm *t, struct tcg_block *b)
{
    _Atomic uint32_t *p = &t->hash[hash_of(t, b->gpa, b->mode)];
    for (struct tcg_block *it; (it = cache_at(t, atomic_load_explicit(p, memory_order_relaxed)));
         p = &it->hash_next) {
        if (it == b) {
            /* b keeps its own link, so that a reader standing on it goes on. */
            atomic_store_explicit(p, atomic_load(&b->hash_next), memory_order_release);
            return;
        }
    }
}

/* Which of the two lists of a block belongs to this page. */
static unsigned side(const struct tcg_block *b, uint64_t gpa_page)
{
    return (b->gpa & ~PAGE_MASK) == gpa_page ? 0 : 1;
}

uint32_t *page_link(const struct tcg_vm *t, struct tcg_block *b, uint64_t gpa_page)
{
    return side(b, gpa_page) ? &cache_extra(t, b)->page_next : &b->page_next;
}

static unsigned first_granule(const struct tcg_block *b)
{
    return (unsigned)(b->gpa & PAGE_MASK) / 64;
}

/* The pieces a to z of a page. */
static uint64_t granule_range(unsigned a, unsigned z)
{
    return UINT64_MAX >> (63 - (z - a)) << a;
}

bool cache_holes(uint64_t granules)
{
    uint64_t from_first = granules >> __builtin_ctzll(granules);
    return from_first & (from_first + 1);
}

uint64_t cache_granules(const struct tcg_vm *t, const struct tcg_block *b)
{
    return b->holes ? cache_extra(t, b)->granules : granule_range(first_granule(b), b->last);
}

void cache_set_granules(const struct tcg_vm *t, struct tcg_block *b, uint64_t granules)
{
    unsigned first = (unsigned)__builtin_ctzll(granules);
    b->holes = first != first_granule(b) || cache_holes(granules);
    b->last = (uint8_t)(63 - __builtin_clzll(granules));
    if (b->holes) {
        cache_extra(t, b)->granules = granules;
    }
}

bool cache_set_size(struct tcg_block *b, size_t bytes)
{
    size_t units = (bytes + TCG_CODE_UNIT - 1) / TCG_CODE_UNIT;
    b->code_units = (uint16_t)units;
    return units <= UINT16_MAX;
}

static uint64_t granules_in(const struct tcg_vm *t, const struct tcg_block *b, uint64_t gpa_page)
{
    return side(b, gpa_page) ? cache_extra(t, b)->granules2 : cache_granules(t, b);
}

/* In the list of what is no RAM are blocks of many pages, each by its first. */
static uint64_t page_in(const struct tcg_vm *t, const struct tcg_page *p, const struct tcg_block *b, uint64_t gpa_page)
{
    return p == &t->pages.rom ? b->gpa & ~PAGE_MASK : gpa_page;
}

static void page_remove(struct tcg_vm *t, struct tcg_page *p, struct tcg_block *b, uint64_t gpa_page)
{
    uint32_t *at = &p->blocks, ref = cache_ref(t, b);
    p->made = 0;
    for (struct tcg_block *it; (it = cache_at(t, *at));) {
        uint64_t page = page_in(t, p, it, gpa_page);
        uint32_t *next = page_link(t, it, page);
        if (*at == ref) {
            *at = *next;
        } else {
            p->made |= granules_in(t, it, page);
            at = next;
        }
    }
    __atomic_store_n(&p->granules, p->claims ? UINT64_MAX : p->made, __ATOMIC_SEQ_CST);
}

void cache_retire(struct tcg_vm *t, struct tcg_block *b, bool from_pages)
{
    if (atomic_exchange(&b->invalid, true)) {
        return;
    }
    if (t->tier2) {
        tier2_retired(t, b);
    }
    unhash(t, b);
    struct tcg_page *p = from_pages ? cache_page_of(t, b->gpa) : NULL;
    if (p) {
        page_remove(t, p, b, b->gpa & ~PAGE_MASK);
    }
    uint64_t second = b->straddles && from_pages ? cache_extra(t, b)->gpa_page2 : UINT64_MAX;
    p = second == UINT64_MAX ? NULL : cache_page_of(t, second);
    if (p && p != &t->pages.rom) {
        page_remove(t, p, b, second);
    }
}

void cache_insert(struct tcg_vm *t, struct tcg_block *b, struct tcg_page *page,
                  struct tcg_page *page2)
{
    uint32_t ref = cache_ref(t, b);
    if (b->uses_variant) {
        cache_extra(t, b)->serial = ++t->serial;
    }
    cache_place(t, b);
    page = page ? page : &t->pages.rom;
    b->page_next = page->blocks;
    page->blocks = ref;
    page->made |= cache_granules(t, b); /* granules follow at cache_unclaim() */
    if (page == &t->pages.rom) {
        page->granules = page->made;
    }
    if (page2) {
        struct tcg_extra *x = cache_extra(t, b);
        x->page_next = page2->blocks;
        page2->blocks = ref;
        page2->made |= x->granules2;
    }
    _Atomic uint32_t *head = &t->hash[hash_of(t, b->gpa, b->mode)];
    atomic_store_explicit(&b->hash_next, atomic_load_explicit(head, memory_order_relaxed),
                          memory_order_relaxed);
    atomic_store_explicit(head, ref, memory_order_release);
    t->stats.made++;
    t->stats.insns += b->n_insns;
}

void cache_link(struct tcg_vm *t, struct tcg_exit *x, struct tcg_block *to)
{
    pthread_mutex_lock(&t->lock);
    if (!exit_linked(x) && !atomic_load(&to->invalid) && !atomic_load(&exit_block(x)->invalid)) {
        atomic_fetch_or_explicit(&x->which, EXIT_LINKED, memory_order_relaxed);
        tcg_host()->patch(t, x, to->code);
        t->stats.links++;
    }
    pthread_mutex_unlock(&t->lock);
}

static void kill_block(struct tcg_vm *t, struct tcg_block *b)
{
    cache_retire(t, b, true);
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
    for (struct tcg_block *b = cache_at(t, p->blocks); b; b = next) {
        uint64_t page = page_in(t, p, b, gpa_page);
        next = cache_at(t, *page_link(t, b, page));
        if (page == gpa_page || p != &t->pages.rom ? granules_in(t, b, page) & mask : 0) {
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
        if (cache_page_has_code(p)) {
            uint64_t from = page < gpa ? gpa & PAGE_MASK : 0;
            uint64_t to = end - page < PAGE_MASK ? end - page : PAGE_MASK;
            pthread_mutex_lock(&t->lock);
            p = cache_page_of(t, page); /* records change their page under the lock */
            any |= p && invalidate_page(t, p, page, granule_range((unsigned)(from / 64), (unsigned)(to / 64)));
            pthread_mutex_unlock(&t->lock);
        }
        if (end - page <= PAGE_MASK) {
            return any;
        }
    }
}

void cache_forward(struct tcg_vm *t, struct tcg_block *stale, struct tcg_block *to)
{
    pthread_mutex_lock(&t->lock);
    if (!stale->forward && atomic_load(&stale->invalid) && !atomic_load(&to->invalid)) {
        struct tcg_region *r = &t->regions[to->code / t->region_size];
        stale->forward = cache_ref(t, to);
        stale->page_next = r->forwarders; /* it is on no page any more */
        r->forwarders = cache_ref(t, stale);
        t->stats.forwards++;
        tcg_host()->kill(t, stale, to);
    }
    pthread_mutex_unlock(&t->lock);
}
