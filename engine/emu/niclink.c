/* SPDX-License-Identifier: Apache-2.0 */
/* What is asked of the network cards of a VM that runs: another socket, the cable, the filter of addresses. Main thread. */
#include "api-schema/gen/methods.h"
#include "api-schema/rpc/call.h"
#include "devices/net/virtio_net.h"
#include "engine/base/fd.h"
#include "engine/base/mem.h"
#include "engine/core/device.h"
#include "engine/emu/emu.h"

#include <stdio.h>
#include <string.h>

struct device *nic_device(struct emu *m, size_t i)
{
    struct device *d = dev_find(m->vm, m->nic_id[i]);

    return d ? d : m->board_class->nic(m->board, (unsigned)i);
}

/* By its name, or that of its device; -1 after the call was answered. */
static int find(struct emu *m, struct api_call *call, const char *name)
{
    for (size_t i = 0; i < m->config.n_nics; i++) {
        if (strcmp(m->config.nics[i].name, name) == 0 ||
            (m->nic_id[i] && strcmp(m->nic_id[i], name) == 0)) {
            return (int)i;
        }
    }
    api_fail(call, API_E_NOT_FOUND, name, "'vmctl show' tells what cards it has",
             "there is no network card '%s'", name);
    return -1;
}

void api_handle_emu_nic_connect(struct api_call *call, struct api_emu_nic_connect_in *in)
{
    struct emu *m = control_emu(call);
    AUTO_FD fd = control_passed_fd(call);
    int i = find(m, call, in->nic);

    if (i < 0) {
        return;
    }
    if (fd < 0) {
        api_fail(call, API_E_INVALID_PARAMS, in->nic, NULL, "no socket came with the call");
        return;
    }
    virtio_net_set_port(nic_device(m, (size_t)i), nic_port(m, &m->config.nics[i], &fd, 1));
    fd = -1;
    api_reply_emu_nic_connect(call);
}

void api_handle_emu_nic_link(struct api_call *call, struct api_emu_nic_link_in *in)
{
    struct emu *m = control_emu(call);
    int i = find(m, call, in->nic);

    if (i >= 0) {
        virtio_net_set_link(nic_device(m, (size_t)i), in->up);
        api_reply_emu_nic_link(call);
    }
}

static char *mac_text(const uint8_t a[6])
{
    return xasprintf("%02x:%02x:%02x:%02x:%02x:%02x", a[0], a[1], a[2], a[3], a[4], a[5]);
}

static void fill(struct api_nic_receive *r, const char *name, const struct vnet_view *v)
{
    *r = (struct api_nic_receive){
        .name = xstrdup(name),
        .mac = mac_text(v->mac),
        .link = v->link,
        .promiscuous = v->promisc,
        .broadcast = !v->nobcast,
        .unicast = v->nouni    ? API_NIC_ADMIT_NONE
                   : v->alluni ? API_NIC_ADMIT_ALL
                               : API_NIC_ADMIT_NORMAL,
        .multicast = v->nomulti    ? API_NIC_ADMIT_NONE
                     : v->allmulti ? API_NIC_ADMIT_ALL
                                   : API_NIC_ADMIT_NORMAL,
        .unicast_overflow = v->uni_overflow,
        .multicast_overflow = v->multi_overflow,
        .vlan_filter = v->vlan_filter,
        .unicast_table = xnew_n(char *, v->n_uni + 1),
        .multicast_table = xnew_n(char *, v->n_multi + 1),
        .vlans = xnew_n(int64_t, 4096),
        .queues = xnew_n(struct api_nic_queue, v->pairs),
        .n_queues = v->pairs,
        .n_unicast_table = v->n_uni,
        .n_multicast_table = v->n_multi,
    };
    for (unsigned i = 0; i < v->n_uni + v->n_multi; i++) {
        char **at = i < v->n_uni ? &r->unicast_table[i] : &r->multicast_table[i - v->n_uni];

        *at = mac_text(v->table[i]);
    }
    for (unsigned i = 0; i < v->pairs; i++) {
        const struct vnet_pair *p = &v->pair[i];

        r->queues[i] = (struct api_nic_queue){ .rx_frames = (int64_t)p->rx_frames,
                                               .rx_bytes = (int64_t)p->rx_bytes,
                                               .tx_frames = (int64_t)p->tx_frames,
                                               .tx_bytes = (int64_t)p->tx_bytes };
    }
    for (unsigned i = 0; v->vlan_filter && i < 4096; i++) {
        if (v->vlans[i / 64] >> i % 64 & 1) {
            r->vlans[r->n_vlans++] = i;
        }
    }
}

void api_handle_emu_nic_filter(struct api_call *call, struct api_emu_nic_filter_in *in)
{
    struct emu *m = control_emu(call);
    struct api_nic_receive list[BOARD_MAX_NICS];
    struct vnet_view v;
    size_t n = 0;
    int only = in->nic ? find(m, call, in->nic) : -1;

    if (in->nic && only < 0) {
        return;
    }
    for (size_t i = 0; i < m->config.n_nics; i++) {
        if (only < 0 || (size_t)only == i) {
            virtio_net_view(nic_device(m, i), &v);
            fill(&list[n++], m->config.nics[i].name, &v);
        }
    }
    api_reply_emu_nic_filter(call,
                             &(struct api_emu_nic_filter_out){ .nics = list, .n_nics = n });
    for (size_t i = 0; i < n; i++) {
        api_release(&api_type_nic_receive, &list[i]);
    }
}
