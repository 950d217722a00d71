/* SPDX-License-Identifier: Apache-2.0 */
/*
 * State files for people: see view.h. A struct view is its caller's.
 */
#include "engine/emu/state/view.h"

#include "api-schema/json/json.h"
#include "engine/base/mem.h"
#include "engine/base/str.h"
#include "engine/core/vm.h"
#include "engine/core/vmstate_view.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FIELDS_BYTES (512u << 10)        /* of fields in an answer */
#define SEARCH_BYTES (UINT64_C(1) << 30) /* looked through for an answer */

/* ---- what it is the state of ---- */

struct json_object *view_map(struct vm *vm)
{
    const struct mem_flat *f = mem_flat(vm->mem);
    struct json_object *list = json_object_new_array();

    for (unsigned i = 0; i < f->n && json_object_array_length(list) < VIEW_WINDOWS; i++) {
        const struct mem_range *r = &f->r[i];

        if (r->host) {
            struct json_object *o = json_object_new_object();

            api_json_set_str(o, "region", mem_region_name(r->region));
            api_json_set_int(o, "address", (int64_t)r->base);
            api_json_set_int(o, "offset", (int64_t)r->offset);
            api_json_set_int(o, "size", (int64_t)r->size);
            json_object_array_add(list, o);
        }
    }
    return list;
}

static int bad_info(struct err *e)
{
    return err_set(e, -EBADMSG, "the state does not say which memory it has");
}

static int read_regions(struct view *v, const struct json_object *o, struct err *e)
{
    struct json_object *list = api_json_get(o, "memory");

    if (!json_object_is_type(list, json_type_array) ||
        json_object_array_length(list) > VIEW_REGIONS) {
        return bad_info(e);
    }
    for (size_t i = 0; i < json_object_array_length(list); i++) {
        struct json_object *r = json_object_array_get_idx(list, i);
        const char *name = api_json_get_str(r, "name");
        int64_t size = api_json_get_int(r, "size", -1);

        if (!name || size <= 0) {
            return bad_info(e);
        }
        str_copy(v->name[i], sizeof(v->name[i]), name);
        v->size[i] = (uint64_t)size;
        v->n_regions++;
    }
    return 0;
}

/* Absent in states of before 0.3. */
static int read_windows(struct view *v, const struct json_object *o, struct err *e)
{
    struct json_object *list = api_json_get(o, "map");
    size_t n = list && json_object_is_type(list, json_type_array)
                   ? json_object_array_length(list)
                   : 0;

    for (size_t i = 0; i < n && i < VIEW_WINDOWS; i++) {
        struct json_object *w = json_object_array_get_idx(list, i);
        const char *name = api_json_get_str(w, "region");
        struct view_window *to = &v->window[v->n_windows];

        to->address = (uint64_t)api_json_get_int(w, "address", 0);
        to->offset = (uint64_t)api_json_get_int(w, "offset", -1);
        to->size = (uint64_t)api_json_get_int(w, "size", 0);
        for (to->region = 0; name && to->region < v->n_regions; to->region++) {
            if (strcmp(v->name[to->region], name) == 0) {
                break;
            }
        }
        if (!name || to->region == v->n_regions || to->offset > v->size[to->region] ||
            to->size > v->size[to->region] - to->offset || to->size == 0 ||
            to->address > UINT64_MAX - to->size) {
            return bad_info(e);
        }
        v->n_windows++;
    }
    return 0;
}

static int section(const struct view *v, enum state_section type, struct buf *out,
                   struct err *e)
{
    const struct state_entry *en = state_in_find(&v->in, type, 0, 0);

    return en ? state_in_get(&v->in, en, out, e)
              : err_set(e, -EBADMSG, "the state lacks its section %d", (int)type);
}

int view_open(struct view *v, int fd, const uint8_t key[STATE_KEY_LEN], struct err *e)
{
    AUTO_BUF info = BUF_INIT;
    AUTO_JSON o = NULL;

    *v = (struct view){ .in = { .fd = -1 } };
    int rc = state_in_open(&v->in, fd, key, e);

    rc = rc == 0 ? section(v, STATE_INFO, &info, e) : rc;
    rc = rc == 0 ? api_json_parse(info.data, info.len, &o, e) : rc;
    rc = rc == 0 ? read_regions(v, o, e) : rc;
    rc = rc == 0 ? read_windows(v, o, e) : rc;
    for (size_t i = 0; i < v->in.n && rc == 0; i++) {
        const struct state_entry *en = &v->in.entry[i];

        if (en->type == STATE_MEMORY &&
            (en->region >= v->n_regions || en->page % CHUNK_PAGES ||
             en->page > (v->size[en->region] - 1) / MEM_PAGE_SIZE)) {
            rc = err_set(e, -EBADMSG,
                         "the state has memory where there is none: region %u, page 0x%" PRIx64,
                         en->region, en->page);
        }
    }
    if (rc != 0) {
        view_done(v);
    }
    return rc;
}

