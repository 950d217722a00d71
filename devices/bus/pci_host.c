/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The PCI Express host bridge (pci_host.h): finds functions by bus number, keeps where their BARs
 * are, combines their interrupt wires. Owns the root bus, the two address spaces behind the windows
 * and the bridge's own function 00.0.
 *
 * Its lock guards those spaces, the topology and the wires' counters. A window looks its target up
 * under that lock, copies it, lets the lock go and takes the target's: an access that meets a BAR
 * on the move reaches the device at its old or at its new place, never something freed.
 */
#include "devices/bus/pci_host.h"
#include "devices/registry.h"
#include "engine/base/log.h"
#include "engine/base/mem.h"
#include "engine/base/str.h"
#include "engine/core/vm.h"

#include <errno.h>
#include <string.h>

#define ECAM_SIZE (256ull << 20) /* 256 buses */
#define PIO_SIZE 0x10000ull
#define SPACE_SIZE (1ull << 56)
#define WIRES 4
#define SLOTS 32

struct pci_host {
    struct device dev;
    uint64_t direct_from; /* property */
    bool own_root;        /* property */
    uint64_t pio_base, mmio_base, mmio_size, mmio64_base, mmio64_size;
    struct pci_bus root;
    pthread_mutex_t lock;
    bool alive;
    struct mem_region *io_root, *mem_root;
    struct mem_space *io, *mem;
    struct mem_region *window[4]; /* by enum pci_region */
    unsigned asserted[2 * WIRES]; /* functions that hold each wire */
    struct device *bridge;        /* function 00.0 */
    struct pci_iommu iommu;       /* translate NULL: there is none */
};

static struct pci_host *host_of(struct device *d)
{
    return (struct pci_host *)d;
}

struct pci_bus *pci_host_bus(struct device *host)
{
    return &host_of(host)->root;
}

struct mem_region *pci_host_region(struct device *host, enum pci_region which)
{
    return host_of(host)->window[which];
}

/* --- addresses of functions
 * ----------------------------------------------------------------------- */

static int translate(void *arg, uint64_t at, bool write, uint64_t *gpa, uint64_t *n)
{
    const struct pci_fn *f = arg;
    const struct pci_iommu *iommu = &f->bus->host->iommu;

    return iommu->translate(iommu->opaque, pci_requester(f), at, write, gpa, n);
}

void pci_host_set_iommu(struct device *host, const struct pci_iommu *iommu)
{
    host_of(host)->iommu = *iommu;
}

/* --- topology
 * -------------------------------------------------------------------------------- */

void pci_host_bus_init(struct pci_bus *bus, struct pci_fn *bridge)
{
    bus->host = bridge->bus->host;
    bus->bridge = bridge;
    pthread_mutex_lock(&bus->host->lock);
    bridge->below = bus;
    pthread_mutex_unlock(&bus->host->lock);
}

void pci_host_power(struct pci_bus *bus, bool on)
{
    pthread_mutex_lock(&bus->host->lock);
    bus->off = !on;
    pthread_mutex_unlock(&bus->host->lock);
}

/* A root port has one slot below it. */
static unsigned slots(const struct pci_bus *bus)
{
    return bus->bridge ? 1 : 32;
}

int pci_host_plug(struct pci_fn *f, struct err *e)
{
    struct pci_bus *bus = f->bus;
    unsigned at = (unsigned)f->addr;
    int rc = 0;

    pthread_mutex_lock(&bus->host->lock);
    for (unsigned slot = 0; f->addr == PCI_ADDR_AUTO && slot < slots(bus); slot++) {
        if (!bus->fn[PCI_DEVFN(slot, 0)]) {
            at = PCI_DEVFN(slot, 0);
            break;
        }
    }
    if (at == PCI_ADDR_AUTO) {
        rc = err_set(e, -ENOSPC, "%s: no slot of its PCI bus is free; use another bus",
                     f->dev.id);
    } else if (at >= slots(bus) * 8) {
        rc = err_set(e, -EINVAL, "%s: its PCI bus has no slot %u", f->dev.id, at / 8);
    } else if (bus->fn[at]) {
        rc = err_set(e, -EBUSY, "%s: PCI slot %u function %u holds '%s'", f->dev.id, at / 8,
                     at % 8, bus->fn[at]->dev.id);
    } else {
        bus->fn[at] = f;
        f->devfn = (uint8_t)at;
        f->plugged = true;
        f->dma = (struct dma_port){ translate, f };
        f->dev.dma = bus->host->iommu.translate ? &f->dma : NULL;
    }
    pthread_mutex_unlock(&bus->host->lock);
    return rc;
}

