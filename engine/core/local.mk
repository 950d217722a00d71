# SPDX-License-Identifier: Apache-2.0
# engine/core: VM lifecycle, memory, bus, interrupts, clock, devices, state, loader.
# Sources (headers too: `make dist` packs what stands here), generated files, tests of this room.

noinst_LIBRARIES += libcore.a
libcore_a_SOURCES =
