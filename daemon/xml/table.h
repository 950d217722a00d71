/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tables that say which elements of libvirt's XML vmd knows and what each means: a row an element or attribute. Reading,
 * writing, refusing and docs/reference/xml.md all come from them, so that they cannot differ.
 *
 * A path is below the root element: "devices/disk/source@file" is an attribute. The last step may name several,
 * "a|b|c", where they share a row. Rows stand in the order in which they are written.
 * Constant data, any thread.
 */
#ifndef VMD_DAEMON_XML_TABLE_H
#define VMD_DAEMON_XML_TABLE_H

#include "api-schema/json/codec.h"
#include "engine/base/err.h"

#include <stdbool.h>
#include <stddef.h>

struct buf;
struct json_object;
struct xml_node;

enum xml_row_kind {
    XML_GROUP, /* element that holds others */
    XML_LIST, /* element that may stand several times: an object in the list `member`; with a `conv`, its text is the
                     member `words` of that object */
    XML_VALUE,    /* its text (or value) is `member`, through `conv` */
    XML_FLAG,     /* it stands there: `member` is true, else false */
    XML_SAME,     /* must say the same as `member`, which another row holds */
    XML_SAYS,     /* must be one of `words`: says what is so anyway */
    XML_PART,     /* read and written by the `conv` of the element it belongs to */
    XML_ANY,      /* element whose children (of any namespace) are kept as text in `member` */
    XML_LEFT_OUT, /* accepted whatever it says, left out; `doc` tells why that is right */
    XML_NO,       /* refused; `doc` tells why */
};

enum {
    XML_PRINT = 1,   /* SAYS (its first word), SAME, GROUP: written always */
    XML_NEEDED = 2,  /* refused when absent */
    XML_ABSENT = 32, /* VALUE: put is asked for an absent member, too */
    XML_NOTED = 64,  /* VALUE: noted as left out when it leaves the member absent */
    XML_EMPTY = 16,  /* SAYS: or nothing at all */
    XML_MANY = 8,    /* may stand several times, though no list holds it */
    XML_CLEAR = 4,   /* FLAG: false when absent, whatever the default of `member` */
};

struct xml_row {
    const char *path;
    enum xml_row_kind kind;
    unsigned flags;
    const char *member; /* below the object of the nearest LIST; may be dotted */
    const struct xml_conv *conv;
    const char *words; /* SAYS: words; VALUE: "theirs=ours ..." or the unit of a size */
    const char *doc;
};

/* From a text or an element to JSON and back. `n` is the element (of the attribute). get returns 0 and *out (NULL: leave the
 * member absent), or -1 with e, without naming the place. put fills `text` and may add to `n`; false: this value cannot be said in
 * libvirt's XML. */
struct xml_conv {
    int (*get)(const struct xml_row *row, const struct xml_node *n, const char *text,
               struct json_object **out, struct err *e);
    bool (*put)(const struct xml_row *row, struct json_object *v, struct xml_node *n,
                struct buf *text);
    const char *doc; /* what it takes */
};

extern const struct xml_conv xml_as_text; /* as it is */
extern const struct xml_conv xml_as_path; /* an absolute path */
extern const struct xml_conv
    xml_as_word; /* white space cut; row->words maps, "theirs=" is an absent member */
extern const struct xml_conv xml_as_int; /* decimal */
extern const struct xml_conv xml_as_kib; /* the same, in KiB */
extern const struct xml_conv
    xml_as_size; /* number and `unit`; row->words is the unit of a bare number */
extern const struct xml_conv xml_as_yesno; /* yes, no; on, off when row->words is set */
extern const struct xml_conv xml_as_uuid;  /* with or without dashes */
extern const struct xml_conv xml_as_octal; /* 0755 */

/* The next word of theirs in a map, each once; *map goes on, *len is its length. NULL: there is none. */
const char *xml_map_word(const char **map, int *len);

/* One of the five kinds. */
struct xml_kind {
    const char *name; /* "domain", "network", "pool", "volume", "snapshot" */
    const char *root; /* root element */
    const char *type_doc;
    const struct api_type *type; /* of the definition */
    const struct xml_row *rows;
    size_t n_rows;
    bool metadata; /* what no row can say is kept below <metadata> */
    /* What several rows say together: after all of them were read, before metadata; before they are written. May be NULL. */
    void (*read)(struct json_object *definition);
    void (*written)(struct json_object *definition);
    const char *example;
};

extern const struct xml_kind xml_domain, xml_network, xml_pool, xml_volume, xml_snapshot;
extern const struct xml_kind *const xml_kinds[];
extern const size_t xml_n_kinds;

/* Documents of libvirt that are none of the five, and why they are refused. */
struct xml_other {
    const char *root, *doc;
};
extern const struct xml_other xml_others[];
extern const size_t xml_n_others;

/* Does the path of the row name this one? `base` is the path of the element above, `sep` '/' or '@'. */
bool xml_row_is(const struct xml_row *row, const char *base, char sep, const char *name);

#endif
