/* SPDX-License-Identifier: Apache-2.0 */
/*
 * q35: a PC as the firmware and systems of the last fifteen years know it: Q35 host bridge, ICH9, PCI Express, and the devices of the first PCs behind it. Local APICs are the engine's. It
 * starts its firmware, SeaBIOS or OVMF, which finds everything else by fw_cfg. Owns RAM and the firmware's ROM; the devices belong to the VM. Main thread.
 */
#include "devices/board/q35.h"

#include "devices/block/pflash.h"
#include "devices/bus/ich9_lpc.h"
#include "devices/bus/pci_host.h"
#include "devices/display/vga.h"
#include "devices/input/virtio_input.h"
#include "devices/irqchip/i8259.h"
#include "devices/irqchip/ioapic.h"
#include "devices/registry.h"
#include "devices/timer/hpet.h"
#include "engine/arch/x86/cpu.h"
#include "engine/base/fd.h"
#include "engine/base/mem.h"
#include "engine/core/vm.h"
#include "storage/block.h"

#include <endian.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>

#define MIB (1ull << 20)
#define BIOS_MOST (16 * MIB)

/* Wires to the same pin. */
enum { WIRE_DEVICE, WIRE_OTHER, WIRE_PCI };

/* --- interrupts
 * ------------------------------------------------------------------------------ */

/* An interrupt of the first PCs goes to both controllers; the timer's is at pin 2 of the second one. */
static void isa_set(void *opaque, unsigned n, bool level)
{
    struct board *b = opaque;
    unsigned irq = n % 16, wire = n / 16;
    struct irq_line pic = i8259_input(b->pic, irq, wire),
                    apic = ioapic_input(b->ioapic, irq == 0 ? 2 : irq, wire);

    irq_set(&pic, level);
    irq_set(&apic, level);
}

static struct irq_line isa_irq(struct board *b, unsigned irq, unsigned wire)
{
    return (struct irq_line){ .set = isa_set, .opaque = b, .n = wire * 16 + irq };
}

static int pc_ack(void *opaque)
{
    return i8259_ack(((struct board *)opaque)->pic);
}

static void pc_eoi(void *opaque, unsigned vector)
{
    ioapic_eoi(((struct board *)opaque)->ioapic, vector);
}

static void send_msi(void *opaque, uint64_t address, uint32_t data)
{
    struct vm *vm = opaque;

    vm->engine->msi(vm, address, data);
}

/* --- ports
 * ----------------------------------------------------------------------------------- */

static int map_port(struct board *b, struct device *d, unsigned block, unsigned port,
                    struct err *e)
{
    return mem_map(b->p.vm->port_root, port, 0, d->mmio[block], e);
}

/* Part of a block. */
static int map_part(struct board *b, struct device *d, unsigned offset, unsigned size,
                    unsigned port, struct err *e)
{
    struct mem_region *r = mem_new_alias(d->id, d->mmio[0], offset, size);

    b->window[b->n_windows++] = r;
    return mem_map(b->p.vm->port_root, port, 0, r, e);
}

/* --- devices of the first PCs
 * ----------------------------------------------------------------------------- */

static int add_irqchips(struct board *b, struct err *e)
{
    struct vm *vm = b->p.vm;
    int rc = parts_plain(&b->p, &i8259_class, "pic", &b->pic, e);

    rc = rc == 0 ? parts_plain(&b->p, &ioapic_class, "ioapic", &b->ioapic, e) : rc;
    if (rc != 0) {
        return rc;
    }
    b->pic->irq[0] = irq_to_vcpu(vm->vcpus[0], X86_IRQ_EXTINT);
    vm->extint.ack = pc_ack;
    vm->extint.eoi = pc_eoi;
    vm->extint.opaque = b;
    vm->msi = (struct irq_msi){ .send = send_msi, .opaque = vm };
    rc = mem_map(vm->root, Q35_IOAPIC, 0, b->ioapic->mmio[0], e);
    rc = rc == 0 ? map_part(b, b->pic, Q35_PIC1, 2, Q35_PIC1, e) : rc;
    rc = rc == 0 ? map_part(b, b->pic, Q35_PIC2, 2, Q35_PIC2, e) : rc;
    return rc == 0 ? map_port(b, b->pic, 1, Q35_ELCR, e) : rc;
}

