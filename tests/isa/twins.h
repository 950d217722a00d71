/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Twins: two machines that share nothing, one for the host back end and one for the IR interpreter, that run the same
 * random program and must end alike. A trap handler at TWIN_HANDLER ends a program with a store to TWIN_STOP. One
 * thread; both machines use the one loop.
 */
#ifndef VMD_TESTS_ISA_TWINS_H
#define VMD_TESTS_ISA_TWINS_H

#include "engine/arch/riscv/cpu.h"
#include "engine/core/bus.h"
#include "engine/core/vm.h"
#include "engine/tcg/tcg.h"

#define TWIN_RAM UINT64_C(0x80000000)
#define TWIN_CODE (TWIN_RAM + 0x4000)
#define TWIN_DATA (TWIN_RAM + 0x8000)
#define TWIN_HANDLER (TWIN_RAM + 0x100)
#define TWIN_STOP UINT64_C(0x200)

struct twin {
    struct vm *vm;
    struct riscv_cpu *cpu;
    struct mem_region *low, *high, *stop;
    unsigned split, size; /* bytes of RAM in `low`, and in all */
    struct bus_lock lock;
    struct tcg_config config;
    bool ended; /* the program trapped and the handler said so */
};

/* A machine as `config` says, with one vCPU of `model` and `size` bytes of RAM; from `split` on it is another piece of
 * the host's memory, unless split is size. Ends the program when it cannot be made. */
void twin_make(struct twin *m, const struct arch_ops *arch, const char *model,
               const struct tcg_config *config, unsigned split, unsigned size,
               struct loop *loop);
void twin_free(struct twin *m);

/* RAM by offset; a piece must not cross `split`. */
uint8_t *twin_ram(const struct twin *m, unsigned at);
/* Lays the handler down. */
void twin_put_handler(struct twin *m);

/* The stream of random numbers that cases are made of: opaque is not used (isa_random's type). */
uint64_t twin_random(void *opaque);
/* Where the stream stands: a case is repeated by its seed and number. */
extern uint64_t twin_state;
void twin_begin_case(uint64_t seed, uint64_t number);

/* False, and says so, where a (of the host back end) differs from b. */
bool twin_same(const char *what, unsigned n, uint64_t a, uint64_t b);
/* Integer and floating-point registers, the trap's, and RAM. Reports each difference; of RAM the first. */
bool twins_alike(const struct twin *jit, const struct twin *interp);

#endif
