/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The x86-64 back end's register allocator: what the files of this folder share. One instance a vCPU, used while a block is
 * compiled, under the translator's lock.
 *
 * Convention in translated code: rbp is the CPU state, r15 the current space (TLB, jump cache), nine host registers hold the
 * hottest guest registers across blocks, four are scratch. An unpinned global lives in memory (written through); a
 * scratch register may cache it. So pins and memory are the whole architectural state at every op.
 */
#ifndef VMD_TCG_HOST_X86_64_TARGET_H
#define VMD_TCG_HOST_X86_64_TARGET_H

#include "engine/tcg/host_x86_64/emit.h"
#include "engine/tcg/internal.h"
#include "engine/tcg/tier2.h"

#define ENV RBP
#define SPACE R15
_Static_assert(T2_CODE_AT == X_RELOC_BELOW, "offsets below are outside of code that moves");
/* The TLB in a space: an address shifted right and masked is the offset of its entry. */
#define TLB_OFF(field) ((int32_t)offsetof(struct tcg_space, tlb) + (int32_t)offsetof(struct tlb_entry, field))
#define TLB_SHIFT (12 - TLB_ENTRY_BITS)
#define TLB_MASK ((int32_t)((TLB_SIZE - 1) << TLB_ENTRY_BITS))
#define N_PINS 9
#define N_SCRATCH 4
extern const uint8_t pin_regs[N_PINS];
extern const uint8_t scratch_regs[N_SCRATCH];

/* Offset of a tcg_vcpu field from the CPU state. */
#define ENV_OFF(field)                                                                          \
    ((int32_t)offsetof(struct tcg_vcpu, field) - (int32_t)offsetof(struct tcg_vcpu, cpu))

/* Accesses that compact code calls: loads by mo & 7, and of a single into its NaN box; stores by size. */
#define N_LEAN_LOADS 9
#define N_LEAN_STORES 4

/* Those called most often, and two ways out, are reached through tcg_vcpu.host_thunk: a call of three bytes. In this order: */
enum { NEAR_LOAD, NEAR_STORE = NEAR_LOAD + 6, NEAR_LEAVE = NEAR_STORE + N_LEAN_STORES, NEAR_JUMP, N_NEAR };
_Static_assert(N_NEAR == TCG_HOST_THUNKS && ENV_OFF(host_thunk) >= -128, "reached by one byte");

/* Thunks at the start of the code buffer. */
struct thunks {
    uint32_t enter, leave, lookup, stale;
    uint32_t leave_here;            /* called: the exit is known by the return address */
    uint32_t jump, jump_now, jump_beside, jump_leave; /* by the jump cache */
    uint32_t full, reads, clean;    /* call rax: see thunks.c */
    uint32_t load, store;
    uint32_t clean_x, load_x, store_x; /* the same, keeping xmm3 to xmm15; first tier only */
    uint32_t warm;                  /* called by the entry of a compact block: counts */
    uint32_t lean_load[N_LEAN_LOADS], lean_store[N_LEAN_STORES]; /* accesses of compact blocks, see lean.c */
    uint32_t vec_numbers;           /* data: the bytes 0 to 63 */
    uint32_t vec_consts;            /* data: by enum vec_const, 4 bytes for singles, at 8 for doubles */
};
/* The sign bit; twice the bits of the smallest number that is surely no product of underflow; how far from there to infinity; ones. */
enum vec_const { VEC_SIGN, VEC_LOW, VEC_SPAN, VEC_ONES, VEC_N_CONSTS };

enum place { IN_REG, IN_MEM, IS_IMM, IN_XMM /* from ra_keep() only */, IS_CONST /* fp.c: number imm of the IR's */ };
struct opnd {
    enum place place;
    uint8_t reg;
    int32_t disp; /* from ENV */
    int32_t imm;
};

/* What of the host vector code may use; HOST_AVX512: F, CD, BW, DQ and VL. */
enum { HOST_AVX2 = 1, HOST_AVX512 = 2, HOST_AES = 4, HOST_PCLMUL = 8, HOST_SHA = 16, HOST_VBMI = 32, HOST_VBMI2 = 64,
       HOST_GFNI = 128, HOST_VAES = 256, HOST_VPCLMUL = 512, HOST_BITALG = 1024, HOST_POPCNT = 2048 };
uint32_t x86_features(void);

