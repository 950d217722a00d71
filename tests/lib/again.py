# SPDX-License-Identifier: Apache-2.0
"""Runs what failed in a `make check` of the build folder a second time, alone, and says so.

    python3 tests/lib/again.py BUILD FOLDER...

Only test files in FOLDERs (whole systems of processes, which a busy machine can put out of step), and
only when no other file failed and there are at most three: a fault that shows each time shows again, and
a check with many failures needs no second opinion. A case that passes alone is recorded as UNSTABLE:
sum.py lists it with what it said the first time, and it stays a fault to mend (ADR 0027). Exit status 0
when everything passed this time.
"""
import os
import re
import subprocess
import sys

MOST = 3
BAD = ("FAIL", "ERROR", "XPASS")


def results(path):
    with open(path, encoding="utf-8", errors="replace") as f:
        return [tuple((line.split(" ", 2)[1:] + [""])[:2]) for line in f if line.startswith(":test-result:")]


def failures(root):
    """{test: its cases that failed}, from the .trs files."""
    found = {}
    for folder, _, files in os.walk(os.path.join(root, "tests")):
        for name in files:
            if name.endswith(".trs"):
                path = os.path.join(folder, name)
                bad = [text.strip() for result, text in results(path) if result in BAD]
                if bad:
                    found[os.path.relpath(path, root)[:-4]] = bad
    return found


def source(root, test):
    """The name in TESTS of the test whose .trs file is `test`: scripts have an ending."""
    with open(os.path.join(root, "Makefile"), encoding="utf-8") as f:
        text = f.read()
    for ending in (".py", ".sh"):
        if re.search(r"(?<!\S)" + re.escape(test + ending) + r"(?!\S)", text):
            return test + ending
    return test


def mark(path, before):
    """Names the cases that passed only this time in the .trs file; False when any failed again."""
    if any(result in BAD for result, _ in results(path)):
        return False
    with open(path, "a", encoding="utf-8") as f:
        f.writelines(f":test-result: UNSTABLE {text}\n" for text in before)
    return True


def main():
    root, folders = sys.argv[1], tuple(os.path.join(f, "") for f in sys.argv[2:])
    bad = failures(root)
    if not bad or len(bad) > MOST or not all(test.startswith(folders) for test in bad):
        return 1
    for test in bad:
        print(f"once more, alone: {test}", flush=True)
        first = os.path.join(root, test + ".log")
        if os.path.exists(first):
            os.replace(first, os.path.join(root, test + ".first"))
        os.unlink(os.path.join(root, test + ".trs"))
    make = subprocess.run(["make", "-C", root, "-j1", "check", "TESTS=" + " ".join(source(root, t) for t in bad)],
                          stdin=subprocess.DEVNULL, check=False)
    passed = [mark(os.path.join(root, test + ".trs"), cases) for test, cases in bad.items()
              if os.path.exists(os.path.join(root, test + ".trs"))]
    return 0 if make.returncode == 0 and len(passed) == len(bad) and all(passed) else 1


sys.exit(main())
