/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Watched guest memory (pager.h). Owns the userfaultfd, the thread that answers it ("the answerer") and the hands, which go
 * through the rest. A chunk goes WAITING, BUSY (somebody copies or fills it), COPIED (saves: its copy waits for a hand), DONE;
 * whoever makes it BUSY makes it more. lock guards all that is not constant while an operation runs.
 */
#include "engine/emu/state/pager.h"

#include "engine/base/fd.h"
#include "engine/base/log.h"
#include "engine/base/mem.h"
#include "engine/emu/emu.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef USERFAULTFD_IOC_NEW /* Linux 6.1 */
#define USERFAULTFD_IOC_NEW _IO(0xAA, 0x00)
#endif
#ifndef UFFD_FEATURE_WP_UNPOPULATED /* Linux 6.4 */
#define UFFD_FEATURE_WP_UNPOPULATED (1 << 13)
#endif
#ifndef UFFD_FEATURE_WP_HUGETLBFS_SHMEM /* Linux 5.19 */
#define UFFD_FEATURE_WP_HUGETLBFS_SHMEM (1 << 12)
#endif

#define HANDS 2
#define SMALL (2u << 20) /* regions below are copied or filled at once */
#define COPIES_MIN 64u   /* chunks that may wait for a hand; the guest waits beyond */
#define MESSAGES 16

enum { WAITING, BUSY, COPIED, DONE };
enum answer { IDLE, BEGIN, WORK, FINISH, QUIT }; /* what the answerer is to do */

struct chunk {
    uint8_t *copy;
    uint32_t region, state;
    uint64_t page;
};

struct part { /* a region under an operation */
    struct mem_region *r;
    uint8_t *host;
    uint64_t size;
    size_t first, n; /* its chunks */
    bool small;
};

struct run { /* of chunks, registered with the kernel */
    uint64_t at, n;
};

struct pager {
    struct emu *m;
    int fd, wake;
    bool all_memory; /* anonymous memory can be watched, too */
    pthread_t answerer, hand[HANDS];
    unsigned n_hands, n_ready; /* threads that are confined */
    bool answers;              /* the answerer was started */
    bool watching;             /* the answerer's own: runs are registered */
    pthread_mutex_t lock;
    pthread_cond_t more, change; /* for hands; for everybody else */

    enum answer order;
    bool busy; /* an operation is under way */
    bool stop;
    struct pager_op op;
    struct part *part;
    struct chunk *chunk;
    size_t n_chunks, next, left; /* next one for a hand; not DONE yet */
    size_t *copied, n_copied, max_copied;
    size_t working; /* hands and answers at it */
    struct run *run;
    size_t n_runs;
    uint64_t completed;
    struct err e;
};

static size_t chunk_bytes(const struct pager *p, const struct chunk *c)
{
    uint64_t left = p->part[c->region].size - c->page * MEM_PAGE_SIZE;

    return left < CHUNK_BYTES ? (size_t)left : CHUNK_BYTES;
}

static uint8_t *chunk_host(const struct pager *p, const struct chunk *c)
{
    return p->part[c->region].host + c->page * MEM_PAGE_SIZE;
}

/* As the kernel counts them. */
static uint64_t chunk_span(const struct pager *p, const struct chunk *c)
{
    return (chunk_bytes(p, c) + MEM_PAGE_SIZE - 1) & ~(uint64_t)(MEM_PAGE_SIZE - 1);
}

static void *new_copy(void)
{
    void *to = mmap(NULL, CHUNK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
                    0);

    return to == MAP_FAILED ? NULL : to;
}

/* What the chunk holds, without giving memory to what was never touched. Nobody writes to it. */
static void copy_out(const struct pager *p, const struct chunk *c, uint8_t *to)
{
    struct mem_region *r = p->part[c->region].r;
    uint64_t at = c->page * MEM_PAGE_SIZE, end = at + chunk_bytes(p, c), length;

    for (uint64_t i = at; i < end; i += length) {
        bool holds = mem_region_holds(r, i, &length);

        length = length < end - i ? length : end - i;
        if (holds) {
            memcpy(to + (i - at), p->part[c->region].host + i, length);
        } else {
            memset(to + (i - at), 0, length);
        }
    }
}

static void set_failed(struct pager *p, const struct err *e)
{
    if (p->e.code == 0) {
        p->e = *e;
    }
    pthread_cond_broadcast(&p->more);
    pthread_cond_broadcast(&p->change);
}

