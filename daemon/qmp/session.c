/* SPDX-License-Identifier: Apache-2.0 */
/*
 * QMP clients. In-band commands of a client run one after the other, those out of band at once. Owns
 * sessions, their waiting commands and the descriptors they passed. Loop thread.
 */
#include "daemon/qmp/session.h"

#include "api-schema/json/json.h"
#include "api-schema/qmp/qmp.h"
#include "api-schema/rpc/conn.h"
#include "daemon/daemon.h"
#include "daemon/qmp/qmp.h"
#include "daemon/registry.h"
#include "engine/base/buf.h"
#include "engine/base/fd.h"
#include "engine/base/mem.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* A command on its way; outlives its session. */
struct qmp_order {
    struct list link;
    struct qmp_session *q; /* NULL: the client has gone */
    struct json_object *msg;
    struct json_object *id;
    bool has_id, oob;
    char *garbage; /* no JSON: why not; answered in its turn */
};

static void run_queue(struct qmp_session *q);

/* --- sending ------------------------------------------------------------------------------------ */

void qmp_session_send(struct qmp_session *q, struct json_object *o)
{
    AUTO_BUF line = BUF_INIT;

    buf_printf(&line, "%s\r", api_json_text(o)); /* and \n: clients look for both */
    rpc_conn_send_text(q->s->conn, line.data, line.len);
}

static bool comes_after(const char *name)
{
    /* QEMU answers these before their events: it only takes a note and acts later. */
    static const char *const late[] = { "system_powerdown", "system_reset" };

    for (unsigned i = 0; i < ARRAY_LEN(late); i++) {
        if (strcmp(late[i], name) == 0) {
            return true;
        }
    }
    return false;
}

void qmp_session_event(struct qmp_session *q, int64_t vm, struct json_object *event)
{
    if (!q->ready || q->vm != vm) {
        return;
    }
    if (q->kept) {
        json_object_array_add(q->kept, json_object_get(event));
    } else {
        qmp_session_send(q, event);
    }
}

static void send_kept(struct qmp_session *q)
{
    struct json_object *kept = take_ptr(q->kept);

    for (size_t i = 0; kept && i < json_object_array_length(kept); i++) {
        qmp_session_send(q, json_object_array_get_idx(kept, i));
    }
    json_object_put(kept);
}

static void answer(struct qmp_order *o, const char *what, struct json_object *take_value)
{
    AUTO_JSON reply = json_object_new_object();

    api_json_set(reply, what, take_value);
    if (o->has_id) {
        api_json_set(reply, "id", json_object_get(o->id));
    }
    if (o->q) {
        qmp_session_send(o->q, reply);
    }
}

