/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The intermediate representation between guests and hosts: a superblock, one entry, several exits, no join inside.
 *
 * Values are 64-bit words. Three kinds live in an ir_ref: temps (defined once, before use), globals (guest registers,
 * mutable; a ref to one means its value at the op that uses it) and constants; a fourth, page-relative addresses,
 * exists only in the builder and is materialised by op `pcrel`. The builder folds constants as it goes and remembers what each
 * global is known to hold, so lui+addi, auipc+ld or auipc+jalr need no pass of their own.
 *
 * At every op boundary the globals hold the architectural state: exits and faulting ops need no fix-up code.
 * An ir belongs to the thread that translates; nothing here locks.
 */
#ifndef VMD_TCG_IR_H
#define VMD_TCG_IR_H

#include "engine/base/buf.h"

#include <stdbool.h>
#include <stdint.h>

enum { IRF_SIDE = 1, IRF_FAULT = 2, IRF_EXIT = 4, IRF_END = 8 };

enum ir_opcode {
#define IR_OP(name, operands, flags, doc) IR_##name,
#include "engine/tcg/ir.def"
#undef IR_OP
    IR_N_OPS
};

struct ir_op_info {
    const char *name, *operands, *doc;
    uint8_t flags;
};
extern const struct ir_op_info ir_op_info[IR_N_OPS];

typedef uint32_t ir_ref;
#define IR_NONE 0xffffffffu
enum ir_kind { IR_TEMP, IR_GLOBAL, IR_CONST, IR_PCREL };
static inline enum ir_kind ir_kind(ir_ref r)
{
    return (enum ir_kind)(r >> 30);
}
static inline uint32_t ir_index(ir_ref r)
{
    return r & 0x3fffffffu;
}
static inline ir_ref ir_global(unsigned n)
{
    return (uint32_t)IR_GLOBAL << 30 | n;
}

/* Conditions; the pairs differ in the lowest bit only, so that c ^ 1 is the opposite. */
enum ir_cond { IR_EQ, IR_NE, IR_LT, IR_GE, IR_LE, IR_GT, IR_LTU, IR_GEU, IR_LEU, IR_GTU, IR_N_CONDS };

/* How ld, st, amo, cas, ldenv and stenv access: log2 of the size, sign extension to 64 bits, flags. */
enum { MO_8 = 0, MO_16 = 1, MO_32 = 2, MO_64 = 3, MO_SIZE = 3, MO_SIGN = 4,
       MO_ALIGN = 8 /* misaligned faults instead of being served */,
       MO_AMO = 16 /* a load that needs write permission and reports store faults */,
       MO_ONES = 32 /* ld of 32 bits: ones above them */ };
enum ir_amo { IR_AMO_SWAP, IR_AMO_ADD, IR_AMO_AND, IR_AMO_OR, IR_AMO_XOR, IR_AMO_MIN, IR_AMO_MAX, IR_AMO_MINU, IR_AMO_MAXU };
/* Orders of fence: earlier loads/stores before later loads/stores. */
enum { IR_FENCE_LL = 1, IR_FENCE_LS = 2, IR_FENCE_SL = 4, IR_FENCE_SS = 8, IR_FENCE_ALL = 15 };

/* What a called function may do. None set: it may read and write globals and raise. */
enum { IR_CALL_PURE = 1 /* result depends on the arguments alone; may be removed */,
       IR_CALL_NO_GLOBALS = 2 /* touches no global, cannot raise; other CPU state it may */,
       IR_CALL_READS = 4 /* may raise or read globals but writes none (unless it raises) */,
       IR_CALL_VEC = 0x80 /* set by ir_vec_hint(): op->mo indexes ir->vecs */ };
/* What IEEE 754 operation a call computes, so that a host may do it inline (bits 8 and up of op->aux; op->w is the format of the
 * result, or of the operands where that is an integer). Rounding is to nearest even, where op->mo is 1 only if the byte that
 * tcg_guest.fp_round names is 0; flags are sticky in the field that tcg_guest.fp_flags names. Singles have ones above them. */
