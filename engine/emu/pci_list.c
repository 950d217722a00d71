/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A control method that lists the PCI functions of a VM as its guest has set them up. Changes nothing. Main thread, vCPUs standing
 * still meanwhile.
 */
#include "api-schema/gen/methods.h"
#include "api-schema/json/json.h"
#include "api-schema/rpc/call.h"
#include "devices/bus/pci_host.h"
#include "devices/registry.h"
#include "engine/core/vm.h"
#include "engine/emu/emu.h"

struct pci_list {
    struct emu *m;
    struct json_object *out;
};

static void add_bars(struct api_emu_pci_bar *bars, size_t *n, const struct pci_fn *f)
{
    for (unsigned i = 0; i < PCI_BARS; i++) {
        const struct pci_bar *b = &f->bar[i];
        if (b->region) {
            bars[(*n)++] = (struct api_emu_pci_bar){ .bar = i,
                                                     .io = b->kind & PCI_BAR_IO,
                                                     .prefetch = b->kind & PCI_BAR_PREFETCH,
                                                     .wide = b->kind & PCI_BAR_MEM64,
                                                     .address = b->mapped ? (int64_t)b->at : -1,
                                                     .size = (int64_t)b->size };
        }
    }
}

static void add_windows(struct api_emu_pci_window *out, size_t *n, const struct pci_fn *f)
{
    const struct pci_window *all[] = { &f->io, &f->mem, &f->pref };

    for (unsigned i = 0; i < ARRAY_LEN(all); i++) {
        out[(*n)++] = (struct api_emu_pci_window){ .base = (int64_t)all[i]->first,
                                                   .limit = (int64_t)all[i]->last };
    }
}

static void add_bus(struct pci_list *l, const struct pci_bus *bus, int64_t number, int depth);

static void add_function(struct pci_list *l, const struct pci_fn *f, int64_t bus, int depth)
{
    const uint8_t *c = f->config;
    struct api_emu_pci_bar bars[PCI_BARS];
    struct api_emu_pci_window windows[3];
    struct api_emu_pci_function one = { .id = f->dev.id,
                                        .depth = depth,
                                        .bus = bus,
                                        .slot = f->devfn >> 3,
                                        .function = f->devfn & 7,
                                        .vendor = (int64_t)pci_get(c + PCI_VENDOR, 2),
                                        .device = (int64_t)pci_get(c + PCI_DEVICE, 2),
                                        .device_class = (int64_t)pci_get(c + PCI_CLASS + 2, 2),
                                        .pin = c[PCI_INT_PIN],
                                        .line = c[PCI_INT_LINE],
                                        .bars = bars,
                                        .windows = windows };

    add_bars(bars, &one.n_bars, f);
    if (f->below) {
        one.has_secondary = one.has_subordinate = true;
        one.secondary = f->secondary;
        one.subordinate = f->subordinate;
        add_windows(windows, &one.n_windows, f);
    } else {
        one.has_sub_vendor = one.has_sub_device = true;
        one.sub_vendor = (int64_t)pci_get(c + PCI_SUBSYSTEM, 2);
        one.sub_device = (int64_t)pci_get(c + PCI_SUBSYSTEM + 2, 2);
    }
    json_object_array_add(l->out, api_emu_pci_function_encode(&one));
    if (f->below) {
        add_bus(l, f->below, f->secondary, depth + 1);
    }
}

/* A bridge comes before what is behind it. */
static void add_bus(struct pci_list *l, const struct pci_bus *bus, int64_t number, int depth)
{
    for (unsigned i = 0; i < ARRAY_LEN(bus->fn); i++) {
        if (bus->fn[i]) {
            add_function(l, bus->fn[i], number, depth);
        }
    }
}

static void list_pci(void *arg)
{
    struct pci_list *l = arg;

    list_for_each (it, &l->m->vm->devices) {
        struct device *d = list_entry(it, struct device, node);
        if (d->cls == &pci_host_class) {
            add_bus(l, pci_host_bus(d), 0, 0);
        }
    }
}

void api_handle_emu_pci(struct api_call *call, struct api_emu_pci_in *in)
{
    struct json_object *o = json_object_new_object();
    struct pci_list l = { .m = control_emu(call), .out = json_object_new_array() };

    (void)in;
    vm_at_barrier(l.m->vm, list_pci, &l);
    api_json_set(o, "functions", l.out);
    api_reply_json(call, o);
}
