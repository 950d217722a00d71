/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The second tier: loops that run hot are compiled again as one region, with host registers of their own.
 *
 * A region is a set of first-tier blocks of one page that lead to each other and back. It takes over where the first tier
 * jumps to one of its entries (the block's entry is redirected) and gives back at its exits, in the first tier's
 * convention. So it can go away at any time: entries are redirected back, polls leave what is running.
 *
 * Blocks heat up by samples: a tick makes every vCPU leave at its next poll, and the block it left gets a degree. Asking for a
 * region is done by the vCPU's thread, compiling by the thread of tier2.c, publishing under tcg_vm.lock.
 */
#ifndef VMD_TCG_TIER2_H
#define VMD_TCG_TIER2_H

#include "engine/tcg/internal.h"

#define T2_PIECES 24
#define T2_MAX_OPS 6000
#define T2_CODE (256u << 10)
#define T2_CODE_AT 8192u       /* where the code begins in its buffer: lower offsets are thunks of the code cache */
#define T2_RELOCS 8192
#define T2_MODE 0x20000000u /* in tcg_block.mode: a region */

/* What the second tier compiles: pieces in the order of layout. Owned by the thread that compiles. */
struct t2_work {
    struct tcg_vcpu *v;           /* whose block became hot */
    unsigned n;
    struct ir *ir[T2_PIECES];
    bool entry[T2_PIECES];        /* the first tier may come in here */
    uint8_t weight[T2_PIECES];    /* how hot, compared with each other */
    int8_t target[T2_PIECES][IR_MAX_EXITS]; /* the piece that an exit leads to, or -1 */
    bool floats_only;             /* refuse what does not live on floating point, or on addresses that it loads */
    bool plain;                   /* guess no addends */
    /* What the host makes of it. Offsets are from the start of the code, which is position independent but for relocs. */
    struct tcg_block *block;      /* its exits are filled; has room for all exits there can be */
    struct tcg_site *sites;
    unsigned n_sites;
    uint32_t code_size;
    uint8_t *code;                /* T2_CODE_AT + T2_CODE bytes */
    uint32_t relocs[T2_RELOCS], n_relocs;
    uint32_t exit_at[T2_RELOCS], n_exit_at;         /* 32 bits: number of an exit, to become its ref */
    uint32_t entered_at[T2_PIECES], n_entered_at;   /* 64 bits: to become the address of tcg_extra.entered */
    uint32_t entry_at[T2_PIECES];
    void *host;                   /* the back end's own, freed with free() */
};

struct tier2;

void tier2_init(struct tcg_vm *t);
void tier2_done(struct tcg_vm *t);
/* Before the first vCPU goes away: ends the thread. */
void tier2_stop(struct tcg_vm *t);
/* The vCPU begins to run; it was asked something and runs on. The thread that ticks shall know before long. Of the vCPU's thread. */
void tier2_runs(struct tcg_vcpu *v);
void tier2_runs_on(struct tcg_vcpu *v);
/* On the vCPU's thread, out of translated code: a sample was asked for; `from` is the direct exit that led out, or NULL. */
void tier2_sample(struct tcg_vcpu *v, struct tcg_exit *from);
/* Forced mode: every block that is entered from the dispatcher becomes hot at once. */
void tier2_force(struct tcg_vcpu *v, struct tcg_block *b);
/* From cache.c, lock held: a block is retired; the entries of a region go back to the first tier. */
void tier2_retired(struct tcg_vm *t, struct tcg_block *b);
/* On the vCPU's thread, from a slow path: the region that called it shall come without guesses of addends, if at all. */
void tier2_plain(struct tcg_vcpu *v);
void tier2_stats(struct tcg_vm *t, struct buf *out);
/* Host memory that compiling takes, for the tables' sum. Any thread. */
uint64_t tier2_memory(const struct tcg_vm *t);

#endif
