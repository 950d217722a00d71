/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How the tables of elements are written: p is the path, m the member of the definition, c the conversion, d what the
 * reference says. See table.h for the kinds.
 */
#ifndef VMD_DAEMON_XML_ROWS_H
#define VMD_DAEMON_XML_ROWS_H

#include "daemon/xml/table.h"

#define GROUP(p, f)                                                                            \
    {                                                                                          \
        p, XML_GROUP, f, NULL, NULL, NULL, NULL                                                \
    }
#define LIST(p, m, d)                                                                          \
    {                                                                                          \
        p, XML_LIST, 0, m, NULL, NULL, d                                                       \
    }
#define VALUE(p, m, c, d)                                                                      \
    {                                                                                          \
        p, XML_VALUE, 0, m, &c, NULL, d                                                        \
    }
#define MUST(p, m, c, d)                                                                       \
    {                                                                                          \
        p, XML_VALUE, XML_NEEDED, m, &c, NULL, d                                               \
    }
#define WORD(p, m, map, d)                                                                     \
    {                                                                                          \
        p, XML_VALUE, 0, m, &xml_as_word, map, d                                               \
    }
#define SIZE(p, m, unit, d)                                                                    \
    {                                                                                          \
        p, XML_VALUE, 0, m, &xml_as_size, unit, d                                              \
    }
#define SAYS(p, f, w, d)                                                                       \
    {                                                                                          \
        p, XML_SAYS, f, NULL, NULL, w, d                                                       \
    }
#define PART(p, d)                                                                             \
    {                                                                                          \
        p, XML_PART, 0, NULL, NULL, NULL, d                                                    \
    }
#define LEFT(p, d)                                                                             \
    {                                                                                          \
        p, XML_LEFT_OUT, 0, NULL, NULL, NULL, d                                                \
    }
#define NO(p, d)                                                                               \
    {                                                                                          \
        p, XML_NO, 0, NULL, NULL, NULL, d                                                      \
    }

/* Bandwidth below p; the members are NicBandwidths. */
#define BANDWIDTH(p, in, out)                                                                  \
    GROUP(p "/bandwidth", 0), NO(p "/bandwidth@classID", "classes are libvirt's own"),         \
        GROUP(p "/bandwidth/inbound", 0),                                                      \
        VALUE(p "/bandwidth/inbound@average", in ".average", xml_as_kib, NULL),                \
        VALUE(p "/bandwidth/inbound@peak", in ".peak", xml_as_kib, NULL),                      \
        VALUE(p "/bandwidth/inbound@burst", in ".burst", xml_as_kib, NULL),                    \
        NO(p "/bandwidth/inbound@floor", "no bandwidth is kept for a card"),                   \
        GROUP(p "/bandwidth/outbound", 0),                                                     \
        VALUE(p "/bandwidth/outbound@average", out ".average", xml_as_kib, NULL),              \
        VALUE(p "/bandwidth/outbound@peak", out ".peak", xml_as_kib, NULL),                    \
        VALUE(p "/bandwidth/outbound@burst", out ".burst", xml_as_kib, NULL),                  \
        NO(p "/bandwidth/outbound@floor", "no bandwidth is kept for a card")

#endif
