/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Random RISC-V programs give the same registers, CSRs and memory by JIT (long blocks, and blocks of three
 * instructions) as by the IR interpreter. Programs are straight code with forward branches, indirect jumps, a counted
 * loop, page-crossing and device accesses; they end in a WFI, or in a trap handler that is one.
 *
 * Program number N of a seed is always the same: VMD_BLOCKS_FROM and VMD_BLOCKS (count) choose a slice,
 * VMD_BLOCKS_DUMP=1 prints programs. A program that differs is shrunk by replacing instructions by nops.
 */
#include "engine/arch/riscv/cpu.h"
#include "engine/base/loop.h"
#include "engine/base/mem.h"
#include "engine/core/mem.h"
#include "engine/core/vm.h"
#include "engine/tcg/gen/isa.h"
#include "engine/tcg/guest_riscv/disas.h"
#include "engine/tcg/guest_riscv/riscv_isa.h"
#include "engine/tcg/tcg.h"
#include "tests/lib/testing.h"

#include <inttypes.h>

#define RAM_BASE UINT64_C(0x80000000)
#define RAM_SIZE 0x40000u
#define HANDLER RAM_BASE
#define CODE (RAM_BASE + 0x10000)  /* two pages */
#define TABLE (RAM_BASE + 0x20000) /* addresses of instructions */
#define DATA (RAM_BASE + 0x30000)
#define DATA_SIZE 0x4000u
#define DEVICE UINT64_C(0x10000000)

#define MAX_INSNS 48
#define WFI 0x10500073u
#define ENGINES 4

/* Registers with a job: pointers and the loop counter; programs do not write them. */
enum { SP = 2, TABLE_REG = 3, DEVICE_REG = 4, DATA_REG = 8, ALIGNED_REG = 9, COUNTER = 31 };
#define RESERVED                                                                               \
    (1u << SP | 1u << TABLE_REG | 1u << DEVICE_REG | 1u << DATA_REG | 1u << ALIGNED_REG |      \
     1u << COUNTER)

/* ---- machines ---------------------------------------------------------------------------- */

struct machine {
    struct vm *vm;
    struct mem_region *ram, *io;
    uint8_t *host;
    struct riscv_cpu *cpu;
    uint64_t device; /* a number that every access changes */
    struct tcg_config config;
};

static struct loop *loop;
static struct machine machines[2][ENGINES]; /* [0] RV64, [1] RV32 */

static uint64_t device_read(void *opaque, uint64_t offset, unsigned size)
{
    struct machine *m = opaque;

    m->device = m->device * 6364136223846793005u + offset * 16 + size;
    return m->device >> 7;
}

static void device_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    struct machine *m = opaque;

    m->device = (m->device ^ value) * 2862933555777941757u + offset * 16 + size;
}

static const struct mem_io_ops device_ops = { device_read, device_write, 1, 8 };

static void machine_new(struct machine *m, const struct arch_ops *arch,
                        enum tcg_backend backend, unsigned max_insns, enum tcg_tier2 tier2)
{
    struct err e = ERR_INIT;

    m->config = (struct tcg_config){ .cache_size = 4u << 20,
                                     .backend = backend,
                                     .max_insns = max_insns,
                                     .tier2 = tier2,
                                     .warm = 2,
                                     .no_compact = max_insns == 1,
                                     .check = true };
    ck_assert_msg(vm_new("blocks", arch, &tcg_engine_ops, loop, &m->config, &m->vm, &e) == 0,
                  "%s", e.msg);
    ck_assert_int_eq(mem_new_ram("ram", RAM_SIZE, &m->ram, &e), 0);
    ck_assert_int_eq(mem_map(m->vm->root, RAM_BASE, 0, m->ram, &e), 0);
    m->io = mem_new_io("io", 0x1000, &device_ops, m, NULL);
    ck_assert_int_eq(mem_map(m->vm->root, DEVICE, 0, m->io, &e), 0);
    ck_assert_msg(vm_add_vcpus(m->vm, 1, "max", &e) == 0, "%s", e.msg);
    mem_commit(m->vm->mem);
    m->host = mem_ram_host(m->ram);
    m->cpu = m->vm->vcpus[0]->cpu;
}

