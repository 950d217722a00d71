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

static void put_guest(struct buf *b, struct json_object *arch, const char *emulator)
{
    const char *name = api_json_get_str(arch, "arch");
    struct json_object *engines = api_json_get(arch, "engines");
    const char *machine = json_object_get_string(
        json_object_array_get_idx(api_json_get(arch, "machines"), 0));

    buf_printf(b,
               "  <guest>\n"
               "    <os_type>hvm</os_type>\n"
               "    <arch name='%s'>\n"
               "      <wordsize>%d</wordsize>\n"
               "      <emulator>%s</emulator>\n"
               "      <machine maxCpus='%lld'>%s</machine>\n",
               name, strstr(name, "32") ? 32 : 64, emulator,
               (long long)api_json_get_int(arch, "max_cpus", 1),
               machine && strcmp(machine, "rv-virt") != 0 ? machine : "virt");
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
