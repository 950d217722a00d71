/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Seeds of cloud-init: the data source NoCloud (files meta-data, user-data and network-config on a volume "cidata") and the
 * config drive of OpenStack (openstack/latest/... on "config-2"), as cloud-init's reference describes them under "Datasources".
 * YAML is written as JSON, which is a part of it. Owns nothing. Loop thread.
 */
#include "daemon/vm/cloudinit.h"

#include "api-schema/json/json.h"
#include "daemon/daemon.h"
#include "daemon/registry.h"
#include "daemon/run/runfs.h"
#include "daemon/spawn/proto.h"
#include "daemon/vm/iso9660.h"
#include "engine/base/buf.h"
#include "engine/base/fd.h"
#include "engine/base/mem.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* ---- checks ---- */

static int refuse(struct api_error *x, const char *vm, const char *member, const char *remedy,
                  const char *why)
{
    AUTO_FREE char *path = xasprintf("config.cloud_init.%s", member);
    return api_error_set(x, API_E_INVALID_PARAMS, path, remedy, "cloud-init of VM '%s': %s", vm,
                         why);
}

static bool printable(const char *s, const char *also)
{
    for (; *s; s++) {
        if (!isalnum((unsigned char)*s) && !strchr(also, *s)) {
            return false;
        }
    }
    return true;
}

/* The next line of a text that is more than blanks; NULL at the end. The caller's. */
static char *next_line(const char **at)
{
    while (**at) {
        size_t n = strcspn(*at, "\r\n");
        const char *line = *at + strspn(*at, " \t"), *end = *at + n;
        *at = end + (*end != 0);
        while (end > line && (end[-1] == ' ' || end[-1] == '\t')) {
            end--;
        }
        if (end > line && *line != '#') {
            return xstrndup(line, (size_t)(end - line));
        }
    }
    return NULL;
}

/* Lines of authorized_keys: options may stand before the kind of the key, so only the form is looked at. */
static int check_keys(const struct api_vm_config *c, struct api_error *x)
{
    const struct api_cloud_init *ci = c->cloud_init;

    for (size_t i = 0; i < ci->n_ssh_keys; i++) {
        const char *at = ci->ssh_keys[i];
        char *line;
        unsigned found = 0;

        for (; (line = next_line(&at)); found++) {
            bool ok = strchr(line, ' ') && !strstr(line, "PRIVATE KEY");
            for (const char *p = line; *p && ok; p++) {
                ok = (unsigned char)*p >= ' ' && *p != 0x7f;
            }
            free(line);
            if (!ok) {
                return refuse(x, c->name, "ssh_keys", "name files like ~/.ssh/id_ed25519.pub",
                              "a line is no public key of ssh");
            }
        }
        if (found == 0) {
            return refuse(x, c->name, "ssh_keys", "name files like ~/.ssh/id_ed25519.pub",
                          "there is no key in it");
        }
    }
    return 0;
}

int cloudinit_check(const struct api_vm_config *c, struct api_error *x)
{
    const struct api_cloud_init *ci = c->cloud_init;

    if (!ci) {
        return 0;
    }
    for (size_t i = 0; i < c->n_disks; i++) {
        if (strcmp(c->disks[i].name, CLOUDINIT_DISK) == 0) {
            AUTO_FREE char *member = xasprintf("config.disks[%zu].name", i);
            return api_error_set(x, API_E_INVALID_PARAMS, member, "give it another name",
                                 "disk '" CLOUDINIT_DISK "' of VM '%s' has the name that its "
                                 "cloud-init seed will have",
                                 c->name);
        }
    }
    if (ci->hostname && (!ci->hostname[0] || !isalnum((unsigned char)ci->hostname[0]) ||
                         !printable(ci->hostname, ".-"))) {
        return refuse(x, c->name, "hostname", "use letters, digits, '-' and '.'",
                      "the host name cannot be one");
    }
    if (ci->instance_id && (!ci->instance_id[0] || !printable(ci->instance_id, "._:-"))) {
        return refuse(x, c->name, "instance_id", "use letters, digits and . _ : -",
                      "the instance's identity cannot be one");
    }
    AUTO_JSON network = NULL;
    if (ci->kind == API_CLOUD_INIT_KIND_CONFIGDRIVE && ci->network_config &&
        (api_json_parse(ci->network_config, strlen(ci->network_config), &network, NULL) < 0 ||
         !json_object_is_type(network, json_type_object))) {
        return refuse(x, c->name, "network_config",
                      "use nocloud, or write it as OpenStack's network_data.json",
                      "a config drive has it in JSON, and this is none");
    }
    return check_keys(c, x);
}

/* ---- the image ---- */

/* Host names know fewer characters than names of VMs. */
static char *hostname(const struct api_vm_config *c)
{
    char *name = xstrdup(c->cloud_init->hostname ? c->cloud_init->hostname : c->name);

    for (char *p = name; *p; p++) {
        *p = isalnum((unsigned char)*p) || *p == '.' ? *p : '-';
    }
    return name;
}

