/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio-gpu, 2D (virtio 1.2 §5.7): one scanout, EDID, a cursor. Owns its resources; the display is its builder's. Queue 0
 * carries commands, queue 1 the cursor. Main loop, transport's lock.
 */
#include "devices/display/virtio_gpu.h"

#include "devices/display/edid.h"
#include "devices/registry.h"
#include "engine/base/mem.h"
#include "engine/core/vm.h"

#include <endian.h>
#include <errno.h>
#include <string.h>

#define QUEUE_SIZE 256
#define CURSOR_QUEUE 16
#define TURN 64 /* commands before the loop turns */
#define SCANOUTS 1
#define MAX_SCANOUTS 16 /* in an answer */
#define F_EDID (1ull << 1)
#define FLAG_FENCE 1u
#define EVENT_DISPLAY 1u

enum { Q_CONTROL = 0, Q_CURSOR = 1 };
enum {
    CMD_GET_DISPLAY_INFO = 0x0100,
    CMD_RESOURCE_CREATE_2D = 0x0101,
    CMD_RESOURCE_UNREF = 0x0102,
    CMD_SET_SCANOUT = 0x0103,
    CMD_RESOURCE_FLUSH = 0x0104,
    CMD_TRANSFER_TO_HOST_2D = 0x0105,
    CMD_ATTACH_BACKING = 0x0106,
    CMD_DETACH_BACKING = 0x0107,
    CMD_GET_EDID = 0x010a,
    CMD_UPDATE_CURSOR = 0x0300,
    CMD_MOVE_CURSOR = 0x0301,
};

/* On the wire, little-endian. */
struct gpu_head {
    uint32_t type, flags;
    uint64_t fence;
    uint32_t context, ring;
};
struct gpu_config {
    uint32_t events_read, events_clear, scanouts, capsets;
};
struct gpu_mode {
    struct gpu_rect rect;
    uint32_t enabled, flags;
};
struct gpu_edid {
    uint32_t size, padding;
    uint8_t data[1024];
};
struct gpu_update_cursor {
    uint32_t scanout, x, y, padding, resource, hot_x, hot_y, padding2;
};

static struct vgpu *gpu_of(struct virtio *v)
{
    return (struct vgpu *)v;
}

/* The n numbers behind the head of a command. */
static bool words(const struct virtio_elem *el, uint32_t *out, unsigned n)
{
    bool ok = virtio_get(el, sizeof(struct gpu_head), out, n * 4) == n * 4;

    for (unsigned i = 0; i < n; i++) {
        out[i] = le32toh(out[i]);
    }
    return ok;
}

static struct display_rect rect_of(const uint32_t *w)
{
    return (struct display_rect){ w[0], w[1], w[2], w[3] };
}

/* --- the monitor ------------------------------------------------------------------------------ */

static uint32_t put_info(struct vgpu *g, struct virtio_elem *el, uint64_t *written)
{
    struct gpu_mode mode[MAX_SCANOUTS] = { 0 };

    mode[0].rect.w = htole32(g->want_width);
    mode[0].rect.h = htole32(g->want_height);
    mode[0].enabled = htole32(1);
    *written = virtio_put(el, sizeof(struct gpu_head), mode, sizeof(mode));
    return GPU_OK_DISPLAY_INFO;
}

static uint32_t put_edid(struct vgpu *g, struct virtio_elem *el, uint64_t *written)
{
    struct gpu_edid out = { .size = htole32(EDID_SIZE) };
    uint32_t scanout;

    if (!(g->v.features & F_EDID)) {
        return GPU_ERR_UNSPEC;
    }
    if (!words(el, &scanout, 1)) {
        return GPU_ERR_PARAMETER;
    }
    if (scanout >= SCANOUTS) {
        return GPU_ERR_SCANOUT;
    }
    edid_fill(out.data, g->want_width, g->want_height);
    *written = virtio_put(el, sizeof(struct gpu_head), &out, sizeof(out));
    return GPU_OK_EDID;
}

static void gpu_ask_size(void *arg, uint32_t width, uint32_t height)
{
    struct vgpu *g = arg;

    bus_lock(g->v.lock);
    if (width != g->want_width || height != g->want_height) {
        g->want_width = width;
        g->want_height = height;
        g->events |= EVENT_DISPLAY;
        virtio_config_changed(&g->v);
    }
    bus_unlock(g->v.lock);
}

/* --- what is shown ---------------------------------------------------------------------------- */

static void show_nothing(struct vgpu *g)
{
    struct display_rect all = { 0, 0, display_width(g->display), display_height(g->display) };

    g->shown = 0;
    memset(display_draw(g->display), 0, (size_t)all.w * all.h * 4);
    display_damage(g->display, &all);
}