static void fail(struct qmp_order *o, const char *class, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

static void fail(struct qmp_order *o, const char *class, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    answer(o, "error", qmp_error_object(class, fmt, ap));
    va_end(ap);
}

/* --- orders --------------------------------------------------------------------------------------- */

static void order_free(struct qmp_order *o)
{
    json_object_put(o->msg);
    json_object_put(o->id);
    list_remove(&o->link);
    free(o->garbage);
    free(o);
}

/* It was answered: frees it, goes on with the next. */
static void order_end(struct qmp_order *o)
{
    struct qmp_session *q = o->q;
    bool oob = o->oob;

    order_free(o);
    if (!q) {
        return;
    }
    if (oob) {
        q->n_oob--;
    } else {
        q->now = NULL;
        send_kept(q);
        run_queue(q);
    }
    if (q->held && q->n_queue < QMP_QUEUE) {
        q->held = false;
        rpc_conn_release(q->s->conn);
    }
    rpc_session_idle(q->s);
}

/* The answer of vm.qmp. */
static void on_answer(void *arg, struct json_object *result, const struct api_error *x)
{
    struct qmp_order *o = arg;
    struct json_object *error = api_json_get(result, "error");

    if (x) {
        fail(o, "GenericError", "%s", x->message);
    } else if (error) {
        answer(o, "error", json_object_get(error));
    } else {
        answer(o, "return", json_object_get(api_json_get(result, "result")));
    }
    order_end(o);
}

/* --- commands about the connection ---------------------------------------------------------------- */

static struct json_object *version_of(void)
{
    struct json_object *o = json_object_new_object(), *v = json_object_new_object();

    api_json_set_int(v, "micro", qmp_version[2]);
    api_json_set_int(v, "minor", qmp_version[1]);
    api_json_set_int(v, "major", qmp_version[0]);
    api_json_set(o, "qemu", v);
    api_json_set_str(o, "package", "vmd " PACKAGE_VERSION);
    return o;
}

char *qmp_greeting(const char *capabilities)
{
    AUTO_JSON o = json_object_new_object();

    api_json_set(o, "version", version_of());
    api_json_set(o, "capabilities", json_tokener_parse(capabilities ? capabilities : "[]"));
    return xstrdup(api_json_text(o));
}

static void negotiate(struct qmp_order *o, struct json_object *args)
{
    struct qmp_session *q = o->q;
    struct json_object *wanted = api_json_get(args, "enable");
    bool oob = wanted && json_object_array_length(wanted) > 0;

    if (oob && !q->bound) {
        fail(o, "GenericError", "Capability oob is not available");
        return;
    }
    q->ready = true;
    q->oob = oob;
    answer(o, "return", json_object_new_object());
}

static void list_commands(struct qmp_order *o)
{
    struct json_object *list = json_object_new_array();

    for (size_t i = 0; i < QMP_N_COMMANDS; i++) {
        struct json_object *one = json_object_new_object();
        if (!o->q->bound || strcmp(qmp_commands[i].name, "vmd-select") != 0) {
            api_json_set_str(one, "name", qmp_commands[i].name);
            json_object_array_add(list, one);
        } else {
            json_object_put(one);
        }
    }
    answer(o, "return", list);
}

static void on_selected(void *arg, struct json_object *result, const struct api_error *x)
{
    struct qmp_order *o = arg;
    struct vm *vm = NULL;

    if (o->q && !x) {
        vm = vm_find(o->q->d, api_json_get_str(result, "uuid"), false);
    }
    if (vm) {
        o->q->vm = vm->id;
        answer(o, "return", json_object_new_object());
    } else {
        fail(o, "DeviceNotFound", "%s", x ? x->message : "the VM has gone");
    }
    order_end(o);
}

static struct qmp_fd *find_fd(struct qmp_session *q, const char *name)
{
    list_for_each (it, &q->fds) {
        struct qmp_fd *f = list_entry(it, struct qmp_fd, link);
        if (strcmp(f->name, name) == 0) {
            return f;
        }
    }
    return NULL;
}

static void drop_fd(struct qmp_session *q, struct qmp_fd *f)
{
    list_remove(&f->link);
    fd_autoclose(&f->fd);
    free(f->name);
    free(f);
    q->n_fds--;
}

static void get_fd(struct qmp_order *o, const char *name)
{
    struct qmp_session *q = o->q;
    int fd = rpc_conn_passed_fd(q->s->conn);
    struct qmp_fd *f = find_fd(q, name);

    if (fd < 0) {
        fail(o, "GenericError", "No file descriptor supplied via SCM_RIGHTS");
        return;
    }
    if ((name[0] >= '0' && name[0] <= '9') || (!f && q->n_fds >= QMP_FDS)) {
        close(fd);
        fail(o, "GenericError",
             q->n_fds >= QMP_FDS
                 ? "This connection keeps too many descriptors"
                 : "Parameter 'fdname' expects a name not starting with a digit");
        return;
    }
    if (f) {
        drop_fd(q, f);
    }
    f = xnew(struct qmp_fd);
    f->name = xstrdup(name);
    f->fd = fd;
    list_append(&q->fds, &f->link);
    q->n_fds++;
    answer(o, "return", json_object_new_object());
}

static void close_fd(struct qmp_order *o, const char *name)
{
    struct qmp_fd *f = find_fd(o->q, name);

    if (!f) {
        fail(o, "GenericError", "File descriptor named '%s' not found", name);
        return;
    }
    drop_fd(o->q, f);
    answer(o, "return", json_object_new_object());
}

int qmp_session_take_fd(struct qmp *q, const char *name)
{
    struct qmp_fd *f = q->calling ? find_fd(q->calling, name) : NULL;
    int fd = -1;

    if (f) {
        fd = take_fd(&f->fd);
        drop_fd(q->calling, f);
    }
    return fd;
}

/* False when the answer comes later. */
static bool about_session(struct qmp_order *o, const char *name, struct json_object *args)
{
    if (strcmp(name, "qmp_capabilities") == 0) {
        negotiate(o, args);
    } else if (strcmp(name, "query-commands") == 0) {
        list_commands(o);
    } else if (strcmp(name, "query-qmp-schema") == 0) {
        answer(o, "return", json_tokener_parse(qmp_schema_json));
    } else if (strcmp(name, "query-version") == 0) {
        answer(o, "return", version_of());
    } else if (strcmp(name, "query-yank") == 0) {
        answer(o, "return", json_object_new_array());
    } else if (strcmp(name, "getfd") == 0) {
        get_fd(o, api_json_get_str(args, "fdname"));
    } else if (strcmp(name, "closefd") == 0) {
        close_fd(o, api_json_get_str(args, "fdname"));
    } else { /* vmd-select */
        struct json_object *params = json_object_new_object();
        api_json_set_str(params, "vm", api_json_get_str(args, "vm"));
        rpc_session_call(o->q->s, "vm.get", params, on_selected, o);
        return false;
    }
    return true;
}

/* --- running ---------------------------------------------------------------------------------------- */

static bool allowed(struct qmp_order *o, const struct qmp_request *r)
{
    bool first = strcmp(r->name, "qmp_capabilities") == 0;

    if (!o->q->ready && !first) {
        fail(o, "CommandNotFound",
             "Expecting capabilities negotiation with 'qmp_capabilities'");
    } else if (o->q->ready && first) {
        fail(o, "CommandNotFound",
             "Capabilities negotiation is already complete, command ignored");
    } else {
        return true;
    }
    return false;
}

static const struct qmp_command *find_command(struct qmp_order *o, const struct qmp_request *r)
{
    const struct qmp_command *c = qmp_find(r->name);

    if (!c || (o->q->bound && strcmp(r->name, "vmd-select") == 0)) {
        fail(o, "CommandNotFound", "The command %.100s has not been found", r->name);
        return NULL;
    }
    if (o->q->s->role < c->role) {
        fail(o, "GenericError", "%s needs role %s", c->name, api_role_names[c->role]);
        return NULL;
    }
    if (r->oob && !c->oob) {
        fail(o, "GenericError", "The command %s does not support OOB", r->name);
        return NULL;
    }
    return c;
}

static void call_vm_qmp(struct qmp_order *o, const struct qmp_request *r)
{
    struct vm *vm = vm_by_id(o->q->d, o->q->vm);
    struct json_object *params;

    if (!vm || vm->pending) {
        fail(o, "GenericError", "No VM is selected: vmd-select names one");
        order_end(o);
        return;
    }
    if (comes_after(r->name)) {
        o->q->kept = json_object_new_array();
    }
    params = json_object_new_object();
    api_json_set_str(params, "vm", vm->config.uuid);
    api_json_set_str(params, "execute", r->name);
    if (r->args) {
        api_json_set(params, "arguments", json_object_get(r->args));
    }
    struct qmp *all = o->q->d->qmp;
    all->calling = o->q;
    rpc_session_call(o->q->s, "vm.qmp", params, on_answer, o);
    all->calling = NULL;
}

static void run(struct qmp_order *o)
{
    const struct qmp_command *c;
    struct qmp_request r;
    char desc[QMP_DESC_MAX];

    if (o->garbage || !qmp_parse(o->msg, o->q->oob, &r, desc)) {
        fail(o, "GenericError", "%s%s", o->garbage ? "JSON parse error, " : "",
             o->garbage ? o->garbage : desc);
        order_end(o);
        return;
    }
    c = allowed(o, &r) ? find_command(o, &r) : NULL;
    if (!c) {
        order_end(o);
    } else if (!qmp_check(c, r.args, desc)) {
        fail(o, "GenericError", "%s", desc);
        order_end(o);
    } else if (!c->session) {
        call_vm_qmp(o, &r);
    } else if (about_session(o, r.name, r.args)) {
        order_end(o);
    }
}

static void run_queue(struct qmp_session *q)
{
    if (q->at_it) {
        return; /* the loop below goes on */
    }
    q->at_it = true;
    while (!q->now && !list_empty(&q->queue)) {
        struct qmp_order *o = list_entry(q->queue.next, struct qmp_order, link);
        list_remove(&o->link);
        list_append(&q->begun, &o->link);
        q->n_queue--;
        q->now = o;
        run(o);
    }
    q->at_it = false;
}

static void enqueue(struct qmp_session *q, struct qmp_order *o)
{
    list_append(&q->queue, &o->link);
    q->n_queue++;
    run_queue(q);
    if (!q->held && q->n_queue >= QMP_QUEUE) {
        q->held = true;
        rpc_conn_hold(q->s->conn);
    }
}

static void on_message(void *state, struct json_object *msg)
{
    struct qmp_session *q = state;
    struct qmp_order *o = xnew(struct qmp_order);
    struct qmp_request r;
    char desc[QMP_DESC_MAX];

    o->q = q;
    o->msg = json_object_get(msg);
    list_init(&o->link);
    o->oob = qmp_parse(msg, q->oob, &r, desc) && r.oob;
    o->has_id = r.has_id;
    o->id = json_object_get(r.id);
    if (o->oob) {
        list_append(&q->begun, &o->link);
        q->n_oob++;
        run(o);
    } else {
        enqueue(q, o);
    }
}

static void on_garbage(void *state, const struct err *why)
{
    struct qmp_order *o = xnew(struct qmp_order);

    o->q = state;
    o->garbage = xstrdup(why->msg);
    list_init(&o->link);
    enqueue(state, o);
}

/* --- sessions ----------------------------------------------------------------------------------------- */

static bool is_idle(void *state)
{
    struct qmp_session *q = state;

    return !q->now && q->n_queue == 0 && q->n_oob == 0;
}

static struct qmp_session *session_new(struct vmd *d, struct rpc_session *s)
{
    struct qmp_session *q = xnew(struct qmp_session);

    q->d = d;
    q->s = s;
    list_init(&q->queue);
    list_init(&q->begun);
    list_init(&q->fds);
    list_append(&d->qmp->sessions, &q->link);
    return q;
}

static void on_end(void *state)
{
    struct qmp_session *q = state;

    while (!list_empty(&q->queue)) {
        order_free(list_entry(q->queue.next, struct qmp_order, link));
    }
    while (!list_empty(&q->begun)) {
        struct qmp_order *o = list_entry(q->begun.next, struct qmp_order, link);
        list_remove(&o->link); /* its answer comes and is dropped */
        o->q = NULL;
    }
    while (!list_empty(&q->fds)) {
        drop_fd(q, list_entry(q->fds.next, struct qmp_fd, link));
    }
    json_object_put(q->kept);
    list_remove(&q->link);
    free(q);
}

static bool claims(struct json_object *first)
{
    return json_object_is_type(first, json_type_object) &&
           json_object_object_get_ex(first, "execute", NULL);
}

static void *begin(void *arg, struct rpc_session *s)
{
    return session_new(arg, s);
}

static void *begin_vm(void *arg, struct rpc_session *s)
{
    struct vm *vm = arg;
    struct qmp_session *q = session_new(vm->d, s);
    AUTO_FREE char *greeting = qmp_greeting("[\"oob\"]");
    AUTO_FREE char *line = xasprintf("{\"QMP\":%s}\r", greeting);

    q->bound = true;
    q->vm = vm->id;
    rpc_conn_send_text(s->conn, line, strlen(line));
    return q;
}

const struct rpc_dialect qmp_dialect = {
    .claims = claims,
    .begin = begin,
    .message = on_message,
    .garbage = on_garbage,
    .idle = is_idle,
    .end = on_end,
};

const struct rpc_dialect qmp_vm_dialect = {
    .begin = begin_vm,
    .message = on_message,
    .garbage = on_garbage,
    .idle = is_idle,
    .end = on_end,
};
