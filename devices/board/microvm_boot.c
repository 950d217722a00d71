/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Direct boot of the microvm board: a Linux bzImage (Linux Documentation/arch/x86/boot.rst, 32-bit entry) or an ELF program with a PVH entry (Xen
 * docs/misc/pvh.pandoc, xen/include/public/arch-x86/hvm/start_info.h), and the tables that stand in for a firmware: the MultiProcessor
 * Specification 1.4's, and the memory map. Main thread.
 */
#include "devices/board/microvm.h"

#include "devices/irqchip/ioapic.h"
#include "engine/arch/x86/cpu.h"
#include "engine/base/buf.h"
#include "engine/base/fd.h"
#include "engine/core/vm.h"

#include <elf.h>
#include <endian.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>

#define XEN_NOTE_PHYS32_ENTRY 18
#define START_MAGIC 0x336ec578u
#define E820_RAM 1u
#define E820_RESERVED 2u

static void le_put(uint8_t *p, uint64_t v, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        p[i] = (uint8_t)(v >> 8 * i);
    }
}

static void le_add(struct buf *b, uint64_t v, unsigned n)
{
    uint8_t bytes[8];

    le_put(bytes, v, n);
    buf_add(b, bytes, n);
}

static int put(struct board *b, uint64_t at, const void *p, size_t n, struct err *e)
{
    int rc = mem_dma_write(b->p.vm->mem, at, p, n);

    return rc == 0 ? 0
                   : err_set(e, rc, "memory: no room for the tables of a PC; give the VM more");
}

/* --- memory map
 * ------------------------------------------------------------------------------ */

struct area {
    uint64_t at, size;
    uint32_t type;
};
#define AREAS 4

static uint64_t low_end(const struct board *b)
{
    return b->p.cfg.memory < MICROVM_GAP ? b->p.cfg.memory : MICROVM_GAP;
}

static unsigned memory_map(const struct board *b, struct area *a)
{
    uint64_t low = low_end(b);
    unsigned n = 0;

    a[n++] = (struct area){ 0, MICROVM_LOW_END, E820_RAM };
    a[n++] = (struct area){ MICROVM_LOW_END, MICROVM_KERNEL - MICROVM_LOW_END, E820_RESERVED };
    a[n++] = (struct area){ MICROVM_KERNEL, low - MICROVM_KERNEL, E820_RAM };
    if (b->p.cfg.memory > low) {
        a[n++] = (struct area){ MICROVM_HIGH, b->p.cfg.memory - low, E820_RAM };
    }
    return n;
}

/* --- MultiProcessor table: processors, I/O APIC, which wire is on which pin
 * ------------------------------------------------------------------------- */

enum { MP_PROCESSOR, MP_BUS, MP_IOAPIC, MP_INTERRUPT, MP_LOCAL };
enum { MP_EDGE = 0x05, MP_LEVEL = 0x0d }; /* active high */

static void mp_interrupt(struct buf *t, unsigned kind, unsigned flags, unsigned irq,
                         unsigned to, unsigned pin)
{
    const uint8_t entry[8] = { (uint8_t)kind, 0,           (uint8_t)flags, 0, 0,
                               (uint8_t)irq,  (uint8_t)to, (uint8_t)pin };

    buf_add(t, entry, sizeof(entry));
}

