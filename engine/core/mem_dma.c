/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Access to guest memory by devices, loaders and page walks. Owns nothing; any thread.
 *
 * vCPU threads are stopped by the pause barrier and the main thread frees the views itself,
 * but an I/O thread may be inside an access when a view is retired: it is counted in, and
 * reclaiming waits for the count.
 */
#include "engine/core/mem_priv.h"
#include "engine/core/vcpu.h"

#include <endian.h>
#include <errno.h>
#include <string.h>

/* Begins an access: the view stays valid until view_put(). */
static const struct mem_flat *view_get(struct mem_space *s, bool *counted)
{
    *counted = vcpu_current() == NULL;
    if (*counted) {
        atomic_fetch_add(&s->readers, 1);
    }
    return &atomic_load(&s->view)->flat;
}

static void view_put(struct mem_space *s, bool counted)
{
    if (counted) {
        atomic_fetch_sub(&s->readers, 1);
    }
}

/* Is every byte of [gpa, gpa+n) in RAM (or in ROM, for reads)? */
static bool reaches(const struct mem_flat *f, uint64_t gpa, uint64_t n, bool write)
{
    if (n && gpa > UINT64_MAX - (n - 1)) {
        return false;
    }
    while (n) {
        const struct mem_range *r = mem_flat_find(f, gpa);
        if (!r || !r->host || (write && r->kind != MEM_RAM)) {
            return false;
        }
        uint64_t room = r->size - (gpa - r->base);
        uint64_t step = room < n ? room : n;
        gpa += step;
        n -= step;
    }
    return true;
}

bool mem_dma_reaches(struct mem_space *s, uint64_t gpa, uint64_t n, bool write)
{
    bool counted;
    bool ret = reaches(view_get(s, &counted), gpa, n, write);
    view_put(s, counted);
    return ret;
}

static void mark_written(struct mem_space *s, const struct mem_flat *f, uint64_t gpa,
                         uint64_t n)
{
    uint64_t pos = gpa, left = n;
    while (left) {
        const struct mem_range *r = mem_flat_find(f, pos);
        if (!r) {
            break;
        }
        uint64_t room = r->size - (pos - r->base);
        uint64_t step = room < left ? room : left;
        if (r->dirty) {
            uint64_t first = mem_range_page(r, pos), last = mem_range_page(r, pos + step - 1);
            for (uint64_t page = first; page <= last; page++) {
                atomic_fetch_or_explicit(&r->dirty[page / 64], 1ull << (page % 64),
                                         memory_order_release);
            }
        }
        pos += step;
        left -= step;
    }
    if (s->written && n) {
        s->written(s->hook_arg, gpa, n);
    }
}

void mem_written(struct mem_space *s, uint64_t gpa, uint64_t n)
{
    bool counted;
    const struct mem_flat *f = view_get(s, &counted);
    mark_written(s, f, gpa, n);
    view_put(s, counted);
}

/* Copies between a buffer and guest memory that reaches() accepted. */
static void copy(const struct mem_flat *f, uint64_t gpa, uint8_t *buf, size_t n, bool write)
{
    while (n) {
        const struct mem_range *r = mem_flat_find(f, gpa);
        uint64_t at = gpa - r->base, room = r->size - at;
        size_t step = room < n ? room : n;
        if (write) {
            memcpy(r->host + at, buf, step);
        } else {
            memcpy(buf, r->host + at, step);
        }
        gpa += step;
        buf += step;
        n -= step;
    }
}

int mem_dma_read(struct mem_space *s, uint64_t gpa, void *out, size_t n)
{
    bool counted;
    const struct mem_flat *f = view_get(s, &counted);
    int ret = -EFAULT;
    if (reaches(f, gpa, n, false)) {
        copy(f, gpa, out, n, false);
        ret = 0;
    }
    view_put(s, counted);
    return ret;
}

int mem_dma_write(struct mem_space *s, uint64_t gpa, const void *in, size_t n)
{
    bool counted;
    const struct mem_flat *f = view_get(s, &counted);
    int ret = -EFAULT;
    if (reaches(f, gpa, n, true)) {
        copy(f, gpa, (uint8_t *)in, n, true);
        mark_written(s, f, gpa, n);
        ret = 0;
    }
    view_put(s, counted);
    return ret;
}

