/* SPDX-License-Identifier: Apache-2.0 */
/* `vmctl image amend`: options of an image that are changed in place. One thread. */
#include "cli/image.h"

#include <string.h>

static int take_compat(struct cli *c, const char *text, unsigned *version)
{
    if (strcmp(text, "0.10") == 0 || strcmp(text, "v2") == 0) {
        *version = 2;
    } else if (strcmp(text, "1.1") == 0 || strcmp(text, "v3") == 0) {
        *version = 3;
    } else {
        return cli_fail(c, CLI_USAGE, NULL, "compat is 0.10 or 1.1, not '%s'", text);
    }
    return CLI_OK;
}

static int take_bool(struct cli *c, const char *key, const char *text, int *out)
{
    bool on = strcmp(text, "on") == 0 || strcmp(text, "yes") == 0 || strcmp(text, "true") == 0;
    bool off = strcmp(text, "off") == 0 || strcmp(text, "no") == 0 ||
               strcmp(text, "false") == 0;

    *out = on;
    return on || off ? CLI_OK
                     : cli_fail(c, CLI_USAGE, NULL, "%s is on or off, not '%s'", key, text);
}

struct wish {
    struct blk_amend a;
    const char *backing, *backing_format, *size;
};

static int take(struct cli *c, const struct blk_option *o, struct wish *w)
{
    if (strcmp(o->key, "compat") == 0) {
        return take_compat(c, o->value, &w->a.version);
    }
    if (strcmp(o->key, "lazy_refcounts") == 0) {
        return take_bool(c, o->key, o->value, &w->a.lazy);
    }
    if (strcmp(o->key, "size") == 0) {
        w->size = o->value;
    } else if (strcmp(o->key, "backing_file") == 0) {
        w->backing = o->value;
    } else if (strcmp(o->key, "backing_fmt") == 0) {
        w->backing_format = o->value;
    } else {
        return cli_fail(c, CLI_USAGE, "make a new image with it: vmctl image convert -o",
                        "option '%s' cannot be changed in place", o->key);
    }
    return CLI_OK;
}

static int change_backing(struct cli *c, struct blk_node *n, const struct wish *w)
{
    struct blk_image_info i;
    struct err e = ERR_INIT;
    const char *name, *format;
    int rc;

    if (blk_info(n, &i, &e) != 0) {
        return img_error(c, &e);
    }
    name = w->backing ? w->backing : i.backing;
    format = w->backing_format ? w->backing_format : i.backing_format;
    rc = blk_set_backing(n, name && *name ? name : NULL, format, &e);
    blk_info_done(&i);
    return rc == 0 ? CLI_OK : img_error(c, &e);
}

static int amend(struct cli *c, struct blk_node *n, const struct wish *w)
{
    struct err e = ERR_INIT;
    uint64_t size = 0;
    int status = w->size ? img_size(c, w->size, &size) : CLI_OK;

    size = (size + BLK_SECTOR - 1) / BLK_SECTOR * BLK_SECTOR;
    if (status == CLI_OK && w->size && size < blk_size(n)) {
        status = cli_fail(c, CLI_FAILED, "use 'vmctl image resize --shrink'", "%s would shrink",
                          blk_path(n));
    }
    if (status == CLI_OK && (w->a.version || w->a.lazy >= 0) && blk_amend(n, &w->a, &e) != 0) {
        status = img_error(c, &e);
    }
    if (status == CLI_OK && w->size && blk_resize(n, size, &e) != 0) {
        status = img_error(c, &e);
    }
    return status == CLI_OK && (w->backing || w->backing_format) ? change_backing(c, n, w)
                                                                 : status;
}

int cli_verb_image_amend(struct cli *c, struct cli_input *in)
{
    struct img_source s = { .path = img_arg(in, "FILE"),
                            .format = cli_own(in, "image-format"),
                            .secret = cli_own(in, "secret"),
                            .write = true,
                            .no_backing = true };
    struct wish w = { .a = { .lazy = -1 } };
    struct img_options o;
    struct blk_node *n;
    int status = img_options(c, in, &o);

    if (status == CLI_OK && o.n == 0) {
        status = cli_fail(c, CLI_USAGE, NULL, "amend needs -o KEY=VALUE");
    }
    for (size_t i = 0; i < o.n && status == CLI_OK; i++) {
        status = take(c, &o.item[i], &w);
    }
    status = status ? status : img_cache(c, cli_own(in, "cache"), &s);
    status = status ? status : img_open(c, &s, &n);
    if (status == CLI_OK) {
        status = img_close(c, n, amend(c, n, &w));
    }
    img_options_done(&o);
    return status;
}
