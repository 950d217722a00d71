/* SPDX-License-Identifier: Apache-2.0 */
/*
 * 'vmctl top': the VMs of a host, refreshed in place, busiest first. Keys choose the order, show those that are
 * stopped, and pick a VM to look at, pause or resume. ncurses owns the terminal meanwhile. One thread.
 */
#include "cli/cli.h"
#include "cli/rates.h"

#include "api-schema/json/json.h"
#include "engine/base/str.h"

#include <locale.h>
#include <ncurses.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

enum { ROWS_MAX = 100000, KEY_WAIT_MS = 100 };

enum order { BY_CPU, BY_MEMORY, BY_DISK, BY_NAME };

struct row {
    char name[64], uuid[40], state[16];
    int64_t cpus, memory, rss, uptime_ns;
    struct cli_rate rate;
    bool known; /* rate */
};

struct top {
    struct cli *c;
    struct cli_rates *rates;
    struct row *rows;
    size_t n, at, first; /* at: chosen row; first: shown at the top */
    char chosen[40];     /* UUID of the chosen row, so that it stays when the order changes */
    enum order order;
    bool all;
    char host[160], note[160];
    int64_t interval_ms;
    int signals; /* descriptor */
};

/* --- fetching ----------------------------------------------------------------------------- */

static int compare(const void *a, const void *b, void *arg)
{
    const struct top *t = arg;
    const struct row *x = a, *y = b;
    double dx = 0, dy = 0;

    switch (t->order) {
    case BY_CPU:
        dx = x->rate.cpu, dy = y->rate.cpu;
        break;
    case BY_MEMORY:
        dx = (double)x->rss, dy = (double)y->rss;
        break;
    case BY_DISK:
        dx = x->rate.read + x->rate.written, dy = y->rate.read + y->rate.written;
        break;
    case BY_NAME:
        break;
    }
    return dx != dy ? (dx < dy ? 1 : -1) : strcmp(x->name, y->name);
}

static void copy(char *to, size_t size, const char *from)
{
    AUTO_BUF b = BUF_INIT;

    cli_clean(&b, from ? from : "?");
    snprintf(to, size, "%s", b.data ? b.data : "");
}

static void fill(struct top *t, struct row *r, struct json_object *vm)
{
    struct json_object *s = api_json_get(vm, "stats");

    *r = (struct row){ 0 };
    copy(r->name, sizeof(r->name), api_json_get_str(vm, "name"));
    copy(r->uuid, sizeof(r->uuid), api_json_get_str(vm, "uuid"));
    copy(r->state, sizeof(r->state), api_json_get_str(vm, "state"));
    r->cpus = api_json_get_int(vm, "cpus", 0);
    r->memory = api_json_get_int(vm, "memory", 0);
    r->rss = api_json_get_int(s, "memory_rss", 0);
    r->uptime_ns = api_json_get_int(s, "uptime_ns", 0);
    r->known = cli_rates_of(t->rates, vm, &r->rate);
}

static void describe_host(struct top *t, struct json_object *host)
{
    AUTO_BUF total = BUF_INIT, left = BUF_INIT;

    cli_size(&total, api_json_get_int(host, "memory", 0));
    cli_size(&left, api_json_get_int(host, "memory_free", 0));
    snprintf(t->host, sizeof(t->host), "%s: %lld CPUs, %s free of %s, %lld of %lld VMs active",
             api_json_get_str(host, "hostname") ?: "?",
             (long long)api_json_get_int(host, "cpus", 0), left.data, total.data,
             (long long)api_json_get_int(host, "vms_active", 0),
             (long long)api_json_get_int(host, "vms", 0));
}

/* Looks again. CLI_OK; or the note says why not, and the last figures stay. */
static void fetch(struct top *t)
{
    struct json_object *params = json_object_new_object();
    AUTO_JSON list = NULL;
    AUTO_JSON host = NULL;
    struct api_error x = API_ERROR_INIT;
    struct json_object *vms;
    size_t n;

    api_json_set(params, "stats", json_object_new_boolean(1));
    if (cli_call_quiet(t->c, "vm.list", params, &list, &x) < 0 ||
        cli_call_quiet(t->c, "host.info", NULL, &host, &x) < 0) {
        copy(t->note, sizeof(t->note), x.message);
        cli_reconnect(t->c);
        return;
    }
    describe_host(t, host);
    vms = api_json_get(list, "vms");
    n = vms ? json_object_array_length(vms) : 0;
    n = n < ROWS_MAX ? n : ROWS_MAX;
    free(t->rows);
    t->rows = xnew_n(struct row, n + 1);
    t->n = 0;
    for (size_t i = 0; i < n; i++) {
        struct row *r = &t->rows[t->n];
        fill(t, r, json_object_array_get_idx(vms, i));
        t->n += t->all ||
                (strcmp(r->state, "stopped") != 0 && strcmp(r->state, "crashed") != 0);
    }
    qsort_r(t->rows, t->n, sizeof(*t->rows), compare, t);
}

