/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Format driver "vhdx": Hyper-V's images, fixed and dynamic, read-only. Two headers, of which the newer sound one
 * counts; a table of regions; metadata items; a table of blocks. An image that was not closed has a log whose
 * entries must be put in place first; such an image is refused. Facts: Microsoft, [MS-VHDX]; numbers are
 * little endian.
 */
#include "storage/foreign.h"

#include "engine/base/mem.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

enum {
    HEADER = 4096,
    HEADER_AT = 64 << 10,
    REGIONS_AT = 192 << 10,
    REGIONS = 64 << 10,
    MAX_REGIONS = 2047,
    ITEMS_MAX = 2047,
    METADATA = 64 << 10, /* the table of items */
    ENTRY = 32,
    MIB = 1 << 20,
    HAS_PARENT = 2
};
enum state { NOT_PRESENT, UNDEFINED, ZERO, UNMAPPED, PRESENT = 6, PARTIAL = 7 };

/* As they stand in files. */
static const uint8_t id_bat[16] =
    "\x66\x77\xc2\x2d\x23\xf6\x00\x42\x9d\x64\x11\x5e\x9b\xfd\x4a\x08";
static const uint8_t id_meta[16] =
    "\x06\xa2\x7c\x8b\x90\x47\x9a\x4b\xb8\xfe\x57\x5f\x05\x0f\x88\x6e";
static const uint8_t id_params[16] =
    "\x37\x67\xa1\xca\x36\xfa\x43\x4d\xb3\xb6\x33\xf0\xaa\x44\xe7\x6b";
static const uint8_t id_size[16] =
    "\x24\x42\xa5\x2f\x1b\xcd\x76\x48\xb2\x11\x5d\xbe\xd8\x3b\xf4\xb8";
static const uint8_t id_page83[16] =
    "\xab\x12\xca\xbe\xe6\xb2\x23\x45\x93\xef\xc3\x09\xe0\x00\xc7\x46";
static const uint8_t id_logical[16] =
    "\x1d\xbf\x41\x81\x6f\xa9\x09\x47\xba\x47\xf2\x33\xa8\xfa\xab\x5f";
static const uint8_t id_physical[16] =
    "\xc7\x48\xa3\xcd\x5d\x44\x71\x44\x9c\xc9\xe9\x88\x52\x51\xc5\x56";
static const uint8_t id_parent[16] =
    "\x2d\x5f\xd3\xa8\x0b\xb3\x4d\x45\xab\xf7\xd3\xd8\x48\x34\xab\x0c";

struct vhdx {
    struct foreign f;
    uint64_t bat, bat_bytes, meta, meta_bytes;
    uint64_t ratio; /* blocks between two entries of the table that stand for bitmaps */
    uint32_t sector, params;
    bool have_size, have_params, have_sector;
};

/* CRC-32C, a byte at a time; few kilobytes are summed at opening. */
static uint32_t crc32c(const uint8_t *p, size_t n, size_t hole)
{
    uint32_t crc = UINT32_MAX;

    for (size_t i = 0; i < n; i++) {
        crc ^= i >= hole && i < hole + 4 ? 0 : p[i];
        for (unsigned k = 0; k < 8; k++) {
            crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78u : 0);
        }
    }
    return ~crc;
}

static int vhdx_probe(const uint8_t *head, size_t n, uint64_t file_size)
{
    (void)file_size;
    return n >= 8 && memcmp(head, "vhdxfile", 8) == 0 ? 100 : 0;
}

static int vhdx_lookup(struct foreign *f, uint64_t offset, struct fo_run *run)
{
    struct vhdx *v = (struct vhdx *)f;
    uint64_t block = offset / f->block, in = offset % f->block, i = block + block / v->ratio,
             entry;
    uint8_t raw[8];
    int rc;

    if (i * 8 + 8 > v->bat_bytes) {
        return -EIO;
    }
    rc = fo_table(f, v->bat + i * 8, raw, 8);
    entry = fo_le(raw, 8);
    if (rc != 0) {
        return rc;
    }
    switch ((enum state)(entry & 7)) {
    case NOT_PRESENT:
    case UNDEFINED:
    case UNMAPPED:
        *run = (struct fo_run){ .type = FO_HOLE, .length = f->block - in };
        return 0;
    case ZERO:
        *run = (struct fo_run){ .type = FO_ZERO, .length = f->block - in };
        return 0;
    case PRESENT:
        if (entry >> 20 == 0) {
            return -EIO;
        }
        return fo_data(f, (entry >> 20) * MIB + in, f->block - in, run);
    case PARTIAL:
    default:
        return -EIO;
    }
}

