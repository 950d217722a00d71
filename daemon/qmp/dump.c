/* SPDX-License-Identifier: Apache-2.0 */
/*
 * QMP commands about jobs: dumps of memory (jobs of the kind vm.dump, which QMP has commands of their own for), and those that QMP
 * lists as jobs. What changes something is the method of the API that does the same. Loop thread.
 */
#include "api-schema/rpc/call.h"
#include "daemon/vm/dump.h"
#include "daemon/jobs.h"
#include "daemon/qmp/cmd.h"
#include "daemon/qmp/session.h"
#include "engine/base/fd.h"
#include "engine/base/mem.h"
#include "engine/base/str.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* --- dumps ---------------------------------------------------------------------------------------------- */

static struct json_object *dump_result(const struct dump_seen *seen)
{
    static const char *const words[] = { [API_EMU_DUMP_STATE_NONE] = "none",
                                         [API_EMU_DUMP_STATE_ACTIVE] = "active",
                                         [API_EMU_DUMP_STATE_COMPLETED] = "completed",
                                         [API_EMU_DUMP_STATE_FAILED] = "failed" };
    struct json_object *o = json_object_new_object();

    api_json_set_str(o, "status", words[seen->state]);
    api_json_set_int(o, "completed", seen->completed);
    api_json_set_int(o, "total", seen->total);
    return o;
}

void qmp_do_query_dump(struct qmp_cmd *c)
{
    qmp_return(c, dump_result(&c->vm->dump));
}

struct json_object *qmp_dump_completed(const struct vm *vm, const struct api_job *job)
{
    struct json_object *o = json_object_new_object();

    api_json_set(o, "result", dump_result(&vm->dump));
    if (job->error) {
        api_json_set_str(o, "error", job->error->message);
    }
    return o;
}

void qmp_do_query_dump_guest_memory_capability(struct qmp_cmd *c)
{
    struct json_object *o = json_object_new_object(), *formats = json_object_new_array();

    json_object_array_add(formats, json_object_new_string("elf"));
    api_json_set(o, "formats", formats);
    qmp_return(c, o);
}

static void on_dumped(void *arg, struct json_object *result, const struct api_error *x)
{
    struct qmp_cmd *c = arg;
    struct json_object *error = x ? NULL : api_json_get(result, "error");

    if (x || error) {
        const char *why = x ? x->message : api_json_get_str(error, "message");
        qmp_error(c, "GenericError", "%s", why ? why : "the dump failed");
    } else {
        qmp_return_nothing(c);
    }
}

static void on_begun(void *arg, struct json_object *result, const struct api_error *x)
{
    struct qmp_cmd *c = arg;

    if (x) {
        qmp_error(c, "GenericError", "%s", x->message);
    } else if (api_json_get_bool(c->args, "detach", false)) {
        qmp_return_nothing(c);
    } else {
        struct json_object *params = json_object_new_object();
        api_json_set_int(params, "job", api_json_get_int(result, "job", 0));
        api_call_nested(c->call, "job.wait", params, on_dumped, c);
    }
}

/* Answers the command when the arguments make no dump. */
static bool dump_refused(struct qmp_cmd *c)
{
    const char *format = qmp_arg(c, "format"), *missing = NULL;

    if (api_json_get_bool(c->args, "paging", false)) {
        qmp_error(c, "GenericError", "Obtaining memory mappings is unsupported on this CPU.");
    } else if (format && strcmp(format, "elf") != 0) {
        qmp_error(c, "GenericError",
                  "this feature or command is not currently supported: format '%s'", format);
    } else if (!api_json_get(c->args, "begin") != !api_json_get(c->args, "length")) {
        missing = api_json_get(c->args, "begin") ? "length" : "begin";
        qmp_error(c, "GenericError", "Parameter '%s' is missing", missing);
    } else if (api_json_get(c->args, "length") && api_json_get_int(c->args, "length", 0) <= 0) {
        qmp_error(c, "GenericError", "Parameter 'length' expects a value greater than 0");
    } else if (api_json_get_int(c->args, "begin", 0) < 0) {
        qmp_error(c, "GenericError", "Parameter 'begin' expects an address");
    } else {
        return false;
    }
    return true;
}

/* The file, or a descriptor that getfd took and that the dump's handler will find with the VM. */
static const char *dump_target(struct qmp_cmd *c)
{
    const char *to = qmp_arg(c, "protocol");
    int fd;

    if (str_starts(to, "file:/")) {
        return to + strlen("file:");
    }
    if (!str_starts(to, "fd:")) {
        qmp_error(c, "GenericError", "Invalid parameter 'protocol'");
        return NULL;
    }
    fd = qmp_session_take_fd(c->d->qmp, to + strlen("fd:"));
    if (fd < 0) {
        qmp_error(c, "GenericError", "File descriptor named '%s' has not been found",
                  to + strlen("fd:"));
        return NULL;
    }
    fd_autoclose(&c->vm->dump_fd);
    c->vm->dump_fd = fd;
    return "/dev/fd/given";
}

void qmp_do_dump_guest_memory(struct qmp_cmd *c)
{
    struct json_object *params;
    const char *file = dump_refused(c) ? NULL : dump_target(c);

    if (!file) {
        return;
    }
    params = qmp_vm_param(c);
    api_json_set_str(params, "file", file);
    if (api_json_get(c->args, "begin")) {
        api_json_set_int(params, "begin", api_json_get_int(c->args, "begin", 0));
        api_json_set_int(params, "length", api_json_get_int(c->args, "length", 0));
    }
    api_call_nested(c->call, "vm.dump", params, on_begun, c);
}
