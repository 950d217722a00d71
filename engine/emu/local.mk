# SPDX-License-Identifier: Apache-2.0
# engine/emu: the program vmd-emu.
# Sources (headers too: `make dist` packs what stands here), generated files, tests of this room.

noinst_LIBRARIES += libemu.a
libemu_a_SOURCES = \
	engine/emu/balloon.c \
	engine/emu/audio.c \
	engine/emu/media.c engine/emu/memdev.c \
	engine/emu/guard.c \
	engine/emu/vsock.c \
	engine/emu/build.c \
	engine/emu/channel.c \
	engine/emu/config.c \
	engine/emu/confine.c \
	engine/emu/console.c \
	engine/emu/console.h \
	engine/emu/control.c \
	engine/emu/dump.c \
	engine/emu/disk_actions.c \
	engine/emu/disks.c \
	engine/emu/emu.h \
	engine/emu/export.c \
	engine/emu/files.c \
	engine/emu/hotplug.c \
	engine/emu/hotplug_record.c \
	engine/emu/niclink.c \
	engine/emu/inspect.c \
	engine/emu/pci_list.c \
	engine/emu/nbd.c \
	engine/emu/nic.c \
	engine/emu/jobs.c \
	engine/emu/observe.c \
	engine/emu/options.c \
	engine/emu/replay/calls.c \
	engine/emu/replay/chr.c \
	engine/emu/replay/disk.c \
	engine/emu/replay/hash.c \
	engine/emu/replay/log.c \
	engine/emu/replay/log.h \
	engine/emu/replay/nic.c \
	engine/emu/replay/replay.c \
	engine/emu/replay/replay.h \
	engine/emu/replay/scratch.c \
	engine/emu/replay/scratch.h \
	engine/emu/state/chunk.c \
	engine/emu/state/chunk.h \
	engine/emu/state/file.c \
	engine/emu/state/file.h \
	engine/emu/state/load.c \
	engine/emu/state/pager.c \
	engine/emu/state/pager.h \
	engine/emu/state/migrate.c \
	engine/emu/state/migrate.h \
	engine/emu/state/migrate_disks.c \
	engine/emu/state/migrate_in.c \
	engine/emu/state/migrate_out.c \
	engine/emu/state/pages.c \
	engine/emu/state/pages.h \
	engine/emu/state/save.c \
	engine/emu/state/seal.c \
	engine/emu/state/seal.h \
	engine/emu/state/state.c \
	engine/emu/state/state.h \
	engine/emu/state/stream.c \
	engine/emu/state/stream.h \
	engine/emu/state/view.c \
	engine/emu/state/view.h \
	engine/emu/state/view_diff.c \
	engine/emu/share.c \
	engine/emu/sound.c \
	engine/emu/screen.c \
	engine/emu/screen.h \
	engine/emu/vnc.c \
	engine/emu/vnc.h \
	engine/emu/vnc_encode.c \
	engine/emu/vnc_int.h \
	engine/emu/vnc_update.c \
	engine/emu/stats.c

pkglibexec_PROGRAMS += vmd-emu
vmd_emu_SOURCES = engine/emu/main.c
vmd_emu_LDADD = $(LINK_EMU)

# Looks into state files for the daemon, confined to 15 system calls.
pkglibexec_PROGRAMS += vmd-state
vmd_state_SOURCES = engine/emu/state/tool.c
vmd_state_LDADD = $(LINK_EMU)

TESTS += tests/device/emu_control.py
EXTRA_DIST += tests/device/emu_control.py
TESTS += tests/emu/observe.py tests/emu/icount.py tests/emu/memory.py tests/emu/state.py tests/emu/state_golden.py tests/emu/state_many.py tests/emu/replay.py
EXTRA_DIST += tests/emu/state_golden.py tests/emu/golden/rv-virt-2.state.xz
EXTRA_DIST += tests/emu/replay.py tests/emu/replay_lib.py tests/emu/replay_soak.py tests/emu/icount.py tests/emu/memory.py tests/emu/observe.py tests/emu/state.py tests/emu/state_many.py tests/emu/emu_lib.py
check_PROGRAMS += tests/emu/confine_test
TESTS += tests/emu/confine_test
tests_emu_confine_test_SOURCES = tests/emu/confine_test.c
tests_emu_confine_test_LDADD = $(LINK_EMU) $(CHECK_LIBS)
