# SPDX-License-Identifier: Apache-2.0
"""Shared folders: Debian's kernel with its own drivers virtiofs and 9p, against Debian's virtiofsd and our vmd-share, through the daemon
and vmctl.

Needs the guest riscv64-agent (tests/guests/fetch), used when it is in the cache, fetched when VMD_TEST_AGENT=1; virtiofs needs root.
A share that comes while the guest runs goes by emu.attach_share to the emulator.
"""

import os
import shutil
import subprocess
import sys
import tempfile

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
for folder in (".", "../lib", "../guests"):
    sys.path.insert(0, os.path.join(HERE, folder))
import guest  # noqa: E402
import guest_agent  # noqa: E402
import tap  # noqa: E402

MOUNT = {"virtiofs": "mount -t virtiofs {0} /mnt/{0}",
         "9p": "mount -t 9p -o trans=virtio,version=9p2000.L,msize=262144,access=user {0} /mnt/{0}"}


class Share:
    """A folder of the host and a machine that has it mounted."""

    def __init__(self, driver, config=None, mount=True, also=(), **more):
        if driver == "virtiofs":
            if os.geteuid() != 0:
                raise tap.Skip("virtiofsd needs root")
            if not any(map(os.path.exists, ("/usr/libexec/virtiofsd", "/usr/lib/qemu/virtiofsd"))):
                raise tap.Skip("there is no virtiofsd (package virtiofsd, in Debian 12 qemu-system-common)")
        self.driver = driver
        self.dir = tempfile.mkdtemp(prefix="vmd-share-")
        os.chmod(self.dir, 0o755)
        self.share = {"path": self.dir, "tag": "src", "driver": driver, **more}
        try:
            self.m = guest_agent.Machine(**{"shares": [self.share, *also], **(config or {})})
        except BaseException:
            shutil.rmtree(self.dir, ignore_errors=True)
            raise
        if mount:
            self.mount()

    def mount(self, tag="src"):
        self.m.run(f"mkdir -p /mnt/{tag} && " + MOUNT[self.driver].format(tag))

    def path(self, *names):
        return os.path.join(self.dir, *names)

    def text(self, *names):
        with open(self.path(*names), encoding="utf-8") as file:
            return file.read()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.m.__exit__(*exc)
        shutil.rmtree(self.dir, ignore_errors=True)


def both_ways(driver):
    with Share(driver) as s:
        with open(s.path("from-host"), "w", encoding="utf-8") as file:
            file.write("hello guest\n")
        tap.check(s.m.run("cat /mnt/src/from-host").strip() == "hello guest", "what the host wrote")
        s.m.run("echo hello host >/mnt/src/from-guest; mkdir -p /mnt/src/a/b; echo deep >/mnt/src/a/b/c; sync")
        tap.check(s.text("from-guest") == "hello host\n" and s.text("a", "b", "c") == "deep\n", "what the guest wrote")
        s.m.run("dd if=/dev/urandom of=/tmp/r bs=1M count=16 2>/dev/null; cp /tmp/r /mnt/src/r; echo 3 >/proc/sys/vm/drop_caches")
        sums = s.m.run("sha256sum </tmp/r; sha256sum </mnt/src/r").split()
        host = subprocess.run(["sha256sum", s.path("r")], capture_output=True, check=True).stdout.decode().split()[0]
        tap.check(sums[0] == sums[2] == host, f"16 MiB: {sums} {host}")


def virtiofs_moves_files_both_ways():
    both_ways("virtiofs")


def nine_moves_files_both_ways():
    both_ways("9p")


# What a POSIX file system does, told in lines that are the same on every one; run in the share by the guest, and beside it by the host.
CORNERS = r"""
echo one >f; exec 3<f; echo two >g; mv g f; cat <&3; cat f; exec 3<&-
ln f h; echo more >>h; cat f; stat -c %h f h; [ f -ef h ] && echo same; rm f; stat -c %h h; cat h
mkdir d; echo x >d/y; mv d e; cat e/y; rmdir e 2>/dev/null || echo full; mv e/y .; rmdir e && echo empty
ln -s over/there s; readlink s; ln -s h t; cat t; stat -c %F s
echo gone >u; exec 4<u; rm u; cat <&4; exec 4<&-; [ -e u ] || echo absent
chmod 640 h; stat -c %a h; chmod 4755 h; stat -c %a h; touch -d '2001-02-03 04:05:06' h; stat -c %Y h
mkfifo p; stat -c %F p; mkdir q r; mv q r/; ls r; mv r r/q 2>/dev/null || echo into itself
truncate -s 123457 big; stat -c %s big; echo end >>big; stat -c %s big; truncate -s 3 big; stat -c %s big
dd if=/dev/zero of=hole bs=1 count=1 seek=5000000 2>/dev/null; stat -c %s hole; md5sum <hole
n=$(printf %0255d 7); echo long >$n && cat $n; echo longer 2>/dev/null >0$n || echo too long
mkdir 1 2; echo a >1/a; ln 1/a 2/b; ls 1 2; stat -c %h 1/a; rm 2/b; stat -c %h 1/a
set -C; echo again 2>/dev/null >h || echo there already; set +C
mkdir many; seq 10000 | sed 's,^,many/f,' | xargs touch; ls many | wc -l; ls many | sort | md5sum; find many -type f | wc -l
(cd many; ls | xargs rm); rmdir many && echo removed
ls | sort | md5sum
"""


