/* SPDX-License-Identifier: Apache-2.0 */
/*
 * rv-virt: a RISC-V board, address-compatible with QEMU's "virt". Owns RAM, boot ROM and the
 * device tree; the devices belong to the VM. Main thread.
 *
 * Boot, as QEMU does it: harts start in the boot ROM, which passes the hart id, the device tree
 * and an fw_dynamic_info block (OpenSBI, "FW_DYNAMIC") to what lies at the firmware's entry.
 * Without firmware that is the kernel itself, in machine mode. Unlike there, harts other than 0
 * wait in the ROM for a software interrupt when a kernel follows the firmware (harts_wait()).
 * A reset loads everything anew.
 */
#include "devices/board/rv_virt.h"

#include "devices/block/pflash.h"
#include "devices/board/disks.h"
#include "devices/bus/pci_host.h"
#include "devices/input/virtio_input.h"
#include "devices/irqchip/plic.h"
#include "devices/misc/fw_cfg.h"
#include "devices/registry.h"
#include "engine/arch/riscv/cpu.h"
#include "engine/base/fd.h"
#include "engine/base/log.h"
#include "engine/core/vm.h"

#include <elf.h>
#include <endian.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define MIB (1024 * 1024ull)
#define FW_DYNAMIC_MAGIC 0x4942534f /* "OSBI" */

/* --- devices
 * --------------------------------------------------------------------------------- */

static int place(struct board *b, struct device *d, unsigned block, uint64_t at, struct err *e)
{
    return mem_map(b->p.vm->root, at, 0, d->mmio[block], e);
}

/* Makes, realizes and maps a device that needs no properties. */
static int add_plain(struct board *b, const struct device_class *cls, const char *id,
                     uint64_t at, struct device **out, struct err *e)
{
    int rc = parts_plain(&b->p, cls, id, out, e);

    return rc != 0 ? rc : place(b, *out, 0, at, e);
}

static int add_uart(struct board *b, struct device *plic, struct err *e)
{
    struct device *d;
    int rc = dev_new(b->p.vm, &ns16550a_class, "serial0", &d, e);

    if (rc != 0) {
        return rc;
    }
    rc = dev_set_ptr(d, "chr", b->p.cfg.virtio_console ? NULL : b->p.cfg.console, e);
    if (rc == 0) {
        rc = dev_realize(d, e);
    }
    if (rc != 0) {
        dev_free(d);
        return rc;
    }
    d->irq[0] = plic_input(plic, RV_IRQ_UART);
    return place(b, d, 0, RV_UART, e);
}

/* What takes a slot: virtio disks, and virtio-scsi adapters by the first of their disks. */
static bool takes_slot(const struct board_config *c, unsigned i)
{
    return c->disk[i].bus == BOARD_VIRTIO_MMIO ||
           (c->disk[i].bus == BOARD_SCSI_MMIO && board_disk_leads(c, i));
}

static unsigned slot_disk(const struct board_config *c, unsigned slot)
{
    unsigned i = 0;

    for (; i < c->n_disks; i++) {
        if (takes_slot(c, i) && slot-- == 0) {
            break;
        }
    }
    return i;
}

static unsigned slot_disks(const struct board_config *c)
{
    unsigned n = 0;

    for (unsigned i = 0; i < c->n_disks; i++) {
        n += takes_slot(c, i);
    }
    return n;
}

/* What goes into the slots, in order: disks, entropy, console, network cards, screen. */
static int slot_device(struct board *b, unsigned slot, struct device **out, struct err *e)
{
    const struct board_config *c = &b->p.cfg;
    unsigned disks = slot_disks(c), cards = disks + c->rng + c->virtio_console;
    unsigned screen = cards + parts_slot_nics(c);
    int rc;

    *out = NULL;
    if (slot < disks) {
        rc = board_new_disk(b->p.vm, &b->p.cfg, slot_disk(c, slot), out, e);
    } else if (slot == disks && c->rng) {
        rc = dev_new(b->p.vm, &virtio_rng_class, "rng0", out, e);
    } else if (slot == disks + c->rng && c->virtio_console) {
        rc = parts_new_console(&b->p, out, e);
    } else if (slot >= cards && slot - cards < parts_slot_nics(c)) {
        rc = parts_new_net(&b->p, parts_slot_nic(c, slot - cards), out, e);
    } else if (slot >= screen && slot - screen < parts_slot_screens(c)) {
        rc = parts_new_screen(&b->p, slot - screen, out, e);
    } else {
        return 0;
    }
    if (rc == 0) {
        rc = dev_realize(*out, e);
    }
    if (rc != 0) {
        dev_free(*out);
        *out = NULL;
    }
    return rc;
}

