/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The emulator program: one process, one VM. Everything it owns hangs from struct emu, which
 * belongs to the main thread.
 */
#ifndef VMD_EMU_EMU_H
#define VMD_EMU_EMU_H

#include "api-schema/gen/types.h"
#include "devices/board/board.h"
#include "engine/base/err.h"
#include "engine/base/loop.h"
#include "engine/base/statspage.h"
#include "engine/core/vm.h"
#include "engine/kvm/kvm.h"
#include "engine/tcg/tcg.h"

#include <stdbool.h>

struct blk_node;
struct blk_jobs;
struct blk_pool;
struct console;
struct api_call;
struct emu_audio;
struct emu_sound;
struct audio_host;
struct audio_shape;
struct emu_channels;
struct emu_shares;
struct emu_control;
struct emu_dump;
struct emu_migrate;
struct emu_record;
struct emu_state;
struct pager;
struct emu_observe;
struct emu_screen;
enum { JOBS_MAX = 64 }; /* block jobs, with those that have ended and are still to be seen */

struct emu_exports;
struct rpc_server;
struct workers;

enum emu_exit {
    EMU_EXIT_OK = 0,      /* guest power-off, or told to quit */
    EMU_EXIT_CONFIG = 1,  /* the configuration cannot be run; the reason is on stderr */
    EMU_EXIT_GUEST = 2,   /* the guest reported failure */
    EMU_EXIT_INTERNAL = 3 /* a failure of our own, or of the host */
};

enum sandbox_mode { SANDBOX_DEFAULT, SANDBOX_OFF, SANDBOX_ON, SANDBOX_REQUIRE };
enum console_mode { CONSOLE_DEFAULT, CONSOLE_NONE, CONSOLE_STDIO };

/* A path of the configuration that was opened by the spawner. */
enum emu_role { EMU_FILE, EMU_BACKING, EMU_DATA };
struct emu_file {
    char *path;
    int fd; /* -1 once a disk took it */
    enum emu_role
        role; /* what the image before it (a data file: skipped) names, or a file of its own */
    char *format; /* of a backing file */
};

struct emu_options {
    const char *config_path;
    int config_fd, control_fd, console_fd, console_log_fd, stats_fd, lock_fd,
        vnc_fd;           /* -1: not given */
    int uffd_fd;          /* /dev/userfaultfd, or -1 */
    int kvm_fd;           /* /dev/kvm, or -1 */
    int vsock_fd, vsock_call_fd; /* bound socket; to the monitor; or -1 */
    int sound_fd, sound_ring_fd; /* to vmd-sound, and what they share; or -1 */
    int gdb_fd;           /* bound socket for a debugger, or -1 */
    const char *gdb_path; /* where to make one, or NULL */
    enum console_mode console;
    enum sandbox_mode sandbox;
    bool paused;
    bool record, replay; /* into, or from: */
    bool record_scratch; /* ... and the disks stay as they are */
    const char *record_path;
    int record_fd; /* -1: by its path */
    bool has_replay_to;
    uint64_t replay_to; /* instructions */
    struct emu_file *files;
    unsigned n_files;
    struct emu_file *nics; /* sockets of network cards, by name */
    unsigned n_nics;
    struct emu_file *channels; /* sockets of channels, by name */
    unsigned n_channels;
    struct emu_file *shares; /* sockets of shared folders, by tag */
    unsigned n_shares;
    const char **sets; /* "key=value" over the configuration */
    unsigned n_sets;
    char *icount_set;     /* the one that --icount means */
    const char **plugins; /* "FILE,arg,..." */
    unsigned n_plugins;
    const char *perf_map; /* path, "": the usual one; NULL: none */
    int perf_map_fd, coverage_fd;
};

#define CONFINE_LAYERS 8
struct confine_report {
    struct {
        const char *layer; /* "seccomp-vcpu" */
        char state[96];    /* "on (20 system calls)", "off: <why>" */
        bool on;
    } layer[CONFINE_LAYERS];
    unsigned n;
};

enum { EMU_MAX_SCSI = 32 };

/* An entropy device in a hot-plug slot: its name, and its device's. */
struct emu_rng {
    char *name, *id;
};

struct emu {
    struct emu_options opt;
    struct api_vm_config config;
    bool has_config;
    char cookie[65];

