/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ACPI tables of the q35 board (ACPI 6.4; PCI Firmware 3.3 §4; IA-PC HPET 1.0a §3.2.4): RSDT and XSDT, FADT, FACS, DSDT, MADT, MCFG, HPET; and the commands by which firmware puts them into
 * memory (QEMU firmware configuration specification, table loader). Whoever makes them; owns nothing.
 */
#include "devices/board/q35.h"

#include "devices/board/aml.h"
#include "devices/bus/q35_mch.h"
#include "engine/arch/x86/cpu.h"
#include "engine/core/vm.h"

#include <stdio.h>
#include <string.h>

#define TABLES "etc/acpi/tables"
#define RSDP "etc/acpi/rsdp"
#define NAME "Q35     "
#define ECAM_USUAL 0xb0000000ull
#define HPET_ID 0x8086a201u

/* --- commands of the table loader
 * ---------------------------------------------------------------------------- */

enum { LOAD_ALLOCATE = 1, LOAD_POINTER = 2, LOAD_SUM = 3 };
enum { ZONE_HIGH = 1, ZONE_LOW = 2 }; /* the latter: where the pointer is looked for */

static size_t command(struct buf *l, unsigned what)
{
    size_t at = l->len;

    aml_add(l, what, 4);
    while (l->len < at + 128) {
        aml_add(l, 0, 4);
    }
    return at + 4;
}

static void put_text(struct buf *l, size_t at, const char *text)
{
    memcpy(l->data + at, text, strlen(text));
}

static void allocate(struct buf *l, const char *file, unsigned align, unsigned zone)
{
    size_t at = command(l, LOAD_ALLOCATE);

    put_text(l, at, file);
    aml_put(l, at + 56, align, 4);
    aml_put(l, at + 60, zone, 1);
}

/* What lies at `offset` of a file, an offset in the tables, becomes an address. */
static void pointer(struct buf *l, const char *file, size_t offset, unsigned size)
{
    size_t at = command(l, LOAD_POINTER);

    put_text(l, at, file);
    put_text(l, at + 56, TABLES);
    aml_put(l, at + 112, offset, 4);
    aml_put(l, at + 116, size, 1);
}

static void sum(struct buf *l, const char *file, size_t offset, size_t start, size_t n)
{
    size_t at = command(l, LOAD_SUM);

    put_text(l, at, file);
    aml_put(l, at + 56, offset, 4);
    aml_put(l, at + 60, start, 4);
    aml_put(l, at + 64, n, 4);
}

/* --- DSDT
 * ------------------------------------------------------------------------------------- */

static void add_isa(struct buf *to, const char *name, const char *id, unsigned uid,
                    struct buf *resources)
{
    AUTO_BUF d = BUF_INIT;

    aml_hid(&d, "_HID", id);
    if (uid) {
        aml_name(&d, "_UID");
        aml_integer(&d, uid);
    }
    aml_crs(&d, resources);
    aml_device(to, name, &d);
}

static void add_lpc(struct buf *to)
{
    static const struct {
        const char *name, *id;
        unsigned uid, port[2], n[2], irq;
    } isa[] = {
        { "RTC_", "PNP0B00", 0, { Q35_RTC, 0 }, { 2, 0 }, Q35_IRQ_RTC },
        { "KBD_", "PNP0303", 0, { Q35_KBC, Q35_KBC + 4 }, { 1, 1 }, Q35_IRQ_KBD },
        { "MOU_", "PNP0F13", 0, { 0, 0 }, { 0, 0 }, Q35_IRQ_MOUSE },
        { "COM1", "PNP0501", 1, { Q35_COM1, 0 }, { 8, 0 }, Q35_IRQ_COM1 },
    };
    AUTO_BUF d = BUF_INIT;

    aml_name(&d, "_ADR");
    aml_integer(&d, Q35_SLOT_CHIPSET << 16);
    for (unsigned i = 0; i < sizeof(isa) / sizeof(isa[0]); i++) {
        AUTO_BUF r = BUF_INIT;

        for (unsigned k = 0; k < 2; k++) {
            if (isa[i].n[k]) {
                aml_res_ports(&r, isa[i].port[k], isa[i].n[k]);
            }
        }
        aml_res_irq(&r, isa[i].irq);
        add_isa(&d, isa[i].name, isa[i].id, isa[i].uid, &r);
    }
    aml_device(to, "LPC_", &d);
}

/* Pins to interrupts of the I/O APIC: as the board has wired them. */
static void add_routes(struct buf *to)
{
    AUTO_BUF all = BUF_INIT;

    for (unsigned slot = 0; slot < 32; slot++) {
        for (unsigned pin = 0; pin < 4; pin++) {
            AUTO_BUF one = BUF_INIT;

            aml_add(&one, AML_DWORD, 1);
            aml_add(&one, slot << 16 | 0xffff, 4);
            aml_integer(&one, pin);
            aml_integer(&one, 0);
            aml_integer(&one, slot < Q35_FIRST_DIRECT ? 20 + (slot + pin) % 4 : 16 + pin);
            aml_list(&all, 4, &one);
        }
    }
    aml_name(to, "_PRT");
    aml_list(to, 128, &all);
}

