/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading by libxml2's stream of events, writing by hand. Owns nothing between calls. Any thread.
 */
#include "daemon/xml/tree.h"

#include "api-schema/json/json.h"
#include "engine/base/mem.h"
#include "engine/base/str.h"

#include <errno.h>
#include <libxml/parser.h>
#include <libxml/parserInternals.h>
#include <string.h>
#include <strings.h>

#define XML_URI "http://www.w3.org/XML/1998/namespace"

/* ---- the tree ---- */

struct xml_node *xml_node_new(struct xml_node *parent, const char *name)
{
    struct xml_node *n = xnew(struct xml_node);

    n->name = name ? xstrdup(name) : NULL;
    if (parent) {
        xml_adopt(parent, n);
    }
    return n;
}

void xml_adopt(struct xml_node *n, struct xml_node *take_kid)
{
    if (n->n_kids == n->cap_kids) {
        n->cap_kids = n->cap_kids ? n->cap_kids * 2 : 4;
        n->kids = xrealloc_n(n->kids, n->cap_kids, sizeof(*n->kids));
    }
    take_kid->parent = n;
    n->kids[n->n_kids++] = take_kid;
}

void xml_node_free(struct xml_node *n)
{
    if (!n) {
        return;
    }
    for (size_t i = 0; i < n->n_kids; i++) {
        xml_node_free(n->kids[i]); /* at most XML_MAX_DEPTH deep */
    }
    for (size_t i = 0; i < n->n_attrs; i++) {
        free(n->attrs[i].name);
        free(n->attrs[i].uri);
        free(n->attrs[i].value);
    }
    free(n->kids);
    free(n->attrs);
    free(n->name);
    free(n->uri);
    free(n->text);
    free(n);
}

void xml_node_drop(struct xml_node *parent, struct xml_node *last)
{
    parent->n_kids--;
    xml_node_free(last);
}

static void add_attr(struct xml_node *n, char *take_name, char *take_uri, char *take_value)
{
    n->attrs = xrealloc_n(n->attrs, n->n_attrs + 1, sizeof(*n->attrs));
    n->attrs[n->n_attrs++] = (struct xml_attr){ take_name, take_uri, take_value };
}

void xml_set_attr(struct xml_node *n, const char *name, const char *value)
{
    for (size_t i = 0; i < n->n_attrs; i++) {
        if (strcmp(n->attrs[i].name, name) == 0) {
            free(n->attrs[i].value);
            n->attrs[i].value = xstrdup(value);
            return;
        }
    }
    add_attr(n, xstrdup(name), NULL, xstrdup(value));
}

void xml_add_text(struct xml_node *n, const char *text)
{
    if (text[0]) {
        struct xml_node *t = xml_node_new(n, NULL);
        t->text = xstrdup(text);
    }
}

const char *xml_get_attr(const struct xml_node *n, const char *name)
{
    for (size_t i = 0; i < n->n_attrs; i++) {
        if (strcmp(n->attrs[i].name, name) == 0) {
            return n->attrs[i].value;
        }
    }
    return NULL;
}

const struct xml_node *xml_get_kid(const struct xml_node *n, const char *name)
{
    for (size_t i = 0; i < n->n_kids; i++) {
        if (n->kids[i]->name && strcmp(n->kids[i]->name, name) == 0) {
            return n->kids[i];
        }
    }
    return NULL;
}

char *xml_text(const struct xml_node *n)
{
    AUTO_BUF b = BUF_INIT;

    for (size_t i = 0; i < n->n_kids; i++) {
        if (n->kids[i]->text) {
            buf_add_str(&b, n->kids[i]->text);
        }
    }
    return buf_take(&b);
}

bool xml_blank(const char *text)
{
    return text[strspn(text, " \t\r\n")] == 0;
}

bool xml_can_say(const char *text)
{
    for (const char *p = text; *p; p++) {
        if ((unsigned char)*p < 0x20 && !strchr("\t\r\n", *p)) {
            return false;
        }
        if (strncmp(p, "\xef\xbf\xbe", 3) == 0 || strncmp(p, "\xef\xbf\xbf", 3) == 0) {
            return false; /* U+FFFE, U+FFFF */
        }
    }
    return true;
}

