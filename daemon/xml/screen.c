/* SPDX-License-Identifier: Apache-2.0 */
/* Conversions of domain XML that take more than one element. See screen.h. */
#include "daemon/xml/screen.h"

#include "api-schema/json/json.h"
#include "daemon/xml/channels.h"
#include "daemon/xml/extras.h"
#include "daemon/xml/tree.h"
#include "engine/base/buf.h"
#include "engine/base/mem.h"
#include "engine/base/str.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- the screen ---- */

static const struct {
    const char *model, *address, *ours;
} screens[] = { { "virtio", "pci", "virtio" },
                { "virtio", "virtio-mmio", "virtio-mmio" },
                { "bochs", "pci", "bochs" },
                { "vga", "pci", "vga" } };

static const struct xml_node *model_of(const struct xml_node *video)
{
    const struct xml_node *model = video ? xml_get_kid(video, "model") : NULL;

    return model && xml_get_attr(model, "type") ? model : NULL;
}

/* The <video> of a domain's <devices> that shows something; NULL: none. */
static const struct xml_node *video_of(const struct xml_node *devices)
{
    const struct xml_node *video = xml_get_kid(devices, "video"), *model = model_of(video);

    return model && strcmp(xml_get_attr(model, "type"), "none") != 0 ? video : NULL;
}

static bool has_input(const struct xml_node *devices)
{
    for (size_t i = 0; i < devices->n_kids; i++) {
        const struct xml_node *n = devices->kids[i];
        const char *bus = n->name && strcmp(n->name, "input") == 0 ? xml_get_attr(n, "bus")
                                                                   : "usb";

        if (!bus || strcmp(bus, "usb") != 0) {
            return true;
        }
    }
    return false;
}

static int get_size(const struct xml_node *model, struct json_object *o, struct err *e)
{
    static const char *const names[][2] = { { "x", "width" }, { "y", "height" } };
    const struct xml_node *size = xml_get_kid(model, "resolution");

    for (unsigned i = 0; size && i < ARRAY_LEN(names); i++) {
        const char *text = xml_get_attr(size, names[i][0]);
        uint64_t value;
        if (!text || str_to_u64(text, 1, 100000, "resolution", &value, e) < 0) {
            return text ? -1 : err_set(e, -EINVAL, "a <resolution> has x and y");
        }
        api_json_set_int(o, names[i][1], (int64_t)value);
    }
    return 0;
}

static int video_get(const struct xml_row *row, const struct xml_node *n, const char *text,
                     struct json_object **out, struct err *e)
{
    const struct xml_node *model = model_of(n), *address = xml_get_kid(n, "address");
    const char *type = model ? xml_get_attr(model, "type") : NULL,
               *at = address ? xml_get_attr(address, "type") : NULL;
    AUTO_JSON o = json_object_new_object();

    (void)row;
    (void)text;
    if (!type) {
        return err_set(e, -EINVAL, "<model type> is missing");
    }
    if (strcmp(type, "none") == 0) {
        return 0;
    }
    for (unsigned i = 0; i < ARRAY_LEN(screens); i++) {
        if (strcmp(type, screens[i].model) == 0 &&
            strcmp(at ? at : "pci", screens[i].address) == 0) {
            api_json_set_str(o, "device", screens[i].ours);
            api_json_set_bool(o, "input", has_input(n->parent));
            if (get_size(model, o, e) < 0) {
                return -1;
            }
            *out = json_object_get(o);
            return 0;
        }
    }
    return err_set(
        e, -EINVAL,
        "not supported: a screen '%.20s'%s%.20s%s; vmd's are virtio (at pci or virtio-mmio), "
        "bochs and vga (at pci)",
        type, at ? " at an address of type '" : "", at ? at : "", at ? "'" : "");
}

static bool video_put(const struct xml_row *row, struct json_object *v, struct xml_node *n,
                      struct buf *text)
{
    const char *device = api_json_get_str(v, "device");
    struct xml_node *k, *size;
    char number[24];

