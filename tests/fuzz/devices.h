/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the fuzz targets of devices have in common: a whole board with disks on every bus, network cards, console, ports, random
 * numbers, and what a guest does to it: reads and writes of device registers and of memory, among them queues set up properly and
 * then spoiled. The engine runs nothing. After each input the board is reset. Included once by each target, which says
 * in fuzz_act() what is done next.
 */
#ifndef VMD_TESTS_FUZZ_DEVICES_H
#define VMD_TESTS_FUZZ_DEVICES_H

#include "devices/board/board.h"
#include "devices/board/rv_virt.h"
#include "devices/char/chr.h"
#include "devices/display/display.h"
#include "devices/misc/virtio_vsock.h"
#include "engine/arch/riscv/cpu.h"
#include "engine/base/log.h"
#include "engine/base/loop.h"
#include "engine/base/mem.h"
#include "engine/core/bus.h"
#include "engine/core/vm.h"
#include "network/stream.h"
#include "storage/block.h"
#include "tests/fuzz/fuzz.h"

#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

void fuzz_act(struct fuzz_in *in); /* the target's */

#define MEMORY (UINT64_C(4) << 20)
#define QUEUES (RV_RAM + 0x10000)

static struct loop *loop;
static struct vm *vm;
static struct board *board;
static struct blk_pool *pool;
static int firmware_fd, peer[2];
static struct display *display;

/* ---- an engine that runs nothing ---- */

static int null_init(struct vcpu *c, struct err *e)
{
    (void)e;
    c->cpu = xalloc(c->vm->arch->cpu_size);
    return 0;
}

static void null_done(struct vcpu *c)
{
    free(c->cpu);
    c->cpu = NULL;
}

static enum vcpu_exit null_run(struct vcpu *c)
{
    (void)c;
    return VCPU_EXIT_HALT;
}

static void null_kick(struct vcpu *c)
{
    (void)c;
}

static const struct engine_ops null_engine = { .name = "null",
                                               .vcpu_init = null_init,
                                               .vcpu_done = null_done,
                                               .run = null_run,
                                               .kick = null_kick,
                                               .irq = null_kick };

/* ---- the board ---- */

static size_t swallow(struct chr *c, const uint8_t *p, size_t n)
{
    (void)c;
    (void)p;
    return n;
}

static void accepted(struct chr *c)
{
    (void)c;
}

static const struct chr_back_ops swallow_ops = { .write = swallow, .accept = accepted };
static struct chr console = { .back = &swallow_ops };

/* Ports of the virtio-serial device; what comes out of them is swallowed. */
static struct chr ports[] = { { .back = &swallow_ops }, { .back = &swallow_ops } };
static const char *const port_names[] = { "one", "term" };

static void add_disk(struct board_config *cfg, const char *name, enum board_disk_bus bus)
{
    struct blk_options o = { .name = name, .driver = "raw", .path = name };
    struct board_disk *d = &cfg->disk[cfg->n_disks++];
    struct err e = ERR_INIT;

    o.fd = memfd_create(name, MFD_CLOEXEC);
    if (ftruncate(o.fd, 1 << 20) < 0 || blk_open(pool, &o, &d->node, &e) < 0) {
        FUZZ_FAIL("%s", e.msg);
    }
    d->name = name;
    d->bus = bus;
    d->unit = BOARD_ANY;
    d->controller = bus == BOARD_NVME ? BOARD_ANY : 0;
    d->cdrom = strcmp(name + strlen(name) - 2, "cd") == 0;
}

/* A card whose peer sends back what it gets, as far as there is room. */
static void add_nic(struct board_config *cfg, enum board_nic_bus bus)
{
    int pair[2];

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair) < 0) {
        FUZZ_FAIL("no socket pair");
    }
    peer[cfg->n_nics] = pair[1];
    cfg->nic[cfg->n_nics++] = (struct board_nic){
        .mac = "52:54:00:12:34:56",
        .bus = bus,
        .mtu = 1500,
        .queues = 2,
        .port = net_stream_new(loop, pair[0], "nic", bus == BOARD_NIC_VIRTIO_MMIO)
    };
}

static void echo_frames(void)
{
    static uint8_t bytes[1 << 16];

    for (unsigned i = 0; i < 2; i++) {
        ssize_t n = recv(peer[i], bytes, sizeof(bytes), 0);

        if (n > 0) {
            (void)!send(peer[i], bytes, (size_t)n, MSG_NOSIGNAL);
        }
    }
}

