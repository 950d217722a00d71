# SPDX-License-Identifier: Apache-2.0
# engine/arch: architectural state of each ISA, CPU models.
# Sources (headers too: `make dist` packs what stands here), generated files, tests of this room.

noinst_LIBRARIES += libarch.a
libarch_a_SOURCES = \
	engine/arch/riscv/corenote.c \
	engine/arch/riscv/corenote.h \
	engine/arch/riscv/cpu.h \
	engine/arch/riscv/extensions.def \
	engine/arch/riscv/features.c \
	engine/arch/riscv/features.h \
	engine/arch/riscv/gdb.c \
	engine/arch/riscv/gdb.h \
	engine/arch/riscv/pmu.c \
	engine/arch/riscv/pmu.h \
	engine/arch/riscv/state.c \
	engine/arch/riscv/vector.h \
	engine/arch/x86/cpu.h \
	engine/arch/x86/features.c \
	engine/arch/x86/features.h \
	engine/arch/x86/gdb.c \
	engine/arch/x86/gdb.h \
	engine/arch/x86/state.c
