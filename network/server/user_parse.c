/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads the addresses of user-mode networking. Pure functions, any thread.
 */
#include "network/server/user_parse.h"

#include "engine/base/str.h"

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>

/* "[ADDRESS]:PORT" up to `end` into a socket address; `any` replaces an absent address, NULL: it must be there. */
static int endpoint(const char *text, const char *any, struct sockaddr_storage *out,
                    socklen_t *len, struct err *e)
{
    struct sockaddr_in *v4 = (struct sockaddr_in *)out;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)out;
    const char *colon = strrchr(text, ':');
    char address[64];
    uint64_t port;
    size_t n;
    int rc;

    if (!colon) {
        return err_set(e, -EINVAL, "'%s' has no port; write ADDRESS:PORT", text);
    }
    rc = str_to_u64(colon + 1, 1, 65535, "port", &port, e);
    if (rc != 0) {
        return rc;
    }
    n = (size_t)(colon - text);
    if (n == 0 && any) {
        text = any;
        n = strlen(any);
    }
    if (n > 2 && text[0] == '[' && text[n - 1] == ']') {
        text++;
        n -= 2;
    }
    if (n == 0 || n >= sizeof(address)) {
        return err_set(e, -EINVAL, "'%s' has no address; write ADDRESS:PORT", text);
    }
    memcpy(address, text, n);
    address[n] = 0;
    memset(out, 0, sizeof(*out));
    if (inet_pton(AF_INET, address, &v4->sin_addr) == 1) {
        v4->sin_family = AF_INET;
        v4->sin_port = htons((uint16_t)port);
        *len = sizeof(*v4);
    } else if (inet_pton(AF_INET6, address, &v6->sin6_addr) == 1) {
        v6->sin6_family = AF_INET6;
        v6->sin6_port = htons((uint16_t)port);
        *len = sizeof(*v6);
    } else {
        return err_set(e, -EINVAL, "'%s' is no IP address", address);
    }
    return 0;
}

/* Where the second endpoint begins: the '-' that is not inside an address. */
static const char *dash(const char *text)
{
    const char *d = strchr(text, '-');

    return d;
}

int user_parse_forward(const char *text, bool from_any, struct user_forward *out, struct err *e)
{
    struct user_forward f = { .udp = str_starts(text, "udp:") };
    const char *split = dash(text);
    char from[96], to[96];
    int rc;

    if ((!f.udp && !str_starts(text, "tcp:")) || (f.udp && !from_any) || !split ||
        (size_t)(split - text - 4) >= sizeof(from) || strlen(split + 1) >= sizeof(to)) {
        return err_set(
            e, -EINVAL, "'%s' is no forward; write %s", text,
            from_any ? "tcp:[ADDRESS]:PORT-[ADDRESS]:PORT, first the host's, then the guest's"
                     : "tcp:ADDRESS:PORT-ADDRESS:PORT, first the guest's, then the host's");
    }
    memcpy(from, text + 4, (size_t)(split - text - 4));
    from[split - text - 4] = 0;
    str_copy(to, sizeof(to), split + 1);
    rc = endpoint(from, from_any ? "127.0.0.1" : NULL, &f.from, &f.from_len, e);
    if (rc == 0) {
        rc = endpoint(to, from_any ? "0.0.0.0" : NULL, &f.to, &f.to_len, e);
    }
    if (rc == 0) {
        *out = f;
    }
    return rc;
}

/* "10.0.2.0/24" */
static int network4(const char *text, struct in_addr *net, struct in_addr *mask, struct err *e)
{
    const char *slash = strchr(text, '/');
    uint64_t bits = 24;
    char address[32];
    int rc = slash ? str_to_u64(slash + 1, 8, 29, "prefix length", &bits, e) : 0;

    if (rc != 0) {
        return rc;
    }
    if ((slash ? (size_t)(slash - text) : strlen(text)) >= sizeof(address)) {
        return err_set(e, -EINVAL, "'%s' is no IPv4 network", text);
    }
    str_copy(address, slash ? (size_t)(slash - text) + 1 : sizeof(address), text);
    if (inet_pton(AF_INET, address, net) != 1) {
        return err_set(e, -EINVAL, "'%s' is no IPv4 network; write 10.0.2.0/24", text);
    }
    mask->s_addr = htonl(UINT32_MAX << (32 - bits));
    net->s_addr &= mask->s_addr;
    return 0;
}

