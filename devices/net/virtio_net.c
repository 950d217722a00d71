/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio-net: a network card (virtio 1.2 §5.1) on a port of network/, which it owns. Frames are taken, sent and
 * received on the main loop; the transport's lock covers all.
 *
 * The card offers checksums and segmentation whatever is behind it: what the back end lacks, the port does. What of it
 * the driver lacks for receiving, the port undoes before the card sees the frame.
 *
 * While the VM is paused frames wait in the back end.
 */
#include "devices/net/virtio_net.h"

#include "devices/registry.h"
#include "devices/virtio/virtio.h"
#include "engine/base/log.h"
#include "engine/core/vm.h"
#include "network/port.h"

#include <endian.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#define QUEUE_SIZE 1024
#define BUDGET 256 /* frames of a queue before other work of the loop gets its turn */
#define MAX_PAIRS VNET_MAX_PAIRS
_Static_assert(2 * MAX_PAIRS + 1 <= VIRTIO_MAX_QUEUES, "queues of the transport");

#define F(n) (1ull << (n))
enum {
    F_CSUM = 0,
    F_GUEST_CSUM = 1,
    F_CTRL_GUEST_OFFLOADS = 2,
    F_MTU = 3,
    F_MAC = 5,
    F_GUEST_TSO4 = 7,
    F_GUEST_TSO6 = 8,
    F_GUEST_ECN = 9,
    F_HOST_TSO4 = 11,
    F_HOST_TSO6 = 12,
    F_HOST_ECN = 13,
    F_MRG_RXBUF = 15,
    F_STATUS = 16,
    F_CTRL_VQ = 17,
    F_CTRL_RX = 18,
    F_CTRL_VLAN = 19,
    F_CTRL_RX_EXTRA = 20,
    F_GUEST_ANNOUNCE = 21,
    F_MQ = 22,
    F_CTRL_MAC_ADDR = 23,
    F_GUEST_USO4 = 54,
    F_GUEST_USO6 = 55,
    F_HOST_USO = 56
};
#define GUEST_OFFLOADS                                                                         \
    (F(F_GUEST_CSUM) | F(F_GUEST_TSO4) | F(F_GUEST_TSO6) | F(F_GUEST_ECN) | F(F_GUEST_USO4) |  \
     F(F_GUEST_USO6))
enum { STATUS_LINK_UP = 1, STATUS_ANNOUNCE = 2 };
enum {
    CTRL_RX = 0,
    CTRL_MAC = 1,
    CTRL_VLAN = 2,
    CTRL_ANNOUNCE = 3,
    CTRL_MQ = 4,
    CTRL_OFFLOADS = 5
};
enum { RX_PROMISC, RX_ALLMULTI, RX_ALLUNI, RX_NOMULTI, RX_NOUNI, RX_NOBCAST, RX_MODES };
enum { CTRL_OK = 0, CTRL_ERR = 1 };

struct vnet {
    struct virtio v;
    struct net_port *port; /* NULL: the cable leads nowhere */
    char *mac_text;
    uint64_t mtu, pairs;
    bool packed;
    uint8_t perm_mac[6];

    /* What the driver has set; saved. */
    uint8_t mac[6];
    bool mode[RX_MODES];
    bool uni_overflow, multi_overflow;
    uint32_t n_uni, n_multi;
    uint8_t table[VNET_MAC_TABLE * 6];
    uint64_t vlans[64];
    uint16_t active;   /* pairs in use */
    uint64_t offloads; /* of GUEST_OFFLOADS */
    bool unplugged, announce;

    struct virtio_elem *tx[MAX_PAIRS]; /* a frame that the back end has no room for, by pair */
    bool offloads_told;                /* to the port */
    unsigned filled;         /* a bit a pair that has got frames since the last interrupt */
    uint8_t flow[NET_FLOWS]; /* pair that a flow was last sent on */
    struct vnet_pair count[MAX_PAIRS];
};

static unsigned ctrl_queue(const struct vnet *n)
{
    return n->v.features & F(F_MQ) ? 2 * (unsigned)n->pairs : 2;
}

