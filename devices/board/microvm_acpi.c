/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ACPI tables of the microvm board (ACPI 6.4): hardware-reduced, so that a kernel looks for no PIC, PIT, PM timer or fixed button. The DSDT names the serial port and
 * the virtio-mmio devices, the MADT processors and I/O APIC; there is a register to power off by and one to reset by. Main thread.
 */
#include "devices/board/microvm.h"

#include "engine/arch/x86/cpu.h"
#include "engine/base/buf.h"
#include "engine/core/vm.h"

#include <stdio.h>
#include <string.h>

static void add(struct buf *b, uint64_t v, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        buf_add_char(b, (char)(v >> 8 * i));
    }
}

static void put(struct buf *b, size_t at, uint64_t v, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        b->data[at + i] = (char)(v >> 8 * i);
    }
}

static void set_sum(struct buf *b, size_t from, size_t n, size_t at)
{
    uint8_t sum = 0;

    b->data[at] = 0;
    for (size_t i = 0; i < n; i++) {
        sum = (uint8_t)(sum + (uint8_t)b->data[from + i]);
    }
    b->data[at] = (char)(uint8_t)-sum;
}

/* §5.2.6: the header of a table that begins where the buffer ends; its place. */
static size_t begin(struct buf *b, const char *signature, unsigned revision)
{
    while (b->len % 16) {
        buf_add_char(b, 0);
    }
    size_t at = b->len;
    buf_add(b, signature, 4);
    add(b, 0, 4); /* length */
    add(b, revision, 2);
    buf_add(b, "VMD   MICROVM ", 14);
    add(b, 1, 4);
    buf_add(b, "VMD ", 4);
    add(b, 1, 4);
    return at;
}

static void end(struct buf *b, size_t at)
{
    put(b, at + 4, b->len - at, 4);
    set_sum(b, at, b->len - at, at + 9);
}

/* --- AML (§20.2)
 * --------------------------------------------------------------------------------- */

enum {
    AML_NAME = 0x08,
    AML_BYTE = 0x0a,
    AML_DWORD = 0x0c,
    AML_STRING = 0x0d,
    AML_SCOPE = 0x10,
    AML_BUFFER = 0x11,
    AML_PACKAGE = 0x12,
    AML_EXT = 0x5b,
    AML_DEVICE = 0x82
};

/* What is in `body`, behind its length (PkgLength, §20.2.4). */
static void add_package(struct buf *b, const struct buf *body)
{
    size_t n = body->len;

    if (n + 1 < 0x40) {
        add(b, n + 1, 1);
    } else if (n + 2 < 0x1000) {
        n += 2;
        add(b, 0x40 | (n & 15), 1);
        add(b, n >> 4, 1);
    } else {
        n += 3;
        add(b, 0x80 | (n & 15), 1);
        add(b, n >> 4, 2);
    }
    buf_add(b, body->data, body->len);
}

static void add_name(struct buf *b, const char *name)
{
    add(b, AML_NAME, 1);
    buf_add(b, name, 4);
}

static void add_resources(struct buf *b, struct buf *resources)
{
    AUTO_BUF body = BUF_INIT;

    buf_add(resources, "\x79\0", 2); /* the end, without a sum */
    add_name(b, "_CRS");
    add(b, AML_BUFFER, 1);
    add(&body, AML_BYTE, 1);
    add(&body, resources->len, 1);
    buf_add(&body, resources->data, resources->len);
    add_package(b, &body);
}

static void add_device(struct buf *b, const char *name, const struct buf *inside)
{
    AUTO_BUF body = BUF_INIT;

    buf_add(&body, name, 4);
    buf_add(&body, inside->data, inside->len);
    add(b, AML_EXT, 1);
    add(b, AML_DEVICE, 1);
    add_package(b, &body);
}

static void add_serial(struct buf *b)
{
    AUTO_BUF d = BUF_INIT;
    AUTO_BUF r = BUF_INIT;

    add_name(&d, "_HID");
    add(&d, AML_DWORD, 1);
    add(&d, 0x0105d041, 4); /* PNP0501 */
    add_name(&d, "_UID");
    add(&d, 1, 1);
    add(&r, 0x47, 1); /* ports */
    add(&r, 1, 1);
    add(&r, MICROVM_COM1, 2);
    add(&r, MICROVM_COM1, 2);
    add(&r, 1, 1);
    add(&r, 8, 1);
    add(&r, 0x22, 1); /* interrupt */
    add(&r, 1u << MICROVM_COM1_PIN, 2);
    add_resources(&d, &r);
    add_device(b, "COM1", &d);
}

