/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Strings: numbers, sizes, names, UUIDs. Owns nothing; pure functions, any thread.
 */
#include "engine/base/str.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

bool str_copy(char *dst, size_t size, const char *src)
{
    assert(size > 0);
    size_t n = strlen(src);
    size_t fit = n < size ? n : size - 1;
    memcpy(dst, src, fit);
    dst[fit] = '\0';
    return fit == n;
}

bool str_starts(const char *s, const char *prefix)
{
    return strncmp(s, prefix, strlen(prefix)) == 0;
}

static int digit_value(char c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    if (c >= 'a' && c <= 'f') {
        return c - 'a' + 10;
    }
    if (c >= 'A' && c <= 'F') {
        return c - 'A' + 10;
    }
    return 99;
}

/* Digits of `base` from *s on, at least one; *s moves past them. -ERANGE when over 64 bits. */
static int scan_digits(const char **s, unsigned base, uint64_t *out)
{
    uint64_t value = 0;
    bool over = false;
    const char *p = *s;
    for (; digit_value(*p) < (int)base; p++) {
        over = over || __builtin_mul_overflow(value, base, &value) ||
               __builtin_add_overflow(value, (unsigned)digit_value(*p), &value);
    }
    if (p == *s) {
        return -EINVAL;
    }
    *s = p;
    *out = value;
    return over ? -ERANGE : 0;
}

int str_to_u64(const char *s, uint64_t min, uint64_t max, const char *what, uint64_t *out,
               struct err *e)
{
    bool hex = s[0] == '0' && (s[1] == 'x' || s[1] == 'X');
    const char *p = hex ? s + 2 : s;
    uint64_t value;
    int rc = scan_digits(&p, hex ? 16 : 10, &value);
    if (rc == -EINVAL || *p) {
        return err_set(e, -EINVAL, "%s: '%.64s' is not a number", what, s);
    }
    if (rc || value < min || value > max) {
        return err_set(e, -ERANGE, "%s: %.64s is not in the range %" PRIu64 " to %" PRIu64,
                       what, s, min, max);
    }
    *out = value;
    return 0;
}

/* "", "K", "KB", "KiB" and so on, in either case: the power of two, or -1. */
static int size_shift(const char *s)
{
    static const char units[] = "KMGTPE";
    int shift = 0;
    if (*s && *s != 'b' && *s != 'B') {
        const char *u = strchr(units, *s >= 'a' && *s <= 'z' ? *s - 'a' + 'A' : *s);
        if (!u) {
            return -1;
        }
        shift = 10 * (int)(u - units + 1);
        s++;
        if (*s == 'i' && (s[1] == 'B' || s[1] == 'b')) {
            s++;
        }
    }
    if (*s == 'B' || *s == 'b') {
        s++;
    }
    return *s ? -1 : shift;
}

int str_to_size(const char *s, const char *what, uint64_t *out, struct err *e)
{
    const char *p = s;
    uint64_t whole, part = 0, scale = 1;
    int rc = scan_digits(&p, 10, &whole);
    if (!rc && *p == '.') {
        const char *from = ++p;
        rc = scan_digits(&p, 10, &part);
        if (!rc && p - from > 18) {
            rc = -EINVAL; /* more digits than any size has */
        }
        for (; !rc && from < p; from++) {
            scale *= 10;
        }
    }
    int shift = rc == -EINVAL ? -1 : size_shift(p);
    if (shift < 0 || (scale > 1 && shift == 0)) {
        return err_set(e, -EINVAL, "%s: '%.64s' is not a size such as 4096, 512M or 1.5G", what,
                       s);
    }
    unsigned __int128 bytes = (unsigned __int128)whole << shift;
    bytes += ((unsigned __int128)part << shift) / scale;
    if (rc || bytes > UINT64_MAX) {
        return err_set(e, -ERANGE, "%s: %.64s is larger than 64 bits of bytes", what, s);
    }
    *out = (uint64_t)bytes;
    return 0;
}

void str_size(uint64_t bytes, char *out, size_t n)
{
    static const char *const units[] = { "B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB" };
    unsigned u = bytes ? (unsigned)(63 - __builtin_clzll(bytes)) / 10 : 0;
    uint64_t unit = UINT64_C(1) << (10 * u);
    uint64_t hundredths = (uint64_t)((unsigned __int128)(bytes % unit) * 100 / unit);
    bool exact = (unsigned __int128)(bytes % unit) * 100 % unit == 0;
    if (bytes % unit == 0) {
        snprintf(out, n, "%" PRIu64 " %s", bytes / unit, units[u]);
    } else if (exact && hundredths % 10 == 0) {
        snprintf(out, n, "%" PRIu64 ".%" PRIu64 " %s", bytes / unit, hundredths / 10, units[u]);
    } else if (exact) {
        snprintf(out, n, "%" PRIu64 ".%02" PRIu64 " %s", bytes / unit, hundredths, units[u]);
    } else if (bytes % (unit >> 10) == 0) {
        snprintf(out, n, "%" PRIu64 " %s", bytes / (unit >> 10), units[u - 1]);
    } else {
        snprintf(out, n, "%" PRIu64 ".%" PRIu64 " %s", bytes / unit, hundredths / 10, units[u]);
    }
}

static bool is_alnum(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

bool str_is_name(const char *s)
{
    if (!is_alnum(s[0])) {
        return false;
    }
    size_t n = 1;
    for (; s[n] && n < 64; n++) {
        if (!is_alnum(s[n]) && !strchr("._+-", s[n])) {
            return false;
        }
    }
    return n <= 63;
}

void uuid_make(char out[37])
{
    unsigned char b[16];
    ssize_t got;
    do { /* up to 256 bytes come whole once the pool is ready, getrandom(2) */
        got = getrandom(b, sizeof(b), 0);
    } while (got < 0 && errno == EINTR);
    assert(got == (ssize_t)sizeof(b));
    b[6] = (unsigned char)((b[6] & 0x0f) | 0x40); /* version 4, RFC 9562 §5.4 */
    b[8] = (unsigned char)((b[8] & 0x3f) | 0x80); /* variant 10 */
    char *p = out;
    for (int i = 0; i < 16; i++) {
        if (i == 4 || i == 6 || i == 8 || i == 10) {
            *p++ = '-';
        }
        *p++ = "0123456789abcdef"[b[i] >> 4];
        *p++ = "0123456789abcdef"[b[i] & 15];
    }
    *p = '\0';
}

bool uuid_ok(const char *s)
{
    for (int i = 0; i < 36; i++) {
        bool dash = i == 8 || i == 13 || i == 18 || i == 23;
        bool lower_hex = (s[i] >= '0' && s[i] <= '9') || (s[i] >= 'a' && s[i] <= 'f');
        if (dash ? s[i] != '-' : !lower_hex) {
            return false;
        }
    }
    return s[36] == '\0';
}
