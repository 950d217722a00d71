/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Atomic accesses of the x86-64 back end: read-modify-write, compare-and-swap and store-conditional on RAM that the TLB lets
 * us write, by locked instructions (which order like the sequentially consistent ops of the IR); everything else calls
 * the runtime out of line. Fixed registers: rsi the address, rdx the value, rax the result, rcx for whatever is between.
 */
#include "engine/tcg/host_x86_64/target.h"

#define NEW_VALUE (ENV_OFF(arg) + 8)

struct atomic {
    struct ra *r;
    struct fixup *f;
    unsigned mo, wide; /* wide: X_W for 64 bits */
};

static void slow_unless(struct atomic *x, unsigned cc)
{
    unsigned n = 0;
    while (x->f->fp_jump[n]) {
        n++;
    }
    x->f->fp_jump[n] = x_jcc(&x->r->a, cc ^ 1, x->r->a.at);
}

/* rsi: from the guest's address to the host's. Clobbers rax and rcx. */
static void lookup(struct atomic *x)
{
    uint32_t miss = gen_lookup_in(x->r, RSI, 0, x->mo, true, RAX, RCX);
    unsigned n = 0;
    while (x->f->fp_jump[n]) {
        n++;
    }
    x->f->fp_jump[n] = miss;
    x_rr(&x->r->a, 0x03 | X_W, RSI, RAX);
}

/* lock op [rsi], reg */
static void locked(struct atomic *x, unsigned op, unsigned reg)
{
    x_8(&x->r->a, 0xf0);
    x_rm(&x->r->a, op | x->wide, reg, RSI, 0);
}

/* The value read is in eax or rax: extends it to 64 bits as the access wants. */
static void extend(struct atomic *x)
{
    if (!x->wide) {
        x_rr(&x->r->a, x->mo & MO_SIGN ? 0x63 | X_W : 0x8b, RAX, RAX);
    }
}

/* Reads, computes rcx from rax and rdx, and tries until nobody came between. */
static void retry_loop(struct atomic *x, enum ir_amo kind)
{
    static const uint8_t alu[] = { [IR_AMO_AND] = 0x23, [IR_AMO_OR] = 0x0b, [IR_AMO_XOR] = 0x33 };
    static const uint8_t old_wins[] = { [IR_AMO_MIN] = CC_L, [IR_AMO_MAX] = CC_G,
                                        [IR_AMO_MINU] = CC_B, [IR_AMO_MAXU] = CC_A };
    struct asm_buf *a = &x->r->a;
    x_rm(a, 0x8b | x->wide, RAX, RSI, 0);
    uint32_t again = a->at;
    x_rr(a, 0x8b | X_W, RCX, RDX);
    if (kind >= IR_AMO_MIN) {
        x_rr(a, 0x3b | x->wide, RAX, RDX);
        x_rr(a, X_0F | 0x40u | old_wins[kind] | x->wide, RCX, RAX);
    } else {
        x_rr(a, alu[kind] | x->wide, RCX, RAX);
    }
    locked(x, X_0F | 0xb1, RCX);
    x_jcc(a, CC_NE, again);
}

static bool wanted(const struct ra *r, ir_ref d)
{
    return d != IR_NONE && (ir_kind(d) != IR_TEMP || r->last[ir_index(d)]);
}

static void amo(struct atomic *x, const struct ir_op *op)
{
    static const uint8_t alu[] = { [IR_AMO_ADD] = 0x01, [IR_AMO_AND] = 0x21, [IR_AMO_OR] = 0x09,
                                   [IR_AMO_XOR] = 0x31 };
    struct asm_buf *a = &x->r->a;
    enum ir_amo kind = (enum ir_amo)op->aux;
    lookup(x);
    if (kind == IR_AMO_SWAP) {
        x_rr(a, 0x8b | X_W, RAX, RDX);
        x_rm(a, 0x87 | x->wide, RAX, RSI, 0); /* locks by itself */
    } else if (!wanted(x->r, op->d) && kind < IR_AMO_MIN) {
        locked(x, alu[kind], RDX);
        return;
    } else if (kind == IR_AMO_ADD) {
        x_rr(a, 0x8b | X_W, RAX, RDX);
        locked(x, X_0F | 0xc1, RAX);
    } else {
        retry_loop(x, kind);
    }
    extend(x);
}

/* Bytes and half-words are too rare to be worth code: always the runtime. */
static void always_slow(struct atomic *x)
{
    x->f->fp_jump[0] = x_jmp(&x->r->a, x->r->a.at);
}

