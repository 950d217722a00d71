/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From guest bytes to a block: superblocks that follow jumps inside one page, the guest's translate hook for each
 * instruction, the IR passes, the back end. Runs on the vCPU's thread.
 */
#include "engine/tcg/instrument.h"

#include "engine/base/buf.h"
#include "engine/base/log.h"
#include "engine/base/mem.h"

#include <stdlib.h>
#include <string.h>

#define PAGE 4096

static bool in_page(int32_t off)
{
    return off >= 0 && off < PAGE;
}

uint16_t tcg_fetch16(struct tcg_trans *t, int32_t off)
{
    uint16_t v;
    if (off + 2 > PAGE) {
        t->straddles = true;
        if (!t->page2) {
            return 0;
        }
        memcpy(&v, t->page2 + (off - PAGE), 2);
    } else {
        memcpy(&v, t->page + off, 2);
    }
    return v;
}

uint32_t tcg_fetch32(struct tcg_trans *t, int32_t off)
{
    return tcg_fetch16(t, off) | (uint32_t)tcg_fetch16(t, off + 2) << 16;
}

static bool seen(const struct tcg_trans *t, int32_t off)
{
    unsigned bit = (unsigned)off / 2;
    return t->seen[bit / 64 % 64] >> bit % 64 & 1;
}

static unsigned direct(struct tcg_trans *t, int32_t target, enum ir_hint hint)
{
    return ir_exit_new(t->ir, IR_EXIT_DIRECT, target, IR_NONE, hint);
}

/* Of an instruction that lies in two pages a direct link would know the first only. */
static bool straddler(const struct tcg_trans *t, int32_t off)
{
    return in_page(off) && off > PAGE - (int32_t)t->isa->insn_max &&
           off + (int32_t)t->isa->insn_length(t->page + off, (unsigned)(PAGE - off)) > PAGE;
}

/* An exit that is no poll and no guard: it goes elsewhere. */
static unsigned away(struct tcg_trans *t, int32_t target, enum ir_hint hint)
{
    unsigned x = direct(t, target, hint);
    t->ir->exits[x].far = straddler(t, target);
    return x;
}

static bool leave(struct tcg_trans *t, int32_t target, enum ir_hint hint)
{
    if (target <= t->off && !t->icount) {
        ir_poll(t->ir, direct(t, target, hint));
    }
    ir_exit(t->ir, away(t, target, hint));
    return false;
}

bool tcg_goto(struct tcg_trans *t, int32_t target, enum ir_hint hint)
{
    if (hint == IR_HINT_NONE && in_page(target) && !seen(t, target) && target > t->off) {
        t->next_off = target;
        return true;
    }
    return leave(t, target, hint);
}

void tcg_branch(struct tcg_trans *t, enum ir_cond c, unsigned w, ir_ref a, ir_ref b,
                int32_t target)
{
    if (target <= t->off) {
        tcg_poll(t);
    }
    ir_brcond(t->ir, c, w, a, b, away(t, target, IR_HINT_NONE));
}

bool tcg_jump(struct tcg_trans *t, ir_ref target, enum ir_hint hint)
{
    int64_t off;
    if (ir_is_pcrel(t->ir, target, &off) && off >= INT32_MIN / 2 && off <= INT32_MAX / 2) {
        return leave(t, (int32_t)off, hint);
    }
    unsigned x = ir_exit_new(t->ir, IR_EXIT_INDIRECT, 0, target, hint);
    if (!t->icount) {
        ir_poll(t->ir, x);
    }
    ir_exit(t->ir, x);
    return false;
}

void tcg_poll(struct tcg_trans *t)
{
    if (!t->icount) { /* the counts of segments do it */
        ir_poll(t->ir, direct(t, t->off, IR_HINT_NONE));
    }
}

bool tcg_stop(struct tcg_trans *t, int32_t target)
{
    ir_setpc(t->ir, ir_pcrel(t->ir, target));
    return tcg_stop_pc(t);
}

bool tcg_stop_pc(struct tcg_trans *t)
{
    ir_exit(t->ir, ir_exit_new(t->ir, IR_EXIT_LOOKUP, 0, IR_NONE, IR_HINT_NONE));
    return false;
}

