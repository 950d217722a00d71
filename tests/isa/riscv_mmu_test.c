/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Address translation of the RISC-V guest: page walks over tables made here, memory protection, fences.
 */
#include "tests/isa/riscv_hart.h"

/* ---- address translation ---- */

enum { V = 1, R = 2, W = 4, X = 8, U = 16, G = 32, A = 64, D = 128 };

static void put64(uint64_t gpa, uint64_t v)
{
    memcpy(host + (gpa - RAM_BASE), &v, 8);
}

static uint64_t get64(uint64_t gpa)
{
    uint64_t v;
    memcpy(&v, host + (gpa - RAM_BASE), 8);
    return v;
}

static uint64_t pte(uint64_t gpa, unsigned flags)
{
    return gpa >> 12 << 10 | flags;
}

#define ROOT (RAM_BASE + 0x100000)

/* Maps va to gpa at the given level with tables at ROOT, ROOT + 4K ...; returns where the leaf entry is. */
static uint64_t map(unsigned levels, uint64_t va, unsigned leaf_level, uint64_t leaf)
{
    uint64_t table = ROOT;
    for (unsigned level = levels - 1; level > leaf_level; level--) {
        uint64_t at = table + (va >> (12 + 9 * level) & 511) * 8;
        table += 0x1000;
        put64(at, pte(table, V));
    }
    uint64_t at = table + (va >> (12 + 9 * leaf_level) & 511) * 8;
    put64(at, leaf);
    return at;
}

static void enable(unsigned satp_mode, unsigned priv)
{
    cpu.satp = (uint64_t)satp_mode << 60 | ROOT >> 12;
    cpu.priv = (uint8_t)priv;
    cpu.menvcfg |= MENVCFG_ADUE;
    cpu.pmpcfg[0] = 0x1f; /* everything, to everyone */
    cpu.pmpaddr[0] = ~0ull >> 10;
    cpu.pmp_used = 1;
}

static struct tcg_walk walked;

static int walk(uint64_t va, enum tcg_access access)
{
    walked = (struct tcg_walk){ .va = va, .access = access, .mmu = riscv_tcg_mode(&cpu).mmu };
    return riscv_tcg_walk(&cpu, &walked);
}

static void walks_to(uint64_t va, enum tcg_access access, uint64_t gpa)
{
    ck_assert_msg(walk(va, access) == 0, "va %#llx refused: cause %u", (unsigned long long)va,
                  walked.cause);
    ck_assert_msg(walked.gpa == gpa, "va %#llx went to %#llx, not %#llx",
                  (unsigned long long)va, (unsigned long long)walked.gpa,
                  (unsigned long long)gpa);
}

static void refused(uint64_t va, enum tcg_access access, uint32_t cause)
{
    ck_assert_msg(walk(va, access) != 0, "va %#llx allowed", (unsigned long long)va);
    ck_assert_uint_eq(walked.cause, cause);
    ck_assert_uint_eq(walked.tval, va);
}

START_TEST(walks_of_every_scheme_reach_their_page)
{
    static const struct {
        unsigned mode, levels;
        uint64_t va;
    } cases[] = {
        { 8, 3, 0x0000003f12345678 },  { 8, 3, 0xffffffc012345678 },
        { 9, 4, 0x00007abc12345678 },  { 9, 4, 0xffff800012345678 },
        { 10, 5, 0x00fedcba12345678 }, { 10, 5, 0xff00000012345678 },
    };
    for (unsigned i = 0; i < 6; i++) {
        memset(host, 0, RAM_SIZE);
        enable(cases[i].mode, RISCV_S);
        map(cases[i].levels, cases[i].va, 0, pte(0x80abc000, V | R | W | A | D));
        walks_to(cases[i].va, TCG_READ, 0x80abc678);
        ck_assert_uint_eq(walked.prot, TCG_PROT_R | TCG_PROT_W);
        refused(cases[i].va ^ 1ull << 63, TCG_READ, RISCV_CAUSE_LOAD_PAGE); /* not canonical */
        refused(cases[i].va + 0x1000, TCG_WRITE, RISCV_CAUSE_STORE_PAGE);
        refused(cases[i].va, TCG_FETCH, RISCV_CAUSE_FETCH_PAGE);
    }
}
END_TEST

