/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Peers at the sockets of network cards: a stream of frames behind their lengths, cut anywhere, and packets, both with and without
 * headers of offloads, to a front end that takes some of these, sometimes has no room, and sends frames of its own. What must hold: the
 * front end gets whole frames with headers that fit them and ask for nothing it does not take; what is not a lie arrives; a length that
 * cannot be ends the connection, and nothing else.
 */
#include "engine/base/log.h"
#include "engine/base/loop.h"
#include "engine/base/mem.h"
#include "network/offload.h"
#include "network/stream.h"
#include "tests/fuzz/fuzz.h"

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define STEPS 40

const char fuzz_name[] = "sockets";

struct world {
    struct loop *loop;
    struct net_port *port;
    int peer;
    unsigned takes;
    bool vhdr, stuck, up;
    uint64_t got, expected, sent, ended; /* got and expected: plain frames of this input */
    uint64_t all;
};
static struct world w;

static int receive(void *arg, const struct net_frame *f)
{
    size_t len = 0;

    (void)arg;
    for (unsigned i = 0; i < f->n_iov; i++) {
        const volatile uint8_t *bytes = f->iov[i].iov_base;
        len += f->iov[i].iov_len;
        if (f->iov[i].iov_len) {
            (void)(bytes[0] + bytes[f->iov[i].iov_len - 1]);
        }
    }
    if (len != f->len || len > NET_MAX_FRAME || !net_hdr_ok(&f->hdr, f->len)) {
        FUZZ_FAIL("a frame of %zu bytes came as %zu", f->len, len);
    }
    if (net_hdr_needs(&f->hdr) & ~w.takes) {
        FUZZ_FAIL("a frame needs %x, and %x is taken", net_hdr_needs(&f->hdr), w.takes);
    }
    if (w.stuck) {
        return -EAGAIN;
    }
    w.got++;
    w.all++;
    return 0;
}

static void nothing(void *arg)
{
    (void)arg;
}

static void link_is(void *arg, bool up)
{
    (void)arg;
    w.up = up;
}

static const struct net_front_ops front = {
    .receive = receive, .received = nothing, .writable = nothing, .link = link_is
};

void fuzz_setup(void)
{
    log_init(fuzz_name, LOG_ERROR, STDERR_FILENO);
    w.loop = loop_new(NULL);
    if (!w.loop) {
        abort();
    }
}

/* A header that is often enough right for a TCP segment behind it. */
static void header(struct fuzz_in *in, uint8_t *out)
{
    static const uint8_t kinds[] = { NET_GSO_NONE,   NET_GSO_TCPV4, NET_GSO_TCPV6,
                                     NET_GSO_UDP_L4, NET_GSO_UDP,   0x81 };
    struct net_hdr h = { .flags = (uint8_t)fuzz_below(in, 4) };

    h.gso_type = fuzz_rarely(in, 8) ? fuzz_8(in) : kinds[fuzz_below(in, 6)];
    h.gso_size = (uint16_t)fuzz_below(in, fuzz_rarely(in, 4) ? 65536 : 1500);
    h.csum_start = (uint16_t)(fuzz_rarely(in, 4) ? fuzz_below(in, 65536) : 34);
    h.csum_offset = (uint16_t)(fuzz_rarely(in, 4) ? fuzz_below(in, 65536) : 16);
    h.hdr_len = (uint16_t)fuzz_below(in, 200);
    net_hdr_put(out, &h);
}

/* A frame as a peer writes it, without its length; `plain`: it has to arrive. */
static size_t frame(struct fuzz_in *in, uint8_t *out, bool *plain)
{
    size_t at = w.vhdr ? NET_VHDR : 0,
           len = fuzz_rarely(in, 6) ? 1 + fuzz_below(in, 8999) : 14 + fuzz_below(in, 200);

    *plain = !w.vhdr || fuzz_rarely(in, 3);
    memset(out, 0, at);
    if (!*plain) {
        header(in, out);
    }
    *plain = *plain && len >= 14; /* else it is no frame, and is dropped */
    for (size_t i = 0; i < len; i++) {
        out[at + i] = i < 100 ? fuzz_8(in) : (uint8_t)i;
    }
    if (len > 54 && !fuzz_rarely(in, 4)) {
        bool six = fuzz_rarely(in, 3);
        memcpy(out + at + 12, six ? "\x86\xdd\x60" : "\x08\x00\x45", 3);
        out[at + (six ? 20 : 23)] = fuzz_rarely(in, 3) ? 17 : 6;
        out[at + (six ? 66 : 46)] = 0x50;
    }
    return at + len;
}

