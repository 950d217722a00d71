/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzz target: shared folders (devices.h): virtio-9p and virtio-fs behind PCI, between a driver that puts anything into their queues and
 * servers that answer anything: of 9P at a socket, of virtio-fs a vhost-user back end that writes into the window as it likes. Beside them what no
 * other target has on its board: a flash bank, the device of panics, a virtio console.
 */
#include "devices/fs/share.h"
#include "devices/virtio/vhost_int.h"
#include "engine/core/device.h"
#include "tests/fuzz/fuzz.h"

const char fuzz_name[] = "fuzz_shares";

struct board_config;
static void fuzz_shares(struct board_config *cfg);
static void fuzz_shares_done(void);
static bool fuzz_shares_gone(void);

#define FUZZ_SHARES 1
#include "tests/fuzz/devices.h"

#define RINGS (RV_RAM + 0x40000)
#define FS_RINGS (RV_RAM + 0x48000)
#define BUFFERS (RV_RAM + 0x50000)
enum { ID_9P = 0x1049, ID_FS = 0x105a };

static int server = -1, back = -1; /* the other ends */
static struct vhost_kit kit;
static uint16_t used[2];
static bool gone;

/* --- the servers' side --- */

static void fuzz_shares(struct board_config *cfg)
{
    /* What a back end says while hands are shaken: features, protocol features. */
    static const uint64_t says[2] = { UINT64_C(1) << 32 | 1 << 30, 0 };
    static const uint32_t requests[2] = { 1, 15 };
    struct err e = ERR_INIT;
    struct vhost_user *u = NULL;
    struct blk_options o = { .name = "flash", .driver = "raw", .path = "flash" };
    int pair[2];

    gone = false;
    memset(used, 0, sizeof(used));
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) < 0) {
        FUZZ_FAIL("no socket pair");
    }
    server = pair[1];
    cfg->share[cfg->n_shares++] = (struct board_share){ .id = "share0",
                                                        .tag = "nine",
                                                        .fd = pair[0] };
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) < 0 ||
        vhost_kit_open(&kit, &e) < 0) {
        FUZZ_FAIL("%s", e.msg);
    }
    back = pair[1];
    for (unsigned i = 0; i < 2; i++) {
        uint32_t head[3] = { requests[i], 5, 8 };

        if (send(back, head, sizeof(head), 0) < 0 || send(back, &says[i], 8, 0) < 0) {
            FUZZ_FAIL("no handshake");
        }
    }
    if (vhost_user_new(loop, pair[0], &kit, "fs", 2, 0, INT64_C(10000000000), &u, &e) < 0) {
        FUZZ_FAIL("%s", e.msg);
    }
    cfg->share[cfg->n_shares++] = (struct board_share){
        .id = "share1", .tag = "fs", .back = u, .fd = -1
    };
    o.fd = memfd_create("flash", MFD_CLOEXEC);
    if (ftruncate(o.fd, 1 << 20) < 0 || blk_open(pool, &o, &cfg->flash[0], &e) < 0) {
        FUZZ_FAIL("%s", e.msg);
    }
    cfg->panic = cfg->virtio_console = true;
}

static void fuzz_shares_done(void)
{
    close(server);
    close(back);
    vhost_kit_close(&kit);
}

static bool fuzz_shares_gone(void)
{
    return gone;
}

/* Answers one message by its tag; rarely what nobody asked, or what is none. */
static void answer_9p(struct fuzz_in *in)
{
    static uint8_t bytes[1 << 16];
    uint32_t size = 7 + (fuzz_rarely(in, 8) ? fuzz_below(in, 4096) : fuzz_below(in, 64));
    ssize_t n = recv(server, bytes, 7, MSG_DONTWAIT);

    if (n < 7) {
        gone = gone || n == 0;
        return;
    }
    uint32_t rest = (uint32_t)bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 |
                    (uint32_t)bytes[3] << 24;
    for (rest -= 7; rest > 0;) {
        uint8_t drop[4096];
        ssize_t got = recv(server, drop, rest < sizeof(drop) ? rest : sizeof(drop),
                           MSG_DONTWAIT);

        if (got <= 0) {
            gone = true; /* the rest is not sent yet: there is no answer in step with it */
            return;
        }
        rest -= (uint32_t)got;
    }
    for (unsigned i = 7; i < size; i++) {
        bytes[i] = fuzz_8(in);
    }
    memcpy(bytes, &size, 4);
    bytes[4] = fuzz_rarely(in, 4) ? fuzz_8(in) : (uint8_t)(bytes[4] + 1);
    if (fuzz_rarely(in, 256)) {
        bytes[fuzz_below(in, 7)] = fuzz_8(in);
        gone = true; /* it may hang up on us now */
    }
    (void)!send(server, bytes, size, MSG_NOSIGNAL | MSG_DONTWAIT);
}

