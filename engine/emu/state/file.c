/* SPDX-License-Identifier: Apache-2.0 */
/*
 * State files: bytes and their index. Numbers are little-endian. Owns the entries it reads or writes.
 */
#include "engine/emu/state/file.h"

#include "engine/base/fd.h"
#include "engine/base/str.h"

#include <endian.h>
#include <errno.h>
#include <openssl/crypto.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define FORMAT 2
#define HEAD_LEN 64
#define ENTRY_LEN 64
#define TRAILER_LEN 64
#define TRAILER_SAID 32        /* its bytes before the HMAC */
#define ENTRIES_MAX (1u << 24) /* 16 TiB of memory */

static const char head_magic[8] = "VMDSTATE", tail_magic[8] = "VMDSTEND";

static void put32(uint8_t *p, uint32_t v)
{
    v = htole32(v);
    memcpy(p, &v, sizeof(v));
}

static void put64(uint8_t *p, uint64_t v)
{
    v = htole64(v);
    memcpy(p, &v, sizeof(v));
}

static uint32_t get32(const uint8_t *p)
{
    uint32_t v;

    memcpy(&v, p, sizeof(v));
    return le32toh(v);
}

static uint64_t get64(const uint8_t *p)
{
    uint64_t v;

    memcpy(&v, p, sizeof(v));
    return le64toh(v);
}

/* ---- seals ---- */

/* What a section's digest covers beside its bytes: where they belong. */
static void section_head(const struct state_entry *en, uint8_t out[SEAL_SAID])
{
    put32(out, en->type);
    put32(out + 4, en->region);
    put64(out + 8, en->page);
    put64(out + 16, en->length);
}

static int section_seal(const struct state_seal *seal, const struct state_entry *en,
                        const void *p, uint8_t out[STATE_DIGEST_LEN])
{
    uint8_t said[SEAL_SAID];

    section_head(en, said);
    return seal_section(seal, said, p, en->length, out);
}

/* ---- writing ---- */

static int write_at(int fd, const void *from, size_t n, uint64_t at, struct err *e)
{
    const char *p = from;

    while (n > 0) {
        ssize_t some = fd_pwrite(fd, p, n, at);

        if (some < 0 && errno == EINTR) {
            continue;
        }
        if (some <= 0) {
            return err_errno(e, some < 0 ? errno : ENOSPC, "the state cannot be written");
        }
        p += some;
        n -= (size_t)some;
        at += (uint64_t)some;
    }
    return 0;
}

int state_out_begin(struct state_out *s, int fd, const char *uuid,
                    const uint8_t key[STATE_KEY_LEN], struct err *e)
{
    *s = (struct state_out){ .fd = fd };
    pthread_mutex_init(&s->lock, NULL);
    atomic_init(&s->at, HEAD_LEN);
    memcpy(s->head, head_magic, sizeof(head_magic));
    put32(s->head + 8, FORMAT);
    put32(s->head + 12, HEAD_LEN);
    memcpy(s->head + 16, uuid, strnlen(uuid, 40));
    memcpy(s->key, key, STATE_KEY_LEN);
    if (seal_begin(&s->seal, FORMAT, key) != 0) {
        return err_set(e, -ENOMEM, "the state cannot be sealed");
    }
    if (ftruncate(fd, 0) != 0) {
        return err_errno(e, errno, "the state cannot be written");
    }
    return write_at(fd, s->head, sizeof(s->head), 0, e);
}

static int compare(const void *a, const void *b)
{
    const struct state_entry *x = a, *y = b;

    if (x->type != y->type) {
        return x->type < y->type ? -1 : 1;
    }
    if (x->region != y->region) {
        return x->region < y->region ? -1 : 1;
    }
    return x->page < y->page ? -1 : x->page > y->page;
}

int state_out_put(struct state_out *s, enum state_section type, uint32_t region, uint64_t page,
                  const void *p, size_t n, struct err *e)
{
    struct state_entry en = { .type = type, .region = region, .page = page, .length = n };
    int rc;

    en.at = atomic_fetch_add(&s->at, n);
    rc = section_seal(&s->seal, &en, p, en.digest);
    if (rc != 0) {
        return err_set(e, rc, "the seal of a section cannot be computed");
    }
    rc = write_at(s->fd, p, n, en.at, e);
    if (rc != 0) {
        return rc;
    }
    pthread_mutex_lock(&s->lock);
    if (s->n == s->room) {
        s->room = s->room ? s->room * 2 : 256;
        s->entry = xrealloc_n(s->entry, s->room, sizeof(*s->entry));
    }
    /* Kept in order: they come nearly so. (qsort asks the kernel for its memory, which a confined process may not.) */
    size_t i = s->n++;
    for (; i > 0 && compare(&s->entry[i - 1], &en) > 0; i--) {
        s->entry[i] = s->entry[i - 1];
    }
    s->entry[i] = en;
    pthread_mutex_unlock(&s->lock);
    return 0;
}

