# SPDX-License-Identifier: Apache-2.0
"""The pages under docs/reference are what the generators print now. With --write (make docs) they
are written instead of compared."""
import os
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


def device_page(_top, out):
    """docs/reference/devices.md, from the tables in the device classes."""
    program = os.path.join(out or ".", "tests/lint/device_page")
    if not os.path.exists(program):
        return None
    code, text, err = run(program)
    if code:
        raise RuntimeError(err.strip())
    return text


# A page and the function that prints it (None: cannot be printed without a build).
PAGES = {
    "docs/reference/isa-riscv.md": isa_page,
    "docs/reference/devices.md": device_page,
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