/* An address in the network, the n-th when text is NULL. */
static int address4(const char *text, const SlirpConfig *c, uint32_t n, const char *what,
                    struct in_addr *out, struct err *e)
{
    out->s_addr = c->vnetwork.s_addr | htonl(n & ~ntohl(c->vnetmask.s_addr));
    if (text && inet_pton(AF_INET, text, out) != 1) {
        return err_set(e, -EINVAL, "%s: '%s' is no IPv4 address", what, text);
    }
    if ((out->s_addr & c->vnetmask.s_addr) != c->vnetwork.s_addr) {
        return err_set(e, -EINVAL, "%s: %s is not in the network", what, text);
    }
    return 0;
}

static int config4(const struct user_options *o, SlirpConfig *c, struct err *e)
{
    int rc = network4(o->net ? o->net : "10.0.2.0/24", &c->vnetwork, &c->vnetmask, e);
    /* In small networks the guest's addresses begin behind the other two. */
    uint32_t first = ~ntohl(c->vnetmask.s_addr) > 31 ? 15 : 4;

    if (rc == 0) {
        rc = address4(o->host, c, 2, "host", &c->vhost, e);
    }
    if (rc == 0) {
        rc = address4(o->dns, c, 3, "dns", &c->vnameserver, e);
    }
    if (rc == 0) {
        rc = address4(o->dhcp_start, c, first, "dhcp_start", &c->vdhcp_start, e);
    }
    if (rc == 0 &&
        (c->vhost.s_addr == c->vnameserver.s_addr || c->vhost.s_addr == c->vdhcp_start.s_addr ||
         c->vnameserver.s_addr == c->vdhcp_start.s_addr)) {
        rc = err_set(e, -EINVAL, "the addresses of host, dns and dhcp_start must differ");
    }
    return rc;
}

static int config6(const struct user_options *o, SlirpConfig *c, struct err *e)
{
    const char *text = o->net6 ? o->net6 : "fd00:2::/64", *slash = strchr(text, '/');
    char address[64];
    uint64_t bits = 64;
    int rc = slash ? str_to_u64(slash + 1, 8, 126, "prefix length", &bits, e) : 0;

    if (rc != 0) {
        return rc;
    }
    str_copy(address,
             slash && (size_t)(slash - text) < sizeof(address) ? (size_t)(slash - text) + 1
                                                               : sizeof(address),
             text);
    if (inet_pton(AF_INET6, address, &c->vprefix_addr6) != 1) {
        return err_set(e, -EINVAL, "'%s' is no IPv6 network; write fd00:2::/64", text);
    }
    c->vprefix_len = (uint8_t)bits;
    c->vhost6 = c->vnameserver6 = c->vprefix_addr6;
    c->vhost6.s6_addr[15] |= 2;
    c->vnameserver6.s6_addr[15] |= 3;
    if (o->host6 && inet_pton(AF_INET6, o->host6, &c->vhost6) != 1) {
        return err_set(e, -EINVAL, "host6: '%s' is no IPv6 address", o->host6);
    }
    if (o->dns6 && inet_pton(AF_INET6, o->dns6, &c->vnameserver6) != 1) {
        return err_set(e, -EINVAL, "dns6: '%s' is no IPv6 address", o->dns6);
    }
    return 0;
}

int user_parse_config(const struct user_options *o, SlirpConfig *c, struct err *e)
{
    int rc = config4(o, c, e);

    if (rc == 0) {
        rc = config6(o, c, e);
    }
    if (rc == 0 && o->no_ipv4 && o->no_ipv6) {
        rc = err_set(e, -EINVAL, "neither IPv4 nor IPv6 is left");
    }
    if (rc != 0) {
        err_prefix(e, "network card '%s'", o->name);
        return rc;
    }
    c->in_enabled = !o->no_ipv4;
    c->in6_enabled = !o->no_ipv6;
    c->restricted = o->restricted;
    c->vhostname = o->hostname;
    c->vdomainname = o->domain;
    c->tftp_path = o->tftp;
    c->tftp_server_name = o->tftp_name;
    c->bootfile = o->bootfile;
    c->if_mtu = c->if_mru = o->mtu ? o->mtu : 1500;
    return 0;
}
