/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One procedure that is called: what its lv_do_*() sees and how it answers, once, then or later. Inside of
 * daemon/libvirt. Loop thread.
 */
#ifndef VMD_DAEMON_LIBVIRT_CALL_H
#define VMD_DAEMON_LIBVIRT_CALL_H

#include "api-schema/gen/types.h"
#include "api-schema/json/error.h"
#include "api-schema/json/json.h"
#include "engine/base/buf.h"
#include "engine/base/list.h"

#include <stdbool.h>
#include <stdint.h>

struct lv_call;
struct lv_session;
struct vm;
struct vmd;

struct lv_procedure {
    uint32_t number;
    const char *name;       /* as others know it: DOMAIN_SUSPEND */
    const char *args, *ret; /* forms, xdr.h */
    void (*run)(struct lv_call *c);
    const char *method; /* run is lv_plain: the method that does it all */
};

/* NULL: there is none that vmd knows. */
const struct lv_procedure *lv_find(uint32_t program, uint32_t number);

struct lv_call {
    struct list link;     /* lv_session.calls; alone once the client has gone */
    struct lv_session *q; /* NULL then */
    struct vmd *d;
    const struct lv_procedure *p;
    uint32_t program, serial;
    struct json_object *args;
    void (*then)(struct lv_call *c, struct json_object *result);
    bool late; /* what is asked for may go on when its time is over: then() all the same */
    const char *
        undo; /* the method, of parameters `kept`, that takes back what was done before what is asked for failed; NULL: none */
    const char *about;        /* what the call under way is about, as in lv_ask() */
    struct json_object *kept; /* the procedure's own, freed with it */
    int64_t number;           /* of a job that is waited for */
    void (*over)(struct lv_call *c, struct json_object *job);
};

/* Numbers of virterror.h. */
enum lv_error {
    LV_E_INTERNAL = 1,
    LV_E_NO_SUPPORT = 3,
    LV_E_INVALID_ARG = 8,
    LV_E_OPERATION_FAILED = 9,
    LV_E_XML = 27,
    LV_E_RPC = 39,
    LV_E_NO_DOMAIN = 42,
    LV_E_NO_NETWORK = 43,
    LV_E_DOM_EXIST = 47, /* unused by tools; OPERATION_FAILED says the same */
    LV_E_NO_POOL = 49,
    LV_E_NO_VOL = 50,
    LV_E_OPERATION_INVALID = 55,
    LV_E_NO_SECRET = 66,
    LV_E_CONFIG_UNSUPPORTED = 67,
    LV_E_OPERATION_TIMEOUT = 68,
    LV_E_NO_SNAPSHOT = 72,
    LV_E_AUTH = 45,
    LV_E_NO_FILTER = 62,
    LV_E_NO_DEVICE = 53,
    LV_E_NO_INTERFACE = 57,
    LV_E_ARGUMENT_UNSUPPORTED = 74,
    LV_E_OPERATION_UNSUPPORTED = 84,
    LV_E_AGENT_UNRESPONSIVE = 86,
    LV_E_ACCESS_DENIED = 88,
    LV_E_NO_METADATA = 80,
    LV_E_MIGRATE_FINISH_OK = 93, /* it was called off, and nothing of it is here */
    LV_E_DEVICE_MISSING = 99,
    LV_E_NO_CHECKPOINT = 103,
    LV_E_NO_BACKUP = 104,
    LV_E_NO_PORT = 107,
};

/* Answers. Each ends the call. The result has the members of the procedure's form; NULL: none. */
void lv_reply(struct lv_call *c, struct json_object *take_result);
/* The same, already encoded. */
void lv_reply_raw(struct lv_call *c, const struct buf *xdr);
/* An empty result, and a descriptor. */
void lv_reply_fd(struct lv_call *c, int owned_fd);
void lv_fail(struct lv_call *c, enum lv_error code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
void lv_fail_api(struct lv_call *c, const struct api_error *x);

/* Calls a method as this session; then(c, result) when it succeeded (the result borrowed), else the call fails with what went
 * wrong. `about` is "domain", "network", "pool", "volume", "snapshot" or NULL: which of libvirt's errors "not found" is.
 * Parameters are taken; NULL: none. The session may be gone in then(). */
void lv_ask(struct lv_call *c, const char *about, const char *method,
            struct json_object *take_params,
            void (*then)(struct lv_call *c, struct json_object *result));
/* For then(): answers with nothing. */
void lv_done(struct lv_call *c, struct json_object *result);
/* The procedure is one method of the object that is its first argument. */
void lv_plain(struct lv_call *c);

/* Arguments. */
const char *lv_str(const struct lv_call *c, const char *name); /* NULL: absent */
int64_t lv_int(const struct lv_call *c, const char *name);
/* {"vm": UUID} of the argument "dom" (or the snapshot's), {"network": ...} and so on; the caller's. */
struct json_object *lv_vm(const struct lv_call *c);
struct json_object *lv_object(const char *key, const char *value);

/* {name, uuid, id} as the wire has domains; of VmInfo, or of a VM. The caller's. */
struct json_object *lv_domain_of(struct vmd *d, struct json_object *info);
struct json_object *lv_domain(const struct vm *vm);
/* Runs as libvirt counts: by its state, whatever an emulator that ends still does. */
bool lv_active(enum api_vm_state state);
bool lv_active_word(const char *state);
/* Number of one that is active, else -1. */
int64_t lv_id(const struct vm *vm);
/* The VM of the argument "dom"; NULL: gone, or not to be seen by this client. */
struct vm *lv_the_vm(const struct lv_call *c);
/* The same on the wire. */
void lv_put_domain(struct buf *out, const struct vm *vm);
/* Domains that this client may look at and that pass the flags of CONNECT_LIST_ALL_DOMAINS; by name. The array is the caller's. */
struct vm **lv_domains(struct lv_call *c, int64_t flags, size_t *n);

#endif
