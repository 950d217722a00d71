/* SPDX-License-Identifier: Apache-2.0 */
/* See channels.h. */
#include "daemon/xml/channels.h"

#include "api-schema/json/json.h"
#include "daemon/vm/channels.h"

#include <string.h>

static bool is_agent(struct json_object *channel)
{
    const char *name = api_json_get_str(channel, "name");

    return name && strcmp(name, AGENT_CHANNEL) == 0;
}

void xml_read_channels(struct json_object *definition)
{
    struct json_object *list = api_json_get(definition, "channels");

    for (size_t i = 0;
         json_object_is_type(list, json_type_array) && i < json_object_array_length(list);
         i++) {
        if (is_agent(json_object_array_get_idx(list, i))) {
            json_object_array_del_idx(list, i, 1);
            api_json_set_bool(definition, "agent", true);
            return; /* a second one is refused: two channels of a name */
        }
    }
}

void xml_written_channels(struct json_object *definition)
{
    struct json_object *list = api_json_get(definition, "channels"), *item;

    if (!api_json_get_bool(definition, "agent", false)) {
        return;
    }
    if (!json_object_is_type(list, json_type_array)) {
        list = json_object_new_array();
        api_json_set(definition, "channels", list);
    }
    item = json_object_new_object();
    api_json_set_str(item, "name", AGENT_CHANNEL);
    json_object_array_add(list, item);
}
