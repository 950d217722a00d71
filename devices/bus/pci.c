/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A PCI function: configuration space by masks, capabilities, MSI and MSI-X (pci.h). Entered with
 * the function's device lock, from vCPU threads (ECAM, the MSI-X table) and the main loop.
 */
#include "devices/bus/pci.h"
#include "devices/bus/pci_host.h"
#include "engine/base/log.h"
#include "engine/base/mem.h"
#include "engine/base/str.h"
#include "engine/core/vm.h"

#include <errno.h>
#include <string.h>

enum { MSI_CONTROL = 2, MSI_ADDRESS = 4, MSI_ADDRESS_HIGH = 8, MSI_DATA = 12, MSI_SIZE = 14 };
enum { MSI_ENABLE = 1, MSI_64BIT = 0x80 };
enum { MSIX_CONTROL = 2, MSIX_TABLE = 4, MSIX_PBA = 8, MSIX_SIZE = 12 };
enum { MSIX_ENABLE = 0x8000, MSIX_MASKALL = 0x4000 };
enum { MSIX_ENTRY = 16, MSIX_MASKED = 1, MSIX_PBA_AT = 0x800, MSIX_REGION = 0x1000 };

uint64_t pci_get(const uint8_t *p, unsigned size)
{
    uint64_t v = 0;

    for (unsigned i = 0; i < size; i++) {
        v |= (uint64_t)p[i] << (8 * i);
    }
    return v;
}

void pci_put(uint8_t *p, uint64_t value, unsigned size)
{
    for (unsigned i = 0; i < size; i++) {
        p[i] = (uint8_t)(value >> (8 * i));
    }
}

uint16_t pci_requester(const struct pci_fn *f)
{
    const struct pci_fn *port = f->bus->bridge;
    uint8_t bus = port ? __atomic_load_n(&port->secondary, __ATOMIC_RELAXED) : 0;

    return (uint16_t)(bus << 8 | f->devfn);
}

/* --- making a function
 * ----------------------------------------------------------------------- */

int pci_fn_init(struct pci_fn *f, const struct pci_ident *id, struct err *e)
{
    int rc = pci_host_plug(f, e);

    if (rc != 0) {
        return rc;
    }
    f->cap_end = 0x40;
    pci_put(f->config + PCI_VENDOR, id->vendor, 2);
    pci_put(f->config + PCI_DEVICE, id->device, 2);
    pci_put(f->config + PCI_CLASS, (uint32_t)id->class << 8 | id->revision, 4);
    f->config[PCI_HEADER] = (uint8_t)((id->bridge ? 1 : 0) | (f->multifunction ? 0x80 : 0));
    /* Decoding, bus master, parity and SERR reporting, the wire's mask. */
    pci_put(f->writable + PCI_COMMAND, 0x0547, 2);
    pci_put(f->w1c + PCI_STATUS, 0xf900, 2);
    f->writable[0x0c] = 0xff; /* cache line size: nothing but memory */
    f->writable[PCI_INT_LINE] = 0xff;
    if (!id->bridge) {
        pci_put(f->config + PCI_SUBSYSTEM, id->sub_vendor, 2);
        pci_put(f->config + PCI_SUBSYSTEM + 2, id->sub_device, 2);
    }
    return 0;
}

void pci_bar_set(struct pci_fn *f, unsigned n, unsigned kind, struct mem_region *region)
{
    uint64_t size = kind & PCI_BAR_IO ? 4 : 16, mask;
    uint8_t *config = f->config + PCI_BAR0 + 4 * n;
    unsigned bytes = kind & PCI_BAR_MEM64 ? 8 : 4;

    while (size < mem_region_size(region)) {
        size *= 2;
    }
    f->bar[n] = (struct pci_bar){ .region = region, .size = size, .kind = (uint8_t)kind };
    pci_put(config, kind, 4);
    mask = ~(size - 1);
    pci_put(f->writable + PCI_BAR0 + 4 * n, mask, bytes);
}

