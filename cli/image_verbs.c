/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `vmctl image`: verbs that move contents: convert, dd, compare, commit, rebase, bench. Threads: those of
 * img_copy() and of bench.
 */
#include "cli/image.h"

#include "api-schema/json/json.h"
#include "storage/nbd.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { COMPARE_DIFFERS = 1, COMPARE_FAILED = 2, STEP = 2 << 20 };

/* What nobody wrote in a new image of this format: zeroes, but for what decrypts them. */
static bool img_new_is_zero(const struct blk_node *n)
{
    return strcmp(blk_driver_name(n), "luks") != 0;
}

/* --- convert --- */

struct target {
    const char *path;
    struct blk_create create;
    bool fresh; /* made by us: reads as zeroes */
};

static int open_target(struct cli *c, struct cli_input *in, const struct target *t,
                       struct blk_node **out)
{
    struct img_source s = { .path = t->path,
                            .format = t->create.driver,
                            .secret = img_key_file(&t->create, cli_own(in, "secret")),
                            .write = true,
                            .unsafe = t->fresh };
    int status = img_cache(c, cli_own(in, "cache"), &s);

    return status != CLI_OK ? status : img_open(c, &s, out);
}

static int make_target(struct cli *c, struct cli_input *in, struct target *t, uint64_t size,
                       struct blk_node **out)
{
    int status;

    t->fresh = !img_flag(in, "no-create") &&
               !nbd_is_uri(t->path); /* exports are there already */
    t->create.size = size;
    status = t->fresh ? img_create(c, &t->create, cli_own(in, "secret")) : CLI_OK;
    return status != CLI_OK ? status : open_target(c, in, t, out);
}

static int img_rate(struct cli *c, struct cli_input *in, uint64_t *out)
{
    const char *text = cli_own(in, "rate-limit");

    return text ? img_size(c, text, out) : CLI_OK;
}

static int convert_run(struct cli *c, struct cli_input *in, struct blk_node *from,
                       struct target *t)
{
    const char *sparse = cli_own(in, "sparse"), *threads = cli_own(in, "threads");
    const char *backing = blk_create_option(&t->create, "backing_file");
    struct img_progress p;
    struct img_copy k = { .from = from,
                          .compress = img_flag(in, "compress"),
                          .salvage = img_flag(in, "salvage"),
                          .sparse = 4096,
                          .threads = threads ? (unsigned)strtoul(threads, NULL, 10) : 0,
                          .progress = &p };
    struct err e = ERR_INIT;
    struct blk_node *to;
    int status = sparse ? img_size(c, sparse, &k.sparse) : CLI_OK;

    status = status ? status : img_rate(c, in, &k.rate);

    status = status != CLI_OK ? status : make_target(c, in, t, blk_size(from), &to);
    if (status != CLI_OK) {
        return status;
    }
    if (blk_size(to) < blk_size(from)) {
        status = cli_fail(c, CLI_FAILED, NULL, "%s is smaller than %s", t->path,
                          blk_path(from));
        return img_close(c, to, status);
    }
    k.to = to;
    k.to_is_zero = (t->fresh && !backing && img_new_is_zero(to)) ||
                   img_flag(in, "target-is-zero");
    img_progress_begin(&p, c, in);
    if (img_copy(&k, &e) != 0) {
        status = img_error(c, &e);
    }
    img_progress_end(&p);
    if (status == CLI_OK && img_flag(in, "bitmaps")) {
        status = img_bitmaps_copy(c, from, to);
    }
    return img_close(c, to, status);
}