static bool carrier(const struct vnet *n)
{
    return !n->unplugged && n->port && n->port->up;
}

/* --- what the port is told (main loop, lock held) --- */

static unsigned as_port_offloads(uint64_t f)
{
    unsigned o = 0;

    o |= f & F(F_GUEST_CSUM) ? NET_OFF_CSUM : 0;
    o |= f & F(F_GUEST_TSO4) ? NET_OFF_TSO4 : 0;
    o |= f & F(F_GUEST_TSO6) ? NET_OFF_TSO6 : 0;
    o |= f & F(F_GUEST_ECN) ? NET_OFF_ECN : 0;
    o |= (f & F(F_GUEST_USO4)) && (f & F(F_GUEST_USO6)) ? NET_OFF_USO : 0;
    return o;
}

static void tell_offloads(struct vnet *n)
{
    uint64_t asked = n->v.features & GUEST_OFFLOADS;

    if (n->port && !n->offloads_told) {
        net_set_offloads(n->port, as_port_offloads(n->v.features & F(F_CTRL_GUEST_OFFLOADS)
                                                       ? asked & n->offloads
                                                       : asked));
        n->offloads_told = true;
    }
}

/* --- sending --- */

static int send_elem(struct vnet *n, unsigned pair, const struct virtio_elem *el)
{
    uint8_t vh[NET_VHDR];
    struct iovec iov[NET_MAX_IOV];
    struct net_frame f = { .iov = iov, .queue = pair, .len = (size_t)el->out_len - NET_VHDR };
    uint64_t skip = NET_VHDR;
    uint8_t *joined = NULL;
    int rc;

    virtio_get(el, 0, vh, sizeof(vh));
    net_hdr_get(&f.hdr, vh);
    f.hdr.flags &= NET_HDR_NEEDS_CSUM;
    if (f.len > NET_MAX_FRAME) {
        return -EMSGSIZE;
    }
    for (unsigned i = 0; i < el->n_out; i++) {
        if (skip >= el->sg[i].len) {
            skip -= el->sg[i].len;
            continue;
        }
        if (f.n_iov == NET_MAX_IOV) {
            joined = xalloc(f.len);
            virtio_get(el, NET_VHDR, joined, f.len);
            iov[0] = (struct iovec){ joined, f.len };
            f.n_iov = 1;
            break;
        }
        iov[f.n_iov++] = (struct iovec){ el->sg[i].host + skip, el->sg[i].len - skip };
        skip = 0;
    }
    if (n->active > 1 && n->port->queues <= 1) {
        n->flow[net_frame_flow(&f)] = (uint8_t)pair;
    }
    rc = net_send(n->port, &f);
    free(joined);
    if (rc == 0) {
        n->count[pair].tx_frames++;
        n->count[pair].tx_bytes += f.len;
    }
    return rc;
}

static void serve_tx(struct vnet *n, unsigned q)
{
    unsigned pair = q / 2, done = 0;

    while (done < BUDGET) {
        struct virtio_elem *el = n->tx[pair] ? n->tx[pair] : virtq_pop(&n->v, q);

        n->tx[pair] = NULL;
        if (!el) {
            if (virtq_rearm(&n->v, q)) {
                continue;
            }
            break;
        }
        if (el->out_len < NET_VHDR) {
            virtio_elem_free(el);
            virtio_broken(&n->v, "a frame lacks its header");
            return;
        }
        if (carrier(n) && send_elem(n, pair, el) == -EAGAIN) {
            n->tx[pair] = el; /* until the port is writable */
            break;
        }
        virtq_push(&n->v, q, el, 0);
        done++;
    }
    if (n->port) {
        net_flush(n->port);
    }
    if (done > 0) {
        virtq_signal(&n->v, q);
    }
    if (done == BUDGET) {
        virtio_ring(&n->v, q);
    }
}

/* --- receiving --- */

