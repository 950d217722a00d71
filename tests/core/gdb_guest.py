# SPDX-License-Identifier: Apache-2.0
"""The GDB stub against the real translator: a bare guest of a few instructions, stepped, stopped
and interrupted under both back ends, with a client of our own (the protocol) and, where it is
installed, with gdb-multiarch."""
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import time

BUILD = os.environ.get("VMD_BUILDDIR", ".")
RAM = 0x80000000


def asm(words):
    return b"".join(struct.pack("<I", w) for w in words)


# 0: addi t0,t0,1   4: jal ra,16(=20)   8: addi t1,t1,1   12: j 0   16: (never)   20: jalr x0,0(ra)
GUEST = asm([0x00128293, 0x010000EF, 0x00130313, 0xFF5FF06F, 0x00000013, 0x00008067])


class Client:
    """As much of the remote serial protocol as the tests need."""

    def __init__(self, path):
        for _ in range(500):
            try:
                self.s = socket.socket(socket.AF_UNIX)
                self.s.connect(path)
                break
            except OSError:
                self.s.close()
                time.sleep(0.02)
        else:
            raise RuntimeError("the emulator made no socket")
        self.s.settimeout(60)
        self.buf = b""

    def send(self, text):
        data = text.encode("latin-1")
        self.s.sendall(b"$%s#%02x" % (data, sum(data) & 255))

    def recv(self):
        while True:
            start, end = self.buf.find(b"$"), self.buf.find(b"#")
            if start >= 0 and end > start and len(self.buf) >= end + 3:
                text = self.buf[start + 1:end].decode("latin-1")
                self.buf = self.buf[end + 3:]
                self.s.sendall(b"+")
                return text
            more = self.s.recv(65536)
            if not more:
                raise RuntimeError("the emulator closed the connection")
            self.buf += more

    def ask(self, text):
        self.send(text)
        return self.recv()

    def reg(self, n):
        return int.from_bytes(bytes.fromhex(self.ask("p%x" % n)), "little")

    def pc(self):
        return self.reg(32)


def emulator(folder, backend, cpus):
    kernel = os.path.join(folder, "guest.bin")
    with open(kernel, "wb") as f:
        f.write(GUEST)
    config = os.path.join(folder, "config.json")
    with open(config, "w") as f:
        json.dump({"name": "gdb", "memory": 16 << 20, "cpus": cpus, "firmware": kernel,
                   "tcg": {"backend": backend}}, f)
    path = os.path.join(folder, "gdb.sock")
    p = subprocess.Popen([os.path.join(BUILD, "vmd-emu"), "--config", config, "--console", "none",
                          "--paused", "--gdb", path], stdin=subprocess.DEVNULL)
    return p, path


def check(cond, what):
    if not cond:
        raise AssertionError(what)


def step_to_ram(c):
    """Through the reset code, one instruction at a time."""
    for _ in range(50):
        if c.pc() == RAM:
            return
        check(c.ask("vCont;s:1").startswith("T05"), "a step ends")
    raise AssertionError("the reset code does not reach RAM: pc %x" % c.pc())


def steps_visit_every_instruction(c):
    step_to_ram(c)
    before = c.reg(5), c.reg(6)
    for lap in range(3):
        for offset in (0, 4, 20, 8, 12):
            check(c.pc() == RAM + offset, "lap %d: pc %x, not +%d" % (lap, c.pc(), offset))
            check(c.ask("vCont;s:1") == "T05thread:1;", "step")
    check((c.reg(5), c.reg(6)) == (before[0] + 3, before[1] + 3), "counters after three laps")


def breakpoints_are_met_each_time(c):
    step_to_ram(c)
    check(c.ask("Z0,%x,4" % (RAM + 8)) == "OK", "breakpoint")
    laps = c.reg(6)
    for lap in range(20):
        check(c.ask("vCont;c").startswith("T05"), "continue")
        check(c.pc() == RAM + 8, "pc %x at the breakpoint" % c.pc())
        check(c.reg(6) == laps + lap, "the instruction at the breakpoint has not run")
        check(c.ask("vCont;s:1").startswith("T05") and c.pc() == RAM + 12, "step off it")
    check(c.ask("z0,%x,4" % (RAM + 8)) == "OK", "removal")


def interrupt_and_written_registers(c):
    step_to_ram(c)
    for value in (1000, 1 << 40):
        before = c.reg(5)
        c.send("vCont;c")
        time.sleep(0.05)
        c.s.sendall(b"\x03")
        check(c.recv().startswith("T02"), "interrupt")
        check(c.reg(5) > before, "the guest ran")
        check(RAM <= c.pc() < RAM + len(GUEST), "pc %x" % c.pc())
        check(c.ask("P5=" + struct.pack("<Q", value).hex()) == "OK", "write t0")
        check(c.ask("P20=" + struct.pack("<Q", RAM).hex()) == "OK", "write pc")
        check(c.ask("vCont;s:1").startswith("T05"), "step")
        check(c.reg(5) == value + 1, "the written value is used")


