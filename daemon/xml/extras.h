/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rows of the devices that a board may have besides disks, cards and screen (rows.h): the memory balloon, sockets between
 * guest and host, a watchdog, memory that comes and goes, shared
 * folders. Constant data, any thread.
 */
#ifndef VMD_DAEMON_XML_EXTRAS_H
#define VMD_DAEMON_XML_EXTRAS_H

#include "daemon/xml/rows.h"

extern const struct xml_conv
    xml_as_current; /* <currentMemory>: `balloon.memory` where it is less than <memory> */
extern const struct xml_conv xml_as_max_memory; /* <maxMemory slots>: `memory_max` */
extern const struct xml_conv xml_as_balloon;    /* <memballoon model>: `balloon.mode` */

extern const struct xml_conv xml_as_vsock; /* <vsock>: `vsock.cid` */

#define XML_PCI_PLACE(p)                                                                       \
    GROUP(p "/address", 0), SAYS(p "/address@type", XML_NEEDED, "pci", "it is on PCI"),        \
        NO(p "/address@base|bus|controller|cssid|devno|domain|function|iobase|irq|"            \
             "multifunction|port|reg|slot|ssid|target|unit",                                   \
           ADDRESS),                                                                           \
        NO(p "/address/zpci", ADDRESS), NO(p "/acpi", NO_ACPI), LEFT(p "/alias", ALIAS)

#define BALLOON_ROWS                                                                           \
    GROUP("devices/memballoon", XML_PRINT),                                                    \
        { "devices/memballoon@model",                                                          \
          XML_VALUE,                                                                           \
          XML_NEEDED | XML_ABSENT,                                                             \
          "balloon.mode",                                                                      \
          &xml_as_balloon,                                                                     \
          NULL,                                                                                \
          NULL },                                                                              \
        { "devices/memballoon@autodeflate",                                                    \
          XML_VALUE,                                                                           \
          0,                                                                                   \
          "balloon.deflate_on_oom",                                                            \
          &xml_as_yesno,                                                                       \
          "on off",                                                                            \
          NULL },                                                                              \
        { "devices/memballoon@freePageReporting",                                              \
          XML_VALUE,                                                                           \
          0,                                                                                   \
          "balloon.free_page_reporting",                                                       \
          &xml_as_yesno,                                                                       \
          "on off",                                                                            \
          NULL },                                                                              \
        GROUP("devices/memballoon/stats", 0),                                                  \
        VALUE("devices/memballoon/stats@period", "balloon.period", xml_as_int, "seconds"),     \
        NO("devices/memballoon/driver", NO_TUNE), XML_PCI_PLACE("devices/memballoon")

#define VSOCK_ROWS                                                                             \
    { "devices/vsock", XML_VALUE, 0, "vsock.cid", &xml_as_vsock, NULL, NULL },                 \
        PART("devices/vsock@model", "`virtio`, `virtio-non-transitional`"),                    \
        PART("devices/vsock/cid", NULL),                                                       \
        PART("devices/vsock/cid@auto", "`yes` takes 3: no VM sees the address of another"),    \
        PART("devices/vsock/cid@address", NULL), NO("devices/vsock/driver", NO_TUNE),          \
        XML_PCI_PLACE("devices/vsock")

#define WATCHDOG_ROWS                                                                          \
    GROUP("devices/watchdog", 0),                                                              \
        SAYS("devices/watchdog@model", XML_PRINT | XML_NEEDED, "i6300esb", NO_BOARD),          \
        { "devices/watchdog@action",                                                           \
          XML_VALUE,                                                                           \
          XML_NEEDED,                                                                          \
          "guest_watchdog.action",                                                             \
          &xml_as_word,                                                                        \
          "reset=reset poweroff=poweroff pause=pause none=none",                               \
          "not supported: what is done when the guest does not feed it" },                     \
        XML_PCI_PLACE("devices/watchdog")

#define IOMMU_ROWS                                                                             \
    GROUP("devices/iommu", 0), { "devices/iommu@model",                                        \
                                 XML_VALUE,                                                    \
                                 XML_NEEDED,                                                   \
                                 "iommu",                                                      \
                                 &xml_as_word,                                                 \
                                 "virtio=virtio",                                              \
                                 "the IOMMU is virtio's" },                                    \
        NO("devices/iommu/driver", NO_TUNE), LEFT("devices/iommu/alias", ALIAS),               \
        XML_PCI_PLACE("devices/iommu")