/* What is asked for besides contents is refused before anything is written. */
static int convert_check(struct cli *c, struct cli_input *in, struct blk_node *from,
                         const struct target *t)
{
    if (img_flag(in, "target-is-zero") && !img_flag(in, "no-create")) {
        return cli_fail(c, CLI_USAGE, NULL, "--target-is-zero goes with --no-create");
    }
    if (img_flag(in, "target-is-zero") && blk_create_option(&t->create, "backing_file")) {
        return cli_fail(c, CLI_USAGE, NULL, "--target-is-zero does not go with a backing file");
    }
    if (img_flag(in, "skip-broken-bitmaps") && !img_flag(in, "bitmaps")) {
        return cli_fail(c, CLI_USAGE, NULL, "--skip-broken-bitmaps goes with --bitmaps");
    }
    if (!img_flag(in, "bitmaps")) {
        return CLI_OK;
    }
    if (strcmp(t->create.driver, "qcow2") != 0) {
        return cli_fail(c, CLI_FAILED, "convert with -O qcow2",
                        "images of format %s keep no bitmaps", t->create.driver);
    }
    return img_bitmaps_check(c, from, img_flag(in, "skip-broken-bitmaps"));
}

int cli_verb_image_convert(struct cli *c, struct cli_input *in)
{
    struct img_source s = { .path = img_arg(in, "SOURCE"),
                            .format = cli_own(in, "image-format"),
                            .secret = cli_own(in, "secret"),
                            .shared = img_flag(in, "force-share") };
    struct target t = { .path = img_arg(in, "TARGET") };
    struct img_options o;
    struct blk_node *from;
    struct err e = ERR_INIT;
    int status = img_options(c, in, &o);

    if (cli_own(in, "backing")) {
        img_option_add(&o, "backing_file", cli_own(in, "backing"));
    }
    if (cli_own(in, "backing-format")) {
        img_option_add(&o, "backing_fmt", cli_own(in, "backing-format"));
    }
    t.create = (struct blk_create){ .path = t.path,
                                    .driver = cli_own(in, "output-format"),
                                    .option = o.item,
                                    .n_options = o.n };
    t.create.driver = t.create.driver ? t.create.driver : "raw";
    status = status != CLI_OK ? status : img_cache(c, cli_own(in, "source-cache"), &s);
    status = status != CLI_OK ? status : img_open(c, &s, &from);
    if (status == CLI_OK) {
        if (cli_own(in, "snapshot") &&
            blk_snapshot_load(from, cli_own(in, "snapshot"), &e) != 0) {
            status = img_error(c, &e);
        } else {
            status = convert_check(c, in, from, &t);
            status = status != CLI_OK ? status : convert_run(c, in, from, &t);
        }
        blk_close(from);
    }
    img_options_done(&o);
    return status;
}

/* --- dd --- */

const char *img_dd_word(const struct cli_input *in, const char *key)
{
    size_t n = strlen(key);

    for (size_t i = 0; i < in->n_targets; i++) {
        if (strncmp(in->targets[i], key, n) == 0 && in->targets[i][n] == '=') {
            return in->targets[i] + n + 1;
        }
    }
    return NULL;
}

static int dd_number(struct cli *c, const struct cli_input *in, const char *key, uint64_t *out)
{
    const char *text = img_dd_word(in, key);

    return text ? img_size(c, text, out) : CLI_OK;
}

static int dd_copy(struct cli *c, struct blk_node *from, struct blk_node *to, uint64_t skip,
                   uint64_t length)
{
    char *mem = xalloc(STEP);
    bool zeroed = img_new_is_zero(to);
    int rc = 0;

    for (uint64_t at = 0; at < length && rc == 0; at += STEP) {
        size_t n = length - at < STEP ? (size_t)(length - at) : STEP;

        rc = blk_pread(from, skip + at, mem, n);
        if (rc == 0 && (!zeroed || !img_is_zero(mem, n))) {
            rc = blk_pwrite(to, at, mem, n);
        }
    }
    free(mem);
    return rc ? cli_fail(c, CLI_FAILED, NULL, "dd: %s", strerror(-rc)) : CLI_OK;
}

