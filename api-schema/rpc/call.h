/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One call in flight: what a handler receives and answers.
 *
 *   void api_handle_vm_start(struct api_call *call, struct api_vm_start_in *in)
 *   {
 *       ...
 *       api_reply_vm_start(call, &info);                     (generated, typed)
 *       or: api_fail(call, API_E_NOT_FOUND, in->vm, "see 'vmctl list'", "no VM '%s'", in->vm);
 *   }
 *
 * A handler answers each call exactly once, at once or later from the same loop thread; the
 * answer frees the call and `in`. Until then both stay valid, also when the client has gone (the answer
 * is then dropped, after `ops->after` saw it). A handler that waits for long sets api_call_on_gone() to
 * learn of that, and still answers.
 */
#ifndef VMD_RPC_CALL_H
#define VMD_RPC_CALL_H

#include "api-schema/gen/methods.h"
#include "api-schema/json/error.h"
#include "api-schema/rpc/conn.h"

#include <stdarg.h>
#include <stdbool.h>

struct json_object;
struct rpc_session;

struct api_call; /* opaque */

const struct api_method *api_call_method(const struct api_call *c);
/* NULL once the client has gone. */
struct rpc_session *api_call_session(const struct api_call *c);
const struct rpc_peer *api_call_peer(const struct api_call *c); /* always valid */
enum api_role api_call_role(const struct api_call *c);
/* Argument of rpc_server_new(): the daemon. */
void *api_call_app(const struct api_call *c);
/* The caller's key for this mutating call, NULL when none was given. */
const char *api_call_key(const struct api_call *c);
/* Parameters as they came, without the key; borrowed. For hashing and journals. */
struct json_object *api_call_params(const struct api_call *c);
/* The caller waits for no answer (a notification). */
bool api_call_is_notification(const struct api_call *c);

/* For the application's own use while the call is open. */
void api_call_set_data(struct api_call *c, void *data);
void *api_call_data(const struct api_call *c);
/* fn(arg, c) when the client goes before the answer; the call must still be answered (there or later).
 * NULL withdraws it. */
void api_call_on_gone(struct api_call *c, void (*fn)(void *arg, struct api_call *c), void *arg);

/* Calls a method on behalf of this call's caller, with its role and everything that a call of its own would pass
 * through. fn(arg, result, error) once, perhaps before this returns; exactly one of the two is not NULL
 * (borrowed). Parameters are taken; NULL: none. */
void api_call_nested(struct api_call *parent, const char *method,
                     struct json_object *take_params,
                     void (*fn)(void *arg, struct json_object *result,
                                const struct api_error *error),
                     void *arg);

/* Answers. Each ends the call. */
void api_reply(struct api_call *c, const void *out); /* struct of the method's out type */
void api_reply_json(struct api_call *c, struct json_object *take_result);
void api_reply_error(struct api_call *c, const struct api_error *x);
void api_fail(struct api_call *c, int code, const char *object, const char *remedy,
              const char *fmt, ...) __attribute__((format(printf, 5, 6)));
/* From an errno-style error; the code is chosen from e->code when `code` is 0. */
void api_fail_err(struct api_call *c, int code, const char *object, const char *remedy,
                  const struct err *e);

#endif
