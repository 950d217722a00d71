/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Recordings in files: writing, and reading what anybody may have written.
 */
#include "engine/emu/replay/log.h"

#include "engine/base/buf.h"
#include "engine/base/fd.h"
#include "engine/base/mem.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>

#define MAGIC "VMD-REC\n"
#define HEAD 20u
#define CHUNK_MAGIC 0x4b484356u
#define CHUNK_HEAD 16u
#define RECORD_HEAD 40u
#define CHUNK_WANTED (64u << 10) /* a chunk is written when it has as much */
#define LEVEL 1                  /* of zstd */

static void put_le(uint8_t *p, uint64_t v, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        p[i] = (uint8_t)(v >> 8 * i);
    }
}

static uint64_t get_le(const uint8_t *p, unsigned n)
{
    uint64_t v = 0;

    for (unsigned i = 0; i < n; i++) {
        v |= (uint64_t)p[i] << 8 * i;
    }
    return v;
}

static uint32_t sum_of(const uint8_t *head, size_t n, const void *p, size_t len)
{
    uLong sum = crc32_z(0, head, n);

    return (uint32_t)crc32_z(sum, p, len);
}

/* --- writing --- */

struct reclog_writer {
    int fd;
    struct buf records, packed;
    ZSTD_CCtx *zstd;
};

int reclog_create(int fd, const char *text, struct reclog_writer **out, struct err *e)
{
    size_t n = strlen(text);
    uint8_t head[HEAD];
    struct reclog_writer *w;
    int rc;

    if (n > RECLOG_TEXT_MAX) {
        return err_set(e, -E2BIG, "the machine's description has %zu bytes; %u are the most", n,
                       RECLOG_TEXT_MAX);
    }
    memcpy(head, MAGIC, 8);
    put_le(head + 8, RECLOG_VERSION, 4);
    put_le(head + 12, n, 4);
    put_le(head + 16, sum_of(head + 8, 8, text, n), 4);
    rc = fd_write_all(fd, head, sizeof(head), "the recording", e);
    rc = rc == 0 ? fd_write_all(fd, text, n, "the recording", e) : rc;
    if (rc != 0) {
        return rc;
    }
    w = xnew(struct reclog_writer);
    w->fd = fd;
    w->zstd = ZSTD_createCCtx();
    if (!w->zstd) {
        reclog_close(w);
        return err_set(e, -ENOMEM, "the recording: no memory to compress it");
    }
    *out = w;
    return 0;
}

int reclog_flush(struct reclog_writer *w, struct err *e)
{
    size_t raw = w->records.len, room = ZSTD_compressBound(raw), n;
    uint8_t *p;

    if (raw == 0) {
        return 0;
    }
    w->packed.len = 0;
    buf_reserve(&w->packed, CHUNK_HEAD + room);
    p = (uint8_t *)w->packed.data;
    n = ZSTD_compressCCtx(w->zstd, p + CHUNK_HEAD, room, w->records.data, raw, LEVEL);
    if (ZSTD_isError(n)) {
        return err_set(e, -EIO, "the recording cannot be compressed: %s", ZSTD_getErrorName(n));
    }
    put_le(p, CHUNK_MAGIC, 4);
    put_le(p + 4, n, 4);
    put_le(p + 8, raw, 4);
    put_le(p + 12, sum_of(p + 4, 8, p + CHUNK_HEAD, n), 4);
    w->records.len = 0;
    return fd_write_all(w->fd, p, CHUNK_HEAD + n, "the recording", e);
}

int reclog_put(struct reclog_writer *w, const struct replay_record *r, struct err *e)
{
    uint8_t head[RECORD_HEAD] = { (uint8_t)r->kind };

    if (r->n > RECLOG_PAYLOAD_MAX || r->source > UINT16_MAX || r->at.turn > UINT16_MAX) {
        return err_set(e, -E2BIG, "a record of %zu bytes does not fit into a recording", r->n);
    }
    put_le(head + 2, r->source, 2);
    put_le(head + 4, r->n, 4);
    put_le(head + 8, r->at.turn, 2);
    put_le(head + 12, r->at.traps, 4);
    put_le(head + 16, r->at.count, 8);
    put_le(head + 24, r->at.now, 8);
    put_le(head + 32, r->check, 8);
    buf_add(&w->records, head, sizeof(head));
    buf_add(&w->records, r->p, r->n);
    return w->records.len >= CHUNK_WANTED ? reclog_flush(w, e) : 0;
}

bool reclog_waiting(const struct reclog_writer *w)
{
    return w->records.len > 0;
}