int cli_verb_image_dd(struct cli *c, struct cli_input *in)
{
    const char *translated = cli_own(in, "IF"); /* by --image-opts */
    struct img_source s = { .path = translated ? translated : img_dd_word(in, "if"),
                            .format = cli_own(in, "image-format"),
                            .secret = cli_own(in, "secret"),
                            .shared = img_flag(in, "force-share") };
    const char *format = cli_own(in, "output-format"), *out = img_dd_word(in, "of");
    struct target t = { .path = out,
                        .create = { .path = out, .driver = format ? format : "raw" } };
    uint64_t bs = 512, count = UINT64_MAX, skip = 0, size;
    struct blk_node *from, *to;
    int status;

    if (!s.path || !out) {
        return cli_fail(c, CLI_USAGE, NULL, "dd needs if=FILE and of=FILE");
    }
    status = dd_number(c, in, "bs", &bs);
    status = status ? status : dd_number(c, in, "count", &count);
    status = status ? status : dd_number(c, in, "skip", &skip);
    if (status == CLI_OK && (bs == 0 || bs > 1u << 30)) {
        status = cli_fail(c, CLI_USAGE, NULL, "dd: bs is 1 byte to 1 GiB");
    }
    status = status ? status : img_open(c, &s, &from);
    if (status != CLI_OK) {
        return status;
    }
    size = blk_size(from);
    skip = skip > size / bs ? size : skip * bs;
    size -= skip;
    size = count < size / bs ? count * bs : size;
    status = make_target(c, in, &t, (size + BLK_SECTOR - 1) / BLK_SECTOR * BLK_SECTOR, &to);
    if (status == CLI_OK) {
        status = img_close(c, to, dd_copy(c, from, to, skip, size));
    }
    blk_close(from);
    return status;
}

/* --- compare --- */

struct compare {
    struct blk_node *n[2];
    char *mem[2];
    uint64_t at, end;
};

/* The next stretch of both, read or known to be zero. */
static int compare_step(struct compare *k, uint64_t *length, bool zero[2], struct err *e)
{
    *length = k->end - k->at < STEP ? k->end - k->at : STEP;
    for (int i = 0; i < 2; i++) {
        struct blk_extent x = { .length = UINT64_MAX };
        int rc = k->at < blk_size(k->n[i]) ? blk_map(k->n[i], k->at, &x, e) : 0;

        if (rc != 0) {
            return rc;
        }
        zero[i] = !x.data;
        if (k->at < blk_size(k->n[i])) {
            *length = x.length < *length ? x.length : *length;
        }
    }
    for (int i = 0; i < 2; i++) {
        int rc;

        if (zero[i]) {
            if (!zero[!i]) {
                memset(k->mem[i], 0, *length);
            }
            continue;
        }
        rc = blk_pread(k->n[i], k->at, k->mem[i], *length);
        if (rc != 0) {
            return err_errno(e, -rc, "%s at offset %llu", blk_path(k->n[i]),
                             (unsigned long long)k->at);
        }
    }
    return 0;
}

static int compare_run(struct cli *c, struct compare *k, struct img_progress *p)
{
    while (k->at < k->end) {
        uint64_t n;
        bool zero[2];
        struct err e = ERR_INIT;

        if (compare_step(k, &n, zero, &e) != 0) {
            (void)img_error(c, &e);
            return COMPARE_FAILED;
        }
        if (!(zero[0] && zero[1]) && memcmp(k->mem[0], k->mem[1], n) != 0) {
            uint64_t i = 0;

            while (k->mem[0][i] == k->mem[1][i]) {
                i++;
            }
            if (!c->quiet) {
                printf("Content mismatch at offset %llu!\n",
                       (unsigned long long)((k->at + i) / BLK_SECTOR * BLK_SECTOR));
            }
            return COMPARE_DIFFERS;
        }
        k->at += n;
        img_progress(p, k->at, k->end);
    }
    if (!c->quiet) {
        printf("Images are identical.\n");
    }
    return CLI_OK;
}

