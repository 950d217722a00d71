# SPDX-License-Identifier: Apache-2.0
"""Model of an instruction set read from a .isa file.

Owns parsing, the consistency checks (overlaps, fields outside the instruction, formats that
disagree about a struct), encoding, decoding by linear search and random encodings.  isagen.py
emits C from this model; tests import it for random programs.  Standard library only.
The file format is described in docs/guide/isa-format.md.
"""

import re


class IsaError(Exception):
    """A mistake in a .isa file; the message starts with file:line."""


class Names:
    """Names of the values of an operand: dense (a list) or sparse (value=name)."""

    def __init__(self, name):
        self.name = name
        self.values = {}

    def add(self, words):
        for word in words:
            if "=" in word:
                value, _, text = word.partition("=")
                self.values[int(value, 0)] = text
            else:
                self.values[len(self.values)] = "" if word == "-" else word


class Field:
    """Where an operand's value sits: segments (low bit, width), most significant first."""

    def __init__(self, name, expr, kind, kind_args):
        self.name, self.expr, self.kind, self.kind_args = name, expr, kind, kind_args
        self.segs, self.signed, self.shift, self.add = [], False, 0, 0
        text = expr.replace(" ", "")
        if re.fullmatch(r"\d+", text):
            self.add = int(text)
            return
        match = re.fullmatch(r"(s?)((?:\[\d+(?::\d+)?\]\|?)+)(?:<<(\d+))?(?:\+(\d+))?", text)
        if not match:
            raise ValueError(f"cannot read field expression '{expr}'")
        self.signed = match.group(1) == "s"
        for hi, lo in re.findall(r"\[(\d+)(?::(\d+))?\]", match.group(2)):
            low = int(lo) if lo else int(hi)
            if int(hi) < low:
                raise ValueError(f"bit range [{hi}:{lo}] is the wrong way round")
            self.segs.append((low, int(hi) - low + 1))
        self.shift = int(match.group(3) or 0)
        self.add = int(match.group(4) or 0)

    @property
    def width(self):
        return sum(width for _, width in self.segs)

    @property
    def mask(self):
        result = 0
        for low, width in self.segs:
            result |= ((1 << width) - 1) << low
        return result

    @property
    def low(self):
        """Smallest value."""
        return (-(1 << (self.width - 1)) << self.shift if self.signed else 0) + self.add

    @property
    def high(self):
        """Largest value."""
        top = (1 << (self.width - 1)) - 1 if self.signed else (1 << self.width) - 1
        return (top << self.shift) + self.add

    def get(self, bits):
        value = 0
        for low, width in self.segs:
            value = value << width | bits >> low & ((1 << width) - 1)
        if self.signed and value >> (self.width - 1) & 1:
            value -= 1 << self.width
        return (value << self.shift) + self.add

    def put(self, bits, value):
        raw = (value - self.add) >> self.shift
        for low, width in reversed(self.segs):
            ones = (1 << width) - 1
            bits = bits & ~(ones << low) | (raw & ones) << low
            raw >>= width
        return bits


class Format:
    """Binds the members of a struct to fields and says how the operands are written."""

    def __init__(self, name, struct, binds, syntax):
        self.name, self.struct, self.binds, self.syntax = name, struct, binds, syntax


class Insn:
    """One line: fixed bits, format, the features it needs, operand constraints."""

    def __init__(self, name, width, mask, match):
        self.full_name, self.width, self.mask, self.match = name, width, mask, match
        self.name = name.partition("@")[0]
        self.ident = re.sub(r"[^a-z0-9]", "_", name.lower())
        self.features, self.constraints, self.doc = [], [], ""
        self.trans = self.name
        self.format = None
        self.section = ""
        self.pattern = ""
        self.first = False
        self.where = ""

    def allows(self, bits):
        """True if bits are this instruction (features aside)."""
        if bits & self.mask != self.match:
            return False
        return all((field.get(bits) in values) == equal for field, equal, values in
                   self.constraints)

    def fields(self):
        """Distinct (argument, field) pairs that own bits of the instruction."""
        seen, result = set(), []
        for arg, field in self.format.binds.items():
            if field.segs and field.name not in seen:
                seen.add(field.name)
                result.append((arg, field))
        return result

    def encode(self, **values):
        bits = self.match
        for arg, value in values.items():
            bits = self.format.binds[arg].put(bits, value)
        return bits & ~self.mask | self.match


