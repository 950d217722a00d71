# SPDX-License-Identifier: Apache-2.0
# tests/guests: tests, helper programs and EXTRA_DIST of this folder.
EXTRA_DIST += tests/guests/fetch tests/guests/guest.py tests/guests/init tests/guests/newc.py \
	tests/guests/rootfs tests/guests/rootfs-init tests/guests/rootfs-second-stage
