/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio-serial (virtio_serial.h). Port p > 0 has queues 2p + 2 (to the guest) and 2p + 3, port 0 has 0 and 1; 2 and 3 carry
 * control messages. What there is to tell the guest is kept as bits of each port, not as a queue of messages: a guest
 * that does not read them costs nothing. Main loop, transport's lock.
 */
#include "devices/char/virtio_serial.h"
#include "devices/char/chr.h"
#include "devices/registry.h"
#include "devices/virtio/virtio.h"
#include "engine/base/log.h"
#include "engine/base/mem.h"
#include "engine/base/str.h"
#include "engine/core/vm.h"

#include <endian.h>
#include <errno.h>
#include <string.h>

#define QUEUE_SIZE 64
#define F_SIZE (1u << 0)
#define F_MULTIPORT (1u << 1)

enum { Q_CONTROL_IN = 2, Q_CONTROL_OUT = 3 };

/* §5.3.6.2 */
enum {
    DEVICE_READY,
    DEVICE_ADD,
    DEVICE_REMOVE,
    PORT_READY,
    CONSOLE_PORT,
    RESIZE,
    PORT_OPEN,
    PORT_NAME
};

struct control {
    uint32_t id;
    uint16_t event, value;
} __attribute__((packed));

/* What the guest has not been told of a port, in the order in which it is. */
enum {
    TELL_ADD = 1,
    TELL_CONSOLE = 2,
    TELL_NAME = 4,
    TELL_RESIZE = 8,
    TELL_CLOSED = 16,
    TELL_OPEN = 32, /* or not, as it is by then */
    TELL_REMOVE = 64
};

struct port {
    struct vser *owner;
    char name[VIRTIO_SERIAL_NAME_MAX]; /* "": there is no such port */
    struct chr *chr;                   /* NULL: on its way out */
    bool console;
    bool connected; /* somebody is at the other end */
    uint8_t tell;   /* TELL_ */
    bool known;     /* the guest was told that it is there */
    bool ready;     /* its driver has taken it */
    bool open;      /* a program of the guest has opened it */
    bool told_connected;
    uint16_t columns, rows;
    uint64_t tx_skip; /* bytes of the next output that are out */
    struct virtio_elem *rx, *tx;
};

struct vser {
    struct virtio v;
    bool driver; /* DEVICE_READY was said */
    struct port port[VIRTIO_SERIAL_PORTS];
};

static unsigned queue_in(unsigned p)
{
    return p ? 2 * p + 2 : 0;
}

static unsigned queue_out(unsigned p)
{
    return p ? 2 * p + 3 : 1;
}

static unsigned number_of(const struct port *p)
{
    return (unsigned)(p - p->owner->port);
}

/* --- control messages to the guest --- */

static bool send_control(struct vser *s, const struct port *p, uint16_t event, uint16_t value,
                         const void *more, size_t n)
{
    struct control c = { .id = htole32(number_of(p)),
                         .event = htole16(event),
                         .value = htole16(value) };
    struct virtio_elem *el;
    size_t put;

    do {
        el = virtq_pop(&s->v, Q_CONTROL_IN);
    } while (!el && virtq_rearm(&s->v, Q_CONTROL_IN));
    if (!el) {
        return false;
    }
    put = virtio_put(el, 0, &c, sizeof(c));
    put += virtio_put(el, sizeof(c), more, n);
    virtq_push(&s->v, Q_CONTROL_IN, el, put);
    return true;
}

static bool tell_one(struct vser *s, struct port *p, uint8_t what)
{
    const uint16_t size[2] = { htole16(p->columns), htole16(p->rows) };

    switch (what) {
    case TELL_ADD:
        return send_control(s, p, DEVICE_ADD, 1, NULL, 0);
    case TELL_CONSOLE:
        return send_control(s, p, CONSOLE_PORT, 1, NULL, 0);
    case TELL_NAME:
        return send_control(s, p, PORT_NAME, 1, p->name, strlen(p->name));
    case TELL_RESIZE:
        return send_control(s, p, RESIZE, 1, size, sizeof(size));
    case TELL_CLOSED:
        return send_control(s, p, PORT_OPEN, 0, NULL, 0);
    case TELL_OPEN:
        return send_control(s, p, PORT_OPEN, p->connected, NULL, 0);
    default:
        return send_control(s, p, DEVICE_REMOVE, 1, NULL, 0);
    }
}

