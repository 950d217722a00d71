# SPDX-License-Identifier: Apache-2.0
"""Saving a machine's state and loading it: a guest goes on in another emulator, and damaged files are refused."""

import base64
import fcntl
import hashlib
import hmac
import os
import random
import re
import socket
import struct
import subprocess
import sys
import tempfile
import time

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from emu_lib import Client, Emu, check_end, emu_control, read_until, ready, tap  # noqa: E402
import guest  # noqa: E402

KEY = base64.b64encode(bytes(range(32))).decode()
OTHER = base64.b64encode(bytes(32)).decode()
VMCTL = os.path.join(os.environ.get("VMD_BUILDDIR", "."), "vmctl")
F_ADD_SEALS, F_SEAL_GROW = 1033, 4
MEMORY = 3  # type of a section


def file_of(data=b""):
    fd = os.memfd_create("state")
    os.write(fd, data)
    return fd


def save(client, fd=None, **params):
    """The state as bytes; the answer."""
    fd = file_of() if fd is None else fd
    answer = client.call_with(os.dup(fd), "emu.save", key=params.pop("key", KEY), **params)
    size = os.fstat(fd).st_size
    data = os.pread(fd, size, 0)
    os.close(fd)
    return data, answer


def load(client, data, key=KEY, **params):
    return client.call_with(file_of(data), "emu.load", key=key, **params)


