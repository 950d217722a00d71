# SPDX-License-Identifier: Apache-2.0
"""A real guest moves with its disk: Debian's kernel writes files with checksums to ext4 while it goes from host to host and back; what
it reads from the disk then is what it wrote, and the file system is whole.

Needs the guest riscv64-agent (tests/guests/fetch)."""

import os
import sys

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
for folder in (".", "../lib", "../guests"):
    sys.path.insert(0, os.path.join(HERE, folder))
import daemon_migrate_disks as disks  # noqa: E402
import guest_agent  # noqa: E402
import tap  # noqa: E402

WRITER = ("(n=0; while [ ! -e /tmp/stop ]; do n=$((n+1)); f=$((n%24)); head -c 200000 /dev/urandom >/mnt/new && "
          "md5sum </mnt/new >/mnt/new.md5 && mv /mnt/new /mnt/f$f && mv /mnt/new.md5 /mnt/f$f.md5; "
          "[ $((n%8)) != 0 ] || sync; done; echo $n >/tmp/made) >/tmp/errors 2>&1 &")
# From the disk, not from memory.
CHECK = ("umount /mnt && echo 3 >/proc/sys/vm/drop_caches && /usr/sbin/e2fsck -fn /dev/vda >/tmp/fsck 2>&1; echo fsck=$?; mount -t ext4 /dev/vda /mnt; "
         "for f in /mnt/f*.md5; do [ \"$(md5sum <${f%.md5})\" = \"$(cat $f)\" ] && echo same || echo other ${f}; done; cat /tmp/errors")


class Machine(guest_agent.Machine):
    """Its VM is on one of two daemons."""

    def __init__(self, pair, **config):
        self.pair = pair
        super().__init__(**config)

    def start_daemon(self, options):
        return self.pair.both[0]

    def __exit__(self, *exc):
        self.console.close()
        self.client.close()

    def move(self, here, there):
        job = self.pair.move(here, there, reuse_images=True)  # of the way before
        disks.done(job, self.pair)
        self.console.close()
        self.client.close()
        self.client = there.client(guest_agent.LIMIT)
        self.text = b""
        self.console = self.connect("vm.console", vm="a")
        self.turn = getattr(self, "turn", 0) + 1
        self.send(f"echo begin=$(({self.turn} + 1000))=\n")  # whatever the console still had of before
        self.expect(f"begin={self.turn + 1000}=")
        return job["result"]


def files_are_as_they_were_written_from_host_to_host():
    guest_agent.files()
    with disks.Pair() as pair, Machine(pair) as m:
        here, there = pair.both
        m.run("dmesg -n 1; /usr/sbin/mke2fs -q -t ext4 -F /dev/vda && mkdir -p /mnt && mount -t ext4 /dev/vda /mnt")
        m.run(WRITER)
        for _ in range(4):
            said = m.move(here, there)
            print(f"# {said['downtime_ns'] // 1000000} ms")
            here, there = there, here
        m.run("touch /tmp/stop; while [ ! -e /tmp/made ]; do sleep 0.1; done; sync")
        made = int(m.run("cat /tmp/made").split()[-1])
        said = m.run(CHECK).split("\n")
        same = [line.strip() for line in said].count("same")
        print(f"# {made} files written, {same} read")
        tap.check(any("fsck=0" in line for line in said) and not any("other" in line for line in said) and same == min(made, 24), f"{said}")


if __name__ == "__main__":
    sys.exit(tap.run_cases([files_are_as_they_were_written_from_host_to_host]))
