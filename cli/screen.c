/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The screen of a VM for people: a picture of it as a file, keys, and a local port that viewers connect to, over which the VNC
 * connection goes by whatever the daemon is reached by. One thread, and one more for each viewer, which owns its two sockets.
 */
#include "cli/cli.h"
#include "cli/console.h"

#include "api-schema/json/json.h"
#include "api-schema/tls/link.h"
#include "api-schema/tls/tls.h"
#include "engine/base/base64.h"
#include "engine/base/fd.h"
#include "engine/base/mem.h"
#include "engine/base/str.h"

#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <termios.h>
#include <unistd.h>

/* --- pictures --------------------------------------------------------------------------------- */

static int fetch_picture(struct cli *c, struct json_object *first, struct buf *file)
{
    int64_t after = 0, picture = 0;
    int rc = CLI_OK;

    for (bool more = true; more && rc == CLI_OK;) {
        struct json_object *params = json_object_new_object();
        AUTO_JSON result = NULL;
        const char *data;

        cli_overlay(params, first);
        api_json_set_int(params, "picture", picture);
        api_json_set_int(params, "after", after);
        rc = cli_call(c, "vm.screenshot", params, &result);
        data = rc == CLI_OK ? api_json_get_str(result, "data") : NULL;
        if (rc == CLI_OK && (!data || !base64_take(file, data))) {
            rc = cli_fail(c, CLI_FAILED, NULL, "the picture came garbled");
        }
        more = api_json_get(result, "next") != NULL;
        picture = api_json_get_int(result, "picture", 0);
        after = api_json_get_int(result, "next", 0);
        if (rc == CLI_OK && more && after != (int64_t)file->len) {
            rc = cli_fail(c, CLI_FAILED, NULL, "the picture came garbled");
        }
    }
    return rc;
}

int cli_verb_screenshot(struct cli *c, struct cli_input *in)
{
    const char *path = cli_own(in, "FILE");
    size_t n = strlen(path);
    AUTO_BUF file = BUF_INIT;
    struct err e = ERR_INIT;

    if (!api_json_get(in->params, "format") && n > 4 && strcmp(path + n - 4, ".ppm") == 0) {
        api_json_set_str(in->params, "format", "ppm");
    }
    int rc = fetch_picture(c, in->params, &file);
    if (rc != CLI_OK) {
        return rc;
    }
    if (strcmp(path, "-") == 0) {
        rc = fd_write_all(STDOUT_FILENO, file.data, file.len, "standard output", &e);
    } else {
        rc = file_replace(path, file.data, file.len, 0644, &e);
    }
    return rc == 0 ? CLI_OK : cli_fail(c, CLI_FAILED, NULL, "%s", e.msg);
}

/* --- keys ------------------------------------------------------------------------------------- */

int cli_verb_send_key(struct cli *c, struct cli_input *in)
{
    AUTO_FREE char *keys = xstrdup(cli_own(in, "KEYS"));
    struct json_object *list = json_object_new_array();
    char *rest = keys, *one;

    while ((one = strsep(&rest, "+"))) {
        json_object_array_add(list, json_object_new_string(one));
    }
    api_json_set(in->params, "keys", list);
    return cli_call(c, "vm.send_key", json_object_get(in->params), NULL);
}

/* --- viewers ---------------------------------------------------------------------------------- */

struct relay {
    int viewer, vm;
    struct tls_link *link; /* NULL: the daemon is on this host */
};

/* Copies what can be read from one to the other; false when that has ended. */
static bool copy(int from, int to)
{
    char bytes[65536];
    ssize_t n = read(from, bytes, sizeof(bytes));

    return n > 0 && fd_write_all(to, bytes, (size_t)n, "viewer", NULL) == 0;
}

static void *relay_main(void *arg)
{
    struct relay *r = arg;
    bool on = true;

    while (on) {
        struct pollfd p[2] = { { .fd = r->viewer, .events = POLLIN },
                               { .fd = r->vm, .events = POLLIN } };

        if (poll(p, 2, -1) < 0) {
            on = errno == EINTR;
            continue;
        }
        on = (!p[0].revents || copy(r->viewer, r->vm)) &&
             (!p[1].revents || copy(r->vm, r->viewer));
    }
    close(r->viewer);
    close(r->vm);
    tls_link_close(r->link);
    free(r);
    return NULL;
}

/* One viewer came: asks for the screen anew, since a ticket serves once. */
static int serve_viewer(struct cli *c, struct cli_input *in, int viewer)
{
    AUTO_JSON where = NULL;
    struct relay *r;
    struct err e = ERR_INIT;
    pthread_t thread;
    int rc = cli_call(c, "vm.vnc", json_object_get(in->params), &where);

    if (rc != CLI_OK) {
        close(viewer);
        return rc;
    }
    r = xnew(struct relay);
    r->viewer = viewer;
    r->vm = console_open(c, where, &r->link, &e);
    if (r->vm < 0 || pthread_create(&thread, NULL, relay_main, r) != 0) {
        fd_autoclose(&r->vm);
        close(viewer);
        tls_link_close(r->link);
        free(r);
        return cli_fail(c, CLI_FAILED, NULL, "screen: %s", e.code ? e.msg : "no thread for it");
    }
    pthread_detach(thread);
    return CLI_OK;
}

