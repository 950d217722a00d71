/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Leaving a block on x86-64: linkable jumps inside the page, the inline jump cache for everything else, polls for
 * interrupts, and the patching of all these.
 */
#include "engine/tcg/host_x86_64/target.h"

static struct fixup *exit_fixup(struct ra *r, unsigned exit, uint32_t jump)
{
    struct fixup *f = new_fixup(r, FIX_EXIT);
    f->exit = (uint16_t)exit;
    f->jump = jump;
    return f;
}

void gen_poll(struct ra *r, const struct ir_op *op)
{
    const struct ir_exit *x = &r->ir->exits[op->imm];
    if (x->kind == IR_EXIT_INDIRECT && r->i + 1 < r->ir->n_ops && op[1].op == IR_exit && op[1].imm == op->imm) {
        return; /* the thunk of the jump looks */
    }
    if (r->lean && x->kind == IR_EXIT_DIRECT) {
        return; /* so does the entry of the block that it leads to, and the thunk of a jump to another page */
    }
    unsigned pc = x->kind == IR_EXIT_INDIRECT ? ra_use_reg(r, x->ref) : 0;
    x_alu_mem_imm(&r->a, 7, 0, ENV, ENV_OFF(exit_req), 0);
    struct fixup *f = exit_fixup(r, (unsigned)op->imm, x_jcc(&r->a, CC_NE, r->a.at));
    f->pc_reg = (uint8_t)pc;
    f->no_link = true;
}

void gen_budget(struct ra *r, const struct ir_op *op)
{
    if (op->aux) {
        x_alu_mem_imm(&r->a, 5, X_W, ENV, ENV_OFF(budget), op->aux);
        struct fixup *f = exit_fixup(r, (unsigned)op->imm, x_jcc(&r->a, CC_L, r->a.at));
        f->no_link = true;
        f->refund = op->aux;
    }
}

void gen_brcond(struct ra *r, const struct ir_op *op)
{
    int piece = region_target(r, (unsigned)op->imm);
    uint32_t from = r->a.at;
    gen_compare(r, op);
    if (piece >= 0) {
        region_jump(r, cc_of[op->cond], (unsigned)piece);
        return;
    }
    x_align_patch_behind(&r->a, 2, from);
    uint32_t at = x_jcc(&r->a, cc_of[op->cond], r->a.at);
    exit_fixup(r, (unsigned)op->imm, at);
}

/*
 * To the block for the virtual address in `pc` by the jump cache. Compact code asks a thunk, since nearly every block ends like
 * this; code that runs often has the whole of it, because the host predicts a jump by the place where it stands.
 */
static void jump_cache(struct ra *r, unsigned pc)
{
    if (pc != RCX) {
        x_rr(&r->a, 0x8b | X_W, RCX, pc);
    }
    if (r->lean) {
        x_near(&r->a, 4, NEAR_JUMP);
    } else {
        x86_jump_by_cache(&r->a, r->th, !r->v->tcg->config.icount);
    }
}

/* The virtual address of a place outside of the page into rcx. */
static void cross_page(struct ra *r, int32_t off)
{
    x_rm(&r->a, 0x8b | X_W, RCX, ENV, ENV_OFF(pc_page));
    x_alu_imm(&r->a, 0, X_W, RCX, off);
    if (r->v->tcg->guest->pc_mask == UINT32_MAX) {
        x_rr(&r->a, 0x8b, RCX, RCX);
    }
}

/* Leaves a region to the dispatcher, naming the exit. */
static void leave_by(struct ra *r, unsigned exit)
{
    x_8(&r->a, 0xb8 | RAX); /* mov eax */
    x_32(&r->a, r->exit_base + exit);
    region_exit(r);
    x_jmp(&r->a, r->th->leave);
}

struct tcg_exit *exit_left(struct tcg_vm *t, uint64_t host)
{
    struct tcg_exit *found = NULL;
    pthread_mutex_lock(&t->lock);
    struct tcg_block *b = cache_by_host(t, host - LEAVE_BYTES); /* the call may be the block's end */
    uint32_t stub = (uint32_t)(host - LEAVE_BYTES - (uint64_t)(uintptr_t)t->buf.rx);
    for (unsigned i = 0; i < b->n_exits && !found; i++) {
        found = exit_stub(&b->exits[i]) == stub ? &b->exits[i] : NULL;
    }
    pthread_mutex_unlock(&t->lock);
    return found;
}

void exit_asked(struct tcg_vcpu *v)
{
    struct tcg_vm *t = v->tcg;
    pthread_mutex_lock(&t->lock);
    const struct tcg_block *b = cache_by_host(t, v->host_ra);
    pthread_mutex_unlock(&t->lock);
    *tcg_pc(v) = v->pc_page + (b->gpa & 4095);
}

