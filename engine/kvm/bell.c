/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bells: writes to registers that only wake the main loop (struct mem_bells) are taken by KVM itself, which writes to an eventfd (KVM_IOEVENTFD); the vCPU goes on in the
 * kernel, without an exit to its thread. Owns the eventfds, made and watched before the sandbox closes; a bell for which none is left is an exit, as without KVM's help.
 * They are answered on the main loop; any thread may change where they are (drivers move BARs).
 */
#include "engine/kvm/internal.h"

#include "engine/base/buf.h"
#include "engine/base/fd.h"
#include "engine/base/log.h"
#include "engine/base/loop.h"
#include "engine/base/mem.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

/* Of one VM: a dozen of devices have some 40; a process may have 1,024 descriptors. */
#define BELLS 128

/* What KVM is told of one. */
struct place {
    uint64_t gpa, value;
    unsigned size; /* 0: any */
    bool match;
    void (*rung)(void *arg, unsigned n);
    void *arg;
    unsigned n;
};

struct kvm_bell {
    struct kvm_bells *all;
    int fd;
    struct loop_fd *watch;
    const void *owner; /* of the space in which it is; NULL: free */
    struct place at;
    bool kept; /* while a commit looks */
};

struct kvm_bells {
    int vm_fd; /* borrowed */
    bool any_size;
    uint64_t n_rung;      /* main thread */
    unsigned n;           /* eventfds */
    pthread_mutex_t lock; /* where bells are; nothing is locked while it is held */
    struct kvm_bell bell[BELLS];
};

static int tell(const struct kvm_bell *b, uint32_t flags)
{
    struct kvm_ioeventfd io = { .datamatch = b->at.value,
                                .addr = b->at.gpa,
                                .len = b->at.size,
                                .fd = b->fd,
                                .flags = flags |
                                         (b->at.match ? KVM_IOEVENTFD_FLAG_DATAMATCH : 0) };

    return kvm_call(b->all->vm_fd, KVM_IOEVENTFD, &io);
}

/* A device is freed on this thread, after its bells went: what was copied here is there. */
static void on_ring(void *arg, int fd, unsigned events)
{
    struct kvm_bell *b = arg;
    struct place at;
    uint64_t times;
    bool there;

    (void)events;
    if (read(fd, &times, sizeof(times)) != sizeof(times)) {
        return;
    }
    pthread_mutex_lock(&b->all->lock);
    there = b->owner != NULL;
    at = b->at;
    pthread_mutex_unlock(&b->all->lock);
    b->all->n_rung += times;
    if (there) {
        at.rung(at.arg, at.n);
    }
}

/* ---- which there are ---- */

static bool same(const struct place *a, const struct place *b)
{
    return a->gpa == b->gpa && a->value == b->value && a->size == b->size &&
           a->match == b->match && a->rung == b->rung && a->arg == b->arg && a->n == b->n;
}

/* One that is there stays. */
static bool keep(struct kvm_bells *k, const void *owner, const struct place *want)
{
    for (unsigned i = 0; i < k->n; i++) {
        if (k->bell[i].owner == owner && same(&k->bell[i].at, want)) {
            k->bell[i].kept = true;
            return true;
        }
    }
    return false;
}

static void add(struct kvm_bells *k, const void *owner, const struct place *want)
{
    for (unsigned i = 0; i < k->n; i++) {
        struct kvm_bell *b = &k->bell[i];

        if (b->owner) {
            continue;
        }
        b->at = *want;
        if (tell(b, 0) == 0) {
            b->owner = owner;
            b->kept = true;
        } else {
            log_debug("kvm", "the bell at 0x%" PRIx64 " is an exit: %s", want->gpa,
                      strerror(errno));
        }
        return;
    }
}

/*
 * Often on a vCPU's thread, which may not read (its list of system calls): a driver moves a BAR, a system sizes it. A ring that the main loop has not come to yet stays in the eventfd and is
 * read there. It is lost, or rings for what has got this eventfd since, which is to a device as a guest's write to a queue with nothing in it.
 */
static void drop(struct kvm_bell *b)
{
    if (tell(b, KVM_IOEVENTFD_FLAG_DEASSIGN) != 0) {
        log_error("kvm", "the bell at 0x%" PRIx64 " cannot be taken away: %s", b->at.gpa,
                  strerror(errno));
    }
    b->owner = NULL;
}

