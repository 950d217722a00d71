/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tests of the RISC-V architecture: CPU models, ISA strings, reset and start, interrupt
 * inputs, the stimecmp timer, saved state. The engine runs nothing.
 */
#include "engine/arch/riscv/cpu.h"
#include "engine/arch/riscv/features.h"
#include "engine/base/mem.h"
#include "engine/core/state.h"
#include "engine/core/vm.h"
#include "tests/lib/testing.h"

#include <sched.h>

static int idle_init(struct vcpu *c, struct err *e)
{
    (void)e;
    c->cpu = xalloc(c->vm->arch->cpu_size);
    return 0;
}

static void idle_done(struct vcpu *c)
{
    free(c->cpu);
}

static enum vcpu_exit idle_run(struct vcpu *c)
{
    (void)c;
    sched_yield();
    return VCPU_EXIT_KICK;
}

static void idle_nothing(struct vcpu *c)
{
    (void)c;
}

static const struct engine_ops idle_engine = { .name = "idle",
                                               .vcpu_init = idle_init,
                                               .vcpu_done = idle_done,
                                               .run = idle_run,
                                               .kick = idle_nothing,
                                               .irq = idle_nothing };

struct fixture {
    struct loop *loop;
    struct vm *vm;
    struct riscv_cpu *c;
};

static void make(struct fixture *x, const struct arch_ops *arch, const char *model)
{
    struct err e = ERR_INIT;
    x->loop = loop_new(&e);
    ck_assert_int_eq(vm_new("v", arch, &idle_engine, x->loop, NULL, &x->vm, &e), 0);
    ck_assert_msg(vm_add_vcpus(x->vm, 2, model, &e) == 0, "%s", e.msg);
    vm_reset(x->vm);
    x->c = x->vm->vcpus[1]->cpu;
}

static void drop(struct fixture *x)
{
    vm_free(x->vm);
    loop_run_once(x->loop, 0, NULL);
    loop_free(x->loop);
}

/* Where the canonical order puts a letter. */
static int rank(char letter)
{
    const char *order = "iemafdqlcbkjtpvhn", *p = strchr(order, letter);
    return p ? (int)(p - order) : 100;
}

/* Negative, zero or positive as a comes before or after b in an ISA string. */
static int isa_order(const char *a, const char *b)
{
    int class_a = !a[1] ? 0 : a[0] == 'z' ? 1 : 2, class_b = !b[1] ? 0 : b[0] == 'z' ? 1 : 2;
    int letter = class_a == 1 ? rank(a[1]) - rank(b[1]) : rank(a[0]) - rank(b[0]);
    return class_a != class_b        ? class_a - class_b
           : class_a == 2 || !letter ? strcmp(a, b)
                                     : letter;
}

START_TEST(table_of_extensions_is_consistent)
{
    const char *before = "";
    for (unsigned i = 0; i < RISCV_EXT_COUNT; i++) {
        const struct riscv_ext *x = &riscv_exts[i];
        AUTO_FREE char *list = xstrdup(x->needs);
        char *rest = list, *word;
        ck_assert_uint_eq(riscv_ext_find(x->name, strlen(x->name)), i);
        ck_assert(x->doc && *x->doc && x->xlens);
        while ((word = strsep(&rest, " ")) && *word) {
            unsigned need = riscv_ext_find(word, strlen(word));
            ck_assert_msg(need < RISCV_EXT_COUNT && need != i, "%s needs %s", x->name, word);
            ck_assert_msg(!(x->flags & RISCV_EXT_READY) || (x->flags & RISCV_EXT_DERIVED) ||
                              (riscv_exts[need].flags & RISCV_EXT_READY),
                          "%s is offered, %s is not", x->name, word);
        }
        if (x->flags & RISCV_EXT_IN_ISA) {
            ck_assert_msg(!*before || isa_order(before, x->name) < 0, "%s, %s", before,
                          x->name);
            before = x->name;
        }
    }
    ck_assert_uint_eq(riscv_ext_find("zb", 2), RISCV_EXT_COUNT);
}
END_TEST

/* The model's ISA string. */
static const char *isa_of(const char *model, unsigned xlen)
{
    static char isa[RISCV_ISA_MAX];
    struct riscv_features f;
    struct err e = ERR_INIT;
    ck_assert_msg(riscv_features_parse(model, xlen, &f, &e) == 0, "%s: %s", model, e.msg);
    riscv_isa_format(&f, xlen, isa, sizeof(isa));
    return isa;
}

