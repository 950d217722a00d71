/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of engine/tcg share: per-vCPU state, address spaces with their soft TLB and jump cache, blocks.
 *
 * Locks: tcg_vm.lock protects blocks, the hash chains' writers, page records and the code buffer. Chains are read
 * without it (blocks are freed only inside an exclusive section). A tcg_vcpu and its spaces belong to the
 * vCPU's thread; others may only clear write tags (atomically) and set exit_req.
 */
#ifndef VMD_TCG_INTERNAL_H
#define VMD_TCG_INTERNAL_H

#include "engine/core/mem.h"
#include "engine/tcg/guest.h"
#include "engine/tcg/tcg.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdatomic.h>
#include <string.h>

/* ---- soft TLB and jump cache ---- */

#define TLB_BITS 12
#define TLB_SIZE (1u << TLB_BITS)
#define TLB_WINDOW 16u /* entries that are cleared together, see tcg_space.tlb_used; of the jump cache: JC_WINDOW */
#define TLB2_SETS 2048u
#define TLB2_WAYS 4u
#define FTLB_SIZE 256u
#define JC_BITS 13
#define JC_SIZE (1u << JC_BITS)
#define JC_WINDOW 16u
/* Flags in the low bits of a tag: any of them makes the inline comparison fail. */
#define TLB_SLOW 8u     /* valid, but the slow path must see each access (I/O, code page, dirty logging) */
#define TLB_INVALID 16u

struct tcg_tlb_info {
    uint64_t gpa;                   /* of the page */
    const struct mem_range *range;
};

/* Of the first level: a hit reads one cache line. */
struct tlb_entry {
    _Atomic uint64_t tag[2];       /* virtual page and flags, by TCG_READ, TCG_WRITE */
    uint64_t addend;               /* host address of the page (of a device's: physical address) minus its virtual address */
    const struct mem_range *range;
};
#define TLB_ENTRY_BITS 5
_Static_assert(sizeof(struct tlb_entry) == 1u << TLB_ENTRY_BITS, "translated code shifts by this");

/* A page of RAM that is shown in a window (alias.c). */
struct tcg_alias_page {
    uint64_t at;   /* host address there; 0: none */
    uint64_t va, host; /* the guest's address; the host's in the linear map */
};
struct tcg_window {
    uint64_t base; /* guest address where it begins */
    uint8_t *host; /* NULL: not in use */
};
#define TCG_ALIASES 256u
#define TCG_WINDOWS 4u
struct tcg_alias {
    struct tcg_alias_page page[TCG_ALIASES];
    struct tcg_window window[TCG_WINDOWS];
    uint64_t reset_at, looked_at; /* when it was asked for last; when wrong guesses were looked at last */
    unsigned bad;                 /* looks in a row that found nothing to do */
    unsigned waits;               /* resets that a region which guesses wrong was waiting for */
    unsigned next;                /* wrong guesses from the last look to the next; 0: none yet */
    bool reset;                   /* asked for */
};
static inline unsigned tcg_alias_index(uint64_t va)
{
    return (unsigned)(va >> 12) % TCG_ALIASES;
}

struct tcg_fetch {
    uint64_t tag;  /* virtual page | TLB_INVALID */
    uint64_t gpa;
    const struct mem_range *range;
};

struct tcg_jump {
    uint64_t pc;      /* 1 when empty: no pc is odd */
    const void *code; /* host code, or the block under the interpreter */
};

/* One (mode, address space) of a vCPU. Code reaches it through a host register, so switching spaces is one pointer and
 * a flush of one space touches no other. */
struct tcg_space {
    _Alignas(64) struct tlb_entry tlb[TLB_SIZE];
    struct tcg_jump jc[JC_SIZE];
    struct tcg_fetch fetch[FTLB_SIZE];
    uint64_t fetched[64];              /* Bloom bitmap of virtual pages fetched since the last full flush */
    _Atomic uint64_t writable[16];     /* the same of host pages that had a tag for fast stores */
    _Atomic uint64_t tlb_used[TLB_SIZE / TLB_WINDOW / 64]; /* windows with valid tags; others read it */
    uint64_t jc_used[JC_SIZE / JC_WINDOW / 64];
    uint64_t generation;               /* of its entries in the second level; those of another are dead */
    struct tcg_mode mode;
    uint64_t last_used;
    _Atomic bool clean;                /* nothing cached */
    bool local;                        /* a shared space holds pages that are not global: good for mode.asid only */
};

/* The second level of all spaces of a vCPU: set-associative, dropped by generation. Two cache lines a set, one of them for a miss. */
struct tlb2_set {
    _Alignas(128) uint64_t tag[TLB2_WAYS]; /* virtual page | TCG_PROT_* */
    uint64_t generation[TLB2_WAYS];        /* 0: empty */
    struct tcg_tlb_info to[TLB2_WAYS];
};

/* The second level of the jump caches of a vCPU, dropped by generation as that of the TLB is: one cache line a set. */
#define JUMP2_WAYS 3u
#define JUMP2_SETS 8192u /* at most */
struct jump2_set {
    _Alignas(64) uint64_t pc[JUMP2_WAYS];
    uint64_t generation[JUMP2_WAYS]; /* 0: empty */
    uint32_t code[JUMP2_WAYS];       /* offset in the code buffer */
};

