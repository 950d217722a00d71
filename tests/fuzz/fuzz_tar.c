/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzz target: tar files that `vmctl import` is given, and what an interrupted `vmctl export` left. An input is a byte of flags and the
 * archive without its long runs of zeroes: records of a place (16 bits), a length (8 bits, less one) and bytes. With MEND the sums of
 * headers are put right, so that what they cover is reached. Members lie within the archive, are found by the names they
 * have, and come out as what their place holds; what is appended is found again by another reading.
 */
#include "cli/image_tar.h"
#include "engine/base/mem.h"
#include "tests/fuzz/fuzz.h"

#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

const char fuzz_name[] = "fuzz_tar";

enum { MEND = 1, PARTIAL = 2, APPEND = 4, UNEVEN = 8 };
enum { ROOM = 129 * 512, BLOCK = 512, SUM_AT = 148, SUM_LEN = 8, LARGEST = 16384 };

static uint8_t image[ROOM];
static uint64_t n_opened, n_members;

void fuzz_setup(void)
{
}

void fuzz_finish(void)
{
    printf("# %llu archives opened, %llu members\n", (unsigned long long)n_opened,
           (unsigned long long)n_members);
}

static size_t unpack(const uint8_t *p, size_t size, unsigned flags)
{
    size_t end = 0;

    memset(image, 0, sizeof(image));
    while (size >= 3) {
        size_t at = (size_t)p[0] << 8 | p[1], n = (size_t)p[2] + 1;

        p += 3;
        size -= 3;
        n = n < size ? n : size;
        memcpy(image + at, p, n);
        end = at + n > end ? at + n : end;
        p += n;
        size -= n;
    }
    for (size_t at = 0; flags & MEND && at < end; at += BLOCK) {
        unsigned sum = SUM_LEN * ' ';

        for (size_t i = 0; i < BLOCK; i++) {
            sum += i >= SUM_AT && i < SUM_AT + SUM_LEN ? 0 : image[at + i];
        }
        if (image[at + SUM_AT]) { /* somebody meant a header */
            snprintf((char *)image + at + SUM_AT, SUM_LEN, "%06o", sum);
        }
    }
    return flags & UNEVEN ? end : (end + BLOCK - 1) / BLOCK * BLOCK;
}

static void look(const struct tar *t, const struct tar_member *m, uint64_t length)
{
    AUTO_BUF b = BUF_INIT;
    struct err e = ERR_INIT;
    char digest[TAR_HEX], copy[TAR_HEX];
    const struct tar_member *found = tar_find(t, m->name);
    int out = memfd_create("out", MFD_CLOEXEC);
    struct stat st;

    if (m->at > length || m->size > length - m->at || m->at % BLOCK) {
        FUZZ_FAIL("member '%s' at %llu of %llu bytes", m->name, (unsigned long long)m->at,
                  (unsigned long long)m->size);
    }
    if (found && found != m) {
        FUZZ_FAIL("'%s' leads to '%s'", m->name, found->name);
    }
    if (tar_slurp(t, m, LARGEST, &b, &e) == 0
            ? b.len != m->size || (b.len && memcmp(b.data, image + m->at, b.len) != 0)
            : m->size <= LARGEST) {
        FUZZ_FAIL("'%s' does not hold what is there: %s", m->name, e.msg);
    }
    if (tar_digest(t, m, "SHA256", digest, &e) != 0 ||
        tar_extract(t, m, out, "out", copy, &e) != 0 || strcmp(digest, copy) != 0 ||
        fstat(out, &st) != 0 || (uint64_t)st.st_size != m->size) {
        FUZZ_FAIL("'%s' is copied as something else: %s", m->name, e.msg);
    }
    close(out);
}

/* What is appended to what was whole is found when it is read again. */
static void append(struct tar *t, const char *path)
{
    static const char text[] = "appended";
    const struct tar_member *m;
    struct tar again;
    AUTO_BUF b = BUF_INIT;
    struct err e = ERR_INIT;
    size_t had = t->n;

    if (tar_add(t, "fuzz/added", text, sizeof(text), &e) != 0 || tar_end(t, &e) != 0 ||
        tar_open(&again, path, false, false, &e) != 0) {
        if (had < TAR_MEMBERS) {
            FUZZ_FAIL("appending: %s", e.msg);
        }
        return;
    }
    m = &again.member[again.n - 1];
    if (again.n != had + 1 || strcmp(m->name, "fuzz/added") != 0 ||
        tar_slurp(&again, m, LARGEST, &b, &e) != 0 || b.len != sizeof(text) ||
        memcmp(b.data, text, sizeof(text)) != 0) {
        FUZZ_FAIL("what was appended is not found");
    }
    tar_done(&again);
}

void fuzz_one(const uint8_t *data, size_t size)
{
    unsigned flags = size ? data[0] : 0;
    size_t length = size ? unpack(data + 1, size - 1, flags) : 0;
    int fd = memfd_create("archive", MFD_CLOEXEC);
    char path[64];
    struct tar t;
    struct err e = ERR_INIT;

    if (fd < 0 || write(fd, image, length) != (ssize_t)length) {
        FUZZ_FAIL("cannot write the archive");
    }
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    if (tar_open(&t, path, flags & (PARTIAL | APPEND), flags & APPEND, &e) != 0) {
        if (!e.msg[0]) {
            FUZZ_FAIL("an archive refused without a word");
        }
        close(fd);
        return;
    }
    n_opened++;
    /* Without its last padding a file is still whole; nothing is put behind it then. */
    if (t.end > (flags & (PARTIAL | APPEND) ? length : (length + BLOCK - 1) / BLOCK * BLOCK) ||
        t.n > TAR_MEMBERS) {
        FUZZ_FAIL("%zu members up to %llu of %zu bytes", t.n, (unsigned long long)t.end,
                  length);
    }
    for (size_t i = 0; i < t.n; i++) {
        n_members++;
        look(&t, &t.member[i], length);
    }
    (void)tar_find_end(&t, ".ovf");
    if (flags & APPEND) {
        append(&t, path);
    }
    tar_done(&t);
    close(fd);
}
