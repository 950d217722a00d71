# SPDX-License-Identifier: Apache-2.0
# tests/lint: rules of the tree, checked by make check, and the proof that each can go red.

lint_tests = \
	tests/lint/dist.py \
	tests/lint/format.py \
	tests/lint/globals.py \
	tests/lint/calls.py \
	tests/lint/include.py \
	tests/lint/reference.py \
	tests/lint/selftest.py \
	tests/lint/size.py
TESTS += $(lint_tests)
EXTRA_DIST += $(lint_tests) tests/lint/tree.py

check_PROGRAMS += tests/lint/device_page tests/lint/xml_page
tests_lint_xml_page_SOURCES = tests/lint/xml_page.c
tests_lint_xml_page_LDADD = $(LINK_DAEMON)
tests_lint_device_page_SOURCES = tests/lint/device_page.c
tests_lint_device_page_LDADD = $(LINK_DEVICES)

# The globals lint looks at every object; the reference lint runs a program.
tests/lint/globals.log: all
tests/lint/reference.log: tests/lint/device_page$(EXEEXT) tests/lint/xml_page$(EXEEXT)

# What make dist packs, as a list for the dist lint.
tests/lint/distfiles: Makefile
	$(AM_V_GEN)$(MKDIR_P) tests/lint && printf '%s\n' $(DIST_COMMON) $(DIST_SOURCES) $(EXTRA_DIST) \
		$(dist_man_MANS) $(TEXINFOS) | sed -e 's,^$(srcdir)/,,' >$@
tests/lint/dist.log: tests/lint/distfiles
CLEANFILES += tests/lint/distfiles

# Writes the pages under docs/reference anew.
docs: all tests/lint/device_page$(EXEEXT) tests/lint/xml_page$(EXEEXT)
	$(AM_TESTS_ENVIRONMENT) $(PY) $(srcdir)/tests/lint/reference.py --write
lint: all
	$(MAKE) check TESTS='$(lint_tests)'
.PHONY: docs lint
