# SPDX-License-Identifier: Apache-2.0
"""The files in virt-install/: what virt-install prints for these command lines. Nothing is made and no libvirtd is
asked: its capabilities are those in capabilities.xml. `python3 virt_install.py [NUMBER...]` writes them anew.

A third of them are for the board that vmd has, the others for PCs as people have them."""
import os
import pathlib
import shlex
import shutil
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
BOARD = "--arch riscv64 --machine virt --osinfo generic --network none --graphics none --channel none"
KERNEL = "--boot kernel=/srv/Image,initrd=/srv/initrd.gz,kernel_args='console=ttyS0 root=/dev/vda'"
PC = "--arch x86_64 --memory 2048"
VIRTIO = "bus=virtio,format=raw"

RISCV = [
    f"--memory 512 {KERNEL} --disk none",
    f"--memory 1024 --vcpus 2 {KERNEL} --disk none",
    f"--memory 2048 --vcpus 4 --boot kernel=/srv/Image --disk path=/srv/a.raw,size=1,{VIRTIO}",
    f"--memory 512 {KERNEL} --disk path=/srv/a.raw,size=1,{VIRTIO} --disk path=/srv/b.raw,size=1,{VIRTIO},readonly=on",
    f"--memory 512 {KERNEL} --disk path=/srv/a.raw,size=1,{VIRTIO} --rng /dev/urandom",
    f"--memory 512 {KERNEL} --disk none --rng /dev/random",
    f"--memory 512 {KERNEL} --disk none --memballoon none --controller usb,model=none",
    f"--memory 768 {KERNEL} --disk none --metadata title='Web server',description='Serves pages'",
    f"--memory 768 {KERNEL} --disk none --uuid 5b1f7c1e-3a55-4c2b-8c0e-6d1f2e3a4b5c",
    f"--memory 512 {KERNEL} --disk none --console pty,target.type=virtio",
    f"--memory 512 {KERNEL} --disk none --serial pty --console pty,target.type=serial",
    f"--memory 512 {KERNEL} --disk none --cpu rv64",
    f"--memory 512 {KERNEL} --disk none --cpu rv64,disable=zba,require=zbb",
    f"--memory 512 {KERNEL} --disk none --cpu maximum",
    f"--memory 512 --vcpus 4,sockets=1,cores=4,threads=1 {KERNEL} --disk none",
    f"--memory 512 --boot loader=/srv/fw.bin,loader_type=rom --import --disk path=/srv/a.raw,size=1,{VIRTIO}",
    f"--memory 512 --boot loader=/srv/fw.bin,loader_type=rom,loader_ro=yes --import --disk path=/srv/a.raw,size=1,{VIRTIO}",
    f"--memory 512 --import --disk path=/srv/a.raw,size=1,{VIRTIO}",
    f"--memory 512 {KERNEL} --disk path=/srv/a.raw,size=1,{VIRTIO},cache=writeback",
    f"--memory 512 {KERNEL} --disk path=/srv/a.raw,size=1,{VIRTIO},discard=unmap",
    f"--memory 512 {KERNEL} --disk path=/srv/a.raw,size=1,{VIRTIO},target.dev=vdc",
    f"--memory 512 {KERNEL} --disk none --events on_crash=restart",
    f"--memory 512 {KERNEL} --disk none --events on_poweroff=destroy,on_reboot=restart,on_crash=destroy",
    f"--memory 512 {KERNEL} --disk none --cputune shares=200",
    f"--memory 512 {KERNEL} --disk none --memtune hard_limit=1048576",
    f"--memory 512 {KERNEL} --disk none --blkiotune weight=300",
    f"--memory 512 {KERNEL} --disk none --seclabel type=none",
    f"--memory 512 {KERNEL} --disk none --clock offset=utc",
    f"--memory 512 {KERNEL} --disk none --video none",
    f"--memory 512 {KERNEL} --disk none --audio type=none",
    f"--memory 4096 --vcpus 8 {KERNEL} --disk path=/srv/a.raw,size=1,{VIRTIO} --disk path=/srv/b.raw,size=1,{VIRTIO} "
    "--disk path=/srv/c.raw,size=1,bus=virtio,format=raw --rng /dev/urandom --memballoon none",
    f"--memory 256 {KERNEL} --disk none --pm suspend_to_mem.enabled=off,suspend_to_disk.enabled=off",
    # The same board, with something that vmd has not.
    f"--memory 512 {KERNEL} --disk path=/srv/a.qcow2,size=1,bus=virtio,format=qcow2",
    f"--memory 512 {KERNEL} --disk path=/srv/a.raw,size=1,{VIRTIO},cache=none,io=native",
    f"--memory 512 {KERNEL} --disk path=/srv/a.raw,size=1,{VIRTIO},serial=WD-1",
    f"--memory 512 {KERNEL} --disk path=/srv/a.raw,size=1,{VIRTIO},shareable=on",
    f"--memory 512 {KERNEL} --disk none --filesystem /srv/share,share",
    f"--memory 512 {KERNEL} --disk none --watchdog i6300esb",
    f"--memory 512 {KERNEL} --disk none --clock offset=localtime",
    f"--memory 512 {KERNEL} --disk none --tpm emulator",
    f"--memory 512 {KERNEL} --disk none --vcpus 2,maxvcpus=4",
    f"--memory 512,maxmemory=1024 {KERNEL} --disk none",
    f"--memory 512 {KERNEL} --disk none --iothreads 2",
    f"--memory 512 {KERNEL} --disk none --memorybacking hugepages=on",
    f"--memory 512 {KERNEL} --disk none --serial tcp,host=0.0.0.0:2222,mode=bind,protocol=telnet",
    f"--memory 512 {KERNEL} --disk none --qemu-commandline='-d in_asm'",
]
MORE_BOARD = [
    "--arch riscv64 --machine virt --osinfo generic --memory 512 " + KERNEL + " --disk none --graphics none --network user",
    "--arch riscv64 --machine virt --osinfo generic --memory 512 " + KERNEL + " --disk none --graphics none --network bridge=br0",
    "--arch riscv64 --machine virt --osinfo generic --memory 512 " + KERNEL + " --disk none --graphics vnc --network none",
    "--arch riscv32 --machine virt --osinfo generic --memory 512 " + KERNEL + " --disk none --graphics none --network none --channel none",
]
PCS = [
    f"{PC} --osinfo debian11 --disk path=/srv/a.qcow2,size=8 --disk device=cdrom --graphics vnc --import",
    f"{PC} --osinfo debian11 --disk path=/srv/a.qcow2,size=8 --import",
    f"{PC} --osinfo debian11 --disk path=/srv/a.raw,size=8,format=raw --import --graphics none",
    f"{PC} --osinfo fedora36 --disk path=/srv/a.qcow2,size=8 --import --network network=default",
    f"{PC} --osinfo fedora36 --disk path=/srv/a.qcow2,size=8 --import --network bridge=br0,model=virtio",
    f"{PC} --osinfo ubuntu20.04 --disk path=/srv/a.qcow2,size=8 --import --network user --graphics spice",
    f"{PC} --osinfo win10 --disk path=/srv/a.qcow2,size=8 --disk device=cdrom,bus=ide --machine pc --import",
    f"{PC} --osinfo win2k19 --disk path=/srv/a.qcow2,size=8,bus=sata --import --network none",
    f"{PC} --osinfo win10 --disk path=/srv/a.qcow2,size=8 --import --tpm emulator --boot firmware=efi",
    f"{PC} --osinfo generic --disk none --pxe --network bridge=br0",
    f"{PC} --osinfo generic --disk none --import --boot hd,cdrom,network,menu=on",
    f"{PC} --osinfo generic --disk path=/srv/a.raw,size=1,bus=ide --import --machine pc",
    f"{PC} --osinfo generic --disk path=/srv/a.raw,size=1,bus=scsi --controller scsi,model=virtio-scsi --import",
    f"{PC} --osinfo generic --disk path=/srv/a.raw,size=1,bus=usb --import",
    f"{PC} --osinfo generic --disk path=/srv/f.img,device=floppy,size=0.001 --disk path=/srv/a.raw,size=1 --import",
    f"{PC} --osinfo alpinelinux3.16 --disk path=/srv/a.qcow2,size=1 --import --virt-type kvm",
    f"{PC} --osinfo alpinelinux3.16 --disk path=/srv/a.qcow2,size=1 --import --virt-type qemu --cpu host-passthrough",
    f"{PC} --osinfo alpinelinux3.16 --disk path=/srv/a.qcow2,size=1 --import --cpu host-model",
    f"{PC} --osinfo alpinelinux3.16 --disk path=/srv/a.qcow2,size=1 --import --cpu Westmere,+x2apic,-vmx",
    f"{PC} --osinfo archlinux --disk path=/srv/a.qcow2,size=1 --import --vcpus 4,sockets=2,cores=2,threads=1",
    f"{PC} --osinfo archlinux --disk path=/srv/a.qcow2,size=1 --import --vcpus 2 --cpu cell0.id=0,cell0.cpus=0-1,cell0.memory=2097152",
    f"{PC} --osinfo archlinux --disk path=/srv/a.qcow2,size=1 --import --numatune 0,memory.mode=strict",
    f"{PC} --osinfo archlinux --disk path=/srv/a.qcow2,size=1 --import --memorybacking hugepages=on,nosharepages=on",
    f"{PC} --osinfo archlinux --disk path=/srv/a.qcow2,size=1 --import --sound ich9 --audio type=spice",
    f"{PC} --osinfo archlinux --disk path=/srv/a.qcow2,size=1 --import --video virtio --graphics spice,gl.enable=yes,listen=none",
    f"{PC} --osinfo archlinux --disk path=/srv/a.qcow2,size=1 --import --input keyboard,bus=usb --input tablet,bus=usb",
    f"{PC} --osinfo archlinux --disk path=/srv/a.qcow2,size=1 --import --memdev model=dimm,target.size=512,target.node=0",
    f"{PC} --osinfo archlinux --disk path=/srv/a.qcow2,size=1 --import --filesystem /srv,host,driver.type=virtiofs --memorybacking access.mode=shared,source.type=memfd",
    f"{PC} --osinfo archlinux --disk path=/srv/a.qcow2,size=1 --import --vsock cid.auto=yes",
    f"{PC} --osinfo archlinux --disk path=/srv/a.qcow2,size=1 --import --panic default --watchdog default",
    f"{PC} --osinfo archlinux --disk path=/srv/a.qcow2,size=1 --import --redirdev usb,type=spicevmc --smartcard passthrough,type=spicevmc",
    f"{PC} --osinfo archlinux --disk path=/srv/a.qcow2,size=1 --import --sysinfo host --seclabel type=dynamic,model=selinux",
    f"{PC} --osinfo archlinux --disk path=/srv/a.qcow2,size=1 --import --iothreads 2 --cputune vcpupin0.vcpu=0,vcpupin0.cpuset=0",
    f"{PC} --osinfo archlinux --disk path=/srv/a.qcow2,size=1 --import --features kvm.hidden.state=on,smm.state=on",
    f"{PC} --osinfo archlinux --disk path=/srv/a.qcow2,size=1 --import --clock offset=localtime,hpet_present=no",
    f"{PC} --osinfo archlinux --disk path=/srv/a.qcow2,size=1 --import --channel unix,target.type=virtio,name=org.qemu.guest_agent.0",
    f"{PC} --osinfo archlinux --disk path=/srv/a.qcow2,size=1 --import --parallel file,path=/srv/lp --serial file,path=/srv/tty",
    f"{PC} --osinfo archlinux --disk path=/srv/a.qcow2,size=1 --import --shmem name=shared,model.type=ivshmem-plain,size=8,size.unit=M",
    f"{PC} --osinfo archlinux --disk path=/srv/a.qcow2,size=1 --import --keywrap cipher0.name=aes,cipher0.state=on",
    f"{PC} --osinfo archlinux --disk path=/srv/a.qcow2,size=1 --import --boot firmware=efi,loader_secure=yes,bios.useserial=yes",
    f"{PC} --osinfo archlinux --disk path=/srv/a.qcow2,size=1 --import --disk path=/srv/b.qcow2,size=1,boot.order=2,iotune.total_bytes_sec=1000000",
    f"{PC} --osinfo archlinux --disk path=/srv/a.qcow2,size=1 --import --network type=direct,source=eth0,source.mode=bridge",
    f"{PC} --osinfo archlinux --disk path=/srv/a.qcow2,size=1 --import --resource /machine/web --idmap uid.start=0,uid.target=1000,uid.count=10",
    f"{PC} --osinfo debian11 --disk path=/srv/a.raw,size=1,format=raw,bus=virtio --import --graphics none --network none",
    f"{PC} --osinfo debian11 --disk none --boot kernel=/srv/bzImage,initrd=/srv/i,kernel_args=console=ttyS0 --graphics none --network none",
    f"{PC} --osinfo freebsd13.0 --disk path=/srv/a.raw,size=1,format=raw --import",
    f"{PC} --osinfo openbsd7.0 --disk path=/srv/a.raw,size=1,format=raw --import --network network=default,model=e1000",
    f"{PC} --osinfo centos7.0 --disk path=/srv/a.qcow2,size=1 --import --network bridge=br0 --network network=isolated",
    f"{PC} --osinfo rhel8.5 --disk path=/srv/a.qcow2,size=1 --import --memballoon virtio,autodeflate=on",
    f"{PC} --osinfo debian11 --disk path=/srv/a.qcow2,size=1,discard=unmap,cache=none,io=io_uring --import",
]
# The board again, with what VMs have by now: screens, cards, flash, volumes, limits of disks.
SCREEN = f"--arch riscv64 --machine virt --osinfo generic --memory 512 --channel none {KERNEL}"
KEYS = "--input tablet,bus=virtio --input keyboard,bus=virtio"
FLASH = "--boot loader=/srv/code.fd,loader_type=pflash,loader_ro=yes"
BOARD_NOW = [
    f"{SCREEN} --disk none --network none --graphics vnc --video virtio {KEYS}",
    f"{SCREEN} --disk none --network none --graphics vnc,listen=socket --video bochs {KEYS}",
    f"{SCREEN} --disk none --network none --graphics vnc,port=-1 --video virtio,heads=1 {KEYS}",
    f"{SCREEN} --disk none --network user --graphics vnc,listen=socket --video virtio {KEYS} --sound none",
    f"{SCREEN} --disk none --network user,mac=52:54:00:12:34:56,model=virtio --graphics none",
    f"{SCREEN} --disk none --network bridge=br0,model=virtio,mtu.size=9000 --graphics none",
    f"{SCREEN} --disk none --network user,driver.queues=4 --network bridge=br0 --graphics none",
    f"{SCREEN} --disk none --network user,link.state=down --graphics none",
    f"{SCREEN} --disk path=/srv/a.raw,size=1,{VIRTIO},cache=directsync,serial=A1 --rng /dev/urandom --network user --graphics none",
    f"{SCREEN} --disk path=/srv/a.qcow2,size=1,bus=scsi,format=qcow2 --controller scsi,model=virtio-scsi --network none --graphics none",
    f"{SCREEN} --disk path=/srv/a.raw,size=1,bus=sata,format=raw --disk path=/srv/c.iso,size=1,device=cdrom,bus=sata --network none --graphics none",
    f"{SCREEN} --disk path=/srv/a.raw,size=1,{VIRTIO},iotune.total_bytes_sec=1000000,iotune.total_iops_sec=200 --network none --graphics none",
    f"{SCREEN} --disk path=/srv/a.raw,size=1,{VIRTIO},error_policy=stop,driver.cache=none --network none --graphics none",
    f"{SCREEN} --disk path=/srv/a.raw,size=1,{VIRTIO},address.type=pci --network none --graphics none",
    f"--arch riscv64 --machine virt --osinfo generic --memory 512 --channel none --import {FLASH} --disk path=/srv/a.raw,size=1,{VIRTIO} --network none --graphics none",
    f"--arch riscv64 --machine virt --osinfo generic --memory 512 --channel none --import {FLASH},nvram=/srv/vars.fd "
    f"--disk path=/srv/a.qcow2,size=1,bus=virtio,format=qcow2 --network user --graphics vnc --video virtio {KEYS}",
    f"{SCREEN} --disk none --network none --graphics spice",
    f"{SCREEN} --disk none --network none --graphics vnc,listen=0.0.0.0,port=5901 --video virtio",
]
CASES = [f"{BOARD} {case}" for case in RISCV] + MORE_BOARD + PCS + BOARD_NOW
# Of a board that vmd has; the others are for PCs.
FOR_US = {number for number, case in enumerate(CASES, 1) if "--arch riscv" in case}


def available():
    return shutil.which("virt-install") is not None


def make(number):
    """What virt-install prints for a case, from 1."""
    uri = f"__virtinst_test__test:///default,predictable,caps={HERE}/capabilities.xml,fakeuri=qemu:///system"
    command = ["virt-install", "--connect", uri, "--print-xml", "--dry-run", "--check", "all=off", "--name", f"vm{number}",
               *shlex.split(CASES[number - 1])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False,
                          env={**os.environ, "LC_ALL": "C", "HOME": "/nonexistent"})
    if done.returncode:
        raise AssertionError(f"virt-install fails: {CASES[number - 1]}\n{done.stderr}")
    # The last document is that of the installed guest; with a kernel, it may be printed once only.
    text = done.stdout
    return text[text.rindex("<domain"):].strip() + "\n"


def main():
    (HERE / "virt-install").mkdir(exist_ok=True)
    bad = 0
    for number in map(int, sys.argv[1:]) if sys.argv[1:] else range(1, len(CASES) + 1):
        try:
            (HERE / "virt-install" / f"{number:03}.xml").write_text(make(number), encoding="utf-8")
        except AssertionError as problem:
            print(problem)
            bad += 1
    return bad


if __name__ == "__main__":
    sys.exit(main() != 0)
