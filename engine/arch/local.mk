# SPDX-License-Identifier: Apache-2.0
# engine/arch: architectural state of each ISA, CPU models.
# Sources (headers too: `make dist` packs what stands here), generated files, tests of this room.

noinst_LIBRARIES += libarch.a
libarch_a_SOURCES =