START_TEST(superpages_translate_and_are_remembered)
{
    uint64_t va = 0x12345678;

    enable(8, RISCV_S);
    uint64_t at = map(3, va, 1, pte(0x80400000, V | R | X | A));
    walks_to(va, TCG_FETCH, 0x80545678);
    ck_assert(riscv_superpage_near(&cpu, va + 0x1000));
    ck_assert(!riscv_superpage_near(&cpu, va + (2ull << 30)));
    put64(at, pte(0x80401000, V | R | X | A)); /* misaligned */
    refused(va, TCG_READ, RISCV_CAUSE_LOAD_PAGE);
    riscv_superpage_forget(&cpu);
    map(3, va, 2, pte(0x80000000, V | R | W | A | D));
    walks_to(va, TCG_WRITE, 0x92345678);
    cpu.satp = 0;
    walks_to(va, TCG_WRITE, va);
}
END_TEST

#define PBMT(n) ((uint64_t)(n) << 61)
#define NAPOT (1ull << 63)

START_TEST(napot_pages_cover_64_kib)
{
    uint64_t va = 0x12345678;

    enable(8, RISCV_S);
    uint64_t at = map(3, va, 0, NAPOT | pte(0x80408000, V | R | W | A | D));
    walks_to(va, TCG_WRITE, 0x80405678);
    ck_assert(riscv_superpage_near(&cpu, va + 0x1000));
    put64(at, NAPOT | pte(0x80404000, V | R | W | A | D)); /* another size than 64 KiB */
    refused(va, TCG_READ, RISCV_CAUSE_LOAD_PAGE);
    put64(at, NAPOT | pte(0x80408000, V | R));
    walks_to(va, TCG_READ, 0x80405678);
    ck_assert_uint_eq(get64(at), NAPOT | pte(0x80408000, V | R | A));
    memset(host, 0, RAM_SIZE);
    map(3, va, 1, NAPOT | pte(0x80400000, V | R | W | A | D)); /* not of this level */
    refused(va, TCG_READ, RISCV_CAUSE_LOAD_PAGE);
}
END_TEST

START_TEST(memory_types_need_pbmte)
{
    uint64_t va = 0x12345678, page = pte(0x80abc000, V | R | W | A | D);

    enable(9, RISCV_S);
    uint64_t at = map(4, va, 0, page | PBMT(1));
    refused(va, TCG_READ, RISCV_CAUSE_LOAD_PAGE);
    cpu.menvcfg |= MENVCFG_PBMTE;
    walks_to(va, TCG_READ, 0x80abc678);
    put64(at, page | PBMT(2));
    walks_to(va, TCG_WRITE, 0x80abc678);
    put64(at, page | PBMT(3));
    refused(va, TCG_READ, RISCV_CAUSE_LOAD_PAGE);
    put64(at, page | 1ull << 54);
    refused(va, TCG_READ, RISCV_CAUSE_LOAD_PAGE);
    put64(at, page);
    put64(ROOT, get64(ROOT) | PBMT(1)); /* reserved in a pointer */
    refused(va, TCG_READ, RISCV_CAUSE_LOAD_PAGE);
}
END_TEST

START_TEST(user_and_supervisor_pages_are_apart)
{
    uint64_t va = 0x4000;

    enable(8, RISCV_S);
    uint64_t at = map(3, va, 0, pte(0x80abc000, V | R | W | X | U | A | D));
    refused(va, TCG_READ, RISCV_CAUSE_LOAD_PAGE);
    refused(va, TCG_FETCH, RISCV_CAUSE_FETCH_PAGE);
    cpu.mstatus |= MSTATUS_SUM;
    walks_to(va, TCG_READ, 0x80abc000);
    ck_assert_uint_eq(walked.prot, TCG_PROT_R | TCG_PROT_W);
    refused(va, TCG_FETCH, RISCV_CAUSE_FETCH_PAGE);
    cpu.priv = RISCV_U;
    walks_to(va, TCG_FETCH, 0x80abc000);
    put64(at, pte(0x80abc000, V | R | W | X | A | D));
    refused(va, TCG_WRITE, RISCV_CAUSE_STORE_PAGE);
}
END_TEST

