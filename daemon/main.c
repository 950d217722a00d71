/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmd, the daemon: start, listening, signals, end. Owns struct vmd.
 *
 * Order of a start: options, locks (one daemon for one store), vmd-spawn (while there is neither a
 * thread nor a store), store, registry, re-adoption, and only then clients.
 */
#include "api-schema/json/json.h"
#include "api-schema/rpc/server.h"
#include "daemon/auth/access.h"
#include "daemon/auth/images.h"
#include "daemon/auth/listen.h"
#include "daemon/vm/backup.h"
#include "daemon/vm/checkpoint.h"
#include "daemon/vm/blockjobs.h"
#include "daemon/vm/disk_actions.h"
#include "daemon/vm/disk_intent.h"
#include "daemon/calls.h"
#include "daemon/daemon.h"
#include "daemon/vm/dump.h"
#include "daemon/vm/fork.h"
#include "daemon/vm/migrate.h"
#include "daemon/vm/peer.h"
#include "daemon/vm/save.h"
#include "daemon/vm/snapshot.h"
#include "daemon/events.h"
#include "daemon/jobs.h"
#include "daemon/run/linger.h"
#include "daemon/host/lockfile.h"
#include "daemon/host/metrics.h"
#include "daemon/ops.h"
#include "daemon/vm/balloon.h"
#include "daemon/vm/policy.h"
#include "daemon/vm/schedule.h"
#include "daemon/run/proc.h"
#include "daemon/libvirt/libvirt.h"
#include "daemon/qmp/qmp.h"
#include "daemon/registry.h"
#include "daemon/run/run.h"
#include "daemon/run/spawner.h"
#include "daemon/network/networks.h"
#include "daemon/storage/pools.h"
#include "daemon/store/store.h"
#include "daemon/store/backup.h"
#include "daemon/vm/supply.h"
#include "daemon/host/systemd.h"
#include "daemon/waits.h"
#include "daemon/web/web.h"
#include "engine/base/fd.h"
#include "engine/base/log.h"
#include "engine/base/loop.h"
#include "engine/base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#define END_TICK_NS INT64_C(20000000)
#define ALIVE_NS INT64_C(10000000000) /* status to the service manager */
#define END_CALLS_TICKS 250           /* 5 s for calls at work */
#define END_VMS_TICKS 1500            /* 30 s for VMs asked to quit, then they are killed */
#define END_KILLED_TICKS 1750

struct start {
    struct vmd *d;
    struct sd_fd sockets[SD_FDS_MAX];
    unsigned n_sockets;
    char notify[128];
    int64_t
        watchdog_ns; /* the service manager wants to hear from us that often; 0: it does not */
    struct loop_timer *alive;
    bool recovered;
    bool made_socket, made_socket_ro, made_libvirt, made_libvirt_ro;
    unsigned ticks;
    struct loop_signal *term, *intr, *hangup;
    int code; /* exit status */
};

/* ---- clients ---- */

static enum api_role authorize(void *arg, const struct rpc_peer *peer, enum api_role max)
{
    enum api_role role = access_role_anywhere(arg, peer);
    return max < role ? max : role;
}

static void session_closed(void *arg, struct rpc_session *s)
{
    struct vmd *d = arg;
    events_session_closed(d->events, s);
    migrate_session_closed(d, s);
}

static void session_denied(void *arg, struct rpc_session *s, const struct api_method *method)
{
    char who[160];
    access_who(&s->peer, who, sizeof(who));
    doors_refuse(((struct vmd *)arg)->doors, who, method->name, "the role does not suffice");
}

static const struct rpc_server_ops server_ops = {
    .denied = session_denied,
    .authorize = authorize,
    .closed = session_closed,
    .before = calls_before,
    .after = calls_after,
};

static int listen_at(struct vmd *d, const char *path, unsigned mode, enum api_role max,
                     bool *made, struct err *e)
{
    int fd = unix_listen(path, mode, 512, e);
    if (fd < 0) {
        return fd;
    }
    *made = true;
    return rpc_server_listen(d->server, fd, max, e);
}

static int listen_libvirt(struct vmd *d, const char *path, unsigned mode, enum api_role max,
                          bool *made, struct err *e)
{
    int fd = unix_listen(path, mode, 512, e);

    if (fd < 0) {
        return fd;
    }
    *made = true;
    return rpc_server_listen_as(d->server, fd, max, &libvirt_dialect, d->libvirt,
                                LIBVIRT_CLIENTS, e)
               ? 0
               : e->code;
}

