# SPDX-License-Identifier: Apache-2.0
"""vmctl at a terminal (a pty): bytes pass untouched, Ctrl-] detaches, and the terminal's modes are as
before on every way out. The daemon and the guest's console are played."""
import fcntl
import os
import pty
import select
import signal
import struct
import sys
import termios
import time

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "..", "lib")]
import tap  # noqa: E402
from fake import VM, Console, Failure, Server  # noqa: E402

VMCTL = os.path.join(os.path.abspath(os.environ.get("VMD_BUILDDIR", ".")), "vmctl")
ENDED = {"state": "stopped", "reason": "guest-poweroff", "deleted": False,
         "exit": {"reason": "guest-poweroff", "status": 0}}
TIMEOUT = 30


class Terminal:
    """vmctl on a pty of its own."""

    def __init__(self, server, *args, rows=30, cols=101):
        self.output, self.status = b"", None
        self.master, slave = pty.openpty()
        self.slave = slave  # kept open, so that the modes can be read after vmctl has gone
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, cols, 0, 0))
        self.before = termios.tcgetattr(slave)
        self.pid = os.fork()
        if self.pid == 0:
            os.setsid()
            fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
            for fd in (0, 1, 2):
                os.dup2(slave, fd)
            for signo in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
                signal.signal(signo, signal.SIG_DFL)  # a shell's background job is started with some ignored
            try:
                os.execv(VMCTL, ["vmctl", "-c", server.path, *args])
            finally:
                os._exit(127)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.status is None:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self.master)
        os.close(self.slave)

    def type(self, data):
        os.write(self.master, data)

    def read_until(self, wanted):
        end = time.monotonic() + TIMEOUT
        while wanted not in self.output:
            ready, _, _ = select.select([self.master], [], [], 0.5)
            if ready:
                self.output += os.read(self.master, 4096)
            assert time.monotonic() < end, f"{wanted!r} did not come: {self.output!r}"

    def is_raw(self):
        return not termios.tcgetattr(self.slave)[3] & termios.ICANON

    def await_raw(self, raw=True):
        end = time.monotonic() + TIMEOUT
        while self.is_raw() != raw:
            time.sleep(0.01)
            assert time.monotonic() < end, f"the terminal did not become {'raw' if raw else 'cooked'}"

    def wait(self):
        """Exit status, or minus the signal; what is left of the output is read meanwhile."""
        end = time.monotonic() + TIMEOUT
        while True:
            if select.select([self.master], [], [], 0.02)[0]:
                self.output += os.read(self.master, 4096)
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                break
            assert time.monotonic() < end, f"vmctl does not end: {self.output!r}"
        while select.select([self.master], [], [], 0)[0]:
            self.output += os.read(self.master, 4096)
        self.status = os.waitstatus_to_exitcode(status)
        return self.status

    def check_restored(self):
        assert termios.tcgetattr(self.slave) == self.before, "the terminal is not as it was before"


class Scene:
    """A server whose console is played by the test."""

    def __init__(self, **answers):
        self.server = Server({"vm.wait": ENDED})
        self.console = Console(self.server.dir.name)
        self.server.answers["vm.console"] = {"path": self.console.path}
        self.server.answers.update({k.replace("_", ".", 1): v for k, v in answers.items()})

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.server.__exit__(*exc)

    def attach(self, *args):
        term = Terminal(self.server, "console", "db1", *args)
        return term, self.console.accept()


def bytes_pass_untouched_both_ways():
    with Scene() as s:
        term, guest = s.attach()
        with term:
            term.read_until(b"Ctrl-] detaches")
            term.await_raw()
            guest.sendall(b"login:\x1b[31m \xc3\xa4\r\n\x00\xff")
            term.read_until(b"login:\x1b[31m \xc3\xa4\r\n\x00\xff")
            typed = b"root\r\x03\x04\x1a\x1c\x11\x13\x7f\x16" + bytes(range(0x80, 0x100))
            term.type(typed)
            s.console.read_until(guest, typed)


