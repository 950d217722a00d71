/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzz target: commands of a guest to SATA drives, disk and CD-ROM, by the AHCI controller (devices.h).
 */
#include "tests/fuzz/fuzz.h"

const char fuzz_name[] = "fuzz_ahci";

#include "tests/fuzz/devices.h"

void fuzz_act(struct fuzz_in *in)
{
    uint64_t at = PCI_BAR(5, 5) + fuzz_below(in, 0x300);

    switch (fuzz_below(in, 8)) {
    case 0:
        set(at & ~3ull, fuzz_64(in), 4);
        break;
    case 1:
        get(at, 4);
        break;
    case 2:
        poke(somewhere(in), fuzz_64(in), 8);
        break;
    case 3:
        loop_run_once(loop, 0, NULL);
        break;
    default:
        ahci(in);
        break;
    }
}
