/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading and writing of 9P messages, and what kinds of them there are. Plain data, any thread.
 */
#include "engine/base/mem.h"
#include "storage/share/p9.h"

#include <errno.h>
#include <string.h>

static const uint8_t *take(struct p9_in *in, size_t n)
{
    const uint8_t *at = in->p;

    if (in->bad || in->n < n) {
        in->bad = true;
        return NULL;
    }
    in->p += n;
    in->n -= n;
    return at;
}

static uint64_t get(struct p9_in *in, unsigned n)
{
    const uint8_t *at = take(in, n);
    uint64_t v = 0;

    for (unsigned i = 0; at && i < n; i++) {
        v |= (uint64_t)at[i] << (8 * i);
    }
    return v;
}

uint8_t p9_get8(struct p9_in *in)
{
    return (uint8_t)get(in, 1);
}

uint16_t p9_get16(struct p9_in *in)
{
    return (uint16_t)get(in, 2);
}

uint32_t p9_get32(struct p9_in *in)
{
    return (uint32_t)get(in, 4);
}

uint64_t p9_get64(struct p9_in *in)
{
    return get(in, 8);
}

void p9_get_str(struct p9_in *in, char *out, size_t max)
{
    size_t n = p9_get16(in);
    const uint8_t *at = n <= max ? take(in, n) : NULL;

    out[0] = 0;
    if (!at || memchr(at, 0, n)) {
        in->bad = true;
        return;
    }
    memcpy(out, at, n);
    out[n] = 0;
}

void p9_put_bytes(struct p9_out *out, const void *p, size_t n)
{
    if (out->full || out->cap - out->n < n) {
        out->full = true;
        return;
    }
    memcpy(out->p + out->n, p, n);
    out->n += n;
}

static void put(struct p9_out *out, uint64_t v, unsigned n)
{
    uint8_t bytes[8];

    for (unsigned i = 0; i < n; i++) {
        bytes[i] = (uint8_t)(v >> (8 * i));
    }
    p9_put_bytes(out, bytes, n);
}

void p9_put8(struct p9_out *out, uint8_t v)
{
    put(out, v, 1);
}

void p9_put16(struct p9_out *out, uint16_t v)
{
    put(out, v, 2);
}

void p9_put32(struct p9_out *out, uint32_t v)
{
    put(out, v, 4);
}

void p9_put64(struct p9_out *out, uint64_t v)
{
    put(out, v, 8);
}

void p9_put_str(struct p9_out *out, const char *s)
{
    size_t n = strlen(s);

    p9_put16(out, (uint16_t)n);
    p9_put_bytes(out, s, n);
}

/* --- the kinds --- */

enum { RLERROR = 7 };

static const struct kind {
    uint8_t type; /* of the request; the answer's is one more */
    bool changes; /* refused of a share that is only read */
    p9_handler *fn;
} kinds[] = {
    { 8, false, p9_statfs },      { 12, false, p9_lopen },   { 14, true, p9_lcreate },
    { 16, true, p9_symlink },     { 18, true, p9_mknod },    { 22, false, p9_readlink },
    { 24, false, p9_getattr },    { 26, true, p9_setattr },  { 30, false, p9_xattrwalk },
    { 32, true, p9_xattrcreate }, { 40, false, p9_readdir }, { 50, false, p9_fsync },
    { 52, false, p9_lock },       { 54, false, p9_getlock }, { 70, true, p9_link },
    { 72, true, p9_mkdir },       { 74, true, p9_renameat }, { 76, true, p9_unlinkat },
    { 100, false, p9_version },   { 104, false, p9_attach }, { 108, false, p9_flush },
    { 110, false, p9_walk },      { 116, false, p9_read },   { 118, true, p9_write },
    { 120, false, p9_clunk },     { 122, false, p9_remove },
};

static const struct kind *kind_of(uint8_t type)
{
    for (unsigned i = 0; i < ARRAY_LEN(kinds); i++) {
        if (kinds[i].type == type) {
            return &kinds[i];
        }
    }
    return NULL;
}

size_t p9_answer(struct p9 *s, const uint8_t *message, size_t n, uint8_t *out)
{
    struct p9_in in = { .p = message, .n = n };
    struct p9_out o = { .p = out, .n = P9_HEADER, .cap = s->msize };
    uint32_t size = p9_get32(&in);
    uint8_t type = p9_get8(&in);
    uint16_t tag = p9_get16(&in);
    const struct kind *k = kind_of(type);
    int rc = in.bad || size != n         ? -EINVAL
             : !k                        ? -EOPNOTSUPP
             : k->changes && s->readonly ? -EROFS
                                         : k->fn(s, &in, &o);

    if (rc == 0 && o.full) {
        rc = -EMSGSIZE;
    }
    if (rc < 0) {
        o = (struct p9_out){ .p = out, .n = P9_HEADER, .cap = P9_MSIZE };
        p9_put32(&o, (uint32_t)-rc);
        type = RLERROR - 1;
    }
    struct p9_out head = { .p = out, .cap = P9_HEADER };
    p9_put32(&head, (uint32_t)o.n);
    p9_put8(&head, (uint8_t)(type + 1));
    p9_put16(&head, tag);
    return o.n;
}
