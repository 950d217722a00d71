/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The inside of struct run, shared by the files that make up supervision: supervise.c (starting),
 * watch.c (the connection and the ends), adopt.c (after a restart). Loop thread.
 */
#ifndef VMD_DAEMON_RUN_H
#define VMD_DAEMON_RUN_H

#include "daemon/run/proc.h"
#include "daemon/store/store.h"
#include "daemon/run/supervise.h"
#include "engine/base/list.h"

#include <stdbool.h>
#include <stdint.h>

struct loop_fd;
struct loop_timer;
struct spawned;
struct stats_view;

struct run {
    struct vm *vm;
    struct vmd *d;
    char cookie[COOKIE_LEN + 1];
    int64_t since_ns;
    struct run_disks disks;
    bool disks_unread; /* taken up: what the monitor wrote is read when somebody asks */
    pid_t pid, mon_pid;
    uint64_t start_time, mon_start;
    int pidfd, mon_pidfd;
    struct loop_fd *w_pid, *w_mon;
    struct stats_view *stats;
    int64_t rss, rss_ns; /* resident memory and when it was looked at, CLOCK_MONOTONIC */
    struct rpc_client *client;
    struct loop_timer *timer;  /* connecting, asking whether it is well */
    struct loop_timer *grace;  /* for the monitor's record; for a deadline of the start */
    struct loop_timer *doom;   /* after a kill: has the kernel ended it? */
    int64_t retry_ns;          /* next pause between attempts to connect */
    bool paused;               /* start option */
    char *record, *replay;     /* the same: a recording that is made, or played; NULL */
    bool scratch;              /* what is recorded leaves its disks as they are */
    int64_t replay_to;         /* instruction where it is paused; -1: at the end */
    enum api_replay_mode mode; /* as its emulator has said */
    bool up;                   /* said hello with the right cookie */
    bool adopting;             /* taken up after a restart, not answered yet */
    bool stored;               /* its row holds the process */
    bool mute;                 /* told that it does not answer */
    bool kill_wanted, killed;
    bool asked;  /* a person asked the guest to power off */
    bool bitten; /* the watchdog has acted on this silence */
    bool emu_dead, mon_dead, ended, shutting;
    bool
        gone; /* ended: the definition goes in the same transaction, whatever the VM is by now */
    bool stuck, lingers; /* killed, and seen waiting in the kernel; given up on */
    char expected[32];   /* reason of an end we asked for */
    char said[64];       /* reason the emulator gave with `stopped` */
    char failure[400];   /* why a start failed, when we know better than its log */
    int fail_code;
    int64_t resets_ns; /* window of the rate limit on reset events */
    unsigned resets;
    int64_t errors_ns; /* the same for errors of disks */
    unsigned errors;
    int64_t channels_ns; /* the same for channels that open and close */
    unsigned channels;
    int64_t lost_ns; /* the same for connections of disks */
    unsigned lost;
    char **trays; /* names of drives whose tray is open; daemon/vm/media.c */
    size_t n_trays;
    int64_t trays_ns; /* window of the rate limit on what is told of them */
    unsigned trays_told;
    struct api_disk
        *far; /* disks of NBD servers that came while it ran; daemon/vm/reconnect.c */
    size_t n_far;
    run_started_fn *started;
    void *started_arg;
    struct list enders;
    void (*settled)(void *arg); /* adoption: answered, or found dead */
    void *settled_arg;
};

enum { TRAYS_MAX = 64 };

struct run *run_new(struct vm *vm, const char *cookie);
void run_free(struct run *run);
/* The process is known: watches it. Takes the descriptors; -1 where there is none. */
void run_attach(struct run *run, int take_pidfd, int take_mon_pidfd, int take_stats);
/* Connects to the control socket and says hello, again and again until it answers. */
void run_connect(struct run *run);
/* Answered or known dead: the adoption need not wait for it. */
void run_settle(struct run *run);
/* It is over (or never began): reads the record, makes it durable, cleans up, tells. */
void run_finish(struct run *run);
/* Ends a start that failed before there was a process; x as told. */
void run_abort_start(struct run *run, int code, const struct err *e);
/* The row as it is now. */
void run_row(const struct run *run, struct store_run *row);
/* First hello: state as the emulator said, what to say of it, and its own word. watch.c calls it. */
void run_is_up(struct run *run, enum api_vm_state state, const char *reason, const char *raw);

#endif
