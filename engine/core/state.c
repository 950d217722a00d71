/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The state codec: objects to tagged bytes and back, by their tables. Owns nothing. Main
 * thread (timers are armed).
 *
 * Loading reads the stream twice, first against the table alone, then into the object, so
 * that a bad stream changes nothing.
 */
#include "engine/core/state.h"
#include "engine/core/clock.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <zlib.h>

#define ST_MAX_FIELDS 256

/* What stands in the stream for a kind: never renumbered. size: bytes of a value, 0:
 * variable. */
static const struct wire {
    uint8_t tag, size;
} wires[] = {
    [ST_U8] = { 1, 1 },   [ST_U16] = { 2, 2 },     [ST_U32] = { 4, 4 },
    [ST_U64] = { 8, 8 },  [ST_BOOL] = { 16, 1 },   [ST_BYTES] = { 32, 1 },
    [ST_BUF] = { 33, 1 }, [ST_STRUCT] = { 48, 0 }, [ST_TIMER] = { 64, 8 },
};

static uint32_t count_of(const struct st_field *f)
{
    return f->count ? f->count : 1;
}

static size_t stride_of(const struct st_field *f)
{
    switch (f->kind) {
    case ST_STRUCT:
        return f->stride;
    case ST_TIMER:
        return sizeof(struct vtimer *);
    case ST_BOOL:
        return sizeof(bool);
    case ST_BUF:
        return sizeof(struct buf);
    default:
        return wires[f->kind].size;
    }
}

static void *element(const void *obj, const struct st_field *f, uint32_t i)
{
    return (char *)obj + f->offset + i * stride_of(f);
}

/* Integers, bools and timers as numbers. */
static uint64_t value_get(const struct st_field *f, const void *p)
{
    switch (f->kind) {
    case ST_U16:
        return *(const uint16_t *)p;
    case ST_U32:
        return *(const uint32_t *)p;
    case ST_U64:
        return *(const uint64_t *)p;
    case ST_BOOL:
        return *(const bool *)p;
    case ST_TIMER:
        return vtimer_deadline(*(struct vtimer *const *)p);
    default:
        return *(const uint8_t *)p;
    }
}

static void value_put(const struct st_field *f, void *p, uint64_t v)
{
    switch (f->kind) {
    case ST_U16:
        *(uint16_t *)p = (uint16_t)v;
        break;
    case ST_U32:
        *(uint32_t *)p = (uint32_t)v;
        break;
    case ST_U64:
        *(uint64_t *)p = v;
        break;
    case ST_BOOL:
        *(bool *)p = v != 0;
        break;
    case ST_TIMER:
        vtimer_arm(*(struct vtimer **)p, v);
        break;
    default:
        *(uint8_t *)p = (uint8_t)v;
    }
}

/* ---- saving ---- */

static void put_num(struct buf *b, uint64_t v, unsigned bytes)
{
    uint8_t le[8];
    for (unsigned i = 0; i < bytes; i++) {
        le[i] = (uint8_t)(v >> (i * 8));
    }
    buf_add(b, le, bytes);
}

static void put_text(struct buf *b, const char *s)
{
    size_t n = strlen(s);
    assert(n > 0 && n < 256);
    put_num(b, n, 1);
    buf_add(b, s, n);
}

/* Overwrites a 32-bit number written before. */
static void patch_u32(struct buf *b, size_t at, uint32_t v)
{
    for (unsigned i = 0; i < 4; i++) {
        b->data[at + i] = (char)(v >> (i * 8));
    }
}

static bool table_at_reset(const struct st_table *t, const void *obj);

static bool field_at_reset(const struct st_field *f, const void *obj)
{
    if (f->kind == ST_BUF) {
        return ((const struct buf *)element(obj, f, 0))->len == 0;
    }
    for (uint32_t i = 0; i < count_of(f); i++) {
        const void *p = element(obj, f, i);
        if (f->kind == ST_STRUCT
                ? !table_at_reset(f->table, p)
                : value_get(f, p) != (f->kind == ST_TIMER ? UINT64_MAX : f->reset)) {
            return false;
        }
    }
    return true;
}

static bool table_at_reset(const struct st_table *t, const void *obj)
{
    for (const struct st_field *f = t->fields; f->name; f++) {
        if (!field_at_reset(f, obj)) {
            return false;
        }
    }
    return true;
}

static void save_object(const struct st_table *t, const void *obj, struct buf *b, bool all);

