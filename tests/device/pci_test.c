/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The PCI Express host, root ports and virtio over PCI, as a guest's accesses see them.
 */
#include "devices/bus/pci_root_port.h"
#include "devices/registry.h"
#include "devices/virtio/virtio.h"
#include "tests/device/pci_rig.h"
#include "tests/lib/testing.h"

#define FN PCI_DEVFN(3, 0)
#define BAR4 (PCI_BAR0 + 16)

struct vp {
    struct pci_rig p;
    struct device *behind, *fn;
};

/* An entropy device behind virtio-pci on a bus (NULL: the root bus). */
static void add_rng(struct vp *v, struct pci_bus *bus, unsigned addr)
{
    v->behind = pci_rig_device(&v->p, &virtio_rng_class);
    ck_assert_int_eq(dev_realize(v->behind, NULL), 0);
    v->fn = pci_rig_device(&v->p, &virtio_pci_class);
    ck_assert_int_eq(dev_set_ptr(v->fn, "device", v->behind, NULL), 0);
    pci_rig_plug(&v->p, v->fn, bus, addr);
}

static void vp_new(struct vp *v)
{
    pci_rig_new(&v->p);
    add_rng(v, NULL, FN);
    rig_start(v->p.r);
}

/* Gives BAR 4 an address and turns decoding and mastering on. */
static void map_bar4(struct pci_rig *p, unsigned at, uint64_t address)
{
    cfg_write(p, at, BAR4, (uint32_t)address, 4);
    cfg_write(p, at, BAR4 + 4, (uint32_t)(address >> 32), 4);
    cfg_write(p, at, PCI_COMMAND, PCI_CMD_MEMORY | PCI_CMD_MASTER, 2);
}

START_TEST(functions_that_are_absent_read_as_ones)
{
    struct vp v;

    vp_new(&v);
    ck_assert_uint_eq(cfg_read(&v.p, 0, PCI_VENDOR, 4), 0x00081b36);
    ck_assert_uint_eq(cfg_read(&v.p, FN, PCI_VENDOR, 4), 0x10441af4);
    ck_assert_uint_eq(cfg_read(&v.p, PCI_DEVFN(4, 0), PCI_VENDOR, 4), UINT32_MAX);
    ck_assert_uint_eq(cfg_read(&v.p, 0x500, PCI_VENDOR, 4), UINT32_MAX);
    ck_assert_uint_eq(cfg_read(&v.p, FN, 0x100, 4), 0);
    ck_assert_uint_eq(cfg_read(&v.p, FN, 0xffc, 4), 0);
    cfg_write(&v.p, PCI_DEVFN(4, 0), PCI_COMMAND, 7, 2);
    pci_rig_free(&v.p);
}
END_TEST

START_TEST(bars_tell_their_size_and_kind)
{
    struct vp v;

    vp_new(&v);
    cfg_write(&v.p, FN, BAR4, UINT32_MAX, 4);
    cfg_write(&v.p, FN, BAR4 + 4, UINT32_MAX, 4);
    ck_assert_uint_eq(cfg_read(&v.p, FN, BAR4, 4), 0xffffc00c);
    ck_assert_uint_eq(cfg_read(&v.p, FN, BAR4 + 4, 4), UINT32_MAX);
    cfg_write(&v.p, FN, PCI_BAR0 + 4, UINT32_MAX, 4);
    ck_assert_uint_eq(cfg_read(&v.p, FN, PCI_BAR0 + 4, 4), 0xfffff000);
    cfg_write(&v.p, FN, PCI_BAR0, UINT32_MAX, 4);
    ck_assert_uint_eq(cfg_read(&v.p, FN, PCI_BAR0, 4), 0);
    pci_rig_free(&v.p);
}
END_TEST

/* num_queues of the common configuration tells that the BAR is there. */
static bool bar_at(struct vp *v, uint64_t address)
{
    return rig_read(v->p.r, address + 0x12, 2) == 1;
}

