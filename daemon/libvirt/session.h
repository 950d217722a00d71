/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One client of libvirt's protocol: frames, the calls that it waits for, what it wants to be told. Inside of daemon/libvirt.
 * Loop thread.
 */
#ifndef VMD_DAEMON_LIBVIRT_SESSION_H
#define VMD_DAEMON_LIBVIRT_SESSION_H

#include "api-schema/rpc/server.h"
#include "daemon/events.h"
#include "engine/base/list.h"

#include <stdbool.h>
#include <stdint.h>

struct buf;
struct json_object;
struct vmd;

enum lv_program {
    LV_REMOTE = 0x20008086,
    LV_QEMU = 0x20008087,
    LV_KEEPALIVE = 0x6b656570,
};
enum lv_type { LV_CALL, LV_REPLY, LV_EVENT, LV_STREAM, LV_CALL_FDS, LV_REPLY_FDS };
enum lv_status { LV_OK, LV_ERROR, LV_CONTINUE };

enum { LV_CALLS = 32, LV_CALLBACKS = 1024 };

struct libvirt {
    struct vmd *d;
    struct list sessions; /* struct lv_session.link */
    struct event_listener heard;
    struct json_object *states; /* word of VmState that was told last, by UUID */
};

/* What a client asked to be told. */
struct lv_callback {
    struct list link;
    int kind, id, event; /* kind: enum lv_kind; the id is the client's handle */
    char uuid[37];       /* of one object; "": all */
    bool legacy;         /* told without the handle (procedures 105, 167) */
};
enum lv_kind { LV_DOMAINS, LV_NETWORKS, LV_POOLS, LV_NODE_DEVICES, LV_SECRETS };

struct lv_session {
    struct list link;
    struct libvirt *l;
    struct vmd *d;
    struct rpc_session *s;
    struct list calls; /* struct lv_call.link */
    unsigned n_calls;
    bool held;           /* too many calls: not read */
    bool opened;         /* CONNECT_OPEN succeeded */
    struct list streams; /* struct lv_stream.link */
    unsigned n_streams;
    size_t held_bytes; /* of uploads, not written yet; full: too many, not read */
    bool full;
    struct list callbacks;
    unsigned n_callbacks;
    int next_callback;
};

struct lv_head {
    uint32_t length, program, version, procedure, type, serial, status;
};

/* One packet. */
void lv_send(struct lv_session *q, const struct lv_head *head, const struct buf *payload);
/* The client is at the other end of a unix socket. */
bool lv_passes_fds(const struct lv_session *q);
/* A packet that says that the call or the stream of `to` has failed. */
void lv_send_error(struct lv_session *q, const struct lv_head *to, int code,
                   const char *message);
/* An event of the program `remote`; the value has the members of `form`. */
void lv_send_event(struct lv_session *q, uint32_t procedure, const char *form,
                   struct json_object *value);

#endif