int state_out_end(struct state_out *s, uint64_t *size, struct err *e)
{
    uint64_t at = atomic_load(&s->at);
    size_t len = s->n * ENTRY_LEN;
    AUTO_FREE uint8_t *index = xalloc(len + TRAILER_LEN);
    uint8_t *tail = index + len;

    for (size_t i = 0; i < s->n; i++) {
        uint8_t *p = index + i * ENTRY_LEN;

        put32(p, s->entry[i].type);
        put32(p + 4, s->entry[i].region);
        put64(p + 8, s->entry[i].page);
        put64(p + 16, s->entry[i].at);
        put64(p + 24, s->entry[i].length);
        memcpy(p + 32, s->entry[i].digest, STATE_DIGEST_LEN);
    }
    memcpy(tail, tail_magic, sizeof(tail_magic));
    put32(tail + 8, FORMAT);
    put32(tail + 12, TRAILER_LEN);
    put64(tail + 16, at);
    put64(tail + 24, len);
    const struct iovec said[] = { { s->head, HEAD_LEN },
                                  { index, len },
                                  { tail, TRAILER_SAID } };
    if (seal_whole(s->key, said, tail + TRAILER_SAID) != 0) {
        return err_set(e, -ENOMEM, "the seal of the index cannot be computed");
    }
    *size = at + len + TRAILER_LEN;
    return write_at(s->fd, index, len + TRAILER_LEN, at, e);
}

void state_out_done(struct state_out *s)
{
    free(s->entry);
    seal_done(&s->seal);
    OPENSSL_cleanse(s->key, sizeof(s->key));
    pthread_mutex_destroy(&s->lock);
    *s = (struct state_out){ .fd = -1 };
}

/* ---- reading ---- */

static int read_at(int fd, void *to, size_t n, uint64_t at, struct err *e)
{
    char *p = to;

    while (n > 0) {
        ssize_t some = fd_pread(fd, p, n, at);

        if (some < 0 && errno == EINTR) {
            continue;
        }
        if (some <= 0) {
            return some < 0 ? err_errno(e, errno, "the state cannot be read")
                            : err_set(e, -EBADMSG, "the state ends too early");
        }
        p += some;
        n -= (size_t)some;
        at += (uint64_t)some;
    }
    return 0;
}

static int check_entries(const struct state_in *s, uint64_t index_at, struct err *e)
{
    for (size_t i = 0; i < s->n; i++) {
        const struct state_entry *en = &s->entry[i];

        if (en->at < HEAD_LEN || en->at > index_at || en->length > index_at - en->at ||
            en->length > STATE_SECTION_MAX) {
            return err_set(e, -EBADMSG, "section %zu of the state lies outside of the file", i);
        }
        if (i > 0 && compare(en - 1, en) >= 0) {
            return err_set(e, -EBADMSG,
                           "section %zu of the state is there twice, or not in order", i);
        }
    }
    return 0;
}

static int read_index(struct state_in *s, const uint8_t *head, const uint8_t *tail,
                      const uint8_t key[STATE_KEY_LEN], struct err *e)
{
    uint64_t at = get64(tail + 16), len = get64(tail + 24);
    uint8_t mac[STATE_DIGEST_LEN];

    if (at < HEAD_LEN || len % ENTRY_LEN != 0 || len / ENTRY_LEN > ENTRIES_MAX ||
        len > s->size - TRAILER_LEN || at != s->size - TRAILER_LEN - len) {
        return err_set(e, -EBADMSG, "the index of the state is not where the file says");
    }
    AUTO_FREE uint8_t *index = xalloc(len + 1);
    int rc = read_at(s->fd, index, len, at, e);
    const struct iovec said[] = { { (void *)(uintptr_t)head, HEAD_LEN },
                                  { index, len },
                                  { (void *)(uintptr_t)tail, TRAILER_SAID } };

    if (rc == 0 && seal_whole(key, said, mac) != 0) {
        rc = err_set(e, -ENOMEM, "the seal of the index cannot be computed");
    }
    if (rc == 0 && CRYPTO_memcmp(mac, tail + TRAILER_SAID, sizeof(mac)) != 0) {
        rc = err_set(
            e, -EBADMSG,
            "the state is damaged, or not of this VM on this host: its seal does not match");
    }
    if (rc != 0) {
        return rc;
    }
    s->n = len / ENTRY_LEN;
    s->entry = xnew_n(struct state_entry, s->n + 1);
    for (size_t i = 0; i < s->n; i++) {
        const uint8_t *p = index + i * ENTRY_LEN;

        s->entry[i] = (struct state_entry){ .type = get32(p),
                                            .region = get32(p + 4),
                                            .page = get64(p + 8),
                                            .at = get64(p + 16),
                                            .length = get64(p + 24) };
        memcpy(s->entry[i].digest, p + 32, STATE_DIGEST_LEN);
    }
    return check_entries(s, at, e);
}

