/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio-pci: virtio over PCI (virtio 1.2 §4.1), without the legacy interface. Its device lock
 * covers the virtio device behind it too.
 *
 * BAR 4 holds the common configuration, the ISR, the device's configuration and the bells, a page
 * each; BAR 1 the MSI-X table. The capability VIRTIO_PCI_CAP_PCI_CFG reaches the same registers
 * from config space.
 */
#include "devices/bus/pci.h"
#include "devices/bus/pci_rom.h"
#include "devices/registry.h"
#include "devices/virtio/virtio.h"
#include "engine/base/log.h"
#include "engine/base/mem.h"

#include <errno.h>
#include <string.h>

enum { BAR_MSIX = 1, BAR_REGS = 4 };
enum { AT_COMMON = 0, AT_ISR = 0x1000, AT_DEVICE = 0x2000, AT_NOTIFY = 0x3000, REGS = 0x4000 };
enum { CAP_COMMON = 1, CAP_NOTIFY = 2, CAP_ISR = 3, CAP_DEVICE = 4, CAP_PCI = 5 };
enum { NOTIFY_STEP = 4, NO_VECTOR = 0xffff };

struct virtio_pci {
    struct pci_fn pci;
    struct virtio *v;
    struct pci_rom *rom; /* property */
    uint32_t device_sel, driver_sel;
    uint16_t queue_sel, config_vector;
    uint16_t vector[VIRTIO_MAX_QUEUES];
    unsigned cap_pci; /* offset of the window in config space */
};

static struct virtio_pci *vp_of(struct device *d)
{
    return (struct virtio_pci *)d;
}

/* The selected queue, or NULL. */
static struct virtq *vp_queue(struct virtio_pci *p)
{
    return p->queue_sel < p->v->n_queues ? &p->v->queue[p->queue_sel] : NULL;
}

/* --- interrupts --- */

static void vp_lower(void *arg)
{
    struct virtio_pci *p = arg;

    pci_intx_set(&p->pci, p->v->isr != 0);
}

static void vp_raise(void *arg, int q)
{
    struct virtio_pci *p = arg;
    uint16_t vector = q < 0 ? p->config_vector : p->vector[q];

    if (!pci_msix_on(&p->pci)) {
        vp_lower(p);
    } else if (vector != NO_VECTOR) {
        (void)pci_message(&p->pci, vector);
    }
}

static void set_vector(struct virtio_pci *p, uint16_t *where, uint64_t value)
{
    *where = value < p->pci.n_vectors ? (uint16_t)value : NO_VECTOR;
}

/* --- common configuration (§4.1.4.3) --- */

enum common {
    DEVICE_SELECT = 0x00,
    DEVICE_FEATURE = 0x04,
    DRIVER_SELECT = 0x08,
    DRIVER_FEATURE = 0x0c,
    CONFIG_VECTOR = 0x10,
    NUM_QUEUES = 0x12,
    STATUS = 0x14,
    GENERATION = 0x15,
    QUEUE_SELECT = 0x16,
    QUEUE_SIZE = 0x18,
    QUEUE_VECTOR = 0x1a,
    QUEUE_ENABLE = 0x1c,
    QUEUE_NOTIFY_OFF = 0x1e,
    QUEUE_DESC = 0x20,
    QUEUE_DRIVER = 0x28,
    QUEUE_DEVICE = 0x30,
    COMMON_SIZE = 0x38
};

static uint64_t r_device_feature(struct device *d, const struct dev_reg *r, unsigned i)
{
    (void)r, (void)i;
    return virtio_offered(vp_of(d)->v, vp_of(d)->device_sel);
}

static uint64_t r_driver_feature(struct device *d, const struct dev_reg *r, unsigned i)
{
    struct virtio_pci *p = vp_of(d);

    (void)r, (void)i;
    return p->driver_sel < 2 ? (uint32_t)(p->v->features >> (32 * p->driver_sel)) : 0;
}

static void w_driver_feature(struct device *d, const struct dev_reg *r, unsigned i,
                             uint64_t old, uint64_t value)
{
    (void)r, (void)i, (void)old;
    virtio_accept(vp_of(d)->v, vp_of(d)->driver_sel, (uint32_t)value);
}

