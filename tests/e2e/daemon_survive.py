# SPDX-License-Identifier: Apache-2.0
"""VMs outlive the daemon: killed, ended, doubled, with emulators that end or hang meanwhile."""

import os
import signal
import subprocess
import sys
import time

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
sys.path.insert(0, os.path.join(HERE, "..", "lib"))
import daemon_lib as lib  # noqa: E402
import tap  # noqa: E402


def states(daemon):
    return {vm["name"]: vm["state"] for vm in daemon.call("vm.list")["vms"]}


def start_two(daemon):
    with daemon.client() as client:
        for name in ("a", "b"):
            client.call("vm.define", config=daemon.config(name))
            client.call("vm.start", vm=name)
        return {vm["name"]: vm["pid"] for vm in client.call("vm.list")["vms"]}


def vms_run_on_when_vmd_is_killed_and_are_taken_up_again():
    with lib.Daemon() as daemon:
        pids = start_two(daemon)
        console = daemon.console("a")
        console.read_some()
        daemon.kill()
        tap.check(all(map(lib.alive, pids.values())), "an emulator died with the daemon")
        daemon.start()
        vms = daemon.call("vm.list", stats=True)["vms"]
        tap.check({vm["name"]: vm.get("pid") for vm in vms} == pids, f"other processes: {vms}")
        tap.check([vm["state"] for vm in vms] == ["running", "running"], f"not running: {vms}")
        tap.check(all("stats" in vm for vm in vms), "statistics are gone")
        console.close()
        console = daemon.console("a")
        tap.check(console.read_some(), "there is no console any more")
        tap.check(daemon.call("vm.pause", vm="a")["state"] == "paused", "cannot be paused")
        tap.check(daemon.call("vm.stop", vm="b")["exit"]["reason"] == "quit", "not stopped")
        console.close()


@tap.local("a console over TLS goes through the daemon and ends with it")
def consoles_outlive_the_daemon():
    with lib.Daemon() as daemon:
        start_two(daemon)
        console = daemon.console("a")
        console.read_some()
        daemon.kill()
        console.drain()
        tap.check(console.read_some(), "the console ended with the daemon")
        daemon.start()
        console.drain()
        tap.check(console.read_some(), "the console ended with the new daemon")
        console.close()


def later_exit_is_recorded_although_nobody_watched():
    with lib.Daemon() as daemon:
        pids = start_two(daemon)
        daemon.kill()
        os.kill(pids["a"], signal.SIGKILL)
        lib.wait_for(lambda: not lib.alive(pids["a"]), what="the emulator is dead")
        daemon.start()
        vm = lib.wait_for(lambda: [v for v in daemon.call("vm.list")["vms"] if v["name"] == "a"
                                   and v["state"] == "crashed"], what="crashed")[0]
        tap.check(vm["exit"]["signal"] == 9 and vm["exit"]["reason"] == "crashed", f"{vm}")
        tap.check(states(daemon)["b"] == "running", "the other one was touched")
        # And one that ends after it was taken up again.
        os.kill(pids["b"], signal.SIGKILL)
        out = daemon.call("vm.wait", vm="b", timeout_ms=20000)
        tap.check(out["state"] == "crashed" and out["exit"]["signal"] == 9, f"{out}")


def emulator_of_another_protocol_version_is_taken_up_and_controlled():
    with lib.Daemon(emulator=lib.FAKE) as daemon:
        with daemon.client() as client:
            client.call("vm.define", config=daemon.config("a", kernel=daemon.guest(),
                                                          append="other-version"))
            pid = client.call("vm.start", vm="a")["pid"]
        daemon.kill()
        daemon.start()
        vm = daemon.call("vm.get", vm="a")
        tap.check(vm["state"] == "running" and vm["pid"] == pid, f"{vm}")
        tap.check(daemon.call("vm.pause", vm="a")["state"] == "paused", "cannot be paused")
        tap.check(daemon.call("vm.stop", vm="a")["exit"]["reason"] == "quit", "cannot be stopped")


def console_log_outlives_daemon_and_run_and_a_start_keeps_the_former_one():
    with lib.Daemon() as daemon:
        with daemon.client() as client:
            client.call("vm.define", config=daemon.config("a", firmware=daemon.guest(
                "first", b"first")))
            client.call("vm.start", vm="a")
            log = client.call("vm.console", vm="a")["log"]
        lib.wait_for(lambda: os.path.getsize(log), what="output in the log")
        daemon.kill()
        size = os.path.getsize(log)
        lib.wait_for(lambda: os.path.getsize(log) > size, what="output without a daemon")
        daemon.start()
        with daemon.client() as client:
            client.call("vm.stop", vm="a")
            with open(log, "rb") as file:
                former = file.read()
            tap.check(former.startswith(b"first"), f"{former[:20]}")
            client.call("vm.start", vm="a")
            with open(log + ".1", "rb") as file:
                tap.check(file.read() == former, "the former run's log is gone")
            client.call("vm.delete", vm="a", force=True)
            tap.check(not os.path.exists(log) and not os.path.exists(log + ".1"), "logs are left")


