/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A hart without a translator, for tests of the system half of the RISC-V guest: memory, a clock that stands still, and
 * stand-ins for the translator's services that record what was asked. One thread; one hart at a time.
 */
#ifndef VMD_TESTS_ISA_RISCV_HART_H
#define VMD_TESTS_ISA_RISCV_HART_H

#include "engine/core/mem.h"
#include "engine/core/vm.h"
#include "engine/tcg/guest_riscv/helper.h"
#include "engine/tcg/guest_riscv/sys.h"
#include "tests/lib/testing.h"

#include <setjmp.h>

#define RAM_BASE 0x80000000ull
#define RAM_SIZE (16u << 20)

/* What the translator was asked since the hart started. A helper that raises or halts jumps to `out`. */
struct seen {
    int mode_changed, flush_all, flush_asid, flush_page, flush_page_asid, interrupt_check,
        halted;
    uint64_t asid, va;
    uint32_t cause;
    uint64_t tval;
    jmp_buf out;
};

extern struct seen seen;
extern struct vm vm;
extern struct vcpu vcpu;
extern struct riscv_cpu cpu;
extern uint8_t *host;        /* RAM */
extern uint64_t memory_word; /* what every guest load reads and every guest swap writes */

/* Fixtures: after reset, in machine mode. */
void hart_start64(void);
void hart_start32(void);
void hart_stop(void);

enum { CSRRW = 1, CSRRS = 2, CSRRC = 3 };

/* Runs one CSR instruction; false: illegal instruction. old may be NULL. */
bool csr_op(unsigned op, unsigned csr, uint64_t operand, uint64_t *old);
bool csr_readable(unsigned csr, uint64_t *value);
/* These fail the test when the instruction is illegal. */
uint64_t csr_get(unsigned csr);
void csr_set_to(unsigned csr, uint64_t value);

#endif