static int read_error(struct vhdx *v, int rc, struct err *e)
{
    return err_errno(e, -rc, "disk '%s': cannot read %s", v->f.node.name, v->f.node.path);
}

/* The sound header with the highest number. */
static int find_header(struct vhdx *v, uint8_t *best, struct err *e)
{
    AUTO_FREE uint8_t *h = xalloc(HEADER);
    bool found = false;

    for (unsigned i = 0; i < 2; i++) {
        int rc = blk_kid_read(v->f.file, HEADER_AT + (uint64_t)i * HEADER_AT, h, HEADER);

        if (rc != 0) {
            return read_error(v, rc, e);
        }
        if (memcmp(h, "head", 4) == 0 && fo_le(h + 4, 4) == crc32c(h, HEADER, 4) &&
            (!found || fo_le(h + 8, 8) > fo_le(best + 8, 8))) {
            memcpy(best, h, HEADER);
            found = true;
        }
    }
    return found ? 0 : fo_bad(&v->f, e, "neither of its headers has the right checksum");
}

static int check_header(struct vhdx *v, struct err *e)
{
    static const uint8_t none[16];
    AUTO_FREE uint8_t *h = xalloc(HEADER);
    int rc = find_header(v, h, e);

    if (rc == 0 && fo_le(h + 66, 2) != 1) {
        return err_set(e, -ENOTSUP, "disk '%s': %s is of version %u of its format; we know 1",
                       v->f.node.name, v->f.node.path, (unsigned)fo_le(h + 66, 2));
    }
    if (rc == 0 && memcmp(h + 48, none, 16) != 0) {
        return err_set(
            e, -ENOTSUP,
            "disk '%s': %s was not closed and its log waits; let Hyper-V or 'qemu-img "
            "check -r all' put it in place first",
            v->f.node.name, v->f.node.path);
    }
    return rc;
}

static int take_region(struct vhdx *v, const uint8_t *p, struct err *e)
{
    uint64_t at = fo_le(p + 16, 8), length = fo_le(p + 24, 4);
    bool bat = memcmp(p, id_bat, 16) == 0;

    if (!bat && memcmp(p, id_meta, 16) != 0) {
        return fo_le(p + 28, 4) & 1
                   ? err_set(e, -ENOTSUP, "disk '%s': %s needs a region that we do not know",
                             v->f.node.name, v->f.node.path)
                   : 0;
    }
    if (at < MIB || at % MIB || length == 0 || length % MIB || !fo_inside(&v->f, at, length)) {
        return fo_bad(&v->f, e, "a region lies outside the file");
    }
    if (bat ? v->bat_bytes : v->meta_bytes) {
        return fo_bad(&v->f, e, "a region is there twice");
    }
    *(bat ? &v->bat : &v->meta) = at;
    *(bat ? &v->bat_bytes : &v->meta_bytes) = length;
    return 0;
}

static int read_regions(struct vhdx *v, struct err *e)
{
    AUTO_FREE uint8_t *p = xalloc(REGIONS);
    bool found = false;
    uint32_t n;
    int rc = 0;

    for (unsigned i = 0; i < 2 && !found && rc == 0; i++) {
        rc = blk_kid_read(v->f.file, REGIONS_AT + (uint64_t)i * REGIONS, p, REGIONS);
        found = rc == 0 && memcmp(p, "regi", 4) == 0 &&
                fo_le(p + 4, 4) == crc32c(p, REGIONS, 4);
    }
    if (rc != 0) {
        return read_error(v, rc, e);
    }
    if (!found) {
        return fo_bad(&v->f, e, "neither of its tables of regions has the right checksum");
    }
    n = (uint32_t)fo_le(p + 8, 4);
    if (n > MAX_REGIONS) {
        return fo_bad(&v->f, e, "its table of regions is longer than 2047 entries");
    }
    for (uint32_t i = 0; i < n && rc == 0; i++) {
        rc = take_region(v, p + 16 + (size_t)i * ENTRY, e);
    }
    if (rc == 0 && (!v->bat_bytes || !v->meta_bytes)) {
        rc = fo_bad(&v->f, e, "a region is missing");
    }
    return rc;
}

