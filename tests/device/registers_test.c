/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One scripted register test a device, against an instance on a VM that runs no code.
 */
#include "devices/irqchip/ioapic.h"
#include "devices/irqchip/plic.h"
#include "devices/misc/fw_cfg.h"
#include "devices/misc/vmgenid.h"
#include "devices/registry.h"
#include "engine/arch/riscv/cpu.h"
#include "engine/base/mem.h"
#include "tests/device/rig.h"
#include "tests/lib/testing.h"

#include <endian.h>

#define AT 0x10000000ull

static bool input(struct rig *r, unsigned hart, unsigned n)
{
    return atomic_load(&r->vm->vcpus[hart]->irq_level) >> n & 1;
}

/* --- ns16550a --- */

struct uart_rig {
    struct rig *r;
    struct device *d;
    struct rig_chr chr;
    struct rig_line line;
};

static struct uart_rig uart_new(size_t room)
{
    struct uart_rig u = { .r = rig_new(1) };

    rig_chr_init(&u.chr, room);
    u.d = rig_device(u.r, &ns16550a_class);
    return u;
}

/* The chr and the line must not move any more. */
static void uart_ready(struct uart_rig *u)
{
    ck_assert_int_eq(dev_set_ptr(u->d, "chr", &u->chr.chr, NULL), 0);
    rig_place(u->r, u->d, AT);
    u->d->irq[0] = rig_line(&u->line);
}

static uint8_t in8(struct uart_rig *u, unsigned offset)
{
    return (uint8_t)rig_read(u->r, AT + offset, 1);
}

static void out8(struct uart_rig *u, unsigned offset, uint8_t v)
{
    rig_write(u->r, AT + offset, v, 1);
}

static void uart_type(struct uart_rig *u, const char *text)
{
    const struct chr_front_ops *f = u->chr.chr.front;
    size_t n = strlen(text);

    ck_assert_uint_ge(f->room(u->d), n);
    f->receive(u->d, (const uint8_t *)text, n);
}

START_TEST(uart_has_reset_values_and_divisor_latch)
{
    struct uart_rig u = uart_new(100);

    uart_ready(&u);
    ck_assert_uint_eq(in8(&u, 2), 0x01);
    ck_assert_uint_eq(in8(&u, 5), 0x60);
    ck_assert_uint_eq(in8(&u, 6), 0xb0);
    out8(&u, 3, 0x83);
    out8(&u, 0, 0x34);
    out8(&u, 1, 0x12);
    ck_assert_uint_eq(in8(&u, 0), 0x34);
    ck_assert_uint_eq(in8(&u, 1), 0x12);
    out8(&u, 3, 0x03);
    ck_assert_uint_eq(in8(&u, 1), 0x00);
    out8(&u, 7, 0xa5);
    ck_assert_uint_eq(in8(&u, 7), 0xa5);
    ck_assert_uint_eq(u.chr.n_out, 0);
    rig_free(u.r);
}
END_TEST

START_TEST(uart_thri_rises_on_enable_and_clears_on_iir_read)
{
    struct uart_rig u = uart_new(100);

    uart_ready(&u);
    out8(&u, 1, 0x02);
    ck_assert(u.line.level);
    ck_assert_uint_eq(in8(&u, 2), 0x02);
    ck_assert(!u.line.level);
    ck_assert_uint_eq(in8(&u, 2), 0x01);
    out8(&u, 0, 'A'); /* sent at once: empty again */
    ck_assert_uint_eq(u.line.rises, 2);
    ck_assert_uint_eq(u.chr.out[0], 'A');
    out8(&u, 1, 0x00);
    ck_assert(!u.line.level);
    out8(&u, 1, 0x02);
    ck_assert(u.line.level);
    rig_free(u.r);
}
END_TEST

START_TEST(uart_holds_bytes_back_while_the_back_end_is_full)
{
    struct uart_rig u = uart_new(1);

    uart_ready(&u);
    out8(&u, 2, 0x01);
    out8(&u, 1, 0x02);
    in8(&u, 2);
    out8(&u, 0, '1');
    ck_assert_uint_eq(in8(&u, 5), 0x60);
    in8(&u, 2);
    out8(&u, 0, '2');
    out8(&u, 0, '3');
    ck_assert_uint_eq(in8(&u, 5) & 0x60, 0);
    ck_assert(!u.line.level);
    rig_state_round_trip(u.d);
    u.chr.room = 100;
    u.chr.chr.front->writable(u.d);
    ck_assert_uint_eq(in8(&u, 5), 0x60);
    ck_assert(u.line.level);
    ck_assert_uint_eq(u.chr.n_out, 3);
    ck_assert_int_eq(memcmp(u.chr.out, "123", 3), 0);
    rig_free(u.r);
}
END_TEST

