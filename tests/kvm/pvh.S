/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A bare PVH kernel for the microvm board (tests/kvm/microvm.py): 64-bit code behind 32-bit entry. Says what it was started with on the serial port (its own
 * transmitter-empty interrupt by the I/O APIC counted), reads the first sector of a virtio-mmio disk at the address that the command line
 * names first and prints its text, and then does what the command line begins with: "off" ends by PM1 control, "reset" by the keyboard controller, "fault" by a
 * triple fault, "port", "mmio", "bell" and "ipis" access a device, ring a queue's bell, or interrupt the processor itself often, "pair" another one that halts (tests/bench/kvm.py), "echo" gives back what the serial port brings until a 'q', "count" writes memory and checks it for ever.
 * Linked at 2 MiB.
 */
#define COM1 0x3f8
#define PM1 0x604
#define IOAPIC 0xfec00000
#define LAPIC 0xfee00000
#define VECTOR_SERIAL 0x41
#define VECTOR_DISK 0x42
#define QUEUE 8

    .section .note.pvh, "a", @note
    .balign 4
    .long 4, 4, 18
    .asciz "Xen"
    .long _start

    .text
    .code32
    .globl _start
_start:
    movl $stack_end, %esp
    movl %ebx, start_info
    cmpl $0x336ec578, (%ebx)
    jne fail32
    movl $pml4, %edi            /* 4 GiB by pages of 2 MiB */
    movl $pdpt + 3, (%edi)
    movl $4, %ecx
    movl $pdpt, %edi
    movl $pages + 3, %eax
1:  movl %eax, (%edi)
    addl $8, %edi
    addl $4096, %eax
    loop 1b
    movl $pages, %edi
    movl $0x83, %eax
1:  movl %eax, (%edi)
    addl $8, %edi
    addl $0x200000, %eax
    jnc 1b
    movl $pml4, %eax
    movl %eax, %cr3
    movl $0x20, %eax
    movl %eax, %cr4
    movl $0xc0000080, %ecx
    rdmsr
    orl $0x100, %eax
    wrmsr
    movl %cr0, %eax
    orl $0x80000000, %eax
    movl %eax, %cr0
    lgdtl gdt_at
    ljmpl $8, $in_long
fail32:
    hlt
    jmp fail32
    .code64
in_long:
    movl $16, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    movl $LAPIC, %r8d           /* both for ever */
    movl $IOAPIC, %r9d
    movl $0xfeb00000, %r10d     /* the first slot */
    call interrupts
    movl $hello, %esi
    call print
    movl start_info, %ebx
    movl 24(%rbx), %esi         /* the command line */
    movl %esi, cmdline
    call print
    movl $newline, %esi
    call print
    movl $word_map, %esi
    call print
    movl start_info, %ebx
    movl 40(%rbx), %edi         /* memory map */
    movl 48(%rbx), %ebp
2:  movl (%rdi), %eax
    call hex
    movl $space, %esi
    call print
    movl 8(%rdi), %eax
    call hex
    movl $newline, %esi
    call print
    addl $24, %edi
    decl %ebp
    jnz 2b
    movl start_info, %ebx
    cmpl $0, 12(%rbx)           /* a module: its first word */
    je 3f
    movl 16(%rbx), %edi
    movl (%rdi), %esi
    call print
3:  call disk
    movl cmdline, %esi
    cmpl $0x6f686365, (%rsi)    /* echo */
    je echo
    cmpl $0x6e756f63, (%rsi)    /* coun(t) */
    je count
    cmpl $0x6c756166, (%rsi)    /* faul(t) */
    je fault
    cmpl $0x74726f70, (%rsi)    /* port */
    je port
    cmpl $0x6f696d6d, (%rsi)    /* mmio */
    je mmio
    cmpl $0x6c6c6562, (%rsi)    /* bell */
    je bell
    cmpl $0x73697069, (%rsi)    /* ipis */
    je ipis
    cmpl $0x72696170, (%rsi)    /* pair */
    je pair
    cmpl $0x65736572, (%rsi)    /* rese(t) */
    je reset
