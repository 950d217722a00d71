# SPDX-License-Identifier: Apache-2.0
"""The sets of guest workloads, one line a row: a new workload is a file in guest/ and a line here,
a new set is a line in SETS.

    Row(name, title, prog, args, want, check, check_want, **how)

prog is guest/PROG.c (or .S), run with args for a measurement and with check in `make check`; want
and check_want are the checksums that it must print then. A prog that starts with "sh:" is a shell
line run under guest/timed.c, its checksum that of its output; want None says that it depends on
the version of a Debian package, and then all emulators must agree. how:

    cpus=4             vCPUs of the machine (rows of a set with the same number share a boot)
    defines="-DX=Y"    for the compiler, which makes it a program of its own
    tools="tools"      needs Debian's riscv64 packages in the initramfs (fetch riscv64-tools or -apps)
    cpu="v"            needs these extensions: see CPUS
"""

import os
from dataclasses import dataclass

HERE = os.path.dirname(os.path.abspath(__file__))


@dataclass(frozen=True)
class Row:
    name: str
    title: str
    prog: str
    args: str
    want: str = None
    check: str = ""
    check_want: str = None
    cpus: int = 1
    defines: str = ""
    tools: str = ""
    cpu: str = ""
    unit: str = "guest s"


def script(name):
    with open(os.path.join(HERE, "guest", name + ".sh"), encoding="ascii") as file:
        return "sh:" + file.read()


# Rows that the initramfs itself brings (tests/guests/init), with what they must print.
FIVE = [
    Row("boot", "boot to init", "init", "", unit="host CPU s"),
    Row("sha256", "sha256 of 64 MiB", "init", "", "3b6a07d0d404fab4"),
    Row("awk", "awk, 2M iterations", "init", "", "1999154000"),
    Row("gzip", "gzip -1 of 16 MiB random, md5", "init", "", "36"),
    Row("fork", "300 fork+exec", "init", "", "300"),
]

# The 1536-bit modulus of RFC 3526 §2.
PRIME = ("FFFFFFFFFFFFFFFFC90FDAA22168C234C4C6628B80DC1CD129024E088A67CC74020BBEA63B139B22514A08798E34"
         "04DDEF9519B3CD3A431B302B0A6DF25F14374FE1356D6D51C245E485B576625E7EC6F44C42E9A637ED6B0BFF5CB6"
         "F406B7EDEE386BFB5A899FA5AE9F24117C4B1FE649286651ECE45B3DC2007CB8A163BF0598DA48361C55D39A6916"
         "3FA8FD24CF5F83655D23DCA3AD961C62F356208552BB9ED529077096966D670C354E4ABC9804F1746C08CA237327"
         "FFFFFFFFFFFFFFFF")
SSL = """
dd if=/dev/zero of=/tmp/z bs=1M count=$1 2>/dev/null
for h in sha256 sha512 md5; do openssl dgst -$h /tmp/z || exit 1; done
v=000102030405060708090a0b0c0d0e0f
openssl enc -aes-128-cbc -K $v -iv $v -in /tmp/z | openssl dgst -md5
openssl enc -aes-256-ctr -K $v$v -iv $v -in /tmp/z | openssl dgst -md5
openssl enc -chacha20 -K $v$v -iv $v -in /tmp/z | openssl dgst -md5
for i in $(seq $1); do openssl prime -hex $2 || exit 1; done
rm /tmp/z
"""
SQL = """
sqlite3 :memory: "
CREATE TABLE t(id INTEGER PRIMARY KEY, k INTEGER, name TEXT);
WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < $1)
INSERT INTO t SELECT i, (i * 7919) % 10007, 'name' || (i % 997) FROM c;
CREATE INDEX tk ON t(k);
SELECT count(*), sum(a.id) FROM t a JOIN t b ON a.k = b.k WHERE a.id < 2000;
SELECT name, count(*), avg(k) FROM t GROUP BY name ORDER BY 2 DESC, 1 LIMIT 5;
UPDATE t SET k = k + 1 WHERE id % 3 = 0;
DELETE FROM t WHERE name LIKE 'name1%';
SELECT count(*), sum(k), max(name) FROM t;"
"""
# The compiler proper and the assembler, on sources preprocessed beforehand.
CC1 = """
m='-march=rv64gc -mabi=lp64d'
one() {
    cc1 -quiet -fpreprocessed -O2 $m /bench/src/$1.i -o /tmp/$1.s && as $m -o /tmp/$1.o /tmp/$1.s
}
"""
COMPILE = CC1 + "for f in $*; do one $f && md5sum /tmp/$f.o || exit 1; done\n"
COMPILE_PARALLEL = CC1 + """
for f in $*; do one $f & done
wait
for f in $*; do md5sum /tmp/$f.o || exit 1; done
"""

