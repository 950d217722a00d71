/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Resources of virtio-gpu: pictures that the guest makes, backs with memory of its own and brings over piece by piece.
 * Their number, their pixels and the pieces of their backing are bounded. Main loop, transport's lock.
 */
#include "devices/display/virtio_gpu.h"
#include "engine/base/mem.h"
#include "engine/core/vm.h"

#include <endian.h>
#include <errno.h>
#include <string.h>

/* --- formats: where in a pixel, read as a little-endian number, its colours are ------------------ */

static const struct gpu_format {
    uint32_t id;
    uint8_t r, g, b;
    int8_t a; /* shifts; a -1: none */
} formats[] = {
    { 1, 16, 8, 0, 24 },   /* B8G8R8A8 */
    { 2, 16, 8, 0, -1 },   /* B8G8R8X8 */
    { 3, 8, 16, 24, 0 },   /* A8R8G8B8 */
    { 4, 8, 16, 24, -1 },  /* X8R8G8B8 */
    { 67, 0, 8, 16, 24 },  /* R8G8B8A8 */
    { 68, 24, 16, 8, -1 }, /* X8B8G8R8 */
    { 121, 24, 16, 8, 0 }, /* A8B8G8R8 */
    { 134, 0, 8, 16, -1 }, /* R8G8B8X8 */
};

static const struct gpu_format *format_of(uint32_t id)
{
    for (unsigned i = 0; i < ARRAY_LEN(formats); i++) {
        if (formats[i].id == id) {
            return &formats[i];
        }
    }
    return NULL;
}

static uint32_t colour(const struct gpu_format *f, uint32_t pixel)
{
    uint32_t p = le32toh(pixel);

    return (f->a < 0 ? 255u : (p >> f->a & 255)) << 24 | (p >> f->r & 255) << 16 |
           (p >> f->g & 255) << 8 | (p >> f->b & 255);
}

uint32_t gpu_colour(uint32_t format, uint32_t pixel)
{
    const struct gpu_format *f = format_of(format);

    return f ? colour(f, pixel) : 0;
}

/* --- life ------------------------------------------------------------------------------------- */

struct gpu_res *gpu_res_find(struct vgpu *g, uint32_t id)
{
    list_for_each (it, &g->resources) {
        struct gpu_res *r = list_entry(it, struct gpu_res, node);

        if (r->id == id) {
            return r;
        }
    }
    return NULL;
}

static uint64_t res_bytes(const struct gpu_res *r)
{
    return (uint64_t)r->width * r->height * 4;
}

uint32_t gpu_res_create(struct vgpu *g, uint32_t id, uint32_t format, uint32_t width,
                        uint32_t height)
{
    uint64_t bytes = (uint64_t)width * height * 4;
    struct gpu_res *r;

    if (id == 0 || gpu_res_find(g, id)) {
        return GPU_ERR_RESOURCE;
    }
    if (!format_of(format) || !display_size_ok(width, height)) {
        return GPU_ERR_PARAMETER;
    }
    if (g->n_resources >= GPU_MAX_RESOURCES || g->memory + bytes > g->max_memory) {
        return GPU_ERR_MEMORY;
    }
    r = xnew(struct gpu_res);
    r->pixel = try_alloc_n((size_t)width * height, 4);
    if (!r->pixel) {
        free(r);
        return GPU_ERR_MEMORY;
    }
    r->id = id;
    r->format = format;
    r->width = width;
    r->height = height;
    list_append(&g->resources, &r->node);
    g->n_resources++;
    g->memory += bytes;
    return GPU_OK;
}

void gpu_res_detach(struct gpu_res *r)
{
    free(r->entry);
    r->entry = NULL;
    r->n_entries = 0;
    r->backing = 0;
}

void gpu_res_free(struct vgpu *g, struct gpu_res *r)
{
    list_remove(&r->node);
    g->n_resources--;
    g->memory -= res_bytes(r);
    gpu_res_detach(r);
    free(r->pixel);
    free(r);
}

