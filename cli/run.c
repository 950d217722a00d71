/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `vmctl run`: a transient VM, its console, its end; with --private a daemon of its own in a
 * temporary folder. Owns the VM it made and that daemon, and takes both away on every way out but
 * detaching. One thread.
 */
#include "cli/cli.h"
#include "cli/console.h"
#include "cli/remote.h"
#include "cli/private.h"

#include "api-schema/json/json.h"
#include "api-schema/rpc/client.h"
#include "engine/base/fd.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

static volatile sig_atomic_t run_signal; /* set by the handler, read by the loops */

struct run {
    struct cli *c;
    struct private_daemon *daemon; /* NULL: the usual one */
    char *name, *uuid;
    struct console_options console;
    const char *escape; /* --escape; NULL: not given */
    bool with_console;
    bool ended; /* vm.wait answered */
    struct json_object *end;
    struct api_error end_error;
    struct tls_link *link; /* under the console, by TLS */
};

static void on_signal(int signo)
{
    run_signal = signo;
}

static void catch_signals(void)
{
    static const int signals[] = { SIGHUP, SIGINT, SIGTERM };
    struct sigaction a = { .sa_handler = on_signal };

    sigemptyset(&a.sa_mask);
    for (size_t i = 0; i < ARRAY_LEN(signals); i++) {
        sigaction(signals[i], &a, NULL);
    }
}

static struct json_object *about(const struct run *r)
{
    struct json_object *params = json_object_new_object();

    api_json_set_str(params, "vm", r->uuid);
    return params;
}

static void on_end(void *arg, struct json_object *result, const struct api_error *x)
{
    struct run *r = arg;

    r->ended = true;
    r->end = json_object_get(result);
    if (x) {
        r->end_error = *x;
    }
}

/* Asks to be told of the end before the guest's first instruction, so that none is missed. */
static void watch_end(struct run *r)
{
    rpc_client_call(rpc_dial_client(r->c->dial), "vm.wait", about(r), 0, on_end, r);
}

/* False when a signal came first. */
static bool await_end(struct run *r)
{
    while (!r->ended && !run_signal) {
        if (loop_run_once(rpc_dial_loop(r->c->dial), 100 * INT64_C(1000000), NULL) < 0) {
            return false;
        }
    }
    return r->ended;
}

static void give_name(struct cli_input *in)
{
    unsigned char random[4];

    if (cli_get_path(in->params, "config.name")) {
        return;
    }
    if (getrandom(random, sizeof(random), 0) == sizeof(random)) {
        AUTO_FREE char *name = xasprintf("run-%02x%02x%02x%02x", random[0], random[1],
                                         random[2], random[3]);
        cli_set_path(in->params, "config.name", json_object_new_string(name));
    }
}

/* Makes the VM, paused. */
static int create(struct run *r, struct cli_input *in)
{
    struct json_object *params = json_object_get(in->params);
    AUTO_JSON result = NULL;
    int rc = cli_resolve_xml(r->c, in);

    if (rc != CLI_OK) {
        json_object_put(params);
        return rc;
    }
    give_name(in);
    api_json_set_bool(params, "transient", true);
    api_json_set_bool(params, "paused", true);
    rc = cli_call(r->c, "vm.create", params, &result);
    if (rc != CLI_OK) {
        return rc;
    }
    r->name = xstrdup(api_json_get_str(result, "name") ?: "?");
    r->uuid = xstrdup(api_json_get_str(result, "uuid") ?: "?");
    return cli_wait_job(r->c, api_json_get_int(result, "job", 0), NULL);
}

static int open_console(struct run *r, int *sock)
{
    AUTO_JSON result = NULL;
    struct err e = ERR_INIT;
    int rc = cli_call(r->c, "vm.console", about(r), &result);

    if (rc != CLI_OK) {
        return rc;
    }
    *sock = console_open(r->c, result, &r->link, &e);
    if (*sock < 0) {
        return cli_fail(r->c, CLI_FAILED, NULL, "console of %s: %s", r->name, e.msg);
    }
    return CLI_OK;
}

/* Takes the VM away when it is still there. */
static void remove_vm(struct run *r)
{
    struct json_object *params = about(r);
    struct api_error x = API_ERROR_INIT;

    run_signal = 0; /* or nothing could be asked */
    api_json_set_bool(params, "force", true);
    (void)cli_call_quiet(r->c, "vm.delete", params, NULL, &x);
}

/* Says how it ended, gives the exit status. */
static int report_end(struct run *r)
{
    static const struct {
        const char *reason;
        int status;
    } ends[] = {
        { "guest-poweroff", CLI_OK },
        { "poweroff", CLI_OK },
        { "guest-fail", CLI_GUEST_FAILED },
    };
    struct json_object *exit = api_json_get(r->end, "exit");
    const char *state = api_json_get_str(r->end, "state");
    const char *reason = api_json_get_str(exit, "reason") ?: api_json_get_str(r->end, "reason") ?: "";
    const char *message = api_json_get_str(exit, "message");
    bool crashed = state && strcmp(state, "crashed") == 0;

    if (r->c->json) {
        cli_print_json(r->end);
    }
    if (crashed) {
        return cli_fail(r->c, CLI_VM_CRASHED, message, "%s crashed: %s", r->name,
                        reason[0] ? reason : "?");
    }
    if (isatty(2) && !r->c->quiet && !r->c->json) {
        fprintf(stderr, "[%s ended: %s]\n", r->name, reason[0] ? reason : "stopped");
    }
    for (size_t i = 0; i < ARRAY_LEN(ends); i++) {
        if (strcmp(reason, ends[i].reason) == 0) {
            return ends[i].status;
        }
    }
    return CLI_VM_ENDED;
}

