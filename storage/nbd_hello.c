/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How an NBD client without a library begins: fixed newstyle, structured replies, base:allocation, NBD_OPT_GO, and NBD_OPT_EXPORT_NAME
 * for servers that do not know that (doc/proto.md of the NetworkBlockDevice project, "Newstyle negotiation", "Option types").
 * Every length is bounded, and the whole has a deadline. Owns nothing; any thread.
 */
#include "engine/base/fd.h"
#include "storage/nbd.h"
#include "storage/nbd_wire.h"

#include <endian.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define CONTEXT "base:allocation"
enum { DEADLINE_MS = 10000, ANSWERS = 64, ANSWER_MAX = 8192, REPLY_HEAD = 20, PADDING = 124 };

struct talk {
    int fd;
    int64_t until; /* ms */
    struct err *e;
};

static int64_t now_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * INT64_C(1000) + t.tv_nsec / 1000000;
}

static int wait_for(const struct talk *t, short what)
{
    struct pollfd p = { .fd = t->fd, .events = what };
    int64_t left = t->until - now_ms();
    int n = left > 0 ? poll(&p, 1, (int)left) : 0;

    if (n == 0) {
        return err_set(t->e, -ETIMEDOUT, "the server says nothing for %d s",
                       DEADLINE_MS / 1000);
    }
    return n < 0 && errno != EINTR ? err_errno(t->e, errno, "cannot wait for the server") : 0;
}

static int get(const struct talk *t, void *out, size_t n)
{
    for (size_t done = 0; done < n;) {
        ssize_t got = recvfrom(t->fd, (char *)out + done, n - done, MSG_DONTWAIT, NULL, NULL);
        int rc = 0;

        if (got > 0) {
            done += (size_t)got;
        } else if (got == 0) {
            return err_set(t->e, -ECONNRESET, "the server has hung up");
        } else if (errno == EAGAIN || errno == EINTR) {
            rc = wait_for(t, POLLIN);
        } else {
            return err_errno(t->e, errno, "the server");
        }
        if (rc != 0) {
            return rc;
        }
    }
    return 0;
}

static int put(const struct talk *t, const void *p, size_t n)
{
    for (size_t done = 0; done < n;) {
        const struct iovec iov = { .iov_base = (char *)(uintptr_t)p + done,
                                   .iov_len = n - done };
        ssize_t sent = writev(t->fd, &iov, 1);
        int rc = 0;

        if (sent > 0) {
            done += (size_t)sent;
        } else if (sent < 0 && errno != EAGAIN && errno != EINTR) {
            return err_errno(t->e, errno, "the server");
        } else {
            rc = wait_for(t, POLLOUT);
        }
        if (rc != 0) {
            return rc;
        }
    }
    return 0;
}

static int strange(const struct talk *t, const char *what)
{
    return err_set(t->e, -EPROTO, "the server does not speak NBD: %s", what);
}

/* --- options --- */

static int option(const struct talk *t, uint32_t number, const void *data, uint32_t n)
{
    struct {
        uint64_t magic;
        uint32_t option, length;
    } __attribute__((packed)) h = { htobe64(NBD_OPT_MAGIC), htobe32(number), htobe32(n) };
    int rc = put(t, &h, sizeof(h));

    return rc != 0 ? rc : put(t, data, n);
}

/* One answer to an option: its type, and up to ANSWER_MAX bytes. */
struct answer {
    uint32_t type, n;
    uint8_t data[ANSWER_MAX + 1];
};

static int answer(const struct talk *t, uint32_t number, struct answer *a)
{
    struct {
        uint64_t magic;
        uint32_t option, type, length;
    } __attribute__((packed)) h;
    int rc = get(t, &h, sizeof(h));

    if (rc != 0) {
        return rc;
    }
    a->type = be32toh(h.type);
    a->n = be32toh(h.length);
    if (be64toh(h.magic) != NBD_REPLY_MAGIC || be32toh(h.option) != number ||
        a->n > ANSWER_MAX) {
        return strange(t, "an answer that is none");
    }
    a->data[a->n] = 0;
    return get(t, a->data, a->n);
}

static int refused(const struct talk *t, const char *export, const struct answer *a)
{
    char said[200];

    snprintf(said, sizeof(said), "%s", (const char *)a->data);
    for (char *p = said; *p; p++) {
        *p = *p >= ' ' && *p <= '~' ? *p : '?';
    }
    switch (a->type) {
    case NBD_ERR_UNKNOWN:
        return err_set(t->e, -ENOENT, "the server has no export '%s'", export);
    case NBD_ERR_TLS_REQD:
        return err_set(t->e, -EACCES, "the server wants TLS");
    case NBD_ERR_POLICY:
        return err_set(t->e, -EACCES, "the server does not allow it: %s", said);
    default:
        return err_set(t->e, -EIO, "the server refuses export '%s': %s", export, said);
    }
}

static int ask_structured(const struct talk *t, struct nbd_hello *h, struct answer *a)
{
    int rc = option(t, NBD_OPT_STRUCTURED, NULL, 0);

    rc = rc ? rc : answer(t, NBD_OPT_STRUCTURED, a);
    if (rc == 0) {
        h->structured = a->type == NBD_REP_ACK;
    }
    return rc;
}

