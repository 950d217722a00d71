/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The code at the start of the buffer: entering and leaving translated code, and calling C from it with the pinned guest registers kept in
 * their memory slots meanwhile.
 */
#include "engine/tcg/host_x86_64/target.h"

#include "engine/base/mem.h"

static const uint8_t saved[] = { RBX, RBP, R12, R13, R14, R15 };

static bool survives_call(unsigned reg)
{
    return reg == RBX || (reg >= R12 && reg <= R14);
}

enum which { ALL, CALLER_SAVED };

static void pins(struct asm_buf *a, const struct tcg_guest *g, const int8_t *pin, bool store,
                 enum which which)
{
    for (unsigned i = 0; i < g->n_globals; i++) {
        if (pin[i] >= 0 && !(which == CALLER_SAVED && survives_call((unsigned)pin[i]))) {
            x_rm(a, (store ? 0x89u : 0x8bu) | X_W, (unsigned)pin[i], ENV, (int32_t)g->globals[i].offset);
        }
    }
}

/* What the code that calls keeps in registers. */
struct keeps {
    const struct tcg_guest *g;
    const int8_t *pin, *xpin;
    const struct host_data *live_flags; /* MXCSR holds flags of the guest; else NULL */
    bool x_cache;                       /* xmm registers cache globals */
    bool scratch;                       /* reload rcx and rdx from save[1] and [2] */
    unsigned n_near;                    /* pages that are remembered */
};

/* No xmm register survives a call. */
static void xpins(struct asm_buf *a, const struct keeps *k, bool store)
{
    for (unsigned i = 0; k->xpin && i < k->g->n_globals; i++) {
        if (k->xpin[i] >= 0) { /* movsd */
            x_rm(a, X_0F | X_F2 | (store ? 0x11u : 0x10u), (unsigned)k->xpin[i], ENV,
                 (int32_t)k->g->globals[i].offset);
        }
    }
}

static void x_cache(struct asm_buf *a, const struct keeps *k, bool store)
{
    for (unsigned x = FIRST_XMM; k->x_cache && x < 16; x++) { /* movsd */
        x_rm(a, X_0F | X_F2 | (store ? 0x11u : 0x10u), x, ENV, ENV_OFF(xsave) + 8 * (int32_t)(x - FIRST_XMM));
    }
}

void x86_take_flags(struct asm_buf *a, const struct tcg_guest *g, const struct host_data *h, unsigned r1, unsigned r2)
{
    x_rm(a, X_0F | 0xae, 3, ENV, ENV_OFF(mxcsr)); /* stmxcsr */
    x_rm(a, 0x8b, r1, ENV, ENV_OFF(mxcsr));
    x_alu_imm(a, 4, 0, r1, 0x3f);
    uint32_t none = x_jcc(a, CC_E, a->at);
    x_mov_imm(a, r2, (uint64_t)(uintptr_t)h->flags_of);
    x_rmx(a, X_0F | 0xb6, r1, r1, r2, 0, 0);
    x_rm(a, 0x08 | X_BYTE_REG, r1, ENV, (int32_t)g->fp_flags);
    x_here(a, none);
}

void x86_clear_flags(struct asm_buf *a, const struct host_data *h, unsigned r1)
{
    x_mov_imm(a, r1, (uint64_t)(uintptr_t)&h->mxcsr);
    x_rm(a, X_0F | 0xae, 2, r1, 0); /* ldmxcsr */
}

/* call rax with rdi = CPU state; rsi, rdx, rcx are set, r8 comes from arg[0]. */
static uint32_t call_thunk(struct asm_buf *a, const struct keeps *k, enum which store, enum which reload, bool space)
{
    const struct tcg_guest *g = k->g;
    const int8_t *pin = k->pin;
    uint32_t at = a->at;
    pins(a, g, pin, true, store);
    xpins(a, k, true);
    x_cache(a, k, true);
    if (k->live_flags) {
        x86_take_flags(a, g, k->live_flags, R9, R10); /* pins: saved by now */
    }
    x_rm(a, 0x8b | X_W, RDI, RSP, 0);
    x_rm(a, 0x89 | X_W, RDI, ENV, ENV_OFF(host_ra));
    x_rm(a, 0x8b | X_W, R8, ENV, ENV_OFF(arg));
    x_rr(a, 0x8b | X_W, RDI, ENV);
    x_alu_imm(a, 5, X_W, RSP, 8);
    x_rr(a, 0xff, 2, RAX);
    x_alu_imm(a, 0, X_W, RSP, 8);
    if (space) {
        x_rm(a, 0x8b | X_W, SPACE, ENV, ENV_OFF(space));
    }
    if (store == ALL) {
        groups_forget(a, k->n_near, true); /* it may have changed translations */
    }
    if (k->live_flags) {
        x86_clear_flags(a, k->live_flags, RCX);
    }
    pins(a, g, pin, false, reload);
    xpins(a, k, false);
    x_cache(a, k, false);
    for (unsigned i = 1; i < 3 && k->scratch; i++) {
        x_rm(a, 0x8b | X_W, scratch_regs[i], ENV, ENV_OFF(save) + 8 * (int32_t)i);
    }
    x_8(a, 0xc3);
    return at;
}

