/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tests of vCPU threads and the life of a VM with an engine and an architecture made for the
 * purpose: the pause barrier, halting and wake-ups under load, resets and power-off asked
 * for by several vCPUs at once.
 */
#include "engine/base/mem.h"
#include "engine/core/device.h"
#include "engine/core/vm.h"
#include "tests/lib/testing.h"

#include <sched.h>

/* Interrupt inputs of the test architecture. */
enum { IN_WORK = 0, IN_PARTNER = 1 };

struct fake_cpu {
    /* Engine */
    _Atomic bool kicked;
    _Atomic bool in_guest; /* between the entry and the exit of run() */
    _Atomic uint64_t steps;
    _Atomic uint64_t irqs; /* engine->irq calls */
    /* written by the vCPU's thread and, paused, by the main thread: the sanitizer judges */
    uint64_t plain;
    unsigned resets;
    uint64_t boot_pc;
    /* What the guest does */
    void (*step)(struct vcpu *c, struct fake_cpu *f, enum vcpu_exit *why);
    _Atomic uint64_t served;
    void *arg;
};

static int fake_vcpu_init(struct vcpu *c, struct err *e)
{
    (void)e;
    c->cpu = xnew(struct fake_cpu);
    return 0;
}

static void fake_vcpu_done(struct vcpu *c)
{
    free(c->cpu);
    c->cpu = NULL;
}

#define NO_EXIT ((enum vcpu_exit) - 1)

static enum vcpu_exit fake_run(struct vcpu *c)
{
    struct fake_cpu *f = c->cpu;
    ck_assert_ptr_eq(vcpu_current(), c);
    atomic_store(&f->in_guest, true);
    enum vcpu_exit why = NO_EXIT;
    while (why == NO_EXIT) {
        if (atomic_exchange(&f->kicked, false)) {
            why = VCPU_EXIT_KICK;
            break;
        }
        f->plain++;
        atomic_fetch_add(&f->steps, 1);
        if (f->step) {
            f->step(c, f, &why);
        } else {
            sched_yield();
        }
    }
    atomic_store(&f->in_guest, false);
    return why;
}

static void fake_kick(struct vcpu *c)
{
    struct fake_cpu *f = c->cpu;
    atomic_store(&f->kicked, true);
}

static void fake_irq(struct vcpu *c)
{
    struct fake_cpu *f = c->cpu;
    atomic_fetch_add(&f->irqs, 1);
}

static const struct engine_ops fake_engine = {
    .name = "fake",
    .vcpu_init = fake_vcpu_init,
    .vcpu_done = fake_vcpu_done,
    .run = fake_run,
    .kick = fake_kick,
    .irq = fake_irq,
};

static void arch_reset(struct vcpu *c)
{
    struct fake_cpu *f = c->cpu;
    f->resets++;
    f->plain = 0;
}

static bool arch_has_work(struct vcpu *c)
{
    return atomic_load(&c->irq_level) != 0;
}

static void arch_boot(struct vcpu *c, uint64_t pc, uint64_t a0, uint64_t a1, uint64_t a2)
{
    (void)a0;
    (void)a1;
    (void)a2;
    struct fake_cpu *f = c->cpu;
    f->boot_pc = pc;
}

static const struct arch_ops fake_arch = {
    .name = "fake",
    .cpu_size = sizeof(struct fake_cpu),
    .max_vcpus = 8,
    .cpu_reset = arch_reset,
    .cpu_has_work = arch_has_work,
    .cpu_boot = arch_boot,
};

/* ---- a VM and what it told us ---- */

struct fixture {
    struct loop *loop;
    struct vm *vm;
    unsigned states, resets;
    enum vm_state state;
    char reason[64];
};

static void on_state(void *arg, enum vm_state state, const char *reason)
{
    struct fixture *x = arg;
    x->states++;
    x->state = state;
    snprintf(x->reason, sizeof(x->reason), "%s", reason);
}

static void on_reset(void *arg)
{
    struct fixture *x = arg;
    x->resets++;
    for (unsigned i = 0; i < x->vm->n_vcpus; i++) {
        x->vm->arch->cpu_boot(x->vm->vcpus[i], 0x80000000, i, 0, 0);
    }
}

static struct fake_cpu *cpu(struct fixture *x, unsigned i)
{
    return x->vm->vcpus[i]->cpu;
}

