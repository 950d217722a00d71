/* SPDX-License-Identifier: Apache-2.0 */
/* Definitions of networks: whether vmd can make them, and what their processes are told. Pure functions, any thread. */
#include "api-schema/json/json.h"
#include "daemon/network/networks.h"
#include "engine/base/mem.h"
#include "engine/base/str.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#define CONFIG_MAX 100000 /* bytes that a process is told: one argument of it */

static bool ip4(const char *text, uint32_t *out)
{
    struct in_addr a;

    if (!text || inet_pton(AF_INET, text, &a) != 1) {
        return false;
    }
    *out = ntohl(a.s_addr);
    return true;
}

static char *dotted(uint32_t ip)
{
    return xasprintf("%u.%u.%u.%u", ip >> 24, ip >> 16 & 255, ip >> 8 & 255, ip & 255);
}

static bool is_v6(const struct api_net_ip *ip)
{
    return (ip->family && strcmp(ip->family, "ipv6") == 0) || strchr(ip->address, ':');
}

const struct api_net_ip *network_ip(const struct api_net_config *c, bool v6)
{
    for (size_t i = 0; i < c->n_ips; i++) {
        if (is_v6(&c->ips[i]) == v6) {
            return &c->ips[i];
        }
    }
    return NULL;
}

static uint32_t mask_of(int64_t prefix)
{
    return prefix > 0 && prefix <= 32 ? UINT32_MAX << (32 - prefix) : 0;
}

static int bad(struct api_error *x, const char *member, const char *remedy, const char *fmt,
               const char *what)
{
    char text[256];

    snprintf(text, sizeof(text), fmt, what ? what : "");
    return api_error_set(x, API_E_INVALID_PARAMS, member, remedy, "%s", text);
}

/* "10.20.0.0/24" */
static int from_subnet(struct api_net_config *c, const char *subnet, struct api_error *x)
{
    const char *slash = strchr(subnet, '/');
    char address[46];
    uint64_t prefix = 0;
    uint32_t net, mask;
    struct api_net_ip *ip;

    if (c->n_ips) {
        return bad(x, "subnet", "give the one or the other", "%s",
                   "a network has addresses, or a subnet that stands for them");
    }
    if (!slash || (size_t)(slash - subnet) >= sizeof(address) ||
        str_to_u64(slash + 1, 8, 29, "prefix", &prefix, NULL) < 0) {
        return bad(x, "subnet", "write 10.20.0.0/24, with a prefix of 8 to 29",
                   "'%s' is no subnet", subnet);
    }
    str_copy(address, (size_t)(slash - subnet) + 1, subnet);
    if (!ip4(address, &net)) {
        return bad(x, "subnet", "write 10.20.0.0/24", "'%s' is no subnet", subnet);
    }
    mask = mask_of((int64_t)prefix);
    net &= mask;
    c->ips = xnew_n(struct api_net_ip, 1);
    c->n_ips = 1;
    ip = &c->ips[0];
    ip->address = dotted(net + 1);
    ip->prefix = (int64_t)prefix;
    ip->has_prefix = true;
    ip->dhcp = xnew_n(struct api_net_range, 1);
    ip->n_dhcp = 1;
    ip->dhcp[0].start = dotted(net + 2);
    /* The last two may be a NAT's own. */
    ip->dhcp[0].end = dotted((net | ~mask) - (c->forward == API_NET_FORWARD_NAT ? 3 : 1));
    return 0;
}

