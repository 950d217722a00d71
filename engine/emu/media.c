/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Drives whose medium comes out: another image, or none, under a disk that stays, and the tray. A tray that the guest has locked is
 * asked for, and who wants it open waits a while. Owns struct wish, one for each call that waits. Part of struct emu. Main thread, but
 * for media_tray_moved().
 */
#include "api-schema/json/codec.h"
#include "api-schema/rpc/call.h"
#include "engine/base/mem.h"
#include "engine/base/str.h"
#include "engine/core/device.h"
#include "engine/core/vm.h"
#include "engine/emu/emu.h"
#include "storage/disk.h"
#include "storage/job.h"

#include <errno.h>
#include <string.h>

#define MS_NS INT64_C(1000000)

/* What is to be done with a drive once its tray is open. */
struct wish {
    struct list link; /* emu.wishes */
    struct emu *m;
    struct api_call *call;
    struct loop_timer *timer;
    char disk[64];
    bool medium;            /* the medium is changed; else the tray is left open */
    bool stays_open;        /* over the new medium, too */
    struct blk_node *image; /* the medium that comes; NULL: none does */
    struct api_disk now;    /* what the configuration says of it */
};

static void wish_free(struct wish *w)
{
    list_remove(&w->link);
    loop_timer_free(w->timer);
    blk_close(w->image);
    api_release(&api_type_disk, &w->now);
    free(w);
}

static int find(const struct emu *m, const char *name)
{
    for (unsigned i = 0; i < m->n_disks; i++) {
        if (strcmp(blk_name(m->disk[i]), name) == 0) {
            return (int)i;
        }
    }
    return -1;
}

/* False: disk i is no drive whose medium comes out. */
static bool tray(struct emu *m, unsigned i, enum dev_tray_act act, struct dev_tray *now)
{
    list_for_each (it, &m->vm->devices) {
        struct device *d = list_entry(it, struct device, node);

        if (d->cls->tray && d->cls->tray(d, m->disk[i], act, now)) {
            return true;
        }
    }
    return false;
}

bool media_tray(struct emu *m, unsigned i, struct dev_tray *now)
{
    return tray(m, i, DEV_TRAY_LOOK, now);
}

/* Tells what has moved since it was looked the last time. */
static void tell_moves(struct emu *m)
{
    struct dev_tray now;

    for (unsigned i = 0; m->vm && i < m->n_disks; i++) {
        if (tray(m, i, DEV_TRAY_LOOK, &now) && now.open != m->disks.disk[i].tray_open) {
            m->disks.disk[i].tray_open = now.open;
            control_tray(m, blk_name(m->disk[i]), now.open);
        }
    }
}

/* The drive's tray is open. */
static void change_medium(struct emu *m, unsigned i, struct wish *w)
{
    struct blk_node *disk = m->disk[i], *image = take_ptr(w->image), *was;
    struct api_disk *c = &m->config.disks[i];
    bool close = image != NULL && !w->stays_open;
    struct dev_tray now;

    if (!image) {
        image = blk_nothing_new(m->pool, w->disk);
    }
    blk_drain_begin(disk);
    blk_disk_change(disk, true);
    was = blk_disk_swap(disk, image);
    blk_disk_change(disk, false);
    blk_drain_end(disk);
    blk_close(was);
    free(c->file);
    c->file = take_ptr(w->now.file);
    c->format = w->now.format;
    nbd_opened(m, i);
    if (close) {
        tray(m, i, DEV_TRAY_CLOSE, &now);
    }
    tell_moves(m);
}

static bool is_idle(struct api_call *call, struct emu *m, unsigned i, const char *name)
{
    const char *why = state_at_work(m)     ? "the machine's state is being saved or loaded"
                      : migrate_at_work(m) ? "the machine is being moved"
                      : m->jobs && blk_job_of(m->jobs, m->disk[i]) ? "it has a block job"
                      : export_has(m, m->disk[i])                  ? "it is exported"
                                                                   : NULL;

    if (why) {
        api_fail(call, API_E_BUSY, name, "wait until that is over, or end it", "disk '%s': %s",
                 name, why);
    }
    return why == NULL;
}

static void grant(struct wish *w)
{
    struct emu *m = w->m;
    int i = find(m, w->disk);

    if (i < 0) {
        api_fail(w->call, API_E_NOT_FOUND, w->disk, NULL, "disk '%s' went meanwhile", w->disk);
    } else if (w->medium) {
        if (is_idle(w->call, m, (unsigned)i, w->disk)) { /* it may have waited for long */
            change_medium(m, (unsigned)i, w);
            api_reply_emu_disk_medium(w->call);
        }
    } else {
        tell_moves(m);
        api_reply_emu_disk_tray(w->call);
    }
    wish_free(w);
}