static void show(struct vgpu *g, const struct gpu_res *r, const struct display_rect *rect)
{
    struct display_rect drawn;

    if (gpu_res_show(g, r, rect, &drawn)) {
        display_damage(g->display, &drawn);
    }
}

static uint32_t set_scanout(struct vgpu *g, const struct virtio_elem *el)
{
    uint32_t w[6];
    struct gpu_res *r;

    if (!words(el, w, 6)) {
        return GPU_ERR_PARAMETER;
    }
    if (w[4] >= SCANOUTS) {
        return GPU_ERR_SCANOUT;
    }
    if (w[5] == 0) {
        show_nothing(g);
        return GPU_OK;
    }
    r = gpu_res_find(g, w[5]);
    if (!r) {
        return GPU_ERR_RESOURCE;
    }
    if (!display_size_ok(w[2], w[3]) || w[2] > r->width || w[3] > r->height ||
        w[0] > r->width - w[2] || w[1] > r->height - w[3]) {
        return GPU_ERR_PARAMETER;
    }
    if (!display_resize(g->display, w[2], w[3])) {
        return GPU_ERR_MEMORY;
    }
    g->shown = r->id;
    g->shown_rect = rect_of(w);
    show(g, r, &g->shown_rect);
    return GPU_OK;
}

static uint32_t flush(struct vgpu *g, const struct virtio_elem *el)
{
    uint32_t w[5];
    struct gpu_res *r;

    if (!words(el, w, 5)) {
        return GPU_ERR_PARAMETER;
    }
    r = gpu_res_find(g, w[4]);
    if (!r) {
        return GPU_ERR_RESOURCE;
    }
    struct display_rect rect = rect_of(w);
    if (w[2] > r->width || w[3] > r->height || w[0] > r->width - w[2] ||
        w[1] > r->height - w[3]) {
        return GPU_ERR_PARAMETER;
    }
    if (g->shown == r->id) {
        show(g, r, &rect);
    }
    return GPU_OK;
}

/* --- resources -------------------------------------------------------------------------------- */

static uint32_t create(struct vgpu *g, const struct virtio_elem *el)
{
    uint32_t w[4];

    return words(el, w, 4) ? gpu_res_create(g, w[0], w[1], w[2], w[3]) : GPU_ERR_PARAMETER;
}

static uint32_t unref(struct vgpu *g, const struct virtio_elem *el)
{
    uint32_t id;
    struct gpu_res *r = words(el, &id, 1) ? gpu_res_find(g, id) : NULL;

    if (!r) {
        return GPU_ERR_RESOURCE;
    }
    if (g->shown == id) {
        show_nothing(g);
    }
    gpu_res_free(g, r);
    return GPU_OK;
}

static uint32_t transfer(struct vgpu *g, const struct virtio_elem *el)
{
    uint32_t w[7];
    struct gpu_res *r = words(el, w, 7) ? gpu_res_find(g, w[6]) : NULL;
    struct display_rect rect;

    if (!r) {
        return GPU_ERR_RESOURCE;
    }
    rect = rect_of(w);
    return gpu_res_transfer(g, r, &rect, w[4] | (uint64_t)w[5] << 32);
}

static uint32_t backing(struct vgpu *g, const struct virtio_elem *el, bool attach)
{
    uint32_t w[2] = { 0 };
    struct gpu_res *r = words(el, w, attach ? 2 : 1) ? gpu_res_find(g, w[0]) : NULL;

    if (!r) {
        return GPU_ERR_RESOURCE;
    }
    if (attach) {
        return gpu_res_attach(g, r, el, sizeof(struct gpu_head) + sizeof(w), w[1]);
    }
    if (!r->entry) {
        return GPU_ERR_UNSPEC;
    }
    gpu_res_detach(r);
    return GPU_OK;
}

/* --- cursor ----------------------------------------------------------------------------------- */

static void update_cursor(struct vgpu *g, const struct gpu_update_cursor *u)
{
    struct display_cursor *c = display_draw_cursor(g->display);
    uint32_t id = le32toh(u->resource);
    struct gpu_res *r = id ? gpu_res_find(g, id) : NULL;

    c->visible = r && r->width == DISPLAY_CURSOR_SIDE && r->height == DISPLAY_CURSOR_SIDE;
    if (c->visible) {
        c->w = c->h = DISPLAY_CURSOR_SIDE;
        c->hot_x = le32toh(u->hot_x) < c->w ? le32toh(u->hot_x) : 0;
        c->hot_y = le32toh(u->hot_y) < c->h ? le32toh(u->hot_y) : 0;
        for (unsigned i = 0; i < DISPLAY_CURSOR_SIDE * DISPLAY_CURSOR_SIDE; i++) {
            c->pixel[i] = gpu_colour(r->format, r->pixel[i]);
        }
    }
    display_cursor_changed(g->display);
}

