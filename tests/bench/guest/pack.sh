# SPDX-License-Identifier: Apache-2.0
# Compressors, and back.
export PATH=/usr/bin:$PATH
cat /usr/bin/perl /usr/bin/gawk | head -c $1 > /tmp/b
for p in "xz -2" "zstd -q -9" "bzip2"; do
    set -- /usr/bin/$p
    "$@" -c /tmp/b > /tmp/b.z && $1 -dc < /tmp/b.z | cmp - /tmp/b || exit 1
    wc -c < /tmp/b.z
done
