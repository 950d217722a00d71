/* SPDX-License-Identifier: Apache-2.0 */
/* Reads and writes addresses of NBD exports, and connects to them. Owns nothing; any thread. */
#include "api-schema/net/nbdaddr.h"

#include "engine/base/buf.h"
#include "engine/base/fd.h"
#include "engine/base/mem.h"
#include "engine/base/str.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define TCP "nbd://"
#define UNIX "nbd+unix://"
#define TLS_TCP "nbds://"
#define TLS_UNIX "nbds+unix://"
#define DEFAULT_PORT "10809"
enum { CONNECT_MS = 5000, IDLE_S = 20, PROBES = 3, PROBE_S = 5, UNANSWERED_MS = 30000 };

bool nbd_addr_is(const char *uri)
{
    return uri && (str_starts(uri, TCP) || str_starts(uri, UNIX) || str_starts(uri, TLS_TCP) ||
           str_starts(uri, TLS_UNIX));
}

static int bad(const char *uri, const char *what, struct err *e)
{
    return err_set(e, -EINVAL, "%.200s: %s", uri, what);
}

static int hex(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

/* "%41" is "A". False: no such thing, or it has no room. */
static bool decode(const char *p, size_t n, char *out, size_t room)
{
    size_t at = 0;

    for (size_t i = 0; i < n; i++) {
        int high = p[i] == '%' && n - i > 2 ? hex(p[i + 1]) : -1,
            low = high >= 0 ? hex(p[i + 2]) : -1;

        if (at + 1 >= room || (p[i] == '%' && (low < 0 || high * 16 + low == 0))) {
            return false;
        }
        out[at++] = p[i] == '%' ? (char)(high * 16 + low) : p[i];
        i += p[i] == '%' ? 2 : 0;
    }
    out[at] = 0;
    return true;
}

/* HOST, HOST:PORT, [IPv6]:PORT */
static int parse_host(const char *uri, const char *p, size_t n, struct nbd_addr *a,
                      struct err *e)
{
    const char *end = p + n, *close = *p == '[' ? memchr(p, ']', n) : NULL;
    const char *colon = close ? close + 1 : memchr(p, ':', n);
    const char *port = DEFAULT_PORT;
    size_t len = close   ? (size_t)(close - p - 1)
                 : colon ? (size_t)(colon - p)
                         : n,
           digits = sizeof(DEFAULT_PORT) - 1;

    if (colon && colon < end) {
        port = colon + 1;
        digits = (size_t)(end - port);
    }
    if (len == 0 || !decode(p + (close != NULL), len, a->host, sizeof(a->host))) {
        return bad(uri, "no host", e);
    }
    if ((close && colon < end && *colon != ':') || digits == 0 || digits > 5 ||
        strspn(port, "0123456789") < digits) {
        return bad(uri, "no port", e);
    }
    snprintf(a->port, sizeof(a->port), "%.*s", (int)digits, port);
    return atoi(a->port) > 0 && atoi(a->port) < 65536 ? 0 : bad(uri, "no port", e);
}

static int parse_query(const char *uri, const char *query, bool local, struct nbd_addr *a,
                       struct err *e)
{
    const struct {
        const char *key;
        bool known;
        char *to;
        size_t room;
    } keys[] = { { "socket=", local, a->path, sizeof(a->path) },
                 { "tls-certificates=", a->tls, a->certificates, sizeof(a->certificates) },
                 { "tls-hostname=", a->tls, a->tls_host, sizeof(a->tls_host) } };

    while (query && *query) {
        size_t n = strcspn(query, "&"), i = 0, len;

        while (i < ARRAY_LEN(keys) && !(keys[i].known && str_starts(query, keys[i].key))) {
            i++;
        }
        len = i < ARRAY_LEN(keys) ? strlen(keys[i].key) : 0;
        if (len == 0 || keys[i].to[0] ||
            !decode(query + len, n - len, keys[i].to, keys[i].room)) {
            return bad(
                uri,
                a->tls  ? "after '?' come tls-certificates=FOLDER, tls-hostname=NAME and, of "
                          "a unix socket, socket=PATH, each once"
                : local ? "after '?' comes socket=PATH of at most 107 bytes, once"
                        : "nothing is known that could come after '?'",
                e);
        }
        query += n + (query[n] == '&');
    }
    if (a->tls && a->certificates[0] != '/') {
        return bad(uri, "TLS needs a folder with ca-cert.pem: ?tls-certificates=/FOLDER", e);
    }
    return local && a->path[0] != '/' ? bad(uri, "'?socket=' names no absolute path", e) : 0;
}

int nbd_addr_parse(const char *uri, struct nbd_addr *out, struct err *e)
{
    bool tls = str_starts(uri, TLS_TCP) || str_starts(uri, TLS_UNIX);
    bool local = str_starts(uri, UNIX) || str_starts(uri, TLS_UNIX);
    struct nbd_addr a = { .tls = tls };
    const char *at, *end, *query;
    size_t n;
    int rc;

    if (!nbd_addr_is(uri)) {
        return bad(uri, "no address of an NBD export", e);
    }
    at = uri + (local ? sizeof(UNIX) : sizeof(TCP)) - 1 + tls;
    n = strcspn(at, "/?");
    rc = local && n > 0
             ? bad(uri, "a unix socket has no host: nbd+unix:///EXPORT?socket=PATH", e)
         : local ? 0
                 : parse_host(uri, at, n, &a, e);
    end = at + n;
    query = strchr(end, '?');
    if (rc == 0 && *end == '/') {
        end++;
        if (!decode(end, query ? (size_t)(query - end) : strlen(end), a.export,
                    sizeof(a.export))) {
            rc = bad(uri, "the export's name is too long, or has a bad '%'", e);
        }
    }
    if (rc == 0) {
        rc = parse_query(uri, query ? query + 1 : NULL, local, &a, e);
    }
    if (rc == 0) {
        *out = a;
    }
    return rc;
}

static void encode(struct buf *b, const char *text, const char *plain)
{
    for (; *text; text++) {
        unsigned char c = (unsigned char)*text;

        if ((c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
            strchr(plain, c)) {
            buf_add_char(b, (char)c);
        } else {
            buf_printf(b, "%%%02X", c);
        }
    }
}

static void add_tls(struct buf *b, const struct nbd_addr *a, char first)
{
    if (a->tls) {
        buf_printf(b, "%ctls-certificates=", first);
        encode(b, a->certificates, "-._~/");
    }
    if (a->tls && a->tls_host[0]) {
        buf_add_str(b, "&tls-hostname=");
        encode(b, a->tls_host, "-._~:");
    }
}

char *nbd_addr_text(const struct nbd_addr *a)
{
    struct buf b = BUF_INIT;

    if (a->path[0]) {
        buf_add_str(&b, a->tls ? TLS_UNIX "/" : UNIX "/");
        encode(&b, a->export, "-._~/");
        buf_add_str(&b, "?socket=");
        encode(&b, a->path, "-._~/");
        add_tls(&b, a, '&');
        return buf_take(&b);
    }
    bool six = strchr(a->host, ':') != NULL;
    buf_add_str(&b, a->tls ? TLS_TCP : TCP);
    buf_add_str(&b, six ? "[" : "");
    encode(&b, a->host, "-._~:");
    buf_add_str(&b, six ? "]" : "");
    if (strcmp(a->port, DEFAULT_PORT) != 0) {
        buf_printf(&b, ":%s", a->port);
    }
    buf_add_char(&b, '/');
    encode(&b, a->export, "-._~/");
    add_tls(&b, a, '?');
    return buf_take(&b);
}

const char *nbd_addr_tls_host(const struct nbd_addr *a)
{
    return a->tls_host[0] ? a->tls_host : a->path[0] ? "localhost" : a->host;
}

/* --- connecting --- */

static int connect_within(int fd, const struct addrinfo *to)
{
    struct pollfd p = { .fd = fd, .events = POLLOUT };
    socklen_t n = sizeof(int);
    int error = 0;

    if (connect(fd, to->ai_addr, to->ai_addrlen) == 0) {
        return 0;
    }
    if (errno != EINPROGRESS) {
        return -errno;
    }
    if (poll(&p, 1, CONNECT_MS) <= 0) {
        return -ETIMEDOUT;
    }
    return getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &n) != 0 ? -errno : -error;
}

/* A peer that has vanished is noticed within half a minute, by what is sent and by silence. */
static void tune(int fd)
{
    const struct {
        int level, name, value;
    } options[] = { { IPPROTO_TCP, TCP_NODELAY, 1 },
                    { SOL_SOCKET, SO_KEEPALIVE, 1 },
                    { IPPROTO_TCP, TCP_KEEPIDLE, IDLE_S },
                    { IPPROTO_TCP, TCP_KEEPCNT, PROBES },
                    { IPPROTO_TCP, TCP_KEEPINTVL, PROBE_S },
                    { IPPROTO_TCP, TCP_USER_TIMEOUT, UNANSWERED_MS } };

    for (size_t i = 0; i < sizeof(options) / sizeof(options[0]); i++) {
        (void)setsockopt(fd, options[i].level, options[i].name, &options[i].value, sizeof(int));
    }
}

static int connect_tcp(const struct nbd_addr *a, struct err *e)
{
    const struct addrinfo hints = { .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM };
    struct addrinfo *list = NULL;
    int rc = getaddrinfo(a->host, a->port, &hints, &list), why = -EADDRNOTAVAIL;
    AUTO_FD fd = -1;

    if (rc != 0) {
        return err_set(e, -EHOSTUNREACH, "host '%s': %s", a->host, gai_strerror(rc));
    }
    for (const struct addrinfo *i = list; i && fd < 0; i = i->ai_next) {
        fd = socket(i->ai_family, i->ai_socktype | SOCK_CLOEXEC | SOCK_NONBLOCK,
                    i->ai_protocol);
        why = fd < 0 ? -errno : connect_within(fd, i);
        if (why != 0) {
            fd_autoclose(&fd);
            fd = -1;
        }
    }
    freeaddrinfo(list);
    if (fd < 0) {
        return err_errno(e, -why, "cannot connect to the NBD server %s, port %s", a->host,
                         a->port);
    }
    tune(fd);
    return take_fd(&fd);
}

/* A server that takes no connections is an error at once: whoever waits for us has more to do. */
static int connect_unix(const struct nbd_addr *a, struct err *e)
{
    struct sockaddr_un to = { .sun_family = AF_UNIX };
    AUTO_FD fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    str_copy(to.sun_path, sizeof(to.sun_path), a->path);
    if (fd < 0 || connect(fd, (const struct sockaddr *)&to, sizeof(to)) != 0) {
        return err_errno(e, errno, "cannot connect to the NBD server at %s", a->path);
    }
    return take_fd(&fd);
}

int nbd_addr_connect(const struct nbd_addr *a, struct err *e)
{
    return a->path[0] ? connect_unix(a, e) : connect_tcp(a, e);
}