#ifdef FUZZ_EXTRAS
/* Calls of the guest are kept, and answered by the target. */
static uint64_t fuzz_tickets;
static void fuzz_call(void *arg, uint32_t port, uint64_t ticket)
{
    (void)arg;
    (void)port;
    fuzz_tickets = ticket;
}
static struct vsock_host fuzz_vsock_host = { fuzz_call, NULL };

static bool fuzz_audio_play(void *arg, uint64_t place, const uint8_t *p, size_t n)
{
    (void)arg;
    (void)place;
    return n == 0 || p[n - 1] != 0x5a;
}
static void fuzz_audio_hear(void *arg, uint64_t place, uint8_t *p, size_t n)
{
    (void)arg;
    memset(p, (int)place, n);
}
static struct audio_host fuzz_audio_host = { .play = fuzz_audio_play, .hear = fuzz_audio_hear };
#endif

void fuzz_setup(void)
{
#ifdef FUZZ_SHARES
    static int nowhere = -1; /* once for all machines */

    nowhere = nowhere < 0 ? open("/dev/null", O_WRONLY | O_CLOEXEC) : nowhere;
#endif
    struct err e = ERR_INIT;
    struct board_config cfg = { .xlen = 64,
                                .cpu_model = "max",
                                .cpus = 2,
                                .memory = MEMORY,
                                .console = &console,
                                .rng = true,
                                .root_ports = 1 };

#ifdef FUZZ_SHARES
    log_init(fuzz_name, LOG_ERROR, nowhere); /* servers that lie are told of */
#else
    log_init(fuzz_name, LOG_ERROR, 2);
#endif
    loop = loop_new(&e);
    firmware_fd = memfd_create("firmware", MFD_CLOEXEC);
    cfg.firmware = (struct board_file){ "firmware", firmware_fd };
    if (ftruncate(firmware_fd, 64) < 0 ||
        vm_new("fuzz", &riscv64_arch, &null_engine, loop, NULL, &vm, &e) < 0 ||
        blk_pool_new(loop, &(struct blk_pool_options){ 0 }, &pool, &e) < 0) {
        FUZZ_FAIL("%s", e.msg);
    }
    add_disk(&cfg, "disk", BOARD_VIRTIO_MMIO);
    add_disk(&cfg, "pci", BOARD_VIRTIO_PCI);
    add_disk(&cfg, "nvme", BOARD_NVME);
    add_disk(&cfg, "scsi", BOARD_SCSI);
    add_disk(&cfg, "scsi-cd", BOARD_SCSI);
    add_disk(&cfg, "mmio", BOARD_SCSI_MMIO);
    add_disk(&cfg, "mmio-cd", BOARD_SCSI_MMIO);
    add_disk(&cfg, "sata", BOARD_SATA);
    add_disk(&cfg, "sata-cd", BOARD_SATA);
    add_disk(&cfg, "usb", BOARD_USB);
    add_disk(&cfg, "usb-cd", BOARD_USB);
    cfg.usb[cfg.n_usb++] = (struct board_usb){ BOARD_USB_HUB, "1" };
    cfg.usb[cfg.n_usb++] = (struct board_usb){ BOARD_USB_KEYBOARD, "2" };
    cfg.usb[cfg.n_usb++] = (struct board_usb){ BOARD_USB_TABLET, "1.1" };
    cfg.usb[cfg.n_usb++] = (struct board_usb){ BOARD_USB_MOUSE, "1.2" };
    add_nic(&cfg, BOARD_NIC_VIRTIO_MMIO);
    add_nic(&cfg, BOARD_NIC_VIRTIO_PCI);
    display = display_new(320, 200);
    cfg.screen = (struct board_screen){ .gpu = BOARD_GPU_VIRTIO_MMIO,
                                        .display = display,
                                        .width = 320,
                                        .height = 200,
                                        .input = true };
    for (unsigned i = 0; i < 2; i++) {
        cfg.serial[cfg.n_serial++] = (struct board_serial){ .name = port_names[i],
                                                            .chr = &ports[i],
                                                            .console = i == 1 };
    }
#ifdef FUZZ_EXTRAS
    cfg.screen.gpu = BOARD_GPU_NONE;
    cfg.vsock = (struct board_vsock){ 3, &fuzz_vsock_host };
    cfg.watchdog = true;
    cfg.sound = true;
    cfg.audio = &fuzz_audio_host;
    cfg.memory_device[cfg.n_memory_devices++] = (struct board_memory){ .id = "memory0",
                                                                       .size = 64 << 20,
                                                                       .requested = 32 << 20 };
    cfg.balloon = (struct board_balloon){ .on = true,
                                          .deflate_on_oom = true,
                                          .reporting = true };
#endif
#ifdef FUZZ_IOMMU
    cfg.iommu = true;
#endif
#ifdef FUZZ_SHARES
    fuzz_shares(&cfg);
#endif
    if (rv_virt_board.build(vm, &cfg, &board, &e) < 0 || vm_start(vm, &e) < 0) {
        FUZZ_FAIL("%s", e.msg);
    }
    vm_resume(vm);
}