/* A port whose guest has heard of its end is free for another. */
static void forget(struct port *p)
{
    *p = (struct port){ .owner = p->owner };
}

static void said(struct port *p, uint8_t what)
{
    p->tell &= (uint8_t)~what;
    if (what == TELL_ADD) {
        p->known = true;
    } else if (what == TELL_OPEN) {
        p->told_connected = p->connected;
    } else if (what == TELL_CLOSED) {
        p->told_connected = false;
    } else if (what == TELL_REMOVE) {
        forget(p);
    }
}

/* Until the guest has no buffer left. A port that its driver has not taken is told of nothing but itself. */
static void tell(struct vser *s)
{
    bool any = false;

    if (!s->driver || !virtio_working(&s->v) || !virtio_may_run(&s->v)) {
        return;
    }
    for (unsigned i = 0; i < VIRTIO_SERIAL_PORTS; i++) {
        struct port *p = &s->port[i];

        for (uint8_t what = TELL_ADD; what <= TELL_REMOVE; what = (uint8_t)(what << 1)) {
            bool now = what == TELL_ADD || what == TELL_REMOVE || p->ready;

            if (!(p->tell & what) || !now) {
                continue;
            }
            if (!tell_one(s, p, what)) {
                goto out;
            }
            any = true;
            said(p, what);
        }
    }
out:
    if (any) {
        virtq_signal(&s->v, Q_CONTROL_IN);
    }
}

/* --- output of the guest --- */

/* Hands what is there to the back end; false: it has no room. */
static bool port_send(struct port *p)
{
    struct vser *s = p->owner;

    while (p->tx_skip < p->tx->out_len) {
        uint8_t bytes[4096];
        size_t n = virtio_get(p->tx, p->tx_skip, bytes, sizeof(bytes)),
               taken = chr_write(p->chr, bytes, n);

        p->tx_skip += taken;
        if (taken < n) {
            return false;
        }
    }
    virtq_push(&s->v, queue_out(number_of(p)), p->tx, 0);
    p->tx = NULL;
    p->tx_skip = 0;
    return true;
}

static void serve_output(struct port *p)
{
    struct virtio *v = &p->owner->v;
    unsigned q = queue_out(number_of(p));

    for (unsigned n = 0; n < QUEUE_SIZE; n++) {
        if (!p->tx) {
            p->tx = virtq_pop(v, q);
        }
        if (!p->tx) {
            if (virtq_rearm(v, q)) {
                continue;
            }
            virtq_signal(v, q);
            return;
        }
        if (!port_send(p)) {
            virtq_signal(v, q);
            return; /* port_writable goes on */
        }
    }
    virtq_signal(v, q);
    virtio_ring(v, q);
}

/* --- control messages of the guest --- */

static void set_open(struct port *p, bool open)
{
    if (p->open != open) {
        p->open = open;
        if (p->chr) {
            chr_opened(p->chr, open);
            chr_accept(p->chr);
        }
    }
}

static void port_ready(struct port *p, bool ready)
{
    p->ready = ready;
    if (!ready) {
        log_trace('v', "%s: the driver cannot serve port %u", p->owner->v.dev.id, number_of(p));
        return;
    }
    p->tell |= p->console ? TELL_CONSOLE : TELL_NAME;
    p->tell |= p->console && p->rows ? TELL_RESIZE : 0;
    p->tell |= p->connected ? TELL_OPEN : 0;
}

static void device_ready(struct vser *s, bool ready)
{
    s->driver = ready;
    for (unsigned i = 0; i < VIRTIO_SERIAL_PORTS && ready; i++) {
        struct port *p = &s->port[i];

        if (p->name[0] && !p->known && p->chr) {
            p->tell |= TELL_ADD;
        }
    }
}

static void take_control(struct vser *s, const struct control *c)
{
    uint32_t id = le32toh(c->id);
    uint16_t event = le16toh(c->event), value = le16toh(c->value);
    struct port *p = id < VIRTIO_SERIAL_PORTS ? &s->port[id] : NULL;

    if (event == DEVICE_READY) {
        device_ready(s, value == 1);
    } else if (!p || !p->known) {
        log_trace('v', "%s: control message %u for port %u, which there is not", s->v.dev.id,
                  event, id);
    } else if (event == PORT_READY) {
        port_ready(p, value == 1);
    } else if (event == PORT_OPEN) {
        set_open(p, value != 0);
    } else {
        log_trace('v', "%s: control message %u from the driver", s->v.dev.id, event);
    }
}