int state_in_open(struct state_in *s, int fd, const uint8_t key[STATE_KEY_LEN], struct err *e)
{
    uint8_t head[HEAD_LEN], tail[TRAILER_LEN];
    unsigned format = 0;
    struct stat st;
    int rc;

    *s = (struct state_in){ .fd = fd };
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
        return err_set(e, -EBADMSG, "the state is no regular file");
    }
    s->size = (uint64_t)st.st_size;
    if (s->size < HEAD_LEN + TRAILER_LEN) {
        return err_set(e, -EBADMSG, "the file is too short for a state");
    }
    rc = read_at(fd, head, HEAD_LEN, 0, e);
    if (rc == 0) {
        rc = read_at(fd, tail, sizeof(tail), s->size - TRAILER_LEN, e);
    }
    if (rc == 0 && memcmp(head, head_magic, sizeof(head_magic)) != 0) {
        rc = err_set(e, -EBADMSG, "the file holds no state of a VM");
    }
    if (rc == 0 && memcmp(tail, tail_magic, sizeof(tail_magic)) != 0) {
        rc = err_set(e, -EBADMSG, "the state is cut off, or was never finished");
    }
    if (rc == 0) {
        format = get32(head + 8);
        if (format < 1 || format > FORMAT || get32(tail + 8) != format) {
            rc = err_set(e, -EBADMSG,
                         "the state has format %u, this program reads formats 1 to %u", format,
                         FORMAT);
        }
    }
    if (rc == 0 && seal_begin(&s->seal, format, key) != 0) {
        rc = err_set(e, -ENOMEM, "the seals of the state cannot be checked");
    }
    if (rc == 0) {
        rc = read_index(s, head, tail, key, e);
    }
    if (rc != 0) {
        state_in_done(s);
    }
    return rc;
}

int state_in_get(const struct state_in *s, const struct state_entry *en, struct buf *out,
                 struct err *e)
{
    uint8_t is[STATE_DIGEST_LEN];
    int rc;

    out->len = 0;
    buf_reserve(out, en->length + 1);
    rc = read_at(s->fd, out->data, en->length, en->at, e);
    if (rc == 0 && section_seal(&s->seal, en, out->data, is) != 0) {
        rc = err_set(e, -ENOMEM, "the seal of a section cannot be computed");
    }
    if (rc == 0 && CRYPTO_memcmp(is, en->digest, sizeof(is)) != 0) {
        rc = err_set(e, -EBADMSG, "the state is damaged: type %u, region %u, page 0x%llx",
                     en->type, en->region, (unsigned long long)en->page);
    }
    if (rc == 0) {
        out->len = en->length;
        out->data[out->len] = '\0';
    }
    return rc;
}

const struct state_entry *state_in_find(const struct state_in *s, enum state_section type,
                                        uint32_t region, uint64_t page)
{
    const struct state_entry key = { .type = type, .region = region, .page = page };

    return s->n ? bsearch(&key, s->entry, s->n, sizeof(key), compare) : NULL;
}

int state_in_check(const struct state_in *s, struct err *e)
{
    AUTO_BUF bytes = BUF_INIT;
    int rc = 0;

    for (size_t i = 0; i < s->n && rc == 0; i++) {
        rc = state_in_get(s, &s->entry[i], &bytes, e);
    }
    return rc;
}

int state_reseal(const struct state_in *s, int to, const char *uuid,
                 const uint8_t key[STATE_KEY_LEN], struct err *e)
{
    AUTO_BUF bytes = BUF_INIT;
    struct state_out out;
    uint64_t size;
    int rc = state_out_begin(&out, to, uuid, key, e);

    for (size_t i = 0; i < s->n && rc == 0; i++) {
        const struct state_entry *en = &s->entry[i];

        rc = state_in_get(s, en, &bytes, e);
        rc = rc == 0
                 ? state_out_put(&out, en->type, en->region, en->page, bytes.data, bytes.len, e)
                 : rc;
    }
    rc = rc == 0 ? state_out_end(&out, &size, e) : rc;
    state_out_done(&out);
    return rc;
}

void state_in_done(struct state_in *s)
{
    free(s->entry);
    seal_done(&s->seal);
    *s = (struct state_in){ .fd = -1 };
}
