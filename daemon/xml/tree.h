/* SPDX-License-Identifier: Apache-2.0 */
/*
 * XML text to a small tree and back. libxml2 reads, as a stream and within hard limits, so that what a client
 * sends costs no more than its own size: no document type, no entity but the five of XML itself, no network, no
 * other encoding than UTF-8 (XML 1.0 and Namespaces in XML 1.0).
 * Pure functions, any thread; a tree belongs to its caller.
 */
#ifndef VMD_DAEMON_XML_TREE_H
#define VMD_DAEMON_XML_TREE_H

#include "engine/base/buf.h"
#include "engine/base/err.h"

#include <stdbool.h>
#include <stddef.h>

enum {
    XML_MAX_SIZE = 1024 * 1024, /* bytes of a text */
    XML_MAX_DEPTH = 32,         /* elements within one another */
    XML_MAX_NODES = 20000,      /* elements of a text */
    XML_MAX_ATTRS = 64,         /* attributes of an element */
};

struct xml_attr {
    char *name; /* as written: "prefix:name" */
    char *uri;  /* namespace, NULL: none */
    char *value;
};

/* An element, or a piece of text (name NULL). */
struct xml_node {
    char *name; /* as written: "prefix:name" */
    char *uri;  /* namespace, NULL: none */
    char *text; /* of a piece of text */
    unsigned line;
    struct xml_node *parent;
    struct xml_attr *attrs;
    size_t n_attrs;
    struct xml_node **kids;
    size_t n_kids, cap_kids;
};

/* Reads a text: the root element, the caller's. NULL with e set: "line 3: ...". */
struct xml_node *xml_read(const char *text, size_t len, struct err *e);
void xml_node_free(struct xml_node *n); /* NULL is fine */
AUTO_DEFINE(struct xml_node *, xml_node_free)

/* A new element below parent (NULL: a root). Names and values are copied; an attribute that is there gets the new value. */
struct xml_node *xml_node_new(struct xml_node *parent, const char *name);
void xml_node_drop(struct xml_node *parent, struct xml_node *last); /* the last child goes */
void xml_set_attr(struct xml_node *n, const char *name, const char *value);
/* Text below n; the empty one adds nothing. */
void xml_add_text(struct xml_node *n, const char *text);
/* Takes kid, which had no parent. */
void xml_adopt(struct xml_node *n, struct xml_node *take_kid);

/* Borrowed; NULL when absent. */
const char *xml_get_attr(const struct xml_node *n, const char *name);
const struct xml_node *xml_get_kid(const struct xml_node *n, const char *name);
/* All text directly below n, in one piece; the caller's. */
char *xml_text(const struct xml_node *n);
/* Every character may stand in XML. */
bool xml_can_say(const char *text);
/* The text is empty or white space alone. */
bool xml_blank(const char *text);

/* Appends the element, indented by two spaces a level; namespaces are declared where they are first needed. */
void xml_write(struct buf *b, const struct xml_node *n, unsigned level);

#endif
