/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Helpers of translated code that are neither arithmetic (fp.c) nor returns from traps (trap.c): exceptions that
 * instructions raise, CSR access, fences of address translation, load-reserved and store-conditional. vCPU thread.
 */
#include "engine/core/vcpu.h"
#include "engine/core/vm.h"
#include "engine/tcg/guest_riscv/helper.h"
#include "engine/tcg/guest_riscv/sys.h"

#include <sched.h>

#define UNUSED_C (void)c3
#define UNUSED_BC (void)b, (void)c3
#define UNUSED_ABC (void)a, (void)b, (void)c3

uint64_t riscv_illegal(void *cpu, uint64_t a, uint64_t b, uint64_t c3)
{
    UNUSED_BC;
    tcg_raise(cpu, RISCV_CAUSE_ILLEGAL, a);
}

uint64_t riscv_ecall(void *cpu, uint64_t a, uint64_t b, uint64_t c3)
{
    const struct riscv_cpu *c = cpu;

    UNUSED_ABC;
    tcg_deliver(cpu, RISCV_CAUSE_ECALL_U + (uint32_t)c->priv, 0);
    return 0;
}

uint64_t riscv_ebreak(void *cpu, uint64_t a, uint64_t b, uint64_t c3)
{
    UNUSED_ABC;
    tcg_raise(cpu, RISCV_CAUSE_BREAKPOINT, 0);
}

uint64_t riscv_fetch_misaligned(void *cpu, uint64_t a, uint64_t b, uint64_t c3)
{
    const struct riscv_cpu *c = cpu;

    UNUSED_BC;
    tcg_raise(cpu, RISCV_CAUSE_FETCH_MISALIGNED, c->xlen == 32 ? a & UINT32_MAX : a);
}

/* ---- CSRs ---- */

/* The register of a CSR instruction that is about to access it. */
static unsigned csr_number(void *cpu, uint64_t insn)
{
    unsigned n = insn >> 20 & 0xfff;
    if (riscv_csr_uses_clock(n)) {
        tcg_io_begin(cpu);
    }
    return n;
}

uint64_t riscv_csr_read(void *cpu, uint64_t a, uint64_t b, uint64_t c3)
{
    uint64_t value;

    UNUSED_BC;
    if (!riscv_csr_get(cpu, csr_number(cpu, a), &value)) {
        tcg_raise(cpu, RISCV_CAUSE_ILLEGAL, a);
    }
    return value;
}

/* Replaces the bits in mask; returns the old value. */
static uint64_t csr_modify(void *cpu, uint64_t insn, uint64_t value, uint64_t mask)
{
    uint64_t old;

    if (!riscv_csr_put(cpu, csr_number(cpu, insn), value, mask, &old)) {
        tcg_raise(cpu, RISCV_CAUSE_ILLEGAL, insn);
    }
    return old;
}

uint64_t riscv_csr_write(void *cpu, uint64_t a, uint64_t b, uint64_t c3)
{
    UNUSED_C;
    if (!riscv_csr_put(cpu, csr_number(cpu, a), b, UINT64_MAX, NULL)) {
        tcg_raise(cpu, RISCV_CAUSE_ILLEGAL, a);
    }
    return 0;
}

uint64_t riscv_csr_swap(void *cpu, uint64_t a, uint64_t b, uint64_t c3)
{
    UNUSED_C;
    return csr_modify(cpu, a, b, UINT64_MAX);
}

uint64_t riscv_csr_set(void *cpu, uint64_t a, uint64_t b, uint64_t c3)
{
    UNUSED_C;
    return csr_modify(cpu, a, UINT64_MAX, b);
}

uint64_t riscv_csr_clear(void *cpu, uint64_t a, uint64_t b, uint64_t c3)
{
    UNUSED_C;
    return csr_modify(cpu, a, 0, b);
}

/* ---- waiting and fences ---- */

/* Illegal below the privilege that mstatus.TW allows, and always in U-mode of a hart with S (§3.1.6.5). */
uint64_t riscv_wfi(void *cpu, uint64_t a, uint64_t b, uint64_t c3)
{
    const struct riscv_cpu *c = cpu;
    bool has_s = RISCV_HAS(c->features, RISCV_EXT_S);

    UNUSED_BC;
    if ((c->priv == RISCV_U && has_s) || (c->priv < RISCV_M && (c->mstatus & MSTATUS_TW))) {
        tcg_raise(cpu, RISCV_CAUSE_ILLEGAL, a);
    }
    if (riscv_mip(c) & c->mie) {
        tcg_interrupt_check(cpu);
        return 0;
    }
    tcg_halt(cpu);
}

