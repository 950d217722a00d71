/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The destination of a migration: handlers of migrate.prepare, complete, commit, abort and finish, and the streams. Owns struct
 * migrate_in: one for each VM that comes, until its source has nothing of it left. Until it is ours the VM is a transient one:
 * whatever ends its emulator leaves nothing of it. Loop thread.
 */
#include "daemon/vm/migrate.h"

#include "api-schema/gen/methods.h"
#include "api-schema/json/codec.h"
#include "api-schema/json/json.h"
#include "api-schema/tls/tls.h"
#include "api-schema/tls/tunnel.h"
#include "daemon/auth/access.h"
#include "daemon/auth/listen.h"
#include "daemon/calls.h"
#include "daemon/daemon.h"
#include "daemon/ops.h"
#include "daemon/registry.h"
#include "daemon/run/runfs.h"
#include "daemon/run/supervise.h"
#include "daemon/vm/migrate_place.h"
#include "daemon/vm/peer.h"
#include "daemon/vm/policy.h"
#include "daemon/vm/preflight.h"
#include "daemon/vm/supply.h"
#include "engine/base/fd.h"
#include "engine/base/log.h"
#include "engine/base/loop.h"
#include "engine/base/mem.h"
#include "engine/base/str.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#define MS INT64_C(1000000)
#define VALID_NS (60000 * MS) /* until all streams have come */
#define ASK_NS (10000 * MS)
#define WAITING 16 /* calls of one migration */

enum step {
    CHECK,    /* may it come? */
    START,    /* the emulator starts */
    STREAMS,  /* they are connected */
    RECEIVE,  /* memory comes */
    RECEIVED, /* all of it is here; whose it is, the source says */
    OWN,      /* that it is ours becomes durable */
    OWNER,
    DROP, /* the emulator ends, nothing of it stays */
};

struct migrate_in {
    struct list link; /* vmd.migrate_ins */
    struct vmd *d;
    int64_t vm;
    struct op *op; /* holds the VM's turn until it is ours */
    enum step step;
    char *uuid, *name, *user;
    char hash[65];   /* of the ticket */
    char ticket[65]; /* until it was told */
    unsigned streams, lent;
    int fd[PEER_LANES]; /* that have come and are not lent yet */
    bool lending;
    uint32_t came; /* bit for each stream */
    bool paused, transient, watching, check;
    bool marked;         /* the store has a row */
    struct place *place; /* images that are made for it; NULL: none */
    struct loop_timer *timer;
    struct rpc_session *session; /* of the source, until its streams have come; only compared */
    struct api_call *prepare;
    struct api_call *waiting[WAITING]; /* complete, commit, abort, resolve */
    unsigned n_waiting;
    struct json_object *warnings;
    struct api_error x;
};

static struct vm *vm_of(const struct migrate_in *k)
{
    return vm_by_id(k->d, k->vm);
}

static void in_init(struct migrate_in *k)
{
    k->x = (struct api_error)API_ERROR_INIT;
    for (unsigned i = 0; i < PEER_LANES; i++) {
        k->fd[i] = -1;
    }
}

static void in_free(struct migrate_in *k)
{
    list_remove(&k->link);
    for (unsigned i = 0; i < PEER_LANES; i++) {
        fd_autoclose(&k->fd[i]);
    }
    loop_timer_free(k->timer);
    json_object_put(k->warnings);
    place_free(k->place);
    free(k->uuid);
    free(k->name);
    free(k->user);
    free(k);
}

static unsigned n_disks(const struct migrate_in *k)
{
    return k->place ? (unsigned)k->place->n : 0;
}

static void put_row(struct migrate_in *k, struct change *c, const char *state)
{
    AUTO_FREE char **files = xnew_n(char *, n_disks(k) + 1);
    size_t n = 0;
    for (unsigned i = 0; i < n_disks(k) && strcmp(state, "incoming") == 0; i++) {
        if (!k->place->disk[i].there) {
            files[n++] = k->place->disk[i].file;
        }
    }
    k->marked = true;
    const struct migrate_row row = { .uuid = k->uuid,
                                     .name = (char *)"in",
                                     .state = (char *)(uintptr_t)state,
                                     .ticket = k->hash,
                                     .user = k->user,
                                     .paused = k->paused,
                                     .transient = k->transient,
                                     .mark = k->place ? k->place->mark : NULL,
                                     .files = files,
                                     .n_files = n };
    migrate_row_put(c, &row);
}

