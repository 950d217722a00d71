/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Libvirt-compatible XML in and out: a text becomes a definition (the JSON of the schema's type) or a list of what is
 * refused, each with line and element; a definition becomes canonical XML. XML to definition to XML to definition is the
 * identity: what the tables cannot say stands below <metadata>, as members and their JSON.
 * Pure functions, any thread.
 */
#ifndef VMD_DAEMON_XML_XML_H
#define VMD_DAEMON_XML_XML_H

#include "api-schema/json/error.h"
#include "daemon/xml/table.h"

#include <stdio.h>

#define XML_NS "urn:vmd:definition:1"
#define XML_MAX_PROBLEMS 50

/* Something about a place of the text: refused, or accepted and left out. */
struct xml_remark {
    unsigned line;
    char *path; /* "domain/devices/disk@type" */
    char *text; /* "<disk type='network'>: not supported: ..." */
};

struct xml_result {
    const struct xml_kind *kind;    /* NULL: not even that could be told */
    struct json_object *definition; /* NULL: refused */
    struct xml_remark *problems, *notes;
    size_t n_problems, n_notes;
};

/* Reads a text of this kind (NULL: of the kind that its root element tells). Always fills *r, which xml_result_done() frees. */
void xml_parse(const struct xml_kind *kind, const char *text, size_t len, struct xml_result *r);
void xml_result_done(struct xml_result *r);
/* The first problems in one error. */
void xml_result_error(const struct xml_result *r, struct api_error *x);

/* Canonical XML of a valid definition; the caller's. */
char *xml_print(const struct xml_kind *kind, const struct json_object *definition);

/* The same with another definition's element inside its root, as its last: a snapshot with its domain. Where that is too large to be
 * read again it stands alone. The caller's. */
char *xml_print_around(const struct xml_kind *kind, const struct json_object *definition,
                       const struct xml_kind *inner, const struct json_object *of_inner);

/* Of a domain: the file of a volume's disk is filled in by its pool, and the document names the volume. */
void xml_drop_found_files(struct json_object *config);

/* What <target dev> is of each disk of a domain, in their order; the list ends with NULL, and is the caller's with all in it. */
char **xml_disk_devs(const struct json_object *domain);

const struct xml_kind *xml_kind_find(const char *name); /* NULL: there is none */

/* docs/reference/xml.md. */
void xml_print_reference(FILE *f);

#endif
