/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Frames from VMs at the switch of a named network: learning, VLANs and trunks, filters, faults, captures, and the gateway with its
 * ARP, DHCP, DNS and ping. What must hold: frames that come out are whole, with headers that fit them, and none gets
 * from one VLAN into another.
 */
#include "engine/base/loop.h"
#include "engine/base/mem.h"
#include "network/offload.h"
#include "network/server/dns.h"
#include "network/server/gateway.h"
#include "network/server/pcap.h"
#include "network/server/switch.h"
#include "tests/fuzz/fuzz.h"

#include <fcntl.h>
#include <string.h>

#define MEMBERS 4

const char fuzz_name[] = "lan";

struct member {
    struct net_port port;
    struct switch_port *at;
};
struct world {
    struct loop *loop;
    struct member *member[MEMBERS];
    struct member *sender; /* while it sends */
    uint64_t delivered;
};
static struct world w;

static int take(struct net_port *p, const struct net_frame *f)
{
    struct member *m = container_of(p, struct member, port);
    size_t len = 0;

    for (unsigned i = 0; i < f->n_iov; i++) {
        const volatile uint8_t *bytes = f->iov[i].iov_base;
        len += f->iov[i].iov_len;
        if (f->iov[i].iov_len) {
            (void)(bytes[0] + bytes[f->iov[i].iov_len - 1]);
        }
    }
    if (len != f->len || len > NET_MAX_FRAME + 4 || !net_hdr_ok(&f->hdr, f->len)) {
        FUZZ_FAIL("a frame of %zu bytes came out as %zu", f->len, len);
    }
    if (w.sender && m->at && !m->at->trunk && !w.sender->at->trunk &&
        m->at->vlan != w.sender->at->vlan) {
        FUZZ_FAIL("a frame of VLAN %u came out in VLAN %u", w.sender->at->vlan, m->at->vlan);
    }
    w.delivered++;
    return 0;
}

static void nothing(struct net_port *p)
{
    (void)p;
}

static void shut(struct net_port *p)
{
    struct member *m = container_of(p, struct member, port);

    net_port_done(p);
    free(m);
}

static const struct net_port_ops member_ops = {
    .kind = "fuzz", .send = take, .recv_ready = nothing, .close = shut
};

void fuzz_setup(void)
{
    w.loop = loop_new(NULL);
    if (!w.loop) {
        abort();
    }
}

/* Often enough something that a switch and a gateway look at. */
static size_t make(struct fuzz_in *in, uint8_t *f, struct net_hdr *h)
{
    static const uint16_t types[] = { 0x0800, 0x0806, 0x86dd, 0x8100 },
                          ports[] = { 67, 53, 68, 80 };
    size_t len = fuzz_rarely(in, 16) ? fuzz_below(in, 2000) : 42 + fuzz_below(in, 330);
    unsigned type = types[fuzz_below(in, 4)], at = 14;

    for (size_t i = 0; i < len; i++) {
        f[i] = i < 300 ? fuzz_8(in) : (uint8_t)i;
    }
    if (len < 42 || fuzz_rarely(in, 8)) {
        return len;
    }
    memset(f, fuzz_rarely(in, 2) ? 0xff : 2, 6);
    f[6] &= (uint8_t)~1u;
    if (type == 0x8100) {
        f[12] = 0x81;
        f[13] = f[14] = 0;
        type = types[fuzz_below(in, 3)];
        at = 18;
    }
    f[at - 2] = (uint8_t)(type >> 8);
    f[at - 1] = (uint8_t)type;
    if (type == 0x0800 && len > at + 28) {
        unsigned port = ports[fuzz_below(in, 4)];

        f[at] = fuzz_rarely(in, 8) ? f[at] : 0x45;
        f[at + 9] = fuzz_rarely(in, 3) ? 1 : 17;
        f[at + 6] = f[at + 7] = 0;
        memcpy(f + at + 16, (const uint8_t[]){ 10, 0, 0, 1 }, 4);
        f[at + 22] = 0;
        f[at + 23] = (uint8_t)port;
        f[at + 24] = (uint8_t)((len - at - 20) >> 8);
        f[at + 25] = (uint8_t)(len - at - 20);
        if (port == 67 && len > at + 28 + 244) {
            memcpy(f + at + 28, (const uint8_t[]){ 1, 1, 6, 0 }, 4);
            memcpy(f + at + 28 + 236, (const uint8_t[]){ 0x63, 0x82, 0x53, 0x63, 53, 1 }, 6);
            f[at + 28 + 242] = (uint8_t)(1 + fuzz_below(in, 9));
        }
    }
    if (fuzz_rarely(in, 4)) {
        h->flags = NET_HDR_NEEDS_CSUM;
        h->csum_start = (uint16_t)fuzz_below(in, 64);
        h->csum_offset = (uint16_t)fuzz_below(in, 20);
        h->hdr_len = (uint16_t)fuzz_below(in, 80);
    }
    return len;
}

