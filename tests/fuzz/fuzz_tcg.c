/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzz target: the translator. An input becomes a guest: code, page tables, CSRs, PMP entries, registers, of either word
 * length, in any mode. It runs by the IR interpreter, by the JIT and by its second tier, which must agree on everything architectural and on
 * memory; then what translated code can reach is looked through (audit()).
 *
 * JIT code carries no sanitizer. So guest memory and the code buffer lie between pages that nobody may touch, and every TLB
 * entry, jump-cache entry and link that code would follow without a check is checked here.
 *
 * A guest's trap handlers go on behind the instruction that trapped, and stop at the TRAPS-th; one that runs on for
 * CUT_MS is cut, and then only looked through. Inputs whose first byte has bits 0 and 7 set have two vCPUs, which are not compared.
 */
#include "engine/arch/riscv/cpu.h"
#include "engine/base/loop.h"
#include "engine/base/log.h"
#include "engine/core/bus.h"
#include "engine/core/state.h"
#include "engine/core/vm.h"
#include "engine/tcg/gen/isa.h"
#include "engine/tcg/guest_riscv/riscv_isa.h"
#include "engine/tcg/guest_riscv/trans.h"
#include "engine/tcg/internal.h"
#include "tests/fuzz/fuzz.h"

#include <inttypes.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>

const char fuzz_name[] = "fuzz_tcg";

#define PAGE 4096u
#define PAGES 64u
#define RAM UINT64_C(0x80000000)
#define RAM_SIZE (PAGES * PAGE)
#define DEVICE UINT64_C(0x10000000) /* a page that remembers, then the page of the traps */
#define WINDOW UINT64_C(0x40000000) /* virtual: all of RAM, then the devices */
#define GUARD 65536u
#define TRAPS 40u
/* Registers of the page of the traps, where no pointer that code is given leads. */
#define STOP_COUNT 0x100
#define STOP_READ 0x104
#define CUT_MS 8

enum {
    M_PAGE,
    S_PAGE,
    VALUES_PAGE,
    TABLE_PAGE,
    CODE_PAGE = TABLE_PAGE + 8,
    DATA_PAGE = CODE_PAGE + 8,
    STOP_PAGE = PAGES + 1
};
enum { KIND_INTERP, KIND_JIT, KIND_TIER2, KIND_SMP, KINDS };

struct machine {
    struct vm *vm;
    struct mem_region *ram, *device, *stop;
    struct bus_lock lock;
    struct tcg_config config;
    uint64_t remembered;
    unsigned traps;
    bool ended;
    uint8_t *host;
};

static struct loop *loop;
static struct machine machines[2][KINDS]; /* [0]: RV64 */
static struct machine *volatile running;
static volatile sig_atomic_t cut;
static uint64_t n_alike, n_cut, n_smp, n_own;

/* ---- machines ---- */

static uint64_t device_read(void *opaque, uint64_t offset, unsigned size)
{
    struct machine *m = opaque;

    m->remembered = m->remembered * UINT64_C(6364136223846793005) + offset * 16 + size;
    return m->remembered >> 7;
}

static void device_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    struct machine *m = opaque;

    m->remembered = (m->remembered ^ value) * UINT64_C(2862933555777941757) + offset * 16 +
                    size;
}

/* A handler that reads 1 here goes round for ever, so it does not matter when exactly its vCPU is stopped. */
static uint64_t stop_read(void *opaque, uint64_t offset, unsigned size)
{
    struct machine *m = opaque;
    unsigned i;

    if (offset != STOP_READ || size != 4 || m->traps < TRAPS) {
        return 0;
    }
    m->ended = true;
    for (i = 0; i < m->vm->n_vcpus; i++) {
        m->vm->engine->kick(m->vm->vcpus[i]);
    }
    return 1;
}

static void stop_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    struct machine *m = opaque;

    (void)value;
    m->traps += offset == STOP_COUNT && size == 4;
}

static const struct mem_io_ops device_ops = { device_read, device_write, 1, 8 };
static const struct mem_io_ops stop_ops = { stop_read, stop_write, 1, 8 };

/* Pages on both sides of a mapping that nobody may touch, where nothing else is. */
static void guard(const void *p, size_t size)
{
    uint8_t *at = (uint8_t *)(uintptr_t)p;
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE | MAP_NORESERVE;

    (void)mmap(at - GUARD, GUARD, PROT_NONE, flags, -1, 0);
    (void)mmap(at + size, GUARD, PROT_NONE, flags, -1, 0);
}

static void machine_new(struct machine *m, unsigned xlen, enum tcg_backend backend,
                        enum tcg_tier2 tier2, unsigned vcpus)
{
    struct err e = ERR_INIT;
    struct tcg_vm *t;

