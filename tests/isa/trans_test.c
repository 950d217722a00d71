/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the RISC-V translate functions emit: valid and bounded IR for every instruction, and the shapes that speed
 * depends on (direct exits, folded constants, CSR accesses that stay in the block). What the instructions compute is
 * checked by the vectors, not here.
 */
#include "engine/arch/riscv/features.h"
#include "engine/base/mem.h"
#include "engine/tcg/gen/isa.h"
#include "engine/tcg/guest_riscv/guest.h"
#include "engine/tcg/guest_riscv/trans.h"
#include "tests/lib/testing.h"

static uint64_t state;
static struct riscv_cpu cpu;
static struct ir ir;
static uint8_t page[4096];

static uint64_t next_random(void *opaque)
{
    (void)opaque;
    return test_random(&state);
}

/* A translation of what stands at off in the page, about to start. */
static struct tcg_trans start(uint32_t code, int32_t off)
{
    struct tcg_trans t = { .ir = &ir, .cpu = &cpu, .code = code, .isa = &riscv64_guest, .page = page, .start = off };

    ir_start(&ir, riscv64_guest.globals, riscv64_guest.n_globals, riscv64_guest.pc_offset);
    t.off = off;
    return t;
}

static bool one(struct tcg_trans *t)
{
    ir_insn(&ir, t->off);
    t->seen[t->off / 2 / 64] |= UINT64_C(1) << (t->off / 2 % 64);
    t->insns++;
    return riscv64_guest.translate(t);
}

/* Ends a block that goes on, as the translator core does. */
static void finish(struct tcg_trans *t, bool more)
{
    char why[128] = "";
    bool ok;

    if (more) {
        tcg_stop(t, t->next_off);
    }
    ok = ir_check(&ir, why, sizeof(why));
    ck_assert_msg(ok, "IR check: %s", why);
    ck_assert(!ir.overflow);
}

static void put(int32_t off, uint32_t bits)
{
    memcpy(page + off, &bits, riscv_insn_length(bits));
}

static unsigned count(enum ir_opcode op)
{
    unsigned i, n = 0;

    for (i = 0; i < ir.n_ops; i++) {
        n += ir.ops[i].op == op;
    }
    return n;
}

/* Translates the instructions (0 ends the list) from offset 256; false when one ended the block. */
static bool translate(uint32_t code, const uint32_t *insns)
{
    int32_t off = 256;
    struct tcg_trans t = start(code, off);
    bool more = true;
    unsigned i;

    memset(page, 0, sizeof(page));
    for (i = 0; insns[i] != 0; i++) {
        put(off, insns[i]);
        off += (int32_t)riscv_insn_length(insns[i]);
    }
    for (i = 0; insns[i] != 0 && more; i++) {
        more = one(&t);
        t.off = t.next_off;
    }
    finish(&t, more);
    ir_optimise(&ir, true);
    return more;
}

#define TRANSLATE(code, ...) translate(code, (const uint32_t[]){ __VA_ARGS__, 0 })

static const uint32_t codes[] = {
    RISCV_M | RV_CODE_FP_ASK,
    RISCV_S | RV_CODE_FP_ASK,
    RISCV_U,
    RISCV_U | RV_CODE_FS_OFF,
    RISCV_U | 5 << RV_CODE_FRM_SHIFT,
    RISCV_U | 3 << RV_CODE_FRM_SHIFT,
    RISCV_U | RV_CODE_PM_7 | RV_CODE_PM_SIGNED,
    RISCV_M | RV_CODE_RV32 | RV_CODE_FP_ASK,
    RISCV_U | RV_CODE_RV32 | 2 << RV_CODE_FRM_SHIFT,
};

START_TEST(every_instruction_gives_valid_ir_of_bounded_size)
{
    struct isa_pick pick = { .features = ~(isa_features)0, .rng = next_random };
    unsigned op, c, i;

    for (op = 1; op < RISCV_OP_COUNT; op++) {
        for (c = 0; c < ARRAY_LEN(codes); c++) {
            for (i = 0; i < 20; i++) {
                struct tcg_trans t = start(codes[c], 2048);
                uint64_t bits;
                bool more;

                ck_assert(isa_random_op(&riscv_isa, op, &pick, &bits));
                put(2048, (uint32_t)bits);
                more = one(&t);
                /* The core keeps room for 128 ops and 8 exits. */
                ck_assert_msg(ir.n_ops < 40 && ir.n_exits <= 4, "%s: %u ops, %u exits",
                              riscv_isa.insns[op].ident, ir.n_ops, ir.n_exits);
                finish(&t, more);
            }
        }
    }
}
END_TEST

