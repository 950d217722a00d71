/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Address spaces of a vCPU: which one a mode has, what is remembered of it (both levels of the soft TLB and of the jump cache), and how that
 * is dropped. ADR 0013 says why it is made this way.
 *
 * A space belongs to its vCPU's thread. Others only make write tags slow (tlb_revoke_write). The second levels are read and written
 * by the vCPU's thread alone: what may be stored to directly is decided anew when an entry comes from it.
 */
#include "engine/tcg/hostops.h"
#include "engine/tcg/internal.h"

#include "engine/base/mem.h"

#include <errno.h>

#define PAGE_MASK 0xfffull
#define HASH(x) ((x) * 0x9e3779b97f4a7c15ull)

/* ---- windows: only what was written since the last flush is cleared ---- */

static void clear_tags(struct tcg_space *s)
{
    for (unsigned w = 0; w < ARRAY_LEN(s->tlb_used); w++) {
        uint64_t used = atomic_load_explicit(&s->tlb_used[w], memory_order_relaxed);
        for (uint64_t left = used; left; left &= left - 1) {
            unsigned at = (w * 64 + (unsigned)__builtin_ctzll(left)) * TLB_WINDOW;
            for (unsigned i = at; i < at + TLB_WINDOW; i++) {
                tag_set(&s->tlb[i].tag[TCG_READ], UINT64_MAX); /* all ones has TLB_INVALID */
                tag_set(&s->tlb[i].tag[TCG_WRITE], UINT64_MAX);
            }
        }
        atomic_store_explicit(&s->tlb_used[w], 0, memory_order_relaxed);
    }
    for (unsigned w = 0; w < ARRAY_LEN(s->writable); w++) {
        atomic_store_explicit(&s->writable[w], 0, memory_order_relaxed);
    }
}

static void clear_jumps(struct tcg_space *s)
{
    for (unsigned w = 0; w < ARRAY_LEN(s->jc_used); w++) {
        for (uint64_t left = s->jc_used[w]; left; left &= left - 1) {
            unsigned at = (w * 64 + (unsigned)__builtin_ctzll(left)) * JC_WINDOW;
            for (unsigned i = at; i < at + JC_WINDOW; i++) {
                s->jc[i].pc = 1;
            }
        }
        s->jc_used[w] = 0;
    }
}

void space_flush(struct tcg_vcpu *v, struct tcg_space *s)
{
    if (atomic_load_explicit(&s->clean, memory_order_relaxed)) {
        return;
    }
    clear_tags(s);
    clear_jumps(s);
    for (unsigned i = 0; i < FTLB_SIZE; i++) {
        s->fetch[i].tag = UINT64_MAX;
    }
    memset(s->fetched, 0, sizeof(s->fetched));
    atomic_store_explicit(&s->clean, true, memory_order_relaxed);
    s->local = false;
    s->generation = ++v->generations; /* nobody finds what the second level holds of it */
}

/* One that was never used: everything counts as written. */
static void space_make(struct tcg_vcpu *v, struct tcg_space *s)
{
    for (unsigned w = 0; w < ARRAY_LEN(s->tlb_used); w++) {
        atomic_store_explicit(&s->tlb_used[w], UINT64_MAX, memory_order_relaxed);
    }
    memset(s->jc_used, 0xff, sizeof(s->jc_used));
    atomic_store_explicit(&s->clean, false, memory_order_relaxed);
    space_flush(v, s);
}

static uint64_t *fetched(struct tcg_space *s, uint64_t va, uint64_t *bit)
{
    uint64_t h = HASH(va >> 12) >> 52;
    *bit = 1ull << (h & 63);
    return &s->fetched[h >> 6];
}

void space_fetches(struct tcg_space *s, uint64_t va)
{
    uint64_t bit, *word = fetched(s, va, &bit);
    *word |= bit;
    atomic_store_explicit(&s->clean, false, memory_order_relaxed);
}

/* ---- the second level of the jump cache ---- */

/* The sets of a page follow each other, and so do those of its pcs. */
#define JUMP2_SPREAD 64u

static unsigned jump2_set(const struct tcg_vcpu *v, const struct tcg_space *s, uint64_t pc)
{
    uint64_t page = HASH((pc >> 12) ^ s->generation << 40);
    return (unsigned)((page >> 40) + (pc >> 1) % JUMP2_SPREAD) & v->jump2_mask;
}

static const uint8_t *code_base(const struct tcg_vm *t)
{
    return t->config.backend == TCG_JIT ? t->buf.rx : t->buf.rw;
}