def corners(driver, **more):
    with Share(driver, **more) as s, tempfile.TemporaryDirectory() as beside:
        script = s.path("corners.sh")
        with open(script, "w", encoding="utf-8") as file:
            file.write("umask 022\n" + CORNERS)
        shutil.copy(script, beside)
        env = {**os.environ, "TZ": "UTC", "LC_ALL": "C"}
        host = subprocess.run(["bash", "corners.sh"], cwd=beside, env=env, capture_output=True, check=True).stdout.decode()
        guest = s.m.run("cd /mnt/src && TZ=UTC sh corners.sh").replace("\r", "")
        for mine, theirs in zip(host.strip().split("\n"), guest.strip().split("\n")):
            tap.check(mine == theirs, f"host {mine!r}, guest {theirs!r}\n{guest}")
        tap.check(len(host.split()) > 40 and host.strip() == guest.strip(), guest)
        # Attributes, both ways.
        s.m.run("cd /mnt/src && echo a >attr && setfattr -n user.colour -v blue attr")
        tap.check(os.getxattr(s.path("attr"), "user.colour") == b"blue", "set by the guest")
        os.setxattr(s.path("attr"), "user.shape", b"round")
        s.m.run("setfattr -x user.colour /mnt/src/attr")
        tap.check(os.listxattr(s.path("attr")).count("user.colour") == 0, "taken away by the guest")
        # What the host has is not followed out of the share.
        os.symlink("/etc/hostname", s.path("out"))
        tap.check(s.m.run("readlink /mnt/src/out").strip() == "/etc/hostname", "the link")


def virtiofs_has_the_corners_of_posix():
    corners("virtiofs")


def nine_has_the_corners_of_posix():
    corners("9p")


def nine_passes_owners_through():
    with Share("9p", security="passthrough") as s:
        s.m.run("cd /mnt/src && echo x >f && chown 12:34 f && chmod 4711 f && ln -s f l && mkfifo p && mkdir -m 2775 d")
        st = os.stat(s.path("f"))
        if os.geteuid() == 0:
            tap.check((st.st_uid, st.st_gid) == (12, 34), str(st))
        tap.check(st.st_mode & 0o7777 == 0o4711 and os.readlink(s.path("l")) == "f", "on the host it is as in the guest")
        tap.check(os.stat(s.path("d")).st_mode & 0o7777 == 0o2775, "a folder's")
    with Share("9p") as s:
        s.m.run("cd /mnt/src && echo x >f && chown 12:34 f && chmod 4711 f && ln -s /etc l && mknod n c 1 3")
        tap.check(s.m.run("stat -c '%u %g %a' /mnt/src/f").split() == ["12", "34", "4711"], "mapped: as the guest set it")
        tap.check(s.m.run("stat -c '%F %t %T' /mnt/src/n").strip() == "character special file 1 3", "a device")
        st = os.stat(s.path("f"))
        tap.check(st.st_uid == os.geteuid() and st.st_mode & 0o7777 == 0o600, "the host's file is plain")
        tap.check(os.path.isfile(s.path("l")) and not os.path.islink(s.path("l")), "no link on the host")
        tap.check(os.getxattr(s.path("f"), "user.virtfs.uid") == (12).to_bytes(4, "little"), "QEMU's name for it")


# A project of three files, without a C library: the compiler proper, assembler and linker come from another share.
PROJECT = {
    "sum.h": "unsigned long sum(const unsigned char *p, unsigned long n);\n",
    "sum.c": '#include "sum.h"\nunsigned long sum(const unsigned char *p, unsigned long n)\n'
             "{\n    unsigned long h = 5381;\n    while (n--) {\n        h = h * 33 + *p++;\n    }\n    return h;\n}\n",
    "main.c": '#include "sum.h"\nstatic long call(long n, long a, long b, long c)\n{\n'
              '    register long r0 __asm__("a0") = a, r1 __asm__("a1") = b, r2 __asm__("a2") = c, r7 __asm__("a7") = n;\n'
              '    __asm__ volatile("ecall" : "+r"(r0) : "r"(r1), "r"(r2), "r"(r7) : "memory");\n    return r0;\n}\n'
              'void _start(void)\n{\n    static const char text[] = "shared";\n    char out[17];\n'
              "    unsigned long h = sum((const unsigned char *)text, 6);\n    for (int i = 15; i >= 0; i--) {\n"
              '        out[i] = "0123456789abcdef"[h & 15];\n        h >>= 4;\n    }\n    out[16] = 10;\n'
              "    call(64, 1, (long)out, 17);\n    call(93, 0, 0, 0);\n}\n",
}
BUILD = r"""
t=/mnt/tools; x="$t/usr/lib/riscv64-linux-gnu/ld-linux-riscv64-lp64d.so.1 --library-path $t/usr/lib/riscv64-linux-gnu"
cd /mnt/src
for f in main sum; do $x $t/usr/libexec/gcc/riscv64-linux-gnu/14/cc1 -quiet -nostdinc -march=rv64gc -mabi=lp64d -O2 -o $f.s $f.c; done
for f in main sum; do $x $t/usr/bin/riscv64-linux-gnu-as -o $f.o $f.s; done
ls -l *.o
"""


