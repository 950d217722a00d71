/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow2 under random operations: a shadow model (a flat array) that every read is compared with, and crash
 * states: the changes that reached the file are recorded, and any subset of the sectors written
 * since the last flush is taken for what a power loss left. VMD_QCOW2_OPS, VMD_QCOW2_STATES make campaigns.
 */
#include "storage/block.h"
#include "storage/image.h"
#include "tests/lib/testing.h"

#include "engine/base/mem.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { SECTOR = 512, MAX_DISK = 1 << 20, MAX_FILE = 16 << 20 };

static uint64_t seed;

static uint64_t env_number(const char *name, uint64_t otherwise)
{
    const char *s = getenv(name);

    return s && *s ? strtoull(s, NULL, 0) : otherwise;
}

static unsigned below(unsigned n)
{
    return (unsigned)(test_random(&seed) % n);
}

struct config {
    const char *cluster, *bits, *lazy, *compat, *ext, *zip;
    uint64_t size;
    bool compress, luks;
};

static const struct blk_secret secret = { .by = &blk_luks, .data = "secret", .n = 6 };

static struct config random_config(void)
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

static void make(const char *path, const struct config *c, const char *backing)
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
    if (c->luks) {
        o[n.n_options++] = (struct blk_option){ "encrypt.format", "luks" };
        o[n.n_options++] = (struct blk_option){ "encrypt.iter-time", "1" };
    }
    ck_assert_msg(blk_create(&n, &e) == 0, "%s", e.msg);
}

