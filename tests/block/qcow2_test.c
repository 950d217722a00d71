/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow2 under random operations: a shadow model, a flat array that every read is compared with. VMD_QCOW2_OPS operations from
 * VMD_QCOW2_FROM on, 400 a round, are a slice of a campaign. Crash states: crash_test.c.
 */
#include "tests/block/qcow2_rig.h"

#include "engine/base/mem.h"

#include <stdio.h>
#include <unistd.h>

/* --- the shadow model --- */

enum { SNAPS = 3, EACH = 400 };

struct model {
    struct config c;
    struct blk_node *n;
    char *path, *base;
    uint8_t *flat, *mem, *old;
    uint64_t base_size;
    struct {
        char name[24];
        uint8_t *flat;
        uint64_t size;
    } snap[SNAPS];
};

static void model_range(const struct model *m, uint64_t *at, uint64_t *n)
{
    uint64_t sectors = m->c.size / SECTOR, most = below(8) ? 24 : 200;

    *at = below((unsigned)sectors);
    *n = 1 + below((unsigned)(most < sectors - *at ? most : sectors - *at));
    *at *= SECTOR;
    *n *= SECTOR;
}

static void fill(uint8_t *p, uint64_t n)
{
    unsigned kind = below(4);

    for (uint64_t i = 0; i < n; i++) {
        p[i] = kind == 0 ? 0 : kind == 1 ? (uint8_t)(i / 64 + n) : (uint8_t)test_random(&seed);
    }
}

static void model_write(struct model *m)
{
    uint64_t at, n;

    model_range(m, &at, &n);
    fill(m->mem, n);
    ck_assert_int_eq(blk_pwrite(m->n, at, m->mem, n), 0);
    memcpy(m->flat + at, m->mem, n);
}

static void model_compress(struct model *m)
{
    struct blk_image_info i;
    struct err e = ERR_INIT;
    uint64_t at, n;
    struct iovec iov = { .iov_base = m->mem };
    struct blk_req r = { .op = BLK_WRITE, .flags = BLK_COMPRESS, .iov = &iov, .n_iov = 1 };

    ck_assert_int_eq(blk_info(m->n, &i, &e), 0);
    at = below((unsigned)(m->c.size / SECTOR)) * (uint64_t)SECTOR / i.cluster_size *
         i.cluster_size;
    n = m->c.size - at < i.cluster_size ? m->c.size - at : i.cluster_size;
    blk_info_done(&i);
    fill(m->mem, n);
    r.offset = at;
    r.length = iov.iov_len = n;
    if (m->c.luks) {
        ck_assert_int_eq(blk_run(m->n, &r), -ENOTSUP);
        return;
    }
    ck_assert_int_eq(blk_run(m->n, &r), 0);
    memcpy(m->flat + at, m->mem, n);
}

static void model_zero(struct model *m)
{
    uint64_t at, n;

    model_range(m, &at, &n);
    ck_assert_int_eq(blk_zero(m->n, at, n, below(2) ? BLK_UNMAP : 0), 0);
    memset(m->flat + at, 0, n);
}

/* What was discarded reads as before, as zeroes, or (never seen) as the backing file. */
static void model_discard(struct model *m)
{
    uint64_t at, n;

    model_range(m, &at, &n);
    ck_assert_int_eq(blk_discard(m->n, at, n), 0);
    ck_assert_int_eq(blk_pread(m->n, at, m->mem, n), 0);
    for (uint64_t i = 0; i < n; i += SECTOR) {
        bool zero = true;

        for (unsigned k = 0; k < SECTOR; k++) {
            zero = zero && m->mem[i + k] == 0;
        }
        ck_assert(zero || memcmp(m->mem + i, m->flat + at + i, SECTOR) == 0);
    }
    memcpy(m->flat + at, m->mem, n);
}

static void model_read(struct model *m)
{
    uint64_t at, n;

    model_range(m, &at, &n);
    memset(m->mem, 0x5a, n);
    ck_assert_int_eq(blk_pread(m->n, at, m->mem, n), 0);
    ck_assert_msg(memcmp(m->mem, m->flat + at, n) == 0, "read at %llu of %llu differs",
                  (unsigned long long)at, (unsigned long long)n);
}

