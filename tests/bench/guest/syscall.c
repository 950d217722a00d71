/* SPDX-License-Identifier: Apache-2.0 */
/*
 * System calls: getppid(), one byte from /dev/zero, lseek(), and stat() of a path. Argument:
 * thousands of rounds.
 */
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "tests/bench/guest/bench.h"

int main(int argc, char **argv)
{
    long rounds = bench_argument(argc, argv, 1, 1) * 1000;
    int zero = open("/dev/zero", O_RDONLY);
    uint64_t sum = 0;

    if (zero < 0) {
        bench_fail("/dev/zero");
    }
    bench_begin();
    for (long i = 0; i < rounds; i++) {
        struct stat facts;
        char byte = 1;

        sum += syscall(SYS_getppid) >= 0;
        sum += (uint64_t)read(zero, &byte, 1) + (uint64_t)byte;
        sum += lseek(zero, 0, SEEK_SET) == 0;
        if (i % 4 == 0) {
            sum += stat("/proc/self/maps", &facts) == 0;
        }
    }
    bench_end(sum);
    return 0;
}
