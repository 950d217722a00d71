/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The explicit list of device classes. Constant data, any thread.
 */
#include "devices/registry.h"

#include <string.h>

static const struct device_class *const classes[] = {
    &aclint_class,
    &plic_class,
    &ioapic_class,
    &pc_control_class,
    &i8259_class,
    &i8254_class,
    &mc146818_class,
    &hpet_class,
    &i8042_class,
    &q35_mch_class,
    &ich9_lpc_class,
    &ich9_smbus_class,
    &pci_ports_class,
    &debug_port_class,
    &ns16550a_class,
    &goldfish_rtc_class,
    &syscon_class,
    &vmgenid_class,
    &fw_cfg_class,
    &pci_host_class,
    &pci_host_bridge_class,
    &pcie_root_port_class,
    &pvpanic_pci_class,
    &i6300esb_class,
    &virtio_mmio_class,
    &virtio_pci_class,
    &virtio_blk_class,
    &virtio_scsi_class,
    &virtio_net_class,
    &nvme_class,
    &ahci_class,
    &cfi_flash_class,
    &virtio_rng_class,
    &virtio_iommu_class,
    &virtio_balloon_class,
    &virtio_mem_class,
    &virtio_snd_class,
    &virtio_vsock_class,
    &virtio_console_class,
    &virtio_serial_class,
    &virtio_input_class,
    &virtio_gpu_class,
    &virtio_fs_class,
    &virtio_9p_class,
    &bochs_display_class,
    &vga_class,
    &xhci_class,
    &usb_hub_class,
    &usb_keyboard_class,
    &usb_mouse_class,
    &usb_tablet_class,
    &usb_storage_class,
    NULL,
};

const struct device_class *const *device_classes(void)
{
    return classes;
}

const struct device_class *device_class_find(const char *name)
{
    for (unsigned i = 0; classes[i]; i++) {
        if (strcmp(classes[i]->name, name) == 0) {
            return classes[i];
        }
    }
    return NULL;
}

void devices_describe(struct buf *b)
{
    buf_add_str(b, "# Device reference\n\n"
                   "Generated from the register and state tables of the device classes by "
                   "`vmd-emu --describe-devices`; do not edit.\n\n");
    for (unsigned i = 0; classes[i]; i++) {
        dev_describe(classes[i], b);
    }
}
