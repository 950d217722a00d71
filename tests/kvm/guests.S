/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bare guests of tests/kvm/kvm_test.c: one image, copied to 0x8000 of the guest. Those named r_ start in real mode with all
 * segments 0, those named p_ as a PVH kernel does. Port 0xf4 ends the guest with a code, 0xe9 takes text. MMIO test device: 0xd0000000.
 */
#if defined(__x86_64__)
#define AT(s) (s - guests_begin + 0x8000)
    .section .rodata
    .globl guests_begin, guests_end, r_real, p_triple, r_smp, p_long, p_dirty, p_steps, p_count, p_ports, p_bells
    .balign 16
guests_begin:
    .code16
/* A start-up IPI to page 8 lands here. */
    jmp ap

/* Arithmetic, a far call and return, string output. */
r_real:
    movw $0x7000, %sp
    movw $AT(r_int), 0x80*4
    movw $0, 0x80*4+2
    xorw %bx, %bx
    movw $100, %cx
1:  addw %cx, %bx
    pushfw                  /* not "int": KVM without hardware support may hang on that in real mode */
    lcall $0, $AT(r_int)
    loop 1b
    cmpw $5050 + 100, %bx
    jne r_fail
    movw $AT(text), %si
    movw $4, %cx
    movw $0xe9, %dx
    cld
    rep outsb
    movw $0x80, %dx         /* a port that nobody has */
    inb %dx, %al
    cmpb $0xff, %al
    jne r_fail
    movb $1, %al
    jmp r_end
r_int:
    incw %bx
    iret
r_fail:
    movb $2, %al
r_end:
    movw $0xf4, %dx
    outb %al, %dx
1:  hlt
    jmp 1b
text:
    .ascii "real"

/* Four processors: started by INIT and start-up IPIs, each answers a fixed IPI. All by x2APIC. */
    .macro x2apic
    movl $0x1b, %ecx
    rdmsr
    orw $0xc00, %ax
    wrmsr
    movl $0x80f, %ecx
    movl $0x1ff, %eax
    xorl %edx, %edx
    wrmsr
    .endm
r_smp:
    movw $0x7000, %sp
    movw $AT(on_ipi), 0x41*4
    movw $0, 0x41*4+2
    movw $AT(on_timer), 0x42*4
    movw $0, 0x42*4+2
    movl $0, 0x600          /* processors that came */
    movl $0, 0x604          /* IPIs that were taken */
    movl $0, 0x608          /* timer interrupts */
    x2apic
    movl $0x830, %ecx
    xorl %edx, %edx
    movl $0xc4500, %eax     /* INIT to all others */
    wrmsr
    movl $0xc4608, %eax     /* start-up, page 8 */
    wrmsr
1:  pause
    cmpl $3, 0x600
    jne 1b
    movl $1, %esi
2:  movl $50, %edi          /* that many to each */
3:  movl 0x604, %ebx
    movl $0x830, %ecx
    movl %esi, %edx
    movl $0x4041, %eax
    wrmsr
4:  pause
    cmpl %ebx, 0x604
    je 4b
    decl %edi
    jnz 3b
    incl %esi
    cmpl $4, %esi
    jne 2b
    cmpl $150, 0x604
    jne r_fail
    /* the APIC's timer, periodic */
    movl $0x832, %ecx
    xorl %edx, %edx
    movl $0x20042, %eax
    wrmsr
    movl $0x83e, %ecx
    movl $0xb, %eax
    wrmsr
    movl $0x838, %ecx
    movl $100000, %eax
    wrmsr
    sti
5:  hlt
    cmpl $5, 0x608
    jb 5b
    movb $1, %al
    jmp r_end
on_timer:
    incl 0x608
    jmp eoi
on_ipi:
    lock incl 0x604
eoi:
    pushl %eax
    pushl %ecx
    pushl %edx
    movl $0x80b, %ecx
    xorl %eax, %eax
    xorl %edx, %edx
    wrmsr
    popl %edx
    popl %ecx
    popl %eax
    iret
ap:
    xorw %ax, %ax
    movw %ax, %ds
    movw %ax, %ss
    x2apic
    movl $0x802, %ecx
    rdmsr
    shlw $8, %ax
    addw $0x5000, %ax
    movw %ax, %sp
    sti
    lock incl 0x600
1:  hlt
    jmp 1b

/* Paging and long mode, MMIO of every size, a page fault, the APIC's timer by MMIO. */
    .code32
p_long:
    movl $0x7000, %esp
    movl $0x100000, %edi    /* tables: 4 x 1 GiB by 2 MiB pages */
    xorl %eax, %eax
    movl $6*1024, %ecx
    cld
    rep stosl
    movl $0x101003, 0x100000
    movl $0x102003, 0x101000
    movl $0x103003, 0x101008
    movl $0x104003, 0x101010
    movl $0x105003, 0x101018
    movl $0x102000, %edi
    movl $0x83, %eax