uint32_t tcg_variant(struct tcg_trans *t)
{
    if (t->variant_known) {
        return t->variant;
    }
    t->variant_known = t->variant_used = true;
    t->variant = t->generic ? TCG_VARIANT_UNKNOWN : t->entry_variant;
    if (!t->generic) {
        ir_ref word = ir_ldenv(t->ir, t->variant_offset, MO_32);
        ir_brcond(t->ir, IR_NE, 32, word, ir_const(t->ir, t->variant),
                  direct(t, t->off, IR_HINT_GUARD));
        if (t->icount) {
            icount_restart(t);
        }
    }
    return t->variant;
}

void tcg_variant_set(struct tcg_trans *t, uint32_t value)
{
    t->variant_known = true;
    t->variant = value;
}

/* Compact code is not made twice: where a block begins already, it is jumped to. */
static bool joins(const struct tcg_trans *t, int32_t off)
{
    if (t->record && !(__atomic_load_n(&t->record->made, __ATOMIC_RELAXED) >> off / 64 & 1)) {
        return false; /* nothing was made from these 64 bytes: no need to search */
    }
    return cache_find(t->tcg, t->gpa_page + (uint64_t)off, t->mode, t->entry_variant) != NULL;
}

void tcg_make_ir(const struct tcg_guest *g, struct tcg_trans *t, unsigned max,
                 uint64_t *granules)
{
    int32_t off = t->start;
    t->isa = g;
    ir_start(t->ir, g->globals, g->n_globals, g->pc_offset);
    memset(t->seen, 0, sizeof(t->seen));
    t->insns = 0;
    t->guest = 0;
    t->straddles = false;
    t->variant_known = t->variant_used = false;
    *granules = 0;
    for (;;) {
        unsigned bit = (unsigned)off / 2, last = (unsigned)off + g->insn_max - 1;
        t->seen[bit / 64] |= 1ull << bit % 64;
        *granules |= 1ull << off / 64 | 1ull << (last < PAGE ? last / 64 : 63);
        t->off = off;
        ir_insn(t->ir, off);
        t->insns++;
        if (t->icount) {
            icount_insn(t);
        }
        bool more = g->translate(t);
        if (t->icount) {
            icount_insn_end(t);
        }
        if (!more) {
            break;
        }
        off = t->next_off;
        if (!in_page(off) || off > PAGE - (int32_t)g->insn_max || seen(t, off) ||
            t->insns >= max || t->ir->n_ops > IR_MAX_OPS - 128 ||
            t->ir->n_exits > IR_MAX_EXITS - 8 || (t->joins && joins(t, off))) {
            leave(t, off, IR_HINT_NONE);
            break;
        }
    }
    if (t->icount) {
        icount_end(t);
    }
}

static void log_block(struct tcg_vcpu *v, const struct tcg_trans *t, uint64_t pc)
{
    if (log_traces('i') && v->tcg->guest->disas) {
        for (unsigned i = 0; i < t->ir->n_ops; i++) {
            if (t->ir->ops[i].op != IR_insn) {
                continue;
            }
            char text[128];
            int32_t off = (int32_t)t->ir->ops[i].imm;
            uint8_t bytes[16] = { 0 };
            size_t n = in_page(off) && off < PAGE - 16 ? 16 : (size_t)(PAGE - off);
            memcpy(bytes, t->page + off, n);
            uint64_t at = (pc & ~(uint64_t)(PAGE - 1)) + (uint64_t)off;
            v->tcg->guest->disas(bytes, 16, at, t->code, text, sizeof(text));
            log_trace('i', "%016llx  %s", (unsigned long long)at, text);
        }
    }
    if (log_traces('o')) {
        AUTO_BUF b = BUF_INIT;
        ir_print(t->ir, &b);
        log_trace('o', "block %016llx\n%s", (unsigned long long)pc, b.data);
    }
}

/* Are new blocks compact code? */
static bool compact(const struct tcg_vcpu *v)
{
    return !v->full && !v->tcg->config.no_compact && v->tcg->config.backend == TCG_JIT;
}

/* What is known of a block before it has its place. */
struct making {
    uint64_t gpa, granules;
    uint32_t mode;
    bool straddles;
    struct tcg_note *note;
};

/* IR to host code at the fill point; t->lock held. 0 when it does not fit. */
static size_t compile(struct tcg_vcpu *v, struct tcg_block *b, size_t room)
{
    uint32_t at = cache_fill_point(v->tcg);
    b->code = at;
    return v->tcg->config.backend == TCG_INTERP ? ir_interp_compile(v, b, at, room)
                                                : tcg_host()->compile(v, b, at, room);
}

