/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzz target: vhd images (foreign.h says what an input is). The checksums of footer and second header are put right.
 */
#include "tests/fuzz/fuzz.h"

const char fuzz_name[] = "fuzz_vhd";

#include "tests/fuzz/foreign.h"

static void sum(int fd, off_t at, size_t n, size_t place)
{
    uint8_t p[1024];
    uint32_t s = 0;

    if (at < 0 || pread(fd, p, n, at) != (ssize_t)n) {
        return;
    }
    for (size_t i = 0; i < n; i++) {
        s += i >= place && i < place + 4 ? 0 : p[i];
    }
    s = ~s;
    for (unsigned i = 0; i < 4; i++) {
        p[place + i] = (uint8_t)(s >> (24 - 8 * i));
    }
    must(pwrite(fd, p + place, 4, at + (off_t)place) == 4);
}

static void mend(int fd)
{
    off_t end = lseek(fd, 0, SEEK_END);
    uint8_t p[512];
    uint64_t header = 0;

    if (end >= 512 && pread(fd, p, 512, end - 512) == 512) {
        for (unsigned i = 0; i < 8; i++) {
            header = header << 8 | p[16 + i];
        }
        if (header < IMAGE) {
            sum(fd, (off_t)header, 1024, 36);
        }
        sum(fd, 0, 512, 64);
        sum(fd, end - 512, 512, 64);
    }
}

void fuzz_one(const uint8_t *data, size_t size)
{
    fuzz_foreign("vhd", data, size, mend);
}