/* What the system asks for of PCI Express is its own to do: hot-plug, power events, errors, capabilities. */
static void add_osc(struct buf *to)
{
    static const uint8_t code[] = {
        0x8a, 0x6b, 0x0a, 8,    'C', 'D',  'W',  '3', /* CreateDWordField (Arg3, 8, CDW3) */
        0x7b, 'C',  'D',  'W',  '3', 0x0a, 0x1d, 'C',
        'D',  'W',  '3',  0xa4, 0x6b /* And, Return (Arg3) */
    };
    AUTO_BUF m = BUF_INIT;

    buf_add(&m, code, sizeof(code));
    aml_method(to, "_OSC", 4, &m);
}

static void add_windows(const struct board *b, struct buf *to)
{
    uint64_t size, ecam = q35_mch_ecam(b->mch, &size), low = q35_low_ram(b);
    AUTO_BUF r = BUF_INIT;

    size = ecam ? size : 256ull << 20;
    ecam = ecam ? ecam : ECAM_USUAL;
    aml_res_window(&r, 2, 2, 0, 255);
    aml_res_ports(&r, Q35_PCI, 8);
    aml_res_window(&r, 2, 1, 0, Q35_PCI - 1);
    aml_res_window(&r, 2, 1, Q35_PCI + 8, 0xffff);
    aml_res_window(&r, 4, 0, 0xa0000, 0xbffff);
    /* An empty one would be an error; the tables keep their size, so it becomes a page of config space, which nobody gets. */
    aml_res_window(&r, 4, 0, low < ecam ? low : ecam, low < ecam ? ecam - 1 : ecam + 0xfff);
    aml_res_window(&r, 4, 0, ecam + size, Q35_IOAPIC - 1);
    aml_res_window(&r, 8, 0, b->mmio64, q35_mmio64_end(b->mmio64) - 1);
    aml_crs(to, &r);
}

static void add_root(const struct board *b, struct buf *to)
{
    AUTO_BUF d = BUF_INIT;

    aml_hid(&d, "_HID", "PNP0A08");
    aml_hid(&d, "_CID", "PNP0A03");
    aml_name(&d, "_UID");
    aml_integer(&d, 0);
    aml_name(&d, "_SEG");
    aml_integer(&d, 0);
    aml_name(&d, "_BBN");
    aml_integer(&d, 0);
    add_windows(b, &d);
    add_routes(&d);
    add_osc(&d);
    add_lpc(&d);
    aml_device(to, "PCI0", &d);
}

/* What is where without being a device of PCI: config space, and what the chip set has of its own. */
static void add_board(const struct board *b, struct buf *to)
{
    uint64_t size, ecam = q35_mch_ecam(b->mch, &size);
    AUTO_BUF r = BUF_INIT;

    aml_res_memory(&r, ecam ? ecam : ECAM_USUAL, ecam ? size : 256ull << 20);
    aml_res_memory(&r, 0xfed1c000, 0x4000);
    aml_res_memory(&r, Q35_GENID, 0x1000);
    aml_res_ports(&r, Q35_PM, 0x80);
    add_isa(to, "MBRD", "PNP0C02", 1, &r);
}

static void add_others(const struct board *b, struct buf *to)
{
    AUTO_BUF hpet = BUF_INIT;
    AUTO_BUF fw_cfg = BUF_INIT;
    AUTO_BUF genid = BUF_INIT;
    AUTO_BUF address = BUF_INIT;

    add_board(b, to);
    aml_res_memory(&hpet, Q35_HPET, 0x400);
    add_isa(to, "HPET", "PNP0103", 0, &hpet);
    aml_res_ports(&fw_cfg, Q35_FW_CFG, 12);
    add_isa(to, "FWCF", "QEMU0002", 0, &fw_cfg);
    aml_hid(&genid, "_HID", "VMDA0001");
    aml_hid(&genid, "_CID", "VM_Gen_Counter");
    aml_name(&genid, "_DDN");
    aml_string(&genid, "VM_Gen_Counter");
    aml_integer(&address, Q35_GENID);
    aml_integer(&address, 0);
    aml_name(&genid, "ADDR");
    aml_list(&genid, 2, &address);
    aml_device(to, "VGEN", &genid);
}

