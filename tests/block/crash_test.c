/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Crash states of qcow2: the changes that reach the image's file (and its external data file) are recorded while random
 * operations go on: writes, compressed ones, zeroes, discards, snapshots that come, are applied and go, resizes,
 * closing and opening, with and without a dirty bitmap. Then any subset of the sectors written since the last flush
 * is taken for what a power loss left. Such an image is sound, holds all that was flushed, its snapshots hold what they
 * held, and a bitmap that calls itself consistent covers all that changed.
 * VMD_QCOW2_STATES states from VMD_QCOW2_FROM on, 250 a round, are a slice of a campaign.
 */
#include "tests/block/qcow2_rig.h"

#include "engine/base/mem.h"
#include "storage/bitmap.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MAX_FILE = 16 << 20, EACH = 250, SECTORS = MAX_DISK / SECTOR, FILES = 2, MAX_SNAPS = 8 };
#define OLDER UINT64_MAX /* any value that the sector had before */

struct event {
    uint64_t at, length;
    unsigned file; /* 0: the image, 1: its data file */
    uint8_t *data; /* NULL: zeroes; length 0: a flush */
};

/* Each guest write fills its sectors with a number of its own; these are all numbers that sectors got, in order. */
struct stamp {
    size_t begun; /* length of the log before the operation */
    uint64_t sector, count, value;
};

struct snap {
    char name[8];
    size_t made, gone; /* length of the log when it was there, when it was about to go */
    uint64_t size, *value;
};

/* The disk's size from then on; `begun`: length of the log before. */
struct size {
    size_t begun;
    uint64_t bytes;
};

/* When a flush of the guest had returned, and how much of each there was. */
struct flushed {
    size_t event, stamps, snaps, sizes;
};

struct crash {
    struct config c;
    struct event *event;
    size_t n_events, room;
    size_t begun; /* n_events before the operation that runs */
    struct stamp *stamp;
    size_t n_stamps, n_flushes, n_snaps, n_sizes;
    struct flushed *flush;
    struct snap snap[MAX_SNAPS];
    struct size *size;
    uint64_t *now; /* what each sector holds */
    bool bitmap;
    struct blk_node *n;
    char *path[FILES], *state[FILES];
    struct blk_tap tap[FILES];
    struct tapped {
        struct crash *k;
        unsigned file;
    } tapped[FILES];
    uint8_t *start[FILES]; /* the files when recording began */
    uint64_t start_size[FILES];
};

static void record(void *arg, const struct blk_req *r)
{
    const struct tapped *t = arg;
    struct crash *k = t->k;
    struct event *v;
    uint64_t n = 0;

    if (k->n_events == k->room) {
        k->room = k->room ? k->room * 2 : 256;
        k->event = xrealloc_n(k->event, k->room, sizeof(*k->event));
    }
    v = &k->event[k->n_events++];
    *v = (struct event){ .at = r->at,
                         .file = t->file,
                         .length = r->op == BLK_FLUSH ? 0 : r->length };
    if (r->op == BLK_WRITE) {
        v->data = xalloc(r->length);
        for (unsigned i = 0; i < r->n_iov; i++) {
            memcpy(v->data + n, r->iov[i].iov_base, r->iov[i].iov_len);
            n += r->iov[i].iov_len;
        }
    }
}

static struct blk_node *crash_open(struct crash *k, char *const *path, bool record_it,
                                   bool readonly)
{
    struct blk_options data = { .name = "disk/data",
                                .driver = "raw",
                                .path = path[1],
                                .fd = -1,
                                .readonly = readonly,
                                .unsafe = true,
                                .unlocked = readonly,
                                .tap = record_it ? &k->tap[1] : NULL };
    struct blk_options o = { .name = "disk",
                             .driver = "qcow2",
                             .path = path[0],
                             .fd = -1,
                             .readonly = readonly,
                             .unsafe = true, /* the recorder says what reached the disk */
                             .for_check = readonly,
                             .unlocked = readonly,
                             .data = k->c.data ? &data : NULL,
                             .tap = record_it ? &k->tap[0] : NULL };
    struct err e = ERR_INIT;
    struct blk_node *n = NULL;

    ck_assert_msg(blk_open(NULL, &o, &n, &e) == 0, "%s", e.msg);
    return n;
}

