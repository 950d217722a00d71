/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside the storage room: what images of other programs have in common that we only read (vmdk, vdi, vhd,
 * vhdx): tables in the file that say where the blocks of the disk lie. A format opens, checks what it reads there, and
 * answers fo_lookup; reading, extents and a small cache of tables are here.
 *
 * After opening, any thread.
 */
#ifndef VMD_STORAGE_FOREIGN_H
#define VMD_STORAGE_FOREIGN_H

#include "storage/driver.h"

enum fo_type { FO_HOLE, FO_ZERO, FO_DATA, FO_PACKED };
struct fo_run {
    enum fo_type type;
    uint64_t host; /* FO_DATA: of the asked byte; FO_PACKED: of the packed block */
    uint64_t
        length; /* bytes from the asked offset on; never 0, for FO_PACKED to the block's end at most */
};

struct foreign;
struct fo_format {
    /* What lies at a guest offset: 0, or a negative errno when the image makes no sense there. */
    int (*lookup)(struct foreign *f, uint64_t offset, struct fo_run *run);
    /* One packed block at guest offset `start`, unpacked. NULL: there are none. */
    int (*unpack)(struct foreign *f, uint64_t host, uint64_t start, uint8_t *out);
};

enum { FO_SLICE = 4096, FO_SLICES = 64 };

struct foreign {
    struct blk_node node;
    const struct fo_format *format;
    struct blk_node *file;
    uint64_t length;      /* of the file */
    uint64_t block;       /* bytes */
    char variant[32];     /* for info */
    pthread_mutex_t lock; /* the cache */
    struct {
        uint64_t at; /* offset in the file + 1; 0: nothing here */
        uint8_t data[FO_SLICE];
    } * slice;
    uint8_t *packed_mem; /* the block unpacked last, at packed_at - 1 */
    uint64_t packed_at;
};

/* Begins an open: refuses writing. */
int fo_open(struct foreign *f, const struct fo_format *format, const struct blk_options *o,
            struct err *e);
/* "disk 'x': FILE is no sound vmdk image: what"; -EINVAL. */
int fo_bad(const struct foreign *f, struct err *e, const char *what);
/* Does a range lie in the file? */
bool fo_inside(const struct foreign *f, uint64_t offset, uint64_t length);
/* A few bytes of a table, through the cache. They do not cross a multiple of 4 when they are 4, of 8 when 8. */
int fo_table(struct foreign *f, uint64_t at, void *out, size_t n);
/* A run of data at host offset `host`, of `length` bytes or what the file has; -EIO behind its end. */
int fo_data(const struct foreign *f, uint64_t host, uint64_t length, struct fo_run *run);

/* Members of struct blk_driver. */
int fo_run_req(struct blk_node *n, struct blk_req *r);
int fo_map(struct blk_node *n, uint64_t offset, struct blk_extent *out, struct err *e);
int fo_close(struct blk_node *n);
extern const struct blk_image_ops fo_image;

/* Numbers in files: little and big endian. */
uint64_t fo_le(const uint8_t *p, unsigned n);
uint64_t fo_be(const uint8_t *p, unsigned n);

#endif
