/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DHCP. The loop's thread.
 */
#include "network/server/dhcp.h"

#include "engine/base/mem.h"
#include "engine/base/str.h"

#include <ctype.h>
#include <string.h>
#include <strings.h>

#define SECOND INT64_C(1000000000)
#define HEAD 240 /* with the magic cookie */
#define DECLINED_S 600

enum {
    OPT_MASK = 1,
    OPT_ROUTER = 3,
    OPT_DNS = 6,
    OPT_HOSTNAME = 12,
    OPT_DOMAIN = 15,
    OPT_MTU = 26,
    OPT_BROADCAST = 28,
    OPT_REQUESTED = 50,
    OPT_TIME = 51,
    OPT_TYPE = 53,
    OPT_SERVER = 54,
    OPT_BOOTFILE = 67,
    OPT_END = 255
};
enum { DISCOVER = 1, OFFER, REQUEST, DECLINE, ACK, NAK, RELEASE, INFORM };

struct named_card {
    uint8_t mac[6];
    char name[64];
};
struct dhcp {
    const struct gateway_options *o;
    struct gateway_lease *lease; /* GATEWAY_HOSTS at most */
    size_t n;
    struct named_card *card; /* VMs that are plugged in */
    size_t n_cards;
};

/* What of a request matters. */
struct question {
    uint8_t type, mac[6];
    uint32_t ciaddr, requested, server;
    char hostname[64];
};

static uint32_t get32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static void put32(uint8_t *p, uint32_t v)
{
    p[0] = (uint8_t)(v >> 24);
    p[1] = (uint8_t)(v >> 16);
    p[2] = (uint8_t)(v >> 8);
    p[3] = (uint8_t)v;
}

struct dhcp *dhcp_new(const struct gateway_options *o)
{
    struct dhcp *d = xnew(struct dhcp);

    d->o = o;
    d->lease = xnew_n(struct gateway_lease, GATEWAY_HOSTS);
    d->card = xnew_n(struct named_card, GATEWAY_HOSTS);
    return d;
}

void dhcp_free(struct dhcp *d)
{
    if (d) {
        free(d->lease);
        free(d->card);
        free(d);
    }
}

static const struct gateway_host *reserved(const struct dhcp *d, const uint8_t mac[6])
{
    static const uint8_t any[6];

    for (size_t i = 0; i < d->o->n_hosts; i++) {
        if (memcmp(d->o->hosts[i].mac, any, 6) != 0 &&
            memcmp(d->o->hosts[i].mac, mac, 6) == 0) {
            return &d->o->hosts[i];
        }
    }
    return NULL;
}

static bool is_reserved(const struct dhcp *d, uint32_t ip)
{
    for (size_t i = 0; i < d->o->n_hosts; i++) {
        if (d->o->hosts[i].ip == ip) {
            return true;
        }
    }
    return false;
}

static struct gateway_lease *lease_of(struct dhcp *d, const uint8_t mac[6])
{
    for (size_t i = 0; i < d->n; i++) {
        if (memcmp(d->lease[i].mac, mac, 6) == 0) {
            return &d->lease[i];
        }
    }
    return NULL;
}

static struct gateway_lease *lease_at(struct dhcp *d, uint32_t ip)
{
    for (size_t i = 0; i < d->n; i++) {
        if (d->lease[i].ip == ip) {
            return &d->lease[i];
        }
    }
    return NULL;
}

static bool is_free(struct dhcp *d, uint32_t ip, int64_t now)
{
    struct gateway_lease *l = lease_at(d, ip);

    return ip >= d->o->first && ip <= d->o->last && ip != d->o->address &&
           !is_reserved(d, ip) && (!l || l->ends_ns < now);
}

/* The address for a card; 0: there is none left. */
static uint32_t choose(struct dhcp *d, const struct question *q, int64_t now)
{
    const struct gateway_host *host = reserved(d, q->mac);
    struct gateway_lease *l = lease_of(d, q->mac);

    if (host && host->ip) {
        return host->ip;
    }
    if (l && l->ip >= d->o->first && l->ip <= d->o->last && !is_reserved(d, l->ip)) {
        return l->ip;
    }
    if (is_free(d, q->requested, now)) {
        return q->requested;
    }
    for (uint32_t ip = d->o->first; ip <= d->o->last && ip >= d->o->first; ip++) {
        if (is_free(d, ip, now)) {
            return ip;
        }
    }
    return 0;
}

static const char *plugged_name(const struct dhcp *d, const uint8_t mac[6])
{
    for (size_t i = 0; i < d->n_cards; i++) {
        if (memcmp(d->card[i].mac, mac, 6) == 0) {
            return d->card[i].name;
        }
    }
    return NULL;
}

