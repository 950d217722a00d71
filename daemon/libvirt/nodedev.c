/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The host's devices and interfaces, for looking at: PCI functions, network interfaces and disks, as /sys has them. vmd changes none of
 * them. Whoever may look at the host may look at these.
 */
#include "daemon/libvirt/call.h"
#include "daemon/libvirt/parts.h"
#include "daemon/libvirt/procs.h"
#include "daemon/xml/tree.h"
#include "engine/base/fd.h"
#include "engine/base/str.h"

#include <ctype.h>
#include <dirent.h>
#include <limits.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { DEVICES_MAX = 4096 };

/* Capabilities, their bits in the flags of CONNECT_LIST_ALL_NODE_DEVICES, and where /sys lists them. */
static const struct kind {
    const char *cap, *prefix, *folder;
    int64_t flag;
} kinds[] = { { "system", "computer", NULL, 1 },
              { "pci", "pci_", "/sys/bus/pci/devices", 2 },
              { "net", "net_", "/sys/class/net", 16 },
              { "storage", "block_", "/sys/class/block", 128 } };

enum { KINDS = sizeof(kinds) / sizeof(kinds[0]) };

/* A line of a file of /sys; "" where there is none. */
static void line_of(const char *folder, const char *name, const char *file, char *out,
                    size_t size)
{
    char path[PATH_MAX];
    AUTO_BUF text = BUF_INIT;

    out[0] = 0;
    snprintf(path, sizeof(path), "%s/%s/%s", folder, name, file);
    if (file_slurp(path, &text, 4096, NULL) == 0 && text.len) {
        text.data[strcspn(text.data, "\n")] = 0;
        if (xml_can_say(text.data) && !strpbrk(text.data, "<>&'\"")) {
            str_copy(out, size, text.data);
        }
    }
}

/* pci_0000_00_1f_2, net_eth0_52_54_00_...: what a device of /sys is called. */
static void device_name(const struct kind *k, const char *entry, char *name, size_t size)
{
    char mac[64];
    size_t n = (size_t)snprintf(name, size, "%s%s", k->prefix, entry);

    if (strcmp(k->cap, "net") == 0 && n < size) {
        line_of(k->folder, entry, "address", mac, sizeof(mac));
        snprintf(name + n, size - n, "%s%s", mac[0] ? "_" : "", mac);
    }
    for (char *p = name; *p; p++) {
        *p = isalnum((unsigned char)*p) ? *p : '_';
    }
}

/* No name of a folder's own, none that XML would have to write otherwise: the kernel lets interfaces be called almost anything. */
static bool is_plain(const char *entry)
{
    return entry[0] != '.' && !strpbrk(entry, "<>&'\"") && xml_can_say(entry);
}

static bool is_device(const struct kind *k, const char *entry)
{
    char path[PATH_MAX], size[32];

    if (!is_plain(entry)) {
        return false;
    }
    if (strcmp(k->cap, "storage") != 0) {
        return true;
    }
    snprintf(path, sizeof(path), "%s/%s/partition", k->folder, entry);
    line_of(k->folder, entry, "size", size, sizeof(size));
    return strcmp(size, "0") != 0 && access(path, F_OK) != 0 &&
           strncmp(entry, "loop", 4) != 0 && strncmp(entry, "ram", 3) != 0;
}

/* Calls fn for each device until it returns true, which it then does, too. */
static bool each(bool (*fn)(void *arg, const struct kind *k, const char *entry,
                            const char *name),
                 void *arg)
{
    char name[256];
    bool found = fn(arg, &kinds[0], "", "computer");

    for (unsigned i = 1; i < KINDS && !found; i++) {
        DIR *dir = opendir(kinds[i].folder);
        const struct dirent *d;
        for (unsigned n = 0; dir && !found && n < DEVICES_MAX && (d = readdir(dir)); n++) {
            if (is_device(&kinds[i], d->d_name)) {
                device_name(&kinds[i], d->d_name, name, sizeof(name));
                found = fn(arg, &kinds[i], d->d_name, name);
            }
        }
        if (dir) {
            closedir(dir);
        }
    }
    return found;
}

