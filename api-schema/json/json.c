/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The gate before json-c: one linear pass over the text checks what json-c is lenient about (bounds,
 * UTF-8, numbers that would be clamped, \u0000, words) and counts members; json-c then parses.
 * A duplicate member shows as fewer members in the tree than in the text. Pure, any thread.
 */
#include "api-schema/json/json.h"

#include "engine/base/buf.h"
#include "engine/base/fd.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { NUMBER_MAX = 64 /* characters of a number */ };

struct scan {
    const unsigned char *text;
    size_t at, len;
    unsigned depth, max_depth;
    size_t members; /* colons outside strings */
    size_t values;  /* and names of members */
    size_t max_values;
    struct err *e;
};

static int bad(struct scan *s, const char *what)
{
    return err_set(s->e, -EINVAL, "not acceptable JSON at byte %zu: %s", s->at, what);
}

/* Shortest form only, no surrogates. */
size_t api_utf8_len(const char *s, size_t room)
{
    const unsigned char *p = (const unsigned char *)s;
    static const struct {
        unsigned char first_low, first_high, second_low, second_high, len;
    } forms[] = {
        { 0x00, 0x7f, 0x00, 0x00, 1 }, { 0xc2, 0xdf, 0x80, 0xbf, 2 },
        { 0xe0, 0xe0, 0xa0, 0xbf, 3 }, { 0xe1, 0xec, 0x80, 0xbf, 3 },
        { 0xed, 0xed, 0x80, 0x9f, 3 }, { 0xee, 0xef, 0x80, 0xbf, 3 },
        { 0xf0, 0xf0, 0x90, 0xbf, 4 }, { 0xf1, 0xf3, 0x80, 0xbf, 4 },
        { 0xf4, 0xf4, 0x80, 0x8f, 4 },
    };

    for (size_t i = 0; i < ARRAY_LEN(forms); i++) {
        if (p[0] < forms[i].first_low || p[0] > forms[i].first_high) {
            continue;
        }
        if (room < forms[i].len) {
            return 0;
        }
        if (forms[i].len > 1 && (p[1] < forms[i].second_low || p[1] > forms[i].second_high)) {
            return 0;
        }
        for (size_t k = 2; k < forms[i].len; k++) {
            if ((p[k] & 0xc0) != 0x80) {
                return 0;
            }
        }
        return forms[i].len;
    }
    return 0;
}

/* Four hexadecimal digits at s->at; -1 when they are none. */
static int hex4(const struct scan *s)
{
    int v = 0;

    if (s->len - s->at < 4) {
        return -1;
    }
    for (size_t i = 0; i < 4; i++) {
        unsigned char c = s->text[s->at + i];
        int digit = c >= '0' && c <= '9'   ? c - '0'
                    : c >= 'a' && c <= 'f' ? c - 'a' + 10
                    : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                           : -1;
        if (digit < 0) {
            return -1;
        }
        v = v * 16 + digit;
    }
    return v;
}

/* After "\u". */
static int scan_unicode_escape(struct scan *s)
{
    int v = hex4(s);

    if (v < 0) {
        return bad(s, "\\u needs four hexadecimal digits");
    }
    if (v == 0) {
        return bad(s, "\\u0000 is refused");
    }
    s->at += 4;
    if (v >= 0xdc00 && v <= 0xdfff) {
        return bad(s, "half of a surrogate pair");
    }
    if (v < 0xd800 || v > 0xdbff) {
        return 0;
    }
    if (s->len - s->at < 6 || s->text[s->at] != '\\' || s->text[s->at + 1] != 'u') {
        return bad(s, "half of a surrogate pair");
    }
    s->at += 2;
    v = hex4(s);
    if (v < 0xdc00 || v > 0xdfff) {
        return bad(s, "half of a surrogate pair");
    }
    s->at += 4;
    return 0;
}

