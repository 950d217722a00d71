# SPDX-License-Identifier: Apache-2.0
# Pi, e and a root.
export PATH=/usr/bin:$PATH
echo "scale=$1; 4*a(1); e(1); sqrt(2)" | BC_LINE_LENGTH=0 /usr/bin/bc -l
