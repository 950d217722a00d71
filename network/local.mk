# SPDX-License-Identifier: Apache-2.0
# network: NIC backends and vmd-net.
# Sources (headers too: `make dist` packs what stands here), generated files, tests of this room.

noinst_LIBRARIES += libnetwork.a
libnetwork_a_SOURCES =

EXTRA_DIST += network/README.md