START_TEST(global_pages_are_told_from_others)
{
    enable(8, RISCV_S);
    uint64_t at = map(3, 0x4000, 0, pte(0x80abc000, V | R | A));
    walks_to(0x4000, TCG_READ, 0x80abc000);
    ck_assert(!walked.global);
    put64(at, pte(0x80abc000, V | R | G | A));
    walks_to(0x4000, TCG_READ, 0x80abc000);
    ck_assert(walked.global);
    put64(at, pte(0x80abc000, V | R | A));
    put64(ROOT, get64(ROOT) | G); /* a pointer speaks for all below it */
    walks_to(0x4000, TCG_READ, 0x80abc000);
    ck_assert(walked.global);
}
END_TEST

START_TEST(mxr_makes_executable_pages_readable)
{
    enable(8, RISCV_S);
    map(3, 0x4000, 0, pte(0x80abc000, V | X | A));
    refused(0x4000, TCG_READ, RISCV_CAUSE_LOAD_PAGE);
    cpu.mstatus |= MSTATUS_MXR;
    walks_to(0x4000, TCG_READ, 0x80abc000);
}
END_TEST

START_TEST(accessed_and_dirty_are_set_by_hardware_or_fault)
{
    enable(8, RISCV_S);
    uint64_t clean = pte(0x80abc000, V | R | W);
    uint64_t at = map(3, 0x4000, 0, clean);

    walked = (struct tcg_walk){ .va = 0x4000, .mmu = riscv_tcg_mode(&cpu).mmu, .probe = true };
    ck_assert_int_eq(riscv_tcg_walk(&cpu, &walked), 0);
    ck_assert_uint_eq(get64(at), clean);
    walks_to(0x4000, TCG_READ, 0x80abc000);
    ck_assert_uint_eq(get64(at), clean | A);
    ck_assert_uint_eq(walked.prot, TCG_PROT_R); /* the first write walks again */
    walks_to(0x4000, TCG_WRITE, 0x80abc000);
    ck_assert_uint_eq(get64(at), clean | A | D);
    ck_assert_uint_eq(walked.prot, TCG_PROT_R | TCG_PROT_W);
    put64(at, clean);
    cpu.menvcfg = 0;
    refused(0x4000, TCG_READ, RISCV_CAUSE_LOAD_PAGE);
    put64(at, clean | A);
    walks_to(0x4000, TCG_READ, 0x80abc000);
    refused(0x4000, TCG_WRITE, RISCV_CAUSE_STORE_PAGE);
}
END_TEST

START_TEST(reserved_entries_fault)
{
    static const uint64_t bad[] = { 0, R | A, V | W | A, V | W | X | A };
    enable(8, RISCV_S);

    for (unsigned i = 0; i < 4; i++) {
        map(3, 0x4000, 0, pte(0x80abc000, (unsigned)bad[i]));
        refused(0x4000, TCG_READ, RISCV_CAUSE_LOAD_PAGE);
    }
    for (unsigned bit = 54; bit < 64; bit++) {
        map(3, 0x4000, 0, pte(0x80abc000, V | R | A) | 1ull << bit);
        refused(0x4000, TCG_READ, RISCV_CAUSE_LOAD_PAGE);
    }
    map(3, 0x4000, 0, pte(0x80abc000, V)); /* a pointer at the last level */
    refused(0x4000, TCG_READ, RISCV_CAUSE_LOAD_PAGE);
    map(3, 0x4000, 0, pte(0x80abc000, V | R | A));
    put64(ROOT, get64(ROOT) | A); /* A in a pointer */
    refused(0x4000, TCG_READ, RISCV_CAUSE_LOAD_PAGE);
}
END_TEST

START_TEST(tables_outside_memory_are_access_faults)
{
    enable(8, RISCV_S);
    cpu.satp = 8ull << 60 | 0x10000;
    refused(0x4000, TCG_FETCH, RISCV_CAUSE_FETCH_ACCESS);
    refused(0x4000, TCG_WRITE, RISCV_CAUSE_STORE_ACCESS);
    cpu.satp = 0;
    refused(1ull << 56, TCG_READ, RISCV_CAUSE_LOAD_ACCESS);
}
END_TEST

