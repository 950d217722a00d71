# SPDX-License-Identifier: Apache-2.0
# daemon: the program vmd, and its helper vmd-spawn.
# Sources (headers too: `make dist` packs what stands here), generated files, tests of this room.

noinst_LIBRARIES += libdaemon.a
libdaemon_a_SOURCES = \
	daemon/filecheck.c \
	daemon/filecheck.h \
	daemon/proc.c \
	daemon/proc.h \
	daemon/spawn/proto.h \
	daemon/store.c \
	daemon/store.h \
	daemon/store_load.c \
	daemon/store_sql.c \
	daemon/store_sql.h
