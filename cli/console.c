/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The console verb and the raw terminal under it. Signal handlers need the terminal's modes, so
 * those are file-level state, set before the handlers and only while console_run() is active.
 */
#include "cli/console.h"

#include "api-schema/json/json.h"
#include "cli/cli.h"
#include "cli/remote.h"
#include "engine/base/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <termios.h>
#include <unistd.h>

enum { CHUNK = 4096, BACKLOG = 65536, BACKLOG_MS = 30, DEFAULT_ESCAPE = 0x1d };

static struct {
    struct termios cooked, raw;
    volatile sig_atomic_t is_raw, signo;
    int wake; /* write end of the pipe that ends poll(2) */
} tty;

static const int ends[] = { SIGHUP, SIGINT, SIGQUIT, SIGTERM };
static const int fatal[] = { SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT };
enum { N_ENDS = sizeof(ends) / sizeof(ends[0]), N_FATAL = sizeof(fatal) / sizeof(fatal[0]) };

struct handlers {
    struct sigaction ends[N_ENDS], fatal[N_FATAL], tstp, cont, pipe;
};

/* --- signals ------------------------------------------------------------------------------ */

static void cooked(void)
{
    if (tty.is_raw) {
        tcsetattr(0, TCSADRAIN, &tty.cooked);
    }
}

static void on_end(int signo)
{
    int saved = errno;

    tty.signo = signo;
    (void)!write(tty.wake, "", 1);
    errno = saved;
}

static void on_fatal(int signo)
{
    if (tty.is_raw) {
        tcsetattr(0, TCSANOW, &tty.cooked);
    }
    signal(signo, SIG_DFL);
    raise(signo);
}

static void on_stop(int signo)
{
    int saved = errno;

    (void)signo;
    cooked();
    kill(getpid(), SIGSTOP); /* SIGCONT's handler makes it raw again */
    errno = saved;
}

static void on_continue(int signo)
{
    int saved = errno;

    (void)signo;
    if (tty.is_raw) {
        tcsetattr(0, TCSANOW, &tty.raw);
    }
    errno = saved;
}

static void install(struct handlers *old)
{
    struct sigaction a = { .sa_handler = on_end };

    sigemptyset(&a.sa_mask);
    for (size_t i = 0; i < N_ENDS; i++) {
        sigaction(ends[i], &a, &old->ends[i]);
        if (old->ends[i].sa_handler == SIG_IGN) {
            sigaction(ends[i], &old->ends[i], NULL); /* nohup */
        }
    }
    a.sa_handler = on_fatal;
    for (size_t i = 0; i < N_FATAL; i++) {
        sigaction(fatal[i], &a, &old->fatal[i]);
    }
    a.sa_flags = SA_RESTART;
    a.sa_handler = on_stop;
    sigaction(SIGTSTP, &a, &old->tstp);
    a.sa_handler = on_continue;
    sigaction(SIGCONT, &a, &old->cont);
    a.sa_handler = SIG_IGN;
    sigaction(SIGPIPE, &a, &old->pipe);
}

static void uninstall(const struct handlers *old)
{
    for (size_t i = 0; i < N_ENDS; i++) {
        sigaction(ends[i], &old->ends[i], NULL);
    }
    for (size_t i = 0; i < N_FATAL; i++) {
        sigaction(fatal[i], &old->fatal[i], NULL);
    }
    sigaction(SIGTSTP, &old->tstp, NULL);
    sigaction(SIGCONT, &old->cont, NULL);
    sigaction(SIGPIPE, &old->pipe, NULL);
}

static void make_raw(void)
{
    if (!isatty(0) || tcgetattr(0, &tty.cooked) < 0) {
        return;
    }
    tty.raw = tty.cooked;
    cfmakeraw(&tty.raw);
    /* In the background this would stop us; then the shell's user sees why. Said before it is done: a signal that
     * comes in between restores for nothing, the other way round it would restore nothing. */
    tty.is_raw = 1;
    if (tcsetattr(0, TCSADRAIN, &tty.raw) != 0) {
        tty.is_raw = 0;
    }
}

