/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Trays of drives whose medium comes out, as the emulators tell of them. Loop thread.
 */
#ifndef VMD_DAEMON_MEDIA_H
#define VMD_DAEMON_MEDIA_H

#include <stdbool.h>
#include <stddef.h>

struct run;
struct vm;

/* The tray of a disk has moved. False: that was known. */
bool media_told(struct run *run, const char *disk, bool open);
/* The open ones, as the emulator says when it is spoken to. */
void media_learn(struct run *run, char **names, size_t n);
void media_forget(struct run *run);
bool media_tray_open(const struct vm *vm, const char *disk);

#endif
