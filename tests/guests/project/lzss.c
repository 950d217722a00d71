/* SPDX-License-Identifier: Apache-2.0 */
/* LZSS with a hash chain: packs a text, unpacks it, compares. */
#include "project.h"

#define WINDOW 4096u
#define SHORTEST 3u
#define LONGEST 18u

static size_t pack(const uint8_t *in, size_t n, uint8_t *out)
{
    static int head[65536], prev[65536];
    size_t at = 0, used = 0;
    memset(head, -1, sizeof(head));
    while (at < n) {
        size_t flags = used++;
        out[flags] = 0;
        for (unsigned bit = 0; bit < 8 && at < n; bit++) {
            size_t best = 0, from = 0;
            unsigned tries = 64;
            unsigned h = at + 2 < n ? (in[at] << 8 ^ in[at + 1] << 4 ^ in[at + 2]) & 65535 : 0;
            for (int c = at + 2 < n ? head[h] : -1;
                 c >= 0 && at - (size_t)c < WINDOW && tries--; c = prev[c]) {
                size_t length = 0;
                while (length < LONGEST && at + length < n &&
                       in[(size_t)c + length] == in[at + length]) {
                    length++;
                }
                if (length > best) {
                    best = length;
                    from = at - (size_t)c;
                }
            }
            size_t take = best >= SHORTEST ? best : 1;
            if (best >= SHORTEST) {
                out[flags] |= (uint8_t)(1u << bit);
                out[used++] = (uint8_t)from;
                out[used++] = (uint8_t)((from >> 8) << 4 | (best - SHORTEST));
            } else {
                out[used++] = in[at];
            }
            for (; take--; at++) {
                if (at + 2 < n) {
                    h = (in[at] << 8 ^ in[at + 1] << 4 ^ in[at + 2]) & 65535;
                    prev[at] = head[h];
                    head[h] = (int)at;
                }
            }
        }
    }
    return used;
}

static size_t unpack(const uint8_t *in, size_t n, uint8_t *out)
{
    size_t used = 0, at = 0;
    while (at < n) {
        unsigned flags = in[at++];
        for (unsigned bit = 0; bit < 8 && at < n; bit++) {
            if (flags >> bit & 1) {
                size_t from = in[at] | (size_t)(in[at + 1] >> 4) << 8;
                size_t length = (in[at + 1] & 15u) + SHORTEST;
                at += 2;
                for (; length--; used++) {
                    out[used] = out[used - from];
                }
            } else {
                out[used++] = in[at++];
            }
        }
    }
    return used;
}

void report_lzss(void)
{
    static const char *const words[] = { "guest ", "page ", "block ", "register ",
                                         "the ",   "of ",   "a " };
    static uint8_t text[60000], packed[90000], back[60000];
    size_t n = 0;
    uint64_t seed = 3;
    while (n < sizeof(text) - 16) {
        const char *word = words[next_random(&seed) % 7];
        size_t length = strlen(word);
        memcpy(text + n, word, length);
        n += length;
    }
    size_t size = pack(text, n, packed);
    size_t again = unpack(packed, size, back);
    printf("%zu to %zu and back %s\n", n, size,
           again == n && memcmp(text, back, n) == 0 ? "equal" : "DIFFERENT");
}
