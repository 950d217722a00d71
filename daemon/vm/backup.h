/* SPDX-License-Identifier: Apache-2.0 */
/* Backups of running VMs that are under way. Loop thread. */
#ifndef VMD_DAEMON_BACKUP_H
#define VMD_DAEMON_BACKUP_H

#include <stdbool.h>

struct backups;
struct store_object;
struct vm;
struct vmd;

#define BACKUP_KIND "backup"

struct backups *backups_new(struct vmd *d);
/* A row of the store. */
void backups_load(struct vmd *d, const struct store_object *row);
/* Emulators were taken up again: what ended meanwhile is tidied up. */
void backups_begin(struct backups *s);
bool backups_any(const struct vm *vm); /* has one under way */
void backups_free(struct backups *s);  /* NULL is fine */

#endif
