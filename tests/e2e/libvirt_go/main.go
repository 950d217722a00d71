// SPDX-License-Identifier: Apache-2.0

// Lists the domains behind the socket of the first argument, starts the one of the second, and says how it is then.
package main

import (
	"fmt"
	"net"
	"os"
	"sort"

	"github.com/digitalocean/go-libvirt"
)

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func main() {
	conn, err := net.Dial("unix", os.Args[1])
	check(err)
	l := libvirt.New(conn)
	check(l.Connect())
	domains, _, err := l.ConnectListAllDomains(1, libvirt.ConnectListDomainsActive|libvirt.ConnectListDomainsInactive)
	check(err)
	sort.Slice(domains, func(i, j int) bool { return domains[i].Name < domains[j].Name })
	for _, d := range domains {
		fmt.Println(d.Name)
	}
	domain, err := l.DomainLookupByName(os.Args[2])
	check(err)
	check(l.DomainCreate(domain))
	state, _, err := l.DomainGetState(domain, 0)
	check(err)
	if libvirt.DomainState(state) == libvirt.DomainRunning {
		fmt.Println("running")
	}
	check(l.Disconnect())
}