OTHERS = [
    Row("core", "embedded integer mix", "core", "6000", "0000000000009324", "20",
        "0000000000002c07"),
    Row("lz", "compression", "lz", "1024 6", "e596c053bdab1968", "32 1", "1f74e2488e562e97"),
    Row("sort", "three sorts", "sort", "300000 2", "6126d618f2236577", "2000 1",
        "60b4188069043efd"),
    Row("hash", "hash table of strings", "hash", "100000 6", "00000007912a7590", "1000 1",
        "00000000000b73a4"),
    Row("interp", "interpreter loop", "interp", "2000000 30", "3b205234ec709c2b", "5000 12",
        "94e10b0cdc22fcbe"),
    Row("chase", "pointer chasing, 256 KiB", "chase", "256 50", "00000017d6081f40", "128 1",
        "000000003d047b60"),
    Row("syscall", "system calls", "syscall", "400", "000000000013d620", "2",
        "0000000000001964"),
    Row("switch", "context switches by pipe", "switch", "50", "0000000000614508", "1",
        "000000000001f304"),
    Row("fault", "page faults", "fault", "300", "0000000000833213", "2", "0000000000000101"),
    Row("signal", "signals", "signal", "100", "000000000002ab98", "1", "00000000000006d6"),
    Row("openssl", "openssl digests, ciphers, RSA", "sh:" + SSL, "4 " + PRIME, None, "1 17",
        None,
        tools="tools"),
    Row("sqlite", "sqlite", "sh:" + SQL, "60000", None, "500", None, tools="tools"),
    Row("compile", "gcc -O2 of one file", "sh:" + COMPILE, "lz", None, "switch", None,
        tools="tools"),
    Row("ipi", "IPIs and TLB shoot-down, 4 vCPUs", "ipi", "2", "000000000013115a", "1",
        "000000000009820e", cpus=4),
    Row("futex", "futex ping-pong, 4 vCPUs", "futex", "20", "0000000000030d40", "1",
        "0000000000002710", cpus=4),
]

FP = [
    Row("nbody", "n-body", "nbody", "2000", "ee2570303bf29cc2", "1", "ee2570303bf29cc2"),
    Row("linpack", "LU factorisation", "linpack", "300 30", "1b9d4e0466aa297c", "40 1",
        "c1454f5921ab46ad"),
    Row("fft", "fast Fourier transform", "fft", "14 120", "721330e1fd4f9b10", "8 1",
        "456fbb181822b8f6"),
    Row("mandel", "mandelbrot", "mandel", "500 1000", "00000000000003b1", "32 100",
        "0000000000000004"),
    Row("spectral", "spectral norm", "spectral", "500 80", "5826aa795018d981", "30 1",
        "e32e56611ad0dad9"),
    Row("nbody-s", "n-body, single", "nbody", "2000", "4de2398daf8ddd1a", "1",
        "4de2398daf8ddd1a", defines="-DREAL=float"),
    Row("linpack-s", "LU factorisation, single", "linpack", "300 30", "1b9d4e0466aa297c",
        "40 1", "c1454f5921ab46ad",
        defines="-DREAL=float"),
    Row("mandel-s", "mandelbrot, single", "mandel", "500 1000", "00000000000003b1", "32 100",
        "0000000000000004",
        defines="-DREAL=float"),
]