static inline unsigned tlb_index(uint64_t va)
{
    return (unsigned)(va >> 12) & (TLB_SIZE - 1);
}
/* Release: who sees the tag sees the rest of the entry. */
static inline void tag_set(_Atomic uint64_t *tag, uint64_t value)
{
    atomic_store_explicit(tag, value, memory_order_release);
}

/* ---- blocks ---- */

struct tier2;
struct tcg_block;

/* Everything that belongs to a block lies beside its code in the code buffer (cache.c): a `ref` is a byte offset there, 0 none. */

/* A way out to an address in the block's page. Where it is linked to is in the code only. */
struct tcg_exit {
    uint16_t patch;         /* the 32-bit displacement to patch, from the start of the block's code on */
    uint16_t stub;          /* the unlinked target, from `patch` on; 0: not linkable, `patch` is that target */
    uint16_t off : 12;      /* target, in the page */
    uint16_t guard : 1;     /* IR_HINT_GUARD */
    _Atomic uint16_t which; /* its number among the block's exits << 1 | linked */
};
#define EXIT_LINKED 1u

/* Where a faulting access or call stands: return address (offset in the code buffer) to instruction. Back ends make them in
 * ascending order of addresses; a block keeps them packed (cache.c). */
struct tcg_site {
    uint32_t host;
    int32_t insn;
};

/* What few blocks have. */
struct tcg_extra {
    uint64_t gpa_page2;    /* page of a straddling instruction's second half, or UINT64_MAX */
    uint64_t granules2;
    uint64_t granules;     /* 64-byte pieces of the page it was made from, with tcg_block.holes */
    uint32_t variant;      /* with uses_variant and not generic: the word it assumes */
    uint32_t serial;       /* with uses_variant: in order of insertion; wraps around */
    struct tcg_note *note; /* what looks at it (instrument.h), or NULL */
    struct tcg_count *counts; /* of n_insns, under an instruction clock (icount.c); else NULL */
    /* Of a region of the second tier: */
    struct tcg_block **entries; /* the blocks that lead to it, NULL where they are gone */
    uint64_t entered, entered_then, sampled_at; /* times it was entered; the same, and when, at the last sample */
    uint32_t n_entries;
    uint32_t page_next;    /* ref: as tcg_block.page_next, of the second page */
};

struct tcg_block {
    /* What finding a block reads comes first. */
    _Atomic uint32_t hash_next; /* ref */
    uint32_t mode;         /* tcg_mode.code */
    uint64_t gpa __attribute__((packed, aligned(4))); /* of the first instruction */
    _Atomic bool invalid;
    uint8_t uses_variant : 1, generic : 1; /* generic: assumes nothing, the last resort */
    uint8_t asked : 1;     /* part of a job of the second tier */
    uint8_t lean : 1;      /* compact code that counts its runs */
    uint8_t straddles : 1; /* extra->gpa_page2 is one */
    uint8_t plain : 1;     /* regions with it shall guess no addends */
    uint8_t extra : 1;     /* there is a struct tcg_extra behind the exits */
    uint8_t holes : 1;     /* what it was made from is not one piece: extra->granules tells */
    uint8_t refusals;      /* times that no region came of it */
    _Atomic uint8_t heat;  /* samples */
    uint32_t code;         /* offset in the code buffer */
    uint32_t page_next;    /* ref: of the page's blocks; of an invalid one: of those that lead into the same region */
    union {
        uint32_t tier2;    /* valid: ref of the region that its entry leads to */
        uint32_t forward;  /* invalid: ref of the newer block that its entry jumps on to */
    };
    uint16_t code_units;   /* size of its code, in TCG_CODE_UNIT */
    uint16_t older;        /* made before, in the same region: how far above, in TCG_TABLE_UNIT; 0: none */
    uint16_t n_insns, n_exits;
    uint16_t site_bytes;   /* packed sites, which lie before the block */
    uint8_t last;          /* granule of its last byte in the page of gpa */
    struct tcg_exit exits[];
};
#define TCG_CODE_UNIT 8u
#define TCG_TABLE_UNIT 4u /* tables are aligned to it; those with a struct tcg_extra to 8 */

static inline uint32_t block_size(const struct tcg_block *b)
{
    return b->code_units * TCG_CODE_UNIT;
}
static inline struct tcg_block *exit_block(const struct tcg_exit *x)
{
    unsigned index = atomic_load_explicit(&x->which, memory_order_relaxed) >> 1;
    return (struct tcg_block *)(uintptr_t)((const char *)(x - index) - offsetof(struct tcg_block, exits));
}
static inline bool exit_linked(const struct tcg_exit *x)
{
    return atomic_load_explicit(&x->which, memory_order_relaxed) & EXIT_LINKED;
}
/* Where an exit can be patched, and where it leads while it is not, from the start of the block's code on. Too far: it stays as it is. */
static inline void exit_patchable(struct tcg_exit *x, uint32_t patch, uint32_t stub)
{
    bool near = stub <= UINT16_MAX;
    x->patch = near ? (uint16_t)patch : 0;
    x->stub = near ? (uint16_t)(stub - patch) : 0;
}
/* Offset in the code buffer of where it leads while it is not linked. */
static inline uint32_t exit_stub(const struct tcg_exit *x)
{
    return exit_block(x)->code + x->patch + x->stub;
}

/* ---- code buffer (codebuf.c) ---- */

