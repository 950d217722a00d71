/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Frames written to a file in the format of libpcap (draft-ietf-opsawg-pcap), with nanoseconds. Checksums that a receiver would be told to
 * leave are filled in, so that what reads the file finds frames as they would be on a wire; segments stay large. The loop's thread.
 */
#ifndef VMD_NETWORK_SERVER_PCAP_H
#define VMD_NETWORK_SERVER_PCAP_H

#include "network/port.h"

struct pcap;

/* Takes the file, empty. Ends by itself after `limit` bytes (0: none). */
struct pcap *pcap_new(int take_fd, unsigned snaplen, uint64_t limit);
void pcap_frame(struct pcap *p, const struct net_frame *f);
uint64_t pcap_frames(const struct pcap *p);
void pcap_free(struct pcap *p); /* NULL is fine */

#endif
