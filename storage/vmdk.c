/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Format driver "vmdk": VMware's images of one file, sparse and stream-optimised (compressed grains), read-only. A
 * grain directory leads to grain tables, these to grains. Facts: VMware's "Virtual Disk Format 5.0"; numbers are
 * little endian, places are counted in sectors.
 */
#include "storage/foreign.h"

#include "engine/base/mem.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <zlib.h>

enum {
    HEADER = 512,
    MARKER = 12, /* of a packed grain: its sector, its length */
    MAX_GRAIN = 2 << 20,
    MAX_DESCRIPTOR = 1 << 20,
    F_ZEROED = 4,
    F_PACKED = 1 << 16,
    F_MARKERS = 1 << 17,
    DEFLATE = 1
};
#define GD_AT_END UINT64_MAX
#define DESCRIPTOR "# Disk DescriptorFile"

struct vmdk {
    struct foreign f;
    uint64_t directory, n_directory; /* bytes; entries */
    uint32_t per_table, flags;
};

static bool is_sparse(const uint8_t *p)
{
    return memcmp(p, "KDMV", 4) == 0;
}

static int vmdk_probe(const uint8_t *head, size_t n, uint64_t file_size)
{
    (void)file_size;
    return (n >= HEADER && is_sparse(head)) ||
                   (n >= sizeof(DESCRIPTOR) &&
                    memcmp(head, DESCRIPTOR, sizeof(DESCRIPTOR) - 1) == 0)
               ? 100
               : 0;
}

static int entry_read(struct vmdk *v, uint64_t at, uint32_t *out)
{
    uint8_t raw[4];
    int rc = fo_inside(&v->f, at, 4) ? fo_table(&v->f, at, raw, 4) : -EIO;

    *out = (uint32_t)fo_le(raw, 4);
    return rc;
}

static int vmdk_lookup(struct foreign *f, uint64_t offset, struct fo_run *run)
{
    struct vmdk *v = (struct vmdk *)f;
    uint64_t grain = offset / f->block, in = offset % f->block;
    uint64_t span = f->block * v->per_table;
    uint32_t table, entry;
    int rc;

    if (offset / span >= v->n_directory) {
        return -EIO;
    }
    rc = entry_read(v, v->directory + offset / span * 4, &table);
    if (rc == 0 && table == 0) {
        *run = (struct fo_run){ .type = FO_HOLE, .length = span - offset % span };
        return 0;
    }
    rc = rc ? rc
            : entry_read(v, (uint64_t)table * BLK_SECTOR + grain % v->per_table * 4, &entry);
    if (rc != 0) {
        return rc;
    }
    if (entry == 0 || (entry == 1 && v->flags & F_ZEROED)) {
        *run = (struct fo_run){ .type = entry ? FO_ZERO : FO_HOLE, .length = f->block - in };
        return 0;
    }
    if (v->flags & F_PACKED) {
        *run = (struct fo_run){ .type = FO_PACKED,
                                .host = (uint64_t)entry * BLK_SECTOR,
                                .length = f->block - in };
        return 0;
    }
    return fo_data(f, (uint64_t)entry * BLK_SECTOR + in, f->block - in, run);
}

/* A packed grain: with a marker that names its sector, zlib data. Never more than a grain comes out. */
static int vmdk_unpack(struct foreign *f, uint64_t host, uint64_t start, uint8_t *out)
{
    uint64_t want = f->node.size - start < f->block ? f->node.size - start : f->block, size;
    uint8_t marker[MARKER];
    AUTO_FREE uint8_t *in = NULL;
    z_stream z = { .next_out = out, .avail_out = (uInt)f->block };
    int rc;

    if (!fo_inside(f, host, MARKER)) {
        return -EIO;
    }
    rc = blk_kid_read(f->file, host, marker, MARKER);
    size = fo_le(marker + 8, 4);
    if (rc != 0 || size > 2 * f->block + 1024 || !fo_inside(f, host + MARKER, size) ||
        fo_le(marker, 8) != start / BLK_SECTOR) {
        return rc ? rc : -EIO;
    }
    in = xalloc(size + 1);
    rc = blk_kid_read(f->file, host + MARKER, in, size);
    if (rc != 0) {
        return rc;
    }
    z.next_in = in;
    z.avail_in = (uInt)size;
    if (inflateInit(&z) != Z_OK) {
        return -ENOMEM;
    }
    rc = inflate(&z, Z_FINISH);
    inflateEnd(&z);
    return (rc == Z_STREAM_END || rc == Z_BUF_ERROR) && z.total_out >= want ? 0 : -EIO;
}

