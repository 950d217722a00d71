/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fw-cfg: the firmware configuration device (QEMU firmware configuration specification, MMIO
 * layout with DMA). Owns copies of its items; all are read-only to the guest. vCPU threads
 * enter by MMIO under the device lock.
 */
#include "devices/misc/fw_cfg.h"

#include "devices/registry.h"
#include "engine/base/log.h"
#include "engine/base/str.h"
#include "engine/core/vm.h"

#include <endian.h>
#include <errno.h>
#include <string.h>

#define MAX_ITEMS 64
#define FILE_NAME_SIZE 56

enum { DMA_ERROR = 1, DMA_READ = 2, DMA_SKIP = 4, DMA_SELECT = 8, DMA_WRITE = 16 };
enum { PORT_SELECTOR = 0, PORT_DATA = 1, PORT_DMA = 4, PORT_END = 12 };
enum { REG_DATA = 0, REG_SELECTOR = 8, REG_DMA_HIGH = 16, REG_DMA_LOW = 20, REG_END = 24 };

struct fw_cfg_item {
    uint8_t *data;
    size_t len;
    char name[FILE_NAME_SIZE]; /* files only */
};

struct fw_cfg {
    struct device dev;
    struct fw_cfg_item item[MAX_ITEMS];
    uint16_t selected;
    uint64_t offset; /* within the selected item; may lie beyond its end */
    uint32_t dma_high;
    void (*before)(void *arg); /* the next look at a file */
    void *before_arg;
    bool looked; /* since the last reset */
};

/* As the guest's DMA descriptor lies in memory: all big-endian. */
struct fw_cfg_dma {
    uint32_t control, length;
    uint64_t address;
};

void fw_cfg_set(struct device *d, unsigned key, const void *p, size_t n)
{
    struct fw_cfg *f = (struct fw_cfg *)d;

    if (key < MAX_ITEMS) {
        free(f->item[key].data);
        f->item[key].data = xmemdup(p, n);
        f->item[key].len = n;
    }
}

void fw_cfg_set_u16(struct device *d, unsigned key, uint16_t v)
{
    uint16_t le = htole16(v);

    fw_cfg_set(d, key, &le, sizeof(le));
}

void fw_cfg_set_u64(struct device *d, unsigned key, uint64_t v)
{
    uint64_t le = htole64(v);

    fw_cfg_set(d, key, &le, sizeof(le));
}

/* The directory: count, then {size, number, reserved, name} of each file, big-endian. */
static void fw_cfg_write_dir(struct fw_cfg *f)
{
    AUTO_BUF b = BUF_INIT;
    uint32_t count = 0, be;

    for (unsigned i = FW_CFG_FILE_FIRST; i < MAX_ITEMS && f->item[i].data; i++) {
        count++;
    }
    be = htobe32(count);
    buf_add(&b, &be, sizeof(be));
    for (unsigned i = FW_CFG_FILE_FIRST; i < FW_CFG_FILE_FIRST + count; i++) {
        uint32_t size = htobe32((uint32_t)f->item[i].len);
        uint16_t number[2] = { htobe16((uint16_t)i), 0 };

        buf_add(&b, &size, sizeof(size));
        buf_add(&b, number, sizeof(number));
        buf_add(&b, f->item[i].name, FILE_NAME_SIZE);
    }
    fw_cfg_set(&f->dev, FW_CFG_FILE_DIR, b.data, b.len);
}

int fw_cfg_add_file(struct device *d, const char *name, const void *p, size_t n, struct err *e)
{
    struct fw_cfg *f = (struct fw_cfg *)d;
    unsigned at = FW_CFG_FILE_FIRST;

    if (strlen(name) >= FILE_NAME_SIZE || n > UINT32_MAX) {
        return err_set(e, -EINVAL,
                       "fw-cfg file '%s': name longer than %d bytes or content over 4 GiB",
                       name, FILE_NAME_SIZE - 1);
    }
    while (at < MAX_ITEMS && f->item[at].data && strcmp(f->item[at].name, name) < 0) {
        at++;
    }
    if (at < MAX_ITEMS && f->item[at].data && strcmp(f->item[at].name, name) == 0) {
        return err_set(e, -EEXIST, "fw-cfg file '%s' exists already", name);
    }
    if (at == MAX_ITEMS || f->item[MAX_ITEMS - 1].data) {
        return err_set(e, -ENOSPC, "fw-cfg: no room for file '%s'", name);
    }
    memmove(&f->item[at + 1], &f->item[at], (MAX_ITEMS - at - 1) * sizeof(f->item[0]));
    f->item[at] = (struct fw_cfg_item){ .data = xmemdup(p, n), .len = n };
    str_copy(f->item[at].name, FILE_NAME_SIZE, name);
    fw_cfg_write_dir(f);
    return 0;
}