    m->config = (struct tcg_config){
        .cache_size = 1u << 20, .tier2 = tier2, .backend = backend, .check = true
    };
    bus_lock_init(&m->lock);
    if (vm_new("fuzz", xlen == 64 ? &riscv64_arch : &riscv32_arch, &tcg_engine_ops, loop,
               &m->config, &m->vm, &e) < 0 ||
        mem_new_ram("ram", RAM_SIZE, &m->ram, &e) < 0 ||
        mem_map(m->vm->root, RAM, 0, m->ram, &e) < 0) {
        FUZZ_FAIL("%s", e.msg);
    }
    m->device = mem_new_io("device", PAGE, &device_ops, m, &m->lock);
    m->stop = mem_new_io("stop", PAGE / 2, &stop_ops, m, &m->lock);
    if (mem_map(m->vm->root, DEVICE, 0, m->device, &e) < 0 ||
        mem_map(m->vm->root, DEVICE + PAGE, 0, m->stop, &e) < 0 ||
        vm_add_vcpus(m->vm, vcpus, "max", &e) < 0) {
        FUZZ_FAIL("%s", e.msg);
    }
    mem_commit(m->vm->mem);
    m->host = mem_ram_host(m->ram);
    t = m->vm->engine_data;
    guard(m->host, RAM_SIZE);
    guard(t->buf.rw, t->buf.size);
    guard(t->buf.rx, t->buf.size);
}

static void machine_free(struct machine *m)
{
    vm_free(m->vm);
    mem_free(m->ram);
    mem_free(m->device);
    mem_free(m->stop);
}

static void on_timer(int signo)
{
    struct machine *m = running;
    unsigned i;

    (void)signo;
    cut = 1;
    for (i = 0; m && i < m->vm->n_vcpus; i++) {
        m->vm->engine->kick(m->vm->vcpus[i]);
    }
}

/* No page of this process may be writable and executable. */
static void check_maps(void)
{
    FILE *f = fopen("/proc/self/maps", "re");
    char line[512];

    while (f && fgets(line, sizeof(line), f)) {
        char mode[8] = "";

        if (sscanf(line, "%*s %7s", mode) == 1 && mode[1] == 'w' && mode[2] == 'x') {
            FUZZ_FAIL("writable and executable: %s", line);
        }
    }
    if (f) {
        fclose(f);
    }
}

void fuzz_setup(void)
{
    struct err e = ERR_INIT;
    unsigned i;

    log_init(fuzz_name, LOG_ERROR, 2);
    loop = loop_new(&e);
    for (i = 0; i < 2; i++) {
        unsigned xlen = i == 0 ? 64 : 32;
        enum tcg_backend jit = tcg_host() ? TCG_JIT : TCG_INTERP;

        machine_new(&machines[i][KIND_INTERP], xlen, TCG_INTERP, TCG_TIER2_OFF, 1);
        machine_new(&machines[i][KIND_JIT], xlen, jit, TCG_TIER2_OFF, 1);
        machine_new(&machines[i][KIND_TIER2], xlen, jit, TCG_TIER2_FORCE, 1);
        machine_new(&machines[i][KIND_SMP], xlen, jit, TCG_TIER2_ON, 2);
    }
    signal(SIGVTALRM, on_timer);
    check_maps();
}

void fuzz_finish(void)
{
    unsigned i, k;

    check_maps();
    for (i = 0; i < 2; i++) {
        for (k = 0; k < KINDS; k++) {
            machine_free(&machines[i][k]);
        }
    }
    loop_free(loop);
    printf("# %" PRIu64 " guests alike, %" PRIu64 " cut, %" PRIu64 " with two vCPUs, %" PRIu64
           " that saw their own code change at another time\n",
           n_alike, n_cut, n_smp, n_own);
}

/* ---- the guest ---- */

struct guest {
    struct fuzz_in in;
    unsigned xlen;
    unsigned mode; /* enum riscv_priv it is entered in */
    bool translated;
    unsigned values; /* slots used of the values page */
    uint64_t starts[8];
    unsigned n_starts;
    isa_features features;
    uint8_t ram[RAM_SIZE];
};

static struct guest guest;

static void put(struct guest *g, unsigned at, uint64_t value, unsigned size)
{
    if (size <= 8 && at <= RAM_SIZE - 8) {
        memcpy(g->ram + at, &value, size); /* little-endian, as the hosts are */
    }
}

static uint32_t i_type(unsigned op, unsigned f3, unsigned rd, unsigned rs1, int32_t imm)
{
    return op | rd << 7 | f3 << 12 | rs1 << 15 | (uint32_t)imm << 20;
}

static uint32_t csr_op(unsigned f3, unsigned rd, unsigned csr, unsigned rs1)
{
    return i_type(0x73, f3, rd, rs1, (int32_t)csr);
}

