/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The table-driven codec. Recursion follows the nesting of schema types, which is fixed and
 * shallow; sizes that the peer chooses (lists, strings) are bounded by the tables. Pure.
 */
#include "api-schema/json/codec.h"

#include "api-schema/json/json.h"
#include "api-schema/json/text.h"
#include "api-schema/net/nbdaddr.h"
#include "engine/base/buf.h"
#include "engine/base/str.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PATH_MAX_BYTES = 256, NAMES_SHOWN = 24 };

struct decoder {
    unsigned flags;
    struct api_error *x;
    char path[PATH_MAX_BYTES]; /* of the member at hand */
    size_t len;
};

static int decode_struct(struct decoder *d, const struct api_type *t,
                         const struct json_object *o, void *out);
static int decode_value(struct decoder *d, const struct api_member *m, struct json_object *v,
                        void *slot);

/* --- paths and messages ------------------------------------------------------------------- */

static size_t path_push(struct decoder *d, const char *name)
{
    size_t was = d->len;
    int n = snprintf(d->path + was, sizeof(d->path) - was, "%s%.64s", was ? "." : "", name);

    d->len = was + (size_t)n < sizeof(d->path) ? was + (size_t)n : sizeof(d->path) - 1;
    return was;
}

static size_t path_push_index(struct decoder *d, size_t i)
{
    size_t was = d->len;
    int n = snprintf(d->path + was, sizeof(d->path) - was, "[%zu]", i);

    d->len = was + (size_t)n < sizeof(d->path) ? was + (size_t)n : sizeof(d->path) - 1;
    return was;
}

static void path_pop(struct decoder *d, size_t was)
{
    d->len = was;
    d->path[was] = 0;
}

static void describe_value(const struct json_object *v, char *out, size_t n)
{
    switch (json_object_get_type(v)) {
    case json_type_null:
        snprintf(out, n, "null");
        break;
    case json_type_object:
        snprintf(out, n, "an object");
        break;
    case json_type_array:
        snprintf(out, n, "a list");
        break;
    case json_type_string:
        snprintf(out, n, "\"%.48s%s\"", json_object_get_string((struct json_object *)v),
                 json_object_get_string_len(v) > 48 ? "..." : "");
        break;
    default:
        snprintf(out, n, "%.64s", api_json_text((struct json_object *)v));
    }
}

static void enum_words(const struct api_type *t, struct buf *b)
{
    for (size_t i = 0; i < t->n_values && i < NAMES_SHOWN; i++) {
        buf_printf(b, "%s%s", i ? ", " : "", t->values[i]);
    }
}

static void expected_string(const struct api_member *m, struct buf *b)
{
    static const char *const checks[] = {
        [API_TEXT] = "a string",
        [API_NAME] = "a name (a letter or digit, then letters, digits and . _ + -)",
        [API_UUID] = "a UUID in lower case",
        [API_PATH] = "an absolute path",
        [API_IMAGE] = "an absolute path, or the address of an NBD export (nbd://HOST/EXPORT, "
                      "nbd+unix:///EXPORT?socket=PATH)",
        [API_VMREF] = "the name or UUID of a VM",
    };

    for (const char *w = m->words; w && *w; w += strlen(w) + 1) {
        buf_printf(b, "'%s', ", w);
    }
    buf_printf(b, "%s%s of at most %" PRId64 " bytes", m->words ? "or " : "", checks[m->check],
               m->max);
}

static void expected_int(const struct api_member *m, struct buf *b)
{
    buf_add_str(b, m->flags & API_F_SIZE ? "a number of bytes" : "an integer");
    if (m->min != INT64_MIN && m->max != INT64_MAX) {
        buf_printf(b, " from %" PRId64 " to %" PRId64, m->min, m->max);
    } else if (m->min != INT64_MIN) {
        buf_printf(b, " of at least %" PRId64, m->min);
    } else if (m->max != INT64_MAX) {
        buf_printf(b, " of at most %" PRId64, m->max);
    }
    if (m->multiple) {
        buf_printf(b, ", a multiple of %" PRId64, m->multiple);
    }
}

