/* SPDX-License-Identifier: Apache-2.0 */
/* What vmd and vmd-image both know of vmd-image's command line. */
#ifndef VMD_DAEMON_STORAGE_WORKER_H
#define VMD_DAEMON_STORAGE_WORKER_H

#define WORKER_LVM "--lvm" /* in the place of a folder: the program is lvm */

#endif