def entries(data):
    """The index: {(type, region, page): (offset, length, digest)}."""
    at, length = struct.unpack_from("<QQ", data, len(data) - 48)
    found = {}
    for i in range(length // 64):
        kind, region, page, where, size, digest = struct.unpack_from("<IIQQQ32s", data, at + 64 * i)
        found[kind, region, page] = (where, size, digest)
    return found


def digests(data):
    return {key: value[2] for key, value in entries(data).items()}


def echo(console, letter):
    console.sendall(letter)
    read_until(console, letter)


def a_guest_goes_on_in_another_emulator():
    with Emu(config={"cpus": 2}) as emu:
        console, c = ready(emu)
        echo(console, b"a")
        state, answer = save(c)
        tap.check(answer["result"]["bytes"] == len(state), f"{answer}, {len(state)} bytes")
        tap.check(c.ok("emu.status")["state"] == "paused", "it does not stand still")
        again, _ = save(c)
        tap.check(digests(state) == digests(again), "two states of a machine that stands still differ")
    with Emu(config={"cpus": 2}, paused=True) as emu:
        console, c = emu.connect(emu.console), Client(emu)
        tap.check("result" in load(c, state), "not loaded")
        tap.check(c.ok("emu.status") == {"state": "paused", "reason": "restored"}, str(c.ok("emu.status")))
        again, _ = save(c)
        tap.check(digests(state) == digests(again), "the machine is not what was saved")
        c.ok("emu.resume")
        echo(console, b"b")
        console.sendall(b"q")
        check_end(emu)


def a_save_may_let_it_run_on():
    with Emu() as emu:
        console, c = ready(emu)
        _, answer = save(c, resume=True)
        tap.check("result" in answer, str(answer))
        echo(console, b"c")
        console.sendall(b"q")
        check_end(emu)


def a_file_that_cannot_grow_leaves_it_running():
    with Emu() as emu:
        console, c = ready(emu)
        fd = os.memfd_create("full", os.MFD_ALLOW_SEALING)
        fcntl.fcntl(fd, F_ADD_SEALS, F_SEAL_GROW)
        _, answer = save(c, fd)
        tap.check(answer["error"]["data"]["error"] == "file-error", str(answer))
        echo(console, b"d")
        console.sendall(b"q")
        check_end(emu)


def refused(c, data, key=KEY):
    answer = load(c, data, key)
    tap.check("error" in answer, f"taken: {answer}")
    return answer["error"]["message"]


def damage_of_every_kind_is_refused():
    """Whatever bit is flipped and wherever the file ends, outside of memory: nothing changes. In memory: it is never run."""
    seed = int(os.environ.get("VMD_TEST_SEED", random.randrange(1 << 30)))
    print(f"# seed {seed}")
    rng = random.Random(seed)
    with Emu() as emu:
        _, c = ready(emu)
        state, _ = save(c)
    index = entries(state)
    memory = [(where, size) for (kind, _, _), (where, size, _) in index.items() if kind == MEMORY]
    inside = lambda at: any(where <= at < where + size for where, size in memory)
    with Emu(paused=True) as emu:
        c = Client(emu)
        before = digests(save(c)[0])
        tap.check("seal" in refused(c, state, OTHER), "another key")
        spots = [at for at in range(len(state)) if not inside(at)]
        machine = next(v[:2] for k, v in index.items() if k[0] == 2)
        spots = [at for at in spots if not machine[0] <= at < machine[0] + machine[1]]
        for at in rng.sample(spots, min(300, len(spots))):
            bad = bytearray(state)
            bad[at] ^= 1 << rng.randrange(8)
            refused(c, bytes(bad))
        for _ in range(100):
            refused(c, state[:rng.randrange(len(state))])
        refused(c, b"")
        refused(c, state + b"\0")
        tap.check(digests(save(c)[0]) == before, "the machine has changed")
        tap.check("result" in load(c, state), "the sound one is not taken")
    for where, size in [machine, rng.choice(memory)]:
        with Emu(paused=True) as emu:
            c = Client(emu)
            bad = bytearray(state)
            bad[where + rng.randrange(size)] ^= 1
            tap.check("damaged" in refused(c, bytes(bad)), "which damage is not said")
            answer = c.call("emu.resume")
            tap.check(answer.get("error", {}).get("data", {}).get("error") == "bad-state", f"it runs: {answer}")
            c.ok("emu.quit")
            check_end(emu)


def format_1(data):
    """The same state in the first format, with SHA-256 in place of seals."""
    old = bytearray(data)
    at, length = struct.unpack_from("<QQ", old, len(old) - 48)
    struct.pack_into("<I", old, 8, 1)
    struct.pack_into("<I", old, len(old) - 56, 1)
    for entry in range(at, at + length, 64):
        kind, region, page, where, size = struct.unpack_from("<IIQQQ", old, entry)
        said = struct.pack("<IIQQ", kind, region, page, size) + old[where:where + size]
        old[entry + 32:entry + 64] = hashlib.sha256(said).digest()
    said = old[:64] + old[at:at + length] + old[-64:-32]
    old[-32:] = hmac.new(bytes(range(32)), said, hashlib.sha256).digest()
    return bytes(old)


def a_state_of_the_first_format_is_taken():
    with Emu() as emu:
        console, c = ready(emu)
        echo(console, b"a")
        state, _ = save(c)
    old = format_1(state)
    with Emu(paused=True) as emu:
        console, c = emu.connect(emu.console), Client(emu)
        for at in (8, len(old) - 56):  # a format that does not fit the seals
            bad = bytearray(old)
            bad[at] = 2
            refused(c, bytes(bad))
        tap.check("formats 1 to 2" in refused(c, state[:8] + b"\3" + state[9:-56] + b"\3" + state[-55:]), "which formats are read is not said")
        tap.check("result" in load(c, old), "not loaded")
        tap.check(digests(save(c)[0]) == digests(state), "the machine is not what was saved")
        c.ok("emu.resume")
        echo(console, b"b")
        console.sendall(b"q")
        check_end(emu)
    where, size = next(v[:2] for k, v in entries(old).items() if k[0] == MEMORY)
    with Emu(paused=True) as emu:
        c = Client(emu)
        bad = bytearray(old)
        bad[where + size // 2] ^= 1
        tap.check("damaged" in refused(c, bytes(bad)), "which damage is not said")
        c.ok("emu.quit")
        check_end(emu)


def a_state_of_another_machine_is_refused_by_name():
    with Emu() as emu:
        _, c = ready(emu)
        state, _ = save(c)
        tap.check("started paused" in refused(c, state), "loaded into a machine that has run")
    for config, word in (({"memory": 128 << 20}, "'ram'"), ({"cpus": 2}, "vCPUs"), ({"rng": False}, "device:"),
                         ({"arch": "riscv32"}, "riscv32")):
        with Emu(config=config, paused=True) as emu:
            text = refused(Client(emu), state)
            tap.check(word in text, f"{config}: {text}")


def linux(folder, files, cpus, paused, disk_format="raw", **tcg):
    wanted = {path: os.O_RDONLY for path in (files["kernel"], files["initrd"], guest.OPENSBI)}
    disk = os.path.join(folder, "disk.img")
    wanted[disk] = os.O_RDWR
    config = {"cpus": cpus, "memory": 256 << 20, "kernel": files["kernel"], "initrd": files["initrd"],
              "firmware": guest.OPENSBI, "append": "console=ttyS0 quiet vmd.run=shell vmd.virtio", "tcg": tcg,
              "disks": [{"file": disk, "name": "disk", "format": disk_format}]}
    return Emu(config=config, files=wanted, paused=paused)


LOOP = (b"dd if=/dev/urandom of=/tmp/r bs=1M count=3 2>/dev/null; want=$(md5sum </tmp/r); i=0\n"
        b"(while :; do dd if=/dev/vda of=/dev/null bs=64k iflag=direct 2>/dev/null; done) &\n"
        b"while :; do is=$(md5sum </tmp/r); [ \"$is\" = \"$want\" ] || echo WRO''NG; i=$((i + 1)); echo N $i; done\n")


def counted(text):
    return [int(n) for n in re.findall(rb"\nN (\d+)\r", text)]


def linux_goes_on_where_it_was(backends=("jit", "jit", "interp", "jit")):
    """A checksum loop beside disk reads, moved from emulator to emulator, from one back end to another."""
    try:
        files = guest.fetched("riscv64-disk")
    except guest.Unavailable as missing:
        raise tap.Skip(str(missing)) from None
    with tempfile.TemporaryDirectory() as folder:
        with open(os.path.join(folder, "disk.img"), "wb") as file:
            file.truncate(16 << 20)
        state, text = None, b""
        for backend in backends:
            with linux(folder, files, 2, state is not None, backend=backend) as emu:
                console, c = emu.connect(emu.console), Client(emu)
                if state is None:
                    read_until(console, b"guest# ")
                    console.sendall(LOOP)
                else:
                    tap.check("result" in load(c, state, resume=True), "not loaded")
                goal = len(counted(text)) + (1 if backend == "interp" else 3)
                text = read_until(console, b"\nN %d\r" % goal, text)
                state, answer = save(c)
                tap.check("result" in answer, str(answer))
                console.settimeout(0.2)
                try:
                    while True:  # a line may be cut in two, its end comes from the next emulator
                        text += console.recv(65536)
                except TimeoutError:
                    pass
                numbers = counted(text)
                tap.check(numbers == list(range(1, len(numbers) + 1)), f"{backend}: {numbers}")
                tap.check(b"WRONG" not in text, text[-300:])


def no_stream_is_lost_when_the_vm_ends_meanwhile():
    with Emu() as emu:
        _, c = ready(emu)
        other = Client(emu)
        c.number += 1
        fd = file_of()
        socket.send_fds(c.sock, [b'{"jsonrpc":"2.0","id":99,"method":"emu.save","params":{"key":"%s"}}\n' % KEY.encode()], [fd])
        os.close(fd)
        other.call("emu.quit")
        check_end(emu)


def a_save_is_told_of_and_cancelled():
    with Emu(config={"memory": 1 << 30}) as emu:
        console, c = ready(emu)
        other = Client(emu)
        tap.check(other.ok("emu.state_status")["active"] is False, "nothing was asked for")
        c.number += 1
        fd = file_of()
        socket.send_fds(c.sock, [b'{"jsonrpc":"2.0","id":%d,"method":"emu.save","params":{"key":"%s"}}\n'
                                 % (c.number, KEY.encode())], [fd])
        os.close(fd)
        status = other.ok("emu.state_status")
        other.ok("emu.state_cancel")
        while True:
            answer = c.line()
            if answer.get("id") == c.number:
                break
        # it may have been done before it could be cancelled
        error = answer.get("error", {}).get("data", {}).get("error")
        tap.check("result" in answer or error == "cancelled", f"{status}, {answer}")
        if error:
            echo(console, b"e")
            console.sendall(b"q")
        else:
            c.call("emu.quit")
        check_end(emu)


def sweeper(mib):
    """A guest that writes 1, then 2 and so on into each page of the upper half of its memory, one after the other (RV64)."""
    def word(*fields):
        value = 0
        for bits, shift in fields:
            value |= bits << shift
        return struct.pack("<I", value & 0xffffffff)
    lui = lambda rd, imm: word((imm, 12), (rd, 7), (0x37, 0))
    addi = lambda rd, rs, imm: word((imm & 0xfff, 20), (rs, 15), (rd, 7), (0x13, 0))
    add = lambda rd, a, b: word((b, 20), (a, 15), (rd, 7), (0x33, 0))
    slli = lambda rd, rs, by: word((by, 20), (rs, 15), (1, 12), (rd, 7), (0x13, 0))
    return (addi(5, 0, 1) + slli(5, 5, 31) + lui(28, mib << 7) + lui(29, mib << 8) + add(6, 5, 29) + add(5, 5, 28) +
            lui(29, 1) +
            addi(7, 7, 1) + addi(30, 5, 0) +
            word((7, 20), (30, 15), (3, 12), (0x23, 0)) +  # sd t2, 0(t5)
            add(30, 30, 29) +
            word((1, 31), (0x3f, 25), (6, 20), (30, 15), (6, 12), (0xc, 8), (1, 7), (0x63, 0)) +  # bltu t5, t1, -8
            word((1, 31), (0x3f6, 21), (1, 20), (0xff, 12), (0x6f, 0)))  # j -20


def swept(emu, c, mib):
    """The number in each page."""
    fd = file_of()
    end = time.monotonic() + 60
    while "error" in (answer := c.call_with(os.dup(fd), "emu.dump")) and time.monotonic() < end:
        tap.check(answer["error"]["data"]["error"] == "bad-state", str(answer))
    core = os.pread(fd, os.fstat(fd).st_size, 0)
    os.close(fd)
    at, count = struct.unpack_from("<Q", core, 32)[0], struct.unpack_from("<H", core, 56)[0]
    for i in range(count):
        kind, _, where, _, gpa, size, _, _ = struct.unpack_from("<IIQQQQQQ", core, at + 56 * i)
        if kind == 1 and gpa <= 0x80000000 < gpa + size:
            begin = where + 0x80000000 - gpa
            return [struct.unpack_from("<Q", core, begin + page)[0] for page in range(mib << 19, mib << 20, 4096)]
    raise AssertionError("no memory in the dump")


def sweeps_on(c, mib, least=0):
    """Waits until the last page has another number, above `least`."""
    last = hex(0x80000000 + (mib << 20) - 4096)
    number = lambda: struct.unpack("<Q", base64.b64decode(c.ok("emu.memory", address=last, size=8)["data"]))[0]
    before, end = number(), time.monotonic() + 60
    while (now := number()) == before or not least < now < 1 << 32:  # the board may put something there
        tap.check(time.monotonic() < end, f"the guest does not run: {now}")
        time.sleep(0.01)


def one_instant(numbers):
    """They are those of one moment: n up to some page, n - 1 from there on."""
    steps = [i for i in range(1, len(numbers)) if numbers[i] != numbers[i - 1]]
    return len(steps) <= 1 and numbers[0] - numbers[-1] in (0, 1)


def live(c, **params):
    data, answer = save(c, live=True, **params)
    tap.check("result" in answer, str(answer))
    if not answer["result"]["live"]:
        raise tap.Skip(f"saving a guest that runs: {answer['result'].get('why_not_live')}")
    return data, answer["result"]


def a_guest_that_runs_is_saved_as_of_one_instant():
    """A guest that never stops writing: what is saved is one moment of it, and it runs on."""
    mib = 128
    with tempfile.NamedTemporaryFile() as file:
        file.write(sweeper(mib))
        file.flush()
        config = {"firmware": file.name, "memory": mib << 20, "rng": False}
        states = []
        with Emu(config=config, files={file.name: os.O_RDONLY}) as emu:
            c = Client(emu)
            c.sock.settimeout(60)
            for _ in range(4):
                sweeps_on(c, mib, 1 if not states else 0)
                states.append(live(c)[0])
                tap.check(c.ok("emu.status")["state"] == "running", "it stands still")
            c.ok("emu.pause")
            tap.check(one_instant(numbers := swept(emu, c, mib)), f"the guest itself is wrong: {set(numbers)}")
            last = numbers[0]
        found = []
        for number, state in enumerate(states):
            with Emu(config=config, files={file.name: os.O_RDONLY}, paused=True) as emu:
                c = Client(emu)
                answer = load(c, state, lazy=number % 2 == 0)
                tap.check(answer.get("result", {}).get("lazy") == (number % 2 == 0), str(answer))
                numbers = swept(emu, c, mib)
                tap.check(one_instant(numbers), f"a mixture: {sorted(set(numbers))}")
                found.append(numbers[0])
                # and it goes on from there
                c.ok("emu.resume")
                sweeps_on(c, mib)
                c.ok("emu.pause")
                tap.check(one_instant(numbers := swept(emu, c, mib)) and numbers[0] > found[-1], str(set(numbers)))
        tap.check(found == sorted(found) and found[-1] <= last, f"{found}, {last}")


def copies_share_the_memory_of_one_instant():
    """A guest that never stops writing is forked: copies go on from one moment of it, by themselves, and the file that they share stays as it was."""
    mib = 64
    with tempfile.NamedTemporaryFile() as file:
        file.write(sweeper(mib))
        file.flush()
        config = {"firmware": file.name, "memory": mib << 20, "rng": False}
        memory = os.memfd_create("memory", os.MFD_ALLOW_SEALING)
        os.ftruncate(memory, mib << 20)
        with Emu(config=config, files={file.name: os.O_RDONLY}) as emu:
            c = Client(emu)
            c.sock.settimeout(60)
            sweeps_on(c, mib, 1)
            data, answer = save(c, memory_apart=True)
            tap.check("emu.fork_memory" in str(answer), str(answer))
            wrong = c.call_with(file_of(bytes(4096)), "emu.fork_memory")
            tap.check(wrong["error"]["data"]["error"] == "invalid-params", str(wrong))
            tap.check("result" in c.call_with(os.dup(memory), "emu.fork_memory"), "not taken")
            data = live(c, memory_apart=True)[0]
            tap.check(len(data) < 1 << 20 and c.ok("emu.status")["state"] == "running", f"{len(data)} bytes")
            sweeps_on(c, mib)
            fcntl.fcntl(memory, F_ADD_SEALS, 1 | 2 | 4 | 8)
            was = hashlib.sha256(os.pread(memory, mib << 20, 0)).digest()
        seen = []
        for number in range(3):
            with Emu(config=config, files={file.name: os.O_RDONLY}, paused=True) as emu:
                c = Client(emu)
                c.sock.settimeout(60)
                if number == 0:
                    answer = load(c, data)
                    tap.check("not given" in str(answer), str(answer))
                tap.check("result" in c.call_with(os.dup(memory), "emu.fork_memory"), "not taken")
                answer = load(c, data, memory_apart=True)
                tap.check("result" in answer, str(answer))
                tap.check(one_instant(numbers := swept(emu, c, mib)), f"a mixture: {sorted(set(numbers))}")
                seen.append(numbers)
                c.ok("emu.resume")
                sweeps_on(c, mib)
                # A copy is saved while it runs, and loaded elsewhere with all of its memory.
                state = live(c)[0]
                sweeps_on(c, mib)
                c.ok("emu.pause")
                tap.check(one_instant(numbers := swept(emu, c, mib)) and numbers[0] > seen[-1][0], str(set(numbers)))
                with Emu(config=config, files={file.name: os.O_RDONLY}, paused=True) as other:
                    o = Client(other)
                    o.sock.settimeout(60)
                    answer = load(o, state, lazy=True)
                    tap.check("result" in answer, str(answer))
                    tap.check(one_instant(found := swept(other, o, mib)), f"a mixture: {sorted(set(found))}")
                    tap.check(seen[-1][0] <= found[0] <= numbers[0], "of another time")
        tap.check(seen[0] == seen[1] == seen[2], "copies differ")
        tap.check(hashlib.sha256(os.pread(memory, mib << 20, 0)).digest() == was, "a copy has written to what all share")
        os.close(memory)


def damage_that_is_found_behind_a_guest_ends_it():
    with Emu() as emu:
        _, c = ready(emu)
        state, _ = live(c)
    ended = 0
    for where, size in [v[:2] for k, v in entries(state).items() if k[0] == MEMORY]:
        bad = bytearray(state)
        bad[where + size // 2] ^= 1
        with Emu(paused=True) as emu:
            c = Client(emu)
            try:
                answer = load(c, bytes(bad), lazy=True)
            except AssertionError:
                answer = {}  # it ended before it could answer
            if "error" in answer:  # small regions come at once
                tap.check("damaged" in answer["error"]["message"], str(answer))
                continue
            status, errors = emu.wait()
            tap.check(status == 3 and "damaged" in errors, f"{status}: {errors}")
            ended += 1
    tap.check(ended, "all memory came at once")


def a_live_save_into_a_full_file_leaves_it_running():
    with Emu() as emu:
        console, c = ready(emu)
        fd = os.memfd_create("full", os.MFD_ALLOW_SEALING)
        fcntl.fcntl(fd, F_ADD_SEALS, F_SEAL_GROW)
        _, answer = save(c, fd, live=True)
        tap.check(answer["error"]["data"]["error"] == "file-error", str(answer))
        tap.check(c.ok("emu.status")["state"] == "running", "it stands still")
        echo(console, b"d")
        live(c)
        console.sendall(b"q")
        check_end(emu)


def disk_image(folder):
    """A small qcow2 image, and what an emulator is told to have it as its disk."""
    path = os.path.join(folder, "disk")
    subprocess.run([VMCTL, "image", "create", "-f", "qcow2", path, "4M"], check=True, stdout=subprocess.DEVNULL,
                   timeout=60)
    return {"config": {"disks": [{"name": "disk", "file": path, "format": "qcow2"}]}, "files": {path: os.O_RDWR}}


def snapshots(c):
    return [s["name"] for s in c.ok("emu.disk_snapshots")["snapshots"]]


def disks_are_of_the_same_instant_or_left_as_they_were():
    with tempfile.TemporaryDirectory() as folder, Emu(**disk_image(folder)) as emu:
        console, c = ready(emu)
        state, answer = save(c, live=True, snapshot="one")
        tap.check("result" in answer and snapshots(c) == ["one"], f"{answer}, {snapshots(c)}")
        tap.check(answer["result"]["bytes"] == len(state), str(answer))
        echo(console, b"a")
        _, answer = save(c, live=True, snapshot="one")
        tap.check(answer["error"]["data"]["error"] == "exists", str(answer))
        tap.check(c.ok("emu.status")["state"] == "running" and snapshots(c) == ["one"], str(snapshots(c)))
        for how in ({"live": True}, {"resume": True}):
            fd = os.memfd_create("full", os.MFD_ALLOW_SEALING)
            fcntl.fcntl(fd, F_ADD_SEALS, F_SEAL_GROW)
            _, answer = save(c, fd, snapshot="two", **how)
            tap.check(answer["error"]["data"]["error"] == "file-error", str(answer))
            tap.check(snapshots(c) == ["one"], f"{how}: {snapshots(c)}")
        _, answer = save(c, resume=True, snapshot="two")
        tap.check("result" in answer and snapshots(c) == ["one", "two"], f"{answer}, {snapshots(c)}")
        echo(console, b"b")
        _, answer = save(c, live=True)
        tap.check("result" in answer and snapshots(c) == ["one", "two"], "nobody asked for one")
        console.sendall(b"q")
        check_end(emu)


# A ring of numbers on the disk, each step's in the place of the one 64 steps before: a disk that is ahead of the shell's memory, or
# behind it, has another number there.
STEPS = (b"i=0; while :; do i=$((i + 1)); at=$((i % 64)); was=$((i - 64)); [ $was -gt 0 ] || was=;\n"
         b"is=$(dd if=/dev/vda bs=512 skip=$at count=1 iflag=direct 2>/dev/null | tr -d '\\0 \\n');\n"
         b"[ \"$is\" = \"$was\" ] || echo WRO''NG $is; printf '%511d\\n' $i |\n"
         b"dd of=/dev/vda bs=512 seek=$at conv=notrunc iflag=fullblock oflag=direct 2>/dev/null; echo N $i; done\n")


def steps_on(console, more, text):
    """So many steps more than are in the text, or than the first that comes."""
    while not counted(text):
        text += read_until(console, b"\r")
    return read_until(console, b"\nN %d\r" % (counted(text)[-1] + more), text)


def disk_and_memory_are_of_one_instant(rounds=3):
    try:
        files = guest.fetched("riscv64-disk")
    except guest.Unavailable as missing:
        raise tap.Skip(str(missing)) from None
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "disk.img")
        subprocess.run([VMCTL, "image", "create", "-f", "qcow2", path, "4M"], check=True, stdout=subprocess.DEVNULL,
                       timeout=60)
        state = None
        for number in range(rounds):
            with linux(folder, files, 2, state is not None, "qcow2") as emu:
                console, c = emu.connect(emu.console), Client(emu)
                if state is None:
                    read_until(console, b"guest# ")
                    console.sendall(STEPS)
                else:
                    tap.check("result" in load(c, state, resume=True), "not loaded")
                text = steps_on(console, 3, b"")
                state, answer = save(c, live=True, snapshot=f"s{number}")
                tap.check("result" in answer, str(answer))
                text = steps_on(console, 30, text)  # it leaves the instant behind
                tap.check(b"WRONG" not in text, text[-300:])
                c.call("emu.quit")
                check_end(emu)
            subprocess.run([VMCTL, "image", "snapshot", "--apply", f"s{number}", path], check=True, timeout=60)


def a_vm_that_ends_while_it_is_saved_leaves_no_snapshot():
    with tempfile.TemporaryDirectory() as folder:
        parts = disk_image(folder)
        parts["config"]["memory"] = 1 << 30
        with Emu(**parts) as emu:
            _, c = ready(emu)
            other = Client(emu)
            fd = file_of()
            socket.send_fds(c.sock, [b'{"jsonrpc":"2.0","id":99,"method":"emu.save","params":{"key":"%s","live":true,'
                                     b'"snapshot":"one"}}\n' % KEY.encode()], [fd])
            os.close(fd)
            other.call("emu.quit")
            check_end(emu)
            try:
                while (answer := c.line()).get("id") != 99:
                    pass
            except (AssertionError, OSError):  # it may be done with the client first
                answer = {}
        done = subprocess.run([VMCTL, "--json", "image", "info", os.path.join(folder, "disk")], capture_output=True,
                              text=True, timeout=60, check=True)
        print(f"# {answer} {done.stdout}".replace("\n", " "))
        kept = '"one"' in done.stdout
        tap.check(not answer or kept == ("result" in answer), f"{answer}, {done.stdout}")


def a_disk_that_keeps_no_snapshots_is_named():
    with tempfile.NamedTemporaryFile() as file:
        file.truncate(1 << 20)
        with Emu(config={"disks": [{"name": "root", "file": file.name}]}, files={file.name: os.O_RDWR}) as emu:
            console, c = ready(emu)
            _, answer = save(c, live=True, snapshot="one")
            tap.check(answer["error"]["data"]["error"] == "unsupported" and "root" in answer["error"]["message"], str(answer))
            echo(console, b"a")
            console.sendall(b"q")
            check_end(emu)


if __name__ == "__main__":
    sys.exit(tap.run_cases([
        a_guest_goes_on_in_another_emulator, a_save_may_let_it_run_on, a_file_that_cannot_grow_leaves_it_running,
        damage_of_every_kind_is_refused, a_state_of_the_first_format_is_taken, a_state_of_another_machine_is_refused_by_name, linux_goes_on_where_it_was,
        a_guest_that_runs_is_saved_as_of_one_instant, copies_share_the_memory_of_one_instant, damage_that_is_found_behind_a_guest_ends_it,
        a_live_save_into_a_full_file_leaves_it_running, disks_are_of_the_same_instant_or_left_as_they_were,
        disk_and_memory_are_of_one_instant,
        a_disk_that_keeps_no_snapshots_is_named, a_vm_that_ends_while_it_is_saved_leaves_no_snapshot,
        no_stream_is_lost_when_the_vm_ends_meanwhile, a_save_is_told_of_and_cancelled,
    ], missing=(guest.Unavailable,)))
