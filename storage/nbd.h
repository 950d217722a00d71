/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The NBD protocol: its numbers (doc/proto.md of the NetworkBlockDevice project), the server that exports
 * nodes, and the driver that reaches somebody else's exports.
 */
#ifndef VMD_STORAGE_NBD_H
#define VMD_STORAGE_NBD_H

#include "engine/base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct blk_dirty;
struct blk_driver;
struct blk_node;
struct loop;
struct workers;

#define NBD_PORT "10809"
#define NBD_NAME_MAX 4096

/* --- server --- */
struct nbd_server;
struct nbd_export;

/* A secured connection in the place of a plain one; nbd_tls.c makes them. Never blocks: -EAGAIN, and `want` says
 * whether it waits for LOOP_READ or LOOP_WRITE. */
struct nbd_session;
struct nbd_tls {
    struct nbd_session *(*accept)(void *arg, int fd);
    ssize_t (*read)(struct nbd_session *s, void *p, size_t n);
    ssize_t (*write)(struct nbd_session *s, const void *p, size_t n);
    unsigned (*want)(const struct nbd_session *s);
    void (*free)(struct nbd_session *s);
    void *arg;
};

struct nbd_server_options {
    unsigned max_clients;      /* 0: 100 */
    const struct nbd_tls *tls; /* NULL: plain; else nothing is told before STARTTLS */
    void (*clients_changed)(void *arg, unsigned now);
    void *arg;
};
/* Everything on the loop's thread. `workers` finds out extents. */
struct nbd_server *nbd_server_new(struct loop *loop, struct workers *workers,
                                  const struct nbd_server_options *o);
/* Listens no more, ends all clients and exports; what they have in flight ends by itself. */
void nbd_server_stop(struct nbd_server *s);
/* The same, and runs the loop until nothing is in flight: not from within a callback. The nodes may be closed
 * afterwards. NULL is fine. */
void nbd_server_free(struct nbd_server *s);
/* A listening socket; taken. One of TCP has TCP_NODELAY, which the connections have from it. */
int nbd_server_listen(struct nbd_server *s, int take_fd, struct err *e);
/* A connected one; taken. */
void nbd_server_connect(struct nbd_server *s, int take_fd);
unsigned nbd_server_clients(const struct nbd_server *s);
/* Is a request for that node in flight, also one of a client that was sent away? NULL: is there a client at all? When not,
 * nbd_server_free() of a server that was stopped returns at once and may be called from anywhere. */
bool nbd_server_uses(const struct nbd_server *s, const struct blk_node *n);

struct nbd_export_options {
    const char *name, *description; /* description may be NULL */
    struct blk_node *node;          /* borrowed: with a pool, open until the export is gone */
    bool writable;                  /* needs a node that may be written */
    bool owned;                     /* the node's opener is who exports: no claim of our own */
    struct blk_dirty *bitmap;       /* told as qemu:dirty-bitmap:NAME; NULL: none */
    const char *bitmap_name;
    const char *id; /* of the opener's own, told by nbd_export_get(); NULL: none */
};
/* -EEXIST, -EROFS, or what blk_claim() says. */
int nbd_export_add(struct nbd_server *s, const struct nbd_export_options *o, struct err *e);
/* Ends its clients too. -ENOENT; -EBUSY when `safe` and a client uses it. */
int nbd_export_remove(struct nbd_server *s, const char *name, bool safe, struct err *e);
/* The export that is at `index`, from 0 on; false behind the last. */
struct nbd_export_info {
    const char *name, *description, *bitmap, *id;
    const struct blk_dirty *dirty; /* that `bitmap` stands for */
    const struct blk_node *node;
    bool writable;
    unsigned clients;
};
bool nbd_export_get(const struct nbd_server *s, unsigned index, struct nbd_export_info *out);

/* --- TLS by openssl, for programs that have keys --- */
struct nbd_tls_files {
    const char
        *dir; /* server-cert.pem, server-key.pem and, to ask clients for theirs, ca-cert.pem */
    bool verify; /* clients must have a certificate of that authority */
};
int nbd_tls_new(const struct nbd_tls_files *f, struct nbd_tls *out, struct err *e);
/* The same from memory, opening nothing: PEM. */
struct nbd_tls_text {
    const char *certificate,
        *key;              /* of the server, with what stands between it and its authority */
    const char *authority; /* clients must have a certificate of that one; NULL: any client */
};
int nbd_tls_new_text(const struct nbd_tls_text *t, struct nbd_tls *out, struct err *e);
void nbd_tls_free(struct nbd_tls *t);

