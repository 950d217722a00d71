# SPDX-License-Identifier: Apache-2.0
"""Test driver for `make check`: runs one test program and records every single case in it.

A libcheck program is counted through libcheck's own TAP log, a script through the TAP on its
standard output, anything else by its exit status (0 passed, 77 skipped, 99 could not run). The
calling convention and the .trs file are automake's ("Custom Test Drivers" in its manual).
"""
import argparse
import os
import re
import signal
import subprocess
import sys
import time

RESULT = re.compile(r"^(not )?ok\b\s*(\d+)?\s*(?:- )?(.*)$")
PLAN = re.compile(r"^1\.\.(\d+)\s*(?:#\s*(.*))?$")
DIRECTIVE = re.compile(r"^(.*?)\s*(?<!\\)#\s*(SKIP|TODO)\S*\s*(.*)$", re.IGNORECASE)
COLOURS = {"PASS": "32", "SKIP": "1;34", "FAIL": "31", "ERROR": "35", "XFAIL": "32", "XPASS": "31"}


def parse_tap(lines):
    """Returns ([(result, text)], complaint or None), or None when the lines hold no TAP plan."""
    cases, plan, complaint = [], None, None
    for line in lines:
        if line.startswith("Bail out!"):
            complaint = line
            continue
        found = PLAN.match(line)
        if found:
            plan = int(found.group(1))
            if plan == 0:
                cases.append(("SKIP", re.sub(r"(?i)^skip\S*\s*", "", found.group(2) or "")))
            continue
        found = RESULT.match(line)
        if not found:
            continue
        result = "FAIL" if found.group(1) else "PASS"
        text = found.group(3)
        directive = DIRECTIVE.match(text)
        if directive:
            text, kind, why = directive.groups()
            if kind.upper() == "SKIP":
                result, text = "SKIP", f"{text}: {why}".strip(": ")
            else:
                result = "XFAIL" if found.group(1) else "XPASS"
        cases.append((result, text))
    if plan is None and not cases and complaint is None:
        return None
    ran = len(cases) if plan != 0 else 0
    if plan is None:
        complaint = complaint or "no test plan: the program ended early"
    elif ran != plan:
        complaint = complaint or f"planned {plan} cases, ran {ran}"
    return cases, complaint


def run(command, log, env, limit):
    """Runs the command in a process group of its own; returns (exit status, timed out)."""
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env,
                             start_new_session=True)

    def forward(signo, _frame):
        os.killpg(child.pid, signal.SIGKILL)
        sys.exit(128 + signo)

    for signo in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signo, forward)
    try:
        return child.wait(timeout=limit), False
    except subprocess.TimeoutExpired:
        try:  # a chance to clean up, then no more
            os.killpg(child.pid, signal.SIGTERM)
            child.wait(timeout=10)
        except (subprocess.TimeoutExpired, ProcessLookupError):
            pass
        try:
            os.killpg(child.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        return child.wait(), True


def judge(status, timed_out, limit, ck_lines, out_lines):
    """All cases of the run, from libcheck's log, the TAP output or the exit status."""
    parsed = parse_tap(ck_lines) or parse_tap(out_lines)
    if timed_out:
        cases = parsed[0] if parsed else []
        return cases + [("ERROR", f"no end after {limit} s")]
    if parsed:
        cases, complaint = parsed
        if complaint:
            cases.append(("ERROR", complaint))
        elif status == 77 and not any(r in ("FAIL", "ERROR") for r, _ in cases):
            pass
        elif status != 0 and not any(r in ("FAIL", "XPASS") for r, _ in cases):
            cases.append(("ERROR", f"all cases passed, yet the program ended with {status}"))
        return cases
    if status == 77:
        said = [line for line in out_lines if line.lower().startswith("skip")]
        return [("SKIP", re.sub(r"(?i)^skip\w*:?\s*", "", said[-1]) if said else "")]
    if status == 99:
        return [("ERROR", "could not run")]
    return [("PASS", "") if status == 0 else ("FAIL", f"ended with {status}")]


def flag(text):
    return text == "yes"


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--test-name", required=True)
    ap.add_argument("--log-file", required=True)
    ap.add_argument("--trs-file", required=True)
    ap.add_argument("--color-tests", type=flag, default=False)
    ap.add_argument("--collect-skipped-logs", type=flag, default=True)
    ap.add_argument("--expect-failure", type=flag, default=False)
    ap.add_argument("--enable-hard-errors", type=flag, default=True)
    ap.add_argument("command", nargs="+")
    a = ap.parse_args()

    limit = int(os.environ.get("VMD_TEST_TIMEOUT", "900"))
    tap_log = a.log_file + ".tap"
    for old in (tap_log, a.trs_file):
        if os.path.exists(old):
            os.unlink(old)
    env = dict(os.environ, CK_TAP_LOG_FILE_NAME=os.path.abspath(tap_log))
    # What the check says of a commit must not hang on the day it runs: campaigns draw other seeds.
    env.setdefault("VMD_TEST_SEED", "1")
    start = time.monotonic()
    with open(a.log_file, "wb") as log:
        status, timed_out = run(a.command, log, env, limit)
    took = time.monotonic() - start

    with open(a.log_file, encoding="utf-8", errors="replace") as f:
        out_lines = f.read().splitlines()
    ck_lines = []
    if os.path.exists(tap_log):
        with open(tap_log, encoding="utf-8", errors="replace") as f:
            ck_lines = f.read().splitlines()
        os.unlink(tap_log)
        with open(a.log_file, "a", encoding="utf-8") as log:
            log.write("\n".join(line for line in ck_lines if not line.startswith("ok")) + "\n")
    cases = judge(status, timed_out, limit, ck_lines, out_lines)
    report(a, cases, took)


def report(a, cases, took):
    """Writes the .trs file and the lines a person sees."""
    def paint(result):
        return f"\033[{COLOURS[result]}m{result}\033[m" if a.color_tests else result

    counts = {}
    for result, _ in cases:
        counts[result] = counts.get(result, 0) + 1
    bad = [c for c in cases if c[0] in ("FAIL", "ERROR", "XPASS")]
    overall = "ERROR" if any(r == "ERROR" for r, _ in bad) else "FAIL" if bad else \
        "PASS" if any(r in ("PASS", "XFAIL") for r, _ in cases) else "SKIP"
    with open(a.trs_file, "w", encoding="utf-8") as f:
        for result, text in cases:
            f.write(f":test-result: {result} {text}\n")
        f.write(f":global-test-result: {overall}\n:recheck: {'yes' if bad else 'no'}\n"
                f":copy-in-global-log: {'yes' if bad else 'no'}\n:seconds: {took:.1f}\n")
    for result, text in cases:
        if result not in ("PASS", "XFAIL"):
            print(f"{paint(result)}: {a.test_name}: {text}".rstrip(": "))
    words = {"PASS": "passed", "FAIL": "failed", "SKIP": "skipped", "ERROR": "errors",
             "XFAIL": "expected failures", "XPASS": "unexpected passes"}
    summary = ", ".join(f"{counts[k]} {words[k]}" for k in words if k in counts)
    print(f"{paint(overall)}: {a.test_name} ({summary}, {took:.1f} s)", flush=True)


if __name__ == "__main__":
    main()