void fuzz_finish(void)
{
    vm_free(vm);
    rv_virt_board.free(board);
#ifdef FUZZ_SHARES
    fuzz_shares_done();
#endif
    display_free(display);
    blk_pool_free(pool);
    close(peer[0]);
    close(peer[1]);
    close(firmware_fd);
    loop_free(loop);
}

/* ---- what a guest does ---- */

static uint64_t get(uint64_t gpa, unsigned size)
{
    const struct mem_range *r = mem_find(vm->mem, gpa);
    uint64_t v = 0;

    return r && r->ops && bus_read(r, gpa, size, &v) == BUS_OK ? v : 0;
}

static void set(uint64_t gpa, uint64_t value, unsigned size)
{
    const struct mem_range *r = mem_find(vm->mem, gpa);

    if (r && gpa - r->base + size <= r->size) {
        (void)bus_write(vm->mem, r, gpa, size, value);
    }
}

static uint64_t somewhere(struct fuzz_in *in)
{
    switch (fuzz_below(in, 8)) {
    case 0:
        return fuzz_64(in);
    case 1:
        return RV_RAM + MEMORY - fuzz_below(in, 64);
    case 2:
        return RV_UART + fuzz_below(in, 16);
    default:
        return QUEUES + fuzz_below(in, 0x4000);
    }
}

/* Functions of the board: root port, virtio disk, NVMe, virtio-scsi, AHCI, network card, virtio-serial, xHCI; where BARs are put, by slot and number. */
#ifdef FUZZ_EXTRAS
#define PCI_SLOTS 16 /* and the balloon, the sockets, ... */
#define XHCI_SLOT 12
#define FUZZ_MEMORY_AT 0xc0000000ull /* of the memory device */
#else
#ifdef FUZZ_SHARES
#define PCI_SLOTS 12
#else
#define PCI_SLOTS 9
#endif
#define XHCI_SLOT 8
#endif
#define PCI_BAR(slot, n) (RV_PCI_MMIO + 0x100000u * (slot) + 0x10000u * (n))

static uint64_t pci_config(unsigned slot, unsigned offset)
{
    return RV_PCI_ECAM + 0x8000u * slot + offset;
}

/* As firmware does it, mostly. */
static inline void pci_setup(struct fuzz_in *in)
{
    for (unsigned slot = 2; slot < PCI_SLOTS; slot++) {
        for (unsigned n = 0; n < 6; n++) {
            set(pci_config(slot, 0x10 + 4 * n),
                fuzz_rarely(in, 32) ? fuzz_64(in) : PCI_BAR(slot, n), 4);
        }
        /* The upper halves of 64-bit BARs. */
        set(pci_config(slot, slot == 3 || slot == 5 || slot == XHCI_SLOT ? 0x14 : 0x24), 0, 4);
        set(pci_config(slot, 4), fuzz_rarely(in, 16) ? fuzz_64(in) : 6, 2);
    }
}

static uint64_t pci_register(struct fuzz_in *in)
{
    unsigned slot = fuzz_below(in, PCI_SLOTS + 1);

    if (fuzz_rarely(in, 3)) {
        return pci_config(slot, fuzz_below(in, 0x140));
    }
    return PCI_BAR(slot, fuzz_below(in, 6)) +
           (fuzz_rarely(in, 2) ? fuzz_below(in, 0x60)
                               : 0x1000u * fuzz_below(in, 4) + fuzz_below(in, 0x90));
}

