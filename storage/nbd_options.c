/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The NBD server's handshake: fixed newstyle options. Everything a client sends is checked against the length of
 * its option before it is used. Loop thread.
 */
#include "engine/base/mem.h"
#include "storage/nbd_server.h"

#include <stdarg.h>
#include <string.h>

static const char *const plain_contexts[] = {
    [NBD_CTX_ALLOCATION] = "base:allocation",
    [NBD_CTX_DEPTH] = "qemu:allocation-depth",
};
#define BITMAP_CONTEXT "qemu:dirty-bitmap:"

static void reply(struct nbd_client *c, uint32_t type, const void *p, size_t n)
{
    AUTO_FREE uint8_t *head = xalloc(20 + n);

    put64(head, NBD_REPLY_MAGIC);
    put32(head + 8, c->option);
    put32(head + 12, type);
    put32(head + 16, (uint32_t)n);
    if (n) {
        memcpy(head + 20, p, n);
    }
    nbd_send(c, head, 20 + n, NULL, 0, NULL);
}

static void refuse(struct nbd_client *c, uint32_t type, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

static void refuse(struct nbd_client *c, uint32_t type, const char *fmt, ...)
{
    AUTO_BUF b = BUF_INIT;
    va_list ap;

    va_start(ap, fmt);
    buf_vprintf(&b, fmt, ap);
    va_end(ap);
    reply(c, type, b.data, b.len < NBD_NAME_MAX ? b.len : NBD_NAME_MAX);
}

uint16_t nbd_export_flags(const struct nbd_client *c, const struct nbd_export *x)
{
    unsigned flags = NBD_HAS_FLAGS | NBD_SEND_FLUSH | NBD_SEND_FUA | NBD_MULTI_CONN |
                     NBD_SEND_CACHE;

    flags |= x->writable ? NBD_SEND_TRIM | NBD_SEND_ZEROES : NBD_READ_ONLY;
    return (uint16_t)(flags | (c->structured ? NBD_SEND_DF : 0));
}

/* --- list --- */

static void do_list(struct nbd_client *c)
{
    if (c->option_length) {
        refuse(c, NBD_ERR_INVALID, "the option LIST has no data");
        return;
    }
    list_for_each (it, nbd_exports(c)) {
        const struct nbd_export *x = list_entry(it, struct nbd_export, link);
        size_t n = strlen(x->name), d = x->description ? strlen(x->description) : 0;
        AUTO_FREE uint8_t *p = xalloc(4 + n + d + 1);

        put32(p, (uint32_t)n);
        memcpy(p + 4, x->name, n);
        if (d) {
            memcpy(p + 4 + n, x->description, d);
        }
        reply(c, NBD_REP_SERVER, p, 4 + n + d);
    }
    reply(c, NBD_REP_ACK, NULL, 0);
}

/* --- info and go --- */

static void info_text(struct nbd_client *c, uint16_t type, const char *text)
{
    size_t n = strlen(text);
    AUTO_FREE uint8_t *p = xalloc(2 + n);

    put16(p, type);
    memcpy(p + 2, text, n);
    reply(c, NBD_REP_INFO, p, 2 + n);
}

static void tell_info(struct nbd_client *c, const struct nbd_export *x, const uint8_t *asked,
                      unsigned n)
{
    uint8_t p[14];

    put16(p, NBD_INFO_EXPORT);
    put64(p + 2, blk_size(x->node));
    put16(p + 10, nbd_export_flags(c, x));
    reply(c, NBD_REP_INFO, p, 12);
    for (unsigned i = 0; i < n; i++) {
        switch (get16(asked + 2 * i)) {
        case NBD_INFO_NAME:
            info_text(c, NBD_INFO_NAME, x->name);
            break;
        case NBD_INFO_DESCRIPTION:
            if (x->description) {
                info_text(c, NBD_INFO_DESCRIPTION, x->description);
            }
            break;
        default: /* of others we know nothing, and block sizes are told below */
            break;
        }
    }
    put16(p, NBD_INFO_BLOCK_SIZE);
    put32(p + 2, 1);
    put32(p + 6, 65536);
    put32(p + 10, NBD_REQUEST_MAX);
    reply(c, NBD_REP_INFO, p, 14);
}

static void do_info(struct nbd_client *c, const uint8_t *p)
{
    uint32_t n = c->option_length, name_n, asked;
    struct nbd_export *x;

    if (n < 6 || (name_n = get32(p)) > n - 6) {
        refuse(c, NBD_ERR_INVALID, "the lengths in this option do not fit");
        return;
    }
    asked = get16(p + 4 + name_n);
    if (name_n > NBD_NAME_MAX || n != 6 + name_n + 2 * asked) {
        refuse(c, NBD_ERR_INVALID, "the lengths in this option do not fit");
        return;
    }
    x = nbd_export_find(c->server, (const char *)p + 4, name_n);
    if (!x) {
        refuse(c, NBD_ERR_UNKNOWN, "there is no export '%.*s'", (int)name_n,
               (const char *)p + 4);
        return;
    }
    tell_info(c, x, p + 6 + name_n, asked);
    reply(c, NBD_REP_ACK, NULL, 0);
    if (c->option == NBD_OPT_GO) {
        nbd_enter(c, x);
    }
}

static void do_export_name(struct nbd_client *c, const uint8_t *p)
{
    struct nbd_export *x = nbd_export_find(c->server, (const char *)p, c->option_length);
    uint8_t head[134] = { 0 };

    if (!x) {
        nbd_end(c, true); /* this old option knows no other way to refuse */
        return;
    }
    put64(head, blk_size(x->node));
    put16(head + 8, nbd_export_flags(c, x));
    nbd_send(c, head, c->no_zeroes ? 10 : 134, NULL, 0, NULL);
    nbd_enter(c, x);
}

/* --- metadata contexts --- */

static char *context_name(const struct nbd_export *x, unsigned i)
{
    if (i == NBD_CTX_BITMAP) {
        return x->bitmap ? xasprintf(BITMAP_CONTEXT "%s", x->bitmap_name) : NULL;
    }
    return xstrdup(plain_contexts[i]);
}

/* Of a query, when listing also "qemu:" or "base:" alone and "qemu:dirty-bitmap:". */
static bool query_fits(const char *name, const char *query, size_t n, bool listing)
{
    if (strlen(name) == n && memcmp(name, query, n) == 0) {
        return true;
    }
    return listing && n > 0 && query[n - 1] == ':' && strncmp(name, query, n) == 0;
}

/* Whether the queries are well-formed, and which contexts they ask for. */
static bool read_queries(const struct nbd_client *c, const struct nbd_export *x,
                         const uint8_t *p, size_t left, unsigned *mask)
{
    bool listing = c->option == NBD_OPT_LIST_META;
    uint32_t n = get32(p);

    p += 4;
    left -= 4;
    *mask = listing && n == 0 ? (1u << NBD_CONTEXTS) - 1 : 0;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t len;

        if (left < 4 || (len = get32(p)) > left - 4 || len > NBD_NAME_MAX) {
            return false;
        }
        for (unsigned k = 0; k < NBD_CONTEXTS; k++) {
            AUTO_FREE char *name = context_name(x, k);

            if (name && query_fits(name, (const char *)p + 4, len, listing)) {
                *mask |= 1u << k;
            }
        }
        p += 4 + len;
        left -= 4 + len;
    }
    return left == 0;
}

