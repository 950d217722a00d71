/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio-balloon: a guest gives memory to the host and takes it back (virtio 1.2 §5.5), with statistics and free page reporting.
 * Main loop, transport's lock.
 *
 * Pages that the guest puts into the balloon, or reports as free, are given back to the host at once (mem_discard). While memory
 * is watched (a save of a running guest, a load that is still coming) the queues wait: what such an operation has yet to
 * look at must not vanish.
 *
 * Queues: inflate, deflate, statistics, reporting. Drivers number the last one 3 when no free page hints are offered, the
 * specification 4: both are served.
 */
#include "devices/misc/virtio_balloon.h"

#include "devices/registry.h"
#include "devices/virtio/virtio.h"
#include "engine/base/log.h"
#include "engine/core/vm.h"

#include <endian.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define QUEUE_SIZE 128
#define PFN_BITS 12 /* of the interface, whatever the guest's pages are */
#define BATCH 256
#define MAX_PFNS 16384            /* of one request; drivers send 256 */
#define TURN_PFNS 65536           /* then others get their turn */
#define HELD_NS INT64_C(50000000) /* until watched memory is looked at again */
#define MAX_STATS 64
#define SECOND_NS INT64_C(1000000000)

enum { INFLATE, DEFLATE, STATS, REPORT, REPORT_TOO, N_QUEUES };
#define F_STATS (1ull << 1)
#define F_DEFLATE_ON_OOM (1ull << 2)
#define F_REPORTING (1ull << 5)

struct vballoon {
    struct virtio v;
    uint64_t memory, first; /* properties, bytes */
    uint64_t period;        /* seconds */
    bool deflate_on_oom, reporting;
    struct balloon_watch *watch;

    uint32_t num_pages, actual; /* configuration space */
    uint64_t given_back, reported;
    uint64_t stat[BALLOON_N_STATS], updated_ns;
    struct virtio_elem
        *asking; /* the driver's buffer of statistics, kept until new ones are wanted */
    struct loop_timer *retry, *tick;
};

struct stat_entry {
    uint16_t tag;
    uint64_t value;
} __attribute__((packed));

static uint64_t pages_of(uint64_t bytes)
{
    return bytes >> PFN_BITS;
}

static uint64_t bytes_left(const struct vballoon *b, uint32_t pages)
{
    uint64_t taken = (uint64_t)pages << PFN_BITS;

    return taken < b->memory ? b->memory - taken : 0;
}

/* --- pages --------------------------------------------------------------------------------------------------- */

static int by_number(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

    return (x > y) - (x < y);
}

/* Neighbours go in one piece: the host then splits no huge page twice. */
static void give_back(struct vballoon *b, uint32_t *pfn, size_t n)
{
    qsort(pfn, n, sizeof(*pfn), by_number);
    for (size_t i = 0, k; i < n; i = k) {
        for (k = i + 1; k < n && pfn[k] - pfn[k - 1] <= 1; k++) {
        }
        b->given_back += mem_discard(b->v.dev.vm->mem, (uint64_t)pfn[i] << PFN_BITS,
                                     ((uint64_t)pfn[k - 1] - pfn[i] + 1) << PFN_BITS);
    }
}

/* Returns how many pages there were. */
static unsigned inflate(struct vballoon *b, const struct virtio_elem *el)
{
    uint64_t n = el->out_len / sizeof(uint32_t), at = 0;
    uint32_t pfn[BATCH];

    if (n > MAX_PFNS) {
        log_trace('v', "%s: a request of %llu pages, of which %u are taken", b->v.dev.id,
                  (unsigned long long)n, MAX_PFNS);
        n = MAX_PFNS;
    }
    while (at < n) {
        size_t part = n - at < BATCH ? (size_t)(n - at) : BATCH;

        virtio_get(el, at * sizeof(pfn[0]), pfn, part * sizeof(pfn[0]));
        for (size_t i = 0; i < part; i++) {
            pfn[i] = le32toh(pfn[i]);
        }
        give_back(b, pfn, part);
        at += part;
    }
    return (unsigned)n;
}

static unsigned report(struct vballoon *b, const struct virtio_elem *el)
{
    for (unsigned i = el->n_out; i < el->n_out + el->n_in; i++) {
        b->reported += mem_discard(b->v.dev.vm->mem, el->sg[i].gpa, el->sg[i].len);
    }
    return el->n_in * BATCH;
}

/* --- statistics ---------------------------------------------------------------------------------------------- */

static uint64_t now_ns(void)
{
    struct timespec t = { 0 };

    clock_gettime(CLOCK_BOOTTIME, &t);
    return (uint64_t)t.tv_sec * SECOND_NS + (uint64_t)t.tv_nsec;
}

static void take_stats(struct vballoon *b, const struct virtio_elem *el)
{
    struct stat_entry entry;

    for (unsigned i = 0; i < MAX_STATS; i++) {
        uint16_t tag;

        if (virtio_get(el, i * sizeof(entry), &entry, sizeof(entry)) < sizeof(entry)) {
            break;
        }
        tag = le16toh(entry.tag);
        if (tag < BALLOON_N_STATS) {
            b->stat[tag] = le64toh(entry.value);
        }
    }
    b->updated_ns = now_ns();
}