static void make(struct fixture *x, unsigned n,
                 void (*step)(struct vcpu *c, struct fake_cpu *f, enum vcpu_exit *why))
{
    struct err e = ERR_INIT;
    *x = (struct fixture){ .loop = loop_new(&e) };
    ck_assert_int_eq(vm_new("test", &fake_arch, &fake_engine, x->loop, NULL, &x->vm, &e), 0);
    x->vm->on_state = on_state;
    x->vm->on_state_arg = x;
    x->vm->on_reset = on_reset;
    x->vm->on_reset_arg = x;
    ck_assert_int_eq(vm_add_vcpus(x->vm, n, "max", &e), 0);
    for (unsigned i = 0; i < n; i++) {
        cpu(x, i)->step = step;
        cpu(x, i)->arg = x;
    }
    ck_assert_int_eq(vm_start(x->vm, &e), 0);
}

static void drop(struct fixture *x)
{
    vm_free(x->vm);
    loop_run_once(x->loop, 0, NULL); /* posts that were under way find the door closed */
    loop_free(x->loop);
}

static void await(struct fixture *x, unsigned i, uint64_t more)
{
    uint64_t until = atomic_load(&cpu(x, i)->steps) + more;
    while (atomic_load(&cpu(x, i)->steps) < until) {
        sched_yield();
    }
}

START_TEST(start_leaves_the_vm_paused_and_reset)
{
    struct fixture x;
    make(&x, 2, NULL);
    ck_assert_int_eq(x.vm->state, VM_PAUSED);
    ck_assert_uint_eq(x.resets, 1);
    ck_assert_uint_eq(cpu(&x, 1)->resets, 1);
    ck_assert_uint_eq(cpu(&x, 1)->boot_pc, 0x80000000);
    ck_assert_uint_eq(atomic_load(&cpu(&x, 0)->steps), 0);
    ck_assert(!clock_running(x.vm->clock));
    ck_assert_uint_eq(x.states, 0);
    drop(&x);
}
END_TEST

START_TEST(add_vcpus_refuses_numbers_the_machine_cannot_have)
{
    struct err e = ERR_INIT;
    struct loop *loop = loop_new(&e);
    struct vm *vm;
    ck_assert_int_eq(vm_new("v", &fake_arch, &fake_engine, loop, NULL, &vm, &e), 0);
    ck_assert_int_eq(vm_add_vcpus(vm, 0, "max", &e), -EINVAL);
    ck_assert_int_eq(vm_add_vcpus(vm, 9, "max", &e), -EINVAL);
    ck_assert_ptr_nonnull(strstr(e.msg, "1 to 8"));
    vm_free(vm);
    loop_free(loop);
}
END_TEST

START_TEST(pause_stops_every_vcpu_and_the_clock)
{
    struct fixture x;
    make(&x, 4, NULL);
    for (unsigned round = 0; round < 300; round++) {
        vm_resume(x.vm);
        ck_assert(clock_running(x.vm->clock));
        if (round % 10 == 0) {
            await(&x, round % 4, 5);
        }
        vm_pause(x.vm);
        ck_assert_int_eq(x.vm->state, VM_PAUSED);
        uint64_t now = clock_now(x.vm->clock), steps[4];
        for (unsigned i = 0; i < 4; i++) {
            ck_assert(!atomic_load(&cpu(&x, i)->in_guest));
            steps[i] = atomic_load(&cpu(&x, i)->steps);
            cpu(&x, i)->plain++; /* the barrier makes this ours */
        }
        sched_yield();
        for (unsigned i = 0; i < 4; i++) {
            ck_assert_uint_eq(atomic_load(&cpu(&x, i)->steps), steps[i]);
        }
        ck_assert_uint_eq(clock_now(x.vm->clock), now);
    }
    vm_pause(x.vm); /* pausing what is paused does nothing */
    ck_assert_uint_eq(x.states, 600);
    ck_assert_str_eq(x.reason, "pause");
    drop(&x);
}
END_TEST

/* Halts unless there is work; work is taken (lowered) and counted. */
static void step_wfi(struct vcpu *c, struct fake_cpu *f, enum vcpu_exit *why)
{
    if (atomic_load(&c->irq_level) & (1u << IN_WORK)) {
        vcpu_irq_set(c, IN_WORK, false);
        atomic_fetch_add(&f->served, 1);
    } else {
        *why = VCPU_EXIT_HALT;
    }
}