    (void)row;
    (void)text;
    for (unsigned i = 0; device && i < ARRAY_LEN(screens); i++) {
        if (strcmp(device, screens[i].ours) != 0) {
            continue;
        }
        k = xml_node_new(n, "model");
        xml_set_attr(k, "type", screens[i].model);
        size = xml_node_new(k, "resolution");
        snprintf(number, sizeof(number), "%d", (int)api_json_get_int(v, "width", 0));
        xml_set_attr(size, "x", number);
        snprintf(number, sizeof(number), "%d", (int)api_json_get_int(v, "height", 0));
        xml_set_attr(size, "y", number);
        if (strcmp(screens[i].address, "pci") != 0) {
            xml_set_attr(xml_node_new(n, "address"), "type", screens[i].address);
        }
        return true;
    }
    return false;
}

static bool says_yes(const struct xml_node *n, const char *attr, bool otherwise)
{
    const char *text = xml_get_attr(n, attr);

    return text ? strcmp(text, "yes") == 0 : otherwise;
}

static int graphics_get(const struct xml_row *row, const struct xml_node *n, const char *text,
                        struct json_object **out, struct err *e)
{
    (void)row;
    if (strcmp(text, "vnc") != 0) {
        return err_set(e, -EINVAL, "not supported: '%.20s'; a screen is seen by VNC", text);
    }
    if (xml_get_kid(n->parent, "video")) {
        return video_of(n->parent)
                   ? 0
                   : err_set(e, -EINVAL, "there is no screen to look at: <video> is none");
    }
    *out = json_object_new_object();
    api_json_set_bool(*out, "input", has_input(n->parent));
    return 0;
}

static bool graphics_put(const struct xml_row *row, struct json_object *v, struct xml_node *n,
                         struct buf *text)
{
    (void)row;
    (void)v;
    buf_add_str(text, "vnc");
    if (!xml_get_kid(n, "listen")) {
        xml_set_attr(n, "type", "vnc"); /* comes first */
        xml_set_attr(n, "port", "-1");
        xml_set_attr(n, "autoport", "yes");
        xml_set_attr(xml_node_new(n, "listen"), "type", "socket");
    }
    return true;
}

/* ---- where viewers on the network are waited for ---- */

/* What the definition has where the XML has nothing to say it with. */
static const char *security_at(const char *address)
{
    bool here = str_starts(address, "127.") || strcmp(address, "::1") == 0;

    return here ? "none" : "tls-password";
}

static int listener_get(const struct xml_row *row, const struct xml_node *n, const char *text,
                        struct json_object **out, struct err *e)
{
    const struct xml_node *k = xml_get_kid(n, "listen");
    const char *type = k ? xml_get_attr(k, "type") : NULL,
               *at = k ? xml_get_attr(k, "address") : NULL, *number = xml_get_attr(n, "port");
    bool any = says_yes(n, "autoport", false) || !number || strcmp(number, "-1") == 0;
    uint64_t port = 0;
    AUTO_BUF where = BUF_INIT;

    (void)row;
    (void)text;
    if (k && (!type || (strcmp(type, "address") != 0 && strcmp(type, "socket") != 0 &&
                        strcmp(type, "none") != 0))) {
        return err_set(e, -EINVAL, "not supported: VNC is at an address or a socket of vmd");
    }
    if (!any && str_to_u64(number, 1, 65535, "port", &port, e) < 0) {
        return -1;
    }
    at = at ? at : xml_get_attr(n, "listen");
    if (k && strcmp(type, "address") != 0) {
        return 0; /* a socket, whatever else is said */
    }
    if (!at && !port && !k) {
        return 0;
    }
    at = !at || strcmp(at, "localhost") == 0 ? "127.0.0.1" : at;
    buf_printf(&where, strchr(at, ':') ? "[%s]" : "%s", at);
    if (port) {
        buf_printf(&where, ":%d", (int)port);
    }
    *out = json_object_new_object();
    api_json_set_str(*out, "listen", where.data);
    api_json_set_str(*out, "security", security_at(at));
    return 0;
}

/* ADDRESS, ADDRESS:PORT or [ADDRESS]:PORT. */
static bool listener_put(const struct xml_row *row, struct json_object *v, struct xml_node *n,
                         struct buf *text)
{
    const char *where = api_json_get_str(v, "listen"),
               *security = api_json_get_str(v, "security"), *colon;
    AUTO_FREE char *host = NULL;
    struct xml_node *k;

