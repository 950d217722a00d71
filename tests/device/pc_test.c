/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One scripted register test for each device of a PC's chip set, against an instance on a VM that runs no code and whose time is what the test makes it.
 */
#include "devices/bus/ich9_lpc.h"
#include "devices/bus/q35_mch.h"
#include "devices/input/i8042.h"
#include "devices/irqchip/i8259.h"
#include "devices/misc/fw_cfg.h"
#include "devices/registry.h"
#include "devices/timer/hpet.h"
#include "devices/timer/mc146818.h"
#include "engine/base/mem.h"
#include "tests/device/pci_rig.h"
#include "tests/lib/testing.h"

#define AT 0x10000000ull
#define MS 1000000ull

static void armed(void *arg)
{
    (void)arg;
}

struct pc {
    struct rig *r;
    struct device *d;
    struct rig_line line[2];
};

/* A device that is placed, on a machine whose time stands. */
static struct pc *pc_new(const struct device_class *cls)
{
    struct pc *p = xnew(struct pc);

    p->r = rig_new(1);
    clock_drive(p->r->vm->clock, armed, NULL);
    p->d = rig_device(p->r, cls);
    rig_place(p->r, p->d, AT);
    p->d->irq[0] = rig_line(&p->line[0]);
    p->d->irq[1] = rig_line(&p->line[1]);
    rig_start(p->r);
    vm_resume(p->r->vm);
    return p;
}

static void pc_free(struct pc *p)
{
    rig_state_round_trip(p->d);
    rig_free(p->r);
    free(p);
}

static void pass(struct pc *p, uint64_t ns)
{
    clock_advance(p->r->vm->clock, ns);
    clock_run_due(p->r->vm->clock);
}

static uint8_t in(struct pc *p, unsigned at)
{
    return (uint8_t)rig_read(p->r, AT + at, 1);
}

static void out(struct pc *p, unsigned at, uint8_t v)
{
    rig_write(p->r, AT + at, v, 1);
}

/* --- i8259: its first block is 0xa2 bytes long, with the ports where they are --- */

static void pic_start(struct pc *p)
{
    static const uint8_t words[][2] = { { 0x20, 0x11 }, { 0xa0, 0x11 }, { 0x21, 0x30 },
                                        { 0xa1, 0x38 }, { 0x21, 4 },    { 0xa1, 2 },
                                        { 0x21, 1 },    { 0xa1, 1 },    { 0x21, 0 },
                                        { 0xa1, 0 } };

    for (unsigned i = 0; i < ARRAY_LEN(words); i++) {
        out(p, words[i][0], words[i][1]);
    }
}

START_TEST(i8259_serves_by_priority_over_both_chips)
{
    struct pc *p = pc_new(&i8259_class);
    struct irq_line one = i8259_input(p->d, 1, 0), four = i8259_input(p->d, 4, 0),
                    twelve = i8259_input(p->d, 12, 0);

    irq_set(&one, true); /* all pins are masked after a reset */
    ck_assert(!p->line[0].level);
    irq_set(&one, false);
    pic_start(p);
    irq_set(&four, true);
    ck_assert(p->line[0].level);
    irq_set(&twelve, true);
    ck_assert_int_eq(i8259_ack(p->d), 0x3c); /* 12 is before 4 */
    ck_assert(!p->line[0].level);
    irq_set(&one, true);
    ck_assert_int_eq(i8259_ack(p->d), 0x31);
    ck_assert_int_eq(i8259_ack(p->d), -1);
    out(p, 0x20, 0x0b);
    ck_assert_uint_eq(in(p, 0x20), 0x06);
    out(p, 0xa0, 0x0b);
    ck_assert_uint_eq(in(p, 0xa0), 0x10);
    out(p, 0x20, 0x20);
    out(p, 0xa0, 0x20);
    out(p, 0x20, 0x62);
    ck_assert_int_eq(i8259_ack(p->d), 0x34);
    out(p, 0x20, 0x0a);
    ck_assert_uint_eq(in(p, 0x20),
                      0); /* edges: what is served asks no more, though the wire is still up */
    out(p, 0x20, 0x20);
    ck_assert_int_eq(i8259_ack(p->d), -1);
    pc_free(p);
}
END_TEST

START_TEST(i8259_levels_ask_until_the_last_wire_is_down)
{
    struct pc *p = pc_new(&i8259_class);
    struct irq_line a = i8259_input(p->d, 10, 0), b = i8259_input(p->d, 10, 2);

    pic_start(p);
    out(p, 0xa2, 0xff); /* the second block: pins 0 to 2, 8 and 13 are always by edge */
    out(p, 0xa3, 0xff);
    ck_assert_uint_eq(in(p, 0xa2), 0xf8);
    ck_assert_uint_eq(in(p, 0xa3), 0xde);
    irq_set(&a, true);
    irq_set(&b, true);
    for (unsigned i = 0; i < 2; i++) {
        ck_assert_int_eq(i8259_ack(p->d), 0x3a);
        out(p, 0xa0, 0x20);
        out(p, 0x20, 0x20);
        ck_assert(p->line[0].level);
        irq_set(i == 0 ? &a : &b, false);
    }
    ck_assert(!p->line[0].level);
    irq_set(&a, true);
    out(p, 0xa1, 4); /* masked */
    ck_assert(!p->line[0].level);
    out(p, 0xa0, 0x0c); /* a poll finds nothing that may ask */
    ck_assert_uint_eq(in(p, 0xa0), 0);
    out(p, 0xa1, 0);
    out(p, 0xa0, 0x0c);
    ck_assert_uint_eq(in(p, 0xa0), 0x82);
    dev_reset(p->d);
    ck_assert(!p->line[0].level);
    pc_free(p);
}
END_TEST

