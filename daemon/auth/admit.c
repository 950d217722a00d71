/* SPDX-License-Identifier: Apache-2.0 */
/* Using up a join token. Owns nothing. Loop thread. */
#include "daemon/auth/admit.h"

#include "engine/base/str.h"

#include <string.h>

/* The user this token is for; made when new. */
static const char *find_user(struct admission *a, const char *proposed)
{
    const char *name = a->token->user[0] ? a->token->user : proposed;
    if (!name || !str_is_name(name)) {
        return "it proposes no user name: letters, digits and . _ + -, at most 63";
    }
    struct user *u = user_find(a->d, name);
    if (u && !a->token->known) {
        return "the user name is taken; choose another";
    }
    a->new_user = !u;
    a->user = u ? u : user_add(a->d, name);
    return a->user ? NULL : "there are too many users";
}

const char *admit_begin(struct admission *a, struct vmd *d, struct token *token,
                        const char *proposed)
{
    memset(a, 0, sizeof(*a));
    a->d = d;
    a->token = token;
    token->taken = true;
    const char *why = find_user(a, proposed);
    if (why) {
        token->taken = false;
        return why;
    }
    a->was = *a->user;
    enum api_role has = access_grant_of(a->user, token->project);
    if (user_grant(a->user, token->project, token->role > has ? token->role : has) < 0) {
        admit_end(a, false);
        return "the user has too many roles";
    }
    return NULL;
}

void admit_put(struct admission *a, struct change *c)
{
    struct token as = *a->token;
    as.used = true;
    str_copy(as.used_by, sizeof(as.used_by), a->user->name);
    str_copy(a->token->used_by, sizeof(a->token->used_by), a->user->name);
    token_put(&as, c);
    user_put(a->user, c);
}

void admit_end(struct admission *a, bool durable)
{
    a->token->taken = false;
    a->token->used = durable;
    if (durable) {
        return;
    }
    if (a->new_user) {
        user_drop(a->user);
    } else {
        struct list link = a->user->link;
        *a->user = a->was;
        a->user->link = link;
    }
}
