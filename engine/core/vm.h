/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A virtual machine inside its emulator process: everything hangs from struct vm. The main
 * thread (the loop's) owns it; vCPU threads run under it; requests from any thread come in
 * through vm_request().
 */
#ifndef VMD_CORE_VM_H
#define VMD_CORE_VM_H

#include "engine/base/list.h"
#include "engine/base/loop.h"
#include "engine/core/clock.h"
#include "engine/core/engine.h"
#include "engine/core/irq.h"
#include "engine/core/mem.h"
#include "engine/core/vcpu.h"

struct device;
struct gdb_arch;
struct replay;
struct st_table;
struct vm_door;

/* An instruction-set architecture as the core sees it. Engine-neutral. */
struct arch_ops {
    const char *name; /* "riscv64" */
    size_t cpu_size;  /* of the architectural state */
    const struct st_table *state;
    unsigned max_vcpus;
    const struct gdb_arch *gdb; /* or NULL: cannot be debugged */
    /* Power-on state. Main thread, before start or paused. */
    void (*cpu_reset)(struct vcpu *c);
    /* Once after the engine allocated vcpu->cpu: what outlives a reset (hart id, features,
     * timers). cpu_model as in the config ("max", "rv64"). */
    int (*cpu_init)(struct vcpu *c, const char *cpu_model, struct err *e);
    void (*cpu_done)(struct vcpu *c);
    /* Would an interrupt or event end WFI? Any thread holding c->lock; reads c->irq_level
     * and cpu. */
    bool (*cpu_has_work)(struct vcpu *c);
    /* Sets where a vCPU starts and its argument registers: riscv a0 = arg0, a1 = arg1, a2 =
     * arg2. Applied again after each reset by the board. */
    void (*cpu_boot)(struct vcpu *c, uint64_t pc, uint64_t arg0, uint64_t arg1, uint64_t arg2);
    /* ELF cores of the guest (core_image.h): e_machine, ELFCLASS64 or 32, and what is said of a vCPU whose
     * registers were got. Main thread, at the barrier. */
    uint16_t elf_machine;
    bool elf64;
    void (*core_notes)(struct vcpu *c, struct buf *out);
};

enum vm_state { VM_PAUSED, VM_RUNNING, VM_STOPPED };
enum vm_request {
    VM_REQ_POWEROFF = 1,
    VM_REQ_RESET = 2,
    VM_REQ_CRASH = 4,
    VM_REQ_DEBUG = 8,
    VM_REQ_PANIC = 16,
    VM_REQ_REMAP = 32, /* device_class.remap: registers that say where memory is were written */
    VM_REQ_SLEEP = 64, /* the guest sleeps in RAM (ACPI's S3) */
    VM_REQ_WAKE = 128  /* vm_wake() */
};
/* What a panic of the guest does: ends the VM as its power-off does, pauses it, nothing. */
enum vm_panic { VM_PANIC_END, VM_PANIC_PAUSE, VM_PANIC_NONE };

struct vm {
    char *name;
    char uuid[37];
    const struct arch_ops *arch;
    const struct engine_ops *engine;
    void *engine_data;
    /* const struct tcg_config * or NULL; set by the builder before vm_init */
    void *engine_config;
    struct loop *loop; /* main loop, borrowed */
    struct clock *clock;
    struct mem_region *root; /* the guest physical address space */
    struct mem_space *mem;
    /* the port I/O space of architectures that have one: 64 KiB, I/O regions only; others leave it empty */
    struct mem_region *port_root;
    struct mem_space *ports;
    /* where the board takes message-signalled interrupts; send NULL: nowhere */
    struct irq_msi msi;
    /* interrupt controllers of a PC that ask to be told by engines with local APICs of their own; NULL: none. On a vCPU's
     * thread. ack: the vector of a pending legacy interrupt, -1: none; eoi: a level-triggered vector was served. */
    struct {
        int (*ack)(void *opaque);
        void (*eoi)(void *opaque, unsigned vector);
        void *opaque;
    } extint;
    struct list devices; /* struct device.node, in realize order */
    unsigned n_vcpus;
    unsigned n_vcpus_wanted; /* how many there will be; set before the first is made */
    struct vcpu **vcpus;
    enum vm_state state;       /* main thread */
    _Atomic unsigned requests; /* enum vm_request bits not yet served */
    _Atomic(const char *) request_reason;
    struct replay *replay; /* replay.h; NULL: it is neither recorded nor replayed */
    struct vm_door *door;  /* posts of vm_request() that are under way */
    bool started;          /* vCPU threads exist */
    bool settled;          /* a state was saved or loaded while it stood still */
    /* What a reset and a power-off of the guest do; main thread. */
    bool reset_ends;     /* a reset is as a power-off */
    bool end_pauses;     /* a power-off leaves it paused, to be looked at or reset */
    enum vm_panic panic; /* and a panic */
    /* Called on the main thread when a guest has panicked, before what comes of it; or NULL. */
    void (*on_panic)(void *arg, enum vm_panic what);
    bool ended; /* paused by that: runs no more before a reset */
    /* The guest sleeps in RAM: no vCPU runs before vm_wake() or a reset, while the clock goes on; main thread. */
    bool asleep;
    bool waking;          /* during the reset by which it wakes: what outlives sleep is kept */
    char stop_reason[64]; /* "guest-poweroff", "guest-reset", "crash: ..." */
    /* Asked before it runs (again); negative: it stays paused, and the reason is logged. NULL: it may. */
    int (*may_run)(void *arg, struct err *e); /* arg: of on_state */
    /* Called on the main thread when the state changes (control socket, tests). */
    void (*on_state)(void *arg, enum vm_state state, const char *reason);
    void *on_state_arg; /* of on_panic, too */
    /* Called on each vCPU's own thread before its first guest instruction (the sandbox); or
     * NULL. */
    void (*on_vcpu_thread)(void *arg, struct vcpu *c);
    void *on_vcpu_thread_arg;
    /* The debugger's (gdb.c), on the main thread when a vCPU left guest code with
     * VCPU_EXIT_DEBUG: the VM has been paused (on_state says "debug"). */
    void (*on_debug)(void *arg);
    void *on_debug_arg;
    /* Board's hook, called after devices and CPUs were reset: reloads firmware and kernel,
     * sets start addresses. */
    void (*on_reset)(void *arg);
    void *on_reset_arg;
};

/* Makes an empty VM: clock stopped, no vCPU yet, root container of 2^56 bytes. Main thread,
 * as all below unless said. */
int vm_new(const char *name, const struct arch_ops *arch, const struct engine_ops *engine,
           struct loop *loop, void *engine_config, struct vm **out, struct err *e);
/* Makes the vCPUs (threads start at vm_start). */
int vm_add_vcpus(struct vm *vm, unsigned n, const char *cpu_model, struct err *e);
/* Commits memory, resets everything (vm_reset), starts the threads paused. */
int vm_start(struct vm *vm, struct err *e);
void vm_resume(struct vm *vm); /* VM_PAUSED -> VM_RUNNING; clock goes on */
/* on_state reasons of these two: "resume", "pause". Pausing what is paused does nothing, nor
 * resuming what runs, has stopped or has `ended`. Pause barrier: returns when every vCPU has left guest
 * code and the clock stands. Nothing changes guest state until vm_resume. Bounded by the
 * longest slow path of an engine. */
void vm_pause(struct vm *vm);
/* Runs fn(arg) with every vCPU out of guest code and the clock standing. The state does not change, nobody is told. */
void vm_at_barrier(struct vm *vm, void (*fn)(void *arg), void *arg);
/* Resets devices, CPUs, then on_reset; pauses and resumes around itself when running. */
void vm_reset(struct vm *vm);
/* Wakes a guest that sleeps in RAM: a reset that leaves RAM alone, and with vm->waking what devices keep; its firmware does the rest. Nothing when it does not sleep. on_state tells
 * "suspended" when it falls asleep, and "wakeup". */
void vm_wake(struct vm *vm);
/* What a saved state says of it. At the barrier. */
void vm_set_asleep(struct vm *vm, bool asleep);
/* Stops and joins the vCPU threads; state VM_STOPPED. */
void vm_stop(struct vm *vm, const char *reason);
/* Stops the threads and frees the devices, for who must do something between them and the rest. */
void vm_free_devices(struct vm *vm);
/* Every device puts its regions where its registers say (device_class.remap); then memory is committed. Main thread, vCPUs at the barrier or not started. */
void vm_remap(struct vm *vm);
void vm_free(struct vm *vm);
/* Forgets stops for the debugger that were not told yet. Main thread, at the barrier. */
void vm_debug_clear(struct vm *vm);
/* Any thread (devices, engines): asks the main thread to power off, reset or crash the VM.
 * `reason` is a literal. A calling vCPU leaves guest code soon and runs none before the
 * request was served. Power-off and crash end in vm_stop(), a power-off with `end_pauses` in
 * VM_PAUSED; a remap ends in vm_remap() before the caller's next instruction; a reset calls on_state with the state it found and "guest-reset". A crash is an end
 * whatever the flags say. */
void vm_request(struct vm *vm, enum vm_request what, const char *reason);

#endif
