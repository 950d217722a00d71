/* SPDX-License-Identifier: Apache-2.0 */
/* Capabilities of the host, as libvirt's XML: what vmd runs, nothing else. */
#include "daemon/daemon.h"
#include "daemon/libvirt/call.h"
#include "daemon/libvirt/procs.h"
#include "daemon/xml/xml.h"
#include "engine/base/fd.h"

#include <stdio.h>
#include <string.h>

/* The machine's own identity, as a UUID; none where the host has none. */
static void put_uuid(struct buf *b)
{
    AUTO_BUF id = BUF_INIT;

    if (file_slurp("/etc/machine-id", &id, 64, NULL) == 0 && id.len >= 32) {
        const char *s = id.data;
        buf_printf(b, "    <uuid>%.8s-%.4s-%.4s-%.4s-%.12s</uuid>\n", s, s + 8, s + 12, s + 16,
                   s + 20);
    }
}

static void put_host(struct buf *b, struct json_object *info)
{
    int64_t cpus = api_json_get_int(info, "cpus", 1);

    buf_add_str(b, "  <host>\n");
    put_uuid(b);
    buf_printf(b,
               "    <cpu>\n"
               "      <arch>%s</arch>\n"
               "      <topology sockets='1' dies='1' cores='%lld' threads='1'/>\n"
               "    </cpu>\n"
               "    <migration_features>\n"
               "      <live/>\n"
               "    </migration_features>\n"
               "    <topology>\n"
               "      <cells num='1'>\n"
               "        <cell id='0'>\n"
               "          <memory unit='KiB'>%lld</memory>\n"
               "          <cpus num='%lld'>\n",
               api_json_get_str(info, "arch"), (long long)cpus,
               (long long)(api_json_get_int(info, "memory", 0) / 1024), (long long)cpus);
    for (int64_t i = 0; i < cpus; i++) {
        buf_printf(b,
                   "            <cpu id='%lld' socket_id='0' die_id='0' core_id='%lld' "
                   "siblings='%lld'/>\n",
                   (long long)i, (long long)i, (long long)i);
    }
    buf_add_str(b, "          </cpus>\n"
                   "        </cell>\n"
                   "      </cells>\n"
                   "    </topology>\n"
                   "  </host>\n");
}

/* As libvirt calls it. */
static const char *machine_at(struct json_object *machines, size_t i)
{
    const char *name = json_object_get_string(json_object_array_get_idx(machines, i));

    return name && strcmp(name, "rv-virt") != 0 ? name : "virt";
}

static void put_guest(struct buf *b, struct json_object *arch, const char *emulator)
{
    const char *name = api_json_get_str(arch, "arch");
    struct json_object *engines = api_json_get(arch, "engines");
    struct json_object *machines = api_json_get(arch, "machines");

    buf_printf(b,
               "  <guest>\n"
               "    <os_type>hvm</os_type>\n"
               "    <arch name='%s'>\n"
               "      <wordsize>%d</wordsize>\n"
               "      <emulator>%s</emulator>\n",
               name, strstr(name, "32") ? 32 : 64, emulator);
    for (size_t i = 0; machines && i < json_object_array_length(machines); i++) {
        buf_printf(b, "      <machine maxCpus='%lld'>%s</machine>\n",
                   (long long)api_json_get_int(arch, "max_cpus", 1), machine_at(machines, i));
    }
    for (size_t i = 0; engines && i < json_object_array_length(engines); i++) {
        const char *engine = json_object_get_string(json_object_array_get_idx(engines, i));
        buf_printf(b, "      <domain type='%s'/>\n",
                   strcmp(engine, "kvm") == 0 ? "kvm" : "qemu");
    }
    buf_add_str(b, "    </arch>\n"
                   "  </guest>\n");
}

static void on_capabilities(struct lv_call *c, struct json_object *result)
{
    struct json_object *archs = api_json_get(result, "archs");
    AUTO_BUF b = BUF_INIT;

    buf_add_str(&b, "<capabilities>\n");
    put_host(&b, c->kept);
    for (size_t i = 0; i < json_object_array_length(archs); i++) {
        put_guest(&b, json_object_array_get_idx(archs, i),
                  api_json_get_str(result, "emulator"));
    }
    buf_add_str(&b, "</capabilities>\n");
    lv_reply(c, lv_object("capabilities", b.data));
}

static void on_host(struct lv_call *c, struct json_object *info)
{
    c->kept = json_object_get(info);
    lv_ask(c, NULL, "host.capabilities", NULL, on_capabilities);
}

void lv_do_capabilities(struct lv_call *c)
{
    lv_ask(c, NULL, "host.info", NULL, on_host);
}

/* --- of one machine --------------------------------------------------------------------------------- */