static bool in_table(const struct vnet *n, const uint8_t *mac, unsigned from, unsigned count)
{
    for (unsigned i = from; i < from + count; i++) {
        if (memcmp(n->table + 6 * (size_t)i, mac, 6) == 0) {
            return true;
        }
    }
    return false;
}

/* §5.1.6.5.1 and .3: does the driver want it? */
static bool wanted(const struct vnet *n, const struct net_frame *f)
{
    static const uint8_t broadcast[6] = { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff };
    uint8_t h[18];
    size_t len = net_frame_get(f, 0, h, sizeof(h));

    if (n->mode[RX_PROMISC]) {
        return true;
    }
    if ((n->v.features & F(F_CTRL_VLAN)) && len == sizeof(h) && h[12] == 0x81 && h[13] == 0) {
        unsigned vid = (h[14] & 15u) << 8 | h[15];

        if (!(n->vlans[vid / 64] >> (vid % 64) & 1)) {
            return false;
        }
    }
    if (memcmp(h, broadcast, 6) == 0) {
        return !n->mode[RX_NOBCAST];
    }
    if (h[0] & 1) {
        return !n->mode[RX_NOMULTI] && (n->mode[RX_ALLMULTI] || n->multi_overflow ||
                                        in_table(n, h, n->n_uni, n->n_multi));
    }
    return !n->mode[RX_NOUNI] && (n->mode[RX_ALLUNI] || n->uni_overflow ||
                                  memcmp(h, n->mac, 6) == 0 || in_table(n, h, 0, n->n_uni));
}

/* Buffers for a frame of `need` bytes with its header. 0: there are not enough. */
static unsigned take_buffers(struct vnet *n, unsigned q, size_t need, struct virtio_elem **el)
{
    bool merge = n->v.features & F(F_MRG_RXBUF);
    size_t have = 0;
    unsigned count = 0;

    for (;;) {
        struct virtio_elem *one = virtq_pop(&n->v, q);

        if (!one) {
            /* Asked while the ring is empty: the next buffer rings, however many are given back. */
            if (virtio_working(&n->v) && virtq_rearm(&n->v, q)) {
                continue;
            }
            while (count > 0) {
                virtq_unpop(&n->v, q, el[--count]);
            }
            return 0;
        }
        el[count++] = one;
        have += one->in_len;
        if (have >= need || count == VIRTIO_MAX_CHAIN || !merge) {
            return count;
        }
    }
}

/* Copies the frame behind the header into the buffers; pushes them, all at once: a driver that polls meanwhile drops a frame of
 * which a buffer is missing. */
static void fill_buffers(struct vnet *n, unsigned q, const struct net_frame *f,
                         struct virtio_elem **el, unsigned count)
{
    uint8_t vh[NET_VHDR];
    uint64_t written[VIRTIO_MAX_CHAIN];
    unsigned piece = 0;
    size_t at = 0; /* in the piece */
    struct net_hdr h = f->hdr;

    h.flags &= n->v.features & F(F_GUEST_CSUM) ? 0xff : 0;
    net_hdr_put(vh, &h);
    vh[10] = (uint8_t)count; /* num_buffers */
    vh[11] = (uint8_t)(count >> 8);
    for (unsigned i = 0; i < count; i++) {
        size_t room = (size_t)el[i]->in_len, used = 0;

        if (i == 0) {
            used = virtio_put(el[0], 0, vh, sizeof(vh));
        }
        while (used < room && piece < f->n_iov) {
            size_t part = f->iov[piece].iov_len - at;

            part = part < room - used ? part : room - used;
            used += virtio_put(el[i], used, (const uint8_t *)f->iov[piece].iov_base + at, part);
            at += part;
            if (at == f->iov[piece].iov_len) {
                piece++;
                at = 0;
            }
        }
        written[i] = used;
    }
    virtq_push_all(&n->v, q, el, written, count);
}

/* That of the back end's queue, or where the flow's frames come from. Queues that the driver does not use stay attached to the back end. */
static unsigned pair_for(const struct vnet *n, const struct net_frame *f)
{
    unsigned pair;

    if (n->active <= 1) {
        return 0;
    }
    pair = n->port->queues > 1 ? f->queue : n->flow[net_frame_flow(f)];
    return pair < n->active ? pair : pair % n->active;
}

