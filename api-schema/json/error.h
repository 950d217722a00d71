/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Errors of the API: a code of the schema, what happened, the failing object and a remedy.
 * Plain data on the caller's stack, no lock.
 */
#ifndef VMD_API_ERROR_H
#define VMD_API_ERROR_H

#include "api-schema/gen/errors.h" /* enum api_code: API_E_NOT_FOUND, ... */
#include "engine/base/err.h"

#include <stdarg.h>

struct json_object;

struct api_error {
    int code;          /* enum api_code, or a number a peer sent; 0 when unset */
    char object[160];  /* what failed: "VM db1", "/srv/Image", "config.memory"; may be empty */
    char remedy[320];  /* what to do about it; may be empty */
    char message[640]; /* what happened, one line of UTF-8 */
};

#define API_ERROR_INIT                                                                         \
    {                                                                                          \
        0, { 0 }, { 0 },                                                                       \
        {                                                                                      \
            0                                                                                  \
        }                                                                                      \
    }

/* Fills all of it; `object` and `remedy` may be NULL. Returns -1 so that callers can
 * `return api_error_set(...)`. `x` may be NULL. Texts that are too long are cut at a UTF-8
 * boundary; control characters become '?'. Any thread. */
int api_error_set(struct api_error *x, int code, const char *object, const char *remedy,
                  const char *fmt, ...) __attribute__((format(printf, 5, 6)));
int api_error_vset(struct api_error *x, int code, const char *object, const char *remedy,
                   const char *fmt, va_list ap);
/* From an errno-style error: the code is chosen from e->code unless `code` is not 0. */
int api_error_from(struct api_error *x, int code, const char *object, const char *remedy,
                   const struct err *e);

/* Name of a code ("not-found"), "error" for a number of no known code. Static. */
const char *api_code_name(int code);
/* Exit status vmctl gives for it. */
int api_code_exit(int code);

/* JSON-RPC error object {code, message, data: {error, object, remedy}}; the caller's. */
struct json_object *api_error_encode(const struct api_error *x);
/* Reads one from a peer, leniently; anything missing stays empty. */
void api_error_decode(struct api_error *x, const struct json_object *o);

#endif