START_TEST(uart_receives_up_to_its_fifo_and_asks_for_more)
{
    struct uart_rig u = uart_new(100);
    unsigned accepts;

    uart_ready(&u);
    ck_assert_uint_eq(u.chr.chr.front->room(u.d), 1); /* no FIFO yet */
    out8(&u, 2, 0x81);                                /* FIFO, trigger at 8 */
    ck_assert_uint_eq(u.chr.chr.front->room(u.d), 16);
    out8(&u, 1, 0x01);
    uart_type(&u, "abcdefg");
    ck_assert_uint_eq(in8(&u, 5) & 1, 1);
    ck_assert(!u.line.level);
    uart_type(&u, "h");
    ck_assert(u.line.level);
    ck_assert_uint_eq(in8(&u, 2), 0xc4);
    accepts = u.chr.accepts;
    for (unsigned i = 0; i < 8; i++) {
        ck_assert_uint_eq(in8(&u, 0), 'a' + i);
    }
    ck_assert_uint_gt(u.chr.accepts, accepts);
    ck_assert_uint_eq(in8(&u, 5) & 1, 0);
    ck_assert(!u.line.level);
    uart_type(&u, "0123456789abcdef");
    ck_assert_uint_eq(u.chr.chr.front->room(u.d), 0);
    rig_state_round_trip(u.d);
    out8(&u, 2, 0x83); /* clears the receiver */
    ck_assert_uint_eq(in8(&u, 5) & 1, 0);
    ck_assert_uint_eq(u.chr.chr.front->room(u.d), 16);
    rig_free(u.r);
}
END_TEST

static bool line_up(void *arg)
{
    return ((struct rig_line *)arg)->level;
}

START_TEST(uart_character_timeout_interrupts_below_the_trigger)
{
    struct uart_rig u = uart_new(100);

    uart_ready(&u);
    rig_start(u.r);
    out8(&u, 3, 0x83);
    out8(&u, 0, 1);
    out8(&u, 1, 0);
    out8(&u, 3, 0x03);
    out8(&u, 2, 0xc1);
    out8(&u, 1, 0x01);
    uart_type(&u, "x");
    rig_until(u.r, line_up, &u.line);
    ck_assert_uint_eq(in8(&u, 2), 0xcc);
    ck_assert_uint_eq(in8(&u, 0), 'x');
    ck_assert(!u.line.level);
    rig_free(u.r);
}
END_TEST

START_TEST(uart_loops_back_and_mirrors_modem_lines)
{
    struct uart_rig u = uart_new(100);

    uart_ready(&u);
    in8(&u, 6);
    out8(&u, 4, 0x10 | 0x0a); /* loop, RTS, OUT2 */
    ck_assert_uint_eq(in8(&u, 6) & 0xf0, 0x90);
    out8(&u, 0, 'L');
    ck_assert_uint_eq(in8(&u, 5), 0x61);
    ck_assert_uint_eq(u.chr.chr.front->room(u.d), 0);
    out8(&u, 0, 'M'); /* overruns */
    ck_assert_uint_eq(in8(&u, 5), 0x63);
    ck_assert_uint_eq(in8(&u, 5), 0x61);
    ck_assert_uint_eq(in8(&u, 0), 'L');
    ck_assert_uint_eq(u.chr.n_out, 0);
    out8(&u, 4, 0);
    ck_assert_uint_eq(in8(&u, 6), 0xb2); /* DSR came back: delta of bit 1 */
    rig_free(u.r);
}
END_TEST

/* --- aclint --- */

static bool timer_input(void *arg)
{
    return input(arg, 1, RISCV_IRQ_MTI);
}