static void serve_control(struct vser *s)
{
    unsigned n = 0;

    for (; n < QUEUE_SIZE;) {
        struct virtio_elem *el = virtq_pop(&s->v, Q_CONTROL_OUT);
        struct control c;

        if (!el && virtq_rearm(&s->v, Q_CONTROL_OUT)) {
            continue;
        }
        if (!el) {
            break;
        }
        n++;
        if (virtio_get(el, 0, &c, sizeof(c)) == sizeof(c)) {
            take_control(s, &c);
        }
        virtq_push(&s->v, Q_CONTROL_OUT, el, 0);
    }
    if (n == QUEUE_SIZE) {
        virtio_ring(&s->v, Q_CONTROL_OUT);
    }
    virtq_signal(&s->v, Q_CONTROL_OUT);
    tell(s);
}

static void vser_serve(struct virtio *v, unsigned q)
{
    struct vser *s = (struct vser *)v;

    if (q == Q_CONTROL_OUT) {
        serve_control(s);
    } else if (q == Q_CONTROL_IN) {
        tell(s);
    } else {
        struct port *p = &s->port[q < 2 ? 0 : q / 2 - 1];

        if (q & 1) {
            serve_output(p);
        } else if (p->chr) {
            chr_accept(p->chr);
        }
    }
}

/* --- character back ends, main loop --- */

static size_t port_room(void *arg)
{
    struct port *p = arg;
    struct virtio *v = &p->owner->v;
    unsigned q = queue_in(number_of(p));
    size_t room = 0;

    bus_lock(v->lock);
    if (virtio_may_run(v) && virtio_working(v) && p->open) {
        do {
            if (!p->rx) {
                p->rx = virtq_pop(v, q);
            }
        } while (!p->rx && virtq_rearm(v, q));
        room = p->rx ? (size_t)p->rx->in_len : 0;
    }
    bus_unlock(v->lock);
    return room;
}

static void port_receive(void *arg, const uint8_t *bytes, size_t n)
{
    struct port *p = arg;
    struct virtio *v = &p->owner->v;
    unsigned q = queue_in(number_of(p));

    bus_lock(v->lock);
    if (p->rx) {
        n = virtio_put(p->rx, 0, bytes, n);
        virtq_push(v, q, p->rx, n);
        p->rx = NULL;
        virtq_signal(v, q);
    }
    bus_unlock(v->lock);
    chr_accept(p->chr);
}

static void port_writable(void *arg)
{
    struct port *p = arg;

    virtio_ring(&p->owner->v, queue_out(number_of(p)));
}

static void port_connected(void *arg, bool yes)
{
    struct port *p = arg;
    struct vser *s = p->owner;

    bus_lock(s->v.lock);
    p->connected = yes;
    if (p->ready) {
        p->tell |= !yes && p->told_connected ? TELL_CLOSED : 0;
        p->tell |= yes ? TELL_OPEN : 0;
        tell(s);
    }
    bus_unlock(s->v.lock);
}

static const struct chr_front_ops port_front = {
    .room = port_room,
    .receive = port_receive,
    .writable = port_writable,
    .connected = port_connected,
};

/* --- ports that come and go --- */

static struct port *find(struct vser *s, const char *name)
{
    for (unsigned i = 0; i < VIRTIO_SERIAL_PORTS; i++) {
        if (s->port[i].chr && strcmp(s->port[i].name, name) == 0) {
            return &s->port[i];
        }
    }
    return NULL;
}

int virtio_serial_add(struct device *d, const char *name, bool console, struct chr *chr,
                      struct err *e)
{
    struct vser *s = (struct vser *)d;
    struct port *p = NULL;

    if (!name[0] || strlen(name) >= VIRTIO_SERIAL_NAME_MAX) {
        return err_set(e, -EINVAL, "the name of a port has 1 to %d bytes",
                       VIRTIO_SERIAL_NAME_MAX - 1);
    }
    if (find(s, name)) {
        return err_set(e, -EEXIST, "there is a port '%s' already", name);
    }
    for (unsigned i = console ? 0 : 1; i < VIRTIO_SERIAL_PORTS && !p; i++) {
        p = s->port[i].name[0] ? NULL : &s->port[i];
    }
    if (!p) {
        return err_set(e, -ENOSPC, "there are %d ports already", VIRTIO_SERIAL_PORTS - 1);
    }
    *p = (struct port){ .owner = s, .chr = chr, .console = console };
    str_copy(p->name, sizeof(p->name), name);
    chr_attach(chr, &port_front, p);
    if (s->v.lock) { /* realized: there may be a guest that wants to know */
        bus_lock(s->v.lock);
        p->tell = TELL_ADD;
        tell(s);
        bus_unlock(s->v.lock);
    }
    return 0;
}

