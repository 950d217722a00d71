# SPDX-License-Identifier: Apache-2.0
"""The end-to-end suite a second time: every test file that talks to a daemon, each call, console and QMP session of it over
TLS from another network namespace.

    remote_suite.py [FILE [CASE...]]      all files, two at a time, or some cases of one

Cases about the unix socket itself are marked in their files (tap.local); they and the files of NOT are named in the output."""

import concurrent.futures
import fnmatch
import os
import pathlib
import re
import signal
import subprocess
import sys
import threading

TOP = pathlib.Path(os.environ.get("VMD_SRCDIR") or pathlib.Path(__file__).resolve().parents[2])
sys.path[:0] = [str(TOP / "tests" / "lib"), str(TOP / "tests" / "e2e")]

import far_lib  # noqa: E402

# The longest first. Fewer cycles than by the unix socket: what a connection over TLS leaves shows in a few.
FILES = [("daemon_policy.py",), ("daemon_survive.py",), ("qmp_commands.py",), ("daemon_input.py",),
         ("daemon_cycles.py", "--count", "60"), ("daemon_valgrind.py",), ("daemon_chaos.py", "--count", "30"), ("daemon_supply.py",),
         ("daemon_store.py",), ("daemon_chain.py",), ("daemon_blockjobs.py",), ("daemon_dump.py",), ("daemon_save.py",),
         ("daemon_emulator.py",), ("daemon_corpus.py",), ("qmp_input.py",),
         ("qmp_screen.py",), ("qmp_snapshots.py",),
         ("daemon_fork.py", "copies_run_on_overlays_of_their_own", "paused_ones_and_their_state", "what_cannot_be_copied_is_named")]
# Patterns of the files that are not repeated, and why.
NOT = {"guest_*.py": "vmd-emu by itself", "remote_*.py": "remote access itself", "far_lib.py": "what this stands on",
       "qmp_clients.py": "go-qemu and ganeti dial unix sockets only",
       "daemon_hotplug.py": "looks at what the emulator has open, and vmctl and QMP come by their sockets",
       "daemon_faults.py": "requests fail in the emulator, and one case has its console outlive the daemon",
       "daemon_disks.py": "NBD clients come to sockets of the daemon's own host",
       "qmp_disks.py": "the same",
       "qmp_plug.py": "sockets of chardevs and cards are the daemon's own host's, and it looks at what the emulator has open",
       "daemon_snapshots.py": "kills at random moments, vmctl at the unix socket; remote_roles.py calls each method",
       "daemon_archives.py": "files of the daemon's own host, kills at random moments; remote_roles.py calls each method",
       "daemon_schedule.py": "waits for what the daemon does by itself; remote_roles.py calls each method",
       "daemon_replay.py": "recordings are files of the daemon's own host, vmctl at the unix socket; remote_roles.py calls each method",
       "daemon_export.py": "files of the daemon's own host",
       "daemon_guest_time.py": "clocks of guests and of the daemon's own host",
       "daemon_overhead.py": "memory of the daemon's own processes",
       "daemon_cloudinit.py": "vmctl at the unix socket, and looks into the daemon's folders",
       "daemon_vnc.py": "begins TLS daemons and viewers of its own",
       "daemon_networks.py": "ports of networks by unix sockets; remote_roles.py calls each method",
       "daemon_exports.py": "NBD servers by sockets of the daemon's own host",
       "daemon_pools.py": "vmctl at the unix socket, and kills at random moments; remote_roles.py calls each method",
       "daemon_migrate.py": "goes by TLS between two daemons", "daemon_migrate_disks.py": "so does this", "migrate_stress.py": "so does this", "qmp_migrate.py": "so does this", "migrate_lib.py": "what that stands on",
       "daemon_hostile.py": "floods of the unix socket; remote_tls.py floods the listener",
       "daemon_inspect.py": "files of the daemon's own host are damaged; remote_roles.py calls each method",
       "share_server.py": "vmd-share by itself", "snapshot_drill.py": "goes by TLS in a case of its own",
       "daemon_race.py": "about the image locks of emulators",
       "libvirt_*.py": "its clients come by a socket of their own",
       "daemon_clock.py": "the clock jumps by years: certificates end, which remote_tls.py tests"}
WORKERS = 2
LINE = re.compile(r"^(not )?ok\b\s*\d*\s*(?:- )?(.*)$")


def all_are_here():
    """Test files in neither list."""
    known = {name for name, *_ in FILES}
    found = {p.name for p in (TOP / "tests" / "e2e").glob("*.py") if "run_cases" in p.read_text(encoding="utf-8")}
    return sorted(n for n in found - known if not any(fnmatch.fnmatch(n, pattern) for pattern in NOT))


class Files:
    """Those that run now. Ended from outside, each cleans up behind itself, and then its namespaces go."""

    def __init__(self):
        self.lock, self.running, self.ended = threading.Lock(), set(), False

    def begin(self, pair, command):
        with self.lock:
            if self.ended:
                return None
            child = subprocess.Popen(pair.command(__file__, *command), env=pair.environment(), stdin=subprocess.DEVNULL,
                                     stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            self.running.add(child)
            return child

    def over(self, child):
        with self.lock:
            self.running.discard(child)

    def end(self):
        with self.lock:
            self.ended = True
            for child in self.running:
                child.terminate()


FILES_NOW = Files()


def on_term(*_):
    # Not here: the signal may have come while the main thread holds the lock.
    threading.Thread(target=FILES_NOW.end).start()
    sys.exit(143)


def run_file(number, command):
    """(name, exit status, output) of one file, between two namespaces of its own."""
    with far_lib.Pair(number) as pair:
        child = FILES_NOW.begin(pair, command)
        if not child:
            return command[0], 143, ""
        try:
            text = child.communicate()[0]
        finally:
            if child.poll() is None:  # the signal came here
                child.terminate()
                child.wait()
            FILES_NOW.over(child)
    return command[0], child.returncode, text.decode(errors="replace")


def run_all():
    count, bad = 0, 0
    for pattern, why in NOT.items():
        print(f"# not repeated: {pattern}: {why}")
    with concurrent.futures.ThreadPoolExecutor(WORKERS) as pool:
        for name, status, text in pool.map(run_file, range(len(FILES)), FILES):
            failed, seen = 0, 0
            for line in text.splitlines():
                found = LINE.match(line)
                if found:
                    count, seen, failed = count + 1, seen + 1, failed + bool(found[1])
                    print(f"{found[1] or ''}ok {count} - {name}: {found[2]}")
                elif not line.startswith("1.."):
                    print(line if line.startswith("#") else "# " + line)
            if (status and not failed) or not seen:
                count, failed = count + 1, 1
                print(f"not ok {count} - {name} ended with {status} after {seen} cases")
            bad += failed
            sys.stdout.flush()
    strange = all_are_here()
    count += 1
    print(f"{'not ' if strange else ''}ok {count} - every test file runs over TLS or says why not")
    for name in strange:
        print(f"# {name} is not in the list of remote_suite.py")
    print(f"1..{count}")
    return 1 if bad or strange else 0


def main():
    if far_lib.inside():
        sys.argv[:] = sys.argv[1:]
        far_lib.run_suite(sys.argv[0])
        return 0
    signal.signal(signal.SIGTERM, on_term)
    try:
        if sys.argv[1:]:
            name, status, text = run_file(0, sys.argv[1:])
            print(text, end="")
            return status
        with far_lib.Pair():
            pass
        return run_all()
    except far_lib.Missing as problem:
        print(f"1..0 # SKIP {problem}")
        return 0


if __name__ == "__main__":
    sys.exit(main())
