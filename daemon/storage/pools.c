/* SPDX-License-Identifier: Apache-2.0 */
/* Pools and volumes in memory and as rows. See pools.h. Owns the pools, their volumes and folders. */
#include "daemon/storage/pools.h"

#include "api-schema/json/codec.h"
#include "api-schema/json/json.h"
#include "api-schema/net/nbdaddr.h"
#include "api-schema/rpc/call.h"
#include "daemon/auth/access.h"
#include "daemon/calls.h"
#include "daemon/daemon.h"
#include "daemon/events.h"
#include "daemon/run/proc.h"
#include "daemon/store/store.h"
#include "engine/base/hash.h"
#include "engine/base/log.h"
#include "engine/base/mem.h"
#include "engine/base/str.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

struct stray {
    struct list link;
    char *scope, *name, *body;
};
struct parked {
    struct list link;
    struct api_call *call;
    void (*again)(struct api_call *call, void *in);
    void *in;
};

struct pools *pools_new(struct vmd *d)
{
    char uuid[37];
    struct pools *s = xnew(struct pools);
    s->d = d;
    s->works = works_new(d->loop, d->opt.image, d->opt.vmctl);
    list_init(&s->all);
    list_init(&s->strays);
    uuid_make(uuid);
    snprintf(s->token, sizeof(s->token), "%.8s%.4s", uuid, uuid + 9);
    return s;
}

static void stray_free(struct stray *k)
{
    list_remove(&k->link);
    free(k->scope);
    free(k->name);
    free(k->body);
    free(k);
}

void pools_end(struct vmd *d)
{
    if (d->pools) {
        works_free(d->pools->works);
        d->pools->works = NULL;
        list_for_each (n, &d->pools->all) {
            pool_unpark(list_entry(n, struct pool, link));
        }
    }
}

void pools_free(struct pools *s)
{
    if (!s) {
        return;
    }
    while (!list_empty(&s->strays)) {
        stray_free(list_entry(s->strays.next, struct stray, link));
    }
    while (!list_empty(&s->all)) {
        pool_drop(list_entry(s->all.next, struct pool, link));
    }
    free(s);
}

/* ---- pools ---- */

struct pool *pool_find(struct vmd *d, const char *ref)
{
    list_for_each (n, &d->pools->all) {
        struct pool *p = list_entry(n, struct pool, link);
        if (strcmp(p->config.name, ref) == 0 || strcmp(p->config.uuid, ref) == 0) {
            return p;
        }
    }
    return NULL;
}

struct pool *pool_new(struct vmd *d, struct api_pool_config *take_config, const char *project)
{
    struct pools *s = d->pools;
    struct pool *p = xnew(struct pool);
    struct list *at = s->all.next;
    p->d = d;
    p->config = *take_config;
    memset(take_config, 0, sizeof(*take_config));
    p->project = xstrdup(project);
    p->folder.fd = -1;
    pool_settle(p);
    p->by_name = hash_new_str();
    list_init(&p->volumes);
    list_init(&p->parked);
    while (at != &s->all &&
           strcmp(list_entry(at, struct pool, link)->config.name, p->config.name) < 0) {
        at = at->next;
    }
    list_append(at, &p->link); /* before `at` */
    s->n++;
    return p;
}

const struct pool_kind *pool_kind_of(enum api_pool_type type)
{
    switch (type) {
    case API_POOL_TYPE_DIR:
    case API_POOL_TYPE_FS:
        return &pool_kind_dir;
    case API_POOL_TYPE_LOGICAL:
        return &pool_kind_lvm;
    case API_POOL_TYPE_NBD:
        return &pool_kind_nbd;
    default:
        return NULL;
    }
}

char *pool_where(const struct api_pool_config *c, struct err *e)
{
    struct nbd_addr a;
    if (c->type != API_POOL_TYPE_NBD) {
        return c->path ? xstrdup(c->path) : NULL;
    }
    if (nbd_addr_parse(c->uri ? c->uri : "", &a, e) < 0) {
        return NULL;
    }
    a.export[0] = 0;
    return nbd_addr_text(&a);
}

