/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A server of 9P2000.L for one folder and one client: what the program vmd-share is made of. One thread; each message is
 * answered before the next is read. Everything hangs from struct p9.
 *
 * A fid is a descriptor of the file itself (O_PATH), not a name: it stays right whatever is renamed or removed. From a folder's
 * descriptor only one name is ever followed at a time, never a symbolic link and never "..", so nothing leads out of
 * the share. What is then opened, changed or asked is reached by that descriptor's entry in /proc/self/fd, which is the
 * working folder of the process.
 */
#ifndef VMD_STORAGE_SHARE_P9_H
#define VMD_STORAGE_SHARE_P9_H

#include "engine/base/err.h"
#include "engine/base/list.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

#define P9_MSIZE (1u << 20) /* the longest message */
#define P9_HEADER 7         /* size, type, tag */
#define P9_XATTR_MAX 65536
#define P9_NAME_MAX 255
#define P9_BUCKETS 1024

/* --- wire.c: bounded reading and writing; little-endian --- */

struct p9_in {
    const uint8_t *p;
    size_t n;
    bool bad; /* it was shorter than what was asked for */
};
uint8_t p9_get8(struct p9_in *in);
uint16_t p9_get16(struct p9_in *in);
uint32_t p9_get32(struct p9_in *in);
uint64_t p9_get64(struct p9_in *in);
/* A text of at most max bytes without NUL, into out (max + 1 bytes). */
void p9_get_str(struct p9_in *in, char *out, size_t max);

struct p9_out {
    uint8_t *p;
    size_t n, cap;
    bool full; /* something had no room and is missing */
};
void p9_put8(struct p9_out *out, uint8_t v);
void p9_put16(struct p9_out *out, uint16_t v);
void p9_put32(struct p9_out *out, uint32_t v);
void p9_put64(struct p9_out *out, uint64_t v);
void p9_put_bytes(struct p9_out *out, const void *p, size_t n);
void p9_put_str(struct p9_out *out, const char *s);

/* --- the server --- */

struct p9_fid {
    struct list node; /* of its bucket */
    uint32_t id, uid; /* uid: of who attached */
    int path;         /* O_PATH */
    int io;           /* opened for reading or writing; -1: not */
    int lock;         /* for locks that `io` cannot take; -1: none */
    /* An extended attribute that is read, or written until the fid is let go. */
    char *xname; /* "": the list of names; NULL: no attribute */
    uint8_t *xvalue;
    size_t xsize;
    bool xwrite;
    int xflags;
};

struct p9 {
    int root; /* O_PATH, the caller's */
    dev_t root_dev;
    bool readonly, mapped;
    uint32_t msize;
    struct list fids[P9_BUCKETS];
    unsigned n_fids, max_fids;
};

void p9_init(struct p9 *s, int root, bool readonly, bool mapped, unsigned max_fids);
void p9_done(struct p9 *s);
/* Answers one message of n bytes, with its header, into out (P9_MSIZE bytes); returns the answer's length. */
size_t p9_answer(struct p9 *s, const uint8_t *message, size_t n, uint8_t *out);

/* --- fid.c --- */
struct p9_fid *p9_find(struct p9 *s, uint32_t id); /* NULL: there is none */
/* Takes the descriptor, also when it fails. Negative: -EINVAL there is one, -EMFILE too many. */
int p9_fid_new(struct p9 *s, uint32_t id, uint32_t uid, int take_path, struct p9_fid **out);
void p9_fid_free(struct p9 *s, struct p9_fid *f);
void p9_fid_free_all(struct p9 *s);

/* The name of a descriptor in the working folder. */
struct p9_proc {
    char name[16];
};
struct p9_proc p9_proc(int fd);

/* --- attr.c: what belongs to a file; with the mapped model kept in attributes --- */
struct p9_stat {
    struct stat st;
    uint8_t qid_type;
    uint32_t qid_version;
    uint64_t qid_path;
};
int p9_stat(const struct p9 *s, int path,
            struct p9_stat *out); /* as the guest is to see it; negative errno */
void p9_put_qid(struct p9_out *out, const struct p9_stat *st);
/* What is new: owner, mode and device. `fd` is of any kind, of a file that belongs to us. */
int p9_made(const struct p9 *s, int fd, uint32_t uid, uint32_t gid, uint32_t mode,
            uint64_t rdev);
int p9_chmod(const struct p9 *s, int path, uint32_t mode);
int p9_chown(const struct p9 *s, int path, uint32_t uid, uint32_t gid); /* UINT32_MAX: stays */
/* May the guest read or change this attribute? */
bool p9_xattr_seen(const struct p9 *s, const char *name);

/* --- requests: read their arguments from `in`, write what is behind the header to `out`; 0 or a negative errno --- */
typedef int p9_handler(struct p9 *s, struct p9_in *in, struct p9_out *out);
p9_handler p9_version, p9_attach, p9_walk, p9_clunk, p9_remove, p9_flush;   /* fid.c */
p9_handler p9_getattr, p9_setattr, p9_statfs, p9_xattrwalk, p9_xattrcreate; /* attr.c */
p9_handler p9_lopen, p9_lcreate, p9_read, p9_write, p9_readdir, p9_fsync, p9_lock,
    p9_getlock; /* io.c */
p9_handler p9_symlink, p9_mknod, p9_mkdir, p9_link, p9_renameat, p9_unlinkat,
    p9_readlink; /* names.c */
/* At a fid's end: writes the attribute that was collected. */
int p9_xattr_flush(struct p9 *s, struct p9_fid *f);
/* One name of a folder, as O_PATH; negative errno. */
int p9_lookup(int folder, const char *name);
/* A name that may be given to something: not empty, no slash, neither "." nor "..". */
bool p9_name_ok(const char *name);

#endif
