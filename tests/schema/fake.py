# SPDX-License-Identifier: Apache-2.0
"""A small server that greets and answers as told, for tests of vmctl's command line and output.

What a daemon does is tested with the daemon itself (tests/e2e); here only the two ends of a call.
"""
import json
import os
import socket
import tempfile
import threading
import time

HELLO = {"jsonrpc": "2.0", "method": "hello", "params": {"program": "vmd", "version": "0", "schema": "x"}}
VM = {"name": "db1", "uuid": "01234567-89ab-4cde-8f01-23456789abcd", "state": "running", "since_ms": 0,
      "arch": "riscv64", "cpus": 2, "memory": 536870912, "pid": 4127, "transient": False}


class Failure(Exception):
    """Raised by an answer to send an error object."""

    def __init__(self, code, name, message, obj="", remedy=""):
        super().__init__(message)
        self.object = {"code": code, "message": message, "data": {"error": name, "object": obj, "remedy": remedy}}


NOT_FOUND = Failure(1001, "not-found", "there is no VM 'db1'", "VM db1", "'vmctl list' shows the VMs there are")


class Server:
    """Serves one unix socket; `answers` maps a method to a result or to a function of its parameters."""

    def __init__(self, answers):
        self.answers, self.calls, self.connections, self.unanswered = answers, [], [], []
        self.dir = tempfile.TemporaryDirectory(prefix="vmctl-test-")
        self.path = os.path.join(self.dir.name, "vmd.sock")
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.path)
        self.listener.listen(8)
        self.thread = threading.Thread(target=self._accept, daemon=True)
        self.thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        # Wakes accept() and waits for it: a descriptor closed under it could become the next server's.
        self.listener.shutdown(socket.SHUT_RDWR)
        self.thread.join()
        self.listener.close()
        self.dir.cleanup()

    def _accept(self):
        while True:
            try:
                conn, _ = self.listener.accept()
            except OSError:
                return
            self.connections.append(conn)
            threading.Thread(target=self._serve, args=(conn,), daemon=True).start()

    def _serve(self, conn):
        try:
            self.send(conn, HELLO)
            with conn, conn.makefile("r", encoding="utf-8") as lines:
                for line in lines:
                    request = json.loads(line)
                    self.calls.append((request["method"], request.get("params", {})))
                    self._reply(conn, request)
        except OSError:
            pass

    def _reply(self, conn, request):
        answer = self.answers.get(request["method"], {})
        reply = {"jsonrpc": "2.0", "id": request["id"]}
        try:
            reply["result"] = answer(request.get("params", {})) if callable(answer) else answer
        except Failure as why:
            reply["error"] = why.object
        if reply.get("result", 0) is not None:
            self.send(conn, reply)
        else:
            self.unanswered.append((conn, request["id"]))

    def answer_open_call(self, result):
        """Answers the call that got no answer yet, once there is one."""
        for _ in range(3000):
            if self.unanswered:
                conn, n = self.unanswered.pop(0)
                self.send(conn, {"jsonrpc": "2.0", "id": n, "result": result})
                return
            time.sleep(0.01)
        raise AssertionError("no call is open")

    @staticmethod
    def send(conn, message):
        conn.sendall((json.dumps(message, ensure_ascii=False) + "\n").encode())

    def notify(self, method, params):
        """To every client."""
        for conn in self.connections:
            self.send(conn, {"jsonrpc": "2.0", "method": method, "params": params})

    def await_call(self):
        """Until some call has come."""
        for _ in range(3000):
            if self.calls:
                return
            time.sleep(0.01)
        raise AssertionError("no call came")

    def params_of(self, method):
        """Parameters of the only call of a method."""
        found = [p for m, p in self.calls if m == method]
        assert len(found) == 1, f"{method} was called {len(found)} times: {self.calls}"
        return found[0]


class Console:
    """A console socket that records what is typed and sends what it is told."""

    def __init__(self, folder):
        self.path = os.path.join(folder, "console.sock")
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.path)
        self.listener.listen(8)
        self.typed = b""

    def accept(self):
        self.listener.settimeout(20)
        conn, _ = self.listener.accept()
        return conn

    def read_until(self, conn, wanted):
        conn.settimeout(20)
        while wanted not in self.typed:
            got = conn.recv(4096)
            if not got:
                raise AssertionError(f"the console ended, typed so far: {self.typed!r}")
            self.typed += got
