/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See riscv_hart.h.
 */
#include "tests/isa/riscv_hart.h"

#include "engine/base/loop.h"
#include "engine/core/clock.h"

/* ---- recording stand-ins for the translator ---- */

struct seen seen;

_Noreturn void tcg_raise(void *hart, uint32_t cause, uint64_t tval)
{
    (void)hart;
    seen.cause = cause;
    seen.tval = tval;
    longjmp(seen.out, 1);
}

void tcg_deliver(void *hart, uint32_t cause, uint64_t tval)
{
    tcg_raise(hart, cause, tval);
}

_Noreturn void tcg_halt(void *hart)
{
    (void)hart;
    seen.halted++;
    longjmp(seen.out, 2);
}

void tcg_mode_changed(void *hart)
{
    (void)hart;
    seen.mode_changed++;
}

void tcg_flush_all(void *hart)
{
    (void)hart;
    seen.flush_all++;
}

void tcg_flush_asid(void *hart, uint64_t asid)
{
    (void)hart;
    seen.flush_asid++;
    seen.asid = asid;
}

void tcg_flush_page(void *hart, uint64_t va)
{
    (void)hart;
    seen.flush_page++;
    seen.va = va;
}

void tcg_flush_page_asid(void *hart, uint64_t va, uint64_t asid)
{
    (void)hart;
    seen.flush_page_asid++;
    seen.va = va;
    seen.asid = asid;
}

void tcg_interrupt_check(void *hart)
{
    (void)hart;
    seen.interrupt_check++;
}

void tcg_io_begin(void *hart)
{
    (void)hart;
}

bool tcg_counts(void *hart)
{
    (void)hart;
    return false;
}

uint64_t tcg_retired(void *hart)
{
    (void)hart;
    return 0;
}

uint64_t memory_word;

uint64_t tcg_ld(void *hart, uint64_t va, unsigned mo)
{
    (void)hart;
    (void)va;
    return mo & MO_SIGN ? (uint64_t)(int64_t)(int32_t)memory_word : memory_word;
}

void tcg_st(void *hart, uint64_t va, uint64_t v, unsigned mo)
{
    (void)hart;
    (void)va;
    (void)mo;
    memory_word = v;
}

uint64_t tcg_cas(void *hart, uint64_t va, uint64_t expect, uint64_t v, unsigned mo)
{
    uint64_t old = tcg_ld(hart, va, mo);
    if (old == expect) {
        memory_word = (mo & MO_SIZE) == MO_32 ? (uint32_t)v : v;
    }
    return old;
}

void tcg_cas16(void *hart, uint64_t va, const uint64_t expect[2], const uint64_t v[2],
               uint64_t old[2])
{
    old[0] = tcg_cas(hart, va, expect[0], v[0], MO_64);
    old[1] = 0;
}

/* ---- a hart ---- */

static void no_irq(struct vcpu *c)
{
    (void)c;
}

static const struct engine_ops no_engine = { .name = "none", .irq = no_irq, .kick = no_irq };
static struct loop *loop;
struct vm vm;
struct vcpu vcpu;
struct riscv_cpu cpu;
static struct mem_region *ram;
uint8_t *host;

static void start(const struct arch_ops *arch)
{
    struct err e = ERR_INIT;

    memset(&vm, 0, sizeof(vm));
    memset(&vcpu, 0, sizeof(vcpu));
    memset(&cpu, 0, sizeof(cpu));
    loop = loop_new(&e);
    ck_assert_ptr_nonnull(loop);
    vm.arch = arch;
    vm.engine = &no_engine;
    vm.clock = clock_new(loop, &e);
    vm.root = mem_new_container("root", 1ull << 56);
    ck_assert_int_eq(mem_new_ram("ram", RAM_SIZE, &ram, &e), 0);
    ck_assert_int_eq(mem_map(vm.root, RAM_BASE, 0, ram, &e), 0);
    vm.mem = mem_space_new(vm.root);
    mem_commit(vm.mem);
    host = mem_ram_host(ram);
    vcpu.vm = &vm;
    vcpu.cpu = &cpu;
    pthread_mutex_init(&vcpu.lock, NULL);
    pthread_cond_init(&vcpu.wake, NULL);
    ck_assert_int_eq(arch->cpu_init(&vcpu, "max", &e), 0);
    arch->cpu_reset(&vcpu);
    memset(&seen, 0, sizeof(seen));
}

void hart_start64(void)
{
    start(&riscv64_arch);
}

void hart_start32(void)
{
    start(&riscv32_arch);
}

void hart_stop(void)
{
    vm.arch->cpu_done(&vcpu);
    mem_space_free(vm.mem);
    mem_unmap(ram);
    mem_free(ram);
    mem_free(vm.root);
    clock_free(vm.clock);
    loop_free(loop);
}

bool csr_op(unsigned op, unsigned csr, uint64_t operand, uint64_t *old)
{
    uint64_t insn = (uint64_t)csr << 20 | 5 << 15 | op << 12 | 6 << 7 | 0x73;
    volatile uint64_t result = 0;

    if (setjmp(seen.out)) {
        ck_assert_uint_eq(seen.cause, RISCV_CAUSE_ILLEGAL);
        ck_assert_uint_eq(seen.tval, insn);
        return false;
    }
    result = op == CSRRW   ? riscv_csr_swap(&cpu, insn, operand, 0)
             : op == CSRRS ? riscv_csr_set(&cpu, insn, operand, 0)
                           : riscv_csr_clear(&cpu, insn, operand, 0);
    if (old) {
        *old = result;
    }
    return true;
}

bool csr_readable(unsigned csr, uint64_t *value)
{
    if (setjmp(seen.out)) {
        return false;
    }
    *value = riscv_csr_read(&cpu, (uint64_t)csr << 20 | 2 << 12 | 0x73, 0, 0);
    return true;
}

uint64_t csr_get(unsigned csr)
{
    uint64_t value = 0;
    ck_assert_msg(csr_readable(csr, &value), "CSR %#x cannot be read", csr);
    return value;
}

void csr_set_to(unsigned csr, uint64_t value)
{
    ck_assert_msg(csr_op(CSRRW, csr, value, NULL), "CSR %#x cannot be written", csr);
}