static int listen_all(struct start *st, struct err *e)
{
    struct vmd *d = st->d;
    int rc = 0;
    for (unsigned i = 0; i < st->n_sockets && rc == 0; i++) {
        rc = rpc_server_listen(d->server, st->sockets[i].fd,
                               st->sockets[i].read_only ? API_ROLE_VIEWER : API_ROLE_ADMIN, e);
        st->sockets[i].fd = -1;
    }
    if (rc == 0 && st->n_sockets == 0) {
        rc = listen_at(d, d->opt.socket, 0660, API_ROLE_ADMIN, &st->made_socket, e);
    }
    if (rc == 0 && d->opt.socket_ro) {
        rc = listen_at(d, d->opt.socket_ro, 0666, API_ROLE_VIEWER, &st->made_socket_ro, e);
    }
    if (rc == 0 && strcmp(d->opt.libvirt, "off") != 0) {
        rc = listen_libvirt(d, d->opt.libvirt, 0660, API_ROLE_ADMIN, &st->made_libvirt, e);
    }
    if (rc == 0 && d->opt.libvirt_ro) {
        rc = listen_libvirt(d, d->opt.libvirt_ro, 0666, API_ROLE_VIEWER, &st->made_libvirt_ro,
                            e);
    }
    if (rc == 0 && d->opt.metrics) {
        d->metrics = metrics_new(d, d->opt.metrics, e);
        rc = d->metrics ? 0 : e->code;
    }
    if (rc == 0) {
        rc = doors_load(d->doors, NULL, e);
    }
    return rc;
}

/* ---- what the last daemon left at work ---- */

static void settle_job(void *arg, struct job *job)
{
    struct vmd *d = arg;
    if (!job_active(job)) {
        return;
    }
    if (job->info.kind && strcmp(job->info.kind, "vm.dump") == 0 && dump_follow(d, job)) {
        return;
    }
    if (blockjob_follow(d, job) || disk_intent_follow(d, job)) {
        return;
    }
    forks_clean(d, job);
    struct vm *vm = job->info.vm ? vm_find(d, job->info.vm, false) : NULL;
    struct api_error x = API_ERROR_INIT;
    struct change *c = change_new(d);
    bool runs = vm && vm->run && run_pid(vm->run) > 0 &&
                strcmp(job->info.kind, "vm.create") == 0;
    if (!runs) {
        api_error_set(&x, API_E_CANCELLED, job->info.name, "begin it again",
                      "vmd ended while the job was at work");
    }
    change_must_tell(c);
    job_end(d, job, c, runs ? NULL : &x, runs ? vm_info(vm, false, false) : NULL);
    change_commit(c, NULL, NULL);
}

static void tell_daemon(struct vmd *d, const char *reason)
{
    struct change *c = change_new(d);
    change_must_tell(c);
    change_event(
        c, &(struct api_event){ .type = API_EVENT_TYPE_DAEMON, .reason = (char *)reason });
    change_commit(c, NULL, NULL);
}

/* The loop turns and the store is not stuck: tells the service manager, with a line for its status. */
static void on_alive(void *arg)
{
    struct start *st = arg;
    struct vmd *d = st->d;
    char text[160];
    snprintf(text, sizeof(text), "STATUS=%zu VMs, %zu of them running%s\nWATCHDOG=1",
             vm_count(d), vm_count_active(d),
             store_health(d->store, NULL, 0) == STORE_FAILED ? "; the store refuses changes"
                                                             : "");
    if (st->notify[0]) {
        sd_tell(st->notify, text);
        loop_timer_arm(st->alive, st->watchdog_ns ? st->watchdog_ns / 2 : ALIVE_NS);
    }
}

/* Every emulator has answered, or had its time: clients may come. */
static void on_adopted(void *arg)
{
    struct start *st = arg;
    struct vmd *d = st->d;
    struct err e = ERR_INIT;
    jobs_each(d, settle_job, d);
    blockjobs_begin(d);
    pools_begin(d);
    networks_begin(d);
    migrates_begin(d);
    snapshots_begin(d);
    policy_begin(d);
    balloons_begin(d->balloons);
    schedules_begin(d);
    backups_begin(d->backups);
    tell_daemon(d, st->recovered ? "recovered" : "started");
    if (listen_all(st, &e) < 0) {
        log_error("daemon", "%s", e.msg);
        st->code = 1;
        loop_quit(d->loop);
        return;
    }
    qmp_begin(d->qmp);
    log_info("daemon", "vmd %s ready: %zu VMs, %zu of them running, socket %s, store %s",
             PACKAGE_VERSION, vm_count(d), vm_count_active(d),
             st->n_sockets ? "handed over" : d->opt.socket, d->opt.store);
    sd_tell(st->notify, "READY=1");
    st->alive = loop_timer_new(d->loop, on_alive, st);
    on_alive(st);
}