static unsigned mp_entries(const struct board *b, struct buf *t)
{
    const struct x86_cpu *x = b->p.vm->vcpus[0]->cpu;
    struct x86_features *f = (struct x86_features *)(uintptr_t)&x->features;
    const struct x86_cpuid *one = x86_leaf(f, 1, 0);
    unsigned n = 0, ioapic = b->p.cfg.cpus & 255;

    for (unsigned i = 0; i < b->p.cfg.cpus; i++, n++) {
        const uint8_t head[4] = { MP_PROCESSOR, (uint8_t)i, 0x14,
                                  (uint8_t)(1 | (i == 0) << 1) };

        buf_add(t, head, sizeof(head));
        le_add(t, one ? one->reg[X86_EAX] : 0, 4);
        le_add(t, one ? one->reg[X86_EDX] : 0, 4);
        le_add(t, 0, 8);
    }
    buf_add(t, "\x01\0ISA   ", 8);
    const uint8_t chip[4] = { MP_IOAPIC, (uint8_t)ioapic, 0x20, 1 };
    buf_add(t, chip, sizeof(chip));
    le_add(t, MICROVM_IOAPIC, 4);
    n += 2;
    for (unsigned pin = 0; pin < IOAPIC_PINS; pin++) {
        if (pin != 0 && pin != 2) { /* a timer and a cascade, which are not there */
            mp_interrupt(t, MP_INTERRUPT, pin < MICROVM_SLOT_PIN ? MP_EDGE : MP_LEVEL, pin,
                         ioapic, pin);
            n++;
        }
    }
    mp_interrupt(t, MP_LOCAL, 0, 0, 0xff, 1); /* kind of interrupt: 0 */
    t->data[t->len - 7] = 1;                  /* no, an NMI */
    return n + 1;
}

static void set_sum(uint8_t *p, size_t n, size_t at)
{
    uint8_t sum = 0;

    p[at] = 0;
    for (size_t i = 0; i < n; i++) {
        sum = (uint8_t)(sum + p[i]);
    }
    p[at] = (uint8_t)-sum;
}

static int put_mp_table(struct board *b, struct err *e)
{
    AUTO_BUF t = BUF_INIT;
    uint8_t *p;
    unsigned n;

    buf_add(&t, "_MP_", 4);
    le_add(&t, MICROVM_MP_TABLE + 16, 4);
    le_add(&t, 0x0401, 8); /* one paragraph, version 1.4, a table follows */
    buf_add(&t, "PCMP\0\0\x04\0VMD     MICROVM     ", 28);
    le_add(&t, 0, 8);
    le_add(&t, X86_APIC_BASE, 4);
    le_add(&t, 0, 4);
    n = mp_entries(b, &t);
    p = (uint8_t *)t.data;
    le_put(p + 16 + 4, t.len - 16, 2);
    le_put(p + 16 + 34, n, 2);
    set_sum(p, 16, 10);
    set_sum(p + 16, t.len - 16, 7);
    return put(b, MICROVM_MP_TABLE, p, t.len, e);
}

/* --- ACPI, unless the command line speaks against it
 * ----------------------------------------------------------------------------------- */

static bool wants_acpi(const char *append)
{
    static const char word[] = "acpi=off";
    const size_t n = sizeof(word) - 1;

    for (const char *p = append; p && (p = strstr(p, word)) != NULL; p += n) {
        if ((p == append || p[-1] == ' ') && (p[n] == ' ' || p[n] == 0)) {
            return false;
        }
    }
    return true;
}

static int put_acpi(struct board *b, struct err *e)
{
    AUTO_BUF t = BUF_INIT;

    microvm_acpi(b, &t);
    return put(b, MICROVM_ACPI, t.data, t.len, e);
}

/* --- command line: what was asked for, and, without ACPI, where the devices are
 * --------------------------------------------------------------------------- */

static int put_cmdline(struct board *b, struct err *e)
{
    AUTO_BUF t = BUF_INIT;
    uint64_t max = MICROVM_CMDLINE_MAX;

    buf_printf(&t, "%s", b->p.cfg.append ? b->p.cfg.append : "");
    for (unsigned i = 0; i <= b->n_slots && !b->acpi; i++) {
        unsigned slot = i < b->n_slots ? i : MICROVM_SLOTS - 1; /* the button's */

        buf_printf(&t, "%svirtio_mmio.device=4K@0x%llx:%u", t.len ? " " : "",
                   MICROVM_VIRTIO + (uint64_t)slot * MICROVM_VIRTIO_STEP,
                   MICROVM_SLOT_PIN + slot % 8);
    }
    if (b->is_bzimage && b->linux_image.cmdline_max < max) {
        max = b->linux_image.cmdline_max + 1ull;
    }
    if (t.len >= max) {
        return err_set(e, -E2BIG,
                       "append: the command line has %zu characters with those for the "
                       "devices, the kernel takes %" PRIu64,
                       t.len, max - 1);
    }
    return put(b, MICROVM_CMDLINE, t.data, t.len + 1, e);
}

