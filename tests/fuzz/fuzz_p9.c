/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzz target: the server of shared folders by 9P (storage/share), which a guest's messages reach as they are: kinds that there are
 * with fids, names and numbers that mostly make sense, and bytes that make none. The folder lies beside one that nothing may reach, which
 * is looked at after each input, and so are the descriptors that are open. Always the mapped model: the other makes
 * device nodes of the host.
 */
#include "engine/base/mem.h"
#include "storage/share/p9.h"
#include "tests/fuzz/fuzz.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

const char fuzz_name[] = "fuzz_p9";

#define SECRET "nobody reads this"
enum { FIDS = 6, MESSAGES = 40, DATA_MAX = 200 };

/* f: a fid, s: a name, w: names, d: data behind their number, 1 2 4 8: a number. */
static const struct {
    uint8_t type;
    const char *args;
} kinds[] = {
    { 100, "4s" },   { 104, "ffss4" },  { 110, "ffw" },   { 110, "ffw" }, { 108, "2" },
    { 120, "f" },    { 122, "f" },      { 24, "f8" },     { 8, "f" },     { 26, "f44448884" },
    { 30, "ffs" },   { 32, "fs84" },    { 12, "f4" },     { 12, "f4" },   { 14, "fs444" },
    { 14, "fs444" }, { 116, "f84" },    { 118, "f8d" },   { 118, "f8d" }, { 40, "f84" },
    { 50, "f4" },    { 52, "f14884s" }, { 54, "f1884s" }, { 16, "fss4" }, { 18, "fs4444" },
    { 72, "fs44" },  { 70, "ffs" },     { 74, "fsfs" },   { 76, "fs4" },  { 22, "f" },
    { 20, "ffs" },   { 102, "fs4" },
};
static const char *const names[] = { "a",     "b",          "dir",        "file",
                                     "link",  ".",          "..",         "",
                                     "dir/a", "../outside", "/etc",       "user.x",
                                     "c",     "9P2000.L",   "security.x", "user.virtfs.mode" };

static char top[64];
static uint8_t out[P9_MSIZE];
static int proc_fd, back_fd;
static unsigned long asked, done;

static unsigned count_open(void)
{
    DIR *d = opendir("/proc/self/fd");
    unsigned n = 0;

    while (d && readdir(d)) {
        n++;
    }
    closedir(d);
    return n;
}

static int unlink_one(const char *path, const struct stat *st, int kind, struct FTW *at)
{
    (void)st;
    (void)kind;
    (void)at;
    return remove(path);
}

static void put_file(const char *name, const char *text)
{
    char path[128];
    int fd;

    snprintf(path, sizeof(path), "%s/%s", top, name);
    fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0 || write(fd, text, strlen(text)) < 0) {
        FUZZ_FAIL("%s: %s", path, strerror(errno));
    }
    close(fd);
}

static void put_folder(const char *name)
{
    char path[128];

    snprintf(path, sizeof(path), "%s/%s", top, name);
    if (mkdir(path, 0755) < 0 && errno != EEXIST) {
        FUZZ_FAIL("%s: %s", path, strerror(errno));
    }
}

