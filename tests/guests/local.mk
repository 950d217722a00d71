# SPDX-License-Identifier: Apache-2.0
# tests/guests: tests, helper programs and EXTRA_DIST of this folder.
