/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzz target: the USB host controller and what is at it, from registers, contexts and rings in guest memory (devices.h). A driver that
 * mostly knows what it does brings a device up; then its rings are spoiled.
 */
#include "tests/fuzz/fuzz.h"

const char fuzz_name[] = "fuzz_usb";

#include "tests/fuzz/devices.h"

#define BAR PCI_BAR(8, 0)
#define CONTEXTS                                                                               \
    (RV_RAM + 0x50000) /* array, then 0x800 for each slot's, then the input context */
#define INPUT (RV_RAM + 0x58000)
#define COMMANDS (RV_RAM + 0x59000)
#define EVENTS (RV_RAM + 0x5a000)
#define RINGS (RV_RAM + 0x60000) /* 0x1000 an endpoint, 0x8000 a slot */
#define BUFFERS (RV_RAM + 0x70000)

static unsigned command_at;

static void trb(struct fuzz_in *in, uint64_t at, uint64_t param, uint32_t status,
                uint32_t control)
{
    poke(at, fuzz_rarely(in, 40) ? fuzz_64(in) : param, 8);
    poke(at + 8, fuzz_rarely(in, 40) ? (uint32_t)fuzz_64(in) : status, 4);
    poke(at + 12, fuzz_rarely(in, 40) ? (uint32_t)fuzz_64(in) : control, 4);
}

static void command(struct fuzz_in *in, uint64_t param, uint32_t control)
{
    trb(in, COMMANDS + 16ull * command_at, param, 0, control | 1);
    command_at = (command_at + 1) % 200;
    set(BAR + 0x2000, 0, 4);
    loop_run_once(loop, 0, NULL);
}

static uint64_t ring_of(unsigned slot, unsigned ep)
{
    return RINGS + 0x8000ull * (slot & 1) + 0x1000ull * (ep & 7);
}

static void controller(struct fuzz_in *in)
{
    static const uint8_t zeroes[0x4000];

    pci_setup(in);
    set(pci_config(8, 0x10), BAR, 4);
    set(pci_config(8, 0x14), 0, 4);
    set(pci_config(8, 4), 6, 2);
    set(BAR + 0x40, 2, 4);
    (void)mem_dma_write(vm->mem, CONTEXTS, zeroes, sizeof(zeroes));
    (void)mem_dma_write(vm->mem, COMMANDS, zeroes, 0x1000);
    (void)mem_dma_write(vm->mem, RINGS, zeroes, sizeof(zeroes));
    for (unsigned i = 1; i < 8; i++) {
        poke(CONTEXTS + 8 * i, CONTEXTS + 0x800 * i, 8);
    }
    poke(EVENTS, EVENTS + 0x100, 8);
    poke(EVENTS + 8, fuzz_rarely(in, 8) ? fuzz_64(in) : 16 + fuzz_below(in, 100), 4);
    command_at = 0;
    set(BAR + 0x78, 8, 4);
    set(BAR + 0x70, CONTEXTS, 8);
    set(BAR + 0x58, COMMANDS | 1, 8);
    set(BAR + 0x1028, 1, 4);
    set(BAR + 0x1038, EVENTS + 0x100, 8);
    set(BAR + 0x1030, EVENTS, 8);
    set(BAR + 0x1020, 2, 4);
    set(BAR + 0x40, 5, 4);
    for (unsigned i = 0; i < 16; i++) {
        set(BAR + 0x440 + 16 * i, 0x210, 4);
    }
    loop_run_once(loop, 0, NULL);
}

/* A slot with a device at a port, its endpoints 1 to 5 as they mostly are. */
static void device(struct fuzz_in *in)
{
    unsigned slot = 1 + fuzz_below(in, 3), port = 1 + fuzz_below(in, 12);
    bool storage = port > 8;

    command(in, 0, 9 << 10);
    poke(INPUT, 0, 4);
    poke(INPUT + 4, 3, 4);
    poke(INPUT + 32, 1u << 27 | 3u << 20 | (port == 1 ? fuzz_below(in, 9) : 0), 4);
    poke(INPUT + 36, port << 16, 4);
    poke(INPUT + 40, 0, 8);
    for (unsigned ep = 1; ep < 6; ep++) {
        unsigned type = ep == 1 ? 4 : ep & 1 ? (storage ? 6 : 7) : (storage ? 2 : 3);

        poke(INPUT + 32 + 32 * ep, 0, 4);
        poke(INPUT + 36 + 32 * ep, fuzz_rarely(in, 16) ? fuzz_64(in) : 64u << 16 | type << 3,
             4);
        poke(INPUT + 40 + 32 * ep, ring_of(slot, ep) | 1, 8);
    }
    command(in, INPUT, 11 << 10 | slot << 24);
    poke(INPUT + 4, fuzz_rarely(in, 8) ? fuzz_64(in) : 0x3d, 4);
    command(in, INPUT, 12 << 10 | slot << 24);
}

