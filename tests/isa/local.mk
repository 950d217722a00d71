# SPDX-License-Identifier: Apache-2.0
# tests/isa: tests, helper programs and EXTRA_DIST of this folder.

check_PROGRAMS += tests/isa/softfp_test
TESTS += tests/isa/softfp_test
tests_isa_softfp_test_SOURCES = tests/isa/softfp_test.c
tests_isa_softfp_test_LDADD = $(LINK_TCG) $(CHECK_LIBS)

# The system half of the RISC-V guest, without a translator.
check_PROGRAMS += tests/isa/riscv_sys_test tests/isa/riscv_mmu_test tests/isa/riscv_ext_test
TESTS += tests/isa/riscv_sys_test tests/isa/riscv_mmu_test tests/isa/riscv_ext_test
riscv_hart = tests/isa/riscv_hart.c tests/isa/riscv_hart.h
tests_isa_riscv_sys_test_SOURCES = tests/isa/riscv_sys_test.c $(riscv_hart)
tests_isa_riscv_sys_test_LDADD = $(LINK_TCG) $(CHECK_LIBS)
tests_isa_riscv_mmu_test_SOURCES = tests/isa/riscv_mmu_test.c $(riscv_hart)
tests_isa_riscv_mmu_test_LDADD = $(LINK_TCG) $(CHECK_LIBS)
tests_isa_riscv_ext_test_SOURCES = tests/isa/riscv_ext_test.c $(riscv_hart)
tests_isa_riscv_ext_test_LDADD = $(LINK_TCG) $(CHECK_LIBS)

# The .isa reader, the generated decoder, disassembler and random-instruction generator.
check_PROGRAMS += tests/isa/gen_test tests/isa/gen_disas
TESTS += tests/isa/gen_test tests/isa/gen_model.py tests/isa/gen_objdump.py
EXTRA_DIST += tests/isa/gen_model.py tests/isa/gen_objdump.py
tests_isa_gen_test_SOURCES = tests/isa/gen_test.c
tests_isa_gen_test_LDADD = $(LINK_TCG) $(CHECK_LIBS)
tests_isa_gen_disas_SOURCES = tests/isa/gen_disas.c
tests_isa_gen_disas_LDADD = $(LINK_TCG)

# What the RISC-V translate functions emit.
check_PROGRAMS += tests/isa/trans_test
TESTS += tests/isa/trans_test
tests_isa_trans_test_SOURCES = tests/isa/trans_test.c
tests_isa_trans_test_LDADD = $(LINK_TCG) $(CHECK_LIBS)

# Random programs by JIT and by interpreter.
check_PROGRAMS += tests/isa/variants_test
TESTS += tests/isa/variants_test
tests_isa_variants_test_SOURCES = tests/isa/variants_test.c
tests_isa_variants_test_LDADD = $(LINK_TCG) $(CHECK_LIBS)

# Random page tables: the hart with its TLBs against a model without any.
check_PROGRAMS += tests/isa/paging_test
TESTS += tests/isa/paging_test
tests_isa_paging_test_SOURCES = tests/isa/paging_test.c
tests_isa_paging_test_LDADD = $(LINK_TCG) $(CHECK_LIBS)

# Lists, whose next page the second tier guesses.
check_PROGRAMS += tests/isa/chase_test
TESTS += tests/isa/chase_test
tests_isa_chase_test_SOURCES = tests/isa/chase_test.c
tests_isa_chase_test_LDADD = $(LINK_TCG) $(CHECK_LIBS)

check_PROGRAMS += tests/isa/icount_test
TESTS += tests/isa/icount_test
tests_isa_icount_test_SOURCES = tests/isa/icount_test.c
tests_isa_icount_test_LDADD = $(LINK_TCG) $(CHECK_LIBS)

check_PROGRAMS += tests/isa/blocks_test
TESTS += tests/isa/blocks_test
tests_isa_blocks_test_SOURCES = tests/isa/blocks_test.c
tests_isa_blocks_test_LDADD = $(LINK_TCG) $(CHECK_LIBS)

# vmd-emu against the reference: committed vectors, and random programs under both.
TESTS += tests/isa/run_vectors.py tests/isa/run_vector.py tests/isa/run_diff.sh tests/isa/run_smp.py
EXTRA_DIST += tests/isa/cases.py tests/isa/csrs.py tests/isa/deviations.py tests/isa/diff \
	tests/isa/image.py tests/isa/insns.py tests/isa/make-vectors tests/isa/run_diff.sh \
	tests/isa/make-vector-cases tests/isa/run_vector.py tests/isa/vector_diff tests/isa/vector_image.py \
	tests/isa/run_smp.py tests/isa/run_vectors.py tests/isa/runner.py tests/isa/sequences.py tests/isa/vectors.py tests/isa/vectors

# The host back end against the IR interpreter on random blocks.
check_PROGRAMS += tests/isa/vec_hints_test
TESTS += tests/isa/vec_hints_test
tests_isa_vec_hints_test_SOURCES = tests/isa/vec_hints_test.c tests/isa/vec_hints_crypto.c \
	tests/isa/vec_hints_crypto.h
tests_isa_vec_hints_test_LDADD = $(LINK_TCG) $(CHECK_LIBS)

check_PROGRAMS += tests/isa/vector_jit
tests_isa_vector_jit_SOURCES = tests/isa/vector_jit.c tests/isa/twins.c tests/isa/twins.h
tests_isa_vector_jit_LDADD = $(LINK_TCG)
TESTS += tests/isa/vector_jit.sh
EXTRA_DIST += tests/isa/vector_jit.sh
check_PROGRAMS += tests/isa/jit_vs_interp
tests_isa_jit_vs_interp_SOURCES = tests/isa/jit_vs_interp.c tests/isa/twins.c tests/isa/twins.h
tests_isa_jit_vs_interp_LDADD = $(LINK_TCG) -lpthread
TESTS += tests/isa/jit_vs_interp.sh
EXTRA_DIST += tests/isa/jit_vs_interp.sh

# Several vCPUs: memory order; page tables and code that change.
TESTS += tests/isa/run_litmus.sh tests/isa/run_stress.py tests/isa/run_atomics.py
EXTRA_DIST += tests/isa/litmus tests/isa/run_litmus.sh tests/isa/run_stress.py \
	tests/isa/run_atomics.py
