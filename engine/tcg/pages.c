/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the translator knows about pages of guest RAM: which have translated code, and which vCPU may have a tag for fast
 * stores to them. One byte for every page, and records in groups of neighbours for those with code.
 *
 * Records are made under tcg_vm.lock and read without it. They are given to other pages only inside an exclusive section and
 * never freed before the end, so that a thread that is no vCPU's (DMA) may still look at one: it looks again under the lock.
 */
#include "engine/tcg/internal.h"

#include "engine/base/mem.h"

#include <stdlib.h>

#define MAX_TRIES 4

void cache_pages_done(struct tcg_vm *t)
{
    struct tcg_pages *p = &t->pages;
    for (uint64_t g = 0; p->group && g * TCG_PAGE_GROUP < p->n; g++) {
        free(atomic_load(&p->group[g]));
    }
    for (unsigned i = 0; i < p->n_spare; i++) {
        free(p->spare[i]);
    }
    free(p->spare);
    free((void *)p->group);
    free((void *)p->writers);
    *p = (struct tcg_pages){ .n = 0 };
}

void cache_pages_reset(struct tcg_vm *t)
{
    struct tcg_pages *p = &t->pages;
    uint64_t n = mem_ram_pages(t->vm->mem);
    unsigned most = p->max_groups; /* by cache_layout(), once */
    if (p->group &&
        p->n == n) { /* no code is left, and another thread may look at a record just now */
        for (uint64_t i = 0; i <= n; i++) {
            atomic_store_explicit(&p->writers[i], 0, memory_order_relaxed);
        }
        return;
    }
    cache_pages_done(t);
    p->max_groups = most;
    p->n = n;
    p->group = xalloc_n(p->n / TCG_PAGE_GROUP + 1, sizeof(p->group[0]));
    p->writers = xalloc_n(p->n + 1, sizeof(p->writers[0]));
}

/* Number of a page of RAM, or UINT64_MAX. */
static uint64_t number(const struct tcg_vm *t, const struct mem_range *r, uint64_t gpa)
{
    uint64_t n = r && r->kind == MEM_RAM ? r->ram_page + (gpa - r->base) / MEM_PAGE_SIZE
                                         : UINT64_MAX;
    return n < t->pages.n ? n : UINT64_MAX;
}

struct tcg_page *cache_page(struct tcg_vm *t, const struct mem_range *r, uint64_t gpa)
{
    uint64_t n = number(t, r, gpa);
    struct tcg_page *g = n == UINT64_MAX
                             ? NULL
                             : atomic_load_explicit(&t->pages.group[n / TCG_PAGE_GROUP],
                                                    memory_order_acquire);
    return g ? g + n % TCG_PAGE_GROUP : NULL;
}

struct tcg_page *cache_page_of(struct tcg_vm *t, uint64_t gpa)
{
    const struct mem_range *r = mem_find(t->vm->mem, gpa);
    return r && r->kind == MEM_RAM ? cache_page(t, r, gpa) : &t->pages.rom;
}

_Atomic uint8_t *cache_writers(const struct tcg_vm *t, const struct mem_range *r, uint64_t gpa)
{
    uint64_t n = number(t, r, gpa);
    return n == UINT64_MAX ? NULL : &t->pages.writers[n];
}

/* ---- records ---- */

static bool idle(const struct tcg_page *g)
{
    for (unsigned i = 0; i < TCG_PAGE_GROUP; i++) {
        if (g[i].blocks || g[i].claims) {
            return false;
        }
    }
    return true;
}

/* The lock is held, nobody is in guest code: groups without code become spare. */
static void reclaim(struct tcg_vm *t)
{
    struct tcg_pages *p = &t->pages;
    p->spare = xrealloc_n(p->spare, p->n_groups + 1, sizeof(p->spare[0]));
    for (uint64_t g = 0; g * TCG_PAGE_GROUP < p->n; g++) {
        struct tcg_page *records = atomic_load(&p->group[g]);
        if (records && idle(records)) {
            atomic_store(&p->group[g], NULL);
            p->spare[p->n_spare++] = records;
        }
    }
}

/* The record of page n; NULL when there are as many as the limit allows. Lock held. */
static struct tcg_page *record(struct tcg_vm *t, uint64_t n)
{
    struct tcg_pages *p = &t->pages;
    struct tcg_page *g = atomic_load(&p->group[n / TCG_PAGE_GROUP]);
    if (!g && p->n_spare) {
        g = p->spare[--p->n_spare];
        for (unsigned i = 0; i < TCG_PAGE_GROUP; i++) {
            g[i].granules = g[i].made = 0;
        }
    } else if (!g && p->n_groups < p->max_groups) {
        g = xnew_n(struct tcg_page, TCG_PAGE_GROUP);
        p->n_groups++;
    }
    if (g) {
        atomic_store(&p->group[n / TCG_PAGE_GROUP], g);
    }
    return g ? g + n % TCG_PAGE_GROUP : NULL;
}

/* Drops code so that there is a record to be had: first a region, as often as that may help, then all. */
static void make_room(struct tcg_vcpu *v, unsigned tries)
{
    struct tcg_vm *t = v->tcg;
    tcg_exclusive_begin(v);
    pthread_mutex_lock(&t->lock);
    reclaim(t);
    if (!t->pages.n_spare) {
        cache_evict_next(t);
        for (unsigned i = 0; tries >= MAX_TRIES && i < t->n_regions; i++) {
            cache_evict_one(t, i);
        }
        reclaim(t);
    }
    pthread_mutex_unlock(&t->lock);
    tcg_exclusive_end(v);
}

struct tcg_page *cache_claim(struct tcg_vcpu *v, const struct mem_range *r, uint64_t gpa)
{
    struct tcg_vm *t = v->tcg;
    uint64_t n = number(t, r, gpa);
    if (n == UINT64_MAX) {
        return NULL;
    }
    pthread_mutex_lock(&t->lock);
    cache_layout(t);
    struct tcg_page *p;
    for (unsigned tries = 0; !(p = record(t, n)); tries++) {
        pthread_mutex_unlock(&t->lock);
        make_room(v, tries);
        pthread_mutex_lock(&t->lock);
    }
    p->claims++;
    __atomic_store_n(&p->granules, UINT64_MAX, __ATOMIC_SEQ_CST);
    uint8_t writers = atomic_exchange(&t->pages.writers[n], 0);
    /* Another claim of this page may have taken tags away just now, and waits for their stores. */
    uint32_t wait = p->claims > 1 && t->revoking ? UINT32_MAX : 0;
    t->revoking += writers != 0;
    pthread_mutex_unlock(&t->lock);
    const uint8_t *host_page = r->host + ((gpa & ~(uint64_t)(MEM_PAGE_SIZE - 1)) - r->base);
    bool revoked = false;
    for (unsigned i = 0; writers && i < t->n_vcpus; i++) {
        unsigned index = t->vcpus[i]->vcpu->index;
        if (writers >> index % 8 & 1 && tlb_revoke_write(t->vcpus[i], host_page)) {
            revoked = true;
            wait |= t->vcpus[i] == v ? 0 : 1u << index % 32;
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
    return p;
}

void cache_unclaim(struct tcg_vm *t, struct tcg_page *p)
{
    (void)t;
    if (--p->claims == 0) {
        __atomic_store_n(&p->granules, p->made, __ATOMIC_SEQ_CST);
    }
}
