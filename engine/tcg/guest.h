/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a guest architecture gives the translator, and what the translator gives a guest.
 *
 * A guest is a folder guest_X/ with one struct tcg_guest and one line in guests.c. `cpu` is always the architectural
 * state (vcpu->cpu). Everything here runs on the vCPU's own thread unless said otherwise.
 *
 * Blocks are keyed by the guest physical address of their first instruction and by tcg_mode.code, and are position independent
 * within the address space: they know their page's virtual address only at run time (ir_pcrel, page-relative offsets).
 */
#ifndef VMD_TCG_GUEST_H
#define VMD_TCG_GUEST_H

#include "engine/core/vcpu.h"
#include "engine/core/vm.h"
#include "engine/tcg/ir.h"

/* The translation mode: recomputed by the guest's mode hook only when tcg_mode_changed() is called. */
struct tcg_mode {
    uint32_t code;  /* everything that changes the code made for the same bytes: privilege, xlen, FP off ... */
    uint32_t mmu;   /* everything that changes how addresses translate but the table itself: data privilege, SUM, MXR, MPRV ... */
    uint64_t asid;  /* which table: for tcg_flush_asid; e.g. translation scheme and ASID */
    bool shared;    /* mostly global pages are seen here (a kernel's own): keep them when only asid changes */
};

enum tcg_access { TCG_READ, TCG_WRITE, TCG_FETCH };
enum { TCG_PROT_R = 1, TCG_PROT_W = 2, TCG_PROT_X = 4 };

struct tcg_walk {
    uint64_t va;            /* in */
    enum tcg_access access; /* in */
    uint32_t mmu;           /* in: tcg_mode.mmu */
    bool probe;             /* in: no side effect, no exception wanted (debugger) */
    uint64_t gpa;           /* out: of va */
    unsigned prot;          /* out: TCG_PROT_* that hold for the whole 4 KiB page in this mode without another walk (W only when already dirty) */
    bool uncached;          /* out: valid for this access only (e.g. PMP splits the page) */
    bool global;            /* out: every address space translates this page alike (a global mapping) */
    uint32_t cause;         /* out when refused */
    uint64_t tval;
};

struct tcg_trans;

struct tcg_guest {
    const char *name; /* the arch_ops name: "riscv64" */
    const struct ir_global *globals;
    unsigned n_globals;
    uint32_t pc_offset;
    unsigned insn_align; /* in bytes: 2 */
    unsigned insn_max;   /* longest instruction in bytes: 4 */
    /* How long the instruction is that begins with these bytes, `have` of them; more than `have`: that or longer. */
    unsigned (*insn_length)(const uint8_t *bytes, unsigned have);
    uint32_t fp_flags;   /* offset of the byte of sticky IEEE flags in the CPU state */
    uint32_t fp_round;   /* ... of a byte that is 0 when rounding is to nearest even */
    uint8_t fp_inexact;  /* its bit for "inexact", and for the others */
    uint8_t fp_underflow, fp_overflow, fp_divzero, fp_invalid;
    uint32_t vl_offset;  /* of the 64-bit vector length in elements, for IR_VEC_VL; 0: none */
    uint32_t variant_offset; /* of the 32-bit word that tells variants of a block apart (see tcg_variant); 0: none */
    uint32_t res_addr;   /* offset of the reserved address (UINT64_MAX: none) of load-reserved, for ir_sc_hint() */
    uint32_t res_value;  /* offset of the value that it read */
    uint64_t pc_mask;    /* virtual addresses wrap here: UINT64_MAX, or UINT32_MAX */

    struct tcg_mode (*mode)(void *cpu);
    /* Page walk: 0 fills the outputs, nonzero fills cause and tval. */
    int (*walk)(void *cpu, struct tcg_walk *w);
    /* Nothing (or a device, for a fetch) answers at gpa: cause and tval of the access fault. */
    void (*bus_fault)(void *cpu, uint64_t va, uint64_t gpa, enum tcg_access access, uint32_t *cause, uint64_t *tval);
    /* A MO_ALIGN access was not aligned. */
    void (*align_fault)(void *cpu, uint64_t va, enum tcg_access access, uint32_t *cause, uint64_t *tval);
    /* Delivers an exception: pc is that of the instruction; sets the handler's pc and mode. */
    void (*exception)(void *cpu, uint32_t cause, uint64_t tval);
    /* Delivers a pending and enabled interrupt if there is one; true if it did. */
    bool (*interrupt)(void *cpu);
    /* Translates the instruction at t->off (see below). False when it ended the block. */
    bool (*translate)(struct tcg_trans *t);
    /* One line of disassembly for logs; returns the length of the instruction. */
    unsigned (*disas)(const uint8_t *p, unsigned n, uint64_t pc, uint32_t code, char *out, size_t size);
    /* Registers for logs. */
    void (*dump)(void *cpu, struct buf *b);
};

