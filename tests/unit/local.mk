# SPDX-License-Identifier: Apache-2.0
# tests/unit: unit tests of engine/base.

check_PROGRAMS += tests/unit/base_test
TESTS += tests/unit/base_test
tests_unit_base_test_SOURCES = \
	tests/unit/base_fd.c \
	tests/unit/base_hash.c \
	tests/unit/base_log.c \
	tests/unit/base_loop.c \
	tests/unit/base_str.c \
	tests/unit/base_suites.h \
	tests/unit/base_test.c \
	tests/unit/base_values.c
tests_unit_base_test_LDADD = $(LINK_BASE) $(CHECK_LIBS)
