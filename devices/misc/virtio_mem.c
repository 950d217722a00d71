/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio-mem: memory that a guest plugs and unplugs in blocks while it runs (virtio 1.2 §5.15). Main loop, transport's lock.
 *
 * The memory belongs to the board, and is as large as it can ever become, but only blocks that are plugged are in the VM's
 * memory map: an alias each, on or off. What is not plugged is a hole as any other: it reads as nothing there is, devices do not
 * reach it, and it takes no memory of the host. So a guest has what it was asked to have, and no driver has to be trusted
 * (the feature UNPLUGGED_INACCESSIBLE says so to it).
 *
 * The map changes with every vCPU at the barrier, and nobody may wait for that with a device's lock held: a bell only
 * arms a timer, which serves the queue there. Blocks that go are given back to the host at once, and once more a moment later, since a
 * disk's request that was under way into one may still have ended there. While memory is watched (a save of a running guest, a load that is
 * still coming) requests are answered with BUSY, and drivers ask again.
 */
#include "devices/misc/virtio_mem.h"

#include "devices/registry.h"
#include "devices/virtio/virtio.h"
#include "engine/base/log.h"
#include "engine/base/str.h"
#include "engine/core/vm.h"

#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define QUEUE_SIZE 128
#define F_ACPI_PXM (1ull << 0) /* not offered: there is one node */
#define F_INACCESSIBLE (1ull << 1)
#define SWEEP_NS INT64_C(1000000000)

enum { REQ_PLUG, REQ_UNPLUG, REQ_UNPLUG_ALL, REQ_STATE };
enum { RESP_ACK, RESP_NACK, RESP_BUSY, RESP_ERROR };
enum { STATE_PLUGGED, STATE_UNPLUGGED, STATE_MIXED };

struct vmem {
    struct virtio v;
    uint64_t addr, size, block, requested; /* properties, bytes */
    struct mem_region *ram;
    struct virtio_mem_watch *watch;

    struct mem_region *room;   /* at addr; holds the aliases */
    struct mem_region **alias; /* a block each */
    uint32_t n_blocks;
    uint64_t kept_block; /* of a saved state, to be compared with block */
    uint32_t kept_blocks;
    uint8_t plugged[VIRTIO_MEM_BLOCKS / 8];
    uint32_t n_plugged;
    bool changed; /* the map is behind `plugged` */
    bool leaving; /* nothing may be plugged */
    struct loop_timer *work, *sweep;
};

struct request {
    uint16_t type, pad[3];
    uint64_t addr;
    uint16_t n_blocks, pad2[3];
};

struct response {
    uint16_t type, pad[3];
    uint16_t state;
} __attribute__((packed));

struct config {
    uint64_t block_size;
    uint16_t node, pad[3];
    uint64_t addr, region_size, usable_size, plugged_size, requested_size;
};

/* --- blocks -------------------------------------------------------------------------------------------------- */

static bool has(const struct vmem *m, uint32_t i)
{
    return m->plugged[i / 8] >> i % 8 & 1;
}

/* How many of [first, first + n) are plugged. */
static uint32_t count(const struct vmem *m, uint32_t first, uint32_t n)
{
    uint32_t sum = 0;

    for (uint32_t i = first; i < first + n; i++) {
        sum += has(m, i);
    }
    return sum;
}

static void mark(struct vmem *m, uint32_t first, uint32_t n, bool on)
{
    for (uint32_t i = first; i < first + n; i++) {
        uint8_t bit = (uint8_t)(1u << i % 8);

        m->plugged[i / 8] = on ? m->plugged[i / 8] | bit : m->plugged[i / 8] & (uint8_t)~bit;
        mem_set_enabled(m->alias[i], on);
    }
    m->n_plugged = on ? m->n_plugged + n : m->n_plugged - n;
    m->changed = m->changed || n > 0;
}

/* The guest's bytes go while the map still has the blocks: dirty pages are marked, translated code is dropped. */
static void unplug(struct vmem *m, uint32_t first, uint32_t n)
{
    (void)mem_discard(m->v.dev.vm->mem, m->addr + first * m->block, n * m->block);
    mark(m, first, n, false);
    loop_timer_arm(m->sweep, SWEEP_NS);
}

static void unplug_all(struct vmem *m)
{
    for (uint32_t i = 0, n; i < m->n_blocks; i += n) {
        for (n = 1; has(m, i) && i + n < m->n_blocks && has(m, i + n); n++) {
        }
        if (has(m, i)) {
            unplug(m, i, n);
        }
    }
}

/* At the barrier, lock held. */
static void commit(struct vmem *m)
{
    if (m->changed) {
        m->changed = false;
        mem_commit(m->v.dev.vm->mem);
        if (m->watch) {
            m->watch->changed(m->watch->arg, &m->v.dev);
        }
    }
}

/* What ended in a block after it had gone goes, too. */
static void on_sweep(void *arg)
{
    struct vmem *m = arg;

    if (mem_held(m->v.dev.vm->mem)) {
        loop_timer_arm(m->sweep, SWEEP_NS);
        return;
    }
    bus_lock(m->v.lock);
    for (uint32_t i = 0, n; i < m->n_blocks; i += n) {
        for (n = 1; i + n < m->n_blocks && has(m, i + n) == has(m, i); n++) {
        }
        if (!has(m, i)) {
            mem_region_clear(m->ram, i * m->block, n * m->block);
        }
    }
    bus_unlock(m->v.lock);
}

/* --- requests ------------------------------------------------------------------------------------------------ */

/* The blocks that a request names; false: there are no such. */
static bool blocks_of(const struct vmem *m, const struct request *r, uint32_t *first,
                      uint32_t *n)
{
    uint64_t addr = le64toh(r->addr), at = addr - m->addr;

    *n = le16toh(r->n_blocks);
    *first = (uint32_t)(at / m->block);
    return addr >= m->addr && at < m->size && at % m->block == 0 && *n > 0 &&
           *n <= m->n_blocks - *first;
}

static uint16_t do_plug(struct vmem *m, uint32_t first, uint32_t n)
{
    if (count(m, first, n) != 0) {
        return RESP_ERROR;
    }
    if (!(m->v.features & F_INACCESSIBLE) || (m->n_plugged + n) * m->block > m->requested) {
        return RESP_NACK;
    }
    if (mem_held(m->v.dev.vm->mem)) {
        return RESP_BUSY;
    }
    mark(m, first, n, true);
    return RESP_ACK;
}

static uint16_t do_unplug(struct vmem *m, uint32_t first, uint32_t n)
{
    if (count(m, first, n) != n) {
        return RESP_ERROR;
    }
    if (mem_held(m->v.dev.vm->mem)) {
        return RESP_BUSY;
    }
    unplug(m, first, n);
    return RESP_ACK;
}

static uint16_t do_unplug_all(struct vmem *m)
{
    if (m->n_plugged > 0 && mem_held(m->v.dev.vm->mem)) {
        return RESP_BUSY;
    }
    unplug_all(m);
    return RESP_ACK;
}

static uint16_t state_of(const struct vmem *m, uint32_t first, uint32_t n)
{
    uint32_t on = count(m, first, n);

    return on == n ? STATE_PLUGGED : on == 0 ? STATE_UNPLUGGED : STATE_MIXED;
}

static struct response answer(struct vmem *m, const struct request *r)
{
    struct response out = { .type = RESP_ERROR };
    uint16_t type = le16toh(r->type);
    uint32_t first, n;

    if (type == REQ_UNPLUG_ALL) {
        out.type = do_unplug_all(m);
    } else if (type > REQ_STATE || !blocks_of(m, r, &first, &n)) {
        log_trace('v', "%s: request %u of %u blocks at 0x%llx, which there are not",
                  m->v.dev.id, type, le16toh(r->n_blocks),
                  (unsigned long long)le64toh(r->addr));
    } else if (type == REQ_STATE) {
        out.type = RESP_ACK;
        out.state = htole16(state_of(m, first, n));
    } else {
        out.type = type == REQ_PLUG ? do_plug(m, first, n) : do_unplug(m, first, n);
    }
    out.type = htole16(out.type);
    return out;
}

static void serve_all(struct vmem *m)
{
    struct virtio *v = &m->v;

    for (unsigned i = 0; i < QUEUE_SIZE; i++) {
        struct virtio_elem *el = virtq_pop(v, 0);
        struct request r = { 0 };
        struct response out;

        if (!el && !virtq_rearm(v, 0)) {
            break;
        }
        if (!el) {
            continue;
        }
        if (virtio_get(el, 0, &r, sizeof(r)) < sizeof(r) || el->in_len < sizeof(out)) {
            virtio_broken(v, "a request is too short");
            virtio_elem_free(el);
            break;
        }
        out = answer(m, &r);
        virtq_push(v, 0, el, virtio_put(el, 0, &out, sizeof(out)));
    }
    virtq_signal(v, 0);
}

static void at_barrier(void *arg)
{
    struct vmem *m = arg;

    bus_lock(m->v.lock);
    serve_all(m);
    commit(m);
    bus_unlock(m->v.lock);
}

/* No lock is held: a vCPU on its way to the barrier may want it. */
static void on_work(void *arg)
{
    struct vmem *m = arg;

    if (!virtio_may_run(&m->v) || !virtio_working(&m->v)) {
        return; /* virtio_resumed(), or the driver, rings again */
    }
    vm_at_barrier(m->v.dev.vm, at_barrier, m);
    virtio_ring(&m->v, 0); /* what a full turn has left */
}

static bool more(struct vmem *m)
{
    struct virtio_elem *el = virtq_pop(&m->v, 0);

    if (el) {
        virtq_unpop(&m->v, 0, el);
    }
    return el != NULL || virtq_rearm(&m->v, 0);
}

static void vmem_serve(struct virtio *v, unsigned q)
{
    struct vmem *m = (struct vmem *)v;

    (void)q;
    if (more(m)) {
        loop_timer_arm(m->work, 0);
    }
}

/* --- configuration space ------------------------------------------------------------------------------------- */

static void vmem_config(struct virtio *v, uint8_t *out)
{
    const struct vmem *m = (const struct vmem *)v;
    struct config c = { .block_size = htole64(m->block),
                        .addr = htole64(m->addr),
                        .region_size = htole64(m->size),
                        .usable_size = htole64(m->size),
                        .plugged_size = htole64(m->n_plugged * m->block),
                        .requested_size = htole64(m->requested) };

    memcpy(out, &c, sizeof(c));
}

/* --- the host's side ----------------------------------------------------------------------------------------- */

uint64_t virtio_mem_block(uint64_t size)
{
    uint64_t block = VIRTIO_MEM_BLOCK;

    while (size / block > VIRTIO_MEM_BLOCKS) {
        block *= 2;
    }
    return block;
}

int virtio_mem_check(uint64_t size, uint64_t block, uint64_t requested, struct err *e)
{
    char text[40];

    str_size(block, text, sizeof(text));
    if (block < VIRTIO_MEM_BLOCK || (block & (block - 1))) {
        return err_set(e, -EINVAL, "blocks of %s: a power of two of 2 MiB or more is needed",
                       text);
    }
    if (size == 0 || size % block || requested % block) {
        return err_set(e, -EINVAL, "its sizes must be multiples of its block, %s", text);
    }
    if (size / block > VIRTIO_MEM_BLOCKS) {
        return err_set(e, -EINVAL, "%llu blocks of %s: at most %d, so take larger ones",
                       (unsigned long long)(size / block), text, VIRTIO_MEM_BLOCKS);
    }
    if (requested > size) {
        return err_set(e, -EINVAL, "the guest cannot be asked to have more than its size");
    }
    return 0;
}

void virtio_mem_view(struct device *d, struct vmem_view *out)
{
    struct vmem *m = (struct vmem *)d;

    bus_lock(m->v.lock);
    *out = (struct vmem_view){ .addr = m->addr,
                               .size = m->size,
                               .block = m->block,
                               .requested = m->requested,
                               .plugged = m->n_plugged * m->block,
                               .driver = virtio_working(&m->v) };
    bus_unlock(m->v.lock);
}

int virtio_mem_request(struct device *d, uint64_t bytes, struct err *e)
{
    struct vmem *m = (struct vmem *)d;
    int rc = virtio_mem_check(m->size, m->block, bytes, e);

    if (rc == 0 && bytes > 0 && m->leaving) {
        return err_set(e, -EBUSY, "it is on its way out");
    }
    if (rc == 0) {
        bus_lock(m->v.lock);
        m->requested = bytes;
        if (bytes != m->n_plugged * m->block) { /* also once more: drivers wait for minutes before they try again */
            virtio_config_changed(&m->v);
        }
        bus_unlock(m->v.lock);
    }
    return rc;
}

int virtio_mem_leave(struct device *d, struct err *e)
{
    struct vmem *m = (struct vmem *)d;
    uint64_t plugged;

    bus_lock(m->v.lock);
    plugged = m->n_plugged * m->block;
    m->leaving = m->leaving || (plugged == 0 && m->requested == 0);
    bus_unlock(m->v.lock);
    return m->leaving ? 0
                      : err_set(e, -EBUSY, "the guest has %llu MiB of it, and is to have %llu",
                                (unsigned long long)(plugged >> 20),
                                (unsigned long long)(m->requested >> 20));
}

void virtio_mem_stay(struct device *d)
{
    ((struct vmem *)d)->leaving = false;
}

/* --- the class ----------------------------------------------------------------------------------------------- */

static const struct virtio_ops vmem_ops = {
    .id = 24,
    .n_queues = 1,
    .queue_max = { QUEUE_SIZE },
    .config_size = sizeof(struct config),
    .serve = vmem_serve,
    .config = vmem_config,
};

/* From the last to the first: the map is then painted in ascending order. */
static int map_blocks(struct vmem *m, struct err *e)
{
    int rc = mem_map(m->v.dev.vm->root, m->addr, 0, m->room, e);

    for (uint32_t i = m->n_blocks; i > 0 && rc == 0; i--) {
        struct mem_region *a = mem_new_alias("block", m->ram, (i - 1) * m->block, m->block);

        m->alias[i - 1] = a;
        mem_set_enabled(a, false);
        rc = mem_map(m->room, (i - 1) * m->block, 0, a, e);
    }
    return rc;
}

static int vmem_realize(struct device *d, struct err *e)
{
    struct vmem *m = (struct vmem *)d;
    int rc;

    m->block = m->block ? m->block : virtio_mem_block(m->size);
    rc = virtio_mem_check(m->size, m->block, m->requested, e);
    if (rc == 0 &&
        (!m->ram || mem_region_size(m->ram) != m->size || m->addr % VIRTIO_MEM_ALIGN)) {
        rc = err_set(e, -EINVAL,
                     "its memory is not of its size, or not at a multiple of 1 GiB");
    }
    if (rc != 0) {
        return rc;
    }
    virtio_setup(&m->v, &vmem_ops, 0, F_INACCESSIBLE);
    m->n_blocks = m->kept_blocks = (uint32_t)(m->size / m->block);
    m->kept_block = m->block;
    m->work = loop_timer_new(d->vm->loop, on_work, m);
    m->sweep = loop_timer_new(d->vm->loop, on_sweep, m);
    m->room = mem_new_container(d->id, m->size);
    m->alias = xnew_n(struct mem_region *, m->n_blocks);
    return map_blocks(m, e);
}

/* Of the machine, with every vCPU at the barrier: a guest that starts anew has its base memory alone. A reset by the driver
 * changes nothing (virtio 1.2 §5.15.6.2). Memory that is watched stays, until the driver asks (UNPLUG_ALL). */
static void vmem_reset(struct device *d)
{
    struct vmem *m = (struct vmem *)d;

    if (m->n_plugged > 0 && !mem_held(d->vm->mem)) {
        unplug_all(m);
        commit(m);
    }
}

static void vmem_destroy(struct device *d)
{
    struct vmem *m = (struct vmem *)d;

    for (uint32_t i = 0; m->alias && i < m->n_blocks; i++) {
        mem_free(m->alias[i]);
    }
    free(m->alias);
    mem_free(m->room);
    loop_timer_free(m->work);
    loop_timer_free(m->sweep);
    virtio_done(&m->v);
}

static int vmem_loaded(void *obj, struct err *e)
{
    struct vmem *m = obj;
    uint32_t n = 0;

    if (m->kept_block != m->block || m->kept_blocks != m->n_blocks) {
        return err_set(e, -EINVAL,
                       "%s: state of %u blocks of %llu bytes, where the device has %u of %llu",
                       m->v.dev.id, m->kept_blocks, (unsigned long long)m->kept_block,
                       m->n_blocks, (unsigned long long)m->block);
    }
    for (uint32_t i = 0; i < VIRTIO_MEM_BLOCKS; i++) {
        if (has(m, i) && i >= m->n_blocks) {
            return err_set(e, -EINVAL, "%s: state has block %u of %u", m->v.dev.id, i,
                           m->n_blocks);
        }
        n += has(m, i);
    }
    if (m->requested > m->size || m->requested % m->block) {
        return err_set(e, -EINVAL, "%s: state asks for an impossible size", m->v.dev.id);
    }
    for (uint32_t i = 0; i < m->n_blocks; i++) {
        mem_set_enabled(m->alias[i], has(m, i));
    }
    m->n_plugged = n;
    m->changed = true;
    commit(m); /* the VM stands still while a state is loaded */
    return 0;
}

static const struct st_field vmem_fields[] = {
    VIRTIO_ST_FIELD,
    ST_FIELD(struct vmem, kept_block, ST_U64, 1, "bytes of a block"),
    ST_FIELD(struct vmem, kept_blocks, ST_U32, 1, "how many blocks there are"),
    ST_FIELD(struct vmem, requested, ST_U64, 1, "bytes that the guest is asked to have"),
    { .name = "plugged",
      .kind = ST_BYTES,
      .offset = offsetof(struct vmem, plugged),
      .count = VIRTIO_MEM_BLOCKS / 8,
      .since = 1,
      .doc = "a bit a block that the guest has" },
    ST_END,
};
static const struct st_table vmem_state = {
    .name = "virtio-mem",
    .version = 1,
    .fields = vmem_fields,
    .loaded = vmem_loaded,
};

#define FIELD(m) offsetof(struct vmem, m)
static const struct dev_prop vmem_props[] = {
    { .name = "memaddr",
      .kind = PROP_U64,
      .offset = FIELD(addr),
      .required = true,
      .doc = "guest physical address, a multiple of 1 GiB" },
    { .name = "max-size",
      .kind = PROP_U64,
      .offset = FIELD(size),
      .required = true,
      .doc = "bytes that it can have at most" },
    { .name = "block-size",
      .kind = PROP_U64,
      .offset = FIELD(block),
      .doc = "bytes that come and go together; 0: what fits its size" },
    { .name = "requested-size",
      .kind = PROP_U64,
      .offset = FIELD(requested),
      .doc = "bytes that the guest is asked to have at first" },
    { .name = "ram",
      .kind = PROP_PTR,
      .offset = FIELD(ram),
      .required = true,
      .doc = "the memory, the board's" },
    { .name = "watch",
      .kind = PROP_PTR,
      .offset = FIELD(watch),
      .doc = "who is told of its size" },
    { .name = NULL },
};

const struct device_class virtio_mem_class = {
    .name = "virtio-mem",
    .doc = "memory that comes and goes in blocks (virtio 1.2 §5.15)",
    .size = sizeof(struct vmem),
    .props = vmem_props,
    .state = &vmem_state,
    .realize = vmem_realize,
    .reset = vmem_reset,
    .resumed = virtio_resumed,
    .destroy = vmem_destroy,
};
