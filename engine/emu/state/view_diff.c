/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What differs between two state files of a VM: fields by name, memory by page. Pieces of memory with the same digest are not read.
 */
#include "engine/emu/state/view.h"

#include "api-schema/json/json.h"
#include "engine/base/hash.h"
#include "engine/base/mem.h"
#include "engine/core/vmstate_view.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define FIELDS_MAX 1000000u /* of one state */
#define TEXT_SHOWN (256u << 10)

/* ---- fields ---- */

struct pair {
    char *value, *key; /* key: part, space, field */
    bool seen;
};

struct side {
    struct pair *pair;
    size_t n, room;
};

static bool keep_field(void *arg, const struct vmstate_field *f)
{
    struct side *s = arg;

    if (s->n == s->room) {
        s->room = s->room ? s->room * 2 : 1024;
        s->pair = xrealloc_n(s->pair, s->room, sizeof(*s->pair));
    }
    s->pair[s->n++] = (struct pair){ .value = xstrdup(f->value),
                                     .key = xasprintf("%s %s", f->part, f->field) };
    return s->n < FIELDS_MAX;
}

static void side_done(struct side *s)
{
    for (size_t i = 0; i < s->n; i++) {
        free(s->pair[i].value);
        free(s->pair[i].key);
    }
    free(s->pair);
}

static int read_side(const struct view *v, struct side *s, struct err *e)
{
    AUTO_BUF machine = BUF_INIT;
    const struct state_entry *en = state_in_find(&v->in, STATE_MACHINE, 0, 0);
    int rc = en ? state_in_get(&v->in, en, &machine, e)
                : err_set(e, -EBADMSG, "the state lacks its section %d", STATE_MACHINE);

    return rc == 0 ? vmstate_view(machine.data, machine.len, keep_field, s, e) : rc;
}

struct changes {
    struct json_object *fields, *pages;
    size_t limit, bytes;
    int64_t n_fields, n_pages;
    bool truncated;
};

/* Values NULL: it is not there (an element that is zero, a device that is not in both). */
static void field_changed(struct changes *c, const char *key, const char *from, const char *to)
{
    const char *space = strchr(key, ' ');
    struct json_object *o;

    c->n_fields++;
    c->bytes += strlen(key) + (from ? strlen(from) : 0) + (to ? strlen(to) : 0);
    if (json_object_array_length(c->fields) >= c->limit || c->bytes > TEXT_SHOWN) {
        c->truncated = true;
        return;
    }
    o = json_object_new_object();
    json_object_object_add(o, "part", json_object_new_string_len(key, (int)(space - key)));
    api_json_set_str(o, "field", space + 1);
    if (from) {
        api_json_set_str(o, "from", from);
    }
    if (to) {
        api_json_set_str(o, "to", to);
    }
    json_object_array_add(c->fields, o);
}

static void diff_sides(struct side *a, struct side *b, struct changes *c)
{
    struct hash *h = hash_new_str();

    for (size_t i = 0; i < b->n; i++) {
        hash_put_str(h, b->pair[i].key, &b->pair[i]);
    }
    for (size_t i = 0; i < a->n; i++) {
        struct pair *other = hash_get_str(h, a->pair[i].key);

        if (!other || strcmp(other->value, a->pair[i].value) != 0) {
            field_changed(c, a->pair[i].key, a->pair[i].value, other ? other->value : NULL);
        }
        if (other) {
            other->seen = true;
        }
    }
    for (size_t i = 0; i < b->n; i++) {
        if (!b->pair[i].seen) {
            field_changed(c, b->pair[i].key, NULL, b->pair[i].value);
        }
    }
    hash_free(h);
}

/* ---- memory ---- */

struct run {
    unsigned region;
    uint64_t page, n; /* n 0: none */
};

static void end_run(struct changes *c, const struct view *v, struct run *r)
{
    uint64_t offset = r->page * MEM_PAGE_SIZE;

    c->n_pages += (int64_t)r->n;
    if (r->n > 0 && json_object_array_length(c->pages) >= c->limit) {
        c->truncated = true;
    } else if (r->n > 0) {
        struct json_object *o = json_object_new_object();

        api_json_set_str(o, "region", v->name[r->region]);
        api_json_set_int(o, "offset", (int64_t)offset);
        for (unsigned i = 0; i < v->n_windows; i++) {
            const struct view_window *w = &v->window[i];

            if (w->region == r->region && offset - w->offset < w->size) {
                AUTO_FREE char *text = xasprintf("0x%" PRIx64, w->address + offset - w->offset);

                api_json_set_str(o, "address", text);
                break;
            }
        }
        api_json_set_int(o, "pages", (int64_t)r->n);
        json_object_array_add(c->pages, o);
    }
    r->n = 0;
}