/* One item of metadata. */
static int take_item(struct vhdx *v, const uint8_t *p, struct err *e)
{
    uint64_t at = fo_le(p + 16, 4), length = fo_le(p + 20, 4);
    uint8_t raw[8] = { 0 };
    int rc;

    if (memcmp(p, id_parent, 16) == 0 || memcmp(p, id_page83, 16) == 0 ||
        memcmp(p, id_physical, 16) == 0) {
        return 0;
    }
    if (memcmp(p, id_params, 16) != 0 && memcmp(p, id_size, 16) != 0 &&
        memcmp(p, id_logical, 16) != 0) {
        return fo_le(p + 24, 4) & 4
                   ? err_set(e, -ENOTSUP, "disk '%s': %s needs metadata that we do not know",
                             v->f.node.name, v->f.node.path)
                   : 0;
    }
    if (at < METADATA || length < 4 || at > v->meta_bytes || length > v->meta_bytes - at) {
        return fo_bad(&v->f, e, "an item of metadata lies outside its region");
    }
    rc = blk_kid_read(v->f.file, v->meta + at, raw, length < 8 ? length : 8);
    if (rc != 0) {
        return read_error(v, rc, e);
    }
    if (memcmp(p, id_params, 16) == 0) {
        v->f.block = fo_le(raw, 4);
        v->params = (uint32_t)fo_le(raw + 4, 4);
        v->have_params = true;
    } else if (memcmp(p, id_size, 16) == 0) {
        v->f.node.size = fo_le(raw, 8);
        v->have_size = true;
    } else {
        v->sector = (uint32_t)fo_le(raw, 4);
        v->have_sector = true;
    }
    return 0;
}

static int read_metadata(struct vhdx *v, struct err *e)
{
    AUTO_FREE uint8_t *p = xalloc(METADATA);
    int rc = blk_kid_read(v->f.file, v->meta, p, METADATA);
    uint32_t n;

    if (rc != 0) {
        return read_error(v, rc, e);
    }
    n = (uint32_t)fo_le(p + 10, 2);
    if (memcmp(p, "metadata", 8) != 0 || n > ITEMS_MAX) {
        return fo_bad(&v->f, e, "its table of metadata");
    }
    for (uint32_t i = 0; i < n && rc == 0; i++) {
        rc = take_item(v, p + 32 + (size_t)i * ENTRY, e);
    }
    if (rc == 0 && (!v->have_size || !v->have_params || !v->have_sector)) {
        rc = fo_bad(&v->f, e, "its size, block size or sector size is missing");
    }
    return rc;
}

static int check_numbers(struct vhdx *v, struct err *e)
{
    struct foreign *f = &v->f;
    uint64_t blocks;

    if (v->params & HAS_PARENT) {
        return err_set(e, -ENOTSUP,
                       "disk '%s': %s has a parent image; merge it in Hyper-V first",
                       f->node.name, f->node.path);
    }
    if (v->sector != 512 && v->sector != 4096) {
        return fo_bad(f, e, "its sectors have neither 512 nor 4096 bytes");
    }
    if (f->block < MIB || f->block > 256 * MIB || f->block & (f->block - 1)) {
        return fo_bad(f, e, "its block size is not a power of two from 1 MiB to 256 MiB");
    }
    if (f->node.size > 64ull << 40 || f->node.size % v->sector) {
        return fo_bad(f, e, "its size is over 64 TiB or not a multiple of its sectors");
    }
    v->ratio = ((uint64_t)v->sector << 23) / f->block;
    blocks = (f->node.size + f->block - 1) / f->block;
    blocks += blocks ? (blocks - 1) / v->ratio : 0;
    if (blocks * 8 > v->bat_bytes) {
        return fo_bad(f, e, "its table of blocks is too small for its size");
    }
    snprintf(f->variant, sizeof(f->variant), "%s", v->params & 1 ? "fixed" : "dynamic");
    return 0;
}

static const struct fo_format format = { .lookup = vhdx_lookup };

static int vhdx_open(struct blk_node *n, const struct blk_options *o, struct err *e)
{
    struct vhdx *v = (struct vhdx *)n;
    uint8_t id[8];
    int rc = fo_open(&v->f, &format, o, e);

    if (rc != 0) {
        return rc;
    }
    rc = blk_kid_read(v->f.file, 0, id, 8);
    if (rc != 0) {
        return read_error(v, rc, e);
    }
    if (!vhdx_probe(id, 8, 0)) {
        return err_set(e, -EINVAL, "disk '%s': %s is no vhdx image", n->name, n->path);
    }
    rc = check_header(v, e);
    rc = rc ? rc : read_regions(v, e);
    rc = rc ? rc : read_metadata(v, e);
    return rc ? rc : check_numbers(v, e);
}

const struct blk_driver blk_vhdx_driver = {
    .name = "vhdx",
    .doc = "Hyper-V's images, read-only",
    .kind = BLK_FORMAT,
    .size = sizeof(struct vhdx),
    .probe = vhdx_probe,
    .open = vhdx_open,
    .run = fo_run_req,
    .map = fo_map,
    .image = &fo_image,
    .close = fo_close,
};
