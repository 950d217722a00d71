/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Loading of ELF files (System V gABI, chapters 4 and 5): little-endian, 32 and 64 bits, by
 * physical addresses. Owns nothing; main thread.
 */
#include "engine/core/loader_priv.h"

#include "engine/base/mem.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#define MAX_SEGMENTS 128
/* A position-independent file linked at (about) zero is moved to where the board wants it. */
#define PIE_LIMIT 0x10000

/* Header and segments in one width. */
struct elf {
    unsigned type, machine;
    uint64_t entry, phoff;
    unsigned phentsize, phnum;
    Elf64_Phdr ph[MAX_SEGMENTS];
};

static const struct {
    unsigned machine;
    const char *name;
} machines[] = {
    { EM_RISCV, "RISC-V" },        { EM_X86_64, "x86-64" },
    { EM_386, "32-bit x86" },      { EM_AARCH64, "64-bit ARM" },
    { EM_ARM, "32-bit ARM" },      { EM_PPC64, "64-bit PowerPC" },
    { EM_PPC, "PowerPC" },         { EM_MIPS, "MIPS" },
    { EM_S390, "S/390" },          { EM_SPARCV9, "64-bit SPARC" },
    { EM_LOONGARCH, "LoongArch" }, { EM_68K, "68000" },
};

const char *elf_machine_name(unsigned machine)
{
    for (size_t i = 0; i < ARRAY_LEN(machines); i++) {
        if (machines[i].machine == machine) {
            return machines[i].name;
        }
    }
    return "an architecture unknown here";
}

static int check_ident(const struct source *src, const unsigned char *ident,
                       const struct load_target *t, struct err *e)
{
    if (ident[EI_DATA] != ELFDATA2LSB) {
        return err_set(e, -ENOEXEC,
                       "'%s' is a big-endian ELF file; this VM runs little-endian %s code",
                       src->path, elf_machine_name(t->elf_machine));
    }
    unsigned bits = ident[EI_CLASS] == ELFCLASS64 ? 64 : ident[EI_CLASS] == ELFCLASS32 ? 32 : 0;
    if (!bits || ident[EI_VERSION] != EV_CURRENT) {
        return err_set(e, -ENOEXEC, "'%s' has a damaged ELF header", src->path);
    }
    return (int)bits;
}

static int read_header(const struct source *src, unsigned bits, struct elf *h, struct err *e)
{
    union {
        Elf64_Ehdr e64;
        Elf32_Ehdr e32;
    } u;
    int ret = source_read(src, 0, &u, bits == 64 ? sizeof(u.e64) : sizeof(u.e32), e);
    if (ret < 0) {
        return ret;
    }
#define TAKE(x)                                                                                \
    h->type = (x).e_type, h->machine = (x).e_machine, h->entry = (x).e_entry,                  \
    h->phoff = (x).e_phoff, h->phentsize = (x).e_phentsize, h->phnum = (x).e_phnum
    if (bits == 64) {
        TAKE(u.e64);
    } else {
        TAKE(u.e32);
    }
#undef TAKE
    return 0;
}

static int check_header(const struct source *src, const struct elf *h, unsigned bits,
                        const struct load_target *t, struct err *e)
{
    if (h->machine != t->elf_machine || bits != t->xlen) {
        return err_set(e, -ENOEXEC,
                       "'%s' is an ELF file for %s (%u bits); this VM needs %s (%u bits)",
                       src->path, elf_machine_name(h->machine), bits,
                       elf_machine_name(t->elf_machine), t->xlen);
    }
    if (h->type != ET_EXEC && h->type != ET_DYN) {
        return err_set(e, -ENOEXEC, "'%s' is an ELF file that was not linked to a program",
                       src->path);
    }
    size_t size = bits == 64 ? sizeof(Elf64_Phdr) : sizeof(Elf32_Phdr);
    if (h->phnum == 0 || h->phnum > MAX_SEGMENTS || h->phentsize != size) {
        return err_set(e, -ENOEXEC,
                       "'%s' has an ELF segment table of %u entries, which cannot be loaded",
                       src->path, h->phnum);
    }
    return 0;
}

