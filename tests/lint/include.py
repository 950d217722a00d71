# SPDX-License-Identifier: Apache-2.0
"""Who may include whom: the floors of docs/ARCHITECTURE.md, and each header on its own.

The table SEES is the drawing; a room always sees itself.
"""
import concurrent.futures
import os
import re
import shlex
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import tree  # noqa: E402

BELOW_EMU = {"engine/base", "engine/core", "engine/arch", "engine/tcg", "engine/kvm", "devices",
             "storage", "network", "api-schema"}
SEES = {
    "engine/base": set(),
    "engine/core": {"engine/base", "engine/arch"},
    "engine/arch": {"engine/base", "engine/core"},
    "engine/tcg": {"engine/base", "engine/core", "engine/arch"},
    "engine/kvm": {"engine/base", "engine/core", "engine/arch"},
    "devices": {"engine/base", "engine/core", "engine/arch", "storage", "network"},
    "storage": {"engine/base"},
    "network": {"engine/base"},
    "api-schema": {"engine/base"},
    "daemon": {"engine/base", "api-schema"},
    "cli": {"engine/base", "api-schema"},
    "engine/emu": BELOW_EMU,
}
# Single files that see more than their room, with the reason.
MORE = [
    # The program vmd-net: the daemon asks it by JSON-RPC, as it does emulators.
    (re.compile(r"network/server/[^/]*\.[ch]$"), {"api-schema"}),
    (re.compile(r"cli/image[^/]*\.[ch]$"), {"storage"}),  # `vmctl image` works with no daemon
]
# Tests see what the room under test sees, and that room.
TESTS_SEE = {
    "tests/unit": {"engine/base"},
    "tests/core": {"engine/base", "engine/core", "engine/arch"},
    "tests/schema": {"engine/base", "api-schema"},
    "tests/isa": {"engine/base", "engine/core", "engine/arch", "engine/tcg"},
    "tests/tcg": {"engine/base", "engine/core", "engine/arch", "engine/tcg"},
    "tests/kvm": {"engine/base", "engine/core", "engine/arch", "engine/kvm"},
    "tests/block": {"engine/base", "storage"},
    "tests/network": {"engine/base", "network"},
    "tests/device": {"engine/base", "engine/core", "engine/arch", "devices", "storage", "network"},
}
TESTS_ELSE = {"engine/base", "api-schema", "daemon", "cli"} | BELOW_EMU | {"engine/emu"}
# A library has a home; other rooms go through that room.
LIBRARIES = [
    (re.compile(r"event2/"), {"engine/base", "api-schema"}),
    (re.compile(r"json-c/|json\.h$"), {"api-schema", "daemon", "cli", "engine/emu", "network"}),
    (re.compile(r"sqlite3\.h$"), {"daemon"}),
    (re.compile(r"libfdt|fdt\.h$"), {"engine/core", "devices", "engine/emu"}),
    (re.compile(r"liburing"), {"storage"}),
    (re.compile(r"libnbd"), {"storage"}),
    (re.compile(r"libxml/"), {"daemon", "cli"}),
    (re.compile(r"seccomp\.h$"), {"engine/emu", "daemon", "network", "storage"}),
    (re.compile(r"slirp/"), {"network"}),
    (re.compile(r"check\.h$"), set()),
]
ARCH = re.compile(r"engine/arch/([a-z0-9]+)/")
GUEST = re.compile(r"engine/tcg/guest_([a-z0-9]+)/")
HOST = re.compile(r"engine/tcg/host_([a-z0-9_]+)/")
# The one file of the translator that lists the guests, and the one that lists the hosts.
REGISTRIES = {"engine/tcg/guests.c", "engine/tcg/hosts.c"}
# A program that is copied into a guest and compiled there: not of this tree.
FOREIGN = "tests/guests/project/"