/* A list for NoCloud, named keys for OpenStack. */
static struct json_object *keys(const struct api_cloud_init *ci, bool named)
{
    struct json_object *o = named ? json_object_new_object() : json_object_new_array();
    unsigned n = 0;

    for (size_t i = 0; i < ci->n_ssh_keys; i++) {
        const char *at = ci->ssh_keys[i];
        char *line;

        for (; (line = next_line(&at)); n++) {
            AUTO_FREE char *name = xasprintf("key%u", n);
            if (named) {
                api_json_set_str(o, name, line);
            } else {
                json_object_array_add(o, json_object_new_string(line));
            }
            free(line);
        }
    }
    return o;
}

static struct json_object *meta_data(const struct api_vm_config *c)
{
    const struct api_cloud_init *ci = c->cloud_init;
    const char *id = ci->instance_id ? ci->instance_id : c->uuid;
    struct json_object *o = json_object_new_object();
    bool drive = ci->kind == API_CLOUD_INIT_KIND_CONFIGDRIVE;
    AUTO_FREE char *name = hostname(c);

    api_json_set_str(o, drive ? "uuid" : "instance-id", id);
    api_json_set_str(o, drive ? "hostname" : "local-hostname", name);
    if (drive) {
        api_json_set_str(o, "name", name);
    }
    if (ci->n_ssh_keys) {
        api_json_set(o, drive ? "public_keys" : "public-keys", keys(ci, drive));
    }
    return o;
}

void cloudinit_image(const struct api_vm_config *c, struct buf *out)
{
    static const char *const names[][3] = {
        { "meta-data", "user-data", "network-config" },
        { "openstack/latest/meta_data.json", "openstack/latest/user_data",
          "openstack/latest/network_data.json" },
    };
    const struct api_cloud_init *ci = c->cloud_init;
    bool drive = ci->kind == API_CLOUD_INIT_KIND_CONFIGDRIVE;
    AUTO_JSON meta = meta_data(c);
    AUTO_FREE char *text = xasprintf("%s\n", api_json_text(meta));
    const char *user = ci->user_data ? ci->user_data : "#cloud-config\n{}\n";
    struct iso_file files[3] = {
        { names[drive][0], text, strlen(text) },
        { names[drive][1], user, strlen(user) },
        { names[drive][2], ci->network_config,
          ci->network_config ? strlen(ci->network_config) : 0 },
    };

    iso_write(drive ? "config-2" : "cidata", files, ci->network_config ? 3 : 2, out);
}

/* ---- the file ---- */

/* Not synced: the next start makes it again. A new file, since what is left of a former emulator may still have the old one. */
int cloudinit_write(const struct vm *vm, struct err *e)
{
    AUTO_FREE char *path = runfs_lib(&vm->d->opt, vm->id, VM_SEED);
    AUTO_FREE char *new = runfs_lib(&vm->d->opt, vm->id, VM_SEED_NEW);
    AUTO_BUF image = BUF_INIT;

    unlink(path);
    if (!vm->config.cloud_init) {
        return 0;
    }
    unlink(new);
    AUTO_FD fd = open(new, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) {
        return err_errno(e, errno, "cannot make cloud-init's seed '%s'", new);
    }
    cloudinit_image(&vm->config, &image);
    int rc = fd_write_all(fd, image.data, image.len, new, e);
    if (rc == 0 && rename(new, path) < 0) {
        rc = err_errno(e, errno, "cannot make cloud-init's seed '%s'", path);
    }
    return rc;
}

void cloudinit_give(const struct vm *vm, struct json_object *config, struct json_object *files)
{
    const struct api_cloud_init *ci = vm->config.cloud_init;
    struct json_object *disk, *file, *disks = api_json_get(config, "disks");
    AUTO_FREE char *path = runfs_lib(&vm->d->opt, vm->id, VM_SEED);

    json_object_object_del(config, "cloud_init");
    if (!ci) {
        return;
    }
    disk = json_object_new_object();
    api_json_set_str(disk, "name", CLOUDINIT_DISK);
    api_json_set_str(disk, "file", path);
    api_json_set_str(disk, "format", "raw");
    api_json_set_str(disk, "bus", api_disk_bus_name(ci->bus));
    api_json_set_bool(disk, "readonly", true);
    if (ci->bus == API_DISK_BUS_SATA || ci->bus == API_DISK_BUS_USB ||
        ci->bus == API_DISK_BUS_SCSI || ci->bus == API_DISK_BUS_SCSI_MMIO) {
        api_json_set_bool(disk, "cdrom", true);
    }
    if (!disks) {
        disks = json_object_new_array();
        api_json_set(config, "disks", disks);
    }
    json_object_array_add(disks, disk);
    file = json_object_new_object();
    api_json_set_str(file, "key", path);
    api_json_set_str(file, "path", path);
    api_json_set_str(file, "what", "cloud-init's seed");
    api_json_set_bool(file, "disk", true);
    api_json_set_bool(file, "write", false);
    api_json_set_str(file, "format", "raw");
    json_object_array_add(files, file);
}