int cli_verb_image_compare(struct cli *c, struct cli_input *in)
{
    struct img_source s[2] = {
        { .path = img_arg(in, "FILE1"),
          .format = cli_own(in, "image-format"),
          .secret = cli_own(in, "secret") },
        { .path = img_arg(in, "FILE2"),
          .format = cli_own(in, "second-format"),
          .secret = cli_own(in, "second-secret") ? cli_own(in, "second-secret")
                                                 : cli_own(in, "secret") },
    };
    struct compare k = { .at = 0 };
    struct img_progress p;
    int status;

    s[0].shared = s[1].shared = img_flag(in, "force-share");
    if (img_cache(c, cli_own(in, "source-cache"), &s[0]) != CLI_OK ||
        img_cache(c, cli_own(in, "source-cache"), &s[1]) != CLI_OK ||
        img_open(c, &s[0], &k.n[0]) != CLI_OK) {
        return COMPARE_FAILED;
    }
    if (img_open(c, &s[1], &k.n[1]) != CLI_OK) {
        blk_close(k.n[0]);
        return COMPARE_FAILED;
    }
    k.end = blk_size(k.n[0]) > blk_size(k.n[1]) ? blk_size(k.n[0]) : blk_size(k.n[1]);
    if (blk_size(k.n[0]) != blk_size(k.n[1]) && img_flag(in, "strict")) {
        if (!c->quiet) {
            printf("Strict mode: Image size mismatch!\n");
        }
        status = COMPARE_DIFFERS;
    } else {
        k.mem[0] = xalloc(STEP);
        k.mem[1] = xalloc(STEP);
        img_progress_begin(&p, c, in);
        status = compare_run(c, &k, &p);
        img_progress_end(&p);
        free(k.mem[0]);
        free(k.mem[1]);
    }
    blk_close(k.n[0]);
    blk_close(k.n[1]);
    return status;
}

/* --- commit --- */

static char *beside(const char *image, const char *named)
{
    const char *slash = strrchr(image, '/');

    return named[0] == '/' || !slash ? xstrdup(named)
                                     : xasprintf("%.*s/%s", (int)(slash - image), image, named);
}

/* Layers that are committed, from the image itself downwards; the last is what they go into. */
struct layers {
    char *path[BLK_MAX_DEPTH + 1], *format[BLK_MAX_DEPTH + 1];
    unsigned n;
};

static void layers_done(struct layers *l)
{
    while (l->n > 0) {
        free(l->path[--l->n]);
        free(l->format[l->n]);
    }
}

static bool same_file(const char *a, const char *b)
{
    AUTO_FREE char *x = realpath(a, NULL);
    AUTO_FREE char *y = realpath(b, NULL);

    return x && y && strcmp(x, y) == 0;
}

/* The layer below the last one. */
static int layer_below(struct cli *c, struct cli_input *in, struct layers *l)
{
    struct img_source s = { .path = l->path[l->n - 1],
                            .format = l->format[l->n - 1],
                            .secret = cli_own(in, "secret"),
                            .no_backing = true };
    struct blk_image_info i;
    struct err e = ERR_INIT;
    struct blk_node *n;
    int status = img_open(c, &s, &n);

    if (status != CLI_OK) {
        return status;
    }
    if (blk_info(n, &i, &e) != 0) {
        return img_close(c, n, img_error(c, &e));
    }
    if (!i.backing) {
        status = cli_fail(c, CLI_FAILED, NULL, "%s has no backing file to commit to", s.path);
    } else {
        l->path[l->n] = beside(s.path, i.backing);
        l->format[l->n++] = i.backing_format ? xstrdup(i.backing_format) : NULL;
    }
    blk_info_done(&i);
    return img_close(c, n, status);
}

/* Down to the image that is meant; without one, the first backing file. */
static int find_layers(struct cli *c, struct cli_input *in, struct layers *l)
{
    const char *top = img_arg(in, "FILE"), *base = cli_own(in, "base"),
               *format = cli_own(in, "image-format");
    AUTO_FREE char *seen = base ? beside(top, base) : NULL;
    int status;

    l->path[0] = xstrdup(top);
    l->format[0] = format ? xstrdup(format) : NULL;
    l->n = 1;
    do {
        status = l->n <= BLK_MAX_DEPTH
                     ? layer_below(c, in, l)
                     : cli_fail(c, CLI_FAILED, NULL, "the backing chain of %s has a loop", top);
    } while (status == CLI_OK && base && !same_file(l->path[l->n - 1], base) &&
             !same_file(l->path[l->n - 1], seen));
    return status;
}

