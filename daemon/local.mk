# SPDX-License-Identifier: Apache-2.0
# daemon: the program vmd, and its helper vmd-spawn.
# Sources (headers too: `make dist` packs what stands here), generated files, tests of this room.

# XML is a room of its own, which the fuzz target links without the daemon.
xml_sources = \
	daemon/xml/bind.c \
	daemon/xml/bind.h \
	daemon/xml/channels.c \
	daemon/xml/channels.h \
	daemon/xml/conv.c \
	daemon/xml/cpu.c \
	daemon/xml/cpu.h \
	daemon/xml/doc.c \
	daemon/xml/domain.c \
	daemon/xml/emit.c \
	daemon/xml/extras.c \
	daemon/xml/extras.h \
	daemon/xml/export.c \
	daemon/xml/export.h \
	daemon/xml/network.c \
	daemon/xml/rows.h \
	daemon/xml/nic.c \
	daemon/xml/nic.h \
	daemon/xml/screen.c \
	daemon/xml/screen.h \
	daemon/xml/snapshot.c \
	daemon/xml/storage.c \
	daemon/xml/table.h \
	daemon/xml/tree.c \
	daemon/xml/tree.h \
	daemon/xml/xml.h
noinst_LIBRARIES += libdaemon.a
libdaemon_a_SOURCES = \
	daemon/run/adopt.c \
	daemon/auth/access.c \
	daemon/auth/access.h \
	daemon/auth/admit.c \
	daemon/auth/admit.h \
	daemon/auth/ca.c \
	daemon/auth/ca.h \
	daemon/auth/image_files.c \
	daemon/auth/image_files.h \
	daemon/auth/images.c \
	daemon/auth/images.h \
	daemon/auth/join.c \
	daemon/auth/listen.c \
	daemon/auth/listen.h \
	daemon/auth/rpc_access.c \
	daemon/auth/rpc_cert.c \
	daemon/auth/stream.c \
	daemon/auth/stream.h \
	daemon/auth/token.c \
	daemon/screen/guard.c \
	daemon/screen/guard.h \
	daemon/screen/pump.c \
	daemon/screen/pump.h \
	daemon/screen/rfb.c \
	daemon/screen/rfb.h \
	daemon/screen/vnc.c \
	daemon/screen/vnc.h \
	daemon/screen/vnc_guest.c \
	daemon/screen/vnc_int.h \
	daemon/calls.c \
	daemon/calls.h \
	daemon/daemon.h \
	daemon/vm/cloudinit.c \
	daemon/vm/cloudinit.h \
	daemon/vm/fork.c \
	daemon/vm/fork.h \
	daemon/vm/fork_copies.c \
	daemon/vm/fork_plan.c \
	daemon/vm/inspect.c \
	daemon/vm/iso9660.c \
	daemon/vm/iso9660.h \
	daemon/vm/agent.c \
	daemon/vm/agent.h \
	daemon/vm/agent_calls.c \
	daemon/vm/channels.c \
	daemon/vm/checkpoint.c \
	daemon/vm/checkpoint.h \
	daemon/vm/channels.h \
	daemon/vm/blockjobs.c \
	daemon/vm/blockjobs.h \
	daemon/vm/disk_actions.c \
	daemon/vm/disk_intent.c \
	daemon/vm/disk_actions.h \
	daemon/vm/disk_intent.h \
	daemon/vm/swap_record.c \
	daemon/vm/swap_record.h \
	daemon/vm/disk_export.c \
	daemon/vm/dump.c \
	daemon/vm/migrate.c \
	daemon/vm/migrate.h \
	daemon/vm/migrate_in.c \
	daemon/vm/migrate_out.c \
	daemon/vm/migrate_out_disks.c \
	daemon/vm/migrate_out_lanes.c \
	daemon/vm/migrate_out_there.c \
	daemon/vm/migrate_place.c \
	daemon/vm/migrate_place.h \
	daemon/vm/migrate_out.h \
	daemon/vm/peer.c \
	daemon/vm/peer.h \
	daemon/vm/shares.c \
	daemon/vm/shares.h \
	daemon/vm/save.c \
	daemon/vm/snapshot.c \
	daemon/vm/snapshot_archive.c \
	daemon/vm/snapshot_archive.h \
	daemon/vm/snapshot_import.c \
	daemon/vm/state_file.c \
	daemon/vm/state_tool.c \
	daemon/vm/state_tool.h \
	daemon/vm/snapshot.h \
	daemon/vm/snapshot_disks.c \
	daemon/vm/snapshot_ops.c \
	daemon/vm/snapshot_work.c \
	daemon/vm/snapshot_work.h \
	daemon/vm/snapshot_xml.c \
	daemon/vm/save.h \
	daemon/vm/dump.h \
	daemon/vm/hotplug.c \
	daemon/vm/media.c \
	daemon/vm/media.h \
	daemon/vm/link.c \
	daemon/vm/hotplug.h \
	daemon/events.c \
	daemon/events.h \
	daemon/host/filecheck.c \
	daemon/host/filecheck.h \
	daemon/run/cgroup.c \
	daemon/run/cgroup.h \
	daemon/run/give.c \
	daemon/run/give.h \
	daemon/host/hostinfo.c \
	daemon/host/hostinfo.h \
	daemon/jobs.c \
	daemon/jobs.h \
	daemon/run/linger.c \
	daemon/run/linger.h \
	daemon/host/lockfile.c \
	daemon/host/lockfile.h \
	daemon/host/metrics.c \
	daemon/host/metrics.h \
	daemon/vm/nics.c \
	daemon/vm/nics.h \
	daemon/ops.c \
	daemon/ops.h \
	daemon/options.c \
	daemon/vm/policy.c \
	daemon/vm/policy.h \
	daemon/vm/policy_in.h \
	daemon/vm/policy_shutdown.c \
	daemon/vm/preflight.c \
	daemon/vm/reconnect.c \
	daemon/vm/reconnect.h \
	daemon/vm/preflight.h \
	daemon/run/proc.c \
	daemon/run/proc.h \
	daemon/libvirt/call.h \
	daemon/libvirt/tune.c \
	daemon/libvirt/parts.h \
	daemon/libvirt/migrate.c \
	daemon/libvirt/nodedev.c \
	daemon/libvirt/parts.c \
	daemon/libvirt/host.c \
	daemon/libvirt/guest.c \
	daemon/libvirt/figures.c \
	daemon/libvirt/backup.c \
	daemon/libvirt/blockjob.c \
	daemon/libvirt/actions.c \
	daemon/libvirt/addresses.c \
	daemon/libvirt/capabilities.c \
	daemon/libvirt/checkpoint.c \
	daemon/libvirt/checkpoint.h \
	daemon/libvirt/connect.c \
	daemon/libvirt/device.c \
	daemon/libvirt/domain.c \
	daemon/libvirt/events.c \
	daemon/libvirt/events.h \
	daemon/libvirt/jobs.c \
	daemon/libvirt/jobs.h \
	daemon/libvirt/libvirt.h \
	daemon/libvirt/lifecycle.c \
	daemon/libvirt/lists.c \
	daemon/libvirt/network.c \
	daemon/libvirt/procedures.c \
	daemon/libvirt/procedures.h \
	daemon/libvirt/procs.h \
	daemon/libvirt/savefile.c \
	daemon/libvirt/session.c \
	daemon/libvirt/session.h \
	daemon/libvirt/snapshot.c \
	daemon/libvirt/stats.c \
	daemon/libvirt/storage.c \
	daemon/libvirt/stream.c \
	daemon/libvirt/stream.h \
	daemon/libvirt/transfer.c \
	daemon/libvirt/xdr.c \
	daemon/libvirt/xdr.h \
	daemon/qmp/backs.c \
	daemon/qmp/block.c \
	daemon/qmp/blockjob.c \
	daemon/qmp/cmd.c \
	daemon/qmp/cmd.h \
	daemon/qmp/disks.c \
	daemon/qmp/dump.c \
	daemon/qmp/hmp.c \
	daemon/qmp/media.c \
	daemon/qmp/memory.c \
	daemon/qmp/migrate.c \
	daemon/qmp/nodes.c \
	daemon/qmp/far_node.c \
	daemon/qmp/pci.c \
	daemon/qmp/plug.c \
	daemon/qmp/plug.h \
	daemon/qmp/query.c \
	daemon/qmp/qmp.c \
	daemon/qmp/qmp.h \
	daemon/qmp/qom.c \
	daemon/qmp/replay.c \
	daemon/qmp/run.c \
	daemon/qmp/screen.c \
	daemon/qmp/session.c \
	daemon/qmp/snapshots.c \
	daemon/qmp/session.h \
	daemon/registry.c \
	daemon/registry.h \
	daemon/vm/replay.c \
	daemon/vm/rpc_engine.c \
	daemon/rpc_misc.c \
	daemon/store/rpc_store.c \
	daemon/vm/rpc_vm.c \
	daemon/run/run.h \
	daemon/run/runfs.c \
	daemon/run/runfs.h \
	daemon/spawn/proto.h \
	daemon/run/spawner.c \
	daemon/run/spawner.h \
	daemon/storage/files.c \
	daemon/storage/files.h \
	daemon/storage/kind_lvm.c \
	daemon/storage/kind_nbd.c \
	daemon/storage/lvm_report.c \
	daemon/storage/lvm_report.h \
	daemon/network/check.c \
	daemon/network/networks.c \
	daemon/network/networks.h \
	daemon/network/patch.c \
	daemon/network/process.c \
	daemon/network/rpc_network.c \
	daemon/network/rpc_port.c \
	daemon/storage/pools.c \
	daemon/storage/pools.h \
	daemon/storage/rpc_pool.c \
	daemon/storage/rpc_volume.c \
	daemon/storage/volume_work.c \
	daemon/storage/volume_work.h \
	daemon/storage/work.c \
	daemon/storage/work.h \
	daemon/storage/worker.h \
	daemon/run/stats.c \
	daemon/run/stats.h \
	daemon/store/store.c \
	daemon/store/store.h \
	daemon/store/backup.c \
	daemon/store/backup.h \
	daemon/store/load.c \
	daemon/store/migrate.c \
	daemon/store/sql.c \
	daemon/store/sql.h \
	daemon/run/supervise.c \
	daemon/vm/schedule.c \
	daemon/vm/schedule.h \
	daemon/vm/supply.c \
	daemon/vm/supply.h \
	daemon/vm/throttle.c \
	daemon/vm/vsock.c \
	daemon/vm/relay.c \
	daemon/vm/relay.h \
	daemon/vm/backup.c \
	daemon/vm/backup.h \
	daemon/vm/balloon.c \
	daemon/vm/balloon.h \
	daemon/vm/memdev.c \
	daemon/vm/memdev.h \
	daemon/run/supervise.h \
	daemon/host/systemd.c \
	daemon/host/systemd.h \
	daemon/vm/vmdefine.h \
	daemon/vm/vmops.c \
	daemon/vm/vmops.h \
	daemon/web/conn.c \
	daemon/web/conn.h \
	daemon/web/files.c \
	daemon/web/files.h \
	daemon/web/http.c \
	daemon/web/http.h \
	daemon/web/page.c \
	daemon/web/server.c \
	daemon/web/session.c \
	daemon/web/session.h \
	daemon/web/web.h \
	daemon/web/websocket.c \
	daemon/web/websocket.h \
	daemon/waits.c \
	daemon/waits.h \
	daemon/run/watch.c \
	daemon/rpc_xml.c \
	$(xml_sources)

