/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pci-ports: configuration mechanism 1 of a PC (PCI Local Bus 3.0 §3.2.2.3.2): address at offset 0, data at 4; and at offset 1, by bytes, the chip set's reset control (ICH9 data sheet
 * §13.7.5). vCPU threads enter by ports.
 */
#include "devices/bus/pci_host.h"
#include "devices/registry.h"
#include "engine/core/vm.h"

enum { REG_ADDRESS = 0, REG_RESET = 1, REG_DATA = 4, REG_END = 8 };
enum { RESET_NOW = 4, RESET_BITS = 0x0e };
#define ADDRESS_ENABLED 0x80000000u

struct pci_ports {
    struct device dev;
    struct device *host; /* property */
    uint32_t address;
    uint8_t reset;
};

static uint64_t ports_read(void *opaque, uint64_t offset, unsigned size)
{
    const struct pci_ports *p = opaque;
    uint32_t a = p->address;

    if (offset == REG_RESET && size == 1) {
        return p->reset;
    }
    if (offset < REG_DATA) {
        return a >> offset * 8;
    }
    return a & ADDRESS_ENABLED
               ? pci_host_config_read(p->host, a >> 16 & 255, a >> 8 & 255,
                                      (a & 0xfc) + (unsigned)(offset - REG_DATA), size)
               : UINT32_MAX;
}

static void ports_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    struct pci_ports *p = opaque;
    uint32_t a = p->address;

    if (offset == REG_RESET && size == 1) {
        p->reset = value & RESET_BITS & ~RESET_NOW;
        if (value & RESET_NOW) {
            vm_request(p->dev.vm, VM_REQ_RESET, "guest-reset");
        }
    } else if (offset == REG_ADDRESS && size == 4) {
        p->address = (uint32_t)value & ~3u;
    } else if (offset >= REG_DATA && a & ADDRESS_ENABLED) {
        pci_host_config_write(p->host, a >> 16 & 255, a >> 8 & 255,
                              (a & 0xfc) + (unsigned)(offset - REG_DATA), (uint32_t)value,
                              size);
    }
}

static void ports_reset(struct device *d)
{
    struct pci_ports *p = (struct pci_ports *)d;

    p->address = 0;
    p->reset = 0;
}

static const struct st_field ports_fields[] = {
    ST_FIELD(struct pci_ports, address, ST_U32, 1, "function and register that DATA shows"),
    ST_FIELD(struct pci_ports, reset, ST_U8, 1, "reset control"),
    ST_END,
};
static const struct st_table ports_state = {
    .name = "pci-ports",
    .version = 1,
    .fields = ports_fields,
};

static const struct mem_io_ops ports_ops = { ports_read, ports_write, 1, 4 };

/* Widths decide what an access means; the table is for the reference. */
static const struct dev_reg ports_regs[] = {
    { .name = "CONFIG_ADDRESS",
      .doc =
          "bit 31 on, 16 to 23 bus, 8 to 15 device and function, 2 to 7 register; by 32 bits",
      .offset = REG_ADDRESS,
      .size = 4,
      .writable = UINT32_MAX,
      .field = DEV_NO_FIELD },
    { .name = "RST_CNT",
      .doc = "bit 2 resets the machine; by 8 bits",
      .offset = REG_RESET,
      .size = 1,
      .writable = RESET_BITS,
      .field = DEV_NO_FIELD },
    { .name = "CONFIG_DATA",
      .doc = "the register",
      .offset = REG_DATA,
      .size = 4,
      .writable = UINT32_MAX,
      .field = DEV_NO_FIELD },
    { .name = NULL },
};
static const struct dev_reg_block ports_blocks[] = {
    { .name = "ports",
      .size = REG_END,
      .regs = ports_regs,
      .ops = &ports_ops,
      .min_size = 1,
      .max_size = 4 },
    { .name = NULL },
};
static const struct dev_prop ports_props[] = {
    { .name = "host",
      .kind = PROP_PTR,
      .offset = offsetof(struct pci_ports, host),
      .required = true,
      .doc = "PCI Express host bridge whose config space it shows" },
    { .name = NULL },
};

const struct device_class pci_ports_class = {
    .name = "pci-ports",
    .doc = "PCI configuration by ports, and the reset control beside it",
    .size = sizeof(struct pci_ports),
    .props = ports_props,
    .blocks = ports_blocks,
    .state = &ports_state,
    .reset = ports_reset,
};
