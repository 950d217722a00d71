/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pools of kind nbd: the exports of an NBD server. We connect; a confined process with the connection and nothing else asks
 * the server what it has. No state; threads of works.
 */
#include "api-schema/json/json.h"
#include "api-schema/net/nbdaddr.h"
#include "daemon/storage/files.h"
#include "daemon/storage/work.h"
#include "engine/base/fd.h"
#include "engine/base/log.h"
#include "engine/base/mem.h"
#include "engine/base/str.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#define UNNAMED "default" /* the volume that stands for the export without a name */
#define NO_FOLDER "/nonexistent"
enum { CHILD_FD = 3 };

/* A server that cannot be asked is known by the first look. */
static int nbd_open(struct folder *f, const struct folder_make *m, struct err *e)
{
    (void)m;
    (void)e;
    f->fd = -1;
    return 0;
}

/* No server tells what it has room for. */
static void nbd_room(const struct folder *f, int64_t *capacity, int64_t *available)
{
    (void)f;
    *capacity = *available = 0;
}

static int ask(const struct folder *f, struct buf *out, struct err *e)
{
    const char *const args[] = { "nbd-list", "--json", "--fd", "3", NULL };
    struct nbd_addr a;
    int rc = nbd_addr_parse(f->path, &a, e);
    AUTO_FD fd = rc == 0 ? nbd_addr_connect(&a, e) : rc;
    if (fd < 0) {
        return fd;
    }
    rc = works_image_with(f->works, NO_FOLDER, args, &fd, 1, out, e);
    if (rc < 0) {
        err_prefix(e, "NBD server at %s", f->path);
    }
    return rc;
}

static bool is_listed(const struct json_object *list, const char *name)
{
    for (size_t i = 0; i < json_object_array_length(list); i++) {
        const char *other = api_json_get_str(json_object_array_get_idx(list, i), "name");
        if (other && strcmp(other, name) == 0) {
            return true;
        }
    }
    return false;
}

/* False: it is left out. */
static bool take(const struct json_object *list, struct json_object *o, struct found *out)
{
    const char *name = api_json_get_str(o, "name"), *as = name;
    int64_t size = api_json_get_int(o, "size", -1);
    if (name && !name[0] && !is_listed(list, UNNAMED)) {
        as = UNNAMED;
    }
    if (!name || size < 0 || !str_is_name(as) || strlen(as) >= sizeof(out->name)) {
        return false;
    }
    *out = (struct found){ .m = { .capacity = size, .allocation = size } };
    str_copy(out->name, sizeof(out->name), as);
    str_copy(out->m.format, sizeof(out->m.format), "raw");
    out->m.export = strcmp(as, name) != 0 ? xstrdup(name) : NULL;
    return true;
}

static bool is_known(const struct known *known, size_t n, const char *name)
{
    for (size_t i = 0; i < n; i++) {
        if (strcmp(known[i].name, name) == 0) {
            return true;
        }
    }
    return false;
}

static int nbd_scan(const struct folder *f, const struct known *known, size_t n, bool measure,
                    struct found **out, size_t *n_out, struct err *e)
{
    AUTO_BUF text = BUF_INIT;
    AUTO_JSON o = NULL;
    size_t left_out = 0;
    int rc = ask(f, &text, e);
    (void)measure;
    if (rc < 0) {
        return rc;
    }
    if (api_json_parse_max((const char *)text.data, text.len, WORKS_OUT, 0, &o, NULL) < 0) {
        return err_set(e, -EPROTO, "NBD server at %s: it has too many exports to list",
                       f->path);
    }
    struct json_object *list = api_json_get(o, "exports");
    for (size_t i = 0; i < json_object_array_length(list); i++) {
        struct found one;
        if (!take(list, json_object_array_get_idx(list, i), &one)) {
            left_out++;
            continue;
        }
        one.known = is_known(known, n, one.name);
        *out = xrealloc_n(*out, *n_out + 1, sizeof(one));
        (*out)[(*n_out)++] = one;
    }
    if (left_out) {
        log_warn("daemon", "NBD server at %s: %zu exports whose names no volume can have",
                 f->path, left_out);
    }
    return 0;
}

const struct pool_kind pool_kind_nbd = {
    .readonly = "its volumes are the exports of a server, which alone makes and changes them",
    .remedy = "change them at the server, then 'vmctl pool refresh'; 'vmctl image' copies "
              "from and to their addresses",
    .raw = true,
    .tells_all = true,
    .open = nbd_open,
    .scan = nbd_scan,
    .room = nbd_room,
};
