/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads or writes blocks of a disk, past the guest's page cache, with a number of requests in flight: Linux's
 * asynchronous I/O (io_submit(2)), as fio's engine libaio does it.
 *
 *   disk MIB read|write rand|seq BLOCK DEPTH COUNT
 *
 * The disk is found by its size, since boards number theirs differently. The checksum is over the first word of each block
 * read; what was written is read back behind the measurement.
 */
#include "tests/bench/guest/bench.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { MOST = 64 };

struct job {
    int fd;
    uint64_t size, block, count, random;
    long depth;
    int write, sequential;
    unsigned char *memory;
};

/* /dev/NAME of the disk that has so many sectors. */
static int disk_open(uint64_t sectors)
{
    DIR *folder = opendir("/sys/block");
    struct dirent *entry;

    while (folder && (entry = readdir(folder))) {
        char path[300];
        unsigned long long found = 0;
        FILE *file;

        snprintf(path, sizeof path, "/sys/block/%s/size", entry->d_name);
        file = fopen(path, "r");
        if (file && fscanf(file, "%llu", &found) == 1 && found == sectors) {
            snprintf(path, sizeof path, "/dev/%s", entry->d_name);
            fclose(file);
            closedir(folder);
            return open(path, O_RDWR | O_DIRECT);
        }
        if (file) {
            fclose(file);
        }
    }
    bench_fail("disk");
    return -1;
}

static uint64_t job_offset(struct job *j, uint64_t index)
{
    uint64_t blocks = j->size / j->block;

    return (j->sequential ? index : bench_random(&j->random) >> 20) % blocks * j->block;
}

static void job_start(struct job *j, aio_context_t context, long slot, uint64_t index,
                      struct iocb *request)
{
    struct iocb *list[1] = { request };

    memset(request, 0, sizeof *request);
    request->aio_data = (uint64_t)slot;
    request->aio_fildes = (uint32_t)j->fd;
    request->aio_lio_opcode = j->write ? IOCB_CMD_PWRITE : IOCB_CMD_PREAD;
    request->aio_buf = (uint64_t)(uintptr_t)(j->memory + (uint64_t)slot * j->block);
    request->aio_nbytes = j->block;
    request->aio_offset = (int64_t)job_offset(j, index);
    if (j->write) { /* the place says what must be there, whatever was written twice */
        memcpy(j->memory + (uint64_t)slot * j->block, &request->aio_offset, 8);
    }
    if (syscall(SYS_io_submit, context, 1L, list) != 1) {
        bench_fail("io_submit");
    }
}

/* Their sum, since they complete in any order. */
static uint64_t job_run(struct job *j)
{
    static struct iocb request[MOST];
    struct io_event event[MOST];
    aio_context_t context = 0;
    uint64_t begun = 0, ended = 0, sum = 0;

    if (syscall(SYS_io_setup, (long)MOST, &context) != 0) {
        bench_fail("io_setup");
    }
    for (; begun < (uint64_t)j->depth && begun < j->count; begun++) {
        job_start(j, context, (long)begun, begun, &request[begun]);
    }
    while (ended < j->count) {
        long n = syscall(SYS_io_getevents, context, 1L, (long)MOST, event, NULL);

        if (n < 1) {
            bench_fail("io_getevents");
        }
        for (long i = 0; i < n; i++) {
            long slot = (long)event[i].data;
            uint64_t first;

            if (event[i].res != (int64_t)j->block) {
                bench_fail("short");
            }
            memcpy(&first, j->memory + (uint64_t)slot * j->block, 8);
            sum += first;
            ended++;
            if (begun < j->count) {
                job_start(j, context, slot, begun++, &request[slot]);
            }
        }
    }
    syscall(SYS_io_destroy, context);
    return sum;
}

int main(int argc, char **argv)
{
    struct job j = { .random = 88172645463325252u };
    uint64_t sum;

    if (argc < 7) {
        bench_fail("arguments");
    }
    j.size = strtoull(argv[1], NULL, 10) << 20;
    j.write = strcmp(argv[2], "write") == 0;
    j.sequential = strcmp(argv[3], "seq") == 0;
    j.block = strtoull(argv[4], NULL, 10);
    j.depth = strtol(argv[5], NULL, 10);
    j.count = strtoull(argv[6], NULL, 10);
    if (j.depth < 1 || j.depth > MOST || j.block < 512 || j.size < j.block) {
        bench_fail("arguments");
    }
    j.fd = disk_open(j.size / 512);
    j.memory = aligned_alloc(4096, j.block * (uint64_t)j.depth);
    if (j.fd < 0 || !j.memory) {
        bench_fail("open");
    }
    memset(j.memory, 0x5a, j.block * (uint64_t)j.depth);
    bench_begin();
    sum = job_run(&j);
    if (!j.write) {
        bench_end(sum);
        return 0;
    }
    bench_end(sum);
    j.write = 0;
    j.random = 88172645463325252u;
    if (job_run(&j) != sum) {
        fputs("BENCH-FAIL what was written is not there\n", stdout);
        return 1;
    }
    return 0;
}