static inline uint64_t device_register(struct fuzz_in *in)
{
    if (fuzz_rarely(in, 3)) {
        return pci_register(in);
    }

    static const uint32_t base[] = { RV_VIRTIO, RV_VIRTIO, RV_VIRTIO, RV_VIRTIO, RV_UART,
                                     RV_PLIC,   RV_ACLINT, RV_RTC,    RV_TEST,   RV_FW_CFG };
    unsigned n = fuzz_below(in, 10);
    uint64_t at = base[n];

    if (at == RV_VIRTIO) {
        at += (uint64_t)fuzz_below(in, 8) * RV_VIRTIO_STEP;
        return at + fuzz_below(in, fuzz_rarely(in, 4) ? 0x1000 : 0x130);
    }
    if (at == RV_PLIC) {
        return at +
               ((uint64_t)fuzz_8(in) << 16 | (uint64_t)fuzz_8(in) << 8 | fuzz_8(in)) % 0x600000;
    }
    return at + fuzz_below(in, at == RV_ACLINT ? 0x10000 : 0x100);
}

static void poke(uint64_t gpa, uint64_t value, unsigned size)
{
    (void)mem_dma_write(vm->mem, gpa, &value, size);
}

/* A queue as a driver makes it: reset, features, sizes, addresses, a chain of descriptors, a kick. */
static inline void virtqueue(struct fuzz_in *in)
{
    uint64_t at = RV_VIRTIO + (uint64_t)fuzz_below(in, 7) * RV_VIRTIO_STEP;
    uint64_t base = QUEUES + (uint64_t)fuzz_below(in, 4) * 0x1000;
    unsigned queue = fuzz_below(in, 3), size = 1u << fuzz_below(in, 5),
             n = 1 + fuzz_below(in, 8), i;

    if (fuzz_rarely(in, 2)) {
        set(at + 0x70, 0, 4);
    }
    set(at + 0x70, 3, 4);
    for (i = 0; i < 2; i++) {
        set(at + 0x14, i, 4);
        set(at + 0x24, i, 4);
        set(at + 0x20, get(at + 0x10, 4) & (fuzz_rarely(in, 4) ? fuzz_64(in) : UINT32_MAX), 4);
    }
    set(at + 0x70, 11, 4);
    set(at + 0x30, queue, 4);
    set(at + 0x38, fuzz_rarely(in, 8) ? fuzz_8(in) : size, 4);
    for (i = 0; i < 3; i++) {
        uint64_t to = fuzz_rarely(in, 12) ? somewhere(in) : base + i * 0x400;

        set(at + 0x80 + 0x10 * i, to & UINT32_MAX, 4);
        set(at + 0x84 + 0x10 * i, to >> 32, 4);
    }
    set(at + 0x44, 1, 4);
    set(at + 0x70, 15, 4);
    for (i = 0; i < n; i++) {
        poke(base + 16 * i, somewhere(in), 8);
        poke(base + 16 * i + 8, fuzz_rarely(in, 6) ? fuzz_64(in) : 1 + fuzz_below(in, 600), 4);
        poke(base + 16 * i + 12, fuzz_rarely(in, 6) ? fuzz_8(in) : fuzz_8(in) & 3, 2);
        poke(base + 16 * i + 14, fuzz_rarely(in, 4) ? fuzz_8(in) : i + 1, 2);
    }
    for (i = 0; i < size; i++) {
        poke(base + 0x404 + 2 * i, fuzz_below(in, 9), 2);
    }
    poke(base + 0x402, fuzz_rarely(in, 6) ? fuzz_64(in) : 1 + fuzz_below(in, size), 2);
    /* A request header of the disk: type and sector. */
    poke(QUEUES, fuzz_below(in, 16), 8);
    poke(QUEUES + 8, fuzz_rarely(in, 4) ? fuzz_64(in) : fuzz_8(in), 8);
    set(at + 0x50, queue, 4);
}

/* A virtio device behind PCI, as a driver brings it up: reset, all its features, its queues of 8 descriptors
 * each at the next 4 KiB. */
#define VPCI_QUEUES 6
static uint16_t vpci_avail[VPCI_QUEUES];

static inline uint64_t vpci_ring(uint64_t base, unsigned q)
{
    return base + 0x1000u * q;
}

