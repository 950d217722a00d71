/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzz target: devices that join a guest to its host (devices.h), behind PCI: what a driver puts into their queues, while the host's
 * side does its part, too.
 */
#include "devices/audio/audio.h"
#include "devices/misc/virtio_balloon.h"
#include "devices/misc/virtio_mem.h"
#include "devices/misc/virtio_vsock.h"
#include "engine/core/device.h"
#include "tests/fuzz/fuzz.h"

const char fuzz_name[] = "fuzz_extras";

#define FUZZ_EXTRAS 1
#include "tests/fuzz/devices.h"

#define RINGS (RV_RAM + 0x40000)
#define BUFFERS (RV_RAM + 0x50000)
#define VSOCK_RINGS (RV_RAM + 0x60000)
#define MEMORY_RINGS (RV_RAM + 0x70000)
#define SOUND_RINGS (RV_RAM + 0x78000)
enum { BALLOON = 8, VSOCK = 9, WATCHDOG = 10, SOUND = 11, MEMORY_SLOT = 13 }; /* slots */

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

/* A packet, mostly one that makes sense, between ports that there are. */
static void packet(struct fuzz_in *in)
{
    uint64_t at = buffer(in);
    uint32_t len = fuzz_rarely(in, 3) ? fuzz_below(in, 0x1000) : 0;

    poke(at, fuzz_rarely(in, 32) ? fuzz_64(in) : 3, 8);
    poke(at + 8, fuzz_rarely(in, 32) ? fuzz_64(in) : 2, 8);
    poke(at + 16, 1000 + fuzz_below(in, 3), 4);
    poke(at + 20, fuzz_rarely(in, 2) ? 0x40000000u + fuzz_below(in, 3) : fuzz_below(in, 3), 4);
    poke(at + 24, fuzz_rarely(in, 16) ? fuzz_64(in) : len, 4);
    poke(at + 28, fuzz_rarely(in, 32) ? fuzz_64(in) : 1, 2);
    poke(at + 30, fuzz_rarely(in, 16) ? fuzz_64(in) : 1 + fuzz_below(in, 7), 2);
    poke(at + 32, fuzz_below(in, 4), 4);
    poke(at + 36, fuzz_rarely(in, 3) ? fuzz_64(in) : 0x10000, 4);
    poke(at + 40, fuzz_rarely(in, 3) ? fuzz_64(in) : 0, 4);
    vpci_buffer(in, VSOCK, VSOCK_RINGS, 1, at, 44 + (fuzz_rarely(in, 16) ? fuzz_8(in) : len),
                false);
}

/* Programs of the host: they call, answer, speak and go. */
static void vsock_host(struct fuzz_in *in)
{
    static int peer_end[4] = { -1, -1, -1, -1 };
    struct device *d = dev_find(vm, "vsock0");
    unsigned i = fuzz_below(in, 4);
    static char bytes[4096];
    int pair[2];

    if (peer_end[i] >= 0 && fuzz_rarely(in, 3)) {
        close(peer_end[i]);
        peer_end[i] = -1;
    } else if (peer_end[i] >= 0) {
        (void)!send(peer_end[i], bytes, fuzz_below(in, sizeof(bytes)),
                    MSG_NOSIGNAL | MSG_DONTWAIT);
        (void)!recv(peer_end[i], bytes, fuzz_below(in, sizeof(bytes)), MSG_DONTWAIT);
    } else if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair) == 0) {
        peer_end[i] = pair[1];
        if (fuzz_rarely(in, 2)) {
            virtio_vsock_answer(d, fuzz_tickets,
                                fuzz_rarely(in, 4) ? (close(pair[0]), -1) : pair[0]);
        } else {
            static const char *const words[] = { "CONNECT 1000\n", "CONNECT 1001\nabc",
                                                 "CONNECT x\n", "CONN" };
            const char *word = words[fuzz_below(in, 4)];

            (void)!send(pair[1], word, strlen(word), MSG_NOSIGNAL);
            virtio_vsock_client(d, pair[0]);
        }
    }
}

static void vsock(struct fuzz_in *in)
{
    switch (fuzz_below(in, 6)) {
    case 0:
        vpci_bring_up(in, VSOCK, VSOCK_RINGS);
        break;
    case 1:
        vpci_buffer(in, VSOCK, VSOCK_RINGS, fuzz_rarely(in, 8) ? 2 : 0, buffer(in),
                    fuzz_rarely(in, 8) ? (uint32_t)fuzz_64(in) : 44 + 16u * fuzz_8(in), true);
        break;
    case 2:
        vsock_host(in);
        break;
    default:
        packet(in);
        break;
    }
}

/* What the guest has is what devices reach, whatever was asked for. */
static void check_memory(struct device *d)
{
    struct vmem_view v;
    uint64_t seen = 0;

    virtio_mem_view(d, &v);
    for (uint64_t at = 0; at < v.size; at += v.block) {
        seen += mem_dma_reaches(vm->mem, v.addr + at, v.block, true) ? v.block : 0;
        if (mem_dma_reaches(vm->mem, v.addr + at, 1, false) !=
            mem_dma_reaches(vm->mem, v.addr + at + v.block - 1, 1, false)) {
            FUZZ_FAIL("half a block at 0x%llx", (unsigned long long)at);
        }
    }
    if (seen != v.plugged) {
        FUZZ_FAIL("%llu bytes plugged, %llu there", (unsigned long long)v.plugged,
                  (unsigned long long)seen);
    }
}

