/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Processes of networks: started by the spawner, taken up after a restart of the daemon, watched by their pidfds, started anew when
 * they die, ended on request. Loop thread.
 */
#include "api-schema/json/json.h"
#include "daemon/daemon.h"
#include "daemon/events.h"
#include "daemon/network/networks.h"
#include "daemon/run/proc.h"
#include "daemon/run/spawner.h"
#include "daemon/spawn/proto.h"
#include "engine/base/buf.h"
#include "engine/base/fd.h"
#include "engine/base/log.h"
#include "engine/base/loop.h"
#include "engine/base/mem.h"
#include "engine/base/str.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define AGAIN_NS INT64_C(100000000) /* before another one; doubles with each that dies soon */
#define AGAIN_MOST_NS INT64_C(10000000000)
#define SOON_NS INT64_C(60000000000)
#define GIVE_UP 8
#define ASK_NS INT64_C(5000000000)
#define RECORD_MAX 4096

static void tell(struct network *n, const char *reason)
{
    struct change *c = change_new(n->d);

    change_must_tell(c);
    network_event(n, reason, c);
    change_commit(c, NULL, NULL);
}

struct ask {
    struct list link; /* network.asks */
    rpc_done_fn *fn;
    void *arg;
};

static void answered(void *arg, struct json_object *result, const struct api_error *x)
{
    struct ask a = *(struct ask *)arg;

    list_remove(&((struct ask *)arg)->link);
    free(arg);
    a.fn(a.arg, result, x);
}

void network_fail_asks(struct network *n)
{
    struct api_error x = API_ERROR_INIT;

    rpc_client_free(n->client); /* which forgets them */
    n->client = NULL;
    api_error_set(&x, API_E_UNRESPONSIVE, n->config.name, "call again",
                  "the process of network '%s' has ended", n->config.name);
    while (!list_empty(&n->asks)) {
        answered(list_entry(n->asks.next, struct ask, link), NULL, &x);
    }
}

static void forget_process(struct network *n)
{
    network_unpatch(n);
    network_fail_asks(n);
    loop_fd_free(n->watch);
    n->watch = NULL;
    if (n->pidfd >= 0) {
        close(n->pidfd);
    }
    n->pidfd = -1;
    n->pid = 0;
    n->cookie[0] = 0;
}

/* What started it hears how that went. */
static void finish(struct network *n, const struct err *e)
{
    network_done_fn *done = n->done;

    n->done = NULL;
    n->busy = NULL;
    if (done) {
        done(n->done_arg, e);
    }
}

static void start_again(struct network *n);

static void on_died(void *arg, int fd, unsigned events)
{
    struct network *n = arg;
    bool soon = time_mono_ns() - n->born_ns < SOON_NS;

    (void)fd;
    (void)events;
    log_error("daemon", "the process of network '%s' (pid %d) has died; see '%s/%s/%s/%s'",
              n->config.name, (int)n->pid, n->d->opt.run, SPAWN_NET_DIR, n->key, NET_LOG);
    forget_process(n);
    n->deaths++;
    n->failures = soon ? n->failures + 1 : 0;
    tell(n, "died");
    if (n->wanted) {
        n->state = API_NETWORK_STATE_STARTING;
        start_again(n);
    } else {
        n->state = API_NETWORK_STATE_INACTIVE;
    }
}

static void on_closed(void *arg, const struct err *why)
{
    struct network *n = arg;

    (void)why; /* it has died, and its pidfd tells; or it is mended by the next question */
    rpc_client_free(n->client);
    n->client = NULL;
}

static const struct rpc_client_ops client_ops = { .closed = on_closed };

static bool connect_it(struct network *n, struct err *e)
{
    AUTO_FREE char *path = network_path(n, VM_CONTROL);
    AUTO_FREE char *name = xasprintf("the process of network '%s'", n->config.name);

    if (!n->client) {
        n->client = rpc_client_connect(n->d->loop, path, name, &client_ops, n, e);
    }
    return n->client != NULL;
}

bool network_ask(struct network *n, const char *method, struct json_object *take_params,
                 int owned_fd, rpc_done_fn *fn, void *arg)
{
    struct err e = ERR_INIT;
    struct ask *a;

    if (n->pid == 0 || !connect_it(n, &e)) {
        json_object_put(take_params);
        if (owned_fd >= 0) {
            close(owned_fd);
        }
        return false;
    }
    a = xnew(struct ask);
    *a = (struct ask){ .fn = fn, .arg = arg };
    list_append(&n->asks, &a->link);
    if (owned_fd >= 0) {
        rpc_client_call_fd(n->client, method, take_params, owned_fd, ASK_NS, answered, a);
    } else {
        rpc_client_call(n->client, method, take_params, ASK_NS, answered, a);
    }
    return true;
}

/* It is there: from now on it is watched. */
static void take_up(struct network *n, pid_t pid, uint64_t start_time, int take_pidfd)
{
    n->pid = pid;
    n->start_time = start_time;
    n->pidfd = take_pidfd;
    n->born_ns = time_mono_ns();
    n->watch = loop_fd_new(n->d->loop, take_pidfd, LOOP_READ, on_died, n);
    n->state = API_NETWORK_STATE_ACTIVE;
    network_patch(n);
}