const void *jump2_find(const struct tcg_vcpu *v, uint64_t pc)
{
    if (!v->jump2) {
        return NULL;
    }
    const struct jump2_set *set = &v->jump2[jump2_set(v, v->space, pc)];
    for (unsigned k = 0; k < JUMP2_WAYS; k++) {
        if (set->pc[k] == pc && set->generation[k] == v->space->generation) {
            return code_base(v->tcg) + set->code[k];
        }
    }
    return NULL;
}

static void jump2_insert(struct tcg_vcpu *v, uint64_t pc, const void *code)
{
    if (!v->jump2) {
        v->jump2_mask = v->tcg->jump2_sets - 1;
        v->jump2 = mem_map_huge((size_t)v->tcg->jump2_sets * sizeof(struct jump2_set));
        if (!v->jump2) {
            return;
        }
    }
    struct jump2_set *set = &v->jump2[jump2_set(v, v->space, pc)];
    unsigned at = JUMP2_WAYS;
    for (unsigned k = JUMP2_WAYS; k-- > 0;) {
        at = set->generation[k] == 0 ? k : at;
    }
    for (unsigned k = 0; k < JUMP2_WAYS; k++) {
        at = set->pc[k] == pc && set->generation[k] == v->space->generation ? k : at;
    }
    at = at < JUMP2_WAYS ? at : v->jump2_clock++ % JUMP2_WAYS;
    set->pc[at] = pc;
    set->generation[at] = v->space->generation;
    set->code[at] = (uint32_t)((const uint8_t *)code - code_base(v->tcg));
}

void space_remember(struct tcg_vcpu *v, uint64_t pc, const void *code)
{
    jc_insert(v->space, pc, code);
    jump2_insert(v, pc, code);
}

void space_forget(struct tcg_vcpu *v, struct tcg_space *s, uint64_t pc)
{
    struct tcg_jump *j = jc_find(s, pc);
    if (j) {
        j->pc = 1;
    }
    struct jump2_set *set = v->jump2 ? &v->jump2[jump2_set(v, s, pc)] : NULL;
    for (unsigned k = 0; set && k < JUMP2_WAYS; k++) {
        if (set->pc[k] == pc && set->generation[k] == s->generation) {
            set->generation[k] = 0;
        }
    }
}

void jump2_forget(struct tcg_vcpu *v, uint32_t lo, uint32_t hi)
{
    for (unsigned i = 0; v->jump2 && i <= v->jump2_mask; i++) {
        struct jump2_set *set = &v->jump2[i];
        for (unsigned k = 0; k < JUMP2_WAYS; k++) {
            if (set->code[k] - lo < hi - lo) {
                set->generation[k] = 0;
            }
        }
    }
}

static void jump2_drop_page(struct tcg_vcpu *v, const struct tcg_space *s, uint64_t page)
{
    for (unsigned off = 0; v->jump2 && off < 2 * JUMP2_SPREAD; off += 2) {
        struct jump2_set *set = &v->jump2[jump2_set(v, s, page + off)];
        for (unsigned k = 0; k < JUMP2_WAYS; k++) {
            if ((set->pc[k] & ~PAGE_MASK) == page && set->generation[k] == s->generation) {
                set->generation[k] = 0;
            }
        }
    }
}

/* Instructions that end in this page and begin before it. */
static void flush_straddlers(struct tcg_vcpu *v, struct tcg_space *s, uint64_t page)
{
    const struct tcg_guest *g = v->tcg->guest;
    for (unsigned off = g->insn_align; off < g->insn_max; off += g->insn_align) {
        space_forget(v, s, (page - off) & g->pc_mask);
    }
}

static void flush_jumps(struct tcg_vcpu *v, struct tcg_space *s, uint64_t va)
{
    uint64_t bit, page = va & ~PAGE_MASK;
    if (!(*fetched(s, va, &bit) & bit)) {
        return;
    }
    flush_straddlers(v, s, page);
    jump2_drop_page(v, s, page);
    /* The pcs of 2 * JC_WINDOW bytes have the entries of a window. */
    for (unsigned off = 0; off < MEM_PAGE_SIZE; off += 2 * JC_WINDOW) {
        unsigned w = jc_index(page + off) / JC_WINDOW;
        for (unsigned i = 0; s->jc_used[w / 64] >> w % 64 & 1 && i < JC_WINDOW; i++) {
            struct tcg_jump *j = &s->jc[w * JC_WINDOW + i];
            if ((j->pc & ~PAGE_MASK) == page) {
                j->pc = 1;
            }
        }
    }
    struct tcg_fetch *f = &s->fetch[(va >> 12) % FTLB_SIZE];
    if ((f->tag & ~PAGE_MASK) == page) {
        f->tag = UINT64_MAX;
    }
}