static uint32_t memory_thunk(struct asm_buf *a, const void *fn, uint32_t to)
{
    uint32_t at = a->at;
    x_mov_imm(a, RAX, (uint64_t)(uintptr_t)fn);
    x_jmp(a, to);
    return at;
}

static uint32_t vec_consts(struct asm_buf *a)
{
    static const uint64_t values[VEC_N_CONSTS][2] = {
        [VEC_SIGN] = { 0x80000000, 1ull << 63 },
        [VEC_LOW] = { 2u << 24, 2ull << 53 },
        [VEC_SPAN] = { 0xff000000 - (2u << 24) - 1, (2047ull << 53) - (2ull << 53) - 1 },
        [VEC_ONES] = { UINT32_MAX, UINT64_MAX },
    };
    while (a->at & 15) {
        x_8(a, 0xcc);
    }
    uint32_t at = a->at;
    for (unsigned i = 0; i < VEC_N_CONSTS; i++) {
        x_64(a, values[i][0]);
        x_64(a, values[i][1]);
    }
    return at;
}

void x86_call_thunks(struct asm_buf *a, const struct tcg_guest *g, const int8_t *pin, const int8_t *xpin,
                     const struct host_data *live_flags, unsigned n_near, struct thunks *th)
{
    struct keeps k = { g, pin, xpin, live_flags, false, false, n_near };
    th->full = call_thunk(a, &k, ALL, ALL, true);
    th->reads = call_thunk(a, &k, ALL, CALLER_SAVED, false);
    th->clean = call_thunk(a, &k, CALLER_SAVED, CALLER_SAVED, false);
    th->load = memory_thunk(a, (const void *)(uintptr_t)tlb_load, th->reads);
    th->store = memory_thunk(a, (const void *)(uintptr_t)tlb_store, th->reads);
    if (xpin) {
        return;
    }
    k.x_cache = true;
    uint32_t reads_x = call_thunk(a, &k, ALL, CALLER_SAVED, false);
    th->clean_x = call_thunk(a, &k, CALLER_SAVED, CALLER_SAVED, false);
    th->load_x = memory_thunk(a, (const void *)(uintptr_t)tlb_load, reads_x);
    th->store_x = memory_thunk(a, (const void *)(uintptr_t)tlb_store, reads_x);
    k.scratch = true;
    uint32_t reads_all = call_thunk(a, &k, ALL, CALLER_SAVED, false);
    uint32_t slow_load = memory_thunk(a, (const void *)(uintptr_t)tlb_load, reads_all);
    uint32_t slow_store = memory_thunk(a, (const void *)(uintptr_t)tlb_store, reads_all);
    lean_thunks(a, th, slow_load, slow_store);
}

/* Compares rcx with the entry of index rax / 2 and goes there; else to `miss`. Clobbers rdx. */
static void jump_entry(struct asm_buf *a, uint32_t miss)
{
    const int32_t jc = (int32_t)offsetof(struct tcg_space, jc);
    x_rmx(a, 0x3b | X_W, RCX, SPACE, RAX, 3, jc);
    x_jcc(a, CC_NE, miss);
    x_rr(a, 0x8b | X_W, RDX, RCX);
    x_alu_imm(a, 4, X_W, RDX, -4096);
    x_rm(a, 0x89 | X_W, RDX, ENV, ENV_OFF(pc_page));
    x_rmx(a, 0xff, 4, SPACE, RAX, 3, jc + 8);
}

void x86_jump_by_cache(struct asm_buf *a, const struct thunks *th, bool poll)
{
    if (poll) {
        x_alu_mem_imm(a, 7, 0, ENV, ENV_OFF(exit_req), 0);
        x_jcc(a, CC_NE, th->jump_leave);
    }
    x_rr(a, 0x8b, RAX, RCX);
    x_rr(a, 0xc1, 5, RAX);
    x_8(a, 11);
    x_rr(a, 0x33, RAX, RCX);
    x_alu_imm(a, 4, 0, RAX, (int32_t)(JC_SIZE - 1) << 1);
    jump_entry(a, th->jump_beside);
}

/* jump: that, for compact code. jump_now: the same after a helper that may have changed pc, mode, space and interrupts.
 * jump_beside: it is not at its index. jump_leave: stores the address and leaves. */