/* --- i8254 --- */

START_TEST(i8254_counts_down_and_interrupts_each_period)
{
    struct pc *p = pc_new(&i8254_class);

    out(p, 3, 0x34); /* counter 0, both bytes, mode 2 */
    out(p, 0, 0x9c);
    out(p, 0, 0x2e); /* 11932 ticks: 10 ms */
    unsigned before = p->line[0].rises;
    pass(p, 4 * MS);
    ck_assert_uint_eq(p->line[0].rises, before);
    out(p, 3, 0x00); /* latched */
    pass(p, 3 * MS);
    unsigned count = in(p, 0);
    count |= (unsigned)in(p, 0) << 8;
    ck_assert_uint_eq(count, 11932 - 4772);
    pass(p, 4 * MS);
    ck_assert_uint_eq(p->line[0].rises, before + 1);
    pass(p, 50 * MS); /* late: one for all */
    ck_assert_uint_eq(p->line[0].rises, before + 2);
    pass(p, 10 * MS);
    ck_assert_uint_eq(p->line[0].rises, before + 3);
    out(p, 3, 0xe2); /* status of counter 0 */
    ck_assert_uint_eq(in(p, 0) & 0x7f, 0x34);
    out(p, 3, 0x30); /* mode 0: once */
    out(p, 0, 0xa9);
    out(p, 0, 0x04); /* 1 ms */
    ck_assert(!p->line[0].level);
    before = p->line[0].rises;
    pass(p, 2 * MS);
    pass(p, 2 * MS);
    ck_assert_uint_eq(p->line[0].rises, before + 1);
    out(p, 3, 0x16); /* the shortest period there is: the loop is not busy with it alone */
    out(p, 0, 1);
    before = p->line[0].rises;
    for (unsigned i = 0; i < 100; i++) {
        pass(p, 1000);
    }
    ck_assert_uint_le(p->line[0].rises, before + 6);
    pc_free(p);
}
END_TEST

START_TEST(i8254_gates_counter_2_by_port_61)
{
    struct pc *p = pc_new(&i8254_class);
    const unsigned port61 = 4; /* the second block */

    out(p, 3, 0xb0); /* counter 2, mode 0 */
    out(p, 2, 0xff);
    out(p, 2, 0x04);
    ck_assert_uint_eq(in(p, port61) & 0x21, 0);
    out(p, port61, 1);
    pass(p, MS);
    ck_assert_uint_eq(in(p, port61) & 0x21, 1);
    pass(p, MS);
    ck_assert_uint_eq(in(p, port61) & 0x21, 0x21);
    unsigned turns = 0;
    for (unsigned i = 0, was = 0; i < 10; i++) {
        pass(p, 15085);
        turns += (in(p, port61) & 0x10) != was;
        was = in(p, port61) & 0x10;
    }
    ck_assert_uint_ge(turns, 9);
    out(p, 3, 0xb7); /* square wave in decimal */
    out(p, 2, 0x00);
    out(p, 2, 0x10);
    pass(p, 1);
    out(p, 3, 0xc8); /* count and status */
    ck_assert_uint_eq(in(p, 2) & 0x3f, 0x37);
    pc_free(p);
}
END_TEST

/* --- mc146818 --- */

static uint8_t cmos(struct pc *p, unsigned at)
{
    out(p, 0, (uint8_t)at);
    return in(p, 1);
}

static void set_cmos(struct pc *p, unsigned at, uint8_t v)
{
    out(p, 0, (uint8_t)at);
    out(p, 1, v);
}