START_TEST(aclint_drives_software_and_timer_interrupts)
{
    struct rig *r = rig_new(2);
    struct device *d = rig_device(r, &aclint_class);
    uint64_t now;

    rig_place(r, d, AT);
    wr32(r, AT + 4, 0xffffffff);
    ck_assert_uint_eq(rd32(r, AT + 4), 1);
    ck_assert(input(r, 1, RISCV_IRQ_MSI) && !input(r, 0, RISCV_IRQ_MSI));
    wr32(r, AT + 4, 0);
    ck_assert(!input(r, 1, RISCV_IRQ_MSI));
    wr32(r, AT + 8, 1); /* no such hart */
    ck_assert_uint_eq(rd32(r, AT + 8), 0);
    ck_assert_uint_eq(rig_read(r, AT + 0x4000, 8), UINT64_MAX);
    rig_write(r, AT + 0x4000, 0, 8);
    ck_assert(input(r, 0, RISCV_IRQ_MTI));
    wr32(r, AT + 0x4004, 1); /* upper half: far away now */
    ck_assert(!input(r, 0, RISCV_IRQ_MTI));
    ck_assert_uint_eq(rig_read(r, AT + 0x4000, 8), 1ull << 32);
    rig_start(r);
    now = rig_read(r, AT + 0xbff8, 8);
    rig_write(r, AT + 0x4008, now + 1000, 8);
    rig_until(r, timer_input, r);
    ck_assert_uint_ge(rig_read(r, AT + 0xbff8, 8), now + 1000);
    rig_write(r, AT + 0x4008, UINT64_MAX, 8);
    ck_assert(!input(r, 1, RISCV_IRQ_MTI));
    rig_write(r, AT + 0xbff8, 0, 8); /* time can be set */
    ck_assert_uint_lt(rig_read(r, AT + 0xbff8, 8), 1u << 30);
    rig_state_round_trip(d);
    rig_free(r);
}
END_TEST

static bool stimer_input(void *arg)
{
    return input(arg, 1, RISCV_IRQ_STI);
}

static bool stimer_low(void *arg)
{
    return !stimer_input(arg);
}

START_TEST(mtime_written_is_the_time_of_every_hart)
{
    struct rig *r = rig_new(2);
    struct device *d = rig_device(r, &aclint_class);
    const uint64_t year = 365ull * 86400 * RISCV_TIMEBASE_HZ;
    struct riscv_cpu *c = r->vm->vcpus[1]->cpu;

    rig_place(r, d, AT);
    rig_start(r);
    c->menvcfg |= MENVCFG_STCE;
    c->stimecmp = year; /* not in this test's life, unless time is set */
    riscv_stimecmp_changed(c);
    ck_assert(!stimer_input(r));
    rig_write(r, AT + 0xbff8, year - 100, 8);
    for (unsigned h = 0; h < 2; h++) {
        uint64_t now = riscv_time(r->vm->vcpus[h]);
        ck_assert_uint_ge(now, year - 100);
        ck_assert_uint_le(now, rig_read(r, AT + 0xbff8, 8));
    }
    rig_until(r, stimer_input, r);
    rig_write(r, AT + 0xbff8, 5, 8); /* and back: the timer lies ahead again */
    ck_assert_uint_lt(riscv_time(r->vm->vcpus[0]), year / 2);
    rig_until(r, stimer_low, r);
    rig_free(r);
}
END_TEST

/* --- ioapic --- */

struct messages {
    unsigned n;
    uint64_t address;
    uint32_t data;
};

static void take_message(void *opaque, uint64_t address, uint32_t data)
{
    struct messages *m = opaque;

    m->n++;
    m->address = address;
    m->data = data;
}

static struct device *ioapic_new(struct rig *r, struct messages *m)
{
    struct device *d = rig_device(r, &ioapic_class);

    ck_assert_int_eq(dev_set_u64(d, "id", 5, NULL), 0);
    rig_place(r, d, AT);
    rig_start(r);
    *m = (struct messages){ .n = 0 };
    r->vm->msi = (struct irq_msi){ .send = take_message, .opaque = m };
    return d;
}

static uint32_t ioapic_get(struct rig *r, unsigned n)
{
    wr32(r, AT, n);
    return rd32(r, AT + 0x10);
}

static void ioapic_put(struct rig *r, unsigned n, uint32_t v)
{
    wr32(r, AT, n);
    wr32(r, AT + 0x10, v);
}