static uint64_t r_config_vector(struct device *d, const struct dev_reg *r, unsigned i)
{
    (void)r, (void)i;
    return vp_of(d)->config_vector;
}

static void w_config_vector(struct device *d, const struct dev_reg *r, unsigned i, uint64_t old,
                            uint64_t value)
{
    (void)r, (void)i, (void)old;
    set_vector(vp_of(d), &vp_of(d)->config_vector, value);
}

static uint64_t r_num_queues(struct device *d, const struct dev_reg *r, unsigned i)
{
    (void)r, (void)i;
    return vp_of(d)->v->n_queues;
}

static uint64_t r_status(struct device *d, const struct dev_reg *r, unsigned i)
{
    (void)r, (void)i;
    return vp_of(d)->v->status;
}

static void forget_vectors(struct virtio_pci *p)
{
    p->config_vector = NO_VECTOR;
    for (unsigned q = 0; q < VIRTIO_MAX_QUEUES; q++) {
        p->vector[q] = NO_VECTOR;
    }
}

static void w_status(struct device *d, const struct dev_reg *r, unsigned i, uint64_t old,
                     uint64_t value)
{
    struct virtio_pci *p = vp_of(d);

    (void)r, (void)i, (void)old;
    if (value == 0) {
        forget_vectors(p);
        p->device_sel = p->driver_sel = p->queue_sel = 0;
    }
    virtio_set_status(p->v, (uint8_t)value);
}

static uint64_t r_generation(struct device *d, const struct dev_reg *r, unsigned i)
{
    (void)r, (void)i;
    return vp_of(d)->v->config_generation & 0xff;
}

static uint64_t r_queue(struct device *d, const struct dev_reg *r, unsigned i)
{
    struct virtio_pci *p = vp_of(d);
    struct virtq *q = vp_queue(p);

    (void)i;
    switch (r->offset) {
    case QUEUE_SIZE:
        return q ? q->num : 0;
    case QUEUE_VECTOR:
        return q ? p->vector[p->queue_sel] : NO_VECTOR;
    case QUEUE_ENABLE:
        return q && q->ready;
    default: /* QUEUE_NOTIFY_OFF */
        return q ? p->queue_sel : 0;
    }
}

static void w_queue(struct device *d, const struct dev_reg *r, unsigned i, uint64_t old,
                    uint64_t value)
{
    struct virtio_pci *p = vp_of(d);
    struct virtq *q = vp_queue(p);

    (void)i, (void)old;
    if (!q) {
        return;
    }
    if (r->offset == QUEUE_VECTOR) {
        set_vector(p, &p->vector[p->queue_sel], value);
    } else if (r->offset == QUEUE_SIZE && !q->ready) {
        q->num = (uint32_t)value;
    } else if (r->offset == QUEUE_ENABLE && value == 1) { /* 0 is not the driver's to write */
        virtq_set_ready(p->v, p->queue_sel, true);
    }
}

static uint64_t *queue_address(struct virtq *q, unsigned offset)
{
    return offset == QUEUE_DESC ? &q->desc : offset == QUEUE_DRIVER ? &q->avail : &q->used;
}

static uint64_t r_address(struct device *d, const struct dev_reg *r, unsigned i)
{
    struct virtq *q = vp_queue(vp_of(d));

    return q ? (uint32_t)(*queue_address(q, r->offset) >> (32 * i)) : 0;
}

static void w_address(struct device *d, const struct dev_reg *r, unsigned i, uint64_t old,
                      uint64_t value)
{
    struct virtq *q = vp_queue(vp_of(d));
    uint64_t *at;

    (void)old;
    if (q && !q->ready) {
        at = queue_address(q, r->offset);
        *at = (*at & ~((uint64_t)UINT32_MAX << (32 * i))) | value << (32 * i);
    }
}

#define RO(name_, at, size_, doc_, read_)                                                      \
    {                                                                                          \
        .name = (name_), .doc = (doc_), .offset = (at), .size = (size_),                       \
        .field = DEV_NO_FIELD, .read = (read_)                                                 \
    }
