# SPDX-License-Identifier: Apache-2.0
"""vmd-emu with a control client, for the tests of this folder."""

import os
import sys

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
for folder in ("device", "lib", "guests"):
    sys.path.insert(0, os.path.join(HERE, "..", folder))
import emu_control  # noqa: E402
import tap  # noqa: E402

Emu, Client, read_until, check_end = (emu_control.Emu, emu_control.Client, emu_control.read_until,
                                      emu_control.check_end)


def counters(client):
    """The engine's counters: {name: value} of the VM, and a list of them by vCPU."""
    answer = client.ok("emu.engine")
    def table(rows):
        return {row["name"]: row["value"] for row in rows}
    return table(answer["counters"]), [table(v["counters"]) for v in answer["vcpus"]]


def ready(emu):
    """Console and control client of an emulator whose guest has said READY."""
    console, client = emu.connect(emu.console), Client(emu)
    read_until(console, b"READY\n")
    return console, client


def end(emu, client):
    client.ok("emu.quit")
    check_end(emu)
