# posta: a mail server of classic Unix shape.
#
#   make            builds
#   make run        starts a whole posta under ./run, in the foreground, without touching the system
#   make check      runs every test
#   make install    installs into DESTDIR and PREFIX
#   make deb        makes a Debian package
#   make bench      measures, beside Postfix, Exim and OpenSMTPD, into contrib/bench/RESULTS
#   make bench-counts   counts instructions per message, and compares with contrib/bench/counts
#   make crashtest  stages faults, power cuts and kills; ROUNDS=n cuts of each kind, KILLS=n; the cuts as root
#   make soak       besieges a whole posta, round after round, for MINUTES=n
#   make fuzz       feeds random input to parsers and sessions, for SECONDS=n in all, and INPUTS=n to others beside us

PREFIX  = /usr/local
DESTDIR =
SYSCONF = /etc/posta
CARGO   = cargo
# "pam" for accounts of this host checked by PAM, see auth.pam in posta.toml(5).
FEATURES =

prefix  = $(DESTDIR)$(PREFIX)
libexec = $(prefix)/libexec/posta
built   = target/release

SBIN    = posta posta-smtpd posta-queue postactl sendmail
LIBEXEC = posta-remote posta-local posta-auth posta-drop
# Who may write into the spool's drop folder; the only group that a program is set to.
DROP_GROUP = postadrop

all: headers
	$(CARGO) build --release --locked --features "$(FEATURES)"

run: all
	contrib/run/start

