/* SPDX-License-Identifier: Apache-2.0 */
/* Domains that are saved to files, and what these files say of them. A state goes by way of the managed one: whatever fails on the way, it is in one place. */
#include "daemon/daemon.h"
#include "daemon/libvirt/call.h"
#include "daemon/libvirt/jobs.h"
#include "daemon/libvirt/parts.h"
#include "daemon/libvirt/procs.h"
#include "daemon/registry.h"
#include "daemon/xml/xml.h"

#include <string.h>

/* virDomainSaveRestoreFlags. The cache is not the caller's to choose. */
enum { BYPASS_CACHE = 1, RUNNING = 2, PAUSED = 4, KNOWN = 7 };

/* The document of the argument, if there is one: into the arguments, as "config". False: the call has failed. */
static bool read_document(struct lv_call *c)
{
    const char *text = lv_str(c, "dxml");
    struct json_object *config = text ? lv_read_xml(c, &xml_domain, text) : NULL;

    api_json_set(c->args, "config", config);
    return !text || config;
}

static bool flags_known(struct lv_call *c)
{
    int64_t flags = lv_int(c, "flags");

    if ((flags & ~KNOWN) || (flags & (RUNNING | PAUSED)) == (RUNNING | PAUSED)) {
        lv_fail(c, LV_E_ARGUMENT_UNSUPPORTED, "a domain goes on running or paused: flags %lld",
                (long long)flags);
        return false;
    }
    return true;
}

/* --- to a file ---------------------------------------------------------------------------------------- */

static void on_ended(struct lv_call *c, struct json_object *job)
{
    struct json_object *params = lv_vm(c), *config = api_json_get(c->args, "config");
    int64_t flags = lv_int(c, "flags");

    (void)job;
    api_json_set_str(params, "file", lv_str(c, "to"));
    api_json_set_bool(params, "paused",
                      (flags & PAUSED) ||
                          (!(flags & RUNNING) && api_json_get_bool(c->kept, "paused", false)));
    if (config) {
        api_json_set(params, "config", json_object_get(config));
    }
    c->undo = "vm.start"; /* it goes on where it was */
    lv_ask(c, "domain", "vm.state_export", params, lv_done);
}

static void on_job(struct lv_call *c, struct json_object *result)
{
    lv_wait(c, result, on_ended);
}

void lv_do_domain_save(struct lv_call *c)
{
    const struct vm *vm = lv_the_vm(c);

    if (!flags_known(c) || !read_document(c)) {
        return;
    }
    c->kept = lv_vm(c);
    api_json_set_bool(c->kept, "paused", vm && vm->state == API_VM_STATE_PAUSED);
    lv_ask(c, "domain", "vm.save", lv_vm(c), on_job);
}

/* --- from a file -------------------------------------------------------------------------------------- */

static void on_taken(struct lv_call *c, struct json_object *info)
{
    struct json_object *params = lv_object("vm", api_json_get_str(info, "uuid"));

    c->undo = NULL; /* from here on the state is the VM's */
    api_json_set_bool(params, "paused", api_json_get_bool(c->args, "paused", false));
    lv_ask(c, "domain", "vm.start", params, lv_done);
}

static void on_defined(struct lv_call *c, struct json_object *info)
{
    struct json_object *params = lv_object("vm", api_json_get_str(c->kept, "vm"));

    (void)info;
    api_json_set_str(params, "file", lv_str(c, "from"));
    lv_ask(c, "domain", "vm.state_import", params, on_taken);
}

static void on_new(struct lv_call *c, struct json_object *info)
{
    api_json_set_bool(c->kept, "force", true);
    c->undo = "vm.delete";
    on_defined(c, info);
}

