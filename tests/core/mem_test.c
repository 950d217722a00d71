/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tests of the memory tree: flat views against a brute-force model over random trees, DMA
 * bounds, dirty bitmap, atomic access, seals of RAM, views that live until the pause.
 */
#include "engine/core/mem.h"
#include "engine/base/mem.h"
#include "tests/lib/testing.h"

#include <errno.h>
#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>

static const struct mem_io_ops no_ops;

/* ---- the model: a tree of its own, looked up one address at a time ---- */

#define MODEL_MAX 24
#define MODEL_SPACE 96 /* bytes of the root */

struct model {
    enum mem_kind kind;
    struct mem_region *real;
    uint64_t size;
    bool enabled, mapped;
    unsigned parent;
    uint64_t at;
    int priority;
    unsigned order;
    unsigned of;
    uint64_t of_offset;
};

struct tree {
    struct model m[MODEL_MAX];
    unsigned n, order;
};

/* The leaf that shows at an offset of a node, MODEL_MAX: none. */
static unsigned model_find(const struct tree *t, unsigned node, uint64_t offset,
                           uint64_t *leaf_offset)
{
    const struct model *m = &t->m[node];
    if (!m->enabled || offset >= m->size) {
        return MODEL_MAX;
    }
    if (m->kind == MEM_ALIAS) {
        return model_find(t, m->of, m->of_offset + offset, leaf_offset);
    }
    if (m->kind != MEM_CONTAINER) {
        *leaf_offset = offset;
        return node;
    }
    const struct model *best = NULL;
    unsigned best_leaf = MODEL_MAX;
    for (unsigned i = 0; i < t->n; i++) {
        const struct model *c = &t->m[i];
        uint64_t o = 0;
        if (!c->mapped || c->parent != node || offset < c->at || offset - c->at >= c->size) {
            continue;
        }
        unsigned leaf = model_find(t, i, offset - c->at, &o);
        bool better = !best || c->priority > best->priority ||
                      (c->priority == best->priority && c->order > best->order);
        if (leaf != MODEL_MAX && better) {
            best = c;
            best_leaf = leaf;
            *leaf_offset = o;
        }
    }
    return best_leaf;
}

static void tree_add(struct tree *t, uint64_t *rnd)
{
    struct model *m = &t->m[t->n];
    char name[16];
    snprintf(name, sizeof(name), "r%u", t->n);
    m->size = 1 + test_random(rnd) % (MODEL_SPACE / 2);
    m->enabled = test_random(rnd) % 8 != 0;
    unsigned dice = test_random(rnd) % 10;
    struct err e = ERR_INIT;
    if (dice < 3) {
        m->kind = MEM_CONTAINER;
        m->real = mem_new_container(name, m->size);
    } else if (dice < 5) {
        m->kind = MEM_ALIAS;
        m->of = test_random(rnd) % t->n;
        m->of_offset = test_random(rnd) % (t->m[m->of].size + 4);
        m->real = mem_new_alias(name, t->m[m->of].real, m->of_offset, m->size);
    } else if (dice == 5) {
        m->kind = MEM_RAM;
        ck_assert_int_eq(mem_new_ram(name, m->size, &m->real, &e), 0);
    } else {
        m->kind = MEM_IO;
        m->real = mem_new_io(name, m->size, &no_ops, NULL, NULL);
    }
    mem_set_enabled(m->real, m->enabled);
    t->n++;
}

/* Would mapping child in parent make a cycle? */
static bool model_reaches(const struct tree *t, unsigned from, unsigned what)
{
    if (from == what) {
        return true;
    }
    if (t->m[from].kind == MEM_ALIAS) {
        return model_reaches(t, t->m[from].of, what);
    }
    for (unsigned i = 0; i < t->n; i++) {
        if (t->m[i].mapped && t->m[i].parent == from && model_reaches(t, i, what)) {
            return true;
        }
    }
    return false;
}

