/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Dirty bitmaps under random operations against an array of flags, in memory and kept in a qcow2 image.
 */
#include "storage/bitmap.h"
#include "storage/block.h"
#include "storage/image.h"
#include "tests/lib/testing.h"

#include "engine/base/mem.h"

#include <stdio.h>
#include <unistd.h>

enum { GRAIN = 512, MAX_GRAINS = 200000 };

static uint64_t seed;

static unsigned below(unsigned n)
{
    return (unsigned)(test_random(&seed) % n);
}

static struct blk_node *open_disk(const char *path, bool readonly)
{
    struct blk_options o = { .name = "disk",
                             .driver = "qcow2",
                             .path = path,
                             .fd = -1,
                             .readonly = readonly,
                             .unsafe = true,
                             .unlocked = readonly };
    struct err e = ERR_INIT;
    struct blk_node *n = NULL;

    ck_assert_msg(blk_open(NULL, &o, &n, &e) == 0, "%s", e.msg);
    return n;
}

static void make_disk(const char *path, const char *cluster, uint64_t size)
{
    struct blk_option o = { "cluster_size", cluster };
    struct blk_create c = {
        .path = path, .driver = "qcow2", .size = size, .option = &o, .n_options = 1
    };
    struct err e = ERR_INIT;

    ck_assert_msg(blk_create(&c, &e) == 0, "%s", e.msg);
}

/* One bitmap and what it should say. */
struct pair {
    struct blk_dirty *d;
    char name[16];
    unsigned shift;
    bool enabled, frozen;
    uint8_t *bit, *later;
};

struct world {
    struct blk_node *n;
    char *path;
    uint64_t size;
    struct pair p[4];
    uint8_t *mem;
};

static uint64_t bits_of(const struct world *w, const struct pair *p)
{
    return (w->size + (1ull << p->shift) - 1) >> p->shift;
}

static void model_set(struct world *w, struct pair *p, uint64_t at, uint64_t n)
{
    uint8_t *bit = p->frozen ? p->later : p->bit;

    for (uint64_t i = at >> p->shift; i <= (at + n - 1) >> p->shift && i < bits_of(w, p); i++) {
        bit[i] = 1;
    }
}

static void compare(struct world *w, const struct pair *p)
{
    uint64_t at = 0, n = 0, seen = 0, bits = bits_of(w, p), dirty = 0;
    struct blk_dirty_info info;

    while (blk_dirty_next(p->d, at, UINT64_MAX, &at, &n)) {
        ck_assert_uint_eq(at % (1u << p->shift), 0);
        for (; seen < at >> p->shift; seen++) {
            ck_assert_msg(!p->bit[seen], "bit %llu", (unsigned long long)seen);
        }
        at += n;
        for (; seen < (at + (1u << p->shift) - 1) >> p->shift; seen++) {
            ck_assert_msg(p->bit[seen], "bit %llu", (unsigned long long)seen);
        }
    }
    for (; seen < bits; seen++) {
        ck_assert(!p->bit[seen]);
    }
    for (uint64_t i = 0; i < bits; i++) {
        dirty += p->bit[i];
    }
    dirty <<= p->shift;
    blk_dirty_get(p->d, &info);
    ck_assert_uint_eq(info.dirty, dirty < w->size ? dirty : w->size);
    ck_assert_int_eq(info.enabled, p->enabled);
    ck_assert(!info.inconsistent);
}

static void range(const struct world *w, uint64_t *at, uint64_t *n)
{
    uint64_t sectors = w->size / 512, left;

    *at = below((unsigned)sectors);
    left = sectors - *at;
    *n = 1 + below((unsigned)(left < 128 || below(20) == 0 ? left : 128));
    *at *= 512;
    *n *= 512;
}

static void guest(struct world *w)
{
    uint64_t at, n;
    int rc;

    range(w, &at, &n);
    n = n < 65536 ? n : 65536;
    rc = below(2)   ? blk_pwrite(w->n, at, w->mem, n)
         : below(2) ? blk_zero(w->n, at, n, BLK_UNMAP)
                    : blk_discard(w->n, at, n);
    ck_assert_int_eq(rc, 0);
    for (unsigned i = 0; i < 4; i++) {
        if (w->p[i].d && w->p[i].enabled) {
            model_set(w, &w->p[i], at, n);
        }
    }
}

static void freeze(struct world *w, struct pair *p)
{
    struct err e = ERR_INIT;

    if (!p->frozen) {
        ck_assert_int_eq(blk_dirty_freeze(p->d, &e), 0);
        ck_assert_int_eq(blk_dirty_freeze(p->d, &e), -EBUSY);
        ck_assert_int_eq(blk_dirty_clear(p->d, &e), -EBUSY);
        memset(p->later, 0, MAX_GRAINS);
    } else {
        bool done = below(2);

        blk_dirty_thaw(p->d, done);
        for (uint64_t i = 0; i < bits_of(w, p); i++) {
            p->bit[i] = done ? p->later[i] : p->bit[i] | p->later[i];
        }
    }
    p->frozen = !p->frozen;
}

