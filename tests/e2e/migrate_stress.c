/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A guest under load that checks itself, for tests/e2e/migrate_stress.py:
 *
 *   migrate_stress MIB RATE DISK ADDRESS PORT
 *
 * Three processes for ever: one writes RATE MiB a second over MIB MiB of memory, and looks before whether each page is as it was written; one
 * writes blocks of DISK past the page cache and reads them back; one sends datagrams to an echo at ADDRESS and compares what comes back.
 * Each writes what it has done, and how often it was not right, into /tmp/memory, /tmp/disk, /tmp/net, ten times a second.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { PAGE = 4096, WORDS = PAGE / 8, BLOCKS = 2048, WINDOW = 16 };
#define BLKGETSIZE64_ 0x80081272ul

static const char *what;
static uint64_t done, bad, told;

static uint64_t now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void tell(void)
{
    char path[64], text[96];
    uint64_t at = now();
    int fd, n;

    if (at - told < 100000000) {
        return;
    }
    told = at;
    snprintf(path, sizeof(path), "/tmp/%s", what);
    fd = open(path, O_WRONLY | O_CREAT, 0644);
    n = snprintf(text, sizeof(text), "%s %020llu %020llu\n", what, (unsigned long long)done,
                 (unsigned long long)bad);
    if (fd < 0 || write(fd, text, (size_t)n) != n) {
        bad++;
    }
    close(fd);
}

static void fill(uint64_t *p, uint64_t place, uint64_t pass)
{
    for (unsigned i = 0; i < WORDS; i++) {
        p[i] = (place * WORDS + i) * 0x9e3779b97f4a7c15ull + pass;
    }
}

static int right(const uint64_t *p, uint64_t place, uint64_t pass)
{
    for (unsigned i = 0; i < WORDS; i++) {
        if (p[i] != (place * WORDS + i) * 0x9e3779b97f4a7c15ull + pass) {
            return 0;
        }
    }
    return 1;
}

static void memory(uint64_t mib, uint64_t rate)
{
    uint64_t pages = mib << 8, pass = 0, begin = now();
    uint64_t *mem = mmap(NULL, mib << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
                         -1, 0);

    for (uint64_t n = 0;; n++) {
        uint64_t page = n % pages, due = begin + n * 1000000000u / (rate << 8), at = now();

        if (page == 0) {
            pass++;
        }
        if (pass > 1 && !right(mem + page * WORDS, page, pass - 1)) {
            bad++;
        }
        fill(mem + page * WORDS, page, pass);
        done++;
        if (at < due) {
            usleep((useconds_t)((due - at) / 1000));
        } else if (at - due > 100000000) { /* no catching up */
            begin += at - due;
        }
        tell();
    }
}

static void disk(const char *path)
{
    static uint64_t pass[BLOCKS];
    uint64_t *mem = NULL, seed = 1, size = 0, blocks;
    int fd = open(path, O_RDWR | O_DIRECT);

    if (fd < 0 || posix_memalign((void **)&mem, PAGE, PAGE) != 0 ||
        ioctl(fd, BLKGETSIZE64_, &size) != 0) {
        exit(1);
    }
    blocks = size / PAGE < BLOCKS ? size / PAGE : BLOCKS;
    for (;;) {
        seed = seed * 6364136223846793005ull + 1442695040888963407ull;
        uint64_t n = (seed >> 33) % blocks, at = n * (size / PAGE / blocks) * PAGE;

        if (pass[n] && (pread(fd, mem, PAGE, (off_t)at) != PAGE || !right(mem, n, pass[n]))) {
            bad++;
        }
        fill(mem, n, ++pass[n]);
        if (pwrite(fd, mem, PAGE, (off_t)at) != PAGE || (done % 256 == 255 && fdatasync(fd))) {
            bad++;
        }
        done++;
        tell();
    }
}

static void net(const char *address, int port)
{
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port) };
    struct pollfd p = { .fd = socket(AF_INET, SOCK_DGRAM, 0), .events = POLLIN };
    uint64_t out[128], in[128];

    inet_pton(AF_INET, address, &a.sin_addr);
    for (uint64_t sent = 0;; sent++) {
        for (unsigned i = 0; i < 128; i++) {
            out[i] = (sent + i) * 0x9e3779b97f4a7c15ull;
        }
        out[0] = sent;
        sendto(p.fd, out, sizeof(out), 0, (struct sockaddr *)&a, sizeof(a));
        while (poll(&p, 1, sent % WINDOW ? 0 : 10) > 0 &&
               recv(p.fd, in, sizeof(in), MSG_DONTWAIT) == (ssize_t)sizeof(in)) {
            for (unsigned i = 1; i < 128; i++) {
                bad += in[i] != (in[0] + i) * 0x9e3779b97f4a7c15ull;
            }
            done++;
        }
        usleep(500);
        tell();
    }
}

int main(int argc, char **argv)
{
    static const char *const names[] = { "memory", "disk", "net" };

    if (argc != 6) {
        return 2;
    }
    for (unsigned i = 0; i < 3; i++) {
        if (fork() == 0) {
            what = names[i];
            if (i == 0) {
                memory(strtoull(argv[1], NULL, 0), strtoull(argv[2], NULL, 0));
            } else if (i == 1) {
                disk(argv[3]);
            } else {
                net(argv[4], atoi(argv[5]));
            }
        }
    }
    return 0;
}