/* ---- calls that wait ---- */

static void on_gone(void *arg, struct api_call *call)
{
    struct vmd *d = arg;
    list_for_each (it, &d->migrate_ins) {
        struct migrate_in *k = list_entry(it, struct migrate_in, link);
        if (k->prepare == call) {
            k->prepare = NULL;
        }
        for (unsigned i = 0; i < k->n_waiting; i++) {
            if (k->waiting[i] == call) {
                k->waiting[i] = k->waiting[--k->n_waiting];
                return;
            }
        }
    }
}

static void hold_call(struct migrate_in *k, struct api_call *call)
{
    if (k->n_waiting == WAITING) {
        api_fail(call, API_E_OVERLOAD, k->name, NULL, "too many calls wait for it");
        return;
    }
    k->waiting[k->n_waiting++] = call;
    api_call_on_gone(call, on_gone, k->d);
}

/* All who wait are told the same: what they asked for by its method. x NULL: well. */
static void tell(struct migrate_in *k, const char *method, const struct api_error *x)
{
    for (unsigned i = 0; i < k->n_waiting;) {
        struct api_call *call = k->waiting[i];
        if (method && strcmp(api_call_method(call)->name, method) != 0) {
            i++;
            continue;
        }
        k->waiting[i] = k->waiting[--k->n_waiting];
        if (x) {
            api_reply_error(call, x);
        } else {
            api_reply_json(call, json_object_new_object());
        }
    }
}

/* ---- it does not come ---- */

static void on_dropped(void *arg, const struct err *e)
{
    struct migrate_in *k = arg;
    struct api_error x = API_ERROR_INIT;
    if (e) {
        api_error_set(&x, API_E_STORE_ERROR, k->name, NULL, "%s", e->msg);
    }
    tell(k, "migrate.abort", e ? &x : NULL);
    tell(k, "migrate.resolve", e ? &x : NULL);
    api_error_set(&x, k->x.code ? k->x.code : API_E_NOT_FOUND, k->name, NULL, "%s",
                  k->x.code ? k->x.message : "it is not here any more");
    tell(k, "migrate.complete", &x);
    api_error_set(&x, API_E_NOT_FOUND, k->name, NULL, "it was dropped: %s",
                  k->x.code ? k->x.message : "the source said so");
    tell(k, NULL, &x);
    in_free(k);
}

/* Nothing of it is here: the row goes, and with it the ticket. */
static void dropped(struct migrate_in *k)
{
    struct change *c = change_new(k->d);
    k->step = DROP;
    loop_timer_disarm(k->timer);
    place_undo(k->place, c);
    migrate_row_del(c, k->uuid, "in");
    change_commit(c, on_dropped, k);
}

static void drop(struct migrate_in *k, int code, const char *why)
{
    struct vm *vm = vm_of(k);
    if (k->step >= OWN) {
        return;
    }
    if (why && !k->x.code) {
        api_error_set(&k->x, code, k->name, NULL, "%s", why);
        log_warn("daemon", "VM '%s' does not come here: %s", k->name, why);
    }
    k->step = DROP;
    loop_timer_disarm(k->timer);
    if (vm && vm->run) {
        run_kill(vm->run); /* its end goes on */
    } else if (!k->watching) {
        dropped(k);
    }
}

