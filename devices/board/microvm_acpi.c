/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ACPI tables of the microvm board (ACPI 6.4): hardware-reduced, so that a kernel looks for no PIC, PIT, PM timer or fixed button. The DSDT names the serial port and
 * the virtio-mmio devices, the MADT processors and I/O APIC; there is a register to power off by and one to reset by. Main thread.
 */
#include "devices/board/aml.h"
#include "devices/board/microvm.h"

#include "engine/arch/x86/cpu.h"
#include "engine/base/buf.h"
#include "engine/core/vm.h"

#include <stdio.h>
#include <string.h>

static void add_serial(struct buf *b)
{
    AUTO_BUF d = BUF_INIT;
    AUTO_BUF r = BUF_INIT;

    aml_name(&d, "_HID");
    aml_add(&d, AML_DWORD, 1);
    aml_add(&d, 0x0105d041, 4); /* PNP0501 */
    aml_name(&d, "_UID");
    aml_add(&d, 1, 1);
    aml_add(&r, 0x47, 1); /* ports */
    aml_add(&r, 1, 1);
    aml_add(&r, MICROVM_COM1, 2);
    aml_add(&r, MICROVM_COM1, 2);
    aml_add(&r, 1, 1);
    aml_add(&r, 8, 1);
    aml_add(&r, 0x22, 1); /* interrupt */
    aml_add(&r, 1u << MICROVM_COM1_PIN, 2);
    aml_crs(&d, &r);
    aml_device(b, "COM1", &d);
}

static void add_slot(struct buf *b, unsigned slot)
{
    AUTO_BUF d = BUF_INIT;
    AUTO_BUF r = BUF_INIT;
    char name[16];

    aml_name(&d, "_HID");
    aml_add(&d, AML_STRING, 1);
    buf_add(&d, "LNRO0005", 9);
    aml_name(&d, "_UID");
    aml_add(&d, AML_BYTE, 1);
    aml_add(&d, slot, 1);
    aml_name(&d, "_CCA");
    aml_add(&d, 1, 1);
    aml_add(&r, 0x86, 1); /* memory, 32 bits */
    aml_add(&r, 9, 2);
    aml_add(&r, 1, 1);
    aml_add(&r, MICROVM_VIRTIO + (uint64_t)slot * MICROVM_VIRTIO_STEP, 4);
    aml_add(&r, MICROVM_VIRTIO_STEP, 4);
    aml_add(&r, 0x89, 1); /* interrupt: consumer, level, active high, shared */
    aml_add(&r, 6, 2);
    aml_add(&r, 9, 1);
    aml_add(&r, 1, 1);
    aml_add(&r, MICROVM_SLOT_PIN + slot % 8, 4);
    aml_crs(&d, &r);
    snprintf(name, sizeof(name), "VR%02u", slot % 100);
    aml_device(b, name, &d);
}

static size_t add_dsdt(const struct board *b, struct buf *t)
{
    size_t at = aml_begin(t, "DSDT", 2, "MICROVM ");
    AUTO_BUF bus = BUF_INIT;
    AUTO_BUF sleep = BUF_INIT;

    buf_add(&bus, "\\_SB_", 5);
    add_serial(&bus);
    for (unsigned i = 0; i < b->n_slots; i++) {
        add_slot(&bus, i);
    }
    add_slot(&bus, MICROVM_SLOTS - 1); /* the button's */
    aml_add(t, AML_SCOPE, 1);
    aml_package(t, &bus);
    aml_name(t, "_S5_");
    aml_add(&sleep, 4, 1);
    aml_add(&sleep, AML_BYTE, 1);
    aml_add(&sleep, 5, 1);
    aml_add(&sleep, 0, 3);
    aml_add(t, AML_PACKAGE, 1);
    aml_package(t, &sleep);
    aml_end(t, at);
    return at;
}

/* --- tables
 * ---------------------------------------------------------------------------------- */

static void put_port(struct buf *t, size_t at, unsigned port)
{
    aml_put(t, at, 1, 1); /* §5.2.3.2: a port of 8 bits */
    aml_put(t, at + 1, 8, 1);
    aml_put(t, at + 3, 1, 1);
    aml_put(t, at + 4, port, 8);
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
    size_t at = aml_begin(t, "FACP", 6, "MICROVM ");

    while (t->len < at + 276) {
        aml_add(t, 0, 1);
    }
    aml_put(t, at + 40, dsdt, 4);
    aml_put(t, at + 109, NO_VGA | NO_RTC, 2);
    aml_put(t, at + 112, WBINVD | NO_POWER_BUTTON | NO_SLEEP_BUTTON | RESET | REDUCED, 4);
    put_port(t, at + 116, MICROVM_KBC + 4);
    aml_put(t, at + 128, 0xfe, 1);
    aml_put(t, at + 131, 4, 1);
    aml_put(t, at + 140, dsdt, 8);
    put_port(t, at + 244, MICROVM_SLEEP);
    put_port(t, at + 256, MICROVM_SLEEP + 1);
    aml_end(t, at);
    return at;
}

static size_t add_madt(const struct board *b, struct buf *t)
{
    size_t at = aml_begin(t, "APIC", 5, "MICROVM ");

    aml_add(t, X86_APIC_BASE, 4);
    aml_add(t, 0, 4); /* no PIC besides */
    for (unsigned i = 0; i < b->p.cfg.cpus; i++) {
        const uint8_t processor[8] = { 0, 8, (uint8_t)i, (uint8_t)i, 1 };

        buf_add(t, processor, sizeof(processor));
    }
    aml_add(t, 1 | 12 << 8, 2);
    aml_add(t, b->p.cfg.cpus & 255, 2);
    aml_add(t, MICROVM_IOAPIC, 4);
    aml_add(t, 0, 4);
    buf_add(t, "\4\6\xff\0\0\1", 6); /* NMI at every local APIC's second input */
    aml_end(t, at);
    return at;
}

/* §5.2.5.3 */
static void fill_pointer(struct buf *t, uint64_t xsdt)
{
    memcpy(t->data, "RSD PTR ", 8);
    memcpy(t->data + 9, "VMD   ", 6);
    aml_put(t, 15, 2, 1);
    aml_put(t, 20, 36, 4);
    aml_put(t, 24, xsdt, 8);
    aml_set_sum(t, 0, 20, 8);
    aml_set_sum(t, 0, 36, 32);
}

void microvm_acpi(const struct board *b, struct buf *t)
{
    size_t dsdt, fadt, madt, xsdt;

    for (unsigned i = 0; i < 48; i++) {
        aml_add(t, 0, 1); /* the pointer's place */
    }
    dsdt = add_dsdt(b, t);
    fadt = add_fadt(t, MICROVM_ACPI + dsdt);
    madt = add_madt(b, t);
    xsdt = aml_begin(t, "XSDT", 1, "MICROVM ");
    aml_add(t, MICROVM_ACPI + fadt, 8);
    aml_add(t, MICROVM_ACPI + madt, 8);
    aml_end(t, xsdt);
    fill_pointer(t, MICROVM_ACPI + xsdt);
}