/* --- client: a protocol driver for the paths nbd://HOST[:PORT][/EXPORT], nbds://...,
 * nbd+unix:///[EXPORT]?socket=PATH and nbds+unix://... --- */
extern const struct blk_driver blk_nbd_driver;
bool nbd_is_uri(const char *path);

/* --- client over a connection that somebody else has made (blk_options: fd, export), for whoever makes no socket. What is under
 * way when it breaks, and what comes then, fails with -ENOTCONN --- */
extern const struct blk_driver blk_nbd_wire_driver;
/* `n`: the protocol node, or a format on it; of others nothing is done. */
/* fn(arg) on whichever thread notices, with a lock held: it may post to a loop. False: no such node. */
bool blk_nbd_on_lost(struct blk_node *n, void (*fn)(void *arg), void *arg);
bool blk_nbd_is_lost(struct blk_node *n);
/* Goes on over another connection to the same export, which must have the same size. Greets, so it blocks for as long as
 * the server does, up to some seconds. Loop thread. */
int blk_nbd_reconnect(struct blk_node *n, int take, struct err *e);

/* --- numbers --- */
#define NBD_MAGIC 0x4e42444d41474943ull     /* "NBDMAGIC" */
#define NBD_OPT_MAGIC 0x49484156454f5054ull /* "IHAVEOPT" */
#define NBD_REPLY_MAGIC 0x3e889045565a9ull
#define NBD_REQUEST_MAGIC 0x25609513u
#define NBD_SIMPLE_MAGIC 0x67446698u
#define NBD_STRUCTURED_MAGIC 0x668e33efu

enum { NBD_FIXED_NEWSTYLE = 1, NBD_NO_ZEROES = 2 };
enum {
    NBD_OPT_EXPORT_NAME = 1,
    NBD_OPT_ABORT = 2,
    NBD_OPT_LIST = 3,
    NBD_OPT_STARTTLS = 5,
    NBD_OPT_INFO = 6,
    NBD_OPT_GO = 7,
    NBD_OPT_STRUCTURED = 8,
    NBD_OPT_LIST_META = 9,
    NBD_OPT_SET_META = 10
};
enum { NBD_REP_ACK = 1, NBD_REP_SERVER = 2, NBD_REP_INFO = 3, NBD_REP_META = 4 };
#define NBD_ERR_UNSUP 0x80000001u
#define NBD_ERR_POLICY 0x80000002u
#define NBD_ERR_INVALID 0x80000003u
#define NBD_ERR_TLS_REQD 0x80000005u
#define NBD_ERR_UNKNOWN 0x80000006u
#define NBD_ERR_TOO_BIG 0x80000009u
enum { NBD_INFO_EXPORT, NBD_INFO_NAME, NBD_INFO_DESCRIPTION, NBD_INFO_BLOCK_SIZE };
enum {
    NBD_HAS_FLAGS = 1,
    NBD_READ_ONLY = 2,
    NBD_SEND_FLUSH = 4,
    NBD_SEND_FUA = 8,
    NBD_SEND_TRIM = 32,
    NBD_SEND_ZEROES = 64,
    NBD_SEND_DF = 128,
    NBD_MULTI_CONN = 256,
    NBD_SEND_CACHE = 1024
};
enum {
    NBD_CMD_READ,
    NBD_CMD_WRITE,
    NBD_CMD_DISC,
    NBD_CMD_FLUSH,
    NBD_CMD_TRIM,
    NBD_CMD_CACHE,
    NBD_CMD_ZEROES,
    NBD_CMD_STATUS
};
enum { NBD_FLAG_FUA = 1, NBD_FLAG_NO_HOLE = 2, NBD_FLAG_DF = 4, NBD_FLAG_ONE = 8 };
enum { NBD_CHUNK_DONE = 1 };
enum {
    NBD_CHUNK_NONE = 0,
    NBD_CHUNK_DATA = 1,
    NBD_CHUNK_HOLE = 2,
    NBD_CHUNK_STATUS = 5,
    NBD_CHUNK_ERROR = 32769
};
enum { NBD_STATE_HOLE = 1, NBD_STATE_ZERO = 2 };

#endif
