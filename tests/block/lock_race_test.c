/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sixteen processes open images again and again, to write or to read, by themselves and as backing files of others: an image that
 * somebody may write is nobody else's. Each says in shared memory what it holds, from after it was let in until before it leaves.
 * VMD_LOCK_RACES attempts, the shares of whose kinds are the same in every run.
 */
#include "engine/base/mem.h"
#include "storage/block.h"
#include "storage/image.h"
#include "tests/lib/testing.h"

#include <errno.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum { OPENERS = 16, IMAGES = 4, SIZE = 1 << 20 };
/* Two overlays stand on the base, and one stands alone. */
enum { BASE, LEFT, RIGHT, ALONE };

struct held {
    atomic_uint writers, readers;
};

struct race {
    struct held image[IMAGES];
    atomic_uint begun;                                 /* openers that are ready */
    atomic_uint let_in[IMAGES][2], refused[IMAGES][2]; /* to read, to write */
    atomic_uint bad;
    char what[200]; /* the first one that was bad */
};

static char *path[IMAGES];

static void found(struct race *r, unsigned i, const char *what)
{
    if (atomic_fetch_add(&r->bad, 1) == 0) {
        snprintf(r->what, sizeof(r->what), "%s: %u writers, %u readers: %s", path[i],
                 atomic_load(&r->image[i].writers), atomic_load(&r->image[i].readers), what);
    }
}

static void hold(struct race *r, unsigned i, bool write)
{
    struct held *h = &r->image[i];

    if (write) {
        if (atomic_fetch_add(&h->writers, 1) != 0 || atomic_load(&h->readers) != 0) {
            found(r, i, "a writer was let in");
        }
    } else {
        atomic_fetch_add(&h->readers, 1);
        if (atomic_load(&h->writers) != 0) {
            found(r, i, "a reader was let in");
        }
    }
}

static void let_go(struct race *r, unsigned i, bool write)
{
    atomic_fetch_sub(write ? &r->image[i].writers : &r->image[i].readers, 1);
}

static bool has_base(unsigned i)
{
    return i == LEFT || i == RIGHT;
}

/* Others get to try meanwhile. */
static void work(struct blk_node *n, bool write, unsigned seed)
{
    static uint8_t mem[4096];

    for (unsigned i = 0; i < seed % 8; i++) {
        uint64_t at = (seed * 2654435761u + i) % (SIZE / sizeof(mem)) * sizeof(mem);

        if (write) {
            (void)blk_pwrite(n, at, mem, sizeof(mem));
        } else {
            (void)blk_pread(n, at, mem, sizeof(mem));
        }
        sched_yield();
    }
}

static void attempt(struct race *r, unsigned i, bool write, unsigned seed)
{
    const struct blk_options o = { .name = path[i],
                                   .driver = i == ALONE ? "raw" : "qcow2",
                                   .path = path[i],
                                   .fd = -1,
                                   .readonly = !write,
                                   .unsafe = true,
                                   .follow = true };
    struct blk_node *n = NULL;
    struct err e = ERR_INIT;
    int rc = blk_open(NULL, &o, &n, &e);

    if (rc != 0) {
        atomic_fetch_add(&r->refused[i][write], 1);
        if (rc != -EBUSY || !strstr(e.msg, "is locked by")) {
            found(r, i, e.msg);
        }
        return;
    }
    atomic_fetch_add(&r->let_in[i][write], 1);
    hold(r, i, write);
    if (has_base(i)) {
        hold(r, BASE, false);
    }
    work(n, write, seed);
    if (has_base(i)) {
        let_go(r, BASE, false);
    }
    let_go(r, i, write);
    blk_close(n);
}

static void opener(struct race *r, unsigned me, unsigned attempts)
{
    unsigned seed = me * 7919 + 1;

    atomic_fetch_add(&r->begun, 1);
    while (atomic_load(&r->begun) < OPENERS) {
        /* all at once */
    }
    for (unsigned i = 0; i < attempts; i++) {
        seed = seed * 1664525u + 1013904223u;
        attempt(r, (seed >> 16) % IMAGES, (seed >> 24) % 4 != 0, seed >> 8);
    }
}

static void make_images(const char *folder)
{
    static const char *const names[IMAGES] = { "base", "left", "right", "alone" };

    for (unsigned i = 0; i < IMAGES; i++) {
        const struct blk_option on_base[] = { { "backing_file", path[BASE] },
                                              { "backing_fmt", "qcow2" } };
        struct blk_create c = { .driver = i == ALONE ? "raw" : "qcow2", .size = SIZE };
        struct err e = ERR_INIT;

        path[i] = xasprintf("%s/%s", folder, names[i]);
        c.path = path[i];
        if (has_base(i)) {
            c.option = on_base;
            c.n_options = ARRAY_LEN(on_base);
        }
        ck_assert_msg(blk_create(&c, &e) == 0, "%s", e.msg);
    }
}

static void check_race(const struct race *r)
{
    for (unsigned i = 0; i < IMAGES; i++) {
        printf("# %s: let in to write %u, to read %u; refused %u, %u\n", path[i],
               r->let_in[i][1], r->let_in[i][0], r->refused[i][1], r->refused[i][0]);
        ck_assert_uint_eq(r->image[i].writers, 0);
        ck_assert_uint_eq(r->image[i].readers, 0);
        ck_assert_msg(r->let_in[i][1] && r->let_in[i][0], "nobody got %s", path[i]);
    }
    fflush(stdout);
    ck_assert_msg(r->bad == 0, "%u times: %s", r->bad, r->what);
}

START_TEST(an_image_that_is_written_is_nobody_elses)
{
    const char *asked = getenv("VMD_LOCK_RACES");
    unsigned races = asked ? (unsigned)strtoul(asked, NULL, 10) : 10000;
    struct race *r = mmap(NULL, sizeof(*r), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
                          -1, 0);
    char folder[] = "/tmp/vmd-race.XXXXXX";
    pid_t pid[OPENERS];

    ck_assert_ptr_ne(r, MAP_FAILED);
    ck_assert_ptr_nonnull(mkdtemp(folder));
    make_images(folder);
    fflush(NULL);
    for (unsigned i = 0; i < OPENERS; i++) {
        pid[i] = fork();
        ck_assert_int_ge(pid[i], 0);
        if (pid[i] == 0) {
            opener(r, i, races / OPENERS);
            _exit(0);
        }
    }
    for (unsigned i = 0; i < OPENERS; i++) {
        int status;

        ck_assert_int_eq(waitpid(pid[i], &status, 0), pid[i]);
        ck_assert_int_eq(status, 0);
    }
    check_race(r);
    for (unsigned i = 0; i < IMAGES; i++) {
        unlink(path[i]);
        free(path[i]);
    }
    rmdir(folder);
    munmap(r, sizeof(*r));
}
END_TEST

static Suite *suite_race(void)
{
    Suite *s = suite_create("image locks");
    TCase *t = tcase_create("races");

    tcase_set_timeout(t, 0);
    tcase_add_test(t, an_image_that_is_written_is_nobody_elses);
    suite_add_tcase(s, t);
    return s;
}

int main(int argc, char **argv)
{
    return test_main(argc, argv, suite_race, NULL);
}
