# SPDX-License-Identifier: Apache-2.0
# api-schema: the schema, its generator, JSON and RPC.
# Sources (headers too: `make dist` packs what stands here), generated files, tests of this room.

noinst_LIBRARIES += libapi.a
libapi_a_SOURCES =