START_TEST(ioapic_sends_edges_that_are_not_masked)
{
    struct rig *r = rig_new(1);
    struct messages m;
    struct device *d = ioapic_new(r, &m);
    struct irq_line four = ioapic_input(d, 4, 0);

    ck_assert_uint_eq(ioapic_get(r, 0), 5u << 24);
    ck_assert_uint_eq(ioapic_get(r, 1), 0x170020);
    ck_assert_uint_eq(ioapic_get(r, 0x18), 0x10000); /* all are masked */
    ck_assert_uint_eq(ioapic_get(r, 0x40), 0);       /* there is no pin 24 */
    irq_pulse(&four);
    ck_assert_uint_eq(m.n, 0);
    ioapic_put(r, 0x19, 3u << 24);
    ioapic_put(r, 0x18, 0x5000 | 0x941); /* logical, lowest priority; what is read-only stays */
    ck_assert_uint_eq(ioapic_get(r, 0x18), 0x941);
    ck_assert_uint_eq(ioapic_get(r, 0x19), 3u << 24);
    ck_assert_uint_eq(m.n, 0); /* a masked edge is lost */
    irq_set(&four, true);
    irq_set(&four, true);
    ck_assert_uint_eq(m.n, 1);
    ck_assert_uint_eq(m.address, 0xfee03004);
    ck_assert_uint_eq(m.data, 0x4141);
    irq_set(&four, false);
    irq_pulse(&four);
    ck_assert_uint_eq(m.n, 2);
    rig_free(r);
}
END_TEST

START_TEST(ioapic_levels_ask_until_they_are_served)
{
    struct rig *r = rig_new(1);
    struct messages m;
    struct device *d = ioapic_new(r, &m);
    struct irq_line a = ioapic_input(d, 16, 0), b = ioapic_input(d, 16, 2);

    irq_set(&a, true);
    ioapic_put(r, 0x30, 0x8052);
    ck_assert_uint_eq(m.n, 1); /* a level waits behind the mask */
    ck_assert_uint_eq(m.data, 0xc052);
    ck_assert_uint_eq(ioapic_get(r, 0x30), 0xc052);
    irq_set(&b, true); /* shared: nothing new is sent before it was served */
    irq_set(&a, false);
    ck_assert_uint_eq(m.n, 1);
    ioapic_eoi(d, 0x51); /* another's */
    ck_assert_uint_eq(m.n, 1);
    ioapic_eoi(d, 0x52);
    ck_assert_uint_eq(m.n, 2); /* b asks still */
    irq_set(&b, false);
    wr32(r, AT + 0x40, 0x52);
    ck_assert_uint_eq(m.n, 2);
    ck_assert_uint_eq(ioapic_get(r, 0x30), 0x8052);
    irq_set(&a, true);
    ck_assert_uint_eq(m.n, 3);
    ioapic_put(r, 0x30, 0x18052);
    ioapic_eoi(d, 0x52);
    ck_assert_uint_eq(m.n, 3); /* masked meanwhile */
    ioapic_put(r, 0x30, 0x8052);
    ck_assert_uint_eq(m.n, 4);
    dev_reset(d);
    ck_assert_uint_eq(ioapic_get(r, 0x30), 0x10000);
    rig_free(r);
}
END_TEST

/* --- pc-control --- */

START_TEST(pc_control_answers_as_a_keyboard_controller_without_keyboard)
{
    struct rig *r = rig_new(1);
    struct device *d = rig_device(r, &pc_control_class);
    const uint64_t data = AT, command = AT + 4;

    rig_place(r, d, AT);
    rig_start(r);
    ck_assert_uint_eq(rig_read(r, command, 1), 0x10);
    rig_write(r, command, 0xaa, 1);
    ck_assert_uint_eq(rig_read(r, command, 1), 0x1d);
    ck_assert_uint_eq(rig_read(r, data, 1), 0x55);
    ck_assert_uint_eq(rig_read(r, command, 1), 0x1c);
    rig_write(r, command, 0x60, 1);
    rig_write(r, data, 0x61, 1);
    rig_write(r, command, 0x20, 1);
    ck_assert_uint_eq(rig_read(r, data, 1), 0x61);
    rig_write(r, command, 0xd3, 1); /* no second port loops back */
    rig_write(r, data, 0x5a, 1);
    ck_assert_uint_ne(rig_read(r, data, 1), 0x5a);
    rig_write(r, command, 0xa9, 1);
    ck_assert_uint_eq(rig_read(r, data, 1), 1);
    rig_write(r, data, 0xf2, 1); /* nobody answers */
    ck_assert_uint_eq(rig_read(r, command, 1) & 1, 0);
    ck_assert_uint_eq(atomic_load(&r->vm->requests), 0);
    rig_write(r, command, 0xfe, 1);
    ck_assert_uint_eq(atomic_load(&r->vm->requests), VM_REQ_RESET);
    dev_reset(d);
    ck_assert_uint_eq(rig_read(r, command, 1), 0x10);
    rig_free(r);
}
END_TEST