static void on_started(void *arg, pid_t pid, uint64_t start_time, int take_pidfd,
                       const struct err *e)
{
    struct network *n = arg;

    if (e) {
        n->cookie[0] = 0;
        n->state = API_NETWORK_STATE_INACTIVE;
        if (!n->done && !n->d->networks->ending) {
            log_error("daemon", "network '%s' cannot be started: %s", n->config.name, e->msg);
            n->busy = NULL;
            n->failures++;
            n->state = API_NETWORK_STATE_STARTING;
            start_again(n);
            return;
        }
        finish(n, e);
        return;
    }
    n->stale = false;
    take_up(n, pid, start_time, take_pidfd);
    if (!n->done) {
        tell(n, "started");
    }
    finish(n, NULL);
}

/* A bridge of the host has no process. */
static void use_bridge(struct network *n)
{
    AUTO_FREE char *path = xasprintf("/sys/class/net/%s/bridge", n->config.bridge);
    struct err e = ERR_INIT;
    struct stat st;

    if (stat(path, &st) < 0) {
        err_set(&e, -ENODEV, "the host has no bridge '%s'", n->config.bridge);
        n->state = API_NETWORK_STATE_INACTIVE;
        finish(n, &e);
        return;
    }
    n->state = API_NETWORK_STATE_ACTIVE;
    n->stale = false;
    finish(n, NULL);
}

void network_start_process(struct network *n, network_done_fn *done, void *arg)
{
    const struct api_net_ip *ip = network_ip(&n->config, false);
    struct json_object *o;

    n->busy = "started";
    n->done = done;
    n->done_arg = arg;
    n->state = API_NETWORK_STATE_STARTING;
    if (n->config.forward == API_NET_FORWARD_BRIDGE) {
        use_bridge(n);
        return;
    }
    cookie_make(n->cookie);
    AUTO_JSON config = network_process_config(n);
    o = json_object_new_object();
    api_json_set_str(o, "key", n->key);
    api_json_set_str(o, "name", n->config.name);
    api_json_set_str(o, "cookie", n->cookie);
    api_json_set_str(o, "config", api_json_text(config));
    api_json_set_bool(o, "isolated", n->config.forward == API_NET_FORWARD_ISOLATED);
    if (ip && ip->tftp) {
        api_json_set_str(o, "tftp", ip->tftp);
    }
    spawner_network(n->d->spawner, o, on_started, n);
}

static void on_again(void *arg)
{
    struct network *n = arg;

    if (!n->d->networks->ending && n->wanted && n->pid == 0 && !n->busy) {
        network_start_process(n, NULL, NULL);
    }
}

static void start_again(struct network *n)
{
    int64_t pause = AGAIN_NS << (n->failures < 8 ? n->failures : 8);

    if (n->failures >= GIVE_UP) {
        log_error("daemon", "network '%s' has died %u times in a row; it is left so",
                  n->config.name, n->failures);
        n->state = API_NETWORK_STATE_INACTIVE;
        n->failures = 0;
        tell(n, "lost");
        return;
    }
    if (!n->again) {
        n->again = loop_timer_new(n->d->loop, on_again, n);
    }
    loop_timer_arm(n->again, n->failures ? (pause < AGAIN_MOST_NS ? pause : AGAIN_MOST_NS) : 0);
}

/* ---- after a restart of the daemon ---- */

/* A pidfd of what the run folder says, when that lives and has this cookie; -1: it does not. */
static int living(struct network *n, pid_t *pid, uint64_t *start_time)
{
    AUTO_FREE char *path = network_path(n, VM_PROCESS);
    AUTO_BUF b = BUF_INIT;
    AUTO_JSON o = NULL;
    const char *boot, *cookie;
    int fd = -1;

    if (file_slurp(path, &b, RECORD_MAX, NULL) == 0 &&
        api_json_parse(b.data, b.len, &o, NULL) == 0) {
        boot = api_json_get_str(o, "boot_id");
        cookie = api_json_get_str(o, "cookie");
        *pid = (pid_t)api_json_get_int(o, "pid", 0);
        *start_time = (uint64_t)api_json_get_int(o, "start_time", 0);
        if (boot && cookie && strcmp(boot, n->d->boot_id) == 0 && *pid > 1) {
            fd = proc_pidfd(*pid, *start_time, NULL);
            str_copy(n->cookie, sizeof(n->cookie), cookie);
        }
    }
    return fd;
}

static void on_began(void *arg, const struct err *e)
{
    struct network *n = arg;

    if (e) {
        log_error("daemon", "network '%s' is not active: %s", n->config.name, e->msg);
        tell(n, "lost");
    }
}

void network_adopt(struct network *n)
{
    uint64_t start_time = 0;
    pid_t pid = 0;
    int fd = living(n, &pid, &start_time);

    if (fd >= 0 && n->wanted) {
        take_up(n, pid, start_time, fd);
        return;
    }
    if (fd >= 0) { /* it was stopped, and the daemon died before it could end it */
        proc_signal(fd, pid, start_time, SIGKILL, NULL);
        close(fd);
    }
    n->cookie[0] = 0;
    if (n->wanted) {
        network_start_process(n, on_began, n);
    }
}

/* ---- the end ---- */

void network_end_process(struct network *n)
{
    loop_timer_free(n->again);
    n->again = NULL;
    n->failures = 0;
    n->stale = false;
    n->state = API_NETWORK_STATE_INACTIVE;
    /* No harm is done: it keeps nothing, and writes a capture frame by frame. Whoever starts another waits for its lock. */
    if (n->pid != 0) {
        proc_signal(n->pidfd, n->pid, n->start_time, SIGKILL, NULL);
    }
    forget_process(n);
}
