# SPDX-License-Identifier: Apache-2.0
"""A guest's shell on its console, for the tests that drive one: `console` is a connected socket, the rest is what was said."""

import re
import time

import tap


class Shell:
    """What is mixed into a machine with a console. `limit` is of patience, nothing is measured."""

    limit = 200.0
    between = "; "  # a command and the question for its status
    text = b""

    def send(self, text):
        self.console.sendall(text.encode())

    def expect(self, pattern, timeout=None):
        """What was said up to the match, which is taken."""
        regex = re.compile(pattern.encode(), re.MULTILINE)
        end = time.monotonic() + (timeout or self.limit)
        while True:
            match = regex.search(self.text)
            if match:
                self.text = self.text[match.end():]
                return match
            self.console.settimeout(max(0.1, end - time.monotonic()))
            try:
                data = self.console.recv(65536)
            except TimeoutError:
                data = b""
            if not data:
                raise AssertionError(f"no {pattern!r}; the console ends with\n"
                                     + self.text[-1500:].decode(errors="replace"))
            self.text += data

    def run(self, text):
        """A command in the guest's shell; its output, or an error when its status is not 0."""
        self.send(text + self.between + "echo STATUS=$?=\n")
        match = self.expect(r"((?:.|\n)*?)^STATUS=(\d+)=\r?$")
        output = match.group(1).decode(errors="replace")
        tap.check(match.group(2) == b"0", f"{text}: {output}")
        return output
