/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Flat views of a region tree, and the dirty bitmap.
 *
 * A commit paints the leaves into an empty line, highest priority first, each into the gaps
 * that are left. The new view is swapped in atomically; the old one is freed by
 * mem_reclaim() when the vCPUs stand at the pause barrier and no other thread is inside an
 * access. Commit, reclaim and the dirty calls: main thread.
 */
#include "engine/core/mem_priv.h"

#include <assert.h>

/* Ranges under construction, sorted by base. */
struct paint {
    struct mem_range *r;
    unsigned n, room;
    bool read_only; /* behind a read-only alias */
};

static void paint_insert(struct paint *p, unsigned at, const struct mem_range *r)
{
    if (p->n == p->room) {
        p->room = p->room ? p->room * 2 : 16;
        p->r = xrealloc_n(p->r, p->room, sizeof(*p->r));
    }
    for (unsigned i = p->n; i > at; i--) {
        p->r[i] = p->r[i - 1];
    }
    p->r[at] = *r;
    p->n++;
}

/* Paints [lo, hi) of a leaf at guest physical `gpa` wherever nothing was painted before. */
static void paint_leaf(struct paint *p, struct mem_region *leaf, uint64_t lo, uint64_t hi,
                       uint64_t gpa)
{
    uint64_t pos = gpa, end = gpa + (hi - lo);
    unsigned i = 0, last = p->n; /* the first range that ends behind pos */
    while (i < last) {
        unsigned mid = i + (last - i) / 2;
        if (p->r[mid].base + p->r[mid].size <= pos) {
            i = mid + 1;
        } else {
            last = mid;
        }
    }
    while (pos < end) {
        uint64_t stop = i < p->n && p->r[i].base < end ? p->r[i].base : end;
        if (pos < stop) {
            struct mem_range r = { .base = pos,
                                   .size = stop - pos,
                                   .region = leaf,
                                   .offset = lo + (pos - gpa),
                                   .kind = p->read_only && leaf->kind == MEM_RAM ? MEM_ROM
                                                                                 : leaf->kind,
                                   .ops = leaf->ops,
                                   .opaque = leaf->opaque,
                                   .lock = leaf->lock };
            paint_insert(p, i++, &r);
        }
        pos = stop;
        if (pos < end) {
            pos = p->r[i].base + p->r[i].size;
            i++;
        }
    }
}

/* Paints the window [lo, hi) of r at guest physical `gpa`. Depth is bounded by the tree's,
 * which has no cycle. */
static void paint_region(struct paint *p, struct mem_region *r, uint64_t lo, uint64_t hi,
                         uint64_t gpa)
{
    if (hi > r->size) {
        hi = r->size;
    }
    if (!r->enabled || lo >= hi) {
        return;
    }
    if (r->kind == MEM_ALIAS) {
        if (lo < UINT64_MAX - r->of_offset) {
            uint64_t room = UINT64_MAX - r->of_offset - lo;
            uint64_t size = hi - lo < room ? hi - lo : room;
            bool was = p->read_only;
            p->read_only |= r->read_only;
            paint_region(p, r->of, r->of_offset + lo, r->of_offset + lo + size, gpa);
            p->read_only = was;
        }
        return;
    }
    if (r->kind != MEM_CONTAINER) {
        paint_leaf(p, r, lo, hi, gpa);
        return;
    }
    list_for_each (it, &r->children) {
        struct mem_region *c = list_entry(it, struct mem_region, node);
        uint64_t from = c->at > lo ? c->at : lo;
        uint64_t to = c->at + c->size < hi ? c->at + c->size : hi;
        if (from < to) {
            paint_region(p, c, from - c->at, to - c->at, gpa + (from - lo));
        }
    }
}

/* Joins neighbours that show neighbouring parts of one leaf. */
static void paint_merge(struct paint *p)
{
    unsigned n = 0;
    for (unsigned i = 0; i < p->n; i++) {
        struct mem_range *last = n ? &p->r[n - 1] : NULL, *r = &p->r[i];
        if (last && last->region == r->region && last->kind == r->kind &&
            last->base + last->size == r->base && last->offset + last->size == r->offset) {
            last->size += r->size;
        } else {
            p->r[n++] = *r;
        }
    }
    p->n = n;
}

const struct mem_range *mem_flat_find(const struct mem_flat *f, uint64_t gpa)
{
    unsigned lo = 0, hi = f->n;
    while (lo < hi) {
        unsigned mid = lo + (hi - lo) / 2;
        const struct mem_range *r = &f->r[mid];
        if (gpa < r->base) {
            hi = mid;
        } else if (gpa - r->base >= r->size) {
            lo = mid + 1;
        } else {
            return r;
        }
    }
    return NULL;
}

