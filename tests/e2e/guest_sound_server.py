# SPDX-License-Identifier: Apache-2.0
"""A guest's sound by sound servers of the host that nobody here wrote: PipeWire with a session manager, a sink and a source that no
hardware is behind; ALSA with devices that are files. What Debian's aplay plays in the guest is recorded there, what is played there arecord hears.

Needs the guests riscv64-screen and riscv64-sound (tests/guests/fetch). Time is the host's, and servers fill gaps with silence: most
of a sound arrives sample by sample, and all that does is in its order."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
for folder in (".", "../lib", "../guests"):
    sys.path.insert(0, os.path.join(HERE, folder))
import daemon_lib as lib  # noqa: E402
import guest  # noqa: E402
import guest_sound as sound  # noqa: E402
import tap  # noqa: E402

TIMEOUT = sound.TIMEOUT
PIECE = 256 * 4  # bytes that are looked for
TOOLS = {"pipewire": "pipewire-bin", "wireplumber": "wireplumber", "pw-record": "pipewire-bin", "dbus-run-session": "dbus-daemon"}


class PipeWire:
    """A server of its own, with one sink and one source."""

    def __init__(self):
        self.dir = tempfile.mkdtemp(prefix="vmd-pw-")
        self.env = {**os.environ, "XDG_RUNTIME_DIR": self.dir, "HOME": self.dir}
        self.env.pop("DBUS_SESSION_BUS_ADDRESS", None)
        self.socket = os.path.join(self.dir, "pipewire-0")
        self.processes = []

    def run(self, *command, wait=True):
        log = open(os.path.join(self.dir, os.path.basename(command[0]) + ".log"), "ab")
        process = subprocess.Popen(command, env=self.env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        log.close()
        if wait:
            tap.check(process.wait(TIMEOUT) == 0, f"{command}: {process.returncode}")
        return process

    def ports(self):
        return subprocess.run(["pw-link", "-io"], env=self.env, capture_output=True, text=True, timeout=TIMEOUT, check=False).stdout

    def links(self):
        return subprocess.run(["pw-link", "-l"], env=self.env, capture_output=True, text=True, timeout=TIMEOUT, check=False).stdout

    def start(self):
        self.processes.append(self.run("pipewire", wait=False))
        lib.wait_for(lambda: os.path.exists(self.socket), TIMEOUT, "PipeWire's socket")
        self.processes.append(self.run("dbus-run-session", "--", "wireplumber", wait=False))
        for name, kind, port in (("test-sink", "Audio/Sink", "monitor_FR"), ("test-source", "Audio/Source/Virtual", "input_FR")):
            self.run("pw-cli", "create-node", "adapter", f"{{ factory.name=support.null-audio-sink node.name={name} media.class={kind} "
                                                         "object.linger=true audio.position=[FL FR] audio.rate=48000 }")
            lib.wait_for(lambda name=name, port=port: f"{name}:{port}" in self.ports(), TIMEOUT, f"port {port} of {name}: {self.ports()}")

    def stop(self):
        for process in reversed(self.processes):
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(TIMEOUT)
        self.processes = []

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.stop()
        shutil.rmtree(self.dir, ignore_errors=True)


def arrived(have, want):
    """How much of the sound is there, in its order; the part of its pieces that are."""
    at = found = 0
    pieces = [want[n:n + PIECE] for n in range(0, len(want) - PIECE, PIECE)]
    for piece in pieces:
        where = have.find(piece, at)
        if where >= 0:
            found, at = found + 1, where + PIECE
    return found / len(pieces)


def mostly(have, want, what):
    part = arrived(have, want)
    print(f"# {what}: {100 * part:.1f}% of {len(want)} bytes sample by sample")
    tap.check(part > 0.5, f"{what}: {part} of it arrived, in {len(have)} bytes")


def frames_of(path):
    with open(path, "rb") as file:
        return file.read()[44:]


def heard_by_pipewire(pw, shell, want, what):
    out = os.path.join(pw.dir, f"{what}.wav")
    recorder = pw.run("pw-record", "--target", "test-sink", "-P", "{ stream.capture.sink=true }", "--rate", "48000", "--channels", "2",
                      "--format", "s16", out, wait=False)
    lib.wait_for(lambda: "test-sink:monitor_FL\n  |-> pw-record" in pw.links(), TIMEOUT, f"pw-record is linked: {pw.links()}")
    sound.play(shell)
    time.sleep(1)  # what is on its way
    os.kill(recorder.pid, signal.SIGINT)
    recorder.wait(TIMEOUT)
    mostly(frames_of(out), want, what)


def pipewire_plays_and_records():
    want = sound.noise(48000 * 3, 11)
    spoken = sound.noise(48000 * 8, 12)
    with PipeWire() as pw, lib.Daemon() as daemon, daemon.client(TIMEOUT) as client:
        shell = sound.machine(daemon, client, {"backend": "pipewire", "server": pw.socket}, want, icount=False)
        lib.wait_for(lambda: "vmd.a.play" in pw.ports() or "a:output_FL" in pw.ports(), TIMEOUT, f"the VM's ports: {pw.ports()}")
        heard_by_pipewire(pw, shell, want, "played")
        talk = sound.wav(os.path.join(pw.dir, "talk.wav"), spoken)
        shell.s.sendall(f"({sound.RUN} /usr/bin/arecord -q -D hw:0,0 -f S16_LE -r 48000 -c 2 -d 6 /tmp/heard.wav; echo $? >/tmp/done) &\n".encode())
        lib.wait_for(lambda: "test-source:capture_FL\n  |->" in pw.links(), TIMEOUT, f"the guest records: {pw.links()}")
        speaker = pw.run("pw-play", "--target", "0", talk, wait=False)
        lib.wait_for(lambda: "pw-play:output_FL" in pw.ports(), TIMEOUT, f"pw-play: {pw.ports()}")
        for side in ("FL", "FR"):
            pw.run("pw-link", f"pw-play:output_{side}", f"test-source:input_{side}")
        shell.run("until [ -f /tmp/done ]; do sleep 0.2; done; grep -qx 0 /tmp/done")
        speaker.wait(TIMEOUT)
        text = shell.run("for n in 1 2 3 4 5 6 7 8; do tail -c +$((n * 100000)) /tmp/heard.wav | head -c 1024 | od -An -v -tx1 | tr -d ' \\n'; echo; done")
        pieces = [bytes.fromhex(line.strip()) for line in text.splitlines() if len(line.strip()) == 2048]
        print(f"# recorded: {sum(piece in spoken for piece in pieces)} of {len(pieces)} samples of a KiB")
        tap.check(any(piece.strip(b"\0") and piece in spoken for piece in pieces), "the guest heard nothing of what was said")
        # The server goes: the guest plays on. It comes again: so does the sound.
        pw.stop()
        sound.play(shell)
        pw.start()
        lib.wait_for(lambda: "a:output_FL" in pw.ports() or "vmd.a.play" in pw.ports(), TIMEOUT, f"the VM's ports again: {pw.ports()}")
        heard_by_pipewire(pw, shell, want, "played to one that came again")
        client.call("vm.stop", vm="a", force=True)


ASOUND = """
<{shipped}>
pcm.!default {{ type file slave.pcm null file "{out}" format raw infile "{in}" }}
"""


def file_of(folder):
    return os.path.join(folder, "asound.conf")


def environment(pid):
    """Its ALSA_CONFIG_PATH."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return dict(part.split("=", 1) for part in file.read().decode().split("\0") if "=" in part).get("ALSA_CONFIG_PATH")
    except OSError:
        return None