static void change(struct fuzz_in *in, struct member *m)
{
    struct impair_rules r = { .loss = fuzz_below(in, 2) * 500000,
                              .corrupt = fuzz_below(in, 2) * 500000,
                              .duplicate = fuzz_below(in, 2) * 500000,
                              .reorder = fuzz_below(in, 2) * 500000,
                              .cut = fuzz_rarely(in, 8) };

    switch (fuzz_below(in, 4)) {
    case 0:
        switch_set_vlan(m->at, fuzz_below(in, 3) * 10, fuzz_rarely(in, 3));
        break;
    case 1:
        impair_set(&m->at->to_vm, &r);
        break;
    case 2:
        m->at->filter.mac = fuzz_below(in, 2);
        m->at->filter.ip = fuzz_rarely(in, 4);
        m->at->filter.n_rows = 1;
        m->at->filter.row[0] = (struct filter_row){ .drop = true,
                                                    .to_vm = true,
                                                    .proto = fuzz_below(in, FP_PROTOS),
                                                    .dst_port = (uint16_t)fuzz_below(in, 100) };
        break;
    default:
        if (!m->at->pcap) {
            m->at->pcap = pcap_new(open("/dev/null", O_WRONLY | O_CLOEXEC), 128, 0);
        }
        break;
    }
}

static void send_one(struct fuzz_in *in, struct member *m)
{
    uint8_t f[2000];
    struct net_hdr h = { 0 };
    size_t len = make(in, f, &h), cut = len ? fuzz_below(in, (unsigned)len) : 0;
    struct iovec iov[2] = { { f, cut }, { f + cut, len - cut } };

    w.sender = m;
    net_deliver(&m->port, &(struct net_frame){ .hdr = h, .iov = iov, .n_iov = 2, .len = len });
    w.sender = NULL;
}

void fuzz_one(const uint8_t *data, size_t size)
{
    struct gateway_host host = { { 2, 0, 0, 0, 0, 9 }, 0x0a000009, "nine" };
    struct gateway_options o = { .name = "lan",
                                 .domain = "lan.test",
                                 .bootfile = "boot",
                                 .address = 0x0a000001,
                                 .mask = 0xffffff00,
                                 .first = 0x0a000010,
                                 .last = 0x0a000013,
                                 .mtu = 1500,
                                 .dns = true,
                                 .hosts = &host,
                                 .n_hosts = 1 };
    struct net_switch *s = switch_new(w.loop, "lan");
    struct fuzz_in in;

    fuzz_in_init(&in, data, size);
    switch_add(s, gateway_new(w.loop, &o, NULL), "gateway");
    for (unsigned i = 0; i < MEMBERS; i++) {
        char name[8] = { 'v', 'm', (char)('0' + i) };
        struct member *m = xnew(struct member);

        net_port_init(&m->port, &member_ops, name, NET_OFF_ALL);
        m->at = switch_add(s, &m->port, name);
        w.member[i] = m;
    }
    for (unsigned i = 0; i < 12 && (in.p < in.end || i < 3); i++) {
        struct member *m = w.member[fuzz_below(&in, MEMBERS)];

        if (fuzz_rarely(&in, 5)) {
            change(&in, m);
        } else {
            send_one(&in, m);
        }
        loop_run_once(w.loop, 0, NULL);
    }
    switch_free(s);
    loop_run_once(w.loop, 0, NULL);
}

void fuzz_finish(void)
{
    printf("# %llu frames came out\n", (unsigned long long)w.delivered);
    loop_free(w.loop);
}