/* --- opening --- */

/* The value of a line NAME=value or NAME="value"; "" when there is none. */
static void descriptor_value(const char *text, const char *name, char *out, size_t room)
{
    size_t n = strlen(name);

    *out = 0;
    for (const char *line = text; line; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (strncasecmp(line, name, n) == 0 && line[n] == '=') {
            const char *v = line + n + 1;
            size_t len;

            v += *v == '"';
            len = strcspn(v, "\"\r\n");
            snprintf(out, room, "%.*s", (int)(len < room ? len : room - 1), v);
            return;
        }
    }
}

static int check_descriptor(struct vmdk *v, uint64_t at, uint64_t size, struct err *e)
{
    struct foreign *f = &v->f;
    AUTO_FREE char *text = NULL;
    char parent[16];
    int rc;

    if (size == 0) {
        return 0;
    }
    if (size > MAX_DESCRIPTOR || !fo_inside(f, at, size)) {
        return fo_bad(f, e, "its descriptor lies outside the file");
    }
    text = xalloc(size + 1);
    rc = blk_kid_read(f->file, at, text, size);
    if (rc != 0) {
        return err_errno(e, -rc, "disk '%s': cannot read %s", f->node.name, f->node.path);
    }
    descriptor_value(text, "parentCID", parent, sizeof(parent));
    descriptor_value(text, "createType", f->variant, sizeof(f->variant));
    if (*parent && strcasecmp(parent, "ffffffff") != 0) {
        return err_set(e, -ENOTSUP,
                       "disk '%s': %s has a parent image; merge it in VMware first",
                       f->node.name, f->node.path);
    }
    if (*f->variant && strcmp(f->variant, "monolithicSparse") != 0 &&
        strcmp(f->variant, "streamOptimized") != 0) {
        return err_set(
            e, -ENOTSUP,
            "disk '%s': %s is of type %s; only monolithicSparse and streamOptimized are "
            "read",
            f->node.name, f->node.path, f->variant);
    }
    return 0;
}

/* A descriptor of its own: which type is it that we do not read? */
static int refuse_descriptor(struct vmdk *v, struct err *e)
{
    struct foreign *f = &v->f;
    uint64_t size = f->length < MAX_DESCRIPTOR ? f->length : MAX_DESCRIPTOR;
    int rc = check_descriptor(v, 0, size, e);

    return rc ? rc
              : err_set(e, -ENOTSUP,
                        "disk '%s': %s only describes other files; convert it to one file in "
                        "VMware first",
                        f->node.name, f->node.path);
}

/* A stream has its real header behind its data: the last sector but one. */
static int read_footer(struct vmdk *v, uint8_t *h, struct err *e)
{
    struct foreign *f = &v->f;
    int rc;

    if (f->length < 3 * BLK_SECTOR) {
        return fo_bad(f, e, "its footer is missing");
    }
    rc = blk_kid_read(f->file, f->length / BLK_SECTOR * BLK_SECTOR - 2 * BLK_SECTOR, h, HEADER);
    if (rc != 0) {
        return err_errno(e, -rc, "disk '%s': cannot read %s", f->node.name, f->node.path);
    }
    return is_sparse(h) && fo_le(h + 56, 8) != GD_AT_END
               ? 0
               : fo_bad(f, e, "its footer is missing");
}

