/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Futex ping-pong: two pairs of threads, each thread on a CPU of its own, wake each other in turn;
 * then all four fight for one mutex. Argument: thousands of rounds.
 */
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "tests/bench/guest/bench.h"

#define THREADS 4

struct pair {
    _Atomic uint32_t turn;
    uint8_t pad[60];
};

static struct pair pairs[THREADS / 2];
static long rounds;
static pthread_barrier_t start;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static uint64_t shared;

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

static void *player(void *argument)
{
    unsigned number = (unsigned)(intptr_t)argument;
    struct pair *pair = &pairs[number / 2];
    uint32_t mine = number % 2;

    pin((int)number);
    pthread_barrier_wait(&start);
    for (long i = 0; i < rounds; i++) {
        while (atomic_load(&pair->turn) != mine) {
            syscall(SYS_futex, &pair->turn, FUTEX_WAIT_PRIVATE, 1 - mine, NULL, NULL, 0);
        }
        atomic_store(&pair->turn, 1 - mine);
        syscall(SYS_futex, &pair->turn, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
    }
    for (long i = 0; i < rounds; i++) {
        pthread_mutex_lock(&lock);
        shared += number + 1;
        pthread_mutex_unlock(&lock);
    }
    return NULL;
}

int main(int argc, char **argv)
{
    pthread_t threads[THREADS];

    rounds = bench_argument(argc, argv, 1, 1) * 1000;
    pthread_barrier_init(&start, NULL, THREADS + 1);
    for (int i = 0; i < THREADS; i++) {
        pthread_create(&threads[i], NULL, player, (void *)(intptr_t)i);
    }
    bench_begin();
    pthread_barrier_wait(&start);
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
    }
    bench_end(shared);
    return 0;
}
