/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A PCI Express root port: a bridge from the root bus to a bus with one slot (PCI Express Base 4.0
 * §7.5.1.3, PCI-to-PCI Bridge 1.2 §3). Entered as pci.h says.
 */
#include "devices/bus/pci_host.h"
#include "devices/bus/pci_root_port.h"
#include "devices/registry.h"

enum { EXP_FLAGS = 2, EXP_SLOT = 0x100, EXP_SLOT_CAP = 0x14, EXP_SLOT_STATUS = 0x1a };

struct pci_port {
    struct pci_fn pci;
    uint64_t slot;
    struct pci_bus below;
};

struct pci_bus *pci_root_port_bus(struct device *port)
{
    return &((struct pci_port *)port)->below;
}

/* Which registers of a type 1 header a guest may write. */
static void header(struct pci_fn *f)
{
    pci_put(f->writable + PCI_PRIMARY, 0xffffff, 3);
    pci_put(f->writable + PCI_IO_BASE, 0xf0f0, 2);
    pci_put(f->w1c + PCI_IO_BASE + 2, 0xf900, 2); /* secondary status */
    pci_put(f->writable + PCI_MEM_BASE, 0xfff0fff0, 4);
    pci_put(f->writable + PCI_PREF_BASE, 0xfff0fff0, 4);
    pci_put(f->config + PCI_PREF_BASE, 0x00010001, 4); /* 64-bit */
    pci_put(f->writable + PCI_PREF_BASE_HIGH, UINT64_MAX, 8);
    pci_put(f->writable + PCI_BRIDGE_CONTROL, 0x0043, 2);
}

static int port_realize(struct device *d, struct err *e)
{
    static const struct pci_ident id = {
        .vendor = PCI_VENDOR_REDHAT, .device = 0x000c, .class = 0x060400, .bridge = true
    };
    struct pci_port *p = (struct pci_port *)d;
    struct pci_fn *f = &p->pci;
    int rc = pci_fn_init(f, &id, e);
    uint8_t *cap;

    if (rc != 0) {
        return rc;
    }
    header(f);
    pci_cap_add(f, PCI_CAP_SSVID, 8);
    pci_put(f->config + f->cap_end - 4, 0x11001af4, 4);
    pci_cap_msi(f);
    pci_cap_pm(f);
    pci_cap_express(f);
    cap = f->config + f->cap_express;
    cap[EXP_FLAGS + 1] |= EXP_SLOT >> 8;
    pci_put(cap + EXP_SLOT_CAP, p->slot << 19, 4);
    pci_put(f->writable + f->cap_express + 0x1c, 0x001f, 2); /* root control */
    pci_use_intx(f);
    pci_host_bus_init(&p->below, f);
    pci_fn_ready(f);
    return 0;
}

static void port_reset(struct device *d)
{
    struct pci_port *p = (struct pci_port *)d;

    /* A card in the slot, or none. */
    p->pci.initial[p->pci.cap_express + EXP_SLOT_STATUS] = p->below.fn[0] ? 0x40 : 0;
    pci_fn_reset(&p->pci);
}

static void port_destroy(struct device *d)
{
    pci_fn_done((struct pci_fn *)d);
}

static const struct st_field port_fields[] = { PCI_ST_FIELD, ST_END };
static const struct st_table port_state = {
    .name = "pcie-root-port",
    .version = 1,
    .fields = port_fields,
};

static const struct dev_prop port_props[] = {
    PCI_PROPS,
    { .name = "slot",
      .kind = PROP_U64,
      .offset = offsetof(struct pci_port, slot),
      .max = 8191,
      .doc = "number of the slot, as on a chassis" },
    { .name = NULL },
};

const struct device_class pcie_root_port_class = {
    .name = "pcie-root-port",
    .doc = "PCI Express root port with one slot",
    .size = sizeof(struct pci_port),
    .props = port_props,
    .state = &port_state,
    .realize = port_realize,
    .reset = port_reset,
    .destroy = port_destroy,
};