static size_t room_for(const struct ir *ir)
{
    return 1024 + ir->n_ops * 160ul + ir->n_exits * 96ul + ir->n_vecs * 1536ul +
           (ir->n_vecs ? 8192u : 0u);
}

/* The instructions as optimised IR, fewer than max when something overflows. Returns how many were asked for in the end. */
static unsigned make(struct tcg_vcpu *v, struct tcg_trans *t, struct making *m, unsigned max,
                     uint64_t pc)
{
    for (;; max = max > 1 ? max / 2 : 1) {
        tcg_make_ir(v->tcg->guest, t, max, &m->granules);
        if (t->ir->overflow) {
            continue; /* a single instruction never overflows: guests emit a bounded number of ops each */
        }
        instrument_free(m->note);
        m->note = instrument(v, t, pc, m->gpa);
        if (!t->ir->overflow) {
            ir_optimise(t->ir, v->tcg->config.check);
            return max;
        }
    }
}

/* Exits to a known place of the page have a record: those that leave to the dispatcher by name. */
static unsigned count_records(struct ir *ir)
{
    unsigned n = 0;
    for (unsigned i = 0; i < ir->n_exits; i++) {
        ir->exits[i].record = (uint16_t)n;
        n += ir_exit_named(&ir->exits[i]);
    }
    return n;
}

/* A block with its code, at the fill point; NULL when it does not fit. */
static struct tcg_block *finish(struct tcg_vcpu *v, const struct tcg_trans *t, const struct making *m, size_t room)
{
    bool extra = m->straddles || m->note || t->icount || t->variant_used || cache_holes(m->granules);
    struct ir_exit *exits = t->ir->exits;
    struct tcg_block *b = cache_begin(v->tcg, count_records(t->ir), extra);
    b->gpa = m->gpa;
    cache_set_granules(v->tcg, b, m->granules);
    b->mode = m->mode;
    b->n_insns = (uint16_t)t->insns;
    b->uses_variant = t->variant_used;
    b->generic = t->variant_used && t->generic;
    if (t->variant_used) {
        cache_extra(v->tcg, b)->variant = t->entry_variant;
    }
    b->lean = compact(v) && !t->variant_used; /* variants are ordered by age: they stay */
    for (unsigned i = 0; i < t->ir->n_exits; i++) {
        if (ir_exit_named(&exits[i])) {
            b->exits[exits[i].record].off = (unsigned)exits[i].off & (PAGE - 1);
            b->exits[exits[i].record].guard = exits[i].hint == IR_HINT_GUARD;
        }
    }
    return compile(v, b, room) ? b : NULL;
}

/* From the IR to host code, under the lock; anew with fewer instructions when it is too complex. NULL: the region must be
 * evicted. */
static struct tcg_block *build(struct tcg_vcpu *v, struct tcg_trans *t, struct making *m, unsigned max,
                               bool may_evict, uint64_t pc)
{
    for (;; max = make(v, t, m, max > 1 ? max / 2 : 1, pc)) {
        m->straddles = t->straddles;
        size_t room = room_for(t->ir), most = cache_largest(v->tcg), tables = cache_table_size(t->ir->n_exits, true);
        room = room + tables < most ? room : most - tables; /* what does not fit is cut in half */
        if (!cache_reserve(v->tcg, room + tables, may_evict)) {
            return NULL;
        }
        log_block(v, t, pc);
        struct tcg_block *b = finish(v, t, m, room);
        if (b) {
            return b;
        }
    }
}

struct pages {
    struct tcg_page *p[2];
    struct tcg_fetch second, uncached2;
    const struct tcg_fetch *f2;
    uint32_t cause;
    uint64_t tval;
};

static const uint8_t *host_page(const struct tcg_fetch *f)
{
    return f->range->host + (f->gpa - f->range->base);
}

static void claim_pages(struct tcg_vcpu *v, uint64_t pc, const struct tcg_fetch *f,
                        bool near_end, struct pages *pg)
{
    memset(pg, 0, sizeof(*pg));
    pg->p[0] = cache_claim(v, f->range, f->gpa);
    if (near_end) {
        uint64_t va2 = ((pc | (PAGE - 1)) + 1) & v->tcg->guest->pc_mask;
        pg->f2 = tlb_fetch(v, va2, &pg->uncached2, &pg->cause, &pg->tval);
        if (pg->f2) {
            pg->second = *pg->f2; /* the entry may be replaced */
            pg->f2 = &pg->second;
            pg->p[1] = cache_claim(v, pg->second.range, pg->second.gpa);
        }
    }
}

