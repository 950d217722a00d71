/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Screens and what is typed: virtio-gpu driven command by command, bochs-display by its registers, pictures as files, keyboard and
 * tablet of virtio-input, the table of keys.
 */
#include "devices/display/display.h"
#include "devices/display/edid.h"
#include "devices/display/png.h"
#include "devices/display/vga.h"
#include "devices/display/virtio_gpu.h"
#include "devices/input/keys.h"
#include "devices/input/virtio_input.h"
#include "devices/bus/pci.h"
#include "devices/registry.h"
#include "engine/base/mem.h"
#include "tests/device/pci_rig.h"
#include "tests/device/rig.h"
#include "tests/lib/testing.h"

#include <errno.h>
#include <zlib.h>

#define AT 0x10001000ull
#define NUM 8
#define DESC(q) (RIG_RAM + 0x10000u * (q))
#define AVAIL(q) (DESC(q) + 0x4000)
#define USED(q) (DESC(q) + 0x8000)
#define REQUEST (RIG_RAM + 0x40000)
#define ANSWER (RIG_RAM + 0x50000)
#define PIXELS (RIG_RAM + 0x60000)

enum { R_DRV_FEAT = 0x20, R_DRV_SEL = 0x24, R_QSEL = 0x30, R_QNUM = 0x38, R_QREADY = 0x44 };
enum { R_NOTIFY = 0x50, R_STATUS = 0x70, R_DESC = 0x80, R_DRIVER = 0x90, R_DEVICE = 0xa0 };
enum { R_CONFIG = 0x100 };
enum { NEXT = 1, WRITE = 2, EDID_FEATURE = 2 };

struct desc {
    uint64_t addr;
    uint32_t len;
    uint16_t flags, next;
};

struct gpu {
    struct rig *r;
    struct device *slot, *dev;
    struct rig_line line;
    struct display *display;
    struct display_viewer viewer;
    struct display_rect damage; /* the last one */
    unsigned damages, resizes, cursors;
    uint16_t avail[2];
};

static void queue_set_up(struct rig *r, unsigned q)
{
    wr32(r, AT + R_QSEL, q);
    wr32(r, AT + R_QNUM, NUM);
    wr32(r, AT + R_DESC, (uint32_t)DESC(q));
    wr32(r, AT + R_DRIVER, (uint32_t)AVAIL(q));
    wr32(r, AT + R_DEVICE, (uint32_t)USED(q));
    wr32(r, AT + R_QREADY, 1);
    memset(rig_ram(r, DESC(q)), 0, 0x10000);
}

static void bring_up(struct rig *r, uint32_t low, unsigned queues)
{
    wr32(r, AT + R_STATUS, 0);
    wr32(r, AT + R_STATUS, 1 | 2);
    wr32(r, AT + R_DRV_SEL, 0);
    wr32(r, AT + R_DRV_FEAT, low);
    wr32(r, AT + R_DRV_SEL, 1);
    wr32(r, AT + R_DRV_FEAT, 1);
    wr32(r, AT + R_STATUS, 1 | 2 | 8);
    for (unsigned q = 0; q < queues; q++) {
        queue_set_up(r, q);
    }
    wr32(r, AT + R_STATUS, 15);
    ck_assert_uint_eq(rd32(r, AT + R_STATUS), 15);
}

static void on_damage(void *arg, const struct display_rect *r)
{
    struct gpu *g = arg;

    g->damage = *r;
    g->damages++;
}

static void on_resize(void *arg)
{
    ((struct gpu *)arg)->resizes++;
}

static void on_cursor(void *arg)
{
    ((struct gpu *)arg)->cursors++;
}

static void gpu_new(struct gpu *g)
{
    *g = (struct gpu){ .r = rig_new(1), .display = display_new(640, 480) };
    g->viewer = (struct display_viewer){
        .damaged = on_damage, .resized = on_resize, .cursor = on_cursor, .arg = g
    };
    display_attach(g->display, &g->viewer);
    g->dev = rig_device(g->r, &virtio_gpu_class);
    ck_assert_int_eq(dev_set_ptr(g->dev, "display", g->display, NULL), 0);
    ck_assert_int_eq(dev_set_u64(g->dev, "max-memory", 1 << 20, NULL), 0);
    ck_assert_int_eq(dev_realize(g->dev, NULL), 0);
    g->slot = rig_device(g->r, &virtio_mmio_class);
    ck_assert_int_eq(dev_set_ptr(g->slot, "device", g->dev, NULL), 0);
    rig_place(g->r, g->slot, AT);
    g->slot->irq[0] = rig_line(&g->line);
    rig_start(g->r);
    bring_up(g->r, EDID_FEATURE, 2);
}

static void gpu_free(struct gpu *g)
{
    rig_free(g->r);
    display_free(g->display);
}

struct waits {
    struct rig *r;
    unsigned q;
    uint16_t want;
};

static bool is_used(void *arg)
{
    struct waits *w = arg;

    return ((volatile uint16_t *)rig_ram(w->r, USED(w->q)))[1] == w->want;
}