static struct blk_node *open_image(const char *path, bool readonly, const struct blk_tap *tap,
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

static void check_sound(struct blk_node *n, bool leaks_too)
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

static bool have_qemu(void)
{
    return system("qemu-img --version >/dev/null 2>&1") == 0;
}

/* --- the shadow model --- */

enum { SNAPS = 3 };

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

START_TEST(random_operations_read_as_the_shadow_model)
{
    uint64_t ops = env_number("VMD_QCOW2_OPS", 12000), each = 400;
    bool qemu = have_qemu();

    seed = test_seed();
    for (unsigned i = 0; i < ops / each; i++) {
        model_run(i, each, qemu);
    }
}
END_TEST

/* --- crash states --- */

struct event {
    uint64_t at, length;
    uint8_t *data; /* NULL: zeroes; length 0: a flush */
};

struct log {
    struct event *event;
    size_t n, room;
};

static void record(void *arg, const struct blk_req *r)
{
    struct log *l = arg;
    struct event *v;
    uint64_t n = 0;

    if (l->n == l->room) {
        l->room = l->room ? l->room * 2 : 256;
        l->event = xrealloc_n(l->event, l->room, sizeof(*l->event));
    }
    v = &l->event[l->n++];
    *v = (struct event){ .at = r->at, .length = r->op == BLK_FLUSH ? 0 : r->length };
    if (r->op == BLK_WRITE) {
        v->data = xalloc(r->length);
        for (unsigned i = 0; i < r->n_iov; i++) {
            memcpy(v->data + n, r->iov[i].iov_base, r->iov[i].iov_len);
            n += r->iov[i].iov_len;
        }
    }
}

/* Each guest write fills its sectors with a number of its own; `history` is all numbers a sector got, in order. */
struct stamp {
    size_t event; /* length of the log when the operation had returned */
    uint64_t sector, count, value;
};

/* When a flush of the guest had returned. */
struct flushed {
    size_t event, stamps;
};

struct crash {
    struct config c;
    struct log log;
    struct stamp *stamp;
    size_t n_stamps, n_flushes;
    struct flushed *flush;
    uint8_t *start; /* the file when recording began */
    uint64_t start_size;
};

static void add_stamp(struct crash *k, uint64_t at, uint64_t n, uint64_t value)
{
    k->stamp = xrealloc_n(k->stamp, k->n_stamps + 1, sizeof(*k->stamp));
    k->stamp[k->n_stamps++] = (struct stamp){
        .event = k->log.n, .sector = at / SECTOR, .count = n / SECTOR, .value = value
    };
}

static void stamp_fill(uint8_t *p, uint64_t n, uint64_t value)
{
    for (uint64_t i = 0; i < n; i += 8) {
        memcpy(p + i, &value, 8);
    }
}

static void crash_ops(struct crash *k, struct blk_node *n, unsigned ops)
{
    AUTO_FREE uint8_t *mem = xalloc(MAX_DISK);
    unsigned snaps = 0;
    struct model m = { .c = k->c, .n = n };

    for (unsigned i = 0; i < ops; i++) {
        unsigned what = below(100);
        uint64_t at, len, value = i + 1;
        struct err e = ERR_INIT;

        model_range(&m, &at, &len);
        if (what < 60) {
            stamp_fill(mem, len, value);
            ck_assert_int_eq(blk_pwrite(n, at, mem, len), 0);
            add_stamp(k, at, len, value);
        } else if (what < 75) {
            ck_assert_int_eq(blk_zero(n, at, len, below(2) ? BLK_UNMAP : 0), 0);
            add_stamp(k, at, len, 0);
        } else if (what < 80) {
            ck_assert_int_eq(blk_discard(n, at, len), 0);
            add_stamp(k, at, len, 0);
            add_stamp(k, at, len, UINT64_MAX); /* or what it was: any earlier number */
        } else if (what < 92) {
            ck_assert_int_eq(blk_flush(n), 0);
            k->flush = xrealloc_n(k->flush, k->n_flushes + 1, sizeof(*k->flush));
            k->flush[k->n_flushes++] = (struct flushed){ .event = k->log.n,
                                                         .stamps = k->n_stamps };
        } else if (atoi(k->c.bits) >= 8 && strcmp(k->c.compat, "1.1") == 0 && snaps < 2 &&
                   what < 96) { /* version 2 has no dirty bit to tell that flags are behind */
            snaps++;
            ck_assert_int_eq(blk_snapshot(n, BLK_SNAP_CREATE, snaps == 1 ? "a" : "b", &e), 0);
        } else if (snaps > 0 && what < 98) {
            ck_assert_int_eq(blk_snapshot(n, BLK_SNAP_DELETE, snaps == 1 ? "a" : "b", &e), 0);
            snaps--;
        }
    }
}

static void put_event(uint8_t *file, const struct event *v, bool torn)
{
    for (uint64_t i = 0; i < v->length; i += SECTOR) {
        uint64_t n = v->length - i < SECTOR ? v->length - i : SECTOR;

        if (torn && below(2)) {
            continue;
        }
        ck_assert_uint_le(v->at + i + n, MAX_FILE);
        if (v->data) {
            memcpy(file + v->at + i, v->data + i, n);
        } else {
            memset(file + v->at + i, 0, n);
        }
    }
}

/* May sector `s` hold `value` after a crash at `point`, when all was flushed at `flushed`? */
static bool allowed(const struct crash *k, uint64_t s, uint64_t value, size_t flushed,
                    size_t point)
{
    uint64_t base = 0;
    bool any_old = false;

    for (size_t i = 0; i < k->n_stamps; i++) {
        const struct stamp *t = &k->stamp[i];
        bool begun = i == 0 || k->stamp[i - 1].event <= point;

        if (s < t->sector || s >= t->sector + t->count) {
            continue;
        }
        if (i < flushed) {
            if (t->value == UINT64_MAX) {
                any_old = true;
            } else {
                any_old = false;
                base = t->value;
            }
            continue;
        }
        if (begun && (t->value == value || t->value == UINT64_MAX)) {
            return true;
        }
    }
    if (value == base) {
        return true;
    }
    for (size_t i = 0; i < k->n_stamps && any_old; i++) {
        const struct stamp *t = &k->stamp[i];

        if (s >= t->sector && s < t->sector + t->count && t->value == value && i < flushed) {
            return true;
        }
    }
    return false;
}

static void verify_state(const struct crash *k, int fd, const char *path, size_t flushed,
                         size_t point, bool qemu)
{
    AUTO_FREE uint8_t *mem = xalloc(MAX_DISK);
    AUTO_FREE char *cmd = NULL;
    struct blk_image_info i;
    struct err e = ERR_INIT;
    struct blk_node *n = open_image(path, true, NULL, true);

    (void)fd;
    ck_assert_int_eq(blk_info(n, &i, &e), 0);
    if (i.dirty) { /* opening for writing repairs it first */
        blk_close(n);
        n = open_image(path, false, NULL, false);
        blk_close(n);
        n = open_image(path, true, NULL, true);
    }
    blk_info_done(&i);
    check_sound(n, false);
    ck_assert_int_eq(blk_pread(n, 0, mem, k->c.size), 0);
    for (uint64_t s = 0; s < k->c.size / SECTOR; s++) {
        uint64_t value;

        memcpy(&value, mem + s * SECTOR, 8);
        if (!allowed(k, s, value, flushed, point)) {
            for (size_t x = 0; x < k->n_stamps; x++) {
                const struct stamp *t = &k->stamp[x];

                if (s >= t->sector && s < t->sector + t->count) {
                    printf("# sector %llu: %lld until event %zu\n", (unsigned long long)s,
                           (long long)t->value, t->event);
                }
            }
            fflush(stdout);
        }
        ck_assert_msg(allowed(k, s, value, flushed, point),
                      "sector %llu holds %llu, which cannot be (flushed at %zu, crash at %zu)",
                      (unsigned long long)s, (unsigned long long)value, flushed, point);
    }
    blk_close(n);
    if (qemu) {
        cmd = xasprintf("qemu-img check -q %s >/dev/null 2>&1",
                        path); /* tells leaks at length */
        int rc = system(cmd);

        ck_assert_msg(WIFEXITED(rc) && (WEXITSTATUS(rc) == 0 || WEXITSTATUS(rc) == 3),
                      "qemu-img check says %d", WEXITSTATUS(rc));
    }
}

/* How many operations had been flushed. */
static size_t stamps_flushed(const struct crash *k, size_t point)
{
    size_t best = 0;

    for (size_t i = 0; i < k->n_flushes; i++) {
        best = k->flush[i].event <= point ? k->flush[i].stamps : best;
    }
    return best;
}

/* One state: everything up to the last flush of the file, and of what came since any sectors. */
static void crash_state(const struct crash *k, const char *path, bool qemu)
{
    size_t point = below((unsigned)k->log.n + 1), flushed = 0;
    static uint8_t file[MAX_FILE]; /* its pages stay from state to state */
    unsigned kind = below(
        3); /* 0: exactly the prefix, 1: whole writes in any choice, 2: torn */
    uint64_t end = k->start_size;
    int fd;

    for (size_t i = 0; i < point; i++) {
        const struct event *v = &k->log.event[i];

        end = v->length && v->at + v->length > end ? v->at + v->length : end;
    }
    ck_assert_uint_le(end, MAX_FILE);
    memset(file, 0, end);
    end = k->start_size;
    memcpy(file, k->start, k->start_size);
    for (size_t i = 0; i < point; i++) {
        flushed = k->log.event[i].length == 0 ? i + 1 : flushed;
    }
    for (size_t i = 0; i < point; i++) {
        const struct event *v = &k->log.event[i];

        if (v->length == 0 || (i >= flushed && kind == 1 && below(2))) {
            continue;
        }
        put_event(file, v, i >= flushed && kind == 2);
        end = v->at + v->length > end ? v->at + v->length : end;
    }
    fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(pwrite(fd, file, end, 0), (ssize_t)end);
    close(fd);
    verify_state(k, fd, path, stamps_flushed(k, point), point, qemu);
}

static void crash_round(unsigned round, unsigned states, bool qemu)
{
    struct crash k = { .c = random_config() };
    struct blk_tap tap = { .event = record, .arg = &k.log };
    AUTO_FREE char *path = xasprintf("qcow2-crash-%d.qcow2", (int)getpid());
    AUTO_FREE char *state = xasprintf("/dev/shm/qcow2-state-%d.qcow2", (int)getpid());
    struct blk_node *n;
    struct stat st;
    int fd;

    k.c.size = (32 + below(160)) * 1024ull;
    printf("# round %u: cluster %s, refcounts %s, lazy %s, compat %s, extended %s\n", round,
           k.c.cluster, k.c.bits, k.c.lazy, k.c.compat, k.c.ext);
    fflush(stdout);
    make(path, &k.c, NULL);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    ck_assert(fd >= 0 && fstat(fd, &st) == 0);
    k.start_size = (uint64_t)st.st_size;
    k.start = xalloc(k.start_size);
    ck_assert_int_eq(read(fd, k.start, k.start_size), (ssize_t)k.start_size);
    close(fd);
    n = open_image(path, false, &tap, false);
    crash_ops(&k, n, 60);
    blk_close(n);
    for (unsigned i = 0; i < states; i++) {
        crash_state(&k, state, qemu && i % 125 == 0);
    }
    unlink(path);
    unlink(state);
    for (size_t i = 0; i < k.log.n; i++) {
        free(k.log.event[i].data);
    }
    free(k.log.event);
    free(k.stamp);
    free(k.flush);
    free(k.start);
}

START_TEST(any_crash_leaves_a_sound_image_with_all_flushed_data)
{
    uint64_t states = env_number("VMD_QCOW2_STATES", 10000), each = 250;
    bool qemu = have_qemu();

    seed = test_seed();
    for (unsigned i = 0; i < states / each; i++) {
        crash_round(i, (unsigned)each, qemu);
    }
}
END_TEST

static Suite *suite_qcow2(void)
{
    Suite *s = suite_create("qcow2");
    TCase *t = tcase_create("random");

    tcase_set_timeout(t, 0);
    tcase_add_test(t, random_operations_read_as_the_shadow_model);
    tcase_add_test(t, any_crash_leaves_a_sound_image_with_all_flushed_data);
    suite_add_tcase(s, t);
    return s;
}

int main(int argc, char **argv)
{
    return test_main(argc, argv, suite_qcow2, NULL);
}
