/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Joins a fuzz target to clang's libFuzzer, whose main() this program then has: configure --enable-fuzzer.
 */
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static bool ready;

    if (!ready) {
        fuzz_setup();
        ready = true;
    }
    if (size <= FUZZ_INPUT_MAX) {
        fuzz_one(data, size);
    }
    return 0;
}
