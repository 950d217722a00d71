/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A boot sector that sleeps in RAM (ACPI's S3) and says what woke it. A key on the serial port says how it sleeps: 'a' with the clock's alarm each second, else without. It finds FACS by the
 * tables (ACPI 6.4 §5.2), leaves its vector there, and powers off when it is woken.
 */
#define MARK 0x600dcafe
#define MARK_AT 0x9000
#define PM1 0x600
    .code16
    .globl _start
_start:
    cli
    xor %ax, %ax
    mov %ax, %ds
    mov %ax, %ss
    mov $0x7c00, %sp
    mov $hello, %si
    call say
    mov $0x3fd, %dx
1:  in %dx, %al
    test $1, %al
    jz 1b
    mov $0x3f8, %dx
    in %dx, %al
    mov %al, key
    lgdtl gdt_at
    mov %cr0, %eax
    or $1, %al
    mov %eax, %cr0
    ljmp $8, $in_protected
    .code32
in_protected:
    mov $16, %eax
    mov %eax, %ds
    mov $0xe0000, %esi
1:  cmpl $0x20445352, (%esi) /* "RSD " */
    jne 2f
    cmpl $0x20525450, 4(%esi)
    je 3f
2:  add $16, %esi
    cmp $0x100000, %esi
    jb 1b
    jmp stop32
3:  mov 16(%esi), %esi /* RSDT, then its tables */
1:  add $4, %esi
    mov 32(%esi), %ebx
    cmpl $0x50434146, (%ebx) /* "FACP" */
    jne 1b
    mov 36(%ebx), %ebx
    movl $woken, 12(%ebx)
    movl $MARK, MARK_AT
    mov $PM1 + 2, %edx
    mov $0x500, %eax /* the button and the clock wake it */
    outw %ax, %dx
    cmpb $'a', key
    jne 2f
    mov $0xff01, %eax /* an alarm at any second, minute and hour */
    call cmos
    mov $0xff03, %eax
    call cmos
    mov $0xff05, %eax
    call cmos
    mov $0x220b, %eax
    call cmos
    mov $0xc, %al
    out %al, $0x70
    in $0x71, %al
2:  mov $PM1 + 4, %edx
    mov $0x2400, %eax
    outw %ax, %dx
stop32:
    hlt
    jmp stop32
cmos:
    out %al, $0x70
    mov %ah, %al
    out %al, $0x71
    ret

    .code16
    .balign 16
woken: /* real mode, the segment is the address / 16 */
    ljmp $0, $1f
1:  cli
    xor %ax, %ax
    mov %ax, %ds
    mov %ax, %ss
    mov $0x7c00, %sp
    mov $again, %si
    call say
    mov $PM1, %dx
    in %dx, %ax
    mov %ax, %cx
    test $0x80, %ch
    jz 2f
    mov $by_wake, %si
    call say
2:  test $4, %ch
    jz 2f
    mov $by_clock, %si
    call say
2:  test $1, %ch
    jz 2f
    mov $by_button, %si
    call say
2:  cmpl $MARK, MARK_AT
    jne 2f
    mov $bye, %si
    call say
2:  mov $PM1 + 4, %dx
    mov $0x2000, %ax
    out %ax, %dx
stop:
    hlt
    jmp stop

/* Text up to a zero byte, to the serial port. */
say:
    lodsb
    test %al, %al
    jz 2f
    mov %al, %bl
    mov $0x3fd, %dx
1:  in %dx, %al
    test $0x20, %al
    jz 1b
    mov $0x3f8, %dx
    mov %bl, %al
    out %al, %dx
    jmp say
2:  ret

key: .byte 0
hello: .asciz "sleeper\n"
again: .asciz "woken:"
by_wake: .asciz " wake"
by_clock: .asciz " clock"
by_button: .asciz " button"
bye: .asciz " same\n"
    .balign 8
gdt: .quad 0, 0x00cf9b000000ffff, 0x00cf93000000ffff
gdt_at: .word 23
    .long gdt
    .org 510
    .word 0xaa55
