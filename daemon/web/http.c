/* SPDX-License-Identifier: Apache-2.0 */
/* Heads of requests and answers. No state; see http.h. */
#include "daemon/web/http.h"

#include "engine/base/mem.h"
#include "engine/base/str.h"

#include <string.h>
#include <strings.h>

#define ALNUM "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"

/* What counts while the fields are read. */
struct head {
    struct http_request *r;
    bool upgrade, connection, version; /* of a websocket */
    bool host, origin, bearer, key;    /* were there */
};

/* A value that fits, once. */
static int keep(char *to, size_t size, bool *seen, const char *value, size_t n)
{
    if (*seen || n == 0 || n >= size) {
        return -400;
    }
    *seen = true;
    memcpy(to, value, n);
    to[n] = 0;
    return 0;
}

static bool is(const char *text, size_t n, const char *word)
{
    return strlen(word) == n && strncasecmp(text, word, n) == 0;
}

/* Is the word one of a list with commas? */
static bool lists(const char *text, size_t n, const char *word)
{
    for (size_t at = 0; at < n;) {
        size_t end = at;
        while (end < n && text[end] != ',') {
            end++;
        }
        size_t last = end;
        while (at < last && (text[at] == ' ' || text[at] == '\t')) {
            at++;
        }
        while (last > at && (text[last - 1] == ' ' || text[last - 1] == '\t')) {
            last--;
        }
        if (is(text + at, last - at, word)) {
            return true;
        }
        at = end + 1;
    }
    return false;
}

static int on_host(struct head *h, const char *v, size_t n)
{
    return keep(h->r->host, sizeof(h->r->host), &h->host, v, n);
}

static int on_origin(struct head *h, const char *v, size_t n)
{
    return keep(h->r->origin, sizeof(h->r->origin), &h->origin, v, n);
}

static int on_key(struct head *h, const char *v, size_t n)
{
    bool good = n == 24 && v[22] == '=' && v[23] == '=';
    for (size_t i = 0; good && i < 22; i++) {
        good = strchr(ALNUM "+/", v[i]) != NULL;
    }
    return good ? keep(h->r->key, sizeof(h->r->key), &h->key, v, n) : -400;
}

static int on_authorization(struct head *h, const char *v, size_t n)
{
    if (n < 7 || strncasecmp(v, "Bearer ", 7) != 0) {
        return 0; /* whose, is not known here */
    }
    return keep(h->r->bearer, sizeof(h->r->bearer), &h->bearer, v + 7, n - 7);
}

/* Others may have cookies for this host, too. */
static int on_cookie(struct head *h, const char *v, size_t n)
{
    static const char name[] = HTTP_COOKIE "=";
    const size_t len = sizeof(name) - 1, hex = sizeof(h->r->session) - 1;
    for (size_t at = 0; at < n;) {
        while (at < n && (v[at] == ' ' || v[at] == ';')) {
            at++;
        }
        size_t end = at;
        while (end < n && v[end] != ';') {
            end++;
        }
        if (end - at == len + hex && memcmp(v + at, name, len) == 0) {
            memcpy(h->r->session, v + at + len, hex);
            h->r->session[hex] = 0;
        }
        at = end;
    }
    return 0;
}

static int on_connection(struct head *h, const char *v, size_t n)
{
    h->r->close |= lists(v, n, "close");
    h->connection |= lists(v, n, "upgrade");
    return 0;
}

static int on_upgrade(struct head *h, const char *v, size_t n)
{
    h->upgrade |= lists(v, n, "websocket");
    return 0;
}

static int on_version(struct head *h, const char *v, size_t n)
{
    h->version = is(v, n, "13");
    return h->version ? 0 : -426;
}

static int on_length(struct head *h, const char *v, size_t n)
{
    (void)h;
    return is(v, n, "0") ? 0 : -413;
}

static int on_encoding(struct head *h, const char *v, size_t n)
{
    (void)h;
    (void)v;
    (void)n;
    return -413; /* a body, of whatever length */
}

static const struct {
    const char *name;
    int (*take)(struct head *h, const char *value, size_t n);
} fields[] = {
    { "Host", on_host },
    { "Origin", on_origin },
    { "Cookie", on_cookie },
    { "Authorization", on_authorization },
    { "Connection", on_connection },
    { "Upgrade", on_upgrade },
    { "Sec-WebSocket-Key", on_key },
    { "Sec-WebSocket-Version", on_version },
    { "Content-Length", on_length },
    { "Transfer-Encoding", on_encoding },
};