START_TEST(random_bytes_give_valid_ir)
{
    int i;

    for (i = 0; i < 20000; i++) {
        struct tcg_trans t = start(codes[test_random(&state) % ARRAY_LEN(codes)], 0);
        bool more = true;
        unsigned n;

        for (n = 0; n < 64; n += 8) {
            uint64_t bits = test_random(&state);

            memcpy(page + n, &bits, sizeof(bits));
        }
        for (n = 0; n < 8 && more; n++) {
            more = one(&t);
            if (more && (t.next_off < 0 || t.next_off > 4092)) {
                break;
            }
            t.off = t.next_off;
        }
        finish(&t, more);
        ir_optimise(&ir, true);
    }
}
END_TEST

START_TEST(far_call_by_auipc_and_jalr_is_a_direct_exit)
{
    unsigned i;
    bool found = false;

    /* auipc ra, 0x2; jalr ra, -16(ra) */
    ck_assert(!TRANSLATE(RISCV_U, 0x00002097, 0xff0080e7));
    for (i = 0; i < ir.n_exits; i++) {
        ck_assert_int_ne(ir.exits[i].kind, IR_EXIT_INDIRECT);
        found = found ||
                (ir.exits[i].kind == IR_EXIT_DIRECT && ir.exits[i].off == 256 + 0x2000 - 16 &&
                 ir.exits[i].hint == IR_HINT_CALL);
    }
    ck_assert(found);
}
END_TEST

START_TEST(return_and_computed_jump_carry_their_hints)
{
    ck_assert(!TRANSLATE(RISCV_U, 0x8082)); /* ret */
    ck_assert_int_eq(ir.exits[ir.n_exits - 1].kind, IR_EXIT_INDIRECT);
    ck_assert_int_eq(ir.exits[ir.n_exits - 1].hint, IR_HINT_RETURN);
    ck_assert(!TRANSLATE(RISCV_U, 0x8782)); /* jr a5 */
    ck_assert_int_eq(ir.exits[ir.n_exits - 1].hint, IR_HINT_NONE);
    ck_assert(!TRANSLATE(RISCV_U, 0x9782)); /* jalr a5 */
    ck_assert_int_eq(ir.exits[ir.n_exits - 1].hint, IR_HINT_CALL);
}
END_TEST

START_TEST(constants_of_lui_and_addi_are_folded)
{
    /* lui a5, 0x12345; addi a5, a5, 0x678; sd a0, 0(a5) */
    ck_assert(TRANSLATE(RISCV_U, 0x123457b7, 0x67878793, 0x00a7b023));
    ck_assert_uint_eq(count(IR_add), 0);
    ck_assert_uint_eq(count(IR_st), 1);
}
END_TEST

START_TEST(writes_to_x0_leave_no_code)
{
    /* add x0, a0, a1; addi x0, x0, 0; mul x0, a0, a1; lui x0, 5 */
    ck_assert(TRANSLATE(RISCV_U, 0x00b50033, 0x00000013, 0x02b50033, 0x00005037));
    ck_assert_uint_eq(ir.n_ops, count(IR_insn) + 3); /* pcrel, stenv of the pc, exit */
}
END_TEST

START_TEST(load_to_x0_still_loads)
{
    ck_assert(TRANSLATE(RISCV_U, 0x00053003)); /* ld x0, 0(a0) */
    ck_assert_uint_eq(count(IR_ld), 1);
}
END_TEST

START_TEST(trap_scratch_swap_is_inline)
{
    ck_assert(TRANSLATE(RISCV_S, 0x14021273)); /* csrrw tp, sscratch, tp */
    ck_assert_uint_eq(count(IR_call), 0);
    ck_assert_uint_eq(count(IR_ldenv), 1);
    ck_assert_uint_eq(count(IR_stenv), 2); /* sscratch, and the pc of the stop */
    (void)TRANSLATE(RISCV_U, 0x14021273);  /* not allowed: the helper raises */
    ck_assert_uint_eq(count(IR_call), 1);
}
END_TEST

START_TEST(disabling_interrupts_stays_in_the_block)
{
    ck_assert(TRANSLATE(RISCV_S, 0x10017073)); /* csrci sstatus, 2 */
    ck_assert_uint_eq(count(IR_call), 0);
    ck_assert(TRANSLATE(RISCV_S, 0x10017573)); /* csrrci a0, sstatus, 2 */
    ck_assert_uint_eq(count(IR_call), 1);
    ck_assert(!TRANSLATE(RISCV_S, 0x10016073)); /* csrsi sstatus, 2: looks for interrupts */
    ck_assert(!TRANSLATE(RISCV_S, 0x10047073)); /* csrci sstatus, 8 is not SIE */
}
END_TEST

