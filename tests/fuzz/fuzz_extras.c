/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzz target: devices that join a guest to its host (devices.h), behind PCI: what a driver puts into their queues, while the host's
 * side does its part, too.
 */
#include "devices/misc/virtio_balloon.h"
#include "engine/core/device.h"
#include "tests/fuzz/fuzz.h"

const char fuzz_name[] = "fuzz_extras";

#define FUZZ_EXTRAS 1
#include "tests/fuzz/devices.h"

#define RINGS (RV_RAM + 0x40000)
#define BUFFERS (RV_RAM + 0x50000)
enum { BALLOON = 8 }; /* slots */

static uint64_t buffer(struct fuzz_in *in)
{
    return fuzz_rarely(in, 16) ? somewhere(in) : BUFFERS + 0x100 * fuzz_below(in, 64);
}

/* Page numbers, mostly of RAM that is in use for nothing. */
static void balloon(struct fuzz_in *in)
{
    uint64_t at = buffer(in);
    unsigned n = fuzz_below(in, 16), q = fuzz_below(in, 6);

    for (unsigned i = 0; i < n; i++) {
        poke(at + 4 * i,
             fuzz_rarely(in, 12) ? fuzz_64(in) : (RV_RAM >> 12) + 0x100 + fuzz_below(in, 0x300),
             4);
    }
    if (q == 2) {
        poke(at, fuzz_below(in, 12), 2);
    }
    vpci_buffer(in, BALLOON, RINGS, q, q < 3 ? at : RV_RAM + 0x100000 + 0x1000u * fuzz_8(in),
                fuzz_rarely(in, 12) ? (uint32_t)fuzz_64(in)
                : q < 3             ? 4 * n
                                    : 0x1000u * n,
                q >= 3);
}

static void host(struct fuzz_in *in)
{
    struct device *d = dev_find(vm, "balloon0");
    struct balloon_view v;

    switch (fuzz_below(in, 3)) {
    case 0:
        virtio_balloon_set_target(d, fuzz_64(in));
        break;
    case 1:
        virtio_balloon_set_period(d, fuzz_8(in));
        break;
    default:
        virtio_balloon_view(d, &v);
        break;
    }
}

void fuzz_act(struct fuzz_in *in)
{
    switch (fuzz_below(in, 10)) {
    case 0:
        vpci_bring_up(in, BALLOON, RINGS);
        break;
    case 1:
        set(PCI_BAR(BALLOON, 4) + fuzz_below(in, 0x3100), fuzz_64(in), 1u << fuzz_below(in, 4));
        break;
    case 2:
        poke(somewhere(in), fuzz_64(in), 8);
        break;
    case 3:
        loop_run_once(loop, 0, NULL);
        break;
    case 4:
        host(in);
        break;
    default:
        balloon(in);
        break;
    }
}
