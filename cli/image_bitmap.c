/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `vmctl image bitmap`: dirty bitmaps that an image keeps. One thread.
 */
#include "cli/image.h"

#include "api-schema/json/json.h"
#include "storage/bitmap.h"

#include <errno.h>
#include <string.h>

static int do_add(struct cli *c, struct cli_input *in, struct blk_node *n, const char *name)
{
    const char *text = cli_own(in, "granularity");
    uint64_t g = 0;
    struct blk_dirty_options o = { .name = name, .persistent = true };
    struct blk_dirty *d;
    struct err e = ERR_INIT;
    int status = text ? img_size(c, text, &g) : CLI_OK;

    if (status != CLI_OK) {
        return status;
    }
    if (text && (g == 0 || g > 1u << 31)) {
        return cli_fail(c, CLI_USAGE, NULL,
                        "a granularity is a power of two from 512 to 2G, not '%s'", text);
    }
    o.granularity = (uint32_t)g;
    return blk_dirty_new(n, &o, &d, &e) == 0 ? CLI_OK : img_error(c, &e);
}

static int merge_one(struct cli *c, struct blk_node *from, struct blk_dirty *to,
                     const char *name)
{
    struct blk_dirty *source;
    struct err e = ERR_INIT;
    int rc = blk_dirty_find(from, name, &source, &e);

    rc = rc ? rc : blk_dirty_merge(to, source, &e);
    return rc == 0 ? CLI_OK : img_error(c, &e);
}

/* --merge NAME, perhaps several times; of this image, or of the one that -b names. */
static int do_merge(struct cli *c, struct cli_input *in, struct blk_node *n,
                    struct blk_dirty *d)
{
    struct json_object *v = api_json_get(in->own, "merge");
    struct img_source s = { .path = cli_own(in, "source"),
                            .format = cli_own(in, "source-format"),
                            .secret = cli_own(in, "secret"),
                            .no_backing = true };
    struct blk_node *other = NULL;
    int status = s.path ? img_open(c, &s, &other) : CLI_OK;
    size_t many = json_object_is_type(v, json_type_array) ? json_object_array_length(v) : 1;

    for (size_t i = 0; i < many && status == CLI_OK; i++) {
        struct json_object *one = json_object_is_type(v, json_type_array)
                                      ? json_object_array_get_idx(v, i)
                                      : v;

        status = merge_one(c, other ? other : n, d, json_object_get_string(one));
    }
    blk_close(other);
    return status;
}

static int change(struct cli *c, struct cli_input *in, struct blk_node *n, const char *name)
{
    struct blk_dirty *d;
    struct err e = ERR_INIT;
    int rc, status = img_flag(in, "add") ? do_add(c, in, n, name) : CLI_OK;

    if (status != CLI_OK) {
        return status;
    }
    rc = blk_dirty_find(n, name, &d, &e);
    if (rc == 0 && img_flag(in, "clear")) {
        rc = blk_dirty_clear(d, &e);
    }
    if (rc == 0 && img_flag(in, "merge")) {
        status = do_merge(c, in, n, d);
        if (status != CLI_OK) {
            return status;
        }
    }
    if (rc == 0 && (img_flag(in, "enable") || img_flag(in, "disable"))) {
        rc = blk_dirty_enable(d, img_flag(in, "enable"), &e);
    }
    if (rc == 0 && img_flag(in, "remove")) {
        rc = blk_dirty_free(d, &e);
    }
    return rc == 0 ? CLI_OK : img_error(c, &e);
}

static int copy_one(struct cli *c, const struct blk_dirty *from, struct blk_node *to)
{
    struct blk_dirty_info i;
    struct blk_dirty_options o;
    struct blk_dirty *d;
    struct err e = ERR_INIT;
    int rc;

    blk_dirty_get(from, &i);
    o = (struct blk_dirty_options){
        .name = i.name, .granularity = i.granularity, .disabled = true, .persistent = true
    };
    rc = blk_dirty_new(to, &o, &d, &e);
    rc = rc ? rc : blk_dirty_merge(d, from, &e);
    rc = rc || !i.enabled ? rc : blk_dirty_enable(d, true, &e);
    return rc == 0 ? CLI_OK : img_error(c, &e);
}