static int read_segments(const struct source *src, unsigned bits, struct elf *h, struct err *e)
{
    for (unsigned i = 0; i < h->phnum; i++) {
        Elf32_Phdr p;
        if (h->phoff > src->size) {
            return err_set(e, -ENODATA, "'%s' is truncated: its ELF segment table is missing",
                           src->path);
        }
        uint64_t at = h->phoff + (uint64_t)i * h->phentsize;
        int ret = bits == 64 ? source_read(src, at, &h->ph[i], sizeof(h->ph[i]), e)
                             : source_read(src, at, &p, sizeof(p), e);
        if (ret < 0) {
            return ret;
        }
        if (bits == 32) {
            h->ph[i] = (Elf64_Phdr){ .p_type = p.p_type,
                                     .p_offset = p.p_offset,
                                     .p_vaddr = p.p_vaddr,
                                     .p_paddr = p.p_paddr,
                                     .p_filesz = p.p_filesz,
                                     .p_memsz = p.p_memsz };
        }
    }
    return 0;
}

static bool loads(const Elf64_Phdr *p)
{
    return p->p_type == PT_LOAD && p->p_memsz != 0;
}

/* Every check, before the first byte is written; *out gets extent and entry. */
static int check_segments(struct mem_space *s, const struct source *src, const struct elf *h,
                          uint64_t bias, struct loader_image *out, struct err *e)
{
    *out = (struct loader_image){ .entry = h->entry + bias, .low = UINT64_MAX, .is_elf = true };
    for (unsigned i = 0; i < h->phnum; i++) {
        const Elf64_Phdr *p = &h->ph[i];
        if (!loads(p)) {
            continue;
        }
        if (p->p_offset > src->size || p->p_filesz > src->size - p->p_offset) {
            return err_set(e, -ENODATA,
                           "'%s' is truncated: segment %u ends at byte %" PRIu64
                           ", the file at %" PRIu64,
                           src->path, i, p->p_offset + p->p_filesz, src->size);
        }
        uint64_t to = p->p_paddr + bias;
        if (p->p_filesz > p->p_memsz || to > UINT64_MAX - p->p_memsz) {
            return err_set(e, -ENOEXEC, "'%s' has a damaged ELF segment %u", src->path, i);
        }
        if (!mem_dma_reaches(s, to, p->p_memsz, true)) {
            return err_set(
                e, -EFAULT,
                "'%s' wants 0x%" PRIx64 " to 0x%" PRIx64
                ", which is not all guest RAM: link it for this board or give more memory",
                src->path, to, to + p->p_memsz);
        }
        if (h->entry >= p->p_vaddr && h->entry - p->p_vaddr < p->p_memsz) {
            out->entry = h->entry - p->p_vaddr + to;
        }
        out->low = to < out->low ? to : out->low;
        out->high = to + p->p_memsz > out->high ? to + p->p_memsz : out->high;
    }
    if (out->low == UINT64_MAX) {
        return err_set(e, -ENOEXEC, "'%s' is an ELF file with nothing to load", src->path);
    }
    return 0;
}

/* Clears guest RAM that check_segments() has seen. */
static int clear(struct mem_space *s, uint64_t at, uint64_t n)
{
    static const uint8_t zeros[4096];
    while (n) {
        size_t step = n < sizeof(zeros) ? n : sizeof(zeros);
        int ret = mem_dma_write(s, at, zeros, step);
        if (ret < 0) {
            return ret;
        }
        at += step;
        n -= step;
    }
    return 0;
}

static uint64_t find_bias(const struct elf *h, uint64_t at)
{
    uint64_t low = UINT64_MAX;
    for (unsigned i = 0; i < h->phnum; i++) {
        if (loads(&h->ph[i]) && h->ph[i].p_paddr < low) {
            low = h->ph[i].p_paddr;
        }
    }
    return h->type == ET_DYN && low < PIE_LIMIT ? at : 0;
}

