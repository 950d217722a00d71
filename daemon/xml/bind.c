/* SPDX-License-Identifier: Apache-2.0 */
/*
 * XML to a definition, by the table: each element and attribute finds its row, or is refused by line and name. Owns nothing between
 * calls. Any thread.
 */
#include "daemon/xml/bind.h"

#include "api-schema/json/json.h"
#include "engine/base/mem.h"
#include "engine/base/str.h"

#include <errno.h>
#include <string.h>

/* Where a member came from, for what only the whole can tell. */
struct origin {
    char *member; /* "disks[0].file" */
    const struct xml_node *n;
    char *path;
    const char *attr;
};

struct same {
    const struct xml_row *row;
    const struct xml_node *n;
    const char *attr;
    char *path, *member;
    struct json_object *value;
};

struct binder {
    const struct xml_kind *kind;
    struct xml_result *r;
    struct json_object *top; /* the definition */
    struct origin *origins;
    size_t n_origins;
    struct same *sames;
    size_t n_sames;
    const struct xml_node *extra; /* <vmd:definition> */
};

/* One element at work: its path in the table, the object its rows fill and that object's path. */
struct place {
    const char *path;
    struct json_object *o;
    const char *prefix; /* "disks[0]." */
};

/* ---- remarks ---- */

static void remark(struct xml_remark **list, size_t *n, unsigned line, const char *path,
                   char *take_text)
{
    if (*n >= XML_MAX_PROBLEMS) {
        free(take_text);
        return;
    }
    *list = xrealloc_n(*list, *n + 1, sizeof(**list));
    (*list)[(*n)++] = (struct xml_remark){ line, xstrdup(path), take_text };
}

void xml_show_element(struct buf *b, const struct xml_node *n, const char *attr)
{
    static const char *const telling[] = { "type", "mode", "model", "name", "dev", "bus" };
    const char *value = attr ? xml_get_attr(n, attr) : NULL;

    for (size_t i = 0; i < ARRAY_LEN(telling) && !value; i++) {
        attr = telling[i];
        value = xml_get_attr(n, attr);
    }
    buf_printf(b, "<%.60s", n->name);
    if (value) {
        buf_printf(b, " %.40s='%.80s'", attr, value);
    }
    buf_add_char(b, '>');
}

static void refuse(struct binder *b, const struct xml_node *n, const char *path,
                   const char *attr, const char *fmt, ...)
    __attribute__((format(printf, 5, 6)));

static void refuse(struct binder *b, const struct xml_node *n, const char *path,
                   const char *attr, const char *fmt, ...)
{
    AUTO_BUF text = BUF_INIT;
    AUTO_FREE char *full = attr ? xasprintf("%s@%s", path, attr) : xstrdup(path);
    va_list ap;

    xml_show_element(&text, n, attr);
    buf_add_str(&text, ": ");
    va_start(ap, fmt);
    buf_vprintf(&text, fmt, ap);
    va_end(ap);
    remark(&b->r->problems, &b->r->n_problems, n->line, full, buf_take(&text));
}

static void note(struct binder *b, const struct xml_node *n, const char *path, const char *attr,
                 const char *doc)
{
    AUTO_BUF text = BUF_INIT;
    AUTO_FREE char *full = attr ? xasprintf("%s@%s", path, attr) : xstrdup(path);

    xml_show_element(&text, n, attr);
    buf_printf(&text, ": left out: %s", doc);
    remark(&b->r->notes, &b->r->n_notes, n->line, full, buf_take(&text));
}

/* ---- JSON by path ---- */

/* Cuts the first step off: its name, and its index or -1. */
static const char *step(const char *path, char *name, size_t size, long *index)
{
    size_t n = strcspn(path, ".[");

    *index = -1;
    if (n == 0 || n >= size) {
        return NULL;
    }
    memcpy(name, path, n);
    name[n] = 0;
    path += n;
    if (*path == '[') {
        char *end;
        *index = strtol(path + 1, &end, 10);
        if (*end != ']' || *index < 0 || *index > 4095) {
            return NULL;
        }
        path = end + 1;
    }
    return *path == '.' ? path + 1 : *path == 0 ? path : NULL;
}

struct json_object *xml_json_at(struct json_object *o, const char *path)
{
    char name[64];
    long index;

