# SPDX-License-Identifier: Apache-2.0
"""The disassembler agrees with GNU objdump (-M no-aliases): all 65,536 halfwords as compressed
instructions and random 32-bit words, for RV64 and RV32, on validity, mnemonic and operands.

Known differences are listed here with their reason; anything else fails."""

import os
import random
import re
import shutil
import subprocess
import sys
import tempfile

SRC = os.environ.get("VMD_SRCDIR", os.path.join(os.path.dirname(__file__), "..", ".."))
BUILD = os.environ.get("VMD_BUILDDIR", ".")
sys.path.insert(0, os.path.join(SRC, "engine", "tcg", "gen"))
import isamodel  # noqa: E402

MARCH = ("{}imafdcv_zicbom_zicbop_zicboz_zicsr_zifencei_zawrs_zfh_zba_zbb_zbc_zbkb_zbkc_zbkx_zbs_zknd_zkne_"
         "zknh_zksed_zksh_svinval")
# Extensions that objdump 2.40 (Debian 12) does not know: their instructions are the vectors' matter alone.
UNKNOWN = {"zvkb", "zvbb", "zvbc", "zvkg", "zvkned", "zvknha_or_zvknhb", "zvksed", "zvksh", "zvfbfmin", "zvfbfwma", "zicond", "zimop", "zcmop", "zcb", "zacas", "zabha", "zfbfmin", "zfa"}
RANDOM_PER_INSN = 60
RANDOM_WORDS = 20000


def tool(name):
    for prefix in ("riscv64-unknown-elf-", "riscv64-linux-gnu-"):
        path = shutil.which(prefix + name)
        if path:
            return path
    print(f"skipped: riscv64 binutils ({name}) are missing")
    sys.exit(77)


def objdump(xlen, blob, folder):
    """{address: text} for every instruction that objdump finds in blob."""
    source, elf, raw = (os.path.join(folder, n) for n in ("a.s", "a.o", "a.bin"))
    with open(source, "w", encoding="ascii") as out:
        out.write("nop\n")
    with open(raw, "wb") as out:
        out.write(blob)
    abi = "lp64d" if xlen == 64 else "ilp32d"
    subprocess.run([tool("as"), "-march=" + MARCH.format(f"rv{xlen}"), "-mabi=" + abi, source,
                    "-o", elf], check=True)
    subprocess.run([tool("objcopy"), "--update-section", ".text=" + raw, elf], check=True)
    run = subprocess.run([tool("objdump"), "-d", "-z", "-M", "no-aliases", elf], check=True,
                         capture_output=True, text=True)
    result = {}
    for line in run.stdout.splitlines():
        match = re.match(r"\s*([0-9a-f]+):\s+([0-9a-f]+)\s+(.*)", line)
        if match:
            result[int(match.group(1), 16)] = match.group(3)
    return result


def ours(xlen, items):
    text = "".join(f"{pc:x} {bits:x}\n" for pc, bits in items)
    run = subprocess.run([os.path.join(BUILD, "tests", "isa", "gen_disas"), str(xlen)],
                         input=text, check=True, capture_output=True, text=True)
    return run.stdout.splitlines()


def normal(text):
    """objdump's line without its comments and symbols, addresses as 0x..."""
    text = text.split("#")[0].strip()
    text = re.sub(r"\s*<[^>]*>", "", text)
    parts = text.split(None, 1)
    if not parts or parts[0].startswith(".") or parts[0] in ("unimp", "c.unimp"):
        return "invalid"
    if len(parts) == 1:
        return parts[0]
    operands = parts[1].replace(" ", "")
    name = parts[0]
    if name in ("c.j", "c.jal"):
        operands = hex_of(operands)
    elif name in ("jal", "beq", "bne", "blt", "bge", "bltu", "bgeu", "c.beqz", "c.bnez"):
        head, _, last = operands.rpartition(",")
        operands = head + "," + hex_of(last)
    return name + " " + operands


def hex_of(text, base=16):
    """A number as 0x...; other text as it is."""
    try:
        return hex(int(text, base))
    except ValueError:
        return text


def mine(text):
    if text.startswith("."):
        return "invalid"
    head, _, operands = text.partition(" ")
    return f"{head} {operands.strip()}" if operands.strip() else head


