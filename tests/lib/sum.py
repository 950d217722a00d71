# SPDX-License-Identifier: Apache-2.0
"""Adds up the .trs files of a `make check` in the build folder named on the command line.

Prints what was skipped and why, what passed only when run again alone (again.py), what failed and what
its program said, and last `N passed, N failed, N skipped`. Exit status 1 when anything failed or no test
ran at all.
"""
import os
import sys

SAID = 60  # lines of a failed program's log that are shown


def said(log):
    """What a failed program said last, without the cases that passed."""
    try:
        with open(log, encoding="utf-8", errors="replace") as f:
            lines = [line.rstrip("\n") for line in f if not line.startswith("ok ")]
    except OSError:
        return []
    return lines[-SAID:]


def main():
    root = sys.argv[1] if len(sys.argv) > 1 else "."
    passed, failed, skipped, unstable, logs = 0, [], [], [], {}
    for folder, dirs, files in os.walk(os.path.join(root, "tests")):
        dirs.sort()
        for name in sorted(files):
            if not name.endswith(".trs"):
                continue
            path = os.path.join(folder, name)
            test = os.path.relpath(path, root)[:-4]
            with open(path, encoding="utf-8", errors="replace") as f:
                results = [line.split(" ", 2)[1:] for line in f if line.startswith(":test-result:")]
            for result, text in ((r[0].strip(), r[1].strip() if len(r) > 1 else "") for r in results):
                if result in ("PASS", "XFAIL"):
                    passed += 1
                elif result == "SKIP":
                    skipped.append(f"{test}: {text}".rstrip(": "))
                elif result == "UNSTABLE":
                    unstable.append(f"{test}: {text}".rstrip(": "))
                    logs[f"{test}, the first time,"] = path[:-4] + ".first"
                else:
                    failed.append(f"{test}: {text}".rstrip(": "))
                    logs[test] = path[:-4] + ".log"
    for test, log in logs.items():
        print(f"{test} said:")
        for line in said(log):
            print(f"    {line}")
    for line in skipped:
        print(f"skipped: {line}")
    for line in unstable:
        print(f"unstable, failed beside the others and passed alone: {line}")
    for line in failed:
        print(f"failed: {line}")
    print(f"{passed} passed, {len(failed)} failed, {len(skipped)} skipped")
    sys.exit(1 if failed or not passed else 0)


main()