enum { RW = 1, RS = 2, RC = 3 };
enum { MRET = 0x30200073, SRET = 0x10200073, ECALL = 0x73, SFENCE = 0x12000073 };

/* Where a page is for the code that runs: in the window, or by its physical address. */
static uint64_t address(const struct guest *g, unsigned page)
{
    if (g->translated) {
        return WINDOW + (uint64_t)page * PAGE;
    }
    return page < PAGES ? RAM + (uint64_t)page * PAGE
                        : DEVICE + (uint64_t)(page - PAGES) * PAGE;
}

/* Counts the trap, stays for ever behind the last, goes on behind what trapped; interrupts are switched off. */
static void put_handler(struct guest *g, unsigned at, bool machine, uint64_t stop)
{
    unsigned scratch = machine ? 0x340 : 0x140, epc = scratch + 1, cause = scratch + 2;
    unsigned status = machine ? 0x300 : 0x100;
    uint32_t lui = (uint32_t)((stop + 0x800) >> 12) << 12 | 30 << 7 | 0x37;
    const uint32_t code[] = {
        csr_op(RW, 0, scratch, 30),
        0x00020037 | 30 << 7, /* lui x30, MPRV */
        csr_op(RC, 0, status, machine ? 30 : 0),
        lui,
        0x100f2023, /* sw x0, STOP_COUNT(x30) */
        i_type(0x03, 2, 30, 30, STOP_READ),
        0x000f1063, /* bne x30, x0, here */
        csr_op(RS, 30, cause, 0),
        0x000f4a63, /* blt x30, x0, +20 */
        csr_op(RS, 30, epc, 0),
        i_type(0x13, 0, 30, 30, 4),
        csr_op(RW, 0, epc, 30),
        0x0080006f, /* jal x0, +8 */
        csr_op(RW, 0, machine ? 0x304 : 0x104, 0),
        csr_op(RS, 30, scratch, 0),
        machine ? MRET : SRET,
    };

    memcpy(g->ram + at, code, sizeof(code));
}

/* The next instruction of the program that sets the CPU up, and the value that it loads from the values page (x31 points
 * into its middle). */
static unsigned load_value(struct guest *g, unsigned at, unsigned op, unsigned f3, unsigned rd,
                           uint64_t value)
{
    int32_t offset = (int32_t)(g->values * 8) - 2048;

    put(g, VALUES_PAGE * PAGE + g->values++ * 8, value, 8);
    put(g, at, i_type(op, f3, rd, 31, offset), 4);
    return at + 4;
}

static unsigned set_csr(struct guest *g, unsigned at, unsigned csr, uint64_t value)
{
    at = load_value(g, at, 0x03, g->xlen == 64 ? 3 : 2, 30, value);
    put(g, at, csr_op(RW, 0, csr, 30), 4);
    return at + 4;
}

static uint64_t number(struct guest *g)
{
    uint64_t v = fuzz_64(&g->in);

    switch (v % 8) {
    case 0:
        return v >> 8 & 15;
    case 1:
        return UINT64_MAX << (v >> 8 & 63);
    case 2:
        return UINT64_C(0xffffffff00000000) | v;
    case 3:
        return address(g, (unsigned)(v >> 8 & 127)) + (v >> 16 & 0xfff);
    case 4:
        return RAM + (v >> 8 & (RAM_SIZE - 1));
    default:
        return v;
    }
}

/* Registers with a meaning: pointers of one kind or another, x29 counts. Code spares them mostly. */
static uint64_t pointer(struct guest *g, unsigned reg)
{
    unsigned page = DATA_PAGE + fuzz_below(&g->in, 40), off = fuzz_below(&g->in, PAGE);

    switch (reg) {
    case 2:
    case 8:
        return address(g, page) + off / 16 * 16;
    case 9:
    case 10:
        return address(g, page) + off;
    case 11:
        return address(g, PAGES) + off / 2;
    case 12: /* code and page tables */
        return address(g, TABLE_PAGE + fuzz_below(&g->in, 16)) + off / 8 * 8;
    case 13: /* a page's end */
        return address(g, page) + PAGE - fuzz_below(&g->in, 16);
    case 14:
    case 15:
        return g->n_starts ? g->starts[fuzz_below(&g->in, g->n_starts)] : address(g, CODE_PAGE);
    case 29:
        return fuzz_below(&g->in, 12);
    default:
        return number(g);
    }
}