#define IR_FP_SHIFT 8
enum ir_fp { IR_FP_NONE, IR_FP_ADD, IR_FP_SUB, IR_FP_MUL, IR_FP_DIV, IR_FP_SQRT,
             IR_FP_MADD /* a * b + c */, IR_FP_MSUB /* a * b - c */, IR_FP_NMSUB /* c - a * b */,
             IR_FP_NMADD /* -(a * b) - c */, IR_FP_EQ /* quiet; d is 0 or 1 */, IR_FP_LT, IR_FP_LE,
             IR_FP_MIN /* of two numbers, -0 below 0 */, IR_FP_MAX, IR_FP_COPY, IR_FP_NEG, IR_FP_ABS,
             IR_FP_TRUNC_I32 /* toward zero; d is sign-extended */, IR_FP_TRUNC_I64,
             IR_FP_RINT_I32 /* to nearest even */, IR_FP_RINT_I64,
             IR_FP_FROM_I32 /* of the low half of a */, IR_FP_FROM_U32, IR_FP_FROM_I64, IR_FP_FROM_U64,
             IR_FP_WIDEN /* a double of a single */, IR_FP_NARROW /* a single of a double */,
             IR_SC /* no arithmetic: see ir_sc_hint() */ };

/*
 * What a call computes on vectors that lie in the CPU state, so that a host may do it inline. The called function is right in all
 * cases and stays the definition; a hint is given only where these hold at run time (known from tcg_variant() and from
 * code emitted before), and then the call must be nothing but the operation:
 * - it touches no CPU state but d, the IEEE flags (for floating point) and, when it raises, what the exception leaves: element index
 *   0 is first (vstart is 0 and stays so), "vector state dirty" was set by the guest's own ops;
 * - elements outside the active ones (masked off; behind vl; behind n in a register) are left as they are, mask bits too;
 * - rounding is to nearest even, and a scalar float is NaN-boxed in 64 bits as in a guest register;
 * - reserved overlaps of d with a, b, m were refused. Operands are identical, apart, or overlap as RVV 1.0 5.2 allows.
 */
enum ir_vec_op {
#define IR_VEC_OP(name, kind, doc) IR_VEC_##name,
#include "engine/tcg/ir_vec.def"
#undef IR_VEC_OP
    IR_N_VEC_OPS
};
struct ir_vec_info {
    const char *name, *doc;
    char kind; /* see ir_vec.def */
};
extern const struct ir_vec_info ir_vec_info[IR_N_VEC_OPS];

enum { IR_VEC_SCALAR = 1 /* b is the call's argument `arg`, the same for all elements */,
       IR_VEC_MASKED = 2 /* active are the elements whose bit of the mask at m is set */,
       IR_VEC_VL = 4 /* active are those below vl, read at run time from tcg_guest.vl_offset; else all n */,
       IR_VEC_GROUP0 = 8 /* kind A: a is its first group of 4 elements, for all groups */ };
struct ir_vec {
    uint8_t op;          /* enum ir_vec_op */
    uint8_t sew;         /* log2 of the bytes of an element, 0 to 3; of the narrow side of kinds W and N */
    uint8_t flags;       /* IR_VEC_* */
    uint8_t arg;         /* which argument of the call is the scalar or the address: 0 a, 1 b, 2 c */
    uint16_t n;          /* elements (VLMAX), or bits for kinds L and X: a power of two, n << sew at most 2048. Where vl is known at
                          * translation to be a smaller power of two (crypto: vsetivli zero,4), n is vl, without IR_VEC_VL: worth
                          * telling apart in the variant word. */
    uint32_t d, a, b, m; /* offsets in the CPU state, 0 when unused; of mask bit 0 for masks */
};
/* Runs on the vCPU's thread; cpu is the architectural state (vcpu->cpu). It may raise by tcg_raise(). */
typedef uint64_t (*ir_helper)(void *cpu, uint64_t a, uint64_t b, uint64_t c);

