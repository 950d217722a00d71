# SPDX-License-Identifier: Apache-2.0
"""Bad requests with the exact error that each must get: code, message, object, remedy. The corpus is bad_requests.json, a
list of what is sent (one line) and what is answered. No request costs the daemon 100 ms of its processor, and all of them
leave it below 64 MiB.

    daemon_corpus.py --write      records the errors anew, for a look at what git says has changed
"""

import json
import os
import pathlib
import sys

TOP = pathlib.Path(os.environ.get("VMD_SRCDIR") or pathlib.Path(__file__).resolve().parents[2])
sys.dont_write_bytecode = True
sys.path[:0] = [str(TOP / "tests" / "lib"), str(TOP / "tests" / "e2e")]

import daemon_lib as lib  # noqa: E402
import tap  # noqa: E402

CORPUS = TOP / "tests" / "e2e" / "bad_requests.json"
CPU_NS, MEMORY = 100_000_000, 64 << 20
UUID = "5056c58a-347c-4a80-a829-f09f1612e0cc"


def load():
    return json.loads(CORPUS.read_text(encoding="utf-8"))


def cpu_ns(pid):
    """Time of all threads on a processor."""
    total = 0
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/schedstat", encoding="ascii") as file:
            total += int(file.read().split()[0])
    return total


def peak(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        return next(int(line.split()[1]) << 10 for line in file if line.startswith("VmHWM"))


def docs(value):
    """Every doc text of the schema: the remedy of a member's error is its doc, checked as that and not by its words."""
    if isinstance(value, dict):
        return {v for v in value.values() if isinstance(v, str)}.union(*(docs(v) for v in value.values()))
    return set().union(*(docs(v) for v in value)) if isinstance(value, list) else set()


DOCS = docs([json.loads(p.read_text(encoding="utf-8")) for p in (TOP / "api-schema" / "schema").glob("*.json")])


def remedy_of(text):
    if text in DOCS:
        return "(the member's doc)"
    if text.startswith("known members: "):
        return "(known members)"
    return "(what each word means)" if text.startswith("'") and "': " in text and "; " in text else text


def summary(answer):
    """What is compared: of a batch, a list."""
    if isinstance(answer, list):
        return [summary(a) for a in answer]
    error = answer.get("error")
    if error is None:
        return {"result": True}
    data = error.get("data") or {}
    out = {"code": error["code"], "message": error["message"]}
    out.update({k: data[k] for k in ("error", "object") if data.get(k)})
    return {**out, "remedy": remedy_of(data["remedy"])} if data.get("remedy") else out


class Asker:
    """One connection to a daemon with one VM, stopped."""

    def __init__(self, daemon):
        self.daemon = daemon
        daemon.call("vm.define", config={"name": "a", "uuid": UUID, "firmware": "none"})
        self.sock, self.file = daemon.raw()

    def ask(self, text):
        self.file.write(text.encode("utf-8", "surrogateescape") + b"\n")
        self.file.flush()
        return summary(json.loads(self.file.readline()))


def every_bad_request_gets_its_exact_error():
    corpus, wrong, slow = load(), [], []
    with lib.Daemon(emulator=lib.FAKE) as daemon:
        asker, pid = Asker(daemon), daemon.process.pid
        for case in corpus:
            before = cpu_ns(pid)
            got = asker.ask(case["send"])
            spent = cpu_ns(pid) - before
            if got != case["answer"]:
                wrong.append(f"{case['send'][:200]}\n  got  {got}\n  want {case['answer']}")
            if spent > CPU_NS and not lib.sanitized():
                slow.append(f"{case['send'][:80]}: {spent // 1000000} ms")
        tap.check(not wrong, f"{len(wrong)} of {len(corpus)} (daemon_corpus.py --write records them anew):\n" + "\n".join(wrong[:20]))
        tap.check(not slow, "\n".join(slow))
        tap.check(lib.sanitized() or peak(pid) < MEMORY, f"{peak(pid) >> 20} MiB")
        tap.check([v["name"] for v in daemon.call("vm.list")["vms"]] == ["a"], "something was changed")
        print(f"# {len(corpus)} bad requests, {peak(pid) >> 20} MiB at most")


def corpora_are_large_and_no_case_stands_twice():
    sent = [case["send"] for case in load()]
    tap.check(len(set(sent)) == len(sent), "a case stands twice")
    documents = len(json.loads((TOP / "tests/xml/bad.json").read_text(encoding="utf-8")))
    print(f"# {len(sent)} requests, {documents} XML documents")
    tap.check(len(sent) >= 500 and documents >= 300, f"{len(sent)} requests, {documents} documents")


def write():
    corpus = load()
    with lib.Daemon(emulator=lib.FAKE) as daemon:
        asker = Asker(daemon)
        for case in corpus:
            case["answer"] = asker.ask(case["send"])
    CORPUS.write_text("[\n" + ",\n".join(json.dumps(c) for c in corpus) + "\n]\n", encoding="utf-8")


if __name__ == "__main__":
    if sys.argv[1:] == ["--write"]:
        sys.exit(write())
    sys.exit(tap.run_cases([every_bad_request_gets_its_exact_error, corpora_are_large_and_no_case_stands_twice]))
