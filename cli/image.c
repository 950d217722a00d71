/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `vmctl image`: create, info, check, resize, snapshot, map, measure. Exit statuses are those that
 * qemu-img users know: check 2 corrupt, 3 leaks. One thread.
 */
#include "cli/image.h"

#include "api-schema/json/json.h"
#include "engine/base/buf.h"
#include "engine/base/fd.h"
#include "storage/nbd.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { MAX_SECRET = 65536 };
enum { CHECK_FAILED = 1, CHECK_CORRUPT = 2, CHECK_LEAKS = 3, CHECK_NONE = 63 };

/* --- shared --- */

int img_error(struct cli *c, const struct err *e)
{
    return cli_fail(c, CLI_FAILED, NULL, "%s", e->msg);
}

bool img_flag(const struct cli_input *in, const char *name)
{
    return api_json_get(in->own, name) != NULL;
}

const char *img_arg(const struct cli_input *in, const char *name)
{
    return cli_own(in, name);
}

/* The format of what is not a file. */
static int probe_remote(struct blk_options *o, struct err *e)
{
    struct blk_options raw = *o;
    struct blk_node *n;
    int rc;

    raw.driver = "raw";
    raw.readonly = true;
    rc = blk_open(NULL, &raw, &n, e);
    if (rc == 0) {
        rc = blk_probe_node(n, &o->driver, e);
        blk_close(n);
    }
    return rc;
}

int img_secret(struct cli *c, const char *path, struct blk_secret *out)
{
    AUTO_FD fd = open(path, O_RDONLY | O_CLOEXEC);
    char *mem = xalloc(MAX_SECRET + 1);
    ssize_t n = fd < 0 ? -1 : read(fd, mem, MAX_SECRET + 1);

    if (n <= 0 || n > MAX_SECRET) {
        free(mem);
        return cli_fail(c, CLI_FAILED, NULL, "secret %s: %s", path,
                        n < 0    ? strerror(errno)
                        : n == 0 ? "the file is empty"
                                 : "longer than 64 KiB");
    }
    *out = (struct blk_secret){ .by = &blk_luks, .data = mem, .n = (size_t)n };
    return CLI_OK;
}

void img_secret_done(struct blk_secret *s)
{
    if (s->data) {
        explicit_bzero((void *)(uintptr_t)s->data, s->n);
        free((void *)(uintptr_t)s->data);
        s->data = NULL;
    }
}

int img_open(struct cli *c, const struct img_source *s, struct blk_node **out)
{
    struct err e = ERR_INIT;
    struct blk_secret secret = { 0 };
    struct blk_options o = { .name = s->path,
                             .path = s->path,
                             .driver = s->format,
                             .fd = -1,
                             .readonly = !s->write,
                             .for_check = s->for_check,
                             .no_backing = s->no_backing,
                             .unlocked = s->shared,
                             .unsafe = s->unsafe,
                             .direct = s->direct,
                             .durable = s->durable,
                             .follow = true };
    int rc;

    o.protocol = nbd_is_uri(s->path) ? &blk_nbd_driver : NULL;
    if (!o.driver && (o.protocol ? probe_remote(&o, &e) : blk_probe(s->path, &o.driver, &e))) {
        return img_error(c, &e);
    }
    if (s->secret && img_secret(c, s->secret, &secret) != CLI_OK) {
        return CLI_FAILED;
    }
    o.secret = secret.data ? &secret : NULL;
    rc = blk_open(s->pool, &o, out, &e);
    img_secret_done(&secret);
    return rc == 0 ? CLI_OK : img_error(c, &e);
}

int img_close(struct cli *c, struct blk_node *n, int status)
{
    struct err e = ERR_INIT;
    /* Not every format does so when it is closed; an NBD server may keep what it was sent until it is asked to. */
    int rc = n && status == CLI_OK && !blk_readonly(n) ? blk_flush(n) : 0;

    if (rc != 0) {
        err_errno(&e, -rc, "'%s': flushing", blk_path(n));
        blk_close(n);
        return img_error(c, &e);
    }
    if (blk_close_flush(n, &e) != 0 && status == CLI_OK) {
        return img_error(c, &e);
    }
    return status;
}

