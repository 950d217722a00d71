/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The beginning of RFB as a server: version, security type and proof of who comes (RFC 6143 §7.1; VeNCrypt 0.2 by the registry of
 * security types). A state machine over bytes: no socket, no clock, no secret of its own; whoever feeds it judges the proof and
 * does TLS. What a client may send is at most RFB_INPUT_MAX bytes long before it is let in.
 *
 * Used by one thread at a time.
 */
#ifndef VMD_DAEMON_SCREEN_RFB_H
#define VMD_DAEMON_SCREEN_RFB_H

#include "engine/base/buf.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define RFB_CHALLENGE 16
#define RFB_USER_MAX 64
#define RFB_PASSWORD_MAX 128
#define RFB_INPUT_MAX (8 + RFB_USER_MAX + RFB_PASSWORD_MAX)

enum rfb_security {
    RFB_NONE,         /* type 1 */
    RFB_PASSWORD,     /* type 2 */
    RFB_TLS,          /* type 19, X509None */
    RFB_TLS_PASSWORD, /* type 19, X509Vnc */
    RFB_TLS_USER      /* type 19, X509Plain */
};

enum rfb_next {
    RFB_MORE,   /* wait for bytes */
    RFB_SECURE, /* begin TLS when what is to be sent is sent, then rfb_secured() */
    RFB_JUDGE,  /* the proof is there: rfb_verdict() */
    RFB_IN,     /* let in: what follows is for the screen */
    RFB_OUT     /* refused, and told so: end when what is to be sent is sent */
};

struct rfb {
    enum rfb_security security;
    int state;
    unsigned minor; /* of the client's version: 3, 7 or 8 */
    const char
        *refuse;     /* NULL, or why nobody is let in at the moment (static or the owner's) */
    const char *why; /* of RFB_OUT (static) */
    uint8_t challenge[RFB_CHALLENGE], answer[RFB_CHALLENGE];
    char user[RFB_USER_MAX + 1], password[RFB_PASSWORD_MAX + 1]; /* of RFB_TLS_USER */
};

/* Begins, and says the version. */
void rfb_begin(struct rfb *r, enum rfb_security security, const char *refuse,
               const uint8_t challenge[RFB_CHALLENGE], struct buf *out);
/* Looks at n bytes, takes *used of them, says what is to be said. */
enum rfb_next rfb_feed(struct rfb *r, const uint8_t *p, size_t n, size_t *used,
                       struct buf *out);
/* TLS is there. */
enum rfb_next rfb_secured(struct rfb *r, struct buf *out);
/* After RFB_JUDGE. `why` is told to the client; NULL: it may come in. */
enum rfb_next rfb_verdict(struct rfb *r, const char *why, struct buf *out);
/* Forgets what the client sent as a proof. */
void rfb_forget(struct rfb *r);

/* What a client with this password makes of the challenge (the first 8 bytes of the password count); false: openssl has no DES. */
bool rfb_answer(const char *password, const uint8_t challenge[RFB_CHALLENGE],
                uint8_t out[RFB_CHALLENGE]);

#endif