/* The transport of a device (NULL: of an empty slot), where and on which interrupt. */
static int add_transport(struct board *b, const char *id, struct device *behind, uint64_t at,
                         struct irq_line irq, struct err *e)
{
    struct device *d;
    int rc = dev_new(b->p.vm, &virtio_mmio_class, id, &d, e);

    if (rc != 0) {
        return rc;
    }
    rc = dev_set_ptr(d, "device", behind, e);
    if (rc == 0) {
        rc = dev_realize(d, e);
    }
    if (rc != 0) {
        dev_free(d);
        return rc;
    }
    d->irq[0] = irq;
    rc = place(b, d, 0, at, e);
    return rc != 0 ? rc : place(b, d, 1, at + 0x100, e);
}

static int add_slot(struct board *b, struct device *plic, unsigned slot, struct err *e)
{
    struct device *behind;
    char id[32];
    int rc = slot_device(b, slot, &behind, e);

    snprintf(id, sizeof(id), "virtio-mmio.%u", slot);
    return rc != 0 ? rc
                   : add_transport(b, id, behind, RV_VIRTIO + (uint64_t)slot * RV_VIRTIO_STEP,
                                   plic_input(plic, RV_IRQ_VIRTIO + slot), e);
}

static int add_button(struct board *b, struct device *plic, struct err *e)
{
    int rc = dev_new(b->p.vm, &virtio_input_class, "power-button", &b->button, e);

    if (rc != 0) {
        return rc;
    }
    rc = dev_set_str(b->button, "kind", "power-button", e);
    if (rc == 0) {
        rc = dev_realize(b->button, e);
    }
    if (rc != 0) {
        dev_free(b->button);
        return rc;
    }
    return add_transport(b, "virtio-mmio.button", b->button, RV_BUTTON,
                         plic_input(plic, RV_IRQ_BUTTON), e);
}

static void set_uuid(struct board *b)
{
    uint8_t bytes[16];

    if (parts_uuid(&b->p, bytes)) {
        fw_cfg_set(b->fw_cfg, FW_CFG_UUID, bytes, sizeof(bytes));
    }
}

static int add_fw_cfg(struct board *b, struct err *e)
{
    const char *append = b->p.cfg.append ? b->p.cfg.append : "";
    uint32_t len = (uint32_t)strlen(append) + 1, le = htole32(len);
    int rc = add_plain(b, &fw_cfg_class, "fw-cfg", RV_FW_CFG, &b->fw_cfg, e);

    if (rc != 0) {
        return rc;
    }
    fw_cfg_set_u64(b->fw_cfg, FW_CFG_RAM_SIZE, b->p.cfg.memory);
    fw_cfg_set_u16(b->fw_cfg, FW_CFG_NB_CPUS, (uint16_t)b->p.cfg.cpus);
    fw_cfg_set_u16(b->fw_cfg, FW_CFG_MAX_CPUS, (uint16_t)b->p.cfg.cpus);
    fw_cfg_set_u16(b->fw_cfg, FW_CFG_NOGRAPHIC, 1);
    fw_cfg_set_u16(b->fw_cfg, FW_CFG_BOOT_MENU, 0);
    set_uuid(b);
    fw_cfg_set(b->fw_cfg, FW_CFG_CMDLINE_SIZE, &le, sizeof(le));
    fw_cfg_set(b->fw_cfg, FW_CFG_CMDLINE_DATA, append, len);
    return 0;
}

static int add_flash(struct board *b, unsigned i, struct err *e)
{
    struct device *d = NULL;
    int rc = parts_new_flash(&b->p, i, &d, e);

    b->flash[i] = true;
    rc = parts_finish(d, rc, e);
    return rc != 0 ? rc
                   : mem_map(b->p.vm->root, RV_FLASH + (uint64_t)i * RV_FLASH_BANK, 0,
                             pflash_region(d), e);
}

