/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The command line of vmd-emu. Main thread, before anything else.
 */
#include "devices/registry.h"
#include "engine/base/log.h"
#include "engine/base/mem.h"
#include "engine/base/str.h"
#include "engine/emu/emu.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <string.h>

enum opt {
    OPT_CONFIG = 256,
    OPT_CONFIG_FD,
    OPT_CONTROL_FD,
    OPT_CONSOLE_FD,
    OPT_VNC_FD,
    OPT_CONSOLE_LOG_FD,
    OPT_STATS_FD,
    OPT_LOCK_FD,
    OPT_UFFD_FD,
    OPT_KVM_FD,
    OPT_FILE,
    OPT_NIC,
    OPT_CHANNEL,
    OPT_SHARE,
    OPT_BACKING,
    OPT_DATA,
    OPT_CONSOLE,
    OPT_SET,
    OPT_ICOUNT,
    OPT_PLUGIN,
    OPT_PERF_MAP,
    OPT_PERF_MAP_FD,
    OPT_COVERAGE_FD,
    OPT_PAUSED,
    OPT_VSOCK_FD,
    OPT_VSOCK_CALL_FD,
    OPT_SOUND_FD,
    OPT_SOUND_RING_FD,
    OPT_GDB,
    OPT_GDB_FD,
    OPT_RECORD,
    OPT_RECORD_FD,
    OPT_RECORD_SCRATCH,
    OPT_REPLAY,
    OPT_REPLAY_FD,
    OPT_REPLAY_TO,
    OPT_SANDBOX,
    OPT_DESCRIBE,
    OPT_VERSION,
    OPT_HELP
};

static const struct option long_options[] = {
    { "config", required_argument, NULL, OPT_CONFIG },
    { "config-fd", required_argument, NULL, OPT_CONFIG_FD },
    { "control-fd", required_argument, NULL, OPT_CONTROL_FD },
    { "console-fd", required_argument, NULL, OPT_CONSOLE_FD },
    { "vnc-fd", required_argument, NULL, OPT_VNC_FD },
    { "console-log-fd", required_argument, NULL, OPT_CONSOLE_LOG_FD },
    { "stats-fd", required_argument, NULL, OPT_STATS_FD },
    { "lock-fd", required_argument, NULL, OPT_LOCK_FD },
    { "uffd-fd", required_argument, NULL, OPT_UFFD_FD },
    { "kvm-fd", required_argument, NULL, OPT_KVM_FD },
    { "vsock-fd", required_argument, NULL, OPT_VSOCK_FD },
    { "vsock-call-fd", required_argument, NULL, OPT_VSOCK_CALL_FD },
    { "sound-fd", required_argument, NULL, OPT_SOUND_FD },
    { "sound-ring-fd", required_argument, NULL, OPT_SOUND_RING_FD },
    { "file", required_argument, NULL, OPT_FILE },
    { "nic", required_argument, NULL, OPT_NIC },
    { "channel", required_argument, NULL, OPT_CHANNEL },
    { "share", required_argument, NULL, OPT_SHARE },
    { "backing", required_argument, NULL, OPT_BACKING },
    { "data", required_argument, NULL, OPT_DATA },
    { "console", required_argument, NULL, OPT_CONSOLE },
    { "set", required_argument, NULL, OPT_SET },
    { "icount", optional_argument, NULL, OPT_ICOUNT },
    { "plugin", required_argument, NULL, OPT_PLUGIN },
    { "perf-map", optional_argument, NULL, OPT_PERF_MAP },
    { "perf-map-fd", required_argument, NULL, OPT_PERF_MAP_FD },
    { "coverage-fd", required_argument, NULL, OPT_COVERAGE_FD },
    { "paused", no_argument, NULL, OPT_PAUSED },
    { "gdb", required_argument, NULL, OPT_GDB },
    { "gdb-fd", required_argument, NULL, OPT_GDB_FD },
    { "record", required_argument, NULL, OPT_RECORD },
    { "record-fd", required_argument, NULL, OPT_RECORD_FD },
    { "record-scratch", no_argument, NULL, OPT_RECORD_SCRATCH },
    { "replay", required_argument, NULL, OPT_REPLAY },
    { "replay-fd", required_argument, NULL, OPT_REPLAY_FD },
    { "replay-to", required_argument, NULL, OPT_REPLAY_TO },
    { "sandbox", required_argument, NULL, OPT_SANDBOX },
    { "describe-devices", no_argument, NULL, OPT_DESCRIBE },
    { "version", no_argument, NULL, OPT_VERSION },
    { "help", no_argument, NULL, OPT_HELP },
    { NULL, 0, NULL, 0 },
};

