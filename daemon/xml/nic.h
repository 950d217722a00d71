/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Conversions of network cards, for the table of domains. Constant data, any thread.
 */
#ifndef VMD_DAEMON_XML_NIC_H
#define VMD_DAEMON_XML_NIC_H

#include "daemon/xml/table.h"

extern const struct xml_conv xml_as_card;   /* how a card is connected */
extern const struct xml_conv xml_as_target; /* interface of the host */
extern const struct xml_conv xml_as_link;
extern const struct xml_conv xml_as_vhost,
    xml_as_vhost_mode; /* socket of a vhost-user back end */

#endif
