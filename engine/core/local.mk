# SPDX-License-Identifier: Apache-2.0
# engine/core: VM lifecycle, memory, bus, interrupts, clock, devices, state, loader.
# Sources (headers too: `make dist` packs what stands here), generated files, tests of this room.

noinst_LIBRARIES += libcore.a
libcore_a_SOURCES = \
	engine/core/bus.c \
	engine/core/bus.h \
	engine/core/clock.c \
	engine/core/clock.h \
	engine/core/core_image.c \
	engine/core/core_image.h \
	engine/core/device.c \
	engine/core/device.h \
	engine/core/device_doc.c \
	engine/core/device_regs.c \
	engine/core/dma.c \
	engine/core/dma.h \
	engine/core/engine.h \
	engine/core/fdt.c \
	engine/core/fdt.h \
	engine/core/gdb.c \
	engine/core/gdb.h \
	engine/core/irq.c \
	engine/core/irq.h \
	engine/core/loader.c \
	engine/core/loader.h \
	engine/core/loader_bzimage.c \
	engine/core/loader_elf.c \
	engine/core/loader_priv.h \
	engine/core/mem.h \
	engine/core/mem_dma.c \
	engine/core/mem_flat.c \
	engine/core/mem_priv.h \
	engine/core/mem_region.c \
	engine/core/replay.c \
	engine/core/replay.h \
	engine/core/state.c \
	engine/core/state.h \
	engine/core/vcpu.c \
	engine/core/vcpu.h \
	engine/core/vm.c \
	engine/core/vmstate.c \
	engine/core/vmstate.h \
	engine/core/vmstate_view.c \
	engine/core/vmstate_view.h \
	engine/core/vm.h

core_tests = tests/core/bus_test \
	tests/core/clock_test \
	tests/core/device_test \
	tests/core/fdt_test \
	tests/core/gdb_test \
	tests/core/loader_test \
	tests/core/mem_test \
	tests/core/riscv_test \
	tests/core/state_test \
	tests/core/vm_test
check_PROGRAMS += $(core_tests)
TESTS += $(core_tests)
tests_core_bus_test_SOURCES = tests/core/bus_test.c
tests_core_bus_test_LDADD = $(LINK_CORE) $(CHECK_LIBS)
tests_core_clock_test_SOURCES = tests/core/clock_test.c
tests_core_clock_test_LDADD = $(LINK_CORE) $(CHECK_LIBS)
tests_core_device_test_SOURCES = tests/core/device_test.c
tests_core_device_test_LDADD = $(LINK_CORE) $(CHECK_LIBS)
tests_core_fdt_test_SOURCES = tests/core/fdt_test.c
tests_core_fdt_test_LDADD = $(LINK_CORE) $(CHECK_LIBS)
tests_core_gdb_test_SOURCES = tests/core/gdb_test.c
tests_core_gdb_test_LDADD = $(LINK_CORE) $(CHECK_LIBS)
tests_core_loader_test_SOURCES = tests/core/loader_test.c
tests_core_loader_test_LDADD = $(LINK_CORE) $(CHECK_LIBS)
tests_core_mem_test_SOURCES = tests/core/mem_test.c
tests_core_mem_test_LDADD = $(LINK_CORE) $(CHECK_LIBS)
tests_core_riscv_test_SOURCES = tests/core/riscv_test.c
tests_core_riscv_test_LDADD = $(LINK_CORE) $(CHECK_LIBS)
tests_core_state_test_SOURCES = tests/core/state_test.c
tests_core_state_test_LDADD = $(LINK_CORE) $(CHECK_LIBS)
tests_core_vm_test_SOURCES = tests/core/vm_test.c
tests_core_vm_test_LDADD = $(LINK_CORE) $(CHECK_LIBS)

# The stub against the real translator; needs vmd-emu, which "make check" has built.
TESTS += tests/core/gdb_guest.py
EXTRA_DIST += tests/core/gdb_guest.py
