/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The USB host controller as a driver sees it: registers, rings made by hand in guest RAM, commands and transfers right and wrong.
 */
#include "devices/input/input.h"
#include "devices/registry.h"
#include "devices/scsi/units.h"
#include "devices/usb/usb.h"
#include "engine/base/mem.h"
#include "storage/block.h"
#include "tests/device/pci_rig.h"
#include "tests/lib/testing.h"

#include <sys/mman.h>
#include <unistd.h>

#define FN PCI_DEVFN(2, 0)
#define BAR PCI_MMIO
#define OP (BAR + 0x40)
#define PORTSC(n) (OP + 0x400 + 16 * ((n)-1))
#define RUN (BAR + 0x1000)
#define BELL(n) (BAR + 0x2000 + 4 * (n))
#define CONTEXTS (RIG_RAM + 0x1000)
#define OUTPUT(slot) (RIG_RAM + 0x2000 + 0x800 * (slot))
#define INPUT (RIG_RAM + 0x8000)
#define COMMANDS (RIG_RAM + 0x9000)
#define TABLE (RIG_RAM + 0xa000)
#define EVENTS (RIG_RAM + 0xb000)
#define N_EVENTS 32
#define RING(slot, ep) (RIG_RAM + 0x10000 + 0x8000 * (slot) + 0x1000 * (ep))
#define DATA (RIG_RAM + 0x80000)
#define DISK (1u << 20)

enum { SUCCESS = 1, TRB_ERROR = 5, STALL = 6, NO_SLOT = 11, SHORT = 13, CONTEXT_STATE = 19 };

struct event {
    uint64_t param;
    unsigned code, type, slot, ep;
    uint32_t length;
};

struct usb {
    struct pci_rig p;
    struct rig *r;
    struct blk_pool *pool;
    struct device *host, *hub, *keyboard, *disk;
    unsigned command, event, at[8][8];
    bool cycle;
};

static struct device *plug(struct usb *u, const struct device_class *cls, const char *port)
{
    struct device *d = rig_device(u->r, cls);
    struct err e = ERR_INIT;

    ck_assert_int_eq(dev_set_ptr(d, "bus", usb_bus_of(u->host), NULL), 0);
    ck_assert_int_eq(dev_set_str(d, "port", port, NULL), 0);
    if (cls == &usb_storage_class) {
        struct blk_options o = { .name = "disk", .driver = "raw", .path = "test" };
        struct scsi_units *units = xnew(struct scsi_units);

        o.fd = memfd_create("disk", MFD_CLOEXEC);
        ck_assert_int_eq(ftruncate(o.fd, DISK), 0);
        ck_assert_int_eq(blk_open(u->pool, &o, &units->unit[0].node, &e), 0);
        units->n = 1;
        ck_assert_int_eq(dev_set_ptr(d, "units", units, NULL), 0);
    }
    ck_assert_msg(dev_realize(d, &e) == 0, "%s", e.msg);
    return d;
}

static void trb(struct usb *u, uint64_t at, uint64_t param, uint32_t status, uint32_t control)
{
    rig_write(u->r, at, param, 8);
    wr32(u->r, at + 8, status);
    wr32(u->r, at + 12, control);
}

/* The next event; type 0: there is none. */
static struct event next_event(struct usb *u)
{
    uint64_t at = EVENTS + 16 * u->event;
    struct event v = { 0 };

    for (unsigned i = 0; i < 50 && (rd32(u->r, at + 12) & 1) != u->cycle; i++) {
        rig_turn(u->r);
        usleep(2000);
    }
    uint32_t control = rd32(u->r, at + 12), status = rd32(u->r, at + 8);
    if ((control & 1) != u->cycle) {
        return v;
    }
    v = (struct event){ rig_read(u->r, at, 8), status >> 24,       control >> 10 & 63,
                        control >> 24,         control >> 16 & 31, status & 0xffffff };
    if (++u->event == N_EVENTS) {
        u->event = 0;
        u->cycle = !u->cycle;
    }
    rig_write(u->r, RUN + 0x38, (EVENTS + 16 * u->event) | 8, 8);
    return v;
}

