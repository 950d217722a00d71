/* SPDX-License-Identifier: Apache-2.0 */
/* The guest's CPU in libvirt's words. Constant data, any thread. */
#ifndef VMD_DAEMON_XML_CPU_H
#define VMD_DAEMON_XML_CPU_H

#include "daemon/xml/table.h"

extern const struct xml_conv xml_as_cpu; /* <cpu> with its <model> and <feature>s */

#endif
