# SPDX-License-Identifier: Apache-2.0
"""Memory of translated code: Debian 13 compiles a project under a limit of 64 MiB, and under a large one.

Rows: what code and all tables take at the end, against 64 MiB; and the host's CPU seconds under the large limit over those
under 64 MiB, which shall lose no more than 5%. Runs alternate. The root filesystem is that of `make rootfs-check`.
"""

import os
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
for folder in ("device", "lib", "emu"):
    sys.path.append(os.path.join(HERE, "..", folder))
import emu_control  # noqa: E402
import emu_lib  # noqa: E402
import guest  # noqa: E402
from report import say  # noqa: E402

MIB = 1 << 20
LIMIT = 64 * MIB
LARGE = 512 * MIB
PATIENCE = 3600.0
JOB = """cd /tmp/job
for turn in 1 2; do
    make -s clean && make -s -j2 && ./report >/dev/null || echo JOB-FAILED
done
echo JOB-END
exec sleep 100000
"""


def rootfs():
    run = subprocess.run([sys.executable, "-B", os.path.join(HERE, "..", "guests", "rootfs")],
                         check=False, stdout=subprocess.PIPE, text=True)
    if run.returncode != 0:
        raise guest.Unavailable("the root filesystem could not be made (see above)")
    return dict(line.split("=", 1) for line in run.stdout.splitlines() if "=" in line)


def archive(folder):
    project = os.path.join(folder, "project")
    subprocess.run(["cp", "-r", os.path.join(HERE, "..", "guests", "project"), project], check=True)
    subprocess.run(["chmod", "-R", "u+w", project], check=True)
    with open(os.path.join(project, "run"), "w", encoding="ascii") as file:
        file.write(JOB)
    path = os.path.join(folder, "job.tar")
    subprocess.run(["tar", "-c", "--owner=0", "--group=0", "-f", path, "-C", project, "."], check=True)
    return path


def cpu_seconds(pid):
    with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def compile_under(limit, files, job):
    """Host CPU seconds of the job after the boot, and the engine's counters at its end."""
    disk, kernel, initrd = files["disk"], files["kernel"], files["initrd"]
    config = {"cpus": 2, "memory": 1024 * MIB, "kernel": kernel, "initrd": initrd, "firmware": guest.OPENSBI,
              "append": "console=ttyS0 quiet root=/dev/vda rootfstype=ext4 vmd.overlay vmd.run=job",
              "rng": True, "tcg": {"cache_size": limit},
              "disks": [{"name": "root", "file": disk, "format": "raw", "readonly": True},
                        {"name": "job", "file": job, "format": "raw", "readonly": True}]}
    given = {path: os.O_RDONLY for path in (disk, kernel, initrd, job, guest.OPENSBI)}
    emu_control.LIMIT = PATIENCE
    emu_control.EMU = guest.emulator_path("vmd")
    with emu_lib.Emu(config=config, files=given, sandbox="off") as emu:
        console, client = emu.connect(emu.console), emu_lib.Client(emu)
        text = emu_lib.read_until(console, b"BOOT-OK")
        begin = cpu_seconds(emu.process.pid)
        text = emu_lib.read_until(console, b"JOB-END", text)
        seconds = cpu_seconds(emu.process.pid) - begin
        counters = emu_lib.counters(client)[0]
    if b"JOB-FAILED" in text:
        raise guest.GuestError("the project was not compiled: " + repr(text[-500:]))
    return seconds, counters


def bench(args):
    files = rootfs()
    seconds, most = {LIMIT: [], LARGE: []}, 0
    with tempfile.TemporaryDirectory(prefix="vmd-bench") as folder:
        job = archive(folder)
        for index in range(args.runs):
            for limit, taken in seconds.items():
                try:
                    cpu, vm = compile_under(limit, files, job)
                except (AssertionError, OSError, guest.GuestError) as problem:
                    return [], [("vmd", f"limit of {limit // MIB} MiB: {problem}")]
                taken.append(cpu)
                if limit == LIMIT:
                    most = max(most, vm["cache_bytes"])
                say(f"run {index + 1} of {args.runs}, {limit // MIB} MiB: {cpu:.2f} host CPU s, "
                    f"{vm['cache_bytes'] / MIB:.1f} MiB, {vm['translations']} translations, "
                    f"{vm['evictions']} evictions")
    kept = min(seconds[LARGE]) / min(seconds[LIMIT])
    spread = max((max(taken) - min(taken)) / min(taken) for taken in seconds.values())
    return [{"name": "memory", "title": "code and tables while Debian compiles", "unit": "MiB",
             "ours": round(most / MIB, 2), "limit": LIMIT // MIB, "ratio": round(LIMIT / most, 3), "spread": 0.0},
            {"name": "eviction", "title": f"{LARGE // MIB} MiB over {LIMIT // MIB} MiB, host CPU", "unit": "ratio",
             "ours": round(kept, 3), "limit": 0.95, "ratio": round(kept / 0.95, 3),
             "spread": round(spread, 3)}], []