void pool_settle(struct pool *p)
{
    free(p->where);
    p->where = pool_where(&p->config, NULL);
    p->where = p->where ? p->where : xstrdup("");
    p->folder.kind = pool_kind_of(p->config.type);
    if (!p->folder.kind) { /* a definition of another vmd's store */
        p->folder.kind = &pool_kind_dir;
    }
}

void pool_close(struct pool *p)
{
    if (p->folder.fd >= 0) {
        close(p->folder.fd);
    }
    p->folder.fd = -1;
    p->state = API_POOL_STATE_INACTIVE;
}

void pool_drop(struct pool *p)
{
    pool_close(p);
    while (!list_empty(&p->volumes)) {
        volume_drop(list_entry(p->volumes.next, struct volume, link));
    }
    list_remove(&p->link);
    p->d->pools->n--;
    hash_free(p->by_name);
    api_release(&api_type_pool_config, &p->config);
    free(p->project);
    free(p->where);
    free(p);
}

void pool_put(const struct pool *p, bool wanted, struct change *c)
{
    AUTO_JSON o = json_object_new_object();
    api_json_set(o, "config", api_encode(&api_type_pool_config, &p->config));
    api_json_set_str(o, "project", p->project);
    api_json_set_bool(o, "autostart", p->autostart);
    api_json_set_str(o, "boot", wanted ? p->d->boot_id : "");
    store_tx_object_put(change_tx(c), &(struct store_object){ .kind = "pool",
                                                              .scope = "",
                                                              .name = p->config.name,
                                                              .body = api_json_text(o),
                                                              .changed_ns = time_real_ns() });
}

static void tell(struct change *c, enum api_event_type type, const char *name,
                 const struct pool *pool, const char *reason)
{
    AUTO_JSON detail = json_object_new_object();
    api_json_set_str(detail, "project", pool->project);
    if (type == API_EVENT_TYPE_POOL) {
        api_json_set_str(detail, "uuid", pool->config.uuid);
    }
    change_event(c, &(struct api_event){ .type = type,
                                         .name = (char *)name,
                                         .reason = (char *)reason,
                                         .detail = detail });
}

void pool_event(const struct pool *p, const char *reason, struct change *c)
{
    tell(c, API_EVENT_TYPE_POOL, p->config.name, p, reason);
}

struct json_object *pool_info(const struct pool *p, bool config)
{
    int64_t seen = 0;
    list_for_each (n, &p->volumes) {
        seen += !list_entry(n, struct volume, link)->hidden;
    }
    struct api_pool_info out = {
        .name = p->config.name,
        .uuid = p->config.uuid,
        .project = p->project,
        .state = p->state,
        .autostart = p->autostart,
        .type = p->config.type,
        .path = p->where,
        .capacity = p->capacity,
        .available = p->available,
        .allocation = p->capacity - p->available,
        .volumes = seen,
        .config = config ? (struct api_pool_config *)&p->config : NULL,
    };
    return api_encode(&api_type_pool_info, &out);
}

/* ---- volumes ---- */

struct volume *volume_find(struct pool *p, const char *name)
{
    return hash_get_str(p->by_name, name);
}

struct volume *volume_new(struct pool *p, const char *name, enum api_disk_format format)
{
    struct volume *v = xnew(struct volume);
    v->pool = p;
    v->format = format;
    str_copy(v->name, sizeof(v->name), name);
    list_append(&p->volumes, &v->link);
    hash_put_str(p->by_name, v->name, v);
    p->n_volumes++;
    return v;
}

void volume_drop(struct volume *v)
{
    hash_del_str(v->pool->by_name, v->name);
    v->pool->n_volumes--;
    list_remove(&v->link);
    free(v->backing);
    free(v->backing_format);
    free(v->export);
    free(v);
}