START_TEST(mc146818_tells_and_sets_time)
{
    struct pc *p = pc_new(&mc146818_class);

    mc146818_set(p->d, 0x34, 0x55);
    ck_assert_uint_eq(cmos(p, 0x34), 0x55);
    ck_assert_uint_eq(cmos(p, 0x32), 0x20); /* 2025-01-01 00:00:00, a Wednesday */
    ck_assert_uint_eq(cmos(p, 9), 0x25);
    ck_assert_uint_eq(cmos(p, 8), 1);
    ck_assert_uint_eq(cmos(p, 6), 4);
    set_cmos(p, 11, 0x82); /* stands; 24 hours, BCD */
    set_cmos(p, 4, 0x23);
    set_cmos(p, 2, 0x59);
    set_cmos(p, 0, 0x58);
    set_cmos(p, 8, 0x12);
    set_cmos(p, 7, 0x31);
    set_cmos(p, 11, 0x02);
    pass(p, 3000 * MS);
    ck_assert_uint_eq(cmos(p, 9), 0x26);
    ck_assert_uint_eq(cmos(p, 0), 0x01);
    set_cmos(p, 11, 0x04); /* binary, 12 hours */
    ck_assert_uint_eq(cmos(p, 9), 26);
    ck_assert_uint_eq(cmos(p, 4), 12);
    set_cmos(p, 11, 0x84);
    for (unsigned i = 0; i < 10; i++) {
        set_cmos(p, i, 0xff); /* nonsense is some time */
    }
    set_cmos(p, 0x32, 0xff);
    set_cmos(p, 11, 0x04);
    cmos(p, 0);
    set_cmos(p, 0x50, 0xa5);
    dev_reset(p->d);
    ck_assert_uint_eq(cmos(p, 0x50), 0xa5);
    ck_assert_uint_eq(cmos(p, 13), 0x80);
    pc_free(p);
}
END_TEST

START_TEST(mc146818_interrupts_by_period_update_and_alarm)
{
    struct pc *p = pc_new(&mc146818_class);

    set_cmos(p, 10, 0x26); /* 1024 Hz */
    set_cmos(p, 11, 0x42);
    pass(p, MS);
    ck_assert(p->line[0].level);
    ck_assert_uint_eq(cmos(p, 12), 0xc0);
    ck_assert(!p->line[0].level);
    ck_assert_uint_eq(cmos(p, 12), 0);
    pass(p, 100 * MS);
    ck_assert_uint_eq(cmos(p, 12), 0xc0);
    set_cmos(p, 11, 0x12); /* each second */
    pass(p, 1000 * MS);
    ck_assert(p->line[0].level);
    ck_assert_uint_eq(cmos(p, 12) & 0x90, 0x90);
    set_cmos(p, 1, 0x05); /* at second 5 of every minute */
    set_cmos(p, 3, 0xff);
    set_cmos(p, 5, 0xff);
    set_cmos(p, 11, 0x22);
    for (unsigned i = 0; i < 3; i++) {
        pass(p, 1000 * MS);
        ck_assert(!p->line[0].level);
    }
    pass(p, 1000 * MS);
    ck_assert(p->line[0].level);
    ck_assert_uint_eq(cmos(p, 12) & 0xa0, 0xa0);
    pc_free(p);
}
END_TEST

/* --- hpet --- */

START_TEST(hpet_counts_and_interrupts_once_and_again)
{
    struct pc *p = pc_new(&hpet_class);
    struct rig_line pin = { 0 };
    struct irq_line pit = hpet_legacy_input(p->d, 0);

    hpet_set_pin(p->d, 20, rig_line(&pin));
    ck_assert_uint_eq(rig_read(p->r, AT, 8), 0x009896808086a201ull);
    irq_pulse(&pit);
    ck_assert_uint_eq(p->line[0].rises, 1); /* it goes through */
    rig_write(p->r, AT + 0x10, 3, 8);
    irq_pulse(&pit);
    ck_assert_uint_eq(p->line[0].rises, 1); /* the HPET is in its place */
    pass(p, MS);
    ck_assert_uint_eq(rig_read(p->r, AT + 0xf0, 8), 100000);
    rig_write(p->r, AT + 0x100, 0x14c,
              8); /* timer 0: interrupts, periodic, sets the match, 32 bits */
    rig_write(p->r, AT + 0x108, 200000, 8);
    rig_write(p->r, AT + 0x108, 50000, 8); /* the period */
    pass(p, MS / 2);
    ck_assert_uint_eq(p->line[0].rises, 1);
    pass(p, MS / 2);
    ck_assert_uint_eq(p->line[0].rises, 2);
    pass(p, MS / 2);
    ck_assert_uint_eq(p->line[0].rises, 3);
    pass(p, 100 * MS); /* late: one for all */
    ck_assert_uint_eq(p->line[0].rises, 4);
    ck_assert_uint_eq(rig_read(p->r, AT + 0x108, 8) % 50000, 0);
    rig_write(p->r, AT + 0x100, 0, 8);
    rig_write(p->r, AT + 0x140, 20 << 9 | 6, 8); /* timer 2: pin 20, by level */
    rig_write(p->r, AT + 0x148, rig_read(p->r, AT + 0xf0, 8) + 1000, 8);
    pass(p, MS);
    ck_assert(pin.level);
    ck_assert_uint_eq(rig_read(p->r, AT + 0x20, 8), 4);
    rig_write(p->r, AT + 0x20, 4, 8);
    ck_assert(!pin.level);
    rig_write(p->r, AT + 0x140, 31 << 9 | 6, 8); /* no such pin */
    rig_write(p->r, AT + 0x148, rig_read(p->r, AT + 0xf0, 8) + 1000, 8);
    pass(p, MS);
    rig_write(p->r, AT + 0x10, 0, 8);
    uint64_t stands = rig_read(p->r, AT + 0xf0, 8);
    pass(p, MS);
    ck_assert_uint_eq(rig_read(p->r, AT + 0xf0, 8), stands);
    pc_free(p);
}
END_TEST