static int check_header(struct vmdk *v, const uint8_t *h, struct err *e)
{
    struct foreign *f = &v->f;
    uint64_t capacity = fo_le(h + 12, 8), grain = fo_le(h + 20, 8), at = fo_le(h + 56, 8), span;

    v->flags = (uint32_t)fo_le(h + 8, 4);
    v->per_table = (uint32_t)fo_le(h + 44, 4);
    if (grain == 0 || grain > MAX_GRAIN / BLK_SECTOR || grain & (grain - 1)) {
        return fo_bad(f, e, "its grain size is not a power of two up to 2 MiB");
    }
    if (v->per_table == 0 || v->per_table > 512) {
        return fo_bad(f, e, "its grain tables have not 1 to 512 entries");
    }
    if (capacity > 1ull << 51) {
        return fo_bad(f, e, "its size is beyond all bounds");
    }
    if (v->flags & F_PACKED && fo_le(h + 77, 2) != DEFLATE) {
        return err_set(e, -ENOTSUP,
                       "disk '%s': %s is compressed by method %u; we know 1 (deflate)",
                       f->node.name, f->node.path, (unsigned)fo_le(h + 77, 2));
    }
    f->block = grain * BLK_SECTOR;
    f->node.size = capacity * BLK_SECTOR;
    span = f->block * v->per_table;
    v->n_directory = (f->node.size + span - 1) / span;
    v->directory = at * BLK_SECTOR;
    if (at > f->length / BLK_SECTOR || !fo_inside(f, v->directory, v->n_directory * 4)) {
        return fo_bad(f, e, "its grain directory lies outside the file");
    }
    return 0;
}

static const struct fo_format format = { .lookup = vmdk_lookup, .unpack = vmdk_unpack };

static int vmdk_open(struct blk_node *n, const struct blk_options *o, struct err *e)
{
    struct vmdk *v = (struct vmdk *)n;
    uint8_t h[HEADER];
    uint64_t descriptor, sectors;
    int rc = fo_open(&v->f, &format, o, e);

    if (rc != 0) {
        return rc;
    }
    rc = blk_kid_read(v->f.file, 0, h, HEADER);
    if (rc != 0) {
        return err_errno(e, -rc, "disk '%s': cannot read %s", n->name, n->path);
    }
    if (!is_sparse(h)) {
        return vmdk_probe(h, HEADER, 0)
                   ? refuse_descriptor(v, e)
                   : err_set(e, -EINVAL, "disk '%s': %s is no vmdk image", n->name, n->path);
    }
    if (fo_le(h + 4, 4) < 1 || fo_le(h + 4, 4) > 3) {
        return err_set(e, -ENOTSUP,
                       "disk '%s': %s is of version %u of its format; we know 1 to 3", n->name,
                       n->path, (unsigned)fo_le(h + 4, 4));
    }
    if (h[73] != '\n' || h[75] != '\r' || h[76] != '\n') {
        return fo_bad(&v->f, e, "it was carried as text, which changed its bytes");
    }
    descriptor = fo_le(h + 28, 8);
    sectors = fo_le(h + 36, 8);
    descriptor = descriptor < 1ull << 50 ? descriptor * BLK_SECTOR : UINT64_MAX;
    rc = check_descriptor(v, descriptor, sectors < 1 << 20 ? sectors * BLK_SECTOR : UINT64_MAX,
                          e);
    if (rc == 0 && fo_le(h + 56, 8) == GD_AT_END) {
        rc = read_footer(v, h, e);
    }
    return rc ? rc : check_header(v, h, e);
}

const struct blk_driver blk_vmdk_driver = {
    .name = "vmdk",
    .doc = "VMware's images of one file, read-only",
    .kind = BLK_FORMAT,
    .size = sizeof(struct vmdk),
    .probe = vmdk_probe,
    .open = vmdk_open,
    .run = fo_run_req,
    .map = fo_map,
    .image = &fo_image,
    .close = fo_close,
};
