# SPDX-License-Identifier: Apache-2.0
# engine/emu: the program vmd-emu.
# Sources (headers too: `make dist` packs what stands here), generated files, tests of this room.

noinst_LIBRARIES += libemu.a
libemu_a_SOURCES =
