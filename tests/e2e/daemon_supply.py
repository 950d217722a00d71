# SPDX-License-Identifier: Apache-2.0
"""Configuration file, profiles, quotas, placement, limits by control groups, host info."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
sys.path.insert(0, os.path.join(HERE, "..", "lib"))
import daemon_lib as lib  # noqa: E402
import tap  # noqa: E402


def configured(text, emulator=lib.FAKE):
    daemon = lib.Daemon(emulator=emulator)
    with open(os.path.join(daemon.dir, "vmd.conf"), "w", encoding="utf-8") as file:
        file.write(text.format(dir=daemon.dir))
    return daemon


@tap.local("the configuration file, no call")
def configuration_that_cannot_be_understood_is_refused_by_its_line():
    cases = (("nonsense = 1\n", "vmd.conf:1: unknown setting 'nonsense'"),
             ("# fine\n\n  socket\n", "vmd.conf:3: expected 'name = value'"),
             ("require-sandbox = maybe\n", "vmd.conf:1: 'require-sandbox' is on or off"),
             ("memory-overcommit = 12x\n", "vmd.conf:1: "),
             ("cpu-overcommit = -1\n", "vmd.conf:1: "),
             ("store =\n", "vmd.conf:1: 'store' has no value"),
             ("plugin-dir = /proc/none\n", "vmd.conf:1: --plugin-dir"),
             ("log = a\0b\n", "is no text"), ("x" * 70000, "vmd.conf"))
    for text, expected in cases:
        daemon = configured(text.replace("{", "{{"))
        done = subprocess.run(daemon.command(), capture_output=True, text=True, timeout=60,
                              stdin=subprocess.DEVNULL, check=False)
        tap.check(done.returncode == 2 and expected in done.stderr, f"{text[:40]!r}: {done}")
        daemon.end()


@tap.local("unix sockets by their options")
def command_line_wins_over_the_configuration():
    with configured("# a comment\nsocket-ro = {dir}/ro.sock\nemulator = /nonexistent\n") as daemon:
        with lib.Client(os.path.join(daemon.dir, "ro.sock")) as client:
            client.fails("denied", "vm.define", config=daemon.config("a"))
        tap.check(daemon.call("host.capabilities")["emulator"] == lib.FAKE, "the file won")


def profiles_give_what_a_definition_leaves_out_a_later_one_over_an_earlier_one():
    with lib.Daemon(emulator=lib.FAKE) as daemon, daemon.client() as client:
        client.call("profile.set", name="small", set={"cpus": 2, "memory": 32 * lib.MIB,
                                                      "restart": {"mode": "always"}})
        client.call("profile.set", name="quiet", doc="no devices", set={"cpus": 3, "rng": False})
        minimal = {"firmware": daemon.guest()}
        vm = client.call("vm.define", config={"name": "a", **minimal}, profiles=["small", "quiet"])
        config = vm["config"]
        tap.check((config["cpus"], config["memory"], config["rng"], config["restart"]["mode"])
                  == (3, 32 * lib.MIB, False, "always"), f"{config}")
        vm = client.call("vm.define", config={"name": "b", "cpus": 1, **minimal},
                         profiles=["small"])
        tap.check(vm["config"]["cpus"] == 1, "the profile won over the definition")
        client.call("profile.set", name="small", set={"cpus": 4})
        tap.check(client.call("vm.get", vm="a")["config"]["cpus"] == 3, "a VM was changed later")
        error = client.fails("not-found", "vm.define", config={"name": "c", **minimal},
                             profiles=["small", "none"])
        tap.check(error.object == "none", error.object)
        client.fails("invalid-params", "profile.set", name="bad", set={"project": "x"})
        client.fails("invalid-params", "profile.set", name="bad", set={"cpus": 0})
        client.call("profile.delete", name="quiet")
        client.fails("not-found", "profile.delete", name="quiet")
        daemon.kill()
        daemon.start()
        listed = daemon.call("profile.list")["profiles"]
        tap.check([(p["name"], p["set"]) for p in listed] == [("small", {"cpus": 4})], f"{listed}")


def quota_of_a_project_bounds_what_is_defined_in_it():
    with lib.Daemon(emulator=lib.FAKE) as daemon:
        with daemon.client() as client:
            client.call("quota.set", project="default", vms=3, cpus=4, memory=64 * lib.MIB)
            numbers = [client.send("vm.define", config=daemon.config(f"vm{n}")) for n in range(5)]
            done = 0
            for number in numbers:
                try:
                    client.answer(number)
                    done += 1
                except lib.CallError as error:
                    tap.check(error.error == "quota-exceeded" and "VMs: at most 3" in error.message,
                              str(error))
            tap.check(done == 3, f"{done} VMs where 3 may be")
            error = client.fails("quota-exceeded", "vm.set", vm="vm0",
                                 set={"cpus": 3, "memory": 64 * lib.MIB})
            tap.check("vCPUs" in error.message and "memory" in error.message, str(error))
            client.call("vm.set", vm="vm0", set={"cpus": 2, "memory": 32 * lib.MIB})
            client.fails("quota-exceeded", "vm.create", config=daemon.config("other"))
            # Beyond a bound that came later nothing grows, and what shrinks is let through.
            client.call("quota.set", project="default", cpus=1)
            client.fails("quota-exceeded", "vm.set", vm="vm0", set={"cpus": 3})
            client.call("vm.set", vm="vm0", set={"cpus": 1})
        daemon.kill()
        daemon.start()
        quota = daemon.call("quota.list")["quotas"][0]
        tap.check((quota["project"], quota["cpus"], quota["used_vms"], quota["used_cpus"],
                   "vms" in quota) == ("default", 1, 3, 3, False), f"{quota}")


def start_beyond_the_overcommit_is_refused_with_every_reason():
    cpus = os.sysconf("SC_NPROCESSORS_ONLN")
    with configured("cpu-overcommit = 100\nmemory-overcommit = 50\n") as daemon:
        with daemon.client() as client:
            for name in ("a", "b"):
                client.call("vm.define", config=daemon.config(name, cpus=cpus))
            client.call("vm.start", vm="a")
            error = client.fails("host-limit", "vm.start", vm="b")
            tap.check(f"vCPUs: at most {cpus}, in use {cpus}, wanted {cpus}" in error.message,
                      str(error))
            total = client.call("host.info")["memory"]
            client.call("vm.set", vm="b", set={"memory": total * 6 // 10 // 4096 * 4096})
            error = client.fails("host-limit", "vm.start", vm="b")
            tap.check("vCPUs" in error.message and "memory" in error.message, str(error))
            info = client.call("host.info")
            tap.check((info["cpus_used"], info["memory_used"], info["cpu_overcommit"])
                      == (cpus, 16 * lib.MIB, 100), f"{info}")
            client.call("vm.set", vm="b", set={"memory": 16 * lib.MIB})
            client.call("vm.stop", vm="a")
            client.call("vm.start", vm="b")


def limits_are_written_to_the_control_group_before_the_emulator_runs():
    """A plain folder stands for the kernel's: the same files get the same text."""
    with configured("cgroup = {dir}/group\n") as daemon:
        group = os.path.join(daemon.dir, "group")
        daemon.terminate()
        os.mkdir(group)
        daemon.start()
        limits = {"cpu_percent": 150, "cpu_weight": 50, "memory_max": 256 * lib.MIB,
                  "io_weight": 200, "pids_max": 64}

        def text(name):
            with open(os.path.join(group, "vm-1", name), encoding="ascii") as file:
                return file.read()
        with daemon.client() as client:
            client.call("vm.define", config=daemon.config("a", limits=limits))
            pid = client.call("vm.start", vm="a")["pid"]
            found = {name: text(name) for name in ("cpu.max", "cpu.weight", "memory.max",
                                                   "io.weight", "pids.max", "cgroup.procs")}
            tap.check(found == {"cpu.max": "150000 100000", "cpu.weight": "50",
                                "memory.max": str(256 * lib.MIB), "io.weight": "200",
                                "pids.max": "64", "cgroup.procs": str(pid)}, f"{found}")
            client.call("vm.set", vm="a", set={"limits": {"memory_max": 512 * lib.MIB}})
            tap.check((text("memory.max"), text("cpu.max")) == (str(512 * lib.MIB),
                                                                "150000 100000"), "not at once")
            client.call("vm.set", vm="a", set={"limits": None})
            tap.check((text("memory.max"), text("cpu.max"), text("cpu.weight"))
                      == ("max", "max", "100"), "limits stay")
            tap.check(client.call("host.info")["cgroup"] == group, "another group")


