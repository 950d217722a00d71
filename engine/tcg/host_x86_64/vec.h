/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Vector hints (struct ir_vec) on x86-64: what the files vec*.c share.
 *
 * A group is worked on in chunks of at most one host register. Results go to the CPU state at once (write-through), and the host register
 * that held one may serve later reads in the block: so the CPU state is right at every fault, exit and call, and what a
 * call destroys is loaded again. One vec_state a struct ra; same thread.
 */
#ifndef VMD_TCG_HOST_X86_64_VEC_H
#define VMD_TCG_HOST_X86_64_VEC_H

#include "engine/tcg/host_x86_64/target.h"
#include "engine/tcg/host_x86_64/vex.h"

/* The operation being emitted. */
struct vec {
    struct ra *r;
    struct asm_buf *a;
    const struct ir_op *op;
    const struct ir_vec *h;
    unsigned es;    /* bytes of an element */
    unsigned total; /* bytes of the operand group */
    unsigned chunk, n_chunks;
    bool evex;
    bool active; /* only some elements are: a mask, or vl below n */
    int gp[2];   /* scratch registers taken, -1: not yet */
    struct vec_slow *slow;
};

#define VEC_MAX_JUMPS 20
#define VEC_MAX_CHUNKS 8

/* What the out-of-line part of an operation needs. */
struct vec_slow {
    struct opnd arg[3];
    uint64_t value[3]; /* of arguments that are constants */
    uint8_t is_const;  /* bit per argument */
    const struct ir_op *op;
    uint32_t jump[VEC_MAX_JUMPS]; /* to the helper */
    unsigned n_jumps;
    /* Floating point again with the host's own flags (vec_fp.c). */
    bool again;
    uint32_t again_jump[VEC_MAX_JUMPS];
    unsigned n_again;
    struct vec x; /* as it was */
    struct ir_vec hint;
};

/* vec.c: registers. v_get: a register with the chunk at this offset of the CPU state, not to be changed unless that chunk is written
 * next; v_new: a free one; v_put: the chunk is what the register holds, in memory and from now on in the cache. */
unsigned v_get(struct vec *x, uint32_t off, unsigned bytes);
unsigned v_new(struct vec *x);
unsigned v_copy(struct vec *x, uint32_t off,
                unsigned bytes); /* a register of its own with the chunk */
void v_put(struct vec *x, unsigned reg, uint32_t off, unsigned bytes);
void v_wrote(struct vec *x, uint32_t off,
             unsigned bytes);             /* memory was written past the cache */
void v_done(struct vec *x, unsigned reg); /* may be given to others before the op ends */
void v_load(struct vec *x, unsigned reg, uint32_t off, unsigned bytes);
void v_store(struct vec *x, unsigned reg, uint32_t off, unsigned bytes);
unsigned v_gp(struct vec *x, unsigned n); /* scratch register 0 or 1 of this op */

/* Emission with the right encoding. */
struct vx v_enc(const struct vec *x, uint32_t code, unsigned bytes);
void v_op(struct vec *x, uint32_t code, unsigned bytes, unsigned d, unsigned s1, unsigned s2);
void v_op_imm(struct vec *x, uint32_t code, unsigned bytes, unsigned d, unsigned s1,
              unsigned s2, unsigned imm);
void v_op_k(struct vec *x, uint32_t code, unsigned bytes, unsigned d, unsigned s1, unsigned s2,
            unsigned k, bool zero);
void v_move(struct vec *x, unsigned bytes, unsigned d, unsigned s);
void v_zero(struct vec *x, unsigned d);
void v_splat_gp(struct vec *x, unsigned sew, unsigned d,
                unsigned gp);                      /* to all elements of a full register */
unsigned v_const(struct vec *x, uint64_t pattern); /* every 8 bytes this */
unsigned v_scalar(struct vec *x);                  /* the scalar operand in all elements */
bool v_scalar_const(const struct vec *x, uint64_t *v);
/* Sets mask register 1 to the active elements of chunk i; 0 when all are. Clobbers mask register 2. */
unsigned v_active(struct vec *x, unsigned i, unsigned chunk);
/* Stores `result` to the chunk at off, active elements only (k of v_active()). */
void v_put_active(struct vec *x, unsigned result, uint32_t off, unsigned bytes, unsigned k);
/* Mask register `from` (an element a bit, 0 where inactive) becomes chunk i of the mask at d; k of v_active(). Clobbers 1 and 2. */
void v_put_mask(struct vec *x, unsigned from, unsigned k, unsigned i);
/* A jump to the helper, taken on the condition; before anything was written. */
void v_give_up(struct vec *x, unsigned cc);
bool v_feature(const struct vec *x, uint32_t features);

/* The instruction of a two-operand operation (vec_int.c); 0: there is none. */
uint32_t v_simple(unsigned op, unsigned sew);

/* One emitter a family. False, before anything was emitted: not inlined. */
bool vec_int(struct vec *x);
bool vec_compare(struct vec *x);
bool vec_memory(struct vec *x);
bool vec_fp(struct vec *x);
void vec_fp_again(struct ra *r, struct vec_slow *s);
bool vec_fp_widen(struct vec *x);
bool vec_fp_narrow(struct vec *x);
bool vec_mask(struct vec *x);
bool vec_widen(struct vec *x);
bool vec_permute(struct vec *x);
bool vec_reduce(struct vec *x);
bool vec_crypto(struct vec *x);

#endif