/* --- copying ------------------------------------------------------------------------------ */

struct copy {
    int sock, escape;
    struct buf to_guest; /* typed, not yet taken by the socket; at most CHUNK and a little */
    bool in_open, detached, closed;
};

/* What was typed; the escape key ends it. */
static void typed(struct copy *c, const char *p, size_t n)
{
    const char *at = c->escape >= 0 && tty.is_raw ? memchr(p, c->escape, n) : NULL;

    if (at) {
        c->detached = true;
        n = (size_t)(at - p);
    }
    buf_add(&c->to_guest, p, n);
}

static void read_input(struct copy *c)
{
    char b[CHUNK];
    ssize_t n = read(0, b, sizeof(b));

    if (n > 0) {
        typed(c, b, (size_t)n);
    } else if (n == 0 || (errno != EINTR && errno != EAGAIN)) {
        c->in_open = false;
    }
}

static void write_guest(struct copy *c)
{
    ssize_t n = send(c->sock, c->to_guest.data, c->to_guest.len, MSG_DONTWAIT | MSG_NOSIGNAL);

    if (n > 0) {
        buf_consume(&c->to_guest, (size_t)n);
    } else if (n < 0 && errno != EAGAIN && errno != EINTR) {
        buf_consume(&c->to_guest, c->to_guest.len); /* reading tells of the end */
    }
}

static void write_output(struct copy *c, const char *p, size_t n)
{
    while (n > 0 && !tty.signo) {
        ssize_t k = write(1, p, n);
        if (k > 0) {
            p += k;
            n -= (size_t)k;
        } else if (k < 0 && errno == EAGAIN) {
            struct pollfd out = { .fd = 1, .events = POLLOUT };
            poll(&out, 1, 100);
        } else if (k < 0 && errno != EINTR) {
            c->detached = true; /* nobody reads us any more */
            return;
        }
    }
}

static void read_guest(struct copy *c)
{
    char b[CHUNK];
    ssize_t n = recv(c->sock, b, sizeof(b), MSG_DONTWAIT);

    if (n > 0) {
        write_output(c, b, (size_t)n);
    } else if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
        c->closed = true;
    }
}

/* Length of a question to the terminal at p (device status or attributes: CSI ... n, CSI ... c,
 * ESC Z), 0 when there is none. */
static size_t question(const char *p, size_t n)
{
    size_t at = 2;

    if (n >= 2 && p[0] == '\033' && p[1] == 'Z') {
        return 2;
    }
    if (n < 3 || p[0] != '\033' || p[1] != '[') {
        return 0;
    }
    while (at < n && p[at] >= 0x20 && p[at] <= 0x3f) {
        at++;
    }
    return at < n && (p[at] == 'n' || p[at] == 'c') ? at + 1 : 0;
}

/* The output from before is shown without the questions it asked of a terminal then: ours would
 * answer them, and the answers would be typed into the guest. */
static void show_backlog(struct copy *c)
{
    struct pollfd p = { .fd = c->sock, .events = POLLIN };
    AUTO_BUF b = BUF_INIT;
    char chunk[CHUNK];
    ssize_t n;

    while (b.len < BACKLOG && poll(&p, 1, BACKLOG_MS) > 0 &&
           (n = recv(c->sock, chunk, sizeof(chunk), MSG_DONTWAIT)) > 0) {
        buf_add(&b, chunk, (size_t)n);
    }
    for (size_t at = 0, from = 0; at < b.len; at++) {
        size_t skip = question(b.data + at, b.len - at);
        if (skip || at + 1 == b.len) {
            write_output(c, b.data + from, at + !skip - from);
            from = at + skip;
            at += skip ? skip - 1 : 0;
        }
    }
}

