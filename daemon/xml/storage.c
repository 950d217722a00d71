/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Storage pool and volume XML: what of it a PoolConfig and a VolumeConfig hold. Constant data.
 */
#include "api-schema/gen/types.h"
#include "daemon/xml/rows.h"
#include "engine/base/mem.h"

#define NO_POOL "pools are folders, mounted filesystems and LVM volume groups"
#define NO_CRYPT "encrypted images are not foreseen"
#define STATE "vmd tells it, nobody sets it"

/* Who may use a file or folder. */
#define PERMISSIONS(p)                                                                         \
    GROUP(p, 0), VALUE(p "/mode", "mode", xml_as_octal, NULL),                                 \
        VALUE(p "/owner", "owner", xml_as_int, NULL),                                          \
        VALUE(p "/group", "group", xml_as_int, NULL),                                          \
        VALUE(p "/label", "label", xml_as_text, NULL)

static const struct xml_row pool_rows[] = {
    { "@type", XML_VALUE, XML_NEEDED, "type", &xml_as_word,
      "dir=dir fs=fs netfs=netfs logical=logical", "not supported: " NO_POOL },
    MUST("name", "name", xml_as_text, NULL),
    VALUE("uuid", "uuid", xml_as_uuid, NULL),
    LEFT("capacity|allocation|available", STATE),
    GROUP("source", 0),
    GROUP("source/host", 0),
    { "source/host@name", XML_VALUE, XML_NEEDED, "host", &xml_as_word, NULL, NULL },
    NO("source/host@port", "the usual port is used"),
    GROUP("source/dir", 0),
    { "source/dir@path", XML_VALUE, XML_NEEDED, "dir", &xml_as_path, NULL, NULL },
    LIST("source/device", "devices", NULL),
    MUST("source/device@path", "path", xml_as_path, NULL),
    NO("source/device@part_separator", NO_POOL),
    NO("source/device/freeExtent", NO_POOL),
    VALUE("source/name", "source_name", xml_as_text, NULL),
    GROUP("source/format", 0),
    { "source/format@type", XML_VALUE, XML_NEEDED, "format", &xml_as_word, NULL, NULL },
    NO("source/format/product|vendor", NO_POOL),
    NO("source/adapter|auth|initiator|protocol|product|vendor", NO_POOL),
    GROUP("target", 0),
    VALUE("target/path", "path", xml_as_path, NULL),
    PERMISSIONS("target/permissions"),
    NO("features", "copy-on-write is used wherever the filesystem has it"),
    NO("refresh", "volumes are listed anew by each call"),
    NO("mount_opts|config_opts|fs:mount_opts|rbd:config_opts",
       "filesystems are mounted with their usual options"),
};

const struct xml_kind xml_pool = {
    .name = "pool",
    .root = "pool",
    .type_doc = "PoolConfig",
    .type = &api_type_pool_config,
    .rows = pool_rows,
    .n_rows = ARRAY_LEN(pool_rows),
};

static const struct xml_row volume_rows[] = {
    { "@type", XML_SAYS, 0, NULL, NULL, "file block", "volumes are files and logical volumes" },
    MUST("name", "name", xml_as_text, NULL),
    LEFT("key", STATE),
    SIZE("capacity", "capacity", "bytes", NULL),
    PART("capacity@unit", NULL),
    SIZE("allocation", "allocation", "bytes", NULL),
    PART("allocation@unit", NULL),
    LEFT("physical", STATE),
    GROUP("source", 0),
    NO("source/device", "volumes are files"),
    GROUP("target", XML_PRINT),
    VALUE("target/path", "path", xml_as_path, NULL),
    GROUP("target/format", 0),
    { "target/format@type", XML_VALUE, XML_NEEDED, "format", &xml_as_word,
      "raw=raw qcow2=qcow2", "not supported: format of the image" },
    PERMISSIONS("target/permissions"),
    LEFT("target/timestamps", STATE),
    { "target/compat", XML_VALUE, 0, "compat", &xml_as_word, "0.10=0.10 1.1=1.1",
      "not supported: version of a qcow2 file" },
    { "target/clusterSize", XML_VALUE, 0, "cluster", &xml_as_size, "B", NULL },
    PART("target/clusterSize@unit", NULL),
    GROUP("target/features", 0),
    { "target/features/lazy_refcounts", XML_FLAG, 0, "lazy_refcounts", NULL, NULL, NULL },
    NO("target/features/extended_l2", "extended L2 entries are not foreseen"),
    NO("target/encryption", NO_CRYPT),
    NO("target/nocow", "set it on the folder"),
    GROUP("backingStore", 0),
    { "backingStore/path", XML_VALUE, XML_NEEDED, "backing", &xml_as_path, NULL, NULL },
    GROUP("backingStore/format", 0),
    { "backingStore/format@type", XML_VALUE, XML_NEEDED, "backing_format", &xml_as_word,
      "raw=raw qcow2=qcow2", "not supported: format of the image" },
    LEFT("backingStore/permissions|timestamps", STATE),
};

const struct xml_kind xml_volume = {
    .name = "volume",
    .root = "volume",
    .type_doc = "VolumeConfig",
    .type = &api_type_volume_config,
    .rows = volume_rows,
    .n_rows = ARRAY_LEN(volume_rows),
};
