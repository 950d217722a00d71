/* SPDX-License-Identifier: Apache-2.0 */
/* See extras.h. */
#include "daemon/xml/extras.h"

#include "api-schema/json/json.h"
#include "daemon/xml/tree.h"
#include "engine/base/buf.h"
#include "engine/base/mem.h"
#include "engine/base/str.h"

#include <errno.h>
#include <string.h>

/* ---- the balloon ---- */

static const char *balloon_model(const struct xml_node *domain)
{
    const struct xml_node *devices = domain ? xml_get_kid(domain, "devices") : NULL,
                          *balloon = devices ? xml_get_kid(devices, "memballoon") : NULL;

    return balloon ? xml_get_attr(balloon, "model") : NULL;
}

static bool has_memory_devices(const struct xml_node *domain)
{
    const struct xml_node *devices = domain ? xml_get_kid(domain, "devices") : NULL;

    return devices && xml_get_kid(devices, "memory");
}

static int current_get(const struct xml_row *row, const struct xml_node *n, const char *text,
                       struct json_object **out, struct err *e)
{
    const struct xml_node *memory = n->parent ? xml_get_kid(n->parent, "memory") : NULL;
    const char *model = balloon_model(n->parent);
    AUTO_FREE char *all_text = memory ? xml_text(memory) : NULL;
    AUTO_JSON all = NULL;
    AUTO_JSON current = NULL;

    if (xml_as_size.get(row, n, text, &current, e) < 0) {
        return -1;
    }
    if (!all_text || xml_as_size.get(row, memory, all_text, &all, NULL) < 0) {
        return 0; /* <memory> is complained of by itself */
    }
    if (json_object_get_int64(current) == json_object_get_int64(all)) {
        return 0;
    }
    if (json_object_get_int64(current) > json_object_get_int64(all)) {
        return err_set(e, -EINVAL, "not supported: more than <memory>");
    }
    if ((!model || strcmp(model, "none") == 0) && has_memory_devices(n->parent)) {
        return 0; /* what is not plugged: xml_read_memory() */
    }
    if (model && strcmp(model, "none") == 0) {
        return err_set(e, -EINVAL, "not supported: less than <memory> takes a <memballoon>");
    }
    *out = json_object_get(current);
    return 0;
}

static bool current_put(const struct xml_row *row, struct json_object *v, struct xml_node *n,
                        struct buf *text)
{
    const struct xml_node *memory = n->parent ? xml_get_kid(n->parent, "memory") : NULL;

    if (v) {
        return xml_as_size.put(row, v, n, text);
    }
    AUTO_FREE char *all = memory ? xml_text(memory) : NULL;
    if (all) {
        xml_set_attr(n, "unit", row->words);
        buf_add_str(text, all);
    }
    return all != NULL;
}

const struct xml_conv xml_as_current = { current_get, current_put,
                                         "at most `memory`; less takes a balloon" };

static int balloon_get(const struct xml_row *row, const struct xml_node *n, const char *text,
                       struct json_object **out, struct err *e)
{
    (void)row;
    if (strcmp(text, "none") == 0) {
        return xml_get_attr(n, "autodeflate") || xml_get_attr(n, "freePageReporting") ||
                       xml_get_kid(n, "stats")
                   ? err_set(e, -EINVAL, "a balloon that is none has nothing to set")
                   : 0;
    }
    if (strcmp(text, "virtio") != 0 && strcmp(text, "virtio-non-transitional") != 0) {
        return err_set(e, -EINVAL, "not supported: a balloon '%.30s'; vmd's is virtio, modern",
                       text);
    }
    *out = json_object_new_string("manual");
    return 0;
}

static bool balloon_put(const struct xml_row *row, struct json_object *v, struct xml_node *n,
                        struct buf *text)
{
    (void)row;
    (void)n;
    buf_add_str(text, v ? "virtio" : "none");
    return true;
}

const struct xml_conv xml_as_balloon = { balloon_get, balloon_put,
                                         "`virtio`, `virtio-non-transitional`, `none`" };

