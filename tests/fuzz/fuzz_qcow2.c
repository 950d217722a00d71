/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzz target: qcow2 images. An input is an image without its long runs of zeroes: records of a place (in units of 8
 * bytes, 16 bits), a length (8 bits, the same units less one) and bytes, so that a change of the input is a change of
 * header, tables or data. The image in a memfd is opened as it is: described, checked, mapped and read; then a copy is
 * written to, snapshots come and go, it is closed, repaired and read again. The files are small and so is what may be read.
 */
#include "engine/base/log.h"
#include "storage/block.h"
#include "storage/image.h"
#include "tests/fuzz/fuzz.h"

#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

const char fuzz_name[] = "fuzz_qcow2";

enum { IMAGE = 65536 * 8, PIECE = 8192, READS = 64 };

static uint8_t image[IMAGE];
static uint8_t piece[PIECE];
static uint64_t n_opened, n_sound, n_written;

void fuzz_setup(void)
{
    log_init(fuzz_name, LOG_ERROR, open("/dev/null", O_WRONLY | O_CLOEXEC));
}

void fuzz_finish(void)
{
    printf("# %llu images opened, %llu sound, %llu written to\n", (unsigned long long)n_opened,
           (unsigned long long)n_sound, (unsigned long long)n_written);
}

/* The image that an input stands for; its length. */
static size_t unpack(const uint8_t *data, size_t size)
{
    size_t end = 0;

    memset(image, 0, sizeof(image));
    while (size >= 3) {
        size_t at = ((size_t)data[0] << 8 | data[1]) * 8, n = ((size_t)data[2] + 1) * 8;

        data += 3;
        size -= 3;
        n = n < IMAGE - at ? n : IMAGE - at;
        end = at + n > end ? at + n : end;
        n = n < size ? n : size;
        memcpy(image + at, data, n);
        data += n;
        size -= n;
    }
    return (end + 511) & ~(size_t)511;
}

static struct blk_node *open_image(size_t size, bool readonly, bool check)
{
    struct blk_options o = { .name = "disk",
                             .driver = "qcow2",
                             .path = "image",
                             .fd = memfd_create("image", MFD_CLOEXEC),
                             .readonly = readonly,
                             .no_backing = true,
                             .unlocked = true,
                             .unsafe = true,
                             .for_check = check };
    struct err e = ERR_INIT;
    struct blk_node *n = NULL;

    if (o.fd < 0 || pwrite(o.fd, image, size, 0) != (ssize_t)size) {
        FUZZ_FAIL("cannot write the image");
    }
    if (blk_open(NULL, &o, &n, &e) < 0) {
        close(o.fd);
        return NULL;
    }
    return n;
}

static void map_all(struct blk_node *n)
{
    struct blk_extent x;
    struct err e = ERR_INIT;
    uint64_t at = 0;

    for (unsigned i = 0; i < READS && at < blk_size(n) && blk_map(n, at, &x, &e) == 0; i++) {
        if (x.length == 0 || x.length > blk_size(n) - at) {
            FUZZ_FAIL("extent of %llu bytes at %llu", (unsigned long long)x.length,
                      (unsigned long long)at);
        }
        at += x.length;
    }
}

/* The beginning, the end, and what the input asks for. */
static uint64_t place(const struct blk_node *n, struct fuzz_in *in, uint64_t *length)
{
    uint64_t sectors = blk_size(n) / BLK_SECTOR, at;

    at = (fuzz_below(in, 2) ? fuzz_below(in, 65536) : fuzz_64(in)) % (sectors ? sectors : 1);
    *length = (1 + fuzz_below(in, PIECE / BLK_SECTOR)) * (uint64_t)BLK_SECTOR;
    at *= BLK_SECTOR;
    *length = *length < blk_size(n) - at ? *length : blk_size(n) - at;
    return at;
}

static void read_some(struct blk_node *n, struct fuzz_in *in)
{
    uint64_t length;

    for (uint64_t at = 0; at < blk_size(n) && at < (uint64_t)READS * PIECE; at += PIECE) {
        length = blk_size(n) - at < PIECE ? blk_size(n) - at : PIECE;
        (void)blk_pread(n, at, piece, length);
    }
    for (unsigned i = 0; i < 16 && blk_size(n) >= BLK_SECTOR; i++) {
        uint64_t at = place(n, in, &length);

        (void)blk_pread(n, at, piece, length);
    }
}

/* Without leaks too: a refcount too high hides that flags are behind. */
static bool check(struct blk_node *n, unsigned repair)
{
    struct blk_check c = { 0 };
    struct err e = ERR_INIT;

    return blk_check(n, repair, &c, &e) == 0 && c.corruptions == 0 && c.leaks == 0 &&
           c.errors == 0;
}

static void write_some(struct blk_node *n, struct fuzz_in *in)
{
    struct err e = ERR_INIT;
    uint64_t length;

    for (unsigned i = 0; i < 24 && blk_size(n) >= BLK_SECTOR; i++) {
        uint64_t at = place(n, in, &length);
        unsigned what = fuzz_below(in, 16);

        if (what < 8) {
            memset(piece, (int)i + 1, length);
            (void)blk_pwrite(n, at, piece, length);
        } else if (what < 10) {
            (void)blk_zero(n, at, length, what == 8 ? BLK_UNMAP : 0);
        } else if (what < 12) {
            (void)blk_discard(n, at, length);
        } else if (what < 13) {
            (void)blk_flush(n);
        } else if (what < 15) {
            (void)blk_snapshot(n, (enum blk_snapshot_verb)fuzz_below(in, 3), "1", &e);
        } else {
            (void)blk_pread(n, at, piece, length);
        }
    }
}

/* Looking changes nothing, whatever the image says. */
static bool look(size_t size, struct fuzz_in *in)
{
    struct blk_node *n = open_image(size, true, true);
    struct blk_image_info info;
    struct err e = ERR_INIT;
    bool sound;

    if (!n) {
        return false;
    }
    n_opened++;
    if (blk_info(n, &info, &e) == 0) {
        blk_info_done(&info);
    }
    map_all(n);
    read_some(n, in);
    sound = check(n, 0);
    n_sound += sound;
    blk_close(n);
    return sound;
}

/* A sound image stays sound, whatever was done to it. */
static void change(size_t size, struct fuzz_in *in, bool sound)
{
    struct blk_node *n = open_image(size, false, false);

    if (!n) {
        return;
    }
    n_written++;
    write_some(n, in);
    read_some(n, in);
    if (sound && blk_flush(n) == 0 && !check(n, 0)) {
        FUZZ_FAIL("a sound image became corrupt");
    }
    blk_close(n);
}

static void repair(size_t size, struct fuzz_in *in)
{
    struct blk_node *n = open_image(size, false, true);

    if (!n) {
        return;
    }
    if (check(n, BLK_REPAIR_ALL) && !check(n, 0)) {
        FUZZ_FAIL("repair says all is well, and then it is not");
    }
    read_some(n, in);
    blk_close(n);
}

void fuzz_one(const uint8_t *data, size_t size)
{
    size_t length = unpack(data, size);
    struct fuzz_in in;
    bool sound;

    fuzz_in_init(&in, data + size, 0);
    in.state = size;
    for (size_t i = 0; i < size; i++) {
        in.state = in.state * UINT64_C(0x100000001b3) ^ data[i];
    }
    sound = look(length, &in);
    change(length, &in, sound);
    repair(length, &in);
}
