/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Disks and network cards that come and go while the VM runs, in the slots of the board's root ports
 * (devices/bus/pci_root_port.h). What is plugged in appears between two instructions of the guest; what is to go is asked
 * for, and taken out when the guest has let go of it. Part of struct emu. Main thread.
 */
#include "api-schema/json/codec.h"
#include "api-schema/net/nicargs.h"
#include "api-schema/rpc/call.h"
#include "devices/board/disks.h"
#include "devices/bus/pci_root_port.h"
#include "devices/bus/pci.h"
#include "devices/misc/virtio_mem.h"
#include "devices/net/virtio_net.h"
#include "devices/registry.h"
#include "devices/scsi/units.h"
#include "engine/base/fd.h"
#include "engine/base/log.h"
#include "engine/base/mem.h"
#include "engine/base/str.h"
#include "engine/core/mem.h"
#include "engine/emu/emu.h"
#include "network/stream.h"
#include "storage/block.h"
#include "storage/job.h"

#include <errno.h>
#include <malloc.h>
#include <string.h>
#include <unistd.h>

void hotplug_name_all(struct emu *m)
{
    char id[24];

    for (unsigned i = 0; i < m->n_disks; i++) {
        board_disk_device(&m->disks, i, id);
        m->disk_id[i] = xstrdup(id);
    }
    for (unsigned i = 0; i < m->n_disks; i++) {
        m->disks.disk[i].id = m->disk_id[i];
    }
    for (unsigned i = 0; i < m->n_disks; i++) {
        struct board_disk *d = &m->disks.disk[i];

        if (d->bus == BOARD_SCSI && d->controller < EMU_MAX_SCSI &&
            !m->scsi_id[d->controller]) {
            m->scsi_id[d->controller] = xstrdup(m->disk_id[i]);
        }
    }
    for (size_t i = 0; i < m->config.n_nics; i++) {
        m->nic_id[i] = xasprintf("nic%zu", i);
    }
    list_init(&m->leaving);
    list_init(&m->changes);
    list_init(&m->wishes);
}

/* What is on its way out. */
struct leaving {
    struct emu *m;
    struct device *port, *fn, *behind;
    struct blk_node *disk;  /* of a disk */
    struct mem_region *ram; /* of a memory device */
    enum api_device_kind kind;
    char name[64];
    struct list link;         /* a unit of a SCSI adapter: emu.leaving */
    struct loop_timer *timer; /* looks whether it has left */
};

static void leaving_free(struct leaving *l)
{
    if (l->timer) {
        list_remove(&l->link);
        loop_timer_free(l->timer);
    }
    free(l);
}

static void drop_rng(struct emu *m, unsigned at)
{
    free(m->rng[at].name);
    free(m->rng[at].id);
    memmove(&m->rng[at], &m->rng[at + 1], (--m->n_rngs - at) * sizeof(m->rng[0]));
}

void hotplug_done(struct emu *m)
{
    for (unsigned i = 0; i < BOARD_MAX_DISKS; i++) {
        free(take_ptr(m->disk_id[i]));
    }
    for (unsigned i = 0; i < BOARD_MAX_NICS; i++) {
        free(take_ptr(m->nic_id[i]));
    }
    for (unsigned i = 0; i < EMU_MAX_SCSI; i++) {
        free(take_ptr(m->scsi_id[i]));
    }
    while (m->n_rngs > 0) {
        drop_rng(m, m->n_rngs - 1);
    }
    while (m->leaving.next && !list_empty(&m->leaving)) {
        struct leaving *l = list_entry(m->leaving.next, struct leaving, link);

        leaving_free(l);
    }
    hotplug_record_done(m);
}

/* --- slots --- */

static struct device *port_at(struct emu *m, unsigned i)
{
    return m->board_class->port ? m->board_class->port(m->board, i) : NULL;
}

static struct device *free_port(struct emu *m, struct err *e)
{
    struct device *port = NULL;

    for (unsigned i = 0; i < BOARD_MAX_PORTS && (port = port_at(m, i)); i++) {
        if (!pci_root_port_taken(port)) {
            return port;
        }
    }
    err_set(e, -ENOSPC, "%s",
            port_at(m, 0) ? "every hot-plug slot is taken" : "the VM has no hot-plug slot");
    return NULL;
}

