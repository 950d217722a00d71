/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inter-processor interrupts: a token goes round threads on all CPUs, each woken by an interrupt and
 * touching a page; then the page's protection changes twice, which shoots down the TLBs of all CPUs.
 * No more than two CPUs want to run at a time, so that fewer host CPUs than vCPUs do not turn this
 * into a measure of the host's time slices. Argument: thousands of rounds.
 */
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "tests/bench/guest/bench.h"

#define THREADS 4

struct token {
    _Atomic uint32_t round;
    uint8_t pad[60];
};

static struct token tokens[THREADS];
static long rounds;
static uint8_t *page;
static uint64_t sums[THREADS][8];

static void pin(int cpu)
{
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    cpu_set_t one;

    CPU_ZERO(&one);
    CPU_SET((size_t)(cpu % cpus), &one);
    if (sched_setaffinity(0, sizeof one, &one) != 0) {
        bench_fail("affinity");
    }
}

/* Waits for the token in a round; each thread has a word of its own to wait at. */
static void await(unsigned number, uint32_t round)
{
    uint32_t seen;

    while ((seen = atomic_load(&tokens[number].round)) != round) {
        syscall(SYS_futex, &tokens[number].round, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
    }
}

static void pass(unsigned number, uint32_t round)
{
    atomic_store(&tokens[number].round, round);
    syscall(SYS_futex, &tokens[number].round, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

static void *player(void *argument)
{
    unsigned number = (unsigned)(intptr_t)argument;

    pin((int)number);
    for (long round = 0; round < rounds; round++) {
        unsigned next = (number + 1) % THREADS;

        await(number, (uint32_t)round + (number != 0));
        sums[number][0] += *(volatile uint8_t *)page;
        if (number == 0) {
            if (mprotect(page, 4096, PROT_READ) != 0) {
                bench_fail("mprotect");
            }
            sums[0][0] += *(volatile uint8_t *)page;
            if (mprotect(page, 4096, PROT_READ | PROT_WRITE) != 0) {
                bench_fail("mprotect");
            }
            *(volatile uint8_t *)page = (uint8_t)round;
        }
        pass(next, (uint32_t)round + 1);
    }
    return NULL;
}

int main(int argc, char **argv)
{
    pthread_t threads[THREADS];
    uint64_t sum = 0;

    rounds = bench_argument(argc, argv, 1, 1) * 1000;
    page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED) {
        bench_fail("mmap");
    }
    bench_begin();
    for (int i = 1; i < THREADS; i++) {
        pthread_create(&threads[i], NULL, player, (void *)(intptr_t)i);
    }
    player(NULL);
    for (int i = 1; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
    }
    for (int i = 0; i < THREADS; i++) {
        sum += sums[i][0];
    }
    bench_end(sum);
    return 0;
}
