# SPDX-License-Identifier: Apache-2.0
"""Remote is not second class: daemon and client in two network namespaces (far_lib). The cases of remote_tls that are
about what a client does run between them, and the life of a VM over TLS alone."""

import os
import pathlib
import sys

TOP = pathlib.Path(os.environ.get("VMD_SRCDIR") or pathlib.Path(__file__).resolve().parents[2])
sys.path[:0] = [str(TOP / "tests" / "lib"), str(TOP / "tests" / "e2e")]

import far_lib  # noqa: E402
import remote_tls  # noqa: E402
from daemon_lib import wait_for  # noqa: E402
from far_lib import FarDaemon  # noqa: E402


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
            assert any(e["who"].startswith(f"ann@{far_lib.CLIENT_ADDRESS}:") for e in d.audit("vm.define")), d.audit()[:3]


if __name__ == "__main__":
    remote_tls.RemoteDaemon = FarDaemon
    sys.exit(far_lib.main(__file__, [a_vm_lives_its_life_over_tls, remote_tls.vmctl_does_remotely_what_it_does_locally,
                                     remote_tls.tickets_are_for_their_user_and_once,
                                     remote_tls.tokens_work_once_and_bad_ones_never]))
