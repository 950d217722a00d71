# SPDX-License-Identifier: Apache-2.0
"""Breaks every rule once, in a small tree of its own, and expects the lint to see it."""
import os
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import dist  # noqa: E402
import globals as globals_lint  # noqa: E402
import include  # noqa: E402
import reference  # noqa: E402
import size  # noqa: E402
import tree  # noqa: E402

HEAD = "/* SPDX-License-Identifier: Apache-2.0 */\n/*\n * A file.\n */\n"
CLEAN = {
    "engine/base/err.h": HEAD + "struct err;\n",
    "engine/core/vm.h": HEAD + '#include "engine/base/err.h"\nstruct vm;\n',
    "engine/tcg/tcg.c": HEAD + '#include "engine/core/vm.h"\nint t;\n',
    "engine/arch/riscv/cpu.h": HEAD,
    "engine/tcg/guest_riscv/a.c": HEAD + '#include "engine/arch/riscv/cpu.h"\nint a;\n',
    "engine/tcg/guests.c": HEAD + '#include "engine/arch/riscv/cpu.h"\nint g;\n',
    "engine/tcg/host_x86_64/emit.h": HEAD,
    "engine/kvm/kvm.h": HEAD,
    "storage/block.h": HEAD + '#include "engine/base/err.h"\nstruct blk;\n',
    "daemon/main.c": HEAD + '#include "engine/base/err.h"\nint d;\n',
    "cli/image.c": HEAD + '#include "storage/block.h"\nint i;\n',
}


def make(files):
    """A folder with the clean tree, changed by `files`."""
    d = tempfile.TemporaryDirectory(prefix="vmd-lint-")
    for path, text in {**CLEAN, **files}.items():
        full = os.path.join(d.name, path)
        os.makedirs(os.path.dirname(full), exist_ok=True)
        with open(full, "w", encoding="utf-8") as f:
            f.write(text)
    return d


# What is added to the clean tree, and a piece of the complaint it must bring.
INCLUDE_BREAKS = {
    "core includes a device": ("engine/core/x.c", '#include "devices/x.h"\n', "must not see"),
    "base includes core": ("engine/base/x.c", '#include "engine/core/vm.h"\n', "must not see"),
    "tcg and kvm meet": ("engine/tcg/x.c", '#include "engine/kvm/kvm.h"\n', "must not see"),
    "storage knows core": ("storage/x.c", '#include "engine/core/vm.h"\n', "must not see"),
    "daemon includes core": ("daemon/x.c", '#include "engine/core/vm.h"\n', "must not see"),
    "cli outside image includes storage": ("cli/x.c", '#include "storage/block.h"\n', "must not see"),
    "core includes the API": ("engine/core/x.c", '#include "api-schema/x.h"\n', "must not see"),
    "the translator knows a guest": ("engine/tcg/x.c", '#include "engine/arch/riscv/cpu.h"\n',
                                     "only engine/tcg/guest_riscv"),
    "a guest knows a host": ("engine/tcg/guest_riscv/x.c",
                             '#include "engine/tcg/host_x86_64/emit.h"\n', "only engine/tcg/host_"),
    "a guest knows another guest": ("engine/tcg/guest_a64/x.c",
                                    '#include "engine/arch/riscv/cpu.h"\n', "only engine/tcg/guest_"),
    "a path that is not from the top": ("engine/base/x.c", '#include "err.h"\n', "from the top"),
    "a header that is not there": ("engine/base/x.c", '#include "engine/base/no.h"\n', "there is no"),
    "sqlite outside the daemon": ("cli/x.c", "#include <sqlite3.h>\n", "belongs to"),
    "json-c in a device": ("devices/x.c", "#include <json-c/json.h>\n", "belongs to"),
    "a unit test that looks up": ("tests/unit/x.c", '#include "engine/core/vm.h"\n', "must not see"),
}


def expect(problems, piece):
    """Problems of a TAP case: none when the lint complained with these words."""
    return [] if any(piece in p for p in problems) else [f"no complaint with '{piece}': {problems}"]


