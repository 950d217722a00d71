/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Growable byte buffer, always NUL-terminated behind its length so that text can be used in place.
 * Plain data, no lock.
 */
#ifndef VMD_BASE_BUF_H
#define VMD_BASE_BUF_H

#include "engine/base/mem.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>

struct buf {
    char *data; /* NULL while empty and never grown */
    size_t len, cap;
};

#define BUF_INIT                                                                                \
    {                                                                                           \
        NULL, 0, 0                                                                              \
    }
void buf_done(struct buf *b); /* frees the bytes; the struct is empty again */
void buf_reserve(struct buf *b, size_t more);
void buf_add(struct buf *b, const void *p, size_t n);
void buf_add_str(struct buf *b, const char *s);
void buf_add_char(struct buf *b, char c);
void buf_printf(struct buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void buf_vprintf(struct buf *b, const char *fmt, va_list ap);
void buf_consume(struct buf *b, size_t n); /* drops n bytes at the front, n <= len */
char *buf_take(struct buf *b);             /* gives the bytes away (never NULL), buffer empty */
#define AUTO_BUF __attribute__((cleanup(buf_done))) struct buf

#endif
