# SPDX-License-Identifier: Apache-2.0
"""Builds the bench's guest programs and the initramfs around them.

Programs are compiled with Debian's cross compiler when they are first wanted and kept in the
cache of tests/guests/fetch, under a name made of everything that went into them. The archive is
that of tests/guests with one more behind it, which the kernel unpacks over the first.
"""

import glob
import hashlib
import os
import shutil
import stat
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "guests"))
import guest  # noqa: E402
import newc  # noqa: E402

SOURCES = os.path.join(HERE, "guest")
CROSS = "riscv64-linux-gnu-gcc"
FLAGS = ["-std=gnu11", "-O2", "-D_GNU_SOURCE", "-static", "-pthread", "-Wall", "-Wextra",
         "-I", os.path.abspath(os.path.join(HERE, "..", ".."))]
# Of the tools' packages: what the shell rows call, by the name under which they call it.
TOOLS = {"openssl": "usr/bin/openssl", "sqlite3": "usr/bin/sqlite3",
         "as": "usr/bin/riscv64-linux-gnu-as", "cc1": "usr/libexec/gcc/riscv64-linux-gnu/*/cc1"}
LIBRARIES = "usr/lib/riscv64-linux-gnu"


def cache():
    root = os.environ.get("VMD_CACHE")
    if not root:
        home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
        root = os.path.join(home, "vmd")
    folder = os.path.join(os.path.abspath(root), "bench")
    os.makedirs(folder, exist_ok=True)
    return folder


def compiler():
    if shutil.which(CROSS) is None:
        raise guest.Unavailable(f"{CROSS} (packages gcc-riscv64-linux-gnu, libc6-dev-riscv64-cross)")
    return CROSS


def source(prog):
    for suffix in (".c", ".S"):
        path = os.path.join(SOURCES, prog + suffix)
        if os.path.exists(path):
            return path
    raise guest.Unavailable(f"{prog}.c in {SOURCES}")


def made(command, path, inputs):
    """The output of a compiler, from the cache unless something that went into it changed."""
    digest = hashlib.sha256(" ".join(command).encode())
    digest.update(subprocess.run([command[0], "--version"], check=True,
                                 capture_output=True).stdout)
    for name in sorted(inputs):
        with open(name, "rb") as file:
            digest.update(file.read())
    kept = os.path.join(cache(), f"{os.path.basename(path)}-{digest.hexdigest()[:16]}")
    if not os.path.exists(kept):
        with tempfile.TemporaryDirectory(dir=cache()) as folder:
            out = os.path.join(folder, "out")
            run = subprocess.run([*command, "-o", out, path, "-lm"], capture_output=True,
                                 text=True, check=False)
            if run.returncode != 0:
                raise guest.Unavailable(f"{path} does not build: {run.stderr.strip()[:400]}")
            os.replace(out, kept)
    return kept


def headers():
    return glob.glob(os.path.join(SOURCES, "*.h")) + glob.glob(os.path.join(SOURCES, "*.inc"))


def program(prog, defines=""):
    path = source(prog)
    return made([compiler(), *FLAGS, *defines.split()], path, [path, *headers()])


def native(prog, defines=""):
    """The same program for the host, or Unavailable."""
    host = os.environ.get("VMD_CC", "cc").split()[-1]
    if shutil.which(host) is None:
        raise guest.Unavailable("a C compiler for the host")
    path = source(prog)
    flags = [flag for flag in FLAGS if flag != "-static"]
    return made([host, *flags, *defines.split()], path, [path, *headers()])


def contents(path):
    with open(path, "rb") as file:
        return file.read()


def add_tools(archive, root):
    archive.folder("usr")
    archive.folder("usr/lib")
    archive.folder(LIBRARIES)
    archive.link("lib", "usr/lib")
    for name, pattern in TOOLS.items():
        found = glob.glob(os.path.join(root, pattern))
        if len(found) != 1:
            raise guest.Unavailable(f"{pattern} in {root} (fetch --refresh riscv64-tools)")
        archive.file("bin/" + name, contents(os.path.realpath(found[0])), 0o755)
    for path in [os.path.join(root, "usr/lib/ld-linux-riscv64-lp64d.so.1"),
                 *sorted(glob.glob(os.path.join(root, LIBRARIES, "*.so*")))]:
        name = os.path.relpath(path, root)
        if stat.S_ISLNK(os.lstat(path).st_mode):
            archive.link(name, os.readlink(path))
        else:
            archive.file(name, contents(path), 0o755)
    # Preprocessed, because the compiler's headers stay outside.
    archive.folder("bench/src")
    for path in sorted(glob.glob(os.path.join(SOURCES, "*.c"))):
        kept = made([compiler(), "-E", "-P", *FLAGS], path, [path, *headers()])
        archive.file(f"bench/src/{os.path.basename(path)[:-2]}.i", contents(kept))


def add_row(archive, row, short, there):
    args = row.check if short else row.args
    if row.prog.startswith("sh:"):
        archive.file(f"bench/{row.name}.sh", row.prog[3:].encode(), 0o644)
        prog, command = "timed", f"sh /bench/{row.name}.sh {args}"
    else:
        prog, command = row.prog, args
    path = program(prog, row.defines)
    name = os.path.basename(path)
    if name not in there:
        archive.file("bench/bin/" + name, contents(path), 0o755)
        there.add(name)
    archive.file("bench/rows/" + row.name, f"exec /bench/bin/{name} {command}\n".encode(), 0o755)


def initrd(base, rows, short, tools, root, folder):
    """Writes the archive for these rows into a folder; returns its path. tools is what of Debian's
    packages it needs, root where these are unpacked."""
    archive = newc.Newc()
    for name in ("bench", "bench/bin", "bench/rows"):
        archive.folder(name)
    if tools == "tools":
        add_tools(archive, root)
    elif tools:
        archive.tree(root)
    there = set()
    for row in rows:
        add_row(archive, row, short, there)
    first = contents(base)
    path = os.path.join(folder, "initrd")
    with open(path, "wb") as file:
        file.write(first + b"\0" * (-len(first) % 512) + archive.bytes())
    return path
