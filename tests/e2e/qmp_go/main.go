// SPDX-License-Identifier: Apache-2.0

// Drives a VM through go-qemu: what a program that was written for QEMU does with it. Prints one line a step.
package main

import (
	"fmt"
	"os"
	"time"

	"github.com/digitalocean/go-qemu/qemu"
	"github.com/digitalocean/go-qemu/qmp"
	"github.com/digitalocean/go-qemu/qmp/raw"
)

func must(what string, err error) {
	if err != nil {
		fmt.Printf("%s: %v\n", what, err)
		os.Exit(1)
	}
}

func expect(events <-chan qmp.Event, name string) {
	select {
	case e := <-events:
		if e.Event != name {
			fmt.Printf("event %s in place of %s\n", e.Event, name)
			os.Exit(1)
		}
		fmt.Println("event", e.Event, e.Timestamp.Seconds > 0)
	case <-time.After(20 * time.Second):
		fmt.Println("no event", name)
		os.Exit(1)
	}
}

func main() {
	mon, err := qmp.NewSocketMonitor("unix", os.Args[1], 5*time.Second)
	must("dial", err)
	must("connect", mon.Connect())
	domain, err := qemu.NewDomain(mon, "vm")
	must("domain", err)
	stream, done, err := domain.Events()
	must("events", err)
	defer func() { done <- struct{}{} }()
	rm := raw.NewMonitor(mon)

	version, err := domain.Version()
	must("version", err)
	fmt.Println("version", version)
	status, err := domain.Status()
	must("status", err)
	fmt.Println("status", status)
	must("stop", rm.Stop())
	expect(stream, "STOP")
	status, err = domain.Status()
	must("status", err)
	fmt.Println("status", status)
	must("cont", rm.Cont())
	expect(stream, "RESUME")
	must("reset", domain.SystemReset())
	expect(stream, "RESET")
	disks, err := domain.BlockDevices()
	must("block devices", err)
	for _, d := range disks {
		fmt.Println("disk", d.Device, d.Inserted.Image.VirtualSize)
	}
	stats, err := domain.BlockStats()
	must("block statistics", err)
	fmt.Println("statistics", len(stats))
	commands, err := domain.Commands()
	must("commands", err)
	fmt.Println("commands", len(commands) > 40)
	cpus, err := domain.CPUs()
	fmt.Println("cpus", len(cpus), err == nil)
	jobs, err := domain.BlockJobs()
	must("block jobs", err)
	fmt.Println("jobs", len(jobs))
	run := func(text string) {
		_, err := mon.Run([]byte(text))
		must(text, err)
	}
	count := func() {
		disks, err := domain.BlockDevices()
		must("block devices", err)
		fmt.Println("disks", len(disks))
	}
	run(fmt.Sprintf(`{"execute":"blockdev-add","arguments":{"driver":"raw","node-name":"n","file":{"driver":"file","filename":%q}}}`, os.Args[2]))
	run(`{"execute":"device_add","arguments":{"driver":"virtio-blk-pci","id":"more","drive":"n"}}`)
	count()
	must("device_del", rm.DeviceDel("more"))
	expect(stream, "DEVICE_DELETED")
	count()
	null, err := os.Open("/dev/null")
	must("open", err)
	_, err = mon.RunWithFile([]byte(`{"execute":"getfd","arguments":{"fdname":"x"}}`), null)
	must("getfd", err)
	fmt.Println("powerdown refused", rm.SystemPowerdown() != nil)
	must("quit", rm.Quit())
	expect(stream, "SHUTDOWN")
}
