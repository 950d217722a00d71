/* SPDX-License-Identifier: Apache-2.0 */
/* What looks into the execution engine of a VM: its counters. One thread. */
#include "cli/cli.h"

#include "api-schema/json/json.h"

#include <inttypes.h>

/* A row a counter, a column a vCPU: they all have the same counters. */
static void vcpu_rows(struct json_object *vcpus)
{
    size_t n = vcpus ? json_object_array_length(vcpus) : 0;
    struct json_object *first = n ? api_json_get(json_object_array_get_idx(vcpus, 0),
                                                 "counters")
                                  : NULL;

    for (size_t k = 0; first && k < json_object_array_length(first); k++) {
        struct json_object *row = json_object_array_get_idx(first, k);
        AUTO_BUF line = BUF_INIT;

        buf_add_str(&line, "  ");
        cli_clean(&line, api_json_get_str(row, "name") ?: "?");
        for (size_t len = line.len; len < 16; len++) {
            buf_add_str(&line, " ");
        }
        for (size_t i = 0; i < n; i++) {
            struct json_object *all = api_json_get(json_object_array_get_idx(vcpus, i),
                                                   "counters");
            struct json_object *it = all ? json_object_array_get_idx(all, k) : NULL;
            buf_printf(&line, " %13" PRId64, it ? api_json_get_int(it, "value", 0) : 0);
        }
        buf_add_str(&line, "  ");
        cli_clean(&line, api_json_get_str(row, "doc") ?: "");
        printf("%s\n", line.data);
    }
}

static void print_engine(const char *vm, struct json_object *o)
{
    struct json_object *all = api_json_get(o, "counters"), *vcpus = api_json_get(o, "vcpus");

    printf("%s: engine %s\n", vm, api_json_get_str(o, "engine") ?: "?");
    if (api_json_get(o, "instructions")) {
        printf("  %-14s %13" PRId64 "  guest instructions retired\n", "instructions",
               api_json_get_int(o, "instructions", 0));
    } else {
        printf("  %-14s %13s  guest instructions retired (counted with tcg.icount)\n",
               "instructions", "not counted");
    }
    for (size_t i = 0; all && i < json_object_array_length(all); i++) {
        struct json_object *row = json_object_array_get_idx(all, i);
        AUTO_BUF line = BUF_INIT, doc = BUF_INIT;

        cli_clean(&line, api_json_get_str(row, "name") ?: "?");
        cli_clean(&doc, api_json_get_str(row, "doc") ?: "");
        printf("  %-14s %13" PRId64 "  %s\n", line.data ? line.data : "",
               api_json_get_int(row, "value", 0), doc.data ? doc.data : "");
    }
    printf("each vCPU:\n");
    vcpu_rows(vcpus);
}

int cli_engine_stats(struct cli *c, struct cli_input *in)
{
    if (in->n_targets == 0) {
        return cli_fail(c, CLI_USAGE, "vmctl stats NAME --engine", "--engine needs a VM");
    }
    for (size_t i = 0; i < in->n_targets; i++) {
        struct json_object *params = json_object_new_object();
        AUTO_JSON result = NULL;
        int rc;

        api_json_set_str(params, "vm", in->targets[i]);
        rc = cli_call(c, "vm.engine", params, &result);
        if (rc != CLI_OK) {
            return rc;
        }
        if (c->json) {
            cli_print_json(result);
        } else {
            print_engine(in->targets[i], result);
        }
    }
    return CLI_OK;
}
