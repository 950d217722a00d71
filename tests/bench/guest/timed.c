/* SPDX-License-Identifier: Apache-2.0 */
/* Runs a command and times it; the checksum is of its standard output. Arguments: the command. */
#include <sys/wait.h>
#include <unistd.h>

#include "tests/bench/guest/bench.h"

int main(int argc, char **argv)
{
    uint8_t buffer[4096];
    uint64_t hash = BENCH_FNV_SEED;
    int ends[2];
    int status = -1;
    ssize_t got;
    pid_t child;

    if (argc < 2 || pipe(ends) != 0) {
        bench_fail("usage");
    }
    bench_begin();
    child = fork();
    if (child == 0) {
        dup2(ends[1], 1);
        close(ends[0]);
        close(ends[1]);
        execvp(argv[1], argv + 1);
        _exit(127);
    }
    close(ends[1]);
    while ((got = read(ends[0], buffer, sizeof buffer)) > 0) {
        hash = bench_hash(hash, buffer, (size_t)got);
    }
    if (waitpid(child, &status, 0) != child || status != 0) {
        bench_fail("exit status of the command");
    }
    bench_end(hash);
    return 0;
}