static bool have_jit(void)
{
#ifdef __x86_64__
    return true;
#else
    return false;
#endif
}

static void machines_new(void)
{
    struct err e = ERR_INIT;
    unsigned i;

    loop = loop_new(&e);
    ck_assert_ptr_nonnull(loop);
    for (i = 0; i < 2; i++) {
        const struct arch_ops *arch = i == 0 ? &riscv64_arch : &riscv32_arch;
        enum tcg_backend jit = have_jit() ? TCG_JIT : TCG_INTERP;

        machine_new(&machines[i][0], arch, TCG_INTERP, 1, TCG_TIER2_OFF);
        machine_new(&machines[i][1], arch, jit, 0, TCG_TIER2_OFF);
        machine_new(&machines[i][2], arch, jit, 3, TCG_TIER2_OFF);
        machine_new(&machines[i][3], arch, jit, i == 0 ? 0 : 5, TCG_TIER2_FORCE);
    }
}

static void machines_free(void)
{
    unsigned i, k;

    for (i = 0; i < 2; i++) {
        for (k = 0; k < 4; k++) {
            vm_free(machines[i][k].vm);
            mem_free(machines[i][k].ram);
            mem_free(machines[i][k].io);
        }
    }
    loop_free(loop);
}

/* ---- programs ---------------------------------------------------------------------------- */

struct program {
    unsigned xlen;
    bool user;    /* runs in user mode (WFI is illegal there, which ends it as well) */
    uint64_t rng; /* state of the generator */
    unsigned n;
    uint32_t insns[MAX_INSNS];
    uint16_t at[MAX_INSNS + 1]; /* offset of each from CODE */
    unsigned loop_start;        /* index that the counted loop goes back to */
    uint64_t x[32], f[32];
    uint64_t fill; /* seed of the memory's contents */
};

static uint64_t draw(struct program *p)
{
    return test_random(&p->rng);
}

static uint64_t rng_of(void *opaque)
{
    return draw(opaque);
}

static const struct isa_field *field_of(const struct isa_insn *insn, const char *arg)
{
    unsigned i;

    for (i = 0; i < insn->format->arg_count; i++) {
        if (strcmp(insn->format->args[i].name, arg) == 0) {
            return insn->format->args[i].field;
        }
    }
    return NULL;
}

static bool is_gpr(const struct isa_field *field)
{
    return field->kind == ISA_NAMES && strcmp(field->names->name, "gpr") == 0;
}

static bool is_memory(const struct isa_insn *insn)
{
    return strstr(insn->format->syntax, "(rs1)") != NULL && strcmp(insn->name, "jalr") != 0;
}

static bool is_amo(const struct isa_insn *insn)
{
    return (insn->features & RISCV_ISA_A) != 0;
}

/* What takes control elsewhere is placed by hand; what would end nearly every program is rare. */
static bool accept(void *opaque, const struct isa_insn *insn)
{
    static const char *const never[] = {
        "jal",    "jalr",   "c.j",        "c.jal",    "c.jr",    "c.jalr", "beq",
        "bne",    "blt",    "bge",        "bltu",     "bgeu",    "wfi",    "c.addi16sp",
        "c.beqz", "c.bnez", "sfence.vma", "amocas.d", "amocas.q" /* they write two registers */
    };
    static const char *const rare[] = { "ecall", "ebreak", "c.ebreak", "mret", "sret" };
    unsigned i;

    for (i = 0; i < ARRAY_LEN(never); i++) {
        if (strcmp(insn->name, never[i]) == 0) {
            return false;
        }
    }
    for (i = 0; i < ARRAY_LEN(rare); i++) {
        if (strcmp(insn->name, rare[i]) == 0) {
            return draw(opaque) % 16 == 0;
        }
    }
    return true;
}

