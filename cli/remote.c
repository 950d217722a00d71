/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Contexts (named daemons), TLS connections, and the verbs about them: join, cert issue, cert renew,
 * context. Owns the contexts file while a verb runs. One thread.
 */
#include "cli/remote.h"

#include "api-schema/json/json.h"
#include "cli/cli.h"
#include "engine/base/buf.h"
#include "engine/base/fd.h"
#include "engine/base/mem.h"
#include "engine/base/str.h"

#include <errno.h>
#include <limits.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

enum { LINK_MS = 15000, ANSWER_MAX = 65536 };

/* --- files -------------------------------------------------------------------------------- */

static char *config_dir(struct err *e)
{
    const char *base = getenv("XDG_CONFIG_HOME"), *home = getenv("HOME");

    if (base && base[0] == '/') {
        return xasprintf("%s/vmd", base);
    }
    if (!home || home[0] != '/') {
        err_set(e, -ENOENT, "HOME is not set, so there is no place for contexts");
        return NULL;
    }
    return xasprintf("%s/.config/vmd", home);
}

static int make_dirs(const char *path, struct err *e)
{
    AUTO_FREE char *copy = xstrdup(path);

    for (char *p = copy + 1; *p; p++) {
        if (*p == '/') {
            *p = 0;
            mkdir(copy, 0700);
            *p = '/';
        }
    }
    if (mkdir(copy, 0700) < 0 && errno != EEXIST) {
        return err_errno(e, errno, "cannot make folder '%s'", path);
    }
    return 0;
}

/* The contexts; an empty set when there is no file. NULL when it cannot be read. */
static struct json_object *load(struct err *e)
{
    AUTO_FREE char *dir = config_dir(e);
    AUTO_FREE char *path = dir ? xasprintf("%s/contexts.json", dir) : NULL;
    struct json_object *o = NULL;

    if (!path) {
        return NULL;
    }
    if (access(path, F_OK) < 0) {
        o = json_object_new_object();
    } else if (api_json_file(path, &o, e) < 0) {
        return NULL;
    } else if (!json_object_is_type(o, json_type_object)) {
        json_object_put(o);
        err_set(e, -EINVAL, "%s holds no contexts; mend or remove it", path);
        return NULL;
    }
    if (!json_object_is_type(api_json_get(o, "contexts"), json_type_object)) {
        api_json_set(o, "contexts", json_object_new_object());
    }
    return o;
}

static int save(struct json_object *o, struct err *e)
{
    AUTO_FREE char *dir = config_dir(e);
    int rc = dir ? make_dirs(dir, e) : -ENOENT;

    if (rc == 0) {
        AUTO_FREE char *path = xasprintf("%s/contexts.json", dir);
        const char *text = json_object_to_json_string_ext(
            o, JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_NOSLASHESCAPE);
        rc = file_replace(path, text, strlen(text), 0600, e);
    }
    return rc;
}

static int write_three(const char *dir, const char *ca, const char *cert, const char *key,
                       struct err *e)
{
    static const char *const names[] = { "ca.pem", "cert.pem", "key.pem" };
    const char *texts[] = { ca, cert, key };
    int rc = make_dirs(dir, e);

    for (int i = 0; i < 3 && rc == 0; i++) {
        AUTO_FREE char *path = xasprintf("%s/%s", dir, names[i]);
        rc = file_replace(path, texts[i], strlen(texts[i]), i == 2 ? 0600 : 0644, e);
    }
    return rc;
}

/* --- places ------------------------------------------------------------------------------- */

void place_done(struct place *p)
{
    free(p->socket);
    free(p->host);
    free(p->name);
    free(p->ca);
    free(p->cert);
    free(p->key);
    free(p->context);
    memset(p, 0, sizeof(*p));
}

static void set_tls(struct place *p, const char *dir)
{
    p->ca = xasprintf("%s/ca.pem", dir);
    p->cert = xasprintf("%s/cert.pem", dir);
    p->key = xasprintf("%s/key.pem", dir);
}