static void add_processors(const struct board *b, struct buf *to)
{
    for (unsigned i = 0; i < b->p.cfg.cpus; i++) {
        AUTO_BUF d = BUF_INIT;
        char name[8];

        snprintf(name, sizeof(name), "C%03X", i & 0xfff);
        aml_hid(&d, "_HID", "ACPI0007");
        aml_name(&d, "_UID");
        aml_integer(&d, i);
        aml_device(to, name, &d);
    }
}

static size_t add_dsdt(const struct board *b, struct buf *t)
{
    static const uint8_t notify[] = { 0x86, 0x5c, 0x2e, '_', 'S',  'B', '_',
                                      'V',  'G',  'E',  'N', 0x0a, 0x80 };
    size_t at = aml_begin(t, "DSDT", 2, NAME);
    AUTO_BUF system = BUF_INIT;
    AUTO_BUF event = BUF_INIT;
    AUTO_BUF events = BUF_INIT;
    AUTO_BUF off = BUF_INIT;
    AUTO_BUF ram = BUF_INIT;

    add_root(b, &system);
    add_others(b, &system);
    add_processors(b, &system);
    aml_scope(t, "\\_SB_", &system);
    buf_add(&event, notify, sizeof(notify));
    aml_method(&events, "_E05", 0, &event);
    aml_scope(t, "\\_GPE", &events);
    if (q35_sleeps(b)) {
        aml_integer(&ram, 1); /* sleep types of both control registers */
        aml_integer(&ram, 1);
        aml_add(&ram, 0, 2);
        aml_name(t, "_S3_");
        aml_list(t, 4, &ram);
    }
    aml_add(&off, 0, 4);
    aml_name(t, "_S5_");
    aml_list(t, 4, &off);
    aml_end(t, at);
    return at;
}

/* --- tables
 * ---------------------------------------------------------------------------------- */

static void put_port(struct buf *t, size_t at, unsigned port, unsigned bytes, unsigned access)
{
    aml_put(t, at, 1, 1); /* §5.2.3.2 */
    aml_put(t, at + 1, bytes * 8 & 255, 1);
    aml_put(t, at + 3, access, 1);
    aml_put(t, at + 4, port, 8);
}

static void put_power(struct buf *t, size_t at)
{
    aml_put(t, at + 46, Q35_IRQ_SCI, 2);
    aml_put(t, at + 48, Q35_APM, 4);
    aml_put(t, at + 52, 2, 1); /* what switches ACPI on, and off */
    aml_put(t, at + 53, 3, 1);
    aml_put(t, at + 56, Q35_PM, 4);
    aml_put(t, at + 64, Q35_PM + 4, 4);
    aml_put(t, at + 76, Q35_PM + 8, 4);
    aml_put(t, at + 80, Q35_PM + 0x20, 4);
    aml_put(t, at + 88, 4, 1);
    aml_put(t, at + 89, 2, 1);
    aml_put(t, at + 91, 4, 1);
    aml_put(t, at + 92, 16, 1);
    put_port(t, at + 148, Q35_PM, 4, 0);
    put_port(t, at + 172, Q35_PM + 4, 2, 0);
    put_port(t, at + 208, Q35_PM + 8, 4, 0);
    put_port(t, at + 220, Q35_PM + 0x20, 16, 0);
}

static size_t add_fadt(struct buf *t, size_t dsdt, size_t facs, struct buf *loader)
{
    enum { WBINVD = 1, C1 = 4, NO_SLEEP_BUTTON = 1 << 5, RESET = 1 << 10 };
    enum { LEGACY_DEVICES = 1, HAS_8042 = 2 };
    size_t at = aml_begin(t, "FACP", 6, NAME);

    while (t->len < at + 276) {
        aml_add(t, 0, 1);
    }
    aml_put(t, at + 36, facs, 4);
    aml_put(t, at + 40, dsdt, 4);
    put_power(t, at);
    aml_put(t, at + 96, 0xfff, 2); /* no deeper sleep of processors */
    aml_put(t, at + 98, 0xfff, 2);
    aml_put(t, at + 108, 0x32, 1); /* the century's place in CMOS */
    aml_put(t, at + 109, LEGACY_DEVICES | HAS_8042, 2);
    aml_put(t, at + 112, WBINVD | C1 | NO_SLEEP_BUTTON | RESET, 4);
    put_port(t, at + 116, Q35_PCI + 1, 1, 1);
    aml_put(t, at + 128, 6, 1);
    aml_put(t, at + 131, 4, 1);
    aml_put(t, at + 140, dsdt, 8);
    aml_end(t, at);
    pointer(loader, TABLES, at + 36, 4);
    pointer(loader, TABLES, at + 40, 4);
    pointer(loader, TABLES, at + 140, 8);
    sum(loader, TABLES, at + 9, at, t->len - at);
    return at;
}