/* The function that shows a device to the guest: itself, or its transport. */
static struct device *function_of(struct emu *m, const char *id)
{
    AUTO_FREE char *transport = xasprintf("%s.pci", id);
    struct device *d = dev_find(m->vm, transport);

    return d ? d : dev_find(m->vm, id);
}

static struct device *port_of(struct emu *m, const struct device *fn)
{
    struct device *port;

    for (unsigned i = 0; i < BOARD_MAX_PORTS && (port = port_at(m, i)); i++) {
        const struct pci_fn *card = pci_root_port_bus(port)->fn[0];

        if (card && &card->dev == fn) {
            return port;
        }
    }
    return NULL;
}

/* --- plugging in --- */

struct plug {
    struct emu *m;
    struct device *port, *d;
    bool virtio;
    int rc;
    struct err *e;
};

/* A virtio device gets a function in front of it. */
static int in_front(struct plug *p, struct device **fn)
{
    AUTO_FREE char *id = xasprintf("%s.pci", p->d->id);
    int rc = dev_realize(p->d, p->e);

    if (rc == 0) {
        rc = dev_new(p->m->vm, &virtio_pci_class, id, fn, p->e);
    }
    return rc == 0 ? dev_set_ptr(*fn, "device", p->d, p->e) : rc;
}

/* With the vCPUs at the barrier: nobody sees half a card. */
static void plug_in(void *arg)
{
    struct plug *p = arg;
    struct device *fn = p->virtio ? NULL : p->d;

    p->rc = p->virtio ? in_front(p, &fn) : 0;
    if (p->rc == 0) {
        p->rc = dev_set_ptr(fn, "bus", pci_root_port_bus(p->port), p->e);
    }
    if (p->rc == 0) {
        p->rc = dev_realize(fn, p->e);
    }
    if (p->rc == 0) {
        pci_root_port_plugged(p->port);
        return;
    }
    if (fn != p->d) {
        dev_free(fn);
    }
    dev_free(p->d);
}

/* Takes the device, also when it fails. */
static int plug(struct emu *m, struct device *take_d, bool virtio, struct err *e)
{
    struct plug p = { .m = m, .d = take_d, .virtio = virtio, .e = e };

    p.port = free_port(m, e);
    if (!p.port) {
        dev_free(take_d);
        return -ENOSPC;
    }
    vm_at_barrier(m->vm, plug_in, &p);
    return p.rc;
}

/* --- what the emulator knows of its disks and cards --- */

static void drop_disk(struct emu *m, unsigned at)
{
    unsigned left = m->n_disks - at - 1;

    api_release(&api_type_disk, &m->config.disks[at]);
    memmove(&m->config.disks[at], &m->config.disks[at + 1], left * sizeof(m->config.disks[0]));
    memmove(&m->disk[at], &m->disk[at + 1], left * sizeof(m->disk[0]));
    memmove(&m->disks.disk[at], &m->disks.disk[at + 1], left * sizeof(m->disks.disk[0]));
    free(m->disk_id[at]);
    memmove(&m->disk_id[at], &m->disk_id[at + 1], left * sizeof(m->disk_id[0]));
    m->n_disks--;
    m->config.n_disks = m->disks.n_disks = m->n_disks;
    m->disk_id[m->n_disks] = NULL;
    m->disks.disk[m->n_disks] = (struct board_disk){ .name = NULL };
}

static void drop_nic(struct emu *m, size_t at)
{
    size_t left = m->config.n_nics - at - 1;

    api_release(&api_type_nic, &m->config.nics[at]);
    memmove(&m->config.nics[at], &m->config.nics[at + 1], left * sizeof(m->config.nics[0]));
    memmove(&m->mac[at], &m->mac[at + 1], left * sizeof(m->mac[0]));
    free(m->nic_id[at]);
    memmove(&m->nic_id[at], &m->nic_id[at + 1], left * sizeof(m->nic_id[0]));
    m->nic_id[--m->config.n_nics] = NULL;
}