def limits_hold_in_the_kernel_where_vmd_has_control_groups():
    with lib.Daemon(emulator=lib.FAKE) as daemon, daemon.client() as client:
        where = client.call("host.info")["cgroup"]
        if not where.startswith("/"):
            raise tap.Skip(where)
        client.call("vm.define", config=daemon.config("a", limits={"pids_max": 77}))
        pid = client.call("vm.start", vm="a")["pid"]
        with open(f"/proc/{pid}/cgroup", encoding="ascii") as file:
            tap.check(file.read().rstrip().endswith("/vm-1"), "not in its group")
        with open(os.path.join(where, "vm-1", "pids.max"), encoding="ascii") as file:
            tap.check(file.read() == "77\n", "another limit")
        client.call("vm.stop", vm="a")
        tap.check(not os.path.exists(os.path.join(where, "vm-1")), "the group is left")


def run_in_group(group, *command):
    """A process of ours in a control group."""
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    with open(os.path.join(group, "cgroup.procs"), "w", encoding="ascii") as file:
        file.write(str(process.pid))
    return process


@tap.local("control groups of the host")
def forced_stop_ends_all_of_a_vm_in_a_real_control_group():
    """A hierarchy of version 2 is mounted for this daemon alone; which controllers it has does not matter."""
    daemon = lib.Daemon()
    mount = tempfile.mkdtemp(prefix="vmd-cg-", dir="/tmp")
    name = "vmd-test-" + os.path.basename(daemon.dir)
    script = f"mount -t cgroup2 none {mount} && mkdir -p {mount}/{name} && exec \"$@\""
    daemon.wrapper = ["unshare", "--mount", "sh", "-c", script, "sh"]
    try:
        subprocess.run([*daemon.wrapper, "rmdir", f"{mount}/{name}"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as problem:
        daemon.end()
        os.rmdir(mount)
        raise tap.Skip(f"a control group of version 2 ({problem})") from problem
    with open(os.path.join(daemon.dir, "vmd.conf"), "w", encoding="ascii") as file:
        file.write(f"cgroup = {mount}/{name}\n")
    strangers = []
    try:
        with daemon, daemon.client() as client:
            root = f"/proc/{daemon.process.pid}/root{mount}/{name}"
            group = root + "/vm-1"
            client.call("vm.define", config=daemon.config("a", limits={}))
            for how in ("stopped", "frozen", "orderly", "ends by itself"):
                pid = client.call("vm.start", vm="a")["pid"]
                with open(f"{group}/cgroup.procs", encoding="ascii") as file:
                    tap.check(file.read().split() == [str(pid)], "the emulator is not in its group")
                strangers.append(run_in_group(group, "sleep", "1000"))
                if how == "stopped":
                    os.kill(pid, signal.SIGSTOP)
                elif how == "frozen":
                    with open(f"{group}/cgroup.freeze", "w", encoding="ascii") as file:
                        file.write("1")
                if how == "ends by itself":
                    lib.kill(pid)
                    client.call("vm.wait", vm="a", timeout_ms=30000)
                else:
                    client.call("vm.stop", vm="a", force=how != "orderly")
                tap.check(not lib.alive(pid), f"{how}: the emulator lives")
                tap.check(strangers[-1].wait(20) == -signal.SIGKILL, f"{how}: another process lives")
                tap.check(not os.path.exists(group), f"{how}: the group is left")
        # Of the daemon itself: the leaf that it went into, as long as it lives.
        subprocess.run([*daemon.wrapper, "sh", "-c", f"rmdir {mount}/{name}/vmd-daemon {mount}/{name}"],
                       check=True, capture_output=True)
    finally:
        for stranger in strangers:
            stranger.kill()
            stranger.wait()
        os.rmdir(mount)


def host_without_control_groups_starts_the_vm_and_says_that_limits_do_not_hold():
    with configured("cgroup = off\n") as daemon, daemon.client() as client:
        client.call("vm.define", config=daemon.config("a", limits={"cpu_percent": 10}))
        client.call("vm.start", vm="a")
        tap.check("switched off" in client.call("host.info")["cgroup"], "not reported")
        tap.check("without its limits" in daemon.tail(), "not in the log")


def required_sandbox_refuses_a_start_where_a_layer_is_missing_and_names_it():
    with configured("require-sandbox = on\n") as daemon, daemon.client() as client:
        client.call("vm.define", config=daemon.config("a"))
        missing = [layer["name"] for layer in client.call("host.info")["sandbox"]
                   if not layer["active"]]
        if not missing:
            client.call("vm.start", vm="a")
            return
        error = client.fails("host-limit", "vm.start", vm="a")
        tap.check(all(name in error.message for name in missing), str(error))


def host_info_tells_of_nodes_layers_and_the_store():
    with lib.Daemon(emulator=lib.FAKE) as daemon:
        info = daemon.call("host.info")
        tap.check(info["store_state"] == "ok" and info["store_schema"] >= 2, f"{info}")
        tap.check(len(info["sandbox"]) >= 8, f"{info['sandbox']}")
        nodes = [n for n in os.listdir("/sys/devices/system/node") if n[4:].isdigit()] \
            if os.path.isdir("/sys/devices/system/node") else []
        tap.check(len(info["numa"]) == len(nodes), f"{info['numa']}")
        daemon.kill()
        daemon.start()
        lib.wait_for(lambda: daemon.call("host.info")["store_state"] == "ok", what="checked")


def http(address, text):
    """What a metrics endpoint answers to `text`."""
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        sock.settimeout(20)
        sock.connect(address)
        sock.sendall(text.encode())
        data = b""
        try:
            while piece := sock.recv(1 << 16):
                data += piece
        except ConnectionError:
            pass
        return data.decode()


def metrics_are_what_prometheus_reads():
    with configured("metrics = {dir}/metrics.sock\n") as daemon, daemon.client() as client:
        path = os.path.join(daemon.dir, "metrics.sock")
        for name in ("a", "b"):
            client.call("vm.define", config=daemon.config(name))
        client.call("vm.start", vm="a")
        lib.wait_for(lambda: "stats" in client.call("vm.get", vm="a"), what="statistics")
        head, body = http(path, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").split("\r\n\r\n")
        tap.check(head.startswith("HTTP/1.1 200 OK") and f"Length: {len(body)}" in head, head)
        for line in ('vmd_vms{state="running"} 1', 'vmd_vms{state="stopped"} 1', "vmd_vcpus_used 1",
                     "vmd_store_healthy 1", 'vmd_vm_instructions_total{vm="a",uuid='):
            tap.check(line in body, f"no {line}:\n{body}")
        tap.check("404" in http(path, "GET / HTTP/1.0\r\n\r\n"), "another page")
        tap.check("405" in http(path, "POST /metrics HTTP/1.0\r\n\r\n"), "another method")
        for bad in ("x" * 20000, "GET /metrics\0\r\n\r\n", "\r\n" * 3):
            http(path, bad)
        idle = []
        for _ in range(40):  # more than it keeps: the newest is served all the same
            idle.append(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            idle[-1].connect(path)
        tap.check("200 OK" in http(path, "GET /metrics HTTP/1.0\r\n\r\n"), "idle clients block it")
        for sock in idle:
            sock.close()
        if not shutil.which("promtool"):
            raise tap.Skip("promtool (package prometheus), which judges the format")
        done = subprocess.run(["promtool", "check", "metrics"], input=body, text=True, timeout=60,
                              capture_output=True, check=False)
        tap.check(done.returncode == 0, done.stdout + done.stderr)


@tap.local("the service manager's socket, no call")
def service_manager_is_told_ready_status_watchdog_and_stopping():
    with lib.Daemon(emulator=lib.FAKE) as daemon:
        daemon.terminate()
        path = os.path.join(daemon.dir, "notify")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.bind(path)
            manager.settimeout(20)
            daemon.start(env={**os.environ, "NOTIFY_SOCKET": path, "WATCHDOG_USEC": "200000"})
            told = [manager.recv(4096).decode() for _ in range(4)]
            tap.check(told[0] == "READY=1", f"{told}")
            tap.check(all(t == "STATUS=0 VMs, 0 of them running\nWATCHDOG=1" for t in told[1:]),
                      f"{told}")
            daemon.terminate()
            rest = []
            while not rest or "STOPPING=1" not in rest[-1]:
                rest.append(manager.recv(4096).decode())


if __name__ == "__main__":
    sys.exit(tap.run_cases([
        configuration_that_cannot_be_understood_is_refused_by_its_line,
        command_line_wins_over_the_configuration,
        profiles_give_what_a_definition_leaves_out_a_later_one_over_an_earlier_one,
        quota_of_a_project_bounds_what_is_defined_in_it,
        start_beyond_the_overcommit_is_refused_with_every_reason,
        limits_are_written_to_the_control_group_before_the_emulator_runs,
        limits_hold_in_the_kernel_where_vmd_has_control_groups,
        forced_stop_ends_all_of_a_vm_in_a_real_control_group,
        host_without_control_groups_starts_the_vm_and_says_that_limits_do_not_hold,
        required_sandbox_refuses_a_start_where_a_layer_is_missing_and_names_it,
        host_info_tells_of_nodes_layers_and_the_store,
        metrics_are_what_prometheus_reads,
        service_manager_is_told_ready_status_watchdog_and_stopping,
    ]))