START_TEST(halted_vcpu_sleeps_and_wakes_by_its_input)
{
    struct fixture x;
    make(&x, 1, step_wfi);
    vm_resume(x.vm);
    struct vcpu *c = x.vm->vcpus[0];
    struct irq_line line = irq_to_vcpu(c, IN_WORK);
    for (unsigned i = 1; i <= 2000; i++) {
        irq_set(&line, true);
        while (atomic_load(&cpu(&x, 0)->served) < i) {
            sched_yield();
        }
    }
    /* Now it sleeps: its steps stand still. */
    bool halted = false;
    while (!halted) {
        pthread_mutex_lock(&c->lock);
        halted = c->halted;
        pthread_mutex_unlock(&c->lock);
    }
    uint64_t steps = atomic_load(&cpu(&x, 0)->steps);
    sched_yield();
    ck_assert_uint_eq(atomic_load(&cpu(&x, 0)->steps), steps);
    vcpu_kick(c); /* leaves WFI once */
    while (atomic_load(&cpu(&x, 0)->steps) == steps) {
        sched_yield();
    }
    vm_pause(x.vm);
    ck_assert_uint_gt(c->halts, 0);
    drop(&x);
}
END_TEST

struct pinger {
    struct fixture *x;
    unsigned target;
    uint64_t rounds;
};

/* Raises a vCPU's input and waits for it to be served, over and over: one lost wake-up and
 * this never ends. */
static void *ping(void *arg)
{
    struct pinger *p = arg;
    struct vcpu *c = p->x->vm->vcpus[p->target];
    struct fake_cpu *f = c->cpu;
    for (uint64_t i = 0; i < p->rounds; i++) {
        uint64_t before = atomic_load(&f->served);
        vcpu_irq_set(c, IN_WORK, true);
        while (atomic_load(&f->served) == before) {
            sched_yield();
        }
    }
    return NULL;
}

START_TEST(no_wakeup_is_lost_under_irqs_kicks_and_pauses)
{
    struct fixture x;
    make(&x, 3, step_wfi);
    vm_resume(x.vm);
    struct pinger p[3];
    pthread_t t[3];
    for (unsigned i = 0; i < 3; i++) {
        p[i] = (struct pinger){ &x, i, 3000 };
        pthread_create(&t[i], NULL, ping, &p[i]);
    }
    uint64_t rnd = test_seed();
    for (unsigned i = 0; i < 500; i++) {
        switch (test_random(&rnd) % 3) {
        case 0:
            vm_pause(x.vm);
            vm_resume(x.vm);
            break;
        case 1:
            vcpu_kick(x.vm->vcpus[test_random(&rnd) % 3]);
            break;
        default:
            vcpu_wake(x.vm->vcpus[test_random(&rnd) % 3]);
        }
        sched_yield();
    }
    for (unsigned i = 0; i < 3; i++) {
        pthread_join(t[i], NULL);
        ck_assert_uint_ge(atomic_load(&cpu(&x, i)->served), 3000);
    }
    drop(&x);
}
END_TEST

/* Each vCPU hands the token to the next one and sleeps: inter-processor interrupts without
 * any other thread. */
static void step_ring(struct vcpu *c, struct fake_cpu *f, enum vcpu_exit *why)
{
    if (atomic_load(&c->irq_level) & (1u << IN_PARTNER)) {
        vcpu_irq_set(c, IN_PARTNER, false);
        atomic_fetch_add(&f->served, 1);
        vcpu_irq_set(c->vm->vcpus[(c->index + 1) % c->vm->n_vcpus], IN_PARTNER, true);
    } else {
        *why = VCPU_EXIT_HALT;
    }
}

START_TEST(vcpus_wake_each_other)
{
    struct fixture x;
    make(&x, 4, step_ring);
    vm_resume(x.vm);
    vcpu_irq_set(x.vm->vcpus[0], IN_PARTNER, true);
    while (atomic_load(&cpu(&x, 3)->served) < 2000) {
        sched_yield();
    }
    vm_stop(x.vm, "done");
    drop(&x);
}
END_TEST

