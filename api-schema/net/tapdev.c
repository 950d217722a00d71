/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Opens tap interfaces and puts them into bridges, by ioctl and by rtnetlink messages. Owns nothing.
 */
#include "api-schema/net/tapdev.h"

#include "engine/base/fd.h"
#include "engine/base/mem.h"
#include "engine/base/str.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/ethtool.h>
#include <linux/if_bridge.h>
#include <linux/if_tun.h>
#include <linux/rtnetlink.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define VHDR 12

/* --- rtnetlink --- */

struct request {
    struct nlmsghdr head;
    struct ifinfomsg info;
    uint8_t attributes[128];
};

/* Room for it is the caller's concern: there is enough for all that is asked here. */
static struct rtattr *add(struct request *r, unsigned short type, const void *data, size_t n)
{
    struct rtattr *a = (struct rtattr *)(void *)((uint8_t *)r + NLMSG_ALIGN(r->head.nlmsg_len));

    a->rta_type = type;
    a->rta_len = (unsigned short)RTA_LENGTH(n);
    if (n > 0) {
        memcpy(RTA_DATA(a), data, n);
    }
    r->head.nlmsg_len = (uint32_t)(NLMSG_ALIGN(r->head.nlmsg_len) + RTA_ALIGN(a->rta_len));
    return a;
}

/* Sends the request; what the kernel answers. */
static int ask(struct request *r)
{
    AUTO_FD fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
    union {
        struct nlmsghdr head;
        uint8_t bytes[1024];
    } answer;
    struct nlmsgerr status;
    ssize_t n;

    r->head.nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK;
    if (fd < 0 || send(fd, r, r->head.nlmsg_len, 0) < 0) {
        return -errno;
    }
    do {
        n = recv(fd, &answer, sizeof(answer), 0);
    } while (n < 0 && errno == EINTR);
    if (n < (ssize_t)NLMSG_LENGTH(sizeof(status)) || answer.head.nlmsg_type != NLMSG_ERROR) {
        return n < 0 ? -errno : -EPROTO;
    }
    memcpy(&status, NLMSG_DATA(&answer.head), sizeof(status));
    return status.error;
}

static struct request link_request(unsigned short type, unsigned index)
{
    return (struct request){ .head = { .nlmsg_len = NLMSG_LENGTH(sizeof(struct ifinfomsg)),
                                       .nlmsg_type = type },
                             .info = { .ifi_index = (int)index } };
}

static int set_link(unsigned index, unsigned master, unsigned mtu)
{
    struct request r = link_request(RTM_NEWLINK, index);
    uint32_t word = master;

    r.info.ifi_family = AF_UNSPEC;
    r.info.ifi_flags = r.info.ifi_change = IFF_UP;
    if (master) {
        add(&r, IFLA_MASTER, &word, sizeof(word));
    }
    word = mtu;
    if (mtu) {
        add(&r, IFLA_MTU, &word, sizeof(word));
    }
    return ask(&r);
}

/* The port's VLAN on a bridge that filters, instead of the one it has by default. */
static int set_vlan(unsigned index, unsigned vlan)
{
    struct bridge_vlan_info info = { .flags = BRIDGE_VLAN_INFO_PVID | BRIDGE_VLAN_INFO_UNTAGGED,
                                     .vid = (uint16_t)vlan };
    struct request r = link_request(RTM_SETLINK, index);
    struct rtattr *spec;
    int rc;

    r.info.ifi_family = AF_BRIDGE;
    spec = add(&r, IFLA_AF_SPEC, NULL, 0);
    add(&r, IFLA_BRIDGE_VLAN_INFO, &info, sizeof(info));
    spec->rta_len = (unsigned short)((uint8_t *)&r + r.head.nlmsg_len -
                                     (uint8_t *)(void *)spec);
    rc = ask(&r);
    if (rc == 0 && vlan != 1) {
        struct bridge_vlan_info first = { .vid = 1 };

        r = link_request(RTM_DELLINK, index);
        r.info.ifi_family = AF_BRIDGE;
        spec = add(&r, IFLA_AF_SPEC, NULL, 0);
        add(&r, IFLA_BRIDGE_VLAN_INFO, &first, sizeof(first));
        spec->rta_len = (unsigned short)((uint8_t *)&r + r.head.nlmsg_len -
                                         (uint8_t *)(void *)spec);
        (void)ask(&r); /* it need not have been a member */
    }
    return rc;
}

/* --- the interface --- */

static int no_bridge(const struct tap_wish *w, struct err *e)
{
    return err_set(
        e, -ENODEV,
        "there is no bridge '%s' on this host; 'ip link add %s type bridge' makes one",
        w->bridge, w->bridge);
}