    (void)row;
    (void)text;
    if (!where || !security || !where[0] || where[0] == '*' || where[0] == ':') {
        return false;
    }
    colon = strrchr(where, ':');
    if (where[0] == '[') {
        const char *end = strchr(where, ']');
        if (!end || (end[1] && end[1] != ':')) {
            return false;
        }
        host = xstrndup(where + 1, (size_t)(end - where - 1));
        colon = end[1] ? end + 1 : NULL;
    } else if (colon && strchr(where, ':') == colon) {
        host = xstrndup(where, (size_t)(colon - where));
    } else {
        host = xstrdup(where);
        colon = NULL;
    }
    if (strcmp(security, security_at(host)) != 0) {
        return false;
    }
    xml_set_attr(n, "type", "vnc");
    xml_set_attr(n, "port", colon ? colon + 1 : "-1");
    xml_set_attr(n, "autoport", colon ? "no" : "yes");
    xml_set_attr(n, "listen", host);
    k = xml_node_new(n, "listen");
    xml_set_attr(k, "type", "address");
    xml_set_attr(k, "address", host);
    return true;
}

/* Both attributes together say which device it is; the row of the type checks them. */
static int input_get(const struct xml_row *row, const struct xml_node *n, const char *text,
                     struct json_object **out, struct err *e)
{
    static const char *const types[] = { "tablet", "keyboard", "mouse" };
    const char *bus = xml_get_attr(n, "bus");
    bool known = false, usb = bus && strcmp(bus, "usb") == 0;

    (void)row;
    for (unsigned i = 0; i < ARRAY_LEN(types); i++) {
        known |= strcmp(text, types[i]) == 0 && (usb || i < 2);
    }
    if (bus && !usb && strcmp(bus, "virtio") != 0) {
        return err_set(e, -EINVAL,
                       "not supported: vmd's buses of input devices are virtio and usb");
    }
    if (!known) {
        return err_set(e, -EINVAL,
                       "not supported: vmd knows tablet and keyboard, and by usb the mouse");
    }
    if (!usb && !video_of(n->parent) &&
        (xml_get_kid(n->parent, "video") || !xml_get_kid(n->parent, "graphics"))) {
        return err_set(e, -EINVAL,
                       "not supported: tablet and keyboard by virtio come with a screen");
    }
    *out = json_object_new_string(text);
    return 0;
}

static bool input_put(const struct xml_row *row, struct json_object *v, struct xml_node *n,
                      struct buf *text)
{
    (void)row;
    (void)n;
    buf_add_str(text, json_object_get_string(v));
    return true;
}

static void add_input(struct json_object *list, const char *type, const char *bus,
                      const char *port)
{
    struct json_object *o = json_object_new_object();

    api_json_set_str(o, "type", type);
    if (bus) {
        api_json_set_str(o, "bus", bus);
    }
    if (port) {
        api_json_set_str(o, "port", port);
    }
    json_object_array_add(list, o);
}

static size_t length(struct json_object *list)
{
    return json_object_is_type(list, json_type_array) ? json_object_array_length(list) : 0;
}

/* <input> and <hub> are two lists: together, without those that come with the screen, they are the USB devices. */
static void read_inputs(struct json_object *definition)
{
    struct json_object *inputs = api_json_get(definition, "usb"),
                       *hubs = api_json_get(definition, "hubs"), *all = json_object_new_array();

    for (size_t i = 0; i < length(hubs); i++) {
        add_input(all, "hub", NULL,
                  api_json_get_str(json_object_array_get_idx(hubs, i), "port"));
    }
    for (size_t i = 0; i < length(inputs); i++) {
        struct json_object *o = json_object_array_get_idx(inputs, i);
        const char *bus = api_json_get_str(o, "bus");

        if (bus && strcmp(bus, "usb") == 0 && api_json_get_str(o, "type")) {
            add_input(all, api_json_get_str(o, "type"), NULL, api_json_get_str(o, "port"));
        }
    }
    json_object_object_del(definition, "hubs");
    json_object_object_del(definition, "usb");
    if (length(all) > 0) {
        api_json_set(definition, "usb", all);
    } else {
        json_object_put(all);
    }
}

