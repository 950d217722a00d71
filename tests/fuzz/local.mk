# SPDX-License-Identifier: Apache-2.0
# tests/fuzz: fuzz targets. Whatever the build, they and all they test are compiled with sanitizers,
# into a library of their own. `make check` runs each target's corpus and some seconds; `make fuzz`
# an hour. With `configure CC=clang --enable-fuzzer` libFuzzer drives the same targets instead.

check_LIBRARIES += tests/fuzz/libsanitized.a
tests_fuzz_libsanitized_a_SOURCES = tests/fuzz/fuzz.h tests/fuzz/input.c \
	$(libbase_a_SOURCES) $(libcore_a_SOURCES) $(libarch_a_SOURCES) $(libtcg_a_SOURCES) \
	$(libdevices_a_SOURCES) $(libnetwork_a_SOURCES) $(libstorage_a_SOURCES) $(libapi_a_SOURCES) $(xml_sources) daemon/auth/ca.c daemon/auth/token.c daemon/web/http.c daemon/web/websocket.c daemon/run/proc.c daemon/libvirt/xdr.c daemon/screen/guard.c daemon/screen/rfb.c \
	engine/emu/vnc.c engine/emu/vnc_encode.c engine/emu/vnc_update.c engine/emu/replay/log.c engine/emu/state/chunk.c engine/emu/state/file.c engine/emu/state/pages.c engine/emu/state/seal.c engine/emu/state/stream.c engine/emu/state/view.c engine/emu/state/view_diff.c $(lan_sources) daemon/spawn/header.c \
	$(share_sources) cli/image_ova.c cli/image_sums.c cli/image_tar.c
nodist_tests_fuzz_libsanitized_a_SOURCES = $(nodist_libtcg_a_SOURCES) $(nodist_libapi_a_SOURCES)
fuzz_flags = -O1 -g1 -fsanitize=address,undefined -fno-sanitize-recover=undefined \
	-fno-omit-frame-pointer $(FUZZER_CFLAGS)
# Their warnings were told when the real libraries were built; sanitizers add false ones.
tests_fuzz_libsanitized_a_CFLAGS = $(AM_CFLAGS) $(fuzz_flags) -w
tests_fuzz_libsanitized_a_CPPFLAGS = $(AM_CPPFLAGS) -U_FORTIFY_SOURCE
fuzz_link = tests/fuzz/libsanitized.a tests/fuzz/libsanitized.a $(EVENT_LIBS) $(JSON_LIBS) \
	$(FDT_LIBS) $(ZLIB_LIBS) $(ZSTD_LIBS) $(URING_LIBS) $(XML_LIBS) $(TIRPC_LIBS) $(CRYPTO_LIBS) $(NBD_LIBS) $(SLIRP_LIBS) -lm

# A target is tests/fuzz/fuzz_NAME.c and a line here.
fuzz_names = \
	ahci \
	api \
	cert \
	devices \
	extras \
	gdb \
	header \
	iommu \
	json \
	lan \
	libvirt \
	load \
	load_pc \
	loader \
	luks \
	nbd \
	nvme \
	ovf \
	p9 \
	pc \
	probe \
	qcow2 \
	replay \
	rfb \
	rpc \
	scsi \
	serial \
	shares \
	sockets \
	state \
	tar \
	tcg \
	tls \
	token \
	usb \
	vdi \
	vhd \
	vhdx \
	vhost \
	virtio_blk \
	vmdk \
	vnc \
	web \
	xml
fuzz_targets = $(fuzz_names:%=tests/fuzz/fuzz_%)
if FUZZER
fuzz_main = tests/fuzz/libfuzzer
else
fuzz_main = tests/fuzz/driver
TESTS += tests/fuzz/run_fuzz.sh
endif
fuzz_objects = $(fuzz_main:=.$(OBJEXT)) $(fuzz_targets:=.$(OBJEXT))

# The library stands for all headers: when it is made anew, so are these.
$(fuzz_objects): tests/fuzz/%.$(OBJEXT): tests/fuzz/%.c tests/fuzz/libsanitized.a
	$(AM_V_CC)$(CC) $(DEFS) $(AM_CPPFLAGS) -U_FORTIFY_SOURCE $(CPPFLAGS) $(AM_CFLAGS) $(fuzz_flags) $(CFLAGS) -c -o $@ $<
$(fuzz_targets): %: %.$(OBJEXT) $(fuzz_main).$(OBJEXT) tests/fuzz/libsanitized.a
	$(AM_V_CCLD)$(CC) $(AM_CFLAGS) $(fuzz_flags) $(CFLAGS) $(AM_LDFLAGS) $(FUZZER_LDFLAGS) $(LDFLAGS) \
		-o $@ $@.$(OBJEXT) $(fuzz_main).$(OBJEXT) $(fuzz_link)
check_DATA = $(fuzz_targets)
MOSTLYCLEANFILES += $(fuzz_objects)
CLEANFILES += $(fuzz_targets) $(fuzz_targets:=.out)
EXTRA_DIST += $(fuzz_targets:=.c) tests/fuzz/devices.h tests/fuzz/foreign.h tests/fuzz/pc.h tests/fuzz/spoil.h tests/fuzz/driver.c tests/fuzz/libfuzzer.c tests/fuzz/run_fuzz.sh tests/fuzz/campaign \
	tests/fuzz/corpus

# An hour, or a slice: make fuzz FUZZ_ARGS='--seed 7 --from 0 --count 100000'
fuzz: all
	$(MAKE) $(AM_MAKEFLAGS) $(fuzz_targets)
	$(AM_TESTS_ENVIRONMENT) $(BASH) $(abs_top_srcdir)/tests/fuzz/campaign $(FUZZ_ARGS)
# A minute of random inputs for each target.
fuzz-short: all
	$(MAKE) $(AM_MAKEFLAGS) $(fuzz_targets)
	$(AM_TESTS_ENVIRONMENT) $(BASH) $(abs_top_srcdir)/tests/fuzz/campaign --seconds 60 $(FUZZ_ARGS)
.PHONY: fuzz fuzz-short
