/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The human monitor's commands that tools ask for: `info ...`, `x` and `xp`, and those of snapshots.c. Answers are text with \r\n,
 * also when a command is unknown, as QEMU does it. Loop thread.
 */
#include "daemon/qmp/cmd.h"

#include "api-schema/gen/types.h"
#include "daemon/qmp/session.h"
#include "daemon/run/runfs.h"
#include "daemon/spawn/proto.h"
#include "engine/base/base64.h"
#include "engine/base/buf.h"
#include "engine/base/mem.h"
#include "engine/base/str.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { EXAMINE_MAX = 4096 /* bytes */ };

static void say(struct qmp_cmd *c, struct buf *b)
{
    qmp_return(c, json_object_new_string(b->data ? b->data : ""));
}

static void say_text(struct qmp_cmd *c, const char *text)
{
    qmp_return(c, json_object_new_string(text));
}

/* Lines end as on a terminal. */
static void say_lines(struct qmp_cmd *c, const char *text)
{
    AUTO_BUF b = BUF_INIT;

    for (; *text; text++) {
        if (*text == '\n') {
            buf_add_char(&b, '\r');
        }
        buf_add_char(&b, *text);
    }
    say(c, &b);
}

static int64_t cpu_index(const struct qmp_cmd *c)
{
    return api_json_get_int(c->args, "cpu-index", 0);
}

/* --- info ----------------------------------------------------------------------------------------------------- */

static void info_status(struct qmp_cmd *c)
{
    AUTO_BUF b = BUF_INIT;
    const char *state = qmp_run_state(c->vm);

    buf_printf(&b, "VM status: %s%s%s%s\r\n",
               strcmp(state, "running") == 0 ? "running" : "paused",
               strcmp(state, "running") == 0 || strcmp(state, "paused") == 0 ? "" : " (",
               strcmp(state, "running") == 0 || strcmp(state, "paused") == 0 ? "" : state,
               strcmp(state, "running") == 0 || strcmp(state, "paused") == 0 ? "" : ")");
    say(c, &b);
}

static void info_name(struct qmp_cmd *c)
{
    AUTO_FREE char *text = xasprintf("%s\r\n", c->vm->config.name);

    say_text(c, text);
}

static void info_uuid(struct qmp_cmd *c)
{
    AUTO_FREE char *text = xasprintf("%s\r\n", c->vm->config.uuid);

    say_text(c, text);
}

static void info_version(struct qmp_cmd *c)
{
    say_text(c, "vmd " PACKAGE_VERSION "\r\n");
}

static void info_kvm(struct qmp_cmd *c)
{
    say_text(c, "kvm support: not compiled\r\n");
}

static void info_cpus(struct qmp_cmd *c)
{
    AUTO_BUF b = BUF_INIT;

    for (int64_t i = 0; i < c->vm->config.cpus; i++) {
        buf_printf(&b, "%s CPU #%d: thread_id=%d\r\n", i == cpu_index(c) ? "*" : " ", (int)i,
                   qmp_vcpu_thread(c->vm, i));
    }
    say(c, &b);
}

static void info_block(struct qmp_cmd *c)
{
    AUTO_BUF b = BUF_INIT;

    for (size_t i = 0; i < c->vm->config.n_disks; i++) {
        const struct api_disk *d = &c->vm->config.disks[i];
        char device[24];

        qmp_disk_device((unsigned)i, device);
        buf_printf(&b,
                   "%s%s (%s): %s (%s%s)\r\n    Attached to:      %s\r\n"
                   "    Cache mode:       writeback\r\n",
                   i ? "\r\n" : "", d->name, d->name, d->file, api_disk_format_name(d->format),
                   d->readonly ? ", read-only" : "", device);
    }
    say(c, &b);
}

static void info_chardev(struct qmp_cmd *c)
{
    AUTO_FREE char *console = runfs_path(&c->d->opt, c->vm->id, VM_CONSOLE);
    AUTO_BUF b = BUF_INIT;

    if (c->vm->qmp) {
        buf_printf(&b, "compat_monitor0: filename=unix:%s,server=on\r\n", c->vm->qmp->path);
    }
    buf_printf(&b, "%s: filename=unix:%s,server=on\r\n",
               c->vm->config.console == API_CONSOLE_KIND_SERIAL ? "serial0" : "console0",
               console);
    say(c, &b);
}

