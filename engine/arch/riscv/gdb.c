/* SPDX-License-Identifier: Apache-2.0 */
/*
 * RISC-V registers for GDB: numbers and feature names as GDB knows them (GDB manual, "RISC-V
 * Features"; CSR n has register number 65 + n). Main thread, vCPU at the barrier.
 */
#include "engine/arch/riscv/gdb.h"
#include "engine/arch/riscv/cpu.h"
#include "engine/arch/riscv/features.h"
#include "engine/base/buf.h"
#include "engine/core/vcpu.h"

#include <inttypes.h>

#define REG_PC 32
#define REG_F 33
#define REG_CSR 65
#define REG_PRIV 4161
#define CSR_FFLAGS 1
#define CSR_FRM 2
#define CSR_FCSR 3

/* CSRs that are plain fields; read-only here, since writing them has effects that only the
 * guest's own instructions bring about. */
static const struct {
    const char *name;
    unsigned csr, offset;
} csrs[] = {
#define CSR(name, csr)                                                                         \
    {                                                                                          \
#name, csr, offsetof(struct riscv_cpu, name)                                           \
    }
    CSR(stvec, 0x105),   CSR(scounteren, 0x106), CSR(senvcfg, 0x10a), CSR(sscratch, 0x140),
    CSR(sepc, 0x141),    CSR(scause, 0x142),     CSR(stval, 0x143),   CSR(stimecmp, 0x14d),
    CSR(satp, 0x180),    CSR(mstatus, 0x300),    CSR(misa, 0x301),    CSR(medeleg, 0x302),
    CSR(mideleg, 0x303), CSR(mie, 0x304),        CSR(mtvec, 0x305),   CSR(mcounteren, 0x306),
    CSR(menvcfg, 0x30a), CSR(mscratch, 0x340),   CSR(mepc, 0x341),    CSR(mcause, 0x342),
    CSR(mtval, 0x343),
#undef CSR
};
#define CSR_MIP 0x344
#define CSR_MHARTID 0xf14

static const char *const abi[32] = { "zero", "ra", "sp",  "gp",  "tp", "t0", "t1", "t2",
                                     "fp",   "s1", "a0",  "a1",  "a2", "a3", "a4", "a5",
                                     "a6",   "a7", "s2",  "s3",  "s4", "s5", "s6", "s7",
                                     "s8",   "s9", "s10", "s11", "t3", "t4", "t5", "t6" };
static const char *const fabi[32] = {
    "ft0", "ft1", "ft2", "ft3", "ft4",  "ft5",  "ft6", "ft7", "fs0",  "fs1", "fa0",
    "fa1", "fa2", "fa3", "fa4", "fa5",  "fa6",  "fa7", "fs2", "fs3",  "fs4", "fs5",
    "fs6", "fs7", "fs8", "fs9", "fs10", "fs11", "ft8", "ft9", "ft10", "ft11"
};

static int find_csr(unsigned n)
{
    for (unsigned i = 0; i < ARRAY_LEN(csrs); i++) {
        if (n == REG_CSR + csrs[i].csr) {
            return (int)i;
        }
    }
    return -1;
}

static unsigned reg_size(struct vcpu *v, unsigned n)
{
    const struct riscv_cpu *c = v->cpu;
    unsigned x = c->xlen / 8;
    bool f = RISCV_HAS(c->features, RISCV_EXT_F), d = RISCV_HAS(c->features, RISCV_EXT_D);
    if (n <= REG_PC) {
        return x;
    }
    if (n < REG_CSR) {
        return d ? 8 : f ? 4 : 0;
    }
    if (n >= REG_CSR + CSR_FFLAGS && n <= REG_CSR + CSR_FCSR) {
        return f ? 4 : 0;
    }
    bool known = n == REG_PRIV || n == REG_CSR + CSR_MIP || n == REG_CSR + CSR_MHARTID ||
                 find_csr(n) >= 0;
    return known ? x : 0;
}

