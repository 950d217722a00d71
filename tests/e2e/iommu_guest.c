/* SPDX-License-Identifier: Apache-2.0 */
/*
 * In the guest of tests/e2e/guest_iommu.py: a driver in user space, by VFIO, for a virtio network card that is behind an IOMMU.
 *
 *   iommu GROUP ADDRESS      /dev/vfio/GROUP has the PCI function ADDRESS (0000:00:01.0)
 *
 * Says what becomes of each act, a line each. What it maps for the card it may reach; it also tries to reach the rest.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <linux/vfio.h>

enum { SIZE = 256, PAGES = 16, PAGE = 4096 };
enum { IOVA = 0x10000000, UNMAPPED = 0x20000000, READ_ONLY = 0x30000000 };
/* Parts that page boundaries divide; the pages behind them are anywhere in the guest's memory. */
enum { DESC = 0x800, AVAIL = 0x2f80, USED = 0x4c00, FRAME = 0x8000 };
enum { ACKNOWLEDGE = 1, DRIVER = 2, DRIVER_OK = 4, FEATURES_OK = 8, NEEDS_RESET = 64 };
enum { RX = 0, TX = 1, HEADER = 12, LENGTH = 60 };

struct desc {
    uint64_t addr;
    uint32_t len;
    uint16_t flags, next;
};

static int container, device;
static uint8_t *memory, *held; /* mapped at IOVA; at READ_ONLY */
static volatile uint8_t *bar;
static uint32_t common, notify, notify_step;
static uint64_t config_at;

static void fail(const char *what)
{
    printf("FAILED %s: %s\n", what, strerror(errno));
    exit(1);
}

static uint64_t config(unsigned at, unsigned n)
{
    uint64_t v = 0;
    if (pread(device, &v, n, (off_t)(config_at + at)) != (ssize_t)n) {
        fail("config space");
    }
    return v;
}

static void map(void *at, uint64_t iova, uint64_t size, uint32_t flags)
{
    struct vfio_iommu_type1_dma_map m = { .argsz = sizeof(m), .flags = flags, .vaddr = (uintptr_t)at, .iova = iova, .size = size };
    if (ioctl(container, VFIO_IOMMU_MAP_DMA, &m) < 0) {
        fail("VFIO_IOMMU_MAP_DMA");
    }
}

static void unmap(uint64_t iova, uint64_t size)
{
    struct vfio_iommu_type1_dma_unmap m = { .argsz = sizeof(m), .iova = iova, .size = size };
    if (ioctl(container, VFIO_IOMMU_UNMAP_DMA, &m) < 0) {
        fail("VFIO_IOMMU_UNMAP_DMA");
    }
}

static void open_all(const char *number, const char *address)
{
    char path[64];
    int group;
    container = open("/dev/vfio/vfio", O_RDWR);
    snprintf(path, sizeof(path), "/dev/vfio/%s", number);
    group = open(path, O_RDWR);
    if (container < 0 || group < 0 || ioctl(container, VFIO_CHECK_EXTENSION, VFIO_TYPE1v2_IOMMU) != 1 ||
        ioctl(group, VFIO_GROUP_SET_CONTAINER, &container) < 0 || ioctl(container, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU) < 0) {
        fail("group");
    }
    device = ioctl(group, VFIO_GROUP_GET_DEVICE_FD, address);
    if (device < 0) {
        fail("device");
    }
}

/* The registers, by the capabilities of virtio; bus mastering on. */
static void find_registers(void)
{
    struct vfio_region_info r = { .argsz = sizeof(r), .index = VFIO_PCI_CONFIG_REGION_INDEX };
    struct vfio_region_info b = { .argsz = sizeof(b), .index = 4 };
    uint16_t command;
    if (ioctl(device, VFIO_DEVICE_GET_REGION_INFO, &r) < 0 || ioctl(device, VFIO_DEVICE_GET_REGION_INFO, &b) < 0) {
        fail("regions");
    }
    config_at = r.offset;
    for (unsigned at = (unsigned)config(0x34, 1); at; at = (unsigned)config(at + 1, 1)) {
        unsigned kind = (unsigned)config(at + 3, 1);
        if (config(at, 1) == 9 && kind == 1) {
            common = (uint32_t)config(at + 8, 4);
        } else if (config(at, 1) == 9 && kind == 2) {
            notify = (uint32_t)config(at + 8, 4);
            notify_step = (uint32_t)config(at + 16, 4);
        }
    }
    command = (uint16_t)(config(4, 2) | 6);
    if (pwrite(device, &command, 2, (off_t)(config_at + 4)) != 2) {
        fail("bus mastering");
    }
    bar = mmap(NULL, b.size, PROT_READ | PROT_WRITE, MAP_SHARED, device, (off_t)b.offset);
    if (bar == MAP_FAILED) {
        fail("BAR 4");
    }
}

static void w32(unsigned at, uint32_t v)
{
    *(volatile uint32_t *)(bar + common + at) = v;
}

static void w16(unsigned at, uint16_t v)
{
    *(volatile uint16_t *)(bar + common + at) = v;
}

static uint8_t status(void)
{
    return bar[common + 0x14];
}

static void set_status(uint8_t v)
{
    bar[common + 0x14] = v;
}