bin_PROGRAMS += vmd
vmd_SOURCES = daemon/main.c
vmd_LDADD = $(LINK_DAEMON)

# No store, no loop, no thread: it links the JSON of api-schema and the base alone.
pkglibexec_PROGRAMS += vmd-spawn
vmd_spawn_SOURCES = \
	daemon/run/cgroup.c \
	daemon/host/filecheck.c \
	daemon/run/proc.c \
	daemon/spawn/chain.c \
	daemon/spawn/files.c \
	daemon/spawn/header.c \
	daemon/spawn/header.h \
	daemon/spawn/jail.c \
	daemon/spawn/main.c \
	daemon/spawn/vsock.c \
	daemon/spawn/monitor.c \
	daemon/spawn/network.c \
	daemon/spawn/nic.c \
	daemon/spawn/share.c \
	daemon/spawn/sound.c \
	daemon/spawn/tls.c \
	daemon/spawn/proto.h \
	daemon/spawn/spawn.h
vmd_spawn_LDADD = $(LINK_API)

# Confines itself, then becomes `vmctl image`: what the daemon has done with images.
pkglibexec_PROGRAMS += vmd-image
vmd_image_SOURCES = daemon/storage/worker.c

# A stand-in for vmd-emu, for tests of the daemon that need an emulator that misbehaves.
check_PROGRAMS += tests/e2e/fake_emu
tests_e2e_fake_emu_SOURCES = tests/e2e/fake_emu.c
tests_e2e_fake_emu_LDADD = $(LINK_API)

