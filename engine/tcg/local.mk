# SPDX-License-Identifier: Apache-2.0
# engine/tcg: the dynamic binary translator.
# Sources (headers too: `make dist` packs what stands here), generated files, tests of this room.

noinst_LIBRARIES += libtcg.a
libtcg_a_SOURCES =
nodist_libtcg_a_SOURCES =

include engine/tcg/softfp/local.mk
include engine/tcg/guest_riscv/local.mk
