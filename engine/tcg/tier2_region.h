/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which blocks make a region: the question to the graph of linked first-tier blocks. A link exists where an exit was taken
 * at least once, so the graph is a profile that costs nothing.
 */
#ifndef VMD_TCG_TIER2_REGION_H
#define VMD_TCG_TIER2_REGION_H

#include "engine/tcg/tier2.h"

struct t2_piece {
    struct tcg_block *block; /* of the first tier; good while tcg_stats.evictions is as in the job, under the lock */
    int32_t off;             /* in the page */
    uint16_t n_insns;
    bool entry;
    uint8_t weight;
};

/* What the compiling thread is told: nothing in it changes any more. */
struct t2_job {
    struct tcg_vcpu *v;
    uint32_t mode, code;     /* of the blocks; tcg_mode.code */
    uint64_t gpa;            /* of the page */
    uint64_t evictions;
    bool plain;              /* a block in it was in a region that guessed wrong */
    unsigned n;
    struct t2_piece piece[T2_PIECES]; /* in the order of layout; the hot one first */
    uint8_t page[4096];      /* its bytes when the job was made */
};

/* A job for the loop that `hot` lies in, or NULL when there is none. Forced: whatever can be reached from it, loop or not. The
 * lock is held. */
struct t2_job *t2_collect(struct tcg_vcpu *v, struct tcg_block *hot, bool forced);
/* The piece an exit leads to, or -1. */
int t2_piece_at(const struct t2_job *job, const struct ir_exit *x);

#endif
