/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The network cards of a board. Main thread.
 */
#include "devices/board/parts.h"
#include "devices/net/virtio_net.h"
#include "devices/registry.h"
#include "engine/core/vm.h"

#include <stdio.h>

bool parts_nic_on_pci(const struct board_nic *n)
{
    return n->bus == BOARD_NIC_VIRTIO_PCI;
}

unsigned parts_slot_nics(const struct board_config *c)
{
    unsigned n = 0;

    for (unsigned i = 0; i < c->n_nics; i++) {
        n += !parts_nic_on_pci(&c->nic[i]);
    }
    return n;
}

/* The card of the slot-th slot that has one. */
unsigned parts_slot_nic(const struct board_config *c, unsigned slot)
{
    unsigned i = 0;

    for (; i < c->n_nics; i++) {
        if (!parts_nic_on_pci(&c->nic[i]) && slot-- == 0) {
            break;
        }
    }
    return i;
}

int parts_new_net(struct board_parts *b, unsigned i, struct device **out, struct err *e)
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
