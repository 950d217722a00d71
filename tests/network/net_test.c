/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ports and offloads: segments and checksums against a plain reckoning, frames over sockets in QEMU's framing, back
 * pressure, peers that lie.
 */
#include "engine/base/loop.h"
#include "engine/base/mem.h"
#include "network/coalesce.h"
#include "network/offload.h"
#include "network/stream.h"
#include "tests/lib/testing.h"

#include <arpa/inet.h>
#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

/* --- offloads --- */

/* RFC 1071 as it stands there. */
static uint16_t plain_sum(const uint8_t *p, size_t n, uint32_t sum)
{
    for (size_t i = 0; i < n; i++) {
        sum += i % 2 ? p[i] : (uint32_t)p[i] << 8;
    }
    while (sum >> 16) {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    return (uint16_t)sum;
}

static uint32_t be(const uint8_t *p, unsigned n)
{
    uint32_t v = 0;

    while (n--) {
        v = v << 8 | *p++;
    }
    return v;
}

/* What of a frame the checks want to know. */
struct shape {
    bool v6, tcp, vlan;
    size_t payload, options;
};

static size_t headers(const struct shape *s)
{
    return 14 + (s->vlan ? 4u : 0) + (s->v6 ? 40u : 20u) + (s->tcp ? 20u : 8u) + s->options;
}

/* A large segment as a driver hands it over: pseudo header sum in the checksum field. */
static size_t make(const struct shape *s, uint8_t *f, struct net_hdr *h, unsigned mss)
{
    size_t ip = 14 + (s->vlan ? 4u : 0), l4 = ip + (s->v6 ? 40u : 20u),
           len = headers(s) + s->payload;
    uint32_t n = (uint32_t)(len - l4);

    memset(f, 0x11, headers(s));
    memcpy(f + 12, s->vlan ? "\x81\x00\x00\x07" : "", s->vlan ? 4 : 0);
    memcpy(f + ip - 2, s->v6 ? "\x86\xdd" : "\x08\x00", 2);
    f[ip] = s->v6 ? 0x60 : 0x45;
    f[ip + (s->v6 ? 6 : 9)] = s->tcp ? 6 : 17;
    if (s->tcp) {
        f[l4 + 12] = (uint8_t)((20 + s->options) / 4 << 4);
        f[l4 + 13] = 0x80 | 0x10 | 8 | 1; /* CWR ACK PSH FIN */
    }
    for (size_t i = 0; i < s->payload; i++) {
        f[headers(s) + i] = (uint8_t)(i * 7 + i / 251);
    }
    uint16_t pseudo = plain_sum(f + ip + (s->v6 ? 8 : 12), s->v6 ? 32 : 8,
                                n + (s->tcp ? 6 : 17));
    size_t at = l4 + (s->tcp ? 16 : 6);
    f[at] = (uint8_t)(pseudo >> 8);
    f[at + 1] = (uint8_t)pseudo;
    *h = (struct net_hdr){ .flags = NET_HDR_NEEDS_CSUM,
                           .gso_type = !s->tcp ? NET_GSO_UDP_L4
                                       : s->v6 ? NET_GSO_TCPV6
                                               : NET_GSO_TCPV4,
                           .gso_size = (uint16_t)mss,
                           .hdr_len = (uint16_t)headers(s),
                           .csum_start = (uint16_t)l4,
                           .csum_offset = s->tcp ? 16 : 6 };
    return len;
}

struct seen {
    const struct shape *s;
    const uint8_t *whole;
    size_t at, len;
    unsigned mss, count;
};

static void check_sums(const uint8_t *f, size_t len, const struct shape *s)
{
    size_t ip = 14 + (s->vlan ? 4u : 0), l4 = ip + (s->v6 ? 40u : 20u);

    if (!s->v6) {
        ck_assert_uint_eq(plain_sum(f + ip, 20, 0), 0xffff);
        ck_assert_uint_eq(be(f + ip + 2, 2), len - ip);
    } else {
        ck_assert_uint_eq(be(f + ip + 4, 2), len - l4);
    }
    uint16_t pseudo = plain_sum(f + ip + (s->v6 ? 8 : 12), s->v6 ? 32 : 8,
                                (uint32_t)(len - l4) + (s->tcp ? 6 : 17));
    ck_assert_uint_eq(plain_sum(f + l4, len - l4, pseudo), 0xffff);
}

static int check_segment(void *arg, const struct net_frame *frame)
{
    struct seen *k = arg;
    AUTO_FREE uint8_t *f = xalloc(frame->len);
    size_t head = headers(k->s), l4 = head - (k->s->tcp ? 20 : 8) - k->s->options,
           n = frame->len - head;

    ck_assert_uint_eq(net_frame_get(frame, 0, f, frame->len), frame->len);
    ck_assert_uint_eq(net_hdr_needs(&frame->hdr), 0);
    ck_assert(n <= k->mss && (n == k->mss || k->at + n == k->len));
    ck_assert_int_eq(memcmp(f + head, k->whole + k->at, n), 0);
    check_sums(f, frame->len, k->s);
    if (k->s->tcp) {
        bool first = k->at == head, last = k->at + n == k->len;

        ck_assert_uint_eq(be(f + l4 + 4, 4), be(k->whole + l4 + 4, 4) + k->at - head);
        ck_assert_uint_eq(f[l4 + 13], 0x10 | (first ? 0x80 : 0) | (last ? 9 : 0));
    } else {
        ck_assert_uint_eq(be(f + l4 + 4, 2), 8 + n);
    }
    if (!k->s->v6) {
        ck_assert_uint_eq(be(f + l4 - 20 + 4, 2),
                          (be(k->whole + l4 - 20 + 4, 2) + k->count) & 0xffff);
    }
    k->at += n;
    k->count++;
    return 0;
}

START_TEST(large_segments_are_cut_into_valid_packets)
{
    uint64_t seed = test_seed();
    AUTO_FREE uint8_t *f = xalloc(NET_MAX_FRAME);

    for (unsigned i = 0; i < 2000; i++) {
        struct shape s = { .v6 = test_random(&seed) & 1,
                           .tcp = test_random(&seed) & 1,
                           .vlan = test_random(&seed) & 1 };
        unsigned mss = 1 + (unsigned)(test_random(&seed) % 1500);
        struct net_hdr h;

        s.options = s.tcp ? test_random(&seed) % 11 * 4 : 0;
        s.payload = test_random(&seed) % (i % 10 ? 5000 : 65000) + 1;
        struct seen k = { .s = &s, .whole = f, .at = headers(&s), .mss = mss };
        k.len = make(&s, f, &h, mss);
        ck_assert(net_hdr_ok(&h, k.len));
        ck_assert_int_eq(net_segment(f, k.len, &h, check_segment, &k), 0);
        ck_assert_uint_eq(k.at, k.len);
    }
}
END_TEST

START_TEST(checksums_are_filled_in)
{
    uint64_t seed = test_seed();
    AUTO_FREE uint8_t *f = xalloc(NET_MAX_FRAME);

    for (unsigned i = 0; i < 1000; i++) {
        struct shape s = { .v6 = i & 1, .tcp = i & 2, .payload = test_random(&seed) % 3000 };
        struct net_hdr h;
        size_t len = make(&s, f, &h, 1);

        /* Alternately one packet, and a large TCP segment that is to stay one. */
        if (!(i & 4) || !s.tcp) {
            h.gso_type = NET_GSO_NONE;
            if (!s.v6) { /* the driver fills in the header of IPv4 itself */
                f[16] = (uint8_t)((len - 14) >> 8), f[17] = (uint8_t)(len - 14);
                f[24] = f[25] = 0;
                uint16_t sum = (uint16_t)~plain_sum(f + 14, 20, 0);
                f[24] = (uint8_t)(sum >> 8), f[25] = (uint8_t)sum;
            } else {
                f[18] = (uint8_t)((len - 54) >> 8), f[19] = (uint8_t)(len - 54);
            }
        }
        ck_assert_int_eq(net_csum_fill(f, len, &h), 0);
        ck_assert_uint_eq(net_hdr_needs(&h), 0);
        check_sums(f, len, &s);
    }
}
END_TEST

/* Joins what net_segment() cut. */
struct joined {
    struct net_large large;
    uint8_t *whole;
    size_t len;
    unsigned count, flip; /* flip: change that byte of the last segment and see it refused */
};

static int join_segment(void *arg, const struct net_frame *frame)
{
    struct joined *j = arg;
    size_t n = frame->len;
    uint8_t *f = malloc(n); /* exactly */

    net_frame_get(frame, 0, f, n);
    if (j->count++ == 0) {
        net_large_begin(&j->large, f, n);
        memcpy(j->whole, f, n);
        j->len = n;
    } else {
        ck_assert(net_large_fits(&j->large, j->whole, j->len, f, n));
        f[j->flip] ^= 0x40;
        ck_assert(!net_large_fits(&j->large, j->whole, j->len, f, n));
        f[j->flip] ^= 0x40;
        ck_assert(!net_large_fits(&j->large, j->whole, j->len, f, n - 1));
        net_large_add(&j->large, j->whole, &j->len, f, n);
    }
    free(f);
    return 0;
}

START_TEST(segments_that_follow_each_other_become_one)
{
    uint64_t seed = test_seed();
    AUTO_FREE uint8_t *f = xalloc(NET_MAX_FRAME), *whole = xalloc(NET_MAX_FRAME);

    for (unsigned i = 0; i < 2000; i++) {
        struct shape s = { .v6 = i & 1,
                           .tcp = true,
                           .payload = test_random(&seed) % 65400 + 1 };
        /* Bytes that tell flows and treatments apart: addresses, type of service, ports, sequence, acknowledgement, flags, window. */
        static const uint8_t tell4[] = { 0,  5,  11, 15, 20, 22, 26, 29, 30,
                                         33, 34, 37, 38, 41, 42, 45, 47, 48 },
                             tell6[] = { 0,  5,  11, 15, 17, 20, 21, 22, 37,
                                         38, 53, 54, 57, 58, 61, 62, 67, 68 };
        unsigned mss = 100 + (unsigned)(test_random(&seed) % 1361);
        size_t l4 = s.v6 ? 54 : 34;
        struct net_hdr h, plain = { .flags = NET_HDR_DATA_VALID };
        struct joined j = {
            .whole = whole, .flip = (s.v6 ? tell6 : tell4)[test_random(&seed) % sizeof(tell4)]
        };
        size_t len = make(&s, f, &h, mss);

        f[l4 + 13] = 0x10 | (i & 2 ? 8 : 0);
        if (!s.v6) {
            f[20] = 0x40, f[21] = 0;
        }
        ck_assert_int_eq(net_segment(f, len, &h, join_segment, &j), 0);
        ck_assert_uint_eq(j.large.open, !(i & 2) && (j.count == 1 || s.payload % mss == 0));
        net_large_end(&j.large, whole, j.len);
        ck_assert_uint_eq(j.len, len);
        ck_assert_int_eq(memcmp(whole + l4 + 20, f + l4 + 20, s.payload), 0);
        if (j.count > 1) {
            ck_assert_mem_eq(whole + l4, f + l4, 20); /* the pseudo header's sum, too */
            ck_assert_int_eq(memcmp(&j.large.hdr, &h, sizeof(h)), 0);
            ck_assert(net_hdr_ok(&j.large.hdr, len));
            if (!s.v6) {
                ck_assert_uint_eq(plain_sum(whole + 14, 20, 0), 0xffff);
            }
            ck_assert_int_eq(net_csum_fill(whole, len, &j.large.hdr), 0);
        } else {
            ck_assert_int_eq(memcmp(&j.large.hdr, &plain, sizeof(plain)), 0);
        }
        check_sums(whole, len, &s);
    }
}
END_TEST

START_TEST(only_plain_segments_of_tcp_are_joined)
{
    uint64_t seed = test_seed();

    for (unsigned i = 0; i < 100000; i++) {
        struct shape s = { .v6 = i & 1, .tcp = true, .payload = test_random(&seed) % 40 };
        size_t len = make(&s, (uint8_t[200]){ 0 }, &(struct net_hdr){ 0 }, 10);
        uint8_t *f = malloc(len), whole[200];
        struct net_large g;
        struct net_hdr h;

        make(&s, f, &h, 10);
        h.gso_type = NET_GSO_NONE;
        f[s.v6 ? 67 : 47] = 0x10;
        f[s.v6 ? 19 : 17] = (uint8_t)(len - (s.v6 ? 54 : 14));
        f[s.v6 ? 18 : 16] = 0;
        f[20] = s.v6 ? f[20] : 0x40;
        f[21] = s.v6 ? f[21] : 0;
        net_large_begin(&g, f, len);
        ck_assert_uint_eq(g.open, s.payload > 0);
        memcpy(whole, f, len);
        for (unsigned k = 0; k < 2; k++) {
            uint64_t r = test_random(&seed);

            f[(r >> 8) % len] = (uint8_t)(r >> 32);
        }
        if (net_large_fits(&g, whole, len, f, len)) {
            size_t n = len;

            net_large_add(&g, whole, &n, f, len);
            ck_assert_uint_eq(n, len + s.payload);
        }
        net_large_begin(&g, f, test_random(&seed) % (len + 1)); /* cut anywhere */
        free(f);
    }
}
END_TEST

static int count_segment(void *arg, const struct net_frame *f)
{
    ck_assert_uint_le(f->len, NET_MAX_FRAME);
    return ++*(unsigned *)arg > 70000 ? -1 : 0;
}

START_TEST(headers_that_lie_do_no_harm)
{
    uint64_t seed = test_seed();
    unsigned ok = 0;

    for (unsigned i = 0; i < 100000; i++) {
        uint8_t vh[NET_VHDR], *f;
        struct net_hdr h;
        struct shape s = { .v6 = i & 1, .tcp = i & 2, .payload = test_random(&seed) % 100 };
        size_t len = headers(&s) + s.payload;
        unsigned n = 0;

        f = malloc(len); /* exactly, so that a sanitizer or valgrind sees a byte beyond */
        make(&s, f, &h, 10);
        net_hdr_put(vh, &h);
        for (unsigned k = 0; k < 3; k++) {
            uint64_t r = test_random(&seed);

            *(r & 1 ? &vh[r >> 8 & 7] : &f[(r >> 8) % len]) = (uint8_t)(r >> 32);
        }
        net_hdr_get(&h, vh);
        if (net_hdr_ok(&h, len)) {
            ok++;
            (void)net_segment(f, len, &h, count_segment, &n);
            (void)net_csum_fill(f, len, &h);
        }
        free(f);
    }
    ck_assert_uint_gt(ok, 1000);
}
END_TEST

/* --- sockets --- */

struct end {
    struct net_port *port;
    unsigned got, links, writable, ends;
    size_t bytes;
    bool deaf;
    struct net_hdr last;
};

static int end_receive(void *arg, const struct net_frame *f)
{
    struct end *x = arg;

    if (x->deaf) {
        return -EAGAIN;
    }
    x->got++;
    x->bytes += f->len;
    x->last = f->hdr;
    return 0;
}

static void end_writable(void *arg)
{
    ((struct end *)arg)->writable++;
}

static void end_link(void *arg, bool up)
{
    (void)up;
    ((struct end *)arg)->links++;
}

static void end_ended(void *arg)
{
    ((struct end *)arg)->ends++;
}

static const struct net_front_ops end_ops = { .receive = end_receive,
                                              .writable = end_writable,
                                              .link = end_link };

static struct loop *new_loop(void)
{
    struct err e = ERR_INIT;
    struct loop *l = loop_new(&e);

    ck_assert_ptr_nonnull(l);
    return l;
}

static void turn(struct loop *l, unsigned n)
{
    while (n--) {
        ck_assert_int_eq(loop_run_once(l, 0, NULL), 0);
    }
}

static void attach(struct end *x, struct net_port *p)
{
    *x = (struct end){ .port = p };
    net_attach(p, &end_ops, x);
    net_set_offloads(p, NET_OFF_ALL);
}

static int send_n(struct net_port *p, void *bytes, size_t n, const struct net_hdr *h)
{
    struct iovec iov[2] = { { bytes, n / 2 }, { (char *)bytes + n / 2, n - n / 2 } };
    struct net_frame f = { .iov = iov, .n_iov = 2, .len = n };

    if (h) {
        f.hdr = *h;
    }
    return net_send(p, &f);
}

START_TEST(stream_speaks_the_framing_of_qemu_and_passt)
{
    struct loop *l = new_loop();
    uint8_t frame[60] = { 1, 2, 3 }, raw[100];
    struct end x;
    int pair[2];

    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    attach(&x, net_stream_new(l, pair[0], "x", false));
    ck_assert_int_eq(send_n(x.port, frame, sizeof(frame), NULL), 0);
    net_flush(x.port);
    ck_assert_int_eq(recv(pair[1], raw, sizeof(raw), 0), 64);
    ck_assert_uint_eq(be(raw, 4), 60);
    ck_assert_int_eq(memcmp(raw + 4, frame, 60), 0);
    for (unsigned i = 0; i < 64; i++) { /* byte by byte */
        ck_assert_int_eq(send(pair[1], raw + i, 1, 0), 1);
        turn(l, 1);
    }
    ck_assert_uint_eq(x.got, 1);
    ck_assert_uint_eq(x.bytes, 60);
    close(pair[1]);
    turn(l, 2);
    ck_assert(!x.port->up && x.links == 1);
    ck_assert_int_eq(send_n(x.port, frame, sizeof(frame), NULL), -ENETDOWN);
    net_close(x.port);
    loop_free(l);
}
END_TEST

START_TEST(stream_ends_when_a_length_is_impossible)
{
    static const uint32_t lengths[] = { 0, 11, 0x10000 + 100, UINT32_MAX };

    for (unsigned i = 0; i < ARRAY_LEN(lengths); i++) {
        struct loop *l = new_loop();
        uint8_t raw[64] = { 0 };
        uint32_t be32 = htonl(lengths[i]);
        struct end x;
        int pair[2];

        ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
        attach(&x, net_stream_new(l, pair[0], "x", true));
        net_stream_on_end(x.port, end_ended, &x);
        memcpy(raw, &be32, 4);
        ck_assert_int_eq(send(pair[1], raw, sizeof(raw), 0), sizeof(raw));
        turn(l, 2);
        ck_assert_uint_eq(x.ends, 1);
        ck_assert_uint_eq(x.got, 0);
        net_close(x.port);
        close(pair[1]);
        loop_free(l);
    }
}
END_TEST

START_TEST(frames_wait_for_a_slow_reader_and_none_is_lost)
{
    bool dgram = _i;
    struct loop *l = new_loop();
    AUTO_FREE uint8_t *frame = xalloc(9000);
    struct end a, b;
    unsigned sent = 0;
    int pair[2];

    ck_assert_int_eq(socketpair(AF_UNIX, dgram ? SOCK_DGRAM : SOCK_STREAM, 0, pair), 0);
    attach(&a, (dgram ? net_dgram_new : net_stream_new)(l, pair[0], "a", true));
    attach(&b, (dgram ? net_dgram_new : net_stream_new)(l, pair[1], "b", true));
    b.deaf = true;
    for (unsigned i = 0; send_n(a.port, frame, i % 2 ? 60 : 9000, NULL) == 0; i++) {
        sent++;
        ck_assert_uint_lt(sent, 100000);
        turn(l, 1);
    }
    net_flush(a.port);
    turn(l, 10);
    ck_assert_uint_eq(b.got, 0);
    ck_assert_uint_eq(a.writable, 0);
    b.deaf = false;
    net_recv_ready(b.port);
    for (unsigned i = 0; i < 1000 && b.got < sent; i++) {
        turn(l, 1);
    }
    ck_assert_uint_eq(b.got, sent);
    ck_assert_uint_eq(a.writable, 1);
    ck_assert_int_eq(send_n(a.port, frame, 60, NULL), 0);
    net_close(a.port);
    net_close(b.port);
    loop_free(l);
}
END_TEST

START_TEST(a_port_does_what_its_back_end_lacks)
{
    struct loop *l = new_loop();
    AUTO_FREE uint8_t *f = xalloc(NET_MAX_FRAME);
    struct shape s = { .tcp = true, .payload = 20000 };
    struct net_hdr h;
    struct end a, b;
    int pair[2];
    size_t len = make(&s, f, &h, 1448);

    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    attach(&a, net_stream_new(l, pair[0], "a", false));
    attach(&b, net_stream_new(l, pair[1], "b", false));
    ck_assert_int_eq(send_n(a.port, f, len, &h), 0);
    net_flush(a.port);
    turn(l, 5);
    ck_assert_uint_eq(b.got, (20000 + 1447) / 1448);
    ck_assert_uint_eq(b.bytes, 20000 + b.got * headers(&s));
    ck_assert_uint_eq(a.port->tx.frames, 1);
    net_close(a.port);
    net_close(b.port);

    /* With headers it passes as it is, unless the receiver lacks something. */
    for (unsigned round = 0; round < 3; round++) {
        ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
        attach(&a, net_stream_new(l, pair[0], "a", true));
        attach(&b, net_stream_new(l, pair[1], "b", true));
        net_set_offloads(b.port, round == 0 ? NET_OFF_ALL : round == 1 ? NET_OFF_CSUM : 0);
        make(&s, f, &h, 1448);
        ck_assert_int_eq(send_n(a.port, f, len, &h), 0);
        net_flush(a.port);
        turn(l, 5);
        ck_assert_uint_eq(b.got, round == 0 ? 1u : 14u);
        ck_assert_uint_eq(b.last.gso_type, round == 0 ? NET_GSO_TCPV4 : NET_GSO_NONE);
        net_close(a.port);
        net_close(b.port);
    }
    loop_free(l);
}
END_TEST

static Suite *suite_network(void)
{
    Suite *s = suite_create("network");
    TCase *t = tcase_create("offload");

    tcase_add_test(t, large_segments_are_cut_into_valid_packets);
    tcase_add_test(t, checksums_are_filled_in);
    tcase_add_test(t, headers_that_lie_do_no_harm);
    tcase_add_test(t, segments_that_follow_each_other_become_one);
    tcase_add_test(t, only_plain_segments_of_tcp_are_joined);
    suite_add_tcase(s, t);
    t = tcase_create("sockets");
    tcase_add_test(t, stream_speaks_the_framing_of_qemu_and_passt);
    tcase_add_test(t, stream_ends_when_a_length_is_impossible);
    tcase_add_loop_test(t, frames_wait_for_a_slow_reader_and_none_is_lost, 0, 2);
    tcase_add_test(t, a_port_does_what_its_back_end_lacks);
    suite_add_tcase(s, t);
    return s;
}

int main(int argc, char **argv)
{
    return test_main(argc, argv, suite_network, NULL);
}