/* The clock's interrupt goes its way, and wakes a guest that sleeps. */
static void rtc_asks(void *opaque, unsigned n, bool level)
{
    struct board *b = opaque;

    (void)n;
    irq_set(&b->rtc_irq, level);
    if (level && b->lpc) {
        ich9_clock(b->lpc);
    }
}

static int add_timers(struct board *b, struct err *e)
{
    struct device *pit = NULL;
    int rc = parts_plain(&b->p, &hpet_class, "hpet", &b->hpet, e);

    rc = rc == 0 ? parts_plain(&b->p, &i8254_class, "pit", &pit, e) : rc;
    rc = rc == 0 ? parts_plain(&b->p, &mc146818_class, "rtc", &b->rtc, e) : rc;
    if (rc != 0) {
        return rc;
    }
    b->hpet->irq[0] = isa_irq(b, 0, WIRE_DEVICE);
    b->hpet->irq[1] = isa_irq(b, Q35_IRQ_RTC, WIRE_DEVICE);
    for (unsigned pin = 2; pin < IOAPIC_PINS; pin++) {
        hpet_set_pin(b->hpet, pin, ioapic_input(b->ioapic, pin, WIRE_OTHER));
    }
    pit->irq[0] = hpet_legacy_input(b->hpet, 0);
    b->rtc_irq = hpet_legacy_input(b->hpet, 1);
    b->rtc->irq[0] = (struct irq_line){ .set = rtc_asks, .opaque = b };
    rc = mem_map(b->p.vm->root, Q35_HPET, 0, b->hpet->mmio[0], e);
    rc = rc == 0 ? map_port(b, pit, 0, Q35_PIT, e) : rc;
    rc = rc == 0 ? map_port(b, pit, 1, Q35_SPEAKER, e) : rc;
    return rc == 0 ? map_port(b, b->rtc, 0, Q35_RTC, e) : rc;
}

static int add_keyboard(struct board *b, struct err *e)
{
    int rc = parts_plain(&b->p, &i8042_class, "ps2", &b->kbc, e);

    if (rc != 0) {
        return rc;
    }
    b->kbc->irq[0] = isa_irq(b, Q35_IRQ_KBD, WIRE_DEVICE);
    b->kbc->irq[1] = isa_irq(b, Q35_IRQ_MOUSE, WIRE_DEVICE);
    b->p.input[BOARD_KEYBOARD] = b->p.input[BOARD_MOUSE] = b->kbc;
    rc = map_part(b, b->kbc, 0, 1, Q35_KBC, e);
    rc = rc == 0 ? map_part(b, b->kbc, 4, 1, Q35_KBC + 4, e) : rc;
    return rc == 0 ? map_port(b, b->kbc, 1, Q35_PORT92, e) : rc;
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
    d->irq[0] = isa_irq(b, Q35_IRQ_COM1, WIRE_DEVICE);
    return map_part(b, d, 0, 8, Q35_COM1, e);
}

static int add_legacy(struct board *b, struct err *e)
{
    struct device *d = NULL;
    int rc = add_irqchips(b, e);

    rc = rc == 0 ? add_timers(b, e) : rc;
    rc = rc == 0 ? add_keyboard(b, e) : rc;
    rc = rc == 0 ? add_serial(b, e) : rc;
    rc = rc == 0 ? parts_plain(&b->p, &debug_port_class, "debug", &d, e) : rc;
    rc = rc == 0 ? map_port(b, d, 0, Q35_DEBUG, e) : rc;
    rc = rc == 0 ? parts_plain(&b->p, &fw_cfg_class, "fw-cfg", &b->fw_cfg, e) : rc;
    return rc == 0 ? map_port(b, b->fw_cfg, 1, Q35_FW_CFG, e) : rc;
}

/* --- PCI
 * ------------------------------------------------------------------------------------- */

/* The next power of two that leaves room for all of memory and as much again, at least 256 GiB. */
uint64_t q35_mmio64_end(uint64_t from)
{
    uint64_t end = 1ull << 38;

    while (end < from * 2) {
        end *= 2;
    }
    return end;
}

static int map_host(struct board *b, const struct parts_pci *p, struct err *e)
{
    struct vm *vm = b->p.vm;
    int rc = mem_map(vm->root, p->mmio, -1, pci_host_region(b->p.pci, PCI_REGION_MMIO), e);

    rc = rc == 0
             ? mem_map(vm->root, p->mmio64, -1, pci_host_region(b->p.pci, PCI_REGION_MMIO64), e)
             : rc;
    return rc == 0 ? mem_map(vm->port_root, 0, -1, pci_host_region(b->p.pci, PCI_REGION_PIO), e)
                   : rc;
}

