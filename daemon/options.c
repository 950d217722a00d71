/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The command line of vmd, and the folders that follow from it. No state.
 */
#include "daemon/daemon.h"
#include "daemon/spawn/proto.h"
#include "engine/base/fd.h"
#include "engine/base/mem.h"

#include <errno.h>
#include <getopt.h>
#include <grp.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define LONGEST_NAME "/" SPAWN_VM_DIR "/1234567890/" VM_CONTROL

static const char usage[] =
    "usage: vmd [options]\n"
    "\n"
    "Runs virtual machines: serves the API on a unix socket, keeps definitions in a store, "
    "starts\n"
    "and watches one emulator for each VM. If vmd ends, the VMs run on and the next vmd takes "
    "them up.\n"
    "\n"
    "  --dir DIR          private daemon: DIR/run/vmd.sock, DIR/lib/vmd.db\n"
    "  --socket PATH      unix socket (default: /run/vmd/vmd.sock, of a user "
    "$XDG_RUNTIME_DIR/vmd/vmd.sock)\n"
    "  --socket-ro PATH   a second socket, for looking only\n"
    "  --store PATH       database (default: /var/lib/vmd/vmd.db, of a user "
    "~/.local/share/vmd/vmd.db)\n"
    "  --emulator PATH    emulator to start (default: the vmd-emu that was built with this "
    "vmd)\n"
    "  --plugin-dir DIR   VMs may load plugins of this folder (tcg.plugins); below /usr/lib, so "
    "that\n"
    "                     confined emulators see it\n"
    "  --foreground       stay in the foreground (the default; there is no other mode)\n"
    "  --log FILE         write the log there instead of standard error\n"
    "  --restore FILE     put a backup (vmctl host backup) in the place of the store, then end; the "
    "former\n"
    "                     store stays beside it as STORE.before-restore\n"
    "  --version          print the version and end\n"
    "  --help             print this and end\n"
    "\n"
    "A service manager may hand over listening sockets (LISTEN_FDS) and is told when vmd is "
    "ready\n"
    "(NOTIFY_SOCKET). SIGTERM ends vmd, not the VMs.\n";

static void set(char **at, char *take)
{
    free(*at);
    *at = take;
}

/* Beside this program (a build folder) or where `make install` puts it. */
static char *find_helper(const char *name)
{
    char exe[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", exe, sizeof(exe) - 1);
    if (n > 0) {
        exe[n] = 0;
        AUTO_FREE char *beside = xasprintf("%s/%s", dirname(exe), name);
        if (access(beside, X_OK) == 0) {
            return take_ptr(beside);
        }
    }
    return xasprintf("%s/%s", VMD_PKGLIBEXECDIR, name);
}

static int fill_user(struct vmd_options *o)
{
    const char *runtime = getenv("XDG_RUNTIME_DIR"), *home = getenv("HOME");
    const char *data = getenv("XDG_DATA_HOME");
    if (!o->run && !runtime) {
        fprintf(stderr, "vmd: XDG_RUNTIME_DIR is not set; give --dir DIR\n");
        return -1;
    }
    if (!o->store && !data && !home) {
        fprintf(stderr, "vmd: HOME is not set; give --dir DIR\n");
        return -1;
    }
    if (!o->run) {
        o->run = xasprintf("%s/vmd", runtime);
    }
    if (!o->store) {
        o->store = data ? xasprintf("%s/vmd/vmd.db", data)
                        : xasprintf("%s/.local/share/vmd/vmd.db", home);
    }
    return 0;
}

static int fill(struct vmd_options *o, const char *dir)
{
    if (dir) {
        char full[PATH_MAX];
        if (mkdir(dir, 0700) < 0 && errno != EEXIST) {
            fprintf(stderr, "vmd: cannot make folder '%s': %s\n", dir, strerror(errno));
            return -1;
        }
        if (!realpath(dir, full)) {
            fprintf(stderr, "vmd: '%s': %s\n", dir, strerror(errno));
            return -1;
        }
        set(&o->run, xasprintf("%s/run", full));
        set(&o->store, o->store ? take_ptr(o->store) : xasprintf("%s/lib/vmd.db", full));
    } else if (geteuid() == 0) {
        set(&o->run, xstrdup("/run/vmd"));
        set(&o->store,
            o->store ? take_ptr(o->store) : xstrdup(VMD_LOCALSTATEDIR "/lib/vmd/vmd.db"));
    } else if (fill_user(o) < 0) {
        return -1;
    }
    AUTO_FREE char *copy = xstrdup(o->store);
    set(&o->lib, xstrdup(dirname(copy)));
    set(&o->socket, o->socket ? take_ptr(o->socket) : xasprintf("%s/vmd.sock", o->run));
    set(&o->emulator, o->emulator ? take_ptr(o->emulator) : find_helper("vmd-emu"));
    set(&o->spawn, find_helper("vmd-spawn"));
    return 0;
}

int options_parse(struct vmd_options *o, int argc, char **argv)
{
    static const struct option options[] = {
        { "dir", required_argument, NULL, 'd' },
        { "socket", required_argument, NULL, 's' },
        { "socket-ro", required_argument, NULL, 'r' },
        { "store", required_argument, NULL, 'b' },
        { "emulator", required_argument, NULL, 'e' },
        { "plugin-dir", required_argument, NULL, 'p' },
        { "foreground", no_argument, NULL, 'f' },
        { "log", required_argument, NULL, 'l' },
        { "restore", required_argument, NULL, 'R' },
        { "version", no_argument, NULL, 'v' },
        { "help", no_argument, NULL, 'h' },
        { NULL, 0, NULL, 0 },
    };
    const char *dir = NULL;
    int opt;
    while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (opt) {
        case 'd':
            dir = optarg;
            break;
        case 's':
            set(&o->socket, xstrdup(optarg));
            break;
        case 'r':
            set(&o->socket_ro, xstrdup(optarg));
            break;
        case 'b':
            set(&o->store, xstrdup(optarg));
            break;
        case 'e':
            set(&o->emulator, xstrdup(optarg));
            break;
        case 'l':
            set(&o->log, xstrdup(optarg));
            break;
        case 'p':
            set(&o->plugin_dir, realpath(optarg, NULL));
            if (!o->plugin_dir) {
                fprintf(stderr, "vmd: --plugin-dir '%s': %s\n", optarg, strerror(errno));
                return -1;
            }
            break;
        case 'f':
            break;
        case 'R':
            set(&o->restore, xstrdup(optarg));
            break;
        case 'v':
            printf("vmd %s\n", PACKAGE_VERSION);
            return 1;
        case 'h':
            fputs(usage, stdout);
            return 1;
        default:
            fprintf(stderr, "'vmd --help' shows the options\n");
            return -1;
        }
    }
    if (optind < argc) {
        fprintf(stderr, "vmd: '%s' is not an option; 'vmd --help' shows them\n", argv[optind]);
        return -1;
    }
    return fill(o, dir);
}