void volume_put(const struct volume *v, struct change *c)
{
    AUTO_JSON o = json_object_new_object();
    api_json_set_str(o, "format", api_disk_format_name(v->format));
    api_json_set_int(o, "capacity", v->capacity);
    api_json_set_int(o, "allocation", v->allocation);
    if (v->backing) {
        api_json_set_str(o, "backing", v->backing);
    }
    if (v->backing_format) {
        api_json_set_str(o, "backing_format", v->backing_format);
    }
    if (v->export) {
        api_json_set_str(o, "export", v->export);
    }
    if (v->making) {
        api_json_set_int(o, "making", v->making);
    }
    store_tx_object_put(change_tx(c), &(struct store_object){ .kind = "volume",
                                                              .scope = v->pool->config.uuid,
                                                              .name = v->name,
                                                              .body = api_json_text(o),
                                                              .changed_ns = time_real_ns() });
}

void volume_del(const struct volume *v, struct change *c)
{
    store_tx_object_del(change_tx(c), "volume", v->pool->config.uuid, v->name);
}

void volume_event(const struct volume *v, const char *reason, struct change *c)
{
    AUTO_FREE char *name = xasprintf("%s/%s", v->pool->config.name, v->name);
    tell(c, API_EVENT_TYPE_VOLUME, name, v->pool, reason);
}

void volume_take(struct volume *v, struct measure *m)
{
    free(v->backing);
    free(v->backing_format);
    free(v->export);
    v->capacity = m->capacity;
    v->allocation = m->allocation;
    v->backing = take_ptr(m->backing);
    v->backing_format = take_ptr(m->backing_format);
    v->export = take_ptr(m->export);
}

char *volume_path(const struct volume *v)
{
    struct nbd_addr a;
    if (v->pool->config.type != API_POOL_TYPE_NBD) {
        return xasprintf("%s/%s", v->pool->where, v->name);
    }
    if (nbd_addr_parse(v->pool->where, &a, NULL) < 0) {
        return xstrdup("");
    }
    str_copy(a.export, sizeof(a.export), v->export ? v->export : v->name);
    return nbd_addr_text(&a);
}

struct json_object *volume_json(const struct volume *v)
{
    AUTO_FREE char *path = volume_path(v);
    struct api_volume out = { .pool = v->pool->config.name,
                              .name = (char *)v->name,
                              .format = v->format,
                              .capacity = v->capacity,
                              .allocation = v->allocation,
                              .backing = v->backing,
                              .backing_format = v->backing_format,
                              .path = path };
    return api_encode(&api_type_volume, &out);
}

struct json_object *volume_definition(const struct volume *v)
{
    AUTO_FREE char *path = volume_path(v);
    AUTO_FREE char *base = v->backing && v->backing[0] != '/'
                               ? xasprintf("%s/%s", v->pool->where, v->backing)
                               : NULL;
    struct api_volume_config out = { .name = (char *)v->name,
                                     .capacity = v->capacity,
                                     .has_capacity = true,
                                     .allocation = v->allocation,
                                     .has_allocation = true,
                                     .path = nbd_addr_is(path) ? NULL : path,
                                     .format = (char *)api_disk_format_name(v->format),
                                     .backing = base ? base : v->backing,
                                     .backing_format = v->backing_format };
    return api_encode(&api_type_volume_config, &out);
}

bool volume_stands_on(const struct volume *v, const char *name)
{
    const char *base = v->backing, *dir = v->pool->where;
    size_t n = strlen(dir);
    if (base && strncmp(base, dir, n) == 0 && base[n] == '/') {
        base += n + 1;
    }
    return base && strcmp(base, name) == 0;
}

struct volume *volume_user(const struct volume *v)
{
    list_for_each (n, &v->pool->volumes) {
        struct volume *other = list_entry(n, struct volume, link);
        if (volume_stands_on(other, v->name)) {
            return other;
        }
    }
    return NULL;
}

/* ---- rows ---- */

void pools_load_pool(struct vmd *d, const struct store_object *row)
{
    AUTO_JSON o = NULL;
    struct err e = ERR_INIT;
    struct api_error x = API_ERROR_INIT;
    struct api_pool_config config;
    if (api_json_parse(row->body, strlen(row->body), &o, &e) < 0 ||
        api_decode(&api_type_pool_config, api_json_get(o, "config"), API_LENIENT, "config",
                   &config, &x) < 0) {
        log_error("daemon", "storage pool '%s' left out: %s", row->name,
                  e.code ? e.msg : x.message);
        return;
    }
    AUTO_FREE char *where = pool_where(&config, &e);
    if (!config.uuid || !where) {
        log_error("daemon", "storage pool '%s' left out: it has no place", row->name);
        api_release(&api_type_pool_config, &config);
        return;
    }
    const char *project = api_json_get_str(o, "project"), *boot = api_json_get_str(o, "boot");
    struct pool *p = pool_new(d, &config, project ? project : "default");
    p->autostart = api_json_get_bool(o, "autostart", false);
    p->wanted = (boot && strcmp(boot, d->boot_id) == 0) || p->autostart;
}

