/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzz target: a virtio-iommu with functions behind it (devices.h): requests that map and unmap while a disk, an NVMe controller and others reach
 * for memory by the addresses that they have.
 */
#include "tests/fuzz/fuzz.h"

const char fuzz_name[] = "fuzz_iommu";

#define FUZZ_IOMMU 1
#include "tests/fuzz/devices.h"

#define RINGS (RV_RAM + 0x60000)
#define DISK_RINGS (RV_RAM + 0x70000)
#define REQUESTS (RV_RAM + 0x50000)
enum { DISK = 2, IOMMU = 30 }; /* slots */
enum { REQUEST_SIZE = 72, TAIL_SIZE = 4 };

/* Its own BAR, and its queues. */
static void bring_up(struct fuzz_in *in)
{
    set(pci_config(IOMMU, 0x20), PCI_BAR(IOMMU, 4), 4);
    set(pci_config(IOMMU, 0x24), 0, 4);
    set(pci_config(IOMMU, 4), 6, 2);
    vpci_bring_up(in, IOMMU, RINGS);
}

static uint64_t page(struct fuzz_in *in)
{
    return fuzz_rarely(in, 24) ? fuzz_64(in) : RV_RAM + 0x1000u * fuzz_below(in, 256);
}

/* A request and the room for its answer, in two descriptors. */
static void request(struct fuzz_in *in)
{
    uint64_t at = REQUESTS + 0x800u * fuzz_below(in, 16), first = page(in),
             ring = vpci_ring(RINGS, 0);
    unsigned type = fuzz_rarely(in, 24) ? fuzz_8(in) : 1 + fuzz_below(in, 5);
    uint32_t answer = type == 5 ? 512 + TAIL_SIZE : TAIL_SIZE;

    for (unsigned i = 0; i < REQUEST_SIZE; i += 4) {
        poke(at + i, fuzz_rarely(in, 64) ? fuzz_64(in) : 0, 4);
    }
    poke(at, type, 1);
    poke(at + 4, fuzz_rarely(in, 32) ? fuzz_64(in) : 1 + fuzz_below(in, 3), 4);
    if (type == 5) {
        poke(at + 4, 8u * fuzz_below(in, 12), 4);
    } else if (type < 3) {
        poke(at + 8, fuzz_rarely(in, 32) ? fuzz_64(in) : 8u * fuzz_below(in, 12), 4);
        poke(at + 12, fuzz_rarely(in, 8), 4);
    } else {
        poke(at + 8, first, 8);
        poke(at + 16,
             fuzz_rarely(in, 24) ? fuzz_64(in) : (first | 0xfff) + 0x1000u * fuzz_below(in, 64),
             8);
        poke(at + 24, type == 3 ? page(in) : 0, 8);
        poke(at + 32, fuzz_rarely(in, 24) ? fuzz_64(in) : 1 + fuzz_below(in, 3), 4);
    }
    vpci_buffer(in, IOMMU, RINGS, 0, at,
                fuzz_rarely(in, 24) ? fuzz_8(in)
                : type == 5         ? 72
                : type == 3         ? 36
                : type == 4         ? 28
                                    : 20,
                false);
    if (fuzz_rarely(in, 24)) {
        return;
    }
    /* The first one, and its answer behind it in the same descriptor table. */
    unsigned i = (vpci_avail[0] - 1u) & 7, next = (i + 1) & 7;
    poke(ring + 16 * i + 12, 1 | next << 16, 4);
    poke(ring + 16 * next, REQUESTS + 0x9000, 8);
    poke(ring + 16 * next + 8, answer, 4);
    poke(ring + 16 * next + 12, 2, 4);
    set(PCI_BAR(IOMMU, 4) + 0x3000, 0, 2);
    (void)loop_run_once(loop, 0, NULL);
}

/* A disk's request by addresses that may lead anywhere. */
static void disk(struct fuzz_in *in)
{
    uint64_t at = page(in);

    if (fuzz_rarely(in, 4)) {
        vpci_bring_up(in, DISK, fuzz_rarely(in, 4) ? page(in) : DISK_RINGS);
    }
    poke(at, fuzz_below(in, 2), 8);
    poke(at + 8, fuzz_below(in, 64), 8);
    vpci_buffer(in, DISK, DISK_RINGS, 0, at,
                fuzz_rarely(in, 3) ? 0x1000u * fuzz_below(in, 40) : 16, fuzz_rarely(in, 2));
    (void)loop_run_once(loop, 0, NULL);
}

void fuzz_act(struct fuzz_in *in)
{
    switch (fuzz_below(in, 24)) {
    case 0:
        bring_up(in);
        break;
    case 1:
        set(PCI_BAR(IOMMU, 4) + fuzz_below(in, 0x3100), fuzz_64(in), 1u << fuzz_below(in, 4));
        break;
    case 2:
        set(PCI_BAR(IOMMU, 4) + 0x2000 + 36, fuzz_below(in, 3), 1);
        break;
    case 3:
        poke(somewhere(in), fuzz_64(in), 8);
        break;
    case 4: /* buffers for faults */
        vpci_buffer(in, IOMMU, RINGS, 1, REQUESTS + 0xa000, 24, true);
        break;
    case 5:
    case 6:
    case 7:
        nvme(in);
        break;
    case 8:
    case 9:
    case 10:
        disk(in);
        break;
    case 11:
        set(pci_register(in), fuzz_64(in), 1u << fuzz_below(in, 3));
        break;
    case 12:
        (void)loop_run_once(loop, 0, NULL);
        break;
    default:
        request(in);
        break;
    }
}
