/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The command line of vmd, its configuration file, and the folders that follow from them. Each setting
 * is a row of one table: an option `--name VALUE` and a line `name = value` of the file, where the
 * command line wins. No state.
 */
#include "api-schema/tls/tls.h"
#include "daemon/daemon.h"
#include "daemon/spawn/proto.h"
#include "engine/base/buf.h"
#include "engine/base/fd.h"
#include "engine/base/mem.h"
#include "engine/base/str.h"

#include <errno.h>
#include <getopt.h>
#include <grp.h>
#include <libgen.h>
#include <limits.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define LONGEST_NAME "/" SPAWN_VM_DIR "/1234567890/" VM_CONTROL

#define CONFIG_MAX 65536
#define SYSTEM_CONFIG "/etc/vmd/vmd.conf"

enum kind { TEXT, FOLDER, SWITCH, NUMBER, SIZE, LISTEN, IMAGE_DIR, WEB };

/* A setting of daemon.h's struct vmd_options. `doc` is its help, lines apart by \n. */
struct setting {
    const char *name, *arg;
    enum kind kind;
    size_t at;
    int64_t min, max; /* NUMBER */
    const char *doc;
};

#define AT(member) offsetof(struct vmd_options, member)
static const struct setting settings[] = {
    { "socket", "PATH", TEXT, AT(socket), 0, 0,
      "unix socket (default: /run/vmd/vmd.sock, of a user\n$XDG_RUNTIME_DIR/vmd/vmd.sock)" },
    { "socket-ro", "PATH", TEXT, AT(socket_ro), 0, 0, "a second socket, for looking only" },
    { "libvirt", "PATH|off", TEXT, AT(libvirt), 0, 0,
      "socket for libvirt's own protocol: virsh -c\n'qemu:///system?socket=PATH' (default: "
      "libvirt-sock beside the socket)" },
    { "libvirt-tls", "HOST[:PORT]", TEXT, AT(libvirt_tls), 0, 0,
      "speak libvirt's protocol by TLS there, port 16514 by default, to\nwhoever --listen "
      "would "
      "let in: virsh -c qemu+tls://HOST/system" },
    { "libvirt-ro", "PATH", TEXT, AT(libvirt_ro), 0, 0,
      "the same, for looking only (virsh -r)" },
    { "store", "PATH", TEXT, AT(store), 0, 0,
      "database (default: /var/lib/vmd/vmd.db, of a user\n~/.local/share/vmd/vmd.db)" },
    { "emulator", "PATH", TEXT, AT(emulator), 0, 0,
      "emulator to start (default: the vmd-emu that was built with\nthis vmd)" },
    { "plugin-dir", "DIR", FOLDER, AT(plugin_dir), 0, 0,
      "VMs may load plugins of this folder (tcg.plugins); below\n/usr/lib, so that confined "
      "emulators see it" },
    { "image-dir", "DIR", IMAGE_DIR, AT(image_dir), 0, 0,
      "images may have their backing and data files there, besides\nthe folder of the disk's "
      "own image; may stand "
      "several times" },
    { "require-sandbox", NULL, SWITCH, AT(require_sandbox), 0, 0,
      "refuse to start VMs where a layer of confinement is missing" },
    { "metrics", "PATH|PORT", TEXT, AT(metrics), 0, 0,
      "serve metrics for Prometheus on this unix socket, or on this\nport of 127.0.0.1" },
    { "cgroup", "auto|off|DIR", TEXT, AT(cgroup), 0, 0,
      "control group (version 2) below which VMs with limits are put\n(default: auto, vmd's "
      "own)" },
    { "memory-overcommit", "PERCENT", NUMBER, AT(memory_overcommit), 0, 100000,
      "memory of all VMs that run, in percent of the host's; a start\nbeyond it is refused "
      "(default: 0, no bound)" },
    { "cpu-overcommit", "PERCENT", NUMBER, AT(cpu_overcommit), 0, 1000000,
      "the same for vCPUs and the host's CPUs (default: 0, no bound)" },
    { "balloon-low", "PERCENT", NUMBER, AT(balloon_low), 1, 100,
      "below so much available memory of the host, balloons in the\nautomatic mode take from "
      "their guests (default: 10)" },
    { "balloon-high", "PERCENT", NUMBER, AT(balloon_high), 1, 100,
      "above so much they give back (default: 20)" },
    { "listen", "HOST[:PORT]", LISTEN, AT(listen), 0, 0,
      "accept TLS there, port 16515 by default, * is every address;\nmay stand several times. "
      "Without it vmd listens on no network" },
    { "web", "HOST[:PORT]", WEB, AT(web), 0, 0,
      "serve the web console there, port 16516 by default, by TLS and to\nwhoever has a token "
      "('vmctl token create'); default: off" },
    { "web-modules", "DIR", FOLDER, AT(web_modules), 0, 0,
      "a folder node_modules in which its noVNC and xterm.js are looked\nfor first" },
    { "tls-dir", "DIR", TEXT, AT(tls_dir), 0, 0,
      "the daemon's own certificate authority (default: tls beside\nthe store)" },
    { "tls-ca", "FILE", TEXT, AT(tls_ca), 0, 0,
      "certificates of an authority of yours instead (PEM), with\n--tls-cert and --tls-key" },
    { "tls-cert", "FILE", TEXT, AT(tls_cert), 0, 0, "the daemon's certificate and its chain" },
    { "tls-key", "FILE", TEXT, AT(tls_key), 0, 0, "its private key" },
    { "tls-crl", "FILE", TEXT, AT(tls_crl), 0, 0, "revocation lists of that authority" },
    { "tls-max", "N", NUMBER, AT(tls_max), 1, 10000,
      "most TLS connections in all (default: 256)" },
    { "tls-max-peer", "N", NUMBER, AT(tls_max_peer), 1, 10000,
      "most TLS connections from one address (default: 128)" },
    { "image-quota", "SIZE", SIZE, AT(image_quota), 0, 0,
      "most bytes of images that a project may keep (default: as\nthe disk has room)" },
    { "helper-timeout", "SECONDS", NUMBER, AT(helper_timeout), 1, 300,
      "how long opening the files of a VM may take before the helper\nthat hangs at it is "
      "replaced (default: 25)" },
    { "log", "FILE", TEXT, AT(log), 0, 0, "write the log there instead of standard error" },
};

