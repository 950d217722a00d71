# SPDX-License-Identifier: Apache-2.0
# tests/bench: tests, helper programs and EXTRA_DIST of this folder.
TESTS += tests/bench/harness.py
EXTRA_DIST += tests/bench/harness.py
EXTRA_DIST += tests/bench/badimages.py tests/bench/build.py tests/bench/control.py tests/bench/wire.py tests/bench/libvirt_peer.py tests/bench/kvm.py tests/bench/linux.py tests/bench/memory.py tests/bench/network.py tests/bench/report.py \
	tests/bench/rows.py tests/bench/run tests/bench/state.py tests/bench/storage.py
EXTRA_DIST += tests/bench/guest/bc.sh tests/bench/guest/jq.sh tests/bench/guest/lua.sh \
	tests/bench/guest/node.sh tests/bench/guest/pack.sh tests/bench/guest/perl.sh \
	tests/bench/guest/python.sh tests/bench/guest/text.sh
EXTRA_DIST += tests/bench/guest/bench.h tests/bench/guest/chase.c tests/bench/guest/core.c tests/bench/guest/disk.c \
	tests/bench/guest/fault.c tests/bench/guest/fft.c tests/bench/guest/futex.c \
	tests/bench/guest/hash.c tests/bench/guest/interp.c tests/bench/guest/ipi.c \
	tests/bench/guest/linpack.c tests/bench/guest/lz.c tests/bench/guest/mandel.c \
	tests/bench/guest/nbody.c tests/bench/guest/net.c tests/bench/guest/parallel.c tests/bench/guest/signal.c \
	tests/bench/guest/sort.c tests/bench/guest/spectral.c tests/bench/guest/switch.c \
	tests/bench/guest/syscall.c tests/bench/guest/timed.c \
	tests/bench/guest/vaes.c tests/bench/guest/vcrypto.h tests/bench/guest/vgemm.c \
	tests/bench/guest/vghash.c tests/bench/guest/vimage.c tests/bench/guest/vmandel.c \
	tests/bench/guest/vmem.c tests/bench/guest/vsaxpy.c tests/bench/guest/vsha.c

# Calls per second, of vmd and of libvirtd: tests/bench/run control.
check_PROGRAMS += tests/bench/rpc_load
tests_bench_rpc_load_SOURCES = tests/bench/rpc_load.c
tests_bench_rpc_load_LDADD = -ldl -lpthread
