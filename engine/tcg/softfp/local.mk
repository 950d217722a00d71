# SPDX-License-Identifier: Apache-2.0
# engine/tcg/softfp: IEEE 754 arithmetic in integers, and its fast layer over the host's.

libtcg_a_SOURCES += \
	engine/tcg/softfp/fp_host.h \
	engine/tcg/softfp/sf_arith.c \
	engine/tcg/softfp/sf_conv.c \
	engine/tcg/softfp/sf_num.h \
	engine/tcg/softfp/softfp.h
