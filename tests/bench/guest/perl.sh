# SPDX-License-Identifier: Apache-2.0
# A log made and read by regular expressions in Perl.
export PATH=/usr/bin:$PATH
perl -e '
my ($n, $x, %count, @lines) = ($ARGV[0], 42);
for my $i (1 .. $n) {
    $x = ($x * 1103515245 + 12345) & 0x7fffffff;
    push @lines, sprintf("%08x user%d GET /p/%d?q=%s HTTP/1.1 %d", $x, $x % 997, $i % 131, "a" x ($x % 17), $x % 5000);
}
for (@lines) {
    $count{$2}{$1} += $3 if /user(\d+) GET (\/p\/\d+)\?q=a* HTTP\/1\.1 (\d+)$/;
    s/([aeiou])/uc $1/ge;
}
for my $p (sort keys %count) { my $c = $count{$p}; print "$p ", scalar(keys %$c), " ", (sort { $c->{$b} <=> $c->{$a} || $a <=> $b } keys %$c)[0], "\n"; }
print join(",", map { substr $_, 9, 12 } (sort @lines)[0 .. 9]), "\n";
' $1
