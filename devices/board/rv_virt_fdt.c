/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Device tree of the rv-virt board (Devicetree Specification 0.4 and the Linux bindings of each
 * device). Node names, addresses and properties are those that guests of QEMU's "virt" board
 * know; devices that are not here are absent.
 */
#include "devices/board/parts.h"
#include "devices/board/rv_virt.h"
#include "devices/bus/pci.h"
#include "devices/irqchip/plic.h"
#include "devices/registry.h"
#include "engine/arch/riscv/cpu.h"
#include "engine/arch/riscv/features.h"
#include "engine/arch/riscv/pmu.h"
#include "engine/core/fdt.h"
#include "engine/core/vm.h"

#include <string.h>
#include <sys/random.h>

struct tree {
    struct fdt *f;
    struct board *b;
    uint32_t plic, test;
    uint32_t *cpu, *intc; /* one a hart */
};

/* The ISA as a base and a list, block sizes, MMU (bindings riscv/extensions, riscv/cpus). */
static void add_extensions(struct fdt *f, const struct riscv_cpu *cpu)
{
    static const struct {
        enum riscv_feature ext;
        const char *size;
    } blocks[] = { { RISCV_EXT_ZICBOM, "riscv,cbom-block-size" },
                   { RISCV_EXT_ZICBOZ, "riscv,cboz-block-size" },
                   { RISCV_EXT_ZICBOP, "riscv,cbop-block-size" } };
    char list[RISCV_ISA_MAX];

    fdt_str(f, "riscv,isa-base", cpu->xlen == 32 ? "rv32i" : "rv64i");
    fdt_bytes(f, "riscv,isa-extensions", list,
              riscv_isa_list(&cpu->features, list, sizeof(list)));
    for (size_t i = 0; i < sizeof(blocks) / sizeof(blocks[0]); i++) {
        if (RISCV_HAS(cpu->features, blocks[i].ext)) {
            fdt_u32(f, blocks[i].size, RISCV_CACHE_BLOCK);
        }
    }
    fdt_str(f, "mmu-type", riscv_mmu_type(&cpu->features, cpu->xlen));
}

static void add_cpu(struct tree *t, unsigned i)
{
    const struct riscv_cpu *cpu = t->b->p.vm->vcpus[i]->cpu;
    struct fdt *f = t->f;
    char isa[RISCV_ISA_SHORT_MAX + 1];

    riscv_isa_format_short(&cpu->features, cpu->xlen, isa, sizeof(isa));
    fdt_node_begin(f, "cpu@%x", i);
    fdt_u32(f, "phandle", t->cpu[i]);
    fdt_str(f, "device_type", "cpu");
    fdt_u32(f, "reg", i);
    fdt_str(f, "status", "okay");
    fdt_str(f, "compatible", "riscv");
    fdt_str(f, "riscv,isa", isa);
    add_extensions(f, cpu);
    fdt_node_begin(f, "interrupt-controller");
    fdt_u32(f, "#interrupt-cells", 1);
    fdt_empty(f, "interrupt-controller");
    fdt_str(f, "compatible", "riscv,cpu-intc");
    fdt_u32(f, "phandle", t->intc[i]);
    fdt_node_end(f);
    fdt_node_end(f);
}

static void add_cpus(struct tree *t)
{
    struct fdt *f = t->f;

    fdt_node_begin(f, "cpus");
    fdt_u32(f, "#address-cells", 1);
    fdt_u32(f, "#size-cells", 0);
    fdt_u32(f, "timebase-frequency", RISCV_TIMEBASE_HZ);
    for (unsigned i = 0; i < t->b->p.vm->n_vcpus; i++) {
        add_cpu(t, i);
    }
    fdt_node_begin(f, "cpu-map");
    fdt_node_begin(f, "cluster0");
    for (unsigned i = 0; i < t->b->p.vm->n_vcpus; i++) {
        fdt_node_begin(f, "core%u", i);
        fdt_u32(f, "cpu", t->cpu[i]);
        fdt_node_end(f);
    }
    fdt_node_end(f);
    fdt_node_end(f);
    fdt_node_end(f);
}