static void page_changed(struct changes *c, const struct view *v, struct run *r,
                         unsigned region, uint64_t page)
{
    if (r->n == 0 || r->region != region || r->page + r->n != page) {
        end_run(c, v, r);
        *r = (struct run){ .region = region, .page = page };
    }
    r->n++;
}

/* A piece of memory as it is in the file, into n bytes. */
static int unpack(struct view *v, const struct state_entry *en, uint8_t *to, size_t n,
                  struct err *e)
{
    int rc;

    if (!en) {
        memset(to, 0, n);
        return 0;
    }
    rc = state_in_get(&v->in, en, &v->codec.bytes, e);
    return rc == 0 ? chunk_unpack_copy(&v->codec, to, n, e) : rc;
}

static int order(const struct state_entry *x, const struct state_entry *y)
{
    if (!x || !y) {
        return x ? -1 : 1;
    }
    if (x->region != y->region) {
        return x->region < y->region ? -1 : 1;
    }
    return x->page < y->page ? -1 : x->page > y->page;
}

static const struct state_entry *memory_entry(const struct view *v, size_t *at)
{
    while (*at < v->in.n && v->in.entry[*at].type != STATE_MEMORY) {
        ++*at;
    }
    return *at < v->in.n ? &v->in.entry[*at] : NULL;
}

static int diff_memory(struct view *a, struct view *b, uint8_t *x, uint8_t *y,
                       struct changes *c, struct err *e)
{
    struct run r = { .n = 0 };
    size_t i = 0, j = 0;

    for (;;) {
        const struct state_entry *p = memory_entry(a, &i), *q = memory_entry(b, &j);
        int o = p && q ? order(p, q) : p ? -1 : 1;
        const struct state_entry *one = o <= 0 ? p : q;

        if (!p && !q) {
            break;
        }
        p = o <= 0 ? p : NULL;
        q = o >= 0 ? q : NULL;
        i += p != NULL;
        j += q != NULL;
        if (p && q && p->length == q->length &&
            memcmp(p->digest, q->digest, sizeof(p->digest)) == 0) {
            continue;
        }
        uint64_t left = a->size[one->region] - one->page * MEM_PAGE_SIZE;
        size_t n = left < CHUNK_BYTES ? (size_t)left : CHUNK_BYTES;
        int rc = unpack(a, p, x, n, e);

        rc = rc == 0 ? unpack(b, q, y, n, e) : rc;
        if (rc != 0) {
            return rc;
        }
        for (size_t at = 0; at < n; at += MEM_PAGE_SIZE) {
            size_t some = n - at < MEM_PAGE_SIZE ? n - at : MEM_PAGE_SIZE;

            if (memcmp(x + at, y + at, some) != 0) {
                page_changed(c, a, &r, one->region, one->page + at / MEM_PAGE_SIZE);
            }
        }
    }
    end_run(c, a, &r);
    return 0;
}

static int same_memory(const struct view *a, const struct view *b, struct err *e)
{
    bool same = a->n_regions == b->n_regions;

    for (unsigned i = 0; i < a->n_regions && same; i++) {
        same = a->size[i] == b->size[i] && strcmp(a->name[i], b->name[i]) == 0;
    }
    return same ? 0
                : err_set(e, -EINVAL,
                          "the two states are of machines with different memory: only states "
                          "of one machine can be compared");
}

int view_diff(struct view *a, struct view *b, size_t limit, struct json_object *out,
              struct err *e)
{
    struct changes c = { .fields = json_object_new_array(),
                         .pages = json_object_new_array(),
                         .limit = limit };
    AUTO_FREE uint8_t *x = xalloc(CHUNK_BYTES), *y = xalloc(CHUNK_BYTES);
    struct side from = { .n = 0 }, to = { .n = 0 };
    int rc = same_memory(a, b, e);

    rc = rc == 0 ? read_side(a, &from, e) : rc;
    rc = rc == 0 ? read_side(b, &to, e) : rc;
    if (rc == 0) {
        diff_sides(&from, &to, &c);
        rc = diff_memory(a, b, x, y, &c, e);
    }
    side_done(&from);
    side_done(&to);
    api_json_set(out, "fields", c.fields);
    api_json_set_int(out, "fields_changed", c.n_fields);
    api_json_set(out, "pages", c.pages);
    api_json_set_int(out, "pages_changed", c.n_pages);
    api_json_set_bool(out, "truncated", c.truncated);
    return rc;
}
