/* SPDX-License-Identifier: Apache-2.0 */
/*
 * USB mass storage, bulk-only transport (USB Mass Storage Class, Bulk-Only Transport 1.0) with one SCSI disk or CD-ROM drive, whose node
 * it owns. The data of a command stands in memory of the device's own between the disk and the guest, at most DATA_MAX bytes: the
 * guest offers its memory piece by piece, while the disk wants all of it. One command at a time. The host controller's
 * lock covers all; completions of the disk come on the main loop.
 */
#include "devices/registry.h"
#include "devices/scsi/units.h"
#include "devices/usb/usb.h"
#include "engine/base/list.h"
#include "engine/base/log.h"
#include "engine/base/mem.h"
#include "engine/core/vm.h"

#include <errno.h>
#include <string.h>

#define DATA_MAX (4u << 20)
#define CBW_SIZE 31
#define CBW_SIGNATURE 0x43425355u
#define CSW_SIZE 13
#define CSW_SIGNATURE 0x53425355u
enum { EP_IN = 0x81, EP_OUT = 0x02 };
enum { BULK_RESET = 0xff, GET_MAX_LUN = 0xfe };
enum { STATUS_GOOD = 0, STATUS_FAILED = 1, STATUS_PHASE = 2 };
enum { REQUEST_SENSE = 0x03 };

/* What comes next on the endpoints. BROKEN: a command that is none was sent, nothing until a reset (§6.6.1). */
enum phase { COMMAND, DATA_OUT, DATA_IN, RUNNING, STATUS, BROKEN, PHASES };

struct running {
    struct scsi_cmd cmd;
    struct usb_storage *owner;
    struct list node;
    struct iovec iov;
    uint8_t *data;
};

struct usb_storage {
    struct usb_dev u;
    struct scsi_units *units; /* property, taken; NULL once the unit is in unit */
    struct scsi_unit unit;
    struct scsi_bus bus;
    struct list
        commands; /* struct running.node: at most one, perhaps one that nobody waits for */

    uint8_t phase, lun, status;
    bool in; /* direction of the data */
    uint8_t cdb[SCSI_CDB_SIZE];
    uint32_t tag, length, residue, at; /* at: bytes of data that have passed */
    struct buf data;
    uint8_t sense[SCSI_SENSE_SIZE];
    uint8_t sense_len; /* of the last command that failed, until it was read */
};

static const uint8_t interface[] = {
    9, USB_DT_INTERFACE, 0,      0, 2, 8, 6, 0x50, 0, /* mass storage, SCSI, bulk only */
    7, USB_DT_ENDPOINT,  EP_IN,  2, 0, 2, 0,          /* packets of 512 bytes */
    7, USB_DT_ENDPOINT,  EP_OUT, 2, 0, 2, 0,
};