static void set_pmp(struct guest *g, unsigned *at)
{
    uint64_t cfg = UINT64_C(0x1f) << (g->xlen == 64 ? 56 : 24);
    unsigned last = g->xlen == 64 ? 7 : 3, i;

    for (i = 0; i < last && fuzz_below(&g->in, 4) == 0; i++) {
        uint64_t one = fuzz_8(&g->in) & (fuzz_rarely(&g->in, 16) ? 0xff : 0x1f);

        cfg |= one << 8 * i;
        *at = set_csr(g, *at, 0x3b0 + i,
                      fuzz_rarely(&g->in, 4) ? fuzz_64(&g->in)
                                             : (RAM + fuzz_below(&g->in, PAGES) * PAGE) >> 2 |
                                                   fuzz_8(&g->in) << fuzz_below(&g->in, 4));
    }
    *at = set_csr(g, *at, 0x3b0 + last, UINT64_MAX >> 10);
    *at = set_csr(g, *at, 0x3a0, cfg);
}

/* Everything that a hart can be set to before the first instruction of its code. */
static void put_setup(struct guest *g, uint64_t entry, uint64_t satp)
{
    static const uint16_t any[] = { 0x306, 0x106, 0x30a, 0x10a, 0x320, 0x340, 0x140, 0x344 };
    unsigned at = 0, i;
    uint64_t status = fuzz_64(&g->in);

    put(g, at, 0x17 | 31 << 7 | VALUES_PAGE << 12, 4); /* auipc x31 */
    put(g, at + 4, 0x00001037 | 30 << 7, 4);           /* lui x30, 1 */
    put(g, at + 8, i_type(0x13, 5, 30, 30, 1), 4);     /* srli x30, x30, 1: 0x800 */
    put(g, at + 12, 0x00000033 | 31 << 7 | 31 << 15 | 30 << 20, 4);
    put(g, at + 16, 0x00006037 | 30 << 7, 4); /* lui x30, FS */
    put(g, at + 20, csr_op(RS, 0, 0x300, 30), 4);
    at += 24;
    for (i = 0; i < 32; i++) {
        at = load_value(g, at, 0x07, 3, i, number(g));
    }
    for (i = 0; i < sizeof(any) / sizeof(any[0]); i++) {
        if (fuzz_rarely(&g->in, 3)) {
            at = set_csr(g, at, any[i], fuzz_64(&g->in));
        }
    }
    at = set_csr(g, at, 0x302, fuzz_rarely(&g->in, 3) ? fuzz_64(&g->in) : 0);
    at = set_csr(g, at, 0x303, fuzz_rarely(&g->in, 3) ? fuzz_64(&g->in) : 0);
    at = set_csr(g, at, 0x304, fuzz_rarely(&g->in, 3) ? fuzz_64(&g->in) : 0);
    at = set_csr(g, at, 0x305, RAM + 0x800);
    at = set_csr(g, at, 0x105, address(g, S_PAGE));
    at = set_csr(g, at, 0x141, entry);
    at = set_csr(g, at, 0x003, fuzz_64(&g->in) & (fuzz_rarely(&g->in, 2) ? 0xff : 0x1f));
    at = set_csr(g, at, 0x180, satp);
    at = set_csr(g, at, 0x341, entry);
    set_pmp(g, &at);
    for (i = 1; i < 30; i++) {
        at = load_value(g, at, 0x03, g->xlen == 64 ? 3 : 2, i, pointer(g, i));
    }
    status = (status & ~(uint64_t)MSTATUS_MPP) | (uint64_t)g->mode << 11;
    status |= fuzz_rarely(&g->in, 8) ? 0 : MSTATUS_FS | MSTATUS_VS;
    status &= fuzz_rarely(&g->in, 8) ? UINT64_MAX : ~(uint64_t)MSTATUS_MPRV;
    at = set_csr(g, at, 0x300, status);
    put(g, at, SFENCE, 4);
    put(g, at + 4, MRET, 4);
    put_handler(g, 0x800, true, DEVICE + PAGE);
    put_handler(g, S_PAGE * PAGE, false, address(g, STOP_PAGE));
}

/* ---- page tables ---- */

enum { V = 1, FULL = 0xcf, USER = 0x10 };

static void put_entry(struct guest *g, unsigned table, unsigned index, uint64_t value)
{
    unsigned size = g->xlen / 8;

    put(g, (TABLE_PAGE + table) * PAGE + index % (PAGE / size) * size, value, size);
}

static uint64_t entry_of(uint64_t physical, unsigned flags)
{
    return physical >> 12 << 10 | flags;
}

