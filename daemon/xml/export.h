/* SPDX-License-Identifier: Apache-2.0 */
/* Disks that are exports of NBD servers in libvirt's words. Constant data, any thread. */
#ifndef VMD_DAEMON_XML_EXPORT_H
#define VMD_DAEMON_XML_EXPORT_H

#include "daemon/xml/table.h"

extern const struct xml_conv xml_as_export; /* <source protocol='nbd'> with all that is in it */

#endif
