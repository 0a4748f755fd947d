"""Exim and OpenSMTPD, each in the root that contrib/bench/peers has made for it.

What they are given besides their stock settings is what they need to be measured at all: that they take so
many sessions, and deliver at once what came over one connection."""

import os
import shutil
import subprocess
import sys

from servers import MAILBOXES, ROOT, Server, free_port, greets, wait_for

SYSTEM = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class InRoot(Server):
    """A server in a root of its own; its files lie there in /bench."""

    backlog = 0

    def __init__(self, _folder, sink_port, slow_ms=0):
        super().__init__()
        self.root, self.port = self.place(), free_port()
        self.home, self.mail = f"{self.root}/bench", f"{self.root}/bench/mail"
        shutil.rmtree(self.home, ignore_errors=True)
        os.makedirs(self.mail)
        os.chown(self.mail, 5000, 5000)
        self.lay_shim(slow_ms)
        self.setting = self.configure(sink_port)
        self.process = self.start(["chroot", self.root, *self.command()], f"{self.home}/out")
        wait_for(self.name, lambda: greets(self.port))

    @classmethod
    def place(cls):
        return os.path.join(os.environ.get("BENCH_DIR", f"{ROOT}/target"), "peers", cls.name.lower())

    @classmethod
    def is_here(cls):
        return os.geteuid() == 0 and os.path.exists(f"{cls.place()}/.made")

    @classmethod
    def package_version(cls, package):
        command = ["chroot", cls.place(), "dpkg-query", "-W", "-f", "${Version}", package]
        return subprocess.run(command, capture_output=True, text=True).stdout.strip()

    def lay_shim(self, slow_ms):
        """In the root for all programs, those too that are set-user-id."""
        preload = f"{self.root}/etc/ld.so.preload"
        for name, value in (("BENCH_SLOW_MS", slow_ms), ("BENCH_BACKLOG", self.backlog)):
            with open(f"{self.root}/etc/{name}", "w") as file:
                file.write(str(value))
        if slow_ms or self.backlog:
            shutil.copy(self.shim(), f"{self.root}/usr/lib/bench-shim.so")
            with open(preload, "w") as file:
                file.write("/usr/lib/bench-shim.so\n")
        elif os.path.exists(preload):
            os.unlink(preload)

    def in_root(self, *command, **more):
        return subprocess.run(["chroot", self.root, *command], env={"PATH": SYSTEM}, **more)

    def write(self, path, text):
        with open(f"{self.root}{path}", "w") as file:
            file.write(text)
        return text


class Exim(InRoot):
    name = "Exim"

    def configure(self, sink_port):
        for name in ("spool", "log"):
            os.mkdir(f"{self.home}/{name}")
        self.in_root("chown", "Debian-exim:Debian-exim", "/bench/spool", "/bench/log", check=True)
        text = self.write("/etc/exim4/exim4.conf", f"""\
primary_hostname = bench.host
spool_directory = /bench/spool
split_spool_directory = true
log_file_path = /bench/log/%slog
pid_file_path = /bench/exim.pid
local_interfaces = <; 127.0.0.1
daemon_smtp_ports = {self.port}
disable_ipv6 = true
tls_advertise_hosts =
rfc1413_hosts = :
keep_environment =
message_size_limit = 50M
smtp_accept_max = 300
smtp_connect_backlog = 300
smtp_accept_queue_per_connection = 0
acl_smtp_rcpt = rcpt
begin acl
rcpt:
  accept domains = bench.example : each.example : relay.example
  deny message = relay not permitted
begin routers
relay:
  driver = manualroute
  domains = relay.example
  route_list = * 127.0.0.1
  self = send
  transport = relay
one:
  driver = accept
  domains = bench.example
  address_data = one
  transport = maildir
each:
  driver = accept
  domains = each.example
  local_parts = dsearch,filter=dir;/bench/mail
  address_data = $local_part_data
  transport = maildir
begin transports
relay:
  driver = smtp
  port = {sink_port}
  allow_localhost
  hosts_avoid_tls = *
  hosts_try_dane =
  dnssec_request_domains =
maildir:
  driver = appendfile
  directory = /bench/mail/$address_data
  maildir_format
  envelope_to_add
  return_path_add
  delivery_date_add
  user = bench
  group = bench
begin retry
* * F,2h,15m; G,16h,1h,1.5; F,4d,6h
""")
        # A name that the client gives is not to be in a path, Exim thinks, but one of a folder that is there.
        for user in ["one", *(f"{n}user" for n in range(MAILBOXES))]:
            for folder in ("", "/new", "/cur", "/tmp"):
                os.mkdir(f"{self.mail}/{user}{folder}")
                os.chown(f"{self.mail}/{user}{folder}", 5000, 5000)
        os.chmod(f"{self.root}/etc/exim4/exim4.conf", 0o644)
        return text

    def command(self):
        return ["/usr/sbin/exim4", "-bdf"]

    def flush(self):
        return self.start(["chroot", self.root, "/usr/sbin/exim4", "-qff"], f"{self.home}/flush")

    @classmethod
    def version(cls):
        return cls.package_version("exim4-daemon-light")


class OpenSmtpd(InRoot):
    name = "OpenSMTPD"
    backlog = 300  # It asks for 5, which 20 clients that connect anew for each message overrun for seconds.

    def configure(self, sink_port):
        for name in ("queue", "temporary", "incoming", "purge", "corrupt"):
            shutil.rmtree(f"{self.root}/var/spool/smtpd/{name}", ignore_errors=True)
        self.write("/etc/mailname", "bench.host\n")
        return self.write("/etc/smtpd.conf", f"""\
smtp max-message-size 50M
smtp limit max-mails 100000
mta limit max-conn-per-host 20
mta limit max-conn-per-route 20
mta limit conn-delay-route 0
mta limit conn-delay-relay 0
mta limit reconn-delay-route 0
mda limit max-session-per-user 20
table everybody {{ "@bench.example" = bench, "@each.example" = bench }}
listen on 127.0.0.1 port {self.port} hostname bench.host
action "one" maildir "/bench/mail/one" virtual <everybody>
action "each" maildir "/bench/mail/%{{rcpt.user}}" virtual <everybody>
action "relay" relay host smtp://127.0.0.1:{sink_port}
match from any for domain "bench.example" action "one"
match from any for domain "each.example" action "each"
match from any for domain "relay.example" action "relay"
""")

    def command(self):
        os.makedirs(f"{self.root}/run", exist_ok=True)
        if os.path.exists(f"{self.root}/run/smtpd.sock"):
            os.unlink(f"{self.root}/run/smtpd.sock")
        return ["/usr/sbin/smtpd", "-F"]

    def flush(self):
        return self.start(["chroot", self.root, "/usr/sbin/smtpctl", "schedule", "all"], f"{self.home}/flush")

    @classmethod
    def version(cls):
        return cls.package_version("opensmtpd")


if __name__ == "__main__":
    sys.exit("a part of contrib/bench/bench")