off:
    movl $bye, %esi
    call print
    movw $PM1, %dx
    movw $0x2000, %ax
    outw %ax, %dx
1:  hlt
    jmp 1b
fail:
    movl $failed, %esi
    call print
1:  hlt
    jmp 1b
reset:
    movb $0xfe, %al
    outb %al, $0x64
1:  hlt
    jmp 1b
fault:
    lidt none
    ud2

/* So many accesses to the serial port's scratch register, or reads of a virtio-mmio slot's first one. */
#define ACCESSES 1000000
#define INTERRUPTS 20000
port:
    movl $ready, %esi
    call print
    movl $ACCESSES, %ecx
    movw $COM1 + 7, %dx
1:  outb %al, %dx
    decl %ecx
    jnz 1b
    jmp off
mmio:
    movl $ready, %esi
    call print
    movl $ACCESSES, %ecx
1:  movl (%r10), %eax
    decl %ecx
    jnz 1b
    jmp off

/* The bell of queue 0 of the first virtio-mmio device there is, whose ring is empty. */
bell:
    movl %r10d, %ebx
1:  cmpl $0x74726976, (%rbx)
    jne 2f
    cmpl $0, 8(%rbx)
    jne 3f
2:  addl $0x200, %ebx
    cmpl $0xfeb18000, %ebx
    jb 1b
    jmp fail
3:  call negotiate
    movl $ready, %esi
    call print
    movl $ACCESSES, %ecx
4:  movl $0, 0x50(%rbx)
    decl %ecx
    jnz 4b
    jmp off

/* Interrupts that the processor sends to itself, each waited for. */
ipis:
    movl $ready, %esi
    call print
    xorl %ecx, %ecx
    sti
1:  incl %ecx
    movl $0x40043, 0x300(%r8)
2:  cmpl %ecx, timer_count
    jne 2b
    cmpl $INTERRUPTS, %ecx
    jne 1b
    cli
    jmp off

/* Interrupts for the second processor, which halts until each comes. */
#define PAIRS 20000
#define AP_PAGE 0x8000
pair:
    movl $ap_start, %esi
    movl $AP_PAGE, %edi
    movl $ap_end - ap_start, %ecx
    cld
    rep movsb
    movl $1 << 24, 0x310(%r8)
    movl $0x4500, 0x300(%r8)    /* INIT, then its start at the page */
    call icr_idle
    movl $1 << 24, 0x310(%r8)
    movl $0x4600 | AP_PAGE >> 12, 0x300(%r8)
    call icr_idle
1:  cmpl $0, ap_alive
    je 1b
    movl $ready, %esi
    call print
    xorl %ecx, %ecx
2:  incl %ecx
    movl $1 << 24, 0x310(%r8)
    movl $0x4043, 0x300(%r8)
3:  pause
    cmpl %ecx, timer_count
    jne 3b
    cmpl $PAIRS, %ecx
    jne 2b
    jmp off
icr_idle:
    testl $1 << 12, 0x300(%r8)
    jnz icr_idle
    ret

/* Where it starts, in real mode: copied to AP_PAGE. */
    .code16
ap_start:
    cli
    xorw %ax, %ax
    movw %ax, %ds
    lgdtl AP_PAGE + ap_gdt_at - ap_start
    movl %cr0, %eax
    orl $1, %eax
    movl %eax, %cr0
    ljmpl $24, $ap_32
    .balign 8
ap_gdt_at:
    .word 31
    .long gdt
ap_end:
    .code32
ap_32:
    movl $16, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    movl $pml4, %eax
    movl %eax, %cr3
    movl $0x20, %eax
    movl %eax, %cr4
    movl $0xc0000080, %ecx
    rdmsr
    orl $0x100, %eax
    wrmsr
    movl %cr0, %eax
    orl $0x80000000, %eax
    movl %eax, %cr0
    ljmpl $8, $ap_long
    .code64
ap_long:
    movl $ap_stack_end, %esp
    movl $LAPIC, %r8d
    lidt idt_at
    movl $0x1ff, 0xf0(%r8)
    movl $1, ap_alive