/* At the opening quote; ends behind the closing one. */
static int scan_string(struct scan *s)
{
    s->at++;
    while (s->at < s->len) {
        unsigned char c = s->text[s->at];

        if (c == '"') {
            s->at++;
            return 0;
        }
        if (c < 0x20) {
            return bad(s, "a control character in a string; write it as \\u00XX");
        }
        if (c == '\\') {
            s->at++;
            if (s->at == s->len) {
                break;
            }
            c = s->text[s->at];
            if (!c || !strchr("\"\\/bfnrtu", c)) {
                return bad(s, "no such escape in a string");
            }
            s->at++;
            if (c == 'u' && scan_unicode_escape(s) < 0) {
                return -EINVAL;
            }
            continue;
        }
        size_t n = api_utf8_len((const char *)s->text + s->at, s->len - s->at);
        if (n == 0) {
            return bad(s, "not UTF-8");
        }
        s->at += n;
    }
    return bad(s, "the text ends within a string");
}

static size_t skip_digits(const char *t, size_t at)
{
    while (t[at] >= '0' && t[at] <= '9') {
        at++;
    }
    return at;
}

/* Grammar of RFC 8259 §6; false also when something follows. */
static bool number_ok(const char *t, bool *is_integer)
{
    size_t at = t[0] == '-' ? 1 : 0, begin = at;

    *is_integer = true;
    at = skip_digits(t, at);
    if (at == begin || (t[begin] == '0' && at - begin > 1)) {
        return false;
    }
    if (t[at] == '.') {
        *is_integer = false;
        begin = ++at;
        at = skip_digits(t, at);
        if (at == begin) {
            return false;
        }
    }
    if (t[at] == 'e' || t[at] == 'E') {
        *is_integer = false;
        at++;
        if (t[at] == '+' || t[at] == '-') {
            at++;
        }
        begin = at;
        at = skip_digits(t, at);
        if (at == begin) {
            return false;
        }
    }
    return t[at] == 0;
}

static int scan_number(struct scan *s)
{
    char text[NUMBER_MAX + 1];
    size_t n = 0;
    bool is_integer;

    while (s->at + n < s->len && s->text[s->at + n] &&
           strchr("+-.eE0123456789", s->text[s->at + n])) {
        if (n == NUMBER_MAX) {
            return bad(s, "a number of more than 64 characters");
        }
        text[n] = (char)s->text[s->at + n];
        n++;
    }
    text[n] = 0;
    if (!number_ok(text, &is_integer)) {
        return bad(s, "not a number as JSON writes it");
    }
    errno = 0;
    if (!is_integer) {
        if (!isfinite(strtod(text, NULL))) {
            return bad(s, "a number too large for a double");
        }
    } else if (text[0] == '-') {
        (void)strtoll(text, NULL, 10);
    } else {
        (void)strtoull(text, NULL, 10);
    }
    if (is_integer && errno == ERANGE) {
        return bad(s, "an integer beyond 64 bits");
    }
    s->at += n;
    return 0;
}

static int scan_word(struct scan *s)
{
    static const char *const words[] = { "true", "false", "null" };

    for (size_t i = 0; i < ARRAY_LEN(words); i++) {
        size_t n = strlen(words[i]);
        if (s->len - s->at >= n && memcmp(s->text + s->at, words[i], n) == 0) {
            s->at += n;
            return 0;
        }
    }
    return bad(s, "expected a value, a comma or a bracket");
}

/* One token or one byte of white space. */
static int scan_token(struct scan *s)
{
    unsigned char c = s->text[s->at];

    if (!strchr("}]:, \t\n\r", c) && ++s->values > s->max_values) {
        return err_set(s->e, -EINVAL, "JSON of more than %zu values and names at byte %zu",
                       s->max_values, s->at);
    }
    switch (c) {
    case '"':
        return scan_string(s);
    case '{':
    case '[':
        if (++s->depth > s->max_depth) {
            return err_set(s->e, -EINVAL, "JSON nested deeper than %u at byte %zu",
                           s->max_depth, s->at);
        }
        break;
    case '}':
    case ']':
        if (s->depth == 0) {
            return bad(s, "a closing bracket without an opening one");
        }
        s->depth--;
        break;
    case ':':
        s->members++;
        break;
    case ',':
    case ' ':
    case '\t':
    case '\n':
    case '\r':
        break;
    default:
        return c == '-' || (c >= '0' && c <= '9') ? scan_number(s) : scan_word(s);
    }
    s->at++;
    return 0;
}

