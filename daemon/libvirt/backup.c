/* SPDX-License-Identifier: Apache-2.0 */
/* Backups of domains that run: all their disks as of one instant, a job each, to files. */
#include "daemon/daemon.h"
#include "daemon/libvirt/call.h"
#include "daemon/libvirt/jobs.h"
#include "daemon/libvirt/parts.h"
#include "daemon/libvirt/procs.h"
#include "daemon/registry.h"
#include "daemon/run/proc.h"
#include "daemon/xml/tree.h"
#include "engine/base/buf.h"
#include "engine/base/mem.h"

#include <string.h>

/* What is backed up unless the document says otherwise. */
static bool is_worth_it(const struct api_disk *disk)
{
    return disk->file && !disk->readonly && !disk->cdrom;
}

/* Appends the action that backs up a disk; file NULL: beside its image, by the time. */
static void add_backup(struct lv_call *c, struct json_object *actions, const struct vm *vm,
                       int at, const char *file, const char *format)
{
    enum { REUSE_EXTERNAL = 1 };
    struct json_object *action = lv_object("act", "backup");
    char name[80];
    AUTO_FREE char *beside = xasprintf("%s.%lld", vm->config.disks[at].file,
                                       (long long)(time_real_ns() / 1000000000));

    lv_disk_name(vm, at, name, sizeof(name));
    api_json_set_str(action, "disk", name);
    api_json_set_str(action, "file", file ? file : beside);
    api_json_set_str(action, "image_format", format ? format : "qcow2");
    api_json_set_bool(action, "reuse", lv_int(c, "flags") & REUSE_EXTERNAL);
    json_object_array_add(actions, action);
}

/* What one <disk> says. False: the call has failed. */
static bool read_disk(struct lv_call *c, struct json_object *actions, const struct vm *vm,
                      const struct xml_node *n)
{
    const char *name = xml_get_attr(n, "name"), *said = xml_get_attr(n, "backup"),
               *type = xml_get_attr(n, "type"), *mode = xml_get_attr(n, "backupmode");
    const struct xml_node *target = xml_get_kid(n, "target"),
                          *driver = xml_get_kid(n, "driver");
    int at = lv_disk(c, vm, name ? name : "");

    if (at < 0) {
        return false;
    }
    if (said && strcmp(said, "no") == 0) {
        return true;
    }
    if ((type && strcmp(type, "file") != 0) || (target && !xml_get_attr(target, "file")) ||
        (target && xml_get_kid(target, "encryption"))) {
        lv_fail(
            c, LV_E_CONFIG_UNSUPPORTED,
            "disk '%s': a backup goes to a file that is not encrypted: <target file='...'/>",
            name);
        return false;
    }
    if ((mode && strcmp(mode, "full") != 0) || xml_get_attr(n, "incremental")) {
        lv_fail(c, LV_E_CONFIG_UNSUPPORTED, "disk '%s': a backup is of the whole disk", name);
        return false;
    }
    if (!vm->config.disks[at].file) {
        lv_fail(c, LV_E_OPERATION_INVALID, "disk '%s' has no medium", name);
        return false;
    }
    add_backup(c, actions, vm, at, target ? xml_get_attr(target, "file") : NULL,
               driver ? xml_get_attr(driver, "type") : NULL);
    return true;
}

/* The backups that a document asks for; the caller's. NULL: the call has failed. */
static struct json_object *read_backup(struct lv_call *c, const struct vm *vm)
{
    const char *text = lv_str(c, "backup_xml"), *mode;
    struct err e = ERR_INIT;
    AUTO(xml_node_free) struct xml_node *root = xml_read(text, strlen(text), &e);
    const struct xml_node *disks = root ? xml_get_kid(root, "disks") : NULL;
    struct json_object *actions;