/* The window, page by page, and everything by large pages where it is; 5 levels share their tables. Returns satp. */
static uint64_t put_tables(struct guest *g)
{
    unsigned flags = FULL | (g->mode == RISCV_U ? USER : 0), levels, level, i;
    uint64_t root = (RAM >> 12) + TABLE_PAGE;

    for (i = 0; i < PAGES + 3; i++) {
        put_entry(g, 0, i,
                  entry_of(i < PAGES ? RAM + i * PAGE : DEVICE + (i - PAGES) * PAGE,
                           i == S_PAGE ? FULL : flags));
    }
    if (g->xlen == 32) {
        put_entry(g, 1, WINDOW >> 22, entry_of((root << 12) + 0 * PAGE, V));
        put_entry(g, 1, RAM >> 22, entry_of(RAM, flags));
        put_entry(g, 1, 1023, entry_of((root + 1) << 12, V)); /* itself */
        return 1u << 31 | (fuzz_64(&g->in) & 0x7fc00000) | (root + 1);
    }
    put_entry(g, 1, 0, entry_of(root << 12, V));
    put_entry(g, 2, WINDOW >> 30, entry_of((root + 1) << 12, V));
    put_entry(g, 2, RAM >> 30, entry_of(RAM, flags));
    put_entry(g, 2, 511, entry_of((root + 2) << 12, V));
    levels = 3 + fuzz_below(&g->in, 3);
    for (level = 3; level < levels; level++) {
        put_entry(g, level, 0, entry_of((root + level - 1) << 12, V));
        put_entry(g, level, 511, entry_of((root + level) << 12, V));
    }
    return (uint64_t)(levels + 5) << 60 | (uint64_t)fuzz_below(&g->in, 4) << 44 |
           (root + levels - 1);
}

/* Entries that are not as they should be. */
static void spoil_tables(struct guest *g)
{
    unsigned n = fuzz_rarely(&g->in, 3) ? fuzz_below(&g->in, 24) : fuzz_below(&g->in, 4), i;

    for (i = 0; i < n; i++) {
        unsigned table = fuzz_below(&g->in, 6), size = g->xlen / 8;
        unsigned index = table == 0 ? fuzz_below(&g->in, PAGES + 8) : fuzz_below(&g->in, 512);
        unsigned at = (TABLE_PAGE + table) * PAGE + index * size;
        uint64_t old = 0, r = fuzz_64(&g->in);

        memcpy(&old, g->ram + at, size);
        switch (fuzz_below(&g->in, 6)) {
        case 0:
        case 1:
            old ^= 1u << (r & 7);
            break;
        case 2:
            old = (old & 0x3ff) | ((RAM >> 12) + (r & (PAGES - 1))) << 10;
            break;
        case 3:
            old = entry_of(RAM + (TABLE_PAGE + (r & 7)) * PAGE, V);
            break;
        case 4:
            old ^= UINT64_C(1) << (r & 63);
            break;
        default:
            old = r;
            break;
        }
        put(g, at, old, size);
    }
}

/* ---- code ---- */

static uint64_t rng_of(void *opaque)
{
    return fuzz_64(&((struct guest *)opaque)->in);
}

static bool accept_insn(void *opaque, const struct isa_insn *insn)
{
    struct guest *g = opaque;

    if (strcmp(insn->name, "wfi") == 0 || strcmp(insn->name, "ebreak") == 0 ||
        strcmp(insn->name, "c.ebreak") == 0 || strcmp(insn->name, "mret") == 0) {
        return fuzz_rarely(&g->in, 8);
    }
    return true;
}

/* CSRs with an effect; reading the time or a counter of it is left out, since the clock stands but need not. */
static const uint16_t csrs[] = { 0x001, 0x002, 0x003, 0x100, 0x104, 0x105, 0x106, 0x10a, 0x140,
                                 0x141, 0x142, 0x143, 0x144, 0x180, 0x300, 0x301, 0x302, 0x303,
                                 0x304, 0x306, 0x30a, 0x320, 0x340, 0x341, 0x342, 0x343, 0x344,
                                 0x3a0, 0x3a1, 0x3a2, 0x3b0, 0x3b1, 0x3b2, 0x3b7, 0x008, 0x009,
                                 0x00a, 0x00f, 0xc20, 0xc21, 0xc22, 0x7a0, 0x7a1, 0x310, 0xf11,
                                 0xf14, 0x14d, 0x30c, 0x10c, 0x323, 0xda0 };

static bool choose_value(void *opaque, const struct isa_insn *insn, const struct isa_arg *arg,
                         int64_t *value)
{
    struct guest *g = opaque;
    bool names = arg->field->kind == ISA_NAMES;

    if (fuzz_rarely(&g->in, 16)) {
        return false;
    }
    if (names && strcmp(arg->field->names->name, "csr") == 0) {
        *value = csrs[fuzz_below(&g->in, sizeof(csrs) / sizeof(csrs[0]))];
        return true;
    }
    if (!names || strcmp(arg->field->names->name, "gpr") != 0 || arg->field->seg_count == 0) {
        return false;
    }
    if (strcmp(arg->name, "rs1") == 0 && strstr(insn->format->syntax, "(rs1)")) {
        *value = strcmp(insn->name, "jalr") == 0 ? 14 + fuzz_below(&g->in, 2)
                                                 : 8 + fuzz_below(&g->in, 6);
        return true;
    }
    if (strcmp(arg->name, "rd") == 0) {
        *value = 16 + fuzz_below(&g->in, 13);
        return true;
    }
    return false;
}

