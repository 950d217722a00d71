/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Loading of firmware, kernels and initrds: raw files, Linux Images, gzip'd ones. ELF is in
 * loader_elf.c. Owns nothing beyond a call; main thread.
 *
 * The file is untrusted: what its headers say is compared with its size and with guest RAM
 * before it is used.
 */
#include "engine/core/loader_priv.h"
#include "engine/base/fd.h"
#include "engine/base/str.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#define CHUNK (256u << 10)
#define PE_MAX_SECTIONS 96

/* ---- the source: a file, or what was inflated from it ---- */

int source_open(struct source *src, int fd, const char *path, struct err *e)
{
    struct stat st;
    if (fstat(fd, &st) < 0) {
        return err_errno(e, errno, "cannot read '%s'", path);
    }
    if (!S_ISREG(st.st_mode)) {
        return err_set(e, S_ISDIR(st.st_mode) ? -EISDIR : -EINVAL, "'%s' is %s, not a file",
                       path, S_ISDIR(st.st_mode) ? "a folder" : "a device or pipe");
    }
    if (st.st_size == 0) {
        return err_set(e, -ENODATA, "'%s' is empty", path);
    }
    *src = (struct source){ .fd = fd, .path = path, .size = (uint64_t)st.st_size };
    return 0;
}

int source_read(const struct source *src, uint64_t at, void *out, size_t n, struct err *e)
{
    if (at > src->size || n > src->size - at) {
        return err_set(e, -ENODATA, "'%s' is truncated: it ends at byte %" PRIu64, src->path,
                       src->size);
    }
    if (src->data) {
        memcpy(out, src->data + at, n);
        return 0;
    }
    for (size_t done = 0; done < n;) {
        ssize_t got = fd_pread(src->fd, (char *)out + done, n - done, at + done);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got < 0) {
            return err_errno(e, errno, "cannot read '%s'", src->path);
        }
        if (got == 0) {
            return err_set(e, -ENODATA, "'%s' became shorter while it was read", src->path);
        }
        done += (size_t)got;
    }
    return 0;
}

int source_copy(const struct source *src, uint64_t from, struct mem_space *s, uint64_t to,
                uint64_t n, struct err *e)
{
    if (!mem_dma_reaches(s, to, n, true)) {
        return err_set(e, -EFAULT,
                       "'%s' does not fit: 0x%" PRIx64 " to 0x%" PRIx64
                       " is not all guest RAM; give the guest more memory",
                       src->path, to, to + n);
    }
    AUTO_FREE uint8_t *chunk = xalloc(CHUNK);
    while (n) {
        size_t step = n < CHUNK ? n : CHUNK;
        int ret = source_read(src, from, chunk, step, e);
        if (ret < 0) {
            return ret;
        }
        ret = mem_dma_write(s, to, chunk, step);
        if (ret < 0) {
            return err_set(e, ret, "'%s': guest RAM at 0x%" PRIx64 " went away", src->path, to);
        }
        from += step;
        to += step;
        n -= step;
    }
    return 0;
}

/* ---- gzip ---- */

static int inflate_failed(const struct source *src, int code, struct err *e)
{
    if (code == Z_BUF_ERROR) {
        return err_set(e, -ENODATA, "'%s' is truncated: its gzip stream has no end", src->path);
    }
    return err_set(e, -EBADMSG, "'%s' is no valid gzip file (damaged?)", src->path);
}

/* Makes room for more output: at most one byte beyond max, by which an output that ends
 * there is told from one that goes on. */
static int inflate_grow(const struct source *src, struct buf *out, uint64_t max, struct err *e)
{
    uint64_t want = out->cap ? (uint64_t)out->cap * 2 : 4u << 20;
    if (want > max) {
        want = max + 1;
    }
    if (want <= out->len) {
        return err_set(e, -EFBIG,
                       "'%s' unpacks to more than the %" PRIu64 " bytes there is room for; "
                       "give the guest more memory",
                       src->path, max);
    }
    char *data = realloc(out->data, want);
    if (!data) {
        return err_set(e, -ENOMEM, "no memory to unpack '%s'", src->path);
    }
    out->data = data;
    out->cap = want;
    return 0;
}

