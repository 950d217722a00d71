/* SPDX-License-Identifier: Apache-2.0 */
/*
 * io_uring for reads and writes (io_uring(7)). Owns the ring and its eventfd; whoever calls holds the
 * pool's mutex.
 *
 * The ring is made disabled, restricted to three opcodes on registered files and to changing the
 * table of files, and only then enabled (io_uring_register(2), IORING_REGISTER_RESTRICTIONS).
 */
#include "storage/uring.h"

#include "engine/base/mem.h"

#include <errno.h>
#include <liburing.h>
#include <limits.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { DEPTH = 256, SLOTS = 64 };

struct uring {
    struct io_uring ring;
    int event;
    bool used[SLOTS];
    unsigned in_ring; /* never more than the completion queue holds */
};

/* liburing 2.3 does not export its wrappers of these. */
static long ring_register(struct io_uring *ring, unsigned what, const void *arg, unsigned n)
{
    return syscall(__NR_io_uring_register, ring->ring_fd, what, arg, n);
}

static long uring_restrict(struct io_uring *ring)
{
    struct io_uring_restriction r[] = {
        { .opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_READV },
        { .opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_WRITEV },
        { .opcode = IORING_RESTRICTION_SQE_FLAGS_ALLOWED, .sqe_flags = IOSQE_FIXED_FILE },
        { .opcode = IORING_RESTRICTION_SQE_FLAGS_REQUIRED, .sqe_flags = IOSQE_FIXED_FILE },
        { .opcode = IORING_RESTRICTION_REGISTER_OP,
          .register_op = IORING_REGISTER_FILES_UPDATE },
    };

    return ring_register(ring, IORING_REGISTER_RESTRICTIONS, r, ARRAY_LEN(r));
}

struct uring *uring_new(void)
{
    struct uring *u = xnew(struct uring);
    int none[SLOTS];

    u->event = -1;
    if (io_uring_queue_init(DEPTH, &u->ring, IORING_SETUP_R_DISABLED) != 0) {
        free(u);
        return NULL;
    }
    for (unsigned i = 0; i < SLOTS; i++) {
        none[i] = -1;
    }
    u->event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (u->event < 0 || io_uring_register_files(&u->ring, none, SLOTS) != 0 ||
        io_uring_register_eventfd(&u->ring, u->event) != 0 || uring_restrict(&u->ring) != 0 ||
        ring_register(&u->ring, IORING_REGISTER_ENABLE_RINGS, NULL, 0) != 0) {
        uring_free(u);
        return NULL;
    }
    return u;
}

void uring_free(struct uring *u)
{
    if (u) {
        io_uring_queue_exit(&u->ring);
        if (u->event >= 0) {
            close(u->event);
        }
        free(u);
    }
}

int uring_event(const struct uring *u)
{
    return u->event;
}

void uring_clear(struct uring *u)
{
    uint64_t n;

    (void)!read(u->event, &n, sizeof(n));
}

int uring_register(struct uring *u, int fd)
{
    for (int i = 0; i < SLOTS; i++) {
        if (!u->used[i]) {
            u->used[i] = io_uring_register_files_update(&u->ring, (unsigned)i, &fd, 1) == 1;
            return u->used[i] ? i : -1;
        }
    }
    return -1;
}

void uring_unregister(struct uring *u, int slot)
{
    int none = -1;

    (void)io_uring_register_files_update(&u->ring, (unsigned)slot, &none, 1);
    u->used[slot] = false;
}

int uring_queue(struct uring *u, struct blk_req *r, int slot)
{
    struct io_uring_sqe *sqe;

    if (u->in_ring >= DEPTH || r->n_iov > IOV_MAX || r->length > INT_MAX) {
        return -EAGAIN;
    }
    sqe = io_uring_get_sqe(&u->ring);
    if (!sqe) {
        return -EAGAIN;
    }
    if (r->op == BLK_READ) {
        io_uring_prep_readv(sqe, slot, r->iov, r->n_iov, r->at);
    } else {
        io_uring_prep_writev(sqe, slot, r->iov, r->n_iov, r->at);
    }
    io_uring_sqe_set_flags(sqe, IOSQE_FIXED_FILE);
    io_uring_sqe_set_data(sqe, r);
    u->in_ring++;
    return 0;
}

bool uring_submit(struct uring *u)
{
    bool all;
    int rc;

    /* Reads and writes of the page cache are through at once. */
    (void)io_uring_cq_eventfd_toggle(&u->ring, false);
    do {
        rc = io_uring_submit(&u->ring);
    } while (rc == -EINTR);
    all = io_uring_sq_ready(&u->ring) == 0;
    (void)io_uring_cq_eventfd_toggle(&u->ring, true);
    /* What completed before this was seen is looked for after it: whoever calls reaps next. */
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    return all;
}

bool uring_reap(struct uring *u, struct blk_req **r, int *result)
{
    struct io_uring_cqe *cqe;

    if (io_uring_peek_cqe(&u->ring, &cqe) != 0 || !cqe) {
        return false;
    }
    *r = io_uring_cqe_get_data(cqe);
    *result = cqe->res;
    io_uring_cqe_seen(&u->ring, cqe);
    u->in_ring--;
    return true;
}
