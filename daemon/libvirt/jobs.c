/* SPDX-License-Identifier: Apache-2.0 */
/* See jobs.h. */
#include "daemon/libvirt/jobs.h"

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

void lv_wait(struct lv_call *c, struct json_object *result,
             void (*then)(struct lv_call *c, struct json_object *job))
{
    c->over = then;
    c->number = api_json_get_int(result, "job", 0);
    wait_more(c);
}
