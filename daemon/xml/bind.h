/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Between the files of this room: the two directions and what both use. Any thread.
 */
#ifndef VMD_DAEMON_XML_BIND_H
#define VMD_DAEMON_XML_BIND_H

#include "daemon/xml/tree.h"
#include "daemon/xml/xml.h"

/* JSON at a path such as "disks[0].name" below o; borrowed, NULL when there is none. */
struct json_object *xml_json_at(struct json_object *o, const char *path);
/* Sets it; NULL removes it. False when there is no such place. */
bool xml_json_set(struct json_object *o, const char *path, struct json_object *take_value);

/* Definition to elements, without what only <metadata> can say. */
struct xml_node *xml_emit(const struct xml_kind *kind, struct json_object *definition);

/* "<disk type='network'>" appended: the element with this attribute, or with one that tells it from others. */
void xml_show_element(struct buf *b, const struct xml_node *n, const char *attr);

/* The row of an element or attribute, NULL when the table has none. */
const struct xml_row *xml_row_of(const struct xml_kind *kind, const char *base, char sep,
                                 const char *name);

#endif
