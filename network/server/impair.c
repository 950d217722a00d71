/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Links that are slow or bad. The loop's thread.
 */
#include "network/server/impair.h"

#include "engine/base/loop.h"
#include "engine/base/mem.h"

#include <string.h>
#include <time.h>

#define SECOND INT64_C(1000000000)
/* More than a frame at once, without which nothing of 64 KiB would ever pass a low peak smoothly. */
#define PEAK_BURST NET_MAX_FRAME

struct waiting {
    struct list link;
    int64_t due;
    struct net_hdr hdr;
    size_t len;
    uint8_t bytes[];
};

static int64_t now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * SECOND + t.tv_nsec;
}

/* xorshift64*: reproducible, and no secret depends on it. */
static uint32_t dice(struct impair *im)
{
    im->seed ^= im->seed >> 12;
    im->seed ^= im->seed << 25;
    im->seed ^= im->seed >> 27;
    return (uint32_t)((im->seed * UINT64_C(2685821657736338717)) >> 32);
}

static bool chance(struct impair *im, unsigned ppm)
{
    return ppm && dice(im) % IMPAIR_PPM < ppm;
}

static void on_due(void *arg)
{
    struct impair *im = arg;
    int64_t now = now_ns();
    bool some = false;

    while (!list_empty(&im->waiting)) {
        struct waiting *w = list_entry(im->waiting.next, struct waiting, link);
        struct iovec iov = { w->bytes, w->len };
        struct net_frame f = { .hdr = w->hdr, .iov = &iov, .n_iov = 1, .len = w->len };

        if (w->due > now) {
            loop_timer_arm(im->timer, w->due - now);
            break;
        }
        list_remove(&w->link);
        im->queued -= w->len;
        im->out(im->arg, &f);
        some = true;
        free(w);
    }
    if (some) {
        im->flush(im->arg);
    }
}

void impair_init(struct impair *im, struct loop *l, uint64_t seed,
                 void (*out)(void *arg, const struct net_frame *f), void (*flush)(void *arg),
                 void *arg)
{
    *im = (struct impair){
        .idle = true, .seed = seed | 1, .out = out, .flush = flush, .arg = arg
    };
    list_init(&im->waiting);
    im->timer = loop_timer_new(l, on_due, im);
}

static void drop_all(struct impair *im)
{
    while (!list_empty(&im->waiting)) {
        struct waiting *w = list_entry(im->waiting.next, struct waiting, link);

        list_remove(&w->link);
        im->dropped++;
        free(w);
    }
    im->queued = 0;
}

void impair_done(struct impair *im)
{
    drop_all(im);
    loop_timer_free(im->timer);
    im->timer = NULL;
}

void impair_set(struct impair *im, const struct impair_rules *r)
{
    static const struct impair_rules none;

    im->rules = *r;
    im->idle = memcmp(r, &none, sizeof(none)) == 0;
    memset(im->tat, 0, sizeof(im->tat));
    if (r->cut) {
        drop_all(im);
    }
}

/* When a frame of `len` bytes may go at such a rate, `burst` bytes of which may come at once (a leaky bucket as a meter). */
static int64_t conform(int64_t *tat, int64_t now, size_t len, uint64_t rate, uint64_t burst)
{
    int64_t credit, at;

    if (rate == 0) {
        return now;
    }
    credit = (int64_t)((double)burst * 1e9 / (double)rate);
    if (*tat < now) {
        *tat = now;
    }
    at = *tat - credit > now ? *tat - credit : now;
    *tat += (int64_t)((double)len * 1e9 / (double)rate);
    return at;
}

static int64_t due_at(struct impair *im, int64_t now, size_t len)
{
    const struct impair_rules *r = &im->rules;
    int64_t due = conform(&im->tat[0], now, len, r->rate, 0);
    int64_t mean = conform(&im->tat[1], now, len, r->average, r->burst);
    int64_t peak = conform(&im->tat[2], now, len, r->peak, PEAK_BURST);

    due = mean > due ? mean : due;
    due = peak > due ? peak : due;
    due += (int64_t)r->delay_us * 1000;
    if (r->jitter_us) {
        due += (int64_t)(dice(im) % (2 * r->jitter_us)) * 1000 - (int64_t)r->jitter_us * 1000;
    }
    return due > now ? due : now;
}

static void queue(struct impair *im, const struct net_frame *f, int64_t due, bool corrupt,
                  bool front)
{
    struct waiting *w;
    struct list *at = &im->waiting;

    if (im->queued + f->len > IMPAIR_QUEUE) {
        im->dropped++;
        return;
    }
    w = xalloc(sizeof(*w) + f->len);
    w->due = due;
    w->hdr = f->hdr;
    w->len = f->len;
    net_frame_get(f, 0, w->bytes, f->len);
    if (corrupt && w->len > 14) {
        w->bytes[14 + dice(im) % (w->len - 14)] ^= (uint8_t)(1u << dice(im) % 8);
    }
    if (front) {
        list_insert(&im->waiting, &w->link);
    } else {
        while (at->prev != &im->waiting &&
               list_entry(at->prev, struct waiting, link)->due > due) {
            at = at->prev;
        }
        list_append(at, &w->link);
    }
    im->queued += w->len;
}

void impair_frame(struct impair *im, const struct net_frame *f)
{
    const struct impair_rules *r = &im->rules;
    int64_t now, due;
    bool early;

    if (im->idle) {
        im->out(im->arg, f);
        return;
    }
    if (r->cut || chance(im, r->loss)) {
        im->dropped++;
        return;
    }
    now = now_ns();
    due = due_at(im, now, f->len);
    early = chance(im, r->reorder); /* it overtakes what waits */
    queue(im, f, early ? now : due, chance(im, r->corrupt), early);
    if (chance(im, r->duplicate)) {
        queue(im, f, due, false, false);
    }
    if (!list_empty(&im->waiting)) {
        int64_t first = list_entry(im->waiting.next, struct waiting, link)->due;

        loop_timer_arm(im->timer, first > now ? first - now : 0);
    }
}