check_PROGRAMS += tests/unit/daemon_test
TESTS += tests/unit/daemon_test
tests_unit_daemon_test_SOURCES = \
	tests/unit/daemon_faultvfs.c \
	tests/unit/daemon_faultvfs.h \
	tests/unit/daemon_migrate.c \
	tests/unit/daemon_registry.c \
	tests/unit/daemon_spawn.c \
	tests/unit/daemon_store.c \
	tests/unit/daemon_suites.h \
	tests/unit/daemon_web.c \
	tests/unit/daemon_lvm.c \
	tests/unit/daemon_test.c
tests_unit_daemon_test_LDADD = $(LINK_DAEMON) $(CHECK_LIBS)

# --- service manager ------------------------------------------------------------------------------
systemdsystemunit_DATA = \
	daemon/systemd/vmd-guests.service \
	daemon/systemd/vmd-ro.socket \
	daemon/systemd/vmd.service \
	daemon/systemd/vmd.socket
EXTRA_DIST += \
	daemon/systemd/vmd-guests.service.in \
	daemon/systemd/vmd-ro.socket \
	daemon/systemd/vmd.service.in \
	daemon/systemd/vmd.socket
CLEANFILES += daemon/systemd/vmd.service daemon/systemd/vmd-guests.service
daemon/systemd/vmd.service: daemon/systemd/vmd.service.in
	$(AM_V_GEN)$(SUBST_PATHS) <$< >$@