static void tree_map(struct tree *t, unsigned child, uint64_t *rnd)
{
    struct model *c = &t->m[child];
    unsigned parent = test_random(rnd) % t->n;
    uint64_t at = test_random(rnd) % MODEL_SPACE;
    int priority = (int)(test_random(rnd) % 4) - 1;
    bool fits = t->m[parent].kind == MEM_CONTAINER && !c->mapped && at < t->m[parent].size &&
                c->size <= t->m[parent].size - at && !model_reaches(t, child, parent);
    struct err e = ERR_INIT;
    int ret = mem_map(t->m[parent].real, at, priority, c->real, &e);
    ck_assert_msg((ret == 0) == fits, "map of r%u in r%u: %d %s", child, parent, ret, e.msg);
    if (ret == 0) {
        c->mapped = true;
        c->parent = parent;
        c->at = at;
        c->priority = priority;
        c->order = t->order++;
    }
}

static void tree_compare(const struct tree *t, struct mem_space *s)
{
    const struct mem_flat *f = mem_flat(s);
    for (unsigned i = 0; i < f->n; i++) {
        ck_assert_uint_gt(f->r[i].size, 0);
        if (i) {
            const struct mem_range *p = &f->r[i - 1];
            ck_assert_uint_ge(f->r[i].base, p->base + p->size);
            ck_assert(p->base + p->size != f->r[i].base || p->region != f->r[i].region ||
                      p->offset + p->size != f->r[i].offset);
        }
    }
    for (uint64_t a = 0; a < MODEL_SPACE + 8; a++) {
        uint64_t offset = 0;
        unsigned leaf = model_find(t, 0, a, &offset);
        const struct mem_range *r = mem_find(s, a);
        ck_assert_msg((r != NULL) == (leaf != MODEL_MAX), "address %llu",
                      (unsigned long long)a);
        if (r) {
            ck_assert_ptr_eq(r->region, t->m[leaf].real);
            ck_assert_uint_eq(r->offset + (a - r->base), offset);
            ck_assert_int_eq(r->kind, t->m[leaf].kind);
            ck_assert((r->host != NULL) == (t->m[leaf].kind == MEM_RAM));
            if (r->host) {
                ck_assert_ptr_eq(r->host + (a - r->base), mem_ram_host(r->region) + offset);
            }
        }
    }
}

static void tree_free(struct tree *t)
{
    for (unsigned i = 0; i < t->n; i++) {
        if (t->m[i].mapped) {
            mem_unmap(t->m[i].real);
        }
    }
    for (unsigned i = t->n; i > 0; i--) { /* aliases point to older ones */
        mem_free(t->m[i - 1].real);
    }
}

START_TEST(flat_view_equals_brute_force_on_random_trees)
{
    uint64_t rnd = test_seed();
    for (unsigned round = 0; round < 400; round++) {
        struct tree t = { .n = 1 };
        t.m[0] = (struct model){ .kind = MEM_CONTAINER,
                                 .size = MODEL_SPACE,
                                 .enabled = true,
                                 .real = mem_new_container("root", MODEL_SPACE) };
        struct mem_space *s = mem_space_new(t.m[0].real);
        while (t.n < MODEL_MAX) {
            tree_add(&t, &rnd);
        }
        for (unsigned step = 0; step < 60; step++) {
            unsigned i = 1 + test_random(&rnd) % (t.n - 1);
            if (t.m[i].mapped && test_random(&rnd) % 4 == 0) {
                mem_unmap(t.m[i].real);
                t.m[i].mapped = false;
            } else {
                tree_map(&t, i, &rnd);
            }
            if (step % 10 == 9) {
                mem_commit(s);
                tree_compare(&t, s);
                mem_reclaim(s);
            }
        }
        mem_space_free(s);
        tree_free(&t);
    }
}
END_TEST

START_TEST(mapping_refuses_what_does_not_fit_and_cycles)
{
    struct err e = ERR_INIT;
    struct mem_region *a = mem_new_container("a", 0x1000), *b = mem_new_container("b", 0x100);
    struct mem_region *io = mem_new_io("io", 0x10, &no_ops, NULL, NULL);
    struct mem_region *loop = mem_new_alias("loop", a, 0, 0x10);
    ck_assert_int_eq(mem_map(a, 0xf01, 0, b, &e), -ERANGE);
    ck_assert_int_eq(mem_map(a, UINT64_MAX, 0, b, &e), -ERANGE);
    ck_assert_int_eq(mem_map(io, 0, 0, b, &e), -EINVAL);
    ck_assert_int_eq(mem_map(a, 0xf00, 0, b, &e), 0);
    ck_assert_int_eq(mem_map(a, 0, 0, b, &e), -EBUSY);
    ck_assert_int_eq(mem_map(b, 0, 0, loop, &e), -EINVAL);
    ck_assert_ptr_nonnull(strstr(e.msg, "loop"));
    mem_free(loop);
    mem_free(io);
    mem_free(b);
    mem_free(a);
}
END_TEST