/* Branches and jumps that go somewhere near. */
static uint32_t near_jump(struct guest *g)
{
    int32_t to = ((int32_t)fuzz_below(&g->in, 64) - 8) * 2;
    uint32_t rs1 = fuzz_below(&g->in, 32), rs2 = fuzz_below(&g->in, 32), u;

    to = to == 0 ? 8 : to;
    u = (uint32_t)to;
    if (fuzz_rarely(&g->in, 4)) {
        return 0x6f | fuzz_below(&g->in, 2) << 7 | (u >> 20 & 1) << 31 |
               (u >> 1 & 0x3ff) << 21 | (u >> 11 & 1) << 20 | (u >> 12 & 0xff) << 12;
    }
    return 0x63 | (to < 0 ? 4u : fuzz_below(&g->in, 2) + 4 * fuzz_below(&g->in, 2)) << 12 |
           (to < 0 ? 0 : rs1) << 15 | (to < 0 ? 29 : rs2) << 20 | (u >> 12 & 1) << 31 |
           (u >> 5 & 0x3f) << 25 | (u >> 1 & 15) << 8 | (u >> 11 & 1) << 7;
}

/* Calls or jumps to a routine (x14 and x15 lead to them) while x29 lasts. */
static unsigned far_jump(struct guest *g, unsigned at)
{
    put(g, at, i_type(0x13, 0, 29, 29, -1), 4);
    put(g, at + 4, 0x000ec463, 4); /* blt x29, x0, +8 */
    put(g, at + 8, i_type(0x67, 0, fuzz_below(&g->in, 2), 14 + fuzz_below(&g->in, 2), 0), 4);
    return at + 12;
}

static unsigned put_insn(struct guest *g, unsigned at, const struct isa_pick *pick)
{
    uint64_t bits = 0;

    switch (fuzz_below(&g->in, 24)) {
    case 0:
    case 1:
        bits = near_jump(g);
        if ((bits & 0x707f) == 0x4063) { /* a branch back counts */
            put(g, at, i_type(0x13, 0, 29, 29, -1), 4);
            at += 4;
        }
        break;
    case 2:
        bits = fuzz_64(&g->in); /* anything */
        break;
    case 3: {
        static const uint32_t some[] = { 0x100f, SFENCE, SRET, ECALL, 0x12050073, 0x0ff0000f };
        bits = some[fuzz_below(&g->in, 6)];
        break;
    }
    case 4:
        return far_jump(g, at);
    default:
        if (!isa_random(&riscv_isa, pick, &bits)) {
            bits = 0x13;
        }
        break;
    }
    put(g, at, bits, riscv_isa.length(bits));
    return at + riscv_isa.length(bits);
}

static void put_code(struct guest *g)
{
    struct isa_pick pick = { .features = g->features,
                             .rng = rng_of,
                             .accept = accept_insn,
                             .choose = choose_value,
                             .opaque = g };
    unsigned routines = 1 + fuzz_below(&g->in, 6), r, i;

    for (i = CODE_PAGE * PAGE; i < (CODE_PAGE + 8) * PAGE; i += 2) {
        put(g, i, 0x0001, 2); /* c.nop */
    }
    for (r = 0; r < routines; r++) {
        unsigned page = CODE_PAGE + fuzz_below(&g->in, 7), n = 4 + fuzz_below(&g->in, 40);
        unsigned off = fuzz_rarely(&g->in, 2) ? PAGE - 2 - 2 * fuzz_below(&g->in, 32)
                                              : 2 * fuzz_below(&g->in, PAGE / 2);
        unsigned at = page * PAGE + off;

        g->starts[g->n_starts++] = address(g, page) + off;
        for (i = 0; i < n && at + 48 < (CODE_PAGE + 8) * PAGE; i++) {
            at = put_insn(g, at, &pick);
        }
        if (fuzz_below(&g->in, 4) == 0) {
            at = far_jump(g, at);
        }
        put(g, at, i_type(0x13, 0, 0, 0, 0), 4);
        put(g, at + 4, ECALL, 4);
    }
}