static int make_folder(const char *path, unsigned mode, struct err *e)
{
    AUTO_FREE char *copy = xstrdup(path);
    for (char *p = copy + 1; *p; p++) {
        if (*p == '/') {
            *p = 0;
            mkdir(copy, 0755);
            *p = '/';
        }
    }
    if (mkdir(path, mode) < 0 && errno != EEXIST) {
        return err_errno(e, errno, "cannot make folder '%s' as uid %u", path, geteuid());
    }
    if (access(path, R_OK | W_OK | X_OK) < 0) {
        return err_errno(e, errno, "uid %u cannot use folder '%s'", geteuid(), path);
    }
    return 0;
}

/* The operators' group, where there is one, may enter, and has what is made in it. */
static void give_group(const char *path)
{
    struct group *g = geteuid() == 0 ? getgrnam("vmd") : NULL;
    if (g && (chown(path, (uid_t)-1, g->gr_gid) < 0 || chmod(path, 02750) < 0)) {
        fprintf(stderr, "vmd: cannot give '%s' to group vmd: %s\n", path, strerror(errno));
    }
}

int options_folders(const struct vmd_options *o, struct err *e)
{
    struct sockaddr_un at;
    if (strlen(o->run) + strlen(LONGEST_NAME) >= sizeof(at.sun_path)) {
        return err_set(e, -ENAMETOOLONG,
                       "folder '%s' has too long a name for sockets in it (%zu bytes at most); "
                       "choose a shorter --dir",
                       o->run, sizeof(at.sun_path) - strlen(LONGEST_NAME) - 1);
    }
    AUTO_FREE char *run_vm = xasprintf("%s/%s", o->run, SPAWN_VM_DIR);
    AUTO_FREE char *lib_vm = xasprintf("%s/%s", o->lib, SPAWN_VM_DIR);
    int rc = make_folder(o->run, 0750, e);
    if (rc == 0) {
        rc = make_folder(run_vm, 0750, e);
    }
    if (rc == 0) {
        rc = make_folder(o->lib, 0750, e);
    }
    if (rc == 0) {
        rc = make_folder(lib_vm, 0750, e);
    }
    if (rc == 0) {
        give_group(o->run);
        give_group(run_vm);
    }
    return rc;
}

void options_done(struct vmd_options *o)
{
    set(&o->run, NULL);
    set(&o->lib, NULL);
    set(&o->socket, NULL);
    set(&o->socket_ro, NULL);
    set(&o->store, NULL);
    set(&o->emulator, NULL);
    set(&o->spawn, NULL);
    set(&o->log, NULL);
    set(&o->plugin_dir, NULL);
    set(&o->restore, NULL);
}
