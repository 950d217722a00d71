/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Works on the generated instruction tables of any guest: field access, disassembly, random
 * encodings. Holds no state; any thread may call.
 */
#include "engine/tcg/gen/isa.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { RANDOM_TRIES = 1000 };

static uint64_t ones(unsigned width)
{
    return width >= 64 ? UINT64_MAX : (UINT64_C(1) << width) - 1;
}

int64_t isa_field_get(const struct isa_field *field, uint64_t bits)
{
    uint64_t value = 0;
    unsigned i;

    for (i = 0; i < field->seg_count; i++) {
        value = value << field->segs[i].width |
                (bits >> field->segs[i].low & ones(field->segs[i].width));
    }
    if (field->is_signed && field->width > 0 && (value >> (field->width - 1) & 1) != 0) {
        value |= ~ones(field->width);
    }
    return (int64_t)((value << field->shift) + (uint64_t)(int64_t)field->add);
}

uint64_t isa_field_put(const struct isa_field *field, uint64_t bits, int64_t value)
{
    uint64_t raw = (uint64_t)(value - field->add) >> field->shift;
    unsigned i;

    for (i = field->seg_count; i-- > 0;) {
        uint64_t mask = ones(field->segs[i].width);

        bits = (bits & ~(mask << field->segs[i].low)) | (raw & mask) << field->segs[i].low;
        raw >>= field->segs[i].width;
    }
    return bits;
}

int64_t isa_field_min(const struct isa_field *field)
{
    if (!field->is_signed || field->width == 0) {
        return field->add;
    }
    return -(int64_t)((UINT64_C(1) << (field->width - 1)) << field->shift) + field->add;
}

int64_t isa_field_max(const struct isa_field *field)
{
    unsigned width = field->width - (field->is_signed && field->width > 0 ? 1 : 0);

    return (int64_t)(ones(width) << field->shift) + field->add;
}

bool isa_insn_allows(const struct isa_insn *insn, uint64_t bits)
{
    unsigned i, j;

    if ((bits & insn->mask) != insn->match) {
        return false;
    }
    for (i = 0; i < insn->constraint_count; i++) {
        const struct isa_constraint *c = &insn->constraints[i];
        int64_t value = isa_field_get(c->field, bits);
        bool found = false;

        for (j = 0; j < c->count; j++) {
            found = found || value == c->values[j];
        }
        if (found != c->equal) {
            return false;
        }
    }
    return true;
}

/* ---- disassembly ------------------------------------------------------------------------- */

/* A bounded output buffer; protected by its only user. */
struct out {
    char *buf;
    size_t size, used;
};

__attribute__((format(printf, 2, 3))) static void put(struct out *out, const char *format, ...)
{
    va_list ap;
    int n;

    if (out->used >= out->size) {
        return;
    }
    va_start(ap, format);
    n = vsnprintf(out->buf + out->used, out->size - out->used, format, ap);
    va_end(ap);
    if (n > 0) {
        out->used += (size_t)n;
    }
}

static void put_name(struct out *out, const struct isa_names *names, uint64_t value)
{
    size_t low = 0, high = names->count;

    while (low < high) {
        size_t mid = low + (high - low) / 2;

        if (names->names[mid].value < value) {
            low = mid + 1;
        } else {
            high = mid;
        }
    }
    if (low < names->count && names->names[low].value == value) {
        put(out, "%s", names->names[low].name);
    } else {
        put(out, "0x%" PRIx64, value);
    }
}

/* What the operands of one instruction are written from. */
struct text {
    const struct isa_insn *insn;
    uint64_t pc, bits;
    unsigned address_bits;
};

static void put_arg(struct out *out, const struct text *text, const struct isa_field *field)
{
    int64_t value = isa_field_get(field, text->bits);

    switch (field->kind) {
    case ISA_DEC:
        put(out, "%" PRId64, value);
        break;
    case ISA_HEX:
        value = (int64_t)((uint64_t)value >> field->print_shift);
        put(out, "0x%" PRIx64,
            (uint64_t)value &
                (field->print_width != 0 ? ones(field->print_width) : UINT64_MAX));
        break;
    case ISA_PCREL:
        put(out, "0x%" PRIx64, (text->pc + (uint64_t)value) & ones(text->address_bits));
        break;
    case ISA_NAMES:
        put_name(out, field->names, (uint64_t)value);
        break;
    }
}

/* Length of the word at s, and its field if it names an operand. */
static size_t word(const struct isa_format *format, const char *s,
                   const struct isa_field **field)
{
    size_t n = 0;
    unsigned i;

    while ((s[n] >= 'a' && s[n] <= 'z') || (s[n] >= '0' && s[n] <= '9')) {
        n++;
    }
    *field = NULL;
    for (i = 0; n > 0 && i < format->arg_count; i++) {
        if (strlen(format->args[i].name) == n && memcmp(format->args[i].name, s, n) == 0) {
            *field = format->args[i].field;
        }
    }
    return n;
}

/*
 * At "{arg!value:text}": returns where to go on, which is the text when the operand differs
 * from value, and behind the group when it is equal.
 */
