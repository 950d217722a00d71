/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Libvirt XML at the command line: files are read here, but what they mean is the daemon's to say. One thread.
 */
#include "cli/cli.h"

#include "api-schema/gen/methods.h"
#include "api-schema/json/json.h"
#include "engine/base/fd.h"
#include "engine/base/mem.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

int cli_text_of(const char *path, char **text, struct err *e)
{
    AUTO_BUF b = BUF_INIT;
    bool in = strcmp(path, "-") == 0;

    path = in ? "standard input" : path;
    int rc = in ? fd_slurp(0, &b, API_JSON_MAX_SIZE, path, e)
                : file_slurp(path, &b, API_JSON_MAX_SIZE, e);
    for (size_t i = 0; rc >= 0 && i < b.len;) {
        size_t k = api_utf8_len(b.data + i, b.len - i);
        if (k == 0 || b.data[i] == 0) {
            return err_set(e, -EILSEQ, "%s: byte %zu is not UTF-8 text", path, i + 1);
        }
        i += k;
    }
    if (rc < 0) {
        return rc;
    }
    *text = buf_take(&b);
    return 0;
}

int cli_read_text(struct cli *c, const char *path, char **text)
{
    struct err e = ERR_INIT;

    return cli_text_of(path, text, &e) < 0 ? cli_fail(c, CLI_USAGE, NULL, "%s", e.msg) : CLI_OK;
}

bool cli_is_xml(const char *text)
{
    if (strncmp(text, "\xef\xbb\xbf", 3) == 0) {
        text += 3;
    }
    return text[strspn(text, " \t\r\n")] == '<';
}

/* Lines about a file, as compilers write them: "db1.xml:12: <graphics type='spice'>: not supported: ..." */
static void print_remarks(struct cli *c, const char *file, const char *word,
                          struct json_object *list)
{
    size_t n = json_object_is_type(list, json_type_array) ? json_object_array_length(list) : 0;

    for (size_t i = 0; i < n; i++) {
        struct json_object *r = json_object_array_get_idx(list, i);
        AUTO_BUF b = BUF_INIT;
        cli_clean(&b, api_json_get_str(r, "text") ?: "");
        fprintf(stderr, "%s%s%s:%lld:%s %s\n", c->color_err && !*word ? "\033[31m" : "", file,
                c->color_err && !*word ? "\033[0m" : "",
                (long long)api_json_get_int(r, "line", 0), word, b.data ? b.data : "");
    }
}

/* xml.check of a text. CLI_OK and *result also when it is refused. */
static int check(struct cli *c, const char *kind, const char *text, struct json_object **result)
{
    struct json_object *params = json_object_new_object();

    api_json_set_str(params, "xml", text);
    if (kind) {
        api_json_set_str(params, "kind", kind);
    }
    return cli_call(c, "xml.check", params, result);
}

int cli_xml_config(struct cli *c, const char *kind, const char *file, const char *text,
                   struct json_object **config)
{
    AUTO_JSON result = NULL;
    int rc = check(c, kind, text, &result);

    if (rc != CLI_OK) {
        return rc;
    }
    print_remarks(c, file, "", api_json_get(result, "problems"));
    if (!api_json_get_bool(result, "ok", false)) {
        return cli_fail(c, CLI_USAGE, "docs/reference/xml.md lists what is supported",
                        "%s is refused", file);
    }
    if (!c->quiet) {
        print_remarks(c, file, " note:", api_json_get(result, "notes"));
    }
    *config = json_object_get(api_json_get(result, "definition"));
    return CLI_OK;
}

/* The kind of XML that a verb's file is, by the type of the member that it fills. */
static const char *kind_of(const struct cli_verb *v)
{
    const struct api_member *m = v->method ? cli_member(v->method->in, v->file) : NULL;
    const struct api_type *t = m ? m->type : NULL;

    return t == &api_type_net_config      ? "network"
           : t == &api_type_pool_config   ? "pool"
           : t == &api_type_volume_config ? "volume"
                                          : "domain";
}

int cli_resolve_xml(struct cli *c, struct cli_input *in)
{
    struct json_object *given, *base = NULL;
    int rc;

    if (!in->xml) {
        return CLI_OK;
    }
    rc = cli_xml_config(c, kind_of(in->verb), in->xml_file, in->xml, &base);
    if (rc != CLI_OK) {
        return rc;
    }
    given = api_json_get(in->params, in->verb->file);
    if (given) {
        cli_overlay(base, given);
    }
    api_json_set(in->params, in->verb->file, base);
    free(take_ptr(in->xml));
    return CLI_OK;
}

/* ---- xml check, xml define ---- */

static int check_one(struct cli *c, struct cli_input *in, const char *file)
{
    AUTO_FREE char *text = NULL;
    AUTO_JSON result = NULL;
    int rc = cli_read_text(c, file, &text);

    rc = rc == CLI_OK ? check(c, cli_own(in, "kind"), text, &result) : rc;
    if (rc != CLI_OK) {
        return rc;
    }
    bool ok = api_json_get_bool(result, "ok", false);
    if (c->json) {
        cli_print_json(result);
        return ok ? CLI_OK : CLI_FAILED;
    }
    print_remarks(c, file, "", api_json_get(result, "problems"));
    if (!c->quiet) {
        print_remarks(c, file, " note:", api_json_get(result, "notes"));
    }
    if (ok && cli_own(in, "definition")) {
        cli_print_json(api_json_get(result, "definition"));
    } else if (ok && !c->quiet) {
        printf("%s", api_json_get_str(result, "canonical") ?: "");
    }
    return ok ? CLI_OK : CLI_FAILED;
}

