/* SPDX-License-Identifier: Apache-2.0 */
/*
 * RISC-V for the core: the state table of a hart, reset, start, interrupt inputs and the
 * stimecmp timer. Owns the parts of struct riscv_cpu that outlive a reset.
 */
#include "engine/arch/riscv/corenote.h"
#include "engine/arch/riscv/cpu.h"
#include "engine/arch/riscv/features.h"
#include "engine/arch/riscv/gdb.h"
#include "engine/arch/riscv/pmu.h"
#include "engine/arch/riscv/vector.h"
#include "engine/core/clock.h"
#include "engine/core/state.h"
#include "engine/core/vm.h"

#include <elf.h>
#include <errno.h>
#include <string.h>

#define NS_PER_TICK (1000000000u / RISCV_TIMEBASE_HZ)
#define STIP (1ull << RISCV_IRQ_STI)
#define PMP_A (3u << 3)

/* ---- saved state ---- */

#define CPU(member, kind, doc) ST_FIELD(struct riscv_cpu, member, kind, 1, doc)
#define CPU_V(member_, kind_, n_, reset_, doc_)                                                \
    {                                                                                          \
        .name = #member_, .kind = (kind_), .offset = offsetof(struct riscv_cpu, member_),      \
        .count = (n_), .since = 2, .flags = ST_OPTIONAL, .reset = (reset_), .doc = (doc_)      \
    }
#define CPU_N(member, kind, n, doc) ST_ARRAY(struct riscv_cpu, member, kind, n, 1, doc)

static const struct st_field fields[] = {
    CPU(xlen, ST_U8, "width of the x registers: 32 or 64"),
    CPU_N(x, ST_U64, 32, "integer registers, sign-extended"),
    CPU_N(f, ST_U64, 32, "floating-point registers, singles NaN-boxed"),
    CPU(pc, ST_U64, "program counter"),
    CPU(res_addr, ST_U64, "LR reservation, all ones: none"),
    CPU(res_value, ST_U64, "value LR loaded"),
    CPU(fflags, ST_U8, "accrued floating-point exceptions"),
    CPU(frm, ST_U8, "dynamic rounding mode"),
    CPU(priv, ST_U8, "privilege: 0 user, 1 supervisor, 3 machine"),
    CPU(mstatus, ST_U64, "machine status; RV32: mstatush in the high half"),
    CPU(misa, ST_U64, "ISA and width"),
    CPU(medeleg, ST_U64, "delegated exceptions"),
    CPU(mideleg, ST_U64, "delegated interrupts"),
    CPU(mie, ST_U64, "interrupt enables"),
    CPU(mip, ST_U64, "software-set pending interrupts"),
    CPU(mtvec, ST_U64, "machine trap vector"),
    CPU(mcounteren, ST_U64, "counters open to supervisor mode"),
    CPU(mscratch, ST_U64, "machine scratch register"),
    CPU(mepc, ST_U64, "machine exception pc"),
    CPU(mcause, ST_U64, "machine trap cause"),
    CPU(mtval, ST_U64, "machine trap value"),
    CPU(menvcfg, ST_U64, "machine environment configuration"),
    CPU(mcountinhibit, ST_U64, "stopped counters"),
    CPU(stvec, ST_U64, "supervisor trap vector"),
    CPU(scounteren, ST_U64, "counters open to user mode"),
    CPU(sscratch, ST_U64, "supervisor scratch register"),
    CPU(sepc, ST_U64, "supervisor exception pc"),
    CPU(scause, ST_U64, "supervisor trap cause"),
    CPU(stval, ST_U64, "supervisor trap value"),
    CPU(satp, ST_U64, "address translation and protection"),
    CPU(senvcfg, ST_U64, "supervisor environment configuration"),
    CPU(stimecmp, ST_U64, "supervisor timer compare, ticks"),
    CPU_N(pmpcfg, ST_U8, RISCV_PMP_COUNT, "physical memory protection: configuration"),
    CPU_N(pmpaddr, ST_U64, RISCV_PMP_COUNT, "physical memory protection: addresses"),
    CPU(cycle_offset, ST_U64, "mcycle minus its base"),
    CPU(instret_offset, ST_U64, "minstret minus its base"),
    CPU_N(hpmevent, ST_U64, 32, "events of the counters, by number; overflow at the top"),
    CPU_N(hpmcounter, ST_U64, 32, "event counters, by number, as of their bases"),
    CPU(hpm_cycle_base, ST_U64, "virtual time at which the event counters were up to date"),
    CPU(hpm_instret_base, ST_U64, "instructions retired by then"),
    CPU_N(mstateen, ST_U64, 4, "extension state that lower privileges may use"),
    CPU(mseccfg, ST_U64, "machine security configuration"),
    CPU_V(vstart, ST_U64, 1, 0, "first vector element to execute"),
    CPU_V(vl, ST_U64, 1, 0, "vector length in elements"),
    CPU_V(vtype, ST_U64, 1, RISCV_VTYPE_VILL, "vector type; vill in bit 63"),
    CPU_V(vxrm, ST_U8, 1, 0, "fixed-point rounding mode"),
    CPU_V(vxsat, ST_U8, 1, 0, "fixed-point saturation flag"),
    CPU_V(v, ST_BYTES, 32 * RISCV_VLENB_MAX, 0, "vector registers, side by side"),
    ST_END,
};