const struct mem_flat *mem_flat(const struct mem_space *s)
{
    return &atomic_load_explicit(&((struct mem_space *)s)->view, memory_order_acquire)->flat;
}

const struct mem_range *mem_find(const struct mem_space *s, uint64_t gpa)
{
    return mem_flat_find(mem_flat(s), gpa);
}

static void view_free(struct mem_view *v)
{
    free(v->ranges);
    free(v);
}

struct mem_space *mem_space_new(struct mem_region *root)
{
    struct mem_space *s = xnew(struct mem_space);
    s->root = root;
    atomic_init(&s->view, xnew(struct mem_view));
    return s;
}

static void drop_old_bitmaps(struct mem_space *s)
{
    while (s->old_bitmaps) {
        struct mem_bitmap *b = s->old_bitmaps;
        s->old_bitmaps = b->next;
        free((void *)b->words);
        free(b);
    }
}

void mem_reclaim(struct mem_space *s)
{
    if (atomic_load(&s->readers) != 0) {
        return; /* an I/O thread is inside; the next pause will do */
    }
    while (s->retired) {
        struct mem_view *v = s->retired;
        s->retired = v->next;
        view_free(v);
    }
    if (!s->logging) {
        drop_old_bitmaps(s);
    }
}

void mem_space_free(struct mem_space *s)
{
    if (!s) {
        return;
    }
    assert(atomic_load(&s->readers) == 0);
    s->logging = false;
    mem_reclaim(s);
    view_free(atomic_load(&s->view));
    free((void *)s->bitmap.words);
    free(s->gaps);
    free(s);
}

void mem_set_hooks(struct mem_space *s, void (*committed)(void *arg, const struct mem_flat *),
                   void (*written)(void *arg, uint64_t gpa, uint64_t len), void *arg)
{
    s->committed = committed;
    s->written = written;
    s->hook_arg = arg;
}

void mem_set_dirty_hook(struct mem_space *s, void (*sync)(void *arg))
{
    s->sync = sync;
}

/* The first of n numbers that went with a region, or UINT64_MAX. */
static uint64_t take_gap(struct mem_space *s, uint64_t n)
{
    for (unsigned i = 0; i < s->n_gaps; i++) {
        struct mem_gap *g = &s->gaps[i];
        uint64_t first = g->first;

        if (g->n >= n) {
            *g = (struct mem_gap){ first + n, g->n - n };
            if (g->n == 0) {
                *g = s->gaps[--s->n_gaps];
            }
            return first;
        }
    }
    return UINT64_MAX;
}

/* A bit that is still set in a bitmap says of the next region that it was written to, which costs a copy at most. */
void mem_numbers_free(struct mem_space *s, const struct mem_region *r)
{
    struct mem_gap gap = { r->ram_page, r->host_size >> MEM_PAGE_BITS };

    if (!r->ram_numbered) {
        return;
    }
    for (unsigned i = 0; i < s->n_gaps;) {
        struct mem_gap g = s->gaps[i];

        if (g.first + g.n == gap.first || gap.first + gap.n == g.first) {
            gap = (struct mem_gap){ g.first < gap.first ? g.first : gap.first, g.n + gap.n };
            s->gaps[i] = s->gaps[--s->n_gaps];
            i = 0;
        } else {
            i++;
        }
    }
    s->gaps = xrealloc_n(s->gaps, s->n_gaps + 1, sizeof(s->gaps[0]));
    s->gaps[s->n_gaps++] = gap;
}

/* Gives the pages of a region their numbers, which it keeps for life, so that a bitmap's bits never change their meaning. */
static void number_region(void *arg, struct mem_region *r)
{
    struct mem_space *s = arg;

    if (r->kind == MEM_RAM && !r->ram_numbered) {
        r->ram_numbered = true;
        r->ram_page = take_gap(s, r->host_size >> MEM_PAGE_BITS);
        if (r->ram_page == UINT64_MAX) {
            r->ram_page = s->ram_pages;
            s->ram_pages += r->host_size >> MEM_PAGE_BITS;
        }
    }
}

static void number_pages(struct mem_space *s, struct paint *p)
{
    mem_each_ram(s, number_region,
                 s); /* also what the guest does not see now: it may come while a log is kept */
    for (unsigned i = 0; i < p->n; i++) {
        struct mem_range *r = &p->r[i];
        r->host = r->region->host ? r->region->host + r->offset : NULL;
        if (r->region->kind != MEM_RAM) {
            continue;
        }
        r->ram_page = r->region->ram_page + (r->offset >> MEM_PAGE_BITS);
    }
}