static void add_slot(struct buf *b, unsigned slot)
{
    AUTO_BUF d = BUF_INIT;
    AUTO_BUF r = BUF_INIT;
    char name[16];

    add_name(&d, "_HID");
    add(&d, AML_STRING, 1);
    buf_add(&d, "LNRO0005", 9);
    add_name(&d, "_UID");
    add(&d, AML_BYTE, 1);
    add(&d, slot, 1);
    add_name(&d, "_CCA");
    add(&d, 1, 1);
    add(&r, 0x86, 1); /* memory, 32 bits */
    add(&r, 9, 2);
    add(&r, 1, 1);
    add(&r, MICROVM_VIRTIO + (uint64_t)slot * MICROVM_VIRTIO_STEP, 4);
    add(&r, MICROVM_VIRTIO_STEP, 4);
    add(&r, 0x89, 1); /* interrupt: consumer, level, active high, shared */
    add(&r, 6, 2);
    add(&r, 9, 1);
    add(&r, 1, 1);
    add(&r, MICROVM_SLOT_PIN + slot % 8, 4);
    add_resources(&d, &r);
    snprintf(name, sizeof(name), "VR%02u", slot % 100);
    add_device(b, name, &d);
}

static size_t add_dsdt(const struct board *b, struct buf *t)
{
    size_t at = begin(t, "DSDT", 2);
    AUTO_BUF bus = BUF_INIT;
    AUTO_BUF sleep = BUF_INIT;

    buf_add(&bus, "\\_SB_", 5);
    add_serial(&bus);
    for (unsigned i = 0; i < b->n_slots; i++) {
        add_slot(&bus, i);
    }
    add_slot(&bus, MICROVM_SLOTS - 1); /* the button's */
    add(t, AML_SCOPE, 1);
    add_package(t, &bus);
    add_name(t, "_S5_");
    add(&sleep, 4, 1);
    add(&sleep, AML_BYTE, 1);
    add(&sleep, 5, 1);
    add(&sleep, 0, 3);
    add(t, AML_PACKAGE, 1);
    add_package(t, &sleep);
    end(t, at);
    return at;
}

/* --- tables
 * ---------------------------------------------------------------------------------- */

static void put_port(struct buf *t, size_t at, unsigned port)
{
    put(t, at, 1, 1); /* §5.2.3.2: a port of 8 bits */
    put(t, at + 1, 8, 1);
    put(t, at + 3, 1, 1);
    put(t, at + 4, port, 8);
}

static size_t add_fadt(struct buf *t, uint64_t dsdt)
{
    enum {
        WBINVD = 1,
        NO_POWER_BUTTON = 1 << 4,
        NO_SLEEP_BUTTON = 1 << 5,
        RESET = 1 << 10,
        REDUCED = 1 << 20
    };
    enum { NO_VGA = 1 << 2, NO_RTC = 1 << 5 };
    size_t at = begin(t, "FACP", 6);

    while (t->len < at + 276) {
        add(t, 0, 1);
    }
    put(t, at + 40, dsdt, 4);
    put(t, at + 109, NO_VGA | NO_RTC, 2);
    put(t, at + 112, WBINVD | NO_POWER_BUTTON | NO_SLEEP_BUTTON | RESET | REDUCED, 4);
    put_port(t, at + 116, MICROVM_KBC + 4);
    put(t, at + 128, 0xfe, 1);
    put(t, at + 131, 4, 1);
    put(t, at + 140, dsdt, 8);
    put_port(t, at + 244, MICROVM_SLEEP);
    put_port(t, at + 256, MICROVM_SLEEP + 1);
    end(t, at);
    return at;
}

static size_t add_madt(const struct board *b, struct buf *t)
{
    size_t at = begin(t, "APIC", 5);

    add(t, X86_APIC_BASE, 4);
    add(t, 0, 4); /* no PIC besides */
    for (unsigned i = 0; i < b->cfg.cpus; i++) {
        const uint8_t processor[8] = { 0, 8, (uint8_t)i, (uint8_t)i, 1 };

        buf_add(t, processor, sizeof(processor));
    }
    add(t, 1 | 12 << 8, 2);
    add(t, b->cfg.cpus & 255, 2);
    add(t, MICROVM_IOAPIC, 4);
    add(t, 0, 4);
    buf_add(t, "\4\6\xff\0\0\1", 6); /* NMI at every local APIC's second input */
    end(t, at);
    return at;
}

/* §5.2.5.3 */
static void fill_pointer(struct buf *t, uint64_t xsdt)
{
    memcpy(t->data, "RSD PTR ", 8);
    memcpy(t->data + 9, "VMD   ", 6);
    put(t, 15, 2, 1);
    put(t, 20, 36, 4);
    put(t, 24, xsdt, 8);
    set_sum(t, 0, 20, 8);
    set_sum(t, 0, 36, 32);
}

void microvm_acpi(const struct board *b, struct buf *t)
{
    size_t dsdt, fadt, madt, xsdt;

    for (unsigned i = 0; i < 48; i++) {
        add(t, 0, 1); /* the pointer's place */
    }
    dsdt = add_dsdt(b, t);
    fadt = add_fadt(t, MICROVM_ACPI + dsdt);
    madt = add_madt(b, t);
    xsdt = begin(t, "XSDT", 1);
    add(t, MICROVM_ACPI + fadt, 8);
    add(t, MICROVM_ACPI + madt, 8);
    end(t, xsdt);
    fill_pointer(t, MICROVM_ACPI + xsdt);
}
