/* SPDX-License-Identifier: Apache-2.0 */
/* SHA-256 (FIPS 180-4) of a few texts. */
#include "project.h"

/* Fractions of the cube roots of the first 64 primes and of the square roots of the first 8. */
static uint32_t constants[64], start[8];

static uint32_t root_fraction(unsigned prime, unsigned degree)
{
    uint64_t low = 0, high = (uint64_t)prime << 32;
    while (high - low > 1) {
        uint64_t middle = low + (high - low) / 2;
        unsigned __int128 p = (unsigned __int128)middle * middle;
        bool above = degree == 2 ? p > (unsigned __int128)prime << 64
                                 : p * middle > (unsigned __int128)prime << 96;
        if (above) {
            high = middle;
        } else {
            low = middle;
        }
    }
    return (uint32_t)low;
}

static void make_constants(void)
{
    unsigned n = 0;
    for (unsigned candidate = 2; n < 64; candidate++) {
        bool prime = true;
        for (unsigned d = 2; d * d <= candidate; d++) {
            prime &= candidate % d != 0;
        }
        if (prime) {
            if (n < 8) {
                start[n] = root_fraction(candidate, 2);
            }
            constants[n++] = root_fraction(candidate, 3);
        }
    }
}

static uint32_t rotate(uint32_t v, unsigned by)
{
    return v >> by | v << (32 - by);
}

static void block(uint32_t h[8], const uint8_t *p)
{
    uint32_t w[64], s[8];
    for (unsigned i = 0; i < 16; i++) {
        w[i] = (uint32_t)p[4 * i] << 24 | (uint32_t)p[4 * i + 1] << 16 |
               (uint32_t)p[4 * i + 2] << 8 | p[4 * i + 3];
    }
    for (unsigned i = 16; i < 64; i++) {
        uint32_t a = rotate(w[i - 15], 7) ^ rotate(w[i - 15], 18) ^ w[i - 15] >> 3;
        uint32_t b = rotate(w[i - 2], 17) ^ rotate(w[i - 2], 19) ^ w[i - 2] >> 10;
        w[i] = w[i - 16] + a + w[i - 7] + b;
    }
    memcpy(s, h, sizeof(s));
    for (unsigned i = 0; i < 64; i++) {
        uint32_t e = rotate(s[4], 6) ^ rotate(s[4], 11) ^ rotate(s[4], 25);
        uint32_t t1 = s[7] + e + ((s[4] & s[5]) ^ (~s[4] & s[6])) + constants[i] + w[i];
        uint32_t a = rotate(s[0], 2) ^ rotate(s[0], 13) ^ rotate(s[0], 22);
        uint32_t t2 = a + ((s[0] & s[1]) ^ (s[0] & s[2]) ^ (s[1] & s[2]));
        memmove(s + 1, s, 7 * sizeof(s[0]));
        s[4] += t1;
        s[0] = t1 + t2;
    }
    for (unsigned i = 0; i < 8; i++) {
        h[i] += s[i];
    }
}

static void digest(const char *text, unsigned times)
{
    uint8_t buffer[64];
    uint32_t h[8];
    uint64_t total = 0;
    unsigned fill = 0;
    memcpy(h, start, sizeof(h));
    for (unsigned t = 0; t < times; t++) {
        for (const char *c = text; *c; c++, total++) {
            buffer[fill++] = (uint8_t)*c;
            if (fill == 64) {
                block(h, buffer);
                fill = 0;
            }
        }
    }
    buffer[fill++] = 0x80;
    if (fill > 56) {
        memset(buffer + fill, 0, 64 - fill);
        block(h, buffer);
        fill = 0;
    }
    memset(buffer + fill, 0, 56 - fill);
    for (unsigned i = 0; i < 8; i++) {
        buffer[56 + i] = (uint8_t)(total * 8 >> (56 - 8 * i));
    }
    block(h, buffer);
    for (unsigned i = 0; i < 8; i++) {
        printf("%08" PRIx32, h[i]);
    }
    printf(" %.12s x %u\n", text, times);
}

void report_sha256(void)
{
    make_constants();
    digest("", 1);
    digest("abc", 1);
    digest("a", 1000000);
    digest("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", 1);
}
