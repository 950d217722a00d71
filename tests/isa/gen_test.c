/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The generated decoder against the tables it was generated from (searched one by one, by
 * other code), the random-instruction generator, and the bounds of the disassembler.
 */
#include "engine/tcg/gen/isa.h"
#include "engine/tcg/guest_riscv/disas.h"
#include "engine/tcg/guest_riscv/riscv_isa.h"
#include "tests/lib/testing.h"

#define RV64 (~RISCV_ISA_RV32)
#define RV32 (~RISCV_ISA_RV64)

static uint64_t state;

static uint64_t next_random(void *opaque)
{
    (void)opaque;
    return test_random(&state);
}

/* The decoder's answer by looking at every line. */
static unsigned search(uint32_t bits, isa_features features)
{
    unsigned length = riscv_insn_length(bits);
    unsigned op, found = 0;

    for (op = 1; op < RISCV_OP_COUNT; op++) {
        const struct isa_insn *insn = &riscv_isa.insns[op];
        uint64_t cut = length == 2 ? bits & 0xffff : bits;

        if (insn->width == length * 8 && (insn->features & ~features) == 0 &&
            isa_insn_allows(insn, cut)) {
            ck_assert_uint_eq(found, 0);
            found = op;
        }
    }
    return found;
}

START_TEST(decoder_finds_what_a_search_finds_for_all_halfwords)
{
    uint32_t bits;

    for (bits = 0; bits < 0x10000; bits++) {
        struct riscv_insn insn;
        uint32_t word = bits | (uint32_t)test_random(&state) << 16;

        if ((bits & 3) == 3) {
            continue;
        }
        ck_assert_uint_eq(riscv_decode(word, RV64, &insn), search(bits, RV64));
        ck_assert_uint_eq(insn.length, 2);
        ck_assert_uint_eq(riscv_decode(word, RV32, &insn), search(bits, RV32));
    }
}
END_TEST

START_TEST(decoder_finds_what_a_search_finds_for_random_words)
{
    int i;

    for (i = 0; i < 100000; i++) {
        struct riscv_insn insn;
        uint32_t word = (uint32_t)test_random(&state) | 3;
        isa_features all = ~(isa_features)0;
        isa_features some = (isa_features)test_random(&state) << 64 | test_random(&state);
        isa_features features = i % 2 != 0 ? all : some;

        features &= i % 4 < 2 ? RV64 : RV32;
        if (i % 3 != 0) { /* near a valid instruction */
            unsigned op = 1 + (unsigned)(test_random(&state) % (RISCV_OP_COUNT - 1));
            const struct isa_insn *line = &riscv_isa.insns[op];

            word = (uint32_t)((word & ~line->mask) | line->match);
            word ^= i % 5 == 0 ? UINT32_C(1) << (test_random(&state) & 31) : 0;
        }
        ck_assert_uint_eq(riscv_decode(word, features, &insn), search(word, features));
        ck_assert_uint_eq(insn.length, (word & 3) == 3 ? 4 : 2);
    }
}
END_TEST