struct wanted {
    const char *name;
    const struct kind *kind;
    char entry[NAME_MAX + 1];
    int64_t flags;
    struct json_object *list;
};

static bool take(void *arg, const struct kind *k, const char *entry, const char *name)
{
    struct wanted *w = arg;

    (void)entry;
    if (!w->flags || (w->flags & k->flag)) {
        json_object_array_add(w->list, lv_object("name", name));
    }
    return false;
}

/* Above the capabilities. What is in /sys is active. */
static const int64_t inactive_flag = INT64_C(1) << 30, active_flag = INT64_C(1) << 31;

static void on_list(struct lv_call *c, struct json_object *info)
{
    int64_t flags = lv_int(c, "flags");
    struct wanted w = { .flags = flags & ~(active_flag | inactive_flag),
                        .list = json_object_new_array() };
    struct json_object *o = json_object_new_object();

    (void)info;
    if ((flags & active_flag) || !(flags & inactive_flag)) {
        each(take, &w);
    }
    api_json_set_int(o, "ret", (int64_t)json_object_array_length(w.list));
    if (lv_int(c, "need_results")) {
        api_json_set(o, "devices", w.list);
    } else {
        json_object_put(w.list);
    }
    lv_reply(c, o);
}

void lv_do_list_devices(struct lv_call *c)
{
    lv_ask(c, NULL, "host.info", NULL, on_list); /* which asks for the role */
}

static bool match(void *arg, const struct kind *k, const char *entry, const char *name)
{
    struct wanted *w = arg;

    if (strcmp(name, w->name) != 0) {
        return false;
    }
    w->kind = k;
    str_copy(w->entry, sizeof(w->entry), entry);
    return true;
}

/* The device of the argument "name"; false: the call has failed. */
static bool find(struct lv_call *c, struct wanted *w)
{
    *w = (struct wanted){ .name = lv_str(c, "name") };
    if (!each(match, w)) {
        lv_fail(c, LV_E_NO_DEVICE, "no node device with matching name '%s'", w->name);
        return false;
    }
    return true;
}

static void on_lookup(struct lv_call *c, struct json_object *info)
{
    struct json_object *o;
    struct wanted w;

    (void)info;
    if (find(c, &w)) {
        o = json_object_new_object();
        api_json_set(o, "dev", lv_object("name", w.name));
        lv_reply(c, o);
    }
}

void lv_do_device_by_name(struct lv_call *c)
{
    lv_ask(c, NULL, "host.info", NULL, on_lookup);
}

static void put_pci(struct buf *b, const struct wanted *w)
{
    unsigned domain, bus, slot, function;
    char class[16], vendor[16], product[16];

    line_of(w->kind->folder, w->entry, "class", class, sizeof(class));
    line_of(w->kind->folder, w->entry, "vendor", vendor, sizeof(vendor));
    line_of(w->kind->folder, w->entry, "device", product, sizeof(product));
    if (sscanf(w->entry, "%x:%x:%x.%x", &domain, &bus, &slot, &function) == 4) {
        buf_printf(b,
                   "    <class>%s</class>\n    <domain>%u</domain>\n    <bus>%u</bus>\n    "
                   "<slot>%u</slot>\n    <function>%u</function>\n    <product id='%s'/>\n    "
                   "<vendor id='%s'/>\n",
                   class, domain, bus, slot, function, product, vendor);
    }
}

static void put_net(struct buf *b, const struct wanted *w)
{
    char mac[64], state[32];

    line_of(w->kind->folder, w->entry, "address", mac, sizeof(mac));
    line_of(w->kind->folder, w->entry, "operstate", state, sizeof(state));
    buf_printf(b, "    <interface>%s</interface>\n", w->entry);
    if (mac[0]) {
        buf_printf(b, "    <address>%s</address>\n", mac);
    }
    buf_printf(b, "    <link state='%s'/>\n",
               strcmp(state, "up") == 0     ? "up"
               : strcmp(state, "down") == 0 ? "down"
                                            : "unknown");
}

