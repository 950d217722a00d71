# SPDX-License-Identifier: Apache-2.0
"""The reader of .isa files: what it accepts, and what it refuses with file and line."""

import os
import random
import subprocess
import sys
import tempfile

SRC = os.environ.get("VMD_SRCDIR", os.path.join(os.path.dirname(__file__), "..", ".."))
RISCV = [os.path.join(SRC, "engine", "tcg", "guest_riscv", name)
         for name in ("riscv.isa", "riscv_v.isa")]
sys.path.insert(0, os.path.join(SRC, "engine", "tcg", "gen"))
import isamodel  # noqa: E402

HEAD = """isa toy 16
length 16
feature a first
feature b second
feature c third
exclusive b c
names reg r0 r1 r2 r3
field x = [5:4] : reg
field imm = s[3]|[7:6]|[2]<<1 : dec
format one one x=x imm=imm "x,imm"
format two two x=x "x"
format rest rest imm=imm "imm"
"""
CASES = []


def case(function):
    CASES.append(function)
    return function


def read(text):
    isa = isamodel.Isa()
    isa.parse_lines((HEAD + text).splitlines(), "toy.isa")
    return isa.check()


def refuses(text, *words):
    try:
        read(text)
    except isamodel.IsaError as error:
        assert all(word in str(error) for word in words), f"message was: {error}"
        return
    raise AssertionError("accepted: " + text)


@case
def field_get_and_put_are_inverse():
    field = read("").fields["imm"]
    assert (field.low, field.high) == (-16, 14)
    for value in range(-16, 16, 2):
        assert field.get(field.put(0, value)) == value
        assert field.get(field.put(0xffff, value)) == value
    assert field.put(0, -16) == 0x08 and field.put(0, 8) == 0x80 and field.put(0, 2) == 4


@case
def overlapping_patterns_are_refused():
    refuses("00000000........ p one a : p\n0000000.......00 q two a : q\n", "toy.isa:14",
            "overlaps", "'p'")


@case
def overlap_is_fine_when_features_exclude_each_other():
    read("00000000........ p one a,b : p\n00000000........ q one a,c : q\n")


@case
def overlap_is_fine_when_a_constraint_tells_them_apart():
    read("00000000........ p one a x!=1 : p\n00000000..01.... q rest a : q\n")
    refuses("00000000........ p one a x!=2 : p\n00000000..01.... q rest a : q\n", "overlaps")


@case
def first_wins_where_an_overlap_is_marked():
    isa = read("00000000........ p two a : p\n00000000..01.... q rest b first : q\n")
    assert isa.find(0x10, ["a", "b"]).name == "q"
    assert isa.find(0x10, ["a"]).name == "p"
    assert isa.find(0x20, ["a", "b"]).name == "p"
    assert isa.find(0x120, ["a", "b"]) is None


@case
def mistakes_name_file_and_line():
    refuses("0000000 p one a : p\n", "toy.isa:13", "7 bits")
    refuses("0000000000000000 p three a : p\n", "toy.isa:13", "three")
    refuses("0000000000...... p one z : p\n", "toy.isa:13", "feature 'z'")
    refuses("0000000000...... p one a\n", "toy.isa:13", "description")
    refuses("00000000........ p one a x~1 : p\n", "toy.isa:13", "x~1")
    refuses("00000000........ p one a : p\n00000001........ p one a : p\n", "already defined")
    refuses("00000000........ p one a =zz : p\n", "no instruction named 'zz'")
    refuses("00000000........ p one a : p\n00000001........ q two a =p : q\n", "struct")
    refuses("0000000000000000 p two a : p\n", "field x is fixed")
    refuses("format three one x=x \"x\"\n", "other members")
    refuses("field y = [2:5] : reg\n", "wrong way round")
    refuses("field y = [19:16] : reg\nformat three three y=y \"y\"\n"
            "00000000........ p three a : p\n", "outside the instruction")


@case
def random_encodings_decode_to_their_instruction():
    isa = isamodel.load(*RISCV)
    rng = random.Random(7)
    for insn in isa.insns:
        features = [name for name in isa.features
                    if not any(name in group and not set(insn.features) & group & {name} and
                               set(insn.features) & group for group in isa.exclusive)]
        for _ in range(5):
            bits = isa.random(rng, insn)
            assert isa.find(bits, features) is insn, f"{insn.full_name} {bits:#x}"


@case
def reference_page_is_current():
    page = os.path.join(SRC, "docs", "reference", "isa-riscv.md")
    with tempfile.TemporaryDirectory() as folder:
        fresh = os.path.join(folder, "page.md")
        command = [sys.executable, os.path.join(SRC, "engine", "tcg", "gen", "isagen.py"),
                   *(word for path in RISCV for word in ("--isa", path)), "--doc"]
        subprocess.run(command + [fresh], check=True)
        with open(fresh, encoding="utf-8") as one, open(page, encoding="utf-8") as two:
            assert one.read() == two.read(), "run: " + " ".join(command + [page])


def main():
    failed = 0
    for number, function in enumerate(CASES, 1):
        try:
            function()
            print(f"ok {number} - {function.__name__}")
        except (AssertionError, isamodel.IsaError) as error:
            failed += 1
            print(f"not ok {number} - {function.__name__}\n# {error}")
    print(f"1..{len(CASES)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
