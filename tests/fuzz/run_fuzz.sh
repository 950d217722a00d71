#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Every fuzz target's corpus and a few seconds of random inputs, as TAP. Seed: VMD_TEST_SEED or 1. `make fuzz` runs more.
set -u
seed=${VMD_TEST_SEED:-1}
corpus=$VMD_SRCDIR/tests/fuzz/corpus
n=0
bad=0
jobs=("tcg 3" "devices 1" "loader 1" "gdb 1" "api 1" "xml 1")
echo "1..${#jobs[@]}"
for job in "${jobs[@]}"; do
    read -r target seconds <<<"$job"
    n=$((n + 1))
    name="fuzz_$target runs its corpus and $seconds s without a finding (seed $seed)"
    if out=$("$VMD_BUILDDIR/tests/fuzz/fuzz_$target" --corpus "$corpus/$target" --seed "$seed" \
        --seconds "$seconds" --save "$VMD_BUILDDIR/tests/fuzz/fuzz_$target.crash" 2>&1); then
        sed 's/^#* */# /' <<<"$out"
        echo "ok $n - $name"
    else
        tail -n 80 <<<"$out" | sed 's/^#* */# /'
        echo "not ok $n - $name"
        bad=1
    fi
done
exit $bad