/* What a member (or an element of it) takes, in words. */
static void expected(const struct api_member *m, struct buf *b)
{
    switch (m->kind) {
    case API_BOOL:
        buf_add_str(b, "true or false");
        break;
    case API_INT:
        expected_int(m, b);
        break;
    case API_STRING:
        expected_string(m, b);
        break;
    case API_ENUM:
        buf_add_str(b, m->type->n_values > 1 ? "one of " : "");
        enum_words(m->type, b);
        break;
    case API_STRUCT:
    case API_PATCH:
        buf_printf(b, "an object (%s)", m->type->name);
        break;
    case API_OBJECT:
        buf_add_str(b, "an object");
        break;
    case API_ANY:
        buf_add_str(b, "a value");
    }
}

static int fail_value(struct decoder *d, const struct api_member *m,
                      const struct json_object *v)
{
    AUTO_BUF want = BUF_INIT;
    char got[96];

    expected(m, &want);
    describe_value(v, got, sizeof(got));
    return api_error_set(d->x, API_E_INVALID_PARAMS, d->path, m->doc, "%s: expected %s, got %s",
                         d->path, want.data, got);
}

static const char *member_name(const void *arg, size_t i)
{
    return ((const struct api_member *)arg)[i].name;
}

static int fail_unknown(struct decoder *d, const struct api_type *t, const char *name)
{
    const char *near = api_nearest(name, member_name, t->members, t->n_members);
    size_t was = path_push(d, name);
    AUTO_BUF help = BUF_INIT;

    if (near) {
        buf_printf(&help, "did you mean '%s'?", near);
    } else if (t->n_members == 0) {
        buf_add_str(&help, "it takes no members");
    } else {
        buf_add_str(&help, "known members: ");
        for (size_t i = 0; i < t->n_members && i < NAMES_SHOWN; i++) {
            buf_printf(&help, "%s%s", i ? ", " : "", t->members[i].name);
        }
    }
    api_error_set(d->x, API_E_INVALID_PARAMS, d->path, help.data, "%s: no such member of %s",
                  d->path, t->name);
    path_pop(d, was);
    return -1;
}

static int fail_missing(struct decoder *d, const struct api_member *m)
{
    size_t was = path_push(d, m->name);
    AUTO_BUF want = BUF_INIT;

    expected(m, &want);
    api_error_set(d->x, API_E_INVALID_PARAMS, d->path, m->doc, "%s: missing, expected %s%s",
                  d->path, m->flags & API_F_LIST ? "a list, each " : "", want.data);
    path_pop(d, was);
    return -1;
}

/* --- decoding ----------------------------------------------------------------------------- */

static size_t slot_size(const struct api_member *m)
{
    switch (m->kind) {
    case API_BOOL:
        return sizeof(bool);
    case API_INT:
        return sizeof(int64_t);
    case API_ENUM:
        return sizeof(int);
    default:
        return sizeof(void *);
    }
}

/* Size of one element of a list: structs lie in the list itself. */
static size_t element_size(const struct api_member *m)
{
    return m->kind == API_STRUCT ? m->type->size : slot_size(m);
}

static bool string_ok(const struct api_member *m, const char *s, size_t len)
{
    for (const char *w = m->words; w && *w; w += strlen(w) + 1) {
        if (strcmp(s, w) == 0) {
            return true;
        }
    }
    if (strlen(s) != len || (int64_t)len > m->max) {
        return false;
    }
    switch (m->check) {
    case API_NAME:
    case API_VMREF:
        return str_is_name(s);
    case API_UUID:
        return uuid_ok(s);
    case API_PATH:
        return s[0] == '/';
    case API_IMAGE:
        return s[0] == '/' || nbd_addr_is(s);
    default:
        return true;
    }
}