/* Beginning of a device's node: reg, compatible, interrupt of the PLIC when irq is not 0. */
static void device_begin(struct tree *t, const char *name, uint64_t at, uint64_t size,
                         const char *compatible, uint32_t irq)
{
    fdt_node_begin(t->f, "%s@%llx", name, (unsigned long long)at);
    fdt_reg64(t->f, at, size);
    fdt_str(t->f, "compatible", compatible);
    if (irq) {
        fdt_u32(t->f, "interrupt-parent", t->plic);
        fdt_u32(t->f, "interrupts", irq);
    }
}

/* "interrupts-extended" of a device that drives inputs a and b of each hart. */
static void to_harts(struct tree *t, uint32_t a, uint32_t b)
{
    unsigned n = t->b->p.vm->n_vcpus;
    uint32_t *cells = xnew_n(uint32_t, n * 4);

    for (unsigned i = 0; i < n; i++) {
        const uint32_t hart[4] = { t->intc[i], a, t->intc[i], b };

        memcpy(&cells[i * 4], hart, sizeof(hart));
    }
    fdt_cells(t->f, "interrupts-extended", cells, n * 4);
    free(cells);
}

static void add_irqchips(struct tree *t)
{
    static const char *const plic[] = { "sifive,plic-1.0.0", "riscv,plic0" };
    static const char *const clint[] = { "sifive,clint0", "riscv,clint0" };
    struct fdt *f = t->f;

    fdt_node_begin(f, "plic@%x", RV_PLIC);
    fdt_reg64(f, RV_PLIC, 0x600000);
    fdt_strs(f, "compatible", plic, 2);
    fdt_u32(f, "phandle", t->plic);
    fdt_u32(f, "riscv,ndev", PLIC_SOURCES);
    fdt_empty(f, "interrupt-controller");
    fdt_u32(f, "#address-cells", 0);
    fdt_u32(f, "#interrupt-cells", 1);
    to_harts(t, RISCV_IRQ_MEI, RISCV_IRQ_SEI);
    fdt_node_end(f);

    fdt_node_begin(f, "clint@%x", RV_ACLINT);
    fdt_reg64(f, RV_ACLINT, 0x10000);
    fdt_strs(f, "compatible", clint, 2);
    to_harts(t, RISCV_IRQ_MSI, RISCV_IRQ_MTI);
    fdt_node_end(f);
}

/* INTA to INTD of slot n lead to the four inputs from n on (binding pci/host-generic-pci). */
static void add_pci_irqs(struct tree *t)
{
    uint32_t cells[4 * 4 * 6], *c = cells;
    const uint32_t mask[4] = { 0x1800, 0, 0, 7 };

    for (uint32_t slot = 0; slot < 4; slot++) {
        for (uint32_t pin = 0; pin < 4; pin++) {
            const uint32_t one[6] = { slot << 11, 0,       0,
                                      pin + 1,    t->plic, RV_IRQ_PCI + (slot + pin) % 4 };

            memcpy(c, one, sizeof(one));
            c += 6;
        }
    }
    fdt_cells(t->f, "interrupt-map", cells, 4 * 4 * 6);
    fdt_cells(t->f, "interrupt-map-mask", mask, 4);
}

/* Every function but its own is behind it, by the same number (bindings virtio/pci-iommu, pci/pci-iommu). */
static void add_iommu(struct tree *t)
{
    const uint32_t own = PCI_DEVFN(PARTS_IOMMU_SLOT, 0), all = 0x10000;
    const uint32_t reg[5] = { own << 8, 0, 0, 0, 0 };
    uint32_t iommu;

    if (!t->b->p.cfg.iommu) {
        return;
    }
    iommu = fdt_phandle_new(t->f);
    const uint32_t map[8] = { 0, iommu, 0, own, own + 1, iommu, own + 1, all - own - 1 };
    fdt_cells(t->f, "iommu-map", map, 8);
    fdt_node_begin(t->f, "iommu@%x", PARTS_IOMMU_SLOT);
    fdt_strs(t->f, "compatible", (const char *const[]){ "virtio,pci-iommu", "pci1af4,1057" },
             2);
    fdt_cells(t->f, "reg", reg, 5);
    fdt_u32(t->f, "#iommu-cells", 1);
    fdt_u32(t->f, "phandle", iommu);
    fdt_node_end(t->f);
}