static const char help[] =
    "usage: vmd-emu --config FILE [--set KEY=VALUE]... [--console stdio|none] [-d LETTERS]\n"
    "       vmd-emu --config-fd N --control-fd N --console-fd N [--file PATH=FD]... ...\n"
    "\n"
    "Runs one virtual machine. The first form opens the files that the configuration names; "
    "the\n"
    "second is for the spawner of vmd: everything comes as a descriptor, no path is opened.\n"
    "\n"
    "  --config FILE         configuration (JSON, VmConfig); '-' is standard input\n"
    "  --set KEY=VALUE       changes it: cpus=2, memory=1G, tcg.backend=interp, append='...';\n"
    "                        an empty value puts the default back\n"
    "  --console stdio|none  where the console goes; on a terminal Ctrl-] quits (default: "
    "stdio)\n"
    "  --icount[=N]          deterministic instruction clock, 2^N ns an instruction (default "
    "0);\n"
    "                        the same as --set tcg.icount=N\n"
    "  --plugin FILE[,ARG]...  loads a plugin (docs/guide/plugins.md)\n"
    "  --perf-map[=FILE]     names translated code for perf, in /tmp/perf-PID.map by default\n"
    "  --perf-map-fd, --coverage-fd N  the same on a descriptor; the file of tcg.coverage\n"
    "  --paused              the guest waits for emu.resume\n"
    "  --gdb PATH            serves GDB on a unix socket there ('target remote PATH'); a\n"
    "                        debugger that connects stops the guest\n"
    "  --gdb-fd N            the same on a bound socket\n"
    "  --record FILE         records what enters the machine (docs/guide/replay.md)\n"
    "  --record-scratch      ... and leaves its disks as they are: what it writes goes at its "
    "end\n"
    "  --replay FILE         runs it as it was recorded; ends where the recording ends\n"
    "  --replay-to COUNT     ... pauses at that count of instructions\n"
    "  --record-fd, --replay-fd N  the same on a descriptor\n"
    "  --sandbox MODE        off, on, or require (fails without); default: on in the second "
    "form\n"
    "  --config-fd, --control-fd, --console-fd, --console-log-fd, --vnc-fd, --stats-fd,\n"
    "  --lock-fd, --uffd-fd, --kvm-fd, --vsock-fd, --vsock-call-fd, --sound-fd, "
    "--sound-ring-fd N  (uffd: /dev/userfaultfd; kvm:\n"
    "                        /dev/kvm; vsock: the bound socket for calls to the guest, the way "
    "of\n"
    "                        its own calls)\n"
    "  --file PATH=FD        a file of the configuration, already open\n"
    "  --nic NAME=FD         the connected socket of a network card\n"
    "  --channel NAME=FD     the bound socket of a channel\n"
    "  --share TAG=FD        the connected socket of a shared folder's server\n"
    "  --backing FORMAT:PATH=FD, --data PATH=FD  what the image before it names: its backing "
    "file,\n"
    "                        its external data file\n"
    "  -d LETTERS            logs: i o h guest code, IR and host code of new blocks, e "
    "exceptions\n"
    "                        and interrupts, m device registers, u odd device use, v virtio\n"
    "  --describe-devices    prints the device reference (Markdown)\n"
    "  --version, --help\n"
    "\n"
    "Exit status: 0 guest power-off or quit, 1 configuration, 2 the guest reported failure,\n"
    "3 internal failure.\n";