static void tell_answerer(struct pager *p, enum answer what)
{
    uint64_t one = 1;

    if (p->order != QUIT) { /* nothing comes after that */
        p->order = what;
    }
    if (write(p->wake, &one, sizeof(one)) < 0) {
        log_error("emu", "the pager cannot be woken");
    }
}

/* The chunk is done; with the lock. */
static void set_done(struct pager *p, struct chunk *c)
{
    c->state = DONE;
    p->left--;
    p->completed += chunk_bytes(p, c);
    pthread_cond_broadcast(&p->change);
}

/* Whoever leaves last ends the operation; with the lock. */
static void leave(struct pager *p)
{
    p->working--;
    if (p->working == 0 && p->order == WORK && (p->left == 0 || p->e.code != 0)) {
        tell_answerer(p, FINISH);
    }
}

/* Ends an operation that failed, unless a hand will when it leaves; with the lock. */
static void finish_failed(struct pager *p)
{
    if (p->working == 0 && p->order == WORK) {
        tell_answerer(p, FINISH);
    }
}

/* ---- filling ---- */

/* The kernel takes over n bytes for [to, to+n), which are not there. 0 or an errno. */
static int place(struct pager *p, uint8_t *to, const uint8_t *from, uint64_t n)
{
    while (n > 0) {
        struct uffdio_copy k = { .dst = (uintptr_t)to, .src = (uintptr_t)from, .len = n };

        if (ioctl(p->fd, UFFDIO_COPY, &k) == 0) {
            return 0;
        }
        if (errno == EEXIST &&
            k.copy <= 0) { /* it is there already: somebody asked for a zero page */
            k.copy = MEM_PAGE_SIZE;
        } else if (errno != EAGAIN && errno != EEXIST) {
            return errno;
        }
        if (k.copy > 0) {
            to += k.copy;
            from += k.copy;
            n -= (uint64_t)k.copy;
        }
    }
    return 0;
}

static bool page_zero(const uint8_t *p)
{
    return p[0] == 0 && memcmp(p, p + 1, MEM_PAGE_SIZE - 1) == 0;
}

/* Pages of zeroes are left to faults. */
static int place_chunk(struct pager *p, const struct chunk *c, const uint8_t *bytes)
{
    uint64_t span = chunk_span(p, c), at = 0, end;
    int rc = 0;

    while (at < span && rc == 0) {
        if (page_zero(bytes + at)) {
            at += MEM_PAGE_SIZE;
            continue;
        }
        for (end = at; end < span && !page_zero(bytes + end); end += MEM_PAGE_SIZE) {
        }
        rc = place(p, chunk_host(p, c) + at, bytes + at, end - at);
        at = end;
    }
    return rc;
}

static void wake_chunk(struct pager *p, const struct chunk *c)
{
    struct uffdio_range k = { (uintptr_t)chunk_host(p, c), chunk_span(p, c) };

    (void)ioctl(p->fd, UFFDIO_WAKE, &k);
}

/* A BUSY chunk, without the lock. */
static void fill_chunk(struct pager *p, struct chunk *c, struct chunk_codec *codec,
                       uint8_t *bytes)
{
    struct err e = ERR_INIT;
    size_t n = chunk_bytes(p, c);
    int rc = p->op.piece(p->op.arg, codec, c->region, c->page, bytes, n, &e), no;

    if (rc == 0) {
        memset(bytes + n, 0, chunk_span(p, c) - n);
        no = place_chunk(p, c, bytes);
        rc = no ? err_errno(&e, no, "the guest's memory cannot be filled") : 0;
    }
    if (rc != 0) { /* it runs, and there is no such memory for it to go on with */
        log_error("emu", "the VM ends: %s", e.msg);
        _exit(EMU_EXIT_INTERNAL);
    }
    pthread_mutex_lock(&p->lock);
    set_done(p, c);
    pthread_mutex_unlock(&p->lock);
    wake_chunk(p, c);
}

/* Somebody waits for a page of zeroes. */
static void zero_page(struct pager *p, uint64_t at)
{
    struct uffdio_zeropage k = { .range = { at, MEM_PAGE_SIZE } };

    while (ioctl(p->fd, UFFDIO_ZEROPAGE, &k) != 0) {
        if (errno != EAGAIN) {
            (void)ioctl(p->fd, UFFDIO_WAKE, &k.range);
            return;
        }
    }
}