static void model_snapshot(struct model *m)
{
    unsigned i = below(SNAPS);
    struct err e = ERR_INIT;
    int rc;

    if (!m->snap[i].flat) {
        snprintf(m->snap[i].name, sizeof(m->snap[i].name), "s%u", i);
        rc = blk_snapshot(m->n, BLK_SNAP_CREATE, m->snap[i].name, &e);
        if (rc == -EOVERFLOW) { /* refcounts of few bits */
            ck_assert_int_lt(atoi(m->c.bits), 16);
            return;
        }
        ck_assert_msg(rc == 0, "%s", e.msg);
        m->snap[i].flat = xmemdup(m->flat, MAX_DISK);
        m->snap[i].size = m->c.size;
    } else if (below(2)) {
        rc = blk_snapshot(m->n, BLK_SNAP_APPLY, m->snap[i].name, &e);
        if (rc == -EOVERFLOW) {
            return;
        }
        ck_assert_msg(rc == 0, "%s", e.msg);
        memcpy(m->flat, m->snap[i].flat, MAX_DISK);
        m->c.size = m->snap[i].size;
    } else {
        ck_assert_msg(blk_snapshot(m->n, BLK_SNAP_DELETE, m->snap[i].name, &e) == 0, "%s",
                      e.msg);
        free(m->snap[i].flat);
        m->snap[i].flat = NULL;
    }
}

static void model_resize(struct model *m)
{
    uint64_t size = (64 + below(900)) * 1024ull;
    struct err e = ERR_INIT;
    int rc = blk_resize(m->n, size, &e);
    if (rc == -ENOTSUP) {
        return; /* version 2 with snapshots */
    }
    ck_assert_msg(rc == 0, "%s", e.msg);
    if (size < m->c.size) {
        memset(m->flat + size, 0, m->c.size - size);
    }
    m->c.size = size;
}

static void model_reopen(struct model *m)
{
    struct err e = ERR_INIT;

    ck_assert_msg(blk_close_flush(m->n, &e) == 0, "%s", e.msg);
    m->n = open_image(m->path, true, NULL, false);
    check_sound(m->n, true);
    blk_close(m->n);
    m->n = open_image(m->path, false, NULL, false);
    ck_assert_uint_eq(blk_size(m->n), m->c.size);
}

static void model_compare(struct model *m)
{
    ck_assert_int_eq(blk_pread(m->n, 0, m->mem, m->c.size), 0);
    for (uint64_t i = 0; i < m->c.size; i += SECTOR) {
        ck_assert_msg(memcmp(m->mem + i, m->flat + i, SECTOR) == 0, "sector at %llu differs",
                      (unsigned long long)i);
    }
}

static void model_step(struct model *m)
{
    unsigned what = below(100);

    if (getenv("VMD_QCOW2_STEPS")) { /* to find the step that goes wrong */
        model_compare(m);
        printf("# step %u\n", what);
        fflush(stdout);
    }
    if (what < 40) {
        model_write(m);
    } else if (what < 50) {
        model_compress(m);
    } else if (what < 60) {
        model_zero(m);
    } else if (what < 66) {
        model_discard(m);
    } else if (what < 90) {
        model_read(m);
    } else if (what < 93) {
        ck_assert_int_eq(blk_flush(m->n), 0);
    } else if (what < 96) {
        model_snapshot(m);
    } else if (what < 98) {
        model_resize(m);
    } else if (what == 98) {
        model_reopen(m);
    } else {
        model_compare(m);
    }
}

static void model_base(struct model *m)
{
    FILE *f = fopen(m->base, "wb");

    m->base_size = (32 + below(600)) * 1024ull;
    for (uint64_t i = 0; i < m->base_size; i++) {
        m->flat[i] = i / 4096 % 3 ? (uint8_t)test_random(&seed) : 0;
    }
    ck_assert_uint_eq(fwrite(m->flat, 1, m->base_size, f), m->base_size);
    fclose(f);
    if (m->base_size > m->c.size) {
        memset(m->flat + m->c.size, 0, m->base_size - m->c.size);
    }
}