/* With the lock held. */
static int receive_locked(struct vnet *n, const struct net_frame *f)
{
    struct virtio_elem *el[VIRTIO_MAX_CHAIN];
    size_t need = f->len + NET_VHDR, room = 0;
    unsigned pair, count;

    if (!virtio_may_run(&n->v)) {
        return -EAGAIN;
    }
    if (!virtio_working(&n->v) || n->unplugged || !wanted(n, f)) {
        return n->unplugged || !virtio_working(&n->v) ? -ENETDOWN : 0;
    }
    pair = pair_for(n, f);
    if (!n->v.queue[2 * pair].ready) {
        return -ENETDOWN;
    }
    count = take_buffers(n, 2 * pair, need, el);
    if (count == 0) {
        return virtio_working(&n->v) ? -EAGAIN : -ENETDOWN;
    }
    for (unsigned i = 0; i < count; i++) {
        room += el[i]->in_len;
    }
    if (room < need || el[0]->in_len < NET_VHDR) {
        /* One that no buffer is made for: the driver's MTU is smaller. */
        while (count > 0) {
            virtq_unpop(&n->v, 2 * pair, el[--count]);
        }
        return -EMSGSIZE;
    }
    fill_buffers(n, 2 * pair, f, el, count);
    n->filled |= 1u << pair;
    n->count[pair].rx_frames++;
    n->count[pair].rx_bytes += f->len;
    return 0;
}

static int vnet_receive(void *arg, const struct net_frame *f)
{
    struct vnet *n = arg;
    int rc;

    bus_lock(n->v.lock);
    rc = receive_locked(n, f);
    bus_unlock(n->v.lock);
    return rc;
}

static void vnet_received(void *arg)
{
    struct vnet *n = arg;

    bus_lock(n->v.lock);
    if (virtio_may_run(&n->v) && virtio_working(&n->v)) {
        for (unsigned pair = 0; pair < MAX_PAIRS; pair++) {
            if (n->filled >> pair & 1) {
                virtq_signal(&n->v, 2 * pair);
            }
        }
    }
    n->filled = 0;
    bus_unlock(n->v.lock);
}

static void vnet_writable(void *arg)
{
    struct vnet *n = arg;

    for (unsigned pair = 0; pair < n->active; pair++) {
        virtio_ring(&n->v, 2 * pair + 1);
    }
}

static void vnet_link(void *arg, bool up)
{
    struct vnet *n = arg;

    (void)up;
    bus_lock(n->v.lock);
    virtio_config_changed(&n->v);
    bus_unlock(n->v.lock);
}

static const struct net_front_ops vnet_front = {
    .receive = vnet_receive,
    .received = vnet_received,
    .writable = vnet_writable,
    .link = vnet_link,
};

/* --- control queue (§5.1.6.5) --- */

static uint8_t ctrl_rx(struct vnet *n, uint8_t cmd, const uint8_t *p, size_t len)
{
    bool extra = cmd > RX_ALLMULTI;

    if (cmd >= RX_MODES || len != 1 ||
        !(n->v.features & (extra ? F(F_CTRL_RX_EXTRA) : F(F_CTRL_RX)))) {
        return CTRL_ERR;
    }
    n->mode[cmd] = p[0] != 0;
    return CTRL_OK;
}

/* One of the two lists of MAC_TABLE_SET; returns the bytes it took, 0 when it is cut short. */
static size_t mac_list(struct vnet *n, const uint8_t *p, size_t len, uint32_t *count,
                       unsigned from, bool *overflow)
{
    uint32_t entries;

    if (len < 4) {
        return 0;
    }
    memcpy(&entries, p, 4);
    entries = le32toh(entries);
    if (entries > (len - 4) / 6) {
        return 0;
    }
    *overflow = entries > VNET_MAC_TABLE - from;
    *count = *overflow ? 0 : entries;
    memcpy(n->table + 6 * (size_t)from, p + 4, 6 * (size_t)*count);
    return 4 + 6 * (size_t)entries;
}