START_TEST(reading_counters_and_flags_stays_in_the_block)
{
    ck_assert(TRANSLATE(RISCV_U, 0xc0102573)); /* rdtime a0 */
    ck_assert(TRANSLATE(RISCV_U, 0xc0002573)); /* rdcycle a0 */
    ck_assert(TRANSLATE(RISCV_U, 0x00102573)); /* frflags a0 */
    ck_assert_uint_eq(count(IR_call), 0);
    ck_assert(TRANSLATE(RISCV_U, 0x00155573)); /* csrrwi a0, fflags, 10 */
    ck_assert_uint_eq(count(IR_call), 0);
    ck_assert(TRANSLATE(RISCV_U, 0x00202573)); /* frrm a0 */
    ck_assert_uint_eq(count(IR_call), 0);
    ck_assert(!TRANSLATE(RISCV_U, 0x00259573)); /* fsrm a0, a1: new mode */
}
END_TEST

START_TEST(floating_point_off_makes_its_instructions_illegal)
{
    ck_assert(!TRANSLATE(RISCV_U | RV_CODE_FS_OFF, 0x00053507)); /* fld fa0, 0(a0) */
    ck_assert_uint_eq(count(IR_ld), 0);
    ck_assert(!TRANSLATE(RISCV_U | RV_CODE_FS_OFF, 0x02b57553)); /* fadd.d fa0, fa0, fa1 */
    ck_assert(TRANSLATE(RISCV_U, 0x02b57553));
    ck_assert(!TRANSLATE(RISCV_U | 5 << RV_CODE_FRM_SHIFT, 0x02b57553)); /* invalid frm */
    ck_assert(TRANSLATE(RISCV_U | 5 << RV_CODE_FRM_SHIFT, 0x02b50553));  /* static rne */
}
END_TEST

START_TEST(outside_user_mode_floating_point_is_asked_for_once_a_block)
{
    uint32_t code = RISCV_S | RV_CODE_FP_ASK;

    ck_assert(TRANSLATE(code, 0x00053507, 0x00853587)); /* two fld */
    ck_assert_uint_eq(count(IR_call), 1);
    ck_assert(TRANSLATE(code, 0x02b57553, 0x02b57553)); /* two fadd.d with dynamic rounding */
    ck_assert_uint_eq(count(IR_call), 4);               /* FS, frm, and the two additions */
    ck_assert(TRANSLATE(code, 0x02b50553));             /* static rounding asks for FS alone */
    ck_assert_uint_eq(count(IR_call), 2);
    ck_assert(TRANSLATE(code, 0x00102573)); /* frflags: the helper checks FS */
    ck_assert_uint_eq(count(IR_call), 1);
}
END_TEST

START_TEST(fs_is_marked_dirty_once_a_block)
{
    /* fadd.d fa0,fa0,fa1 three times */
    ck_assert(TRANSLATE(RISCV_U, 0x02b57553, 0x02b57553, 0x02b57553));
    ck_assert_uint_eq(count(IR_stenv), 2); /* mstatus, and the pc of the stop */
}
END_TEST

static void have(unsigned ext, bool on)
{
    riscv_features_set(&cpu.features, ext, on);
    cpu.decode[0] = 0;
}

START_TEST(instructions_of_absent_extensions_are_illegal)
{
    struct riscv_features all = cpu.features;

    ck_assert(TRANSLATE(RISCV_M, 0x02b50533)); /* mul */
    have(RISCV_EXT_M, false);
    ck_assert(!TRANSLATE(RISCV_M, 0x02b50533));
    cpu.features = all;
    cpu.decode[0] = 0;
    have(RISCV_EXT_C, false);
    ck_assert(!TRANSLATE(RISCV_M, 0x0505)); /* c.addi */
    cpu.features = all;
    cpu.decode[0] = 0;
}
END_TEST

START_TEST(invalidation_fences_are_illegal_in_user_mode)
{
    ck_assert(TRANSLATE(RISCV_S, 0x18000073)); /* sfence.w.inval */
    ck_assert(!TRANSLATE(RISCV_U, 0x18000073));
    ck_assert(!TRANSLATE(RISCV_U, 0x18100073)); /* sfence.inval.ir */
}
END_TEST

START_TEST(conditional_zero_is_one_select)
{
    ck_assert(TRANSLATE(RISCV_U, 0x0ec5d533)); /* czero.eqz a0, a1, a2 */
    ck_assert_uint_eq(count(IR_select), 1);
    ck_assert_uint_eq(count(IR_call), 0);
}
END_TEST

