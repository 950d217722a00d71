/* SPDX-License-Identifier: Apache-2.0 */
/*
 * NBD exports of a running VM's disks (storage/nbd.h), on a listening socket that the daemon made. Clients read what the guest sees
 * at that moment; for a copy of one instant a backup or a snapshot comes first. Errors that they meet are told to them and never
 * pause the VM, and the disk's limits are the guest's alone. Main thread.
 */
#include "api-schema/json/json.h"
#include "api-schema/rpc/call.h"
#include "engine/base/fd.h"
#include "engine/base/mem.h"
#include "engine/emu/emu.h"
#include "storage/bitmap.h"
#include "storage/disk.h"
#include "storage/job.h"
#include "storage/nbd.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#define EXPORTS_MAX 64

struct emu_exports {
    struct nbd_server *server;
    struct nbd_tls tls;
    bool stopped;              /* and is freed when nothing of it is in flight */
    struct emu_exports *older; /* those that were stopped before */
};

static void server_free(struct emu_exports *x)
{
    if (x) {
        nbd_server_free(x->server);
        nbd_tls_free(&x->tls);
        free(x);
    }
}

void export_stop(struct emu *m)
{
    while (m->exports) {
        struct emu_exports *x = m->exports;

        m->exports = x->older;
        server_free(x);
    }
}

static bool in_use(const struct emu *m, const struct blk_node *n)
{
    for (const struct emu_exports *x = m->exports; x; x = x->older) {
        if (nbd_server_uses(x->server, n)) {
            return true;
        }
    }
    return false;
}

void export_sweep_views(struct emu *m)
{
    for (unsigned i = 0; i < m->n_views;) {
        if (blk_view_over(m->view[i]) && !in_use(m, m->view[i])) {
            blk_close(m->view[i]);
            m->view[i] = m->view[--m->n_views];
        } else {
            i++;
        }
    }
}

/* Those that were stopped and have nothing in flight any more. */
static void sweep(struct emu *m)
{
    for (struct emu_exports **at = &m->exports; *at;) {
        struct emu_exports *x = *at;

        if (x->stopped && !nbd_server_uses(x->server, NULL)) {
            *at = x->older;
            server_free(x);
        } else {
            at = &x->older;
        }
    }
    export_sweep_views(m);
}

static bool running(const struct emu *m)
{
    return m->exports && !m->exports->stopped;
}

static bool each(const struct emu *m, unsigned i, struct nbd_export_info *out)
{
    return running(m) && nbd_export_get(m->exports->server, i, out);
}

/* The disk that an export shows, also as it was. */
static const char *disk_name(const struct blk_node *n)
{
    const char *disk = blk_view_disk(n);

    return disk ? disk : blk_name(n);
}

void export_drop_view(struct emu *m, const struct blk_node *disk)
{
    struct nbd_export_info x;

    for (unsigned i = 0; each(m, i, &x);) {
        const char *of = blk_view_disk(x.node);

        if (of && strcmp(of, blk_name(disk)) == 0) {
            (void)nbd_export_remove(m->exports->server, x.name, false, NULL);
        } else {
            i++;
        }
    }
    export_sweep_views(m);
}

void export_drop_disk(struct emu *m, const struct blk_node *disk)
{
    struct nbd_export_info x;

    for (unsigned i = 0; each(m, i, &x);) {
        if (x.node == disk) {
            (void)nbd_export_remove(m->exports->server, x.name, false, NULL);
        } else {
            i++;
        }
    }
}

bool export_busy(const struct emu *m, const struct blk_node *disk)
{
    return in_use(m, disk);
}

bool export_has(const struct emu *m, const struct blk_node *disk)
{
    struct nbd_export_info x;

    for (unsigned i = 0; each(m, i, &x); i++) {
        if (x.node == disk) {
            return true;
        }
    }
    return export_busy(m, disk);
}