static struct event command(struct usb *u, uint64_t param, uint32_t control)
{
    trb(u, COMMANDS + 16 * u->command++, param, 0, control | 1);
    wr32(u->r, BELL(0), 0);
    struct event v = next_event(u);
    ck_assert_uint_eq(v.type, 33);
    return v;
}

static void usb_new(struct usb *u)
{
    memset(u, 0, sizeof(*u));
    u->cycle = true;
    pci_rig_new(&u->p);
    u->r = u->p.r;
    ck_assert_int_eq(blk_pool_new(u->r->loop, &(struct blk_pool_options){ 0 }, &u->pool, NULL),
                     0);
    u->host = pci_rig_device(&u->p, &xhci_class);
    pci_rig_plug(&u->p, u->host, NULL, FN);
    u->hub = plug(u, &usb_hub_class, "3");
    u->keyboard = plug(u, &usb_keyboard_class, "1");
    u->disk = plug(u, &usb_storage_class, "2");
    rig_start(u->r);
    cfg_write(&u->p, FN, PCI_BAR0, (uint32_t)BAR, 4);
    cfg_write(&u->p, FN, PCI_COMMAND, PCI_CMD_MEMORY | PCI_CMD_MASTER, 2);
}

static void usb_free(struct usb *u)
{
    struct blk_pool *pool = u->pool;
    struct loop *loop = u->r->loop;

    vm_free(u->r->vm);
    blk_pool_free(pool);
    mem_free(u->r->ram);
    free(u->r);
    loop_free(loop);
}

/* As a driver brings it up; the events of the ports that have something are read. */
static void bring_up(struct usb *u, unsigned ports)
{
    for (unsigned i = 1; i < 4; i++) {
        rig_write(u->r, CONTEXTS + 8 * i, OUTPUT(i), 8);
    }
    rig_write(u->r, TABLE, EVENTS, 8);
    wr32(u->r, TABLE + 8, N_EVENTS);
    wr32(u->r, OP + 0x38, 8);
    rig_write(u->r, OP + 0x30, CONTEXTS, 8);
    rig_write(u->r, OP + 0x18, COMMANDS | 1, 8);
    wr32(u->r, RUN + 0x28, 1);
    rig_write(u->r, RUN + 0x38, EVENTS, 8);
    rig_write(u->r, RUN + 0x30, TABLE, 8);
    wr32(u->r, RUN + 0x20, 2);
    wr32(u->r, OP, 5);
    for (unsigned i = 0; i < ports; i++) {
        struct event v = next_event(u);
        ck_assert_uint_eq(v.type, 34);
    }
}

/* A slot for what is at a port, with endpoints 2 (out) and 3 (in) of a type. */
static unsigned slot_for(struct usb *u, unsigned port, unsigned out, unsigned in)
{
    struct event v = command(u, 0, 9 << 10);
    unsigned slot = v.slot;

    ck_assert_uint_eq(v.code, SUCCESS);
    wr32(u->r, INPUT, 0);
    wr32(u->r, INPUT + 4, 3);
    wr32(u->r, INPUT + 32, 1u << 27);
    wr32(u->r, INPUT + 36, port << 16);
    for (unsigned ep = 1; ep <= 3; ep++) {
        unsigned type = ep == 1 ? 4 : ep == 2 ? out : in;

        wr32(u->r, INPUT + 36 + 32 * ep, 64u << 16 | type << 3);
        rig_write(u->r, INPUT + 40 + 32 * ep, RING(slot, ep) | 1, 8);
    }
    v = command(u, INPUT, 11 << 10 | slot << 24);
    ck_assert_uint_eq(v.code, SUCCESS);
    wr32(u->r, INPUT + 4, (out ? 4u : 0) | (in ? 8u : 0) | 1);
    v = command(u, INPUT, 12 << 10 | slot << 24);
    ck_assert_uint_eq(v.code, SUCCESS);
    return slot;
}

static void push(struct usb *u, unsigned slot, unsigned ep, uint64_t param, uint32_t status,
                 uint32_t control)
{
    trb(u, RING(slot, ep) + 16 * u->at[slot][ep]++, param, status, control | 1);
}

