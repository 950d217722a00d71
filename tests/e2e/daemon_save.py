#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Managed save: a VM's state goes to a file and its next start goes on from it, whoever dies meanwhile."""

import os
import random
import subprocess
import sys
import time

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
for folder in (".", "../lib"):
    sys.path.insert(0, os.path.join(HERE, folder))
import daemon_lib as lib  # noqa: E402
import tap  # noqa: E402

VMCTL = os.path.join(lib.BUILD, "vmctl")


def defined(client, daemon, name="a", **more):
    client.call("vm.define", config=daemon.config(name, **more))


def registers(daemon, cpus):
    with daemon.qmp() as q:
        return [q.execute("human-monitor-command", command_line="info registers", cpu_index=i) for i in range(cpus)]


def save(client, name="a"):
    job = client.call("job.wait", job=client.call("vm.save", vm=name)["job"], timeout_ms=120000)
    tap.check(job["state"] == "done", f"{job}")
    return job["result"]


def state_file(daemon):
    found = [os.path.join(folder, "state") for folder, _, names in os.walk(os.path.join(daemon.dir, "lib"))
             if "state" in names]
    return found[0] if found else None


def a_saved_vm_goes_on_with_its_next_start():
    with lib.Daemon() as daemon, daemon.client() as client:
        defined(client, daemon, cpus=2)
        client.call("vm.start", vm="a")
        client.call("vm.pause", vm="a")
        before = registers(daemon, 2)
        result = save(client)
        path = state_file(daemon)
        tap.check(os.path.getsize(path) == result["bytes"] and os.stat(path).st_mode & 0o777 == 0o600, f"{result}")
        vm = client.call("vm.get", vm="a")
        tap.check((vm["state"], vm["saved"], vm["exit"]["reason"]) == ("stopped", True, "saved"), f"{vm}")
        vm = client.call("vm.start", vm="a", paused=True)
        tap.check((vm["state"], vm.get("saved", False)) == ("paused", False), f"{vm}")
        tap.check(registers(daemon, 2) == before, "other registers than were saved")
        tap.check(state_file(daemon) is None, "a state that was taken over is still there")
        client.call("vm.resume", vm="a")
        console = daemon.console("a")
        tap.check(console.read_some(), "the guest does not run")
        console.close()
        save(client)
        tap.check(client.call("vm.start", vm="a")["state"] == "running", "it ran when it was saved")
        client.call("vm.stop", vm="a")
        tap.check(not client.call("vm.get", vm="a").get("saved", False), "a stop saves nothing")


def a_state_is_not_lost_by_mistake():
    with lib.Daemon() as daemon, daemon.client() as client:
        defined(client, daemon)
        client.fails("bad-state", "vm.save", vm="a")
        client.call("vm.start", vm="a")
        save(client)
        client.fails("bad-state", "vm.delete", vm="a")
        daemon.kill()
        daemon.start()
        # a new client: the daemon is another
        with daemon.client() as again:
            tap.check(again.call("vm.get", vm="a")["saved"], "the next daemon does not know of it")
            path = state_file(daemon)
            with open(path, "r+b") as file:
                file.seek(-1, os.SEEK_END)
                last = file.read(1)
                file.seek(-1, os.SEEK_END)
                file.write(bytes([last[0] ^ 1]))
            error = again.fails("invalid-params", "vm.start", vm="a")
            tap.check("seal" in str(error), f"{error}")
            vm = again.call("vm.get", vm="a")
            tap.check((vm["state"], vm["saved"]) == ("stopped", True) and os.path.exists(path), f"{vm}")
            with open(path, "r+b") as file:
                file.seek(-1, os.SEEK_END)
                file.write(last)
            tap.check(again.call("vm.start", vm="a")["state"] == "running", "the mended one is not taken")
            save(again)
            tap.check(again.call("vm.start", vm="a", fresh=True)["state"] == "running", "no fresh start")
            tap.check(state_file(daemon) is None, "the state is still there")
            save(again)
            again.call("vm.delete", vm="a", force=True)
            tap.check(state_file(daemon) is None, "a state without a VM")


def vmctl_saves_and_starts():
    with lib.Daemon() as daemon, daemon.client() as client:
        defined(client, daemon)
        client.call("vm.start", vm="a")
        run = lambda *args: subprocess.run([VMCTL, "--dir", daemon.dir, *args], capture_output=True, text=True,
                                           timeout=120, check=False)
        done = run("save", "a")
        tap.check(done.returncode == 0, f"{done}")
        tap.check(client.call("vm.get", vm="a")["saved"], "not saved")
        done = run("start", "a")
        tap.check(done.returncode == 0 and client.call("vm.get", vm="a")["state"] == "running", f"{done}")


def shutdown_of_the_host_saves_those_that_say_so():
    with lib.Daemon() as daemon:
        with daemon.client() as client:
            defined(client, daemon, host_shutdown={"mode": "save"})
            client.call("vm.start", vm="a")
            out = client.call("host.shutdown")
            tap.check(out["stopped"] == ["a"] and not out["forced"], f"{out}")
        tap.check(daemon.process.wait(60) == 0, "the daemon stays")
        daemon.start()
        with daemon.client() as client:
            vm = client.call("vm.get", vm="a")
            tap.check((vm["state"], vm["saved"], vm["exit"]["reason"]) == ("stopped", True, "saved"), f"{vm}")
            client.call("vm.start", vm="a")
            console = daemon.console("a")
            tap.check(console.read_some(), "the guest does not run")
            console.close()


def whoever_dies_there_is_one_machine():
    """vmd is killed at a random moment of saving and of starting again: the VM lives or its state is there, never neither."""
    seed = int(os.environ.get("VMD_TEST_SEED", random.randrange(1 << 30)))
    print(f"# seed {seed}")
    rng = random.Random(seed)
    with lib.Daemon() as daemon:
        with daemon.client() as client:
            defined(client, daemon)
            client.call("vm.start", vm="a")
        ends = {"live": 0, "saved": 0}
        for number in range(12):
            with daemon.client() as client:
                if client.call("vm.get", vm="a")["state"] == "paused":
                    client.call("vm.resume", vm="a")
                client.send("vm.save" if number % 2 == 0 else "vm.start", vm="a")
                time.sleep(rng.random() * 0.15)
                daemon.kill()
            daemon.start()
            with daemon.client() as client:
                def settled():  # both at a time must come to an end, neither never is
                    vm = client.call("vm.get", vm="a")
                    if vm.get("pid"):
                        return vm["state"] in ("running", "paused") and not vm.get("saved", False)
                    return vm["state"] in ("stopped", "crashed")
                lib.wait_for(settled, 40, "the VM settles")
                vm = client.call("vm.get", vm="a")
                live = vm["state"] in ("running", "paused")
                tap.check(live != vm.get("saved", False), f"round {number}: {vm}")
                tap.check((state_file(daemon) is not None) == (not live), f"round {number}: {vm}, {state_file(daemon)}")
                ends["live" if live else "saved"] += 1
                if not live and number % 2 == 0:
                    continue
                if not live:
                    client.call("vm.start", vm="a")
        print(f"# {ends}")


if __name__ == "__main__":
    sys.exit(tap.run_cases([a_saved_vm_goes_on_with_its_next_start, a_state_is_not_lost_by_mistake,
                            vmctl_saves_and_starts, shutdown_of_the_host_saves_those_that_say_so,
                            whoever_dies_there_is_one_machine]))