/* ---- the end ---- */

static bool calls_at_work(struct vmd *d)
{
    size_t n;
    bool busy = false;
    struct vm **list = vm_list(d, &n);
    for (size_t i = 0; i < n; i++) {
        busy |= list[i]->op != NULL;
    }
    free(list);
    return busy;
}

static void on_quit(void *arg, struct json_object *result, const struct api_error *x)
{
    (void)arg;
    (void)result;
    (void)x; /* its end tells, or the time it had */
}

static void each_run(struct vmd *d, bool kill)
{
    size_t n;
    struct vm **list = vm_list(d, &n);
    for (size_t i = 0; i < n; i++) {
        if (!list[i]->run) {
            continue;
        }
        run_expect_end(list[i]->run, "quit");
        if (kill || !run_call(list[i]->run, "emu.quit", 0, on_quit, NULL)) {
            run_kill(list[i]->run);
        }
    }
    free(list);
}

static void on_end_tick(void *arg)
{
    struct start *st = arg;
    struct vmd *d = st->d;
    st->ticks++;
    bool wait = calls_at_work(d) && st->ticks < END_CALLS_TICKS;
    if (d->end_stop_vms) {
        if (st->ticks == END_VMS_TICKS) {
            each_run(d, true);
        }
        wait |= vm_count_active(d) > 0 && st->ticks < END_KILLED_TICKS;
    }
    if (wait || st->ticks < 3) {
        loop_timer_arm(d->end_timer, END_TICK_NS);
        return;
    }
    loop_quit(d->loop);
}

void vmd_end(struct vmd *d, bool stop_vms)
{
    if (d->ending) {
        return;
    }
    log_info("daemon", "vmd ends; %zu VMs %s", vm_count_active(d),
             stop_vms ? "are stopped" : "run on");
    d->ending = true;
    d->end_stop_vms = stop_vms;
    tell_daemon(d, "stopping");
    qmp_drain(d);
    rpc_server_drain(d->server);
    doors_drain(d->doors);
    web_drain(d->web);
    waits_end(d);
    if (stop_vms) {
        each_run(d, false);
    }
    loop_timer_arm(d->end_timer, END_TICK_NS);
}

/* Certificates anew; what cannot be read leaves the former ones in use. */
static void on_hangup(void *arg, int signo)
{
    struct start *st = arg;
    struct err e = ERR_INIT;
    unsigned dropped = 0;
    (void)signo;
    if (doors_load(st->d->doors, &dropped, &e) < 0) {
        log_error("access", "certificates were not read again: %s", e.msg);
    } else {
        log_info("access", "certificates were read again; %u connections were ended", dropped);
    }
}

static void on_signal(void *arg, int signo)
{
    struct start *st = arg;
    (void)signo;
    sd_tell(st->notify, "STOPPING=1");
    vmd_end(st->d, false);
}

/* ---- putting together ---- */

static void load_object(void *arg, const struct store_object *row)
{
    static const struct {
        const char *kind;
        void (*load)(struct vmd *d, const struct store_object *row);
    } kinds[] = {
        { "restart", policy_load },      { "profile", supply_load_profile },
        { "quota", supply_load_quota },  { "pool", pools_load_pool },
        { "volume", pools_load_volume }, { "network", networks_load },
        { MIGRATE_KIND, migrate_load },  { SNAPSHOT_KIND, snapshots_load },
        { "schedule", schedules_load },  { CHECKPOINT_KIND, checkpoints_load },
        { BACKUP_KIND, backups_load },
    };
    for (unsigned i = 0; i < ARRAY_LEN(kinds); i++) {
        if (strcmp(row->kind, kinds[i].kind) == 0) {
            kinds[i].load(arg, row);
        }
    }
}