/* --- showing ------------------------------------------------------------------------------ */

static int state_pair(const char *state)
{
    const char *color = cli_state_color(state);

    return !color[0] ? 0 : color[3] == '2' ? 1 : color[3] == '3' ? 2 : 3;
}

static void show_row(const struct top *t, int y, const struct row *r, bool chosen)
{
    AUTO_BUF rss = BUF_INIT, rd = BUF_INIT, wr = BUF_INIT, up = BUF_INIT;
    char cpu[16] = "-";

    if (r->known) {
        snprintf(cpu, sizeof(cpu), "%.0f%%", r->rate.cpu * 100);
    }
    cli_size(&rss, r->rss);
    cli_size(&rd, (int64_t)r->rate.read);
    cli_size(&wr, (int64_t)r->rate.written);
    cli_nanoseconds(&up, r->uptime_ns);
    if (chosen) {
        attron(A_REVERSE);
    }
    mvprintw(y, 0, "%-24.24s ", r->name);
    if (t->c->color_out && !chosen) {
        attron(COLOR_PAIR(state_pair(r->state)));
    }
    printw("%-12s", r->state);
    if (t->c->color_out && !chosen) {
        attroff(COLOR_PAIR(state_pair(r->state)));
    }
    printw(" %4lld %7s %11s %10s/s %10s/s %9s", (long long)r->cpus, cpu,
           r->rss ? rss.data : "-", rd.data, wr.data, r->uptime_ns ? up.data : "-");
    clrtoeol();
    if (chosen) {
        attroff(A_REVERSE);
    }
}

static void show(struct top *t)
{
    static const char *const orders[] = { "CPU", "memory", "disk", "name" };
    size_t space = LINES > 5 ? (size_t)LINES - 5 : 1;

    for (size_t i = 0; i < t->n; i++) {
        t->at = strcmp(t->rows[i].uuid, t->chosen) == 0 ? i : t->at;
    }
    t->at = t->n == 0 ? 0 : t->at < t->n ? t->at : t->n - 1;
    t->first = t->at < t->first            ? t->at
               : t->at >= t->first + space ? t->at - space + 1
                                           : t->first;
    erase();
    mvprintw(0, 0, "%s", t->host);
    mvprintw(1, 0, "by %s; refreshed every %.1f s", orders[t->order],
             (double)t->interval_ms / 1000);
    attron(A_BOLD);
    mvprintw(2, 0, "%-24s %-12s %4s %7s %11s %12s %12s %9s", "NAME", "STATE", "CPUS", "CPU",
             "RSS", "READ", "WRITTEN", "UPTIME");
    attroff(A_BOLD);
    for (size_t i = t->first; i < t->n && i < t->first + space; i++) {
        show_row(t, 3 + (int)(i - t->first), &t->rows[i], i == t->at);
    }
    mvprintw(LINES - 1, 0, "%s",
             t->note[0] ? t->note
                        : "q quit  c m d n order by CPU, memory, disk, name  a all  p pause  "
                          "r resume  arrows choose");
    refresh();
    t->note[0] = 0;
}

/* --- keys --------------------------------------------------------------------------------- */

static void act(struct top *t, const char *method, const char *done)
{
    struct json_object *params = json_object_new_object();
    struct api_error x = API_ERROR_INIT;

    if (t->at >= t->n) {
        json_object_put(params);
        return;
    }
    api_json_set_str(params, "vm", t->rows[t->at].uuid);
    if (cli_call_quiet(t->c, method, params, NULL, &x) < 0) {
        copy(t->note, sizeof(t->note), x.message);
    } else {
        snprintf(t->note, sizeof(t->note), "%s: %s", t->rows[t->at].name, done);
    }
}

