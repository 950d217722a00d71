/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzz target: the ports of a virtio-serial device (devices.h): what a driver tells it, output and room for input, while
 * clients of the host come and go, and ports, too.
 */
#include "devices/char/virtio_serial.h"
#include "tests/fuzz/fuzz.h"

const char fuzz_name[] = "fuzz_serial";

#include "tests/fuzz/devices.h"

#define SLOT 7
#define RINGS (RV_RAM + 0x40000)
#define BUFFERS (RV_RAM + 0x50000)

static struct device *ports_device(void)
{
    struct device *d = rv_virt_board.serial(board);

    for (unsigned i = 0; i < 2; i++) { /* as they were, after a reset */
        virtio_serial_add(d, port_names[i], i == 1, &ports[i], NULL);
    }
    return d;
}

static uint64_t buffer(struct fuzz_in *in)
{
    return fuzz_rarely(in, 16) ? somewhere(in) : BUFFERS + 0x100 * fuzz_below(in, 64);
}

/* A control message: mostly one that there is, of a port that there is. */
static void control(struct fuzz_in *in)
{
    uint64_t at = BUFFERS + 0x4000;

    poke(at, fuzz_rarely(in, 8) ? fuzz_64(in) : fuzz_below(in, 3), 4);
    poke(at + 4, fuzz_rarely(in, 8) ? fuzz_64(in) : fuzz_below(in, 8), 2);
    poke(at + 6, fuzz_rarely(in, 8) ? fuzz_64(in) : !fuzz_rarely(in, 4), 2);
    vpci_buffer(in, SLOT, RINGS, 3, fuzz_rarely(in, 16) ? buffer(in) : at,
                fuzz_rarely(in, 8) ? fuzz_8(in) : 8, false);
}

static void bring_up(struct fuzz_in *in)
{
    static const struct {
        uint8_t event, value, port;
    } hello[] = { { 0, 1, 0 }, { 3, 1, 0 }, { 3, 1, 1 }, { 6, 1, 1 }, { 6, 1, 0 } };

    vpci_bring_up(in, SLOT, RINGS);
    for (unsigned i = 0; i < 4; i++) {
        vpci_buffer(in, SLOT, RINGS, 2, BUFFERS + 0x100 * i, 64, true);
    }
    for (unsigned i = 0; i < ARRAY_LEN(hello); i++) {
        uint64_t at = BUFFERS + 0x4000;

        poke(at, hello[i].port, 4);
        poke(at + 4, hello[i].event | (uint32_t)hello[i].value << 16, 4);
        vpci_buffer(in, SLOT, RINGS, 3, at, 8, false);
        loop_run_once(loop, 0, NULL);
    }
}

/* Bytes of a client of the host, as a back end gives them. */
static void client_writes(struct fuzz_in *in, struct chr *c)
{
    static const uint8_t bytes[8192];

    if (c->front) {
        size_t room = c->front->room(c->front_arg), n = fuzz_below(in, 8192);

        if (room > 0 && n > 0) {
            c->front->receive(c->front_arg, bytes, n < room ? n : room);
        }
    }
}

static void host(struct fuzz_in *in)
{
    struct device *d = ports_device();
    unsigned i = fuzz_below(in, 2);

    switch (fuzz_below(in, 5)) {
    case 0:
        chr_connected(&ports[i], fuzz_rarely(in, 2));
        break;
    case 1:
        virtio_serial_resize(d, "term", fuzz_8(in), fuzz_8(in), NULL);
        break;
    case 2:
        virtio_serial_remove(d, port_names[i], NULL);
        break;
    default:
        client_writes(in, &ports[i]);
        break;
    }
}

void fuzz_act(struct fuzz_in *in)
{
    switch (fuzz_below(in, 10)) {
    case 0:
        bring_up(in);
        break;
    case 1:
        set(PCI_BAR(SLOT, 4) + fuzz_below(in, 0x3100), fuzz_64(in), 1u << fuzz_below(in, 4));
        break;
    case 2:
        poke(somewhere(in), fuzz_64(in), 8);
        break;
    case 3:
    case 4:
        control(in);
        break;
    case 5:
        vpci_buffer(in, SLOT, RINGS,
                    fuzz_rarely(in, 2)   ? 2
                    : fuzz_rarely(in, 2) ? 0
                                         : 4,
                    buffer(in), fuzz_rarely(in, 8) ? (uint32_t)fuzz_64(in) : fuzz_8(in), true);
        break;
    case 6:
        vpci_buffer(in, SLOT, RINGS, fuzz_rarely(in, 2) ? 1 : 5, buffer(in),
                    fuzz_rarely(in, 8) ? (uint32_t)fuzz_64(in) : fuzz_8(in) * 40u, false);
        break;
    case 7:
        loop_run_once(loop, 0, NULL);
        break;
    default:
        host(in);
        break;
    }
}