START_TEST(a_bar_is_at_its_new_place_with_the_next_access)
{
    struct vp v;

    vp_new(&v);
    ck_assert(!bar_at(&v, PCI_MMIO + 0x4000));
    map_bar4(&v.p, FN, PCI_MMIO + 0x4000);
    ck_assert(bar_at(&v, PCI_MMIO + 0x4000));
    cfg_write(&v.p, FN, BAR4, (uint32_t)PCI_MMIO + 0x10000, 4);
    ck_assert(!bar_at(&v, PCI_MMIO + 0x4000));
    ck_assert(bar_at(&v, PCI_MMIO + 0x10000));
    map_bar4(&v.p, FN, PCI_MMIO64 + (1ull << 33));
    ck_assert(bar_at(&v, PCI_MMIO64 + (1ull << 33)));
    cfg_write(&v.p, FN, PCI_COMMAND, 0, 2);
    ck_assert(!bar_at(&v, PCI_MMIO64 + (1ull << 33)));
    map_bar4(&v.p, FN, RIG_RAM); /* outside the windows, over RAM: unreachable */
    ck_assert(!bar_at(&v, RIG_RAM));
    rig_write(v.p.r, RIG_RAM, 0x55, 1);
    ck_assert_uint_eq(*(uint8_t *)rig_ram(v.p.r, RIG_RAM), 0x55);
    map_bar4(&v.p, FN, UINT64_MAX & ~0x3fffull);
    map_bar4(&v.p, FN, PCI_MMIO);
    ck_assert(bar_at(&v, PCI_MMIO));
    vm_reset(v.p.r->vm);
    ck_assert(!bar_at(&v, PCI_MMIO));
    ck_assert_uint_eq(cfg_read(&v.p, FN, BAR4, 4), 0xc);
    pci_rig_free(&v.p);
}
END_TEST

START_TEST(assigned_bars_are_apart_and_in_the_windows)
{
    struct vp v;
    struct device *port;

    pci_rig_new(&v.p);
    port = pci_rig_device(&v.p, &pcie_root_port_class);
    pci_rig_plug(&v.p, port, NULL, PCI_DEVFN(1, 0));
    add_rng(&v, pci_root_port_bus(port), 0);
    add_rng(&v, NULL, FN);
    rig_start(v.p.r);
    pci_host_assign(v.p.host);
    ck_assert_uint_eq(cfg_read(&v.p, 8, PCI_PRIMARY, 3), 0x010100);
    ck_assert_uint_eq(cfg_read(&v.p, 0x100, PCI_VENDOR, 4), 0x10441af4);
    ck_assert_uint_eq(cfg_read(&v.p, FN, BAR4 + 4, 4), PCI_MMIO64 >> 32);
    ck_assert_uint_eq(cfg_read(&v.p, 0x100, BAR4 + 4, 4), 0);
    ck_assert_uint_eq(cfg_read(&v.p, FN, PCI_COMMAND, 2), 0);
    cfg_write(&v.p, FN, PCI_COMMAND, PCI_CMD_MEMORY, 2);
    ck_assert(bar_at(&v, PCI_MMIO64));
    cfg_write(&v.p, 0x100, PCI_COMMAND, PCI_CMD_MEMORY, 2);
    uint64_t below = cfg_read(&v.p, 0x100, BAR4, 4) & ~15u;
    ck_assert(!bar_at(&v, below)); /* the bridge passes nothing on yet */
    cfg_write(&v.p, 8, PCI_COMMAND, PCI_CMD_MEMORY, 2);
    ck_assert(bar_at(&v, below));
    cfg_write(&v.p, 8, PCI_MEM_BASE, 0x0000fff0, 4); /* its window is shut */
    ck_assert(!bar_at(&v, below));
    cfg_write(&v.p, 8, PCI_SECONDARY, 7, 1);
    cfg_write(&v.p, 8, PCI_SUBORDINATE, 9, 1);
    ck_assert_uint_eq(cfg_read(&v.p, 0x100, PCI_VENDOR, 4), UINT32_MAX);
    ck_assert_uint_eq(cfg_read(&v.p, 0x700, PCI_VENDOR, 4), 0x10441af4);
    ck_assert_uint_eq(cfg_read(&v.p, 0x708, PCI_VENDOR, 4), UINT32_MAX);
    ck_assert_uint_eq(cfg_read(&v.p, 0x800, PCI_VENDOR, 4), UINT32_MAX);
    pci_rig_free(&v.p);
}
END_TEST

