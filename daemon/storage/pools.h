/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Storage pools and volumes: what is known of them, and how changes become durable. A volume is there when its row is in
 * the store; the file gets its name between a row that says "being made, as file number N" and the row that says it is
 * there, so that a daemon that dies at any step leaves either a whole volume or none. Rows are objects of the kinds
 * "pool" and "volume" (scope: the pool's UUID).
 * Loop thread; files are worked on by the threads of work.h.
 */
#ifndef VMD_DAEMON_STORAGE_POOLS_H
#define VMD_DAEMON_STORAGE_POOLS_H

#include "api-schema/gen/methods.h"
#include "daemon/storage/files.h"
#include "daemon/storage/work.h"
#include "engine/base/list.h"

#include <stdbool.h>
#include <stdint.h>

struct api_call;
struct api_error;
struct api_vm_config;
struct change;
struct hash;
struct store_object;
struct vmd;

enum { POOLS_MAX = 1000, VOLUMES_MAX = 100000 };

struct volume {
    struct list link; /* pool.volumes */
    struct pool *pool;
    char name[64];
    enum api_disk_format format;
    int64_t capacity, allocation;
    char *backing, *backing_format;
    char *export;     /* of an NBD server; NULL: its name */
    int64_t making;   /* number of its file while it was not acknowledged yet; 0: it was */
    const char *busy; /* what is being done with it: "made", "resized"...; NULL: nothing */
    bool hidden;      /* not acknowledged yet, or its file is not there */
};
struct pool {
    struct list link; /* pools.all, by name */
    struct vmd *d;
    struct api_pool_config config; /* name, uuid and path are set */
    char *project;
    bool autostart, wanted, pending; /* wanted: active as far as the store says */
    const char *busy;
    enum api_pool_state state;
    char *where;          /* its folder, or what its kind has instead (pool_where()) */
    struct folder folder; /* but for the kind only while it is not inactive */
    int64_t capacity, available;
    struct list volumes;
    struct hash *by_name;
    size_t n_volumes;
    struct list parked; /* calls that wait until it is active */
};
struct pools {
    struct vmd *d;
    struct works *works;
    struct list all;
    size_t n;
    struct list strays; /* rows of volumes that were read before their pool's */
    char token[17];
};

struct pools *pools_new(struct vmd *d);
/* Work under way is ended and its calls are answered; then pools_free. */
void pools_end(struct vmd *d);
void pools_free(struct pools *s);
void pools_load_pool(struct vmd *d, const struct store_object *row);
void pools_load_volume(struct vmd *d, const struct store_object *row);
/* Everything is loaded: pools that were active, or are to be after a boot, are looked at. */
void pools_begin(struct vmd *d);

/* May a VM of this project name this file? */
bool pools_may_use(struct vmd *d, const char *project, const char *path);
/* Fills in file and format of disks that name a volume. 0, or -1 and x. */
int pools_resolve(struct vmd *d, struct api_vm_config *c, struct api_error *x);
/* Before a start: the volumes are there and nothing is being done with them. */
int pools_ready(struct vmd *d, const struct api_vm_config *c, struct api_error *x);

/* ---- between pools.c, rpc_pool.c, rpc_volume.c ---- */

struct pool *pool_find(struct vmd *d, const char *ref);
struct pool *pool_new(struct vmd *d, struct api_pool_config *take_config, const char *project);
void pool_drop(struct pool *p);
void pool_put(const struct pool *p, bool wanted, struct change *c);
void pool_event(const struct pool *p, const char *reason, struct change *c);
struct json_object *pool_info(const struct pool *p, bool config);
/* Opens and looks at the folder; done(arg, e) when it is active or failed. False: too much is under way. */
bool pool_open(struct pool *p, bool build, void (*done)(void *arg, const struct err *e),
               void *arg);
bool pool_look(struct pool *p, void (*done)(void *arg, const struct err *e), void *arg);
/* What its kind does before it becomes inactive; then as pool_open(). */
bool pool_shut(struct pool *p, void (*done)(void *arg, const struct err *e), void *arg);
void pool_close(struct pool *p);
/* What a definition says of where it is, as text; NULL: nothing, or an address that is none (e). */
char *pool_where(const struct api_pool_config *c, struct err *e);
const struct pool_kind *pool_kind_of(enum api_pool_type type);
/* Its definition is another now. */
void pool_settle(struct pool *p);
/* Calls that waited go on. */
void pool_unpark(struct pool *p);

struct volume *volume_find(struct pool *p, const char *name);
struct volume *volume_new(struct pool *p, const char *name, enum api_disk_format format);
void volume_drop(struct volume *v);
void volume_put(const struct volume *v, struct change *c);
void volume_del(const struct volume *v, struct change *c);
void volume_event(const struct volume *v, const char *reason, struct change *c);
void volume_take(struct volume *v, struct measure *take_m);
char *volume_path(const struct volume *v);
struct json_object *volume_json(const struct volume *v);
/* What volume XML says of it. */
struct json_object *volume_definition(const struct volume *v);
/* The volume of the same pool that stands on this one; NULL: none does. */
struct volume *volume_user(const struct volume *v);
bool volume_stands_on(const struct volume *v, const char *name);

/* The pool of a call whose caller has the role there; NULL after the call was answered, or put aside until the pool is
 * active: then `again` is called with it. active: it must be. */
struct pool *call_pool(struct api_call *call, const char *ref, enum api_role role, bool active,
                       void (*again)(struct api_call *call, void *in), void *in);

#endif
