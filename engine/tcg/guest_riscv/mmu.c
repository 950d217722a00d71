/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Address translation: Bare, Sv32, Sv39, Sv48 and Sv57 (Privileged 1.12 §4.3 to §4.6), with Svadu.
 *
 * Accessed and dirty bits: with menvcfg.ADUE set the walk sets them itself, by compare-and-swap on the entry in guest
 * RAM; with it clear a missing bit is a page fault and software sets it. ADUE is set at reset, because a hart that
 * names svadu and not svade promises hardware updates to software that knows nothing of the bit.
 *
 * Memory types of Svpbmt are checked and change nothing: there is no cache to bypass and no order to relax. A page of
 * Svnapot is a superpage of 64 KiB.
 *
 * Every load of an entry is checked by physical memory protection as a supervisor's read. Runs on the vCPU's own thread.
 */
#include "engine/core/mem.h"
#include "engine/core/vm.h"
#include "engine/tcg/guest_riscv/helper.h"
#include "engine/tcg/guest_riscv/sys.h"

enum {
    PTE_V = 1,
    PTE_R = 2,
    PTE_W = 4,
    PTE_X = 8,
    PTE_U = 16,
    PTE_G = 32,
    PTE_A = 64,
    PTE_D = 128
};
#define PTE_PPN_SHIFT 10
#define PTE_PPN_RV64 (((1ull << 44) - 1) << PTE_PPN_SHIFT)
#define PTE_RESERVED_RV64 (0x7full << 54)
#define PTE_PBMT (3ull << 61)
#define PTE_N (1ull << 63)
enum { NAPOT_BITS = 16 }; /* a page of 64 KiB, with this in the low bits of its number */
#define NAPOT_CODE 8u
#define PHYSICAL_BITS_RV64 56

/* Geometry of a scheme. */
struct scheme {
    uint8_t levels, index_bits,
        pte_shift; /* bits of the table index; log2 of the size of an entry */
    uint8_t va_bits;
};

static const struct scheme *scheme_of(const struct riscv_cpu *c)
{
    static const struct scheme sv32 = { 2, 10, 2, 32 };
    static const struct scheme sv39 = { 3, 9, 3, 39 };
    static const struct scheme sv48 = { 4, 9, 3, 48 };
    static const struct scheme sv57 = { 5, 9, 3, 57 };

    if (c->xlen == 32) {
        return c->satp >> 31 & 1 ? &sv32 : NULL;
    }
    switch (c->satp >> 60) {
    case RV_SATP_SV39:
        return &sv39;
    case RV_SATP_SV48:
        return &sv48;
    case RV_SATP_SV57:
        return &sv57;
    default:
        return NULL;
    }
}

bool riscv_satp_mode_ok(const struct riscv_cpu *c, unsigned mode)
{
    if (mode == RV_SATP_BARE) {
        return true;
    }
    if (c->xlen == 32) {
        return mode == RV_SATP_SV32 && RISCV_HAS(c->features, RISCV_EXT_S);
    }
    switch (mode) {
    case RV_SATP_SV39:
        return RISCV_HAS(c->features, RISCV_EXT_SV39);
    case RV_SATP_SV48:
        return RISCV_HAS(c->features, RISCV_EXT_SV48);
    case RV_SATP_SV57:
        return RISCV_HAS(c->features, RISCV_EXT_SV57);
    default:
        return false;
    }
}

/* ---- superpages ---- */

enum {
    SUPERPAGE_UNIT_BITS = 30,
    SUPERPAGE_SLOTS = 8,
    SUPERPAGE_ANYWHERE = SUPERPAGE_SLOTS + 1
};

bool riscv_superpage_near(const struct riscv_cpu *c, uint64_t va)
{
    if (c->n_superpages == SUPERPAGE_ANYWHERE) {
        return true;
    }
    for (unsigned i = 0; i < c->n_superpages; i++) {
        if (c->superpages[i] == va >> SUPERPAGE_UNIT_BITS) {
            return true;
        }
    }
    return false;
}

