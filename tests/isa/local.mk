# SPDX-License-Identifier: Apache-2.0
# tests/isa: tests, helper programs and EXTRA_DIST of this folder.