static int listen_at(const char *text, char *where, size_t size, struct err *e)
{
    AUTO_FREE char *host = NULL;
    struct addrinfo *list = NULL, hints = { .ai_socktype = SOCK_STREAM,
                                            .ai_flags = AI_PASSIVE | AI_NUMERICHOST };
    struct sockaddr_storage at;
    socklen_t n = sizeof(at);
    char port[16], number[16];
    int value = 0, rc = tls_parse_address(text, &host, &value, e);

    if (rc != 0) {
        return rc;
    }
    snprintf(port, sizeof(port), "%d", strrchr(text, ':') ? value : 0);
    if (getaddrinfo(host, port, &hints, &list) != 0) {
        return err_set(e, -EINVAL, "--listen %s: expected ADDRESS or ADDRESS:PORT", text);
    }
    AUTO_FD fd = socket(list->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || bind(fd, list->ai_addr, list->ai_addrlen) != 0 || listen(fd, 16) != 0 ||
        getsockname(fd, (struct sockaddr *)&at, &n) != 0) {
        err_errno(e, errno, "cannot listen at %s", text);
    } else if (getnameinfo((struct sockaddr *)&at, n, where, (socklen_t)(size - 16), number,
                           sizeof(number), NI_NUMERICHOST | NI_NUMERICSERV) == 0) {
        snprintf(where + strlen(where), 16, "::%s", number);
    }
    freeaddrinfo(list);
    return e->code ? e->code : take_fd(&fd);
}

int cli_verb_vnc(struct cli *c, struct cli_input *in)
{
    const char *at = cli_own(in, "listen");
    AUTO_JSON where = NULL;
    char address[128] = "";
    struct err e = ERR_INIT;
    int rc = cli_call(c, "vm.vnc", json_object_get(in->params), &where);

    if (rc != CLI_OK) {
        return rc;
    }
    AUTO_FD fd = listen_at(at ? at : "127.0.0.1", address, sizeof(address), &e);
    if (fd < 0) {
        return cli_fail(c, CLI_FAILED, NULL, "%s", e.msg);
    }
    signal(SIGPIPE, SIG_IGN);
    printf("%s\n", address);
    fflush(stdout);
    while (rc == CLI_OK) {
        int viewer = accept4(fd, NULL, NULL, SOCK_CLOEXEC);

        if (viewer >= 0) {
            rc = serve_viewer(c, in, viewer);
        } else if (errno != EINTR && errno != ECONNABORTED) {
            rc = cli_fail(c, CLI_FAILED, NULL, "%s: %s", address, strerror(errno));
        }
    }
    return rc;
}

/* --- the password of viewers -------------------------------------------------------------------------- */

/* One line of standard input without its newline; a terminal does not show it. */
static int read_password(char *text, size_t size, struct err *e)
{
    struct termios was, now;
    bool tty = isatty(0) && tcgetattr(0, &was) == 0, got;
    char *end;

    if (tty) {
        now = was;
        now.c_lflag &= ~(tcflag_t)ECHO;
        fputs("Password for viewers: ", stderr);
        tcsetattr(0, TCSAFLUSH, &now);
    }
    got = fgets(text, (int)size, stdin) != NULL;
    if (tty) {
        tcsetattr(0, TCSAFLUSH, &was);
        fputc('\n', stderr);
    }
    end = got ? strpbrk(text, "\r\n") : NULL;
    if (!got || (!end && !feof(stdin))) {
        return err_set(e, -EINVAL, "%s",
                       got ? "the password is longer than 128 bytes"
                           : "there is no password on standard input");
    }
    if (end) {
        *end = 0;
    }
    return text[0] ? 0 : err_set(e, -EINVAL, "the password is empty; --clear takes it away");
}

int cli_verb_vnc_password(struct cli *c, struct cli_input *in)
{
    AUTO_JSON out = NULL;
    char text[131] = "";
    struct err e = ERR_INIT;
    int rc;

    if (!cli_own(in, "clear") && read_password(text, sizeof(text), &e) < 0) {
        return cli_fail(c, CLI_FAILED, NULL, "%s", e.msg);
    }
    api_json_set_str(in->params, "password", text);
    rc = cli_call(c, "vm.set_vnc_password", json_object_get(in->params), &out);
    if (rc == CLI_OK && strlen(text) > 8) {
        fputs("only its first 8 letters count, unless the VM's vnc has security=tls-user\n",
              stderr);
    }
    return rc;
}