static uint8_t ctrl_mac(struct vnet *n, uint8_t cmd, const uint8_t *p, size_t len)
{
    size_t took, second = 0;

    if (cmd == 1 && len == 6 && (n->v.features & F(F_CTRL_MAC_ADDR))) {
        memcpy(n->mac, p, 6);
        return CTRL_OK;
    }
    if (cmd != 0 || !(n->v.features & F(F_CTRL_RX))) {
        return CTRL_ERR;
    }
    n->n_uni = n->n_multi = 0;
    took = mac_list(n, p, len, &n->n_uni, 0, &n->uni_overflow);
    if (took > 0) {
        second = mac_list(n, p + took, len - took, &n->n_multi, n->n_uni, &n->multi_overflow);
    }
    if (second == 0 || took + second != len) {
        n->n_uni = n->n_multi = 0;
        n->uni_overflow = n->multi_overflow = false;
        return CTRL_ERR;
    }
    return CTRL_OK;
}

static uint8_t ctrl_vlan(struct vnet *n, uint8_t cmd, const uint8_t *p, size_t len)
{
    unsigned vid = len == 2 ? p[0] | (unsigned)p[1] << 8 : UINT16_MAX;

    if (cmd > 1 || vid > 4095 || !(n->v.features & F(F_CTRL_VLAN))) {
        return CTRL_ERR;
    }
    n->vlans[vid / 64] &= ~(1ull << (vid % 64));
    n->vlans[vid / 64] |= (uint64_t)(cmd == 0) << (vid % 64);
    return CTRL_OK;
}

static uint8_t ctrl_mq(struct vnet *n, uint8_t cmd, const uint8_t *p, size_t len)
{
    unsigned pairs = len == 2 ? p[0] | (unsigned)p[1] << 8 : 0;

    if (cmd != 0 || pairs < 1 || pairs > n->pairs || !(n->v.features & F(F_MQ))) {
        return CTRL_ERR;
    }
    n->active = (uint16_t)pairs;
    return CTRL_OK;
}

static uint8_t ctrl_offloads(struct vnet *n, uint8_t cmd, const uint8_t *p, size_t len)
{
    uint64_t wish;

    if (cmd != 0 || len != 8 || !(n->v.features & F(F_CTRL_GUEST_OFFLOADS))) {
        return CTRL_ERR;
    }
    memcpy(&wish, p, 8);
    wish = le64toh(wish);
    if (wish & ~(n->v.features & GUEST_OFFLOADS)) {
        return CTRL_ERR;
    }
    n->offloads = wish;
    n->offloads_told = false;
    tell_offloads(n);
    return CTRL_OK;
}

static uint8_t control(struct vnet *n, const struct virtio_elem *el)
{
    uint8_t bytes[2 + 2 * 4 + 6 * 512];
    size_t len = virtio_get(el, 0, bytes, sizeof(bytes));

    if (len < 2 || el->out_len > sizeof(bytes)) {
        return CTRL_ERR;
    }
    switch (bytes[0]) {
    case CTRL_RX:
        return ctrl_rx(n, bytes[1], bytes + 2, len - 2);
    case CTRL_MAC:
        return ctrl_mac(n, bytes[1], bytes + 2, len - 2);
    case CTRL_VLAN:
        return ctrl_vlan(n, bytes[1], bytes + 2, len - 2);
    case CTRL_ANNOUNCE:
        if (bytes[1] != 0 || !n->announce) {
            return CTRL_ERR;
        }
        n->announce = false;
        return CTRL_OK;
    case CTRL_MQ:
        return ctrl_mq(n, bytes[1], bytes + 2, len - 2);
    case CTRL_OFFLOADS:
        return ctrl_offloads(n, bytes[1], bytes + 2, len - 2);
    default:
        return CTRL_ERR;
    }
}

