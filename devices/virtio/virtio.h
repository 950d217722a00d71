/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Transport-neutral virtio devices (OASIS virtio 1.2): feature negotiation, status, split
 * and packed virtqueues with indirect descriptors and event index, configuration space.
 *
 * A virtio device is a `struct device` without registers of its own; a transport (virtio-mmio,
 * virtio-pci) gives it registers, an interrupt line and the lock that covers both. A vCPU only rings the
 * bell: queues are served on the main loop, where back ends complete too. Nothing in a ring is
 * trusted: descriptors are copied once and checked, chains are bounded, and a driver that
 * breaks the rules gets DEVICE_NEEDS_RESET, never more.
 */
#ifndef VMD_DEVICES_VIRTIO_VIRTIO_H
#define VMD_DEVICES_VIRTIO_VIRTIO_H

#include "engine/core/dma.h"

#include <stdatomic.h>

#define VIRTIO_MAX_QUEUES 20
#define VIRTIO_MAX_CHAIN 1024 /* descriptors in a chain */
#define VIRTIO_MAX_CONFIG 256

enum {
    VIRTIO_STATUS_ACKNOWLEDGE = 1,
    VIRTIO_STATUS_DRIVER = 2,
    VIRTIO_STATUS_DRIVER_OK = 4,
    VIRTIO_STATUS_FEATURES_OK = 8,
    VIRTIO_STATUS_NEEDS_RESET = 64,
    VIRTIO_STATUS_FAILED = 128
};
enum { VIRTIO_ISR_QUEUE = 1, VIRTIO_ISR_CONFIG = 2 };
#define VIRTIO_F_INDIRECT_DESC (1ull << 28)
#define VIRTIO_F_EVENT_IDX (1ull << 29)
#define VIRTIO_F_VERSION_1 (1ull << 32)
#define VIRTIO_F_ACCESS_PLATFORM (1ull << 33) /* addresses go through an IOMMU */
#define VIRTIO_F_RING_PACKED (1ull << 34)
#define VIRTIO_CONFIG_CHANGE -1 /* for virtio.raise, instead of a queue */

struct virtio;

/* A piece of guest RAM. */
struct virtio_sg {
    uint8_t *host;
    uint64_t gpa; /* physical, whatever address the driver gave */
    uint32_t len;
};

/* One request: the pieces the device reads (out), then those it writes (in). Owned by the
 * device from virtq_pop() until virtq_push() or virtio_elem_free(). Its pointers stay valid
 * until virtio_ops.reset returns. */
struct virtio_elem {
    struct list node; /* for the device's own lists */
    uint16_t head;    /* of a split ring; the buffer id of a packed one */
    uint16_t descs;   /* entries of a packed ring that it took */
    uint32_t generation;
    unsigned n_out, n_in;
    uint64_t out_len, in_len;
    struct virtio_sg sg[]; /* n_out + n_in */
};

struct virtq {
    uint32_t max, num;
    bool ready;
    /* The driver's addresses (dma.h); packed: ring, driver and device area. */
    uint64_t desc, avail, used;
    uint16_t last_avail, used_idx, signalled;
    bool signalled_valid;
    bool avail_wrap, used_wrap; /* of a packed ring */
    uint32_t in_flight;         /* popped, not pushed; never more than num */
    uint32_t generation; /* counts resets and stops: requests from before one are dropped */
};

struct virtio_ops {
    uint32_t id; /* virtio 1.2 §5 */
    unsigned n_queues;
    uint32_t queue_max[VIRTIO_MAX_QUEUES]; /* powers of two; further queues are as the last */
    uint32_t config_size;                  /* at most VIRTIO_MAX_CONFIG */
    /* Serves queue q until it is empty or the back end is busy. Main loop, lock held. */
    void (*serve)(struct virtio *v, unsigned q);
    /* serve() may run on a vCPU's thread as well: with an instruction clock it does, at once, so that the guest's time does
     * not run while the main loop has yet to come to it. */
    bool prompt;
    /* Its requests hold guest-physical addresses, or it is an IOMMU itself: never behind one. */
    bool physical;
    /* Another process reads and writes guest memory for it, by guest-physical addresses: cannot be behind an IOMMU. */
    bool outside;
    /* Fills config_size bytes, little-endian. Lock held; may be NULL. */
    void (*config)(struct virtio *v, uint8_t *out);
    void (*config_written)(struct virtio *v, uint32_t offset, uint64_t value, unsigned size);
    /* Drops what is in flight; when it returns, nothing touches guest memory any more. Any
     * thread, lock held; NULL: nothing to drop. */
    void (*reset)(struct virtio *v);
};

struct virtio {
    struct device dev;
    const struct virtio_ops *ops;
    /* Features; virtio_setup adds VERSION_1, INDIRECT_DESC, EVENT_IDX. */
    uint64_t offered;
    unsigned n_queues; /* ops->n_queues, unless the device has set more or fewer */