1:  movl %eax, (%edi)
    addl $8, %edi
    addl $0x200000, %eax
    jnc 1b
    movl $0x100000, %eax
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
    lgdtl AT(gdtr)
    ljmpl $8, $AT(in_long)
    .balign 8
gdt:
    .quad 0, 0x00af9b000000ffff, 0x00cf93000000ffff
gdtr:
    .word 23
    .long AT(gdt)
    .code64
in_long:
    movw $16, %ax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    movl $AT(on_fault), %edi
    movl $14, %esi
    call gate
    movl $AT(on_tick), %edi
    movl $0x50, %esi
    call gate
    lidt AT(idtr)
    movl $0xd0000000, %ebx
    movb $0x11, (%rbx)
    movw $0x2222, 2(%rbx)
    movl $0x44444444, 4(%rbx)
    movabs $0x8877665544332211, %rax
    movq %rax, 8(%rbx)
    cmpq %rax, 8(%rbx)
    jne l_fail
    cmpw $0x2222, 2(%rbx)
    jne l_fail
    movabs $0x4444444422220011, %rax
    cmpq %rax, (%rbx)
    jne l_fail
    cmpl $-1, 0x1000(%rbx)  /* a hole */
    jne l_fail
    movl $0x1234, 0xe0000   /* ROM keeps what it has */
    cmpl $0x1234, 0xe0000
    je l_fail
    movabs $0x123456789000, %rax
    xorl %ebp, %ebp
    movl (%rax), %ecx       /* not mapped */
after_fault:
    cmpl $1, %ebp
    jne l_fail
    cmpq %rax, %cs:0x600
    jne l_fail
    movl $0xfee00000, %ebx
    movl $0x1ff, 0xf0(%rbx)
    movl $0x20050, 0x320(%rbx)
    movl $0xb, 0x3e0(%rbx)
    movl $50000, 0x380(%rbx)
    xorl %ebp, %ebp
    sti
1:  hlt
    cmpl $3, %ebp
    jb 1b
    movb $1, %al
    jmp l_end
l_fail:
    movb $2, %al
l_end:
    movw $0xf4, %dx
    outb %al, %dx
1:  hlt
    jmp 1b
on_fault:
    incl %ebp
    movq %cr2, %rcx
    movq %rcx, 0x600
    addq $8, %rsp
    movq $AT(after_fault), (%rsp)
    iretq
on_tick:
    incl %ebp
    movl $0, 0xb0(%rbx)
    iretq
/* An interrupt gate esi to edi. */
gate:
    shll $4, %esi
    movw %di, 0x2000(%rsi)
    movw $8, 0x2002(%rsi)
    movw $0x8e00, 0x2004(%rsi)
    movw $0, 0x2006(%rsi)
    movq $0, 0x2008(%rsi)
    ret
idtr:
    .word 0xfff
    .quad 0x2000

/* Writes to every third page from 2 MiB on, 16 of them. */
    .code32
p_dirty:
    movl $0x200000, %edi
    movl $16, %ecx
1:  incl (%edi)
    addl $0x3000, %edi
    loop 1b
    movb $1, %al
p_end:
    movw $0xf4, %dx
    outb %al, %dx
1:  hlt
    jmp 1b

/* No interrupt table that works: shut down. */
p_triple:
    lidtl AT(no_table)
    ud2
no_table:
    .word 0
    .long 0

/* For a debugger: a label each. */
    .globl step_0, step_1, step_2, step_3
p_steps:
    xorl %eax, %eax
step_0:
    incl %eax
step_1:
    incl %eax
step_2:
    nop
step_3:
    cmpl $2000, %eax
    jb step_0
    movb $1, %al
    jmp p_end

/* Counts to a big number, in registers and memory. */
p_count:
    movl $0x7000, %esp
    xorl %eax, %eax
    movl $0, 0x600
    movl $300000, %ecx
1:  addl %ecx, %eax
    incl 0x600
    loop 1b
    movl %eax, 0x604
    movb $1, %al
    jmp p_end

/* Port and device accesses without end of which none may be lost: port 0xf0 answers the next number. */
p_ports:
    xorl %ecx, %ecx
    movl $0xf0, %edx
1:  inl %dx, %eax
    cmpl %ecx, %eax
    jne 2f
    incl %ecx
    movl %ecx, 0xd0000010
    cmpl 0xd0000010, %ecx
    jne 2f
    cmpl $20000, %ecx
    jne 1b
    movb $1, %al
    jmp p_end
2:  movb $2, %al
    jmp p_end

/* Rings bells by value and by place, and waits for who answers them to count. */
p_bells:
    movl $0x7000, %esp
    movl $0, 0xd0000100
    movl $1, %ecx
    call b_wait
    movl $2, 0xd0000100
    movl $2, %ecx
    call b_wait
    movl $9, 0xd0000100         /* no bell's value */
    movw $7, 0xd0001004
    movl $3, %ecx
    call b_wait
    movb $1, %al
    jmp p_end
b_wait:
    cmpl %ecx, 0x600
    jne b_wait
    ret
guests_end:
    .byte 0
#endif
    .section .note.GNU-stack, "", %progbits
