/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A machine's state for people (vmstate.h and state.h have the bytes). Owns nothing. Any thread.
 */
#include "engine/core/vmstate_view.h"

#include "engine/base/buf.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdint.h>
#include <string.h>
#include <zlib.h>

enum { DEPTH_MAX = 8, ALL_OF = 32, BYTES_SHOWN = 64, TEXT_MAX = 255, PATH_LEN_MAX = 1024 };
/* What stands in the stream for a kind (state.c). */
enum { TAG_BOOL = 16, TAG_BYTES = 32, TAG_BUF = 33, TAG_STRUCT = 48, TAG_TIMER = 64 };

struct source {
    const uint8_t *p;
    size_t n;
};

struct viewer {
    char part[TEXT_MAX + 1];
    struct buf path; /* of the field at hand, NUL-terminated */
    bool (*fn)(void *arg, const struct vmstate_field *field);
    void *arg;
    bool enough;
    struct err *e;
};

static int cut(const struct viewer *v)
{
    return err_set(v->e, -EBADMSG, "the state of '%s' ends in the middle of a field", v->part);
}

static int get_num(struct viewer *v, struct source *s, unsigned bytes, uint64_t *out)
{
    if (s->n < bytes) {
        return cut(v);
    }
    *out = 0;
    for (unsigned i = 0; i < bytes; i++) {
        *out |= (uint64_t)s->p[i] << (i * 8);
    }
    s->p += bytes;
    s->n -= bytes;
    return 0;
}

static int get_text(struct viewer *v, struct source *s, char out[TEXT_MAX + 1])
{
    uint64_t n = 0;
    int rc = get_num(v, s, 1, &n);

    if (rc != 0 || s->n < n) {
        return rc != 0 ? rc : cut(v);
    }
    for (uint64_t i = 0; i < n; i++) {
        out[i] = s->p[i] >= 0x20 && s->p[i] < 0x7f ? (char)s->p[i] : '?';
    }
    out[n] = '\0';
    s->p += n;
    s->n -= n;
    return 0;
}

static void say(struct viewer *v, const char *value)
{
    const struct vmstate_field f = { .part = v->part, .field = v->path.data, .value = value };

    v->enough = v->enough || !v->fn(v->arg, &f);
}

/* The path ends where it ended before. */
static void cut_path(struct viewer *v, size_t len)
{
    v->path.len = len;
    v->path.data[len] = '\0';
}

static int view_object(struct viewer *v, struct source *s, unsigned depth);

static int view_struct(struct viewer *v, struct source *s, unsigned depth)
{
    uint64_t n = 0;
    int rc = get_num(v, s, 4, &n);

    if (rc != 0 || n > s->n) {
        return rc != 0 ? rc : cut(v);
    }
    struct source inner = { s->p, n };

    s->p += n;
    s->n -= n;
    rc = view_object(v, &inner, depth + 1);
    return rc == 0 && inner.n > 0
               ? err_set(v->e, -EBADMSG, "the state of '%s' has %zu bytes too many", v->part,
                         inner.n)
               : rc;
}

static int view_bytes(struct viewer *v, struct source *s, uint64_t n)
{
    AUTO_BUF text = BUF_INIT;

    if (n > s->n) {
        return cut(v);
    }
    for (uint64_t i = 0; i < n && i < BYTES_SHOWN; i++) {
        buf_printf(&text, "%02x", s->p[i]);
    }
    if (n > BYTES_SHOWN) {
        buf_printf(&text, "... (%" PRIu64 " bytes, CRC-32 %08lx)", n, crc32_z(0, s->p, n));
    }
    buf_add_char(&text, 0);
    say(v, text.data);
    s->p += n;
    s->n -= n;
    return 0;
}

static int view_number(struct viewer *v, struct source *s, unsigned tag, bool all)
{
    unsigned size = tag == TAG_BOOL ? 1 : tag == TAG_TIMER ? 8 : tag;
    uint64_t value = 0;
    char text[24];
    int rc = get_num(v, s, size, &value);

    if (rc != 0 || (!all && value == 0)) {
        return rc;
    }
    if (tag == TAG_BOOL) {
        snprintf(text, sizeof(text), "%s", value ? "true" : "false");
    } else if (tag == TAG_TIMER && value == UINT64_MAX) {
        snprintf(text, sizeof(text), "off");
    } else {
        snprintf(text, sizeof(text), "0x%" PRIx64, value);
    }
    say(v, text);
    return 0;
}

