/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See tier2_region.h. Runs on the vCPU's thread that asks, under tcg_vm.lock.
 */
#include "engine/tcg/tier2_region.h"

#include "engine/base/mem.h"

#include <string.h>

#define MAX_INSNS 800

struct graph {
    struct tcg_block *block[T2_PIECES];
    bool keep[T2_PIECES], placed[T2_PIECES];
    unsigned n, insns;
};

static int index_of(const struct graph *g, const struct tcg_block *b)
{
    for (unsigned i = 0; i < g->n; i++) {
        if (g->block[i] == b) {
            return (int)i;
        }
    }
    return -1;
}

static bool looked_at(const struct tcg_vm *t, const struct tcg_block *b)
{
    const struct tcg_extra *x = cache_extra(t, b);
    return x && (x->note || x->counts);
}

/* Not what somebody looks at (instrument.h): the calls are in the first tier's blocks only. */
static bool suits(const struct tcg_vm *t, const struct tcg_block *b, const struct tcg_block *hot)
{
    return !atomic_load(&b->invalid) && !b->tier2 && !b->asked && b->mode == hot->mode &&
           (b->gpa ^ hot->gpa) < 4096 && (b->gpa & ~4095ull) == (hot->gpa & ~4095ull) &&
           !b->straddles && !b->uses_variant && !looked_at(t, b);
}

/* All that can be reached by links, nearest first, as far as there is room. */
static void reach(const struct tcg_vm *t, struct graph *g, struct tcg_block *hot)
{
    g->block[0] = hot;
    g->n = 1;
    g->insns = hot->n_insns;
    for (unsigned i = 0; i < g->n; i++) {
        for (unsigned x = 0; x < g->block[i]->n_exits; x++) {
            struct tcg_block *to = cache_linked(t, &g->block[i]->exits[x]);
            if (to && g->n < T2_PIECES && index_of(g, to) < 0 && suits(t, to, hot) &&
                g->insns + to->n_insns <= MAX_INSNS) {
                g->insns += to->n_insns;
                g->block[g->n++] = to;
            }
        }
    }
}

static bool leads_to_kept(const struct tcg_vm *t, const struct graph *g, const struct tcg_block *b)
{
    for (unsigned x = 0; x < b->n_exits; x++) {
        int i = index_of(g, cache_linked(t, &b->exits[x]));
        if (i >= 0 && g->keep[i]) {
            return true;
        }
    }
    return false;
}

/* Keeps what leads back to the hot block: with what can be reached from it, its loops. False: there is none. */
static bool keep_loops(const struct tcg_vm *t, struct graph *g)
{
    bool more = true;
    g->keep[0] = true;
    while (more) {
        more = false;
        for (unsigned i = 1; i < g->n; i++) {
            if (!g->keep[i] && leads_to_kept(t, g, g->block[i])) {
                g->keep[i] = more = true;
            }
        }
    }
    return leads_to_kept(t, g, g->block[0]);
}

static void place(const struct tcg_vm *t, struct graph *g, unsigned i, struct t2_job *job)
{
    struct tcg_block *b = g->block[i];
    g->placed[i] = true;
    job->plain |= b->plain;
    job->piece[job->n++] = (struct t2_piece){ .block = b,
                                              .off = (int32_t)(b->gpa & 4095),
                                              .n_insns = b->n_insns,
                                              .weight = (uint8_t)(1 + (b->heat < 20 ? b->heat : 20)) };
    for (unsigned x = b->n_exits; x-- > 0;) { /* the last exit first: it may fall through */
        int to = index_of(g, cache_linked(t, &b->exits[x]));
        if (to >= 0 && g->keep[to] && !g->placed[to]) {
            place(t, g, (unsigned)to, job);
        }
    }
}

/* Entries are the hot block and wherever an edge goes back to. */
static void find_entries(const struct tcg_vm *t, struct t2_job *job, bool all)
{
    job->piece[0].entry = true;
    job->piece[0].weight += 4;
    for (unsigned i = 0; i < job->n; i++) {
        const struct tcg_block *b = job->piece[i].block;
        job->piece[i].entry |= all;
        for (unsigned x = 0; x < b->n_exits; x++) {
            const struct tcg_block *to = cache_linked(t, &b->exits[x]);
            for (unsigned k = 0; k <= i; k++) {
                job->piece[k].entry |= to == job->piece[k].block;
            }
        }
    }
}

struct t2_job *t2_collect(struct tcg_vcpu *v, struct tcg_block *hot, bool forced)
{
    const struct tcg_vm *t = v->tcg;
    struct graph g = { .n = 0 };
    const struct mem_range *r = mem_find(v->tcg->vm->mem, hot->gpa);
    if (!suits(t, hot, hot) || !r || !r->host) {
        return NULL;
    }
    reach(t, &g, hot);
    if (forced) {
        memset(g.keep, true, sizeof(g.keep));
    } else if (!keep_loops(t, &g)) {
        return NULL;
    }
    struct t2_job *job = xnew(struct t2_job);
    job->v = v;
    job->mode = hot->mode;
    job->code = v->mode_code;
    job->gpa = hot->gpa & ~4095ull;
    job->evictions = v->tcg->stats.evictions;
    place(t, &g, 0, job);
    find_entries(t, job, forced);
    memcpy(job->page, r->host + (job->gpa - r->base), sizeof(job->page));
    return job;
}

int t2_piece_at(const struct t2_job *job, const struct ir_exit *x)
{
    for (unsigned i = 0; i < job->n; i++) {
        if (x->kind == IR_EXIT_DIRECT && x->hint != IR_HINT_GUARD && job->piece[i].off == x->off) {
            return (int)i;
        }
    }
    return -1;
}