int img_bitmaps_check(struct cli *c, struct blk_node *from, bool skip_broken)
{
    for (struct blk_dirty *d = blk_dirty_each(from, NULL); d; d = blk_dirty_each(from, d)) {
        struct blk_dirty_info i;

        blk_dirty_get(d, &i);
        if (i.inconsistent && !skip_broken) {
            return cli_fail(c, CLI_FAILED,
                            "leave such out with --skip-broken-bitmaps, or remove it with "
                            "'vmctl image bitmap --remove'",
                            "bitmap '%s' of %s is inconsistent: its bits say nothing", i.name,
                            blk_path(from));
        }
    }
    return CLI_OK;
}

int img_bitmaps_copy(struct cli *c, struct blk_node *from, struct blk_node *to)
{
    int status = CLI_OK;

    for (struct blk_dirty *d = blk_dirty_each(from, NULL); d && status == CLI_OK;
         d = blk_dirty_each(from, d)) {
        struct blk_dirty_info i;

        blk_dirty_get(d, &i);
        status = i.persistent && !i.inconsistent ? copy_one(c, d, to) : CLI_OK;
    }
    return status;
}

static void print_list(struct cli *c, const struct blk_image_info *i)
{
    if (c->json) {
        AUTO_JSON list = json_object_new_array();

        for (size_t k = 0; k < i->n_bitmaps; k++) {
            json_object_array_add(list, img_bitmap_json(&i->bitmap[k]));
        }
        cli_print_json(list);
        return;
    }
    for (size_t k = 0; k < i->n_bitmaps; k++) {
        AUTO_BUF name = BUF_INIT;

        cli_clean(&name, i->bitmap[k].name);
        printf("%s: granularity %u%s%s\n", name.data ? name.data : "", i->bitmap[k].granularity,
               i->bitmap[k].enabled ? ", enabled" : "",
               i->bitmap[k].in_use ? ", inconsistent" : "");
    }
}

struct json_object *img_bitmap_json(const struct blk_bitmap *b)
{
    struct json_object *o = json_object_new_object(), *flags = json_object_new_array();

    if (b->in_use) {
        json_object_array_add(flags, json_object_new_string("in-use"));
    }
    if (b->enabled) {
        json_object_array_add(flags, json_object_new_string("auto"));
    }
    api_json_set(o, "flags", flags);
    api_json_set_str(o, "name", b->name);
    api_json_set_int(o, "granularity", b->granularity);
    return o;
}

int cli_verb_image_bitmap(struct cli *c, struct cli_input *in)
{
    static const char *const verbs[] = {
        "add", "remove", "clear", "enable", "disable", "merge"
    };
    const char *name = img_arg(in, "BITMAP");
    struct img_source s = { .path = img_arg(in, "FILE"),
                            .format = cli_own(in, "image-format"),
                            .secret = cli_own(in, "secret"),
                            .no_backing = true };
    struct blk_node *n;
    int status;

    for (unsigned i = 0; i < ARRAY_LEN(verbs); i++) {
        s.write |= img_flag(in, verbs[i]);
    }
    if (s.write && !name) {
        return cli_fail(c, CLI_USAGE, NULL, "which bitmap? Its name follows the file's");
    }
    if (img_flag(in, "enable") && img_flag(in, "disable")) {
        return cli_fail(c, CLI_USAGE, NULL, "--enable and --disable do not go together");
    }
    if (cli_own(in, "granularity") && !img_flag(in, "add")) {
        return cli_fail(c, CLI_USAGE, NULL, "--granularity goes with --add");
    }
    if (cli_own(in, "source") && !img_flag(in, "merge")) {
        return cli_fail(c, CLI_USAGE, NULL, "--source goes with --merge");
    }
    status = img_open(c, &s, &n);
    if (status != CLI_OK) {
        return status;
    }
    if (s.write) {
        status = change(c, in, n, name);
    } else {
        struct blk_image_info i;
        struct err e = ERR_INIT;

        if (blk_info(n, &i, &e) != 0) {
            status = img_error(c, &e);
        } else {
            print_list(c, &i);
            blk_info_done(&i);
        }
    }
    return img_close(c, n, status);
}
