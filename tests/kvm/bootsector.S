/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A boot sector for machine q35: tells by the firmware's calls what it is started from, reads the second sector, and powers off by ACPI's PM1 control where SeaBIOS puts it.
 * A key on the serial port says when; 'r' resets instead.
 */
    .code16
    .globl _start
_start:
    xor %ax, %ax
    mov %ax, %ds
    mov %ax, %es
    mov %ax, %ss
    mov $0x7c00, %sp
    mov %dl, drive
    mov $hello, %si
    call say
    mov $2, %ah /* one sector, cylinder 0, head 0, sector 2 */
    mov $1, %al
    mov $2, %cx
    xor %dh, %dh
    mov drive, %dl
    mov $0x8000, %bx
    int $0x13
    jc failed
    mov $0x8000, %si
    call say
    cli /* the firmware's timer interrupt would take the key */
    mov $0x3fd, %dx
wait:
    in %dx, %al
    test $1, %al
    jz wait
    mov $0x3f8, %dx
    in %dx, %al
    cmp $'r', %al
    je reset
    mov $bye, %si
    call say
    mov $0x604, %dx
    mov $0x2000, %ax
    out %ax, %dx
stop:
    hlt
    jmp stop
reset:
    mov $0xcf9, %dx
    mov $6, %al
    out %al, %dx
    jmp stop
failed:
    mov $wrong, %si
    call say
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

drive: .byte 0
hello: .asciz "sector runs\r\n"
wrong: .asciz "no sector\r\n"
bye: .asciz "bye\r\n"
    .org 510
    .word 0xaa55
