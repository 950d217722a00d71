/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Virtio devices, the part above the rings: negotiation, status, bells, configuration space
 * (virtio 1.2 §2.1 to §2.5, §3). Transport threads enter with the transport's lock held;
 * virtio_service() runs on the main loop.
 */
#include "devices/virtio/virtio.h"

#include "engine/base/log.h"
#include "engine/core/replay.h"
#include "engine/core/vm.h"

#include <errno.h>
#include <string.h>

void virtio_setup(struct virtio *v, const struct virtio_ops *ops, unsigned n_queues,
                  uint64_t features)
{
    v->ops = ops;
    v->offered = features | VIRTIO_F_VERSION_1 | VIRTIO_F_INDIRECT_DESC | VIRTIO_F_EVENT_IDX;
    v->n_queues = n_queues ? n_queues : ops->n_queues;
    v->lock = &v->dev.lock;
    v->walk = xnew_n(struct virtio_sg, VIRTIO_MAX_CHAIN);
    for (unsigned q = 0; q < v->n_queues; q++) {
        uint32_t max = ops->queue_max[q < ops->n_queues ? q : ops->n_queues - 1];

        v->queue[q].max = v->queue[q].num = max;
        v->queue[q].avail_wrap = v->queue[q].used_wrap = true;
    }
}

void virtio_done(struct virtio *v)
{
    free(v->walk);
    v->walk = NULL;
}

bool virtio_working(const struct virtio *v)
{
    return (v->status & VIRTIO_STATUS_DRIVER_OK) &&
           !(v->status & (VIRTIO_STATUS_NEEDS_RESET | VIRTIO_STATUS_FAILED));
}

bool virtq_live(const struct virtio *v, unsigned q, const struct virtio_elem *el)
{
    return el->generation == v->queue[q].generation;
}

bool virtio_may_run(const struct virtio *v)
{
    return v->dev.vm->state == VM_RUNNING;
}

static void config_raise(struct virtio *v)
{
    v->isr |= VIRTIO_ISR_CONFIG;
    if (v->raise) {
        v->raise(v->transport, VIRTIO_CONFIG_CHANGE);
    }
}

void virtio_config_changed(struct virtio *v)
{
    v->config_generation++;
    if (v->status & VIRTIO_STATUS_DRIVER_OK) {
        config_raise(v);
    }
}

void virtio_broken(struct virtio *v, const char *what)
{
    log_trace('v', "%s: %s; the driver has to reset the device", v->dev.id, what);
    v->status |= VIRTIO_STATUS_NEEDS_RESET;
    if (v->status & VIRTIO_STATUS_DRIVER_OK) {
        config_raise(v);
    }
}

/* Main loop: serves the queues whose bell was rung. While paused the bells stay. */
static void virtio_service(void *arg)
{
    struct virtio *v = arg;
    unsigned bells;

    bus_lock(v->lock);
    if (virtio_may_run(v)) {
        bells = atomic_exchange(&v->bells, 0);
        for (unsigned q = 0; q < v->n_queues; q++) {
            if ((bells >> q & 1) && virtio_working(v)) {
                v->ops->serve(v, q);
            }
        }
    }
    bus_unlock(v->lock);
}

void virtio_ring(struct virtio *v, unsigned q)
{
    if (q < v->n_queues && !(atomic_fetch_or(&v->bells, 1u << q) >> q & 1)) {
        vm_post(v->dev.vm, virtio_service, v);
    }
}

void virtio_rung(void *arg, unsigned q)
{
    struct virtio *v = arg;

    atomic_fetch_or(&v->bells, 1u << q);
    virtio_service(v);
}

void virtio_notified(struct virtio *v, unsigned q)
{
    if (v->ops->prompt && q < v->n_queues && clock_driven(v->dev.vm->clock) &&
        virtio_may_run(v) && virtio_working(v)) {
        v->ops->serve(v, q);
    } else {
        virtio_ring(v, q);
    }
}

void virtio_ring_all(struct virtio *v)
{
    unsigned bells = 0;

    for (unsigned q = 0; q < v->n_queues; q++) {
        bells |= (unsigned)v->queue[q].ready << q;
    }
    atomic_fetch_or(&v->bells, bells);
    vm_post(v->dev.vm, virtio_service, v);
}

