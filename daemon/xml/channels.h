/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rows of <channel> (rows.h). The guest agent's channel is one as any other in libvirt's XML, and a member of its own
 * (VmConfig.agent) here: the functions turn the one into the other, after reading and before writing. Any thread.
 */
#ifndef VMD_DAEMON_XML_CHANNELS_H
#define VMD_DAEMON_XML_CHANNELS_H

#include "daemon/xml/rows.h"

#define XML_CHANNEL_IS "'vmctl api vm.channel' tells where the socket of a channel is"
#define XML_NO_CHANNEL                                                                         \
    "a channel is a unix socket at which vmd listens, and a port of a virtio-serial device"

#define CHANNEL_ROWS                                                                           \
    LIST("devices/channel", "channels", NULL),                                                 \
        SAYS("devices/channel@type", XML_PRINT | XML_NEEDED, "unix pty", XML_CHANNEL_IS),      \
        LEFT("devices/channel@tty", "the terminal of a running domain"),                       \
        GROUP("devices/channel/source", XML_MANY),                                             \
        SAYS("devices/channel/source@mode", 0, "bind", XML_CHANNEL_IS),                        \
        LEFT("devices/channel/source@path", XML_CHANNEL_IS),                                   \
        NO("devices/channel/source@append|channel|host|master|service|slave|tls|fdgroup",      \
           XML_NO_CHANNEL),                                                                    \
        NO("devices/channel/source/clipboard|mouse|reconnect|seclabel", XML_NO_CHANNEL),       \
        NO("devices/channel/protocol|log", XML_NO_CHANNEL),                                    \
        GROUP("devices/channel/target", XML_PRINT | XML_NEEDED),                               \
        SAYS("devices/channel/target@type", XML_PRINT | XML_NEEDED, "virtio", XML_NO_CHANNEL), \
        MUST("devices/channel/target@name", "name", xml_as_text,                               \
             "`org.qemu.guest_agent.0` is the one of `agent`"),                                \
        LEFT("devices/channel/target@state", "of a running domain"),                           \
        NO("devices/channel/target@address|port", XML_NO_CHANNEL),                             \
        LEFT("devices/channel/address", "ports of the device have no choice of place"),        \
        NO("devices/channel/acpi", NO_ACPI), LEFT("devices/channel/alias", ALIAS)

struct json_object;

void xml_read_channels(struct json_object *definition);
void xml_written_channels(struct json_object *definition);

#endif