/* One turn: feeds input if it ran out, inflates into the room that is left. 1: the stream's
 * end. */
static int inflate_step(const struct source *src, z_stream *z, uint64_t *from, uint8_t *in,
                        struct buf *out, struct err *e)
{
    if (z->avail_in == 0 && *from < src->size) {
        size_t n = src->size - *from < CHUNK ? src->size - *from : CHUNK;
        int ret = source_read(src, *from, in, n, e);
        if (ret < 0) {
            return ret;
        }
        *from += n;
        z->next_in = in;
        z->avail_in = (uInt)n;
    }
    size_t room = out->cap - out->len;
    z->next_out = (Bytef *)out->data + out->len;
    z->avail_out = room < (1u << 30) ? (uInt)room : 1u << 30;
    uInt before = z->avail_out;
    int code = inflate(z, Z_NO_FLUSH);
    out->len += before - z->avail_out;
    if (code == Z_STREAM_END) {
        return 1;
    }
    return code == Z_OK ? 0 : inflate_failed(src, code, e);
}

static int inflate_all(const struct source *src, uint64_t max, struct buf *out, struct err *e)
{
    AUTO_FREE uint8_t *in = xalloc(CHUNK);
    z_stream z = { .next_in = in };
    if (inflateInit2(&z, 16 + MAX_WBITS) != Z_OK) {
        return err_set(e, -ENOMEM, "no memory to unpack '%s'", src->path);
    }
    uint64_t from = 0;
    int ret = 0;
    while (ret == 0) {
        if (out->len == out->cap) {
            ret = inflate_grow(src, out, max, e);
        }
        if (ret == 0) {
            ret = inflate_step(src, &z, &from, in, out, e);
        }
    }
    inflateEnd(&z);
    if (ret == 1 && out->len > max) {
        ret = inflate_grow(src, out, max, e);
    }
    return ret < 0 ? ret : 0;
}

/* ---- what a file is, by its first bytes ---- */

/* Kinds we know and cannot start, and what to do about them. */
static const struct {
    unsigned at, n;
    const char *magic, *what;
} foreign[] = {
    { 4, 4, "zimg",
      "an EFI-compressed kernel (zboot); unpack it first: it holds a gzip'd Image" },
    { 0x202, 4, "HdrS", "a Linux kernel for x86 (bzImage)" },
    { 0, 6,
      "\xfd"
      "7zXZ",
      "compressed by xz; unpack it with 'xz -d'" },
    { 0, 4, "\x28\xb5\x2f\xfd", "compressed by zstd; unpack it with 'zstd -d'" },
    { 0, 4, "\x04\x22\x4d\x18", "compressed by lz4; unpack it with 'lz4 -d'" },
    { 0, 4, "\x02\x21\x4c\x18", "compressed by lz4; unpack it with 'lz4 -d'" },
    { 0, 3, "BZh", "compressed by bzip2; unpack it with 'bzip2 -d'" },
    { 0, 4, "\x27\x05\x19\x56", "a U-Boot image; take the kernel out with 'dumpimage'" },
};

static int check_foreign(const struct source *src, const uint8_t *head, size_t n, struct err *e)
{
    for (size_t i = 0; i < ARRAY_LEN(foreign); i++) {
        if (foreign[i].at + foreign[i].n <= n &&
            memcmp(head + foreign[i].at, foreign[i].magic, foreign[i].n) == 0) {
            return err_set(e, -ENOEXEC, "'%s' is %s", src->path, foreign[i].what);
        }
    }
    return 0;
}

static uint16_t le16(const uint8_t *p)
{
    return (uint16_t)(p[0] | p[1] << 8);
}

static uint32_t le32(const uint8_t *p)
{
    return le16(p) | (uint32_t)le16(p + 2) << 16;
}

static uint64_t le64(const uint8_t *p)
{
    return le32(p) | (uint64_t)le32(p + 4) << 32;
}

/* Linux Documentation/riscv/boot-image-header.rst, arm64/booting.rst: the same layout but
 * for the magic. */
