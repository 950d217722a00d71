/* SPDX-License-Identifier: Apache-2.0 */
/*
 * QMP commands of VMs that are recorded or replayed. Loop thread.
 */
#include "daemon/qmp/cmd.h"

#include "api-schema/json/json.h"
#include "daemon/run/supervise.h"

#include <string.h>

static struct json_object *replay_info(const char *mode, int64_t count)
{
    struct json_object *o = json_object_new_object();

    api_json_set_str(o, "mode", mode);
    api_json_set_int(o, "icount", count);
    return o;
}

static void with_place(struct qmp_cmd *c, struct json_object *result)
{
    const char *mode = api_json_get_str(result, "mode"), *file = NULL;
    bool plays = mode && strcmp(mode, "replay") == 0;
    struct json_object *o = replay_info(plays                                 ? "play"
                                        : mode && strcmp(mode, "record") == 0 ? "record"
                                                                              : "none",
                                        api_json_get_int(result, "count", 0));

    if (plays && c->vm->run) {
        file = run_replay_file(c->vm->run);
    }
    if (file) {
        api_json_set_str(o, "filename", file);
    }
    qmp_return(c, o);
}

void qmp_do_query_replay(struct qmp_cmd *c)
{
    if (!c->vm->run || run_replay_mode(c->vm->run) == API_REPLAY_MODE_NONE) {
        qmp_return(c, replay_info("none", 0));
        return;
    }
    qmp_ask(c, "emu.replay_status", NULL, with_place);
}

static void moved(struct qmp_cmd *c, struct json_object *result)
{
    (void)result;
    qmp_return_nothing(c);
}

/* To that instruction, or (negative) to the end; now, or when it is resumed. */
static void move(struct qmp_cmd *c, int64_t count, bool run)
{
    struct json_object *o;

    if (!c->vm->run || run_replay_mode(c->vm->run) != API_REPLAY_MODE_REPLAY) {
        qmp_error(c, "GenericError", "VM '%s' is not replayed", c->vm->config.name);
        return;
    }
    o = json_object_new_object();
    if (count >= 0) {
        api_json_set_int(o, "count", count);
    }
    api_json_set_bool(o, "run", run);
    qmp_ask(c, "emu.replay_to", o, moved);
}

static void move_to(struct qmp_cmd *c, bool run)
{
    int64_t count = api_json_get_int(c->args, "icount", -1);

    if (count < 0) {
        qmp_error(c, "GenericError", "icount must not be negative");
        return;
    }
    move(c, count, run);
}

void qmp_do_replay_break(struct qmp_cmd *c)
{
    move_to(c, false);
}

void qmp_do_replay_seek(struct qmp_cmd *c)
{
    move_to(c, true);
}

void qmp_do_replay_delete_break(struct qmp_cmd *c)
{
    move(c, -1, false);
}