void pools_load_volume(struct vmd *d, const struct store_object *row)
{
    struct stray *k = xnew(struct stray);
    k->scope = xstrdup(row->scope);
    k->name = xstrdup(row->name);
    k->body = xstrdup(row->body);
    list_append(&d->pools->strays, &k->link);
}

static void load_volume(struct pool *p, const struct stray *k)
{
    AUTO_JSON o = NULL;
    struct err e = ERR_INIT;
    if (api_json_parse(k->body, strlen(k->body), &o, &e) < 0 || !str_is_name(k->name)) {
        log_error("daemon", "volume '%s' left out: %s", k->name, e.msg);
        return;
    }
    const char *format = api_json_get_str(o, "format");
    const char *backing = api_json_get_str(o, "backing");
    const char *backing_format = api_json_get_str(o, "backing_format");
    const char *export = api_json_get_str(o, "export");
    bool qcow2 = format && strcmp(format, "qcow2") == 0;
    struct volume *v = volume_new(p, k->name,
                                  qcow2 ? API_DISK_FORMAT_QCOW2 : API_DISK_FORMAT_RAW);
    v->capacity = api_json_get_int(o, "capacity", 0);
    v->allocation = api_json_get_int(o, "allocation", 0);
    v->making = api_json_get_int(o, "making", 0);
    v->hidden = v->making != 0;
    v->backing = backing ? xstrdup(backing) : NULL;
    v->backing_format = backing_format ? xstrdup(backing_format) : NULL;
    v->export = export ? xstrdup(export) : NULL;
}

static void began(void *arg, const struct err *e)
{
    struct pool *p = arg;
    if (e) {
        log_error("daemon", "storage pool '%s' is not active: %s", p->config.name, e->msg);
    }
}

void pools_begin(struct vmd *d)
{
    while (!list_empty(&d->pools->strays)) {
        struct stray *k = list_entry(d->pools->strays.next, struct stray, link);
        struct pool *p = pool_find(d, k->scope);
        if (p) {
            load_volume(p, k);
        }
        stray_free(k);
    }
    list_for_each (n, &d->pools->all) {
        struct pool *p = list_entry(n, struct pool, link);
        if (p->wanted) {
            pool_open(p, false, began, p);
        }
    }
}

/* ---- looking at a folder ---- */

struct scan {
    struct work w;
    struct pool *p;
    struct folder folder; /* a copy: the thread's */
    struct folder_make make;
    bool open, measure;
    int64_t capacity, available;
    struct known *known;
    size_t n_known;
    struct found *found;
    size_t n_found;
    void (*done)(void *arg, const struct err *e);
    void *arg;
};

static void scan_run(struct work *w)
{
    struct scan *k = container_of(w, struct scan, w);
    int rc = 0;
    if (k->open) {
        rc = k->folder.kind->open(&k->folder, &k->make, &w->e);
    }
    if (rc == 0) {
        rc = k->folder.kind->scan(&k->folder, k->known, k->n_known, k->measure, &k->found,
                                  &k->n_found, &w->e);
        k->folder.kind->room(&k->folder, &k->capacity, &k->available);
    }
    w->failed = rc < 0;
}

