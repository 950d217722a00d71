/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A named network as a process: a switch, its gateway, a socket where ports come in and one where the daemon asks. One thread.
 *
 * A port: a stream connection whose first frame (length, then JSON) is {"port","mac","vlan","trunk","filter","limits"} from
 * the monitor of a VM; then frames with virtio headers. Only the daemon's user can reach the sockets.
 *
 * The control socket speaks JSON-RPC, a line a message: status {}; port {"port", and what is to change of "vlan", "trunk", "faults", "limits",
 * "filter"}; faults {"faults", and "prefix" of names, "" for all of them and those that come}; hosts {"hosts"}: those of the configuration anew; capture
 * {"port","snaplen","limit"} with the file's descriptor; capture_stop {"port"}; quit {}.
 */
#ifndef VMD_NETWORK_SERVER_LAN_H
#define VMD_NETWORK_SERVER_LAN_H

#include "engine/base/err.h"

struct lan;
struct loop;

/* `config` is JSON: {"name","address","prefix","nat","dns","domain","mtu","first","last","hosts","tftp","bootfile","mac",
 * "address6","prefix6","cookie"}; the cookie is what status says, so that one knows whom one asks. Takes both
 * sockets, which listen. NULL: e says why. */
struct lan *lan_new(struct loop *l, const char *config, int take_ports, int take_control,
                    struct err *e);
void lan_free(struct lan *n);

#endif
