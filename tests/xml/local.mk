# SPDX-License-Identifier: Apache-2.0
# tests/xml: libvirt-compatible XML against libvirt's own schema, examples and virt-install.

TESTS += tests/xml/xml_test.py
EXTRA_DIST += tests/xml/bad.json tests/xml/capabilities.xml tests/xml/rng.py tests/xml/virt-install tests/xml/virt_install.py \
	tests/xml/xml_test.py
tests/xml/xml_test.log: tests/lint/xml_page$(EXEEXT) vmctl$(EXEEXT) vmd$(EXEEXT)
