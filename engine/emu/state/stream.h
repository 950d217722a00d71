/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The bytes of a migration: several streams, each a greeting and frames. docs/reference/migration-stream.md has them. The reader
 * trusts nothing: it says how many bytes it wants next, which bounds what is kept of a peer's, and refuses what is no frame.
 * Plain data, no lock: a reader or writer belongs to one thread at a time.
 */
#ifndef VMD_EMU_STATE_STREAM_H
#define VMD_EMU_STATE_STREAM_H

#include "engine/base/buf.h"
#include "engine/base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define STREAM_FORMAT 1u
#define STREAM_LANES 16u     /* streams of a migration, at most */
#define STREAM_HELLO_LEN 64u /* bytes of the greeting */
#define STREAM_HEAD_LEN 32u  /* bytes of a frame before its body */
#define STREAM_INFO_MAX 65536u
#define STREAM_MACHINE_MAX (64u << 20)
#define STREAM_PAGES_MAX ((2u << 20))

/* Never renumbered. The first two hold what the sections of those numbers in a state file do. */
enum stream_type {
    STREAM_INFO = 1,    /* JSON: of what machine; the first frame of stream 0 */
    STREAM_MACHINE = 2, /* engine/core/vmstate.h; stream 0, behind all pages */
    STREAM_PAGES = 4,   /* pages.h */
    STREAM_END = 5 /* the last of a stream: `page` is the number of frames before it; no body */
};

struct stream_hello {
    uint32_t index, streams;
    char uuid[37];
};
struct stream_frame {
    uint32_t type, region, length;
    uint64_t page;
};

void stream_put_hello(struct buf *out, const struct stream_hello *h);
void stream_put_frame(struct buf *out, const struct stream_frame *f, const void *body);

struct stream_reader {
    struct buf in; /* of the greeting, or of one frame */
    bool greeted;
    bool headed; /* `frame` holds */
    bool ended;
    struct stream_hello hello;
    struct stream_frame frame;
    uint64_t frames; /* that were taken */
};

/* How many bytes to append to r->in before stream_take(); 0: it has ended, nothing may follow. */
size_t stream_wants(const struct stream_reader *r);
/* 1: r->frame and *body hold until the next call; 0: go on; -EBADMSG: what came is no such stream, e->msg says what of it. */
int stream_take(struct stream_reader *r, const uint8_t **body, struct err *e);
void stream_reader_done(struct stream_reader *r);

#endif