/* What a layer has goes into the base; where it is shorter than the image above, that one reads zeroes. */
static int commit_layer(struct cli *c, struct cli_input *in, struct blk_node *from,
                        struct blk_node *base, uint64_t size)
{
    struct img_progress p;
    struct img_copy k = { .from = from, .to = base, .layer = true, .progress = &p };
    struct err e = ERR_INIT;
    uint64_t end = size < blk_size(base) ? size : blk_size(base);
    int status = img_rate(c, in, &k.rate), rc = 0;

    if (status != CLI_OK) {
        return status;
    }
    img_progress_begin(&p, c, in);
    if (img_copy(&k, &e) != 0) {
        status = img_error(c, &e);
    } else if (blk_size(from) < end) {
        rc = blk_zero(base, blk_size(from), end - blk_size(from), BLK_UNMAP);
    }
    img_progress_end(&p);
    return rc == 0 ? status
                   : cli_fail(c, CLI_FAILED, NULL, "%s: %s", blk_path(base), strerror(-rc));
}

static int commit_all(struct cli *c, struct cli_input *in, const struct layers *l,
                      struct blk_node *top)
{
    struct img_source base = { .path = l->path[l->n - 1],
                               .format = l->format[l->n - 1],
                               .secret = cli_own(in, "secret"),
                               .write = true };
    struct err e = ERR_INIT;
    struct blk_node *to;
    int status = img_open(c, &base, &to);

    if (status != CLI_OK) {
        return status;
    }
    if (blk_size(to) < blk_size(top) && blk_resize(to, blk_size(top), &e) != 0) {
        status = img_error(c, &e);
    }
    for (unsigned i = l->n - 2; i > 0 && status == CLI_OK; i--) {
        struct img_source s = { .path = l->path[i],
                                .format = l->format[i],
                                .secret = cli_own(in, "secret"),
                                .no_backing = true };
        struct blk_node *mid;

        status = img_open(c, &s, &mid);
        if (status == CLI_OK) {
            status = img_close(c, mid, commit_layer(c, in, mid, to, blk_size(top)));
        }
    }
    status = status ? status : commit_layer(c, in, top, to, blk_size(top));
    if (status == CLI_OK && blk_flush(to) != 0) {
        status = cli_fail(c, CLI_FAILED, NULL, "%s cannot be flushed", base.path);
    }
    return img_close(c, to, status);
}

int cli_verb_image_commit(struct cli *c, struct cli_input *in)
{
    struct img_source s = { .path = img_arg(in, "FILE"),
                            .format = cli_own(in, "image-format"),
                            .secret = cli_own(in, "secret"),
                            .write = true,
                            .no_backing = true };
    struct layers l = { .n = 0 };
    struct err e = ERR_INIT;
    struct blk_node *top;
    int status = img_cache(c, cli_own(in, "cache"), &s);

    status = status ? status : find_layers(c, in, &l);
    status = status ? status : img_open(c, &s, &top);
    if (status == CLI_OK) {
        /* With layers between, emptying it would show those again. */
        bool keep = img_flag(in, "keep") || cli_own(in, "base");

        status = commit_all(c, in, &l, top);
        if (status == CLI_OK && !keep && blk_make_empty(top, &e) != 0) {
            status = img_error(c, &e);
        }
        status = img_close(c, top, status);
    }
    layers_done(&l);
    if (status == CLI_OK && !c->quiet && !c->json) {
        printf("Image committed.\n");
    }
    return status;
}

/* --- rebase --- */

/* Where the new backing file would show something else than the old one, the image gets its own copy. */
static int rebase_copy(struct blk_node *top, struct blk_node *base, struct img_progress *p,
                       struct err *e)
{
    AUTO_FREE char *ours = xalloc(STEP);
    AUTO_FREE char *theirs = xalloc(STEP);

