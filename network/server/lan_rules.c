/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads rules. The daemon has checked what people wrote; here every number is bounded again.
 */
#include "network/server/lan_rules.h"

#include "api-schema/json/json.h"
#include "engine/base/mem.h"
#include "engine/base/str.h"

#include <arpa/inet.h>
#include <errno.h>
#include <json-c/json.h>
#include <stdio.h>
#include <string.h>

bool lan_mac(const char *text, uint8_t out[6])
{
    unsigned b[6];
    int end = 0;

    if (!text ||
        sscanf(text, "%2x:%2x:%2x:%2x:%2x:%2x%n", &b[0], &b[1], &b[2], &b[3], &b[4], &b[5],
               &end) != 6 ||
        text[end]) {
        return false;
    }
    for (unsigned i = 0; i < 6; i++) {
        out[i] = (uint8_t)b[i];
    }
    return true;
}

uint32_t lan_ip(const char *text)
{
    struct in_addr a;

    return text && inet_pton(AF_INET, text, &a) == 1 ? ntohl(a.s_addr) : 0;
}

/* "10.0.0.0/8" */
static bool range_of(const char *text, uint32_t *address, uint32_t *mask)
{
    const char *slash = text ? strchr(text, '/') : NULL;
    char ip[32];
    uint64_t bits = 32;

    *address = *mask = 0;
    if (!text) {
        return true;
    }
    str_copy(ip,
             slash && (size_t)(slash - text) < sizeof(ip) ? (size_t)(slash - text) + 1
                                                          : sizeof(ip),
             text);
    if (slash && str_to_u64(slash + 1, 0, 32, "prefix", &bits, NULL) < 0) {
        return false;
    }
    *mask = bits ? UINT32_MAX << (32 - bits) : 0;
    *address = lan_ip(ip) & *mask;
    return lan_ip(ip) != 0 || bits == 0;
}

static unsigned number(const struct json_object *o, const char *key, int64_t most)
{
    int64_t v = api_json_get_int(o, key, 0);

    return (unsigned)(v < 0 ? 0 : v > most ? most : v);
}

static int64_t most_of(int64_t v, int64_t most)
{
    return v < 0 ? 0 : v > most ? most : v;
}

static void faults(struct impair_rules *r, const struct json_object *o)
{
    struct impair_rules was = *r;

    *r = (struct impair_rules){ .loss = number(o, "loss", IMPAIR_PPM),
                                .duplicate = number(o, "duplicate", IMPAIR_PPM),
                                .reorder = number(o, "reorder", IMPAIR_PPM),
                                .corrupt = number(o, "corrupt", IMPAIR_PPM),
                                .delay_us = number(o, "delay_us", 60000000),
                                .jitter_us = number(o, "jitter_us", 60000000),
                                .rate = (uint64_t)most_of(api_json_get_int(o, "rate", 0),
                                                          INT64_C(1) << 40),
                                .cut = api_json_get_bool(o, "cut", false),
                                .average = was.average,
                                .peak = was.peak,
                                .burst = was.burst };
}

static void limits(struct impair_rules *r, const struct json_object *o)
{
    r->average = (uint64_t)most_of(api_json_get_int(o, "average", 0), INT64_C(1) << 40);
    r->peak = (uint64_t)most_of(api_json_get_int(o, "peak", 0), INT64_C(1) << 40);
    r->burst = (uint64_t)most_of(api_json_get_int(o, "burst", 0), INT64_C(1) << 30);
}

static int read_row(struct filter_row *r, const struct json_object *o, struct err *e)
{
    const char *proto = api_json_get_str(o, "protocol"),
               *way = api_json_get_str(o, "direction"), *action = api_json_get_str(o, "action");

    *r = (struct filter_row){ .drop = action && strcmp(action, "drop") == 0,
                              .from_vm = !way || strcmp(way, "in") != 0,
                              .to_vm = !way || strcmp(way, "out") != 0,
                              .src_port = (uint16_t)number(o, "source_port", 65535),
                              .dst_port = (uint16_t)number(o, "port", 65535) };
    while (proto && r->proto < FP_PROTOS && strcmp(filter_protos[r->proto], proto) != 0) {
        r->proto++;
    }
    if (r->proto == FP_PROTOS ||
        !range_of(api_json_get_str(o, "source"), &r->src, &r->src_mask) ||
        !range_of(api_json_get_str(o, "destination"), &r->dst, &r->dst_mask)) {
        return err_set(e, -EINVAL, "a row of the filter has no known protocol or address");
    }
    return 0;
}

static int read_filter(struct filter *f, const struct json_object *o, struct err *e)
{
    struct json_object *rows = api_json_get(o, "rules"), *list = api_json_get(o, "addresses");
    size_t n = json_object_is_type(rows, json_type_array) ? json_object_array_length(rows) : 0;
    size_t m = json_object_is_type(list, json_type_array) ? json_object_array_length(list) : 0;
    struct filter made = { .mac = api_json_get_bool(o, "no_mac_spoofing", false),
                           .ip = api_json_get_bool(o, "no_ip_spoofing", false) };

    if (n > FILTER_ROWS || m > ARRAY_LEN(made.address)) {
        return err_set(e, -E2BIG, "a filter has at most %d rows and %zu addresses", FILTER_ROWS,
                       ARRAY_LEN(made.address));
    }
    memcpy(made.card, f->card, 6);
    made.leased = f->leased;
    for (size_t i = 0; i < n; i++) {
        int rc = read_row(&made.row[i], json_object_array_get_idx(rows, i), e);

        if (rc < 0) {
            return rc;
        }
    }
    made.n_rows = (unsigned)n;
    for (size_t i = 0; i < m; i++) {
        made.address[made.addresses++] = lan_ip(
            json_object_get_string(json_object_array_get_idx(list, i)));
    }
    *f = made;
    return 0;
}

