/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Disks that are exports of NBD servers: an emulator whose connection is lost gets another one, by vmd-spawn. It asks again and again, so
 * nothing is kept here, and a daemon that comes later goes on. Loop thread.
 */
#ifndef VMD_DAEMON_RECONNECT_H
#define VMD_DAEMON_RECONNECT_H

struct api_disk;
struct run;

/* A disk came while the VM ran, perhaps one of an NBD server: it may be connected again while this daemon lives. */
void reconnect_learn(struct run *run, const struct api_disk *disk);
void reconnect_forget(struct run *run);

/* The emulator says that a disk's connection is lost. One attempt, whose outcome is the log's and the emulator's. */
void reconnect_disk(struct run *run, const char *disk);

#endif
