/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tables that describe an instruction set, and what works on them for every guest: the
 * disassembler, the random-instruction generator and the encoder.  isagen.py writes the tables
 * from a .isa file (docs/guide/isa-format.md); they are constant, any thread may read them.
 */
#ifndef VMD_ENGINE_TCG_GEN_ISA_H
#define VMD_ENGINE_TCG_GEN_ISA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Enough for any text that isa_disas writes. */
#define ISA_DISAS_MAX 96

enum {
    ISA_MAX_SEGS = 8, /* segments of one field */
    ISA_MAX_ARGS = 6  /* operands of one format */
};

/* A set of features of a .isa file, a bit each. */
typedef unsigned __int128 isa_features;
#define ISA_FEATURE(n) ((isa_features)1 << (n))

/* How an operand is written. */
enum isa_kind {
    ISA_DEC,   /* signed decimal */
    ISA_HEX,   /* 0x..., after the field's print shift and mask */
    ISA_PCREL, /* the address pc + value, 0x... */
    ISA_NAMES  /* a name from a table; the number in hexadecimal when it has none */
};

/* A run of instruction bits. */
struct isa_seg {
    uint8_t low;
    uint8_t width;
};

/* One named value; tables are sorted by value. */
struct isa_name {
    uint32_t value;
    const char *name;
};

struct isa_names {
    const char *name;
    size_t count;
    const struct isa_name *names;
};

/* Where an operand's value sits in the instruction; constant since generated. */
struct isa_field {
    const char *name;
    uint8_t seg_count;                 /* 0: the constant 'add' */
    struct isa_seg segs[ISA_MAX_SEGS]; /* most significant first */
    bool is_signed;
    uint8_t width; /* sum of the segments' widths */
    uint8_t shift; /* value = (bits << shift) + add */
    int32_t add;
    enum isa_kind kind;
    uint8_t print_shift;           /* ISA_HEX: printed is (value >> print_shift) */
    uint8_t print_width;           /* ISA_HEX: ... cut to this many bits; 0: all */
    const struct isa_names *names; /* ISA_NAMES */
};

struct isa_arg {
    const char *name;
    const struct isa_field *field;
};

struct isa_format {
    const char *name;
    const char *syntax; /* operands: argument names and literal text; see isa-format.md */
    uint8_t arg_count;
    struct isa_arg args[ISA_MAX_ARGS];
};

struct isa_constraint {
    const struct isa_field *field;
    bool equal; /* true: one of the values; false: none of them */
    uint8_t count;
    int32_t values[8];
};

/* One line of the .isa file. */
struct isa_insn {
    const char *name;  /* mnemonic */
    const char *ident; /* unique: mnemonic and variant, in [a-z0-9_] */
    uint8_t width;     /* bits */
    uint64_t mask, match;
    isa_features features; /* all of these are needed */
    const struct isa_format *format;
    uint8_t constraint_count;
    const struct isa_constraint *constraints; /* few have any */
    const char *doc;
};

struct isa {
    const char *name;
    size_t insn_count; /* including entry 0, "illegal" */
    const struct isa_insn *insns;
    size_t feature_count;
    const char *const *features;
    /* Index of the instruction that bits encode, 0 when illegal. */
    unsigned (*find)(uint64_t bits, isa_features features);
    unsigned (*length)(uint64_t bits); /* in bytes, from the leading bits */
};

/* The value of a field, and bits with the field set to value (cut to what fits). */
int64_t isa_field_get(const struct isa_field *field, uint64_t bits);
uint64_t isa_field_put(const struct isa_field *field, uint64_t bits, int64_t value);

/* Smallest and largest value of a field. */
int64_t isa_field_min(const struct isa_field *field);
int64_t isa_field_max(const struct isa_field *field);

/*
 * True if bits satisfy the mask, match and operand constraints of insn; features are not asked.
 */
bool isa_insn_allows(const struct isa_insn *insn, uint64_t bits);

/*
 * Writes the text of the instruction at pc into buf (n bytes, always terminated when n > 0).
 * address_bits (32 or 64) is the width to which computed addresses wrap. An instruction
 * that is illegal under features becomes ".2byte 0x..." or ".4byte 0x...".
 * Returns the instruction's length in bytes.
 */
unsigned isa_disas(const struct isa *isa, uint64_t pc, uint64_t bits, isa_features features,
                   unsigned address_bits, char *buf, size_t n);

/* What a random instruction may look like. */
struct isa_pick {
    isa_features features;         /* instructions that need others are not drawn */
    uint64_t (*rng)(void *opaque); /* 64 random bits */
    /*
     * Optional: draws an instruction or says no to it.
     */
    bool (*accept)(void *opaque, const struct isa_insn *insn);
    /*
     * Optional: sets *value to the wanted value of an operand and returns true, or returns
     * false to leave it random. Values that do not fit are cut.
     */
    bool (*choose)(void *opaque, const struct isa_insn *insn, const struct isa_arg *arg,
                   int64_t *value);
    void *opaque;
};

/*
 * A random valid encoding of instruction index op into *bits. Values at the ends of a field's
 * range are likely. Returns false when no encoding satisfies the choices (bits untouched).
 */
bool isa_random_op(const struct isa *isa, unsigned op, const struct isa_pick *pick,
                   uint64_t *bits);

/*
 * A random valid instruction among those that pick allows. Returns its index and sets *bits,
 * or returns 0 when nothing can be drawn.
 */
unsigned isa_random(const struct isa *isa, const struct isa_pick *pick, uint64_t *bits);

#endif