def alsa_plays_and_records():
    shipped = "/usr/share/alsa/alsa.conf"
    if not os.path.exists(shipped):
        raise tap.Skip(f"{shipped} (libasound2-data)")
    want, spoken = sound.noise(48000 * 2, 13), sound.noise(48000 * 60, 14)
    with tempfile.TemporaryDirectory(prefix="vmd-alsa-") as folder:
        os.chmod(folder, 0o777)  # vmd-sound of a vmd that root runs is nobody
        names = {"shipped": shipped, "out": os.path.join(folder, "out.raw"), "in": os.path.join(folder, "in.raw")}
        with open(names["in"], "wb") as file:
            file.write(spoken)
        with open(file_of(folder), "w", encoding="utf-8") as file:
            file.write(ASOUND.format(**names))
        with lib.Daemon(wrapper=("env", f"ALSA_CONFIG_PATH={file_of(folder)}")) as daemon, daemon.client(TIMEOUT) as client:
            shell = sound.machine(daemon, client, {"backend": "alsa"}, want, icount=False)
            sound.play(shell)
            lib.wait_for(lambda: os.path.exists(names["out"]) and os.path.getsize(names["out"]) > len(want), TIMEOUT, "sound")
            time.sleep(2)
            with open(names["out"], "rb") as file:
                mostly(file.read(), want, "played")
            shell.run(f"{sound.RUN} /usr/bin/arecord -q -D hw:0,0 -f S16_LE -r 48000 -c 2 -d 2 /tmp/heard.wav")
            text = shell.run("tail -c +200000 /tmp/heard.wav | head -c 1024 | od -An -v -tx1 | tr -d ' \\n'; echo")
            piece = next(bytes.fromhex(line.strip()) for line in text.splitlines() if len(line.strip()) == 2048)
            tap.check(piece in spoken, "what it heard is another sound")
            mine = subprocess.run(["pgrep", "-f", "vmd-sound .*--name=a "], capture_output=True, text=True, check=False).stdout.split()
            mine = [pid for pid in mine if environment(pid) == file_of(folder)]
            tap.check(len(mine) == 1, f"processes of vmd-sound: {mine}")
            client.call("vm.stop", vm="a", force=True)
            lib.wait_for(lambda: not os.path.exists(f"/proc/{mine[0]}"), TIMEOUT, "the end of vmd-sound with its VM")


def what_cannot_be_is_refused():
    with lib.Daemon() as daemon, daemon.client(TIMEOUT) as client:
        for audio, words in (({"backend": "alsa", "output": "/tmp/x.wav"}, "no output"),
                             ({"server": "/run/x"}, "no server"),
                             ({"backend": "alsa", "device": "file:|reboot"}, "letters, digits"),
                             ({"backend": "jack"}, "jack")):
            error = client.fails("invalid-params", "vm.define", config=daemon.config("w", audio=audio))
            tap.check(words in str(error), f"{audio}: {error}")
        if os.geteuid() == 0:
            client.call("vm.define", config=daemon.config("r", audio={"backend": "pipewire"}))
            error = client.fails("start-failed", "vm.start", vm="r")
            tap.check("server" in error.message, f"{error}")
            client.call("vm.set", vm="r", set={"audio": {"backend": "pipewire", "server": "/nowhere/pipewire-0"}})
            error = client.fails("start-failed", "vm.start", vm="r")
            tap.check("/nowhere/pipewire-0" in error.message, f"{error}")


if __name__ == "__main__":
    guest.need("riscv64-screen", "riscv64-sound")
    missing = [f"{tool} ({package})" for tool, package in TOOLS.items() if not shutil.which(tool)]
    if missing:
        print(f"1..0 # SKIP {', '.join(missing)}")
        sys.exit(0)
    sys.exit(tap.run_cases([what_cannot_be_is_refused, alsa_plays_and_records, pipewire_plays_and_records], (guest.Unavailable,)))
