# SPDX-License-Identifier: Apache-2.0
"""VMs are defined, started, stopped and deleted again and again: no descriptor, process, socket, file, folder of a
jail, control group or memory is left.

    daemon_cycles.py [--seed N] [--from N] [--count N]      lifecycles FROM to FROM + COUNT - 1 of a seed; 1,000 by default
"""

import argparse
import json
import os
import random
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
    """Files and folders; the store's own and the log of the daemon are its business."""
    found = []
    for base, folders, names in os.walk(folder):
        found += [os.path.join(base, name) for name in names + folders]
    return sorted(name for name in found if not name.endswith(("-wal", "-shm", "vmd.log")))


def sockets(folder):
    """Unix sockets bound below the folder, as the kernel knows them."""
    with open("/proc/net/unix", encoding="ascii", errors="replace") as file:
        return sorted(line.split()[-1] for line in file if folder in line)


def groups(pid):
    """Control groups of VMs below the daemon's own."""
    with open(f"/proc/{pid}/cgroup", encoding="ascii", errors="replace") as file:
        own = [line.strip()[3:] for line in file if line.startswith("0::")]
    base = "/sys/fs/cgroup" + own[0] if own else "/nowhere"
    return sorted(name for name in (os.listdir(base) if os.path.isdir(base) else ()) if name.startswith("vm-"))


def mounts(pid, folder):
    """Of the daemon's own: others make mounts on this machine meanwhile."""
    with open(f"/proc/{pid}/mountinfo", encoding="ascii", errors="replace") as file:
        return [line for line in file if folder in line]


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
        "sockets": sockets(daemon.dir),
        "mounts": mounts(pid, daemon.dir),
        "control groups": groups(pid),
    }


def memory(pid):
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
        for line in file:
            if line.startswith("Private_Dirty"):
                return int(line.split()[1]) * 1024
    return 0


def journal(client, after):
    """(newest number, bytes that the events beyond `after` take in the journal): their text and what an
    allocation and the entry cost."""
    size = 0
    while True:
        page = client.call("event.list", after=after, limit=1000)
        size += sum(len(json.dumps(event)) + 64 for event in page["events"])
        if page["cursor"] == after:
            return after, size
        after = page["cursor"]


def pause_or_not(client, name, rnd):
    if rnd.random() < 0.3:
        client.call("vm.pause", vm=name)
        if rnd.random() < 0.7:
            client.call("vm.resume", vm=name)


def transient_life(client, daemon, name, rnd):
    """Made and started by one call; its end is its deletion."""
    job = client.call("vm.create", config=daemon.config(name), transient=True)
    done = client.call("job.wait", job=job["job"])
    tap.check(done["state"] == "done", f"{done}")
    pause_or_not(client, name, rnd)
    client.call("vm.stop", vm=name, force=rnd.random() < 0.5)


def life(client, daemon, seed, number):
    """Lifecycle NUMBER of a seed: define, start, stop or kill or be killed, delete."""
    rnd = random.Random(seed << 32 | number)
    name, way = f"l{number}", rnd.randrange(6)
    if way == 0:
        transient_life(client, daemon, name, rnd)
        return
    client.call("vm.define", config=daemon.config(name))
    paused = rnd.random() < 0.2
    pid = client.call("vm.start", vm=name, paused=paused)["pid"]
    if not paused:
        pause_or_not(client, name, rnd)
    if way == 1:
        lib.kill(pid)
        client.call("vm.wait", vm=name, timeout_ms=30000)
    elif way != 2:
        client.call("vm.stop", vm=name, force=way == 3)
    client.call("vm.delete", vm=name, force=way == 2)


def fill_tables(client, daemon):
    """What the daemon keeps up to a bound, the last 10,000 events and 1,000 jobs, is full from the start."""
    config = daemon.config("filler")
    for _ in range(1000):
        job = client.call("vm.create", config=config, transient=True)["job"]
        tap.check(client.call("job.wait", job=job)["state"] == "done", "not started")
        client.call("vm.stop", vm="filler", force=True)
    client.call("vm.define", config=config)
    while client.call("event.list", limit=1)["newest"] < 11000:
        for name in ("filled", "filler"):
            client.call("vm.rename", vm="filler" if name == "filled" else "filled", name=name)
    client.call("vm.delete", vm="filler")


def cycles(seed, first, count):
    with lib.Daemon() as daemon, daemon.client(120) as client:
        daemon.config("a")
        if count >= 1000:
            fill_tables(client, daemon)
        for number in range(12):
            life(client, daemon, seed, (1 << 31) + number)
        lib.wait_for(lambda: not daemon.emulators(), what="the emulators have ended")
        before, dirty = inventory(daemon), memory(daemon.process.pid)
        newest = client.call("event.list", limit=1)["newest"]
        for number in range(first, first + count):
            life(client, daemon, seed, number)
            if number % 1000 == 999:
                print(f"# {number + 1}: {memory(daemon.process.pid) - dirty >> 10} KiB", flush=True)

        def same():
            return inventory(daemon) == before
        try:
            lib.wait_for(same, 20, "nothing is left")
        except AssertionError as problem:
            raise AssertionError(f"{problem}: {before}\n{inventory(daemon)}") from problem
        grown = memory(daemon.process.pid) - dirty
        # The tables of events and jobs grow up to their bounds, the rest by nothing.
        last, kept = (client.call("event.list", limit=1)["newest"], 0) if count >= 1000 else journal(client, newest)
        kept += 0 if count >= 1000 else 3072 * count // 6
        print(f"# {count} lives from {first}, {last - newest} events; {grown >> 10} KiB more private memory, "
              f"{kept >> 10} KiB of tables that grow to a bound")
        tap.check(lib.sanitized() or grown < (1 << 20) + kept, f"{grown} bytes more after {count} lives")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=int(os.environ.get("VMD_TEST_SEED") or 1))
    parser.add_argument("--from", dest="first", type=int, default=0)
    parser.add_argument("--count", type=int, default=1000)
    args = parser.parse_args()
    if not os.access(os.path.join(lib.BUILD, "vmd-emu"), os.X_OK):
        print("skipped: vmd-emu is not built")
        return 77
    sys.argv[1:] = []

    print(f"# seed {args.seed}", flush=True)

    def lives_of_vms_leave_no_descriptor_process_socket_file_or_group():
        cycles(args.seed, args.first, args.count)
    return tap.run_cases([lives_of_vms_leave_no_descriptor_process_socket_file_or_group])


if __name__ == "__main__":
    sys.exit(main())
