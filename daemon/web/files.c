/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Static files: found where packages put them, read anew each time. A name is made of words of letters, digits, - _ and dots,
 * none of which begins with a dot, so that it stays in its folder. No state.
 */
#include "daemon/web/files.h"

#include "engine/base/err.h"
#include "engine/base/fd.h"
#include "engine/base/mem.h"
#include "engine/base/str.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Where a file of the console may be, in order. Debian's libjs-xterm has a file by the name of xterm.js that no browser can load
 * by itself, so it is not among them. */
static const struct {
    const char *prefix, *folder;
} places[] = {
    { "/novnc/", "/usr/share/novnc" },
    { "/novnc/", "/usr/local/share/novnc" },
    { "/novnc/", "/usr/local/lib/node_modules/@novnc/novnc" },
    { "/novnc/", "/usr/lib/node_modules/@novnc/novnc" },
    { "/xterm/", "/usr/local/lib/node_modules/@xterm/xterm" },
    { "/xterm/", "/usr/lib/node_modules/@xterm/xterm" },
    { "/xterm/", "/usr/local/lib/node_modules/xterm" },
    { "/xterm/", "/usr/lib/node_modules/xterm" },
};

static const struct {
    const char *end, *type;
} types[] = {
    { ".js", "text/javascript; charset=utf-8" },
    { ".mjs", "text/javascript; charset=utf-8" },
    { ".css", "text/css; charset=utf-8" },
    { ".png", "image/png" },
    { ".svg", "image/svg+xml" },
};

const char *web_page(const char *path, const char **type)
{
    static const struct {
        const char *path, *type, *text;
    } parts[] = {
        { "/", "text/html; charset=utf-8", web_page_html },
        { "/console.js", "text/javascript; charset=utf-8", web_page_js },
        { "/console.css", "text/css; charset=utf-8", web_page_css },
    };
    for (unsigned i = 0; i < ARRAY_LEN(parts); i++) {
        if (strcmp(parts[i].path, path) == 0) {
            *type = parts[i].type;
            return parts[i].text;
        }
    }
    return NULL;
}

static bool good_name(const char *name)
{
    bool begin = true;
    for (; *name; name++) {
        if (!isalnum((unsigned char)*name) && !strchr("-_./", *name)) {
            return false;
        }
        if (begin && (*name == '.' || *name == '/')) {
            return false;
        }
        begin = *name == '/';
    }
    return !begin;
}

static const char *type_of(const char *name)
{
    const char *dot = strrchr(name, '.');
    for (unsigned i = 0; dot && i < ARRAY_LEN(types); i++) {
        if (strcmp(types[i].end, dot) == 0) {
            return types[i].type;
        }
    }
    return NULL;
}

static int read_file(const char *folder, const char *name, struct buf *body)
{
    AUTO_FREE char *path = xasprintf("%s/%s", folder, name);
    struct err e = ERR_INIT;
    struct stat st;
    AUTO_FD fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode)) {
        return -ENOENT;
    }
    return fd_slurp(fd, body, WEB_FILE_MAX, path, &e);
}

int web_file(const char *modules, const char *path, struct buf *body, const char **type)
{
    static const struct {
        const char *prefix, *module;
    } ours[] = { { "/novnc/", "@novnc/novnc" }, { "/xterm/", "@xterm/xterm" } };
    const char *kind = type_of(path);
    int rc = -ENOENT;

    for (unsigned i = 0; kind && modules && rc == -ENOENT && i < ARRAY_LEN(ours); i++) {
        size_t n = strlen(ours[i].prefix);
        AUTO_FREE char *folder = xasprintf("%s/%s", modules, ours[i].module);
        if (str_starts(path, ours[i].prefix) && good_name(path + n)) {
            rc = read_file(folder, path + n, body);
        }
    }
    for (unsigned i = 0; kind && rc == -ENOENT && i < ARRAY_LEN(places); i++) {
        size_t n = strlen(places[i].prefix);
        if (str_starts(path, places[i].prefix) && good_name(path + n)) {
            rc = read_file(places[i].folder, path + n, body);
        }
    }
    if (rc != -ENOENT) {
        *type = kind;
    }
    return rc;
}
