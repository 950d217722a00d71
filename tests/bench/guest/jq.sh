# SPDX-License-Identifier: Apache-2.0
# A JSON document grouped and filtered.
export PATH=/usr/bin:$PATH
jq -n --argjson n $1 '[range($n) | {id: ., tags: [("t" + (. % 7 | tostring)), "x"], v: (. * 7919 % 1009)}]' > /tmp/j
jq -c 'group_by(.tags[0]) | map({tag: .[0].tags[0], n: length, sum: (map(.v) | add), top: (max_by(.v) | .id)})' /tmp/j
jq -r '.[] | select(.v > 900) | [.id, .v] | @csv' /tmp/j | md5sum