/* What the device has of the guest's goes back to it. */
static void give_back(struct port *p)
{
    struct virtio *v = &p->owner->v;

    if (p->rx) {
        virtq_unpop(v, queue_in(number_of(p)), p->rx);
    }
    if (p->tx) {
        virtq_push(v, queue_out(number_of(p)), p->tx, 0);
        virtq_signal(v, queue_out(number_of(p)));
    }
    p->rx = p->tx = NULL;
    p->tx_skip = 0;
}

int virtio_serial_remove(struct device *d, const char *name, struct err *e)
{
    struct vser *s = (struct vser *)d;
    struct port *p = find(s, name);

    if (!p) {
        return err_set(e, -ENOENT, "there is no port '%s'", name);
    }
    chr_attach(p->chr, NULL, NULL);
    bus_lock(s->v.lock);
    p->chr = NULL;
    give_back(p);
    p->open = p->ready = false;
    if (p->known) {
        p->tell = TELL_REMOVE;
        tell(s);
    } else {
        forget(p);
    }
    bus_unlock(s->v.lock);
    return 0;
}

int virtio_serial_resize(struct device *d, const char *name, uint16_t columns, uint16_t rows,
                         struct err *e)
{
    struct vser *s = (struct vser *)d;
    struct port *p = find(s, name);

    if (!p || !p->console) {
        return err_set(e, -ENOENT, "there is no console '%s'", name);
    }
    bus_lock(s->v.lock);
    p->columns = columns;
    p->rows = rows;
    p->tell |= p->ready ? TELL_RESIZE : 0;
    tell(s);
    if (p == &s->port[0] && s->v.ops) {
        virtio_config_changed(&s->v);
    }
    bus_unlock(s->v.lock);
    return 0;
}

bool virtio_serial_is_open(struct device *d, const char *name)
{
    const struct port *p = find((struct vser *)d, name);

    return p && p->open;
}

/* --- class --- */

/* §5.3.4: cols, rows, max_nr_ports, emerg_wr. The size is the one of port 0; others' come by messages only. */
static void vser_config(struct virtio *v, uint8_t *out)
{
    const struct port *p = &((const struct vser *)v)->port[0];
    const uint16_t size[2] = { htole16(p->columns), htole16(p->rows) };
    const uint32_t ports = htole32(VIRTIO_SERIAL_PORTS);

    memset(out, 0, 12);
    memcpy(out, size, sizeof(size));
    memcpy(out + 4, &ports, sizeof(ports));
}

static void vser_drop(struct virtio *v)
{
    struct vser *s = (struct vser *)v;

    s->driver = false;
    for (unsigned i = 0; i < VIRTIO_SERIAL_PORTS; i++) {
        struct port *p = &s->port[i];

        virtio_elem_free(p->rx);
        virtio_elem_free(p->tx);
        p->rx = p->tx = NULL;
        p->tx_skip = 0;
        p->tell = 0;
        p->known = p->ready = p->told_connected = false;
        set_open(p, false);
        if (!p->chr) {
            forget(p); /* the guest that knew it is gone */
        }
    }
}

static const struct virtio_ops vser_ops = {
    .id = 3,
    .n_queues = 2 + 2 * VIRTIO_SERIAL_PORTS,
    .queue_max = { QUEUE_SIZE, QUEUE_SIZE, QUEUE_SIZE, QUEUE_SIZE, QUEUE_SIZE,
                   QUEUE_SIZE, QUEUE_SIZE, QUEUE_SIZE, QUEUE_SIZE, QUEUE_SIZE,
                   QUEUE_SIZE, QUEUE_SIZE, QUEUE_SIZE, QUEUE_SIZE, QUEUE_SIZE,
                   QUEUE_SIZE, QUEUE_SIZE, QUEUE_SIZE, QUEUE_SIZE, QUEUE_SIZE },
    .config_size = 12,
    .serve = vser_serve,
    .config = vser_config,
    .reset = vser_drop,
};

