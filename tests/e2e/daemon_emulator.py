# SPDX-License-Identifier: Apache-2.0
"""Emulators that are not there, cannot be executed or end at once; helpers that do not run."""

import os
import shutil
import signal
import sys
import threading
import time

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
sys.path.insert(0, os.path.join(HERE, "..", "lib"))
import daemon_lib as lib  # noqa: E402
import tap  # noqa: E402

REAL = os.path.join(lib.BUILD, "vmd-emu")


def put_other_machine(path):
    """The emulator for a machine that does not exist (ELF's e_machine)."""
    with open(REAL, "rb") as file:
        data = bytearray(file.read())
    data[18:20] = (0xfed0).to_bytes(2, "little")
    with open(path, "wb") as file:
        file.write(data)
    os.chmod(path, 0o755)


def put_text(path, text):
    with open(path, "w", encoding="ascii") as file:
        file.write(text)
    os.chmod(path, 0o755)


def put_plain_file(path):
    shutil.copy(REAL, path)
    os.chmod(path, 0o644)


# What is put there, and what the error says besides the path.
BAD = (
    (lambda path: None, "No such file"),
    (os.mkdir, "it is no file"),
    (put_plain_file, "it is not executable"),
    (put_other_machine, "Exec format error"),
    (lambda path: put_text(path, "no program\n"), "Exec format error"),
    (lambda path: put_text(path, "#!/nowhere/sh\n"), "No such file"),
    (lambda path: put_text(path, "#!/bin/sh\necho a library is missing >&2\nexit 127\n"),
     "a library is missing"),
    (lambda path: put_text(path, "#!/bin/sh\nexit 9\n"), "it exited with 9"),
    (lambda path: put_text(path, "#!/bin/sh\nkill -SEGV $$\n"), "it was ended by signal 11"),
)


def remove(path):
    if os.path.isdir(path):
        os.rmdir(path)
    elif os.path.lexists(path):
        os.unlink(path)


def emulator_that_does_not_run_is_named_and_one_put_there_later_is_used():
    daemon = lib.Daemon()
    os.chmod(daemon.dir, 0o755)  # the uid of an emulator executes a script by its path
    daemon.emulator = os.path.join(daemon.dir, "emu")
    with daemon, daemon.client() as client:
        client.call("vm.define", config=daemon.config("a"))
        for put, what in BAD:
            remove(daemon.emulator)
            put(daemon.emulator)
            error = client.fails("start-failed", "vm.start", vm="a")
            tap.check(what in error.message and daemon.emulator in error.message, f"{error}")
            tap.check("--emulator" in error.remedy, f"remedy: {error.remedy}")
            tap.check(client.call("vm.get", vm="a")["state"] == "stopped", f"after {what}")
            layers = client.call("host.capabilities")["sandbox"]
            tried = [x for x in layers if "not tried" in x.get("reason", "") and not x["active"]]
            tap.check(len(tried) >= 8, f"{layers}")
        remove(daemon.emulator)
        shutil.copy(REAL, daemon.emulator)
        tap.check(client.call("vm.start", vm="a")["state"] == "running", "not started")
        layers = client.call("host.capabilities")["sandbox"]
        tap.check(layers[0]["active"], f"the layers were not tried again: {layers}")
        tap.check(not [x for x in layers if "not tried" in x.get("reason", "")], f"{layers}")


def required_sandbox_waits_for_an_emulator_to_try_it_with():
    daemon = lib.Daemon()
    daemon.emulator = os.path.join(daemon.dir, "emu")
    with open(os.path.join(daemon.dir, "vmd.conf"), "w", encoding="ascii") as file:
        file.write("require-sandbox = on\n")
    with daemon, daemon.client() as client:
        client.call("vm.define", config=daemon.config("a"))
        client.fails("start-failed", "vm.start", vm="a")
        shutil.copy(REAL, daemon.emulator)
        try:
            client.call("vm.start", vm="a")
        except lib.CallError as error:  # a host that lacks a layer
            tap.check(error.error == "host-limit" and "not tried" not in error.message, f"{error}")


def emulator_that_ends_in_its_start_fails_the_start():
    with lib.Daemon(emulator=lib.FAKE) as daemon, daemon.client() as client:
        for how in ("mute", "trap-early", "die-early"):
            client.call("vm.define", config=daemon.config(how, kernel=daemon.guest(), append=how))
            number = client.send("vm.start", vm=how)
            if how == "mute":
                pids = lib.wait_for(daemon.emulators, what="the emulator is there")
                lib.kill(list(pids.values())[0][0])
            try:
                client.answer(number)
                raise AssertionError(f"{how}: started")
            except lib.CallError as error:
                tap.check(error.error == "start-failed", f"{how}: {error}")
            vm = client.call("vm.get", vm=how)
            tap.check(vm["state"] == "stopped" and vm["exit"]["reason"] == "start-failed", f"{vm}")
            tap.check(("signal" in vm["exit"]) == (how != "die-early"), f"{vm}")