START_TEST(pc_control_powers_off)
{
    struct rig *r = rig_new(1);
    struct device *d = rig_device(r, &pc_control_class);

    rig_place(r, d, AT);
    rig_start(r);
    const uint64_t pm1 = AT + 5; /* the second block follows the first */
    rig_write(r, pm1, 0x1c01, 2);
    ck_assert_uint_eq(rig_read(r, pm1, 2), 0x1c01);
    ck_assert_uint_eq(atomic_load(&r->vm->requests), 0);
    rig_write(r, pm1, 0x3c01, 2);
    ck_assert_uint_eq(atomic_load(&r->vm->requests), VM_REQ_POWEROFF);
    ck_assert_uint_eq(rig_read(r, pm1, 2), 0x1c01);
    atomic_store(&r->vm->requests, 0);
    rig_write(r, pm1 + 2, 0x14, 1);
    ck_assert_uint_eq(rig_read(r, pm1 + 3, 1), 0);
    ck_assert_uint_eq(atomic_load(&r->vm->requests), 0);
    rig_write(r, pm1 + 2, 0x34, 1);
    ck_assert_uint_eq(atomic_load(&r->vm->requests), VM_REQ_POWEROFF);
    rig_free(r);
}
END_TEST

/* --- plic --- */

enum { P_PENDING = 0x1000, P_ENABLE = 0x2000, P_CONTEXT = 0x200000 };

START_TEST(plic_claims_by_priority_and_completes)
{
    struct rig *r = rig_new(2);
    struct device *d = rig_device(r, &plic_class);
    struct irq_line five, ten;

    rig_place(r, d, AT);
    five = plic_input(d, 5);
    ten = plic_input(d, 10);
    wr32(r, AT + 5 * 4, 0xffffffff);
    ck_assert_uint_eq(rd32(r, AT + 5 * 4), 7);
    wr32(r, AT + 5 * 4, 1);
    wr32(r, AT + 10 * 4, 2);
    wr32(r, AT, 3); /* source 0 has no priority */
    ck_assert_uint_eq(rd32(r, AT), 0);
    wr32(r, AT + P_ENABLE + 0x80 * 3, 1 << 5 | 1 << 10 | 1);
    ck_assert_uint_eq(rd32(r, AT + P_ENABLE + 0x80 * 3), 1 << 5 | 1 << 10);
    irq_set(&five, true);
    irq_set(&ten, true);
    ck_assert_uint_eq(rd32(r, AT + P_PENDING), 1 << 5 | 1 << 10);
    ck_assert(input(r, 1, RISCV_IRQ_SEI) && !input(r, 1, RISCV_IRQ_MEI) &&
              !input(r, 0, RISCV_IRQ_SEI));
    ck_assert_uint_eq(rd32(r, AT + P_CONTEXT + 3 * 0x1000 + 4), 10);
    ck_assert_uint_eq(rd32(r, AT + P_CONTEXT + 3 * 0x1000 + 4), 5);
    ck_assert_uint_eq(rd32(r, AT + P_CONTEXT + 3 * 0x1000 + 4), 0);
    ck_assert(!input(r, 1, RISCV_IRQ_SEI));
    rig_state_round_trip(d);
    wr32(r, AT + P_CONTEXT + 3 * 0x1000 + 4, 10); /* still high: again */
    ck_assert(input(r, 1, RISCV_IRQ_SEI));
    irq_set(&ten, false); /* withdrawn */
    ck_assert(!input(r, 1, RISCV_IRQ_SEI));
    irq_set(&five, false);
    wr32(r, AT + P_CONTEXT + 3 * 0x1000 + 4, 5);
    ck_assert_uint_eq(rd32(r, AT + P_PENDING), 0);
    rig_free(r);
}
END_TEST