static int find_disk(const struct emu *m, const char *name)
{
    for (unsigned i = 0; i < m->n_disks; i++) {
        if (strcmp(blk_name(m->disk[i]), name) == 0) {
            return (int)i;
        }
    }
    return -1;
}

static int find_nic(const struct emu *m, const char *name)
{
    for (size_t i = 0; i < m->config.n_nics; i++) {
        if (strcmp(m->config.nics[i].name, name) == 0) {
            return (int)i;
        }
    }
    return -1;
}

/* --- attaching --- */

static int code_of(int rc)
{
    return rc == -EEXIST    ? API_E_EXISTS
           : rc == -ENOSPC  ? API_E_HOST_LIMIT
           : rc == -ENOTSUP ? API_E_UNSUPPORTED
           : rc == -EINVAL  ? API_E_INVALID_PARAMS
                            : API_E_FILE_ERROR;
}

static void refuse(struct api_call *call, int rc, const char *name, const struct err *e)
{
    api_fail_err(call, code_of(rc), name,
                 rc == -ENOSPC ? "detach something, or give the VM more 'root_ports'" : NULL,
                 e);
}

/* Where a disk on the bus scsi comes to; NULL: its adapter is to be made. */
static char **adapter_of(struct emu *m, unsigned i)
{
    const struct board_disk *d = &m->disks.disk[i];

    return d->bus == BOARD_SCSI && d->controller < EMU_MAX_SCSI ? &m->scsi_id[d->controller]
                                                                : NULL;
}

/* What is there from the start has places that only the adapter knows: one that nobody asked for is looked for there. */
static int attach_unit(struct emu *m, unsigned i, const char *adapter, struct err *e)
{
    struct board_disk *d = &m->disks.disk[i];
    bool any = d->unit == BOARD_ANY;
    struct scsi_unit u;
    uint32_t at = 0;
    int rc;

    do {
        *e = (struct err)ERR_INIT;
        d->unit = any ? at++ : d->unit;
        rc = board_disk_unit(&m->disks, i, &u, e);
        if (rc == 0) {
            rc = virtio_scsi_plug(dev_find(m->vm, adapter), &u, e);
            d->node = rc == 0 ? NULL : u.node;
        }
    } while (rc == -EEXIST && any && at < 256);
    if (rc != 0) {
        blk_close(take_ptr(d->node));
    }
    return rc;
}

/* Disk i of the configuration, not opened yet. */
static int attach_disk(struct emu *m, unsigned i, struct err *e)
{
    AUTO_FREE char *name = NULL;
    struct device *d = NULL;
    bool nvme = m->config.disks[i].bus == API_DISK_BUS_NVME;
    bool scsi = m->config.disks[i].bus == API_DISK_BUS_SCSI;
    char **adapter;
    int rc;

    if (!nvme && !scsi && m->config.disks[i].bus != API_DISK_BUS_VIRTIO_PCI) {
        return err_set(
            e, -ENOTSUP,
            "disks on the buses virtio-pci, nvme and scsi can come while the VM runs");
    }
    if (!scsi && !free_port(m, e)) {
        return -ENOSPC;
    }
    rc = build_open_disk(m, i, &m->disks, &name, e);
    if (rc != 0) {
        return rc;
    }
    adapter = adapter_of(m, i);
    m->disk_id[i] = adapter && *adapter ? xstrdup(*adapter)
                                        : xasprintf("plugged%u", m->n_plugged++);
    m->disks.disk[i].id = m->disk_id[i];
    m->disks.n_disks = i + 1;
    if (adapter && *adapter) {
        return attach_unit(m, i, *adapter, e);
    }
    if (!board_disk_leads(&m->disks, i)) {
        rc = err_set(e, -ENOTSUP, "an NVMe disk that comes has a controller of its own");
    } else {
        rc = board_new_disk(m->vm, &m->disks, i, &d, e);
    }
    if (rc != 0) {
        blk_close(m->disks.disk[i].node); /* unless the device has it */
        dev_free(d);
        return rc;
    }
    rc = plug(m, d, !nvme, e);
    if (rc == 0 && adapter) {
        *adapter = xstrdup(m->disk_id[i]);
        hotplug_came(m, "SCSI adapter", *adapter); /* it stays */
    }
    return rc;
}