/* One memfd mapped twice: writable here, executable elsewhere; no page is ever both. Offsets serve for both views. */
struct tcg_codebuf {
    uint8_t *rw;
    const uint8_t *rx;
    size_t size;
    size_t huge; /* what lies before is in huge pages, or cannot be */
};
/* for_perf: in anonymous memory, as perf needs it to read its map. */
int codebuf_init(struct tcg_codebuf *b, size_t size, bool for_perf, struct err *e);
/* Code will be written before `end`: gets huge pages for it where the host has them, since translated code jumps about and
 * small pages cost a TLB miss at every turn. tcg_vm.lock is held. */
void codebuf_grow(struct tcg_codebuf *b, size_t end);
void codebuf_done(struct tcg_codebuf *b);

/* A 4 KiB page of guest memory that has, or had, translated code. */
struct tcg_page {
    uint64_t granules;            /* what stores must look at: `made`, or all ones while claimed */
    uint64_t made;                /* union over its blocks */
    uint32_t blocks;              /* ref: page_next chain, see page_link() */
    uint32_t claims;              /* translations under way: granules stay all ones meanwhile */
    uint32_t changes;             /* counts stores and DMA to it while claimed; tcg_vm.lock */
    uint32_t swept;               /* number of the eviction that looked at it last */
};

/* Counters of compact code: TCG_WARM of them, by address in the executable view shifted right. Blocks that share one are told apart by who
 * makes it zero: mostly the one that runs more often. */
#define TCG_WARM (1u << 16)
#define TCG_WARM_SHIFT 6
static inline unsigned tcg_warm_index(uint64_t host)
{
    return (unsigned)(host >> TCG_WARM_SHIFT) & (TCG_WARM - 1);
}

/* Records of pages come in groups, made when code is first translated there. */
#define TCG_PAGE_GROUP 16
struct tcg_pages {
    _Atomic(struct tcg_page *) *group; /* by page number / TCG_PAGE_GROUP: NULL, or the records */
    _Atomic uint8_t *writers;          /* by page number: bit per vCPU (index mod 8) that has had a fast write tag for it */
    uint64_t n;                        /* pages of RAM */
    unsigned n_groups, max_groups;     /* made; at most */
    struct tcg_page **spare;           /* groups of no page */
    unsigned n_spare;
    struct tcg_page rom;               /* all that is not RAM */
};

/* A piece of the code buffer that is filled and emptied at once: code from the bottom up, what describes it from the top down. */
struct tcg_region {
    uint32_t lo, hi;              /* offsets in the code buffer */
    uint32_t used;                /* end of the code */
    uint32_t top;                 /* start of what lies above */
    uint32_t newest;              /* ref of the block made last */
    uint32_t forwarders;          /* ref: invalid blocks that lead to blocks in here */
    bool touched;                 /* ever used: has memory */
    uint64_t filled;              /* number of the eviction that made it free */
    _Atomic uint64_t uses;        /* how often its blocks were wanted, halved from time to time */
};
#define TCG_MAX_REGIONS 64
#define TCG_MIN_REGION (64u << 10)
#define TCG_BY_HOST 1024u

struct tcg_vcpu;

struct tcg_stats {
    uint64_t blocks, insns, code_bytes, evictions, invalidations, links, revokes;
    uint64_t promoted, made, forwards, flushes, table_bytes;
    uint64_t header_bytes, exit_bytes, site_bytes, extra_bytes; /* parts of table_bytes */
};

struct icount;

struct tcg_vm {
    struct vm *vm;
    struct icount *icount;        /* NULL: time is the host's */
    /* Who looks (instrument.h); all NULL: nobody. They change before the VM runs or in an exclusive section. */
    struct tcg_trace *trace;
    struct tcg_coverage *coverage;
    struct tcg_plugins *plugins;
    struct tcg_perfmap *perfmap;
    const struct tcg_guest *guest;
    struct tcg_config config;
    /* What is written while vCPUs run has lines of its own: every dispatch reads what stands beside it. */
    _Alignas(64) pthread_mutex_t lock;
    _Alignas(64) struct tcg_region regions[TCG_MAX_REGIONS];
    _Alignas(64) struct tcg_codebuf buf;
    unsigned n_regions;           /* 0: not laid out yet */
    unsigned region;              /* being filled */
    uint64_t fills;               /* regions begun so far */
    uint32_t region_size;
    uint32_t reserved;            /* bytes at the start: thunks */
    uint32_t *by_host;            /* by code offset / TCG_BY_HOST: ref of the youngest block that starts there */
    _Atomic uint32_t *hash;       /* refs; 2^hash_bits */
    unsigned hash_bits;
    _Atomic uint16_t warm_from;   /* where they begin anew: what is hot enough to be compiled for speed */
    unsigned max_spaces;          /* of a vCPU, at most TCG_SPACES */
    unsigned jump2_sets;          /* of a vCPU's second level of jump caches: a power of two */
    struct tcg_pages pages;
    uint32_t serial;              /* of the variant inserted last */
    unsigned revoking;            /* claims of pages that take tags for fast stores away */
    _Alignas(64) struct tcg_stats stats;
    void *host_data;              /* the back end's own, freed with free() */
    struct tier2 *tier2;          /* tier2.c; NULL: off */

    /* Exclusive sections (tcg.c). */
    pthread_mutex_t excl_lock;
    pthread_cond_t excl_cond;
    unsigned running;             /* vCPUs inside run() and not waiting */
    _Atomic uint64_t n_runs;      /* times one began to run */
    unsigned excl_pending;        /* somebody wants to be alone */
    bool excl_active;
    _Atomic unsigned excl_asked;  /* exclusive sections wanted or active, and waits of tcg_quiesce() */
    uint64_t passing;             /* number of the last tcg_quiesce() */
    struct tcg_vcpu **vcpus;
    unsigned n_vcpus;

