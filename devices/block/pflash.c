/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A bank of parallel flash: two 16-bit chips side by side on a 32-bit bus, or one of 8 bits, with the Intel command
 * set (Common Flash Memory Interface 2.0, vendor command set 1), on a block node that it owns.
 *
 * The contents are read when the bank is made and kept in memory. What the guest programs or erases
 * goes back to the node on the main loop, one write after another, each followed by a flush: when
 * the guest sees the bank ready the write has begun, and when the VM ends or is saved it is done.
 */
#include "devices/block/pflash.h"
#include "devices/registry.h"
#include "engine/base/log.h"
#include "engine/base/mem.h"
#include "engine/base/str.h"
#include "engine/core/replay.h"
#include "engine/core/vm.h"
#include "storage/block.h"

#include <errno.h>
#include <string.h>

#define BANK_SIZE (32u << 20)
#define SECTOR (256u << 10)
#define BYTE_SECTOR (4u << 10)
#define BUFFER 2048u /* bytes that one command can program, both chips */
#define BOTH(x) ((uint32_t)(x) << 16 | (uint32_t)(x))

enum { READY = 0x80, ERASE_ERROR = 0x20, PROGRAM_ERROR = 0x10, SEQUENCE_ERROR = 0x30 };
enum mode { READ_ARRAY, READ_STATUS, READ_ID, READ_CFI };
enum step { IDLE, WORD, ERASE, LOCK, COUNT, FILL, CONFIRM };

struct pflash {
    struct device dev;
    struct blk_node *node;
    bool bytes;    /* property */
    uint8_t *data; /* of rom */
    struct mem_region *rom;
    uint8_t mode, step, status;
    uint32_t left;  /* bytes that the buffer still takes */
    uint32_t first; /* where the buffer began */
    uint8_t buffer[BUFFER];
    uint8_t written[BUFFER / 8];

    uint32_t dirty_low, dirty_high; /* not on the node yet; empty when low >= high */
    bool busy, posted;
    uint8_t *copy;
    struct iovec iov;
    struct blk_req req;
};

static struct pflash *pflash_of(struct device *d)
{
    return (struct pflash *)d;
}

struct mem_region *pflash_region(struct device *d)
{
    struct pflash *f = pflash_of(d);

    return blk_readonly(f->node) ? f->rom : d->mmio[0];
}

/* --- back to the node, main loop
 * ------------------------------------------------------------- */

static void write_back(void *arg);

static void written_back(struct blk_req *r, int result)
{
    struct pflash *f = container_of(r, struct pflash, req);

    if (result == 0 && r->op == BLK_WRITE) {
        r->op = BLK_FLUSH;
        blk_submit(f->node, r);
        return;
    }
    if (result != 0) {
        log_error("devices", "%s: flash contents are not saved: %s", f->dev.id,
                  strerror(-result));
    }
    bus_lock(&f->dev.lock);
    free(f->copy);
    f->copy = NULL;
    f->busy = false;
    bus_unlock(&f->dev.lock);
    write_back(f);
}

static void write_back(void *arg)
{
    struct pflash *f = arg;
    uint64_t size = blk_size(f->node), low, high;

    bus_lock(&f->dev.lock);
    f->posted = false;
    low = f->dirty_low & ~(uint32_t)(BLK_SECTOR - 1);
    high = (f->dirty_high + BLK_SECTOR - 1) & ~(uint32_t)(BLK_SECTOR - 1);
    high = high < size ? high : size;
    if (f->busy || low >= high) {
        bus_unlock(&f->dev.lock);
        return;
    }
    f->dirty_low = BANK_SIZE;
    f->dirty_high = 0;
    f->busy = true;
    f->copy = xalloc(high - low);
    memcpy(f->copy, f->data + low, high - low);
    f->iov = (struct iovec){ .iov_base = f->copy, .iov_len = high - low };
    f->req = (struct blk_req){ .op = BLK_WRITE,
                               .offset = low,
                               .length = high - low,
                               .iov = &f->iov,
                               .n_iov = 1,
                               .done = written_back };
    bus_unlock(&f->dev.lock);
    blk_submit(f->node, &f->req);
}