/* Something of one file; c gets what is new. */
static bool take_found(struct pool *p, struct found *f, bool measured, struct change *c)
{
    struct volume *v = volume_find(p, f->name);
    if (v && v->busy) {
        return false;
    }
    if (v && (f->undone || v->making)) {
        volume_del(v, c);
        volume_drop(v);
        return true;
    }
    if (v) {
        bool was = v->hidden;
        v->hidden = false;
        if (measured && f->m.format[0]) {
            bool new = v->capacity != f->m.capacity || v->allocation != f->m.allocation;
            volume_take(v, &f->m);
            if (new) {
                volume_put(v, c);
            }
            return new || was;
        }
        v->allocation = f->m.allocation;
        return false;
    }
    if (f->known || p->n_volumes >= VOLUMES_MAX) {
        return false; /* deleted meanwhile, or too many */
    }
    v = volume_new(p, f->name,
                   strcmp(f->m.format, "qcow2") == 0 ? API_DISK_FORMAT_QCOW2
                                                     : API_DISK_FORMAT_RAW);
    volume_take(v, &f->m);
    volume_put(v, c);
    volume_event(v, "found", c);
    return true;
}

static int found_by_name(const void *name, const void *entry)
{
    return strcmp(name, ((const struct found *)entry)->name);
}

static int found_order(const void *a, const void *b)
{
    return strcmp(((const struct found *)a)->name, ((const struct found *)b)->name);
}

static void take_all(struct scan *k)
{
    struct pool *p = k->p;
    struct change *c = change_new(p->d);
    bool new = false;
    if (k->n_found) {
        qsort(k->found, k->n_found, sizeof(*k->found), found_order);
    }
    list_for_each_safe (n, &p->volumes) {
        struct volume *v = list_entry(n, struct volume, link);
        bool there = k->n_found &&
                     bsearch(v->name, k->found, k->n_found, sizeof(*k->found), found_by_name);
        if (v->busy || there) {
            continue;
        }
        if (v->making) { /* never acknowledged */
            volume_del(v, c);
            volume_drop(v);
            new = true;
        } else if (!v->hidden) {
            v->hidden = true;
            volume_event(v, "lost", c);
            new = true;
        }
    }
    for (size_t i = 0; i < k->n_found; i++) {
        new |= take_found(p, &k->found[i], k->measure, c);
    }
    p->capacity = k->capacity;
    p->available = k->available;
    if (new) {
        change_commit(c, NULL, NULL);
    } else {
        change_drop(c);
    }
}

static void scan_free(struct scan *k)
{
    for (size_t i = 0; i < k->n_known; i++) {
        free((char *)k->known[i].name);
    }
    for (size_t i = 0; i < k->n_found; i++) {
        measure_done(&k->found[i].m);
    }
    for (size_t i = 0; i < k->make.n_devices; i++) {
        free((char *)k->make.devices[i]);
    }
    free((void *)k->make.devices);
    free(k->known);
    free(k->found);
    free((char *)k->folder.path);
    free(k);
}

static void scan_ended(struct work *w)
{
    struct scan *k = container_of(w, struct scan, w);
    struct pool *p = k->p;
    p->busy = NULL;
    if (!w->failed) {
        if (k->open) {
            p->folder = k->folder;
            p->folder.path = p->where;
            p->state = API_POOL_STATE_ACTIVE;
        }
        take_all(k);
    } else if (k->open) {
        if (k->folder.fd >= 0) {
            close(k->folder.fd);
        }
        p->state = API_POOL_STATE_INACTIVE;
    }
    k->done(k->arg, w->failed ? &w->e : NULL);
    pool_unpark(p);
    scan_free(k);
}

static int known_order(const void *a, const void *b)
{
    return strcmp(((const struct known *)a)->name, ((const struct known *)b)->name);
}