uint64_t mem_discard(struct mem_space *s, uint64_t gpa, uint64_t n)
{
    bool counted;
    const struct mem_flat *f = view_get(s, &counted);
    uint64_t done = 0;

    n = gpa > UINT64_MAX - n ? UINT64_MAX - gpa : n;
    for (unsigned i = 0; i < f->n; i++) {
        const struct mem_range *r = &f->r[i];
        uint64_t from = gpa > r->base ? gpa : r->base;
        uint64_t to = gpa + n < r->base + r->size ? gpa + n : r->base + r->size;

        if (r->kind != MEM_RAM || from >= to || (r->base - r->offset) % MEM_PAGE_SIZE) {
            continue;
        }
        from = (from + MEM_PAGE_SIZE - 1) & ~(uint64_t)(MEM_PAGE_SIZE - 1);
        to &= ~(uint64_t)(MEM_PAGE_SIZE - 1);
        if (from < to && mem_region_discard(r->region, r->offset + (from - r->base), to - from)) {
            mark_written(s, f, from, to - from);
            done += to - from;
        }
    }
    view_put(s, counted);
    return done;
}

void *mem_dma_map(struct mem_space *s, uint64_t gpa, size_t n, bool write)
{
    bool counted;
    const struct mem_flat *f = view_get(s, &counted);
    const struct mem_range *r = mem_flat_find(f, gpa);
    void *p = NULL;
    if (r && r->host && (!write || r->kind == MEM_RAM) && n <= r->size - (gpa - r->base)) {
        p = r->host + (gpa - r->base);
    }
    view_put(s, counted);
    return p;
}

/* Host address of an aligned word in RAM (or in ROM, for loads), else NULL. */
static void *word_at(const struct mem_flat *f, uint64_t gpa, unsigned size, bool write)
{
    if (gpa & (size - 1)) {
        return NULL;
    }
    const struct mem_range *r = mem_flat_find(f, gpa);
    if (!r || !r->host || (write && r->kind != MEM_RAM) || size > r->size - (gpa - r->base)) {
        return NULL;
    }
    void *p = r->host + (gpa - r->base);
    return ((uintptr_t)p & (size - 1)) ? NULL : p;
}

bool mem_cas64(struct mem_space *s, uint64_t gpa, uint64_t old, uint64_t new_, bool *swapped)
{
    bool counted;
    const struct mem_flat *f = view_get(s, &counted);
    uint64_t *p = word_at(f, gpa, 8, true);
    if (p) {
        uint64_t expected = htole64(old);
        *swapped = __atomic_compare_exchange_n(p, &expected, htole64(new_), false,
                                               __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
        if (*swapped) {
            mark_written(s, f, gpa, 8);
        }
    }
    view_put(s, counted);
    return p != NULL;
}

bool mem_cas32(struct mem_space *s, uint64_t gpa, uint32_t old, uint32_t new_, bool *swapped)
{
    bool counted;
    const struct mem_flat *f = view_get(s, &counted);
    uint32_t *p = word_at(f, gpa, 4, true);
    if (p) {
        uint32_t expected = htole32(old);
        *swapped = __atomic_compare_exchange_n(p, &expected, htole32(new_), false,
                                               __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
        if (*swapped) {
            mark_written(s, f, gpa, 4);
        }
    }
    view_put(s, counted);
    return p != NULL;
}

bool mem_load64(struct mem_space *s, uint64_t gpa, uint64_t *out)
{
    bool counted;
    uint64_t *p = word_at(view_get(s, &counted), gpa, 8, false);
    if (p) {
        *out = le64toh(__atomic_load_n(p, __ATOMIC_ACQUIRE));
    }
    view_put(s, counted);
    return p != NULL;
}

bool mem_load32(struct mem_space *s, uint64_t gpa, uint32_t *out)
{
    bool counted;
    uint32_t *p = word_at(view_get(s, &counted), gpa, 4, false);
    if (p) {
        *out = le32toh(__atomic_load_n(p, __ATOMIC_ACQUIRE));
    }
    view_put(s, counted);
    return p != NULL;
}