static void on_vm_end(void *arg, struct vm *vm, bool gone)
{
    struct migrate_in *k = arg;
    char why[400];
    k->watching = false;
    if (gone) {
        k->op = NULL;
        k->vm = 0;
    }
    if (k->step == OWNER || k->step == OWN) {
        return; /* an ordinary end of a VM that is ours */
    }
    snprintf(why, sizeof(why), "its emulator ended: %s%s%s", vm->reason ? vm->reason : "?",
             vm->exit && vm->exit->message ? ": " : "",
             vm->exit && vm->exit->message ? vm->exit->message : "");
    if (!k->x.code) {
        api_error_set(&k->x, API_E_START_FAILED, k->name, NULL, "%s", why);
    }
    dropped(k);
}

void migrate_session_closed(struct vmd *d, const struct rpc_session *s)
{
    list_for_each_safe (it, &d->migrate_ins) {
        struct migrate_in *k = list_entry(it, struct migrate_in, link);
        if (k->session == s) {
            k->session = NULL;
            if (k->step == START || k->step == STREAMS) {
                drop(k, API_E_CANCELLED, "its source has gone");
            }
        }
    }
}

static void on_timer(void *arg)
{
    drop(arg, API_E_TIMEOUT, "its streams did not come within a minute");
}

/* ---- streams ---- */

static void on_received(void *arg, struct json_object *result, const struct api_error *x)
{
    struct vm *vm = arg; /* lives as long as its connection */
    (void)result;
    list_for_each (it, &vm->d->migrate_ins) {
        struct migrate_in *k = list_entry(it, struct migrate_in, link);
        if (k->vm != vm->id || k->step != RECEIVE) {
            continue;
        }
        if (x) {
            drop(k, x->code, x->message);
        } else {
            k->step = RECEIVED;
            log_info("daemon", "VM '%s' is here, and waits for its source's word", k->name);
            tell(k, "migrate.complete", NULL);
        }
        return;
    }
}

static void lend(struct migrate_in *k);

static void all_lent(struct migrate_in *k)
{
    struct vm *vm = vm_of(k);
    struct json_object *o = json_object_new_object();
    api_json_set_int(o, "streams", k->streams);
    k->step = RECEIVE;
    loop_timer_disarm(k->timer);
    if (!run_call_with(vm->run, "emu.migrate_in", o, 0, on_received, vm)) {
        drop(k, API_E_UNRESPONSIVE, "its emulator does not answer");
    }
}

static void on_lent(void *arg, struct json_object *result, const struct api_error *x)
{
    struct vm *vm = arg;
    (void)result;
    list_for_each (it, &vm->d->migrate_ins) {
        struct migrate_in *k = list_entry(it, struct migrate_in, link);
        if (k->vm != vm->id || k->step != STREAMS) {
            continue;
        }
        k->lending = false;
        if (x) {
            drop(k, x->code, x->message);
        } else if (++k->lent == k->streams + n_disks(k)) {
            all_lent(k);
        } else {
            lend(k);
        }
        return;
    }
}

/* One descriptor at a time is what a connection to an emulator takes. */
static void lend(struct migrate_in *k)
{
    struct vm *vm = vm_of(k);
    for (unsigned i = 0; i < k->streams + n_disks(k) && !k->lending; i++) {
        if (k->fd[i] < 0) {
            continue;
        }
        struct json_object *o = json_object_new_object();
        bool disk = i >= k->streams;
        if (disk) {
            api_json_set_str(o, "disk", k->place->disk[i - k->streams].name);
        } else {
            api_json_set_int(o, "index", i);
        }
        k->lending = true;
        if (!run_call_fd(vm->run, disk ? "emu.migrate_disk_in" : "emu.migrate_stream", o,
                         take_fd(&k->fd[i]), ASK_NS, on_lent, vm)) {
            drop(k, API_E_UNRESPONSIVE, "its emulator does not answer");
            return;
        }
    }
}

static void hash_of(const char *ticket, char out[65])
{
    unsigned char digest[32];
    tls_sha256(ticket, strlen(ticket), digest);
    tls_hex(digest, sizeof(digest), out);
}

static struct migrate_in *by_ticket(struct vmd *d, const char *ticket, const char *user)
{
    char hash[65];
    hash_of(ticket, hash);
    list_for_each (it, &d->migrate_ins) {
        struct migrate_in *k = list_entry(it, struct migrate_in, link);
        if (strcmp(k->hash, hash) == 0 && strcmp(k->user, user) == 0) {
            return k;
        }
    }
    return NULL;
}

