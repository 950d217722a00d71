# SPDX-License-Identifier: Apache-2.0
# storage: block graph and formats.
# Sources (headers too: `make dist` packs what stands here), generated files, tests of this room.

noinst_LIBRARIES += libstorage.a
libstorage_a_SOURCES =
