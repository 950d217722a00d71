/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzz target: vmdk images (foreign.h says what an input is).
 */
#include "tests/fuzz/fuzz.h"

const char fuzz_name[] = "fuzz_vmdk";

#include "tests/fuzz/foreign.h"

void fuzz_one(const uint8_t *data, size_t size)
{
    fuzz_foreign("vmdk", data, size, NULL);
}
