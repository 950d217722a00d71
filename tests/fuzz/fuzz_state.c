/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzz target: state files and migration streams, as who reads them gets them. The first byte of an input says as what the rest is
 * taken: a machine's state, a file as it is, a file whose sections hold the input under a proper seal, a piece of memory, pages, or a stream whose
 * sums are right. What is accepted is looked at in every way there is.
 */
#include "tests/fuzz/fuzz.h"

#include "api-schema/json/json.h"
#include "engine/base/fd.h"
#include "engine/base/mem.h"
#include "engine/core/vmstate_view.h"
#include "engine/emu/state/pages.h"
#include "engine/emu/state/stream.h"
#include "engine/emu/state/view.h"

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <zlib.h>

const char fuzz_name[] = "fuzz_state";

#define REGION (UINT64_C(3) << 20)
static const uint8_t key[STATE_KEY_LEN] = { 1, 2, 3 };
static struct mem_region *ram;
static uint64_t files, refused;

void fuzz_setup(void)
{
    struct err e = ERR_INIT;

    if (mem_new_ram("ram", REGION, &ram, &e) != 0) {
        FUZZ_FAIL("%s", e.msg);
    }
}

void fuzz_finish(void)
{
    mem_free(ram);
    printf("# %llu files were opened, %llu refused\n", (unsigned long long)files,
           (unsigned long long)refused);
}

/* The sums of a machine's parts become right, as far as there are parts: texts, a length, an object, its sum. */
static void mend(uint8_t *p, size_t n)
{
    for (size_t at = 0; at < n && p[at] != 0;) {
        for (unsigned i = 0; i < 2; i++) {
            at += at < n ? 1u + p[at] : 0;
        }
        if (at > n || n - at < 8) {
            return;
        }
        uint32_t len = (uint32_t)p[at] | (uint32_t)p[at + 1] << 8 | (uint32_t)p[at + 2] << 16 |
                       (uint32_t)p[at + 3] << 24;

        if (len > n - at - 8) { /* what there is, then */
            len = (uint32_t)(n - at - 8);
            for (unsigned i = 0; i < 4; i++) {
                p[at + i] = (uint8_t)(len >> 8 * i);
            }
        }
        uint32_t sum = (uint32_t)crc32_z(0, p + at, len + 4);

        for (unsigned i = 0; i < 4; i++) {
            p[at + 4 + len + i] = (uint8_t)(sum >> 8 * i);
        }
        at += 8u + len;
    }
}

static bool count_field(void *arg, const struct vmstate_field *f)
{
    *(size_t *)arg += strlen(f->part) + strlen(f->field) + strlen(f->value);
    return true;
}

static void must_say(int rc, const struct err *e)
{
    if (rc != 0 && !e->msg[0]) {
        FUZZ_FAIL("refused without a reason");
    }
}

static void look_at(int fd)
{
    AUTO_FREE struct view *v = xnew_n(struct view, 2);
    struct err e = ERR_INIT;
    uint8_t bytes[300];
    int rc = view_open(&v[0], fd, key, &e);

    files++;
    refused += rc != 0;
    must_say(rc, &e);
    if (rc != 0) {
        return;
    }
    AUTO_JSON out = json_object_new_object();
    uint64_t at = v[0].n_windows ? v[0].window[0].address : 0;

    e = (struct err)ERR_INIT;
    must_say(view_file_fields(&v[0], NULL, 3, out, &e), &e);
    e = (struct err)ERR_INIT;
    must_say(view_memory(&v[0], at + 200, bytes, sizeof(bytes), &e), &e);
    e = (struct err)ERR_INIT;
    must_say(view_search(&v[0], at, (const uint8_t *)"ab", 2, 10, out, &e), &e);
    e = (struct err)ERR_INIT;
    if (view_open(&v[1], fd, key, &e) == 0) {
        rc = view_diff(&v[0], &v[1], 10, out, &e);
        must_say(rc, &e);
        if (rc == 0 && (api_json_get_int(out, "pages_changed", -1) != 0 ||
                        api_json_get_int(out, "fields_changed", -1) != 0)) {
            FUZZ_FAIL("a state differs from itself");
        }
        view_done(&v[1]);
    }
    view_done(&v[0]);
}