    while (o && path && *path) {
        path = step(path, name, sizeof(name), &index);
        o = path ? api_json_get(o, name) : NULL;
        if (index >= 0) {
            o = json_object_is_type(o, json_type_array)
                    ? json_object_array_get_idx(o, (size_t)index)
                    : NULL;
        }
    }
    return path ? o : NULL;
}

bool xml_json_set(struct json_object *o, const char *path, struct json_object *take_value)
{
    char name[64];
    long index;

    for (;;) {
        const char *rest = step(path, name, sizeof(name), &index);
        struct json_object *in;
        if (!rest || !json_object_is_type(o, json_type_object)) {
            break;
        }
        if (!*rest && index < 0) {
            if (take_value) {
                api_json_set(o, name, take_value);
            } else {
                json_object_object_del(o, name);
            }
            return true;
        }
        in = api_json_get(o, name);
        if (index >= 0) {
            in = json_object_is_type(in, json_type_array)
                     ? json_object_array_get_idx(in, (size_t)index)
                     : NULL;
        } else if (!in) {
            in = json_object_new_object();
            api_json_set(o, name, in);
        }
        if (!in || !*rest) {
            break;
        }
        o = in;
        path = rest;
    }
    json_object_put(take_value);
    return false;
}

/* ---- rows ---- */

bool xml_row_is(const struct xml_row *row, const char *base, char sep, const char *name)
{
    size_t n = strlen(base), len = strlen(name);
    const char *at = row->path;

    if (strncmp(at, base, n) != 0) {
        return false;
    }
    at += n;
    if (n || sep == '@') { /* children of the root element stand without a slash */
        if (*at++ != sep) {
            return false;
        }
    }
    if (strpbrk(at, "/@")) {
        return false;
    }
    while (*at) {
        size_t k = strcspn(at, "|");
        if (k == len && strncmp(at, name, len) == 0) {
            return true;
        }
        at += k;
        at += *at == '|';
    }
    return false;
}

const struct xml_row *xml_row_of(const struct xml_kind *kind, const char *base, char sep,
                                 const char *name)
{
    for (size_t i = 0; i < kind->n_rows; i++) {
        if (xml_row_is(&kind->rows[i], base, sep, name)) {
            return &kind->rows[i];
        }
    }
    return NULL;
}

static void keep_origin(struct binder *b, const struct place *p, const struct xml_row *row,
                        const struct xml_node *n, const char *attr, const char *path)
{
    b->origins = xrealloc_n(b->origins, b->n_origins + 1, sizeof(*b->origins));
    b->origins[b->n_origins++] = (struct origin){ xasprintf("%s%s", p->prefix, row->member), n,
                                                  xstrdup(path), attr };
}

static bool one_of(const char *words, const char *text)
{
    text += strspn(text, " \t\r\n");
    size_t len = strcspn(text, " \t\r\n");

    if (!*words) {
        return !*text; /* must be empty */
    }

    for (const char *w = words; *w;) {
        size_t n = strcspn(w, " ");
        if (n == len && strncmp(w, text, n) == 0 && xml_blank(text + len)) {
            return true;
        }
        w += n;
        w += strspn(w, " ");
    }
    return false;
}

static void bind_value(struct binder *b, const struct place *p, const struct xml_row *row,
                       const struct xml_node *n, const char *attr, const char *path,
                       const char *text)
{
    struct err e = ERR_INIT;
    struct json_object *v = NULL;

    if (row->conv->get(row, n, text, &v, &e) < 0) {
        const char *doc = row->doc ? row->doc : "";
        bool first = str_starts(doc, "not supported");
        refuse(b, n, path, attr, "%s%s%s", first ? doc : e.msg, *doc ? "; " : "",
               first ? e.msg : doc);
        return;
    }
    keep_origin(b, p, row, n, attr, path);
    if (!v && (row->flags & XML_NOTED)) {
        note(b, n, path, attr, row->doc);
    }
    if (v && !xml_json_set(p->o, row->member, v)) {
        refuse(b, n, path, attr, "does not fit with what stands before it");
    }
}