static void unmap_bars(struct pci_fn *f, bool *changed)
{
    for (unsigned i = 0; i < PCI_BARS; i++) {
        if (f->bar[i].mapped) {
            mem_unmap(f->bar[i].region);
            f->bar[i].mapped = false;
            *changed = true;
        }
    }
}

static void commit_bells(struct pci_host *h)
{
    struct vm *vm = h->dev.vm;

    if (vm->engine->bells) {
        vm->engine->bells(vm, &h->mmio_base, mem_flat(h->mem), h->mmio_base,
                          h->mmio_base + h->mmio_size);
        vm->engine->bells(vm, &h->mmio64_base, mem_flat(h->mem), h->mmio64_base,
                          h->mmio64_base + h->mmio64_size);
    }
}

static void commit(struct pci_host *h)
{
    mem_commit(h->io);
    mem_commit(h->mem);
    commit_bells(h);
    mem_reclaim(h->io); /* nobody keeps a range of these beyond the lock */
    mem_reclaim(h->mem);
}

void pci_host_unplug(struct pci_fn *f)
{
    struct pci_host *h = f->bus->host;
    bool changed = false;

    pthread_mutex_lock(&h->lock);
    unmap_bars(f, &changed);
    if (changed) {
        commit(h);
    }
    f->bus->fn[f->devfn] = NULL;
    f->plugged = false;
    pthread_mutex_unlock(&h->lock);
}

/* The function with a bus number, as configured by the guest; the host's lock is held. Each turn
 * goes one bridge down, so it ends. */
static struct pci_fn *find(struct pci_host *h, unsigned number, unsigned devfn)
{
    struct pci_bus *bus = &h->root;

    if (number == 0) {
        return bus->fn[devfn];
    }
    for (;;) {
        struct pci_bus *next = NULL;

        for (unsigned i = 0; i < 256 && !next; i++) {
            struct pci_fn *f = bus->fn[i];

            if (f && f->below && f->secondary && number >= f->secondary &&
                number <= f->subordinate) {
                next = f->below;
            }
        }
        if (!next) {
            return NULL;
        }
        if (next->bridge->secondary == number) {
            return devfn < slots(next) * 8 && !next->off ? next->fn[devfn] : NULL;
        }
        bus = next;
    }
}

bool pci_host_has(struct device *host, uint16_t requester)
{
    struct pci_host *h = host_of(host);
    bool there;

    pthread_mutex_lock(&h->lock);
    there = find(h, requester >> 8, requester & 0xff) != NULL;
    pthread_mutex_unlock(&h->lock);
    return there;
}

/* --- where BARs are
 * -------------------------------------------------------------------------- */

static bool inside(const struct pci_window *w, uint64_t at, uint64_t size)
{
    return w->first <= w->last && at >= w->first && at <= w->last && size - 1 <= w->last - at;
}

/* Do all bridges above pass this range on? */
static bool passes(const struct pci_fn *f, const struct pci_bar *b)
{
    bool io = b->kind & PCI_BAR_IO;

    for (const struct pci_fn *up = f->bus->bridge; up; up = up->bus->bridge) {
        if (!(up->command & (io ? PCI_CMD_IO : PCI_CMD_MEMORY)) ||
            !(io ? inside(&up->io, b->at, b->size)
                 : inside(&up->mem, b->at, b->size) || inside(&up->pref, b->at, b->size))) {
            return false;
        }
    }
    return true;
}

static void map_bars(struct pci_fn *f, bool *changed)
{
    struct pci_host *h = f->bus->host;

    for (unsigned i = 0; i < PCI_BARS; i++) {
        struct pci_bar *b = &f->bar[i];
        bool io = b->kind & PCI_BAR_IO;
        uint64_t limit = io ? PIO_SIZE : SPACE_SIZE;

        if (!b->region || !(f->command & (io ? PCI_CMD_IO : PCI_CMD_MEMORY)) || b->at == 0 ||
            b->at >= limit || b->size > limit - b->at || !passes(f, b)) {
            continue;
        }
        if (mem_map(io ? h->io_root : h->mem_root, b->at, 0, b->region, NULL) == 0) {
            b->mapped = true;
            *changed = true;
        }
    }
}