/* --- operations --- */

/* Bytes from `at` on, in whole sectors. A discard leaves what `now` holds unknown: it is read. */
static void add_stamp(struct crash *k, uint64_t at, uint64_t n, uint64_t value)
{
    k->stamp = xrealloc_n(k->stamp, k->n_stamps + 1, sizeof(*k->stamp));
    k->stamp[k->n_stamps++] = (struct stamp){
        .begun = k->begun, .sector = at / SECTOR, .count = n / SECTOR, .value = value
    };
    for (uint64_t s = 0; s < n / SECTOR && value != OLDER; s++) {
        k->now[at / SECTOR + s] = value;
    }
}

static void add_size(struct crash *k, uint64_t bytes)
{
    k->size = xrealloc_n(k->size, k->n_sizes + 1, sizeof(*k->size));
    k->size[k->n_sizes++] = (struct size){ .begun = k->begun, .bytes = bytes };
    k->c.size = bytes;
}

static void crash_write(struct crash *k, uint64_t at, uint64_t len, uint64_t value,
                        unsigned flags)
{
    AUTO_FREE uint8_t *mem = xalloc(len);
    struct iovec iov = { .iov_base = mem, .iov_len = len };
    struct blk_req r = {
        .op = BLK_WRITE, .flags = flags, .offset = at, .length = len, .iov = &iov, .n_iov = 1
    };

    for (uint64_t i = 0; i < len; i += 8) {
        memcpy(mem + i, &value, 8);
    }
    ck_assert_int_eq(blk_run(k->n, &r), 0);
    add_stamp(k, at, len, value);
}

static void crash_compress(struct crash *k, uint64_t at, uint64_t value)
{
    uint64_t cluster = 0;
    struct err e = ERR_INIT;

    if (k->c.data) {
        return;
    }
    ck_assert_int_eq(blk_parse_size(k->c.cluster, &cluster, &e), 0);
    at -= at % cluster;
    crash_write(k, at, k->c.size - at < cluster ? k->c.size - at : cluster, value,
                BLK_COMPRESS);
}

static void crash_discard(struct crash *k, uint64_t at, uint64_t len)
{
    ck_assert_int_eq(blk_discard(k->n, at, len), 0);
    add_stamp(k, at, len, 0);
    add_stamp(k, at, len, OLDER);
    for (uint64_t s = at / SECTOR; s < (at + len) / SECTOR; s++) {
        uint8_t mem[SECTOR];

        ck_assert_int_eq(blk_pread(k->n, s * SECTOR, mem, SECTOR), 0);
        memcpy(&k->now[s], mem, 8);
    }
}

static void crash_flush(struct crash *k)
{
    ck_assert_int_eq(blk_flush(k->n), 0);
    k->flush = xrealloc_n(k->flush, k->n_flushes + 1, sizeof(*k->flush));
    k->flush[k->n_flushes++] = (struct flushed){
        .event = k->n_events, .stamps = k->n_stamps, .snaps = k->n_snaps, .sizes = k->n_sizes
    };
}

static void snap_apply(struct crash *k, const struct snap *s)
{
    struct err e = ERR_INIT;
    int rc = blk_snapshot(k->n, BLK_SNAP_APPLY, s->name, &e);

    if (rc == -EOVERFLOW) {
        return;
    }
    ck_assert_msg(rc == 0, "%s", e.msg);
    if (s->size != k->c.size) {
        add_size(k, s->size);
    }
    for (uint64_t i = 0, n; i < SECTORS; i += n) {
        uint64_t value = i < s->size / SECTOR ? s->value[i] : 0;

        for (n = 1;
             i + n < SECTORS && (i + n < s->size / SECTOR ? s->value[i + n] : 0) == value;) {
            n++;
        }
        add_stamp(k, i * SECTOR, n * SECTOR, value);
    }
}