unsigned pci_cap_add(struct pci_fn *f, uint8_t id, unsigned size)
{
    unsigned at = f->cap_end;

    f->config[at] = id;
    f->config[at + 1] = f->config[PCI_CAPABILITIES];
    f->config[PCI_CAPABILITIES] = (uint8_t)at;
    f->config[PCI_STATUS] |= PCI_STATUS_CAPS;
    f->cap_end = (uint8_t)((at + size + 3) & ~3u);
    return at;
}

/* Gen 1, one lane: what a virtual link says; nothing depends on it. */
static void express_link(struct pci_fn *f, uint8_t *cap)
{
    pci_put(cap + 0x0c, 0x00000011 | (uint32_t)(f->devfn >> 3) << 24,
            4);                         /* link capabilities */
    pci_put(cap + 0x12, 0x0011, 2);     /* link status */
    pci_put(cap + 0x2c, 0x00000002, 4); /* supported speeds: 2.5 GT/s */
    pci_put(cap + 0x30, 0x0001, 2);
    pci_put(f->writable + f->cap_express + 0x10, 0x00fb & ~0x20, 2);
}

void pci_cap_express(struct pci_fn *f)
{
    unsigned at = pci_cap_add(f, PCI_CAP_EXPRESS, 0x3c);
    bool port = f->config[PCI_HEADER] & 1;
    unsigned type = port ? 4 : f->bus->bridge ? 0 : 9;
    uint8_t *cap = f->config + at;

    f->cap_express = (uint8_t)at;
    pci_put(cap + 2, 2u | type << 4, 2);
    pci_put(cap + 4, 1u << 15, 4); /* role-based errors; 128 bytes of payload */
    pci_put(f->writable + at + 8, 0x701f | 0x00e0, 2);
    pci_put(cap + 8, 0x2010, 2); /* relaxed ordering may be used; reads of 512 bytes */
    pci_put(f->w1c + at + 0x0a, 0x000f, 2);
    pci_put(f->writable + at + 0x28, 0x0000, 2);
    if (type != 9) {
        express_link(f, cap);
    }
}

void pci_cap_pm(struct pci_fn *f)
{
    unsigned at = pci_cap_add(f, PCI_CAP_PM, 8);

    f->cap_pm = (uint8_t)at;
    pci_put(f->config + at + 2, 3, 2); /* version 1.2, D0 and D3hot */
    pci_put(f->config + at + 4, 8, 2); /* no reset on the way back to D0 */
    pci_put(f->writable + at + 4, 3, 2);
}

void pci_cap_msi(struct pci_fn *f)
{
    unsigned at = pci_cap_add(f, PCI_CAP_MSI, MSI_SIZE);

    f->cap_msi = (uint8_t)at;
    pci_put(f->config + at + MSI_CONTROL, MSI_64BIT, 2);
    pci_put(f->writable + at + MSI_CONTROL, MSI_ENABLE, 2);
    pci_put(f->writable + at + MSI_ADDRESS, ~3ull, 8);
    pci_put(f->writable + at + MSI_DATA, 0xffff, 2);
}

void pci_use_intx(struct pci_fn *f)
{
    f->config[PCI_INT_PIN] = 1;
}

void pci_fn_ready(struct pci_fn *f)
{
    memcpy(f->initial, f->config, sizeof(f->initial));
}

void pci_fn_reset(struct pci_fn *f)
{
    bus_lock(&f->dev.lock);
    f->intx = false;
    memcpy(f->config, f->initial, sizeof(f->config));
    memset(f->msix_table, 0, sizeof(f->msix_table));
    for (unsigned i = 0; i < f->n_vectors; i++) {
        f->msix_table[i * MSIX_ENTRY + 12] = MSIX_MASKED;
    }
    f->msix_pending = 0;
    pci_intx_set(f, false);
    pci_host_update(f);
    bus_unlock(&f->dev.lock);
}

void pci_fn_done(struct pci_fn *f)
{
    if (f->plugged) {
        bus_lock(&f->dev.lock);
        pci_intx_set(f, false);
        bus_unlock(&f->dev.lock);
        pci_host_unplug(f);
    }
    mem_free(f->msix_region);
    mem_free(f->rom_region);
    f->msix_region = f->rom_region = NULL;
}

/* --- interrupts
 * ------------------------------------------------------------------------------ */

