/* SPDX-License-Identifier: Apache-2.0 */
/* The host's figures and CPU models. */
#include "daemon/libvirt/call.h"
#include "daemon/libvirt/parts.h"
#include "daemon/libvirt/procs.h"
#include "daemon/xml/tree.h"
#include "engine/base/fd.h"
#include "engine/base/str.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* --- memory --------------------------------------------------------------------------------------------- */

static void on_cells(struct lv_call *c, struct json_object *info)
{
    struct json_object *o = json_object_new_object(), *list = json_object_new_array();

    if (lv_int(c, "start_cell") == 0 &&
        lv_int(c, "maxcells") > 0) { /* capabilities tell of one */
        json_object_array_add(list,
                              json_object_new_int64(api_json_get_int(info, "memory_free", 0)));
    }
    api_json_set(o, "cells", list);
    lv_reply(c, o);
}

void lv_do_node_cells(struct lv_call *c)
{
    lv_ask(c, NULL, "host.info", NULL, on_cells);
}

/* Free pages of that many KiB; -1: the host has no such pages. */
static int64_t free_pages(int64_t kib, int64_t memory_free)
{
    char path[96];
    AUTO_BUF text = BUF_INIT;

    if (kib * 1024 == sysconf(_SC_PAGESIZE)) {
        return memory_free / (kib * 1024);
    }
    snprintf(path, sizeof(path), "/sys/kernel/mm/hugepages/hugepages-%lldkB/free_hugepages",
             (long long)kib);
    return file_slurp(path, &text, 64, NULL) == 0 && text.len ? strtoll(text.data, NULL, 10)
                                                              : -1;
}

static void on_pages(struct lv_call *c, struct json_object *info)
{
    struct json_object *sizes = api_json_get(c->args, "pages"), *o, *list;

    if (lv_int(c, "start_cell") > 0 || lv_int(c, "cell_count") > 1) {
        lv_fail(c, LV_E_INVALID_ARG, "there is one cell, number 0");
        return;
    }
    list = json_object_new_array();
    for (size_t i = 0; sizes && i < json_object_array_length(sizes); i++) {
        int64_t kib = json_object_get_int64(json_object_array_get_idx(sizes, i));
        int64_t n = free_pages(kib, api_json_get_int(info, "memory_free", 0));
        if (n < 0) {
            json_object_put(list);
            lv_fail(c, LV_E_OPERATION_FAILED, "the host has no pages of %lld KiB",
                    (long long)kib);
            return;
        }
        json_object_array_add(list, json_object_new_int64(n));
    }
    o = json_object_new_object();
    api_json_set(o, "counts", list);
    lv_reply(c, o);
}

void lv_do_node_free_pages(struct lv_call *c)
{
    lv_ask(c, NULL, "host.info", NULL, on_pages);
}

/* Answers with rows of {field, value}, or with how many there are. */
static void reply_rows(struct lv_call *c, const char *const *fields, const int64_t *values,
                       int n)
{
    struct json_object *o = json_object_new_object(), *list = json_object_new_array();

    for (int i = 0; i < n && lv_int(c, "nparams") > 0; i++) {
        struct json_object *row = lv_object("field", fields[i]);
        api_json_set_int(row, "value", values[i]);
        json_object_array_add(list, row);
    }
    api_json_set(o, "params", list);
    api_json_set_int(o, "nparams", n);
    lv_reply(c, o);
}

static void on_memory(struct lv_call *c, struct json_object *info)
{
    static const char *const fields[] = { "total", "free", "buffers", "cached" },
                             *const heads[] = { "\nBuffers:", "\nCached:" };
    int64_t values[4] = { api_json_get_int(info, "memory", 0) / 1024,
                          api_json_get_int(info, "memory_free", 0) / 1024 };
    AUTO_BUF text = BUF_INIT;
    bool read = file_slurp("/proc/meminfo", &text, 65536, NULL) == 0 && text.len;

    for (unsigned i = 0; read && i < 2; i++) {
        const char *at = strstr(text.data, heads[i]);
        values[2 + i] = at ? strtoll(at + strlen(heads[i]), NULL, 10) : 0;
    }
    if (lv_int(c, "cell_num") > 0) {
        lv_fail(c, LV_E_INVALID_ARG, "there is one cell, number 0");
    } else {
        reply_rows(c, fields, values, 4);
    }
}

void lv_do_node_memory_stats(struct lv_call *c)
{
    lv_ask(c, NULL, "host.info", NULL, on_memory);
}

/* --- CPUs ----------------------------------------------------------------------------------------------- */

static void on_cpu(struct lv_call *c, struct json_object *info)
{
    static const char *const fields[] = { "kernel", "user", "idle", "iowait" };
    long long user, nice, system, idle, wait, irq, soft;
    char head[32] = "cpu ";
    AUTO_BUF text = BUF_INIT;
    const char *at = NULL;
    int64_t ns = 1000000000 / sysconf(_SC_CLK_TCK);

    (void)info;
    if (lv_int(c, "cpunum") >= 0) {
        snprintf(head, sizeof(head), "cpu%lld ", (long long)lv_int(c, "cpunum"));
    }
    if (file_slurp("/proc/stat", &text, 1 << 20, NULL) == 0 && text.len) {
        at = strstr(text.data, head);
    }
    if (!at || sscanf(at + strlen(head), "%lld %lld %lld %lld %lld %lld %lld", &user, &nice,
                      &system, &idle, &wait, &irq, &soft) < 7) {
        lv_fail(c, LV_E_INVALID_ARG, "the host has no CPU %lld",
                (long long)lv_int(c, "cpunum"));
        return;
    }
    reply_rows(c, fields,
               (const int64_t[]){ (system + irq + soft) * ns, (user + nice) * ns, idle * ns,
                                  wait * ns },
               4);
}