void fuzz_setup(void)
{
    struct rlimit size = { 1 << 20, 1 << 20 };

    snprintf(top, sizeof(top), "%s/vmd-fuzz-p9-XXXXXX",
             access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    proc_fd = open("/proc/self/fd", O_PATH | O_DIRECTORY | O_CLOEXEC);
    back_fd = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (!mkdtemp(top) || proc_fd < 0 || back_fd < 0) {
        FUZZ_FAIL("%s: %s", top, strerror(errno));
    }
    (void)setrlimit(RLIMIT_FSIZE, &size); /* files of a guest's choice stay small here */
    signal(SIGXFSZ, SIG_IGN);
    put_folder("outside");
    put_file("outside/secret", SECRET);
}

void fuzz_finish(void)
{
    nftw(top, unlink_one, 8, FTW_DEPTH | FTW_PHYS);
    close(proc_fd);
    close(back_fd);
    printf("# %lu of %lu messages were done, the others refused\n", done, asked);
}

/* --- messages --- */

struct message {
    uint8_t bytes[2048];
    size_t n;
};

static void put(struct message *m, uint64_t v, unsigned size)
{
    for (unsigned i = 0; i < size && m->n < sizeof(m->bytes); i++) {
        m->bytes[m->n++] = (uint8_t)(v >> 8 * i);
    }
}

static void put_name(struct fuzz_in *in, struct message *m)
{
    const char *name = names[fuzz_below(in, sizeof(names) / sizeof(names[0]))];
    size_t n = strlen(name);

    if (fuzz_rarely(in, 16)) { /* long, or with bytes that no name has */
        n = fuzz_below(in, 300);
        put(m, fuzz_rarely(in, 8) ? fuzz_64(in) : n, 2);
        while (n-- > 0) {
            put(m, fuzz_rarely(in, 8) ? fuzz_8(in) : 'a', 1);
        }
        return;
    }
    put(m, n, 2);
    for (size_t i = 0; i < n; i++) {
        put(m, (uint8_t)name[i], 1);
    }
}

static uint64_t number(struct fuzz_in *in, unsigned size)
{
    return fuzz_rarely(in, 8)                ? fuzz_64(in)
           : size == 4 && fuzz_rarely(in, 3) ? 0x3fu & fuzz_8(in)
           : fuzz_rarely(in, 2)              ? fuzz_below(in, 4096)
                                             : fuzz_below(in, 3);
}

static void put_arg(struct fuzz_in *in, struct message *m, char what)
{
    unsigned n;

    switch (what) {
    case 'f':
        put(m, fuzz_rarely(in, 24) ? fuzz_64(in) : fuzz_below(in, FIDS), 4);
        break;
    case 's':
        put_name(in, m);
        break;
    case 'w':
        n = fuzz_rarely(in, 24) ? fuzz_8(in) : fuzz_below(in, 4);
        put(m, n, 2);
        for (unsigned i = 0; i < n && i < 20; i++) {
            put_name(in, m);
        }
        break;
    case 'd':
        n = fuzz_below(in, DATA_MAX);
        put(m, fuzz_rarely(in, 16) ? fuzz_64(in) : n, 4);
        for (unsigned i = 0; i < n; i++) {
            put(m, i, 1);
        }
        break;
    default:
        put(m, number(in, (unsigned)(what - '0')), (unsigned)(what - '0'));
    }
}

static void make(struct fuzz_in *in, struct message *m)
{
    unsigned k = fuzz_below(in, sizeof(kinds) / sizeof(kinds[0]));

    m->n = 4;
    put(m, fuzz_rarely(in, 32) ? fuzz_8(in) : kinds[k].type, 1);
    put(m, fuzz_8(in), 2);
    for (const char *a = kinds[k].args; *a; a++) {
        put_arg(in, m, *a);
    }
    if (fuzz_rarely(in, 24)) {
        m->n = P9_HEADER + fuzz_below(in, (unsigned)(m->n - P9_HEADER + 1));
    }
    for (unsigned i = 0; i < 4; i++) {
        m->bytes[i] = (uint8_t)(m->n >> 8 * i);
    }
    if (fuzz_rarely(in, 64)) {
        m->bytes[fuzz_below(in, 4)] = fuzz_8(in);
    }
}

/* An answer says how long it is, and answers what was asked. */
static void check_answer(const struct message *m, size_t n)
{
    asked++;
    done += out[4] != 7;
    uint32_t size = (uint32_t)out[0] | (uint32_t)out[1] << 8 | (uint32_t)out[2] << 16 |
                    (uint32_t)out[3] << 24;

    if (n < P9_HEADER || n > P9_MSIZE || size != n || out[5] != m->bytes[5] ||
        out[6] != m->bytes[6] || (out[4] != 7 && out[4] != m->bytes[4] + 1)) {
        FUZZ_FAIL("an answer of type %u, %zu bytes that are %u, to type %u", out[4], n, size,
                  m->bytes[4]);
    }
}

/* --- what no guest may reach --- */

static void check_outside(void)
{
    char path[128], text[64] = "";
    unsigned n = 0;
    DIR *d;
    int fd;

    snprintf(path, sizeof(path), "%s/outside/secret", top);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || read(fd, text, sizeof(text) - 1) < 0 || strcmp(text, SECRET) != 0) {
        FUZZ_FAIL("a file beside the folder is '%s'", text);
    }
    close(fd);
    snprintf(path, sizeof(path), "%s/outside", top);
    d = opendir(path);
    while (d && readdir(d)) {
        n++;
    }
    closedir(d);
    d = opendir(top);
    while (d && readdir(d)) {
        n++;
    }
    closedir(d);
    if (n != 3 + 3) { /* each with "." and ".."; the file; the folder that it is in */
        FUZZ_FAIL("%u names beside the folder", n);
    }
}

void fuzz_one(const uint8_t *data, size_t size)
{
    struct p9 *s = xnew(struct p9);
    unsigned before, n = 8 + (unsigned)(size < MESSAGES ? size : MESSAGES);
    struct message m;
    struct fuzz_in in;
    char root[96];
    int fd;

    fuzz_in_init(&in, data, size);
    put_folder("share");
    put_folder("share/dir");
    put_file("share/file", "some bytes");
    put_file("share/dir/a", "others");
    snprintf(root, sizeof(root), "%s/share", top);
    fd = open(root, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || fchdir(proc_fd) < 0) {
        FUZZ_FAIL("%s: %s", root, strerror(errno));
    }
    before = count_open();
    p9_init(s, fd, fuzz_rarely(&in, 8), true, fuzz_rarely(&in, 8) ? 3 : 64);
    for (unsigned i = 0; i < n; i++) {
        if (i == 0 && !fuzz_rarely(&in, 16)) { /* attached, mostly */
            static const uint8_t attach[] = { 23,   0,    0,    0, 104, 1, 0, 0, 0, 0, 0, 0xff,
                                              0xff, 0xff, 0xff, 0, 0,   0, 0, 0, 0, 0, 0 };

            memcpy(m.bytes, attach, sizeof(attach));
            m.n = sizeof(attach);
        } else {
            make(&in, &m);
        }
        check_answer(&m, p9_answer(s, m.bytes, m.n, out));
    }
    p9_done(s);
    free(s);
    if (count_open() != before) {
        FUZZ_FAIL("%u descriptors are open, not %u", count_open(), before);
    }
    close(fd);
    if (fchdir(back_fd) < 0) {
        FUZZ_FAIL("back: %s", strerror(errno));
    }
    nftw(root, unlink_one, 8, FTW_DEPTH | FTW_PHYS);
    check_outside();
}