/* A member that names itself as one made at the start would. */
static bool name_is_free(const struct emu *m, const char *name, bool nic, struct err *e)
{
    if (!name || (nic ? find_nic(m, name) : find_disk(m, name)) < 0) {
        return true;
    }
    err_set(e, -EEXIST, "it has %s '%s' already", nic ? "a network card" : "a disk", name);
    return false;
}

void api_handle_emu_attach_disk(struct api_call *call, struct api_emu_attach_disk_in *in)
{
    struct emu *m = control_emu(call);
    struct err e = ERR_INIT;
    unsigned i = m->n_disks;
    int rc = -EEXIST;

    if (!in->disk->file && !in->disk->cdrom && !in->disk->removable) {
        rc = err_set(&e, -EINVAL, "a disk needs a file");
    } else if (i >= BOARD_MAX_DISKS) {
        rc = err_set(&e, -ENOSPC, "it has %d disks already", BOARD_MAX_DISKS);
    } else if (name_is_free(m, in->disk->name, false, &e)) {
        m->config.disks = xrealloc_n(m->config.disks, i + 1, sizeof(m->config.disks[0]));
        api_copy(&api_type_disk, in->disk, &m->config.disks[i]);
        rc = attach_disk(m, i, &e);
        m->n_disks = i + 1;
        m->config.n_disks = m->disks.n_disks = m->n_disks;
        if (rc != 0) {
            drop_disk(m, i);
        }
    }
    if (rc != 0) {
        refuse(call, rc, in->disk->file ? in->disk->file : "disk", &e);
        return;
    }
    hotplug_came(m, "disk", blk_name(m->disk[i]));
    api_reply_emu_attach_disk(call,
                              &(struct api_emu_attach_disk_out){ .device = m->disk_id[i] });
}

/* No other card of the VM has it. */
static void unique_mac(struct emu *m, size_t i)
{
    static const char digits[] = "0123456789abcdef";

    for (size_t k = 0; !m->config.nics[i].mac && k < i; k++) {
        if (strcmp(m->mac[k], m->mac[i]) == 0) {
            char *last = &m->mac[i][16];
            const char *at = strchr(digits, *last);

            *last = digits[(at ? at - digits + 1 : 0) & 15];
            k = (size_t)-1; /* all of them again; there are fewer cards than digits */
        }
    }
}

static int new_card(struct emu *m, size_t i, const struct board_nic *card, struct device **out,
                    struct err *e)
{
    int rc = dev_new(m->vm, &virtio_net_class, m->nic_id[i], out, e);

    if (rc == 0) {
        rc = dev_set_str(*out, "mac", m->mac[i], e);
    }
    if (rc == 0) {
        rc = dev_set_u64(*out, "mtu", card->mtu, e);
    }
    if (rc == 0) {
        rc = dev_set_u64(*out, "queues", card->queues, e);
    }
    return rc == 0 ? dev_set_ptr(*out, "port", card->port, e) : rc;
}

/* Card i of the configuration. */
static int attach_nic(struct emu *m, size_t i, struct err *e)
{
    AUTO_FREE struct board_config *b = xnew(struct board_config);
    struct device *d = NULL;
    int rc;

    if (m->config.nics[i].bus != API_NIC_BUS_VIRTIO_PCI) {
        return err_set(e, -ENOTSUP, "cards on the bus virtio-pci can come while the VM runs");
    }
    if (m->config.nics[i].rom) {
        return err_set(e, -ENOTSUP,
                       "firmware that would run an expansion ROM is through: leave 'rom' out");
    }
    if (!free_port(m, e)) {
        return -ENOSPC;
    }
    rc = nic_open(m, i, b, e);
    if (rc != 0) {
        return rc;
    }
    unique_mac(m, i);
    m->nic_id[i] = xasprintf("plugged%u", m->n_plugged++);
    rc = new_card(m, i, &b->nic[i], &d, e);
    if (rc != 0) {
        net_close(b->nic[i].port);
        dev_free(d);
        return rc;
    }
    rc = plug(m, d, true, e);
    if (rc == 0 && !m->config.nics[i].link) {
        virtio_net_set_link(d, false);
    }
    return rc;
}

