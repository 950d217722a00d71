# SPDX-License-Identifier: Apache-2.0
"""What clients, files, disks and service managers do to the daemon: each gets a clear answer."""

import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
sys.path.insert(0, os.path.join(HERE, "..", "lib"))
import daemon_lib as lib  # noqa: E402
import tap  # noqa: E402


def ask(file, line):
    file.write(line + b"\n")
    file.flush()
    return json.loads(file.readline())


# --- clients ----------------------------------------------------------------------------------------

def malformed_requests_get_their_error_and_the_connection_goes_on():
    cases = [
        (b"nonsense", -32700), (b"{", -32700), (b"\xff\xfe", -32700), (b"[" * 100, -32700),
        (b'{"a":1,"a":2}', -32700), (b"[]", -32600), (b'"x"', -32600), (b"{}", -32600),
        (b'{"jsonrpc":"1.0","id":1,"method":"vm.list"}', -32600),
        (b'{"jsonrpc":"2.0","id":{},"method":"vm.list"}', -32600),
        (b'{"jsonrpc":"2.0","id":1,"method":"vm.dance"}', -32601),
        (b'{"jsonrpc":"2.0","id":1,"method":"emu.quit"}', -32601),
        (b'{"jsonrpc":"2.0","id":1,"method":"vm.list","params":{"x":1}}', -32602),
        (b'{"jsonrpc":"2.0","id":1,"method":"vm.get","params":{"vm":7}}', -32602),
        (b'{"jsonrpc":"2.0","id":1,"method":"vm.get","params":{"vm":"../../etc"}}', -32602),
        (b'{"jsonrpc":"2.0","id":1,"method":"vm.get","params":{"vm":"nobody"}}', 1001),
    ]
    with lib.Daemon() as daemon:
        _, file = daemon.raw()
        for line, code in cases:
            answer = ask(file, line)
            tap.check(answer.get("error", {}).get("code") == code, f"{line!r}: {answer}")
        answer = ask(file, b'{"jsonrpc":"2.0","id":5,"method":"vm.list"}')
        tap.check(answer["result"]["vms"] == [], f"{answer}")