int img_cache(struct cli *c, const char *mode, struct img_source *s)
{
    static const char *const modes[] = { "none", "writeback", "writethrough", "directsync",
                                         "unsafe" };

    if (!mode) {
        return CLI_OK;
    }
    for (unsigned i = 0; i < ARRAY_LEN(modes); i++) {
        if (strcmp(modes[i], mode) == 0) {
            s->direct = i == 0 || i == 3;
            s->durable = i == 2 || i == 3;
            s->unsafe = i == 4;
            return CLI_OK;
        }
    }
    return cli_fail(
        c, CLI_USAGE, NULL,
        "a cache mode is none, writeback, writethrough, directsync or unsafe, not '%s'", mode);
}

int img_size(struct cli *c, const char *text, uint64_t *out)
{
    struct err e = ERR_INIT;

    if (blk_parse_size(text, out, &e) != 0) {
        return cli_fail(c, CLI_USAGE, NULL, "%s", e.msg);
    }
    return CLI_OK;
}

void img_option_add(struct img_options *o, const char *key, const char *value)
{
    o->item = xrealloc_n(o->item, o->n + 1, sizeof(*o->item));
    o->item[o->n++] = (struct blk_option){ .key = key, .value = value };
}

void img_options_done(struct img_options *o)
{
    free(o->item);
    free(o->text);
}

/* Two commas stand for one in a value, as everywhere in QEMU's options. */
char *img_next_option(char **at)
{
    char *start = *at, *to = *at;

    if (!**at) {
        return NULL;
    }
    while (**at) {
        if (**at == ',' && (*at)[1] != ',') {
            ++*at;
            break;
        }
        *at += **at == ',';
        *to++ = *(*at)++;
    }
    if (*to) {
        *to = 0;
    }
    return start;
}

int img_options(struct cli *c, struct cli_input *in, struct img_options *o)
{
    struct json_object *v = api_json_get(in->own, "option");
    AUTO_BUF b = BUF_INIT;
    char *at, *word;

    *o = (struct img_options){ 0 };
    if (json_object_is_type(v, json_type_array)) {
        for (size_t i = 0; i < json_object_array_length(v); i++) {
            buf_printf(&b, "%s%s", i ? "," : "",
                       json_object_get_string(json_object_array_get_idx(v, i)));
        }
    } else if (v) {
        buf_add_str(&b, json_object_get_string(v));
    }
    o->text = at = buf_take(&b);
    while ((word = img_next_option(&at))) {
        char *equals = strchr(word, '=');

        if (!equals) {
            return cli_fail(c, CLI_USAGE, NULL, "-o takes key=value, not '%s'", word);
        }
        *equals = 0;
        img_option_add(o, word, equals + 1);
    }
    return CLI_OK;
}

void img_progress_begin(struct img_progress *p, struct cli *c, const struct cli_input *in)
{
    p->on = img_flag(in, "progress") || (isatty(2) && !c->quiet && !c->json);
    p->last = -1;
}

void img_progress(struct img_progress *p, uint64_t done, uint64_t total)
{
    int now = total ? (int)((double)done / (double)total * 10000) : 10000;

    if (p && p->on && (p->last < 0 || now >= p->last + 10 || now == 10000) && now != p->last) {
        int full = now * 24 / 10000;

        p->last = now;
        fprintf(stderr, "\r%.*s%.*s %6.2f%%", full, "########################", 24 - full,
                "........................", now / 100.0);
        fflush(stderr);
    }
}

void img_progress_end(struct img_progress *p)
{
    if (p->on && p->last >= 0) {
        fputc('\n', stderr);
    }
}

/* --- create --- */

const char *img_key_file(const struct blk_create *n, const char *secret)
{
    const char *v = blk_create_option(n, "encrypt.key-file");

    v = v ? v : strcmp(n->driver, "luks") == 0 ? blk_create_option(n, "key-file") : NULL;
    return v ? v : secret;
}

int img_create(struct cli *c, struct blk_create *n, const char *secret)
{
    const char *path = img_key_file(n, secret);
    struct blk_secret s = { 0 };
    struct err e = ERR_INIT;
    int status = path ? img_secret(c, path, &s) : CLI_OK;

    if (status != CLI_OK) {
        return status;
    }
    n->secret = s.data ? &s : NULL;
    if (blk_create(n, &e) != 0) {
        status = img_error(c, &e);
    }
    n->secret = NULL;
    img_secret_done(&s);
    return status;
}