class Isa:
    """Everything that a .isa file says."""

    def __init__(self):
        self.name, self.max_width = "", 32
        self.features, self.exclusive = {}, []
        self.lengths, self.names = [], {}
        self.fields, self.formats, self.insns = {}, {}, []
        self.section = ""

    # ---- parsing ---------------------------------------------------------------------------

    def parse_file(self, path):
        with open(path, encoding="ascii") as source:
            self.parse_lines(source, path)
        return self

    def parse_lines(self, lines, path):
        for number, line in enumerate(lines, 1):
            text = line.rstrip("\n")
            if not text.strip() or text.lstrip().startswith("#"):
                continue
            try:
                self.parse_line(text.strip(), f"{path}:{number}")
            except (ValueError, KeyError, IndexError) as error:
                raise IsaError(f"{path}:{number}: {error}") from error

    def parse_line(self, text, where):
        word, _, rest = text.partition(" ")
        handler = getattr(self, "line_" + word, None)
        if handler:
            handler(rest.strip())
        else:
            self.line_insn(text, where)

    def line_isa(self, rest):
        self.name, width = rest.split()
        self.max_width = int(width)

    def line_length(self, rest):
        words = rest.split()
        cond = None
        if len(words) > 1:
            match = re.fullmatch(r"\[(\d+):(\d+)\]=(\d+)", words[1])
            if not match:
                raise ValueError(f"cannot read length condition '{words[1]}'")
            high, low, value = (int(group) for group in match.groups())
            cond = (((1 << (high - low + 1)) - 1) << low, value << low)
        self.lengths.append((int(words[0]), cond))

    def line_feature(self, rest):
        name, _, doc = rest.partition(" ")
        if name in self.features:
            raise ValueError(f"feature {name} defined twice")
        self.features[name] = doc.strip()

    def line_exclusive(self, rest):
        words = rest.split()
        for word in words:
            if word not in self.features:
                raise ValueError(f"unknown feature '{word}'")
        self.exclusive.append(set(words))

    def line_names(self, rest):
        words = rest.split()
        self.names.setdefault(words[0], Names(words[0])).add(words[1:])

    def line_field(self, rest):
        name, _, definition = rest.partition("=")
        expr, _, kind = definition.rpartition(" : ")
        words = kind.split()
        name = name.strip()
        if not words or name in self.fields:
            raise ValueError(f"field '{name}' has no kind or is defined twice")
        if words[0] not in ("dec", "hex", "pcrel") and words[0] not in self.names:
            raise ValueError(f"unknown kind '{words[0]}'")
        self.fields[name] = Field(name, expr.strip(), words[0], [int(w, 0) for w in words[1:]])

    def line_format(self, rest):
        match = re.fullmatch(r'(\S+)\s+(\S+)\s*([^"]*)"([^"]*)"', rest)
        if not match:
            raise ValueError("expected: format NAME STRUCT arg=field ... \"syntax\"")
        binds = {}
        for word in match.group(3).split():
            arg, _, field = word.partition("=")
            if field not in self.fields:
                raise ValueError(f"unknown field '{field}'")
            binds[arg] = self.fields[field]
        if match.group(1) in self.formats:
            raise ValueError(f"format '{match.group(1)}' defined twice")
        self.formats[match.group(1)] = Format(match.group(1), match.group(2), binds,
                                              match.group(4))

    def line_section(self, rest):
        self.section = rest

    def line_insn(self, text, where):
        head, colon, doc = text.partition(" : ")
        if not colon:
            raise ValueError("an instruction line needs ' : ' and a description")
        words = head.split()
        pattern = ""
        while words and re.fullmatch(r"[01.]+", words[0]):
            pattern += words.pop(0)
        if len(pattern) not in [width for width, _ in self.lengths]:
            raise ValueError(f"pattern of {len(pattern)} bits has no 'length' line")
        if len(words) < 3:
            raise ValueError("expected: PATTERN NAME FORMAT FEATURES [...] : doc")
        mask = int(re.sub(".", lambda m: "0" if m.group() == "." else "1", pattern), 2)
        match = int(pattern.replace(".", "0"), 2)
        insn = Insn(words[0], len(pattern), mask, match)
        insn.pattern, insn.section, insn.doc, insn.where = pattern, self.section, doc, where
        insn.format = self.formats[words[1]]
        insn.features = words[2].split(",")
        for feature in insn.features:
            if feature not in self.features:
                raise ValueError(f"unknown feature '{feature}'")
        for word in words[3:]:
            self.parse_attribute(insn, word)
        self.insns.append(insn)

    def parse_attribute(self, insn, word):
        match = re.fullmatch(r"(\w+)(!=|==)([-0-9,]+)", word)
        if word.startswith("="):
            insn.trans = word[1:]
        elif word == "first":
            insn.first = True
        elif match:
            values = {int(value) for value in match.group(3).split(",")}
            insn.constraints.append((self.fields[match.group(1)], match.group(2) == "==",
                                     values))
        else:
            raise ValueError(f"cannot read attribute '{word}'")

    # ---- checks ----------------------------------------------------------------------------

    def check(self):
        self.check_structs()
        idents = {}
        for insn in self.insns:
            if insn.ident in idents:
                raise IsaError(f"{insn.where}: '{insn.full_name}' is already defined at "
                               f"{idents[insn.ident].where}")
            idents[insn.ident] = insn
            self.check_insn(insn)
        for insn in self.insns:
            self.check_trans(insn)
        for index, insn in enumerate(self.insns):
            for other in self.insns[index + 1:]:
                if self.overlap(insn, other) and not (insn.first or other.first):
                    raise IsaError(f"{other.where}: '{other.full_name}' overlaps "
                                   f"'{insn.full_name}' ({insn.where}); tell them apart by a "
                                   "constraint, or mark the one that wins 'first'")
        return self

    def check_structs(self):
        args = {}
        for form in self.formats.values():
            known = args.setdefault(form.struct, (form.name, sorted(form.binds)))
            if known[1] != sorted(form.binds):
                raise IsaError(f"format {form.name}: struct {form.struct} has other members in "
                               f"format {known[0]}")

    def check_insn(self, insn):
        used = 0
        for _, field in insn.fields():
            if field.mask >> insn.width:
                raise IsaError(f"{insn.where}: field {field.name} lies outside the instruction")
            used |= field.mask
        if used & insn.mask:
            fixed = [f.name for _, f in insn.fields() if f.mask & ~insn.mask == 0]
            if fixed:
                raise IsaError(f"{insn.where}: field {fixed[0]} is fixed by the pattern")
        for width, cond in self.lengths:
            if cond and insn.width == width:
                if insn.mask & cond[0] != cond[0] or insn.match & cond[0] != cond[1]:
                    raise IsaError(f"{insn.where}: the pattern does not fit its length")
            elif cond and insn.mask & cond[0] == cond[0] and insn.match & cond[0] == cond[1]:
                raise IsaError(f"{insn.where}: the pattern has the length code of {width} bits")

    def check_trans(self, insn):
        for other in self.insns:
            if other.name == insn.trans:
                if other.format.struct != insn.format.struct:
                    raise IsaError(f"{insn.where}: '{insn.full_name}' translates as "
                                   f"'{other.name}' but fills struct {insn.format.struct}, "
                                   f"not {other.format.struct}")
                return
        raise IsaError(f"{insn.where}: no instruction named '{insn.trans}' to translate as")

    def features_exclude(self, one, two):
        for group in self.exclusive:
            first, second = group & set(one.features), group & set(two.features)
            if first and second and not first & second:
                return True
        return False

    def overlap(self, one, two):
        """True if some encoding could be both."""
        if one.width != two.width or (one.match ^ two.match) & one.mask & two.mask:
            return False
        if self.features_exclude(one, two):
            return False
        mask, match = one.mask | two.mask, one.match | two.match
        wanted = {}
        for field, equal, values in one.constraints + two.constraints:
            if field.mask & ~mask == 0 and (field.get(match) in values) != equal:
                return False
            if equal:
                wanted.setdefault(field.name, []).append(values)
            for other, other_equal, other_values in one.constraints + two.constraints:
                if other is field and equal and not other_equal and values <= other_values:
                    return False
        return not any(not set.intersection(*sets) for sets in wanted.values())

    # ---- use -------------------------------------------------------------------------------

    def feature_bit(self, name):
        return 1 << list(self.features).index(name)

    def feature_mask(self, names):
        result = 0
        for name in names:
            result |= self.feature_bit(name)
        return result

    def insn_width(self, bits):
        for width, cond in self.lengths:
            if cond is None or bits & cond[0] == cond[1]:
                return width
        return self.max_width

    def find(self, bits, features):
        """The instruction that bits encode under the named features, or None."""
        width = self.insn_width(bits)
        for insn in sorted(self.insns, key=lambda entry: not entry.first):
            if insn.width == width and insn.allows(bits & ((1 << width) - 1)) and \
                    set(insn.features) <= set(features):
                return insn
        return None

    def usable(self, features):
        return [insn for insn in self.insns if set(insn.features) <= set(features)]

    def random(self, rng, insn, choose=None):
        """A random valid encoding of insn.

        rng is a random.Random; choose(insn, arg, field) may return a value for an operand, or
        None to leave it random.  Values at the ends of a field's range are made likely.
        """
        for _ in range(1000):
            bits = rng.getrandbits(insn.width) & ~insn.mask | insn.match
            for arg, field in insn.fields():
                value = choose(insn, arg, field) if choose else None
                if value is None and rng.random() < 0.25:
                    value = rng.choice([field.low, field.high, field.add,
                                        field.add + (1 << field.shift)])
                if value is not None:
                    bits = field.put(bits, value) & ~insn.mask | insn.match
            if insn.allows(bits):
                return bits
        raise IsaError(f"{insn.where}: no encoding of '{insn.full_name}' found")


def load(*paths):
    """Read and check .isa files; returns an Isa."""
    isa = Isa()
    for path in paths:
        isa.parse_file(path)
    return isa.check()
