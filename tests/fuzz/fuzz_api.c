/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzz target: what a client sends. The input is a text; when it is JSON, it is decoded as the input and the output of
 * every method of the schema, and what decodes must come back the same from encoding and decoding once more.
 */
#include "api-schema/gen/methods.h"
#include "api-schema/json/codec.h"
#include "api-schema/json/error.h"
#include "api-schema/json/json.h"
#include "tests/fuzz/fuzz.h"

#include <string.h>

const char fuzz_name[] = "fuzz_api";
static uint64_t n_json, n_decoded;

void fuzz_setup(void)
{
}

void fuzz_finish(void)
{
    printf("# %llu of the texts were JSON, %llu decodings succeeded\n",
           (unsigned long long)n_json, (unsigned long long)n_decoded);
}

static void decode(const struct api_type *t, const struct json_object *o, unsigned flags)
{
    struct api_error x = { 0 };
    AUTO_JSON again = NULL;
    void *a, *b;

    if (!t || t->n_values) {
        return;
    }
    a = calloc(1, t->size + 1);
    b = calloc(1, t->size + 1);
    if (!a || !b) {
        abort();
    }
    if (api_decode(t, o, flags, "", a, &x) == 0) {
        n_decoded++;
        again = api_encode(t, a);
        if (api_decode(t, again, API_STRICT, "", b, &x) != 0) {
            FUZZ_FAIL("%s does not decode what it encoded: %s", t->name, api_json_text(again));
        }
        api_release(t, b);
        api_release(t, a);
    }
    free(a);
    free(b);
}

void fuzz_one(const uint8_t *data, size_t size)
{
    AUTO_JSON o = NULL;
    struct err e = ERR_INIT;
    struct json_object *p;
    size_t i;

    if (api_json_parse((const char *)data, size, &o, &e) != 0) {
        return;
    }
    n_json++;
    (void)api_json_get_str(o, "method");
    p = api_json_get(o, "params");
    p = p ? p : o;
    if (!json_object_is_type(p, json_type_object)) {
        return;
    }
    for (i = 0; i < API_N_METHODS; i++) {
        decode(api_methods[i]->in, p, API_STRICT);
        decode(api_methods[i]->in, p, API_LENIENT);
        decode(api_methods[i]->out, p, API_LENIENT);
    }
}
