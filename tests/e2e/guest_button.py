# SPDX-License-Identifier: Apache-2.0
"""The power button of rv-virt: heard by acpid under Debian's kernel, refused where nobody listens."""

import os
import sys

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
for folder in (".", "../lib", "../guests"):
    sys.path.insert(0, os.path.join(HERE, folder))
import daemon_lib as lib  # noqa: E402
import guest  # noqa: E402
import qmp_lib  # noqa: E402
import tap  # noqa: E402

TIMEOUT = 240.0  # of patience with a machine that has much to do


def linux(daemon, name):
    """A VmConfig of Debian's kernel that waits for its button."""
    files = guest.fetched("riscv64-input")
    return daemon.config(name, memory=256 * lib.MIB, firmware="default", kernel=files["kernel"],
                         initrd=files["initrd"], append="console=ttyS0 vmd.virtio vmd.run=button",
                         tcg={"cache_size": 64 * lib.MIB})


def console_has(log, text):
    def there():
        try:
            with open(log, "rb") as file:
                return text in file.read()
        except OSError:
            return False
    lib.wait_for(there, TIMEOUT, f"{text} on the console")


def guest_shuts_down_when_asked_by_the_api_and_by_qmp():
    with lib.Daemon() as daemon, daemon.client(TIMEOUT) as client:
        logs = {}
        for name in ("a", "b"):
            client.call("vm.define", config=linux(daemon, name))
            client.call("vm.start", vm=name)
            logs[name] = client.call("vm.console", vm=name)["log"]
        error = client.fails("unsupported", "vm.shutdown", vm="a")
        tap.check("does not listen" in error.message and "virtio_input" in error.remedy, f"{error}")

        console_has(logs["a"], b"BUTTON-READY Power Button")
        client.call("vm.pause", vm="a")
        number = client.send("vm.shutdown", vm="a", timeout_ms=int(TIMEOUT * 1000))
        daemon.call("vm.resume", vm="a")  # it hears of it when it runs again
        out = client.answer(number)
        tap.check(out["state"] == "stopped" and out["exit"]["reason"] == "poweroff", f"{out}")
        console_has(logs["a"], b"BUTTON\r")

        console_has(logs["b"], b"BUTTON-READY")
        with qmp_lib.Qmp(client.call("vm.get", vm="b")["qmp"], timeout=TIMEOUT) as q:
            q.execute("system_powerdown")
            names = []
            while "SHUTDOWN" not in names:
                names.append((q.events.pop(0) if q.events else q.read())["event"])
            tap.check("POWERDOWN" in names, f"{names}")


if __name__ == "__main__":
    guest.need("riscv64-input")
    sys.exit(tap.run_cases([
        guest_shuts_down_when_asked_by_the_api_and_by_qmp,
    ]))