static void put_storage(struct buf *b, const struct wanted *w)
{
    char size[32], model[128];

    line_of(w->kind->folder, w->entry, "size", size, sizeof(size));
    line_of(w->kind->folder, w->entry, "device/model", model, sizeof(model));
    buf_printf(b, "    <block>/dev/%s</block>\n    <drive_type>disk</drive_type>\n", w->entry);
    if (model[0]) {
        buf_printf(b, "    <model>%s</model>\n", model);
    }
    buf_printf(b, "    <size>%lld</size>\n", strtoll(size, NULL, 10) * 512);
}

static void put_system(struct buf *b, const struct wanted *w)
{
    AUTO_BUF id = BUF_INIT;

    (void)w;
    if (file_slurp("/etc/machine-id", &id, 64, NULL) < 0 || id.len < 32) {
        buf_add_str(&id, "00000000000000000000000000000000");
    }
    const char *s = id.data;
    buf_printf(b,
               "    <hardware>\n      <uuid>%.8s-%.4s-%.4s-%.4s-%.12s</uuid>\n    </hardware>\n"
               "    <firmware/>\n",
               s, s + 8, s + 12, s + 16, s + 20);
}

static void on_xml(struct lv_call *c, struct json_object *info)
{
    static void (*const put[KINDS])(
        struct buf * b, const struct wanted *w) = { put_system, put_pci, put_net, put_storage };
    AUTO_BUF b = BUF_INIT;
    struct wanted w;

    (void)info;
    if (!find(c, &w)) {
        return;
    }
    buf_printf(&b, "<device>\n  <name>%s</name>\n", w.name);
    if (w.kind != &kinds[0]) {
        buf_add_str(&b, "  <parent>computer</parent>\n");
    }
    buf_printf(&b, "  <capability type='%s'>\n", w.kind->cap);
    put[w.kind - kinds](&b, &w);
    buf_add_str(&b, "  </capability>\n</device>\n");
    lv_reply_str(c, "xml", b.data);
}

void lv_do_device_xml(struct lv_call *c)
{
    lv_ask(c, NULL, "host.info", NULL, on_xml);
}

static void on_parent(struct lv_call *c, struct json_object *info)
{
    struct wanted w;

    (void)info;
    if (find(c, &w)) {
        lv_reply(c, w.kind == &kinds[0] ? NULL : lv_object("parent_name", "computer"));
    }
}

void lv_do_device_parent(struct lv_call *c)
{
    lv_ask(c, NULL, "host.info", NULL, on_parent);
}

static void on_caps(struct lv_call *c, struct json_object *info)
{
    bool counted = strcmp(c->p->name, "NODE_DEVICE_NUM_OF_CAPS") == 0;
    struct json_object *o, *list;
    struct wanted w;

    (void)info;
    if (!find(c, &w)) {
        return;
    }
    o = json_object_new_object();
    if (counted) {
        api_json_set_int(o, "num", 1);
    } else {
        list = json_object_new_array();
        if (lv_int(c, "maxnames") > 0) {
            json_object_array_add(list, json_object_new_string(w.kind->cap));
        }
        api_json_set(o, "names", list);
    }
    lv_reply(c, o);
}

void lv_do_device_caps(struct lv_call *c)
{
    lv_ask(c, NULL, "host.info", NULL, on_caps);
}

/* --- interfaces ----------------------------------------------------------------------------------------- */

static const struct kind *const net = &kinds[2];

static bool interface_up(const char *name)
{
    char flags[16];

    line_of(net->folder, name, "flags", flags, sizeof(flags));
    return strtoul(flags, NULL, 16) & IFF_UP;
}

static struct json_object *interface_handle(const char *name)
{
    struct json_object *o = lv_object("name", name);
    char mac[64];

    line_of(net->folder, name, "address", mac, sizeof(mac));
    api_json_set_str(o, "mac", mac);
    return o;
}

