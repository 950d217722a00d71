/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The conversation of a vhost-user front end (vhost_talk.h). Owns nothing; any thread, which waits.
 */
#include "network/vhost_talk.h"

#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

enum request {
    GET_FEATURES = 1,
    SET_FEATURES = 2,
    SET_OWNER = 3,
    SET_MEM_TABLE = 5,
    SET_VRING_NUM = 8,
    SET_VRING_ADDR = 9,
    SET_VRING_BASE = 10,
    SET_VRING_KICK = 12,
    SET_VRING_CALL = 13,
    GET_PROTOCOL_FEATURES = 15,
    SET_PROTOCOL_FEATURES = 16,
    GET_QUEUE_NUM = 17,
    SET_VRING_ENABLE = 18
};
enum { PROTOCOL = 1, PROTOCOL_MASK = 3, FLAG_REPLY = 4, FLAG_NEED_REPLY = 8 };
#define P_MQ (1ull << 0)
#define P_REPLY_ACK (1ull << 3)
#define PAYLOAD_MAX 256

struct message {
    uint32_t request, flags, size;
    uint8_t payload[PAYLOAD_MAX];
} __attribute__((packed));
#define HEADER 12

struct talk {
    struct vhost_plan *plan;
    int64_t end_ns;
    bool acks;
};

/* --- a message --- */

static int64_t now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

/* Waits for the socket; false: too late. */
static bool ready(const struct talk *t, short events)
{
    for (;;) {
        int64_t left = (t->end_ns - now_ns()) / 1000000;
        struct pollfd p = { .fd = t->plan->sock, .events = events };
        int rc = left > 0 ? poll(&p, 1, (int)left) : 0;

        if (rc > 0) {
            return true;
        }
        if (rc == 0 || errno != EINTR) {
            return false;
        }
    }
}

static int late(const struct talk *t, struct err *e)
{
    return err_set(e, -ETIMEDOUT, "%s: its vhost-user back end does not answer", t->plan->name);
}

static int left_us(const struct talk *t, struct err *e)
{
    return err_set(e, -EPIPE,
                   "%s: its vhost-user back end has ended or hung up before it served; its own "
                   "messages are in the VM's "
                   "emu.log",
                   t->plan->name);
}

static int put(struct talk *t, uint32_t request, uint32_t flags, const void *payload,
               uint32_t size, int fd, struct err *e)
{
    struct message m = { .request = request, .flags = PROTOCOL | flags, .size = size };
    struct iovec iov = { .iov_base = &m, .iov_len = HEADER + size };
    union {
        char room[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control = { .room = { 0 } };
    struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };

    if (size > 0) {
        memcpy(m.payload, payload, size);
    }
    if (fd >= 0) {
        struct cmsghdr *c;

        msg.msg_control = control.room;
        msg.msg_controllen = sizeof(control.room);
        c = CMSG_FIRSTHDR(&msg);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(c), &fd, sizeof(int));
    }
    for (;;) {
        ssize_t n = sendmsg(t->plan->sock, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);

        if (n == (ssize_t)iov.iov_len) {
            return 0;
        }
        if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
            if (!ready(t, POLLOUT)) {
                return late(t, e);
            }
            continue;
        }
        return left_us(t, e);
    }
}

static int get_bytes(struct talk *t, void *p, size_t n, struct err *e)
{
    uint8_t *at = p;

    while (n > 0) {
        ssize_t got;

        if (!ready(t, POLLIN)) {
            return late(t, e);
        }
        got = recv(t->plan->sock, at, n, MSG_DONTWAIT);
        if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR)) {
            return left_us(t, e);
        }
        at += got > 0 ? got : 0;
        n -= got > 0 ? (size_t)got : 0;
    }
    return 0;
}

/* The reply to a request, a number. */
static int get_u64(struct talk *t, uint32_t request, uint64_t *out, struct err *e)
{
    struct message m;
    int rc = get_bytes(t, &m, HEADER, e);

    if (rc == 0 && (m.request != request || m.size != sizeof(*out) ||
                    (m.flags & PROTOCOL_MASK) != PROTOCOL || !(m.flags & FLAG_REPLY))) {
        return err_set(
            e, -EPROTO,
            "%s: its back end does not speak vhost-user: a reply of %u bytes to request %u "
            "where one of 8 to %u was due",
            t->plan->name, m.size, m.request, request);
    }
    return rc == 0 ? get_bytes(t, out, sizeof(*out), e) : rc;
}

static int ask(struct talk *t, uint32_t request, uint64_t *out, struct err *e)
{
    int rc = put(t, request, 0, NULL, 0, -1, e);

    return rc == 0 ? get_u64(t, request, out, e) : rc;
}