#define RW(name_, at, size_, doc_, read_, written_)                                            \
    {                                                                                          \
        .name = (name_), .doc = (doc_), .offset = (at), .size = (size_),                       \
        .writable = (size_) == 4   ? UINT32_MAX                                                \
                    : (size_) == 2 ? UINT16_MAX                                                \
                                   : UINT8_MAX,                                                \
        .field = DEV_NO_FIELD, .read = (read_), .written = (written_)                          \
    }
#define SEL(name_, at, size_, doc_, field_)                                                    \
    {                                                                                          \
        .name = (name_), .doc = (doc_), .offset = (at), .size = (size_),                       \
        .writable = (size_) == 4 ? UINT32_MAX : UINT16_MAX,                                    \
        .field = offsetof(struct virtio_pci, field_)                                           \
    }
#define ADDR(name_, at, doc_)                                                                  \
    {                                                                                          \
        .name = (name_), .doc = (doc_), .offset = (at), .size = 4, .count = 2,                 \
        .writable = UINT32_MAX, .field = DEV_NO_FIELD, .read = r_address, .written = w_address \
    }

static const struct dev_reg common_regs[] = {
    SEL("device_feature_select", DEVICE_SELECT, 4, "selects a word of device_feature",
        device_sel),
    RO("device_feature", DEVICE_FEATURE, 4, "selected word of offered features",
       r_device_feature),
    SEL("driver_feature_select", DRIVER_SELECT, 4, "selects a word of driver_feature",
        driver_sel),
    RW("driver_feature", DRIVER_FEATURE, 4, "selected word of accepted features",
       r_driver_feature, w_driver_feature),
    RW("config_msix_vector", CONFIG_VECTOR, 2, "vector of configuration changes",
       r_config_vector, w_config_vector),
    RO("num_queues", NUM_QUEUES, 2, "queues of the device", r_num_queues),
    RW("device_status", STATUS, 1, "device status; writing 0 resets", r_status, w_status),
    RO("config_generation", GENERATION, 1, "changes with the device's configuration",
       r_generation),
    SEL("queue_select", QUEUE_SELECT, 2, "selects the queue of the registers below", queue_sel),
    RW("queue_size", QUEUE_SIZE, 2, "entries of the queue", r_queue, w_queue),
    RW("queue_msix_vector", QUEUE_VECTOR, 2, "vector of the queue", r_queue, w_queue),
    RW("queue_enable", QUEUE_ENABLE, 2, "1 puts the queue to use", r_queue, w_queue),
    RO("queue_notify_off", QUEUE_NOTIFY_OFF, 2, "place of its bell", r_queue),
    ADDR("queue_desc", QUEUE_DESC, "descriptor area, low and high half of the address"),
    ADDR("queue_driver", QUEUE_DRIVER, "driver area, low and high half"),
    ADDR("queue_device", QUEUE_DEVICE, "device area, low and high half"),
    { .name = NULL },
};

/* --- BAR 4 --- */

static uint64_t regs_read(void *opaque, uint64_t offset, unsigned size)
{
    struct virtio_pci *p = opaque;
    uint8_t isr;

    if (offset < AT_ISR) {
        return dev_reg_ops.read(&p->pci.dev.port[0], offset, size);
    }
    if (offset >= AT_DEVICE && offset < AT_NOTIFY) {
        return virtio_config_read(p->v, offset - AT_DEVICE, size);
    }
    if (offset == AT_ISR) { /* reading clears (§4.1.4.5) */
        isr = p->v->isr;
        p->v->isr = 0;
        vp_lower(p);
        return isr;
    }
    return 0;
}

static void regs_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    struct virtio_pci *p = opaque;
    uint64_t q = (offset - AT_NOTIFY) / NOTIFY_STEP;

    if (offset < AT_ISR) {
        dev_reg_ops.write(&p->pci.dev.port[0], offset, value, size);
    } else if (offset >= AT_DEVICE && offset < AT_NOTIFY) {
        virtio_config_write(p->v, offset - AT_DEVICE, value, size);
    } else if (offset >= AT_NOTIFY && q < p->v->n_queues && virtio_working(p->v)) {
        virtio_notified(p->v, (unsigned)q);
    } else {
        log_trace('v', "%s: write of 0x%llx does nothing", p->pci.dev.id,
                  (unsigned long long)offset);
    }
}