static void info_snapshots(struct qmp_cmd *c)
{
    AUTO_BUF b = BUF_INIT;

    qmp_snapshot_table(c->vm, &b);
    say(c, &b);
}

static void with_registers(struct qmp_cmd *c, struct json_object *result)
{
    const char *text = api_json_get_str(result, "text");
    AUTO_BUF b = BUF_INIT;

    buf_printf(&b, "\nCPU#%d\n%s", (int)cpu_index(c), text ? text : "");
    say_lines(c, b.data);
}

static void info_registers(struct qmp_cmd *c)
{
    struct json_object *params = json_object_new_object();

    api_json_set_int(params, "vcpu", cpu_index(c));
    qmp_ask(c, "emu.registers", params, with_registers);
}

static void with_qtree(struct qmp_cmd *c, struct json_object *result)
{
    struct json_object *list = api_json_get(result, "devices");
    size_t n = json_object_is_type(list, json_type_array) ? json_object_array_length(list) : 0;
    AUTO_BUF b = BUF_INIT;

    for (size_t i = 0; i < n; i++) {
        struct json_object *d = json_object_array_get_idx(list, i);
        struct json_object *props = api_json_get(d, "properties");
        const char *class = api_json_get_str(d, "device_class"),
                   *id = api_json_get_str(d, "id");
        size_t n_props = json_object_is_type(props, json_type_array)
                             ? json_object_array_length(props)
                             : 0;

        buf_printf(&b, "dev: %s, id \"%s\"\n", class ? class : "", id ? id : "");
        for (size_t k = 0; k < n_props; k++) {
            struct json_object *p = json_object_array_get_idx(props, k);
            const char *name = api_json_get_str(p, "name");
            struct json_object *value = api_json_get(p, "value");
            buf_printf(&b, "  %s = %s\n", name ? name : "",
                       value ? json_object_to_json_string(value) : "\"\"");
        }
    }
    say_lines(c, b.data ? b.data : "");
}

static void info_qtree(struct qmp_cmd *c)
{
    qmp_ask(c, "emu.devices", NULL, with_qtree);
}

static const struct {
    const char *what;
    void (*fn)(struct qmp_cmd *c);
    const char *doc;
} infos[] = {
    { "block", info_block, "the disks" },
    { "chardev", info_chardev, "console and monitor" },
    { "cpus", info_cpus, "the vCPUs" },
    { "kvm", info_kvm, "whether KVM is used" },
    { "name", info_name, "name of the VM" },
    { "qtree", info_qtree, "the devices" },
    { "registers", info_registers, "registers of a vCPU" },
    { "snapshots", info_snapshots, "snapshots with memory" },
    { "status", info_status, "whether the guest runs" },
    { "uuid", info_uuid, "UUID of the VM" },
    { "version", info_version, "version of vmd" },
};

static bool help_info(struct qmp_cmd *c)
{
    AUTO_BUF b = BUF_INIT;

    for (unsigned i = 0; i < ARRAY_LEN(infos); i++) {
        buf_printf(&b, "info %s -- %s\r\n", infos[i].what, infos[i].doc);
    }
    say(c, &b);
    return true;
}

static bool info(struct qmp_cmd *c, const char *what)
{
    for (unsigned i = 0; i < ARRAY_LEN(infos); i++) {
        if (strcmp(infos[i].what, what) == 0) {
            infos[i].fn(c);
            return true;
        }
    }
    return *what == 0 && help_info(c);
}

/* --- x and xp ------------------------------------------------------------------------------------------------- */

struct examine {
    uint64_t address;
    unsigned count, size;
    char format;
};

static void add_value(struct buf *b, const struct examine *x, uint64_t v)
{
    int64_t s = x->size == 8 ? (int64_t)v
                             : (int64_t)(v << (64 - 8 * x->size)) >> (64 - 8 * x->size);

    switch (x->format) {
    case 'd':
        buf_printf(b, " %lld", (long long)s);
        break;
    case 'u':
        buf_printf(b, " %llu", (unsigned long long)v);
        break;
    case 'o':
        buf_printf(b, " 0%llo", (unsigned long long)v);
        break;
    case 'c':
        buf_printf(b, isprint((int)(v & 0x7f)) ? " '%c'" : " '\\x%02x'", (int)(v & 0xff));
        break;
    default:
        buf_printf(b, " 0x%0*llx", (int)(2 * x->size), (unsigned long long)v);
    }
}