/* Where the back end can say so, waits until it has done it. */
static int tell(struct talk *t, uint32_t request, const void *payload, uint32_t size, int fd,
                struct err *e)
{
    uint64_t failed = 0;
    int rc = put(t, request, t->acks ? FLAG_NEED_REPLY : 0, payload, size, fd, e);

    if (rc == 0 && t->acks) {
        rc = get_u64(t, request, &failed, e);
    }
    return rc == 0 && failed
               ? err_set(e, -EIO, "%s: its back end refuses request %u of vhost-user",
                         t->plan->name, request)
               : rc;
}

static int tell_u64(struct talk *t, uint32_t request, uint64_t value, int fd, struct err *e)
{
    return tell(t, request, &value, sizeof(value), fd, e);
}

static int tell_vring(struct talk *t, uint32_t request, unsigned q, uint32_t num, struct err *e)
{
    const uint32_t payload[2] = { q, num };

    return tell(t, request, payload, sizeof(payload), -1, e);
}

/* --- in order --- */

/* As many rings as the plan has and the back end serves. */
static int agree_rings(struct talk *t, bool several, struct err *e)
{
    struct vhost_plan *p = t->plan;
    uint64_t queues = 0;
    int rc;

    if (!several) {
        p->n_rings = p->least_rings;
        return 0;
    }
    rc = ask(t, GET_QUEUE_NUM, &queues, e);
    if (rc != 0) {
        return rc;
    }
    if (queues < p->least_rings / p->unit) {
        return err_set(e, -ENOTSUP, "%s: its back end has %llu queues, needed are %u", p->name,
                       (unsigned long long)queues, p->least_rings / p->unit);
    }
    if (queues < p->n_rings / p->unit) {
        p->n_rings = (unsigned)queues * p->unit;
    }
    return 0;
}

static int agree(struct talk *t, struct err *e)
{
    struct vhost_plan *p = t->plan;
    uint64_t features = 0, protocol = 0, need = p->need | VHOST_F_VERSION_1 | VHOST_F_PROTOCOL;
    int rc = put(t, SET_OWNER, 0, NULL, 0, -1, e);

    rc = rc == 0 ? ask(t, GET_FEATURES, &features, e) : rc;
    if (rc == 0 && (need & ~features)) {
        return err_set(e, -ENOTSUP,
                       "%s: its back end lacks features: it has 0x%llx, needed are 0x%llx",
                       p->name, (unsigned long long)features, (unsigned long long)need);
    }
    p->features = need | (p->wish & features);
    rc = rc == 0 ? ask(t, GET_PROTOCOL_FEATURES, &protocol, e) : rc;
    protocol &= P_MQ | P_REPLY_ACK;
    rc = rc == 0 ? tell_u64(t, SET_PROTOCOL_FEATURES, protocol, -1, e) : rc;
    t->acks = rc == 0 && (protocol & P_REPLY_ACK);
    rc = rc == 0 ? agree_rings(t, protocol & P_MQ, e) : rc;
    return rc == 0 ? tell_u64(t, SET_FEATURES, p->features, -1, e) : rc;
}

static int show_window(struct talk *t, struct err *e)
{
    const struct {
        uint32_t n, zero;
        uint64_t gpa, size, user, offset;
    } table = { .n = 1, .gpa = VHOST_GPA, .size = t->plan->window_size, .user = VHOST_GPA };

    return tell(t, SET_MEM_TABLE, &table, sizeof(table), t->plan->window_fd, e);
}

static int start_ring(struct talk *t, unsigned i, struct err *e)
{
    const struct vhost_plan_ring *r = &t->plan->ring[i];
    const struct {
        uint32_t index, flags;
        uint64_t desc, used, avail, log;
    } at = { .index = i,
             .desc = VHOST_GPA + r->desc_at,
             .used = VHOST_GPA + r->used_at,
             .avail = VHOST_GPA + r->avail_at };
    int rc = tell_vring(t, SET_VRING_NUM, i, r->size, e);

    rc = rc == 0 ? tell_vring(t, SET_VRING_BASE, i, 0, e) : rc;
    rc = rc == 0 ? tell(t, SET_VRING_ADDR, &at, sizeof(at), -1, e) : rc;
    rc = rc == 0 ? tell_u64(t, SET_VRING_CALL, i, r->call, e) : rc;
    rc = rc == 0 ? tell_u64(t, SET_VRING_KICK, i, r->kick, e) : rc;
    return rc == 0 ? tell_vring(t, SET_VRING_ENABLE, i, 1, e) : rc;
}

int vhost_talk(struct vhost_plan *p, int64_t patience_ns, struct err *e)
{
    struct talk t = { .plan = p, .end_ns = now_ns() + patience_ns };
    int rc = agree(&t, e);

    rc = rc == 0 ? show_window(&t, e) : rc;
    for (unsigned i = 0; i < p->n_rings && rc == 0; i++) {
        rc = start_ring(&t, i, e);
    }
    return rc;
}