/* ---- the answerer ---- */

static void let_write(struct pager *p, const struct chunk *c)
{
    struct uffdio_writeprotect k = { .range = { (uintptr_t)chunk_host(p, c),
                                                chunk_span(p, c) } };

    while (ioctl(p->fd, UFFDIO_WRITEPROTECT, &k) != 0 && errno == EAGAIN) {
    }
}

/* The guest wants to write to a chunk: its copy comes first. */
static void answer_write(struct pager *p, struct chunk *c)
{
    struct err e = ERR_INIT;
    uint8_t *copy = NULL;

    pthread_mutex_lock(&p->lock);
    while (p->e.code == 0 && !p->stop &&
           (c->state == BUSY || (c->state == WAITING && p->n_copied >= p->max_copied))) {
        pthread_cond_wait(&p->change, &p->lock);
    }
    if (c->state == WAITING && p->e.code == 0) {
        c->state = BUSY;
        pthread_mutex_unlock(&p->lock);
        copy = new_copy();
        if (copy) {
            copy_out(p, c, copy);
        }
        pthread_mutex_lock(&p->lock);
        if (copy) {
            c->copy = copy;
            c->state = COPIED;
            p->copied[p->n_copied++] = (size_t)(c - p->chunk);
            pthread_cond_signal(&p->more);
        } else {
            err_set(&e, -ENOMEM, "no memory to keep the guest's while it runs");
            set_failed(p, &e);
            c->state = WAITING;
            finish_failed(p);
        }
    }
    pthread_mutex_unlock(&p->lock);
    let_write(p, c);
}

static void answer_missing(struct pager *p, struct chunk *c, uint64_t at,
                           struct chunk_codec *codec, uint8_t *bytes)
{
    pthread_mutex_lock(&p->lock);
    uint32_t was = c->state;

    c->state = was == WAITING ? BUSY : was;
    p->working += was == WAITING;
    pthread_mutex_unlock(&p->lock);
    if (was == WAITING) {
        fill_chunk(p, c, codec, bytes);
        pthread_mutex_lock(&p->lock);
        leave(p);
        pthread_mutex_unlock(&p->lock);
    } else if (was == DONE) {
        zero_page(p, at & ~(uint64_t)(MEM_PAGE_SIZE - 1));
    } /* BUSY: who is at it wakes */
}

static struct chunk *chunk_at(struct pager *p, uint64_t at)
{
    for (unsigned i = 0; i < p->op.n_regions; i++) {
        const struct part *t = &p->part[i];
        uint64_t from = (uintptr_t)t->host;

        if (!t->small && at >= from && at - from < t->n * CHUNK_BYTES) {
            return &p->chunk[t->first + (at - from) / CHUNK_BYTES];
        }
    }
    return NULL;
}

static void answer_faults(struct pager *p, struct chunk_codec *codec, uint8_t *bytes)
{
    struct uffd_msg msg[MESSAGES];
    ssize_t n = read(p->fd, msg, sizeof(msg));

    for (ssize_t i = 0; i < n / (ssize_t)sizeof(msg[0]); i++) {
        uint64_t at = msg[i].arg.pagefault.address;
        bool fault = msg[i].event == UFFD_EVENT_PAGEFAULT;
        struct chunk *c = fault && p->watching ? chunk_at(p, at) : NULL;

        if (!c) { /* of an operation that is over: the kernel tells of a fault until who waits has gone on */
            struct uffdio_range k = { at & ~(uint64_t)(MEM_PAGE_SIZE - 1), MEM_PAGE_SIZE };

            (void)ioctl(p->fd, UFFDIO_WAKE, &k);
        } else if (p->op.fill) {
            answer_missing(p, c, at, codec, bytes);
        } else {
            answer_write(p, c);
        }
    }
}

static void unregister(struct pager *p)
{
    for (size_t i = 0; i < p->n_runs; i++) {
        struct uffdio_range k = { p->run[i].at, p->run[i].n };

        (void)ioctl(p->fd, UFFDIO_UNREGISTER, &k);
    }
}