/* ---- a machine: RAM at 0x1000 (3 pages), I/O at 0x4000, RAM at 0x5000 (1 page) directly
 * before ROM ---- */

struct machine {
    struct mem_region *root, *ram1, *ram2, *io, *rom;
    struct mem_space *s;
    uint64_t written_at, written_n;
    unsigned commits;
};

static void on_commit(void *arg, const struct mem_flat *f)
{
    struct machine *m = arg;
    ck_assert_uint_gt(f->n, 0);
    m->commits++;
}

static void on_written(void *arg, uint64_t gpa, uint64_t n)
{
    struct machine *m = arg;
    m->written_at = gpa;
    m->written_n = n;
}

static void machine_make(struct machine *m)
{
    *m = (struct machine){ .root = mem_new_container("root", 1ull << 56) };
    ck_assert_int_eq(mem_new_ram("ram1", 0x3000, &m->ram1, NULL), 0);
    ck_assert_int_eq(mem_new_ram("ram2", 0x1000, &m->ram2, NULL), 0);
    ck_assert_int_eq(mem_new_rom("rom", 0x1000, &m->rom, NULL), 0);
    m->io = mem_new_io("io", 0x1000, &no_ops, NULL, NULL);
    ck_assert_int_eq(mem_map(m->root, 0x1000, 0, m->ram1, NULL), 0);
    ck_assert_int_eq(mem_map(m->root, 0x4000, 0, m->io, NULL), 0);
    ck_assert_int_eq(mem_map(m->root, 0x5000, 0, m->ram2, NULL), 0);
    ck_assert_int_eq(mem_map(m->root, 0x6000, 0, m->rom, NULL), 0);
    m->s = mem_space_new(m->root);
    mem_set_hooks(m->s, on_commit, on_written, m);
    mem_commit(m->s);
}

static void machine_free(struct machine *m)
{
    mem_space_free(m->s);
    mem_free(m->ram1);
    mem_free(m->ram2);
    mem_free(m->io);
    mem_free(m->rom);
    mem_free(m->root);
}

START_TEST(dma_reaches_ram_only_and_transfers_nothing_else)
{
    struct machine m;
    machine_make(&m);
    uint8_t buf[0x5000], same[0x5000];
    memset(buf, 0x5a, sizeof(buf));
    memcpy(same, buf, sizeof(buf));
    ck_assert_int_eq(mem_dma_write(m.s, 0x1000, buf, 0x3000), 0);
    ck_assert_uint_eq(m.written_at, 0x1000);
    ck_assert_uint_eq(m.written_n, 0x3000);
    ck_assert_int_eq(mem_dma_write(m.s, 0x1000, buf, 0x3001), -EFAULT); /* into I/O */
    ck_assert_int_eq(mem_dma_write(m.s, 0xfff, buf, 2), -EFAULT);       /* from a hole */
    ck_assert_int_eq(mem_dma_write(m.s, 0x5fff, buf, 2), -EFAULT);      /* into ROM */
    ck_assert_int_eq(mem_ram_host(m.ram2)[0xfff], 0);                   /* untouched by that */
    ck_assert_int_eq(mem_dma_write(m.s, 0x4000, buf, 1), -EFAULT);
    ck_assert_int_eq(mem_dma_write(m.s, UINT64_MAX, buf, 2), -EFAULT);
    ck_assert_int_eq(mem_dma_write(m.s, 0x1000, buf, 0), 0);
    mem_ram_host(m.rom)[0] = 7;
    ck_assert_int_eq(mem_dma_read(m.s, 0x5fff, buf, 2), 0); /* RAM, then ROM */
    ck_assert_int_eq(buf[0], 0);
    ck_assert_int_eq(buf[1], 7);
    memcpy(buf, same, sizeof(buf));
    ck_assert_int_eq(mem_dma_read(m.s, 0x3fff, buf, 2), -EFAULT);
    ck_assert_mem_eq(buf, same, sizeof(buf));
    ck_assert_ptr_eq(mem_dma_map(m.s, 0x1800, 0x2800, true), mem_ram_host(m.ram1) + 0x800);
    ck_assert_ptr_null(mem_dma_map(m.s, 0x1800, 0x2801, true));
    ck_assert_ptr_null(mem_dma_map(m.s, 0x6000, 1, true));
    ck_assert_ptr_nonnull(mem_dma_map(m.s, 0x6000, 1, false));
    ck_assert_ptr_null(mem_dma_map(m.s, 0x4000, 1, false));
    machine_free(&m);
}
END_TEST