static void bind_same(struct binder *b, const struct place *p, const struct xml_row *row,
                      const struct xml_node *n, const char *attr, const char *path,
                      const char *text)
{
    struct err e = ERR_INIT;
    struct json_object *v = NULL;

    if (row->conv->get(row, n, text, &v, &e) < 0) {
        refuse(b, n, path, attr, "%s", e.msg);
        return;
    }
    b->sames = xrealloc_n(b->sames, b->n_sames + 1, sizeof(*b->sames));
    b->sames[b->n_sames++] = (struct same){
        row, n, attr, xstrdup(path), xasprintf("%s%s", p->prefix, row->member), v
    };
}

static void bind_says(struct binder *b, const struct xml_row *row, const struct xml_node *n,
                      const char *attr, const char *path, const char *text)
{
    size_t first = strcspn(row->words, " ");
    AUTO_FREE char *word = xstrndup(row->words, first);

    if (!one_of(row->words, text) && !((row->flags & XML_EMPTY) && xml_blank(text))) {
        refuse(b, n, path, attr, "not supported: %s", row->doc);
    } else if (!(row->flags & XML_PRINT) || !one_of(word, text)) {
        note(b, n, path, attr, row->doc);
    }
}

/* What an attribute, or the text of an element, does. */
static void bind_text(struct binder *b, const struct place *p, const struct xml_row *row,
                      const struct xml_node *n, const char *attr, const char *path,
                      const char *text)
{
    switch (row->kind) {
    case XML_VALUE:
        bind_value(b, p, row, n, attr, path, text);
        break;
    case XML_SAME:
        bind_same(b, p, row, n, attr, path, text);
        break;
    case XML_SAYS:
        bind_says(b, row, n, attr, path, text);
        break;
    case XML_LEFT_OUT:
        note(b, n, path, attr, row->doc);
        break;
    case XML_NO:
        refuse(b, n, path, attr, "not supported: %s", row->doc);
        break;
    default:
        break;
    }
}

static void bind_attrs(struct binder *b, const struct place *p, const struct xml_node *n)
{
    for (size_t i = 0; i < n->n_attrs; i++) {
        const char *name = n->attrs[i].name;
        const struct xml_row *row = xml_row_of(b->kind, p->path, '@', name);
        AUTO_FREE char *path = xasprintf("%s%s%s", b->kind->root, p->path[0] ? "/" : "",
                                         p->path);
        if (!row) {
            refuse(b, n, path, name, "vmd knows no attribute '%.60s' here", name);
        } else {
            bind_text(b, p, row, n, name, path, n->attrs[i].value);
        }
    }
}

static void bind_element(struct binder *b, const struct place *p, const struct xml_node *n);

/* ---- elements ---- */

/* The second <x> where one may stand. */
static bool is_second(const struct xml_node *n)
{
    const struct xml_node *up = n->parent;

    for (size_t i = 0; i < up->n_kids && up->kids[i] != n; i++) {
        if (up->kids[i]->name && strcmp(up->kids[i]->name, n->name) == 0) {
            return true;
        }
    }
    return false;
}

/* Words where only elements may stand. */
static void refuse_text(struct binder *b, const struct xml_node *n, const char *full)
{
    AUTO_FREE char *text = xml_text(n);

    if (!xml_blank(text)) {
        refuse(b, n, full, NULL, "holds text, which vmd knows no meaning of");
    }
}

static void bind_list(struct binder *b, const struct place *p, const struct xml_row *row,
                      const struct xml_node *n, const char *path)
{
    struct json_object *list = xml_json_at(p->o, row->member), *item = json_object_new_object();

    if (!list) {
        list = json_object_new_array();
        if (!xml_json_set(p->o, row->member, list)) {
            json_object_put(item);
            return;
        }
    }
    AUTO_FREE char *prefix = xasprintf("%s%s[%zu].", p->prefix, row->member,
                                       json_object_array_length(list));
    struct place in = { path, item, prefix };
    AUTO_FREE char *place = xasprintf("%s/%s", b->kind->root, path);
    keep_origin(b, p, row, n, NULL, place); /* of the list; then of this item */
    b->origins = xrealloc_n(b->origins, b->n_origins + 1, sizeof(*b->origins));
    b->origins[b->n_origins++] = (struct origin){ xstrndup(prefix, strlen(prefix) - 1), n,
                                                  xstrdup(place), NULL };
    json_object_array_add(list, item);
    if (row->conv) {
        struct xml_row text_row = *row;
        AUTO_FREE char *text = xml_text(n), *full = xasprintf("%s/%s", b->kind->root, path);
        text_row.member = row->words;
        text_row.words = NULL;
        bind_value(b, &in, &text_row, n, NULL, full, text);
    } else {
        AUTO_FREE char *full = xasprintf("%s/%s", b->kind->root, path);
        refuse_text(b, n, full);
    }
    bind_element(b, &in, n);
}

