/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Greeting and frames to bytes and back. Numbers are little-endian.
 */
#include "engine/emu/state/stream.h"

#include <endian.h>
#include <errno.h>
#include <string.h>
#include <zlib.h>

#define FRAME_MAGIC 0x464d4456u /* "VDMF" */
static const char hello_magic[8] = "VMDMOVE";

static void add32(struct buf *b, uint32_t v)
{
    v = htole32(v);
    buf_add(b, &v, sizeof(v));
}

static void add64(struct buf *b, uint64_t v)
{
    v = htole64(v);
    buf_add(b, &v, sizeof(v));
}

static uint32_t get32(const void *p)
{
    uint32_t v;

    memcpy(&v, p, sizeof(v));
    return le32toh(v);
}

static uint64_t get64(const void *p)
{
    uint64_t v;

    memcpy(&v, p, sizeof(v));
    return le64toh(v);
}

static uint32_t sum(const void *p, size_t n)
{
    return (uint32_t)crc32_z(0, p, n);
}

void stream_put_hello(struct buf *out, const struct stream_hello *h)
{
    size_t at = out->len;
    char uuid[40] = "";

    memcpy(uuid, h->uuid, strnlen(h->uuid, sizeof(h->uuid)));
    buf_add(out, hello_magic, sizeof(hello_magic));
    add32(out, STREAM_FORMAT);
    add32(out, h->index);
    add32(out, h->streams);
    buf_add(out, uuid, sizeof(uuid));
    add32(out, sum(out->data + at, out->len - at));
}

void stream_put_frame(struct buf *out, const struct stream_frame *f, const void *body)
{
    size_t at = out->len;

    add32(out, FRAME_MAGIC);
    add32(out, f->type);
    add32(out, f->region);
    add32(out, f->length);
    add64(out, f->page);
    add32(out, sum(body, f->length));
    add32(out, sum(out->data + at, out->len - at));
    if (f->length > 0) {
        buf_add(out, body, f->length);
    }
}

size_t stream_wants(const struct stream_reader *r)
{
    size_t whole = !r->greeted ? STREAM_HELLO_LEN
                   : r->headed ? STREAM_HEAD_LEN + r->frame.length
                               : STREAM_HEAD_LEN;

    return r->ended || r->in.len >= whole ? 0 : whole - r->in.len;
}

static int take_hello(struct stream_reader *r, struct err *e)
{
    const char *p = r->in.data;

    if (memcmp(p, hello_magic, sizeof(hello_magic)) != 0) {
        return err_set(e, -EBADMSG, "the stream's magic is not that of a migration");
    }
    if (get32(p + 60) != sum(p, 60)) {
        return err_set(e, -EBADMSG, "the checksum of the stream's greeting does not match");
    }
    if (get32(p + 8) != STREAM_FORMAT) {
        return err_set(e, -EBADMSG, "the stream has format %u, this program reads format %u",
                       get32(p + 8), STREAM_FORMAT);
    }
    r->hello.index = get32(p + 12);
    r->hello.streams = get32(p + 16);
    memcpy(r->hello.uuid, p + 20, sizeof(r->hello.uuid) - 1);
    if (r->hello.streams == 0 || r->hello.streams > STREAM_LANES ||
        r->hello.index >= r->hello.streams) {
        return err_set(e, -EBADMSG, "the stream says it is number %u of %u", r->hello.index,
                       r->hello.streams);
    }
    r->greeted = true;
    r->in.len = 0;
    return 0;
}

static uint32_t most_of(uint32_t type)
{
    switch (type) {
    case STREAM_INFO:
        return STREAM_INFO_MAX;
    case STREAM_MACHINE:
        return STREAM_MACHINE_MAX;
    case STREAM_PAGES:
        return STREAM_PAGES_MAX;
    default:
        return 0;
    }
}

static int take_head(struct stream_reader *r, struct err *e)
{
    const char *p = r->in.data;
    unsigned long long n = r->frames;

    if (get32(p) != FRAME_MAGIC) {
        return err_set(e, -EBADMSG, "frame %llu of stream %u: wrong magic", n, r->hello.index);
    }
    if (get32(p + 28) != sum(p, 28)) {
        return err_set(e, -EBADMSG,
                       "frame %llu of stream %u: the checksum of its head does not match", n,
                       r->hello.index);
    }
    r->frame = (struct stream_frame){ .type = get32(p + 4),
                                      .region = get32(p + 8),
                                      .length = get32(p + 12),
                                      .page = get64(p + 16) };
    if (r->frame.type != STREAM_INFO && r->frame.type != STREAM_MACHINE &&
        r->frame.type != STREAM_PAGES && r->frame.type != STREAM_END) {
        return err_set(e, -EBADMSG,
                       "frame %llu of stream %u: type %u, which this program does not know", n,
                       r->hello.index, r->frame.type);
    }
    if (r->frame.length > most_of(r->frame.type)) {
        return err_set(e, -EBADMSG,
                       "frame %llu of stream %u: length %u, type %u has at most %u", n,
                       r->hello.index, r->frame.length, r->frame.type, most_of(r->frame.type));
    }
    r->headed = true;
    return 0;
}

/* Of a whole frame. */
static int check_body(struct stream_reader *r, const uint8_t *body, struct err *e)
{
    unsigned long long n = r->frames;

    if (get32(r->in.data + 24) != sum(body, r->frame.length)) {
        return err_set(e, -EBADMSG,
                       "frame %llu of stream %u: the checksum of its body does not match", n,
                       r->hello.index);
    }
    if (r->frame.type == STREAM_END && r->frame.page != r->frames) {
        return err_set(e, -EBADMSG, "stream %u ends after %llu frames and says %llu",
                       r->hello.index, n, (unsigned long long)r->frame.page);
    }
    return 0;
}

int stream_take(struct stream_reader *r, const uint8_t **body, struct err *e)
{
    int rc;

    if (r->ended || stream_wants(r) > 0) {
        return 0;
    }
    if (!r->greeted) {
        return take_hello(r, e);
    }
    if (!r->headed) {
        rc = take_head(r, e);
        if (rc != 0 || stream_wants(r) > 0) {
            return rc;
        }
    }
    *body = (const uint8_t *)r->in.data + STREAM_HEAD_LEN;
    rc = check_body(r, *body, e);
    if (rc != 0) {
        return rc;
    }
    r->headed = false;
    r->in.len = 0; /* the bytes stay until more are appended */
    r->ended = r->frame.type == STREAM_END;
    r->frames++;
    return 1;
}

void stream_reader_done(struct stream_reader *r)
{
    buf_done(&r->in);
    *r = (struct stream_reader){ .greeted = false };
}