static uint8_t count_pmp(const struct riscv_cpu *c)
{
    uint8_t used = 0;
    for (unsigned i = 0; i < RISCV_PMP_COUNT; i++) {
        if (c->pmpcfg[i] & PMP_A) {
            used = (uint8_t)(i + 1);
        }
    }
    return used;
}

static bool vector_ok(const struct riscv_cpu *c)
{
    bool type_ok = c->vtype == RISCV_VTYPE_VILL || riscv_vtype_ok(c, c->vtype);

    return type_ok && c->vl <= riscv_vlmax(c->vtype, c->vlenb) && c->vxrm < 4 &&
           c->vxsat < 2 && (c->vlenb ? c->vstart < 8u * c->vlenb : c->vstart == 0);
}

static int loaded(void *obj, struct err *e)
{
    struct riscv_cpu *c = obj;
    unsigned xlen = c->vcpu->vm->arch == &riscv32_arch ? 32 : 64;
    if (c->xlen != xlen) {
        return err_set(e, -EINVAL, "hart %u: xlen cannot be %u on this machine", c->vcpu->index,
                       c->xlen);
    }
    if (c->priv > RISCV_M || c->priv == 2 || c->frm > 7 || c->fflags > 31 || c->x[0] != 0) {
        return err_set(e, -EINVAL, "hart %u: priv, frm, fflags or x0 hold an impossible value",
                       c->vcpu->index);
    }
    if (!vector_ok(c)) {
        return err_set(e, -EINVAL, "hart %u: vtype, vl, vstart or vxrm hold an impossible value",
                       c->vcpu->index);
    }
    c->pmp_used = count_pmp(c);
    riscv_vkey_update(c);
    riscv_stimecmp_changed(c);
    riscv_pmu_loaded(c);
    return 0;
}

static const struct st_table state_table = {
    .name = "riscv-hart", .version = 2, .fields = fields, .loaded = loaded
};

/* ---- interrupts and time ---- */

uint64_t riscv_mip(const struct riscv_cpu *c)
{
    uint64_t inputs = atomic_load(&c->vcpu->irq_level);
    if (c->menvcfg & MENVCFG_STCE) {
        return inputs | (c->mip & ~STIP);
    }
    return (inputs & ~STIP) | c->mip;
}

uint64_t riscv_time(const struct vcpu *v)
{
    const struct riscv_cpu *c = v->cpu;
    return clock_now(v->vm->clock) / NS_PER_TICK +
           atomic_load_explicit(&((struct riscv_cpu *)(uintptr_t)c)->time_offset, memory_order_relaxed);
}

/* Sets the input for a stimecmp value; arms the timer when that lies ahead, on the tick and not a distance from now. */
static void set_stip(struct riscv_cpu *c, uint64_t at)
{
    uint64_t now = riscv_time(c->vcpu), now_ns = clock_now(c->vcpu->vm->clock);
    bool passed = at != UINT64_MAX && now >= at;
    vcpu_irq_set(c->vcpu, RISCV_IRQ_STI, passed);
    /* Armed after the input was lowered, so that a timer that fires at once comes last. */
    uint64_t wait = at - now;
    bool arm = !passed && at != UINT64_MAX && wait < (UINT64_MAX - now_ns) / NS_PER_TICK;
    vtimer_arm(c->stimer, arm ? (now_ns / NS_PER_TICK + wait) * NS_PER_TICK : UINT64_MAX);
}

/* The timer's thread, while the hart may be giving stimer_at a new value: if it changed after we
 * read it, our level may have come after the hart's, so it is worked out again. */
static void on_stimer(void *arg)
{
    struct riscv_cpu *c = arg;
    uint64_t at, now_at = atomic_load(&c->stimer_at);
    do {
        at = now_at;
        set_stip(c, at);
        now_at = atomic_load(&c->stimer_at);
    } while (now_at != at);
}

void riscv_stimecmp_changed(struct riscv_cpu *c)
{
    uint64_t at = c->menvcfg & MENVCFG_STCE ? c->stimecmp : UINT64_MAX;
    atomic_store(&c->stimer_at, at);
    set_stip(c, at);
}