void view_done(struct view *v)
{
    state_in_done(&v->in);
    chunk_done(&v->codec);
    free(take_ptr(v->chunk));
}

/* ---- fields ---- */

struct listing {
    struct json_object *list;
    const char *part;
    uint64_t after, at; /* fields to leave out; seen */
    size_t bytes;
    bool more;
};

static bool add_field(void *arg, const struct vmstate_field *f)
{
    struct listing *l = arg;

    if (l->part && strncmp(f->part, l->part, strlen(l->part)) != 0) {
        return true;
    }
    if (l->at < l->after) {
        l->at++;
        return true;
    }
    l->bytes += strlen(f->part) + strlen(f->field) + strlen(f->value) + 40;
    l->more = l->bytes > FIELDS_BYTES;
    if (!l->more) {
        struct json_object *o = json_object_new_object();

        api_json_set_str(o, "part", f->part);
        api_json_set_str(o, "field", f->field);
        api_json_set_str(o, "value", f->value);
        json_object_array_add(l->list, o);
        l->at++;
    }
    return !l->more;
}

int view_fields(const void *p, size_t n, const char *part, uint64_t after,
                struct json_object *out, struct err *e)
{
    struct listing l = { .list = json_object_new_array(), .part = part, .after = after };
    int rc = vmstate_view(p, n, add_field, &l, e);

    api_json_set(out, "fields", l.list);
    if (l.more) {
        api_json_set_int(out, "next", (int64_t)l.at);
    }
    return rc;
}

int view_file_fields(const struct view *v, const char *part, uint64_t after,
                     struct json_object *out, struct err *e)
{
    AUTO_BUF machine = BUF_INIT;
    int rc = section(v, STATE_MACHINE, &machine, e);

    return rc == 0 ? view_fields(machine.data, machine.len, part, after, out, e) : rc;
}

static bool go_on(void *arg, const struct vmstate_field *field)
{
    (void)arg;
    (void)field;
    return true;
}

int view_check(const struct view *v, struct json_object *out, struct err *e)
{
    AUTO_BUF machine = BUF_INIT;
    int rc = section(v, STATE_MACHINE, &machine, e);

    rc = rc == 0 ? vmstate_view(machine.data, machine.len, go_on, NULL, e) : rc;
    rc = rc == 0 ? state_in_check(&v->in, e) : rc;
    if (rc == 0) {
        api_json_set_int(out, "sections", (int64_t)v->in.n);
    }
    return rc;
}

/* ---- memory ---- */

static size_t chunk_bytes(const struct view *v, unsigned region, uint64_t page)
{
    uint64_t left = v->size[region] - page * MEM_PAGE_SIZE;

    return left < CHUNK_BYTES ? (size_t)left : CHUNK_BYTES;
}

/* v->chunk becomes the piece of memory that begins at the page; *zero: it has no section. */
static int get_chunk(struct view *v, unsigned region, uint64_t page, bool *zero, struct err *e)
{
    const struct state_entry *en = state_in_find(&v->in, STATE_MEMORY, region, page);
    int rc;

    *zero = !en;
    if (!en || (v->chunk && v->chunk_region == region && v->chunk_page == page)) {
        return 0;
    }
    uint8_t *to = v->chunk ? take_ptr(v->chunk) : xalloc(CHUNK_BYTES);

    rc = state_in_get(&v->in, en, &v->codec.bytes, e);
    rc = rc == 0 ? chunk_unpack_copy(&v->codec, to, chunk_bytes(v, region, page), e) : rc;
    if (rc != 0) {
        free(to);
        return rc;
    }
    v->chunk = to;
    v->chunk_region = region;
    v->chunk_page = page;
    return 0;
}

static const struct view_window *window_of(const struct view *v, uint64_t address)
{
    for (unsigned i = 0; i < v->n_windows; i++) {
        if (address - v->window[i].address < v->window[i].size) {
            return &v->window[i];
        }
    }
    return NULL;
}

/* Bytes from an address on that lie in one window and one chunk: *p, NULL where they are zero. */
static int piece_at(struct view *v, uint64_t address, const uint8_t **p, uint64_t *n,
                    struct err *e)
{
    const struct view_window *w = window_of(v, address);
    bool zero;

    if (!w) {
        return err_set(e, -ENOENT, "there is no memory at 0x%" PRIx64 " in the state%s",
                       address, v->n_windows ? "" : ", which does not say where its memory is");
    }
    uint64_t offset = address - w->address + w->offset, in = offset % CHUNK_BYTES;
    int rc = get_chunk(v, w->region, (offset - in) / MEM_PAGE_SIZE, &zero, e);