/* The size of a new overlay is that of its backing file. */
static int backing_size(struct cli *c, const char *image, const char *backing,
                        const char *format, uint64_t *size)
{
    const char *slash = strrchr(image, '/');
    AUTO_FREE char *path = backing[0] == '/' || !slash
                               ? xstrdup(backing)
                               : xasprintf("%.*s/%s", (int)(slash - image), image, backing);
    struct img_source s = {
        .path = path, .format = format, .for_check = true, .no_backing = true
    };
    struct blk_node *n;
    int status = img_open(c, &s, &n);

    if (status == CLI_OK) {
        *size = blk_size(n);
        blk_close(n);
    }
    return status;
}

int cli_verb_image_create(struct cli *c, struct cli_input *in)
{
    const char *size = img_arg(in, "SIZE"), *backing = cli_own(in, "backing");
    struct blk_create n = { .path = img_arg(in, "FILE"),
                            .driver = cli_own(in, "image-format") };
    struct img_options o;
    int status = img_options(c, in, &o);

    n.driver = n.driver ? n.driver : "raw";
    if (backing) {
        img_option_add(&o, "backing_file", backing);
    }
    if (cli_own(in, "backing-format")) {
        img_option_add(&o, "backing_fmt", cli_own(in, "backing-format"));
    }
    n.option = o.item;
    n.n_options = o.n;
    backing = blk_create_option(&n, "backing_file");
    if (status == CLI_OK && backing && !img_flag(in, "unsafe")) {
        status = backing_size(c, n.path, backing, blk_create_option(&n, "backing_fmt"),
                              &n.size);
    }
    if (status == CLI_OK && size) {
        status = img_size(c, size, &n.size);
    } else if (status == CLI_OK && !backing) {
        status = cli_fail(c, CLI_USAGE, NULL, "a new image needs a size");
    }
    n.size = (n.size + BLK_SECTOR - 1) / BLK_SECTOR * BLK_SECTOR;
    if (status == CLI_OK) {
        status = img_create(c, &n, cli_own(in, "secret"));
    }
    if (status == CLI_OK && c->json) {
        AUTO_JSON out = json_object_new_object();

        api_json_set_str(out, "filename", n.path);
        api_json_set_str(out, "format", n.driver);
        api_json_set_int(out, "virtual-size", (int64_t)n.size);
        cli_print_json(out);
    } else if (status == CLI_OK && !c->quiet) {
        printf("%s: made, %s, %llu bytes\n", n.path, n.driver, (unsigned long long)n.size);
    }
    img_options_done(&o);
    return status;
}

/* --- info --- */

static struct json_object *snapshot_json(const struct blk_snapshot *s)
{
    struct json_object *o = json_object_new_object();

    api_json_set_str(o, "id", s->id);
    api_json_set_str(o, "name", s->name);
    api_json_set_int(o, "vm-state-size", (int64_t)s->vm_state_size);
    api_json_set_int(o, "date-sec", s->date_sec);
    api_json_set_int(o, "date-nsec", s->date_nsec);
    api_json_set_int(o, "vm-clock-sec", (int64_t)(s->vm_clock_ns / 1000000000));
    api_json_set_int(o, "vm-clock-nsec", (int64_t)(s->vm_clock_ns % 1000000000));
    return o;
}

static struct json_object *specific_json(const struct blk_image_info *i)
{
    struct json_object *o = json_object_new_object(), *d = json_object_new_object();

    api_json_set_str(o, "type", i->driver);
    if (i->version) {
        api_json_set_str(d, "compat", i->version == 2 ? "0.10" : "1.1");
        api_json_set_str(d, "compression-type", i->compression);
        api_json_set_int(d, "refcount-bits", i->refcount_bits);
    }
    if (i->version >= 3) {
        api_json_set_bool(d, "lazy-refcounts", i->lazy_refcounts);
        api_json_set_bool(d, "corrupt", i->corrupt);
        api_json_set_bool(d, "extended-l2", i->extended_l2);
    }
    if (i->n_bitmaps) {
        struct json_object *list = json_object_new_array();

        for (size_t k = 0; k < i->n_bitmaps; k++) {
            json_object_array_add(list, img_bitmap_json(&i->bitmap[k]));
        }
        api_json_set(d, "bitmaps", list);
    }
    if (i->data_file) {
        api_json_set_str(d, "data-file", i->data_file);
        api_json_set_bool(d, "data-file-raw", i->data_file_raw);
    }
    if (i->variant) {
        api_json_set_str(d, "variant", i->variant);
    }
    api_json_set(o, "data", d);
    return o;
}