static const char usage_head[] =
    "usage: vmd [options]\n"
    "\n"
    "Runs virtual machines: serves the API on a unix socket, keeps definitions in a store, "
    "starts\n"
    "and watches one emulator for each VM. If vmd ends, the VMs run on and the next vmd takes "
    "them up.\n"
    "\n"
    "  --dir DIR              private daemon: DIR/run/vmd.sock, DIR/lib/vmd.db, DIR/vmd.conf\n"
    "  --config FILE          configuration: lines 'name = value', where each name is one of "
    "the\n"
    "                         options from --socket on (default: " SYSTEM_CONFIG ", of a "
    "user\n"
    "                         $XDG_CONFIG_HOME/vmd/vmd.conf, when it is there)\n"
    "  --restore FILE         put a backup (vmctl host backup) in the place of the store, then "
    "end;\n"
    "                         the former store stays beside it as STORE.before-restore\n"
    "  --foreground           stay in the foreground (the default; there is no other mode)\n"
    "  --version              print the version and end\n"
    "  --help                 print this and end\n"
    "\n";

static const char usage_tail[] =
    "\n"
    "A service manager may hand over listening sockets (LISTEN_FDS) and is told when vmd is "
    "ready\n"
    "(NOTIFY_SOCKET). SIGTERM ends vmd, not the VMs.\n";

static void print_usage(void)
{
    fputs(usage_head, stdout);
    for (unsigned i = 0; i < ARRAY_LEN(settings); i++) {
        const struct setting *t = &settings[i];
        AUTO_FREE char *name = xasprintf("--%s %s", t->name, t->arg ? t->arg : "");
        AUTO_FREE char *doc = xstrdup(t->doc);
        char *rest = doc;
        printf("  %-22s %s\n", name, strsep(&rest, "\n"));
        while (rest) {
            printf("  %-22s %s\n", "", strsep(&rest, "\n"));
        }
    }
    fputs(usage_tail, stdout);
}

