/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A named network. See lan.h. One thread.
 */
#include "network/server/lan.h"

#include "api-schema/json/error.h"
#include "api-schema/json/json.h"
#include "api-schema/rpc/conn.h"
#include "engine/base/fd.h"
#include "engine/base/list.h"
#include "engine/base/log.h"
#include "engine/base/loop.h"
#include "engine/base/mem.h"
#include "engine/base/str.h"
#include "network/server/lan_rules.h"
#include "network/server/pcap.h"
#include "network/stream.h"

#include <arpa/inet.h>
#include <errno.h>
#include <json-c/json.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define HELLO_MAX 65536
#define GATEWAY "gateway"

/* A connection that has not said yet which port it is. */
struct joining {
    struct list link;
    struct lan *lan;
    int fd;
    struct loop_fd *watch;
    size_t have;
    uint8_t bytes[4 + HELLO_MAX];
};

struct member {
    struct lan *lan;
    struct switch_port *port;
    uint8_t mac[6];
    struct loop_task gone;
};

struct control {
    struct list link;
    struct lan *lan;
    struct rpc_conn *conn;
};

struct lan {
    struct loop *loop;
    struct json_object *config;
    struct gateway_host *hosts;
    struct net_switch *sw;
    struct net_port *gateway;
    struct json_object *faults; /* of ports that come */
    int ports, control;
    struct loop_fd *ports_watch, *control_watch;
    struct list joining, controls;
};

/* --- ports --- */

static void leave(void *arg)
{
    struct member *m = arg;

    loop_task_cancel(&m->gone);
    if (m->lan->gateway) {
        gateway_name(m->lan->gateway, m->mac, "");
    }
    switch_remove(m->port);
    free(m);
}

/* Not from within the port's own call. */
static void on_end(void *arg)
{
    struct member *m = arg;

    loop_task_queue(m->lan->loop, &m->gone);
}

static void joining_free(struct joining *j)
{
    list_remove(&j->link);
    loop_fd_free(j->watch);
    if (j->fd >= 0) {
        close(j->fd);
    }
    free(j);
}

/* A VM's name without what DNS does not have in a label. */
static void name_member(struct member *m, const char *host)
{
    char name[64];
    size_t n = 0;

    for (; host && *host && n < sizeof(name) - 1; host++) {
        name[n++] = *host == '_' || *host == '.' || *host == '+' ? '-' : *host;
    }
    name[n] = 0;
    if (n > 0 && m->lan->gateway) {
        gateway_name(m->lan->gateway, m->mac, name);
    }
}

static int join(struct lan *n, int take_fd, const char *text, size_t len, struct err *e)
{
    AUTO_FD fd = take_fd;
    AUTO_JSON o = NULL;
    const char *name;
    struct switch_port *p;
    struct member *m;
    int rc = api_json_parse(text, len, &o, e);

    if (rc < 0) {
        return rc;
    }
    name = api_json_get_str(o, "port");
    if (!name || strcmp(name, GATEWAY) == 0) {
        return err_set(e, -EINVAL, "a port without a name");
    }
    p = switch_find(n->sw, name);
    if (p && p->user) {
        leave(p->user); /* its VM was started anew before the old end was seen */
    }
    p = switch_add(n->sw, net_stream_new(n->loop, fd, name, true), name);
    fd = -1;
    if (!p) {
        return err_set(e, -E2BIG, "the network has %d ports already", SWITCH_PORTS);
    }
    m = xnew(struct member);
    m->lan = n;
    m->port = p;
    p->user = m;
    loop_task_init(&m->gone, leave, m);
    (void)lan_mac(api_json_get_str(o, "mac"), m->mac);
    memcpy(p->filter.card, m->mac, 6);
    net_stream_on_end(p->port, on_end, m);
    name_member(m, api_json_get_str(o, "host"));
    rc = lan_port_rules(p, o, e);
    if (rc == 0 && n->faults) {
        rc = lan_port_rules(p, n->faults, e);
    }
    if (rc < 0) {
        leave(m);
    }
    return rc;
}

/* No byte behind the hello is read: those are the port's. */
static void on_joining(void *arg, int fd, unsigned events)
{
    struct joining *j = arg;
    struct err e = ERR_INIT;
    uint32_t length = 0;
    size_t want = 4;
    ssize_t n;

    (void)events;
    if (j->have >= 4) {
        memcpy(&length, j->bytes, 4);
        length = ntohl(length);
        want = 4 + (size_t)length;
    }
    n = length > HELLO_MAX ? 0 : recv(fd, j->bytes + j->have, want - j->have, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
        return;
    }
    if (n <= 0) {
        joining_free(j);
        return;
    }
    j->have += (size_t)n;
    if (j->have < want || length == 0) {
        return;
    }
    j->fd = -1;
    loop_fd_free(j->watch);
    j->watch = NULL;
    if (join(j->lan, fd, (const char *)j->bytes + 4, length, &e) < 0) {
        log_warn("net", "a port is refused: %s", e.msg);
    }
    joining_free(j);
}