static void written_inputs(struct json_object *definition)
{
    struct json_object *usb = api_json_get(definition, "usb"),
                       *display = api_json_get(definition, "display"),
                       *inputs = json_object_new_array(), *hubs = json_object_new_array();

    for (size_t i = 0; i < length(usb); i++) {
        struct json_object *o = json_object_array_get_idx(usb, i);
        const char *type = api_json_get_str(o, "type");
        bool hub = type && strcmp(type, "hub") == 0;

        if (type) {
            add_input(hub ? hubs : inputs, type, "usb", api_json_get_str(o, "port"));
        }
    }
    if (display && api_json_get_bool(display, "input", true)) {
        add_input(inputs, "tablet", "virtio", NULL);
        add_input(inputs, "keyboard", "virtio", NULL);
    }
    api_json_set(definition, "usb", inputs);
    api_json_set(definition, "hubs", hubs);
}

void xml_read_domain(struct json_object *definition)
{
    xml_read_channels(definition);
    xml_read_memory(definition);
    xml_read_shares(definition);
    read_inputs(definition);
}

void xml_written_domain(struct json_object *definition)
{
    xml_written_channels(definition);
    xml_written_memory(definition);
    xml_written_shares(definition);
    written_inputs(definition);
    if (!api_json_get(definition, "display")) { /* <graphics> says that there is a screen */
        json_object_object_del(definition, "vnc");
    }
}

/* ---- firmware in flash ---- */

static bool in_flash(const struct xml_node *loader)
{
    const char *type = loader ? xml_get_attr(loader, "type") : NULL;

    return type && strcmp(type, "pflash") == 0;
}

static int loader_get(const struct xml_row *row, const struct xml_node *n, const char *text,
                      struct json_object **out, struct err *e)
{
    if (in_flash(n)) {
        return 0; /* the row of its type takes it */
    }
    if (!says_yes(n, "readonly", true)) {
        return err_set(e, -EINVAL, "not supported: firmware that is no flash is only read");
    }
    return xml_as_path.get(row, n, text, out, e);
}

static bool loader_put(const struct xml_row *row, struct json_object *v, struct xml_node *n,
                       struct buf *text)
{
    return xml_as_path.put(row, v, n, text);
}

static int add_bank(struct json_object *list, const struct xml_row *row,
                    const struct xml_node *n, bool readonly, struct err *e)
{
    AUTO_FREE char *text = xml_text(n);
    struct json_object *file = NULL, *bank;

    if (xml_as_path.get(row, n, text, &file, e) < 0 || !file) {
        return -1;
    }
    bank = json_object_new_object();
    api_json_set(bank, "file", file);
    api_json_set_bool(bank, "readonly", readonly);
    json_object_array_add(list, bank);
    return 0;
}

static int flash_get(const struct xml_row *row, const struct xml_node *n, const char *text,
                     struct json_object **out, struct err *e)
{
    const struct xml_node *nvram = xml_get_kid(n->parent, "nvram");
    AUTO_JSON list = json_object_new_array();

    if (strcmp(text, "rom") == 0) {
        return 0;
    }
    if (strcmp(text, "pflash") != 0) {
        return err_set(e, -EINVAL, "not supported: '%.20s'; vmd knows rom and pflash", text);
    }
    if (add_bank(list, row, n, says_yes(n, "readonly", false), e) < 0 ||
        (nvram && add_bank(list, row, nvram, false, e) < 0)) {
        return -1;
    }
    *out = json_object_get(list);
    return 0;
}

/* The text of the loader is written before its attributes; a file that runs in machine mode and flash together cannot be said. */
static bool flash_put(const struct xml_row *row, struct json_object *v, struct xml_node *n,
                      struct buf *text)
{
    AUTO_FREE char *firmware = xml_text(n);
    size_t n_banks = json_object_is_type(v, json_type_array) ? json_object_array_length(v) : 0;
    struct json_object *code = n_banks ? json_object_array_get_idx(v, 0) : NULL,
                       *vars = n_banks > 1 ? json_object_array_get_idx(v, 1) : NULL;