/* Foreign elements, kept as text. */
static void bind_any(struct binder *b, const struct place *p, const struct xml_row *row,
                     const struct xml_node *n)
{
    AUTO_BUF text = BUF_INIT;

    for (size_t i = 0; i < n->n_kids; i++) {
        struct xml_node *k = n->kids[i];
        if (k->name && k->uri && strcmp(k->uri, XML_NS) == 0 && b->kind->metadata) {
            b->extra = k;
        } else if (k->name) {
            k->parent = NULL; /* so that namespaces are declared within */
            buf_add_str(&text, text.len ? "\n" : "");
            xml_write(&text, k, 0);
            k->parent = (struct xml_node *)n;
        }
    }
    if (text.len) {
        xml_json_set(p->o, row->member, json_object_new_string(text.data));
    }
}

static bool is_empty(const struct xml_node *n)
{
    for (size_t i = 0; i < n->n_kids; i++) {
        if (n->kids[i]->name) {
            return false;
        }
    }
    return true;
}

static void bind_known(struct binder *b, const struct place *p, const struct xml_row *row,
                       const struct xml_node *n, const char *path)
{
    AUTO_FREE char *full = xasprintf("%s/%s", b->kind->root, path);
    struct place in = { path, p->o, p->prefix };

    if (row->kind != XML_LIST && row->kind != XML_NO && row->kind != XML_LEFT_OUT &&
        row->kind != XML_PART && !(row->flags & XML_MANY) && is_second(n)) {
        refuse(b, n, full, NULL, "stands there twice");
        return;
    }
    switch (row->kind) {
    case XML_LIST:
        bind_list(b, p, row, n, path);
        break;
    case XML_ANY:
        refuse_text(b, n, full);
        bind_any(b, p, row, n);
        break;
    case XML_LEFT_OUT:
    case XML_NO:
        bind_text(b, p, row, n, NULL, full, "");
        break;
    default: {
        AUTO_FREE char *text = xml_text(n);
        if (row->kind == XML_FLAG) {
            xml_json_set(p->o, row->member, json_object_new_boolean(true));
        }
        bind_text(b, p, row, n, NULL, full, text);
        if (row->kind == XML_GROUP || row->kind == XML_FLAG) {
            refuse_text(b, n, full);
        }
        if (row->kind == XML_GROUP && !(row->flags & XML_PRINT) && !n->n_attrs && is_empty(n)) {
            note(b, n, full, NULL, "it is empty");
        }
        bind_element(b, &in, n);
    }
    }
}

/* Rows of children of `path` that must, or whose absence says something. */
static void bind_absent(struct binder *b, const struct place *p, const struct xml_node *n)
{
    size_t len = strlen(p->path);

    for (size_t i = 0; i < b->kind->n_rows; i++) {
        const struct xml_row *row = &b->kind->rows[i];
        const char *name = row->path + len + (len || row->path[len] == '@');
        if (strncmp(row->path, p->path, len) != 0 ||
            (len && row->path[len] != '/' && row->path[len] != '@') || strpbrk(name, "/@|")) {
            continue;
        }
        bool attr = row->path[len] == '@';
        bool there = attr ? xml_get_attr(n, name) != NULL : xml_get_kid(n, name) != NULL;
        if (!there && (row->flags & XML_NEEDED)) {
            AUTO_FREE char *path = xasprintf("%s%s%s", b->kind->root, p->path[0] ? "/" : "",
                                             p->path);
            refuse(b, n, path, NULL, attr ? "attribute '%s' is missing" : "<%s> is missing",
                   name);
        }
    }
}

