/* SPDX-License-Identifier: Apache-2.0 */
/* Backups of domains that run: all their disks as of one instant, to files, or by NBD to whoever comes for them. */
#include "daemon/daemon.h"
#include "daemon/libvirt/call.h"
#include "daemon/libvirt/checkpoint.h"
#include "daemon/libvirt/jobs.h"
#include "daemon/libvirt/parts.h"
#include "daemon/libvirt/procs.h"
#include "daemon/registry.h"
#include "daemon/xml/tree.h"
#include "engine/base/buf.h"
#include "engine/base/mem.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Where libvirt looks for the keys of a backup's server, too. */
#define TLS_FOLDER "/etc/pki/libvirt-backup"

/* --- beginning ---------------------------------------------------------------------------------------- */

/* What is backed up unless the document says otherwise. */
static bool is_worth_it(const struct api_disk *disk)
{
    return disk->file && !disk->readonly && !disk->cdrom;
}

static void set_attr(struct json_object *o, const char *member, const struct xml_node *n,
                     const char *attr)
{
    const char *value = n ? xml_get_attr(n, attr) : NULL;

    if (value) {
        api_json_set_str(o, member, value);
    }
}

/* Appends a disk; n NULL: nothing is said of it. */
static void add_disk(struct lv_call *c, struct json_object *disks, const struct vm *vm, int at,
                     const struct xml_node *n, bool pull, bool incremental)
{
    enum { REUSE_EXTERNAL = 1 };
    AUTO_FREE char *dev = lv_disk_dev(vm, at);
    AUTO_FREE char *bitmap = xasprintf("backup-%s", dev);
    struct json_object *o;
    char name[80];

    lv_disk_name(vm, at, name, sizeof(name));
    o = lv_object("disk", name);
    if (pull) {
        api_json_set_str(o, "export", dev);
    }
    if (pull && incremental) {
        api_json_set_str(o, "bitmap", bitmap);
    }
    if (n) {
        set_attr(o, "file", xml_get_kid(n, pull ? "scratch" : "target"), "file");
        set_attr(o, "image_format", xml_get_kid(n, "driver"), "type");
        set_attr(o, "export", n, "exportname");
        set_attr(o, "bitmap", n, "exportbitmap");
    }
    if (api_json_get_str(o, "file")) {
        api_json_set_bool(o, "reuse", lv_int(c, "flags") & REUSE_EXTERNAL);
    }
    json_object_array_add(disks, o);
}

/* A disk's file in the way that vmd can do. */
static bool has_plain_file(const struct xml_node *n)
{
    const char *type = xml_get_attr(n, "type");
    const struct xml_node *target = xml_get_kid(n, "target"),
                          *scratch = xml_get_kid(n, "scratch");

    target = target ? target : scratch;
    return (!type || strcmp(type, "file") == 0) &&
           (!target || (xml_get_attr(target, "file") && !xml_get_kid(target, "encryption")));
}

/* What one <disk> says. False: the call has failed. */
static bool read_disk(struct lv_call *c, struct json_object *params, const struct vm *vm,
                      const struct xml_node *n, bool pull)
{
    const char *name = xml_get_attr(n, "name"), *said = xml_get_attr(n, "backup"),
               *mode = xml_get_attr(n, "backupmode"), *since = xml_get_attr(n, "incremental"),
               *all = api_json_get_str(params, "incremental");
    int at = lv_disk(c, vm, name ? name : "");

    if (at < 0) {
        return false;
    }
    if (said && strcmp(said, "no") == 0) {
        return true;
    }
    if (!has_plain_file(n)) {
        lv_fail(c, LV_E_CONFIG_UNSUPPORTED,
                "disk '%s': a backup's file is not encrypted: <target file='...'/>, or "
                "<scratch file='...'/> of one that is pulled",
                name);
        return false;
    }
    if ((mode && strcmp(mode, all ? "incremental" : "full") != 0) ||
        (since && (!all || strcmp(since, all) != 0))) {
        lv_fail(c, LV_E_CONFIG_UNSUPPORTED,
                "disk '%s': all disks of a backup are whole, or since the same checkpoint",
                name);
        return false;
    }
    if (!vm->config.disks[at].file) {
        lv_fail(c, LV_E_OPERATION_INVALID, "disk '%s' has no medium", name);
        return false;
    }
    add_disk(c, api_json_get(params, "disks"), vm, at, n, pull, all != NULL);
    return true;
}

