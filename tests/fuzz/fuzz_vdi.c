/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzz target: vdi images (foreign.h says what an input is).
 */
#include "tests/fuzz/fuzz.h"

const char fuzz_name[] = "fuzz_vdi";

#include "tests/fuzz/foreign.h"

void fuzz_one(const uint8_t *data, size_t size)
{
    fuzz_foreign("vdi", data, size, NULL);
}
