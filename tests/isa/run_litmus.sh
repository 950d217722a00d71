#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A short run of every memory-order litmus test, as TAP; `make soak` runs more. VMD_LITMUS_COUNT: instances of each.
exec "${PYTHON:-python3}" -B "$VMD_SRCDIR/tests/isa/litmus" --tap --count "${VMD_LITMUS_COUNT:-4000}"