    if (rc == 0) {
        *n = chunk_bytes(v, w->region, (offset - in) / MEM_PAGE_SIZE) - in;
        if (*n > w->size - (address - w->address)) {
            *n = w->size - (address - w->address);
        }
        *p = zero ? NULL : v->chunk + in;
    }
    return rc;
}

int view_memory(struct view *v, uint64_t address, uint8_t *to, size_t n, struct err *e)
{
    for (size_t done = 0; done < n;) {
        const uint8_t *p = NULL;
        uint64_t some = 0;
        int rc = piece_at(v, address + done, &p, &some, e);

        if (rc != 0) {
            return rc;
        }
        some = some < n - done ? some : n - done;
        if (p) {
            memcpy(to + done, p, some);
        } else {
            memset(to + done, 0, some);
        }
        done += some;
    }
    return 0;
}

/* The window that holds the address, or the first one behind it. */
static const struct view_window *window_from(const struct view *v, uint64_t address)
{
    const struct view_window *best = window_of(v, address);

    for (unsigned i = 0; i < v->n_windows && !window_of(v, address); i++) {
        const struct view_window *w = &v->window[i];

        if (w->address > address && (!best || w->address < best->address)) {
            best = w;
        }
    }
    return best;
}

static void add_address(struct json_object *list, uint64_t address)
{
    char text[24];

    snprintf(text, sizeof(text), "0x%" PRIx64, address);
    json_object_array_add(list, json_object_new_string(text));
}

struct search {
    const uint8_t *bytes;
    size_t n, limit;
    struct json_object *found;
    struct buf seen; /* the last bytes of the piece before, and this one */
    uint64_t at;     /* address of its first byte */
    uint64_t next;   /* where to go on */
    bool full;
};

/* Looks through s->seen and keeps its last bytes, in which something may begin. */
static void look_through(struct search *s)
{
    const char *p = s->seen.data;
    size_t from = 0;

    while (from + s->n <= s->seen.len && !s->full) {
        const char *hit = memmem(p + from, s->seen.len - from, s->bytes, s->n);

        if (!hit) {
            break;
        }
        from = (size_t)(hit - p) + 1;
        if (json_object_array_length(s->found) == s->limit) {
            s->full = true;
            s->next = s->at + from - 1;
        } else {
            add_address(s->found, s->at + from - 1);
        }
    }
    size_t keep = s->n - 1 < s->seen.len ? s->n - 1 : s->seen.len;

    s->at += s->seen.len - keep;
    buf_consume(&s->seen, s->seen.len - keep);
}

static int search_window(struct view *v, const struct view_window *w, uint64_t from,
                         struct search *s, uint64_t *budget, struct err *e)
{
    static const uint8_t none[MEM_PAGE_SIZE];
    bool zero_first = s->bytes[0] == 0;

    s->seen.len = 0;
    s->at = s->next = from;
    while (s->next - w->address<w->size && * budget> 0 && !s->full) {
        const uint8_t *p = NULL;
        uint64_t n = 0;
        int rc = piece_at(v, s->next, &p, &n, e);

        if (rc != 0) {
            return rc;
        }
        *budget -= n < *budget ? n : *budget;
        s->next += n;
        if (p) {
            buf_add(&s->seen, p, n);
        } else if (zero_first) { /* it may begin anywhere in them */
            for (uint64_t done = 0; done < n; done += MEM_PAGE_SIZE) {
                buf_add(&s->seen, none, n - done < MEM_PAGE_SIZE ? n - done : MEM_PAGE_SIZE);
            }
        } else { /* only what began before reaches into them, at most this far */
            uint64_t some = n < s->n ? n : s->n;

            buf_add(&s->seen, none, some);
            look_through(s);
            if (n > some) {
                s->seen.len = 0;
                s->at = s->next;
            }
            continue;
        }
        look_through(s);
    }
    if (!s->full) {
        s->next -= s->next - w->address < w->size ? s->seen.len : 0;
    }
    return 0;
}

int view_search(struct view *v, uint64_t from, const uint8_t *bytes, size_t n, size_t limit,
                struct json_object *out, struct err *e)
{
    struct search s = {
        .bytes = bytes, .n = n, .limit = limit, .found = json_object_new_array()
    };
    const struct view_window *w = window_from(v, from);
    uint64_t budget = SEARCH_BYTES;
    int rc = 0;

    while (w && rc == 0 && !s.full && budget > 0) {
        from = from - w->address < w->size ? from : w->address;
        rc = search_window(v, w, from, &s, &budget, e);
        from = s.next;
        w = window_from(v, from);
    }
    buf_done(&s.seen);
    api_json_set(out, "found", s.found);
    if (rc == 0 && w) {
        AUTO_FREE char *text = xasprintf("0x%" PRIx64, s.next);

        api_json_set_str(out, "next", text);
    }
    return rc;
}