START_TEST(dma_bounds_hold_for_random_windows)
{
    struct machine m;
    machine_make(&m);
    uint64_t rnd = test_seed();
    static uint8_t buf[0x8000];
    for (unsigned i = 0; i < 20000; i++) {
        uint64_t at = test_random(&rnd) % 0x8000, n = test_random(&rnd) % 0x4000;
        bool write = test_random(&rnd) & 1, fits = true;
        for (uint64_t a = at; a < at + n && fits; a = (a | 0xfff) + 1) {
            fits = (a >= 0x1000 && a < 0x4000) ||
                   (a >= 0x5000 && a < (write ? 0x6000 : 0x7000));
        }
        int ret = write ? mem_dma_write(m.s, at, buf, n) : mem_dma_read(m.s, at, buf, n);
        ck_assert_int_eq(ret, fits ? 0 : -EFAULT);
        ck_assert_int_eq(mem_dma_reaches(m.s, at, n, write), fits);
    }
    machine_free(&m);
}
END_TEST

static unsigned bits(const uint64_t *w, unsigned from, unsigned to)
{
    unsigned n = 0;
    for (unsigned i = from; i < to; i++) {
        n += (w[i / 64] >> (i % 64)) & 1;
    }
    return n;
}

static void log_of_its_own(void *arg)
{
    struct machine *m = arg;
    mem_range_dirty(mem_find(m->s, 0x1000), 0x1000);
}

START_TEST(dirty_bitmap_has_what_an_engine_logged_itself)
{
    struct machine m;
    uint64_t w[1] = { 0 };
    machine_make(&m);
    mem_set_dirty_hook(m.s, log_of_its_own);
    mem_dirty_take(m.s, w);
    ck_assert_uint_eq(w[0], 0); /* nobody asks while nothing is logged */
    mem_dirty_start(m.s);
    mem_dirty_start(m.s); /* what was logged before is cleared with the rest */
    mem_set_dirty_hook(m.s, NULL);
    mem_dirty_take(m.s, w);
    ck_assert_uint_eq(w[0], 0);
    mem_set_dirty_hook(m.s, log_of_its_own);
    mem_dirty_take(m.s, w);
    ck_assert_uint_eq(bits(w, 0, 4), 1);
    mem_dirty_stop(m.s);
    machine_free(&m);
}
END_TEST

START_TEST(dirty_bitmap_names_the_pages_written)
{
    struct machine m;
    machine_make(&m);
    uint64_t w[1] = { 0 };
    uint8_t buf[0x3000] = { 0 };
    ck_assert_uint_eq(mem_ram_pages(m.s), 4);
    ck_assert_ptr_null(mem_find(m.s, 0x1000)->dirty);
    mem_dirty_start(m.s);
    ck_assert(mem_dirty_logging(m.s));
    mem_dirty_take(m.s, w);
    ck_assert_uint_eq(w[0], 0);
    ck_assert_int_eq(mem_dma_write(m.s, 0x1fff, buf, 2), 0);
    ck_assert_int_eq(mem_dma_write(m.s, 0x5010, buf, 1), 0);
    mem_dirty_take(m.s, w);
    ck_assert_uint_eq(bits(w, 0, 4), 3);
    ck_assert_uint_eq(w[0] >> mem_range_page(mem_find(m.s, 0x1000), 0x1fff) & 1, 1);
    ck_assert_uint_eq(w[0] >> mem_range_page(mem_find(m.s, 0x1000), 0x2000) & 1, 1);
    ck_assert_uint_eq(w[0] >> mem_range_page(mem_find(m.s, 0x5000), 0x5000) & 1, 1);
    mem_dirty_take(m.s, w);
    ck_assert_uint_eq(w[0], 0);
    mem_range_dirty(mem_find(m.s, 0x3000), 0x3456);
    mem_written(m.s, 0, 0x8000); /* over holes, I/O and ROM */
    mem_dirty_take(m.s, w);
    ck_assert_uint_le(bits(w, 0, 64), 4);
    mem_dirty_stop(m.s);
    ck_assert_ptr_null(mem_find(m.s, 0x1000)->dirty);
    mem_dirty_take(m.s, w);
    ck_assert_uint_eq(w[0], 0);
    mem_reclaim(m.s);
    machine_free(&m);
}
END_TEST