    struct loop *loop;
    struct vm *vm;
    const struct board_class *board_class;
    struct board *board;
    struct tcg_config tcg;
    struct kvm_config kvm;
    struct blk_pool *pool;
    struct workers *workers;                /* of block jobs */
    struct blk_jobs *jobs;                  /* NULL: the VM has no disks */
    struct emu_exports *exports;            /* NULL: no NBD server */
    struct blk_node *view[JOBS_MAX];        /* of backups that serve, until nobody is in them */
    unsigned n_views;
    struct blk_node *disk[BOARD_MAX_DISKS]; /* the devices' own; for flushing and statistics */
    unsigned n_disks;
    struct board_config disks;    /* how they are attached; nothing else in it is set */
    char mac[BOARD_MAX_NICS][18]; /* of the network cards */
    char *disk_id[BOARD_MAX_DISKS],
        *nic_id[BOARD_MAX_NICS]; /* their devices, as they were named first */
    struct emu_rng rng[BOARD_MAX_PORTS]; /* entropy devices that came while the VM ran */
    unsigned n_rngs;
    char *scsi_id[EMU_MAX_SCSI]; /* virtio-scsi adapters on PCI by their number; a disk that comes goes there */
    struct list leaving;         /* struct leaving.link: units of those that are on their way out */
    unsigned n_plugged;          /* devices that came while the VM ran, for their names */
    struct list wishes;          /* struct wish.link: who waits for a tray to open; media.c */
    struct list changes;         /* struct emu_change.link: what came and what went; hotplug_record.c */
    struct emu_file opened[4 + BOARD_MAX_DISKS + BOARD_MAX_NICS]; /* images opened by us */
    unsigned n_opened;

    struct console *console;
    struct emu_channels *channels;
    struct emu_shares *shares;
    bool vhost; /* the main thread gives descriptors to vhost-user back ends */
    struct emu_control *control;
    struct emu_record *record; /* NULL: it is neither recorded nor replayed; replay/ */
    struct emu_dump *dump; /* NULL: none was asked for yet */
    struct emu_state *state; /* the same of saving and loading; state/ */
    struct pager *pager;     /* of state/: memory that is watched; NULL: there is none on this host */
    char no_pager[128];      /* and why */
    struct emu_migrate *migrate; /* the same of migrations; state/migrate.h */
    bool unfit;              /* a state was loaded in part only: it must not run */
    struct emu_balloon *balloon; /* NULL: the VM has none */
    struct emu_memory *memory;   /* the same */
    struct emu_vsock *vsock;     /* the same */
    struct emu_audio *audio;     /* the same */
    struct emu_sound *sound;     /* the same */
    struct emu_guard *guard;     /* the same */
    struct emu_screen *screen; /* NULL: the VM has none */
    struct gdb *gdb;
    struct emu_stats *stats;
    struct emu_observe *observe; /* NULL: the engine has no translated code */
    pid_t pid;
    int signal_fd; /* signals of the process arrive here: no handler interrupts a thread */
    struct loop_fd *signals;
    struct confine_report confine;
    _Atomic int filter[4]; /* by enum confine_kind: system calls allowed, -1: failed, 0: none */
    char reason[64];       /* why it is in its state */
    const char *pausing_why; /* reason of a pause under way; NULL: "pause" */
    bool io_pausing;         /* a pause after a disk's error is posted */
    bool io_stays;           /* what is kept failed by more than a connection that is lost */
    struct loop_timer *nbd_timer; /* NULL: none was lost yet */
    unsigned nbd_told;            /* how often it was, since */
    int64_t told_ns;         /* window of the rate limit on events of disks */
    unsigned told;
};

/* --- main.c --- */
void emu_quit(struct emu *m, const char *reason); /* stops the VM and ends the loop */

/* --- options.c --- */
/* 0; 1: said all there was to say (--help and the like), exit 0; negative: error. */
int options_parse(struct emu_options *o, int argc, char **argv, struct err *e);
void options_done(struct emu_options *o);

/* --- config.c: JSON to api_vm_config --- */
int config_load(struct emu *m, struct err *e);

/* --- build.c: api_vm_config to VM and board --- */
int build_vm(struct emu *m, struct err *e);
/* Makes *o ready to open the image `path` of that format under a daemon: its descriptor, and options for every image below
 * it, from those that were passed. `o` has name, path and driver. What *chain owns must live until blk_open() has
 * returned; then chain_done() with what it returned (0: the descriptors are the block graph's).
 * -ENOENT: no such file was passed. */