void gpu_res_free_all(struct vgpu *g)
{
    list_for_each_safe (it, &g->resources) {
        gpu_res_free(g, list_entry(it, struct gpu_res, node));
    }
}

uint32_t gpu_res_attach(struct vgpu *g, struct gpu_res *r, const struct virtio_elem *el,
                        uint64_t skip, uint32_t n)
{
    struct gpu_entry *entry;
    uint64_t bytes = 0;

    (void)g;
    if (r->entry || n > GPU_MAX_ENTRIES || n == 0) {
        return n > GPU_MAX_ENTRIES ? GPU_ERR_MEMORY : GPU_ERR_UNSPEC;
    }
    entry = xnew_n(struct gpu_entry, n);
    if (virtio_get(el, skip, entry, n * sizeof(*entry)) != n * sizeof(*entry)) {
        free(entry);
        return GPU_ERR_PARAMETER;
    }
    for (uint32_t i = 0; i < n; i++) {
        entry[i].addr = le64toh(entry[i].addr);
        entry[i].len = le32toh(entry[i].len);
        bytes += entry[i].len;
    }
    r->entry = entry;
    r->n_entries = n;
    r->backing = bytes;
    return GPU_OK;
}

/* --- transfer --------------------------------------------------------------------------------- */

/* Where in the backing the last read ended, so that rows in order cost one walk in all. */
struct walk {
    uint32_t i;
    uint64_t at; /* offset of entry i in the backing */
};

/* Copies n bytes of the backing; false when they are not all there, or no memory of the guest's. */
static bool backing_read(struct vgpu *g, const struct gpu_res *r, struct walk *w, uint64_t from,
                         void *to, uint64_t n)
{
    uint8_t *out = to;

    if (from < w->at) {
        *w = (struct walk){ 0, 0 };
    }
    while (n > 0) {
        while (w->i < r->n_entries && from >= w->at + r->entry[w->i].len) {
            w->at += r->entry[w->i++].len;
        }
        if (w->i == r->n_entries) {
            return false;
        }
        const struct gpu_entry *en = &r->entry[w->i];
        uint64_t in = from - w->at, some = en->len - in < n ? en->len - in : n;

        if (dma_read(&g->v.dev, en->addr + in, out, (size_t)some) != 0) {
            return false;
        }
        out += some;
        from += some;
        n -= some;
    }
    return true;
}

uint32_t gpu_res_transfer(struct vgpu *g, struct gpu_res *r, const struct display_rect *rect,
                          uint64_t offset)
{
    struct walk w = { 0, 0 };
    uint64_t stride = (uint64_t)r->width * 4;

    if (rect->w > r->width || rect->h > r->height || rect->x > r->width - rect->w ||
        rect->y > r->height - rect->h || offset > r->backing) {
        return GPU_ERR_PARAMETER;
    }
    if (!r->entry) {
        return GPU_ERR_UNSPEC;
    }
    if (rect->x == 0 && rect->w == r->width) { /* the rows lie behind one another */
        return backing_read(g, r, &w, offset, r->pixel + (size_t)rect->y * r->width,
                            stride * rect->h)
                   ? GPU_OK
                   : GPU_ERR_UNSPEC;
    }
    for (uint32_t y = 0; y < rect->h; y++) {
        if (!backing_read(g, r, &w, offset + y * stride,
                          r->pixel + (size_t)(rect->y + y) * r->width + rect->x,
                          (uint64_t)rect->w * 4)) {
            return GPU_ERR_UNSPEC;
        }
    }
    return GPU_OK;
}

bool gpu_res_show(struct vgpu *g, const struct gpu_res *r, const struct display_rect *rect,
                  struct display_rect *drawn)
{
    const struct gpu_format *f = format_of(r->format);
    const struct display_rect *s = &g->shown_rect;
    uint32_t x0 = rect->x > s->x ? rect->x : s->x, y0 = rect->y > s->y ? rect->y : s->y;
    uint64_t x1 = (uint64_t)rect->x + rect->w, y1 = (uint64_t)rect->y + rect->h;
    uint32_t width = display_width(g->display);
    uint32_t *to = display_draw(g->display);