def builds(driver):
    if not shutil.which("riscv64-linux-gnu-ld"):
        raise tap.Skip("there is no riscv64-linux-gnu-ld (package binutils-riscv64-linux-gnu)")
    try:
        tools = guest.fetched("riscv64-tools")
    except guest.Unavailable as why:
        raise tap.Skip(str(why)) from None
    root = os.path.join(os.path.dirname(guest.fetched("riscv64-agent")["kernel"]), "..", "riscv64-tools", "root")
    del tools
    share = {"path": os.path.realpath(root), "tag": "tools", "driver": "9p", "readonly": True, "security": "passthrough"}
    with Share(driver, mount=False, also=[share]) as s:
        for name, text in PROJECT.items():
            with open(s.path(name), "w", encoding="utf-8") as file:
                file.write(text)
        s.mount()
        s.m.run("mkdir -p /mnt/tools && mount -t 9p -o trans=virtio,version=9p2000.L,cache=loose,msize=262144 tools /mnt/tools")
        h = 5381
        for c in b"shared":
            h = (h * 33 + c) % (1 << 64)
        s.m.run(BUILD)
        # The tools of the guest have no linker with its libraries: the host's does that part, in the same folder.
        subprocess.run(["riscv64-linux-gnu-ld", "-o", "prog", "main.o", "sum.o"], cwd=s.dir, check=True)
        said = s.m.run("cp /mnt/src/prog /tmp/prog && chmod 755 /tmp/prog && /tmp/prog")
        tap.check(f"{h:016x}" in said, said)
        with open(s.path("prog"), "rb") as file:
            tap.check(file.read(4) == b"\x7fELF", "the host sees the program")
        said = s.m.run("touch /mnt/tools/x 2>&1; [ $? -ne 0 ]")
        tap.check("Read-only" in said, said)


def a_project_is_built_on_virtiofs():
    builds("virtiofs")


def a_project_is_built_on_nine():
    builds("9p")


def child(name):
    """A server of this machine's daemon: the youngest process of that name."""
    out = subprocess.run(["pgrep", "-n", "-x", name], capture_output=True, check=False).stdout.decode().split()
    tap.check(out, f"a process {name}")
    return int(out[0])


def comes_and_goes(driver):
    with Share(driver, config={"root_ports": 2, "shares": []}, mount=False) as s:
        flags = ",driver=9p" if driver == "9p" else ""
        for turn in range(2):
            s.m.vmctl("attach", "--share", f"{s.dir},tag=src{flags}", "a")
            s.m.run("echo 1 >/sys/bus/pci/rescan")
            s.mount()
            s.m.run(f"echo {turn} >/mnt/src/turn")
            tap.check(s.text("turn") == f"{turn}\n", "it is the host's folder")
            job = s.m.client.call("job.wait", job=s.m.call("vm.save")["job"], timeout_ms=int(guest_agent.LIMIT * 1000))
            tap.check(job["state"] == "failed" and "shared folder 'src'" in str(job), f"a state without what the server knows: {job}")
            s.m.run("umount /mnt/src; d=$(for v in /sys/bus/virtio/drivers/" + ("9pnet_virtio" if driver == "9p" else "virtiofs")
                    + "/virtio*; do readlink -f $v/..; done); echo 1 >$d/remove")
            s.m.vmctl("detach", "--share", "src", "a")
        # Its server dies: the guest gets errors, and lives.
        s.m.vmctl("attach", "--share", f"{s.dir},tag=src{flags}", "a")
        s.m.run("echo 1 >/sys/bus/pci/rescan")
        s.mount()
        os.kill(child("vmd-share" if driver == "9p" else "virtiofsd"), 9)
        s.m.run("! cat /mnt/src/turn /mnt/src/other 2>/tmp/said; cat /tmp/said; ! touch /mnt/src/new 2>/dev/null; echo alive")
        s.m.client.fails("invalid-params", "vm.attach", vm="a", share={"tag": "x", "driver": "9p"}, config=True)
        s.m.client.fails("file-error", "vm.attach", vm="a", share={"tag": "x", "driver": driver, "path": "/nowhere/at/all"})


def virtiofs_comes_and_goes():
    comes_and_goes("virtiofs")


def nine_comes_and_goes():
    comes_and_goes("9p")


if __name__ == "__main__":
    sys.exit(tap.run_cases([
        virtiofs_moves_files_both_ways, nine_moves_files_both_ways, virtiofs_has_the_corners_of_posix, nine_has_the_corners_of_posix,
        nine_passes_owners_through, a_project_is_built_on_virtiofs, a_project_is_built_on_nine, virtiofs_comes_and_goes,
        nine_comes_and_goes]))