void virtio_resumed(struct device *d)
{
    struct virtio *v = (struct virtio *)d;

    if (virtio_working(v)) {
        virtio_ring_all(v);
    }
}

void virtio_reset(struct virtio *v)
{
    if (v->ops->reset) {
        v->ops->reset(v);
    }
    v->status = v->isr = 0;
    v->features = 0;
    atomic_store(&v->bells, 0);
    for (unsigned q = 0; q < v->n_queues; q++) {
        v->queue[q] = (struct virtq){ .max = v->queue[q].max,
                                      .num = v->queue[q].max,
                                      .avail_wrap = true,
                                      .used_wrap = true,
                                      .generation = v->queue[q].generation + 1 };
    }
    if (v->lower) {
        v->lower(v->transport);
    }
}

uint8_t virtio_set_status(struct virtio *v, uint8_t status)
{
    if (status == 0) {
        virtio_reset(v);
        return 0;
    }
    /* Features that were not offered, a driver from before 1.0, or one that knows nothing of the IOMMU
     * before it, are refused by not setting FEATURES_OK. */
    if ((status & VIRTIO_STATUS_FEATURES_OK) && !(v->status & VIRTIO_STATUS_FEATURES_OK) &&
        ((v->features & ~v->offered) || !(v->features & VIRTIO_F_VERSION_1) ||
         (v->offered & ~v->features & VIRTIO_F_ACCESS_PLATFORM))) {
        log_trace('v', "%s: driver asks for features 0x%llx of 0x%llx", v->dev.id,
                  (unsigned long long)v->features, (unsigned long long)v->offered);
        status &= ~VIRTIO_STATUS_FEATURES_OK;
    }
    if ((status & VIRTIO_STATUS_DRIVER_OK) && !(status & VIRTIO_STATUS_FEATURES_OK)) {
        log_trace('v', "%s: DRIVER_OK without FEATURES_OK", v->dev.id);
        status &= ~VIRTIO_STATUS_DRIVER_OK;
    }
    /* Bits cannot be taken back except by a reset; DEVICE_NEEDS_RESET is the device's. */
    v->status |= status & ~VIRTIO_STATUS_NEEDS_RESET;
    if (virtio_working(v)) {
        virtio_ring_all(v);
    }
    return v->status;
}

uint32_t virtio_offered(const struct virtio *v, uint32_t select)
{
    return select < 2 ? (uint32_t)(v->offered >> (32 * select)) : 0;
}

void virtio_accept(struct virtio *v, uint32_t select, uint32_t bits)
{
    if (v->status & VIRTIO_STATUS_FEATURES_OK) {
        log_trace('v', "%s: features written after FEATURES_OK", v->dev.id);
    } else if (select < 2) {
        v->features &= ~((uint64_t)UINT32_MAX << (32 * select));
        v->features |= (uint64_t)bits << (32 * select);
    } else if (bits) {
        log_trace('v', "%s: driver accepts features above bit 63", v->dev.id);
    }
}

/* A split ring has a power of two of entries, a packed one any number. */
static bool size_ok(const struct virtio *v, const struct virtq *vq)
{
    return vq->num > 0 && vq->num <= vq->max &&
           ((v->features & VIRTIO_F_RING_PACKED) || !(vq->num & (vq->num - 1)));
}

void virtq_set_ready(struct virtio *v, unsigned q, bool ready)
{
    struct virtq *vq = &v->queue[q];

    if (ready && !vq->ready) {
        /* Descriptors and the three parts of a queue have their alignments (virtio 1.2 §2.7,
         * §2.8). */
        if (!size_ok(v, vq) || vq->desc % 16 || vq->used % 4 ||
            vq->avail % (v->features & VIRTIO_F_RING_PACKED ? 4 : 2)) {
            log_trace('v', "%s: queue %u: size %u or its addresses are not valid", v->dev.id, q,
                      vq->num);
            return;
        }
        vq->last_avail = vq->used_idx = vq->signalled = 0;
        vq->signalled_valid = false;
        vq->avail_wrap = vq->used_wrap = true;
    }
    if (!ready && vq->ready) {
        vq->generation++;
    }
    vq->ready = ready;
    if (ready && virtio_working(v)) {
        virtio_ring(v, q);
    }
}