/* ---- sockets between guest and host ---- */

static int vsock_get(const struct xml_row *row, const struct xml_node *n, const char *text,
                     struct json_object **out, struct err *e)
{
    const char *model = xml_get_attr(n, "model");
    const struct xml_node *cid = xml_get_kid(n, "cid");
    const char *address = cid ? xml_get_attr(cid, "address") : NULL;
    uint64_t value = 3;

    (void)row;
    (void)text;
    if (model && strcmp(model, "virtio") != 0 &&
        strcmp(model, "virtio-non-transitional") != 0) {
        return err_set(e, -EINVAL, "not supported: sockets '%.30s'; vmd's are virtio, modern",
                       model);
    }
    if (address && str_to_u64(address, 3, UINT32_MAX - 1, "cid", &value, e) < 0) {
        return -1;
    }
    *out = json_object_new_int64((int64_t)value);
    return 0;
}

static bool vsock_put(const struct xml_row *row, struct json_object *v, struct xml_node *n,
                      struct buf *text)
{
    AUTO_FREE char *address = xasprintf("%lld", (long long)json_object_get_int64(v));
    struct xml_node *cid = xml_node_new(n, "cid");

    (void)row;
    (void)text;
    xml_set_attr(n, "model", "virtio");
    xml_set_attr(cid, "auto", "no");
    xml_set_attr(cid, "address", address);
    return true;
}

const struct xml_conv xml_as_vsock = { vsock_get, vsock_put, "sockets of AF_VSOCK" };

/* ---- sound ---- */

static bool is_server(const char *type)
{
    return strcmp(type, "alsa") == 0 || strcmp(type, "pipewire") == 0;
}

static int audio_get(const struct xml_row *row, const struct xml_node *n, const char *text,
                     struct json_object **out, struct err *e)
{
    bool file = strcmp(text, "file") == 0, server = is_server(text);

    (void)row;
    (void)out;
    if (!file && !server && strcmp(text, "none") != 0) {
        return err_set(e, -EINVAL,
                       "not supported: sound '%.30s'; vmd's goes to a file, to ALSA or PipeWire",
                       text);
    }
    if (file != (xml_get_attr(n, "path") != NULL)) {
        return err_set(e, -EINVAL,
                       "a path is needed by sound that goes to a file, and no other");
    }
    return (file || server) && !xml_get_kid(n->parent, "sound")
               ? err_set(e, -EINVAL, "nothing plays it: there is no <sound model='virtio'>")
               : 0;
}

static bool audio_put(const struct xml_row *row, struct json_object *v, struct xml_node *n,
                      struct buf *text)
{
    (void)row;
    (void)v;
    (void)n;
    (void)text;
    return false; /* the row of <sound> does */
}

const struct xml_conv xml_as_audio = { audio_get, audio_put, "`file`, `alsa`, `pipewire`, `none`" };

/* The <audio> that a <sound> goes to: of its number, or the first. */
static const struct xml_node *audio_of(const struct xml_node *sound)
{
    const struct xml_node *wants = xml_get_kid(sound, "audio"), *devices = sound->parent;
    const char *id = wants ? xml_get_attr(wants, "id") : NULL;

    for (size_t i = 0; i < devices->n_kids; i++) {
        const struct xml_node *k = devices->kids[i];
        const char *has = k->name && strcmp(k->name, "audio") == 0 ? xml_get_attr(k, "id")
                                                                   : NULL;

        if (k->name && strcmp(k->name, "audio") == 0 &&
            (!id || (has && strcmp(has, id) == 0))) {
            return k;
        }
    }
    return NULL;
}

static int audio_settings(const struct xml_node *settings, struct json_object *to,
                          struct err *e)
{
    static const struct {
        const char *name, *member;
        uint64_t least, most;
    } numbers[] = { { "frequency", "rate", 5512, 384000 }, { "channels", "channels", 1, 2 } };
    const char *format = xml_get_attr(settings, "format");

