/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How single values are written in libvirt's XML: words, numbers with units, UUIDs. Pure functions, any thread.
 */
#include "api-schema/json/json.h"
#include "daemon/xml/table.h"
#include "daemon/xml/tree.h"
#include "engine/base/mem.h"
#include "engine/base/str.h"

#include <ctype.h>
#include <errno.h>
#include <string.h>

/* Without white space around it; the caller's. */
static char *trimmed(const char *text)
{
    size_t n;

    text += strspn(text, " \t\r\n");
    n = strlen(text);
    while (n && strchr(" \t\r\n", text[n - 1])) {
        n--;
    }
    return xstrndup(text, n);
}

static bool put_string(struct json_object *v, struct buf *text)
{
    const char *s = json_object_get_string(v);

    if (!s ||
        (json_object_is_type(v, json_type_string) &&
         strlen(s) != (size_t)json_object_get_string_len(v)) ||
        !xml_can_say(s)) {
        return false;
    }
    buf_add_str(text, s);
    return true;
}

/* ---- text ---- */

static int text_get(const struct xml_row *row, const struct xml_node *n, const char *text,
                    struct json_object **out, struct err *e)
{
    (void)row;
    (void)n;
    (void)e;
    *out = text[0] ? json_object_new_string(text) : NULL;
    return 0;
}

static bool text_put(const struct xml_row *row, struct json_object *v, struct xml_node *n,
                     struct buf *text)
{
    (void)row;
    (void)n;
    return put_string(v, text);
}

const struct xml_conv xml_as_text = { text_get, text_put, "text" };

static bool path_put(const struct xml_row *row, struct json_object *v, struct xml_node *n,
                     struct buf *text)
{
    const char *s = json_object_get_string(v);

    (void)row;
    (void)n;
    return s && s[0] == '/' && put_string(v, text);
}

static int path_get(const struct xml_row *row, const struct xml_node *n, const char *text,
                    struct json_object **out, struct err *e)
{
    if (text[0] != '/') {
        return err_set(e, -EINVAL, "'%.*s' is no absolute path", 100, text);
    }
    return text_get(row, n, text, out, e);
}

const struct xml_conv xml_as_path = { path_get, path_put, "an absolute path" };

/* ---- words ---- */

/* Calls for each "theirs=ours" of a map; true when one side is `word`: the other in out. */
static bool map_word(const char *map, const char *word, bool theirs, char *out, size_t size)
{
    while (map && *map) {
        size_t n = strcspn(map, " "), eq = strcspn(map, "=");
        const char *from = theirs ? map : map + eq + 1, *to = theirs ? map + eq + 1 : map;
        size_t nfrom, nto;
        nfrom = theirs ? eq : n - eq - 1;
        nto = theirs ? n - eq - 1 : eq;
        if (strlen(word) == nfrom && strncmp(word, from, nfrom) == 0 && nto < size) {
            memcpy(out, to, nto);
            out[nto] = 0;
            return true;
        }
        map += n;
        map += strspn(map, " ");
    }
    return false;
}

const char *xml_map_word(const char **map, int *len)
{
    for (const char *at = *map; *at;) {
        size_t n = strcspn(at, " "), eq = strcspn(at, "=");
        const char *next = at + n + strspn(at + n, " ");
        *len = (int)(eq < n ? eq : n);
        if (strncmp(at, next, (size_t)*len + 1) != 0) {
            *map = next;
            return at;
        }
        at = next; /* the same word for what is absent and for what is said: once */
    }
    return NULL;
}

static void add_theirs(struct buf *b, const char *map)
{
    const char *word;
    int len;

    while ((word = xml_map_word(&map, &len))) {
        buf_printf(b, "%s'%.*s'", b->len ? ", " : "", len, word);
    }
}

static int word_get(const struct xml_row *row, const struct xml_node *n, const char *text,
                    struct json_object **out, struct err *e)
{
    AUTO_FREE char *word = trimmed(text);
    char ours[64];

    (void)n;
    if (!row->words) {
        *out = word[0] ? json_object_new_string(word) : NULL;
        return 0;
    }
    if (!map_word(row->words, word, true, ours, sizeof(ours))) {
        AUTO_BUF b = BUF_INIT;
        add_theirs(&b, row->words);
        return err_set(e, -EINVAL, "vmd knows %s here", b.data);
    }
    *out = ours[0] ? json_object_new_string(ours) : NULL;
    return 0;
}

static bool word_put(const struct xml_row *row, struct json_object *v, struct xml_node *n,
                     struct buf *text)
{
    const char *s = v            ? json_object_get_string(v)
                    : row->words ? ""
                                 : NULL; /* "theirs=": absent */
    char theirs[64];

