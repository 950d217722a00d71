/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio-console: one port (virtio 1.2 §5.3) on a chr. Queue 0 receives, queue 1 transmits.
 * Main loop, transport's lock; emergency writes come on vCPU threads.
 */
#include "devices/char/chr.h"
#include "devices/registry.h"
#include "devices/virtio/virtio.h"
#include "engine/core/vm.h"

#define QUEUE_SIZE 64
#define F_EMERG_WRITE (1u << 2)
#define CONFIG_EMERG_WR 8

enum { Q_RX = 0, Q_TX = 1 };

struct vcon {
    struct virtio v;
    struct chr *chr;
    struct virtio_elem *rx; /* buffer that waits for input, or NULL */
    struct virtio_elem *tx; /* output the back end has not taken wholly, or NULL */
    uint64_t tx_skip;       /* bytes of it that were taken */
};

/* Hands tx to the back end; true when it is through. */
static bool vcon_send(struct vcon *c)
{
    while (c->tx_skip < c->tx->out_len) {
        uint8_t bytes[1024];
        size_t n = virtio_get(c->tx, c->tx_skip, bytes, sizeof(bytes)), taken;

        taken = chr_write(c->chr, bytes, n);
        c->tx_skip += taken;
        if (taken < n) {
            return false;
        }
    }
    virtq_push(&c->v, Q_TX, c->tx, 0);
    c->tx = NULL;
    c->tx_skip = 0;
    return true;
}

static void vcon_serve_tx(struct vcon *c)
{
    for (unsigned n = 0; n < QUEUE_SIZE;) {
        if (!c->tx) {
            c->tx = virtq_pop(&c->v, Q_TX);
        }
        if (!c->tx) {
            if (virtq_rearm(&c->v, Q_TX)) {
                continue;
            }
            virtq_signal(&c->v, Q_TX);
            return;
        }
        n++;
        if (!vcon_send(c)) {
            virtq_signal(&c->v, Q_TX);
            return; /* vcon_writable goes on */
        }
    }
    virtq_signal(&c->v, Q_TX);
    virtio_ring(&c->v, Q_TX);
}

static void vcon_serve(struct virtio *v, unsigned q)
{
    struct vcon *c = (struct vcon *)v;

    if (q == Q_TX) {
        vcon_serve_tx(c);
    } else {
        chr_accept(c->chr);
    }
}

/* --- character back end, main loop
 * ----------------------------------------------------------- */

static size_t vcon_room(void *arg)
{
    struct vcon *c = arg;
    size_t room = 0;

    bus_lock(c->v.lock);
    if (virtio_may_run(&c->v)) {
        do {
            if (!c->rx) {
                c->rx = virtq_pop(&c->v, Q_RX);
            }
        } while (!c->rx && virtq_rearm(&c->v, Q_RX));
        room = c->rx ? (size_t)c->rx->in_len : 0;
    }
    bus_unlock(c->v.lock);
    return room;
}

static void vcon_receive(void *arg, const uint8_t *p, size_t n)
{
    struct vcon *c = arg;

    bus_lock(c->v.lock);
    if (c->rx) {
        n = virtio_put(c->rx, 0, p, n);
        virtq_push(&c->v, Q_RX, c->rx, n);
        c->rx = NULL;
        virtq_signal(&c->v, Q_RX);
    }
    bus_unlock(c->v.lock);
    chr_accept(c->chr);
}

static void vcon_writable(void *arg)
{
    struct vcon *c = arg;

    if (c->v.dev.vm->state == VM_STOPPED) { /* the last words of a guest that has ended */
        bus_lock(c->v.lock);
        vcon_serve_tx(c);
        bus_unlock(c->v.lock);
    } else {
        virtio_ring(&c->v, Q_TX);
    }
}

static const struct chr_front_ops vcon_front = {
    .room = vcon_room,
    .receive = vcon_receive,
    .writable = vcon_writable,
};

/* --- class
 * ----------------------------------------------------------------------------------- */

static void vcon_config_written(struct virtio *v, uint32_t offset, uint64_t value,
                                unsigned size)
{
    uint8_t byte = (uint8_t)value;

    (void)size;
    if (offset == CONFIG_EMERG_WR) {
        (void)chr_write(((struct vcon *)v)->chr, &byte, 1);
    }
}

static void vcon_drop(struct virtio *v)
{
    struct vcon *c = (struct vcon *)v;

    virtio_elem_free(c->rx);
    virtio_elem_free(c->tx);
    c->rx = c->tx = NULL;
    c->tx_skip = 0;
}

static const struct virtio_ops vcon_ops = {
    .id = 3,
    .n_queues = 2,
    .queue_max = { QUEUE_SIZE, QUEUE_SIZE },
    .config_size = 12,
    .serve = vcon_serve,
    .config_written = vcon_config_written,
    .reset = vcon_drop,
};

static int vcon_realize(struct device *d, struct err *e)
{
    struct vcon *c = (struct vcon *)d;

    (void)e;
    virtio_setup(&c->v, &vcon_ops, 0, F_EMERG_WRITE);
    chr_attach(c->chr, &vcon_front, c);
    return 0;
}

/* Buffers that wait go back to their rings; tx_skip remembers how much of the next output
 * was taken. */
static bool vcon_quiesce(struct device *d)
{
    struct vcon *c = (struct vcon *)d;

    bus_lock(c->v.lock);
    if (c->rx) {
        virtq_unpop(&c->v, Q_RX, c->rx);
    }
    if (c->tx) {
        virtq_unpop(&c->v, Q_TX, c->tx);
    }
    c->rx = c->tx = NULL;
    bus_unlock(c->v.lock);
    return true;
}

static void vcon_destroy(struct device *d)
{
    struct vcon *c = (struct vcon *)d;

    chr_attach(c->chr, NULL, NULL);
    vcon_drop(&c->v);
    virtio_done(&c->v);
}

static const struct st_field vcon_fields[] = {
    VIRTIO_ST_FIELD,
    ST_FIELD(struct vcon, tx_skip, ST_U64, 1, "bytes of the next output that are out already"),
    ST_END,
};
static const struct st_table vcon_state = {
    .name = "virtio-console",
    .version = 1,
    .fields = vcon_fields,
};

static const struct dev_prop vcon_props[] = {
    { .name = "chr",
      .kind = PROP_PTR,
      .offset = offsetof(struct vcon, chr),
      .doc = "character stream that carries the bytes" },
    { .name = NULL },
};

const struct device_class virtio_console_class = {
    .name = "virtio-console",
    .doc = "virtio console, one port, with emergency write",
    .size = sizeof(struct vcon),
    .props = vcon_props,
    .state = &vcon_state,
    .realize = vcon_realize,
    .quiesce = vcon_quiesce,
    .resumed = virtio_resumed,
    .destroy = vcon_destroy,
};