static void forget_stats(struct vballoon *b)
{
    for (unsigned i = 0; i < BALLOON_N_STATS; i++) {
        b->stat[i] = BALLOON_UNKNOWN;
    }
    b->updated_ns = 0;
}

static void arm(struct vballoon *b)
{
    if (b->period > 0) {
        loop_timer_arm(b->tick, (int64_t)b->period * SECOND_NS);
    }
}

/* The buffer goes back to the driver, which fills it anew. */
static void on_tick(void *arg)
{
    struct vballoon *b = arg;
    struct virtio *v = &b->v;

    bus_lock(v->lock);
    if (b->asking && virtio_may_run(v) && virtio_working(v)) {
        virtq_push(v, STATS, b->asking, 0);
        b->asking = NULL;
        virtq_signal(v, STATS);
    } else {
        arm(b);
    }
    bus_unlock(v->lock);
}

static void keep_stats(struct vballoon *b, struct virtio_elem *el)
{
    take_stats(b, el);
    if (b->asking) { /* a second buffer, which no driver should have */
        virtq_push(&b->v, STATS, b->asking, 0);
    }
    b->asking = el;
    arm(b);
}

/* --- queues -------------------------------------------------------------------------------------------------- */

static void on_retry(void *arg)
{
    struct vballoon *b = arg;

    virtio_ring(&b->v, INFLATE);
    virtio_ring(&b->v, REPORT);
    virtio_ring(&b->v, REPORT_TOO);
}

/* Does the queue have to wait until memory is no longer watched? */
static bool must_wait(struct vballoon *b, unsigned q)
{
    if (q == DEFLATE || q == STATS || !mem_held(b->v.dev.vm->mem)) {
        return false;
    }
    loop_timer_arm(b->retry, HELD_NS);
    return true;
}

static unsigned serve_one(struct vballoon *b, unsigned q, struct virtio_elem *el)
{
    unsigned n = 1;

    if (q == STATS) {
        keep_stats(b, el);
        return QUEUE_SIZE;
    }
    if (q == INFLATE) {
        n = inflate(b, el);
    } else if (q != DEFLATE && (b->v.features & F_REPORTING)) {
        n = report(b, el);
    }
    virtq_push(&b->v, q, el, 0);
    return n + BATCH;
}

static void vballoon_serve(struct virtio *v, unsigned q)
{
    struct vballoon *b = (struct vballoon *)v;

    if (must_wait(b, q)) {
        return;
    }
    for (unsigned n = 0; n < TURN_PFNS;) {
        struct virtio_elem *el = virtq_pop(v, q);

        if (el) {
            n += serve_one(b, q, el);
        } else if (!virtq_rearm(v, q)) {
            virtq_signal(v, q);
            return;
        }
    }
    virtq_signal(v, q);
    virtio_ring(v, q);
}

/* --- configuration space ------------------------------------------------------------------------------------- */

static void vballoon_config(struct virtio *v, uint8_t *out)
{
    const struct vballoon *b = (const struct vballoon *)v;
    uint32_t le[4] = { htole32(b->num_pages), htole32(b->actual) };

    memcpy(out, le, sizeof(le));
}

static void vballoon_config_written(struct virtio *v, uint32_t offset, uint64_t value,
                                    unsigned size)
{
    struct vballoon *b = (struct vballoon *)v;
    uint8_t bytes[4];
    uint32_t was = b->actual, le = htole32(was);

    if (offset < 4 || offset + size > 8) {
        return; /* the driver writes `actual` alone */
    }
    memcpy(bytes, &le, sizeof(bytes));
    for (unsigned i = 0; i < size; i++) {
        bytes[offset - 4 + i] = (uint8_t)(value >> (8 * i));
    }
    memcpy(&le, bytes, sizeof(bytes));
    b->actual = le32toh(le);
    if (b->actual != was && b->watch) {
        b->watch->changed(b->watch->arg);
    }
}

/* --- the host's side ----------------------------------------------------------------------------------------- */

void virtio_balloon_view(struct device *d, struct balloon_view *out)
{
    struct vballoon *b = (struct vballoon *)d;

    bus_lock(b->v.lock);
    *out = (struct balloon_view){ .driver = virtio_working(&b->v),
                                  .target = bytes_left(b, b->num_pages),
                                  .actual = bytes_left(b, b->actual),
                                  .given_back = b->given_back,
                                  .reported = b->reported,
                                  .updated_ns = b->updated_ns };
    memcpy(out->stat, b->stat, sizeof(out->stat));
    bus_unlock(b->v.lock);
}

static uint32_t balloon_size(const struct vballoon *b, uint64_t target)
{
    uint64_t pages = target < b->memory ? pages_of(b->memory - target) : 0;

    return pages < UINT32_MAX ? (uint32_t)pages : UINT32_MAX;
}