static const struct mem_io_ops regs_ops = { regs_read, regs_write, 1, 8 };

static const struct dev_reg_block vp_blocks[] = {
    { .name = "common", .size = AT_ISR, .regs = common_regs, .min_size = 1, .max_size = 8 },
    { .name = "bar4", .size = REGS, .ops = &regs_ops, .min_size = 1, .max_size = 8 },
    { .name = NULL },
};

/* --- capabilities --- */

static unsigned add_cap(struct pci_fn *f, uint8_t type, uint32_t offset, uint32_t length,
                        unsigned extra)
{
    unsigned at = pci_cap_add(f, PCI_CAP_VENDOR, 16 + extra);
    uint8_t *cap = f->config + at;

    cap[2] = (uint8_t)(16 + extra);
    cap[3] = type;
    cap[4] = BAR_REGS;
    pci_put(cap + 8, offset, 4);
    pci_put(cap + 12, length, 4);
    return at;
}

/* The window's target: false when the driver has not set it to something of BAR 4. */
static bool window(struct virtio_pci *p, uint32_t *offset, uint32_t *length)
{
    const uint8_t *cap = p->pci.config + p->cap_pci;

    *offset = (uint32_t)pci_get(cap + 8, 4);
    *length = (uint32_t)pci_get(cap + 12, 4);
    return cap[4] == BAR_REGS && (*length == 1 || *length == 2 || *length == 4) &&
           *offset % *length == 0 && *offset < REGS;
}

static void vp_config_reading(struct pci_fn *f, unsigned at, unsigned size)
{
    struct virtio_pci *p = (struct virtio_pci *)f;
    uint32_t offset, length;

    if (at + size > p->cap_pci + 16 && at < p->cap_pci + 20 && window(p, &offset, &length)) {
        pci_put(f->config + p->cap_pci + 16, regs_read(p, offset, length), length);
    }
}

static void vp_config_written(struct pci_fn *f, unsigned at, unsigned size)
{
    struct virtio_pci *p = (struct virtio_pci *)f;
    uint32_t offset, length;

    if (at + size > p->cap_pci + 16 && at < p->cap_pci + 20 && window(p, &offset, &length)) {
        regs_write(p, offset, pci_get(f->config + p->cap_pci + 16, length), length);
    }
}

static void add_caps(struct virtio_pci *p)
{
    struct pci_fn *f = &p->pci;
    unsigned notify;

    pci_cap_msix(f, p->v->n_queues + 1, BAR_MSIX);
    pci_bar_set(f, BAR_REGS, PCI_BAR_MEM64 | PCI_BAR_PREFETCH, f->dev.mmio[1]);
    p->cap_pci = add_cap(f, CAP_PCI, 0, 0, 4);
    f->writable[p->cap_pci + 4] = 0xff;
    pci_put(f->writable + p->cap_pci + 8, UINT64_MAX, 8);
    pci_put(f->writable + p->cap_pci + 16, UINT32_MAX, 4);
    notify = add_cap(f, CAP_NOTIFY, AT_NOTIFY, NOTIFY_STEP * VIRTIO_MAX_QUEUES, 4);
    pci_put(f->config + notify + 16, NOTIFY_STEP, 4);
    add_cap(f, CAP_DEVICE, AT_DEVICE, 0x1000, 0);
    add_cap(f, CAP_ISR, AT_ISR, 0x1000, 0);
    add_cap(f, CAP_COMMON, AT_COMMON, COMMON_SIZE, 0);
    pci_cap_pm(f);
    pci_cap_express(f);
    pci_use_intx(f);
    f->config_reading = vp_config_reading;
    f->config_written = vp_config_written;
}

/* --- class --- */

/* Class codes by virtio device id; the rest is "other". */
static uint32_t class_of(uint32_t id)
{
    static const struct {
        uint32_t id, class;
    } classes[] = { { 1, 0x020000 },  { 2, 0x010000 },  { 3, 0x078000 }, { 8, 0x010000 },
                    { 16, 0x038000 }, { 18, 0x098000 }, { 23, 0x080600 } };

    for (unsigned i = 0; i < sizeof(classes) / sizeof(classes[0]); i++) {
        if (classes[i].id == id) {
            return classes[i].class;
        }
    }
    return 0x00ff00;
}