/* --- kernels
 * ---------------------------------------------------------------------------------- */

static int load_pvh(struct board *b, struct err *e)
{
    const struct board_file *k = &b->p.cfg.kernel;
    uint64_t entry = 0;
    uint8_t ident[EI_NIDENT];
    bool is64 = fd_pread(k->fd, ident, sizeof(ident), 0) != sizeof(ident) ||
                ident[EI_CLASS] != ELFCLASS32;
    int rc = loader_elf_note(k->fd, k->path, "Xen", XEN_NOTE_PHYS32_ENTRY, &entry, e);

    if (rc == -ENOENT) {
        return err_set(
            e, rc, "kernel %s has no PVH entry: give the bzImage, or build it with CONFIG_PVH",
            k->path);
    }
    if (rc == 0) {
        rc = loader_load(b->p.vm->mem, k->fd, k->path, MICROVM_KERNEL,
                         is64 ? EM_X86_64 : EM_386, is64 ? 64 : 32, low_end(b) - MICROVM_KERNEL,
                         &b->kernel, e);
    }
    if (rc == 0 &&
        (b->kernel.low < MICROVM_KERNEL || entry < b->kernel.low || entry >= b->kernel.high)) {
        return err_set(e, -ENOEXEC,
                       "kernel %s lies from 0x%" PRIx64 " on, with its PVH entry at 0x%" PRIx64
                       "; link it to 0x%x or above",
                       k->path, b->kernel.low, entry, MICROVM_KERNEL);
    }
    b->kernel.entry = entry;
    return rc;
}

static int load_kernel(struct board *b, struct err *e)
{
    const struct board_file *k = &b->p.cfg.kernel;
    uint8_t magic[4];
    int rc;

    if (low_end(b) <= MICROVM_KERNEL) {
        return err_set(e, -EINVAL, "memory: a PC's kernel begins at 1 MiB; give the VM more");
    }
    b->is_bzimage = loader_is_bzimage(k->fd);
    if (b->is_bzimage) {
        rc = loader_bzimage(b->p.vm->mem, k->fd, k->path, MICROVM_KERNEL,
                            low_end(b) - MICROVM_KERNEL, &b->linux_image, e);
        b->kernel = b->linux_image.image;
        return rc;
    }
    if (fd_pread(k->fd, magic, sizeof(magic), 0) == sizeof(magic) &&
        memcmp(magic, ELFMAG, SELFMAG) == 0) {
        return load_pvh(b, e);
    }
    return err_set(
        e, -ENOEXEC,
        "kernel %s is neither a bzImage nor an ELF program; machine microvm starts these two",
        k->path);
}

/* At the end of low memory, as firmware does it. */
static int load_initrd(struct board *b, struct err *e)
{
    const struct board_file *f = &b->p.cfg.initrd;
    uint64_t end = low_end(b), from, size;
    struct stat st;

    if (b->is_bzimage && b->linux_image.initrd_max + 1ull < end) {
        end = b->linux_image.initrd_max + 1ull;
    }
    from = (b->kernel.high + MEM_PAGE_SIZE - 1) & ~(uint64_t)(MEM_PAGE_SIZE - 1);
    size = fstat(f->fd, &st) == 0 ? (uint64_t)st.st_size : 0;
    if (from >= end || size > end - from) {
        return err_set(e, -EFBIG,
                       "initrd %s: no memory is left behind the kernel; give the VM more",
                       f->path);
    }
    b->initrd_at = (end - size) & ~(uint64_t)(MEM_PAGE_SIZE - 1);
    b->initrd_at = b->initrd_at < from ? from : b->initrd_at;
    return loader_load_raw(b->p.vm->mem, f->fd, f->path, b->initrd_at, end - b->initrd_at,
                           &b->initrd_size, e);
}