/* Zihintpause: this hart waits for another, which may be waiting for the host CPU that we are on. */
uint64_t riscv_pause(void *cpu, uint64_t a, uint64_t b, uint64_t c3)
{
    const struct riscv_cpu *c = cpu;

    UNUSED_ABC;
    if (c->vcpu->vm->n_vcpus > 1) {
        sched_yield();
    }
    return 0;
}

/* Drops every cached translation of this hart. */
static void flush_all(struct riscv_cpu *c)
{
    riscv_superpage_forget(c);
    tcg_flush_all(c);
}

uint64_t riscv_sfence_vma(void *cpu, uint64_t a, uint64_t b, uint64_t c3)
{
    struct riscv_cpu *c = cpu;
    bool any_address = (a >> 15 & 31) == 0;
    bool any_asid = (a >> 20 & 31) == 0;
    unsigned asid_bits = c->xlen == 64 ? RV_ASID_BITS_RV64 : RV_ASID_BITS_RV32;
    uint64_t asid_mask = (1ull << asid_bits) - 1;
    uint64_t tag = riscv_satp_tag(c);

    if (c->priv == RISCV_U || !RISCV_HAS(c->features, RISCV_EXT_S) ||
        (c->priv == RISCV_S && (c->mstatus & MSTATUS_TVM))) {
        tcg_raise(cpu, RISCV_CAUSE_ILLEGAL, a);
    }
    if (tag >> asid_bits == 0) {
        /* Translation is off: the scheme that the guest means is not known. */
        flush_all(c);
        return 0;
    }
    tag = (tag & ~asid_mask) | (c3 & asid_mask);
    uint64_t va = c->xlen == 32 ? b & UINT32_MAX : b;
    bool one_page = !any_address && !riscv_superpage_near(c, va);
    if (one_page && any_asid) {
        tcg_flush_page(c, va);
    } else if (one_page) {
        tcg_flush_page_asid(c, va, tag);
    } else if (any_asid) {
        flush_all(c);
    } else {
        tcg_flush_asid(c, tag);
    }
    return 0;
}

/* ---- load-reserved, store-conditional ----
 *
 * The reservation is an address and the value loaded from it; a store-conditional is a compare-and-swap against
 * that value. A store by another hart in between that leaves the same value goes unnoticed, which the
 * architecture forbids in principle (§8.2) and no lock or lock-free structure built from LR/SC observes, since those
 * only rely on the value. Traps and every store-conditional end the reservation.
 */

static uint64_t address(const struct riscv_cpu *c, uint64_t va)
{
    return c->xlen == 32 ? va & UINT32_MAX : va;
}

static uint64_t load_reserved(struct riscv_cpu *c, uint64_t va, unsigned mo)
{
    uint64_t value;

    va = address(c, va);
    value = tcg_ld(c, va, mo | MO_ALIGN);
    c->res_addr = va;
    c->res_value = value;
    return value;
}

static uint64_t store_conditional(struct riscv_cpu *c, uint64_t va, uint64_t value, unsigned mo)
{
    /* Of an LR.D an SC.W compares the low half. */
    uint64_t expect = (mo & MO_SIZE) == MO_32 ? (uint64_t)(int64_t)(int32_t)c->res_value : c->res_value;
    bool reserved;

    va = address(c, va);
    reserved = c->res_addr == va;
    c->res_addr = UINT64_MAX;
    if (va & ((1u << (mo & MO_SIZE)) - 1)) {
        tcg_raise(c, RISCV_CAUSE_STORE_MISALIGNED, va);
    }
    if (!reserved) {
        return 1;
    }
    return tcg_cas(c, va, expect, value, mo | MO_ALIGN) != expect;
}

uint64_t riscv_lr_w(void *cpu, uint64_t a, uint64_t b, uint64_t c3)
{
    UNUSED_BC;
    return load_reserved(cpu, a, MO_32 | MO_SIGN);
}

uint64_t riscv_lr_d(void *cpu, uint64_t a, uint64_t b, uint64_t c3)
{
    UNUSED_BC;
    return load_reserved(cpu, a, MO_64);
}

uint64_t riscv_sc_w(void *cpu, uint64_t a, uint64_t b, uint64_t c3)
{
    UNUSED_C;
    return store_conditional(cpu, a, b, MO_32 | MO_SIGN);
}

uint64_t riscv_sc_d(void *cpu, uint64_t a, uint64_t b, uint64_t c3)
{
    UNUSED_C;
    return store_conditional(cpu, a, b, MO_64);
}
