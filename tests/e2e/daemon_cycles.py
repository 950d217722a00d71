# SPDX-License-Identifier: Apache-2.0
"""Start and stop again and again: no descriptor, process, file or memory is left.

    daemon_cycles.py [--count N]      200 cycles by default
"""

import argparse
import os
import sys

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
sys.path.insert(0, os.path.join(HERE, "..", "lib"))
import daemon_lib as lib  # noqa: E402
import tap  # noqa: E402


def children(pid):
    """Processes below pid, with those that a monitor holds."""
    parents = {}
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{entry}/stat", encoding="ascii", errors="replace") as file:
                fields = file.read().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if fields[0] not in "ZX" or int(fields[1]) != 1:
            parents.setdefault(int(fields[1]), []).append(int(entry))
    found, todo = [], [pid]
    while todo:
        below = parents.get(todo.pop(), [])
        found += below
        todo += below
    return sorted(found)


def files(folder):
    found = []
    for base, _, names in os.walk(folder):
        found += [os.path.join(base, name) for name in names]
    return sorted(name for name in found if not name.endswith(("-wal", "-shm", "vmd.log")))


def inventory(daemon):
    """What must be the same before and after."""
    pid = daemon.process.pid
    below = children(pid)
    return {
        "descriptors": len(os.listdir(f"/proc/{pid}/fd")),
        "descriptors of vmd-spawn": [len(os.listdir(f"/proc/{p}/fd")) for p in below],
        "processes": len(below),
        "threads": len(os.listdir(f"/proc/{pid}/task")),
        "files": files(daemon.dir),
    }


def memory(pid):
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
        for line in file:
            if line.startswith("Private_Dirty"):
                return int(line.split()[1]) * 1024
    return 0


def cycle(client, config, number):
    """One life; four ways to end it in turn."""
    name = config["name"]
    way = number % 4
    if way == 3:
        job = client.call("vm.create", config={**config, "name": f"t{number}"}, transient=True)
        done = client.call("job.wait", job=job["job"])
        tap.check(done["state"] == "done", f"{done}")
        client.call("vm.stop", vm=f"t{number}", force=True)
        return
    client.call("vm.start", vm=name)
    if way == 2:
        client.call("vm.pause", vm=name)
        client.call("vm.resume", vm=name)
    client.call("vm.stop", vm=name, force=way == 1)


def cycles(count):
    with lib.Daemon() as daemon, daemon.client(120) as client:
        config = daemon.config("a")
        client.call("vm.define", config=config)
        for number in range(8):
            cycle(client, config, number)
        lib.wait_for(lambda: not daemon.emulators(), what="the emulators have ended")
        before, dirty = inventory(daemon), memory(daemon.process.pid)
        for number in range(count):
            cycle(client, config, number)

        def same():
            return inventory(daemon) == before
        try:
            lib.wait_for(same, 20, "nothing is left")
        except AssertionError as problem:
            raise AssertionError(f"{problem}: {before}\n{inventory(daemon)}") from problem
        grown = memory(daemon.process.pid) - dirty
        # The journal of events grows up to its bound: some 600 bytes each.
        events = client.call("event.list", limit=1)["newest"]
        print(f"# {count} cycles, {events} events, {grown >> 10} KiB more private memory")
        with open(f"/proc/{daemon.process.pid}/maps", encoding="ascii", errors="replace") as file:
            sanitized = "libasan" in file.read()  # it keeps what was freed for a while
        tap.check(sanitized or grown < (1 << 20) + 1000 * events, f"{grown} bytes more after {count} cycles")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=200)
    args = parser.parse_args()
    if not os.access(os.path.join(lib.BUILD, "vmd-emu"), os.X_OK):
        print("skipped: vmd-emu is not built")
        return 77
    sys.argv[1:] = []

    def start_stop_cycles_leave_no_descriptor_process_or_file():
        cycles(args.count)
    return tap.run_cases([start_stop_cycles_leave_no_descriptor_process_or_file])


if __name__ == "__main__":
    sys.exit(main())
