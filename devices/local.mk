# SPDX-License-Identifier: Apache-2.0
# devices: device classes and boards.
# Sources (headers too: `make dist` packs what stands here), generated files, tests of this room.

noinst_LIBRARIES += libdevices.a
libdevices_a_SOURCES =