static void do_meta(struct nbd_client *c, const uint8_t *p)
{
    uint32_t n = c->option_length, name_n;
    struct nbd_export *x;
    unsigned mask = 0;

    if (c->option == NBD_OPT_SET_META) {
        c->contexts = 0;
        c->meta_export = NULL;
    }
    if (!c->structured) {
        refuse(c, NBD_ERR_INVALID, "contexts need structured replies");
        return;
    }
    if (n < 8 || (name_n = get32(p)) > n - 8 || name_n > NBD_NAME_MAX) {
        refuse(c, NBD_ERR_INVALID, "the lengths in this option do not fit");
        return;
    }
    x = nbd_export_find(c->server, (const char *)p + 4, name_n);
    if (!x) {
        refuse(c, NBD_ERR_UNKNOWN, "there is no export '%.*s'", (int)name_n,
               (const char *)p + 4);
        return;
    }
    if (!read_queries(c, x, p + 4 + name_n, n - 4 - name_n, &mask)) {
        refuse(c, NBD_ERR_INVALID, "the lengths in this option do not fit");
        return;
    }
    for (unsigned k = 0; k < NBD_CONTEXTS; k++) {
        AUTO_FREE char *name = mask & 1u << k ? context_name(x, k) : NULL;

        if (name) {
            AUTO_FREE uint8_t *out = xalloc(4 + strlen(name));

            put32(out, c->option == NBD_OPT_SET_META ? k + 1 : 0);
            memcpy(out + 4, name, strlen(name));
            reply(c, NBD_REP_META, out, 4 + strlen(name));
        } else {
            mask &= ~(1u << k);
        }
    }
    if (c->option == NBD_OPT_SET_META) {
        c->contexts = mask;
        c->meta_export = x;
    }
    reply(c, NBD_REP_ACK, NULL, 0);
}

/* --- all --- */

static void do_simple(struct nbd_client *c)
{
    if (c->option_length) {
        refuse(c, NBD_ERR_INVALID, "this option has no data");
    } else if (c->option == NBD_OPT_STARTTLS && (c->tls || !nbd_has_tls(c))) {
        refuse(c, c->tls ? NBD_ERR_INVALID : NBD_ERR_POLICY,
               c->tls ? "TLS is on already" : "this server has no certificate for TLS");
    } else {
        c->structured |= c->option == NBD_OPT_STRUCTURED;
        c->starttls = c->option == NBD_OPT_STARTTLS;
        reply(c, NBD_REP_ACK, NULL, 0);
    }
}

void nbd_option(struct nbd_client *c, const uint8_t *data)
{
    if (nbd_has_tls(c) && !c->tls && c->option != NBD_OPT_STARTTLS &&
        c->option != NBD_OPT_ABORT) {
        if (c->option == NBD_OPT_EXPORT_NAME) {
            nbd_end(c, true);
        } else {
            refuse(c, NBD_ERR_TLS_REQD, "this server asks for TLS first");
        }
        return;
    }
    switch (c->option) {
    case NBD_OPT_EXPORT_NAME:
        do_export_name(c, data);
        break;
    case NBD_OPT_ABORT:
        reply(c, NBD_REP_ACK, NULL, 0);
        nbd_end(c, false);
        break;
    case NBD_OPT_LIST:
        do_list(c);
        break;
    case NBD_OPT_STARTTLS:
    case NBD_OPT_STRUCTURED:
        do_simple(c);
        break;
    case NBD_OPT_INFO:
    case NBD_OPT_GO:
        do_info(c, data);
        break;
    case NBD_OPT_LIST_META:
    case NBD_OPT_SET_META:
        do_meta(c, data);
        break;
    default:
        refuse(c, NBD_ERR_UNSUP, "option %u is not known here", c->option);
    }
}