struct blk_options;
struct emu_chain {
    struct emu *emu;
    struct blk_options *part;
    char **name;
    unsigned first, n; /* of the files that were passed; how many are used */
};
/* The file that was passed for a path and is not in use yet; NULL: none. */
struct emu_file *given_file(struct emu *m, const char *path);
/* Opens an image for reading, or finds it among those given; `what` for messages. */
int emu_image(struct emu *m, const char *what, const char *path, struct board_file *out,
              struct err *e);
int chain_prepare(struct emu *m, struct emu_chain *c, struct blk_options *o, struct err *e);
void chain_done(struct emu_chain *c, int rc);
/* Opens disk i of the configuration into b->disk[i] and m->disk[i]; its name, when it had none, goes to *name. */
int build_open_disk(struct emu *m, unsigned i, struct board_config *b, char **name,
                    struct err *e);
/* The image that d names, for a disk of that name. */
int build_open_image(struct emu *m, const struct api_disk *d, const char *name,
                     struct blk_node **out, struct err *e);
/* Every disk's data reaches stable storage; runs the loop meanwhile. The VM has stopped. */
int build_flush_disks(struct emu *m, struct err *e);
void build_done(struct emu *m);

/* --- nic.c: network cards --- */
/* Opens their ports into b->nic, which the board's build takes. */
int nic_open_all(struct emu *m, struct board_config *b, struct err *e);
void nic_close_all(struct board_config *b);
void nic_built(struct emu *m); /* the board is there: cables as the configuration says */
/* The port that a card of the configuration has with that socket, tap or process; takes it. */
struct net_port *nic_port(struct emu *m, const struct api_nic *n, const int *take_fds,
                          unsigned count);
struct device *nic_device(struct emu *m, size_t i); /* niclink.c: card i's */
/* Card i of the configuration: checks it, opens its port into b->nic[i]. */
int nic_open(struct emu *m, size_t i, struct board_config *b, struct err *e);

/* --- channel.c: ports of the virtio-serial device --- */
#define AGENT_CHANNEL "org.qemu.guest_agent.0"
int channels_open(struct emu *m, struct board_config *b, struct err *e);
void channels_built(struct emu *m); /* the board is there */
void channels_set_running(struct emu *m); /* the VM's state changed: input may flow */
void channels_free(struct emu *m); /* after the device that uses them */

/* --- share.c: shared folders --- */
int shares_open(struct emu *m, struct board_config *b, struct err *e);
void shares_close_all(struct board_config *b); /* what the board did not take */
void shares_free(struct emu *m);               /* after the devices that use them */
unsigned shares_count(const struct emu *m);
/* By its tag or its device's name; -1: there is none. */
int shares_find(const struct emu *m, const char *name);
const char *shares_id(const struct emu *m, unsigned i);
const char *shares_tag(const struct emu *m, unsigned i);
void shares_drop(struct emu *m, unsigned i); /* its device has gone */
/* Nobody in the guest uses a shared folder; else -EBUSY names it, and why the machine cannot be saved. */
int shares_idle(const struct emu *m, struct err *e);

/* --- hotplug.c: devices that come and go --- */
/* A virtio device in a slot; takes it, also when it fails. */
int hotplug_plug(struct emu *m, struct device *take_d, struct err *e);
bool hotplug_has_slot(struct emu *m, struct err *e);
/* A virtio-serial device in a slot, for a VM that was made without. */
int hotplug_new_serial(struct emu *m, struct device **out, struct err *e);
void hotplug_name_all(struct emu *m); /* the disks and cards of the configuration are known */
void hotplug_done(struct emu *m);

/* --- media.c: drives whose medium comes out --- */
struct dev_tray;
/* How the tray of disk i is; false: it has none. */
bool media_tray(struct emu *m, unsigned i, struct dev_tray *now);
void media_tray_moved(void *emu); /* by the guest; any thread */
void media_done(struct emu *m);   /* who waits is told that the VM ends */

/* --- hotplug_record.c: what differs from what the VM was started with --- */
/* kind: a word for people, of static storage. */
void hotplug_came(struct emu *m, const char *kind, const char *name);
void hotplug_went(struct emu *m, const char *kind, const char *name);
/* 0: it has the devices it was started with, and no others; -EBUSY and one is named: no VM made anew could load its state. */
int hotplug_none(struct emu *m, struct err *e);
void hotplug_record_done(struct emu *m);
#define HOTPLUG_REMEDY "detach what came, or stop the VM and start it as it is to be"