/* The window for 64-bit BARs: the next multiple of its size behind RAM and what may come of it. */
static uint64_t mmio64_base(const struct board *b)
{
    uint64_t end = parts_memory_end(&b->p);

    return b->p.cfg.xlen == 32 ? 0 : (end + RV_PCI_MMIO64_SIZE - 1) & ~(RV_PCI_MMIO64_SIZE - 1);
}

static int add_pci(struct board *b, struct device *plic, struct err *e)
{
    const struct parts_pci pci = { .mmio = RV_PCI_MMIO,
                                   .mmio_size = RV_PCI_MMIO_SIZE,
                                   .mmio64 = b->pci_mmio64 = mmio64_base(b),
                                   .mmio64_size = RV_PCI_MMIO64_SIZE };
    const struct {
        enum pci_region region;
        uint64_t at;
    } map[] = { { PCI_REGION_ECAM, RV_PCI_ECAM },
                { PCI_REGION_PIO, RV_PCI_PIO },
                { PCI_REGION_MMIO, RV_PCI_MMIO },
                { PCI_REGION_MMIO64, b->pci_mmio64 } };
    int rc = parts_add_host(&b->p, &pci, e);

    for (unsigned i = 0; i < 4 && rc == 0; i++) {
        b->p.pci->irq[i] = plic_input(plic, RV_IRQ_PCI + i);
    }
    for (unsigned i = 0; i < ARRAY_LEN(map) && rc == 0; i++) {
        if (map[i].at) {
            rc = mem_map(b->p.vm->root, map[i].at, 0, pci_host_region(b->p.pci, map[i].region),
                         e);
        }
    }
    return rc == 0 ? parts_add_pci(&b->p, e) : rc;
}

static int add_devices(struct board *b, struct err *e)
{
    struct device *plic, *d;
    int rc = add_plain(b, &plic_class, "plic", RV_PLIC, &plic, e);

    if (rc == 0) {
        rc = add_plain(b, &aclint_class, "aclint", RV_ACLINT, &d, e);
    }
    if (rc == 0) {
        rc = add_plain(b, &syscon_class, "test", RV_TEST, &d, e);
    }
    if (rc == 0) {
        rc = add_plain(b, &goldfish_rtc_class, "rtc", RV_RTC, &d, e);
        if (rc == 0) {
            d->irq[0] = plic_input(plic, RV_IRQ_RTC);
        }
    }
    if (rc == 0) {
        rc = add_plain(b, &vmgenid_class, "genid", RV_GENID, &d, e);
        if (rc == 0) {
            d->irq[0] = plic_input(plic, RV_IRQ_GENID);
        }
    }
    if (rc == 0) {
        rc = add_fw_cfg(b, e);
    }
    if (rc == 0) {
        rc = add_uart(b, plic, e);
    }
    for (unsigned i = 0; i < BOARD_MAX_FLASH && rc == 0; i++) {
        rc = b->p.cfg.flash[i] ? add_flash(b, i, e) : 0;
    }
    for (unsigned i = 0; i < RV_SLOTS && rc == 0; i++) {
        rc = add_slot(b, plic, i, e);
    }
    if (rc == 0) {
        rc = add_button(b, plic, e);
    }
    return rc != 0 ? rc : add_pci(b, plic, e);
}

static int add_memory(struct board *b, struct err *e)
{
    int rc = mem_new_ram("ram", b->p.cfg.memory, &b->ram, e);

    if (rc == 0) {
        rc = mem_map(b->p.vm->root, RV_RAM, 0, b->ram, e);
    }
    if (rc == 0) {
        rc = mem_new_rom("boot-rom", RV_ROM_SIZE, &b->rom, e);
    }
    return rc != 0 ? rc : mem_map(b->p.vm->root, RV_ROM, 0, b->rom, e);
}

/* --- images
 * ---------------------------------------------------------------------------------- */

static uint64_t ram_end(const struct board *b)
{
    return RV_RAM + b->p.cfg.memory;
}

