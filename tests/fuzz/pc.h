/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The boards q35 and microvm for fuzz targets: with an engine that runs nothing, and what a guest does to their chip sets by ports, registers
 * and config space, while time passes, keys are pressed and interrupts are taken. Included by one target each.
 */
#ifndef VMD_TESTS_FUZZ_PC_H
#define VMD_TESTS_FUZZ_PC_H

#include "devices/board/board.h"
#include "devices/char/chr.h"
#include "devices/display/display.h"
#include "devices/input/input.h"
#include "engine/arch/x86/cpu.h"
#include "engine/base/log.h"
#include "engine/base/loop.h"
#include "engine/base/mem.h"
#include "engine/core/bus.h"
#include "engine/core/device.h"
#include "engine/core/vm.h"
#include "tests/fuzz/fuzz.h"

#include <sys/mman.h>
#include <unistd.h>

#define BIOS (128 << 10)
enum { Q35, MICROVM, MACHINES };

struct machine {
    const struct board_class *cls;
    struct vm *vm;
    struct board *board;
    struct display *display;
};
static struct machine machine[MACHINES];
static struct loop *loop;

/* ---- an engine that runs nothing ---- */

static int null_init(struct vcpu *c, struct err *e)
{
    (void)e;
    c->cpu = xalloc_aligned(64, (c->vm->arch->cpu_size + 63) & ~(size_t)63);
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

static void null_msi(struct vm *vm, uint64_t address, uint32_t data)
{
    (void)vm, (void)address, (void)data;
}

static const struct engine_ops null_engine = { .name = "null",
                                               .vcpu_init = null_init,
                                               .vcpu_done = null_done,
                                               .run = null_run,
                                               .kick = null_kick,
                                               .irq = null_kick,
                                               .msi = null_msi };

/* ---- the boards ---- */

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
static struct chr console[MACHINES] = { { .back = &swallow_ops }, { .back = &swallow_ops } };

static void armed(void *arg)
{
    (void)arg;
}

/* A file of the machine's start: firmware, or an ELF program with a PVH entry that is not run. */
static struct board_file start_file(unsigned which)
{
    static const uint8_t elf[] = {
        0x7f, 'E', 'L', 'F', 1,   1,  1,  0,   0,  0,    0,   0,    0,  0,    0, 0,    2,
        0,    3,   0,   1,   0,   0,  0,  0,   0,  0x20, 0,   52,   0,  0,    0, 0,    0,
        0,    0,   0,   0,   0,   0,  52, 0,   32, 0,    2,   0,    40, 0,    0, 0,    0,
        0,    1,   0,   0,   0,   0,  0,  0,   0,  0,    0,   0x20, 0,  0,    0, 0x20, 0,
        136,  0,   0,   0,   136, 0,  0,  0,   7,  0,    0,   0,    0,  16,   0, 0,    4,
        0,    0,   0,   116, 0,   0,  0,  116, 0,  0x20, 0,   116,  0,  0x20, 0, 20,   0,
        0,    0,   20,  0,   0,   0,  4,  0,   0,  0,    4,   0,    0,  0,    4, 0,    0,
        0,    4,   0,   0,   0,   18, 0,  0,   0,  'X',  'e', 'n',  0,  0,    0, 0x20, 0
    };
    int fd = memfd_create("start", MFD_CLOEXEC);

    if (which == Q35 ? ftruncate(fd, BIOS) < 0
                     : write(fd, elf, sizeof(elf)) != (ssize_t)sizeof(elf)) {
        FUZZ_FAIL("no file to start");
    }
    return (struct board_file){ "start", fd };
}

static void build(unsigned which)
{
    struct machine *m = &machine[which];
    struct board_config cfg = { .xlen = 64,
                                .cpu_model = "host",
                                .cpus = 2,
                                .memory = 32u << 20,
                                .console = &console[which],
                                .rng = true };
    struct err e = ERR_INIT;

    if (which == Q35) {
        cfg.firmware = start_file(which);
        cfg.root_ports = 1;
        m->display = display_new(640, 480);
        cfg.screen = (struct board_screen){ .gpu = BOARD_GPU_VGA,
                                            .display = m->display,
                                            .width = 640,
                                            .height = 480,
                                            .input = true };
    } else {
        cfg.kernel = start_file(which);
    }
    if (vm_new("fuzz", &x86_64_arch, &null_engine, loop, NULL, &m->vm, &e) < 0) {
        FUZZ_FAIL("%s", e.msg);
    }
    clock_drive(m->vm->clock, armed, NULL);
    m->cls = which == Q35 ? &q35_board : &microvm_board;
    if (m->cls->build(m->vm, &cfg, &m->board, &e) < 0 || vm_start(m->vm, &e) < 0) {
        FUZZ_FAIL("%s", e.msg);
    }
    vm_resume(m->vm);
}

void fuzz_setup(void)
{
    struct err e = ERR_INIT;

    log_init(fuzz_name, LOG_ERROR, 2);
    loop = loop_new(&e);
    for (unsigned i = 0; i < MACHINES; i++) {
        build(i);
    }
}

void fuzz_finish(void)
{
    for (unsigned i = 0; i < 8; i++) { /* what was posted and holds a machine's door */
        loop_run_once(loop, 0, NULL);
    }
    for (unsigned i = 0; i < MACHINES; i++) {
        vm_free(machine[i].vm);
        machine[i].cls->free(machine[i].board);
        display_free(machine[i].display);
    }
    loop_free(loop);
}

/* ---- what a guest does ---- */

static unsigned width(struct fuzz_in *in)
{
    return 1u << fuzz_below(in, 3);
}

static uint16_t port(struct fuzz_in *in)
{
    static const uint16_t bases[] = { 0x20,  0x40,  0x60,  0x70,  0x92,  0xa0,  0xb2,  0x3f8,
                                      0x402, 0x4d0, 0x510, 0x600, 0x1ce, 0x1ce, 0x3b4, 0x3c0,
                                      0x3c4, 0x3ce, 0x3d4, 0x600, 0x620, 0x660, 0xcf8, 0x700 };

    return fuzz_rarely(in, 32)
               ? (uint16_t)fuzz_64(in)
               : (uint16_t)(bases[fuzz_below(in, ARRAY_LEN(bases))] + fuzz_below(in, 12));
}

static void port_access(struct vm *vm, struct fuzz_in *in)
{
    uint16_t at = port(in);
    unsigned n = width(in);

    if (fuzz_rarely(in, 3)) {
        (void)bus_port_read(vm->ports, at, n);
    } else {
        bus_port_write(vm->ports, at, n,
                       (uint32_t)(fuzz_rarely(in, 3) ? fuzz_64(in) : fuzz_8(in)));
    }
}

static void memory_access(struct vm *vm, struct fuzz_in *in)
{
    static const uint64_t bases[] = { 0xfec00000, 0xfed00000, 0xfed00100, 0xfed1f410,
                                      0xfed45000, 0xb0000000, 0xb00f8000, 0xa0000,
                                      0xb8000,    0xc0000,    0xf0000,    0xfeb00000,
                                      0xe0000000 };
    uint64_t at = bases[fuzz_below(in, ARRAY_LEN(bases))] +
                  fuzz_below(in, fuzz_rarely(in, 8) ? 65536 : 256);
    const struct mem_range *r = mem_find(vm->mem, at);
    unsigned n = 1u << fuzz_below(in, 4);
    uint64_t v;

    if (r && fuzz_rarely(in, 3)) {
        (void)bus_read(r, at, n, &v);
    } else if (r) {
        (void)bus_write(vm->mem, r, at, n, fuzz_rarely(in, 3) ? fuzz_64(in) : fuzz_8(in));
    }
}

/* Config space by ports: mostly of functions that there are. */
static void config_access(struct vm *vm, struct fuzz_in *in)
{
    static const uint8_t fn[] = { 0, 0xf8, 0xf8, 0xfb, 8, 16, 24, 32 };
    uint32_t at = 0x80000000u | (uint32_t)fn[fuzz_below(in, sizeof(fn))] << 8 |
                  (fuzz_8(in) & 0xfcu);

    bus_port_write(vm->ports, 0xcf8, 4, at);
    if (fuzz_rarely(in, 4)) {
        (void)bus_port_read(vm->ports, 0xcfc, width(in));
    } else {
        bus_port_write(vm->ports, (uint16_t)(0xcfc + fuzz_below(in, 4)), width(in),
                       (uint32_t)fuzz_64(in));
    }
}

/* What is asked of the main thread is done, but for what ends a machine. */
static void serve(struct vm *vm)
{
    struct err e = ERR_INIT;

    if (atomic_load(&vm->requests) & ~(unsigned)VM_REQ_REMAP) {
        atomic_fetch_and(&vm->requests, VM_REQ_REMAP);
    }
    while (atomic_load(&vm->requests) && loop_run_once(loop, 0, &e) == 0) {
    }
}

static void outside(struct machine *m, struct fuzz_in *in)
{
    const struct input_step step = { fuzz_rarely(in, 3) ? INPUT_EV_REL : INPUT_EV_KEY,
                                     (uint16_t)fuzz_below(in, 280), (int32_t)fuzz_8(in) - 100 };
    struct device *kbd = m->cls->input(m->board, BOARD_KEYBOARD);

    if (kbd) {
        (void)input_send(kbd, &step, 1, NULL);
    }
    if (fuzz_rarely(in, 8)) {
        (void)m->cls->powerdown(m->board, NULL);
    }
    if (m->display && fuzz_rarely(in, 4)) {
        display_refresh(m->display);
    }
}

static void act(struct machine *m, struct fuzz_in *in)
{
    struct vm *vm = m->vm;

    switch (fuzz_below(in, 8)) {
    case 0:
    case 1:
        memory_access(vm, in);
        break;
    case 2:
        config_access(vm, in);
        break;
    case 3:
        clock_advance(vm->clock, fuzz_64(in) % (fuzz_rarely(in, 8) ? 10000000000ull : 3000000));
        clock_run_due(vm->clock);
        break;
    case 4:
        if (vm->extint.ack) {
            (void)vm->extint.ack(vm->extint.opaque);
        }
        vm->extint.eoi(vm->extint.opaque, fuzz_8(in));
        break;
    case 5:
        outside(m, in);
        break;
    default:
        port_access(vm, in);
    }
    serve(vm);
}

#endif
