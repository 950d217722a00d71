/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Handler of snapshot.xml: a snapshot as libvirt's domainsnapshot XML, with its domain. Loop thread.
 */
#include "daemon/vm/snapshot.h"

#include "api-schema/json/codec.h"
#include "api-schema/json/json.h"
#include "daemon/calls.h"
#include "daemon/daemon.h"
#include "daemon/registry.h"
#include "daemon/xml/xml.h"
#include "engine/base/mem.h"

#include <string.h>

static enum api_snapshot_of was_doing(const struct api_snapshot *s)
{
    return s->stopped   ? API_SNAPSHOT_OF_SHUTOFF
           : !s->memory ? API_SNAPSHOT_OF_DISK_SNAPSHOT
           : s->running ? API_SNAPSHOT_OF_RUNNING
                        : API_SNAPSHOT_OF_PAUSED;
}

/* Every disk, by libvirt's name. */
static struct json_object *disks_of(const struct snapshot *s,
                                    const struct api_vm_config *config,
                                    const struct json_object *domain)
{
    struct json_object *list = json_object_new_array();
    char **dev = xml_disk_devs(domain);

    for (size_t i = 0; dev[i] && i < config->n_disks; i++) {
        const struct api_disk *disk = &config->disks[i];
        bool no = disk->readonly || disk->cdrom || snapshot_leaves_out(s, disk->name);
        const struct api_snapshot_disk out = { .name = dev[i],
                                               .snapshot = no ? API_SNAPSHOT_MODE_NO
                                                              : API_SNAPSHOT_MODE_INTERNAL };

        json_object_array_add(list, api_encode(&api_type_snapshot_disk, &out));
    }
    for (size_t i = 0; dev[i]; i++) {
        free(dev[i]);
    }
    free(dev);
    return list;
}

static char *text_of(const struct snapshot *s, const struct api_vm_config *config)
{
    const struct api_snapshot *info = &s->info;
    const struct api_snapshot_config told = { .name = info->name,
                                              .description = info->description,
                                              .has_state = true,
                                              .state = was_doing(info),
                                              .has_created = true,
                                              .created = info->created_ms / 1000,
                                              .parent = info->parent,
                                              .has_memory = true,
                                              .memory = !info->memory ? API_MEMORY_MODE_NO
                                                        : info->memory_file
                                                            ? API_MEMORY_MODE_EXTERNAL
                                                            : API_MEMORY_MODE_INTERNAL,
                                              .memory_file = info->memory_file };
    AUTO_JSON o = api_encode(&api_type_snapshot_config, &told);
    AUTO_JSON domain = api_encode(&api_type_vm_config, config);

    xml_drop_found_files(domain);
    api_json_set(o, "disks", disks_of(s, config, domain));
    return xml_print_around(&xml_snapshot, o, &xml_domain, domain);
}

void api_handle_snapshot_xml(struct api_call *call, struct api_snapshot_xml_in *in)
{
    struct vm *vm = call_vm(call, in->vm);
    const struct snapshot *s = vm ? snapshot_find(vm->d, vm->config.uuid, in->name) : NULL;
    struct api_vm_config config;

    if (vm && !s) {
        api_fail(call, API_E_NOT_FOUND, in->name, "'vmctl snapshot list' shows what there is",
                 "VM '%s' has no snapshot '%s'", vm->config.name, in->name);
    } else if (s && !snapshot_config(s, &config)) {
        api_fail(call, API_E_INTERNAL_ERROR, in->name, NULL,
                 "the definition of snapshot '%s' is unreadable", in->name);
    } else if (s) {
        AUTO_FREE char *text = text_of(s, &config);

        api_release(&api_type_vm_config, &config);
        api_reply_snapshot_xml(call, &(struct api_snapshot_xml_out){ .xml = text });
    }
}