static void keep_socket(struct emu *m, const char *nic, int *take)
{
    m->opt.nics = xrealloc_n(m->opt.nics, m->opt.n_nics + 1, sizeof(m->opt.nics[0]));
    m->opt.nics[m->opt.n_nics++] = (struct emu_file){ .path = xstrdup(nic),
                                                      .fd = take_fd(take) };
}

/* At run time: those of the start were taken then. */
static void drop_sockets(struct emu *m)
{
    while (m->opt.n_nics > 0) {
        struct emu_file *f = &m->opt.nics[--m->opt.n_nics];

        fd_autoclose(&f->fd);
        free(f->path);
    }
}

void api_handle_emu_nic_queue(struct api_call *call, struct api_emu_nic_queue_in *in)
{
    struct emu *m = control_emu(call);
    AUTO_FD fd = control_passed_fd(call);

    if (in->number == 1) {
        drop_sockets(m);
    }
    if (fd < 0 || in->number != m->opt.n_nics + 1) {
        api_fail(call, API_E_INVALID_PARAMS, in->nic, NULL, "%s",
                 fd < 0 ? "no descriptor came with the call" : "number: another one is next");
        return;
    }
    keep_socket(m, in->nic, &fd);
    api_reply_emu_nic_queue(call);
}

void api_handle_emu_attach_nic(struct api_call *call, struct api_emu_attach_nic_in *in)
{
    struct emu *m = control_emu(call);
    struct err e = ERR_INIT;
    AUTO_FD fd = control_passed_fd(call);
    size_t i = m->config.n_nics;
    int rc = -EEXIST;

    if (i >= BOARD_MAX_NICS) {
        rc = err_set(&e, -ENOSPC, "it has %d network cards already", BOARD_MAX_NICS);
    } else if (!in->nic->name) {
        rc = err_set(&e, -EINVAL, "a network card needs a name");
    } else if (name_is_free(m, in->nic->name, true, &e)) {
        if (fd >= 0) {
            keep_socket(m, in->nic->name, &fd);
        }
        m->config.nics = xrealloc_n(m->config.nics, i + 1, sizeof(m->config.nics[0]));
        api_copy(&api_type_nic, in->nic, &m->config.nics[i]);
        rc = attach_nic(m, i, &e);
        m->config.n_nics = i + 1;
        if (rc != 0) {
            drop_nic(m, i);
        }
    }
    drop_sockets(m); /* the card has taken what it is to have: what is left, nobody will */
    if (rc != 0) {
        refuse(call, rc, in->nic->name, &e);
        return;
    }
    hotplug_came(m, "network card", in->nic->name);
    api_reply_emu_attach_nic(
        call, &(struct api_emu_attach_nic_out){ .device = m->nic_id[i], .mac = m->mac[i] });
}

/* --- entropy --- */

static int find_rng(const struct emu *m, const char *name)
{
    for (unsigned i = 0; i < m->n_rngs; i++) {
        if (strcmp(m->rng[i].name, name) == 0) {
            return (int)i;
        }
    }
    return -1;
}

void api_handle_emu_attach_rng(struct api_call *call, struct api_emu_attach_rng_in *in)
{
    struct emu *m = control_emu(call);
    AUTO_FREE char *id = xasprintf("plugged%u", m->n_plugged++);
    struct err e = ERR_INIT;
    struct device *d = NULL;
    int rc;

    if (find_rng(m, in->name) >= 0) {
        rc = err_set(&e, -EEXIST, "it has an entropy device '%s' already", in->name);
    } else {
        rc = free_port(m, &e) ? dev_new(m->vm, &virtio_rng_class, id, &d, &e) : -ENOSPC;
        rc = rc == 0 ? plug(m, d, true, &e) : rc;
    }
    if (rc != 0) {
        refuse(call, rc, in->name, &e);
        return;
    }
    struct emu_rng *r = &m->rng[m->n_rngs++];
    *r = (struct emu_rng){ .name = xstrdup(in->name), .id = take_ptr(id) };
    hotplug_came(m, "entropy device", r->name);
    api_reply_emu_attach_rng(call, &(struct api_emu_attach_rng_out){ .device = r->id });
}