static void control_transfer(struct fuzz_in *in)
{
    static const uint64_t setups[] = {
        0x0012000001000680, 0x00ff000002000680, 0x0000000000010900,   0x00ff000003020680,
        0x0040000022000681, 0x000400010000000a, 0x00000000000a0021,   0x0004000100000a3,
        0x0000000100080323, 0x0000000100040323, 0x00010000000000fea1, 0x0000000000ff21
    };
    unsigned slot = 1 + fuzz_below(in, 3);
    uint64_t ring = ring_of(slot, 1), setup = setups[fuzz_below(in, ARRAY_LEN(setups))];
    uint32_t length = (uint32_t)(setup >> 48), n = 0;

    setup = fuzz_rarely(in, 4) ? fuzz_64(in) : setup;
    trb(in, ring, setup, 8, 2 << 10 | 0x40 | 1);
    if (length) {
        trb(in, ring + 16 * ++n, BUFFERS, length, 3 << 10 | 1 << 16 | 4 | 1);
    }
    trb(in, ring + 16 * ++n, 0, 0, 4 << 10 | 0x20 | 1);
    trb(in, ring + 16 * ++n, ring, 0, 6 << 10 | (fuzz_rarely(in, 4) ? 2 : 0) | 1);
    set(BAR + 0x2000 + 4 * slot, 1, 4);
    loop_run_once(loop, 0, NULL);
}

static void bulk(struct fuzz_in *in)
{
    unsigned slot = 1 + fuzz_below(in, 3), ep = fuzz_rarely(in, 3) ? 3 : 4,
             n = 1 + fuzz_below(in, 6);
    uint64_t ring = ring_of(slot, ep);

    for (unsigned i = 0; i < n; i++) {
        uint64_t at = BUFFERS + 0x100ull * fuzz_below(in, 64);
        bool cbw = ep == 4 && fuzz_rarely(in, 2);

        if (cbw) {
            poke(at, 0x43425355, 4);
            poke(at + 8, fuzz_rarely(in, 12) ? (uint32_t)fuzz_64(in) : 512u * fuzz_below(in, 9),
                 4);
            poke(at + 12, (fuzz_8(in) & 0x80) | (uint64_t)10 << 16, 8);
            command_block(in, at + 15);
        }
        trb(in, ring + 16 * i, fuzz_rarely(in, 20) ? somewhere(in) : at,
            cbw ? 31 : fuzz_below(in, fuzz_rarely(in, 4) ? 70000 : 1025),
            1 << 10 | 0x20 | (fuzz_8(in) & 0x14) | 1);
    }
    trb(in, ring + 16 * n, ring, 0, 6 << 10 | (fuzz_rarely(in, 3) ? 2 : 0) | 1);
    set(BAR + 0x2000 + 4 * slot, ep, 4);
    loop_run_once(loop, 0, NULL);
}

void fuzz_act(struct fuzz_in *in)
{
    switch (fuzz_below(in, 16)) {
    case 0:
        controller(in);
        device(in);
        break;
    case 1:
        set(BAR + fuzz_below(in, 0x2110), fuzz_64(in), 1u << fuzz_below(in, 4));
        break;
    case 2:
        get(BAR + fuzz_below(in, 0x2110), 1u << fuzz_below(in, 4));
        break;
    case 3:
        command(in, fuzz_rarely(in, 3) ? somewhere(in) : RINGS | 1,
                (9 + fuzz_below(in, 16)) << 10 | fuzz_below(in, 6) << 16 |
                    (1 + fuzz_below(in, 3)) << 24);
        break;
    case 4:
    case 5:
        device(in);
        break;
    case 6:
        poke(CONTEXTS + fuzz_below(in, 0x4000), fuzz_64(in), 8);
        break;
    case 7:
        set(BAR + 0x1038, EVENTS + 0x100 + 16 * fuzz_below(in, 100) + 8, 8);
        break;
    case 8:
        loop_run_once(loop, 0, NULL);
        break;
    case 9:
    case 10:
    case 11:
        control_transfer(in);
        break;
    default:
        bulk(in);
        break;
    }
}
