/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside the qcow2 driver (the format: QEMU's docs/interop/qcow2.txt). What the files of the driver
 * share: the header, the node, and which file does what.
 *
 *   qcow2.c          open, close, header, info, resize
 *   qcow2_create.c   new images
 *   qcow2_crypt.c    encryption
 *   qcow2_cache.c    slices of L2 tables and refcount blocks in memory; the commit of what changed
 *   qcow2_refcount.c refcounts, allocation, release
 *   qcow2_map.c      guest offset to host cluster: L1, L2, subclusters
 *   qcow2_io.c       reads, writes, zeroes, discard
 *   qcow2_zip.c      compressed clusters
 *   qcow2_snap.c     internal snapshots
 *   qcow2_bitmap.c   persistent dirty bitmaps
 *   qcow2_check.c    check and repair
 *
 * Locks: `lock` protects everything but data; it is not held during the I/O of data. Order on disk:
 * qcow2_commit().
 */
#ifndef VMD_STORAGE_QCOW2_H
#define VMD_STORAGE_QCOW2_H

#include "engine/base/hash.h"
#include "storage/driver.h"

#define Q2_MAGIC 0x514649fbu
#define Q2_COPIED (1ull << 63)
#define Q2_COMPRESSED (1ull << 62)
#define Q2_ZERO 1ull
#define Q2_OFFSET 0x00fffffffffffe00ull
#define Q2_NONE UINT64_MAX

enum { /* incompatible features */
       Q2_I_DIRTY = 1,
       Q2_I_CORRUPT = 2,
       Q2_I_DATA_FILE = 4,
       Q2_I_COMPRESSION = 8,
       Q2_I_EXTENDED_L2 = 16,
       Q2_I_KNOWN = 31
};
enum { Q2_C_LAZY = 1 };                       /* compatible features */
enum { Q2_A_BITMAPS = 1, Q2_A_RAW_DATA = 2 }; /* autoclear features */
enum {                                        /* header extensions */
       Q2_X_END = 0,
       Q2_X_BACKING_FORMAT = 0xe2792aca,
       Q2_X_NAMES = 0x6803f857,
       Q2_X_BITMAPS = 0x23852875,
       Q2_X_CRYPTO = 0x0537be77,
       Q2_X_DATA_FILE = 0x44415441
};
enum {
    Q2_MAX_L1 = 32 << 20, /* bytes */
    Q2_MAX_RT = 8 << 20,
    Q2_MAX_SNAPSHOTS = 65536,
    Q2_MAX_SNAPSHOT_BYTES = 16 << 20,
    Q2_MAX_SLICE = 16384,
    Q2_HEADER = 112,
    Q2_SUBS = 32
};

struct q2_header { /* host order */
    uint32_t magic, version;
    uint64_t backing_offset;
    uint32_t backing_size, cluster_bits;
    uint64_t size;
    uint32_t crypt, l1_size;
    uint64_t l1_offset, rt_offset;
    uint32_t rt_clusters, n_snapshots;
    uint64_t snapshots_offset;
    uint64_t incompatible, compatible, autoclear;
    uint32_t refcount_order, length;
    uint8_t compression;
};

/* A piece of an L2 table or refcount block in memory. */
enum q2_kind { Q2_L2, Q2_REF };
struct q2_slice {
    uint64_t offset; /* in the image */
    enum q2_kind kind;
    bool dirty;
    unsigned pins;
    struct list lru;
    uint8_t data[];
};

struct q2_cache {
    struct hash *slices; /* by offset + 1 */
    struct list lru;     /* most recent first */
    size_t size;         /* of a slice */
    size_t count, limit, n_dirty[2];
};

struct q2_snapshot {
    uint64_t l1_offset;
    uint32_t l1_size;
    struct blk_snapshot pub;
    uint8_t *extra; /* what the image has beyond what we know */
    uint32_t extra_size;
};

struct q2_bm_old {
    uint64_t table;
    uint32_t n_table;
};

struct q2_ext { /* a header extension that we keep as it is */
    uint32_t type, length;
    uint8_t *data;
};

/* Guest clusters whose allocation is under way. */
struct q2_alloc {
    struct list link;
    uint64_t first, last; /* guest clusters */
};

struct q2_free {
    uint64_t offset;
    uint64_t clusters;
    bool punch; /* give the space back to the file system */
};
struct q2_frees {
    struct q2_free *item;
    size_t n, room;
};

struct qcow2 {
    struct blk_node node;
    struct blk_node *file, *data; /* data: where guest data lies; often the same */
    struct q2_header h;
    pthread_mutex_t lock;
    pthread_cond_t changed; /* an allocation ended, data I/O of an epoch ended */
    char *backing_name, *backing_format, *data_name;
    struct q2_ext *ext;
    size_t n_ext;
    struct q2_snapshot *snap;
    size_t n_snaps;
    struct luks *luks; /* encrypted, and open; sectors are numbered by host offset */
    const struct blk_cipher *cipher; /* its functions */
    bool locked;                     /* encrypted, and no secret: tables only */
    struct q2_bm_old *bm_old;        /* tables of dirty bitmaps that the header leads to */
    size_t n_bm_old;
    bool bm_loaded;               /* the bitmaps in memory are to be kept at closing */
    bool snapshot_loaded, opened; /* opened: there is something to write back at the end */

    unsigned cluster_bits, l2_bits, l2_entry, subs, sub_bits;
    uint64_t cluster;
    unsigned refcount_bits, ref_bits; /* ref_bits: log2 of entries a refcount block */
    uint64_t refcount_max;

    uint64_t *l1; /* host order */
    uint64_t l1_room;
    bool l1_dirty, l1_moved;
    uint64_t *rt;
    uint64_t rt_entries;
    bool rt_dirty, rt_moved, header_dirty;
    uint64_t rt_lo, rt_hi, l1_lo, l1_hi; /* dirty entries */

    struct q2_cache cache;
    uint64_t free_hint;  /* no free cluster lies before this one */
    uint64_t end;        /* cluster behind the last that was ever in use */
    uint64_t virgin;     /* clusters from here on were never written: they read as zeroes */
    uint64_t zip_offset; /* where the next compressed cluster goes; 0: nowhere yet */
    struct list
        scratch; /* struct q2_scratch that nobody uses now: what packing and unpacking need */
    struct list allocs;             /* struct q2_alloc */
    struct q2_frees fresh, waiting; /* released since the last commit; before it */
    unsigned epoch, waiting_epoch;
    _Atomic unsigned io[2]; /* data I/O that began in each epoch */
    bool
        unordered; /* the dirty bit on disk has refcounts and flags made anew after a crash: of all
                     * metadata only the header waits for what it names */
    bool lazy;     /* refcounts are written at the end only; the dirty bit tells */
    bool broken; /* metadata could not be written or makes no sense: no more writes */
    _Atomic bool flush_failed; /* once, for ever */
    int broken_errno;
};

static inline struct qcow2 *q2_of(struct blk_node *n)
{
    return (struct qcow2 *)n;
}
static inline uint64_t q2_clusters(const struct qcow2 *q, uint64_t bytes)
{
    return (bytes >> q->cluster_bits) + ((bytes & (q->cluster - 1)) != 0);
}
static inline bool q2_ext_l2(const struct qcow2 *q)
{
    return q->subs > 1;
}

/* --- qcow2.c: header --- */
int q2_header_write(struct qcow2 *q); /* the fixed fields, one sector; lock held */
int q2_header_rewrite(struct qcow2 *q, struct err *e); /* all with extensions and names */
int q2_barrier(struct qcow2 *q); /* everything written so far is on the disk */
/* Marks the image corrupt; -EIO. */
int q2_corrupt(struct qcow2 *q, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* --- qcow2_cache.c; lock held --- */
void q2_cache_init(struct qcow2 *q);
void q2_cache_done(struct qcow2 *q);
/* The slice that holds byte `offset`, pinned. `fresh`: it is new and zero, not read. */
int q2_slice_get(struct qcow2 *q, enum q2_kind kind, uint64_t offset, bool fresh,
                 struct q2_slice **out);
void q2_slice_put(struct q2_slice *s);
void q2_slice_dirty(struct qcow2 *q, struct q2_slice *s);
void q2_cache_drop(struct qcow2 *q, uint64_t offset, uint64_t length); /* released clusters */
/* Writes back what changed so that at each moment every reference on disk is covered by refcounts on
 * disk and by tables and data that are there: data and refcounts, barrier, refcount table, barrier, L2
 * tables, barrier, L1 table and header, barrier; only what has changed, and no barrier after
 * the last. Then releases what nothing on disk refers to any more. */
int q2_commit(struct qcow2 *q);
/* The same until nothing waits; no data I/O may be under way. */
int q2_commit_all(struct qcow2 *q);
/* qcow2_amend.c */
int q2_amend(struct blk_node *n, const struct blk_amend *a, struct err *e);

/* --- qcow2_refcount.c; lock held --- */
int q2_refcount_get(struct qcow2 *q, uint64_t cluster, uint64_t *out);
/* How many of `most` clusters from that one on have the same refcount, as far as one slice tells; at least one. */
int q2_refcount_span(struct qcow2 *q, uint64_t cluster, uint64_t most, uint64_t *value,
                     uint64_t *n);
/* Adds delta to the refcounts of a range. */
int q2_refcount_add(struct qcow2 *q, uint64_t offset, uint64_t length, int64_t delta);
/* Up to `want` adjacent clusters, refcount 1 each; at least one. */
int q2_alloc(struct qcow2 *q, uint64_t want, uint64_t *offset, uint64_t *got);
int q2_lazy_mark(struct qcow2 *q);
int q2_alloc_exact(struct qcow2 *q, uint64_t clusters, uint64_t *offset);
/* Drops a reference once nothing on disk needs it. */
void q2_release(struct qcow2 *q, uint64_t offset, uint64_t clusters, bool punch);
int q2_release_apply(struct qcow2 *q);
void q2_frees_done(struct q2_frees *f);
uint64_t q2_ref_read(const uint8_t *block, unsigned order, uint64_t index);
void q2_ref_write(uint8_t *block, unsigned order, uint64_t index, uint64_t value);

/* --- qcow2_map.c; lock held --- */
enum q2_type { Q2_T_NONE, Q2_T_ZERO, Q2_T_DATA, Q2_T_ZIP };
struct q2_run {
    enum q2_type type;
    uint64_t length; /* guest bytes from the asked offset on */
    uint64_t host;   /* of the byte; Q2_T_DATA; of a cluster kept by Q2_T_ZERO, else Q2_NONE */
    uint64_t entry;  /* L2 entry of the first cluster */
    uint64_t bitmap;
    bool copied; /* refcount 1: may be overwritten */
};
/* What lies at a guest offset, at most `max` bytes, at most one slice's worth. */
int q2_lookup(struct qcow2 *q, uint64_t offset, uint64_t max, struct q2_run *out);
/* Entry of a guest cluster, for change: the L2 table is there and our own. Pinned. */
int q2_entry(struct qcow2 *q, uint64_t offset, struct q2_slice **s, uint64_t **entry);
/* Releases what an entry refers to. */
void q2_entry_release(struct qcow2 *q, uint64_t entry, bool punch);
bool q2_zip_range(const struct qcow2 *q, uint64_t entry, uint64_t *offset, uint64_t *length);

/* --- qcow2_io.c --- */
int q2_run_req(struct blk_node *n, struct blk_req *r);
void q2_submit(struct blk_node *n, struct blk_req *r);
void q2_settled(struct blk_node *n, struct blk_req *r);
int q2_read(struct qcow2 *q, uint64_t offset, uint64_t length, const struct iovec *iov,
            unsigned n_iov);
unsigned q2_io_begin(struct qcow2 *q); /* lock held */
void q2_io_end(struct qcow2 *q, unsigned epoch);

/* --- qcow2_zip.c --- */
int q2_zip_read(struct qcow2 *q, uint64_t entry, uint8_t *out);
int q2_zip_write(struct qcow2 *q, struct blk_req *r);
void q2_zip_done(struct qcow2 *q);

/* --- qcow2_snap.c --- */
int q2_snaps_load(struct qcow2 *q, struct err *e);
void q2_snaps_done(struct qcow2 *q);
uint64_t q2_snaps_bytes(const struct qcow2 *q);
int q2_snapshot(struct blk_node *n, enum blk_snapshot_verb verb, const char *name,
                struct err *e);
int q2_snapshot_load(struct blk_node *n, const char *name, struct err *e);
int q2_l1_read(struct qcow2 *q, uint64_t offset, uint32_t entries, uint64_t **out,
               const char *of, struct err *e);

/* --- qcow2_crypt.c --- */
int q2_crypt_open(struct qcow2 *q, const struct blk_options *o, struct err *e);
void q2_crypt_close(struct qcow2 *q);
/* Guest data at host offset `at` of the data file. */
int q2_data_read(struct qcow2 *q, uint64_t at, uint64_t length, const struct iovec *iov,
                 unsigned n);
int q2_data_write(struct qcow2 *q, uint64_t at, uint64_t length, const struct iovec *iov,
                  unsigned n);

/* --- qcow2_bitmap.c --- */
/* Reads them; in an image open for writing marks them as in use. */
int q2_bitmaps_load(struct qcow2 *q, struct err *e);
int q2_bitmaps_save(struct qcow2 *q);
/* The header says nothing of bitmaps any more, once it is written. */
void q2_bitmaps_forget(struct qcow2 *q);
bool q2_bitmaps_kept(struct blk_node *n);
void q2_bitmaps_info(struct blk_node *n, struct blk_image_info *out);

/* --- qcow2_check.c, qcow2_create.c --- */
int q2_check(struct blk_node *n, unsigned repair, struct blk_check *c, struct err *e);
int q2_create(const struct blk_create *c, struct err *e);
int q2_preallocate(struct blk_node *n, uint64_t from, enum blk_prealloc mode, struct err *e);
int q2_measure(const struct blk_create *c, uint64_t data_bytes, uint64_t *required,
               uint64_t *full, struct err *e);

#endif