/* rdx is what is expected; the new value waits in memory until the lookup has done with rcx. */
static void cas(struct atomic *x, const struct ir_op *op)
{
    gen_load_arg(x->r, RCX, op->c);
    x_rm(&x->r->a, 0x89 | X_W, RCX, ENV, NEW_VALUE);
    if ((x->mo & MO_SIZE) < MO_32) {
        always_slow(x);
        return;
    }
    lookup(x);
    x_rr(&x->r->a, 0x8b | X_W, RAX, RDX);
    x_rm(&x->r->a, 0x8b | X_W, RCX, ENV, NEW_VALUE);
    locked(x, X_0F | 0xb1, RCX);
    extend(x);
}

/* Success is the case that counts: another address than the reserved one goes to the helper. */
static void store_conditional(struct atomic *x)
{
    struct asm_buf *a = &x->r->a;
    const struct tcg_guest *g = x->r->v->tcg->guest;
    x_rm(a, 0x3b | X_W, RSI, ENV, (int32_t)g->res_addr);
    slow_unless(x, CC_E);
    lookup(x);
    x_rm(a, 0x8b | X_W, RAX, ENV, (int32_t)g->res_value);
    x_rm(a, 0xc7 | X_W, 0, ENV, (int32_t)g->res_addr); /* no reservation any more: all ones */
    x_32(a, UINT32_MAX);
    locked(x, X_0F | 0xb1, RDX);
    x_rr(a, X_0F | 0x90u | CC_NE | X_BYTE_RM, 0, RAX);
    x_rr(a, X_0F | 0xb6 | X_BYTE_RM, RAX, RAX);
}

static void result(struct ra *r, ir_ref d)
{
    if (!wanted(r, d)) {
        return;
    }
    if (ir_kind(d) == IR_GLOBAL && r->pin[ir_index(d)] >= 0) {
        x_rr(&r->a, 0x8b | X_W, (unsigned)r->pin[ir_index(d)], RAX);
    } else {
        ra_done(r, d, RAX);
    }
}

void gen_atomic(struct ra *r, const struct ir_op *op)
{
    ra_x_forget(r);
    bool sc = op->op == IR_call;
    unsigned mo = sc ? (op->w == 64 ? MO_64 : MO_32 | MO_SIGN) | MO_ALIGN : op->mo;
    struct atomic x = { .r = r, .mo = mo, .wide = (mo & MO_SIZE) == MO_64 ? X_W : 0 };
    ra_spill_all(r);
    gen_load_arg(r, RSI, op->a);
    gen_load_arg(r, RDX, op->b);
    r->busy = (1u << N_SCRATCH) - 1;
    x.f = new_fixup(r, FIX_ATOMIC);
    x.f->mo = (uint8_t)mo;
    if (sc) {
        x.f->fp_fn = (uint64_t)op->imm;
        store_conditional(&x);
    } else if (op->op == IR_amo) {
        x.f->fp_fn = (uint64_t)(uintptr_t)tlb_amo;
        x.f->imm = (int32_t)(op->mo | (uint32_t)op->aux << 8);
        if ((mo & MO_SIZE) < MO_32) {
            always_slow(&x);
        } else {
            amo(&x, op);
        }
    } else {
        x.f->fp_fn = (uint64_t)(uintptr_t)tlb_cas;
        cas(&x, op);
    }
    x.f->back = r->a.at;
    result(r, op->d);
}

void gen_atomic_stub(struct ra *r, const struct fixup *f)
{
    for (unsigned i = 0; i < 6 && f->fp_jump[i]; i++) {
        x_here(&r->a, f->fp_jump[i]);
    }
    if (f->fp_fn == (uint64_t)(uintptr_t)tlb_amo) {
        x_mov_imm(&r->a, RCX, (uint64_t)f->imm);
    } else if (f->fp_fn == (uint64_t)(uintptr_t)tlb_cas) {
        x_rm(&r->a, 0x8b | X_W, RCX, ENV, NEW_VALUE);
        x_rm(&r->a, 0xc7 | X_W, 0, ENV, ENV_OFF(arg)); /* the fifth argument: the thunk loads r8 from here */
        x_32(&r->a, f->mo);
    }
    x_mov_imm(&r->a, RAX, f->fp_fn);
    x_call(&r->a, r->th->reads);
    r->insn = f->insn;
    gen_site(r);
    vec_reload(r, f->snapshot);
    x_jmp(&r->a, f->back);
}