static void on_shown(struct lv_call *c, struct json_object *result)
{
    struct json_object *given = api_json_get(c->args, "config"),
                       *config = given ? given : api_json_get(result, "config"), *params;
    int64_t flags = lv_int(c, "flags");
    const char *uuid = api_json_get_str(api_json_get(result, "config"), "uuid"),
               *said = api_json_get_str(config, "uuid");
    const struct vm *vm = uuid ? vm_find(c->d, uuid, false) : NULL;

    if (!uuid || !said || strcmp(uuid, said) != 0) {
        lv_fail(c, LV_E_INVALID_ARG, "the document is not of domain %s, whose state '%s' holds",
                uuid ? uuid : "?", lv_str(c, "from"));
        return;
    }
    if (vm && (vm->run || vm->saved)) {
        lv_fail(c, LV_E_OPERATION_INVALID, "domain '%s' %s", vm->config.name,
                vm->run ? "is already active"
                        : "has a managed save image, which would be lost");
        return;
    }
    api_json_set_bool(c->args, "paused",
                      (flags & PAUSED) ||
                          (!(flags & RUNNING) && api_json_get_bool(result, "paused", false)));
    c->kept = lv_object("vm", uuid);
    if (vm) {
        params = lv_object("vm", uuid);
        api_json_set(params, "set", lv_patch(vm, config));
        lv_ask(c, "domain", "vm.set", params, on_defined);
    } else {
        params = json_object_new_object();
        api_json_set(params, "config", json_object_get(config));
        lv_ask(c, "domain", "vm.define", params, on_new);
    }
}

static void show(struct lv_call *c, const char *file,
                 void (*then)(struct lv_call *c, struct json_object *result))
{
    lv_ask(c, NULL, "vm.state_show", lv_object("file", file), then);
}

void lv_do_domain_restore(struct lv_call *c)
{
    if (flags_known(c) && read_document(c)) {
        show(c, lv_str(c, "from"), on_shown);
    }
}

/* --- looking, changing -------------------------------------------------------------------------------- */

static void on_image(struct lv_call *c, struct json_object *result)
{
    struct json_object *config = api_json_get(result, "config");

    xml_drop_found_files(config);
    AUTO_FREE char *text = xml_print(&xml_domain, config);
    lv_reply(c, lv_object("xml", text));
}

void lv_do_save_image_xml(struct lv_call *c)
{
    show(c, lv_str(c, "file"), on_image);
}

void lv_do_save_image_define(struct lv_call *c)
{
    int64_t flags = lv_int(c, "flags");
    struct json_object *params;

    if (!flags_known(c) || !read_document(c)) {
        return;
    }
    params = lv_object("file", lv_str(c, "file"));
    api_json_set(params, "config", json_object_get(api_json_get(c->args, "config")));
    if (flags & (RUNNING | PAUSED)) {
        api_json_set_bool(params, "paused", flags & PAUSED);
    }
    lv_ask(c, NULL, "vm.state_edit", params, lv_done);
}

/* --- the managed one ---------------------------------------------------------------------------------- */

/* It goes on with the definition that its domain has by then, so that one is changed. */
static void on_managed(struct lv_call *c, struct json_object *info)
{
    struct json_object *config = api_json_get(c->args, "config"), *params;
    const char *uuid = api_json_get_str(config, "uuid"),
               *name = api_json_get_str(config, "name");
    const struct vm *vm = lv_the_vm(c);

    if (!vm || vm->run || !api_json_get_bool(info, "saved", false)) {
        lv_fail(c, LV_E_OPERATION_INVALID, "domain '%s' has no managed save image",
                api_json_get_str(info, "name"));
        return;
    }
    if (!config) {
        lv_reply(c, NULL);
        return;
    }
    if (!uuid || strcmp(uuid, api_json_get_str(info, "uuid")) != 0 || !name ||
        strcmp(name, vm->config.name) != 0) {
        lv_fail(c, LV_E_INVALID_ARG,
                "the document is not of domain '%s': its name and UUID stay as they are",
                vm->config.name);
        return;
    }
    params = lv_vm(c);
    api_json_set(params, "set", lv_patch(vm, config));
    lv_ask(c, "domain", "vm.set", params, lv_done);
}

void lv_do_domain_managed_save_define(struct lv_call *c)
{
    if (lv_int(c, "flags") & ~BYPASS_CACHE) {
        lv_fail(c, LV_E_ARGUMENT_UNSUPPORTED,
                "a managed state goes on as its start says: 'virsh start --paused'");
        return;
    }
    if (read_document(c)) {
        lv_ask(c, "domain", "vm.get", lv_vm(c), on_managed);
    }
}