void reclog_close(struct reclog_writer *w)
{
    if (w) {
        ZSTD_freeCCtx(w->zstd);
        buf_done(&w->records);
        buf_done(&w->packed);
        free(w);
    }
}

/* --- reading --- */

struct reclog_reader {
    int fd;
    char *text;
    uint64_t first, at; /* in the file: the first chunk, the next one */
    uint64_t chunk;     /* where the one in hand begins */
    uint8_t *packed, *raw;
    size_t n, used; /* of raw */
    ZSTD_DCtx *zstd;
    struct replay_record record;
    struct replay_place last;
    bool cut, ended;
};

static int bad(const struct reclog_reader *r, struct err *e, const char *what, uint64_t is)
{
    return err_set(e, -EBADMSG,
                   "the recording is damaged: chunk at byte %" PRIu64
                   ", record at byte %zu of it: "
                   "%s (%" PRIu64 ")",
                   r->chunk, r->used, what, is);
}

static int bad_chunk(const struct reclog_reader *r, struct err *e, const char *what,
                     uint64_t is)
{
    return err_set(e, -EBADMSG,
                   "the recording is damaged: chunk at byte %" PRIu64 ": %s (%" PRIu64 ")",
                   r->chunk, what, is);
}

/* All n bytes, or fewer at the end of the file. */
static ssize_t read_some(int fd, void *p, size_t n, uint64_t at, struct err *e)
{
    size_t have = 0;

    while (have < n) {
        ssize_t got = fd_pread(fd, (uint8_t *)p + have, n - have, at + have);

        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got < 0) {
            return err_errno(e, errno, "cannot read the recording");
        }
        if (got == 0) {
            break;
        }
        have += (size_t)got;
    }
    return (ssize_t)have;
}

static int read_head(struct reclog_reader *r, struct err *e)
{
    uint8_t head[HEAD];
    ssize_t got = read_some(r->fd, head, sizeof(head), 0, e);
    uint64_t version, n;

    if (got < 0) {
        return (int)got;
    }
    if (got < (ssize_t)sizeof(head) || memcmp(head, MAGIC, 8) != 0) {
        return err_set(e, -EBADMSG, "this is no recording: it does not begin as one");
    }
    version = get_le(head + 8, 4);
    n = get_le(head + 12, 4);
    if (version != RECLOG_VERSION) {
        return err_set(e, -ENOTSUP,
                       "the recording has format version %" PRIu64 "; this build reads %d",
                       version, RECLOG_VERSION);
    }
    if (n > RECLOG_TEXT_MAX) {
        return err_set(
            e, -EBADMSG,
            "the recording is damaged: header: length of the description (%" PRIu64 ")", n);
    }
    r->text = xalloc(n + 1);
    r->text[n] = '\0';
    got = read_some(r->fd, r->text, n, HEAD, e);
    if (got < 0) {
        return (int)got;
    }
    if ((size_t)got < n || sum_of(head + 8, 8, r->text, n) != get_le(head + 16, 4) ||
        memchr(r->text, 0, n)) {
        return err_set(e, -EBADMSG, "the recording is damaged: header: checksum");
    }
    r->first = r->at = HEAD + n;
    return 0;
}

/* 1: there is one; 0: the file ends, or is cut off in it. */
static int read_chunk(struct reclog_reader *r, struct err *e)
{
    uint8_t head[CHUNK_HEAD];
    ssize_t got = read_some(r->fd, head, sizeof(head), r->at, e);
    uint64_t n, raw;
    size_t size;

    r->chunk = r->at;
    r->n = r->used = 0;
    if (got < (ssize_t)sizeof(head)) {
        r->cut |= got > 0;
        return got < 0 ? (int)got : 0;
    }
    n = get_le(head + 4, 4);
    raw = get_le(head + 8, 4);
    if (get_le(head, 4) != CHUNK_MAGIC) {
        return bad_chunk(r, e, "it does not begin as one", get_le(head, 4));
    }
    if (n == 0 || n > ZSTD_COMPRESSBOUND(RECLOG_CHUNK_MAX)) {
        return bad_chunk(r, e, "bytes in the file", n);
    }
    if (raw < RECORD_HEAD || raw > RECLOG_CHUNK_MAX) {
        return bad_chunk(r, e, "bytes of records", raw);
    }
    got = read_some(r->fd, r->packed, n, r->at + CHUNK_HEAD, e);
    if (got < (ssize_t)n) {
        r->cut |= got >= 0;
        return got < 0 ? (int)got : 0;
    }
    if (sum_of(head + 4, 8, r->packed, n) != get_le(head + 12, 4)) {
        return bad_chunk(r, e, "checksum", get_le(head + 12, 4));
    }
    size = ZSTD_decompressDCtx(r->zstd, r->raw, RECLOG_CHUNK_MAX, r->packed, n);
    if (ZSTD_isError(size) || size != raw) {
        return bad_chunk(r, e, "its records do not decompress", n);
    }
    r->n = size;
    r->at += CHUNK_HEAD + n;
    return 1;
}