static void change(struct world *w, struct pair *p)
{
    struct pair *other = &w->p[below(4)];
    uint64_t at, n, to;
    struct err e = ERR_INIT;

    range(w, &at, &n);
    switch (below(6)) {
    case 0:
        blk_dirty_set(p->d, at, n);
        model_set(w, p, at, n);
        break;
    case 1:
        blk_dirty_reset(p->d, at, n);
        to = at + n == w->size ? bits_of(w, p) : (at + n) >> p->shift;
        for (uint64_t i = (at + (1u << p->shift) - 1) >> p->shift; i < to; i++) {
            (p->frozen ? p->later : p->bit)[i] = 0;
        }
        break;
    case 2:
        if (!p->frozen && blk_dirty_enable(p->d, !p->enabled, &e) == 0) {
            p->enabled = !p->enabled;
        }
        break;
    case 3:
        if (other->d && !other->frozen && !p->frozen) {
            ck_assert_int_eq(blk_dirty_merge(p->d, other->d, &e), 0);
            for (uint64_t i = 0; i < bits_of(w, other); i++) {
                uint64_t g = 1ull << other->shift;

                if (other->bit[i]) {
                    model_set(w, p, i * g, w->size - i * g < g ? w->size - i * g : g);
                }
            }
        }
        break;
    case 4:
        if (!p->frozen && below(4) == 0) {
            ck_assert_int_eq(blk_dirty_clear(p->d, &e), 0);
            memset(p->bit, 0, MAX_GRAINS);
        }
        break;
    default:
        freeze(w, p);
    }
}

static void add(struct world *w, struct pair *p, bool persistent)
{
    struct blk_dirty_options o = { .name = p->name,
                                   .granularity = 512u << below(9),
                                   .disabled = below(4) == 0,
                                   .persistent = persistent };
    struct err e = ERR_INIT;

    ck_assert_msg(blk_dirty_new(w->n, &o, &p->d, &e) == 0, "%s", e.msg);
    p->shift = (unsigned)__builtin_ctz(o.granularity);
    p->enabled = !o.disabled;
    memset(p->bit, 0, MAX_GRAINS);
}

static void resize(struct world *w)
{
    uint64_t was[4], size = (1 + below(20000)) * 512ull;
    struct err e = ERR_INIT;

    for (unsigned i = 0; i < 4; i++) {
        was[i] = bits_of(w, &w->p[i]);
    }
    ck_assert_msg(blk_resize(w->n, size, &e) == 0, "%s", e.msg);
    for (unsigned i = 0; i < 4 && size < w->size; i++) { /* what is cut off is zeroed first */
        if (w->p[i].d && w->p[i].enabled) {
            model_set(w, &w->p[i], size, w->size - size);
        }
    }
    w->size = size;
    for (unsigned i = 0; i < 4; i++) {
        struct pair *p = &w->p[i];
        uint64_t now = bits_of(w, p);

        for (uint64_t k = now; k < was[i]; k++) {
            p->bit[k] = p->later[k] = 0;
        }
        for (uint64_t k = was[i]; k < now && p->d; k++) {
            p->bit[k] = p->enabled;
            p->later[k] = p->enabled;
        }
    }
}

/* Closes and opens: frozen ones come back whole. */
static void reopen(struct world *w)
{
    struct blk_check c = { 0 };
    struct err e = ERR_INIT;

    ck_assert_msg(blk_close_flush(w->n, &e) == 0, "%s", e.msg);
    w->n = open_disk(w->path, true);
    ck_assert_int_eq(blk_check(w->n, 0, &c, &e), 0);
    ck_assert_uint_eq(c.corruptions + c.leaks + c.errors, 0);
    blk_close(w->n);
    w->n = open_disk(w->path, false);
    for (unsigned i = 0; i < 4; i++) {
        struct pair *p = &w->p[i];

        if (!p->d) {
            continue;
        }
        ck_assert_msg(blk_dirty_find(w->n, p->name, &p->d, &e) == 0, "%s", e.msg);
        for (uint64_t k = 0; k < bits_of(w, p) && p->frozen; k++) {
            p->bit[k] |= p->later[k];
        }
        p->frozen = false;
        compare(w, p);
    }
}

static void step(struct world *w)
{
    struct pair *p = &w->p[below(4)];
    struct err e = ERR_INIT;
    unsigned what = below(100);

    if (!p->d) {
        add(w, p, true);
    } else if (what < 50) {
        guest(w);
    } else if (what < 80) {
        change(w, p);
    } else if (what < 94) {
        compare(w, p);
    } else if (what < 96 && !p->frozen) {
        ck_assert_int_eq(blk_dirty_free(p->d, &e), 0);
        p->d = NULL;
    } else if (what < 98) {
        resize(w);
    } else if (what == 98) {
        reopen(w);
    }
}

