# SPDX-License-Identifier: Apache-2.0
# tests/e2e: tests, helper programs and EXTRA_DIST of this folder.

# Real guests and bad ones under vmd-emu by itself (guest_*), and the daemon with its disks (daemon_*).
e2e_tests = \
	tests/e2e/guest_agent.py \
	tests/e2e/guest_bad_input.py \
	tests/e2e/guest_boot.py \
	tests/e2e/guest_button.py \
	tests/e2e/guest_console.py \
	tests/e2e/guest_disks.py \
	tests/e2e/guest_extras.py \
	tests/e2e/guest_iommu.py \
	tests/e2e/guest_media.py \
	tests/e2e/guest_memory.py \
	tests/e2e/guest_fio.py \
	tests/e2e/guest_fork.py \
	tests/e2e/guest_migrate.py \
	tests/e2e/migrate_stress.py \
	tests/e2e/guest_hotplug.py \
	tests/e2e/guest_lan.py \
	tests/e2e/guest_net.py \
	tests/e2e/guest_plug.py \
	tests/e2e/guest_queues.py \
	tests/e2e/guest_tap.py \
	tests/e2e/guest_vhost.py \
	tests/e2e/guest_nbd.py \
	tests/e2e/guest_qcow2.py \
	tests/e2e/guest_screen.py \
	tests/e2e/guest_shares.py \
	tests/e2e/guest_dump.py \
	tests/e2e/guest_snapshots.py \
	tests/e2e/guest_sound.py \
	tests/e2e/guest_sound_server.py \
	tests/e2e/guest_usb.py \
	tests/e2e/share_server.py \
	tests/e2e/guest_stuck.py \
	tests/e2e/guest_vector.py \
	tests/e2e/daemon_blockjobs.py \
	tests/e2e/daemon_race.py \
	tests/e2e/daemon_replay.py \
	tests/e2e/daemon_cloudinit.py \
	tests/e2e/daemon_archives.py \
	tests/e2e/daemon_snapshots.py \
	tests/e2e/snapshot_drill.py \
	tests/e2e/daemon_disks.py \
	tests/e2e/daemon_chain.py \
	tests/e2e/daemon_export.py \
	tests/e2e/daemon_fork.py \
	tests/e2e/daemon_guest_time.py \
	tests/e2e/daemon_overhead.py \
	tests/e2e/daemon_hotplug.py \
	tests/e2e/daemon_inspect.py \
	tests/e2e/daemon_faults.py \
	tests/e2e/daemon_networks.py \
	tests/e2e/daemon_vnc.py \
	tests/e2e/guest_viewer.py \
	tests/e2e/daemon_pools.py \
	tests/e2e/daemon_exports.py \
	tests/e2e/daemon_schedule.py \
	tests/e2e/libvirt_virsh.py \
	tests/e2e/libvirt_python.py \
	tests/e2e/libvirt_backup.py \
	tests/e2e/libvirt_commands.py \
	tests/e2e/libvirt_tls.py \
	tests/e2e/libvirt_tools.py \
	tests/e2e/libvirt_migrate.py \
	tests/e2e/libvirt_desktop.py
TESTS += $(e2e_tests)
EXTRA_DIST += $(e2e_tests) tests/e2e/libvirt_commands.txt tests/e2e/libvirt_go/main.go tests/e2e/desktop_look.py tests/e2e/fuse_disk.py tests/e2e/vector_switch.c tests/e2e/vsock_guest.c tests/e2e/disk_guest.c tests/e2e/migrate_stress.c tests/e2e/iommu_guest.c

# Graphical programs under Xvfb: ./bootstrap desktop installs what they need; without it they are skipped in the check.
desktop-check: all
	$(AM_TESTS_ENVIRONMENT) $(PY) $(abs_top_srcdir)/tests/e2e/libvirt_desktop.py
.PHONY: desktop-check

# The suite over TLS by itself: make check-remote REMOTE_ARGS='daemon_survive.py'
check-remote: all $(check_PROGRAMS)
	$(AM_TESTS_ENVIRONMENT) $(PY) $(abs_top_srcdir)/tests/e2e/remote_suite.py $(REMOTE_ARGS)
.PHONY: check-remote