static struct json_object *info_json(const char *path, const struct blk_image_info *i)
{
    struct json_object *o = json_object_new_object(), *list;

    api_json_set_str(o, "filename", path);
    api_json_set_str(o, "format", i->driver);
    api_json_set_int(o, "virtual-size", (int64_t)i->size);
    api_json_set_int(o, "actual-size", (int64_t)i->disk_size);
    api_json_set_bool(o, "dirty-flag", i->dirty);
    if (i->encrypted) {
        api_json_set_bool(o, "encrypted", true);
    }
    if (i->cluster_size) {
        api_json_set_int(o, "cluster-size", (int64_t)i->cluster_size);
    }
    if (i->backing) {
        const char *slash = strrchr(path, '/');
        AUTO_FREE char *full = i->backing[0] == '/' || !slash
                                   ? xstrdup(i->backing)
                                   : xasprintf("%.*s/%s", (int)(slash - path), path,
                                               i->backing);

        api_json_set_str(o, "backing-filename", i->backing);
        api_json_set_str(o, "full-backing-filename", full);
        if (i->backing_format) {
            api_json_set_str(o, "backing-filename-format", i->backing_format);
        }
    }
    if (i->n_snapshots) {
        list = json_object_new_array();
        for (size_t k = 0; k < i->n_snapshots; k++) {
            json_object_array_add(list, snapshot_json(&i->snapshot[k]));
        }
        api_json_set(o, "snapshots", list);
    }
    if (strcmp(i->driver, "raw")) {
        api_json_set(o, "format-specific", specific_json(i));
    }
    return o;
}

static void print_size(const char *title, uint64_t n)
{
    AUTO_BUF b = BUF_INIT;

    cli_size(&b, (int64_t)n);
    printf("%s: %s (%llu bytes)\n", title, b.data, (unsigned long long)n);
}

static void print_snapshots(const struct blk_snapshot *s, size_t n)
{
    printf("%-9s %-16s %12s %-19s %s\n", "ID", "TAG", "VM SIZE", "DATE", "DISK SIZE");
    for (size_t i = 0; i < n; i++) {
        AUTO_BUF name = BUF_INIT;
        char date[32] = "";
        time_t t = (time_t)s[i].date_sec;
        struct tm tm;

        cli_clean(&name, s[i].name);
        if (localtime_r(&t, &tm)) {
            strftime(date, sizeof(date), "%Y-%m-%d %H:%M:%S", &tm);
        }
        printf("%-9s %-16s %12llu %-19s %llu\n", s[i].id, name.data ? name.data : "",
               (unsigned long long)s[i].vm_state_size, date, (unsigned long long)s[i].size);
    }
}

static void print_info(const char *path, const struct blk_image_info *i)
{
    printf("image: %s\nfile format: %s\n", path, i->driver);
    print_size("virtual size", i->size);
    print_size("disk size", i->disk_size);
    if (i->encrypted) {
        printf("encrypted: yes\n");
    }
    if (i->cluster_size) {
        printf("cluster_size: %llu\n", (unsigned long long)i->cluster_size);
    }
    if (i->backing) {
        AUTO_BUF b = BUF_INIT;

        cli_clean(&b, i->backing);
        printf("backing file: %s\n", b.data ? b.data : "");
        if (i->backing_format) {
            printf("backing file format: %s\n", i->backing_format);
        }
    }
    if (i->version) {
        printf("compat: %s\ncompression type: %s\nrefcount bits: %u\n",
               i->version == 2 ? "0.10" : "1.1", i->compression, i->refcount_bits);
    }
    if (i->version >= 3) {
        printf("lazy refcounts: %s\ncorrupt: %s\nextended l2: %s\n",
               i->lazy_refcounts ? "true" : "false", i->corrupt ? "true" : "false",
               i->extended_l2 ? "true" : "false");
    }
    if (i->data_file) {
        printf("data file: %s\ndata file raw: %s\n", i->data_file,
               i->data_file_raw ? "true" : "false");
    }
    if (i->variant) {
        printf("variant: %s\n", i->variant);
    }
    for (size_t k = 0; k < i->n_bitmaps; k++) {
        AUTO_BUF b = BUF_INIT;

        cli_clean(&b, i->bitmap[k].name);
        printf("bitmap: %s, granularity %u%s%s\n", b.data ? b.data : "",
               i->bitmap[k].granularity, i->bitmap[k].enabled ? ", enabled" : "",
               i->bitmap[k].in_use ? ", inconsistent or in use" : "");
    }
    if (i->dirty) {
        printf("cleanly shut down: no\n");
    }
    if (i->n_snapshots) {
        printf("Snapshot list:\n");
        print_snapshots(i->snapshot, i->n_snapshots);
    }
}