START_TEST(plic_threshold_masks_and_foreign_completion_is_ignored)
{
    struct rig *r = rig_new(1);
    struct device *d = rig_device(r, &plic_class);
    struct irq_line last;

    rig_place(r, d, AT);
    last = plic_input(d, PLIC_SOURCES);
    wr32(r, AT + PLIC_SOURCES * 4, 3);
    wr32(r, AT + P_ENABLE + 12, 0xffffffff);
    ck_assert_uint_eq(rd32(r, AT + P_ENABLE + 12), 1);
    wr32(r, AT + P_CONTEXT, 3);
    irq_set(&last, true);
    ck_assert(!input(r, 0, RISCV_IRQ_MEI));
    wr32(r, AT + P_CONTEXT, 2);
    ck_assert(input(r, 0, RISCV_IRQ_MEI));
    ck_assert_uint_eq(rd32(r, AT + P_CONTEXT + 4), PLIC_SOURCES);
    wr32(r, AT + P_CONTEXT + 4, 7);
    wr32(r, AT + P_CONTEXT + 4, 0xfffffff0);
    wr32(r, AT + P_CONTEXT + 0x1004, PLIC_SOURCES); /* another context */
    ck_assert(!input(r, 0, RISCV_IRQ_MEI));
    wr32(r, AT + P_CONTEXT + 4, PLIC_SOURCES);
    ck_assert(input(r, 0, RISCV_IRQ_MEI));
    ck_assert_uint_eq(rd32(r, AT + P_CONTEXT + 0x5004), 0); /* no such hart */
    rig_free(r);
}
END_TEST

/* --- vmgenid --- */

START_TEST(vmgenid_changes_and_tells_until_it_is_read)
{
    struct rig *r = rig_new(1);
    struct device *d = rig_device(r, &vmgenid_class);
    struct rig_line line = { 0 };
    uint32_t was[4], same = 0;

    rig_place(r, d, AT);
    d->irq[0] = rig_line(&line);
    rig_start(r);
    ck_assert(!line.level);
    for (unsigned i = 0; i < 4; i++) {
        was[i] = rd32(r, AT + 4 * i);
    }
    ck_assert(was[0] | was[1] | was[2] | was[3]);
    wr32(r, AT, 0x1234); /* it is for reading */
    ck_assert_uint_eq(rd32(r, AT), was[0]);
    dev_reset(d);
    ck_assert_uint_eq(rd32(r, AT + 12), was[3]);
    vmgenid_renew(d);
    ck_assert(!line.level); /* as it was saved, until it runs */
    d->cls->resumed(d);
    ck_assert(line.level);
    d->cls->resumed(d);
    for (unsigned i = 0; i < 4; i++) {
        same += rd32(r, AT + 4 * i) == was[i];
    }
    ck_assert(!line.level);
    ck_assert_uint_lt(same, 4);
    rig_free(r);
}
END_TEST

/* --- goldfish-rtc --- */

static uint64_t rtc_time(struct rig *r)
{
    uint64_t low = rd32(r, AT);

    return (uint64_t)rd32(r, AT + 4) << 32 | low;
}

START_TEST(rtc_tells_and_sets_time_and_raises_its_alarm)
{
    struct rig *r = rig_new(1);
    struct device *d = rig_device(r, &goldfish_rtc_class);
    struct rig_line line = { 0 };
    const uint64_t year = 31556952ull * 1000000000;
    uint64_t at;

    rig_place(r, d, AT);
    d->irq[0] = rig_line(&line);
    rig_start(r);
    ck_assert_uint_gt(rtc_time(r), 50 * year); /* after 2020 */
    wr32(r, AT + 4, 0x10);
    wr32(r, AT, 0);
    ck_assert_uint_ge(rtc_time(r), 0x1000000000ull);
    ck_assert_uint_lt(rtc_time(r), 0x1000000000ull + year);
    at = rtc_time(r) + 1000000;
    wr32(r, AT + 0x10, 1);
    wr32(r, AT + 0xc, at >> 32);
    wr32(r, AT + 0x8, (uint32_t)at);
    ck_assert_uint_eq((uint64_t)rd32(r, AT + 0xc) << 32 | rd32(r, AT + 8), at);
    rig_until(r, line_up, &line);
    ck_assert_uint_ge(rtc_time(r), at);
    ck_assert_uint_eq(rd32(r, AT + 0x18), 0);
    wr32(r, AT + 0x1c, 0);
    ck_assert(!line.level);
    wr32(r, AT + 0xc, UINT32_MAX);
    wr32(r, AT + 0x8, 0);
    ck_assert_uint_eq(rd32(r, AT + 0x18), 1);
    rig_state_round_trip(d);
    wr32(r, AT + 0x14, 0);
    ck_assert_uint_eq(rd32(r, AT + 0x18), 0);
    ck_assert(!line.level);
    rig_free(r);
}
END_TEST

