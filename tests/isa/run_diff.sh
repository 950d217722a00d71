#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Random programs under vmd-emu and under QEMU, as TAP. Seed: VMD_SEED or 1. `make soak` runs more.
set -u
seed=${VMD_SEED:-1}
n=0
bad=0
echo "1..4"
for job in "64 vmd:jit 3000" "32 vmd:jit 2000" "64 vmd:interp 800" "32 vmd:interp 500"; do
    read -r xlen side count <<<"$job"
    n=$((n + 1))
    name="rv$xlen $count random programs give the reference's results by $side (seed $seed)"
    status=0
    out=$("${PYTHON:-python3}" -B "$VMD_SRCDIR/tests/isa/diff" --seed "$seed" --count "$count" \
        --xlen "$xlen" --a "$side" --b qemu 2>&1) || status=$?
    case $status in
    0) echo "ok $n - $name" ;;
    77) echo "ok $n - $name # SKIP $(echo "$out" | sed -n 's/^skipped: //p')" ;;
    *)
        echo "$out" | tail -n 80 | sed 's/^#* */# /'
        echo "not ok $n - $name"
        bad=1
        ;;
    esac
done
exit $bad