static int parse_fd(const char *text, const char *what, int *fd, struct err *e)
{
    uint64_t n;
    int rc = str_to_u64(text, 0, 1 << 20, what, &n, e);

    if (rc != 0) {
        return rc;
    }
    if (fcntl((int)n, F_GETFD) < 0) {
        return err_errno(e, errno, "%s: descriptor %d", what, (int)n);
    }
    (void)fcntl((int)n, F_SETFD, FD_CLOEXEC);
    *fd = (int)n;
    return 0;
}

static int parse_file(struct emu_options *o, enum emu_role role, const char *text,
                      struct err *e)
{
    static const char *const option[] = { "--file", "--backing", "--data" };
    const char *eq = strrchr(text, '='), *path = text;
    int fd = -1, rc;

    if (role == EMU_BACKING) {
        path = strchr(text, ':');
        path = path ? path + 1 : NULL;
    }
    if (!eq || !path || eq <= path) {
        return err_set(e, -EINVAL, "%s %s: expected %sPATH=FD", option[role], text,
                       role == EMU_BACKING ? "FORMAT:" : "");
    }
    if (role != EMU_FILE && o->n_files == 0) {
        return err_set(e, -EINVAL, "%s %s: there is no --file before it", option[role], text);
    }
    rc = parse_fd(eq + 1, option[role], &fd, e);
    if (rc != 0) {
        return rc;
    }
    o->files = xrealloc_n(o->files, o->n_files + 1, sizeof(*o->files));
    o->files[o->n_files++] = (struct emu_file){
        .path = xstrndup(path, (size_t)(eq - path)),
        .fd = fd,
        .role = role,
        .format = path > text ? xstrndup(text, (size_t)(path - text - 1)) : NULL,
    };
    return 0;
}

/* NAME=FD at the end of a list. */
static int parse_named(const char *option, const char *text, struct emu_file **list,
                       unsigned *n, struct err *e)
{
    const char *eq = strrchr(text, '=');
    int fd = -1, rc;

    if (!eq || eq == text) {
        return err_set(e, -EINVAL, "%s %s: expected NAME=FD", option, text);
    }
    rc = parse_fd(eq + 1, option, &fd, e);
    if (rc != 0) {
        return rc;
    }
    *list = xrealloc_n(*list, *n + 1, sizeof(**list));
    (*list)[(*n)++] = (struct emu_file){ .path = xstrndup(text, (size_t)(eq - text)),
                                         .fd = fd };
    return 0;
}

/* Index of a word in a list ended by NULL; -EINVAL names the choices. */
static int parse_word(const char *text, const char *const *words, const char *what,
                      struct err *e)
{
    AUTO_BUF all = BUF_INIT;

    for (int i = 0; words[i]; i++) {
        if (strcmp(words[i], text) == 0) {
            return i;
        }
        buf_printf(&all, "%s%s", i ? ", " : "", words[i]);
    }
    return err_set(e, -EINVAL, "%s %s: expected one of %s", what, text, all.data);
}

static int say(int opt)
{
    AUTO_BUF b = BUF_INIT;

    if (opt == OPT_HELP) {
        buf_add_str(&b, help);
    } else if (opt == OPT_VERSION) {
        buf_printf(&b, "vmd-emu %s\n", PACKAGE_VERSION);
    } else {
        devices_describe(&b);
    }
    return fwrite(b.data, 1, b.len, stdout) == b.len && fflush(stdout) == 0 ? 1 : -EIO;
}

static int icount_option(struct emu_options *o, const char *arg, struct err *e)
{
    uint64_t n;
    int rc = str_to_u64(arg, 0, 10, "--icount", &n, e);

    if (rc == 0) {
        free(o->icount_set);
        o->icount_set = xasprintf("tcg.icount=%u", (unsigned)n);
    }
    return rc;
}

/* Options that are a descriptor. */
#define FD(o, n, m)                                                                            \
    {                                                                                          \
        o, n, offsetof(struct emu_options, m)                                                  \
    }