/* One field; n counts no end of line. */
static int read_field(struct head *h, const char *line, size_t n)
{
    const char *colon = memchr(line, ':', n);
    size_t name = colon ? (size_t)(colon - line) : 0;
    if (name == 0) {
        return -400;
    }
    for (size_t i = 0; i < name; i++) {
        if (!line[i] || !strchr(ALNUM "!#$%&'*+-.^_`|~", line[i])) {
            return -400; /* a blank before the colon, or a folded line, too */
        }
    }
    for (size_t i = name; i < n; i++) {
        if ((unsigned char)line[i] < 0x20 && line[i] != '\t') {
            return -400;
        }
    }
    const char *v = colon + 1;
    size_t len = n - name - 1;
    while (len > 0 && (*v == ' ' || *v == '\t')) {
        v++;
        len--;
    }
    while (len > 0 && (v[len - 1] == ' ' || v[len - 1] == '\t')) {
        len--;
    }
    for (unsigned i = 0; i < ARRAY_LEN(fields); i++) {
        if (is(line, name, fields[i].name)) {
            return fields[i].take(h, v, len);
        }
    }
    return 0;
}

static int read_target(struct http_request *r, const char *text, size_t n)
{
    const char *mark = memchr(text, '?', n);
    size_t path = mark ? (size_t)(mark - text) : n, query = mark ? n - path - 1 : 0;
    if (n == 0 || text[0] != '/') {
        return -400;
    }
    if (path >= sizeof(r->path) || query >= sizeof(r->query)) {
        return -414;
    }
    for (size_t i = 0; i < n; i++) {
        if (i != path && (!text[i] || !strchr(ALNUM "-._~/=&", text[i]))) {
            return -400; /* nothing here has a name that needs escapes */
        }
    }
    memcpy(r->path, text, path);
    memcpy(r->query, mark ? mark + 1 : "", query);
    return 0;
}

static int read_request_line(struct http_request *r, const char *line, size_t n)
{
    static const char version[] = " HTTP/1.1";
    const size_t tail = sizeof(version) - 1;
    const char *blank = memchr(line, ' ', n);
    size_t method = blank ? (size_t)(blank - line) : 0;
    if (method == 0 || n < method + 1 + tail) {
        return -400;
    }
    if (memcmp(line + n - tail, version, tail) != 0) {
        return memmem(line, n, " HTTP/", 6) ? -505 : -400;
    }
    r->post = method == 4 && memcmp(line, "POST", 4) == 0;
    if (!r->post && (method != 3 || memcmp(line, "GET", 3) != 0)) {
        return -405;
    }
    return read_target(r, line + method + 1, n - tail - method - 1);
}

int http_parse(const char *text, size_t n, struct http_request *r)
{
    struct head h = { .r = r };
    size_t at = 0;
    const char *end = memmem(text, n < HTTP_HEAD_MAX ? n : HTTP_HEAD_MAX, "\r\n\r\n", 4);
    memset(r, 0, sizeof(*r));
    if (!end) {
        return n >= HTTP_HEAD_MAX ? -431 : 0;
    }
    size_t all = (size_t)(end - text) + 2; /* with the end of the last line */
    for (unsigned i = 0; at < all; i++) {
        const char *stop = memmem(text + at, all - at, "\r\n", 2);
        size_t len = (size_t)(stop - (text + at));
        int rc = i == 0                ? read_request_line(r, text, len)
                 : i > HTTP_FIELDS_MAX ? -431
                                       : read_field(&h, text + at, len);
        if (rc < 0) {
            return rc;
        }
        at += len + 2;
    }
    if (!h.host) {
        return -400;
    }
    r->websocket = h.upgrade && h.connection && h.version && h.key && !r->post;
    return (int)all + 2;
}

/* ---- answers ---- */

const char *http_status_text(int status)
{
    static const struct {
        int status;
        const char *text;
    } all[] = {
        { 101, "Switching Protocols" },
        { 200, "OK" },
        { 204, "No Content" },
        { 400, "Bad Request" },
        { 401, "Unauthorized" },
        { 403, "Forbidden" },
        { 404, "Not Found" },
        { 405, "Method Not Allowed" },
        { 413, "Content Too Large" },
        { 414, "URI Too Long" },
        { 426, "Upgrade Required" },
        { 431, "Request Header Fields Too Large" },
        { 500, "Internal Server Error" },
        { 503, "Service Unavailable" },
        { 505, "HTTP Version Not Supported" },
    };
    for (unsigned i = 0; i < ARRAY_LEN(all); i++) {
        if (all[i].status == status) {
            return all[i].text;
        }
    }
    return "Error";
}

void http_answer(struct buf *to, int status, const char *type, const char *more,
                 const void *body, size_t n, bool close)
{
    /* Styles: the terminal and noVNC set them from their scripts. */
    buf_printf(to,
               "HTTP/1.1 %d %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\n"
               "Content-Security-Policy: default-src 'self'; style-src 'self' 'unsafe-inline'; "
               "img-src 'self' data: blob:; "
               "frame-ancestors 'none'; base-uri 'none'; form-action 'self'\r\n"
               "X-Content-Type-Options: nosniff\r\nReferrer-Policy: "
               "no-referrer\r\nCache-Control: no-store\r\n"
               "Strict-Transport-Security: max-age=31536000\r\n%s%s\r\n",
               status, http_status_text(status), type, n, more ? more : "",
               close ? "Connection: close\r\n" : "");
    buf_add(to, n ? body : "", n);
}