    for (uint64_t at = 0; at < blk_size(top);) {
        uint64_t n = blk_size(top) - at < STEP ? blk_size(top) - at : STEP, have;
        struct blk_extent x;
        int rc = blk_map_layer(top, at, &x, e);

        if (rc != 0) {
            return rc;
        }
        n = x.length < n ? x.length : n;
        have = !base || at >= blk_size(base) ? 0
               : blk_size(base) - at < n     ? blk_size(base) - at
                                             : n;
        if (!x.present) {
            memset(theirs, 0, n);
            rc = blk_pread(top, at, ours, n);
            rc = rc ? rc : have ? blk_pread(base, at, theirs, have) : 0;
            for (uint64_t i = 0; i < n && rc == 0; i += BLK_SECTOR) {
                uint64_t k = i;

                while (k < n && memcmp(ours + k, theirs + k, BLK_SECTOR) != 0) {
                    k += BLK_SECTOR;
                }
                if (k > i) {
                    rc = img_is_zero(ours + i, k - i)
                             ? blk_zero(top, at + i, k - i, 0)
                             : blk_pwrite(top, at + i, ours + i, k - i);
                    i = k;
                }
            }
        }
        if (rc != 0) {
            return err_errno(e, -rc, "%s at offset %llu", blk_path(top),
                             (unsigned long long)at);
        }
        at += n;
        img_progress(p, at, blk_size(top));
    }
    return 0;
}

static int rebase_safely(struct cli *c, struct cli_input *in, struct blk_node *top,
                         const char *backing, const char *format)
{
    AUTO_FREE char *path = backing ? beside(blk_path(top), backing) : NULL;
    struct img_source s = { .path = path, .format = format, .secret = cli_own(in, "secret") };
    struct blk_node *base = NULL;
    struct img_progress p;
    struct err e = ERR_INIT;
    int status = path ? img_open(c, &s, &base) : CLI_OK;

    if (status != CLI_OK) {
        return status;
    }
    img_progress_begin(&p, c, in);
    if (rebase_copy(top, base, &p, &e) != 0) {
        status = img_error(c, &e);
    } else if (blk_flush(top) != 0) {
        status = cli_fail(c, CLI_FAILED, NULL, "%s cannot be flushed", blk_path(top));
    }
    img_progress_end(&p);
    blk_close(base);
    return status;
}

int cli_verb_image_rebase(struct cli *c, struct cli_input *in)
{
    const char *backing = cli_own(in, "backing"), *format = cli_own(in, "backing-format");
    bool unsafe = img_flag(in, "unsafe");
    struct img_source s = { .path = img_arg(in, "FILE"),
                            .format = cli_own(in, "image-format"),
                            .secret = cli_own(in, "secret"),
                            .write = true,
                            .no_backing = unsafe };
    struct err e = ERR_INIT;
    struct blk_node *top;
    int status;

    if (!backing) {
        return cli_fail(c, CLI_USAGE, NULL,
                        "rebase needs -b FILE (an empty name: no backing file)");
    }
    backing = *backing ? backing : NULL;
    status = img_cache(c, cli_own(in, "cache"), &s);
    status = status ? status : img_open(c, &s, &top);
    if (status != CLI_OK) {
        return status;
    }
    if (!unsafe) {
        status = rebase_safely(c, in, top, backing, format);
    }
    if (status == CLI_OK && blk_set_backing(top, backing, format, &e) != 0) {
        status = img_error(c, &e);
    }
    return img_close(c, top, status);
}

/* --- bench --- */

struct bench {
    struct blk_node *n;
    pthread_mutex_t mutex;
    uint64_t left, at, step, size;
    size_t length;
    uint64_t flush_every, since; /* writes; 0: no flushes */
    bool write;
    int pattern, rc;
};

static void *bench_thread(void *arg)
{
    struct bench *b = arg;
    char *mem = xalloc_aligned(4096, b->length);

    memset(mem, b->pattern, b->length);
    pthread_mutex_lock(&b->mutex);
    while (b->left > 0 && b->rc == 0) {
        uint64_t at = b->at;
        bool flushes = b->flush_every && ++b->since % b->flush_every == 0;
        int rc;

        b->left--;
        b->at = at + b->step + b->length > b->size ? 0 : at + b->step;
        pthread_mutex_unlock(&b->mutex);
        rc = b->write ? blk_pwrite(b->n, at, mem, b->length)
                      : blk_pread(b->n, at, mem, b->length);
        rc = rc == 0 && flushes ? blk_flush(b->n) : rc;
        pthread_mutex_lock(&b->mutex);
        b->rc = b->rc ? b->rc : rc;
    }
    pthread_mutex_unlock(&b->mutex);
    free(mem);
    return NULL;
}

