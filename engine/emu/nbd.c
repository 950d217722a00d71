/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Disks that are exports of NBD servers. The emulator makes no socket: it was given a connection, tells whoever controls it when
 * that is lost, again and again until there is another, and goes on over that one. What was under way is kept meanwhile as
 * the disk's policy says (disks.c), usually with the VM paused. Part of struct emu. Main thread, but for on_lost().
 */
#include "api-schema/net/nbdaddr.h"
#include "api-schema/rpc/call.h"
#include "engine/base/fd.h"
#include "engine/base/log.h"
#include "engine/emu/emu.h"
#include "engine/emu/state/migrate.h"
#include "storage/block.h"
#include "storage/disk.h"
#include "storage/nbd.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#define NS_PER_S INT64_C(1000000000)
enum { LONGEST = 5 }; /* 2^LONGEST seconds from one attempt to the next, at most */

int nbd_prepare(struct emu *m, struct blk_options *o, struct nbd_addr *address, struct err *e)
{
    int rc = 0;

    if (!nbd_addr_is(o->path)) {
        return 0;
    }
    rc = nbd_addr_parse(o->path, address, e);
    if (rc == 0 && o->fd < 0 && address->tls) {
        return err_set(
            e, -ENOTSUP,
            "disk '%s': an emulator that is run by hand has no TLS; have vmd start it",
            o->name);
    }
    if (rc == 0 && o->fd < 0 && m->opt.config_fd < 0) { /* run by hand, not confined yet */
        o->fd = nbd_addr_connect(address, e);
        rc = o->fd < 0 ? o->fd : 0;
    }
    if (rc != 0) {
        err_prefix(e, "disk '%s'", o->name);
        return rc;
    }
    o->protocol = &blk_nbd_wire_driver;
    o->export = address->export;
    return 0;
}

/* --- a connection is lost --- */

static bool is_lost(const struct emu *m, unsigned i)
{
    return blk_nbd_is_lost(blk_disk_image(m->disk[i]));
}

static bool any_lost(const struct emu *m)
{
    bool lost = false;

    for (unsigned i = 0; i < m->n_disks; i++) {
        lost |= is_lost(m, i);
    }
    return lost;
}

bool nbd_is_over(const struct emu *m)
{
    return !m->io_stays && !any_lost(m);
}

/* Whoever controls us is told at once, after one second, two, four, ... */
static void tell(void *arg)
{
    struct emu *m = arg;

    if (!any_lost(m)) {
        return;
    }
    for (unsigned i = 0; i < m->n_disks; i++) {
        if (is_lost(m, i)) {
            control_disk_lost(m, blk_name(m->disk[i]));
        }
    }
    loop_timer_arm(m->nbd_timer, NS_PER_S << m->nbd_told);
    m->nbd_told += m->nbd_told < LONGEST;
}

static void begin(void *arg)
{
    struct emu *m = arg;

    for (unsigned i = 0; i < m->n_disks; i++) {
        if (is_lost(m, i)) {
            log_warn("emu", "disk '%s': the connection to its NBD server is lost",
                     blk_name(m->disk[i]));
        }
    }
    if (!m->nbd_timer) {
        m->nbd_timer = loop_timer_new(m->loop, tell, m);
    }
    m->nbd_told = 0;
    tell(m);
}

/* Any thread, with the connection's lock held. */
static void on_lost(void *arg)
{
    struct emu *m = arg;

    loop_post(m->loop, begin, m);
}

void nbd_opened(struct emu *m, unsigned i)
{
    (void)blk_nbd_on_lost(blk_disk_image(m->disk[i]), on_lost, m);
}

/* --- there is another --- */

static bool may_resume(const struct emu *m)
{
    return m->vm->state == VM_PAUSED && strcmp(m->reason, "io-error") == 0 && nbd_is_over(m) &&
           !m->vm->ended && !m->unfit && !dump_at_work(m) && !state_at_work(m) &&
           !migrate_holds(m);
}

void api_handle_emu_disk_reconnect(struct api_call *call, struct api_emu_disk_reconnect_in *in)
{
    struct emu *m = control_emu(call);
    struct blk_node *disk = disks_find(m, in->disk);
    struct emu_file *given = given_file(m, in->file);
    struct err e = ERR_INIT;

    if (!disk || !given) {
        api_fail(call, API_E_NOT_FOUND, disk ? in->file : in->disk, NULL,
                 disk ? "no connection to '%s' was passed" : "there is no disk '%s'",
                 disk ? in->file : in->disk);
        return;
    }
    if (blk_nbd_reconnect(blk_disk_image(disk), take_fd(&given->fd), &e) != 0) {
        err_prefix(&e, "disk '%s': %s", in->disk, in->file);
        api_fail_err(call, API_E_FILE_ERROR, in->file, NULL, &e);
        return;
    }
    log_info("emu", "disk '%s': connected to its NBD server again", in->disk);
    if (m->vm->state == VM_RUNNING) {
        blk_retry(disk);
    } else if (may_resume(m)) {
        vm_resume(m->vm);
    }
    api_reply_emu_disk_reconnect(call);
}

void nbd_done(struct emu *m)
{
    loop_timer_free(m->nbd_timer);
    m->nbd_timer = NULL;
}
