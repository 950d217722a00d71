/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The file of a recording (NAME.rec): a header that says which machine it is of, then chunks of records. It only ever grows at its end, so
 * what a recorder that was killed leaves is good up to its last whole chunk.
 *
 * Header: "VMD-REC\n", u32 version, u32 length of the text, u32 CRC-32 of both and the text, the text: lines "key=value".
 * Chunk: u32 0x4b484356, u32 bytes in the file, u32 bytes of records, u32 CRC-32 of the two and the former, a zstd frame.
 * Record: u8 kind, u8 0, u16 source, u32 bytes, u16 turn, u16 0, u32 traps, u64 count, u64 now, u64 check, bytes. All little-endian. Places do not
 * descend. Nothing in a file is trusted: whoever opens one has it read whole first.
 *
 * No thread of its own; each object belongs to one thread.
 */
#ifndef VMD_EMU_REPLAY_LOG_H
#define VMD_EMU_REPLAY_LOG_H

#include "engine/core/replay.h"

#define RECLOG_VERSION 1
#define RECLOG_TEXT_MAX 65536
#define RECLOG_PAYLOAD_MAX (128u << 10)
#define RECLOG_CHUNK_MAX (512u << 10)

struct reclog_writer;
struct reclog_reader;

struct reclog_facts {
    uint64_t records, bytes; /* bytes: of the file that are good */
    uint64_t by_kind[REPLAY_KINDS];
    struct replay_place last;
    bool whole; /* it has its end; false: the recorder was killed, or still writes */
};

/* Writes the header. The descriptor stays the caller's. */
int reclog_create(int fd, const char *text, struct reclog_writer **out, struct err *e);
/* A record; in the file after the next flush, or sooner. n at most RECLOG_PAYLOAD_MAX. */
int reclog_put(struct reclog_writer *w, const struct replay_record *r, struct err *e);
int reclog_flush(struct reclog_writer *w, struct err *e);
bool reclog_waiting(const struct reclog_writer *w); /* something is to be flushed */
void reclog_close(struct reclog_writer *w); /* what was not flushed is lost; NULL is fine */

/* Reads all of the file once: -EBADMSG names what is wrong with it and where; one that is cut off is not. */
int reclog_open(int fd, struct reclog_reader **out, struct reclog_facts *facts, struct err *e);
const char *reclog_text(const struct reclog_reader *r);
/* The next record, until the next call; NULL: there is none, or *e says why (e->code is 0 otherwise). */
const struct replay_record *reclog_next(struct reclog_reader *r, struct err *e);
int reclog_rewind(struct reclog_reader *r, struct err *e);
void reclog_free(struct reclog_reader *r);

#endif