START_TEST(sv32_walks_both_levels)
{
    uint32_t *root = (uint32_t *)(void *)(host + (ROOT - RAM_BASE));
    uint32_t *leaf = root + 1024;

    enable(0, RISCV_S);
    cpu.satp = 1u << 31 | ROOT >> 12;
    root[0x80000000u >> 22] = (uint32_t)pte(ROOT + 0x1000, V);
    leaf[5] = (uint32_t)pte(0x80abc000, V | R | W);
    walks_to(0x80005123, TCG_WRITE, 0x80abc123);
    ck_assert_uint_eq(leaf[5] & (A | D), A | D);
    root[3] = (uint32_t)pte(0x80400000, V | R | X | A);
    walks_to(0x00f45678, TCG_FETCH, 0x80745678);
    root[3] = (uint32_t)pte(0x80401000, V | R | X | A);
    refused(0x00f45678, TCG_FETCH, RISCV_CAUSE_FETCH_PAGE);
    walks_to(0xffffffff80005123, TCG_READ, 0x80abc123); /* x registers are sign-extended */
}
END_TEST

/* ---- memory protection ---- */

START_TEST(pmp_allows_nothing_below_machine_mode_by_itself)
{
    walks_to(0x80001000, TCG_READ, 0x80001000);
    cpu.priv = RISCV_S;
    refused(0x80001000, TCG_READ, RISCV_CAUSE_LOAD_ACCESS);
}
END_TEST

START_TEST(pmp_regions_of_all_kinds)
{
    csr_set_to(0x3b0, (0x80000000 >> 2) | 0x1fff); /* NAPOT 64 KiB: none */
    csr_set_to(0x3b1, 0x80200000 >> 2);            /* bottom of TOR */
    csr_set_to(0x3b2, 0x80300000 >> 2);            /* TOR: read */
    csr_set_to(0x3b3, 0x80400010 >> 2);            /* NA4: read, write */
    csr_set_to(0x3b4, ~0ull);                      /* everything: execute */
    csr_set_to(0x3a0, 0x1c13090018);
    cpu.priv = RISCV_S;
    refused(0x80000000, TCG_FETCH, RISCV_CAUSE_FETCH_ACCESS);
    refused(0x8000ffff, TCG_FETCH, RISCV_CAUSE_FETCH_ACCESS);
    walks_to(0x80010000, TCG_FETCH, 0x80010000);
    ck_assert_uint_eq(walked.prot, TCG_PROT_X);
    ck_assert(!walked.uncached);
    walks_to(0x80200000, TCG_READ, 0x80200000);
    walks_to(0x802fffff, TCG_READ, 0x802fffff);
    refused(0x80200000, TCG_WRITE, RISCV_CAUSE_STORE_ACCESS);
    refused(0x80300000, TCG_READ, RISCV_CAUSE_LOAD_ACCESS);
    walks_to(0x80400010, TCG_WRITE, 0x80400010);
    ck_assert(walked.uncached);
    refused(0x80400014, TCG_WRITE, RISCV_CAUSE_STORE_ACCESS);
    walks_to(0x80400014, TCG_FETCH, 0x80400014);
    ck_assert(walked.uncached);
    cpu.priv = RISCV_M;
    walks_to(0x80000000, TCG_WRITE, 0x80000000);
}
END_TEST

START_TEST(pmp_lock_binds_machine_mode_until_reset)
{
    csr_set_to(0x3b0, 0x80200000 >> 2);
    csr_set_to(0x3b1, 0x80300000 >> 2);
    csr_set_to(0x3a0, 0x8900); /* entry 1: locked, TOR, read */
    refused(0x80200000, TCG_WRITE, RISCV_CAUSE_STORE_ACCESS);
    walks_to(0x80200000, TCG_READ, 0x80200000);
    csr_set_to(0x3a0, 0);
    ck_assert_uint_eq(csr_get(0x3a0), 0x8900);
    csr_set_to(0x3b0, 0);
    csr_set_to(0x3b1, 0);
    ck_assert_uint_eq(csr_get(0x3b0), 0x80200000 >> 2);
    ck_assert_uint_eq(csr_get(0x3b1), 0x80300000 >> 2);
    ck_assert_int_eq(seen.flush_all, 3);
    vm.arch->cpu_reset(&vcpu);
    ck_assert_uint_eq(csr_get(0x3a0), 0);
}
END_TEST

