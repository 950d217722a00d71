/* SPDX-License-Identifier: Apache-2.0 */
/* See xdr.h. A form is walked with its text; `at` is the place in it. */
#include "daemon/libvirt/xdr.h"

#include "api-schema/json/json.h"
#include "engine/base/buf.h"
#include "engine/base/mem.h"

#include <errno.h>
#include <rpc/xdr.h>
#include <stdio.h>
#include <string.h>

enum { UUID_SIZE = 16, MODEL_SIZE = 32, NAME_SIZE = 64 };

const char *lv_struct(char type)
{
    switch (type) {
    case 'D':
        return "{name:s uuid:U id:i}";
    case 'N':
    case 'P':
    case 'F':
        return "{name:s uuid:U}";
    case 'V':
        return "{pool:s name:s key:s}";
    case 'I':
        return "{name:s mac:s}";
    case 'n':
        return "{name:s}";
    case 'X':
        return "{uuid:U usage_type:i usage_id:s}";
    case 'K':
    case 'C':
        return "{name:s dom:D}";
    case 'O':
        return "{net:N uuid:U}";
    case 'B':
        return "{port:s filter:s}";
    default:
        return NULL;
    }
}

/* The type letters of a typed parameter, by their number less 1. */
static const char param_types[] = "iuhHdbs";

const char *lv_behind(const char *at)
{
    unsigned depth = 0;

    do {
        depth += *at == '[' || *at == '{';
        depth -= *at == ']' || *at == '}';
        at++;
    } while (depth > 0);
    return at;
}

/* The next member of a form: its name into `name`; its type, NULL at the end. */
static const char *next_member(const char **at, char name[NAME_SIZE])
{
    size_t n;

    *at += strspn(*at, " ");
    if (**at == 0 || **at == '}') {
        return NULL;
    }
    n = strcspn(*at, ":");
    snprintf(name, NAME_SIZE, "%.*s", (int)n, *at);
    const char *type = *at + n + 1;
    *at = lv_behind(type);
    return type;
}

/* --- reading ------------------------------------------------------------------------------------ */

struct reader {
    XDR x;
    size_t size;
    struct err *e;
};

static size_t left(struct reader *r)
{
    return r->size - xdr_getpos(&r->x);
}

static struct json_object *cut_short(struct reader *r)
{
    err_set(r->e, -EINVAL, "the message ends within a value");
    return NULL;
}

static struct json_object *read_value(struct reader *r, const char *type);

static struct json_object *read_number(struct reader *r, char type)
{
    u_int32_t word;
    u_int64_t wide;
    double real;

    switch (type) {
    case 'i':
        return xdr_u_int32_t(&r->x, &word) ? json_object_new_int64((int32_t)word)
                                           : cut_short(r);
    case 'u':
    case 'b':
        return xdr_u_int32_t(&r->x, &word) ? json_object_new_int64(word) : cut_short(r);
    case 'h':
        return xdr_u_int64_t(&r->x, &wide) ? json_object_new_int64((int64_t)wide)
                                           : cut_short(r);
    case 'H':
        return xdr_u_int64_t(&r->x, &wide) ? json_object_new_uint64(wide) : cut_short(r);
    default:
        return xdr_double(&r->x, &real) ? json_object_new_double(real) : cut_short(r);
    }
}

static bool is_text(const char *p, size_t n)
{
    for (size_t at = 0, len; at < n; at += len) {
        len = p[at] ? api_utf8_len(p + at, n - at) : 0;
        if (len == 0) {
            return false;
        }
    }
    return true;
}

static struct json_object *read_bytes(struct reader *r, bool text)
{
    struct json_object *o;
    u_int32_t n;

    if (!xdr_u_int32_t(&r->x, &n) || n > left(r)) {
        return cut_short(r);
    }
    if (n > LV_STRING_MAX) {
        err_set(r->e, -EMSGSIZE, "a string exceeds %d bytes", LV_STRING_MAX);
        return NULL;
    }
    AUTO_FREE char *bytes = xalloc(n + 1);
    if (!xdr_opaque(&r->x, bytes, n)) { /* and what fills its last word */
        return cut_short(r);
    }
    if (text && !is_text(bytes, n)) {
        err_set(r->e, -EINVAL, "a string is no UTF-8 text");
        return NULL;
    }
    o = json_object_new_string_len(bytes, (int)n);
    return o;
}

static struct json_object *read_uuid(struct reader *r)
{
    unsigned char b[UUID_SIZE];
    char text[37];

    if (!xdr_opaque(&r->x, (char *)b, sizeof(b))) {
        return cut_short(r);
    }
    snprintf(text, sizeof(text),
             "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", b[0], b[1],
             b[2], b[3], b[4], b[5], b[6], b[7], b[8], b[9], b[10], b[11], b[12], b[13], b[14],
             b[15]);
    return json_object_new_string(text);
}

