/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The translating engine: struct engine_ops for engine/core, and its settings. See docs/guide/translator.md.
 */
#ifndef VMD_TCG_TCG_H
#define VMD_TCG_TCG_H

#include "engine/core/engine.h"

#include <stdbool.h>
#include <stddef.h>

enum tcg_backend {
    TCG_JIT,    /* translate to host code; -ENOTSUP where there is no back end for this host */
    TCG_INTERP  /* interpret the IR: the oracle and the portable back end */
};

/* vm->engine_config; zeroes mean defaults. */
/* The second tier: hot loops compiled again in the background. */
enum tcg_tier2 {
    TCG_TIER2_DEFAULT, /* loops that live on floating point, where it pays most */
    TCG_TIER2_OFF,
    TCG_TIER2_ON,      /* all loops */
    TCG_TIER2_FORCE /* every block at once, on the vCPU's thread (tests) */
};

struct tcg_config {
    size_t cache_size;      /* bytes of code and tables at most; default 64 MiB, at least 1 MiB */
    enum tcg_backend backend;
    unsigned max_insns;     /* guest instructions in a block at most; default 64; 1 for lockstep comparison */
    bool icount;            /* virtual time is the number of instructions executed (docs/guide/icount.md) */
    unsigned icount_shift;  /* ... times 2^shift ns, at most 10 */
    unsigned host_features_off; /* what of the host's vector features stays unused (tests): 1 all, 2 AVX-512 ... as in host_x86_64/target.h */
    enum tcg_tier2 tier2;
    bool perf_map;          /* tcg_perf_map() will be called: lay the cache out so that perf looks into it */
    unsigned warm;          /* times a block runs as compact code before it is compiled for speed; default 1024, at most 65535 */
    bool no_compact;        /* all blocks are compiled for speed at once */
    bool check;             /* verify the IR after every pass (tests) */
};

/* Log letters: i guest code in, o IR, h host code (bytes), e exceptions and interrupts, 2 regions of the second tier. */
extern const struct engine_ops tcg_engine_ops;

#endif
