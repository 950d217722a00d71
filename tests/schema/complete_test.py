# SPDX-License-Identifier: Apache-2.0
"""Completion of vmctl in real shells: zsh on a terminal, fish. (bash: vmctl_test.py.)"""
import os
import pty
import re
import select
import shutil
import subprocess
import sys
import time

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "..", "lib")]
import tap  # noqa: E402
from fake import VM, Server  # noqa: E402

BUILD = os.path.abspath(os.environ.get("VMD_BUILDDIR", "."))
ENV = {**{k: v for k, v in os.environ.items() if k not in ("VMCTL_CONNECT", "NO_COLOR")},
       "PATH": BUILD + ":" + os.environ["PATH"], "TERM": "dumb", "COLUMNS": "100"}
VMS = {"vm.list": {"vms": [VM, {**VM, "name": "web"}], "cursor": 0}, "job.list": {"jobs": [{"job": 12}]}}


def need(shell):
    if not shutil.which(shell):
        raise tap.Skip(f"no {shell} here: apt-get install {shell}")


def fish(line):
    """Words that fish offers for a line."""
    script = f"source {BUILD}/cli/completion/vmctl.fish; complete -C '{line}'"
    done = subprocess.run(["fish", "--no-config", "-c", script], capture_output=True, text=True, timeout=60, env=ENV,
                          check=True)
    tap.check(not done.stderr, done.stderr)
    return sorted(text.split("\t")[0] for text in done.stdout.splitlines())


class Zsh:
    """An interactive zsh on a terminal of its own."""

    def __enter__(self):
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.execvpe("zsh", ["zsh", "-f", "-i"], ENV)
        self.say("PROMPT=@@; RPROMPT=; PROMPT_SP=; unset zle_bracketed_paste; LISTMAX=9999; setopt no_beep\n"
                 f"fpath=({BUILD}/cli/completion $fpath); autoload -Uz compinit; compinit -u -D\n"
                 "bindkey '^T' list-choices; echo EN''D\n")
        return self

    def __exit__(self, *_):
        os.close(self.fd)
        os.waitpid(self.pid, 0)

    def say(self, text):
        """Types; returns what the terminal shows until END was printed and the prompt is there again."""
        os.write(self.fd, text.encode())
        out, end = b"", time.monotonic() + 60
        while not (done := re.search(rb"END\r[^@]*@@", out)) and time.monotonic() < end:
            if select.select([self.fd], [], [], 1)[0]:
                out += os.read(self.fd, 65536)
        tap.check(done, f"zsh does not come to its prompt: {out!r}")
        return out.decode(errors="replace")

    def words(self, line):
        """What it lists for a line: the first word of each line, or all of them."""
        shown = self.say(line + "\x14\x15echo EN''D\n")
        shown = re.sub(r"\x1b\[[?0-9;]*[a-zA-Z]", "", shown).replace("\r", "")
        out = set()
        for text in shown.split("\n"):
            if "EN''D" not in text and text != "END" and line.strip() not in text and "@@" not in text:
                out.update(text.split(" -- ")[0].split() if text.strip() != "#" else [])
        return sorted(out)


def fish_completes():
    need("fish")
    tap.check(fish("vmctl sta") == ["start", "state", "stats"], fish("vmctl sta"))
    tap.check(fish("vmctl list --st") == ["--state", "--stats"], fish("vmctl list --st"))
    tap.check(fish("vmctl --color ") == ["always", "auto", "never"], "values")
    tap.check("vm.shutdown" in fish("vmctl api vm.sh"), "methods")
    tap.check("--no-rng" in fish("vmctl define --no-r"), "negated options")
    with Server(VMS) as s:
        tap.check(fish(f"vmctl -c {s.path} show ") == ["db1", "web"], "live names of VMs")
        tap.check(fish(f"vmctl -c {s.path} cancel ") == ["12"], "live numbers of jobs")
        fish(f"vmctl -c {s.path} start w")
        tap.check(s.calls[-1][1] == {"states": ["stopped"]}, "only VMs that can be started")


def zsh_completes():
    need("zsh")
    with Zsh() as z, Server(VMS) as s:
        for line, want in (("vmctl sta", ["start", "state", "stats"]), ("vmctl list --st", ["--state", "--stats"]),
                           ("vmctl --color ", ["always", "auto", "never"])):
            got = z.words(line)
            tap.check(got == want, f"{line!r}: {got}")
        tap.check("vm.shutdown" in z.words("vmctl api vm.sh"), "methods")
        tap.check("--no-rng" in z.words("vmctl define --no-r"), "negated options")
        names = z.words(f"vmctl -c {s.path} show ")
        tap.check(names == ["db1", "web"], names)
        z.words(f"vmctl -c {s.path} start w")
        tap.check(s.calls[-1][1] == {"states": ["stopped"]}, "only VMs that can be started")


if __name__ == "__main__":
    sys.exit(tap.run_cases([fish_completes, zsh_completes]))