extern const struct xml_conv xml_as_sound; /* <sound>, with its <audio>: `audio` */
extern const struct xml_conv xml_as_audio; /* <audio type>: may it be? */
#define XML_NO_SOUND "what a guest plays goes to a WAV file as it is"
#define SOUND_ROWS                                                                             \
    { "devices/sound", XML_VALUE, 0, "audio", &xml_as_sound, NULL, NULL },                     \
        PART("devices/sound@model", "`virtio`"), PART("devices/sound/audio", NULL),            \
        PART("devices/sound/audio@id", "which <audio>; absent: the first"),                    \
        NO("devices/sound/codec", XML_NO_SOUND), XML_PCI_PLACE("devices/sound"),               \
        GROUP("devices/audio", 0),                                                             \
        { "devices/audio@type", XML_VALUE, XML_NEEDED | XML_NOTED,         "audio.output",     \
          &xml_as_audio,        NULL,      "stands where its <sound> does" },                  \
        LEFT("devices/audio@id", "libvirt numbers its audio devices"),                         \
        PART("devices/audio@path", "of `file`: `audio.output`"),                               \
        NO("devices/audio@driver|dspPolicy|exclusive|serverName|timerPeriod|tryMMap",          \
           XML_NO_SOUND),                                                                      \
        PART("devices/audio@runtimeDir", "of `pipewire`: where its socket is"),                \
        PART("devices/audio/output@dev", "of `alsa`: `audio.device`"),                         \
        NO("devices/audio/input", XML_NO_SOUND), GROUP("devices/audio/output", 0),             \
        SAYS("devices/audio/output@mixingEngine|fixedSettings", 0, "yes", XML_NO_SOUND),       \
        NO("devices/audio/output@voices|bufferLength|bufferCount|clientName|connectPorts|"     \
           "serverName|exactName|latency|name|streamName|tryPoll|tryMMap",                 \
           XML_NO_SOUND),                                                                      \
        PART("devices/audio/output/settings", NULL),                                           \
        PART("devices/audio/output/settings@frequency", "`audio.rate`"),                       \
        PART("devices/audio/output/settings@channels", "`audio.channels`"),                    \
        PART("devices/audio/output/settings@format",                                           \
             "`audio.format`: `u8`, `s16`, `s32`, `f32`")

#define XML_NO_MEMORY                                                                          \
    "memory of a guest is that of the host, in blocks that its virtio-mem device plugs"
#define MEMORY_ROWS                                                                            \
    LIST("devices/memory", "memory_devices", NULL),                                            \
        SAYS("devices/memory@model", XML_PRINT | XML_NEEDED, "virtio-mem", XML_NO_MEMORY),     \
        NO("devices/memory@access|discard", XML_NO_MEMORY),                                    \
        NO("devices/memory/source|uuid", XML_NO_MEMORY),                                       \
        GROUP("devices/memory/target", XML_PRINT | XML_NEEDED),                                \
        SAYS("devices/memory/target@dynamicMemslots", 0, "yes", XML_NO_MEMORY),                \
        { "devices/memory/target/size", XML_VALUE, XML_NEEDED, "size", &xml_as_size, "KiB",    \
          "also part of <memory>" },                                                           \
        PART("devices/memory/target/size@unit", NULL),                                         \
        SAYS("devices/memory/target/node", 0, "0", "the board has one node"),                  \
        SIZE("devices/memory/target/block", "block", "KiB", NULL),                             \
        PART("devices/memory/target/block@unit", NULL),                                        \
        SIZE("devices/memory/target/requested", "requested", "KiB", NULL),                     \
        PART("devices/memory/target/requested@unit", NULL),                                    \
        LEFT("devices/memory/target/current", "of a running domain"),                          \
        NO("devices/memory/target/address|label|readonly", XML_NO_MEMORY),                     \
        XML_PCI_PLACE("devices/memory")

#define XML_NO_SHARE "a shared folder is served by virtiofsd as Debian has it, or by vmd-share"
#define SHARE_ROWS                                                                             \
    LIST("devices/filesystem", "shares", NULL),                                                \
        SAYS("devices/filesystem@type", XML_PRINT, "mount", XML_NO_SHARE),                     \
        WORD("devices/filesystem@accessmode", "security",                                      \
             "mapped=mapped passthrough=passthrough",                                          \
             "of 9p; absent: `mapped`. virtiofs has `passthrough` alone"),                     \
        SAYS("devices/filesystem@model", 0, "virtio virtio-non-transitional", NO_BOARD),       \
        NO("devices/filesystem@dmode|fmode|multidevs", XML_NO_SHARE),                          \
        WORD("devices/filesystem/driver@type", "driver", "path=9p virtiofs=virtiofs",          \
             "not supported: `path` (also where none is given) is 9p"),                        \
        NO("devices/filesystem/"                                                               \
           "driver@ats|format|iommu|name|packed|page_per_vq|queue|wrpolicy",                   \
           NO_TUNE),                                                                           \
        GROUP("devices/filesystem/driver", 0), NO("devices/filesystem/binary", XML_NO_SHARE),  \
        GROUP("devices/filesystem/source", XML_NEEDED),                                        \
        VALUE("devices/filesystem/source@dir", "path", xml_as_path, NULL),                     \
        VALUE("devices/filesystem/source@socket", "socket", xml_as_path,                       \
              "of virtiofs: a server of somebody else's listens there"),                       \
        NO("devices/filesystem/source@dev|file|name|pool|units|usage|volume", XML_NO_SHARE),   \
        GROUP("devices/filesystem/target", XML_NEEDED),                                        \
        MUST("devices/filesystem/target@dir", "tag", xml_as_text, "its name for the guest"),   \
        { "devices/filesystem/readonly", XML_FLAG, 0, "readonly", NULL, NULL, NULL },          \
        NO("devices/filesystem/boot|idmap|space_hard_limit|space_soft_limit", XML_NO_SHARE),   \
        XML_PCI_PLACE("devices/filesystem")

struct json_object;

/* <memory> is all of it in libvirt, with its memory devices; VmConfig.memory is that of the board alone. */
void xml_read_memory(struct json_object *definition);
void xml_written_memory(struct json_object *definition);
/* Without a <driver> a <filesystem> is 9p, a share virtiofs. */
void xml_read_shares(struct json_object *definition);
void xml_written_shares(struct json_object *definition);

#endif