/* --- syscon --- */

struct stop {
    enum vm_state state;
    char reason[64];
};

static void on_state(void *arg, enum vm_state state, const char *reason)
{
    struct stop *s = arg;

    s->state = state;
    snprintf(s->reason, sizeof(s->reason), "%s", reason);
}

START_TEST(syscon_resets_and_powers_off)
{
    static const struct {
        uint32_t value;
        const char *reason;
        enum vm_state state;
    } cases[] = {
        { 0x7777, "guest-reset", VM_RUNNING },
        { 0x5555, "guest-poweroff", VM_STOPPED },
        { 0x73333, "guest-fail", VM_STOPPED },
    };

    for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
        struct rig *r = rig_new(1);
        struct device *d = rig_device(r, &syscon_class);
        struct stop s = { .state = VM_PAUSED };

        rig_place(r, d, AT);
        rig_start(r);
        r->vm->on_state = on_state;
        r->vm->on_state_arg = &s;
        wr32(r, AT, 0x1234);
        wr32(r, AT + 8, 0x5555);
        rig_turn(r);
        ck_assert_int_eq(s.state, VM_PAUSED); /* nothing was heard */
        wr32(r, AT, cases[i].value);
        rig_turn(r);
        ck_assert_int_eq(s.state, cases[i].state);
        ck_assert_str_eq(s.reason, cases[i].reason);
        rig_free(r);
    }
}
END_TEST

/* --- fw-cfg --- */

static struct device *fw_cfg_new(struct rig *r)
{
    struct device *d = rig_device(r, &fw_cfg_class);

    rig_place(r, d, AT);
    fw_cfg_set_u16(d, FW_CFG_NB_CPUS, 3);
    ck_assert_int_eq(fw_cfg_add_file(d, "opt/b", "bbb", 3, NULL), 0);
    ck_assert_int_eq(fw_cfg_add_file(d, "etc/a", "aa", 2, NULL), 0);
    ck_assert_int_lt(fw_cfg_add_file(d, "etc/a", "aa", 2, NULL), 0);
    return d;
}

static void fw_cfg_select(struct rig *r, uint16_t key)
{
    rig_write(r, AT + 8, htobe16(key), 2);
}

START_TEST(fw_cfg_reads_items_and_directory_by_port)
{
    struct rig *r = rig_new(1);
    char name[56];

    fw_cfg_new(r);
    fw_cfg_select(r, FW_CFG_SIGNATURE);
    ck_assert_uint_eq(rig_read(r, AT, 1), 'Q');
    ck_assert_uint_eq(rig_read(r, AT, 2), 'M' << 8 | 'E');
    fw_cfg_select(r, FW_CFG_ID);
    ck_assert_uint_eq(rd32(r, AT), 3);
    ck_assert_uint_eq(rd32(r, AT), 0); /* behind the end */
    fw_cfg_select(r, FW_CFG_NB_CPUS);
    ck_assert_uint_eq(rig_read(r, AT, 2), 3);
    fw_cfg_select(r, FW_CFG_FILE_DIR);
    ck_assert_uint_eq(be32toh(rd32(r, AT)), 2);
    ck_assert_uint_eq(be32toh(rd32(r, AT)), 2);
    ck_assert_uint_eq(be16toh((uint16_t)rig_read(r, AT, 2)), FW_CFG_FILE_FIRST);
    rig_read(r, AT, 2);
    for (unsigned i = 0; i < sizeof(name); i++) {
        name[i] = (char)rig_read(r, AT, 1);
    }
    ck_assert_str_eq(name, "etc/a");
    fw_cfg_select(r, 0xffff);
    ck_assert_uint_eq(rd32(r, AT), 0);
    rig_free(r);
}
END_TEST

