# SPDX-License-Identifier: Apache-2.0
"""A session of the daemon under valgrind: no error, nothing definitely lost."""

import glob
import os
import shutil
import sys

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
sys.path.insert(0, os.path.join(HERE, "..", "lib"))
import daemon_lib as lib  # noqa: E402
import tap  # noqa: E402

# What valgrind says of system calls newer than itself is no error of ours.
NOISE = ("WARNING: unhandled", "You may be able", "Read the file README", "Nevertheless we",
         "it at http://valgrind")


def session(daemon):
    """Every kind of call, refused ones and forgotten connections included."""
    with daemon.client(120) as client, daemon.client(120) as watcher:
        watcher.call("event.subscribe", after=0)
        for name in ("a", "b"):
            client.call("vm.define", config=daemon.config(name), idempotency_key="k" + name)
            client.call("vm.define", config=daemon.config(name), idempotency_key="k" + name)
        client.fails("exists", "vm.define", config=daemon.config("a"))
        client.fails("file-error", "vm.create", config=daemon.config("x", kernel="/none"))
        client.call("vm.set", vm="a", set={"memory": 32 * lib.MIB, "append": None})
        client.call("vm.start", vm="a")
        client.call("vm.pause", vm="a")
        client.call("vm.resume", vm="a")
        client.call("vm.reset", vm="a")
        client.call("vm.rename", vm="a", name="c")
        client.call("vm.console", vm="c")
        client.fails("timeout", "vm.wait", vm="c", timeout_ms=1)
        watcher.send("vm.wait", vm="c")
        client.call("vm.stop", vm="c")
        job = client.call("vm.create", config=daemon.config("t"), transient=True)["job"]
        client.call("job.wait", job=job)
        client.call("vm.list", config=True, stats=True)
        client.call("vm.stop", vm="t", force=True)
        client.call("vm.start", vm="b")
        client.call("vm.delete", vm="b", force=True)
        client.call("job.list")
        client.call("event.list", limit=1000)
        client.call("host.info")
        client.call("host.capabilities")
        client.call("vm.start", vm="c")
        client.send("vm.wait", vm="c")
    with daemon.client(120) as client:
        client.call("host.shutdown-daemon")


def daemon_is_silent_under_valgrind():
    tool = shutil.which("valgrind")
    if not tool:
        raise tap.Skip("valgrind")
    if lib.sanitized():
        raise tap.Skip("a build without sanitizers")
    daemon = lib.Daemon()
    logs = os.path.join(daemon.dir, "valgrind")
    daemon.wrapper = [tool, "--quiet", "--leak-check=full", "--errors-for-leak-kinds=definite",
                      "--log-file=" + logs + ".%p", "--error-exitcode=99"]
    with daemon:
        session(daemon)
        status = daemon.process.wait(120)
        found = []
        for name in glob.glob(logs + ".*"):
            with open(name, encoding="utf-8", errors="replace") as file:
                found += [line for line in file if not any(word in line for word in NOISE)]
        tap.check(glob.glob(logs + ".*"), "valgrind wrote no log")
        tap.check(not found, "".join(found[:60]))
        tap.check(status == 0, f"exit status {status}")
        daemon.wrapper = []


if __name__ == "__main__":
    if not os.access(os.path.join(lib.BUILD, "vmd-emu"), os.X_OK):
        print("skipped: vmd-emu is not built")
        sys.exit(77)
    sys.exit(tap.run_cases([daemon_is_silent_under_valgrind]))