START_TEST(pages_keep_their_numbers_when_ram_comes_and_windows_move)
{
    struct machine m;
    machine_make(&m);
    uint64_t page = mem_range_page(mem_find(m.s, 0x5000), 0x5000), w[4] = { 0 };
    mem_dirty_start(m.s);
    uint8_t one = 1;
    ck_assert_int_eq(mem_dma_write(m.s, 0x5000, &one, 1), 0);
    struct mem_region *more, *window = mem_new_alias("window", m.ram2, 0x800, 0x800);
    ck_assert_int_eq(mem_new_ram("more", 0x80000, &more, NULL), 0);
    ck_assert_int_eq(mem_map(m.root, 0x100000, 0, more, NULL), 0);
    ck_assert_int_eq(mem_map(m.root, 0x10000, 0, window, NULL), 0);
    mem_unmap(m.ram1);
    mem_commit(m.s);
    ck_assert_uint_eq(mem_ram_pages(m.s), 4 + 0x80);
    ck_assert_uint_eq(mem_range_page(mem_find(m.s, 0x10000), 0x107ff), page);
    ck_assert_int_eq(mem_dma_write(m.s, 0x100000 + 0x7ffff, &one, 1), 0);
    mem_dirty_take(m.s, w);
    /* the mark made before the bitmap grew is not lost */
    ck_assert_uint_eq(bits(w, 0, 4 + 0x80), 2);
    ck_assert_uint_eq(w[page / 64] >> (page % 64) & 1, 1);
    mem_dirty_stop(m.s);
    mem_reclaim(m.s);
    mem_free(window);
    mem_commit(m.s);
    machine_free(&m);
    mem_free(more);
}
END_TEST

START_TEST(words_are_swapped_atomically_in_ram_only)
{
    struct machine m;
    machine_make(&m);
    bool swapped = false;
    uint64_t v64;
    uint32_t v32;
    ck_assert(mem_cas64(m.s, 0x1008, 0, 0x1122334455667788, &swapped));
    ck_assert(swapped);
    ck_assert_uint_eq(m.written_at, 0x1008);
    ck_assert(mem_cas64(m.s, 0x1008, 0, 1, &swapped));
    ck_assert(!swapped);
    ck_assert(mem_load64(m.s, 0x1008, &v64));
    ck_assert_uint_eq(v64, 0x1122334455667788);
    ck_assert(mem_load32(m.s, 0x1008, &v32));
    ck_assert_uint_eq(v32, 0x55667788); /* little-endian */
    ck_assert(mem_cas32(m.s, 0x100c, 0x11223344, 5, &swapped));
    ck_assert(swapped);
    ck_assert(!mem_cas64(m.s, 0x1004, 0, 0, &swapped)); /* misaligned */
    ck_assert(!mem_cas64(m.s, 0x4000, 0, 0, &swapped)); /* I/O */
    ck_assert(!mem_cas32(m.s, 0x6000, 0, 0, &swapped)); /* ROM */
    ck_assert(mem_load32(m.s, 0x6000, &v32));
    ck_assert(!mem_load64(m.s, 0x0, &v64));
    ck_assert(!mem_load64(m.s, 0x7000, &v64));
    machine_free(&m);
}
END_TEST