/* The prefix may stand behind the address, or be a mask. */
static int set_prefix(struct api_net_ip *ip, struct api_error *x)
{
    char *slash = strchr(ip->address, '/');
    uint64_t n = 0;
    uint32_t mask;

    if (slash) {
        if (str_to_u64(slash + 1, 1, 128, "prefix", &n, NULL) < 0) {
            return bad(x, "config.ips", "write 10.20.0.1/24", "'%s' has no prefix",
                       ip->address);
        }
        *slash = 0;
        ip->prefix = (int64_t)n;
        ip->has_prefix = true;
    }
    if (ip->netmask && !ip->has_prefix && ip4(ip->netmask, &mask)) {
        ip->prefix = __builtin_popcount(mask);
        ip->has_prefix = mask == mask_of(ip->prefix);
        free(take_ptr(ip->netmask)); /* libvirt's XML has the one or the other */
    }
    if (!ip->has_prefix) {
        return bad(x, "config.ips", "give 'prefix' or 'netmask'",
                   "the address '%s' has no prefix", ip->address);
    }
    return 0;
}

static bool inside(const char *text, uint32_t net, uint32_t mask, uint32_t *out)
{
    return ip4(text, out) && (*out & mask) == net && *out != net && *out != (net | ~mask);
}

static int check_hosts(const struct api_net_ip *ip, uint32_t net, uint32_t mask,
                       struct api_error *x)
{
    uint32_t at;

    for (size_t i = 0; i < ip->n_hosts; i++) {
        const struct api_net_host *h = &ip->hosts[i];
        unsigned b[6];
        int end = 0;

        if (h->id) {
            return api_error_set(x, API_E_UNSUPPORTED, "config.ips.hosts", "name it by its mac",
                                 "DHCPv6 is not supported");
        }
        if (!h->mac ||
            sscanf(h->mac, "%2x:%2x:%2x:%2x:%2x:%2x%n", &b[0], &b[1], &b[2], &b[3], &b[4],
                   &b[5], &end) != 6 ||
            h->mac[end]) {
            return bad(x, "config.ips.hosts", "write mac=52:54:00:12:34:56",
                       "'%s' is no address of a card", h->mac);
        }
        if (h->ip && !inside(h->ip, net, mask, &at)) {
            return bad(x, "config.ips.hosts", "give it one of the network",
                       "the address '%s' is not one of the network's hosts", h->ip);
        }
        for (size_t k = 0; k < i; k++) {
            if ((h->ip && ip->hosts[k].ip && strcmp(h->ip, ip->hosts[k].ip) == 0) ||
                strcasecmp(h->mac, ip->hosts[k].mac) == 0) {
                return bad(x, "config.ips.hosts", "leave one of them out",
                           "'%s' has two reservations", h->ip ? h->ip : h->mac);
            }
        }
    }
    return 0;
}

static int check_v4(struct api_net_ip *ip, struct api_error *x)
{
    uint32_t gateway, first, last, net, mask = mask_of(ip->prefix);

    if (ip->prefix < 8 || ip->prefix > 29 || !ip4(ip->address, &gateway) ||
        !inside(ip->address, gateway & mask, mask, &gateway)) {
        return bad(x, "config.ips", "write 10.20.0.1/24, with a prefix of 8 to 29",
                   "'%s' is no address of a gateway in its network", ip->address);
    }
    net = gateway & mask;
    if (ip->n_dhcp > 1) {
        return api_error_set(x, API_E_UNSUPPORTED, "config.ips.dhcp", "make one range of them",
                             "more than one range of DHCP is not supported");
    }
    if (ip->n_dhcp == 1 && (!inside(ip->dhcp[0].start, net, mask, &first) ||
                            !inside(ip->dhcp[0].end, net, mask, &last) || first > last)) {
        return bad(x, "config.ips.dhcp", "give a first and a last address of the network",
                   "the range from '%s' is not one of the network's", ip->dhcp[0].start);
    }
    return check_hosts(ip, net, mask, x);
}

