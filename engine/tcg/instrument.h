/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What instrumented blocks carry, shared by the files behind observe.h. A note is made under tcg_vm.lock, lives as long as its block, and is
 * read by translated code on vCPU threads.
 */
#ifndef VMD_TCG_INSTRUMENT_H
#define VMD_TCG_INSTRUMENT_H

#include "engine/tcg/internal.h"
#include "engine/tcg/observe.h"

/* A function of a plugin, to be called at some place of a block. */
struct note_call {
    void (*fn)(void);
    void *user;
    unsigned insn; /* index in the block */
};

struct note_calls {
    struct note_call *call;
    unsigned n;
};

struct tcg_note {
    uint64_t va, gpa; /* where the block was first met */
    uint32_t mode;
    unsigned n_insns;
    bool trace, cover;
    int32_t *off; /* of each instruction, page-relative; with memory calls only */
    struct note_calls run, insn, memory;
};

/* translate.c, tcg_vm.lock held: adds calls to the IR of a block before it is optimised; NULL when nothing looks at it. pc is virtual. */
struct tcg_note *instrument(struct tcg_vcpu *v, struct tcg_trans *t, uint64_t pc, uint64_t gpa);
void instrument_free(struct tcg_note *n);
/* Drops all code, so that new blocks are made as the flags now say: begins and ends an exclusive section. */
void instrument_change(struct tcg_vm *t, void (*change)(void *arg), void *arg);

/* trace.c, the vCPU's thread */
bool trace_wants(const struct tcg_vm *t, uint64_t pc);
void trace_block(struct tcg_vcpu *v, const struct tcg_note *n);
void trace_exception(struct tcg_vcpu *v, uint32_t cause, uint64_t tval);
void trace_interrupt(struct tcg_vcpu *v, uint64_t pc);
void trace_mmio(struct tcg_vcpu *v, bool write, uint64_t gpa, unsigned size, uint64_t value);
void trace_done(struct tcg_vm *t);

/* coverage.c */
void cover_block(struct tcg_vcpu *v, const struct tcg_note *n);
void coverage_done(struct tcg_vm *t);

/* plugin.c */
bool plugin_calls(const struct tcg_vm *t); /* some plugin wants to see blocks */
void plugin_block(struct tcg_vcpu *v, struct tcg_trans *t,
                  struct tcg_note *n); /* asks plugins what they want */
void plugin_call_run(struct tcg_vcpu *v, const struct note_call *c);
void plugin_call_memory(struct tcg_vcpu *v, const struct note_call *c, uint64_t va,
                        unsigned what);
void plugin_trap(struct tcg_vcpu *v, uint64_t pc, uint32_t cause, bool interrupt);
void plugins_done(struct tcg_vm *t);
enum { ACCESS_STORE = 0x100, ACCESS_LOAD = 0x200 }; /* or-ed with the bytes */

/* perfmap.c, tcg_vm.lock held */
void perfmap_block(struct tcg_vm *t, const struct tcg_block *b, const char *kind, uint64_t at);
void perfmap_done(struct tcg_vm *t);

#endif