/* Every file, the first failure's status. */
static int each_file(struct cli *c, struct cli_input *in,
                     int (*fn)(struct cli *c, struct cli_input *in, const char *file))
{
    int status = CLI_OK;

    for (size_t i = 0; i < in->n_targets; i++) {
        int rc = fn(c, in, in->targets[i]);
        status = status == CLI_OK ? rc : status;
        if (rc == CLI_NO_DAEMON) {
            break;
        }
    }
    return status;
}

int cli_verb_xml_check(struct cli *c, struct cli_input *in)
{
    return each_file(c, in, check_one);
}

static int define_one(struct cli *c, struct cli_input *in, const char *file)
{
    AUTO_FREE char *text = NULL;
    AUTO_JSON result = NULL;
    struct json_object *params;
    int rc = cli_read_text(c, file, &text);

    if (rc != CLI_OK) {
        return rc;
    }
    params = json_object_new_object();
    api_json_set_str(params, "xml", text);
    if (cli_own(in, "project")) {
        api_json_set_str(params, "project", cli_own(in, "project"));
    }
    rc = cli_call(c, "xml.define", params, &result);
    if (rc == CLI_OK && c->json) {
        cli_print_json(result);
    } else if (rc == CLI_OK && !c->quiet) {
        printf("%s: defined\n", api_json_get_str(result, "name") ?: file);
    }
    return rc;
}

int cli_verb_xml_define(struct cli *c, struct cli_input *in)
{
    return each_file(c, in, define_one);
}

/* ---- pool xml, volume xml ---- */

int cli_verb_xml_text(struct cli *c, struct cli_input *in)
{
    AUTO_JSON result = NULL;
    int rc = cli_call(c, in->verb->method->name, json_object_get(in->params), &result);

    if (rc == CLI_OK && c->json) {
        cli_print_json(result);
    } else if (rc == CLI_OK) {
        printf("%s", api_json_get_str(result, "xml") ?: "");
    }
    return rc;
}

/* ---- snapshots ---- */

/* What the document asks for, under what options and arguments said. */
static int take_snapshot_xml(struct cli *c, struct cli_input *in, const char *file)
{
    static const char *const asked[] = { "name", "description", "memory", "memory_file",
                                         "disks" };
    AUTO_FREE char *text = NULL;
    AUTO_JSON config = NULL;
    int rc = cli_read_text(c, file, &text);

    rc = rc == CLI_OK ? cli_xml_config(c, "snapshot", file, text, &config) : rc;
    for (size_t i = 0; rc == CLI_OK && i < ARRAY_LEN(asked); i++) {
        struct json_object *v = api_json_get(config, asked[i]);

        if (v && !api_json_get(in->params, asked[i])) {
            api_json_set(in->params, asked[i], json_object_get(v));
        }
    }
    return rc;
}

int cli_verb_snapshot_create(struct cli *c, struct cli_input *in)
{
    const char *file = cli_own(in, "xml");
    int rc;

    if (cli_own(in, "disk-only")) {
        api_json_set_str(in->params, "memory", "no");
    }
    rc = file ? take_snapshot_xml(c, in, file) : CLI_OK;
    return rc == CLI_OK ? cli_verb_job(c, in) : rc;
}

int cli_verb_snapshot_show(struct cli *c, struct cli_input *in)
{
    AUTO_JSON result = NULL;
    int rc;

    if (cli_own(in, "state")) {
        return cli_snapshot_state(c, api_json_get_str(in->params, "vm"),
                                  api_json_get_str(in->params, "name"));
    }
    if (!cli_own(in, "xml")) {
        return cli_verb_call(c, in);
    }
    rc = cli_call(c, "snapshot.xml", json_object_get(in->params), &result);
    if (rc == CLI_OK && c->json) {
        cli_print_json(result);
    } else if (rc == CLI_OK) {
        printf("%s", api_json_get_str(result, "xml") ?: "");
    }
    return rc;
}

/* ---- show ---- */

int cli_verb_show(struct cli *c, struct cli_input *in)
{
    int status = CLI_OK;

    if (!cli_own(in, "xml")) {
        return cli_verb_call(c, in);
    }
    for (size_t i = 0; i < in->n_targets; i++) {
        struct json_object *params = json_object_new_object();
        AUTO_JSON result = NULL;
        api_json_set_str(params, "vm", in->targets[i]);
        int rc = cli_call(c, "xml.get", params, &result);
        if (rc == CLI_OK && c->json) {
            cli_print_json(result);
        } else if (rc == CLI_OK) {
            printf("%s", api_json_get_str(result, "xml") ?: "");
        }
        status = status == CLI_OK ? rc : status;
        if (rc == CLI_NO_DAEMON) {
            break;
        }
    }
    return status;
}