    /* Set by the transport at its realize. */
    struct bus_lock *lock;
    /* Something happened on queue q, or VIRTIO_CONFIG_CHANGE; isr is set. Lock held. */
    void (*raise)(void *transport, int q);
    /* The ISR was cleared by a reset; lock held. */
    void (*lower)(void *transport);
    void *transport;

    uint64_t features; /* accepted by the driver */
    uint8_t status, isr;
    uint32_t config_generation;
    struct virtq queue[VIRTIO_MAX_QUEUES];

    _Atomic unsigned bells; /* a bit a queue that waits for the main loop */
    struct virtio_sg *walk; /* scratch of virtq_pop, VIRTIO_MAX_CHAIN long */
    uint64_t nowhere[2];    /* what a ring that was taken away is read from and written to */
};

/* State of the common part, nested as field "virtio" in the table of each device. */
extern const struct st_table virtio_state;
#define VIRTIO_ST_FIELD                                                                        \
    {                                                                                          \
        .name = "virtio", .kind = ST_STRUCT, .offset = 0, .count = 1,                          \
        .stride = sizeof(struct virtio), .since = 1, .table = &virtio_state,                   \
        .doc = "status, features and queues"                                                   \
    }

/* --- for devices --- */

/* At realize and destroy of a device. `ops` is constant; `n_queues` 0: as it says. */
void virtio_setup(struct virtio *v, const struct virtio_ops *ops, unsigned n_queues,
                  uint64_t features);
void virtio_done(struct virtio *v);

/* The next request of queue q, or NULL when there is none or the driver broke the ring. Main
 * loop, lock held. */
struct virtio_elem *virtq_pop(struct virtio *v, unsigned q);
/* Returns a request with `written` bytes of its in part filled (their mem_written() is done
 * here). Requests from before a reset are just freed. Lock held. */
void virtq_push(struct virtio *v, unsigned q, struct virtio_elem *el, uint64_t written);
/* The same for `n` requests popped in this order that are one answer: the driver sees all of them or none, as it needs for a
 * packet in several buffers (virtio 1.2 §5.1.6.4). */
void virtq_push_all(struct virtio *v, unsigned q, struct virtio_elem *const *el,
                    const uint64_t *written, unsigned n);
/* Tells the driver about pushes, if it wants to know. After a batch; lock held. */
void virtq_signal(struct virtio *v, unsigned q);
/* Asks the driver to ring for further requests; true when some arrived meanwhile: go on
 * popping. */
bool virtq_rearm(struct virtio *v, unsigned q);
void virtio_elem_free(struct virtio_elem *el);
/* False for a request from before a reset, whose memory is the guest's again. Lock held. */
bool virtq_live(const struct virtio *v, unsigned q, const struct virtio_elem *el);
/* Puts the request popped last back to the ring, as if it had never been taken. Lock held. */
void virtq_unpop(struct virtio *v, unsigned q, struct virtio_elem *el);
/* The device's configuration changed: generation and interrupt. Lock held. */
void virtio_config_changed(struct virtio *v);
/* The driver did something forbidden: traced, DEVICE_NEEDS_RESET. Lock held. */
void virtio_broken(struct virtio *v, const char *what);
bool virtio_working(const struct virtio *v); /* DRIVER_OK and not broken */
/* False while the VM is paused: requests and completions then wait for virtio_resumed(). */
bool virtio_may_run(const struct virtio *v);

/* Copies between a request and a buffer, skipping `skip` bytes of its out or in part first;
 * returns the bytes copied. */
size_t virtio_get(const struct virtio_elem *el, uint64_t skip, void *out, size_t n);
size_t virtio_put(struct virtio_elem *el, uint64_t skip, const void *in, size_t n);

/* device_class.resumed of every virtio device: serves what came while the VM was paused. */
void virtio_resumed(struct device *d);

/* --- for transports (lock held unless said) --- */

void virtio_ring(
    struct virtio *v,
    unsigned q); /* any thread, with or without lock: serve q on the main loop soon */
/* The driver rang the bell of queue q; a vCPU's thread, lock held. */
void virtio_notified(struct virtio *v, unsigned q);
/* The same, for mem_bells.rung: `arg` is the struct virtio. Main loop, without lock. */
void virtio_rung(void *arg, unsigned q);
void virtio_ring_all(struct virtio *v); /* all queues that are ready */
void virtio_reset(struct virtio *v);
uint8_t virtio_set_status(struct virtio *v, uint8_t status); /* returns the new status */
uint32_t virtio_offered(const struct virtio *v, uint32_t select);
void virtio_accept(struct virtio *v, uint32_t select, uint32_t bits);
void virtq_set_ready(struct virtio *v, unsigned q, bool ready);
uint64_t virtio_config_read(struct virtio *v, uint64_t offset, unsigned size);
void virtio_config_write(struct virtio *v, uint64_t offset, uint64_t value, unsigned size);

#endif