static void add_pci(struct tree *t)
{
    struct fdt *f = t->f;
    uint64_t high = t->b->pci_mmio64;
    const uint32_t buses[2] = { 0, 0xff };
    const uint32_t ranges[21] = {
        0x1000000,
        0,
        0,
        0,
        RV_PCI_PIO,
        0,
        RV_PCI_PIO_SIZE,
        0x2000000,
        0,
        RV_PCI_MMIO,
        0,
        RV_PCI_MMIO,
        0,
        RV_PCI_MMIO_SIZE,
        0x3000000,
        (uint32_t)(high >> 32),
        (uint32_t)high,
        (uint32_t)(high >> 32),
        (uint32_t)high,
        (uint32_t)(RV_PCI_MMIO64_SIZE >> 32),
        (uint32_t)RV_PCI_MMIO64_SIZE,
    };

    device_begin(t, "pci", RV_PCI_ECAM, RV_PCI_ECAM_SIZE, "pci-host-ecam-generic", 0);
    fdt_str(f, "device_type", "pci");
    fdt_u32(f, "#address-cells", 3);
    fdt_u32(f, "#size-cells", 2);
    fdt_u32(f, "#interrupt-cells", 1);
    fdt_u32(f, "linux,pci-domain", 0);
    fdt_cells(f, "bus-range", buses, 2);
    fdt_empty(f, "dma-coherent");
    fdt_cells(f, "ranges", ranges, high ? 21 : 14);
    add_pci_irqs(t);
    add_iommu(t);
    fdt_node_end(f);
}

/* Both banks in one node; one that is absent reads as a hole, and is left out. */
static void add_flash(struct tree *t)
{
    uint32_t reg[8];
    unsigned n = 0;

    for (uint32_t i = 0; i < BOARD_MAX_FLASH; i++) {
        if (t->b->flash[i]) {
            const uint32_t one[4] = { 0, RV_FLASH + i * RV_FLASH_BANK, 0, RV_FLASH_BANK };

            memcpy(reg + n, one, sizeof(one));
            n += 4;
        }
    }
    if (n) {
        fdt_node_begin(t->f, "flash@%x", reg[1]);
        fdt_str(t->f, "compatible", "cfi-flash");
        fdt_cells(t->f, "reg", reg, n);
        fdt_u32(t->f, "bank-width", 4);
        fdt_node_end(t->f);
    }
}

static void add_soc(struct tree *t)
{
    static const char *const test[] = { "sifive,test1", "sifive,test0", "syscon" };
    struct fdt *f = t->f;

    fdt_node_begin(f, "soc");
    fdt_u32(f, "#address-cells", 2);
    fdt_u32(f, "#size-cells", 2);
    fdt_str(f, "compatible", "simple-bus");
    fdt_empty(f, "ranges");
    device_begin(t, "serial", RV_UART, 0x100, "ns16550a", RV_IRQ_UART);
    fdt_u32(f, "clock-frequency", 3686400);
    fdt_node_end(f);
    device_begin(t, "rtc", RV_RTC, 0x1000, "google,goldfish-rtc", RV_IRQ_RTC);
    fdt_node_end(f);
    fdt_node_begin(f, "test@%x", RV_TEST);
    fdt_reg64(f, RV_TEST, 0x1000);
    fdt_strs(f, "compatible", test, 3);
    fdt_u32(f, "phandle", t->test);
    fdt_node_end(f);
    for (unsigned i = 0; i < RV_SLOTS; i++) {
        device_begin(t, "virtio_mmio", RV_VIRTIO + i * RV_VIRTIO_STEP, 0x1000, "virtio,mmio",
                     RV_IRQ_VIRTIO + i);
        fdt_node_end(f);
    }
    device_begin(t, "virtio_mmio", RV_BUTTON, 0x1000, "virtio,mmio", RV_IRQ_BUTTON);
    fdt_node_end(f);
    device_begin(t, "vmgenid", RV_GENID, 0x1000, "microsoft,vmgenid", RV_IRQ_GENID);
    fdt_node_end(f);
    add_pci(t);
    add_flash(t);
    add_irqchips(t);
    fdt_node_end(f);
}