/* A guest may call itself as it likes, but not as another VM. */
static bool name_is_others(const struct dhcp *d, const uint8_t mac[6], const char *name)
{
    for (size_t i = 0; i < d->n_cards; i++) {
        if (strcasecmp(d->card[i].name, name) == 0 && memcmp(d->card[i].mac, mac, 6) != 0) {
            return true;
        }
    }
    return false;
}

static void keep(struct dhcp *d, const struct question *q, uint32_t ip, int64_t ends)
{
    struct gateway_lease *l = lease_of(d, q->mac), *at = lease_at(d, ip);
    const struct gateway_host *host = reserved(d, q->mac);
    const char *name = plugged_name(d, q->mac);

    if (!l) {
        l = at ? at : d->n < GATEWAY_HOSTS ? &d->lease[d->n++] : NULL;
    } else if (at && at != l) {
        *at = d->lease[--d->n];
        l = lease_of(d, q->mac);
    }
    if (!l) {
        return;
    }
    name = host && host->name[0] ? host->name : name ? name : q->hostname;
    memcpy(l->mac, q->mac, 6);
    l->ip = ip;
    l->ends_ns = ends;
    str_copy(l->name, sizeof(l->name), name_is_others(d, q->mac, name) ? "" : name);
}

static void forget(struct dhcp *d, const uint8_t mac[6])
{
    struct gateway_lease *l = lease_of(d, mac);

    if (l) {
        *l = d->lease[--d->n];
    }
}

/* --- messages --- */

static void read_option(struct question *q, uint8_t code, const uint8_t *p, size_t n)
{
    if (code == OPT_TYPE && n == 1) {
        q->type = p[0];
    } else if (code == OPT_REQUESTED && n == 4) {
        q->requested = get32(p);
    } else if (code == OPT_SERVER && n == 4) {
        q->server = get32(p);
    } else if (code == OPT_HOSTNAME && n > 0 && n < sizeof(q->hostname)) {
        for (size_t i = 0; i < n; i++) {
            q->hostname[i] = isalnum(p[i]) || p[i] == '-' ? (char)p[i] : '-';
        }
        q->hostname[n] = 0;
    }
}

static bool read_question(const uint8_t *in, size_t n, struct question *q)
{
    size_t at = HEAD;

    *q = (struct question){ 0 };
    if (n < HEAD || in[0] != 1 || in[1] != 1 || in[2] != 6 || get32(in + 236) != 0x63825363) {
        return false;
    }
    memcpy(q->mac, in + 28, 6);
    q->ciaddr = get32(in + 12);
    while (at < n && in[at] != OPT_END) {
        size_t size;

        if (in[at] == 0) {
            at++;
            continue;
        }
        if (at + 2 > n || at + 2 + in[at + 1] > n) {
            break;
        }
        size = in[at + 1];
        read_option(q, in[at], in + at + 2, size);
        at += 2 + size;
    }
    return q->type != 0 && !(q->mac[0] & 1);
}

static size_t option(uint8_t *out, size_t at, uint8_t code, const void *p, size_t n)
{
    n = n < 255 ? n : 255;
    if (at + 2 + n + 1 > DHCP_MAX) {
        return at;
    }
    out[at] = code;
    out[at + 1] = (uint8_t)n;
    memcpy(out + at + 2, p, n);
    return at + 2 + n;
}

static size_t option32(uint8_t *out, size_t at, uint8_t code, uint32_t v)
{
    uint8_t p[4];

    put32(p, v);
    return option(out, at, code, p, 4);
}

static size_t option_text(uint8_t *out, size_t at, uint8_t code, const char *text)
{
    return text && text[0] ? option(out, at, code, text, strlen(text)) : at;
}