    /* Debugging (tcg.c): main thread at the barrier; run() reads. */
    uint64_t *breakpoints;        /* virtual addresses */
    unsigned n_breakpoints;
    _Atomic bool remembered;      /* links or jump-cache entries may exist */
};

/* ---- one vCPU ---- */

#define TCG_SPACES 24
#define TCG_SPILLS 64
#define TCG_NEAR 32
#define TCG_GUESSES 32
#define TCG_HOST_THUNKS 12

struct tcg_vcpu {
    struct vcpu *vcpu;
    struct tcg_vm *tcg;
    struct tcg_space *spaces[TCG_SPACES]; /* NULL until used */
    struct tcg_space *space_hint[16];     /* by a hash of the mode: most switches find theirs here */
    struct tcg_space *space_pool;         /* TCG_SPACES of them, in huge pages: they are read at random */
    struct tlb2_set *tlb2;                /* TLB2_SETS of them, the same */
    struct jump2_set *jump2;              /* jump2_mask + 1 of them, in huge pages; NULL until used, or without memory for it */
    unsigned jump2_mask, jump2_clock;
    uint16_t *warm;                       /* how often compact code may still run here, by return address of its entry: TCG_WARM of them. Every block
                                           * counts, so counters that vCPUs share would keep moving between the host's CPUs */
    uint64_t generations;                 /* the last one given to a space */
    uint64_t use_clock;
    unsigned tlb2_clock;
    uint32_t mode_code;
    sigjmp_buf unwind;
    enum { UNWIND_RAISE = 1, UNWIND_HALT, UNWIND_IO } unwind_why;
    uint32_t cause;
    uint64_t tval;
    struct tcg_alias alias;
    struct ir *ir;                /* scratch of the translator */
    uint64_t *interp_temps;
    void *host_scratch;           /* the back end's own, freed with free() */
    int32_t interp_insn;          /* instruction running under the interpreter */
    const struct tcg_block *interp_block;
    _Atomic bool kicked, sample;  /* asked: leave run(); tell where you are */
    bool single;                  /* the debugger wants one instruction */
    bool full;                    /* ... a block that is no compact code */
    bool one_insn;                /* being looked for: a block of one instruction */
    /* Under an instruction clock (icount.c). */
    bool io_ok, io_next;          /* the clock is exact now; the next instruction must run alone */
    bool one_by_one;              /* the budget is for one instruction */
    bool waiting;                 /* for an interrupt, in run() */
    int64_t granted, slice;       /* budget when it was last accounted for; left of this turn */
    uint64_t retired;
    uint32_t covered;             /* block before, for edges (coverage.c) */
    bool announced;               /* plugins know it runs */
    bool in_code;                 /* between entering and leaving translated code */
    bool counted;                 /* among tcg_vm.running; excl_lock */
    uint64_t began_ns;            /* the run, on the monotonic clock, when the second tier's thread slept then; 0: it did not */
    uint64_t passed;              /* tcg_vm.passing when it last was between blocks for that; excl_lock */
    uint64_t n_enter, n_lookup, n_tlb_fill, n_tlb2_hit, n_slow, n_exception, n_interrupt, n_translate, n_space;
    /* More counters of what happens outside translated code; stats.c has the meaning of each. */
    uint64_t n_left_direct, n_left_lookup, n_left_stale, n_left_raise, n_left_halt, n_jump_hit, n_jump2_hit, n_kick;
    uint64_t n_fill[3], n_walk[3], n_load, n_store, n_atomic, n_mmio_read, n_mmio_write;
    uint64_t n_guess, n_alias;
    uint64_t n_flush_all, n_flush_asid, n_flush_page, n_exclusive;

    /* Reached from translated code at small negative offsets from cpu. */
    uint64_t spill[TCG_SPILLS];
    uint64_t save[4];             /* scratch registers over a slow path */
    uint64_t xsave[13];           /* the same, of the host's floating point */
    /* Pages that a region of the second tier remembers while it runs (region_mem.c): where one begins in the guest, up to where in it
     * the region's accesses may begin (0: nothing is remembered), and the host's address minus the guest's. */
    uint64_t near_page[TCG_NEAR], near_limit[TCG_NEAR], near_addend[TCG_NEAR];
    uint64_t guess[TCG_GUESSES];  /* addends that regions guess: what was right last */
    int32_t guess_left;           /* wrong ones until C code looks at them */
    _Atomic uint32_t in_region;   /* a region ran since the dispatcher was left: pages may be remembered that the TLB no longer has */
    uint64_t arg[2];
    uint64_t host_ra;             /* return address of the running helper in the code buffer, 0: none */
    /* Near enough to be reached by one byte: */
    _Alignas(64) uint64_t pc_page; /* virtual address of the page of the running block */
    int64_t budget;               /* instructions that may run before the dispatcher must look */
    struct tcg_space *space;
    _Atomic uint32_t exit_req;
    uint32_t mxcsr;               /* scratch: x86's FP status on its way to memory */
    uint64_t host_thunk[TCG_HOST_THUNKS]; /* the back end's own */
    _Alignas(64) uint8_t cpu[];   /* the architectural state */
};