bool hotplug_has_slot(struct emu *m, struct err *e)
{
    return free_port(m, e) != NULL;
}

int hotplug_plug(struct emu *m, struct device *take_d, struct err *e)
{
    return plug(m, take_d, true, e);
}

int hotplug_new_serial(struct emu *m, struct device **out, struct err *e)
{
    AUTO_FREE char *id = xasprintf("plugged%u", m->n_plugged++);
    struct device *d;
    int rc = free_port(m, e) ? dev_new(m->vm, &virtio_serial_class, id, &d, e) : -ENOSPC;

    rc = rc == 0 ? plug(m, d, true, e) : rc;
    if (rc == 0) {
        *out = d;
        hotplug_came(m, "adapter of channels", d->id); /* it stays */
    }
    return rc;
}

/* --- detaching --- */

/* With the vCPUs at the barrier. The devices live on until what was posted about them has run. */
static void take_out(void *arg)
{
    struct leaving *l = arg;

    dev_reset(l->fn);
    pci_fn_done((struct pci_fn *)l->fn);
    list_remove(&l->fn->node);
    if (l->behind) {
        list_remove(&l->behind->node);
    }
}

/* A device has gone, and with it what it held: the host gets back what no other needs. */
static void give_back(void)
{
    malloc_trim(0);
}

static void let_go(void *arg)
{
    struct leaving *l = arg;

    if (l->disk && export_busy(l->m, l->disk)) {
        loop_post(l->m->loop, let_go, l); /* what clients have in flight ends first */
        return;
    }
    dev_free(l->fn);
    dev_free(l->behind); /* and closes its disk or its port */
    mem_retire(l->m->vm->mem, l->ram);
    control_device(l->m, "device-deleted", api_device_kind_name(l->kind), l->name);
    free(l);
    give_back();
}

static const char *kind_name(enum api_device_kind kind)
{
    return kind == API_DEVICE_KIND_DISK     ? "disk"
           : kind == API_DEVICE_KIND_NIC    ? "network card"
           : kind == API_DEVICE_KIND_RNG    ? "entropy device"
           : kind == API_DEVICE_KIND_MEMORY ? "memory device"
                                            : "shared folder";
}

/* Whose device is it? False: nobody's. */
static bool identify(struct emu *m, struct leaving *l)
{
    for (unsigned i = 0; i < m->n_disks; i++) {
        if (function_of(m, m->disk_id[i]) == l->fn) {
            str_copy(l->name, sizeof(l->name), blk_name(m->disk[i]));
            l->behind = dev_find(m->vm, m->disk_id[i]);
            l->disk = m->disk[i];
            l->kind = API_DEVICE_KIND_DISK;
            return true;
        }
    }
    for (size_t i = 0; i < m->config.n_nics; i++) {
        if (function_of(m, m->nic_id[i]) == l->fn) {
            l->kind = API_DEVICE_KIND_NIC;
            str_copy(l->name, sizeof(l->name), m->config.nics[i].name);
            l->behind = dev_find(m->vm, m->nic_id[i]);
            return true;
        }
    }
    for (unsigned i = 0; i < m->n_rngs; i++) {
        if (function_of(m, m->rng[i].id) == l->fn) {
            l->kind = API_DEVICE_KIND_RNG;
            str_copy(l->name, sizeof(l->name), m->rng[i].name);
            l->behind = dev_find(m->vm, m->rng[i].id);
            return true;
        }
    }
    for (unsigned i = 0; i < shares_count(m); i++) {
        if (function_of(m, shares_id(m, i)) == l->fn) {
            l->kind = API_DEVICE_KIND_SHARE;
            str_copy(l->name, sizeof(l->name), shares_tag(m, i));
            l->behind = dev_find(m->vm, shares_id(m, i));
            return true;
        }
    }
    for (unsigned i = 0; i < memory_count(m); i++) {
        if (function_of(m, memory_name(m, i)) == l->fn) {
            l->kind = API_DEVICE_KIND_MEMORY;
            str_copy(l->name, sizeof(l->name), memory_name(m, i));
            l->behind = dev_find(m->vm, memory_name(m, i));
            return true;
        }
    }
    return false;
}