def start_is_answered_whenever_the_helper_is_killed():
    with lib.Daemon() as daemon, daemon.client(60) as client:
        client.call("vm.define", config=daemon.config("a"))
        for _ in range(8):
            number = client.send("vm.start", vm="a")
            helper = daemon.helper()
            if helper:
                lib.kill(helper)
            try:
                client.answer(number)
            except lib.CallError as error:
                tap.check(error.error == "start-failed", f"{error}")
                continue
            client.call("vm.stop", vm="a", force=True)
        lib.wait_for(lambda: not daemon.emulators(), what="no emulator is left")


def own_copy(daemon):
    """vmd and its helper in a folder where either can be taken away."""
    where = os.path.join(daemon.dir, "bin")
    os.mkdir(where)
    for name in ("vmd", "vmd-spawn"):
        shutil.copy(os.path.join(lib.BUILD, name), where)
    daemon.emulator = REAL
    plain = daemon.command
    daemon.command = lambda *more: [os.path.join(where, "vmd") if word.endswith("/vmd") else word
                                    for word in plain(*more)]
    return os.path.join(where, "vmd-spawn")


def helper_that_does_not_run_any_more_fails_starts_and_nothing_else():
    daemon = lib.Daemon()
    helper = own_copy(daemon)
    with daemon, daemon.client() as client:
        client.call("vm.define", config=daemon.config("a"))
        client.call("vm.define", config=daemon.config("b"))
        client.call("vm.start", vm="a")
        for bad in (lambda: None, lambda: put_text(helper, "#!/bin/sh\nexit 1\n")):
            pid = daemon.helper()
            if os.path.exists(helper):
                os.rename(helper, helper + ".away")
            bad()
            if pid:
                lib.kill(pid)
                lib.wait_for(lambda pid=pid: not lib.alive(pid), what="the helper is dead")
            error = client.fails("start-failed", "vm.start", vm="b")
            tap.check(helper in error.message, f"{error}")
            client.call("host.capabilities")
            tap.check(client.call("vm.get", vm="a")["state"] == "running", "a was touched")
            remove(helper)
            os.rename(helper + ".away", helper)

            def started():
                try:
                    return client.call("vm.start", vm="b")["state"] == "running"
                except lib.CallError:
                    return False
            lib.wait_for(started, 60, "the helper is used when it is back")
            client.call("vm.stop", vm="b")


def helper_that_hangs_is_replaced_however_often_it_is_asked():
    daemon = lib.Daemon()
    with open(os.path.join(daemon.dir, "vmd.conf"), "w", encoding="ascii") as file:
        file.write("helper-timeout = 8\n")
    with daemon, daemon.client(120) as client:
        for n in range(9):
            client.call("vm.define", config=daemon.config(f"a{n}"))
        client.call("host.capabilities")  # the helper serves
        hung = daemon.helper()
        os.kill(hung, signal.SIGSTOP)
        numbers = []
        for n in range(9):  # the last ones come when its time is over
            numbers.append(client.send("vm.start", vm=f"a{n}"))
            time.sleep(1)
        try:
            client.answer(numbers[0])
            raise AssertionError("started by a helper that stands still")
        except lib.CallError as error:
            tap.check(error.error == "start-failed" and "vmd-spawn" in error.message, f"{error}")
        for number in numbers[1:]:  # they only waited behind it
            tap.check(client.answer(number)["state"] == "running", "not started")
        tap.check(not lib.alive(hung), "the one that hangs is still there")


def starts_that_wait_in_a_row_are_all_answered():
    daemon = lib.Daemon()
    daemon.emulator = os.path.join(daemon.dir, "emu")
    with daemon, daemon.client() as client:
        for n in range(10):
            client.call("vm.define", config=daemon.config(f"a{n}"))
        errors = []

        def start(n):
            with daemon.client() as other:
                errors.append(other.fails("start-failed", "vm.start", vm=f"a{n}"))
        threads = [threading.Thread(target=start, args=(n,)) for n in range(10)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        tap.check(len(errors) == 10, f"{len(errors)} answers")


if __name__ == "__main__":
    if not os.access(REAL, os.X_OK):
        print("skipped: vmd-emu is not built")
        sys.exit(77)
    sys.exit(tap.run_cases([
        emulator_that_does_not_run_is_named_and_one_put_there_later_is_used,
        required_sandbox_waits_for_an_emulator_to_try_it_with,
        emulator_that_ends_in_its_start_fails_the_start,
        start_is_answered_whenever_the_helper_is_killed,
        helper_that_does_not_run_any_more_fails_starts_and_nothing_else,
        helper_that_hangs_is_replaced_however_often_it_is_asked,
        starts_that_wait_in_a_row_are_all_answered,
    ]))
