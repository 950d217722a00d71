/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is done to images rather than through them: making, describing, checking, repairing,
 * snapshots, dirty bitmaps, changing the backing file. Everything blocks; one thread at a time a node, and
 * nothing in flight on it.
 */
#ifndef VMD_STORAGE_IMAGE_H
#define VMD_STORAGE_IMAGE_H

#include "engine/base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct blk_node;
struct blk_secret;

/* Options of a new image are texts, key and value, as -o writes them; each format knows its own. */
struct blk_option {
    const char *key, *value;
};
struct blk_create {
    const char *path, *driver;
    uint64_t size; /* bytes, a multiple of 512 */
    const struct blk_option *option;
    size_t n_options;
    bool given; /* into this descriptor, which is closed; the path is for messages */
    int fd;
    const struct blk_secret *secret; /* of an encrypted image; NULL: none */
};
/* Makes the file anew (its old contents are gone) and the image in it. -EINVAL names an option that
 * the format does not know. A file in use by another process is refused. */
int blk_create(const struct blk_create *c, struct err *e);
/* The value of an option, NULL when it was not given. */
const char *blk_create_option(const struct blk_create *c, const char *key);
/* "64k", "1M", "10G", plain bytes. */
int blk_parse_size(const char *text, uint64_t *out, struct err *e);
/* Refuses options other than those of the NULL-ended list. */
int blk_create_known(const struct blk_create *c, const char *const *keys, struct err *e);

/* Which format an image has, by its first bytes: "raw" when nothing else fits. */
int blk_probe(const char *path, const char **driver, struct err *e);
/* The same of what a raw node holds. */
int blk_probe_node(struct blk_node *n, const char **driver, struct err *e);
/* Names and docs of formats, from 0 on; NULL at the end. */
const char *blk_format_name(unsigned i);

struct blk_snapshot {
    char *id, *name;
    uint64_t size, vm_state_size, vm_clock_ns;
    int64_t date_sec;
    uint32_t date_nsec;
    uint64_t icount; /* UINT64_MAX: not recorded */
};
struct blk_bitmap {
    char *name;
    uint32_t granularity;
    bool in_use, enabled; /* "auto" */
};
struct blk_image_info {
    const char *driver;
    uint64_t size, file_size, disk_size;
    uint64_t cluster_size;          /* 0: the format has none */
    char *backing, *backing_format; /* as the image says; NULL: none */
    char *data_file;
    bool data_file_raw, lazy_refcounts, extended_l2, dirty, corrupt, encrypted;
    unsigned version, refcount_bits; /* 0: not such a format */
    const char *compression;         /* "zlib", "zstd", NULL */
    struct blk_snapshot *snapshot;
    size_t n_snapshots;
    struct blk_bitmap *bitmap;
    size_t n_bitmaps;
    char *variant; /* of vmdk, vhd, vhdx, vdi */
};
int blk_info(struct blk_node *n, struct blk_image_info *out, struct err *e);
void blk_info_done(struct blk_image_info *i);

enum { BLK_REPAIR_LEAKS = 1, BLK_REPAIR_ALL = 2 };
struct blk_check {
    /* Called for each finding when not NULL. */
    void (*say)(void *arg, const char *text);
    void (*progress)(void *arg, uint64_t done, uint64_t total);
    void *arg;
    uint64_t corruptions, leaks, errors; /* found, and not repaired */
    uint64_t corruptions_fixed, leaks_fixed;
    uint64_t end;                                      /* of the last cluster in use */
    uint64_t allocated, total, compressed, fragmented; /* clusters */
};
int blk_check(struct blk_node *n, unsigned repair, struct blk_check *c, struct err *e);

enum blk_snapshot_verb { BLK_SNAP_CREATE, BLK_SNAP_APPLY, BLK_SNAP_DELETE };
/* `name`: for a new one its name, else the id or name of one. */
int blk_snapshot(struct blk_node *n, enum blk_snapshot_verb verb, const char *name,
                 struct err *e);
/* From now on reads come from the snapshot; the node is read-only. */
int blk_snapshot_load(struct blk_node *n, const char *name, struct err *e);

/* Writes another backing file's name into the image; NULL: none. Does not touch contents. */
int blk_set_backing(struct blk_node *n, const char *backing, const char *format, struct err *e);
/* Changes how the image is kept, in place; what it reads as stays. -ENOTSUP says what is in the way. */
struct blk_amend {
    unsigned version; /* of qcow2: 2, 3; 0: as it is */
    int lazy;         /* lazy refcounts; -1: as they are */
};
int blk_amend(struct blk_node *n, const struct blk_amend *a, struct err *e);
/* Drops all contents of this layer (after a commit). */
int blk_make_empty(struct blk_node *n, struct err *e);

/* Writes back all that closing would write; the node is read-only from then on. Drained. */
int blk_seal(struct blk_node *n, struct err *e);

/* How much is done beforehand for what nobody wrote yet: nothing, tables, space of the file system too, zeroes written. */
enum blk_prealloc { BLK_PRE_OFF, BLK_PRE_METADATA, BLK_PRE_FALLOC, BLK_PRE_FULL };
int blk_parse_prealloc(const char *text, enum blk_prealloc *out, struct err *e);
/* Of what lies from `from` on, as after growing; what it reads as stays. -ENOTSUP where the format knows no such mode. */
int blk_grow_prealloc(struct blk_node *n, uint64_t from, enum blk_prealloc mode, struct err *e);

/* Bytes that a new image with so much data would take, and when all of it is written. */
int blk_measure(const struct blk_create *c, uint64_t data_bytes, uint64_t *required,
                uint64_t *full, struct err *e);

struct blk_image_ops {
    int (*info)(struct blk_node *n, struct blk_image_info *out, struct err *e);
    int (*check)(struct blk_node *n, unsigned repair, struct blk_check *c, struct err *e);
    int (*snapshot)(struct blk_node *n, enum blk_snapshot_verb verb, const char *name,
                    struct err *e);
    int (*snapshot_load)(struct blk_node *n, const char *name, struct err *e);
    bool (*bitmaps_kept)(struct blk_node *n); /* can this image keep dirty bitmaps? */
    int (*set_backing)(struct blk_node *n, const char *backing, const char *format,
                       struct err *e);
    int (*amend)(struct blk_node *n, const struct blk_amend *a, struct err *e);
    int (*make_empty)(struct blk_node *n, struct err *e);
    int (*seal)(struct blk_node *n); /* NULL: a flush is enough */
    /* Bytes that an image with so much data would take: *required, and *full when all is written. */
    int (*measure)(const struct blk_create *c, uint64_t data_bytes, uint64_t *required,
                   uint64_t *full, struct err *e);
    int (*preallocate)(struct blk_node *n, uint64_t from, enum blk_prealloc mode,
                       struct err *e);
};

#endif