/* CSRs that any value may be read from and written to without leaving the program. */
static const uint16_t csrs[] = { 0x001, 0x002, 0x003, 0x001, 0x140, 0x340, 0x142, 0x143,
                                 0x342, 0x343, 0x341, 0x141, 0x305, 0x301, 0x105 };

static int64_t pointer_for(struct program *p, const struct isa_insn *insn)
{
    if (is_amo(insn)) {
        return draw(p) % 32 == 0 ? DATA_REG : ALIGNED_REG;
    }
    switch (draw(p) % 16) {
    case 0:
        return DEVICE_REG;
    case 1:
        return SP;
    case 2:
    case 3:
    case 4:
        return ALIGNED_REG;
    default:
        return DATA_REG;
    }
}

static bool choose(void *opaque, const struct isa_insn *insn, const struct isa_arg *arg,
                   int64_t *value)
{
    struct program *p = opaque;

    if (arg->field->kind == ISA_NAMES && strcmp(arg->field->names->name, "csr") == 0) {
        *value = csrs[draw(p) % ARRAY_LEN(csrs)];
        if (*value == 0x305 || *value == 0x105) {
            *value = 0x340; /* the trap vectors stay */
        }
        return true;
    }
    if (!is_gpr(arg->field) || arg->field->seg_count == 0) {
        return false;
    }
    if (strcmp(arg->name, "rs1") == 0 && is_memory(insn)) {
        *value = pointer_for(p, insn);
        if (arg->field->width == 3) {
            *value = draw(p) % 2 != 0 ? DATA_REG : ALIGNED_REG;
        }
        return true;
    }
    if (strcmp(arg->name, "rd") == 0) {
        do {
            *value = isa_field_get(arg->field, draw(p));
        } while ((1u << *value & RESERVED) != 0);
        return true;
    }
    return false;
}

static void add(struct program *p, uint32_t bits)
{
    p->at[p->n + 1] = (uint16_t)(p->at[p->n] + riscv_insn_length(bits));
    p->insns[p->n++] = bits;
}

/* ld or lw x6, 8 * slot(x3); jalr rd, 0(x6): through the table, to the instruction that stands in slot. */
static void add_indirect(struct program *p)
{
    uint32_t slot = (uint32_t)(p->n + 3 + draw(p) % 4), rd = (uint32_t)(draw(p) % 3);

    slot = slot < MAX_INSNS ? slot : MAX_INSNS - 1;
    add(p, slot * 8 << 20 | TABLE_REG << 15 | (p->xlen == 64 ? 3u : 2u) << 12 | 6 << 7 | 0x03);
    add(p, 6 << 15 | (rd == 2 ? 5u : rd) << 7 | 0x67);
}

static uint32_t r_type(uint32_t op, uint32_t rd, uint32_t rs1, uint32_t rs2)
{
    return op | rd << 7 | rs1 << 15 | rs2 << 20;
}

/* Sequences that the translator takes for one operation: rotations, extensions, chains of word arithmetic. Sometimes
 * one operand off, so that they are not. */
