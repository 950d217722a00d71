/* SPDX-License-Identifier: Apache-2.0 */
/*
 * State tables and their codec: what snapshot, migration and introspection read, all three.
 *
 * A table lists the fields of a struct: name, kind, offset, count, since-version, flags,
 * doc. The stream is tagged by field name: a field newer than the sender keeps its reset
 * value; an unknown one is an error naming it; an optional one is omitted while it has its
 * reset value, so that a newer sender reaches an older receiver when the feature is unused.
 * Encoding is little-endian whatever the host. Reading is bounded: no size in a stream is
 * trusted.
 *
 * Stream: u32 length of the object, the object, u32 CRC-32 of both. Object: text name, u16
 * version, u32 number of fields, the fields. Field: text name, u8 wire kind, u32 count, the
 * values. Text: u8 length, bytes. Values: integers in their own width, a bool in a byte, a
 * timer as its u64 deadline, a nested object as u32 length and object.
 */
#ifndef VMD_CORE_STATE_H
#define VMD_CORE_STATE_H

#include "engine/base/buf.h"
#include "engine/base/err.h"

#include <stddef.h>
#include <stdint.h>

enum st_kind {
    ST_U8,
    ST_U16,
    ST_U32,
    ST_U64,
    ST_BOOL,
    ST_BYTES /* count bytes */,
    ST_BUF /* struct buf, up to count bytes */,
    ST_STRUCT /* nested table, count times */,
    ST_TIMER /* struct vtimer *: deadline */
};
enum { ST_OPTIONAL = 1 };

struct st_table;
struct st_field {
    const char *name;
    enum st_kind kind;
    uint32_t offset;
    uint32_t count;  /* array length, 1 for scalars */
    uint32_t stride; /* ST_STRUCT arrays: size of an element */
    uint16_t since;  /* table version that introduced it */
    uint16_t flags;
    const struct st_table *table; /* ST_STRUCT */
    /* ST_OPTIONAL integers, BOOL, BYTES: each element's value at reset. BUF: empty. TIMER:
     * disarmed */
    uint64_t reset;
    const char *doc;
};
struct st_table {
    const char *name;
    uint16_t version;
    const struct st_field *fields; /* ended by name NULL */
    /* After loading: rebuilds derived state and rejects impossible values (-EINVAL, names
     * the field). */
    int (*loaded)(void *obj, struct err *e);
};

#define ST_FIELD(type, member, kind_, since_, doc_)                                            \
    {                                                                                          \
        .name = #member, .kind = (kind_), .offset = offsetof(type, member), .count = 1,        \
        .since = (since_), .doc = (doc_)                                                       \
    }
#define ST_ARRAY(type, member, kind_, n, since_, doc_)                                         \
    {                                                                                          \
        .name = #member, .kind = (kind_), .offset = offsetof(type, member), .count = (n),      \
        .since = (since_), .doc = (doc_)                                                       \
    }
#define ST_END                                                                                 \
    {                                                                                          \
        .name = NULL                                                                           \
    }

/* Appends the object to b. */
void st_save(const struct st_table *t, const void *obj, struct buf *b);
/* Reads it back from p[0..n); *used gets the bytes consumed. The object keeps what it has
 * (its reset values) for absent fields that may be absent, and is untouched when this fails:
 * the stream is checked whole before the first field is written, and when a loaded() hook
 * refuses, what was there before is put back and the hooks run once more. obj_size is the
 * size of the object, against which the table is checked. Main thread (timers). */
int st_load(const struct st_table *t, void *obj, size_t obj_size, const void *p, size_t n,
            size_t *used, struct err *e);
/* Human-readable "name = value" lines. */
void st_print(const struct st_table *t, const void *obj, struct buf *b);

#endif
