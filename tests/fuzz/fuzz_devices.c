/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzz target: what a guest does to devices, all of them (devices.h).
 */
#include "tests/fuzz/fuzz.h"

const char fuzz_name[] = "fuzz_devices";

#include "tests/fuzz/devices.h"

void fuzz_act(struct fuzz_in *in)
{
    any_device(in);
}
