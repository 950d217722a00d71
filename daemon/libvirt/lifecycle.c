/* SPDX-License-Identifier: Apache-2.0 */
/* Domains that start, end, are saved and renewed. */
#include "daemon/daemon.h"
#include "daemon/libvirt/call.h"
#include "daemon/libvirt/jobs.h"
#include "daemon/libvirt/parts.h"
#include "daemon/libvirt/procs.h"
#include "daemon/registry.h"
#include "daemon/xml/xml.h"

#include <string.h>

enum {
    /* virDomainCreateFlags */
    START_PAUSED = 1,
    START_AUTODESTROY = 2,
    START_FORCE_BOOT = 8,
    /* virDomainDestroyFlags */
    DESTROY_GRACEFUL = 1,
    /* virDomainShutdownFlags */
    SHUTDOWN_BUTTON = 1,
    SHUTDOWN_AGENT = 2,
};

static void reply_domain(struct lv_call *c, struct json_object *info)
{
    struct json_object *o = json_object_new_object();

    if (c->p->ret[0]) {
        api_json_set(o, "dom", lv_domain_of(c->d, info));
    }
    lv_reply(c, o);
}

static void start(struct lv_call *c, int64_t flags)
{
    struct json_object *params = lv_vm(c);

    if (flags & START_AUTODESTROY) {
        json_object_put(params);
        lv_fail(c, LV_E_ARGUMENT_UNSUPPORTED,
                "a VM does not end with the client that started it");
        return;
    }
    api_json_set_bool(params, "paused", flags & START_PAUSED);
    api_json_set_bool(params, "fresh", flags & START_FORCE_BOOT);
    lv_ask(c, "domain", "vm.start", params, reply_domain);
}

void lv_do_domain_create(struct lv_call *c)
{
    start(c, 0);
}

void lv_do_domain_create_flags(struct lv_call *c)
{
    start(c, lv_int(c, "flags"));
}

/* --- one that goes when it ends -------------------------------------------------------------------- */

static void on_created(struct lv_call *c, struct json_object *job)
{
    (void)job;
    lv_ask(c, "domain", "vm.get", lv_object("vm", api_json_get_str(c->kept, "uuid")),
           reply_domain);
}

static void on_create_job(struct lv_call *c, struct json_object *result)
{
    c->kept = lv_object("uuid", api_json_get_str(result, "uuid"));
    lv_wait(c, result, on_created);
}

void lv_do_domain_create_xml(struct lv_call *c)
{
    struct json_object *definition = lv_read_xml(c, &xml_domain, lv_str(c, "xml_desc")),
                       *params;
    const char *uuid = api_json_get_str(definition, "uuid");

    if (!definition) {
        return;
    }
    if (uuid && vm_find(c->d, uuid, false)) {
        lv_fail(c, LV_E_OPERATION_FAILED, "domain with uuid %s is defined: start it", uuid);
        json_object_put(definition);
        return;
    }
    params = json_object_new_object();
    api_json_set(params, "config", definition);
    api_json_set_bool(params, "transient", true);
    api_json_set_bool(params, "paused", lv_int(c, "flags") & START_PAUSED);
    lv_ask(c, "domain", "vm.create", params, on_create_job);
}

/* --- ends ---------------------------------------------------------------------------------------------- */

void lv_do_domain_destroy(struct lv_call *c)
{
    struct json_object *params = lv_vm(c);

    api_json_set_bool(params, "force", !(lv_int(c, "flags") & DESTROY_GRACEFUL));
    lv_ask(c, "domain", "vm.stop", params, lv_done);
}

void lv_do_domain_shutdown(struct lv_call *c)
{
    struct json_object *params = lv_vm(c);
    int64_t flags = lv_int(c, "flags");

    if (flags & (SHUTDOWN_BUTTON | SHUTDOWN_AGENT)) {
        api_json_set_str(params, "method", flags & SHUTDOWN_AGENT ? "agent" : "button");
    }
    lv_ask(c, "domain", "vm.shutdown", params, lv_done);
}

void lv_do_domain_reboot(struct lv_call *c)
{
    enum { BY_AGENT = 2 };

    if (lv_int(c, "flags") & ~BY_AGENT) {
        lv_fail(c, LV_E_ARGUMENT_UNSUPPORTED,
                "a guest is asked to reboot by its agent alone; 'virsh reset' resets it");
        return;
    }
    lv_ask(c, "domain", "vm.reboot", lv_vm(c), lv_done);
}

void lv_do_domain_reset(struct lv_call *c)
{
    lv_ask(c, "domain", "vm.reset", lv_vm(c), lv_done);
}

/* --- a state that waits for the next start ------------------------------------------------------------ */

static void on_job(struct lv_call *c, struct json_object *result)
{
    lv_wait(c, result, lv_done);
}

void lv_do_domain_managed_save(struct lv_call *c)
{
    lv_ask(c, "domain", "vm.save", lv_vm(c), on_job);
}

static void on_saved(struct lv_call *c, struct json_object *info)
{
    struct json_object *o = json_object_new_object();

    api_json_set_int(o, "result", api_json_get_bool(info, "saved", false));
    lv_reply(c, o);
}

void lv_do_domain_has_managed_save(struct lv_call *c)
{
    lv_ask(c, "domain", "vm.get", lv_vm(c), on_saved);
}

/* --- disks ----------------------------------------------------------------------------------------------- */

void lv_do_domain_block_resize(struct lv_call *c)
{
    enum { BYTES = 1 };
    struct json_object *params = lv_vm(c);
    int64_t size = lv_int(c, "size");

    api_json_set_str(params, "disk", lv_str(c, "disk"));
    api_json_set_int(params, "size", lv_int(c, "flags") & BYTES ? size : lv_bytes(size));
    lv_ask(c, "domain", "vm.disk_resize", params, lv_done);
}

/* --- QMP --------------------------------------------------------------------------------------------------- */

static void on_monitor(struct lv_call *c, struct json_object *result)
{
    struct json_object *o = json_object_new_object(), *error = api_json_get(result, "error");

    if (error) {
        api_json_set(o, "error", json_object_get(error));
    } else {
        api_json_set(o, "return", json_object_get(api_json_get(result, "result")));
    }
    lv_reply(c, lv_object("result", api_json_text(o)));
    json_object_put(o);
}

void lv_do_monitor_command(struct lv_call *c)
{
    enum { HMP = 1 };
    const char *text = lv_str(c, "cmd");
    struct json_object *params = lv_vm(c);
    AUTO_JSON command = NULL;

    if (lv_int(c, "flags") & HMP) {
        struct json_object *args = lv_object("command-line", text);
        api_json_set_str(params, "execute", "human-monitor-command");
        api_json_set(params, "arguments", args);
    } else if (api_json_parse(text, strlen(text), &command, NULL) == 0 &&
               api_json_get_str(command, "execute")) {
        api_json_set_str(params, "execute", api_json_get_str(command, "execute"));
        if (api_json_get(command, "arguments")) {
            api_json_set(params, "arguments",
                         json_object_get(api_json_get(command, "arguments")));
        }
    } else {
        json_object_put(params);
        lv_fail(c, LV_E_INVALID_ARG, "a command is {\"execute\": NAME, \"arguments\": {...}}");
        return;
    }
    lv_ask(c, "domain", "vm.qmp", params, on_monitor);
}
