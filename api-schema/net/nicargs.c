/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Network cards: definition to arguments and defaults. Pure functions, any thread.
 */
#include "api-schema/net/nicargs.h"

#include "engine/base/mem.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define USER_MTU                                                                               \
    1500 /* libslirp ends TCP with a window of 64 KiB: larger segments stall in it */

struct args {
    char **list;
    size_t n;
};

static void add(struct args *a, char *take_text)
{
    a->list = xrealloc_n(a->list, a->n + 2, sizeof(a->list[0]));
    a->list[a->n++] = take_text;
    a->list[a->n] = NULL;
}

/* One argument, so that a value that begins with '-' is none of its own. */
static void add_value(struct args *a, const char *option, const char *value)
{
    if (value) {
        add(a, xasprintf("--%s=%s", option, value));
    }
}

static void add_flag(struct args *a, const char *option, bool on)
{
    if (on) {
        add(a, xasprintf("--%s", option));
    }
}

char **nic_args(const struct api_nic *n)
{
    AUTO_FREE char *mtu = xasprintf("%u", nic_mtu(n) < 576 ? 576 : nic_mtu(n));
    struct args a = { NULL, 0 };

    add_value(&a, "name", n->name);
    if (n->type == API_NIC_TYPE_VHOST_USER) {
        add(&a, xasprintf("--vhost-queues=%d", (int)n->queues));
        add_flag(&a, "vhost-listens", n->server);
        return a.list;
    }
    add_value(&a, "net", n->net);
    add_value(&a, "host", n->host);
    add_value(&a, "dns", n->dns);
    add_value(&a, "dhcp-start", n->dhcp_start);
    add_value(&a, "net6", n->net6);
    add_flag(&a, "no-ipv4", !n->ipv4);
    add_flag(&a, "no-ipv6", !n->ipv6);
    add_flag(&a, "restrict", n->restricted);
    add_value(&a, "hostname", n->hostname);
    add_value(&a, "domain", n->domain);
    for (size_t i = 0; i < n->n_search; i++) {
        add_value(&a, "search", n->search[i]);
    }
    add_value(&a, "tftp", n->tftp);
    add_value(&a, "bootfile", n->bootfile);
    for (size_t i = 0; i < n->n_forward; i++) {
        add_value(&a, "forward", n->forward[i]);
    }
    for (size_t i = 0; i < n->n_guest_forward; i++) {
        add_value(&a, "guest-forward", n->guest_forward[i]);
    }
    add_value(&a, "mtu", mtu);
    return a.list;
}

void nic_args_free(char **args)
{
    for (size_t i = 0; args && args[i]; i++) {
        free(args[i]);
    }
    free(args);
}

unsigned nic_mtu(const struct api_nic *n)
{
    return n->has_mtu ? (unsigned)n->mtu : n->type == API_NIC_TYPE_USER ? USER_MTU : 0;
}

uint32_t nic_mac_made(const struct api_vm_config *c, size_t i)
{
    const char *seed = c->uuid ? c->uuid : c->name;
    uint32_t h = 2166136261u; /* FNV-1a */

    for (; *seed; seed++) {
        h = (h ^ (uint8_t)*seed) * 16777619u;
    }
    h = (h ^ (uint32_t)i) * 16777619u;
    h ^= h >> 15;
    return h & 0xffffff;
}

void nic_mac(const struct api_vm_config *c, size_t i, char out[18])
{
    if (c->nics[i].mac) {
        snprintf(out, 18, "%s", c->nics[i].mac);
    } else {
        uint32_t h = nic_mac_made(c, i);

        snprintf(out, 18, "52:54:00:%02x:%02x:%02x", h & 255, h >> 8 & 255, h >> 16 & 255);
    }
}

static int check_mac(const char *mac, struct err *e)
{
    unsigned b[6];
    int end = 0;

    if (sscanf(mac, "%2x:%2x:%2x:%2x:%2x:%2x%n", &b[0], &b[1], &b[2], &b[3], &b[4], &b[5],
               &end) != 6 ||
        end != 17 || mac[end] || (b[0] & 1) || !(b[0] | b[1] | b[2] | b[3] | b[4] | b[5])) {
        return err_set(e, -EINVAL, "mac: '%s' is no address of a card; write 52:54:00:12:34:56",
                       mac);
    }
    return 0;
}