/* Chunks of the CPU state that host vector registers hold (vec.h); bytes 0: none. */
struct vec_chunk {
    int32_t off;
    uint8_t bytes, reg;
    uint32_t age;
};
struct vec_snapshot {
    uint16_t first, n; /* of vec_state.pool: what was in registers at some point */
};
struct vec_slow;
#define VEC_POOL 4096
struct vec_state {
    uint32_t features, busy, clock;
    struct vec_chunk chunk[32]; /* by register */
    struct vec_chunk pool[VEC_POOL];
    unsigned n_pool, n_slow;
    struct vec_snapshot snapshot; /* the last one */
    bool changed;                 /* since that */
    bool used;                    /* the block has vector code */
    struct vec_slow *slow;        /* IR_MAX_VECS */
};

enum { GROUP_NONE, GROUP_FIRST, GROUP_OTHER };
#define MAX_GROUPS 64
struct group {
    int32_t lo, hi;  /* bytes from the base as it is at the first access, hi excluded */
    uint16_t n;      /* accesses */
    int8_t slot;     /* where the page's addend is: a spill slot, or one of tcg_vcpu.near_* */
    bool write;      /* there are stores */
    bool near;       /* the page is remembered while the region runs */
    bool guess;      /* the base was loaded: the page's addend is guessed */
    bool begun;
};
struct groups {
    unsigned n; /* of this piece */
    unsigned near, near_end, n_near; /* next slot of tcg_vcpu.near_* for this piece, end of those it has; slots in use */
    unsigned first_near[T2_PIECES], count_near[T2_PIECES]; /* by piece */
    bool plain;         /* no guesses */
    bool chain;         /* a hot piece loads an address off an address that it loaded */
    unsigned guesses;   /* slots of tcg_vcpu.guess in use in this piece: no two groups that live together may share one */
    bool loaded[IR_MAX_GLOBALS]; /* by global: holds what was loaded in the region, or a sum of that and a constant */
    bool steps[IR_MAX_GLOBALS]; /* by global: walks along something */
    bool jumps[IR_MAX_GLOBALS]; /* by global: changes in the region, and not by small steps */
    struct group group[MAX_GROUPS];
    uint16_t of[IR_MAX_OPS]; /* by op: group + 1, or 0 */
};

enum fixup_kind { FIX_LOAD, FIX_STORE, FIX_EXIT, FIX_FP, FIX_ATOMIC, FIX_VEC };
struct fixup {
    uint8_t kind, base, value_reg, dest, mo, live; /* live: bit per scratch register to keep */
    bool value_imm, value_xmm, dest_none, dest_xmm;
    int32_t disp, imm, insn;
    uint32_t jump;   /* displacement to point at the stub */
    uint32_t back;
    uint16_t exit;
    uint8_t pc_reg;
    bool no_link;
    uint16_t refund;             /* FIX_EXIT: instructions to give back to the budget */
    struct opnd fp_arg[3];       /* FIX_FP: where the arguments are, never a scratch register */
    uint32_t fp_jump[6];         /* FIX_FP, FIX_ATOMIC: the places that give up, unused ones 0 */
    uint64_t fp_fn;
    uint16_t vec;                /* FIX_VEC: which vec_state.slow */
    struct vec_snapshot snapshot; /* to load again after the call */
    struct ir *ir;
    uint32_t exit_base;
    uint8_t group, t0, t1;       /* shared TLB checks, see region_mem.c: GROUP_*; scratch registers */
    bool near;                   /* leads a group whose page is remembered */
    uint32_t differs;            /* ... whose addend is guessed: the jump for a wrong one; 0: none */
    bool keep_x;                 /* xmm registers cache globals */
    struct group shared;         /* the group, as it was then */
    int32_t slot;
};