static void changed(struct pflash *f, uint32_t at, uint32_t n)
{
    f->dirty_low = at < f->dirty_low ? at : f->dirty_low;
    f->dirty_high = at + n > f->dirty_high ? at + n : f->dirty_high;
    if (!f->posted && !f->busy) {
        f->posted = true;
        vm_post(f->dev.vm, write_back, f);
    }
}

/* --- the chips
 * ------------------------------------------------------------------------------- */

/* Programming clears bits. */
static void program(struct pflash *f, uint32_t at, const uint8_t *p, const uint8_t *mask,
                    uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        f->data[at + i] &= mask && !(mask[i / 8] >> i % 8 & 1) ? 0xff : p[i];
    }
    changed(f, at, n);
}

/* What each chip answers to a query, by its word address. */
static uint8_t cfi(uint32_t word)
{
    static const uint8_t table[] = {
        'Q',  'R',  'Y',  0x01, 0x00, 0x31, 0x00, 0x00, 0x00, 0x00, 0x00, /* 10: command sets */
        0x45, 0x55, 0x00, 0x00, 0x07, 0x07, 0x0a, 0x00, 0x04, 0x04, 0x04, 0x00, /* 1b: timing */
        0x18, 0x01, 0x00, 0x0a, 0x00, 0x01, /* 27: 16 MiB, x16, 1 KiB buffer, one region */
        0x7f, 0x00, 0x00, 0x02,             /* 2d: 128 blocks of 128 KiB */
        'P',  'R',  'I',  '1',  '0',  0x00, 0x00, 0x00, 0x00, 0x00, /* 31: nothing optional */
    };

    return word >= 0x10 && word - 0x10 < sizeof(table) ? table[word - 0x10] : 0;
}

static uint32_t sector_size(const struct pflash *f)
{
    return f->bytes ? BYTE_SECTOR : SECTOR;
}

static uint32_t chip_read(struct pflash *f, uint32_t at)
{
    static const uint8_t id[] = { 0x89, 0x18 }; /* Intel, 128 Mbit */
    uint32_t word = at % sector_size(f) / 4;

    switch (f->mode) {
    case READ_STATUS:
        return f->bytes ? f->status * 0x01010101u : BOTH(f->status);
    case READ_ID:
        return word < 2 ? BOTH(id[word]) : 0;
    case READ_CFI:
        return BOTH(cfi(at / 4));
    default:
        return 0;
    }
}

static uint64_t flash_read(void *opaque, uint64_t offset, unsigned size)
{
    struct pflash *f = opaque;
    uint64_t v = 0;

    for (unsigned i = 0; i < size; i++) {
        uint8_t byte = f->mode == READ_ARRAY
                           ? f->data[offset + i]
                           : (uint8_t)(chip_read(f, (uint32_t)(offset + i) & ~3u) >>
                                       (8 * ((offset + i) & 3)));

        v |= (uint64_t)byte << (8 * i);
    }
    return v;
}

static void fail(struct pflash *f, uint8_t bits)
{
    f->status |= bits;
    f->step = IDLE;
    f->mode = READ_STATUS;
}

static void command(struct pflash *f, uint8_t c)
{
    f->step = IDLE;
    f->mode = READ_STATUS;
    switch (c) {
    case 0x10:
    case 0x40:
        f->step = WORD;
        break;
    case 0x20:
        f->step = ERASE;
        break;
    case 0x50:
        f->status = READY;
        break;
    case 0x60:
        f->step = LOCK;
        break;
    case 0x70:
        break;
    case 0x90:
        f->mode = READ_ID;
        break;
    case 0x98:
        f->mode = READ_CFI;
        break;
    case 0xe8:
        f->step = COUNT;
        break;
    default: /* 0xff, and what chips do not know */
        f->mode = READ_ARRAY;
    }
}