/* Sections with parts of the input in them, under a seal that holds. */
static void sealed(struct fuzz_in *in)
{
    static const char info[] = "{\"memory\":[{\"name\":\"ram\",\"size\":3145728}],\"map\":[{"
                               "\"region\":\"ram\",\"offset\":0,"
                               "\"address\":2147483648,\"size\":3145728}]}";
    AUTO_FD fd = memfd_create("state", MFD_CLOEXEC);
    struct state_out out;
    struct err e = ERR_INIT;
    uint64_t size;
    bool own_info = fuzz_rarely(in, 4);
    unsigned chunks = fuzz_below(in, 4), named[3] = { 0, 256, 512 };

    if (state_out_begin(&out, fd, "", key, &e) != 0) {
        FUZZ_FAIL("%s", e.msg);
    }
    for (unsigned i = 0; i < chunks; i++) {
        uint8_t body[120] = { 0 };
        size_t n = 40 + fuzz_below(in, 80);

        for (size_t at = 0; at < n; at++) {
            body[at] = at > 7 && at < 40 && !fuzz_rarely(in, 8) ? 0 : fuzz_8(in);
        }
        body[0] &= 1;
        unsigned at = fuzz_rarely(in, 8) ? fuzz_below(in, 65536) : named[i % 3];

        (void)state_out_put(&out, STATE_MEMORY, fuzz_rarely(in, 8), at, body, n, &e);
    }
    size_t left = (size_t)(in->end - in->p), part = own_info ? left / 2 : 0;

    (void)state_out_put(&out, STATE_INFO, 0, 0, own_info ? (const void *)in->p : info,
                        own_info ? part : sizeof(info) - 1, &e);
    AUTO_FREE uint8_t *machine = xalloc(left - part + 1);

    memcpy(machine, in->p + part, left - part);
    mend(machine, left - part);
    (void)state_out_put(&out, STATE_MACHINE, 0, 0, machine, left - part, &e);
    if (state_out_end(&out, &size, &e) == 0) {
        look_at(fd);
    }
    state_out_done(&out);
}

static void as_file(const uint8_t *p, size_t n)
{
    AUTO_FD fd = memfd_create("state", MFD_CLOEXEC);

    if (write(fd, p, n) == (ssize_t)n) {
        look_at(fd);
    }
}

static void as_piece(const uint8_t *p, size_t n, bool pages)
{
    AUTO_FREE uint8_t *to = xalloc(CHUNK_BYTES);
    struct err e = ERR_INIT;

    if (pages) {
        struct pages_codec c = { .pack = NULL };

        must_say(pages_unpack(&c, ram, 256, p, n, &e), &e);
        pages_done(&c);
        return;
    }
    struct chunk_codec c = { .pack = NULL };

    buf_add(&c.bytes, p, n);
    must_say(chunk_unpack_copy(&c, to, CHUNK_BYTES - (n % 3) * 1000, &e), &e);
    e = (struct err)ERR_INIT;
    must_say(chunk_unpack(&c, ram, 512, &e), &e);
    chunk_done(&c);
}

/* A greeting and frames with sums that are right, then what is left of the input as it is. */
static void as_stream(struct fuzz_in *in)
{
    AUTO_BUF bytes = BUF_INIT;
    struct stream_reader r = { .greeted = false };
    struct stream_hello h = { .index = fuzz_below(in, 3), .streams = 1 + fuzz_below(in, 17) };
    struct err e = ERR_INIT;
    const uint8_t *body;
    size_t at = 0;
    int rc = 0;

    stream_put_hello(&bytes, &h);
    for (unsigned i = fuzz_below(in, 5); i > 0; i--) {
        uint8_t some[64];
        struct stream_frame f = { .type = fuzz_below(in, 7),
                                  .region = fuzz_8(in),
                                  .length = fuzz_below(in, 65),
                                  .page = fuzz_below(in, 600) };

        for (size_t k = 0; k < sizeof(some); k++) {
            some[k] = fuzz_8(in);
        }
        stream_put_frame(&bytes, &f, some);
    }
    if (bytes.len > 0 && fuzz_rarely(in, 3)) {
        bytes.data[fuzz_below(in, (unsigned)bytes.len)] ^= 1 << fuzz_below(in, 8);
    }
    buf_add(&bytes, in->p, (size_t)(in->end - in->p));
    while (rc >= 0) {
        size_t n = stream_wants(&r);

        if (n == 0 || n > bytes.len - at) {
            break;
        }
        if (n > STREAM_MACHINE_MAX + STREAM_HEAD_LEN) {
            FUZZ_FAIL("%zu bytes are wanted", n);
        }
        buf_add(&r.in, bytes.data + at, n);
        at += n;
        rc = stream_take(&r, &body, &e);
    }
    must_say(rc < 0 ? rc : 0, &e);
    stream_reader_done(&r);
}

static void as_machine(struct fuzz_in *in, bool raw)
{
    size_t n = (size_t)(in->end - in->p), count = 0;
    AUTO_FREE uint8_t *bytes = xalloc(n ? n
                                        : 1); /* its own, so that what reads beyond it shows */
    struct err e = ERR_INIT;

    memcpy(bytes, in->p, n);
    if (!raw) {
        mend(bytes, n);
    }
    must_say(vmstate_view(bytes, n, count_field, &count, &e), &e);
}

void fuzz_one(const uint8_t *data, size_t size)
{
    struct fuzz_in in;

    if (size == 0) {
        return;
    }
    fuzz_in_init(&in, data + 1, size - 1);
    switch (data[0] % 6) {
    case 0:
        as_machine(&in, data[0] / 6 % 4 == 3);
        break;
    case 1:
        as_file(data + 1, size - 1);
        break;
    case 2:
        sealed(&in);
        break;
    case 3:
    case 4:
        as_piece(data + 1, size - 1, data[0] % 6 == 4);
        break;
    default:
        as_stream(&in);
    }
}
