# SPDX-License-Identifier: Apache-2.0
"""Everything that git knows is packed by `make dist`; the list of packed files is in the file
named by VMD_DISTFILES. Skipped in an unpacked distribution, which proves it by building."""
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import tree  # noqa: E402


def missing(known, packed):
    """Files of git that neither stand in the list nor lie in a folder of the list."""
    folders = tuple(p.rstrip("/") + "/" for p in packed)
    return [f"{f} is not packed by make dist; add it to SOURCES or EXTRA_DIST" for f in known
            if f not in packed and not f.startswith(folders)]


def main():
    top = tree.root()
    tap = tree.Tap()
    name = os.path.join(tree.build() or "", "tests/lint/distfiles")
    if not os.path.exists(os.path.join(top, ".git")) or not os.path.exists(name):
        tap.skip("every file is packed", "a git checkout and a build folder")
    else:
        with open(name, encoding="utf-8") as f:
            packed = set(f.read().split())
        tap.case("every file is packed", missing(tree.files(top), packed))
    tap.done()


if __name__ == "__main__":
    main()
