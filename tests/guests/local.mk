# SPDX-License-Identifier: Apache-2.0
# tests/guests: tests, helper programs and EXTRA_DIST of this folder.
EXTRA_DIST += tests/guests/cgroup_check.py tests/guests/cloud_check.py tests/guests/crash_check.py tests/guests/esp.py tests/guests/fetch tests/guests/guest.py tests/guests/init tests/guests/module tests/guests/newc.py \
	tests/guests/rootfs tests/guests/rootfs-init tests/guests/rootfs-second-stage \
	tests/guests/rootfs_check.py $(guest_project)
guest_project = tests/guests/project/Makefile tests/guests/project/project.h \
	tests/guests/project/main.c tests/guests/project/bigint.c tests/guests/project/bits.c \
	tests/guests/project/expr.c tests/guests/project/fft.c tests/guests/project/hash.c \
	tests/guests/project/lzss.c tests/guests/project/matrix.c tests/guests/project/regex.c \
	tests/guests/project/sha256.c tests/guests/project/sort.c tests/guests/project/text.c

# Debian 13 made, booted to a login and compiling inside vmd: minutes, so no part of make check.
.PHONY: rootfs-check
rootfs-check: all
	VMD_SRCDIR=$(abs_top_srcdir) VMD_BUILDDIR=$(abs_top_builddir) \
		$(PY) -B $(srcdir)/tests/guests/rootfs_check.py

# A Debian with cloud-init configured by its seed, ssh to it, a GiB through its card: minutes too.
.PHONY: cloud-check
cloud-check: all
	VMD_SRCDIR=$(abs_top_srcdir) VMD_BUILDDIR=$(abs_top_builddir) $(PY) -B $(srcdir)/tests/guests/cloud_check.py

# A Debian root filesystem on qcow2 through hard stops: a minute or so a round.
.PHONY: crash-check
crash-check: all
	VMD_SRCDIR=$(abs_top_srcdir) VMD_BUILDDIR=$(abs_top_builddir) \
		$(PY) -B $(srcdir)/tests/guests/crash_check.py $(CRASH_ARGS)

# Limits of VMs in a kernel that has the controllers, whatever the host's has: some minutes.
TESTS += tests/guests/cgroup_check.py
.PHONY: cgroup-check
cgroup-check: all
	VMD_SRCDIR=$(abs_top_srcdir) VMD_BUILDDIR=$(abs_top_builddir) VMD_TEST_CGROUP=1 \
		$(PY) -B $(srcdir)/tests/guests/cgroup_check.py