static inline struct tcg_vcpu *tcg_of(void *cpu)
{
    return (struct tcg_vcpu *)((char *)cpu - offsetof(struct tcg_vcpu, cpu));
}
static inline uint64_t *tcg_pc(struct tcg_vcpu *v)
{
    return (uint64_t *)(void *)(v->cpu + v->tcg->guest->pc_offset);
}
/* The word that tells variants apart, as it is now. */
static inline uint32_t tcg_variant_word(const struct tcg_vcpu *v)
{
    uint32_t word = TCG_VARIANT_UNKNOWN;
    if (v->tcg->guest->variant_offset) {
        memcpy(&word, v->cpu + v->tcg->guest->variant_offset, sizeof(word));
    }
    return word;
}

/* ---- translate.c: guest bytes to IR to a block ---- */

/* Makes a block for pc (virtual) at gpa in the current mode. NULL with an exception pending by *cause and *tval. */
/* The key of blocks beside the address: the guest's mode, and how they were cut. */
static inline uint32_t tcg_block_mode(const struct tcg_vcpu *v, const struct tcg_fetch *f)
{
    return v->mode_code | (f->tag & TLB_SLOW ? 0x80000000u : 0) | (v->one_insn ? 0x40000000u : 0);
}
void tcg_make_ir(const struct tcg_guest *g, struct tcg_trans *t, unsigned max, uint64_t *granules);
struct tcg_block *tcg_translate(struct tcg_vcpu *v, uint64_t pc, const struct tcg_fetch *f);

/* ---- cache.c: blocks by physical address, linking, invalidation ---- */

/* The block for an address, a mode and a value of the variant word: one made for that value, one that does not ask, else the
 * generic one. Without lock. */
struct tcg_block *cache_find(struct tcg_vm *t, uint64_t gpa, uint32_t mode, uint32_t variant);
/* The oldest block of an address and mode, whatever its variant, that is younger than `than`, if that is one of several; NULL when there is none. Without lock.
 * Jumps lead to the oldest (than: NULL), a failing guard at a block's start to the next younger, a dead entry too: so a walk along
 * variants ends at the dispatcher or in a block that fits, and never turns in a circle. */
struct tcg_block *cache_next_variant(struct tcg_vm *t, uint64_t gpa, uint32_t mode, const struct tcg_block *than);
unsigned cache_count_variants(struct tcg_vm *t, uint64_t gpa, uint32_t mode); /* without the generic one */
void cache_drop(struct tcg_vm *t, struct tcg_block *b); /* as if its bytes had changed; takes the lock */
/* Takes the block of cache_begin() over (code_size bytes at the fill point) and makes it visible. The lock is held. page/page2: its
 * page records, NULL for what is no RAM. */
void cache_insert(struct tcg_vm *t, struct tcg_block *b, struct tcg_page *page, struct tcg_page *page2);
/* Patches an exit to jump straight to a block of the same page and mode. */
void cache_link(struct tcg_vm *t, struct tcg_exit *x, struct tcg_block *to); /* takes the lock */
/* Drops blocks made from guest bytes [gpa, gpa+n). Any thread. Returns true when there were any. */
bool cache_invalidate(struct tcg_vm *t, uint64_t gpa, uint64_t n);
/* Lets the entry of an invalid block jump to its successor of the same address and mode. Takes the lock. */
void cache_forward(struct tcg_vm *t, struct tcg_block *stale, struct tcg_block *to);
/* Marks a block invalid and takes it out of the hash and, if asked, its pages; its memory stays. Lock held. */
void cache_retire(struct tcg_vm *t, struct tcg_block *b, bool from_pages);
/* 64-byte pieces of the page of its gpa that it was made from. Before the block is inserted: sets them, with an extra if they have holes. */
uint64_t cache_granules(const struct tcg_vm *t, const struct tcg_block *b);
void cache_set_granules(const struct tcg_vm *t, struct tcg_block *b, uint64_t granules);
bool cache_holes(uint64_t granules);
/* Sets the size of its code, rounded up. False: it is too large. */
bool cache_set_size(struct tcg_block *b, size_t bytes);
/* Where a block holds the next one of a page's list. */
uint32_t *page_link(const struct tcg_vm *t, struct tcg_block *b, uint64_t gpa_page);

/* ---- evict.c: regions; tcg_vm.lock is held unless said otherwise ---- */

int cache_init(struct tcg_vm *t, struct err *e);
void cache_done(struct tcg_vm *t);
/* Makes room for `max` bytes of code and tables at the fill point, moving to the next region when this one is full. False when that
 * region must be evicted first: the caller drops the lock, comes back inside an exclusive section with may_evict. */
