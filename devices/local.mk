# SPDX-License-Identifier: Apache-2.0
# devices: device classes and boards.
# Sources (headers too: `make dist` packs what stands here), generated files, tests of this room.

noinst_LIBRARIES += libdevices.a
libdevices_a_SOURCES = \
	devices/audio/audio.h \
	devices/audio/virtio_snd.c \
	devices/block/ahci.c \
	devices/block/ahci.h \
	devices/block/ahci_ata.c \
	devices/block/ahci_identify.c \
	devices/block/ahci_port.c \
	devices/block/nvme.c \
	devices/block/nvme.h \
	devices/block/nvme_admin.c \
	devices/block/nvme_io.c \
	devices/block/nvme_namespaces.h \
	devices/block/pflash.c \
	devices/block/pflash.h \
	devices/block/virtio_blk.c \
	devices/block/virtio_scsi.c \
	devices/board/aml.c \
	devices/board/aml.h \
	devices/board/board.c \
	devices/board/board.h \
	devices/board/disks.c \
	devices/board/disks.h \
	devices/board/microvm.c \
	devices/board/microvm.h \
	devices/board/microvm_acpi.c \
	devices/board/microvm_boot.c \
	devices/board/microvm_slots.c \
	devices/board/parts.c \
	devices/board/parts.h \
	devices/board/parts_extras.c \
	devices/board/parts_net.c \
	devices/board/parts_pci.c \
	devices/board/parts_screen.c \
	devices/board/parts_usb.c \
	devices/board/q35.c \
	devices/board/q35.h \
	devices/board/q35_acpi.c \
	devices/board/q35_smbios.c \
	devices/board/q35_tables.c \
	devices/board/rv_virt.c \
	devices/board/rv_virt.h \
	devices/board/rv_virt_fdt.c \
	devices/bus/ich9_lpc.c \
	devices/bus/ich9_lpc.h \
	devices/bus/ich9_smbus.c \
	devices/bus/pci.c \
	devices/bus/pci.h \
	devices/bus/pci_host.c \
	devices/bus/pci_host.h \
	devices/bus/pci_ports.c \
	devices/bus/pci_rom.c \
	devices/bus/pci_rom.h \
	devices/bus/pci_root_port.c \
	devices/bus/pci_root_port.h \
	devices/bus/q35_mch.c \
	devices/bus/q35_mch.h \
	devices/char/chr.h \
	devices/char/ns16550a.c \
	devices/char/virtio_console.c \
	devices/char/virtio_serial.c \
	devices/char/virtio_serial.h \
	devices/display/bochs.c \
	devices/display/display.c \
	devices/display/display.h \
	devices/display/dispi.c \
	devices/display/dispi.h \
	devices/display/edid.c \
	devices/display/edid.h \
	devices/display/png.c \
	devices/display/png.h \
	devices/display/vga.c \
	devices/display/vga.h \
	devices/display/vga_draw.c \
	devices/display/vram.c \
	devices/display/vram.h \
	devices/display/virtio_gpu.c \
	devices/display/virtio_gpu.h \
	devices/display/virtio_gpu_res.c \
	devices/fs/share.c \
	devices/fs/share.h \
	devices/fs/virtio_9p.c \
	devices/fs/virtio_fs.c \
	devices/input/i8042.c \
	devices/input/i8042.h \
	devices/input/input.c \
	devices/input/input.h \
	devices/input/keys.c \
	devices/input/keys.h \
	devices/input/virtio_input.c \
	devices/input/virtio_input.h \
	devices/irqchip/aclint.c \
	devices/irqchip/i8259.c \
	devices/irqchip/i8259.h \
	devices/irqchip/ioapic.c \
	devices/irqchip/ioapic.h \
	devices/irqchip/plic.c \
	devices/irqchip/plic.h \
	devices/misc/debug_port.c \
	devices/misc/fw_cfg.c \
	devices/misc/fw_cfg.h \
	devices/misc/i6300esb.c \
	devices/misc/i6300esb.h \
	devices/misc/pc_control.c \
	devices/misc/pvpanic_pci.c \
	devices/misc/syscon.c \
	devices/misc/virtio_balloon.c \
	devices/misc/virtio_balloon.h \
	devices/misc/virtio_mem.c \
	devices/misc/virtio_mem.h \
	devices/misc/virtio_vsock.c \
	devices/misc/virtio_vsock.h \
	devices/misc/vsock_conn.c \
	devices/misc/vsock_conn.h \
	devices/misc/virtio_rng.c \
	devices/misc/virtio_iommu.c \
	devices/misc/virtio_iommu.h \
	devices/misc/vmgenid.c \
	devices/misc/vmgenid.h \
	devices/registry.c \
	devices/registry.h \
	devices/scsi/inquiry.c \
	devices/scsi/mmc.c \
	devices/scsi/mode.c \
	devices/scsi/sbc.c \
	devices/scsi/scsi.h \
	devices/scsi/scsi_int.h \
	devices/scsi/target.c \
	devices/scsi/units.h \
	devices/net/virtio_net.c \
	devices/net/virtio_net.h \
	devices/timer/goldfish_rtc.c \
	devices/timer/hpet.c \
	devices/timer/hpet.h \
	devices/timer/i8254.c \
	devices/timer/mc146818.c \
	devices/timer/mc146818.h \
	devices/usb/hid.c \
	devices/usb/hid.h \
	devices/usb/hub.c \
	devices/usb/storage.c \
	devices/usb/usb.c \
	devices/usb/usb.h \
	devices/usb/xhci.c \
	devices/usb/xhci.h \
	devices/usb/xhci_cmd.c \
	devices/usb/xhci_ring.c \
	devices/virtio/mmio.c \
	devices/virtio/packed.c \
	devices/virtio/pci.c \
	devices/virtio/queue.c \
	devices/virtio/queue.h \
	devices/virtio/vhost_int.h \
	devices/virtio/vhost_kit.c \
	devices/virtio/vhost_user.c \
	devices/virtio/vhost_user.h \
	devices/virtio/virtio.c \
	devices/virtio/virtio.h

