/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzz target: vhdx images (foreign.h says what an input is). The checksums of headers and tables of regions are put
 * right.
 */
#include "tests/fuzz/fuzz.h"

const char fuzz_name[] = "fuzz_vhdx";

#include "tests/fuzz/foreign.h"

static uint32_t table[256];

static void crc(int fd, off_t at, size_t n)
{
    static uint8_t p[65536];
    uint32_t c = UINT32_MAX;

    if (pread(fd, p, n, at) != (ssize_t)n) {
        return;
    }
    memset(p + 4, 0, 4);
    for (size_t i = 0; i < n; i++) {
        c = c >> 8 ^ table[(c ^ p[i]) & 255];
    }
    c = ~c;
    for (unsigned i = 0; i < 4; i++) {
        p[4 + i] = (uint8_t)(c >> (8 * i));
    }
    must(pwrite(fd, p + 4, 4, at + 4) == 4);
}

static void mend(int fd)
{
    for (uint32_t i = 0; i < 256 && !table[255]; i++) {
        table[i] = i;
        for (unsigned k = 0; k < 8; k++) {
            table[i] = table[i] >> 1 ^ (table[i] & 1 ? 0x82f63b78u : 0);
        }
    }
    crc(fd, 65536, 4096);
    crc(fd, 131072, 4096);
    crc(fd, 192 << 10, 65536);
    crc(fd, 256 << 10, 65536);
}

void fuzz_one(const uint8_t *data, size_t size)
{
    fuzz_foreign("vhdx", data, size, mend);
}
