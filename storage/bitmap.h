/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Dirty bitmaps: which parts of a node were changed since a moment that somebody remembers. Each bit
 * stands for `granularity` bytes. A bitmap belongs to one node and goes when that is closed; a persistent one is
 * kept in the image (qcow2) and is there again when the image is opened.
 *
 * Bits are set when a write, zeroing or discard is through, whether or not it went well and before its submitter is
 * told. So who clears a bit and then reads never misses a change: the bit is set again behind him.
 *
 * An incremental backup of one disk, or at one moment of several: drain, blk_dirty_freeze() and take the source's
 * state (or begin copying before writes), end the drain; copy what blk_dirty_next() tells; then blk_dirty_thaw() with
 * how it went. Nothing is lost when it failed.
 *
 * Making, freeing and finding belong to the loop's thread (tools: one thread at a time). Everything else:
 * any thread, `struct blk_dirty_set`'s mutex.
 */
#ifndef VMD_STORAGE_BITMAP_H
#define VMD_STORAGE_BITMAP_H

#include "engine/base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct blk_dirty;
struct blk_node;

#define BLK_DIRTY_MAX_NAME 1023
#define BLK_DIRTY_MAX_BITS (1ull << 32) /* 512 MiB of bits in an image */

struct blk_dirty_options {
    const char *name; /* NULL: nobody finds it by name; not persistent */
    uint32_t
        granularity; /* bytes, a power of two, 512 to 2^31; 0: the image's clusters, at least 4 KiB */
    bool disabled;   /* records nothing until it is enabled */
    bool persistent; /* kept in the image; -ENOTSUP where the format cannot */
};
/* A new bitmap, nothing dirty. -EEXIST: the node has one of that name. */
int blk_dirty_new(struct blk_node *n, const struct blk_dirty_options *o, struct blk_dirty **out,
                  struct err *e);
/* Takes it from its node (and, at closing, from the image). -EBUSY while frozen. NULL is fine. */
int blk_dirty_free(struct blk_dirty *d, struct err *e);

/* -ENOENT names the node and what it was asked for. */
int blk_dirty_find(struct blk_node *n, const char *name, struct blk_dirty **out, struct err *e);
/* The bitmaps of a node one after the other, unnamed ones too; from NULL on, NULL at the end. */
struct blk_dirty *blk_dirty_each(struct blk_node *n, struct blk_dirty *last);

struct blk_dirty_info {
    const char *name; /* NULL: none; lives as long as the bitmap */
    uint32_t granularity;
    uint64_t size;  /* bytes of the node */
    uint64_t dirty; /* bytes: set bits times granularity, at most size */
    bool enabled, persistent;
    bool frozen;
    bool
        inconsistent; /* the image was not closed: its bits say nothing. It can only be freed */
};
void blk_dirty_get(const struct blk_dirty *d, struct blk_dirty_info *out);

/* These fail for a bitmap that is inconsistent (-EINVAL) or frozen (-EBUSY). */
int blk_dirty_enable(struct blk_dirty *d, bool on, struct err *e);
int blk_dirty_clear(struct blk_dirty *d, struct err *e);
/* Adds the bits of another bitmap, of any node and granularity. `from` is not changed. */
int blk_dirty_merge(struct blk_dirty *to, const struct blk_dirty *from, struct err *e);

/* A range of bytes; set and reset bits whole: set those that it touches, reset those that it covers (the last bit
 * of the node reaches to the node's end). */
void blk_dirty_set(struct blk_dirty *d, uint64_t offset, uint64_t length);
void blk_dirty_reset(struct blk_dirty *d, uint64_t offset, uint64_t length);
/* The first dirty range from `offset` on, not longer than `most`; false: none. Multiples of the granularity, cut at
 * the node's end. Of a frozen bitmap: what was frozen. */
bool blk_dirty_next(const struct blk_dirty *d, uint64_t offset, uint64_t most, uint64_t *at,
                    uint64_t *length);

/* From now on the bits stand still, and changes go to a second set behind them. -EBUSY: frozen already. */
int blk_dirty_freeze(struct blk_dirty *d, struct err *e);
/* done: the frozen bits are dropped, the second set takes their place. Else both are joined again.
 * Of a bitmap that is not frozen: nothing. */
void blk_dirty_thaw(struct blk_dirty *d, bool done);

/* --- for the storage room --- */
struct blk_req;
struct blk_dirty_set; /* what a node has of them */

/* A request of the node is through (blk_account). Any thread. */
void blk_dirty_mark(struct blk_node *n, const struct blk_req *r);
void blk_dirty_mark_range(struct blk_node *n, uint64_t offset, uint64_t length);
/* The node changed its size: new bits are dirty where the bitmap is enabled. Nothing is in flight. */
void blk_dirty_resized(struct blk_node *n, uint64_t size);
void blk_dirty_done(struct blk_node *n);

/* Formats that keep bitmaps: all bits as bytes, least significant bit first. `out` has room for blk_dirty_bytes(). The
 * bits from byte `first` on; *zero, *ones: when all of them are. */
uint64_t blk_dirty_bytes(const struct blk_dirty *d);
void blk_dirty_export(const struct blk_dirty *d, uint64_t first, uint8_t *out, size_t n,
                      bool *zero, bool *ones);
void blk_dirty_import(struct blk_dirty *d, uint64_t first, const uint8_t *in, size_t n);
void blk_dirty_import_ones(struct blk_dirty *d, uint64_t first, uint64_t n);
void blk_dirty_set_inconsistent(struct blk_dirty *d);
/* The format's own notes of a persistent bitmap; freed with it. */
void blk_dirty_note(struct blk_dirty *d, void *take_note);
void *blk_dirty_noted(const struct blk_dirty *d);

#endif