static double bench_run(struct bench *b, unsigned depth)
{
    pthread_t thread[64];
    struct timespec from, to;
    unsigned n = 0;

    clock_gettime(CLOCK_MONOTONIC, &from);
    while (n + 1 < depth && n < ARRAY_LEN(thread) &&
           pthread_create(&thread[n], NULL, bench_thread, b) == 0) {
        n++;
    }
    bench_thread(b);
    while (n > 0) {
        pthread_join(thread[--n], NULL);
    }
    clock_gettime(CLOCK_MONOTONIC, &to);
    return (double)(to.tv_sec - from.tv_sec) + (double)(to.tv_nsec - from.tv_nsec) / 1e9;
}

static int bench_number(struct cli *c, struct cli_input *in, const char *name, uint64_t *out)
{
    const char *text = cli_own(in, name);

    return text ? img_size(c, text, out) : CLI_OK;
}

/* What goes with writing alone. */
static int bench_writes(struct cli *c, struct cli_input *in, struct bench *b)
{
    const char *only = cli_own(in, "flush-interval") ? "flush-interval"
                       : cli_own(in, "pattern")      ? "pattern"
                                                     : NULL;
    uint64_t pattern = 0;
    int status = bench_number(c, in, "flush-interval", &b->flush_every);

    status = status ? status : bench_number(c, in, "pattern", &pattern);
    if (status == CLI_OK && only && !b->write) {
        status = cli_fail(c, CLI_USAGE, NULL, "--%s goes with --write", only);
    }
    if (status == CLI_OK && pattern > 255) {
        status = cli_fail(c, CLI_USAGE, NULL, "--pattern is a byte, 0 to 255");
    }
    b->pattern = (int)pattern;
    return status;
}

static void bench_report(struct cli *c, uint64_t count, double seconds)
{
    if (c->json) {
        AUTO_JSON o = json_object_new_object();

        api_json_set(o, "seconds", json_object_new_double(seconds));
        api_json_set_int(o, "requests", (int64_t)count);
        cli_print_json(o);
    } else if (!c->quiet) {
        printf("Run completed in %.3f seconds.\n", seconds);
    }
}

int cli_verb_image_bench(struct cli *c, struct cli_input *in)
{
    struct img_source s = { .path = img_arg(in, "FILE"),
                            .format = cli_own(in, "image-format"),
                            .secret = cli_own(in, "secret"),
                            .write = img_flag(in, "write"),
                            .shared = img_flag(in, "force-share") };
    uint64_t count = 75000, depth = 64, size = 4096, step = 0, at = 0;
    struct bench b = { .write = s.write };
    double seconds;
    int status = img_cache(c, cli_own(in, "cache"), &s);

    status = status ? status : bench_number(c, in, "count", &count);
    status = status ? status : bench_number(c, in, "depth", &depth);
    status = status ? status : bench_number(c, in, "buffer-size", &size);
    status = status ? status : bench_number(c, in, "step-size", &step);
    status = status ? status : bench_number(c, in, "offset", &at);
    status = status ? status : bench_writes(c, in, &b);
    status = status ? status : img_open(c, &s, &b.n);
    if (status != CLI_OK) {
        return status;
    }
    b.left = count;
    b.length = size;
    b.step = step ? step : size;
    b.size = blk_size(b.n);
    b.at = at;
    if (size == 0 || size > 1u << 30 || at > b.size || size > b.size - at || depth < 1) {
        return img_close(c, b.n,
                         cli_fail(c, CLI_USAGE, NULL, "the range lies outside the image"));
    }
    pthread_mutex_init(&b.mutex, NULL);
    seconds = bench_run(&b, (unsigned)(depth > 64 ? 64 : depth));
    pthread_mutex_destroy(&b.mutex);
    if (b.rc != 0) {
        status = cli_fail(c, CLI_FAILED, NULL, "bench: %s", strerror(-b.rc));
    } else {
        bench_report(c, count, seconds);
    }
    return img_close(c, b.n, status);
}
