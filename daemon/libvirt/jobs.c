/* SPDX-License-Identifier: Apache-2.0 */
/* See jobs.h. */
#include "daemon/libvirt/jobs.h"

#include "daemon/xml/xml.h"

#include <string.h>

static void on_waited(struct lv_call *c, struct json_object *job)
{
    const char *state = api_json_get_str(job, "state");
    const char *why = api_json_get_str(api_json_get(job, "error"), "message");

    if (strcmp(state, "done") == 0) {
        c->over(c, job);
    } else {
        lv_fail(c, LV_E_OPERATION_FAILED, "%s", why ? why : "it was cancelled");
    }
}

/* However long it takes: copies of large disks take days. */
static void wait_for(struct lv_call *c, struct json_object *result,
                     void (*then)(struct lv_call *c, struct json_object *job))
{
    struct json_object *params = json_object_new_object();

    c->number = api_json_get_int(result, "job", 0);
    api_json_set_int(params, "job", c->number);
    lv_ask(c, c->about, "job.wait", params, then);
}

void lv_wait_any(struct lv_call *c, struct json_object *result)
{
    wait_for(c, result, lv_done);
}

void lv_wait(struct lv_call *c, struct json_object *result,
             void (*then)(struct lv_call *c, struct json_object *job))
{
    c->over = then;
    wait_for(c, result, on_waited);
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