/* Sends a command of n numbers behind its head, with a fence; returns the answer's type. */
static uint32_t command(struct gpu *g, unsigned q, uint32_t type, const uint32_t *words,
                        unsigned n)
{
    uint32_t *head = rig_ram(g->r, REQUEST), *answer = rig_ram(g->r, ANSWER);
    struct desc *d = rig_ram(g->r, DESC(q));
    uint16_t *ring = rig_ram(g->r, AVAIL(q));
    struct waits w = { g->r, q, (uint16_t)(g->avail[q] + 1) };

    memset(head, 0, 24);
    head[0] = type;
    head[1] = 1;    /* fence */
    head[2] = 0x77; /* its number */
    memcpy(head + 6, words, 4 * n);
    memset(answer, 0xee, 2048);
    d[0] = (struct desc){ REQUEST, 24 + 4 * n, NEXT, 1 };
    d[1] = (struct desc){ ANSWER, 2048, WRITE, 0 };
    ring[2 + g->avail[q] % NUM] = 0;
    ring[1] = ++g->avail[q];
    wr32(g->r, AT + R_NOTIFY, q);
    rig_until(g->r, is_used, &w);
    ck_assert_uint_eq(answer[1], 1);
    ck_assert_uint_eq(answer[2], 0x77);
    return answer[0];
}

#define CMD(g, type, ...)                                                                      \
    command(g, 0, type, (const uint32_t[]){ __VA_ARGS__ },                                     \
            sizeof((const uint32_t[]){ __VA_ARGS__ }) / 4)

/* A resource of 64 by 64 with a backing in two pieces. */
static void resource(struct gpu *g, uint32_t id)
{
    ck_assert_uint_eq(CMD(g, 0x101, id, 2, 64, 64), GPU_OK);
    ck_assert_uint_eq(CMD(g, 0x106, id, 2, (uint32_t)PIXELS, 0, 1000, 0,
                          (uint32_t)PIXELS + 1000, 0, 64 * 64 * 4 - 1000, 0),
                      GPU_OK);
}

static void paint(struct gpu *g)
{
    uint32_t *p = rig_ram(g->r, PIXELS);

    for (unsigned i = 0; i < 64 * 64; i++) {
        p[i] = 0xff000000 | i * 17;
    }
}

START_TEST(gpu_tells_its_monitor_and_edid)
{
    struct gpu g;
    uint32_t *answer;
    uint8_t want[EDID_SIZE];
    unsigned sum = 0;

    gpu_new(&g);
    answer = rig_ram(g.r, ANSWER);
    ck_assert_uint_eq(CMD(&g, 0x100, 0), GPU_OK_DISPLAY_INFO);
    ck_assert_uint_eq(answer[6 + 2], 1280);
    ck_assert_uint_eq(answer[6 + 3], 800);
    ck_assert_uint_eq(answer[6 + 4], 1);
    ck_assert_uint_eq(CMD(&g, 0x10a, 0, 0), GPU_OK_EDID);
    ck_assert_uint_eq(answer[6], EDID_SIZE);
    edid_fill(want, 1280, 800);
    ck_assert_mem_eq(answer + 8, want, EDID_SIZE);
    for (unsigned i = 0; i < EDID_SIZE; i++) {
        sum += want[i];
    }
    ck_assert_uint_eq(sum % 256, 0);
    ck_assert_uint_eq(CMD(&g, 0x10a, 1, 0), GPU_ERR_SCANOUT);
    gpu_free(&g);
}
END_TEST

START_TEST(gpu_shows_what_was_transferred_and_flushed)
{
    struct gpu g;

    gpu_new(&g);
    paint(&g);
    resource(&g, 5);
    ck_assert_uint_eq(CMD(&g, 0x103, 0, 0, 32, 48, 0, 5), GPU_OK); /* its upper left part */
    ck_assert_uint_eq(g.resizes, 1);
    ck_assert_uint_eq(display_width(g.display), 32);
    ck_assert_uint_eq(display_height(g.display), 48);
    /* A rectangle of 20 by 10 at 4,6, whose first byte lies at its place in the backing. */
    ck_assert_uint_eq(CMD(&g, 0x105, 4, 6, 20, 10, (6 * 64 + 4) * 4, 0, 5, 0), GPU_OK);
    ck_assert_uint_eq(CMD(&g, 0x104, 4, 6, 60, 10, 5, 0), GPU_OK);
    ck_assert_uint_eq(g.damage.x, 4);
    ck_assert_uint_eq(g.damage.y, 6);
    ck_assert_uint_eq(g.damage.w, 28); /* cut to what is shown */
    ck_assert_uint_eq(g.damage.h, 10);
    ck_assert_uint_eq(display_pixels(g.display)[6 * 32 + 4], (6 * 64 + 4) * 17);
    ck_assert_uint_eq(display_pixels(g.display)[15 * 32 + 23], (15 * 64 + 23) * 17);
    ck_assert_uint_eq(display_pixels(g.display)[16 * 32 + 4], 0);
    ck_assert_uint_eq(display_pixels(g.display)[6 * 32 + 24], 0);
    ck_assert_uint_eq(CMD(&g, 0x105, 0, 0, 64, 64, 0, 0, 5, 0), GPU_OK); /* all of it */
    ck_assert_uint_eq(CMD(&g, 0x104, 0, 0, 64, 64, 5, 0), GPU_OK);
    ck_assert_uint_eq(display_pixels(g.display)[47 * 32 + 31], (47 * 64 + 31) * 17);
    g.dev->cls->quiesce(g.dev);
    rig_state_round_trip(g.dev);
    ck_assert_uint_eq(CMD(&g, 0x104, 0, 0, 64, 64, 5, 0), GPU_OK); /* it is still there */
    ck_assert_uint_eq(CMD(&g, 0x102, 5, 0), GPU_OK);
    ck_assert_uint_eq(display_pixels(g.display)[47 * 32 + 31],
                      0); /* nothing is shown any more */
    gpu_free(&g);
}
END_TEST