/* The function and everything below it; no deeper than bridges are. */
static void remap(struct pci_fn *f, bool *changed)
{
    unmap_bars(f, changed);
    map_bars(f, changed);
    for (unsigned i = 0; f->below && i < 256; i++) {
        if (f->below->fn[i]) {
            remap(f->below->fn[i], changed);
        }
    }
}

static struct pci_window window_of(uint64_t base, uint64_t limit, uint64_t grain)
{
    return base <= limit ? (struct pci_window){ base, limit | (grain - 1) }
                         : (struct pci_window){ 1, 0 };
}

/* Copies of what config space says about bridges (PCI-to-PCI Bridge 1.2 §3.2.5). */
static bool read_bridge(struct pci_fn *f)
{
    const uint8_t *c = f->config;
    uint64_t high = pci_get(c + PCI_PREF_BASE_HIGH, 4) << 32,
             high_limit = pci_get(c + PCI_PREF_BASE_HIGH + 4, 4) << 32;
    struct pci_window io = window_of((c[PCI_IO_BASE] & 0xf0u) << 8,
                                     (c[PCI_IO_BASE + 1] & 0xf0u) << 8, 0x1000);
    struct pci_window mem = window_of((pci_get(c + PCI_MEM_BASE, 2) & 0xfff0) << 16,
                                      (pci_get(c + PCI_MEM_BASE + 2, 2) & 0xfff0) << 16,
                                      1 << 20);
    struct pci_window pref = window_of(
        high | (pci_get(c + PCI_PREF_BASE, 2) & 0xfff0) << 16,
        high_limit | (pci_get(c + PCI_PREF_BASE + 2, 2) & 0xfff0) << 16, 1 << 20);
    bool same = memcmp(&io, &f->io, sizeof(io)) == 0 &&
                memcmp(&mem, &f->mem, sizeof(mem)) == 0 &&
                memcmp(&pref, &f->pref, sizeof(pref)) == 0;

    f->io = io;
    f->mem = mem;
    f->pref = pref;
    __atomic_store_n(&f->secondary, c[PCI_SECONDARY], __ATOMIC_RELAXED); /* pci_requester() */
    f->subordinate = c[PCI_SUBORDINATE];
    return !same;
}

/* Copies what decides; true when decoding changes. */
static bool read_decoding(struct pci_fn *f)
{
    uint16_t command = (uint16_t)pci_get(f->config + PCI_COMMAND, 2);
    bool on = (command | f->command) & (PCI_CMD_IO | PCI_CMD_MEMORY), changed;

    changed = (command ^ f->command) & (PCI_CMD_IO | PCI_CMD_MEMORY);
    f->command = command;
    for (unsigned i = 0; i < PCI_BARS; i++) {
        struct pci_bar *b = &f->bar[i];
        uint64_t at = pci_get(f->config + pci_bar_offset(i), b->kind & PCI_BAR_MEM64 ? 8 : 4);

        if (b->region && i == PCI_BAR_ROM) { /* not there (0) until it is enabled */
            at = at & PCI_ROM_ENABLE ? at & ~UINT64_C(0x7ff) : 0;
        }
        if (b->region) {
            at &= ~(uint64_t)(b->kind & PCI_BAR_IO ? 3 : 15);
            changed = changed || (on && at != b->at);
            b->at = at;
        }
    }
    return (f->below && read_bridge(f)) || changed;
}

void pci_host_update(struct pci_fn *f)
{
    struct pci_host *h = f->bus->host;
    bool changed = false;

    if (!f->plugged) {
        return;
    }
    pthread_mutex_lock(&h->lock);
    if (read_decoding(f)) {
        remap(f, &changed);
        if (changed) {
            commit(h);
        }
    }
    pthread_mutex_unlock(&h->lock);
}

/* --- interrupt wires
 * ------------------------------------------------------------------------- */

