/* SPDX-License-Identifier: Apache-2.0 */
/* Handlers of the api family: what the schema alone can answer. Thread of the server. */
#include "api-schema/json/json.h"
#include "api-schema/rpc/call.h"

#include <string.h>

void api_handle_api_ping(struct api_call *call, struct api_api_ping_in *in)
{
    struct api_api_ping_out out = { .echo = in->echo };

    api_reply_api_ping(call, &out);
}

/* The schema with one family that holds one method, and the shared types and errors. */
static struct json_object *only_method(struct json_object *schema, const struct api_method *m)
{
    struct json_object *family = api_json_get(schema, m->family), *methods, *one;

    methods = api_json_get(family, "methods");
    one = json_object_new_object();
    api_json_set(one, m->name, json_object_get(api_json_get(methods, m->name)));
    return one;
}

void api_handle_api_schema(struct api_call *call, struct api_api_schema_in *in)
{
    AUTO_JSON schema = json_tokener_parse(api_schema_json);
    AUTO_JSON one = NULL;
    struct api_api_schema_out out = { .hash = (char *)api_schema_hash, .schema = schema };

    if (in->method) {
        const struct api_method *m = api_method_find(in->method);
        if (!m || m->internal) {
            api_fail(call, API_E_NOT_FOUND, in->method,
                     "api.schema without 'method' lists them", "no method '%s'", in->method);
            return;
        }
        one = only_method(schema, m);
        out.schema = one;
    }
    api_reply_api_schema(call, &out);
}

void api_handle_api_openrpc(struct api_call *call, struct api_api_openrpc_in *in)
{
    AUTO_JSON doc = json_tokener_parse(api_openrpc_json);
    struct api_api_openrpc_out out = { .openrpc = doc };

    (void)in;
    api_reply_api_openrpc(call, &out);
}