bool migrate_stream(struct vmd *d, struct tunnel *t, const struct rpc_peer *p,
                    const char *ticket, int64_t stream)
{
    static const char ok[] = "{\"ok\":true}\n";
    struct migrate_in *k = by_ticket(d, ticket, p->user);
    struct vm *vm = k ? vm_of(k) : NULL;
    int pair[2];
    if (!k) {
        return false;
    }
    if (k->step != STREAMS || !vm || !vm->run || stream < 0 ||
        stream >= k->streams + n_disks(k) || k->came & 1u << stream) {
        doors_say_error(t, API_E_DENIED,
                        "the migration has this stream already, or has not so many");
        return true;
    }
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0) {
        doors_say_error(t, API_E_HOST_LIMIT, "no descriptors are left");
        return true;
    }
    k->came |= 1u << stream;
    k->fd[stream] = pair[1];
    tunnel_say(t, ok, sizeof(ok) - 1);
    tunnel_attach(t, pair[0]);
    lend(k);
    return true;
}

/* ---- migrate.prepare ---- */

static void refuse(struct migrate_in *k, const struct api_error *x)
{
    struct api_call *call = take_ptr(k->prepare);
    if (call) {
        api_reply_error(call, x);
    }
}

static void on_undone(void *arg, const struct err *e)
{
    (void)e; /* else the next daemon does it once more */
    in_free(arg);
}

/* Before it has a turn: nothing of it stays. x may be NULL: nobody waits for the answer. */
static void give_up(struct migrate_in *k, const struct api_error *x)
{
    struct vm *vm = vm_of(k);
    if (x) {
        refuse(k, x);
    }
    k->vm = 0;
    k->step = DROP;
    vm_free(vm);
    if (!k->marked) {
        place_undo(k->place, NULL);
        in_free(k);
        return;
    }
    struct change *c = change_new(k->d);
    place_undo(k->place, c);
    migrate_row_del(c, k->uuid, "in");
    change_commit(c, on_undone, k);
}

static void on_started(void *arg, const struct api_error *x)
{
    struct migrate_in *k = arg;
    if (k->step != START) {
        return;
    }
    if (x) {
        refuse(k, x); /* the run's end cleans up */
        return;
    }
    k->step = STREAMS;
    loop_timer_arm(k->timer, VALID_NS);
    struct api_call *call = take_ptr(k->prepare);
    if (!call) {
        drop(k, API_E_CANCELLED, "its source has gone");
        return;
    }
    struct json_object *o = json_object_new_object();
    api_json_set_str(o, "ticket", k->ticket);
    api_json_set(o, "warnings",
                 k->warnings ? json_object_get(k->warnings) : json_object_new_array());
    OPENSSL_cleanse(k->ticket, sizeof(k->ticket));
    call_finish(k->d, call, k->name, o);
}

static void hold_begin(struct op *op)
{
    struct migrate_in *k = op->in;
    op->in = NULL;
    k->op = op;
}

static const char held[] = "comes from another host, and is not here yet";

static void take_turn(struct migrate_in *k, struct vm *vm)
{
    vm->moving = NULL;
    op_queue(vm, NULL, NULL, k, hold_begin, false);
    vm->moving = held;
}

struct intent {
    struct migrate_in *k;
    struct run_disks disks;
};

static void on_intent(void *arg, const struct err *e)
{
    struct intent *i = arg;
    struct migrate_in *k = i->k;
    struct vm *vm = vm_of(k);
    struct api_error x = API_ERROR_INIT;
    if (e) {
        api_error_set(&x, API_E_STORE_ERROR, k->name, NULL, "%s", e->msg);
        give_up(k, &x);
    } else {
        vm->pending = false;
        k->step = START;
        run_start(vm, true, &i->disks, on_started, k);
        k->watching = true;
        run_on_end(vm->run, on_vm_end, k);
    }
    free(i);
}

