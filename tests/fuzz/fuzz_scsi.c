/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzz target: commands of a guest to SCSI units, disk and CD, by the virtio-scsi adapter (devices.h).
 */
#include "tests/fuzz/fuzz.h"

const char fuzz_name[] = "fuzz_scsi";

#include "tests/fuzz/devices.h"

void fuzz_act(struct fuzz_in *in)
{
    uint64_t at = RV_VIRTIO + RV_VIRTIO_STEP;

    switch (fuzz_below(in, 8)) {
    case 0: /* the adapter's own registers and configuration */
        set(at + fuzz_below(in, 0x130), fuzz_64(in), 1u << fuzz_below(in, 4));
        break;
    case 1:
        get(at + fuzz_below(in, 0x130), 4);
        break;
    case 2:
        poke(somewhere(in), fuzz_64(in), 8);
        break;
    default:
        scsi(in);
        break;
    }
}