START_TEST(pmp_guards_page_tables)
{
    enable(8, RISCV_S);
    map(3, 0x4000, 0, pte(0x80abc000, V | R | W));
    cpu.pmpcfg[1] = 0x1f;
    cpu.pmpaddr[1] = ~0ull >> 10;
    cpu.pmp_used = 2;
    cpu.pmpaddr[0] = (ROOT + 0x2000) >> 2 | 0x1ff; /* the last level's table */
    cpu.pmpcfg[0] = 0x19;
    refused(0x4000, TCG_READ, RISCV_CAUSE_LOAD_ACCESS); /* A cannot be set */
    cpu.pmpcfg[0] = 0x18;
    refused(0x4000, TCG_FETCH, RISCV_CAUSE_FETCH_ACCESS);
}
END_TEST

/* ---- fences ---- */

START_TEST(sfence_flushes_what_its_form_says)
{
    enum { FENCE = 0x12000073, RS1 = 10 << 15, RS2 = 11 << 20 };

    cpu.priv = RISCV_S;
    cpu.satp = 8ull << 60 | 3ull << 44;
    riscv_sfence_vma(&cpu, FENCE, 0, 0);
    ck_assert_int_eq(seen.flush_all, 1);
    riscv_sfence_vma(&cpu, FENCE | RS1, 0x5000, 0);
    ck_assert_int_eq(seen.flush_page, 1);
    ck_assert_uint_eq(seen.va, 0x5000);
    riscv_sfence_vma(&cpu, FENCE | RS2, 0, 9);
    ck_assert_int_eq(seen.flush_asid, 1);
    ck_assert_uint_eq(seen.asid, 8 << 16 | 9);
    riscv_sfence_vma(&cpu, FENCE | RS1 | RS2, 0x6000, 3);
    ck_assert_int_eq(seen.flush_page_asid, 1);
    ck_assert_uint_eq(seen.asid, 8 << 16 | 3);
    /* An address in a superpage: everything of it goes. */
    enable(8, RISCV_S);
    map(3, 0x200000, 1, pte(0x80400000, V | R | A));
    walks_to(0x200000, TCG_READ, 0x80400000);
    riscv_sfence_vma(&cpu, FENCE | RS1, 0x201000, 0);
    ck_assert_int_eq(seen.flush_all, 2);
    riscv_sfence_vma(&cpu, FENCE | RS1, 0x201000, 0);
    ck_assert_int_eq(seen.flush_page, 2);
    cpu.satp = 0;
    riscv_sfence_vma(&cpu, FENCE | RS1, 0x201000, 0);
    ck_assert_int_eq(seen.flush_all, 3);
}
END_TEST

static Suite *suite_riscv_mmu(void)
{
    Suite *s = suite_create("riscv_mmu");
    TCase *rv64 = tcase_create("rv64");
    TCase *rv32 = tcase_create("rv32");

    tcase_add_checked_fixture(rv64, hart_start64, hart_stop);
    tcase_add_test(rv64, walks_of_every_scheme_reach_their_page);
    tcase_add_test(rv64, napot_pages_cover_64_kib);
    tcase_add_test(rv64, memory_types_need_pbmte);
    tcase_add_test(rv64, superpages_translate_and_are_remembered);
    tcase_add_test(rv64, user_and_supervisor_pages_are_apart);
    tcase_add_test(rv64, global_pages_are_told_from_others);
    tcase_add_test(rv64, mxr_makes_executable_pages_readable);
    tcase_add_test(rv64, accessed_and_dirty_are_set_by_hardware_or_fault);
    tcase_add_test(rv64, reserved_entries_fault);
    tcase_add_test(rv64, tables_outside_memory_are_access_faults);
    tcase_add_test(rv64, pmp_allows_nothing_below_machine_mode_by_itself);
    tcase_add_test(rv64, pmp_regions_of_all_kinds);
    tcase_add_test(rv64, pmp_lock_binds_machine_mode_until_reset);
    tcase_add_test(rv64, pmp_guards_page_tables);
    tcase_add_test(rv64, sfence_flushes_what_its_form_says);
    suite_add_tcase(s, rv64);
    tcase_add_checked_fixture(rv32, hart_start32, hart_stop);
    tcase_add_test(rv32, sv32_walks_both_levels);
    suite_add_tcase(s, rv32);
    return s;
}

int main(int argc, char **argv)
{
    return test_main(argc, argv, suite_riscv_mmu, NULL);
}