    for (size_t i = 0; i < ARRAY_LEN(numbers); i++) {
        const char *text = xml_get_attr(settings, numbers[i].name);
        uint64_t n;

        if (text &&
            str_to_u64(text, numbers[i].least, numbers[i].most, numbers[i].name, &n, e) < 0) {
            return -1;
        }
        if (text) {
            api_json_set_int(to, numbers[i].member, (int64_t)n);
        }
    }
    if (format && strcmp(format, "u8") != 0 && strcmp(format, "s16") != 0 &&
        strcmp(format, "s32") != 0 && strcmp(format, "f32") != 0) {
        return err_set(e, -EINVAL,
                       "not supported: samples '%.20s'; they are u8, s16, s32 or f32", format);
    }
    if (format) {
        api_json_set_str(to, "format", format);
    }
    return 0;
}

/* Where it goes: the device of ALSA's output, the folder of PipeWire's socket. */
static void server_settings(const struct xml_node *audio, const struct xml_node *output,
                            struct json_object *to)
{
    const char *type = xml_get_attr(audio, "type"), *dir = xml_get_attr(audio, "runtimeDir");
    const char *device = output ? xml_get_attr(output, "dev") : NULL;

    api_json_set_str(to, "backend", type);
    if (dir) {
        AUTO_FREE char *path = xasprintf("%s/pipewire-0", dir);

        api_json_set_str(to, "server", path);
    }
    if (device) {
        api_json_set_str(to, "device", device);
    }
}

static int sound_get(const struct xml_row *row, const struct xml_node *n, const char *text,
                     struct json_object **out, struct err *e)
{
    const char *model = xml_get_attr(n, "model"), *path;
    const struct xml_node *audio = audio_of(n), *output, *settings;
    AUTO_JSON made = json_object_new_object();

    (void)row;
    (void)text;
    if (!model || strcmp(model, "virtio") != 0) {
        return err_set(e, -EINVAL, "not supported: a sound card '%.30s'; vmd's is virtio",
                       model ? model : "");
    }
    if (!audio && xml_get_kid(n, "audio")) {
        return err_set(e, -EINVAL, "there is no <audio> of that number");
    }
    path = audio ? xml_get_attr(audio, "path") : NULL;
    output = audio ? xml_get_kid(audio, "output") : NULL;
    settings = output ? xml_get_kid(output, "settings") : NULL;
    if (path && path[0] != '/') {
        return err_set(e, -EINVAL, "'%.100s' is no absolute path", path);
    }
    if (path) {
        api_json_set_str(made, "output", path);
    } else if (audio && xml_get_attr(audio, "type") && is_server(xml_get_attr(audio, "type"))) {
        server_settings(audio, output, made);
    }
    if (settings && audio_settings(settings, made, e) < 0) {
        return -1;
    }
    *out = json_object_get(made);
    return 0;
}

static void put_alsa(struct xml_node *audio, struct json_object *v)
{
    const char *device = api_json_get_str(v, "device");

    xml_set_attr(audio, "type", "alsa");
    if (device) {
        xml_set_attr(xml_node_new(audio, "output"), "dev", device);
    }
}

static bool sound_put(const struct xml_row *row, struct json_object *v, struct xml_node *n,
                      struct buf *text)
{
    const char *path = api_json_get_str(v, "output"), *format = api_json_get_str(v, "format"),
               *backend = api_json_get_str(v, "backend");
    struct xml_node *audio = xml_node_new(n->parent, "audio"), *settings;
    int64_t rate = api_json_get_int(v, "rate", 0),
            channels = api_json_get_int(v, "channels", 0);