void riscv_time_set_offset(struct vm *vm, uint64_t ticks)
{
    for (unsigned i = 0; i < vm->n_vcpus; i++) {
        struct riscv_cpu *c = vm->vcpus[i]->cpu;
        if (atomic_exchange(&c->time_offset, ticks) != ticks && atomic_load(&c->stimer_at) != UINT64_MAX) {
            vtimer_arm(c->stimer, 0); /* its thread works it out anew */
        }
    }
}

static bool cpu_has_work(struct vcpu *v)
{
    const struct riscv_cpu *c = v->cpu;
    return (riscv_mip(c) & c->mie) != 0;
}

/* ---- life ---- */

static int init_hart(struct vcpu *v, const char *model, unsigned xlen, struct err *e)
{
    struct riscv_cpu *c = v->cpu;
    struct riscv_features features;
    int ret = riscv_features_parse(model && *model ? model : "max", xlen, &features, e);
    if (ret < 0) {
        return ret;
    }
    c->vcpu = v;
    c->hartid = v->index;
    c->features = features;
    c->vlenb = features.vlen / 8;
    c->velen = RISCV_HAS(features, RISCV_EXT_ZVE64X) ? 3 : 2;
    c->xlen = (uint8_t)xlen;
    atomic_init(&c->stimer_at, UINT64_MAX);
    c->stimer = vtimer_new(v->vm->clock, on_stimer, c);
    riscv_pmu_init(c);
    return 0;
}

static int init64(struct vcpu *v, const char *model, struct err *e)
{
    return init_hart(v, model, 64, e);
}

static int init32(struct vcpu *v, const char *model, struct err *e)
{
    return init_hart(v, model, 32, e);
}

static void cpu_done(struct vcpu *v)
{
    struct riscv_cpu *c = v->cpu;
    vtimer_free(c->stimer);
    c->stimer = NULL;
    riscv_pmu_done(c);
}

/* Privileged 1.12 §3.4: machine mode, MIE and MPRV 0; all else is ours to choose. */
static void cpu_reset(struct vcpu *v)
{
    struct riscv_cpu *c = v->cpu;
    /* Everything up to the fields that cpu_init set. */
    uint8_t xlen = c->xlen;
    memset(c, 0, offsetof(struct riscv_cpu, vcpu));
    c->xlen = xlen;
    c->pmp_used = 0;
    c->priv = RISCV_M;
    c->res_addr = UINT64_MAX;
    c->misa = riscv_misa(&c->features, xlen);
    if (xlen == 64) {
        uint64_t u = RISCV_HAS(c->features, RISCV_EXT_U) ? 2ull << 32 : 0;
        uint64_t s = RISCV_HAS(c->features, RISCV_EXT_S) ? 2ull << 34 : 0;
        c->mstatus = u | s; /* UXL, SXL: 64 */
    }
    c->stimecmp = UINT64_MAX;
    c->vtype = RISCV_VTYPE_VILL;
    riscv_vkey_update(c);
    /* A device tree with svadu and without svade says that hardware updates are on from the
     * start. */
    bool adue = RISCV_HAS(c->features, RISCV_EXT_SVADU) &&
                !RISCV_HAS(c->features, RISCV_EXT_SVADE);
    c->menvcfg = adue ? MENVCFG_ADUE : 0;
    riscv_stimecmp_changed(c);
    riscv_pmu_pending(c, false);
    riscv_pmu_loaded(c);
}

static void cpu_boot(struct vcpu *v, uint64_t pc, uint64_t arg0, uint64_t arg1, uint64_t arg2)
{
    struct riscv_cpu *c = v->cpu;
    c->pc = pc;
    c->x[10] = arg0;
    c->x[11] = arg1;
    c->x[12] = arg2;
    if (c->xlen == 32) {
        c->pc = (uint32_t)pc;
        for (unsigned i = 10; i <= 12; i++) {
            c->x[i] = (uint64_t)(int64_t)(int32_t)c->x[i];
        }
    }
}
const struct arch_ops riscv64_arch = {
    .name = "riscv64",
    .cpu_size = sizeof(struct riscv_cpu),
    .state = &state_table,
    .max_vcpus = 64,
    .gdb = &riscv_gdb,
    .cpu_reset = cpu_reset,
    .cpu_init = init64,
    .cpu_done = cpu_done,
    .cpu_has_work = cpu_has_work,
    .cpu_boot = cpu_boot,
    .elf_machine = EM_RISCV,
    .elf64 = true,
    .core_notes = riscv_core_notes,
};

const struct arch_ops riscv32_arch = {
    .name = "riscv32",
    .cpu_size = sizeof(struct riscv_cpu),
    .state = &state_table,
    .max_vcpus = 64,
    .gdb = &riscv_gdb,
    .cpu_reset = cpu_reset,
    .cpu_init = init32,
    .cpu_done = cpu_done,
    .cpu_has_work = cpu_has_work,
    .cpu_boot = cpu_boot,
    .elf_machine = EM_RISCV,
    .core_notes = riscv_core_notes,
};
