/* SPDX-License-Identifier: Apache-2.0 */
/* `vmctl qmp`: one QMP command on a VM. One thread. */
#include "cli/cli.h"

#include "api-schema/json/json.h"

#include <string.h>

static int print_answer(struct cli *c, struct json_object *result)
{
    struct json_object *error = api_json_get(result, "error");
    struct json_object *value = api_json_get(result, "result");

    if (error) {
        const char *desc = api_json_get_str(error, "desc");
        const char *kind = api_json_get_str(error, "class");
        return cli_fail(c, CLI_FAILED, NULL, "%s: %s", kind ? kind : "error", desc ? desc : "");
    }
    if (json_object_is_type(value, json_type_string) && !c->json) {
        AUTO_BUF clean = BUF_INIT;
        const char *text = json_object_get_string(value);
        for (const char *p = text; *p; p++) {
            if (*p == '\n' || (unsigned char)*p >= 0x20) {
                buf_add_char(&clean, *p);
            }
        }
        fputs(clean.data ? clean.data : "", stdout);
    } else {
        cli_print_json(value);
    }
    return CLI_OK;
}

int cli_verb_qmp(struct cli *c, struct cli_input *in)
{
    const char *text = cli_own(in, "ARGUMENTS");
    struct json_object *params = json_object_new_object(), *args = NULL;
    AUTO_JSON result = NULL;
    struct err e = ERR_INIT;
    int rc;

    if (text && api_json_parse(text, strlen(text), &args, &e) < 0) {
        json_object_put(params);
        return cli_fail(c, CLI_USAGE,
                        "ARGUMENTS is a JSON object, as '{\"path\":\"/machine\"}'", "%s",
                        e.msg);
    }
    api_json_set_str(params, "vm", cli_own(in, "VM"));
    api_json_set_str(params, "execute", cli_own(in, "COMMAND"));
    if (args) {
        api_json_set(params, "arguments", args);
    }
    rc = cli_call(c, "vm.qmp", params, &result);
    return rc == CLI_OK ? print_answer(c, result) : rc;
}
