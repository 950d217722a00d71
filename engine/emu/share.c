/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Shared folders of the configuration, and those that come while the VM runs: their devices, and the sockets by which their
 * servers are reached, which the spawner has started. Owns what vhost-user needs of the host, made before the process confines
 * itself. Main thread.
 */
#include "api-schema/rpc/call.h"
#include "devices/board/board.h"
#include "devices/fs/share.h"
#include "devices/registry.h"
#include "devices/virtio/vhost_user.h"
#include "engine/base/fd.h"
#include "engine/base/log.h"
#include "engine/base/mem.h"
#include "engine/base/str.h"
#include "engine/emu/emu.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

/* For a back end to answer, on a machine that has much to do. The VM waits: at its start, or, attached later, its main loop. */
#define START_NS INT64_C(60000000000)
#define ATTACH_NS INT64_C(10000000000)

struct one_share {
    char *tag, *id;
};

struct emu_shares {
    struct one_share all[BOARD_MAX_SHARES];
    unsigned n;
    struct vhost_kit kit[BOARD_MAX_SHARES];
    unsigned n_kits;
};

/* --- what there is --- */

unsigned shares_count(const struct emu *m)
{
    return m->shares ? m->shares->n : 0;
}

const char *shares_id(const struct emu *m, unsigned i)
{
    return m->shares->all[i].id;
}

const char *shares_tag(const struct emu *m, unsigned i)
{
    return m->shares->all[i].tag;
}

int shares_find(const struct emu *m, const char *name)
{
    for (unsigned i = 0; i < shares_count(m); i++) {
        if (strcmp(shares_tag(m, i), name) == 0 || strcmp(shares_id(m, i), name) == 0) {
            return (int)i;
        }
    }
    return -1;
}

static void add(struct emu_shares *s, const char *tag, char *take_id)
{
    s->all[s->n++] = (struct one_share){ .tag = xstrdup(tag), .id = take_id };
}

void shares_drop(struct emu *m, unsigned i)
{
    struct emu_shares *s = m->shares;

    free(s->all[i].tag);
    free(s->all[i].id);
    memmove(&s->all[i], &s->all[i + 1], (--s->n - i) * sizeof(s->all[0]));
}

int shares_idle(const struct emu *m, struct err *e)
{
    for (unsigned i = 0; i < shares_count(m); i++) {
        const struct device *d = dev_find(m->vm, shares_id(m, i));

        if (d && share_mounted(d)) {
            return err_set(e, -EBUSY,
                           "the guest has the shared folder '%s' in use: what its server knows "
                           "of open files cannot go "
                           "into a saved state; unmount it in the guest, and detach it where "
                           "it is by virtiofs",
                           shares_tag(m, i));
        }
    }
    return 0;
}

/* --- kits --- */

static int open_kits(struct emu *m, struct err *e)
{
    struct emu_shares *s = m->shares;
    unsigned want = (unsigned)m->config.root_ports; /* that many may come */
    int rc = 0;

    for (size_t i = 0; i < m->config.n_shares; i++) {
        want += m->config.shares[i].driver == API_SHARE_DRIVER_VIRTIOFS &&
                !m->config.shares[i].hotplug;
    }
    want = want < BOARD_MAX_SHARES ? want : BOARD_MAX_SHARES;
    m->vhost = want > 0;
    while (s->n_kits < want && rc == 0) {
        rc = vhost_kit_open(&s->kit[s->n_kits++], e);
    }
    return rc;
}

static struct vhost_kit *free_kit(struct emu_shares *s)
{
    for (unsigned i = 0; i < s->n_kits; i++) {
        if (!s->kit[i].taken) {
            return &s->kit[i];
        }
    }
    return NULL;
}

/* --- opening --- */

static int given_socket(struct emu *m, const struct api_share *share, struct err *e)
{
    for (unsigned i = 0; i < m->opt.n_shares; i++) {
        if (m->opt.shares[i].fd >= 0 && strcmp(m->opt.shares[i].path, share->tag) == 0) {
            return take_fd(&m->opt.shares[i].fd);
        }
    }
    if (m->opt.config_fd < 0 && share->socket) {
        return unix_connect(share->socket, e);
    }
    return err_set(e, -ENOENT,
                   m->opt.config_fd < 0 ? "shared folder '%s': only the daemon starts servers; "
                                          "name the socket of one that runs ('socket')"
                                        : "shared folder '%s' was not passed with --share",
                   share->tag);
}