static void add_chosen(struct tree *t)
{
    struct board *b = t->b;
    uint8_t seed[32];

    fdt_node_begin(t->f, "chosen");
    fdt_str(t->f, "bootargs", b->p.cfg.append ? b->p.cfg.append : "");
    if (!b->p.cfg.virtio_console) {
        fdt_str(t->f, "stdout-path", "/soc/serial@10000000");
    }
    if (b->initrd_size) {
        fdt_u64(t->f, "linux,initrd-start", b->initrd_at);
        fdt_u64(t->f, "linux,initrd-end", b->initrd_at + b->initrd_size);
    }
    if (clock_driven(b->p.vm->clock)) { /* two runs are to be the same */
        fdt_bytes(t->f, "rng-seed", "vmd's seed of deterministic runs", sizeof(seed));
    } else if (getrandom(seed, sizeof(seed), 0) == sizeof(seed)) {
        fdt_bytes(t->f, "rng-seed", seed, sizeof(seed));
    }
    fdt_node_end(t->f);
}

static void add_power(struct tree *t, const char *name, const char *compatible, uint32_t value)
{
    fdt_node_begin(t->f, "%s", name);
    fdt_str(t->f, "compatible", compatible);
    fdt_u32(t->f, "regmap", t->test);
    fdt_u32(t->f, "offset", 0);
    fdt_u32(t->f, "value", value);
    fdt_node_end(t->f);
}

/* What the SBI's hardware events are to mhpmevent, and which counters count them; cycle and instret, bits 0 and 2, count
 * theirs without being asked (binding perf/riscv,pmu). */
static void add_pmu(struct tree *t)
{
    const struct riscv_cpu *cpu = t->b->p.vm->vcpus[0]->cpu;
    static const uint32_t events[] = { RISCV_EVENT_CYCLES,  0, RISCV_EVENT_CYCLES,
                                       RISCV_EVENT_INSTRET, 0, RISCV_EVENT_INSTRET };
    static const uint32_t counters[] = { RISCV_EVENT_CYCLES,  RISCV_EVENT_CYCLES,
                                         RISCV_HPM_MASK | 1,  RISCV_EVENT_INSTRET,
                                         RISCV_EVENT_INSTRET, RISCV_HPM_MASK | 4 };

    if (!RISCV_HAS(cpu->features, RISCV_EXT_ZIHPM)) {
        return;
    }
    fdt_node_begin(t->f, "pmu");
    fdt_str(t->f, "compatible", "riscv,pmu");
    fdt_cells(t->f, "riscv,event-to-mhpmevent", events, ARRAY_LEN(events));
    fdt_cells(t->f, "riscv,event-to-mhpmcounters", counters, ARRAY_LEN(counters));
    fdt_node_end(t->f);
}

static void add_all(struct tree *t)
{
    struct fdt *f = t->f;

    fdt_node_begin(f, "%s", "");
    fdt_u32(f, "#address-cells", 2);
    fdt_u32(f, "#size-cells", 2);
    fdt_str(f, "compatible", "riscv-virtio");
    fdt_str(f, "model", "riscv-virtio,vmd");
    add_chosen(t);
    fdt_node_begin(f, "memory@%llx", RV_RAM);
    fdt_str(f, "device_type", "memory");
    fdt_reg64(f, RV_RAM, t->b->p.cfg.memory);
    fdt_node_end(f);
    add_cpus(t);
    add_pmu(t);
    add_soc(t);
    add_power(t, "poweroff", "syscon-poweroff", 0x5555);
    add_power(t, "reboot", "syscon-reboot", 0x7777);
    device_begin(t, "fw-cfg", RV_FW_CFG, 0x18, "qemu,fw-cfg-mmio", 0);
    fdt_empty(f, "dma-coherent");
    fdt_node_end(f);
    fdt_node_end(f);
}

int rv_virt_fdt(struct board *b, struct err *e)
{
    unsigned n = b->p.vm->n_vcpus;
    struct tree t = {
        .f = fdt_new(), .b = b, .cpu = xnew_n(uint32_t, n), .intc = xnew_n(uint32_t, n)
    };
    int rc;

    t.plic = fdt_phandle_new(t.f);
    t.test = fdt_phandle_new(t.f);
    for (unsigned i = 0; i < n; i++) {
        t.cpu[i] = fdt_phandle_new(t.f);
        t.intc[i] = fdt_phandle_new(t.f);
    }
    add_all(&t);
    free(b->fdt);
    b->fdt = NULL;
    rc = fdt_take(t.f, &b->fdt, &b->fdt_size, e);
    fdt_free(t.f);
    free(t.cpu);
    free(t.intc);
    return rc;
}
