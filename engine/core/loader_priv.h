/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside of the loader, shared by its two files only.
 */
#ifndef VMD_CORE_LOADER_PRIV_H
#define VMD_CORE_LOADER_PRIV_H

#include "engine/base/buf.h"
#include "engine/core/loader.h"

#include <elf.h>

/* Where the bytes come from. */
struct source {
    int fd;
    const char *path; /* for errors */
    uint64_t size;
    const uint8_t *data; /* already in memory, or NULL: read fd */
};

/* Where they go and what they must be. */
struct load_target {
    uint64_t at, max;
    unsigned elf_machine, xlen;
};

int source_open(struct source *src, int fd, const char *path, struct err *e);
/* Exactly n bytes; -ENODATA beyond the end. */
int source_read(const struct source *src, uint64_t at, void *out, size_t n, struct err *e);
/* n bytes into guest RAM; -EFAULT when that is not all RAM. */
int source_copy(const struct source *src, uint64_t from, struct mem_space *s, uint64_t to,
                uint64_t n, struct err *e);
int load_elf(struct mem_space *s, const struct source *src, const struct load_target *t,
             struct loader_image *out, struct err *e);
const char *elf_machine_name(unsigned machine);

#endif
