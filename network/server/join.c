/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two ports back to back. The loop's thread.
 */
#include "network/server/join.h"

#include "engine/base/mem.h"
#include "network/port.h"

#include <errno.h>

struct side {
    struct net_port *from, *to;
};

struct net_join {
    struct side side[2];
};

static int on_receive(void *arg, const struct net_frame *f)
{
    struct side *s = arg;

    return net_send(s->to, f) == -EAGAIN ? -EAGAIN : 0;
}

static void on_received(void *arg)
{
    net_flush(((struct side *)arg)->to);
}

/* The port that we get from can take more: the other may go on. */
static void on_writable(void *arg)
{
    net_recv_ready(((struct side *)arg)->to);
}

static void on_link(void *arg, bool up)
{
    net_tell_link(((struct side *)arg)->to, up);
}

static const struct net_front_ops join_ops = {
    .receive = on_receive,
    .received = on_received,
    .writable = on_writable,
    .link = on_link,
};

struct net_join *net_join_new(struct net_port *take_a, struct net_port *take_b)
{
    struct net_join *j = xnew(struct net_join);

    j->side[0] = (struct side){ take_a, take_b };
    j->side[1] = (struct side){ take_b, take_a };
    net_attach(take_a, &join_ops, &j->side[0]);
    net_attach(take_b, &join_ops, &j->side[1]);
    /* Each port does what its own back end lacks, so that frames pass as they are. */
    net_set_offloads(take_a, NET_OFF_ALL);
    net_set_offloads(take_b, NET_OFF_ALL);
    if (!take_b->up) {
        net_tell_link(take_a, false);
    }
    return j;
}

void net_join_free(struct net_join *j)
{
    if (j) {
        net_close(j->side[0].from);
        net_close(j->side[1].from);
        free(j);
    }
}