static uint32_t le32(const uint8_t *p)
{
    return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static void put_le32(uint8_t *p, uint32_t v)
{
    for (unsigned i = 0; i < 4; i++) {
        p[i] = (uint8_t)(v >> (8 * i));
    }
}

static void wake_both(struct usb_storage *s)
{
    usb_wake(&s->u, EP_IN);
    usb_wake(&s->u, EP_OUT);
}

/* --- commands --- */

/* `n` bytes of s->data are what there is to read; the rest of what was asked for is filled with zeroes (§6.7.2). */
static void finish(struct usb_storage *s, uint8_t status, uint64_t moved)
{
    s->status = status;
    s->residue = s->length - (uint32_t)(moved < s->length ? moved : s->length);
    s->at = 0;
    s->phase = s->in && s->length > 0 ? DATA_IN : STATUS;
    wake_both(s);
}

static void fail(struct usb_storage *s, enum scsi_sense what)
{
    memset(s->sense, 0, sizeof(s->sense));
    s->sense[0] = 0x70;
    s->sense[2] = (uint8_t)(what >> 16);
    s->sense[7] = SCSI_SENSE_SIZE - 8;
    s->sense[12] = (uint8_t)(what >> 8);
    s->sense[13] = (uint8_t)what;
    s->sense_len = sizeof(s->sense);
    finish(s, STATUS_FAILED, 0);
}

static void set_data(struct usb_storage *s, const void *p, size_t n)
{
    buf_done(&s->data);
    if (n > 0) {
        buf_add(&s->data, p, n);
    }
}

static void end_command(struct running *r)
{
    struct usb_storage *s = r->owner;
    struct scsi_cmd *c = &r->cmd;

    if (!c->aborted) {
        s->sense_len = (uint8_t)c->sense_len;
        memcpy(s->sense, c->sense, sizeof(s->sense));
        if (s->in) {
            set_data(s, r->data, c->moved < s->length ? c->moved : s->length);
        }
        finish(s,
               c->overrun               ? STATUS_PHASE
               : c->status == SCSI_GOOD ? STATUS_GOOD
                                        : STATUS_FAILED,
               c->moved);
    } else {
        wake_both(s); /* the next command may have waited */
    }
    list_remove(&r->node);
    scsi_cmd_done(c);
    free(r->data);
    free(r);
}

static void on_done(struct scsi_cmd *c)
{
    struct running *r = container_of(c, struct running, cmd);
    struct bus_lock *lock = &r->owner->u.bus->host->lock;

    bus_lock(lock);
    end_command(r);
    bus_unlock(lock);
}

static void start(struct usb_storage *s)
{
    struct running *r;

    if (s->cdb[0] == REQUEST_SENSE && s->sense_len > 0 && s->in) {
        uint32_t n = s->sense_len < s->length ? s->sense_len : s->length;

        n = s->cdb[4] < n ? s->cdb[4] : n;
        set_data(s, s->sense, n);
        s->sense_len = 0;
        finish(s, STATUS_GOOD, n);
        return;
    }
    r = xnew(struct running);
    r->owner = s;
    r->data = xalloc(s->length ? s->length : 1);
    r->iov = (struct iovec){ .iov_base = r->data, .iov_len = s->length };
    r->cmd.done = on_done;
    memcpy(r->cmd.cdb, s->cdb, sizeof(s->cdb));
    if (s->length > 0 && s->in) {
        r->cmd.in = &r->iov;
        r->cmd.n_in = 1;
        r->cmd.in_len = s->length;
    } else if (s->length > 0) {
        memcpy(r->data, s->data.data, s->length);
        r->cmd.out = &r->iov;
        r->cmd.n_out = 1;
        r->cmd.out_len = s->length;
    }
    set_data(s, NULL, 0);
    s->phase = RUNNING;
    list_append(&s->commands, &r->node);
    if (scsi_start(&s->bus, 0, s->lun, &r->cmd)) {
        end_command(r);
    }
}

/* A command block (§5.1). */
static enum usb_result take_command(struct usb_storage *s, struct usb_data *d)
{
    uint8_t cbw[CBW_SIZE];

    if (!list_empty(&s->commands)) {
        return USB_NAK; /* until that has gone which a reset left behind */
    }
    if (d->length < CBW_SIZE || usb_take(d, cbw, CBW_SIZE) != CBW_SIZE ||
        d->length != CBW_SIZE || le32(cbw) != CBW_SIGNATURE || cbw[14] == 0 ||
        cbw[14] > SCSI_CDB_SIZE || cbw[13] > 15) {
        log_trace('u', "%s: a command that is none", s->u.dev.id);
        s->phase = BROKEN;
        return USB_STALL;
    }
    s->tag = le32(cbw + 4);
    s->length = le32(cbw + 8);
    s->in = cbw[12] & 0x80;
    s->lun = cbw[13];
    memset(s->cdb, 0, sizeof(s->cdb));
    memcpy(s->cdb, cbw + 15, cbw[14]);
    s->at = 0;
    set_data(s, NULL, 0);
    if (s->length > 0 && !s->in) {
        s->phase = DATA_OUT;
    } else if (s->length > DATA_MAX) {
        fail(s, SENSE_BAD_FIELD);
    } else {
        start(s);
    }
    return USB_OK;
}

static enum usb_result take_data(struct usb_storage *s, struct usb_data *d)
{
    uint8_t piece[4096];

    while (d->moved < d->length && s->at < s->length && !d->failed) {
        size_t want = s->length - s->at < sizeof(piece) ? s->length - s->at : sizeof(piece);
        size_t n = usb_take(d, piece, want);

        if (n == 0) {
            break;
        }
        if (s->length <= DATA_MAX) { /* else it is read and refused */
            buf_add(&s->data, piece, n);
        }
        s->at += (uint32_t)n;
    }
    if (s->at == s->length) {
        if (s->length > DATA_MAX) {
            fail(s, SENSE_BAD_FIELD);
        } else {
            start(s);
        }
    }
    return USB_OK;
}

static enum usb_result give_data(struct usb_storage *s, struct usb_data *d)
{
    static const uint8_t zeroes[4096];

    while (d->moved < d->length && s->at < s->length && !d->failed) {
        bool have = s->at < s->data.len;
        size_t rest = have ? s->data.len - s->at : s->length - s->at, n;

        rest = have || rest < sizeof(zeroes) ? rest : sizeof(zeroes);
        n = usb_put(d, have ? (const uint8_t *)s->data.data + s->at : zeroes, rest);
        if (n == 0) {
            break;
        }
        s->at += (uint32_t)n;
    }
    if (s->at == s->length) {
        set_data(s, NULL, 0);
        s->phase = STATUS;
    }
    return USB_OK;
}

static enum usb_result give_status(struct usb_storage *s, struct usb_data *d)
{
    uint8_t csw[CSW_SIZE];

    put_le32(csw, CSW_SIGNATURE);
    put_le32(csw + 4, s->tag);
    put_le32(csw + 8, s->residue);
    csw[12] = s->status;
    usb_put(d, csw, sizeof(csw));
    s->phase = COMMAND;
    usb_wake(&s->u, EP_OUT);
    return USB_OK;
}

static enum usb_result storage_data(struct usb_dev *u, uint8_t ep, struct usb_data *d)
{
    struct usb_storage *s = (struct usb_storage *)u;

    if (s->phase == BROKEN || (ep != EP_IN && ep != EP_OUT)) {
        return USB_STALL;
    }
    if (ep == EP_OUT) {
        return s->phase == COMMAND    ? take_command(s, d)
               : s->phase == DATA_OUT ? take_data(s, d)
                                      : USB_NAK;
    }
    return s->phase == DATA_IN  ? give_data(s, d)
           : s->phase == STATUS ? give_status(s, d)
                                : USB_NAK;
}

static void storage_reset(struct usb_dev *u)
{
    struct usb_storage *s = (struct usb_storage *)u;

    list_for_each (it, &s->commands) {
        list_entry(it, struct running, node)->cmd.aborted = true;
    }
    set_data(s, NULL, 0);
    s->phase = COMMAND;
    s->sense_len = 0;
    scsi_unit_reset(&s->unit);
}

static enum usb_result storage_control(struct usb_dev *u, const struct usb_setup *r,
                                       uint8_t *data, unsigned *n)
{
    struct usb_storage *s = (struct usb_storage *)u;

    if (r->type == 0x21 && r->request == BULK_RESET) {
        storage_reset(u);
        wake_both(s);
        return USB_OK;
    }
    if (r->type == 0xa1 && r->request == GET_MAX_LUN) {
        *n = *n < 1 ? 0 : 1;
        if (*n) {
            data[0] = 0;
        }
        return USB_OK;
    }
    return USB_STALL;
}

/* --- class --- */

static const struct usb_ops storage_ops = { .product = 2,
                                            .title = "USB Storage",
                                            .super = true,
                                            .interface = interface,
                                            .interface_size = sizeof(interface),
                                            .control = storage_control,
                                            .data = storage_data,
                                            .bus_reset = storage_reset };

static int storage_realize(struct device *d, struct err *e)
{
    struct usb_storage *s = (struct usb_storage *)d;
    int rc;

    list_init(&s->commands);
    s->unit = s->units->unit[0];
    for (unsigned i = 1; i < s->units->n; i++) {
        blk_close(s->units->unit[i].node);
    }
    free(s->units);
    s->units = NULL;
    s->unit.target = s->unit.lun = 0;
    s->bus = (struct scsi_bus){ &s->unit, 1 };
    s->u.serial = s->unit.serial;
    rc = scsi_unit_init(&s->unit, e);
    return rc != 0 ? rc : usb_attach(&s->u, &storage_ops, e);
}

static bool storage_quiesce(struct device *d)
{
    struct usb_storage *s = (struct usb_storage *)d;
    bool quiet;

    bus_lock(&s->u.bus->host->lock);
    quiet = list_empty(&s->commands);
    bus_unlock(&s->u.bus->host->lock);
    return quiet;
}

static void storage_changed(struct device *d, const void *node)
{
    struct usb_storage *s = (struct usb_storage *)d;

    bus_lock(&s->u.bus->host->lock);
    if (s->unit.node == node) {
        scsi_unit_attention(&s->unit, SENSE_CAPACITY_CHANGED);
    }
    bus_unlock(&s->u.bus->host->lock);
}

static bool storage_tray(struct device *d, const void *node, enum dev_tray_act act,
                         struct dev_tray *now)
{
    struct usb_storage *s = (struct usb_storage *)d;
    bool ours;

    bus_lock(&s->u.bus->host->lock);
    ours = node && s->unit.node == node && scsi_unit_tray(&s->unit, act, now);
    bus_unlock(&s->u.bus->host->lock);
    return ours;
}

static void storage_destroy(struct device *d)
{
    struct usb_storage *s = (struct usb_storage *)d;

    for (unsigned i = 0; s->units && i < s->units->n; i++) {
        blk_close(s->units->unit[i].node);
    }
    blk_close(s->unit.node); /* no completion comes after this */
    while (s->commands.next && !list_empty(&s->commands)) {
        struct running *r = list_entry(s->commands.next, struct running, node);

        list_remove(&r->node);
        scsi_cmd_done(&r->cmd);
        free(r->data);
        free(r);
    }
    buf_done(&s->data);
    free(s->units);
    usb_detach(&s->u);
}

static int storage_loaded(void *obj, struct err *e)
{
    struct usb_storage *s = obj;

    if (s->phase >= PHASES || s->phase == RUNNING || s->sense_len > SCSI_SENSE_SIZE ||
        s->at > s->length || (s->phase == DATA_IN && s->data.len > s->length) ||
        (s->phase == DATA_OUT && s->length <= DATA_MAX && s->data.len != s->at)) {
        return err_set(e, -EINVAL, "%s: an impossible phase %u", s->u.dev.id, s->phase);
    }
    return 0;
}

#define N(member, kind, doc) ST_FIELD(struct usb_storage, member, kind, 1, doc)
static const struct st_field storage_fields[] = {
    USB_ST_FIELD,
    N(phase, ST_U8, "what comes next: command, data out, data in, running, status, nothing"),
    N(lun, ST_U8, "logical unit of the command"),
    N(status, ST_U8, "its status"),
    N(in, ST_BOOL, "its data goes to the host"),
    ST_ARRAY(struct usb_storage, cdb, ST_BYTES, SCSI_CDB_SIZE, 1, "the command"),
    N(tag, ST_U32, "tag of the command"),
    N(length, ST_U32, "bytes of data that the host wants to move"),
    N(residue, ST_U32, "of those, bytes that were not"),
    N(at, ST_U32, "bytes that have passed"),
    { .name = "data",
      .kind = ST_BUF,
      .offset = offsetof(struct usb_storage, data),
      .count = DATA_MAX,
      .since = 1,
      .doc = "data of the command" },
    ST_ARRAY(struct usb_storage, sense, ST_BYTES, SCSI_SENSE_SIZE, 1,
             "sense of the last failure"),
    N(sense_len, ST_U8, "bytes of it, 0: it was read"),
    { .name = "unit",
      .kind = ST_STRUCT,
      .offset = offsetof(struct usb_storage, unit),
      .count = 1,
      .stride = sizeof(struct scsi_unit),
      .since = 1,
      .table = &scsi_unit_state,
      .doc = "logical unit" },
    ST_END,
};
static const struct st_table storage_state = {
    .name = "usb-storage",
    .version = 1,
    .fields = storage_fields,
    .loaded = storage_loaded,
};

static const struct dev_prop storage_props[] = {
    USB_PROPS,
    { .name = "units",
      .kind = PROP_PTR,
      .offset = offsetof(struct usb_storage, units),
      .required = true,
      .doc = "the disk or CD-ROM drive, of which there is one; the device closes its node" },
    { .name = NULL },
};

const struct device_class usb_storage_class = {
    .name = "usb-storage",
    .doc = "USB mass storage (bulk only) with a SCSI disk or CD-ROM drive",
    .size = sizeof(struct usb_storage),
    .props = storage_props,
    .state = &storage_state,
    .realize = storage_realize,
    .reset = usb_power_on,
    .quiesce = storage_quiesce,
    .changed = storage_changed,
    .tray = storage_tray,
    .destroy = storage_destroy,
};