static void make_guest(struct guest *g, const uint8_t *data, size_t size)
{
    uint64_t state, satp = 0, entry;
    unsigned i, head;

    memset(g, 0, sizeof(*g));
    fuzz_in_init(&g->in, data, size);
    head = fuzz_8(&g->in);
    g->xlen = head & 2 ? 32 : 64;
    g->mode = (head >> 2 & 3) == 2 ? RISCV_U : head >> 2 & 3;
    g->translated = g->mode != RISCV_M && (head & 0x70) != 0;
    g->features = riscv_isa_of(machines[g->xlen == 32][0].vm->vcpus[0]->cpu);
    state = fuzz_64(&g->in);
    for (i = DATA_PAGE * PAGE; i < RAM_SIZE; i += 8) {
        put(g, i, fuzz_mix(&state), 8);
    }
    put_code(g);
    if (g->translated) {
        satp = put_tables(g);
        spoil_tables(g);
    }
    entry = g->starts[0];
    put_setup(g, entry, satp);
}

/* ---- running and judging ---- */

static void load(struct machine *m, const struct guest *g)
{
    unsigned i;

    m->traps = 0;
    m->ended = false;
    m->remembered = 1;
    memcpy(m->host, g->ram, RAM_SIZE);
    mem_written(m->vm->mem, RAM, RAM_SIZE);
    for (i = 0; i < m->vm->n_vcpus; i++) {
        m->vm->arch->cpu_reset(m->vm->vcpus[i]);
        m->vm->arch->cpu_boot(m->vm->vcpus[i], RAM, 0, 0, 0);
        m->vm->engine->regs_put(m->vm->vcpus[i]);
    }
}

static void *run_vcpu(void *arg)
{
    struct vcpu *c = arg;
    struct machine *m = running;

    while (!m->ended && !cut && c->vm->engine->run(c) != VCPU_EXIT_HALT) {
    }
    return NULL;
}

/* True: it came to its end (or waits); false: it was cut. */
static bool run(struct machine *m)
{
    struct itimerval t = { .it_value = { 0, CUT_MS * 1000 } }, off = { 0 };
    pthread_t other;
    bool two = m->vm->n_vcpus > 1;

    cut = 0;
    running = m;
    setitimer(ITIMER_VIRTUAL, &t, NULL);
    if (two && pthread_create(&other, NULL, run_vcpu, m->vm->vcpus[1]) != 0) {
        two = false;
    }
    run_vcpu(m->vm->vcpus[0]);
    if (two) {
        pthread_join(other, NULL);
    }
    setitimer(ITIMER_VIRTUAL, &off, NULL);
    running = NULL;
    return !cut;
}

/* What translated code follows without a check of its own. */
static bool has_code(const struct tcg_vm *t, uint64_t page)
{
    const struct tcg_page *group = t->pages.group[page / TCG_PAGE_GROUP];

    return group && group[page % TCG_PAGE_GROUP].granules != 0;
}

static void audit_space(const struct machine *m, const struct tcg_vm *t,
                        const struct tcg_vcpu *v, const struct tcg_space *s)
{
    unsigned i, k;
    const uint8_t *first = t->buf.rx + t->reserved, *end = t->buf.rx + t->buf.size;

    for (i = 0; i < TLB_SIZE; i++) {
        for (k = 0; k < 2; k++) {
            uint64_t tag = s->tlb[i].tag[k];
            uint64_t page = tag & ~UINT64_C(0xfff), to = s->tlb[i].addend + page;
            uint64_t at = tlb_host(v, &s->tlb[i], page) - (uintptr_t)m->host;

            if (tag & (TLB_SLOW | TLB_INVALID)) {
                continue;
            }
            if (at % PAGE != 0 || at >= RAM_SIZE) {
                FUZZ_FAIL("TLB entry %u for %s leads %#" PRIx64 " bytes from memory", i,
                          k ? "writing" : "reading", at);
            }
            if (memcmp((const void *)(uintptr_t)to, m->host + at, PAGE) != 0) {
                FUZZ_FAIL("TLB entry %u leads to a window of another page", i);
            }
            if (k == TCG_WRITE && has_code(t, at / PAGE)) {
                FUZZ_FAIL("page %u has code and is written without a look",
                          (unsigned)(at / PAGE));
            }
        }
    }
    for (i = 0; i < JC_SIZE && t->config.backend == TCG_JIT; i++) {
        const uint8_t *code = s->jc[i].code;

        if (s->jc[i].pc != 1 && (code < first || code >= end)) {
            FUZZ_FAIL("jump-cache entry %u leads out of the code buffer", i);
        }
    }
}

/* What the second level of a vCPU's jump caches leads to. */
static void audit_jump2(const struct tcg_vcpu *v)
{
    const struct tcg_vm *t = v->tcg;
    for (unsigned i = 0; v->jump2 && i <= v->jump2_mask; i++) {
        for (unsigned k = 0; k < JUMP2_WAYS; k++) {
            if (v->jump2[i].generation[k] && t->config.backend == TCG_JIT &&
                (v->jump2[i].code[k] < t->reserved || v->jump2[i].code[k] >= t->buf.size)) {
                FUZZ_FAIL("place %u of set %u of the second jump cache leads out of the code buffer", k, i);
            }
        }
    }
}

