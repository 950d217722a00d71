/* SPDX-License-Identifier: Apache-2.0 */
/* Tickets and the streams they open. Owns the list of tickets, in struct vmd. Loop thread. */
#include "daemon/auth/stream.h"

#include "api-schema/json/error.h"
#include "api-schema/json/json.h"
#include "api-schema/tls/tls.h"
#include "api-schema/tls/tunnel.h"
#include "daemon/auth/access.h"
#include "daemon/auth/listen.h"
#include "daemon/daemon.h"
#include "daemon/run/proc.h"
#include "daemon/vm/migrate.h"
#include "engine/base/fd.h"
#include "engine/base/mem.h"
#include "engine/base/str.h"

#include <string.h>
#include <sys/random.h>

#define VALID_NS INT64_C(30000000000)

static bool is_old(const struct stream_ticket *k)
{
    return !k->secret[0] || time_mono_ns() > k->until_ns;
}

char *stream_ticket(struct vmd *d, const struct rpc_peer *p, const char *path, const char *what)
{
    unsigned char raw[24];
    if (!p->user[0] || getrandom(raw, sizeof(raw), 0) != (ssize_t)sizeof(raw)) {
        return NULL;
    }
    for (unsigned i = 0; i < STREAM_TICKETS; i++) {
        struct stream_ticket *k = &d->tickets[i];
        if (is_old(k)) {
            memset(k, 0, sizeof(*k));
            tls_hex(raw, sizeof(raw), k->secret);
            str_copy(k->user, sizeof(k->user), p->user);
            str_copy(k->what, sizeof(k->what), what);
            if (!str_copy(k->path, sizeof(k->path), path)) {
                k->secret[0] = 0;
                return NULL;
            }
            k->until_ns = time_mono_ns() + VALID_NS;
            return xstrdup(k->secret);
        }
    }
    return NULL;
}

bool stream_take(struct vmd *d, const char *secret, const char *user, struct stream_ticket *out)
{
    for (unsigned i = 0; i < STREAM_TICKETS; i++) {
        struct stream_ticket *k = &d->tickets[i];
        if (!is_old(k) && strcmp(k->secret, secret) == 0 && strcmp(k->user, user) == 0) {
            *out = *k;
            k->secret[0] = 0;
            return true;
        }
    }
    return false;
}

bool stream_spend(struct vmd *d, const char *secret, const char *user, const char *path)
{
    struct stream_ticket k;
    return stream_take(d, secret, user, &k) && strcmp(k.path, path) == 0;
}

void stream_begin(struct vmd *d, struct tunnel *t, const struct rpc_peer *p, const char *line,
                  size_t n)
{
    static const char ok[] = "{\"ok\":true}\n";
    AUTO_JSON o = NULL;
    struct stream_ticket k;
    struct err e = ERR_INIT;
    char who[160];
    access_who(p, who, sizeof(who));
    const char *secret = api_json_parse(line, n, &o, &e) == 0 ? api_json_get_str(o, "ticket")
                                                              : NULL;
    if (secret && migrate_stream(d, t, p, secret, api_json_get_int(o, "stream", -1))) {
        return;
    }
    if (!secret || !stream_take(d, secret, p->user, &k)) {
        doors_refuse(d->doors, who, "tls.stream", "no such ticket");
        doors_say_error(t, API_E_DENIED,
                        secret ? "no such ticket: it was used, is too old, or is another user's"
                               : "the first line of a stream is {\"ticket\": \"...\"}");
        return;
    }
    int fd = unix_connect_now(k.path, &e);
    if (fd < 0) {
        doors_say_error(t, API_E_BAD_STATE, e.msg);
        return;
    }
    access_audit(d, who, "tls.stream", k.what, "ok");
    tunnel_say(t, ok, sizeof(ok) - 1);
    tunnel_attach(t, fd);
}