static int decode_int(struct decoder *d, const struct api_member *m, struct json_object *v,
                      int64_t *out)
{
    int64_t n;

    if (!json_object_is_type(v, json_type_int)) {
        return fail_value(d, m, v);
    }
    n = json_object_get_int64(v);
    if (n < m->min || n > m->max || (n == INT64_MAX && json_object_get_uint64(v) > INT64_MAX) ||
        (m->multiple && n % m->multiple)) {
        return fail_value(d, m, v);
    }
    *out = n;
    return 0;
}

static int decode_string(struct decoder *d, const struct api_member *m, struct json_object *v,
                         char **out)
{
    const char *s;

    if (!json_object_is_type(v, json_type_string)) {
        return fail_value(d, m, v);
    }
    s = json_object_get_string(v);
    if (!string_ok(m, s, (size_t)json_object_get_string_len(v))) {
        return fail_value(d, m, v);
    }
    *out = xstrdup(s);
    return 0;
}

static const char *enum_word(const void *arg, size_t i)
{
    return ((const struct api_type *)arg)->values[i];
}

/* The word that was meant, else what each stands for. */
static void enum_remedy(const struct api_type *t, const char *word, char *out, size_t n)
{
    const char *near = word ? api_nearest(word, enum_word, t, t->n_values) : NULL;
    AUTO_BUF help = BUF_INIT;

    if (near) {
        buf_printf(&help, "did you mean '%s'?", near);
    }
    for (size_t i = 0; !near && i < t->n_values && i < NAMES_SHOWN; i++) {
        buf_printf(&help, "%s'%s': %s", i ? "; " : "", t->values[i], t->value_docs[i]);
    }
    snprintf(out, n, "%s", help.data);
}

static int decode_enum(struct decoder *d, const struct api_member *m, struct json_object *v,
                       int *out)
{
    const char *word = json_object_is_type(v, json_type_string) ? json_object_get_string(v)
                                                                : NULL;
    int n = word ? api_enum_value(m->type, word) : -1;

    if (n < 0) {
        fail_value(d, m, v);
        if (d->x) {
            enum_remedy(m->type, word, d->x->remedy, sizeof(d->x->remedy));
        }
        return -1;
    }
    *out = n;
    return 0;
}

/* Checks each member of a patch by decoding it aside. */
static int check_patch(struct decoder *d, const struct api_type *t, struct json_object *v)
{
    json_object_object_foreach(v, key, value)
    {
        const struct api_member *m = api_member_find(t, key);
        struct {
            void *first; /* room for any member: a scalar, a pointer, a list and its count */
            size_t n;
        } room = { 0 };
        size_t was;
        int rc;

        if (!m) {
            return fail_unknown(d, t, key);
        }
        if (!value) {
            continue;
        }
        struct api_member one = *m;
        struct api_type wrap = { .size = sizeof(room), .members = &one, .n_members = 1 };
        one.offset = 0;
        one.has_offset = offsetof(__typeof__(room), n);
        was = path_push(d, key);
        rc = decode_value(d, &one, value, &room);
        path_pop(d, was);
        if (rc < 0) {
            return -1;
        }
        api_release(&wrap, &room);
    }
    return 0;
}

static int decode_json(struct decoder *d, const struct api_member *m, struct json_object *v,
                       struct json_object **out)
{
    if (m->kind != API_ANY && !json_object_is_type(v, json_type_object)) {
        return fail_value(d, m, v);
    }
    if (m->kind == API_PATCH && check_patch(d, m->type, v) < 0) {
        return -1;
    }
    *out = json_object_get(v);
    return 0;
}

/* One value into its slot; a struct is decoded in place. */
static int decode_one(struct decoder *d, const struct api_member *m, struct json_object *v,
                      void *slot)
{
    switch (m->kind) {
    case API_BOOL:
        if (!json_object_is_type(v, json_type_boolean)) {
            return fail_value(d, m, v);
        }
        *(bool *)slot = json_object_get_boolean(v);
        return 0;
    case API_INT:
        return decode_int(d, m, v, slot);
    case API_STRING:
        return decode_string(d, m, v, slot);
    case API_ENUM:
        return decode_enum(d, m, v, slot);
    case API_STRUCT:
        if (!json_object_is_type(v, json_type_object)) {
            return fail_value(d, m, v);
        }
        return decode_struct(d, m->type, v, slot);
    default:
        return decode_json(d, m, v, slot);
    }
}