int fw_cfg_replace_file(struct device *d, const char *name, const void *p, size_t n)
{
    struct fw_cfg *f = (struct fw_cfg *)d;

    for (unsigned i = FW_CFG_FILE_FIRST; i < MAX_ITEMS && f->item[i].data; i++) {
        if (strcmp(f->item[i].name, name) == 0 && f->item[i].len == n) {
            memcpy(f->item[i].data, p, n);
            return 0;
        }
    }
    return -ENOENT;
}

void fw_cfg_set_hook(struct device *d, void (*before)(void *arg), void *arg)
{
    struct fw_cfg *f = (struct fw_cfg *)d;

    f->before = before;
    f->before_arg = arg;
}

/* Files are looked at when the guest's firmware has set its chip set up. */
static void select_item(struct fw_cfg *f, uint16_t key)
{
    f->selected = key;
    f->offset = 0;
    if (key >= FW_CFG_FILE_FIRST && !f->looked && f->before &&
        strcmp(f->item[key % MAX_ITEMS].name, FW_CFG_LOADER) == 0) {
        f->looked = true;
        f->before(f->before_arg);
    }
}

/* The selected item, or an empty one. */
static struct fw_cfg_item fw_cfg_current(const struct fw_cfg *f)
{
    unsigned key = f->selected &
                   0x3fff; /* bit 14: write, bit 15: architecture's; we have neither */

    if (f->selected & 0x8000 || key >= MAX_ITEMS) {
        return (struct fw_cfg_item){ .len = 0 };
    }
    return f->item[key];
}

static uint8_t fw_cfg_next(struct fw_cfg *f)
{
    struct fw_cfg_item item = fw_cfg_current(f);

    return f->offset < item.len ? item.data[f->offset++] : 0;
}

/* Copies to guest memory; zeroes follow the end of the item. False when the target is not
 * RAM. */
static bool fw_cfg_dma_copy(struct fw_cfg *f, uint64_t to, uint32_t n)
{
    uint8_t chunk[4096];

    while (n > 0) {
        uint32_t part = n < sizeof(chunk) ? n : (uint32_t)sizeof(chunk);

        for (uint32_t i = 0; i < part; i++) {
            chunk[i] = fw_cfg_next(f);
        }
        if (mem_dma_write(f->dev.vm->mem, to, chunk, part) != 0) {
            return false;
        }
        to += part;
        n -= part;
    }
    return true;
}

static void fw_cfg_dma(struct fw_cfg *f, uint64_t at)
{
    struct fw_cfg_dma op;
    struct mem_space *mem = f->dev.vm->mem;
    uint32_t control, length, result = 0;

    if (mem_dma_read(mem, at, &op, sizeof(op)) != 0) {
        log_trace('u', "%s: DMA descriptor at 0x%llx is not in RAM", f->dev.id,
                  (unsigned long long)at);
        return;
    }
    control = be32toh(op.control);
    length = be32toh(op.length);
    if (control & DMA_SELECT) {
        select_item(f, (uint16_t)(control >> 16));
    }
    if (control & DMA_READ) {
        result = fw_cfg_dma_copy(f, be64toh(op.address), length) ? 0 : DMA_ERROR;
    } else if (control & DMA_WRITE) {
        result = DMA_ERROR; /* no item is writable */
    } else if (control & DMA_SKIP) {
        f->offset += length;
    }
    result = htobe32(result);
    mem_dma_write(mem, at, &result, sizeof(result));
}

/* Data port: bytes keep their order in memory, so the first one is the lowest of a little-
 * endian access. */
static uint64_t fw_cfg_read(void *opaque, uint64_t offset, unsigned size)
{
    struct fw_cfg *f = opaque;
    uint64_t v = 0;

    if (offset < REG_SELECTOR) {
        for (unsigned i = 0; i < size; i++) {
            v |= (uint64_t)fw_cfg_next(f) << (8 * i);
        }
    } else if (offset == REG_DMA_HIGH && size == 8) {
        v = htobe64(0x51454d5520434647ull); /* "QEMU CFG": DMA is there */
    } else if ((offset == REG_DMA_HIGH || offset == REG_DMA_LOW) && size == 4) {
        v = htobe32(offset == REG_DMA_HIGH ? 0x51454d55u : 0x20434647u);
    }
    return v;
}

static void fw_cfg_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    struct fw_cfg *f = opaque;

    if (offset == REG_SELECTOR && size == 2) {
        select_item(f, be16toh((uint16_t)value));
    } else if (offset == REG_DMA_HIGH && size == 8) {
        fw_cfg_dma(f, be64toh(value));
    } else if (offset == REG_DMA_HIGH && size == 4) {
        f->dma_high = be32toh((uint32_t)value);
    } else if (offset == REG_DMA_LOW && size == 4) {
        uint64_t at = (uint64_t)f->dma_high << 32 | be32toh((uint32_t)value);

        f->dma_high = 0;
        fw_cfg_dma(f, at);
    } else {
        log_trace('u', "%s: write of %u bytes at 0x%llx", f->dev.id, size,
                  (unsigned long long)offset);
    }
}

