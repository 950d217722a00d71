/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What many procedures need: answers of one member, typed parameters, a domain's disks and cards by the names that tools have for
 * them. Inside of daemon/libvirt. Loop thread.
 */
#ifndef VMD_DAEMON_LIBVIRT_PARTS_H
#define VMD_DAEMON_LIBVIRT_PARTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct api_disk;
struct api_nic;
struct json_object;
struct lv_call;
struct vm;

/* virDomainModificationImpact */
enum { LV_LIVE = 1, LV_CONFIG = 2 };

void lv_reply_int(struct lv_call *c, const char *name, int64_t value);
void lv_reply_str(struct lv_call *c, const char *name, const char *text);
/* For then(): the member "xml" of what the method answered. */
void lv_reply_xml(struct lv_call *c, struct json_object *result);

/* Typed parameters: appended to `list`. Types are those of xdr.h. */
void lv_param(struct json_object *list, const char *field, char type, int64_t value);
void lv_param_str(struct json_object *list, const char *field, const char *text);
/* The value of the call's parameter; NULL: it was not given. */
struct json_object *lv_given(const struct lv_call *c, const char *field);
/* What a client may give; a list that ends with NULL. False: something else was given, and the call has failed. */
bool lv_only(struct lv_call *c, const char *const *fields);
/* Answers with parameters as all getters do: who has no room is told how many there are. */
void lv_reply_params(struct lv_call *c, struct json_object *take_list);

/* The definition as JSON, the caller's. */
struct json_object *lv_config(const struct vm *vm);
/* What vm.set does to put a definition in the place of the VM's: what the new one has not goes back to its default. The caller's. */
struct json_object *lv_patch(const struct vm *vm, struct json_object *definition);
/* By name, file or <target dev>; the place in the definition. -1: the call has failed. */
int lv_disk(struct lv_call *c, const struct vm *vm, const char *what);
/* By name, interface of the host or MAC address. */
int lv_nic(struct lv_call *c, const struct vm *vm, const char *what);
/* The name that methods know it by: "disk0" and "nic0" where it has none of its own. */
void lv_disk_name(const struct vm *vm, int at, char *name, size_t size);
/* Its <target dev>; the caller's. */
char *lv_disk_dev(const struct vm *vm, int at);
void lv_nic_name(const struct vm *vm, int at, char *name, size_t size);

/* What a client counts in KiB, in bytes: the largest number there is when that is too much. */
int64_t lv_bytes(int64_t kib);
/* vm.set of one member (taken), then an empty answer. */
void lv_change(struct lv_call *c, const char *member, struct json_object *take_value);
/* Where flags say: to what runs, to the definition, or (neither) to what is there. False: it does not run although that is asked for,
 * and the call has failed. */
bool lv_where(struct lv_call *c, const struct vm *vm, bool *live, bool *config);
/* The agent's command; then(c, {"result": ...}). */
void lv_agent(struct lv_call *c, const char *execute, struct json_object *take_arguments,
              void (*then)(struct lv_call *c, struct json_object *result));

#endif
