/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of `vmctl image` share: it links storage and works with no daemon. Copies run on several
 * threads; everything else on one.
 */
#ifndef VMD_CLI_IMAGE_H
#define VMD_CLI_IMAGE_H

#include "cli/cli.h"
#include "storage/block.h"
#include "storage/image.h"

struct img_source {
    const char *path, *format; /* format NULL: probed */
    const char *secret;        /* a file with the passphrase; NULL: none */
    bool write, for_check, no_backing, shared, unsafe, direct, durable;
    struct blk_pool *pool; /* NULL: synchronous calls only */
};

/* Opens an image, a path or a URI of NBD, with its chain. CLI_OK, or prints and returns the exit status. */
int img_open(struct cli *c, const struct img_source *s, struct blk_node **out);
/* The bytes of a file with a passphrase. The caller calls img_secret_done(). */
int img_secret(struct cli *c, const char *path, struct blk_secret *out);
void img_secret_done(struct blk_secret *s);
/* Closes; a failure to write back is printed. */
int img_close(struct cli *c, struct blk_node *n, int status);
int img_error(struct cli *c, const struct err *e);
bool img_flag(const struct cli_input *in, const char *name);
/* -t: none, writeback, writethrough, directsync, unsafe. */
int img_cache(struct cli *c, const char *mode, struct img_source *s);
/* An argument of the verb by its name. */
const char *img_arg(const struct cli_input *in, const char *name);
/* -o key=value,... (also several) into c; the caller frees list and *text. */
struct img_options {
    struct blk_option *item;
    size_t n;
    char *text;
};
int img_options(struct cli *c, struct cli_input *in, struct img_options *o);
/* The next of a list with commas, of which two stand for one; NULL at its end. Writes into it. */
char *img_next_option(char **at);
/*
 * Before the verb runs: tells of options without effect, and where --image-opts was given, its image arguments become paths and
 * formats. dd finds its input as "IF" then.
 */
int img_arguments(struct cli *c, struct cli_input *in);
/* An operand of dd, "key=value"; NULL when it was not given. */
const char *img_dd_word(const struct cli_input *in, const char *key);
void img_option_add(struct img_options *o, const char *key, const char *value);
void img_options_done(struct img_options *o);
/* Makes an image, with the secret that its options name, or else with this file's. */
int img_create(struct cli *c, struct blk_create *n, const char *secret);
const char *img_key_file(const struct blk_create *n, const char *secret);
int img_size(struct cli *c, const char *text, uint64_t *out);
/* The dirty bitmaps that an image keeps, for another one with the same contents: before the copy, are all of them sound;
 * after it, their bits. */
int img_bitmaps_check(struct cli *c, struct blk_node *from, bool skip_broken);
int img_bitmaps_copy(struct cli *c, struct blk_node *from, struct blk_node *to);
struct json_object *img_bitmap_json(const struct blk_bitmap *b);

struct img_progress {
    bool on;
    int last; /* in 1/100 of a percent */
};
void img_progress_begin(struct img_progress *p, struct cli *c, const struct cli_input *in);
void img_progress(struct img_progress *p, uint64_t done, uint64_t total);
void img_progress_end(struct img_progress *p);

/* Copies what `from` reads as into `to`, which is at least as large. */
struct img_copy {
    struct blk_node *from, *to;
    bool compress;
    bool to_is_zero;  /* what is not written reads as zeroes */
    bool layer;       /* only what the image itself has, not its backing chain */
    bool salvage;     /* what cannot be read is zeroes, after a word about it */
    uint64_t rate;    /* bytes a second at most; 0: no limit */
    uint64_t sparse;  /* runs of zeroes at least this long become holes; 0: none do */
    unsigned threads; /* 0: twice as many as there are processors, at most 8 */
    struct img_progress *progress;
};
int img_copy(const struct img_copy *c, struct err *e);
bool img_is_zero(const void *p, size_t n);

#endif