START_TEST(gpu_refuses_what_is_not_there_or_too_large)
{
    struct gpu g;

    gpu_new(&g);
    ck_assert_uint_eq(CMD(&g, 0x101, 0, 2, 8, 8), GPU_ERR_RESOURCE);
    ck_assert_uint_eq(CMD(&g, 0x101, 1, 99, 8, 8), GPU_ERR_PARAMETER);
    ck_assert_uint_eq(CMD(&g, 0x101, 1, 2, 0, 8), GPU_ERR_PARAMETER);
    ck_assert_uint_eq(CMD(&g, 0x101, 1, 2, 0xffffffff, 0xffffffff), GPU_ERR_PARAMETER);
    ck_assert_uint_eq(CMD(&g, 0x101, 1, 2, 1024, 1024), GPU_ERR_MEMORY); /* of 1 MiB in all */
    resource(&g, 1);
    ck_assert_uint_eq(CMD(&g, 0x101, 1, 2, 8, 8), GPU_ERR_RESOURCE);
    ck_assert_uint_eq(CMD(&g, 0x106, 1, 1, (uint32_t)PIXELS, 0, 64, 0), GPU_ERR_UNSPEC);
    ck_assert_uint_eq(CMD(&g, 0x103, 0, 0, 8, 8, 1, 1), GPU_ERR_SCANOUT);
    ck_assert_uint_eq(CMD(&g, 0x103, 0, 0, 65, 8, 0, 1), GPU_ERR_PARAMETER);
    ck_assert_uint_eq(CMD(&g, 0x103, 0xfffffff8, 0, 16, 8, 0, 1), GPU_ERR_PARAMETER);
    ck_assert_uint_eq(CMD(&g, 0x103, 0, 0, 8, 8, 0, 9), GPU_ERR_RESOURCE);
    ck_assert_uint_eq(CMD(&g, 0x105, 60, 0, 8, 8, 0, 0, 1, 0), GPU_ERR_PARAMETER);
    ck_assert_uint_eq(CMD(&g, 0x105, 0, 0, 64, 64, 4, 0, 1, 0),
                      GPU_ERR_UNSPEC); /* past its end */
    ck_assert_uint_eq(CMD(&g, 0x105, 0, 0, 8, 8, 0, 1, 1, 0), GPU_ERR_PARAMETER);
    ck_assert_uint_eq(CMD(&g, 0x104, 0, 0, 65, 64, 1, 0), GPU_ERR_PARAMETER);
    ck_assert_uint_eq(CMD(&g, 0x107, 1, 0), GPU_OK);
    ck_assert_uint_eq(CMD(&g, 0x107, 1, 0), GPU_ERR_UNSPEC);
    ck_assert_uint_eq(CMD(&g, 0x105, 0, 0, 8, 8, 0, 0, 1, 0), GPU_ERR_UNSPEC);
    ck_assert_uint_eq(CMD(&g, 0x106, 1, 100000, 0, 0, 0, 0), GPU_ERR_MEMORY);
    ck_assert_uint_eq(CMD(&g, 0x106, 1, 9, 0, 0, 0, 0),
                      GPU_ERR_PARAMETER); /* fewer than said */
    ck_assert_uint_eq(CMD(&g, 0x106, 1, 1, 0x1000, 0, 0x10000, 0), GPU_OK); /* not memory ... */
    ck_assert_uint_eq(CMD(&g, 0x105, 0, 0, 8, 8, 0, 0, 1, 0), GPU_ERR_UNSPEC);
    ck_assert_uint_eq(CMD(&g, 0x1ff, 0), GPU_ERR_UNSPEC);
    gpu_free(&g);
}
END_TEST

