# SPDX-License-Identifier: Apache-2.0
"""What is tested of disks with one loop, with I/O threads beside it: each of these programs again, with one thread and with three."""

import os
import subprocess
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
import tap  # noqa: E402

BUILD = os.environ.get("VMD_BUILDDIR") or os.getcwd()
PROGRAMS = ("block/file_test", "block/throttle_test", "block/gate_test", "block/snap_test", "block/job_test", "device/virtio_test",
            "device/nvme_test")


def runs(program, threads):
    done = subprocess.run([os.path.join(BUILD, "tests", program)], capture_output=True, text=True, check=False, timeout=600,
                          env={**os.environ, "VMD_TEST_IO_THREADS": str(threads)})
    tap.check(done.returncode == 0, f"{program} with {threads}: {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")


def with_one_thread():
    for program in PROGRAMS:
        runs(program, 1)


def with_three_threads():
    for program in PROGRAMS:
        runs(program, 3)


if __name__ == "__main__":
    sys.exit(tap.run_cases([with_one_thread, with_three_threads]))