static bool wants_json(struct cli *c, const struct cli_input *in)
{
    const char *output = cli_own(in, "output");

    return c->json || (output && strcmp(output, "json") == 0);
}

/* One image of the chain; *next: the path of its backing file, the caller's. */
static int info_one(struct cli *c, struct cli_input *in, const char *path, const char *format,
                    struct json_object *list, bool first, char **next, char **next_format)
{
    struct img_source s = { .path = path,
                            .format = format,
                            .secret = cli_own(in, "secret"),
                            .no_backing = true,
                            .for_check = true,
                            .shared = img_flag(in, "force-share") };
    struct blk_image_info i;
    struct blk_node *n;
    struct err e = ERR_INIT;
    int status = img_open(c, &s, &n);

    if (status != CLI_OK) {
        return status;
    }
    if (blk_info(n, &i, &e) != 0) {
        status = img_error(c, &e);
    } else {
        if (list) {
            json_object_array_add(list, info_json(path, &i));
        } else {
            printf("%s", first ? "" : "\n");
            print_info(path, &i);
        }
        if (i.backing) {
            const char *slash = strrchr(path, '/');

            *next = i.backing[0] == '/' || !slash
                        ? xstrdup(i.backing)
                        : xasprintf("%.*s/%s", (int)(slash - path), path, i.backing);
            *next_format = i.backing_format ? xstrdup(i.backing_format) : NULL;
        }
        blk_info_done(&i);
    }
    blk_close(n);
    return status;
}

int cli_verb_image_info(struct cli *c, struct cli_input *in)
{
    const char *format = cli_own(in, "image-format");
    bool chain = img_flag(in, "backing-chain"), json = wants_json(c, in);
    AUTO_JSON list = json ? json_object_new_array() : NULL;
    char *path = xstrdup(img_arg(in, "FILE")), *fmt = format ? xstrdup(format) : NULL;
    int status = CLI_OK;

    for (unsigned depth = 0; path && status == CLI_OK; depth++) {
        char *next = NULL, *next_fmt = NULL;

        if (depth > BLK_MAX_DEPTH) {
            status = cli_fail(c, CLI_FAILED, NULL, "the backing chain has a loop at %s", path);
        } else {
            status = info_one(c, in, path, fmt, list, depth == 0, &next, &next_fmt);
        }
        free(path);
        free(fmt);
        path = chain ? next : NULL;
        fmt = chain ? next_fmt : NULL;
        if (!chain) {
            free(next);
            free(next_fmt);
        }
    }
    free(path);
    free(fmt);
    if (status == CLI_OK && json) {
        cli_print_json(chain ? list : json_object_array_get_idx(list, 0));
    }
    return status;
}

/* --- check --- */

static void check_say(void *arg, const char *text)
{
    struct cli *c = arg;

    if (!c->json && !c->quiet) {
        fprintf(stderr, "%s\n", text);
    }
}

static void check_report(struct cli *c, const char *path, const char *format,
                         const struct blk_check *k, bool json)
{
    if (json) {
        AUTO_JSON o = json_object_new_object();

        api_json_set_str(o, "filename", path);
        api_json_set_str(o, "format", format);
        api_json_set_int(o, "check-errors", (int64_t)k->errors);
        api_json_set_int(o, "corruptions", (int64_t)k->corruptions);
        api_json_set_int(o, "leaks", (int64_t)k->leaks);
        api_json_set_int(o, "corruptions-fixed", (int64_t)k->corruptions_fixed);
        api_json_set_int(o, "leaks-fixed", (int64_t)k->leaks_fixed);
        api_json_set_int(o, "image-end-offset", (int64_t)k->end);
        api_json_set_int(o, "total-clusters", (int64_t)k->total);
        api_json_set_int(o, "allocated-clusters", (int64_t)k->allocated);
        api_json_set_int(o, "fragmented-clusters", (int64_t)k->fragmented);
        api_json_set_int(o, "compressed-clusters", (int64_t)k->compressed);
        cli_print_json(o);
        return;
    }
    if (c->quiet) {
        return;
    }
    if (k->corruptions_fixed || k->leaks_fixed) {
        printf("repaired: %llu corruptions, %llu leaked clusters\n",
               (unsigned long long)k->corruptions_fixed, (unsigned long long)k->leaks_fixed);
    }
    if (!k->corruptions && !k->leaks && !k->errors) {
        printf("No errors were found on the image.\n");
    } else {
        printf("%llu corruptions, %llu leaked clusters, %llu errors\n",
               (unsigned long long)k->corruptions, (unsigned long long)k->leaks,
               (unsigned long long)k->errors);
    }
    printf("%llu/%llu = %.2f%% allocated, %llu fragmented, %llu compressed clusters\n",
           (unsigned long long)k->allocated, (unsigned long long)k->total,
           k->total ? (double)k->allocated * 100 / (double)k->total : 0.0,
           (unsigned long long)k->fragmented, (unsigned long long)k->compressed);
    printf("Image end offset: %llu\n", (unsigned long long)k->end);
}