static struct json_object *read_param(struct reader *r)
{
    struct json_object *o = json_object_new_object(), *field = read_bytes(r, true), *value;
    u_int32_t type = 0;
    char letter[2] = { 0 };

    api_json_set(o, "field", field);
    if (field && (!xdr_u_int32_t(&r->x, &type) || type < 1 || type >= sizeof(param_types))) {
        err_set(r->e, -EINVAL, "a typed parameter is of type %u", type);
        field = NULL;
    }
    if (field) {
        letter[0] = param_types[type - 1];
        api_json_set_str(o, "type", letter);
        value = read_value(r, letter);
        api_json_set(o, "value", value);
        field = value;
    }
    if (!field) {
        json_object_put(o);
        return NULL;
    }
    return o;
}

static struct json_object *read_array(struct reader *r, const char *type)
{
    struct json_object *list, *one;
    u_int32_t n;

    if (!xdr_u_int32_t(&r->x, &n)) {
        return cut_short(r);
    }
    if (n > LV_ARRAY_MAX || n > left(r) / 4) { /* nothing is shorter than a word */
        err_set(r->e, -EINVAL, "an array of %u does not fit into the message", n);
        return NULL;
    }
    list = json_object_new_array();
    for (u_int32_t i = 0; i < n; i++) {
        one = read_value(r, type);
        if (!one) {
            json_object_put(list);
            return NULL;
        }
        json_object_array_add(list, one);
    }
    return list;
}

static struct json_object *read_members(struct reader *r, const char *form)
{
    struct json_object *o = json_object_new_object();
    char name[NAME_SIZE];
    const char *type;

    while ((type = next_member(&form, name))) {
        struct json_object *v = read_value(r, type);
        if (!v && r->e->code) {
            json_object_put(o);
            return NULL;
        }
        if (v) {
            api_json_set(o, name, v);
        }
    }
    return o;
}

static struct json_object *read_optional(struct reader *r)
{
    u_int32_t there;

    if (!xdr_u_int32_t(&r->x, &there)) {
        return cut_short(r);
    }
    return there ? read_bytes(r, true) : NULL; /* an absent member */
}

static struct json_object *read_value(struct reader *r, const char *type)
{
    switch (*type) {
    case 's':
        return read_bytes(r, true);
    case 'S':
        return read_optional(r);
    case 'o':
        return read_bytes(r, false);
    case 'U':
        return read_uuid(r);
    case 'T':
        return read_param(r);
    case '[':
        return read_array(r, type + 1);
    case '{':
        return read_members(r, type + 1);
    default:
        return lv_struct(*type) ? read_members(r, lv_struct(*type) + 1) : read_number(r, *type);
    }
}

struct json_object *lv_decode(const char *form, const void *data, size_t n, struct err *e)
{
    struct err mine = ERR_INIT;
    struct reader r = { .size = n, .e = e ? e : &mine };
    struct json_object *o;

    r.e->code = 0;
    xdrmem_create(&r.x, (char *)(uintptr_t)data, (u_int)n, XDR_DECODE);
    o = read_members(&r, form);
    if (o && left(&r) > 0) {
        err_set(r.e, -EINVAL, "%zu bytes stand behind the arguments", left(&r));
        json_object_put(o);
        o = NULL;
    }
    xdr_destroy(&r.x);
    return o;
}

/* --- writing ------------------------------------------------------------------------------------- */

struct writer {
    struct buf *out;
    struct err *e;
    bool failed;
};

static void put_value(struct writer *w, const char *type, struct json_object *v);

/* Room for n bytes of XDR at the end of the output. */
static void begin(struct buf *out, XDR *x, size_t n)
{
    buf_reserve(out, n);
    xdrmem_create(x, out->data + out->len, (u_int)n, XDR_ENCODE);
}

static void end(struct buf *out, XDR *x)
{
    out->len += xdr_getpos(x);
    out->data[out->len] = 0;
    xdr_destroy(x);
}

void lv_put_word(struct buf *out, uint32_t word)
{
    u_int32_t value = word;
    XDR x;

    begin(out, &x, 4);
    xdr_u_int32_t(&x, &value);
    end(out, &x);
}

void lv_put_wide(struct buf *out, uint64_t wide)
{
    u_int64_t value = wide;
    XDR x;

    begin(out, &x, 8);
    xdr_u_int64_t(&x, &value);
    end(out, &x);
}

static void put_counted(struct buf *out, const char *p, size_t n)
{
    XDR x;

    lv_put_word(out, (uint32_t)n);
    begin(out, &x, n + 4);
    xdr_opaque(&x, (char *)(uintptr_t)p, (u_int)n);
    end(out, &x);
}

void lv_put_text(struct buf *out, const char *text)
{
    put_counted(out, text, strlen(text));
}