/* --- i8042 --- */

static void kbc_command(struct pc *p, uint8_t c)
{
    out(p, 4, c);
}

static uint8_t kbc_read(struct pc *p)
{
    ck_assert(in(p, 4) & 1);
    return in(p, 0);
}

static void keys(struct pc *p, uint16_t type, uint16_t code, int32_t value)
{
    const struct input_step step = { type, code, value };

    ck_assert_int_eq(i8042_send(p->d, &step, 1, NULL), 0);
}

START_TEST(i8042_tells_keys_in_both_scan_code_sets)
{
    struct pc *p = pc_new(&i8042_class);

    kbc_command(p, 0xaa);
    ck_assert_uint_eq(kbc_read(p), 0x55);
    kbc_command(p, 0xab);
    ck_assert_uint_eq(kbc_read(p), 0);
    out(p, 0, 0xff); /* the keyboard resets itself */
    ck_assert(p->line[0].level);
    ck_assert_uint_eq(kbc_read(p), 0xfa);
    ck_assert_uint_eq(kbc_read(p), 0xaa);
    ck_assert(!p->line[0].level);
    keys(p, INPUT_EV_KEY, 30, 1); /* a, set 2 */
    keys(p, INPUT_EV_KEY, 30, 0);
    ck_assert_uint_eq(kbc_read(p), 0x1c);
    ck_assert_uint_eq(kbc_read(p), 0xf0);
    ck_assert_uint_eq(kbc_read(p), 0x1c);
    kbc_command(p, 0x60);
    out(p, 0, 0x43); /* both interrupt, translated */
    kbc_command(p, 0x20);
    ck_assert_uint_eq(kbc_read(p), 0x43);
    keys(p, INPUT_EV_KEY, 30, 1);
    keys(p, INPUT_EV_KEY, 30, 0);
    keys(p, INPUT_EV_KEY, 103, 1); /* up: behind 0xe0 */
    ck_assert_uint_eq(kbc_read(p), 0x1e);
    ck_assert_uint_eq(kbc_read(p), 0x9e);
    ck_assert_uint_eq(kbc_read(p), 0xe0);
    ck_assert_uint_eq(kbc_read(p), 0x48);
    kbc_command(p, 0xad); /* the keyboard's clock is held */
    keys(p, INPUT_EV_KEY, 1, 1);
    ck_assert_uint_eq(in(p, 4) & 1, 0);
    kbc_command(p, 0xae);
    ck_assert_uint_eq(kbc_read(p), 0x01);
    for (unsigned i = 0; i < 40; i++) { /* nobody reads: the rest is refused, not kept */
        const struct input_step step = { INPUT_EV_KEY, 30, 1 };

        i8042_send(p->d, &step, 1, NULL);
        out(p, 0, 0xf2);
    }
    unsigned n = 0;
    for (; in(p, 4) & 1; n++) {
        in(p, 0);
    }
    ck_assert_uint_le(n, 66);
    pc_free(p);
}
END_TEST

static uint8_t mouse(struct pc *p, uint8_t command)
{
    kbc_command(p, 0xd4);
    out(p, 0, command);
    ck_assert_uint_eq(in(p, 4) & 0x21, 0x21);
    return in(p, 0);
}

START_TEST(i8042_tells_movements_and_the_wheel)
{
    struct pc *p = pc_new(&i8042_class);
    static const uint8_t knock[] = { 200, 100, 80 };

    ck_assert_uint_eq(mouse(p, 0xff), 0xfa);
    ck_assert_uint_eq(kbc_read(p), 0xaa);
    ck_assert_uint_eq(kbc_read(p), 0);
    keys(p, INPUT_EV_REL, INPUT_REL_X, 5); /* not asked for */
    ck_assert_uint_eq(in(p, 4) & 1, 0);
    ck_assert_uint_eq(mouse(p, 0xf4), 0xfa);
    keys(p, INPUT_EV_REL, INPUT_REL_X, 5);
    ck_assert(p->line[1].level);
    ck_assert_uint_eq(kbc_read(p), 0x08);
    ck_assert_uint_eq(kbc_read(p), 5);
    ck_assert_uint_eq(kbc_read(p), 0);
    for (unsigned i = 0; i < 3; i++) {
        ck_assert_uint_eq(mouse(p, 0xf3), 0xfa);
        ck_assert_uint_eq(mouse(p, knock[i]), 0xfa);
    }
    ck_assert_uint_eq(mouse(p, 0xf2), 0xfa);
    ck_assert_uint_eq(kbc_read(p), 3);
    keys(p, INPUT_EV_KEY, INPUT_BTN_LEFT, 1);
    ck_assert_uint_eq(kbc_read(p), 0x09);
    in(p, 0), in(p, 0);
    ck_assert_uint_eq(kbc_read(p), 0);
    keys(p, INPUT_EV_REL, INPUT_REL_WHEEL, 1);
    in(p, 0), in(p, 0), in(p, 0);
    ck_assert_uint_eq(kbc_read(p), 0xff);
    kbc_command(p, 0xfe);
    ck_assert_uint_eq(atomic_load(&p->r->vm->requests), VM_REQ_RESET);
    atomic_store(&p->r->vm->requests, 0);
    out(p, 5, 3); /* port 0x92 */
    ck_assert_uint_eq(atomic_load(&p->r->vm->requests), VM_REQ_RESET);
    atomic_store(&p->r->vm->requests, 0);
    pc_free(p);
}
END_TEST