static size_t reply(struct dhcp *d, const uint8_t *in, const struct question *q, uint8_t type,
                    uint32_t ip, uint8_t *out)
{
    const struct gateway_options *o = d->o;
    struct gateway_lease *l = lease_of(d, q->mac);
    uint8_t mtu[2] = { (uint8_t)(o->mtu >> 8), (uint8_t)o->mtu };
    size_t at = HEAD;

    memset(out, 0, DHCP_MAX);
    memcpy(out, in, 12);           /* hardware type, transaction */
    memcpy(out + 28, in + 28, 16); /* hardware address */
    memcpy(out + 10, in + 10, 2);  /* flags */
    out[0] = 2;
    out[3] = 0;
    put32(out + 16, ip);
    put32(out + 236, 0x63825363);
    at = option(out, at, OPT_TYPE, &type, 1);
    at = option32(out, at, OPT_SERVER, o->address);
    if (type != NAK) {
        put32(out + 12, type == ACK ? q->ciaddr : 0);
        put32(out + 20, o->address); /* next server */
        if (q->type != INFORM) {
            at = option32(out, at, OPT_TIME, DHCP_LEASE_S);
        }
        at = option32(out, at, OPT_MASK, o->mask);
        at = option32(out, at, OPT_BROADCAST, o->address | ~o->mask);
        at = o->nat ? option32(out, at, OPT_ROUTER, o->address) : at;
        at = o->dns ? option32(out, at, OPT_DNS, o->address) : at;
        at = o->mtu ? option(out, at, OPT_MTU, mtu, 2) : at;
        at = option_text(out, at, OPT_HOSTNAME, l ? l->name : NULL);
        at = option_text(out, at, OPT_DOMAIN, o->domain);
        at = option_text(out, at, OPT_BOOTFILE, o->bootfile);
        if (o->bootfile && strlen(o->bootfile) < 128) {
            memcpy(out + 108, o->bootfile, strlen(o->bootfile));
        }
    }
    out[at++] = OPT_END;
    return at < 300 ? 300 : at; /* as BOOTP has it; some clients insist */
}

size_t dhcp_answer(struct dhcp *d, const uint8_t *in, size_t n, int64_t now, uint8_t *out)
{
    struct question q;
    uint32_t ip, wish;

    if (!d->o->first || !read_question(in, n, &q)) {
        return 0;
    }
    ip = choose(d, &q, now);
    switch (q.type) {
    case DISCOVER:
        if (!ip) {
            return 0;
        }
        keep(d, &q, ip, now + 30 * SECOND); /* until it has asked for it */
        return reply(d, in, &q, OFFER, ip, out);
    case REQUEST:
        if (q.server && q.server != d->o->address) {
            return 0; /* it has chosen another server */
        }
        wish = q.requested ? q.requested : q.ciaddr;
        if (!ip || wish != ip) {
            return reply(d, in, &q, NAK, 0, out);
        }
        keep(d, &q, ip, now + DHCP_LEASE_S * SECOND);
        return reply(d, in, &q, ACK, ip, out);
    case INFORM:
        return reply(d, in, &q, ACK, 0, out);
    case DECLINE:
        /* Somebody else has it: nobody's for a while. */
        forget(d, q.mac);
        if (is_free(d, q.requested, now)) {
            struct question nobody = { .mac = { 2, 0, 0, 0, 0, (uint8_t)q.requested } };

            keep(d, &nobody, q.requested, now + DECLINED_S * SECOND);
        }
        return 0;
    case RELEASE:
        forget(d, q.mac);
        return 0;
    default:
        return 0;
    }
}

void dhcp_name(struct dhcp *d, const uint8_t mac[6], const char *name)
{
    struct gateway_lease *l = lease_of(d, mac);
    size_t i = 0;

    while (i < d->n_cards && memcmp(d->card[i].mac, mac, 6) != 0) {
        i++;
    }
    if (!name[0]) {
        if (i < d->n_cards) {
            d->card[i] = d->card[--d->n_cards];
        }
        return;
    }
    if (i == GATEWAY_HOSTS) {
        return;
    }
    d->n_cards += i == d->n_cards;
    memcpy(d->card[i].mac, mac, 6);
    str_copy(d->card[i].name, sizeof(d->card[i].name), name);
    if (l) {
        str_copy(l->name, sizeof(l->name), name);
    }
}

size_t dhcp_leases(struct dhcp *d, const struct gateway_lease **out)
{
    *out = d->lease;
    return d->n;
}

uint32_t dhcp_find(const struct dhcp *d, const char *name)
{
    for (size_t i = 0; i < d->n; i++) {
        if (d->lease[i].name[0] && strcasecmp(d->lease[i].name, name) == 0) {
            return d->lease[i].ip;
        }
    }
    for (size_t i = 0; i < d->o->n_hosts; i++) {
        if (d->o->hosts[i].ip && strcasecmp(d->o->hosts[i].name, name) == 0) {
            return d->o->hosts[i].ip;
        }
    }
    return 0;
}

const char *dhcp_name_of(const struct dhcp *d, uint32_t ip)
{
    for (size_t i = 0; i < d->n; i++) {
        if (d->lease[i].ip == ip && d->lease[i].name[0]) {
            return d->lease[i].name;
        }
    }
    for (size_t i = 0; i < d->o->n_hosts; i++) {
        if (d->o->hosts[i].ip == ip && d->o->hosts[i].name[0]) {
            return d->o->hosts[i].name;
        }
    }
    return NULL;
}