void riscv_superpage_forget(struct riscv_cpu *c)
{
    c->n_superpages = 0;
}

/* A page of 2^bits bytes at va was used. */
static void superpage_note(struct riscv_cpu *c, uint64_t va, unsigned bits)
{
    if (bits > SUPERPAGE_UNIT_BITS) {
        c->n_superpages = SUPERPAGE_ANYWHERE;
    } else if (!riscv_superpage_near(c, va)) {
        if (c->n_superpages < SUPERPAGE_SLOTS) {
            c->superpages[c->n_superpages] = va >> SUPERPAGE_UNIT_BITS;
        }
        c->n_superpages++;
    }
}

/* ---- faults ---- */

static uint32_t page_fault(enum tcg_access access)
{
    static const uint32_t causes[] = { RISCV_CAUSE_LOAD_PAGE, RISCV_CAUSE_STORE_PAGE,
                                       RISCV_CAUSE_FETCH_PAGE };
    return causes[access];
}

static uint32_t access_fault(enum tcg_access access)
{
    static const uint32_t causes[] = { RISCV_CAUSE_LOAD_ACCESS, RISCV_CAUSE_STORE_ACCESS,
                                       RISCV_CAUSE_FETCH_ACCESS };
    return causes[access];
}

static int refuse(struct tcg_walk *w, uint32_t cause)
{
    w->cause = cause;
    w->tval = w->va;
    return 1;
}

void riscv_tcg_bus_fault(void *cpu, uint64_t va, uint64_t gpa, enum tcg_access access,
                         uint32_t *cause, uint64_t *tval)
{
    (void)cpu;
    (void)gpa;
    *cause = access_fault(access);
    *tval = va;
}

void riscv_tcg_align_fault(void *cpu, uint64_t va, enum tcg_access access, uint32_t *cause,
                           uint64_t *tval)
{
    static const uint32_t causes[] = { RISCV_CAUSE_LOAD_MISALIGNED,
                                       RISCV_CAUSE_STORE_MISALIGNED,
                                       RISCV_CAUSE_FETCH_MISALIGNED };
    (void)cpu;
    *cause = causes[access];
    *tval = va;
}

static unsigned prot_of(enum tcg_access access)
{
    static const unsigned prots[] = { TCG_PROT_R, TCG_PROT_W, TCG_PROT_X };
    return prots[access];
}

/* ---- the walk ---- */

static unsigned access_priv(const struct tcg_walk *w)
{
    if (w->access == TCG_FETCH) {
        return w->mmu & RV_MMU_FETCH_PRIV;
    }
    return (w->mmu & RV_MMU_DATA_PRIV) >> RV_MMU_DATA_SHIFT;
}

/* The last step, the same for all schemes: protection of the physical address, at privilege priv. w->prot holds what
 * translation allows. */
static int protect(struct riscv_cpu *c, struct tcg_walk *w, unsigned priv)
{
    bool whole = true;
    unsigned allowed;

    if (c->xlen == 64 && w->gpa >> PHYSICAL_BITS_RV64) {
        return refuse(w, access_fault(w->access));
    }
    allowed = riscv_pmp_allows(c, w->gpa, priv, &whole);
    if (!(allowed & prot_of(w->access))) {
        return refuse(w, access_fault(w->access));
    }
    w->prot &= allowed;
    w->uncached = !whole;
    return 0;
}

/* Under MPRV fetches have another privilege than data: neither walk speaks for the other. */
static unsigned own_prot(const struct tcg_walk *w, unsigned prot)
{
    bool split = (w->mmu & RV_MMU_FETCH_PRIV) !=
                 (w->mmu & RV_MMU_DATA_PRIV) >> RV_MMU_DATA_SHIFT;
    unsigned data = TCG_PROT_R | TCG_PROT_W;

    return !split ? prot : prot & (w->access == TCG_FETCH ? (unsigned)TCG_PROT_X : data);
}

