# SPDX-License-Identifier: Apache-2.0
# cli: the program vmctl.
# Sources (headers too: `make dist` packs what stands here), generated files, tests of this room.

noinst_LIBRARIES += libcli.a
libcli_a_SOURCES = \
	cli/agent.c \
	cli/api.c \
	cli/args.c \
	cli/call.c \
	cli/cli.h \
	cli/connect.c \
	cli/console.c \
	cli/console.h \
	cli/edit.c \
	cli/engine.c \
	cli/events.c \
	cli/format.c \
	cli/help.c \
	cli/image.c \
	cli/image.h \
	cli/image_amend.c \
	cli/image_bitmap.c \
	cli/image_copy.c \
	cli/image_export.c \
	cli/image_export.h \
	cli/image_import.c \
	cli/image_member.c \
	cli/image_nbd.c \
	cli/image_nbd_list.c \
	cli/image_opts.c \
	cli/image_ova.c \
	cli/image_ova.h \
	cli/image_sums.c \
	cli/image_sums.h \
	cli/image_tar.c \
	cli/image_tar.h \
	cli/image_verbs.c \
	cli/inspect.c \
	cli/private.c \
	cli/remote.c \
	cli/transfer.c \
	cli/remote.h \
	cli/private.h \
	cli/rates.c \
	cli/rates.h \
	cli/qmp.c \
	cli/run.c \
	cli/screen.c \
	cli/stats.c \
	cli/template.c \
	cli/top.c \
	cli/trace.c \
	cli/value.c \
	cli/verbs.h \
	cli/volume.c \
	cli/xml.c
nodist_libcli_a_SOURCES = cli/verbs_table.c

bin_PROGRAMS += vmctl
vmctl_SOURCES = cli/main.c
vmctl_LDADD = $(LINK_CLI) $(NCURSES_LIBS)
libcli_a_CPPFLAGS = $(AM_CPPFLAGS) $(NCURSES_CFLAGS) $(XML_CFLAGS)

# --- generated: verbs, completion, manual page ---------------------------------------------------
cli_gen = cli/verbs_table.c cli/vmctl.1 cli/completion/vmctl cli/completion/_vmctl cli/completion/vmctl.fish
CLEANFILES += $(cli_gen) cli/gen.stamp
cli/gen.stamp: $(api_generator) $(api_schema)
	$(AM_V_GEN)$(MKDIR_P) cli && $(PY) $(srcdir)/api-schema/gen/apigen.py --cli cli && touch $@
$(cli_gen): cli/gen.stamp ;

nodist_man1_MANS = cli/vmctl.1
nodist_bashcompletion_DATA = cli/completion/vmctl
nodist_zshcompletion_DATA = cli/completion/_vmctl
nodist_fishcompletion_DATA = cli/completion/vmctl.fish
