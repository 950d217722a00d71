/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzz target: the daemon's listener for TLS, from the first byte of a stranger. The first byte of an input says what follows it:
 * 0 bytes in place of a handshake, which never lets in; 1 changes to what a real client (openssl's) sends and is sent, between
 * it and the daemon: whoever is let in nevertheless says exactly what the client said; 2 what a client of the protocol `join` says
 * after its handshake, in pieces: the line arrives as it is, or the connection ends.
 */
#include "api-schema/tls/tls.h"
#include "api-schema/tls/tunnel.h"
#include "daemon/auth/ca.h"
#include "engine/base/loop.h"
#include "engine/base/mem.h"
#include "tests/fuzz/fuzz.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

const char fuzz_name[] = "fuzz_tls";

static char dir[] = "/tmp/fuzz-tls-XXXXXX";
static struct {
    struct loop *loop;
    struct tls_ctx *server;
    SSL_CTX *client;
    uint64_t n_strangers, n_changed, n_inside, n_lines;
} f;

/* One connection. */
struct talk {
    struct tunnel *t;
    bool ready, over, said;
    char *line;
    size_t len;
};

static void on_ready(void *arg, struct tunnel *t)
{
    struct talk *k = arg;

    k->ready = true;
    tunnel_read_line(t);
}

static void on_line(void *arg, struct tunnel *t, char *text, size_t n)
{
    struct talk *k = arg;

    if (k->line || n > TUNNEL_LINE_MAX) {
        FUZZ_FAIL("a second line, or one of %zu bytes", n);
    }
    k->line = xalloc(n + 1);
    memcpy(k->line, text, n);
    k->len = n;
    tunnel_say(t, "{}\n", 3);
    tunnel_finish(t);
}

static void on_closed(void *arg, struct tunnel *t, const struct err *why)
{
    struct talk *k = arg;

    if (!k->ready && (!why->code || !why->msg[0])) {
        FUZZ_FAIL("refused without a reason");
    }
    k->over = true;
    k->t = NULL;
    tunnel_free(t);
}

static const struct tunnel_ops ops = { .ready = on_ready, .line = on_line, .closed = on_closed };

void fuzz_setup(void)
{
    static const unsigned char join[] = "\x0avmd-join/1";
    char *names[] = { "localhost" };
    char ca[64], cert[64], key[64];
    struct tls_files files = { .ca = ca, .cert = cert, .key = key };
    struct err e = ERR_INIT;

    signal(SIGPIPE, SIG_IGN);
    if (!mkdtemp(dir) || ca_create(dir, names, 1, &e) < 0) {
        FUZZ_FAIL("%s: %s", dir, e.msg);
    }
    snprintf(ca, sizeof(ca), "%s/ca.pem", dir);
    snprintf(cert, sizeof(cert), "%s/server.pem", dir);
    snprintf(key, sizeof(key), "%s/server.key", dir);
    f.loop = loop_new(NULL);
    f.server = tls_server_new(&files, NULL, NULL, &e);
    f.client = SSL_CTX_new(TLS_client_method());
    if (!f.server || !f.client || SSL_CTX_set_alpn_protos(f.client, join, sizeof(join) - 1) != 0) {
        FUZZ_FAIL("%s", e.msg);
    }
}

void fuzz_finish(void)
{
    static const char *const names[] = { "ca.pem", "ca.key", "server.pem", "server.key", "crl.pem" };

    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        char path[80];
        snprintf(path, sizeof(path), "%s/%s", dir, names[i]);
        unlink(path);
    }
    rmdir(dir);
    SSL_CTX_free(f.client);
    tls_ctx_free(f.server);
    loop_free(f.loop);
    printf("# %llu strangers; %llu connections changed on their way, %llu let in; %llu lines\n",
           (unsigned long long)f.n_strangers, (unsigned long long)f.n_changed,
           (unsigned long long)f.n_inside, (unsigned long long)f.n_lines);
}

/* The daemon's side; the other end of the pair. */
static int open_talk(struct talk *k)
{
    struct err e = ERR_INIT;
    int pair[2];

    memset(k, 0, sizeof(*k));
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0) {
        FUZZ_FAIL("no descriptors are left");
    }
    struct ssl_st *ssl = tls_accept_new(f.server, pair[1], &e);
    if (!ssl) {
        FUZZ_FAIL("%s", e.msg);
    }
    k->t = tunnel_new(f.loop, pair[1], ssl, INT64_C(30000000000), false, &ops, k);
    return pair[0];
}

static void close_talk(struct talk *k, int fd)
{
    close(fd);
    for (unsigned i = 0; !k->over; i++) {
        if (i > 100000) {
            FUZZ_FAIL("the connection does not end");
        }
        loop_run_once(f.loop, 0, NULL);
    }
    free(k->line);
}