static void set(char **at, char *take)
{
    free(*at);
    *at = take;
}

/* Beside this program (a build folder) or where `make install` puts it. */
static char *find_helper(const char *name, const char *folder)
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
    return xasprintf("%s/%s", folder, name);
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
    set(&o->libvirt, o->libvirt ? take_ptr(o->libvirt) : xasprintf("%s/libvirt-sock", o->run));
    set(&o->socket, o->socket ? take_ptr(o->socket) : xasprintf("%s/vmd.sock", o->run));
    set(&o->emulator,
        o->emulator ? take_ptr(o->emulator) : find_helper("vmd-emu", VMD_PKGLIBEXECDIR));
    set(&o->spawn, find_helper("vmd-spawn", VMD_PKGLIBEXECDIR));
    set(&o->image, find_helper("vmd-image", VMD_PKGLIBEXECDIR));
    set(&o->state, find_helper("vmd-state", VMD_PKGLIBEXECDIR));
    set(&o->vmctl, find_helper("vmctl", VMD_BINDIR));
    return 0;
}

static int add_listen(struct vmd_options *o, const char *text, const char *where)
{
    struct err e = ERR_INIT;
    AUTO_FREE char *host = NULL;
    int port;
    if (o->n_listen == ARRAY_LEN(o->listen)) {
        fprintf(stderr, "vmd: %slisten stands more than %zu times\n", where,
                ARRAY_LEN(o->listen));
        return -1;
    }
    if (tls_parse_address(text, &host, &port, &e) < 0) {
        fprintf(stderr, "vmd: %slisten: %s\n", where, e.msg);
        return -1;
    }
    o->listen[o->n_listen++] = xstrdup(text);
    return 0;
}

static int set_web(struct vmd_options *o, const char *text, const char *where)
{
    struct err e = ERR_INIT;
    AUTO_FREE char *host = NULL;
    int port;
    if (strcmp(text, "off") == 0) {
        set(&o->web, NULL);
        return 0;
    }
    if (tls_parse_address_at(text, WEB_PORT, &host, &port, &e) < 0) {
        fprintf(stderr, "vmd: %sweb: %s\n", where, e.msg);
        return -1;
    }
    set(&o->web, xasprintf(strchr(host, ':') ? "[%s]:%d" : "%s:%d", host, port));
    return 0;
}

static int add_image_dir(struct vmd_options *o, const char *text, const char *where)
{
    struct stat st;
    if (o->n_image_dir == ARRAY_LEN(o->image_dir)) {
        fprintf(stderr, "vmd: %simage-dir stands more than %zu times\n", where,
                ARRAY_LEN(o->image_dir));
        return -1;
    }
    if (stat(text, &st) < 0 || !S_ISDIR(st.st_mode)) {
        fprintf(stderr, "vmd: %simage-dir '%s': there is no such folder\n", where, text);
        return -1;
    }
    char *real = realpath(text, NULL);
    if (!real) {
        fprintf(stderr, "vmd: %simage-dir '%s': %s\n", where, text, strerror(errno));
        return -1;
    }
    o->image_dir[o->n_image_dir++] = real;
    return 0;
}