int cli_verb_image_check(struct cli *c, struct cli_input *in)
{
    const char *repair = cli_own(in, "repair");
    struct img_source s = { .path = img_arg(in, "FILE"),
                            .format = cli_own(in, "image-format"),
                            .secret = cli_own(in, "secret"),
                            .for_check = true,
                            .no_backing = true,
                            .shared = img_flag(in, "force-share"),
                            .write = repair != NULL };
    struct blk_check k = { .say = check_say, .arg = c };
    unsigned what = !repair ? 0 : strcmp(repair, "leaks") ? BLK_REPAIR_ALL : BLK_REPAIR_LEAKS;
    struct err e = ERR_INIT;
    struct blk_node *n;
    int status, rc;

    if (repair && strcmp(repair, "leaks") && strcmp(repair, "all")) {
        return cli_fail(c, CLI_USAGE, NULL, "--repair is leaks or all, not '%s'", repair);
    }
    status = img_open(c, &s, &n);
    if (status != CLI_OK) {
        return status;
    }
    rc = blk_check(n, what, &k, &e);
    if (rc != 0) {
        status = img_error(c, &e);
        blk_close(n);
        return rc == -ENOTSUP ? CHECK_NONE : status;
    }
    check_report(c, s.path, blk_driver_name(n), &k, wants_json(c, in));
    status = img_close(c, n, CLI_OK);
    if (status != CLI_OK || k.errors) {
        return CHECK_FAILED;
    }
    return k.corruptions ? CHECK_CORRUPT : k.leaks ? CHECK_LEAKS : CLI_OK;
}

/* --- resize, snapshot --- */

int cli_verb_image_resize(struct cli *c, struct cli_input *in)
{
    struct img_source s = { .path = img_arg(in, "FILE"),
                            .format = cli_own(in, "image-format"),
                            .secret = cli_own(in, "secret"),
                            .write = true };
    const char *text = img_arg(in, "SIZE");
    const char *pre = cli_own(in, "preallocation");
    enum blk_prealloc mode = BLK_PRE_OFF;
    uint64_t size, was;
    struct err e = ERR_INIT;
    struct blk_node *n;
    int status = img_size(c, text + (*text == '+' || *text == '-'), &size);

    if (pre && blk_parse_prealloc(pre, &mode, &e) != 0) {
        return img_error(c, &e);
    }
    status = status != CLI_OK ? status : img_open(c, &s, &n);
    if (status != CLI_OK) {
        return status;
    }
    was = blk_size(n);
    if (*text == '-' && size > was) {
        status = cli_fail(c, CLI_FAILED, NULL, "%s has only %llu bytes", s.path,
                          (unsigned long long)was);
    }
    size = *text == '+' ? was + size : *text == '-' ? was - size : size;
    size = (size + BLK_SECTOR - 1) / BLK_SECTOR * BLK_SECTOR;
    if (status == CLI_OK && size < was && !img_flag(in, "shrink")) {
        status = cli_fail(c, CLI_FAILED, "use --shrink if that is meant",
                          "%s would shrink from %llu to %llu bytes and lose what lies behind",
                          s.path, (unsigned long long)was, (unsigned long long)size);
    }
    if (status == CLI_OK && size < was && mode != BLK_PRE_OFF) {
        status = cli_fail(c, CLI_FAILED, NULL, "--preallocation goes with a larger size");
    }
    if (status == CLI_OK && blk_resize(n, size, &e) != 0) {
        status = img_error(c, &e);
    } else if (status == CLI_OK && blk_grow_prealloc(n, was, mode, &e) != 0) {
        status = img_error(c, &e);
        (void)blk_resize(n, was, NULL);
    }
    status = img_close(c, n, status);
    if (status == CLI_OK && !c->quiet && !c->json) {
        printf("Image resized.\n");
    }
    return status;
}