/* --- debug port, fw_cfg by ports --- */

START_TEST(debug_port_is_there)
{
    struct pc *p = pc_new(&debug_port_class);

    ck_assert_uint_eq(in(p, 0), 0xe9);
    for (unsigned i = 0; i < 1000; i++) {
        out(p, 0, 'x');
    }
    out(p, 0, '\n');
    rig_free(p->r);
    free(p);
}
END_TEST

static void looked(void *arg)
{
    ++*(unsigned *)arg;
}

START_TEST(fw_cfg_reads_by_ports_and_tells_of_the_loader)
{
    struct pc *p = pc_new(&fw_cfg_class);
    const uint64_t port = AT + 24; /* the second block */
    unsigned times = 0;

    ck_assert_int_eq(fw_cfg_add_file(p->d, "etc/a", "xyz", 3, NULL), 0);
    ck_assert_int_eq(fw_cfg_add_file(p->d, FW_CFG_LOADER, "0123", 4, NULL), 0);
    fw_cfg_set_hook(p->d, looked, &times);
    rig_write(p->r, port, FW_CFG_SIGNATURE, 2);
    ck_assert_uint_eq(rig_read(p->r, port + 1, 1), 'Q');
    ck_assert_uint_eq(rig_read(p->r, port + 1, 1), 'E');
    ck_assert_uint_eq(rig_read(p->r, port + 4, 4), 0x554d4551);
    rig_write(p->r, port, FW_CFG_FILE_FIRST, 2);
    ck_assert_uint_eq(rig_read(p->r, port + 1, 1), 'x');
    ck_assert_uint_eq(times, 0);
    rig_write(p->r, port, FW_CFG_FILE_FIRST + 1, 2);
    rig_write(p->r, port, FW_CFG_FILE_FIRST + 1, 2);
    ck_assert_uint_eq(times, 1);
    ck_assert_int_eq(fw_cfg_replace_file(p->d, FW_CFG_LOADER, "4567", 4), 0);
    ck_assert_int_eq(fw_cfg_replace_file(p->d, FW_CFG_LOADER, "45", 2), -ENOENT);
    ck_assert_uint_eq(rig_read(p->r, port + 1, 1), '4');
    dev_reset(p->d);
    rig_write(p->r, port, FW_CFG_FILE_FIRST + 1, 2);
    ck_assert_uint_eq(times, 2);
    pc_free(p);
}
END_TEST

/* --- on PCI --- */

#define CHIPSET PCI_DEVFN(31, 0)
#define PM 0x600

/* The ports of the VM are beside its memory. */
static uint32_t inl(struct pci_rig *p, unsigned port, unsigned size)
{
    return bus_port_read(p->r->vm->ports, (uint16_t)port, size);
}

static void outl(struct pci_rig *p, unsigned port, unsigned size, uint32_t v)
{
    bus_port_write(p->r->vm->ports, (uint16_t)port, size, v);
}

/* What the main thread does when a device asks for it. */
static void remap(struct pci_rig *p)
{
    ck_assert_uint_eq(atomic_load(&p->r->vm->requests), VM_REQ_REMAP);
    rig_turn(p->r);
    ck_assert_uint_eq(atomic_load(&p->r->vm->requests), 0);
}