/* One block in the making. */
struct tcg_vm;
struct tcg_trans {
    struct ir *ir;
    void *cpu;           /* for tables fixed at cpu_init (features); never for register values */
    uint32_t code;       /* tcg_mode.code */
    int32_t off;         /* in: page-relative offset of this instruction */
    int32_t next_off;    /* out: of the one to translate next; preset by nobody: off + length, or where tcg_goto said */
    unsigned insns;
    uint64_t guest;      /* the guest's own, zero at block start (e.g. "FS already marked dirty") */
    /* The translator's own. */
    const struct tcg_guest *isa;
    const struct tcg_page *record; /* of that page; NULL: none of its own */
    const uint8_t *page; /* bytes of the block's page */
    const uint8_t *page2; /* of the following page, for one straddling instruction at most */
    int32_t start;
    uint32_t variant_offset; /* of tcg_guest */
    uint32_t variant;    /* what the variant word is known to hold, TCG_VARIANT_UNKNOWN: nothing */
    bool variant_known;  /* the word was asked for or set in this block */
    bool variant_used;   /* ... asked for: the block is good for entry_variant only, or is the generic one */
    bool generic;        /* this shall be the generic one */
    uint32_t entry_variant;
    uint64_t seen[64];   /* bitmap of offsets / insn_align already in the block: following a jump never loops */
    bool straddles;
    struct tcg_vm *tcg;
    bool joins;          /* ends where another block begins */
    uint32_t mode;       /* of blocks, for that */
    uint64_t gpa_page;
    bool icount;         /* instructions are counted: no polls, counts of segments instead (icount.c) */
    bool segment_ends;   /* the instruction before may have left the block */
    unsigned segment_first, segment_op, insn_op;
};

/* Little-endian halfword/word at page-relative offset. A straddling instruction is always alone in its block: the
 * translator core guarantees that the bytes up to insn_max are readable. */
uint16_t tcg_fetch16(struct tcg_trans *t, int32_t off);
uint32_t tcg_fetch32(struct tcg_trans *t, int32_t off);

/* Control flow; targets are page-relative offsets (of any size; another page is fine).
 * tcg_goto: jumps. True: translation goes on at the target (next_off is set, return true from translate); false: the
 *   block ended. `hint` tells calls.
 * tcg_branch: leaves to target if a cond b; the block goes on behind it.
 * tcg_jump: to a computed virtual address; ends the block. The link register must be set before, from ir_pcrel; take
 *   the target as a temp or ir_copy() first when it may be the link register itself. Known page-relative targets become tcg_goto.
 * tcg_poll: before the first effect of an instruction that will jump backward or indirectly; tcg_branch and tcg_goto
 *   do it themselves for backward targets when nothing was emitted yet for this instruction.
 * tcg_stop: ends the block, going on at target through the dispatcher (after a mode change, CSR write, fence.i).
 * tcg_stop_pc: same, pc is already in the CPU state. */
bool tcg_goto(struct tcg_trans *t, int32_t target, enum ir_hint hint);
void tcg_branch(struct tcg_trans *t, enum ir_cond c, unsigned w, ir_ref a, ir_ref b, int32_t target);
bool tcg_jump(struct tcg_trans *t, ir_ref target, enum ir_hint hint);
void tcg_poll(struct tcg_trans *t);
bool tcg_stop(struct tcg_trans *t, int32_t target);
bool tcg_stop_pc(struct tcg_trans *t);