/* What its device is made of; the socket is taken, also when it fails. */
static int connect_share(struct emu *m, const struct api_share *share, int take_sock,
                         int64_t patience_ns, struct vhost_user **back, int *fd, struct err *e)
{
    AUTO_FREE char *name = xasprintf("shared folder '%s'", share->tag);
    struct vhost_kit *kit;

    *back = NULL;
    *fd = -1;
    if (share->driver == API_SHARE_DRIVER_9P) {
        *fd = take_sock;
        return 0;
    }
    kit = free_kit(m->shares);
    if (!kit) {
        close(take_sock);
        return err_set(e, -ENOSPC, "%s: it has %u shared folders by virtiofs already", name,
                       m->shares->n_kits);
    }
    return vhost_user_new(m->loop, take_sock, kit, name, VHOST_MAX_QUEUES, 0, patience_ns, back,
                          e);
}

static int open_one(struct emu *m, const struct api_share *share, struct board_config *b,
                    struct err *e)
{
    struct board_share *s = &b->share[b->n_shares];
    int sock = shares_find(m, share->tag) >= 0
                   ? err_set(e, -EEXIST, "two shared folders have the tag '%s'", share->tag)
                   : given_socket(m, share, e);
    int rc = sock < 0 ? sock : connect_share(m, share, sock, START_NS, &s->back, &s->fd, e);

    if (rc == 0) {
        add(m->shares, share->tag, xasprintf("share%u", b->n_shares));
        s->tag = shares_tag(m, m->shares->n - 1);
        s->id = shares_id(m, m->shares->n - 1);
        s->hotplug = share->hotplug;
        b->n_shares++;
    }
    return rc;
}

int shares_open(struct emu *m, struct board_config *b, struct err *e)
{
    int rc;

    m->shares = xnew(struct emu_shares);
    *m->shares = (struct emu_shares){ .n = 0 };
    for (size_t i = 0; i < m->config.n_shares && m->kvm.pid; i++) {
        if (m->config.shares[i].driver == API_SHARE_DRIVER_VIRTIOFS) {
            return err_set(e, -ENOTSUP,
                           "shared folder '%s': virtiofs is not there under the engine kvm; set its driver to 9p",
                           m->config.shares[i].tag);
        }
    }
    rc = open_kits(m, e);
    for (size_t i = 0; i < m->config.n_shares && rc == 0; i++) {
        rc = open_one(m, &m->config.shares[i], b, e);
    }
    return rc;
}

void shares_close_all(struct board_config *b)
{
    for (unsigned i = 0; i < b->n_shares; i++) {
        vhost_user_free(b->share[i].back);
        fd_autoclose(&b->share[i].fd);
    }
    b->n_shares = 0;
}

void shares_free(struct emu *m)
{
    while (shares_count(m) > 0) {
        shares_drop(m, m->shares->n - 1);
    }
    for (unsigned i = 0; m->shares && i < m->shares->n_kits; i++) {
        vhost_kit_close(&m->shares->kit[i]);
    }
    free(m->shares);
    m->shares = NULL;
}

/* --- while it runs --- */

static int attach(struct emu *m, const struct api_share *share, int take_sock, struct err *e)
{
    AUTO_FREE char *id = xasprintf("plugged%u", m->n_plugged++);
    AUTO_FD sock = take_sock, fd = -1;
    struct vhost_user *back = NULL;
    struct device *d = NULL;
    int rc;

    if (sock < 0) {
        return err_set(e, -EINVAL, "no descriptor came with the call");
    }
    if (shares_find(m, share->tag) >= 0) {
        return err_set(e, -EEXIST, "it has a shared folder '%s' already", share->tag);
    }
    if (m->shares->n >= BOARD_MAX_SHARES) {
        return err_set(e, -ENOSPC, "it has %d shared folders already", BOARD_MAX_SHARES);
    }
    if (!hotplug_has_slot(m, e)) {
        return -ENOSPC;
    }
    rc = connect_share(m, share, take_fd(&sock), ATTACH_NS, &back, &fd, e);
    if (rc == 0) {
        rc = share_device_new(m->vm, id, share->tag, &back, &fd, &d, e);
        vhost_user_free(rc != 0 ? back : NULL);
    }
    rc = rc == 0 ? hotplug_plug(m, d, e) : rc;
    if (rc == 0) {
        add(m->shares, share->tag, take_ptr(id));
        hotplug_came(m, "shared folder", share->tag);
    }
    return rc;
}

void api_handle_emu_attach_share(struct api_call *call, struct api_emu_attach_share_in *in)
{
    struct emu *m = control_emu(call);
    struct err e = ERR_INIT;
    int rc = attach(m, in->share, control_passed_fd(call), &e);

    if (rc != 0) {
        api_fail_err(
            call,
            rc == -EEXIST    ? API_E_EXISTS
            : rc == -ENOSPC  ? API_E_HOST_LIMIT
            : rc == -ENOTSUP ? API_E_UNSUPPORTED
                             : API_E_INVALID_PARAMS,
            in->share->tag,
            rc == -ENOSPC ? "detach something, or give the VM more 'root_ports'" : NULL, &e);
        return;
    }
    api_reply_emu_attach_share(call, &(struct api_emu_attach_share_out){
                                         .device = m->shares->all[m->shares->n - 1].id });
}