static void on_answer(void *arg, struct device *port, enum pci_slot_event what)
{
    struct emu *m = arg;
    struct pci_fn *card = pci_root_port_bus(port)->fn[0];
    struct leaving *l = xnew(struct leaving);

    *l = (struct leaving){ .m = m, .port = port, .fn = card ? &card->dev : NULL };
    if (!card || !identify(m, l)) {
        free(l);
        return;
    }
    if (what == PCI_SLOT_REFUSED) {
        if (l->kind == API_DEVICE_KIND_MEMORY) {
            virtio_mem_stay(l->behind);
        }
        control_device(m, "device-refused", api_device_kind_name(l->kind), l->name);
        free(l);
        return;
    }
    if (l->behind == l->fn) {
        l->behind = NULL;
    }
    vm_at_barrier(m->vm, take_out, l);
    pci_root_port_emptied(port);
    hotplug_went(m, kind_name(l->kind), l->name);
    if (l->kind == API_DEVICE_KIND_NIC) {
        drop_nic(m, (size_t)find_nic(m, l->name));
    } else if (l->kind == API_DEVICE_KIND_RNG) {
        drop_rng(m, (unsigned)find_rng(m, l->name));
    } else if (l->kind == API_DEVICE_KIND_SHARE) {
        shares_drop(m, (unsigned)shares_find(m, l->name));
    } else if (l->kind == API_DEVICE_KIND_MEMORY) {
        l->ram = memory_take(m, l->name);
    } else {
        export_drop_disk(m, l->disk);
        drop_disk(m, (unsigned)find_disk(m, l->name));
    }
    loop_post(m->loop, let_go, l);
}

static void detach_failed(struct api_call *call, const char *name, const struct err *e)
{
    api_fail_err(
        call, API_E_UNSUPPORTED, name,
        "free it in the guest (Linux: echo 1 >/sys/bus/pci/devices/.../remove), or boot a "
        "kernel with pciehp",
        e);
}

/* --- units of SCSI adapters: the guest's driver is told, and nobody asked --- */

enum { LOOK_NS = 5000000 };

static void look_whether_left(void *arg)
{
    struct leaving *l = arg;
    struct emu *m = l->m;

    if (!virtio_scsi_release(l->behind, l->disk) || export_busy(m, l->disk)) {
        loop_timer_arm(l->timer, LOOK_NS);
        return;
    }
    hotplug_went(m, "disk", l->name);
    drop_disk(m, (unsigned)find_disk(m, l->name));
    blk_close(l->disk);
    control_device(m, "device-deleted", "disk", l->name);
    leaving_free(l);
    give_back();
}

static int detach_unit(struct emu *m, unsigned at, struct err *e)
{
    struct device *adapter = dev_find(m->vm, m->disk_id[at]);
    struct leaving *l;

    if (!virtio_scsi_listens(adapter)) {
        return err_set(e, -ENOTSUP,
                       "disk '%s': the driver of its SCSI adapter knows no hot-plug",
                       blk_name(m->disk[at]));
    }
    if (!virtio_scsi_unplug(adapter, m->disk[at])) {
        return 0; /* there will be one answer */
    }
    l = xnew(struct leaving);
    *l = (struct leaving){
        .m = m, .behind = adapter, .disk = m->disk[at], .kind = API_DEVICE_KIND_DISK
    };
    str_copy(l->name, sizeof(l->name), blk_name(m->disk[at]));
    export_drop_disk(m, l->disk);
    l->timer = loop_timer_new(m->loop, look_whether_left, l);
    list_append(&m->leaving, &l->link);
    loop_timer_arm(l->timer, 0);
    return 0;
}

static bool is_unit(const struct emu *m, unsigned at)
{
    return m->config.disks[at].bus == API_DISK_BUS_SCSI ||
           m->config.disks[at].bus == API_DISK_BUS_SCSI_MMIO;
}

/* Those of a kind that can be asked for: names, and the devices that they are. */
struct kin {
    enum api_device_kind kind;
    const char *what;
    unsigned (*count)(const struct emu *m);
    const char *(*name)(const struct emu *m, unsigned i);
    const char *(*id)(const struct emu *m, unsigned i);
};

