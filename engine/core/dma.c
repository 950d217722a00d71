/* SPDX-License-Identifier: Apache-2.0 */
/* Guest memory as a device reaches it. Owns nothing; any thread. */
#include "engine/core/dma.h"

#include "engine/core/mem.h"
#include "engine/core/vm.h"

#include <errno.h>

static int translate(const struct device *d, uint64_t at, bool write, uint64_t *gpa,
                     uint64_t *n)
{
    if (!d->dma) {
        *gpa = at;
        return 0;
    }
    return d->dma->translate(d->dma->arg, at, write, gpa, n);
}

/* Moves one piece after the other, once all of them were found to be there. */
static int move(const struct device *d, uint64_t at, uint8_t *bytes, uint64_t n, bool write)
{
    struct mem_space *mem = d->vm->mem;
    uint64_t gpa, part;

    if (n && at > UINT64_MAX - (n - 1)) {
        return -EFAULT;
    }
    for (uint64_t done = 0; done < n; done += part) {
        part = n - done;
        if (translate(d, at + done, write, &gpa, &part) != 0 ||
            !mem_dma_reaches(mem, gpa, part, write)) {
            return -EFAULT;
        }
    }
    for (uint64_t done = 0; done < n; done += part) {
        part = n - done;
        if (translate(d, at + done, write, &gpa, &part) != 0 ||
            (write ? mem_dma_write(mem, gpa, bytes + done, part)
                   : mem_dma_read(mem, gpa, bytes + done, part)) != 0) {
            return -EFAULT; /* it was taken away between the two */
        }
    }
    return 0;
}

int dma_read(const struct device *d, uint64_t at, void *out, size_t n)
{
    return d->dma ? move(d, at, out, n, false) : mem_dma_read(d->vm->mem, at, out, n);
}

int dma_write(const struct device *d, uint64_t at, const void *in, size_t n)
{
    return d->dma ? move(d, at, (uint8_t *)(uintptr_t)in, n, true)
                  : mem_dma_write(d->vm->mem, at, in, n);
}

void *dma_piece(const struct device *d, uint64_t at, uint64_t *n, bool write, uint64_t *gpa)
{
    if (translate(d, at, write, gpa, n) != 0) {
        return NULL;
    }
    return mem_dma_map(d->vm->mem, *gpa, *n, write);
}

void *dma_map(const struct device *d, uint64_t at, uint64_t n, bool write, uint64_t *gpa)
{
    uint64_t done = n, next, part;

    if (translate(d, at, write, gpa, &done) != 0) {
        return NULL;
    }
    while (done <
           n) { /* neighbours by the device's addresses that are neighbours in memory, too */
        part = n - done;
        if (at > UINT64_MAX - done || translate(d, at + done, write, &next, &part) != 0 ||
            next != *gpa + done) {
            return NULL;
        }
        done += part;
    }
    return mem_dma_map(d->vm->mem, *gpa, n, write);
}