bool pci_msix_on(const struct pci_fn *f)
{
    return f->cap_msix && (f->config[f->cap_msix + MSIX_CONTROL + 1] & MSIX_ENABLE >> 8);
}

bool pci_msi_on(const struct pci_fn *f)
{
    return f->cap_msi && (f->config[f->cap_msi + MSI_CONTROL] & MSI_ENABLE);
}

/* A message is a write by the function, which bus mastering must allow. Where no interrupt
 * controller takes messages it is a write to memory like any other. */
static void send(struct pci_fn *f, uint64_t address, uint32_t data)
{
    struct vm *vm = f->dev.vm;
    uint8_t bytes[4];

    if (!(f->config[PCI_COMMAND] & PCI_CMD_MASTER)) {
        log_trace('m', "%s: message without bus mastering", f->dev.id);
    } else if (vm->msi.send) {
        vm->msi.send(vm->msi.opaque, address, data);
    } else {
        pci_put(bytes, data, 4);
        if (dma_write(&f->dev, address, bytes, sizeof(bytes)) != 0) {
            log_trace('m', "%s: message to 0x%llx, where nothing takes it", f->dev.id,
                      (unsigned long long)address);
        }
    }
}

static bool masked(const struct pci_fn *f, unsigned n)
{
    return (f->config[f->cap_msix + MSIX_CONTROL + 1] & MSIX_MASKALL >> 8) ||
           (f->msix_table[n * MSIX_ENTRY + 12] & MSIX_MASKED);
}

static void msix_send(struct pci_fn *f, unsigned n)
{
    const uint8_t *entry = f->msix_table + n * MSIX_ENTRY;

    if (masked(f, n)) {
        f->msix_pending |= 1ull << n;
        return;
    }
    f->msix_pending &= ~(1ull << n);
    send(f, pci_get(entry, 8), (uint32_t)pci_get(entry + 8, 4));
}

bool pci_message(struct pci_fn *f, unsigned n)
{
    const uint8_t *msi = f->config + f->cap_msi;

    if (pci_msix_on(f)) {
        if (n < f->n_vectors) {
            msix_send(f, n);
        }
        return true;
    }
    if (pci_msi_on(f)) {
        send(f, pci_get(msi + MSI_ADDRESS, 8), (uint32_t)pci_get(msi + MSI_DATA, 2));
        return true;
    }
    return false;
}

/* What was held back while masked goes out now. */
static void msix_unmasked(struct pci_fn *f)
{
    for (unsigned n = 0; n < f->n_vectors && pci_msix_on(f) && f->msix_pending; n++) {
        if ((f->msix_pending >> n & 1) && !masked(f, n)) {
            msix_send(f, n);
        }
    }
}

void pci_intx_set(struct pci_fn *f, bool level)
{
    bool out = level && !(f->config[PCI_COMMAND + 1] & PCI_CMD_NO_INTX >> 8) &&
               !pci_msix_on(f) && !pci_msi_on(f);

    f->intx = level;
    f->config[PCI_STATUS] &= (uint8_t)~PCI_STATUS_INTX;
    f->config[PCI_STATUS] |= level ? PCI_STATUS_INTX : 0;
    if (out != f->intx_out) {
        f->intx_out = out;
        pci_host_wire(f, out);
    }
}

static uint64_t msix_read(void *opaque, uint64_t offset, unsigned size)
{
    struct pci_fn *f = opaque;
    uint8_t pba[8];

    if (offset + size <= f->n_vectors * MSIX_ENTRY) {
        return pci_get(f->msix_table + offset, size);
    }
    pci_put(pba, f->msix_pending, 8);
    return offset >= MSIX_PBA_AT && offset + size <= MSIX_PBA_AT + 8
               ? pci_get(pba + (offset - MSIX_PBA_AT), size)
               : 0;
}

static void msix_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    struct pci_fn *f = opaque;

    if (offset + size > f->n_vectors * MSIX_ENTRY) {
        return;
    }
    pci_put(f->msix_table + offset, value, size);
    /* The low two bits of an address and all of the control word but its mask are reserved. */
    f->msix_table[offset / MSIX_ENTRY * MSIX_ENTRY] &= 0xfc;
    f->msix_table[offset / MSIX_ENTRY * MSIX_ENTRY + 12] &= MSIX_MASKED;
    memset(f->msix_table + offset / MSIX_ENTRY * MSIX_ENTRY + 13, 0, 3);
    msix_unmasked(f);
}