static int from_url(const char *url, struct place *p, struct err *e)
{
    if (str_starts(url, "vmd+tls://")) {
        AUTO_FREE char *text = xstrdup(url + strlen("vmd+tls://"));
        size_t n = strlen(text);
        if (n > 0 && text[n - 1] == '/') {
            text[n - 1] = 0;
        }
        return tls_parse_address(text, &p->host, &p->port, e);
    }
    if (str_starts(url, "vmd+unix://")) {
        url += strlen("vmd+unix://");
        if (url[0] != '/') {
            return err_set(
                e, -EINVAL,
                "'vmd+unix://%s' has no absolute path; write vmd+unix:///path/to/vmd.sock",
                url);
        }
    } else if (strstr(url, "://")) {
        return err_set(e, -EINVAL,
                       "'%s': write vmd+tls://HOST[:PORT], vmd+unix:///PATH, a path, or the "
                       "name of a context",
                       url);
    }
    p->socket = xstrdup(url);
    return 0;
}

static int from_context(const char *name, struct json_object *o, struct place *p, struct err *e)
{
    const char *url = api_json_get_str(o, "url"), *tls = api_json_get_str(o, "tls"),
               *server = api_json_get_str(o, "server_name");
    int rc = from_url(url ? url : "", p, e);

    if (rc == 0) {
        p->context = xstrdup(name);
        p->name = server ? xstrdup(server) : NULL;
        if (!p->socket && tls) {
            set_tls(p, tls);
        }
    }
    return rc;
}

/* A URL that a context has uses the context's certificate. */
static int find_by_url(struct json_object *contexts, struct place *p, struct err *e)
{
    json_object_object_foreach(contexts, name, o)
    {
        struct place other = { 0 };
        const char *url = api_json_get_str(o, "url");

        if (url && from_url(url, &other, NULL) == 0 && other.host && p->host &&
            strcmp(other.host, p->host) == 0 && other.port == p->port) {
            place_done(&other);
            place_done(p);
            return from_context(name, o, p, e);
        }
        place_done(&other);
    }
    return 0;
}

static void default_tls(struct place *p)
{
    const char *dir = getenv("VMCTL_TLS");
    AUTO_FREE char *base = dir ? xstrdup(dir) : config_dir(NULL);

    if (base) {
        AUTO_FREE char *path = dir ? xstrdup(base) : xasprintf("%s/tls", base);
        set_tls(p, path);
    }
}

int place_find(const char *text, struct place *p, bool *none, struct err *e)
{
    struct err ignored = ERR_INIT;
    AUTO_JSON all = load(text ? &ignored : e);
    struct json_object *contexts = api_json_get(all, "contexts"), *one;
    const char *name = text ? text : api_json_get_str(all, "current");
    int rc;

    *none = !name;
    if (!name) {
        return 0;
    }
    one = contexts ? api_json_get(contexts, name) : NULL;
    if (one) {
        rc = from_context(name, one, p, e);
    } else if (text && (strchr(text, '/') || !str_is_name(text))) {
        rc = from_url(text, p, e);
    } else {
        rc = err_set(e, -EINVAL,
                     "there is no context '%s'; 'vmctl context list' shows those there are "
                     "(a socket in this folder is ./%s)",
                     name, name);
    }
    if (rc == 0 && p->host && !p->ca && contexts && !one && !getenv("VMCTL_TLS")) {
        rc = find_by_url(contexts, p, e);
    }
    if (rc == 0 && p->host && !p->ca) {
        default_tls(p);
    }
    return rc;
}

struct tls_link *place_link(const struct place *p, enum tls_proto proto, int timeout_ms,
                            struct err *e)
{
    struct tls_target to = { .host = p->host, .port = p->port, .name = p->name };

    if (!p->cert || access(p->cert, F_OK) < 0) {
        err_set(e, -EACCES,
                "there is no certificate for vmd+tls://%s (%s); 'vmctl join' gets one", p->host,
                p->cert ? p->cert : "HOME is not set");
        return NULL;
    }
    to.files = (struct tls_files){ .ca = p->ca, .cert = p->cert, .key = p->key };
    return tls_link_open(&to, proto, timeout_ms, e);
}