    (void)row;
    if (firmware && firmware[0]) {
        buf_add_str(text, "rom");
        xml_set_attr(n, "readonly", "yes");
        return true;
    }
    if (!code || !xml_can_say(api_json_get_str(code, "file"))) {
        return false;
    }
    buf_add_str(text, "pflash");
    xml_set_attr(n, "readonly", api_json_get_bool(code, "readonly", false) ? "yes" : "no");
    xml_add_text(n, api_json_get_str(code, "file"));
    if (vars && xml_can_say(api_json_get_str(vars, "file"))) {
        xml_add_text(xml_node_new(n->parent, "nvram"), api_json_get_str(vars, "file"));
    }
    return true;
}

static int nvram_get(const struct xml_row *row, const struct xml_node *n, const char *text,
                     struct json_object **out, struct err *e)
{
    (void)row;
    (void)text;
    (void)out;
    return in_flash(xml_get_kid(n->parent, "loader"))
               ? 0
               : err_set(e, -EINVAL,
                         "not supported: variables without a <loader type='pflash'>");
}

static bool nvram_put(const struct xml_row *row, struct json_object *v, struct xml_node *n,
                      struct buf *text)
{
    (void)row;
    (void)v;
    (void)n;
    (void)text;
    return false; /* the row of the loader's type does */
}

/* ---- disks ---- */

static int kind_get(const struct xml_row *row, const struct xml_node *n, const char *text,
                    struct json_object **out, struct err *e)
{
    const struct xml_node *source = xml_get_kid(n, "source");
    bool volume = strcmp(text, "volume") == 0;
    const char *pool = source ? xml_get_attr(source, "pool") : NULL,
               *name = source ? xml_get_attr(source, "volume") : NULL,
               *file = source ? xml_get_attr(source, "file") : NULL;

    (void)row;
    (void)out;
    if (!volume && strcmp(text, "file") != 0 && strcmp(text, "network") != 0) {
        return err_set(e, -EINVAL,
                       "not supported: '%.20s'; disks are image files, volumes of pools and "
                       "exports of NBD servers",
                       text);
    }
    if (!source) { /* a drive without a medium */
        const struct xml_node *target = xml_get_kid(n, "target");
        const char *device = xml_get_attr(n, "device"),
                   *removable = target ? xml_get_attr(target, "removable") : NULL;

        return (device && strcmp(device, "cdrom") == 0) ||
                       (removable && strcmp(removable, "on") == 0)
                   ? 0
                   : err_set(e, -EINVAL, "<source> is missing");
    }
    if (strcmp(text, "network") == 0) {
        return !xml_get_attr(source, "protocol") || pool || name || file
                   ? err_set(e, -EINVAL,
                             "an export is named by <source protocol='nbd' name='...'>")
                   : 0;
    }
    if (volume && (!pool || !name || file)) {
        return err_set(e, -EINVAL, "a volume is named by <source pool='...' volume='...'/>");
    }
    return !volume && (!file || pool || name)
               ? err_set(e, -EINVAL, "an image is named by <source file='...'/>")
               : 0;
}

static bool kind_put(const struct xml_row *row, struct json_object *v, struct xml_node *n,
                     struct buf *text)
{
    (void)row;
    (void)n;
    buf_add_str(text, v ? "volume" : "file");
    return true;
}

const struct xml_conv xml_as_video = {
    video_get, video_put, "model `virtio` (at `pci` or `virtio-mmio`), `bochs`, `vga`, `none`"
};
const struct xml_conv xml_as_graphics = { graphics_get, graphics_put, "`vnc`" };
const struct xml_conv xml_as_listener = { listener_get, listener_put,
                                          "a socket of vmd, or an address of this host" };
const struct xml_conv xml_as_input = { input_get, input_put,
                                       "`tablet`, `keyboard`; by USB also `mouse`" };
const struct xml_conv xml_as_loader = { loader_get, loader_put, "an absolute path" };
const struct xml_conv xml_as_flash = { flash_get, flash_put, "`rom`, `pflash`" };
const struct xml_conv xml_as_nvram = { nvram_get, nvram_put, "an absolute path" };
const struct xml_conv xml_as_disk_kind = { kind_get, kind_put, "`file`, `volume`, `network`" };
