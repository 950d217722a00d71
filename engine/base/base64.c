/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Base64, both ways. Pure functions.
 */
#include "engine/base/base64.h"

#include <stdint.h>
#include <string.h>

static const char letters[] =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

void base64_add(struct buf *out, const void *p, size_t n)
{
    const uint8_t *b = p;
    for (size_t i = 0; i < n; i += 3) {
        uint32_t x = (uint32_t)b[i] << 16 | (i + 1 < n ? (uint32_t)b[i + 1] << 8 : 0) |
                     (i + 2 < n ? b[i + 2] : 0u);
        char four[4] = { letters[x >> 18], letters[x >> 12 & 63],
                         i + 1 < n ? letters[x >> 6 & 63] : '=',
                         i + 2 < n ? letters[x & 63] : '=' };
        buf_add(out, four, 4);
    }
}

static int value(char c)
{
    const char *at = c ? strchr(letters, c) : NULL;
    return at ? (int)(at - letters) : -1;
}

bool base64_take(struct buf *out, const char *text)
{
    size_t n = strlen(text);
    for (size_t i = 0; i < n; i += 4) {
        int a = value(text[i]), b = i + 3 < n ? value(text[i + 1]) : -1;
        if (a < 0 || b < 0) {
            return false;
        }
        bool last = i + 4 == n;
        int c = value(text[i + 2]), d = value(text[i + 3]);
        unsigned have = c >= 0 && d >= 0                                   ? 3
                        : c >= 0 && last && text[i + 3] == '='             ? 2
                        : last && text[i + 2] == '=' && text[i + 3] == '=' ? 1
                                                                           : 0;
        uint32_t x = (uint32_t)a << 18 | (uint32_t)b << 12 | (uint32_t)(c < 0 ? 0 : c) << 6 |
                     (uint32_t)(d < 0 ? 0 : d);
        uint8_t three[3] = { (uint8_t)(x >> 16), (uint8_t)(x >> 8), (uint8_t)x };
        if (!have) {
            return false;
        }
        buf_add(out, (const char *)three, have);
    }
    return true;
}
