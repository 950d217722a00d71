/* SPDX-License-Identifier: Apache-2.0 */
/* Declares the functions of all procedures. Inside of daemon/libvirt. */
#ifndef VMD_DAEMON_LIBVIRT_PROCS_H
#define VMD_DAEMON_LIBVIRT_PROCS_H

#include "daemon/libvirt/procedures.h"

struct lv_call;

#define LV_DECLARE(number, name, fn, args, ret) void lv_do_##fn(struct lv_call *c);
#define LV_DECLARE_NONE(number, name, method, args)
LV_PROCEDURES(LV_DECLARE, LV_DECLARE_NONE)
LV_QEMU_PROCEDURES(LV_DECLARE)

#endif