static bool descends(const struct replay_place *was, const struct replay_place *is)
{
    return is->count < was->count || is->now < was->now;
}

static int check_record(struct reclog_reader *r, const struct replay_record *rec, struct err *e)
{
    const uint8_t *p = r->raw + r->used;

    if (rec->kind < REPLAY_INPUT || rec->kind >= REPLAY_KINDS) {
        return bad(r, e, "kind", rec->kind);
    }
    if (p[1] || get_le(p + 10, 2)) {
        return bad(r, e, "reserved bytes are not zero", get_le(p + 10, 2));
    }
    if (rec->n > RECLOG_PAYLOAD_MAX || rec->n > r->n - r->used - RECORD_HEAD) {
        return bad(r, e, "length", rec->n);
    }
    if (descends(&r->last, &rec->at)) {
        return bad(r, e, "its place lies before that of the record before it: instruction",
                   rec->at.count);
    }
    if (r->ended) {
        return bad(r, e, "there is a record after the end: kind", rec->kind);
    }
    if (rec->kind == REPLAY_OUTPUT && rec->n != 16) {
        return bad(r, e, "length of an output's digest", rec->n);
    }
    return 0;
}

const struct replay_record *reclog_next(struct reclog_reader *r, struct err *e)
{
    const uint8_t *p;
    struct replay_record rec;
    int rc;

    if (r->used == r->n) {
        rc = read_chunk(r, e);
        if (rc <= 0) {
            return NULL;
        }
    }
    if (r->n - r->used < RECORD_HEAD) {
        bad(r, e, "a record is cut off: bytes", r->n - r->used);
        return NULL;
    }
    p = r->raw + r->used;
    rec = (struct replay_record){ .kind = (enum replay_kind)p[0],
                                  .source = (uint32_t)get_le(p + 2, 2),
                                  .n = get_le(p + 4, 4),
                                  .at = { .turn = (uint32_t)get_le(p + 8, 2),
                                          .traps = (uint32_t)get_le(p + 12, 4),
                                          .count = get_le(p + 16, 8),
                                          .now = get_le(p + 24, 8) },
                                  .check = get_le(p + 32, 8),
                                  .p = p + RECORD_HEAD };
    rc = check_record(r, &rec, e);
    if (rc != 0) {
        return NULL;
    }
    r->used += RECORD_HEAD + rec.n;
    r->last = rec.at;
    r->ended = rec.kind == REPLAY_END;
    r->record = rec;
    return &r->record;
}

int reclog_rewind(struct reclog_reader *r, struct err *e)
{
    (void)e;
    r->at = r->first;
    r->n = r->used = 0;
    r->last = (struct replay_place){ 0 };
    r->ended = r->cut = false;
    return 0;
}

int reclog_open(int fd, struct reclog_reader **out, struct reclog_facts *facts, struct err *e)
{
    struct reclog_reader *r = xnew(struct reclog_reader);
    const struct replay_record *rec;
    struct reclog_facts f = { 0 };
    struct err why = ERR_INIT;
    int rc;

    r->fd = fd;
    r->packed = xalloc(ZSTD_COMPRESSBOUND(RECLOG_CHUNK_MAX));
    r->raw = xalloc(RECLOG_CHUNK_MAX);
    r->zstd = ZSTD_createDCtx();
    rc = r->zstd ? read_head(r, &why) : err_set(&why, -ENOMEM, "no memory for the recording");
    while (rc == 0 && (rec = reclog_next(r, &why))) {
        f.records++;
        f.by_kind[rec->kind]++;
        f.last = rec->at;
    }
    if (why.code != 0) {
        *e = why;
        reclog_free(r);
        return why.code;
    }
    f.bytes = r->at;
    f.whole = r->ended;
    *facts = f;
    *out = r;
    return reclog_rewind(r, e);
}

const char *reclog_text(const struct reclog_reader *r)
{
    return r->text;
}

void reclog_free(struct reclog_reader *r)
{
    if (r) {
        ZSTD_freeDCtx(r->zstd);
        free(r->text);
        free(r->packed);
        free(r->raw);
        free(r);
    }
}
