/* SPDX-License-Identifier: Apache-2.0 */
/* Errors of the API: building, encoding, reading. Pure, any thread. */
#include "api-schema/json/error.h"

#include "api-schema/json/json.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* A sequence that was begun and has no room left to end. */
static bool is_cut(const char *s, size_t n)
{
    unsigned char first = (unsigned char)s[0];
    size_t need = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2;

    for (size_t i = 1; i < n; i++) {
        need = ((unsigned char)s[i] & 0xc0) == 0x80 ? need : 0;
    }
    return first >= 0xc2 && first <= 0xf4 && n < need;
}

/* One clean line of UTF-8: what is none becomes '?', a sequence cut at the end goes. */
static void tidy(char *s)
{
    size_t n = strlen(s), at = 0;

    while (n > 0 && s[n - 1] == '\n') {
        s[--n] = 0;
    }
    while (at < n) {
        size_t len = api_utf8_len(s + at, n - at);

        if (len == 0 && is_cut(s + at, n - at)) {
            s[at] = 0;
            return;
        }
        if (len == 0 || (unsigned char)s[at] < 0x20 || s[at] == 0x7f) {
            s[at] = s[at] == '\n' || s[at] == '\t' ? ' ' : '?';
            len = 1;
        }
        at += len;
    }
}

int api_error_vset(struct api_error *x, int code, const char *object, const char *remedy,
                   const char *fmt, va_list ap)
{
    if (!x) {
        return -1;
    }
    struct api_error made = { .code = code };

    /* Built aside: the arguments may point into *x. */
    snprintf(made.object, sizeof(made.object), "%s", object ? object : "");
    snprintf(made.remedy, sizeof(made.remedy), "%s", remedy ? remedy : "");
    vsnprintf(made.message, sizeof(made.message), fmt, ap);
    tidy(made.object);
    tidy(made.remedy);
    tidy(made.message);
    *x = made;
    return -1;
}

int api_error_set(struct api_error *x, int code, const char *object, const char *remedy,
                  const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    api_error_vset(x, code, object, remedy, fmt, ap);
    va_end(ap);
    return -1;
}

static int code_of_errno(int negative)
{
    static const struct {
        int errnum, code;
    } map[] = {
        { EEXIST, API_E_EXISTS },         { ENOENT, API_E_NOT_FOUND },
        { ESRCH, API_E_NOT_FOUND },       { EACCES, API_E_DENIED },
        { EPERM, API_E_DENIED },          { EBUSY, API_E_BUSY },
        { EAGAIN, API_E_BUSY },           { EADDRINUSE, API_E_BUSY },
        { ENOMEM, API_E_HOST_LIMIT },     { EMFILE, API_E_HOST_LIMIT },
        { ENFILE, API_E_HOST_LIMIT },     { ENOSPC, API_E_STORE_ERROR },
        { EDQUOT, API_E_STORE_ERROR },    { EROFS, API_E_STORE_ERROR },
        { EIO, API_E_STORE_ERROR },       { ETIMEDOUT, API_E_TIMEOUT },
        { EINVAL, API_E_INVALID_PARAMS }, { ERANGE, API_E_INVALID_PARAMS },
        { ENOTSUP, API_E_UNSUPPORTED },   { ENOSYS, API_E_UNSUPPORTED },
        { ECANCELED, API_E_CANCELLED },
    };

    for (size_t i = 0; i < sizeof(map) / sizeof(map[0]); i++) {
        if (map[i].errnum == -negative) {
            return map[i].code;
        }
    }
    return API_E_INTERNAL_ERROR;
}

int api_error_from(struct api_error *x, int code, const char *object, const char *remedy,
                   const struct err *e)
{
    return api_error_set(x, code ? code : code_of_errno(e->code), object, remedy, "%s", e->msg);
}

static const struct api_code_info *find_code(int code)
{
    for (size_t i = 0; i < API_N_CODES; i++) {
        if (api_codes[i].code == code) {
            return &api_codes[i];
        }
    }
    return NULL;
}

const char *api_code_name(int code)
{
    const struct api_code_info *info = find_code(code);

    return info ? info->name : "error";
}

int api_code_exit(int code)
{
    const struct api_code_info *info = find_code(code);

    return info ? info->exit : 1;
}

struct json_object *api_error_encode(const struct api_error *x)
{
    struct json_object *o = json_object_new_object(), *data = json_object_new_object();

    api_json_set_int(o, "code", x->code);
    api_json_set_str(o, "message", x->message);
    api_json_set_str(data, "error", api_code_name(x->code));
    if (x->object[0]) {
        api_json_set_str(data, "object", x->object);
    }
    if (x->remedy[0]) {
        api_json_set_str(data, "remedy", x->remedy);
    }
    api_json_set(o, "data", data);
    return o;
}

void api_error_decode(struct api_error *x, const struct json_object *o)
{
    const struct json_object *data = api_json_get(o, "data");
    const char *message = api_json_get_str(o, "message");
    int64_t code = api_json_get_int(o, "code", API_E_INTERNAL_ERROR);

    if (code == 0 || code < INT32_MIN || code > INT32_MAX) {
        code = API_E_INTERNAL_ERROR;
    }
    api_error_set(x, (int)code, api_json_get_str(data, "object"),
                  api_json_get_str(data, "remedy"), "%s",
                  message ? message : "the peer reported an error without a message");
}