/*
 * Variants: several translations of one address, each for one value of a word in the CPU state (tcg_guest.variant_offset) that
 * says what the guest cannot put into tcg_mode.code because it changes too often, e.g. the vector configuration.
 *
 * tcg_variant: the value this block may assume here. At its first use in a block it emits a guard that goes to another variant when the
 *   word differs at run time; call it before anything was emitted for this instruction. TCG_VARIANT_UNKNOWN (0): nothing may be
 *   assumed, use helpers that look at run time. That is so in the generic variant, made once an address has TCG_VARIANTS
 *   others, and while the word itself is 0. So a guest that knows something has a word other than 0.
 * tcg_variant_set: the guest emitted code after which the word is `value` (e.g. an inline vsetvli); TCG_VARIANT_UNKNOWN: may be
 *   anything (e.g. a helper that changes it in mid-block). Storing to the word is the guest's business.
 */
#define TCG_VARIANT_UNKNOWN 0u
#define TCG_VARIANTS 8
uint32_t tcg_variant(struct tcg_trans *t);
void tcg_variant_set(struct tcg_trans *t, uint32_t value);

/* ---- services for helpers, on the vCPU's thread ---- */

/* Raises an exception at the instruction whose helper or memory access this is: the pc is restored from side tables, then
 * guest->exception(cause, tval). Does not return. */
_Noreturn void tcg_raise(void *cpu, uint32_t cause, uint64_t tval);
/* Delivers an exception and returns: for instructions that always raise. pc is already in the CPU state (ir_setpc), and the block
 * ends with tcg_stop_pc() behind the helper, whose flags are 0. Cheaper than tcg_raise(), which unwinds. */
void tcg_deliver(void *cpu, uint32_t cause, uint64_t tval);
/* Leaves run() with VCPU_EXIT_HALT. pc must already point behind the instruction (ir_setpc before the call). */
_Noreturn void tcg_halt(void *cpu);
/* The mode hook's answer may have changed (privilege, satp, mstatus ...). The instruction must end its block. */
void tcg_mode_changed(void *cpu);
/* Drops cached translations of this vCPU: everything; one address space; one page everywhere; one page in one space. */
void tcg_flush_all(void *cpu);
void tcg_flush_asid(void *cpu, uint64_t asid);
void tcg_flush_page(void *cpu, uint64_t va);
void tcg_flush_page_asid(void *cpu, uint64_t va, uint64_t asid);
/* Interrupt conditions inside the CPU changed (mie, mstatus.MIE ...): have the loop look soon. */
void tcg_interrupt_check(void *cpu);
/* Before the first effect of an instruction that reads the clock or arms a timer: under an instruction clock it is begun again in a block
 * of its own, where the clock is exact; may not return. Accesses to devices do it themselves. */
void tcg_io_begin(void *cpu);
/* Whether instructions are counted; then how many this vCPU has executed, exact after tcg_io_begin(). */
bool tcg_counts(void *cpu);
uint64_t tcg_retired(void *cpu);
/* Guest memory by virtual address in the current mode; may raise. Atomic ones are sequentially consistent. */
uint64_t tcg_ld(void *cpu, uint64_t va, unsigned mo);
void tcg_st(void *cpu, uint64_t va, uint64_t v, unsigned mo);
uint64_t tcg_amo(void *cpu, enum ir_amo kind, uint64_t va, uint64_t v, unsigned mo);
uint64_t tcg_cas(void *cpu, uint64_t va, uint64_t expect, uint64_t v, unsigned mo);
/* Host address of guest memory [va, va + n) within a page when plain reads (or writes) of it need nothing more: for the rest of
 * this helper, or until another of these services is called. NULL: not known to be so; the calls above do it, and make it so for the
 * next time where they can. */
uint8_t *tcg_host_span(void *cpu, uint64_t va, unsigned n, enum tcg_access access);
/* Can all of [va, va + n), n at most a page, be read, and is it RAM or ROM? Never raises. */
bool tcg_readable(void *cpu, uint64_t va, unsigned n);
/* The same for 16 bytes at a multiple of 16, low half first; old gets what was there. */
void tcg_cas16(void *cpu, uint64_t va, const uint64_t expect[2], const uint64_t v[2], uint64_t old[2]);
/* For a debugger: no exception; false when not mapped. */
bool tcg_debug_translate(void *cpu, uint64_t va, uint64_t *gpa);
struct vcpu *tcg_vcpu_of(void *cpu);

/* The explicit list (guests.c). NULL when there is none of that name. */
const struct tcg_guest *tcg_guest_find(const char *arch);

#endif
