/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The daemon: everything hangs from struct vmd. All of it lives on the loop's thread; the only
 * other threads are the store's (store.c).
 */
#ifndef VMD_DAEMON_DAEMON_H
#define VMD_DAEMON_DAEMON_H

#include "daemon/run/cgroup.h"
#include "engine/base/err.h"
#include "engine/base/list.h"

#include <stdbool.h>
#include <stdint.h>

struct access;
struct backup;
struct doors;
struct events;
struct idems;
struct images;
struct jobs;
struct libvirt;
struct metrics;
struct networks;
struct loop;
struct loop_timer;
struct qmp;
struct registry;
struct balloons;
struct policy;
struct schedules;
struct pools;
struct rpc_server;
struct spawner_client;
struct store;
struct supply;
struct web;

#define WEB_PORT 16516

/* options.c; main() owns it. */
struct vmd_options {
    char *run, *lib;            /* folders: sockets and run folders; console logs */
    char *socket, *store;       /* files */
    char *socket_ro;            /* second, read-only socket; NULL: none */
    char *libvirt, *libvirt_ro; /* sockets for libvirt's protocol; NULL: none */
    char *libvirt_tls;          /* HOST[:PORT] where it is spoken by TLS; NULL: none */
    char *emulator, *spawn;
    char *image, *vmctl; /* programs that work on images */
    char *state;         /* program that looks into saved states */
    char *image_dir[16]; /* folders where images may name others; NULL behind the last */
    unsigned n_image_dir;
    char *plugin_dir;          /* folder of the plugins that VMs may load; NULL: none may */
    char *log;                 /* file; NULL: standard error */
    char *metrics;             /* unix socket or port of the metrics endpoint; NULL: none */
    char *cgroup;              /* "auto", "off" or a folder; NULL: auto */
    bool require_sandbox;      /* no start where a layer of confinement is missing */
    int64_t memory_overcommit; /* percent of the host's memory; 0: no bound */
    int64_t helper_timeout;    /* seconds */
    int64_t balloon_low, balloon_high; /* percent of the host's memory */
    int64_t cpu_overcommit;            /* percent of the host's CPUs; 0: no bound */
    char *restore; /* a backup to put in the store's place, then end; NULL: serve */
    /* TLS (auth/listen.h) */
    char *listen[8]; /* HOST[:PORT]; NULL behind the last, and n_listen of them */
    unsigned n_listen;
    char *web_modules; /* folder of the console's parts, before the usual ones; NULL: none */
    char *web;         /* HOST:PORT of the web console; NULL: none (web/web.h) */
    bool tls_builtin;  /* the authority is our own, in tls_dir */
    char *tls_dir, *tls_ca, *tls_cert, *tls_key, *tls_crl;
    int64_t tls_max, tls_max_peer; /* connections, in all and from one address */
    int64_t image_quota; /* bytes of images a project may keep; 0: as the disk has room */
};

/* From the command line. 0 go on, 1 done (--help, --version), -1 after a message. */
int options_parse(struct vmd_options *o, int argc, char **argv);
/* Makes the folders, checks that socket names fit. */
int options_folders(const struct vmd_options *o, struct err *e);
void options_done(struct vmd_options *o);

#define STREAM_TICKETS 64
/* auth/stream.h */
struct stream_ticket {
    char secret[49], user[64]; /* secret "": free */
    char path[256], what[128];
    int64_t until_ns; /* CLOCK_MONOTONIC */
};

struct vmd {
    struct vmd_options opt;
    struct loop *loop;
    struct store *store;
    struct events *events;
    struct jobs *jobs;
    struct idems *idems;
    struct registry *vms;
    struct metrics *metrics; /* NULL: not configured */
    struct balloons *balloons;
    struct policy *policy;
    struct schedules *schedules;
    struct list lingering; /* linger.c */
    struct supply *supply;
    struct cgroup cgroup;
    struct list dumps;                                   /* dump.c */
    struct list saves;                                   /* vm/save.c */
    struct list dials;                                   /* vm/peer.c */
    struct list migrate_rows, migrate_outs, migrate_ins; /* vm/migrate*.c */
    struct list bjobs;                                   /* vm/blockjobs.c */
    struct list snapshots, snapshot_work;                /* vm/snapshot*.c */
    struct list checkpoints;                             /* vm/checkpoint.c */
    struct backups *backups;                             /* vm/backup.c */
    struct list forks;                                   /* vm/fork.c */
    struct list dacts;                                   /* vm/disk_actions.c */
    struct list dintents;                                /* vm/disk_intent.c */
    struct list dexports;                                /* vm/disk_export.c */
    struct list unplugs;   /* calls that wait for guests to let go of devices; vm/hotplug.c */
    struct backup *backup; /* one that is being made; rpc_store.c */
    struct spawner_client *spawner;
    struct rpc_server *server;
    struct qmp *qmp;
    struct libvirt *libvirt;
    struct access *access;
    struct doors *doors;
    struct web *web; /* NULL: not configured */
    struct images *images;
    struct pools *pools;
    struct networks *networks;
    struct stream_ticket tickets[STREAM_TICKETS];
    char boot_id[37];
    int64_t started_ns; /* CLOCK_REALTIME */
    bool ending;        /* asked to end: no new work */
    bool end_stop_vms;  /* and the VMs are ended first */
    struct loop_timer *end_timer;
};

/* Ends the daemon orderly: what is open is answered, then the loop quits. VMs run on unless
 * stop_vms. */
void vmd_end(struct vmd *d, bool stop_vms);
/* rpc_store.c: waits for a backup that is being made; the loop runs no more. */
void backup_end(struct vmd *d);

#endif