static void put_enum(struct buf *b, const char *name, const char *const *values)
{
    buf_printf(b, "      <enum name='%s'>\n", name);
    for (; *values; values++) {
        buf_printf(b, "        <value>%s</value>\n", *values);
    }
    buf_add_str(b, "      </enum>\n");
}

static void put_os(struct buf *b)
{
    static const char *const none[] = { NULL }, *const types[] = { "rom", "pflash", NULL },
                             *const readonly[] = { "yes", "no", NULL },
                             *const secure[] = { "no", NULL };

    buf_add_str(b, "  <os supported='yes'>\n");
    put_enum(b, "firmware", none);
    buf_add_str(b, "    <loader supported='yes'>\n");
    put_enum(b, "type", types);
    put_enum(b, "readonly", readonly);
    put_enum(b, "secure", secure);
    buf_add_str(b, "    </loader>\n  </os>\n");
}

static void put_cpu(struct buf *b, struct json_object *arch)
{
    struct json_object *models = api_json_get(arch, "cpus");

    buf_add_str(b, "  <cpu>\n"
                   "    <mode name='host-passthrough' supported='no'/>\n"
                   "    <mode name='maximum' supported='yes'/>\n"
                   "    <mode name='host-model' supported='no'/>\n"
                   "    <mode name='custom' supported='yes'>\n");
    for (size_t i = 0; models && i < json_object_array_length(models); i++) {
        buf_printf(b, "      <model usable='yes' vendor='unknown'>%s</model>\n",
                   json_object_get_string(json_object_array_get_idx(models, i)));
    }
    buf_add_str(b, "    </mode>\n  </cpu>\n");
}

/* A device and, of each of its enums, what there is. */
static void put_devices(struct buf *b)
{
    static const struct {
        const char *device, *name;
        const char *values[8];
    } rows[] = { { "disk", "diskDevice", { "disk", "cdrom" } },
                 { NULL, "bus", { "virtio", "scsi", "sata", "usb" } },
                 { "graphics", "type", { "vnc" } },
                 { "video", "modelType", { "virtio", "bochs", "vga" } },
                 { "rng", "model", { "virtio" } },
                 { NULL, "backendModel", { "random" } },
                 { "filesystem", "driverType", { "virtiofs" } },
                 { "channel", "type", { "unix" } } };

    buf_add_str(b, "  <devices>\n");
    for (unsigned i = 0; i < ARRAY_LEN(rows); i++) {
        if (rows[i].device) {
            buf_printf(b, "    <%s supported='yes'>\n", rows[i].device);
        }
        put_enum(b, rows[i].name, rows[i].values);
        if (i + 1 == ARRAY_LEN(rows) || rows[i + 1].device) {
            const char *device = rows[i].device ? rows[i].device : rows[i - 1].device;
            buf_printf(b, "    </%s>\n", device);
        }
    }
    buf_add_str(b, "  </devices>\n");
}

static void on_machine(struct lv_call *c, struct json_object *result)
{
    struct json_object *archs = api_json_get(result, "archs"), *arch = NULL;
    const char *wanted = lv_str(c, "arch"), *type = lv_str(c, "virttype");
    AUTO_BUF b = BUF_INIT;

    for (size_t i = 0; i < json_object_array_length(archs) && !arch; i++) {
        struct json_object *one = json_object_array_get_idx(archs, i);
        arch = !wanted || strcmp(wanted, api_json_get_str(one, "arch")) == 0 ? one : NULL;
    }
    if (!arch || (type && strcmp(type, "qemu") != 0 && strcmp(type, "kvm") != 0)) {
        lv_fail(c, LV_E_INVALID_ARG, "vmd runs no domains of type '%s' for '%s'",
                type ? type : "qemu", wanted ? wanted : "any architecture");
        return;
    }
    buf_printf(&b,
               "<domainCapabilities>\n"
               "  <path>%s</path>\n"
               "  <domain>%s</domain>\n"
               "  <machine>virt</machine>\n"
               "  <arch>%s</arch>\n"
               "  <vcpu max='%lld'/>\n"
               "  <iothreads supported='yes'/>\n",
               api_json_get_str(result, "emulator"), type ? type : "qemu",
               api_json_get_str(arch, "arch"),
               (long long)api_json_get_int(arch, "max_cpus", 1));
    put_os(&b);
    put_cpu(&b, arch);
    put_devices(&b);
    buf_add_str(&b, "  <features>\n"
                    "    <gic supported='no'/>\n"
                    "    <vmcoreinfo supported='no'/>\n"
                    "    <genid supported='no'/>\n"
                    "    <backingStoreInput supported='no'/>\n"
                    "    <backup supported='no'/>\n"
                    "    <sev supported='no'/>\n"
                    "  </features>\n"
                    "</domainCapabilities>\n");
    lv_reply(c, lv_object("capabilities", b.data));
}

void lv_do_domain_capabilities(struct lv_call *c)
{
    lv_ask(c, NULL, "host.capabilities", NULL, on_machine);
}
