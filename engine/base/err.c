/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Errors as values: formatting into the caller's struct err. Owns nothing; any thread.
 */
#include "engine/base/err.h"

#include <stdio.h>
#include <string.h>

/* A cut message must not end in the middle of a UTF-8 character. */
static void trim_utf8(char *s)
{
    size_t n = strlen(s);
    size_t back = 0;
    while (back < 4 && back < n && ((unsigned char)s[n - 1 - back] & 0xc0) == 0x80) {
        back++;
    }
    if (back < n) {
        unsigned char lead = (unsigned char)s[n - 1 - back];
        size_t need = lead >= 0xf0 ? 3 : lead >= 0xe0 ? 2 : lead >= 0xc0 ? 1 : 0;
        if (need > back) {
            s[n - 1 - back] = '\0';
        }
    }
}

int err_vset(struct err *e, int code, const char *fmt, va_list ap)
{
    if (e) {
        /* Through a copy: an argument may be the old message itself. */
        char text[sizeof(e->msg)];
        vsnprintf(text, sizeof(text), fmt, ap);
        trim_utf8(text);
        memcpy(e->msg, text, sizeof(text));
        e->code = code;
    }
    return code;
}

int err_set(struct err *e, int code, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    err_vset(e, code, fmt, ap);
    va_end(ap);
    return code;
}

int err_errno(struct err *e, int errnum, const char *fmt, ...)
{
    if (e) {
        char what[sizeof(e->msg)];
        char buf[128];
        va_list ap;
        va_start(ap, fmt);
        vsnprintf(what, sizeof(what), fmt, ap);
        va_end(ap);
        /* The GNU form, which config.h's _GNU_SOURCE selects; thread-safe. */
        const char *why = strerror_r(errnum, buf, sizeof(buf));
        err_set(e, -errnum, "%s: %s", what, why);
    }
    return -errnum;
}

void err_prefix(struct err *e, const char *fmt, ...)
{
    if (!e) {
        return;
    }
    char prefix[sizeof(e->msg)];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(prefix, sizeof(prefix), fmt, ap);
    va_end(ap);
    err_set(e, e->code, "%s: %s", prefix, e->msg);
}

void err_clear(struct err *e)
{
    if (e) {
        e->code = 0;
        e->msg[0] = '\0';
    }
}