START_TEST(ram_has_its_size_and_bad_sizes_are_errors)
{
    struct err e = ERR_INIT;
    struct mem_region *r = NULL;
    ck_assert_int_eq(mem_new_ram("none", 0, &r, &e), -EINVAL);
    ck_assert_int_lt(mem_new_ram("vast", UINT64_MAX, &r, &e), 0);
    ck_assert_int_lt(mem_new_ram("large", 1ull << 61, &r, &e), 0);
    ck_assert_ptr_nonnull(strstr(e.msg, "large"));
    ck_assert_ptr_null(r);
    ck_assert_int_eq(mem_new_ram("small", 0x1800, &r, &e), 0);
    ck_assert_uint_eq(mem_region_size(r), 0x1800);
    ck_assert_int_eq(mem_region_kind(r), MEM_RAM);
    ck_assert_str_eq(mem_region_name(r), "small");
    mem_ram_host(r)[0x17ff] = 1;
    mem_free(r);
    mem_free(NULL);
}
END_TEST

static int file_of(size_t size)
{
    int fd = memfd_create("test", MFD_CLOEXEC);

    ck_assert(fd >= 0 && ftruncate(fd, (off_t)size) == 0);
    return fd;
}

START_TEST(ram_that_came_may_go_and_its_page_numbers_are_used_again)
{
    enum { SIZE = 4 << 20 };
    struct mem_region *root = mem_new_container("root", UINT64_MAX), *first, *r = NULL;
    struct mem_space *s = mem_space_new(root);
    uint64_t pages = 0, at = 0;
    uint8_t *host;

    ck_assert_int_eq(mem_new_ram("first", SIZE, &first, NULL), 0);
    ck_assert_int_eq(mem_map(root, 0, 0, first, NULL), 0);
    mem_commit(s);
    ck_assert_int_eq(mem_new_ram_in("other", SIZE, file_of(SIZE / 2), &r, NULL), -EINVAL);
    ck_assert_ptr_null(r);
    for (unsigned i = 0; i < 20; i++) {
        size_t size = i % 2 ? SIZE / 2 : SIZE;

        ck_assert_int_eq(mem_new_ram_in("more", size, file_of(size), &r, NULL), 0);
        ck_assert_int_eq(mem_map(root, 1ull << 30, 0, r, NULL), 0);
        mem_commit(s);
        pages = i == 0 ? mem_ram_pages(s) : pages;
        ck_assert_uint_eq(mem_ram_pages(s), pages);
        ck_assert(mem_region_numbered(r, &at) && at == SIZE / 4096);
        host = mem_ram_host(r);
        host[size - 1] = 7;
        mem_unmap(r);
        mem_commit(s);
        mem_retire(s, r);
        ck_assert_uint_eq(host[size - 1], 0); /* nobody's now */
        host[size - 1] = 8;                   /* what was on its way */
    }
    mem_retire(s, NULL);
    mem_space_free(s);
    mem_free(first);
    mem_free(root);
}
END_TEST

/* ---- readers on other threads while the view changes ---- */

struct race {
    struct machine m;
    _Atomic bool end;
    _Atomic unsigned transfers;
    _Atomic unsigned threads;
};

static void *io_thread(void *arg)
{
    struct race *r = arg;
    uint8_t buf[64] = { 0 };
    /* guests may race, tests may not */
    uint64_t at = 0x5000 + atomic_fetch_add(&r->threads, 1) * sizeof(buf);
    while (!atomic_load(&r->end)) {
        ck_assert_int_eq(mem_dma_write(r->m.s, at, buf, sizeof(buf)), 0);
        mem_dma_read(r->m.s, 0x1000, buf, sizeof(buf)); /* mapped now and then */
        atomic_fetch_add(&r->transfers, 1);
    }
    return NULL;
}

static void ignore_written(void *arg, uint64_t gpa, uint64_t n)
{
    (void)arg;
    (void)gpa;
    (void)n;
}

