/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A definition to canonical XML, by the same table. What the table cannot say is found by reading the result back and
 * comparing, and stands below <metadata> as members. Owns nothing between calls. Any thread.
 */
#include "daemon/xml/bind.h"

#include "api-schema/json/json.h"
#include "engine/base/mem.h"

#include <string.h>

static bool emit_inside(const struct xml_kind *kind, const char *path, struct json_object *o,
                        struct xml_node *n);

/* Name of the last step when the row is directly below `path`, NULL when it is not. */
static const char *child_name(const struct xml_row *row, const char *path, bool *attr)
{
    size_t len = strlen(path);
    const char *name = row->path + len;

    if (strncmp(row->path, path, len) != 0) {
        return NULL;
    }
    *attr = *name == '@';
    if (*attr || (len && *name == '/')) {
        name++;
    } else if (len) {
        return NULL;
    }
    return strpbrk(name, "/@|") ? NULL : name;
}

/* The value of a row as text, and what its conversion adds to n. */
static bool value_of(const struct xml_row *row, struct json_object *o, struct xml_node *n,
                     struct buf *text)
{
    struct json_object *v = xml_json_at(o, row->member);

    return (v || row->conv == &xml_as_word || (row->flags & XML_ABSENT)) &&
           row->conv->put(row, v, n, text);
}

static const char *first_word(const struct xml_row *row, char *out, size_t size)
{
    size_t n = strcspn(row->words, " ");

    n = n < size ? n : size - 1;
    memcpy(out, row->words, n);
    out[n] = 0;
    return out;
}

static bool emit_attr(const struct xml_row *row, const char *name, struct json_object *o,
                      struct xml_node *n)
{
    AUTO_BUF text = BUF_INIT;
    char word[64];

    if (row->kind == XML_SAYS && (row->flags & XML_PRINT)) {
        xml_set_attr(n, name, first_word(row, word, sizeof(word)));
        return false; /* says nothing of its own */
    }
    if ((row->kind == XML_VALUE || (row->kind == XML_SAME && (row->flags & XML_PRINT))) &&
        value_of(row, o, n, &text)) {
        xml_set_attr(n, name, text.data ? text.data : "");
        return true;
    }
    return false;
}

static bool emit_list(const struct xml_kind *kind, const struct xml_row *row, const char *name,
                      struct json_object *o, struct xml_node *n)
{
    struct json_object *list = xml_json_at(o, row->member);
    size_t count = json_object_is_type(list, json_type_array) ? json_object_array_length(list)
                                                              : 0;

    for (size_t i = 0; i < count; i++) {
        struct xml_node *k = xml_node_new(n, name);
        struct json_object *item = json_object_array_get_idx(list, i);
        if (row->conv) {
            AUTO_BUF text = BUF_INIT;
            struct json_object *v = api_json_get(item, row->words);
            if (v && row->conv->put(row, v, k, &text)) {
                xml_add_text(k, text.data ? text.data : "");
            }
        }
        emit_inside(kind, row->path, item, k);
    }
    return count > 0;
}

/* The kept text of foreign elements; it was written by xml_write() or came by the API. */
static bool emit_any(const struct xml_row *row, struct json_object *o, struct xml_node *k)
{
    struct json_object *v = xml_json_at(o, row->member);
    const char *text = json_object_is_type(v, json_type_string) ? json_object_get_string(v)
                                                                : NULL;
    AUTO_FREE char *wrapped = text ? xasprintf("<metadata>%s</metadata>", text) : NULL;
    AUTO(xml_node_free)
    struct xml_node *tree = wrapped ? xml_read(wrapped, strlen(wrapped), NULL) : NULL;

    for (size_t i = 0; tree && i < tree->n_kids; i++) {
        if (tree->kids[i]->name) {
            xml_adopt(k, tree->kids[i]);
        } else {
            xml_node_free(tree->kids[i]);
        }
    }
    if (tree) {
        tree->n_kids = 0;
    }
    return k->n_kids > 0;
}

static bool emit_kid(const struct xml_kind *kind, const struct xml_row *row, const char *name,
                     struct json_object *o, struct xml_node *n)
{
    struct xml_node *k;
    AUTO_BUF text = BUF_INIT;
    char word[64];
    bool says = false, print = row->flags & XML_PRINT;

