# SPDX-License-Identifier: Apache-2.0
"""What the lints share: the list of files, and TAP on standard output."""
import os
import re
import subprocess
import sys

ROOMS = ["engine/base", "engine/core", "engine/arch", "engine/tcg", "engine/kvm", "engine/emu",
         "devices", "storage", "network", "api-schema", "daemon", "cli", "tests"]
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')


def root():
    return os.environ.get("VMD_SRCDIR") or os.path.abspath(
        os.path.join(os.path.dirname(__file__), "..", ".."))


def build():
    return os.environ.get("VMD_BUILDDIR")


def files(top, *endings):
    """Paths from `top` of the files in the rooms and docs: those git knows or would add, or all
    there are in an unpacked distribution."""
    if os.path.exists(os.path.join(top, ".git")):
        out = subprocess.run(["git", "-C", top, "-c", "safe.directory=*", "ls-files", "-co",
                              "--exclude-standard"],
                             check=True, capture_output=True, text=True).stdout
        found = [f for f in out.splitlines() if os.path.isfile(os.path.join(top, f))]
    else:
        found = []
        for folder, dirs, names in os.walk(top):
            if folder == top:
                dirs[:] = [d for d in dirs if d in {r.split("/")[0] for r in ROOMS} | {"docs"}]
            found += [os.path.relpath(os.path.join(folder, n), top) for n in names]
    return sorted(f for f in found if not endings or f.endswith(endings))


def room_of(path):
    for room in ROOMS:
        if path.startswith(room + "/"):
            return room
    return None


def read(top, path):
    with open(os.path.join(top, path), encoding="utf-8", errors="replace") as f:
        return f.read()


class Tap:
    """Collects results; done() prints the plan and ends the program."""

    def __init__(self):
        self.count = 0
        self.bad = 0

    def case(self, name, problems):
        """One case: passes when the list of problems is empty, else prints them first."""
        for p in problems:
            print(f"# {p}")
        self.count += 1
        self.bad += bool(problems)
        more = f" ({len(problems)}: {problems[0]})" if problems else ""
        print(f"{'not ok' if problems else 'ok'} {self.count} - {name}{more}", flush=True)

    def skip(self, name, why):
        self.count += 1
        print(f"ok {self.count} - {name} # SKIP {why}", flush=True)

    def done(self):
        print(f"1..{self.count}")
        sys.exit(1 if self.bad else 0)