/* --- disks.c --- */
void disks_set_policy(struct emu *m, unsigned i);               /* after disk i was opened */
int disks_set_limits(struct emu *m, unsigned i, struct err *e); /* likewise */
/* What limits disk i has now; false: none. The name in it is borrowed. */
bool disks_get_limits(const struct emu *m, unsigned i, struct api_disk_throttle *out);
void disks_resumed(struct emu *m); /* what failed and was kept is tried again */
const char *disks_error(int error); /* for people */

/* --- nbd.c: disks that are exports of NBD servers --- */
/* Makes *o ready for such a disk, when its path is an address; o->fd is connected unless it was given. `address` must live until
 * blk_open() has returned. */
struct blk_options;
struct nbd_addr;
int nbd_prepare(struct emu *m, struct blk_options *o, struct nbd_addr *address, struct err *e);
void nbd_opened(struct emu *m, unsigned i); /* disk i: its connection is looked after */
/* No connection is lost, and what was kept was kept for nothing else. */
bool nbd_is_over(const struct emu *m);
void nbd_done(struct emu *m);

/* --- jobs.c --- */
int jobs_start(struct emu *m, struct err *e); /* before the sandbox closes */
void jobs_stop(struct emu *m);                /* all of them end; runs the loop */
void jobs_done(struct emu *m);

/* The disk of that name; NULL: there is none. */
struct blk_node *disks_find(const struct emu *m, const char *name);
/* An image in the file that was passed for a path, made anew where `make` (its options) is not NULL. */
struct blk_create;
int jobs_open_image(struct emu *m, const char *name, const char *path, const char *format,
                    struct blk_create *make, bool no_backing, struct blk_node **out,
                    struct err *e);
int jobs_error_code(int rc); /* of the API */
unsigned jobs_count(const struct emu *m);
/* A job of the disk may give it another image. */
bool jobs_swaps(const struct emu *m, const struct blk_node *disk);

/* --- disk_actions.c --- */
/* All writable disks at this instant, as snapshots of that name inside their images; all or none. For whom saves the machine's
 * memory of the same instant: the vCPUs stand still. -ENOTSUP names the disk whose image keeps none. */
int disks_snapshot(struct emu *m, const char *name, struct err *e);
/* All of the actions at this instant, or none; nothing is in flight. */
struct api_disk_action;
int disks_act(struct emu *m, const struct api_disk_action *actions, size_t n, struct err *e);
/* Takes them away again; a disk that has none is no error. */
int disks_snapshot_delete(struct emu *m, const char *name, struct err *e);
/* A dirty bitmap of a disk or of its image. */
struct blk_dirty;
int disks_find_bitmap(struct blk_node *disk, const char *name, struct blk_dirty **out,
                      struct err *e);

/* --- export.c --- */
/* A bitmap of that disk; NULL: any of them. */
bool export_uses_bitmap(const struct emu *m, const char *disk, const char *bitmap);
/* The disk goes: no more exports of it. It may be closed when export_busy() says no. */
void export_drop_disk(struct emu *m, const struct blk_node *disk);
bool export_busy(const struct emu *m, const struct blk_node *disk);
bool export_has(const struct emu *m, const struct blk_node *disk);
/* The backup of that disk has ended: what showed it goes. */
void export_drop_view(struct emu *m, const struct blk_node *disk);
/* Closes views that are over and that nobody is in. */
void export_sweep_views(struct emu *m);
void export_stop(struct emu *m); /* runs the loop until nothing is in flight; before the disks go */

/* --- control.c --- */
/* To every client: a request of a disk failed. */
void control_io_error(struct emu *m, const char *disk, const char *operation,
                      const char *action, int error);
/* The connection of a disk to its NBD server is lost: somebody is to make another. */
void control_disk_lost(struct emu *m, const char *disk);
int control_start(struct emu *m, struct err *e);
/* To every client: what became of a device ("device-deleted", "device-refused"). */
void control_device(struct emu *m, const char *type, const char *kind, const char *name);
/* To every client: the tray of a drive was opened, or closed. */
void control_tray(struct emu *m, const char *disk, bool open);
/* To every client: a program of the guest has opened a channel, or closed it. */
void control_channel(struct emu *m, const char *name, bool open);
/* To every client: the guest has another size. */
void control_balloon(struct emu *m, uint64_t actual);
/* To every client: the guest has another size of that memory device. */
void control_memory(struct emu *m, const char *name, uint64_t plugged);
/* To every client: what became of a recording or a replay, and where. */
void control_record(struct emu *m, const char *type, uint64_t count, const char *text);
/* To every client: our state, or a reset, and why. */
void control_event(struct emu *m, const char *type, const char *reason);
/* Gives what is queued for clients a moment to go out. */
void control_drain(struct emu *m);
void control_free(struct emu *m);
struct emu *control_emu(struct api_call *call);
/* The descriptor that came with the call, the caller's; -1: none did. */
int control_passed_fd(struct api_call *call);
const char *emu_state_name(const struct emu *m);