static void copy_turn(struct copy *c, int wake)
{
    bool want_input = c->in_open && c->to_guest.len < CHUNK;
    struct pollfd p[3] = {
        { .fd = wake, .events = POLLIN },
        { .fd = c->sock, .events = (short)(POLLIN | (c->to_guest.len ? POLLOUT : 0)) },
        { .fd = want_input ? 0 : -1, .events = POLLIN },
    };

    if (poll(p, 3, -1) < 0) {
        return;
    }
    if (p[1].revents & POLLOUT) {
        write_guest(c);
    }
    if (p[1].revents & (POLLIN | POLLHUP | POLLERR)) {
        read_guest(c);
    }
    if (p[2].revents) {
        read_input(c);
    }
}

static void type_size(struct copy *c)
{
    struct winsize w;

    if ((ioctl(1, TIOCGWINSZ, &w) == 0 || ioctl(0, TIOCGWINSZ, &w) == 0) && w.ws_row &&
        w.ws_col) {
        buf_printf(&c->to_guest, "stty rows %u cols %u\r", w.ws_row, w.ws_col);
    }
}

enum console_end console_run(int sock, const struct console_options *o, int *signo)
{
    struct copy c = {
        .sock = sock, .escape = o->escape, .to_guest = BUF_INIT, .in_open = true
    };
    struct handlers old;
    int wake[2];
    enum console_end end;

    if (pipe2(wake, O_CLOEXEC | O_NONBLOCK) < 0) {
        return CONSOLE_CLOSED;
    }
    fflush(stdout);
    tty.wake = wake[1];
    tty.signo = 0;
    tty.is_raw = 0;
    install(&old);
    make_raw();
    if (o->backlog && isatty(0) && isatty(1)) {
        show_backlog(&c);
    }
    if (o->send_size) {
        type_size(&c);
    }
    while (!c.detached && !c.closed && !tty.signo) {
        copy_turn(&c, wake[0]);
    }
    if (c.detached && c.to_guest.len) {
        write_guest(&c); /* what was typed before the escape key */
    }
    cooked();
    tty.is_raw = 0;
    uninstall(&old);
    close(wake[0]);
    close(wake[1]);
    buf_done(&c.to_guest);
    *signo = tty.signo;
    end = tty.signo ? CONSOLE_SIGNAL : c.detached ? CONSOLE_DETACHED : CONSOLE_CLOSED;
    return end;
}

int console_escape(const char *text, int *escape, struct err *e)
{
    if (!text) {
        *escape = DEFAULT_ESCAPE;
    } else if (strcmp(text, "none") == 0) {
        *escape = -1;
    } else if (text[0] == '^' && text[1] >= '?' && text[1] <= 'z' && !text[2]) {
        *escape = text[1] == '?' ? 0x7f : text[1] & 0x1f;
    } else if (text[0] && !text[1]) {
        *escape = (unsigned char)text[0];
    } else {
        return err_set(e, -EINVAL, "'%s' is no key; write ^] or ^A, a character, or none",
                       text);
    }
    return 0;
}

void console_greet(const char *vm, const char *key, const struct console_options *o)
{
    if (isatty(0) && o->escape >= 0) {
        fprintf(stderr, "[console of %s; %s detaches]\r\n", vm, key ? key : "Ctrl-]");
    } else if (isatty(0)) {
        fprintf(stderr, "[console of %s]\r\n", vm);
    }
}

/* --- the verb ----------------------------------------------------------------------------- */