static void jump_thunks(struct asm_buf *a, const struct tcg_guest *g, bool icount, struct thunks *th)
{
    th->jump_leave = a->at;
    x_rm(a, 0x89 | X_W, RCX, ENV, (int32_t)g->pc_offset);
    x_jmp(a, th->lookup);
    th->jump_beside = a->at;
    x_alu_imm(a, 6, 0, RAX, 2);
    jump_entry(a, th->jump_leave);
    th->jump_now = a->at;
    x_alu_mem_imm(a, 7, 0, ENV, ENV_OFF(exit_req), 0);
    x_jcc(a, CC_NE, th->lookup);
    x_rm(a, 0x8b | X_W, SPACE, ENV, ENV_OFF(space));
    x_rm(a, 0x8b | X_W, RCX, ENV, (int32_t)g->pc_offset);
    th->jump = a->at;
    x86_jump_by_cache(a, th, !icount); /* a budget ends runs there */
}

/* Pushes or pops what the caller of enter() wants to keep. */
static void callee_saved(struct asm_buf *a, bool push)
{
    for (unsigned i = 0; i < sizeof(saved); i++) {
        unsigned reg = saved[push ? i : sizeof(saved) - 1 - i];
        if (reg & 8) {
            x_8(a, 0x41);
        }
        x_8(a, (push ? 0x50u : 0x58u) | (reg & 7));
    }
}

/* Behind a call: leaves with the return address in host_ra. Returns the jump to point at `leave`. */
static uint32_t leave_with(struct asm_buf *a, unsigned why)
{
    x_8(a, 0x58);
    x_rm(a, 0x89 | X_W, RAX, ENV, ENV_OFF(host_ra));
    x_mov_imm(a, RAX, why);
    return x_jmp(a, a->at);
}

/* warm: called by the entry of a compact block, counts by its address; and looks for the jump that led here whether somebody wants this vCPU.
 * Under an instruction clock a budget ends runs. stale: called by the entry of an invalid block. */
static void leave_thunks(const struct tcg_vm *t, struct asm_buf *a, struct thunks *th, const int8_t *pin)
{
    uint32_t asked = 0, leave[3] = { 0 };
    th->warm = a->at;
    x_rm(a, 0x8b | X_W, RAX, RSP, 0);
    if (!t->config.icount) {
        x_alu_mem_imm(a, 7, 0, ENV, ENV_OFF(exit_req), 0);
        asked = x_jcc(a, CC_NE, a->at);
    }
    x_rm(a, 0x8b | X_W, RDX, ENV, ENV_OFF(warm));
    x_rr(a, 0xc1, 5, RAX);
    x_8(a, TCG_WARM_SHIFT);
    x_alu_imm(a, 4, 0, RAX, TCG_WARM - 1);
    x_rmx(a, 0xff | X_66, 1, RDX, RAX, 1, 0); /* dec word */
    uint32_t hot = x_jcc(a, CC_E, a->at);
    x_8(a, 0xc3);
    x_here(a, hot);
    th->stale = a->at;
    leave[0] = leave_with(a, X86_STALE);
    if (asked) {
        x_here(a, asked);
        leave[1] = leave_with(a, X86_ASKED);
    }
    th->leave_here = a->at;
    leave[2] = leave_with(a, X86_HERE);
    th->lookup = a->at;
    x_rr(a, 0x33, RAX, RAX);
    for (unsigned i = 0; i < ARRAY_LEN(leave); i++) {
        if (leave[i]) {
            x_here(a, leave[i]);
        }
    }
    th->leave = a->at;
    pins(a, t->guest, pin, true, ALL);
    x_alu_imm(a, 0, X_W, RSP, 8);
    callee_saved(a, false);
    x_8(a, 0xc3);
}

size_t x86_thunks(struct tcg_vm *t, struct asm_buf *a, struct thunks *th, const int8_t *pin)
{
    const struct tcg_guest *g = t->guest;
    a->at = 64; /* offset 0 means "none" elsewhere */
    th->enter = a->at;
    callee_saved(a, true);
    x_alu_imm(a, 5, X_W, RSP, 8);
    x_rr(a, 0x8b | X_W, ENV, RDI);
    x_rr(a, 0x8b | X_W, RAX, RSI);
    x_rm(a, 0x8b | X_W, SPACE, ENV, ENV_OFF(space));
    pins(a, g, pin, false, ALL);
    x_rr(a, 0xff, 4, RAX);
    leave_thunks(t, a, th, pin);
    jump_thunks(a, g, t->config.icount, th);
    x86_call_thunks(a, g, pin, NULL, NULL, 0, th);
    th->vec_consts = vec_consts(a);
    th->vec_numbers = a->at;
    for (unsigned i = 0; i < 64; i++) {
        x_8(a, i);
    }
    return a->full ? 0 : a->at;
}
