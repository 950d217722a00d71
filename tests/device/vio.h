/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A driver of a virtio-mmio device for tests: negotiation, queues, descriptors, as a guest makes them. Functions for the tests that
 * include it; one thread.
 */
#ifndef VMD_TESTS_DEVICE_VIO_H
#define VMD_TESTS_DEVICE_VIO_H

#include "devices/registry.h"
#include "devices/virtio/virtio.h"
#include "engine/base/mem.h"
#include "tests/device/rig.h"
#include "tests/lib/testing.h"

#include <string.h>

#define AT 0x10001000ull
#define NUM 8

enum {
    R_ID = 0x08,
    R_DEV_FEAT = 0x10,
    R_DEV_SEL = 0x14,
    R_DRV_FEAT = 0x20,
    R_DRV_SEL = 0x24,
    R_QSEL = 0x30,
    R_QMAX = 0x34,
    R_QNUM = 0x38,
    R_QREADY = 0x44,
    R_NOTIFY = 0x50,
    R_ISR = 0x60,
    R_ACK = 0x64,
    R_STATUS = 0x70,
    R_DESC = 0x80,
    R_DRIVER = 0x90,
    R_DEVICE = 0xa0,
    R_CONFIG = 0x100
};
enum { NEXT = 1, WRITE = 2, INDIRECT = 4 };

/* Where a queue's parts lie, by queue. */
#define DESC(q) (RIG_RAM + 0x10000u * (q))
#define AVAIL(q) (DESC(q) + 0x4000)
#define USED(q) (DESC(q) + 0x8000)
#define BUF (RIG_RAM + 0x40000)
#define TABLE (RIG_RAM + 0x60000)

struct desc {
    uint64_t addr;
    uint32_t len;
    uint16_t flags, next;
};

struct vio {
    struct rig *r;
    struct device *slot, *dev;
    struct rig_line line;
    uint16_t avail[VIRTIO_MAX_QUEUES]; /* our index */
};

static inline void vio_place(struct vio *v)
{
    ck_assert_int_eq(dev_realize(v->dev, NULL), 0);
    v->slot = rig_device(v->r, &virtio_mmio_class);
    ck_assert_int_eq(dev_set_ptr(v->slot, "device", v->dev, NULL), 0);
    rig_place(v->r, v->slot, AT);
    v->slot->irq[0] = rig_line(&v->line);
    rig_start(v->r);
}

static inline void queue_set_up(struct vio *v, unsigned q, uint32_t num)
{
    wr32(v->r, AT + R_QSEL, q);
    wr32(v->r, AT + R_QNUM, num);
    wr32(v->r, AT + R_DESC, (uint32_t)DESC(q));
    wr32(v->r, AT + R_DRIVER, (uint32_t)AVAIL(q));
    wr32(v->r, AT + R_DEVICE, (uint32_t)USED(q));
    wr32(v->r, AT + R_QREADY, 1);
    v->avail[q] = 0;
    memset(rig_ram(v->r, DESC(q)), 0, 0x10000);
}

/* Negotiates all of `low` and VERSION_1, sets up n queues, DRIVER_OK. */
static inline void bring_up(struct vio *v, uint32_t low, unsigned n)
{
    wr32(v->r, AT + R_STATUS, 0);
    wr32(v->r, AT + R_STATUS, 1 | 2);
    wr32(v->r, AT + R_DRV_SEL, 0);
    wr32(v->r, AT + R_DRV_FEAT, low);
    wr32(v->r, AT + R_DRV_SEL, 1);
    wr32(v->r, AT + R_DRV_FEAT, 1);
    wr32(v->r, AT + R_STATUS, 1 | 2 | 8);
    ck_assert_uint_eq(rd32(v->r, AT + R_STATUS), 1 | 2 | 8);
    for (unsigned q = 0; q < n; q++) {
        queue_set_up(v, q, NUM);
    }
    wr32(v->r, AT + R_STATUS, 1 | 2 | 8 | 4);
    ck_assert_uint_eq(rd32(v->r, AT + R_STATUS), 15);
}

static inline void put(struct vio *v, uint64_t table, unsigned i, struct desc d)
{
    memcpy((struct desc *)rig_ram(v->r, table) + i, &d, sizeof(d));
}

static inline void offer(struct vio *v, unsigned q, uint16_t head)
{
    uint16_t *ring = rig_ram(v->r, AVAIL(q));

    ring[2 + v->avail[q] % NUM] = head;
    ring[1] = ++v->avail[q];
    wr32(v->r, AT + R_NOTIFY, q);
}

static inline uint16_t used_idx(struct vio *v, unsigned q)
{
    return ((volatile uint16_t *)rig_ram(v->r, USED(q)))[1];
}

static inline uint32_t used_len(struct vio *v, unsigned q, unsigned i)
{
    return ((uint32_t *)rig_ram(v->r, USED(q)))[1 + 2 * (i % NUM) + 1];
}

static inline bool all_used(void *arg)
{
    struct vio *v = arg;

    return used_idx(v, 0) == v->avail[0];
}

#endif