/* All of it, while the port reads. */
static void feed(const uint8_t *p, size_t n, size_t piece)
{
    piece = piece > n / 64 ? piece : n / 64 + 1;
    for (unsigned tries = 0; n > 0 && w.up; tries++) {
        if (tries > 1000) {
            FUZZ_FAIL("the port reads no more");
        }
        ssize_t k = send(w.peer, p, n < piece ? n : piece, MSG_DONTWAIT | MSG_NOSIGNAL);

        if (k > 0) {
            p += k;
            n -= (size_t)k;
        }
        loop_run_once(w.loop, 0, NULL);
        if (k < 0 && w.stuck) {
            w.stuck = false;
            net_recv_ready(w.port);
        }
    }
}

static void step(struct fuzz_in *in, bool stream)
{
    static uint8_t bytes[4 + NET_VHDR + 9000];
    bool plain = false;
    size_t n = frame(in, bytes + 4, &plain);
    uint32_t length = htonl((uint32_t)n);
    bool lie = stream && fuzz_rarely(in, 64);

    if (lie) {
        length = (uint32_t)fuzz_64(in) | htonl(1u << 20);
    }
    memcpy(bytes, &length, 4);
    w.stuck = fuzz_rarely(in, 10);
    w.expected += plain && !lie;
    feed(stream ? bytes : bytes + 4, stream ? n + 4 : n,
         stream && !fuzz_rarely(in, 3) ? 1 + fuzz_below(in, 400) : sizeof(bytes));
    if (w.stuck) {
        w.stuck = false;
        net_recv_ready(w.port);
        loop_run_once(w.loop, 0, NULL);
    }
    if (lie && w.up) {
        loop_run_once(w.loop, 0, NULL);
    }
    if (lie && w.up) {
        FUZZ_FAIL("a frame of a length of %u did not end the connection", ntohl(length));
    }
    w.ended += lie;
}

/* The card sends, whether or not the peer reads. */
static void answer(struct fuzz_in *in)
{
    static uint8_t bytes[2000], sink[1 << 16];
    struct net_frame f = { .n_iov = 2, .len = 14 + fuzz_below(in, 1900) };
    struct iovec iov[2] = { { bytes, 10 }, { bytes + 10, f.len - 10 } };

    f.iov = iov;
    for (unsigned i = 1 + fuzz_below(in, 40); i > 0; i--) {
        w.sent += net_send(w.port, &f) == 0;
    }
    net_flush(w.port);
    if (!fuzz_rarely(in, 3)) {
        while (recv(w.peer, sink, sizeof(sink), MSG_DONTWAIT) > 0) {
            loop_run_once(w.loop, 0, NULL);
        }
    }
}

void fuzz_one(const uint8_t *data, size_t size)
{
    struct fuzz_in in;
    int pair[2];

    fuzz_in_init(&in, data, size);
    bool stream = !fuzz_rarely(&in, 3);
    w.vhdr = fuzz_below(&in, 2);
    w.takes = fuzz_below(&in, NET_OFF_ALL + 1);
    w.up = true;
    w.got = w.expected = 0;
    if (socketpair(AF_UNIX, (stream ? SOCK_STREAM : SOCK_DGRAM) | SOCK_CLOEXEC, 0, pair) < 0) {
        abort();
    }
    w.peer = pair[0];
    w.port = stream ? net_stream_new(w.loop, pair[1], "peer", w.vhdr)
                    : net_dgram_new(w.loop, pair[1], "peer", w.vhdr);
    net_attach(w.port, &front, NULL);
    net_set_offloads(w.port, w.takes);
    for (unsigned i = 0; i < STEPS && w.up && (in.p < in.end || i < 3); i++) {
        if (fuzz_rarely(&in, 6)) {
            answer(&in);
        } else {
            step(&in, stream);
        }
    }
    for (unsigned i = 0; i < 4; i++) {
        loop_run_once(w.loop, 0, NULL);
    }
    if (w.got < w.expected) {
        FUZZ_FAIL("%llu of %llu plain frames came", (unsigned long long)w.got,
                  (unsigned long long)w.expected);
    }
    if (fuzz_rarely(&in, 2)) {
        close(w.peer);
        loop_run_once(w.loop, 0, NULL);
        w.peer = -1;
    }
    net_close(w.port);
    if (w.peer >= 0) {
        close(w.peer);
    }
    loop_run_once(w.loop, 0, NULL);
}

void fuzz_finish(void)
{
    printf("# %llu frames came, %llu went, %llu connections ended\n", (unsigned long long)w.all,
           (unsigned long long)w.sent, (unsigned long long)w.ended);
    loop_free(w.loop);
}
