/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Loading of Linux kernels for x86 as they are installed (bzImage: Linux Documentation/arch/x86/boot.rst, "The Linux/x86 Boot
 * Protocol", 32-bit entry). Owns nothing; main thread. The file is untrusted, as in loader.c.
 */
#include "engine/core/loader_priv.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

/* Offsets in the file, which begins with what real mode would run. */
#define AT_SETUP_SECTS 0x1f1
#define AT_SYSSIZE 0x1f4
#define AT_JUMP 0x201 /* its operand is the length of the header behind 0x202 */
#define AT_MAGIC 0x202
#define AT_VERSION 0x206
#define AT_LOADFLAGS 0x211
#define AT_INITRD_MAX 0x22c
#define AT_CMDLINE_SIZE 0x238
#define AT_PREF_ADDRESS 0x258
#define AT_INIT_SIZE 0x260
#define OLDEST 0x20a /* of Linux 2.6.31, the first that tells how much memory it needs */
#define LOADED_HIGH 1

static uint32_t le32(const uint8_t *p)
{
    return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static uint64_t le64(const uint8_t *p)
{
    return le32(p) | (uint64_t)le32(p + 4) << 32;
}

static int check_header(const struct source *src, const uint8_t *head, struct err *e)
{
    unsigned version = head[AT_VERSION] | head[AT_VERSION + 1] << 8;

    if (version < OLDEST || !(head[AT_LOADFLAGS] & LOADED_HIGH)) {
        return err_set(e, -ENOEXEC,
                       "'%s' has version %u.%u of the boot protocol of Linux for x86, which is "
                       "too old; kernels "
                       "from 2.6.31 on have 2.10 and more",
                       src->path, version >> 8, version & 255);
    }
    if (AT_MAGIC + head[AT_JUMP] > AT_SETUP_SECTS + LOADER_BZIMAGE_SETUP ||
        AT_MAGIC + head[AT_JUMP] < AT_INIT_SIZE + 4) {
        return err_set(e, -ENOEXEC, "'%s' has a damaged boot header", src->path);
    }
    return 0;
}

bool loader_is_bzimage(int fd)
{
    uint8_t magic[4];
    struct source src;
    return source_open(&src, fd, "", NULL) == 0 &&
           source_read(&src, AT_MAGIC, magic, sizeof(magic), NULL) == 0 &&
           memcmp(magic, "HdrS", 4) == 0;
}

int loader_bzimage(struct mem_space *s, int fd, const char *path, uint64_t at, uint64_t max,
                   struct loader_bzimage *out, struct err *e)
{
    uint8_t head[AT_SETUP_SECTS + LOADER_BZIMAGE_SETUP];
    struct source src;
    int ret = source_open(&src, fd, path, e);
    if (ret == 0) {
        ret = source_read(&src, 0, head, sizeof(head), e);
    }
    if (ret == 0) {
        ret = check_header(&src, head, e);
    }
    if (ret < 0) {
        return ret;
    }
    unsigned sects = head[AT_SETUP_SECTS] ? head[AT_SETUP_SECTS] : 4;
    uint64_t skip = (sects + 1) * 512ull, size = le32(head + AT_SYSSIZE) * 16ull;
    uint64_t prefers = le64(head + AT_PREF_ADDRESS), needs = le32(head + AT_INIT_SIZE);
    if (size == 0 || skip > src.size || size > src.size - skip + 15) {
        return err_set(e, -ENODATA,
                       "'%s' is truncated: it has %" PRIu64 " of the kernel's %" PRIu64
                       " bytes; fetch it again",
                       path, src.size, skip + size);
    }
    size = size < src.size - skip ? size : src.size - skip;
    prefers = prefers > at ? prefers : at;
    if (size > max || prefers - at > max || needs > max - (prefers - at)) {
        return err_set(e, -EFBIG,
                       "'%s' unpacks itself to 0x%" PRIx64 " to 0x%" PRIx64
                       ", for which there is no room; give the guest more memory",
                       path, prefers, prefers + needs);
    }
    ret = source_copy(&src, skip, s, at, size, e);
    if (ret < 0) {
        return ret;
    }
    *out = (struct loader_bzimage){
        .image = { .entry = at,
                   .low = at,
                   .high = prefers + needs > at + size ? prefers + needs : at + size },
        .cmdline_max = le32(head + AT_CMDLINE_SIZE),
        .initrd_max = le32(head + AT_INITRD_MAX),
        .setup_len = AT_MAGIC + head[AT_JUMP] - AT_SETUP_SECTS,
    };
    memcpy(out->setup, head + AT_SETUP_SECTS, out->setup_len);
    return 0;
}