static inline void vpci_bring_up(struct fuzz_in *in, unsigned slot, uint64_t base)
{
    uint64_t at = PCI_BAR(slot, 4);

    pci_setup(in);
    set(at + 0x14, 0, 1);
    set(at + 0x14, 3, 1);
    for (unsigned i = 0; i < 2; i++) {
        set(at, i, 4);
        set(at + 8, i, 4);
        set(at + 12, get(at + 4, 4) & (i ? 3 : UINT32_MAX), 4); /* VERSION_1, ACCESS_PLATFORM */
    }
    set(at + 0x14, 11, 1);
    for (unsigned q = 0; q < VPCI_QUEUES; q++) {
        set(at + 0x16, q, 2);
        set(at + 0x18, fuzz_rarely(in, 32) ? fuzz_8(in) : 8, 2);
        for (unsigned i = 0; i < 3; i++) {
            uint64_t to = fuzz_rarely(in, 64) ? somewhere(in) : vpci_ring(base, q) + 0x400 * i;

            set(at + 0x20 + 8 * i, to & UINT32_MAX, 4);
            set(at + 0x24 + 8 * i, to >> 32, 4);
        }
        set(at + 0x1c, 1, 2);
        vpci_avail[q] = 0;
        poke(vpci_ring(base, q) + 0x402, 0, 2);
    }
    set(at + 0x14, 15, 1);
}

/* One buffer more in queue q, which the device writes or reads, and a kick. */
static inline void vpci_buffer(struct fuzz_in *in, unsigned slot, uint64_t base, unsigned q,
                               uint64_t at, uint32_t length, bool device_writes)
{
    uint64_t ring = vpci_ring(base, q);
    unsigned i = vpci_avail[q] & 7;

    poke(ring + 16 * i, at, 8);
    poke(ring + 16 * i + 8, length, 4);
    poke(ring + 16 * i + 12,
         fuzz_rarely(in, 24) ? fuzz_8(in) & 7u
         : device_writes     ? 2u
                             : 0u,
         2);
    poke(ring + 16 * i + 14, fuzz_8(in) & 7, 2);
    poke(ring + 0x404 + 2 * i, fuzz_rarely(in, 32) ? fuzz_64(in) : i, 2);
    vpci_avail[q]++;
    poke(ring + 0x402, fuzz_rarely(in, 32) ? fuzz_64(in) : vpci_avail[q], 2);
    set(PCI_BAR(slot, 4) + 0x3000 + 4 * q, q, 2);
}

#define NVME_SQ (RV_RAM + 0x20000)
#define NVME_CQ (RV_RAM + 0x28000)

/* Commands in queue q: mostly sensible opcodes, namespaces, pages and lengths. */
static void nvme_commands(struct fuzz_in *in, unsigned q, unsigned n)
{
    static const uint8_t io[] = { 0, 1, 2, 5, 8, 9, 4 };
    static const uint8_t admin[] = { 0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 0x80 };

    for (unsigned i = 0; i < n; i++) {
        uint64_t at = NVME_SQ + 0x1000 * q + 64 * i;

        poke(at,
             fuzz_rarely(in, 8) ? fuzz_64(in)
             : q                ? io[fuzz_below(in, 7)]
                                : admin[fuzz_below(in, 11)],
             1);
        poke(at + 1, fuzz_rarely(in, 4) ? fuzz_8(in) & 0xc3 : 0, 1);
        poke(at + 4, fuzz_rarely(in, 6) ? fuzz_64(in) : 1, 4);
        poke(at + 24, fuzz_rarely(in, 4) ? fuzz_64(in) : somewhere(in) & ~(uint64_t)0xff, 8);
        poke(at + 32, fuzz_rarely(in, 3) ? fuzz_64(in) : somewhere(in) & ~(uint64_t)7, 8);
        for (unsigned w = 40; w < 64; w += 4) {
            poke(at + w, fuzz_rarely(in, 6) ? fuzz_64(in) : fuzz_8(in), 4);
        }
    }
}