static int watch(struct pager *p, const struct run *r)
{
    struct uffdio_register k = { .range = { r->at, r->n },
                                 .mode = p->op.fill ? UFFDIO_REGISTER_MODE_MISSING
                                                    : UFFDIO_REGISTER_MODE_WP };
    struct uffdio_writeprotect w = { .range = k.range, .mode = UFFDIO_WRITEPROTECT_MODE_WP };

    if (ioctl(p->fd, UFFDIO_REGISTER, &k) != 0) {
        return errno;
    }
    if (p->op.fill) {
        return k.ioctls & (1u << _UFFDIO_COPY) ? 0 : EOPNOTSUPP;
    }
    while (ioctl(p->fd, UFFDIO_WRITEPROTECT, &w) != 0) {
        if (errno != EAGAIN) {
            return errno;
        }
    }
    return 0;
}

static void answer_begin(struct pager *p)
{
    int failed = 0;

    for (size_t i = 0; i < p->n_runs && !failed; i++) {
        failed = watch(p, &p->run[i]);
    }
    if (failed) {
        unregister(p);
    }
    p->watching = !failed;
    pthread_mutex_lock(&p->lock);
    if (failed) {
        err_errno(&p->e, failed, "the guest's memory cannot be watched");
    }
    p->order = failed ? IDLE : WORK;
    pthread_cond_broadcast(&p->more);
    pthread_cond_broadcast(&p->change);
    pthread_mutex_unlock(&p->lock);
}

static void on_over(void *arg);

/* No thread is there that is not confined when the VM begins to run. */
static void confine_me(struct pager *p)
{
    confine_pager_thread(p->m);
    pthread_mutex_lock(&p->lock);
    p->n_ready++;
    pthread_cond_broadcast(&p->change);
    pthread_mutex_unlock(&p->lock);
}

static void *answerer(void *arg)
{
    struct pager *p = arg;
    struct chunk_codec codec = { .pack = NULL };
    uint8_t *bytes = NULL;

    confine_me(p);
    for (;;) {
        struct pollfd on[] = { { .fd = p->wake, .events = POLLIN },
                               { .fd = p->fd, .events = POLLIN } };
        uint64_t count;

        if (poll(on, 2, -1) < 0 && errno != EINTR) {
            break;
        }
        if (on[1].revents) {
            bytes = bytes ? bytes : new_copy();
            answer_faults(p, &codec, bytes);
        }
        if (!(on[0].revents & POLLIN) || read(p->wake, &count, sizeof(count)) < 0) {
            continue;
        }
        pthread_mutex_lock(&p->lock);
        enum answer order = p->order;
        pthread_mutex_unlock(&p->lock);
        if (order == BEGIN) {
            answer_begin(p);
        } else if (order == FINISH) {
            unregister(p);
            p->watching = false;
            chunk_done(&codec);
            pthread_mutex_lock(&p->lock);
            bool quit = p->order == QUIT; /* it came meanwhile */
            p->order = quit ? QUIT : IDLE;
            pthread_mutex_unlock(&p->lock);
            if (quit) {
                break;
            }
            loop_post(p->m->loop, on_over, p);
        } else if (order == QUIT) {
            break;
        }
    }
    chunk_done(&codec);
    if (bytes) {
        munmap(bytes, CHUNK_BYTES);
    }
    return NULL;
}

/* ---- hands ---- */

/* The next chunk for a hand, with the lock; NULL: none for now. */
static struct chunk *take_chunk(struct pager *p)
{
    if (p->order != WORK || p->e.code != 0) {
        return NULL;
    }
    if (p->n_copied > 0) {
        return &p->chunk[p->copied[--p->n_copied]];
    }
    while (p->next < p->n_chunks && p->chunk[p->next].state != WAITING) {
        p->next++;
    }
    return p->next < p->n_chunks ? &p->chunk[p->next] : NULL;
}

/* A COPIED or BUSY one, without the lock. */
static void save_chunk(struct pager *p, struct chunk *c, struct chunk_codec *codec,
                       uint8_t *bytes)
{
    struct err e = ERR_INIT;
    uint8_t *copy = c->copy;
    size_t n = chunk_bytes(p, c);

    if (!copy) {
        copy_out(p, c, bytes);
        pthread_mutex_lock(&p->lock);
        c->state = COPIED; /* by us: it may be written to */
        pthread_cond_broadcast(&p->change);
        pthread_mutex_unlock(&p->lock);
    }
    int rc = p->op.piece(p->op.arg, codec, c->region, c->page, copy ? copy : bytes, n, &e);

    if (copy) {
        munmap(copy, CHUNK_BYTES);
    }
    pthread_mutex_lock(&p->lock);
    c->copy = NULL;
    if (rc != 0) {
        set_failed(p, &e);
    }
    set_done(p, c);
    pthread_mutex_unlock(&p->lock);
}