static int place(const struct tap_wish *w, const char *ifname, struct err *e)
{
    unsigned index = if_nametoindex(ifname), master = w->bridge ? if_nametoindex(w->bridge) : 0;
    int rc;

    if (w->bridge && !master) {
        return no_bridge(w, e);
    }
    rc = set_link(index, master, w->mtu);
    if (rc == -EPERM && !w->bridge) {
        return 0; /* one that was made for this user: who made it has placed it */
    }
    if (rc != 0) {
        return err_errno(e, -rc, "cannot put tap interface '%s' up%s%s", ifname,
                         w->bridge ? " and into bridge " : "", w->bridge ? w->bridge : "");
    }
    rc = w->vlan ? set_vlan(index, w->vlan) : 0;
    return rc == 0 ? 0
                   : err_errno(e, -rc, "cannot put '%s' into VLAN %u of bridge '%s'", ifname,
                               w->vlan, w->bridge ? w->bridge : "");
}

/* Another process has it: an interface without an open queue has no carrier. One that is down cannot be told. (The flag
 * IFF_RUNNING follows the carrier up to a second later.) */
static bool in_use(const struct ifreq *r)
{
    AUTO_FD fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct ethtool_value link = { .cmd = ETHTOOL_GLINK };
    struct ifreq query = { .ifr_data = (void *)&link };

    memcpy(query.ifr_name, r->ifr_name, sizeof(query.ifr_name));
    return fd >= 0 && ioctl(fd, SIOCETHTOOL, &query) == 0 && link.data;
}

/* How an interface was made is how it is opened, or not at all: so both ways are tried, the wished one first. */
static int attach(int fd, struct ifreq *r, bool *multi)
{
    char name[IFNAMSIZ];
    int rc = -EINVAL;

    memcpy(name, r->ifr_name, sizeof(name));
    for (int i = 0; i < 2 && rc == -EINVAL; i++) {
        *multi = i == 0 ? *multi : !*multi;
        memcpy(r->ifr_name, name, sizeof(name));
        if (*multi && in_use(r)) {
            return -EBUSY; /* the kernel would let us have a part of its frames */
        }
        r->ifr_flags = (short)(IFF_TAP | IFF_NO_PI | IFF_VNET_HDR |
                               (*multi ? IFF_MULTI_QUEUE : 0));
        rc = ioctl(fd, TUNSETIFF, r) == 0 ? 0 : -errno;
    }
    return rc;
}

static int open_tun(struct err *e)
{
    int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK);

    return fd >= 0 ? fd : err_errno(e, errno, "cannot open '/dev/net/tun' for a tap interface");
}

/* The first queue, which tells the interface's name and whether it can have more. */
static int open_first(const struct tap_wish *w, struct ifreq *r, bool *multi, struct err *e)
{
    AUTO_FD fd = open_tun(e);
    int size = VHDR, rc;

    if (fd < 0) {
        return fd;
    }
    if (w->bridge && !if_nametoindex(w->bridge)) {
        return no_bridge(w, e);
    }
    str_copy(r->ifr_name, sizeof(r->ifr_name), w->ifname ? w->ifname : "vmd%d");
    rc = attach(fd, r, multi);
    if (rc == -EPERM) {
        return err_errno(
            e, EPERM,
            "user %ld may not use tap interface '%s'; 'ip tuntap add dev %s mode tap "
            "user %ld' makes one for it",
            (long)getuid(), w->ifname ? w->ifname : "(a new one)",
            w->ifname ? w->ifname : "NAME", (long)getuid());
    }
    if (rc == -EBUSY) {
        return err_errno(e, EBUSY, "tap interface '%s' is in use by another process",
                         w->ifname);
    }
    if (rc != 0) {
        return err_errno(e, -rc, "cannot open tap interface '%s'", w->ifname ? w->ifname : "");
    }
    if (ioctl(fd, TUNSETVNETHDRSZ, &size) < 0 ||
        ioctl(fd, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN) < 0) {
        return err_errno(e, errno, "tap interface '%s' has no offloads", r->ifr_name);
    }
    return take_fd(&fd);
}

static int open_next(struct ifreq *r, struct err *e)
{
    AUTO_FD fd = open_tun(e);

    if (fd < 0) {
        return fd;
    }
    r->ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | IFF_MULTI_QUEUE;
    if (ioctl(fd, TUNSETIFF, r) < 0) {
        return err_errno(e, errno, "cannot open another queue of tap interface '%s'",
                         r->ifr_name);
    }
    return take_fd(&fd);
}

int tap_open(const struct tap_wish *w, int fds[TAP_MAX_QUEUES], struct err *e)
{
    struct ifreq r = { 0 };
    unsigned n = 0, want = w->queues < TAP_MAX_QUEUES ? w->queues : TAP_MAX_QUEUES;
    bool multi = want > 1;
    int fd = open_first(w, &r, &multi, e), rc = fd;

    if (fd >= 0) {
        fds[n++] = fd;
        rc = place(w, r.ifr_name, e);
    }
    while (rc >= 0 && multi && n < want) {
        rc = open_next(&r, e);
        if (rc >= 0) {
            fds[n++] = rc;
        }
    }
    while (rc < 0 && n > 0) {
        fd_autoclose(&fds[--n]);
    }
    return rc < 0 ? rc : (int)n;
}
