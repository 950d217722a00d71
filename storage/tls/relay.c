/* SPDX-License-Identifier: Apache-2.0 */
/* How a connection becomes one with TLS, and what goes through it. See relay.h. No state of its own. */
#include "storage/tls/relay.h"

#include "engine/base/mem.h"
#include "storage/nbd.h"

#include <endian.h>
#include <errno.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PATIENCE_MS = 8000, ROOM = 256 << 10, ANSWER = 20, WORDS = 4096 };

/* --- before TLS --- */

static int wait_for(int fd, short what, struct err *e)
{
    struct pollfd p = { .fd = fd, .events = what };
    int n = poll(&p, 1, PATIENCE_MS);

    return n > 0 || (n < 0 && errno == EINTR)
               ? 0
               : err_set(e, -ETIMEDOUT, "the server says nothing for %d s", PATIENCE_MS / 1000);
}

static int get(int fd, void *out, size_t n, struct err *e)
{
    for (size_t done = 0; done < n;) {
        ssize_t got = read(fd, (char *)out + done, n - done);

        if (got == 0) {
            return err_set(e, -ECONNRESET, "the server has hung up");
        }
        if (got < 0 && errno != EAGAIN && errno != EINTR) {
            return err_errno(e, errno, "the server");
        }
        if (got < 0 && wait_for(fd, POLLIN, e) < 0) {
            return e->code;
        }
        done += got > 0 ? (size_t)got : 0;
    }
    return 0;
}

/* Small enough for the socket to take it at once. */
static int put(int fd, const void *p, size_t n, struct err *e)
{
    return write(fd, p, n) == (ssize_t)n ? 0 : err_errno(e, errno ? errno : EIO, "the server");
}

static uint32_t be32_at(const unsigned char *p)
{
    uint32_t v;

    memcpy(&v, p, 4);
    return be32toh(v);
}

int relay_start_tls(int far, unsigned char *greeting, struct err *e)
{
    struct {
        uint32_t flags;
        uint64_t magic;
        uint32_t option, length;
    } __attribute__((packed))
    ask = { .magic = htobe64(NBD_OPT_MAGIC), .option = htobe32(NBD_OPT_STARTTLS) };
    unsigned char answer[ANSWER], words[WORDS];
    uint64_t magic[2];
    unsigned flags;
    int rc = get(far, greeting, GREETING, e);

    if (rc != 0) {
        return rc;
    }
    memcpy(magic, greeting, sizeof(magic));
    flags = (unsigned)greeting[16] << 8 | greeting[17];
    if (be64toh(magic[0]) != NBD_MAGIC || be64toh(magic[1]) != NBD_OPT_MAGIC ||
        !(flags & NBD_FIXED_NEWSTYLE)) {
        return err_set(e, -EPROTO, "the server does not speak NBD (fixed newstyle)");
    }
    ask.flags = htobe32(flags & (NBD_FIXED_NEWSTYLE | NBD_NO_ZEROES));
    rc = put(far, &ask, sizeof(ask), e);
    rc = rc ? rc : get(far, answer, sizeof(answer), e);
    if (rc != 0) {
        return rc;
    }
    memcpy(magic, answer, 8);
    if (be64toh(magic[0]) != NBD_REPLY_MAGIC || be32_at(answer + 8) != NBD_OPT_STARTTLS ||
        be32_at(answer + 16) > WORDS) {
        return err_set(e, -EPROTO, "the server does not speak NBD: an answer that is none");
    }
    rc = get(far, words, be32_at(answer + 16), e);
    return rc != 0                               ? rc
           : be32_at(answer + 12) == NBD_REP_ACK ? 0
                                                 : err_set(e, -EACCES, "the server has no TLS");
}

/* --- with TLS --- */

/* One direction: what was read and not written yet. */
struct way {
    unsigned char *data;
    size_t at, n;
};

/* What poll() is to wait for when nothing moves. */
struct wants {
    short far, near;
    bool moved;
};

/* 1: some bytes; 0: not now; -1: the other side has gone. */
static int tls_result(SSL *ssl, int n, struct wants *w)
{
    int why = n > 0 ? SSL_ERROR_NONE : SSL_get_error(ssl, n);

    ERR_clear_error();
    w->moved |= n > 0;
    w->far |= why == SSL_ERROR_WANT_WRITE ? POLLOUT : why == SSL_ERROR_WANT_READ ? POLLIN : 0;
    return n > 0 ? 1 : why == SSL_ERROR_WANT_WRITE || why == SSL_ERROR_WANT_READ ? 0 : -1;
}

static int plain_result(ssize_t n, short event, struct wants *w)
{
    bool again = n < 0 && (errno == EAGAIN || errno == EINTR);

    w->moved |= n > 0;
    w->near |= again ? event : 0;
    return n > 0 ? 1 : again ? 0 : -1;
}

static void took(struct way *y, size_t n)
{
    y->at += n;
    y->n -= n;
}

static int step_in(SSL *ssl, int near, struct way *y, struct wants *w)
{
    int rc = 1;

    if (y->n == 0) {
        int n = SSL_read(ssl, y->data, ROOM);

        rc = tls_result(ssl, n, w);
        y->at = 0;
        y->n = rc > 0 ? (size_t)n : 0;
    }
    if (y->n > 0) {
        ssize_t n = write(near, y->data + y->at, y->n);

        rc = plain_result(n, POLLOUT, w);
        took(y, rc > 0 ? (size_t)n : 0);
    }
    return rc;
}

static int step_out(SSL *ssl, int near, struct way *y, struct wants *w)
{
    int rc = 1;

    if (y->n == 0) {
        ssize_t n = read(near, y->data, ROOM);

        rc = plain_result(n, POLLIN, w);
        y->at = 0;
        y->n = rc > 0 ? (size_t)n : 0;
    }
    if (y->n > 0) {
        int n = SSL_write(ssl, y->data + y->at, (int)y->n);

        rc = tls_result(ssl, n, w);
        took(y, rc > 0 ? (size_t)n : 0);
    }
    return rc;
}

static void pump(SSL *ssl, int far, int near, struct way *in, struct way *out)
{
    for (;;) {
        struct wants w = { 0 };

        if (step_in(ssl, near, in, &w) < 0 || step_out(ssl, near, out, &w) < 0) {
            return;
        }
        struct pollfd p[2] = { { .fd = far, .events = w.far },
                               { .fd = near, .events = w.near } };
        if (!w.moved && poll(p, 2, -1) < 0 && errno != EINTR) {
            return;
        }
    }
}

int relay_run(struct ssl_st *ssl, int far, int near, const unsigned char *greeting,
              struct err *e)
{
    struct way in = { .data = xalloc(ROOM) }, out = { .data = xalloc(ROOM) };
    unsigned char flags[4];
    int rc = put(near, greeting, GREETING, e);

    rc = rc ? rc : get(near, flags, sizeof(flags), e);
    if (rc == 0) {
        pump(ssl, far, near, &in, &out);
        (void)SSL_shutdown(ssl); /* says that it is over; an answer is not awaited */
    }
    free(in.data);
    free(out.data);
    return rc;
}