START_TEST(same_level_again_tells_the_engine_nothing)
{
    struct fixture x;
    make(&x, 1, NULL);
    for (unsigned i = 0; i < 5; i++) {
        vcpu_irq_set(x.vm->vcpus[0], IN_WORK, true);
    }
    ck_assert_uint_eq(atomic_load(&cpu(&x, 0)->irqs), 1);
    vcpu_irq_set(x.vm->vcpus[0], IN_WORK, false);
    ck_assert_uint_eq(atomic_load(&cpu(&x, 0)->irqs), 2);
    vcpu_irq_set(x.vm->vcpus[0], 1000, true); /* out of range: no undefined shift */
    drop(&x);
}
END_TEST

/* ---- requests ---- */

static void step_reset(struct vcpu *c, struct fake_cpu *f, enum vcpu_exit *why)
{
    (void)why;
    if (f->plain == 10) {
        vm_request(c->vm, VM_REQ_RESET, "guest-reset");
    }
    ck_assert_uint_le(f->plain, 10); /* no guest code behind the request */
}

static void run_until(struct fixture *x, bool (*done)(struct fixture *x))
{
    while (!done(x)) {
        loop_run_once(x->loop, 1000000, NULL);
    }
}

static bool was_reset_often(struct fixture *x)
{
    return x->resets >= 200;
}

START_TEST(resets_asked_by_several_vcpus_at_once_are_served_once)
{
    struct fixture x;
    make(&x, 3, step_reset);
    vm_resume(x.vm);
    run_until(&x, was_reset_often);
    ck_assert_str_eq(x.reason, "guest-reset");
    ck_assert_int_eq(x.state, VM_RUNNING);
    vm_pause(x.vm);
    ck_assert_uint_eq(cpu(&x, 0)->resets, x.resets);
    drop(&x);
}
END_TEST

static void step_poweroff(struct vcpu *c, struct fake_cpu *f, enum vcpu_exit *why)
{
    (void)why;
    ck_assert_uint_le(f->plain, 5);
    if (f->plain == 5) {
        /* a guest that hammers its power button grows no queue */
        for (unsigned i = 0; i < 1000; i++) {
            vm_request(c->vm, VM_REQ_POWEROFF, "guest-poweroff");
        }
    }
}

static bool is_stopped(struct fixture *x)
{
    return x->vm->state == VM_STOPPED;
}

START_TEST(poweroff_stops_the_vm_and_says_why)
{
    struct fixture x;
    make(&x, 4, step_poweroff);
    vm_resume(x.vm);
    run_until(&x, is_stopped);
    ck_assert_str_eq(x.vm->stop_reason, "guest-poweroff");
    ck_assert_str_eq(x.reason, "guest-poweroff");
    ck_assert_uint_eq(x.states, 2);
    vm_resume(x.vm);
    ck_assert_int_eq(x.vm->state, VM_STOPPED);
    vm_stop(x.vm, "again");
    ck_assert_str_eq(x.vm->stop_reason, "guest-poweroff");
    drop(&x);
}
END_TEST

static bool is_kept(struct fixture *x)
{
    return x->vm->ended;
}

START_TEST(poweroff_may_keep_the_vm_paused_until_a_reset)
{
    struct fixture x;
    make(&x, 4, step_poweroff);
    x.vm->end_pauses = true;
    for (unsigned i = 1; i <= 2; i++) {
        vm_resume(x.vm);
        run_until(&x, is_kept);
        ck_assert_int_eq(x.vm->state, VM_PAUSED);
        ck_assert_str_eq(x.reason, "guest-poweroff");
        ck_assert(!clock_running(x.vm->clock));
        vm_resume(x.vm);
        ck_assert_int_eq(x.vm->state, VM_PAUSED);
        vm_reset(x.vm);
        ck_assert_int_eq(x.vm->state, VM_PAUSED);
        ck_assert_str_eq(x.reason, "start");
        ck_assert_uint_eq(x.resets, 1 + i);
    }
    x.vm->end_pauses = false;
    vm_resume(x.vm);
    run_until(&x, is_stopped);
    ck_assert_str_eq(x.reason, "guest-poweroff");
    drop(&x);
}
END_TEST

START_TEST(reset_may_be_an_end)
{
    struct fixture x;
    make(&x, 3, step_reset);
    x.vm->reset_ends = true;
    vm_resume(x.vm);
    run_until(&x, is_stopped);
    ck_assert_str_eq(x.reason, "guest-reset");
    ck_assert_uint_eq(x.resets, 1);
    drop(&x);
}
END_TEST