def written_code_is_executed(c):
    step_to_ram(c)
    c.send("vCont;c")
    time.sleep(0.05)
    c.s.sendall(b"\x03")
    c.recv()
    code = asm([0x06428293])  # addi t0,t0,100
    check(c.ask("M%x,4:%s" % (RAM, code.hex())) == "OK", "write memory")
    check(c.ask("m%x,4" % RAM) == code.hex(), "read it back")
    check(c.ask("Z0,%x,4" % RAM) == "OK", "breakpoint")
    check(c.ask("vCont;c").startswith("T05") and c.pc() == RAM, "continue")
    before = c.reg(5)
    check(c.ask("vCont;s:1").startswith("T05"), "step")
    check(c.reg(5) == before + 100, "the new instruction ran")


def step_over_wfi_does_not_wait(c):
    step_to_ram(c)
    check(c.ask("M%x,4:%s" % (RAM, asm([0x10500073]).hex())) == "OK", "write wfi")
    check(c.ask("vCont;s:1") == "T05thread:1;" and c.pc() == RAM + 4, "step")


def vcpus_step_alone(c):
    check(c.ask("qfThreadInfo") == "m1,2", "threads")
    step_to_ram(c)
    check(c.ask("Hg2") == "OK", "second vCPU")
    check(c.pc() != RAM, "the second has not moved")
    step_to_ram_of_second(c)
    check(c.ask("Z0,%x,4" % (RAM + 20)) == "OK", "breakpoint")
    hit = set()
    for _ in range(50):
        stop = c.ask("vCont;c")
        check(stop.startswith("T05thread:"), "continue: " + stop)
        thread = stop[10:-1]
        hit.add(thread)
        check(c.pc() == RAM + 20, "pc of the vCPU that stopped")
        check(c.ask("vCont;s:" + thread).startswith("T05"), "step off it")
    check(hit <= {"1", "2"} and hit, "threads that stopped: %s" % hit)


def step_to_ram_of_second(c):
    for _ in range(50):
        if c.pc() == RAM:
            return
        check(c.ask("vCont;s:2") == "T05thread:2;", "a step of the second ends")
    raise AssertionError("pc %x" % c.pc())


TESTS = [(steps_visit_every_instruction, 1), (breakpoints_are_met_each_time, 1),
         (interrupt_and_written_registers, 1), (written_code_is_executed, 1),
         (step_over_wfi_does_not_wait, 1), (vcpus_step_alone, 2)]


def run_one(test, backend, cpus):
    with tempfile.TemporaryDirectory(prefix="vmd-gdb-") as folder:
        p, path = emulator(folder, backend, cpus)
        try:
            c = Client(path)
            test(c)
            c.send("k")
            check(p.wait(60) is not None, "ends when killed by the debugger")
            return None
        except (AssertionError, OSError, RuntimeError, ValueError,
                subprocess.TimeoutExpired) as e:
            return str(e) or type(e).__name__
        finally:
            if p.poll() is None:
                p.kill()
                p.wait()


def run_gdb():
    """The real client: connects, reads our target description, steps, stops at a breakpoint."""
    commands = ["set pagination off", "set confirm off", "target remote %s", "stepi", "p/x $pc",
                "hbreak *0x80000008", "continue", "p/x $pc", "info threads", "p $priv", "delete",
                "kill"]
    with tempfile.TemporaryDirectory(prefix="vmd-gdb-") as folder:
        p, path = emulator(folder, "jit", 2)
        try:
            Client(path).s.close()  # waits for the socket; a client that goes is forgotten
            args = ["gdb-multiarch", "-nx", "-batch"]
            for line in commands:
                args += ["-ex", line.replace("%s", path)]
            out = subprocess.run(args, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                 stderr=subprocess.STDOUT, timeout=120, check=False, text=True).stdout
            for want in ("= 0x80000008", "Thread 2 (vCPU 1)", "$3 = 3"):
                if want not in out:
                    return "gdb does not say '%s':\n%s" % (want, out)
            return None
        finally:
            p.kill()
            p.wait()


def main():
    n = failed = 0
    for test, cpus in TESTS:
        for backend in ("jit", "interp"):
            n += 1
            why = run_one(test, backend, cpus)
            failed += why is not None
            name = "%s (%s)" % (test.__name__, backend)
            print("ok %d - %s" % (n, name) if why is None else
                  "not ok %d - %s\n# %s" % (n, name, why.replace("\n", "\n# ")), flush=True)
    n += 1
    if shutil.which("gdb-multiarch"):
        why = run_gdb()
        failed += why is not None
        print("ok %d - gdb-multiarch debugs a guest" % n if why is None else
              "not ok %d - gdb-multiarch debugs a guest\n# %s" % (n, why.replace("\n", "\n# ")))
    else:
        print("ok %d - gdb-multiarch debugs a guest # SKIP gdb-multiarch is not installed" % n)
    print("1..%d" % n)
    return 1 if failed else 0


sys.exit(main())