static int open_store(struct start *st, struct err *e)
{
    struct vmd *d = st->d;
    struct store_info info;
    d->store = store_open(&(struct store_opts){ .path = d->opt.store, .loop = d->loop }, &info,
                          e);
    if (!d->store) {
        return e->code;
    }
    if (info.migrated_from && !info.created) {
        log_info("daemon", "store %s brought from schema %d to %d", d->opt.store,
                 info.migrated_from, STORE_SCHEMA);
    }
    if (info.unclean) {
        log_warn("daemon", "the last vmd did not end orderly; the store is checked meanwhile");
    }
    st->recovered = info.unclean;
    d->events = events_new(d);
    d->jobs = jobs_new(d);
    d->idems = idems_new(d);
    d->vms = registry_new(d);
    d->access = access_new(d);
    d->images = images_new(d);
    d->pools = pools_new(d);
    d->networks = networks_new(d);
    d->policy = policy_new(d);
    d->balloons = balloons_new(d);
    d->supply = supply_new(d);
    d->schedules = schedules_new(d);
    d->backups = backups_new(d);
    int rc = events_load(d->events, info.unclean, e);
    if (rc == 0) {
        rc = jobs_load(d->jobs, e);
    }
    if (rc == 0) {
        rc = idems_load(d->idems, e);
    }
    if (rc == 0) {
        rc = registry_load(d->vms, e);
    }
    if (rc == 0) {
        rc = access_load(d->access, e);
    }
    return rc < 0 ? rc : store_load_objects(d->store, load_object, d, e);
}

static int set_up(struct start *st, pid_t spawner, int *spawner_sock, struct err *e)
{
    struct vmd *d = st->d;
    cgroup_probe(&d->cgroup, d->opt.cgroup);
    d->loop = loop_new(e);
    if (!d->loop) {
        return e->code;
    }
    d->spawner = spawner_new(d, spawner, take_fd(spawner_sock));
    st->term = loop_signal_new(d->loop, SIGTERM, on_signal, st);
    st->intr = loop_signal_new(d->loop, SIGINT, on_signal, st);
    st->hangup = loop_signal_new(d->loop, SIGHUP, on_hangup, st);
    d->end_timer = loop_timer_new(d->loop, on_end_tick, st);
    int rc = proc_boot_id(d->boot_id, e);
    if (rc == 0) {
        rc = open_store(st, e);
    }
    if (rc < 0) {
        return rc;
    }
    AUTO_FREE char *greeting = qmp_greeting(NULL);
    struct rpc_server_config config = { .program = "vmd",
                                        .handlers = &api_handlers_vmd,
                                        .qmp = greeting,
                                        .dialect = &qmp_dialect,
                                        .dialect_arg = d,
                                        .send_buffer = 1 << 20 };
    d->qmp = qmp_new(d);
    d->libvirt = libvirt_new(d);
    d->server = rpc_server_new(d->loop, &config, &server_ops, d);
    d->doors = doors_new(d);
    d->web = d->opt.web ? web_new(d) : NULL;
    return 0;
}

/* Nobody's call is left open, everything queued is on the disk, VMs run on. */
static void tear_down(struct start *st)
{
    struct vmd *d = st->d;
    size_t n = 0;
    d->ending = true;
    if (st->made_socket) {
        unlink(d->opt.socket);
    }
    if (st->made_socket_ro) {
        unlink(d->opt.socket_ro);
    }
    if (st->made_libvirt) {
        unlink(d->opt.libvirt);
    }
    if (st->made_libvirt_ro) {
        unlink(d->opt.libvirt_ro);
    }
    backup_end(d);
    dumps_end(d);
    saves_end(d);
    snapshots_end(d);
    forks_end(d);
    disk_actions_end(d);
    disk_exports_end(d);
    migrates_end(d);
    peers_end(d);
    blockjobs_end(d);
    metrics_free(d->metrics);
    loop_timer_free(st->alive);
    doors_drain(d->doors);
    web_drain(d->web);
    images_free(d->images);
    d->images = NULL;
    pools_end(d);
    networks_end(d);
    if (d->store) {
        spawner_fail_checks(d->spawner);
        store_sync(d->store);
    }
    store_close(d->store);
    struct vm **list = d->vms ? vm_list(d, &n) : NULL;
    for (size_t i = 0; i < n; i++) {
        ops_drop(list[i], API_E_CANCELLED, "vmd is shutting down");
        if (list[i]->run) {
            run_forget(list[i]->run);
        }
    }
    free(list);
    qmp_drain(d);
    web_free(d->web);
    d->web = NULL;
    doors_free(d->doors);
    rpc_server_free(d->server);
    qmp_free(d->qmp);
    libvirt_free(d->libvirt);
    spawner_free(d->spawner);
    lingers_free(d);
    snapshots_free(d);
    checkpoints_free(d);
    backups_free(d->backups);
    forks_free(d);
    registry_free(d->vms);
    pools_free(d->pools);
    networks_free(d->networks);
    policy_free(d->policy);
    balloons_free(d->balloons);
    schedules_free(d->schedules);
    supply_free(d->supply);
    access_free(d->access);
    idems_free(d->idems);
    jobs_free(d->jobs);
    events_free(d->events);
    loop_timer_free(d->end_timer);
    loop_signal_free(st->term);
    loop_signal_free(st->intr);
    loop_signal_free(st->hangup);
    loop_free(d->loop);
}