static unsigned count_disks(const struct emu *m)
{
    return m->n_disks;
}

static const char *disk_name(const struct emu *m, unsigned i)
{
    return blk_name(m->disk[i]);
}

static const char *disk_id(const struct emu *m, unsigned i)
{
    return m->disk_id[i];
}

static unsigned count_nics(const struct emu *m)
{
    return (unsigned)m->config.n_nics;
}

static const char *nic_name(const struct emu *m, unsigned i)
{
    return m->config.nics[i].name;
}

static const char *nic_id(const struct emu *m, unsigned i)
{
    return m->nic_id[i];
}

static unsigned count_rngs(const struct emu *m)
{
    return m->n_rngs;
}

static const char *rng_name(const struct emu *m, unsigned i)
{
    return m->rng[i].name;
}

static const char *rng_id(const struct emu *m, unsigned i)
{
    return m->rng[i].id;
}

static const struct kin kins[] = {
    { API_DEVICE_KIND_DISK, "disk", count_disks, disk_name, disk_id },
    { API_DEVICE_KIND_NIC, "network card", count_nics, nic_name, nic_id },
    { API_DEVICE_KIND_RNG, "entropy device", count_rngs, rng_name, rng_id },
    { API_DEVICE_KIND_SHARE, "shared folder", shares_count, shares_tag, shares_id },
    { API_DEVICE_KIND_MEMORY, "memory device", memory_count, memory_name, memory_name },
};

/* By its name, or that of its device. */
static int find_any(struct emu *m, const struct api_emu_detach_in *in, const struct kin **kin)
{
    for (unsigned k = 0; k < ARRAY_LEN(kins); k++) {
        if (in->has_kind && in->kind != kins[k].kind) {
            continue;
        }
        *kin = &kins[k];
        for (unsigned i = 0; i < kins[k].count(m); i++) {
            if (strcmp(kins[k].name(m, i), in->name) == 0) {
                return (int)i;
            }
        }
        for (unsigned i = 0; i < kins[k].count(m); i++) {
            if (strcmp(kins[k].id(m, i), in->name) == 0) {
                return (int)i;
            }
        }
    }
    return -1;
}

void api_handle_emu_detach(struct api_call *call, struct api_emu_detach_in *in)
{
    struct emu *m = control_emu(call);
    const struct kin *kin = NULL;
    struct device *port;
    struct err e = ERR_INIT;
    int at = find_any(m, in, &kin), rc;
    bool unit;

    if (at < 0) {
        api_fail(call, API_E_NOT_FOUND, in->name, NULL, "it has no %s '%s'",
                 in->has_kind && kin ? kin->what : "device", in->name);
        return;
    }
    unit = kin->kind == API_DEVICE_KIND_DISK && is_unit(m, (unsigned)at);
    port = port_of(m, function_of(m, kin->id(m, (unsigned)at)));
    if (!port && !unit) {
        api_fail(
            call, API_E_UNSUPPORTED, in->name,
            "what was attached while it runs can go, and what has 'hotplug' in its definition",
            "%s '%s' is in no hot-plug slot", kin->what, in->name);
        return;
    }
    if (kin->kind == API_DEVICE_KIND_DISK && m->jobs && blk_job_of(m->jobs, m->disk[at])) {
        api_fail(call, API_E_BUSY, in->name, "wait for the job, or cancel it",
                 "disk '%s' has a block job", in->name);
        return;
    }
    if (kin->kind == API_DEVICE_KIND_MEMORY &&
        virtio_mem_leave(dev_find(m->vm, in->name), &e) != 0) {
        api_fail_err(call, API_E_BUSY, in->name,
                     "ask for it first: 'vmctl memory resize VM 0 --device NAME'", &e);
        return;
    }
    rc = unit ? detach_unit(m, (unsigned)at, &e) : pci_root_port_ask(port, on_answer, m, &e);
    if (rc != 0 && rc != -EALREADY) { /* it may be asked for again: there will be one answer */
        if (kin->kind == API_DEVICE_KIND_MEMORY) {
            virtio_mem_stay(dev_find(m->vm, in->name));
        }
        detach_failed(call, in->name, &e);
        return;
    }
    api_reply_emu_detach(call);
}