START_TEST(gpu_moves_and_shapes_its_cursor)
{
    struct gpu g;
    const struct display_cursor *c;

    gpu_new(&g);
    paint(&g);
    c = display_cursor(g.display);
    ck_assert_uint_eq(CMD(&g, 0x101, 7, 1, 64, 64), GPU_OK);
    ck_assert_uint_eq(CMD(&g, 0x106, 7, 1, (uint32_t)PIXELS, 0, 64 * 64 * 4, 0), GPU_OK);
    ck_assert_uint_eq(CMD(&g, 0x105, 0, 0, 64, 64, 0, 0, 7, 0), GPU_OK);
    const uint32_t update[8] = { 0, 100, 50, 0, 7, 3, 4, 0 };
    ck_assert_uint_eq(command(&g, 1, 0x300, update, 8), GPU_OK);
    ck_assert(c->visible);
    ck_assert_uint_eq(c->hot_x, 3);
    ck_assert_uint_eq(c->pixel[9], 0xff000000 | 9 * 17);
    const uint32_t move[8] = { 0, 200, 60, 0, 0, 0, 0, 0 };
    ck_assert_uint_eq(command(&g, 1, 0x301, move, 8), GPU_OK);
    ck_assert_uint_eq(c->x, 200);
    ck_assert(c->visible);
    ck_assert_uint_eq(command(&g, 1, 0x300, move, 8), GPU_OK);
    ck_assert(!c->visible);
    ck_assert_uint_eq(g.cursors, 2);
    gpu_free(&g);
}
END_TEST

START_TEST(gpu_tells_of_another_size_that_a_viewer_asks_for)
{
    struct gpu g;
    uint32_t *answer;

    gpu_new(&g);
    answer = rig_ram(g.r, ANSWER);
    ck_assert(!display_ask_size(g.display, 10, 10));
    ck_assert(!display_ask_size(g.display, 100000, 100));
    ck_assert(display_ask_size(g.display, 1024, 768));
    ck_assert_uint_eq(rd32(g.r, AT + R_CONFIG), 1);
    ck_assert_uint_eq(CMD(&g, 0x100, 0), GPU_OK_DISPLAY_INFO);
    ck_assert_uint_eq(answer[6 + 2], 1024);
    wr32(g.r, AT + R_CONFIG + 4, 1);
    ck_assert_uint_eq(rd32(g.r, AT + R_CONFIG), 0);
    gpu_free(&g);
}
END_TEST

/* --- pictures --- */

static uint32_t be32(const char *p)
{
    const uint8_t *b = (const uint8_t *)p;

    return (uint32_t)b[0] << 24 | (uint32_t)b[1] << 16 | (uint32_t)b[2] << 8 | b[3];
}

START_TEST(png_holds_the_picture)
{
    uint32_t pixel[33 * 7];
    AUTO_BUF b = BUF_INIT;
    AUTO_BUF packed = BUF_INIT;
    uint8_t rows[7][1 + 33 * 3];
    uLongf n = sizeof(rows);

    for (unsigned i = 0; i < ARRAY_LEN(pixel); i++) {
        pixel[i] = i * 70001 & 0xffffff;
    }
    ck_assert_int_eq(png_write(&b, pixel, 33, 7, NULL), 0);
    ck_assert_mem_eq(b.data, "\x89PNG\r\n\x1a\n", 8);
    for (size_t at = 8; at < b.len; at += be32(b.data + at) + 12) {
        uint32_t len = be32(b.data + at);

        ck_assert_uint_eq(be32(b.data + at + 8 + len),
                          crc32(0, (const Bytef *)b.data + at + 4, len + 4));
        if (memcmp(b.data + at + 4, "IHDR", 4) == 0) {
            ck_assert_uint_eq(be32(b.data + at + 8), 33);
            ck_assert_uint_eq(be32(b.data + at + 12), 7);
        } else if (memcmp(b.data + at + 4, "IDAT", 4) == 0) {
            buf_add(&packed, b.data + at + 8, len);
        }
    }
    ck_assert_int_eq(uncompress((Bytef *)rows, &n, (const Bytef *)packed.data, packed.len),
                     Z_OK);
    ck_assert_uint_eq(n, sizeof(rows));
    for (unsigned y = 0; y < 7; y++) {
        ck_assert_uint_eq(rows[y][0], 2);
        for (unsigned x = 1; x < sizeof(rows[0]); x++) {
            rows[y][x] = (uint8_t)(rows[y][x] + (y ? rows[y - 1][x] : 0));
        }
        for (unsigned x = 0; x < 33; x++) {
            const uint8_t *p = &rows[y][1 + 3 * x];
            ck_assert_uint_eq((uint32_t)p[0] << 16 | p[1] << 8 | p[2], pixel[y * 33 + x]);
        }
    }
}
END_TEST

/* --- input --- */

static struct gpu input_new(const char *kind)
{
    struct gpu g = { .r = rig_new(1) };

    g.dev = rig_device(g.r, &virtio_input_class);
    ck_assert_int_eq(dev_set_str(g.dev, "kind", kind, NULL), 0);
    ck_assert_int_eq(dev_realize(g.dev, NULL), 0);
    g.slot = rig_device(g.r, &virtio_mmio_class);
    ck_assert_int_eq(dev_set_ptr(g.slot, "device", g.dev, NULL), 0);
    rig_place(g.r, g.slot, AT);
    rig_start(g.r);
    return g;
}

static unsigned config_size(struct rig *r, uint8_t select, uint8_t subsel)
{
    rig_write(r, AT + R_CONFIG, select, 1);
    rig_write(r, AT + R_CONFIG + 1, subsel, 1);
    return (unsigned)rig_read(r, AT + R_CONFIG + 2, 1);
}