void virtio_balloon_set_target(struct device *d, uint64_t bytes)
{
    struct vballoon *b = (struct vballoon *)d;
    uint32_t pages = balloon_size(b, bytes);

    bus_lock(b->v.lock);
    if (pages != b->num_pages) {
        b->num_pages = pages;
        virtio_config_changed(&b->v);
    }
    bus_unlock(b->v.lock);
}

void virtio_balloon_set_period(struct device *d, unsigned seconds)
{
    struct vballoon *b = (struct vballoon *)d;

    bus_lock(b->v.lock);
    b->period = seconds;
    loop_timer_disarm(b->tick);
    if (b->asking) {
        arm(b);
    }
    bus_unlock(b->v.lock);
}

/* --- the class ----------------------------------------------------------------------------------------------- */

static void vballoon_reset(struct virtio *v)
{
    struct vballoon *b = (struct vballoon *)v;

    /* What the guest gave it may use again: pages come back as they are touched. */
    if (b->asking) {
        virtio_elem_free(b->asking);
        b->asking = NULL;
    }
    if (b->actual != 0 && b->watch) {
        b->watch->changed(b->watch->arg);
    }
    b->actual = 0;
    forget_stats(b);
}

static const struct virtio_ops vballoon_ops = {
    .id = 5,
    .physical = true,
    .n_queues = N_QUEUES,
    .queue_max = { QUEUE_SIZE, QUEUE_SIZE, QUEUE_SIZE, QUEUE_SIZE, QUEUE_SIZE },
    .config_size = 16,
    .serve = vballoon_serve,
    .config = vballoon_config,
    .config_written = vballoon_config_written,
    .reset = vballoon_reset,
};

static int vballoon_realize(struct device *d, struct err *e)
{
    struct vballoon *b = (struct vballoon *)d;
    uint64_t features = F_STATS | (b->deflate_on_oom ? F_DEFLATE_ON_OOM : 0) |
                        (b->reporting ? F_REPORTING : 0);

    (void)e;
    virtio_setup(&b->v, &vballoon_ops, 0, features);
    b->num_pages = balloon_size(b, b->first ? b->first : b->memory);
    b->retry = loop_timer_new(d->vm->loop, on_retry, b);
    b->tick = loop_timer_new(d->vm->loop, on_tick, b);
    forget_stats(b);
    return 0;
}

/* The buffer of statistics goes back into the ring, as if it had not been looked at. */
static bool vballoon_quiesce(struct device *d)
{
    struct vballoon *b = (struct vballoon *)d;

    bus_lock(b->v.lock);
    if (b->asking) {
        virtq_unpop(&b->v, STATS, b->asking);
        b->asking = NULL;
    }
    bus_unlock(b->v.lock);
    return true;
}

static void vballoon_destroy(struct device *d)
{
    struct vballoon *b = (struct vballoon *)d;

    virtio_elem_free(b->asking);
    loop_timer_free(b->retry);
    loop_timer_free(b->tick);
    virtio_done(&b->v);
}

static const struct st_field vballoon_fields[] = {
    VIRTIO_ST_FIELD,
    ST_FIELD(struct vballoon, num_pages, ST_U32, 1, "pages of 4 KiB that are asked for"),
    ST_FIELD(struct vballoon, actual, ST_U32, 1, "pages that the guest says it has given"),
    ST_END,
};
static const struct st_table vballoon_state = {
    .name = "virtio-balloon",
    .version = 1,
    .fields = vballoon_fields,
};

#define FIELD(m) offsetof(struct vballoon, m)
static const struct dev_prop vballoon_props[] = {
    { .name = "memory",
      .kind = PROP_U64,
      .offset = FIELD(memory),
      .required = true,
      .doc = "bytes that the guest has without a balloon" },
    { .name = "target",
      .kind = PROP_U64,
      .offset = FIELD(first),
      .doc = "bytes that it is asked to get by with at first; 0: all" },
    { .name = "period",
      .kind = PROP_U64,
      .offset = FIELD(period),
      .max = 86400,
      .doc = "seconds between two reports of the driver; 0: one alone" },
    { .name = "deflate_on_oom",
      .kind = PROP_BOOL,
      .offset = FIELD(deflate_on_oom),
      .doc = "the guest may take pages back before it ends a program for want of memory" },
    { .name = "reporting",
      .kind = PROP_BOOL,
      .offset = FIELD(reporting),
      .doc = "the guest reports pages that are free" },
    { .name = "watch",
      .kind = PROP_PTR,
      .offset = FIELD(watch),
      .doc = "who is told of its size" },
    { .name = NULL },
};

const struct device_class virtio_balloon_class = {
    .name = "virtio-balloon",
    .doc = "memory balloon with statistics and free page reporting (virtio 1.2 §5.5)",
    .size = sizeof(struct vballoon),
    .props = vballoon_props,
    .state = &vballoon_state,
    .realize = vballoon_realize,
    .quiesce = vballoon_quiesce,
    .resumed = virtio_resumed,
    .destroy = vballoon_destroy,
};
