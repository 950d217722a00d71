# SPDX-License-Identifier: Apache-2.0
"""The vector files: cases with the results that the reference gave, as lines of text.

    name ; code ; inputs ; outputs [; deviation]

code is hexadecimal in memory order, in pieces joined by dots: zN is N zero bytes, eN is N ebreak
instructions, @N stands where the case is entered and $N where it ends when that is not at the
first and after the last byte. Inputs are the state that differs from the base state of image.py;
outputs are what differs from the inputs afterwards. Values are hexadecimal; P+N and P-N are relative
to the first byte of the code. A line with a deviation holds what the specification asks for where
the reference is known to differ (deviations.py).
"""

import glob
import os

import image

HERE = os.path.dirname(os.path.abspath(__file__))
FOLDER = os.path.join(HERE, "vectors")
HEADER = """# SPDX-License-Identifier: Apache-2.0
# RV{xlen} {ext}: cases and their results. The format is described in tests/isa/vectors.py.
# Made by tests/isa/make-vectors (seed {seed}) from {reference}; do not edit.
"""


class Vector:
    """One line: a case, the instruction it is for, the result it must give."""

    def __init__(self, name, case, outputs, relative, deviation=None):
        self.name = name
        self.case = case
        self.outputs = outputs
        self.relative = relative
        self.deviation = deviation

    def expected(self, address, xlen):
        mask = (1 << xlen) - 1
        return {slot: (value + address & mask if slot in self.relative else value)
                for slot, value in self.outputs.items()}


def pieces(case):
    """The code as text."""
    out, data, at = [], case.code, 0
    marks = {}
    if case.entry:
        marks.setdefault(case.entry, []).append("@")
    if case.end != len(case.code):
        marks.setdefault(case.end, []).append("$")
    plain = bytearray()

    def flush():
        if plain:
            out.append(plain.hex())
            plain.clear()

    while at < len(data):
        if at in marks:
            flush()
            out.extend(marks[at])
        limit = min([mark for mark in marks if mark > at] + [len(data)])
        for unit, letter, least in ((image.EBREAK, "e", 2), (b"\0", "z", 6)):
            count = 0
            while data[at:at + len(unit)] == unit and at + len(unit) <= limit:
                count += 1
                at += len(unit)
            if count >= least:
                flush()
                out.append(f"{letter}{count}")
                break
            at -= count * len(unit)
        else:
            plain.append(data[at])
            at += 1
    flush()
    return ".".join(out)


def parse_pieces(text):
    code, entry, end = bytearray(), 0, None
    for piece in text.split(".") if text else []:
        if piece == "@":
            entry = len(code)
        elif piece == "$":
            end = len(code)
        elif piece[0] == "z":
            code += bytes(int(piece[1:]))
        elif piece[0] == "e" and len(piece) < 4:
            code += image.EBREAK * int(piece[1:])
        else:
            code += bytes.fromhex(piece)
    return bytes(code), entry, end


def format_state(values, relative, xlen):
    words = []
    for slot, value in sorted(values.items()):
        if slot in relative:
            sign = value >> xlen - 1
            text = f"P-{(1 << xlen) - value:x}" if sign else f"P+{value:x}"
        else:
            text = f"{value:x}"
        words.append(f"{image.slot_name(slot)}={text}")
    return " ".join(words)


def parse_state(text, xlen):
    values, relative = {}, set()
    for word in text.split():
        name, value = word.split("=")
        slot = image.slot_number(name)
        if value.startswith("P"):
            relative.add(slot)
            number = int(value[2:], 16)
            values[slot] = (number if value[1] == "+" else -number) & (1 << xlen) - 1
        else:
            values[slot] = int(value, 16)
    return values, relative


def to_line(vector, xlen):
    fields = [vector.name, pieces(vector.case), format_state(vector.case.state, (), xlen),
              format_state(vector.outputs, vector.relative, xlen)]
    if vector.deviation:
        fields.append(vector.deviation)
    return ";".join(fields)


def from_line(line, xlen):
    fields = line.split(";")
    if len(fields) not in (4, 5):
        raise ValueError(f"{len(fields)} fields")
    code, entry, end = parse_pieces(fields[1])
    state, _ = parse_state(fields[2], xlen)
    outputs, relative = parse_state(fields[3], xlen)
    case = image.Case(code, entry, end, state, fields[0])
    return Vector(fields[0], case, outputs, relative, fields[4] if len(fields) == 5 else None)


def from_result(name, pc_slots, case, result, address, xlen):
    """A vector from what the reference gave for a case at an address.

    pc_slots are the x registers whose values come from the pc.
    """
    relative = {slot for slot in result if slot == image.MEPC or slot in pc_slots}
    outputs = {slot: (value - address & (1 << xlen) - 1 if slot in relative else value)
               for slot, value in result.items()}
    return Vector(name, case, outputs, relative)


def load(xlen):
    """All vectors of the committed files."""
    found = []
    for path in sorted(glob.glob(os.path.join(FOLDER, f"rv{xlen}-*.txt"))):
        with open(path, encoding="ascii") as file:
            for number, line in enumerate(file, 1):
                if line.startswith("#") or not line.strip():
                    continue
                try:
                    found.append(from_line(line.rstrip("\n"), xlen))
                except (ValueError, KeyError, IndexError) as problem:
                    raise ValueError(f"{path}:{number}: {problem}") from None
    return found