void pci_host_wire(struct pci_fn *f, bool level)
{
    struct pci_host *h = f->bus->host;
    unsigned pin = 0, direct = 0;

    /* Each slot turns the pins by its number (PCI-to-PCI Bridge 1.2 §9.1); those of the chip set have wires of their own. */
    for (const struct pci_fn *up = f; up; up = up->bus->bridge) {
        direct = !up->bus->bridge && up->devfn >> 3 >= h->direct_from ? WIRES : 0;
        pin = direct ? pin : (pin + (up->devfn >> 3)) % WIRES;
    }
    pin += direct;
    pthread_mutex_lock(&h->lock);
    h->asserted[pin] += level ? 1 : -1u;
    irq_set(&h->dev.irq[pin], h->asserted[pin] > 0);
    pthread_mutex_unlock(&h->lock);
}

/* --- windows
 * --------------------------------------------------------------------------------- */

static struct pci_fn *ecam_target(struct pci_host *h, uint64_t offset)
{
    struct pci_fn *f;

    pthread_mutex_lock(&h->lock);
    f = find(h, (unsigned)(offset >> 20), (unsigned)(offset >> 12) & 0xff);
    pthread_mutex_unlock(&h->lock);
    return f;
}

static uint64_t ecam_read(void *opaque, uint64_t offset, unsigned size)
{
    struct pci_fn *f = ecam_target(opaque, offset);

    return f ? pci_config_read(f, offset & (PCI_CONFIG_SIZE - 1), size) : UINT64_MAX;
}

static void ecam_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    struct pci_fn *f = ecam_target(opaque, offset);

    if (f) {
        pci_config_write(f, offset & (PCI_CONFIG_SIZE - 1), (uint32_t)value, size);
    }
}

/* The BAR at an address of a space; false: nothing there. */
static bool target(struct pci_host *h, struct mem_space *s, uint64_t at, struct mem_range *out)
{
    const struct mem_range *r;

    pthread_mutex_lock(&h->lock);
    r = mem_find(s, at);
    if (r) {
        *out = *r;
    }
    pthread_mutex_unlock(&h->lock);
    return r != NULL;
}

static uint64_t space_read(struct pci_host *h, struct mem_space *s, uint64_t at, unsigned size)
{
    struct mem_range r;
    uint64_t v = 0;

    return target(h, s, at, &r) && bus_read(&r, at, size, &v) == BUS_OK ? v : UINT64_MAX;
}

static void space_write(struct pci_host *h, struct mem_space *s, uint64_t at, unsigned size,
                        uint64_t value)
{
    struct mem_range r;

    if (target(h, s, at, &r)) {
        (void)bus_write(s, &r, at, size, value);
    }
}

static uint64_t pio_read(void *opaque, uint64_t offset, unsigned size)
{
    struct pci_host *h = opaque;

    return space_read(h, h->io, offset, size);
}

static void pio_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    struct pci_host *h = opaque;

    space_write(h, h->io, offset, size, value);
}

static uint64_t mmio_read(void *opaque, uint64_t offset, unsigned size)
{
    struct pci_host *h = opaque;

    return space_read(h, h->mem, h->mmio_base + offset, size);
}

static void mmio_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    struct pci_host *h = opaque;

    space_write(h, h->mem, h->mmio_base + offset, size, value);
}

static uint64_t mmio64_read(void *opaque, uint64_t offset, unsigned size)
{
    struct pci_host *h = opaque;

    return space_read(h, h->mem, h->mmio64_base + offset, size);
}

static void mmio64_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    struct pci_host *h = opaque;

    space_write(h, h->mem, h->mmio64_base + offset, size, value);
}

uint32_t pci_host_config_read(struct device *host, unsigned bus, unsigned devfn,
                              unsigned offset, unsigned size)
{
    return (uint32_t)ecam_read(host, bus << 20 | devfn << 12 | offset, size);
}

void pci_host_config_write(struct device *host, unsigned bus, unsigned devfn, unsigned offset,
                           uint32_t value, unsigned size)
{
    ecam_write(host, bus << 20 | devfn << 12 | offset, value, size);
}

static const struct mem_io_ops ecam_ops = { ecam_read, ecam_write, 1, 4 };
static const struct mem_io_ops pio_ops = { pio_read, pio_write, 1, 4 };
static const struct mem_io_ops mmio_ops = { mmio_read, mmio_write, 1, 8 };
static const struct mem_io_ops mmio64_ops = { mmio64_read, mmio64_write, 1, 8 };

/* --- addresses for a guest without firmware
 * -------------------------------------------------- */

struct pool {
    uint64_t at, end;
};