    (void)row;
    (void)text;
    xml_set_attr(n, "model", "virtio");
    xml_set_attr(audio, "id", "1");
    if (backend && strcmp(backend, "alsa") == 0) {
        put_alsa(audio, v);
        return true;
    }
    if (!path || !xml_can_say(path)) { /* libvirt 9.0 has no word for PipeWire */
        xml_set_attr(audio, "type", "none");
        return true;
    }
    xml_set_attr(audio, "type", "file");
    xml_set_attr(audio, "path", path);
    if (rate || channels || format) {
        AUTO_FREE char *rate_text = xasprintf("%lld", (long long)rate);
        AUTO_FREE char *channels_text = xasprintf("%lld", (long long)channels);
        struct xml_node *output = xml_node_new(audio, "output");

        xml_set_attr(output, "mixingEngine", "yes");
        xml_set_attr(output, "fixedSettings", "yes");
        settings = xml_node_new(output, "settings");
        if (rate) {
            xml_set_attr(settings, "frequency", rate_text);
        }
        if (channels) {
            xml_set_attr(settings, "channels", channels_text);
        }
        if (format) {
            xml_set_attr(settings, "format", format);
        }
    }
    return true;
}

const struct xml_conv xml_as_sound = { sound_get, sound_put, "`virtio`" };

/* ---- memory that comes and goes ---- */

static int max_get(const struct xml_row *row, const struct xml_node *n, const char *text,
                   struct json_object **out, struct err *e)
{
    return xml_as_size.get(row, n, text, out, e);
}

static bool max_put(const struct xml_row *row, struct json_object *v, struct xml_node *n,
                    struct buf *text)
{
    if (!v || !xml_as_size.put(row, v, n, text)) {
        return false;
    }
    xml_set_attr(n, "slots",
                 "4"); /* libvirt wants to know; that many memory devices a VM has at most */
    return true;
}

const struct xml_conv xml_as_max_memory = { max_get, max_put, "a number, in the `unit` given" };

static int64_t device_sizes(struct json_object *definition)
{
    struct json_object *list = api_json_get(definition, "memory_devices");
    int64_t all = 0;

    for (size_t i = 0;
         json_object_is_type(list, json_type_array) && i < json_object_array_length(list);
         i++) {
        int64_t size = api_json_get_int(json_object_array_get_idx(list, i), "size", 0);

        all += size > 0 && size < INT64_MAX / 64 && all < INT64_MAX / 2 ? size : 0;
    }
    return all;
}

void xml_read_memory(struct json_object *definition)
{
    int64_t all = api_json_get_int(definition, "memory", 0),
            base = all - device_sizes(definition);
    struct json_object *balloon = api_json_get(definition, "balloon");

    if (base == all) {
        return;
    }
    api_json_set_int(definition, "memory",
                     base); /* none left: the definition is refused for it */
    if (balloon && api_json_get_int(balloon, "memory", 0) >= base) {
        json_object_object_del(balloon, "memory");
    }
}

void xml_written_memory(struct json_object *definition)
{
    int64_t sizes = device_sizes(definition),
            base = api_json_get_int(definition, "memory", 512 << 20);

    if (sizes > 0 && base < INT64_MAX - sizes) {
        api_json_set_int(definition, "memory", base + sizes);
    }
}

/* ---- shared folders ---- */

static struct json_object *share_at(struct json_object *definition, size_t i)
{
    struct json_object *list = api_json_get(definition, "shares");

    return json_object_is_type(list, json_type_array) && i < json_object_array_length(list)
               ? json_object_array_get_idx(list, i)
               : NULL;
}

static bool says(struct json_object *o, const char *member, const char *word)
{
    const char *has = api_json_get_str(o, member);

    return has && strcmp(has, word) == 0;
}

void xml_read_shares(struct json_object *definition)
{
    struct json_object *o;

    for (size_t i = 0; (o = share_at(definition, i)); i++) {
        if (!api_json_get_str(o, "driver")) {
            api_json_set_str(o, "driver", "9p");
        }
        if (says(o, "security", says(o, "driver", "9p") ? "mapped" : "passthrough")) {
            json_object_object_del(o, "security"); /* what it is anyway */
        }
    }
}

void xml_written_shares(struct json_object *definition)
{
    struct json_object *o;

    for (size_t i = 0; (o = share_at(definition, i)); i++) {
        if (!api_json_get_str(o, "driver")) {
            api_json_set_str(o, "driver", "virtiofs");
        }
        if (says(o, "driver", "9p") && !api_json_get_str(o, "security")) {
            api_json_set_str(o, "security", "mapped");
        }
    }
}