daemon/systemd/vmd-guests.service: daemon/systemd/vmd-guests.service.in
	$(AM_V_GEN)$(SUBST_PATHS) <$< >$@

# With the real emulator. Campaigns: daemon_chaos.py, daemon_cycles.py and daemon_hostile.py take --seed N --count N.
TESTS += \
	tests/e2e/daemon_chaos.py \
	tests/e2e/daemon_migrate.py \
	tests/e2e/daemon_migrate_disks.py \
	tests/e2e/daemon_clock.py \
	tests/e2e/daemon_hostile.py \
	tests/e2e/daemon_corpus.py \
	tests/e2e/daemon_cycles.py \
	tests/e2e/daemon_emulator.py \
	tests/e2e/daemon_input.py \
	tests/e2e/daemon_policy.py \
	tests/e2e/daemon_save.py \
	tests/e2e/daemon_store.py \
	tests/e2e/daemon_dump.py \
	tests/e2e/daemon_supply.py \
	tests/e2e/daemon_survive.py \
	tests/e2e/daemon_valgrind.py \
	tests/e2e/qmp_clients.py \
	tests/e2e/qmp_commands.py \
	tests/e2e/qmp_disks.py \
	tests/e2e/qmp_snapshots.py \
	tests/e2e/qmp_plug.py \
	tests/e2e/qmp_input.py \
	tests/e2e/qmp_migrate.py \
	tests/e2e/qmp_screen.py \
	tests/e2e/remote_netns.py \
	tests/e2e/remote_pki.py \
	tests/e2e/remote_roles.py \
	tests/e2e/remote_suite.py \
	tests/e2e/remote_tls.py \
	tests/e2e/remote_web.py
EXTRA_DIST += \
	tests/e2e/clock_shim.c \
	tests/e2e/bad_requests.json \
	tests/e2e/far_lib.py \
	tests/e2e/remote_lib.py \
	tests/e2e/remote_netns.py \
	tests/e2e/remote_pki.py \
	tests/e2e/remote_roles.py \
	tests/e2e/remote_suite.py \
	tests/e2e/remote_tls.py \
	tests/e2e/remote_web.py \
	tests/e2e/daemon_chaos.py \
	tests/e2e/daemon_clock.py \
	tests/e2e/daemon_hostile.py \
	tests/e2e/daemon_corpus.py \
	tests/e2e/daemon_cycles.py \
	tests/e2e/daemon_emulator.py \
	tests/e2e/daemon_input.py \
	tests/e2e/daemon_lib.py \
	tests/e2e/daemon_migrate.py \
	tests/e2e/daemon_migrate_disks.py \
	tests/e2e/migrate_lib.py \
	tests/e2e/daemon_policy.py \
	tests/e2e/daemon_save.py \
	tests/e2e/daemon_store.py \
	tests/e2e/daemon_dump.py \
	tests/e2e/daemon_supply.py \
	tests/e2e/daemon_survive.py \
	tests/e2e/daemon_valgrind.py \
	tests/e2e/qmp_clients.py \
	tests/e2e/qmp_commands.py \
	tests/e2e/qmp_go/main.go \
	tests/e2e/qmp_disks.py \
	tests/e2e/qmp_snapshots.py \
	tests/e2e/qmp_plug.py \
	tests/e2e/qmp_input.py \
	tests/e2e/qmp_migrate.py \
	tests/e2e/qmp_screen.py \
	tests/e2e/qmp_lib.py