    if (row->kind == XML_LIST) {
        return emit_list(kind, row, name, o, n);
    }
    if (row->kind == XML_PART || row->kind == XML_NO || row->kind == XML_LEFT_OUT) {
        return false;
    }
    k = xml_node_new(n, name);
    switch (row->kind) {
    case XML_FLAG:
        print = says = json_object_get_boolean(xml_json_at(o, row->member));
        break;
    case XML_ANY:
        says = emit_any(row, o, k);
        break;
    case XML_SAYS:
        xml_add_text(k, print ? first_word(row, word, sizeof(word)) : "");
        break;
    case XML_VALUE:
        says = value_of(row, o, k, &text);
        xml_add_text(k, says && text.data ? text.data : "");
        break;
    case XML_SAME:
        says = print && value_of(row, o, k, &text);
        xml_add_text(k, says && text.data ? text.data : "");
        break;
    default:
        break;
    }
    says |= (row->kind != XML_FLAG || print) && emit_inside(kind, row->path, o, k);
    if (!says && !print) {
        xml_node_drop(n, k);
    }
    return says || print;
}

/* True when it holds more than what is always said. */
static bool emit_inside(const struct xml_kind *kind, const char *path, struct json_object *o,
                        struct xml_node *n)
{
    bool says = false, attr;

    for (size_t i = 0; i < kind->n_rows; i++) {
        const struct xml_row *row = &kind->rows[i];
        const char *name = child_name(row, path, &attr);
        if (name && attr) {
            says |= emit_attr(row, name, o, n);
        } else if (name) {
            says |= emit_kid(kind, row, name, o, n);
        }
    }
    return says;
}

struct xml_node *xml_emit(const struct xml_kind *kind, struct json_object *definition)
{
    struct xml_node *root = xml_node_new(NULL, kind->root);
    AUTO_JSON copy = NULL;

    if (kind->written) {
        json_object_deep_copy(definition, &copy, NULL);
        kind->written(copy);
    }
    emit_inside(kind, "", copy ? copy : definition, root);
    return root;
}

/* ---- what the table cannot say ---- */

/* The node below <metadata> that holds them; made when there is none. */
static struct xml_node *extra_node(struct xml_node *root)
{
    struct xml_node *meta = (struct xml_node *)xml_get_kid(root, "metadata");

    if (!meta) {
        meta = xml_node_new(root, "metadata");
    }
    for (size_t i = 0; i < meta->n_kids; i++) {
        if (meta->kids[i]->uri && strcmp(meta->kids[i]->uri, XML_NS) == 0) {
            return meta->kids[i];
        }
    }
    meta = xml_node_new(meta, "vmd:definition");
    meta->uri = xstrdup(XML_NS);
    return meta;
}

static void add_set(struct xml_node *root, const char *path, struct json_object *v)
{
    struct xml_node *k = xml_node_new(extra_node(root), "vmd:set");

    k->uri = xstrdup(XML_NS);
    xml_set_attr(k, "member", path);
    xml_add_text(k, v ? json_object_to_json_string_ext(v, JSON_C_TO_STRING_NOSLASHESCAPE)
                      : "null");
}

static void add_differences(struct xml_node *root, const char *path, struct json_object *want,
                            struct json_object *have)
{
    enum json_type type = json_object_get_type(want);

    if (want && have && json_object_equal(want, have)) {
        return;
    }
    if (want && have && type == json_type_object &&
        json_object_is_type(have, json_type_object)) {
        json_object_object_foreach(want, key, v)
        {
            AUTO_FREE char *in = xasprintf("%s%s%s", path, *path ? "." : "", key);
            add_differences(root, in, v, api_json_get(have, key));
        }
        json_object_object_foreach(have, other, ignored)
        {
            (void)ignored;
            if (!json_object_object_get_ex(want, other, NULL)) {
                AUTO_FREE char *in = xasprintf("%s%s%s", path, *path ? "." : "", other);
                add_set(root, in, NULL);
            }
        }
    } else if (want && have && type == json_type_array &&
               json_object_is_type(have, json_type_array) &&
               json_object_array_length(want) == json_object_array_length(have)) {
        for (size_t i = 0; i < json_object_array_length(want); i++) {
            AUTO_FREE char *in = xasprintf("%s[%zu]", path, i);
            add_differences(root, in, json_object_array_get_idx(want, i),
                            json_object_array_get_idx(have, i));
        }
    } else {
        add_set(root, path, want);
    }
}

static char *text_of(const struct xml_node *root)
{
    AUTO_BUF b = BUF_INIT;

    xml_write(&b, root, 0);
    buf_add_char(&b, '\n');
    return buf_take(&b);
}