static int accept_one(int fd)
{
    int got = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

    if (got < 0 && errno != EAGAIN && errno != EINTR) {
        log_warn("net", "cannot accept a connection: %s", strerror(errno));
    }
    return got;
}

static void on_port(void *arg, int fd, unsigned events)
{
    struct lan *n = arg;
    int got = accept_one(fd);
    struct joining *j;

    (void)events;
    if (got < 0) {
        return;
    }
    j = xnew(struct joining);
    j->lan = n;
    j->fd = got;
    list_append(&n->joining, &j->link);
    j->watch = loop_fd_new(n->loop, got, LOOP_READ, on_joining, j);
}

/* --- control --- */

static void add_counters(struct json_object *o, const char *key, const struct net_counters *c)
{
    struct json_object *k = json_object_new_object();

    api_json_set_int(k, "frames", (int64_t)c->frames);
    api_json_set_int(k, "bytes", (int64_t)c->bytes);
    api_json_set_int(k, "dropped", (int64_t)c->dropped);
    api_json_set(o, key, k);
}

static struct json_object *port_status(const struct switch_port *p)
{
    struct json_object *o = json_object_new_object();
    const struct member *m = p->user;
    char mac[18];

    api_json_set_str(o, "port", p->name);
    if (m) {
        snprintf(mac, sizeof(mac), "%02x:%02x:%02x:%02x:%02x:%02x", m->mac[0], m->mac[1],
                 m->mac[2], m->mac[3], m->mac[4], m->mac[5]);
        api_json_set_str(o, "mac", mac);
    }
    api_json_set_int(o, "vlan", p->vlan);
    api_json_set_bool(o, "trunk", p->trunk);
    add_counters(o, "from_vm", &p->port->rx);
    add_counters(o, "to_vm", &p->port->tx);
    api_json_set_int(o, "filtered", (int64_t)p->filtered);
    api_json_set_int(o, "lost", (int64_t)(p->lost + p->from_vm.dropped + p->to_vm.dropped));
    api_json_set_bool(o, "faulty",
                      p->from_vm.rules.cut || p->to_vm.rules.cut || !p->from_vm.idle ||
                          !p->to_vm.idle);
    if (m && lan_has_faults(p)) {
        api_json_set(o, "faults", lan_faults(p));
    }
    if (p->pcap) {
        api_json_set_int(o, "captured", (int64_t)pcap_frames(p->pcap));
    }
    return o;
}

static struct json_object *lease_status(const struct gateway_lease *l, int64_t now)
{
    struct json_object *o = json_object_new_object();
    char text[18];

    snprintf(text, sizeof(text), "%02x:%02x:%02x:%02x:%02x:%02x", l->mac[0], l->mac[1],
             l->mac[2], l->mac[3], l->mac[4], l->mac[5]);
    api_json_set_str(o, "mac", text);
    snprintf(text, sizeof(text), "%u.%u.%u.%u", l->ip >> 24, l->ip >> 16 & 255,
             l->ip >> 8 & 255, l->ip & 255);
    api_json_set_str(o, "ip", text);
    if (l->name[0]) {
        api_json_set_str(o, "name", l->name);
    }
    api_json_set_int(o, "seconds", (l->ends_ns - now) / 1000000000);
    return o;
}

static struct json_object *status(struct lan *n)
{
    struct json_object *o = json_object_new_object(), *ports = json_object_new_array(),
                       *leases = json_object_new_array();
    const struct gateway_lease *l = NULL;
    size_t count = n->gateway ? gateway_leases(n->gateway, &l) : 0;
    struct timespec t;
    int64_t now;

    clock_gettime(CLOCK_MONOTONIC, &t);
    now = t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
    for (unsigned i = 0; i < SWITCH_PORTS; i++) {
        if (switch_at(n->sw, i)) {
            json_object_array_add(ports, port_status(switch_at(n->sw, i)));
        }
    }
    for (size_t i = 0; i < count; i++) {
        if (l[i].ends_ns > now) {
            json_object_array_add(leases, lease_status(&l[i], now));
        }
    }
    api_json_set(o, "ports", ports);
    api_json_set(o, "leases", leases);
    api_json_set_int(o, "learned", switch_learned(n->sw));
    api_json_set_int(o, "pid", getpid());
    if (api_json_get_str(n->config, "cookie")) {
        api_json_set_str(o, "cookie", api_json_get_str(n->config, "cookie"));
    }
    if (n->faults) {
        api_json_set(o, "faults", json_object_get(api_json_get(n->faults, "faults")));
    }
    return o;
}