bool cache_reserve(struct tcg_vm *t, size_t max, bool may_evict);
size_t cache_largest(struct tcg_vm *t); /* that can be reserved */
void cache_share(struct tcg_vm *t);     /* a vCPU was added: what each may take of the limit */
void cache_layout(struct tcg_vm *t);    /* before anything is translated, all vCPUs being there: divides the limit; once */
/* What a block's tables take at most, its sites apart. */
size_t cache_table_size(unsigned n_exits, bool extra);
/* Offset where the next block's code goes. */
uint32_t cache_fill_point(const struct tcg_vm *t);
/* The tables of a block to be, in what was reserved: zeroes, but for the numbers of its exits. Nothing is taken until cache_insert(). */
struct tcg_block *cache_begin(struct tcg_vm *t, unsigned n_exits, bool extra);
/* Its gpa, code and size are set: packs its sites. False: there is no room for them. */
bool cache_sites(struct tcg_vm *t, struct tcg_block *b, const struct tcg_site *sites, unsigned n);
void cache_place(struct tcg_vm *t, struct tcg_block *b); /* of cache_insert(): takes its room */
void cache_evict_next(struct tcg_vm *t); /* exclusive: the region that is missed least becomes the one that is filled */
void cache_evict_one(struct tcg_vm *t, unsigned region); /* exclusive: this one, which stays empty for now */
void cache_warm_make(struct tcg_vcpu *v); /* its counters of compact code */
/* The dispatcher looked the block up. Any vCPU, no lock. */
void cache_used(struct tcg_vcpu *v, const struct tcg_block *b); /* it was looked up: one of a few counts for them all */
void cache_flush_all(struct tcg_vm *t);  /* exclusive or stopped; takes the lock */
/* Block whose host code holds this address, or NULL. */
struct tcg_block *cache_by_host(const struct tcg_vm *t, uint64_t host);
/* The block that an exit is linked to, or NULL. */
struct tcg_block *cache_linked(const struct tcg_vm *t, const struct tcg_exit *x);
/* The one that was made before it in its region, or NULL. */
static inline struct tcg_block *cache_older(const struct tcg_block *b)
{
    return b->older ? (struct tcg_block *)(uintptr_t)((const uint8_t *)b + b->older * TCG_TABLE_UNIT) : NULL;
}
/* Instruction of a host return address, page-relative. Takes the lock. */
bool cache_site(struct tcg_vm *t, uint64_t host, int32_t *insn);
/* Memory of what config.cache_size limits, by kind. */
struct tcg_memory {
    uint64_t regions; /* of the code buffer in use: code, tables of blocks, free */
    uint64_t index, hash, pages, spaces;
    uint64_t scratch; /* beside it: what the vCPUs' compilers work in */
};
void cache_memory(const struct tcg_vm *t, struct tcg_memory *m);

/* A ref of the code buffer, and back. */
static inline void *cache_at(const struct tcg_vm *t, uint32_t ref)
{
    return ref ? t->buf.rw + ref : NULL;
}
static inline uint32_t cache_ref(const struct tcg_vm *t, const void *p)
{
    return p ? (uint32_t)((const uint8_t *)p - t->buf.rw) : 0;
}
static inline struct tcg_extra *cache_extra(const struct tcg_vm *t, const struct tcg_block *b)
{
    size_t off = (offsetof(struct tcg_block, exits) + b->n_exits * sizeof(struct tcg_exit) + 7) & ~(size_t)7;
    return b->extra ? cache_at(t, cache_ref(t, b) + (uint32_t)off) : NULL;
}

/* ---- pages.c: pages of guest RAM ---- */

/* Before guest bytes of a page are read for translation: from here on every store to it takes the slow path. Takes the lock
 * itself; may enter an exclusive section, and evict. Returns its record, NULL for what is no RAM. */
struct tcg_page *cache_claim(struct tcg_vcpu *v, const struct mem_range *r, uint64_t gpa);
void cache_unclaim(struct tcg_vm *t, struct tcg_page *p); /* lock held */
/* The record of a page of RAM, NULL when it has no code. Without lock. */
struct tcg_page *cache_page(struct tcg_vm *t, const struct mem_range *r, uint64_t gpa);
/* The same of whatever lies at gpa: all but RAM has one record together. */
struct tcg_page *cache_page_of(struct tcg_vm *t, uint64_t gpa);
/* Which vCPUs have had a tag for fast stores to a page of RAM: a bit each, index mod 8. NULL for what is no RAM. */
_Atomic uint8_t *cache_writers(const struct tcg_vm *t, const struct mem_range *r, uint64_t gpa);
void cache_pages_reset(struct tcg_vm *t); /* the memory map has changed; the cache is empty */
void cache_pages_done(struct tcg_vm *t);
/* Does the page hold translated code? */
static inline bool cache_page_has_code(const struct tcg_page *p)
{
    return p && __atomic_load_n(&p->granules, __ATOMIC_ACQUIRE) != 0;
}

/* ---- space.c ---- */

struct tcg_space *space_select(struct tcg_vcpu *v, struct tcg_mode m);
void space_flush(struct tcg_vcpu *v, struct tcg_space *s);
void space_flush_page(struct tcg_vcpu *v, struct tcg_space *s, uint64_t va);
void tlb_flush_vcpu(struct tcg_vcpu *v);
int tlb_init(struct tcg_vcpu *v, struct err *e);
void tlb_free(struct tcg_vcpu *v);
/* Takes away fast write access to one page from every space of a vCPU. Any thread, while the owner may run: tag by tag, so that
 * what the owner puts in their place meanwhile stands (fill() looks at the page again itself). True when there was any: then a
 * store that saw it may still be on its way. */
bool tlb_revoke_write(struct tcg_vcpu *v, const uint8_t *host_page);
/* The second level, for v->space and the page at va. find: prot in: the right that is wanted; out: all that the entry gives. False: it has
 * none. insert: in place of what it had for that page. */
bool tlb2_find(const struct tcg_vcpu *v, uint64_t va, unsigned *prot, struct tcg_tlb_info *out);
void tlb2_insert(struct tcg_vcpu *v, uint64_t va, uint64_t gpa, unsigned prot, const struct mem_range *r);
void space_fetches(struct tcg_space *s, uint64_t va); /* a fetch translation of it is remembered */