START_TEST(decoder_fills_operands_as_the_tables_say)
{
    static const struct {
        uint32_t bits;
        unsigned op;
        int32_t a, b, imm; /* rd, rs1, imm */
    } cases[] = {
        { 0xff010113, RISCV_OP_ADDI, 2, 2, -16 },   { 0x1141, RISCV_OP_C_ADDI, 2, 2, -16 },
        { 0x7139, RISCV_OP_C_ADDI16SP, 2, 2, -64 }, { 0x0808, RISCV_OP_C_ADDI4SPN, 10, 2, 16 },
        { 0x6582, RISCV_OP_C_LDSP, 11, 2, 0 },      { 0x00053503, RISCV_OP_LD, 10, 10, 0 },
        { 0x8082, RISCV_OP_C_JR, 0, 1, 0 },         { 0x43f55513, RISCV_OP_SRAI, 10, 10, 63 },
    };
    struct riscv_insn insn;
    size_t i;

    for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        ck_assert_uint_eq(riscv_decode(cases[i].bits, RV64, &insn), cases[i].op);
        ck_assert_int_eq(insn.u.i.rd, cases[i].a);
        ck_assert_int_eq(insn.u.i.rs1, cases[i].b);
        ck_assert_int_eq(insn.u.i.imm, cases[i].imm);
    }
    ck_assert_uint_eq(riscv_decode(0xfe209ee3, RV64, &insn), RISCV_OP_BNE);
    ck_assert_int_eq(insn.u.b.imm, -4);
    ck_assert_int_eq(insn.u.b.rs1, 1);
    ck_assert_int_eq(insn.u.b.rs2, 2);
    ck_assert_uint_eq(riscv_decode(0xffdff06f, RV64, &insn), RISCV_OP_JAL);
    ck_assert_int_eq(insn.u.u.imm, -4);
    ck_assert_uint_eq(riscv_decode(0x80000537, RV64, &insn), RISCV_OP_LUI);
    ck_assert_int_eq(insn.u.u.imm, INT32_MIN);
    ck_assert_uint_eq(riscv_decode(0xbfd5, RV64, &insn), RISCV_OP_C_J);
    ck_assert_int_eq(insn.u.u.imm, -12);
    ck_assert_uint_eq(insn.trans, RISCV_OP_JAL);
}
END_TEST

START_TEST(features_that_are_off_make_instructions_illegal)
{
    unsigned op;
    uint64_t bits;
    struct isa_pick pick = { .features = ~(isa_features)0, .rng = next_random };

    for (op = 1; op < RISCV_OP_COUNT; op++) {
        const struct isa_insn *line = &riscv_isa.insns[op];
        isa_features xlen = (line->features & RISCV_ISA_RV32) != 0 ? RV32 : RV64;
        unsigned i;
        struct riscv_insn insn;

        ck_assert(isa_random_op(&riscv_isa, op, &pick, &bits));
        ck_assert_uint_eq(riscv_decode((uint32_t)bits, xlen, &insn), op);
        for (i = 0; i < riscv_isa.feature_count; i++) {
            isa_features off = ISA_FEATURE(i);

            if ((line->features & off) != 0) {
                ck_assert_uint_ne(riscv_decode((uint32_t)bits, xlen & ~off, &insn), op);
            }
        }
    }
}
END_TEST

static bool choose_x5(void *opaque, const struct isa_insn *insn, const struct isa_arg *arg,
                      int64_t *value)
{
    (void)opaque;
    *value = 5;
    return strcmp(arg->name, "rd") == 0 && arg->field->width == 5 && insn->constraint_count < 2;
}

static bool accept_add(void *opaque, const struct isa_insn *insn)
{
    (void)opaque;
    return strcmp(insn->name, "addw") == 0 || strcmp(insn->name, "c.addw") == 0;
}

START_TEST(random_instructions_are_valid_and_obey_the_choices)
{
    struct isa_pick pick = { .features = RV64, .rng = next_random, .choose = choose_x5 };
    bool seen[RISCV_OP_COUNT] = { false };
    uint64_t bits;
    unsigned i, op, missing = 0;

    for (i = 0; i < 20000; i++) {
        struct riscv_insn insn;

        op = isa_random(&riscv_isa, &pick, &bits);
        ck_assert_uint_ne(op, 0);
        ck_assert_uint_eq(riscv_decode((uint32_t)bits, RV64, &insn), op);
        seen[op] = true;
        if (op == RISCV_OP_ADD) {
            ck_assert_uint_eq(insn.u.r.rd, 5);
        }
    }
    for (op = 1; op < RISCV_OP_COUNT; op++) {
        missing += !seen[op] && (riscv_isa.insns[op].features & RISCV_ISA_RV32) == 0;
    }
    ck_assert_uint_eq(missing, 0);
    pick.accept = accept_add;
    for (i = 0; i < 20; i++) {
        op = isa_random(&riscv_isa, &pick, &bits);
        ck_assert(op == RISCV_OP_ADDW || op == RISCV_OP_C_ADDW);
    }
    pick.features = RISCV_ISA_I;
    ck_assert_uint_eq(isa_random(&riscv_isa, &pick, &bits), 0);
}
END_TEST