/* One direction's faults take the place of those there were; the other's stay. */
static void keep_faults(struct lan *n, struct json_object *faults)
{
    static const char *const ways[] = { "to_vm", "from_vm" };
    struct json_object *all;

    if (!n->faults) {
        n->faults = json_object_new_object();
        api_json_set(n->faults, "faults", json_object_new_object());
    }
    all = api_json_get(n->faults, "faults");
    for (unsigned i = 0; i < ARRAY_LEN(ways); i++) {
        if (api_json_get(faults, ways[i])) {
            api_json_set(all, ways[i], json_object_get(api_json_get(faults, ways[i])));
        }
    }
}

/* Of all ports of VMs whose names begin so. */
static int set_faults(struct lan *n, const struct json_object *params, struct json_object *out,
                      struct err *e)
{
    const char *prefix = api_json_get_str(params, "prefix");
    struct json_object *faults = api_json_get(params, "faults");
    int64_t count = 0;

    if (!faults || !prefix) {
        return err_set(e, -EINVAL, "faults without ports");
    }
    for (unsigned i = 0; i < SWITCH_PORTS; i++) {
        struct switch_port *p = switch_at(n->sw, i);

        if (p && p->user && str_starts(p->name, prefix)) {
            int rc = lan_port_rules(p, params, e);

            if (rc < 0) {
                return rc;
            }
            count++;
        }
    }
    if (!prefix[0]) {
        keep_faults(n, faults);
    }
    api_json_set_int(out, "ports", count);
    return 0;
}

static int set_hosts(struct lan *n, const struct json_object *params, struct err *e)
{
    struct gateway_host *hosts;
    size_t count;
    int rc = lan_hosts(params, &hosts, &count, e);

    if (rc < 0) {
        return rc;
    }
    if (n->gateway) {
        gateway_set_hosts(n->gateway, hosts, count);
    }
    free(n->hosts);
    n->hosts = hosts;
    return 0;
}

static int capture(struct switch_port *p, const struct json_object *params, int take_fd,
                   struct err *e)
{
    int64_t snaplen = api_json_get_int(params, "snaplen", 262144);

    if (take_fd < 0) {
        return err_set(e, -EINVAL, "a capture without a file");
    }
    if (p->pcap) {
        close(take_fd);
        return err_set(e, -EBUSY, "port '%s' is being captured already", p->name);
    }
    p->pcap = pcap_new(take_fd,
                       (unsigned)(snaplen < 64       ? 64
                                  : snaplen > 262144 ? 262144
                                                     : snaplen),
                       (uint64_t)api_json_get_int(params, "limit", 0));
    return 0;
}

static int serve(struct control *c, const char *method, const struct json_object *params,
                 struct json_object **out, struct err *e)
{
    struct lan *n = c->lan;
    const char *name = params ? api_json_get_str(params, "port") : NULL;
    struct switch_port *p = name ? switch_find(n->sw, name) : NULL;

    if (strcmp(method, "status") == 0) {
        json_object_put(*out);
        *out = status(n);
        return 0;
    }
    if (strcmp(method, "quit") == 0) {
        loop_quit(n->loop);
        return 0;
    }
    if (strcmp(method, "faults") == 0) {
        return set_faults(n, params, *out, e);
    }
    if (strcmp(method, "hosts") == 0) {
        return set_hosts(n, params, e);
    }
    if (!p) {
        return err_set(e, -ENOENT, "there is no port '%s'", name ? name : "?");
    }
    if (strcmp(method, "port") == 0) {
        return lan_port_rules(p, params, e);
    }
    if (strcmp(method, "capture") == 0) {
        return capture(p, params, rpc_conn_passed_fd(c->conn), e);
    }
    if (strcmp(method, "capture_stop") == 0) {
        api_json_set_int(*out, "frames", (int64_t)pcap_frames(p->pcap));
        pcap_free(p->pcap);
        p->pcap = NULL;
        return 0;
    }
    return err_set(e, -ENOSYS, "there is no method '%s'", method);
}

