/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What export and import of snapshots have in common: the archive and those who work on it. An archive is a tar file: the snapshot's state
 * file, sealed anew with a key of the archive's own; a qcow2 image for each disk; snapshot.json, which says what there is, with that
 * key; and `seal`, which shows this host that it has written the archive (ADR 0042).
 */
#ifndef VMD_DAEMON_SNAPSHOT_ARCHIVE_H
#define VMD_DAEMON_SNAPSHOT_ARCHIVE_H

#include "daemon/vm/snapshot_work.h"

#include <stdatomic.h>

struct buf;
struct err;

#define ARCHIVE_VERSION 1
#define ARCHIVE_MANIFEST "snapshot.json"
#define ARCHIVE_SEAL "seal"
#define ARCHIVE_STATE "state"
#define ARCHIVE_SEAL_HEX 64
#define NO_FOLDER "/nonexistent" /* what vmd-image may reach: nothing but what it is given */

struct snapshot_archive {
    char *file, *as; /* as: the name that is wanted; NULL: its own */
    bool foreign;
    _Atomic bool stop; /* the job was cancelled */
    int fd;
    int64_t state_at; /* of an import: where the state file lies in it */
    bool decoded;
    struct api_snapshot_archive about;
    int code; /* API error that goes with the thread's words; 0: a file's */
};

/* The turn has come: the work, with what the wish says, which is taken. */
struct work_on *archive_begin(struct op *op, struct snapshot *s, struct wish *take_wish);
/* Why the thread failed is why the work does. Loop thread. */
void archive_set_why(struct work_on *k);

/* ---- any thread; 0 or negative ---- */

/* -ECANCELED: the job was cancelled. */
int archive_stopped(const struct work_on *k, struct err *e);
/* -ENOSPC: there is no room for so many bytes more below the folder. */
int archive_room(const char *dir, int64_t bytes, struct err *e);
/* A descriptor of a new file in the folder, which has no name. */
int archive_nameless(const char *dir, struct err *e);
/* What this host seals a manifest with that has this nonce: no VM's key. */
int archive_seal(struct work_on *k, const char *nonce, const void *text, size_t n,
                 char hex[ARCHIVE_SEAL_HEX + 1], struct err *e);
/* Has vmd-state write a state anew, checked, from one file and key to another. */
int archive_reseal(struct work_on *k, int from, const uint8_t key[STATE_KEY_BYTES], int to,
                   const uint8_t to_key[STATE_KEY_BYTES], const char *uuid, struct err *e);
/* Has vmd-image do something to the archive, its descriptor 3; `second` (-1: none) is 4. out (may be NULL) gets its JSON, the caller's. */
int archive_image(struct work_on *k, const char *dir, const char *const *args, int second,
                  struct json_object **out, struct err *e);

#endif