static int vp_realize(struct device *d, struct err *e)
{
    struct virtio_pci *p = vp_of(d);
    struct pci_ident id = { .vendor = 0x1af4,
                            .device = (uint16_t)(0x1040 + p->v->ops->id),
                            .sub_vendor = 0x1af4,
                            .sub_device = 0x1100,
                            .class = class_of(p->v->ops->id),
                            .revision = 1 };
    int rc = pci_fn_init(&p->pci, &id, e);
    const struct dma_port *iommu = p->v->ops->physical ? NULL : d->dma;

    if (rc == 0 && iommu && p->v->ops->outside) {
        return err_set(
            e, -EINVAL,
            "%s: another process serves it and knows nothing of the VM's IOMMU; use a device "
            "that the emulator serves itself, or leave the IOMMU out",
            p->v->dev.id);
    }
    rc = rc == 0 ? pci_rom_set(&p->pci, p->rom, e) : rc;
    p->rom = NULL; /* the board's, and read */
    if (rc == 0) {
        add_caps(p);
        pci_fn_ready(&p->pci);
        p->v->lock = &d->lock;
        p->v->raise = vp_raise;
        p->v->lower = vp_lower;
        p->v->transport = p;
        p->v->dev.dma = iommu;
        p->v->offered |= iommu ? VIRTIO_F_ACCESS_PLATFORM : 0;
        mem_set_bells(d->mmio[1], &(struct mem_bells){ .offset = AT_NOTIFY,
                                                       .step = NOTIFY_STEP,
                                                       .size = 2,
                                                       .count = p->v->n_queues,
                                                       .rung = virtio_rung,
                                                       .arg = p->v });
    }
    return rc;
}

static void vp_reset(struct device *d)
{
    struct virtio_pci *p = vp_of(d);

    bus_lock(&d->lock);
    forget_vectors(p);
    virtio_reset(p->v);
    bus_unlock(&d->lock);
    pci_fn_reset(&p->pci);
}

static void vp_destroy(struct device *d)
{
    struct virtio_pci *p = vp_of(d);

    if (p->v && p->v->transport == p) {
        p->v->raise = NULL;
        p->v->lower = NULL;
        p->v->transport = NULL;
        p->v->dev.dma = NULL;
        p->v->lock = &p->v->dev.lock;
    }
    pci_fn_done(&p->pci);
}

static const struct st_field vp_fields[] = {
    PCI_ST_FIELD,
    ST_FIELD(struct virtio_pci, device_sel, ST_U32, 1, "selected word of device features"),
    ST_FIELD(struct virtio_pci, driver_sel, ST_U32, 1, "selected word of driver features"),
    ST_FIELD(struct virtio_pci, queue_sel, ST_U16, 1, "selected queue"),
    ST_FIELD(struct virtio_pci, config_vector, ST_U16, 1, "vector of configuration changes"),
    ST_ARRAY(struct virtio_pci, vector, ST_U16, VIRTIO_MAX_QUEUES, 1, "vector of each queue"),
    ST_END,
};
static const struct st_table vp_state = {
    .name = "virtio-pci",
    .version = 1,
    .fields = vp_fields,
};

static const struct dev_prop vp_props[] = {
    PCI_PROPS,
    { .name = "device",
      .kind = PROP_PTR,
      .offset = offsetof(struct virtio_pci, v),
      .required = true,
      .doc = "realized virtio device behind this function" },
    { .name = "rom",
      .kind = PROP_PTR,
      .offset = offsetof(struct virtio_pci, rom),
      .doc = "expansion ROM" },
    { .name = NULL },
};

const struct device_class virtio_pci_class = {
    .name = "virtio-pci",
    .doc = "virtio 1.2 over PCI, modern interface only",
    .size = sizeof(struct virtio_pci),
    .props = vp_props,
    .blocks = vp_blocks,
    .state = &vp_state,
    .realize = vp_realize,
    .reset = vp_reset,
    .destroy = vp_destroy,
};