def include_cases(tap):
    with make({}) as top:
        tap.case("include: a clean tree passes", include.include_problems(top))
    for name, (path, text, piece) in INCLUDE_BREAKS.items():
        with make({path: HEAD + text}) as top:
            tap.case(f"include: {name}", expect(include.include_problems(top), piece))
    with make({"engine/base/x.h": HEAD + "struct undeclared_size { size_t n; };\n"}) as top:
        cc = (os.environ.get("VMD_CC") or "cc").split()
        tap.case("include: a header that needs another",
                 expect(include.header_problems(top, cc, ["-I" + top], top), "engine/base/x.h"))


def size_cases(tap):
    long = HEAD + "int x;\n" * 1001
    with make({"storage/x.c": long}) as top:
        tap.case("size: a long file", expect(size.long_files(top), "storage/x.c"))
    with make({"storage/x.c": long, "docs/adr/0009-x.md": "storage/x.c is long because"}) as top:
        tap.case("size: a long file with a record passes", size.long_files(top))
    with make({"storage/x.c": HEAD + "int f(void)\n{\n" + "    ;\n" * 61 + "}\n"}) as top:
        tap.case("size: a long function is counted",
                 [] if [n for n, _, _ in size.long_functions(top)] == [61] else ["not counted"])
    with make({"storage/x.c": "int x;\n", "storage/y.c": HEAD[:41] + "\nint y;\n"}) as top:
        tap.case("size: no licence", expect(size.openings(top), "x.c: no SPDX"))
        tap.case("size: no opening comment", expect(size.openings(top), "y.c: no opening"))
    with make({"storage/x.c": HEAD + "\tint x;\n", "storage/y.c": HEAD + "int x; \n"}) as top:
        tap.case("size: a tab", expect(size.layout(top), "x.c:5: tab"))
        tap.case("size: blanks at the end", expect(size.layout(top), "y.c:5: blanks"))


def globals_cases(tap):
    source = ("static int counter; int *vmd_g(void); int *vmd_g(void) { return &counter; }\n"
              "const int table[] = {1}; static const char *const names[] = {\"a\"};\n"
              "const char *const *vmd_n(void); const char *const *vmd_n(void) { return names; }\n"
              "extern int vmd_x(void);\n"
              "__attribute__((constructor)) static void early(void) { counter = vmd_x(); }\n")
    cc = (os.environ.get("VMD_CC") or "cc").split()
    with make({"storage/x.c": source}) as top:
        path = os.path.join(top, "storage/x.c")
        code, _, err = reference.run(*cc, "-O1", "-fPIE", "-c", path, "-o", path[:-1] + "o")
        if code:
            tap.case("globals: the sample compiles", [err])
            return
        obj = os.path.join(top, "storage/x.o")
        head = globals_lint.tool("readelf", "-SW", obj)
        writable = {i for i, flag in globals_lint.sections(head) if flag}
        symbols = globals_lint.data_symbols(globals_lint.tool("readelf", "-sW", obj), writable)
        found = globals_lint.symbol_problems("storage/x.o", symbols)
        tap.case("globals: a mutable static", expect(found, "counter can be written"))
        tap.case("globals: constants pass", [p for p in found if "counter" not in p])
        tap.case("globals: a constructor",
                 expect(globals_lint.section_problems("storage/x.o", head), "constructor"))


def page_cases(tap):
    with make({"docs/reference/x.md": "old\n"}) as top:
        tap.case("reference: a stale page",
                 expect(reference.page_problems(top, "docs/reference/x.md", "new\n"), "differs"))
        tap.case("reference: a missing page",
                 expect(reference.page_problems(top, "docs/reference/y.md", "new\n"), "missing"))
        tap.case("reference: a current page passes",
                 reference.page_problems(top, "docs/reference/x.md", "old\n"))
    tap.case("dist: an unpacked file", expect(dist.missing(["a/b", "c/d", "e"], {"a", "e"}), "c/d"))


def main():
    tap = tree.Tap()
    include_cases(tap)
    size_cases(tap)
    globals_cases(tap)
    page_cases(tap)
    tap.done()


if __name__ == "__main__":
    main()
