/* SPDX-License-Identifier: Apache-2.0 */
/* The system calls of vmd-share. */
#ifndef VMD_STORAGE_SHARE_CONFINE_H
#define VMD_STORAGE_SHARE_CONFINE_H

#include "engine/base/err.h"

/* From now on what the server needs and nothing else; the jail around it is vmd-spawn's. Before it serves. */
int confine_share(struct err *e);

#endif