static void fw_cfg_dma(struct rig *r, uint32_t control, uint32_t length, uint64_t address)
{
    uint8_t *op = rig_ram(r, RIG_RAM);

    *(uint32_t *)(void *)op = htobe32(control);
    *(uint32_t *)(void *)(op + 4) = htobe32(length);
    *(uint64_t *)(void *)(op + 8) = htobe64(address);
    wr32(r, AT + 16, 0);
    wr32(r, AT + 20, htobe32((uint32_t)RIG_RAM));
}

START_TEST(fw_cfg_dma_selects_reads_skips_and_refuses)
{
    struct rig *r = rig_new(1);
    struct device *d = fw_cfg_new(r);
    uint32_t *control = rig_ram(r, RIG_RAM);
    uint8_t *to = rig_ram(r, RIG_RAM + 64);

    ck_assert_uint_eq(rig_read(r, AT + 16, 8), htobe64(0x51454d5520434647ull));
    memset(to, 0xee, 8);
    fw_cfg_dma(r, (FW_CFG_FILE_FIRST + 1) << 16 | 8 | 2, 5, RIG_RAM + 64);
    ck_assert_uint_eq(*control, 0);
    ck_assert_int_eq(memcmp(to, "bbb\0\0\xee", 6), 0);
    fw_cfg_dma(r, FW_CFG_SIGNATURE << 16 | 8 | 4, 2, 0);
    ck_assert_uint_eq(*control, 0);
    ck_assert_uint_eq(rig_read(r, AT, 1), 'M');
    fw_cfg_dma(r, 2, 4096, RIG_RAM + RIG_RAM_SIZE - 16); /* leaves RAM */
    ck_assert_uint_eq(be32toh(*control), 1);
    fw_cfg_dma(r, 16, 1, RIG_RAM + 64);
    ck_assert_uint_eq(be32toh(*control), 1);
    fw_cfg_dma(r, 2, UINT32_MAX, 0x1000); /* no RAM there */
    ck_assert_uint_eq(be32toh(*control), 1);
    rig_write(r, AT + 16, htobe64(0xffffffffffffff00ull), 8); /* a descriptor that is nowhere */
    rig_state_round_trip(d);
    rig_free(r);
}
END_TEST

static Suite *suite_registers(void)
{
    Suite *s = suite_create("device registers");
    TCase *t = tcase_create("devices");

    tcase_add_test(t, uart_has_reset_values_and_divisor_latch);
    tcase_add_test(t, uart_thri_rises_on_enable_and_clears_on_iir_read);
    tcase_add_test(t, uart_holds_bytes_back_while_the_back_end_is_full);
    tcase_add_test(t, uart_receives_up_to_its_fifo_and_asks_for_more);
    tcase_add_test(t, uart_character_timeout_interrupts_below_the_trigger);
    tcase_add_test(t, uart_loops_back_and_mirrors_modem_lines);
    tcase_add_test(t, aclint_drives_software_and_timer_interrupts);
    tcase_add_test(t, mtime_written_is_the_time_of_every_hart);
    tcase_add_test(t, ioapic_sends_edges_that_are_not_masked);
    tcase_add_test(t, ioapic_levels_ask_until_they_are_served);
    tcase_add_test(t, pc_control_answers_as_a_keyboard_controller_without_keyboard);
    tcase_add_test(t, pc_control_powers_off);
    tcase_add_test(t, plic_claims_by_priority_and_completes);
    tcase_add_test(t, plic_threshold_masks_and_foreign_completion_is_ignored);
    tcase_add_test(t, vmgenid_changes_and_tells_until_it_is_read);
    tcase_add_test(t, rtc_tells_and_sets_time_and_raises_its_alarm);
    tcase_add_test(t, syscon_resets_and_powers_off);
    tcase_add_test(t, fw_cfg_reads_items_and_directory_by_port);
    tcase_add_test(t, fw_cfg_dma_selects_reads_skips_and_refuses);
    suite_add_tcase(s, t);
    return s;
}

int main(int argc, char **argv)
{
    return test_main(argc, argv, suite_registers, NULL);
}
