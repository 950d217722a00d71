/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The network cards of the rv-virt board. Main thread.
 */
#include "devices/board/rv_virt.h"
#include "devices/net/virtio_net.h"
#include "devices/registry.h"
#include "engine/core/vm.h"
#include "network/port.h"

#include <stdio.h>

bool rv_virt_nic_on_pci(const struct board_nic *n)
{
    return n->bus == BOARD_NIC_VIRTIO_PCI;
}

unsigned rv_virt_slot_nics(const struct board_config *c)
{
    unsigned n = 0;

    for (unsigned i = 0; i < c->n_nics; i++) {
        n += !rv_virt_nic_on_pci(&c->nic[i]);
    }
    return n;
}

/* The card of the slot-th slot that has one. */
unsigned rv_virt_slot_nic(const struct board_config *c, unsigned slot)
{
    unsigned i = 0;

    for (; i < c->n_nics; i++) {
        if (!rv_virt_nic_on_pci(&c->nic[i]) && slot-- == 0) {
            break;
        }
    }
    return i;
}

int rv_virt_new_net(struct board *b, unsigned i, struct device **out, struct err *e)
{
    struct board_nic *n = &b->cfg.nic[i];
    char id[32];
    int rc;

    snprintf(id, sizeof(id), "nic%u", i);
    rc = dev_new(b->vm, &virtio_net_class, id, out, e);
    if (rc != 0) {
        return rc;
    }
    rc = dev_set_str(*out, "mac", n->mac, e);
    if (rc == 0) {
        rc = dev_set_u64(*out, "mtu", n->mtu, e);
    }
    if (rc == 0) {
        rc = dev_set_u64(*out, "queues", n->queues, e);
    }
    if (rc == 0) {
        rc = dev_set_ptr(*out, "port", n->port, e);
    }
    if (rc == 0) {
        n->port = NULL; /* the device's now */
        b->nic[i] = *out;
    }
    return rc;
}

struct device *rv_virt_nic(struct board *b, unsigned i)
{
    return i < b->cfg.n_nics ? b->nic[i] : NULL;
}

void rv_virt_close_nics(struct board *b)
{
    for (unsigned i = 0; i < b->cfg.n_nics; i++) {
        net_close(b->cfg.nic[i].port); /* those that no device has taken */
    }
}