static uint32_t cursor(struct vgpu *g, const struct virtio_elem *el, bool update)
{
    struct display_cursor *c = display_draw_cursor(g->display);
    struct gpu_update_cursor u = { 0 };

    if (virtio_get(el, sizeof(struct gpu_head), &u, sizeof(u)) < 16) {
        return GPU_ERR_PARAMETER;
    }
    if (le32toh(u.scanout) >= SCANOUTS) {
        return GPU_ERR_SCANOUT;
    }
    c->x = le32toh(u.x);
    c->y = le32toh(u.y);
    if (update) {
        update_cursor(g, &u);
    }
    return GPU_OK;
}

/* --- queues ----------------------------------------------------------------------------------- */

static uint32_t command(struct vgpu *g, struct virtio_elem *el, uint32_t type,
                        uint64_t *written)
{
    switch (type) {
    case CMD_GET_DISPLAY_INFO:
        return put_info(g, el, written);
    case CMD_RESOURCE_CREATE_2D:
        return create(g, el);
    case CMD_RESOURCE_UNREF:
        return unref(g, el);
    case CMD_SET_SCANOUT:
        return set_scanout(g, el);
    case CMD_RESOURCE_FLUSH:
        return flush(g, el);
    case CMD_TRANSFER_TO_HOST_2D:
        return transfer(g, el);
    case CMD_ATTACH_BACKING:
    case CMD_DETACH_BACKING:
        return backing(g, el, type == CMD_ATTACH_BACKING);
    case CMD_GET_EDID:
        return put_edid(g, el, written);
    case CMD_UPDATE_CURSOR:
    case CMD_MOVE_CURSOR:
        return cursor(g, el, type == CMD_UPDATE_CURSOR);
    default:
        return GPU_ERR_UNSPEC;
    }
}

static uint64_t answer(struct vgpu *g, struct virtio_elem *el)
{
    struct gpu_head in = { 0 }, out = { 0 };
    uint64_t written = 0;

    if (virtio_get(el, 0, &in, sizeof(in)) != sizeof(in)) {
        out.type = htole32(GPU_ERR_UNSPEC);
    } else {
        out.type = htole32(command(g, el, le32toh(in.type), &written));
        if (le32toh(in.flags) & FLAG_FENCE) { /* all is done by now */
            out.flags = htole32(FLAG_FENCE);
            out.fence = in.fence;
            out.context = in.context;
        }
    }
    return written + virtio_put(el, 0, &out, sizeof(out));
}

static void gpu_serve(struct virtio *v, unsigned q)
{
    for (unsigned n = 0; n < TURN;) {
        struct virtio_elem *el = virtq_pop(v, q);

        if (el) {
            n++;
            virtq_push(v, q, el, answer(gpu_of(v), el));
        } else if (!virtq_rearm(v, q)) {
            virtq_signal(v, q);
            return;
        }
    }
    virtq_signal(v, q);
    virtio_ring(v, q);
}

static void gpu_config(struct virtio *v, uint8_t *out)
{
    const struct gpu_config c = { .events_read = htole32(gpu_of(v)->events),
                                  .scanouts = htole32(SCANOUTS) };

    memcpy(out, &c, sizeof(c));
}

static void gpu_config_written(struct virtio *v, uint32_t offset, uint64_t value, unsigned size)
{
    if (offset == offsetof(struct gpu_config, events_clear) && size == 4) {
        gpu_of(v)->events &= ~(uint32_t)value;
    }
}

/* By a vCPU: the display, which is the main loop's, keeps the last picture until the next driver shows one. */
static void gpu_reset(struct virtio *v)
{
    struct vgpu *g = gpu_of(v);

    gpu_res_free_all(g);
    g->shown = 0;
    g->events = 0;
}

static const struct virtio_ops gpu_ops = {
    .id = 16,
    .n_queues = 2,
    .queue_max = { QUEUE_SIZE, CURSOR_QUEUE },
    .config_size = sizeof(struct gpu_config),
    .serve = gpu_serve,
    .config = gpu_config,
    .config_written = gpu_config_written,
    .reset = gpu_reset,
};

/* --- class ------------------------------------------------------------------------------------ */

static int gpu_realize(struct device *d, struct err *e)
{
    struct vgpu *g = (struct vgpu *)d;
    const struct display_source source = { .ask_size = gpu_ask_size, .arg = g };

    if (!display_size_ok((uint32_t)g->first_width, (uint32_t)g->first_height)) {
        return err_set(e, -EINVAL, "%s: %u by %u is no size of a screen", d->id,
                       (unsigned)g->first_width, (unsigned)g->first_height);
    }
    list_init(&g->resources);
    g->want_width = (uint32_t)g->first_width;
    g->want_height = (uint32_t)g->first_height;
    virtio_setup(&g->v, &gpu_ops, 0, F_EDID);
    display_set_source(g->display, &source);
    return 0;
}

