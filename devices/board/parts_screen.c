/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The screen of a board, and what a person types and points with. Main thread.
 */
#include "devices/board/parts.h"
#include "devices/registry.h"
#include "engine/core/vm.h"

static unsigned n_devices(const struct board_config *c)
{
    return c->screen.gpu == BOARD_GPU_NONE ? 0
                                           : 1 + (c->screen.input ? BOARD_SCREEN_INPUTS : 0);
}

unsigned parts_slot_screens(const struct board_config *c)
{
    return c->screen.gpu == BOARD_GPU_VIRTIO_MMIO ? n_devices(c) : 0;
}

static int new_gpu(struct board_parts *b, struct device **out, struct err *e)
{
    const struct board_screen *s = &b->cfg.screen;
    const struct device_class *cls = s->gpu == BOARD_GPU_BOCHS ? &bochs_display_class
                                     : s->gpu == BOARD_GPU_VGA ? &vga_class
                                                               : &virtio_gpu_class;
    int rc = dev_new(b->vm, cls, "gpu0", out, e);

    if (rc == 0) {
        rc = dev_set_ptr(*out, "display", s->display, e);
    }
    if (rc == 0 && cls == &bochs_display_class) {
        rc = dev_set_bool(*out, "mapped", b->map_screen, e);
    }
    if (rc == 0) {
        rc = dev_set_u64(*out, "width", s->width, e);
    }
    return rc != 0 ? rc : dev_set_u64(*out, "height", s->height, e);
}

static int new_input(struct board_parts *b, enum board_input kind, struct device **out,
                     struct err *e)
{
    static const char *const names[BOARD_N_INPUTS] = {
        [BOARD_KEYBOARD] = "keyboard", [BOARD_TABLET] = "tablet"
    };
    int rc = dev_new(b->vm, &virtio_input_class, names[kind], out, e);

    if (rc == 0) {
        rc = dev_set_str(*out, "kind", names[kind], e);
    }
    if (rc == 0) {
        b->input[kind] = *out;
    }
    return rc;
}

int parts_new_screen(struct board_parts *b, unsigned i, struct device **out, struct err *e)
{
    return i == 0 ? new_gpu(b, out, e) : new_input(b, (enum board_input)(i - 1), out, e);
}

int parts_add_screen(struct board_parts *b, struct err *e)
{
    unsigned n = parts_slot_screens(&b->cfg) ? 0 : n_devices(&b->cfg);
    int rc = 0;

    for (unsigned i = 0; i < n && rc == 0; i++) {
        struct device *d = NULL;

        rc = parts_new_screen(b, i, &d, e);
        if (rc != 0) {
            dev_free(d);
        } else if (i == 0 && (b->cfg.screen.gpu == BOARD_GPU_BOCHS ||
                              b->cfg.screen.gpu == BOARD_GPU_VGA)) {
            rc = parts_plug(b, d, e);
        } else {
            rc = parts_add_virtio(b, d, e);
        }
    }
    return rc;
}
