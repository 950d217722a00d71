/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Vector loads and stores (V 1.0, section 7). Every element access is precise: when one faults, vstart holds its
 * number and what came before is done. Runs of elements that lie side by side in one page that the soft TLB knows
 * are copied at once. vCPU thread.
 */
#include "engine/tcg/guest_riscv/helper.h"
#include "engine/tcg/guest_riscv/vec.h"
#include "engine/tcg/guest_riscv/vec_mem.h"

#include <string.h>

#define PAGE 4096u

static unsigned to_page_end(uint64_t va)
{
    return PAGE - (unsigned)(va & (PAGE - 1));
}

/* ---- what is legal ---- */

static unsigned eew_of(uint32_t insn)
{
    static const uint8_t eew[8] = { 0, 0, 0, 0, 0, 1, 2, 3 };
    return eew[v_funct3(insn)];
}

/* Registers of one field: the group may not leave the register file nor be more than eight. */
static bool data_ok(const struct riscv_cpu *c, unsigned vd, unsigned nf, int eew, int emul)
{
    unsigned regs = emul > 0 ? 1u << emul : 1;

    return eew <= c->velen && emul >= -3 && emul <= 3 && vd % regs == 0 && nf * regs <= 8 &&
           vd + nf * regs <= 32;
}

static bool index_ok(const struct riscv_cpu *c, uint32_t insn, uint64_t vtype)
{
    int sew = (int)riscv_vsew(vtype), lmul = riscv_vlmul(vtype), eew = (int)eew_of(insn);
    int emul = lmul + eew - sew;
    unsigned nf = v_nf(insn), vd = v_vd(insn), vs2 = v_vs2(insn);
    unsigned dregs = lmul > 0 ? 1u << lmul : 1, iregs = emul > 0 ? 1u << emul : 1;

    if (!v_vm(insn) && vs2 == 0) {
        return false; /* v0 is the mask */
    }
    if (!data_ok(c, vd, nf, sew, lmul) || eew > c->velen || 8u << eew > c->xlen || emul < -3 ||
        emul > 3 || vs2 % iregs) {
        return false;
    }
    if (vd >= vs2 + iregs || vs2 >= vd + nf * dregs) {
        return true;
    }
    if (v_is_store(insn)) {
        return eew == sew; /* sources of one EEW */
    }
    if (nf > 1) {
        return false; /* a segment load that is restarted still needs its indexes */
    }
    return eew == sew ? true : sew < eew ? vd == vs2 : emul >= 0 && vs2 + iregs == vd + dregs;
}

bool v_mem_legal(const struct riscv_cpu *c, uint32_t insn, uint64_t vtype)
{
    int eew = (int)eew_of(insn), emul = riscv_vlmul(vtype) + eew - (int)riscv_vsew(vtype);
    unsigned vd = v_vd(insn), nf = v_nf(insn);

    if (v_is_whole(insn)) {
        return vd % nf == 0 && eew <= c->velen;
    }
    if (vtype & RISCV_VTYPE_VILL) {
        return false;
    }
    if (v_is_mask(insn)) {
        return true;
    }
    if (!v_vm(insn) && vd == 0) { /* v0 is the mask */
        return false;
    }
    if (v_mop(insn) & 1) {
        return index_ok(c, insn, vtype);
    }
    return data_ok(c, vd, nf, eew, emul);
}

/* ---- one access ---- */

struct mem {
    struct riscv_cpu *c;
    bool store, masked, indexed;
    unsigned eew, nf;
    unsigned index_eew;
    size_t n;    /* elements */
    size_t step; /* bytes of registers from one field to the next */
    uint64_t base;
    unsigned tag;        /* pointer masking: so many top bits of an address do not count, */
    bool tag_signed;     /* ... the bit below them stands for them */
    int64_t stride; /* from one segment to the next */
    uint8_t *data;  /* field 0 */
    const uint8_t *index;
};

