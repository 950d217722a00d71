/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The durable store: one SQLite database (WAL, synchronous=FULL, foreign keys on) written by one
 * thread of its own. Callers build a transaction, hand it over and are told on their loop when it
 * is on the disk; transactions waiting together share one commit (group commit), yet each stands
 * or falls on its own. Reads happen once, at start (store_load_*); afterwards the registry in
 * memory answers.
 *
 * Threads: everything here is called on the loop's thread, except what store.c runs itself.
 */
#ifndef VMD_DAEMON_STORE_H
#define VMD_DAEMON_STORE_H

#include "engine/base/err.h"

#include <stdbool.h>
#include <stdint.h>

struct loop;
struct store;
struct store_tx;

/* Newest schema this program knows; an older file is migrated, a newer one refused
 * (migrate.c holds the steps). */
#define STORE_SCHEMA 2
#define STORE_EVENTS_KEPT 10000
#define STORE_AUDIT_KEPT 100000
#define STORE_EXITS_KEPT 1000
#define STORE_JOBS_KEPT 1000
#define STORE_IDEM_KEPT 10000

struct store_opts {
    const char *path;
    const char *vfs;   /* SQLite VFS for fault tests; NULL: the system's */
    unsigned retry_us; /* first pause between attempts to reopen after an I/O error; 0: 20 ms */
    struct loop *loop; /* where completions run; NULL: only store_sync() delivers them */
};

/* What open found; for the log and host.info. */
struct store_info {
    bool created;      /* the file was new */
    bool unclean;      /* the last daemon did not close it; a check runs in the background */
    int migrated_from; /* schema version found when older, else 0 */
};

/* Opens or creates, migrates, marks the file in use, starts the thread. NULL on failure. */
struct store *store_open(const struct store_opts *opts, struct store_info *info, struct err *e);
/* Writes what is queued, delivers what is finished, marks the file clean. NULL is fine. */
void store_close(struct store *s);
/* Waits until everything queued so far is decided and delivers the completions on the caller. */
void store_sync(struct store *s);

enum store_health { STORE_OK, STORE_CHECKING, STORE_DAMAGED, STORE_FAILED };
/* What the background check and the last writes say; `why` (may be NULL) gets a text. */
enum store_health store_health(struct store *s, char *why, unsigned size);

/* Rows. Strings are borrowed by the put calls (copied at once) and by the load callbacks. */
struct store_vm {
    int64_t id; /* never reused; names the run folder */
    const char *uuid, *name, *config;
    int64_t owner; /* uid that defined it */
    bool transient;
    int64_t created_ns, changed_ns; /* CLOCK_REALTIME */
};
/* The intent to run (cookie, boot id) and, once spawned, which process it is. */
struct store_run {
    int64_t vm;
    const char *cookie, *boot_id;
    int64_t since_ns;
    int64_t pid, start_time; /* 0 while only intended; start time in clock ticks since boot */
    int64_t mon_pid, mon_start; /* the monitor that waits for it */
};
struct store_job {
    int64_t id, owner;
    bool active;      /* waits or runs */
    const char *body; /* the API's Job as JSON */
};
struct store_event {
    int64_t seq;
    const char *type, *vm; /* of the body, so that loading needs not parse it */
    const char *body;      /* the API's Event as JSON */
    int64_t drop;          /* events up to this number leave the journal; 0: none do */
};
struct store_exit {
    int64_t vm;
    const char *uuid, *name, *cookie;
    int64_t pid, started_ns, ended_ns;
    int status, signal;           /* exit status or -1; signal number or 0 */
    const char *reason, *message; /* message: the emulator's last words, or "" */
};
struct store_idem {
    int64_t uid;
    const char *key, *method, *args_hash, *reply;
    int64_t time_ns;
};
struct store_audit {
    int64_t id; /* of a row that was read */
    int64_t time_ns, uid, pid;
    const char *method, *object, *outcome;
    const char *who; /* name where a uid does not say it; NULL: the uid does */
};

/* A definition of any other kind: network, pool, snapshot, profile, quota. */
struct store_object {
    const char *kind;  /* "profile" */
    const char *scope; /* what it belongs to, e.g. the UUID of a snapshot's VM; "" */
    const char *name;  /* unique among its kind and scope */
    const char *body;  /* JSON */
    int64_t changed_ns;
};

int store_load_vms(struct store *s, void (*fn)(void *arg, const struct store_vm *), void *arg,
                   struct err *e);
int store_load_runs(struct store *s, void (*fn)(void *arg, const struct store_run *), void *arg,
                    struct err *e);
int store_load_jobs(struct store *s, void (*fn)(void *arg, const struct store_job *), void *arg,
                    struct err *e);
int store_load_events(struct store *s, void (*fn)(void *arg, const struct store_event *),
                      void *arg, struct err *e);
int store_load_exits(struct store *s, void (*fn)(void *arg, const struct store_exit *),
                     void *arg, struct err *e);
int store_load_idem(struct store *s, void (*fn)(void *arg, const struct store_idem *),
                    void *arg, struct err *e);
int store_load_objects(struct store *s, void (*fn)(void *arg, const struct store_object *),
                       void *arg, struct err *e);
/* A fact's value, new memory; NULL when it was never put or cannot be read. */
char *store_fact(struct store *s, const char *key);
/* The newest rows before number `before` (0: the newest of all), at most `limit`, newest first, of
 * this method or who ("": all). Reads the file: for a person who asks. */
int store_audit_page(struct store *s, int64_t before, unsigned limit, const char *method,
                     const char *who, void (*fn)(void *arg, const struct store_audit *),
                     void *arg, struct err *e);
/* Next free number of a counted table. */
int store_next_ids(struct store *s, int64_t *vm, int64_t *job, int64_t *event, struct err *e);

/* Transactions. Either committed (consumed) or dropped. */
struct store_tx *store_tx_new(struct store *s);
void store_tx_drop(struct store_tx *tx);
void store_tx_vm_put(struct store_tx *tx, const struct store_vm *row);
void store_tx_vm_del(struct store_tx *tx, int64_t id);
void store_tx_run_put(struct store_tx *tx, const struct store_run *row);
void store_tx_run_del(struct store_tx *tx, int64_t vm);
void store_tx_job_put(struct store_tx *tx, const struct store_job *row);
void store_tx_event_put(struct store_tx *tx, const struct store_event *row);
void store_tx_exit_put(struct store_tx *tx, const struct store_exit *row); /* once per cookie */
void store_tx_idem_put(struct store_tx *tx, const struct store_idem *row);
void store_tx_audit_put(struct store_tx *tx, const struct store_audit *row);
void store_tx_object_put(struct store_tx *tx, const struct store_object *row);
void store_tx_object_del(struct store_tx *tx, const char *kind, const char *scope,
                         const char *name);
void store_tx_fact_put(struct store_tx *tx, const char *key, const char *value);

/* Queues it. `done(arg, e)` runs on the loop when it is durable (e NULL) or when nothing of it was
 * kept (e set). done may be NULL. Consumes tx. */
void store_tx_commit(struct store_tx *tx, void (*done)(void *arg, const struct err *e),
                     void *arg);

#endif