/* Version 2 has no dirty bit to tell that flags are behind, and a data file no snapshots. */
static void crash_snapshot(struct crash *k)
{
    struct snap *s = &k->snap[below(MAX_SNAPS)];
    struct err e = ERR_INIT;

    if (atoi(k->c.bits) < 8 || strcmp(k->c.compat, "1.1") != 0 || k->c.data) {
        return;
    }
    if (s >= &k->snap[k->n_snaps] && k->n_snaps < MAX_SNAPS) {
        s = &k->snap[k->n_snaps];
        *s = (struct snap){ .size = k->c.size, .gone = SIZE_MAX };
        snprintf(s->name, sizeof(s->name), "s%u", (unsigned)k->n_snaps);
        ck_assert_msg(blk_snapshot(k->n, BLK_SNAP_CREATE, s->name, &e) == 0, "%s", e.msg);
        s->value = xmemdup(k->now, SECTORS * sizeof(*k->now));
        s->made = k->n_events;
        k->n_snaps++;
    } else if (s->gone != SIZE_MAX) {
        return;
    } else if (below(2)) {
        snap_apply(k, s);
    } else {
        s->gone = k->n_events;
        ck_assert_msg(blk_snapshot(k->n, BLK_SNAP_DELETE, s->name, &e) == 0, "%s", e.msg);
    }
}

static void crash_resize(struct crash *k)
{
    uint64_t size = (32 + below(400)) * 1024ull, was = k->c.size;
    struct err e = ERR_INIT;
    int rc = blk_resize(k->n, size, &e);

    if (rc == -ENOTSUP) {
        return; /* version 2 with snapshots */
    }
    ck_assert_msg(rc == 0, "%s", e.msg);
    add_size(k, size);
    if (size < was) {
        add_stamp(k, size, was - size, 0);
    }
}

static void crash_reopen(struct crash *k)
{
    struct err e = ERR_INIT;

    ck_assert_msg(blk_close_flush(k->n, &e) == 0, "%s", e.msg);
    k->n = crash_open(k, k->path, true, false);
    ck_assert_uint_eq(blk_size(k->n), k->c.size);
}

static void crash_ops(struct crash *k, unsigned ops)
{
    for (unsigned i = 0; i < ops; i++) {
        uint64_t sectors = k->c.size / SECTOR, most = below(8) ? 24 : 200;
        uint64_t at = below((unsigned)sectors);
        uint64_t len = 1 + below((unsigned)(most < sectors - at ? most : sectors - at));
        unsigned what = below(100);

        at *= SECTOR;
        len *= SECTOR;
        k->begun = k->n_events;
        if (what < 46) {
            crash_write(k, at, len, i + 1, 0);
        } else if (what < 56) {
            crash_compress(k, at, i + 1);
        } else if (what < 66) {
            ck_assert_int_eq(blk_zero(k->n, at, len, below(2) ? BLK_UNMAP : 0), 0);
            add_stamp(k, at, len, 0);
        } else if (what < 71) {
            crash_discard(k, at, len);
        } else if (what < 83) {
            crash_flush(k);
        } else if (what < 93) {
            crash_snapshot(k);
        } else if (what < 97) {
            crash_resize(k);
        } else {
            crash_reopen(k);
        }
    }
}

/* --- states --- */

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
    bool any_old = false, seen = value == 0;

    for (size_t i = 0; i < k->n_stamps; i++) {
        const struct stamp *t = &k->stamp[i];
        if (s < t->sector || s >= t->sector + t->count) {
            continue;
        }
        if (i < flushed) {
            any_old = t->value == OLDER;
            base = any_old ? base : t->value;
            seen = seen || t->value == value;
        } else if (t->begun <= point && (t->value == value || t->value == OLDER)) {
            return true;
        }
    }
    return value == base || (any_old && seen);
}

