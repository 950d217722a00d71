/* SPDX-License-Identifier: Apache-2.0 */
/* Sessions and the exchange of tokens for them. Owns the table. Loop thread. */
#include "daemon/web/session.h"

#include "daemon/auth/admit.h"
#include "daemon/auth/listen.h"
#include "daemon/daemon.h"
#include "daemon/events.h"
#include "engine/base/log.h"
#include "engine/base/mem.h"
#include "engine/base/str.h"

#include <openssl/crypto.h>
#include <stdio.h>
#include <string.h>

struct login {
    struct web_sessions *s;
    struct admission in;
    char address[64];
    uint64_t conn;
    web_login_fn *done;
    void *arg;
};

bool web_session_good(struct web_sessions *s, const struct web_session *k)
{
    const struct user *u = k->secret[0] ? user_find(s->d, k->user) : NULL;
    return u && u->id == k->user_id && time_mono_ns() < k->until_ns;
}

struct web_session *web_session_find(struct web_sessions *s, const char *secret)
{
    struct web_session *found = NULL;
    if (strlen(secret) != COOKIE_LEN) {
        return NULL;
    }
    for (unsigned i = 0; i < WEB_SESSIONS; i++) {
        struct web_session *k = &s->all[i];
        if (k->secret[0] && CRYPTO_memcmp(k->secret, secret, COOKIE_LEN) == 0) {
            found = k;
        }
    }
    return found && web_session_good(s, found) ? found : NULL;
}

struct web_session *web_session_of(struct web_sessions *s, uint64_t number)
{
    for (unsigned i = 0; i < WEB_SESSIONS; i++) {
        if (s->all[i].number == number && web_session_good(s, &s->all[i])) {
            return &s->all[i];
        }
    }
    return NULL;
}

/* A place that is free, or else that of the oldest. */
static struct web_session *place(struct web_sessions *s)
{
    struct web_session *oldest = &s->all[0];
    for (unsigned i = 0; i < WEB_SESSIONS; i++) {
        if (!web_session_good(s, &s->all[i])) {
            return &s->all[i];
        }
        oldest = s->all[i].number < oldest->number ? &s->all[i] : oldest;
    }
    return oldest;
}

static void kept(void *arg, const struct err *e)
{
    struct login *l = arg;
    struct vmd *d = l->s->d;
    char who[160];
    admit_end(&l->in, !e);
    if (e) {
        doors_refuse(d->doors, l->address, "web.login", e->msg);
        l->done(l->arg, l->conn, NULL, e->msg);
        free(l);
        return;
    }
    struct web_session *k = place(l->s);
    cookie_make(k->secret);
    str_copy(k->user, sizeof(k->user), l->in.user->name);
    k->user_id = l->in.user->id;
    k->until_ns = time_mono_ns() + WEB_SESSION_NS;
    k->number = ++l->s->next;
    snprintf(who, sizeof(who), "%s@%s", k->user, l->address);
    log_info("access", "%s logged in to the web console", who);
    access_audit(d, who, "web.login", l->in.token->project, "ok");
    doors_recheck(d->doors);
    l->done(l->arg, l->conn, k, NULL);
    free(l);
}

void web_login(struct web_sessions *s, const char *token, const char *address, uint64_t conn,
               web_login_fn *done, void *arg)
{
    const char *why = NULL;
    struct token *t = token_judge(access_tokens(s->d), token, &why);
    struct login *l = xnew(struct login);
    if (t && !t->user[0]) {
        why = "the token names no user: 'vmctl token create USER' makes one that does";
    } else if (t) {
        why = admit_begin(&l->in, s->d, t, NULL);
    }
    if (why) {
        doors_refuse(s->d->doors, address, "web.login", why);
        done(arg, conn, NULL, why);
        free(l);
        return;
    }
    l->s = s;
    l->conn = conn;
    l->done = done;
    l->arg = arg;
    str_copy(l->address, sizeof(l->address), address);
    struct change *c = change_new(s->d);
    admit_put(&l->in, c);
    change_commit(c, kept, l);
}