static void save_field(const struct st_field *f, const void *obj, struct buf *b, bool all)
{
    put_text(b, f->name);
    put_num(b, wires[f->kind].tag, 1);
    const void *p = element(obj, f, 0);
    if (f->kind == ST_BUF) {
        const struct buf *bytes = p;
        put_num(b, bytes->len, 4);
        buf_add(b, bytes->data ? bytes->data : "", bytes->len);
        return;
    }
    put_num(b, count_of(f), 4);
    if (f->kind == ST_BYTES) {
        buf_add(b, p, count_of(f));
        return;
    }
    for (uint32_t i = 0; i < count_of(f); i++) {
        p = element(obj, f, i);
        if (f->kind == ST_STRUCT) {
            size_t at = b->len;
            put_num(b, 0, 4);
            save_object(f->table, p, b, all);
            patch_u32(b, at, (uint32_t)(b->len - at - 4));
        } else {
            put_num(b, value_get(f, p), wires[f->kind].size);
        }
    }
}

static void save_object(const struct st_table *t, const void *obj, struct buf *b, bool all)
{
    put_text(b, t->name);
    put_num(b, t->version, 2);
    size_t at = b->len;
    uint32_t n = 0;
    put_num(b, 0, 4);
    for (const struct st_field *f = t->fields; f->name; f++) {
        if (all || !(f->flags & ST_OPTIONAL) || !field_at_reset(f, obj)) {
            save_field(f, obj, b, all);
            n++;
        }
    }
    patch_u32(b, at, n);
}

static void save(const struct st_table *t, const void *obj, struct buf *b, bool all)
{
    size_t at = b->len;
    put_num(b, 0, 4);
    save_object(t, obj, b, all);
    patch_u32(b, at, (uint32_t)(b->len - at - 4));
    put_num(b, crc32(0, (const Bytef *)b->data + at, (uInt)(b->len - at)), 4);
}

void st_save(const struct st_table *t, const void *obj, struct buf *b)
{
    save(t, obj, b, false);
}

/* ---- loading ---- */

/* A window of the stream; `table` names it in errors. */
struct reader {
    const uint8_t *p;
    size_t n;
    const char *table;
};

static int ends_early(const struct reader *r, struct err *e)
{
    return err_set(e, -EBADMSG, "state of '%s' ends in the middle of a field", r->table);
}

static int get_num(struct reader *r, unsigned bytes, uint64_t *v, struct err *e)
{
    if (r->n < bytes) {
        return ends_early(r, e);
    }
    *v = 0;
    for (unsigned i = 0; i < bytes; i++) {
        *v |= (uint64_t)r->p[i] << (i * 8);
    }
    r->p += bytes;
    r->n -= bytes;
    return 0;
}

static int get_text(struct reader *r, char out[256], struct err *e)
{
    uint64_t n = 0;
    int ret = get_num(r, 1, &n, e);
    if (ret < 0) {
        return ret;
    }
    if (n == 0 || r->n < n) {
        return ends_early(r, e);
    }
    for (uint64_t i = 0; i < n; i++) { /* shown to people when it is unknown */
        out[i] = r->p[i] >= 0x20 && r->p[i] < 0x7f ? (char)r->p[i] : '?';
    }
    out[n] = '\0';
    r->p += n;
    r->n -= n;
    return 0;
}

static int load_object(struct reader *r, const struct st_table *t, void *obj, struct err *e);

/* obj NULL: only checks. */
static int load_struct(struct reader *r, const struct st_field *f, void *obj, uint32_t i,
                       struct err *e)
{
    uint64_t n = 0;
    int ret = get_num(r, 4, &n, e);
    if (ret < 0) {
        return ret;
    }
    if (r->n < n) {
        return ends_early(r, e);
    }
    struct reader inner = { r->p, n, f->table->name };
    ret = load_object(&inner, f->table, obj ? element(obj, f, i) : NULL, e);
    if (ret == 0 && inner.n) {
        ret = err_set(e, -EBADMSG, "state of '%s' has %zu bytes too many", f->table->name,
                      inner.n);
    }
    r->p += n;
    r->n -= n;
    return ret;
}

static int load_bytes(struct reader *r, const struct st_field *f, void *obj, uint64_t n,
                      struct err *e)
{
    if (r->n < n) {
        return ends_early(r, e);
    }
    if (obj && f->kind == ST_BUF) {
        struct buf *b = element(obj, f, 0);
        buf_consume(b, b->len);
        buf_add(b, r->p, n);
    } else if (obj) {
        memcpy(element(obj, f, 0), r->p, n);
    }
    r->p += n;
    r->n -= n;
    return 0;
}