static inline void nvme(struct fuzz_in *in)
{
    uint64_t bar = PCI_BAR(3, 0);
    unsigned size = 2 + fuzz_below(in, 12), q = fuzz_below(in, 3);

    pci_setup(in);
    if (fuzz_rarely(in, 2)) {
        set(bar + 0x14, 0, 4);
        set(bar + 0x24, fuzz_rarely(in, 8) ? fuzz_64(in) : (size << 16 | size), 4);
        set(bar + 0x28, fuzz_rarely(in, 12) ? fuzz_64(in) : NVME_SQ, 8);
        set(bar + 0x30, fuzz_rarely(in, 12) ? fuzz_64(in) : NVME_CQ, 8);
        set(bar + 0x14, fuzz_rarely(in, 8) ? fuzz_64(in) : 0x00460001, 4);
        nvme_commands(in, 0, 2);
        /* Queue 1 of each kind. */
        poke(NVME_SQ, 5, 1);
        poke(NVME_SQ + 24, NVME_CQ + 0x1000, 8);
        poke(NVME_SQ + 40, 7u << 16 | 1, 4);
        poke(NVME_SQ + 44, 3, 4);
        poke(NVME_SQ + 64, 1, 1);
        poke(NVME_SQ + 64 + 24, NVME_SQ + 0x1000, 8);
        poke(NVME_SQ + 64 + 40, 7u << 16 | 1, 4);
        poke(NVME_SQ + 64 + 44, 1u << 16 | 1, 4);
        set(bar + 0x1000, 2, 4);
        loop_run_once(loop, 0, NULL);
    }
    nvme_commands(in, q, 8);
    set(bar + 0x1000 + 8 * q, fuzz_rarely(in, 8) ? fuzz_64(in) : fuzz_below(in, 9), 4);
    loop_run_once(loop, 0, NULL);
    set(bar + 0x1004 + 8 * q, fuzz_below(in, 9), 4);
}

/* A CDB: mostly an opcode that there is, small numbers. */
static void command_block(struct fuzz_in *in, uint64_t at)
{
    static const uint8_t codes[] = { 0x00, 0x03, 0x08, 0x0a, 0x12, 0x15, 0x1a, 0x1b, 0x1e,
                                     0x25, 0x28, 0x2a, 0x2f, 0x35, 0x41, 0x42, 0x43, 0x46,
                                     0x4a, 0x4d, 0x51, 0x52, 0x55, 0x5a, 0x88, 0x8a, 0x8f,
                                     0x91, 0x93, 0x9e, 0xa0, 0xa3, 0xa8, 0xbe, 0xbd };

    for (unsigned i = 0; i < 16; i++) {
        poke(at + i, fuzz_rarely(in, 3) ? fuzz_8(in) : fuzz_8(in) & 3, 1);
    }
    poke(at, fuzz_rarely(in, 12) ? fuzz_8(in) : codes[fuzz_below(in, sizeof(codes))], 1);
}

#define SCSI_QUEUE (RV_RAM + 0x30000)

/* A request of the virtio-scsi adapter in the second slot, with data in either direction; sometimes task
 * management beside it. */
static inline void scsi(struct fuzz_in *in)
{
    uint64_t at = RV_VIRTIO + RV_VIRTIO_STEP, q = SCSI_QUEUE, header = q + 0x800;
    unsigned queue = fuzz_rarely(in, 4) ? 0 : 2, out = queue ? 51 : 24, back = queue ? 108 : 5;
    uint32_t data = fuzz_rarely(in, 6) ? (uint32_t)fuzz_64(in) : 256u * fuzz_below(in, 64);
    bool writes = fuzz_rarely(in, 2);

    set(at + 0x70, 0, 4);
    set(at + 0x70, 3, 4);
    set(at + 0x24, 1, 4);
    set(at + 0x20, 1, 4);
    set(at + 0x70, 11, 4);
    set(at + 0x30, queue, 4);
    set(at + 0x38, 4, 4);
    for (unsigned i = 0; i < 3; i++) {
        set(at + 0x80 + 0x10 * i, (q + 0x100 * i) & UINT32_MAX, 4);
        set(at + 0x84 + 0x10 * i, q >> 32, 4);
    }
    set(at + 0x44, 1, 4);
    set(at + 0x70, 15, 4);
    poke(q, header, 8); /* header, data out or response, response or data in */
    poke(q + 8, 1ull << 48 | 1ull << 32 | out, 8);
    poke(q + 16, writes ? somewhere(in) : header + 0x80, 8);
    poke(q + 24, 2ull << 48 | (writes ? 1ull : 3ull) << 32 | (writes ? data : back), 8);
    poke(q + 32, writes ? header + 0x80 : somewhere(in), 8);
    poke(q + 40, 2ull << 32 | (writes ? back : data), 8);
    poke(header, queue ? 1 : fuzz_below(in, 4), 1);
    poke(header + 1, queue ? fuzz_below(in, 3) : 0, 1);
    poke(header + 2, fuzz_rarely(in, 8) ? fuzz_64(in) : 0, 6);
    if (queue) {
        command_block(in, header + 19);
    } else {
        poke(header + 4, fuzz_below(in, 9), 4);
        poke(header + 8, 1 | fuzz_below(in, 3) << 8, 8);
    }
    poke(q + 0x104, 0, 2);
    poke(q + 0x102, 1, 2);
    set(at + 0x50, queue, 4);
    loop_run_once(loop, 0, NULL);
}