static int vser_realize(struct device *d, struct err *e)
{
    struct vser *s = (struct vser *)d;

    (void)e;
    for (unsigned i = 0; i < VIRTIO_SERIAL_PORTS; i++) {
        s->port[i].owner = s;
    }
    virtio_setup(&s->v, &vser_ops, 0, F_SIZE | F_MULTIPORT);
    return 0;
}

/* Buffers that wait go back to their rings; tx_skip remembers how much of the next output was taken. */
static bool vser_quiesce(struct device *d)
{
    struct vser *s = (struct vser *)d;

    bus_lock(s->v.lock);
    for (unsigned i = 0; i < VIRTIO_SERIAL_PORTS; i++) {
        struct port *p = &s->port[i];

        if (p->rx) {
            virtq_unpop(&s->v, queue_in(i), p->rx);
        }
        if (p->tx) {
            virtq_unpop(&s->v, queue_out(i), p->tx);
        }
        p->rx = p->tx = NULL;
    }
    bus_unlock(s->v.lock);
    return true;
}

static void vser_destroy(struct device *d)
{
    struct vser *s = (struct vser *)d;

    for (unsigned i = 0; i < VIRTIO_SERIAL_PORTS; i++) {
        chr_attach(s->port[i].chr, NULL, NULL);
        s->port[i].chr = NULL;
    }
    if (s->v.ops) {
        vser_drop(&s->v);
    }
    virtio_done(&s->v);
}

/* Whoever was connected when it was saved may not be now. */
static int vser_loaded(void *obj, struct err *e)
{
    struct vser *s = obj;

    (void)e;
    for (unsigned i = 0; i < VIRTIO_SERIAL_PORTS; i++) {
        struct port *p = &s->port[i];

        if (!p->chr) { /* this VM has no such port: the guest is told */
            p->tell = p->known ? TELL_REMOVE : 0;
            p->open = p->ready = false;
            continue;
        }
        p->tell &= TELL_ADD | TELL_CONSOLE | TELL_NAME | TELL_RESIZE | TELL_CLOSED | TELL_OPEN;
        p->tell |= !p->known && s->driver ? TELL_ADD : 0;
        p->tell |= p->ready && p->told_connected && !p->connected ? TELL_CLOSED : 0;
        p->tell |= p->ready && !p->told_connected && p->connected ? TELL_OPEN : 0;
        chr_opened(p->chr, p->open);
    }
    return 0;
}

static const struct st_field port_fields[] = {
    ST_FIELD(struct port, tell, ST_U8, 1, "what the driver has still to be told"),
    ST_FIELD(struct port, known, ST_BOOL, 1, "the driver was told of it"),
    ST_FIELD(struct port, ready, ST_BOOL, 1, "the driver serves it"),
    ST_FIELD(struct port, open, ST_BOOL, 1, "a program of the guest has opened it"),
    ST_FIELD(struct port, told_connected, ST_BOOL, 1,
             "the driver was told that somebody is there"),
    ST_FIELD(struct port, columns, ST_U16, 1, "width of its terminal"),
    ST_FIELD(struct port, rows, ST_U16, 1, "height of its terminal"),
    ST_FIELD(struct port, tx_skip, ST_U64, 1, "bytes of the next output that are out already"),
    ST_END,
};
static const struct st_table port_state = {
    .name = "virtio-serial-port",
    .version = 1,
    .fields = port_fields,
};
static const struct st_field vser_fields[] = {
    VIRTIO_ST_FIELD,
    ST_FIELD(struct vser, driver, ST_BOOL, 1, "the driver is ready for ports"),
    { .name = "port",
      .kind = ST_STRUCT,
      .offset = offsetof(struct vser, port),
      .count = VIRTIO_SERIAL_PORTS,
      .stride = sizeof(struct port),
      .since = 1,
      .table = &port_state,
      .doc = "ports" },
    ST_END,
};
static const struct st_table vser_state = {
    .name = "virtio-serial",
    .version = 1,
    .fields = vser_fields,
    .loaded = vser_loaded,
};

static void vser_resumed(struct device *d)
{
    struct vser *s = (struct vser *)d;

    bus_lock(s->v.lock);
    tell(s);
    bus_unlock(s->v.lock);
    virtio_resumed(d);
}

const struct device_class virtio_serial_class = {
    .name = "virtio-serial",
    .doc = "virtio console with many named ports, which come and go",
    .size = sizeof(struct vser),
    .state = &vser_state,
    .realize = vser_realize,
    .quiesce = vser_quiesce,
    .resumed = vser_resumed,
    .destroy = vser_destroy,
};
