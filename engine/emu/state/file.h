/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The file that holds a machine's state: sections in any order, an index of them with their seals, and a trailer whose
 * HMAC-SHA-256 covers header and index. Any part can be read by itself, in any order and on several threads, and is checked
 * when it is; nothing in a file is trusted before that. docs/reference/state-file.md has the bytes.
 */
#ifndef VMD_EMU_STATE_FILE_H
#define VMD_EMU_STATE_FILE_H

#include "engine/base/buf.h"
#include "engine/base/err.h"
#include "engine/emu/state/seal.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>

#define STATE_SECTION_MAX (64u << 20) /* bytes of a section */

/* Never renumbered. */
enum state_section {
    STATE_INFO = 1,    /* JSON: what it is the state of */
    STATE_MACHINE = 2, /* engine/core/vmstate.h */
    STATE_MEMORY = 3   /* chunk.h; region and page say of what */
};

struct state_entry {
    uint32_t type, region; /* number of the region of memory, in the order of INFO */
    uint64_t page;         /* first page in it */
    uint64_t at, length;   /* of the section, bytes */
    uint8_t digest[STATE_DIGEST_LEN];
};

/* ---- writing ---- */

struct state_out {
    int fd; /* borrowed */
    _Atomic uint64_t at;
    pthread_mutex_t lock; /* of the entries */
    struct state_entry *entry;
    size_t n, room;
    uint8_t head[64], key[STATE_KEY_LEN];
    struct state_seal seal;
};

/* Begins an empty file; its state is for the VM of this UUID (text, may be empty). After a failure, too, state_out_done() is due.
 * Main thread. */
int state_out_begin(struct state_out *s, int fd, const char *uuid,
                    const uint8_t key[STATE_KEY_LEN], struct err *e);
/* Writes a section. Any thread. */
int state_out_put(struct state_out *s, enum state_section type, uint32_t region, uint64_t page,
                  const void *p, size_t n, struct err *e);
/* Index and trailer; *size gets the file's length. The data is not on stable storage yet. */
int state_out_end(struct state_out *s, uint64_t *size, struct err *e);
void state_out_done(struct state_out *s);

/* ---- reading ---- */

struct state_in {
    int fd; /* borrowed */
    uint64_t size;
    struct state_entry *entry; /* sorted by type, region, page */
    size_t n;
    struct state_seal seal;
};

/* Reads and checks trailer, header and index. -EBADMSG: it is damaged, cut off, or was written with another key. */
int state_in_open(struct state_in *s, int fd, const uint8_t key[STATE_KEY_LEN], struct err *e);
/* A section's bytes, checked, in place of what `out` holds. Any thread. */
int state_in_get(const struct state_in *s, const struct state_entry *entry, struct buf *out,
                 struct err *e);
/* The section of that type, region and page; NULL: there is none. */
const struct state_entry *state_in_find(const struct state_in *s, enum state_section type,
                                        uint32_t region, uint64_t page);
/* Every section's bytes are what was written. Takes as long as reading all of it. */
int state_in_check(const struct state_in *s, struct err *e);
/* Writes all of it, checked, to another file (borrowed, empty) that is sealed with another key, for the VM of that UUID. */
int state_reseal(const struct state_in *s, int to, const char *uuid,
                 const uint8_t key[STATE_KEY_LEN], struct err *e);
void state_in_done(struct state_in *s);

#endif
