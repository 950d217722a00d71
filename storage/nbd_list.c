/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What an NBD server has, by libnbd: NBD_OPT_LIST, then NBD_OPT_INFO for each export, over one connection. Owns a handle while a call
 * lasts; any thread.
 */
#include "storage/nbd_list.h"

#include "engine/base/mem.h"
#include "engine/base/str.h"

#include <errno.h>
#include <libnbd.h>
#include <stdlib.h>
#include <string.h>

static int failed(struct err *e, const char *what)
{
    int why = nbd_get_errno();

    return err_set(e, why ? -why : -EIO, "%s: %s", what, nbd_get_error());
}

/* libnbd goes on to the end of the list whatever we say, so what is too much is dropped. */
static int on_export(void *arg, const char *name, const char *description)
{
    struct nbd_list *l = arg;

    if (l->n == NBD_LIST_MAX) {
        l->more = true;
        return 0;
    }
    l->item = xrealloc_n(l->item, l->n + 1, sizeof(*l->item));
    l->item[l->n++] = (struct nbd_listed){ .name = xstrdup(name),
                                           .description = xstrdup(description) };
    return 0;
}

static int connect_to(struct nbd_handle *h, const char *uri, int fd, struct err *e)
{
    if (nbd_set_opt_mode(h, true) < 0 || nbd_set_full_info(h, true) < 0 ||
        nbd_set_uri_allow_local_file(h, true) < 0) {
        return failed(e, "NBD");
    }
    if (fd >= 0 ? nbd_connect_socket(h, fd) < 0 : nbd_connect_uri(h, uri) < 0) {
        return failed(e, "cannot connect");
    }
    return nbd_aio_is_negotiating(h) > 0
               ? 0
               : err_set(e, -EPROTO, "the server is too old to list what it has");
}

/* One that the server does not tell of has no size. */
static void ask_one(struct nbd_handle *h, struct nbd_listed *x)
{
    x->size = -1;
    if (nbd_set_export_name(h, x->name) == 0 && nbd_opt_info(h) == 0) {
        x->size = nbd_get_size(h);
        x->readonly = nbd_is_read_only(h) == 1;
    }
}

int nbd_list(const char *uri, int fd, struct nbd_list *out, struct err *e)
{
    const nbd_list_callback each = { .callback = on_export, .user_data = out };
    struct nbd_handle *h = nbd_create();
    int rc;

    *out = (struct nbd_list){ .n = 0 };
    if (!h) {
        return failed(e, "NBD");
    }
    rc = connect_to(h, uri, fd, e);
    if (rc == 0 && nbd_opt_list(h, each) < 0) {
        rc = failed(e, "the server does not list what it has");
    }
    for (size_t i = 0; rc == 0 && i < out->n; i++) {
        ask_one(h, &out->item[i]);
    }
    if (rc == 0) {
        (void)nbd_opt_abort(h);
    } else {
        nbd_list_done(out);
    }
    nbd_close(h);
    return rc;
}

void nbd_list_done(struct nbd_list *l)
{
    for (size_t i = 0; i < l->n; i++) {
        free(l->item[i].name);
        free(l->item[i].description);
    }
    free(l->item);
    *l = (struct nbd_list){ .n = 0 };
}