void lv_do_node_cpu_stats(struct lv_call *c)
{
    lv_ask(c, NULL, "host.info", NULL, on_cpu);
}

/* The guest architecture of that name, or the first one; NULL: there is none. */
static struct json_object *arch_of(struct json_object *capabilities, const char *name)
{
    struct json_object *archs = api_json_get(capabilities, "archs");

    for (size_t i = 0; i < json_object_array_length(archs); i++) {
        struct json_object *one = json_object_array_get_idx(archs, i);
        if (!name || strcmp(api_json_get_str(one, "arch"), name) == 0) {
            return one;
        }
    }
    return NULL;
}

static void on_models(struct lv_call *c, struct json_object *capabilities)
{
    struct json_object *arch = arch_of(capabilities, lv_str(c, "arch")), *o, *models;

    if (!arch) {
        lv_fail(c, LV_E_INVALID_ARG, "vmd runs no guests of '%s'", lv_str(c, "arch"));
        return;
    }
    models = api_json_get(arch, "cpus");
    o = json_object_new_object();
    if (lv_int(c, "need_results") && models) {
        api_json_set(o, "models", json_object_get(models));
    }
    api_json_set_int(o, "ret", models ? (int64_t)json_object_array_length(models) : 0);
    lv_reply(c, o);
}

void lv_do_cpu_models(struct lv_call *c)
{
    lv_ask(c, NULL, "host.capabilities", NULL, on_models);
}

/* The model that a <cpu> names, the caller's; NULL: the call has failed. */
static char *model_of(struct lv_call *c, const char *text)
{
    struct err e = ERR_INIT;
    struct xml_node *root = xml_read(text, strlen(text), &e);
    const struct xml_node *model = root ? xml_get_kid(root, "model") : NULL;
    const char *mode = root ? xml_get_attr(root, "mode") : NULL;
    char *name = NULL;

    if (model) {
        name = xml_text(model);
    } else if (mode && strcmp(mode, "maximum") == 0) {
        name = xasprintf("max");
    }
    xml_node_free(root);
    if (!name) {
        lv_fail(c, LV_E_XML, "no <cpu> with a <model>: %s",
                e.code ? e.msg : "the model is missing");
    }
    return name;
}

/* virCPUCompareResult. What is emulated can be as little as is asked for. */
static void on_compare(struct lv_call *c, struct json_object *capabilities)
{
    enum { INCOMPATIBLE, IDENTICAL, SUPERSET };
    struct json_object *arch = arch_of(capabilities, lv_str(c, "arch")), *models;
    AUTO_FREE char *name = NULL;
    int64_t result = INCOMPATIBLE;

    if (!arch) {
        lv_fail(c, LV_E_INVALID_ARG, "vmd runs no guests of '%s'", lv_str(c, "arch"));
        return;
    }
    name = model_of(c, lv_str(c, "xml_cpu"));
    if (!name) {
        return;
    }
    models = api_json_get(arch, "cpus");
    for (size_t i = 0; models && i < json_object_array_length(models); i++) {
        if (strcmp(json_object_get_string(json_object_array_get_idx(models, i)), name) == 0) {
            result = strcmp(name, "max") == 0 ? IDENTICAL : SUPERSET;
        }
    }
    lv_reply_int(c, "result", result);
}

void lv_do_compare_cpu(struct lv_call *c)
{
    lv_ask(c, NULL, "host.capabilities", NULL, on_compare);
}

/* --- its identity --------------------------------------------------------------------------------------- */

static void put_entries(struct buf *b, const char *block, const char *const *entries)
{
    char path[96];
    bool any = false;

    for (; entries[0]; entries += 2) {
        AUTO_BUF text = BUF_INIT;
        snprintf(path, sizeof(path), "/sys/class/dmi/id/%s", entries[1]);
        if (file_slurp(path, &text, 256, NULL) < 0 || text.len < 2) {
            continue;
        }
        text.data[strcspn(text.data, "\n")] = 0;
        if (xml_can_say(text.data) && !strpbrk(text.data, "<&")) {
            buf_printf(b, any ? "" : "  <%s>\n", block);
            buf_printf(b, "    <entry name='%s'>%s</entry>\n", entries[0], text.data);
            any = true;
        }
    }
    if (any) {
        buf_printf(b, "  </%s>\n", block);
    }
}

static void on_sysinfo(struct lv_call *c, struct json_object *info)
{
    static const char *const bios[] = { "vendor", "bios_vendor", "version", "bios_version",
                                        "date",   "bios_date",   NULL,      NULL },
                             *const system[] = { "manufacturer", "sys_vendor",
                                                 "product",      "product_name",
                                                 "version",      "product_version",
                                                 "family",       "product_family",
                                                 NULL,           NULL },
                             *const board[] = { "manufacturer", "board_vendor",
                                                "product",      "board_name",
                                                "version",      "board_version",
                                                NULL,           NULL };
    AUTO_BUF b = BUF_INIT;

    (void)info;
    buf_add_str(&b, "<sysinfo type='smbios'>\n");
    put_entries(&b, "bios", bios);
    put_entries(&b, "system", system);
    put_entries(&b, "baseBoard", board);
    buf_add_str(&b, "</sysinfo>\n");
    lv_reply_str(c, "sysinfo", b.data);
}

void lv_do_sysinfo(struct lv_call *c)
{
    lv_ask(c, NULL, "host.info", NULL, on_sysinfo);
}