static int snapshot_list(struct cli *c, struct blk_node *n, bool json)
{
    struct blk_image_info i;
    struct err e = ERR_INIT;

    if (blk_info(n, &i, &e) != 0) {
        return img_error(c, &e);
    }
    if (json) {
        AUTO_JSON list = json_object_new_array();

        for (size_t k = 0; k < i.n_snapshots; k++) {
            json_object_array_add(list, snapshot_json(&i.snapshot[k]));
        }
        cli_print_json(list);
    } else if (i.n_snapshots) {
        printf("Snapshot list:\n");
        print_snapshots(i.snapshot, i.n_snapshots);
    }
    blk_info_done(&i);
    return CLI_OK;
}

int cli_verb_image_snapshot(struct cli *c, struct cli_input *in)
{
    static const char *const verbs[] = { "create", "apply", "delete" };
    struct img_source s = { .path = img_arg(in, "FILE"),
                            .format = cli_own(in, "image-format"),
                            .secret = cli_own(in, "secret"),
                            .no_backing = true,
                            .shared = img_flag(in, "force-share") };
    struct err e = ERR_INIT;
    struct blk_node *n;
    int which = -1, status;

    for (int i = 0; i < 3; i++) {
        if (cli_own(in, verbs[i])) {
            if (which >= 0) {
                return cli_fail(c, CLI_USAGE, NULL, "--%s and --%s do not go together",
                                verbs[which], verbs[i]);
            }
            which = i;
        }
    }
    s.write = which >= 0;
    status = img_open(c, &s, &n);
    if (status != CLI_OK) {
        return status;
    }
    if (which < 0) {
        status = snapshot_list(c, n, wants_json(c, in));
    } else if (blk_snapshot(n, (enum blk_snapshot_verb)which, cli_own(in, verbs[which]), &e) !=
               0) {
        status = img_error(c, &e);
    }
    return img_close(c, n, status);
}

/* --- map, measure --- */

static void map_print(const struct blk_extent *x, uint64_t at, const char *const *names,
                      struct json_object *list)
{
    if (list) {
        struct json_object *o = json_object_new_object();

        api_json_set_int(o, "start", (int64_t)at);
        api_json_set_int(o, "length", (int64_t)x->length);
        api_json_set_int(o, "depth", x->depth);
        api_json_set_bool(o, "present", x->present);
        api_json_set_bool(o, "zero", x->zero);
        api_json_set_bool(o, "data", x->data);
        api_json_set_bool(o, "compressed", x->compressed);
        if (x->has_host) {
            api_json_set_int(o, "offset", (int64_t)x->host);
        }
        json_object_array_add(list, o);
    } else if (x->data && !x->compressed) {
        printf("%#-16llx%#-16llx%#-16llx%s\n", (unsigned long long)at,
               (unsigned long long)x->length, (unsigned long long)x->host, names[x->depth]);
    }
}

static bool map_same(const struct blk_extent *a, const struct blk_extent *b)
{
    return a->data == b->data && a->zero == b->zero && a->present == b->present &&
           a->compressed == b->compressed && a->depth == b->depth &&
           a->has_host == b->has_host && (!a->has_host || a->host + a->length == b->host);
}

static const char *node_path(struct blk_node *n, unsigned depth)
{
    while (depth-- && blk_child(n, BLK_BACKING)) {
        n = blk_child(n, BLK_BACKING);
    }
    return blk_path(n);
}

static int map_range(struct cli *c, struct cli_input *in, uint64_t *from, uint64_t *most)
{
    const char *start = cli_own(in, "start-offset"), *length = cli_own(in, "max-length");
    int status = start ? img_size(c, start, from) : CLI_OK;

    return status == CLI_OK && length ? img_size(c, length, most) : status;
}