struct ra {
    struct asm_buf a;
    struct tcg_vcpu *v;
    struct ir *ir;
    struct tcg_block *b;
    const struct thunks *th;
    const int8_t *pin;              /* by global: host register or -1 */
    const int8_t *xpin;             /* by global: xmm register of its own or -1; none in the first tier */
    struct region *region;          /* second tier: the region this block is a piece of; else NULL */
    struct groups *groups;          /* second tier: of this piece; else NULL */
    bool lean;                      /* compact code: accesses by thunks */
    bool live_flags;                /* ... with floating point: MXCSR's flags are the guest's */
    unsigned exit_base;             /* of the piece's exits among those of the region */
    unsigned i;                     /* op being compiled */
    int32_t insn;
    uint8_t busy;                   /* scratch registers the current op uses */
    ir_ref held[N_SCRATCH];
    uint32_t age[N_SCRATCH], clock;
    uint64_t slots;                 /* spill slots in use */
    bool fail;
    uint16_t last[IR_MAX_TEMPS];    /* op index + 1 of the last use, 0: never */
    int8_t t_reg[IR_MAX_TEMPS], t_slot[IR_MAX_TEMPS];
    int8_t g_reg[IR_MAX_GLOBALS];   /* scratch index caching an unpinned global, or -1 */
    /* First tier, blocks without vectors: xmm registers cache globals that floating point works on. */
    bool x_on, is_fp[IR_MAX_GLOBALS];
    int8_t x_reg[IR_MAX_GLOBALS];   /* or -1 */
    int16_t x_held[16];             /* by register: global or -1 */
    uint32_t x_age[16];
    uint16_t x_busy;
    uint64_t boxed[(IR_MAX_GLOBALS + 63) / 64]; /* globals known to hold a single in its NaN box */
    unsigned n_fixups, n_sites, max_fixups; /* of sites there are at most as many */
    struct fixup *fixups;
    struct tcg_site *sites;
    struct vec_state vs;
};

struct host_data {
    struct thunks th; /* first: exits.c reads it */
    int8_t pin[IR_MAX_GLOBALS], no_xpin[IR_MAX_GLOBALS];
    uint8_t flags_of[64]; /* from MXCSR's sticky flags to the guest's */
    uint32_t features;    /* of the host: HOST_* */
    uint32_t mxcsr;       /* the default, no flag set */
};

/* regs.c */
void ra_start(struct ra *r);
struct opnd ra_use(struct ra *r, ir_ref ref, unsigned w); /* wherever it is; big constants come to a register */
unsigned ra_use_reg(struct ra *r, ir_ref ref);
unsigned ra_scratch(struct ra *r);            /* a free register until the op ends */
void ra_take(struct ra *r, unsigned reg);     /* makes this very scratch register free and reserved for the op */
bool ra_dies(const struct ra *r, ir_ref ref); /* a temp with no use after this op */
unsigned ra_dest(struct ra *r, ir_ref d);     /* where the result is computed: the pin, or a free scratch register */
unsigned ra_dest_reuse(struct ra *r, ir_ref d, ir_ref a, struct opnd oa); /* may be a's own register */
void ra_done(struct ra *r, ir_ref d, unsigned reg); /* the result is in reg now */
void ra_op_end(struct ra *r);                 /* frees what died */
/* Puts ref + disp into rsi, which is taken for the op. */
void ra_address(struct ra *r, ir_ref ref, int32_t disp);
/* Scratch register `reg`, taken for the op, is overwritten now, after all operands were read; what is needed later moves. */
void ra_clobber(struct ra *r, unsigned reg);
void ra_value(struct ra *r, unsigned reg, ir_ref ref, unsigned w); /* puts it there; overwrites the register unless it has it already */
void ra_spill_all(struct ra *r);              /* before a call: no scratch register holds anything that is needed */
/* A place outside the scratch registers: the pin, memory (a temp is spilled, and keeps its register), or an immediate; false for
 * a constant that is none. */
bool ra_keep(struct ra *r, ir_ref ref, struct opnd *o);
struct opnd ra_home(const struct ra *r, unsigned global); /* its pin, xmm register or memory */
void ra_done_xmm(struct ra *r, unsigned global, bool is_boxed); /* its xmm register was written */
#define FIRST_XMM 3 /* xmm0 to xmm2 are scratch */
unsigned ra_x_use(struct ra *r, unsigned global);  /* an xmm register that holds its value */
unsigned ra_x_dest(struct ra *r, unsigned global); /* one for its next value: then ra_done_xmm() */
bool ra_x_live(const struct ra *r);
void ra_x_forget(struct ra *r);                    /* C code runs: they are gone */
static inline bool ra_in_xmm(const struct ra *r, ir_ref ref)
{
    return ref != IR_NONE && ir_kind(ref) == IR_GLOBAL && r->xpin[ir_index(ref)] >= 0;
}
uint8_t ra_live_mask(struct ra *r);           /* scratch registers whose contents matter after this op */
int32_t ra_global_off(const struct ra *r, unsigned g);
void x_load(struct asm_buf *a, unsigned w, unsigned reg, struct opnd o);   /* mov reg, opnd */
void x_alu(struct asm_buf *a, unsigned n, unsigned w, unsigned reg, struct opnd o);