/* Says that requests are done, mostly ones that it has; writes where it may. */
static void answer_fs(struct fuzz_in *in, bool honest)
{
    unsigned q = fuzz_below(in, 2);
    uint8_t *w = kit.window;
    uint16_t avail, at;
    uint64_t one = 1;

    memcpy(&avail, w + vhost_avail_at(q) + 2, 2);
    if (used[q] != avail) {
        uint16_t head;
        uint32_t entry[2];

        memcpy(&head, w + vhost_avail_at(q) + 4 + 2u * (used[q] % VHOST_RING), 2);
        entry[0] = !honest && fuzz_rarely(in, 64) ? (uint32_t)fuzz_64(in) : head;
        entry[1] = !honest && fuzz_rarely(in, 8) ? (uint32_t)fuzz_64(in) : fuzz_below(in, 200);
        memcpy(w + vhost_used_at(q) + 4 + 8u * (used[q] % VHOST_RING), entry, sizeof(entry));
        used[q]++;
    }
    at = !honest && fuzz_rarely(in, 128) ? (uint16_t)fuzz_64(in) : used[q];
    gone = gone || at != used[q];
    memcpy(w + vhost_used_at(q) + 2, &at, 2);
    if (!honest && fuzz_rarely(in, 8)) {
        for (unsigned i = 0; i < 64; i++) {
            w[(fuzz_64(in) & (VHOST_WINDOW - 1)) | VHOST_RINGS * VHOST_MAX_QUEUES] = fuzz_8(in);
        }
    }
    if (!honest && fuzz_rarely(in, 64)) { /* over the rings, too */
        w[fuzz_64(in) & (VHOST_RINGS * VHOST_MAX_QUEUES - 1)] = fuzz_8(in);
        gone = true;
    }
    if (!honest && fuzz_rarely(in, 256)) {
        (void)!send(back, w, 1 + fuzz_below(in, 64), MSG_NOSIGNAL | MSG_DONTWAIT);
        gone = true;
    }
    (void)!write(kit.call[q], &one, 8);
    (void)loop_run_once(loop, 0, NULL);
}

/* --- the driver's side --- */

static unsigned slot_of(unsigned id)
{
    for (unsigned slot = 1; slot < PCI_SLOTS; slot++) {
        if (get(pci_config(slot, 2), 2) == id) {
            return slot;
        }
    }
    FUZZ_FAIL("no device %x", id);
}

/* Two descriptors: what the device reads, and behind it what it fills. */
static void request(struct fuzz_in *in, unsigned id, uint64_t base, unsigned q, uint64_t at,
                    uint32_t length, uint32_t room)
{
    unsigned slot = slot_of(id), i = 2 * (vpci_avail[q] & 3);
    uint64_t ring = vpci_ring(base, q);

    poke(ring + 16 * i, fuzz_rarely(in, 32) ? somewhere(in) : at, 8);
    poke(ring + 16 * i + 8, length, 4);
    poke(ring + 16 * i + 12, fuzz_rarely(in, 32) ? fuzz_8(in) & 7 : 1, 2);
    poke(ring + 16 * i + 14, fuzz_rarely(in, 64) ? fuzz_8(in) : i + 1, 2);
    poke(ring + 16 * i + 16, BUFFERS + 0x8000 + 0x100 * fuzz_below(in, 64), 8);
    poke(ring + 16 * i + 24, room, 4);
    poke(ring + 16 * i + 28, fuzz_rarely(in, 32) ? fuzz_8(in) & 7 : 2, 2);
    poke(ring + 0x404 + 2 * (vpci_avail[q] & 7), i, 2);
    vpci_avail[q]++;
    poke(ring + 0x402, fuzz_rarely(in, 64) ? fuzz_64(in) : vpci_avail[q], 2);
    set(PCI_BAR(slot, 4) + 0x3000 + 4 * q, q, 2);
}