START_TEST(a_wire_is_high_while_any_function_holds_it)
{
    struct vp a, b;

    vp_new(&a);
    b.p = a.p;
    add_rng(&b, NULL, PCI_DEVFN(7, 0)); /* slot 7 shares its wire with slot 3 */
    struct pci_fn *f = (struct pci_fn *)a.fn, *g = (struct pci_fn *)b.fn;
    struct rig_line *wire = &a.p.wire[3];
    pci_intx_set(f, true);
    pci_intx_set(g, true);
    ck_assert(wire->level);
    ck_assert_uint_eq(cfg_read(&a.p, FN, PCI_STATUS, 2) & PCI_STATUS_INTX, PCI_STATUS_INTX);
    pci_intx_set(f, false);
    ck_assert(wire->level);
    cfg_write(&a.p, PCI_DEVFN(7, 0), PCI_COMMAND, PCI_CMD_NO_INTX, 2);
    ck_assert(!wire->level);
    cfg_write(&a.p, PCI_DEVFN(7, 0), PCI_COMMAND, 0, 2);
    ck_assert(wire->level);
    dev_reset(b.fn);
    ck_assert(!wire->level);
    pci_rig_free(&a.p);
}
END_TEST

START_TEST(msix_holds_back_what_is_masked)
{
    struct vp v;
    struct pci_fn *f;
    uint64_t table = PCI_MMIO + 0x20000;
    unsigned cap;

    vp_new(&v);
    f = (struct pci_fn *)v.fn;
    cap = cfg_cap(&v.p, FN, PCI_CAP_MSIX, 0);
    ck_assert_uint_eq(cfg_read(&v.p, FN, cap + 2, 2), 1);
    cfg_write(&v.p, FN, PCI_BAR0 + 4, (uint32_t)table, 4);
    map_bar4(&v.p, FN, PCI_MMIO);
    wr32(v.p.r, table, (uint32_t)RIG_RAM + 0x100 + 3); /* the low bits are reserved */
    wr32(v.p.r, table + 4, 0);
    wr32(v.p.r, table + 8, 0x1234);
    ck_assert_uint_eq(rd32(v.p.r, table + 12), 1);
    ck_assert(!pci_message(f, 0)); /* off */
    cfg_write(&v.p, FN, cap + 2, 0x8000, 2);
    ck_assert(pci_message(f, 0));
    ck_assert_uint_eq(rd32(v.p.r, table + 0x800), 1);
    ck_assert_uint_eq(rd32(v.p.r, RIG_RAM + 0x100), 0);
    wr32(v.p.r, table + 12, 0xfffffffe);
    ck_assert_uint_eq(rd32(v.p.r, RIG_RAM + 0x100), 0x1234);
    ck_assert_uint_eq(rd32(v.p.r, table + 12), 0);
    ck_assert_uint_eq(rd32(v.p.r, table + 0x800), 0);
    wr32(v.p.r, table + 8, 0x5678);
    cfg_write(&v.p, FN, cap + 2, 0xc000, 2); /* all masked */
    ck_assert(pci_message(f, 0));
    ck_assert_uint_eq(rd32(v.p.r, RIG_RAM + 0x100), 0x1234);
    rig_state_round_trip(v.fn);
    cfg_write(&v.p, FN, cap + 2, 0x8000, 2);
    ck_assert_uint_eq(rd32(v.p.r, RIG_RAM + 0x100), 0x5678);
    ck_assert(pci_message(f, 63)); /* no such vector */
    pci_rig_free(&v.p);
}
END_TEST

START_TEST(virtio_is_reached_by_bar_and_by_config_space)
{
    struct vp v;
    unsigned cap = 0, window;

    vp_new(&v);
    for (unsigned i = 0; i < 5; i++) {
        cap = cfg_cap(&v.p, FN, PCI_CAP_VENDOR, i);
        ck_assert_uint_ne(cap, 0);
        if (cfg_read(&v.p, FN, cap + 3, 1) == 5) {
            break;
        }
    }
    window = cap;
    map_bar4(&v.p, FN, PCI_MMIO);
    rig_write(v.p.r, PCI_MMIO + 0x14, 1, 1);
    ck_assert_uint_eq(rig_read(v.p.r, PCI_MMIO + 0x14, 1), 1);
    cfg_write(&v.p, FN, window + 4, 4, 1);
    cfg_write(&v.p, FN, window + 8, 0x14, 4);
    cfg_write(&v.p, FN, window + 12, 1, 4);
    ck_assert_uint_eq(cfg_read(&v.p, FN, window + 16, 1), 1);
    cfg_write(&v.p, FN, window + 16, 3, 1);
    ck_assert_uint_eq(rig_read(v.p.r, PCI_MMIO + 0x14, 1), 3);
    cfg_write(&v.p, FN, window + 8, 0xfffffffc, 4); /* outside: nothing */
    cfg_write(&v.p, FN, window + 16, 0, 4);
    (void)cfg_read(&v.p, FN, window + 16, 4);
    rig_write(v.p.r, PCI_MMIO + 0x16, 9, 2); /* a queue that is not there */
    ck_assert_uint_eq(rig_read(v.p.r, PCI_MMIO + 0x18, 2), 0);
    ck_assert_uint_eq(rig_read(v.p.r, PCI_MMIO + 0x1a, 2), 0xffff);
    rig_write(v.p.r, PCI_MMIO + 0x1c, 1, 2);
    rig_state_round_trip(v.fn);
    rig_write(v.p.r, PCI_MMIO + 0x14, 0, 1);
    ck_assert_uint_eq(rig_read(v.p.r, PCI_MMIO + 0x14, 1), 0);
    pci_rig_free(&v.p);
}
END_TEST

