#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Random vector programs by the JIT, with all and with less of the host's vector features, and by the IR interpreter, printed as TAP.
# Seeds: VMD_TEST_SEED or 1.
set -u
seed=${VMD_TEST_SEED:-1}
n=0
bad=0
echo "1..5"
for job in "256 0 2500" "128 0 1500" "1024 0 700" "256 2 700" "256 1 300"; do
    read -r vlen off count <<<"$job"
    n=$((n + 1))
    name="vlen_${vlen}_host_off_${off}_alike_by_jit_and_interpreter (seed $seed)"
    if out=$("$VMD_BUILDDIR/tests/isa/vector_jit" --seed "$seed" --count "$count" --vlen "$vlen" --host-off "$off" 2>&1); then
        echo "ok $n - $name"
    else
        echo "$out" | tail -n 60 | sed 's/^/# /'
        echo "not ok $n - $name"
        bad=1
    fi
done
exit $bad