/* As the kernel has them; '%' would make it choose a number. */
static bool ifname_ok(const char *s)
{
    size_t n = strlen(s);

    return n > 0 && n < 16 && strcspn(s, "/:% \t\n\r\v\f") == n && strcmp(s, ".") != 0 &&
           strcmp(s, "..") != 0;
}

struct tap_wish nic_tap(const struct api_nic *n)
{
    return (struct tap_wish){ .ifname = n->ifname,
                              .bridge = n->bridge,
                              .mtu = n->has_mtu ? (unsigned)n->mtu : 0,
                              .vlan = n->has_vlan ? (unsigned)n->vlan : 0,
                              .queues = (unsigned)n->queues };
}

int nic_check(const struct api_nic *n, struct err *e)
{
    bool user = n->type == API_NIC_TYPE_USER;
    bool vhost = n->type == API_NIC_TYPE_VHOST_USER;
    bool socket = n->type == API_NIC_TYPE_STREAM || n->type == API_NIC_TYPE_DGRAM || vhost;
    bool bridge = n->type == API_NIC_TYPE_BRIDGE, network = n->type == API_NIC_TYPE_NETWORK;
    const struct {
        const char *name;
        bool set;
    } only_user[] = { { "net", n->net },
                      { "host", n->host },
                      { "dns", n->dns },
                      { "dhcp_start", n->dhcp_start },
                      { "net6", n->net6 },
                      { "ipv4", !n->ipv4 },
                      { "ipv6", !n->ipv6 },
                      { "restricted", n->restricted },
                      { "hostname", n->hostname },
                      { "domain", n->domain },
                      { "search", n->n_search > 0 },
                      { "tftp", n->tftp },
                      { "bootfile", n->bootfile },
                      { "forward", n->n_forward > 0 },
                      { "guest_forward", n->n_guest_forward > 0 } };

    for (size_t i = 0; i < ARRAY_LEN(only_user) && !user; i++) {
        if (only_user[i].set) {
            return err_set(e, -EINVAL, "%s: only a card of type user has it",
                           only_user[i].name);
        }
    }
    if (socket != (n->path != NULL)) {
        return err_set(e, -EINVAL,
                       socket ? "path: name the socket"
                              : "path: only stream, dgram and vhost-user have it");
    }
    if (n->server && !vhost) {
        return err_set(e, -EINVAL, "server: only a card of type vhost-user has it");
    }
    if (n->ifname && !bridge && n->type != API_NIC_TYPE_TAP) {
        return err_set(e, -EINVAL, "ifname: only tap and bridge have it");
    }
    if (bridge != (n->bridge != NULL)) {
        return err_set(e, -EINVAL,
                       bridge ? "bridge: name the bridge"
                              : "bridge: only a card of that type has it");
    }
    if (network != (n->network != NULL)) {
        return err_set(e, -EINVAL,
                       network ? "network: name the network"
                               : "network: only a card of that type has it");
    }
    if (!network && (n->portgroup || n->has_trunk || n->inbound || n->outbound || n->filter)) {
        return err_set(e, -EINVAL,
                       "portgroup, trunk, inbound, outbound and filter: only a card of type "
                       "network has them");
    }
    if (n->has_vlan && !bridge && !network) {
        return err_set(e, -EINVAL, "vlan: only a card in a bridge or network has it");
    }
    if ((n->ifname && !ifname_ok(n->ifname)) || (n->bridge && !ifname_ok(n->bridge))) {
        return err_set(e, -EINVAL, "%s: '%s' is no name of an interface",
                       n->ifname && !ifname_ok(n->ifname) ? "ifname" : "bridge",
                       n->ifname && !ifname_ok(n->ifname) ? n->ifname : n->bridge);
    }
    if (n->rom && n->bus != API_NIC_BUS_VIRTIO_PCI) {
        return err_set(e, -EINVAL, "rom: only a card on the bus virtio-pci has one");
    }
    if (user && n->has_mtu && n->mtu > 65521) {
        return err_set(e, -EINVAL, "mtu: at most 65521 for a card of type user");
    }
    return n->mac ? check_mac(n->mac, e) : 0;
}