static int load_values(struct reader *r, const struct st_field *f, void *obj, uint32_t n,
                       struct err *e)
{
    for (uint32_t i = 0; i < n; i++) {
        uint64_t v = 0;
        int ret = f->kind == ST_STRUCT ? load_struct(r, f, obj, i, e)
                                       : get_num(r, wires[f->kind].size, &v, e);
        if (ret < 0) {
            return ret;
        }
        if (f->kind == ST_BOOL && v > 1) {
            return err_set(e, -EBADMSG, "state of '%s': field '%s' is neither yes nor no",
                           r->table, f->name);
        }
        if (obj && f->kind != ST_STRUCT) {
            value_put(f, element(obj, f, i), v);
        }
    }
    return 0;
}

static int load_field(struct reader *r, const struct st_field *f, void *obj, struct err *e)
{
    uint64_t tag = 0, n = 0;
    int ret = get_num(r, 1, &tag, e);
    if (ret == 0) {
        ret = get_num(r, 4, &n, e);
    }
    if (ret < 0) {
        return ret;
    }
    if (tag != wires[f->kind].tag) {
        return err_set(e, -EBADMSG, "state of '%s': field '%s' has another kind", r->table,
                       f->name);
    }
    if (f->kind == ST_BUF ? n > f->count : n != count_of(f)) {
        return err_set(e, -EBADMSG,
                       "state of '%s': field '%s' cannot have %" PRIu64 " elements", r->table,
                       f->name, n);
    }
    if (f->kind == ST_BUF || f->kind == ST_BYTES) {
        return load_bytes(r, f, obj, n, e);
    }
    return load_values(r, f, obj, (uint32_t)n, e);
}

/* Fields that did not come: newer than the sender, or optional and at their reset value
 * there. */
static int check_missing(const struct st_table *t, const bool *seen, unsigned version,
                         struct err *e)
{
    for (const struct st_field *f = t->fields; f->name; f++) {
        if (!seen[f - t->fields] && !(f->flags & ST_OPTIONAL) && f->since <= version) {
            return err_set(e, -EBADMSG, "state of '%s' lacks the field '%s'", t->name, f->name);
        }
    }
    return 0;
}

static int load_fields(struct reader *r, const struct st_table *t, void *obj, uint64_t n_fields,
                       unsigned version, struct err *e)
{
    bool seen[ST_MAX_FIELDS] = { false };
    for (uint64_t i = 0; i < n_fields; i++) {
        char name[256];
        int ret = get_text(r, name, e);
        if (ret < 0) {
            return ret;
        }
        const struct st_field *f = t->fields;
        while (f->name && strcmp(f->name, name) != 0) {
            f++;
        }
        if (!f->name) {
            return err_set(
                e, -EBADMSG,
                "state of '%s' (version %u) has a field '%s' that this program (version %u) "
                "does not know: a newer program saved it",
                t->name, version, name, t->version);
        }
        if (seen[f - t->fields]) {
            return err_set(e, -EBADMSG, "state of '%s' has the field '%s' twice", t->name,
                           name);
        }
        seen[f - t->fields] = true;
        ret = load_field(r, f, obj, e);
        if (ret < 0) {
            return ret;
        }
    }
    return check_missing(t, seen, version, e);
}

static int load_object(struct reader *r, const struct st_table *t, void *obj, struct err *e)
{
    char name[256];
    uint64_t version = 0, n_fields = 0;
    int ret = get_text(r, name, e);
    if (ret == 0 && strcmp(name, t->name) != 0) {
        ret = err_set(e, -EBADMSG, "state of '%s' expected, the stream has '%s'", t->name,
                      name);
    }
    if (ret == 0) {
        ret = get_num(r, 2, &version, e);
    }
    if (ret == 0) {
        ret = get_num(r, 4, &n_fields, e);
    }
    return ret < 0 ? ret : load_fields(r, t, obj, n_fields, (unsigned)version, e);
}

/* Nested objects first. */
static int run_loaded(const struct st_table *t, void *obj, struct err *e)
{
    for (const struct st_field *f = t->fields; f->name; f++) {
        for (uint32_t i = 0; f->kind == ST_STRUCT && i < count_of(f); i++) {
            int ret = run_loaded(f->table, element(obj, f, i), e);
            if (ret < 0) {
                return ret;
            }
        }
    }
    return t->loaded ? t->loaded(obj, e) : 0;
}