static void add_idiom(struct program *p)
{
    enum { SLLIW = 0x101b, SRLIW = 0x501b, SLLI = 0x1013, SRLI = 0x5013, SRAI = 0x40005013 };
    static const uint32_t join[] = { 0x6033, 0x4033, 0x0033 }; /* or, xor, add */
    static const uint8_t shifts[] = { 32, 48, 56, 31, 16 };
    uint32_t x = 10 + (uint32_t)(draw(p) % 4), a = 13 + (uint32_t)(draw(p) % 3);
    uint32_t b = 16 + (uint32_t)(draw(p) % 3), d = 10 + (uint32_t)(draw(p) % 8);
    bool word = draw(p) % 2 == 0, off = draw(p) % 8 == 0;
    uint32_t w = word || p->xlen == 32 ? 32 : 64, n = 1 + (uint32_t)(draw(p) % (w - 1));

    word = word && p->xlen == 64;
    switch (draw(p) % 3) {
    case 0:
        add(p, r_type(word ? SRLIW : SRLI, a, x, n));
        add(p, r_type(word ? SLLIW : SLLI, b, off ? x + 1 : x, w - n));
        if (draw(p) % 8 == 0) {
            add(p, r_type(0x0033, x, x, b)); /* the source changes before the join */
        }
        add(p, r_type(join[draw(p) % 3], d, draw(p) % 2 ? a : b, draw(p) % 2 ? a : b));
        break;
    case 1:
        n = shifts[draw(p) % ARRAY_LEN(shifts)] & (p->xlen - 1);
        add(p, r_type(SLLI, draw(p) % 2 ? x : a, x, n));
        if (off) {
            add(p, r_type(0x0033, x, x, b));
        }
        add(p, r_type(draw(p) % 2 ? SRAI : SRLI, d, draw(p) % 2 ? x : a, n));
        break;
    default:
        add(p, r_type(p->xlen == 64 ? 0x003b : 0x0033, a, x, b));         /* addw */
        add(p, r_type(p->xlen == 64 ? 0x4000003b : 0x40000033, a, a, d)); /* subw */
        add(p, r_type(join[draw(p) % 3], b, a, x));
        add(p, r_type(p->xlen == 64 ? 0x003b : 0x0033, a, b, a));
        if (off) {
            add(p, 13 << 20 | DATA_REG << 15 | 0x23 | 2 << 12); /* sw a3, 0(x8) */
        }
    }
}

/* A branch or jump over some instructions; set_branches() puts the distance in. */
static void add_branch(struct program *p, const struct isa_pick *pick)
{
    static const uint16_t ops[] = { RISCV_OP_BEQ,    RISCV_OP_BNE,   RISCV_OP_BLT, RISCV_OP_BGE,
                                    RISCV_OP_BLTU,   RISCV_OP_BGEU,  RISCV_OP_JAL, RISCV_OP_C_J,
                                    RISCV_OP_C_BEQZ, RISCV_OP_C_BNEZ };
    uint64_t bits = 0;

    if (isa_random_op(&riscv_isa, ops[draw(p) % ARRAY_LEN(ops)], pick, &bits)) {
        add(p, (uint32_t)bits);
    }
}

static bool is_branch(unsigned op)
{
    return (op >= RISCV_OP_BEQ && op <= RISCV_OP_BGEU) || op == RISCV_OP_JAL ||
           op == RISCV_OP_C_J || op == RISCV_OP_C_BEQZ || op == RISCV_OP_C_BNEZ;
}

static unsigned op_of(const struct program *p, unsigned index)
{
    struct riscv_insn insn;

    return riscv_decode(p->insns[index], p->xlen == 64 ? ~RISCV_ISA_RV32 : ~RISCV_ISA_RV64,
                        &insn);
}

static void set_imm(struct program *p, unsigned index, int64_t value)
{
    const struct isa_insn *insn = &riscv_isa.insns[op_of(p, index)];

    p->insns[index] = (uint32_t)isa_field_put(field_of(insn, "imm"), p->insns[index], value);
}

/*
 * The instruction at or behind `to` where a jump may land: neither between the two of add_indirect() (an old target
 * could lead back) nor behind the loop's counting.
 */
static unsigned landing(const struct program *p, unsigned to)
{
    if (to >= p->n) {
        return p->n - 1;
    }
    if ((p->insns[to] & 0x7f) == 0x67) {
        to++;
    }
    return to == p->n - 2 ? to - 1 : to;
}

/* Distances of branches: to an instruction a little further on. */
static void set_branches(struct program *p)
{
    unsigned i;

    for (i = 0; i + 3 < p->n; i++) {
        if (is_branch(op_of(p, i))) {
            unsigned to = i + 1 + (unsigned)(draw(p) % 6);

            to = landing(p, to < p->n - 3 ? to : p->n - 3);
            set_imm(p, i, p->at[to] - p->at[i]);
        }
    }
}

