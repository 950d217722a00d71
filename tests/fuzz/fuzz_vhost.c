/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vhost-user back ends of network cards: one that answers the handshake with anything, and one that is believed and then gives back what it
 * likes, writes over rings and buffers, and speaks or goes without being asked, while frames of all kinds are sent. What must hold: the front
 * end gets frames whose headers fit them; the port is down when the back end is gone, and another can come.
 */
#include "engine/base/fd.h"
#include "engine/base/log.h"
#include "engine/base/loop.h"
#include "engine/base/mem.h"
#include "network/offload.h"
#include "network/server/vhost.h"
#include "tests/fuzz/fuzz.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define STEPS 60
#define RING VHOST_PORT_RING

const char fuzz_name[] = "vhost";

struct world {
    struct loop *loop;
    struct net_port *port;
    int connect, back; /* the other ends; back -1: none */
    uint16_t used[2];
    bool stuck, up;
    uint64_t all;
};
static struct world w;

static int receive(void *arg, const struct net_frame *f)
{
    (void)arg;
    if (f->len != f->iov[0].iov_len || !net_hdr_ok(&f->hdr, f->len) || net_hdr_needs(&f->hdr)) {
        FUZZ_FAIL("a frame of %zu bytes with a header that does not fit", f->len);
    }
    w.all += !w.stuck;
    return w.stuck ? -EAGAIN : 0;
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

static void reply(struct fuzz_in *in, bool honest, uint32_t request, uint64_t value)
{
    uint32_t head[3] = { request, 5, 8 };
    size_t n = 8;

    if (!honest && fuzz_rarely(in, 4)) {
        head[fuzz_below(in, 3)] = (uint32_t)fuzz_64(in);
    }
    if (!honest && fuzz_rarely(in, 4)) {
        value = fuzz_64(in);
        n = fuzz_below(in, 9);
    }
    (void)!send(w.back, head, sizeof(head), MSG_NOSIGNAL | MSG_DONTWAIT);
    (void)!send(w.back, &value, n, MSG_NOSIGNAL | MSG_DONTWAIT);
}

/* A back end at the door, with all that it will say; one that lies says no more, so that nobody waits for it. */
static void come(struct fuzz_in *in)
{
    bool honest = !fuzz_rarely(in, 3), several = fuzz_rarely(in, 3);
    int pair[2];

    if (w.back >= 0) {
        close(w.back);
    }
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0) {
        abort();
    }
    w.back = pair[1];
    memset(w.used, 0, sizeof(w.used));
    reply(in, honest, 1, UINT64_C(1) << 32 | 0x40409982 | (fuzz_8(in) & 1));
    reply(in, honest, 15, several);
    if (several) {
        reply(in, honest, 17, 1 + fuzz_below(in, 3));
    }
    if (!honest) {
        shutdown(w.back, SHUT_WR);
    }
    (void)fd_send(w.connect, "c", 1, &pair[0], 1, NULL);
    close(pair[0]);
}

static uint8_t *at_window(size_t at)
{
    size_t size;
    int call;
    uint8_t *window = vhost_port_window(w.port, &size, &call);

    return window + at % size;
}

static void bell(void)
{
    size_t size;
    int call;
    uint64_t one = 1;

    (void)vhost_port_window(w.port, &size, &call);
    (void)!write(call, &one, 8);
}

