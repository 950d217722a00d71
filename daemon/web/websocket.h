/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Frames of websockets (RFC 6455), the server's side, as a stream: payload is handed on as it comes, whatever the borders of
 * messages, so that no frame is ever kept whole. Text and binary count alike. No descriptors here. One connection's state has
 * one user; any thread.
 */
#ifndef VMD_DAEMON_WEB_WEBSOCKET_H
#define VMD_DAEMON_WEB_WEBSOCKET_H

#include "engine/base/buf.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define WS_FRAME_MAX (1 << 20)
#define WS_ACCEPT_MAX 29
#define WS_CONTROL_MAX 125

enum { WS_CONTINUATION, WS_TEXT, WS_BINARY, WS_CLOSE = 8, WS_PING, WS_PONG };
enum { WS_NORMAL = 1000, WS_GOING_AWAY, WS_PROTOCOL_ERROR, WS_TOO_BIG = 1009 };

/* What arrived so far; zeroed at the beginning. */
struct ws_in {
    unsigned char head[14];
    unsigned n_head;
    bool in_payload, in_message; /* a message is fragmented */
    unsigned opcode;
    uint64_t left;    /* payload of this frame still to come */
    unsigned mask_at; /* of the four bytes of the mask */
    unsigned char control[WS_CONTROL_MAX];
    unsigned n_control;
    bool closed; /* nothing is read any more */
};

/* Takes n bytes of the client. What it says goes to `payload`; answers to pings and farewells, as whole frames, to `reply`.
 * 0: go on; else the code of the farewell in `reply`: send that and end. */
int ws_feed(struct ws_in *w, const unsigned char *data, size_t n, struct buf *payload,
            struct buf *reply);
/* Adds one unmasked frame. */
void ws_frame(struct buf *to, unsigned opcode, const void *data, size_t n);
void ws_farewell(struct buf *to, unsigned code);
/* Sec-WebSocket-Accept for a key. */
void ws_accept(const char *key, char out[WS_ACCEPT_MAX]);

#endif
