/* SPDX-License-Identifier: Apache-2.0 */
/*
 * JSON as text, without a tree: pieces written straight into a buffer, and values of which only the text is known.
 * Pure, any thread.
 */
#include "api-schema/json/text.h"

#include "api-schema/json/json.h"

#include <string.h>

/* What stands behind the backslash for a byte that cannot stand for itself; 'u': \u00XX. */
static char escape_of(unsigned char c)
{
    switch (c) {
    case '"':
    case '\\':
        return (char)c;
    case '\b':
        return 'b';
    case '\f':
        return 'f';
    case '\n':
        return 'n';
    case '\r':
        return 'r';
    case '\t':
        return 't';
    default:
        return 'u';
    }
}

void api_write_str(struct buf *to, const char *s)
{
    static const char hex[] = "0123456789abcdef";
    const char *plain = s;

    buf_add_char(to, '"');
    for (; *s; s++) {
        unsigned char c = (unsigned char)*s;
        if (c >= 0x20 && c != '"' && c != '\\') {
            continue;
        }
        char e = escape_of(c);
        buf_add(to, plain, (size_t)(s - plain));
        plain = s + 1;
        const char text[] = { '\\', e, '0', '0', hex[c >> 4], hex[c & 15] };
        buf_add(to, text, e == 'u' ? sizeof(text) : 2);
    }
    buf_add(to, plain, (size_t)(s - plain));
    buf_add_char(to, '"');
}

void api_write_int(struct buf *to, int64_t v)
{
    char text[20];
    size_t at = sizeof(text);
    uint64_t left = v < 0 ? -(uint64_t)v : (uint64_t)v;

    do {
        text[--at] = (char)('0' + left % 10);
        left /= 10;
    } while (left);
    if (v < 0) {
        text[--at] = '-';
    }
    buf_add(to, text + at, sizeof(text) - at);
}

void api_write_key(struct buf *to, const char *key)
{
    char last = to->len ? to->data[to->len - 1] : '{';

    if (last != '{') {
        buf_add_char(to, ',');
    }
    buf_add_char(to, '"');
    buf_add_str(to, key);
    buf_add(to, "\":", 2);
}

/* --- values known by their text ------------------------------------------------------------- */

/* A raw value is a json-c boolean with its text as user data; json-c itself gives none to booleans. */
static const char *raw_text(const struct json_object *o)
{
    return json_object_is_type(o, json_type_boolean)
               ? json_object_get_userdata((struct json_object *)(uintptr_t)o)
               : NULL;
}

static int print_raw(struct json_object *o, struct printbuf *to, int level, int flags)
{
    const char *text = raw_text(o);

    (void)level;
    (void)flags;
    return printbuf_memappend(to, text, (int)strlen(text));
}

static void free_raw(struct json_object *o, void *text)
{
    (void)o;
    free(text);
}

struct json_object *api_json_raw(struct buf *take_text)
{
    struct json_object *o = json_object_new_boolean(0);

    json_object_set_serializer(o, print_raw, buf_take(take_text), free_raw);
    return o;
}

const char *api_json_raw_text(const struct json_object *o)
{
    return raw_text(o);
}

struct json_object *api_json_tree(struct json_object *o)
{
    const char *text = raw_text(o);

    return text ? json_tokener_parse(text) : json_object_get(o);
}
