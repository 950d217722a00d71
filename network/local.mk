# SPDX-License-Identifier: Apache-2.0
# network: NIC backends and vmd-net.
# Sources (headers too: `make dist` packs what stands here), generated files, tests of this room.

noinst_LIBRARIES += libnetwork.a
libnetwork_a_SOURCES = \
	network/dgram.c \
	network/offload.c \
	network/offload.h \
	network/port.c \
	network/port.h \
	network/stream.c \
	network/stream.h \
	network/tap.c \
	network/tap.h

# The process that has the sockets of user-mode networking.
pkglibexec_PROGRAMS += vmd-net
vmd_net_SOURCES = \
	network/server/confine.c \
	network/server/confine.h \
	network/server/guestfwd.c \
	network/server/guestfwd.h \
	network/server/join.c \
	network/server/join.h \
	network/server/main.c \
	network/server/user.c \
	network/server/user.h \
	network/server/user_parse.c \
	network/server/user_parse.h
vmd_net_LDADD = $(LINK_NETWORK) $(SLIRP_LIBS) $(SECCOMP_LIBS)

EXTRA_DIST += network/README.md

# --- tests ------------------------------------------------------------------------------------
check_PROGRAMS += tests/network/net_test
TESTS += tests/network/net_test
tests_network_net_test_SOURCES = tests/network/net_test.c
tests_network_net_test_LDADD = $(LINK_NETWORK) $(CHECK_LIBS)
