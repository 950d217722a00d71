/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Migration in the emulator: memory goes out while the guest runs, round after round of what it has written meanwhile; then
 * it stands still, the rest and its state go, and it is held until somebody says whose it is. On the other side a VM that was
 * started paused takes them in. Who may run is the daemons' business (daemon/vm/migrate.h); here nothing resumes by itself but
 * a source whose streams break before it was told to switch. Owned by the main thread, where all of it runs.
 */
#ifndef VMD_EMU_MIGRATE_H
#define VMD_EMU_MIGRATE_H

#include "api-schema/gen/types.h"
#include "engine/emu/emu.h"
#include "engine/emu/state/pages.h"
#include "engine/emu/state/stream.h"

/* A stream. */
struct lane {
    struct emu_migrate *g;
    unsigned index;
    int fd; /* -1: none was given */
    struct loop_fd *watch;
    /* out: what waits to be written, where it goes on, frames so far, where in the round this lane is */
    struct buf out;
    size_t at;
    uint64_t frames, piece;
    bool round_done, ended;
    struct stream_reader in;
};

struct migrate_region {
    struct mem_region *r;
    uint64_t pages, piece; /* piece: number of its first piece of memory */
    uint64_t *unsent;      /* out: a bit for each page that is still to be sent */
};

/* A disk that goes with it. */
struct migrate_disk {
    struct emu_migrate *g;
    char name[65];
    struct blk_job *job; /* NULL: it has ended, and was freed */
    int fd;              /* of its connection, to break that; -1 */
    bool ending, ended, failed;
};

struct emu_migrate {
    struct emu *m;
    enum api_emu_migrate_state state;
    struct lane lane[STREAM_LANES];
    unsigned lanes; /* of this migration */
    struct migrate_region *region;
    unsigned n_regions;
    uint64_t pieces;
    struct pages_codec codec;
    struct api_call *call, *switching; /* NULL: answered, or the client gone */
    struct loop_timer *timer, *brake;
    struct err e;

    /* out */
    struct pages_cache cache;
    uint64_t *dirty; /* as mem_dirty_take() gives it */
    bool asked;      /* to switch, as soon as that takes little */
    bool settling, last, ready, resting, ran, machine_sent, braked;
    unsigned turns;
    int64_t bandwidth, downtime_ns; /* limits, 0: none */
    bool converge;
    unsigned throttle; /* percent of the time that the vCPUs are kept from running */
    unsigned slow;     /* rounds in a row that did not shrink */
    int64_t began_ns, round_ns, paused_ns, resumed_ns;
    int64_t slowed_ns, asked_ns;
    uint64_t requests; /* of the guest to its disks that had ended when last looked at */
    int64_t alive_ns;  /* when the other side last took anything, once the guest stands still */
    int64_t window_ns, allowed; /* of the limit */
    uint64_t total, left, sent, round_sent, round_pages, rounds, before;
    uint64_t rate; /* bytes a second over the last round */
    uint64_t expected_ns;
    struct buf machine;
    struct migrate_disk disk[STREAM_LANES];
    unsigned n_disks;
    bool dropping; /* their mirrors end, without a result */
    struct loop_timer *disk_timer;

    /* in */
    bool informed, has_machine;
    struct nbd_server *server; /* of its disks, for the source; NULL */
};

struct emu_migrate *migrate_of_vm(struct emu *m);
/* 0: another emulator, made anew, could go on with the machine; or the reason why not. */
int migrate_fits(struct emu *m, struct err *e);
/* The regions of memory, in the order in which streams number them. */
void migrate_list_memory(struct emu_migrate *g);
/* Lanes 0 to n - 1 were given. Fails the call else. */
bool migrate_has_lanes(struct emu_migrate *g, struct api_call *call, int64_t n);
/* Closes the streams and forgets what it held; the state stays. */
void migrate_close(struct emu_migrate *g);
/* A call of a client, forgotten when the client goes. */
void migrate_hold_call(struct emu_migrate *g, struct api_call **at, struct api_call *call);
int64_t migrate_now_ns(void);

/* ---- migrate_out.c ---- */
void migrate_out_timer(struct emu_migrate *g);
void migrate_out_brake(struct emu_migrate *g); /* the vCPUs stand still for a while */
void migrate_out_kick(struct emu_migrate *g);  /* streams look whether there is more */
/* It goes no further; the guest runs on if it ran. */
void migrate_out_fail(struct emu_migrate *g);
/* ---- migrate_in.c ---- */
void migrate_in_fail(struct emu_migrate *g);
void migrate_in_all_here(struct emu_migrate *g); /* all streams have ended */
/* ---- migrate_disks.c ---- */
struct migrate_disks {
    uint64_t total, left; /* bytes; of mirrors that still work */
    uint64_t lag_ns;      /* what is left takes so long, as far as that is known */
    bool ready, failed;   /* all have caught up, one has failed */
    bool flushing;        /* the other side writes one back */
};
void migrate_disks_get(const struct emu_migrate *g, struct migrate_disks *out);
/* So many, all of them well. */
bool migrate_disks_go(const struct emu_migrate *g, unsigned n);
/* So little is left of them that the guest may be paused; for how long that may take. */
bool migrate_disks_close_by(const struct emu_migrate *g, uint64_t *lag_ns);
/* The guest stands still and nothing of it is under way: the mirrors end. True: they have, with all of it at the other side. */
bool migrate_disks_ended(struct emu_migrate *g);
/* They are not needed any more; they end in their own time. */
void migrate_disks_drop(struct emu_migrate *g);
void migrate_disks_timer(struct emu_migrate *g);
void migrate_disks_set_speed(struct emu_migrate *g,
                             uint64_t speed); /* bytes a second; 0: no limit */
/* At the destination: nobody else writes to the disks from here on. True: nothing of that is under way either. */
bool migrate_disks_closed(struct emu_migrate *g);

#endif