static int after_signal(struct run *r, int signo)
{
    if (r->uuid) {
        remove_vm(r);
    }
    return cli_fail(r->c, CLI_VM_ENDED, NULL, "%s: ended by signal %d",
                    r->name ? r->name : "run", signo);
}

static int after_detach(struct run *r)
{
    const char *at = r->c->dir ? r->c->dir : NULL;

    if (r->daemon) {
        remove_vm(r);
        fprintf(stderr, "\r\n[detached; the private daemon and %s end]\n", r->name);
        return CLI_OK;
    }
    if (!r->c->quiet) {
        fprintf(stderr,
                "\r\n[detached; %s runs on. 'vmctl%s%s console %s' attaches again, 'vmctl%s%s "
                "stop %s' ends it]\n",
                r->name, at ? " --dir " : "", at ? at : "", r->name, at ? " --dir " : "",
                at ? at : "", r->name);
    }
    return CLI_OK;
}

/* The daemon went while we waited (the VM did not): asks the next one. */
static bool ask_again(struct run *r)
{
    if (cli_reconnect(r->c) < 0) {
        return false;
    }
    rpc_dial_watch(r->c->dial, &run_signal);
    r->end_error = (struct api_error)API_ERROR_INIT;
    return cli_call_quiet(r->c, "vm.wait", about(r), &r->end, &r->end_error) == 0;
}

/* Nobody knows how it ended any more. */
static int after_silence(struct run *r)
{
    if (run_signal) {
        return after_signal(r, run_signal);
    }
    if (r->end_error.code == API_E_NOT_FOUND) {
        return cli_fail(r->c, CLI_VM_ENDED, "'vmctl events' has its end",
                        "%s ended while the daemon was away", r->name);
    }
    return cli_error(r->c, &r->end_error);
}

/* The VM exists, paused. */
static int attend(struct run *r)
{
    AUTO_FD sock = -1;
    int rc = r->with_console ? open_console(r, &sock) : CLI_OK, signo = 0;
    enum console_end end = CONSOLE_CLOSED;

    if (rc == CLI_OK) {
        watch_end(r);
        rc = cli_call(r->c, "vm.resume", about(r), NULL);
    }
    if (rc != CLI_OK) {
        remove_vm(r);
        return rc;
    }
    if (r->with_console) {
        if (!r->c->quiet) {
            console_greet(r->name, r->escape, &r->console);
        }
        end = console_run(sock, &r->console, &signo);
        close(take_fd(&sock));
        tls_link_close(r->link);
        r->link = NULL;
    }
    if (end == CONSOLE_SIGNAL) {
        return after_signal(r, signo);
    }
    if (end == CONSOLE_DETACHED) {
        return after_detach(r);
    }
    if (!await_end(r)) {
        return after_signal(r, run_signal);
    }
    return r->end || ask_again(r) ? report_end(r) : after_silence(r);
}

static int start_private(struct run *r)
{
    struct err e = ERR_INIT;

    r->daemon = private_start(&run_signal, &e);
    if (!r->daemon) {
        return cli_fail(r->c, CLI_NO_DAEMON, NULL, "%s", e.msg);
    }
    r->c->connect = NULL;
    r->c->dir = private_dir(r->daemon);
    return CLI_OK;
}

static int connect_daemon(struct run *r)
{
    struct err e = ERR_INIT;

    if (cli_try_connect(r->c, &e) == 0) {
        rpc_dial_watch(r->c->dial, &run_signal);
        return CLI_OK;
    }
    if (e.code != -ENOENT && e.code != -ECONNREFUSED) {
        return cli_connect(r->c);
    }
    return cli_fail(r->c, CLI_NO_DAEMON,
                    "start one with 'vmd --dir DIR &' and use 'vmctl --dir DIR run ...',\n"
                    "or let this VM have its own: 'vmctl run --private ...'",
                    "no daemon listens at %s",
                    r->c->place && r->c->place->socket ? r->c->place->socket
                                                       : "the default socket");
}

int cli_verb_run(struct cli *c, struct cli_input *in)
{
    struct run r = { .c = c,
                     .escape = cli_own(in, "escape"),
                     .with_console = !cli_own(in, "no-console") };
    struct err e = ERR_INIT;
    int rc = CLI_OK;

    if (console_escape(r.escape, &r.console.escape, &e) < 0) {
        return cli_fail(c, CLI_USAGE, NULL, "--escape: %s", e.msg);
    }
    catch_signals();
    if (cli_own(in, "private")) {
        rc = start_private(&r);
    }
    rc = rc == CLI_OK ? connect_daemon(&r) : rc;
    if (rc == CLI_OK) {
        rc = create(&r, in);
        if (rc == CLI_OK) {
            rc = attend(&r);
        } else if (run_signal) {
            rc = after_signal(&r, run_signal);
        } else if (r.uuid) {
            remove_vm(&r);
        }
    }
    if (r.daemon) {
        rpc_dial_close(c->dial);
        c->dial = NULL;
        private_stop(r.daemon);
        c->dir = NULL;
    }
    json_object_put(r.end);
    free(r.name);
    free(r.uuid);
    return rc;
}