static struct event control_in(struct usb *u, unsigned slot, uint64_t setup, uint32_t length)
{
    push(u, slot, 1, setup, 8, 2 << 10 | 0x40);
    if (length) {
        push(u, slot, 1, DATA, length, 3 << 10 | 1 << 16 | 4);
    }
    push(u, slot, 1, 0, 0, 4 << 10 | 0x20);
    wr32(u->r, BELL(slot), 1);
    return next_event(u);
}

static struct event transfer(struct usb *u, unsigned slot, unsigned ep, uint64_t at, uint32_t n)
{
    push(u, slot, ep, at, n, 1 << 10 | 0x24);
    wr32(u->r, BELL(slot), ep);
    return next_event(u);
}

START_TEST(ports_say_what_is_there_and_reset_enables)
{
    struct usb u;

    usb_new(&u);
    ck_assert_uint_eq(rd32(u.r, BAR) & 0xff, 0x40);
    ck_assert_uint_eq(rd32(u.r, BAR) >> 16, 0x110);
    ck_assert_uint_eq(rd32(u.r, OP + 4) & 1, 1);
    ck_assert_uint_eq(rd32(u.r, PORTSC(1)) & 0x20003, 0x20001); /* a keyboard */
    ck_assert_uint_eq(rd32(u.r, PORTSC(2)) & 1, 0);
    ck_assert_uint_eq(rd32(u.r, PORTSC(10)) & 0x3c03, 0x1003); /* the disk, at SuperSpeed */
    bring_up(&u, 3);
    ck_assert(u.p.wire[2].level || u.p.wire[0].level || u.p.wire[1].level || u.p.wire[3].level);
    wr32(u.r, PORTSC(1), 0x210);
    struct event v = next_event(&u);
    ck_assert_uint_eq(v.type, 34);
    ck_assert_uint_eq(v.param >> 24, 1);
    ck_assert_uint_eq(rd32(u.r, PORTSC(1)) & 0x200002, 0x200002);
    wr32(u.r, PORTSC(1), 0x200200);
    ck_assert_uint_eq(rd32(u.r, PORTSC(1)) & 0x200000, 0);
    wr32(u.r, OP, 2); /* a reset of the controller */
    ck_assert_uint_eq(rd32(u.r, OP), 0);
    ck_assert_uint_eq(rd32(u.r, OP + 4) & 1, 1);
    usb_free(&u);
}
END_TEST

START_TEST(commands_are_answered_right_and_wrong)
{
    struct usb u;

    usb_new(&u);
    bring_up(&u, 3);
    ck_assert_uint_eq(command(&u, 0, 23 << 10).code, SUCCESS);
    ck_assert_uint_eq(command(&u, 0, 60 << 10).code, TRB_ERROR);
    ck_assert_uint_eq(command(&u, 0, 10 << 10 | 5 << 24).code, NO_SLOT);
    ck_assert_uint_eq(command(&u, 0, 10 << 10 | 200u << 24).code, NO_SLOT);
    unsigned slot = slot_for(&u, 1, 0, 7);
    ck_assert_uint_eq(rd32(u.r, OUTPUT(slot) + 12) >> 27, 3);
    ck_assert_uint_eq(command(&u, 0, 14 << 10 | 3 << 16 | slot << 24).code, CONTEXT_STATE);
    ck_assert_uint_eq(command(&u, 0, 15 << 10 | 3 << 16 | slot << 24).code, SUCCESS);
    ck_assert_uint_eq(rd32(u.r, OUTPUT(slot) + 96) & 7, 3);
    wr32(u.r, INPUT + 4, 3);
    ck_assert_uint_eq(command(&u, INPUT, 11 << 10 | slot << 24).code, CONTEXT_STATE);
    ck_assert_uint_eq(command(&u, 0, 17 << 10 | slot << 24).code, SUCCESS);
    ck_assert_uint_eq(command(&u, 0, 10 << 10 | slot << 24).code, SUCCESS);
    ck_assert_uint_eq(command(&u, RIG_RAM - 64, 11 << 10 | slot << 24).code, NO_SLOT);
    usb_free(&u);
}
END_TEST