static void unclaim_pages(struct tcg_vcpu *v, struct pages *pg)
{
    for (unsigned i = 0; i < 2; i++) {
        if (pg->p[i]) {
            cache_unclaim(v->tcg, pg->p[i]);
        }
    }
}

/* Differs from what it was when bytes of the claimed pages may have changed in between. */
static uint32_t changes(const struct pages *pg)
{
    uint32_t sum = 0;
    for (unsigned i = 0; i < 2; i++) {
        sum += pg->p[i] ? __atomic_load_n(&pg->p[i]->changes, __ATOMIC_SEQ_CST) : 0;
    }
    return sum;
}

static struct tcg_trans begin(struct tcg_vcpu *v, const struct tcg_fetch *f, const struct pages *pg,
                              const struct making *m, int32_t start)
{
    struct tcg_vm *tcg = v->tcg;
    uint32_t variants = tcg->guest->variant_offset;
    return (struct tcg_trans){
        .ir = v->ir,
        .cpu = v->cpu,
        .code = v->mode_code,
        .page = host_page(f),
        .page2 = pg->f2 ? host_page(pg->f2) : NULL,
        .record = pg->p[0] != &tcg->pages.rom ? pg->p[0] : NULL,
        .start = start,
        .tcg = tcg,
        .icount = tcg->icount != NULL,
        .joins = compact(v),
        .gpa_page = f->gpa,
        .mode = m->mode,
        .variant_offset = variants,
        .generic = !variants || cache_count_variants(tcg, m->gpa, m->mode) >= TCG_VARIANTS,
        .entry_variant = tcg_variant_word(v),
    };
}

struct tcg_block *tcg_translate(struct tcg_vcpu *v, uint64_t pc, const struct tcg_fetch *f_in)
{
    struct tcg_vm *tcg = v->tcg;
    struct tcg_fetch f = *f_in;
    int32_t start = (int32_t)(pc & (PAGE - 1));
    bool near_end = start > PAGE - (int32_t)tcg->guest->insn_max;
    unsigned max = near_end || f.tag & TLB_SLOW || v->one_insn ? 1 : tcg->config.max_insns;
    struct pages pg;
    claim_pages(v, pc, &f, near_end, &pg);
    struct making m = { .gpa = f.gpa | (uint64_t)start, .mode = tcg_block_mode(v, &f) };
    struct tcg_trans t = begin(v, &f, &pg, &m, start);
    /* The longer half goes without the lock. A store that fell into what was read meanwhile had no block to drop: then
     * once more, with the lock, where such a store waits until it has one. */
    uint32_t before = changes(&pg);
    bool observed = tcg_observed(tcg); /* notes are made under the lock */
    unsigned n = observed ? 0 : make(v, &t, &m, max, pc);
    pthread_mutex_lock(&tcg->lock);
    n = !observed && changes(&pg) == before ? n : make(v, &t, &m, max, pc);
    struct tcg_block *b = build(v, &t, &m, n, false, pc);
    if (!b) {
        pthread_mutex_unlock(&tcg->lock);
        tcg_exclusive_begin(v);
        pthread_mutex_lock(&tcg->lock);
        n = make(v, &t, &m, max, pc);
        b = build(v, &t, &m, n, true, pc); /* with may_evict there is always room */
        tcg_exclusive_end(v);
    }
    if (t.straddles && !pg.f2) {
        instrument_free(m.note);
        b = NULL;
        v->cause = pg.cause;
        v->tval = pg.tval;
    } else {
        struct tcg_extra *x = cache_extra(tcg, b);
        if (x) {
            x->note = m.note;
            x->counts = t.icount ? icount_table(&t) : NULL;
        }
        if (t.straddles) {
            b->straddles = true;
            x->gpa_page2 = pg.second.gpa;
            x->granules2 = 1;
        }
        cache_insert(tcg, b, pg.p[0], t.straddles ? pg.p[1] : NULL);
        v->n_translate++;
        if (tcg->perfmap) {
            perfmap_block(tcg, b, "guest", pc);
        }
    }
    unclaim_pages(v, &pg);
    pthread_mutex_unlock(&tcg->lock);
    return b;
}