/* Entry i of the first level is about to be written. */
static inline void space_uses(struct tcg_space *s, unsigned i)
{
    _Atomic uint64_t *word = &s->tlb_used[i / TLB_WINDOW / 64];
    uint64_t bit = 1ull << i / TLB_WINDOW % 64, have = atomic_load_explicit(word, memory_order_relaxed);
    atomic_store_explicit(word, have | bit, memory_order_relaxed); /* nobody else writes it */
    atomic_store_explicit(&s->clean, false, memory_order_relaxed);
}
static inline _Atomic uint64_t *space_writable(struct tcg_space *s, uint64_t host, uint64_t *bit)
{
    uint64_t h = (host >> 12) * 0x9e3779b97f4a7c15ull >> 54;
    *bit = 1ull << (h & 63);
    return &s->writable[h >> 6];
}
/* A tag for fast stores to a host page is about to be written. */
static inline void space_writes(struct tcg_space *s, uint64_t host)
{
    uint64_t bit;
    _Atomic uint64_t *word = space_writable(s, host, &bit);
    atomic_store_explicit(word, atomic_load_explicit(word, memory_order_relaxed) | bit, memory_order_relaxed);
}
static inline bool space_may_write(struct tcg_space *s, uint64_t host)
{
    uint64_t bit;
    return atomic_load_explicit(space_writable(s, host, &bit), memory_order_relaxed) & bit;
}

/* Where the page of an entry is in the linear map of its range. va: the page's. Any thread that has seen its tag. */
static inline uint64_t tlb_host(const struct tcg_vcpu *v, const struct tlb_entry *e, uint64_t va)
{
    const struct tcg_alias_page *p = &v->alias.page[tcg_alias_index(va)];
    uint64_t at = __atomic_load_n(&e->addend, __ATOMIC_ACQUIRE) + va;
    return at == __atomic_load_n(&p->at, __ATOMIC_ACQUIRE) ? p->host : at;
}

/* ---- alias.c: pages of RAM in the guest's order; the vCPU's thread, or while it is paused ---- */

/* guess_left has run out, last at a load or store at va: what can be done that fewer are wrong. */
void alias_guessed(struct tcg_vcpu *v, uint64_t va);
void alias_reset(struct tcg_vcpu *v); /* the windows go; between blocks */
/* Where the TLB shall lead for a page that the linear map has at `host`. */
static inline uint64_t alias_of(const struct tcg_vcpu *v, uint64_t va, uint64_t host)
{
    const struct tcg_alias_page *p = &v->alias.page[tcg_alias_index(va)];
    return p->at && p->va == va && p->host == host ? p->at : host;
}

/* ---- tlb.c ---- */

/* Fetch translation of pc's page; NULL with *cause and *tval set on a fault. */
const struct tcg_fetch *tlb_fetch(struct tcg_vcpu *v, uint64_t va, struct tcg_fetch *uncached,
                                  uint32_t *cause, uint64_t *tval);
/* Slow paths of translated code and of the interpreter. They raise. */
uint64_t tlb_load(void *cpu, uint64_t va, uint64_t mo);
void tlb_store(void *cpu, uint64_t va, uint64_t value, uint64_t mo);
uint64_t tlb_amo(void *cpu, uint64_t va, uint64_t value, uint64_t mo_kind); /* mo | kind << 8 */
uint64_t tlb_cas(void *cpu, uint64_t va, uint64_t expect, uint64_t value_, uint64_t mo);

static inline unsigned jc_index(uint64_t pc)
{
    return (unsigned)((pc ^ pc >> 11) >> 1) & (JC_SIZE - 1);
}
/* What is remembered of a pc: at its index or beside it. NULL: nothing. */
static inline struct tcg_jump *jc_find(struct tcg_space *s, uint64_t pc)
{
    unsigned i = jc_index(pc);
    return s->jc[i].pc == pc ? &s->jc[i] : s->jc[i ^ 1].pc == pc ? &s->jc[i ^ 1] : NULL;
}
/* In the first level of the jump cache. */
static inline void jc_insert(struct tcg_space *s, uint64_t pc, const void *code)
{
    unsigned i = jc_index(pc), w = i / JC_WINDOW;
    if (s->jc[i].pc != pc) { /* whose place it is moves over; nothing stands there twice */
        s->jc[i ^ 1] = s->jc[i].pc != 1 || s->jc[i ^ 1].pc == pc ? s->jc[i] : s->jc[i ^ 1];
    }
    s->jc[i] = (struct tcg_jump){ pc, code };
    s->jc_used[w / 64] |= 1ull << w % 64;
    atomic_store_explicit(&s->clean, false, memory_order_relaxed);
}

/* In both levels. jump2_find: what the second has; NULL: nothing. */
void space_remember(struct tcg_vcpu *v, uint64_t pc, const void *code);
void space_forget(struct tcg_vcpu *v, struct tcg_space *s, uint64_t pc);
const void *jump2_find(const struct tcg_vcpu *v, uint64_t pc);
/* Forgets what leads to code from lo to hi, offsets in the buffer; the vCPU stands still. */
void jump2_forget(struct tcg_vcpu *v, uint32_t lo, uint32_t hi);

/* ---- back ends ---- */

/* host_X/: compiles v->ir into the code buffer. Fills code_size, exits (which have their index and off), sites. Returns the bytes used, 0 when `room` is
 * too small or the block too complex (caller retries with fewer instructions). */