#define IMAGE_HEADER 64
#define IMAGE_TEXT_OFFSET 8
#define IMAGE_SIZE 16
#define IMAGE_MAGIC 0x38
#define IMAGE_PE 0x3c

static const struct {
    unsigned machine;
    const char *magic, *arch;
} image_kinds[] = { { EM_RISCV, "RSC\x05", "RISC-V" },
                    { EM_AARCH64, "ARM\x64", "64-bit ARM" } };

/* What the EFI stub's tables add (Microsoft PE format, COFF header): the machine, and where the
 * file's contents end, which is the only way to see that an Image is cut, since its own header
 * gives the size in memory. All zero when there is no stub. */
struct image_pe {
    unsigned machine;
    uint64_t end;
};
#define PE_RISCV32 0x5032
#define PE_RISCV64 0x5064

static int image_pe(const struct source *src, const uint8_t *head, struct image_pe *pe,
                    struct err *e)
{
    uint8_t coff[24], section[40];
    uint64_t at = le32(head + IMAGE_PE);
    *pe = (struct image_pe){ 0 };
    if (head[0] != 'M' || head[1] != 'Z' || at < IMAGE_HEADER) {
        return 0;
    }
    int ret = source_read(src, at, coff, sizeof(coff), e);
    if (ret < 0 || memcmp(coff, "PE\0\0", 4) != 0) {
        return ret;
    }
    pe->machine = le16(coff + 4);
    unsigned n = le16(coff + 6);
    at += sizeof(coff) + le16(coff + 20);
    for (unsigned i = 0; i < n && i < PE_MAX_SECTIONS; i++, at += sizeof(section)) {
        ret = source_read(src, at, section, sizeof(section), e);
        if (ret < 0) {
            return ret;
        }
        uint64_t stop = (uint64_t)le32(section + 20) + le32(section + 16);
        pe->end = stop > pe->end ? stop : pe->end;
    }
    return 0;
}

static int check_image(const struct source *src, const uint8_t *head,
                       const struct load_target *t, struct err *e)
{
    for (size_t i = 0; i < ARRAY_LEN(image_kinds); i++) {
        if (memcmp(head + IMAGE_MAGIC, image_kinds[i].magic, 4) == 0 &&
            image_kinds[i].machine != t->elf_machine) {
            return err_set(e, -ENOEXEC,
                           "'%s' is a Linux kernel for %s; this VM needs one for %s", src->path,
                           image_kinds[i].arch, elf_machine_name(t->elf_machine));
        }
    }
    struct image_pe pe;
    int ret = image_pe(src, head, &pe, e);
    if (ret == 0 && pe.end > src->size) {
        return err_set(e, -ENODATA,
                       "'%s' is truncated: it has %" PRIu64 " of the kernel's %" PRIu64
                       " bytes; fetch it again",
                       src->path, src->size, pe.end);
    }
    unsigned bits = pe.machine == PE_RISCV32 ? 32 : pe.machine == PE_RISCV64 ? 64 : t->xlen;
    if (ret == 0 && bits != t->xlen) {
        return err_set(e, -ENOEXEC, "'%s' is a Linux kernel of %u bits; this VM has %u",
                       src->path, bits, t->xlen);
    }
    return ret;
}

static bool is_image(const uint8_t *head, size_t n)
{
    if (n < IMAGE_HEADER) {
        return false;
    }
    for (size_t i = 0; i < ARRAY_LEN(image_kinds); i++) {
        if (memcmp(head + IMAGE_MAGIC, image_kinds[i].magic, 4) == 0) {
            return true;
        }
    }
    return false;
}

static int too_big(const struct source *src, uint64_t size, uint64_t at, uint64_t max,
                   struct err *e)
{
    char have[40], room[40];
    str_size(size, have, sizeof(have));
    str_size(max, room, sizeof(room));
    return err_set(e, -EFBIG,
                   "'%s' needs %s at 0x%" PRIx64 ", where there is room for %s; give the guest "
                   "more memory",
                   src->path, have, at, room);
}

