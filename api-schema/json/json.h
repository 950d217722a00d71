/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bounded JSON: what arrives from outside is checked against hard limits, then parsed by json-c.
 *
 * A text is refused, with the place and the reason, when it is larger than 1 MiB, nested deeper
 * than 32, not strict UTF-8, holds a control character, \u0000 or half a surrogate pair in a
 * string, a number that neither int64/uint64 nor a finite double can hold, a member twice in one
 * object, or anything after the value (RFC 8259, and RFC 7493 for the last points).
 * Pure functions, any thread; the values are json-c's and not shared between threads.
 */
#ifndef VMD_API_JSON_H
#define VMD_API_JSON_H

#include "engine/base/err.h"

#include <json-c/json.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    API_JSON_MAX_SIZE = 1024 * 1024, /* bytes of one text */
    API_JSON_MAX_DEPTH = 32,         /* objects and arrays within one another */
    /* A text may have one value or name for so many bytes of the limit on its size: an empty array is 2 bytes of text and
     * 300 of tree. */
    API_JSON_BYTES_A_VALUE = 16,
};

/* Parses the whole text; surrounding white space is fine. On success *out is the caller's, to be
 * released with json_object_put(); the JSON value null is a NULL *out. -EMSGSIZE when too large,
 * -EINVAL otherwise; the message names line-relative byte offset and reason. */
int api_json_parse(const char *text, size_t len, struct json_object **out, struct err *e);

/* As api_json_parse with other limits (0: the ones above), for files and tests. */
int api_json_parse_max(const char *text, size_t len, size_t max_size, unsigned max_depth,
                       struct json_object **out, struct err *e);

/* Reads and parses a file of at most API_JSON_MAX_SIZE bytes; errors name the path.
 * "-" is standard input. */
int api_json_file(const char *path, struct json_object **out, struct err *e);

/* Bytes of the UTF-8 sequence at p (RFC 3629), at most `room`; 0 when it is none or cut. */
size_t api_utf8_len(const char *p, size_t room);

/* Shorthands over json-c for building and reading; `o` borrowed, strings copied. */
void api_json_set_str(struct json_object *o, const char *key, const char *value);
void api_json_set_int(struct json_object *o, const char *key, int64_t value);
void api_json_set_bool(struct json_object *o, const char *key, bool value);
void api_json_set(struct json_object *o, const char *key, struct json_object *take_value);
/* Borrowed member or NULL (also when `o` is no object). */
struct json_object *api_json_get(const struct json_object *o, const char *key);
/* Borrowed text of a string member, or NULL. */
const char *api_json_get_str(const struct json_object *o, const char *key);
int64_t api_json_get_int(const struct json_object *o, const char *key, int64_t otherwise);
bool api_json_get_bool(const struct json_object *o, const char *key, bool otherwise);
/* Compact text on one line, no escaped slashes; valid until the value changes or is released. */
const char *api_json_text(struct json_object *o);

void api_json_autoput(struct json_object **o);
/* AUTO_JSON o = NULL: released when it goes out of scope. */
#define AUTO_JSON __attribute__((cleanup(api_json_autoput))) struct json_object *

#endif
