/* SPDX-License-Identifier: Apache-2.0 */
/*
 * QMP's blockdev-add and blockdev-del: names for images, which blockdev-snapshot, -mirror and -backup take as their targets, and for NBD exports. A node is
 * a name for a file and its format here: the emulator gets it when a command uses it, by the rules for files that the method
 * behind that command has. A node whose file a disk got is that disk from then on. Loop thread.
 */
#include "api-schema/net/nbdaddr.h"
#include "daemon/qmp/cmd.h"
#include "daemon/qmp/plug.h"
#include "daemon/qmp/session.h"
#include "engine/base/mem.h"

#include <string.h>

#define NODES_MAX 64

const struct qmp_node *qmp_node_find(const struct qmp_cmd *c, const char *name)
{
    if (!c->vm->qmp) {
        return NULL;
    }
    list_for_each (it, &c->vm->qmp->nodes) {
        const struct qmp_node *n = list_entry(it, struct qmp_node, link);

        if (strcmp(n->name, name) == 0) {
            return n;
        }
    }
    return NULL;
}

static void node_free(struct qmp_node *n)
{
    list_remove(&n->link);
    free(n->name);
    free(n->file);
    free(n->format);
    free(n);
}

void qmp_nodes_free(struct qmp_vm *v)
{
    while (!list_empty(&v->nodes)) {
        node_free(list_entry(v->nodes.next, struct qmp_node, link));
    }
}

const struct qmp_node *qmp_node_free(struct qmp_cmd *c, const char *name)
{
    const struct qmp_node *n = qmp_node_find(c, name);
    const struct api_disk *disk = qmp_disk(c, name);

    if (disk) {
        qmp_error(c, "GenericError", "Node '%s' is the image of disk '%s'", name, disk->name);
    } else if (!n) {
        qmp_error(c, "GenericError", "Cannot find device='' nor node-name='%s'", name);
    } else if (qmp_plugged_on(c->vm, name)) {
        qmp_error(c, "GenericError", "Node '%s' is the image of device '%s'", name,
                  qmp_plugged_on(c->vm, name)->id);
    } else if (nbd_addr_is(n->file)) {
        qmp_error(c, "GenericError", "Node '%s' is an NBD export, which device_add takes",
                  name);
    } else if (n->readonly) {
        qmp_error(c, "GenericError", "Node '%s' is read-only", name);
    } else {
        return n;
    }
    return NULL;
}

/* --- blockdev-add ------------------------------------------------------------------------------------------- */

static bool is_protocol(const char *driver)
{
    return strcmp(driver, "file") == 0 || strcmp(driver, "host_device") == 0 ||
           strcmp(driver, "nbd") == 0;
}

/* The file that an object {"driver", "filename", ...} names, or the address of its export: the caller's. NULL after the command was
 * answered. */
static char *file_named(struct qmp_cmd *c, struct json_object *o, const char *where)
{
    const char *driver = api_json_get_str(o, "driver"), *file = api_json_get_str(o, "filename");

    if (driver && strcmp(driver, "nbd") == 0) {
        return qmp_far_file(c, o, where);
    }
    if (!driver || !is_protocol(driver)) {
        qmp_error(c, "GenericError", "'%sdriver' of a file is file, host_device or nbd", where);
    } else if (!file) {
        qmp_error(c, "GenericError", "Parameter '%sfilename' is missing", where);
    } else if (file[0] != '/') {
        qmp_error(c, "GenericError", "'%sfilename' is an absolute path", where);
    } else {
        return xstrdup(file);
    }
    return NULL;
}

/* Of a format's node: another node, or an object; the caller's. NULL after the command was answered. */
static char *file_below(struct qmp_cmd *c)
{
    struct json_object *file = api_json_get(c->args, "file");
    const char *name = json_object_is_type(file, json_type_string)
                           ? json_object_get_string(file)
                           : NULL;
    const struct qmp_node *n = name ? qmp_node_find(c, name) : NULL;

    if (qmp_arg(c, "filename")) {
        qmp_error(c, "GenericError", "Parameter 'filename' is unexpected");
    } else if (n && n->protocol) {
        return xstrdup(n->file);
    } else if (name) {
        qmp_error(c, "GenericError", "Cannot find device='' nor node-name='%s'", name);
    } else if (!json_object_is_type(file, json_type_object)) {
        qmp_error(c, "GenericError", "Parameter 'file' is missing");
    } else {
        return file_named(c, file, "file.");
    }
    return NULL;
}

/* Answers the command when it asks for what no node has. */
static bool refused(struct qmp_cmd *c, const char *name)
{
    if (!c->vm->qmp) {
        qmp_error(c, "GenericError", "VM '%s' is %s", c->vm->config.name,
                  api_vm_state_name(c->vm->state));
    } else if (!name || !name[0]) {
        qmp_error(c, "GenericError", "'node-name' must be specified for the root node");
    } else if (strlen(name) > 127) {
        qmp_error(c, "GenericError", "the name of a node has at most 127 bytes");
    } else if (qmp_node_find(c, name) || qmp_disk(c, name)) {
        qmp_error(c, "GenericError", "Duplicate nodes with node-name='%s'", name);
    } else if (c->vm->qmp->n_nodes >= NODES_MAX) {
        qmp_error(c, "GenericError", "there are %d nodes already", NODES_MAX);
    } else if (api_json_get(c->args, "backing")) {
        qmp_error(c, "GenericError",
                  "'backing' is null or absent: the image itself says what is below it");
    } else {
        return false;
    }
    return true;
}

void qmp_do_blockdev_add(struct qmp_cmd *c)
{
    const char *driver = qmp_arg(c, "driver"), *name = qmp_arg(c, "node-name");
    struct qmp_node *n;
    char *file;

    if (refused(c, name)) {
        return;
    }
    file = is_protocol(driver) ? file_named(c, c->args, "") : file_below(c);
    if (!file) {
        return;
    }
    n = xnew(struct qmp_node);
    n->name = xstrdup(name);
    n->file = file;
    n->format = xstrdup(is_protocol(driver) ? "raw" : driver);
    n->protocol = is_protocol(driver);
    n->readonly = api_json_get_bool(c->args, "read-only", false);
    n->direct = api_json_get_bool(api_json_get(c->args, "cache"), "direct", false);
    list_append(&c->vm->qmp->nodes, &n->link);
    c->vm->qmp->n_nodes++;
    qmp_return_nothing(c);
}

void qmp_do_blockdev_del(struct qmp_cmd *c)
{
    const char *name = qmp_arg(c, "node-name");
    const struct qmp_node *n = qmp_node_find(c, name);
    const struct api_disk *disk = qmp_disk(c, name);

    if (disk) {
        qmp_error(c, "GenericError", "Node %s is in use: it is the image of disk '%s'", name,
                  disk->name);
    } else if (qmp_plugged_on(c->vm, name)) {
        qmp_error(c, "GenericError", "Node %s is in use: it is the image of device '%s'", name,
                  qmp_plugged_on(c->vm, name)->id);
    } else if (!n) {
        qmp_error(c, "GenericError", "Failed to find node with node-name='%s'", name);
    } else {
        node_free((struct qmp_node *)n);
        c->vm->qmp->n_nodes--;
        qmp_return_nothing(c);
    }
}
