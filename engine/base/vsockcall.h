/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What an emulator and its monitor say to each other about calls of the guest to its host: one packet of a SOCK_SEQPACKET pair asks, the
 * same comes back, with the descriptor of a stream when somebody listens.
 */
#ifndef VMD_BASE_VSOCKCALL_H
#define VMD_BASE_VSOCKCALL_H

#include <stdint.h>

struct vsock_call {
    uint64_t ticket; /* comes back as it was */
    uint32_t port;
    uint32_t zero;
};

#endif