/* --- lines over a link -------------------------------------------------------------------- */

/* Sends one line and reads one; the caller's text, NULL with e set. */
static char *ask_line(int fd, const char *text, struct err *e)
{
    AUTO_BUF b = BUF_INIT;
    char c;
    ssize_t n;

    if (fd_write_all(fd, text, strlen(text), "the daemon", e) < 0) {
        return NULL;
    }
    while ((n = recv(fd, &c, 1, 0)) > 0 && c != '\n' && b.len < ANSWER_MAX) {
        buf_add_char(&b, c);
    }
    if (n <= 0) {
        err_set(e, -EPIPE, "the daemon did not answer");
        return NULL;
    }
    return buf_take(&b);
}

/* The same with JSON; an error in the answer is an error. */
static struct json_object *ask(int fd, struct tls_link *link, struct json_object *take,
                               struct err *e)
{
    AUTO_FREE char *line = xasprintf("%s\n", api_json_text(take));
    struct err why = ERR_INIT, over = ERR_INIT;
    AUTO_FREE char *text = ask_line(fd, line, &why);
    struct json_object *o = NULL, *x;

    json_object_put(take);
    if (!text) {
        bool told = tls_link_why(link, 1000, &over) == 0 && over.code;
        err_set(e, told ? over.code : why.code, "%s", told ? over.msg : why.msg);
        return NULL;
    }
    if (api_json_parse(text, strlen(text), &o, e) < 0) {
        return NULL;
    }
    x = api_json_get(o, "error");
    if (x) {
        const char *message = api_json_get_str(x, "message");
        err_set(e, -EACCES, "the daemon refuses: %s", message ? message : "?");
        json_object_put(o);
        return NULL;
    }
    return o;
}

int place_stream(const struct place *p, const char *ticket, struct tls_link **link,
                 struct err *e)
{
    AUTO_JSON reply = NULL;
    struct json_object *say = json_object_new_object();
    AUTO_FD fd = -1;

    api_json_set_str(say, "ticket", ticket);
    *link = place_link(p, TLS_PROTO_STREAM, LINK_MS, e);
    if (!*link) {
        json_object_put(say);
        return -EACCES;
    }
    fd = tls_link_take_fd(*link);
    reply = ask(fd, *link, say, e);
    if (!reply) {
        close(take_fd(&fd));
        tls_link_close(*link);
        *link = NULL;
        return -EACCES;
    }
    return take_fd(&fd);
}

/* --- verbs: contexts ---------------------------------------------------------------------- */

static int bad(struct cli *c, const struct err *e)
{
    return cli_fail(c, e->code == -EINVAL ? CLI_USAGE : CLI_FAILED, NULL, "%s", e->msg);
}

static int add_context(const char *name, const char *url, const char *tls, const char *server,
                       bool use, struct err *e)
{
    AUTO_JSON all = load(e);
    struct json_object *one = json_object_new_object();
    int rc;

    api_json_set_str(one, "url", url);
    if (tls) {
        api_json_set_str(one, "tls", tls);
    }
    if (server) {
        api_json_set_str(one, "server_name", server);
    }
    if (!all) {
        json_object_put(one);
        return e->code ? e->code : -EIO;
    }
    api_json_set(api_json_get(all, "contexts"), name, one);
    if (use) {
        api_json_set_str(all, "current", name);
    }
    rc = save(all, e);
    return rc;
}