/* With every default filled in, as xml_parse() gives it; the caller's. */
static struct json_object *whole_of(const struct xml_kind *kind,
                                    const struct json_object *definition)
{
    void *s = xalloc(kind->type->size);
    struct api_error x = API_ERROR_INIT;
    struct json_object *o = NULL;

    if (api_decode(kind->type, definition, API_STRICT, "", s, &x) == 0) {
        o = api_encode(kind->type, s);
        api_release(kind->type, s);
    }
    free(s);
    return o;
}

char *xml_print(const struct xml_kind *kind, const struct json_object *definition)
{
    AUTO_JSON whole = whole_of(kind, definition);
    AUTO(xml_node_free) struct xml_node *root = whole ? xml_emit(kind, whole) : NULL;
    struct xml_result r;
    char *text;

    if (!root) {
        return xstrdup("");
    }
    text = text_of(root);
    if (!kind->metadata) {
        return text;
    }
    xml_parse(kind, text, strlen(text), &r);
    if (r.definition && !json_object_equal(whole, r.definition)) {
        free(text);
        add_differences(root, "", whole, r.definition);
        text = text_of(root);
    }
    xml_result_done(&r);
    return text;
}

char *xml_print_around(const struct xml_kind *kind, const struct json_object *definition,
                       const struct xml_kind *inner, const struct json_object *of_inner)
{
    AUTO_FREE char *out = xml_print(kind, definition), *in = xml_print(inner, of_inner);
    AUTO(xml_node_free) struct xml_node *root = xml_read(out, strlen(out), NULL);
    struct xml_node *kid = xml_read(in, strlen(in), NULL);

    if (!root || !kid) {
        xml_node_free(kid);
        return xstrdup(out);
    }
    xml_adopt(root, kid);
    return text_of(root);
}

void xml_drop_found_files(struct json_object *config)
{
    struct json_object *disks = api_json_get(config, "disks");

    for (size_t i = 0; disks && i < json_object_array_length(disks); i++) {
        struct json_object *disk = json_object_array_get_idx(disks, i);
        if (api_json_get(disk, "pool")) {
            json_object_object_del(disk, "file");
        }
    }
}

char **xml_disk_devs(const struct json_object *domain)
{
    AUTO_JSON whole = whole_of(&xml_domain, domain);
    AUTO(xml_node_free) struct xml_node *root = whole ? xml_emit(&xml_domain, whole) : NULL;
    const struct xml_node *devices = root ? xml_get_kid(root, "devices") : NULL;
    char **list = xnew_n(char *, (devices ? devices->n_kids : 0) + 1);
    size_t n = 0;

    for (size_t i = 0; devices && i < devices->n_kids; i++) {
        const struct xml_node *k = devices->kids[i];
        const struct xml_node *target = k->name && strcmp(k->name, "disk") == 0
                                            ? xml_get_kid(k, "target")
                                            : NULL;

        if (target) {
            list[n++] = xstrdup(xml_get_attr(target, "dev") ?: "");
        }
    }
    return list;
}

/* ---- kinds ---- */

const struct xml_kind *const xml_kinds[] = { &xml_domain, &xml_network, &xml_pool, &xml_volume,
                                             &xml_snapshot };
const size_t xml_n_kinds = ARRAY_LEN(xml_kinds);

const struct xml_other xml_others[] = {
    { "device", "devices of the host are not passed to guests" },
    { "node", "it is a file of libvirt's test driver" },
    { "capabilities", "vmd tells them: host.capabilities" },
    { "domainCapabilities", "vmd tells them: host.capabilities" },
    { "storagepoolCapabilities", "vmd tells them: host.capabilities" },
    { "sources", "vmd tells them, nobody sets them" },
    { "cpu", "a CPU stands within a domain" },
    { "secret", "secrets are not foreseen" },
    { "interface", "interfaces of the host are the host's business" },
    { "filter", "filters of network packets are not foreseen" },
    { "filterbinding", "filters of network packets are not foreseen" },
    { "networkport", "ports belong to running VMs" },
    { "domainbackup", "backups are jobs of disks" },
    { "domaincheckpoint", "checkpoints are not foreseen" },
};
const size_t xml_n_others = ARRAY_LEN(xml_others);

const struct xml_kind *xml_kind_find(const char *name)
{
    for (size_t i = 0; i < xml_n_kinds; i++) {
        if (strcmp(xml_kinds[i]->name, name) == 0) {
            return xml_kinds[i];
        }
    }
    return NULL;
}