static bool scan(struct pool *p, bool open, bool build, bool measure,
                 void (*done)(void *arg, const struct err *e), void *arg)
{
    struct scan *k = xnew(struct scan);
    const struct api_pool_config *c = &p->config;
    k->w.run = scan_run;
    k->w.ended = scan_ended;
    k->p = p;
    k->folder = (struct folder){ .kind = p->folder.kind,
                                 .works = p->d->pools->works,
                                 .path = xstrdup(p->where),
                                 .fd = p->folder.fd,
                                 .token = p->d->pools->token };
    k->open = open;
    k->measure = measure || p->folder.kind->tells_all;
    const char **devices = c->n_devices ? xnew_n(const char *, c->n_devices) : NULL;
    for (size_t i = 0; i < c->n_devices; i++) {
        devices[i] = xstrdup(c->devices[i].path);
    }
    k->make = (struct folder_make){ .build = build,
                                    .mode = c->has_mode ? c->mode : -1,
                                    .owner = c->has_owner ? c->owner : -1,
                                    .group = c->has_group ? c->group : -1,
                                    .devices = devices,
                                    .n_devices = c->n_devices };
    k->done = done;
    k->arg = arg;
    k->known = p->n_volumes ? xrealloc_n(NULL, p->n_volumes, sizeof(*k->known)) : NULL;
    list_for_each (n, &p->volumes) {
        struct volume *v = list_entry(n, struct volume, link);
        k->known[k->n_known++] = (struct known){ .name = xstrdup(v->name),
                                                 .format = api_disk_format_name(v->format),
                                                 .making = v->busy ? 0 : v->making };
    }
    if (k->n_known) {
        qsort(k->known, k->n_known, sizeof(*k->known), known_order);
    }
    if (!works_start(p->d->pools->works, &k->w)) {
        scan_free(k);
        return false;
    }
    p->busy = open ? "started" : "refreshed";
    return true;
}

bool pool_open(struct pool *p, bool build, void (*done)(void *arg, const struct err *e),
               void *arg)
{
    if (!scan(p, true, build, false, done, arg)) {
        return false;
    }
    p->state = API_POOL_STATE_STARTING;
    return true;
}

static void shut_run(struct work *w)
{
    struct scan *k = container_of(w, struct scan, w);
    w->failed = k->folder.kind->shut(&k->folder, &w->e) < 0;
}

static void shut_ended(struct work *w)
{
    struct scan *k = container_of(w, struct scan, w);
    k->p->busy = NULL;
    k->done(k->arg, w->failed ? &w->e : NULL);
    scan_free(k);
}

bool pool_shut(struct pool *p, void (*done)(void *arg, const struct err *e), void *arg)
{
    struct scan *k = xnew(struct scan);
    k->w.run = shut_run;
    k->w.ended = shut_ended;
    k->p = p;
    k->done = done;
    k->arg = arg;
    k->folder = p->folder;
    k->folder.works = p->d->pools->works;
    k->folder.path = xstrdup(p->where);
    if (!works_start(p->d->pools->works, &k->w)) {
        scan_free(k);
        return false;
    }
    p->busy = "stopped";
    return true;
}

bool pool_look(struct pool *p, void (*done)(void *arg, const struct err *e), void *arg)
{
    return scan(p, false, false, true, done, arg);
}

/* ---- calls ---- */

void pool_unpark(struct pool *p)
{
    struct list all;
    list_init(&all);
    while (!list_empty(&p->parked)) {
        struct list *n = p->parked.next;
        list_remove(n);
        list_append(&all, n);
    }
    while (!list_empty(&all)) {
        struct parked *k = list_entry(all.next, struct parked, link);
        struct parked copy = *k;
        list_remove(&k->link);
        free(k);
        if (!copy.call) {
            continue;
        }
        if (p->d->pools->works) {
            copy.again(copy.call, copy.in);
        } else {
            api_fail(copy.call, API_E_CANCELLED, p->config.name, "call again once vmd is back",
                     "vmd is shutting down");
        }
    }
}

struct pool *call_pool(struct api_call *call, const char *ref, enum api_role role, bool active,
                       void (*again)(struct api_call *call, void *in), void *in)
{
    struct pool *p = pool_find(call_daemon(call), ref);
    if (!p || p->pending || access_role_of(call, p->project) == API_ROLE_NONE) {
        api_fail(call, API_E_NOT_FOUND, ref, "'vmctl pool list' shows the pools there are",
                 "there is no storage pool '%s'", ref);
        return NULL;
    }
    if (access_role_of(call, p->project) < role) {
        api_fail(call, API_E_DENIED, p->project,
                 "ask an administrator: 'vmctl user set' gives roles",
                 "%s needs role %s in project %s", api_call_method(call)->name,
                 api_role_names[role], p->project);
        return NULL;
    }
    if (again && p->state == API_POOL_STATE_STARTING) {
        struct parked *k = xnew(struct parked);
        *k = (struct parked){ .call = call, .again = again, .in = in };
        list_append(&p->parked, &k->link);
        return NULL;
    }
    if (active && p->state != API_POOL_STATE_ACTIVE) {
        api_fail(call, API_E_BAD_STATE, p->config.name, "start it: 'vmctl pool start'",
                 "storage pool '%s' is not active", p->config.name);
        return NULL;
    }
    return p;
}

