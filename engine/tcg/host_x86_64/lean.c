/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Compact code: what a block is first made of. Most blocks run a few times only, and a lookup of the TLB inline is most of their bytes;
 * here an access is a call of a thunk at the start of the code buffer, a quarter as long. The block's entry counts how often it runs; one
 * that is worth it is compiled again (stale_entry() in tcg.c; docs/adr/0019).
 *
 * Convention: rsi is the address. A load returns rax and clobbers rdx; a store's value is rdx, which it keeps, and it clobbers rax. All else is kept.
 */
#include "engine/tcg/host_x86_64/target.h"

#define LOAD_BOXED 8u

static const uint8_t load_mo[N_LEAN_LOADS] = { 0, 1, 2, 3, 4, 5, 6, 7, MO_32 | MO_ONES };

/* Loads that have a place in tcg_vcpu.host_thunk; the others are rare. */
static const int8_t near_load[N_LEAN_LOADS] = { 0, 1, 2, 3, -1, 4, 5, 3, -1 };

static uint32_t load_thunk(struct asm_buf *a, unsigned mo, uint32_t slow)
{
    uint32_t at = a->at;
    uint32_t miss = x_check(a, RSI, 0, (1 << (mo & MO_SIZE)) - 1, 0, false, RAX, RDX);
    x_rmx(a, load_code[mo & 7], RAX, RAX, RSI, 0, 0);
    if (mo & MO_ONES) {
        x_mov_imm(a, RDX, 0xffffffff00000000u);
        x_rr(a, 0x0b | X_W, RAX, RDX);
    }
    x_8(a, 0xc3);
    x_here(a, miss);
    x_rm(a, 0x89 | X_W, RCX, ENV, ENV_OFF(save) + 8);
    x_mov_imm(a, RDX, mo);
    x_jmp(a, slow);
    return at;
}

static uint32_t store_thunk(struct asm_buf *a, unsigned size, uint32_t slow)
{
    uint32_t at = a->at;
    x_rm(a, 0x89 | X_W, RCX, ENV, ENV_OFF(save) + 8);
    uint32_t miss = x_check(a, RSI, 0, (1 << size) - 1, 0, true, RAX, RCX);
    x_rm(a, 0x8b | X_W, RCX, ENV, ENV_OFF(save) + 8);
    x_rmx(a, store_code[size], RDX, RAX, RSI, 0, 0);
    x_8(a, 0xc3);
    x_here(a, miss);
    x_rm(a, 0x89 | X_W, RDX, ENV, ENV_OFF(save) + 16);
    x_mov_imm(a, RCX, size);
    x_jmp(a, slow);
    return at;
}

void lean_thunks(struct asm_buf *a, struct thunks *th, uint32_t slow_load, uint32_t slow_store)
{
    for (unsigned i = 0; i < N_LEAN_LOADS; i++) {
        th->lean_load[i] = load_thunk(a, load_mo[i], slow_load);
    }
    for (unsigned i = 0; i < N_LEAN_STORES; i++) {
        th->lean_store[i] = store_thunk(a, i, slow_store);
    }
}

void lean_near(const struct host_data *h, const uint8_t *rx, uint64_t *near)
{
    uint64_t base = (uint64_t)(uintptr_t)rx;
    for (unsigned i = 0; i < N_LEAN_LOADS; i++) {
        if (near_load[i] >= 0) {
            near[NEAR_LOAD + near_load[i]] = base + h->th.lean_load[i];
        }
    }
    for (unsigned i = 0; i < N_LEAN_STORES; i++) {
        near[NEAR_STORE + i] = base + h->th.lean_store[i];
    }
    near[NEAR_LEAVE] = base + h->th.leave_here;
    near[NEAR_JUMP] = base + h->th.jump;
}

static void lean_load(struct ra *r, const struct ir_op *op)
{
    ra_address(r, op->a, (int32_t)op->imm);
    ra_clobber(r, RAX);
    ra_clobber(r, RDX);
    unsigned which = op->mo & MO_ONES ? LOAD_BOXED : op->mo & 7;
    if (near_load[which] >= 0) {
        x_near(&r->a, 2, NEAR_LOAD + (unsigned)near_load[which]);
    } else {
        x_call(&r->a, r->th->lean_load[which]);
    }
    gen_site(r);
    if (op->d != IR_NONE) {
        ra_done(r, op->d, RAX);
    }
}

static void lean_store(struct ra *r, const struct ir_op *op)
{
    unsigned size = op->mo & MO_SIZE;
    ra_address(r, op->a, (int32_t)op->imm);
    ra_value(r, RDX, op->b, size == MO_64 ? 64 : 32);
    ra_clobber(r, RAX);
    x_near(&r->a, 2, NEAR_STORE + size);
    gen_site(r);
}

bool gen_lean(struct ra *r, const struct ir_op *op)
{
    bool load = op->op == IR_ld;
    if (op->mo & (MO_ALIGN | MO_AMO) || (op->mo & MO_ONES && (!load || (op->mo & MO_SIZE) != MO_32))) {
        return false;
    }
    if (load) {
        lean_load(r, op);
    } else {
        lean_store(r, op);
    }
    return true;
}
