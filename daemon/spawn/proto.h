/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What vmd and vmd-spawn say to each other over a SOCK_SEQPACKET pair, one JSON object a packet.
 *
 * vmd -> vmd-spawn
 *   {"op":"start","id":N,"vm":ID,"name":..,"cookie":..,"config":"<VmConfig as text>",
 *    "paused":bool,"screen":bool,"vsock":bool,"kvm":bool,"log":"<console log>","cgroup":"<folder, where it has limits>","files":[{"key":..,"path":..,"what":..,"disk":bool,
 *    "write":bool,"made":bool,"format":..}],"folders":[..]}   made: when it is not there; folders: where images may name others, besides their own
 *    a file with "tape":"record" is made for a recording (it must not be there yet), with "tape":"replay" it is one; then also "scratch":bool, "to":N
 *    and in it "channels":[NAME,..], "nics":[{"name":..,"args":[..],"tftp":..,
 *    "vhost":<socket of its vhost-user back end>,"listens":<there for it>}, {"name":..,"path":..,"dgram":bool},
 *    "shares":[{"tag":..,"path":..,"driver":"virtiofs"|"9p","readonly":bool,"mapped":bool}, {"tag":..,"socket":..}]: a folder for
 *    which a server is started, or the socket of one that somebody else runs; in "nics", too,
 *    {"name":..,"tap":true,"ifname":..,"bridge":..,"mtu":..,"vlan":..,"queues":..}]: a process vmd-net with these arguments, a
 *    "sound":{"backend":..,"server":..,"device":..,"rate":N,"channels":N,"sample":N}: a process vmd-sound; in "nics" again, a
 *    socket to connect to (and "hello": what is said there first, a frame of JSON), or a tap interface
 *   {"op":"check","id":N,"files":[...],"folders":[..]}  would they open? Asked before anything is changed; here, so
 *                                       that a filesystem that hangs does not hang vmd
 *   {"op":"open","id":N,"files":[...],"folders":[..]}   opens them, for an emulator that runs; also with
 *                                       "nics" or "shares" as above; "vm" is whose
 *   {"op":"network","id":N,"key":..,"name":..,"cookie":..,"config":"<JSON as network/server/lan.h has it>","tftp":..,
 *    "isolated":bool}                   starts the process of a named network
 * vmd-spawn -> vmd
 *   {"ready":true}                      it alone speaks for the run folder (SPAWN_LOCK is held)
 *   {"failed":".."}                     it cannot begin, and ends; vmd tries again later
 *   {"layers":[{"name","active","reason"}]}   again when a start found an emulator that did not run before
 *   {"id":N,"pid":..,"start_time":..,"mon_pid":..,"mon_start":..}   with three descriptors:
 *                                       pidfd of the emulator, of its monitor, statistics memfd
 *   {"id":N,"disks":[{"path","dev","ino","write"}]}                  they would: which files the disks are, and those
 *                                       that their images name
 *   {"id":N,"images":[{"role","key","format","path"}]}   opened, a descriptor each: role "file" (key from the request),
 *                                       then what its image names: "data", "backing", and so on down;
 *                                       at last "nic" (key is its name) and "share" (its tag)
 *   {"id":N,"pid":..,"start_time":..}   a network's process, with its pidfd
 *   {"id":N,"error":{"code":-errno,"message":..,"path":..}}         nothing was left behind
 *
 * A VM's run folder, RUN/vm/ID, while its emulator lives:
 *   lock      OFD lock held by the emulator alone: no second start
 *   control, console, vnc   unix sockets, bound by vmd-spawn, listened to by the emulator
 *   cNNNNNN   the same of a channel: six digits made from its name
 *   vsock     the same for streams to the guest; vsock_PORT: where a program of the host listens for it, which the monitor connects to
 *   emu.log   the emulator's standard error
 *   process   {"cookie","boot_id","pid","start_time","mon_pid","mon_start","disks"}, written by the monitor
 *             before the emulator's first instruction
 *   ending    {"cookie","reason"}, written by vmd before it asks the emulator to quit or kills it, for
 *             a vmd that comes later
 *   exit      {"cookie","pid","status","signal","ended_ns","cpu_ns"}, written by the monitor when
 *             it has ended, SIGKILL included
 *
 * A network's run folder, RUN/net/KEY: lock, control, process (cookie, boot_id, pid, start_time) as above; ports, where
 * cards connect; net.log, its standard error.
 */
#ifndef VMD_DAEMON_SPAWN_PROTO_H
#define VMD_DAEMON_SPAWN_PROTO_H

#define SPAWN_LOCK "spawn.lock" /* in the run folder */
#define SPAWN_VM_DIR "vm"
#define SPAWN_NET_DIR "net"
#define SPAWN_PACKET_MAX (256 * 1024)
#define SPAWN_FILES_MAX 24
#define SPAWN_IMAGES_MAX 256 /* that the disks of a VM name */
#define SPAWN_DEPTH_MAX 200  /* images in a chain */
#define SPAWN_OPEN_MAX 60    /* descriptors in one packet */
#define SPAWN_NICS_MAX 8
#define SPAWN_CHANNELS_MAX 8
#define SPAWN_SHARES_MAX 8
#define STATS_SIZE 4096
/* The monitor keeps the statistics memfd under this number, for daemons that come later. */
#define MONITOR_STATS_FD 3

#define VM_LOCK "lock"
#define VM_CONTROL "control"
#define VM_CONSOLE "console"
#define VM_VNC "vnc"
#define VM_VSOCK "vsock" /* and vsock_PORT, where others listen */
#define VM_NBD "nbd.sock"
#define VM_EMU_LOG "emu.log"
#define VM_PROCESS "process"
#define VM_ENDING "ending"
#define VM_EXIT "exit"
#define NET_PORTS "ports"
#define NET_LOG "net.log"
#define NET_KEY_LEN 16 /* hex digits of its UUID */

#include <stdint.h>
#include <stdio.h>

/* The socket of a channel in the run folder: short, whatever its name. FNV-1a. */
#define VM_CHANNEL_LEN 7
static inline void vm_channel_socket(char out[VM_CHANNEL_LEN + 1], const char *name)
{
    uint32_t h = 2166136261u;

    for (const char *p = name; *p; p++) {
        h = (h ^ (uint8_t)*p) * 16777619u;
    }
    snprintf(out, VM_CHANNEL_LEN + 1, "c%06x", (unsigned)(h ^ h >> 24) & 0xffffffu);
}

#endif