static void say_sector(const struct crash *k, uint64_t s)
{
    for (size_t i = 0; i < k->n_stamps; i++) {
        const struct stamp *t = &k->stamp[i];

        if (s >= t->sector && s < t->sector + t->count) {
            printf("# sector %llu: %zu. holds %lld from event %zu on\n", (unsigned long long)s,
                   i, (long long)t->value, t->begun);
        }
    }
    for (size_t i = 0; i < k->n_sizes; i++) {
        printf("# size %llu from event %zu on\n", (unsigned long long)k->size[i].bytes,
               k->size[i].begun);
    }
    fflush(stdout);
}

static void verify_contents(const struct crash *k, struct blk_node *n, size_t flushed,
                            size_t point)
{
    static uint8_t mem[MAX_DISK];
    struct blk_dirty *d = NULL;
    struct blk_dirty_info di = { .inconsistent = true };
    struct err e = ERR_INIT;

    ck_assert_int_eq(blk_pread(n, 0, mem, blk_size(n)), 0);
    if (k->bitmap && blk_dirty_find(n, "b", &d, &e) == 0) {
        blk_dirty_get(d, &di);
    }
    for (uint64_t s = 0; s < blk_size(n) / SECTOR; s++) {
        uint64_t value, at, len;

        memcpy(&value, mem + s * SECTOR, 8);
        if (!allowed(k, s, value, flushed, point)) {
            say_sector(k, s);
        }
        ck_assert_msg(allowed(k, s, value, flushed, point),
                      "sector %llu holds %llu, which cannot be (flushed at %zu, crash at %zu)",
                      (unsigned long long)s, (unsigned long long)value, flushed, point);
        ck_assert_msg(
            value == 0 || di.inconsistent ||
                (blk_dirty_next(d, s * SECTOR, SECTOR, &at, &len) && at == s * SECTOR),
            "sector %llu changed, and the bitmap does not say so", (unsigned long long)s);
    }
}

static void verify_size(const struct crash *k, uint64_t size, const struct flushed *f,
                        size_t point)
{
    for (size_t i = f->sizes ? f->sizes - 1 : 0; i < k->n_sizes; i++) {
        if (k->size[i].begun <= point && k->size[i].bytes == size) {
            return;
        }
    }
    ck_abort_msg("the disk has %llu bytes, which cannot be (crash at %zu)",
                 (unsigned long long)size, point);
}

/* Those made before the last flush, and not about to go, are there and hold what they did. */
static void verify_snaps(struct crash *k, const struct blk_image_info *info,
                         const struct flushed *f, size_t point)
{
    static uint8_t mem[MAX_DISK];

    for (size_t i = 0; i < f->snaps; i++) {
        const struct snap *s = &k->snap[i];
        bool there = false;
        struct blk_node *n;
        struct err e = ERR_INIT;

        for (size_t j = 0; j < info->n_snapshots; j++) {
            there = there || strcmp(info->snapshot[j].name, s->name) == 0;
        }
        ck_assert_msg(there || s->gone <= point, "snapshot %s is lost", s->name);
        if (!there) {
            continue;
        }
        n = crash_open(k, k->state, false, true);
        ck_assert_msg(blk_snapshot_load(n, s->name, &e) == 0, "%s", e.msg);
        ck_assert_uint_eq(blk_size(n), s->size);
        ck_assert_int_eq(blk_pread(n, 0, mem, s->size), 0);
        for (uint64_t x = 0; x < s->size / SECTOR; x++) {
            ck_assert_msg(memcmp(mem + x * SECTOR, &s->value[x], 8) == 0,
                          "sector %llu of snapshot %s differs", (unsigned long long)x, s->name);
        }
        blk_close(n);
    }
}

