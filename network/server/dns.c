/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DNS. See dns.h.
 */
#include "network/server/dns.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

enum { TYPE_A = 1, TYPE_PTR = 12, TYPE_ANY = 255, CLASS_IN = 1, NXDOMAIN = 3 };
#define HEAD 12
#define NAME_MAX_LEN 256

static unsigned get16(const uint8_t *p)
{
    return (unsigned)p[0] << 8 | p[1];
}

static void put16(uint8_t *p, unsigned v)
{
    p[0] = (uint8_t)(v >> 8);
    p[1] = (uint8_t)v;
}

/* The name of the question with dots, in lower case; where it ends, 0: it is none (pointers are not allowed in it). */
static size_t read_name(const uint8_t *in, size_t n, size_t at, char *out)
{
    size_t len = 0;

    while (at < n && in[at] != 0) {
        size_t label = in[at++];

        if (label > 63 || at + label > n || len + label + 1 >= NAME_MAX_LEN) {
            return 0;
        }
        for (size_t i = 0; i < label; i++) {
            uint8_t c = in[at + i];

            out[len++] = isgraph(c) && c != '.' ? (char)tolower(c) : '?';
        }
        out[len++] = '.';
        at += label;
    }
    out[len ? len - 1 : 0] = 0;
    return at < n ? at + 1 : 0;
}

/* Cuts off the network's domain; true: it was there. */
static bool cut_domain(char *name, const char *domain)
{
    size_t n = strlen(name), d = domain ? strlen(domain) : 0;

    if (d == 0 || n <= d + 1 || strcasecmp(name + n - d, domain) != 0 ||
        name[n - d - 1] != '.') {
        return false;
    }
    name[n - d - 1] = 0;
    return true;
}

/* "4.3.2.1.in-addr.arpa" */
static uint32_t reverse(const char *name)
{
    unsigned a, b, c, d;
    int end = 0;

    if (sscanf(name, "%3u.%3u.%3u.%3u.in-addr.arpa%n", &a, &b, &c, &d, &end) != 4 || !end ||
        name[end] || a > 255 || b > 255 || c > 255 || d > 255) {
        return 0;
    }
    return d << 24 | c << 16 | b << 8 | a;
}

static size_t put_name(uint8_t *out, size_t at, const char *name)
{
    while (*name && at + 2 < DNS_MAX) {
        size_t n = strcspn(name, ".");

        n = n < 63 ? n : 63;
        if (at + n + 2 > DNS_MAX) {
            break;
        }
        out[at++] = (uint8_t)n;
        memcpy(out + at, name, n);
        at += n;
        name += n;
        name += *name == '.';
    }
    out[at++] = 0;
    return at;
}

struct found {
    bool known; /* the name is there, perhaps with nothing of that type */
    uint32_t ip;
    char name[NAME_MAX_LEN + 64];
};

static void look(const struct dhcp *d, const struct gateway_options *o, char *name, bool *ours,
                 struct found *out)
{
    uint32_t ip = reverse(name);

    *out = (struct found){ 0 };
    *ours = true;
    if (ip) {
        const char *is = dhcp_name_of(d, ip);

        *ours = is || (ip & o->mask) == (o->address & o->mask);
        out->known = is != NULL;
        snprintf(out->name, sizeof(out->name), "%s%s%s", is ? is : "",
                 is && o->domain ? "." : "", is && o->domain ? o->domain : "");
        return;
    }
    *ours = cut_domain(name, o->domain);
    out->ip = strcmp(name, "gateway") == 0 ? o->address : dhcp_find(d, name);
    out->known = out->ip != 0;
    *ours = *ours || out->known || !strchr(name, '.');
}

size_t dns_answer(const struct dhcp *d, const struct gateway_options *o, const uint8_t *in,
                  size_t n, uint8_t *out, bool *ours)
{
    char name[NAME_MAX_LEN];
    struct found f;
    unsigned type;
    size_t end, at, data;

    *ours = false;
    /* One question of a plain query; what follows it (EDNS) is left out of the answer. */
    if (n < HEAD || (in[2] & 0xf8) != 0 || get16(in + 4) != 1 || get16(in + 6) != 0) {
        return 0;
    }
    end = read_name(in, n, HEAD, name);
    if (!end || end + 4 > n || end + 4 > DNS_MAX - 128 || get16(in + end + 2) != CLASS_IN) {
        return 0;
    }
    type = get16(in + end);
    look(d, o, name, ours, &f);
    at = end + 4;
    memset(out, 0, DNS_MAX);
    memcpy(out, in, at);
    out[2] = 0x84 | (in[2] & 1); /* an answer, with authority */
    out[3] = (uint8_t)(0x80 | (f.known ? 0 : NXDOMAIN));
    memset(out + 6, 0, 6);
    if (!f.known || !((f.ip && (type == TYPE_A || type == TYPE_ANY)) ||
                      (f.name[0] && (type == TYPE_PTR || type == TYPE_ANY)))) {
        return at;
    }
    put16(out + 6, 1);
    put16(out + at, 0xc000 | HEAD); /* the name of the question */
    put16(out + at + 2, f.ip ? TYPE_A : TYPE_PTR);
    put16(out + at + 4, CLASS_IN);
    put16(out + at + 8, 60); /* seconds */
    data = at + 12;
    if (f.ip) {
        put16(out + data, f.ip >> 16);
        put16(out + data + 2, f.ip & 0xffff);
        end = data + 4;
    } else {
        end = put_name(out, data, f.name);
    }
    put16(out + at + 10, (unsigned)(end - data));
    return end;
}
