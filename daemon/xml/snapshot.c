/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Snapshot XML: what of it a SnapshotConfig holds. Constant data.
 */
#include "api-schema/gen/types.h"
#include "daemon/xml/rows.h"
#include "engine/base/mem.h"

#define STATE "vmd tells it, nobody sets it"
#define NO_SOURCE "snapshots of disks are kept in files"

static const struct xml_row rows[] = {
    VALUE("name", "name", xml_as_text, NULL),
    VALUE("description", "description", xml_as_text, NULL),
    LEFT("state|creationTime|parent|active|domain|inactiveDomain", STATE),
    NO("cookie", "it is private to libvirt"),
    GROUP("memory", 0),
    WORD("memory@snapshot", "memory", "no=no internal=internal external=external",
         "not supported: where it is kept"),
    VALUE("memory@file", "memory_file", xml_as_path, NULL),
    GROUP("disks", 0),
    { "disks/disk", XML_LIST, 0, "disks", NULL, NULL, NULL },
    { "disks/disk@name", XML_VALUE, XML_NEEDED, "name", &xml_as_text, NULL, NULL },
    WORD("disks/disk@snapshot", "snapshot",
         "no=no internal=internal external=external manual=manual",
         "not supported: where it is kept"),
    { "disks/disk@type", XML_SAYS, XML_PRINT, NULL, NULL, "file", NO_SOURCE },
    GROUP("disks/disk/driver", 0),
    { "disks/disk/driver@type", XML_VALUE, 0, "format", &xml_as_word, "raw=raw qcow2=qcow2",
      "not supported: format of the image" },
    NO("disks/disk/driver/metadata_cache", NO_SOURCE),
    GROUP("disks/disk/source", 0),
    VALUE("disks/disk/source@file", "file", xml_as_path, NULL),
    NO("disks/disk/"
       "source@dev|index|name|protocol|query|tls|tlsHostname|pool|volume|mode|startupPolicy|"
       "fdgroup",
       NO_SOURCE),
    NO("disks/disk/source/"
       "auth|config|cookies|encryption|host|identity|initiator|readahead|seclabel|slices|"
       "snapshot|ssl|timeout|privateData|reconnect|address|reservations",
       NO_SOURCE),
};

const struct xml_kind xml_snapshot = {
    .name = "snapshot",
    .root = "domainsnapshot",
    .type_doc = "SnapshotConfig",
    .type = &api_type_snapshot_config,
    .rows = rows,
    .n_rows = ARRAY_LEN(rows),
};
