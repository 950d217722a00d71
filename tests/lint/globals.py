# SPDX-License-Identifier: Apache-2.0
"""No mutable globals and no constructors: looks at the symbols of every object in the libraries
and programs of the build folder. Everything hangs from struct vm or from main()."""
import os
import re
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import tree  # noqa: E402

# (object, symbol): the reason.
ALLOWED = {
    ("engine/base/log", "sink"): "the process-wide log, set in main() before threads start",
    ("cli/console", "tty"): "what signal handlers need to restore the terminal",
    ("cli/run", "run_signal"): "set by a signal handler",
    ("engine/core/vcpu", "current"): "thread-local: which vCPU this thread runs",
}
# Names that compilers and sanitizers add.
COMPILER = re.compile(r"^(__asan|__ubsan|__odr|__sancov|\.L|__func__|__PRETTY|_DYNAMIC|__compound"
                      r"|\.str|__const|___asan|\.data|\.bss)")


def objects(out):
    """Object files of the rooms, from make's own folders (tests are programs of one use)."""
    for room in tree.ROOMS:
        if room == "tests":
            continue
        for folder, _dirs, names in os.walk(os.path.join(out, room)):
            for n in sorted(names):
                # The fuzz targets' copies carry what sanitizers add.
                if n.endswith(".o") and not n.startswith("tests_fuzz_"):
                    yield os.path.relpath(os.path.join(folder, n), out)


def symbol_problems(obj, nm_text):
    """Data symbols of one object that may be written at run time."""
    found = []
    base = re.sub(r"/[A-Za-z0-9_]+-([^/]+)$", r"/\1", obj)[:-2]
    for line in nm_text.splitlines():
        fields = line.split()
        if len(fields) < 2:
            continue
        kind, name = fields[-2], fields[-1]
        name = re.sub(r"\.(\d+|[a-z]+\.\d+)$", "", name)
        if kind in "bBdDCgGsS" and not COMPILER.match(name) and (base, name) not in ALLOWED:
            found.append(f"{obj}: {name} can be written; hang it from a struct")
    return found


def section_problems(obj, headers):
    """Sections that hold constructors or destructors."""
    found = []
    for section in re.findall(r"\s\.(init_array|ctors|preinit_array|fini_array|dtors)\S*", headers):
        found.append(f"{obj}: has a section .{section} (constructor or destructor)")
    return found


def tool(*argv):
    return subprocess.run(argv, capture_output=True, text=True, check=False).stdout


def main():
    out = tree.build()
    tap = tree.Tap()
    if os.environ.get("VMD_CFLAGS", "").find("-fsanitize") >= 0:
        tap.skip("no mutable globals", "a build without sanitizers, which add their own")
        tap.done()
    names = list(objects(out)) if out else []
    if not names:
        tap.skip("no mutable globals", "a build folder (run make check)")
        tap.done()
    data, ctors = [], []
    for obj in names:
        path = os.path.join(out, obj)
        # Constants with addresses in them lie in .data.rel.ro under PIE: nm calls them d, so
        # the section of each symbol decides.
        writable = {i for i, flags in sections(tool("readelf", "-SW", path)) if flags}
        text = tool("readelf", "-sW", path)
        data += [p for p in symbol_problems(obj, data_symbols(text, writable))]
        ctors += section_problems(obj, tool("readelf", "-SW", path))
    tap.case("no mutable globals", data)
    tap.case("no constructors", ctors)
    tap.done()


def sections(text):
    """(index, may be written after relocation) of each section, from readelf -SW."""
    for line in text.splitlines():
        m = re.match(r"\s*\[\s*(\d+)\]\s+(\S+)\s+\S+\s+[0-9a-f]+\s+[0-9a-f]+\s+[0-9a-f]+\s+\S+\s+([A-Zlox]*)",
                     line)
        if m:
            name, flags = m.group(2), m.group(3)
            yield m.group(1), "W" in flags and not name.startswith((".data.rel.ro", ".init_array",
                                                                    ".fini_array"))


def data_symbols(text, writable):
    """nm-like lines for the OBJECT and TLS symbols of readelf -sW in writable sections."""
    lines = []
    for line in text.splitlines():
        f = line.split()
        if len(f) >= 8 and f[3] in ("OBJECT", "TLS", "COMMON") and (
                f[6] in writable or f[6] == "COM"):
            lines.append(f"d {f[7]}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