    x1 = x1 < (uint64_t)s->x + s->w ? x1 : (uint64_t)s->x + s->w;
    y1 = y1 < (uint64_t)s->y + s->h ? y1 : (uint64_t)s->y + s->h;
    if (x0 >= x1 || y0 >= y1 || s->w > width || s->h > display_height(g->display)) {
        return false;
    }
    for (uint64_t y = y0; y < y1; y++) {
        const uint32_t *in = r->pixel + y * r->width;
        uint32_t *out = to + (y - s->y) * width;

        for (uint64_t x = x0; x < x1; x++) {
            out[x - s->x] = colour(f, in[x]) & 0xffffff;
        }
    }
    *drawn = (struct display_rect){ x0 - s->x, y0 - s->y, (uint32_t)(x1 - x0),
                                    (uint32_t)(y1 - y0) };
    return true;
}

/* --- state: the resources one behind the other, little-endian ------------------------------------- */

static void save32(struct buf *b, uint32_t v)
{
    v = htole32(v);
    buf_add(b, &v, sizeof(v));
}

void gpu_res_save(struct vgpu *g)
{
    buf_done(&g->saved);
    list_for_each (it, &g->resources) {
        const struct gpu_res *r = list_entry(it, struct gpu_res, node);

        save32(&g->saved, r->id);
        save32(&g->saved, r->format);
        save32(&g->saved, r->width);
        save32(&g->saved, r->height);
        save32(&g->saved, r->n_entries);
        for (uint32_t i = 0; i < r->n_entries; i++) {
            save32(&g->saved, (uint32_t)r->entry[i].addr);
            save32(&g->saved, (uint32_t)(r->entry[i].addr >> 32));
            save32(&g->saved, r->entry[i].len);
        }
        buf_add(&g->saved, r->pixel, (size_t)res_bytes(r));
    }
}

struct reader {
    const uint8_t *p;
    size_t left;
    bool bad;
};

static uint32_t load32(struct reader *in)
{
    uint32_t v = 0;

    if (in->left < sizeof(v)) {
        in->bad = true;
        return 0;
    }
    memcpy(&v, in->p, sizeof(v));
    in->p += sizeof(v);
    in->left -= sizeof(v);
    return le32toh(v);
}

static void load_one(struct vgpu *g, struct reader *in)
{
    uint32_t id = load32(in), format = load32(in), width = load32(in), height = load32(in),
             n = load32(in);
    struct gpu_res *r = NULL;

    if (in->bad || n > GPU_MAX_ENTRIES ||
        gpu_res_create(g, id, format, width, height) != GPU_OK) {
        in->bad = true;
        return;
    }
    r = gpu_res_find(g, id);
    r->entry = n ? xnew_n(struct gpu_entry, n) : NULL;
    r->n_entries = n;
    for (uint32_t i = 0; i < n; i++) {
        uint64_t low = load32(in), high = load32(in);

        r->entry[i] = (struct gpu_entry){ .addr = low | high << 32, .len = load32(in) };
        r->backing += r->entry[i].len;
    }
    if (in->left < res_bytes(r)) {
        in->bad = true;
        return;
    }
    memcpy(r->pixel, in->p, (size_t)res_bytes(r));
    in->p += res_bytes(r);
    in->left -= (size_t)res_bytes(r);
}

int gpu_res_load(struct vgpu *g, struct err *e)
{
    struct reader in = { (const uint8_t *)g->saved.data, g->saved.len, false };

    gpu_res_free_all(g);
    while (in.left > 0 && !in.bad) {
        load_one(g, &in);
    }
    return in.bad ? err_set(e, -EINVAL, "%s: the saved resources are damaged", g->v.dev.id) : 0;
}