static void *hand(void *arg)
{
    struct pager *p = arg;
    struct chunk_codec codec = { .pack = NULL };
    uint8_t *bytes = NULL;

    confine_me(p);
    pthread_mutex_lock(&p->lock);
    while (!p->stop) {
        struct chunk *c = take_chunk(p);

        if (!c) {
            if (p->order != WORK && bytes) { /* nothing is kept between operations */
                munmap(bytes, CHUNK_BYTES);
                chunk_done(&codec);
                bytes = NULL;
            }
            pthread_cond_wait(&p->more, &p->lock);
            continue;
        }
        p->working++;
        c->state = c->copy ? COPIED : BUSY;
        pthread_mutex_unlock(&p->lock);
        bytes = bytes ? bytes : new_copy();
        if (!bytes) {
            log_error("emu", "no memory for the pager");
            _exit(EMU_EXIT_INTERNAL);
        }
        if (p->op.fill) {
            fill_chunk(p, c, &codec, bytes);
        } else {
            save_chunk(p, c, &codec, bytes);
        }
        pthread_mutex_lock(&p->lock);
        leave(p);
    }
    pthread_mutex_unlock(&p->lock);
    chunk_done(&codec);
    if (bytes) {
        munmap(bytes, CHUNK_BYTES);
    }
    return NULL;
}

/* ---- operations ---- */

static void forget(struct pager *p)
{
    for (size_t i = 0; i < p->n_chunks; i++) {
        if (p->chunk[i].copy) {
            munmap(p->chunk[i].copy, CHUNK_BYTES);
        }
    }
    for (unsigned i = 0; p->part && i < p->op.n_regions; i++) {
        mem_region_hold(p->part[i].r, false);
    }
    free(take_ptr(p->chunk));
    free(take_ptr(p->part));
    free(take_ptr(p->run));
    free(take_ptr(p->copied));
    p->n_chunks = p->n_runs = p->n_copied = 0;
    p->busy = false;
}

static void on_over(void *arg)
{
    struct pager *p = arg;
    struct pager_op op = p->op;
    struct err e = p->e;

    pthread_mutex_lock(&p->lock);
    pthread_cond_broadcast(&p->more); /* the hands give back what they have */
    pthread_mutex_unlock(&p->lock);
    forget(p);
    op.over(op.arg, e.code ? &e : NULL);
}

/* Is there anything to do for the chunk? */
static bool chunk_counts(struct pager *p, unsigned region, uint64_t page)
{
    struct mem_region *r = p->part[region].r;
    uint64_t at = page * MEM_PAGE_SIZE, length;

    if (p->op.fill) {
        return p->op.wanted(p->op.arg, region, page);
    }
    return mem_region_holds(r, at, &length) ||
           (length < CHUNK_BYTES && at + length < mem_region_size(r));
}

/* A small region is done here and now. */
static int do_small(struct pager *p, struct chunk *c)
{
    struct chunk_codec codec = { .pack = NULL };
    size_t n = chunk_bytes(p, c);
    int rc = 0;

    if (!p->op.fill) {
        c->copy = new_copy();
        if (!c->copy) {
            return err_set(&p->e, -ENOMEM, "no memory to keep the guest's while it runs");
        }
        memcpy(c->copy, chunk_host(p, c), n);
        c->state = COPIED;
        p->copied[p->n_copied++] = (size_t)(c - p->chunk);
        return 0;
    }
    if (c->state == WAITING) {
        rc = p->op.piece(p->op.arg, &codec, c->region, c->page, chunk_host(p, c), n, &p->e);
    } else {
        memset(chunk_host(p, c), 0, n);
        return 0;
    }
    chunk_done(&codec);
    if (rc == 0) {
        set_done(p, c);
    }
    return rc;
}

static void add_run(struct pager *p, const struct chunk *c)
{
    uint64_t at = (uintptr_t)chunk_host(p, c), span = chunk_span(p, c);
    struct run *last = p->n_runs > 0 ? &p->run[p->n_runs - 1] : NULL;

    if (last && last->at + last->n == at) {
        last->n += span;
    } else {
        p->run[p->n_runs++] = (struct run){ at, span };
    }
}