START_TEST(tablet_says_its_axes_and_sends_reports)
{
    struct gpu g = input_new("tablet");
    const struct input_step to[] = { { INPUT_EV_ABS, INPUT_ABS_X, 100 },
                                     { INPUT_EV_ABS, INPUT_ABS_Y, 200 } };
    const struct input_step bad = { INPUT_EV_REL, INPUT_REL_X, 1 };
    struct err e = ERR_INIT;

    ck_assert_uint_eq(config_size(g.r, 0x12, 0), 20);
    ck_assert_uint_eq(rd32(g.r, AT + R_CONFIG + 12), INPUT_ABS_MAX);
    ck_assert_uint_eq(config_size(g.r, 0x12, 2), 0);
    ck_assert_uint_eq(config_size(g.r, 0x11, INPUT_EV_ABS), 1);
    ck_assert_uint_eq(config_size(g.r, 0x11, INPUT_EV_REL), 2);
    ck_assert_uint_eq(config_size(g.r, 0x11, INPUT_EV_KEY), 0x114 / 8 + 1);
    ck_assert_int_eq(virtio_input_send(g.dev, to, 2, &e), -ENODEV);
    bring_up(g.r, 0, 2);
    ck_assert_int_eq(virtio_input_send(g.dev, &bad, 1, &e), -EINVAL);
    ck_assert_int_eq(virtio_input_send(g.dev, to, 2, &e), 0);
    for (unsigned i = 0; i < 3; i++) {
        ((struct desc *)rig_ram(g.r, DESC(0)))[i] = (struct desc){ ANSWER + 8 * i, 8, WRITE,
                                                                   0 };
        ((uint16_t *)rig_ram(g.r, AVAIL(0)))[2 + i] = (uint16_t)i;
    }
    ((uint16_t *)rig_ram(g.r, AVAIL(0)))[1] = 3;
    wr32(g.r, AT + R_NOTIFY, 0);
    struct waits w = { g.r, 0, 3 };
    rig_until(g.r, is_used, &w);
    const uint16_t want[12] = { 3, 0, 100, 0, 3, 1, 200, 0, 0, 0, 0, 0 };
    ck_assert_mem_eq(rig_ram(g.r, ANSWER), want, sizeof(want));
    for (unsigned i = 0; i < 21; i++) {
        ck_assert_int_eq(virtio_input_send(g.dev, to, 2, &e), 0);
    }
    ck_assert_int_eq(virtio_input_send(g.dev, to, 2, &e), -ENOSPC);
    rig_state_round_trip(g.dev);
    rig_free(g.r);
}
END_TEST

START_TEST(keys_are_found_by_name_scan_code_and_symbol)
{
    bool shift;

    ck_assert_uint_eq(key_by_name("ret")->code, 28);
    ck_assert_uint_eq(key_by_name("delete")->code, 111);
    ck_assert_uint_eq(key_by_name("ctrl_l")->code, 29);
    ck_assert_ptr_null(key_by_name("no-such-key"));
    ck_assert_uint_eq(key_by_scan(0x9d)->code, 97);
    ck_assert_uint_eq(key_by_sym('A', &shift)->code, 30);
    ck_assert(shift);
    ck_assert_uint_eq(key_by_sym('/', &shift)->code, 53);
    ck_assert(!shift);
    ck_assert_ptr_null(key_by_sym(0, &shift));
    for (int c = 32; c < 127; c++) { /* every character can be typed, each in one way */
        const struct key *k = key_by_sym((uint32_t)c, &shift);
        ck_assert_ptr_nonnull(k);
        ck_assert_uint_eq(shift ? k->shifted : k->sym, (uint32_t)c);
    }
}
END_TEST

/* --- bochs-display --- */

#define FN PCI_DEVFN(3, 0)

START_TEST(bochs_shows_its_memory_in_the_mode_that_is_set)
{
    static const uint16_t mode[4] = { 800, 600, 32, 1 }; /* width, height, bits, enable */
    const uint64_t regs = PCI_MMIO + 0x2000000;
    struct pci_rig p;
    struct display *display = display_new(640, 480);
    struct device *d;

    pci_rig_new(&p);
    d = pci_rig_device(&p, &bochs_display_class);
    ck_assert_int_eq(dev_set_ptr(d, "display", display, NULL), 0);
    pci_rig_plug(&p, d, NULL, FN);
    rig_start(p.r);
    ck_assert_uint_eq(cfg_read(&p, FN, PCI_VENDOR, 4), 0x11111234);
    cfg_write(&p, FN, PCI_BAR0, (uint32_t)PCI_MMIO, 4);
    cfg_write(&p, FN, PCI_BAR0 + 8, (uint32_t)regs, 4);
    cfg_write(&p, FN, PCI_COMMAND, PCI_CMD_MEMORY, 2);
    ck_assert_uint_eq(rig_read(p.r, regs + 0x500, 2), 0xb0c5);
    ck_assert_uint_eq(rig_read(p.r, regs, 8), 0x00ffffffffffff00);
    display_refresh(display); /* off: nothing changes */
    ck_assert_uint_eq(display_width(display), 640);
    for (unsigned i = 0; i < 4; i++) {
        rig_write(p.r, regs + 0x502 + 2 * i, mode[i], 2);
    }
    rig_write(p.r, PCI_MMIO + (7 * 800 + 9) * 4, 0x00123456, 4);
    display_refresh(display);
    ck_assert_uint_eq(display_width(display), 800);
    ck_assert_uint_eq(display_height(display), 600);
    ck_assert_uint_eq(display_pixels(display)[7 * 800 + 9], 0x123456);
    rig_write(p.r, regs + 0x506, 16, 2);
    rig_write(p.r, PCI_MMIO, 0xf81f, 2);
    display_refresh(display);
    ck_assert_uint_eq(display_pixels(display)[0], 0xff00ff);
    rig_write(p.r, regs + 0x512, 0xffff, 2); /* an offset beyond the memory shows nothing new */
    display_refresh(display);
    ck_assert_uint_eq(display_pixels(display)[0], 0xff00ff);
    rig_state_round_trip(d);
    pci_rig_free(&p);
    display_free(display);
}
END_TEST