/* --- dump.c --- */
/* The guest's memory is being written to a file: it must stand still, and may only end. */
bool dump_at_work(const struct emu *m);
/* The VM's state changed: a dump at work whose guest does not stand still any more fails. */
void dump_state_changed(struct emu *m);
void dump_free(struct emu *m);

/* --- state/ --- */
/* The machine's state is being saved or loaded: it must stand still, and may only end. */
bool state_at_work(const struct emu *m);
/* It is being saved while it runs, or its memory is not all there yet; it may do all but be saved, moved or dumped. */
bool state_behind(const struct emu *m);
void state_free(struct emu *m); /* the threads are gone */
void pager_start(struct emu *m); /* before the sandbox closes */
void pager_free(struct emu *m);
/* Memory goes out, or comes in. */
bool migrate_at_work(const struct emu *m);
/* The VM stands still because it is, or may be, another host's: it may only end. */
bool migrate_holds(const struct emu *m);
void migrate_free(struct emu *m);
/* No more of disks that come or go; before the jobs end. Runs the loop. */
void migrate_disks_stop(struct emu *m);

/* --- observe.c --- */
/* After build_vm(), before the sandbox closes: perf map, coverage, plugins. */
int observe_start(struct emu *m, struct err *e);
void observe_stopped(struct emu *m); /* the vCPUs have ended */
void observe_free(struct emu *m);

/* --- balloon.c --- */
struct stats_balloon;
int balloon_new(struct emu *m, struct board_config *b, struct err *e);
void balloon_figures(struct emu *m, struct stats_balloon *s); /* untouched when there is none */
void balloon_free(struct emu *m); /* after the device that uses it */

/* --- memdev.c: memory that comes and goes --- */
int memory_new(struct emu *m, struct board_config *b, struct err *e);
void memory_free(struct emu *m); /* after the devices that use it */
unsigned memory_count(const struct emu *m);
const char *memory_name(const struct emu *m, unsigned i); /* also its device's */
/* A device that came has gone: its memory, for mem_retire(). */
struct mem_region *memory_take(struct emu *m, const char *name);

/* --- guard.c: the guest's watchdog --- */
void guard_new(struct emu *m, struct board_config *b);
/* What is done from now on when it is not fed. False: the VM has none. */
bool guard_set(struct emu *m, enum api_guest_watchdog_action action);
void guard_free(struct emu *m); /* after the device that uses it */

/* --- vsock.c --- */
int vsock_new(struct emu *m, struct board_config *b, struct err *e);
void vsock_free(struct emu *m); /* after the device that uses it */

/* --- audio.c --- */
int audio_new(struct emu *m, struct board_config *b, struct err *e);
void audio_free(struct emu *m); /* after the device that uses it */
/* sound.c: the same by vmd-sound, in both directions of one shape. *out is of m->sound. */
int sound_new(struct emu *m, const struct audio_shape *shape, struct audio_host **out,
              struct err *e);
void sound_free(struct emu *m);

/* --- stats.c --- */
int stats_start(struct emu *m, struct err *e); /* a page only when --stats-fd was given */
void stats_publish(struct emu *m);
void stats_collect(struct emu *m, struct stats_page *out);
void stats_free(struct emu *m);

/* --- confine.c --- */
/* Before threads start: names the process, no_new_privs, not dumpable, limits. */
int confine_process(struct emu *m, struct err *e);
/* The calling thread, from now on. Kinds: */
enum confine_kind { CONFINE_MAIN, CONFINE_IO, CONFINE_VCPU, CONFINE_PAGER };
int confine_thread(struct emu *m, enum confine_kind kind, struct err *e);
/* Hooks of pool and VM: end the process when required and failing. */
void confine_io_thread(void *emu);
void confine_vcpu_thread(void *emu, struct vcpu *c);
void confine_pager_thread(struct emu *m);
bool confine_wanted(const struct emu *m);
/* Numbers of the system calls that such a thread may make, up to n of them; returns how many there are. */
unsigned confine_calls(const struct emu *m, enum confine_kind kind, int *call, unsigned n);
/* Lines for people, "layer: state", up to n; each to be freed. Returns how many. */
unsigned confine_describe(const struct emu *m, char **lines, unsigned n);

#endif
