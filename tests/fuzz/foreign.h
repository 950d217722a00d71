/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the fuzz targets of image formats that we only read have in common. An input is an image without its long runs of zeroes:
 * records of a place (in units of 8 bytes, 24 bits), a length (8 bits, the same units less one) and bytes. Checksums
 * are put right, so that what they cover is reached. The image is opened, described, mapped and read. Included
 * once by each target.
 */
#ifndef VMD_TESTS_FUZZ_FOREIGN_H
#define VMD_TESTS_FUZZ_FOREIGN_H

#include "engine/base/log.h"
#include "storage/block.h"
#include "storage/image.h"
#include "tests/fuzz/fuzz.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { IMAGE = 16 << 20, PIECE = 65536, READS = 48 };

static uint8_t piece[PIECE];
static uint64_t n_opened;
/* What lies in the image before the input does, and what opens it; NULL: nothing. */
static const uint8_t *foreign_base;
static size_t foreign_base_size;
static const struct blk_secret *foreign_secret;

#ifndef FOREIGN_OWN_SETUP
static void foreign_setup(void);
void fuzz_setup(void)
{
    foreign_setup();
}
#endif

static void foreign_setup(void)
{
    log_init(fuzz_name, LOG_ERROR, open("/dev/null", O_WRONLY | O_CLOEXEC));
}

void fuzz_finish(void)
{
    printf("# %llu images opened\n", (unsigned long long)n_opened);
}

static void must(bool ok)
{
    if (!ok) {
        FUZZ_FAIL("cannot write the image");
    }
}

static int unpack(const uint8_t *data, size_t size)
{
    int fd = memfd_create("image", MFD_CLOEXEC);
    size_t end = foreign_base_size;

    must(fd >= 0 && (end == 0 || pwrite(fd, foreign_base, end, 0) == (ssize_t)end));
    while (size >= 4) {
        size_t at = ((size_t)data[0] << 16 | data[1] << 8 | data[2]) * 8 % IMAGE;
        size_t n = ((size_t)data[3] + 1) * 8;

        data += 4;
        size -= 4;
        n = n < IMAGE - at ? n : IMAGE - at;
        end = at + n > end ? at + n : end;
        n = n < size ? n : size;
        must(pwrite(fd, data, n, (off_t)at) == (ssize_t)n);
        data += n;
        size -= n;
    }
    must(ftruncate(fd, (off_t)((end + 511) & ~(size_t)511)) == 0);
    return fd;
}

static void look(struct blk_node *n, struct fuzz_in *in)
{
    struct blk_image_info info;
    struct blk_extent x;
    struct err e = ERR_INIT;
    uint64_t at = 0;

    if (blk_info(n, &info, &e) == 0) {
        blk_info_done(&info);
    }
    for (unsigned i = 0; i < READS && at < blk_size(n) && blk_map(n, at, &x, &e) == 0; i++) {
        if (x.length == 0 || x.length > blk_size(n) - at) {
            FUZZ_FAIL("extent of %llu bytes at %llu", (unsigned long long)x.length,
                      (unsigned long long)at);
        }
        at += x.length;
    }
    for (unsigned i = 0; i < READS && blk_size(n) >= BLK_SECTOR; i++) {
        uint64_t sectors = blk_size(n) / BLK_SECTOR, length;

        at = i < 4 ? i * PIECE / BLK_SECTOR : fuzz_64(in);
        at = at % sectors * BLK_SECTOR;
        length = (1 + fuzz_below(in, PIECE / BLK_SECTOR)) * (uint64_t)BLK_SECTOR;
        length = length < blk_size(n) - at ? length : blk_size(n) - at;
        (void)blk_pread(n, at, piece, length);
    }
}

static void fuzz_foreign(const char *driver, const uint8_t *data, size_t size,
                         void (*mend)(int fd))
{
    struct blk_options o = { .name = "disk",
                             .driver = driver,
                             .path = "image",
                             .fd = unpack(data, size),
                             .readonly = true,
                             .unlocked = true,
                             .secret = foreign_secret };
    struct err e = ERR_INIT;
    struct blk_node *n = NULL;
    struct fuzz_in in;

    if (mend) {
        mend(o.fd);
    }
    if (blk_open(NULL, &o, &n, &e) < 0) {
        close(o.fd);
        return;
    }
    n_opened++;
    fuzz_in_init(&in, data + size, 0);
    in.state = size;
    for (size_t i = 0; i < size; i++) {
        in.state = in.state * UINT64_C(0x100000001b3) ^ data[i];
    }
    look(n, &in);
    blk_close(n);
}

#endif