static void audit(const struct machine *m)
{
    const struct tcg_vm *t = m->vm->engine_data;
    unsigned i, s, x;

    for (i = 0; i < t->n_vcpus; i++) {
        audit_jump2(t->vcpus[i]);
        for (s = 0; s < TCG_SPACES; s++) {
            if (t->vcpus[i]->spaces[s]) {
                audit_space(m, t, t->vcpus[i], t->vcpus[i]->spaces[s]);
            }
        }
    }
    for (i = 0; i < t->n_regions; i++) {
        const struct tcg_block *b = cache_at(t, t->regions[i].newest);

        for (; b; b = cache_older(b)) {
            /* Those that are retired never run again: eviction leaves their links as they are. */
            for (x = 0; !b->invalid && x < b->n_exits; x++) {
                const struct tcg_block *to = cache_linked(t, &b->exits[x]);

                if (to && (to->gpa & ~UINT64_C(0xfff)) != (b->gpa & ~UINT64_C(0xfff))) {
                    FUZZ_FAIL("a link leaves its page");
                }
            }
        }
    }
}

/* What a program stores over its own code may show at once, at the next poll, or only after a fence.i: all are right. A region of the
 * second tier is left at its next poll then, and blocks of compact code end where another begins, so each may choose another. */
static bool changed_code(const struct machine *m, uint64_t before)
{
    return ((const struct tcg_vm *)m->vm->engine_data)->stats.invalidations != before;
}

static bool alike(struct machine *a, struct machine *b)
{
    AUTO_BUF x = BUF_INIT;
    AUTO_BUF y = BUF_INIT;

    st_save(a->vm->arch->state, a->vm->vcpus[0]->cpu, &x);
    st_save(b->vm->arch->state, b->vm->vcpus[0]->cpu, &y);
    return x.len == y.len && memcmp(x.data, y.data, x.len) == 0 &&
           memcmp(a->host, b->host, RAM_SIZE) == 0 && a->remembered == b->remembered &&
           a->traps == b->traps;
}

/* Fails with the first thing in which they differ. */
static void compare(struct machine *a, struct machine *b, const char *name)
{
    AUTO_BUF x = BUF_INIT;
    AUTO_BUF y = BUF_INIT;
    unsigned i;

    st_save(a->vm->arch->state, a->vm->vcpus[0]->cpu, &x);
    st_save(b->vm->arch->state, b->vm->vcpus[0]->cpu, &y);
    if (x.len != y.len || memcmp(x.data, y.data, x.len) != 0) {
        buf_consume(&x, x.len);
        buf_consume(&y, y.len);
        st_print(a->vm->arch->state, a->vm->vcpus[0]->cpu, &x);
        st_print(b->vm->arch->state, b->vm->vcpus[0]->cpu, &y);
        FUZZ_FAIL("by the %s:\n%s\nby the interpreter:\n%s", name, x.data, y.data);
    }
    for (i = 0; i < RAM_SIZE; i++) {
        if (a->host[i] != b->host[i]) {
            FUZZ_FAIL("memory at %#x is %#x by the %s, %#x by the interpreter",
                      (unsigned)RAM + i, a->host[i], name, b->host[i]);
        }
    }
    if (a->remembered != b->remembered || a->traps != b->traps) {
        FUZZ_FAIL("the devices saw different accesses");
    }
}

void fuzz_one(const uint8_t *data, size_t size)
{
    struct machine *m;
    bool smp = size > 0 && (data[0] & 0x81) == 0x81;
    uint64_t before[KINDS] = { 0 };
    unsigned i;

    make_guest(&guest, data, size);
    m = machines[guest.xlen == 32];
    if (smp) {
        load(&m[KIND_SMP], &guest);
        run(&m[KIND_SMP]);
        audit(&m[KIND_SMP]);
        n_smp++;
        return;
    }
    for (i = KIND_INTERP; i <= KIND_TIER2; i++) {
        load(&m[i], &guest);
        before[i] = ((const struct tcg_vm *)m[i].vm->engine_data)->stats.invalidations;
        if (!run(&m[i])) {
            audit(&m[i]);
            n_cut++;
            return;
        }
        audit(&m[i]);
    }
    for (i = KIND_INTERP + 1; i <= KIND_TIER2; i++) {
        if (changed_code(&m[i], before[i]) && !alike(&m[i], &m[KIND_INTERP])) {
            n_own++;
            return;
        }
        compare(&m[i], &m[KIND_INTERP], i == KIND_JIT ? "JIT" : "second tier");
    }
    n_alike++;
}
