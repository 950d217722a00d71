/* SPDX-License-Identifier: Apache-2.0 */
/*
 * XDR (RFC 4506) of messages whose form is a text, to JSON and back; primitives by libtirpc.
 *
 * A form is a list of members, NAME:TYPE, separated by spaces. Types:
 *
 *   i u h H d   int, unsigned int, hyper, unsigned hyper, double
 *   s S o       string, string that may be absent, bytes (a JSON string, which may hold any byte)
 *   M           32 characters, each a word of its own (a name in the answer of NODE_GET_INFO)
 *   U           UUID, as text
 *   D           domain: {name, uuid, id}        N P F  network, pool, filter: {name, uuid}
 *   V           volume: {pool, name, key}       I      interface: {name, mac}
 *   n           node device: {name}             X      secret: {uuid, usage_type, usage_id}
 *   K C         snapshot, checkpoint: {name, dom}
 *   O B         port of a network: {net, uuid}; binding of a filter: {port, filter}
 *   T           typed parameter: {field, type, value}, type being one of i u h H d b s
 *   [TYPE]      array; an optional value is one of at most one element
 *   {MEMBERS}   struct
 *
 * Lengths are bounded by what is there, nesting by the form. Any thread.
 */
#ifndef VMD_DAEMON_LIBVIRT_XDR_H
#define VMD_DAEMON_LIBVIRT_XDR_H

#include "engine/base/err.h"

#include <stddef.h>
#include <stdint.h>

struct buf;
struct json_object;

enum { LV_STRING_MAX = 4 << 20, LV_ARRAY_MAX = 65536 };

/* The whole of `data`; the caller's. NULL: it has not that form. */
struct json_object *lv_decode(const char *form, const void *data, size_t n, struct err *e);
/* Members that `value` has not are 0, "" or empty; a string longer than LV_STRING_MAX is -EMSGSIZE. */
int lv_encode(const char *form, struct json_object *value, struct buf *out, struct err *e);
/* The same without a JSON value, for long answers: a word, two words, a string, a UUID given as text; a typed parameter of type i, u, b
 * (value: a word), h, H or of s. */
void lv_put_word(struct buf *out, uint32_t word);
void lv_put_wide(struct buf *out, uint64_t wide);
void lv_put_text(struct buf *out, const char *text);
void lv_put_uuid(struct buf *out, const char *text);
void lv_put_param(struct buf *out, const char *field, char type, uint64_t value);
void lv_put_param_text(struct buf *out, const char *field, const char *value);

/* Walking a form: the struct that a letter is, NULL when it is none; the text behind the type that begins at `at`. */
const char *lv_struct(char type);
const char *lv_behind(const char *at);

#endif