static uint64_t take(struct pool *p, uint64_t size)
{
    uint64_t at = (p->at + size - 1) & ~(size - 1);

    if (at < p->at || at > p->end || size > p->end - at) {
        return 0;
    }
    p->at = at + size;
    return at;
}

struct pools {
    struct pool io, mem, mem64;
    unsigned bus; /* the last number given */
};

static void config_put(struct pci_fn *f, unsigned offset, uint64_t value, unsigned size)
{
    pci_config_write(f, offset, (uint32_t)value, size);
}

static void assign_bars(struct pci_fn *f, struct pools *p, bool below_bridge)
{
    for (unsigned i = 0; i < PCI_BARS; i++) {
        struct pci_bar *b = &f->bar[i];
        bool wide = (b->kind & PCI_BAR_MEM64) && !below_bridge && p->mem64.end;
        uint64_t at = b->region ? take(b->kind & PCI_BAR_IO ? &p->io
                                       : wide               ? &p->mem64
                                                            : &p->mem,
                                       b->size)
                                : 0;

        if (b->region) {
            config_put(f, pci_bar_offset(i), at, 4);
        }
        if (b->region && (b->kind & PCI_BAR_MEM64)) {
            config_put(f, PCI_BAR0 + 4 * i + 4, at >> 32, 4);
        }
    }
}

static void assign_bus(struct pci_bus *bus, struct pools *p);

/* Numbers and one window of memory for what is below; I/O and prefetchable windows stay shut. */
static void assign_bridge(struct pci_fn *f, struct pools *p)
{
    uint64_t first;

    config_put(f, PCI_PRIMARY, p->bus, 1);
    config_put(f, PCI_SECONDARY, ++p->bus, 1);
    config_put(f, PCI_SUBORDINATE, 0xff, 1);
    p->mem.at = (p->mem.at + 0xfffff) & ~0xfffffull;
    first = p->mem.at;
    assign_bus(f->below, p);
    p->mem.at = (p->mem.at + 0xfffff) & ~0xfffffull;
    config_put(f, PCI_SUBORDINATE, p->bus, 1);
    config_put(f, PCI_MEM_BASE, first >> 16, 2);
    config_put(f, PCI_MEM_BASE + 2,
               first == p->mem.at ? (first - 1) >> 16 : (p->mem.at - 1) >> 16, 2);
    config_put(f, PCI_IO_BASE, 0xf0, 1);
    config_put(f, PCI_IO_BASE + 1, 0, 1);
    config_put(f, PCI_PREF_BASE, 0xfff0, 2);
    config_put(f, PCI_PREF_BASE + 2, 0, 2);
}

static void assign_bus(struct pci_bus *bus, struct pools *p)
{
    for (unsigned i = 0; i < 256; i++) {
        if (bus->fn[i]) {
            assign_bars(bus->fn[i], p, bus->bridge != NULL);
        }
    }
    for (unsigned i = 0; i < 256; i++) {
        if (bus->fn[i] && bus->fn[i]->below) {
            assign_bridge(bus->fn[i], p);
        }
    }
}

void pci_host_assign(struct device *host)
{
    struct pci_host *h = host_of(host);
    struct pools p = {
        .io = { 0x1000, PIO_SIZE },
        .mem = { h->mmio_base, h->mmio_base + h->mmio_size },
        .mem64 = { h->mmio64_base, h->mmio64_size ? h->mmio64_base + h->mmio64_size : 0 },
    };

    assign_bus(&h->root, &p);
}

/* --- function 00.0
 * --------------------------------------------------------------------------- */

static int bridge_realize(struct device *d, struct err *e)
{
    static const struct pci_ident id = { .vendor = PCI_VENDOR_REDHAT,
                                         .device = 0x0008,
                                         .sub_vendor = 0x1af4,
                                         .sub_device = 0x1100,
                                         .class = 0x060000 };
    struct pci_fn *f = (struct pci_fn *)d;
    int rc = pci_fn_init(f, &id, e);

    if (rc == 0) {
        pci_fn_ready(f);
    }
    return rc;
}

static void bridge_reset(struct device *d)
{
    pci_fn_reset((struct pci_fn *)d);
}

static void bridge_destroy(struct device *d)
{
    pci_fn_done((struct pci_fn *)d);
}

static const struct st_field bridge_fields[] = { PCI_ST_FIELD, ST_END };
static const struct st_table bridge_state = {
    .name = "pci-host-bridge",
    .version = 1,
    .fields = bridge_fields,
};
static const struct dev_prop bridge_props[] = { PCI_PROPS, { .name = NULL } };

