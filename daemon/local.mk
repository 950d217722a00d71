# SPDX-License-Identifier: Apache-2.0
# daemon: the program vmd.
# Sources (headers too: `make dist` packs what stands here), generated files, tests of this room.

noinst_LIBRARIES += libdaemon.a
libdaemon_a_SOURCES =
