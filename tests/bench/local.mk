# SPDX-License-Identifier: Apache-2.0
# tests/bench: tests, helper programs and EXTRA_DIST of this folder.
EXTRA_DIST += tests/bench/control.py tests/bench/run