# --- tests ------------------------------------------------------------------------------------
device_rig = tests/device/rig.c tests/device/rig.h
check_PROGRAMS += tests/device/registers_test
TESTS += tests/device/registers_test
tests_device_registers_test_SOURCES = tests/device/registers_test.c $(device_rig)
tests_device_registers_test_LDADD = $(LINK_DEVICES) $(CHECK_LIBS)
check_PROGRAMS += tests/device/sound_test
TESTS += tests/device/sound_test
tests_device_sound_test_SOURCES = tests/device/sound_test.c tests/device/vio.h $(device_rig)
tests_device_sound_test_LDADD = $(LINK_DEVICES) $(CHECK_LIBS)

check_PROGRAMS += tests/device/iommu_test
TESTS += tests/device/iommu_test
tests_device_iommu_test_SOURCES = tests/device/iommu_test.c tests/device/vio.h tests/device/pci_rig.c tests/device/pci_rig.h \
	$(device_rig)
tests_device_iommu_test_LDADD = $(LINK_DEVICES) $(CHECK_LIBS)
check_PROGRAMS += tests/device/extras_test
TESTS += tests/device/extras_test
tests_device_extras_test_SOURCES = tests/device/extras_test.c tests/device/vio.h $(device_rig)
tests_device_extras_test_LDADD = $(LINK_DEVICES) $(CHECK_LIBS)
check_PROGRAMS += tests/device/virtio_test
TESTS += tests/device/virtio_test
tests_device_virtio_test_SOURCES = tests/device/virtio_test.c tests/device/vio.h $(device_rig)
tests_device_virtio_test_LDADD = $(LINK_DEVICES) $(CHECK_LIBS)
check_PROGRAMS += tests/device/board_test
TESTS += tests/device/board_test
tests_device_board_test_SOURCES = tests/device/board_test.c $(device_rig)
tests_device_board_test_LDADD = $(LINK_DEVICES) $(CHECK_LIBS)
check_PROGRAMS += tests/device/watchdog_test
TESTS += tests/device/watchdog_test
tests_device_watchdog_test_SOURCES = tests/device/watchdog_test.c tests/device/pci_rig.c tests/device/pci_rig.h \
	$(device_rig)