/* thunks.c: to the block for the virtual address in rcx if the jump cache knows it and, with `poll`, nothing is asked of the vCPU;
 * else leaves. Clobbers rax and rdx. */
void x86_jump_by_cache(struct asm_buf *a, const struct thunks *th, bool poll);

/* lean.c */
void lean_thunks(struct asm_buf *a, struct thunks *th, uint32_t slow_load, uint32_t slow_store);
void lean_near(const struct host_data *h, const uint8_t *rx, uint64_t *near); /* fills tcg_vcpu.host_thunk */
static inline void x_near(struct asm_buf *a, unsigned op, unsigned which) /* op 2: call, 4: jump */
{
    x_rm(a, 0xff, op, ENV, ENV_OFF(host_thunk) + 8 * (int32_t)which);
}
bool gen_lean(struct ra *r, const struct ir_op *op); /* a load or store of compact code; false: not of this kind */

/* thunks.c */
#define X86_STALE 1u /* what enter() gets from the entry of an invalid block */
#define X86_HERE 2u  /* ... from a call of leave_here; else the offset of an exit, or 0 */
#define X86_ASKED 3u /* ... from the entry of a compact block while somebody wants this vCPU */
size_t x86_thunks(struct tcg_vm *t, struct asm_buf *a, struct thunks *th, const int8_t *pin);
/* Emits the thunks that call C, for code with these pins. */
void x86_call_thunks(struct asm_buf *a, const struct tcg_guest *g, const int8_t *pin, const int8_t *xpin,
                     const struct host_data *live_flags, unsigned n_near, struct thunks *th);
/* MXCSR's flags into the guest's; clobbers two registers. MXCSR to its default. */
void x86_take_flags(struct asm_buf *a, const struct tcg_guest *g, const struct host_data *h, unsigned r1, unsigned r2);
void x86_clear_flags(struct asm_buf *a, const struct host_data *h, unsigned r1);

/* target.c */
size_t ra_size(unsigned max_fixups);
struct ra *ra_new(unsigned max_fixups); /* freed with free(); NULL without memory */
extern const uint8_t x86_entry[5];     /* how a block begins: replaced when it dies */
void gen_ops(struct ra *r);   /* the block's ops; stubs are noted */
void gen_stubs(struct ra *r); /* what was noted */

/* region_mem.c */
void groups_look(struct groups *g, const struct t2_work *w); /* at all pieces, first */
void groups_find(struct groups *g, const struct ir *ir, unsigned piece);
void groups_forget(struct asm_buf *a, unsigned n, bool addends); /* the region remembers no page; clobbers xmm0 */
bool group_lookup(struct ra *r, unsigned base, struct fixup *f, unsigned t0, unsigned t1); /* false: in no group */
void group_differs(struct ra *r, const struct fixup *f, uint32_t *look); /* the guess was wrong; look: jump to the slow path, now and then */
uint32_t group_stub(struct ra *r, const struct fixup *f); /* an access's own check; returns the jump to its slow path */

/* region.c: the second tier */
bool x86_region(struct tcg_vm *t, struct t2_work *w);
void x86_place(struct tcg_vm *t, struct t2_work *w, struct tcg_block *b);
void x86_redirect(struct tcg_vm *t, struct tcg_block *b, uint32_t to);
int region_target(const struct ra *r, unsigned exit); /* the piece that an exit leads to, -1: outside */
void region_jump(struct ra *r, int cc, unsigned piece); /* cc < 0: always */
void region_exit(struct ra *r); /* the four bytes just emitted are an exit's number of this region, to become its offset */
void region_leave(struct ra *r);                      /* to the convention of the first tier; keeps rcx */

/* memory.c */
extern const unsigned load_code[8]; /* by mo & 7 */
extern const unsigned store_code[4]; /* by size */
void gen_load(struct ra *r, const struct ir_op *op);
void gen_store(struct ra *r, const struct ir_op *op);
void gen_call(struct ra *r, const struct ir_op *op);
/* Loads an argument register after ra_spill_all(). */
void gen_load_arg(struct ra *r, unsigned reg, ir_ref ref);
/* The inline TLB lookup of base + disp: leaves the host address minus the guest address in t0, clobbers t1, keeps base.
 * Returns the jump to point at the slow path (a miss, or misaligned). */
