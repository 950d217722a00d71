/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vCPU threads. Owns struct vcpu and its thread.
 *
 * The thread's whole life is vcpu_main(): under c->lock it looks at the flags, and only when
 * none of them speaks against it, it drops the lock and runs guest code. Whoever changes a
 * flag, an interrupt input or anything else that arch->cpu_has_work() reads does so before
 * it takes c->lock and broadcasts, so a change is either seen by the look or ends the wait.
 * A change that falls between the look and run() is caught by the engine's kick, which is
 * sticky.
 */
#include "engine/core/vcpu.h"
#include "engine/base/mem.h"
#include "engine/core/vm.h"

#include <assert.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>

static _Thread_local struct vcpu *current;

struct vcpu *vcpu_current(void)
{
    return current;
}

struct vcpu *vcpu_new(struct vm *vm, unsigned index)
{
    struct vcpu *c = xnew(struct vcpu);
    c->vm = vm;
    c->index = index;
    pthread_mutex_init(&c->lock, NULL);
    pthread_cond_init(&c->wake, NULL);
    return c;
}

void vcpu_free(struct vcpu *c)
{
    if (!c) {
        return;
    }
    assert(!c->started);
    pthread_cond_destroy(&c->wake);
    pthread_mutex_destroy(&c->lock);
    free(c);
}

void vcpu_wake(struct vcpu *c)
{
    pthread_mutex_lock(&c->lock);
    pthread_mutex_unlock(&c->lock);   /* whoever looked before the change is waiting by now */
    pthread_cond_broadcast(&c->wake); /* without the lock: the woken thread would wait for it */
}

void vcpu_device_begin(void)
{
    if (current) {
        current->in_device = true;
    }
}

void vcpu_device_end(void)
{
    if (!current) {
        return;
    }
    current->in_device = false;
    while (current->n_wakes) {
        vcpu_wake(current->wakes[--current->n_wakes]);
    }
}

/* True: c is woken when the access of this thread's vCPU to a device is over. */
static bool wake_later(struct vcpu *c)
{
    if (!current || !current->in_device || current->n_wakes == VCPU_WAKES) {
        return false;
    }
    current->wakes[current->n_wakes++] = c;
    return true;
}

void vcpu_irq_set(struct vcpu *c, unsigned n, bool level)
{
    uint64_t bit = 1ull << (n & 63);
    uint64_t old = level ? atomic_fetch_or(&c->irq_level, bit)
                         : atomic_fetch_and(&c->irq_level, ~bit);
    if (((old & bit) != 0) == level) {
        return;
    }
    c->vm->engine->irq(c);
    if (level && c != current && !wake_later(c)) {
        vcpu_wake(c);
    }
}

void vcpu_kick(struct vcpu *c)
{
    pthread_mutex_lock(&c->lock);
    c->kicked = true;
    pthread_cond_broadcast(&c->wake);
    pthread_mutex_unlock(&c->lock);
    c->vm->engine->kick(c);
}

void vcpu_park(struct vcpu *c)
{
    pthread_mutex_lock(&c->lock);
    c->parked = true;
    pthread_mutex_unlock(&c->lock);
    c->vm->engine->kick(c);
}

void vcpu_hold(struct vcpu *c, bool on)
{
    pthread_mutex_lock(&c->lock);
    c->held = on;
    pthread_cond_broadcast(&c->wake);
    pthread_mutex_unlock(&c->lock);
}

void vcpu_unpark(struct vcpu *c)
{
    pthread_mutex_lock(&c->lock);
    c->parked = false;
    pthread_cond_broadcast(&c->wake);
    pthread_mutex_unlock(&c->lock);
}

/* Waits until guest code may run. Called and returns with c->lock held; false: the thread
 * shall end. */
