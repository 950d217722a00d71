/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The inside of vmd-spawn: one thread, no store, no loop. Everything hangs from struct spawner.
 */
#ifndef VMD_DAEMON_SPAWN_SPAWN_H
#define VMD_DAEMON_SPAWN_SPAWN_H

#include "api-schema/net/tapdev.h"
#include "daemon/run/proc.h"
#include "daemon/spawn/proto.h"
#include "engine/base/err.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct json_object;

enum layer {
    LAYER_NO_NEW_PRIVS,
    LAYER_RLIMITS,
    LAYER_USER, /* user namespace or, for root, a user id of the VM's own */
    LAYER_PID,
    LAYER_NET,
    LAYER_IPC, /* and UTS */
    LAYER_MOUNT,
    LAYER_ROOT, /* an almost empty, read-only root folder */
    LAYER_COUNT
};

struct layer_state {
    bool active;
    char reason[160]; /* why not */
};

struct spawner {
    int sock;        /* to vmd */
    int run_fd;      /* RUN/vm */
    const char *run; /* RUN/vm */
    const char *emulator;
    int emulator_fd; /* what is executed, also when the path is hidden by the jail; -1: not found */
    bool tried; /* the emulator runs, and the layers are known; else every start tries again */
    bool root;
    char boot_id[37];
    struct layer_state layer[LAYER_COUNT];
};

extern const char *const layer_name[LAYER_COUNT];

/* A recording among the files. */
enum spawn_tape { TAPE_NONE, TAPE_RECORD, TAPE_REPLAY };

/* One file that the emulator is given. */
struct spawn_file {
    const char *key, *path, *what; /* borrowed from the request */
    const char *format;            /* of a disk; NULL: not told, or no disk */
    bool disk, write;
    bool made; /* when it is not there, and may be empty */
    enum spawn_tape tape;
    bool is_new; /* a recording that was made here: goes when the start fails */
    int fd;
};

/* One that an image names: the backing file of the one before it (of the file's own image, for the first), or its
 * data file. Those of a file follow one another. */
struct spawn_image {
    char *path; /* owned */
    char format[16];
    unsigned file; /* index of the disk */
    bool data, write;
    int fd;
};

/* One network card. Texts are borrowed from the request; the arguments' list is owned. */
struct spawn_nic {
    const char *name;
    const char *path;  /* socket to connect to; NULL: a process vmd-net with these arguments */
    const char *hello; /* said first to who listens at the path; NULL: nothing */
    bool dgram;
    const char
        *vhost;   /* of a vmd-net: the socket of its vhost-user back end; NULL: it has none */
    bool listens; /* which connects there; else it listens there */
    bool is_tap;  /* a tap interface, as `tap` says */
    struct tap_wish tap;
    const char **args;
    unsigned n_args;
    const char *tftp; /* folder that it serves, or NULL */
    int fds
        [TAP_MAX_QUEUES]; /* the emulator's ends, in the monitor: one, or the queues of a tap */
    unsigned n_fds;
};

/* The socket of a channel, bound. The name is borrowed from the request. */
struct spawn_channel {
    const char *name;
    char socket[VM_CHANNEL_LEN + 1];
    int fd;
};

/* A shared folder. Texts are borrowed from the request. */
struct spawn_share {
    const char *tag, *path, *socket; /* path NULL: somebody else's server, at the socket */
    bool nine, readonly, mapped;
    int fd; /* connected to its server */
};

/* A process vmd-sound. Texts are borrowed from the request. */
struct spawn_sound {
    const char *backend; /* NULL: none */
    const char *server, *device;
    int rate, channels, sample;
};

/* One start. Descriptors are -1 or owned. */
struct start {
    struct spawner *sp;
    int64_t vm;
    const char *name, *cookie, *config, *log; /* borrowed from the request */
    const char *cgroup;                       /* the same; NULL: none */
    bool paused, screen;                      /* it has a screen, to be served */
    bool vsock;                               /* and sockets of the guest */
    bool kvm;                                 /* and its engine is KVM */
    bool check;                               /* only a question: no server is connected to */
    bool scratch;      /* what is recorded leaves its disks as they are */
    int64_t replay_to; /* instruction where a replay is paused; -1: its end */
    char dir[4096];    /* RUN/vm/ID */
    int dir_fd, lock_fd, control_fd, console_fd, console_log_fd, stats_fd, config_fd,
        emu_log_fd, vnc_fd, uffd_fd, kvm_fd; /* the last: /dev/userfaultfd, /dev/kvm, or -1 */
    int sound_fd, sound_ring_fd; /* the emulator's end towards vmd-sound, and what they share */
    int vsock_fd, vsock_call_fd; /* bound; the emulator's end towards the monitor, in that */
    struct spawn_file files[SPAWN_FILES_MAX];
    unsigned n_files;
    struct spawn_nic nics[SPAWN_NICS_MAX];
    unsigned n_nics;
    struct spawn_channel channels[SPAWN_CHANNELS_MAX];
    unsigned n_channels;
    struct spawn_share shares[SPAWN_SHARES_MAX];
    unsigned n_shares;
    struct spawn_sound sound;
    struct spawn_image *images; /* owned */
    unsigned n_images;
    struct json_object *folders; /* where images may name others; borrowed from the request */
};