enum ir_exit_kind {
    IR_EXIT_DIRECT,   /* to the page-relative offset `off`; linked when in the same page and not `far` */
    IR_EXIT_INDIRECT, /* to the virtual address in `ref` */
    IR_EXIT_LOOKUP    /* pc is already in the CPU state; the mode may have changed */
};
enum ir_hint { IR_HINT_NONE, IR_HINT_CALL, IR_HINT_RETURN,
               IR_HINT_GUARD /* the block's assumption does not hold: on in another variant (guest.h) */ };
struct ir_exit {
    uint8_t kind, hint;
    uint16_t record; /* of the block's exits */
    int32_t off;
    ir_ref ref;
    bool far;        /* what is there hangs on more than this page: by the jump cache */
};
/* It leads to a known place of the page, which a block has a record of. */
static inline bool ir_exit_named(const struct ir_exit *x)
{
    return x->kind == IR_EXIT_DIRECT && x->off >= 0 && x->off < 4096 && !x->far;
}

struct ir_op {
    uint8_t op;     /* enum ir_opcode */
    uint8_t w;      /* 32 or 64 */
    uint8_t cond;   /* enum ir_cond */
    uint8_t mo;     /* MO_* */
    uint16_t aux;
    ir_ref d, a, b, c, e;
    int64_t imm;
};

/* A guest register that blocks may keep in a host register. */
struct ir_global {
    const char *name;
    uint32_t offset;  /* of its 64-bit slot in the CPU state */
    uint8_t pin;      /* 1: the hottest, first to get a host register of its own; 0: none */
};

#define IR_MAX_OPS 1024
#define IR_MAX_TEMPS 1024
#define IR_MAX_EXITS 80
#define IR_MAX_CONSTS 512
#define IR_MAX_GLOBALS 96
#define IR_MAX_VECS 128

struct ir {
    const struct ir_global *globals;
    unsigned n_globals;
    uint32_t pc_offset;     /* of the guest pc in the CPU state */
    unsigned n_ops, n_temps, n_exits, n_consts, n_vecs;
    bool overflow;          /* a table was full: the caller retries with fewer instructions */
    int32_t insn_off;       /* of the current instruction */
    struct ir_op ops[IR_MAX_OPS];
    struct ir_exit exits[IR_MAX_EXITS];
    uint64_t consts[IR_MAX_CONSTS];
    struct ir_vec vecs[IR_MAX_VECS];
    ir_ref known[IR_MAX_GLOBALS]; /* what a global is known to equal (CONST or PCREL), or IR_NONE */
};

/* The hint of a call with IR_CALL_VEC, and the scalar or address among the call's arguments. */
static inline const struct ir_vec *ir_vec_of(const struct ir *ir, const struct ir_op *op)
{
    return &ir->vecs[op->mo];
}
static inline ir_ref ir_vec_arg(const struct ir_vec *v, const struct ir_op *op)
{
    return v->arg == 0 ? op->a : v->arg == 1 ? op->b : op->c;
}

void ir_start(struct ir *ir, const struct ir_global *globals, unsigned n, uint32_t pc_offset);

/* Values. */
ir_ref ir_const(struct ir *ir, uint64_t v);
ir_ref ir_pcrel(struct ir *ir, int64_t off);      /* virtual address of page + off, as a foldable value */
bool ir_is_const(const struct ir *ir, ir_ref r, uint64_t *v);
bool ir_is_pcrel(const struct ir *ir, ir_ref r, int64_t *off);
/* A global's value: the constant it is known to hold, else a live reference: it means the value at the op that uses
 * it, so read it before setting the same global (or take ir_copy). */
ir_ref ir_get(struct ir *ir, unsigned global);
void ir_set(struct ir *ir, unsigned global, ir_ref v);
ir_ref ir_copy(struct ir *ir, ir_ref v);          /* a temp with today's value (constants are returned as they are) */