static void choose(struct top *t, long by)
{
    if (t->n) {
        long to = (long)t->at + by;
        t->at = to < 0 ? 0 : (size_t)to < t->n ? (size_t)to : t->n - 1;
        snprintf(t->chosen, sizeof(t->chosen), "%s", t->rows[t->at].uuid);
    }
}

/* false: the user is done. *again: figures are wanted at once. */
static bool press(struct top *t, int key, bool *again)
{
    static const struct {
        int key;
        enum order order;
    } orders[] = { { 'c', BY_CPU }, { 'm', BY_MEMORY }, { 'd', BY_DISK }, { 'n', BY_NAME } };

    for (size_t i = 0; i < ARRAY_LEN(orders); i++) {
        if (key == orders[i].key) {
            t->order = orders[i].order;
            qsort_r(t->rows, t->n, sizeof(*t->rows), compare, t);
        }
    }
    switch (key) {
    case 'q':
    case 'Q':
    case 3:
        return false;
    case 'a':
        t->all = !t->all;
        *again = true;
        break;
    case 'p':
        act(t, "vm.pause", "paused");
        *again = true;
        break;
    case 'r':
        act(t, "vm.resume", "resumed");
        *again = true;
        break;
    case KEY_UP:
    case 'k':
        choose(t, -1);
        break;
    case KEY_DOWN:
    case 'j':
        choose(t, 1);
        break;
    case KEY_PPAGE:
        choose(t, -(LINES - 5));
        break;
    case KEY_NPAGE:
        choose(t, LINES - 5);
        break;
    default:
        break;
    }
    return true;
}

/* A signal that ends programs has come; they are read here so that the terminal is put back first. */
static bool ended(const struct top *t)
{
    struct signalfd_siginfo info;

    return read(t->signals, &info, sizeof(info)) == sizeof(info);
}

static void loop(struct top *t, uint64_t count)
{
    for (uint64_t i = 0; count == 0 || i < count; i++) {
        bool again = false;

        fetch(t);
        for (int64_t waited = 0; !again && waited < t->interval_ms;) {
            show(t);
            timeout(KEY_WAIT_MS);
            int key = getch();
            if (ended(t) || (key != ERR && !press(t, key, &again))) {
                return;
            }
            waited += key == ERR ? KEY_WAIT_MS : 0;
        }
    }
}

static void begin(struct top *t)
{
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGHUP);
    sigaddset(&set, SIGINT);
    sigprocmask(SIG_BLOCK, &set, NULL);
    t->signals = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
    setlocale(LC_CTYPE, "");
    cbreak();
    noecho();
    keypad(stdscr, TRUE);
    curs_set(0);
    if (t->c->color_out && has_colors()) {
        start_color();
        use_default_colors();
        init_pair(1, COLOR_GREEN, -1);
        init_pair(2, COLOR_YELLOW, -1);
        init_pair(3, COLOR_RED, -1);
    }
}

int cli_verb_top(struct cli *c, struct cli_input *in)
{
    struct top t = { .c = c, .interval_ms = 1000 };
    const char *interval = cli_own(in, "interval"), *count = cli_own(in, "count");
    uint64_t n = 0;
    struct err e = ERR_INIT;
    SCREEN *screen;
    int rc;

    if (interval && (cli_duration(interval, &t.interval_ms, &e) < 0 || t.interval_ms < 100)) {
        return cli_fail(c, CLI_USAGE, NULL, "--interval: %s",
                        e.code ? e.msg : "at least 100ms");
    }
    if (count && str_to_u64(count, 1, 1000000000, "--count", &n, &e) < 0) {
        return cli_fail(c, CLI_USAGE, NULL, "%s", e.msg);
    }
    if (c->json || c->quiet || !isatty(0) || !isatty(1)) {
        return cli_fail(c, CLI_USAGE, "'vmctl stats --watch' prints lines, also as JSON",
                        "top needs a terminal");
    }
    rc = cli_connect(c);
    if (rc != CLI_OK) {
        return rc;
    }
    screen = newterm(NULL, stdout, stdin);
    if (!screen) {
        return cli_fail(c, CLI_FAILED, "set TERM to a terminal that is known here",
                        "the terminal '%s' is not known", getenv("TERM") ?: "");
    }
    t.rates = cli_rates_new();
    begin(&t);
    loop(&t, n);
    endwin();
    delscreen(screen);
    close(t.signals);
    cli_rates_free(t.rates);
    free(t.rows);
    return CLI_OK;
}
