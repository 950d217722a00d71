/* SPDX-License-Identifier: Apache-2.0 */
/*
 * microvm: an x86-64 board with what a Linux kernel needs and nothing besides: local APICs (the engine's), an I/O APIC, a serial port, virtio-mmio. There is no
 * firmware and no PCI; kernels are entered directly. Owns RAM; the devices belong to the VM. Main thread.
 */
#include "devices/board/microvm.h"

#include "devices/input/virtio_input.h"
#include "devices/irqchip/ioapic.h"
#include "devices/registry.h"
#include "engine/base/log.h"
#include "engine/core/vm.h"

#include <errno.h>
#include <string.h>

/* --- devices
 * --------------------------------------------------------------------------------- */

static int add_ioapic(struct board *b, struct err *e)
{
    int rc = dev_new(b->p.vm, &ioapic_class, "ioapic", &b->ioapic, e);

    if (rc == 0) {
        rc = parts_finish(b->ioapic, dev_set_u64(b->ioapic, "id", b->p.cfg.cpus & 255, e), e);
    }
    if (rc != 0) {
        return rc;
    }
    b->p.vm->extint.eoi = ioapic_eoi;
    b->p.vm->extint.opaque = b->ioapic;
    return mem_map(b->p.vm->root, MICROVM_IOAPIC, 0, b->ioapic->mmio[0], e);
}

static int add_serial(struct board *b, struct err *e)
{
    struct device *d = NULL;
    int rc = dev_new(b->p.vm, &ns16550a_class, "serial0", &d, e);

    if (rc == 0) {
        rc = dev_set_ptr(d, "chr", b->p.cfg.virtio_console ? NULL : b->p.cfg.console, e);
        rc = rc == 0 ? dev_set_u64(d, "clock-hz", 1843200, e) : rc;
        rc = parts_finish(d, rc, e);
    }
    if (rc != 0) {
        return rc;
    }
    d->irq[0] = ioapic_input(b->ioapic, MICROVM_COM1_PIN, 0);
    b->com1 = mem_new_alias("com1", d->mmio[0], 0, 8); /* of a block that is wider */
    return mem_map(b->p.vm->port_root, MICROVM_COM1, 0, b->com1, e);
}

static int add_control(struct board *b, struct err *e)
{
    struct device *d = NULL;
    int rc = parts_plain(&b->p, &pc_control_class, "control", &d, e);

    if (rc == 0) {
        rc = mem_map(b->p.vm->port_root, MICROVM_KBC, 0, d->mmio[0], e);
    }
    return rc != 0 ? rc : mem_map(b->p.vm->port_root, MICROVM_PM1, 0, d->mmio[1], e);
}

static void send_msi(void *opaque, uint64_t address, uint32_t data)
{
    struct vm *vm = opaque;

    vm->engine->msi(vm, address, data);
}

static int add_devices(struct board *b, struct err *e)
{
    int rc = 0;

    if (!b->p.vm->engine->msi) {
        return err_set(e, -ENOTSUP, "machine microvm: engine %s has no local APICs",
                       b->p.vm->engine->name);
    }
    b->p.vm->msi = (struct irq_msi){ .send = send_msi, .opaque = b->p.vm };
    rc = add_ioapic(b, e);
    rc = rc == 0 ? add_serial(b, e) : rc;
    rc = rc == 0 ? add_control(b, e) : rc;
    return rc == 0 ? microvm_add_slots(b, e) : rc;
}

/* --- memory
 * ---------------------------------------------------------------------------------- */

static int add_memory(struct board *b, struct err *e)
{
    uint64_t all = b->p.cfg.memory, low = all < MICROVM_GAP ? all : MICROVM_GAP;
    int rc = mem_new_ram("ram", all, &b->ram, e);

    if (rc != 0 || low == all) {
        return rc != 0 ? rc : mem_map(b->p.vm->root, 0, 0, b->ram, e);
    }
    b->low = mem_new_alias("ram-low", b->ram, 0, low);
    b->high = mem_new_alias("ram-high", b->ram, low, all - low);
    rc = mem_map(b->p.vm->root, 0, 0, b->low, e);
    return rc != 0 ? rc : mem_map(b->p.vm->root, MICROVM_HIGH, 0, b->high, e);
}

/* --- class
 * ----------------------------------------------------------------------------------- */

static int check_config(const struct board_config *c, struct err *e)
{
    const char *lacks = c->firmware.path      ? "firmware"
                        : c->flash[0]         ? "banks of flash"
                        : c->watchdog         ? "a watchdog"
                        : c->n_memory_devices ? "memory devices"
                        : c->sound            ? "a sound card"
                        : c->panic            ? "a panic device"
                        : c->iommu            ? "an IOMMU"
                        : c->n_usb            ? "USB"
                        : c->root_ports       ? "slots for hot-plug"
                                              : NULL;

    if (lacks) {
        return err_set(e, -ENOTSUP, "machine microvm has no place for %s", lacks);
    }
    if (!c->kernel.path) {
        return err_set(
            e, -EINVAL,
            "nothing to run: machine microvm starts a kernel directly (a bzImage, or an ELF "
            "program with a PVH entry); set 'kernel'");
    }
    return microvm_check_slots(c, e);
}

static void microvm_free(struct board *b)
{
    if (b) {
        mem_free(b->com1);
        mem_free(b->low);
        mem_free(b->high);
        mem_free(b->ram);
        free(b);
    }
}

static void board_reset(void *arg)
{
    struct board *b = arg;
    struct err e = ERR_INIT;

    if (!b->fresh && microvm_load(b, &e) != 0) {
        log_error("devices", "reset: %s", e.msg);
        vm_request(b->p.vm, VM_REQ_CRASH, "reload-failed");
    }
    b->fresh = false;
    microvm_start(b);
}

static int build_all(struct board *b, struct err *e)
{
    int rc = check_config(&b->p.cfg, e);

    rc = rc == 0 ? vm_add_vcpus(b->p.vm, b->p.cfg.cpus, b->p.cfg.cpu_model, e) : rc;
    rc = rc == 0 ? add_memory(b, e) : rc;
    rc = rc == 0 ? add_devices(b, e) : rc;
    if (rc == 0) {
        mem_commit(b->p.vm->mem);
        rc = microvm_load(b, e);
    }
    return rc;
}

static int microvm_build(struct vm *vm, const struct board_config *cfg, struct board **out,
                         struct err *e)
{
    struct board *b = xnew(struct board);
    int rc;

    b->p.vm = vm;
    b->p.cfg = *cfg;
    rc = build_all(b, e);
    if (rc != 0) {
        parts_close(&b->p);
        microvm_free(b);
        return rc;
    }
    b->fresh = true;
    vm->on_reset = board_reset;
    vm->on_reset_arg = b;
    *out = b;
    return 0;
}

static int microvm_powerdown(struct board *b, struct err *e)
{
    return virtio_input_tap(b->button, INPUT_KEY_POWER, e);
}

static const char *const microvm_archs[] = { "x86_64", NULL };

const struct board_class microvm_board = {
    .name = "microvm",
    .doc = "x86-64 board without firmware and PCI: a serial port and virtio-mmio",
    .archs = microvm_archs,
    .ram_base = 0,
    .build = microvm_build,
    .free = microvm_free,
    .powerdown = microvm_powerdown,
    .nic = parts_nic,
    .serial = parts_serial,
    .input = parts_input,
};