static void release_one(const struct api_member *m, void *slot)
{
    if (m->kind == API_STRING) {
        free(*(char **)slot);
    } else if (m->kind == API_STRUCT) {
        api_release(m->type, slot);
    } else if (m->kind >= API_PATCH) {
        json_object_put(*(struct json_object **)slot);
    }
}

static void release_list(const struct api_member *m, char *list, size_t n)
{
    for (size_t i = 0; list && i < n; i++) {
        release_one(m, list + i * element_size(m));
    }
    free(list);
}

static int decode_list(struct decoder *d, const struct api_member *m, struct json_object *v,
                       void **out, size_t *n_out)
{
    size_t n, size = element_size(m), done = 0;
    char *list = NULL;
    int rc = 0;

    if (!json_object_is_type(v, json_type_array)) {
        AUTO_BUF want = BUF_INIT;
        char got[96];
        expected(m, &want);
        describe_value(v, got, sizeof(got));
        return api_error_set(d->x, API_E_INVALID_PARAMS, d->path, m->doc,
                             "%s: expected a list, each %s, got %s", d->path, want.data, got);
    }
    n = json_object_array_length(v);
    if (n > m->max_items) {
        return api_error_set(d->x, API_E_INVALID_PARAMS, d->path, m->doc,
                             "%s: expected at most %zu elements, got %zu", d->path,
                             m->max_items, n);
    }
    if (n > 0 && !(list = try_alloc_n(n, size))) {
        return api_error_set(d->x, API_E_INTERNAL_ERROR, d->path, NULL,
                             "%s: no memory for %zu elements", d->path, n);
    }
    while (rc == 0 && done < n) {
        size_t was = path_push_index(d, done);
        rc = decode_one(d, m, json_object_array_get_idx(v, done), list + done * size);
        path_pop(d, was);
        done += rc == 0;
    }
    if (rc < 0) {
        release_list(m, list, done);
        return -1;
    }
    *out = list;
    *n_out = n;
    return 0;
}

/* A present member into the struct at `base`. */
static int decode_value(struct decoder *d, const struct api_member *m, struct json_object *v,
                        void *base)
{
    void *slot = (char *)base + m->offset;
    int rc;

    if (m->flags & API_F_LIST) {
        return decode_list(d, m, v, slot, (size_t *)((char *)base + m->has_offset));
    }
    if (m->kind == API_STRUCT) {
        void *s;
        if (!json_object_is_type(v, json_type_object)) {
            return fail_value(d, m, v);
        }
        s = xalloc(m->type->size);
        rc = decode_struct(d, m->type, v, s);
        if (rc < 0) {
            free(s);
            return rc;
        }
        *(void **)slot = s;
        return 0;
    }
    rc = decode_one(d, m, v, slot);
    if (rc == 0 && m->flags & API_F_HAS) {
        *((bool *)base + m->has_offset) = true;
    }
    return rc;
}

static int decode_default(struct decoder *d, const struct api_member *m, void *base)
{
    void *slot = (char *)base + m->offset;

    bool word = m->def[0] == '"' && !strchr(m->def, '\\');
    AUTO_JSON v = NULL;

    /* The simple ones at once: a definition has dozens of defaults. */
    if (m->flags & API_F_LIST && strcmp(m->def, "[]") == 0) {
        return 0;
    }
    if (!(m->flags & (API_F_LIST | API_F_HAS))) {
        switch (m->kind) {
        case API_INT:
            *(int64_t *)slot = strtoll(m->def, NULL, 10);
            return 0;
        case API_BOOL:
            *(bool *)slot = m->def[0] == 't';
            return 0;
        case API_STRING:
            if (word) {
                *(char **)slot = xstrndup(m->def + 1, strlen(m->def) - 2);
                return 0;
            }
            break;
        default:
            break;
        }
    }
    v = json_tokener_parse(m->def);
    return decode_value(d, m, v, base);
}