static const char *group(const struct text *text, const char *s)
{
    const struct isa_field *field;
    int64_t omit = 0;

    s++;
    s += word(text->insn->format, s, &field);
    if (*s == '!') {
        s++;
    }
    while (*s >= '0' && *s <= '9') {
        omit = omit * 10 + (*s++ - '0');
    }
    if (*s == ':') {
        s++;
    }
    if (field != NULL && isa_field_get(field, text->bits) == omit) {
        const char *end = strchr(s, '}');

        return end != NULL ? end + 1 : s + strlen(s);
    }
    return s;
}

static void put_operands(struct out *out, const struct text *text, const char *s)
{
    while (*s != '\0') {
        const struct isa_field *field;
        size_t n;

        if (*s == '{') {
            s = group(text, s);
            continue;
        }
        if (*s == '}') {
            s++;
            continue;
        }
        n = word(text->insn->format, s, &field);
        if (field != NULL) {
            put_arg(out, text, field);
            s += n;
        } else {
            n = n > 0 ? n : 1;
            put(out, "%.*s", (int)n, s);
            s += n;
        }
    }
}

unsigned isa_disas(const struct isa *isa, uint64_t pc, uint64_t bits, isa_features features,
                   unsigned address_bits, char *buf, size_t n)
{
    struct out out = { buf, n, 0 };
    unsigned length = isa->length(bits);
    unsigned op;
    struct text text;
    const char *syntax;

    if (length < 8) {
        bits &= ones(length * 8);
    }
    op = isa->find(bits, features);
    if (n > 0) {
        buf[0] = '\0';
    }
    if (op == 0) {
        put(&out, ".%ubyte 0x%" PRIx64, length, bits);
        return length;
    }
    text = (struct text){ &isa->insns[op], pc, bits, address_bits };
    put(&out, "%s", text.insn->name);
    syntax = text.insn->format->syntax;
    if (*syntax == '!') {
        const struct isa_field *field;

        syntax++;
        syntax += word(text.insn->format, syntax, &field);
        if (field != NULL) {
            put_arg(&out, &text, field);
        }
        syntax += strspn(syntax, " ");
    }
    if (*syntax != '\0') {
        size_t before;

        put(&out, " ");
        before = out.used;
        put_operands(&out, &text, syntax);
        if (out.used == before && out.used > 0 && out.used < out.size) {
            out.buf[--out.used] = '\0';
        }
    }
    return length;
}

/* ---- random encodings -------------------------------------------------------------------- */

/* A value for a field, with the ends of its range and the neighbours of 0 made likely. */
static uint64_t put_random(const struct isa_field *field, const struct isa_pick *pick,
                           uint64_t bits)
{
    uint64_t draw = pick->rng(pick->opaque);

    switch (draw & 15) {
    case 0:
        return isa_field_put(field, bits, isa_field_min(field));
    case 1:
        return isa_field_put(field, bits, isa_field_max(field));
    case 2:
        return isa_field_put(field, bits, field->add);
    case 3:
        return isa_field_put(field, bits, field->add + (INT64_C(1) << field->shift));
    default:
        return bits;
    }
}

/* True if an earlier argument of the format uses the same field. */
static bool repeated(const struct isa_format *format, unsigned index)
{
    unsigned i;

    for (i = 0; i < index; i++) {
        if (format->args[i].field == format->args[index].field) {
            return true;
        }
    }
    return false;
}

bool isa_random_op(const struct isa *isa, unsigned op, const struct isa_pick *pick,
                   uint64_t *bits)
{
    const struct isa_insn *insn = &isa->insns[op];
    int tries;

    for (tries = 0; op != 0 && tries < RANDOM_TRIES; tries++) {
        uint64_t draw = pick->rng(pick->opaque) & ones(insn->width);
        unsigned i;

        for (i = 0; i < insn->format->arg_count; i++) {
            const struct isa_arg *arg = &insn->format->args[i];
            int64_t value;

            if (repeated(insn->format, i)) {
                continue;
            }
            if (pick->choose != NULL && pick->choose(pick->opaque, insn, arg, &value)) {
                draw = isa_field_put(arg->field, draw, value);
            } else {
                draw = put_random(arg->field, pick, draw);
            }
        }
        draw = (draw & ~insn->mask) | insn->match;
        if (isa_insn_allows(insn, draw)) {
            *bits = draw;
            return true;
        }
    }
    return false;
}

static bool picked(const struct isa *isa, unsigned op, const struct isa_pick *pick, uint64_t *bits)
{
    const struct isa_insn *insn = &isa->insns[op];

    return (insn->features & ~pick->features) == 0 &&
           (pick->accept == NULL || pick->accept(pick->opaque, insn)) &&
           isa_random_op(isa, op, pick, bits);
}

unsigned isa_random(const struct isa *isa, const struct isa_pick *pick, uint64_t *bits)
{
    unsigned n = isa->insn_count - 1, tries, op, first;

    for (tries = 0; n > 0 && tries < RANDOM_TRIES; tries++) {
        op = 1 + (unsigned)(pick->rng(pick->opaque) % n);
        if (picked(isa, op, pick, bits)) {
            return op;
        }
    }
    /* Hardly any will do: the next one that does. */
    first = n > 0 ? (unsigned)(pick->rng(pick->opaque) % n) : 0;
    for (tries = 0; tries < n; tries++) {
        op = 1 + (first + tries) % n;
        if (picked(isa, op, pick, bits)) {
            return op;
        }
    }
    return 0;
}