def power_off_between_two_daemons_is_an_orderly_end():
    with lib.Daemon() as daemon:
        config = daemon.config("a", firmware=daemon.guest("off"))
        with daemon.client() as client:
            client.call("vm.define", config=config)
            pid = client.call("vm.start", vm="a", paused=True)["pid"]
            number = client.send("vm.resume", vm="a")
        daemon.kill()
        lib.wait_for(lambda: not lib.alive(pid) or daemon.emulators(), what="the race is over")
        time.sleep(0.2)
        daemon.start()
        del number
        vm = daemon.call("vm.get", vm="a")
        if vm["state"] == "paused":  # the request never reached the emulator
            daemon.call("vm.resume", vm="a")
        out = daemon.call("vm.wait", vm="a", timeout_ms=20000)
        tap.check(out["state"] == "stopped" and out["exit"]["reason"] == "poweroff", f"{out}")


def transient_vm_goes_when_it_ends_also_without_a_daemon():
    with lib.Daemon() as daemon:
        with daemon.client() as client:
            job = client.call("vm.create", config=daemon.config("a"), transient=True)["job"]
            tap.check(client.call("job.wait", job=job)["state"] == "done", "not started")
            pid = client.call("vm.get", vm="a")["pid"]
        daemon.kill()
        os.kill(pid, signal.SIGKILL)
        lib.wait_for(lambda: not lib.alive(pid), what="the emulator is dead")
        daemon.start()
        lib.wait_for(lambda: not states(daemon), what="the definition is gone")
        kinds = [e["type"] for e in daemon.call("event.list", limit=1000)["events"]]
        tap.check(kinds.count("vm-deleted") == 1, f"events: {kinds}")


def vms_run_on_when_vmd_ends_orderly():
    with lib.Daemon() as daemon:
        pids = start_two(daemon)
        tap.check(daemon.terminate() == 0, "exit status")
        tap.check(all(map(lib.alive, pids.values())), "an emulator ended with the daemon")
        tap.check(not os.path.exists(daemon.sock), "the socket was left")
        daemon.start()
        tap.check(states(daemon) == {"a": "running", "b": "running"}, f"{states(daemon)}")


def spawner_death_touches_no_vm():
    with lib.Daemon() as daemon:
        pids = start_two(daemon)
        os.kill(daemon.helper(), signal.SIGKILL)
        time.sleep(0.05)
        tap.check(all(map(lib.alive, pids.values())), "an emulator died with the helper")
        daemon.call("vm.define", config=daemon.config("c"))

        def started():
            try:
                return daemon.call("vm.start", vm="c")["state"] == "running"
            except lib.CallError:
                return False
        lib.wait_for(started, what="a VM is started by the next helper")