struct t2_work;
struct tcg_host_ops {
    const char *name;
    bool (*supported)(void);
    /* Emits the thunks at the start of the buffer; returns bytes used. */
    size_t (*init)(struct tcg_vm *t, struct err *e);
    size_t (*scratch)(void); /* bytes of tcg_vcpu.host_scratch */
    size_t (*compile)(struct tcg_vcpu *v, struct tcg_block *b, uint32_t at, size_t room);
    /* Runs from code until it leaves. NULL: pc is in the CPU state; else the direct exit taken. */
    struct tcg_exit *(*enter)(struct tcg_vcpu *v, const void *code);
    void (*patch)(struct tcg_vm *t, struct tcg_exit *x, uint32_t to);
    /* Where a linkable exit leads now: an offset in the code buffer. */
    uint32_t (*leads_to)(const struct tcg_vm *t, const struct tcg_exit *x);
    /* Makes an invalid block's entry leave to the dispatcher (enter() returns TCG_EXIT_STALE, host_ra tells the
     * block), or jump on to a newer block's code when forward is not NULL. One aligned 8-byte store. */
    void (*kill)(struct tcg_vm *t, struct tcg_block *b, const struct tcg_block *forward);
    /* The second tier (tier2.h); region is NULL where there is none. Compiles w->ir into w->code; false when it is too much. */
    bool (*region)(struct tcg_vm *t, struct t2_work *w);
    /* Copies it into the code buffer to b->code, and its exits to b's; makes w->sites fit. */
    void (*place)(struct tcg_vm *t, struct t2_work *w, struct tcg_block *b);
    /* Makes the entry of a valid block jump to an offset of the code buffer; 0: makes it what it was. */
    void (*redirect)(struct tcg_vm *t, struct tcg_block *b, uint32_t to);
};
#define TCG_EXIT_STALE ((struct tcg_exit *)1)
extern const struct tcg_host_ops tcg_host_x86_64;
const struct tcg_host_ops *tcg_host(void); /* of this machine, or NULL */

/* The interpreter's "host code": the block's IR, copied into the code buffer at `at`. Returns bytes used or 0. */
size_t ir_interp_compile(struct tcg_vcpu *v, struct tcg_block *b, uint32_t at, size_t room);
/* Runs one block; returns as enter() does. */
struct tcg_exit *ir_interp(struct tcg_vcpu *v, struct tcg_block *b);

/* ---- stats.c ---- */
void tcg_stats(struct vm *vm, struct buf *out); /* engine_ops.stats */

/* ---- icount.c: the instruction clock; only with tcg_config.icount ---- */
struct tcg_count;
void icount_init(struct tcg_vm *t);
void icount_done(struct tcg_vm *t);
/* Translation: at the start of each instruction, behind what leaves to start it anew, at its end, at the block's end. */
void icount_insn(struct tcg_trans *t);
void icount_restart(struct tcg_trans *t);
void icount_insn_end(struct tcg_trans *t);
void icount_end(struct tcg_trans *t);
struct tcg_count *icount_table(const struct tcg_trans *t); /* the caller's */
/* The vCPU's thread. Waits for the turn; false: kicked meanwhile. The caller is outside run_begin(). */
bool icount_take_turn(struct tcg_vcpu *v);
/* With the turn: accounts, fires timers, grants a budget. */
enum icount_next { ICOUNT_RUN, ICOUNT_AGAIN, ICOUNT_TURN /* take the turn again */, ICOUNT_OUT /* kicked */ };
enum icount_next icount_next(struct tcg_vcpu *v);
void icount_free_run(struct tcg_vcpu *v); /* under a debugger: no end of the budget */
void icount_one(struct tcg_vcpu *v);     /* of what was granted, one instruction */
/* For the debugger: what was executed is accounted for; unused: what was granted is taken back. */
void icount_leave(struct tcg_vcpu *v, bool unused);
bool icount_skip(struct tcg_vcpu *v);     /* to the next timer; false: there is none */
void icount_refund(struct tcg_vcpu *v);
void icount_stop(struct tcg_vcpu *v);
void icount_wake(struct tcg_vm *t);       /* any thread: something happened */
uint64_t icount_executed(const struct tcg_vm *t);
_Noreturn void tcg_io_retry(struct tcg_vcpu *v);

/* ---- observe: see instrument.h ---- */
/* Somebody looks at blocks as they run: there must be no code that was made without asking (regions of the second tier). */
static inline bool tcg_observed(const struct tcg_vm *t)
{
    return t->trace || t->coverage || t->plugins;
}
struct tcg_note;
void instrument_access(struct tcg_vcpu *v, uint64_t va, unsigned what); /* by a helper, with plugins only */
void plugin_vcpu(struct tcg_vcpu *v);
/* The pc of the instruction being executed, also inside a helper. */
uint64_t tcg_here(struct tcg_vcpu *v);

/* ---- tcg.c ---- */
/* As below, from a thread that is no vCPU's. */
void tcg_exclusive_begin_outside(struct tcg_vm *t);
void tcg_exclusive_end_outside(struct tcg_vm *t);
void tcg_exclusive_begin(struct tcg_vcpu *self); /* self may be NULL (not a vCPU thread) */
void tcg_exclusive_end(struct tcg_vcpu *self);
/* On a vCPU's thread, which holds no lock and no translation of its own: returns when each other vCPU of the mask (bit of its
 * index mod 32) has been outside of guest code at least once since the call. They need not wait for each other. */
void tcg_quiesce(struct tcg_vcpu *self, uint32_t mask);

#endif
