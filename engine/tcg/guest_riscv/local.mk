# SPDX-License-Identifier: Apache-2.0
# engine/tcg/guest_riscv: the RISC-V guest. Included by engine/tcg/local.mk, part of libtcg.a.

riscv_isa = engine/tcg/guest_riscv/riscv.isa engine/tcg/guest_riscv/riscv_v.isa
riscv_gen = engine/tcg/guest_riscv/riscv_isa.h engine/tcg/guest_riscv/riscv_decode.c \
	engine/tcg/guest_riscv/riscv_dispatch.c engine/tcg/guest_riscv/riscv_tables.c
BUILT_SOURCES += engine/tcg/guest_riscv/riscv_isa.h
CLEANFILES += $(riscv_gen) engine/tcg/guest_riscv/gen.stamp
EXTRA_DIST += $(riscv_isa) engine/tcg/gen/isagen.py engine/tcg/gen/isamodel.py \
	docs/guide/isa-format.md docs/reference/isa-riscv.md docs/reference/riscv-extensions.md
nodist_libtcg_a_SOURCES += $(riscv_gen)
engine/tcg/guest_riscv/gen.stamp: engine/tcg/gen/isagen.py engine/tcg/gen/isamodel.py $(riscv_isa)
	$(AM_V_GEN)$(MKDIR_P) engine/tcg/guest_riscv && $(PY) $(srcdir)/engine/tcg/gen/isagen.py \
		$(riscv_isa:%=--isa $(srcdir)/%) --include engine/tcg/guest_riscv/riscv_isa.h \
		--header engine/tcg/guest_riscv/riscv_isa.h \
		--decode engine/tcg/guest_riscv/riscv_decode.c \
		--dispatch engine/tcg/guest_riscv/riscv_dispatch.c \
		--tables engine/tcg/guest_riscv/riscv_tables.c && touch $@
$(riscv_gen): engine/tcg/guest_riscv/gen.stamp ;

# Decoder, disassembler, translate functions.
libtcg_a_SOURCES += \
	engine/tcg/gen/isa.c \
	engine/tcg/gen/isa.h \
	engine/tcg/guest_riscv/disas.c \
	engine/tcg/guest_riscv/disas.h \
	engine/tcg/guest_riscv/guest.h \
	engine/tcg/guest_riscv/trans.c \
	engine/tcg/guest_riscv/trans.h \
	engine/tcg/guest_riscv/trans_a.c \
	engine/tcg/guest_riscv/trans_b.c \
	engine/tcg/guest_riscv/trans_fd.c \
	engine/tcg/guest_riscv/trans_i.c \
	engine/tcg/guest_riscv/trans_k.c \
	engine/tcg/guest_riscv/trans_m.c \
	engine/tcg/guest_riscv/trans_sys.c \
	engine/tcg/guest_riscv/trans_v.c \
	engine/tcg/guest_riscv/trans_v_hint.c \
	engine/tcg/guest_riscv/trans_z.c \
	engine/tcg/guest_riscv/trans_zfh.c

# Helpers: CSRs, traps, memory management, floating point.
libtcg_a_SOURCES += \
	engine/tcg/guest_riscv/csr.c \
	engine/tcg/guest_riscv/fp.c \
	engine/tcg/guest_riscv/fp_z.c \
	engine/tcg/guest_riscv/fp_z.h \
	engine/tcg/guest_riscv/helper.c \
	engine/tcg/guest_riscv/helper_k.c \
	engine/tcg/guest_riscv/helper_z.c \
	engine/tcg/guest_riscv/sbox.c \
	engine/tcg/guest_riscv/sbox.h \
	engine/tcg/guest_riscv/helper.h \
	engine/tcg/guest_riscv/mmu.c \
	engine/tcg/guest_riscv/pmp.c \
	engine/tcg/guest_riscv/sys.h \
	engine/tcg/guest_riscv/trap.c

# Vector instructions.
libtcg_a_SOURCES += \
	engine/tcg/guest_riscv/helper_v.c \
	engine/tcg/guest_riscv/helper_v_bits.c \
	engine/tcg/guest_riscv/helper_v_crypto.c \
	engine/tcg/guest_riscv/helper_v_cvt.c \
	engine/tcg/guest_riscv/helper_v_fp.c \
	engine/tcg/guest_riscv/helper_v_int.c \
	engine/tcg/guest_riscv/helper_v_mask.c \
	engine/tcg/guest_riscv/helper_v_mem.c \
	engine/tcg/guest_riscv/helper_v_wide.c \
	engine/tcg/guest_riscv/vec.h \
	engine/tcg/guest_riscv/vec_kernels.h \
	engine/tcg/guest_riscv/vec_mem.h \
	engine/tcg/guest_riscv/vec_ops.c
