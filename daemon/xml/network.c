/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Network XML: what of it a NetConfig holds. Constant data.
 */
#include "api-schema/gen/types.h"
#include "api-schema/json/json.h"
#include "daemon/xml/rows.h"
#include "daemon/xml/tree.h"
#include "engine/base/mem.h"

#include <errno.h>
#include <string.h>

#define NO_PORTS "ports of physical devices, open vSwitch and VLAN groups are not foreseen"
#define NO_SHAPE "bandwidth is not foreseen"
#define NO_ROUTE "static routes are the host's business"
#define NO_DNS "vmd's own DNS serves addresses and names"

/* <forward/> alone means NAT; without the element the network is isolated. */
static int forward_get(const struct xml_row *row, const struct xml_node *n, const char *text,
                       struct json_object **out, struct err *e)
{
    static const char *const modes[] = { "nat", "route", "open", "bridge" };
    const char *mode = xml_get_attr(n, "mode");

    (void)row;
    (void)text;
    mode = mode ? mode : "nat";
    for (size_t i = 0; i < ARRAY_LEN(modes); i++) {
        if (strcmp(mode, modes[i]) == 0) {
            *out = json_object_new_string(mode);
            return 0;
        }
    }
    return err_set(e, -EINVAL, "not supported: vmd knows nat, route, open and bridge");
}

static bool forward_put(const struct xml_row *row, struct json_object *v, struct xml_node *n,
                        struct buf *text)
{
    const char *mode = json_object_get_string(v);

    (void)row;
    (void)text;
    if (strcmp(mode, "isolated") == 0) {
        return false;
    }
    xml_set_attr(n, "mode", mode);
    return true;
}

static const struct xml_conv as_forward = { forward_get, forward_put,
                                            "how the network reaches others" };

#define YESNO(p, m, w)                                                                         \
    {                                                                                          \
        p, XML_VALUE, 0, m, &xml_as_yesno, w, NULL                                             \
    }

static const struct xml_row rows[] = {
    NO("@ipv6",
       "guests speak IPv6 among one another only where the network has an IPv6 address"),
    { "@connections", XML_LEFT_OUT, 0, NULL, NULL, NULL, "the state of a running network" },
    NO("@trustGuestRxFilters", NO_PORTS),
    MUST("name", "name", xml_as_text, NULL),
    VALUE("uuid", "uuid", xml_as_uuid, NULL),
    { "metadata", XML_ANY, 0, "metadata", NULL, NULL,
      "elements of other programs are kept as they are" },
    { "forward", XML_VALUE, 0, "forward", &as_forward, NULL, "absent: isolated" },
    { "forward@mode", XML_PART, 0, NULL, NULL, NULL,
      "`nat` (when absent), `route`, `open`, `bridge`" },
    VALUE("forward@dev", "forward_dev", xml_as_word, NULL),
    NO("forward@managed", NO_PORTS),
    NO("forward/address|driver|pf", NO_PORTS),
    NO("forward/interface", "name one interface by 'dev'"),
    NO("forward/nat", "address and port ranges of NAT are chosen by vmd"),
    GROUP("bridge", 0),
    VALUE("bridge@name", "bridge", xml_as_word, NULL),
    YESNO("bridge@stp", "stp", "on"),
    VALUE("bridge@delay", "delay", xml_as_int, NULL),
    NO("bridge@zone|macTableManager", "the host's firewall is not told of networks"),
    GROUP("mtu", 0),
    VALUE("mtu@size", "mtu", xml_as_int, NULL),
    GROUP("mac", 0),
    VALUE("mac@address", "mac", xml_as_word, NULL),
    GROUP("domain", 0),
    VALUE("domain@name", "domain", xml_as_word, NULL),
    YESNO("domain@localOnly", "domain_local", NULL),
    GROUP("dns", 0),
    YESNO("dns@enable", "dns", NULL),
    NO("dns@forwardPlainNames", NO_DNS),
    LIST("dns/forwarder", "forwarders", NULL),
    VALUE("dns/forwarder@domain", "domain", xml_as_word, NULL),
    VALUE("dns/forwarder@addr", "address", xml_as_word, NULL),
    LIST("dns/host", "dns_hosts", NULL),
    MUST("dns/host@ip", "ip", xml_as_word, NULL),
    { "dns/host/hostname", XML_LIST, 0, "names", &xml_as_text, "name", NULL },
    NO("dns/txt|srv", NO_DNS),
    LIST("ip", "ips", NULL),
    VALUE("ip@family", "family", xml_as_word, NULL),
    MUST("ip@address", "address", xml_as_word, NULL),
    VALUE("ip@netmask", "netmask", xml_as_word, NULL),
    VALUE("ip@prefix", "prefix", xml_as_int, NULL),
    NO("ip@localPtr", NO_DNS),
    GROUP("ip/tftp", 0),
    VALUE("ip/tftp@root", "tftp", xml_as_path, NULL),
    GROUP("ip/dhcp", 0),
    LIST("ip/dhcp/range", "dhcp", NULL),
    MUST("ip/dhcp/range@start", "start", xml_as_word, NULL),
    MUST("ip/dhcp/range@end", "end", xml_as_word, NULL),
    NO("ip/dhcp/range/lease", "leases last an hour"),
    LIST("ip/dhcp/host", "hosts", NULL),
    VALUE("ip/dhcp/host@id", "id", xml_as_text, NULL),
    VALUE("ip/dhcp/host@mac", "mac", xml_as_word, NULL),
    VALUE("ip/dhcp/host@name", "name", xml_as_word, NULL),
    VALUE("ip/dhcp/host@ip", "ip", xml_as_word, NULL),
    NO("ip/dhcp/host/lease", "leases last an hour"),
    GROUP("ip/dhcp/bootp", 0),
    { "ip/dhcp/bootp@file", XML_VALUE, XML_NEEDED, "bootfile", &xml_as_text, NULL, NULL },
    NO("ip/dhcp/bootp@server", "files are served by the network itself"),
    NO("route", NO_ROUTE),
    NO("bandwidth", NO_SHAPE),
    NO("vlan|port|virtualport", NO_PORTS),
    LIST("portgroup", "portgroups", NULL),
    MUST("portgroup@name", "name", xml_as_text, NULL),
    YESNO("portgroup@default", "is_default", NULL),
    NO("portgroup@trustGuestRxFilters", NO_PORTS),
    GROUP("portgroup/vlan", 0),
    YESNO("portgroup/vlan@trunk", "trunk", NULL),
    GROUP("portgroup/vlan/tag", 0),
    VALUE("portgroup/vlan/tag@id", "vlan", xml_as_int, NULL),
    NO("portgroup/vlan/tag@nativeMode", NO_PORTS),
    BANDWIDTH("portgroup", "inbound", "outbound"),
    NO("portgroup/virtualport|port", NO_PORTS),
    NO("options|dnsmasq:options", "it passes options to dnsmasq"),
};

const struct xml_kind xml_network = {
    .name = "network",
    .root = "network",
    .type_doc = "NetConfig",
    .type = &api_type_net_config,
    .rows = rows,
    .n_rows = ARRAY_LEN(rows),
    .metadata = false,
};
