/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The vector instructions of RISC-V, inside: what an instruction does is one row (struct v_op) that a driver
 * of helper_v*.c runs with kernels, loops over plain arrays. All on the vCPU's own thread.
 *
 * A kernel knows no masks and no registers: it computes n elements. The drivers give it pointers into the
 * register file (groups are contiguous there), a scalar operand spread out over an array, and put its result
 * in place under a mask. Inactive and tail elements keep their values (undisturbed), which is also what we
 * choose where vtype says agnostic.
 */
#ifndef VMD_TCG_GUEST_RISCV_VEC_H
#define VMD_TCG_GUEST_RISCV_VEC_H

#include "engine/arch/riscv/vector.h"
#include "engine/tcg/softfp/softfp.h"

#include <stddef.h>

/* Elements live in an array of bytes. */
typedef uint8_t v_u8;
typedef uint16_t __attribute__((may_alias)) v_u16;
typedef uint32_t __attribute__((may_alias)) v_u32;
typedef uint64_t __attribute__((may_alias)) v_u64;
typedef int8_t __attribute__((may_alias)) v_s8;
typedef int16_t __attribute__((may_alias)) v_s16;
typedef int32_t __attribute__((may_alias)) v_s32;
typedef int64_t __attribute__((may_alias)) v_s64;

#define V_GROUP_MAX (8 * RISCV_VLENB_MAX) /* bytes of the largest register group */
#define V_ELEMENTS_MAX V_GROUP_MAX

/* Operands may be the same array, or overlap as the architecture allows: element i of the result never lies
 * over an element of a source with a higher number. */
#if defined(__clang__)
#define V_LOOP _Pragma("clang loop vectorize(assume_safety)")
#else
#define V_LOOP _Pragma("GCC ivdep")
#endif
/* Kernels are worth the compiler's full effort, where it is asked for any. */
#if defined(__OPTIMIZE__) && !defined(__clang__)
#define V_KERNELS_BEGIN _Pragma("GCC push_options") _Pragma("GCC optimize(\"O3\")")
#define V_KERNELS_END _Pragma("GCC pop_options")
#elif defined(__clang__) /* some loops cannot be vectorised, and it would say so */
#define V_KERNELS_BEGIN                                                                        \
    _Pragma("clang diagnostic push") _Pragma("clang diagnostic ignored \"-Wpass-failed\"")
#define V_KERNELS_END _Pragma("clang diagnostic pop")
#else
#define V_KERNELS_BEGIN
#define V_KERNELS_END
#endif

/* What kernels read and collect beside their operands. */
struct v_ctx {
    struct riscv_cpu *c;
    struct sf_status fp;
    uint8_t vxrm;
    uint8_t sat;          /* set when an element was saturated */
    const uint8_t *carry; /* a byte an element, 0 or 1: v0, or NULL */
};

/* d[i] = OP(a[i], b[i]) for i < n: d is vd (also a source of multiply-adds), a is vs2, b vs1 or the scalar. */
typedef void (*v_kernel)(void *d, const void *a, const void *b, size_t n, struct v_ctx *x);

/* Element sizes and kinds of the operands of an instruction, relative to SEW (log2). */
enum {
    V_MASK = 100 /* a mask register */,
    V_ONE /* element 0 of a register */,
    V_NONE,
    V_INDEX16 /* elements of 16 bits */
};
enum v_shape_flag {
    V_APART = 1,   /* vd may not overlap any source, nor v0 when masked */
    V_VSTART0 = 2, /* illegal unless vstart is 0 */
    V_APART2 = 4,  /* vd may not overlap vs2 */
    V_READS_D = 8, /* vd is a source, too, wider than the others: it may not overlap them */
};
struct v_shape {
    int8_t d, s2, s1;
    uint8_t flags;
};

enum v_flag {
    V_F = 1,         /* floating point: FS must be on, frm valid, fflags may change */
    V_FLAGS = 2,     /* sets sticky flags: inactive elements must not be computed */
    V_CARRY = 4,     /* v0 is an operand, not a mask */
    V_UIMM = 8,      /* the immediate is unsigned */
    V_TO_X = 16,     /* the result is an x register */
    V_TO_F = 32,     /* ... or an f register */
    V_HALF_MIN = 64, /* binary16 by Zvfhmin is enough */
    V_NO_FRM = 128,  /* works with an invalid frm */
};

/* In v_op.param of cryptography: all groups use the first one of vs2. */
enum { V_GROUP0 = 16 };

struct v_args;
struct v_op {
    uint64_t (*run)(struct v_args *v);
    const v_kernel *k; /* by log2 of SEW in bytes; NULL where there is none: illegal */
    struct v_shape shape;
    uint8_t flags;  /* enum v_flag */
    uint8_t sews;   /* allowed SEW as a set of 1 << log2, where k is NULL */
    uint8_t half;   /* SEW for which an operand is binary16, as such a set */
    uint8_t d_sews; /* SEW that only V (integer) or Zve64d (float) has, as such a set */
    uint8_t param;  /* for run */
    uint8_t hint;   /* enum ir_vec_op + 1 that the hosts know it by; 0: none */
};

