/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The explicit list of device classes. A new device is one file, one line in registry.c and
 * here, one register test, one state golden.
 */
#ifndef VMD_DEVICES_REGISTRY_H
#define VMD_DEVICES_REGISTRY_H

#include "engine/core/device.h"

extern const struct device_class aclint_class;
extern const struct device_class plic_class;
extern const struct device_class ioapic_class;
extern const struct device_class pc_control_class;
extern const struct device_class i8259_class;
extern const struct device_class i8254_class;
extern const struct device_class mc146818_class;
extern const struct device_class hpet_class;
extern const struct device_class i8042_class;
extern const struct device_class q35_mch_class;
extern const struct device_class ich9_lpc_class;
extern const struct device_class ich9_smbus_class;
extern const struct device_class pci_ports_class;
extern const struct device_class debug_port_class;
extern const struct device_class ns16550a_class;
extern const struct device_class goldfish_rtc_class;
extern const struct device_class syscon_class;
extern const struct device_class vmgenid_class;
extern const struct device_class fw_cfg_class;
extern const struct device_class pci_host_class;
extern const struct device_class pci_host_bridge_class;
extern const struct device_class pcie_root_port_class;
extern const struct device_class pvpanic_pci_class;
extern const struct device_class i6300esb_class;
extern const struct device_class virtio_mmio_class;
extern const struct device_class virtio_pci_class;
extern const struct device_class ahci_class;
extern const struct device_class virtio_blk_class;
extern const struct device_class virtio_scsi_class;
extern const struct device_class virtio_net_class;
extern const struct device_class nvme_class;
extern const struct device_class cfi_flash_class;
extern const struct device_class virtio_rng_class;
extern const struct device_class virtio_iommu_class;
extern const struct device_class virtio_balloon_class;
extern const struct device_class virtio_mem_class;
extern const struct device_class virtio_snd_class;
extern const struct device_class virtio_vsock_class;
extern const struct device_class virtio_console_class;
extern const struct device_class virtio_serial_class;
extern const struct device_class virtio_input_class;
extern const struct device_class virtio_gpu_class;
extern const struct device_class bochs_display_class;
extern const struct device_class vga_class;
extern const struct device_class xhci_class;
extern const struct device_class usb_hub_class;
extern const struct device_class usb_keyboard_class;
extern const struct device_class usb_mouse_class;
extern const struct device_class usb_tablet_class;
extern const struct device_class usb_storage_class;
extern const struct device_class virtio_fs_class;
extern const struct device_class virtio_9p_class;

/* Ended by NULL; in the order of the reference. */
const struct device_class *const *device_classes(void);
const struct device_class *device_class_find(const char *name); /* NULL: unknown */

/* Appends the Markdown reference of all device classes (docs/reference/devices.md). */
void devices_describe(struct buf *b);

#endif