/* Lists the chunks, those of small regions done; which of the others count, as runs. */
static int list_chunks(struct pager *p)
{
    int rc = 0;

    for (unsigned i = 0; i < p->op.n_regions && rc == 0; i++) {
        const struct part *t = &p->part[i];

        if (p->op.fill && !t->small) {
            mem_region_clear(t->r, 0, t->size);
        }
        for (size_t j = 0; j < t->n && rc == 0; j++) {
            struct chunk *c = &p->chunk[t->first + j];

            *c = (struct chunk){ .region = i, .page = j * CHUNK_PAGES };
            p->left++;
            if (!chunk_counts(p, i, c->page)) {
                set_done(p, c);
            }
            if (t->small) {
                rc = c->state == WAITING || p->op.fill ? do_small(p, c) : 0;
            } else if (c->state == WAITING) {
                add_run(p, c);
            }
        }
    }
    return rc;
}

static int take_regions(struct pager *p, const struct pager_op *op, struct err *e)
{
    size_t n = 0;

    p->op = *op;
    p->part = xnew_n(struct part, op->n_regions + 1);
    for (unsigned i = 0; i < op->n_regions; i++) {
        struct mem_region *r = op->region[i].r;
        uint64_t size = mem_region_size(r), chunks = (size + CHUNK_BYTES - 1) / CHUNK_BYTES;
        bool small = size < SMALL;

        if (!small && !p->all_memory && !mem_region_is_shared(r)) {
            free(take_ptr(p->part));
            return err_set(e, -ENOTSUP, "memory '%s' cannot be watched on this host",
                           mem_region_name(r));
        }
        p->part[i] = (struct part){ r, mem_ram_host(r), size, n, chunks, small };
        n += chunks;
    }
    p->op.region = NULL;
    p->n_chunks = n;
    p->chunk = xnew_n(struct chunk, n + 1);
    p->copied = xnew_n(size_t, n + 1);
    p->run = xnew_n(struct run, n + 1);
    p->max_copied = n / 4 > COPIES_MIN ? n / 4 : COPIES_MIN;
    return 0;
}

int pager_begin(struct pager *p, const struct pager_op *op, struct err *e)
{
    if (p->busy) {
        return err_set(e, -EBUSY, "its memory is being %s already",
                       p->op.fill ? "filled" : "saved");
    }
    int rc = take_regions(p, op, e);

    if (rc != 0) {
        return rc;
    }
    p->busy = true;
    p->e = (struct err)ERR_INIT;
    p->next = p->left = p->n_copied = p->working = 0;
    p->completed = 0;
    for (unsigned i = 0; i < op->n_regions; i++) {
        mem_region_hold(p->part[i].r, true);
    }
    if (p->m->vm->engine->mem_unshow) {
        p->m->vm->engine->mem_unshow(p->m->vm);
    }
    rc = list_chunks(p);
    pthread_mutex_lock(&p->lock);
    if (rc == 0) {
        tell_answerer(p, BEGIN);
        while (p->order == BEGIN) {
            pthread_cond_wait(&p->change, &p->lock);
        }
        rc = p->e.code;
    }
    if (rc == 0 && p->left == 0) {
        tell_answerer(p, FINISH);
    }
    pthread_mutex_unlock(&p->lock);
    if (rc != 0) {
        *e = p->e;
        forget(p);
    }
    return rc;
}

void pager_cancel(struct pager *p)
{
    struct err e = ERR_INIT;

    err_set(&e, -ECANCELED, "it was cancelled");
    pthread_mutex_lock(&p->lock);
    if (p->busy && !p->op.fill && p->order == WORK) {
        set_failed(p, &e);
        finish_failed(p);
    }
    pthread_mutex_unlock(&p->lock);
}

bool pager_busy(const struct pager *p)
{
    return p && p->busy;
}

bool pager_filling(const struct pager *p)
{
    return p && p->busy && p->op.fill;
}

uint64_t pager_completed(const struct pager *p)
{
    struct pager *q = (struct pager *)(uintptr_t)p;

    pthread_mutex_lock(&q->lock);
    uint64_t n = p->completed;

    pthread_mutex_unlock(&q->lock);
    return n;
}

/* ---- its life ---- */