/* The console is gone: because the VM is? */
static int explain_close(struct cli *c, const char *vm)
{
    struct json_object *params = json_object_new_object();
    AUTO_JSON result = NULL;
    struct api_error x = API_ERROR_INIT;
    const char *nl = isatty(1) ? "\r\n" : "\n";

    api_json_set_str(params, "vm", vm);
    api_json_set_int(params, "timeout_ms", 2000);
    cli_reconnect(c); /* the daemon may have been restarted meanwhile */
    if (cli_call_quiet(c, "vm.wait", params, &result, &x) == 0) {
        const char *state = api_json_get_str(result, "state"),
                   *reason = api_json_get_str(result, "reason");
        fprintf(stderr, "%s[%s has ended: %s%s%s]\n", nl, vm, state ? state : "?",
                reason ? ", " : "", reason ? reason : "");
        return state && strcmp(state, "crashed") == 0 ? CLI_VM_CRASHED : CLI_OK;
    }
    if (x.code == API_E_NOT_FOUND) {
        fprintf(stderr, "%s[%s has ended]\n", nl, vm);
        return CLI_OK;
    }
    if (x.code == API_E_TIMEOUT) {
        return cli_fail(
            c, CLI_FAILED,
            "'vmctl console' attaches again; output that is not read in time is dropped",
            "the console of %s was closed, the VM runs on", vm);
    }
    fprintf(stderr, "%s[the console of %s was closed; the daemon does not say why]\n", nl, vm);
    return CLI_FAILED;
}

int console_open(struct cli *c, struct json_object *where, struct tls_link **link,
                 struct err *e)
{
    const char *path = api_json_get_str(where, "path");
    const char *ticket = api_json_get_str(where, "ticket");

    if (c->place && c->place->host) {
        return ticket ? place_stream(c->place, ticket, link, e)
                      : err_set(e, -EBUSY, "the daemon gave no ticket; try again");
    }
    return path ? unix_connect(path, e) : err_set(e, -ENOENT, "the daemon named no socket");
}

/* True: a channel is meant, not the console. */
static bool name_channel(const struct cli_input *in, struct json_object *params,
                         struct console_options *o)
{
    const char *channel = cli_own(in, "channel");
    struct winsize w;

    if (channel) {
        api_json_set_str(params, "channel", channel);
        o->backlog = false;
        if (ioctl(STDIN_FILENO, TIOCGWINSZ, &w) == 0 && w.ws_col > 0 && w.ws_row > 0) {
            api_json_set_int(params, "columns", w.ws_col);
            api_json_set_int(params, "rows", w.ws_row);
        }
    }
    return channel != NULL;
}

int cli_verb_console(struct cli *c, struct cli_input *in)
{
    const char *vm = cli_own(in, "VM");
    struct json_object *params = json_object_new_object();
    struct console_options o = { .send_size = cli_own(in, "send-size") != NULL,
                                 .backlog = true };
    AUTO_JSON result = NULL;
    AUTO_FD sock = -1;
    struct tls_link *link = NULL;
    struct err e = ERR_INIT;
    int rc, signo;

    api_json_set_str(params, "vm", vm);
    if (console_escape(cli_own(in, "escape"), &o.escape, &e) < 0) {
        json_object_put(params);
        return cli_fail(c, CLI_USAGE, NULL, "--escape: %s", e.msg);
    }
    rc = cli_call(c, name_channel(in, params, &o) ? "vm.channel" : "vm.console", params, &result);
    if (rc != CLI_OK) {
        return rc;
    }
    sock = console_open(c, result, &link, &e);
    if (sock < 0) {
        return cli_fail(c, CLI_FAILED, "'vmctl show' tells whether the VM still runs",
                        "console of %s: %s", vm, e.msg);
    }
    if (!c->quiet) {
        console_greet(vm, cli_own(in, "escape"), &o);
    }
    enum console_end end = console_run(sock, &o, &signo);
    close(take_fd(&sock));
    tls_link_close(link);
    switch (end) {
    case CONSOLE_DETACHED:
        if (isatty(0) && !c->quiet) {
            fprintf(stderr, "\r\n[detached; 'vmctl console %s' attaches again]\n", vm);
        }
        return CLI_OK;
    case CONSOLE_SIGNAL:
        return 128 + signo;
    default:
        return explain_close(c, vm);
    }
}
