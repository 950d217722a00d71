# SPDX-License-Identifier: Apache-2.0
"""Sizes and openings of files: at most 1,000 lines (or a decision record that names the file),
functions over 60 lines counted, a licence line and an opening comment in each source file."""
import os
import re
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import tree  # noqa: E402

MAX_FILE, MAX_FUNCTION, MAX_COLUMNS = 1000, 60, 96
CODE = (".c", ".h", ".py", ".sh", ".def", ".isa")


def records(top):
    """The text of all decision records."""
    return "\n".join(tree.read(top, f) for f in tree.files(top, ".md") if f.startswith("docs/adr/"))


def long_files(top):
    adr = records(top)
    found = []
    for path in tree.files(top, *CODE):
        n = len(tree.read(top, path).splitlines())
        if n > MAX_FILE and path not in adr:
            found.append(f"{path} has {n} lines; split it, or say why in docs/adr")
    return found


def long_functions(top):
    """(lines, file, first line) of functions over the limit; by this tree's layout a function's
    body stands between `{` and `}` in the first column."""
    found = []
    for path in tree.files(top, ".c", ".h"):
        start = None
        for n, line in enumerate(tree.read(top, path).splitlines(), 1):
            if line == "{":
                start = n
            elif line == "}" and start:
                if n - start - 1 > MAX_FUNCTION:
                    found.append((n - start - 1, path, start))
                start = None
    return sorted(found, reverse=True)


def openings(top):
    """Each source file says its licence in the first lines and then what it is."""
    found = []
    for path in tree.files(top, ".c", ".h", ".py", ".sh", ".mk"):
        head = tree.read(top, path)[:600]
        lines = head.splitlines()
        if not any("SPDX-License-Identifier: Apache-2.0" in x for x in lines[:3]):
            found.append(f"{path}: no SPDX line at the top")
        elif path.endswith((".c", ".h")) and not re.match(
                r"/\* SPDX-License-Identifier: Apache-2\.0 \*/\n+/\*", head):
            found.append(f"{path}: no opening comment under the SPDX line")
    return found


def layout(top):
    found = []
    for path in tree.files(top, ".c", ".h"):
        for n, line in enumerate(tree.read(top, path).splitlines(), 1):
            if "\t" in line:
                found.append(f"{path}:{n}: tab")
            elif line != line.rstrip():
                found.append(f"{path}:{n}: blanks at the end")
    return found


def wide_lines(top):
    """How many lines of each file go beyond the columns that .clang-format has."""
    counts = {}
    for path in tree.files(top, ".c", ".h"):
        n = sum(len(line) > MAX_COLUMNS for line in tree.read(top, path).splitlines())
        if n:
            counts[path] = n
    return counts


def main():
    top = tree.root()
    tap = tree.Tap()
    tap.case(f"no file over {MAX_FILE} lines without a decision record", long_files(top))
    tap.case("every source file opens with licence and purpose", openings(top))
    tap.case("no tabs, no blanks at the end of a line", layout(top))
    wide = wide_lines(top)
    print(f"# note: {sum(wide.values())} lines over {MAX_COLUMNS} columns in {len(wide)} files")
    functions = long_functions(top)
    print(f"# note: {len(functions)} functions over {MAX_FUNCTION} lines")
    for n, path, line in functions[:20]:
        print(f"# note: {n} lines: {path}:{line}")
    tap.done()


if __name__ == "__main__":
    main()