/* The string names the extension. */
static bool names(const char *isa, const char *ext)
{
    size_t n = strlen(ext);
    for (const char *p = isa; (p = strstr(p, ext)); p++) {
        if ((p[-1] == '_' && (p[n] == '_' || !p[n])) ||
            (n == 1 && p < isa + strcspn(isa, "_"))) {
            return true;
        }
    }
    return false;
}

/* U-Boot 2023.01 fails to start when riscv,isa is longer. */
START_TEST(short_isa_string_fits_what_firmware_has)
{
    for (unsigned i = 0; riscv_model_name(i, 64); i++) {
        struct riscv_features f;
        char isa[RISCV_ISA_MAX];
        ck_assert_int_eq(riscv_features_parse(riscv_model_name(i, 64), 64, &f, NULL), 0);
        riscv_isa_format_short(&f, 64, isa, sizeof(isa));
        ck_assert_msg(strlen(isa) <= RISCV_ISA_SHORT_MAX, "%s: %s", riscv_model_name(i, 64), isa);
        if (strcmp(riscv_model_name(i, 64), "max") == 0) {
            ck_assert(names(isa, "zbb") && names(isa, "sstc") && names(isa, "zve64d"));
            ck_assert(!names(isa, "ziccif"));
        }
    }
}
END_TEST

START_TEST(isa_string_is_what_kernels_parse)
{
    struct riscv_features f;
    char isa[RISCV_ISA_MAX], cut[8];
    ck_assert_int_eq(riscv_features_parse("rva20s64", 64, &f, NULL), 0);
    riscv_isa_format(&f, 64, isa, sizeof(isa));
    ck_assert_str_eq(isa, "rv64imafdc_ziccamoa_ziccif_zicclsm_ziccrse_zicntr_zicsr_zifencei_"
                          "zmmul_za128rs_zaamo_zalrsc_zca_zcd_ssccptr_sstvala_sstvecd_svade_"
                          "svbare");
    ck_assert_str_eq(riscv_mmu_type(&f, 64), "riscv,sv39");
    riscv_isa_format(&f, 64, cut, sizeof(cut));
    ck_assert_str_eq(cut, "rv64ima");
    ck_assert_int_eq(riscv_features_parse("rv64,sv57=off", 64, &f, NULL), 0);
    ck_assert_str_eq(riscv_mmu_type(&f, 64), "riscv,sv48");
    ck_assert_int_eq(riscv_features_parse("rv32", 32, &f, NULL), 0);
    ck_assert_str_eq(riscv_mmu_type(&f, 32), "riscv,sv32");
    ck_assert(names(isa_of("rv32", 32), "zcf"));
    ck_assert(!names(isa_of("rv64", 64), "zcf"));
}
END_TEST

START_TEST(isa_list_has_the_names_of_the_string)
{
    struct riscv_features f;
    char list[RISCV_ISA_MAX], isa[RISCV_ISA_MAX], joined[RISCV_ISA_MAX] = "rv64";
    ck_assert_int_eq(riscv_features_parse("max", 64, &f, NULL), 0);
    size_t n = riscv_isa_list(&f, list, sizeof(list));
    for (size_t i = 0; i < n; i += strlen(list + i) + 1) {
        strcat(joined, list[i + 1] ? "_" : "");
        strcat(joined, list + i);
    }
    riscv_isa_format(&f, 64, isa, sizeof(isa));
    ck_assert_str_eq(joined, isa);
    ck_assert_uint_eq(riscv_isa_list(&f, list, 5), 4); /* "i", "m" */
}
END_TEST

START_TEST(switching_takes_what_depends_along)
{
    ck_assert(names(isa_of("max", 64), "b"));
    ck_assert(!names(isa_of("max,zbb=off", 64), "b"));
    ck_assert(names(isa_of("max,zbb=off", 64), "zba"));
    ck_assert(!names(isa_of("max,b=off", 64), "zba"));
    ck_assert(!names(isa_of("max,f=off", 64), "d"));
    ck_assert(!names(isa_of("max,f=off", 64), "zcd"));
    ck_assert(!names(isa_of("rva20u64", 64), "zba"));
    ck_assert(names(isa_of("rva20u64,b=on", 64), "zbs"));
    ck_assert(!names(isa_of("rva20u64", 64), "ssccptr"));
    ck_assert(names(isa_of("rva20u64,sstc=on,sv39=on", 64), "sstc"));
    ck_assert(names(isa_of("rva22s64", 64), "svade"));
    ck_assert(!names(isa_of("max", 64), "svade"));
    ck_assert(names(isa_of("max,svade=on", 64), "svade"));
}
END_TEST

