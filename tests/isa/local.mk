# SPDX-License-Identifier: Apache-2.0
# tests/isa: tests, helper programs and EXTRA_DIST of this folder.

check_PROGRAMS += tests/isa/softfp_test
TESTS += tests/isa/softfp_test
tests_isa_softfp_test_SOURCES = tests/isa/softfp_test.c
tests_isa_softfp_test_LDADD = $(LINK_TCG) $(CHECK_LIBS)