/* Is RAM of the VM's own tree at the address? */
static bool is_ram(struct pci_rig *p, uint64_t at)
{
    const struct mem_range *r = mem_find(p->r->vm->mem, at);

    return r && r->kind == MEM_RAM;
}

START_TEST(bochs_memory_is_in_the_vms_tree_where_its_bar_is)
{
    const uint64_t bar = PCI_MMIO, other = PCI_MMIO + 0x4000000;
    struct pci_rig p;
    struct display *display = display_new(640, 480);
    struct device *d;

    pci_rig_new(&p);
    d = pci_rig_device(&p, &bochs_display_class);
    ck_assert_int_eq(dev_set_ptr(d, "display", display, NULL), 0);
    ck_assert_int_eq(dev_set_bool(d, "mapped", true, NULL), 0);
    pci_rig_plug(&p, d, NULL, FN);
    rig_start(p.r);
    vm_remap(p.r->vm);
    ck_assert(!is_ram(&p, bar));
    cfg_write(&p, FN, PCI_BAR0, (uint32_t)bar, 4);
    vm_remap(p.r->vm);
    ck_assert(!is_ram(&p, bar)); /* memory is off */
    cfg_write(&p, FN, PCI_COMMAND, PCI_CMD_MEMORY, 2);
    vm_remap(p.r->vm);
    ck_assert(is_ram(&p, bar) && is_ram(&p, bar + (16 << 20) - 1));
    rig_write(p.r, bar + 64, 0x00123456, 4);
    cfg_write(&p, FN, PCI_BAR0, (uint32_t)other, 4);
    vm_remap(p.r->vm);
    ck_assert(!is_ram(&p, bar) && is_ram(&p, other));
    ck_assert_uint_eq(rig_read(p.r, other + 64, 4), 0x00123456);
    cfg_write(&p, FN, PCI_COMMAND, 0, 2);
    vm_remap(p.r->vm);
    ck_assert(!is_ram(&p, other));
    rig_state_round_trip(d);
    pci_rig_free(&p);
    display_free(display);
}
END_TEST

/* --- vga --- */

/* Ports of the VM are beside its memory. */
static uint8_t inb(struct pci_rig *p, unsigned port)
{
    return (uint8_t)bus_port_read(p->r->vm->ports, (uint16_t)port, 1);
}

static void outb(struct pci_rig *p, unsigned port, uint8_t v)
{
    bus_port_write(p->r->vm->ports, (uint16_t)port, 1, v);
}

/* Register i behind an index port: 0x3c4, 0x3ce, 0x3d4. */
static void indexed(struct pci_rig *p, unsigned port, unsigned i, uint8_t v)
{
    bus_port_write(p->r->vm->ports, (uint16_t)port, 2, i | (uint32_t)v << 8);
}

static void attribute(struct pci_rig *p, unsigned i, uint8_t v)
{
    (void)inb(p, 0x3da);
    outb(p, 0x3c0, (uint8_t)i);
    outb(p, 0x3c0, v);
}

static void dispi(struct pci_rig *p, unsigned i, uint16_t v)
{
    bus_port_write(p->r->vm->ports, 0x1ce, 2, i);
    bus_port_write(p->r->vm->ports, 0x1cf, 2, v);
}

static struct device *vga_new(struct pci_rig *p, struct display *display)
{
    struct device *d;

    pci_rig_new(p);
    d = pci_rig_device(p, &vga_class);
    ck_assert_int_eq(dev_set_ptr(d, "display", display, NULL), 0);
    pci_rig_plug(p, d, NULL, FN);
    ck_assert_int_eq(mem_map(p->r->vm->port_root, VGA_PORTS, 0, d->mmio[VGA_BLOCK_PORTS], NULL),
                     0);
    ck_assert_int_eq(
        mem_map(p->r->vm->port_root, VGA_DISPI_PORTS, 0, d->mmio[VGA_BLOCK_DISPI], NULL), 0);
    ck_assert_int_eq(mem_map(p->r->vm->root, VGA_WINDOW, 0, d->mmio[VGA_BLOCK_WINDOW], NULL),
                     0);
    rig_start(p->r);
    for (unsigned i = 0; i < 16; i++) { /* colour i is (i, i, i) */
        attribute(p, i, (uint8_t)i);
        outb(p, 0x3c8, (uint8_t)i);
        for (unsigned k = 0; k < 3; k++) {
            outb(p, 0x3c9, (uint8_t)i);
        }
    }
    attribute(p, 0x12, 15); /* planes */
    attribute(p, 0x20, 0);  /* the picture is on */
    return d;
}

