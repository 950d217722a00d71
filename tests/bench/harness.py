# SPDX-License-Identifier: Apache-2.0
"""Tests of the bench itself: its workloads run and print what they must, and its results have the
documented shape. No case looks at how fast anything was."""

import dataclasses
import json
import os
import re
import sys
import xml.etree.ElementTree

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "..", "guests"), os.path.join(HERE, "..", "lib")]
import guest  # noqa: E402
import linux  # noqa: E402
import report  # noqa: E402
import rows  # noqa: E402
import tap  # noqa: E402

ROW = rows.Row("sum", "a sum", "sum", "1", "00ff", "1", "00ff")


def all_rows():
    """Each row once, without those that need packages of tens of megabytes."""
    found = {}
    for groups in rows.SETS.values():
        for group in groups.values():
            found.update((row.name, row) for row in group if not row.tools)
    return list(found.values())


class Console:
    """A guest's console with canned lines; the host's clock stands still between them."""

    def __init__(self, *lines):
        self.text = "".join(line + "\r\n" for line in lines).encode()

    def expect(self, pattern, _timeout):
        match = re.search(pattern.encode(), self.text, re.MULTILINE)
        if not match:
            raise guest.GuestError("no " + pattern)
        self.text = self.text[match.end():]
        return match

    @staticmethod
    def cpu_seconds():
        return 1.0


def taken(*lines):
    results, failures = {}, {}
    linux.take_row(Console(*lines), ROW, False, results, failures)
    return results, failures


def sample(seconds, cpu=None):
    return {"seconds": seconds, "cpu": cpu or seconds, "printed": "00ff"}


def two_rows():
    """A table of one row with peers and one with a limit."""
    samples = {"vmd": [sample(2.0), sample(1.0)], "qemu": [sample(4.0), sample(5.0)],
               "qemu10": [sample(3.0), sample(3.3)]}
    names = {"vmd": "vmd", "qemu": "QEMU 7", "qemu10": "QEMU 10"}
    entry = linux.compare(ROW, samples, names, ["qemu", "qemu10"])
    entry["group"] = "five"
    return [entry, {"name": "scaling", "unit": "ratio", "ours": 0.95, "limit": 0.9,
                    "ratio": 1.056, "spread": 0.1}]


def every_workload_prints_its_checksum():
    missing = [row.name for row in all_rows() if row.prog != "init" and not row.check_want]
    tap.check(not missing, f"rows without a checksum for the check: {missing}")
    small = [dataclasses.replace(row, cpus=1 if row.cpus == 1 else 4) for row in all_rows()
             if row.prog != "init"]
    samples, failures = linux.measure(small, ["vmd"], 1, short=True)
    tap.check(not failures, f"{failures}")
    absent = [name for name, found in samples.items() if not found["vmd"]]
    tap.check(not absent, f"rows that printed nothing: {absent}")


def row_names_are_unique_in_a_set():
    for name, groups in rows.SETS.items():
        names = [row.name for group in groups.values() for row in group]
        tap.check(len(names) == len(set(names)), f"set {name}: {names}")


def right_row_is_taken():
    results, failures = taken("BENCH-BEGIN sum", "BENCH sum 0.0100 00ff")
    tap.check(not failures and results["sum"]["seconds"] == 0.01, f"{results} {failures}")


def wrong_checksum_fails_the_row():
    results, failures = taken("BENCH-BEGIN sum", "BENCH sum 0.0100 00fe")
    tap.check("sum" in failures and not results, f"{results} {failures}")


def workload_that_gives_up_fails_the_row():
    for lines in (("BENCH-FAIL sum mmap",), ("BENCH-BEGIN sum", "BENCH-FAIL sum mmap")):
        results, failures = taken(*lines)
        tap.check("sum" in failures and not results, f"{results} {failures}")


def guest_clock_that_runs_off_is_noticed():
    results, failures = taken("BENCH-BEGIN sum", "BENCH sum 2.0000 00ff")
    tap.check("clock" in failures.get("sum", "") and not results, f"{results} {failures}")


def emulators_must_agree_where_no_checksum_is_known():
    failures = []
    one = sample(1.0)
    linux.agree(ROW, {"vmd": [one], "qemu": [one]}, failures)
    tap.check(not failures, f"{failures}")
    linux.agree(ROW, {"vmd": [one], "qemu": [dict(one, printed="1")]}, failures)
    tap.check(len(failures) == 1, f"{failures}")


def row_is_compared_with_the_faster_peer():
    entry = two_rows()[0]
    tap.check((entry["ours"], entry["peer"], entry["peer_value"], entry["ratio"]) ==
              (1.0, "QEMU 10", 3.0, 3.0), f"{entry}")
    tap.check(entry["spread"] == 1.0, f"the worse spread is ours: {entry}")
    tap.check(entry["peers"]["QEMU 7"]["seconds"] == 4.0, f"{entry}")


def result_has_the_documented_shape():
    content = json.loads(json.dumps(report.result("dbt", "a machine", 2, two_rows())))
    tap.check({"set", "machine", "rows", "means", "geometric_mean", "runs", "date"} ==
              set(content), f"{sorted(content)}")
    peer, limit = content["rows"]
    for key in ("name", "unit", "ours", "peer", "peer_value", "ratio", "spread"):
        tap.check(key in peer, f"{key} is missing: {peer}")
    tap.check("peer" not in limit and limit["limit"] == 0.9, f"{limit}")
    tap.check(content["means"]["five"]["geometric_mean"] == 3.0, f"{content['means']}")


def means_are_geometric_and_by_group():
    table = [{"name": str(ratio), "peer": "p", "ratio": ratio, "cpu_ratio": ratio, "group": group}
             for ratio, group in ((1.0, "five"), (4.0, "five"), (8.0, "others"))]
    means = report.means(table)
    tap.check(means["five"]["geometric_mean"] == 2.0 and means["five"]["minimum"] == 1.0, f"{means}")
    tap.check(means["others"]["geometric_mean"] == 8.0, f"{means}")
    tap.check(means["all"]["geometric_mean"] == round(32 ** (1 / 3), 3), f"{means}")


def picture_is_well_formed_and_names_each_row():
    content = report.result("dbt", "a <machine> & more", 2, two_rows())
    text = report.picture(content)
    root = xml.etree.ElementTree.fromstring(text)
    shown = " ".join(root.itertext())
    for wanted in ("a sum", "scaling", "3.00", "a <machine> & more"):
        tap.check(wanted in shown, f"{wanted} is not in the picture")


if __name__ == "__main__":
    sys.exit(tap.run_cases([
        row_names_are_unique_in_a_set, right_row_is_taken, wrong_checksum_fails_the_row,
        workload_that_gives_up_fails_the_row, guest_clock_that_runs_off_is_noticed,
        emulators_must_agree_where_no_checksum_is_known, row_is_compared_with_the_faster_peer,
        result_has_the_documented_shape, means_are_geometric_and_by_group,
        picture_is_well_formed_and_names_each_row, every_workload_prints_its_checksum,
    ], missing=(guest.Unavailable,)))
