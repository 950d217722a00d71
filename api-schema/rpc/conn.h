/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One stream of newline-delimited JSON over a connected unix socket.
 *
 * Bounds: a line is at most `line_max` (json.h has the other limits). When more than `out_max`
 * bytes wait to be written and another line would be queued, or when nothing could be written for
 * `stall_ns`, the peer is a slow reader and is cut off: no other connection ever waits for it.
 * Above `out_pause` bytes queued, or while rpc_conn_hold() is in force, nothing more is read from
 * the peer, so one that only asks and never reads stops itself. A line that was begun must be
 * whole after `line_ns`.
 *
 * A peer that shuts down only its sending side is half closed: it may still read. What it sent
 * last counts as a line even without a newline.
 *
 * What is sent is written when the loop's turn ends.
 *
 * Belongs to one loop and is used on its thread only. Callbacks run on it, never from within
 * rpc_conn_send() and friends (a failed send shows as `closed` later, from the loop).
 */
#ifndef VMD_RPC_CONN_H
#define VMD_RPC_CONN_H

#include "engine/base/err.h"
#include "engine/base/loop.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct json_object;
struct rpc_conn;

struct rpc_peer {
    pid_t pid; /* 0 when unknown */
    uid_t uid; /* (uid_t)-1 for a user of TLS */
    gid_t gid;
    int64_t
        principal; /* who owns and repeats: the uid, or RPC_REMOTE and more for a user of TLS */
    char user[64]; /* name of a user of TLS, "" on a unix socket */
    char cert[65]; /* SHA-256 of the certificate, hexadecimal */
    char address[64]; /* from where */
};
#define RPC_REMOTE (INT64_C(1) << 32)

/* What the connections of a server hold together, input that is no whole line yet and output that waits. Above `max` the one
 * that holds the most is cut off, as long as one holds more than 64 KiB. The loop's thread. */
struct rpc_pool {
    struct list conns;
    size_t used, max;
};

struct rpc_limits {
    size_t line_max;       /* bytes of one line without its newline */
    size_t out_pause;      /* stop reading above this many queued bytes */
    size_t out_max;        /* cut off instead of queueing more above this */
    int64_t stall_ns;      /* cut off after no progress in writing */
    int64_t line_ns;       /* cut off when a begun line takes longer */
    struct rpc_pool *pool; /* outlives the connection; NULL: none */
};
/* 1 MiB, 256 KiB, 8 MiB, 10 s, 30 s. */
extern const struct rpc_limits rpc_limits_default;
/* The same with lines of 64 MiB, for the calling side: a list of all VMs is one line. */
extern const struct rpc_limits rpc_limits_client;

/* How messages that are no JSON are told apart: of the first `have` bytes of one, at least `head` of them and at most
 * RPC_HEAD_MAX, size() tells the length of all of it; -1: it is none; 0: more of it has to come first. `max` is the largest. */
#define RPC_HEAD_MAX 64
struct rpc_framing {
    size_t head, max;
    int64_t (*size)(const unsigned char *head, size_t have);
};

struct rpc_conn_ops {
    /* One value arrived; `msg` is borrowed (take a reference to keep it). */
    void (*message)(void *arg, struct rpc_conn *c, struct json_object *msg);
    /* A line that is no acceptable JSON (code -EINVAL), or too long (-EMSGSIZE, the connection
     * then closes by itself once what is queued was sent). */
    void (*garbage)(void *arg, struct rpc_conn *c, const struct err *why);
    /* A whole frame, after rpc_conn_frames(); borrowed. */
    void (*frame)(void *arg, struct rpc_conn *c, const unsigned char *data, size_t n);
    /* The peer is half closed: nothing more will arrive. NULL: the connection is closed then. The
     * owner otherwise calls rpc_conn_close() when it has answered everything. */
    void (*half_closed)(void *arg, struct rpc_conn *c);
    /* The connection is over: the peer closed, an error, or it was cut off; `why->code` is 0 for
     * an orderly end. Called once, last; not called by rpc_conn_free(). */
    void (*closed)(void *arg, struct rpc_conn *c, const struct err *why);
};

/* A reader of our output that has gone must not end the process, whoever writes it: from now on the process ignores SIGPIPE, unless
 * it set a handler. */
void rpc_ignore_sigpipe(void);
/* Takes the connected descriptor (closed also on failure). `limits` NULL: the default. Who makes
 * connections calls rpc_ignore_sigpipe() before, as servers and clients do when they are made. */
struct rpc_conn *rpc_conn_new(struct loop *l, int owned_fd, const struct rpc_limits *limits,
                              const struct rpc_conn_ops *ops, void *arg, struct err *e);
/* From now on values are told apart by themselves, without newlines (json/split.h); may be called
 * from within `message`. Bounds stay the same, a value counting as a line. */
void rpc_conn_stream(struct rpc_conn *c);
/* From now on messages are frames, a frame counting as a line; a length that is none, or too large, is garbage of code -EMSGSIZE.
 * `framing` outlives the connection. */
void rpc_conn_frames(struct rpc_conn *c, const struct rpc_framing *framing);
/* Takes descriptors that the peer passes (SCM_RIGHTS), on a plain unix socket. */
void rpc_conn_take_fds(struct rpc_conn *c);
/* The last one that came, which is the caller's then; -1 when there is none. */
int rpc_conn_passed_fd(struct rpc_conn *c);
/* Closes at once; no callback follows. NULL is fine; safe from within a callback. */
void rpc_conn_free(struct rpc_conn *c);

/* Queues one line. `msg` stays the caller's. -EPIPE when closing or closed, -ENOBUFS when the peer
 * is now cut off. */
int rpc_conn_send(struct rpc_conn *c, struct json_object *msg);
/* The same for a text already encoded, no newline in it (one encoding for many receivers). */
int rpc_conn_send_text(struct rpc_conn *c, const char *text, size_t len);
/* Bytes as they are. */
int rpc_conn_send_bytes(struct rpc_conn *c, const void *data, size_t len);
/* The same with a descriptor (taken in any case) that goes along with the last of them, on a plain unix socket; -EBUSY as below. */
int rpc_conn_send_bytes_fd(struct rpc_conn *c, const void *data, size_t len, int owned_fd);
/* As rpc_conn_send(), with a descriptor (taken in any case) that the peer gets with the line, on a plain unix socket. One at a
 * time: -EBUSY while another, or a great deal, has not gone out. */
int rpc_conn_send_fd(struct rpc_conn *c, struct json_object *msg, int owned_fd);
/* Ends the connection once everything queued was written (or the stall limit passes). */
void rpc_conn_close(struct rpc_conn *c);
/* Counted: while held, nothing more is read. */
void rpc_conn_hold(struct rpc_conn *c);
void rpc_conn_release(struct rpc_conn *c);
/* True once the peer has shut down its sending side; we may still answer. */
bool rpc_conn_half_closed(const struct rpc_conn *c);

size_t rpc_conn_queued(const struct rpc_conn *c); /* bytes not yet written */
const struct rpc_peer *rpc_conn_peer(const struct rpc_conn *c);
int rpc_conn_fd(const struct rpc_conn *c);
struct loop *rpc_conn_loop(const struct rpc_conn *c);

#endif