static int check_known(struct decoder *d, const struct api_type *t, const struct json_object *o)
{
    json_object_object_foreach((struct json_object *)o, key, value)
    {
        (void)value;
        if (!api_member_find(t, key)) {
            return fail_unknown(d, t, key);
        }
    }
    return 0;
}

static int decode_struct(struct decoder *d, const struct api_type *t,
                         const struct json_object *o, void *out)
{
    int rc = 0;

    memset(out, 0, t->size);
    if (o && !(d->flags & API_LENIENT)) {
        rc = check_known(d, t, o);
    }
    for (size_t i = 0; rc == 0 && i < t->n_members; i++) {
        const struct api_member *m = &t->members[i];
        struct json_object *v = NULL;
        bool there = o && json_object_object_get_ex(o, m->name, &v);

        if (there && (v || m->kind != API_ANY)) {
            size_t was = path_push(d, m->name);
            rc = decode_value(d, m, v, out);
            path_pop(d, was);
        } else if (m->def) {
            rc = decode_default(d, m, out);
        } else if (m->flags & API_F_REQUIRED && !there) {
            rc = fail_missing(d, m);
        }
    }
    if (rc < 0) {
        api_release(t, out);
    }
    return rc;
}

int api_decode(const struct api_type *t, const struct json_object *o, unsigned flags,
               const char *root, void *out, struct api_error *x)
{
    struct decoder d = { .flags = flags, .x = x };

    if (root[0]) {
        path_push(&d, root);
    }
    if (o && !json_object_is_type(o, json_type_object)) {
        char got[96];
        describe_value(o, got, sizeof(got));
        memset(out, 0, t->size);
        return api_error_set(x, API_E_INVALID_PARAMS, root, NULL,
                             "%s%sexpected an object (%s), got %s", root, root[0] ? ": " : "",
                             t->name, got);
    }
    return decode_struct(&d, t, o, out);
}

void api_init(const struct api_type *t, void *out)
{
    struct decoder d = { 0 };

    memset(out, 0, t->size);
    for (size_t i = 0; i < t->n_members; i++) {
        if (t->members[i].def) {
            decode_default(&d, &t->members[i], out);
        }
    }
}

/* --- releasing, copying, encoding --------------------------------------------------------- */

void api_release(const struct api_type *t, void *s)
{
    if (!s) {
        return;
    }
    for (size_t i = 0; i < t->n_members; i++) {
        const struct api_member *m = &t->members[i];
        char *slot = (char *)s + m->offset;

        if (m->flags & API_F_LIST) {
            release_list(m, *(void **)slot, *(size_t *)((char *)s + m->has_offset));
        } else if (m->kind == API_STRUCT) {
            api_release(m->type, *(void **)slot);
            free(*(void **)slot);
        } else {
            release_one(m, slot);
        }
    }
    memset(s, 0, t->size);
}

static void copy_one(const struct api_member *m, const void *from, void *to)
{
    struct json_object *v;

    switch (m->kind) {
    case API_STRING:
        *(char **)to = *(char *const *)from ? xstrdup(*(char *const *)from) : NULL;
        break;
    case API_STRUCT:
        api_copy(m->type, from, to);
        break;
    case API_PATCH:
    case API_OBJECT:
    case API_ANY:
        v = NULL;
        if (*(struct json_object *const *)from) {
            json_object_deep_copy(*(struct json_object *const *)from, &v, NULL);
        }
        *(struct json_object **)to = v;
        break;
    default:
        memcpy(to, from, slot_size(m));
    }
}