static const struct {
    int opt;
    const char *name;
    size_t at;
} fd_options[] = {
    FD(OPT_CONFIG_FD, "--config-fd", config_fd),
    FD(OPT_CONTROL_FD, "--control-fd", control_fd),
    FD(OPT_CONSOLE_FD, "--console-fd", console_fd),
    FD(OPT_VNC_FD, "--vnc-fd", vnc_fd),
    FD(OPT_CONSOLE_LOG_FD, "--console-log-fd", console_log_fd),
    FD(OPT_STATS_FD, "--stats-fd", stats_fd),
    FD(OPT_LOCK_FD, "--lock-fd", lock_fd),
    FD(OPT_UFFD_FD, "--uffd-fd", uffd_fd),
    FD(OPT_KVM_FD, "--kvm-fd", kvm_fd),
    FD(OPT_VSOCK_FD, "--vsock-fd", vsock_fd),
    FD(OPT_VSOCK_CALL_FD, "--vsock-call-fd", vsock_call_fd),
    FD(OPT_SOUND_FD, "--sound-fd", sound_fd),
    FD(OPT_SOUND_RING_FD, "--sound-ring-fd", sound_ring_fd),
    FD(OPT_PERF_MAP_FD, "--perf-map-fd", perf_map_fd),
    FD(OPT_COVERAGE_FD, "--coverage-fd", coverage_fd),
    FD(OPT_GDB_FD, "--gdb-fd", gdb_fd),
};

static int tape_option(struct emu_options *o, bool replay, const char *path, int fd,
                       struct err *e)
{
    if (o->record || o->replay) {
        return err_set(e, -EINVAL, "a VM has one recording: give --record or --replay, once");
    }
    o->record = !replay;
    o->replay = replay;
    o->record_path = path ? path : "of --record-fd";
    o->record_fd = fd;
    return 0;
}

static int parse_one(struct emu_options *o, int opt, const char *arg, struct err *e)
{
    static const char *const consoles[] = { "none", "stdio", NULL };
    static const char *const sandboxes[] = { "off", "on", "require", NULL };
    int rc = 0, fd;

    for (unsigned i = 0; i < ARRAY_LEN(fd_options); i++) {
        if (fd_options[i].opt == opt) {
            return parse_fd(arg, fd_options[i].name, (int *)((char *)o + fd_options[i].at), e);
        }
    }
    switch (opt) {
    case OPT_CONFIG:
        o->config_path = arg;
        return 0;
    case OPT_FILE:
        return parse_file(o, EMU_FILE, arg, e);
    case OPT_NIC:
        return parse_named("--nic", arg, &o->nics, &o->n_nics, e);
    case OPT_CHANNEL:
        return parse_named("--channel", arg, &o->channels, &o->n_channels, e);
    case OPT_SHARE:
        return parse_named("--share", arg, &o->shares, &o->n_shares, e);
    case OPT_BACKING:
        return parse_file(o, EMU_BACKING, arg, e);
    case OPT_DATA:
        return parse_file(o, EMU_DATA, arg, e);
    case OPT_SET:
        o->sets = xrealloc_n(o->sets, o->n_sets + 1, sizeof(*o->sets));
        o->sets[o->n_sets++] = arg;
        return 0;
    case OPT_ICOUNT:
        return icount_option(o, arg ? arg : "0", e);
    case OPT_PLUGIN:
        o->plugins = xrealloc_n(o->plugins, o->n_plugins + 1, sizeof(*o->plugins));
        o->plugins[o->n_plugins++] = arg;
        return 0;
    case OPT_PERF_MAP:
        o->perf_map = arg ? arg : "";
        return 0;
    case OPT_CONSOLE:
        rc = parse_word(arg, consoles, "--console", e);
        o->console = CONSOLE_NONE + (unsigned)(rc < 0 ? 0 : rc);
        return rc < 0 ? rc : 0;
    case OPT_SANDBOX:
        rc = parse_word(arg, sandboxes, "--sandbox", e);
        o->sandbox = SANDBOX_OFF + (unsigned)(rc < 0 ? 0 : rc);
        return rc < 0 ? rc : 0;
    case OPT_GDB:
        o->gdb_path = arg;
        return 0;
    case OPT_RECORD:
    case OPT_REPLAY:
        return tape_option(o, opt == OPT_REPLAY, arg, -1, e);
    case OPT_RECORD_FD:
    case OPT_REPLAY_FD:
        rc = parse_fd(arg, opt == OPT_RECORD_FD ? "--record-fd" : "--replay-fd", &fd, e);
        return rc != 0 ? rc : tape_option(o, opt == OPT_REPLAY_FD, NULL, fd, e);
    case OPT_RECORD_SCRATCH:
        o->record_scratch = true;
        return 0;
    case OPT_REPLAY_TO:
        o->has_replay_to = true;
        return str_to_u64(arg, 0, UINT64_MAX - 1, "--replay-to", &o->replay_to, e);
    case OPT_PAUSED:
        o->paused = true;
        return 0;
    case 'd':
        log_set_trace(arg);
        return 0;
    case OPT_DESCRIBE:
    case OPT_VERSION:
    case OPT_HELP:
        return say(opt);
    default:
        return err_set(e, -EINVAL, "unknown option or missing argument; see vmd-emu --help");
    }
}

