/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The map that perf reads to name translated code: a line "start size name" for each block. Lines are collected under tcg_vm.lock and
 * written when there are many, and by the main thread now and then. A file that takes no more is given up.
 */
#include "engine/tcg/instrument.h"

#include "engine/base/buf.h"
#include "engine/base/mem.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <unistd.h>

#define FLUSH_AT 32768

struct tcg_perfmap {
    int fd;
    struct buf out;
};

static void flush(struct tcg_perfmap *p)
{
    for (size_t done = 0; p->fd >= 0 && done < p->out.len;) {
        ssize_t n = write(p->fd, p->out.data + done, p->out.len - done);
        if (n < 0 && errno != EINTR) {
            close(p->fd);
            p->fd = -1;
        }
        done += n > 0 ? (size_t)n : 0;
    }
    p->out.len = 0;
}

void perfmap_block(struct tcg_vm *t, const struct tcg_block *b, const char *kind, uint64_t at)
{
    struct tcg_perfmap *p = t->perfmap;
    buf_printf(&p->out, "%" PRIxPTR " %" PRIx32 " %s:0x%" PRIx64 "+%u\n",
               (uintptr_t)t->buf.rx + b->code, block_size(b), kind, at, b->n_insns);
    if (p->out.len >= FLUSH_AT) {
        flush(p);
    }
}

void tcg_perf_map(struct vm *vm, int fd)
{
    struct tcg_vm *t = vm->engine_data;
    struct tcg_perfmap *p = xnew(struct tcg_perfmap);
    p->fd = fd;
    t->perfmap = p;
    buf_printf(&p->out, "%" PRIxPTR " %" PRIx32 " vmd:thunks\n", (uintptr_t)t->buf.rx, t->reserved);
}

void tcg_perf_flush(struct vm *vm)
{
    struct tcg_vm *t = vm->engine_data;
    if (t->perfmap) {
        pthread_mutex_lock(&t->lock);
        flush(t->perfmap);
        pthread_mutex_unlock(&t->lock);
    }
}

void perfmap_done(struct tcg_vm *t)
{
    if (t->perfmap) {
        flush(t->perfmap);
        if (t->perfmap->fd >= 0) {
            close(t->perfmap->fd);
        }
        buf_done(&t->perfmap->out);
        free(t->perfmap);
        t->perfmap = NULL;
    }
}