static int load_image(struct mem_space *s, const struct source *src, const uint8_t *head,
                      const struct load_target *t, struct loader_image *out, struct err *e)
{
    int ret = check_image(src, head, t, e);
    if (ret < 0) {
        return ret;
    }
    /* RV32 maps the kernel with 4 MiB pages, all others with 2 MiB ones. */
    uint64_t align = t->xlen == 32 ? 4u << 20 : 2u << 20;
    uint64_t base = (t->at + align - 1) & ~(align - 1);
    uint64_t offset = le64(head + IMAGE_TEXT_OFFSET), size = le64(head + IMAGE_SIZE);
    if (size < src->size) {
        size = src->size;
    }
    uint64_t skip = base - t->at;
    if (skip > t->max || offset > t->max - skip || size > t->max - skip - offset) {
        return too_big(src, size, t->at, t->max, e);
    }
    base += offset;
    if (!mem_dma_reaches(s, base, size, true)) {
        return too_big(src, size, base, 0, e);
    }
    ret = source_copy(src, 0, s, base, src->size, e);
    if (ret == 0) {
        *out = (struct loader_image){ .entry = base, .low = base, .high = base + size };
    }
    return ret;
}

static int load_flat(struct mem_space *s, const struct source *src, uint64_t at, uint64_t max,
                     struct err *e)
{
    if (src->size > max || at > UINT64_MAX - src->size) {
        return too_big(src, src->size, at, max, e);
    }
    return source_copy(src, 0, s, at, src->size, e);
}

static int load_any(struct mem_space *s, const struct source *src, const struct load_target *t,
                    bool packed, struct loader_image *out, struct err *e);

static int load_gzip(struct mem_space *s, const struct source *src, const struct load_target *t,
                     struct loader_image *out, struct err *e)
{
    AUTO_BUF plain = BUF_INIT;
    int ret = inflate_all(src, t->max, &plain, e);
    if (ret < 0) {
        return ret;
    }
    if (plain.len == 0) {
        return err_set(e, -ENODATA, "'%s' unpacks to nothing", src->path);
    }
    struct source inner = {
        .fd = -1, .path = src->path, .size = plain.len, .data = (const uint8_t *)plain.data
    };
    return load_any(s, &inner, t, true, out, e);
}

static int load_any(struct mem_space *s, const struct source *src, const struct load_target *t,
                    bool packed, struct loader_image *out, struct err *e)
{
    uint8_t head[1024];
    size_t n = src->size < sizeof(head) ? src->size : sizeof(head);
    int ret = source_read(src, 0, head, n, e);
    if (ret < 0) {
        return ret;
    }
    if (n >= 4 && memcmp(head, ELFMAG, SELFMAG) == 0) {
        return load_elf(s, src, t, out, e);
    }
    if (n >= 2 && head[0] == 0x1f && head[1] == 0x8b) {
        return packed ? err_set(e, -ENOEXEC, "'%s' is packed by gzip twice", src->path)
                      : load_gzip(s, src, t, out, e);
    }
    if (is_image(head, n)) {
        return load_image(s, src, head, t, out, e);
    }
    ret = check_foreign(src, head, n, e);
    if (ret == 0) {
        ret = load_flat(s, src, t->at, t->max, e);
    }
    if (ret == 0) {
        *out = (struct loader_image){ .entry = t->at, .low = t->at, .high = t->at + src->size };
    }
    return ret;
}

int loader_load(struct mem_space *s, int fd, const char *path, uint64_t at,
                unsigned elf_machine, unsigned xlen, uint64_t max, struct loader_image *out,
                struct err *e)
{
    struct source src;
    int ret = source_open(&src, fd, path, e);
    if (ret < 0) {
        return ret;
    }
    struct load_target t = { .at = at, .max = max, .elf_machine = elf_machine, .xlen = xlen };
    return load_any(s, &src, &t, false, out, e);
}

int loader_load_raw(struct mem_space *s, int fd, const char *path, uint64_t at, uint64_t max,
                    uint64_t *size, struct err *e)
{
    struct source src;
    int ret = source_open(&src, fd, path, e);
    if (ret == 0) {
        ret = load_flat(s, &src, at, max, e);
    }
    if (ret == 0) {
        *size = src.size;
    }
    return ret;
}