void lv_put_uuid(struct buf *out, const char *text)
{
    unsigned char b[UUID_SIZE] = { 0 };
    XDR x;

    for (unsigned i = 0; i < UUID_SIZE * 2 && *text; text++) {
        const char *hex = "0123456789abcdef", *digit = strchr(hex, *text | 0x20);
        if (*text != '-' && digit) {
            b[i / 2] |= (unsigned char)((digit - hex) << (i % 2 ? 0 : 4));
            i++;
        }
    }
    begin(out, &x, sizeof(b));
    xdr_opaque(&x, (char *)b, sizeof(b));
    end(out, &x);
}

void lv_put_param(struct buf *out, const char *field, char type, uint64_t value)
{
    lv_put_text(out, field);
    lv_put_word(out, (uint32_t)(strchr(param_types, type) - param_types) + 1);
    if (type == 'h' || type == 'H') {
        lv_put_wide(out, value);
    } else {
        lv_put_word(out, (uint32_t)value);
    }
}

void lv_put_param_text(struct buf *out, const char *field, const char *value)
{
    lv_put_text(out, field);
    lv_put_word(out, (uint32_t)(strchr(param_types, 's') - param_types) + 1);
    lv_put_text(out, value);
}

static void put_number(struct writer *w, char type, struct json_object *v)
{
    double real = json_object_get_double(v);
    XDR x;

    if (type == 'd') {
        begin(w->out, &x, 8);
        xdr_double(&x, &real);
        end(w->out, &x);
    } else if (type == 'H') {
        lv_put_wide(w->out, json_object_get_uint64(v));
    } else if (type == 'h') {
        lv_put_wide(w->out, (uint64_t)json_object_get_int64(v));
    } else {
        lv_put_word(w->out, (uint32_t)json_object_get_int64(v));
    }
}

static void put_bytes(struct writer *w, struct json_object *v)
{
    const char *p = v ? json_object_get_string(v) : "";
    size_t n = json_object_is_type(v, json_type_string) ? (size_t)json_object_get_string_len(v)
                                                        : strlen(p);

    if (n > LV_STRING_MAX) {
        err_set(w->e, -EMSGSIZE, "a string of the answer exceeds %d bytes", LV_STRING_MAX);
        w->failed = true;
        return;
    }
    put_counted(w->out, p, n);
}

static void put_model(struct writer *w, struct json_object *v)
{
    const char *text = v ? json_object_get_string(v) : "";
    size_t n = strlen(text);

    for (size_t i = 0; i < MODEL_SIZE; i++) {
        lv_put_word(w->out, i < n && i < MODEL_SIZE - 1 ? (unsigned char)text[i] : 0);
    }
}

static void put_param(struct writer *w, struct json_object *v)
{
    const char *type = api_json_get_str(v, "type");
    const char *at = type && *type ? strchr(param_types, *type) : NULL;

    if (!at) {
        err_set(w->e, -EINVAL, "a typed parameter of the answer has no type");
        w->failed = true;
        return;
    }
    put_bytes(w, api_json_get(v, "field"));
    lv_put_word(w->out, (u_int32_t)(at - param_types) + 1);
    put_value(w, type, api_json_get(v, "value"));
}

static void put_array(struct writer *w, const char *type, struct json_object *v)
{
    size_t n = json_object_is_type(v, json_type_array) ? json_object_array_length(v) : 0;

    lv_put_word(w->out, (u_int32_t)n);
    for (size_t i = 0; i < n && !w->failed; i++) {
        put_value(w, type, json_object_array_get_idx(v, i));
    }
}

static void put_members(struct writer *w, const char *form, struct json_object *v)
{
    char name[NAME_SIZE];
    const char *type;

    while ((type = next_member(&form, name)) && !w->failed) {
        put_value(w, type, api_json_get(v, name));
    }
}

static void put_value(struct writer *w, const char *type, struct json_object *v)
{
    switch (*type) {
    case 'S':
        lv_put_word(w->out, v != NULL);
        if (v) {
            put_bytes(w, v);
        }
        break;
    case 's':
    case 'o':
        put_bytes(w, v);
        break;
    case 'M':
        put_model(w, v);
        break;
    case 'U':
        lv_put_uuid(w->out, v ? json_object_get_string(v) : "");
        break;
    case 'T':
        put_param(w, v);
        break;
    case '[':
        put_array(w, type + 1, v);
        break;
    case '{':
        put_members(w, type + 1, v);
        break;
    default:
        if (lv_struct(*type)) {
            put_members(w, lv_struct(*type) + 1, v);
        } else {
            put_number(w, *type, v);
        }
    }
}

int lv_encode(const char *form, struct json_object *value, struct buf *out, struct err *e)
{
    struct writer w = { .out = out, .e = e };

    put_members(&w, form, value);
    return w.failed ? -1 : 0;
}
