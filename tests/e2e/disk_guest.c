/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A guest of the board rv_virt in machine mode, without a kernel: for ever writes the first half of its virtio-mmio disk in blocks that
 * depend on place and pass, flushes, reads all of it back: '.' on the console after a pass that was right, 'E' for ever after one that was
 * not. Blocks of the pass before are read, too, before they are overwritten. STEP: bytes between blocks.
 */
#include <stdint.h>

#define UART ((volatile uint8_t *)0x10000000)
#define BLOCK 4096u
#ifndef STEP
#define STEP 65536u
#endif

struct desc {
    uint64_t at;
    uint32_t length;
    uint16_t flags, next;
};
static struct {
    struct desc desc[4] __attribute__((aligned(4096)));
    struct {
        uint16_t flags, index, ring[4];
    } avail __attribute__((aligned(4096)));
    volatile struct {
        uint16_t flags, index;
        struct {
            uint32_t id, length;
        } ring[4];
    } used __attribute__((aligned(4096)));
    struct {
        uint32_t type, zero;
        uint64_t sector;
    } head;
    uint64_t data[BLOCK / 8] __attribute__((aligned(4096)));
    volatile uint8_t status;
} q;
static volatile uint32_t *dev;
static uint16_t done;

__asm__(".section .text.unlikely\n"
        ".globl _start\n"
        "_start:\n"
        "    csrr t0, mhartid\n"
        "1:  bnez t0, 1b\n"
        "    li sp, 0x80800000\n"
        "    j run\n"
        ".text\n");

static void fail(void)
{
    for (;;) {
        *UART = 'E';
    }
}

static void request(uint32_t type, uint64_t offset)
{
    unsigned n = 0;

    q.head.type = type;
    q.head.zero = 0;
    q.head.sector = offset / 512;
    q.status = 0xff;
    q.desc[n] = (struct desc){ (uint64_t)&q.head, 16, 1, 1 };
    n++;
    if (type != 4) {
        q.desc[n] = (struct desc){ (uint64_t)q.data, BLOCK, type == 0 ? 3 : 1, 2 };
        n++;
    }
    q.desc[n] = (struct desc){ (uint64_t)&q.status, 1, 2, 0 };
    q.avail.ring[done % 4] = 0;
    __asm__ volatile("fence" ::: "memory");
    q.avail.index = (uint16_t)(done + 1);
    __asm__ volatile("fence" ::: "memory");
    dev[0x50 / 4] = 0;
    while (q.used.index == done) {
        __asm__ volatile("fence" ::: "memory");
    }
    done++;
    __asm__ volatile("fence" ::: "memory");
    if (q.status != 0) {
        fail();
    }
}

static void begin(void)
{
    for (uintptr_t at = 0x10001000; at <= 0x10008000; at += 0x1000) {
        dev = (volatile uint32_t *)at;
        if (dev[0] == 0x74726976 && dev[2] == 2) {
            break;
        }
    }
    dev[0x70 / 4] = 0;
    dev[0x70 / 4] = 3;
    dev[0x24 / 4] = 0;
    dev[0x20 / 4] = 1u << 9; /* flush */
    dev[0x24 / 4] = 1;
    dev[0x20 / 4] = 1; /* version 1 */
    dev[0x70 / 4] = 11;
    dev[0x30 / 4] = 0;
    dev[0x38 / 4] = 4;
    dev[0x80 / 4] = (uint32_t)(uintptr_t)q.desc;
    dev[0x84 / 4] = 0;
    dev[0x90 / 4] = (uint32_t)(uintptr_t)&q.avail;
    dev[0x94 / 4] = 0;
    dev[0xa0 / 4] = (uint32_t)(uintptr_t)&q.used;
    dev[0xa4 / 4] = 0;
    dev[0x44 / 4] = 1;
    dev[0x70 / 4] = 15;
}

static void check(uint64_t at, uint64_t pass)
{
    request(0, at);
    for (unsigned i = 0; i < BLOCK / 8; i++) {
        if (q.data[i] != (at + i * 8) * 0x9e3779b97f4a7c15ull + pass) {
            fail();
        }
    }
}

void run(void)
{
    uint64_t size;

    begin();
    size = dev[0x100 / 4] * 256ull;
    for (uint64_t pass = 1;; pass++) {
        for (uint64_t at = 0; at + BLOCK <= size; at += STEP) {
            if (pass > 1) {
                check(at, pass - 1);
            }
            for (unsigned i = 0; i < BLOCK / 8; i++) {
                q.data[i] = (at + i * 8) * 0x9e3779b97f4a7c15ull + pass;
            }
            request(1, at);
        }
        request(4, 0);
        for (uint64_t at = 0; at + BLOCK <= size; at += STEP) {
            check(at, pass);
        }
        *UART = '.';
    }
}