START_TEST(misa_names_letters_and_width)
{
    struct riscv_features f;
    ck_assert_int_eq(riscv_features_parse("rv64", 64, &f, NULL), 0);
    ck_assert_uint_eq(riscv_misa(&f, 64) & ~(1ull << 21), 0x800000000014112f);
    ck_assert_int_eq(riscv_features_parse("max,d=off,zbs=off", 32, &f, NULL), 0);
    ck_assert_uint_eq(riscv_misa(&f, 32) & ~(1ull << 21), 0x40141125);
}
END_TEST

START_TEST(bad_cpu_models_are_named)
{
    static const struct {
        const char *model, *says;
    } bad[] = { { "cortex-a72", "max, rv64" },
                { "rv32", "max, rv64" },
                { "rva24u64", "rva23u64" },
                { "", "CPU model" },
                { "rv64,vector=on", "'vector'" },
                { "rv64,zba", "zba" },
                { "rv64,zba=maybe", "on, " },
                { "rv64,i=off", "'i'" },
                { "rv64,f=off,d=on", "'d' needs 'f'" },
                { "rv64,d=on,f=off", "'d' needs 'f'" },
                { "rv64,zcd=off", "c d" },
                { "rv64,", "on, " },
                { "rv64,sv39=off", "sv39" },
                { "rv64,=off", "extension" },
                { "rv64,vlen=100", "vlen=100" },
                { "rv64,vlen=", "power of two" },
                { "rv64,vlen=9999999999999", "power of two" },
                { "rva20u64,vlen=256", "vectors" } };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct err e = ERR_INIT;
        struct riscv_features f = { .word = { 42 } };
        ck_assert_int_eq(riscv_features_parse(bad[i].model, 64, &f, &e), -EINVAL);
        ck_assert_msg(strstr(e.msg, bad[i].says) != NULL, "%s: %s", bad[i].model, e.msg);
        ck_assert_uint_eq(f.word[0], 42);
    }
    struct err e = ERR_INIT;
    struct loop *loop = loop_new(&e);
    struct vm *vm;
    ck_assert_int_eq(vm_new("v", &riscv64_arch, &idle_engine, loop, NULL, &vm, &e), 0);
    ck_assert_int_eq(vm_add_vcpus(vm, 2, "pentium", &e), -EINVAL);
    vm_free(vm);
    loop_free(loop);
}
END_TEST

START_TEST(reset_gives_the_power_on_state)
{
    struct fixture x;
    make(&x, &riscv64_arch, "max");
    struct riscv_cpu *c = x.c;
    memset(c->x, 0xff, sizeof(c->x));
    c->priv = RISCV_U;
    c->mstatus = UINT64_MAX;
    c->pmpcfg[3] = 0x1f;
    c->pmp_used = 4;
    vm_reset(x.vm);
    ck_assert_uint_eq(c->priv, RISCV_M);
    ck_assert_uint_eq(c->xlen, 64);
    ck_assert_uint_eq(c->hartid, 1);
    ck_assert_uint_eq(c->x[5], 0);
    ck_assert_uint_eq(c->pmp_used, 0);
    ck_assert_uint_eq(c->mstatus, 0xaull << 32);
    ck_assert_uint_eq(c->menvcfg, MENVCFG_ADUE);
    ck_assert_uint_eq(c->res_addr, UINT64_MAX);
    ck_assert_uint_eq(c->misa, riscv_misa(&c->features, 64));
    drop(&x);
    make(&x, &riscv64_arch,
         "max,svadu=off,svvptc=off,s=off,u=off,sstc=off,sv39=off,sv48=off,sv57=off");
    ck_assert_uint_eq(x.c->menvcfg, 0);
    ck_assert_uint_eq(x.c->mstatus, 0);
    drop(&x);
}
END_TEST

START_TEST(boot_sets_pc_and_arguments)
{
    struct fixture x;
    make(&x, &riscv32_arch, "max");
    riscv32_arch.cpu_boot(x.vm->vcpus[1], 0x80000000, 1, 0x87000000, 3);
    ck_assert_uint_eq(x.c->pc, 0x80000000);
    ck_assert_uint_eq(x.c->x[10], 1);
    /* RV32 registers are kept sign-extended */
    ck_assert_uint_eq(x.c->x[11], 0xffffffff87000000);
    ck_assert_uint_eq(x.c->x[12], 3);
    drop(&x);
}
END_TEST

