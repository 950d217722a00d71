# SPDX-License-Identifier: Apache-2.0
"""The store as its administrator sees it: backup while everything runs, restore, files that are
none, schema versions."""

import os
import sqlite3
import subprocess
import sys
import threading

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
sys.path.insert(0, os.path.join(HERE, "..", "lib"))
import daemon_lib as lib  # noqa: E402
import tap  # noqa: E402


def restore(daemon, path):
    """vmd --restore; (exit status, what it said)."""
    done = subprocess.run(daemon.command("--restore", path), stdin=subprocess.DEVNULL,
                          capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout + done.stderr


def query(path, sql):
    store = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        return store.execute(sql).fetchall()
    finally:
        store.close()


def names(daemon):
    return [vm["name"] for vm in daemon.call("vm.list")["vms"]]


def backup_made_while_calls_change_the_store_is_whole_and_has_what_was_acknowledged_before():
    with lib.Daemon() as daemon:
        stop = threading.Event()

        def write():
            with daemon.client() as client:
                number = 0
                while not stop.is_set():
                    client.call("vm.define", config=daemon.config(f"w{number}"))
                    number += 1
        with daemon.client() as client:
            for number in range(30):
                client.call("vm.define", config=daemon.config(f"a{number}"))
            writer = threading.Thread(target=write)
            writer.start()
            try:
                for number in range(5):
                    path = os.path.join(daemon.dir, f"backup{number}.db")
                    out = client.call("host.backup", path=path)
                    tap.check(out["bytes"] == os.path.getsize(path), f"{out}")
                    tap.check(os.stat(path).st_mode & 0o777 == 0o600, "others may read it")
                    tap.check(query(path, "PRAGMA integrity_check") == [("ok",)], "damaged")
                    found = {row[0] for row in query(path, "SELECT name FROM vms")}
                    tap.check({f"a{n}" for n in range(30)} <= found, "acknowledged, not in it")
                    tap.check(out["vms"] == len(found), f"{out}, {len(found)} VMs")
            finally:
                stop.set()
                writer.join()
        left = [name for name in os.listdir(daemon.dir) if name.startswith("backup")]
        tap.check(len(left) == 5, f"left behind: {left}")


def restore_brings_back_the_definitions_and_never_uses_a_number_twice():
    with lib.Daemon() as daemon:
        path = os.path.join(daemon.dir, "backup.db")
        with daemon.client() as client:
            client.call("vm.define", config=daemon.config("kept"))
            client.call("host.backup", path=path)
            client.call("vm.delete", vm="kept")
            for number in range(5):
                client.call("vm.define", config=daemon.config(f"later{number}"))
            newest = client.call("vm.list")["cursor"]
        code, text = restore(daemon, path)
        tap.check(code == 1 and "in use by another vmd" in text, f"while vmd runs: {text}")
        daemon.terminate()
        code, text = restore(daemon, path)
        tap.check(code == 0 and "1 VMs" in text, text)
        store = os.path.join(daemon.dir, "lib", "vmd.db")
        former = {row[0] for row in query(store + ".before-restore", "SELECT name FROM vms")}
        tap.check(former == {f"later{n}" for n in range(5)}, f"the former store has {former}")
        daemon.start()
        tap.check(names(daemon) == ["kept"], f"{names(daemon)}")
        daemon.call("vm.define", config=daemon.config("next"))
        now = daemon.call("vm.list")["cursor"]
        tap.check(now > newest, f"event numbers began anew: {now} after {newest}")
        daemon.terminate()
        tap.check(query(store, "SELECT id FROM vms WHERE name = 'next'")[0][0] > 6,
                  "the number of a VM was used twice")


def vm_that_runs_is_taken_up_after_a_restore_of_a_backup_made_while_it_ran():
    with lib.Daemon() as daemon:
        path = os.path.join(daemon.dir, "backup.db")
        with daemon.client() as client:
            client.call("vm.define", config=daemon.config("a"))
            pid = client.call("vm.start", vm="a")["pid"]
            client.call("host.backup", path=path)
        daemon.terminate()
        code, text = restore(daemon, path)
        tap.check(code == 0, text)
        daemon.start()
        vm = daemon.call("vm.get", vm="a")
        tap.check(vm["state"] == "running" and vm["pid"] == pid, f"{vm}")


def backups_that_cannot_be_made_say_why_and_change_nothing():
    with lib.Daemon() as daemon, daemon.client() as client:
        path = os.path.join(daemon.dir, "there")
        with open(path, "w", encoding="ascii") as file:
            file.write("mine")
        error = client.fails("exists", "host.backup", path=path)
        tap.check(path in error.message and "overwrite" in error.remedy, str(error))
        client.fails("file-error", "host.backup", path="/nonexistent/folder/backup.db")
        client.fails("invalid-params", "host.backup", path="relative.db")
        with open(path, encoding="ascii") as file:
            tap.check(file.read() == "mine", "the file was changed")
        client.call("host.backup", path=path, overwrite=True)
        tap.check(query(path, "PRAGMA integrity_check") == [("ok",)], "damaged")
        tap.check(client.call("api.ping") is not None, "vmd is gone")


def files_that_are_no_backup_are_refused_and_the_store_stays():
    with lib.Daemon() as daemon:
        daemon.call("vm.define", config=daemon.config("mine"))
        good = os.path.join(daemon.dir, "good.db")
        daemon.call("host.backup", path=good)
        daemon.terminate()
        with open(good, "rb") as file:
            data = file.read()
        files = {"missing": None, "empty": b"", "text": b"no database at all\n" * 400,
                 "cut": data[:len(data) // 2], "torn": data[:8192] + b"\xff" * 12288 + data[20480:],
                 "other": None, "newer": data}
        for name, content in files.items():
            path = os.path.join(daemon.dir, name + ".db")
            if content is not None:
                with open(path, "wb") as file:
                    file.write(content)
            if name == "other":
                with sqlite3.connect(path) as theirs:
                    theirs.execute("CREATE TABLE bookmarks(url TEXT)")
                theirs.close()
            if name == "newer":
                with sqlite3.connect(path) as newer:
                    newer.execute("PRAGMA user_version = 99")
                newer.close()
            code, text = restore(daemon, path)
            tap.check(code == 1 and "backup" in text or "store:" in text, f"{name}: {text}")
            tap.check(code == 1, f"'{name}' was taken")
        daemon.start()
        tap.check(names(daemon) == ["mine"], "the store was changed")
        left = [n for n in os.listdir(os.path.join(daemon.dir, "lib"))
                if n not in ("vm", "vmd.db", "vmd.db.lock", "vmd.db-wal", "vmd.db-shm")]
        tap.check(left == [], f"left behind: {left}")


def a_lock_that_outlives_its_daemon_for_a_moment_is_waited_for():
    """As when vmd is killed while it starts a process, which has all that it had open until it is another program."""
    with lib.Daemon() as daemon:
        daemon.kill()
        child = subprocess.Popen([sys.executable, "-c", """
import fcntl, struct, sys, time
file = open(sys.argv[1], "r+b")
fcntl.fcntl(file, 37, struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 0, 0, 0))  # F_OFD_SETLK
print("taken", flush=True)
time.sleep(1)"""] + [os.path.join(daemon.dir, "lib", "vmd.db.lock")], stdout=subprocess.PIPE)
        tap.check(child.stdout.readline() == b"taken\n", "no lock")
        daemon.start()
        child.wait()
        child.stdout.close()


if __name__ == "__main__":
    sys.exit(tap.run_cases([
        a_lock_that_outlives_its_daemon_for_a_moment_is_waited_for,
        backup_made_while_calls_change_the_store_is_whole_and_has_what_was_acknowledged_before,
        restore_brings_back_the_definitions_and_never_uses_a_number_twice,
        vm_that_runs_is_taken_up_after_a_restore_of_a_backup_made_while_it_ran,
        backups_that_cannot_be_made_say_why_and_change_nothing,
        files_that_are_no_backup_are_refused_and_the_store_stays,
    ]))
