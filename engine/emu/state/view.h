/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Looking into a machine's state without the machine: fields, memory, and what differs between two state files. What is read
 * may come from anybody; a struct view belongs to one thread. Answers are JSON objects, bounded so that each goes into
 * a line of the API: who wants more asks again from where an answer says `next`.
 */
#ifndef VMD_EMU_STATE_VIEW_H
#define VMD_EMU_STATE_VIEW_H

#include "engine/emu/state/chunk.h"
#include "engine/emu/state/file.h"

struct json_object;
struct vm;

#define VIEW_REGIONS 64
#define VIEW_WINDOWS 256
#define VIEW_READ_MAX 65536  /* bytes of memory in an answer */
#define VIEW_PATTERN_MAX 256 /* bytes that are looked for */
#define VIEW_FOUND_MAX 1024  /* places in an answer */

/* Where the guest sees a part of a region. */
struct view_window {
    unsigned region;
    uint64_t address, offset, size;
};

struct view {
    struct state_in in;
    char name[VIEW_REGIONS][64]; /* of the regions of memory, printable */
    uint64_t size[VIEW_REGIONS];
    unsigned n_regions;
    struct view_window window[VIEW_WINDOWS]; /* in the order of the file */
    unsigned n_windows;
    struct chunk_codec codec;
    uint8_t *chunk; /* the one unpacked last; NULL: none */
    unsigned chunk_region;
    uint64_t chunk_page;
};

/* Of a file (borrowed); checks seal and contents. */
int view_open(struct view *v, int fd, const uint8_t key[STATE_KEY_LEN], struct err *e);
void view_done(struct view *v);

/* The member "map" of a state's INFO. */
struct json_object *view_map(struct vm *vm);

/* {"fields": [{"part", "field", "value"}], "next"}: of a stream of vmstate_save(), those whose part begins as told (NULL: all),
 * from the `after`th of them on. */
int view_fields(const void *p, size_t n, const char *part, uint64_t after,
                struct json_object *out, struct err *e);
int view_file_fields(const struct view *v, const char *part, uint64_t after,
                     struct json_object *out, struct err *e);
/* {"sections": number}: every byte is what was written, and the machine's part is a stream of fields. */
int view_check(const struct view *v, struct json_object *out, struct err *e);
/* n bytes at a physical address, into `to`. */
int view_memory(struct view *v, uint64_t address, uint8_t *to, size_t n, struct err *e);
/* {"found": ["0x..."], "next": "0x..."}: where the bytes stand, from the address on. */
int view_search(struct view *v, uint64_t from, const uint8_t *bytes, size_t n, size_t limit,
                struct json_object *out, struct err *e);
/* {"fields": [{"part", "field", "from", "to"}], "fields_changed", "pages": [{"region", "offset", "address", "pages"}],
 * "pages_changed", "truncated"}. */
int view_diff(struct view *a, struct view *b, size_t limit, struct json_object *out,
              struct err *e);

#endif
