/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How a mutating call is answered: the change, the audit entry and, when the caller gave a key,
 * the remembered reply become durable in one transaction; only then the reply goes out. A second
 * call with the same key gets the same reply, also after a restart, also while the first is still at
 * work. Calls that failed are not remembered: they may be tried again.
 * Loop thread.
 */
#ifndef VMD_DAEMON_CALLS_H
#define VMD_DAEMON_CALLS_H

#include "api-schema/rpc/call.h"
#include "engine/base/err.h"

struct change;
struct idems;
struct vm;
struct vmd;

struct idems *idems_new(struct vmd *d);
void idems_free(struct idems *i);
int idems_load(struct idems *i, struct err *e);

/* The rpc server's hooks. */
bool calls_before(void *arg, struct api_call *call);
void calls_after(void *arg, struct api_call *call, struct json_object *result,
                 const struct api_error *error);

/* Commits c with audit and key, then runs then(arg, e) (may be NULL), then answers with
 * take_result, or with store-error when nothing was kept. `object` is what the audit names. */
void call_commit(struct vmd *d, struct api_call *call, struct change *c, const char *object,
                 struct json_object *take_result, void (*then)(void *arg, const struct err *e),
                 void *arg);
/* As call_commit with no change: audit and key only. */
void call_finish(struct vmd *d, struct api_call *call, const char *object,
                 struct json_object *take_result);

/* The VM a call names, or NULL after the call was answered. */
struct vm *call_vm(struct api_call *call, const char *ref);
/* May this caller do what owners do to that VM? Answers the call when not. */
bool call_owns(struct api_call *call, const struct vm *vm);
static inline struct vmd *call_daemon(struct api_call *call)
{
    return api_call_app(call);
}

#endif