static void add_processor_apics(const struct board *b, struct buf *t)
{
    for (unsigned i = 0; i < b->p.cfg.cpus; i++) {
        if (i < 255) {
            const uint8_t local[8] = { 0, 8, (uint8_t)i, (uint8_t)i, 1 };

            buf_add(t, local, sizeof(local));
        } else {
            aml_add(t, 9 | 16 << 8, 4);
            aml_add(t, i, 4);
            aml_add(t, 1, 4);
            aml_add(t, i, 4);
        }
    }
}

static size_t add_madt(const struct board *b, struct buf *t)
{
    static const uint8_t by_level[] = { 5, Q35_IRQ_SCI, 10, 11 };
    size_t at = aml_begin(t, "APIC", 5, NAME);

    aml_add(t, X86_APIC_BASE, 4);
    aml_add(t, 1, 4); /* a PIC besides */
    add_processor_apics(b, t);
    aml_add(t, 1 | 12 << 8, 4);
    aml_add(t, Q35_IOAPIC, 4);
    aml_add(t, 0, 4);
    buf_add(t, "\2\12\0\0\2\0\0\0\0\0", 10); /* the timer is at pin 2 */
    for (unsigned i = 0; i < sizeof(by_level); i++) {
        const uint8_t wire[10] = { 2, 10, 0, by_level[i], by_level[i], 0, 0, 0, 0x0d, 0 };

        buf_add(t, wire, sizeof(wire));
    }
    buf_add(t, "\4\6\xff\0\0\1", 6); /* NMI at every local APIC's second input */
    aml_end(t, at);
    return at;
}

static size_t add_mcfg(const struct board *b, struct buf *t)
{
    uint64_t size, ecam = q35_mch_ecam(b->mch, &size);
    size_t at = aml_begin(t, "MCFG", 1, NAME);

    aml_add(t, 0, 8);
    aml_add(t, ecam ? ecam : ECAM_USUAL, 8);
    aml_add(t, 0, 2);
    aml_add(t, 0, 1);
    aml_add(t, ecam ? (size >> 20) - 1 : 255, 1);
    aml_add(t, 0, 4);
    aml_end(t, at);
    return at;
}

static size_t add_hpet(struct buf *t)
{
    size_t at = aml_begin(t, "HPET", 1, NAME);

    aml_add(t, HPET_ID, 4);
    aml_add(t, 0, 4); /* in memory, of 64 bits */
    aml_add(t, Q35_HPET, 8);
    aml_add(t, 0, 4);
    aml_end(t, at);
    return at;
}

static size_t add_facs(struct buf *t)
{
    while (t->len % 64) {
        aml_add(t, 0, 1);
    }
    size_t at = t->len;
    buf_add(t, "FACS", 4);
    aml_add(t, 64, 4);
    while (t->len < at + 64) {
        aml_add(t, 0, 1);
    }
    aml_put(t, at + 32, 1, 1); /* version */
    return at;
}

/* Of RSDT (pointers of 4 bytes) and XSDT (8). */
static size_t add_list(struct buf *t, const char *signature, unsigned size, const size_t *table,
                       unsigned n, struct buf *loader)
{
    size_t at = aml_begin(t, signature, 1, NAME);

    for (unsigned i = 0; i < n; i++) {
        pointer(loader, TABLES, t->len, size);
        aml_add(t, table[i], size);
    }
    aml_end(t, at);
    sum(loader, TABLES, at + 9, at, t->len - at);
    return at;
}

/* §5.2.5.3 */
static void add_rsdp(struct buf *r, size_t rsdt, size_t xsdt, struct buf *loader)
{
    buf_add(r, "RSD PTR ", 8);
    aml_add(r, 0, 1);
    buf_add(r, "VMD   ", 6);
    aml_add(r, 2, 1);
    aml_add(r, rsdt, 4);
    aml_add(r, 36, 4);
    aml_add(r, xsdt, 8);
    aml_add(r, 0, 4);
    pointer(loader, RSDP, 16, 4);
    pointer(loader, RSDP, 24, 8);
    sum(loader, RSDP, 8, 0, 20);
    sum(loader, RSDP, 32, 0, 36);
}

void q35_acpi(const struct board *b, struct buf *t, struct buf *rsdp, struct buf *loader)
{
    size_t facs, dsdt, table[4];

    allocate(loader, RSDP, 16, ZONE_LOW);
    allocate(loader, TABLES, 64, ZONE_HIGH);
    facs = add_facs(t);
    dsdt = add_dsdt(b, t);
    table[0] = add_fadt(t, dsdt, facs, loader);
    table[1] = add_madt(b, t);
    table[2] = add_mcfg(b, t);
    table[3] = add_hpet(t);
    size_t rsdt = add_list(t, "RSDT", 4, table, 4, loader);
    size_t xsdt = add_list(t, "XSDT", 8, table, 4, loader);
    add_rsdp(rsdp, rsdt, xsdt, loader);
}