static int add_host(struct board *b, struct err *e)
{
    uint64_t from = parts_memory_end(&b->p);
    struct parts_pci p = { .mmio = q35_low_ram(b),
                           .own_bridge = true,
                           .direct_from = Q35_FIRST_DIRECT };
    struct device *ports = NULL;
    int rc;

    p.mmio_size = Q35_HIGH - p.mmio;
    b->mmio64 = p.mmio64 = (from + (1ull << 30) - 1) & ~((1ull << 30) - 1);
    p.mmio64_size = q35_mmio64_end(p.mmio64) - p.mmio64;
    rc = parts_add_host(&b->p, &p, e);
    rc = rc == 0 ? map_host(b, &p, e) : rc;
    rc = rc == 0 ? dev_new(b->p.vm, &pci_ports_class, "pci-ports", &ports, e) : rc;
    if (rc != 0) {
        return rc;
    }
    rc = dev_set_ptr(ports, "host", b->p.pci, e);
    rc = parts_finish(ports, rc, e);
    return rc == 0 ? map_port(b, ports, 0, Q35_PCI, e) : rc;
}

static int add_mch(struct board *b, struct err *e)
{
    int rc = dev_new(b->p.vm, &q35_mch_class, "mch", &b->mch, e);

    rc = rc == 0 ? dev_set_ptr(b->mch, "ram", b->ram, e) : rc;
    rc = rc == 0 ? dev_set_ptr(b->mch, "host", b->p.pci, e) : rc;
    if (rc != 0) {
        dev_free(b->mch);
        return rc;
    }
    return parts_plug_at(&b->p, b->mch, PCI_DEVFN(0, 0), false, e);
}

/* SeaBIOS knows how to go on; OVMF would have to be told of it, and to keep memory for it. */
bool q35_sleeps(const struct board *b)
{
    return !b->p.cfg.flash[0];
}

static int add_lpc(struct board *b, struct err *e)
{
    int rc = dev_new(b->p.vm, &ich9_lpc_class, "lpc", &b->lpc, e);

    rc = rc == 0 ? dev_set_ptr(b->lpc, "host", b->p.cfg.guard, e) : rc;
    rc = rc == 0 ? dev_set_bool(b->lpc, "sleeps", q35_sleeps(b), e) : rc;
    if (rc != 0) {
        dev_free(b->lpc);
        return rc;
    }
    rc = parts_plug_at(&b->p, b->lpc, PCI_DEVFN(Q35_SLOT_CHIPSET, 0), true, e);
    if (rc != 0) {
        return rc;
    }
    b->lpc->irq[0] = isa_irq(b, Q35_IRQ_SCI, WIRE_OTHER);
    for (unsigned i = 0; i < ICH9_PIRQS; i++) {
        ich9_set_apic(b->lpc, i, ioapic_input(b->ioapic, 16 + i, WIRE_DEVICE));
        /* Slots turn their pins over E to H; those of the chip set have A to D. */
        b->p.pci->irq[i] = ich9_pirq(b->lpc, (i + 4) % ICH9_PIRQS);
    }
    for (unsigned i = 0; i < I8259_PINS; i++) {
        ich9_set_pic(b->lpc, i, i8259_input(b->pic, i, WIRE_PCI));
    }
    return map_port(b, b->lpc, 1, Q35_APM, e);
}

static void tell_genid(void *opaque, unsigned n, bool level)
{
    if (level) {
        ich9_event(((struct board *)opaque)->lpc, n);
    }
}

static int add_genid(struct board *b, struct err *e)
{
    int rc = parts_plain(&b->p, &vmgenid_class, "genid", &b->genid, e);

    if (rc != 0) {
        return rc;
    }
    b->genid->irq[0] = (struct irq_line){ tell_genid, b, Q35_EVENT_GENID };
    return mem_map(b->p.vm->root, Q35_GENID, 0, b->genid->mmio[0], e);
}