check: headers packages
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --no-deps --document-private-items --lib
	mandoc -T lint -W warning $$(grep -L '^\.so ' man/*.[1578])
	if $(CARGO) nextest --version >/dev/null 2>&1; \
	then $(CARGO) nextest run --locked --no-fail-fast; \
	else $(CARGO) test --locked --no-fail-fast; fi
	contrib/crash/power-cut --short --programs target/debug

# The long form of what "make check" does in short: a fault at every call to the disk, programs killed at
# random moments, the scheduler's months, and power cuts.
ROUNDS = 20
KILLS  = 200
crashtest: all packages cut-packages
	$(CARGO) test --locked --test crash
	$(CARGO) test --locked --lib --bins -- durable:: spool:: maildir:: faults:: mbox:: batches:: clerk:: porter::
	POSTA_KILLS=$(KILLS) $(CARGO) test --locked --test kills -- --nocapture
	POSTA_MONTHS=$(ROUNDS) $(CARGO) test --locked --bin posta-queue month
	contrib/crash/power-cut --rounds $(ROUNDS)

# What file systems are made with, where they can be mounted.
cut-packages:
	-[ $$(id -u) != 0 ] || contrib/packages mkfs.ext4=e2fsprogs mkfs.xfs=xfsprogs

# What it is built with: OpenSSL for TLS, libcrypt for passwords.
headers:
	contrib/packages pkg-config=pkg-config gcc=gcc /usr/include/openssl/ssl.h=libssl-dev \
		/usr/include/crypt.h=libcrypt-dev \
		$(if $(findstring pam,$(FEATURES)),/usr/include/security/pam_appl.h=libpam0g-dev)

# What the tests drive posta with.
packages:
	contrib/packages mandoc=mandoc swaks=swaks msmtp=msmtp mail=bsd-mailx curl=curl strace=strace openssl=openssl python3=python3 \
		/usr/share/doc/libnet-ssleay-perl=libnet-ssleay-perl
	@# Without these the tests of what is made for them are skipped, and say so.
	-contrib/packages systemd-analyze=systemd fail2ban-regex=fail2ban python3=python3

# Beside Postfix, and Exim and OpenSMTPD where it is root that measures. An hour.
bench: headers
	CARGO="$(CARGO)" contrib/bench/all

bench-counts: headers
	contrib/packages valgrind=valgrind
	$(CARGO) build --release --locked --example hot-paths
	contrib/bench/count

# "make check" has a short one. The same SEED makes the attackers' chance the same.
MINUTES = 10
soak: headers
	MINUTES=$(MINUTES) $(CARGO) test --release --locked --features "$(FEATURES)" --test soak -- --nocapture

SECONDS = 60
INPUTS  = 60000
fuzz:
	contrib/fuzz/run $(SECONDS)
	SEED=$$(date +%s) INPUTS=$(INPUTS) $(CARGO) test --locked --test differences -- --nocapture

# What lies in contrib/ and where it goes, below PREFIX; /usr/local in it becomes PREFIX.
PLACED = \
	host/sysusers.conf=lib/sysusers.d/posta.conf \
	host/tmpfiles.conf=lib/tmpfiles.d/posta.conf \
	host/completion.bash=share/bash-completion/completions/postactl \
	host/completion.zsh=share/zsh/site-functions/_postactl \
	$(foreach unit,$(notdir $(wildcard contrib/systemd/*)),systemd/$(unit)=lib/systemd/system/$(unit)) \
	$(foreach example,sysv openrc inetd.conf xinetd.conf rsyslog.conf logrotate.conf apparmor,\
		host/$(example)=share/posta/$(example))
# ... and below /etc, where what is there already is the administrator's.
IN_ETC = host/pam=pam.d/posta host/fail2ban.conf=fail2ban/filter.d/posta.conf
etc    = $(DESTDIR)/etc

install: all
	install -d $(prefix)/sbin $(prefix)/bin $(libexec) $(DESTDIR)$(SYSCONF)
	for section in 1 5 7 8; do \
		install -d $(prefix)/share/man/man$$section && \
		install -m 644 man/*.$$section $(prefix)/share/man/man$$section || exit 1; done
	for program in $(SBIN); do install -m 755 $(built)/$$program $(prefix)/sbin || exit 1; done
	for program in $(LIBEXEC); do install -m 755 $(built)/$$program $(libexec) || exit 1; done
	ln -sf ../sbin/sendmail $(prefix)/bin/mailq
	ln -sf ../sbin/sendmail $(prefix)/bin/newaliases
	test -e $(DESTDIR)$(SYSCONF)/posta.toml || \
		sed 's|^#*libexec = .*|libexec = "$(PREFIX)/libexec/posta"|' contrib/posta.toml \
		> $(DESTDIR)$(SYSCONF)/posta.toml
	for pair in $(PLACED); do \
		contrib/place contrib/$${pair%%=*} $(prefix)/$${pair#*=} $(PREFIX) || exit 1; done
	for pair in $(IN_ETC); do \
		test -e $(etc)/$${pair#*=} || \
		contrib/place contrib/$${pair%%=*} $(etc)/$${pair#*=} $(PREFIX) || exit 1; done
	contrib/drop-rights $(libexec)/posta-drop $(DROP_GROUP)

# A Debian package, in target/package; needs dpkg-dev.
deb: all
	contrib/packages dpkg-shlibdeps=dpkg-dev
	contrib/debian/build target/package CARGO=$(CARGO) built=$(built) FEATURES="$(FEATURES)"

# The configuration and the spool stay: mail may be in the latter. So does what was changed in /etc.
uninstall:
	for program in $(SBIN); do rm -f $(prefix)/sbin/$$program; done
	rm -f $(prefix)/bin/mailq $(prefix)/bin/newaliases
	for program in $(LIBEXEC); do rm -f $(libexec)/$$program; done
	for page in man/*.[1578]; do \
		rm -f $(prefix)/share/man/man$${page##*.}/$${page#man/}; done
	for pair in $(PLACED); do rm -f $(prefix)/$${pair#*=}; done
	for pair in $(IN_ETC); do \
		! cmp -s contrib/$${pair%%=*} $(etc)/$${pair#*=} || rm -f $(etc)/$${pair#*=}; done
	for folder in $(libexec) $(prefix)/share/posta; do \
		test ! -d $$folder || rmdir --ignore-fail-on-non-empty $$folder || exit 1; done

.PHONY: all run check crashtest headers packages cut-packages bench bench-counts soak fuzz install deb uninstall