static void on_interfaces(struct lv_call *c, struct json_object *info)
{
    enum { INACTIVE = 1, ACTIVE = 2 };
    struct json_object *o = json_object_new_object(), *list = json_object_new_array();
    int64_t flags = lv_int(c, "flags");
    DIR *dir = opendir(net->folder);
    const struct dirent *d;

    (void)info;
    for (unsigned n = 0; dir && n < DEVICES_MAX && (d = readdir(dir)); n++) {
        if (d->d_name[0] != '.' && (!(flags & (ACTIVE | INACTIVE)) ||
                                    (flags & (interface_up(d->d_name) ? ACTIVE : INACTIVE)))) {
            json_object_array_add(list, interface_handle(d->d_name));
        }
    }
    if (dir) {
        closedir(dir);
    }
    api_json_set_int(o, "ret", (int64_t)json_object_array_length(list));
    if (lv_int(c, "need_results")) {
        api_json_set(o, "ifaces", list);
    } else {
        json_object_put(list);
    }
    lv_reply(c, o);
}

void lv_do_list_interfaces(struct lv_call *c)
{
    lv_ask(c, NULL, "host.info", NULL, on_interfaces);
}

/* The interface of the call, by name or MAC address; false: the call has failed. */
static bool find_interface(struct lv_call *c, char name[IF_NAMESIZE])
{
    const char *wanted = lv_str(c, "name"), *mac = lv_str(c, "mac");
    DIR *dir = opendir(net->folder);
    const struct dirent *d;
    char its[64];
    bool found = false;

    if (!wanted && !mac) {
        wanted = api_json_get_str(api_json_get(c->args, "iface"), "name");
    }
    for (unsigned n = 0; dir && !found && n < DEVICES_MAX && (d = readdir(dir)); n++) {
        if (!is_plain(d->d_name) || strlen(d->d_name) >= IF_NAMESIZE) {
            continue;
        }
        line_of(net->folder, d->d_name, "address", its, sizeof(its));
        found = wanted ? strcmp(d->d_name, wanted) == 0 : strcasecmp(its, mac) == 0;
        if (found) {
            str_copy(name, IF_NAMESIZE, d->d_name);
        }
    }
    if (dir) {
        closedir(dir);
    }
    if (!found) {
        lv_fail(c, LV_E_NO_INTERFACE, "the host has no interface '%s'", wanted ? wanted : mac);
    }
    return found;
}

static void on_interface(struct lv_call *c, struct json_object *info)
{
    char name[IF_NAMESIZE];
    struct json_object *o;

    (void)info;
    if (find_interface(c, name)) {
        o = json_object_new_object();
        api_json_set(o, "iface", interface_handle(name));
        lv_reply(c, o);
    }
}

void lv_do_interface_lookup(struct lv_call *c)
{
    lv_ask(c, NULL, "host.info", NULL, on_interface);
}

static void on_interface_active(struct lv_call *c, struct json_object *info)
{
    char name[IF_NAMESIZE];

    (void)info;
    if (find_interface(c, name)) {
        lv_reply_int(c, "active", interface_up(name));
    }
}

void lv_do_interface_is_active(struct lv_call *c)
{
    lv_ask(c, NULL, "host.info", NULL, on_interface_active);
}

static void on_interface_xml(struct lv_call *c, struct json_object *info)
{
    char name[IF_NAMESIZE], mac[64], mtu[16], bridge[8];
    AUTO_BUF b = BUF_INIT;

    (void)info;
    if (!find_interface(c, name)) {
        return;
    }
    line_of(net->folder, name, "address", mac, sizeof(mac));
    line_of(net->folder, name, "mtu", mtu, sizeof(mtu));
    line_of(net->folder, name, "bridge/stp_state", bridge, sizeof(bridge));
    buf_printf(&b, "<interface type='%s' name='%s'>\n", bridge[0] ? "bridge" : "ethernet",
               name);
    if (mtu[0]) {
        buf_printf(&b, "  <mtu size='%s'/>\n", mtu);
    }
    if (bridge[0]) {
        buf_printf(&b, "  <bridge stp='%s'/>\n", strcmp(bridge, "0") == 0 ? "off" : "on");
    } else if (mac[0]) {
        buf_printf(&b, "  <mac address='%s'/>\n", mac);
    }
    buf_add_str(&b, "</interface>\n");
    lv_reply_str(c, "xml", b.data);
}

void lv_do_interface_xml(struct lv_call *c)
{
    lv_ask(c, NULL, "host.info", NULL, on_interface_xml);
}