/* --- what the kernel is told
 * ------------------------------------------------------------------------------ */

/* The "zero page". */
static int put_params(struct board *b, struct err *e)
{
    uint8_t page[4096] = { 0 };
    struct area a[AREAS];
    unsigned n = memory_map(b, a);

    memcpy(page + 0x1f1, b->linux_image.setup, b->linux_image.setup_len);
    le_put(page + 0x70, b->acpi ? MICROVM_ACPI : 0, 8);
    le_put(page + 0x1fa, 0xffff, 2); /* video mode: as it is */
    page[0x210] = 0xff;              /* a loader without a number */
    le_put(page + 0x218, b->initrd_at, 4);
    le_put(page + 0x21c, b->initrd_size, 4);
    le_put(page + 0x228, MICROVM_CMDLINE, 4);
    page[0x1e8] = (uint8_t)n;
    for (unsigned i = 0; i < n; i++) {
        le_put(page + 0x2d0 + i * 20, a[i].at, 8);
        le_put(page + 0x2d0 + i * 20 + 8, a[i].size, 8);
        le_put(page + 0x2d0 + i * 20 + 16, a[i].type, 4);
    }
    return put(b, MICROVM_PARAMS, page, sizeof(page), e);
}

static int put_start_info(struct board *b, struct err *e)
{
    uint8_t page[512] = { 0 };
    const unsigned module_at = 64, map_at = 128;
    bool initrd = b->initrd_size != 0;
    struct area a[AREAS];
    unsigned n = memory_map(b, a);

    le_put(page, START_MAGIC, 4);
    le_put(page + 4, 1, 4); /* version */
    le_put(page + 12, initrd, 4);
    le_put(page + 16, initrd ? MICROVM_START_INFO + module_at : 0, 8);
    le_put(page + 24, MICROVM_CMDLINE, 8);
    le_put(page + 32, b->acpi ? MICROVM_ACPI : 0, 8);
    le_put(page + 40, MICROVM_START_INFO + map_at, 8);
    le_put(page + 48, n, 4);
    le_put(page + module_at, b->initrd_at, 8);
    le_put(page + module_at + 8, b->initrd_size, 8);
    for (unsigned i = 0; i < n; i++) {
        le_put(page + map_at + i * 24, a[i].at, 8);
        le_put(page + map_at + i * 24 + 8, a[i].size, 8);
        le_put(page + map_at + i * 24 + 16, a[i].type, 4);
    }
    return put(b, MICROVM_START_INFO, page, sizeof(page), e);
}

/* Flat segments at the selectors that the first processor has. */
static int put_gdt(struct board *b, struct err *e)
{
    const uint64_t gdt[4] = { 0, 0, htole64(0x00cf9b000000ffffull),
                              htole64(0x00cf93000000ffffull) };

    return put(b, MICROVM_GDT, gdt, sizeof(gdt), e);
}

int microvm_load(struct board *b, struct err *e)
{
    int rc = load_kernel(b, e);

    b->acpi = wants_acpi(b->p.cfg.append);
    rc = rc == 0 && b->p.cfg.initrd.path ? load_initrd(b, e) : rc;
    rc = rc == 0 ? put_gdt(b, e) : rc;
    rc = rc == 0 ? put_mp_table(b, e) : rc;
    rc = rc == 0 && b->acpi ? put_acpi(b, e) : rc;
    rc = rc == 0 ? put_cmdline(b, e) : rc;
    rc = rc == 0 ? put_params(b, e) : rc;
    return rc == 0 ? put_start_info(b, e) : rc;
}

void microvm_start(struct board *b)
{
    struct vcpu *c = b->p.vm->vcpus[0];
    struct x86_cpu *x = c->cpu;

    b->p.vm->arch->cpu_boot(c, b->kernel.entry, b->is_bzimage ? 0 : MICROVM_START_INFO,
                            b->is_bzimage ? MICROVM_PARAMS : 0, 0);
    x->gdt_base = MICROVM_GDT;
    x->gdt_limit = 31;
}