/* vmd --restore: the locks are held, no vmd has the store. */
static int restore(struct vmd *d, struct err *e)
{
    struct store_copy copy;
    int rc = store_restore(d->opt.store, d->opt.restore, &copy, e);
    if (rc == 0) {
        log_info("daemon",
                 "store %s restored from %s (schema %d, %lld VMs); the former one is "
                 "%s.before-restore",
                 d->opt.store, d->opt.restore, copy.schema, (long long)copy.vms, d->opt.store);
    }
    return rc;
}

static int run(struct start *st, struct err *e)
{
    struct vmd *d = st->d;
    AUTO_FREE char *store_lock = xasprintf("%s.lock", d->opt.store);
    AUTO_FREE char *run_lock = xasprintf("%s/vmd.lock", d->opt.run);
    AUTO_FREE char *store_name = xasprintf("the store '%s'", d->opt.store);
    AUTO_FREE char *run_name = xasprintf("the run folder '%s'", d->opt.run);
    pid_t spawner = 0;
    AUTO_FD spawner_sock = -1;
    int rc = options_folders(&d->opt, e);
    if (rc < 0) {
        return rc;
    }
    AUTO_FD lock = lockfile_take(store_lock, store_name, e);
    if (lock < 0) {
        return lock;
    }
    AUTO_FD lock2 = lockfile_take(run_lock, run_name, e);
    if (lock2 < 0) {
        return lock2;
    }
    if (d->opt.restore) {
        return restore(d, e);
    }
    rc = spawner_launch(&d->opt, &spawner, &spawner_sock, e);
    if (rc == 0) {
        rc = set_up(st, spawner, &spawner_sock, e);
    }
    if (rc == 0) {
        saves_load(d);
        runs_adopt(d, on_adopted, st);
        rc = loop_run(d->loop, e);
    }
    tear_down(st);
    return rc;
}

/* Three descriptors a running VM, one a client. */
static void raise_limits(void)
{
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur < files.rlim_max) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
}

static int open_log(const struct vmd_options *o)
{
    int fd = 2;
    if (o->log) {
        fd = open(o->log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0640);
        if (fd < 0) {
            log_init("vmd", LOG_INFO, 2);
            log_error("daemon", "cannot open log '%s': %s", o->log, strerror(errno));
            return -1;
        }
        dup2(fd, 2); /* vmd-spawn's too */
    }
    log_init("vmd", LOG_INFO, fd);
    return 0;
}

int main(int argc, char **argv)
{
    struct vmd d = { .started_ns = time_real_ns() };
    list_init(&d.lingering);
    list_init(&d.dumps);
    list_init(&d.saves);
    list_init(&d.snapshots);
    list_init(&d.checkpoints);
    list_init(&d.snapshot_work);
    list_init(&d.bjobs);
    list_init(&d.forks);
    list_init(&d.dacts);
    list_init(&d.dintents);
    list_init(&d.dexports);
    list_init(&d.dials);
    list_init(&d.migrate_rows);
    list_init(&d.migrate_outs);
    list_init(&d.migrate_ins);
    list_init(&d.unplugs);
    struct start st = { .d = &d };
    struct err e = ERR_INIT;
    int rc = options_parse(&d.opt, argc, argv);
    if (rc != 0) {
        options_done(&d.opt);
        return rc < 0 ? 2 : 0;
    }
    umask(027);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGHUP, SIG_IGN); /* until certificates can be read again */
    signal(SIGXFSZ, SIG_IGN);
    raise_limits();
    if (open_log(&d.opt) < 0) {
        return 2;
    }
    st.n_sockets = sd_take_fds(st.sockets);
    sd_tell_init(st.notify, sizeof(st.notify));
    st.watchdog_ns = sd_watchdog_ns();
    rc = run(&st, &e);
    if (rc < 0) {
        log_error("daemon", "%s", e.msg);
        st.code = 1;
    }
    options_done(&d.opt);
    return st.code;
}