static void vga_end(struct pci_rig *p, struct device *d, struct display *display)
{
    rig_state_round_trip(d);
    pci_rig_free(p);
    display_free(display);
}

/* 4 characters of 8 dots, 2 rows of 4 lines. */
static void crt(struct pci_rig *p, uint8_t max_scan, uint8_t pitch)
{
    static const uint8_t fixed[][2] = { { 1, 3 }, { 0x12, 7 }, { 0x17, 0xa3 }, { 0x18, 0xff } };

    for (unsigned i = 0; i < ARRAY_LEN(fixed); i++) {
        indexed(p, 0x3d4, fixed[i][0], fixed[i][1]);
    }
    indexed(p, 0x3d4, 7, 0x10);
    indexed(p, 0x3d4, 9, 0x40 | max_scan);
    indexed(p, 0x3d4, 0x13, pitch);
    indexed(p, 0x3d4, 10, 0x20); /* no cursor */
    indexed(p, 0x3c4, 1, 1);
}

static uint32_t grey(unsigned v)
{
    return (v << 2 | v >> 4) * 0x10101;
}

START_TEST(vga_shows_text_with_its_font_and_cursor)
{
    struct pci_rig p;
    struct display *display = display_new(640, 480);
    struct device *d = vga_new(&p, display);

    crt(&p, 3, 2);
    indexed(&p, 0x3c4, 2, 4); /* the font: plane 2, by its own addresses */
    indexed(&p, 0x3ce, 8, 0xff);
    rig_write(p.r, VGA_WINDOW + 0x41 * 32, 0x80, 1);
    rig_write(p.r, VGA_WINDOW + 0x41 * 32 + 3, 0x01, 1);
    indexed(&p, 0x3c4, 2, 3); /* characters and colours: planes 0 and 1 in turn, at 0xb8000 */
    indexed(&p, 0x3ce, 5, 0x10);
    indexed(&p, 0x3ce, 6, 0x0c);
    rig_write(p.r, 0xb8000 + 8 + 2, 0x2741, 2); /* the second row's second place */
    ck_assert_uint_eq(rig_read(p.r, 0xb800a, 2), 0x2741);
    ck_assert_uint_eq(rig_read(p.r, VGA_WINDOW, 1), 0xff); /* the window is not there now */
    display_refresh(display);
    ck_assert_uint_eq(display_width(display), 32);
    ck_assert_uint_eq(display_height(display), 8);
    ck_assert_uint_eq(display_pixels(display)[4 * 32 + 8], grey(7));
    ck_assert_uint_eq(display_pixels(display)[4 * 32 + 9], grey(2));
    ck_assert_uint_eq(display_pixels(display)[7 * 32 + 15], grey(7));
    ck_assert_uint_eq(display_pixels(display)[0], grey(0));
    indexed(&p, 0x3d4, 10, 1); /* a cursor of lines 1 and 2 there */
    indexed(&p, 0x3d4, 11, 2);
    indexed(&p, 0x3d4, 15, 5);
    display_refresh(display);
    ck_assert_uint_eq(display_pixels(display)[5 * 32 + 9], grey(7));
    ck_assert_uint_eq(display_pixels(display)[7 * 32 + 9], grey(2));
    attribute(&p, 0, 0); /* the picture is off */
    display_refresh(display);
    ck_assert_uint_eq(display_pixels(display)[5 * 32 + 9], 0);
    vga_end(&p, d, display);
}
END_TEST

START_TEST(vga_writes_planes_through_masks_and_latches)
{
    struct pci_rig p;
    struct display *display = display_new(640, 480);
    struct device *d = vga_new(&p, display);

    crt(&p, 0, 2);
    indexed(&p, 0x3ce, 6, 5); /* graphics at 0xa0000 */
    indexed(&p, 0x3ce, 8, 0xff);
    indexed(&p, 0x3c4, 2, 5);
    rig_write(p.r, VGA_WINDOW, 0xf0, 1);
    display_refresh(display);
    ck_assert_uint_eq(display_pixels(display)[3], grey(5));
    ck_assert_uint_eq(display_pixels(display)[4], grey(0));
    indexed(&p, 0x3c4, 2, 15);
    indexed(&p, 0x3ce, 8, 0x0f); /* the other bits come from the latches */
    (void)rig_read(p.r, VGA_WINDOW, 1);
    indexed(&p, 0x3ce, 5, 2);
    rig_write(p.r, VGA_WINDOW + 1, 9, 1); /* mode 2: a colour */
    display_refresh(display);
    ck_assert_uint_eq(display_pixels(display)[8], grey(5));
    ck_assert_uint_eq(display_pixels(display)[12], grey(9));
    indexed(&p, 0x3ce, 4, 2); /* read mode 0: one plane; 1: which pixels have a colour */
    indexed(&p, 0x3ce, 5, 0);
    ck_assert_uint_eq(rig_read(p.r, VGA_WINDOW + 1, 1), 0xf0);
    indexed(&p, 0x3ce, 5, 8);
    indexed(&p, 0x3ce, 2, 9);
    indexed(&p, 0x3ce, 7, 15);
    ck_assert_uint_eq(rig_read(p.r, VGA_WINDOW + 1, 1), 0x0f);
    indexed(&p, 0x3ce, 5, 1); /* mode 1 copies the latches */
    rig_write(p.r, VGA_WINDOW + 2, 0, 1);
    display_refresh(display);
    ck_assert_uint_eq(display_pixels(display)[28 - 8], grey(9));
    vga_end(&p, d, display);
}
END_TEST