/* ---- the second level ---- */

/* Pages that follow each other have sets that do. */
static struct tlb2_set *tlb2_set(const struct tcg_vcpu *v, const struct tcg_space *s, uint64_t va)
{
    return &v->tlb2[((va >> 12) + (HASH(s->generation) >> 40)) % TLB2_SETS];
}

bool tlb2_find(const struct tcg_vcpu *v, uint64_t va, unsigned *prot, struct tcg_tlb_info *out)
{
    const struct tlb2_set *set = tlb2_set(v, v->space, va);
    for (unsigned k = 0; k < TLB2_WAYS; k++) {
        if ((set->tag[k] & ~PAGE_MASK) == va && set->generation[k] == v->space->generation &&
            (set->tag[k] & *prot)) {
            *prot = (unsigned)(set->tag[k] & PAGE_MASK);
            *out = set->to[k];
            return true;
        }
    }
    return false;
}

void tlb2_insert(struct tcg_vcpu *v, uint64_t va, uint64_t gpa, unsigned prot, const struct mem_range *r)
{
    struct tlb2_set *set = tlb2_set(v, v->space, va);
    unsigned at = TLB2_WAYS;
    for (unsigned k = 0; k < TLB2_WAYS; k++) {
        bool same = (set->tag[k] & ~PAGE_MASK) == va && set->generation[k] == v->space->generation;
        if (same || (set->generation[k] == 0 && at == TLB2_WAYS)) {
            at = k;
        }
        if (same) {
            break;
        }
    }
    if (at == TLB2_WAYS) {
        at = v->tlb2_clock++ % TLB2_WAYS;
    }
    set->tag[at] = va | prot;
    set->generation[at] = v->space->generation;
    set->to[at] = (struct tcg_tlb_info){ gpa, r };
}

static void tlb2_drop(struct tcg_vcpu *v, const struct tcg_space *s, uint64_t va)
{
    struct tlb2_set *set = tlb2_set(v, s, va);
    for (unsigned k = 0; k < TLB2_WAYS; k++) {
        if ((set->tag[k] & ~PAGE_MASK) == (va & ~PAGE_MASK) && set->generation[k] == s->generation) {
            set->generation[k] = 0; /* no space's */
        }
    }
}

void space_flush_page(struct tcg_vcpu *v, struct tcg_space *s, uint64_t va)
{
    unsigned i = tlb_index(va);
    for (unsigned k = 0; k < 2; k++) {
        uint64_t tag = atomic_load_explicit(&s->tlb[i].tag[k], memory_order_relaxed);
        if ((tag & ~PAGE_MASK) == (va & ~PAGE_MASK)) {
            tag_set(&s->tlb[i].tag[k], UINT64_MAX);
        }
    }
    tlb2_drop(v, s, va);
    flush_jumps(v, s, va);
}

void tlb_flush_vcpu(struct tcg_vcpu *v)
{
    for (unsigned i = 0; i < TCG_SPACES; i++) {
        if (v->spaces[i]) {
            space_flush(v, v->spaces[i]);
        }
    }
}

int tlb_init(struct tcg_vcpu *v, struct err *e)
{
    v->space_pool = mem_map_huge(TCG_SPACES * sizeof(struct tcg_space));
    v->tlb2 = v->space_pool ? mem_map_huge(TLB2_SETS * sizeof(struct tlb2_set)) : NULL;
    if (!v->tlb2) {
        int rc = err_errno(e, errno, "cannot map the soft TLB of vCPU %u", v->vcpu->index);
        tlb_free(v);
        return rc;
    }
    return 0;
}

void tlb_free(struct tcg_vcpu *v)
{
    mem_unmap_huge(v->space_pool, TCG_SPACES * sizeof(struct tcg_space));
    mem_unmap_huge(v->tlb2, TLB2_SETS * sizeof(struct tlb2_set));
    if (v->jump2) {
        mem_unmap_huge(v->jump2, (v->jump2_mask + 1ull) * sizeof(struct jump2_set));
    }
}

/* ---- which space a mode has ---- */

static bool same_mode(struct tcg_mode a, struct tcg_mode b)
{
    return a.code == b.code && a.mmu == b.mmu && a.shared == b.shared &&
           (a.asid == b.asid || a.shared);
}

/* A shared space goes on under another table: global pages stay, which are usually all. */
static void change_table(struct tcg_vcpu *v, struct tcg_space *s, uint64_t asid)
{
    if (s->mode.asid != asid && s->local) {
        space_flush(v, s);
    }
    s->mode.asid = asid;
}