    (void)n;
    if (!row->words) {
        AUTO_FREE char *cut = trimmed(s ? s : " ");
        return s && cut[0] && strcmp(cut, s) == 0 && put_string(v, text);
    }
    if (!s || !map_word(row->words, s, false, theirs, sizeof(theirs))) {
        return false;
    }
    buf_add_str(text, theirs);
    return true;
}

const struct xml_conv xml_as_word = { word_get, word_put, "a word" };

/* ---- numbers ---- */

static int number(const char *text, uint64_t max, uint64_t *out, struct err *e)
{
    AUTO_FREE char *word = trimmed(text);
    size_t n = strspn(word, "0123456789");

    /* str_to_u64() would take 0x10, which libvirt's schema does not. */
    if (n == 0 || word[n]) {
        return err_set(e, -EINVAL, "'%.*s' is not a number", 60, word);
    }
    if (n > 20 || str_to_u64(word + (strspn(word, "0") < n ? strspn(word, "0") : n - 1), 0, max,
                             "the number", out, NULL) < 0) {
        return err_set(e, -ERANGE, "%.*s is too large", 60, word);
    }
    return 0;
}

static int int_get(const struct xml_row *row, const struct xml_node *n, const char *text,
                   struct json_object **out, struct err *e)
{
    uint64_t u = 0;

    (void)row;
    (void)n;
    if (number(text, INT64_MAX, &u, e) < 0) {
        return -1;
    }
    *out = json_object_new_int64((int64_t)u);
    return 0;
}

static bool int_put(const struct xml_row *row, struct json_object *v, struct xml_node *n,
                    struct buf *text)
{
    (void)row;
    (void)n;
    if (!json_object_is_type(v, json_type_int) || json_object_get_int64(v) < 0) {
        return false;
    }
    buf_printf(text, "%lld", (long long)json_object_get_int64(v));
    return true;
}

const struct xml_conv xml_as_int = { int_get, int_put, "a number" };

/* Bandwidth, which libvirt counts in KiB. */
static int kib_get(const struct xml_row *row, const struct xml_node *n, const char *text,
                   struct json_object **out, struct err *e)
{
    struct json_object *v = NULL;
    int rc = int_get(row, n, text, &v, e);
    if (rc == 0 && v) {
        int64_t kib = json_object_get_int64(v);
        if (kib < 0 || kib > INT64_C(1) << 30) {
            json_object_put(v);
            return err_set(e, -ERANGE, "a number of KiB up to 2^30");
        }
        *out = json_object_new_int64(kib * 1024);
        json_object_put(v);
    }
    return rc;
}

static bool kib_put(const struct xml_row *row, struct json_object *v, struct xml_node *n,
                    struct buf *text)
{
    int64_t bytes = json_object_get_int64(v);
    (void)row;
    (void)n;
    if (bytes % 1024) {
        return false;
    }
    buf_printf(text, "%lld", (long long)(bytes / 1024));
    return true;
}

const struct xml_conv xml_as_kib = { kib_get, kib_put, "a number of KiB" };

/* Scaled integers of libvirt's XML: powers of 1000 end in B, of 1024 in iB or stand alone. */
static const struct {
    const char *name;
    uint64_t bytes;
} units[] = {
    { "b", 1 },
    { "bytes", 1 },
    { "byte", 1 },
    { "KB", 1000 },
    { "k", 1024 },
    { "KiB", 1024 },
    { "MB", 1000000 },
    { "M", 1024 * 1024 },
    { "MiB", 1024 * 1024 },
    { "GB", 1000000000 },
    { "G", 1024 * 1024 * 1024 },
    { "GiB", 1024 * 1024 * 1024 },
    { "TB", 1000000000000 },
    { "T", 1024ull * 1024 * 1024 * 1024 },
    { "TiB", 1024ull * 1024 * 1024 * 1024 },
    { "PB", 1000000000000000 },
    { "P", 1024ull * 1024 * 1024 * 1024 * 1024 },
    { "PiB", 1024ull * 1024 * 1024 * 1024 * 1024 },
    { "EB", 1000000000000000000 },
    { "E", 1024ull * 1024 * 1024 * 1024 * 1024 * 1024 },
    { "EiB", 1024ull * 1024 * 1024 * 1024 * 1024 * 1024 },
};

static int unit_of(const char *name, uint64_t *bytes, struct err *e)
{
    for (size_t i = 0; i < ARRAY_LEN(units); i++) {
        if (strcasecmp(units[i].name, name) == 0) {
            *bytes = units[i].bytes;
            return 0;
        }
    }
    return err_set(e, -EINVAL,
                   "unit '%.*s' is none of bytes, KB, KiB, MB, MiB, GB, GiB, TB, TiB", 40,
                   name);
}