static void step_error(struct vcpu *c, struct fake_cpu *f, enum vcpu_exit *why)
{
    if (c->index == 1 && f->plain == 3) {
        *why = VCPU_EXIT_ERROR;
    }
    ck_assert(c->index != 1 || f->plain <= 3);
}

START_TEST(engine_failure_crashes_the_vm_only)
{
    struct fixture x;
    make(&x, 2, step_error);
    vm_resume(x.vm);
    run_until(&x, is_stopped);
    ck_assert_ptr_nonnull(strstr(x.reason, "crash"));
    drop(&x);
}
END_TEST

START_TEST(vm_may_be_freed_with_a_request_under_way)
{
    struct fixture x;
    make(&x, 1, NULL);
    vm_request(x.vm, VM_REQ_RESET, "guest-reset");
    drop(&x);
}
END_TEST

START_TEST(reset_while_paused_stays_paused)
{
    struct fixture x;
    make(&x, 2, step_wfi);
    vm_reset(x.vm);
    ck_assert_uint_eq(x.resets, 2);
    ck_assert_int_eq(x.vm->state, VM_PAUSED);
    vm_resume(x.vm);
    vm_reset(x.vm);
    ck_assert_int_eq(x.vm->state, VM_RUNNING);
    ck_assert_uint_eq(x.resets, 3);
    vm_stop(x.vm, "quit");
    vm_reset(x.vm);
    ck_assert_uint_eq(x.resets, 3);
    drop(&x);
}
END_TEST

/* ---- failing engines ---- */

static int init_fails(struct vm *vm, struct err *e)
{
    (void)vm;
    return err_set(e, -ENOTSUP, "no engine here");
}

static int third_vcpu_fails(struct vcpu *c, struct err *e)
{
    return c->index == 2 ? err_set(e, -ENOMEM, "no third vCPU") : fake_vcpu_init(c, e);
}

START_TEST(failures_while_building_leave_nothing_behind)
{
    struct err e = ERR_INIT;
    struct loop *loop = loop_new(&e);
    struct engine_ops bad = fake_engine;
    bad.vm_init = init_fails;
    struct vm *vm = NULL;
    ck_assert_int_eq(vm_new("v", &fake_arch, &bad, loop, NULL, &vm, &e), -ENOTSUP);
    ck_assert_ptr_null(vm);
    bad = fake_engine;
    bad.vcpu_init = third_vcpu_fails;
    ck_assert_int_eq(vm_new("v", &fake_arch, &bad, loop, NULL, &vm, &e), 0);
    ck_assert_int_eq(vm_add_vcpus(vm, 4, "max", &e), -ENOMEM);
    ck_assert_uint_eq(vm->n_vcpus, 0);
    vm_free(vm);
    vm_free(NULL);
    loop_free(loop);
}
END_TEST

static Suite *suite_vm(void)
{
    Suite *s = suite_create("vm");
    TCase *c = tcase_create("vm");
    tcase_add_test(c, start_leaves_the_vm_paused_and_reset);
    tcase_add_test(c, add_vcpus_refuses_numbers_the_machine_cannot_have);
    tcase_add_test(c, pause_stops_every_vcpu_and_the_clock);
    tcase_add_test(c, halted_vcpu_sleeps_and_wakes_by_its_input);
    tcase_add_test(c, no_wakeup_is_lost_under_irqs_kicks_and_pauses);
    tcase_add_test(c, vcpus_wake_each_other);
    tcase_add_test(c, same_level_again_tells_the_engine_nothing);
    tcase_add_test(c, resets_asked_by_several_vcpus_at_once_are_served_once);
    tcase_add_test(c, poweroff_stops_the_vm_and_says_why);
    tcase_add_test(c, poweroff_may_keep_the_vm_paused_until_a_reset);
    tcase_add_test(c, reset_may_be_an_end);
    tcase_add_test(c, engine_failure_crashes_the_vm_only);
    tcase_add_test(c, vm_may_be_freed_with_a_request_under_way);
    tcase_add_test(c, reset_while_paused_stays_paused);
    tcase_add_test(c, failures_while_building_leave_nothing_behind);
    suite_add_tcase(s, c);
    return s;
}

int main(int argc, char **argv)
{
    return test_main(argc, argv, suite_vm, NULL);
}
