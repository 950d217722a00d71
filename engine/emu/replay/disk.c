/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A disk that is recorded: its image works as ever, but on copies of the guest's memory, and what completes is shown to the guest at
 * a place between two instructions. In a replay, and in a recording that is to leave the images as they are, what is written
 * stays in memory (scratch.h). A discard does nothing: what it leaves behind would not be the same everywhere. The tape has the number of the request, its result and a digest of what was read; the data
 * come from the image, which a replay begins as the recording began. Main thread, but for `abandoned`.
 */
#include "engine/emu/replay/replay.h"

#include "engine/base/hash.h"
#include "engine/base/list.h"
#include "engine/base/mem.h"
#include "engine/emu/replay/scratch.h"
#include "storage/block.h"

#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define ONE_MAX (64u << 20) /* bytes of a request; the guest chooses them */
#define ALL_MAX (256u << 20)
#define SCRATCH_MAX (UINT64_C(2) << 30)
#define ENTRY 16 /* bytes of an input: number, result, digest */

struct copy {
    struct blk_req io;
    struct list link;
    struct record_disk *disk;
    struct blk_req *of;
    uint32_t number;
    int result;
    bool done; /* by the image */
    bool refused;
    struct iovec iov;
    uint8_t *bytes;
    struct scratch
        *over; /* what the scratch had of the range when it was asked; NULL: nothing */
};

struct record_disk {
    struct blk_hook hook;
    struct blk_node *node;
    struct vm *vm;
    uint32_t source, number;
    uint64_t bytes;          /* of all copies */
    struct scratch *scratch; /* NULL: the image is written to */
    struct list flying;
    _Atomic uint32_t abandoned; /* requests below this number are dropped */
};

static void put_le(uint8_t *p, uint64_t v, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        p[i] = (uint8_t)(v >> 8 * i);
    }
}

static uint64_t get_le(const uint8_t *p, unsigned n)
{
    uint64_t v = 0;

    for (unsigned i = 0; i < n; i++) {
        v |= (uint64_t)p[i] << 8 * i;
    }
    return v;
}

static uint64_t digest(const struct copy *c)
{
    return c->io.op == BLK_READ && c->result == 0 && !c->refused
               ? hash_bytes(c->bytes, c->io.length, c->io.offset)
               : 0;
}

static void completed(struct copy *c)
{
    struct record_disk *d = c->disk;
    uint8_t entry[ENTRY];

    c->done = true;
    if (!replay_records(d->vm)) {
        replay_poke(d->vm);
        return;
    }
    put_le(entry, c->number, 4);
    put_le(entry + 4, (uint32_t)c->result, 4);
    put_le(entry + 8, digest(c), 8);
    replay_input(d->vm, d->source, entry, sizeof(entry));
}

static void on_done(struct blk_req *r, int result)
{
    struct copy *c = container_of(r, struct copy, io);

    c->result = result;
    if (c->over && result == 0) {
        scratch_over(c->over, c->io.offset, c->bytes, c->io.length);
    }
    completed(c);
}

static void from_guest(struct copy *c)
{
    uint8_t *p = c->bytes;

    for (unsigned i = 0; i < c->of->n_iov; i++) {
        memcpy(p, c->of->iov[i].iov_base, c->of->iov[i].iov_len);
        p += c->of->iov[i].iov_len;
    }
}

static void to_guest(struct copy *c)
{
    const uint8_t *p = c->bytes;

    for (unsigned i = 0; i < c->of->n_iov; i++) {
        memcpy(c->of->iov[i].iov_base, p, c->of->iov[i].iov_len);
        p += c->of->iov[i].iov_len;
    }
}

/* As the image would: what does not lie in it is an error. */
static int to_scratch(struct record_disk *d, const struct copy *c)
{
    uint64_t size = blk_size(d->node);

    if (blk_readonly(d->node)) {
        return -EROFS;
    }
    if (c->io.offset > size || c->io.length > size - c->io.offset) {
        return -EINVAL;
    }
    return scratch_write(d->scratch, c->io.offset, c->io.op == BLK_WRITE ? c->bytes : NULL,
                         c->io.length);
}

