/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmd-emu: one process that runs one virtual machine. main() reads the configuration, builds
 * the VM, opens its doors (control socket, console), confines itself and runs the loop until
 * the guest powers off or somebody tells it to quit.
 *
 * The way out never loses console output: the VM stops first, then everything it said is
 * brought out, then disks are flushed, then clients hear of it.
 */
#include "engine/base/fd.h"
#include "engine/base/log.h"
#include "engine/base/str.h"
#include "engine/core/gdb.h"
#include "engine/emu/console.h"
#include "engine/emu/emu.h"
#include "engine/emu/replay/replay.h"
#include "engine/emu/screen.h"
#include "storage/block.h"

#include <errno.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

static void on_state(void *arg, enum vm_state state, const char *reason)
{
    struct emu *m = arg;

    if (state == VM_PAUSED && m->pausing_why && strcmp(reason, "pause") == 0) {
        reason = m->pausing_why;
    }
    bool reset = strcmp(reason, "guest-reset") == 0 && state != VM_STOPPED && !m->vm->ended;

    if (!reset) { /* which changes no state: the reason for that stays */
        str_copy(m->reason, sizeof(m->reason), reason);
    }
    dump_state_changed(m);
    console_set_running(m->console, state == VM_RUNNING);
    channels_set_running(m);
    gdb_vm_state(m->gdb);
    control_event(m, reset ? "reset" : "state", reason);
    stats_publish(m);
    if (state == VM_RUNNING) {
        disks_resumed(m);
    }
    if (state == VM_STOPPED) {
        loop_quit(m->loop);
    }
}

static void on_panic(void *arg, enum vm_panic what)
{
    static const char *const words[] = {
        [VM_PANIC_END] = "shutdown", [VM_PANIC_PAUSE] = "pause", [VM_PANIC_NONE] = "none"
    };
    struct emu *m = arg;

    control_event(m, "panic",
                  what == VM_PANIC_END && m->vm->end_pauses ? "pause" : words[what]);
}

void emu_quit(struct emu *m, const char *reason)
{
    vm_stop(m->vm, reason);
}

static void on_signal(void *arg, int fd, unsigned events)
{
    struct signalfd_siginfo what;

    (void)events;
    if (read(fd, &what, sizeof(what)) == (ssize_t)sizeof(what)) {
        emu_quit(arg, "quit");
    }
}

/* Before there are threads. Read and not handled, so that no thread is interrupted by them and the sandbox needs none of the
 * calls that handlers need. */
static int take_signals(struct emu *m, struct err *e)
{
    sigset_t quit;

    sigemptyset(&quit);
    sigaddset(&quit, SIGINT);
    sigaddset(&quit, SIGTERM);
    if (sigprocmask(SIG_BLOCK, &quit, NULL) != 0) {
        return err_errno(e, errno, "cannot hold back signals");
    }
    m->signal_fd = signalfd(-1, &quit, SFD_CLOEXEC | SFD_NONBLOCK);
    if (m->signal_fd < 0) {
        return err_errno(e, errno, "cannot read signals");
    }
    m->signals = loop_fd_new(m->loop, m->signal_fd, LOOP_READ, on_signal, m);
    return 0;
}

static void on_escape(void *arg)
{
    emu_quit(arg, "quit");
}

static int open_console(struct emu *m, struct err *e)
{
    int rc = 0;

    if (m->opt.console_log_fd >= 0) {
        console_log_to(m->console, take_fd(&m->opt.console_log_fd));
    }
    if (m->opt.console_fd >= 0) {
        rc = console_listen(m->console, take_fd(&m->opt.console_fd), e);
    }
    if (rc == 0 && m->opt.console == CONSOLE_STDIO) {
        rc = console_stdio(m->console, on_escape, m, e);
    }
    return rc;
}

static int open_gdb(struct emu *m, struct err *e)
{
    AUTO_FD fd = take_fd(&m->opt.gdb_fd);
    int rc;

    if (fd >= 0 && listen(fd, 1) != 0) {
        return err_errno(e, errno, "debugger's socket: listen");
    }
    if (fd < 0 && m->opt.gdb_path) {
        fd = unix_listen(m->opt.gdb_path, 0600, 1, e);
        if (fd < 0) {
            return fd;
        }
    }
    rc = fd >= 0 ? gdb_new(m->vm, fd, true, &m->gdb, e) : 0;
    if (rc == 0) {
        (void)take_fd(&fd);
    }
    return rc;
}

static void take_cookie(struct emu *m)
{
    const char *cookie = getenv("VMD_COOKIE");

    if (cookie) {
        str_copy(m->cookie, sizeof(m->cookie), cookie);
        unsetenv("VMD_COOKIE");
    }
}