void gen_exit(struct ra *r, const struct ir_op *op)
{
    const struct ir_exit *x = &r->ir->exits[op->imm];
    int piece = region_target(r, (unsigned)op->imm);
    if (piece >= 0) {
        region_jump(r, -1, (unsigned)piece);
    } else if (x->kind == IR_EXIT_LOOKUP) {
        region_leave(r);
        x_jmp(&r->a, r->th->jump_now);
    } else if (x->kind == IR_EXIT_INDIRECT) {
        unsigned pc = ra_use_reg(r, x->ref);
        if (r->region || pc == RAX || pc == RDX) {
            x_rr(&r->a, 0x8b | X_W, RCX, pc);
            pc = RCX;
        }
        region_leave(r);
        jump_cache(r, pc);
    } else if (ir_exit_named(x) && r->region) {
        exit_fixup(r, (unsigned)op->imm, x_jmp(&r->a, r->a.at));
    } else if (ir_exit_named(x)) {
        x_align_patch(&r->a, 1);
        uint32_t at = x_jmp(&r->a, r->a.at);
        exit_fixup(r, (unsigned)op->imm, at);
    } else {
        region_leave(r);
        cross_page(r, x->off);
        jump_cache(r, RCX);
    }
}

/* The record knows one stub; a second jump with the same exit names it. */
static void stub_of(struct ra *r, const struct fixup *f, struct tcg_exit *out)
{
    if (out->patch) {
        x_8(&r->a, 0xb8 | RAX); /* mov eax */
        x_32(&r->a, cache_ref(r->v->tcg, out));
        x_jmp(&r->a, r->th->leave);
        return;
    }
    uint32_t stub = r->a.at - r->b->code;
    r->fail |= stub > UINT16_MAX;
    if (f->no_link) {
        out->patch = (uint16_t)stub;
    } else {
        exit_patchable(out, f->jump - r->b->code, stub);
    }
    x_near(&r->a, 2, NEAR_LEAVE);
}

void gen_exit_stub(struct ra *r, const struct fixup *f)
{
    const struct ir_exit *x = &r->ir->exits[f->exit];
    struct tcg_exit *out = &r->b->exits[r->region ? r->exit_base + f->exit : x->record];
    x_here(&r->a, f->jump);
    if (f->refund) {
        x_alu_mem_imm(&r->a, 0, X_W, ENV, ENV_OFF(budget), f->refund);
    }
    if (x->kind == IR_EXIT_INDIRECT) {
        x_rm(&r->a, 0x89 | X_W, f->pc_reg, ENV, (int32_t)r->ir->pc_offset);
    }
    region_leave(r);
    if (x->kind == IR_EXIT_INDIRECT || x->kind == IR_EXIT_LOOKUP) {
        x_jmp(&r->a, r->th->lookup);
    } else if (ir_exit_named(x)) {
        if (!f->no_link && r->region) {
            x_align_patch(&r->a, 1);
            uint32_t jump = x_jmp(&r->a, r->a.at);
            x_here(&r->a, jump);
            exit_patchable(out, jump - r->b->code, r->a.at - r->b->code);
        } else if (!r->region) {
            stub_of(r, f, out);
            return;
        }
        leave_by(r, f->exit);
    } else if (f->no_link) {
        cross_page(r, x->off);
        x_rm(&r->a, 0x89 | X_W, RCX, ENV, (int32_t)r->ir->pc_offset);
        x_jmp(&r->a, r->th->lookup);
    } else {
        cross_page(r, x->off);
        jump_cache(r, RCX);
    }
}

void x86_patch(struct tcg_vm *t, struct tcg_exit *x, uint32_t to)
{
    uint32_t at = exit_block(x)->code + x->patch, rel = to - (at + 4);
    __atomic_store_n((uint32_t *)(void *)(t->buf.rw + at), rel, __ATOMIC_RELEASE);
}

uint32_t x86_leads_to(const struct tcg_vm *t, const struct tcg_exit *x)
{
    uint32_t at = exit_block(x)->code + x->patch;
    return at + 4 + __atomic_load_n((const uint32_t *)(const void *)(t->buf.rw + at), __ATOMIC_RELAXED);
}

void x86_kill(struct tcg_vm *t, struct tcg_block *b, const struct tcg_block *forward)
{
    const struct thunks *th = (const struct thunks *)(const void *)t->host_data;
    uint8_t bytes[8];
    uint32_t rel = (forward ? forward->code : th->stale) - (b->code + 5);
    uint64_t word;
    memcpy(bytes, t->buf.rw + b->code, 8);
    bytes[0] = forward ? 0xe9 : 0xe8;
    memcpy(bytes + 1, &rel, 4);
    memcpy(&word, bytes, 8);
    __atomic_store_n((uint64_t *)(void *)(t->buf.rw + b->code), word, __ATOMIC_RELEASE);
}
