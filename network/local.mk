# SPDX-License-Identifier: Apache-2.0
# network: NIC backends and vmd-net.
# Sources (headers too: `make dist` packs what stands here), generated files, tests of this room.

noinst_LIBRARIES += libnetwork.a
libnetwork_a_SOURCES = \
	network/coalesce.c \
	network/coalesce.h \
	network/dgram.c \
	network/offload.c \
	network/offload.h \
	network/port.c \
	network/port.h \
	network/stream.c \
	network/stream.h \
	network/tap.c \
	network/tap.h \
	network/vhost_talk.c \
	network/vhost_talk.h

# The process that has the sockets of user-mode networking.
pkglibexec_PROGRAMS += vmd-net
lan_sources = \
	network/server/dhcp.c \
	network/server/dhcp.h \
	network/server/dns.c \
	network/server/dns.h \
	network/server/filter.c \
	network/server/filter.h \
	network/server/gateway.c \
	network/server/gateway.h \
	network/server/guestfwd.c \
	network/server/guestfwd.h \
	network/server/impair.c \
	network/server/impair.h \
	network/server/lan_rules.c \
	network/server/lan_rules.h \
	network/server/pcap.c \
	network/server/pcap.h \
	network/server/switch.c \
	network/server/switch.h \
	network/server/user.c \
	network/server/user.h \
	network/server/user_parse.c \
	network/server/user_parse.h \
	network/server/vhost.c \
	network/server/vhost.h
vmd_net_SOURCES = $(lan_sources) \
	network/server/confine.c \
	network/server/confine.h \
	network/server/join.c \
	network/server/join.h \
	network/server/lan.c \
	network/server/lan.h \
	network/server/main.c
vmd_net_LDADD = $(LINK_NETWORK) $(LINK_API) $(SLIRP_LIBS) $(SECCOMP_LIBS)

EXTRA_DIST += network/README.md

# --- tests ------------------------------------------------------------------------------------
check_PROGRAMS += tests/network/net_test
TESTS += tests/network/net_test
tests_network_net_test_SOURCES = tests/network/net_test.c
tests_network_net_test_LDADD = $(LINK_NETWORK) $(CHECK_LIBS)

# The process of named networks, by its sockets.
TESTS += tests/network/lan.py
EXTRA_DIST += tests/network/lan.py