int cli_verb_image_map(struct cli *c, struct cli_input *in)
{
    struct img_source s = { .path = img_arg(in, "FILE"),
                            .format = cli_own(in, "image-format"),
                            .secret = cli_own(in, "secret"),
                            .shared = img_flag(in, "force-share") };
    AUTO_JSON list = wants_json(c, in) ? json_object_new_array() : NULL;
    const char *names[BLK_MAX_DEPTH + 2];
    struct blk_extent last = { 0 };
    uint64_t start = 0, from = 0, most = UINT64_MAX, end;
    struct err e = ERR_INIT;
    struct blk_node *n;
    int status = map_range(c, in, &from, &most);

    status = status ? status : img_open(c, &s, &n);

    if (status != CLI_OK) {
        return status;
    }
    for (unsigned i = 0; i < ARRAY_LEN(names); i++) {
        names[i] = node_path(n, i);
    }
    if (!list) {
        printf("%-16s%-16s%-16s%s\n", "Offset", "Length", "Mapped to", "File");
    }
    end = from < blk_size(n) && most < blk_size(n) - from ? from + most : blk_size(n);
    for (uint64_t at = from; at < end && status == CLI_OK;) {
        struct blk_extent x;

        if (blk_map(n, at, &x, &e) != 0) {
            status = img_error(c, &e);
            break;
        }
        x.length = x.length < end - at ? x.length : end - at;
        if (last.length && map_same(&last, &x)) {
            last.length += x.length;
        } else {
            if (last.length) {
                map_print(&last, start, names, list);
            }
            last = x;
            start = at;
        }
        at += x.length;
    }
    if (status == CLI_OK && last.length) {
        map_print(&last, start, names, list);
    }
    if (status == CLI_OK && list) {
        cli_print_json(list);
    }
    return img_close(c, n, status);
}

/* Bytes of clusters with data, through the chain. */
static int data_bytes(struct blk_node *n, uint64_t cluster, uint64_t *out, struct err *e)
{
    uint64_t counted = 0; /* behind the last cluster that was counted */

    for (uint64_t at = 0; at < blk_size(n);) {
        struct blk_extent x;
        int rc = blk_map(n, at, &x, e);

        if (rc != 0) {
            return rc;
        }
        if (x.data) {
            uint64_t from = at / cluster * cluster;
            uint64_t to = (at + x.length + cluster - 1) / cluster * cluster;

            from = from > counted ? from : counted;
            *out += to > from ? to - from : 0;
            counted = to > counted ? to : counted;
        }
        at += x.length;
    }
    return 0;
}

int cli_verb_image_measure(struct cli *c, struct cli_input *in)
{
    struct img_source s = { .path = img_arg(in, "FILE"),
                            .format = cli_own(in, "image-format"),
                            .secret = cli_own(in, "secret"),
                            .shared = img_flag(in, "force-share") };
    const char *snapshot = cli_own(in, "snapshot");
    struct blk_create n = { .driver = cli_own(in, "output-format") };
    uint64_t data = 0, required, full, cluster = 65536;
    struct img_options o;
    struct err e = ERR_INIT;
    int status = img_options(c, in, &o);

    n.driver = n.driver ? n.driver : "raw";
    n.option = o.item;
    n.n_options = o.n;
    if (status == CLI_OK && blk_create_option(&n, "cluster_size")) {
        status = img_size(c, blk_create_option(&n, "cluster_size"), &cluster);
    }
    if (status == CLI_OK && s.path) {
        struct blk_node *from;

        status = img_open(c, &s, &from);
        if (status == CLI_OK) {
            if ((snapshot && blk_snapshot_load(from, snapshot, &e) != 0) ||
                data_bytes(from, cluster ? cluster : 512, &data, &e) != 0) {
                status = img_error(c, &e);
            }
            n.size = blk_size(from);
            blk_close(from);
        }
    } else if (status == CLI_OK) {
        status = cli_own(in, "size") ? img_size(c, cli_own(in, "size"), &n.size)
                                     : cli_fail(c, CLI_USAGE, NULL, "name a file or --size");
    }
    if (status == CLI_OK && blk_measure(&n, data, &required, &full, &e) != 0) {
        status = img_error(c, &e);
    }
    if (status == CLI_OK && wants_json(c, in)) {
        AUTO_JSON out = json_object_new_object();

        api_json_set_int(out, "required", (int64_t)required);
        api_json_set_int(out, "fully-allocated", (int64_t)full);
        cli_print_json(out);
    } else if (status == CLI_OK) {
        printf("required size: %llu\nfully allocated size: %llu\n",
               (unsigned long long)required, (unsigned long long)full);
    }
    img_options_done(&o);
    return status;
}