    if (!root || !root->name || strcmp(root->name, "domainbackup") != 0) {
        lv_fail(c, LV_E_XML, "%s", root ? "the document is no <domainbackup>" : e.msg);
        return NULL;
    }
    mode = xml_get_attr(root, "mode");
    if ((mode && strcmp(mode, "push") != 0) || xml_get_kid(root, "incremental")) {
        lv_fail(c, LV_E_CONFIG_UNSUPPORTED,
                "a backup is of whole disks, to files: mode='push'");
        return NULL;
    }
    actions = json_object_new_array();
    for (size_t i = 0; disks && i < disks->n_kids; i++) {
        if (disks->kids[i]->name && !read_disk(c, actions, vm, disks->kids[i])) {
            json_object_put(actions);
            return NULL;
        }
    }
    for (size_t i = 0; !disks && i < vm->config.n_disks; i++) {
        if (is_worth_it(&vm->config.disks[i])) {
            add_backup(c, actions, vm, (int)i, NULL, NULL);
        }
    }
    if (json_object_array_length(actions) == 0) {
        json_object_put(actions);
        lv_fail(c, LV_E_INVALID_ARG, "no disk of domain '%s' is to be backed up",
                vm->config.name);
        return NULL;
    }
    return actions;
}

void lv_do_backup_begin(struct lv_call *c)
{
    enum { KNOWN = 1 };
    const struct vm *vm = lv_the_vm(c);
    struct json_object *params, *actions;

    if (!vm) {
        lv_fail(c, LV_E_NO_DOMAIN, "the domain has gone");
    } else if (lv_str(c, "checkpoint_xml") || (lv_int(c, "flags") & ~KNOWN)) {
        lv_fail(c, LV_E_ARGUMENT_UNSUPPORTED, "checkpoints are not made with a backup");
    } else if ((actions = read_backup(c, vm)) != NULL) {
        params = lv_vm(c);
        api_json_set(params, "actions", actions);
        lv_ask(c, "domain", "disk.transaction", params, lv_done);
    }
}

/* --- looking ------------------------------------------------------------------------------------------ */

/* The backup under way of this disk; NULL: none. */
static struct json_object *backup_of(struct json_object *jobs, const struct vm *vm, int at)
{
    char name[80];

    lv_disk_name(vm, at, name, sizeof(name));
    for (size_t i = 0; i < json_object_array_length(jobs); i++) {
        struct json_object *job = json_object_array_get_idx(jobs, i);
        const char *disk = api_json_get_str(api_json_get(job, "result"), "disk");
        if (lv_is_backup(job, vm) && disk && strcmp(disk, name) == 0) {
            return job;
        }
    }
    return NULL;
}

static void on_jobs(struct lv_call *c, struct json_object *result)
{
    struct json_object *jobs = api_json_get(result, "jobs");
    const struct vm *vm = lv_the_vm(c);
    AUTO(xml_node_free) struct xml_node *root = xml_node_new(NULL, "domainbackup");
    struct xml_node *disks = xml_node_new(root, "disks");
    AUTO_BUF text = BUF_INIT;
    bool any = false;

    xml_set_attr(root, "mode", "push");
    for (size_t i = 0; vm && i < vm->config.n_disks; i++) {
        struct json_object *job = backup_of(jobs, vm, (int)i);
        const char *file = api_json_get_str(api_json_get(job, "result"), "file");
        AUTO_FREE char *dev = lv_disk_dev(vm, (int)i);
        struct xml_node *n = xml_node_new(disks, "disk");

        xml_set_attr(n, "name", dev);
        xml_set_attr(n, "backup", job ? "yes" : "no");
        if (job) {
            any = true;
            xml_set_attr(n, "type", "file");
            xml_set_attr(n, "backupmode", "full");
        }
        if (file) {
            xml_set_attr(xml_node_new(n, "target"), "file", file);
        }
    }
    xml_write(&text, root, 0);
    if (any) {
        lv_reply(c, lv_object("xml", text.data));
    } else {
        lv_fail(c, LV_E_NO_BACKUP, "no domain backup job is present");
    }
}

void lv_do_backup_xml(struct lv_call *c)
{
    struct json_object *params = json_object_new_object();

    api_json_set_bool(params, "active", true);
    lv_ask(c, "domain", "job.list", params, on_jobs);
}