def ctrl_close_bracket_detaches_and_the_console_takes_one_again():
    with Scene() as s:
        for _ in range(2):
            term, guest = s.attach()
            with term:
                term.await_raw()
                term.type(b"abc\x1ddef")
                assert term.wait() == 0, term.status
                term.check_restored()
                assert b"[detached; 'vmctl console db1' attaches again]" in term.output, term.output
                s.console.typed = b""
                s.console.read_until(guest, b"abc")
                guest.settimeout(20)
                assert guest.recv(10) == b"", "what was typed after Ctrl-] reached the guest"


def escape_key_can_be_chosen_or_left_out():
    with Scene() as s:
        term, guest = s.attach("--escape", "^A")
        with term:
            term.await_raw()
            term.type(b"\x1d")
            s.console.read_until(guest, b"\x1d")
            term.type(b"\x01")
            assert term.wait() == 0
        term, guest = s.attach("--escape", "none")
        with term:
            term.await_raw()
            term.type(b"\x1d\x01x")
            s.console.read_until(guest, b"\x1d\x01x")
            guest.close()
            assert term.wait() == 0


def terminal_is_restored_when_the_vm_ends():
    with Scene() as s:
        term, guest = s.attach()
        with term:
            term.await_raw()
            guest.sendall(b"Power down\r\n")
            guest.close()
            assert term.wait() == 0
            term.check_restored()
            assert b"Power down" in term.output and b"[db1 has ended: stopped, guest-poweroff]" in term.output


def console_that_is_closed_while_the_vm_runs_on():
    def running(_params):
        raise Failure(1010, "timeout", "still running")
    with Scene(vm_wait=running) as s:
        term, guest = s.attach()
        with term:
            term.await_raw()
            guest.close()
            assert term.wait() == 1
            term.check_restored()
            assert b"the VM runs on" in term.output, term.output


def terminal_is_restored_after_every_signal():
    for signo in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGSEGV, signal.SIGABRT):
        with Scene() as s:
            term, _guest = s.attach()
            with term:
                term.await_raw()
                os.kill(term.pid, signo)
                status = term.wait()
                assert status in (128 + signo, -signo), f"{signo}: {status}"
                term.check_restored()


def terminal_is_cooked_while_stopped_and_raw_again_after():
    with Scene() as s:
        term, guest = s.attach()
        with term:
            term.await_raw()
            os.kill(term.pid, signal.SIGTSTP)
            term.await_raw(False)
            os.kill(term.pid, signal.SIGCONT)
            term.await_raw()
            guest.sendall(b"still here")
            term.read_until(b"still here")
            term.type(b"\x1d")
            assert term.wait() == 0
            term.check_restored()


def size_is_typed_when_asked_for():
    with Scene() as s:
        term, guest = s.attach("--send-size")
        with term:
            s.console.read_until(guest, b"stty rows 30 cols 101\r")
            term.type(b"\x1d")
            term.wait()
        s.console.typed = b""
        term, guest = s.attach()
        with term:
            term.await_raw()
            term.type(b"x\x1d")
            term.wait()
            s.console.read_until(guest, b"x")
            assert s.console.typed == b"x", s.console.typed


def backlog_is_shown_without_its_questions_to_the_terminal():
    with Scene() as s:
        term = Terminal(s.server, "console", "db1")
        with term:
            guest = s.console.accept()
            guest.sendall(b"old\x1b[6n\x1b[c\x1b[>0cer\x1b[31m\x1bZ!")
            term.read_until(b"older\x1b[31m!")
            time.sleep(0.2)  # what comes now is no backlog any more: it passes untouched
            guest.sendall(b"\x1b[6nnew")
            term.read_until(b"\x1b[6nnew")
            term.type(b"\x1d")
            term.wait()


def run_answers(events, **more):
    """Answers for `vmctl run`; `events` collects the order of calls."""
    def note(name, result):
        def answer(params):
            events.append((name, params))
            return result
        return answer
    return {"vm_create": note("create", {"job": 1, "name": "r1", "uuid": VM["uuid"]}),
            "job_wait": {"job": 1, "kind": "vm.create", "state": "done"},
            "vm_resume": note("resume", VM), "vm_delete": note("delete", {"name": "r1", "uuid": "u"}),
            "vm_wait": lambda _p: None, **more}


