/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See pmu.h. The interrupt comes by a timer set to the next overflow; what overflowed is found at the next sync. LCOFIP is the
 * interrupt input 13 or a bit of mip that survives a snapshot.
 */
#include "engine/arch/riscv/pmu.h"
#include "engine/arch/riscv/cpu.h"
#include "engine/core/clock.h"
#include "engine/core/vcpu.h"
#include "engine/core/vm.h"

#define LCOFIP (1ull << RISCV_IRQ_LCOFI)
/* Farther than this nobody waits for an overflow: 2^62 ns. */
#define FAR (1ull << 62)

static uint64_t now_ns(const struct riscv_cpu *c)
{
    return clock_now(c->vcpu->vm->clock);
}

/* Main thread. A deadline that was moved meanwhile is none any more. */
static void on_overflow(void *arg)
{
    struct riscv_cpu *c = arg;

    if (now_ns(c) >= atomic_load(&c->hpm_overflow_at)) {
        vcpu_irq_set(c->vcpu, RISCV_IRQ_LCOFI, true);
    }
}

void riscv_pmu_init(struct riscv_cpu *c)
{
    atomic_init(&c->hpm_overflow_at, UINT64_MAX);
    c->hpm_timer = vtimer_new(c->vcpu->vm->clock, on_overflow, c);
}

void riscv_pmu_done(struct riscv_cpu *c)
{
    vtimer_free(c->hpm_timer);
    c->hpm_timer = NULL;
}

void riscv_pmu_pending(struct riscv_cpu *c, bool pending)
{
    c->mip = pending ? c->mip | LCOFIP : c->mip & ~LCOFIP;
    vcpu_irq_set(c->vcpu, RISCV_IRQ_LCOFI, pending);
}

static bool counts(const struct riscv_cpu *c, unsigned i)
{
    static const uint64_t inhibit[] = {
        [RISCV_U] = HPMEVENT_UINH, [RISCV_S] = HPMEVENT_SINH, [RISCV_M] = HPMEVENT_MINH
    };
    uint64_t event = c->hpmevent[i] & HPMEVENT_SELECT;

    return (event == RISCV_EVENT_CYCLES || event == RISCV_EVENT_INSTRET) &&
           !(c->mcountinhibit >> i & 1) && !(c->hpmevent[i] & inhibit[c->priv]);
}

/* Which counters count in this mode, and whether another mode has others. */
static void find_active(struct riscv_cpu *c)
{
    c->hpm_active = 0;
    c->hpm_by_mode = false;
    for (unsigned i = 3; i < 32; i++) {
        c->hpm_active |= (uint32_t)counts(c, i) << i;
        c->hpm_by_mode |= (c->hpmevent[i] & HPMEVENT_SELECT) &&
                          (c->hpmevent[i] & (HPMEVENT_MINH | HPMEVENT_SINH | HPMEVENT_UINH));
    }
}

static bool is_instret(const struct riscv_cpu *c, unsigned i)
{
    return (c->hpmevent[i] & HPMEVENT_SELECT) == RISCV_EVENT_INSTRET;
}

void riscv_pmu_sync(struct riscv_cpu *c, uint64_t retired)
{
    uint64_t now, cycles, instret;
    bool overflow = false;

    if (!c->hpm_active) {
        return;
    }
    now = now_ns(c);
    cycles = now - c->hpm_cycle_base;
    instret = retired - c->hpm_instret_base;
    c->hpm_cycle_base = now;
    c->hpm_instret_base = retired;
    for (unsigned i = 3; i < 32; i++) {
        if (!(c->hpm_active >> i & 1)) {
            continue;
        }
        uint64_t old = c->hpmcounter[i];
        c->hpmcounter[i] = old + (is_instret(c, i) ? instret : cycles);
        if (c->hpmcounter[i] < old && !(c->hpmevent[i] & HPMEVENT_OF)) {
            c->hpmevent[i] |= HPMEVENT_OF;
            overflow = true;
        }
    }
    if (overflow && RISCV_HAS(c->features, RISCV_EXT_SSCOFPMF)) {
        riscv_pmu_pending(c, true);
    }
}

/* Sets the timer to the first overflow that is to be told. */
static void arm(struct riscv_cpu *c)
{
    uint64_t wait = FAR;

    for (unsigned i = 3; i < 32 && RISCV_HAS(c->features, RISCV_EXT_SSCOFPMF); i++) {
        if ((c->hpm_active >> i & 1) && !(c->hpmevent[i] & HPMEVENT_OF)) {
            uint64_t left = 0 - c->hpmcounter[i]; /* 0: a whole round */
            wait = left && left < wait ? left : wait;
        }
    }
    uint64_t at = wait < FAR ? c->hpm_cycle_base + wait : UINT64_MAX;
    if (at != atomic_load(&c->hpm_overflow_at)) {
        atomic_store(&c->hpm_overflow_at, at);
        vtimer_arm(c->hpm_timer, at);
    }
}

void riscv_pmu_update(struct riscv_cpu *c, uint64_t retired)
{
    find_active(c);
    if (c->hpm_active) {
        c->hpm_cycle_base = now_ns(c);
        c->hpm_instret_base = retired;
    }
    arm(c);
}

void riscv_pmu_loaded(struct riscv_cpu *c)
{
    find_active(c);
    atomic_store(&c->hpm_overflow_at, UINT64_MAX);
    vtimer_arm(c->hpm_timer, UINT64_MAX);
    arm(c);
}
