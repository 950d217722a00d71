/* SPDX-License-Identifier: Apache-2.0 */
/* ELF cores of a guest: headers and notes. Owns struct core_image. Main thread. */
#include "engine/core/core_image.h"

#include "engine/base/mem.h"
#include "engine/core/state.h"
#include "engine/core/vm.h"

#include <elf.h>
#include <endian.h>
#include <errno.h>
#include <string.h>

#define ALIGN 4096u
#define NT_VMD_STATE 1 /* of the name "VMD": text, all of the vCPU's architectural state */

/* Every guest is little-endian so far; the host may be what it wants. */
#define LE16(x) htole16((uint16_t)(x))
#define LE32(x) htole32((uint32_t)(x))
#define LE64(x) htole64((uint64_t)(x))

static void pad(struct buf *b, size_t to)
{
    while (b->len % to) {
        buf_add_char(b, 0);
    }
}

void core_note(struct buf *out, const char *name, uint32_t type, const void *desc, size_t size)
{
    const uint32_t head[3] = { LE32(strlen(name) + 1), LE32(size), LE32(type) };

    buf_add(out, head, sizeof(head));
    buf_add(out, name, strlen(name) + 1);
    pad(out, 4);
    buf_add(out, desc, size);
    pad(out, 4);
}

static void add_notes(struct vm *vm, struct buf *notes)
{
    for (unsigned i = 0; i < vm->n_vcpus; i++) {
        struct vcpu *c = vm->vcpus[i];
        AUTO_BUF text = BUF_INIT;

        if (vm->engine->regs_get) {
            vm->engine->regs_get(c);
        }
        if (vm->arch->core_notes) {
            vm->arch->core_notes(c, notes);
        }
        st_print(vm->arch->state, c->cpu, &text);
        core_note(notes, "VMD", NT_VMD_STATE, text.data ? text.data : "", text.len);
    }
}

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static void add_parts(struct vm *vm, uint64_t begin, uint64_t length, struct core_image *out)
{
    const struct mem_flat *flat = mem_flat(vm->mem);
    uint64_t end = length > UINT64_MAX - begin ? UINT64_MAX : begin + length;

    for (unsigned i = 0; i < flat->n; i++) {
        const struct mem_range *r = &flat->r[i];
        uint64_t from = r->base > begin ? r->base : begin, to = least(r->base + r->size, end);

        if (r->kind == MEM_RAM && from < to) {
            out->part = xrealloc_n(out->part, out->n_parts + 1, sizeof(out->part[0]));
            out->part[out->n_parts++] = (struct core_part){ .range = *r,
                                                            .gpa = from,
                                                            .size = to - from };
            out->memory += to - from;
        }
    }
}

static void put_head64(const struct core_image *c, const struct vm *vm, uint64_t notes_at,
                       uint64_t notes_size, struct buf *b)
{
    Elf64_Ehdr h = { .e_type = LE16(ET_CORE),
                     .e_machine = LE16(vm->arch->elf_machine),
                     .e_version = LE32(EV_CURRENT),
                     .e_phoff = LE64(sizeof(h)),
                     .e_ehsize = LE16(sizeof(h)),
                     .e_phentsize = LE16(sizeof(Elf64_Phdr)),
                     .e_phnum = LE16(c->n_parts + 1) };
    Elf64_Phdr p = { .p_type = LE32(PT_NOTE),
                     .p_offset = LE64(notes_at),
                     .p_filesz = LE64(notes_size) };

    memcpy(h.e_ident, "\177ELF", 4);
    h.e_ident[EI_CLASS] = ELFCLASS64;
    h.e_ident[EI_DATA] = ELFDATA2LSB;
    h.e_ident[EI_VERSION] = EV_CURRENT;
    buf_add(b, &h, sizeof(h));
    buf_add(b, &p, sizeof(p));
    for (unsigned i = 0; i < c->n_parts; i++) {
        const struct core_part *s = &c->part[i];
        p = (Elf64_Phdr){ .p_type = LE32(PT_LOAD),
                          .p_offset = LE64(s->at),
                          .p_vaddr = LE64(s->gpa),
                          .p_paddr = LE64(s->gpa),
                          .p_filesz = LE64(s->size),
                          .p_memsz = LE64(s->size) };
        buf_add(b, &p, sizeof(p));
    }
}