static void look(void *arg)
{
    struct emu *m = arg;
    struct dev_tray now;

    if (!m->vm) {
        return;
    }
    tell_moves(m);
    list_for_each_safe (it, &m->wishes) {
        struct wish *w = list_entry(it, struct wish, link);
        int i = find(m, w->disk);

        if (i < 0 || (tray(m, (unsigned)i, DEV_TRAY_LOOK, &now) && now.open)) {
            grant(w);
        }
    }
}

void media_tray_moved(void *arg)
{
    struct emu *m = arg;

    loop_post(m->loop, look, m);
}

static void on_late(void *arg)
{
    struct wish *w = arg;

    api_fail(w->call, API_E_BUSY, w->disk,
             "unmount it in the guest ('eject' there opens the tray, too), or use force",
             "the guest keeps the tray of '%s' locked; it was asked to open it", w->disk);
    wish_free(w);
}

static void begin(struct wish *w, unsigned i, bool force, int64_t wait_ms)
{
    struct emu *m = w->m;
    struct dev_tray now;

    list_append(&m->wishes, &w->link);
    tray(m, i, DEV_TRAY_LOOK, &now);
    if (!now.open && now.locked && !force) {
        tray(m, i, DEV_TRAY_ASK, &now);
        w->timer = loop_timer_new(m->loop, on_late, w);
        loop_timer_arm(w->timer, wait_ms * MS_NS);
        return;
    }
    tray(m, i, DEV_TRAY_OPEN, &now);
    tell_moves(m);
    grant(w);
}

/* Why disk i's medium cannot change now; false after the call was answered. */
static bool may_change(struct api_call *call, struct emu *m, int i, const char *name)
{
    struct dev_tray now;

    if (i < 0) {
        api_fail(call, API_E_NOT_FOUND, name, "see 'vmctl show' for the names of disks",
                 "VM '%s' has no disk '%s'", m->vm->name, name);
        return false;
    }
    if (!tray(m, (unsigned)i, DEV_TRAY_LOOK, &now)) {
        api_fail(call, API_E_UNSUPPORTED, name,
                 "CD-ROM drives have one, and disks with 'removable' on the buses scsi and usb",
                 "disk '%s' has no medium that comes out", name);
        return false;
    }
    return true;
}

static struct wish *wish_new(struct emu *m, struct api_call *call, const char *disk)
{
    struct wish *w = xnew(struct wish);

    w->m = m;
    w->call = call;
    list_init(&w->link);
    str_copy(w->disk, sizeof(w->disk), disk);
    return w;
}

void api_handle_emu_disk_medium(struct api_call *call, struct api_emu_disk_medium_in *in)
{
    struct emu *m = control_emu(call);
    int i = find(m, in->disk);
    struct err e = ERR_INIT;
    struct wish *w;
    int rc = 0;

    if (!may_change(call, m, i, in->disk) || !is_idle(call, m, (unsigned)i, in->disk)) {
        return;
    }
    w = wish_new(m, call, in->disk);
    w->medium = true;
    w->stays_open = in->tray_open;
    api_copy(&api_type_disk, &m->config.disks[i], &w->now);
    free(w->now.file);
    w->now.file = in->file ? xstrdup(in->file) : NULL;
    w->now.format = in->image_format;
    if (in->file) {
        rc = build_open_image(m, &w->now, in->disk, &w->image, &e);
    }
    if (rc == 0 && w->image && blk_size(w->image) == 0) {
        rc = err_set(&e, -EINVAL, "'%s' is empty", in->file);
    }
    if (rc != 0) {
        api_fail_err(call, rc == -EBUSY ? API_E_BUSY : API_E_FILE_ERROR, in->file, NULL, &e);
        wish_free(w);
        return;
    }
    begin(w, (unsigned)i, in->force, in->wait_ms);
}

void api_handle_emu_disk_tray(struct api_call *call, struct api_emu_disk_tray_in *in)
{
    struct emu *m = control_emu(call);
    int i = find(m, in->disk);
    struct dev_tray now;

    if (!may_change(call, m, i, in->disk)) {
        return;
    }
    if (in->open) {
        begin(wish_new(m, call, in->disk), (unsigned)i, in->force, in->wait_ms);
        return;
    }
    tray(m, (unsigned)i, DEV_TRAY_CLOSE, &now);
    tell_moves(m);
    api_reply_emu_disk_tray(call);
}

void media_done(struct emu *m)
{
    while (m->wishes.next && !list_empty(&m->wishes)) {
        struct wish *w = list_entry(m->wishes.next, struct wish, link);

        api_fail(w->call, API_E_BAD_STATE, w->disk, NULL, "the VM ends");
        wish_free(w);
    }
}