START_TEST(slots_are_taken_once)
{
    struct vp v;
    struct device *d;
    struct err e = ERR_INIT;

    vp_new(&v);
    d = pci_rig_device(&v.p, &pcie_root_port_class);
    ck_assert_int_eq(dev_set_ptr(d, "bus", pci_host_bus(v.p.host), NULL), 0);
    ck_assert_int_eq(dev_set_u64(d, "addr", FN, NULL), 0);
    ck_assert_int_eq(dev_realize(d, &e), -EBUSY);
    dev_free(d);
    pci_rig_free(&v.p);
}
END_TEST

/* --- hot-plug --- */

enum { PORT = PCI_DEVFN(3, 0), CARD = 0x100, SLOT_CONTROL = 0x18, SLOT_STATUS = 0x1a };

struct slot {
    struct vp v;
    struct device *port;
    unsigned cap, answers;
    enum pci_slot_event last;
};

static void slot_new(struct slot *s)
{
    memset(s, 0, sizeof(*s));
    pci_rig_new(&s->v.p);
    s->port = pci_rig_device(&s->v.p, &pcie_root_port_class);
    ck_assert_int_eq(dev_set_u64(s->port, "slot", 7, NULL), 0);
    pci_rig_plug(&s->v.p, s->port, NULL, PORT);
    rig_start(s->v.p.r);
    pci_host_assign(s->v.p.host);
    s->cap = cfg_cap(&s->v.p, PORT, PCI_CAP_EXPRESS, 0);
}

static unsigned slot_get(struct slot *s, unsigned at)
{
    return cfg_read(&s->v.p, PORT, s->cap + at, 2);
}

static void slot_set(struct slot *s, unsigned at, unsigned value)
{
    cfg_write(&s->v.p, PORT, s->cap + at, value, 2);
    rig_turn(s->v.p.r);
}

static void slot_card(struct slot *s)
{
    add_rng(&s->v, pci_root_port_bus(s->port), 0);
    pci_root_port_plugged(s->port);
}

static void slot_answer(void *arg, struct device *port, enum pci_slot_event what)
{
    struct slot *s = arg;

    ck_assert_ptr_eq(port, s->port);
    s->answers++;
    s->last = what;
}

static int slot_ask(struct slot *s)
{
    struct err e = ERR_INIT;
    int rc = pci_root_port_ask(s->port, slot_answer, s, &e);

    rig_turn(s->v.p.r);
    return rc;
}

static void slot_take(struct slot *s)
{
    dev_free(s->v.fn);
    dev_free(s->v.behind);
    pci_root_port_emptied(s->port);
}

START_TEST(slot_tells_of_a_card_that_comes)
{
    struct slot s;

    slot_new(&s);
    ck_assert_uint_eq(cfg_read(&s.v.p, PORT, s.cap + 0x14, 4), 7u << 19 | 1u << 18 | 0x5b);
    ck_assert_uint_eq(slot_get(&s, SLOT_STATUS), 0);
    ck_assert_uint_eq(cfg_read(&s.v.p, CARD, 0, 4), 0xffffffff);
    ck_assert(!pci_root_port_taken(s.port));
    slot_set(&s, SLOT_CONTROL, 0x1029 | 0x300);
    slot_card(&s);
    ck_assert(pci_root_port_taken(s.port));
    ck_assert_uint_eq(slot_get(&s, SLOT_STATUS), 0x148); /* present, changed, link changed */
    ck_assert_uint_eq(slot_get(&s, 0x12), 0x2011);       /* link active */
    ck_assert_uint_eq(s.v.p.wire[3].level, 1);
    ck_assert_uint_eq(cfg_read(&s.v.p, CARD, 0, 4), 0x10441af4);
    slot_set(&s, SLOT_STATUS, 0x08);
    ck_assert_uint_eq(s.v.p.wire[3].level, 1); /* the link's event is left */
    slot_set(&s, SLOT_STATUS, 0x100);
    ck_assert_uint_eq(s.v.p.wire[3].level, 0);
    ck_assert_uint_eq(slot_get(&s, SLOT_STATUS), 0x40);
    rig_state_round_trip(s.port);
    ck_assert_uint_eq(slot_get(&s, SLOT_STATUS), 0x40);
    pci_rig_free(&s.v.p);
}
END_TEST