SMP = [
    Row("futex", "futex ping-pong, 4 vCPUs", "futex", "20", "0000000000030d40", "1",
        "0000000000002710", cpus=4),
    Row("ipi", "IPIs and TLB shoot-down, 4 vCPUs", "ipi", "2", "000000000013115a", "1",
        "000000000009820e", cpus=4),
    Row("parallel4", "independent work on 4 vCPUs", "parallel", "4 10000", "17952b4f1667e249",
        "4 20", "418150a0e38ceb1d", cpus=4),
    Row("make4", "four gcc -O2 on 4 vCPUs", "sh:" + COMPILE_PARALLEL, "core lz sort hash", None,
        "switch futex", None, cpus=4, tools="tools"),
    Row("parallel1", "work on 1 of 2 vCPUs", "parallel", "1 50000", "0f8710c2890a2d28", "1 20",
        "3e063f31d4bfa4c1", cpus=2),
    Row("parallel2", "the same on each of 2 vCPUs", "parallel", "2 50000", "7cc826121fa747d8",
        "2 20", "cef157ad98e8b7fa", cpus=2),
]

VECTOR = [
    Row("vsaxpy", "vector saxpy, daxpy, ddot", "vsaxpy", "4000 15000", "2aea13a6a8216dd3",
        "100 2", "738d78024b6d673c", cpu="v"),
    Row("vgemm", "vector dgemm and sgemm", "vgemm", "192 12", "c0c74d8e2cee6e47", "20 1",
        "07eafe07b4ae82cc", cpu="v"),
    Row("vmem", "vector memcpy and strlen", "vmem", "64 4000", "8ba6d5198064e3ba", "4 2",
        "9f1c99c9f91d218f", cpu="v"),
    Row("vimage", "vector image filter", "vimage", "65536 1500", "ea3458db8aa86722", "1000 2",
        "97da1aa1182829a3", cpu="v"),
    Row("vmandel", "vector mandelbrot", "vmandel", "500 1000", "00000000000003af", "32 100",
        "0000000000000004", cpu="v"),
    Row("vaes", "vector AES-128-CTR", "vaes", "256 2400", "180724d686a11b32", "4 1", "0ce44fdbe1fdf76c",
        cpu="zvk"),
    Row("vsha", "vector SHA-256 and SHA-512", "vsha", "256 240", "d5182287ee876d0b", "1 1",
        "0f6c792a8a945c27", cpu="zvk"),
    Row("vghash", "vector GHASH", "vghash", "256 200", "a96af05ee119d759", "1 1",
        "beb48beb76d8ea30", cpu="zvk"),
]

# What the means of a set are taken over: {set: {name of the mean: rows}}.
# What people run, in Debian's own build: interpreters, compressors, a compiler at run time.
APPS = [
    Row(name, title, script(name), args, None, check, None, tools="apps")
    for name, title, args, check in (
        ("python", "Python: trees, text, JSON, big numbers", "12000", "300"),
        ("perl", "Perl: a log by regular expressions", "60000", "500"),
        ("lua", "Lua: queens, strings", "9", "5"),
        ("text", "gawk, then busybox grep, sort, tr, cut", "60000", "500"),
        ("pack", "xz, zstd, bzip2 and back", "2000000", "50000"),
        ("jq", "jq", "30000", "300"),
        ("bc", "bc, 1000 digits", "1000", "50"),
        ("node", "Node.js", "60", "2"),
    )
]

SETS = {
    "dbt": {"five": FIVE, "others": OTHERS},
    "dbt-fp": {"all": FP},
    "dbt-vector": {"all": VECTOR},
    "dbt-smp": {"all": SMP},
    "dbt-apps": {"all": APPS},
}

# The processor that rows with cpu="..." need, by emulator; one that is not named cannot run them.
# All have the same VLEN.
CPUS = {
    "v": {"vmd": "max,v=on,vlen=256", "qemu": "rv64,v=true,vlen=256",
          "qemu10": "rv64,v=true,vlen=256"},
    "zvk": {"vmd": "max,v=on,vlen=256,zvkned=on,zvknhb=on,zvkg=on,zvkb=on",
            "qemu10": "rv64,v=true,vlen=256,zvkned=true,zvknhb=true,zvkg=true,zvkb=true"},
}
