# SPDX-License-Identifier: Apache-2.0
"""A person's console: `vmctl console` in tmux at the shell of a Linux guest.

tmux is the terminal: what it shows is what a person would see.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
for folder in ("guests", "lib", "e2e"):
    sys.path.insert(0, os.path.join(HERE, "..", folder))
import guest  # noqa: E402
import tap  # noqa: E402

COLUMNS, ROWS = 97, 31
# tmux leaves out spaces at the end of a line.
PROMPT = r"guest#$"


class Terminal:
    """A tmux server of its own with one window that runs a shell command, then `cat`."""

    def __init__(self, command, folder):
        if shutil.which("tmux") is None:
            raise tap.Skip("tmux")
        self.socket = os.path.join(folder, "tmux.sock")
        self.tmux("-f", "/dev/null", "new-session", "-d", "-x", str(COLUMNS), "-y", str(ROWS),
                  f"{command}; echo LEFT $?; exec cat")

    def tmux(self, *arguments):
        run = subprocess.run(["tmux", "-S", self.socket, *arguments], capture_output=True,
                             text=True, check=False, timeout=30,
                             env={**os.environ, "TERM": "xterm", "LC_ALL": "C.UTF-8"})
        if run.returncode != 0:
            raise AssertionError(f"tmux {arguments[0]}: {run.stderr.strip()}")
        return run.stdout

    def screen(self):
        return self.tmux("capture-pane", "-p", "-S", "-500").rstrip("\n")

    def type(self, text):
        self.tmux("send-keys", "-l", text)

    def key(self, name):
        self.tmux("send-keys", name)

    def see(self, pattern, timeout=60.0):
        """Waits until the screen matches; returns it."""
        deadline = time.monotonic() + timeout
        while True:
            screen = self.screen()
            if re.search(pattern, screen, re.MULTILINE):
                return screen
            if time.monotonic() > deadline:
                raise AssertionError(f"no {pattern!r} on the screen:\n{screen[-2500:]}")
            time.sleep(0.05)

    def close(self):
        try:
            self.tmux("kill-server")
        except (AssertionError, subprocess.TimeoutExpired):
            pass


class Bench:
    """A private daemon, a guest at its shell, and terminals attached to it."""

    def __init__(self):
        self.terminals = []
        for name in ("vmd", "vmctl", "vmd-emu"):
            path = os.path.join(guest.builddir(), name)
            if not os.access(path, os.X_OK):
                raise tap.Skip(path)
        self.vmctl = os.path.join(guest.builddir(), "vmctl")
        files = guest.fetched("riscv64")
        self.folder = tempfile.mkdtemp(prefix="vmd-console-", dir="/tmp")
        self.daemon = None
        self.start_daemon()
        self.ctl("create", "g", "--memory", "256M", "--kernel", files["kernel"], "--initrd",
                 files["initrd"], "--append", "console=ttyS0 quiet vmd.run=shell")

    def start_daemon(self):
        self.daemon = subprocess.Popen(
            [os.path.join(guest.builddir(), "vmd"), "--dir", self.folder],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=open(os.path.join(self.folder, "log"), "ab"))
        deadline = time.monotonic() + 30
        while self.run("list").returncode != 0:
            tap.check(time.monotonic() < deadline, "the daemon does not answer")
            time.sleep(0.05)

    def kill_daemon(self):
        self.daemon.kill()
        self.daemon.wait()

    def run(self, *arguments):
        url = f"vmd+unix://{self.folder}/run/vmd.sock"
        return subprocess.run([self.vmctl, "-c", url, *arguments], capture_output=True, text=True,
                              stdin=subprocess.DEVNULL, timeout=60, check=False)

    def ctl(self, *arguments):
        run = self.run(*arguments)
        tap.check(run.returncode == 0, f"vmctl {' '.join(arguments)}: {run.stderr.strip()}")
        return run.stdout

    def attach(self, *options):
        url = f"vmd+unix://{self.folder}/run/vmd.sock"
        command = shlex.join([self.vmctl, "-c", url, "console", "g", *options])
        folder = tempfile.mkdtemp(dir=self.folder)
        terminal = Terminal(command, folder)
        self.terminals.append(terminal)
        return terminal

    def __enter__(self):
        return self

    def __exit__(self, *_exc):
        for terminal in self.terminals:
            terminal.close()
        if self.daemon.poll() is not None:
            self.start_daemon()
        self.run("stop", "g")
        self.run("rm", "g")
        self.daemon.terminate()
        try:
            self.daemon.wait(20)
        except subprocess.TimeoutExpired:
            self.daemon.kill()
            self.daemon.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


def typing_reaches_the_shell_and_ctrl_c_the_program():
    with Bench() as bench:
        term = bench.attach()
        term.see(PROMPT, 120)
        term.type("echo sum $((40 + 2))")
        term.see(r"guest# echo sum \$\(\(40 \+ 2\)\)$")
        term.key("Enter")
        term.see(r"^sum 42$")
        term.type("sleep 1000 && echo not-reached\n")
        term.see(r"sleep 1000")
        time.sleep(0.5)
        term.key("C-c")
        term.see(r"sleep 1000.*\n\^C\n" + PROMPT)
        term.type("echo status $?\n")
        term.see(r"^status 130$")
        tap.check("\nnot-reached" not in term.screen(), "Ctrl-C did not end the program")


def editing_keys_and_the_window_width_work():
    with Bench() as bench:
        term = bench.attach()
        term.see(PROMPT, 120)
        term.type("resize; stty size\n")
        term.see(rf"^{ROWS} {COLUMNS}$")
        # A line longer than the window goes on in the next one, and editing keeps it right.
        long = "echo " + "0123456789" * 11
        term.type(long)
        first = ("guest# " + long)[:COLUMNS]
        rest = ("guest# " + long)[COLUMNS:]
        term.see("^" + re.escape(first) + "\n" + re.escape(rest) + "$")
        for _ in range(3):
            term.key("BSpace")
        term.key("Enter")
        wide = ("0123456789" * 11)[:-3]
        term.see("^" + wide[:COLUMNS] + "\n" + wide[COLUMNS:] + "$")
        term.key("Up")
        term.see(re.escape(rest[:-3]) + "$")
        term.key("C-u")
        term.tmux("resize-window", "-x", "60", "-y", "20")
        term.type("resize; stty size\n")
        term.see(r"^20 60$")


def detaching_leaves_the_guest_and_attaching_again_finds_it():
    with Bench() as bench:
        term = bench.attach()
        term.see(PROMPT, 120)
        term.type("marker=kept; echo before\n")
        term.see(r"^before$")
        term.key("C-]")
        term.see(r"^LEFT 0$")
        tap.check("running" in bench.ctl("show", "g"), "the VM ended with its console")
        again = bench.attach()
        again.type("echo $marker-after\n")
        screen = again.see(r"^kept-after$")
        tap.check("before" in screen, "what was on the console before is not shown")
        bench.ctl("stop", "g")
        again.see(r"^LEFT ")


def two_terminals_share_one_console():
    with Bench() as bench:
        one = bench.attach()
        one.see(PROMPT, 120)
        two = bench.attach()
        two.see(PROMPT, 120)
        one.type("echo from-one\n")
        two.see(r"^from-one$")
        two.type("echo from-two\n")
        one.see(r"^from-two$")


def console_goes_on_when_the_daemon_is_killed():
    with Bench() as bench:
        term = bench.attach()
        term.see(PROMPT, 120)
        bench.kill_daemon()
        term.type("echo without-daemon\n")
        term.see(r"^without-daemon$")
        bench.start_daemon()
        tap.check("running" in bench.ctl("show", "g"), "the new daemon does not know the VM")
        term.type("echo with-daemon\n")
        term.see(r"^with-daemon$")
        other = bench.attach()
        other.see(r"^with-daemon$")


CASES = (
    typing_reaches_the_shell_and_ctrl_c_the_program, editing_keys_and_the_window_width_work,
    detaching_leaves_the_guest_and_attaching_again_finds_it, two_terminals_share_one_console,
    console_goes_on_when_the_daemon_is_killed,
)

if __name__ == "__main__":
    sys.exit(tap.run_cases(CASES, missing=(guest.Unavailable,)))