/* Where a space of this mode was seen last. */
static struct tcg_space **hint_of(struct tcg_vcpu *v, struct tcg_mode m)
{
    uint64_t key = (uint64_t)m.code << 32 ^ m.mmu ^ (m.shared ? 0 : m.asid * 0x9e3779b97f4a7c15ull);
    return &v->space_hint[(key * 0x9e3779b97f4a7c15ull) >> 60];
}

/* The space of the mode, or NULL and the one to take instead. */
static struct tcg_space *space_search(struct tcg_vcpu *v, struct tcg_mode m, struct tcg_space ***victim)
{
    *victim = &v->spaces[0];
    for (unsigned i = 0; i < v->tcg->max_spaces; i++) {
        struct tcg_space *s = v->spaces[i];
        if (!s) {
            *victim = &v->spaces[i];
            break;
        }
        if (same_mode(s->mode, m)) {
            return s;
        }
        if (s->last_used < (**victim)->last_used) {
            *victim = &v->spaces[i];
        }
    }
    return NULL;
}

struct tcg_space *space_select(struct tcg_vcpu *v, struct tcg_mode m)
{
    struct tcg_space **hint = hint_of(v, m), **victim;
    struct tcg_space *s = *hint && same_mode((*hint)->mode, m) ? *hint : space_search(v, m, &victim);
    v->use_clock++;
    if (s) {
        change_table(v, s, m.asid);
    } else {
        v->n_space++;
        if (*victim) {
            s = *victim;
            space_flush(v, s);
        } else {
            s = &v->space_pool[victim - v->spaces];
            space_make(v, s);
            *victim = s;
        }
        s->mode = m;
    }
    s->last_used = v->use_clock;
    *hint = s;
    return s;
}

/* ---- write access ---- */

bool tlb_revoke_write(struct tcg_vcpu *v, const uint8_t *host_page)
{
    bool any = false;
    uint64_t host = (uint64_t)(uintptr_t)host_page;
    for (unsigned n = 0; n < TCG_SPACES; n++) {
        struct tcg_space *s = v->spaces[n];
        if (!s || !space_may_write(s, host)) {
            continue;
        }
        for (unsigned w = 0; w < TLB_SIZE / TLB_WINDOW; w++) {
            if (!(atomic_load_explicit(&s->tlb_used[w / 64], memory_order_relaxed) >> w % 64 & 1)) {
                continue;
            }
            for (unsigned i = w * TLB_WINDOW; i < (w + 1) * TLB_WINDOW; i++) {
                uint64_t tag = atomic_load_explicit(&s->tlb[i].tag[TCG_WRITE], memory_order_acquire);
                if (!(tag & (TLB_INVALID | TLB_SLOW)) && tlb_host(v, &s->tlb[i], tag & ~PAGE_MASK) == host) {
                    atomic_compare_exchange_strong(&s->tlb[i].tag[TCG_WRITE], &tag, tag | TLB_SLOW);
                    any = true;
                }
            }
        }
    }
    /* Asked for last: a region that remembers the page told so before its tag went. */
    return any || atomic_load_explicit(&v->in_region, memory_order_acquire);
}

/* ---- what the guest asks for ---- */

void tcg_flush_all(void *cpu)
{
    struct tcg_vcpu *v = tcg_of(cpu);
    v->n_flush_all++;
    tlb_flush_vcpu(v);
}

void tcg_flush_asid(void *cpu, uint64_t asid)
{
    struct tcg_vcpu *v = tcg_of(cpu);
    v->n_flush_asid++;
    for (unsigned i = 0; i < TCG_SPACES; i++) {
        struct tcg_space *s = v->spaces[i];
        if (s && s->mode.asid == asid && (s->local || !s->mode.shared)) {
            space_flush(v, s);
        }
    }
}

void tcg_flush_page(void *cpu, uint64_t va)
{
    struct tcg_vcpu *v = tcg_of(cpu);
    v->n_flush_page++;
    for (unsigned i = 0; i < TCG_SPACES; i++) {
        if (v->spaces[i] && !v->spaces[i]->clean) {
            space_flush_page(v, v->spaces[i], va);
        }
    }
}

void tcg_flush_page_asid(void *cpu, uint64_t va, uint64_t asid)
{
    struct tcg_vcpu *v = tcg_of(cpu);
    v->n_flush_page++;
    for (unsigned i = 0; i < TCG_SPACES; i++) {
        if (v->spaces[i] && v->spaces[i]->mode.asid == asid) {
            space_flush_page(v, v->spaces[i], va);
        }
    }
}