static void on_submit(struct blk_hook *h, struct blk_req *r)
{
    struct record_disk *d = container_of(h, struct record_disk, hook);
    struct copy *c = xnew(struct copy);
    bool data = r->op == BLK_READ || r->op == BLK_WRITE;

    c->disk = d;
    c->of = r;
    c->number = d->number++;
    c->io = (struct blk_req){ .op = r->op,
                              .flags = r->flags | BLK_UNHOOKED,
                              .offset = r->offset,
                              .length = r->length,
                              .done = on_done };
    list_append(&d->flying, &c->link);
    if (r->op == BLK_DISCARD) {
        completed(c);
        return;
    }
    if (data && (r->length > ONE_MAX || r->length > ALL_MAX - d->bytes)) {
        c->refused = true;
        c->result = -ENOMEM;
        completed(c);
        return;
    }
    if (data) {
        d->bytes += r->length;
        c->bytes = xalloc(r->length + 1);
        c->iov = (struct iovec){ c->bytes, r->length };
        c->io.iov = &c->iov;
        c->io.n_iov = 1;
        if (r->op == BLK_WRITE) {
            from_guest(c);
        }
    }
    if (d->scratch && r->op != BLK_READ) {
        c->result = r->op == BLK_FLUSH ? 0 : to_scratch(d, c);
        completed(c);
        return;
    }
    if (d->scratch && scratch_has(d->scratch, r->offset, r->length)) {
        c->over = scratch_copy(d->scratch, r->offset, r->length);
    }
    blk_submit(d->node, &c->io);
}

static void on_abandon(struct blk_hook *h)
{
    struct record_disk *d = container_of(h, struct record_disk, hook);

    atomic_store(&d->abandoned, d->number);
}

static struct copy *find(struct record_disk *d, uint32_t number)
{
    list_for_each (it, &d->flying) {
        struct copy *c = list_entry(it, struct copy, link);

        if (c->number == number) {
            return c;
        }
    }
    return NULL;
}

static void copy_free(struct copy *c)
{
    list_remove(&c->link);
    scratch_free(c->over);
    free(c->bytes);
    free(c);
}

static int on_tape(void *arg, const uint8_t *p, size_t n, struct err *e)
{
    struct record_disk *d = arg;
    struct copy *c = n == ENTRY ? find(d, (uint32_t)get_le(p, 4)) : NULL;
    struct blk_req *of;
    int result;

    if (!c) {
        return err_set(e, -EBADMSG, "request %" PRIu64 " completes, which is not under way",
                       n >= 4 ? get_le(p, 4) : 0);
    }
    if (!c->done) {
        return -EAGAIN;
    }
    result = (int32_t)get_le(p + 4, 4);
    if (result == 0 && c->result != 0) {
        return err_set(e, -EIO, "request %u failed (%s); it did not when it was recorded",
                       c->number, strerror(-c->result));
    }
    if (result == 0 && digest(c) != get_le(p + 8, 8)) {
        return err_set(e, -EILSEQ,
                       "request %u reads other data at byte %" PRIu64
                       " than it read when it was recorded; is the image as it was then?",
                       c->number, c->io.offset);
    }
    if (result == 0 && c->io.op == BLK_READ && c->number >= atomic_load(&d->abandoned)) {
        to_guest(c);
    }
    of = c->of;
    d->bytes -= c->bytes ? c->io.length : 0;
    copy_free(c);
    of->done(of, result < 0 && result > -4096 ? result : result == 0 ? 0 : -EIO);
    return 0;
}

struct record_disk *record_disk_new(struct vm *vm, struct blk_node *n, bool scratch)
{
    struct record_disk *d = xnew(struct record_disk);
    AUTO_FREE char *name = xasprintf("disk:%s", blk_name(n));

    d->hook = (struct blk_hook){ .submit = on_submit, .abandon = on_abandon };
    d->node = n;
    d->vm = vm;
    d->scratch = scratch ? scratch_new(SCRATCH_MAX) : NULL;
    list_init(&d->flying);
    d->source = replay_source(vm, name, on_tape, d);
    blk_set_hook(n, &d->hook);
    return d;
}

/* After its node was closed: nothing is under way. */
void record_disk_free(struct record_disk *d)
{
    if (d) {
        while (!list_empty(&d->flying)) {
            copy_free(list_entry(d->flying.next, struct copy, link));
        }
        scratch_free(d->scratch);
        free(d);
    }
}
