/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside the NBD server: clients and what they share between nbd_server.c (life, bytes), nbd_options.c
 * (handshake) and nbd_requests.c (reads, writes, extents). Loop thread.
 */
#ifndef VMD_STORAGE_NBD_SERVER_H
#define VMD_STORAGE_NBD_SERVER_H

#include "engine/base/buf.h"
#include "engine/base/list.h"
#include "engine/base/loop.h"
#include "storage/block.h"
#include "storage/nbd.h"
#include "storage/work.h"

#define NBD_REQUEST_MAX (32u << 20)  /* bytes of a read or write; told to clients */
#define NBD_CLIENT_BYTES (64u << 20) /* data that a client may have in flight */
#define NBD_CLIENT_REQUESTS 64
#define NBD_OPTION_MAX 65536 /* bytes of an option */
#define NBD_OPTIONS 1024     /* options before a client must have chosen an export */

struct nbd_export {
    struct list link;
    char *name, *description, *id;
    struct blk_node *node;
    struct blk_claim *claim;
    bool writable;
    struct blk_dirty *bitmap;
    char *bitmap_name;
    unsigned clients;
    bool gone; /* removed: freed with its last client */
};

enum nbd_context { NBD_CTX_ALLOCATION, NBD_CTX_DEPTH, NBD_CTX_BITMAP, NBD_CONTEXTS };

enum nbd_state {
    NBD_ST_FLAGS,  /* waits for the client's flags */
    NBD_ST_OPTION, /* for the head of an option */
    NBD_ST_DATA,   /* for its data */
    NBD_ST_REQUEST,
    NBD_ST_PAYLOAD, /* for the data of a write */
    NBD_ST_DROP,    /* data of a write that was refused goes by */
    NBD_ST_LAST,    /* what is queued goes out, then it ends */
    NBD_ST_DEAD
};

struct nbd_client {
    struct list link;
    struct nbd_server *server;
    struct nbd_export *export; /* NULL before one was chosen */
    int fd;
    struct nbd_session *tls; /* NULL: plain */
    struct loop_fd *watch;
    struct loop_timer *deadline;  /* of the handshake */
    struct loop_task again, reap; /* more to do in the next turn; to be freed */
    enum nbd_state state;
    bool no_zeroes, structured, hung_up;
    unsigned contexts;              /* bits by enum nbd_context, of meta_export */
    struct nbd_export *meta_export; /* which export the contexts were chosen for */
    uint32_t option, option_length;
    unsigned n_options;

    uint8_t *in; /* what was read and not parsed yet */
    size_t in_at, in_len;
    uint64_t drop;               /* bytes to let go by */
    struct nbd_request *filling; /* a write whose data comes */
    size_t filled;

    struct list out; /* struct nbd_out.link */
    size_t queued;   /* bytes of heads in it */
    unsigned in_flight;
    uint64_t bytes; /* of data in memory for requests and replies */
    bool starttls;  /* once the reply is out */
};

/* One piece of what goes to the client. */
struct nbd_out {
    struct list link;
    size_t n, at; /* bytes of head and data together, and how many are out */
    size_t head_n;
    const uint8_t *data;      /* of `request`, or NULL */
    struct nbd_request *free; /* done with it when this is out; NULL: nothing to free */
    uint8_t head[];
};

struct nbd_request {
    struct nbd_client *client;
    struct nbd_export *export;
    uint16_t flags, type;
    uint64_t cookie, offset;
    uint32_t length;
    uint64_t charged; /* bytes of client->bytes */
    uint8_t *data;
    struct iovec iov;
    struct blk_req io;
    bool flushing; /* FUA: the write is through, its flush is under way */
    struct work work;
    struct buf chunks; /* block status */
    int result;
};

/* --- nbd_server.c --- */
/* n bytes of head go out, then `data_n` of data that belong to `free`, which is freed then. */
void nbd_send(struct nbd_client *c, const void *head, size_t head_n, const void *data,
              size_t data_n, struct nbd_request *free_after);
void nbd_end(struct nbd_client *c, bool now); /* now: without what is queued */
struct nbd_export *nbd_export_find(const struct nbd_server *s, const char *name, size_t n);
void nbd_enter(struct nbd_client *c, struct nbd_export *x); /* the handshake is over */
struct workers *nbd_workers(const struct nbd_client *c);
bool nbd_has_tls(const struct nbd_client *c); /* the server asks for it */
struct list *nbd_exports(const struct nbd_client *c);
void nbd_request_free(struct nbd_request *r);
/* A request is through: the client may be one that only waits for that. */
void nbd_settled(struct nbd_client *c);

/* --- nbd_options.c --- */
void nbd_option(struct nbd_client *c, const uint8_t *data);
uint16_t nbd_export_flags(const struct nbd_client *c, const struct nbd_export *x);

/* --- nbd_requests.c --- */
/* 28 bytes of a request. Changes c->state when data follow. */
void nbd_request(struct nbd_client *c, const uint8_t *head);
void nbd_write_filled(struct nbd_client *c); /* the data of c->filling are there */

/* --- big-endian numbers --- */
static inline void put16(uint8_t *p, uint16_t v)
{
    v = __builtin_bswap16(v);
    __builtin_memcpy(p, &v, 2);
}
static inline void put32(uint8_t *p, uint32_t v)
{
    v = __builtin_bswap32(v);
    __builtin_memcpy(p, &v, 4);
}
static inline void put64(uint8_t *p, uint64_t v)
{
    v = __builtin_bswap64(v);
    __builtin_memcpy(p, &v, 8);
}
static inline uint16_t get16(const uint8_t *p)
{
    uint16_t v;

    __builtin_memcpy(&v, p, 2);
    return __builtin_bswap16(v);
}
static inline uint32_t get32(const uint8_t *p)
{
    uint32_t v;

    __builtin_memcpy(&v, p, 4);
    return __builtin_bswap32(v);
}
static inline uint64_t get64(const uint8_t *p)
{
    uint64_t v;

    __builtin_memcpy(&v, p, 8);
    return __builtin_bswap64(v);
}

#endif