def client_that_leaves_halfway_costs_nobody_else():
    with lib.Daemon() as daemon, daemon.client() as other:
        before = len(os.listdir(f"/proc/{daemon.process.pid}/fd"))
        for number in range(50):
            sock, file = daemon.raw()
            name = f"half{number}"
            line = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "vm.define",
                               "params": {"config": daemon.config(name)}}).encode() + b"\n"
            file.write(line if number % 2 else line[:len(line) // 2])
            file.flush()
            file.close()
            sock.close()
        other.call("vm.define", config=daemon.config("whole"))
        names = {vm["name"] for vm in other.call("vm.list")["vms"]}
        tap.check("whole" in names and "half0" not in names, f"{names}")
        # And one that leaves while its VM starts: the start goes on.
        sock, file = daemon.raw()
        file.write(b'{"jsonrpc":"2.0","id":1,"method":"vm.start","params":{"vm":"whole"}}\n')
        file.flush()
        sock.shutdown(socket.SHUT_RDWR)
        other.call("vm.wait", vm="whole", states=["running"], timeout_ms=20000)
        file.close()
        sock.close()
        other.call("vm.stop", vm="whole", force=True)
        lib.wait_for(lambda: len(os.listdir(f"/proc/{daemon.process.pid}/fd")) <= before,
                     what="descriptors of those that left are closed")


def slow_reader_is_cut_off_and_nobody_waits_for_it():
    with lib.Daemon() as daemon, daemon.client() as worker:
        sock, file = daemon.raw()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        request = b'{"jsonrpc":"2.0","id":1,"method":"api.schema"}\n'
        stop = threading.Event()

        def flood():
            try:
                while not stop.is_set():
                    file.write(request * 20)
                    file.flush()
            except OSError:
                pass
        thread = threading.Thread(target=flood)
        thread.start()
        for number in range(20):
            worker.call("vm.define", config=daemon.config(f"vm{number}"))
        stop.set()
        sock.shutdown(socket.SHUT_RDWR)
        thread.join()
        tap.check(len(worker.call("vm.list")["vms"]) == 20, "calls of the other client are lost")


@tap.local("a unix socket; remotely that is the role viewer")
def read_only_socket_only_shows():
    with lib.Daemon() as daemon:
        daemon.terminate()
        path = os.path.join(daemon.dir, "ro.sock")
        with open(daemon.log, "ab") as log:
            daemon.process = subprocess.Popen(daemon.command("--socket-ro", path), stderr=log)
        daemon.wait_ready()
        with lib.Client(path) as viewer:
            tap.check(viewer.call("vm.list")["vms"] == [], "cannot look")
            viewer.fails("denied", "vm.define", config=daemon.config("a"))
            viewer.fails("denied", "host.shutdown-daemon")


@tap.local("the role that the kernel's word on a unix socket gives")
def other_users_run_vms_but_delete_only_their_own():
    if os.geteuid() != 0:
        raise tap.Skip("root, to become another user")
    with lib.Daemon() as daemon:
        daemon.call("vm.define", config=daemon.config("roots"))
        os.chmod(daemon.dir, 0o755)
        os.chmod(os.path.join(daemon.dir, "run"), 0o755)
        os.chmod(daemon.sock, 0o666)
        firmware = daemon.guest()
        child = os.fork()
        if child == 0:
            status = 1
            try:
                os.setgroups([])
                os.setgid(65534)
                os.setuid(65534)
                as_other_user(daemon.sock, firmware)
                status = 0
            except BaseException as problem:  # the parent reports it
                print(f"# uid 65534: {problem!r}", flush=True)
            finally:
                os._exit(status)
        tap.check(os.waitpid(child, 0)[1] == 0, "see the line above")


def as_other_user(path, firmware):
    with lib.Client(path) as client:
        client.call("vm.start", vm="roots")
        client.call("vm.stop", vm="roots")
        client.fails("denied", "vm.delete", vm="roots")
        client.fails("denied", "vm.rename", vm="roots", name="mine")
        client.fails("denied", "host.shutdown-daemon")
        client.call("vm.define", config={"name": "theirs", "firmware": firmware})
        client.call("vm.delete", vm="theirs")


# --- definitions and files ----------------------------------------------------------------------------

def wrong_definitions_are_refused_before_anything_is_changed():
    with lib.Daemon() as daemon, daemon.client() as client:
        good = daemon.config("good")
        client.call("vm.define", config=good)
        for code, change in (
                ("exists", {"name": "good"}), ("invalid-params", {"arch": "vax"}),
                ("invalid-params", {"machine": "pdp11"}), ("invalid-params", {"engine": "warp"}),
                ("invalid-params", {"cpu": "8086"}), ("invalid-params", {"cpus": 0}),
                ("host-limit", {"cpus": 512}), ("host-limit", {"memory": 1 << 43}),
                ("invalid-params", {"name": "../x"}), ("invalid-params", {"colour": "red"}),
                ("invalid-params", {"kernel": "relative"}),
                ("invalid-params", {"initrd": "/x"})):
            for method in ("vm.define", "vm.create"):
                error = client.fails(code, method, config={**good, "name": "bad", **change})
                tap.check(error.message and (error.remedy or code == "invalid-params"),
                          f"{change}: {error.message} / {error.remedy}")
        tap.check([vm["name"] for vm in client.call("vm.list")["vms"]] == ["good"], "left behind")


def cpu_models_are_those_of_the_emulator():
    with lib.Daemon() as daemon, daemon.client() as client:
        listed = {a["arch"]: a["cpus"] for a in client.call("host.capabilities")["archs"]}
        for arch in ("riscv64", "riscv32"):
            path = os.path.join(daemon.dir, "model.json")
            with open(path, "w", encoding="utf-8") as file:
                json.dump({**daemon.config("a"), "arch": arch, "cpu": "no-such-model"}, file)
            said = subprocess.run([os.path.join(lib.BUILD, "vmd-emu"), "--config", path], capture_output=True, text=True,
                                  timeout=60, check=False).stderr
            tap.check(said.strip().split("it has: ")[1].split(", ") == listed[arch], f"{listed[arch]}: {said}")
        tap.check("rva23u64" in client.fails("invalid-params", "vm.define", config=daemon.config("a", cpu="vax")).remedy,
                  "the remedy names the models")
        client.call("vm.define", config=daemon.config("a", cpu="rva22s64,zfa=on"))
        tap.check(client.call("vm.start", vm="a")["state"] == "running", "a profile with an extension")
        client.call("vm.define", config=daemon.config("b", cpu="rv64,vlen=3"))
        tap.check("vlen=3" in client.fails("start-failed", "vm.start", vm="b").message, "what the emulator says")


def wrong_files_are_named_with_the_reason():
    with lib.Daemon() as daemon, daemon.client() as client:
        junk = os.path.join(daemon.dir, "junk")
        with open(junk, "wb") as file:
            file.write(b"\x7fELF\x02\x01\x01" + b"\0" * 9 + b"\x02\0\x3e\0" + b"\0" * 100)
        empty = os.path.join(daemon.dir, "empty")
        open(empty, "wb").close()
        for number, (code, change, words) in enumerate((
                ("file-error", {"kernel": "/none/Image"}, "/none/Image"),
                ("file-error", {"kernel": "/etc"}, "folder"),
                ("file-error", {"kernel": "/dev/zero"}, "regular"),
                ("file-error", {"kernel": empty}, "empty"),
                ("file-error", {"kernel": daemon.guest(), "initrd": "/none/i"}, "/none/i"),
                ("file-error", {"disks": [{"file": "/none/disk"}]}, "/none/disk"),
                ("start-failed", {"firmware": junk}, ""))):
            name = f"bad{number}"
            client.call("vm.define", config=daemon.config(name, **change))
            error = client.fails(code, "vm.start", vm=name)
            tap.check(words in error.message + error.object, f"{change}: {error.message}")
            vm = client.call("vm.get", vm=name)
            tap.check(vm["state"] == "stopped" and "pid" not in vm, f"{vm}")
        tap.check(not daemon.emulators(), "an emulator is left")
        tap.check(not os.listdir(os.path.join(daemon.dir, "run", "vm")), "a run folder is left")


def disk_in_use_names_the_vm_that_has_it():
    with lib.Daemon() as daemon:
        disk_in_use(daemon)


def disk_in_use(daemon):
    with daemon.client() as client:
        disk = os.path.join(daemon.dir, "disk.raw")
        with open(disk, "wb") as file:
            file.truncate(lib.MIB)
        os.link(disk, disk + ".link")
        client.call("vm.define", config=daemon.config("a", disks=[{"file": disk}]))
        client.call("vm.define", config=daemon.config("b", disks=[{"file": disk + ".link"}]))
        pid = client.call("vm.start", vm="a")["pid"]
        error = client.fails("busy", "vm.start", vm="b")
        tap.check("'a'" in error.message and str(pid) in error.message, error.message)
    daemon.kill()
    daemon.start()
    with daemon.client() as client:
        error = client.fails("busy", "vm.start", vm="b")
        tap.check("'a'" in error.message and str(pid) in error.message, error.message)
        client.call("vm.stop", vm="a")
        client.call("vm.start", vm="b")
        client.call("vm.stop", vm="b")
        twice = [{"file": disk}, {"file": disk + ".link"}]
        client.call("vm.define", config=daemon.config("c", disks=twice))
        client.fails("file-error", "vm.start", vm="c")


def files_that_hang_hang_the_start_alone():
    with lib.Daemon() as daemon, daemon.client() as client, daemon.client() as other:
        client.call("vm.define", config=daemon.config("a"))
        helper = daemon.helper()
        os.kill(helper, signal.SIGSTOP)  # as it would be, opening a file of a dead server
        number = client.send("vm.start", vm="a")
        for _ in range(50):
            other.call("vm.list")
        other.fails("bad-state", "vm.stop", vm="a", force=True)
        os.kill(helper, signal.SIGCONT)
        tap.check(client.answer(number)["state"] == "running", "not started after all")


def engine_counters_come_from_the_emulator():
    with lib.Daemon() as daemon, daemon.client() as client:
        client.call("vm.define", config=daemon.config("a", cpus=2))
        tap.check("stopped" in client.fails("bad-state", "vm.engine", vm="a").message, "state")
        client.call("vm.start", vm="a")
        answer = client.call("vm.engine", vm="a")
        names = {row["name"] for row in answer["counters"]}
        tap.check({"blocks", "links", "table_bytes"} <= names and len(answer["vcpus"]) == 2, f"{answer}")
        tap.check(answer["engine"] == "tcg" and "instructions" not in answer, f"{answer}")
        tap.check(client.call("vm.pause", vm="a") and client.call("vm.engine", vm="a"), "also while paused")


def traces_and_coverage_come_from_the_emulator():
    with lib.Daemon() as daemon, daemon.client() as client:
        client.call("vm.define", config=daemon.config("a", tcg={"cache_size": 4 << 20, "coverage": True}))
        client.fails("bad-state", "vm.trace_read", vm="a")
        client.call("vm.start", vm="a")
        client.call("vm.trace_start", vm="a", mmio=True)
        found = lib.wait_for(lambda: client.call("vm.trace_read", vm="a")["records"], what="records")
        tap.check(found > 0, "no device access")
        client.fails("invalid-params", "vm.trace_start", vm="a", **{"from": "there"})
        client.call("vm.trace_stop", vm="a")
        client.call("vm.trace_read", vm="a")
        tap.check(not client.call("vm.trace_read", vm="a")["on"], "still on")
        answer = client.call("vm.coverage", vm="a")
        tap.check(len(answer["edges"]) > 80000 and answer["blocks"], f"{answer['blocks']}")


def plugins_are_refused_unless_the_administrator_allows_them():
    plugins = os.path.realpath(os.path.join(lib.BUILD, "engine", "tcg", "plugins"))
    def config(daemon, name, file):
        return daemon.config(name, tcg={"cache_size": 4 << 20, "plugins": [{"file": file, "args": "top=3"}]})
    with lib.Daemon() as daemon, daemon.client() as client:
        error = client.fails("denied", "vm.define", config=config(daemon, "a", plugins + "/mix.so"))
        tap.check("does not allow" in error.message, error.message)
    daemon = lib.Daemon()
    daemon.command = lambda *more: [*lib.Daemon.command(daemon, *more), "--plugin-dir", plugins]
    with daemon, daemon.client() as client:
        for file in ("/tmp/mix.so", plugins + "/../plugins/mix.so", plugins):
            client.fails("denied", "vm.define", config=config(daemon, "a", file))
        client.call("vm.define", config=config(daemon, "a", plugins + "/mix.so"))


def calls_in_the_wrong_state_say_which():
    with lib.Daemon() as daemon, daemon.client() as client:
        client.call("vm.define", config=daemon.config("a"))
        for method in ("vm.pause", "vm.resume", "vm.reset", "vm.wake", "vm.shutdown", "vm.stop",
                       "vm.console"):
            error = client.fails("bad-state", method, vm="a")
            tap.check("stopped" in error.message, error.message)
        client.call("vm.start", vm="a")
        tap.check("running" in client.fails("bad-state", "vm.start", vm="a").message, "start")
        tap.check("running" in client.fails("bad-state", "vm.delete", vm="a").message, "delete")
        client.fails("bad-state", "vm.resume", vm="a")
        client.fails("bad-state", "vm.wake", vm="a")
        client.fails("unsupported", "vm.shutdown", vm="a")
        client.fails("timeout", "vm.wait", vm="a", timeout_ms=20)
        out = client.call("vm.shutdown", vm="a", force=True)  # whose guest hears of no button
        tap.check(out["state"] == "stopped" and out["exit"]["reason"] == "quit", f"{out}")
        client.call("vm.start", vm="a")
        client.call("vm.delete", vm="a", force=True)
        client.fails("not-found", "vm.get", vm="a")


def emulator_that_fails_tells_why():
    with lib.Daemon(emulator=lib.FAKE) as daemon, daemon.client() as client:
        kernel = daemon.guest()
        base = {"kernel": kernel, "firmware": "none"}
        client.call("vm.define", config={"name": "early", **base, "append": "die-early"})
        error = client.fails("start-failed", "vm.start", vm="early")
        tap.check("not to my liking" in error.message, error.message)
        client.call("vm.define", config={"name": "liar", **base, "append": "liar"})
        client.fails("start-failed", "vm.start", vm="liar")
        client.call("vm.define", config={"name": "crash", **base, "append": "crash-after=50"})
        client.call("vm.start", vm="crash")
        out = client.call("vm.wait", vm="crash", timeout_ms=20000)
        tap.check(out["state"] == "crashed" and out["exit"]["signal"] > 0, f"{out}")
        job = client.call("vm.create", config={"name": "mute", **base, "append": "mute"})["job"]
        lib.wait_for(lambda: daemon.emulators(), what="it was spawned")
        client.call("job.cancel", job=job)
        done = client.call("job.wait", job=job, timeout_ms=20000)
        tap.check(done["state"] == "cancelled", f"{done}")
        tap.check(not daemon.emulators(), "it was left behind")


# --- keys, events --------------------------------------------------------------------------------------

def same_key_gives_the_same_answer_also_after_a_kill():
    with lib.Daemon() as daemon:
        with daemon.client() as client:
            params = {"config": daemon.config("a"), "idempotency_key": "k1"}
            first = client.call("vm.define", **params)
            tap.check(client.call("vm.define", **params) == first, "another answer")
            client.fails("key-reused", "vm.define", config=daemon.config("b"),
                         idempotency_key="k1")
            client.fails("key-reused", "vm.delete", vm="a", idempotency_key="k1")
        daemon.kill()
        daemon.start()
        with daemon.client() as client:
            tap.check(client.call("vm.define", **params) == first, "forgotten")
            one = client.send("vm.start", vm="a", idempotency_key="k2")
            two = client.send("vm.start", vm="a", idempotency_key="k2")
            tap.check(client.answer(one) == client.answer(two), "the second one was run, too")


def events_go_on_after_the_cursor_also_after_a_kill():
    with lib.Daemon() as daemon:
        with daemon.client() as client:
            client.call("event.subscribe", after=0)
            client.call("vm.define", config=daemon.config("a"))
            client.call("vm.start", vm="a")
            client.call("vm.pause", vm="a")
            client.call("api.ping")
            lib.wait_for(lambda: client.call("api.ping") is not None and any(
                e.get("state") == "paused" for e in client.events), what="the pause is told")
            seen = client.events
        daemon.kill()
        daemon.start()
        with daemon.client() as client:
            client.call("event.subscribe", after=seen[-1]["seq"])
            client.call("vm.resume", vm="a")
            lib.wait_for(lambda: client.call("api.ping") is not None and any(
                e.get("reason") == "resume" for e in client.events), what="the resume is told")
            later = client.events
            numbers = [e["seq"] for e in seen + later]
            tap.check(numbers == sorted(set(numbers)), f"numbers {numbers}")
            both = client.call("event.list", limit=1000)["events"]
            tap.check([e["seq"] for e in both][:len(numbers)] == numbers, "some are missing")
            client.fails("cursor-lost", "event.subscribe", after=numbers[-1] + 10**12)


# --- disks --------------------------------------------------------------------------------------------

def full(daemon, limit, free):
    """Defines until the disk is full; what was acknowledged stays, and it goes on when there is
    room again."""
    acknowledged = []
    with daemon.client(120) as client:
        client.call("vm.define", config=daemon.config("runs"))
        client.call("vm.start", vm="runs")
        limit()
        error = None
        for number in range(5000):
            name = f"vm{number}"
            try:
                client.call("vm.define", config=daemon.config(name, append="x" * 4000,
                                                              kernel="/none/k"))
                acknowledged.append(name)
            except lib.CallError as problem:
                error = problem
                break
        tap.check(error and error.error == "store-error", f"{error}")
        tap.check(error.remedy, "no remedy")
        names = {vm["name"] for vm in client.call("vm.list")["vms"]}
        tap.check(names == {*acknowledged, "runs"}, "the failed one is listed")
        tap.check(client.call("vm.get", vm="runs")["state"] == "running", "the VM suffers")
        free()
        lib.wait_for(lambda: try_define(client, daemon), what="it goes on with room")
        acknowledged.append("later")
    daemon.kill()
    daemon.start()
    names = {vm["name"] for vm in daemon.call("vm.list")["vms"]}
    tap.check(names == {*acknowledged, "runs"}, f"lost {set(acknowledged) - names}, "
              f"came from nowhere {names - set(acknowledged)}")


def try_define(client, daemon):
    try:
        client.call("vm.define", config=daemon.config("later"))
        return True
    except lib.CallError as problem:
        tap.check(problem.error == "store-error", f"{problem}")
        return False


def full_disk_under_the_store_loses_nothing_acknowledged():
    folder = None
    daemon = lib.Daemon()
    folder = os.path.join(daemon.dir, "lib")
    os.mkdir(folder)
    run = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "vmd-test", folder],
                         stderr=subprocess.PIPE, text=True, check=False)
    if run.returncode != 0:
        shutil.rmtree(daemon.dir)
        raise tap.Skip(f"mounting a tmpfs ({run.stderr.strip()})")
    filler = os.path.join(folder, "filler")
    with open(filler, "wb") as file:
        file.write(b"x" * (300 << 10))
    try:
        with daemon:
            full(daemon, lambda: None, lambda: os.unlink(filler))
    finally:
        subprocess.run(["umount", folder], check=False)
        shutil.rmtree(daemon.dir, ignore_errors=True)