static void setup(struct mem *m, struct riscv_cpu *c, uint32_t insn, uint64_t base,
                  uint64_t stride)
{
    int emul = riscv_vlmul(c->vtype);
    unsigned width = eew_of(insn), mop = v_mop(insn);

    *m = (struct mem){ .c = c,
                       .store = v_is_store(insn),
                       .masked = !v_vm(insn),
                       .eew = width,
                       .nf = v_nf(insn),
                       .n = c->vl,
                       .base = base,
                       .data = v_reg(c, v_vd(insn)),
                       .index = v_reg(c, v_vs2(insn)) };
    if (v_is_whole(insn)) {
        m->n = (size_t)m->nf * c->vlenb >> width;
        m->nf = 1;
    } else if (v_is_mask(insn)) {
        m->n = (c->vl + 7) / 8;
    } else if (mop & 1) {
        m->indexed = true;
        m->index_eew = width;
        m->eew = riscv_vsew(c->vtype);
    } else {
        emul += (int)width - (int)riscv_vsew(c->vtype);
    }
    m->step = (size_t)c->vlenb << (emul > 0 ? emul : 0);
    m->stride = mop == 2 ? (int64_t)stride : (int64_t)m->nf << m->eew;
}

static uint64_t segment_at(const struct mem *m, size_t i)
{
    uint64_t va = m->indexed ? m->base + v_get(m->index, i, m->index_eew)
                             : m->base + (uint64_t)m->stride * i;

    if (m->tag) {
        va <<= m->tag;
        va = m->tag_signed ? (uint64_t)((int64_t)va >> m->tag) : va >> m->tag;
    }
    return va;
}

static void copy(void *to, const void *from, unsigned eew)
{
    switch (eew) { /* single accesses: other vCPUs must not see halves */
    case 0:
        *(v_u8 *)to = *(const v_u8 *)from;
        break;
    case 1:
        __atomic_store_n((v_u16 *)to, __atomic_load_n((const v_u16 *)from, __ATOMIC_RELAXED),
                         __ATOMIC_RELAXED);
        break;
    case 2:
        __atomic_store_n((v_u32 *)to, __atomic_load_n((const v_u32 *)from, __ATOMIC_RELAXED),
                         __ATOMIC_RELAXED);
        break;
    default:
        __atomic_store_n((v_u64 *)to, __atomic_load_n((const v_u64 *)from, __ATOMIC_RELAXED),
                         __ATOMIC_RELAXED);
    }
}

/* Element i of field f, the way that may fault. */
static void slow(struct mem *m, size_t i, unsigned f, uint64_t va)
{
    uint8_t *reg = m->data + f * m->step;

    m->c->vstart = i;
    if (m->store) {
        tcg_st(m->c, va, v_get(reg, i, m->eew), m->eew);
    } else {
        v_put(reg, i, m->eew, tcg_ld(m->c, va, m->eew));
    }
}

static void one_segment(struct mem *m, size_t i)
{
    uint64_t va = segment_at(m, i);
    enum tcg_access access = m->store ? TCG_WRITE : TCG_READ;

    for (unsigned f = 0; f < m->nf; f++, va += 1u << m->eew) {
        uint8_t *reg = m->data + f * m->step + (i << m->eew);
        uint8_t *host = tcg_host_span(m->c, va, 1u << m->eew, access);
        if (!host) {
            slow(m, i, f, va);
        } else if (m->store) {
            copy(host, reg, m->eew);
        } else {
            copy(reg, host, m->eew);
        }
    }
}

/* ---- runs ---- */

/* Like memcpy(), but writes each byte once: an element that another hart changes meanwhile is not put back. */
static void copy_run(uint8_t *to, const uint8_t *from, size_t n)
{
    typedef uint64_t chunk __attribute__((vector_size(32), aligned(1), may_alias));

    for (; n >= 32; n -= 32, to += 32, from += 32) {
        *(chunk *)(void *)to = *(const chunk *)(const void *)from;
        __asm__ volatile("" ::: "memory");
    }
    for (; n >= 8; n -= 8, to += 8, from += 8) {
        copy(to, from, 3);
    }
    if (n & 4) {
        copy(to, from, 2);
        to += 4;
        from += 4;
    }
    if (n & 2) {
        copy(to, from, 1);
        to += 2;
        from += 2;
    }
    if (n & 1) {
        *to = *from;
    }
}

V_KERNELS_BEGIN

