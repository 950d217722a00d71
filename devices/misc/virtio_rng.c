/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio-rng: entropy (virtio 1.2 §5.4) from the host (getrandom(), vm_random()). Main loop, transport's
 * lock. No state of its own.
 */
#include "devices/registry.h"
#include "devices/virtio/virtio.h"
#include "engine/core/replay.h"

#include <string.h>

#define QUEUE_SIZE 64
#define MAX_FILL 4096 /* bytes a request; the driver asks again for more */

struct vrng {
    struct virtio v;
    uint32_t source; /* on a tape */
};

static size_t vrng_fill(struct vrng *r, struct virtio_elem *el)
{
    uint8_t bytes[MAX_FILL];
    size_t want = el->in_len < sizeof(bytes) ? (size_t)el->in_len : sizeof(bytes);

    vm_random(r->v.dev.vm, r->source, bytes, want);
    virtio_put(el, 0, bytes, want);
    explicit_bzero(bytes, sizeof(bytes));
    return want;
}

static void vrng_serve(struct virtio *v, unsigned q)
{
    for (unsigned n = 0; n < QUEUE_SIZE;) {
        struct virtio_elem *el = virtq_pop(v, q);

        if (el) {
            n++;
            virtq_push(v, q, el, vrng_fill((struct vrng *)v, el));
        } else if (!virtq_rearm(v, q)) {
            virtq_signal(v, q);
            return;
        }
    }
    virtq_signal(v, q);
    virtio_ring(v, q);
}

static const struct virtio_ops vrng_ops = {
    .id = 4,
    .n_queues = 1,
    .queue_max = { QUEUE_SIZE },
    .serve = vrng_serve,
};

static int vrng_realize(struct device *d, struct err *e)
{
    struct vrng *r = (struct vrng *)d;

    (void)e;
    virtio_setup(&r->v, &vrng_ops, 0, 0);
    if (d->vm->replay) {
        r->source = replay_source(d->vm, d->id, NULL, NULL);
    }
    return 0;
}

static void vrng_destroy(struct device *d)
{
    virtio_done((struct virtio *)d);
}

static const struct st_field vrng_fields[] = {
    VIRTIO_ST_FIELD,
    ST_END,
};
static const struct st_table vrng_state = {
    .name = "virtio-rng",
    .version = 1,
    .fields = vrng_fields,
};

const struct device_class virtio_rng_class = {
    .name = "virtio-rng",
    .doc = "virtio entropy source",
    .size = sizeof(struct vrng),
    .state = &vrng_state,
    .realize = vrng_realize,
    .resumed = virtio_resumed,
    .destroy = vrng_destroy,
};