/* What came of it; `fds` as in proto.h, owned. */
struct started {
    pid_t pid, mon_pid;
    uint64_t start_time, mon_start;
    int fds[3];
};

/* files.c: which files the disks and the images below them are, as in proto.h; the caller's. */
struct json_object *files_disks(const struct start *st, bool paths);
/* Opens the files. On failure *bad (borrowed) is the path that failed. */
int files_open(struct start *st, const char **bad, struct err *e);
/* chain.c: opens what the disks' images name. On failure *bad as above. */
int chain_open(struct start *st, const char **bad, struct err *e);
/* Makes the folder, takes the lock, opens and binds everything. */
int start_prepare(struct start *st, struct err *e);
/* Closes what is still open; `undo` removes what was made. */
void start_done(struct start *st, bool undo);

/* monitor.c: forks the monitor, which forks the emulator. */
int monitor_start(struct start *st, struct started *out, struct err *e);

/* vsock.c, in the monitor: a call of the guest, from the emulator; false: there are no more. */
bool vsock_serve(int calls, int dir_fd);

/* nic.c: in the monitor, before the emulator's process is made. What was started ends when the monitor does; `apart`: when
 * its card is closed. */
int nics_start(struct start *st, bool apart, struct err *e);
/* share.c: the same for shared folders; st->vm and st->emu_log_fd are set. */
int shares_read(struct start *st, const struct json_object *list, struct err *e);
int shares_start(struct start *st, bool apart, struct err *e);
/* sound.c: the same for the process of its sound, which ends when the monitor does. */
int sound_read(struct start *st, const struct json_object *o, struct err *e);
int sound_start(struct start *st, struct err *e);
#define NET_JAIL_TFTP "/tftp"
char *net_path(void); /* vmd-net; the caller's */
/* A process for vmd-net, with the host's network unless it is isolated; as fork(). */
pid_t net_clone(const struct spawner *sp, bool isolated);
/* Waits until the program says that it serves, by a plus sign; what it said instead, or that it died, is the error. */
int net_ready(int status_fd, const char *program, const char *name, struct err *e);
/* The same of a program that does not say when it serves: that it was executed must do. */
int net_executed(int status_fd, const char *program, const char *name, struct err *e);

/* tls.c: TLS over a connection, which is taken; the descriptor for the emulator, or a negative code. */
struct nbd_addr;
int tls_relay(const struct start *st, const struct nbd_addr *to, int take_far, struct err *e);

/* network.c: starts the process of a named network. */
struct net_started {
    pid_t pid;
    uint64_t start_time;
    int pidfd; /* the caller's */
};
int network_start(struct spawner *sp, const struct json_object *req, struct net_started *out,
                  struct err *e);

/* jail.c. */
/* What the jail of vmd-net has beside the libraries: the resolver's configuration, and a folder at a fixed place. */
struct jail_net {
    const char *tftp, *tftp_at;
};
/* As jail_enter(), for vmd-net. */
int jail_enter_net(const struct spawner *sp, int64_t vm, const struct jail_net *extra,
                   struct err *e);
/* For servers of shared folders, which keep the rights over files that their user has. The clone flags of a process of theirs; its
 * ids, from the parent; and in the child: a mount of its own of the folder, an empty root, few capabilities. *tree is its
 * descriptor. */
uint64_t jail_share_flags(const struct spawner *sp);
int jail_share_ids(const struct spawner *sp, pid_t child, struct err *e);
int jail_enter_share(const struct spawner *sp, int folder, bool readonly, int *tree,
                     struct err *e);
bool jail_has_root(const struct spawner *sp); /* the root folder is an empty one */
/* Opens the emulator, tries the layers with `emulator --version` and keeps those that work. -ENOEXEC: there is no
 * emulator, or it runs in no jail and without one; sp->tried stays false, and no layer counts as active. */
int jail_probe(struct spawner *sp, struct err *e);
/* Flags for clone3 of the emulator's process. */
uint64_t jail_clone_flags(const struct spawner *sp);
/* In the parent, after clone3: maps the ids of the child's user namespace. */
int jail_map_ids(const struct spawner *sp, pid_t child, int64_t vm, struct err *e);
/* In the child, before exec. */
int jail_enter(const struct spawner *sp, int64_t vm, struct err *e);

#endif
