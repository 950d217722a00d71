/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Page faults: map, touch and unmap anonymous memory, and take copies of pages after fork(). Argument:
 * rounds.
 */
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/bench/guest/bench.h"

#define PAGES 256
#define PAGE 4096

static uint8_t *map(void)
{
    uint8_t *memory = mmap(NULL, (size_t)PAGES * PAGE, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (memory == MAP_FAILED) {
        bench_fail("mmap");
    }
    madvise(memory, (size_t)PAGES * PAGE, MADV_NOHUGEPAGE);
    return memory;
}

int main(int argc, char **argv)
{
    long rounds = bench_argument(argc, argv, 1, 1);
    uint8_t *shared = map();
    uint64_t sum = 0;

    memset(shared, 3, (size_t)PAGES * PAGE);
    bench_begin();
    for (long round = 0; round < rounds; round++) {
        uint8_t *memory = map();

        for (int i = 0; i < PAGES; i++) {
            sum += memory[i * PAGE];
            memory[i * PAGE + i] = (uint8_t)round;
            sum += memory[i * PAGE + i];
        }
        munmap(memory, (size_t)PAGES * PAGE);
        if (round % 16 == 0) {
            int status = -1;
            pid_t child = fork();

            if (child == 0) {
                for (int i = 0; i < PAGES; i++) {
                    shared[i * PAGE]++;
                }
                _exit(shared[PAGE] == 4 ? 0 : 1);
            }
            waitpid(child, &status, 0);
            sum += status == 0;
        }
    }
    bench_end(sum);
    return 0;
}
