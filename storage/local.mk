# SPDX-License-Identifier: Apache-2.0
# storage: block graph and formats.
# Sources (headers too: `make dist` packs what stands here), generated files, tests of this room.

noinst_LIBRARIES += libstorage.a
libstorage_a_SOURCES = \
	storage/bitmap.c \
	storage/bitmap.h \
	storage/block.c \
	storage/block.h \
	storage/disk.c \
	storage/disk.h \
	storage/driver.h \
	storage/faulty.c \
	storage/faulty.h \
	storage/file.c \
	storage/foreign.c \
	storage/foreign.h \
	storage/gate.c \
	storage/graph.c \
	storage/image.c \
	storage/image.h \
	storage/job.c \
	storage/job.h \
	storage/job_chain.c \
	storage/job_copy.c \
	storage/job_view.c \
	storage/job_int.h \
	storage/lock.c \
	storage/luks.c \
	storage/luks.h \
	storage/luks_image.c \
	storage/nbd.h \
	storage/nbd_client.c \
	storage/nbd_far.c \
	storage/nbd_far.h \
	storage/nbd_hello.c \
	storage/nbd_list.c \
	storage/nbd_list.h \
	storage/nbd_options.c \
	storage/nbd_requests.c \
	storage/nbd_server.c \
	storage/nbd_server.h \
	storage/nbd_tls.c \
	storage/nbd_wire.c \
	storage/nbd_wire.h \
	storage/lane.c \
	storage/lane.h \
	storage/pool.c \
	storage/qcow2.c \
	storage/qcow2.h \
	storage/qcow2_amend.c \
	storage/qcow2_bitmap.c \
	storage/qcow2_cache.c \
	storage/qcow2_check.c \
	storage/qcow2_create.c \
	storage/qcow2_crypt.c \
	storage/qcow2_io.c \
	storage/qcow2_map.c \
	storage/qcow2_refcount.c \
	storage/qcow2_snap.c \
	storage/qcow2_zip.c \
	storage/raw.c \
	storage/snap.c \
	storage/snap.h \
	storage/throttle.c \
	storage/throttle.h \
	storage/uring.c \
	storage/uring.h \
	storage/vdi.c \
	storage/vhd.c \
	storage/vhdx.c \
	storage/vmdk.c \
	storage/window.c \
	storage/window.h \
	storage/work.c \
	storage/work.h

# The server of shared folders by 9P.
pkglibexec_PROGRAMS += vmd-share
share_sources = \
	storage/share/attr.c \
	storage/share/fid.c \
	storage/share/io.c \
	storage/share/names.c \
	storage/share/p9.h \
	storage/share/wire.c
vmd_share_SOURCES = $(share_sources) \
	storage/share/confine.c \
	storage/share/confine.h \
	storage/share/main.c
vmd_share_LDADD = $(LINK_BASE) $(SECCOMP_LIBS)

# Between emulators and NBD servers that want TLS.
pkglibexec_PROGRAMS += vmd-tls
vmd_tls_SOURCES = \
	storage/tls/confine.c \
	storage/tls/main.c \
	storage/tls/relay.c \
	storage/tls/relay.h
vmd_tls_LDADD = $(LINK_BASE) $(SECCOMP_LIBS) $(CRYPTO_LIBS)

check_PROGRAMS += tests/block/file_test
TESTS += tests/block/file_test
tests_block_file_test_SOURCES = tests/block/file_test.c
tests_block_file_test_LDADD = $(LINK_STORAGE) $(CHECK_LIBS)
tests_block_file_test_LDFLAGS = $(AM_LDFLAGS) -Wl,--wrap=io_uring_submit

check_PROGRAMS += tests/block/lock_race_test
TESTS += tests/block/lock_race_test
tests_block_lock_race_test_SOURCES = tests/block/lock_race_test.c
tests_block_lock_race_test_LDADD = $(LINK_STORAGE) $(CHECK_LIBS)

check_PROGRAMS += tests/block/throttle_test
TESTS += tests/block/throttle_test
tests_block_throttle_test_SOURCES = tests/block/throttle_test.c
tests_block_throttle_test_LDADD = $(LINK_STORAGE) $(CHECK_LIBS)

check_PROGRAMS += tests/block/gate_test
TESTS += tests/block/gate_test
tests_block_gate_test_SOURCES = tests/block/gate_test.c
tests_block_gate_test_LDADD = $(LINK_STORAGE) $(CHECK_LIBS)

check_PROGRAMS += tests/block/bitmap_test
TESTS += tests/block/bitmap_test tests/block/image_bitmap.py
tests_block_bitmap_test_SOURCES = tests/block/bitmap_test.c
tests_block_bitmap_test_LDADD = $(LINK_STORAGE) $(CHECK_LIBS)
EXTRA_DIST += tests/block/image_bitmap.py

check_PROGRAMS += tests/block/snap_test
TESTS += tests/block/snap_test
tests_block_snap_test_SOURCES = tests/block/snap_test.c
tests_block_snap_test_LDADD = $(LINK_STORAGE) $(CHECK_LIBS)
check_PROGRAMS += tests/block/job_test
TESTS += tests/block/job_test
tests_block_job_test_SOURCES = tests/block/job_test.c
tests_block_job_test_LDADD = $(LINK_STORAGE) $(CHECK_LIBS)

qcow2_rig = tests/block/qcow2_rig.c tests/block/qcow2_rig.h
check_PROGRAMS += tests/block/qcow2_test tests/block/crash_test
TESTS += tests/block/io_threads.py tests/block/qcow2_test tests/block/crash_test tests/block/image_matrix.py tests/block/image_broken.py tests/block/nbd_peers.py \
	tests/block/image_foreign.py tests/block/image_luks.py tests/block/image_options.py tests/block/lvm_nested.py
tests_block_qcow2_test_SOURCES = tests/block/qcow2_test.c $(qcow2_rig)
tests_block_qcow2_test_LDADD = $(LINK_STORAGE) $(CHECK_LIBS)
tests_block_crash_test_SOURCES = tests/block/crash_test.c $(qcow2_rig)
tests_block_crash_test_LDADD = $(LINK_STORAGE) $(CHECK_LIBS)
EXTRA_DIST += tests/block/io_threads.py tests/block/lvm_nested.py tests/block/image_matrix.py tests/block/image_broken.py tests/block/nbd_peers.py tests/block/image_foreign.py \
	tests/block/image_luks.py tests/block/image_options.py
