# SPDX-License-Identifier: Apache-2.0
"""The pages under docs/reference are what the generators print now. With --write (make docs) they
are written instead of compared."""
import os
import re
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import tree  # noqa: E402


def run(*argv, cwd=None):
    done = subprocess.run(argv, capture_output=True, text=True, cwd=cwd, check=False)
    return done.returncode, done.stdout, done.stderr


def isa_page(top, _out):
    """docs/reference/isa-riscv.md, from the .isa files."""
    with tempfile.TemporaryDirectory() as d:
        path = os.path.join(d, "page.md")
        files = [word for name in ("riscv.isa", "riscv_v.isa")
                 for word in ("--isa", os.path.join(top, "engine/tcg/guest_riscv", name))]
        code, _, err = run(sys.executable, "-B", os.path.join(top, "engine/tcg/gen/isagen.py"),
                           *files, "--doc", path)
        if code:
            raise RuntimeError(err.strip())
        with open(path, encoding="utf-8") as f:
            return f.read()


def extension_page(top, _out):
    """docs/reference/riscv-extensions.md, from the rows of extensions.def."""
    with open(os.path.join(top, "engine/arch/riscv/extensions.def"), encoding="utf-8") as f:
        text = re.sub(r"/\*.*?\*/", "", f.read(), flags=re.S)
    rows = re.findall(r'EXT\(\w+,\s*"(\w+)",\s*([^,]+),\s*([^,]+),\s*([^,]+),\s*"([^"]*)",\s*"([^"]*)"\)', text)
    lines = ["# RISC-V extensions", "",
             "From `engine/arch/riscv/extensions.def`; change that file instead. What CPU models are made of is told in the "
             "[guide](../guide/riscv.md).", "",
             "Switched: on and off by name; by name only: not part of `max`; group: switches what it needs; follows: on when all "
             "that it needs is; always: cannot be off; not yet: known, not offered.", "",
             "| extension | what it is | needs | width | in profiles from | switched |", "|---|---|---|---|---|---|"]
    for name, widths, flags, profiles, needs, doc in rows:
        flags = set(flags.split(" | "))
        how = ("not yet" if "READY" not in flags else "always" if "FIXED" in flags else
               "follows" if "DERIVED" in flags else "group" if "GROUP" in flags else "yes")
        how += ", by name only" if "BY_NAME" in flags else ""
        width = {"BOTH": "32, 64", "RISCV_RV32": "32", "RISCV_RV64": "64"}[widths]
        since = {"U": "rva{}u64", "S": "rva{}s64"}.get(profiles[0], "").format(profiles[1:])
        lines.append(f"| {name} | {doc} | {needs} | {width} | {since} | {how} |")
    return "\n".join(lines) + "\n"


def device_page(_top, out):
    """docs/reference/devices.md, from the tables in the device classes."""
    program = os.path.join(out or ".", "tests/lint/device_page")
    if not os.path.exists(program):
        return None
    code, text, err = run(program)
    if code:
        raise RuntimeError(err.strip())
    return text


def xml_page(_top, out):
    """docs/reference/xml.md, from the tables of daemon/xml."""
    program = os.path.join(out or ".", "tests/lint/xml_page")
    if not os.path.exists(program):
        return None
    code, text, err = run(program)
    if code:
        raise RuntimeError(err.strip())
    return text


# A page and the function that prints it (None: cannot be printed without a build).
PAGES = {
    "docs/reference/isa-riscv.md": isa_page,
    "docs/reference/riscv-extensions.md": extension_page,
    "docs/reference/devices.md": device_page,
    "docs/reference/xml.md": xml_page,
}


def api_problems(top, write):
    """The API pages have a generator that compares by itself."""
    gen = os.path.join(top, "api-schema/gen/apigen.py")
    code, text, err = run(sys.executable, "-B", gen, "--docs" if write else "--check")
    return [] if code == 0 else (text + err).strip().splitlines() or ["apigen.py failed"]


def page_problems(top, page, text):
    path = os.path.join(top, page)
    if not os.path.exists(path):
        return [f"{page} is missing: run make docs"]
    with open(path, encoding="utf-8") as f:
        if f.read() != text:
            return [f"{page} differs from what its generator prints: run make docs"]
    return []


def main():
    top, out = tree.root(), tree.build()
    write = "--write" in sys.argv
    tap = tree.Tap()
    tap.case("API reference is current", api_problems(top, write))
    for page, print_page in PAGES.items():
        text = print_page(top, out)
        if text is None:
            tap.skip(f"{page} is current", "a build folder (run make check)")
            continue
        if write:
            with open(os.path.join(top, page), "w", encoding="utf-8") as f:
                f.write(text)
        tap.case(f"{page} is current", page_problems(top, page, text))
    tap.done()


if __name__ == "__main__":
    main()