#define GPU_SLOT 4 /* behind two disks, random numbers and a network card */
#define GPU_QUEUE (RV_RAM + 0x34000)
#define GPU_COMMANDS 6

/* The numbers behind the head of a command of virtio-gpu, most of them such that it can succeed. */
static void gpu_words(struct fuzz_in *in, uint64_t to)
{
    for (unsigned i = 0; i < 10; i++) {
        poke(to + 4 * i,
             fuzz_rarely(in, 10) ? fuzz_64(in) : fuzz_below(in, fuzz_rarely(in, 3) ? 70 : 4),
             4);
    }
}

static void gpu_backing(struct fuzz_in *in, uint64_t to)
{
    uint64_t entry[2][2] = { { somewhere(in), fuzz_below(in, 9000) },
                             { RV_RAM + 0x40000,
                               fuzz_rarely(in, 4) ? fuzz_64(in) & UINT32_MAX : 40000 } };

    poke(to, 1 + fuzz_below(in, 3), 4);
    poke(to + 4, fuzz_rarely(in, 8) ? fuzz_64(in) : 1 + fuzz_below(in, 2), 4);
    for (unsigned i = 0; i < 4; i++) {
        poke(to + 8 + 8 * i, entry[i / 2][i % 2], 8);
    }
}

/* Commands of virtio-gpu one behind the other: a driver that knows what it does, mostly. */
static void gpu(struct fuzz_in *in)
{
    static const uint16_t types[] = { 0x100, 0x101, 0x101, 0x102, 0x103, 0x103, 0x104, 0x105,
                                      0x105, 0x106, 0x106, 0x107, 0x10a, 0x300, 0x301 };
    uint64_t at = RV_VIRTIO + (uint64_t)GPU_SLOT * RV_VIRTIO_STEP, q = GPU_QUEUE;
    unsigned queue = fuzz_rarely(in, 8), n = 1 + fuzz_below(in, GPU_COMMANDS);

    if (fuzz_rarely(in, 3)) {
        set(at + 0x70, 0, 4);
    }
    set(at + 0x70, 3, 4);
    set(at + 0x24, 0, 4);
    set(at + 0x20, 2, 4); /* EDID */
    set(at + 0x24, 1, 4);
    set(at + 0x20, 1, 4);
    set(at + 0x70, 11, 4);
    set(at + 0x30, queue, 4);
    set(at + 0x44, 0, 4);
    set(at + 0x38, 16, 4);
    for (unsigned i = 0; i < 3; i++) {
        set(at + 0x80 + 0x10 * i, (q + 0x200 * i) & UINT32_MAX, 4);
        set(at + 0x84 + 0x10 * i, q >> 32, 4);
    }
    poke(q + 0x202, 0, 2);
    set(at + 0x44, 1, 4);
    set(at + 0x70, 15, 4);
    for (unsigned i = 0; i < n; i++) {
        uint64_t request = q + 0x800 + 0x100 * i;
        uint16_t type = types[fuzz_below(in, sizeof(types) / sizeof(types[0]))];

        poke(request, fuzz_rarely(in, 20) ? fuzz_64(in) : type, 4);
        poke(request + 4, fuzz_8(in) & 1, 4);
        if (type == 0x106) {
            gpu_backing(in, request + 24);
        } else {
            gpu_words(in, request + 24);
        }
        poke(q + 32 * i, request, 8);
        poke(q + 32 * i + 8, (2 * i + 1ull) << 48 | 1ull << 32 | 64, 8);
        poke(q + 32 * i + 16, q + 0x1000, 8);
        poke(q + 32 * i + 24, 2ull << 32 | 2000, 8);
        poke(q + 0x204 + 2 * i, 2 * i, 2);
    }
    poke(q + 0x202, n, 2);
    set(at + 0x50, queue, 4);
    loop_run_once(loop, 0, NULL);
}

#define AHCI_LIST (RV_RAM + 0x38000)
#define AHCI_TABLE (RV_RAM + 0x39000)

