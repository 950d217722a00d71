/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Snapshot XML: what of it a SnapshotConfig holds. Constant data, and the conversion of what is told and not asked for.
 */
#include "api-schema/gen/types.h"
#include "api-schema/json/json.h"
#include "daemon/xml/rows.h"
#include "engine/base/buf.h"
#include "engine/base/mem.h"

#include <string.h>

#define TOLD "vmd tells it, nobody sets it"
#define NO_SOURCE "snapshots of disks are kept inside their images"

static int told_get(const struct xml_row *row, const struct xml_node *n, const char *text,
                    struct json_object **out, struct err *e)
{
    (void)row;
    (void)n;
    (void)text;
    (void)out;
    (void)e;
    return 0; /* noted as left out */
}

static bool told_put(const struct xml_row *row, struct json_object *v, struct xml_node *n,
                     struct buf *text)
{
    (void)row;
    (void)n;
    if (v) {
        buf_add_str(text, json_object_get_string(v));
    }
    return v != NULL;
}

static const struct xml_conv as_told = { told_get, told_put, TOLD };

#define SAID(p, m)                                                                             \
    {                                                                                          \
        p, XML_VALUE, XML_NOTED, m, &as_told, NULL, TOLD                                       \
    }

static const struct xml_row rows[] = {
    VALUE("name", "name", xml_as_text, NULL),
    VALUE("description", "description", xml_as_text, NULL),
    SAID("state", "state"),
    SAID("creationTime", "created"),
    GROUP("parent", 0),
    SAID("parent/name", "parent"),
    LEFT("active|domain|inactiveDomain", TOLD),
    NO("cookie", "it is private to libvirt"),
    GROUP("memory", 0),
    WORD("memory@snapshot", "memory", "no=no internal=internal external=external",
         "not supported: where it is kept"),
    VALUE("memory@file", "memory_file", xml_as_text, NULL),
    GROUP("disks", 0),
    { "disks/disk", XML_LIST, 0, "disks", NULL, NULL, NULL },
    { "disks/disk@name", XML_VALUE, XML_NEEDED, "name", &xml_as_text, NULL, NULL },
    WORD("disks/disk@snapshot", "snapshot", "internal=internal no=no",
         "not supported: where it is kept"),
    { "disks/disk@type", XML_SAYS, 0, NULL, NULL, "file", NO_SOURCE },
    NO("disks/disk/driver|source", NO_SOURCE),
};

const struct xml_kind xml_snapshot = {
    .name = "snapshot",
    .root = "domainsnapshot",
    .type_doc = "SnapshotConfig",
    .type = &api_type_snapshot_config,
    .rows = rows,
    .n_rows = ARRAY_LEN(rows),
};
