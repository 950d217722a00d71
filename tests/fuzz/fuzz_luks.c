/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzz target: LUKS volumes (foreign.h says what an input is). Its first byte chooses one of some headers that were made
 * properly, which the rest of it changes. Counts of iterations are cut down: large ones are no fault, and take their time.
 */
#include "tests/fuzz/fuzz.h"

const char fuzz_name[] = "fuzz_luks";

#define FOREIGN_OWN_SETUP
#include "tests/fuzz/foreign.h"

#include "storage/luks.h"

enum { KINDS = 4, ITERATIONS = 64, DIGEST_COUNT = 164, SLOT_AT = 208, SLOT_SIZE = 48 };

static const struct blk_secret secret = { .by = &blk_luks, .data = "secret", .n = 6 };
static uint8_t *header[KINDS];

void fuzz_setup(void)
{
    static const char *const kind[KINDS][3] = { { "aes-256", "xts", "plain64" },
                                                { "aes-128", "cbc", "essiv" },
                                                { "aes-128", "ecb", "plain" },
                                                { "aes-256", "cbc", "plain" } };

    foreign_setup();
    foreign_secret = &secret;
    for (unsigned i = 0; i < KINDS; i++) {
        struct blk_option o[] = { { "cipher-alg", kind[i][0] },
                                  { "cipher-mode", kind[i][1] },
                                  { "ivgen-alg", kind[i][2] },
                                  { "iter-time", "1" } };
        struct blk_create c = {
            .path = "image", .option = o, .n_options = 4, .secret = &secret
        };
        struct err e = ERR_INIT;

        if (blk_luks.create(&c, "", &header[i], &e) != 0) {
            FUZZ_FAIL("%s", e.msg);
        }
    }
}

static void cut(int fd, off_t at)
{
    uint8_t p[4];

    if (pread(fd, p, 4, at) == 4 && (p[0] || p[1] || p[2] > ITERATIONS)) {
        p[0] = p[1] = 0;
        must(pwrite(fd, p, 4, at) == 4);
    }
}

static void mend(int fd)
{
    cut(fd, DIGEST_COUNT);
    for (unsigned i = 0; i < 8; i++) {
        cut(fd, SLOT_AT + 4 + SLOT_SIZE * (off_t)i);
    }
    must(ftruncate(fd, LUKS_HEADER_BYTES + 65536) == 0);
}

void fuzz_one(const uint8_t *data, size_t size)
{
    if (size == 0) {
        return;
    }
    foreign_base = header[data[0] % KINDS];
    foreign_base_size = LUKS_HEADER_BYTES;
    fuzz_foreign("luks", data + 1, size - 1, mend);
}
