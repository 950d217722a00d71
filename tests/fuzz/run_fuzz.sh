#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Every fuzz target's corpus and VMD_FUZZ_SECONDS (3) of random inputs, two targets at a time, as TAP. Seed:
# VMD_TEST_SEED or 1. `make fuzz-short` and `make fuzz` run more.
set -u
seed=${VMD_TEST_SEED:-1}
seconds=${VMD_FUZZ_SECONDS:-3}
corpus=$VMD_SRCDIR/tests/fuzz/corpus
here=$VMD_BUILDDIR/tests/fuzz

targets=()
for file in "$VMD_SRCDIR"/tests/fuzz/fuzz_*.c; do
    name=${file##*/fuzz_}
    targets+=("${name%.c}")
done

run() {
    "$here/fuzz_$1" --corpus "$corpus/$1" --seed "$seed" --seconds "$seconds" --save "$here/fuzz_$1.crash" \
        >"$here/fuzz_$1.out" 2>&1
}

echo "1..${#targets[@]}"
n=0
bad=0
while [ $n -lt ${#targets[@]} ]; do
    pair=("${targets[@]:n:2}")
    pids=()
    for target in "${pair[@]}"; do
        run "$target" &
        pids+=($!)
    done
    for i in "${!pair[@]}"; do
        target=${pair[i]}
        status=0
        wait "${pids[i]}" || status=1
        n=$((n + 1))
        name="fuzz_$target runs its corpus and $seconds s without a finding (seed $seed)"
        if [ $status = 0 ]; then
            sed 's/^#* */# /' "$here/fuzz_$target.out"
            echo "ok $n - $name"
        else
            tail -n 80 "$here/fuzz_$target.out" | sed 's/^#* */# /'
            echo "not ok $n - $name"
            bad=1
        fi
    done
done
exit $bad