static void model_run(unsigned round, uint64_t ops, bool qemu)
{
    struct model m = { .c = random_config() };
    bool backed = below(3) == 0;

    m.c.luks = below(5) == 0;
    m.path = xasprintf("qcow2-model-%d.qcow2", (int)getpid());
    m.base = xasprintf("qcow2-model-%d.raw", (int)getpid());
    m.flat = xalloc(MAX_DISK);
    m.mem = xalloc(MAX_DISK);
    if (backed) {
        model_base(&m);
    }
    printf("# round %u: cluster %s, refcounts %s, lazy %s, compat %s, extended %s, %s%s%s\n",
           round, m.c.cluster, m.c.bits, m.c.lazy, m.c.compat, m.c.ext, m.c.zip,
           backed ? ", backed" : "", m.c.luks ? ", encrypted" : "");
    fflush(stdout);
    make(m.path, &m.c, backed ? m.base : NULL);
    m.n = open_image(m.path, false, NULL, false);
    for (uint64_t i = 0; i < ops; i++) {
        model_step(&m);
    }
    model_compare(&m);
    model_reopen(&m);
    model_compare(&m);
    blk_close(m.n);
    if (qemu) {
        AUTO_FREE char *cmd =
            m.c.luks
                ? xasprintf("qemu-img check -q --object secret,id=s,data=secret --image-opts "
                            "driver=qcow2,file.filename=%s,encrypt.key-secret=s "
                            ">/dev/null 2>&1",
                            m.path)
                : xasprintf("qemu-img check -q %s >/dev/null 2>&1", m.path);

        ck_assert_int_eq(system(cmd), 0);
    }
    unlink(m.path);
    unlink(m.base);
    for (unsigned i = 0; i < SNAPS; i++) {
        free(m.snap[i].flat);
    }
    free(m.flat);
    free(m.mem);
    free(m.path);
    free(m.base);
}

/* The table is longer than the range that one block counts, so its own blocks come to lie behind it. */
START_TEST(a_refcount_table_grows_with_the_smallest_clusters)
{
    struct config c = { .cluster = "512",
                        .bits = "64",
                        .lazy = "off",
                        .compat = "1.1",
                        .ext = "off",
                        .zip = "zlib",
                        .size = 140 << 20 };
    AUTO_FREE char *path = xasprintf("qcow2-grow-%d.qcow2", (int)getpid());
    AUTO_FREE uint8_t *mem = xalloc(MAX_DISK);
    struct err e = ERR_INIT;
    struct blk_node *n;

    memset(mem, 0x77, MAX_DISK);
    make(path, &c, NULL);
    n = open_image(path, false, NULL, false);
    for (uint64_t at = 0; at < c.size; at += MAX_DISK) {
        ck_assert_int_eq(blk_pwrite(n, at, mem, MAX_DISK), 0);
    }
    ck_assert_msg(blk_close_flush(n, &e) == 0, "%s", e.msg);
    n = open_image(path, true, NULL, false);
    check_sound(n, true);
    blk_close(n);
    if (have_qemu()) {
        AUTO_FREE char *cmd = xasprintf("qemu-img check -q %s >/dev/null 2>&1", path);

        ck_assert_int_eq(system(cmd), 0);
    }
    unlink(path);
}
END_TEST

START_TEST(random_operations_read_as_the_shadow_model)
{
    uint64_t ops = env_number("VMD_QCOW2_OPS", 12000);
    uint64_t from = env_number("VMD_QCOW2_FROM", 0) / EACH, base = test_seed();
    bool qemu = have_qemu();

    for (uint64_t i = from; i < from + (ops + EACH - 1) / EACH; i++) {
        round_seed(base, i);
        model_run((unsigned)i, EACH, qemu);
    }
}
END_TEST

static Suite *suite_qcow2(void)
{
    Suite *s = suite_create("qcow2");
    TCase *t = tcase_create("random");

    tcase_set_timeout(t, 0);
    tcase_add_test(t, random_operations_read_as_the_shadow_model);
    tcase_add_test(t, a_refcount_table_grows_with_the_smallest_clusters);
    suite_add_tcase(s, t);
    return s;
}

int main(int argc, char **argv)
{
    return test_main(argc, argv, suite_qcow2, NULL);
}