/* Gives one back of ring i: 0 is where it puts frames, 1 where it finds them. */
static void give_back(struct fuzz_in *in, unsigned i)
{
    size_t at[3];
    uint16_t avail, head;
    uint32_t entry[2];

    vhost_port_ring(i, at);
    memcpy(&avail, at_window(at[1] + 2), 2);
    if (avail != w.used[i]) {
        memcpy(&head, at_window(at[1] + 4 + 2u * (w.used[i] % RING)), 2);
        entry[0] = fuzz_rarely(in, 32) ? (uint32_t)fuzz_64(in) : head;
        entry[1] = fuzz_rarely(in, 8) ? (uint32_t)fuzz_64(in) : 12 + fuzz_below(in, 1600);
        if (i == 0) {
            uint8_t *buffer = at_window(16384 + (size_t)(head % RING) * 4096);

            for (unsigned k = 0; k < 80; k++) {
                buffer[k] = k < 10 && !fuzz_rarely(in, 4) ? 0 : fuzz_8(in);
            }
            buffer[10] = fuzz_rarely(in, 8) ? fuzz_8(in) : 1;
            buffer[11] = fuzz_rarely(in, 32) ? fuzz_8(in) : 0;
        }
        memcpy(at_window(at[2] + 4 + 8u * (w.used[i] % RING)), entry, sizeof(entry));
        w.used[i]++;
    }
    head = fuzz_rarely(in, 64) ? (uint16_t)fuzz_64(in) : w.used[i];
    memcpy(at_window(at[2] + 2), &head, 2);
}

static void send_one(struct fuzz_in *in)
{
    static uint8_t bytes[65536 + 20];
    struct iovec iov[2] = { { bytes, 14 + fuzz_below(in, 100) },
                            { bytes + 200, fuzz_rarely(in, 8) ? fuzz_below(in, 65000)
                                                              : fuzz_below(in, 1500) } };
    struct net_frame f = { .iov = iov, .n_iov = 2, .len = iov[0].iov_len + iov[1].iov_len };

    for (unsigned k = 0; k < 54; k++) {
        bytes[k] = fuzz_8(in);
    }
    if (fuzz_rarely(in, 3)) {
        memcpy(bytes + 12, "\x08\x00\x45", 3);
        f.hdr = (struct net_hdr){
            .flags = 1, .gso_type = 1, .gso_size = 1448, .csum_start = 34, .csum_offset = 16
        };
    }
    (void)net_send(w.port, &f);
    if (fuzz_rarely(in, 2)) {
        net_flush(w.port);
    }
}

static void step(struct fuzz_in *in)
{
    unsigned what = fuzz_below(in, 16);

    if (what < 5) {
        send_one(in);
    } else if (what < 11) {
        give_back(in, what % 2);
        bell();
    } else if (what < 12) {
        w.stuck = !w.stuck;
        net_recv_ready(w.port);
    } else if (what < 13 && fuzz_rarely(in, 8)) {
        *at_window(fuzz_64(in) & (fuzz_rarely(in, 2) ? 0x3fff : SIZE_MAX >> 1)) = fuzz_8(in);
    } else if (what < 14 && fuzz_rarely(in, 16)) {
        come(in);
    } else if (what < 15 && fuzz_rarely(in, 32)) {
        (void)!send(w.back, "x", 1, MSG_NOSIGNAL | MSG_DONTWAIT);
    }
    (void)loop_run_once(w.loop, 0, NULL);
    if (w.up != w.port->up) {
        FUZZ_FAIL("the front end was not told of the link");
    }
}

void fuzz_one(const uint8_t *data, size_t size)
{
    struct fuzz_in in;
    struct vhost_options o = { .name = "card", .listens = true };
    struct err e = ERR_INIT;
    int pair[2];

    fuzz_in_init(&in, data, size);
    o.pairs = 1 + fuzz_below(&in, 2);
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0) {
        abort();
    }
    w.connect = pair[1];
    w.back = -1;
    w.up = w.stuck = false;
    o.connect_fd = pair[0];
    w.port = vhost_port_new(w.loop, &o, &e);
    if (!w.port) {
        FUZZ_FAIL("%s", e.msg);
    }
    net_attach(w.port, &front, NULL);
    net_set_offloads(w.port, 0);
    come(&in);
    for (unsigned i = 0; i < STEPS; i++) {
        step(&in);
    }
    net_close(w.port);
    if (w.back >= 0) {
        close(w.back);
    }
    close(w.connect);
}

void fuzz_finish(void)
{
    printf("# %llu frames came\n", (unsigned long long)w.all);
    loop_free(w.loop);
}