1:  sti
    hlt
    jmp 1b

/* Gives back what comes, by the receiver's interrupt. */
echo:
    movl $ready, %esi
    call print
    movw $COM1 + 1, %dx
    movb $1, %al
    outb %al, %dx
1:  sti
    hlt
    cli
2:  movw $COM1 + 5, %dx
    inb %dx, %al
    testb $1, %al
    jz 1b
    movw $COM1, %dx
    inb %dx, %al
    movb %al, %cl
    call putc
    cmpb $'q', %cl
    jne 2b
3:  cmpl $0, serial_count       /* it may wait still: something else woke us */
    jne 4f
    sti
    hlt
    cli
    jmp 3b
4:  movl $serial_taken, %esi
    call print
    jmp off

/* Writes the number of the pass to each of 1024 pages for ever, and finds that of the pass before in it; '.' after 16 passes, 'E' for ever when one was
 * wrong. The APIC's timer interrupts meanwhile. */
#define PAGES_AT 0x1000000
#define PAGES_END 0x1400000
count:
    movl $PAGES_AT, %edi
    movl $(PAGES_END - PAGES_AT) / 4, %ecx
    xorl %eax, %eax
    cld
    rep stosl
    movl $ready, %esi
    call print
    movl $0x20043, 0x320(%r8)
    movl $0xb, 0x3e0(%r8)
    movl $1000000, 0x380(%r8)
    sti
    xorl %ebp, %ebp
1:  movl $PAGES_AT, %edi
2:  cmpl %ebp, (%rdi)
    jne 3f
    incl (%rdi)
    addl $4096, %edi
    cmpl $PAGES_END, %edi
    jb 2b
    incl %ebp
    movl %ebp, passes
    testl $15, %ebp
    jnz 1b
    movb $'.', %al
    call putc
    jmp 1b
3:  movb $'E', %al
    call putc
    jmp 3b

/* ---- printing ---- */

putc:
    pushq %rdx
    pushq %rax
    movw $COM1 + 5, %dx
1:  inb %dx, %al
    testb $0x20, %al
    jz 1b
    popq %rax
    movw $COM1, %dx
    outb %al, %dx
    popq %rdx
    ret
print:
    lodsb
    testb %al, %al
    jz 1f
    call putc
    jmp print
1:  ret
hex:
    movl $8, %ecx
1:  roll $4, %eax
    pushq %rax
    andl $15, %eax
    movb digits(%rax), %al
    call putc
    popq %rax
    loop 1b
    ret

/* ---- interrupts ---- */

    .macro gate vector, to
    movl $\to, %eax
    movw %ax, idt + 16 * \vector
    movw $8, idt + 16 * \vector + 2
    movw $0x8e00, idt + 16 * \vector + 4
    shrl $16, %eax
    movw %ax, idt + 16 * \vector + 6
    movl $0, idt + 16 * \vector + 8
    .endm
/* Pin %eax sends vector %ecx (with its trigger mode) to processor 0. */
pin:
    leal 0x11(, %rax, 2), %edx
    movl %edx, (%r9)
    movl $0, 0x10(%r9)
    decl %edx
    movl %edx, (%r9)
    movl %ecx, 0x10(%r9)
    ret
interrupts:
    movl $0x1ff, 0xf0(%r8)
    gate VECTOR_SERIAL, on_serial
    gate VECTOR_DISK, on_disk
    gate 0x43, on_timer
    lidt idt_at
    movl $4, %eax
    movl $VECTOR_SERIAL, %ecx
    call pin
    movl $16, %eax
    movl $VECTOR_DISK | 1 << 15, %ecx
    jmp pin
on_serial:
    pushq %rax
    incl serial_count
    movl $0, 0xb0(%r8)
    popq %rax
    iretq
on_timer:
    incl timer_count
    movl $0, 0xb0(%r8)
    iretq
