/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The QMP dialect as tables (generated from qmp.json) and the checks that every command passes before it
 * runs: its form, its name, its arguments. Errors are worded as QEMU words them, since clients look for that.
 * Pure functions, any thread.
 */
#ifndef VMD_API_QMP_H
#define VMD_API_QMP_H

#include "api-schema/gen/methods.h"
#include "api-schema/gen/qmp_table.h"

#include <stdbool.h>
#include <stddef.h>

struct json_object;
struct qmp_type;

enum qmp_kind { QMP_STR, QMP_INT, QMP_NUMBER, QMP_BOOL, QMP_ANY, QMP_ENUM, QMP_OBJECT };

struct qmp_member {
    const char *name;
    enum qmp_kind kind;
    bool optional, list;
    const struct qmp_type *type; /* QMP_ENUM, QMP_OBJECT */
};

struct qmp_type {
    const char *name;
    const char *const *values; /* of an enum, ended by NULL */
    const struct qmp_member *members;
    unsigned n_members;
};

struct qmp_command {
    const char *name;
    const struct qmp_type *args;
    bool oob;     /* may be executed out of band */
    bool session; /* about the connection, not about a VM: has no `run` */
    enum api_role role; /* needed in the VM's project */
    void (*run)(struct qmp_cmd *c);
};

extern const struct qmp_command qmp_commands[QMP_N_COMMANDS]; /* sorted by name */
extern const char qmp_schema_json[]; /* what query-qmp-schema returns */
extern const int qmp_version[3];     /* major, minor, micro */

enum { QMP_DESC_MAX = 400 };

struct qmp_request {
    const char *name; /* within the message, as the rest */
    struct json_object *args, *id;
    bool has_id, oob;
};

/* The form of a message. False: desc says what is wrong; id is filled in nevertheless. Without `oob`
 * exec-oob is an unknown member. */
bool qmp_parse(struct json_object *msg, bool oob, struct qmp_request *r,
               char desc[QMP_DESC_MAX]);
/* NULL: no such command. */
const struct qmp_command *qmp_find(const char *name);
/* False: desc says what is wrong. args NULL: none. */
bool qmp_check(const struct qmp_command *c, struct json_object *args, char desc[QMP_DESC_MAX]);

#endif