int cli_verb_context_add(struct cli *c, struct cli_input *in)
{
    const char *name = cli_own(in, "NAME"), *url = cli_own(in, "URL"),
               *tls = cli_own(in, "tls");
    AUTO_FREE char *full = tls ? realpath(tls, NULL) : NULL;
    struct place p = { 0 };
    struct err e = ERR_INIT;
    int rc = from_url(url, &p, &e);

    place_done(&p);
    if (rc < 0) {
        return bad(c, &e);
    }
    if (!str_is_name(name)) {
        return cli_fail(c, CLI_USAGE, NULL, "'%s' is no name for a context", name);
    }
    if (tls && !full) {
        return cli_fail(c, CLI_USAGE, NULL, "--tls '%s': %s", tls, strerror(errno));
    }
    if (add_context(name, url, full, cli_own(in, "server-name"), false, &e) < 0) {
        return bad(c, &e);
    }
    return CLI_OK;
}

int cli_verb_context_use(struct cli *c, struct cli_input *in)
{
    const char *name = cli_own(in, "NAME");
    struct err e = ERR_INIT;
    AUTO_JSON all = load(&e);

    if (!all) {
        return bad(c, &e);
    }
    if (!name) {
        json_object_object_del(all, "current");
    } else if (!api_json_get(api_json_get(all, "contexts"), name)) {
        return cli_fail(c, CLI_USAGE, "'vmctl context list' shows those there are",
                        "there is no context '%s'", name);
    } else {
        api_json_set_str(all, "current", name);
    }
    return save(all, &e) < 0 ? bad(c, &e) : CLI_OK;
}

int cli_verb_context_list(struct cli *c, struct cli_input *in)
{
    struct err e = ERR_INIT;
    AUTO_JSON all = load(&e);
    const char *current;
    AUTO_JSON rows = json_object_new_array();
    static const struct cli_column columns[] = { { "", "mark", NULL },
                                                 { "NAME", "name", NULL },
                                                 { "URL", "url", NULL },
                                                 { "TLS", "tls", NULL } };

    (void)in;
    if (!all) {
        return bad(c, &e);
    }
    current = api_json_get_str(all, "current");
    json_object_object_foreach(api_json_get(all, "contexts"), name, o)
    {
        struct json_object *row = json_object_new_object();
        api_json_set_str(row, "mark", current && strcmp(current, name) == 0 ? "*" : "");
        api_json_set_str(row, "name", name);
        api_json_set(row, "url", json_object_get(api_json_get(o, "url")));
        if (api_json_get(o, "tls")) {
            api_json_set(row, "tls", json_object_get(api_json_get(o, "tls")));
        }
        json_object_array_add(rows, row);
        if (c->quiet) {
            printf("%s\n", name);
        }
    }
    if (c->json) {
        cli_print_json(rows);
    } else if (!c->quiet) {
        cli_table(c, rows, columns, ARRAY_LEN(columns));
    }
    return CLI_OK;
}

/* What join wrote is ours to remove; other folders stay. */
static void remove_tls(const char *name, const char *tls)
{
    static const char *const files[] = { "ca.pem", "cert.pem", "key.pem" };
    AUTO_FREE char *base = config_dir(NULL);
    AUTO_FREE char *own = base ? xasprintf("%s/tls-%s", base, name) : NULL;

    if (!own || !tls || strcmp(own, tls) != 0) {
        return;
    }
    for (size_t i = 0; i < ARRAY_LEN(files); i++) {
        AUTO_FREE char *path = xasprintf("%s/%s", own, files[i]);
        unlink(path);
    }
    rmdir(own);
}

int cli_verb_context_rm(struct cli *c, struct cli_input *in)
{
    const char *name = cli_own(in, "NAME"), *current;
    struct err e = ERR_INIT;
    AUTO_JSON all = load(&e);
    struct json_object *contexts = api_json_get(all, "contexts"), *one;

    if (!all) {
        return bad(c, &e);
    }
    one = api_json_get(contexts, name);
    if (!one) {
        return cli_fail(c, CLI_USAGE, "'vmctl context list' shows those there are",
                        "there is no context '%s'", name);
    }
    remove_tls(name, api_json_get_str(one, "tls"));
    json_object_object_del(contexts, name);
    current = api_json_get_str(all, "current");
    if (current && strcmp(current, name) == 0) {
        json_object_object_del(all, "current");
    }
    return save(all, &e) < 0 ? bad(c, &e) : CLI_OK;
}