int load_elf(struct mem_space *s, const struct source *src, const struct load_target *t,
             struct loader_image *out, struct err *e)
{
    unsigned char ident[EI_NIDENT];
    int ret = source_read(src, 0, ident, sizeof(ident), e);
    if (ret < 0) {
        return ret;
    }
    int bits = check_ident(src, ident, t, e);
    if (bits < 0) {
        return bits;
    }
    AUTO_FREE struct elf *h = xnew(struct elf);
    ret = read_header(src, (unsigned)bits, h, e);
    if (ret == 0) {
        ret = check_header(src, h, (unsigned)bits, t, e);
    }
    if (ret == 0) {
        ret = read_segments(src, (unsigned)bits, h, e);
    }
    if (ret < 0) {
        return ret;
    }
    struct loader_image image;
    uint64_t bias = find_bias(h, t->at);
    ret = check_segments(s, src, h, bias, &image, e);
    for (unsigned i = 0; ret == 0 && i < h->phnum; i++) {
        const Elf64_Phdr *p = &h->ph[i];
        if (loads(p)) {
            ret = source_copy(src, p->p_offset, s, p->p_paddr + bias, p->p_filesz, e);
            if (ret == 0 &&
                clear(s, p->p_paddr + bias + p->p_filesz, p->p_memsz - p->p_filesz) < 0) {
                ret = err_set(e, -EFAULT, "'%s': guest RAM went away", src->path);
            }
        }
    }
    if (ret == 0) {
        *out = image;
    }
    return ret;
}

/* ---- notes ---- */

#define NOTES_MAX 65536

/* Notes of one segment (gABI, "Note Section"): owner and description are padded to four bytes. 1: found. */
static int find_note(const uint8_t *p, size_t n, const char *owner, uint32_t type,
                     uint64_t *value)
{
    size_t own = strlen(owner) + 1;
    while (n >= sizeof(Elf64_Nhdr)) {
        Elf64_Nhdr h;
        memcpy(&h, p, sizeof(h));
        uint64_t name = ((uint64_t)h.n_namesz + 3) & ~3ull,
                 desc = ((uint64_t)h.n_descsz + 3) & ~3ull;
        p += sizeof(h);
        n -= sizeof(h);
        if (name > n || desc > n - name) {
            return 0;
        }
        if (h.n_type == type && h.n_namesz == own && memcmp(p, owner, own) == 0 &&
            (h.n_descsz == 4 || h.n_descsz == 8)) {
            *value = 0;
            memcpy(value, p + name, h.n_descsz); /* little-endian, as this host */
            *value = h.n_descsz == 4 ? (uint32_t)*value : *value;
            return 1;
        }
        p += name + desc;
        n -= name + desc;
    }
    return 0;
}

int loader_elf_note(int fd, const char *path, const char *owner, uint32_t type, uint64_t *value,
                    struct err *e)
{
    unsigned char ident[EI_NIDENT];
    struct source src;
    int ret = source_open(&src, fd, path, e);
    if (ret == 0) {
        ret = source_read(&src, 0, ident, sizeof(ident), e);
    }
    if (ret < 0) {
        return ret;
    }
    AUTO_FREE struct elf *h = xnew(struct elf);
    unsigned bits = ident[EI_CLASS] == ELFCLASS64 ? 64 : 32;
    ret = read_header(&src, bits, h, e);
    if (ret == 0 && (h->phnum == 0 || h->phnum > MAX_SEGMENTS)) {
        return err_set(e, -ENOEXEC,
                       "'%s' has an ELF segment table of %u entries, which cannot be loaded",
                       path, h->phnum);
    }
    if (ret == 0) {
        ret = read_segments(&src, bits, h, e);
    }
    for (unsigned i = 0; ret == 0 && i < h->phnum; i++) {
        const Elf64_Phdr *p = &h->ph[i];
        if (p->p_type != PT_NOTE || p->p_filesz > NOTES_MAX) {
            continue;
        }
        AUTO_FREE uint8_t *notes = xalloc(p->p_filesz + 1);
        ret = source_read(&src, p->p_offset, notes, p->p_filesz, e);
        if (ret == 0 && find_note(notes, p->p_filesz, owner, type, value)) {
            return 0;
        }
    }
    return ret < 0 ? ret : err_set(e, -ENOENT, "'%s' has no note %u of %s", path, type, owner);
}
