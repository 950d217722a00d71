#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Recordings and replays through the daemon and vmctl: made and played by vm.start, looked at and moved by replay.*; what is refused."""

import json
import os
import shutil
import subprocess
import sys
import time

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
for folder in (".", "../lib", "../emu", "../guests"):
    sys.path.insert(0, os.path.join(HERE, folder))
import daemon_lib as lib  # noqa: E402
import tap  # noqa: E402
import replay_lib  # noqa: E402

VMCTL = os.path.join(lib.BUILD, "vmctl")
LIMIT = 300  # seconds, against hangs only
ENDS = ("replay-point", "replay-end", "replay-diverged")


def vmctl(daemon, *words):
    return subprocess.run([VMCTL, "--dir", daemon.dir, *words], capture_output=True, text=True, timeout=LIMIT, check=False)


def told(client):
    return client.call("event.list", types=["vm-replay"])["events"]


def came(client, what, vm="a"):
    """Waits until the replay stands still; it must do so for that reason."""
    def stands():
        info = client.call("vm.get", vm=vm)
        tap.check(info["state"] in ("running", "paused", "starting"), f"{info}")
        return info["state"] == "paused" and info.get("reason") in ENDS and client.call("replay.status", vm=vm)
    status = lib.wait_for(stands, LIMIT, what)
    info = client.call("vm.get", vm=vm)
    tap.check(info["reason"] == what and info["replay"] == "replay", f"{info} {status}")
    return status


def recorded(client, daemon, log, at_least=3_000_000, **more):
    """A recording of the guest that prints, ended by a stop."""
    client.call("vm.start", vm="a", record=log, **more)
    tap.check(client.call("vm.get", vm="a")["replay"] == "record", "it does not say that it is recorded")
    status = lib.wait_for(lambda: (s := client.call("replay.status", vm="a"))["count"] > at_least and s, LIMIT, "instructions")
    tap.check(status["mode"] == "record" and "error" not in status, f"{status}")
    client.call("vm.stop", vm="a")
    lib.wait_for(lambda: client.call("vm.get", vm="a")["state"] == "stopped", LIMIT, "the end")
    info = client.call("vm.get", vm="a")
    tap.check("replay" not in info, f"{info}")
    tap.check(os.stat(log).st_mode & 0o777 == 0o600, "for its owner alone")


def vm_is_recorded_and_replayed_to_any_instruction():
    with lib.Daemon() as daemon, daemon.client() as client:
        log, digests = os.path.join(daemon.dir, "a.rec"), []
        client.call("vm.define", config=daemon.config("a", cpus=2))
        recorded(client, daemon, log)
        for _ in range(2):
            done = vmctl(daemon, "start", "a", "--replay", log, "--to", "1000000")
            tap.check(done.returncode == 0, f"{done}")
            status = came(client, "replay-point")
            tap.check(status["count"] == 1000000 and status["whole"] and status["end"] > 3_000_000, f"{status}")
            digests.append(vmctl(daemon, "replay", "digest", "a", "--quiet").stdout.strip())
            done = vmctl(daemon, "replay", "seek", "a", "2000000")
            tap.check(done.returncode == 0, f"{done}")
            lib.wait_for(lambda: client.call("replay.status", vm="a")["count"] == 2000000, LIMIT, "the second point")
            came(client, "replay-point")
            digests.append(client.call("replay.digest", vm="a")["state"])
            client.call("replay.seek", vm="a")
            lib.wait_for(lambda: client.call("vm.get", vm="a").get("reason") == "replay-end", LIMIT, "the end")
            tap.check(client.call("replay.status", vm="a")["count"] == status["end"], "it is not at the end")
            tap.check(client.call("replay.seek", vm="a", count=1000000)["replay"] == "replay", "back")
            tap.check(came(client, "replay-point")["count"] == 1000000, "it is not back")
            tap.check(client.call("replay.digest", vm="a")["state"] == digests[-2], "it is another machine there")
            tap.check(json.loads(vmctl(daemon, "replay", "status", "a", "--json").stdout)["mode"] == "replay", "status")
            client.call("vm.stop", vm="a")
        tap.check(len(digests[0]) == 64 and digests[:2] == digests[2:] and digests[0] != digests[1], f"{digests}")
        events = told(client) # but points that were reached before vm.start answered: vm-state tells of those
        tap.check([e["reason"] for e in events].count("replay-end") == 2, f"{events}")
        tap.check([e["detail"]["text"] for e in events if e["detail"]["count"] == 2000000] == [digests[1]] * 2, f"{events}")