static void make_ticket(struct migrate_in *k)
{
    unsigned char raw[32];
    if (getrandom(raw, sizeof(raw), 0) == (ssize_t)sizeof(raw)) {
        tls_hex(raw, sizeof(raw), k->ticket);
    }
    hash_of(k->ticket, k->hash);
    OPENSSL_cleanse(raw, sizeof(raw));
}

static void on_checked(void *arg, const struct api_error *x, const struct run_disks *disks)
{
    struct migrate_in *k = arg;
    struct vm *vm = vm_of(k);
    struct api_error own = API_ERROR_INIT;
    if (!x && policy_is_shutting(k->d)) {
        api_error_set(&own, API_E_BAD_STATE, k->name, NULL, "the host is being shut down");
        x = &own;
    }
    if (x || k->check || !k->prepare) {
        struct api_call *call = x ? NULL : take_ptr(k->prepare);
        if (call) {
            struct json_object *o = json_object_new_object();
            api_json_set(o, "warnings",
                         k->warnings ? json_object_get(k->warnings) : json_object_new_array());
            call_finish(k->d, call, k->name, o);
        }
        give_up(k, x);
        return;
    }
    struct intent *i = xnew(struct intent);
    *i = (struct intent){ .k = k, .disks = *disks };
    make_ticket(k);
    take_turn(k, vm);
    struct change *c = change_new(k->d);
    vm_put(vm, c);
    vm_event(vm, c, API_EVENT_TYPE_VM_DEFINED, "incoming", NULL);
    put_row(k, c, "incoming");
    change_commit(c, on_intent, i);
}

static void warn(struct migrate_in *k, const char *fmt, const char *name)
{
    char text[300];
    snprintf(text, sizeof(text), fmt, name);
    k->warnings = k->warnings ? k->warnings : json_object_new_array();
    json_object_array_add(k->warnings, json_object_new_string(text));
}

static void look_at(struct migrate_in *k, const struct api_vm_config *config)
{
    for (size_t i = 0; i < config->n_nics; i++) {
        if (config->nics[i].type == API_NIC_TYPE_USER) {
            warn(k, "connections of network card '%s' through user-mode networking end",
                 config->nics[i].name ? config->nics[i].name : "nic");
        }
    }
}

static void on_made(void *arg, const struct api_error *x)
{
    struct migrate_in *k = arg;
    if (x || !k->prepare) {
        give_up(k, x);
    } else {
        preflight_start(vm_of(k), on_checked, k);
    }
}

/* From here on the next daemon takes away what this one makes. */
static void on_marked(void *arg, const struct err *e)
{
    struct migrate_in *k = arg;
    struct api_error x = API_ERROR_INIT;
    if (e) {
        k->marked = false;
        api_error_set(&x, API_E_STORE_ERROR, k->name, NULL, "%s", e->msg);
        give_up(k, &x);
    } else {
        place_work(k->place, true, on_made, k);
    }
}

/* The images that come are not there yet: the rest is checked without them. */
static void without_disks(struct migrate_in *k)
{
    struct vm *vm = vm_of(k);
    size_t kept = 0;
    for (size_t i = 0; i < vm->config.n_disks; i++) {
        bool comes = false;
        for (unsigned j = 0; j < n_disks(k); j++) {
            comes |= vm->config.disks[i].name &&
                     strcmp(vm->config.disks[i].name, k->place->disk[j].name) == 0;
        }
        if (comes) {
            api_release(&api_type_disk, &vm->config.disks[i]);
        } else {
            vm->config.disks[kept++] = vm->config.disks[i];
        }
    }
    vm->config.n_disks = kept;
}

static void on_looked(void *arg, const struct api_error *x)
{
    struct migrate_in *k = arg;
    if (x || !k->prepare) {
        give_up(k, x);
    } else if (k->check) {
        without_disks(k);
        preflight_start(vm_of(k), on_checked, k);
    } else if (n_disks(k) == 0) {
        on_made(k, NULL);
    } else {
        struct change *c = change_new(k->d);
        put_row(k, c, "incoming");
        change_commit(c, on_marked, k);
    }
}