/* Skipped by itself where the host has no huge pages for shared memory: then nothing is shown. */
START_TEST(a_page_of_ram_shown_elsewhere_is_the_same_page)
{
    struct err e = ERR_INIT;
    struct mem_region *root = mem_new_container("root", 1u << 30), *ram, *askew, *small;
    ck_assert_int_eq(mem_new_ram("ram", 4u << 20, &ram, &e), 0);
    ck_assert_int_eq(mem_new_ram("small", 0x3000, &small, &e), 0);
    askew = mem_new_alias("askew", ram, 0x100, 0x4000);
    ck_assert_int_eq(mem_map(root, 0x1000, 0, ram, &e), 0);
    ck_assert_int_eq(mem_map(root, 0x1000000, 0, askew, &e), 0);
    ck_assert_int_eq(mem_map(root, 0x2000000, 0, small, &e), 0);
    struct mem_space *s = mem_space_new(root);
    mem_commit(s);
    uint8_t *at = mem_map_huge(MEM_PAGE_SIZE), *host = mem_ram_host(ram);
    ck_assert(!mem_range_show(mem_find(s, 0x2000000), 0x2000000, at));
    ck_assert(
        !mem_range_show(mem_find(s, 0x1000000), 0x1001000, at)); /* no page of the host's */
    for (unsigned i = 0; i < 1000; i += 7) {
        uint64_t gpa = 0x1000 + i * MEM_PAGE_SIZE;
        host[i * MEM_PAGE_SIZE + 5] = (uint8_t)i;
        if (i % 3 == 0) {
            mem_range_settle(mem_find(s, gpa), gpa);
        }
        if (mem_range_show(mem_find(s, gpa), gpa, at)) {
            ck_assert_uint_eq(at[5], (uint8_t)i);
            mem_range_settle(mem_find(s, gpa),
                             gpa); /* the page moves to a huge one: here too */
            at[6] = (uint8_t)(i + 1);
            ck_assert_uint_eq(host[i * MEM_PAGE_SIZE + 6], (uint8_t)(i + 1));
        }
    }
    mem_unmap_huge(at, MEM_PAGE_SIZE);
    mem_space_free(s);
    mem_free(askew);
    mem_free(ram);
    mem_free(small);
    mem_free(root);
}
END_TEST

START_TEST(io_threads_never_see_a_freed_view)
{
    struct race r = { .end = false };
    machine_make(&r.m);
    mem_set_hooks(r.m.s, NULL, ignore_written, NULL);
    pthread_t t[2];
    for (unsigned i = 0; i < 2; i++) {
        pthread_create(&t[i], NULL, io_thread, &r);
    }
    for (unsigned i = 0; i < 3000 || atomic_load(&r.transfers) < 100; i++) {
        mem_set_enabled(r.m.ram1, i & 1);
        if (i % 16 == 0) {
            mem_dirty_start(r.m.s);
        } else if (i % 16 == 8) {
            mem_dirty_stop(r.m.s);
        } else {
            mem_commit(r.m.s);
        }
        mem_reclaim(r.m.s);
    }
    atomic_store(&r.end, true);
    for (unsigned i = 0; i < 2; i++) {
        pthread_join(t[i], NULL);
    }
    mem_dirty_stop(r.m.s);
    machine_free(&r.m);
}
END_TEST

static Suite *suite_mem(void)
{
    Suite *s = suite_create("mem");
    TCase *c = tcase_create("mem");
    tcase_add_test(c, flat_view_equals_brute_force_on_random_trees);
    tcase_add_test(c, mapping_refuses_what_does_not_fit_and_cycles);
    tcase_add_test(c, dma_reaches_ram_only_and_transfers_nothing_else);
    tcase_add_test(c, dma_bounds_hold_for_random_windows);
    tcase_add_test(c, dirty_bitmap_names_the_pages_written);
    tcase_add_test(c, dirty_bitmap_has_what_an_engine_logged_itself);
    tcase_add_test(c, pages_keep_their_numbers_when_ram_comes_and_windows_move);
    tcase_add_test(c, words_are_swapped_atomically_in_ram_only);
    tcase_add_test(c, ram_has_its_size_and_bad_sizes_are_errors);
    tcase_add_test(c, ram_that_came_may_go_and_its_page_numbers_are_used_again);
    tcase_add_test(c, a_page_of_ram_shown_elsewhere_is_the_same_page);
    tcase_add_test(c, io_threads_never_see_a_freed_view);
    suite_add_tcase(s, c);
    return s;
}

int main(int argc, char **argv)
{
    return test_main(argc, argv, suite_mem, NULL);
}