/* Where the device tree goes: below the end of RAM or 3 GiB, out of the way of what a kernel
 * unpacks. */
static uint64_t fdt_place(const struct board *b)
{
    uint64_t end = ram_end(b) < 3072 * MIB ? ram_end(b) : 3072 * MIB;

    return (end - b->fdt_size) & ~(2 * MIB - 1);
}

static int load_firmware(struct board *b, struct err *e)
{
    const struct board_config *c = &b->p.cfg;

    return loader_load(b->p.vm->mem, c->firmware.fd, c->firmware.path, RV_RAM, EM_RISCV,
                       c->xlen, c->memory, &b->firmware, e);
}

/* Linux Images, gzip'd ones too, say themselves how far behind the start of RAM they go. */
static bool places_itself(int fd)
{
    uint8_t head[64];
    ssize_t n = fd_pread(fd, head, sizeof(head), 0);

    return (n == sizeof(head) && memcmp(head + 0x38, "RSC\x05", 4) == 0) ||
           (n >= 2 && head[0] == 0x1f && head[1] == 0x8b);
}

static int load_kernel(struct board *b, struct err *e)
{
    const struct board_config *c = &b->p.cfg;
    uint64_t offset = c->firmware.path && !places_itself(c->kernel.fd) ? RV_KERNEL_OFFSET : 0;
    int rc;

    if (c->memory <= offset) {
        return err_set(e, -EINVAL, "memory: %llu bytes leave no room for a kernel",
                       (unsigned long long)c->memory);
    }
    rc = loader_load(b->p.vm->mem, c->kernel.fd, c->kernel.path, RV_RAM + offset, EM_RISCV,
                     c->xlen, c->memory - offset, &b->kernel, e);
    if (rc == 0 && c->firmware.path && b->kernel.low < b->firmware.high &&
        b->firmware.low < b->kernel.high) {
        return err_set(
            e, -EINVAL,
            "kernel %s lies at 0x%llx, over the firmware; link it to 0x%llx or above",
            c->kernel.path, (unsigned long long)b->kernel.low, RV_RAM + RV_KERNEL_OFFSET);
    }
    return rc;
}

/* As QEMU: half of memory behind the kernel, at most 128 MiB, so that the kernel can grow. */
static int load_initrd(struct board *b, struct err *e)
{
    const struct board_config *c = &b->p.cfg;
    uint64_t gap = c->memory / 2 < 128 * MIB ? c->memory / 2 : 128 * MIB;
    uint64_t at = (b->kernel.low + gap) & ~(uint64_t)(MEM_PAGE_SIZE - 1), limit = ram_end(b);

    if (at < b->kernel.high) {
        at = (b->kernel.high + MEM_PAGE_SIZE - 1) & ~(uint64_t)(MEM_PAGE_SIZE - 1);
    }
    if (at >= limit) {
        return err_set(e, -EFBIG,
                       "initrd %s: no memory is left behind the kernel; give the VM more",
                       c->initrd.path);
    }
    b->initrd_at = at;
    return loader_load_raw(b->p.vm->mem, c->initrd.fd, c->initrd.path, at, limit - at,
                           &b->initrd_size, e);
}

static bool overlap(uint64_t a, uint64_t a_end, uint64_t b, uint64_t b_end)
{
    return a < b_end && b < a_end;
}

static int load_fdt(struct board *b, struct err *e)
{
    uint64_t end;
    int rc = rv_virt_fdt(b, e);

    if (rc != 0) {
        return rc;
    }
    b->fdt_at = fdt_place(b);
    end = b->fdt_at + b->fdt_size;
    if (b->fdt_at < RV_RAM || end > ram_end(b) ||
        overlap(b->fdt_at, end, b->firmware.low, b->firmware.high) ||
        overlap(b->fdt_at, end, b->kernel.low, b->kernel.high) ||
        overlap(b->fdt_at, end, b->initrd_at, b->initrd_at + b->initrd_size)) {
        return err_set(
            e, -ENOMEM,
            "memory: no room for the device tree beside kernel and initrd; give the VM more");
    }
    rc = mem_dma_write(b->p.vm->mem, b->fdt_at, b->fdt, b->fdt_size);
    return rc == 0 ? 0 : err_set(e, rc, "cannot write the device tree to memory");
}

