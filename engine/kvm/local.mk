# SPDX-License-Identifier: Apache-2.0
# engine/kvm: the engine on Linux's KVM.
# Sources (headers too: `make dist` packs what stands here), generated files, tests of this room.

noinst_LIBRARIES += libkvm.a
libkvm_a_SOURCES = \
	engine/kvm/arch_x86.c \
	engine/kvm/bell.c \
	engine/kvm/internal.h \
	engine/kvm/kvm.c \
	engine/kvm/kvm.h \
	engine/kvm/memslot.c \
	engine/kvm/vcpu.c

check_PROGRAMS += tests/kvm/kvm_test
TESTS += tests/kvm/kvm_test
tests_kvm_kvm_test_SOURCES = tests/kvm/kvm_test.c tests/kvm/guests.S
tests_kvm_kvm_test_LDADD = $(LINK_KVM) $(CHECK_LIBS)

kvm_tests = tests/kvm/microvm.py tests/kvm/q35.py tests/kvm/screen.py tests/kvm/sleep.py tests/kvm/daemon_kvm.py tests/kvm/state_golden_pc.py
EXTRA_DIST += tests/emu/golden/microvm.golden.xz tests/emu/golden/q35.golden.xz
TESTS += $(kvm_tests)
EXTRA_DIST += $(kvm_tests) tests/kvm/kvm_lib.py tests/kvm/nested.py tests/kvm/nested_pc.py tests/kvm/pvh.S tests/kvm/bootsector.S tests/kvm/sleeper.S

# Debian's kernel under this engine with hardware support, which QEMU's translator plays: minutes, so no part of make check.
.PHONY: check-kvm-nested
check-kvm-nested: all
	VMD_SRCDIR=$(abs_top_srcdir) VMD_BUILDDIR=$(abs_top_builddir) $(PY) $(srcdir)/tests/kvm/nested.py $(NESTED_ARGS)

.PHONY: check-kvm-q35
check-kvm-q35: all
	VMD_SRCDIR=$(abs_top_srcdir) VMD_BUILDDIR=$(abs_top_builddir) $(PY) $(srcdir)/tests/kvm/nested_pc.py $(NESTED_ARGS)