/* Elements in memory lie where the guest says. */
#define FIELDS(T)                                                                              \
    for (unsigned f = 0; f < m->nf; f++) {                                                     \
        typedef v_##T __attribute__((aligned(1))) loose;                                       \
        v_##T *reg = (v_##T *)(void *)(m->data + f * m->step) + first;                         \
        loose *at = (loose *)(void *)host + f;                                                 \
        if (m->store) {                                                                        \
            for (size_t i = 0; i < n; i++) {                                                   \
                at[i * m->nf] = reg[i];                                                        \
            }                                                                                  \
        } else {                                                                               \
            for (size_t i = 0; i < n; i++) {                                                   \
                reg[i] = at[i * m->nf];                                                        \
            }                                                                                  \
        }                                                                                      \
    }

/* n whole segments side by side at host. */
static void segments(struct mem *m, size_t first, size_t n, uint8_t *host)
{
    switch (m->eew) {
    case 0:
        FIELDS(u8);
        break;
    case 1:
        FIELDS(u16);
        break;
    case 2:
        FIELDS(u32);
        break;
    default:
        FIELDS(u64);
    }
}

V_KERNELS_END

/* As many segments from i as lie side by side in a page that is at hand; returns how many were done. */
static size_t run(struct mem *m, size_t i)
{
    uint64_t va = segment_at(m, i);
    size_t size = (size_t)m->nf << m->eew, n = to_page_end(va) / size;
    uint8_t *host;

    n = n < m->n - i ? n : m->n - i;
    host = n ? tcg_host_span(m->c, va, (unsigned)(n * size), m->store ? TCG_WRITE : TCG_READ)
             : NULL;
    if (!host) {
        return 0;
    }
    if (m->nf > 1) {
        segments(m, i, n, host);
    } else if (m->store) {
        copy_run(host, m->data + (i << m->eew), n * size);
    } else {
        copy_run(m->data + (i << m->eew), host, n * size);
    }
    return n;
}

static void access_all(struct mem *m)
{
    bool runs = !m->masked && !m->indexed && m->stride == (int64_t)m->nf << m->eew;

    for (size_t i = m->c->vstart; i < m->n;) {
        size_t done = runs ? run(m, i) : 0;
        if (done == 0) {
            if (!m->masked || v_bit(m->c->v, i)) {
                one_segment(m, i);
            }
            done = 1;
        }
        i += done;
    }
}

/* Section 7.7: only the first element may trap; before a later one that would, vl ends. */
static void access_first_fault(struct mem *m)
{
    size_t size = (size_t)m->nf << m->eew;

    for (size_t i = m->c->vstart; i < m->n;) {
        size_t done = m->masked ? 0 : run(m, i);
        if (done == 0) {
            bool active = !m->masked || v_bit(m->c->v, i);
            if (active && i > 0 && !tcg_readable(m->c, segment_at(m, i), (unsigned)size)) {
                m->c->vl = i;
                riscv_vkey_update(m->c);
                return;
            }
            if (active) {
                one_segment(m, i);
            }
            done = 1;
        }
        i += done;
    }
}

static uint64_t transfer(struct riscv_cpu *c, uint64_t a, uint64_t base, uint64_t stride)
{
    uint32_t insn = (uint32_t)a;
    struct mem m;

    if (!(a & RISCV_V_CHECKED) &&
        (!(c->mstatus & MSTATUS_VS) || !v_mem_legal(c, insn, c->vtype))) {
        tcg_raise(c, RISCV_CAUSE_ILLEGAL, insn);
    }
    setup(&m, c, insn, base, stride);
    uint32_t code = (uint32_t)(a >> RISCV_V_PM_SHIFT);
    m.tag = code & RV_CODE_PM_7 ? 7 : code & RV_CODE_PM_16 ? 16 : 0;
    m.tag_signed = code & RV_CODE_PM_SIGNED;
    if (!m.store) {
        riscv_vs_dirty(c);
    }
    if (v_is_first_fault(insn)) {
        access_first_fault(&m);
    } else {
        access_all(&m);
    }
    if (c->vstart) {
        c->vstart = 0;
        riscv_vkey_update(c);
    }
    return 0;
}

uint64_t riscv_v_load(void *cpu, uint64_t a, uint64_t base, uint64_t stride)
{
    return transfer(cpu, a, base, stride);
}

uint64_t riscv_v_store(void *cpu, uint64_t a, uint64_t base, uint64_t stride)
{
    return transfer(cpu, a, base, stride);
}