/* One instruction as it runs. */
struct v_args {
    struct riscv_cpu *c;
    const struct v_op *op;
    uint32_t insn;
    uint64_t scalar; /* x or f register, or immediate */
    unsigned sew;    /* log2 of bytes */
    int lmul;        /* log2 */
    size_t vl, vstart;
    bool masked;
    uint8_t *d; /* vd */
    const uint8_t *s2;
    const uint8_t *s1; /* NULL: the operand is `scalar` */
};

static inline unsigned v_vd(uint32_t insn)
{
    return insn >> 7 & 31;
}
static inline unsigned v_vs1(uint32_t insn)
{
    return insn >> 15 & 31;
}
static inline unsigned v_vs2(uint32_t insn)
{
    return insn >> 20 & 31;
}
static inline bool v_vm(uint32_t insn)
{
    return insn >> 25 & 1;
}
static inline unsigned v_funct3(uint32_t insn)
{
    return insn >> 12 & 7;
}
enum { V_CRYPTO = 0x77 }; /* the opcode OP-VE */
/* funct3 of OP-V instructions */
enum { V_IVV, V_FVV, V_MVV, V_IVI, V_IVX, V_FVF, V_MVX, V_SET };

static inline uint8_t *v_reg(struct riscv_cpu *c, unsigned n)
{
    return c->v + (size_t)n * c->vlenb;
}
static inline bool v_bit(const uint8_t *mask, size_t i)
{
    return mask[i / 8] >> i % 8 & 1;
}
static inline void v_bit_put(uint8_t *mask, size_t i, bool on)
{
    mask[i / 8] = (uint8_t)((mask[i / 8] & ~(1u << i % 8)) | (unsigned)on << i % 8);
}
/* Is element i to be computed? */
static inline bool v_active(const struct v_args *v, size_t i)
{
    return !v->masked || v_bit(v->c->v, i);
}

/* The immediate of an OPIVI instruction; vror.vi has a sixth bit. */
static inline uint64_t v_immediate(const struct v_op *op, uint32_t insn)
{
    uint64_t low = v_vs1(insn);

    if (insn >> 27 == 0x0a) {
        return low | (insn >> 26 & 1) << 5;
    }
    return op->flags & V_UIMM ? low : (low ^ 16) - 16;
}

/* Element i of an array of elements of 1 << sew bytes. */
static inline uint64_t v_get(const void *p, size_t i, unsigned sew)
{
    switch (sew) {
    case 0:
        return ((const v_u8 *)p)[i];
    case 1:
        return ((const v_u16 *)p)[i];
    case 2:
        return ((const v_u32 *)p)[i];
    default:
        return ((const v_u64 *)p)[i];
    }
}
static inline void v_put(void *p, size_t i, unsigned sew, uint64_t value)
{
    switch (sew) {
    case 0:
        ((v_u8 *)p)[i] = (uint8_t)value;
        break;
    case 1:
        ((v_u16 *)p)[i] = (uint16_t)value;
        break;
    case 2:
        ((v_u32 *)p)[i] = (uint32_t)value;
        break;
    default:
        ((v_u64 *)p)[i] = value;
    }
}
/* value, of 1 << sew bytes, sign-extended */
static inline int64_t v_sext(uint64_t value, unsigned sew)
{
    unsigned shift = 64 - (8u << sew);
    return (int64_t)(value << shift) >> shift;
}

/* ---- trans_v_hint.c: what the call just emitted computes, for the back end; key is the vkey known ---- */
struct tcg_trans;
void riscv_v_hint(struct tcg_trans *t, const struct v_op *op, uint32_t insn, uint32_t key);
void riscv_v_memory_hint(struct tcg_trans *t, uint32_t insn, uint32_t key);

/* ---- helper_v.c: the drivers of elementwise instructions ---- */

/* The row of an instruction, by its bits (which the decoder has accepted). vec_ops.c */
const struct v_op *v_op_of(uint32_t insn);
/* May it run with this vtype and these features, as far as operands and element sizes go? */
bool v_legal(const struct riscv_cpu *c, const struct v_op *op, uint32_t insn, uint64_t vtype);
/* d, vs2 and vs1 (or the scalar) element by element. */
uint64_t v_run_each(struct v_args *v);
/* The same with one result bit an element, into a mask register. */
uint64_t v_run_compare(struct v_args *v);
/* The scalar operand as elements of 1 << sew bytes: n of them, in buf. */
const void *v_splat(uint64_t scalar, unsigned sew, size_t n, void *buf);
/* Elements first to first + n of v0 (or any mask) as bytes 0 and 1. */
void v_mask_bytes(uint8_t *out, const uint8_t *mask, size_t first, size_t n);
/* Bits first to first + n of mask d = bytes[], where `only` (NULL: everywhere) has a one. */
void v_mask_bits(uint8_t *d, const uint8_t *bytes, size_t first, size_t n, const uint8_t *only);
/* d[i] = on[i] ? s[i] : d[i] */
void v_blend(void *d, const void *s, const uint8_t *on, size_t n, unsigned sew);

#define V_TABLE(name) extern const v_kernel name[4]
#define V_RUN(name) uint64_t name(struct v_args *v)

#endif
