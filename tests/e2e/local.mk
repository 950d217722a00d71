# SPDX-License-Identifier: Apache-2.0
# tests/e2e: tests, helper programs and EXTRA_DIST of this folder.