static void serve_control(struct vnet *n, unsigned q)
{
    for (unsigned done = 0; done < BUDGET; done++) {
        struct virtio_elem *el = virtq_pop(&n->v, q);
        uint8_t ack;

        if (!el) {
            if (virtq_rearm(&n->v, q)) {
                continue;
            }
            if (done > 0) {
                virtq_signal(&n->v, q);
            }
            return;
        }
        if (el->in_len < 1) {
            virtio_elem_free(el);
            virtio_broken(&n->v, "a control command has no room for its answer");
            return;
        }
        ack = control(n, el);
        if (ack != CTRL_OK) {
            log_trace('v', "%s: a control command is refused", n->v.dev.id);
        }
        virtio_put(el, 0, &ack, 1);
        virtq_push(&n->v, q, el, 1);
    }
    virtq_signal(&n->v, q);
    virtio_ring(&n->v, q);
}

/* --- virtio --- */

static void vnet_serve(struct virtio *v, unsigned q)
{
    struct vnet *n = (struct vnet *)v;

    tell_offloads(n);
    if (q == ctrl_queue(n)) {
        if (v->features & F(F_CTRL_VQ)) {
            serve_control(n, q);
        }
    } else if (q >= 2 * n->pairs) {
        return;
    } else if (q % 2) {
        serve_tx(n, q);
    } else if (n->port) {
        net_recv_ready(n->port);
    }
}

/* struct virtio_net_config (§5.1.4). */
static void vnet_config(struct virtio *v, uint8_t *out)
{
    const struct vnet *n = (const struct vnet *)v;

    memcpy(out, n->mac, 6);
    out[6] = (uint8_t)((carrier(n) ? STATUS_LINK_UP : 0) | (n->announce ? STATUS_ANNOUNCE : 0));
    out[8] = (uint8_t)n->pairs;
    out[10] = (uint8_t)n->mtu;
    out[11] = (uint8_t)(n->mtu >> 8);
    memset(out + 12, 0xff, 5); /* speed and duplex: unknown */
}

static void vnet_drop(struct virtio *v)
{
    struct vnet *n = (struct vnet *)v;

    for (unsigned i = 0; i < MAX_PAIRS; i++) {
        virtio_elem_free(n->tx[i]);
        n->tx[i] = NULL;
    }
    memcpy(n->mac, n->perm_mac, 6);
    memset(n->mode, 0, sizeof(n->mode));
    n->mode[RX_PROMISC] = true; /* until a driver says what it wants */
    n->uni_overflow = n->multi_overflow = n->announce = false;
    n->n_uni = n->n_multi = 0;
    memset(n->vlans, 0, sizeof(n->vlans));
    memset(n->flow, 0, sizeof(n->flow));
    n->active = 1;
    n->offloads = GUEST_OFFLOADS;
    n->offloads_told = false;
}

static const struct virtio_ops vnet_ops = {
    .id = 1,
    .n_queues = 3,
    .queue_max = { QUEUE_SIZE, QUEUE_SIZE, QUEUE_SIZE },
    .config_size = 24,
    .serve = vnet_serve,
    .config = vnet_config,
    .reset = vnet_drop,
};

/* --- for the emulator --- */

bool virtio_net_mac(const char *text, uint8_t mac[6])
{
    unsigned b[6];
    int end = 0;

    if (sscanf(text, "%2x:%2x:%2x:%2x:%2x:%2x%n", &b[0], &b[1], &b[2], &b[3], &b[4], &b[5],
               &end) != 6 ||
        end != 17 || text[end] || (b[0] & 1) || !(b[0] | b[1] | b[2] | b[3] | b[4] | b[5])) {
        return false;
    }
    for (unsigned i = 0; i < 6; i++) {
        mac[i] = (uint8_t)b[i];
    }
    return true;
}

void virtio_net_set_link(struct device *d, bool up)
{
    struct vnet *n = (struct vnet *)d;

    bus_lock(n->v.lock);
    if (n->unplugged == up) {
        n->unplugged = !up;
        virtio_config_changed(&n->v);
    }
    bus_unlock(n->v.lock);
}