START_TEST(field_put_and_get_are_inverse_for_every_field)
{
    unsigned op, a, i;

    for (op = 1; op < RISCV_OP_COUNT; op++) {
        const struct isa_format *format = riscv_isa.insns[op].format;

        for (a = 0; a < format->arg_count; a++) {
            const struct isa_field *field = format->args[a].field;

            for (i = 0; i < 20; i++) {
                uint64_t bits = test_random(&state);
                int64_t value = isa_field_get(field, bits);

                ck_assert_int_ge(value, isa_field_min(field));
                ck_assert_int_le(value, isa_field_max(field));
                ck_assert_uint_eq(isa_field_put(field, bits, value), bits);
                ck_assert_int_eq(isa_field_get(field, isa_field_put(field, ~bits, value)),
                                 value);
            }
            ck_assert_int_eq(
                isa_field_get(field, isa_field_put(field, 0, isa_field_min(field))),
                isa_field_min(field));
            ck_assert_int_eq(
                isa_field_get(field, isa_field_put(field, 0, isa_field_max(field))),
                isa_field_max(field));
        }
    }
}
END_TEST

START_TEST(disassembly_stays_within_its_buffer)
{
    struct isa_pick pick = { .features = RV64, .rng = next_random };
    size_t longest = 0;
    int i;

    for (i = 0; i < 20000; i++) {
        char whole[ISA_DISAS_MAX + 1], part[ISA_DISAS_MAX + 1];
        uint64_t pc = test_random(&state), bits = test_random(&state);
        size_t n = test_random(&state) % 40;

        if (i % 8 != 0) {
            ck_assert_uint_ne(isa_random(&riscv_isa, &pick, &bits), 0);
        }
        memset(whole, '~', sizeof(whole));
        memset(part, '~', sizeof(part));
        riscv_disas(pc, (uint32_t)bits, i % 2 != 0 ? 64 : 32, whole, ISA_DISAS_MAX);
        ck_assert_uint_lt(strlen(whole), ISA_DISAS_MAX);
        longest = strlen(whole) > longest ? strlen(whole) : longest;
        riscv_disas(pc, (uint32_t)bits, i % 2 != 0 ? 64 : 32, part, n);
        ck_assert_int_eq(part[n], '~');
        if (n > 0) {
            ck_assert_uint_lt(strlen(part), n);
            ck_assert_int_eq(strncmp(whole, part, strlen(part)), 0);
        }
    }
    ck_assert_uint_lt(longest, ISA_DISAS_MAX / 2);
}
END_TEST

static void seed(void)
{
    state = test_seed();
}

static Suite *suite_gen(void)
{
    Suite *suite = suite_create("isa");
    TCase *tc = tcase_create("riscv");

    tcase_add_unchecked_fixture(tc, seed, NULL);
    tcase_add_test(tc, decoder_finds_what_a_search_finds_for_all_halfwords);
    tcase_add_test(tc, decoder_finds_what_a_search_finds_for_random_words);
    tcase_add_test(tc, decoder_fills_operands_as_the_tables_say);
    tcase_add_test(tc, features_that_are_off_make_instructions_illegal);
    tcase_add_test(tc, random_instructions_are_valid_and_obey_the_choices);
    tcase_add_test(tc, field_put_and_get_are_inverse_for_every_field);
    tcase_add_test(tc, disassembly_stays_within_its_buffer);
    suite_add_tcase(suite, tc);
    return suite;
}

int main(int argc, char **argv)
{
    return test_main(argc, argv, suite_gen, NULL);
}
