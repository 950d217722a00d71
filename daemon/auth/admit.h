/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Using up a join token: its user is there afterwards and has the role it gives, in the transaction of whoever asks (join.c: for
 * a certificate; web/session.c: for a session of a browser). Loop thread.
 */
#ifndef VMD_DAEMON_AUTH_ADMIT_H
#define VMD_DAEMON_AUTH_ADMIT_H

#include "daemon/auth/access.h"

struct admission {
    struct vmd *d;
    struct token *token;
    struct user *user;
    bool new_user;
    struct user was; /* to undo */
};

/* Takes the token (of token_judge()), so that nobody else can, and gives the role. `proposed`: the name for a token that leaves
 * it open; NULL: none. NULL, or why not (static text), with nothing changed. */
const char *admit_begin(struct admission *a, struct vmd *d, struct token *token,
                        const char *proposed);
/* Into the transaction: the user, and the token as used. */
void admit_put(struct admission *a, struct change *c);
/* The transaction is durable, or not: what admit_begin() did is undone then. */
void admit_end(struct admission *a, bool durable);

#endif