void virtio_net_set_port(struct device *d, struct net_port *take_port)
{
    struct vnet *n = (struct vnet *)d;
    struct net_port *was;

    bus_lock(n->v.lock);
    was = n->port;
    n->port = take_port;
    n->offloads_told = false;
    if (take_port) {
        net_attach(take_port, &vnet_front, n);
    }
    tell_offloads(n);
    virtio_config_changed(&n->v);
    bus_unlock(n->v.lock);
    net_close(was);
    vnet_writable(n); /* what waited for the old one goes to the new one */
}

void virtio_net_announce(struct device *d)
{
    struct vnet *n = (struct vnet *)d;

    bus_lock(n->v.lock);
    if (n->v.features & F(F_GUEST_ANNOUNCE)) {
        n->announce = true;
        virtio_config_changed(&n->v);
    }
    bus_unlock(n->v.lock);
}

void virtio_net_view(struct device *d, struct vnet_view *out)
{
    struct vnet *n = (struct vnet *)d;

    bus_lock(n->v.lock);
    *out = (struct vnet_view){ .link = carrier(n),
                               .promisc = n->mode[RX_PROMISC],
                               .allmulti = n->mode[RX_ALLMULTI],
                               .alluni = n->mode[RX_ALLUNI],
                               .nomulti = n->mode[RX_NOMULTI],
                               .nouni = n->mode[RX_NOUNI],
                               .nobcast = n->mode[RX_NOBCAST],
                               .uni_overflow = n->uni_overflow,
                               .multi_overflow = n->multi_overflow,
                               .vlan_filter = n->v.features & F(F_CTRL_VLAN),
                               .n_uni = n->n_uni,
                               .n_multi = n->n_multi,
                               .pairs = n->active,
                               .port = n->port };
    memcpy(out->mac, n->mac, 6);
    memcpy(out->perm_mac, n->perm_mac, 6);
    memcpy(out->table, n->table, sizeof(out->table));
    memcpy(out->vlans, n->vlans, sizeof(out->vlans));
    memcpy(out->pair, n->count, sizeof(out->pair));
    bus_unlock(n->v.lock);
}

/* --- class --- */

static int vnet_realize(struct device *d, struct err *e)
{
    struct vnet *n = (struct vnet *)d;
    uint64_t features = F(F_CSUM) | F(F_GUEST_CSUM) | F(F_CTRL_GUEST_OFFLOADS) | F(F_MAC) |
                        F(F_GUEST_TSO4) | F(F_GUEST_TSO6) | F(F_GUEST_ECN) | F(F_HOST_TSO4) |
                        F(F_HOST_TSO6) | F(F_HOST_ECN) | F(F_MRG_RXBUF) | F(F_STATUS) |
                        F(F_CTRL_VQ) | F(F_CTRL_RX) | F(F_CTRL_VLAN) | F(F_CTRL_RX_EXTRA) |
                        F(F_GUEST_ANNOUNCE) | F(F_CTRL_MAC_ADDR) | F(F_GUEST_USO4) |
                        F(F_GUEST_USO6) | F(F_HOST_USO);

    if (!virtio_net_mac(n->mac_text, n->perm_mac)) {
        return err_set(e, -EINVAL, "%s: '%s' is no MAC address of a card (52:54:00:12:34:56)",
                       d->id, n->mac_text);
    }
    features |= n->mtu ? F(F_MTU) : 0;
    features |= n->pairs > 1 ? F(F_MQ) : 0;
    features |= n->packed ? VIRTIO_F_RING_PACKED : 0;
    virtio_setup(&n->v, &vnet_ops, 2 * (unsigned)n->pairs + 1, features);
    vnet_drop(&n->v);
    if (n->port) {
        net_attach(n->port, &vnet_front, n);
    }
    return 0;
}

/* Before a snapshot: a frame that waits goes back to its ring. */
static bool vnet_quiesce(struct device *d)
{
    struct vnet *n = (struct vnet *)d;

    bus_lock(n->v.lock);
    for (unsigned i = 0; i < MAX_PAIRS; i++) {
        if (n->tx[i]) {
            virtq_unpop(&n->v, 2 * i + 1, n->tx[i]);
            n->tx[i] = NULL;
        }
    }
    bus_unlock(n->v.lock);
    return true;
}