def second_daemon_is_refused_and_told_who_has_the_store():
    with lib.Daemon() as daemon:
        start_two(daemon)
        run = subprocess.run(daemon.command(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                             text=True, timeout=30, check=False)
        tap.check(run.returncode == 1, f"exit status {run.returncode}")
        tap.check(f"pid {daemon.process.pid}" in run.stdout, f"no pid in {run.stdout!r}")
        tap.check(states(daemon) == {"a": "running", "b": "running"}, "the first one suffers")


def stopped_emulator_hangs_nobody_and_can_be_killed():
    with lib.Daemon() as daemon:
        pids = start_two(daemon)
        os.kill(pids["a"], signal.SIGSTOP)
        lib.wait_for(lambda: states(daemon)["a"] == "unresponsive", what="unresponsive")
        with daemon.client() as client:
            vms = client.call("vm.list", stats=True)["vms"]
            tap.check([vm["state"] for vm in vms] == ["unresponsive", "running"], f"{vms}")
            client.call("vm.pause", vm="b")
            out = client.call("vm.stop", vm="a", force=True)
            tap.check(out["state"] == "stopped" and out["exit"]["reason"] == "killed", f"{out}")
        tap.check(not lib.alive(pids["a"]), "still alive")


def stopped_emulator_is_listed_unresponsive_after_a_restart_and_recovers():
    with lib.Daemon() as daemon:
        pids = start_two(daemon)
        os.kill(pids["a"], signal.SIGSTOP)
        daemon.kill()
        daemon.start(settle=False)
        tap.check(states(daemon)["a"] == "unresponsive", f"{states(daemon)}")
        lib.wait_for(lambda: states(daemon)["b"] == "running", what="the other one is back")
        os.kill(pids["a"], signal.SIGCONT)
        lib.wait_for(lambda: states(daemon)["a"] == "running", what="it answers again")


def monitor_death_loses_the_record_only():
    with lib.Daemon() as daemon:
        pids = start_two(daemon)
        with open(f"/proc/{pids['a']}/status", encoding="ascii", errors="replace") as file:
            parent = int([ln for ln in file if ln.startswith("PPid:")][0].split()[1])
        os.kill(parent, signal.SIGKILL)
        time.sleep(0.1)
        tap.check(states(daemon)["a"] == "running", f"{states(daemon)}")
        os.kill(pids["a"], signal.SIGKILL)
        out = daemon.call("vm.wait", vm="a", timeout_ms=20000)
        tap.check(out["exit"]["reason"] == "lost", f"{out}")


def no_emulator_has_more_than_it_needs():
    with lib.Daemon() as daemon:
        pids = start_two(daemon)
        layers = {x["name"]: x for x in daemon.call("host.capabilities")["sandbox"]}
        with open(f"/proc/{pids['a']}/status", encoding="ascii", errors="replace") as file:
            status = dict(ln.split(":", 1) for ln in file.read().splitlines() if ":" in ln)
        tap.check(layers["no-new-privs"]["active"] and status["NoNewPrivs"].strip() == "1",
                  "no_new_privs")
        tap.check(int(status["CapEff"], 16) == 0 and int(status["CapPrm"], 16) == 0,
                  "capabilities are left")
        for layer, name in (("user", "user"), ("net-namespace", "net"), ("pid-namespace", "pid"),
                            ("ipc-namespace", "ipc"), ("mount-namespace", "mnt")):
            if layers[layer]["active"]:
                tap.check(os.readlink(f"/proc/{pids['a']}/ns/{name}") !=
                          os.readlink(f"/proc/self/ns/{name}"), f"{layer} is the host's")
            else:
                tap.check(layers[layer].get("reason"), f"{layer} is missing without a reason")
        if layers["empty-root"]["active"] and os.geteuid() == 0:
            top = set(os.listdir(f"/proc/{pids['a']}/root"))
            tap.check(top <= {"usr", "lib", "lib64"}, f"the root folder holds {top}")
        if os.geteuid() == 0:
            links = [os.readlink(f"/proc/{pids['a']}/fd/{n}")
                     for n in os.listdir(f"/proc/{pids['a']}/fd")]
            tap.check(not [x for x in links if x.endswith("vmd.db") or "vmd.sock" in x],
                      f"descriptors of the daemon leaked: {links}")


def layers_that_are_missing_are_named_and_vms_run_without():
    script = "echo 0 > /proc/sys/user/max_user_namespaces && exec \"$@\""
    wrapper = ["unshare", "--user", "--map-root-user", "sh", "-c", script, "sh"]
    try:
        subprocess.run([*wrapper, "true"], check=True, stdout=subprocess.PIPE,
                       stderr=subprocess.PIPE)
    except (OSError, subprocess.CalledProcessError) as problem:
        raise tap.Skip(f"a user namespace to be without another in ({problem})") from problem
    with lib.Daemon(wrapper=wrapper) as daemon:
        layers = {x["name"]: x for x in daemon.call("host.capabilities")["sandbox"]}
        tap.check(not layers["user"]["active"] and layers["user"]["reason"], f"{layers}")
        start_two(daemon)
        with daemon.client() as client:
            tap.check(client.call("vm.get", vm="a")["state"] == "running", "does not run")
            client.call("vm.stop", vm="a")


if __name__ == "__main__":
    if not os.access(os.path.join(lib.BUILD, "vmd-emu"), os.X_OK):
        print("skipped: vmd-emu is not built")
        sys.exit(77)
    sys.exit(tap.run_cases([
        vms_run_on_when_vmd_is_killed_and_are_taken_up_again,
        consoles_outlive_the_daemon,
        later_exit_is_recorded_although_nobody_watched,
        emulator_of_another_protocol_version_is_taken_up_and_controlled,
        console_log_outlives_daemon_and_run_and_a_start_keeps_the_former_one,
        power_off_between_two_daemons_is_an_orderly_end,
        transient_vm_goes_when_it_ends_also_without_a_daemon,
        vms_run_on_when_vmd_ends_orderly,
        spawner_death_touches_no_vm,
        second_daemon_is_refused_and_told_who_has_the_store,
        stopped_emulator_hangs_nobody_and_can_be_killed,
        stopped_emulator_is_listed_unresponsive_after_a_restart_and_recovers,
        monitor_death_loses_the_record_only,
        no_emulator_has_more_than_it_needs,
        layers_that_are_missing_are_named_and_vms_run_without,
    ]))