static uint64_t special(struct program *p, bool is_float)
{
    static const uint64_t ints[] = { 0,          1,          2,         63,        UINT64_MAX,
                                     0x7fffffff, 0x80000000, INT64_MIN, INT64_MAX, 0xffffffff };
    static const uint64_t floats[] = {
        0,
        0x8000000000000000,
        0x7ff0000000000000,
        0xfff0000000000000,
        0x7ff8000000000000,
        0x7ff0000000000001,
        0x3ff0000000000000,
        0x0000000000000001,
        0xffffffff7fc00000,
        0xffffffff7f800001,
        0xffffffff3f800000,
        0xffffffff80000000,
        0xffffffff00000001,
        0xffffffff7f800000,
        0x7fefffffffffffff,
    };
    uint64_t v = draw(p);

    if (v % 4 == 0) {
        return is_float ? floats[draw(p) % ARRAY_LEN(floats)] : ints[draw(p) % ARRAY_LEN(ints)];
    }
    if (is_float && v % 4 == 1) {
        return UINT64_C(0xffffffff00000000) | draw(p);
    }
    return v % 4 == 2 ? draw(p) % 4096 : draw(p);
}

static void set_registers(struct program *p)
{
    unsigned i;
    uint64_t page = DATA + 0x1000 + draw(p) % 2 * 0x1000;

    for (i = 0; i < 32; i++) {
        p->x[i] = i == 0 ? 0 : special(p, false);
        p->f[i] = special(p, true);
    }
    p->x[SP] = page + draw(p) % 0x1000 / 16 * 16;
    p->x[TABLE_REG] = TABLE;
    p->x[DEVICE_REG] = DEVICE + 0x800 + draw(p) % 256;
    p->x[DATA_REG] = page + draw(p) % 0x1000;
    p->x[ALIGNED_REG] = page + draw(p) % 0x1000 / 8 * 8;
    p->x[COUNTER] = 1 + draw(p) % 6;
    p->fill = draw(p);
    for (i = 0; i < 32 && p->xlen == 32; i++) {
        p->x[i] = (uint64_t)(int64_t)(int32_t)p->x[i];
    }
}

/* They outnumber all others, and where nothing set a vector type they are illegal: of most programs they would be the end. */
#define VECTORS                                                                                \
    (RISCV_ISA_ZVE32X | RISCV_ISA_ZVE32F | RISCV_ISA_ZVKB | RISCV_ISA_ZVBB | RISCV_ISA_ZVBC |  \
     RISCV_ISA_ZVKG | RISCV_ISA_ZVKNED | RISCV_ISA_ZVKNHA_OR_ZVKNHB | RISCV_ISA_ZVKSED |       \
     RISCV_ISA_ZVKSH | RISCV_ISA_ZVFBFMIN | RISCV_ISA_ZVFBFWMA)

/* Program number n of a seed. */
static void make(struct program *p, uint64_t seed, uint64_t number)
{
    struct isa_pick pick = { .rng = rng_of, .accept = accept, .choose = choose, .opaque = p };
    unsigned want, i;

    memset(p, 0, sizeof(*p));
    p->rng = (seed ^ number * UINT64_C(0x9e3779b97f4a7c15)) | 1;
    for (i = 0; i < 4; i++) {
        draw(p);
    }
    p->xlen = draw(p) % 4 == 0 ? 32 : 64;
    p->user = draw(p) % 2 == 0;
    pick.features = p->xlen == 64 ? ~RISCV_ISA_RV32 : ~RISCV_ISA_RV64;
    if (draw(p) % 16 != 0) {
        pick.features &= ~VECTORS;
    }
    /* Anywhere in the first page, often so that the program goes on in the second. */
    p->at[0] = (uint16_t)(draw(p) % 3 != 0 ? draw(p) % 0x800 * 2 : 0xfa0 + draw(p) % 48 * 2);
    want = 1 + (unsigned)(draw(p) % (MAX_INSNS - 10));
    p->loop_start = (unsigned)(draw(p) % want);
    while (p->n < want) {
        uint64_t bits;

        switch (draw(p) % 16) {
        case 0:
            add_branch(p, &pick);
            break;
        case 1:
            add_indirect(p);
            break;
        case 2:
        case 3:
            add_idiom(p);
            break;
        default:
            if (isa_random(&riscv_isa, &pick, &bits) != 0) {
                add(p, (uint32_t)bits);
            }
        }
    }
    add(p, 0xffff8f93 | 0xfff00000); /* addi x31, x31, -1 */
    add(p, 0x000f9063);              /* bnez x31, loop */
    add(p, WFI);
    set_imm(p, p->n - 2, p->at[landing(p, p->loop_start)] - p->at[p->n - 2]);
    set_branches(p);
    set_registers(p);
}

