/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio-mmio: the memory-mapped transport (virtio 1.2 §4.2, version 2; no legacy interface).
 * Its device lock covers the virtio device behind it too. Without a device the slot answers
 * with device id 0.
 */
#include "devices/registry.h"
#include "devices/virtio/virtio.h"
#include "engine/base/log.h"

#define NOTIFY 0x50
#define VENDOR_VMD 0x00444d56u /* "VMD" */

struct virtio_mmio {
    struct device dev;
    struct virtio *v; /* NULL: empty slot */
    uint32_t device_sel, driver_sel, queue_sel;
};

static struct virtio_mmio *mmio_of(struct device *d)
{
    return (struct virtio_mmio *)d;
}

/* The selected queue, or NULL. */
static struct virtq *mmio_queue(struct virtio_mmio *m)
{
    return m->v && m->queue_sel < m->v->n_queues ? &m->v->queue[m->queue_sel] : NULL;
}

/* Lock held: the line follows the ISR. */
static void mmio_lower(void *arg)
{
    struct virtio_mmio *m = arg;

    irq_set(&m->dev.irq[0], m->v->isr != 0);
}

static void mmio_raise(void *arg, int q)
{
    (void)q;
    mmio_lower(arg);
}

static uint64_t mmio_read_magic(struct device *d, const struct dev_reg *r, unsigned index)
{
    (void)d, (void)index;
    return r->reset;
}

static uint64_t mmio_read_id(struct device *d, const struct dev_reg *r, unsigned index)
{
    (void)r, (void)index;
    return mmio_of(d)->v ? mmio_of(d)->v->ops->id : 0;
}

static uint64_t mmio_read_features(struct device *d, const struct dev_reg *r, unsigned index)
{
    struct virtio_mmio *m = mmio_of(d);

    (void)r, (void)index;
    return m->v ? virtio_offered(m->v, m->device_sel) : 0;
}

static void mmio_written_features(struct device *d, const struct dev_reg *r, unsigned index,
                                  uint64_t old, uint64_t value)
{
    struct virtio_mmio *m = mmio_of(d);

    (void)r, (void)index, (void)old;
    if (m->v) {
        virtio_accept(m->v, m->driver_sel, (uint32_t)value);
    }
}

static uint64_t mmio_read_num_max(struct device *d, const struct dev_reg *r, unsigned index)
{
    struct virtq *q = mmio_queue(mmio_of(d));

    (void)r, (void)index;
    return q ? q->max : 0;
}

static void mmio_written_num(struct device *d, const struct dev_reg *r, unsigned index,
                             uint64_t old, uint64_t value)
{
    struct virtq *q = mmio_queue(mmio_of(d));

    (void)r, (void)index, (void)old;
    if (q && !q->ready) {
        q->num = (uint32_t)value;
    }
}

static uint64_t mmio_read_ready(struct device *d, const struct dev_reg *r, unsigned index)
{
    struct virtq *q = mmio_queue(mmio_of(d));

    (void)r, (void)index;
    return q && q->ready;
}

static void mmio_written_ready(struct device *d, const struct dev_reg *r, unsigned index,
                               uint64_t old, uint64_t value)
{
    struct virtio_mmio *m = mmio_of(d);

    (void)r, (void)index, (void)old;
    if (mmio_queue(m)) {
        virtq_set_ready(m->v, m->queue_sel, value & 1);
    }
}

static void mmio_written_notify(struct device *d, const struct dev_reg *r, unsigned index,
                                uint64_t old, uint64_t value)
{
    struct virtio_mmio *m = mmio_of(d);

    (void)r, (void)index, (void)old;
    if (m->v && value < m->v->n_queues && virtio_working(m->v)) {
        virtio_notified(m->v, (unsigned)value);
    } else {
        log_trace('v', "%s: bell for queue %llu that does not work", d->id,
                  (unsigned long long)value);
    }
}

static uint64_t mmio_read_isr(struct device *d, const struct dev_reg *r, unsigned index)
{
    (void)r, (void)index;
    return mmio_of(d)->v ? mmio_of(d)->v->isr : 0;
}

static void mmio_written_ack(struct device *d, const struct dev_reg *r, unsigned index,
                             uint64_t old, uint64_t value)
{
    struct virtio_mmio *m = mmio_of(d);

    (void)r, (void)index, (void)old;
    if (m->v) {
        m->v->isr &= ~(uint8_t)value;
        mmio_lower(m);
    }
}

