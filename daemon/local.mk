# SPDX-License-Identifier: Apache-2.0
# daemon: the program vmd, and its helper vmd-spawn.
# Sources (headers too: `make dist` packs what stands here), generated files, tests of this room.

# XML is a room of its own, which the fuzz target links without the daemon.
xml_sources = \
	daemon/xml/bind.c \
	daemon/xml/bind.h \
	daemon/xml/conv.c \
	daemon/xml/doc.c \
	daemon/xml/domain.c \
	daemon/xml/emit.c \
	daemon/xml/network.c \
	daemon/xml/rows.h \
	daemon/xml/snapshot.c \
	daemon/xml/storage.c \
	daemon/xml/table.h \
	daemon/xml/tree.c \
	daemon/xml/tree.h \
	daemon/xml/xml.h
noinst_LIBRARIES += libdaemon.a
libdaemon_a_SOURCES = \
	daemon/adopt.c \
	daemon/auth/access.c \
	daemon/auth/access.h \
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
	daemon/calls.c \
	daemon/calls.h \
	daemon/daemon.h \
	daemon/blockjobs.c \
	daemon/blockjobs.h \
	daemon/dump.c \
	daemon/dump.h \
	daemon/events.c \
	daemon/events.h \
	daemon/filecheck.c \
	daemon/filecheck.h \
	daemon/cgroup.c \
	daemon/cgroup.h \
	daemon/give.c \
	daemon/give.h \
	daemon/hostinfo.c \
	daemon/hostinfo.h \
	daemon/jobs.c \
	daemon/jobs.h \
	daemon/linger.c \
	daemon/linger.h \
	daemon/lockfile.c \
	daemon/lockfile.h \
	daemon/metrics.c \
	daemon/metrics.h \
	daemon/nics.c \
	daemon/nics.h \
	daemon/ops.c \
	daemon/ops.h \
	daemon/options.c \
	daemon/policy.c \
	daemon/policy.h \
	daemon/policy_in.h \
	daemon/policy_shutdown.c \
	daemon/preflight.c \
	daemon/preflight.h \
	daemon/proc.c \
	daemon/proc.h \
	daemon/qmp/block.c \
	daemon/qmp/cmd.c \
	daemon/qmp/cmd.h \
	daemon/qmp/dump.c \
	daemon/qmp/hmp.c \
	daemon/qmp/query.c \
	daemon/qmp/qmp.c \
	daemon/qmp/qmp.h \
	daemon/qmp/qom.c \
	daemon/qmp/run.c \
	daemon/qmp/session.c \
	daemon/qmp/session.h \
	daemon/registry.c \
	daemon/registry.h \
	daemon/rpc_engine.c \
	daemon/rpc_misc.c \
	daemon/rpc_store.c \
	daemon/rpc_vm.c \
	daemon/run.h \
	daemon/runfs.c \
	daemon/runfs.h \
	daemon/spawn/proto.h \
	daemon/spawner.c \
	daemon/spawner.h \
	daemon/stats.c \
	daemon/stats.h \
	daemon/store.c \
	daemon/store.h \
	daemon/store_backup.c \
	daemon/store_backup.h \
	daemon/store_load.c \
	daemon/store_migrate.c \
	daemon/store_sql.c \
	daemon/store_sql.h \
	daemon/supervise.c \
	daemon/supply.c \
	daemon/supply.h \
	daemon/supervise.h \
	daemon/systemd.c \
	daemon/systemd.h \
	daemon/vmdefine.h \
	daemon/vmops.c \
	daemon/vmops.h \
	daemon/waits.c \
	daemon/waits.h \
	daemon/watch.c \
	daemon/rpc_xml.c \
	$(xml_sources)

bin_PROGRAMS += vmd
vmd_SOURCES = daemon/main.c
vmd_LDADD = $(LINK_DAEMON)

# No store, no loop, no thread: it links the JSON of api-schema and the base alone.
pkglibexec_PROGRAMS += vmd-spawn
vmd_spawn_SOURCES = \
	daemon/cgroup.c \
	daemon/filecheck.c \
	daemon/proc.c \
	daemon/spawn/chain.c \
	daemon/spawn/files.c \
	daemon/spawn/header.c \
	daemon/spawn/header.h \
	daemon/spawn/jail.c \
	daemon/spawn/main.c \
	daemon/spawn/monitor.c \
	daemon/spawn/nic.c \
	daemon/spawn/proto.h \
	daemon/spawn/spawn.h
vmd_spawn_LDADD = $(LINK_API)

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
	tests/unit/daemon_test.c
tests_unit_daemon_test_LDADD = $(LINK_DAEMON) $(CHECK_LIBS)

# --- service manager ------------------------------------------------------------------------------
systemdsystemunit_DATA = \
	daemon/systemd/vmd-ro.socket \
	daemon/systemd/vmd.service \
	daemon/systemd/vmd.socket
EXTRA_DIST += \
	daemon/systemd/vmd-ro.socket \
	daemon/systemd/vmd.service.in \
	daemon/systemd/vmd.socket
CLEANFILES += daemon/systemd/vmd.service
daemon/systemd/vmd.service: daemon/systemd/vmd.service.in
	$(AM_V_GEN)$(SUBST_PATHS) <$< >$@

# With the real emulator. Campaigns: daemon_chaos.py, daemon_cycles.py and daemon_hostile.py take --seed N --count N.
TESTS += \
	tests/e2e/daemon_chaos.py \
	tests/e2e/daemon_clock.py \
	tests/e2e/daemon_hostile.py \
	tests/e2e/daemon_corpus.py \
	tests/e2e/daemon_cycles.py \
	tests/e2e/daemon_emulator.py \
	tests/e2e/daemon_input.py \
	tests/e2e/daemon_policy.py \
	tests/e2e/daemon_store.py \
	tests/e2e/daemon_dump.py \
	tests/e2e/daemon_supply.py \
	tests/e2e/daemon_survive.py \
	tests/e2e/daemon_valgrind.py \
	tests/e2e/qmp_clients.py \
	tests/e2e/qmp_commands.py \
	tests/e2e/qmp_input.py \
	tests/e2e/remote_netns.py \
	tests/e2e/remote_pki.py \
	tests/e2e/remote_roles.py \
	tests/e2e/remote_suite.py \
	tests/e2e/remote_tls.py
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
	tests/e2e/daemon_chaos.py \
	tests/e2e/daemon_clock.py \
	tests/e2e/daemon_hostile.py \
	tests/e2e/daemon_corpus.py \
	tests/e2e/daemon_cycles.py \
	tests/e2e/daemon_emulator.py \
	tests/e2e/daemon_input.py \
	tests/e2e/daemon_lib.py \
	tests/e2e/daemon_policy.py \
	tests/e2e/daemon_store.py \
	tests/e2e/daemon_dump.py \
	tests/e2e/daemon_supply.py \
	tests/e2e/daemon_survive.py \
	tests/e2e/daemon_valgrind.py \
	tests/e2e/qmp_clients.py \
	tests/e2e/qmp_commands.py \
	tests/e2e/qmp_go/main.go \
	tests/e2e/qmp_input.py \
	tests/e2e/qmp_lib.py