void api_copy(const struct api_type *t, const void *in, void *out)
{
    memset(out, 0, t->size);
    for (size_t i = 0; i < t->n_members; i++) {
        const struct api_member *m = &t->members[i];
        const char *from = (const char *)in + m->offset;
        char *to = (char *)out + m->offset;

        if (m->flags & API_F_LIST) {
            size_t n = *(const size_t *)((const char *)in + m->has_offset),
                   size = element_size(m);
            char *list = n ? xalloc_n(n, size) : NULL;
            for (size_t k = 0; k < n; k++) {
                copy_one(m, *(char *const *)from + k * size, list + k * size);
            }
            *(void **)to = list;
            *(size_t *)((char *)out + m->has_offset) = n;
        } else if (m->kind == API_STRUCT) {
            if (*(void *const *)from) {
                *(void **)to = xalloc(m->type->size);
                api_copy(m->type, *(void *const *)from, *(void **)to);
            }
        } else {
            copy_one(m, from, to);
            if (m->flags & API_F_HAS) {
                *((bool *)out + m->has_offset) = *((const bool *)in + m->has_offset);
            }
        }
    }
}

/* NULL: absent. */
static struct json_object *encode_one(const struct api_member *m, const void *slot)
{
    const void *p;

    switch (m->kind) {
    case API_BOOL:
        return json_object_new_boolean(*(const bool *)slot);
    case API_INT:
        return json_object_new_int64(*(const int64_t *)slot);
    case API_STRING:
        p = *(char *const *)slot;
        return p ? json_object_new_string(p) : NULL;
    case API_ENUM:
        return json_object_new_string(api_enum_name(m->type, *(const int *)slot));
    case API_STRUCT:
        return slot ? api_encode(m->type, slot) : NULL;
    default:
        return json_object_get(*(struct json_object *const *)slot);
    }
}

static struct json_object *encode_list(const struct api_member *m, const char *list, size_t n)
{
    struct json_object *a = json_object_new_array_ext(n ? (int)n : 1);

    for (size_t i = 0; i < n; i++) {
        json_object_array_add(a, encode_one(m, list + i * element_size(m)));
    }
    return a;
}

struct json_object *api_encode(const struct api_type *t, const void *in)
{
    struct json_object *o = json_object_new_object();

    for (size_t i = 0; i < t->n_members; i++) {
        const struct api_member *m = &t->members[i];
        const char *slot = (const char *)in + m->offset;
        struct json_object *v;

        if (m->flags & API_F_LIST) {
            size_t n = *(const size_t *)((const char *)in + m->has_offset);
            bool skip = n == 0 && !m->def && !(m->flags & API_F_REQUIRED);
            v = skip ? NULL : encode_list(m, *(char *const *)slot, n);
        } else if (m->flags & API_F_HAS && !*((const bool *)in + m->has_offset)) {
            v = NULL;
        } else {
            v = encode_one(m,
                           m->kind == API_STRUCT ? *(void *const *)slot : (const void *)slot);
        }
        if (v) {
            json_object_object_add_ex(
                o, m->name, v, JSON_C_OBJECT_ADD_KEY_IS_NEW | JSON_C_OBJECT_ADD_CONSTANT_KEY);
        }
    }
    return o;
}

/* --- writing ------------------------------------------------------------------------------ */

static void write_one(const struct api_member *m, const void *slot, struct buf *to)
{
    struct json_object *o;
    const char *s;

    switch (m->kind) {
    case API_BOOL:
        buf_add_str(to, *(const bool *)slot ? "true" : "false");
        break;
    case API_INT:
        api_write_int(to, *(const int64_t *)slot);
        break;
    case API_STRING:
        s = *(char *const *)slot;
        if (s) {
            api_write_str(to, s);
        } else {
            buf_add_str(to, "null");
        }
        break;
    case API_ENUM:
        api_write_str(to, api_enum_name(m->type, *(const int *)slot));
        break;
    case API_STRUCT:
        api_write(m->type, slot, to);
        break;
    default:
        o = *(struct json_object *const *)slot;
        buf_add_str(to, o ? api_json_text(o) : "null");
    }
}

/* Is a member that is no list left out? */
static bool is_absent(const struct api_member *m, const void *in)
{
    if (m->flags & API_F_HAS) {
        return !*((const bool *)in + m->has_offset);
    }
    return (m->kind == API_STRING || m->kind >= API_STRUCT) &&
           !*(void *const *)((const char *)in + m->offset);
}

