/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Conversions of domain XML that take more than one element: the screen with its input devices, flash, disks by volume. Constant data,
 * any thread.
 */
#ifndef VMD_DAEMON_XML_SCREEN_H
#define VMD_DAEMON_XML_SCREEN_H

#include "daemon/xml/table.h"

extern const struct xml_conv xml_as_video; /* <video>, with what <input>s say: `display` */
extern const struct xml_conv
    xml_as_graphics; /* <graphics type>: a `display` where no <video> makes one */
extern const struct xml_conv xml_as_input;  /* <input>: `display.input` */
extern const struct xml_conv xml_as_loader; /* <loader>: `firmware`, or nothing for flash */
extern const struct xml_conv xml_as_flash;  /* <loader type>: `flash`, with <nvram> */
extern const struct xml_conv xml_as_nvram;  /* <nvram>: only beside a loader of that type */
extern const struct xml_conv
    xml_as_disk_kind; /* <disk type>: file, or the `pool` of a volume */

#endif
