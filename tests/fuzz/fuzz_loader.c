/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzz target: firmware, kernel and initrd files. The first byte picks the word length and where the file goes; the rest
 * is the file. What the loader says it loaded must lie in memory.
 */
#include "engine/core/loader.h"
#include "engine/core/mem.h"
#include "tests/fuzz/fuzz.h"

#include <elf.h>
#include <sys/mman.h>
#include <unistd.h>

const char fuzz_name[] = "fuzz_loader";
#define RAM UINT64_C(0x80000000)
#define RAM_SIZE (UINT64_C(16) << 20)

static struct mem_region *root, *ram, *rom;
static struct mem_space *space;
static int fd;
static uint64_t n_loaded;

void fuzz_setup(void)
{
    struct err e = ERR_INIT;

    root = mem_new_container("root", 1ull << 56);
    if (mem_new_ram("ram", RAM_SIZE, &ram, &e) < 0 ||
        mem_new_rom("rom", 0x1000, &rom, &e) < 0 || mem_map(root, RAM, 0, ram, &e) < 0 ||
        mem_map(root, 0x1000, 0, rom, &e) < 0) {
        FUZZ_FAIL("%s", e.msg);
    }
    space = mem_space_new(root);
    mem_commit(space);
    fd = memfd_create("input", MFD_CLOEXEC);
}

void fuzz_finish(void)
{
    close(fd);
    mem_space_free(space);
    mem_unmap(ram);
    mem_unmap(rom);
    mem_free(ram);
    mem_free(rom);
    mem_free(root);
    printf("# %llu files were loaded\n", (unsigned long long)n_loaded);
}

/* bzImages, and notes of ELF programs. */
static void one_for_pcs(uint64_t to)
{
    struct loader_bzimage b;
    struct err e = ERR_INIT;
    uint64_t entry;

    if (loader_is_bzimage(fd) &&
        loader_bzimage(space, fd, "input", to, RAM + RAM_SIZE - to, &b, &e) == 0) {
        n_loaded++;
        if (b.image.low != to || b.image.high > RAM + RAM_SIZE || b.setup_len > sizeof(b.setup)) {
            FUZZ_FAIL("loaded at %#llx to %#llx", (unsigned long long)b.image.low,
                      (unsigned long long)b.image.high);
        }
    }
    if (loader_elf_note(fd, "input", "Xen", 18, &entry, &e) == 0) {
        n_loaded++;
    }
}

void fuzz_one(const uint8_t *data, size_t size)
{
    static const uint32_t at[] = { 0, 0x200000, 0xfff000, 0x123 };
    struct loader_image out;
    struct err e = ERR_INIT;
    uint64_t to, raw;

    if (size < 1) {
        return;
    }
    to = RAM + at[data[0] >> 1 & 3];
    if (ftruncate(fd, 0) < 0 || pwrite(fd, data + 1, size - 1, 0) != (ssize_t)(size - 1)) {
        FUZZ_FAIL("cannot write the file");
    }
    if (loader_load(space, fd, "input", to, EM_RISCV, data[0] & 1 ? 32 : 64,
                    RAM + RAM_SIZE - to, &out, &e) == 0) {
        n_loaded++;
        if (out.low > out.high || out.low < RAM || out.high > RAM + RAM_SIZE) {
            FUZZ_FAIL("loaded at %#llx to %#llx", (unsigned long long)out.low,
                      (unsigned long long)out.high);
        }
    }
    one_for_pcs(to);
    (void)loader_load_raw(space, fd, "input", to, data[0], &raw, &e);
}