static void write_list(const struct api_member *m, const char *list, size_t n, struct buf *to)
{
    buf_add_char(to, '[');
    for (size_t i = 0; i < n; i++) {
        if (i) {
            buf_add_char(to, ',');
        }
        write_one(m, list + i * element_size(m), to);
    }
    buf_add_char(to, ']');
}

void api_write(const struct api_type *t, const void *in, struct buf *to)
{
    buf_add_char(to, '{');
    for (size_t i = 0; i < t->n_members; i++) {
        const struct api_member *m = &t->members[i];
        const char *slot = (const char *)in + m->offset;

        if (m->flags & API_F_LIST) {
            size_t n = *(const size_t *)((const char *)in + m->has_offset);
            if (n > 0 || m->def || m->flags & API_F_REQUIRED) {
                api_write_key(to, m->name);
                write_list(m, *(char *const *)slot, n, to);
            }
        } else if (!is_absent(m, in)) {
            api_write_key(to, m->name);
            write_one(m, m->kind == API_STRUCT ? *(void *const *)slot : (const void *)slot, to);
        }
    }
    buf_add_char(to, '}');
}

struct json_object *api_encode_raw(const struct api_type *t, const void *in)
{
    AUTO_BUF text = BUF_INIT;

    api_write(t, in, &text);
    return api_json_raw(&text);
}

/* --- patches ------------------------------------------------------------------------------ */

static void merge(struct json_object *into, const struct json_object *patch)
{
    json_object_object_foreach((struct json_object *)patch, key, v)
    {
        struct json_object *old = api_json_get(into, key);

        if (!v) {
            json_object_object_del(into, key);
        } else if (json_object_is_type(v, json_type_object) &&
                   json_object_is_type(old, json_type_object)) {
            merge(old, v);
        } else {
            json_object_object_add(into, key, json_object_get(v));
        }
    }
}

int api_patch(const struct api_type *t, void *s, const struct json_object *patch,
              struct api_error *x)
{
    AUTO_JSON o = api_encode(t, s);
    void *made = xalloc(t->size);

    merge(o, patch);
    if (api_decode(t, o, API_STRICT, "", made, x) < 0) {
        free(made);
        return -1;
    }
    api_release(t, s);
    memcpy(s, made, t->size);
    free(made);
    return 0;
}

/* --- names -------------------------------------------------------------------------------- */

const char *api_enum_name(const struct api_type *t, int value)
{
    return value >= 0 && (size_t)value < t->n_values ? t->values[value] : "?";
}

int api_enum_value(const struct api_type *t, const char *word)
{
    for (size_t i = 0; i < t->n_values; i++) {
        if (strcmp(t->values[i], word) == 0) {
            return (int)i;
        }
    }
    return -1;
}

const struct api_member *api_member_find(const struct api_type *t, const char *name)
{
    for (size_t i = 0; i < t->n_members; i++) {
        if (strcmp(t->members[i].name, name) == 0) {
            return &t->members[i];
        }
    }
    return NULL;
}

/* Levenshtein distance of two short words. */
static size_t distance(const char *a, size_t n, const char *b, size_t m)
{
    size_t row[65];

    for (size_t j = 0; j <= m; j++) {
        row[j] = j;
    }
    for (size_t i = 1; i <= n; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= m; j++) {
            size_t best = diagonal + (a[i - 1] != b[j - 1]);
            diagonal = row[j];
            best = row[j] + 1 < best ? row[j] + 1 : best;
            best = row[j - 1] + 1 < best ? row[j - 1] + 1 : best;
            row[j] = best;
        }
    }
    return row[m];
}

const char *api_nearest(const char *word, const char *(*candidate)(const void *arg, size_t i),
                        const void *arg, size_t n)
{
    size_t len = strlen(word), best = len < 4 ? 1 : len < 8 ? 2 : 3;
    const char *found = NULL;

    for (size_t i = 0; len <= 64 && i < n; i++) {
        const char *c = candidate(arg, i);
        size_t m = strlen(c);
        size_t away = m <= 64 ? distance(word, len, c, m) : 65;
        if (away < best || (away == best && !found)) {
            best = away;
            found = c;
        }
    }
    return found;
}