def qmp_tells_of_a_replay_and_moves_it():
    with lib.Daemon() as daemon, daemon.client() as client:
        log = os.path.join(daemon.dir, "a.rec")
        client.call("vm.define", config=daemon.config("a"))
        recorded(client, daemon, log)
        client.call("vm.start", vm="a", replay=log, to=5000)
        came(client, "replay-point")

        def qmp(command, **arguments):
            answer = client.call("vm.qmp", vm="a", execute=command, **({"arguments": arguments} if arguments else {}))
            return answer.get("result", answer)
        tap.check(qmp("query-replay") == {"mode": "play", "filename": log, "icount": 5000}, str(qmp("query-replay")))
        tap.check("past it" in str(qmp("replay-seek", icount=4999)), "it went back")
        tap.check("negative" in str(qmp("replay-break", icount=-1)), "before the beginning")
        qmp("replay-break", icount=6000)
        tap.check(client.call("vm.get", vm="a")["state"] == "paused", "replay-break lets it run")
        qmp("cont")
        lib.wait_for(lambda: qmp("query-replay")["icount"] == 6000, LIMIT, "the break")
        came(client, "replay-point")
        qmp("replay-seek", icount=7000)
        lib.wait_for(lambda: qmp("query-replay")["icount"] == 7000, LIMIT, "the place")
        came(client, "replay-point")
        qmp("replay-break", icount=8000)
        qmp("replay-delete-break")
        qmp("cont")
        lib.wait_for(lambda: client.call("vm.get", vm="a").get("reason") == "replay-end", LIMIT, "the end")
        client.call("vm.stop", vm="a")
        client.call("vm.start", vm="a")
        tap.check(qmp("query-replay") == {"mode": "none", "icount": 0}, str(qmp("query-replay")))
        tap.check("not replayed" in str(qmp("replay-break", icount=1)), "an ordinary VM")


def replay_is_not_restarted_and_outlives_the_daemon():
    with lib.Daemon() as daemon:
        log = os.path.join(daemon.dir, "a.rec")
        with daemon.client() as client:
            client.call("vm.define", config=daemon.config("a", restart={"mode": "always", "delay_ms": 1}))
            recorded(client, daemon, log)
            client.call("vm.start", vm="a", replay=log, to=1000000)
            came(client, "replay-point")
        daemon.kill()
        daemon.start()
        with daemon.client() as client:
            info = client.call("vm.get", vm="a")
            tap.check(info["state"] == "paused" and info["replay"] == "replay", f"{info}")
            error = client.fails("bad-state", "replay.seek", vm="a", count=5)
            tap.check("not known" in error.message, f"{error}")
            client.call("replay.seek", vm="a")
            lib.wait_for(lambda: client.call("vm.get", vm="a").get("reason") == "replay-end", LIMIT, "the end")
            lib.kill(client.call("vm.get", vm="a")["pid"])
            lib.wait_for(lambda: client.call("vm.get", vm="a")["state"] in ("crashed", "stopped"), LIMIT, "its death")
            time.sleep(0.5)
            info = client.call("vm.get", vm="a")
            tap.check("restart_due_ms" not in info and "pid" not in info, f"a replay was restarted: {info}")


def what_would_reach_the_guest_is_refused_meanwhile():
    with lib.Daemon() as daemon, daemon.client() as client:
        log = os.path.join(daemon.dir, "a.rec")
        client.call("vm.define", config=daemon.config("a"))
        tap.check(client.call("vm.start", vm="a", record=log)["state"] == "running", "not started")
        for what, state in (("recorded", None), ("replayed", "paused")):
            for method, more in (("vm.reset", {}), ("vm.shutdown", {})):
                error = client.fails("bad-state", method, vm="a", **more)
                tap.check(what in error.message and "recording" in error.message, f"{error}")
            if not state:
                error = client.fails("bad-state", "replay.seek", vm="a", count=1)
                tap.check("not replayed" in error.message, f"{error}")
                lib.wait_for(lambda: client.call("replay.status", vm="a")["count"] > 100000, LIMIT, "instructions")
                client.call("vm.stop", vm="a")
                client.call("vm.start", vm="a", replay=log, to=5000)
                came(client, "replay-point")
        client.call("vm.stop", vm="a")
        client.call("vm.start", vm="a")
        tap.check(client.call("replay.status", vm="a") == {"mode": "none"}, "an ordinary VM")