/* Requests, mostly of blocks that there are. */
static void memory(struct fuzz_in *in)
{
    struct device *d = dev_find(vm, "memory0");
    uint64_t at = buffer(in);

    switch (fuzz_below(in, 8)) {
    case 0:
        vpci_bring_up(in, MEMORY_SLOT, MEMORY_RINGS);
        break;
    case 1:
        (void)virtio_mem_request(
            d, fuzz_rarely(in, 8) ? fuzz_64(in) : VIRTIO_MEM_BLOCK * fuzz_below(in, 34), NULL);
        break;
    case 2:
        mem_region_hold(board->ram, fuzz_rarely(in, 4));
        break;
    case 3:
        poke(FUZZ_MEMORY_AT + 0x1000u * fuzz_below(in, 0x4400), fuzz_64(in), 8);
        break;
    default:
        poke(at, fuzz_rarely(in, 16) ? fuzz_64(in) : fuzz_below(in, 4), 2);
        poke(at + 8,
             fuzz_rarely(in, 16) ? fuzz_64(in)
                                 : FUZZ_MEMORY_AT + VIRTIO_MEM_BLOCK * fuzz_below(in, 33),
             8);
        poke(at + 16, fuzz_rarely(in, 16) ? fuzz_64(in) : 1 + fuzz_below(in, 8), 2);
        vpci_buffer(in, MEMORY_SLOT, MEMORY_RINGS, 0, at, fuzz_rarely(in, 16) ? fuzz_8(in) : 24,
                    false);
        break;
    }
    (void)loop_run_once(loop, 0, NULL);
    check_memory(d);
}

/* Requests in any order, mostly of streams that there are; messages of sound. */
static void sound(struct fuzz_in *in)
{
    uint64_t at = buffer(in);
    unsigned q = 2 + fuzz_below(in, 2);

    switch (fuzz_below(in, 8)) {
    case 0:
        vpci_bring_up(in, SOUND, SOUND_RINGS);
        break;
    case 1:
        (void)dev_find(vm, "sound0")->cls->quiesce(dev_find(vm, "sound0"));
        dev_find(vm, "sound0")->cls->resumed(dev_find(vm, "sound0"));
        break;
    case 2:
    case 3:
    case 4:
        poke(at, fuzz_rarely(in, 16) ? fuzz_64(in) : 0x100 + fuzz_below(in, 6), 4);
        poke(at + 4, fuzz_rarely(in, 16) ? fuzz_64(in) : fuzz_below(in, 2), 4);
        poke(at + 8, fuzz_rarely(in, 8) ? fuzz_64(in) : 4096, 4);
        poke(at + 12, fuzz_rarely(in, 8) ? fuzz_64(in) : 1024, 4);
        poke(at + 16, fuzz_rarely(in, 16) ? fuzz_64(in) : 0, 4);
        poke(at + 20, 1 + fuzz_below(in, 2), 1);
        poke(at + 21, fuzz_rarely(in, 8) ? fuzz_8(in) : 5, 1);
        poke(at + 22, fuzz_below(in, 15), 1);
        vpci_buffer(in, SOUND, SOUND_RINGS, 0, at, fuzz_rarely(in, 8) ? fuzz_8(in) : 24, false);
        vpci_buffer(in, SOUND, SOUND_RINGS, 0, buffer(in), fuzz_below(in, 128), true);
        break;
    default:
        poke(at, fuzz_rarely(in, 16) ? fuzz_64(in) : q - 2, 4);
        vpci_buffer(in, SOUND, SOUND_RINGS, q, at,
                    fuzz_rarely(in, 16) ? (uint32_t)fuzz_64(in) : 4 + fuzz_below(in, 2048),
                    false);
        vpci_buffer(in, SOUND, SOUND_RINGS, q, buffer(in),
                    fuzz_rarely(in, 16) ? (uint32_t)fuzz_64(in) : 8 + fuzz_below(in, 2048),
                    true);
        break;
    }
    (void)loop_run_once(loop, 0, NULL);
}

/* As a driver feeds, sets and locks it; time goes on in between. */
static void watchdog(struct fuzz_in *in)
{
    uint64_t at = PCI_BAR(WATCHDOG, 0);

    switch (fuzz_below(in, 6)) {
    case 0:
        pci_setup(in);
        break;
    case 1:
        set(at + 12, 0x80, 2);
        set(at + 12, 0x86, 2);
        set(at + 4 * fuzz_below(in, 2), fuzz_rarely(in, 4) ? fuzz_64(in) : fuzz_below(in, 3),
            4);
        break;
    case 2:
        set(at + 12, 0x80, 2);
        set(at + 12, 0x86, 2);
        set(at + 12, fuzz_rarely(in, 4) ? fuzz_64(in) : 0x100, 2);
        break;
    case 3:
        set(pci_config(WATCHDOG, 0x60 + fuzz_below(in, 12)), fuzz_64(in),
            1u << fuzz_below(in, 3));
        break;
    case 4:
        set(at + fuzz_below(in, 32), fuzz_64(in), 1u << fuzz_below(in, 4));
        break;
    default:
        (void)get(at + fuzz_below(in, 32), 1u << fuzz_below(in, 4));
        break;
    }
    (void)loop_run_once(loop, 0, NULL);
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
    switch (fuzz_below(in, 25)) {
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
    case 5:
    case 6:
    case 7:
    case 8:
    case 9:
    case 10:
    case 11:
        vsock(in);
        break;
    case 12:
    case 13:
    case 14:
    case 15:
        memory(in);
        break;
    case 16:
    case 17:
        watchdog(in);
        break;
    case 18:
    case 19:
    case 20:
        sound(in);
        break;
    default:
        balloon(in);
        break;
    }
}