/* The elements of a field whose name is at the end of the path. */
static int view_values(struct viewer *v, struct source *s, unsigned tag, uint64_t n,
                       unsigned depth)
{
    size_t len = v->path.len - 1;
    int rc = 0;

    if (tag == TAG_BYTES || tag == TAG_BUF) {
        return view_bytes(v, s, n);
    }
    /* every element takes a byte at least: the stream bounds the loop */
    for (uint64_t i = 0; i < n && rc == 0 && !v->enough; i++) {
        if (n > 1) {
            cut_path(v, len);
            buf_printf(&v->path, "[%" PRIu64 "]", i);
            buf_add_char(&v->path, 0);
        }
        if (tag == TAG_STRUCT) {
            rc = view_struct(v, s, depth);
        } else {
            rc = view_number(v, s, tag, n <= ALL_OF);
        }
    }
    return rc;
}

static bool known_tag(uint64_t tag)
{
    return tag == 1 || tag == 2 || tag == 4 || tag == 8 || tag == TAG_BOOL ||
           tag == TAG_BYTES || tag == TAG_BUF || tag == TAG_STRUCT || tag == TAG_TIMER;
}

static int view_field(struct viewer *v, struct source *s, unsigned depth)
{
    char name[TEXT_MAX + 1];
    uint64_t tag = 0, n = 0;
    size_t len = v->path.len - 1;
    int rc = get_text(v, s, name);

    rc = rc == 0 ? get_num(v, s, 1, &tag) : rc;
    rc = rc == 0 ? get_num(v, s, 4, &n) : rc;
    if (rc == 0 && (!name[0] || !known_tag(tag))) {
        rc = err_set(v->e, -EBADMSG,
                     "the state of '%s' has a field '%s' of a kind %u that "
                     "this program does not know",
                     v->part, name, (unsigned)tag);
    }
    if (rc == 0 && len + strlen(name) > PATH_LEN_MAX) {
        rc = err_set(v->e, -EBADMSG, "the state of '%s' has names that are too long", v->part);
    }
    if (rc != 0) {
        return rc;
    }
    cut_path(v, len);
    buf_printf(&v->path, "%s%s", len ? "." : "", name);
    buf_add_char(&v->path, 0);
    rc = view_values(v, s, (unsigned)tag, n, depth);
    cut_path(v, len);
    v->path.len = len + 1;
    return rc;
}

/* Text name, u16 version, u32 number of fields, the fields. */
static int view_object(struct viewer *v, struct source *s, unsigned depth)
{
    char name[TEXT_MAX + 1];
    uint64_t version = 0, n = 0;
    int rc = depth > DEPTH_MAX
                 ? err_set(v->e, -EBADMSG, "the state of '%s' is nested too deep", v->part)
                 : get_text(v, s, name);

    rc = rc == 0 ? get_num(v, s, 2, &version) : rc;
    rc = rc == 0 ? get_num(v, s, 4, &n) : rc;
    for (uint64_t i = 0; i < n && rc == 0 && !v->enough; i++) {
        rc = view_field(v, s, depth);
    }
    return v->enough ? (s->n = 0, rc) : rc;
}

/* A part behind its name: class, then u32 length, object, u32 CRC-32 of both. */
static int view_part(struct viewer *v, struct source *s)
{
    char cls[TEXT_MAX + 1];
    uint64_t n = 0, sum = 0;
    int rc = get_text(v, s, cls);
    const uint8_t *from = s->p;

    rc = rc == 0 ? get_num(v, s, 4, &n) : rc;
    if (rc != 0 || s->n < 4 || n > s->n - 4) {
        return rc != 0 ? rc : cut(v);
    }
    struct source object = { s->p, n };

    s->p += n;
    s->n -= n;
    rc = get_num(v, s, 4, &sum);
    if (rc == 0 && sum != crc32_z(0, from, n + 4)) {
        rc = err_set(v->e, -EBADMSG,
                     "the state of '%s' is damaged: its checksum does not match", v->part);
    }
    rc = rc == 0 ? view_object(v, &object, 0) : rc;
    if (rc == 0 && object.n > 0) {
        rc = err_set(v->e, -EBADMSG, "the state of '%s' has %zu bytes too many", v->part,
                     object.n);
    }
    return rc;
}

int vmstate_view(const void *p, size_t n,
                 bool (*fn)(void *arg, const struct vmstate_field *field), void *arg,
                 struct err *e)
{
    struct viewer v = { .part = "machine", .fn = fn, .arg = arg, .e = e };
    struct source s = { p, n };
    int rc = 0;

    buf_add_char(&v.path, 0);
    while (rc == 0 && !v.enough) {
        rc = get_text(&v, &s, v.part);
        if (rc != 0 || !v.part[0]) {
            break;
        }
        rc = view_part(&v, &s);
    }
    if (rc == 0 && !v.enough && s.n > 0) {
        rc = err_set(e, -EBADMSG, "the machine's state has %zu bytes too many", s.n);
    }
    buf_done(&v.path);
    return rc;
}