START_TEST(ich9_lpc_moves_its_registers_and_routes_interrupts)
{
    struct pci_rig p;
    struct rig_line apic = { 0 }, pic[2] = { { 0 } }, sci = { 0 };
    struct irq_line b;

    pci_rig_new(&p);
    clock_drive(p.r->vm->clock, armed, NULL);
    struct device *d = pci_rig_device(&p, &ich9_lpc_class);
    pci_rig_plug(&p, d, NULL, CHIPSET);
    d->irq[0] = rig_line(&sci);
    ich9_set_apic(d, 1, rig_line(&apic));
    ich9_set_pic(d, 10, rig_line(&pic[0]));
    ich9_set_pic(d, 11, rig_line(&pic[1]));
    rig_start(p.r);
    vm_resume(p.r->vm);
    struct pc time = { .r = p.r };
    ck_assert_uint_eq(cfg_read(&p, CHIPSET, 0, 4), 0x29188086);
    ck_assert_uint_eq(inl(&p, PM, 2), 0xffff);
    cfg_write(&p, CHIPSET, 0x40, PM | 0x7f, 4);
    cfg_write(&p, CHIPSET, 0x44, 0x80, 1);
    ck_assert_uint_eq(cfg_read(&p, CHIPSET, 0x40, 4), PM | 1);
    remap(&p);
    outl(&p, PM + 2, 2, 0x100);
    ck_assert_uint_eq(inl(&p, PM + 2, 2), 0x100);
    ck_assert_int_eq(ich9_power_button(d, NULL), -ENODEV);
    ck_assert(d->mmio[1] != NULL);
    outl(&p, PM + 4, 2, 1);
    ck_assert_int_eq(ich9_power_button(d, NULL), 0);
    ck_assert(sci.level);
    outl(&p, PM, 2, 0x100);
    ck_assert(!sci.level);
    outl(&p, PM + 0x28, 1, 0x20);
    ich9_event(d, 5);
    pass(&time, 1);
    ck_assert(sci.level);
    outl(&p, PM + 0x20, 1, 0x20);
    ck_assert(!sci.level);
    b = ich9_pirq(d, 1);
    irq_set(&b, true);
    ck_assert(apic.level && !pic[0].level);
    cfg_write(&p, CHIPSET, 0x61, 10, 1);
    ck_assert(pic[0].level);
    cfg_write(&p, CHIPSET, 0x61, 11, 1);
    ck_assert(!pic[0].level && pic[1].level);
    irq_set(&b, false);
    ck_assert(!apic.level && !pic[1].level);
    cfg_write(&p, CHIPSET, 0x40, 0x1000, 4);
    remap(&p);
    ck_assert_uint_eq(inl(&p, PM + 2, 2), 0xffff);
    ck_assert_uint_eq(inl(&p, 0x1002, 2), 0x100);
    outl(&p, 0x1004, 2, 0x2000);
    ck_assert_uint_eq(atomic_load(&p.r->vm->requests), VM_REQ_POWEROFF);
    atomic_store(&p.r->vm->requests, 0);
    rig_state_round_trip(d);
    pci_rig_free(&p);
}
END_TEST

START_TEST(ich9_lpc_sleeps_in_ram_and_says_what_woke_it)
{
    struct pci_rig p;
    struct rig_line sci = { 0 };

    pci_rig_new(&p);
    clock_drive(p.r->vm->clock, armed, NULL);
    struct device *d = pci_rig_device(&p, &ich9_lpc_class);
    ck_assert_int_eq(dev_set_bool(d, "sleeps", true, NULL), 0);
    pci_rig_plug(&p, d, NULL, CHIPSET);
    d->irq[0] = rig_line(&sci);
    rig_start(p.r);
    vm_resume(p.r->vm);
    struct vm *vm = p.r->vm;
    struct pc time = { .r = p.r };
    cfg_write(&p, CHIPSET, 0x40, PM, 4);
    cfg_write(&p, CHIPSET, 0x44, 0x80, 1);
    remap(&p);
    ich9_clock(d); /* it is awake */
    pass(&time, 1);
    ck_assert_uint_eq(atomic_load(&vm->requests), 0);
    outl(&p, PM + 4, 2, 0x2800); /* a type that there is not */
    ck_assert_uint_eq(atomic_load(&vm->requests), 0);
    outl(&p, PM + 4, 2, 0x2400);
    ck_assert_uint_eq(atomic_exchange(&vm->requests, 0), VM_REQ_SLEEP);
    ck_assert_uint_eq(inl(&p, PM + 4, 2), 0x400);
    rig_state_round_trip(d);
    ck_assert(vm->asleep); /* as the state says */
    ich9_clock(d);         /* not wanted */
    pass(&time, 1);
    ck_assert_uint_eq(atomic_load(&vm->requests), 0);
    outl(&p, PM + 2, 2, 0x400);
    ich9_clock(d);
    pass(&time, 1);
    ck_assert_uint_eq(atomic_exchange(&vm->requests, 0), VM_REQ_WAKE);
    ck_assert_int_eq(ich9_power_button(d, NULL), 0);
    ck_assert_uint_eq(atomic_exchange(&vm->requests, 0), VM_REQ_WAKE);
    vm->waking = true;
    dev_reset(d);
    vm->waking = false;
    vm_remap(vm);
    cfg_write(&p, CHIPSET, 0x40, PM, 4);
    cfg_write(&p, CHIPSET, 0x44, 0x80, 1);
    remap(&p);
    ck_assert_uint_eq(inl(&p, PM, 2), 0x8500);
    outl(&p, PM, 2, 0x8500);
    ck_assert_uint_eq(inl(&p, PM, 2), 0);
    dev_reset(d);
    ck_assert_int_eq(ich9_power_button(d, NULL), -ENODEV); /* it sleeps no more */
    rig_state_round_trip(d);
    pci_rig_free(&p);
}
END_TEST

