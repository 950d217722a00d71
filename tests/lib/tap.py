# SPDX-License-Identifier: Apache-2.0
"""TAP output for Python tests: one case a call, or a list of functions as cases."""

import os
import signal
import sys
import traceback


class Skip(Exception):
    """Raised by a case that cannot run here; its text says what is missing."""


def local(why):
    """Marks a case that is about this host's own sockets: it is not repeated over TLS."""
    def mark(function):
        function.local = why
        return function
    return mark


class Tap:
    """Prints cases as they end; done() prints the plan and gives the exit status."""

    def __init__(self):
        self.count = 0
        self.failed = 0

    def case(self, name, problem=None, skip=None):
        self.count += 1
        self.failed += problem is not None
        tail = f" # SKIP {skip}" if skip else ""
        print(f"{'ok' if problem is None else 'not ok'} {self.count} - {name}{tail}")
        for line in (problem or "").splitlines():
            print("# " + line)
        sys.stdout.flush()

    def done(self):
        print(f"1..{self.count}", flush=True)
        return 1 if self.failed else 0


def check(condition, text):
    """A failed expectation of a case."""
    if not condition:
        raise AssertionError(text)


def run_cases(functions, missing=()):
    """Runs functions as cases named after them; exceptions in `missing` mean skipped.

    With arguments on the command line, only the cases of these names.
    """
    # Ended from outside, cases still clean up behind themselves.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    tap = Tap()
    for function in functions:
        name = function.__name__
        if sys.argv[1:] and name not in sys.argv[1:]:
            continue
        why = getattr(function, "local", None)
        if why and os.environ.get("VMD_REMOTE"):
            print(f"# not repeated over TLS: {name}: {why}")
            continue
        try:
            function()
        except (Skip, *missing) as reason:
            tap.case(name, skip=str(reason).replace("\n", " "))
        except AssertionError as problem:
            where = "".join(traceback.format_tb(problem.__traceback__)[1:])
            tap.case(name, f"{str(problem) or 'assertion failed'}\n{where}")
        except Exception:
            tap.case(name, traceback.format_exc())
        else:
            tap.case(name)
    return tap.done()
