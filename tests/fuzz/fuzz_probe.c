/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzz target: files of unknown format (foreign.h says what an input is). The format is guessed as `vmctl image` does it, and
 * then every reader is given the file, whatever it is.
 */
#include "tests/fuzz/fuzz.h"

const char fuzz_name[] = "fuzz_probe";

#include "tests/fuzz/foreign.h"

static const char *guess(const uint8_t *data, size_t size)
{
    struct blk_options o = { .name = "disk",
                             .driver = "raw",
                             .path = "image",
                             .fd = unpack(data, size),
                             .readonly = true,
                             .unlocked = true };
    struct err e = ERR_INIT;
    struct blk_node *n = NULL;
    const char *driver = NULL;

    must(blk_open(NULL, &o, &n, &e) == 0);
    if (blk_probe_node(n, &driver, &e) != 0) {
        driver = NULL;
    }
    blk_close(n);
    return driver;
}

void fuzz_one(const uint8_t *data, size_t size)
{
    const char *driver = guess(data, size);

    if (!driver) {
        FUZZ_FAIL("a file that can be read has no format, not even raw");
    }
    for (unsigned i = 0; blk_format_name(i); i++) {
        fuzz_foreign(blk_format_name(i), data, size, NULL);
    }
}