/* Commands in the slots of a port, which is started first, mostly. */
static inline void ahci(struct fuzz_in *in)
{
    static const uint8_t codes[] = { 0x06, 0x20, 0x25, 0x2f, 0x30, 0x35, 0x42, 0x47,
                                     0x60, 0x61, 0x90, 0xa0, 0xa1, 0xb0, 0xc6, 0xc8,
                                     0xca, 0xe7, 0xea, 0xec, 0xef, 0x08, 0xe5, 0x3d };
    uint64_t port = PCI_BAR(5, 5) + 0x100 + 0x80u * fuzz_below(in, 3);
    unsigned n = 1 + fuzz_below(in, 4);

    pci_setup(in);
    if (fuzz_rarely(in, 2)) {
        set(port + 0x18, 2, 4);
        set(port + 0x00, AHCI_LIST, 4);
        set(port + 0x08, AHCI_LIST + 0x800, 4);
        set(port + 0x30, UINT32_MAX, 4);
        set(port + 0x14, UINT32_MAX, 4);
        set(port + 0x18, 0x13, 4);
    }
    for (unsigned slot = 0; slot < n; slot++) {
        uint64_t head = AHCI_LIST + 32 * slot, table = AHCI_TABLE + 0x200 * slot;
        uint8_t code = fuzz_rarely(in, 12) ? fuzz_8(in) : codes[fuzz_below(in, sizeof(codes))];
        unsigned prds = fuzz_rarely(in, 12) ? fuzz_8(in) * 40u : fuzz_below(in, 5);

        poke(head, 5 | (fuzz_rarely(in, 2) ? 0x40u : 0) | prds << 16, 4);
        poke(head + 8, fuzz_rarely(in, 12) ? fuzz_64(in) : table, 8);
        poke(table, 0x27 | (fuzz_rarely(in, 8) ? 0u : 0x8000u) | (unsigned)code << 16, 4);
        poke(table + 4, fuzz_rarely(in, 3) ? fuzz_64(in) : 0x40000000u + fuzz_8(in), 8);
        poke(table + 12, fuzz_rarely(in, 3) ? fuzz_64(in) : fuzz_below(in, 9), 4);
        poke(table + 3, fuzz_rarely(in, 3) ? fuzz_8(in) : 1, 1);
        command_block(in, table + 0x40);
        for (unsigned i = 0; i < 4; i++) {
            poke(table + 0x80 + 16 * i, somewhere(in) & ~1ull, 8);
            poke(table + 0x8c + 16 * i,
                 fuzz_rarely(in, 8) ? fuzz_64(in) : 511 + 512u * fuzz_below(in, 8), 4);
        }
    }
    set(port + 0x34, fuzz_8(in) & 15, 4);
    set(port + 0x38, (1u << n) - 1, 4);
    if (!fuzz_rarely(in, 3)) {
        loop_run_once(loop, 0, NULL);
    }
}

static inline void any_device(struct fuzz_in *in)
{
    unsigned size = 1u << fuzz_below(in, 4);

    switch (fuzz_below(in, 13)) {
    case 12:
        gpu(in);
        break;
    case 10:
        scsi(in);
        break;
    case 11:
        ahci(in);
        break;
    case 8:
        pci_setup(in);
        break;
    case 9:
        nvme(in);
        break;
    case 0:
    case 1:
        get(device_register(in), size);
        break;
    case 2:
    case 3:
        set(device_register(in), fuzz_64(in), size);
        break;
    case 4:
        set(device_register(in), fuzz_8(in), 4);
        break;
    case 5:
        poke(somewhere(in), fuzz_64(in), size);
        break;
    case 6:
        virtqueue(in);
        break;
    default:
        loop_run_once(loop, 0, NULL);
        break;
    }
}

void fuzz_one(const uint8_t *data, size_t size)
{
    struct fuzz_in in;
    unsigned i, n;

    fuzz_in_init(&in, data, size);
    n = 4 + (unsigned)(size < 64 ? size : 64);
    for (i = 0; i < n; i++) {
        fuzz_act(&in);
    }
    for (i = 0; i < 4; i++) {
        loop_run_once(loop, 0, NULL);
        echo_frames();
    }
    atomic_store(&vm->requests, 0);
    vm_reset(vm);
    loop_run_once(loop, 0, NULL);
#ifdef FUZZ_SHARES
    if (fuzz_shares_gone()) { /* servers come back with a new machine */
        fuzz_finish();
        fuzz_setup();
    }
#endif
}

#endif