START_TEST(keyboard_is_described_and_types)
{
    static const uint8_t want[8] = { 0, 0, 4 };
    const struct input_step down = { INPUT_EV_KEY, 30, 1 }, bad = { INPUT_EV_REL, 0, 1 };
    struct err e = ERR_INIT;
    struct usb u;

    usb_new(&u);
    bring_up(&u, 3);
    unsigned slot = slot_for(&u, 1, 0, 7);
    struct event v = control_in(&u, slot, 0x0012000001000680, 18);
    ck_assert_uint_eq(v.code, SUCCESS);
    ck_assert_uint_eq(rd32(u.r, DATA) & 0xffff, 0x0112);
    ck_assert_uint_eq(rd32(u.r, DATA + 8), 0x00031209);
    v = control_in(&u, slot, 0x0040000022000681, 64); /* a report of 65 bytes, cut */
    ck_assert_uint_eq(v.code, SUCCESS);
    ck_assert_int_eq(input_send(u.keyboard, &down, 1, &e), -ENODEV);
    ck_assert_uint_eq(control_in(&u, slot, 0x0000000000010900, 0).code, SUCCESS);
    ck_assert_int_eq(input_send(u.keyboard, &bad, 1, &e), -EINVAL);
    push(&u, slot, 3, DATA, 8, 1 << 10 | 0x20);
    wr32(u.r, BELL(slot), 3);
    rig_turn(u.r);
    ck_assert_int_eq(input_send(u.keyboard, &down, 1, &e), 0);
    v = next_event(&u);
    ck_assert_uint_eq(v.code, SUCCESS);
    ck_assert_uint_eq(v.ep, 3);
    ck_assert_mem_eq(rig_ram(u.r, DATA), want, 8);
    ck_assert_uint_eq(control_in(&u, slot, 0x00ff00000f0006c0, 255).code, STALL);
    ck_assert_uint_eq(rd32(u.r, OUTPUT(slot) + 32) & 7, 2);
    while (input_send(u.keyboard, &down, 1, &e) == 0) {
    }
    ck_assert_int_eq(input_send(u.keyboard, &down, 1, &e), -ENOSPC);
    rig_state_round_trip(u.keyboard);
    rig_state_round_trip(u.host);
    rig_state_round_trip(u.hub);
    usb_free(&u);
}
END_TEST

static void cbw(struct usb *u, uint32_t length, bool in, const char *cdb, unsigned n)
{
    uint8_t *p = rig_ram(u->r, DATA);

    memset(p, 0, 31);
    memcpy(p, "USBCtag!", 8);
    memcpy(p + 8, &length, 4);
    p[12] = in ? 0x80 : 0;
    p[14] = (uint8_t)n;
    memcpy(p + 15, cdb, n);
}

