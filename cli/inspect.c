/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Verbs that look into the state of a VM: fields, memory, and what differs between snapshots. Answers that come in pieces are
 * put together here. One thread.
 */
#include "cli/cli.h"

#include "api-schema/json/json.h"
#include "engine/base/base64.h"
#include "engine/base/fd.h"
#include "engine/base/mem.h"
#include "engine/base/str.h"

#include <ctype.h>
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

/* --- fields ----------------------------------------------------------------------------------- */

/* Asks again from `next` on until there is none; the elements of `member` of all answers, the caller's. */
static int gather(struct cli *c, const char *method, struct json_object *first,
                  const char *member, const char *from, struct json_object **out)
{
    struct json_object *all = json_object_new_array();
    int rc = CLI_OK;

    for (struct json_object *next = NULL; rc == CLI_OK;) {
        struct json_object *params = json_object_new_object();
        AUTO_JSON result = NULL;

        cli_overlay(params, first);
        if (next) {
            api_json_set(params, from, next);
        }
        rc = cli_call(c, method, params, &result);
        struct json_object *list = rc == CLI_OK ? api_json_get(result, member) : NULL;
        size_t n = json_object_is_type(list, json_type_array) ? json_object_array_length(list)
                                                              : 0;

        for (size_t i = 0; i < n; i++) {
            json_object_array_add(all, json_object_get(json_object_array_get_idx(list, i)));
        }
        next = rc == CLI_OK ? json_object_get(api_json_get(result, "next")) : NULL;
        if (!next) {
            break;
        }
    }
    *out = all;
    return rc;
}

static int show_fields(struct cli *c, struct json_object *params)
{
    static const struct cli_column columns[] = { { "PART", "part", NULL },
                                                 { "FIELD", "field", NULL },
                                                 { "VALUE", "value", NULL } };
    struct json_object *fields;
    int rc = gather(c, "vm.inspect", params, "fields", "after", &fields);

    if (rc == CLI_OK && c->json) {
        AUTO_JSON o = json_object_new_object();

        api_json_set(o, "fields", json_object_get(fields));
        cli_print_json(o);
    } else if (rc == CLI_OK) {
        cli_table(c, fields, columns, ARRAY_LEN(columns));
    }
    json_object_put(fields);
    return rc;
}

int cli_verb_inspect(struct cli *c, struct cli_input *in)
{
    return show_fields(c, in->params);
}

int cli_snapshot_state(struct cli *c, const char *vm, const char *name)
{
    AUTO_JSON params = json_object_new_object();

    api_json_set_str(params, "vm", vm);
    api_json_set_str(params, "snapshot", name);
    return show_fields(c, params);
}

/* --- memory ----------------------------------------------------------------------------------- */

enum { PIECE = 65536, LINE = 16 };

static void print_line(uint64_t address, const unsigned char *p, size_t n)
{
    printf("%016" PRIx64 " ", address);
    for (size_t i = 0; i < LINE; i++) {
        if (i < n) {
            printf("%s%02x", i % 8 ? " " : "  ", p[i]);
        } else {
            printf("%s", i % 8 ? "   " : "    ");
        }
    }
    printf("  |");
    for (size_t i = 0; i < n; i++) {
        putchar(p[i] >= 0x20 && p[i] < 0x7f ? p[i] : '.');
    }
    printf("|\n");
}

static int read_piece(struct cli *c, struct json_object *first, uint64_t address, uint64_t n,
                      struct buf *out)
{
    struct json_object *params = json_object_new_object();
    AUTO_JSON result = NULL;
    AUTO_FREE char *text = xasprintf("0x%" PRIx64, address);

    cli_overlay(params, first);
    api_json_set_str(params, "address", text);
    api_json_set_int(params, "size", (int64_t)n);
    int rc = cli_call(c, "vm.memory", params, &result);
    const char *data = rc == CLI_OK ? api_json_get_str(result, "data") : NULL;

    out->len = 0;
    if (rc == CLI_OK && (!data || !base64_take(out, data) || out->len != n)) {
        rc = cli_fail(c, CLI_FAILED, NULL, "the bytes came garbled");
    }
    return rc;
}