static int check_v6(const struct api_net_ip *ip, struct api_error *x)
{
    struct in6_addr a;

    if (inet_pton(AF_INET6, ip->address, &a) != 1 || ip->prefix != 64) {
        return bad(x, "config.ips", "write fd00:20::1/64",
                   "'%s' is no address of an IPv6 gateway with a prefix of 64", ip->address);
    }
    return ip->n_dhcp || ip->n_hosts || ip->tftp || ip->bootfile
               ? api_error_set(x, API_E_UNSUPPORTED, "config.ips",
                               "leave it out: guests choose their addresses by the router's "
                               "advertisement",
                               "DHCPv6 is not supported")
               : 0;
}

static int check_ips(struct api_net_config *c, struct api_error *x)
{
    unsigned seen[2] = { 0, 0 };

    for (size_t i = 0; i < c->n_ips; i++) {
        struct api_net_ip *ip = &c->ips[i];
        bool v6 = is_v6(ip);

        if (set_prefix(ip, x) < 0) {
            return -1;
        }
        if (seen[v6]++) {
            return api_error_set(x, API_E_UNSUPPORTED, "config.ips", "make two networks",
                                 "a network has one IPv4 and one IPv6 address");
        }
        if ((v6 ? check_v6(ip, x) : check_v4(ip, x)) < 0) {
            return -1;
        }
    }
    if (seen[1] && !seen[0]) {
        return api_error_set(x, API_E_UNSUPPORTED, "config.ips", "give it an IPv4 address, too",
                             "a network with IPv6 alone is not supported");
    }
    return 0;
}

static int check_groups(const struct api_net_config *c, struct api_error *x)
{
    unsigned defaults = 0;

    for (size_t i = 0; i < c->n_portgroups; i++) {
        defaults += c->portgroups[i].has_is_default && c->portgroups[i].is_default;
        for (size_t k = 0; k < i; k++) {
            if (strcmp(c->portgroups[i].name, c->portgroups[k].name) == 0) {
                return bad(x, "config.portgroups", "give each a name of its own",
                           "two port groups are named '%s'", c->portgroups[i].name);
            }
        }
    }
    return defaults > 1 ? bad(x, "config.portgroups", "one at most is the default", "%s",
                              "several port groups are the default one")
                        : 0;
}

/* What a process of our own has no use for. */
static int check_rest(const struct api_net_config *c, struct api_error *x)
{
    bool bridge = c->forward == API_NET_FORWARD_BRIDGE;
    const struct {
        bool set;
        const char *member, *text;
    } not [] = {
        { c->forward == API_NET_FORWARD_ROUTE || c->forward == API_NET_FORWARD_OPEN, "forward",
          "routed networks are not supported; use nat, bridge or none" },
        { c->forward_dev, "forward_dev", "the way of NAT is the host's choice" },
        { bridge && !c->bridge, "bridge", "a network of the mode bridge names the bridge" },
        { bridge && c->n_ips, "ips", "addresses of a host's bridge are not vmd's" },
        { c->has_stp && c->stp && bridge, "stp", "a host's bridge is not set up by vmd" },
        { c->has_delay && c->delay && bridge, "delay", "a host's bridge is not set up by vmd" },
        { c->mac && c->forward == API_NET_FORWARD_NAT, "mac",
          "the gateway of a NAT has an address of its own" },
        { c->n_forwarders, "forwarders", "names are asked of the host's own servers" },
        { c->domain && strlen(c->domain) > 200, "domain", "the name is too long" },
    };

    if (!str_is_name(c->name) || strlen(c->name) > 63) {
        return bad(x, "config.name", "a letter or digit, then letters, digits and . _ + -",
                   "'%s' is no name of a network", c->name);
    }
    for (size_t i = 0; i < ARRAY_LEN(not ); i++) {
        if (not [i].set) {
            AUTO_FREE char *member = xasprintf("config.%s", not [i].member);

            return api_error_set(x, API_E_UNSUPPORTED, member, "change or leave it out",
                                 "network '%s': %s", c->name, not [i].text);
        }
    }
    if (c->forward == API_NET_FORWARD_NAT && !network_ip(c, false)) {
        return bad(x, "config.ips", "give it a subnet: --subnet 10.20.0.0/24",
                   "network '%s' leads behind the host's address, and has none of its own",
                   c->name);
    }
    return 0;
}

