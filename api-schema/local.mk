# SPDX-License-Identifier: Apache-2.0
# api-schema: the schema, its generator, JSON and RPC.
# Sources (headers too: `make dist` packs what stands here), generated files, tests of this room.

noinst_LIBRARIES += libapi.a
libapi_a_SOURCES = \
	api-schema/disk/limits.c \
	api-schema/disk/limits.h \
	api-schema/guest/balloon.c \
	api-schema/guest/balloon.h \
	api-schema/json/codec.c \
	api-schema/json/codec.h \
	api-schema/json/error.c \
	api-schema/json/error.h \
	api-schema/json/json.c \
	api-schema/json/json.h \
	api-schema/json/split.c \
	api-schema/json/split.h \
	api-schema/json/text.c \
	api-schema/json/text.h \
	api-schema/net/nbdaddr.c \
	api-schema/net/nbdaddr.h \
	api-schema/net/nicargs.c \
	api-schema/net/nicargs.h \
	api-schema/net/tapdev.c \
	api-schema/net/tapdev.h \
	api-schema/net/vhostsock.c \
	api-schema/net/vhostsock.h \
	api-schema/qmp/qmp.c \
	api-schema/qmp/qmp.h \
	api-schema/rpc/call.c \
	api-schema/rpc/call.h \
	api-schema/rpc/client.c \
	api-schema/rpc/client.h \
	api-schema/rpc/conn.c \
	api-schema/rpc/conn.h \
	api-schema/rpc/dial.c \
	api-schema/rpc/introspect.c \
	api-schema/rpc/server.c \
	api-schema/rpc/server.h \
	api-schema/rpc/server_int.h \
	api-schema/tls/link.c \
	api-schema/tls/link.h \
	api-schema/tls/tls.c \
	api-schema/tls/tls.h \
	api-schema/tls/token.c \
	api-schema/tls/tunnel.c \
	api-schema/tls/tunnel.h

# --- generated: C from api-schema/schema by api-schema/gen -----------------------------------
api_schema = \
	api-schema/qmp/qmp.json \
	api-schema/schema/agent.json \
	api-schema/schema/api.json \
	api-schema/schema/audit.json \
	api-schema/schema/backup.json \
	api-schema/schema/cert.json \
	api-schema/schema/checkpoint.json \
	api-schema/schema/cli.json \
	api-schema/schema/emu.json \
	api-schema/schema/errors.json \
	api-schema/schema/event.json \
	api-schema/schema/fault.json \
	api-schema/schema/host.json \
	api-schema/schema/image.json \
	api-schema/schema/job.json \
	api-schema/schema/network.json \
	api-schema/schema/migrate.json \
	api-schema/schema/peer.json \
	api-schema/schema/pool.json \
	api-schema/schema/profile.json \
	api-schema/schema/disk.json \
	api-schema/schema/quota.json \
	api-schema/schema/replay.json \
	api-schema/schema/schedule.json \
	api-schema/schema/snapshot.json \
	api-schema/schema/token.json \
	api-schema/schema/types.json \
	api-schema/schema/user.json \
	api-schema/schema/vm.json \
	api-schema/schema/volume.json \
	api-schema/schema/xml.json
api_generator = \
	api-schema/gen/apigen.py \
	api-schema/gen/emit_c.py \
	api-schema/gen/emit_cli.py \
	api-schema/gen/emit_complete.py \
	api-schema/gen/emit_docs.py \
	api-schema/gen/emit_qmp.py \
	api-schema/gen/model.py
api_gen_h = \
	api-schema/gen/errors.h \
	api-schema/gen/methods.h \
	api-schema/gen/qmp_table.h \
	api-schema/gen/types.h
api_gen = $(api_gen_h) \
	api-schema/gen/errors.c \
	api-schema/gen/handlers_emu.c \
	api-schema/gen/handlers_vmd.c \
	api-schema/gen/methods.c \
	api-schema/gen/qmp_table.c \
	api-schema/gen/qmp_text.c \
	api-schema/gen/schema_text.c \
	api-schema/gen/types.c
nodist_libapi_a_SOURCES = $(api_gen)
BUILT_SOURCES += $(api_gen_h)
CLEANFILES += $(api_gen) api-schema/gen.stamp
EXTRA_DIST += $(api_generator) $(api_schema)

api-schema/gen.stamp: $(api_generator) $(api_schema)
	$(AM_V_GEN)$(MKDIR_P) api-schema/gen && \
		$(PY) $(srcdir)/api-schema/gen/apigen.py --c api-schema/gen && touch $@
$(api_gen): api-schema/gen.stamp ;

# --- tests -------------------------------------------------------------------------------------
api_tests = \
	tests/schema/client_test \
	tests/schema/codec_test \
	tests/schema/json_test \
	tests/schema/rpc_test
check_PROGRAMS += $(api_tests)
TESTS += $(api_tests)
tests_schema_client_test_SOURCES = tests/schema/client_test.c tests/schema/rpc_lib.h
tests_schema_client_test_LDADD = $(LINK_API) $(CHECK_LIBS)
tests_schema_codec_test_SOURCES = tests/schema/codec_test.c
tests_schema_codec_test_LDADD = $(LINK_API) $(CHECK_LIBS)
tests_schema_json_test_SOURCES = tests/schema/json_test.c
tests_schema_json_test_LDADD = $(LINK_API) $(CHECK_LIBS)
tests_schema_rpc_test_SOURCES = tests/schema/rpc_test.c tests/schema/rpc_lib.h
tests_schema_rpc_test_LDADD = $(LINK_API) $(CHECK_LIBS)

TESTS += tests/schema/complete_test.py tests/schema/gen_test.py tests/schema/top_test.py tests/schema/vmctl_test.py tests/schema/console_test.py
EXTRA_DIST += tests/schema/complete_test.py tests/schema/gen_test.py tests/schema/top_test.py tests/schema/vmctl_test.py tests/schema/console_test.py tests/schema/fake.py
# They look at what the generator and the linker left in the build folder.
tests/schema/vmctl_test.log: vmctl$(EXEEXT) cli/gen.stamp
tests/schema/console_test.log: vmctl$(EXEEXT)
tests/schema/complete_test.log: vmctl$(EXEEXT) cli/gen.stamp
tests/schema/top_test.log: vmctl$(EXEEXT)