/* Ports and memory of the first PCs; the rest of it is on PCI. */
static int map_vga(struct board *b, struct err *e)
{
    struct device *vga = b->p.cfg.screen.gpu == BOARD_GPU_VGA ? dev_find(b->p.vm, "gpu0")
                                                              : NULL;
    int rc;

    if (!vga) {
        return 0;
    }
    rc = map_port(b, vga, VGA_BLOCK_PORTS, VGA_PORTS, e);
    rc = rc == 0 ? map_port(b, vga, VGA_BLOCK_DISPI, VGA_DISPI_PORTS, e) : rc;
    return rc == 0 ? mem_map(b->p.vm->root, VGA_WINDOW, 0, vga->mmio[VGA_BLOCK_WINDOW], e) : rc;
}

static int add_pci(struct board *b, struct err *e)
{
    struct device *smbus = NULL;
    int rc = add_host(b, e);

    rc = rc == 0 ? add_mch(b, e) : rc;
    rc = rc == 0 ? add_lpc(b, e) : rc;
    rc = rc == 0 ? add_genid(b, e) : rc;
    rc = rc == 0 ? dev_new(b->p.vm, &ich9_smbus_class, "smbus", &smbus, e) : rc;
    rc = rc == 0 ? parts_plug_at(&b->p, smbus, PCI_DEVFN(Q35_SLOT_CHIPSET, 3), true, e) : rc;
    b->p.map_screen = true;
    b->p.sata_at = PCI_DEVFN(Q35_SLOT_CHIPSET, 2);
    rc = rc == 0 ? parts_add_pci(&b->p, e) : rc;
    return rc == 0 ? map_vga(b, e) : rc;
}

/* --- memory and firmware
 * ------------------------------------------------------------------------- */

uint64_t q35_low_ram(const struct board *b)
{
    uint64_t all = b->p.cfg.memory;

    return all < Q35_GAP_MOST ? all : Q35_GAP;
}

static int add_memory(struct board *b, struct err *e)
{
    struct mem_region *root = b->p.vm->root;
    uint64_t all = b->p.cfg.memory, low = q35_low_ram(b);
    int rc = mem_new_ram("ram", all, &b->ram, e);

    if (rc != 0) {
        return rc;
    }
    b->legacy = mem_new_alias("ram-legacy", b->ram, 0, 0xa0000);
    b->low = mem_new_alias("ram-low", b->ram, MIB, low - MIB);
    rc = mem_map(root, 0, 0, b->legacy, e);
    rc = rc == 0 ? mem_map(root, MIB, 0, b->low, e) : rc;
    b->p.memory_end = Q35_HIGH;
    if (rc == 0 && all > low) {
        b->high = mem_new_alias("ram-high", b->ram, low, all - low);
        b->p.memory_end = Q35_HIGH + all - low;
        rc = mem_map(root, Q35_HIGH, 0, b->high, e);
    }
    return rc;
}

/* The end of the firmware is shown below 1 MiB, too, as long as no RAM is there. */
static int add_bios(struct board *b, struct err *e)
{
    const struct board_file *f = &b->p.cfg.firmware;
    struct mem_region *root = b->p.vm->root;
    struct stat st;
    int rc;

    if (fstat(f->fd, &st) < 0 || st.st_size < (off_t)Q35_BIOS_LOW_SIZE ||
        st.st_size > (off_t)BIOS_MOST || st.st_size % 0x10000) {
        return err_set(e, -EINVAL,
                       "firmware %s: a PC's is a multiple of 64 KiB from 128 KiB to 16 MiB",
                       f->path);
    }
    uint64_t size = (uint64_t)st.st_size;
    rc = mem_new_rom("bios", size, &b->bios, e);
    if (rc != 0) {
        return rc;
    }
    if (fd_pread(f->fd, mem_ram_host(b->bios), size, 0) != (ssize_t)size) {
        return err_set(e, -EIO, "firmware %s cannot be read", f->path);
    }
    b->bios_low = mem_new_alias("bios-low", b->bios, size - Q35_BIOS_LOW_SIZE,
                                Q35_BIOS_LOW_SIZE);
    rc = mem_map(root, Q35_HIGH - size, 0, b->bios, e);
    return rc == 0 ? mem_map(root, Q35_BIOS_LOW, 0, b->bios_low, e) : rc;
}

/* Of an EFI firmware volume's header (UEFI PI 1.7, volume 3 §3.2.1.1). */
enum { VOLUME_LENGTH = 32, VOLUME_SIGNATURE = 40, VOLUME_HEADER = 48 };