START_TEST(disk_is_written_and_read_and_recovers_from_nonsense)
{
    struct usb u;
    struct event v;

    usb_new(&u);
    bring_up(&u, 3);
    unsigned slot = slot_for(&u, 10, 0, 6);
    wr32(u.r, INPUT + 4, 16); /* endpoint 4, out */
    wr32(u.r, INPUT + 36 + 128, 64u << 16 | 2 << 3);
    rig_write(u.r, INPUT + 40 + 128, RING(slot, 4) | 1, 8);
    ck_assert_uint_eq(command(&u, INPUT, 12 << 10 | slot << 24).code, SUCCESS);
    ck_assert_uint_eq(control_in(&u, slot, 0x0000000000010900, 0).code, SUCCESS);
    cbw(&u, 512, false, "\x2a\0\0\0\0\3\0\0\1\0", 10);
    /* The first command is told of the reset instead. */
    ck_assert_uint_eq(transfer(&u, slot, 4, DATA, 31).code, SUCCESS);
    ck_assert_uint_eq(transfer(&u, slot, 4, DATA + 0x1000, 512).code, SUCCESS);
    ck_assert_uint_eq(transfer(&u, slot, 3, DATA + 0x200, 13).code, SUCCESS);
    ck_assert_uint_eq(*(uint8_t *)rig_ram(u.r, DATA + 0x20c), 1);
    memset(rig_ram(u.r, DATA + 0x1000), 0x5a, 512);
    ck_assert_uint_eq(transfer(&u, slot, 4, DATA, 31).code, SUCCESS);
    ck_assert_uint_eq(transfer(&u, slot, 4, DATA + 0x1000, 512).code, SUCCESS);
    ck_assert_uint_eq(transfer(&u, slot, 3, DATA + 0x200, 13).code, SUCCESS);
    ck_assert_mem_eq(rig_ram(u.r, DATA + 0x200), "USBStag!\0\0\0\0\0", 13);
    cbw(&u, 1024, true, "\x28\0\0\0\0\3\0\0\1\0", 10); /* asks for more than it reads */
    ck_assert_uint_eq(transfer(&u, slot, 4, DATA, 31).code, SUCCESS);
    ck_assert_uint_eq(transfer(&u, slot, 3, DATA + 0x2000, 1024).code, SUCCESS);
    ck_assert_mem_eq(rig_ram(u.r, DATA + 0x2000), rig_ram(u.r, DATA + 0x1000), 512);
    v = transfer(&u, slot, 3, DATA + 0x200, 64);
    ck_assert_uint_eq(v.code, SHORT);
    ck_assert_uint_eq(v.length, 64 - 13);
    ck_assert_mem_eq(rig_ram(u.r, DATA + 0x200), "USBStag!\0\2\0\0\0", 13);
    rig_state_round_trip(u.disk);
    ck_assert_uint_eq(transfer(&u, slot, 4, DATA + 0x1000, 31).code, STALL); /* no command */
    ck_assert_uint_eq(command(&u, 0, 14 << 10 | 4 << 16 | slot << 24).code, SUCCESS);
    ck_assert_uint_eq(command(&u, RING(slot, 5) | 1, 16 << 10 | 4 << 16 | slot << 24).code,
                      SUCCESS);
    ck_assert_uint_eq(control_in(&u, slot, 0x000000000000ff21, 0).code, SUCCESS);
    ck_assert_uint_eq(control_in(&u, slot, 0x0000000200000102, 0).code, SUCCESS);
    cbw(&u, UINT32_MAX, true, "\x28\0\0\0\0\3\0\0\1\0", 10); /* more than there is room for */
    trb(&u, RING(slot, 5), DATA, 31, 1 << 10 | 0x20 | 1);
    wr32(u.r, BELL(slot), 4);
    ck_assert_uint_eq(next_event(&u).code, SUCCESS);
    usb_free(&u);
}
END_TEST

START_TEST(rings_that_are_none_end_the_endpoint_not_the_emulator)
{
    struct usb u;

    usb_new(&u);
    bring_up(&u, 3);
    unsigned slot = slot_for(&u, 1, 0, 7);
    push(&u, slot, 1, 0x0012000001000680, 8, 2 << 10 | 0x40);
    push(&u, slot, 1, RING(slot, 1) + 16, 0, 6 << 10); /* a link to itself */
    wr32(u.r, BELL(slot), 1);
    ck_assert_uint_eq(next_event(&u).code, TRB_ERROR);
    ck_assert_uint_eq(rd32(u.r, OUTPUT(slot) + 32) & 7, 4);
    trb(&u, COMMANDS + 16 * u.command, 0x1000, 0, 6 << 10 | 1); /* the commands go on nowhere */
    wr32(u.r, BELL(0), 0);
    for (unsigned i = 0; i < 4; i++) {
        rig_turn(u.r);
    }
    ck_assert_uint_eq(rd32(u.r, OP + 4) & 5, 5); /* halted, host system error */
    usb_free(&u);
}
END_TEST

static Suite *suite_usb(void)
{
    Suite *s = suite_create("usb");
    TCase *t = tcase_create("xhci");

    tcase_set_timeout(t, 600);
    tcase_add_test(t, ports_say_what_is_there_and_reset_enables);
    tcase_add_test(t, commands_are_answered_right_and_wrong);
    tcase_add_test(t, keyboard_is_described_and_types);
    tcase_add_test(t, disk_is_written_and_read_and_recovers_from_nonsense);
    tcase_add_test(t, rings_that_are_none_end_the_endpoint_not_the_emulator);
    suite_add_tcase(s, t);
    return s;
}

int main(int argc, char **argv)
{
    return test_main(argc, argv, suite_usb, NULL);
}
