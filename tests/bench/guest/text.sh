# SPDX-License-Identifier: Apache-2.0
# A text through gawk, grep, sort, tr and cut.
export PATH=/usr/bin:$PATH
gawk -v n=$1 'BEGIN { for (i = 0; i < n; i++) { x = (x * 16807 + 7) % 2147483647
    printf "%s line %d of text with word%d and word%d, %s\n", x, i, x % 1009, i % 313, substr("abcdefghijklmnopqrstuvwxyz", x % 20, 6) } }' > /tmp/t
gawk '{ for (i = 1; i <= NF; i++) count[$i]++; gsub(/word[0-9]+/, "<&>"); length_of[length($0)]++ }
    END { for (w in count) if (count[w] > 100) print w, count[w]; for (l in length_of) print l, length_of[l] }' /tmp/t | sort | md5sum
grep -c -E 'word(1|2)[0-9]* and .*(abc|xyz)' /tmp/t; sort -k2,2 -k1,1n /tmp/t | md5sum; wc /tmp/t; tr a-z A-Z < /tmp/t | cut -d' ' -f3-5 | uniq | md5sum