/* ---- running ----------------------------------------------------------------------------- */

static void fill_memory(struct machine *m, const struct program *p)
{
    uint64_t state = p->fill | 1;
    unsigned i;

    for (i = 0; i < DATA_SIZE; i += 8) {
        uint64_t v = test_random(&state);

        memcpy(m->host + (DATA - RAM_BASE) + i, &v, 8);
    }
    for (i = 0; i < MAX_INSNS; i++) {
        uint64_t address = CODE + p->at[landing(p, i)];

        memcpy(m->host + (TABLE - RAM_BASE) + i * 8, &address, 8);
    }
    memset(m->host + (CODE - RAM_BASE), 0, 0x2000);
    for (i = 0; i < p->n; i++) {
        memcpy(m->host + (CODE - RAM_BASE) + p->at[i], &p->insns[i],
               riscv_insn_length(p->insns[i]));
    }
    memcpy(m->host, &(uint32_t){ WFI }, 4);
    mem_written(m->vm->mem, RAM_BASE, RAM_SIZE);
    m->device = p->fill;
}

static void run(struct machine *m, const struct program *p)
{
    struct vcpu *c = m->vm->vcpus[0];

    fill_memory(m, p);
    m->vm->arch->cpu_reset(c);
    m->cpu->mtvec = m->cpu->stvec = HANDLER;
    m->cpu->mstatus |= MSTATUS_FS;
    m->cpu->pc = CODE + p->at[0];
    if (p->user) {
        m->cpu->priv = RISCV_U;
        m->cpu->pmpaddr[0] = UINT64_MAX >> 10; /* one entry: everything, NAPOT, RWX */
        m->cpu->pmpcfg[0] = 0x1f;
        m->cpu->pmp_used = 1;
        m->cpu->frm = p->fill % 8 < 5 ? p->fill % 8 : 0;
    }
    memcpy(m->cpu->x, p->x, sizeof(p->x));
    memcpy(m->cpu->f, p->f, sizeof(p->f));
    m->vm->engine->regs_put(c);
    while (m->vm->engine->run(c) != VCPU_EXIT_HALT) {
    }
}

/* Describes the first difference between two machines; false when there is none. */
static bool differ(const struct machine *a, const struct machine *b, char *text, size_t n)
{
    const struct riscv_cpu *one = a->cpu, *two = b->cpu;
    unsigned i;

#define FIELD(name)                                                                            \
    if (one->name != two->name) {                                                              \
        snprintf(text, n, #name ": %" PRIx64 " and %" PRIx64, (uint64_t)one->name,             \
                 (uint64_t)two->name);                                                         \
        return true;                                                                           \
    }
    for (i = 0; i < 32; i++) {
        if (one->x[i] != two->x[i] || one->f[i] != two->f[i]) {
            snprintf(text, n, "x%u: %" PRIx64 " and %" PRIx64 ", f%u: %" PRIx64 " and %" PRIx64,
                     i, one->x[i], two->x[i], i, one->f[i], two->f[i]);
            return true;
        }
    }
    FIELD(pc)
    FIELD(priv)
    FIELD(fflags)
    FIELD(frm)
    FIELD(mstatus)
    FIELD(mepc)
    FIELD(mcause)
    FIELD(mtval)
    FIELD(mscratch)
    FIELD(sepc)
    FIELD(scause)
    FIELD(stval)
    FIELD(sscratch)
    FIELD(res_addr)
    if (one->res_addr != UINT64_MAX) { /* else it means nothing */
        FIELD(res_value)
    }
#undef FIELD
    if (a->device != b->device) {
        snprintf(text, n, "the device saw something else");
        return true;
    }
    for (i = 0; i < RAM_SIZE; i++) {
        if (a->host[i] != b->host[i]) {
            snprintf(text, n, "memory at %" PRIx64 ": %02x and %02x", RAM_BASE + i, a->host[i],
                     b->host[i]);
            return true;
        }
    }
    return false;
}