static int size_get(const struct xml_row *row, const struct xml_node *n, const char *text,
                    struct json_object **out, struct err *e)
{
    const char *unit = xml_get_attr(n, "unit");
    uint64_t u = 0, scale;

    if (unit_of(unit ? unit : row->words, &scale, e) < 0 ||
        number(text, INT64_MAX, &u, e) < 0) {
        return -1;
    }
    if (u > INT64_MAX / scale) {
        return err_set(e, -ERANGE, "%llu %s is too large", (unsigned long long)u,
                       unit ? unit : row->words);
    }
    u *= scale;
    /* As libvirt does with memory, whose smallest unit is the KiB. */
    if (strcmp(row->words, "KiB") == 0 && u <= INT64_MAX - 1024) {
        u = (u + 1023) / 1024 * 1024;
    }
    *out = json_object_new_int64((int64_t)u);
    return 0;
}

static bool size_put(const struct xml_row *row, struct json_object *v, struct xml_node *n,
                     struct buf *text)
{
    int64_t bytes = json_object_get_int64(v);
    uint64_t scale = 1;

    unit_of(row->words, &scale, NULL);
    if (bytes < 0 || bytes % (int64_t)scale) {
        return false;
    }
    xml_set_attr(n, "unit", row->words);
    buf_printf(text, "%lld", (long long)(bytes / (int64_t)scale));
    return true;
}

const struct xml_conv xml_as_size = { size_get, size_put, "a number, in the `unit` given" };

static int octal_get(const struct xml_row *row, const struct xml_node *n, const char *text,
                     struct json_object **out, struct err *e)
{
    AUTO_FREE char *word = trimmed(text);
    size_t len = strspn(word, "01234567");

    (void)row;
    (void)n;
    if (len == 0 || word[len] || len > 5 || strtol(word, NULL, 8) > 07777) {
        return err_set(e, -EINVAL, "'%.*s' is no octal mode such as 0711", 60, word);
    }
    *out = json_object_new_int64(strtol(word, NULL, 8));
    return 0;
}

static bool octal_put(const struct xml_row *row, struct json_object *v, struct xml_node *n,
                      struct buf *text)
{
    (void)row;
    (void)n;
    buf_printf(text, "0%llo", (long long)json_object_get_int64(v));
    return true;
}

const struct xml_conv xml_as_octal = { octal_get, octal_put, "an octal mode" };

/* ---- yes and no ---- */

static int yesno_get(const struct xml_row *row, const struct xml_node *n, const char *text,
                     struct json_object **out, struct err *e)
{
    AUTO_FREE char *word = trimmed(text);
    const char *on = row->words ? "on" : "yes", *off = row->words ? "off" : "no";
    bool yes = strcmp(word, on) == 0;

    (void)n;
    if (!yes && strcmp(word, off) != 0) {
        return err_set(e, -EINVAL, "'%.*s' is neither %s nor %s", 40, word, on, off);
    }
    *out = json_object_new_boolean(yes);
    return 0;
}

static bool yesno_put(const struct xml_row *row, struct json_object *v, struct xml_node *n,
                      struct buf *text)
{
    bool yes = json_object_get_boolean(v);

    (void)n;
    buf_add_str(text, row->words ? yes ? "on" : "off" : yes ? "yes" : "no");
    return true;
}

const struct xml_conv xml_as_yesno = { yesno_get, yesno_put, "yes or no" };

/* ---- UUIDs ---- */

static int uuid_get(const struct xml_row *row, const struct xml_node *n, const char *text,
                    struct json_object **out, struct err *e)
{
    AUTO_FREE char *word = trimmed(text);
    char uuid[37];
    size_t at = 0;

    (void)row;
    (void)n;
    for (const char *p = word; *p; p++) {
        if (*p == '-' || *p == ' ') {
            continue;
        }
        if (!isxdigit((unsigned char)*p) || at >= 36) {
            at = 0;
            break;
        }
        uuid[at++] = (char)tolower((unsigned char)*p);
        if (at == 8 || at == 13 || at == 18 || at == 23) {
            uuid[at++] = '-';
        }
    }
    uuid[at] = 0;
    if (at != 36) {
        return err_set(e, -EINVAL, "'%.*s' is no UUID of 32 hexadecimal digits", 60, word);
    }
    *out = json_object_new_string(uuid);
    return 0;
}

const struct xml_conv xml_as_uuid = { uuid_get, text_put, "a UUID" };