/* Makes the bitmap hold every page. The one it replaces is kept: a thread with the old view
 * may still mark there. */
static void grow_bitmap(struct mem_space *s)
{
    size_t n = (s->ram_pages + 63) / 64;
    if (s->bitmap.words && n <= s->bitmap.n_words) {
        return;
    }
    if (s->bitmap.words) {
        struct mem_bitmap *old = xnew(struct mem_bitmap);
        *old = s->bitmap;
        old->next = s->old_bitmaps;
        s->old_bitmaps = old;
    }
    s->bitmap.words = xalloc_n(n ? n : 1, sizeof(uint64_t));
    s->bitmap.n_words = n;
}

void mem_commit(struct mem_space *s)
{
    struct paint p = { NULL, 0, 0, false };
    paint_region(&p, s->root, 0, s->root->size, 0);
    paint_merge(&p);
    number_pages(s, &p);
    if (s->logging) {
        grow_bitmap(s);
    }
    for (unsigned i = 0; i < p.n; i++) {
        p.r[i].dirty = s->logging && p.r[i].kind == MEM_RAM ? s->bitmap.words : NULL;
    }
    struct mem_view *v = xnew(struct mem_view);
    v->ranges = p.r;
    v->flat.n = p.n;
    v->flat.r = p.r;
    struct mem_view *old = atomic_exchange(&s->view, v);
    old->next = s->retired;
    s->retired = old;
    if (s->committed) {
        s->committed(s->hook_arg, &v->flat);
    }
}

uint64_t mem_ram_pages(const struct mem_space *s)
{
    return s->ram_pages;
}

bool mem_region_numbered(const struct mem_region *r, uint64_t *first)
{
    *first = r->ram_page;
    return r->ram_numbered;
}

/* ---- dirty logging ---- */

static void sync_dirty(struct mem_space *s)
{
    if (s->logging && s->sync) {
        s->sync(s->hook_arg);
    }
}

/* The bitmap is taken from the view, as writers of ranges do: views live until nobody can be in them. */
void mem_region_dirty(struct mem_space *s, const struct mem_region *r, uint64_t offset,
                      uint64_t n)
{
    const struct mem_flat *f = mem_flat(s);
    _Atomic uint64_t *words = NULL;

    for (unsigned i = 0; i < f->n && !words; i++) {
        words = f->r[i].dirty;
    }
    if (!words || !r->ram_numbered || n == 0) {
        return;
    }
    uint64_t last = r->ram_page + ((offset + n - 1) >> MEM_PAGE_BITS);
    for (uint64_t page = r->ram_page + (offset >> MEM_PAGE_BITS); page <= last; page++) {
        atomic_fetch_or_explicit(&words[page / 64], 1ull << page % 64, memory_order_release);
    }
}

void mem_dirty_start(struct mem_space *s)
{
    if (s->logging) {
        sync_dirty(s);
        for (size_t i = 0; i < s->bitmap.n_words; i++) {
            atomic_store_explicit(&s->bitmap.words[i], 0, memory_order_relaxed);
        }
        return;
    }
    s->logging = true;
    mem_commit(s);
}

void mem_dirty_stop(struct mem_space *s)
{
    if (!s->logging) {
        return;
    }
    s->logging = false;
    struct mem_bitmap *old = xnew(struct mem_bitmap);
    *old = s->bitmap;
    old->next = s->old_bitmaps;
    s->old_bitmaps = old;
    s->bitmap = (struct mem_bitmap){ NULL, 0, NULL };
    mem_commit(s);
}

bool mem_dirty_logging(const struct mem_space *s)
{
    return s->logging;
}

void mem_dirty_take(struct mem_space *s, uint64_t *out)
{
    size_t n = (s->ram_pages + 63) / 64;
    sync_dirty(s);
    for (size_t i = 0; i < n; i++) {
        out[i] = s->logging && i < s->bitmap.n_words
                     ? atomic_exchange_explicit(&s->bitmap.words[i], 0, memory_order_acq_rel)
                     : 0;
    }
    for (struct mem_bitmap *b = s->old_bitmaps; s->logging && b; b = b->next) {
        for (size_t i = 0; i < b->n_words; i++) {
            out[i] |= atomic_exchange_explicit(&b->words[i], 0, memory_order_acq_rel);
        }
    }
}