/* export[4+n] queries[4] query[4+n] */
static int ask_context(const struct talk *t, const char *export, struct nbd_hello *h,
                       struct answer *a)
{
    uint8_t data[4 + NBD_NAME_MAX + 4 + 4 + sizeof(CONTEXT)];
    uint32_t n = (uint32_t)strlen(export), k = sizeof(CONTEXT) - 1, one = htobe32(1),
             len = htobe32(n), query = htobe32(k);
    int rc;

    memcpy(data, &len, 4);
    memcpy(data + 4, export, n);
    memcpy(data + 4 + n, &one, 4);
    memcpy(data + 8 + n, &query, 4);
    memcpy(data + 12 + n, CONTEXT, k);
    rc = option(t, NBD_OPT_SET_META, data, 12 + n + k);
    for (unsigned i = 0; rc == 0 && i < ANSWERS; i++) {
        rc = answer(t, NBD_OPT_SET_META, a);
        if (rc != 0 || a->type != NBD_REP_META) {
            return rc; /* the end, or an error: it goes without */
        }
        if (a->n == 4 + k && memcmp(a->data + 4, CONTEXT, k) == 0) {
            memcpy(&h->context, a->data, 4);
            h->context = be32toh(h->context);
            h->has_context = true;
        }
    }
    return rc ? rc : strange(t, "answers without an end");
}

static void take_export(struct nbd_hello *h, const uint8_t *p)
{
    memcpy(&h->size, p, 8);
    h->size = be64toh(h->size);
    h->flags = (uint16_t)(p[8] << 8 | p[9]);
}

static void take_info(struct nbd_hello *h, const struct answer *a, bool *got)
{
    uint16_t what = (uint16_t)(a->data[0] << 8 | a->data[1]);

    if (what == NBD_INFO_EXPORT && a->n == 12) {
        take_export(h, a->data + 2);
        *got = true;
    } else if (what == NBD_INFO_BLOCK_SIZE && a->n == 14) {
        uint32_t size[3];

        memcpy(size, a->data + 2, sizeof(size));
        h->least = be32toh(size[0]);
        h->most = be32toh(size[2]);
    }
}

/* The old way; nothing but hanging up says no. */
static int by_name(const struct talk *t, const char *export, bool padded, struct nbd_hello *h)
{
    uint8_t p[10 + PADDING];
    int rc = option(t, NBD_OPT_EXPORT_NAME, export, (uint32_t)strlen(export));

    rc = rc ? rc : get(t, p, padded ? sizeof(p) : 10);
    if (rc == 0) {
        take_export(h, p);
    }
    return rc;
}

static int go(const struct talk *t, const char *export, bool padded, struct nbd_hello *h,
              struct answer *a)
{
    uint8_t data[4 + NBD_NAME_MAX + 4];
    uint32_t n = (uint32_t)strlen(export), len = htobe32(n);
    static const uint8_t block_size[] = { 0, 1, 0, NBD_INFO_BLOCK_SIZE };
    bool got = false;
    int rc;

    memcpy(data, &len, 4);
    memcpy(data + 4, export, n);
    memcpy(data + 4 + n, block_size, sizeof(block_size));
    rc = option(t, NBD_OPT_GO, data, 4 + n + sizeof(block_size));
    for (unsigned i = 0; rc == 0 && i < ANSWERS; i++) {
        rc = answer(t, NBD_OPT_GO, a);
        if (rc != 0) {
            return rc;
        }
        if (a->type == NBD_REP_ACK) {
            return got ? 0 : strange(t, "an export without a size");
        }
        if (a->type == NBD_ERR_UNSUP) {
            return by_name(t, export, padded, h);
        }
        if (a->type != NBD_REP_INFO) {
            return a->type & 0x80000000u ? refused(t, export, a)
                                         : strange(t, "an answer of an unknown kind");
        }
        if (a->n >= 2) {
            take_info(h, a, &got);
        }
    }
    return rc ? rc : strange(t, "answers without an end");
}

int nbd_hello(int fd, const char *export, struct nbd_hello *out, struct err *e)
{
    struct talk t = { .fd = fd, .until = now_ms() + DEADLINE_MS, .e = e };
    struct nbd_hello h = { 0 };
    struct {
        uint64_t magic, option;
        uint16_t flags;
    } __attribute__((packed)) hi;
    struct answer a = { .n = 0 };
    uint32_t ours;
    int rc = fd_set_nonblock(fd, true, e);

    if (strlen(export) > NBD_NAME_MAX) {
        return err_set(e, -ENAMETOOLONG, "the export has a name of more than %d bytes",
                       NBD_NAME_MAX);
    }
    rc = rc ? rc : get(&t, &hi, sizeof(hi));
    if (rc != 0) {
        return rc;
    }
    if (be64toh(hi.magic) != NBD_MAGIC || be64toh(hi.option) != NBD_OPT_MAGIC ||
        !(be16toh(hi.flags) & NBD_FIXED_NEWSTYLE)) {
        return strange(&t, "its greeting is not that of fixed newstyle");
    }
    ours = htobe32(be16toh(hi.flags) & (NBD_FIXED_NEWSTYLE | NBD_NO_ZEROES));
    rc = put(&t, &ours, 4);
    rc = rc ? rc : ask_structured(&t, &h, &a);
    rc = rc == 0 && h.structured ? ask_context(&t, export, &h, &a) : rc;
    rc = rc ? rc : go(&t, export, !(be16toh(hi.flags) & NBD_NO_ZEROES), &h, &a);
    if (rc == 0 && h.size > INT64_MAX) {
        rc = strange(&t, "an export without bounds");
    }
    if (rc == 0) {
        *out = h;
    }
    return rc;
}