/* Checks what is asked, and gives the disks that come their places. NULL after the call was answered. */
static struct place *take_in(struct api_call *call, struct api_migrate_prepare_in *in)
{
    struct vmd *d = call_daemon(call);
    struct api_error x = API_ERROR_INIT;
    struct place *place = NULL;
    if (in->streams + (int64_t)in->n_disks > PEER_LANES) {
        api_error_set(&x, API_E_UNSUPPORTED, in->config->name, "have fewer copied",
                      "%lld streams and %zu disks are more than %d connections",
                      (long long)in->streams, in->n_disks, PEER_LANES);
    } else {
        place = place_new(d, in, &x);
    }
    if (!place || preflight_define(d, in->config, &x) < 0 ||
        access_config(call, in->config, API_ROLE_OPERATOR, &x) < 0 ||
        place_settle(call, place, in->config, in->reuse_images, &x) < 0 ||
        supply_quota(d, in->config, NULL, &x) < 0) {
        api_reply_error(call, &x);
        place_undo(place, NULL);
        place_free(place);
        return NULL;
    }
    return place;
}

void api_handle_migrate_prepare(struct api_call *call, struct api_migrate_prepare_in *in)
{
    struct vmd *d = call_daemon(call);
    const struct rpc_peer *p = api_call_peer(call);
    if (strcmp(in->version, PACKAGE_VERSION) != 0) {
        api_fail(call, API_E_UNSUPPORTED, in->version, "have the same version on both hosts",
                 "the source is vmd %s, this is vmd %s", in->version, PACKAGE_VERSION);
        return;
    }
    struct place *place = take_in(call, in);
    if (!place) {
        return;
    }
    struct migrate_in *k = xnew(struct migrate_in);
    *k = (struct migrate_in){
        .d = d, .prepare = call, .streams = (unsigned)in->streams, .place = place
    };
    in_init(k);
    k->paused = in->paused;
    k->transient = in->transient;
    k->check = in->check;
    k->uuid = xstrdup(in->config->uuid);
    k->name = xstrdup(in->config->name);
    k->user = xstrdup(p->user);
    k->timer = loop_timer_new(d->loop, on_timer, k);
    list_append(&d->migrate_ins, &k->link);
    k->session = api_call_session(call);
    api_call_on_gone(call, on_gone, d);
    look_at(k, in->config);
    struct vm *vm = vm_new(d, in->config, p->principal, true);
    k->vm = vm->id;
    place_work(k->place, false, on_looked, k);
}

/* ---- what the source says ---- */

/* NULL after the call was answered. */
static struct migrate_in *call_ticket(struct api_call *call, const char *ticket)
{
    struct migrate_in *k = by_ticket(call_daemon(call), ticket, api_call_peer(call)->user);
    if (!k) {
        api_fail(
            call, API_E_NOT_FOUND, "ticket", NULL,
            "there is no migration with this ticket: it never was here, was dropped, or is "
            "finished");
    }
    return k;
}

void api_handle_migrate_complete(struct api_call *call, struct api_migrate_complete_in *in)
{
    struct migrate_in *k = call_ticket(call, in->ticket);
    if (!k) {
        return;
    }
    if (k->step >= RECEIVED && k->step <= OWNER) {
        api_reply_migrate_complete(call);
    } else {
        hold_call(k, call);
    }
}

static void on_resumed(void *arg, struct json_object *result, const struct api_error *x)
{
    struct vm *vm = arg; /* lives as long as its connection */
    (void)result;
    if (x) {
        log_error("daemon", "VM '%s' is here and cannot be resumed: %s", vm->config.name,
                  x->message);
    }
    list_for_each (it, &vm->d->migrate_ins) {
        struct migrate_in *k = list_entry(it, struct migrate_in, link);
        if (k->vm == vm->id) {
            tell(k, NULL, NULL);
        }
    }
}