START_TEST(slot_gives_its_card_back_when_switched_off)
{
    struct slot s;

    slot_new(&s);
    slot_set(&s, SLOT_CONTROL, 0x129);
    ck_assert_int_eq(slot_ask(&s), -ENXIO);
    slot_card(&s);
    slot_set(&s, SLOT_STATUS, 0x11f);
    cfg_write(&s.v.p, CARD, PCI_COMMAND, PCI_CMD_MASTER, 2);
    ck_assert_int_eq(slot_ask(&s), 0);
    ck_assert_int_eq(slot_ask(&s), -EALREADY);
    ck_assert_uint_eq(slot_get(&s, SLOT_STATUS), 0x41); /* the button */
    ck_assert_uint_eq(s.answers, 0);
    slot_set(&s, SLOT_STATUS, 1);
    slot_set(&s, SLOT_CONTROL, 0x229); /* thinking */
    slot_set(&s, SLOT_CONTROL, 0x129); /* no */
    ck_assert_uint_eq(s.answers, 1);
    ck_assert_int_eq(s.last, PCI_SLOT_REFUSED);
    ck_assert_int_eq(slot_ask(&s), 0);
    slot_set(&s, SLOT_CONTROL, 0x229);
    slot_set(&s, SLOT_CONTROL, 0x629); /* off */
    ck_assert_uint_eq(s.answers, 2);
    ck_assert_int_eq(s.last, PCI_SLOT_RELEASED);
    ck_assert_uint_eq(cfg_read(&s.v.p, CARD, 0, 4), 0xffffffff);
    slot_take(&s);
    ck_assert_uint_eq(slot_get(&s, SLOT_STATUS) & 0x48, 0x08);
    ck_assert_uint_eq(slot_get(&s, 0x12), 0);
    /* One that comes now has to wait for power. */
    slot_card(&s);
    ck_assert_uint_eq(cfg_read(&s.v.p, CARD, 0, 4), 0xffffffff);
    slot_set(&s, SLOT_CONTROL, 0x129);
    ck_assert_uint_eq(cfg_read(&s.v.p, CARD, 0, 4), 0x10441af4);
    ck_assert_uint_eq(slot_get(&s, 0x12), 0x2011);
    /* Switched off without having been asked: the card stays, reset. */
    cfg_write(&s.v.p, CARD, PCI_COMMAND, PCI_CMD_MASTER, 2);
    slot_set(&s, SLOT_CONTROL, 0x729);
    slot_set(&s, SLOT_CONTROL, 0x129);
    ck_assert_uint_eq(cfg_read(&s.v.p, CARD, PCI_COMMAND, 2), 0);
    ck_assert_uint_eq(s.answers, 2);
    pci_rig_free(&s.v.p);
}
END_TEST

START_TEST(slot_without_a_driver_gives_back_only_what_nobody_uses)
{
    struct slot s;

    slot_new(&s);
    slot_card(&s);
    cfg_write(&s.v.p, CARD, PCI_COMMAND, PCI_CMD_MASTER, 2);
    ck_assert_int_eq(slot_ask(&s), -ENODEV);
    ck_assert_uint_eq(s.answers, 0);
    cfg_write(&s.v.p, CARD, PCI_COMMAND, 0, 2);
    ck_assert_int_eq(slot_ask(&s), 0);
    ck_assert_uint_eq(s.answers, 1);
    ck_assert_int_eq(s.last, PCI_SLOT_RELEASED);
    slot_take(&s);
    ck_assert(!pci_root_port_taken(s.port));
    /* A reset gives back what a driver was asked for and had not answered about. */
    slot_card(&s);
    slot_set(&s, SLOT_CONTROL, 0x129);
    ck_assert_int_eq(slot_ask(&s), 0);
    ck_assert_uint_eq(s.answers, 1);
    vm_reset(s.v.p.r->vm);
    rig_turn(s.v.p.r);
    ck_assert_uint_eq(s.answers, 2);
    ck_assert_int_eq(s.last, PCI_SLOT_RELEASED);
    pci_rig_free(&s.v.p);
}
END_TEST

