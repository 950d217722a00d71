/* SPDX-License-Identifier: Apache-2.0 */
/*
 * query-pci: the emulator's flat list of functions, in which a bridge comes before what is behind it, as QMP's tree of buses.
 * Loop thread.
 */
#include "daemon/qmp/cmd.h"

#include <string.h>

enum { FUNCTIONS_MAX = 512, DEPTH_MAX = 8 };

static const struct {
    unsigned number; /* class and sub-class */
    const char *desc;
} classes[] = { { 0x0100, "SCSI controller" },
                { 0x0101, "IDE controller" },
                { 0x0106, "SATA controller" },
                { 0x0108, "NVMe controller" },
                { 0x0180, "Storage controller" },
                { 0x0200, "Ethernet controller" },
                { 0x0280, "Network controller" },
                { 0x0300, "VGA controller" },
                { 0x0380, "Display controller" },
                { 0x0403, "Audio device" },
                { 0x0480, "Multimedia device" },
                { 0x0500, "RAM controller" },
                { 0x0600, "Host bridge" },
                { 0x0604, "PCI bridge" },
                { 0x0780, "Communication device" },
                { 0x0880, "System peripheral" },
                { 0x0900, "Keyboard" },
                { 0x0c03, "USB controller" } };

struct tree {
    struct json_object *list;
    size_t at, n;
};

static int64_t get(struct json_object *from, const char *name)
{
    return api_json_get_int(from, name, 0);
}

static struct json_object *bars_of(struct json_object *f)
{
    struct json_object *from = api_json_get(f, "bars"), *list = json_object_new_array();
    size_t n = json_object_is_type(from, json_type_array) ? json_object_array_length(from) : 0;

    for (size_t i = 0; i < n; i++) {
        struct json_object *b = json_object_array_get_idx(from, i),
                           *o = json_object_new_object();
        bool io = api_json_get_bool(b, "io", false);
        if (!io) {
            api_json_set_bool(o, "prefetch", api_json_get_bool(b, "prefetch", false));
            api_json_set_bool(o, "mem_type_64", api_json_get_bool(b, "wide", false));
        }
        api_json_set_int(o, "bar", get(b, "bar"));
        api_json_set_int(o, "size", get(b, "size"));
        api_json_set_int(o, "address", api_json_get_int(b, "address", -1));
        api_json_set_str(o, "type", io ? "io" : "memory");
        json_object_array_add(list, o);
    }
    return list;
}

static struct json_object *range_of(struct json_object *f, unsigned i)
{
    struct json_object *from = api_json_get(f, "windows"), *o = json_object_new_object();
    bool there = json_object_is_type(from, json_type_array) &&
                 i < json_object_array_length(from);
    struct json_object *w = there ? json_object_array_get_idx(from, i) : NULL;

    api_json_set_int(o, "base", get(w, "base"));
    api_json_set_int(o, "limit", get(w, "limit"));
    return o;
}

static struct json_object *devices_on(struct tree *t, int depth);

static void set_bridge(struct json_object *o, struct tree *t, struct json_object *f,
                       int64_t bus, int depth)
{
    static const char *const ranges[] = { "io_range", "memory_range", "prefetchable_range" };
    struct json_object *bridge = json_object_new_object(), *b = json_object_new_object();

    for (unsigned i = 0; i < 3; i++) {
        api_json_set(b, ranges[i], range_of(f, i));
    }
    api_json_set_int(b, "number", bus);
    api_json_set_int(b, "secondary", get(f, "secondary"));
    api_json_set_int(b, "subordinate", get(f, "subordinate"));
    api_json_set(bridge, "bus", b);
    struct json_object *behind = devices_on(t, depth + 1);
    if (get(f, "secondary") != 0 || json_object_array_length(behind) > 0) {
        api_json_set(bridge, "devices", behind);
    } else {
        json_object_put(
            behind); /* it has no number yet, and QMP knows buses by their numbers */
    }
    api_json_set(o, "pci_bridge", bridge);
}

static struct json_object *id_of(struct json_object *f)
{
    struct json_object *o = json_object_new_object();

    api_json_set_int(o, "device", get(f, "device"));
    api_json_set_int(o, "vendor", get(f, "vendor"));
    if (api_json_get(f, "sub_vendor")) {
        api_json_set_int(o, "subsystem", get(f, "sub_device"));
        api_json_set_int(o, "subsystem-vendor", get(f, "sub_vendor"));
    }
    return o;
}

static struct json_object *class_of(struct json_object *f)
{
    struct json_object *o = json_object_new_object();
    int64_t number = get(f, "device_class");

    for (unsigned i = 0; i < sizeof(classes) / sizeof(classes[0]); i++) {
        if (classes[i].number == number) {
            api_json_set_str(o, "desc", classes[i].desc);
        }
    }
    api_json_set_int(o, "class", number);
    return o;
}

static struct json_object *device_of(struct tree *t, struct json_object *f, int depth)
{
    struct json_object *o = json_object_new_object();
    const char *id = api_json_get_str(f, "id");
    int64_t bus = get(f, "bus"), pin = get(f, "pin");

    api_json_set_int(o, "bus", bus);
    api_json_set_int(o, "slot", get(f, "slot"));
    api_json_set_int(o, "function", get(f, "function"));
    api_json_set_str(o, "qdev_id", id ? id : "");
    api_json_set_int(o, "irq_pin", pin);
    if (pin > 0) {
        api_json_set_int(o, "irq", get(f, "line"));
    }
    api_json_set(o, "class_info", class_of(f));
    api_json_set(o, "id", id_of(f));
    api_json_set(o, "regions", bars_of(f));
    if (api_json_get(f, "secondary") && depth < DEPTH_MAX) {
        set_bridge(o, t, f, bus, depth);
    }
    return o;
}

/* Those of one bus stand together, but for what is behind their bridges. */
static struct json_object *devices_on(struct tree *t, int depth)
{
    struct json_object *list = json_object_new_array();

    while (t->at < t->n) {
        struct json_object *f = json_object_array_get_idx(t->list, t->at);
        if (get(f, "depth") < depth) {
            break;
        }
        t->at++;
        json_object_array_add(list, device_of(t, f, depth));
    }
    return list;
}

static void on_functions(struct qmp_cmd *c, struct json_object *result)
{
    struct json_object *out = json_object_new_array(), *root;
    struct tree t = { .list = api_json_get(result, "functions") };

    t.n = json_object_is_type(t.list, json_type_array) ? json_object_array_length(t.list) : 0;
    t.n = t.n < FUNCTIONS_MAX ? t.n : FUNCTIONS_MAX;
    if (t.n > 0) {
        root = json_object_new_object();
        api_json_set_int(root, "bus", 0);
        api_json_set(root, "devices", devices_on(&t, 0));
        json_object_array_add(out, root);
    }
    qmp_return(c, out);
}

void qmp_do_query_pci(struct qmp_cmd *c)
{
    qmp_ask(c, "emu.pci", NULL, on_functions);
}