/* Length of the firmware volume with which a bank begins; 0: it begins with something else. */
static int first_volume(struct blk_node *node, uint64_t *length, struct err *e)
{
    uint8_t header[VOLUME_HEADER];
    uint64_t le;
    int rc;

    *length = 0;
    if (blk_size(node) < sizeof(header)) {
        return 0;
    }
    rc = blk_pread(node, 0, header, sizeof(header));
    if (rc != 0) {
        return err_set(e, rc, "flash file %s cannot be read: %s", blk_path(node),
                       strerror(-rc));
    }
    if (memcmp(header + VOLUME_SIGNATURE, "_FVH", 4) == 0) {
        memcpy(&le, header + VOLUME_LENGTH, sizeof(le));
        *length = le64toh(le);
    }
    return 0;
}

/*
 * Firmware looks for its variables at an address that is part of its code, and for as many bytes as it was built with: files of
 * other sizes would be read from the wrong place, and its variables made anew at every start. OVMF's two files together
 * are a chip of 1, 2, 4 or 8 MiB.
 */
static int check_flash(struct board *b, struct err *e)
{
    struct blk_node *const *flash = b->p.cfg.flash;
    uint64_t length[2] = { 0 }, all;

    for (unsigned i = 0; i < ARRAY_LEN(length) && flash[i]; i++) {
        int rc = first_volume(flash[i], &length[i], e);

        if (rc != 0) {
            return rc;
        }
        if (length[i] > blk_size(flash[i]) ||
            (i == 1 && length[i] && length[i] != blk_size(flash[i]))) {
            return err_set(e, -EINVAL,
                           "flash file %s has %" PRIu64 " bytes, but the volume in it %" PRIu64
                           ": copy it anew from the firmware's package",
                           blk_path(flash[i]), blk_size(flash[i]), length[i]);
        }
    }
    all = length[0] && length[1] ? blk_size(flash[0]) + blk_size(flash[1]) : 0;
    if (all & (all - 1)) {
        return err_set(e, -EINVAL,
                       "flash files %s and %s, %" PRIu64 " and %" PRIu64
                       " bytes, are not of one firmware: take variables of the same size of "
                       "chip (OVMF_VARS_4M.fd with OVMF_CODE_4M.fd)",
                       blk_path(flash[0]), blk_path(flash[1]), blk_size(flash[0]),
                       blk_size(flash[1]));
    }
    return 0;
}

/* One bank below the other, the first ends at 4 GiB: code, which processors run where it lies, then variables. */
static int add_flash(struct board *b, unsigned i, uint64_t end, struct err *e)
{
    struct blk_node *node = b->p.cfg.flash[i];
    struct mem_region *root = b->p.vm->root, *array;
    uint64_t size = blk_size(node);
    struct device *d = NULL;
    int rc;

    if (size == 0 || size % 4096 || size > Q35_FLASH_MOST - (Q35_HIGH - end)) {
        return err_set(e, -EINVAL,
                       "flash bank %u (%s): a PC's have multiples of 4 KiB, together at most "
                       "8 MiB",
                       i, blk_path(node));
    }
    if (i == 0 && (!blk_readonly(node) || size < Q35_BIOS_LOW_SIZE)) {
        return err_set(e, -EINVAL,
                       "flash bank 0 (%s) is the firmware's code, of 128 KiB at least: set it "
                       "to readonly, and give its variables a bank behind it",
                       blk_path(node));
    }
    rc = parts_new_flash(&b->p, i, &d, e);
    rc = rc == 0 ? dev_set_bool(d, "bytes", true, e) : rc;
    rc = parts_finish(d, rc, e);
    if (rc != 0) {
        return rc;
    }
    array = pflash_region(d);
    b->flash[i] = mem_new_alias("flash", array, 0, size);
    rc = mem_map(root, end - size, 0, b->flash[i], e);
    if (rc == 0 && i == 0) {
        b->bios_low = mem_new_alias("bios-low", array, size - Q35_BIOS_LOW_SIZE,
                                    Q35_BIOS_LOW_SIZE);
        rc = mem_map(root, Q35_BIOS_LOW, 0, b->bios_low, e);
    }
    return rc;
}

static int add_firmware(struct board *b, struct err *e)
{
    uint64_t end = Q35_HIGH;
    int rc = b->p.cfg.flash[0] ? check_flash(b, e) : add_bios(b, e);

    for (unsigned i = 0; i < BOARD_MAX_FLASH && rc == 0 && b->p.cfg.flash[i]; i++) {
        uint64_t size = blk_size(b->p.cfg.flash[i]);

        rc = add_flash(b, i, end, e);
        end -= size;
    }
    return rc;
}