struct heard {
    struct vm *vm;
    enum vm_state state;
    char reason[64];
    unsigned panics;
    enum vm_panic what;
};

static void on_state(void *arg, enum vm_state state, const char *reason)
{
    struct heard *h = arg;

    h->state = state;
    snprintf(h->reason, sizeof(h->reason), "%s", reason);
}

static void on_panic(void *arg, enum vm_panic what)
{
    struct heard *h = arg;

    h->panics++;
    h->what = what;
}

START_TEST(panic_device_does_what_was_chosen)
{
    static const enum vm_state after[] = {
        [VM_PANIC_END] = VM_STOPPED, [VM_PANIC_PAUSE] = VM_PAUSED, [VM_PANIC_NONE] = VM_RUNNING
    };

    for (unsigned what = VM_PANIC_END; what <= VM_PANIC_NONE; what++) {
        struct pci_rig p;
        struct heard h = { .state = VM_RUNNING };

        pci_rig_new(&p);
        pci_rig_plug(&p, pci_rig_device(&p, &pvpanic_pci_class), NULL, FN);
        rig_start(p.r);
        p.r->vm->on_state = on_state;
        p.r->vm->on_panic = on_panic;
        p.r->vm->on_state_arg = &h;
        p.r->vm->panic = (enum vm_panic)what;
        ck_assert_uint_eq(cfg_read(&p, FN, 0, 4), 0x00111b36);
        ck_assert_uint_eq(cfg_read(&p, FN, 8, 4), 0x08800001);
        cfg_write(&p, FN, 0x10, 0xffffffff, 4);
        ck_assert_uint_eq(cfg_read(&p, FN, 0x10, 4), 0xfffffff0);
        cfg_write(&p, FN, 0x10, PCI_MMIO, 4);
        cfg_write(&p, FN, PCI_COMMAND, PCI_CMD_MEMORY, 2);
        ck_assert_uint_eq(rig_read(p.r, PCI_MMIO, 1), 3); /* panicked, crash kernel loaded */
        rig_write(p.r, PCI_MMIO, 2, 1);
        rig_write(p.r, PCI_MMIO, 4, 1);
        rig_write(p.r, PCI_MMIO + 1, 1, 1);
        rig_turn(p.r);
        ck_assert_uint_eq(h.panics, 0);
        rig_write(p.r, PCI_MMIO, 1, 1);
        rig_turn(p.r);
        ck_assert_uint_eq(h.panics, 1);
        ck_assert_uint_eq(h.what, what);
        ck_assert_int_eq(p.r->vm->state, after[what]);
        if (what != VM_PANIC_NONE) {
            ck_assert_str_eq(h.reason, "guest-panic");
        }
        pci_rig_free(&p);
    }
}
END_TEST

static Suite *suite_pci(void)
{
    Suite *s = suite_create("pci");
    TCase *t = tcase_create("pci");

    tcase_add_test(t, functions_that_are_absent_read_as_ones);
    tcase_add_test(t, bars_tell_their_size_and_kind);
    tcase_add_test(t, a_bar_is_at_its_new_place_with_the_next_access);
    tcase_add_test(t, assigned_bars_are_apart_and_in_the_windows);
    tcase_add_test(t, a_wire_is_high_while_any_function_holds_it);
    tcase_add_test(t, msix_holds_back_what_is_masked);
    tcase_add_test(t, virtio_is_reached_by_bar_and_by_config_space);
    tcase_add_test(t, slots_are_taken_once);
    tcase_add_test(t, slot_tells_of_a_card_that_comes);
    tcase_add_test(t, slot_gives_its_card_back_when_switched_off);
    tcase_add_test(t, slot_without_a_driver_gives_back_only_what_nobody_uses);
    tcase_add_test(t, panic_device_does_what_was_chosen);
    suite_add_tcase(s, t);
    return s;
}

int main(int argc, char **argv)
{
    return test_main(argc, argv, suite_pci, NULL);
}