static int scan_all(struct scan *s)
{
    int rc = 0;

    while (rc == 0 && s->at < s->len) {
        rc = scan_token(s);
    }
    if (rc == 0 && s->depth > 0) {
        rc = bad(s, "the text ends within an object or array");
    }
    return rc;
}

static size_t count_members(const struct json_object *o)
{
    size_t n = 0;

    if (json_object_is_type(o, json_type_object)) {
        json_object_object_foreach((struct json_object *)o, key, v)
        {
            (void)key;
            n += 1 + count_members(v);
        }
    } else if (json_object_is_type(o, json_type_array)) {
        for (size_t i = 0; i < json_object_array_length(o); i++) {
            n += count_members(json_object_array_get_idx(o, i));
        }
    }
    return n;
}

/* The text is known to be well formed and to have a member twice: names it. */
static int report_duplicate(const char *text, size_t len, unsigned max_depth, struct err *e)
{
    struct scan s = { .text = (const unsigned char *)text,
                      .len = len,
                      .max_depth = max_depth,
                      .max_values = SIZE_MAX };
    struct json_object **seen = xnew_n(struct json_object *, (size_t)max_depth + 1);
    size_t string_at = 0, string_end = 0;
    int rc = 0;

    while (rc == 0 && s.at < s.len) {
        unsigned char c = s.text[s.at];
        size_t begin = s.at;

        if (c == '}' || c == ']') {
            json_object_put(seen[s.depth]);
            seen[s.depth] = NULL;
        }
        rc = scan_token(&s);
        if (c == '{' && rc == 0) {
            seen[s.depth] = json_object_new_object();
        } else if (c == '"') {
            string_at = begin;
            string_end = s.at;
        } else if (c == ':') {
            AUTO_FREE char *token = xstrndup(text + string_at, string_end - string_at);
            AUTO_JSON key = json_tokener_parse(token);
            const char *name = json_object_get_string(key);
            if (json_object_object_get_ex(seen[s.depth], name, NULL)) {
                rc = err_set(e, -EINVAL,
                             "not acceptable JSON at byte %zu: member %.80s stands twice "
                             "in one object",
                             string_at, token);
            } else {
                json_object_object_add(seen[s.depth], name, NULL);
            }
        }
    }
    for (unsigned i = 0; i <= max_depth; i++) {
        json_object_put(seen[i]);
    }
    free(seen);
    return rc < 0 ? rc : err_set(e, -EINVAL, "a member stands twice in one object");
}

static int parse(const char *text, size_t len, unsigned max_depth, struct json_object **out,
                 struct err *e)
{
    struct json_tokener *tok = json_tokener_new_ex((int)max_depth + 2);
    struct json_object *o;
    enum json_tokener_error why;
    size_t end;

    if (!tok) {
        return err_set(e, -ENOMEM, "no memory to parse JSON of %zu bytes", len);
    }
    json_tokener_set_flags(tok, JSON_TOKENER_STRICT); /* UTF-8 was looked at */
    o = json_tokener_parse_ex(tok, text, (int)len);
    why = json_tokener_get_error(tok);
    end = json_tokener_get_parse_end(tok);
    if (why == json_tokener_continue) {
        /* A number at the end is only known to be whole by what follows it. */
        o = json_tokener_parse_ex(tok, "", 1);
        why = json_tokener_get_error(tok);
        end = len;
    }
    json_tokener_free(tok);
    if (why != json_tokener_success) {
        json_object_put(o);
        return err_set(e, -EINVAL, "not acceptable JSON at byte %zu: %s", end,
                       why == json_tokener_continue ? "the text ends too early"
                                                    : json_tokener_error_desc(why));
    }
    while (end < len && text[end] && strchr(" \t\r\n", text[end])) {
        end++;
    }
    if (end < len) {
        json_object_put(o);
        return err_set(e, -EINVAL,
                       "not acceptable JSON at byte %zu: something follows the value", end);
    }
    *out = o;
    return 0;
}

