/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmd/plugin.h: the interface between vmd-emu and plugins, shared objects that see what a guest executes. It stands alone: nothing of vmd's insides is
 * in it. docs/guide/plugins.md is the guide.
 *
 * A plugin exports vmd_plugin_init(). It is called once, on the main thread, before the guest runs and before the sandbox closes; files that the plugin
 * needs are opened there. Later nothing can be opened, and most system calls end the process: write to descriptors that are open, use
 * memory, take locks.
 *
 * Functions of a plugin are called on the vCPU's thread, of several vCPUs at the same time, unless said otherwise; a block is shown to one thread at a
 * time. They must not call longjmp or end the thread.
 */
#ifndef VMD_PLUGIN_H
#define VMD_PLUGIN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Grows when members are added at the end of the structs below. */
#define VMD_PLUGIN_VERSION 1

struct vmd_plugin; /* this plugin, for vmd */
struct vmd_block;  /* a block being translated; good inside the call that was given it */

/* An instruction of a block. Pointers are good inside that call. */
struct vmd_insn {
    uint64_t pc;          /* guest virtual address at which the block was met; others may map the same code elsewhere */
    uint64_t gpa;         /* guest physical address */
    const uint8_t *bytes; /* `size` of them, as in memory */
    unsigned size;
    const char *text;     /* disassembly: "addi a0,a0,1" */
};

/* A data access that succeeded. */
struct vmd_access {
    uint64_t address; /* guest virtual */
    unsigned size;    /* bytes: 1, 2, 4, 8 */
    bool load, store; /* both: an atomic */
};

typedef void vmd_block_fn(void *user, struct vmd_block *b);
typedef void vmd_run_fn(void *user, unsigned vcpu);
typedef void vmd_access_fn(void *user, unsigned vcpu, const struct vmd_access *a);
/* pc: of the instruction that was interrupted or that raised; cause as the architecture numbers it (0 for interrupts whose number is
 * in a register: look at the guest's). */
typedef void vmd_trap_fn(void *user, unsigned vcpu, uint64_t pc, uint32_t cause, bool interrupt);
typedef void vmd_vcpu_fn(void *user, unsigned vcpu);
typedef void vmd_exit_fn(void *user);

struct vmd_plugin_api {
    unsigned version; /* VMD_PLUGIN_VERSION of the emulator */
    const char *arch; /* of the guest: "riscv64" */
    unsigned vcpus;   /* how many there are; functions are told an index below it */

    /* In vmd_plugin_init() only; each at most once. `user` is given back with each call. */
    void (*on_block)(struct vmd_plugin *p, vmd_block_fn *fn, void *user); /* a block was translated */
    void (*on_trap)(struct vmd_plugin *p, vmd_trap_fn *fn, void *user);   /* an exception or interrupt is delivered */
    void (*on_vcpu)(struct vmd_plugin *p, vmd_vcpu_fn *fn, void *user);   /* a vCPU begins to run; its thread */
    void (*on_exit)(struct vmd_plugin *p, vmd_exit_fn *fn, void *user);   /* all vCPUs have ended; main thread */

    /* In a vmd_block_fn only. A block may be translated several times, and code that was dropped comes again. */
    size_t (*insns)(const struct vmd_block *b);
    void (*insn)(const struct vmd_block *b, size_t i, struct vmd_insn *out);
    /* fn before the block runs; before instruction i runs; after each access of instruction i. Only what is asked for here
     * costs anything when the block runs. */
    void (*call_block)(struct vmd_block *b, vmd_run_fn *fn, void *user);
    void (*call_insn)(struct vmd_block *b, size_t i, vmd_run_fn *fn, void *user);
    void (*call_access)(struct vmd_block *b, size_t i, vmd_access_fn *fn, void *user);

    /* A line in the emulator's log, from any thread. */
    void (*print)(struct vmd_plugin *p, const char *text);
};

/* What a plugin exports. args: those of --plugin FILE,arg,arg; they and the api stay valid until the end. Not 0: the plugin cannot work, and
 * the emulator does not start. */
int vmd_plugin_init(const struct vmd_plugin_api *api, struct vmd_plugin *self, int n_args, char **args);

#ifdef __cplusplus
}
#endif
#endif