/*
 * Firmware that was given a kernel starts the other harts itself (SBI HSM), so they wait in the
 * ROM for its interrupt, as on boards whose cores wake one by one. It matters: OpenSBI 1.1 leaves
 * harts that came early polling, and one that looks between "start" and the address being
 * written (a matter of host scheduling here) enters the kernel a second time at its start.
 */
static bool harts_wait(const struct board *b)
{
    return b->p.cfg.firmware.path && (b->p.cfg.kernel.path || b->flash[0]);
}

/* Boot ROM: loads a0 = hart id, a1 = device tree, a2 = fw_dynamic_info and jumps to the
 * entry. Harts that wait enter at RV_ROM_WAIT. */
static void write_rom(struct board *b)
{
    static const uint32_t wait[8] = {
        0x00800293, /* li    t0, MSIP */
        0x30429073, /* csrw  mie, t0 */
        0x10500073, /* wfi */
        0x34402373, /* csrr  t1, mip */
        0x00537333, /* and   t1, t1, t0 */
        0xfe030ae3, /* beqz  t1, wfi */
        0x30401073, /* csrw  mie, zero */
        0xf65ff06f, /* j     RV_ROM */
    };
    const bool rv32 = b->p.cfg.xlen == 32;
    const uint32_t code[6] = {
        htole32(0x00000297),                     /* auipc t0, 0 */
        htole32(0x02828613),                     /* addi  a2, t0, 40: fw_dynamic_info */
        htole32(0xf1402573),                     /* csrr  a0, mhartid */
        htole32(rv32 ? 0x0202a583 : 0x0202b583), /* lw/ld a1, 32(t0) */
        htole32(rv32 ? 0x0182a283 : 0x0182b283), /* lw/ld t0, 24(t0) */
        htole32(0x00028067),                     /* jr    t0 */
    };
    const bool firmware = b->p.cfg.firmware.path, kernel = b->p.cfg.kernel.path;
    uint64_t payload = kernel ? b->kernel.entry : b->flash[0] ? RV_FLASH : 0;
    uint64_t entry = firmware ? b->firmware.entry : payload;
    const uint64_t info[6] = { FW_DYNAMIC_MAGIC,       2,
                               firmware ? payload : 0, 1 /* supervisor mode */,
                               0 /* options */,        0 /* boot hart */ };
    uint8_t *rom = mem_ram_host(b->rom);

    memset(rom, 0, RV_ROM_SIZE);
    memcpy(rom, code, sizeof(code));
    entry = htole64(entry);
    memcpy(rom + 24, &entry, sizeof(entry));
    entry = htole64(b->fdt_at);
    memcpy(rom + 32, &entry, sizeof(entry));
    for (unsigned i = 0; i < ARRAY_LEN(info); i++) {
        uint64_t le = htole64(info[i]);

        memcpy(rom + 40 + i * (rv32 ? 4 : 8), &le, rv32 ? 4 : 8);
    }
    for (unsigned i = 0; i < ARRAY_LEN(wait); i++) {
        uint32_t le = htole32(wait[i]);

        memcpy(rom + RV_ROM_WAIT + 4 * i, &le, sizeof(le));
    }
}

static int load_all(struct board *b, struct err *e)
{
    const struct board_config *c = &b->p.cfg;
    int rc = c->firmware.path ? load_firmware(b, e) : 0;

    if (rc == 0 && c->kernel.path) {
        rc = load_kernel(b, e);
    }
    if (rc == 0 && c->initrd.path) {
        rc = load_initrd(b, e);
    }
    if (rc == 0) {
        rc = load_fdt(b, e);
    }
    if (rc == 0) {
        write_rom(b);
        mem_written(b->p.vm->mem, RV_ROM, RV_ROM_SIZE);
    }
    return rc;
}