/* Resets the card and takes bits 32 to 63 of its features as given; is that agreed to? */
static int negotiate(uint32_t high)
{
    set_status(0);
    set_status(ACKNOWLEDGE);
    set_status(ACKNOWLEDGE | DRIVER);
    w32(8, 0);
    w32(12, 0);
    w32(8, 1);
    w32(12, high);
    set_status(ACKNOWLEDGE | DRIVER | FEATURES_OK);
    return status() & FEATURES_OK;
}

static void begin(unsigned queue)
{
    memset(memory, 0, PAGES * PAGE);
    if (!negotiate(3)) { /* VERSION_1, ACCESS_PLATFORM */
        fail("features");
    }
    w16(0x16, (uint16_t)queue);
    w16(0x18, SIZE);
    w32(0x20, IOVA + DESC);
    w32(0x24, 0);
    w32(0x28, IOVA + AVAIL);
    w32(0x2c, 0);
    w32(0x30, IOVA + USED);
    w32(0x34, 0);
    w16(0x1c, 1);
    set_status(ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
}

static void offer(unsigned queue, unsigned n, uint64_t addr, uint32_t len, uint16_t flags)
{
    unsigned slot = (n * 37) % SIZE; /* both sides of the page boundary */
    struct desc *d = (struct desc *)(memory + DESC) + slot;
    volatile uint16_t *avail = (volatile uint16_t *)(memory + AVAIL);
    *d = (struct desc){ addr, len, flags, 0 };
    avail[2 + n % SIZE] = (uint16_t)slot;
    __sync_synchronize();
    avail[1] = (uint16_t)(n + 1);
    __sync_synchronize();
    *(volatile uint16_t *)(bar + notify + queue * notify_step) = (uint16_t)queue;
}

/* Until the card has used n buffers (1), or is broken (0). */
static int used(unsigned n)
{
    volatile uint16_t *index = (volatile uint16_t *)(memory + USED) + 1;
    while (*index != (uint16_t)n && !(status() & NEEDS_RESET)) {
        usleep(1000);
    }
    return *index == (uint16_t)n;
}

static void frame(const char *text)
{
    uint8_t *f = memory + FRAME;
    memset(f, 0, HEADER + LENGTH);
    memset(f + HEADER, 0xff, 6);
    memcpy(f + HEADER + 6, "\x52\x54\0\0\0\1\x88\xb5", 8);
    snprintf((char *)f + HEADER + 14, LENGTH - 14, "%s", text);
}

static void send_some(void)
{
    char text[32];
    begin(TX);
    for (unsigned n = 0; n < 600; n++) { /* around the ring twice */
        if (n == 300) { /* the machine may be another one when somebody answers */
            puts("HALF");
            getchar();
        }
        snprintf(text, sizeof(text), "frame %u", n);
        frame(text);
        offer(TX, n, IOVA + FRAME, HEADER + LENGTH, 0);
        if (!used(n + 1)) {
            fail("a mapped frame");
        }
    }
    puts("SENT 600");
}

static void send_from(const char *what, uint64_t addr)
{
    begin(TX);
    frame("should not be seen");
    offer(TX, 0, addr, HEADER + LENGTH, 0);
    printf("%s %s\n", what, used(1) ? "REACHED" : "REFUSED");
}

int main(int argc, char **argv)
{
    setvbuf(stdout, NULL, _IOLBF, 0);
    memory = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    held = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (argc != 3 || memory == MAP_FAILED || held == MAP_FAILED) {
        fail("usage");
    }
    open_all(argv[1], argv[2]);
    map(memory, IOVA, PAGES * PAGE, VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE);
    map(held, READ_ONLY, PAGE, VFIO_DMA_MAP_FLAG_READ);
    find_registers();
    printf("without ACCESS_PLATFORM %s\n", negotiate(1) ? "TAKEN" : "REFUSED");
    send_some();
    send_from("unmapped", UNMAPPED);
    send_from("physical", 0x80200000); /* where the kernel is */
    send_from("mapped for reading", READ_ONLY);
    begin(RX);
    memset(held, 0x5a, PAGE);
    offer(RX, 0, READ_ONLY, PAGE, 2);
    puts("WAITING");
    printf("received where only reading is allowed: %s", used(1) ? "REACHED" : "REFUSED");
    for (unsigned i = 0; i < PAGE; i++) {
        if (held[i] != 0x5a) {
            puts(", CHANGED");
            return 1;
        }
    }
    puts(", as it was");
    begin(RX);
    offer(RX, 0, IOVA + FRAME, PAGE, 2);
    puts("WAITING");
    printf("received where writing is allowed: %s %s\n", used(1) ? "REACHED" : "REFUSED", memory + FRAME + HEADER + 14);
    unmap(IOVA, PAGES * PAGE);
    set_status(0);
    negotiate(3);
    w16(0x16, TX);
    w16(0x18, SIZE);
    w32(0x20, IOVA + DESC);
    w32(0x28, IOVA + AVAIL);
    w32(0x30, IOVA + USED);
    w16(0x1c, 1);
    set_status(ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
    offer(TX, 0, IOVA + FRAME, HEADER + LENGTH, 0);
    while (!(status() & NEEDS_RESET)) {
        usleep(1000);
    }
    puts("a queue that was unmapped REFUSED");
    puts("END");
    return 0;
}
