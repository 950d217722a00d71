/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A guest's memory and registers as an ELF core (System V gABI, chapters 4 and 5): for each vCPU the notes that the guest's own
 * kernel would write about a process, for each range of RAM a PT_LOAD segment whose virtual address is its physical one.
 * Made with the vCPUs at the barrier, and valid while they stay there. Main thread.
 */
#ifndef VMD_CORE_CORE_IMAGE_H
#define VMD_CORE_CORE_IMAGE_H

#include "engine/base/buf.h"
#include "engine/core/mem.h"

struct vm;

struct core_part {
    struct mem_range range; /* whole */
    uint64_t gpa, size;     /* what of it is in the core */
    uint64_t at;            /* offset in the file */
};

struct core_image {
    struct buf head; /* from offset 0: headers and notes */
    struct core_part *part;
    unsigned n_parts;
    uint64_t size;   /* of the file */
    uint64_t memory; /* bytes of all parts */
};

/* Physical addresses from `begin` on, `length` bytes (UINT64_MAX: all). -ENOENT: there is no RAM. */
int core_image_make(struct vm *vm, uint64_t begin, uint64_t length, struct core_image *out,
                    struct err *e);
void core_image_done(struct core_image *c);

/* One note, padded; for arch_ops.core_notes. `name` with its NUL. */
void core_note(struct buf *out, const char *name, uint32_t type, const void *desc, size_t size);

#endif