static void verify_state(struct crash *k, const struct flushed *f, size_t point, bool qemu)
{
    AUTO_FREE char *cmd = NULL;
    struct blk_image_info i;
    struct err e = ERR_INIT;
    struct blk_node *n = crash_open(k, k->state, false, true);

    ck_assert_int_eq(blk_info(n, &i, &e), 0);
    if (i.dirty) { /* opening for writing repairs it first */
        blk_info_done(&i);
        blk_close(n);
        blk_close(crash_open(k, k->state, false, false));
        n = crash_open(k, k->state, false, true);
        ck_assert_int_eq(blk_info(n, &i, &e), 0);
    }
    check_sound(n, false);
    verify_size(k, blk_size(n), f, point);
    verify_contents(k, n, f->stamps, point);
    verify_snaps(k, &i, f, point);
    blk_info_done(&i);
    blk_close(n);
    if (qemu) {
        cmd = xasprintf("qemu-img check -q %s >/dev/null 2>&1",
                        k->state[0]); /* leaks: at length */
        int rc = system(cmd);

        ck_assert_msg(WIFEXITED(rc) && (WEXITSTATUS(rc) == 0 || WEXITSTATUS(rc) == 3),
                      "qemu-img check says %d", WEXITSTATUS(rc));
    }
}

/* Everything of a file up to its last flush, and of what came since any sectors. `kind` 0: exactly the
 * prefix, 1: whole writes in any choice, 2: torn. */