/* Gives one setting its value; `where` begins the message. */
static int apply(struct vmd_options *o, const struct setting *t, const char *value,
                 const char *where)
{
    void *at = (char *)o + t->at;
    struct err e = ERR_INIT;
    uint64_t number;
    switch (t->kind) {
    case TEXT:
        if (!value[0]) {
            fprintf(stderr, "vmd: %s'%s' has no value\n", where, t->name);
            return -1;
        }
        set(at, xstrdup(value));
        return 0;
    case FOLDER:
        set(at, realpath(value, NULL));
        if (!*(char **)at) {
            fprintf(stderr, "vmd: %s--%s '%s': %s\n", where, t->name, value, strerror(errno));
            return -1;
        }
        return 0;
    case SWITCH:
        if (strcmp(value, "on") != 0 && strcmp(value, "off") != 0) {
            fprintf(stderr, "vmd: %s'%s' is on or off, not '%s'\n", where, t->name, value);
            return -1;
        }
        *(bool *)at = strcmp(value, "on") == 0;
        return 0;
    case WEB:
        return set_web(o, value, where);
    case LISTEN:
        return add_listen(o, value, where);
    case IMAGE_DIR:
        return add_image_dir(o, value, where);
    case SIZE:
        if (str_to_size(value, t->name, &number, &e) < 0 || number > INT64_MAX) {
            fprintf(stderr, "vmd: %s%s\n", where, e.code ? e.msg : "that is too much");
            return -1;
        }
        *(int64_t *)at = (int64_t)number;
        return 0;
    case NUMBER:
        if (str_to_u64(value, (uint64_t)t->min, (uint64_t)t->max, t->name, &number, &e) < 0) {
            fprintf(stderr, "vmd: %s%s\n", where, e.msg);
            return -1;
        }
        *(int64_t *)at = (int64_t)number;
        return 0;
    }
    return -1;
}

/* ---- the configuration file ---- */

static char *trim(char *s)
{
    while (*s == ' ' || *s == '\t') {
        s++;
    }
    size_t n = strlen(s);
    while (n > 0 && strchr(" \t\r", s[n - 1])) {
        s[--n] = 0;
    }
    return s;
}

static int apply_line(struct vmd_options *o, char *line, const char *where, unsigned given)
{
    char *value = strchr(line, '=');
    if (!value) {
        fprintf(stderr, "vmd: %sexpected 'name = value', not '%s'\n", where, line);
        return -1;
    }
    *value++ = 0;
    const char *name = trim(line);
    for (unsigned i = 0; i < ARRAY_LEN(settings); i++) {
        if (strcmp(settings[i].name, name) == 0) {
            return given & (1u << i) ? 0 : apply(o, &settings[i], trim(value), where);
        }
    }
    fprintf(stderr, "vmd: %sunknown setting '%s'; 'vmd --help' shows them\n", where, name);
    return -1;
}

/* `given`: settings the command line has, which win. A file that must not be there may be missing. */
static int read_config(struct vmd_options *o, const char *path, bool must, unsigned given)
{
    AUTO_BUF text = BUF_INIT;
    struct err e = ERR_INIT;
    int rc = file_slurp(path, &text, CONFIG_MAX, &e);
    if (rc == -ENOENT && !must) {
        return 0;
    }
    if (rc < 0) {
        fprintf(stderr, "vmd: configuration '%s': %s\n", path, e.msg);
        return -1;
    }
    AUTO_FREE char *copy = xalloc(text.len + 1);
    memcpy(copy, text.data ? text.data : "", text.len);
    if (memchr(copy, 0, text.len)) {
        fprintf(stderr, "vmd: configuration '%s' is no text\n", path);
        return -1;
    }
    char *rest = copy;
    for (unsigned n = 1; rest; n++) {
        char *line = trim(strsep(&rest, "\n"));
        AUTO_FREE char *where = xasprintf("%s:%u: ", path, n);
        if (line[0] && line[0] != '#' && apply_line(o, line, where, given) < 0) {
            return -1;
        }
    }
    return 0;
}

static char *default_config(const char *dir)
{
    const char *config = getenv("XDG_CONFIG_HOME"), *home = getenv("HOME");
    if (dir) {
        return xasprintf("%s/vmd.conf", dir);
    }
    if (geteuid() == 0) {
        return xstrdup(SYSTEM_CONFIG);
    }
    return config ? xasprintf("%s/vmd/vmd.conf", config)
                  : xasprintf("%s/.config/vmd/vmd.conf", home ? home : "");
}

/* ---- the command line ---- */

#define OPT_SETTING 256 /* plus the number of the setting */

struct given {
    const char *dir, *config;
    unsigned settings; /* a bit each */
};