static uint64_t mmio_read_status(struct device *d, const struct dev_reg *r, unsigned index)
{
    (void)r, (void)index;
    return mmio_of(d)->v ? mmio_of(d)->v->status : 0;
}

static void mmio_written_status(struct device *d, const struct dev_reg *r, unsigned index,
                                uint64_t old, uint64_t value)
{
    (void)r, (void)index, (void)old;
    if (mmio_of(d)->v) {
        virtio_set_status(mmio_of(d)->v, (uint8_t)value);
    }
}

/* Queue addresses: low half, high half of desc, avail (driver), used (device). */
static void mmio_written_addr(struct device *d, const struct dev_reg *r, unsigned index,
                              uint64_t old, uint64_t value)
{
    struct virtq *q = mmio_queue(mmio_of(d));
    unsigned which = (r->offset - 0x80) / 0x10;
    uint64_t *addr;

    (void)old;
    if (!q || q->ready) {
        return;
    }
    addr = which == 0 ? &q->desc : which == 1 ? &q->avail : &q->used;
    *addr = (*addr & ~((uint64_t)UINT32_MAX << (32 * index))) | value << (32 * index);
}

static uint64_t mmio_read_generation(struct device *d, const struct dev_reg *r, unsigned index)
{
    (void)r, (void)index;
    return mmio_of(d)->v ? mmio_of(d)->v->config_generation : 0;
}

/* No shared memory regions: length and base read as all ones (virtio 1.2 §4.2.2). */
static uint64_t mmio_read_shm(struct device *d, const struct dev_reg *r, unsigned index)
{
    (void)d, (void)r, (void)index;
    return UINT32_MAX;
}

static uint64_t mmio_config_read(void *opaque, uint64_t offset, unsigned size)
{
    struct virtio_mmio *m = opaque;

    return m->v ? virtio_config_read(m->v, offset, size) : 0;
}

static void mmio_config_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    struct virtio_mmio *m = opaque;

    if (m->v) {
        virtio_config_write(m->v, offset, value, size);
    }
}

static int mmio_realize(struct device *d, struct err *e)
{
    struct virtio_mmio *m = mmio_of(d);

    (void)e;
    if (m->v) {
        m->v->lock = &d->lock;
        m->v->raise = mmio_raise;
        m->v->lower = mmio_lower;
        m->v->transport = m;
        mem_set_bells(d->mmio[0], &(struct mem_bells){ .offset = NOTIFY,
                                                       .size = 4,
                                                       .count = m->v->n_queues,
                                                       .match = true,
                                                       .rung = virtio_rung,
                                                       .arg = m->v });
    }
    return 0;
}

static void mmio_reset(struct device *d)
{
    struct virtio_mmio *m = mmio_of(d);

    if (m->v) {
        virtio_reset(m->v);
    }
}

static void mmio_destroy(struct device *d)
{
    struct virtio_mmio *m = mmio_of(d);

    if (m->v && m->v->transport == m) {
        m->v->raise = NULL;
        m->v->lower = NULL;
        m->v->transport = NULL;
        m->v->lock = &m->v->dev.lock;
    }
}

static const struct st_field mmio_fields[] = {
    ST_FIELD(struct virtio_mmio, device_sel, ST_U32, 1, "selected word of device features"),
    ST_FIELD(struct virtio_mmio, driver_sel, ST_U32, 1, "selected word of driver features"),
    ST_FIELD(struct virtio_mmio, queue_sel, ST_U32, 1, "selected queue"),
    ST_END,
};
static const struct st_table mmio_state = {
    .name = "virtio-mmio",
    .version = 1,
    .fields = mmio_fields,
};

#define RO(name_, at, doc_, read_)                                                             \
    {                                                                                          \
        .name = (name_), .doc = (doc_), .offset = (at), .size = 4, .field = DEV_NO_FIELD,      \
        .read = (read_)                                                                        \
    }
#define WO(name_, at, doc_, written_)                                                          \
    {                                                                                          \
        .name = (name_), .doc = (doc_), .offset = (at), .size = 4, .writable = UINT32_MAX,     \
        .field = DEV_NO_FIELD, .written = (written_)                                           \
    }
#define SEL(name_, at, doc_, field_)                                                           \
    {                                                                                          \
        .name = (name_), .doc = (doc_), .offset = (at), .size = 4, .writable = UINT32_MAX,     \
        .field = offsetof(struct virtio_mmio, field_)                                          \
    }
#define ADDR(name_, at, doc_)                                                                  \
    {                                                                                          \
        .name = (name_), .doc = (doc_), .offset = (at), .size = 4, .count = 2,                 \
        .writable = UINT32_MAX, .field = DEV_NO_FIELD, .written = mmio_written_addr            \
    }