int cli_verb_memory_show(struct cli *c, struct cli_input *in)
{
    const char *words = cli_own(in, "SIZE");
    uint64_t size = 256, address = 0;
    struct err e = ERR_INIT;
    AUTO_BUF bytes = BUF_INIT, all = BUF_INIT;

    if ((words && str_to_size(words, "SIZE", &size, &e) != 0) ||
        str_to_u64(api_json_get_str(in->params, "address"), 0, UINT64_MAX, "ADDRESS", &address,
                   &e) != 0) {
        return cli_fail(c, CLI_USAGE, NULL, "%s", e.msg);
    }
    for (uint64_t done = 0; done < size; done += bytes.len) {
        int rc = read_piece(c, in->params, address + done,
                            size - done < PIECE ? size - done : PIECE, &bytes);

        if (rc != CLI_OK) {
            return rc;
        }
        if (c->json) {
            base64_add(&all, bytes.data, bytes.len);
            buf_add_char(&all, 0);
            printf("{\"address\":\"0x%" PRIx64 "\",\"data\":\"%s\"}\n", address + done,
                   all.data);
            all.len = 0;
        } else if (c->quiet) {
            fwrite(bytes.data, 1, bytes.len, stdout);
        } else {
            for (size_t at = 0; at < bytes.len; at += LINE) {
                print_line(address + done + at, (unsigned char *)bytes.data + at,
                           bytes.len - at < LINE ? bytes.len - at : LINE);
            }
        }
    }
    return CLI_OK;
}

/* Text, or digits after 0x. */
static bool take_pattern(const char *text, struct buf *out)
{
    if (strncmp(text, "0x", 2) != 0) {
        buf_add_str(out, text);
        return out->len > 0;
    }
    for (text += 2; isxdigit((unsigned char)text[0]) && isxdigit((unsigned char)text[1]);
         text += 2) {
        char pair[3] = { text[0], text[1], 0 };

        buf_add_char(out, (char)strtoul(pair, NULL, 16));
    }
    return *text == 0 && out->len > 0;
}

int cli_verb_memory_search(struct cli *c, struct cli_input *in)
{
    AUTO_BUF bytes = BUF_INIT, text = BUF_INIT;
    struct json_object *found;

    if (!take_pattern(cli_own(in, "BYTES"), &bytes) || bytes.len > 256) {
        return cli_fail(c, CLI_USAGE, "write text, or pairs of digits: 0x7f454c46",
                        "'%s' is not what can be looked for: 1 to 256 bytes",
                        cli_own(in, "BYTES"));
    }
    base64_add(&text, bytes.data, bytes.len);
    buf_add_char(&text, 0);
    api_json_set_str(in->params, "bytes", text.data);
    int rc = gather(c, "vm.memory_search", in->params, "found", "address", &found);

    if (rc == CLI_OK && c->json) {
        AUTO_JSON o = json_object_new_object();

        api_json_set(o, "found", json_object_get(found));
        cli_print_json(o);
    }
    for (size_t i = 0; rc == CLI_OK && !c->json && i < json_object_array_length(found); i++) {
        AUTO_BUF line = BUF_INIT;

        cli_value_text(&line, json_object_array_get_idx(found, i));
        printf("%.*s\n", (int)line.len, line.data);
    }
    json_object_put(found);
    return rc;
}

/* --- differences ------------------------------------------------------------------------------ */

int cli_verb_snapshot_diff(struct cli *c, struct cli_input *in)
{
    static const struct cli_column fields[] = { { "PART", "part", NULL },
                                                { "FIELD", "field", NULL },
                                                { "FROM", "from", NULL },
                                                { "TO", "to", NULL } },
                                   pages[] = { { "MEMORY", "region", NULL },
                                               { "ADDRESS", "address", NULL },
                                               { "PAGES", "pages", NULL } };
    AUTO_JSON result = NULL;
    int rc = cli_call(c, "snapshot.diff", json_object_get(in->params), &result);

    if (rc != CLI_OK || c->json) {
        if (rc == CLI_OK) {
            cli_print_json(result);
        }
        return rc;
    }
    if (!c->quiet) {
        cli_table(c, api_json_get(result, "fields"), fields, ARRAY_LEN(fields));
        cli_table(c, api_json_get(result, "pages"), pages, ARRAY_LEN(pages));
    }
    printf("%" PRIi64 " fields, %" PRIi64 " pages%s\n",
           api_json_get_int(result, "fields_changed", 0),
           api_json_get_int(result, "pages_changed", 0),
           api_json_get_bool(result, "truncated", false) ? " (more than are shown)" : "");
    return CLI_OK;
}
