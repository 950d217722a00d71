/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzz target: what a guest does to the chip sets of PCs (pc.h). After each input the boards are reset.
 */
#include "tests/fuzz/fuzz.h"

const char fuzz_name[] = "fuzz_pc";

#include "tests/fuzz/pc.h"

void fuzz_one(const uint8_t *data, size_t size)
{
    struct fuzz_in in;

    fuzz_in_init(&in, data, size);
    struct machine *m = &machine[fuzz_rarely(&in, 4) ? MICROVM : Q35];
    unsigned n = 16 + fuzz_below(&in, 240);
    for (unsigned i = 0; i < n; i++) {
        act(m, &in);
    }
    vm_reset(m->vm);
}
