/* SPDX-License-Identifier: Apache-2.0 */
/*
 * QMP commands about media of drives and their trays: what disk.insert, disk.eject and disk.tray do, in QEMU's words. Loop thread.
 */
#include "api-schema/qmp/qmp.h"
#include "api-schema/rpc/call.h"
#include "api-schema/rpc/client.h"
#include "daemon/qmp/cmd.h"
#include "daemon/qmp/plug.h"
#include "daemon/qmp/session.h"

#include <string.h>

/* The name of the disk that is meant by `device` or `id`; NULL after the command was answered. */
static const char *drive_of(struct qmp_cmd *c)
{
    const char *device = qmp_arg(c, "device"), *id = qmp_arg(c, "id");
    const char *given = id ? id : device;
    const struct api_disk *disk = qmp_disk(c, given);
    const struct qmp_plugged *p = qmp_plugged_find(c->vm, given);

    if (!device == !id) {
        qmp_error(c, "GenericError", "one of device and id is needed, not both");
        return NULL;
    }
    if (!disk && (!p || strcmp(p->kind, "disk") != 0)) {
        qmp_error(c, "DeviceNotFound", "Device '%s' not found", given);
        return NULL;
    }
    return disk ? disk->name : p->name;
}

static struct json_object *params_of(struct qmp_cmd *c, const char *disk)
{
    struct json_object *p = qmp_vm_param(c);

    api_json_set_str(p, "disk", disk);
    api_json_set_bool(p, "force", api_json_get_bool(c->args, "force", false));
    api_json_set_int(p, "timeout_ms",
                     0); /* a guest that has locked it is asked: the command is given again */
    return p;
}

static void on_moved(void *arg, struct json_object *result, const struct api_error *x)
{
    struct qmp_cmd *c = arg;

    (void)result;
    if (x && x->code == API_E_BUSY) {
        qmp_error(
            c, "GenericError",
            "Device '%s' is locked and force was not specified, wait for tray to open and "
            "try again",
            x->object);
    } else if (x) {
        qmp_error(c, "GenericError", "%s", x->message);
    } else {
        qmp_return_nothing(c);
    }
}

void qmp_do_eject(struct qmp_cmd *c)
{
    const char *disk = drive_of(c);

    if (disk) {
        api_call_nested(c->call, "disk.eject", params_of(c, disk), on_moved, c);
    }
}

void qmp_do_blockdev_change_medium(struct qmp_cmd *c)
{
    const char *disk = drive_of(c), *format = qmp_arg(c, "format"),
               *mode = qmp_arg(c, "read-only-mode");
    struct json_object *p;

    if (!disk) {
        return;
    }
    if (mode && strcmp(mode, "retain") != 0) {
        qmp_error(c, "GenericError",
                  "'read-only-mode' is \"retain\" or absent: what the drive is");
        return;
    }
    p = params_of(c, disk);
    api_json_set_str(p, "file", qmp_arg(c, "filename"));
    api_json_set_str(p, "image_format", format ? format : "raw");
    api_call_nested(c->call, "disk.insert", p, on_moved, c);
}

/* Asked and not yet open is no error: DEVICE_TRAY_MOVED tells when it is. */
static void on_opened(void *arg, struct json_object *result, const struct api_error *x)
{
    bool asked = x && x->code == API_E_BUSY;

    on_moved(arg, result, asked ? NULL : x);
}

static void move(struct qmp_cmd *c, const char *state, rpc_done_fn *fn)
{
    const char *disk = drive_of(c);
    struct json_object *p;

    if (disk) {
        p = params_of(c, disk);
        api_json_set_str(p, "tray", state);
        api_call_nested(c->call, "disk.tray", p, fn, c);
    }
}

void qmp_do_blockdev_open_tray(struct qmp_cmd *c)
{
    move(c, "open", on_opened);
}

void qmp_do_blockdev_close_tray(struct qmp_cmd *c)
{
    move(c, "closed", on_moved);
}

/* --- with the tray open ------------------------------------------------------------------------------------------------- */

/* What the emulator says of the drive, whose tray must be open; NULL after the command was answered. */
static struct json_object *open_drive(struct qmp_cmd *c, const char *disk,
                                      struct json_object *result)
{
    struct json_object *blocks = api_json_get(result, "blocks");

    for (size_t i = 0; blocks && i < json_object_array_length(blocks); i++) {
        struct json_object *b = json_object_array_get_idx(blocks, i);

        if (strcmp(api_json_get_str(b, "name"), disk) != 0) {
            continue;
        }
        if (!api_json_get_bool(b, "tray", false)) {
            qmp_error(c, "GenericError", "Device '%s' is not removable", disk);
            return NULL;
        }
        if (!api_json_get_bool(b, "tray_open", false)) {
            qmp_error(c, "GenericError", "Tray of device '%s' is not open", disk);
            return NULL;
        }
        return b;
    }
    qmp_error(c, "DeviceNotFound", "Device '%s' not found", disk);
    return NULL;
}

static void then_remove(struct qmp_cmd *c, struct json_object *result)
{
    const char *disk = drive_of(c);

    if (disk && open_drive(c, disk, result)) {
        api_call_nested(c->call, "disk.eject", params_of(c, disk), on_moved, c);
    }
}

void qmp_do_blockdev_remove_medium(struct qmp_cmd *c)
{
    if (drive_of(c)) {
        qmp_ask(c, "emu.blocks", NULL, then_remove);
    }
}

static void then_insert(struct qmp_cmd *c, struct json_object *result)
{
    const char *disk = drive_of(c);
    struct json_object *b = disk ? open_drive(c, disk, result) : NULL, *p;
    const struct qmp_node *n;

    if (!b) {
        return;
    }
    if (api_json_get_str(b, "file")) {
        qmp_error(c, "GenericError", "There already is a medium in device '%s'", disk);
        return;
    }
    n = qmp_node_free(c, qmp_arg(c, "node-name"));
    if (n) {
        p = params_of(c, disk);
        api_json_set_str(p, "file", n->file);
        api_json_set_str(p, "image_format", n->format);
        api_json_set_str(p, "tray", "open");
        api_call_nested(c->call, "disk.insert", p, on_moved, c);
    }
}

void qmp_do_blockdev_insert_medium(struct qmp_cmd *c)
{
    if (drive_of(c)) {
        qmp_ask(c, "emu.blocks", NULL, then_insert);
    }
}