def sees(path):
    room = tree.room_of(path)
    if room == "tests":
        area = "/".join(path.split("/")[:2])
        if path.startswith("tests/unit/daemon"):
            return {"engine/base", "api-schema", "daemon", "tests"}
        return TESTS_SEE.get(area, TESTS_ELSE) | {"tests"}
    more = set()
    for pattern, extra in MORE:
        if pattern.match(path):
            more |= extra
    return SEES[room] | {room} | more


def tcg_problem(path, target):
    """Inside the translator, guests and hosts are apart, and nothing general knows either."""
    if not path.startswith("engine/tcg/") or path in REGISTRIES:
        return None
    mine, theirs = GUEST.match(path), GUEST.match(target) or ARCH.match(target)
    if theirs and not (mine and mine.group(1) == theirs.group(1)):
        return f"only engine/tcg/guest_{theirs.group(1)} may see {target}"
    mine, theirs = HOST.match(path), HOST.match(target)
    if theirs and not (mine and mine.group(1) == theirs.group(1)):
        return f"only engine/tcg/host_{theirs.group(1)} may see {target}"
    return None


def include_problems(top, also=None):
    """Every forbidden include of the tree at `top`; generated files may lie under `also`."""
    found = []
    for path in tree.files(top, ".c", ".h"):
        room = tree.room_of(path)
        if path.startswith(FOREIGN):
            continue
        if room is None:
            found.append(f"{path}: stands in no room")
            continue
        allowed = sees(path)
        for n, line in enumerate(tree.read(top, path).splitlines(), 1):
            m = tree.INCLUDE.match(line)
            if not m:
                continue
            kind, target = m.groups()
            if kind == "<":
                for pattern, homes in LIBRARIES:
                    if pattern.match(target) and room not in homes and room != "tests":
                        found.append(f"{path}:{n}: <{target}> belongs to {sorted(homes)}")
                continue
            if tree.room_of(target) is None:
                found.append(f'{path}:{n}: "{target}" is not named from the top of the tree')
            elif tree.room_of(target) not in allowed:
                found.append(f"{path}:{n}: {room} must not see {target}")
            elif tcg_problem(path, target):
                found.append(f"{path}:{n}: {tcg_problem(path, target)}")
            elif not any(os.path.exists(os.path.join(d, target)) for d in (top, also) if d):
                found.append(f"{path}:{n}: there is no {target}")
    return found


def popular_headers(top):
    """Headers that more than 30 files include: a note, not a failure."""
    users = {}
    for path in tree.files(top, ".c", ".h"):
        for line in tree.read(top, path).splitlines():
            m = tree.INCLUDE.match(line)
            if m and m.group(1) == '"':
                users.setdefault(m.group(2), set()).add(path)
    return sorted((len(u), h) for h, u in users.items() if len(u) > 30)


def header_problems(top, cc, flags, cwd):
    """Compiles each header alone."""
    def compile_one(header):
        run = subprocess.run(cc + flags + ["-fsyntax-only", "-Wno-unused-function",
                                           "-Wno-unused-const-variable", "-x", "c", "-"],
                             input=f'#include "{header}"\n', capture_output=True, text=True,
                             cwd=cwd, check=False)
        if run.returncode:
            first = [x for x in run.stderr.splitlines() if "error" in x or "warning" in x]
            return f"{header}: {(first or ['?'])[0]}"
        return None

    headers = tree.files(top, ".h")
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        return [p for p in pool.map(compile_one, headers) if p]


def main():
    top, out = tree.root(), tree.build()
    tap = tree.Tap()
    tap.case("every include stays within the floors", include_problems(top, out))
    if out and os.environ.get("VMD_CC"):
        tap.case("every header compiles alone",
                 header_problems(top, shlex.split(os.environ["VMD_CC"]),
                                 shlex.split(os.environ["VMD_CFLAGS"]), out))
    else:
        tap.skip("every header compiles alone", "a configured build (run make check)")
    for count, header in popular_headers(top):
        print(f"# note: {count} files include {header}")
    tap.done()


if __name__ == "__main__":
    main()
