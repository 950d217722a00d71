# SPDX-License-Identifier: Apache-2.0
# tests/fuzz: fuzz targets. Whatever the build, they and all they test are compiled with sanitizers,
# into a library of their own. `make check` runs each target's corpus and some seconds; `make fuzz`
# an hour. With `configure CC=clang --enable-fuzzer` libFuzzer drives the same targets instead.

check_LIBRARIES += tests/fuzz/libsanitized.a
tests_fuzz_libsanitized_a_SOURCES = tests/fuzz/fuzz.h tests/fuzz/input.c \
	$(libbase_a_SOURCES) $(libcore_a_SOURCES) $(libarch_a_SOURCES) $(libtcg_a_SOURCES) \
	$(libdevices_a_SOURCES) $(libstorage_a_SOURCES) $(libapi_a_SOURCES) $(xml_sources)
nodist_tests_fuzz_libsanitized_a_SOURCES = $(nodist_libtcg_a_SOURCES) $(nodist_libapi_a_SOURCES)
fuzz_flags = -O1 -g1 -fsanitize=address,undefined -fno-sanitize-recover=undefined \
	-fno-omit-frame-pointer $(FUZZER_CFLAGS)
# Their warnings were told when the real libraries were built; sanitizers add false ones.
tests_fuzz_libsanitized_a_CFLAGS = $(AM_CFLAGS) $(fuzz_flags) -w
tests_fuzz_libsanitized_a_CPPFLAGS = $(AM_CPPFLAGS) -U_FORTIFY_SOURCE
fuzz_link = tests/fuzz/libsanitized.a tests/fuzz/libsanitized.a $(EVENT_LIBS) $(JSON_LIBS) \
	$(FDT_LIBS) $(ZLIB_LIBS) $(URING_LIBS) $(XML_LIBS) -lm
if FUZZER
fuzz_main = tests/fuzz/libfuzzer.c
else
fuzz_main = tests/fuzz/driver.c
endif

fuzz_targets = tests/fuzz/fuzz_tcg tests/fuzz/fuzz_devices tests/fuzz/fuzz_loader \
	tests/fuzz/fuzz_gdb tests/fuzz/fuzz_api tests/fuzz/fuzz_xml
check_PROGRAMS += $(fuzz_targets)
tests_fuzz_fuzz_tcg_SOURCES = tests/fuzz/fuzz_tcg.c $(fuzz_main)
tests_fuzz_fuzz_tcg_CFLAGS = $(AM_CFLAGS) $(fuzz_flags)
tests_fuzz_fuzz_tcg_CPPFLAGS = $(AM_CPPFLAGS) -U_FORTIFY_SOURCE
tests_fuzz_fuzz_tcg_LDFLAGS = $(AM_LDFLAGS) $(fuzz_flags) $(FUZZER_LDFLAGS)
tests_fuzz_fuzz_tcg_LDADD = $(fuzz_link)
tests_fuzz_fuzz_devices_SOURCES = tests/fuzz/fuzz_devices.c $(fuzz_main)
tests_fuzz_fuzz_devices_CFLAGS = $(AM_CFLAGS) $(fuzz_flags)
tests_fuzz_fuzz_devices_CPPFLAGS = $(AM_CPPFLAGS) -U_FORTIFY_SOURCE
tests_fuzz_fuzz_devices_LDFLAGS = $(AM_LDFLAGS) $(fuzz_flags) $(FUZZER_LDFLAGS)
tests_fuzz_fuzz_devices_LDADD = $(fuzz_link)
tests_fuzz_fuzz_loader_SOURCES = tests/fuzz/fuzz_loader.c $(fuzz_main)
tests_fuzz_fuzz_loader_CFLAGS = $(AM_CFLAGS) $(fuzz_flags)
tests_fuzz_fuzz_loader_CPPFLAGS = $(AM_CPPFLAGS) -U_FORTIFY_SOURCE
tests_fuzz_fuzz_loader_LDFLAGS = $(AM_LDFLAGS) $(fuzz_flags) $(FUZZER_LDFLAGS)
tests_fuzz_fuzz_loader_LDADD = $(fuzz_link)
tests_fuzz_fuzz_gdb_SOURCES = tests/fuzz/fuzz_gdb.c $(fuzz_main)
tests_fuzz_fuzz_gdb_CFLAGS = $(AM_CFLAGS) $(fuzz_flags)
tests_fuzz_fuzz_gdb_CPPFLAGS = $(AM_CPPFLAGS) -U_FORTIFY_SOURCE
tests_fuzz_fuzz_gdb_LDFLAGS = $(AM_LDFLAGS) $(fuzz_flags) $(FUZZER_LDFLAGS)
tests_fuzz_fuzz_gdb_LDADD = $(fuzz_link)
tests_fuzz_fuzz_api_SOURCES = tests/fuzz/fuzz_api.c $(fuzz_main)
tests_fuzz_fuzz_api_CFLAGS = $(AM_CFLAGS) $(fuzz_flags)
tests_fuzz_fuzz_api_CPPFLAGS = $(AM_CPPFLAGS) -U_FORTIFY_SOURCE
tests_fuzz_fuzz_api_LDFLAGS = $(AM_LDFLAGS) $(fuzz_flags) $(FUZZER_LDFLAGS)
tests_fuzz_fuzz_api_LDADD = $(fuzz_link)

tests_fuzz_fuzz_xml_SOURCES = tests/fuzz/fuzz_xml.c $(fuzz_main)
tests_fuzz_fuzz_xml_CFLAGS = $(AM_CFLAGS) $(fuzz_flags)
tests_fuzz_fuzz_xml_CPPFLAGS = $(AM_CPPFLAGS) -U_FORTIFY_SOURCE
tests_fuzz_fuzz_xml_LDFLAGS = $(AM_LDFLAGS) $(fuzz_flags) $(FUZZER_LDFLAGS)
tests_fuzz_fuzz_xml_LDADD = $(fuzz_link)

if !FUZZER
TESTS += tests/fuzz/run_fuzz.sh
endif
EXTRA_DIST += tests/fuzz/driver.c tests/fuzz/libfuzzer.c tests/fuzz/run_fuzz.sh tests/fuzz/campaign \
	tests/fuzz/corpus

# An hour, or a slice: make fuzz FUZZ_ARGS='--seed 7 --from 0 --count 100000'
fuzz: all
	$(MAKE) $(AM_MAKEFLAGS) $(fuzz_targets)
	$(AM_TESTS_ENVIRONMENT) $(BASH) $(abs_top_srcdir)/tests/fuzz/campaign $(FUZZ_ARGS)
.PHONY: fuzz