START_TEST(vga_has_linear_modes_by_its_ports_and_is_seen_in_memory)
{
    struct pci_rig p;
    struct display *display = display_new(640, 480);
    struct device *d = vga_new(&p, display);
    const struct mem_range *r;

    dispi(&p, 0, 0xb0c4);
    ck_assert_uint_eq(bus_port_read(p.r->vm->ports, 0x1cf, 2), 0xb0c4);
    dispi(&p, 0, 0x1234); /* is no version */
    ck_assert_uint_eq(bus_port_read(p.r->vm->ports, 0x1d0, 2), 0xb0c4);
    dispi(&p, 1, 640);
    dispi(&p, 2, 400);
    dispi(&p, 3, 8);
    dispi(&p, 4, 1);
    dispi(&p, 5, 3); /* the fourth 64 KiB */
    rig_write(p.r, VGA_WINDOW + 5, 7, 1);
    display_refresh(display);
    ck_assert_uint_eq(display_width(display), 640);
    ck_assert_uint_eq(display_pixels(display)[0x30005], grey(7));
    dispi(&p, 5, 0xffff); /* beyond the memory */
    rig_write(p.r, VGA_WINDOW, 1, 1);
    ck_assert_uint_eq(rig_read(p.r, VGA_WINDOW, 1), 0xff);
    cfg_write(&p, FN, PCI_BAR0, 0x90000000,
              4); /* outside of the bridge's windows: only as memory */
    cfg_write(&p, FN, PCI_COMMAND, PCI_CMD_MEMORY, 2);
    ck_assert_uint_eq(atomic_load(&p.r->vm->requests), VM_REQ_REMAP);
    rig_turn(p.r);
    r = mem_find(p.r->vm->mem, 0x90000000);
    ck_assert(r && r->kind == MEM_RAM && r->size == VGA_VRAM);
    ck_assert_uint_eq(rig_read(p.r, 0x90030005, 1), 7);
    mem_dirty_start(p.r->vm->mem);
    uint64_t n = mem_ram_pages(p.r->vm->mem), first;
    uint64_t *bits = xnew_n(uint64_t, n / 64 + 1);
    r = mem_find(p.r->vm->mem, 0x90000000);
    ck_assert(mem_region_numbered(r->region, &first));
    dispi(&p, 5, 2);
    rig_write(p.r, VGA_WINDOW + 0x1000, 5, 1); /* by the window: marked as the memory's page */
    mem_dirty_take(p.r->vm->mem, bits);
    first += 0x21;
    ck_assert_uint_eq(bits[first / 64], 1ull << first % 64);
    free(bits);
    mem_dirty_stop(p.r->vm->mem);
    cfg_write(&p, FN, PCI_COMMAND, 0, 2);
    rig_turn(p.r);
    ck_assert_ptr_null(mem_find(p.r->vm->mem, 0x90000000));
    vga_end(&p, d, display);
}
END_TEST

static Suite *suite_screen(void)
{
    Suite *s = suite_create("screen");
    TCase *t = tcase_create("screen");

    tcase_add_test(t, gpu_tells_its_monitor_and_edid);
    tcase_add_test(t, gpu_shows_what_was_transferred_and_flushed);
    tcase_add_test(t, gpu_refuses_what_is_not_there_or_too_large);
    tcase_add_test(t, gpu_moves_and_shapes_its_cursor);
    tcase_add_test(t, gpu_tells_of_another_size_that_a_viewer_asks_for);
    tcase_add_test(t, png_holds_the_picture);
    tcase_add_test(t, tablet_says_its_axes_and_sends_reports);
    tcase_add_test(t, keys_are_found_by_name_scan_code_and_symbol);
    tcase_add_test(t, bochs_shows_its_memory_in_the_mode_that_is_set);
    tcase_add_test(t, bochs_memory_is_in_the_vms_tree_where_its_bar_is);
    tcase_add_test(t, vga_shows_text_with_its_font_and_cursor);
    tcase_add_test(t, vga_writes_planes_through_masks_and_latches);
    tcase_add_test(t, vga_has_linear_modes_by_its_ports_and_is_seen_in_memory);
    suite_add_tcase(s, t);
    return s;
}

int main(int argc, char **argv)
{
    return test_main(argc, argv, suite_screen, NULL);
}