/* Runs p on all engines. False when they agree, else `text` says what differs. */
static bool fails(const struct program *p, char *text, size_t n)
{
    struct machine *m = machines[p->xlen == 32];
    unsigned i;

    for (i = 0; i < ENGINES; i++) {
        run(&m[i], p);
        if (i > 0 && differ(&m[0], &m[i], text, n)) {
            size_t used = strlen(text);

            snprintf(text + used, n - used, " (engine %u)", i);
            return true;
        }
    }
    return false;
}

static void print(const struct program *p)
{
    unsigned i;

    for (i = 0; i < p->n; i++) {
        char text[ISA_DISAS_MAX];
        uint64_t pc = CODE + p->at[i];

        riscv_disas(pc, p->insns[i], p->xlen, text, sizeof(text));
        fprintf(stderr, "# %8" PRIx64 "  %08x  %s\n", pc, p->insns[i], text);
    }
}

/* Replaces what is not needed for the difference by nops, from the end so that a jump goes before its target's load.
 * The loop's counting stays, and the load in front of an indirect jump: nothing may run for ever. */
static void shrink(struct program *p)
{
    char text[256];
    unsigned i;

    for (i = p->n - 3; i-- > 0;) {
        uint32_t old = p->insns[i];

        if ((p->insns[i + 1] & 0x7f) == 0x67) {
            continue;
        }
        p->insns[i] = riscv_insn_length(old) == 2 ? 0x0001 : 0x00000013;
        if (old != p->insns[i] && !fails(p, text, sizeof(text))) {
            p->insns[i] = old;
        }
    }
}

static uint64_t number_of(const char *variable, uint64_t otherwise)
{
    const char *s = getenv(variable);

    return s != NULL && *s != '\0' ? strtoull(s, NULL, 0) : otherwise;
}

/* Did the last run come to the WFI at the program's end? In user mode that traps. */
static bool end_reached(const struct program *p)
{
    const struct riscv_cpu *cpu = machines[p->xlen == 32][0].cpu;

    return p->user ? cpu->mepc == CODE + p->at[p->n - 1] : cpu->mcause == 0;
}

START_TEST(random_programs_give_the_same_by_jit_and_interpreter)
{
    uint64_t seed = test_seed();
    uint64_t from = number_of("VMD_BLOCKS_FROM", 0), count = number_of("VMD_BLOCKS", 20000);
    uint64_t i, ended = 0;

    machines_new();
    for (i = from; i < from + count; i++) {
        struct program p;
        char text[256];

        make(&p, seed, i);
        if (getenv("VMD_BLOCKS_DUMP") != NULL) {
            print(&p);
        }
        if (fails(&p, text, sizeof(text))) {
            fprintf(stderr, "# program %" PRIu64 " of seed %" PRIu64 ", rv%u: %s\n", i, seed,
                    p.xlen, text);
            shrink(&p);
            (void)fails(&p, text, sizeof(text));
            print(&p);
            ck_abort_msg("program %llu (VMD_BLOCKS_FROM=%llu): %s", (unsigned long long)i,
                         (unsigned long long)i, text);
        }
        ended += end_reached(&p);
    }
    machines_free();
    printf("# %" PRIu64 " of %" PRIu64 " programs reached their end\n", ended, count);
}
END_TEST

static Suite *suite_blocks(void)
{
    Suite *suite = suite_create("random programs");
    TCase *tc = tcase_create("riscv");

    tcase_set_timeout(tc, 36000);
    tcase_add_test(tc, random_programs_give_the_same_by_jit_and_interpreter);
    suite_add_tcase(suite, tc);
    return suite;
}

int main(int argc, char **argv)
{
    return test_main(argc, argv, suite_blocks, NULL);
}