START_TEST(bitmaps_in_images_say_what_an_array_of_flags_says)
{
    static const char *const clusters[] = { "512", "4k", "64k" };

    seed = test_seed();
    for (unsigned round = 0; round < 12; round++) {
        struct world w = { .size = (1 + below(20000)) * 512ull };

        w.path = xasprintf("bitmap-%d.qcow2", (int)getpid());
        w.mem = xalloc(1 << 20);
        make_disk(w.path, clusters[below(3)], w.size);
        w.n = open_disk(w.path, false);
        for (unsigned i = 0; i < 4; i++) {
            snprintf(w.p[i].name, sizeof(w.p[i].name), "b%u", i);
            w.p[i].shift = 9;
            w.p[i].bit = xalloc(MAX_GRAINS);
            w.p[i].later = xalloc(MAX_GRAINS);
        }
        for (unsigned i = 0; i < 400; i++) {
            step(&w);
        }
        reopen(&w);
        blk_close(w.n);
        for (unsigned i = 0; i < 4; i++) {
            free(w.p[i].bit);
            free(w.p[i].later);
        }
        unlink(w.path);
        free(w.path);
        free(w.mem);
    }
}
END_TEST

/* A copy of the image as it is while somebody writes: what a crash leaves. */
START_TEST(after_a_crash_bitmaps_are_inconsistent_and_can_only_be_removed)
{
    struct blk_dirty_options o = { .name = "b", .persistent = true };
    struct blk_dirty_info info;
    struct blk_dirty *d;
    struct err e = ERR_INIT;
    struct blk_node *n;

    make_disk("bitmap-crash.qcow2", "64k", 8 << 20);
    n = open_disk("bitmap-crash.qcow2", false);
    ck_assert_int_eq(blk_dirty_new(n, &o, &d, &e), 0);
    ck_assert_int_eq(blk_close_flush(n, &e), 0);
    n = open_disk("bitmap-crash.qcow2", false);
    ck_assert_int_eq(system("cp bitmap-crash.qcow2 bitmap-crashed.qcow2"), 0);
    blk_close(n);
    n = open_disk("bitmap-crashed.qcow2", false);
    ck_assert_int_eq(blk_dirty_find(n, "b", &d, &e), 0);
    blk_dirty_get(d, &info);
    ck_assert(info.inconsistent);
    ck_assert_int_eq(blk_dirty_clear(d, &e), -EINVAL);
    ck_assert_int_eq(blk_dirty_freeze(d, &e), -EINVAL);
    ck_assert_int_eq(blk_close_flush(n, &e), 0); /* stays so */
    n = open_disk("bitmap-crashed.qcow2", false);
    ck_assert_int_eq(blk_dirty_find(n, "b", &d, &e), 0);
    blk_dirty_get(d, &info);
    ck_assert(info.inconsistent);
    ck_assert_int_eq(blk_dirty_free(d, &e), 0);
    ck_assert_int_eq(blk_close_flush(n, &e), 0);
    n = open_disk("bitmap-crashed.qcow2", false);
    ck_assert_int_eq(blk_dirty_find(n, "b", &d, &e), -ENOENT);
    blk_close(n);
    unlink("bitmap-crash.qcow2");
    unlink("bitmap-crashed.qcow2");
}
END_TEST

START_TEST(an_applied_snapshot_makes_everything_dirty)
{
    struct blk_dirty_options o = { .name = "b", .persistent = true };
    struct blk_dirty_info info;
    struct blk_dirty *d;
    struct err e = ERR_INIT;
    struct blk_node *n;

    make_disk("bitmap-snap.qcow2", "4k", 1 << 20);
    n = open_disk("bitmap-snap.qcow2", false);
    ck_assert_int_eq(blk_snapshot(n, BLK_SNAP_CREATE, "s", &e), 0);
    ck_assert_int_eq(blk_dirty_new(n, &o, &d, &e), 0);
    ck_assert_int_eq(blk_dirty_new(n, &o, &d, &e), -EEXIST);
    ck_assert_int_eq(blk_snapshot(n, BLK_SNAP_APPLY, "s", &e), 0);
    blk_dirty_get(d, &info);
    ck_assert_uint_eq(info.dirty, 1 << 20);
    ck_assert_int_eq(blk_close_flush(n, &e), 0);
    unlink("bitmap-snap.qcow2");
}
END_TEST

static Suite *suite_bitmap(void)
{
    Suite *s = suite_create("bitmap");
    TCase *t = tcase_create("bitmap");

    tcase_set_timeout(t, 0);
    tcase_add_test(t, bitmaps_in_images_say_what_an_array_of_flags_says);
    tcase_add_test(t, after_a_crash_bitmaps_are_inconsistent_and_can_only_be_removed);
    tcase_add_test(t, an_applied_snapshot_makes_everything_dirty);
    suite_add_tcase(s, t);
    return s;
}

int main(int argc, char **argv)
{
    return test_main(argc, argv, suite_bitmap, NULL);
}