/* A userfaultfd that also waits for faults of the kernel's own, in reads into guest memory. */
static int open_uffd(struct emu *m, uint64_t *features, int *fd, struct err *e)
{
    AUTO_FD made = -1;
    struct uffdio_api api = { .api = UFFD_API };

    if (m->opt.uffd_fd >= 0) {
        made = ioctl(m->opt.uffd_fd, USERFAULTFD_IOC_NEW, O_CLOEXEC | O_NONBLOCK);
    }
    if (made < 0) {
        made = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
    }
    if (made < 0) {
        return err_errno(e, errno, "no userfaultfd");
    }
    if (ioctl(made, UFFDIO_API, &api) != 0) {
        return err_errno(e, errno, "no userfaultfd");
    }
    *features = api.features;
    close(take_fd(&made));
    if (!(*features & UFFD_FEATURE_WP_HUGETLBFS_SHMEM) ||
        !(*features & UFFD_FEATURE_MISSING_SHMEM)) {
        return err_set(e, -ENOTSUP, "the kernel cannot watch shared memory, Linux 5.19 can");
    }
    made = m->opt.uffd_fd >= 0
               ? ioctl(m->opt.uffd_fd, USERFAULTFD_IOC_NEW, O_CLOEXEC | O_NONBLOCK)
               : (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
    api = (struct uffdio_api){
        .api = UFFD_API,
        .features = *features & (UFFD_FEATURE_WP_HUGETLBFS_SHMEM | UFFD_FEATURE_WP_UNPOPULATED |
                                 UFFD_FEATURE_PAGEFAULT_FLAG_WP | UFFD_FEATURE_MISSING_SHMEM)
    };
    if (made < 0 || ioctl(made, UFFDIO_API, &api) != 0) {
        return err_errno(e, errno, "no userfaultfd");
    }
    *fd = take_fd(&made);
    return 0;
}

static int start_threads(struct pager *p)
{
    sigset_t all, was;
    int rc;

    sigfillset(&all); /* threads inherit it: signals are the main thread's business */
    pthread_sigmask(SIG_BLOCK, &all, &was);
    rc = pthread_create(&p->answerer, NULL, answerer, p);
    p->answers = rc == 0;
    for (; p->n_hands < HANDS && rc == 0; p->n_hands += rc == 0) {
        rc = pthread_create(&p->hand[p->n_hands], NULL, hand, p);
    }
    pthread_sigmask(SIG_SETMASK, &was, NULL);
    pthread_mutex_lock(&p->lock);
    while (p->n_ready < p->n_hands + p->answers) {
        pthread_cond_wait(&p->change, &p->lock);
    }
    pthread_mutex_unlock(&p->lock);
    return rc;
}

void pager_start(struct emu *m)
{
    struct err e = ERR_INIT;
    uint64_t features = 0;
    int fd = -1;

    if (open_uffd(m, &features, &fd, &e) != 0) {
        snprintf(m->no_pager, sizeof(m->no_pager), "%s", e.msg);
        return;
    }
    struct pager *p = xnew(struct pager);

    *p = (struct pager){ .m = m, .fd = fd, .wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK) };
    fd_autoclose(&m->opt.uffd_fd);
    m->opt.uffd_fd = -1;
    p->all_memory = features & UFFD_FEATURE_WP_UNPOPULATED;
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->more, NULL);
    pthread_cond_init(&p->change, NULL);
    m->pager = p;
    if (p->wake < 0 || start_threads(p) != 0) {
        snprintf(m->no_pager, sizeof(m->no_pager), "no threads for it");
        pager_free(m);
    }
}

void pager_free(struct emu *m)
{
    struct pager *p = take_ptr(m->pager);

    if (!p) {
        return;
    }
    pthread_mutex_lock(&p->lock);
    p->stop = true;
    pthread_cond_broadcast(&p->more);
    pthread_cond_broadcast(&p->change);
    if (p->answers) {
        tell_answerer(p, QUIT);
    }
    pthread_mutex_unlock(&p->lock);
    for (unsigned i = 0; i < p->n_hands; i++) {
        pthread_join(p->hand[i], NULL);
    }
    if (p->answers) {
        pthread_join(p->answerer, NULL);
    }
    forget(p);
    close(p->fd);
    fd_autoclose(&p->wake);
    pthread_cond_destroy(&p->more);
    pthread_cond_destroy(&p->change);
    pthread_mutex_destroy(&p->lock);
    free(p);
}