static void ask_9p(struct fuzz_in *in)
{
    static const uint8_t types[] = { 100, 104, 110, 110, 120, 122, 24, 12, 116, 118, 108, 30 };
    uint64_t at = BUFFERS + 0x100 * fuzz_below(in, 64);
    uint32_t size = 7 + fuzz_below(in, 200);

    poke(at, fuzz_rarely(in, 32) ? fuzz_64(in) : size, 4);
    poke(at + 4, fuzz_rarely(in, 16) ? fuzz_8(in) : types[fuzz_below(in, sizeof(types))], 1);
    poke(at + 5, fuzz_rarely(in, 16) ? fuzz_64(in) : fuzz_below(in, 8), 2);
    poke(at + 7, fuzz_64(in), 8);
    request(in, ID_9P, RINGS, 0, at, fuzz_rarely(in, 32) ? (uint32_t)fuzz_64(in) : size,
            fuzz_rarely(in, 16) ? fuzz_below(in, 16) : 11 + fuzz_below(in, 5000));
}

static void ask_fs(struct fuzz_in *in)
{
    uint64_t at = BUFFERS + 0x100 * fuzz_below(in, 64);
    uint32_t size = 40 + fuzz_below(in, 200);

    poke(at, size, 4);
    poke(at + 4, fuzz_rarely(in, 8) ? fuzz_64(in) : fuzz_below(in, 50), 4);
    poke(at + 8, fuzz_64(in), 8);
    request(in, ID_FS, FS_RINGS, fuzz_below(in, 2), at,
            fuzz_rarely(in, 32) ? (uint32_t)fuzz_64(in) : size,
            fuzz_rarely(in, 16) ? (uint32_t)fuzz_64(in) : 16 + fuzz_below(in, 5000));
}

/* Commands of the flash chips and their data, mostly in step. */
static void flash(struct fuzz_in *in)
{
    static const uint8_t commands[] = { 0xff, 0x90, 0x98, 0x70, 0x50, 0x20, 0xd0,
                                        0x40, 0x10, 0xe8, 0x60, 0x01, 0xb0 };
    uint64_t at = RV_FLASH + (fuzz_rarely(in, 8) ? fuzz_64(in) % RV_FLASH_BANK
                                                 : 0x40000u * fuzz_below(in, 3));
    uint8_t command = commands[fuzz_below(in, sizeof(commands))];
    unsigned size = 1u << fuzz_below(in, 3), n = 1 + fuzz_below(in, 12);

    for (unsigned i = 0; i < n; i++) {
        set(at + (i > 1 ? size * fuzz_below(in, 64) : 0),
            fuzz_rarely(in, 3) ? fuzz_64(in) : command * UINT64_C(0x0001000100010001), size);
        (void)get(at + fuzz_below(in, 256), size);
    }
    (void)loop_run_once(loop, 0, NULL);
}

void fuzz_act(struct fuzz_in *in)
{
    switch (fuzz_below(in, 20)) {
    case 16:
    case 17:
        flash(in);
        break;
    case 18:
        pci_setup(in);
        set(PCI_BAR(1 + fuzz_below(in, PCI_SLOTS - 1), fuzz_below(in, 2)) + fuzz_below(in, 8),
            fuzz_64(in), 1);
        break;
    case 19:
        any_device(in);
        break;
    case 0:
        vpci_bring_up(in, slot_of(ID_9P), RINGS);
        break;
    case 1:
        vpci_bring_up(in, slot_of(ID_FS), FS_RINGS);
        break;
    case 2:
        set(PCI_BAR(slot_of(fuzz_rarely(in, 2) ? ID_9P : ID_FS), 4) + fuzz_below(in, 0x3100),
            fuzz_64(in), 1u << fuzz_below(in, 4));
        break;
    case 3:
        poke(somewhere(in), fuzz_64(in), 8);
        break;
    case 4:
    case 5:
    case 6:
        answer_9p(in);
        break;
    case 7:
    case 8:
    case 9:
        answer_fs(in, false);
        break;
    case 10:
    case 11:
    case 12:
        ask_9p(in);
        break;
    default:
        ask_fs(in);
        break;
    }
    (void)loop_run_once(loop, 0, NULL);
}