static const struct dev_reg mmio_regs[] = {
    { .name = "MagicValue",
      .doc = "\"virt\"",
      .offset = 0x00,
      .size = 4,
      .reset = 0x74726976,
      .field = DEV_NO_FIELD,
      .read = mmio_read_magic },
    { .name = "Version",
      .doc = "2: virtio 1.x",
      .offset = 0x04,
      .size = 4,
      .reset = 2,
      .field = DEV_NO_FIELD,
      .read = mmio_read_magic },
    RO("DeviceID", 0x08, "device type, 0 for an empty slot", mmio_read_id),
    { .name = "VendorID",
      .doc = "\"VMD\"",
      .offset = 0x0c,
      .size = 4,
      .reset = VENDOR_VMD,
      .field = DEV_NO_FIELD,
      .read = mmio_read_magic },
    RO("DeviceFeatures", 0x10, "selected word of offered features", mmio_read_features),
    SEL("DeviceFeaturesSel", 0x14, "selects a word of DeviceFeatures", device_sel),
    WO("DriverFeatures", 0x20, "selected word of accepted features", mmio_written_features),
    SEL("DriverFeaturesSel", 0x24, "selects a word of DriverFeatures", driver_sel),
    SEL("QueueSel", 0x30, "selects the queue of the registers below", queue_sel),
    RO("QueueNumMax", 0x34, "most entries of the queue, 0: no such queue", mmio_read_num_max),
    WO("QueueNum", 0x38, "entries of the queue, a power of two", mmio_written_num),
    { .name = "QueueReady",
      .doc = "1 puts the queue to use",
      .offset = 0x44,
      .size = 4,
      .writable = 1,
      .field = DEV_NO_FIELD,
      .read = mmio_read_ready,
      .written = mmio_written_ready },
    WO("QueueNotify", NOTIFY, "rings the bell of the queue whose number is written",
       mmio_written_notify),
    RO("InterruptStatus", 0x60, "bit 0: used buffers, bit 1: configuration changed",
       mmio_read_isr),
    WO("InterruptACK", 0x64, "clears the bits written as 1 in InterruptStatus",
       mmio_written_ack),
    { .name = "Status",
      .doc = "device status; writing 0 resets",
      .offset = 0x70,
      .size = 4,
      .writable = 0xff,
      .field = DEV_NO_FIELD,
      .read = mmio_read_status,
      .written = mmio_written_status },
    ADDR("QueueDesc", 0x80, "descriptor table, low and high half of the address"),
    ADDR("QueueDriver", 0x90, "available ring, low and high half"),
    ADDR("QueueDevice", 0xa0, "used ring, low and high half"),
    WO("SHMSel", 0xac, "selects a shared memory region (there is none)", NULL),
    { .name = "SHMLen/SHMBase",
      .doc = "length and base of the region: all ones, absent",
      .offset = 0xb0,
      .size = 4,
      .count = 4,
      .reset = UINT32_MAX,
      .field = DEV_NO_FIELD,
      .read = mmio_read_shm },
    RO("ConfigGeneration", 0xfc, "changes with the configuration space", mmio_read_generation),
    { .name = NULL },
};

static const struct mem_io_ops mmio_config_ops = {
    .read = mmio_config_read,
    .write = mmio_config_write,
    .min_size = 1,
    .max_size = 8,
};

/* The board maps the second block 0x100 behind the first. */
static const struct dev_reg_block mmio_blocks[] = {
    { .name = "mmio", .size = 0x100, .regs = mmio_regs, .min_size = 4, .max_size = 4 },
    { .name = "config", .size = 0xf00, .ops = &mmio_config_ops, .min_size = 1, .max_size = 8 },
    { .name = NULL },
};

static const struct dev_prop mmio_props[] = {
    { .name = "device",
      .kind = PROP_PTR,
      .offset = offsetof(struct virtio_mmio, v),
      .doc = "realized virtio device behind this slot" },
    { .name = NULL },
};

const struct device_class virtio_mmio_class = {
    .name = "virtio-mmio",
    .doc = "memory-mapped virtio 1.2 transport, one device a slot",
    .size = sizeof(struct virtio_mmio),
    .props = mmio_props,
    .blocks = mmio_blocks,
    .n_irqs = 1,
    .state = &mmio_state,
    .realize = mmio_realize,
    .reset = mmio_reset,
    .destroy = mmio_destroy,
};