static bool wait_to_run(struct vcpu *c)
{
    for (;;) {
        if (c->stop) {
            return false;
        }
        if (c->pause_wanted) {
            if (!c->paused) {
                c->paused = true;
                pthread_cond_broadcast(&c->wake);
            }
        } else {
            c->paused = false;
            if (!c->parked && !c->held) {
                if (!c->halted || c->kicked || c->vm->arch->cpu_has_work(c)) {
                    c->halted = false;
                    c->kicked = false;
                    return true;
                }
            }
        }
        pthread_cond_wait(&c->wake, &c->lock);
    }
}

static void *vcpu_main(void *arg)
{
    struct vcpu *c = arg;
    char name[16];

    current = c;
    /* From here: naming another thread takes /proc, which a jail has not. */
    snprintf(name, sizeof(name), "vcpu%u", c->index);
    pthread_setname_np(pthread_self(), name);
    if (c->vm->engine->vcpu_thread) {
        c->vm->engine->vcpu_thread(c);
    }
    if (c->vm->on_vcpu_thread) {
        c->vm->on_vcpu_thread(c->vm->on_vcpu_thread_arg, c);
    }
    pthread_mutex_lock(&c->lock);
    while (wait_to_run(c)) {
        pthread_mutex_unlock(&c->lock);
        enum vcpu_exit why = c->vm->engine->run(c);
        if (why == VCPU_EXIT_ERROR) {
            vm_request(c->vm, VM_REQ_CRASH, "crash: the engine failed"); /* parks this vCPU */
        }
        if (why == VCPU_EXIT_DEBUG) {
            c->debug_stop = true;
            vm_request(c->vm, VM_REQ_DEBUG, "debug");
        }
        if (why == VCPU_EXIT_HALT) {
            clock_tidy(c->vm->clock);
        }
        pthread_mutex_lock(&c->lock);
        if (why == VCPU_EXIT_HALT) {
            c->halted = true;
            c->halts++;
        }
    }
    pthread_mutex_unlock(&c->lock);
    return NULL;
}

int vcpu_thread_start(struct vcpu *c, struct err *e)
{
    c->stop = false;
    c->pause_wanted = true;
    c->paused = false;
    /* Signals are the main loop's. */
    sigset_t all, before;
    sigfillset(&all);
    sigdelset(&all, SIGSEGV);
    sigdelset(&all, SIGBUS);
    sigdelset(&all, SIGFPE);
    sigdelset(&all, SIGILL);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int ret = pthread_create(&c->thread, NULL, vcpu_main, c);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (ret) {
        return err_errno(e, ret, "cannot start the thread of vCPU %u", c->index);
    }
    c->started = true;
    return 0;
}

void vcpu_thread_stop(struct vcpu *c)
{
    if (!c->started) {
        return;
    }
    pthread_mutex_lock(&c->lock);
    c->stop = true;
    pthread_cond_broadcast(&c->wake);
    pthread_mutex_unlock(&c->lock);
    c->vm->engine->kick(c);
    pthread_join(c->thread, NULL);
    c->started = false;
}

void vcpu_pause_ask(struct vcpu *c)
{
    pthread_mutex_lock(&c->lock);
    c->pause_wanted = true;
    pthread_cond_broadcast(&c->wake);
    pthread_mutex_unlock(&c->lock);
    c->vm->engine->kick(c);
}

void vcpu_pause_wait(struct vcpu *c)
{
    pthread_mutex_lock(&c->lock);
    while (c->started && !c->paused) {
        pthread_cond_wait(&c->wake, &c->lock);
    }
    pthread_mutex_unlock(&c->lock);
}

void vcpu_unpause(struct vcpu *c)
{
    pthread_mutex_lock(&c->lock);
    c->pause_wanted = false;
    c->paused = false;
    pthread_cond_broadcast(&c->wake);
    pthread_mutex_unlock(&c->lock);
}

void vcpu_cleared(struct vcpu *c)
{
    pthread_mutex_lock(&c->lock);
    c->halted = false;
    c->kicked = false;
    c->parked = false;
    pthread_mutex_unlock(&c->lock);
}

void vcpu_set_halted(struct vcpu *c, bool on)
{
    pthread_mutex_lock(&c->lock);
    c->halted = on;
    pthread_mutex_unlock(&c->lock);
}