static int set_up(struct emu *m, struct err *e)
{
    int rc = config_load(m, e);

    if (rc == 0) {
        rc = confine_process(m, e);
    }
    m->loop = rc == 0 ? loop_new(e) : NULL;
    if (!m->loop) {
        return rc != 0 ? rc : -ENOMEM;
    }
    take_cookie(m);
    m->console = console_new(m->loop);
    rc = take_signals(m, e);
    rc = rc == 0 ? build_vm(m, e) : rc;
    if (rc != 0) {
        return rc;
    }
    rc = observe_start(m, e);
    if (rc != 0) {
        return rc;
    }
    str_copy(m->reason, sizeof(m->reason), "start");
    m->vm->on_state = on_state;
    m->vm->on_state_arg = m;
    m->vm->on_panic = on_panic;
    m->vm->on_vcpu_thread = confine_vcpu_thread;
    m->vm->on_vcpu_thread_arg = m;
    rc = stats_start(m, e);
    if (rc == 0) {
        rc = open_console(m, e);
    }
    if (rc == 0 && m->screen && m->opt.vnc_fd >= 0) {
        rc = screen_listen(m, take_fd(&m->opt.vnc_fd), e);
    }
    if (rc == 0) {
        rc = open_gdb(m, e);
    }
    if (rc == 0) {
        pager_start(m);
    }
    if (rc == 0 && m->opt.control_fd >= 0) {
        rc = control_start(m, e);
    }
    return rc;
}

/* Runs the VM until it has stopped. */
static int run(struct emu *m, struct err *e)
{
    int rc = vm_start(m->vm, e);

    if (rc == 0) {
        rc = confine_thread(m, CONFINE_MAIN, e);
        if (confine_wanted(m)) {
            blk_pool_confine(m->pool);
        }
    }
    if (rc != 0) {
        return rc;
    }
    malloc_trim(0); /* what the start needed: half of the heap, in each VM of a host */
    if (!m->opt.paused) {
        rc = record_begin(m, e);
        if (rc != 0) {
            return rc;
        }
        vm_resume(m->vm);
    }
    rc = loop_run(m->loop, e);
    vm_stop(m->vm, "loop-failed"); /* does nothing when it has stopped */
    record_end(m);
    observe_stopped(m);
    console_flush(m->console);
    if (build_flush_disks(m, e) != 0) {
        rc = -EIO;
    }
    control_drain(m);
    return rc;
}

static void tear_down(struct emu *m)
{
    gdb_free(m->gdb);
    observe_free(m);
    dump_free(m);
    build_done(m);
    screen_free(m);
    control_free(m);
    stats_free(m);
    console_free(m->console);
    loop_fd_free(m->signals);
    fd_autoclose(&m->signal_fd);
    loop_free(m->loop);
    if (m->has_config) {
        api_vm_config_release(&m->config);
    }
    options_done(&m->opt);
}

static enum emu_exit exit_status(const struct emu *m)
{
    static const char *const well[] = { "guest-poweroff", "quit", "guest-reset", "host-reset",
                                        "replay-end" };

    if (record_failed(m)) {
        return EMU_EXIT_INTERNAL;
    }
    if (strcmp(m->reason, "guest-fail") == 0 || strcmp(m->reason, "guest-panic") == 0) {
        return EMU_EXIT_GUEST;
    }
    for (unsigned i = 0; i < ARRAY_LEN(well); i++) {
        if (strcmp(m->reason, well[i]) == 0) {
            return EMU_EXIT_OK;
        }
    }
    return EMU_EXIT_INTERNAL;
}

int main(int argc, char **argv)
{
    struct emu m = { .cookie = "", .signal_fd = -1, .pid = getpid() };
    struct err e = ERR_INIT;
    enum emu_exit status = EMU_EXIT_CONFIG;
    int rc;

    log_init("vmd-emu", LOG_INFO, STDERR_FILENO);
    signal(SIGPIPE, SIG_IGN);
    rc = options_parse(&m.opt, argc, argv, &e);
    if (rc == 0) {
        rc = set_up(&m, &e);
        if (rc == 0) {
            rc = run(&m, &e);
            status = rc == 0             ? exit_status(&m)
                     : record_failed(&m) ? EMU_EXIT_CONFIG
                                         : EMU_EXIT_INTERNAL;
        }
    } else if (rc > 0) {
        status = EMU_EXIT_OK;
        rc = 0;
    }
    tear_down(&m);
    if (rc != 0) {
        fprintf(stderr, "vmd-emu: %s\n", e.msg);
    }
    return (int)status;
}