static uint64_t reg_get(struct vcpu *v, unsigned n)
{
    const struct riscv_cpu *c = v->cpu;
    int csr = find_csr(n);
    if (n < REG_F) {
        return n == REG_PC ? c->pc : c->x[n];
    }
    if (n < REG_CSR) {
        return c->f[n - REG_F];
    }
    if (csr >= 0) {
        return *(const uint64_t *)((const char *)c + csrs[csr].offset);
    }
    switch (n) {
    case REG_CSR + CSR_FFLAGS:
        return c->fflags;
    case REG_CSR + CSR_FRM:
        return c->frm;
    case REG_CSR + CSR_FCSR:
        return c->fflags | c->frm << 5;
    case REG_CSR + CSR_MIP:
        return riscv_mip(c);
    case REG_CSR + CSR_MHARTID:
        return c->hartid;
    default:
        return c->priv;
    }
}

static bool reg_put(struct vcpu *v, unsigned n, uint64_t value)
{
    struct riscv_cpu *c = v->cpu;
    uint64_t wide = c->xlen == 32 ? (uint64_t)(int64_t)(int32_t)value : value;
    if (n == 0) {
        return true; /* GDB writes all of them; x0 stays zero */
    }
    if (n < REG_PC) {
        c->x[n] = wide;
    } else if (n == REG_PC) {
        c->pc = (c->xlen == 32 ? (uint32_t)value : value) & ~1ull;
    } else if (n < REG_CSR) {
        bool d = RISCV_HAS(c->features, RISCV_EXT_D);
        c->f[n - REG_F] = d ? value : value | 0xffffffff00000000;
    } else if (n == REG_CSR + CSR_FFLAGS) {
        c->fflags = value & 31;
    } else if (n == REG_CSR + CSR_FRM) {
        c->frm = value & 7;
    } else if (n == REG_CSR + CSR_FCSR) {
        c->fflags = value & 31;
        c->frm = value >> 5 & 7;
    } else {
        return false;
    }
    return true;
}

static void xml_reg(struct buf *b, const char *name, unsigned bits, unsigned n,
                    const char *type)
{
    buf_printf(b, "<reg name=\"%s\" bitsize=\"%u\" regnum=\"%u\" type=\"%s\"/>\n", name, bits,
               n, type);
}

static void xml(struct vcpu *v, struct buf *b)
{
    const struct riscv_cpu *c = v->cpu;
    unsigned x = c->xlen, f = reg_size(v, REG_F) * 8;
    buf_printf(b,
               "<?xml version=\"1.0\"?>\n<!DOCTYPE target SYSTEM \"gdb-target.dtd\">\n"
               "<target>\n<architecture>riscv:rv%u</architecture>\n"
               "<feature name=\"org.gnu.gdb.riscv.cpu\">\n",
               x);
    for (unsigned i = 0; i < 32; i++) {
        bool pointer = i >= 2 && i <= 4;
        xml_reg(b, abi[i], x, i, i == 1 ? "code_ptr" : pointer ? "data_ptr" : "int");
    }
    xml_reg(b, "pc", x, REG_PC, "code_ptr");
    buf_add_str(b, "</feature>\n");
    if (f) {
        buf_add_str(b, "<feature name=\"org.gnu.gdb.riscv.fpu\">\n");
        for (unsigned i = 0; i < 32; i++) {
            xml_reg(b, fabi[i], f, REG_F + i, f == 64 ? "ieee_double" : "ieee_single");
        }
        xml_reg(b, "fflags", 32, REG_CSR + CSR_FFLAGS, "int");
        xml_reg(b, "frm", 32, REG_CSR + CSR_FRM, "int");
        xml_reg(b, "fcsr", 32, REG_CSR + CSR_FCSR, "int");
        buf_add_str(b, "</feature>\n");
    }
    buf_add_str(b, "<feature name=\"org.gnu.gdb.riscv.csr\">\n");
    for (unsigned i = 0; i < ARRAY_LEN(csrs); i++) {
        xml_reg(b, csrs[i].name, x, REG_CSR + csrs[i].csr, "int");
    }
    xml_reg(b, "mip", x, REG_CSR + CSR_MIP, "int");
    xml_reg(b, "mhartid", x, REG_CSR + CSR_MHARTID, "int");
    buf_add_str(b, "</feature>\n<feature name=\"org.gnu.gdb.riscv.virtual\">\n");
    xml_reg(b, "priv", x, REG_PRIV, "int");
    buf_add_str(b, "</feature>\n</target>\n");
}

const struct gdb_arch riscv_gdb = {
    .n_general = REG_PC + 1, .size = reg_size, .get = reg_get, .put = reg_put, .xml = xml
};