int network_check(struct api_net_config *c, const char *subnet, struct api_error *x)
{
    if (subnet && from_subnet(c, subnet, x) < 0) {
        return -1;
    }
    if (check_rest(c, x) < 0 || check_ips(c, x) < 0 || check_groups(c, x) < 0) {
        return -1;
    }
    AUTO_JSON hosts = network_hosts(c);
    if (strlen(api_json_text(hosts)) > CONFIG_MAX) {
        return api_error_set(x, API_E_HOST_LIMIT, "config.ips.hosts", "leave some out",
                             "network '%s' has too many reservations and names", c->name);
    }
    return 0;
}

static void add_host(struct json_object *list, const char *mac, const char *ip,
                     const char *name)
{
    struct json_object *o = json_object_new_object();

    if (mac) {
        api_json_set_str(o, "mac", mac);
    }
    if (ip) {
        api_json_set_str(o, "ip", ip);
    }
    if (name) {
        api_json_set_str(o, "name", name);
    }
    json_object_array_add(list, o);
}

struct json_object *network_hosts(const struct api_net_config *c)
{
    const struct api_net_ip *ip = network_ip(c, false);
    struct json_object *list = json_object_new_array();

    for (size_t i = 0; ip && i < ip->n_hosts; i++) {
        add_host(list, ip->hosts[i].mac, ip->hosts[i].ip, ip->hosts[i].name);
    }
    for (size_t i = 0; i < c->n_dns_hosts; i++) {
        for (size_t k = 0; k < c->dns_hosts[i].n_names; k++) {
            add_host(list, NULL, c->dns_hosts[i].ip, c->dns_hosts[i].names[k].name);
        }
    }
    return list;
}

/* The network of an IPv6 address with a prefix of 64. */
static char *net6_of(const char *address)
{
    struct in6_addr a;
    char text[INET6_ADDRSTRLEN];

    if (inet_pton(AF_INET6, address, &a) != 1) {
        return NULL;
    }
    memset(a.s6_addr + 8, 0, 8);
    inet_ntop(AF_INET6, &a, text, sizeof(text));
    return xasprintf("%s/64", text);
}

struct json_object *network_process_config(const struct network *n)
{
    const struct api_net_config *c = &n->config;
    const struct api_net_ip *ip = network_ip(c, false), *ip6 = network_ip(c, true);
    struct json_object *o = json_object_new_object();

    api_json_set_str(o, "name", c->name);
    api_json_set_str(o, "cookie", n->cookie);
    api_json_set_bool(o, "nat", c->forward == API_NET_FORWARD_NAT);
    api_json_set_bool(o, "dns", !c->has_dns || c->dns);
    if (c->domain) {
        api_json_set_str(o, "domain", c->domain);
    }
    if (c->has_mtu) {
        api_json_set_int(o, "mtu", c->mtu);
    }
    if (c->mac) {
        api_json_set_str(o, "mac", c->mac);
    }
    if (ip) {
        api_json_set_str(o, "address", ip->address);
        api_json_set_int(o, "prefix", ip->prefix);
        if (ip->n_dhcp) {
            api_json_set_str(o, "first", ip->dhcp[0].start);
            api_json_set_str(o, "last", ip->dhcp[0].end);
        }
        if (ip->bootfile) {
            api_json_set_str(o, "bootfile", ip->bootfile);
        }
        if (ip->tftp) {
            api_json_set_str(o, "tftp", ip->tftp);
        }
    }
    if (ip6) {
        AUTO_FREE char *net6 = net6_of(ip6->address);

        api_json_set_str(o, "address6", ip6->address);
        if (net6) {
            api_json_set_str(o, "net6", net6);
        }
    }
    api_json_set(o, "hosts", network_hosts(c));
    return o;
}
