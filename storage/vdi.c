/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Format driver "vdi": VirtualBox's disk images, dynamic and fixed, read-only. A header and one table of blocks. Facts: the
 * header as VirtualBox writes it (version 1.1), all numbers little endian.
 */
#include "storage/foreign.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

enum {
    HEADER = 512,
    SIGNATURE_AT = 0x40,
    SIGNATURE = (int)0xbeda107f,
    FORMAT_1_1 = 0x00010001,
    DYNAMIC = 1,
    FIXED = 2,
    MIN_BLOCK = 4096,
    MAX_BLOCK = 256 << 20
};
#define UNUSED_BLOCK 0xffffffffu
#define ZERO_BLOCK 0xfffffffeu

struct vdi {
    struct foreign f;
    uint64_t map, data;
    uint32_t extra; /* bytes before each block */
    uint32_t n_blocks;
};

static int vdi_probe(const uint8_t *head, size_t n, uint64_t file_size)
{
    (void)file_size;
    return n >= HEADER && fo_le(head + SIGNATURE_AT, 4) == (uint32_t)SIGNATURE ? 100 : 0;
}

static int vdi_lookup(struct foreign *f, uint64_t offset, struct fo_run *run)
{
    struct vdi *v = (struct vdi *)f;
    uint64_t i = offset / f->block, in = offset % f->block;
    uint8_t raw[4];
    uint32_t entry;
    int rc;

    if (i >= v->n_blocks) {
        return -EIO;
    }
    rc = fo_table(f, v->map + i * 4, raw, 4);
    entry = (uint32_t)fo_le(raw, 4);
    if (rc != 0) {
        return rc;
    }
    if (entry >= ZERO_BLOCK) {
        *run = (struct fo_run){ .type = entry == ZERO_BLOCK ? FO_ZERO : FO_HOLE,
                                .length = f->block - in };
        return 0;
    }
    return fo_data(f, v->data + (uint64_t)entry * (f->block + v->extra) + v->extra + in,
                   f->block - in, run);
}

static bool all_zero(const uint8_t *p, size_t n)
{
    while (n > 0 && *p == 0) {
        p++;
        n--;
    }
    return n == 0;
}

static int vdi_check(struct vdi *v, const uint8_t *h, struct err *e)
{
    struct foreign *f = &v->f;
    uint32_t type = (uint32_t)fo_le(h + 0x4c, 4);

    if (fo_le(h + 0x44, 4) != FORMAT_1_1) {
        return err_set(e, -ENOTSUP,
                       "disk '%s': %s is of version %u.%u of its format; we know 1.1",
                       f->node.name, f->node.path, (unsigned)fo_le(h + 0x46, 2),
                       (unsigned)fo_le(h + 0x44, 2));
    }
    if (type != DYNAMIC && type != FIXED) {
        return err_set(e, -ENOTSUP,
                       "disk '%s': %s is an image of type %u; merge differences in VirtualBox "
                       "first",
                       f->node.name, f->node.path, type);
    }
    if (!all_zero(h + 0x1a8, 32)) {
        return err_set(e, -ENOTSUP,
                       "disk '%s': %s has a parent image; merge it in VirtualBox first",
                       f->node.name, f->node.path);
    }
    if (fo_le(h + 0x168, 4) != BLK_SECTOR) {
        return fo_bad(f, e, "its sectors are not of 512 bytes");
    }
    if (f->block < MIN_BLOCK || f->block > MAX_BLOCK || f->block & (f->block - 1)) {
        return fo_bad(f, e, "its block size is not a power of two from 4 KiB to 256 MiB");
    }
    if (v->f.node.size > 1ull << 60 || (f->node.size + f->block - 1) / f->block > v->n_blocks) {
        return fo_bad(f, e, "it has fewer blocks than its size needs");
    }
    if (!fo_inside(f, v->map, (uint64_t)v->n_blocks * 4)) {
        return fo_bad(f, e, "its table of blocks lies outside the file");
    }
    if (v->data < v->map + (uint64_t)v->n_blocks * 4) {
        return fo_bad(f, e, "its data lies in its table of blocks");
    }
    snprintf(f->variant, sizeof(f->variant), "%s", type == FIXED ? "fixed" : "dynamic");
    return 0;
}

static const struct fo_format format = { .lookup = vdi_lookup };

static int vdi_open(struct blk_node *n, const struct blk_options *o, struct err *e)
{
    struct vdi *v = (struct vdi *)n;
    uint8_t h[HEADER];
    int rc = fo_open(&v->f, &format, o, e);

    if (rc != 0) {
        return rc;
    }
    rc = blk_kid_read(v->f.file, 0, h, HEADER);
    if (rc != 0) {
        return err_errno(e, -rc, "disk '%s': cannot read %s", n->name, n->path);
    }
    if (!vdi_probe(h, HEADER, 0)) {
        return err_set(e, -EINVAL, "disk '%s': %s is no vdi image", n->name, n->path);
    }
    v->map = fo_le(h + 0x154, 4);
    v->data = fo_le(h + 0x158, 4);
    v->extra = (uint32_t)fo_le(h + 0x17c, 4);
    v->n_blocks = (uint32_t)fo_le(h + 0x180, 4);
    v->f.block = fo_le(h + 0x178, 4);
    n->size = fo_le(h + 0x170, 8);
    n->size = n->size > 1ull << 60 ? UINT64_MAX
                                   : (n->size + BLK_SECTOR - 1) / BLK_SECTOR * BLK_SECTOR;
    return vdi_check(v, h, e);
}

const struct blk_driver blk_vdi_driver = {
    .name = "vdi",
    .doc = "VirtualBox's images, read-only",
    .kind = BLK_FORMAT,
    .size = sizeof(struct vdi),
    .probe = vdi_probe,
    .open = vdi_open,
    .run = fo_run_req,
    .map = fo_map,
    .image = &fo_image,
    .close = fo_close,
};