static void bind_element(struct binder *b, const struct place *p, const struct xml_node *n)
{
    bind_attrs(b, p, n);
    for (size_t i = 0; i < n->n_kids; i++) {
        const struct xml_node *k = n->kids[i];
        const struct xml_row *row;
        if (!k->name) {
            continue;
        }
        row = xml_row_of(b->kind, p->path, '/', k->name);
        AUTO_FREE char *path = xasprintf("%s%s%s", p->path, p->path[0] ? "/" : "", k->name);
        if (row) {
            bind_known(b, p, row, k, path);
        } else {
            AUTO_FREE char *full = xasprintf("%s/%s", b->kind->root, path);
            refuse(b, k, full, NULL, "vmd knows no such element in <%.60s>", n->name);
        }
    }
    bind_absent(b, p, n);
}

/* A flag whose element is absent is false, whatever the member's default. */
static void clear_flags(struct binder *b)
{
    for (size_t i = 0; i < b->kind->n_rows; i++) {
        const struct xml_row *row = &b->kind->rows[i];
        if (row->kind == XML_FLAG && (row->flags & XML_CLEAR)) {
            xml_json_set(b->top, row->member, json_object_new_boolean(false));
        }
    }
}

/* ---- the whole ---- */

/* <vmd:set member='tcg.icount'>4</vmd:set>: members that libvirt's XML has no word for. */
static void bind_extra(struct binder *b)
{
    for (size_t i = 0; b->extra && i < b->extra->n_kids; i++) {
        const struct xml_node *k = b->extra->kids[i];
        const char *member = k->name ? xml_get_attr(k, "member") : NULL;
        struct json_object *v = NULL;
        struct err e = ERR_INIT;
        if (!k->name) {
            continue;
        }
        AUTO_FREE char *text = xml_text(k),
                       *name = xstrdup(strchr(k->name, ':') ? strchr(k->name, ':') + 1
                                                            : k->name);
        AUTO_FREE char *path = xasprintf("%s/metadata/definition/%s", b->kind->root, name);
        if (strcmp(name, "set") != 0 || !member) {
            refuse(b, k, path, NULL, "expected <set member='...'>");
        } else if (api_json_parse(text, strlen(text), &v, &e) < 0) {
            refuse(b, k, path, "member", "its text is no JSON: %s", e.msg);
        } else if (!xml_json_set(b->top, member, v)) {
            refuse(b, k, path, "member", "there is no such member");
        } else {
            b->origins = xrealloc_n(b->origins, b->n_origins + 1, sizeof(*b->origins));
            b->origins[b->n_origins++] = (struct origin){ xstrdup(member), k, xstrdup(path),
                                                          "member" };
        }
    }
}

/* The element that the refused member came from: the longest that the error's path begins with. */
static const struct origin *origin_of(const struct binder *b, const char *member)
{
    const struct origin *best = NULL;

    for (size_t i = 0; i < b->n_origins; i++) {
        const struct origin *o = &b->origins[i];
        size_t n = strlen(o->member);
        if (strncmp(o->member, member, n) == 0 && (!member[n] || strchr(".[", member[n])) &&
            (!best || n >= strlen(best->member))) {
            best = o;
        }
    }
    return best;
}

static void check_sames(struct binder *b, struct json_object *whole)
{
    for (size_t i = 0; i < b->n_sames; i++) {
        struct same *s = &b->sames[i];
        struct json_object *v = xml_json_at(whole, s->member);
        if (!v || !json_object_equal(v, s->value)) {
            refuse(b, s->n, s->path, s->attr, "not supported: %s", s->row->doc);
        } else if (!(s->row->flags & XML_PRINT)) {
            note(b, s->n, s->path, s->attr, s->row->doc);
        }
    }
}

/* The members against the schema; gives the definition with all defaults. */
static void finish(struct binder *b, const struct xml_node *root)
{
    const struct api_type *t = b->kind->type;
    struct api_error x = API_ERROR_INIT;
    void *s = xalloc(t->size);
    AUTO_JSON whole = NULL;

    if (api_decode(t, b->top, API_STRICT, "", s, &x) == 0) {
        whole = api_encode(t, s);
        api_release(t, s);
        check_sames(b, whole);
    } else {
        const struct origin *o = origin_of(b, x.object);
        size_t n = strlen(x.object);
        const char *text = strncmp(x.message, x.object, n) == 0 && x.message[n] == ':'
                               ? x.message + n + 2
                               : x.message;
        refuse(b, o ? o->n : root, o ? o->path : b->kind->root, o ? o->attr : NULL, "%s", text);
    }
    free(s);
    if (!b->r->n_problems) {
        b->r->definition = json_object_get(whole);
    }
}

