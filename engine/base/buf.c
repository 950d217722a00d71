/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Growable byte buffer. Owns the bytes of each struct buf; plain data, the caller's thread.
 */
#include "engine/base/buf.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

void buf_done(struct buf *b)
{
    free(b->data);
    *b = (struct buf)BUF_INIT;
}

void buf_reserve(struct buf *b, size_t more)
{
    size_t need; /* with the closing NUL; an impossible size ends in xrealloc_n's abort */
    if (__builtin_add_overflow(b->len, more, &need) || __builtin_add_overflow(need, 1, &need)) {
        need = SIZE_MAX;
    }
    if (need <= b->cap) {
        return;
    }
    size_t cap = b->cap < 64 ? 64 : b->cap;
    while (cap < need && cap <= SIZE_MAX / 2) {
        cap *= 2;
    }
    cap = cap < need ? need : cap;
    b->data = xrealloc_n(b->data, cap, 1);
    b->cap = cap;
    b->data[b->len] = '\0';
}

void buf_add(struct buf *b, const void *p, size_t n)
{
    buf_reserve(b, n);
    if (n > 0) {
        memcpy(b->data + b->len, p, n);
    }
    b->len += n;
    b->data[b->len] = '\0';
}

void buf_add_str(struct buf *b, const char *s)
{
    buf_add(b, s, strlen(s));
}

void buf_add_char(struct buf *b, char c)
{
    buf_add(b, &c, 1);
}

void buf_printf(struct buf *b, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    buf_vprintf(b, fmt, ap);
    va_end(ap);
}

void buf_vprintf(struct buf *b, const char *fmt, va_list ap)
{
    va_list again;
    va_copy(again, ap);
    buf_reserve(b, 0);
    int n = vsnprintf(b->data + b->len, b->cap - b->len, fmt, ap);
    if (n > 0 && (size_t)n >= b->cap - b->len) {
        buf_reserve(b, (size_t)n);
        n = vsnprintf(b->data + b->len, b->cap - b->len, fmt, again);
    }
    va_end(again);
    if (n > 0) {
        b->len += (size_t)n;
    }
    b->data[b->len] = '\0';
}

void buf_consume(struct buf *b, size_t n)
{
    assert(n <= b->len);
    if (n > 0) {
        memmove(b->data, b->data + n, b->len - n + 1);
        b->len -= n;
    }
}

char *buf_take(struct buf *b)
{
    buf_reserve(b, 0);
    char *data = b->data;
    *b = (struct buf)BUF_INIT;
    return data;
}