static bool gpu_quiesce(struct device *d)
{
    gpu_res_save((struct vgpu *)d);
    return true;
}

static void gpu_resumed(struct device *d)
{
    buf_done(&((struct vgpu *)d)->saved);
    virtio_resumed(d);
}

static void gpu_destroy(struct device *d)
{
    struct vgpu *g = (struct vgpu *)d;

    if (g->resources.next) {
        gpu_res_free_all(g);
        display_set_source(g->display, NULL);
    }
    buf_done(&g->saved);
    virtio_done(&g->v);
}

static int gpu_loaded(void *obj, struct err *e)
{
    struct vgpu *g = obj;
    int rc = gpu_res_load(g, e);
    struct gpu_res *r = rc == 0 && g->shown ? gpu_res_find(g, g->shown) : NULL;
    const struct display_rect *s = &g->shown_rect;

    if (rc != 0) {
        return rc;
    }
    if (!display_size_ok(g->want_width, g->want_height) ||
        (g->shown && (!r || !display_size_ok(s->w, s->h) || s->w > r->width ||
                      s->h > r->height || s->x > r->width - s->w || s->y > r->height - s->h))) {
        return err_set(e, -EINVAL, "%s: what is shown lies outside of its resource",
                       g->v.dev.id);
    }
    if (r && display_resize(g->display, s->w, s->h)) {
        show(g, r, s);
    }
    return 0;
}

static const struct st_field rect_fields[] = {
    ST_FIELD(struct display_rect, x, ST_U32, 1, "left edge"),
    ST_FIELD(struct display_rect, y, ST_U32, 1, "upper edge"),
    ST_FIELD(struct display_rect, w, ST_U32, 1, "width"),
    ST_FIELD(struct display_rect, h, ST_U32, 1, "height"),
    ST_END,
};
static const struct st_table rect_state = {
    .name = "rectangle",
    .version = 1,
    .fields = rect_fields,
};
static const struct st_field gpu_fields[] = {
    VIRTIO_ST_FIELD,
    ST_FIELD(struct vgpu, want_width, ST_U32, 1, "width of the monitor"),
    ST_FIELD(struct vgpu, want_height, ST_U32, 1, "height of the monitor"),
    ST_FIELD(struct vgpu, events, ST_U32, 1, "events that the driver has not cleared"),
    ST_FIELD(struct vgpu, shown, ST_U32, 1, "resource that is shown, 0: none"),
    { .name = "shown_rect",
      .kind = ST_STRUCT,
      .offset = offsetof(struct vgpu, shown_rect),
      .count = 1,
      .stride = sizeof(struct display_rect),
      .since = 1,
      .table = &rect_state,
      .doc = "what of it" },
    ST_ARRAY(struct vgpu, saved, ST_BUF, GPU_SAVED_MAX, 1,
             "resources: id, format, width, height, entries, each entry, the pixels"),
    ST_END,
};
static const struct st_table gpu_state = {
    .name = "virtio-gpu",
    .version = 1,
    .fields = gpu_fields,
    .loaded = gpu_loaded,
};

static const struct dev_prop gpu_props[] = {
    { .name = "display",
      .kind = PROP_PTR,
      .offset = offsetof(struct vgpu, display),
      .required = true,
      .doc = "screen that it draws" },
    { .name = "width",
      .kind = PROP_U64,
      .offset = offsetof(struct vgpu, first_width),
      .def = 1280,
      .min = DISPLAY_MIN_WIDTH,
      .max = DISPLAY_MAX_SIDE,
      .doc = "width of the monitor at first" },
    { .name = "height",
      .kind = PROP_U64,
      .offset = offsetof(struct vgpu, first_height),
      .def = 800,
      .min = DISPLAY_MIN_HEIGHT,
      .max = DISPLAY_MAX_SIDE,
      .doc = "height of the monitor at first" },
    { .name = "max-memory",
      .kind = PROP_U64,
      .offset = offsetof(struct vgpu, max_memory),
      .def = 256u << 20,
      .min = 1 << 20,
      .max = 1u << 30,
      .doc = "bytes that the pictures of the guest may take of the host" },
    { .name = NULL },
};

const struct device_class virtio_gpu_class = {
    .name = "virtio-gpu",
    .doc = "virtio display, 2D",
    .size = sizeof(struct vgpu),
    .props = gpu_props,
    .state = &gpu_state,
    .realize = gpu_realize,
    .quiesce = gpu_quiesce,
    .resumed = gpu_resumed,
    .destroy = gpu_destroy,
};