START_TEST(ich9_lpc_counts_and_watches)
{
    struct pci_rig p;
    struct rig_line sci = { 0 };

    pci_rig_new(&p);
    clock_drive(p.r->vm->clock, armed, NULL);
    struct device *d = pci_rig_device(&p, &ich9_lpc_class);
    pci_rig_plug(&p, d, NULL, CHIPSET);
    d->irq[0] = rig_line(&sci);
    rig_start(p.r);
    vm_resume(p.r->vm);
    struct pc time = { .r = p.r };
    cfg_write(&p, CHIPSET, 0x40, PM, 4);
    cfg_write(&p, CHIPSET, 0x44, 0x80, 1);
    cfg_write(&p, CHIPSET, 0xf0, 0x3fed0001, 4);
    remap(&p);
    pass(&time, 1000 * MS);
    ck_assert_uint_eq(inl(&p, PM + 8, 4), 3579545);
    outl(&p, PM + 4, 2, 1);
    outl(&p, PM + 2, 2, 1);
    pass(&time, 1400 * MS); /* past 2^23 */
    ck_assert(sci.level);
    outl(&p, PM, 2, 1);
    ck_assert(!sci.level);
    pass(&time, 2400 * MS);
    ck_assert(sci.level);
    outl(&p, PM + 2, 2, 0);
    ck_assert_uint_eq(rd32(p.r, 0x3fed3410), 0x20);
    wr32(p.r, 0x3fed3410, 0);
    outl(&p, PM + 0x72, 2, 5); /* 3 s */
    outl(&p, PM + 0x60, 2, 1);
    pass(&time, 2900 * MS);
    ck_assert_uint_eq(inl(&p, PM + 0x64, 2), 0);
    outl(&p, PM + 0x60, 2, 1); /* fed */
    pass(&time, 2900 * MS);
    ck_assert_uint_eq(inl(&p, PM + 0x64, 2), 0);
    pass(&time, 200 * MS);
    ck_assert_uint_eq(inl(&p, PM + 0x64, 2), 8);
    ck_assert_uint_eq(atomic_load(&p.r->vm->requests), 0);
    pass(&time, 3000 * MS);
    ck_assert_uint_eq(inl(&p, PM + 0x66, 2), 2);
    ck_assert_uint_eq(atomic_load(&p.r->vm->requests), VM_REQ_RESET);
    atomic_store(&p.r->vm->requests, 0);
    outl(&p, PM + 0x68, 2, 0x800);
    rig_state_round_trip(d);
    pci_rig_free(&p);
}
END_TEST

START_TEST(q35_mch_shows_memory_as_its_registers_say)
{
    struct pci_rig p;
    struct mem_region *ram;
    uint64_t size;

    pci_rig_new(&p);
    ck_assert_int_eq(mem_new_ram("pc", 1 << 20, &ram, NULL), 0);
    mem_ram_host(ram)[0xf0000] = 0x5a;
    mem_ram_host(ram)[0xc4000] = 0x77;
    mem_ram_host(ram)[0xa0000] = 0x11;
    struct device *d = pci_rig_device(&p, &q35_mch_class);
    ck_assert_int_eq(dev_set_ptr(d, "ram", ram, NULL), 0);
    ck_assert_int_eq(dev_set_ptr(d, "host", p.host, NULL), 0);
    const unsigned at = PCI_DEVFN(5, 0);
    pci_rig_plug(&p, d, NULL, at);
    rig_start(p.r);
    ck_assert_uint_eq(cfg_read(&p, at, 0, 4), 0x29c08086);
    ck_assert_uint_eq(rig_read(p.r, 0xf0000, 1), 0); /* nothing is there */
    cfg_write(&p, at, 0x90, 0x30, 1);
    remap(&p);
    ck_assert_uint_eq(rig_read(p.r, 0xf0000, 1), 0x5a);
    rig_write(p.r, 0xf0000, 0x5b, 1);
    ck_assert_uint_eq(rig_read(p.r, 0xf0000, 1), 0x5b);
    cfg_write(&p, at, 0x90, 0x10, 1);
    cfg_write(&p, at, 0x91, 0x10, 1);
    remap(&p);
    rig_write(p.r, 0xf0000, 0x5c, 1);
    ck_assert_uint_eq(rig_read(p.r, 0xf0000, 1), 0x5b); /* read-only */
    ck_assert_uint_eq(rig_read(p.r, 0xc4000, 1), 0x77);
    ck_assert_uint_eq(rig_read(p.r, 0xc0000, 1), 0);
    cfg_write(&p, at, 0x9d, 0x4a, 1);
    remap(&p);
    ck_assert_uint_eq(rig_read(p.r, 0xa0000, 1), 0x11);
    ck_assert_uint_eq(q35_mch_ecam(d, &size), 0);
    cfg_write(&p, at, 0x60, 0xe0000001, 4);
    remap(&p);
    ck_assert_uint_eq(q35_mch_ecam(d, &size), 0xe0000000);
    ck_assert_uint_eq(size, 256 << 20);
    ck_assert_uint_eq(rd32(p.r, 0xe0000000 + (at << 12)), 0x29c08086);
    rig_state_round_trip(d);
    dev_reset(d);
    vm_remap(p.r->vm);
    ck_assert_uint_eq(rig_read(p.r, 0xf0000, 1), 0);
    pci_rig_free(&p);
    mem_free(ram);
}
END_TEST

