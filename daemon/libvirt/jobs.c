/* SPDX-License-Identifier: Apache-2.0 */
/* See jobs.h. */
#include "daemon/libvirt/jobs.h"

#include "daemon/xml/xml.h"

#include <string.h>

enum { ASK_AGAIN_MS = 3600000 };

static void wait_more(struct lv_call *c);

static void on_waited(struct lv_call *c, struct json_object *job)
{
    const char *state = api_json_get_str(job, "state");
    const char *why = api_json_get_str(api_json_get(job, "error"), "message");

    if (strcmp(state, "done") == 0) {
        c->over(c, job);
    } else if (strcmp(state, "failed") == 0 || strcmp(state, "cancelled") == 0) {
        lv_fail(c, LV_E_OPERATION_FAILED, "%s", why ? why : "it was cancelled");
    } else {
        wait_more(c);
    }
}

static void wait_more(struct lv_call *c)
{
    struct json_object *params = json_object_new_object();

    api_json_set_int(params, "job", c->number);
    api_json_set_int(params, "timeout_ms", ASK_AGAIN_MS);
    lv_ask(c, c->about, "job.wait", params, on_waited);
}

static void on_ended(struct lv_call *c, struct json_object *job)
{
    struct json_object *params;

    if (api_json_get(job, "ended_ms")) {
        lv_reply(c, NULL);
        return;
    }
    params = json_object_new_object();
    api_json_set_int(params, "job", c->number);
    api_json_set_int(params, "timeout_ms", ASK_AGAIN_MS);
    lv_ask(c, c->about, "job.wait", params, on_ended);
}

void lv_wait_any(struct lv_call *c, struct json_object *result)
{
    c->number = api_json_get_int(result, "job", 0);
    on_ended(c, NULL);
}

void lv_wait(struct lv_call *c, struct json_object *result,
             void (*then)(struct lv_call *c, struct json_object *job))
{
    c->over = then;
    c->number = api_json_get_int(result, "job", 0);
    wait_more(c);
}

struct json_object *lv_read_xml(struct lv_call *c, const struct xml_kind *kind,
                                const char *text)
{
    struct json_object *definition = NULL;
    struct xml_result r;

    xml_parse(kind, text, strlen(text), &r);
    if (r.definition) {
        definition = json_object_get(r.definition);
    } else {
        const char *why = r.n_problems ? r.problems[0].text : "the document is refused";
        lv_fail(c, strstr(why, "not supported") ? LV_E_CONFIG_UNSUPPORTED : LV_E_XML,
                "line %u: %s", r.n_problems ? r.problems[0].line : 0, why);
    }
    xml_result_done(&r);
    return definition;
}