START_TEST(interrupts_are_inputs_or_software_bits)
{
    struct fixture x;
    make(&x, &riscv64_arch, "max");
    struct vcpu *v = x.vm->vcpus[1];
    ck_assert_uint_eq(riscv_mip(x.c), 0);
    vcpu_irq_set(v, RISCV_IRQ_MTI, true);
    x.c->mip = 1 << RISCV_IRQ_SSI | 1 << RISCV_IRQ_STI;
    ck_assert_uint_eq(riscv_mip(x.c),
                      1 << RISCV_IRQ_MTI | 1 << RISCV_IRQ_SSI | 1 << RISCV_IRQ_STI);
    ck_assert(!riscv64_arch.cpu_has_work(v));
    x.c->mie = 1 << RISCV_IRQ_MTI; /* WFI ends whatever mstatus.MIE says */
    ck_assert(riscv64_arch.cpu_has_work(v));
    x.c->menvcfg |= MENVCFG_STCE;
    riscv_stimecmp_changed(x.c);
    /* STIP is the timer's now */
    ck_assert_uint_eq(riscv_mip(x.c), 1 << RISCV_IRQ_MTI | 1 << RISCV_IRQ_SSI);
    x.c->stimecmp = 0;
    riscv_stimecmp_changed(x.c);
    ck_assert_uint_ne(riscv_mip(x.c) & (1 << RISCV_IRQ_STI), 0);
    x.c->menvcfg &= ~MENVCFG_STCE;
    x.c->mip = 0;
    riscv_stimecmp_changed(x.c);
    ck_assert_uint_eq(riscv_mip(x.c), 1 << RISCV_IRQ_MTI);
    drop(&x);
}
END_TEST

START_TEST(stimecmp_raises_its_interrupt_when_time_comes)
{
    struct fixture x;
    make(&x, &riscv64_arch, "max");
    x.c->menvcfg |= MENVCFG_STCE;
    clock_start(x.vm->clock);
    for (unsigned i = 0; i < 20; i++) {
        x.c->stimecmp = riscv_time(x.c->vcpu) + 1000; /* 100 us */
        riscv_stimecmp_changed(x.c);
        while (!(riscv_mip(x.c) & (1 << RISCV_IRQ_STI))) {
            loop_run_once(x.loop, 1000000, NULL);
        }
        ck_assert_uint_ge(riscv_time(x.c->vcpu), x.c->stimecmp);
        x.c->stimecmp = UINT64_MAX;
        riscv_stimecmp_changed(x.c);
        ck_assert_uint_eq(riscv_mip(x.c) & (1 << RISCV_IRQ_STI), 0);
        x.c->stimecmp = UINT64_MAX - 1; /* beyond what nanoseconds can say: in 58,000 years */
        riscv_stimecmp_changed(x.c);
        ck_assert_uint_eq(riscv_mip(x.c) & (1 << RISCV_IRQ_STI), 0);
    }
    drop(&x);
}
END_TEST

struct hart {
    struct fixture *x;
    _Atomic bool end;
};

/* A hart that re-arms at random: after each write its input has to come to what time and
 * stimecmp say. */
static void *hart_thread(void *arg)
{
    struct hart *h = arg;
    struct riscv_cpu *c = h->x->c;
    uint64_t rnd = 4711;
    for (unsigned i = 0; i < 3000; i++) {
        uint64_t dice = test_random(&rnd) % 3;
        c->stimecmp = dice == 0 ? UINT64_MAX : riscv_time(c->vcpu) + test_random(&rnd) % 300;
        riscv_stimecmp_changed(c);
        if (dice == 1) {
            while (!(riscv_mip(c) & (1 << RISCV_IRQ_STI))) { /* a lost one never comes */
                sched_yield();
            }
        }
    }
    c->stimecmp = UINT64_MAX;
    riscv_stimecmp_changed(c);
    atomic_store(&h->end, true);
    return NULL;
}

START_TEST(stimecmp_written_while_its_timer_fires_loses_and_invents_nothing)
{
    struct fixture x;
    make(&x, &riscv64_arch, "max");
    x.c->menvcfg |= MENVCFG_STCE;
    clock_start(x.vm->clock);
    struct hart h = { .x = &x };
    pthread_t t;
    pthread_create(&t, NULL, hart_thread, &h);
    while (!atomic_load(&h.end)) {
        loop_run_once(x.loop, 1000000, NULL);
    }
    pthread_join(t, NULL);
    ck_assert_uint_eq(riscv_mip(x.c) & (1 << RISCV_IRQ_STI), 0);
    drop(&x);
}
END_TEST

