/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Live migration between daemons. The source leads, over a connection of its own to the other daemon's TLS listener:
 *
 *   prepare   the destination checks, starts an emulator that stands still, gives a ticket
 *   streams   TLS connections opened with the ticket carry memory from emulator to emulator
 *   handing-over   (source's store) the source's guest is paused, the rest goes, the destination says that it has all
 *   given     (source's store) the source never resumes it from here on, unless the destination says that it is not there
 *   owner     (destination's store) the answer to `commit`: from here on, and only from here on, the destination runs it
 *
 * Until `given` is durable the VM is the source's, whoever dies; from `owner` on it is the destination's. In between the source
 * asks, again and again, over new connections. A destination drops what it received when the source says so, or when its
 * emulator dies, and answers `not-found` ever after: then the source takes the VM back. docs/adr/0026.
 * All of it on the loop's thread.
 */
#ifndef VMD_DAEMON_MIGRATE_H
#define VMD_DAEMON_MIGRATE_H

#include "api-schema/gen/types.h"
#include "daemon/events.h"
#include "engine/base/list.h"

#include <stdbool.h>
#include <stddef.h>

#define MIGRATE_KIND "migration"
#define MIGRATE_DOWNTIME_MS 30 /* unless another is said */

struct api_call;
struct api_error;
struct rpc_peer;
struct rpc_session;
struct store_object;
struct tunnel;
struct vm;
struct vmd;

/* A row of the store, kept until the daemon has taken up its emulators. */
void migrate_load(struct vmd *d, const struct store_object *row);
/* Emulators were taken up, nobody else has come yet: goes on where the last daemon was. */
void migrates_begin(struct vmd *d);
void migrates_end(struct vmd *d); /* the loop runs no more */

/* A stream of TLS whose first line names a ticket of a migration. False: it is none. */
bool migrate_stream(struct vmd *d, struct tunnel *t, const struct rpc_peer *p,
                    const char *ticket, int64_t stream);

/* A client has gone: what it began and did not carry further is dropped. */
void migrate_session_closed(struct vmd *d, const struct rpc_session *s);

/* ---- inside: migrate.c, migrate_out.c, migrate_in.c ---- */

/* By its definition, with the disks of these names copied (all: whatever it writes); false: *x says why not. */
bool migrate_movable(const struct vm *vm, bool all, char *const *disks, size_t n_disks,
                     struct api_error *x);

struct migrate_out;
struct migrate_in;

/* What a row says. */
struct migrate_row {
    struct list link;                   /* vmd.migrate_rows until migrates_begin() */
    char *uuid, *name;                  /* of the row: "out" or "in" */
    char *state, *ticket, *host, *user; /* an "in" has the ticket's hash */
    int port;
    bool paused, transient, keep; /* keep: of an "out" */
    char **files;                 /* of an "in": to be taken away when the VM does not come */
    size_t n_files;
    char *mark; /* that those carry */
};
void migrate_row_put(struct change *c, const struct migrate_row *row);
void migrate_row_del(struct change *c, const char *uuid, const char *name);
void migrate_row_free(struct migrate_row *row);

void migrate_out_load(struct vmd *d, const struct migrate_row *row);
void migrate_in_load(struct vmd *d, const struct migrate_row *row);
void migrate_outs_end(struct vmd *d);
void migrate_ins_end(struct vmd *d);
/* fn for each; m is lent. */
void migrate_outs_each(struct vmd *d, void (*fn)(void *arg, const struct api_migration *m),
                       void *arg);
void migrate_ins_each(struct vmd *d, void (*fn)(void *arg, const struct api_migration *m),
                      void *arg);
/* Answers the call when this side has a migration of the VM that is in doubt. */
bool migrate_out_resolve(struct vm *vm, struct api_call *call, bool here);
bool migrate_in_resolve(struct vm *vm, struct api_call *call, bool here);

#endif
