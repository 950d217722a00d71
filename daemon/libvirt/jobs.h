/* SPDX-License-Identifier: Apache-2.0 */
/* What is a job here and one call there; and other helpers of several kinds of objects. Inside of daemon/libvirt. */
#ifndef VMD_DAEMON_LIBVIRT_JOBS_H
#define VMD_DAEMON_LIBVIRT_JOBS_H

#include "daemon/libvirt/call.h"
#include "daemon/xml/table.h"

/* `result` of a method has the member "job": waits until that is over, then then(c, the job). One that failed or was cancelled
 * fails the call. */
void lv_wait(struct lv_call *c, struct json_object *result,
             void (*then)(struct lv_call *c, struct json_object *job));
/* The definition that an XML text means, the caller's. NULL: it is refused, and the call has failed. */
struct json_object *lv_read_xml(struct lv_call *c, const struct xml_kind *kind,
                                const char *text);

/* Answers with nothing when the job has ended, however it did. */
void lv_wait_any(struct lv_call *c, struct json_object *result);
/* virDomainBlockJobType of the kind of a job; 0: it is none of a disk. */
int lv_block_job_type(const char *kind);

/* It is a job that backs up a disk of the VM. */
bool lv_is_backup(struct json_object *job, const struct vm *vm);

#endif