static void check_table(const struct st_table *t, size_t obj_size)
{
    for (const struct st_field *f = t->fields; f->name; f++) {
        uint32_t n = f->kind == ST_BUF ? 1 : count_of(f);
        assert(f - t->fields < ST_MAX_FIELDS);
        assert(f->since >= 1 && f->since <= t->version);
        assert(f->offset + (size_t)n * stride_of(f) <= obj_size);
        if (f->kind == ST_STRUCT) {
            check_table(f->table, f->stride);
        }
    }
    (void)obj_size;
}

/* Finds the frame in p[0..n) and checks its sum. */
static int open_frame(const struct st_table *t, const void *p, size_t n, struct reader *r,
                      struct err *e)
{
    struct reader whole = { p, n, t->name };
    uint64_t len = 0, sum = 0;
    int ret = get_num(&whole, 4, &len, e);
    if (ret < 0) {
        return ret;
    }
    if (whole.n < 4 || len > whole.n - 4) {
        return ends_early(&whole, e);
    }
    *r = (struct reader){ whole.p, len, t->name };
    struct reader tail = { whole.p + len, 4, t->name };
    ret = get_num(&tail, 4, &sum, e);
    if (ret == 0 && sum != crc32_z(0, p, len + 4)) {
        ret = err_set(e, -EBADMSG, "state of '%s' is damaged: its checksum does not match",
                      t->name);
    }
    return ret;
}

int st_load(const struct st_table *t, void *obj, size_t obj_size, const void *p, size_t n,
            size_t *used, struct err *e)
{
    check_table(t, obj_size);
    struct reader r;
    int ret = open_frame(t, p, n, &r, e);
    if (ret < 0) {
        return ret;
    }
    struct reader check = r;
    ret = load_object(&check, t, NULL, e);
    if (ret == 0 && check.n) {
        ret = err_set(e, -EBADMSG, "state of '%s' has %zu bytes too many", t->name, check.n);
    }
    if (ret < 0) {
        return ret;
    }
    AUTO_BUF before = BUF_INIT;
    save_object(t, obj, &before, true);
    struct reader apply = r;
    (void)load_object(&apply, t, obj, NULL);
    ret = run_loaded(t, obj, e);
    if (ret < 0) {
        struct reader undo = { (const uint8_t *)before.data, before.len, t->name };
        (void)load_object(&undo, t, obj, NULL);
        (void)run_loaded(t, obj, NULL);
        return ret;
    }
    *used = r.n + 8;
    return 0;
}

/* ---- printing ---- */

static void print_object(const struct st_table *t, const void *obj, struct buf *b,
                         unsigned depth);

static void print_bytes(const uint8_t *p, size_t n, struct buf *b)
{
    for (size_t i = 0; i < n && i < 64; i++) {
        buf_printf(b, "%02x", p[i]);
    }
    buf_add_str(b, n > 64 ? "...\n" : "\n");
}

static void print_field(const struct st_field *f, const void *obj, struct buf *b,
                        unsigned depth)
{
    uint32_t n = count_of(f);
    if (f->kind == ST_BYTES || f->kind == ST_BUF) {
        const struct buf *bytes = element(obj, f, 0);
        buf_printf(b, "%*s%s = ", (int)(depth * 2), "", f->name);
        print_bytes(f->kind == ST_BUF ? (const uint8_t *)bytes->data : element(obj, f, 0),
                    f->kind == ST_BUF ? bytes->len : n, b);
        return;
    }
    for (uint32_t i = 0; i < n; i++) {
        buf_printf(b, "%*s%s", (int)(depth * 2), "", f->name);
        if (n > 1) {
            buf_printf(b, "[%" PRIu32 "]", i);
        }
        const void *p = element(obj, f, i);
        if (f->kind == ST_STRUCT) {
            buf_add_str(b, ":\n");
            print_object(f->table, p, b, depth + 1);
        } else if (f->kind == ST_BOOL) {
            buf_printf(b, " = %s\n", value_get(f, p) ? "true" : "false");
        } else if (f->kind == ST_TIMER && value_get(f, p) == UINT64_MAX) {
            buf_add_str(b, " = off\n");
        } else {
            buf_printf(b, " = 0x%" PRIx64 "\n", value_get(f, p));
        }
    }
}

static void print_object(const struct st_table *t, const void *obj, struct buf *b,
                         unsigned depth)
{
    for (const struct st_field *f = t->fields; f->name; f++) {
        print_field(f, obj, b, depth);
    }
}

void st_print(const struct st_table *t, const void *obj, struct buf *b)
{
    print_object(t, obj, b, 0);
}