static void board_reset(void *arg)
{
    struct board *b = arg;
    struct err e = ERR_INIT;

    if (!b->fresh && load_all(b, &e) != 0) {
        log_error("devices", "reset: %s", e.msg);
        vm_request(b->p.vm, VM_REQ_CRASH, "reload-failed");
    }
    b->fresh = false;
    if (b->p.cfg.kernel.path) {
        pci_host_assign(b->p.pci); /* no firmware will look for devices */
    }
    for (unsigned i = 0; i < b->p.vm->n_vcpus; i++) {
        uint64_t at = i > 0 && harts_wait(b) ? RV_ROM + RV_ROM_WAIT : RV_ROM;

        b->p.vm->arch->cpu_boot(b->p.vm->vcpus[i], at, 0, 0, 0);
    }
}

/* --- class
 * ----------------------------------------------------------------------------------- */

static int check_config(const struct board_config *c, struct err *e)
{
    if (c->xlen == 32 && c->memory > 2048 * MIB) {
        return err_set(e, -EINVAL, "memory: a riscv32 guest can have at most 2 GiB");
    }
    if (c->xlen == 32 && (c->n_memory_devices > 0 || c->memory_room)) {
        return err_set(e, -EINVAL,
                       "memory devices: a riscv32 guest has no room for them above its memory");
    }
    if (!c->kernel.path && !c->firmware.path && !c->flash[0]) {
        return err_set(e, -EINVAL, "nothing to run: give a kernel, a firmware or a flash bank");
    }
    if (c->screen.gpu == BOARD_GPU_VGA) {
        return err_set(e, -ENOTSUP, "display: machine rv-virt has no VGA; use virtio or bochs");
    }
    if (c->initrd.path && !c->kernel.path) {
        return err_set(e, -EINVAL, "an initrd needs a kernel");
    }
    unsigned used = slot_disks(c) + c->rng + c->virtio_console + parts_slot_nics(c) +
                    parts_slot_screens(c);

    if (used > RV_SLOTS) {
        return err_set(e, -EINVAL,
                       "%u virtio-mmio devices: the board has %d slots; put disks, network "
                       "cards or the screen on another bus",
                       used, RV_SLOTS);
    }
    return 0;
}

static void rv_virt_free(struct board *b)
{
    if (b) {
        mem_free(b->ram);
        mem_free(b->rom);
        parts_done(&b->p);
        free(b->fdt);
        free(b);
    }
}

static int build_all(struct board *b, struct err *e)
{
    int rc = check_config(&b->p.cfg, e);

    if (rc == 0) {
        rc = vm_add_vcpus(b->p.vm, b->p.cfg.cpus, b->p.cfg.cpu_model, e);
    }
    if (rc == 0) {
        rc = add_memory(b, e);
    }
    if (rc == 0) {
        rc = add_devices(b, e);
    }
    if (rc == 0) {
        mem_commit(b->p.vm->mem);
        rc = load_all(b, e);
    }
    return rc;
}

static int rv_virt_build(struct vm *vm, const struct board_config *cfg, struct board **out,
                         struct err *e)
{
    struct board *b = xnew(struct board);
    int rc;

    b->p.vm = vm;
    b->p.cfg = *cfg;
    b->p.memory_end = RV_RAM + cfg->memory;
    rc = build_all(b, e);
    if (rc != 0) {
        parts_close(&b->p);
        rv_virt_free(b);
        return rc;
    }
    b->fresh = true;
    vm->on_reset = board_reset;
    vm->on_reset_arg = b;
    *out = b;
    return 0;
}

static const void *rv_virt_tree(const struct board *b, uint32_t *size)
{
    *size = (uint32_t)b->fdt_size;
    return b->fdt;
}

static int rv_virt_powerdown(struct board *b, struct err *e)
{
    return virtio_input_tap(b->button, INPUT_KEY_POWER, e);
}

static const char *const rv_virt_archs[] = { "riscv64", "riscv32", NULL };

const struct board_class rv_virt_board = {
    .name = "rv-virt",
    .doc = "RISC-V board with virtio-mmio, address-compatible with QEMU's virt",
    .archs = rv_virt_archs,
    .ram_base = RV_RAM,
    .build = rv_virt_build,
    .free = rv_virt_free,
    .fdt = rv_virt_tree,
    .powerdown = rv_virt_powerdown,
    .memory_room = parts_memory_room,
    .nic = parts_nic,
    .port = parts_port,
    .input = parts_input,
    .serial = parts_serial,
};
