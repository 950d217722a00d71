/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Errors as values.
 *
 * A function that can fail returns int (0 or a negative errno-style code) and takes a
 * `struct err *` last. It sets the error or logs it, never both, and leaves its outputs
 * untouched when it fails. `e` may be NULL: the text is dropped, the code still returned.
 * Plain data, no lock: an err belongs to the caller's stack.
 */
#ifndef VMD_BASE_ERR_H
#define VMD_BASE_ERR_H

#include <stdarg.h>

struct err {
    int code;      /* negative errno, 0 when unset */
    char msg[508]; /* names the thing and the remedy; UTF-8, always terminated */
};

#define ERR_INIT                                                                                \
    {                                                                                           \
        0, { 0 }                                                                                \
    }

/* Sets the message; returns `code` (a negative errno such as -EINVAL) so callers can
 * `return err_set(e, -EINVAL, "...")`. Any thread. */
int err_set(struct err *e, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
int err_vset(struct err *e, int code, const char *fmt, va_list ap);

/* As err_set, from a positive errno value; appends ": strerror(errnum)". Returns -errnum. */
int err_errno(struct err *e, int errnum, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* Puts "text: " before the message already set (for context on the way up). */
void err_prefix(struct err *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Forgets the error so that the struct can be used again. */
void err_clear(struct err *e);

#endif