def file_size_limit_under_the_store_is_a_clear_error():
    def set_limit(value):
        resource.prlimit(daemon.process.pid, resource.RLIMIT_FSIZE,
                         (value, resource.RLIM_INFINITY))
    with lib.Daemon() as daemon:
        full(daemon, lambda: set_limit(256 << 10), lambda: set_limit(resource.RLIM_INFINITY))


# --- service manager -----------------------------------------------------------------------------------

@tap.local("the service manager's socket, no call")
def ready_is_told_to_the_service_manager():
    with lib.Daemon() as daemon:
        daemon.terminate()
        path = os.path.join(daemon.dir, "notify")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.bind(path)
            sock.settimeout(30)
            daemon.start(env={**os.environ, "NOTIFY_SOCKET": path})
            tap.check(sock.recv(4096).split(b"\n")[0] == b"READY=1", "not READY=1")
            daemon.terminate()
            text = sock.recv(4096)
            while text.startswith(b"STATUS="):
                text = sock.recv(4096)
            tap.check(text == b"STOPPING=1", f"not STOPPING=1: {text}")


def first_client(path):
    """A client of a socket that the manager is about to bind, and to listen on a moment later."""
    clients = []

    def connects():
        try:
            clients.append(lib.Client(path))
        except lib.Gone as problem:
            if not isinstance(problem.__cause__, (FileNotFoundError, ConnectionRefusedError)):
                raise
        return clients
    lib.wait_for(connects, what="the manager listens")
    return clients[0]