const struct device_class pci_host_bridge_class = {
    .name = "pci-host-bridge",
    .doc = "function 00.0 of a PCI Express host bridge",
    .size = sizeof(struct pci_fn),
    .props = bridge_props,
    .state = &bridge_state,
    .realize = bridge_realize,
    .reset = bridge_reset,
    .destroy = bridge_destroy,
};

/* --- the host
 * -------------------------------------------------------------------------------- */

static int host_realize(struct device *d, struct err *e)
{
    struct pci_host *h = host_of(d);
    AUTO_FREE char *bridge = xasprintf("%s.bridge", d->id);
    int rc;

    (void)e;
    pthread_mutex_init(&h->lock, NULL);
    h->alive = true;
    h->root.host = h;
    h->io_root = mem_new_container("pci-io", PIO_SIZE);
    h->mem_root = mem_new_container("pci-memory", SPACE_SIZE);
    h->io = mem_space_new(h->io_root);
    h->mem = mem_space_new(h->mem_root);
    h->window[PCI_REGION_ECAM] = mem_new_io("pci-ecam", ECAM_SIZE, &ecam_ops, h, NULL);
    h->window[PCI_REGION_PIO] = mem_new_io("pci-pio", PIO_SIZE, &pio_ops, h, NULL);
    h->window[PCI_REGION_MMIO] = mem_new_io("pci-mmio", h->mmio_size, &mmio_ops, h, NULL);
    if (h->mmio64_size) {
        h->window[PCI_REGION_MMIO64] = mem_new_io("pci-mmio64", h->mmio64_size, &mmio64_ops, h,
                                                  NULL);
    }
    if (h->own_root) {
        return 0;
    }
    rc = dev_new(d->vm, &pci_host_bridge_class, bridge, &h->bridge, e);
    if (rc == 0) {
        rc = dev_set_ptr(h->bridge, "bus", &h->root, e);
    }
    return rc == 0 ? dev_realize(h->bridge, e) : rc;
}

/* Functions were realized later and so have gone already, the bridge's own too when the VM ends. */
static void host_destroy(struct device *d)
{
    struct pci_host *h = host_of(d);

    if (!h->alive) {
        return;
    }
    dev_free(h->bridge);
    for (unsigned i = 0; i < 4; i++) {
        mem_free(h->window[i]);
    }
    mem_space_free(h->io);
    mem_space_free(h->mem);
    mem_free(h->io_root);
    mem_free(h->mem_root);
    pthread_mutex_destroy(&h->lock);
}

static const struct dev_prop host_props[] = {
    { .name = "mmio-base",
      .kind = PROP_U64,
      .offset = offsetof(struct pci_host, mmio_base),
      .def = 0x40000000,
      .doc = "address of the window for 32-bit BARs, the same on both sides" },
    { .name = "mmio-size",
      .kind = PROP_U64,
      .offset = offsetof(struct pci_host, mmio_size),
      .def = 0x40000000,
      .doc = "bytes of that window" },
    { .name = "mmio64-base",
      .kind = PROP_U64,
      .offset = offsetof(struct pci_host, mmio64_base),
      .doc = "address of the window for 64-bit BARs" },
    { .name = "mmio64-size",
      .kind = PROP_U64,
      .offset = offsetof(struct pci_host, mmio64_size),
      .doc = "bytes of that window, 0: there is none" },
    { .name = "direct-from",
      .kind = PROP_U64,
      .offset = offsetof(struct pci_host, direct_from),
      .def = SLOTS,
      .max = SLOTS,
      .doc =
          "slots of the root bus from which on pins lead to wires 4 to 7 and are not turned" },
    { .name = "own-bridge",
      .kind = PROP_BOOL,
      .offset = offsetof(struct pci_host, own_root),
      .doc = "the board brings a function 00.0 of its own" },
    { .name = NULL },
};

const struct device_class pci_host_class = {
    .name = "pci-host",
    .doc = "PCI Express host bridge: ECAM for 256 buses, memory and I/O windows, INTA to INTD",
    .size = sizeof(struct pci_host),
    .props = host_props,
    .n_irqs = 2 * WIRES,
    .realize = host_realize,
    .destroy = host_destroy,
};
