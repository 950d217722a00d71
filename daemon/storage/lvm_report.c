/* SPDX-License-Identifier: Apache-2.0 */
/* See lvm_report.h. Owns nothing. */
#include "daemon/storage/lvm_report.h"

#include "api-schema/json/json.h"
#include "engine/base/mem.h"
#include "engine/base/str.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define MADE "vmd-new."
#define GONE "vmd-gone."
/* Kinds of volumes (the first letter of lv_attr, lvs(8)) that a VM can have as a disk. */
#define DISKS "-oOmMrRVCws"
enum { REPORT_MAX = 4 << 20 };

/* A size is a string of digits. */
static bool read_size(struct json_object *o, const char *key, int64_t *out)
{
    const char *text = api_json_get_str(o, key);
    char *end;
    if (!text || text[0] < '0' || text[0] > '9') {
        return false;
    }
    errno = 0;
    *out = strtoll(text, &end, 10);
    return errno == 0 && *end == 0;
}

static int64_t id_of(const char *uuid)
{
    uint64_t hash = UINT64_C(0xcbf29ce484222325); /* FNV-1a */
    for (const char *p = uuid; *p; p++) {
        hash = (hash ^ (uint8_t)*p) * UINT64_C(0x100000001b3);
    }
    return (int64_t)(hash >> 1) | 1;
}

/* The tag that begins so, without that; tags have commas between them. */
static char *find_tag(const char *tags, const char *prefix)
{
    for (const char *p = tags; *p;) {
        size_t n = strcspn(p, ",");
        if (str_starts(p, prefix)) {
            return xstrndup(p + strlen(prefix), n - strlen(prefix));
        }
        p += n + (p[n] == ',');
    }
    return NULL;
}

static bool read_lv(struct json_object *o, struct lvm_lv *out)
{
    const char *name = api_json_get_str(o, "lv_name"), *uuid = api_json_get_str(o, "lv_uuid");
    const char *attr = api_json_get_str(o, "lv_attr"), *tags = api_json_get_str(o, "lv_tags");
    const char *open = api_json_get_str(o, "lv_device_open");
    struct lvm_lv v = { .size = 0 };
    if (!name || !uuid || !attr || !attr[0] || !str_copy(v.name, sizeof(v.name), name) ||
        !read_size(o, "lv_size", &v.size)) {
        return false;
    }
    v.id = id_of(uuid);
    v.open = open && strcmp(open, "open") == 0;
    v.plain = strchr(DISKS, attr[0]) != NULL;
    v.made = tags ? find_tag(tags, MADE) : NULL;
    v.gone = tags ? find_tag(tags, GONE) : NULL;
    *out = v;
    return true;
}

/* The rows of the report's one list. NULL: there is none. */
static struct json_object *rows(struct json_object *o, const char *kind)
{
    struct json_object *all = api_json_get(o, "report");
    if (!json_object_is_type(all, json_type_array) || json_object_array_length(all) != 1) {
        return NULL;
    }
    struct json_object *list = api_json_get(json_object_array_get_idx(all, 0), kind);
    return json_object_is_type(list, json_type_array) ? list : NULL;
}

static int strange(struct err *e)
{
    return err_set(e, -EPROTO, "lvm answers with something else than its report");
}

int lvm_read_lvs(const char *text, size_t n, size_t most, struct lvm_lv **out, size_t *n_out,
                 struct err *e)
{
    AUTO_JSON o = NULL;
    if (api_json_parse_max(text, n, REPORT_MAX, 0, &o, NULL) < 0) {
        return strange(e);
    }
    struct json_object *list = rows(o, "lv");
    if (!list) {
        return strange(e);
    }
    size_t all = json_object_array_length(list), got = 0;
    all = all < most ? all : most;
    struct lvm_lv *v = xrealloc_n(NULL, all + 1, sizeof(*v));
    for (size_t i = 0; i < all; i++) {
        if (!read_lv(json_object_array_get_idx(list, i), &v[got])) {
            lvm_lvs_done(v, got);
            return strange(e);
        }
        got++;
    }
    *out = v;
    *n_out = got;
    return 0;
}

void lvm_lvs_done(struct lvm_lv *list, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        free(list[i].made);
        free(list[i].gone);
    }
    free(list);
}

int lvm_read_vg(const char *text, size_t n, struct lvm_vg *out, struct err *e)
{
    AUTO_JSON o = NULL;
    struct lvm_vg v;
    struct json_object *list = NULL, *row;
    if (api_json_parse_max(text, n, REPORT_MAX, 0, &o, NULL) == 0) {
        list = rows(o, "vg");
    }
    row = list && json_object_array_length(list) == 1 ? json_object_array_get_idx(list, 0)
                                                      : NULL;
    if (!row || !read_size(row, "vg_size", &v.size) || !read_size(row, "vg_free", &v.free) ||
        !read_size(row, "vg_extent_size", &v.extent) || v.extent <= 0 || v.free > v.size) {
        return strange(e);
    }
    *out = v;
    return 0;
}

/* Does any of its lines say so? */
static bool says(const char *said, const char *const *words)
{
    for (; *words; words++) {
        if (strstr(said, *words)) {
            return true;
        }
    }
    return false;
}

int lvm_complaint(char *said, struct err *e)
{
    static const char *const missing[] = { "not found", "Failed to find", NULL };
    static const char *const there[] = { "already exists", NULL };
    static const char *const used[] = { " in use", "is used by another device",
                                        "open logical volume", NULL };
    static const char *const full[] = { "nsufficient free space", "nsufficient suitable",
                                        "No space left", NULL };
    int code = says(said, used)      ? -EBUSY
               : says(said, there)   ? -EEXIST
               : says(said, full)    ? -ENOSPC
               : says(said, missing) ? -ENOENT
                                     : -EIO;
    char *line = said;
    for (char *p = said; *p; p++) { /* names of other people's volumes may be in it */
        *p = (*p >= 0x20 && *p < 0x7f) || *p == '\n' ? *p : '?';
    }
    while (*line) {
        line += strspn(line, " \n");
        size_t n = strcspn(line, "\n");
        if (!str_starts(line, "WARNING") && !str_starts(line, "File descriptor ") && n > 0) {
            return err_set(e, code, "%.*s", n < 300 ? (int)n : 300, line);
        }
        line += n;
    }
    return err_set(e, code, "lvm failed and did not say why");
}