/* The same behind ports: selector and data at their own places, the selector little-endian. */
static uint64_t port_read(void *opaque, uint64_t offset, unsigned size)
{
    if (offset == PORT_DATA && size == 1) {
        return fw_cfg_next(opaque);
    }
    return offset >= PORT_DMA ? fw_cfg_read(opaque, offset - PORT_DMA + REG_DMA_HIGH, size) : 0;
}

static void port_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    if (offset == PORT_SELECTOR && size == 2) {
        select_item(opaque, (uint16_t)value);
    } else if (offset >= PORT_DMA) {
        fw_cfg_write(opaque, offset - PORT_DMA + REG_DMA_HIGH, value, size);
    }
}

static int fw_cfg_realize(struct device *d, struct err *e)
{
    static const uint8_t id[4] = { 3, 0, 0, 0 }; /* traditional and DMA interface */

    (void)e;
    fw_cfg_set(d, FW_CFG_SIGNATURE, "QEMU", 4);
    fw_cfg_set(d, FW_CFG_ID, id, sizeof(id));
    fw_cfg_write_dir((struct fw_cfg *)d);
    return 0;
}

static void fw_cfg_reset(struct device *d)
{
    struct fw_cfg *f = (struct fw_cfg *)d;

    f->selected = 0;
    f->offset = 0;
    f->dma_high = 0;
    f->looked = false;
}

static void fw_cfg_destroy(struct device *d)
{
    for (unsigned i = 0; i < MAX_ITEMS; i++) {
        free(((struct fw_cfg *)d)->item[i].data);
    }
}

/* Items are configuration and come from the builder on both sides. */
static const struct st_field fw_cfg_fields[] = {
    ST_FIELD(struct fw_cfg, selected, ST_U16, 1, "selected item"),
    ST_FIELD(struct fw_cfg, offset, ST_U64, 1, "read position within it"),
    ST_FIELD(struct fw_cfg, dma_high, ST_U32, 1, "upper half of a DMA address"),
    ST_END,
};
static const struct st_table fw_cfg_state = {
    .name = "fw-cfg",
    .version = 1,
    .fields = fw_cfg_fields,
};

static const struct mem_io_ops fw_cfg_ops = {
    .read = fw_cfg_read,
    .write = fw_cfg_write,
    .min_size = 1,
    .max_size = 8,
};

/* Widths decide what an access means here, so it has operations of its own; the table is for
 * the reference. */
static const struct dev_reg fw_cfg_regs[] = {
    { .name = "DATA",
      .doc = "next bytes of the selected item, any width",
      .offset = REG_DATA,
      .size = 8,
      .field = DEV_NO_FIELD },
    { .name = "SELECTOR",
      .doc = "item number, big-endian; rewinds",
      .offset = REG_SELECTOR,
      .size = 2,
      .writable = 0xffff,
      .field = DEV_NO_FIELD },
    { .name = "DMA",
      .doc =
          "guest address of a DMA descriptor, big-endian; the write of the low half starts it",
      .offset = REG_DMA_HIGH,
      .size = 8,
      .writable = UINT64_MAX,
      .field = DEV_NO_FIELD },
    { .name = NULL },
};

static const struct mem_io_ops port_ops = {
    .read = port_read,
    .write = port_write,
    .min_size = 1,
    .max_size = 4,
};

static const struct dev_reg port_regs[] = {
    { .name = "SELECTOR_PORT",
      .doc = "item number; rewinds",
      .offset = PORT_SELECTOR,
      .size = 2,
      .writable = 0xffff,
      .field = DEV_NO_FIELD },
    { .name = "DATA_PORT",
      .doc = "next byte of the selected item",
      .offset = PORT_DATA,
      .size = 1,
      .field = DEV_NO_FIELD },
    { .name = "DMA_PORT",
      .doc = "as DMA, in two halves",
      .offset = PORT_DMA,
      .size = 8,
      .writable = UINT64_MAX,
      .field = DEV_NO_FIELD },
    { .name = NULL },
};

static const struct dev_reg_block fw_cfg_blocks[] = {
    { .name = "mmio",
      .size = REG_END,
      .regs = fw_cfg_regs,
      .ops = &fw_cfg_ops,
      .min_size = 1,
      .max_size = 8 },
    { .name = "ports",
      .size = PORT_END,
      .regs = port_regs,
      .ops = &port_ops,
      .min_size = 1,
      .max_size = 4 },
    { .name = NULL },
};

const struct device_class fw_cfg_class = {
    .name = "fw-cfg",
    .doc = "firmware configuration items and files, by port or DMA",
    .size = sizeof(struct fw_cfg),
    .blocks = fw_cfg_blocks,
    .state = &fw_cfg_state,
    .realize = fw_cfg_realize,
    .reset = fw_cfg_reset,
    .destroy = fw_cfg_destroy,
};
