# SPDX-License-Identifier: Apache-2.0
"""Two daemons that know each other, a guest that writes memory and checks it, and an oracle of who runs."""

import os
import struct
import time

import daemon_lib as lib
import remote_lib as remote

PAGE = 4096


def _word(value):
    return struct.pack("<I", value & 0xffffffff)


def _r(op, rd, f3, rs1, rs2, f7=0):
    return _word(f7 << 25 | rs2 << 20 | rs1 << 15 | f3 << 12 | rd << 7 | op)


def _i(op, rd, f3, rs1, imm):
    return _word((imm & 0xfff) << 20 | rs1 << 15 | f3 << 12 | rd << 7 | op)


def _s(f3, rs1, rs2, imm):
    return _word((imm >> 5 & 0x7f) << 25 | rs2 << 20 | rs1 << 15 | f3 << 12 | (imm & 31) << 7 | 0x23)


def _b(f3, rs1, rs2, off):
    return _word((off >> 12 & 1) << 31 | (off >> 5 & 63) << 25 | rs2 << 20 | rs1 << 15 | f3 << 12 |
                 (off >> 1 & 15) << 8 | (off >> 11 & 1) << 7 | 0x63)


def _lui(rd, imm):
    return _word(imm & 0xfffff000 | rd << 7 | 0x37)


def _j(off):
    return _word((off >> 20 & 1) << 31 | (off >> 1 & 0x3ff) << 21 | (off >> 11 & 1) << 20 | (off >> 12 & 0xff) << 12 | 0x6f)


def checker(pages, stride=512, delay=1 << 16):
    """RV64, M-mode: for ever writes words that depend on place and pass over `pages` pages, then reads them all back; '.' on the
    console after a pass that was right, 'E' for ever after one that was not. `delay`: turns of an empty loop after each pass.
    t0 5, t1 6, t2 7, s0 8, s1 9, a0..a3 10..13."""
    code = [_lui(5, 0x10000000), _i(0x13, 8, 0, 0, 1), _i(0x13, 8, 1, 8, 31), _lui(6, 0x200000),
            _r(0x33, 8, 0, 8, 6),                                   # s0 = 0x80200000
            _lui(9, pages * PAGE), _r(0x33, 9, 0, 9, 8),            # s1 = s0 + pages
            _i(0x13, 10, 0, 0, 1)]                                  # a0 = pass
    code += [_i(0xf, 0, 0, 0, 0)]                                   # fence; every hart but the first waits: csrr a1, mhartid
    code += [_i(0x73, 11, 2, 0, 0xf14 - 0x1000), _b(1, 11, 0, 0)]   # bnez a1, itself
    loop = len(code)
    code += [_i(0x13, 12, 0, 8, 0)]                                 # a2 = s0
    fill = len(code)
    code += [_r(0x33, 13, 4, 12, 10), _s(3, 12, 13, 0), _i(0x13, 12, 0, 12, stride)]  # a3 = a2 ^ a0; sd; a2 += stride
    code += [_b(6, 12, 9, (fill - len(code)) * 4)]                  # bltu a2, s1, fill
    code += [_i(0x13, 12, 0, 8, 0)]
    check = len(code)
    code += [_i(3, 13, 3, 12, 0), _r(0x33, 6, 4, 12, 10)]           # ld a3; t1 = a2 ^ a0
    code += [_b(1, 13, 6, 0)]                                       # bne a3, t1, wrong (patched)
    wrong_at = len(code) - 1
    code += [_i(0x13, 12, 0, 12, stride), _b(6, 12, 9, (check - len(code) - 1) * 4)]
    code += [_i(0x13, 6, 0, 0, ord(".")), _s(0, 5, 6, 0), _i(0x13, 10, 0, 10, 1)]
    code += [_lui(7, delay & ~0xfff) if delay >> 12 else _i(0x13, 7, 0, 0, delay), _i(0x13, 7, 0, 7, -1), _b(1, 7, 0, -4)]
    code += [_j((loop - len(code)) * 4)]
    wrong = len(code)
    code += [_i(0x13, 6, 0, 0, ord("E")), _s(0, 5, 6, 0), _j(-8)]
    code[wrong_at] = _b(1, 13, 6, (wrong - wrong_at) * 4)
    return b"".join(code)


class Pair:
    """Two daemons, each with a certificate of the other's."""

    def __init__(self, join=True, **more):
        self.both = [remote.RemoteDaemon(**more), remote.RemoteDaemon(**more)]
        self.join = join

    def __enter__(self):
        for one in self.both:
            one.start()
            one.init()
        if self.join:
            for i in range(2):
                self.introduce(self.both[i], self.both[1 - i])
        return self

    def __exit__(self, *_):
        for one in self.both:
            one.end()

    @staticmethod
    def url(daemon):
        return f"vmd+tls://127.0.0.1:{daemon.port}"

    def introduce(self, here, there, role="admin", project="*"):
        token = there.call("token.create", role=role, project=project)["token"]
        return here.call("peer.add", url=self.url(there), token=token, user="peer")

    def guest(self, pages=256, **more):
        """A firmware file that both can read."""
        path = os.path.join(self.both[0].dir, f"checker{pages}.bin")
        if not os.path.exists(path):
            with open(path, "wb") as file:
                file.write(checker(pages, **more))
        return path

    def define(self, pages=256, name="a", memory=16, **more):
        config = self.both[0].config(name, **more)
        config["firmware"] = self.guest(pages)
        config["memory"] = memory * lib.MIB
        with self.both[0].client() as client:
            client.call("vm.define", config=config)
            client.call("vm.start", vm=name)

    def migrate(self, here, there, name="a", wait=True, **more):
        with here.client(timeout=120) as client:
            job = client.call("migrate.start", vm=name, to=self.url(there), **more)["job"]
            return client.call("job.wait", job=job, timeout_ms=100000) if wait else job

    @staticmethod
    def watch(daemon, name="a", passes=3, timeout=60.0):
        """The guest makes passes, none of them wrong."""
        console = daemon.console(name)
        seen, end = 0, time.monotonic() + timeout
        try:
            while seen < passes:
                data = console.read_some(timeout)
                if b"E" in data:
                    raise AssertionError("the guest found memory that it did not write so")
                seen += data.count(b".")
                if time.monotonic() > end:
                    raise AssertionError(f"{seen} passes in {timeout} s")
        finally:
            console.close()

    def states(self, name="a"):
        """Of both: state, or None where there is no such VM, or 'down'."""
        found = []
        for one in self.both:
            try:
                vms = {vm["name"]: vm for vm in one.call("vm.list")["vms"]}
                found.append(vms[name]["state"] if name in vms else None)
            except (lib.Gone, OSError):
                found.append("down")
        return found