static void write_state(const struct crash *k, unsigned file, size_t point, unsigned kind)
{
    static uint8_t mem[MAX_FILE]; /* its pages stay from state to state */
    uint64_t end = k->start_size[file];
    size_t flushed = 0;
    int fd;

    for (size_t i = 0; i < point; i++) {
        const struct event *v = &k->event[i];

        if (v->file == file) {
            end = v->length && v->at + v->length > end ? v->at + v->length : end;
            flushed = v->length == 0 ? i + 1 : flushed;
        }
    }
    ck_assert_uint_le(end, MAX_FILE);
    memset(mem, 0, end);
    end = k->start_size[file];
    memcpy(mem, k->start[file], end);
    for (size_t i = 0; i < point; i++) {
        const struct event *v = &k->event[i];

        if (v->length == 0 || v->file != file || (i >= flushed && kind == 1 && below(2))) {
            continue;
        }
        put_event(mem, v, i >= flushed && kind == 2);
        end = v->at + v->length > end ? v->at + v->length : end;
    }
    fd = open(k->state[file], O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(pwrite(fd, mem, end, 0), (ssize_t)end);
    close(fd);
}

static void crash_state(struct crash *k, bool qemu)
{
    size_t point = below((unsigned)k->n_events + 1);
    unsigned kind = below(3);
    struct flushed f = { 0 };

    for (unsigned i = 0; i < (k->c.data ? FILES : 1); i++) {
        write_state(k, i, point, kind);
    }
    for (size_t i = 0; i < k->n_flushes; i++) {
        f = k->flush[i].event <= point ? k->flush[i] : f;
    }
    verify_state(k, &f, point, qemu);
}

/* --- rounds --- */

static void read_start(struct crash *k, unsigned file)
{
    struct stat st;
    int fd = open(k->path[file], O_RDONLY | O_CLOEXEC);

    ck_assert(fd >= 0 && fstat(fd, &st) == 0);
    k->start_size[file] = (uint64_t)st.st_size;
    k->start[file] = xalloc(k->start_size[file] + 1);
    ck_assert_int_eq(read(fd, k->start[file], k->start_size[file]), st.st_size);
    close(fd);
}

static void crash_bitmap(struct crash *k)
{
    struct blk_dirty_options o = { .name = "b",
                                   .granularity = 512u << below(8),
                                   .persistent = true };
    struct blk_node *n = crash_open(k, k->path, false, false);
    struct blk_dirty *d;
    struct err e = ERR_INIT;

    ck_assert_msg(blk_dirty_new(n, &o, &d, &e) == 0, "%s", e.msg);
    ck_assert_msg(blk_close_flush(n, &e) == 0, "%s", e.msg);
}

static void crash_new(struct crash *k)
{
    bool three;

    k->c = random_config();
    three = strcmp(k->c.compat, "1.1") == 0;
    k->c.size = (32 + below(160)) * 1024ull;
    k->bitmap = three && below(2);
    for (unsigned i = 0; i < FILES; i++) {
        const char *kind = i ? "data" : "qcow2";

        k->path[i] = xasprintf("crash-%d.%s", (int)getpid(), kind);
        k->state[i] = xasprintf("/dev/shm/crash-state-%d.%s", (int)getpid(), kind);
        k->tapped[i] = (struct tapped){ k, i };
        k->tap[i] = (struct blk_tap){ record, &k->tapped[i] };
    }
    if (three && below(4) == 0) {
        k->c.data = k->path[1];
        k->c.data_raw = below(2);
    }
    k->now = xnew_n(uint64_t, SECTORS);
    memset(k->now, 0, SECTORS * sizeof(*k->now));
}

static void crash_free(struct crash *k)
{
    for (unsigned i = 0; i < FILES; i++) {
        unlink(k->path[i]);
        unlink(k->state[i]);
        free(k->path[i]);
        free(k->state[i]);
        free(k->start[i]);
    }
    for (size_t i = 0; i < k->n_events; i++) {
        free(k->event[i].data);
    }
    for (size_t i = 0; i < k->n_snaps; i++) {
        free(k->snap[i].value);
    }
    free(k->event);
    free(k->stamp);
    free(k->flush);
    free(k->size);
    free(k->now);
}

/* Without any crash. */
static void check_now(const struct crash *k)
{
    static uint8_t mem[MAX_DISK];

    ck_assert_int_eq(blk_pread(k->n, 0, mem, k->c.size), 0);
    for (uint64_t s = 0; s < k->c.size / SECTOR; s++) {
        ck_assert_msg(memcmp(mem + s * SECTOR, &k->now[s], 8) == 0, "sector %llu differs",
                      (unsigned long long)s);
    }
}

static void crash_round(uint64_t round, unsigned states, bool qemu)
{
    struct crash k = { 0 };

    crash_new(&k);
    printf("# round %llu: cluster %s, refcounts %s, lazy %s, compat %s, extended %s%s%s%s\n",
           (unsigned long long)round, k.c.cluster, k.c.bits, k.c.lazy, k.c.compat, k.c.ext,
           k.bitmap ? ", bitmap" : "", k.c.data ? ", data file" : "",
           k.c.data_raw ? ", raw" : "");
    fflush(stdout);
    make(k.path[0], &k.c, NULL);
    if (k.bitmap) {
        crash_bitmap(&k);
    }
    for (unsigned i = 0; i < (k.c.data ? FILES : 1); i++) {
        read_start(&k, i);
    }
    add_size(&k, k.c.size);
    k.n = crash_open(&k, k.path, true, false);
    crash_ops(&k, 60);
    check_now(&k);
    blk_close(k.n);
    for (unsigned i = 0; i < states; i++) {
        /* A data file's name in the image is not that of the state. */
        crash_state(&k, qemu && !k.c.data && i % 125 == 0);
    }
    crash_free(&k);
}

START_TEST(any_crash_leaves_a_sound_image_with_all_flushed_data)
{
    uint64_t states = env_number("VMD_QCOW2_STATES", 10000);
    uint64_t from = env_number("VMD_QCOW2_FROM", 0) / EACH, base = test_seed();
    bool qemu = have_qemu();

    for (uint64_t i = from; i < from + (states + EACH - 1) / EACH; i++) {
        round_seed(base, i);
        crash_round(i, EACH, qemu);
    }
}
END_TEST

static Suite *suite_crash(void)
{
    Suite *s = suite_create("qcow2 crash states");
    TCase *t = tcase_create("random");

    tcase_set_timeout(t, 0);
    tcase_add_test(t, any_crash_leaves_a_sound_image_with_all_flushed_data);
    suite_add_tcase(s, t);
    return s;
}

int main(int argc, char **argv)
{
    return test_main(argc, argv, suite_crash, NULL);
}
