/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the random tests of qcow2 share. See qcow2_rig.h.
 */
#include "tests/block/qcow2_rig.h"

uint64_t seed;

uint64_t env_number(const char *name, uint64_t otherwise)
{
    const char *s = getenv(name);

    return s && *s ? strtoull(s, NULL, 0) : otherwise;
}

unsigned below(unsigned n)
{
    return (unsigned)(test_random(&seed) % n);
}

const struct blk_secret secret = { .by = &blk_luks, .data = "secret", .n = 6 };

struct config random_config(void)
{
    static const char *const clusters[] = { "512", "1k", "4k", "16k", "64k" };
    static const char *const bits[] = { "1", "2", "4", "8", "16", "32", "64" };
    struct config c = { .cluster = clusters[below(5)],
                        .bits = bits[below(7)],
                        .lazy = below(4) ? "off" : "on",
                        .compat = below(5) ? "1.1" : "0.10",
                        .ext = "off",
                        .zip = below(2) ? "zlib" : "zstd",
                        .size = (64 + below(448)) * 1024ull,
                        .compress = below(2) };

    if (strcmp(c.cluster, "16k") == 0 || strcmp(c.cluster, "64k") == 0) {
        c.ext = below(2) ? "on" : "off";
    }
    if (strcmp(c.compat, "0.10") == 0) {
        c.bits = "16";
        c.lazy = c.ext = "off";
        c.zip = "zlib";
    }
    return c;
}

void make(const char *path, const struct config *c, const char *backing)
{
    struct blk_option o[12] = {
        { "cluster_size", c->cluster }, { "refcount_bits", c->bits },
        { "lazy_refcounts", c->lazy },  { "compat", c->compat },
        { "extended_l2", c->ext },      { "compression_type", c->zip }
    };
    struct blk_create n = { .path = path,
                            .driver = "qcow2",
                            .size = c->size,
                            .option = o,
                            .n_options = 6,
                            .secret = c->luks ? &secret : NULL };
    struct err e = ERR_INIT;

    if (backing) {
        o[n.n_options++] = (struct blk_option){ "backing_file", backing };
        o[n.n_options++] = (struct blk_option){ "backing_fmt", "raw" };
    }
    if (c->data) {
        o[n.n_options++] = (struct blk_option){ "data_file", c->data };
        o[n.n_options++] = (struct blk_option){ "data_file_raw", c->data_raw ? "on" : "off" };
    }
    if (c->luks) {
        o[n.n_options++] = (struct blk_option){ "encrypt.format", "luks" };
        o[n.n_options++] = (struct blk_option){ "encrypt.iter-time", "1" };
    }
    ck_assert_msg(blk_create(&n, &e) == 0, "%s", e.msg);
}

struct blk_node *open_image(const char *path, bool readonly, const struct blk_tap *tap,
                            bool check)
{
    struct blk_options o = { .name = "disk",
                             .driver = "qcow2",
                             .path = path,
                             .fd = -1,
                             .readonly = readonly,
                             .follow = true,
                             .unsafe = true, /* no crash of the host is tested */
                             .for_check = check,
                             .unlocked = readonly,
                             .secret = &secret, /* asked for by encrypted ones alone */
                             .tap = tap };
    struct err e = ERR_INIT;
    struct blk_node *n = NULL;

    ck_assert_msg(blk_open(NULL, &o, &n, &e) == 0, "%s", e.msg);
    return n;
}

static void say(void *arg, const char *text)
{
    (void)arg;
    printf("# %s\n", text);
    fflush(stdout);
}

void check_sound(struct blk_node *n, bool leaks_too)
{
    struct blk_check c = { .say = say };
    struct err e = ERR_INIT;

    ck_assert_msg(blk_check(n, 0, &c, &e) == 0, "%s", e.msg);
    ck_assert_uint_eq(c.corruptions, 0);
    ck_assert_uint_eq(c.errors, 0);
    if (leaks_too) {
        ck_assert_uint_eq(c.leaks, 0);
    }
}

bool have_qemu(void)
{
    return system("qemu-img --version >/dev/null 2>&1") == 0;
}

void round_seed(uint64_t base, uint64_t round)
{
    uint64_t z = base * UINT64_C(0x9e3779b97f4a7c15) + round + 1;

    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    z ^= z >> 31;
    seed = z ? z : 1;
}
