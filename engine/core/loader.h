/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Loads firmware, kernels and initrds into guest RAM: ELF32/64, raw, Linux Image (riscv
 * "RSC\005", arm64), gzip'd Image, x86 bzImage. Input is untrusted: every size and offset is bounded by
 * the file and by RAM; decompression is bounded by max. The flat view must have been
 * committed. Errors name the file and what to do. Main thread.
 */
#ifndef VMD_CORE_LOADER_H
#define VMD_CORE_LOADER_H

#include "engine/base/err.h"
#include "engine/core/mem.h"

struct loader_image {
    uint64_t entry;     /* guest physical start address */
    uint64_t low, high; /* extent loaded: [low, high) */
    bool is_elf;
};

/* elf_machine: EM_* the board accepts (EM_RISCV), xlen 32 or 64 the ELF class it must have.
 * `path` names the file in errors; `fd` is read from offset 0 by pread and stays open. Raw
 * and Image files go to `at` (an Image header's text_offset is added to the next 2 MiB
 * boundary, 4 MiB for RV32) and may take max bytes from there, an Image with its BSS. ELF
 * segments go to their physical addresses; a position-independent file linked at 0 is moved
 * to `at`. */
int loader_load(struct mem_space *s, int fd, const char *path, uint64_t at,
                unsigned elf_machine, unsigned xlen, uint64_t max, struct loader_image *out,
                struct err *e);
/* Whole file at `at`, at most max bytes (-EFBIG names file, size and the room there is). */
int loader_load_raw(struct mem_space *s, int fd, const char *path, uint64_t at, uint64_t max,
                    uint64_t *size, struct err *e);

/* What an ELF program says of itself in the note `type` of `owner`: a number of 4 or 8 bytes. -ENOENT: there is no such note. */
int loader_elf_note(int fd, const char *path, const char *owner, uint32_t type, uint64_t *value,
                    struct err *e);

/* A Linux kernel for x86 with its setup header ("The Linux/x86 Boot Protocol"). */
#define LOADER_BZIMAGE_SETUP 0x9f /* bytes that the header may have, from 0x1f1 on */
struct loader_bzimage {
    struct loader_image image; /* entry: of 32-bit code; high: where it may be when it has unpacked itself */
    uint32_t cmdline_max;      /* without its end */
    uint32_t initrd_max;       /* highest address of an initrd's last byte */
    unsigned setup_len;
    uint8_t setup[LOADER_BZIMAGE_SETUP]; /* for the boot parameters, at 0x1f1 */
};
bool loader_is_bzimage(int fd);
/* Its 32-bit part goes to `at` (1 MiB), from where it may use max bytes. */
int loader_bzimage(struct mem_space *s, int fd, const char *path, uint64_t at, uint64_t max,
                   struct loader_bzimage *out, struct err *e);

#endif