tests_device_watchdog_test_LDADD = $(LINK_DEVICES) $(CHECK_LIBS)
check_PROGRAMS += tests/device/pci_test
TESTS += tests/device/pci_test
tests_device_pci_test_SOURCES = tests/device/pci_test.c tests/device/pci_rig.c tests/device/pci_rig.h \
	$(device_rig)
tests_device_pci_test_LDADD = $(LINK_DEVICES) $(CHECK_LIBS)
check_PROGRAMS += tests/device/nvme_test
TESTS += tests/device/nvme_test
tests_device_nvme_test_SOURCES = tests/device/nvme_test.c tests/device/pci_rig.c tests/device/pci_rig.h \
	$(device_rig)
tests_device_nvme_test_LDADD = $(LINK_DEVICES) $(CHECK_LIBS)
check_PROGRAMS += tests/device/pflash_test
TESTS += tests/device/pflash_test
tests_device_pflash_test_SOURCES = tests/device/pflash_test.c $(device_rig)
tests_device_pflash_test_LDADD = $(LINK_DEVICES) $(CHECK_LIBS)
EXTRA_DIST += tests/device/state.golden
check_PROGRAMS += tests/device/net_test
TESTS += tests/device/net_test
tests_device_net_test_SOURCES = tests/device/net_test.c $(device_rig)
tests_device_net_test_LDADD = $(LINK_DEVICES) $(CHECK_LIBS)
check_PROGRAMS += tests/device/screen_test
TESTS += tests/device/screen_test
tests_device_screen_test_SOURCES = tests/device/screen_test.c tests/device/pci_rig.c tests/device/pci_rig.h \
	$(device_rig)
tests_device_screen_test_LDADD = $(LINK_DEVICES) $(CHECK_LIBS)
check_PROGRAMS += tests/device/serial_test
TESTS += tests/device/serial_test
tests_device_serial_test_SOURCES = tests/device/serial_test.c $(device_rig)
tests_device_serial_test_LDADD = $(LINK_DEVICES) $(CHECK_LIBS)
check_PROGRAMS += tests/device/usb_test
TESTS += tests/device/usb_test
tests_device_usb_test_SOURCES = tests/device/usb_test.c tests/device/pci_rig.c tests/device/pci_rig.h \
	$(device_rig)
tests_device_usb_test_LDADD = $(LINK_DEVICES) $(CHECK_LIBS)
check_PROGRAMS += tests/device/pc_test
TESTS += tests/device/pc_test
tests_device_pc_test_SOURCES = tests/device/pc_test.c tests/device/pci_rig.c tests/device/pci_rig.h $(device_rig)
tests_device_pc_test_LDADD = $(LINK_DEVICES) $(CHECK_LIBS)

# Between emulators and sound servers of the host.
pkglibexec_PROGRAMS += vmd-sound
vmd_sound_SOURCES = \
	devices/audio/server/main.c \
	devices/audio/server/rings.c \
	devices/audio/server/server.h
vmd_sound_CPPFLAGS = $(AM_CPPFLAGS) $(PIPEWIRE_SYSTEM)
vmd_sound_LDADD = $(LINK_BASE)
if PIPEWIRE
vmd_sound_SOURCES += devices/audio/server/pipewire.c
vmd_sound_LDADD += $(PIPEWIRE_LIBS)
endif
if ALSA
vmd_sound_SOURCES += devices/audio/server/alsa.c
vmd_sound_LDADD += $(ALSA_LIBS)
endif