static void with_memory(struct qmp_cmd *c, struct json_object *result)
{
    const struct examine *x = c->data;
    const char *text = api_json_get_str(result, "data");
    AUTO_BUF bytes = BUF_INIT;
    AUTO_BUF b = BUF_INIT;
    unsigned line = x->size == 1 ? 8 : 16 / x->size;

    if (!text || !base64_take(&bytes, text) || bytes.len < x->count * x->size) {
        qmp_error(c, "GenericError", "the emulator answered wrongly");
        return;
    }
    for (unsigned i = 0; i < x->count; i++) {
        uint64_t v = 0;

        memcpy(&v, bytes.data + i * x->size, x->size);
        if (i % line == 0) {
            buf_printf(&b, "%s%016llx:", i ? "\r\n" : "",
                       (unsigned long long)(x->address + i * x->size));
        }
        add_value(&b, x, v);
    }
    buf_add_str(&b, "\r\n");
    say(c, &b);
}

/* "/4xw 0x1000" after x or xp. */
static bool parse_examine(const char *p, struct examine *x)
{
    AUTO_FREE char *address = NULL;

    *x = (struct examine){ .count = 1, .size = 4, .format = 'x' };
    if (*p == '/') {
        p++;
        if (isdigit((unsigned char)*p)) {
            char *end;
            unsigned long n = strtoul(p, &end, 10);
            x->count = n > EXAMINE_MAX ? EXAMINE_MAX + 1 : (unsigned)n;
            p = end;
        }
        for (; *p && *p != ' '; p++) {
            const char *sizes = "bhwg", *at = strchr(sizes, *p);
            if (at) {
                x->size = 1u << (at - sizes);
            } else if (strchr("xduoc", *p)) {
                x->format = *p;
            } else {
                return false;
            }
        }
    }
    while (*p == ' ') {
        p++;
    }
    address = xstrdup(p);
    for (size_t n = strlen(address); n > 0 && address[n - 1] == ' '; n--) {
        address[n - 1] = 0;
    }
    return x->count > 0 && *address &&
           str_to_u64(address, 0, UINT64_MAX, "address", &x->address, NULL) == 0;
}

static void examine(struct qmp_cmd *c, const char *rest, bool physical)
{
    struct examine *x = xnew(struct examine);
    struct json_object *params;
    char address[24];

    c->data = x;
    if (!parse_examine(rest, x)) {
        say_text(c, "usage: x[p] /COUNT FORMAT SIZE ADDRESS, as x /4xw 0x80000000\r\n");
        return;
    }
    if (x->count * x->size > EXAMINE_MAX) {
        say_text(c, "at most 4096 bytes at a time\r\n");
        return;
    }
    snprintf(address, sizeof(address), "0x%llx", (unsigned long long)x->address);
    params = json_object_new_object();
    api_json_set_str(params, "address", address);
    api_json_set_int(params, "size", x->count * x->size);
    if (!physical) {
        api_json_set_int(params, "vcpu", cpu_index(c));
    }
    qmp_ask(c, "emu.memory", params, with_memory);
}

/* --- the command line ------------------------------------------------------------------------------------------- */

static void unknown(struct qmp_cmd *c, const char *line)
{
    AUTO_FREE char *text = xasprintf("unknown command: '%.200s'\r\n", line);

    say_text(c, text);
}

void qmp_do_human_monitor_command(struct qmp_cmd *c)
{
    const char *line = qmp_arg(c, "command-line");
    size_t n = strcspn(line, " /");
    const char *rest = line + n;

    if (cpu_index(c) < 0 || cpu_index(c) >= c->vm->config.cpus) {
        qmp_error(c, "GenericError", "Parameter 'cpu-index' expects a CPU number");
        return;
    }
    while (*rest == ' ') {
        rest++;
    }
    if (n == 0 && !*line) {
        say_text(c, "");
    } else if (n == 4 && memcmp(line, "info", n) == 0) {
        if (!info(c, rest)) {
            unknown(c, line);
        }
    } else if (n == 4 && memcmp(line, "help", n) == 0) {
        help_info(c);
    } else if ((n == 1 && line[0] == 'x') || (n == 2 && memcmp(line, "xp", n) == 0)) {
        examine(c, rest, n == 2);
    } else if (!qmp_snapshot_line(c, line, n, rest)) {
        unknown(c, line);
    }
}
