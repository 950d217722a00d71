/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Signals: one sent to oneself, and a store to a protected page that the handler opens. Argument:
 * thousands of rounds.
 */
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tests/bench/guest/bench.h"

static volatile uint64_t taken;
static uint8_t *page;

static void on_user(int number)
{
    (void)number;
    taken++;
}

static void on_fault(int number, siginfo_t *info, void *context)
{
    (void)number;
    (void)context;
    if (info->si_addr != page) {
        _exit(3);
    }
    taken += 3;
    mprotect(page, 4096, PROT_READ | PROT_WRITE);
}

int main(int argc, char **argv)
{
    long rounds = bench_argument(argc, argv, 1, 1) * 1000;
    struct sigaction user = { .sa_handler = on_user };
    struct sigaction fault = { .sa_sigaction = on_fault, .sa_flags = SA_SIGINFO };

    page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED) {
        bench_fail("mmap");
    }
    sigaction(SIGUSR1, &user, NULL);
    sigaction(SIGSEGV, &fault, NULL);
    bench_begin();
    for (long i = 0; i < rounds; i++) {
        raise(SIGUSR1);
        if (i % 4 == 0) {
            mprotect(page, 4096, PROT_READ);
            *(volatile uint8_t *)page = (uint8_t)i;
        }
    }
    bench_end(taken);
    return 0;
}