START_TEST(pointer_masking_shifts_addresses)
{
    ck_assert(TRANSLATE(RISCV_U, 0x00853503)); /* ld a0, 8(a0) */
    ck_assert_uint_eq(count(IR_shl), 0);
    ck_assert(TRANSLATE(RISCV_U | RV_CODE_PM_7 | RV_CODE_PM_SIGNED, 0x00853503));
    ck_assert_uint_eq(count(IR_shl), 1);
    ck_assert_uint_eq(count(IR_sar), 1);
    ck_assert(TRANSLATE(RISCV_U | RV_CODE_PM_16, 0x0ca5352f)); /* amoswap.d a0, a0, (a0) */
    ck_assert_uint_eq(count(IR_shr), 1);
}
END_TEST

START_TEST(without_c_misaligned_targets_raise)
{
    struct riscv_features all = cpu.features;

    have(RISCV_EXT_C, false);
    ck_assert(!TRANSLATE(RISCV_M, 0x0060006f)); /* j +6 */
    ck_assert_uint_eq(count(IR_call), 1);
    ck_assert(TRANSLATE(RISCV_M, 0x00b50363)); /* beq a0, a1, +6: raises when taken */
    ck_assert_uint_eq(count(IR_brcond), 0);
    ck_assert_uint_eq(count(IR_call), 1);
    ck_assert(!TRANSLATE(RISCV_M, 0x00050067)); /* jr a0: checked */
    ck_assert_uint_eq(count(IR_call), 1);
    cpu.features = all;
    cpu.decode[0] = 0;
    ck_assert(TRANSLATE(RISCV_M, 0x00b50363));
    ck_assert_uint_eq(count(IR_brcond), 1);
}
END_TEST

START_TEST(fences_that_order_nothing_leave_no_code)
{
    ck_assert(TRANSLATE(RISCV_U, 0x0100000f)); /* pause: fence w, none */
    ck_assert_uint_eq(count(IR_fence), 0);
    ck_assert(TRANSLATE(RISCV_U, 0x0ff0000f)); /* fence iorw, iorw */
    ck_assert_uint_eq(count(IR_fence), 1);
    ck_assert(TRANSLATE(RISCV_U, 0x8330000f)); /* fence.tso: all but store to load */
    ck_assert_uint_eq(count(IR_fence), 1);
}
END_TEST

static void setup(void)
{
    state = test_seed();
    memset(&cpu, 0, sizeof(cpu));
    cpu.xlen = 64;
    for (unsigned i = 0; i < RISCV_EXT_COUNT; i++) {
        have(i, true);
    }
}

static Suite *suite_trans(void)
{
    Suite *suite = suite_create("riscv translation");
    TCase *tc = tcase_create("ir");

    tcase_set_timeout(tc, 60);

    tcase_add_unchecked_fixture(tc, setup, NULL);
    tcase_add_test(tc, every_instruction_gives_valid_ir_of_bounded_size);
    tcase_add_test(tc, random_bytes_give_valid_ir);
    tcase_add_test(tc, far_call_by_auipc_and_jalr_is_a_direct_exit);
    tcase_add_test(tc, return_and_computed_jump_carry_their_hints);
    tcase_add_test(tc, constants_of_lui_and_addi_are_folded);
    tcase_add_test(tc, writes_to_x0_leave_no_code);
    tcase_add_test(tc, load_to_x0_still_loads);
    tcase_add_test(tc, trap_scratch_swap_is_inline);
    tcase_add_test(tc, disabling_interrupts_stays_in_the_block);
    tcase_add_test(tc, reading_counters_and_flags_stays_in_the_block);
    tcase_add_test(tc, floating_point_off_makes_its_instructions_illegal);
    tcase_add_test(tc, outside_user_mode_floating_point_is_asked_for_once_a_block);
    tcase_add_test(tc, fs_is_marked_dirty_once_a_block);
    tcase_add_test(tc, instructions_of_absent_extensions_are_illegal);
    tcase_add_test(tc, pointer_masking_shifts_addresses);
    tcase_add_test(tc, invalidation_fences_are_illegal_in_user_mode);
    tcase_add_test(tc, conditional_zero_is_one_select);
    tcase_add_test(tc, without_c_misaligned_targets_raise);
    tcase_add_test(tc, fences_that_order_nothing_leave_no_code);
    suite_add_tcase(suite, tc);
    return suite;
}

int main(int argc, char **argv)
{
    return test_main(argc, argv, suite_trans, NULL);
}