/* --- verbs: certificates ------------------------------------------------------------------ */

/* Removes the secret from memory before it is given back. */
static void forget(char *key)
{
    if (key) {
        explicit_bzero(key, strlen(key));
        free(key);
    }
}

int cli_verb_cert_issue(struct cli *c, struct cli_input *in)
{
    const char *user = cli_own(in, "USER"), *out = cli_own(in, "out"),
               *days = cli_own(in, "days");
    char *key = NULL;
    AUTO_FREE char *request = NULL;
    AUTO_JSON result = NULL;
    struct json_object *params = json_object_new_object();
    struct err e = ERR_INIT;
    int rc;

    if (tls_make_request(user, &key, &request, &e) < 0) {
        json_object_put(params);
        return bad(c, &e);
    }
    api_json_set_str(params, "user", user);
    api_json_set_str(params, "request", request);
    if (days) {
        api_json_set_int(params, "days", strtoll(days, NULL, 10));
    }
    rc = cli_call(c, "cert.issue", params, &result);
    if (rc == CLI_OK && write_three(out ? out : user, api_json_get_str(result, "ca"),
                                    api_json_get_str(result, "certificate"), key, &e) < 0) {
        rc = bad(c, &e);
    }
    forget(key);
    if (rc != CLI_OK) {
        return rc;
    }
    if (c->json) {
        cli_print_json(result);
    } else if (c->quiet) {
        printf("%s\n", api_json_get_str(result, "serial") ?: "");
    } else {
        printf("%s: certificate %s for %s\n", out ? out : user,
               api_json_get_str(result, "serial") ?: "?", user);
    }
    return CLI_OK;
}

static char *folder_of(const char *file)
{
    const char *slash = strrchr(file, '/');

    return slash ? xstrndup(file, (size_t)(slash - file)) : xstrdup(".");
}

int cli_verb_cert_renew(struct cli *c, struct cli_input *in)
{
    char *key = NULL;
    AUTO_FREE char *request = NULL, *dir = NULL;
    AUTO_JSON result = NULL;
    struct json_object *params;
    struct err e = ERR_INIT;
    int rc = cli_connect(c);

    (void)in;
    if (rc != CLI_OK) {
        return rc;
    }
    if (!c->place || !c->place->cert) {
        return cli_fail(
            c, CLI_USAGE, "name a daemon reached by TLS with -c",
            "there is no certificate to renew: this daemon is reached by its socket");
    }
    if (tls_make_request("renew", &key, &request, &e) < 0) {
        return bad(c, &e);
    }
    params = json_object_new_object();
    api_json_set_str(params, "request", request);
    rc = cli_call(c, "cert.renew", params, &result);
    dir = folder_of(c->place->cert);
    if (rc == CLI_OK && write_three(dir, api_json_get_str(result, "ca"),
                                    api_json_get_str(result, "certificate"), key, &e) < 0) {
        rc = bad(c, &e);
    }
    forget(key);
    if (rc == CLI_OK && !c->quiet) {
        printf("%s: certificate %s\n", dir, api_json_get_str(result, "serial") ?: "?");
    }
    return rc;
}

/* --- verbs: join -------------------------------------------------------------------------- */

/* USER-HOST out of letters that a name may have. */
static char *own_name(void)
{
    struct passwd *pw = getpwuid(geteuid());
    char host[64] = "host", name[64];
    size_t n = 0;

    gethostname(host, sizeof(host) - 1);
    AUTO_FREE char *all = xasprintf("%s-%s", pw ? pw->pw_name : "user", host);
    for (const char *p = all; *p && *p != '.' && n < 63; p++) {
        char one[2] = { *p, 0 };
        if (str_is_name(one) || (n && strchr("._+-", *p))) {
            name[n++] = *p;
        }
    }
    name[n] = 0;
    return xstrdup(n ? name : "user");
}

