# SPDX-License-Identifier: Apache-2.0
"""Remote is not second class: daemon and client in two network namespaces, joined by a veth pair, made
and removed here. The cases of remote_tls run between them, and the life of a VM over TLS alone."""

import os
import pathlib
import subprocess
import sys

TOP = pathlib.Path(os.environ.get("VMD_SRCDIR") or pathlib.Path(__file__).resolve().parents[2])
sys.path[:0] = [str(TOP / "tests" / "lib"), str(TOP / "tests" / "e2e")]

import remote_tls  # noqa: E402
import tap  # noqa: E402
from daemon_lib import wait_for  # noqa: E402
from remote_lib import RemoteDaemon  # noqa: E402

SERVER, CLIENT = f"vmd-s-{os.getppid()}", f"vmd-c-{os.getppid()}"
ADDRESS = "10.213.77.1"


class FarDaemon(RemoteDaemon):
    """In the server's namespace."""

    def __init__(self, *options, **more):
        super().__init__(*options, host=ADDRESS, wrapper=("ip", "netns", "exec", SERVER), **more)


def a_vm_lives_its_life_over_tls():
    with FarDaemon() as d:
        d.init()
        with d.connect(d.user("ann", "admin", "*")) as c:
            cursor = c.call("vm.list")["cursor"]
            c.call("event.subscribe", after=cursor)
            c.call("vm.define", config=d.config("v"))
            c.fails("exists", "vm.define", config=d.config("v"))
            c.call("vm.start", vm="v", paused=True)
            c.call("vm.resume", vm="v")
            wait_for(lambda: c.call("vm.stats", vm="v")["vms"][0].get("stats"), 20, "statistics")
            c.call("vm.pause", vm="v")
            c.call("vm.set", vm="v", set={"title": "far"})
            c.call("vm.stop", vm="v", force=True)
            assert c.call("vm.wait", vm="v", timeout_ms=20000)["state"] == "stopped"
            c.call("vm.rename", vm="v", name="w")
            c.call("vm.delete", vm="w")
            job = c.call("vm.create", config=d.config("x"), idempotency_key="k")
            assert c.call("vm.create", config=d.config("x"), idempotency_key="k") == job
            assert c.call("job.wait", job=job["job"], timeout_ms=30000)["state"] == "done"
            c.call("vm.delete", vm="x", force=True)
            kinds = {e["type"] for e in c.events}
            assert {"vm-defined", "vm-state", "vm-renamed", "vm-deleted"} <= kinds, kinds
            assert any(e["who"].startswith("ann@10.213.77.2:") for e in d.audit("vm.define")), d.audit()[:3]


def ip(*args):
    subprocess.run(["ip", *args], check=True, timeout=30, capture_output=True)


def make():
    for name in (SERVER_, CLIENT_):
        ip("netns", "add", name)
        ip("-n", name, "link", "set", "lo", "up")
    ip("-n", SERVER_, "link", "add", "vmd0", "type", "veth", "peer", "name", "vmd1", "netns", CLIENT_)
    for name, link, address in ((SERVER_, "vmd0", ADDRESS), (CLIENT_, "vmd1", "10.213.77.2")):
        ip("-n", name, "addr", "add", address + "/24", "dev", link)
        ip("-n", name, "link", "set", link, "up")


def main(program):
    try:
        if os.geteuid() != 0:
            raise OSError("not root")
        make()
    except (OSError, subprocess.SubprocessError) as problem:
        said = getattr(problem, "stderr", None) or b""
        print(f"1..0 # SKIP network namespaces: {problem} {said.decode(errors='replace').strip()}")
        return 0
    try:
        return subprocess.call(["ip", "netns", "exec", CLIENT_, sys.executable, "-B", program, *sys.argv[1:]],
                               env={**os.environ, "VMD_INSIDE": "1"})
    finally:
        for name in (SERVER_, CLIENT_):
            subprocess.run(["ip", "netns", "del", name], check=False, timeout=30)


if __name__ == "__main__":
    if os.environ.get("VMD_INSIDE"):
        remote_tls.RemoteDaemon = FarDaemon
        sys.exit(tap.run_cases([a_vm_lives_its_life_over_tls, remote_tls.vmctl_does_remotely_what_it_does_locally,
                                remote_tls.tickets_are_for_their_user_and_once,
                                remote_tls.tokens_work_once_and_bad_ones_never]))
    SERVER_, CLIENT_ = f"vmd-s-{os.getpid()}", f"vmd-c-{os.getpid()}"
    sys.exit(main(__file__))
