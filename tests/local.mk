# SPDX-License-Identifier: Apache-2.0
# tests: what the tests of all rooms share. A room's own unit tests stand in its local.mk.

EXTRA_DIST += tests/lib/again.py tests/lib/driver.py tests/lib/guest_shell.py tests/lib/sum.py tests/lib/tap.py tests/lib/testing.h tests/soak

include tests/unit/local.mk
include tests/lint/local.mk
include tests/isa/local.mk
include tests/fuzz/local.mk
include tests/guests/local.mk
include tests/bench/local.mk
include tests/e2e/local.mk
include tests/xml/local.mk