def answer_wait(server, result):
    """Answers the vm.wait that is still open."""
    server.answer_open_call(result)


def run_shows_the_console_and_exits_with_the_guest():
    for reason, state, status in (("guest-poweroff", "stopped", 0), ("quit", "stopped", 10),
                                  ("guest-fail", "stopped", 12), ("crashed", "crashed", 11)):
        events = []
        with Scene(**run_answers(events)) as s:
            term = Terminal(s.server, "run", "r1", "--kernel", "/k")
            with term:
                guest = s.console.accept()
                term.read_until(b"[console of r1; Ctrl-] detaches]")
                term.await_raw()
                guest.sendall(b"hello\r\n")
                term.read_until(b"hello\r\n")
                guest.close()
                answer_wait(s.server, {"state": state, "reason": reason, "exit": {"reason": reason}})
                assert term.wait() == status, f"{reason}: {term.status}: {term.output!r}"
                term.check_restored()
            assert [n for n, _ in events] == ["create", "resume"], events
            assert events[0][1] == {"config": {"name": "r1", "kernel": "/k"}, "transient": True, "paused": True}


def run_outlives_the_daemon():
    events, waits = [], []

    def wait(_params):
        waits.append(1)
        return None if len(waits) == 1 else ENDED
    with Scene(**run_answers(events, vm_wait=wait)) as s:
        with Terminal(s.server, "run", "r1", "--kernel", "/k") as term:
            guest = s.console.accept()
            term.await_raw()
            while not waits:
                time.sleep(0.01)
            s.server.connections[0].shutdown(2)  # the daemon goes; the console does not
            guest.sendall(b"still here")
            term.read_until(b"still here")
            guest.close()
            assert term.wait() == 0, f"{term.status}: {term.output!r}"
            term.check_restored()
        assert len(waits) == 2


def run_detaches_and_leaves_the_vm():
    events = []
    with Scene(**run_answers(events)) as s:
        term = Terminal(s.server, "run", "--kernel", "/k")
        with term:
            _guest = s.console.accept()
            term.await_raw()
            term.type(b"\x1d")
            assert term.wait() == 0
            term.check_restored()
            assert b"r1 runs on" in term.output, term.output
        assert [n for n, _ in events] == ["create", "resume"]
        assert events[0][1]["config"]["name"].startswith("run-")


def run_takes_the_vm_away_after_a_signal():
    events = []
    with Scene(**run_answers(events)) as s:
        term = Terminal(s.server, "run", "r1", "--kernel", "/k")
        with term:
            _guest = s.console.accept()
            term.await_raw()
            os.kill(term.pid, signal.SIGTERM)
            assert term.wait() == 10, term.status
            term.check_restored()
        assert events[-1] == ("delete", {"vm": VM["uuid"], "force": True}), events


def run_reports_a_failed_start():
    failed = {"job": 1, "kind": "vm.create", "state": "failed", "error": {
        "code": 1008, "error": "file-error", "message": "kernel '/k' does not exist", "remedy": "check the path"}}
    events = []
    with Scene(**run_answers(events, job_wait=failed)) as s:
        with Terminal(s.server, "run", "r1", "--kernel", "/k") as term:
            assert term.wait() == 1
            assert b"kernel '/k' does not exist" in term.output


if __name__ == "__main__":
    sys.exit(tap.run_cases([
        bytes_pass_untouched_both_ways, ctrl_close_bracket_detaches_and_the_console_takes_one_again,
        escape_key_can_be_chosen_or_left_out, terminal_is_restored_when_the_vm_ends,
        console_that_is_closed_while_the_vm_runs_on, terminal_is_restored_after_every_signal,
        terminal_is_cooked_while_stopped_and_raw_again_after, size_is_typed_when_asked_for,
        backlog_is_shown_without_its_questions_to_the_terminal, run_shows_the_console_and_exits_with_the_guest,
        run_outlives_the_daemon, run_detaches_and_leaves_the_vm, run_takes_the_vm_away_after_a_signal, run_reports_a_failed_start]))