static const struct mem_io_ops msix_ops = { msix_read, msix_write, 4, 8 };

void pci_cap_msix(struct pci_fn *f, unsigned n, unsigned bar)
{
    unsigned at = pci_cap_add(f, PCI_CAP_MSIX, MSIX_SIZE);
    AUTO_FREE char *name = xasprintf("%s.msix", f->dev.id);

    f->cap_msix = (uint8_t)at;
    f->n_vectors = n < PCI_MSIX_MAX ? n : PCI_MSIX_MAX;
    pci_put(f->config + at + MSIX_CONTROL, f->n_vectors - 1, 2);
    pci_put(f->writable + at + MSIX_CONTROL, MSIX_ENABLE | MSIX_MASKALL, 2);
    pci_put(f->config + at + MSIX_TABLE, bar, 4);
    pci_put(f->config + at + MSIX_PBA, MSIX_PBA_AT | bar, 4);
    f->msix_region = mem_new_io(name, MSIX_REGION, &msix_ops, f, &f->dev.lock);
    pci_bar_set(f, bar, PCI_BAR_MEM32, f->msix_region);
}

/* --- config space
 * ---------------------------------------------------------------------------- */

uint32_t pci_config_read(struct pci_fn *f, unsigned offset, unsigned size)
{
    uint32_t v = 0;

    bus_lock(&f->dev.lock);
    if (offset + size <= PCI_CONFIG_KEPT) {
        if (f->config_reading) {
            f->config_reading(f, offset, size);
        }
        v = (uint32_t)pci_get(f->config + offset, size);
    }
    bus_unlock(&f->dev.lock);
    return v;
}

void pci_config_write(struct pci_fn *f, unsigned offset, uint32_t value, unsigned size)
{
    if (offset + size > PCI_CONFIG_KEPT) {
        return;
    }
    bus_lock(&f->dev.lock);
    for (unsigned i = 0; i < size; i++) {
        uint8_t byte = (uint8_t)(value >> (8 * i)), *c = &f->config[offset + i];

        *c = (uint8_t)((*c & ~f->writable[offset + i]) | (byte & f->writable[offset + i]));
        *c &= (uint8_t) ~(byte & f->w1c[offset + i]);
    }
    if (offset < 0x40) {
        pci_host_update(f);
    }
    pci_intx_set(f, f->intx);
    msix_unmasked(f);
    if (f->config_written) {
        f->config_written(f, offset, size);
    }
    bus_unlock(&f->dev.lock);
}

/* --- state
 * ----------------------------------------------------------------------------------- */

/* Bytes that a guest could not have written are this device's, whatever the stream says. */
static int fn_loaded(void *obj, struct err *e)
{
    struct pci_fn *f = obj;

    (void)e;
    for (unsigned i = 0; i < PCI_CONFIG_KEPT; i++) {
        uint8_t mine = f->writable[i] | f->w1c[i];

        f->config[i] = (uint8_t)((f->initial[i] & ~mine) | (f->config[i] & mine));
    }
    if (f->plugged) {
        bus_lock(&f->dev.lock);
        pci_intx_set(f, f->intx);
        pci_host_update(f);
        bus_unlock(&f->dev.lock);
    }
    return 0;
}

static const struct st_field fn_fields[] = {
    ST_ARRAY(struct pci_fn, config, ST_BYTES, PCI_CONFIG_KEPT, 1, "configuration space"),
    ST_ARRAY(struct pci_fn, msix_table, ST_BYTES, PCI_MSIX_MAX * 16, 1, "MSI-X table"),
    ST_FIELD(struct pci_fn, msix_pending, ST_U64, 1, "vectors that wait while masked"),
    ST_FIELD(struct pci_fn, intx, ST_BOOL, 1, "the function asks for its interrupt wire"),
    ST_END,
};
const struct st_table pci_fn_state = {
    .name = "pci",
    .version = 1,
    .fields = fn_fields,
    .loaded = fn_loaded,
};
