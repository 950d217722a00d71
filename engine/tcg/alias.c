/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pages of guest RAM shown a second time, in the order that the guest gives them: where the guest's physical pages are scattered, each page
 * of a data structure has an addend (host minus guest address) of its own, and code that guesses it (host_x86_64/region_mem.c) is
 * wrong at each change of page. In a window of the host's address space such pages lie as the guest's virtual addresses do, and have one
 * addend.
 *
 * A window says nothing about translations: the TLB does, and an entry leads into a window only while the page there is the one that it
 * translates to. A page of a window is never exchanged; when another is wanted there, all of them go at the vCPU's next
 * stop between blocks, with all that the TLBs have.
 *
 * One instance a vCPU, of its thread; page[] is read by others, see tlb_host().
 */
#include "engine/tcg/internal.h"
#include "engine/tcg/tier2.h"

#include <sys/mman.h>
#include <time.h>

#define WINDOW_BITS 32
#define WINDOW_SIZE (1ull << WINDOW_BITS)
#define RESET_NS 50000000u      /* at least from one reset to the next */
#define STABLE_NS 1000000000u   /* without a reset: who guesses wrong now may wait for one again */
#define GUESSES 128             /* wrong ones from one look at them to the next */
#define SELDOM_NS 16000u        /* in which that many do not matter: with 32 good ones each, of 4 ns */
#define HOPELESS 32             /* looks in a row that found nothing to do */

static uint64_t now(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* Where the window of an address begins in the host, or NULL. */
static uint8_t *window_of(struct tcg_alias *a, uint64_t va)
{
    uint64_t base = va & ~(WINDOW_SIZE - 1);
    for (unsigned i = 0; i < TCG_WINDOWS; i++) {
        struct tcg_window *w = &a->window[i];
        if (w->host && w->base == base) {
            return w->host;
        }
        if (!w->host) {
            void *p = mmap(NULL, WINDOW_SIZE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
            if (p != MAP_FAILED) {
                *w = (struct tcg_window){ base, p };
            }
            return w->host;
        }
    }
    return NULL;
}

static void want_reset(struct tcg_vcpu *v, uint64_t at)
{
    if (at - v->alias.reset_at >= RESET_NS) {
        v->alias.reset_at = at;
        v->alias.reset = true;
        atomic_store(&v->exit_req, 1);
    }
}

enum look { SHOWN, THERE /* already */, TAKEN /* its place, by another page */, CANNOT };

/* Shows the page of va, which the TLB has, in its window. */
static enum look show(struct tcg_vcpu *v, uint64_t va, uint64_t at)
{
    struct tlb_entry *e = &v->space->tlb[tlb_index(va)];
    uint64_t tag = atomic_load_explicit(&e->tag[TCG_READ], memory_order_relaxed);
    if (tag != va || !e->range->host) {
        return CANNOT;
    }
    uint64_t host = tlb_host(v, e, va);
    struct tcg_alias_page *p = &v->alias.page[tcg_alias_index(va)];
    if (p->at && (p->va != va || p->host != host)) {
        want_reset(v, at);
        return TAKEN;
    }
    if (p->at && e->addend == p->at - va) {
        return THERE;
    }
    if (!p->at) {
        uint8_t *window = window_of(&v->alias, va);
        uint64_t gpa = e->range->base + (host - (uint64_t)(uintptr_t)e->range->host);
        if (!window) {
            want_reset(v, at);
            return TAKEN;
        }
        if (!mem_range_show(e->range, gpa, window + (va & (WINDOW_SIZE - 1)))) {
            return CANNOT;
        }
        p->va = va;
        p->host = host;
        __atomic_store_n(&p->at, (uint64_t)(uintptr_t)(window + (va & (WINDOW_SIZE - 1))), __ATOMIC_RELEASE);
        v->n_alias++;
    }
    __atomic_store_n(&e->addend, p->at - va, __ATOMIC_RELEASE);
    return SHOWN;
}

/* Nothing more can be done for the region that guesses wrong, unless others' pages are in the way: then the windows go first, once. */
static bool hopeless(struct tcg_alias *a, enum look found)
{
    if (++a->bad < HOPELESS) {
        return false;
    }
    if (found == TAKEN && a->waits == 0) {
        a->bad = HOPELESS; /* until they are gone */
        return false;
    }
    a->bad = a->waits = 0;
    return true;
}

void alias_guessed(struct tcg_vcpu *v, uint64_t va)
{
    struct tcg_alias *a = &v->alias;
    uint64_t at = now(), passed = at - a->looked_at;
    unsigned since = a->next ? a->next : 1;
    a->looked_at = at;
    a->next = GUESSES;
    if (at - a->reset_at > STABLE_NS) {
        a->waits = 0;
    }
    v->n_guess += since;
    if (since == GUESSES && passed > SELDOM_NS) {
        a->bad -= a->bad > 0;
    } else {
        enum look found = show(v, va & ~(uint64_t)(MEM_PAGE_SIZE - 1), at);
        if (found == SHOWN) {
            a->bad = 0;
        } else if (found == THERE && since == GUESSES) {
            a->next = 1; /* the page before was not: look where the next wrong guess leads */
        } else if (hopeless(a, found)) {
            tier2_plain(v);
        }
    }
    v->guess_left = (int32_t)a->next - 1;
}

void alias_reset(struct tcg_vcpu *v)
{
    struct tcg_alias *a = &v->alias;
    a->reset = false;
    a->waits += a->bad >= HOPELESS;
    a->bad = 0;
    tlb_flush_vcpu(v);
    for (unsigned i = 0; i < TCG_ALIASES; i++) {
        __atomic_store_n(&a->page[i].at, 0, __ATOMIC_RELAXED);
    }
    for (unsigned i = 0; i < TCG_WINDOWS; i++) {
        if (a->window[i].host) {
            munmap(a->window[i].host, WINDOW_SIZE);
            a->window[i].host = NULL;
        }
    }
}
