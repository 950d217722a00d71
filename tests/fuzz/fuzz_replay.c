/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzz target: recordings, as a replay opens them. The first byte of an input says as what the rest is taken: a file as it is, chunks behind a
 * proper header, or records in a proper chunk. What is accepted is read twice, and is the same twice.
 */
#include "tests/fuzz/fuzz.h"

#include "engine/base/fd.h"
#include "engine/base/hash.h"
#include "engine/base/mem.h"
#include "engine/emu/replay/log.h"

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

const char fuzz_name[] = "fuzz_replay";

static uint64_t files, refused;

void fuzz_setup(void)
{
}

void fuzz_finish(void)
{
    printf("# %llu files were opened, %llu refused\n", (unsigned long long)files,
           (unsigned long long)refused);
}

static void put32(uint8_t *p, size_t v)
{
    for (unsigned i = 0; i < 4; i++) {
        p[i] = (uint8_t)(v >> 8 * i);
    }
}

static void add_header(struct buf *b)
{
    uint8_t head[20] = "VMD-REC\n";
    uLong sum;

    put32(head + 8, RECLOG_VERSION);
    put32(head + 12, 4);
    sum = crc32_z(crc32_z(0, head + 8, 8), (const uint8_t *)"a=b\n", 4);
    put32(head + 16, sum);
    buf_add(b, head, sizeof(head));
    buf_add(b, "a=b\n", 4);
}

static void add_chunk(struct buf *b, const uint8_t *p, size_t n)
{
    uint8_t packed[2 * FUZZ_INPUT_MAX + 256], head[16];
    size_t size = ZSTD_compress(packed, sizeof(packed), p, n, 1);

    if (ZSTD_isError(size)) {
        FUZZ_FAIL("%zu bytes do not compress", n);
    }
    put32(head, 0x4b484356);
    put32(head + 4, size);
    put32(head + 8, n);
    put32(head + 12, crc32_z(crc32_z(0, head + 4, 8), packed, size));
    buf_add(b, head, sizeof(head));
    buf_add(b, packed, size);
}

static uint64_t read_all(struct reclog_reader *r, uint64_t *n)
{
    const struct replay_record *rec;
    struct err e = ERR_INIT;
    uint64_t h = 0;

    for (*n = 0; (rec = reclog_next(r, &e)); ++*n) {
        h = hash_bytes(rec->p, rec->n, h ^ rec->at.count ^ (uint64_t)rec->kind);
    }
    if (e.code != 0) {
        FUZZ_FAIL("it was good when it was opened: %s", e.msg);
    }
    return h;
}

static void look(const struct buf *b)
{
    int fd = memfd_create("recording", MFD_CLOEXEC);
    struct reclog_reader *r = NULL;
    struct reclog_facts facts;
    struct err e = ERR_INIT;
    uint64_t n, again;

    if (fd < 0 || fd_write_all(fd, b->data ? b->data : "", b->len, "memfd", &e) != 0) {
        FUZZ_FAIL("no file: %s", e.msg);
    }
    files++;
    if (reclog_open(fd, &r, &facts, &e) != 0) {
        refused++;
        if (!e.msg[0]) {
            FUZZ_FAIL("refused without a reason");
        }
    } else {
        uint64_t h = read_all(r, &n);

        (void)reclog_rewind(r, &e);
        if (read_all(r, &again) != h || n != again || n != facts.records) {
            FUZZ_FAIL("another reading is another");
        }
    }
    reclog_free(r);
    close(fd);
}

void fuzz_one(const uint8_t *data, size_t size)
{
    AUTO_BUF b = BUF_INIT;
    unsigned how = size > 0 ? data[0] % 3 : 0;

    if (size == 0) {
        return;
    }
    if (how > 0) {
        add_header(&b);
    }
    if (how == 2 && size > 1) {
        add_chunk(&b, data + 1, size - 1);
    } else {
        buf_add(&b, data + 1, size - 1);
    }
    look(&b);
}
