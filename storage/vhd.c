/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Format driver "vhd" (QEMU: vpc): images of Virtual PC and older Hyper-V, fixed and dynamic, read-only. A footer in the last
 * sector; dynamic ones have a second header and a table of blocks. Facts: Microsoft's "Virtual Hard Disk Image Format
 * Specification" 1.0; numbers are big endian. The bitmap of sectors before each block is not looked at: without a
 * parent, what was never written reads as zeroes in the file too.
 */
#include "storage/foreign.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

enum {
    FOOTER = 512,
    HEADER = 1024,
    FIXED = 2,
    DYNAMIC = 3,
    DIFFERENCING = 4,
    MIN_BLOCK = 4096,
    MAX_BLOCK = 256 << 20
};
#define UNUSED_BLOCK 0xffffffffu

struct vhd {
    struct foreign f;
    bool fixed;
    uint64_t table;
    uint32_t n_blocks, bitmap; /* bitmap: bytes before each block */
};

static int vhd_probe(const uint8_t *head, size_t n, uint64_t file_size)
{
    (void)file_size; /* of a fixed one only the end tells, which may be a guest's data */
    return n >= FOOTER && memcmp(head, "conectix", 8) == 0 ? 100 : 0;
}

static int vhd_lookup(struct foreign *f, uint64_t offset, struct fo_run *run)
{
    struct vhd *v = (struct vhd *)f;
    uint64_t in;
    uint8_t raw[4];
    uint32_t entry;
    int rc;

    if (v->fixed) {
        return fo_data(f, offset, f->node.size - offset, run);
    }
    in = offset % f->block;
    if (offset / f->block >= v->n_blocks) {
        return -EIO;
    }
    rc = fo_table(f, v->table + offset / f->block * 4, raw, 4);
    entry = (uint32_t)fo_be(raw, 4);
    if (rc != 0) {
        return rc;
    }
    if (entry == UNUSED_BLOCK) {
        *run = (struct fo_run){ .type = FO_HOLE, .length = f->block - in };
        return 0;
    }
    return fo_data(f, (uint64_t)entry * BLK_SECTOR + v->bitmap + in, f->block - in, run);
}

/* The sum of all bytes but those of the checksum, inverted. */
static bool sum_ok(const uint8_t *p, size_t n, size_t at)
{
    uint32_t sum = 0;

    for (size_t i = 0; i < n; i++) {
        sum += i >= at && i < at + 4 ? 0 : p[i];
    }
    return (uint32_t)fo_be(p + at, 4) == ~sum;
}

static bool footer_ok(const uint8_t *p)
{
    return memcmp(p, "conectix", 8) == 0 && sum_ok(p, FOOTER, 64);
}

/* The footer at the end, or its copy at the beginning of a dynamic image. */
static int find_footer(struct foreign *f, uint8_t *p, struct err *e)
{
    uint64_t end = f->length >= FOOTER ? f->length - FOOTER : 0;
    uint64_t last = end % FOOTER ? f->length / FOOTER * FOOTER
                                 : end; /* old ones have 511 bytes */
    uint64_t places[] = { end, last, 0 };
    bool any = false;

    for (unsigned i = 0; i < 3; i++) {
        int rc = blk_kid_read(f->file, places[i], p, FOOTER);

        if (rc != 0) {
            return err_errno(e, -rc, "disk '%s': cannot read %s", f->node.name, f->node.path);
        }
        if (footer_ok(p)) {
            return 0;
        }
        any |= memcmp(p, "conectix", 8) == 0;
    }
    return any ? fo_bad(f, e, "the checksum of its footer")
               : err_set(e, -EINVAL, "disk '%s': %s is no vhd image", f->node.name,
                         f->node.path);
}

static int open_dynamic(struct vhd *v, uint64_t at, struct err *e)
{
    struct foreign *f = &v->f;
    uint8_t h[HEADER];
    int rc = fo_inside(f, at, HEADER) ? blk_kid_read(f->file, at, h, HEADER)
                                      : fo_bad(f, e, "its second header lies outside the file");

    if (rc != 0) {
        return e->code
                   ? rc
                   : err_errno(e, -rc, "disk '%s': cannot read %s", f->node.name, f->node.path);
    }
    if (memcmp(h, "cxsparse", 8) != 0 || !sum_ok(h, HEADER, 36)) {
        return fo_bad(f, e, "the checksum of its second header");
    }
    v->table = fo_be(h + 16, 8);
    v->n_blocks = (uint32_t)fo_be(h + 28, 4);
    f->block = fo_be(h + 32, 4);
    if (f->block < MIN_BLOCK || f->block > MAX_BLOCK || f->block & (f->block - 1)) {
        return fo_bad(f, e, "its block size is not a power of two from 4 KiB to 256 MiB");
    }
    if ((f->node.size + f->block - 1) / f->block > v->n_blocks) {
        return fo_bad(f, e, "it has fewer blocks than its size needs");
    }
    if (!fo_inside(f, v->table, (uint64_t)v->n_blocks * 4)) {
        return fo_bad(f, e, "its table of blocks lies outside the file");
    }
    v->bitmap = (uint32_t)((f->block / BLK_SECTOR / 8 + BLK_SECTOR - 1) / BLK_SECTOR *
                           BLK_SECTOR);
    return 0;
}

static const struct fo_format format = { .lookup = vhd_lookup };

static int vhd_open(struct blk_node *n, const struct blk_options *o, struct err *e)
{
    struct vhd *v = (struct vhd *)n;
    uint8_t p[FOOTER];
    uint32_t type;
    int rc = fo_open(&v->f, &format, o, e);

    rc = rc ? rc : find_footer(&v->f, p, e);
    if (rc != 0) {
        return rc;
    }
    type = (uint32_t)fo_be(p + 60, 4);
    n->size = fo_be(p + 48, 8);
    if (fo_be(p + 12, 4) >> 16 != 1) {
        return err_set(e, -ENOTSUP, "disk '%s': %s is of version %u of its format; we know 1",
                       n->name, n->path, (unsigned)fo_be(p + 12, 2));
    }
    if (n->size > 1ull << 60) {
        return fo_bad(&v->f, e, "its size is beyond all bounds");
    }
    n->size = (n->size + BLK_SECTOR - 1) / BLK_SECTOR * BLK_SECTOR;
    v->fixed = type == FIXED;
    if (type == DIFFERENCING) {
        return err_set(e, -ENOTSUP,
                       "disk '%s': %s has a parent image; merge it with its own tools first",
                       n->name, n->path);
    }
    if (type != FIXED && type != DYNAMIC) {
        return fo_bad(&v->f, e, "its type is none that we know");
    }
    snprintf(v->f.variant, sizeof(v->f.variant), "%s", v->fixed ? "fixed" : "dynamic");
    if (!v->fixed) {
        return open_dynamic(v, fo_be(p + 16, 8), e);
    }
    return fo_inside(&v->f, 0, n->size) ? 0 : fo_bad(&v->f, e, "it is shorter than its size");
}

const struct blk_driver blk_vhd_driver = {
    .name = "vhd",
    .alias = "vpc",
    .doc = "Virtual PC's and Hyper-V's older images, read-only",
    .kind = BLK_FORMAT,
    .size = sizeof(struct vhd),
    .probe = vhd_probe,
    .open = vhd_open,
    .run = fo_run_req,
    .map = fo_map,
    .image = &fo_image,
    .close = fo_close,
};
