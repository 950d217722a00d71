/* SPDX-License-Identifier: Apache-2.0 */
/* Bit tricks checked against their slow forms: counts, reversals, CRC. */
#include "project.h"

static unsigned slow_count(uint64_t v)
{
    unsigned n = 0;
    for (; v; v >>= 1) {
        n += v & 1;
    }
    return n;
}

static unsigned fast_count(uint64_t v)
{
    v -= v >> 1 & 0x5555555555555555ull;
    v = (v & 0x3333333333333333ull) + (v >> 2 & 0x3333333333333333ull);
    v = (v + (v >> 4)) & 0x0f0f0f0f0f0f0f0full;
    return (unsigned)(v * 0x0101010101010101ull >> 56);
}

static uint64_t reverse(uint64_t v)
{
    v = (v >> 1 & 0x5555555555555555ull) | (v & 0x5555555555555555ull) << 1;
    v = (v >> 2 & 0x3333333333333333ull) | (v & 0x3333333333333333ull) << 2;
    v = (v >> 4 & 0x0f0f0f0f0f0f0f0full) | (v & 0x0f0f0f0f0f0f0f0full) << 4;
    v = (v >> 8 & 0x00ff00ff00ff00ffull) | (v & 0x00ff00ff00ff00ffull) << 8;
    v = (v >> 16 & 0x0000ffff0000ffffull) | (v & 0x0000ffff0000ffffull) << 16;
    return v >> 32 | v << 32;
}

static uint32_t crc32(const uint8_t *p, size_t n)
{
    static uint32_t table[256];
    if (!table[1]) {
        for (uint32_t i = 0; i < 256; i++) {
            uint32_t c = i;
            for (int k = 0; k < 8; k++) {
                c = c & 1 ? 0xedb88320u ^ c >> 1 : c >> 1;
            }
            table[i] = c;
        }
    }
    uint32_t crc = ~0u;
    while (n--) {
        crc = table[(crc ^ *p++) & 255] ^ crc >> 8;
    }
    return ~crc;
}

static unsigned leading_zeros(uint64_t v)
{
    unsigned n = 0;
    for (unsigned step = 32; step; step /= 2) {
        if (!(v >> (64 - step))) {
            n += step;
            v <<= step;
        }
    }
    return v ? n : 64;
}

void report_bits(void)
{
    uint64_t seed = 88172645463325252ull, mixed = 0;
    unsigned wrong = 0;
    uint8_t bytes[4096];
    for (unsigned i = 0; i < 20000; i++) {
        uint64_t v = next_random(&seed);
        wrong += slow_count(v) != fast_count(v) || reverse(reverse(v)) != v;
        mixed = mixed * 31 + reverse(v) + leading_zeros(v >> i % 64) + (v ^ v >> 1);
        bytes[i % sizeof(bytes)] = (uint8_t)(v >> 40);
    }
    printf("wrong %u mixed %016" PRIx64 "\n", wrong, mixed);
    printf("crc %08" PRIx32 " of check %08" PRIx32 "\n", crc32(bytes, sizeof(bytes)),
           crc32((const uint8_t *)"123456789", 9));
}