static void put_head32(const struct core_image *c, const struct vm *vm, uint64_t notes_at,
                       uint64_t notes_size, struct buf *b)
{
    Elf32_Ehdr h = { .e_type = LE16(ET_CORE),
                     .e_machine = LE16(vm->arch->elf_machine),
                     .e_version = LE32(EV_CURRENT),
                     .e_phoff = LE32(sizeof(h)),
                     .e_ehsize = LE16(sizeof(h)),
                     .e_phentsize = LE16(sizeof(Elf32_Phdr)),
                     .e_phnum = LE16(c->n_parts + 1) };
    Elf32_Phdr p = { .p_type = LE32(PT_NOTE),
                     .p_offset = LE32(notes_at),
                     .p_filesz = LE32(notes_size) };

    memcpy(h.e_ident, "\177ELF", 4);
    h.e_ident[EI_CLASS] = ELFCLASS32;
    h.e_ident[EI_DATA] = ELFDATA2LSB;
    h.e_ident[EI_VERSION] = EV_CURRENT;
    buf_add(b, &h, sizeof(h));
    buf_add(b, &p, sizeof(p));
    for (unsigned i = 0; i < c->n_parts; i++) {
        const struct core_part *s = &c->part[i];
        p = (Elf32_Phdr){ .p_type = LE32(PT_LOAD),
                          .p_offset = LE32(s->at),
                          .p_vaddr = LE32(s->gpa),
                          .p_paddr = LE32(s->gpa),
                          .p_filesz = LE32(s->size),
                          .p_memsz = LE32(s->size) };
        buf_add(b, &p, sizeof(p));
    }
}

/* Places everything in the file; whether numbers of 32 bits can say it all. */
static bool lay_out(struct core_image *c, uint64_t notes_end)
{
    uint64_t at = (notes_end + ALIGN - 1) & ~(uint64_t)(ALIGN - 1);
    bool small = true;

    for (unsigned i = 0; i < c->n_parts; i++) {
        struct core_part *s = &c->part[i];
        s->at = at;
        at = (at + s->size + ALIGN - 1) & ~(uint64_t)(ALIGN - 1);
        c->size = s->at + s->size;
        small &= c->size <= UINT32_MAX && s->gpa + s->size <= UINT64_C(1) << 32;
    }
    return small;
}

int core_image_make(struct vm *vm, uint64_t begin, uint64_t length, struct core_image *out,
                    struct err *e)
{
    AUTO_BUF notes = BUF_INIT;
    struct core_image c = { .head = BUF_INIT };
    uint64_t room32, room64;

    add_parts(vm, begin, length, &c);
    if (c.n_parts == 0) {
        return err_set(e, -ENOENT, "the guest has no memory there");
    }
    add_notes(vm, &notes);
    room32 = sizeof(Elf32_Ehdr) + (c.n_parts + 1) * sizeof(Elf32_Phdr);
    room64 = sizeof(Elf64_Ehdr) + (c.n_parts + 1) * sizeof(Elf64_Phdr);
    if (!vm->arch->elf64 && lay_out(&c, room32 + notes.len)) {
        put_head32(&c, vm, room32, notes.len, &c.head);
    } else {
        lay_out(&c, room64 + notes.len);
        put_head64(&c, vm, room64, notes.len, &c.head);
    }
    buf_add(&c.head, notes.data ? notes.data : "", notes.len);
    *out = c;
    return 0;
}

void core_image_done(struct core_image *c)
{
    buf_done(&c->head);
    free(c->part);
    *c = (struct core_image){ .head = BUF_INIT };
}