uint64_t virtio_config_read(struct virtio *v, uint64_t offset, unsigned size)
{
    uint8_t bytes[VIRTIO_MAX_CONFIG] = { 0 };
    uint64_t value = 0;

    if (!v->ops->config || offset + size > v->ops->config_size) {
        return 0;
    }
    v->ops->config(v, bytes);
    for (unsigned i = 0; i < size; i++) {
        value |= (uint64_t)bytes[offset + i] << (8 * i);
    }
    return value;
}

void virtio_config_write(struct virtio *v, uint64_t offset, uint64_t value, unsigned size)
{
    if (v->ops->config_written && offset + size <= v->ops->config_size) {
        v->ops->config_written(v, (uint32_t)offset, value, size);
    } else {
        log_trace('v', "%s: write of read-only configuration at 0x%llx", v->dev.id,
                  (unsigned long long)offset);
    }
}

/* What the driver only prepared (an odd size, features not yet checked) may be anything. */
static int virtio_loaded(void *obj, struct err *e)
{
    struct virtio *v = obj;
    uint64_t lacking = v->features & ~v->offered;

    for (unsigned q = 0; q < VIRTIO_MAX_QUEUES; q++) {
        const struct virtq *vq = &v->queue[q];

        if (vq->ready && (q >= v->n_queues || !size_ok(v, vq))) {
            return err_set(e, -EINVAL, "%s: queue %u has an impossible size %u", v->dev.id, q,
                           vq->num);
        }
        if (vq->ready && (v->features & VIRTIO_F_RING_PACKED) &&
            (vq->last_avail >= vq->num || vq->used_idx >= vq->num)) {
            return err_set(e, -EINVAL, "%s: queue %u is outside its packed ring", v->dev.id, q);
        }
    }
    if ((v->status & VIRTIO_STATUS_FEATURES_OK) && lacking) {
        return err_set(e, -EINVAL, "%s: state uses features 0x%llx that this device lacks",
                       v->dev.id, (unsigned long long)lacking);
    }
    return 0;
}

static const struct st_field virtq_fields[] = {
    ST_FIELD(struct virtq, num, ST_U32, 1, "entries"),
    ST_FIELD(struct virtq, ready, ST_BOOL, 1, "in use"),
    ST_FIELD(struct virtq, desc, ST_U64, 1, "address of the descriptor table"),
    ST_FIELD(struct virtq, avail, ST_U64, 1, "address of the available ring"),
    ST_FIELD(struct virtq, used, ST_U64, 1, "address of the used ring"),
    ST_FIELD(struct virtq, last_avail, ST_U16, 1, "next available entry to take"),
    ST_FIELD(struct virtq, used_idx, ST_U16, 1, "next used entry to fill"),
    ST_FIELD(struct virtq, signalled, ST_U16, 1, "used index at the last interrupt"),
    ST_FIELD(struct virtq, signalled_valid, ST_BOOL, 1, "there was a last interrupt"),
    ST_FIELD(struct virtq, avail_wrap, ST_BOOL, 2,
             "packed ring: wrap counter of what is taken"),
    ST_FIELD(struct virtq, used_wrap, ST_BOOL, 2,
             "packed ring: wrap counter of what is filled"),
    ST_END,
};
static const struct st_table virtq_state = {
    .name = "virtq",
    .version = 2,
    .fields = virtq_fields,
};
static const struct st_field virtio_fields[] = {
    ST_FIELD(struct virtio, features, ST_U64, 1, "features accepted by the driver"),
    ST_FIELD(struct virtio, status, ST_U8, 1, "device status"),
    ST_FIELD(struct virtio, isr, ST_U8, 1, "interrupt causes not yet acknowledged"),
    ST_FIELD(struct virtio, config_generation, ST_U32, 1, "version of the configuration space"),
    { .name = "queue",
      .kind = ST_STRUCT,
      .offset = offsetof(struct virtio, queue),
      .count = VIRTIO_MAX_QUEUES,
      .stride = sizeof(struct virtq),
      .since = 1,
      .table = &virtq_state,
      .doc = "virtqueues" },
    ST_END,
};
const struct st_table virtio_state = {
    .name = "virtio",
    .version = 1,
    .fields = virtio_fields,
    .loaded = virtio_loaded,
};