/* Pure ops, folded where the operands are known. w is 32 or 64. */
ir_ref ir_bin(struct ir *ir, enum ir_opcode op, unsigned w, ir_ref a, ir_ref b);
ir_ref ir_un(struct ir *ir, enum ir_opcode op, unsigned w, ir_ref a); /* clz .. zext32; sext and zext ignore w */
ir_ref ir_setcond(struct ir *ir, enum ir_cond c, unsigned w, ir_ref a, ir_ref b);
ir_ref ir_select(struct ir *ir, enum ir_cond c, unsigned w, ir_ref a, ir_ref b, ir_ref yes, ir_ref no);
static inline ir_ref ir_add(struct ir *ir, ir_ref a, ir_ref b)
{
    return ir_bin(ir, IR_add, 64, a, b);
}
static inline ir_ref ir_addi(struct ir *ir, ir_ref a, int64_t i)
{
    return ir_bin(ir, IR_add, 64, a, ir_const(ir, (uint64_t)i));
}

/* State outside the globals, by offset in the CPU state; memop gives size and sign. */
ir_ref ir_ldenv(struct ir *ir, uint32_t offset, unsigned mo);
void ir_stenv(struct ir *ir, uint32_t offset, unsigned mo, ir_ref v);

/* Guest memory at a + disp. disp fits 32 bits. */
ir_ref ir_ld(struct ir *ir, ir_ref a, int32_t disp, unsigned mo);
void ir_st(struct ir *ir, ir_ref a, int32_t disp, ir_ref v, unsigned mo);
ir_ref ir_amo(struct ir *ir, enum ir_amo kind, ir_ref a, ir_ref v, unsigned mo); /* returns the old value, extended per mo */
ir_ref ir_cas(struct ir *ir, ir_ref a, ir_ref expect, ir_ref v, unsigned mo);
void ir_fence(struct ir *ir, unsigned orders);

/* Arguments may be IR_NONE. Returns the result temp when want_result, else IR_NONE. */
ir_ref ir_call(struct ir *ir, ir_helper fn, unsigned flags, bool want_result, ir_ref a, ir_ref b, ir_ref c);

/* Says what the call just emitted computes; w is 32 or 64. ask: only under the rounding mode that is to be looked at. */
void ir_fp_hint(struct ir *ir, enum ir_fp kind, unsigned w, bool ask);
/* The same for vectors; copies *v. Past IR_MAX_VECS of a block nothing is said, and the function runs. */
void ir_vec_hint(struct ir *ir, const struct ir_vec *v);
/* Says that the call just emitted stores b (of w bits) at a if the reservation of tcg_guest.res_addr is for a and memory
 * there still equals res_value, ends the reservation, and returns 0 when it stored, else 1. */
void ir_sc_hint(struct ir *ir, unsigned w);

/* pc of the CPU state = v: before IR_EXIT_LOOKUP and before helpers that leave for good. */
void ir_setpc(struct ir *ir, ir_ref v);

/* Low level; translators use tcg_goto() and friends of guest.h. */
void ir_insn(struct ir *ir, int32_t off);
unsigned ir_exit_new(struct ir *ir, enum ir_exit_kind kind, int32_t off, ir_ref ref, enum ir_hint hint);
void ir_poll(struct ir *ir, unsigned exit);
void ir_count(struct ir *ir, unsigned exit); /* aux is filled in later */
void ir_brcond(struct ir *ir, enum ir_cond c, unsigned w, ir_ref a, ir_ref b, unsigned exit);
void ir_exit(struct ir *ir, unsigned exit);

/* Passes, in the order of the list in ir_opt.c. With `check` (always in builds with --enable-debug) ir_check() runs after each;
 * what it finds is our own bug and aborts. */
void ir_optimise(struct ir *ir, bool check);
/* False with what is wrong in why[n]. */
bool ir_check(const struct ir *ir, char *why, size_t n);
void ir_print(const struct ir *ir, struct buf *b);
/* Meaning of a pure op on constants: the one definition the builder, the optimiser and the interpreter share. */
uint64_t ir_eval(enum ir_opcode op, unsigned w, uint64_t a, uint64_t b);
bool ir_eval_cond(enum ir_cond c, unsigned w, uint64_t a, uint64_t b);

#endif