/* The n-th of a range's bells, if the range shows it whole. */
static bool place_of(const struct kvm_bells *k, const struct mem_range *r,
                     const struct mem_bells *m, unsigned n, struct place *out)
{
    uint64_t offset = m->offset + (m->match ? 0 : (uint64_t)n * m->step);
    unsigned size = m->match ? m->size : m->step;

    if (offset < r->offset || offset - r->offset + size > r->size) {
        return false;
    }
    *out = (struct place){ .gpa = r->base + (offset - r->offset),
                           .value = m->match ? n : 0,
                           .size = m->match || !k->any_size ? m->size : 0,
                           .match = m->match,
                           .rung = m->rung,
                           .arg = m->arg,
                           .n = n };
    return true;
}

static void each(struct kvm_bells *k, const void *owner, const struct mem_flat *flat,
                 const uint64_t *bounds, bool fresh)
{
    struct place want;

    for (unsigned i = 0; i < flat->n; i++) {
        const struct mem_range *r = &flat->r[i];
        const struct mem_bells *m = r->kind == MEM_IO ? mem_region_bells(r->region) : NULL;

        for (unsigned n = 0; m && n < m->count; n++) {
            if (!place_of(k, r, m, n, &want) || want.gpa < bounds[0] || want.gpa >= bounds[1] ||
                keep(k, owner, &want)) {
                continue;
            }
            if (fresh) {
                add(k, owner, &want);
            }
        }
    }
}

/* What has gone goes before what is new comes: KVM has one bell at a place. */
void kvm_bells_commit(struct vm *vm, const void *owner, const struct mem_flat *flat,
                      uint64_t from, uint64_t to)
{
    struct kvm_vm *v = vm->engine_data;
    struct kvm_bells *k = v ? v->bells : NULL;
    const uint64_t bounds[2] = { from, to };

    if (!k) {
        return;
    }
    pthread_mutex_lock(&k->lock);
    for (unsigned i = 0; i < k->n; i++) {
        k->bell[i].kept = k->bell[i].owner != owner;
    }
    each(k, owner, flat, bounds, false);
    for (unsigned i = 0; i < k->n; i++) {
        if (k->bell[i].owner && !k->bell[i].kept) {
            drop(&k->bell[i]);
        }
    }
    each(k, owner, flat, bounds, true);
    pthread_mutex_unlock(&k->lock);
}

void kvm_bells_stats(const struct kvm_vm *k, struct buf *out)
{
    unsigned there = 0; /* a number for people: read as it is */

    for (unsigned i = 0; k->bells && i < k->bells->n; i++) {
        there += k->bells->bell[i].owner != NULL;
    }
    buf_printf(out, "bells %u bells of queues that are rung without an exit\n", there);
    buf_printf(out, "rings %" PRIu64 " times such bells were rung\n",
               k->bells ? k->bells->n_rung : 0);
}

void kvm_bells_init(struct vm *vm)
{
    struct kvm_vm *k = vm->engine_data;

    if (kvm_call(k->dev_fd, KVM_CHECK_EXTENSION, (void *)(uintptr_t)KVM_CAP_IOEVENTFD) <= 0) {
        return;
    }
    k->bells = xnew(struct kvm_bells);
    pthread_mutex_init(&k->bells->lock, NULL);
    k->bells->vm_fd = k->fd;
    k->bells->any_size = kvm_call(k->dev_fd, KVM_CHECK_EXTENSION,
                                  (void *)(uintptr_t)KVM_CAP_IOEVENTFD_ANY_LENGTH) > 0;
    while (k->bells->n < BELLS) {
        struct kvm_bell *b = &k->bells->bell[k->bells->n];

        b->all = k->bells;
        b->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (b->fd < 0) {
            return;
        }
        b->watch = loop_fd_new(vm->loop, b->fd, LOOP_READ, on_ring, b);
        k->bells->n++;
    }
}

void kvm_bells_done(struct kvm_vm *k)
{
    if (!k->bells) {
        return;
    }
    for (unsigned i = 0; i < k->bells->n; i++) {
        loop_fd_free(k->bells->bell[i].watch);
        fd_autoclose(&k->bells->bell[i].fd);
    }
    pthread_mutex_destroy(&k->bells->lock);
    free(k->bells);
    k->bells = NULL;
}