int api_json_parse_max(const char *text, size_t len, size_t max_size, unsigned max_depth,
                       struct json_object **out, struct err *e)
{
    struct scan s = { .text = (const unsigned char *)text, .len = len, .e = e };
    struct json_object *o = NULL;
    int rc;

    max_size = max_size ? max_size : API_JSON_MAX_SIZE;
    s.max_depth = max_depth = max_depth ? max_depth : API_JSON_MAX_DEPTH;
    s.max_values = max_size / API_JSON_BYTES_A_VALUE + 16;
    if (len > max_size) {
        return err_set(e, -EMSGSIZE, "JSON of %zu bytes exceeds the limit of %zu", len,
                       max_size);
    }
    rc = scan_all(&s);
    if (rc < 0) {
        return rc;
    }
    rc = parse(text, len, max_depth, &o, e);
    if (rc < 0) {
        return rc;
    }
    if (count_members(o) != s.members) {
        json_object_put(o);
        return report_duplicate(text, len, max_depth, e);
    }
    *out = o;
    return 0;
}

int api_json_parse(const char *text, size_t len, struct json_object **out, struct err *e)
{
    return api_json_parse_max(text, len, 0, 0, out, e);
}

int api_json_file(const char *path, struct json_object **out, struct err *e)
{
    AUTO_BUF b = BUF_INIT;
    bool is_stdin = strcmp(path, "-") == 0;
    int rc;

    rc = is_stdin ? fd_slurp(0, &b, API_JSON_MAX_SIZE, "standard input", e)
                  : file_slurp(path, &b, API_JSON_MAX_SIZE, e);
    if (rc < 0) {
        return rc;
    }
    rc = api_json_parse(b.data ? b.data : "", b.len, out, e);
    if (rc < 0) {
        err_prefix(e, "%s", is_stdin ? "standard input" : path);
    }
    return rc;
}

void api_json_set(struct json_object *o, const char *key, struct json_object *take_value)
{
    json_object_object_add(o, key, take_value);
}

void api_json_set_str(struct json_object *o, const char *key, const char *value)
{
    api_json_set(o, key, value ? json_object_new_string(value) : NULL);
}

void api_json_set_int(struct json_object *o, const char *key, int64_t value)
{
    api_json_set(o, key, json_object_new_int64(value));
}

void api_json_set_bool(struct json_object *o, const char *key, bool value)
{
    api_json_set(o, key, json_object_new_boolean(value));
}

struct json_object *api_json_get(const struct json_object *o, const char *key)
{
    struct json_object *v = NULL;

    if (json_object_is_type(o, json_type_object)) {
        json_object_object_get_ex(o, key, &v);
    }
    return v;
}

const char *api_json_get_str(const struct json_object *o, const char *key)
{
    struct json_object *v = api_json_get(o, key);

    return json_object_is_type(v, json_type_string) ? json_object_get_string(v) : NULL;
}

int64_t api_json_get_int(const struct json_object *o, const char *key, int64_t otherwise)
{
    struct json_object *v = api_json_get(o, key);

    return json_object_is_type(v, json_type_int) ? json_object_get_int64(v) : otherwise;
}

bool api_json_get_bool(const struct json_object *o, const char *key, bool otherwise)
{
    struct json_object *v = api_json_get(o, key);

    return json_object_is_type(v, json_type_boolean) ? json_object_get_boolean(v) : otherwise;
}

const char *api_json_text(struct json_object *o)
{
    return json_object_to_json_string_ext(o, JSON_C_TO_STRING_PLAIN |
                                                 JSON_C_TO_STRING_NOSLASHESCAPE);
}

void api_json_autoput(struct json_object **o)
{
    json_object_put(*o);
}
