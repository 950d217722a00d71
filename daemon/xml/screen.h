/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Conversions of domain XML that take more than one element: the screen with its input devices, flash, disks by volume. Constant data,
 * any thread.
 */
#ifndef VMD_DAEMON_XML_SCREEN_H
#define VMD_DAEMON_XML_SCREEN_H

#include "daemon/xml/table.h"

extern const struct xml_conv xml_as_video; /* <video>, with what <input>s say: `display` */
extern const struct xml_conv xml_as_graphics,
    xml_as_listener; /* <graphics type>: a `display` where no <video> makes one */
extern const struct xml_conv xml_as_input;  /* <input type>: of the screen, or of `usb` */
extern const struct xml_conv xml_as_loader; /* <loader>: `firmware`, or nothing for flash */
extern const struct xml_conv xml_as_flash;  /* <loader type>: `flash`, with <nvram> */
extern const struct xml_conv xml_as_nvram;  /* <nvram>: only beside a loader of that type */
extern const struct xml_conv
    xml_as_disk_kind; /* <disk type>: file, or the `pool` of a volume */

/* Rows of <input> and <hub>. */
#define INPUT_ROWS                                                                             \
    LIST("devices/input", "usb",                                                               \
         "by virtio one brings the other: `display.input`; by USB each is one of `usb`"),      \
        { "devices/input@type", XML_VALUE, XML_NEEDED, "type", &xml_as_input, NULL, NULL },    \
        WORD("devices/input@bus", "bus", "virtio=virtio usb=usb", NULL),                       \
        NO("devices/input@model", "tablet and keyboard are one of a kind"),                    \
        GROUP("devices/input/address", 0),                                                     \
        SAYS("devices/input/address@type", XML_PRINT, "usb",                                   \
             "by virtio they have their places"),                                              \
        SAYS("devices/input/address@bus", XML_PRINT, "0", "there is one USB controller"),      \
        VALUE("devices/input/address@port", "port", xml_as_text, NULL),                        \
        NO("devices/input/"                                                                    \
           "address@base|controller|cssid|devno|domain|function|iobase|irq|multifunction|reg|" \
           "slot|"                                                                             \
           "ssid|target|unit",                                                                 \
           ADDRESS),                                                                           \
        NO("devices/input/address/zpci", ADDRESS),                                             \
        NO("devices/input/acpi|driver|source", "tablet and keyboard have their places"),       \
        LEFT("devices/input/alias", ALIAS),                                                    \
        LIST("devices/hub", "hubs", "those of `usb` that are hubs"),                           \
        SAYS("devices/hub@type", XML_NEEDED | XML_PRINT, "usb", "hubs are of USB"),            \
        GROUP("devices/hub/address", 0),                                                       \
        SAYS("devices/hub/address@type", XML_PRINT, "usb", "hubs are of USB"),                 \
        SAYS("devices/hub/address@bus", XML_PRINT, "0", "there is one USB controller"),        \
        VALUE("devices/hub/address@port", "port", xml_as_text, NULL),                          \
        NO("devices/hub/"                                                                      \
           "address@base|controller|cssid|devno|domain|function|iobase|irq|multifunction|reg|" \
           "slot|"                                                                             \
           "ssid|target|unit",                                                                 \
           ADDRESS),                                                                           \
        NO("devices/hub/address/zpci", ADDRESS), NO("devices/hub/acpi", NO_ACPI),              \
        LEFT("devices/hub/alias", ALIAS)

/* What several rows of a domain say together: the agent's channel, USB devices and what comes with the screen (table.h). */
void xml_read_domain(struct json_object *definition);
void xml_written_domain(struct json_object *definition);

#endif
