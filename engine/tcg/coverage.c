/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Coverage of guest code, for fuzzers: counters of edges between blocks, hashed, and an exact bitmap of where blocks began. Both lie in
 * a file that others map. Written by all vCPUs without order: an edge counter may lose a step, a bit is never lost.
 */
#include "engine/tcg/instrument.h"

#include "engine/base/mem.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

struct tcg_coverage {
    struct coverage_header *header;
    uint8_t *edges, *bitmap;
    size_t size;
    uint64_t ram_base, ram_size;
    int fd;
};

static uint32_t place(uint64_t pc)
{
    return (uint32_t)((pc >> 1) * 0x9e3779b97f4a7c15ull >> 48);
}

void cover_block(struct tcg_vcpu *v, const struct tcg_note *n)
{
    struct tcg_coverage *c = v->tcg->coverage;
    uint32_t here = place((v->pc_page + (n->gpa & 4095)) & v->tcg->guest->pc_mask);
    uint8_t *edge = &c->edges[(here ^ v->covered >> 1) % COVERAGE_EDGES];
    uint64_t at = n->gpa - c->ram_base;
    *edge = (uint8_t)(*edge + 1 +
                      (*edge ==
                       UINT8_MAX)); /* 255 goes to 1: an edge that was taken is never 0 */
    v->covered = here;
    if (at < c->ram_size) {
        uint8_t bit = (uint8_t)(1u << (at / 2 & 7)), *byte = &c->bitmap[at / 16];
        if (!(__atomic_load_n(byte, __ATOMIC_RELAXED) & bit)) {
            __atomic_fetch_or(byte, bit, __ATOMIC_RELAXED);
        }
    }
}

int tcg_coverage_start(struct vm *vm, int fd, uint64_t ram_base, uint64_t ram_size,
                       struct err *e)
{
    struct tcg_vm *t = vm->engine_data;
    size_t bitmap = (size_t)(ram_size / 16 + 1), head = 4096,
           size = head + COVERAGE_EDGES + bitmap;
    if (fd < 0) {
        fd = memfd_create("coverage", MFD_CLOEXEC);
    }
    if (fd < 0 || ftruncate(fd, (off_t)size) != 0) {
        return err_errno(e, errno, "coverage: cannot make a file of %zu bytes", size);
    }
    void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (p == MAP_FAILED) {
        return err_errno(e, errno, "coverage: cannot map %zu bytes", size);
    }
    struct tcg_coverage *c = xnew(struct tcg_coverage);
    *c = (struct tcg_coverage){ .header = p,
                                .edges = (uint8_t *)p + head,
                                .size = size,
                                .fd = fd,
                                .bitmap = (uint8_t *)p + head + COVERAGE_EDGES,
                                .ram_base = ram_base,
                                .ram_size = ram_size };
    *c->header = (struct coverage_header){ COVERAGE_MAGIC, head, head + COVERAGE_EDGES,
                                           ram_base, ram_size };
    t->coverage = c;
    return 0;
}

const struct coverage_header *tcg_coverage(const struct vm *vm)
{
    const struct tcg_vm *t = vm->engine_data;
    return t->coverage ? t->coverage->header : NULL;
}

void coverage_done(struct tcg_vm *t)
{
    if (t->coverage) {
        munmap(t->coverage->header, t->coverage->size);
        close(t->coverage->fd);
        free(t->coverage);
        t->coverage = NULL;
    }
}
