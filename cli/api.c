/* SPDX-License-Identifier: Apache-2.0 */
/* `vmctl api`: raw calls, the list of methods, the schema. One thread. */
#include "cli/cli.h"

#include "api-schema/gen/methods.h"
#include "api-schema/json/json.h"

#include <string.h>

static int list_methods(struct cli *c)
{
    static const struct cli_column columns[] = {
        { "METHOD", "method", NULL },
        { "ROLE", "role", NULL },
        { "WHAT IT DOES", "doc", NULL },
    };
    AUTO_JSON rows = json_object_new_array();

    for (size_t i = 0; i < API_N_METHODS; i++) {
        const struct api_method *m = api_methods[i];
        struct json_object *row;
        size_t n = strcspn(m->doc, ".");
        AUTO_FREE char *first = xstrndup(m->doc, n);

        if (m->internal) {
            continue;
        }
        row = json_object_new_object();
        api_json_set_str(row, "method", m->name);
        api_json_set_str(row, "role", api_role_names[m->role]);
        api_json_set_str(row, "doc", first);
        json_object_array_add(rows, row);
    }
    if (c->json) {
        cli_print_json(rows);
    } else if (c->quiet) {
        for (size_t i = 0; i < json_object_array_length(rows); i++) {
            printf("%s\n", api_json_get_str(json_object_array_get_idx(rows, i), "method"));
        }
    } else {
        cli_table(c, rows, columns, ARRAY_LEN(columns));
    }
    return CLI_OK;
}

static int show(struct cli *c, const char *method, const char *member)
{
    AUTO_JSON result = NULL;
    int rc = cli_call(c, method, NULL, &result);

    if (rc == CLI_OK) {
        cli_print_json(api_json_get(result, member));
    }
    return rc;
}

int cli_verb_api(struct cli *c, struct cli_input *in)
{
    const char *method = cli_own(in, "METHOD"), *text = cli_own(in, "PARAMS");
    struct json_object *params = NULL;
    AUTO_JSON result = NULL;
    struct err e = ERR_INIT;
    int rc;

    if (cli_own(in, "schema")) {
        return show(c, "api.schema", "schema");
    }
    if (cli_own(in, "openrpc")) {
        return show(c, "api.openrpc", "openrpc");
    }
    if (!method) {
        return list_methods(c);
    }
    rc = !text                    ? 0
         : strcmp(text, "-") == 0 ? api_json_file("-", &params, &e)
                                  : api_json_parse(text, strlen(text), &params, &e);
    if (rc < 0) {
        return cli_fail(c, CLI_USAGE, "PARAMS is a JSON object, as '{\"vm\":\"db1\"}'", "%s",
                        e.msg);
    }
    rc = cli_call(c, method, params, &result);
    if (rc == CLI_OK) {
        cli_print_json(result);
    }
    return rc;
}