START_TEST(hart_is_saved_and_loaded)
{
    struct fixture x;
    struct err e = ERR_INIT;
    make(&x, &riscv64_arch, "max");
    struct riscv_cpu *a = x.c, *b = x.vm->vcpus[0]->cpu;
    const struct st_table *t = riscv64_arch.state;
    for (unsigned i = 1; i < 32; i++) {
        a->x[i] = i * 0x1111111111111111ull;
        a->f[i] = ~a->x[i];
    }
    a->pc = 0x80001234;
    a->priv = RISCV_S;
    a->frm = 4;
    a->satp = 8ull << 60 | 0x1234;
    a->pmpcfg[2] = 0x1f;
    a->menvcfg |= MENVCFG_STCE;
    a->stimecmp = 0;
    AUTO_BUF s = BUF_INIT;
    size_t used;
    st_save(t, a, &s);
    ck_assert_msg(st_load(t, b, sizeof(*b), s.data, s.len, &used, &e) == 0, "%s", e.msg);
    AUTO_BUF pa = BUF_INIT;
    AUTO_BUF pb = BUF_INIT;
    st_print(t, a, &pa);
    st_print(t, b, &pb);
    ck_assert_str_eq(pa.data, pb.data);
    ck_assert_uint_eq(b->pmp_used, 3);
    ck_assert_uint_ne(riscv_mip(b) & (1 << RISCV_IRQ_STI), 0); /* its timer was set anew */
    ck_assert_uint_eq(b->hartid, 0);
    /* Impossible values, and the other width, leave it as it was. */
    a->priv = 2;
    buf_consume(&s, s.len);
    st_save(t, a, &s);
    ck_assert_int_eq(st_load(t, b, sizeof(*b), s.data, s.len, &used, &e), -EINVAL);
    ck_assert_uint_eq(b->priv, RISCV_S);
    a->priv = RISCV_U;
    a->xlen = 32;
    buf_consume(&s, s.len);
    st_save(t, a, &s);
    ck_assert_int_eq(st_load(t, b, sizeof(*b), s.data, s.len, &used, &e), -EINVAL);
    ck_assert_uint_eq(b->xlen, 64);
    drop(&x);
}
END_TEST

START_TEST(every_architectural_field_is_saved)
{
    /* Each byte before `vcpu` that no field covers is padding: changing all fields' bytes
     * must change all but those. */
    static uint8_t covered[sizeof(struct riscv_cpu)];
    static const uint8_t size[] = { [ST_U8] = 1, [ST_U64] = 8, [ST_BYTES] = 1 };
    unsigned holes = 0;
    for (const struct st_field *f = riscv64_arch.state->fields; f->name; f++) {
        ck_assert(f->kind < sizeof(size) && size[f->kind]);
        memset(covered + f->offset, 1, (size_t)size[f->kind] * f->count);
    }
    for (size_t i = 0; i < offsetof(struct riscv_cpu, vcpu); i++) {
        holes = covered[i] ? 0 : holes + 1;
        ck_assert_msg(holes < 8,
                      "byte %zu of struct riscv_cpu is in no field of the state table", i);
    }
}
END_TEST

static Suite *suite_riscv(void)
{
    Suite *s = suite_create("riscv");
    TCase *c = tcase_create("riscv");
    tcase_add_test(c, table_of_extensions_is_consistent);
    tcase_add_test(c, short_isa_string_fits_what_firmware_has);
    tcase_add_test(c, isa_string_is_what_kernels_parse);
    tcase_add_test(c, isa_list_has_the_names_of_the_string);
    tcase_add_test(c, switching_takes_what_depends_along);
    tcase_add_test(c, misa_names_letters_and_width);
    tcase_add_test(c, bad_cpu_models_are_named);
    tcase_add_test(c, reset_gives_the_power_on_state);
    tcase_add_test(c, boot_sets_pc_and_arguments);
    tcase_add_test(c, interrupts_are_inputs_or_software_bits);
    tcase_add_test(c, stimecmp_raises_its_interrupt_when_time_comes);
    tcase_add_test(c, stimecmp_written_while_its_timer_fires_loses_and_invents_nothing);
    tcase_add_test(c, hart_is_saved_and_loaded);
    tcase_add_test(c, every_architectural_field_is_saved);
    suite_add_tcase(s, c);
    return s;
}

int main(int argc, char **argv)
{
    return test_main(argc, argv, suite_riscv, NULL);
}