uint32_t gen_lookup_in(struct ra *r, unsigned base, int32_t disp, unsigned mo, bool write, unsigned t0,
                       unsigned t1);
/* The same for bytes base + lo to base + hi, at most a page of them: the page of the last is compared with the tag that the page of the
 * first selects, equal only if they are the same. low_bits: bits of the last one's address that must be clear, below 4096. */
uint32_t gen_check(struct ra *r, unsigned base, int32_t lo, int32_t hi, int32_t low_bits, bool write, unsigned t0,
                   unsigned t1);
/* The same without the addend: leaves the offset of the entry in t0. */
uint32_t gen_check_tag(struct ra *r, unsigned base, int32_t lo, int32_t hi, int32_t low_bits, bool write, unsigned t0,
                       unsigned t1);
/* gen_check() for who has no block at hand. */
uint32_t x_check(struct asm_buf *a, unsigned base, int32_t lo, int32_t hi, int32_t low_bits, bool write, unsigned t0,
                 unsigned t1);
void gen_load_value(struct ra *r, const struct fixup *f);  /* the access itself, the page's addend in t0 */
void gen_store_value(struct ra *r, const struct fixup *f);
void gen_memory_stub(struct ra *r, const struct fixup *f);
void save_live(struct ra *r, uint8_t live);
void restore_live(struct ra *r, uint8_t live);
void gen_site(struct ra *r); /* the call just emitted stands for r->insn */
struct fixup *new_fixup(struct ra *r, enum fixup_kind kind);

/* atomic.c: amo, cas, and calls with the hint IR_SC */
void gen_atomic(struct ra *r, const struct ir_op *op);
void gen_atomic_stub(struct ra *r, const struct fixup *f);

/* fp.c */
bool x86_fp_inline(const struct ir_op *op);                    /* a call that gen_fp() knows */
bool x86_fp_operand(const struct ir_op *op, unsigned which);   /* ... is its operand (0 d, 1 a, 2 b, 3 c) a floating-point value? */
bool gen_fp(struct ra *r, const struct ir_op *op); /* false: not inlined, call the helper */
bool gen_xmm_logic(struct ra *r, const struct ir_op *op); /* mov, and, andc, or, xor of such values; false: not its business */
/* Before a field of the state is read or written (with a value in a register, or an immediate). */
void gen_fp_read(struct ra *r, uint32_t offset, unsigned size);
void gen_fp_write(struct ra *r, uint32_t offset, unsigned size, struct opnd value);
void gen_fp_stub(struct ra *r, const struct fixup *f);

/* vec.c */
void vec_start(struct ra *r, uint32_t features);
bool gen_vec(struct ra *r, const struct ir_op *op); /* false: not inlined, call the helper */
void gen_vec_stub(struct ra *r, const struct fixup *f);
void vec_drop(struct ra *r);                        /* C code runs: vector registers are gone */
void vec_wrote(struct ra *r, int32_t off, unsigned bytes); /* this part of the CPU state changed by other means */
struct vec_snapshot vec_snapshot(struct ra *r);
void vec_reload(struct ra *r, struct vec_snapshot s);

/* exits.c */
#define LEAVE_BYTES 3
struct tcg_exit *exit_left(struct tcg_vm *t, uint64_t host); /* by the return address of a call of leave_here */
void exit_asked(struct tcg_vcpu *v); /* at the entry of a block: sets pc */
void gen_poll(struct ra *r, const struct ir_op *op);
void gen_budget(struct ra *r, const struct ir_op *op);
void gen_brcond(struct ra *r, const struct ir_op *op);
void gen_exit(struct ra *r, const struct ir_op *op);
void gen_exit_stub(struct ra *r, const struct fixup *f);
void x86_patch(struct tcg_vm *t, struct tcg_exit *x, uint32_t to);
uint32_t x86_leads_to(const struct tcg_vm *t, const struct tcg_exit *x);
void x86_kill(struct tcg_vm *t, struct tcg_block *b, const struct tcg_block *forward);

/* alu.c */
bool gen_alu_op(struct ra *r, const struct ir_op *op); /* false: not its business */
void gen_compare(struct ra *r, const struct ir_op *op);
extern const uint8_t cc_of[IR_N_CONDS];

#endif