bool export_uses_bitmap(const struct emu *m, const char *disk, const char *bitmap)
{
    struct nbd_export_info x;
    struct blk_dirty_info d;

    for (unsigned i = 0; each(m, i, &x); i++) {
        if (!x.dirty || strcmp(disk_name(x.node), disk) != 0) {
            continue;
        }
        blk_dirty_get(x.dirty, &d); /* clients may know it by another name */
        if (!bitmap || (d.name && strcmp(d.name, bitmap) == 0)) {
            return true;
        }
    }
    for (unsigned i = 0; i < m->n_views; i++) { /* somebody may still be told of extents */
        if (strcmp(disk_name(m->view[i]), disk) == 0 && blk_view_over(m->view[i]) &&
            in_use(m, m->view[i])) {
            return true;
        }
    }
    return false;
}

/* --- the server --- */

static int check_socket(int fd, struct err *e)
{
    int on = 0;
    socklen_t n = sizeof(on);

    return fd >= 0 && getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &on, &n) == 0 && on
               ? 0
               : err_set(e, -EINVAL, "no listening socket came with the call");
}

void api_handle_emu_export_start(struct api_call *call, struct api_emu_export_start_in *in)
{
    struct emu *m = control_emu(call);
    AUTO_FD fd = control_passed_fd(call);
    const struct nbd_tls_text text = { .certificate = in->certificate,
                                       .key = in->key,
                                       .authority = in->authority };
    struct nbd_server_options o = { .max_clients = (unsigned)in->clients };
    struct emu_exports *x;
    struct err e = ERR_INIT;
    int rc = check_socket(fd, &e);

    sweep(m);
    if (running(m)) {
        api_fail(call, API_E_EXISTS, m->vm->name, "add exports to it, or stop it first",
                 "VM '%s' serves NBD clients already", m->vm->name);
        return;
    }
    if (!m->pool) {
        api_fail(call, API_E_BAD_STATE, m->vm->name, NULL, "VM '%s' has no disks", m->vm->name);
        return;
    }
    x = xnew(struct emu_exports);
    if (rc == 0 && (in->certificate || in->key || in->authority)) {
        rc = nbd_tls_new_text(&text, &x->tls, &e);
        o.tls = &x->tls;
    }
    if (rc == 0) {
        x->server = nbd_server_new(m->loop, m->workers, &o);
        rc = nbd_server_listen(x->server, take_fd(&fd), &e);
    }
    if (rc != 0) {
        server_free(x);
        api_fail(call, API_E_INVALID_PARAMS, m->vm->name, NULL, "%s", e.msg);
        return;
    }
    x->older = m->exports;
    m->exports = x;
    api_reply_emu_export_start(call);
}

void api_handle_emu_export_stop(struct api_call *call, struct api_emu_export_stop_in *in)
{
    struct emu *m = control_emu(call);

    (void)in;
    if (running(m)) {
        nbd_server_stop(m->exports->server);
        m->exports->stopped = true;
    }
    sweep(m);
    api_reply_emu_export_stop(call);
}

/* --- exports --- */

/* In the place of the disk what the backup under way shows of it. */
static int show_backup(struct emu *m, struct nbd_export_options *o, struct err *e)
{
    struct blk_job *j = blk_job_of(m->jobs, o->node);
    bool known = false;
    int rc;

    if (!j) {
        return err_set(e, -ENOENT, "disk '%s' has no backup under way", blk_name(o->node));
    }
    if (o->bitmap && o->bitmap != blk_job_bitmap(j)) {
        return err_set(e, -EINVAL, "the backup of disk '%s' is not of that bitmap",
                       blk_name(o->node));
    }
    export_sweep_views(m);
    if (m->n_views == JOBS_MAX) {
        return err_set(e, -EBUSY, "%d backups are shown already", JOBS_MAX);
    }
    rc = blk_job_view(j, &o->node, e);
    for (unsigned i = 0; i < m->n_views && rc == 0; i++) {
        known |= m->view[i] == o->node;
    }
    if (rc == 0 && !known) {
        m->view[m->n_views++] = o->node;
    }
    return rc;
}

