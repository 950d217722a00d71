/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Handlers of xml.*: libvirt-compatible XML in and out. Loop thread.
 */
#include "api-schema/gen/methods.h"
#include "api-schema/json/codec.h"
#include "api-schema/json/json.h"
#include "api-schema/net/nicargs.h"
#include "daemon/calls.h"
#include "daemon/registry.h"
#include "daemon/vm/media.h"
#include "daemon/vm/vmdefine.h"
#include "daemon/xml/xml.h"
#include "engine/base/mem.h"

#include <string.h>

static void add_remarks(struct json_object *o, const char *name, const struct xml_remark *list,
                        size_t n)
{
    struct json_object *a = json_object_new_array();

    for (size_t i = 0; i < n; i++) {
        struct json_object *r = json_object_new_object();
        api_json_set_int(r, "line", list[i].line);
        api_json_set_str(r, "path", list[i].path);
        api_json_set_str(r, "text", list[i].text);
        json_object_array_add(a, r);
    }
    api_json_set(o, name, a);
}

void api_handle_xml_check(struct api_call *call, struct api_xml_check_in *in)
{
    const struct xml_kind *kind = in->has_kind ? xml_kind_find(api_xml_kind_name(in->kind))
                                               : NULL;
    struct json_object *o = json_object_new_object();
    struct xml_result r;

    xml_parse(kind, in->xml, strlen(in->xml), &r);
    if (r.kind) {
        api_json_set_str(o, "kind", r.kind->name);
    }
    api_json_set_bool(o, "ok", r.definition != NULL);
    if (r.definition) {
        AUTO_FREE char *text = xml_print(r.kind, r.definition);
        api_json_set(o, "definition", json_object_get(r.definition));
        api_json_set_str(o, "canonical", text);
    }
    add_remarks(o, "problems", r.problems, r.n_problems);
    add_remarks(o, "notes", r.notes, r.n_notes);
    xml_result_done(&r);
    api_reply_json(call, o);
}

void api_handle_xml_define(struct api_call *call, struct api_xml_define_in *in)
{
    struct api_vm_config config;
    struct api_error x = API_ERROR_INIT;
    struct xml_result r;
    int rc = -1;

    xml_parse(&xml_domain, in->xml, strlen(in->xml), &r);
    if (r.definition) {
        rc = api_decode(&api_type_vm_config, r.definition, API_STRICT, "config", &config, &x);
    } else {
        xml_result_error(&r, &x);
    }
    xml_result_done(&r);
    if (rc < 0) {
        api_reply_error(call, &x);
        return;
    }
    free(config.project);
    config.project = xstrdup(in->project);
    vm_define(call, &config);
    api_release(&api_type_vm_config, &config);
}

/* Of a VM that runs: as they are now. */
static void say_trays(const struct vm *vm, struct json_object *disks)
{
    for (size_t i = 0; vm->run && i < vm->config.n_disks; i++) {
        struct json_object *disk = json_object_array_get_idx(disks, i);

        if (media_tray_open(vm, vm->config.disks[i].name)) {
            api_json_set_bool(disk, "tray_open", true);
        } else {
            json_object_object_del(disk, "tray_open");
        }
    }
}

/* Addresses that were made for cards, too: tools take it that every card has one. */
static void say_addresses(const struct vm *vm, struct json_object *nics)
{
    for (size_t i = 0; i < vm->config.n_nics; i++) {
        char mac[18];

        nic_mac(&vm->config, i, mac);
        api_json_set_str(json_object_array_get_idx(nics, i), "mac", mac);
    }
}

void api_handle_xml_get(struct api_call *call, struct api_xml_get_in *in)
{
    struct vm *vm = call_vm(call, in->vm);

    if (vm) {
        AUTO_JSON o = api_encode(&api_type_vm_config, &vm->config);
        xml_drop_found_files(o);
        say_trays(vm, api_json_get(o, "disks"));
        say_addresses(vm, api_json_get(o, "nics"));
        AUTO_FREE char *text = xml_print(&xml_domain, o);
        api_reply_xml_get(call, &(struct api_xml_get_out){ .xml = text });
    }
}