static void vnet_destroy(struct device *d)
{
    struct vnet *n = (struct vnet *)d;

    net_close(n->port);
    for (unsigned i = 0; i < MAX_PAIRS; i++) {
        virtio_elem_free(n->tx[i]);
    }
    virtio_done(&n->v);
}

static int vnet_loaded(void *obj, struct err *e)
{
    struct vnet *n = obj;

    if (n->n_uni > VNET_MAC_TABLE || n->n_multi > VNET_MAC_TABLE - n->n_uni || n->active < 1 ||
        n->active > n->pairs) {
        return err_set(e, -EINVAL, "%s: the state has more addresses or queues than the card",
                       n->v.dev.id);
    }
    n->offloads_told = false;
    return 0;
}

static const struct st_field vnet_fields[] = {
    VIRTIO_ST_FIELD,
    ST_ARRAY(struct vnet, mac, ST_U8, 6, 1, "address that the driver has set"),
    ST_ARRAY(struct vnet, mode, ST_BOOL, RX_MODES, 1,
             "promiscuous, all multicast, all unicast, no multicast, no unicast, no broadcast"),
    ST_FIELD(struct vnet, uni_overflow, ST_BOOL, 1,
             "more unicast addresses than the table holds"),
    ST_FIELD(struct vnet, multi_overflow, ST_BOOL, 1, "more multicast addresses than it holds"),
    ST_FIELD(struct vnet, n_uni, ST_U32, 1, "unicast addresses of the table"),
    ST_FIELD(struct vnet, n_multi, ST_U32, 1, "multicast addresses behind them"),
    ST_ARRAY(struct vnet, table, ST_U8, VNET_MAC_TABLE * 6, 1, "addresses that are let in"),
    ST_ARRAY(struct vnet, vlans, ST_U64, 64, 1, "a bit a VLAN that is let in"),
    ST_FIELD(struct vnet, active, ST_U16, 1, "queue pairs in use"),
    ST_FIELD(struct vnet, offloads, ST_U64, 1,
             "offloads of received frames that are switched on"),
    ST_FIELD(struct vnet, unplugged, ST_BOOL, 1, "the cable was pulled"),
    ST_FIELD(struct vnet, announce, ST_BOOL, 1, "the driver is asked to announce itself"),
    ST_END,
};
static const struct st_table vnet_state = {
    .name = "virtio-net",
    .version = 1,
    .fields = vnet_fields,
    .loaded = vnet_loaded,
};

static const struct dev_prop vnet_props[] = {
    { .name = "port",
      .kind = PROP_PTR,
      .offset = offsetof(struct vnet, port),
      .doc = "port that frames go to and come from; the device closes it" },
    { .name = "mac",
      .kind = PROP_STR,
      .offset = offsetof(struct vnet, mac_text),
      .required = true,
      .doc = "address of the card" },
    { .name = "mtu",
      .kind = PROP_U64,
      .offset = offsetof(struct vnet, mtu),
      .max = 65535,
      .doc = "MTU that the driver is advised to use, 0: none" },
    { .name = "queues",
      .kind = PROP_U64,
      .offset = offsetof(struct vnet, pairs),
      .def = 1,
      .min = 1,
      .max = MAX_PAIRS,
      .doc = "queue pairs" },
    { .name = "packed",
      .kind = PROP_BOOL,
      .offset = offsetof(struct vnet, packed),
      .def = true,
      .doc = "offer packed rings" },
    { .name = NULL },
};

const struct device_class virtio_net_class = {
    .name = "virtio-net",
    .doc = "virtio network card with checksum and segmentation offload, mergeable buffers, "
           "control queue, "
           "several queues",
    .size = sizeof(struct vnet),
    .props = vnet_props,
    .state = &vnet_state,
    .realize = vnet_realize,
    .quiesce = vnet_quiesce,
    .resumed = virtio_resumed,
    .destroy = vnet_destroy,
};