static int add(struct emu *m, const struct api_emu_export_add_in *in, struct err *e)
{
    struct nbd_export_info other;
    struct nbd_export_options o = { .name = in->name,
                                    .description = in->description,
                                    .node = disks_find(m, in->disk),
                                    .writable = in->writable,
                                    .owned = true,
                                    .bitmap_name = in->bitmap_name ? in->bitmap_name
                                                                   : in->bitmap,
                                    .id = in->id };

    if (!o.node) {
        return err_set(e, -ENOENT, "there is no disk '%s'", in->disk);
    }
    if (nbd_export_get(m->exports->server, EXPORTS_MAX - 1, &other)) {
        return err_set(e, -EBUSY, "%d exports are there already", EXPORTS_MAX);
    }
    for (unsigned i = 0; in->id && each(m, i, &other); i++) {
        if (other.id && strcmp(other.id, in->id) == 0) {
            return err_set(e, -EEXIST, "there is an export with the id '%s' already", in->id);
        }
    }
    if (in->bitmap && jobs_swaps(m, o.node)) {
        return err_set(e, -EBUSY,
                       "disk '%s' has a job that may end the image that keeps the bitmap",
                       in->disk);
    }
    if (in->bitmap) {
        int rc = disks_find_bitmap(o.node, in->bitmap, &o.bitmap, e);

        if (rc != 0) {
            return rc;
        }
    }
    if (in->backup) {
        int rc = show_backup(m, &o, e);

        if (rc != 0) {
            return rc;
        }
    }
    return nbd_export_add(m->exports->server, &o, e);
}

static bool serves(struct api_call *call)
{
    struct emu *m = control_emu(call);

    if (!running(m)) {
        api_fail(call, API_E_BAD_STATE, m->vm->name, "start it: 'vmctl disk export-start'",
                 "VM '%s' serves no NBD clients", m->vm->name);
    }
    return running(m);
}

static void answer(struct api_call *call, const char *name, int rc, const struct err *e)
{
    int code = rc == -EEXIST   ? API_E_EXISTS
               : rc == -ENOENT ? API_E_NOT_FOUND
               : rc == -EBUSY  ? API_E_BUSY
                               : API_E_INVALID_PARAMS;

    if (rc != 0) {
        api_fail(call, code, name, NULL, "%s", e->msg);
    } else {
        api_reply_json(call, json_object_new_object());
    }
}

void api_handle_emu_export_add(struct api_call *call, struct api_emu_export_add_in *in)
{
    struct err e = ERR_INIT;

    if (serves(call)) {
        int rc = add(control_emu(call), in, &e);

        answer(call, in->name, rc, &e);
    }
}

void api_handle_emu_export_remove(struct api_call *call, struct api_emu_export_remove_in *in)
{
    struct err e = ERR_INIT;

    if (serves(call)) {
        int rc = nbd_export_remove(control_emu(call)->exports->server, in->name, in->safe, &e);

        answer(call, in->name, rc, &e);
    }
}

void api_handle_emu_exports(struct api_call *call, struct api_emu_exports_in *in)
{
    struct emu *m = control_emu(call);
    struct api_disk_export list[EXPORTS_MAX];
    struct nbd_export_info x;
    unsigned n = 0;

    (void)in;
    while (n < EXPORTS_MAX && each(m, n, &x)) {
        list[n++] = (struct api_disk_export){ .name = (char *)x.name,
                                              .disk = (char *)disk_name(x.node),
                                              .backup = blk_view_disk(x.node) != NULL,
                                              .writable = x.writable,
                                              .bitmap = (char *)x.bitmap,
                                              .clients = x.clients,
                                              .id = (char *)x.id };
    }
    api_reply_emu_exports(call, &(struct api_emu_exports_out){
                                    .serving = running(m), .exports = list, .n_exports = n });
}