/* False: the call has failed. */
static bool read_server(struct lv_call *c, struct json_object *params,
                        const struct xml_node *server)
{
    const char *transport = server ? xml_get_attr(server, "transport") : NULL,
               *tls = server ? xml_get_attr(server, "tls") : NULL,
               *port = server ? xml_get_attr(server, "port") : NULL;

    if (!server) {
        return true;
    }
    if (transport && strcmp(transport, "unix") == 0) {
        set_attr(params, "socket", server, "socket");
    } else if (!transport || strcmp(transport, "tcp") == 0) {
        set_attr(params, "host", server, "name");
    } else {
        lv_fail(c, LV_E_CONFIG_UNSUPPORTED, "<server transport='%s'>: unix and tcp are known",
                transport);
        return false;
    }
    if (port) {
        api_json_set_int(params, "port", strtol(port, NULL, 10));
    }
    if (tls && strcmp(tls, "yes") == 0) {
        api_json_set_str(params, "tls", TLS_FOLDER);
    }
    return true;
}

static bool read_disks(struct lv_call *c, struct json_object *params, const struct vm *vm,
                       const struct xml_node *root, bool pull)
{
    const struct xml_node *disks = xml_get_kid(root, "disks");
    struct json_object *list = json_object_new_array();

    api_json_set(params, "disks", list);
    for (size_t i = 0; disks && i < disks->n_kids; i++) {
        if (disks->kids[i]->name && !read_disk(c, params, vm, disks->kids[i], pull)) {
            return false;
        }
    }
    for (size_t i = 0; !disks && i < vm->config.n_disks; i++) {
        if (is_worth_it(&vm->config.disks[i])) {
            add_disk(c, list, vm, (int)i, NULL, pull,
                     api_json_get_str(params, "incremental") != NULL);
        }
    }
    if (json_object_array_length(list) == 0) {
        lv_fail(c, LV_E_INVALID_ARG, "no disk of domain '%s' is to be backed up",
                vm->config.name);
        return false;
    }
    return true;
}

/* Into params. False: the call has failed. */
static bool read_backup(struct lv_call *c, struct json_object *params, const struct vm *vm)
{
    const char *text = lv_str(c, "backup_xml"), *mode;
    struct err e = ERR_INIT;
    AUTO(xml_node_free) struct xml_node *root = xml_read(text, strlen(text), &e);
    const struct xml_node *since;
    bool pull;

    if (!root || !root->name || strcmp(root->name, "domainbackup") != 0) {
        lv_fail(c, LV_E_XML, "%s", root ? "the document is no <domainbackup>" : e.msg);
        return false;
    }
    mode = xml_get_attr(root, "mode");
    pull = mode && strcmp(mode, "pull") == 0;
    if (mode && !pull && strcmp(mode, "push") != 0) {
        lv_fail(c, LV_E_XML, "a backup's mode is push or pull, not '%s'", mode);
        return false;
    }
    api_json_set_str(params, "mode", pull ? "pull" : "push");
    since = xml_get_kid(root, "incremental");
    if (since) {
        AUTO_FREE char *name = xml_text(since);

        api_json_set_str(params, "incremental", name);
    }
    return read_server(c, params, xml_get_kid(root, "server")) &&
           read_disks(c, params, vm, root, pull);
}

/* The checkpoint that is made with it. False: the call has failed. */
static bool read_point(struct lv_call *c, struct json_object *params)
{
    static const char *const members[][2] = { { "name", "checkpoint" },
                                              { "description", "checkpoint_description" },
                                              { "disks", "checkpoint_disks" } };
    const char *text = lv_str(c, "checkpoint_xml");
    AUTO_JSON point = text ? lv_read_checkpoint(c, text) : NULL;

    for (unsigned i = 0; point && i < ARRAY_LEN(members); i++) {
        struct json_object *v = api_json_get(point, members[i][0]);

        if (v) {
            api_json_set(params, members[i][1], json_object_get(v));
        }
    }
    return !text || point;
}

void lv_do_backup_begin(struct lv_call *c)
{
    enum { KNOWN = 1 };
    const struct vm *vm = lv_the_vm(c);
    struct json_object *params;

    if (!vm) {
        lv_fail(c, LV_E_NO_DOMAIN, "the domain has gone");
        return;
    }
    if (lv_int(c, "flags") & ~KNOWN) {
        lv_fail(c, LV_E_ARGUMENT_UNSUPPORTED, "there is no such flag");
        return;
    }
    params = lv_vm(c);
    if (read_backup(c, params, vm) && read_point(c, params)) {
        lv_ask(c, "checkpoint", "backup.begin", params, lv_done);
    } else {
        json_object_put(params);
    }
}

