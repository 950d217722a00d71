/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Captures. The loop's thread.
 */
#include "network/server/pcap.h"

#include "engine/base/log.h"
#include "engine/base/mem.h"
#include "network/offload.h"

#include <errno.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

struct pcap {
    int fd; /* -1: it is full, or the disk is */
    unsigned snaplen;
    uint64_t limit, written, frames;
};

static void put(struct pcap *p, const void *bytes, size_t n)
{
    const uint8_t *at = bytes;

    while (p->fd >= 0 && n > 0) {
        ssize_t done = write(p->fd, at, n);

        if (done < 0 && errno == EINTR) {
            continue;
        }
        if (done <= 0) {
            log_warn("net", "a capture has ended: %s", strerror(errno));
            close(p->fd);
            p->fd = -1;
            return;
        }
        at += done;
        n -= (size_t)done;
        p->written += (uint64_t)done;
    }
}

struct pcap *pcap_new(int take_fd, unsigned snaplen, uint64_t limit)
{
    struct pcap *p = xnew(struct pcap);
    struct {
        uint32_t magic;
        uint16_t major, minor;
        uint32_t zone, accuracy, snaplen, link;
    } head = { 0xa1b23c4d, 2, 4, 0, 0, snaplen, 1 };

    *p = (struct pcap){ .fd = take_fd, .snaplen = snaplen, .limit = limit };
    put(p, &head, sizeof(head));
    return p;
}

void pcap_frame(struct pcap *p, const struct net_frame *f)
{
    struct timespec t;
    uint32_t size = (uint32_t)f->len, keep = size < p->snaplen ? size : p->snaplen;
    uint32_t head[4];
    struct net_hdr h = f->hdr;
    AUTO_FREE uint8_t *record = NULL;

    if (p->fd < 0 || (p->limit && p->written + sizeof(head) + keep > p->limit)) {
        return;
    }
    clock_gettime(CLOCK_REALTIME, &t);
    head[0] = (uint32_t)t.tv_sec;
    head[1] = (uint32_t)t.tv_nsec;
    head[2] = keep;
    head[3] = size;
    record = xalloc(sizeof(head) + f->len);
    memcpy(record, head, sizeof(head));
    net_frame_get(f, 0, record + sizeof(head), f->len);
    if ((h.flags & NET_HDR_NEEDS_CSUM) && net_hdr_ok(&h, f->len)) {
        (void)net_csum_fill(record + sizeof(head), f->len, &h);
    }
    put(p, record, sizeof(head) + keep); /* in one piece: a reader sees whole records */
    p->frames++;
}

uint64_t pcap_frames(const struct pcap *p)
{
    return p ? p->frames : 0;
}

void pcap_free(struct pcap *p)
{
    if (p && p->fd >= 0) {
        close(p->fd);
    }
    free(p);
}
