# SPDX-License-Identifier: Apache-2.0
"""A sound card under Debian's kernel: aplay's sound is in the host's file sample by sample, arecord hears the host's file.

Needs the guests riscv64-screen and riscv64-sound (tests/guests/fetch). Time is that of instructions, so that no guest is too slow for
its own sound; once it is the host's, and a gap that the guest tells of is another try.
"""

import array
import hashlib
import os
import random
import re
import struct
import sys
import wave

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
for folder in (".", "../lib", "../guests"):
    sys.path.insert(0, os.path.join(HERE, folder))
import daemon_lib as lib  # noqa: E402
import guest  # noqa: E402
import guest_usb  # noqa: E402
import newc  # noqa: E402
import tap  # noqa: E402

TIMEOUT = guest_usb.TIMEOUT
LIBRARIES = "usr/lib/riscv64-linux-gnu"
RUN = f"/{LIBRARIES}/ld-linux-riscv64-lp64d.so.1 --library-path /{LIBRARIES}"


def noise(frames, seed, channels=2):
    """Samples that are like no others, none of them zero."""
    chance = random.Random(seed)
    return array.array("h", [chance.choice((-1, 1)) * chance.randint(1, 32767) for _ in range(frames * channels)]).tobytes()


def wav(path, data, rate=48000, channels=2):
    with wave.open(path, "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(data)
    return path


def read(path, rate=48000, channels=2):
    with wave.open(path, "rb") as file:
        tap.check((file.getnchannels(), file.getsampwidth(), file.getframerate()) == (channels, 2, rate), str(file.getparams()))
        data = file.readframes(file.getnframes())
    tap.check(len(data) + 44 == os.path.getsize(path), "the head of the file tells its size")
    return data


def initrd(daemon, have, tree, more):
    """The guest's, with aplay, what it is linked with, and files of ours."""
    archive, seen = newc.Newc(), set()

    def add(name, data, perm=0o644):
        parts = name.split("/")
        for n in range(1, len(parts)):
            if "/".join(parts[:n]) not in seen:
                seen.add("/".join(parts[:n]))
                archive.folder("/".join(parts[:n]))
        archive.file(name, data, perm)
    for name in ("usr/bin/aplay", *[f"{LIBRARIES}/{n}" for n in ("libasound.so.2", "libc.so.6", "libm.so.6", "ld-linux-riscv64-lp64d.so.1")]):
        with open(os.path.realpath(os.path.join(tree, name)), "rb") as file:
            add(name, file.read(), 0o755)
    for folder, _, names in os.walk(os.path.join(tree, "usr/share/alsa")):
        for name in names:
            path = os.path.join(folder, name)
            if os.path.isfile(path):
                with open(path, "rb") as file:
                    add(os.path.relpath(path, tree), file.read())
    for name, data in more.items():
        add(name, data)
    with open(have["initrd"], "rb") as file:
        first = file.read()
    path = os.path.join(daemon.dir, "sound.initrd")
    with open(path, "wb") as file:
        file.write(first + b"\0" * (-len(first) % 512) + archive.bytes())
    return path


def machine(daemon, client, audio, sound=b"", icount=True):
    """Its shell, with the sound in /tone.wav."""
    have = guest.fetched("riscv64-screen", "riscv64-sound")
    tone = wav(os.path.join(daemon.dir, "tone.wav"), sound)
    with open(tone, "rb") as file:
        more = {"tone.wav": file.read()}
    client.call("vm.define", config=daemon.config(
        "a", memory=256 * lib.MIB, firmware="default", kernel=have["kernel"], initrd=initrd(daemon, have, have["sound"], more),
        append="console=ttyS0 vmd.virtio vmd.run=shell", audio=audio,
        tcg={"cache_size": 64 * lib.MIB, **({"icount": 0} if icount else {})}))
    client.call("vm.start", vm="a")
    shell = guest_usb.Shell(client, "a")
    shell.run("until [ -e /dev/snd/pcmC0D0p ]; do sleep 0.1; done; ln -sf /usr/bin/aplay /usr/bin/arecord")
    return shell


def play(shell, more=""):
    return shell.run(f"{RUN} /usr/bin/aplay -q -D hw:0,0 {more} /tone.wav 2>&1")


def same(path, sound, rate=48000):
    """What was played, and behind it nothing but the silence that fills the last period."""
    have = read(path, rate)
    tap.check(have[:len(sound)] == sound, f"{len(have)} bytes of {len(sound)} are others")
    tap.check(not have[len(sound):].strip(b"\0") and len(have) - len(sound) < 4 * rate, f"{len(have) - len(sound)} bytes behind it")


def what_is_played_is_in_the_file_sample_by_sample():
    sound = noise(48000 * 3, 1)
    with lib.Daemon() as daemon, daemon.client(TIMEOUT) as client:
        out = os.path.join(daemon.dir, "out.wav")
        shell = machine(daemon, client, {"output": out}, sound)
        tap.check("[" in shell.run("cat /proc/asound/cards"), "a card")
        said = shell.run("cat /proc/uptime; " + f"{RUN} /usr/bin/aplay -q -D hw:0,0 /tone.wav; cat /proc/uptime")
        first, last = [float(x) for x in re.findall(r"(?m)^(\d+\.\d+) ", said)]
        tap.check(3.0 <= last - first < 5.0, f"{last - first} s of the guest's for three of sound")
        same(out, sound)
        play(shell)  # a second sound stands behind the first
        have = read(out)
        tap.check(have.endswith(b"\0") or have.endswith(sound), "its end")
        tap.check(sound in have[len(sound):], "the second one")
        client.call("vm.stop", vm="a", force=True)


def saved_in_the_middle_it_goes_on_in_the_middle():
    sound = noise(48000 * 20, 2)
    with lib.Daemon() as daemon, daemon.client(TIMEOUT) as client:
        out = os.path.join(daemon.dir, "out.wav")
        shell = machine(daemon, client, {"output": out}, sound)
        shell.s.sendall(f"({RUN} /usr/bin/aplay -q -D hw:0,0 /tone.wav >/tmp/said 2>&1; echo $? >/tmp/done) &\n".encode())
        lib.wait_for(lambda: os.path.getsize(out) > 200000, TIMEOUT, "sound")
        shell.s.close()
        client.call("vm.save", vm="a")
        lib.wait_for(lambda: client.call("vm.get", vm="a")["state"] == "stopped", TIMEOUT, "saved")
        part = len(read(out))
        tap.check(part < len(sound), f"it was saved behind the end: {part}")
        client.call("vm.start", vm="a")
        again = guest_usb.Shell(client, "a", 100)
        again.run("until [ -f /tmp/done ]; do sleep 1; done; cat /tmp/said; grep -qx 0 /tmp/done")
        same(out, sound)
        print(f"# saved after {part // 4} of {len(sound) // 4} frames")
        client.call("vm.stop", vm="a", force=True)


def arecord_hears_the_file_and_then_silence():
    sound = noise(48000, 3)
    with lib.Daemon() as daemon, daemon.client(TIMEOUT) as client:
        source = wav(os.path.join(daemon.dir, "in.wav"), sound)
        shell = machine(daemon, client, {"input": source}, noise(4800, 4))
        shell.run(f"{RUN} /usr/bin/arecord -q -D hw:0,0 -t raw -f S16_LE -r 48000 -c 2 -s 72000 /tmp/x 2>&1")
        digest = re.search(r"[0-9a-f]{64}", shell.run("sha256sum /tmp/x")).group()
        tap.check(digest == hashlib.sha256(sound + bytes(24000 * 4)).hexdigest(), "what was heard")
        play(shell)  # to nobody
        client.call("vm.stop", vm="a", force=True)


def time_of_the_host_is_a_pace_too():
    sound = noise(24000, 5)
    with lib.Daemon() as daemon, daemon.client(TIMEOUT) as client:
        out = os.path.join(daemon.dir, "out.wav")
        shell = machine(daemon, client, {"output": out}, sound, icount=False)
        for _ in range(20):
            before = os.path.getsize(out)
            said = play(shell, "--buffer-time=160000")
            if "underrun" not in said:
                break
        have = read(out)[max(before - 44, 0):]
        tap.check(have[:len(sound)] == sound or "underrun" in said, f"{len(have)} bytes")
        client.call("vm.stop", vm="a", force=True)


def files_that_cannot_be_are_refused():
    with lib.Daemon() as daemon, daemon.client(TIMEOUT) as client:
        text = os.path.join(daemon.dir, "notes")
        with open(text, "w", encoding="utf-8") as file:
            file.write("nothing that is to be lost")
        odd = os.path.join(daemon.dir, "odd.wav")
        with open(odd, "wb") as file:
            file.write(b"RIFF" + struct.pack("<I", 40) + b"WAVEfmt " + struct.pack("<IHHIIHH", 16, 1, 6, 48000, 1, 12, 16) + b"data\0\0\0\0")
        client.call("vm.define", config=daemon.config("a"))
        for audio, why in (({"output": text}, "no WAV file"), ({"input": text}, "no WAV file"), ({"input": odd}, "channels"),
                           ({"output": daemon.dir + "/no/such"}, "no folder"), ({"input": daemon.dir + "/none"}, "does not exist")):
            client.call("vm.set", vm="a", set={"audio": None})
            client.call("vm.set", vm="a", set={"audio": audio})
            try:
                client.call("vm.start", vm="a")
                tap.check(False, f"{audio}: it started")
            except lib.CallError as error:
                tap.check(why in str(error), f"{audio}: {error}")
        with open(text, encoding="utf-8") as file:
            tap.check(file.read() == "nothing that is to be lost", "it is as it was")
        client.fails("invalid-params", "vm.set", vm="a", set={"audio": {"output": odd, "rate": 47999}})
        client.fails("invalid-params", "vm.set", vm="a", set={"audio": {"output": odd, "input": odd}})


if __name__ == "__main__":
    guest.need("riscv64-screen", "riscv64-sound")
    sys.exit(tap.run_cases([
        what_is_played_is_in_the_file_sample_by_sample,
        saved_in_the_middle_it_goes_on_in_the_middle,
        arecord_hears_the_file_and_then_silence,
        time_of_the_host_is_a_pace_too,
        files_that_cannot_be_are_refused,
    ]))