static void build_options(struct option *to)
{
    static const struct option fixed[] = {
        { "dir", required_argument, NULL, 'd' },     { "config", required_argument, NULL, 'c' },
        { "restore", required_argument, NULL, 'R' }, { "foreground", no_argument, NULL, 'f' },
        { "version", no_argument, NULL, 'v' },       { "help", no_argument, NULL, 'h' },
    };
    memcpy(to, fixed, sizeof(fixed));
    to += ARRAY_LEN(fixed);
    for (unsigned i = 0; i < ARRAY_LEN(settings); i++) {
        *to++ = (struct option){ settings[i].name,
                                 settings[i].arg ? required_argument : no_argument, NULL,
                                 OPT_SETTING + (int)i };
    }
    *to = (struct option){ NULL, 0, NULL, 0 };
}

static int take_option(struct vmd_options *o, struct given *g, int opt)
{
    switch (opt) {
    case 'd':
        g->dir = optarg;
        return 0;
    case 'c':
        g->config = optarg;
        return 0;
    case 'R':
        set(&o->restore, xstrdup(optarg));
        return 0;
    case 'f':
        return 0;
    case 'v':
        printf("vmd %s\n", PACKAGE_VERSION);
        return 1;
    case 'h':
        print_usage();
        return 1;
    default:
        break;
    }
    if (opt < OPT_SETTING) {
        fprintf(stderr, "'vmd --help' shows the options\n");
        return -1;
    }
    unsigned i = (unsigned)opt - OPT_SETTING;
    g->settings |= 1u << i;
    return apply(o, &settings[i], settings[i].arg ? optarg : "on", "");
}

/* After all else: whose certificates, and where. */
static int check_tls(struct vmd_options *o)
{
    bool some = o->tls_ca || o->tls_cert || o->tls_key || o->tls_crl;
    if (some && !(o->tls_ca && o->tls_cert && o->tls_key)) {
        fprintf(stderr, "vmd: tls-ca, tls-cert and tls-key go together\n");
        return -1;
    }
    o->tls_builtin = !some;
    o->balloon_low = o->balloon_low ? o->balloon_low : 10;
    o->balloon_high = o->balloon_high ? o->balloon_high : 20;
    o->tls_max = o->tls_max ? o->tls_max : 256;
    o->helper_timeout = o->helper_timeout ? o->helper_timeout : 25;
    o->tls_max_peer = o->tls_max_peer ? o->tls_max_peer : 128;
    if (!o->tls_dir) {
        o->tls_dir = xasprintf("%s/tls", o->lib);
    }
    return 0;
}

int options_parse(struct vmd_options *o, int argc, char **argv)
{
    struct option options[ARRAY_LEN(settings) + 8];
    struct given g = { 0 };
    int opt;
    build_options(options);
    while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
        int rc = take_option(o, &g, opt);
        if (rc != 0) {
            return rc;
        }
    }
    if (optind < argc) {
        fprintf(stderr, "vmd: '%s' is not an option; 'vmd --help' shows them\n", argv[optind]);
        return -1;
    }
    AUTO_FREE char *config = g.config ? xstrdup(g.config) : default_config(g.dir);
    if (read_config(o, config, g.config != NULL, g.settings) < 0) {
        return -1;
    }
    int rc = fill(o, g.dir);
    return rc == 0 ? check_tls(o) : rc;
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
    while (o->n_listen > 0) {
        set(&o->listen[--o->n_listen], NULL);
    }
    while (o->n_image_dir > 0) {
        set(&o->image_dir[--o->n_image_dir], NULL);
    }
    for (unsigned i = 0; i < ARRAY_LEN(settings); i++) {
        if (settings[i].kind == TEXT || settings[i].kind == FOLDER || settings[i].kind == WEB) {
            set((char **)(void *)((char *)o + settings[i].at), NULL);
        }
    }
    set(&o->run, NULL);
    set(&o->lib, NULL);
    set(&o->spawn, NULL);
    set(&o->image, NULL);
    set(&o->state, NULL);
    set(&o->vmctl, NULL);
    set(&o->restore, NULL);
}