@tap.local("a unix socket that systemd listens on")
def socket_activation_serves_the_first_client():
    tool = shutil.which("systemd-socket-activate")
    if not tool:
        raise tap.Skip("systemd-socket-activate (package systemd)")
    with lib.Daemon() as daemon:
        daemon.terminate()
        path = os.path.join(daemon.dir, "activated.sock")
        daemon.wrapper = [tool, "-l", path]
        daemon.start(wait=False)
        with first_client(path) as client:
            tap.check(client.hello["method"] == "hello", f"{client.hello}")
            client.call("vm.define", config=daemon.config("a"))
            client.call("vm.start", vm="a")
            tap.check(not os.path.exists(daemon.sock), "it made a socket of its own")
            client.call("host.shutdown-daemon", stop_vms=True)
        tap.check(daemon.process.wait(60) == 0, "exit status")
        tap.check(os.path.exists(path), "the manager's socket was removed")
        daemon.wrapper = []


@tap.local("files, no call")
def units_are_valid():
    tool = shutil.which("systemd-analyze")
    if not tool:
        raise tap.Skip("systemd-analyze (package systemd)")
    source = os.path.join(os.environ.get("VMD_SRCDIR", os.path.join(HERE, "..", "..")),
                          "daemon", "systemd")
    made = os.path.join(lib.BUILD, "daemon", "systemd", "vmd.service")
    guests = os.path.join(lib.BUILD, "daemon", "systemd", "vmd-guests.service")
    with lib.Daemon() as daemon:
        folder = os.path.join(daemon.dir, "units")
        os.mkdir(folder)
        with open(made, encoding="utf-8") as file:
            text = file.read()
        tap.check("@" not in text, "a path was left out")
        for word in ("KillMode=process", "Type=notify", "Delegate=yes"):
            tap.check(word in text, f"no {word}")
        lines = ["ExecStart=" + os.path.join(lib.BUILD, "vmd") if line.startswith("ExecStart=")
                 else line for line in text.splitlines()]
        with open(os.path.join(folder, "vmd.service"), "w", encoding="utf-8") as file:
            file.write("\n".join(lines) + "\n")
        with open(guests, encoding="utf-8") as file, open(os.path.join(folder, "vmd-guests.service"), "w",
                                                          encoding="utf-8") as out:
            text = file.read()
            tap.check("@" not in text and "After=vmd.socket vmd.service" in text, text)
            out.write("".join(f"ExecStop=-{lib.BUILD}/vmctl host shutdown\n" if line.startswith("ExecStop=") else line
                              for line in text.splitlines(True)))
        for name in ("vmd.socket", "vmd-ro.socket"):
            shutil.copy(os.path.join(source, name), folder)
        run = subprocess.run([tool, "verify"] + [os.path.join(folder, n)
                                                 for n in sorted(os.listdir(folder))],
                             stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                             check=False)
        if "Failed to initialize manager" in run.stdout:
            raise tap.Skip(f"systemd-analyze verify works here ({run.stdout.strip()})")
        tap.check(run.returncode == 0 and not run.stdout.strip(), run.stdout)