START_TEST(pci_ports_show_config_space)
{
    struct pci_rig p;

    pci_rig_new(&p);
    struct device *d = pci_rig_device(&p, &pci_ports_class);
    ck_assert_int_eq(dev_set_ptr(d, "host", p.host, NULL), 0);
    rig_place(p.r, d, AT);
    struct device *s = pci_rig_device(&p, &ich9_smbus_class);
    pci_rig_plug(&p, s, NULL, PCI_DEVFN(31, 3));
    rig_start(p.r);
    ck_assert_uint_eq(rd32(p.r, AT + 4), UINT32_MAX); /* not enabled */
    wr32(p.r, AT, 0x80000000u | PCI_DEVFN(31, 3) << 8);
    ck_assert_uint_eq(rd32(p.r, AT + 4), 0x29308086);
    ck_assert_uint_eq(rig_read(p.r, AT + 6, 2), 0x2930);
    wr32(p.r, AT, 0x80000000u | PCI_DEVFN(31, 3) << 8 | 0x20);
    wr32(p.r, AT + 4, 0x1001);
    ck_assert_uint_eq(rd32(p.r, AT + 4), 0x1001);
    wr32(p.r, AT, 0x80000000u | PCI_DEVFN(9, 0) << 8);
    ck_assert_uint_eq(rd32(p.r, AT + 4), UINT32_MAX);
    rig_write(p.r, AT + 1, 2, 1);
    ck_assert_uint_eq(atomic_load(&p.r->vm->requests), 0);
    ck_assert_uint_eq(rig_read(p.r, AT + 1, 1), 2);
    rig_write(p.r, AT + 1, 6, 1);
    ck_assert_uint_eq(atomic_load(&p.r->vm->requests), VM_REQ_RESET);
    atomic_store(&p.r->vm->requests, 0);
    rig_state_round_trip(d);
    pci_rig_free(&p);
}
END_TEST

START_TEST(ich9_smbus_finds_nobody)
{
    struct pci_rig p;
    const unsigned at = PCI_DEVFN(31, 3);

    pci_rig_new(&p);
    struct device *s = pci_rig_device(&p, &ich9_smbus_class);
    pci_rig_plug(&p, s, NULL, at);
    rig_start(p.r);
    cfg_write(&p, at, 0x20, 0x700, 4);
    cfg_write(&p, at, 0x04, 1, 2);
    rig_write(p.r, PCI_PIO + 0x702, 0x48, 1); /* the controller is off */
    ck_assert_uint_eq(rig_read(p.r, PCI_PIO + 0x700, 1), 0);
    cfg_write(&p, at, 0x40, 1, 1);
    rig_write(p.r, PCI_PIO + 0x704, 0xa1, 1);
    rig_write(p.r, PCI_PIO + 0x702, 0x49, 1);
    ck_assert_uint_eq(rig_read(p.r, PCI_PIO + 0x700, 1), 4);
    ck_assert(p.wire[31 % 4].level);
    rig_write(p.r, PCI_PIO + 0x700, 4, 1);
    ck_assert(!p.wire[31 % 4].level);
    for (unsigned i = 0; i < 40; i++) {
        rig_write(p.r, PCI_PIO + 0x707, i, 1);
    }
    rig_state_round_trip(s);
    pci_rig_free(&p);
}
END_TEST

static Suite *suite_pc(void)
{
    Suite *s = suite_create("pc");
    TCase *t = tcase_create("chip set");

    tcase_add_test(t, i8259_serves_by_priority_over_both_chips);
    tcase_add_test(t, i8259_levels_ask_until_the_last_wire_is_down);
    tcase_add_test(t, i8254_counts_down_and_interrupts_each_period);
    tcase_add_test(t, i8254_gates_counter_2_by_port_61);
    tcase_add_test(t, mc146818_tells_and_sets_time);
    tcase_add_test(t, mc146818_interrupts_by_period_update_and_alarm);
    tcase_add_test(t, hpet_counts_and_interrupts_once_and_again);
    tcase_add_test(t, i8042_tells_keys_in_both_scan_code_sets);
    tcase_add_test(t, i8042_tells_movements_and_the_wheel);
    tcase_add_test(t, debug_port_is_there);
    tcase_add_test(t, fw_cfg_reads_by_ports_and_tells_of_the_loader);
    tcase_add_test(t, ich9_lpc_moves_its_registers_and_routes_interrupts);
    tcase_add_test(t, ich9_lpc_sleeps_in_ram_and_says_what_woke_it);
    tcase_add_test(t, ich9_lpc_counts_and_watches);
    tcase_add_test(t, q35_mch_shows_memory_as_its_registers_say);
    tcase_add_test(t, pci_ports_show_config_space);
    tcase_add_test(t, ich9_smbus_finds_nobody);
    suite_add_tcase(s, t);
    return s;
}

int main(int argc, char **argv)
{
    return test_main(argc, argv, suite_pc, NULL);
}