static void drain(int fd)
{
    char b[4096];
    while (read(fd, b, sizeof(b)) > 0) {
    }
}

static void stranger(const uint8_t *data, size_t size)
{
    struct talk k;
    int fd = open_talk(&k);
    size_t piece = size ? 1 + data[0] % 64 : 1, at = 0;

    f.n_strangers++;
    while (at < size && !k.over) {
        size_t room = size - at < piece * 8 ? size - at : piece * 8;
        ssize_t n = write(fd, data + at, room);
        at += n > 0 ? (size_t)n : room;
        loop_run_once(f.loop, 0, NULL);
        drain(fd);
    }
    shutdown(fd, SHUT_WR);
    for (int i = 0; i < 4; i++) {
        loop_run_once(f.loop, 0, NULL);
        drain(fd);
    }
    if (k.ready) {
        FUZZ_FAIL("a stranger was let in");
    }
    close_talk(&k, fd);
}

/* Carries bytes between client and daemon, changed where the input says so; false when nothing moved. */
static bool carry(SSL *client, int fd, struct fuzz_in *in, unsigned *changes, bool *ended)
{
    uint8_t b[4096];
    BIO *to = SSL_get_rbio(client), *from = SSL_get_wbio(client);
    int n = BIO_read(from, b, sizeof(b));
    bool moved = n > 0;

    if (n > 0) {
        if (*changes && fuzz_rarely(in, 3)) {
            b[fuzz_below(in, 4096) % (unsigned)n] ^= (uint8_t)(1u << fuzz_below(in, 8));
            --*changes;
        }
        ssize_t done = write(fd, b, (size_t)n);
        (void)done; /* the daemon may have had enough */
    }
    ssize_t m = read(fd, b, sizeof(b));
    if (m > 0) {
        if (*changes && fuzz_rarely(in, 3)) {
            b[fuzz_below(in, 4096) % (unsigned)m] ^= (uint8_t)(1u << fuzz_below(in, 8));
            --*changes;
        }
        BIO_write(to, b, (int)m);
    }
    *ended = m == 0 || (m < 0 && errno != EAGAIN);
    return moved || m > 0;
}

/* A real client says `text`; with changes on the way, or without. */
static void visit(struct fuzz_in *in, unsigned changes, const char *text, size_t n)
{
    SSL *client = SSL_new(f.client);
    struct talk k;
    int fd = open_talk(&k);
    bool ended = false, changed = changes > 0;
    size_t said = 0;
    unsigned quiet = 0;

    SSL_set_bio(client, BIO_new(BIO_s_mem()), BIO_new(BIO_s_mem()));
    SSL_set_connect_state(client);
    BIO_set_mem_eof_return(SSL_get_rbio(client), -1);
    while (!ended && quiet < 8) {
        bool done = SSL_do_handshake(client) == 1;
        if (done && said < n) {
            size_t piece = 1 + fuzz_below(in, 2048);
            int got = SSL_write(client, text + said, (int)(piece < n - said ? piece : n - said));
            said += got > 0 ? (size_t)got : n;
        }
        quiet = carry(client, fd, in, &changes, &ended) ? 0 : quiet + 1;
        loop_run_once(f.loop, 0, NULL);
    }
    ERR_clear_error();
    f.n_changed += changed;
    f.n_inside += k.ready;
    f.n_lines += k.line != NULL;
    const char *newline = memchr(text, '\n', n);
    size_t len = newline ? (size_t)(newline - text) : n;
    bool too_long = len > TUNNEL_LINE_MAX;
    len -= newline && len > 0 && text[len - 1] == '\r'; /* which belongs to the newline */
    if (k.line && (!newline || k.len != len || memcmp(k.line, text, len) != 0)) {
        FUZZ_FAIL("the line is not what the client said");
    }
    if (!changed && !k.line && newline && !too_long) {
        FUZZ_FAIL("a line of %zu bytes did not arrive", len);
    }
    SSL_free(client);
    close_talk(&k, fd);
}

void fuzz_one(const uint8_t *data, size_t size)
{
    struct fuzz_in in;

    if (!size) {
        return;
    }
    fuzz_in_init(&in, data + 1, size - 1);
    if (data[0] % 3 == 0) {
        stranger(data + 1, size - 1);
    } else if (data[0] % 3 == 1) {
        visit(&in, 1 + fuzz_below(&in, 4), "{\"token\":\"x\"}\n", 14);
    } else {
        /* Up to five times over, so that it may be longer than a line can be. */
        AUTO_FREE char *text = xalloc(5 * size);
        for (int i = 0; i < 5; i++) {
            memcpy(text + (size_t)i * (size - 1), data + 1, size - 1);
        }
        visit(&in, 0, text, (size - 1) * (size > 1 ? 1 + data[1] % 5 : 0));
    }
}
