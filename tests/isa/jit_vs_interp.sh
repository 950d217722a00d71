#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# 20,000 random blocks by the JIT and by the IR interpreter, RV64 and RV32, printed as TAP. Seeds: VMD_TEST_SEED or 1.
set -u
seed=${VMD_TEST_SEED:-1}
n=0
bad=0
echo "1..7"
for job in "64 0 8000" "64 8000 8000" "32 0 2000" "32 2000 2000" \
    "64 0 3000 --tier2 --loops" "64 0 1000 --tier2" "32 0 1000 --tier2 --loops"; do
    read -r xlen from count how <<<"$job"
    n=$((n + 1))
    name="rv${xlen}_blocks_${from}_to_$((from + count - 1))_alike_by_jit_and_interpreter${how:+ $how} (seed $seed)"
    read -r -a options <<<"$how"
    if out=$("$VMD_BUILDDIR/tests/isa/jit_vs_interp" --seed "$seed" --from "$from" --count "$count" --xlen "$xlen" "${options[@]}" 2>&1); then
        echo "ok $n - $name"
    else
        echo "$out" | tail -n 60 | sed 's/^/# /'
        echo "not ok $n - $name"
        bad=1
    fi
done
exit $bad
