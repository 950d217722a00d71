# SPDX-License-Identifier: Apache-2.0
"""The limit over translated code and its tables: kept while Linux boots in little, and counted as it is."""

import os
import re
import sys
import time

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from emu_lib import Client, Emu, counters, emu_control, tap  # noqa: E402
import guest  # noqa: E402

PARTS = ("region_bytes", "index_bytes", "hash_bytes", "page_bytes", "space_bytes")
TABLES = ("header_bytes", "exit_bytes", "site_bytes", "extra_bytes")


def resident(pid, name):
    """Bytes of a mapping that are in memory, the largest of its views."""
    largest, inside = 0, False
    with open(f"/proc/{pid}/smaps", encoding="ascii", errors="replace") as file:
        for line in file:
            if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
                inside = name in line
            elif inside and line.startswith("Rss:"):
                largest = max(largest, int(line.split()[1]) << 10)
    return largest


def agree(vm, limit):
    tap.check(vm["cache_size"] == limit, str(vm))
    tap.check(vm["cache_bytes"] <= limit, f"{vm['cache_bytes']} bytes are over the limit: {vm}")
    tap.check(sum(vm[part] for part in PARTS) == vm["cache_bytes"], f"parts of cache_bytes: {vm}")
    tap.check(sum(vm[part] for part in TABLES) == vm["block_bytes"], f"parts of block_bytes: {vm}")
    tap.check(vm["code_bytes"] + vm["block_bytes"] <= vm["region_bytes"], f"more than the regions hold: {vm}")


def boot(limit, cpus):
    """Boots Debian's kernel, looking at the counters meanwhile; the last ones."""
    try:
        files = guest.fetched("riscv64")
    except guest.Unavailable as missing:
        raise tap.Skip(str(missing)) from None
    wanted = {path: os.O_RDONLY for path in (files["kernel"], files["initrd"], guest.OPENSBI)}
    config = {"cpus": cpus, "memory": 256 << 20, "kernel": files["kernel"], "initrd": files["initrd"],
              "firmware": guest.OPENSBI, "append": "console=ttyS0 quiet vmd.run=idle", "tcg": {"cache_size": limit}}
    with Emu(config=config, files=wanted, sandbox="off") as emu:
        console, client = emu.connect(emu.console), Client(emu)
        console.settimeout(0.2)
        text, end = b"", time.monotonic() + 5 * emu_control.LIMIT
        while b"BOOT-OK" not in text:
            tap.check(time.monotonic() < end, f"no boot: {text[-500:]!r}")
            try:
                got = console.recv(65536)
                tap.check(got or b"BOOT-OK" in text, f"the console ended: {text[-500:]!r}")
                text += got
            except TimeoutError:
                vm = counters(client)[0]
                agree(vm, limit)
                rss = resident(emu.process.pid, "vmd-code")
                tap.check(rss <= limit, f"the code buffer has {rss} bytes of {limit}")
                if rss:  # a sandboxed kernel may not say
                    tap.check(rss <= vm["region_bytes"] + (2 << 20), f"{rss} bytes, {vm['region_bytes']} counted")
        vm = counters(client)[0]
        agree(vm, limit)
        client.ok("emu.quit")
        emu_control.check_end(emu)
    return vm


def linux_boots_in_four_mebibytes_and_stays_below_them():
    vm = boot(4 << 20, 2)
    tap.check(vm and vm["evictions"] > 0 and vm["translations"] > vm["blocks"], f"nothing was evicted: {vm}")


def without_need_nothing_is_evicted():
    vm = boot(64 << 20, 1)
    tap.check(vm and vm["evictions"] == 0 and vm["blocks"] > 1000, str(vm))


CASES = [linux_boots_in_four_mebibytes_and_stays_below_them, without_need_nothing_is_evicted]

if __name__ == "__main__":
    sys.exit(tap.run_cases(CASES))
