/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio-rng: entropy (virtio 1.2 §5.4) from the host's getrandom(). Main loop, transport's
 * lock. No state of its own.
 */
#include "devices/registry.h"
#include "devices/virtio/virtio.h"

#include <string.h>
#include <sys/random.h>

#define QUEUE_SIZE 64
#define MAX_FILL 4096 /* bytes a request; the driver asks again for more */

struct vrng {
    struct virtio v;
};

static size_t vrng_fill(struct virtio_elem *el)
{
    uint8_t bytes[MAX_FILL];
    size_t want = el->in_len < sizeof(bytes) ? (size_t)el->in_len : sizeof(bytes), have = 0;

    while (have < want) {
        ssize_t n = getrandom(bytes + have, want - have, 0);

        if (n > 0) {
            have += (size_t)n;
        }
    }
    virtio_put(el, 0, bytes, have);
    explicit_bzero(bytes, sizeof(bytes));
    return have;
}

static void vrng_serve(struct virtio *v, unsigned q)
{
    for (unsigned n = 0; n < QUEUE_SIZE;) {
        struct virtio_elem *el = virtq_pop(v, q);

        if (el) {
            n++;
            virtq_push(v, q, el, vrng_fill(el));
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
    (void)e;
    virtio_setup((struct virtio *)d, &vrng_ops, 0, 0);
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
