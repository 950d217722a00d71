/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ich9-smbus: SMBus host controller, function 1f.3 of an ICH9 (data sheet, chapter 18), with nothing on its bus: each transaction ends at once with "no acknowledge". vCPU threads.
 */
#include "devices/bus/pci.h"
#include "devices/registry.h"

enum { HOSTC = 0x40, HOSTC_ON = 1 };
enum {
    STATUS_INTR = 2,
    STATUS_ERROR = 4,
    CONTROL_INTR = 1,
    CONTROL_KILL = 2,
    CONTROL_START = 0x40
};

struct smbus {
    struct pci_fn pci;
    uint8_t status, control, command, address, data[2], aux;
    uint8_t block[32], at; /* of the block's bytes, the next */
};

static struct smbus *smbus_of(struct device *d)
{
    return (struct smbus *)d;
}

static void update_irq(struct smbus *s)
{
    pci_intx_set(&s->pci,
                 s->control & CONTROL_INTR && s->status & (STATUS_INTR | STATUS_ERROR));
}

static void w_status(struct device *d, const struct dev_reg *r, unsigned index, uint64_t old,
                     uint64_t value)
{
    (void)r, (void)index, (void)old, (void)value;
    update_irq(smbus_of(d));
}

static uint64_t r_control(struct device *d, const struct dev_reg *r, unsigned index)
{
    (void)r, (void)index;
    smbus_of(d)->at = 0;
    return smbus_of(d)->control;
}

static void w_control(struct device *d, const struct dev_reg *r, unsigned index, uint64_t old,
                      uint64_t value)
{
    struct smbus *s = smbus_of(d);

    (void)r, (void)index, (void)old;
    s->control &= (uint8_t)~CONTROL_START;
    if (value & CONTROL_START && !(value & CONTROL_KILL) && s->pci.config[HOSTC] & HOSTC_ON) {
        s->status |= STATUS_ERROR;
    }
    update_irq(s);
}

static uint64_t r_block(struct device *d, const struct dev_reg *r, unsigned index)
{
    struct smbus *s = smbus_of(d);
    uint8_t v = s->block[s->at];

    (void)r, (void)index;
    s->at = (uint8_t)((s->at + 1) % sizeof(s->block));
    return v;
}

static void w_block(struct device *d, const struct dev_reg *r, unsigned index, uint64_t old,
                    uint64_t value)
{
    struct smbus *s = smbus_of(d);

    (void)r, (void)index, (void)old;
    s->block[s->at] = (uint8_t)value;
    s->at = (uint8_t)((s->at + 1) % sizeof(s->block));
}

#define REG(name_, at, doc_, ...)                                                              \
    {                                                                                          \
        .name = name_, .doc = doc_, .offset = (at), .size = 1, __VA_ARGS__                     \
    }
#define FIELD(member) .field = offsetof(struct smbus, member)
static const struct dev_reg smbus_regs[] = {
    REG("HST_STS", 0, "bit 2: nobody has answered", FIELD(status), .w1c = 0xfe,
        .written = w_status),
    REG("HST_CNT", 2, "bit 6 starts a transaction, 0 interrupts", FIELD(control),
        .writable = 0xff, .read = r_control, .written = w_control),
    REG("HST_CMD", 3, "command", FIELD(command), .writable = 0xff),
    REG("XMIT_SLVA", 4, "address", FIELD(address), .writable = 0xff),
    REG("HST_D0", 5, "data", FIELD(data[0]), .writable = 0xff),
    REG("HST_D1", 6, "data", FIELD(data[1]), .writable = 0xff),
    REG("HOST_BLOCK_DB", 7, "bytes of a block, one after another", .field = DEV_NO_FIELD,
        .writable = 0xff, .read = r_block, .written = w_block),
    REG("AUX_CTL", 13, "kept", FIELD(aux), .writable = 3),
    { .name = NULL },
};
static const struct dev_reg_block smbus_blocks[] = {
    { .name = "io", .size = 32, .regs = smbus_regs, .min_size = 1, .max_size = 1 },
    { .name = NULL },
};

static int smbus_realize(struct device *d, struct err *e)
{
    static const struct pci_ident id = { .vendor = 0x8086,
                                         .device = 0x2930,
                                         .sub_vendor = 0x1af4,
                                         .sub_device = 0x1100,
                                         .class = 0x0c0500,
                                         .revision = 2 };
    struct pci_fn *f = &smbus_of(d)->pci;
    int rc = pci_fn_init(f, &id, e);

    if (rc == 0) {
        f->writable[HOSTC] = 0x0f;
        pci_bar_set(f, 4, PCI_BAR_IO, d->mmio[0]);
        pci_use_intx(f);
        pci_fn_ready(f);
    }
    return rc;
}

static void smbus_reset(struct device *d)
{
    pci_fn_reset(&smbus_of(d)->pci);
    smbus_of(d)->at = 0;
}

static void smbus_destroy(struct device *d)
{
    pci_fn_done(&smbus_of(d)->pci);
}

static int smbus_loaded(void *obj, struct err *e)
{
    (void)e;
    ((struct smbus *)obj)->at %= sizeof(((struct smbus *)obj)->block);
    return 0;
}

static const struct st_field smbus_fields[] = {
    PCI_ST_FIELD,
    ST_FIELD(struct smbus, status, ST_U8, 1, "status"),
    ST_FIELD(struct smbus, control, ST_U8, 1, "control"),
    ST_FIELD(struct smbus, command, ST_U8, 1, "command"),
    ST_FIELD(struct smbus, address, ST_U8, 1, "address"),
    ST_ARRAY(struct smbus, data, ST_BYTES, 2, 1, "data"),
    ST_FIELD(struct smbus, aux, ST_U8, 1, "auxiliary control"),
    ST_ARRAY(struct smbus, block, ST_BYTES, 32, 1, "bytes of a block"),
    ST_FIELD(struct smbus, at, ST_U8, 1, "the next of them"),
    ST_END,
};
static const struct st_table smbus_state = {
    .name = "ich9-smbus",
    .version = 1,
    .fields = smbus_fields,
    .loaded = smbus_loaded,
};
static const struct dev_prop smbus_props[] = { PCI_PROPS, { .name = NULL } };

const struct device_class ich9_smbus_class = {
    .name = "ich9-smbus",
    .doc = "SMBus host controller of an ICH9, with nothing on its bus",
    .size = sizeof(struct smbus),
    .props = smbus_props,
    .blocks = smbus_blocks,
    .state = &smbus_state,
    .realize = smbus_realize,
    .reset = smbus_reset,
    .destroy = smbus_destroy,
};