static void binder_done(struct binder *b)
{
    for (size_t i = 0; i < b->n_origins; i++) {
        free(b->origins[i].member);
        free(b->origins[i].path);
    }
    for (size_t i = 0; i < b->n_sames; i++) {
        free(b->sames[i].path);
        free(b->sames[i].member);
        json_object_put(b->sames[i].value);
    }
    free(b->origins);
    free(b->sames);
    json_object_put(b->top);
}

static const struct xml_kind *kind_of(const struct xml_node *root, struct xml_result *r)
{
    AUTO_BUF b = BUF_INIT;

    for (size_t i = 0; i < xml_n_kinds; i++) {
        if (strcmp(xml_kinds[i]->root, root->name) == 0) {
            return xml_kinds[i];
        }
    }
    xml_show_element(&b, root, NULL);
    for (size_t i = 0; i < xml_n_others; i++) {
        if (strcmp(xml_others[i].root, root->name) == 0) {
            buf_printf(&b, ": not supported: %s", xml_others[i].doc);
        }
    }
    buf_add_str(&b, "; vmd reads");
    for (size_t i = 0; i < xml_n_kinds; i++) {
        buf_printf(&b, "%s <%s>", i ? i + 1 == xml_n_kinds ? " and" : "," : "",
                   xml_kinds[i]->root);
    }
    remark(&r->problems, &r->n_problems, root->line, root->name, buf_take(&b));
    return NULL;
}

void xml_parse(const struct xml_kind *kind, const char *text, size_t len, struct xml_result *r)
{
    struct err e = ERR_INIT;
    AUTO(xml_node_free) struct xml_node *root = xml_read(text, len, &e);
    struct binder b = { .r = r };

    *r = (struct xml_result){ .kind = kind };
    if (!root) {
        unsigned line = (unsigned)strtoul(e.msg + strlen("line "), NULL, 10);
        remark(&r->problems, &r->n_problems, line ? line : 1, "",
               xstrdup(strstr(e.msg, ": ") + 2));
        return;
    }
    b.kind = kind ? kind : kind_of(root, r);
    if (!b.kind) {
        return;
    }
    r->kind = b.kind;
    if (strcmp(root->name, b.kind->root) != 0) {
        refuse(&b, root, root->name, NULL, "expected <%s>", b.kind->root);
        return;
    }
    b.top = json_object_new_object();
    clear_flags(&b);
    refuse_text(&b, root, root->name);
    bind_element(&b, &(struct place){ "", b.top, "" }, root);
    if (b.kind->read) {
        b.kind->read(b.top);
    }
    bind_extra(&b);
    if (!r->n_problems) {
        finish(&b, root);
    }
    binder_done(&b);
}

void xml_result_done(struct xml_result *r)
{
    for (size_t i = 0; i < r->n_problems; i++) {
        free(r->problems[i].path);
        free(r->problems[i].text);
    }
    for (size_t i = 0; i < r->n_notes; i++) {
        free(r->notes[i].path);
        free(r->notes[i].text);
    }
    free(r->problems);
    free(r->notes);
    json_object_put(r->definition);
    *r = (struct xml_result){ 0 };
}

void xml_result_error(const struct xml_result *r, struct api_error *x)
{
    AUTO_BUF b = BUF_INIT;
    size_t shown = 0;

    while (shown < r->n_problems && b.len < 400) {
        buf_printf(&b, "%sline %u: %s", shown ? "; " : "", r->problems[shown].line,
                   r->problems[shown].text);
        shown++;
    }
    if (shown < r->n_problems) {
        buf_printf(&b, "; and %zu more", r->n_problems - shown);
    }
    api_error_set(
        x, API_E_INVALID_PARAMS, "xml",
        "docs/reference/xml.md lists what is supported; 'vmctl xml check' shows every refusal",
        "%s", b.data ? b.data : "refused");
}