static void set_both(struct switch_port *p, const struct json_object *o,
                     void (*fn)(struct impair_rules *r, const struct json_object *o))
{
    struct json_object *in = api_json_get(o, "to_vm"), *out = api_json_get(o, "from_vm");
    struct impair_rules r = p->to_vm.rules;

    if (in) {
        fn(&r, in);
        impair_set(&p->to_vm, &r);
    }
    r = p->from_vm.rules;
    if (out) {
        fn(&r, out);
        impair_set(&p->from_vm, &r);
    }
}

int lan_port_rules(struct switch_port *p, const struct json_object *o, struct err *e)
{
    struct json_object *f = api_json_get(o, "filter");
    int rc = f ? read_filter(&p->filter, f, e) : 0;

    if (rc < 0) {
        return rc;
    }
    if (api_json_get(o, "vlan") || api_json_get(o, "trunk")) {
        switch_set_vlan(p,
                        (unsigned)most_of(api_json_get_int(o, "vlan", (int64_t)p->vlan), 4094),
                        api_json_get_bool(o, "trunk", p->trunk));
    }
    if (api_json_get(o, "faults")) {
        set_both(p, api_json_get(o, "faults"), faults);
    }
    if (api_json_get(o, "limits")) {
        set_both(p, api_json_get(o, "limits"), limits);
    }
    return 0;
}

static struct json_object *faults_of(const struct impair_rules *r)
{
    struct json_object *o = json_object_new_object();

    api_json_set_int(o, "loss", r->loss);
    api_json_set_int(o, "duplicate", r->duplicate);
    api_json_set_int(o, "reorder", r->reorder);
    api_json_set_int(o, "corrupt", r->corrupt);
    api_json_set_int(o, "delay_us", r->delay_us);
    api_json_set_int(o, "jitter_us", r->jitter_us);
    api_json_set_int(o, "rate", (int64_t)r->rate);
    api_json_set_bool(o, "cut", r->cut);
    return o;
}

struct json_object *lan_faults(const struct switch_port *p)
{
    struct json_object *o = json_object_new_object();

    api_json_set(o, "to_vm", faults_of(&p->to_vm.rules));
    api_json_set(o, "from_vm", faults_of(&p->from_vm.rules));
    return o;
}

static bool is_faulty(const struct impair_rules *r)
{
    return r->loss || r->duplicate || r->reorder || r->corrupt || r->delay_us || r->jitter_us ||
           r->rate || r->cut;
}

bool lan_has_faults(const struct switch_port *p)
{
    return is_faulty(&p->to_vm.rules) || is_faulty(&p->from_vm.rules);
}

int lan_hosts(const struct json_object *o, struct gateway_host **out, size_t *count,
              struct err *e)
{
    struct json_object *hosts = api_json_get(o, "hosts");
    size_t n = json_object_is_type(hosts, json_type_array) ? json_object_array_length(hosts)
                                                           : 0;
    struct gateway_host *list;

    if (n > GATEWAY_HOSTS) {
        return err_set(e, -E2BIG, "a network has at most %d hosts", GATEWAY_HOSTS);
    }
    list = xnew_n(struct gateway_host, n + 1);
    for (size_t i = 0; i < n; i++) {
        const struct json_object *h = json_object_array_get_idx(hosts, i);
        const char *name = api_json_get_str(h, "name");

        (void)lan_mac(api_json_get_str(h, "mac"), list[i].mac);
        list[i].ip = lan_ip(api_json_get_str(h, "ip"));
        str_copy(list[i].name, sizeof(list[i].name), name ? name : "");
    }
    *out = list;
    *count = n;
    return 0;
}

int lan_gateway(const struct json_object *o, struct gateway_options *out, struct err *e)
{
    int64_t prefix = api_json_get_int(o, "prefix", 24);
    struct gateway_host *hosts;
    size_t n;
    int rc;

    if (prefix < 8 || prefix > 29) {
        return err_set(e, -EINVAL, "the network's prefix is to be 8 to 29");
    }
    rc = lan_hosts(o, &hosts, &n, e);
    if (rc < 0) {
        return rc;
    }
    *out = (struct gateway_options){ .name = api_json_get_str(o, "name"),
                                     .domain = api_json_get_str(o, "domain"),
                                     .tftp = api_json_get_str(o, "tftp"),
                                     .bootfile = api_json_get_str(o, "bootfile"),
                                     .address = lan_ip(api_json_get_str(o, "address")),
                                     .mask = UINT32_MAX << (32 - prefix),
                                     .first = lan_ip(api_json_get_str(o, "first")),
                                     .last = lan_ip(api_json_get_str(o, "last")),
                                     .mtu = number(o, "mtu", 1500),
                                     .nat = api_json_get_bool(o, "nat", false),
                                     .dns = api_json_get_bool(o, "dns", true),
                                     .hosts = hosts,
                                     .n_hosts = n,
                                     .address6 = api_json_get_str(o, "address6"),
                                     .net6 = api_json_get_str(o, "net6") };
    (void)lan_mac(api_json_get_str(o, "mac"), out->mac);
    return 0;
}