/* Level-triggered: acknowledged at the device, and by EOI at the pin. */
on_disk:
    pushq %rax
    movl 0x60(%r10), %eax
    testl %eax, %eax            /* KVM without hardware support tells the EOI before the access in front of it: then the pin asks twice */
    jz 1f
    incl disk_count
    movl %eax, 0x64(%r10)
1:  movl $0, 0xb0(%r8)
    popq %rax
    iretq

/* ---- a disk: virtio 1.2 §4.2, one request at a time ---- */

/* The device at %ebx is given queue 0. */
negotiate:
    movl $0, 0x70(%rbx)
    movl $1, 0x70(%rbx)
    movl $3, 0x70(%rbx)
    movl $1, 0x24(%rbx)
    movl $1, 0x20(%rbx)         /* VERSION_1 */
    movl $0, 0x24(%rbx)
    movl $0, 0x20(%rbx)
    movl $11, 0x70(%rbx)
    testl $8, 0x70(%rbx)
    jz fail
    movl $0, 0x30(%rbx)
    movl $QUEUE, 0x38(%rbx)
    movl $desc, 0x80(%rbx)
    movl $0, 0x84(%rbx)
    movl $avail, 0x90(%rbx)
    movl $0, 0x94(%rbx)
    movl $used, 0xa0(%rbx)
    movl $0, 0xa4(%rbx)
    movl $1, 0x44(%rbx)
    movl $15, 0x70(%rbx)
    ret
disk:
    movl %r10d, %ebx
    cmpl $0x74726976, (%rbx)
    jne 9f
    cmpl $2, 8(%rbx)
    jne 9f
    call negotiate
    movl $request, desc
    movl $16, desc + 8
    movl $1 << 16 | 1, desc + 12
    movl $sector, desc + 16
    movl $512, desc + 24
    movl $2 << 16 | 3, desc + 28
    movl $status, desc + 32
    movl $1, desc + 40
    movl $2, desc + 44
    movl $5, %ebp               /* times: each has to interrupt */
1:  movb $255, status
    movzwl avail + 2, %eax
    movl %eax, %ecx
    andl $QUEUE - 1, %ecx
    movw $0, avail + 4(, %rcx, 2)
    incl %eax
    movw %ax, avail + 2
    movl $0, 0x50(%rbx)
2:  sti
    hlt
    cli
    movw used + 2, %cx
    cmpw %cx, avail + 2
    jne 2b
    movzwl avail + 2, %eax      /* as many interrupts as requests */
    cmpl disk_count, %eax
    jne 2b
    cmpb $0, status
    jne fail
    decl %ebp
    jnz 1b
    movl $word_disk, %esi
    call print
    movl $sector, %esi
    movb $0, sector + 511
    call print
    movl $newline, %esi
    jmp print
9:  ret

    .data
hello: .asciz "pvh: "
ready: .asciz "ready\n"
word_map: .asciz "map:\n"
word_disk: .asciz "disk: "
serial_taken: .asciz "\ninterrupts came\n"
bye: .asciz "bye\n"
failed: .asciz "FAILED\n"
newline: .asciz "\n"
space: .asciz " "
digits: .ascii "0123456789abcdef"
    .balign 8
gdt: .quad 0, 0x00af9b000000ffff, 0x00cf93000000ffff, 0x00cf9b000000ffff
gdt_at: .word 31
    .long gdt
idt_at: .word 0x44 * 16 - 1
    .quad idt
none: .word 0
    .quad 0
request: .long 0, 0, 0, 0

    .bss
    .balign 4096
pml4: .skip 4096
pdpt: .skip 4096
pages: .skip 4 * 4096
desc: .skip 16 * QUEUE
    .balign 16
avail: .skip 64
    .balign 16
used: .skip 128
idt: .skip 16 * 256
start_info: .skip 4
cmdline: .skip 4
serial_count: .skip 4
disk_count: .skip 4
timer_count: .skip 4
passes: .skip 4
ap_alive: .skip 4
status: .skip 4
sector: .skip 512
    .balign 16
    .skip 4096
stack_end:
    .skip 4096
ap_stack_end:
