/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio-scsi: a SCSI host adapter (virtio 1.2 §5.6) with disks and CD-ROM drives, which it owns.
 * Commands are taken, carried out and completed on the main loop; data moves straight between
 * guest RAM and the block nodes. The transport's lock covers all.
 *
 * While the VM is paused completions are kept back, so that nothing changes in the rings. A task
 * management function that ends commands answers when the last of them has left.
 */
#include "devices/registry.h"
#include "devices/scsi/units.h"
#include "devices/virtio/virtio.h"
#include "engine/base/log.h"
#include "engine/base/mem.h"
#include "engine/core/vm.h"

#include <endian.h>
#include <errno.h>
#include <string.h>

enum { Q_CONTROL = 0, Q_EVENT = 1, Q_REQUEST = 2 };
enum { QUEUE_SIZE = 256, CONTROL_SIZE = 64 };
enum { DEFAULT_SENSE = 96, DEFAULT_CDB = 32, MAX_TARGET = 255, MAX_LUN = 255 };
enum { F_HOTPLUG = 1 << 1, F_CHANGE = 1 << 2 };
enum {
    R_OK = 0,
    R_OVERRUN = 1,
    R_ABORTED = 2,
    R_BAD_TARGET = 3,
    R_RESET = 4,
    R_FAILURE = 9,
    R_SUCCEEDED = 10,
    R_REJECTED = 11,
    R_BAD_LUN = 12
};
enum { T_TMF = 0, T_AN_QUERY = 1, T_AN_SUBSCRIBE = 2 };
enum {
    TMF_ABORT_TASK,
    TMF_ABORT_TASK_SET,
    TMF_CLEAR_ACA,
    TMF_CLEAR_TASK_SET,
    TMF_NEXUS_RESET,
    TMF_UNIT_RESET,
    TMF_QUERY_TASK,
    TMF_QUERY_TASK_SET
};
enum { EVENT_TRANSPORT_RESET = 1, EVENT_PARAM_CHANGE = 3 };
enum { REASON_RESCAN = 1, REASON_REMOVED = 2, REASON_CAPACITY = 0x092a };
enum { MAX_PLUGS = 32 };

struct vscsi {
    struct virtio v;
    struct scsi_units *units; /* property, taken; NULL once they are in unit[] */
    struct scsi_unit unit[SCSI_MAX_UNITS];
    struct scsi_bus bus;
    uint64_t queues;
    bool packed;
    uint32_t sense_size, cdb_size; /* the driver sets them */
    uint64_t changed;              /* units whose new capacity the driver was not told yet */
    uint32_t plugs
        [MAX_PLUGS]; /* that the driver was not told yet: reason << 24 | target << 8 | LUN */
    uint32_t n_plugs;
    struct list in_flight; /* struct vscsi_req.node */
    struct list finished;  /* while paused: completed, not yet shown to the guest */
    struct list tmfs;      /* struct vscsi_tmf.node: wait for commands to leave */
};

struct vscsi_tmf {
    struct list node;
    struct virtio_elem *el;
    unsigned waits; /* commands that are still under way */
};

struct vscsi_req {
    struct scsi_cmd cmd;
    struct list node;
    struct vscsi *owner;
    struct vscsi_tmf *tmf; /* that ends it */
    struct virtio_elem *el;
    unsigned q;
    uint8_t response, lun[8];
    uint64_t tag;
    struct iovec iov[];
};

struct tmf_request {
    uint32_t type, subtype;
    uint8_t lun[8];
    uint64_t id;
};

struct response {
    uint32_t sense_len, residual;
    uint16_t qualifier;
    uint8_t status, response;
};

/* Target and LUN of an address (§5.6.6.1); false when it is none of ours. */
static bool address(const uint8_t lun[8], unsigned *target, unsigned *unit)
{
    *target = lun[1];
    *unit = (unsigned)(lun[2] << 8 | lun[3]) & 0x3fff;
    return lun[0] == 1 && (lun[2] & 0xc0) != 0xc0 && (lun[2] & 0xc0) != 0x80 && lun[4] == 0 &&
           lun[5] == 0 && lun[6] == 0 && lun[7] == 0;
}

/* --- completions --- */

static void answer_tmf(struct vscsi *s, struct virtio_elem *el, uint8_t response)
{
    if (virtq_live(&s->v, Q_CONTROL, el)) {
        virtio_put(el, 0, &response, 1);
    }
    virtq_push(&s->v, Q_CONTROL, el, 1);
    virtq_signal(&s->v, Q_CONTROL);
}

static void left(struct vscsi_req *r)
{
    struct vscsi_tmf *t = r->tmf;

    if (t && --t->waits == 0) {
        answer_tmf(r->owner, t->el, R_OK);
        list_remove(&t->node);
        free(t);
    }
}

static void vscsi_finish(struct vscsi_req *r)
{
    struct vscsi *s = r->owner;
    struct scsi_cmd *c = &r->cmd;
    uint64_t room = c->out_len + c->in_len, moved = c->moved < room ? c->moved : room;
    struct response a = { .sense_len = htole32(c->sense_len),
                          .residual = htole32((uint32_t)(room - moved)),
                          .status = c->status,
                          .response = r->response  ? r->response
                                      : c->overrun ? R_OVERRUN
                                                   : R_OK };

    if (virtq_live(&s->v, r->q, r->el)) {
        virtio_put(r->el, 0, &a, sizeof(a));
        virtio_put(r->el, sizeof(a), c->sense,
                   c->sense_len < s->sense_size ? c->sense_len : s->sense_size);
    }
    virtq_push(&s->v, r->q, r->el, sizeof(a) + s->sense_size + (c->in_len ? moved : 0));
    list_remove(&r->node);
    left(r);
    scsi_cmd_done(c);
    free(r);
}

static void vscsi_done(struct scsi_cmd *c)
{
    struct vscsi_req *r = container_of(c, struct vscsi_req, cmd);
    struct vscsi *s = r->owner;

    bus_lock(s->v.lock);
    if (virtio_may_run(&s->v)) {
        unsigned q = r->q;

        vscsi_finish(r);
        virtq_signal(&s->v, q);
    } else {
        list_remove(&r->node);
        list_append(&s->finished, &r->node);
    }
    bus_unlock(s->v.lock);
}

static void vscsi_finish_all(struct vscsi *s)
{
    while (!list_empty(&s->finished)) {
        struct vscsi_req *r = list_entry(s->finished.next, struct vscsi_req, node);
        unsigned q = r->q;

        vscsi_finish(r);
        virtq_signal(&s->v, q);
    }
}

/* --- commands --- */

/* The pieces of one direction behind `skip` bytes. */
static unsigned pieces(const struct virtio_elem *el, bool in, uint64_t skip, struct iovec *iov,
                       uint64_t *length)
{
    unsigned first = in ? el->n_out : 0, last = in ? el->n_out + el->n_in : el->n_out, n = 0;

    *length = 0;
    for (unsigned i = first; i < last; i++) {
        uint64_t part = el->sg[i].len;

        if (skip >= part) {
            skip -= part;
            continue;
        }
        iov[n++] = (struct iovec){ .iov_base = el->sg[i].host + skip, .iov_len = part - skip };
        *length += part - skip;
        skip = 0;
    }
    return n;
}

static void vscsi_start(struct vscsi_req *r)
{
    struct vscsi *s = r->owner;
    unsigned target, lun;

    if (!address(r->lun, &target, &lun) || !scsi_has_target(&s->bus, target)) {
        r->response = R_BAD_TARGET;
        vscsi_finish(r);
    } else if (r->cmd.out_len > 0 && r->cmd.in_len > 0) {
        r->response = R_FAILURE; /* both directions at once were not offered */
        vscsi_finish(r);
    } else if (scsi_start(&s->bus, target, lun, &r->cmd)) {
        vscsi_finish(r);
    }
}

static void vscsi_take(struct vscsi *s, unsigned q, struct virtio_elem *el)
{
    struct vscsi_req *r = xalloc(sizeof(*r) + (el->n_out + el->n_in) * sizeof(r->iov[0]));
    struct scsi_cmd *c = &r->cmd;
    uint32_t cdb = s->cdb_size < sizeof(c->cdb) ? s->cdb_size : sizeof(c->cdb);

    r->owner = s;
    r->q = q;
    c->io.queue = q;
    r->el = el;
    c->done = vscsi_done;
    virtio_get(el, 0, r->lun, sizeof(r->lun));
    virtio_get(el, 8, &r->tag, sizeof(r->tag));
    virtio_get(el, 19, c->cdb, cdb);
    c->out = r->iov;
    c->n_out = pieces(el, false, 19 + s->cdb_size, r->iov, &c->out_len);
    c->in = r->iov + c->n_out;
    c->n_in = pieces(el, true, sizeof(struct response) + s->sense_size, r->iov + c->n_out,
                     &c->in_len);
    list_append(&s->in_flight, &r->node);
    vscsi_start(r);
}

/* --- task management (§5.6.6.2) --- */

static bool same_unit(const struct vscsi_req *r, const struct tmf_request *t)
{
    unsigned target, lun, other_target, other_lun;

    return address(r->lun, &target, &lun) && address(t->lun, &other_target, &other_lun) &&
           target == other_target && lun == other_lun;
}

static bool affects(const struct vscsi_req *r, const struct tmf_request *t, uint32_t subtype)
{
    switch (subtype) {
    case TMF_ABORT_TASK:
    case TMF_QUERY_TASK:
        return same_unit(r, t) && r->tag == t->id;
    case TMF_NEXUS_RESET: /* of all units of the target */
        return r->lun[0] == 1 && r->lun[1] == t->lun[1];
    default:
        return same_unit(r, t);
    }
}

static void reset_units(struct vscsi *s, const struct tmf_request *t, bool all)
{
    unsigned target, lun;

    address(t->lun, &target, &lun);
    for (unsigned i = 0; i < s->bus.n; i++) {
        struct scsi_unit *u = &s->bus.unit[i];

        if (u->target == target && (all || u->lun == lun)) {
            scsi_unit_reset(u);
        }
    }
}

static void end_commands(struct vscsi *s, struct virtio_elem *el, const struct tmf_request *t,
                         uint32_t subtype)
{
    bool reset = subtype == TMF_NEXUS_RESET || subtype == TMF_UNIT_RESET;
    struct vscsi_tmf *w = xnew(struct vscsi_tmf);

    w->el = el;
    w->waits = 1;
    list_append(&s->tmfs, &w->node);
    list_for_each (it, &s->in_flight) {
        struct vscsi_req *r = list_entry(it, struct vscsi_req, node);

        if (!r->tmf && affects(r, t, subtype)) {
            r->tmf = w;
            r->response = reset ? R_RESET : R_ABORTED;
            r->cmd.aborted = true;
            w->waits++;
        }
    }
    if (reset) {
        reset_units(s, t, subtype == TMF_NEXUS_RESET);
    }
    if (--w->waits == 0) {
        answer_tmf(s, el, R_OK);
        list_remove(&w->node);
        free(w);
    }
}

static bool any_affected(struct vscsi *s, const struct tmf_request *t, uint32_t subtype)
{
    list_for_each (it, &s->in_flight) {
        if (affects(list_entry(it, struct vscsi_req, node), t, subtype)) {
            return true;
        }
    }
    return false;
}

static void manage(struct vscsi *s, struct virtio_elem *el)
{
    struct tmf_request t;
    uint32_t subtype;
    unsigned target, lun;

    virtio_get(el, 0, &t, sizeof(t));
    subtype = le32toh(t.subtype);
    if (!address(t.lun, &target, &lun) || !scsi_has_target(&s->bus, target)) {
        answer_tmf(s, el, R_BAD_TARGET);
    } else if (subtype != TMF_NEXUS_RESET && !scsi_find(&s->bus, target, lun)) {
        answer_tmf(s, el, R_BAD_LUN);
    } else if (subtype == TMF_QUERY_TASK || subtype == TMF_QUERY_TASK_SET) {
        answer_tmf(s, el, any_affected(s, &t, subtype) ? R_SUCCEEDED : R_OK);
    } else if (subtype == TMF_CLEAR_ACA || subtype > TMF_QUERY_TASK_SET) {
        answer_tmf(s, el, R_REJECTED);
    } else {
        end_commands(s, el, &t, subtype);
    }
}

/* Returns false when the driver broke the protocol. */
static bool control(struct vscsi *s, struct virtio_elem *el)
{
    uint8_t none[5] = { 0 }; /* no asynchronous events; done */
    uint32_t type = UINT32_MAX;

    virtio_get(el, 0, &type, sizeof(type));
    type = le32toh(type);
    if (type == T_TMF && el->out_len >= sizeof(struct tmf_request) && el->in_len >= 1) {
        manage(s, el);
    } else if ((type == T_AN_QUERY || type == T_AN_SUBSCRIBE) && el->out_len >= 16 &&
               el->in_len >= sizeof(none)) {
        virtio_put(el, 0, none, sizeof(none));
        virtq_push(&s->v, Q_CONTROL, el, sizeof(none));
        virtq_signal(&s->v, Q_CONTROL);
    } else {
        virtio_elem_free(el);
        return false;
    }
    return true;
}

/* --- events --- */

/* False: the driver has to give buffers first. */
static bool send_event(struct vscsi *s, uint32_t type, unsigned target, unsigned lun,
                       unsigned reason)
{
    uint8_t event[16] = { (uint8_t)type, 0, 0, 0, 1 };
    struct virtio_elem *el = virtq_pop(&s->v, Q_EVENT);

    if (!el) {
        return false;
    }
    event[5] = (uint8_t)target;
    event[6] = (uint8_t)(lun >> 8 | 0x40);
    event[7] = (uint8_t)lun;
    event[12] = (uint8_t)reason;
    event[13] = (uint8_t)(reason >> 8);
    virtq_push(&s->v, Q_EVENT, el, virtio_put(el, 0, event, sizeof(event)));
    return true;
}

/* In the order in which they happened. */
static bool show_plugs(struct vscsi *s)
{
    unsigned told = 0;

    if (!(s->v.features & F_HOTPLUG)) {
        s->n_plugs = 0;
    }
    while (told < s->n_plugs && virtio_working(&s->v) &&
           send_event(s, EVENT_TRANSPORT_RESET, s->plugs[told] >> 8 & 0xff,
                      s->plugs[told] & 0xff, s->plugs[told] >> 24)) {
        told++;
    }
    memmove(s->plugs, s->plugs + told, (s->n_plugs - told) * sizeof(s->plugs[0]));
    s->n_plugs -= told;
    return s->n_plugs == 0;
}

static void show_changes(struct vscsi *s)
{
    if (!show_plugs(s)) {
        return;
    }
    for (unsigned i = 0; i < s->bus.n && virtio_working(&s->v); i++) {
        struct scsi_unit *u = &s->bus.unit[i];

        if (!(s->changed >> i & 1)) {
            continue;
        }
        if (!(s->v.features & F_CHANGE)) {
            s->changed = 0;
            break;
        }
        if (!send_event(s, EVENT_PARAM_CHANGE, u->target, u->lun, REASON_CAPACITY)) {
            break; /* when the driver has given buffers */
        }
        s->changed &= ~(1ull << i);
    }
    virtq_signal(&s->v, Q_EVENT);
}

static void vscsi_changed(struct device *d, const void *node)
{
    struct vscsi *s = (struct vscsi *)d;

    bus_lock(s->v.lock);
    for (unsigned i = 0; i < s->bus.n; i++) {
        if (s->bus.unit[i].node == node) {
            scsi_unit_attention(&s->bus.unit[i], SENSE_CAPACITY_CHANGED);
            s->changed |= 1ull << i;
            virtio_ring(&s->v, Q_EVENT);
        }
    }
    bus_unlock(s->v.lock);
}

static bool vscsi_tray(struct device *d, const void *node, enum dev_tray_act act,
                       struct dev_tray *now)
{
    struct vscsi *s = (struct vscsi *)d;
    bool ours = false;

    bus_lock(s->v.lock);
    for (unsigned i = 0; i < s->bus.n && !ours; i++) {
        struct scsi_unit *u = &s->bus.unit[i];

        ours = node && u->node == node && !u->gone && scsi_unit_tray(u, act, now);
    }
    bus_unlock(s->v.lock);
    return ours;
}

/* --- units that come and go --- */

/* A driver that never looks learns of the last ones, when it does. */
static void tell_plug(struct vscsi *s, const struct scsi_unit *u, uint32_t reason)
{
    if (!(s->v.features & F_HOTPLUG) || !virtio_working(&s->v)) {
        return;
    }
    if (s->n_plugs == MAX_PLUGS) {
        memmove(s->plugs, s->plugs + 1, --s->n_plugs * sizeof(s->plugs[0]));
    }
    s->plugs[s->n_plugs++] = reason << 24 | (uint32_t)u->target << 8 | u->lun;
    virtio_ring(&s->v, Q_EVENT);
}

int virtio_scsi_plug(struct device *d, const struct scsi_unit *unit, struct err *e)
{
    struct vscsi *s = (struct vscsi *)d;
    struct scsi_unit u = *unit;
    int rc = scsi_unit_init(&u, e);

    bus_lock(s->v.lock);
    for (unsigned i = 0; i < s->bus.n && rc == 0; i++) {
        if (s->unit[i].target == u.target && s->unit[i].lun == u.lun) {
            rc = err_set(e, -EEXIST, "target %u LUN %u of '%s' is taken", u.target, u.lun,
                         d->id);
        }
    }
    if (rc == 0 && s->bus.n == SCSI_MAX_UNITS) {
        rc = err_set(e, -ENOSPC, "'%s' has %d units already", d->id, SCSI_MAX_UNITS);
    }
    if (rc == 0) {
        scsi_unit_reset(&u);
        s->unit[s->bus.n++] = u;
        tell_plug(s, &u, REASON_RESCAN);
    }
    bus_unlock(s->v.lock);
    return rc;
}

bool virtio_scsi_listens(struct device *d)
{
    struct vscsi *s = (struct vscsi *)d;
    bool yes;

    bus_lock(s->v.lock);
    yes = !virtio_working(&s->v) || (s->v.features & F_HOTPLUG);
    bus_unlock(s->v.lock);
    return yes;
}

static struct scsi_unit *unit_of(struct vscsi *s, const struct blk_node *node)
{
    for (unsigned i = 0; i < s->bus.n; i++) {
        if (s->unit[i].node == node) {
            return &s->unit[i];
        }
    }
    return NULL;
}

static bool is_for(const struct vscsi_req *r, const struct scsi_unit *u)
{
    unsigned target, lun;

    return address(r->lun, &target, &lun) && target == u->target && lun == u->lun;
}

bool virtio_scsi_unplug(struct device *d, const struct blk_node *node)
{
    struct vscsi *s = (struct vscsi *)d;
    struct scsi_unit *u;
    bool begun = false;

    bus_lock(s->v.lock);
    u = unit_of(s, node);
    if (u && !u->gone) {
        u->gone = begun = true;
        list_for_each (it, &s->in_flight) {
            struct vscsi_req *r = list_entry(it, struct vscsi_req, node);

            if (is_for(r, u)) {
                r->cmd.aborted = true;
                r->response = r->response ? r->response : R_BAD_TARGET;
            }
        }
        blk_abandon(u->node);
        tell_plug(s, u, REASON_REMOVED);
    }
    bus_unlock(s->v.lock);
    return begun;
}

bool virtio_scsi_release(struct device *d, const struct blk_node *node)
{
    struct vscsi *s = (struct vscsi *)d;
    struct scsi_unit *u;
    bool busy = false;

    bus_lock(s->v.lock);
    u = unit_of(s, node);
    for (int i = 0; u && i < 2; i++) {
        list_for_each (it, i ? &s->finished : &s->in_flight) {
            busy |= is_for(list_entry(it, struct vscsi_req, node), u);
        }
    }
    if (u && !busy) {
        unsigned at = (unsigned)(u - s->unit), left = --s->bus.n - at;
        uint64_t below = (UINT64_C(1) << at) - 1;

        memmove(u, u + 1, left * sizeof(*u));
        memset(&s->unit[s->bus.n], 0, sizeof(*u));
        s->changed = (s->changed & below) | (s->changed >> 1 & ~below);
    }
    bus_unlock(s->v.lock);
    return !busy;
}

/* --- the device --- */

static void vscsi_serve(struct virtio *v, unsigned q)
{
    struct vscsi *s = (struct vscsi *)v;

    vscsi_finish_all(s);
    if (q == Q_EVENT) {
        show_changes(s);
        return;
    }
    for (unsigned n = 0; n < QUEUE_SIZE;) {
        struct virtio_elem *el = virtq_pop(v, q);

        if (!el) {
            if (!virtq_rearm(v, q)) {
                virtq_signal(v, q);
                return;
            }
            continue;
        }
        n++;
        if (q == Q_CONTROL) {
            if (!control(s, el)) {
                virtio_broken(v, "a control request is cut short");
                return;
            }
            continue;
        }
        if (el->out_len < 19 + s->cdb_size ||
            el->in_len < sizeof(struct response) + s->sense_size) {
            virtio_elem_free(el);
            virtio_broken(v, "a SCSI request lacks its header or its response");
            return;
        }
        vscsi_take(s, q, el);
    }
    virtq_signal(v, q);
    virtio_ring(v, q);
}

static void put32(uint8_t *p, uint32_t v)
{
    v = htole32(v);
    memcpy(p, &v, sizeof(v));
}

/* struct virtio_scsi_config (§5.6.4). */
static void vscsi_config(struct virtio *v, uint8_t *out)
{
    struct vscsi *s = (struct vscsi *)v;

    put32(out, v->n_queues - Q_REQUEST);
    put32(out + 4, QUEUE_SIZE - 2); /* seg_max */
    put32(out + 8, 0xffff);         /* max_sectors */
    put32(out + 12, 128);           /* cmd_per_lun */
    put32(out + 16, 16);            /* event_info_size */
    put32(out + 20, s->sense_size);
    put32(out + 24, s->cdb_size);
    out[30] = MAX_TARGET; /* behind max_channel, which is 0 */
    put32(out + 32, MAX_LUN);
}

static void vscsi_config_written(struct virtio *v, uint32_t offset, uint64_t value,
                                 unsigned size)
{
    struct vscsi *s = (struct vscsi *)v;

    if (size != 4 || (v->status & VIRTIO_STATUS_DRIVER_OK)) {
        log_trace('v', "%s: configuration is written too late or in parts", v->dev.id);
    } else if (offset == 20 && value >= 18 && value <= 252) {
        s->sense_size = (uint32_t)value;
    } else if (offset == 24 && value >= SCSI_CDB_SIZE && value <= 255) {
        s->cdb_size = (uint32_t)value;
    }
}

static void vscsi_drop(struct virtio *v)
{
    struct vscsi *s = (struct vscsi *)v;

    list_for_each (it, &s->in_flight) {
        list_entry(it, struct vscsi_req, node)->cmd.aborted = true;
    }
    for (unsigned i = 0; i < s->bus.n; i++) {
        if (s->bus.unit[i].node) {
            blk_abandon(s->bus.unit[i].node);
        }
        scsi_unit_reset(&s->bus.unit[i]);
    }
    s->sense_size = DEFAULT_SENSE;
    s->cdb_size = DEFAULT_CDB;
    s->changed = 0;
    s->n_plugs = 0;
}

static const struct virtio_ops vscsi_ops = {
    .id = 8,
    .n_queues = 3,
    .queue_max = { CONTROL_SIZE, CONTROL_SIZE, QUEUE_SIZE },
    .config_size = 36,
    .serve = vscsi_serve,
    .config = vscsi_config,
    .config_written = vscsi_config_written,
    .reset = vscsi_drop,
};

static int vscsi_realize(struct device *d, struct err *e)
{
    struct vscsi *s = (struct vscsi *)d;
    int rc = 0;

    list_init(&s->in_flight);
    list_init(&s->finished);
    list_init(&s->tmfs);
    s->bus = (struct scsi_bus){ s->unit, s->units->n };
    memcpy(s->unit, s->units->unit, sizeof(s->unit));
    free(s->units);
    s->units = NULL;
    for (unsigned i = 0; i < s->bus.n && rc == 0; i++) {
        rc = scsi_unit_init(&s->bus.unit[i], e);
    }
    virtio_setup(&s->v, &vscsi_ops, Q_REQUEST + (unsigned)s->queues,
                 F_HOTPLUG | F_CHANGE | (s->packed ? VIRTIO_F_RING_PACKED : 0));
    return rc;
}

static bool vscsi_quiesce(struct device *d)
{
    struct vscsi *s = (struct vscsi *)d;
    bool quiet;

    bus_lock(s->v.lock);
    quiet = list_empty(&s->in_flight);
    if (quiet) {
        vscsi_finish_all(s);
    }
    bus_unlock(s->v.lock);
    return quiet;
}

static void free_requests(struct list *l)
{
    while (l->next && !list_empty(l)) {
        struct vscsi_req *r = list_entry(l->next, struct vscsi_req, node);

        list_remove(&r->node);
        virtio_elem_free(r->el);
        scsi_cmd_done(&r->cmd);
        free(r);
    }
}

static void vscsi_destroy(struct device *d)
{
    struct vscsi *s = (struct vscsi *)d;

    for (unsigned i = 0; s->units && i < s->units->n; i++) {
        blk_close(s->units->unit[i].node);
    }
    for (unsigned i = 0; i < s->bus.n; i++) {
        blk_close(s->unit[i].node); /* no completion comes after this */
    }
    free_requests(&s->in_flight);
    free_requests(&s->finished);
    while (s->tmfs.next && !list_empty(&s->tmfs)) {
        struct vscsi_tmf *t = list_entry(s->tmfs.next, struct vscsi_tmf, node);

        list_remove(&t->node);
        virtio_elem_free(t->el);
        free(t);
    }
    free(s->units);
    virtio_done(&s->v);
}

/* --- class --- */

static int vscsi_loaded(void *obj, struct err *e)
{
    struct vscsi *s = obj;

    if (s->n_plugs > MAX_PLUGS) {
        return err_set(e, -EINVAL, "%s: %u units whose coming or going is to be told",
                       s->v.dev.id, s->n_plugs);
    }
    if (s->sense_size < SCSI_SENSE_SIZE || s->sense_size > 252 || s->cdb_size > 255 ||
        s->cdb_size < SCSI_CDB_SIZE) {
        return err_set(e, -EINVAL, "%s: sizes of %u and %u bytes for sense and commands",
                       s->v.dev.id, s->sense_size, s->cdb_size);
    }
    return 0;
}

static const struct st_field vscsi_fields[] = {
    VIRTIO_ST_FIELD,
    ST_FIELD(struct vscsi, sense_size, ST_U32, 1, "bytes of sense data in a response"),
    ST_FIELD(struct vscsi, cdb_size, ST_U32, 1, "bytes of a command in a request"),
    ST_FIELD(struct vscsi, changed, ST_U64, 1, "units whose new capacity was not told yet"),
    { .name = "plugs",
      .kind = ST_U32,
      .offset = offsetof(struct vscsi, plugs),
      .count = MAX_PLUGS,
      .since = 2,
      .flags = ST_OPTIONAL,
      .doc = "units that came or went, which the driver was not told yet" },
    { .name = "n_plugs",
      .kind = ST_U32,
      .offset = offsetof(struct vscsi, n_plugs),
      .count = 1,
      .since = 2,
      .flags = ST_OPTIONAL,
      .doc = "how many of them" },
    { .name = "unit",
      .kind = ST_STRUCT,
      .offset = offsetof(struct vscsi, unit),
      .count = SCSI_MAX_UNITS,
      .stride = sizeof(struct scsi_unit),
      .since = 1,
      .table = &scsi_unit_state,
      .doc = "logical units" },
    ST_END,
};
static const struct st_table vscsi_state = {
    .name = "virtio-scsi",
    .version = 2,
    .fields = vscsi_fields,
    .loaded = vscsi_loaded,
};

static const struct dev_prop vscsi_props[] = {
    { .name = "units",
      .kind = PROP_PTR,
      .offset = offsetof(struct vscsi, units),
      .required = true,
      .doc = "disks and CD-ROM drives; the device closes their nodes" },
    { .name = "queues",
      .kind = PROP_U64,
      .offset = offsetof(struct vscsi, queues),
      .def = 1,
      .min = 1,
      .max = VIRTIO_MAX_QUEUES - Q_REQUEST,
      .doc = "request queues" },
    { .name = "packed",
      .kind = PROP_BOOL,
      .offset = offsetof(struct vscsi, packed),
      .def = true,
      .doc = "offer packed rings" },
    { .name = NULL },
};

const struct device_class virtio_scsi_class = {
    .name = "virtio-scsi",
    .doc = "virtio SCSI host adapter with up to 16 disks and CD-ROM drives",
    .size = sizeof(struct vscsi),
    .props = vscsi_props,
    .state = &vscsi_state,
    .realize = vscsi_realize,
    .quiesce = vscsi_quiesce,
    .resumed = virtio_resumed,
    .changed = vscsi_changed,
    .tray = vscsi_tray,
    .destroy = vscsi_destroy,
};
