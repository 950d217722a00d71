/* SPDX-License-Identifier: Apache-2.0 */
/* A CPU model and its features: <cpu> against "rv64,zba=off". Constant data. */
#include "daemon/xml/cpu.h"

#include "api-schema/json/json.h"
#include "daemon/xml/tree.h"
#include "engine/base/mem.h"
#include "engine/base/str.h"

#include <errno.h>
#include <string.h>

static int cpu_features(const struct xml_node *n, struct buf *b, struct err *e)
{
    for (size_t i = 0; i < n->n_kids; i++) {
        const struct xml_node *k = n->kids[i];
        if (!k->name || strcmp(k->name, "feature") != 0) {
            continue;
        }
        const char *name = xml_get_attr(k, "name"), *policy = xml_get_attr(k, "policy");
        bool on = !policy || strcmp(policy, "require") == 0 || strcmp(policy, "force") == 0;
        if (!name || !name[0] || strpbrk(name, ",= \t\n")) {
            return err_set(e, -EINVAL,
                           "not supported: a <feature> has no name that vmd could know");
        }
        if (!on && strcmp(policy, "disable") != 0) {
            return err_set(
                e, -EINVAL,
                "not supported: <feature policy='%.20s'>; vmd knows require and disable",
                policy);
        }
        buf_printf(b, ",%s=%s", name, on ? "on" : "off");
    }
    return 0;
}

static int cpu_get(const struct xml_row *row, const struct xml_node *n, const char *text,
                   struct json_object **out, struct err *e)
{
    const char *mode = xml_get_attr(n, "mode"), *match = xml_get_attr(n, "match");
    const struct xml_node *model = xml_get_kid(n, "model");
    AUTO_FREE char *name = model ? xml_text(model) : NULL;
    AUTO_BUF b = BUF_INIT;

    (void)row;
    (void)text;
    if (match && strcmp(match, "exact") != 0) {
        return err_set(e, -EINVAL,
                       "not supported: match='%.20s'; the guest has exactly what is named",
                       match);
    }
    bool host = mode && strcmp(mode, "host-passthrough") == 0,
         whole = host || (mode && strcmp(mode, "maximum") == 0);
    if (mode && !whole && strcmp(mode, "custom") != 0) {
        return err_set(
            e, -EINVAL,
            "not supported: mode='%.20s'; vmd knows maximum, host-passthrough and custom",
            mode);
    }
    if (whole || !model) {
        if (model || (mode && strcmp(mode, "custom") == 0)) {
            return err_set(e, -EINVAL,
                           model ? "not supported: <model> beside mode='%.20s'"
                                 : "<model> is missing%.0s",
                           mode);
        }
        buf_add_str(&b, host ? "host" : "max");
    } else {
        if (!name[0] || strpbrk(name, ",= \t\n")) {
            return err_set(e, -EINVAL, "not supported: '%.40s' is no CPU model", name);
        }
        buf_add_str(&b, name);
    }
    if (cpu_features(n, &b, e) < 0) {
        return -1;
    }
    *out = json_object_new_string(b.data);
    return 0;
}

/* "zba=off" to <feature>; false when it is no switch (vlen=512). */
static bool put_feature(struct xml_node *n, const char *text, size_t len)
{
    size_t eq = strcspn(text, "=");
    struct xml_node *k;

    if (eq == 0 || eq >= len) {
        return false;
    }
    AUTO_FREE char *name = xstrndup(text, eq), *value = xstrndup(text + eq + 1, len - eq - 1);
    bool on = strcmp(value, "on") == 0;
    if ((!on && strcmp(value, "off") != 0) || !xml_can_say(name) || strpbrk(name, " \t\n")) {
        return false;
    }
    if (n) {
        k = xml_node_new(n, "feature");
        xml_set_attr(k, "policy", on ? "require" : "disable");
        xml_set_attr(k, "name", name);
    }
    return true;
}

static bool cpu_put(const struct xml_row *row, struct json_object *v, struct xml_node *n,
                    struct buf *text)
{
    const char *cpu = json_object_get_string(v);
    size_t len = strcspn(cpu, ",");

    (void)row;
    (void)text;
    AUTO_FREE char *model = xstrndup(cpu, len);
    if (!len || !xml_can_say(model) || strpbrk(model, "= \t\r\n")) {
        return false;
    }
    /* First only a look: all of it can be said, or nothing is. */
    for (int write = 0; write < 2; write++) {
        if (write && !cpu[len]) {
            if (strcmp(model, "max") == 0) {
                xml_set_attr(n, "mode", "maximum");
                return true;
            }
        }
        if (write && strcmp(model, "host") == 0) {
            xml_set_attr(n, "mode", "host-passthrough");
        } else if (write) {
            struct xml_node *k;
            xml_set_attr(n, "mode", "custom");
            xml_set_attr(n, "match", "exact");
            k = xml_node_new(n, "model");
            xml_set_attr(k, "fallback", "forbid");
            xml_add_text(k, model);
        }
        for (const char *at = cpu + len; *at;) {
            size_t k = strcspn(++at, ",");
            if (!put_feature(write ? n : NULL, at, k)) {
                return false;
            }
            at += k;
        }
    }
    return true;
}

const struct xml_conv xml_as_cpu = { cpu_get, cpu_put, "a CPU model and its features" };