/* --- class
 * ----------------------------------------------------------------------------------- */

static int check_config(const struct board_parts *p, struct err *e)
{
    const struct board_config *c = &p->cfg;

    if (!p->vm->engine->msi) {
        return err_set(e, -ENOTSUP, "machine q35: engine %s has no local APICs",
                       p->vm->engine->name);
    }
    if (c->iommu) {
        return err_set(e, -ENOTSUP,
                       "machine q35 has no place for an IOMMU; machine rv-virt has");
    }
    if (c->memory < 16 * MIB) {
        return err_set(e, -EINVAL, "memory: machine q35 needs 16 MiB at least");
    }
    if (c->kernel.path || c->initrd.path) {
        return err_set(e, -ENOTSUP,
                       "machine q35 starts what its firmware finds on disks; machine microvm "
                       "starts kernels directly");
    }
    if (!c->firmware.path && !c->flash[0]) {
        return err_set(e, -EINVAL,
                       "machine q35 needs firmware: set 'firmware' to \"default\" or to a "
                       "file, or give it banks of flash");
    }
    return 0;
}

/* virtio-mmio is what a configuration says that names no bus; on this board virtio is on PCI. */
static void all_on_pci(struct board_config *c)
{
    for (unsigned i = 0; i < c->n_disks; i++) {
        enum board_disk_bus *bus = &c->disk[i].bus;

        *bus = *bus == BOARD_VIRTIO_MMIO ? BOARD_VIRTIO_PCI
               : *bus == BOARD_SCSI_MMIO ? BOARD_SCSI
                                         : *bus;
    }
    for (unsigned i = 0; i < c->n_nics; i++) {
        c->nic[i].bus = BOARD_NIC_VIRTIO_PCI;
    }
    if (c->screen.gpu == BOARD_GPU_VIRTIO_MMIO) {
        c->screen.gpu = BOARD_GPU_VIRTIO_PCI;
    }
}

static void q35_free(struct board *b)
{
    if (b) {
        for (unsigned i = 0; i < b->n_windows; i++) {
            mem_free(b->window[i]);
        }
        mem_free(b->legacy);
        mem_free(b->low);
        mem_free(b->high);
        mem_free(b->bios_low);
        mem_free(b->flash[0]);
        mem_free(b->flash[1]);
        mem_free(b->bios);
        mem_free(b->ram);
        parts_done(&b->p);
        free(b);
    }
}

static int build_all(struct board *b, struct err *e)
{
    int rc = check_config(&b->p, e);

    rc = rc == 0 ? vm_add_vcpus(b->p.vm, b->p.cfg.cpus, b->p.cfg.cpu_model, e) : rc;
    rc = rc == 0 ? add_memory(b, e) : rc;
    rc = rc == 0 ? add_firmware(b, e) : rc;
    rc = rc == 0 ? add_legacy(b, e) : rc;
    rc = rc == 0 ? add_pci(b, e) : rc;
    rc = rc == 0 ? q35_add_tables(b, e) : rc;
    if (rc == 0) {
        vm_remap(b->p.vm);
    }
    return rc;
}

static int q35_build(struct vm *vm, const struct board_config *cfg, struct board **out,
                     struct err *e)
{
    struct board *b = xnew(struct board);
    int rc;

    b->p.vm = vm;
    b->p.cfg = *cfg;
    all_on_pci(&b->p.cfg);
    rc = build_all(b, e);
    if (rc != 0) {
        parts_close(&b->p);
        q35_free(b);
        return rc;
    }
    *out = b;
    return 0;
}

static int q35_powerdown(struct board *b, struct err *e)
{
    return ich9_power_button(b->lpc, e);
}

static const char *const q35_archs[] = { "x86_64", NULL };

const struct board_class q35_board = {
    .name = "q35",
    .doc = "PC with PCI Express (Q35, ICH9), started by SeaBIOS or OVMF",
    .archs = q35_archs,
    .ram_base = 0,
    .build = q35_build,
    .free = q35_free,
    .powerdown = q35_powerdown,
    .memory_room = parts_memory_room,
    .nic = parts_nic,
    .port = parts_port,
    .serial = parts_serial,
    .input = parts_input,
};