/* What a leaf entry allows; 0 when the privilege may not use the page at all. */
static unsigned leaf_prot(uint64_t pte, unsigned priv, uint32_t mmu)
{
    unsigned prot = (pte & PTE_W ? TCG_PROT_W : 0u) | (pte & PTE_X ? TCG_PROT_X : 0u);

    if ((pte & PTE_R) || ((mmu & RV_MMU_MXR) && (pte & PTE_X))) {
        prot |= TCG_PROT_R;
    }
    if (pte & PTE_U) {
        if (priv == RISCV_S) {
            /* Never executed; data only with SUM. */
            prot = mmu & RV_MMU_SUM ? prot & ~(unsigned)TCG_PROT_X : 0;
        }
    } else if (priv == RISCV_U) {
        prot = 0;
    }
    return prot;
}

struct pte_place {
    uint64_t gpa, value;
    bool wide; /* eight bytes, not four */
};

/* Loads an entry; 0, or the cause to refuse with. */
static uint32_t pte_load(struct riscv_cpu *c, const struct tcg_walk *w, struct pte_place *p)
{
    struct mem_space *mem = c->vcpu->vm->mem;
    bool whole;
    uint32_t narrow = 0;

    if (!(riscv_pmp_allows(c, p->gpa, RISCV_S, &whole) & TCG_PROT_R)) {
        return access_fault(w->access);
    }
    if (p->wide) {
        return mem_load64(mem, p->gpa, &p->value) ? 0 : access_fault(w->access);
    }
    if (!mem_load32(mem, p->gpa, &narrow)) {
        return access_fault(w->access);
    }
    p->value = narrow;
    return 0;
}

enum pte_update { PTE_UPDATED, PTE_RACED, PTE_DENIED };

static enum pte_update pte_swap(struct riscv_cpu *c, const struct pte_place *p, uint64_t value)
{
    struct mem_space *mem = c->vcpu->vm->mem;
    bool whole, swapped = false;
    bool ram;

    if (!(riscv_pmp_allows(c, p->gpa, RISCV_S, &whole) & TCG_PROT_W)) {
        return PTE_DENIED;
    }
    ram = p->wide ? mem_cas64(mem, p->gpa, p->value, value, &swapped)
                  : mem_cas32(mem, p->gpa, (uint32_t)p->value, (uint32_t)value, &swapped);
    return !ram ? PTE_DENIED : swapped ? PTE_UPDATED : PTE_RACED;
}

enum leaf_result { LEAF_OK, LEAF_REFUSED, LEAF_AGAIN };

/* The high bits of an entry are what they may be here. */
static bool high_bits_ok(const struct riscv_cpu *c, uint64_t pte, bool leaf, unsigned level)
{
    uint64_t type = pte & PTE_PBMT;

    if (pte & PTE_RESERVED_RV64) {
        return false;
    }
    if (type && (!(c->menvcfg & MENVCFG_PBMTE) || type == PTE_PBMT || !leaf)) {
        return false;
    }
    return !(pte & PTE_N) ||
           (RISCV_HAS(c->features, RISCV_EXT_SVNAPOT) && leaf && level == 0 &&
            (pte >> PTE_PPN_SHIFT & 15) == NAPOT_CODE);
}

