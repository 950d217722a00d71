/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From JSON to the C structs of the schema and back, driven by tables that the generator
 * writes (api-schema/gen/types.h declares the structs and one `api_type_*` table for each).
 *
 * How a member of the schema looks in C (member `x`):
 *   bool, int, size        bool x / int64_t x; with no default and not required also bool has_x
 *   string, name, path...  char *x, owned, NULL when absent
 *   an enum                enum api_foo x; has_x as above
 *   a struct               struct api_foo *x, owned, NULL when absent
 *   any, object, patch     struct json_object *x, one reference owned, NULL when absent or null
 *   [T]                    T *x and size_t n_x, owned; empty when absent
 * Decoding fills defaults, so a member with a default or one that is required is always there.
 *
 * Ownership: decode and copy build a struct that owns everything; api_release() frees what it
 * owns (not the struct itself) and clears it. Encoding only reads, so a struct that is filled with
 * borrowed pointers on the stack is fine to encode, and must not be released.
 * Pure functions, any thread.
 */
#ifndef VMD_API_CODEC_H
#define VMD_API_CODEC_H

#include "api-schema/json/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct buf;
struct json_object;

enum api_kind {
    API_BOOL,
    API_INT,    /* int64_t within [min, max] */
    API_STRING, /* at most max bytes, then `check` */
    API_ENUM,
    API_STRUCT,
    API_PATCH,  /* object, checked against `type`, kept as JSON */
    API_OBJECT, /* any JSON object */
    API_ANY,
};

enum api_check { API_TEXT, API_NAME, API_UUID, API_PATH, API_IMAGE, API_VMREF };

enum {
    API_F_REQUIRED = 1,
    API_F_LIST = 2,
    API_F_HAS = 4,       /* a has_ flag tells absence */
    API_F_SIZE = 8,      /* an int in bytes: tools take and show 512M */
    API_F_BARE = 16,     /* vmctl: the value written without "key=" */
    API_F_CONTENTS = 32, /* vmctl: people name a file that holds it */
};

struct api_member {
    const char *name;
    const char *doc;
    const char *unit; /* NULL or "ms", "ns", "ms since 1970" */
    enum api_kind kind;
    enum api_check check;
    unsigned flags;
    size_t offset;               /* of the member; of the pointer for a list */
    size_t has_offset;           /* of has_x, or of n_x for a list */
    int64_t min, max;            /* int: range; string: max is the length in bytes */
    int64_t multiple;            /* int: must be a multiple of this; 0: any */
    size_t max_items;            /* list */
    const struct api_type *type; /* enum, struct, patch */
    const char *words; /* strings that pass `check`, each followed by \0; NULL: none */
    const char *def;   /* default as JSON text; NULL: none */
};

struct api_type {
    const char *name; /* "VmConfig", "vm.start (in)" */
    const char *doc;
    size_t size;                      /* of the struct; 0 for an enum */
    const struct api_member *members; /* struct */
    size_t n_members;
    const char *const *values; /* enum, by number */
    const char *const *value_docs;
    size_t n_values;
};

enum {
    API_STRICT = 0,
    API_LENIENT =
        1, /* unknown members are skipped: replies of a newer daemon, old store rows */
};

/* Fills *out (type->size bytes, contents ignored) from `o` (NULL: an empty object). On failure *x
 * names the path of the member ("config.disks[1].file"), what was expected and what to do, and
 * *out is cleared. Returns 0 or -1. `root` starts the path and may be "". */
int api_decode(const struct api_type *t, const struct json_object *o, unsigned flags,
               const char *root, void *out, struct api_error *x);
/* A new JSON object; absent members are left out. */
struct json_object *api_encode(const struct api_type *t, const void *in);
/* The text of the same (api_json_text() of it), appended without making it. */
void api_write(const struct api_type *t, const void *in, struct buf *to);
/* The same as a raw value (text.h), for what is only sent. */
struct json_object *api_encode_raw(const struct api_type *t, const void *in);
/* Frees what the struct owns and clears it; NULL is fine. */
void api_release(const struct api_type *t, void *s);
/* Deep copy; `out` contents ignored. */
void api_copy(const struct api_type *t, const void *in, void *out);
/* All defaults; members without one are absent. */
void api_init(const struct api_type *t, void *out);

/* Applies a patch (a checked JSON object as decoded into an API_PATCH member) to a struct of type
 * t, RFC 7396 with null meaning the default. *s is unchanged when the result is refused. */
int api_patch(const struct api_type *t, void *s, const struct json_object *patch,
              struct api_error *x);

/* Word of an enum value, "?" when out of range; static. */
const char *api_enum_name(const struct api_type *t, int value);
/* Number of a word, -1 when it is none. */
int api_enum_value(const struct api_type *t, const char *word);
/* Member of that name, NULL when there is none. */
const struct api_member *api_member_find(const struct api_type *t, const char *name);
/* The candidate nearest to `word`, NULL when none is near; for "did you mean". */
const char *api_nearest(const char *word, const char *(*candidate)(const void *arg, size_t i),
                        const void *arg, size_t n);

#endif