/* --- looking ------------------------------------------------------------------------------------------ */

/* nbd[s]://HOST:PORT/ or nbd+unix:///?socket=PATH as <server>. */
static void put_server(struct xml_node *root, const char *uri)
{
    struct xml_node *n = xml_node_new(root, "server");
    const char *path = strstr(uri, "socket="), *host = strstr(uri, "://"), *port;

    if (path) {
        xml_set_attr(n, "transport", "unix");
        xml_set_attr(n, "socket", path + strlen("socket="));
        return;
    }
    host = host ? host + 3 + (host[3] == '[') : "";
    port = strrchr(host, ':');
    AUTO_FREE char *name = xasprintf(
        "%.*s", (int)strcspn(host, port && port[-1] == ']' ? "]" : ":"), host);
    AUTO_FREE char *number = xasprintf("%d", port ? atoi(port + 1) : 0);

    xml_set_attr(n, "transport", "tcp");
    xml_set_attr(n, "name", name);
    xml_set_attr(n, "port", number);
    if (strncmp(uri, "nbds", 4) == 0) {
        xml_set_attr(n, "tls", "yes");
    }
}

static struct json_object *disk_of(struct json_object *backup, const char *name)
{
    struct json_object *disks = api_json_get(backup, "disks");

    for (size_t i = 0; i < json_object_array_length(disks); i++) {
        struct json_object *one = json_object_array_get_idx(disks, i);

        if (strcmp(api_json_get_str(one, "disk"), name) == 0) {
            return one;
        }
    }
    return NULL;
}

static void put_disk(struct xml_node *disks, const struct vm *vm, int at,
                     struct json_object *backup, bool pull)
{
    const char *since = api_json_get_str(backup, "incremental");
    AUTO_FREE char *dev = lv_disk_dev(vm, at);
    struct xml_node *n = xml_node_new(disks, "disk");
    struct json_object *disk;
    char name[80];

    lv_disk_name(vm, at, name, sizeof(name));
    disk = disk_of(backup, name);
    xml_set_attr(n, "name", dev);
    xml_set_attr(n, "backup", disk ? "yes" : "no");
    if (!disk) {
        return;
    }
    xml_set_attr(n, "type", "file");
    xml_set_attr(n, "backupmode", since ? "incremental" : "full");
    if (since) {
        xml_set_attr(n, "incremental", since);
    }
    if (pull) {
        xml_set_attr(n, "exportname", api_json_get_str(disk, "export"));
    }
    if (pull && since && api_json_get_str(disk, "bitmap")) {
        xml_set_attr(n, "exportbitmap", api_json_get_str(disk, "bitmap"));
    }
    xml_set_attr(xml_node_new(n, "driver"), "type",
                 api_json_get_str(disk, "image_format") ? api_json_get_str(disk, "image_format")
                                                        : "qcow2");
    xml_set_attr(xml_node_new(n, pull ? "scratch" : "target"), "file",
                 api_json_get_str(disk, "file"));
}

static void on_backup(struct lv_call *c, struct json_object *backup)
{
    const char *since = api_json_get_str(backup, "incremental"),
               *mode = api_json_get_str(backup, "mode"), *uri = api_json_get_str(backup, "uri");
    const struct vm *vm = lv_the_vm(c);
    AUTO(xml_node_free) struct xml_node *root = xml_node_new(NULL, "domainbackup");
    struct xml_node *disks;
    AUTO_BUF text = BUF_INIT;

    xml_set_attr(root, "mode", mode);
    if (since) {
        xml_add_text(xml_node_new(root, "incremental"), since);
    }
    if (uri) {
        put_server(root, uri);
    }
    disks = xml_node_new(root, "disks");
    for (size_t i = 0; vm && i < vm->config.n_disks; i++) {
        put_disk(disks, vm, (int)i, backup, strcmp(mode, "pull") == 0);
    }
    xml_write(&text, root, 0);
    lv_reply(c, lv_object("xml", text.data));
}

void lv_do_backup_xml(struct lv_call *c)
{
    lv_ask(c, "backup", "backup.get", lv_vm(c), on_backup);
}