static void run_here(struct migrate_in *k)
{
    struct vm *vm = vm_of(k);
    if (vm && k->op) {
        vm->moving = NULL;
        op_end(take_ptr(k->op));
    }
    if (!vm || !vm->run || k->paused ||
        !run_call(vm->run, "emu.resume", ASK_NS, on_resumed, vm)) {
        tell(k, NULL, NULL);
    }
}

static void on_own(void *arg, const struct err *e)
{
    struct migrate_in *k = arg;
    struct vm *vm = vm_of(k);
    struct api_error x = API_ERROR_INIT;
    if (e) {
        api_error_set(&x, API_E_STORE_ERROR, k->name, "mend the disk under the store", "%s",
                      e->msg);
        if (vm) {
            vm->transient = true;
        }
        k->step = RECEIVED;
        tell(k, NULL, &x);
        if (!vm || !vm->run) {
            dropped(k);
        }
        return;
    }
    k->step = OWNER;
    place_free(take_ptr(k->place)); /* the images are the VM's */
    log_info("daemon", "VM '%s' is here", k->name);
    run_here(k);
}

/* The one step from which it is ours. */
static void own(struct migrate_in *k)
{
    struct vm *vm = vm_of(k);
    if (!vm || !vm->run || run_has_ended(vm->run)) { /* on its way out of the store */
        drop(k, API_E_START_FAILED, "its emulator has ended");
        return;
    }
    struct change *c = change_new(k->d);
    k->step = OWN;
    vm->transient = k->transient;
    vm_put(vm, c);
    if (k->place) {
        place_keep(k->place, c);
    }
    put_row(k, c, "owner");
    change_commit(c, on_own, k);
}

void api_handle_migrate_commit(struct api_call *call, struct api_migrate_commit_in *in)
{
    struct migrate_in *k = call_ticket(call, in->ticket);
    if (!k) {
        return;
    }
    if (k->step == OWNER) {
        api_reply_migrate_commit(call);
    } else if (k->step == RECEIVED) {
        hold_call(k, call);
        own(k);
    } else if (k->step == OWN || k->step == DROP) {
        hold_call(k, call);
    } else {
        api_fail(call, API_E_BAD_STATE, k->name, NULL, "not all of it is here yet");
    }
}

void api_handle_migrate_abort(struct api_call *call, struct api_migrate_abort_in *in)
{
    struct migrate_in *k = call_ticket(call, in->ticket);
    if (!k) {
        return;
    }
    if (k->step == OWN || k->step == OWNER) {
        api_fail(call, API_E_BAD_STATE, k->name, NULL, "VM '%s' is here already", k->name);
        return;
    }
    hold_call(k, call);
    drop(k, API_E_CANCELLED, "its source called it off");
}

static void on_row_gone(void *arg, const struct err *e)
{
    struct migrate_in *k = arg;
    struct api_error x = API_ERROR_INIT;
    if (e) {
        api_error_set(&x, API_E_STORE_ERROR, k->name, NULL, "%s", e->msg);
    }
    tell(k, NULL, e ? &x : NULL);
    in_free(k);
}

void api_handle_migrate_finish(struct api_call *call, struct api_migrate_finish_in *in)
{
    struct migrate_in *k = call_ticket(call, in->ticket);
    struct vm *vm = k ? vm_of(k) : NULL;
    if (!k) {
        return;
    }
    if (k->step != OWNER) {
        api_fail(call, API_E_BAD_STATE, k->name, NULL, "it is not here");
        return;
    }
    struct change *c = change_new(k->d);
    if (k->watching && vm && vm->run) {
        run_on_end_cancel(vm->run, k);
        k->watching = false;
    }
    hold_call(k, call);
    migrate_row_del(c, k->uuid, "in");
    change_commit(c, on_row_gone, k);
}

/* ---- after a restart ---- */