def excused(xlen, bits, width, got, want):
    """Why a difference is right, or None."""
    if width == 16 and bits == 0x6101 and got == "invalid":
        return "c.addi16sp with an immediate of 0 is reserved"
    if xlen == 32 and got == "invalid" and "invalid" != want:
        shift = re.search(r",0x([0-9a-f]+)$", want)
        if shift and 32 <= int(shift.group(1), 16) < 64:
            return "RV32 has no shift amounts above 31"
    if width == 32 and want == "invalid" and got.startswith(("fcvt.d.s ", "fcvt.d.w", "fcvt.s.h ", "fcvt.d.h ")):
        return "these conversions are exact and take any rounding mode"
    opcode, name = bits & 0x7f, got.split()[0]
    if width == 32 and opcode == 0x0f and name in ("fence", "fence.i"):
        return "reserved fields of fences are ignored by hardware, objdump shows some as data"
    if width == 32 and opcode == 0x53 and got == "invalid" and (bits >> 12 & 7) in (5, 6):
        return "reserved rounding modes raise an illegal instruction"
    if width == 32 and opcode in (0x43, 0x47, 0x4b, 0x4f) and (bits >> 12 & 7) in (5, 6):
        return "reserved rounding modes raise an illegal instruction"
    if width == 32 and name in ("csrrw", "csrrs", "csrrc", "csrrwi", "csrrsi", "csrrci"):
        parts, other = got.split(","), want.split(",")
        if len(other) == 3 and parts[0] == other[0] and parts[2] == other[2]:
            return "the name of a CSR"
    if want == "invalid" and re.sub(r"(?<=[bhwdq])\.(aq|rl|aqrl)$|\.\d+$", "", name) in unknown:
        return "an instruction that objdump 2.40 does not know"
    if name in ("vsetvli", "vsetivli") and got.rpartition(",")[2] == hex_of(want.rpartition(",")[2], 10):
        return "a reserved vtype is a number"
    if got == "invalid" and want.startswith("aes64ks1i") and (bits >> 20 & 15) > 10:
        return "there are eleven rounds"
    whole = re.match(r"vmv([248])r\.v v(\d+),v(\d+)$", want)
    if got == "invalid" and whole and any(int(whole.group(i)) % int(whole.group(1)) for i in (2, 3)):
        return "groups of registers begin at a multiple of their number"
    if name.startswith("zext.h") and want.startswith("pack"):
        return "pack and packw with x0 are zext.h"
    if want.startswith("prefetch.") and name == "ori":
        return "prefetches are ori to x0"
    if got == "invalid" and want.split()[0] in FOREIGN:
        return "an instruction of an extension that the guest does not have"
    if width == 16 and name in ("c.nop", "c.li", "c.lui", "c.mv", "c.add", "c.slli", "c.slli64"):
        if bits >> 7 & 31 == 0:
            return "hints are written in several ways"
    return None


FOREIGN = {"uret", "hret", "dret", "sfence.vm", "hfence.vvma", "hfence.gvma", "hinval.vvma", "hinval.gvma",
           "c.fswsp", "c.flwsp", "dscratch", "pause"}


def compare(xlen, words, width, folder):
    """Number of unexplained differences, printed as diagnostics."""
    step = width // 8
    blob = b"".join(word.to_bytes(step, "little") for word in words)
    theirs = objdump(xlen, blob, folder)
    items = [(index * step, word) for index, word in enumerate(words)]
    bad, seen = 0, set()
    for (pc, bits), text in zip(items, ours(xlen, items)):
        got, want = mine(text), normal(theirs.get(pc, "missing"))
        if got != want and not excused(xlen, bits, width, got, want):
            bad += 1
            key = (got.split()[0], want.split()[0])
            if key not in seen or "-v" in sys.argv:
                seen.add(key)
                print(f"# rv{xlen} {bits:#010x} at {pc:#x}: '{got}', objdump says '{want}'")
        elif got != "invalid":
            seen_names.add(got.split()[0])
    return bad


seen_names = set()
unknown = set()


def random_words(isa, rng, xlen):
    features = [name for name in isa.features if name != f"rv{96 - xlen}"]
    words = [isa.random(rng, insn) for insn in isa.usable(features) if insn.width == 32
             for _ in range(RANDOM_PER_INSN)]
    words += [rng.getrandbits(32) | 3 for _ in range(RANDOM_WORDS)]
    # A 32-bit instruction never ends in 11111: those bits are the prefix of longer ones.
    return [word for word in words if word & 0x1f != 0x1f]


def main():
    args = [arg for arg in sys.argv[1:] if arg != "-v"]
    seed = int(args[1]) if args[:1] == ["--seed"] else \
        int(os.environ.get("VMD_TEST_SEED", random.SystemRandom().getrandbits(32)))
    print(f"# seed {seed} (again with --seed {seed})")
    folder = os.path.join(SRC, "engine", "tcg", "guest_riscv")
    isa = isamodel.load(os.path.join(folder, "riscv.isa"), os.path.join(folder, "riscv_v.isa"))
    unknown.update(insn.name for insn in isa.insns if UNKNOWN & set(insn.features))
    rng = random.Random(seed)
    failed, number = 0, 0
    with tempfile.TemporaryDirectory() as folder:
        for xlen in (64, 32):
            halfwords = [bits for bits in range(1 << 16) if bits & 3 != 3]
            for name, words, width in (
                    ("all_compressed_encodings_match_objdump", halfwords, 16),
                    ("random_words_match_objdump", random_words(isa, rng, xlen), 32)):
                number += 1
                bad = compare(xlen, words, width, folder)
                failed += bad != 0
                print(f"{'not ok' if bad else 'ok'} {number} - rv{xlen}_{name}")
    number += 1
    missing = {re.sub(r"\.(aq|rl|aqrl)$", "", i.name) for i in isa.insns} - \
        {re.sub(r"\.(aq|rl|aqrl)$", "", name) for name in seen_names}
    missing -= {"fence.i"}
    missing = {name for name in missing if name not in unknown}
    failed += bool(missing)
    print(f"{'not ok' if missing else 'ok'} {number} - every_instruction_was_compared")
    if missing:
        print("# never seen: " + " ".join(sorted(missing)))
    print(f"1..{number}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