/* ---- reading ---- */

struct reader {
    xmlParserCtxtPtr parser;
    struct xml_node *root, *at;
    size_t nodes;
    unsigned depth;
    struct err *e;
    bool failed;
    /* A piece of text that grows. */
    struct buf text;
};

static void fail(struct reader *r, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* The first mistake is told; the parser stops there. */
static void fail(struct reader *r, const char *fmt, ...)
{
    AUTO_BUF b = BUF_INIT;
    va_list ap;

    if (r->failed) {
        return;
    }
    r->failed = true;
    va_start(ap, fmt);
    buf_vprintf(&b, fmt, ap);
    va_end(ap);
    err_set(r->e, -EINVAL, "line %d: %s", xmlSAX2GetLineNumber(r->parser), b.data);
    xmlStopParser(r->parser);
}

static void on_error(void *arg, xmlErrorPtr x)
{
    struct reader *r = arg;
    char line[200];

    if (x->level < XML_ERR_ERROR || r->failed) {
        return;
    }
    str_copy(line, sizeof(line), x->message ? x->message : "not well-formed");
    line[strcspn(line, "\r\n")] = 0;
    if (x->code == XML_ERR_DOCUMENT_END) { /* libxml2's words for it mislead */
        str_copy(line, sizeof(line),
                 !r->root ? "there is no whole element"
                 : r->at  ? "the document ends too early"
                          : "something stands behind the root element");
    }
    r->failed = true;
    err_set(r->e, -EINVAL, "line %d: not well-formed: %s", x->line, line);
    xmlStopParser(r->parser);
}

static void flush_text(struct reader *r)
{
    if (r->text.len && r->at) {
        xml_add_text(r->at, r->text.data);
    }
    r->text.len = 0;
}

static char *qname(const xmlChar *prefix, const xmlChar *local)
{
    return prefix ? xasprintf("%s:%s", (const char *)prefix, (const char *)local)
                  : xstrdup((const char *)local);
}

static void on_start(void *arg, const xmlChar *local, const xmlChar *prefix, const xmlChar *uri,
                     int n_ns, const xmlChar **ns, int n_attrs, int n_default,
                     const xmlChar **attrs)
{
    struct reader *r = arg;
    struct xml_node *n;

    (void)n_ns;
    (void)ns;
    (void)n_default;
    if (r->failed) {
        return;
    }
    flush_text(r);
    if (++r->depth > XML_MAX_DEPTH) {
        fail(r, "<%s>: elements stand more than %d deep within one another",
             (const char *)local, XML_MAX_DEPTH);
        return;
    }
    if (++r->nodes > XML_MAX_NODES) {
        fail(r, "<%s>: more than %d elements", (const char *)local, XML_MAX_NODES);
        return;
    }
    if (n_attrs > XML_MAX_ATTRS) {
        fail(r, "<%s>: more than %d attributes", (const char *)local, XML_MAX_ATTRS);
        return;
    }
    n = xml_node_new(r->at, NULL);
    n->name = qname(prefix, local);
    n->uri = uri ? xstrdup((const char *)uri) : NULL;
    n->line = (unsigned)xmlSAX2GetLineNumber(r->parser);
    for (int i = 0; i < n_attrs; i++) {
        const xmlChar **a = attrs + (size_t)i * 5; /* local, prefix, URI, value, its end */
        add_attr(n, qname(a[1], a[0]), a[2] ? xstrdup((const char *)a[2]) : NULL,
                 xstrndup((const char *)a[3], (size_t)(a[4] - a[3])));
    }
    if (!r->root) {
        r->root = n;
    }
    r->at = n;
}

static void on_end(void *arg, const xmlChar *local, const xmlChar *prefix, const xmlChar *uri)
{
    struct reader *r = arg;

    (void)local;
    (void)prefix;
    (void)uri;
    if (!r->failed && r->at) {
        flush_text(r);
        r->at = r->at->parent;
        r->depth--;
    }
}

static void on_text(void *arg, const xmlChar *p, int n)
{
    struct reader *r = arg;

    if (!r->failed) {
        buf_add(&r->text, p, (size_t)n);
    }
}

static void on_doctype(void *arg, const xmlChar *name, const xmlChar *id, const xmlChar *system)
{
    (void)name;
    (void)id;
    (void)system;
    fail(arg, "<!DOCTYPE>: a document type (DTD) is not accepted");
}

static void on_pi(void *arg, const xmlChar *target, const xmlChar *data)
{
    (void)data;
    fail(arg, "<?%s?>: processing instructions are not accepted", (const char *)target);
}

static unsigned line_of(const char *text, size_t at)
{
    unsigned line = 1;

    for (size_t i = 0; i < at; i++) {
        line += text[i] == '\n';
    }
    return line;
}

/* What libxml2 need not see: sizes, bytes that are no UTF-8. */
static int check_bytes(const char *text, size_t len, struct err *e)
{
    if (len > XML_MAX_SIZE) {
        return err_set(e, -EMSGSIZE, "line 1: the XML is larger than %d KiB",
                       XML_MAX_SIZE / 1024);
    }
    if (len == 0) {
        return err_set(e, -EINVAL, "line 1: the XML is empty");
    }
    for (size_t i = 0; i < len;) {
        size_t n = api_utf8_len(text + i, len - i);
        if (n == 0 || text[i] == 0) {
            return err_set(e, -EINVAL, "line %u: byte %zu (0x%02x) is not UTF-8 text",
                           line_of(text, i), i + 1, (unsigned char)text[i]);
        }
        i += n;
    }
    return 0;
}

/* The declaration may name no other encoding than the one that the text is in. */
static int check_declaration(const char *text, size_t len, struct err *e)
{
    AUTO_FREE char *head = xstrndup(text, len < 256 ? len : 256);
    char *at, *end = strstr(head, "?>");
    size_t n;

    if (!str_starts(head, "<?xml") || !end) {
        return 0;
    }
    *end = 0;
    at = strstr(head, "encoding");
    if (!at) {
        return 0;
    }
    at += strlen("encoding");
    at += strspn(at, " \t\r\n=");
    n = *at ? strcspn(at + 1, "'\"") : 0;
    if (n == 0 || (n == 5 && strncasecmp(at + 1, "utf-8", 5) == 0) ||
        (n == 8 && strncasecmp(at + 1, "us-ascii", 8) == 0)) {
        return 0;
    }
    return err_set(e, -EINVAL, "line 1: encoding '%.*s' is not accepted, only UTF-8",
                   (int)(n > 40 ? 40 : n), at + 1);
}

struct xml_node *xml_read(const char *text, size_t len, struct err *e)
{
    struct reader r = { .e = e, .text = BUF_INIT };
    xmlSAXHandler sax = {
        .initialized = XML_SAX2_MAGIC,
        .startElementNs = on_start,
        .endElementNs = on_end,
        .characters = on_text,
        .cdataBlock = on_text,
        .internalSubset = on_doctype,
        .processingInstruction = on_pi,
        .serror = on_error,
    };

    if (len >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0) {
        text += 3;
        len -= 3;
    }
    if (check_bytes(text, len, e) < 0 || check_declaration(text, len, e) < 0) {
        return NULL;
    }
    r.parser = xmlCreatePushParserCtxt(&sax, &r, NULL, 0, NULL);
    if (!r.parser) {
        err_set(e, -ENOMEM, "line 1: no memory to read the XML");
        return NULL;
    }
    /* Without NOENT, &amp; in an attribute comes as the text "&#38;". No entity but the five of XML can be replaced by it: a
     * document type ends the reading before it could declare one. */
    xmlCtxtUseOptions(r.parser, XML_PARSE_NONET | XML_PARSE_NOENT);
    (void)xmlParseChunk(r.parser, text, (int)len, 1);
    if (!r.failed && (!r.parser->wellFormed || !r.root || r.at)) {
        fail(&r, "not well-formed: the document ends too early");
    }
    xmlFreeParserCtxt(r.parser);
    buf_done(&r.text);
    if (r.failed) {
        xml_node_free(r.root);
        return NULL;
    }
    return r.root;
}

/* ---- writing ---- */

static void add_escaped(struct buf *b, const char *text, bool attr)
{
    for (const char *p = text; *p; p++) {
        switch (*p) {
        case '&':
            buf_add_str(b, "&amp;");
            break;
        case '<':
            buf_add_str(b, "&lt;");
            break;
        case '>':
            buf_add_str(b, "&gt;");
            break;
        case '\'':
            buf_add_str(b, attr ? "&apos;" : "'");
            break;
        case '\r':
            buf_add_str(b, "&#13;");
            break;
        case '\n':
        case '\t':
            if (attr) {
                buf_printf(b, "&#%d;", *p);
                break;
            }
            /* fall through */
        default:
            buf_add_char(b, *p);
        }
    }
}

/* Is the prefix of this name bound to the URI on the way up to `top`? Also by an attribute's need. */
static bool bound(const struct xml_node *n, const char *name, const char *uri)
{
    size_t len = strcspn(name, ":");
    bool none = name[len] == 0;

    for (const struct xml_node *up = n->parent; up; up = up->parent) {
        size_t k = up->name ? strcspn(up->name, ":") : 0;
        bool same = none ? up->name[k] == 0
                         : up->name[k] && k == len && strncmp(up->name, name, k) == 0;
        if (same) {
            return up->uri ? uri && strcmp(up->uri, uri) == 0 : !uri;
        }
    }
    return none && !uri;
}

static void add_namespace(struct buf *b, const char *name, const char *uri)
{
    size_t len = strcspn(name, ":");

    buf_add_str(b, " xmlns");
    if (name[len]) {
        buf_printf(b, ":%.*s", (int)len, name);
    }
    buf_add_str(b, "='");
    add_escaped(b, uri ? uri : "", true);
    buf_add_char(b, '\'');
}

static bool same_prefix(const char *a, const char *b)
{
    size_t n = strcspn(a, ":"), k = strcspn(b, ":");

    return a[n] && b[k] && n == k && strncmp(a, b, n) == 0;
}

static void add_namespaces(struct buf *b, const struct xml_node *n)
{
    if (!bound(n, n->name, n->uri)) {
        add_namespace(b, n->name, n->uri);
    }
    /* Those of attributes are declared at each element that has them: only elements are looked up. */
    for (size_t i = 0; i < n->n_attrs; i++) {
        const struct xml_attr *a = &n->attrs[i];
        bool told = !a->uri || strcmp(a->uri, XML_URI) == 0 || same_prefix(a->name, n->name);
        for (size_t k = 0; k < i && !told; k++) {
            told = same_prefix(a->name, n->attrs[k].name);
        }
        if (!told) {
            add_namespace(b, a->name, a->uri);
        }
    }
}

void xml_write(struct buf *b, const struct xml_node *n, unsigned level)
{
    bool mixed = false;

    buf_printf(b, "<%s", n->name);
    add_namespaces(b, n);
    for (size_t i = 0; i < n->n_attrs; i++) {
        buf_printf(b, " %s='", n->attrs[i].name);
        add_escaped(b, n->attrs[i].value, true);
        buf_add_char(b, '\'');
    }
    if (!n->n_kids) {
        buf_add_str(b, "/>");
        return;
    }
    buf_add_char(b, '>');
    for (size_t i = 0; i < n->n_kids; i++) {
        mixed |= n->kids[i]->text && (n->n_kids == 1 || !xml_blank(n->kids[i]->text));
    }
    for (size_t i = 0; i < n->n_kids; i++) {
        const struct xml_node *k = n->kids[i];
        if (k->text) {
            add_escaped(b, mixed ? k->text : "", false);
            continue;
        }
        if (!mixed) {
            buf_printf(b, "\n%*s", (int)(level + 1) * 2, "");
        }
        xml_write(b, k, level + 1);
    }
    if (!mixed) {
        buf_printf(b, "\n%*s", (int)level * 2, "");
    }
    buf_printf(b, "</%s>", n->name);
}