/* ---- VMs ---- */

static bool has_path(struct pool *p, const char *path)
{
    bool found = false;
    list_for_each (n, &p->volumes) {
        AUTO_FREE char *own = volume_path(list_entry(n, struct volume, link));
        found |= strcmp(own, path) == 0;
    }
    return found;
}

bool pools_may_use(struct vmd *d, const char *project, const char *path)
{
    list_for_each (n, &d->pools->all) {
        struct pool *p = list_entry(n, struct pool, link);
        size_t len = strlen(p->where);
        if (strcmp(p->project, project) != 0) {
            continue;
        }
        if (p->config.type == API_POOL_TYPE_NBD
                ? has_path(p, path)
                : strncmp(path, p->where, len) == 0 && path[len] == '/' &&
                      str_is_name(path + len + 1) && volume_find(p, path + len + 1)) {
            return true;
        }
    }
    return false;
}

static struct volume *disk_volume(struct vmd *d, const struct api_vm_config *c,
                                  const struct api_disk *k, struct api_error *x)
{
    struct pool *p = k->pool ? pool_find(d, k->pool) : NULL;
    if (!k->pool || !k->volume) {
        api_error_set(x, API_E_INVALID_PARAMS, "config.disks", "give file, or pool and volume",
                      "a disk of VM '%s' has a %s without a %s", c->name,
                      k->pool ? "pool" : "volume", k->pool ? "volume" : "pool");
        return NULL;
    }
    if (!p || p->pending || strcmp(p->project, c->project) != 0) {
        api_error_set(x, API_E_NOT_FOUND, k->pool,
                      "'vmctl pool list' shows the pools there are",
                      "there is no storage pool '%s' for project '%s'", k->pool, c->project);
        return NULL;
    }
    struct volume *v = volume_find(p, k->volume);
    if (!v || v->hidden) {
        api_error_set(x, API_E_NOT_FOUND, k->volume,
                      "'vmctl volume list' shows the volumes there are",
                      "there is no volume '%s' in storage pool '%s'", k->volume, k->pool);
        return NULL;
    }
    return v;
}

int pools_resolve(struct vmd *d, struct api_vm_config *c, struct api_error *x)
{
    for (size_t i = 0; i < c->n_disks; i++) {
        struct api_disk *k = &c->disks[i];
        if (!k->pool && !k->volume && !k->file && !k->cdrom && !k->removable) {
            return api_error_set(x, API_E_INVALID_PARAMS, "config.disks",
                                 "give file, or pool and volume",
                                 "disk %zu of VM '%s' has no file", i, c->name);
        }
        if (!k->pool && !k->volume) {
            continue;
        }
        struct volume *v = disk_volume(d, c, k, x);
        if (!v) {
            return -1;
        }
        free(k->file);
        k->file = volume_path(v);
        k->format = v->format;
    }
    return 0;
}

int pools_ready(struct vmd *d, const struct api_vm_config *c, struct api_error *x)
{
    for (size_t i = 0; i < c->n_disks; i++) {
        const struct api_disk *k = &c->disks[i];
        if (!k->pool) {
            continue;
        }
        struct volume *v = disk_volume(d, c, k, x);
        if (!v) {
            return -1;
        }
        if (v->pool->state == API_POOL_STATE_INACTIVE) {
            return api_error_set(x, API_E_BAD_STATE, k->pool, "start it: 'vmctl pool start'",
                                 "storage pool '%s' of VM '%s' is not active", k->pool,
                                 c->name);
        }
        if (v->busy) {
            return api_error_set(x, API_E_BUSY, k->volume, "start the VM when that has ended",
                                 "volume '%s' of VM '%s' is just being %s", k->volume, c->name,
                                 v->busy);
        }
    }
    return 0;
}