@tap.local("the command of a unit")
def unit_that_ends_with_the_host_ends_the_vms_first():
    with open(os.path.join(lib.BUILD, "daemon", "systemd", "vmd-guests.service"), encoding="utf-8") as file:
        command, = [line.split("=-", 1)[1].split() for line in file if line.startswith("ExecStop=")]
    tap.check(os.path.basename(command[0]) == "vmctl", f"{command}")
    daemon = lib.Daemon(emulator=lib.FAKE)
    with daemon:
        with daemon.client() as client:
            for name, words, mode in (("a", "button=50", "stop"), ("b", "", "stop"), ("c", "button=10", "leave")):
                client.call("vm.define", config=daemon.config(name, kernel=daemon.guest(), append=words,
                                                              host_shutdown={"mode": mode, "timeout_ms": 10000}))
                client.call("vm.start", vm=name)
            pids = {name: client.call("vm.get", vm=name)["pid"] for name in "abc"}
        run = subprocess.run([os.path.join(lib.BUILD, "vmctl"), *command[1:]], text=True, timeout=60, check=False,
                             env={**os.environ, "VMCTL_CONNECT": f"vmd+unix://{daemon.sock}"},
                             stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        tap.check(run.returncode == 0, run.stdout)
        tap.check(daemon.process.wait(60) == 0, "exit status")  # a service manager starts it no more
        tap.check([n for n, pid in pids.items() if lib.alive(pid)] == ["c"], f"{run.stdout}")
        daemon.start()
        with daemon.client() as client:
            reasons = {name: client.call("vm.get", vm=name).get("exit", {}).get("reason") for name in "abc"}
        tap.check(reasons == {"a": "poweroff", "b": "quit", "c": None}, f"{reasons}")


@tap.local("the command line, no call")
def wrong_options_say_what_is_right():
    vmd = os.path.join(lib.BUILD, "vmd")
    for args, words in ((["--nonsense"], "--help"), (["extra"], "'extra'"),
                        (["--dir", "/proc/x/y"], "/proc/x/y"),
                        (["--dir", "/tmp/" + "x" * 120], "shorter")):
        run = subprocess.run([vmd, *args], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                             text=True, timeout=30, check=False)
        tap.check(run.returncode in (1, 2) and words in run.stdout, f"{args}: {run.stdout}")
    shutil.rmtree("/tmp/" + "x" * 120, ignore_errors=True)
    run = subprocess.run([vmd, "--version"], stdout=subprocess.PIPE, text=True, check=False)
    tap.check(run.returncode == 0 and run.stdout.startswith("vmd "), run.stdout)


def ordered_end_can_stop_the_vms():
    with lib.Daemon() as daemon:
        with daemon.client() as client:
            client.call("vm.define", config=daemon.config("a"))
            pid = client.call("vm.start", vm="a")["pid"]
            os.kill(pid, signal.SIGCONT)
            client.call("host.shutdown-daemon", stop_vms=True)
        tap.check(daemon.process.wait(60) == 0, "exit status")
        tap.check(not lib.alive(pid), "the VM runs on")
        daemon.start()
        vm = daemon.call("vm.get", vm="a")
        tap.check(vm["state"] == "stopped" and vm["exit"]["reason"] == "quit", f"{vm}")
        time.sleep(0)


CASES = [
    malformed_requests_get_their_error_and_the_connection_goes_on,
    client_that_leaves_halfway_costs_nobody_else,
    slow_reader_is_cut_off_and_nobody_waits_for_it,
    read_only_socket_only_shows,
    other_users_run_vms_but_delete_only_their_own,
    wrong_definitions_are_refused_before_anything_is_changed,
    cpu_models_are_those_of_the_emulator,
    wrong_files_are_named_with_the_reason,
    disk_in_use_names_the_vm_that_has_it,
    files_that_hang_hang_the_start_alone,
    engine_counters_come_from_the_emulator,
    traces_and_coverage_come_from_the_emulator,
    plugins_are_refused_unless_the_administrator_allows_them,
    calls_in_the_wrong_state_say_which,
    emulator_that_fails_tells_why,
    same_key_gives_the_same_answer_also_after_a_kill,
    events_go_on_after_the_cursor_also_after_a_kill,
    full_disk_under_the_store_loses_nothing_acknowledged,
    file_size_limit_under_the_store_is_a_clear_error,
    ready_is_told_to_the_service_manager,
    socket_activation_serves_the_first_client,
    units_are_valid,
    unit_that_ends_with_the_host_ends_the_vms_first,
    wrong_options_say_what_is_right,
    ordered_end_can_stop_the_vms,
]

if __name__ == "__main__":
    if not os.access(os.path.join(lib.BUILD, "vmd-emu"), os.X_OK):
        print("skipped: vmd-emu is not built")
        sys.exit(77)
    sys.exit(tap.run_cases(CASES))
