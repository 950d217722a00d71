/* SPDX-License-Identifier: Apache-2.0 */
/* Context switches: two processes pass a byte to and fro over two pipes. Argument: thousands. */
#include <sched.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/bench/guest/bench.h"

int main(int argc, char **argv)
{
    long rounds = bench_argument(argc, argv, 1, 1) * 1000;
    int there[2];
    int back[2];
    uint8_t byte = 0;
    uint64_t sum = 0;
    cpu_set_t one;
    pid_t child;

    CPU_ZERO(&one);
    CPU_SET(0, &one);
    if (sched_setaffinity(0, sizeof one, &one) != 0 || pipe(there) != 0 || pipe(back) != 0) {
        bench_fail("pipe");
    }
    child = fork();
    if (child == 0) {
        close(there[1]);
        while (read(there[0], &byte, 1) == 1) {
            byte = (uint8_t)(byte * 5 + 1);
            if (write(back[1], &byte, 1) != 1) {
                _exit(1);
            }
        }
        _exit(0);
    }
    bench_begin();
    for (long i = 0; i < rounds; i++) {
        if (write(there[1], &byte, 1) != 1 || read(back[0], &byte, 1) != 1) {
            bench_fail("pipe broke");
        }
        sum += byte;
    }
    bench_end(sum);
    close(there[1]);
    waitpid(child, NULL, 0);
    return 0;
}