static void on_message(void *arg, struct rpc_conn *conn, struct json_object *msg)
{
    struct control *c = arg;
    const char *method = api_json_get_str(msg, "method");
    struct json_object *result = json_object_new_object();
    AUTO_JSON reply = json_object_new_object();
    struct err e = ERR_INIT;

    api_json_set_str(reply, "jsonrpc", "2.0");
    api_json_set(reply, "id", json_object_get(api_json_get(msg, "id")));
    if (!method || serve(c, method, api_json_get(msg, "params"), &result, &e) < 0) {
        struct api_error x = API_ERROR_INIT;

        json_object_put(result);
        api_error_from(&x, 0, NULL, NULL, &e);
        api_json_set(reply, "error", api_error_encode(&x));
    } else {
        api_json_set(reply, "result", result);
    }
    rpc_conn_send(conn, reply);
}

static void on_garbage(void *arg, struct rpc_conn *conn, const struct err *why)
{
    (void)arg;
    (void)why;
    rpc_conn_close(conn);
}

static void control_free(struct control *c)
{
    list_remove(&c->link);
    rpc_conn_free(c->conn);
    free(c);
}

static void on_closed(void *arg, struct rpc_conn *conn, const struct err *why)
{
    (void)conn;
    (void)why;
    control_free(arg);
}

static const struct rpc_conn_ops control_ops = { .message = on_message,
                                                 .garbage = on_garbage,
                                                 .closed = on_closed };

static void on_control(void *arg, int fd, unsigned events)
{
    struct lan *n = arg;
    int got = accept_one(fd);
    struct err e = ERR_INIT;
    struct control *c;

    (void)events;
    if (got < 0) {
        return;
    }
    c = xnew(struct control);
    c->lan = n;
    list_append(&n->controls, &c->link);
    c->conn = rpc_conn_new(n->loop, got, NULL, &control_ops, c, &e);
    if (!c->conn) {
        list_remove(&c->link);
        free(c);
        return;
    }
    rpc_conn_take_fds(c->conn);
}

/* --- all of it --- */

/* What a filter against foreign addresses lets the card use. */
static void on_lease(void *arg, const uint8_t mac[6], uint32_t ip)
{
    struct lan *n = arg;

    for (unsigned i = 0; i < SWITCH_PORTS; i++) {
        struct switch_port *p = switch_at(n->sw, i);

        if (p && p->user && memcmp(((struct member *)p->user)->mac, mac, 6) == 0) {
            p->filter.leased = ip;
        }
    }
}

static int set_up(struct lan *n, const char *config, struct err *e)
{
    struct gateway_options o;
    int rc = api_json_parse_max(config, strlen(config), 4u << 20, 16, &n->config, e);

    rc = rc < 0 ? rc : lan_gateway(n->config, &o, e);
    if (rc < 0) {
        return rc;
    }
    n->hosts = o.hosts;
    n->sw = switch_new(n->loop, o.name ? o.name : "network");
    if (o.address) {
        n->gateway = gateway_new(n->loop, &o, e);
        if (!n->gateway) {
            return e->code;
        }
        gateway_on_lease(n->gateway, on_lease, n);
        switch_add(n->sw, n->gateway, GATEWAY);
    }
    return 0;
}

struct lan *lan_new(struct loop *l, const char *config, int take_ports, int take_control,
                    struct err *e)
{
    struct lan *n = xnew(struct lan);

    n->loop = l;
    n->ports = take_ports;
    n->control = take_control;
    list_init(&n->joining);
    list_init(&n->controls);
    if (set_up(n, config, e) < 0) {
        lan_free(n);
        return NULL;
    }
    fd_set_nonblock(take_ports, true, NULL);
    fd_set_nonblock(take_control, true, NULL);
    n->ports_watch = loop_fd_new(l, take_ports, LOOP_READ, on_port, n);
    n->control_watch = loop_fd_new(l, take_control, LOOP_READ, on_control, n);
    return n;
}

void lan_free(struct lan *n)
{
    if (!n) {
        return;
    }
    while (!list_empty(&n->joining)) {
        joining_free(list_entry(n->joining.next, struct joining, link));
    }
    while (!list_empty(&n->controls)) {
        control_free(list_entry(n->controls.next, struct control, link));
    }
    for (unsigned i = 0; n->sw && i < SWITCH_PORTS; i++) {
        struct switch_port *p = switch_at(n->sw, i);

        if (p && p->user) {
            leave(p->user);
        }
    }
    switch_free(n->sw);
    loop_fd_free(n->ports_watch);
    loop_fd_free(n->control_watch);
    close(n->ports);
    close(n->control);
    free(n->hosts);
    json_object_put(n->config);
    json_object_put(n->faults);
    free(n);
}