int options_parse(struct emu_options *o, int argc, char **argv, struct err *e)
{
    int opt, rc = 0;

    *o = (struct emu_options){ .config_fd = -1,
                               .control_fd = -1,
                               .console_fd = -1,
                               .vnc_fd = -1,
                               .console_log_fd = -1,
                               .stats_fd = -1,
                               .lock_fd = -1,
                               .uffd_fd = -1,
                               .kvm_fd = -1,
                               .vsock_fd = -1,
                               .vsock_call_fd = -1,
                               .sound_fd = -1,
                               .sound_ring_fd = -1,
                               .gdb_fd = -1,
                               .record_fd = -1,
                               .perf_map_fd = -1,
                               .coverage_fd = -1 };
    opterr = 0;
    while (rc == 0 && (opt = getopt_long(argc, argv, "d:", long_options, NULL)) != -1) {
        rc = parse_one(o, opt, optarg, e);
    }
    if (rc != 0) {
        return rc;
    }
    if (o->icount_set) {
        o->sets = xrealloc_n(o->sets, o->n_sets + 1, sizeof(*o->sets));
        o->sets[o->n_sets++] = o->icount_set;
    }
    if (optind < argc) {
        return err_set(e, -EINVAL, "unexpected argument '%s'; see vmd-emu --help",
                       argv[optind]);
    }
    if ((o->config_path != NULL) == (o->config_fd >= 0)) {
        return err_set(e, -EINVAL,
                       "give either --config FILE or --config-fd N; see vmd-emu --help");
    }
    if (o->has_replay_to && !o->replay) {
        return err_set(e, -EINVAL, "--replay-to needs --replay");
    }
    if ((o->record || o->replay) && o->config_fd >= 0 && o->record_fd < 0) {
        return err_set(e, -EINVAL,
                       "--record and --replay open a path: with --config-fd use "
                       "--record-fd and --replay-fd");
    }
    if (o->gdb_path && o->config_fd >= 0) {
        return err_set(e, -EINVAL, "--gdb opens a path: with --config-fd use --gdb-fd");
    }
    if (o->console == CONSOLE_DEFAULT) {
        o->console = o->console_fd >= 0 || o->config_fd >= 0 ? CONSOLE_NONE : CONSOLE_STDIO;
    }
    if (o->sandbox == SANDBOX_DEFAULT) {
        o->sandbox = o->config_fd >= 0 ? SANDBOX_ON : SANDBOX_OFF;
    }
    return 0;
}

void options_done(struct emu_options *o)
{
    free(o->icount_set);
    for (unsigned i = 0; i < o->n_files; i++) {
        free(o->files[i].path);
        free(o->files[i].format);
    }
    free(o->files);
    for (unsigned i = 0; i < o->n_nics; i++) {
        free(o->nics[i].path);
    }
    free(o->nics);
    for (unsigned i = 0; i < o->n_channels; i++) {
        free(o->channels[i].path);
    }
    free(o->channels);
    for (unsigned i = 0; i < o->n_shares; i++) {
        free(o->shares[i].path);
    }
    free(o->shares);
    free(o->sets);
    free(o->plugins);
}