def what_does_not_fit_is_refused_before_it_runs():
    with lib.Daemon() as daemon, daemon.client() as client:
        log, bad = os.path.join(daemon.dir, "a.rec"), os.path.join(daemon.dir, "bad.rec")
        client.call("vm.define", config=daemon.config("a"))
        recorded(client, daemon, log)
        with open(log, "rb") as file:
            good = file.read()
        for code, words in (("invalid-params", {"record": bad, "replay": log}), ("invalid-params", {"to": 5}),
                            ("invalid-params", {"scratch": True}), ("exists", {"record": log}),
                            ("file-error", {"replay": bad}), ("file-error", {"record": "/nowhere/a.rec"})):
            error = client.fails(code, "vm.start", vm="a", **words)
            tap.check(client.call("vm.get", vm="a")["state"] != "running" and error.message, f"{error}")
        for data, word in ((good[:10], "recording"), (b"x" * 4096, "recording"),
                           (good[:-9] + bytes([good[-9] ^ 1]) + good[-8:], "recording")):
            with open(bad, "wb") as file:
                file.write(data)
            error = client.fails("start-failed", "vm.start", vm="a", replay=bad)
            tap.check(word in error.message, f"{error}")
        with open(log, "rb") as file:
            tap.check(file.read() == good, "the recording has changed")
        os.unlink(bad)
        client.call("vm.define", config=daemon.config("b", memory=32 << 20))
        client.call("vm.start", vm="b", replay=log, paused=True)
        error = client.fails("bad-state", "replay.seek", vm="b")
        tap.check("memory=" in error.message, f"{error}")
        client.call("vm.define", config=daemon.config("c", display={"device": "virtio"}))
        error = client.fails("start-failed", "vm.start", vm="c", record=bad)
        tap.check("a screen" in error.message, f"{error}")
        tap.check(not os.path.exists(bad), "an empty recording was left")


def full_disk_ends_the_recording_and_not_the_vm():
    with lib.Daemon() as daemon:
        small = os.path.join(daemon.dir, "small")
        os.mkdir(small)
        if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4k,mode=777", "tmpfs", small], capture_output=True, check=False).returncode:
            raise tap.Skip("may not mount a tmpfs")
        try:
            with daemon.client() as client:
                with open(os.path.join(small, "fill"), "wb") as file:
                    file.write(b"x" * 4096)
                client.call("vm.define", config=daemon.config("a"))
                client.call("vm.start", vm="a", record=os.path.join(small, "a.rec"), paused=True)
                error = client.fails("bad-state", "vm.resume", vm="a")
                tap.check("space" in error.message, f"{error}")
                client.call("vm.stop", vm="a")
                os.unlink(os.path.join(small, "fill"))
                tap.check(not os.path.exists(os.path.join(small, "a.rec")), "an empty recording was left")
                client.call("vm.start", vm="a", record=os.path.join(small, "a.rec"))
                lib.wait_for(lambda: told(client), LIMIT, "the event")
                tap.check(told(client)[0]["reason"] == "record-failed" and "space" in told(client)[0]["detail"]["text"], f"{told(client)}")
                tap.check("space" in client.call("replay.status", vm="a")["error"], "status")
                tap.check(client.call("vm.get", vm="a")["state"] == "running", "the VM has ended")
                client.call("vm.stop", vm="a")
        finally:
            subprocess.run(["umount", "-l", small], check=False)


def linux_with_disk_and_network_is_replayed():
    with lib.Daemon() as daemon, daemon.client() as client:
        base, image, log = (os.path.join(daemon.dir, n) for n in ("base", "image", "a.rec"))
        replay_lib.new_image(base)
        shutil.copy(base, image)
        with open(replay_lib.linux(daemon.dir, image), encoding="utf-8") as file:
            config = json.load(file)
        client.call("vm.define", config={**config, "name": "a"})
        client.call("vm.start", vm="a", record=log, scratch=True)
        lib.wait_for(lambda: client.call("vm.get", vm="a")["state"] == "stopped", LIMIT, "its end")
        tap.check(client.call("vm.get", vm="a")["exit"]["reason"] == "poweroff", f"{client.call('vm.get', vm='a')}")
        with open(base, "rb") as one, open(image, "rb") as other:
            tap.check(one.read() == other.read(), "a scratch recording has written to its image")
        client.call("vm.start", vm="a", replay=log, to=20_000_000)
        came(client, "replay-point")
        digest = client.call("replay.digest", vm="a")
        client.call("replay.seek", vm="a", count=10_000_000)
        came(client, "replay-point")
        client.call("replay.seek", vm="a", count=20_000_000)
        lib.wait_for(lambda: client.call("replay.status", vm="a")["count"] == 20_000_000, LIMIT, "there again")
        came(client, "replay-point")
        tap.check(client.call("replay.digest", vm="a") == digest, "there and back is elsewhere")
        client.call("replay.seek", vm="a")
        lib.wait_for(lambda: client.call("vm.get", vm="a")["state"] == "stopped", LIMIT, "its end")
        info, words = client.call("vm.get", vm="a"), [e["reason"] for e in told(client)]
        tap.check(words[-1] == "replay-end" and info["exit"]["reason"] == "poweroff", f"{words} {info}")


if __name__ == "__main__":
    sys.exit(tap.run_cases([
        vm_is_recorded_and_replayed_to_any_instruction,
        qmp_tells_of_a_replay_and_moves_it,
        replay_is_not_restarted_and_outlives_the_daemon,
        what_would_reach_the_guest_is_refused_meanwhile,
        what_does_not_fit_is_refused_before_it_runs,
        full_disk_ends_the_recording_and_not_the_vm,
        linux_with_disk_and_network_is_replayed,
    ]))