static void erase(struct pflash *f, uint32_t at, uint8_t confirm)
{
    uint32_t size = sector_size(f), sector = at & ~(size - 1);

    f->step = IDLE;
    if (confirm != 0xd0) {
        fail(f, SEQUENCE_ERROR);
        return;
    }
    memset(f->data + sector, 0xff, size);
    changed(f, sector, size);
}

static void take_count(struct pflash *f, uint32_t at, uint32_t value)
{
    uint32_t words = (value & 0xffff) + 1;

    if (words * 4 > BUFFER) {
        fail(f, PROGRAM_ERROR);
        return;
    }
    f->left = words * 4;
    f->first = at & ~(BUFFER - 1);
    f->step = FILL;
    memset(f->written, 0, sizeof(f->written));
}

/* Bytes for the buffer may come in any order, all in one aligned buffer's worth of the array or,
 * as drivers do that begin elsewhere, from the first address on. */
static void fill(struct pflash *f, uint32_t at, uint64_t value, unsigned size)
{
    static const uint8_t none[BUFFER / 8];

    if (memcmp(f->written, none, sizeof(none)) == 0) {
        f->first = at;
    }
    if (at < f->first || at - f->first + size > BUFFER || size > f->left) {
        fail(f, PROGRAM_ERROR);
        return;
    }
    for (unsigned i = 0; i < size; i++) {
        uint32_t where = at - f->first + i;

        f->buffer[where] = (uint8_t)(value >> (8 * i));
        f->written[where / 8] |= (uint8_t)(1u << where % 8);
    }
    f->left -= size;
    f->step = f->left ? FILL : CONFIRM;
}

static void confirm(struct pflash *f, uint8_t c)
{
    uint32_t n = BANK_SIZE - f->first < BUFFER ? BANK_SIZE - f->first : BUFFER;

    f->step = IDLE;
    if (c == 0xd0) {
        program(f, f->first, f->buffer, f->written, n);
    } else {
        fail(f, SEQUENCE_ERROR);
    }
}

static void flash_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    struct pflash *f = opaque;
    uint32_t at = (uint32_t)offset;
    uint8_t bytes[8];

    switch (f->step) {
    case WORD:
        for (unsigned i = 0; i < size; i++) {
            bytes[i] = (uint8_t)(value >> (8 * i));
        }
        program(f, at, bytes, NULL, size);
        f->step = IDLE;
        break;
    case ERASE:
        erase(f, at, (uint8_t)value);
        break;
    case LOCK: /* blocks are never locked */
        f->step = IDLE;
        break;
    case COUNT:
        take_count(f, at, (uint32_t)value);
        break;
    case FILL:
        fill(f, at, value, size);
        break;
    case CONFIRM:
        confirm(f, (uint8_t)value);
        break;
    default:
        command(f, (uint8_t)value);
    }
}

/* --- class
 * ----------------------------------------------------------------------------------- */

static int pflash_realize(struct device *d, struct err *e)
{
    struct pflash *f = pflash_of(d);
    uint64_t size = blk_size(f->node);
    AUTO_FREE char *name = xasprintf("%s.array", d->id);
    int rc;

    f->dirty_low = BANK_SIZE;
    if (size == 0 || size > BANK_SIZE) {
        return err_set(e, -EFBIG, "flash '%s': a bank holds 32 MiB, the image has %llu bytes",
                       blk_name(f->node), (unsigned long long)size);
    }
    rc = mem_new_rom(name, BANK_SIZE, &f->rom, e);
    if (rc != 0) {
        return rc;
    }
    f->data = mem_ram_host(f->rom);
    rc = blk_pread(f->node, 0, f->data, size);
    if (rc != 0) {
        return err_set(e, rc, "flash '%s' cannot be read: %s", blk_name(f->node),
                       strerror(-rc));
    }
    memset(f->data + size, 0xff, BANK_SIZE - size);
    return 0;
}

