/* SPDX-License-Identifier: Apache-2.0 */
/* Which daemon, the connection to it, and calls over it. One thread. */
#include "cli/cli.h"

#include "api-schema/gen/methods.h"
#include "api-schema/json/json.h"
#include "api-schema/rpc/client.h"
#include "cli/remote.h"
#include "engine/base/str.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { GREETING_MS = 5000, TLS_MS = 15000, RECONNECT_TRIES = 30, RECONNECT_US = 100000 };

static char *default_socket(struct err *e)
{
    const char *runtime = getenv("XDG_RUNTIME_DIR");
    AUTO_FREE char *mine = NULL;

    if (geteuid() == 0) {
        return xstrdup("/run/vmd/vmd.sock");
    }
    mine = runtime && runtime[0] == '/' ? xasprintf("%s/vmd/vmd.sock", runtime) : NULL;
    /* Members of the daemon's group use the system's daemon when they run none of their own. */
    if ((!mine || access(mine, F_OK) < 0) && access("/run/vmd/vmd.sock", F_OK) == 0) {
        return xstrdup("/run/vmd/vmd.sock");
    }
    if (!mine) {
        err_set(e, -ENOENT,
                "XDG_RUNTIME_DIR is not set, so there is no default socket; use --connect or "
                "--dir");
        return NULL;
    }
    return take_ptr(mine);
}

/* Where the daemon is, by options, environment, contexts and custom. */
static int find_place(struct cli *c, struct err *e)
{
    const char *text = c->connect;
    bool none = true;
    int rc = 0;

    if (c->connect && c->dir) {
        return err_set(e, -EINVAL, "--connect and --dir exclude each other");
    }
    c->place = xnew(struct place);
    if (c->dir) {
        c->place->socket = xasprintf("%s/run/vmd.sock", c->dir);
        return 0;
    }
    if (!text) {
        text = getenv("VMCTL_CONNECT");
        text = text && *text ? text : NULL;
    }
    rc = place_find(text, c->place, &none, e);
    if (rc == 0 && none) {
        c->place->socket = default_socket(e);
        rc = c->place->socket ? 0 : e->code;
    }
    if (rc < 0) {
        place_done(c->place);
        free(c->place);
        c->place = NULL;
    }
    return rc;
}

static int connect_tls(struct cli *c, struct err *e)
{
    AUTO_FREE char *where = xasprintf("vmd+tls://%s:%d", c->place->host, c->place->port);
    struct err why = ERR_INIT;

    c->link = place_link(c->place, TLS_PROTO_RPC, TLS_MS, e);
    if (!c->link) {
        return e->code;
    }
    c->dial = rpc_dial_open_fd(tls_link_take_fd(c->link), where, TLS_MS, e);
    if (c->dial) {
        return 0;
    }
    if (tls_link_why(c->link, 500, &why) == 0 && why.code) {
        err_set(e, why.code, "%s: %s", where, why.msg);
    }
    tls_link_close(c->link);
    c->link = NULL;
    return e->code;
}

int cli_try_connect(struct cli *c, struct err *e)
{
    int rc = 0;

    if (c->dial) {
        return 0;
    }
    if (!c->place) {
        rc = find_place(c, e);
    }
    if (rc < 0) {
        return rc;
    }
    if (!c->place->socket) {
        return connect_tls(c, e);
    }
    c->dial = rpc_dial_open(c->place->socket, GREETING_MS, e);
    return c->dial ? 0 : e->code;
}

void cli_disconnect(struct cli *c)
{
    rpc_dial_close(c->dial);
    tls_link_close(c->link);
    c->dial = NULL;
    c->link = NULL;
}

int cli_connect(struct cli *c)
{
    struct err e = ERR_INIT;
    const char *remedy = NULL;

    if (cli_try_connect(c, &e) == 0) {
        return CLI_OK;
    }
    if (e.code == -EINVAL) {
        return cli_fail(c, CLI_USAGE, NULL, "%s", e.msg);
    }
    if (e.code == -ENOENT || e.code == -ECONNREFUSED) {
        remedy = "start the daemon: 'systemctl start vmd.socket', or 'vmd --dir DIR' and then "
                 "'vmctl --dir DIR ...'";
    } else if (e.code == -EACCES && c->place && c->place->host) {
        remedy = "ask its administrator for a token and use 'vmctl join'";
    } else if (e.code == -EACCES) {
        remedy = "ask the administrator to add you to the daemon's group, or run a daemon of "
                 "your own";
    }
    return cli_fail(c, CLI_NO_DAEMON, remedy, "%s", e.msg);
}

int cli_reconnect(struct cli *c)
{
    cli_disconnect(c);
    for (int i = 0; i < RECONNECT_TRIES; i++) {
        struct err e = ERR_INIT;

        if (cli_try_connect(c, &e) == 0) {
            return 0;
        }
        if (e.code != -ENOENT && e.code != -ECONNREFUSED) {
            break;
        }
        usleep(RECONNECT_US);
    }
    return -1;
}

static void add_key(const struct cli *c, const char *method, struct json_object **params)
{
    const struct api_method *m = api_method_find(method);

    if (c->key && m && m->mutating) {
        *params = *params ? *params : json_object_new_object();
        api_json_set_str(*params, "idempotency_key", c->key);
    }
}

int cli_call_quiet(struct cli *c, const char *method, struct json_object *take_params,
                   struct json_object **result, struct api_error *x)
{
    struct err e = ERR_INIT;

    add_key(c, method, &take_params);
    if (cli_try_connect(c, &e) < 0) {
        json_object_put(take_params);
        return api_error_from(x, API_E_INTERNAL_ERROR, NULL, NULL, &e);
    }
    return rpc_dial_call(c->dial, method, take_params, -1, result, x);
}

int cli_call(struct cli *c, const char *method, struct json_object *take_params,
             struct json_object **result)
{
    struct api_error x = API_ERROR_INIT;
    int rc = cli_connect(c);

    if (rc != CLI_OK) {
        json_object_put(take_params);
        return rc;
    }
    if (cli_call_quiet(c, method, take_params, result, &x) < 0) {
        return cli_error(c, &x);
    }
    return CLI_OK;
}