/* Found a leaf entry that covers 2^bits bytes: permissions, accessed and dirty bits, physical address. */
static enum leaf_result use_leaf(struct riscv_cpu *c, struct tcg_walk *w, struct pte_place *p,
                                 unsigned bits, unsigned priv)
{
    uint64_t ppn = (p->wide ? p->value & PTE_PPN_RV64 : p->value) >> PTE_PPN_SHIFT;
    bool napot = p->wide && (p->value & PTE_N);
    uint64_t offset_mask, base;

    if (napot) {
        ppn &= ~(uint64_t)NAPOT_CODE;
        bits = NAPOT_BITS;
    }
    offset_mask = (1ull << bits) - 1;
    base = ppn << MEM_PAGE_BITS;
    uint64_t want = p->value | PTE_A | (w->access == TCG_WRITE ? PTE_D : 0);
    unsigned prot = own_prot(w, leaf_prot(p->value, priv, w->mmu));

    if ((base & offset_mask) || !(prot & prot_of(w->access))) {
        refuse(w, page_fault(w->access));
        return LEAF_REFUSED;
    }
    if (want != p->value && !w->probe) {
        if (!(c->menvcfg & MENVCFG_ADUE)) {
            refuse(w, page_fault(w->access));
            return LEAF_REFUSED;
        }
        enum pte_update done = pte_swap(c, p, want);
        if (done == PTE_RACED) {
            return LEAF_AGAIN;
        }
        if (done == PTE_DENIED) {
            refuse(w, access_fault(w->access));
            return LEAF_REFUSED;
        }
        p->value = want;
    }
    if (!(p->value & PTE_D)) {
        prot &= ~(unsigned)TCG_PROT_W; /* the first write walks again */
    }
    w->gpa = base | (w->va & offset_mask);
    w->prot = prot;
    if (bits > MEM_PAGE_BITS && !w->probe) {
        superpage_note(c, w->va, bits);
    }
    return LEAF_OK;
}

/* One try from the root. */
static enum leaf_result walk_once(struct riscv_cpu *c, struct tcg_walk *w,
                                  const struct scheme *s, unsigned priv)
{
    uint64_t ppn = c->satp & (c->xlen == 64 ? RV_SATP_PPN_RV64 : RV_SATP_PPN_RV32);
    uint64_t index_mask = (1ull << s->index_bits) - 1;

    w->global = false;
    for (unsigned level = s->levels; level-- > 0;) {
        unsigned bits = MEM_PAGE_BITS + level * s->index_bits;
        uint64_t index = w->va >> bits & index_mask;
        struct pte_place p = { .gpa = (ppn << MEM_PAGE_BITS) + (index << s->pte_shift),
                               .wide = s->pte_shift == 3 };
        uint32_t cause = pte_load(c, w, &p);

        if (cause) {
            refuse(w, cause);
            return LEAF_REFUSED;
        }
        if (!(p.value & PTE_V) || (p.value & (PTE_R | PTE_W)) == PTE_W ||
            (p.wide && !high_bits_ok(c, p.value, (p.value & (PTE_R | PTE_X)) != 0, level))) {
            break;
        }
        /* In a pointer it says so of everything below (§4.3.1). */
        w->global |= (p.value & PTE_G) != 0;
        if (p.value & (PTE_R | PTE_X)) {
            return use_leaf(c, w, &p, bits, priv);
        }
        if (p.value & (PTE_A | PTE_D | PTE_U)) {
            break; /* reserved in a pointer */
        }
        ppn = (p.wide ? p.value & PTE_PPN_RV64 : p.value) >> PTE_PPN_SHIFT;
    }
    refuse(w, page_fault(w->access));
    return LEAF_REFUSED;
}

int riscv_tcg_walk(void *cpu, struct tcg_walk *w)
{
    struct riscv_cpu *c = cpu;
    const struct scheme *s = scheme_of(c);
    unsigned priv = access_priv(w);

    w->uncached = w->global = false;
    if (c->xlen == 32) {
        w->va &= UINT32_MAX;
    }
    if (priv == RISCV_M || !s) {
        w->gpa = w->va;
        w->global = true;
        w->prot = own_prot(w, TCG_PROT_R | TCG_PROT_W | TCG_PROT_X);
        return protect(c, w, priv);
    }
    if (c->xlen == 64) {
        unsigned unused = 64 - s->va_bits;
        if ((uint64_t)((int64_t)(w->va << unused) >> unused) != w->va) {
            return refuse(w, page_fault(w->access));
        }
    }
    /* Another hart may change an entry between load and swap. A hart that does so forever starves only
     * itself of progress; give up after a bound rather than hang, the access is simply tried again. */
    for (int tries = 0; tries < 1000; tries++) {
        switch (walk_once(c, w, s, priv)) {
        case LEAF_OK:
            return protect(c, w, priv);
        case LEAF_REFUSED:
            return 1;
        case LEAF_AGAIN:
            break;
        }
    }
    return refuse(w, page_fault(w->access));
}