static void pflash_reset(struct device *d)
{
    struct pflash *f = pflash_of(d);

    bus_lock(&d->lock);
    f->mode = READ_ARRAY;
    f->step = IDLE;
    f->status = READY;
    bus_unlock(&d->lock);
}

static bool pflash_quiesce(struct device *d)
{
    struct pflash *f = pflash_of(d);

    write_back(f);
    return !f->busy;
}

static void pflash_destroy(struct device *d)
{
    struct pflash *f = pflash_of(d);

    if (f->rom && f->data && f->node) {
        blk_wait_idle(f->node);
        if (f->dirty_low < f->dirty_high && !blk_readonly(f->node)) {
            uint64_t end = f->dirty_high < blk_size(f->node) ? f->dirty_high
                                                             : blk_size(f->node);

            if (end > f->dirty_low) {
                (void)blk_pwrite(f->node, f->dirty_low, f->data + f->dirty_low,
                                 end - f->dirty_low);
            }
        }
    }
    blk_close(f->node);
    free(f->copy);
    if (f->rom) {
        mem_unmap(f->rom);
        mem_free(f->rom);
    }
}

static int pflash_loaded(void *obj, struct err *e)
{
    struct pflash *f = obj;

    if (f->mode > READ_CFI || f->step > CONFIRM || f->left > BUFFER || f->first >= BANK_SIZE) {
        return err_set(e, -EINVAL, "%s: the state of the flash is impossible", f->dev.id);
    }
    return 0;
}

static const struct st_field pflash_fields[] = {
    ST_FIELD(struct pflash, mode, ST_U8, 1, "what reads see: array, status, id, query"),
    ST_FIELD(struct pflash, step, ST_U8, 1, "what the next write is"),
    ST_FIELD(struct pflash, status, ST_U8, 1, "status register"),
    ST_FIELD(struct pflash, left, ST_U32, 1, "bytes that the buffer still takes"),
    ST_FIELD(struct pflash, first, ST_U32, 1, "where in the array it goes"),
    ST_ARRAY(struct pflash, buffer, ST_BYTES, BUFFER, 1, "the buffer"),
    ST_ARRAY(struct pflash, written, ST_BYTES, BUFFER / 8, 1, "which of its bytes are filled"),
    ST_END,
};
static const struct st_table pflash_state = {
    .name = "cfi-flash",
    .version = 1,
    .fields = pflash_fields,
    .loaded = pflash_loaded,
};

static const struct dev_prop pflash_props[] = {
    { .name = "node",
      .kind = PROP_PTR,
      .offset = offsetof(struct pflash, node),
      .required = true,
      .doc = "block node with the contents; the device closes it" },
    { .name = "bytes",
      .kind = PROP_BOOL,
      .offset = offsetof(struct pflash, bytes),
      .doc = "one chip of 8 bits with sectors of 4 KiB, as OVMF drives it" },
    { .name = NULL },
};

static const struct mem_io_ops pflash_ops = { flash_read, flash_write, 1, 8 };
static const struct dev_reg_block pflash_blocks[] = {
    { .name = "bank", .size = BANK_SIZE, .ops = &pflash_ops, .min_size = 1, .max_size = 8 },
    { .name = NULL },
};

const struct device_class cfi_flash_class = {
    .name = "cfi-flash",
    .doc = "bank of parallel flash, 32 MiB in sectors of 256 KiB, Intel command set",
    .size = sizeof(struct pflash),
    .props = pflash_props,
    .blocks = pflash_blocks,
    .state = &pflash_state,
    .realize = pflash_realize,
    .reset = pflash_reset,
    .quiesce = pflash_quiesce,
    .destroy = pflash_destroy,
};
