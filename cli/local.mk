# SPDX-License-Identifier: Apache-2.0
# cli: the program vmctl.
# Sources (headers too: `make dist` packs what stands here), generated files, tests of this room.

noinst_LIBRARIES += libcli.a
libcli_a_SOURCES =
