#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""What programs show on a desktop, by AT-SPI (Debian: gir1.2-atspi-2.0, at-spi2-core); runs in the desktop's session.

desktop_look.py            prints what is shown: role, name and text of each part, and "checked" where it is, a line each
desktop_look.py ROLE NAME  presses the first part of this role and name; 1: there is none"""

import sys

import gi
gi.require_version("Atspi", "2.0")
from gi.repository import Atspi, GLib  # noqa: E402


def parts(node, depth=0):
    """Of a tree that may change while it is walked."""
    if node is None or depth > 40:
        return
    yield node
    try:
        count = min(node.get_child_count(), 200)
    except GLib.Error:
        return
    for i in range(count):
        try:
            yield from parts(node.get_child_at_index(i), depth + 1)
        except GLib.Error:
            continue


def text_of(node):
    try:
        iface = node.get_text_iface()
        return Atspi.Text.get_text(iface, 0, min(Atspi.Text.get_character_count(iface), 1000)) if iface else ""
    except GLib.Error:
        return ""


def is_checked(node):
    try:
        return node.get_state_set().contains(Atspi.StateType.CHECKED)
    except GLib.Error:
        return False


def main():
    Atspi.init()
    for node in parts(Atspi.get_desktop(0)):
        try:
            role, name = node.get_role_name(), node.get_name() or ""
        except GLib.Error:
            continue
        if len(sys.argv) == 3:
            if (role, name) == tuple(sys.argv[1:]):
                action = node.get_action_iface()
                if action:
                    Atspi.Action.do_action(action, 0)
                    return 0
        else:
            print(f"{role}: {name!r} {text_of(node)!r}{' checked' if is_checked(node) else ''}")
    return 1 if len(sys.argv) == 3 else 0


sys.exit(main())