static void on_known(void *arg, struct json_object *result, const struct api_error *x)
{
    struct vm *vm = arg;
    const char *state = x ? NULL : api_json_get_str(result, "state");
    list_for_each (it, &vm->d->migrate_ins) {
        struct migrate_in *k = list_entry(it, struct migrate_in, link);
        if (k->vm != vm->id || k->step != RECEIVE) {
            continue;
        }
        if (state && strcmp(state, "received") == 0) {
            k->step = RECEIVED;
            log_warn("daemon",
                     "VM '%s' waits for its source's word: 'vmctl migrate resolve' says "
                     "whose it is when that does not come",
                     k->name);
            tell(k, "migrate.complete", NULL);
        } else {
            drop(k, API_E_CANCELLED, "vmd ended while it came");
        }
        return;
    }
}

static void forget_row(struct migrate_in *k)
{
    struct change *c = change_new(k->d);
    k->step = DROP;
    place_undo(k->place, c);
    migrate_row_del(c, k->uuid, "in");
    change_commit(c, on_row_gone, k);
}

void migrate_in_load(struct vmd *d, const struct migrate_row *row)
{
    struct vm *vm = vm_find(d, row->uuid, true);
    struct migrate_in *k = xnew(struct migrate_in);
    *k = (struct migrate_in){ .d = d, .paused = row->paused, .transient = row->transient };
    in_init(k);
    k->uuid = xstrdup(row->uuid);
    k->name = xstrdup(vm ? vm->config.name : row->uuid);
    k->user = xstrdup(row->user);
    k->vm = vm ? vm->id : 0;
    str_copy(k->hash, sizeof(k->hash), row->ticket);
    k->timer = loop_timer_new(d->loop, on_timer, k);
    list_append(&d->migrate_ins, &k->link);
    if (strcmp(row->state, "owner") != 0) {
        k->place = place_of_files(d, row->files, row->n_files, row->mark);
    }
    if (!vm) {
        forget_row(k);
        return;
    }
    if (vm->run) {
        k->watching = true;
        run_on_end(vm->run, on_vm_end, k);
    }
    if (strcmp(row->state, "owner") == 0) {
        k->step = OWNER;
        if (vm->run && vm->reason && vm->state == API_VM_STATE_PAUSED && !k->paused &&
            strcmp(vm->reason, "incoming") == 0) {
            run_call(vm->run, "emu.resume", ASK_NS, on_resumed, vm);
        }
        return;
    }
    k->step = RECEIVE;
    take_turn(k, vm);
    if (!vm->run || !run_call(vm->run, "emu.migrate_status", ASK_NS, on_known, vm)) {
        drop(k, API_E_CANCELLED, "vmd ended while it came");
    }
}

void migrate_ins_end(struct vmd *d)
{
    while (!list_empty(&d->migrate_ins)) {
        in_free(list_entry(d->migrate_ins.next, struct migrate_in, link));
    }
}

/* ---- looking, resolving ---- */

void migrate_ins_each(struct vmd *d, void (*fn)(void *arg, const struct api_migration *m),
                      void *arg)
{
    list_for_each (it, &d->migrate_ins) {
        struct migrate_in *k = list_entry(it, struct migrate_in, link);
        const struct api_migration m = {
            .vm = k->name,
            .uuid = k->uuid,
            .incoming = true,
            .peer = k->user,
            .state = k->step < RECEIVE    ? API_MIGRATION_STATE_PREPARING
                     : k->step == RECEIVE ? API_MIGRATION_STATE_COPYING
                     : k->step < OWNER    ? API_MIGRATION_STATE_RECEIVED
                                          : API_MIGRATION_STATE_OWNER
        };
        if (k->step < OWNER) {
            fn(arg, &m);
        }
    }
}

bool migrate_in_resolve(struct vm *vm, struct api_call *call, bool here)
{
    list_for_each (it, &vm->d->migrate_ins) {
        struct migrate_in *k = list_entry(it, struct migrate_in, link);
        if (k->vm != vm->id || k->step != RECEIVED) {
            continue;
        }
        hold_call(k, call);
        if (here) {
            own(k);
        } else {
            drop(k, API_E_CANCELLED, "somebody said that it is at its source");
        }
        return true;
    }
    return false;
}
