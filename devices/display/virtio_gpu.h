/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside of virtio-gpu: what its files share. virtio_gpu.c has the device and its queues, virtio_gpu_res.c the resources.
 */
#ifndef VMD_DEVICES_DISPLAY_VIRTIO_GPU_H
#define VMD_DEVICES_DISPLAY_VIRTIO_GPU_H

#include "devices/display/display.h"
#include "devices/virtio/virtio.h"
#include "engine/base/buf.h"

#define GPU_MAX_RESOURCES 1024
#define GPU_MAX_ENTRIES 16384 /* pieces of backing memory of a resource */
#define GPU_SAVED_MAX (1u << 31)

/* Answers (virtio 1.2 §5.7.6.7). */
enum {
    GPU_OK = 0x1100,
    GPU_OK_DISPLAY_INFO = 0x1101,
    GPU_OK_EDID = 0x1104,
    GPU_ERR_UNSPEC = 0x1200,
    GPU_ERR_MEMORY = 0x1201,
    GPU_ERR_SCANOUT = 0x1202,
    GPU_ERR_RESOURCE = 0x1203,
    GPU_ERR_PARAMETER = 0x1205,
};

struct gpu_rect { /* on the wire, little-endian */
    uint32_t x, y, w, h;
};
struct gpu_entry { /* likewise */
    uint64_t addr;
    uint32_t len, padding;
};

struct gpu_res {
    struct list node;
    uint32_t id, format, width, height;
    uint32_t *pixel;         /* as the guest has them, 4 bytes each */
    struct gpu_entry *entry; /* host byte order */
    uint32_t n_entries;
    uint64_t backing; /* bytes of all entries */
};

struct vgpu {
    struct virtio v;
    struct display *display;
    uint64_t first_width, first_height, max_memory; /* properties */

    struct list resources;
    uint32_t n_resources;
    uint64_t memory;                  /* bytes of all pixels */
    uint32_t want_width, want_height; /* of the monitor */
    uint32_t events;
    /* the one scanout: what is shown of which resource; resource 0: nothing */
    uint32_t shown;
    struct display_rect shown_rect;
    struct buf saved; /* the resources, while the VM stands still to be saved */
};

/* Each returns an answer. Main loop, transport's lock. */
uint32_t gpu_res_create(struct vgpu *g, uint32_t id, uint32_t format, uint32_t width,
                        uint32_t height);
struct gpu_res *gpu_res_find(struct vgpu *g, uint32_t id);
void gpu_res_free(struct vgpu *g, struct gpu_res *r);
void gpu_res_free_all(struct vgpu *g);
/* n entries lie in the request behind `skip` bytes. */
uint32_t gpu_res_attach(struct vgpu *g, struct gpu_res *r, const struct virtio_elem *el,
                        uint64_t skip, uint32_t n);
void gpu_res_detach(struct gpu_res *r);
/* Guest memory to pixels. */
uint32_t gpu_res_transfer(struct vgpu *g, struct gpu_res *r, const struct display_rect *rect,
                          uint64_t offset);
/* Copies what the scanout shows of `rect` of r to the display; *drawn gets where. False: nothing. */
bool gpu_res_show(struct vgpu *g, const struct gpu_res *r, const struct display_rect *rect,
                  struct display_rect *drawn);
/* 0xAARRGGBB of a pixel. */
uint32_t gpu_colour(uint32_t format, uint32_t pixel);

void gpu_res_save(struct vgpu *g);
int gpu_res_load(struct vgpu *g, struct err *e);

#endif