static char *read_token(struct cli *c, const char *given)
{
    char line[256];

    if (!given) {
        cli_fail(c, CLI_USAGE, "'vmctl token create' on the daemon's host makes one",
                 "join: --token is missing");
        return NULL;
    }
    if (strcmp(given, "-") != 0) {
        return xstrdup(given);
    }
    if (!fgets(line, sizeof(line), stdin)) {
        cli_fail(c, CLI_USAGE, NULL, "join: no token on standard input");
        return NULL;
    }
    line[strcspn(line, " \r\n")] = 0;
    return xstrdup(line);
}

static struct json_object *join_ask(const struct place *p, const char *token, const char *user,
                                    const char *request, struct err *e)
{
    unsigned char secret[TLS_TOKEN_SECRET], ca[32];
    struct tls_target to = { .host = p->host, .port = p->port, .ca_pin = ca };
    struct json_object *say, *reply;
    struct tls_link *link;
    int fd;

    if (tls_token_parse(token, secret, ca, e) < 0) {
        return NULL;
    }
    link = tls_link_open(&to, TLS_PROTO_JOIN, LINK_MS, e);
    if (!link) {
        return NULL;
    }
    say = json_object_new_object();
    api_json_set_str(say, "token", token);
    api_json_set_str(say, "user", user);
    api_json_set_str(say, "request", request);
    fd = tls_link_take_fd(link);
    reply = ask(fd, link, say, e);
    close(fd);
    tls_link_close(link);
    return reply;
}

static int join_with(struct cli *c, struct cli_input *in, const struct place *p,
                     const char *token, const char *request, const char *key)
{
    const char *url = cli_own(in, "URL"), *context = cli_own(in, "context"),
               *user = cli_own(in, "user");
    AUTO_FREE char *mine = user ? xstrdup(user) : own_name();
    AUTO_FREE char *base = NULL, *dir = NULL;
    AUTO_JSON reply = NULL;
    struct err e = ERR_INIT;

    context = context ? context : str_is_name(p->host) ? p->host : "remote";
    base = config_dir(&e);
    reply = base ? join_ask(p, token, mine, request, &e) : NULL;
    if (!reply) {
        return cli_fail(c, e.code == -EINVAL ? CLI_USAGE : 6,
                        "ask for a new token: each is valid for some minutes, once", "%s",
                        e.msg);
    }
    dir = xasprintf("%s/tls-%s", base, context);
    if (!api_json_get_str(reply, "certificate") || !api_json_get_str(reply, "ca") ||
        write_three(dir, api_json_get_str(reply, "ca"), api_json_get_str(reply, "certificate"),
                    key, &e) < 0 ||
        add_context(context, url, dir, NULL, false, &e) < 0) {
        return cli_fail(c, CLI_FAILED, NULL, "%s", e.msg[0] ? e.msg : "no certificate came");
    }
    if (c->quiet) {
        printf("%s\n", context);
    } else {
        printf("joined as %s; context %s: 'vmctl -c %s list'\n",
               api_json_get_str(reply, "user") ?: "?", context, context);
    }
    return CLI_OK;
}

int cli_verb_join(struct cli *c, struct cli_input *in)
{
    const char *context = cli_own(in, "context");
    struct place p = { 0 };
    struct err e = ERR_INIT;
    AUTO_FREE char *token = NULL, *request = NULL;
    char *key = NULL;
    int rc = from_url(cli_own(in, "URL"), &p, &e);

    if (rc < 0 || !p.host || (context && !str_is_name(context))) {
        place_done(&p);
        return cli_fail(c, CLI_USAGE, "usage: vmctl join vmd+tls://HOST[:PORT] --token TOKEN",
                        "%s", rc < 0 ? e.msg : "join: not a URL of TLS, or no name");
    }
    token = read_token(c, cli_own(in, "token"));
    if (!token) {
        place_done(&p);
        return CLI_USAGE;
    }
    rc = tls_make_request("join", &key, &request, &e) < 0
             ? bad(c, &e)
             : join_with(c, in, &p, token, request, key);
    forget(key);
    place_done(&p);
    return rc;
}
