/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzz target: headers of qcow2 images. The input lies over the first bytes of a sound image: header, extensions, name of the
 * backing file. vmd-spawn's parser of names sees it first, and must find what the driver finds. What can be opened is described and given other backing files; it must be open to us afterwards, and say so.
 */
#include "daemon/spawn/header.h"
#include "engine/base/log.h"
#include "storage/block.h"
#include "storage/image.h"
#include "tests/fuzz/fuzz.h"

#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

const char fuzz_name[] = "fuzz_header";

enum { ROOM = 1 << 20 };
static uint8_t sound[2][ROOM];
static size_t sound_size[2];
static uint64_t n_opened, n_changed;

/* Two images, of clusters of 4 KiB and 64 KiB. */
void fuzz_setup(void)
{
    log_init(fuzz_name, LOG_ERROR, open("/dev/null", O_WRONLY | O_CLOEXEC));
    for (unsigned i = 0; i < 2; i++) {
        struct blk_option o = { "cluster_size", i ? "64k" : "4k" };
        struct blk_create c = { .path = "image",
                                .driver = "qcow2",
                                .size = 1 << 20,
                                .option = &o,
                                .n_options = 1,
                                .given = true,
                                .fd = memfd_create("image", MFD_CLOEXEC) };
        int fd = dup(c.fd);
        struct err e = ERR_INIT;

        if (fd < 0 || blk_create(&c, &e) != 0) {
            FUZZ_FAIL("%s", e.msg);
        }
        sound_size[i] = (size_t)pread(fd, sound[i], ROOM, 0);
        close(fd);
    }
}

void fuzz_finish(void)
{
    printf("# %llu images opened, %llu given another backing file\n",
           (unsigned long long)n_opened, (unsigned long long)n_changed);
}

static struct blk_node *image(int fd, bool readonly, struct err *e)
{
    struct blk_options o = { .name = "disk",
                             .driver = "qcow2",
                             .path = "image",
                             .fd = dup(fd),
                             .readonly = readonly,
                             .no_backing = true,
                             .unlocked = true,
                             .unsafe = true,
                             .for_check = readonly };
    struct blk_node *n = NULL;

    if (blk_open(NULL, &o, &n, e) < 0) {
        close(o.fd);
        return NULL;
    }
    return n;
}

static bool says(int fd, const char *name)
{
    struct err e = ERR_INIT;
    struct blk_node *n = image(fd, true, &e);
    struct blk_image_info info;
    bool same;

    if (!n || blk_info(n, &info, &e) != 0) {
        FUZZ_FAIL("an image whose backing file was changed cannot be opened: %s", e.msg);
    }
    same = name ? info.backing && strcmp(info.backing, name) == 0 : !info.backing;
    blk_info_done(&info);
    blk_close(n);
    return same;
}

static void change(int fd, struct fuzz_in *in)
{
    static const char *const names[] = { "b", "base-of-a-longer-name.qcow2", NULL };
    const char *name = names[fuzz_below(in, 3)];
    struct err e = ERR_INIT;
    struct blk_node *n = image(fd, false, &e);
    int rc;

    if (!n) {
        return;
    }
    rc = blk_set_backing(n, name, fuzz_below(in, 2) && name ? "qcow2" : NULL, &e);
    if (blk_close_flush(n, &e) == 0 && rc == 0) {
        n_changed++;
        if (!says(fd, name)) {
            FUZZ_FAIL("an image names another backing file than it was given");
        }
    }
}

/* What vmd-spawn would open for this image. */
static void spawn_sees(int fd, const struct blk_image_info *info)
{
    static uint8_t front[ROOM];
    static struct image_names names;
    ssize_t n = pread(fd, front, ROOM, 0);

    if (n < 0) {
        FUZZ_FAIL("cannot read the image");
    }
    if (header_parse(front, (size_t)n, &names) != 0) {
        return; /* it opens nothing, and the driver says what is wrong */
    }
    if (info && info->backing && strcmp(info->backing, names.backing) != 0) {
        FUZZ_FAIL("vmd-spawn opens '%s', the image names '%s'", names.backing, info->backing);
    }
    if (info && info->data_file && strcmp(info->data_file, names.data) != 0) {
        FUZZ_FAIL("vmd-spawn opens '%s', the image has its data in '%s'", names.data,
                  info->data_file);
    }
}

void fuzz_one(const uint8_t *data, size_t size)
{
    int fd = memfd_create("image", MFD_CLOEXEC);
    struct blk_image_info info;
    struct fuzz_in in;
    struct blk_node *n;
    struct err e = ERR_INIT;
    unsigned which = size ? data[0] & 1 : 0;

    fuzz_in_init(&in, data, size);
    in.p = in.end;
    if (fd < 0 || pwrite(fd, sound[which], sound_size[which], 0) < 0 ||
        (size && pwrite(fd, data + 1, size - 1, 0) < 0)) {
        FUZZ_FAIL("cannot write the image");
    }
    spawn_sees(fd, NULL);
    n = image(fd, true, &e);
    if (n) {
        n_opened++;
        if (blk_info(n, &info, &e) == 0) {
            spawn_sees(fd, &info);
            blk_info_done(&info);
        }
        blk_close(n);
        change(fd, &in);
    }
    close(fd);
}
