"""The servers that are measured, each in a folder of its own and on a free port of 127.0.0.1.

Mail for anybody at bench.example goes into one Maildir, mail for N at each.example into a Maildir of his
own, mail for relay.example to the sink. A server has port, used (its processes; None: it is not measured
itself), mail (the folder of the Maildirs), setting (what it was told), flush() (all that waits is tried now)
and end().
"""

import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time

from usage import usage

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
# smtp-source -N numbers its recipients from 0 (or 1) on.
MAILBOXES = 1001


def find(program):
    """The path of a program that may be in sbin."""
    return shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_for(what, ready):
    end = time.monotonic() + 30
    while not ready():
        if time.monotonic() > end:
            sys.exit(f"waited too long for {what}")
        time.sleep(0.02)


def greets(port):
    """Whether an SMTP server answers."""
    try:
        with socket.create_connection(("127.0.0.1", port), 2) as s:
            return s.recv(3) == b"220"
    except OSError:
        return False


class Sink:
    """smtp-sink, which counts what it gets. By itself it shows what smtp-source can do."""

    name, used, mail, setting = "smtp-sink", None, None, ""

    def __init__(self, port=None):
        self.port, self.got = port or free_port(), 0
        user = ["-u", "nobody"] if os.geteuid() == 0 else []
        command = [find("smtp-sink"), "-c", *user, f"127.0.0.1:{self.port}", "1000"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE)
        threading.Thread(target=self.read, daemon=True).start()
        wait_for("smtp-sink", lambda: greets(self.port))

    def read(self):
        rest = b""
        while block := self.process.stdout.read1(65536):
            rest = (rest + block)[-200:]
            if counts := re.findall(rb"mesg=(\d+)\s", rest):
                self.got = int(counts[-1])

    def end(self):
        self.process.terminate()
        self.process.wait()


class Server:
    """What those that are measured have in common."""

    def __init__(self):
        self.used = usage()

    def start(self, command, log, **environment):
        """Starts a program among those that are measured."""
        with open(log, "a") as out:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                                       env={**os.environ, **environment}, preexec_fn=self.used.enter)
        self.used.top = self.used.top or process.pid
        return process

    def end(self):
        self.process.terminate()
        self.process.wait()
        self.used.end()

    @staticmethod
    def shim():
        """The library that makes a disk slow, built if need be."""
        source, built = f"{ROOT}/contrib/bench/shim.c", f"{ROOT}/target/bench-shim.so"
        if not os.path.exists(built) or os.path.getmtime(built) < os.path.getmtime(source):
            subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-o", built, source, "-ldl"], check=True)
        return built

    @classmethod
    def slow(cls, slow_ms):
        """The environment of a slow disk."""
        return {"LD_PRELOAD": cls.shim(), "BENCH_SLOW_MS": str(slow_ms)} if slow_ms else {}


class Posta(Server):
    name = "posta"

    def __init__(self, folder, sink_port, slow_ms=0, sessions=1500):
        super().__init__()
        self.folder, self.port = folder, free_port()
        self.mail = f"{folder}/mail"
        for name in ("spool", "run", "mail"):
            os.mkdir(f"{folder}/{name}")
        self.setting = f"""\
hostname = "bench.host"
spool = "{folder}/spool"
run = "{folder}/run"
drop_privileges = false
[[listen]]
address = "127.0.0.1:{self.port}"
[smtpd]
max_sessions = {sessions}
max_sessions_per_client = {sessions}
relay_from = ["127.0.0.0/8"]
[domains]
"bench.example" = {{ users = "*", mailbox = "{folder}/mail/one/" }}
"each.example" = {{ users = "*", mailbox = "{folder}/mail/{{user}}/" }}
"relay.example" = {{ relay = "127.0.0.1:{sink_port}" }}
"""
        with open(f"{folder}/posta.toml", "w") as config:
            config.write(self.setting)
        self.process = self.start(self.program("posta"), f"{folder}/log", **self.slow(slow_ms))
        wait_for("posta", lambda: greets(self.port))

    def program(self, name, *words):
        return [f"{ROOT}/target/release/{name}", "-c", f"{self.folder}/posta.toml", *words]

    def flush(self):
        return self.start(self.program("postactl", "retry", "all"), f"{self.folder}/flush")

    @staticmethod
    def is_here():
        return True

    @staticmethod
    def version():
        command = ["git", "-C", ROOT, "describe", "--always", "--dirty"]
        said = subprocess.run(command, capture_output=True, text=True)
        return said.stdout.strip() or "of no known commit"


class Postfix(Server):
    name = "Postfix"

    def __init__(self, folder, sink_port, slow_ms=0):
        super().__init__()
        self.folder, self.port = folder, free_port()
        self.mail = f"{folder}/mail"
        for name in ("etc", "spool", "data", "mail"):
            os.mkdir(f"{folder}/{name}")
        shutil.chown(f"{folder}/data", "postfix")
        shutil.chown(f"{folder}/mail", "nobody")
        self.setting = f"""\
compatibility_level = 3.6
queue_directory = {folder}/spool
data_directory = {folder}/data
maillog_file = {folder}/log
maillog_file_prefixes = {folder}
myhostname = bench.host
alias_maps =
mydestination =
inet_interfaces = 127.0.0.1
import_environment = MAIL_CONFIG TZ LANG=C LD_PRELOAD BENCH_SLOW_MS
mynetworks = 127.0.0.0/8
smtpd_recipient_restrictions = permit_mynetworks, reject
smtpd_client_connection_count_limit = 1500
smtpd_client_connection_rate_limit = 0
default_process_limit = 250
transport_maps = inline:{{ relay.example=smtp:[127.0.0.1]:{sink_port} }}
virtual_mailbox_domains = bench.example, each.example
virtual_mailbox_base = {self.mail}
virtual_mailbox_maps = regexp:{folder}/etc/one, texthash:{folder}/etc/each
virtual_uid_maps = static:65534
virtual_gid_maps = static:65534
"""
        with open(f"{folder}/etc/main.cf", "w") as config:
            config.write(self.setting)
        with open(f"{folder}/etc/one", "w") as one:
            one.write("/@bench\\.example$/ one/\n")
        with open(f"{folder}/etc/each", "w") as each:
            each.writelines(f"{n}user@each.example {n}user/\n" for n in range(MAILBOXES))
        # Our port in the place of 25, and no chroot, whose files a fresh queue does not have.
        with open("/etc/postfix/master.cf") as master:
            lines = [self.service(line) for line in master]
        with open(f"{folder}/etc/master.cf", "w") as master:
            master.writelines(lines)
        self.process = self.start(self.program("postfix", "start"), f"{folder}/out", **self.slow(slow_ms))
        if self.process.wait():
            sys.exit(f"Postfix does not start: {open(f'{folder}/out').read()}")
        pid_file = f"{folder}/spool/pid/master.pid"
        wait_for("Postfix", lambda: os.path.exists(pid_file) and greets(self.port))
        with open(pid_file) as pid:
            self.used.top = int(pid.read())

    def program(self, name, *words):
        return [find(name), "-c", f"{self.folder}/etc", *words]

    def flush(self):
        return self.start(self.program("postqueue", "-f"), f"{self.folder}/flush")

    def service(self, line):
        words = line.split()
        if len(words) < 8 or line[0] in "# \t":
            return line
        if words[:2] == ["smtp", "inet"]:
            words[0] = f"127.0.0.1:{self.port}"
        words[4] = "n"
        return " ".join(words) + "\n"

    @staticmethod
    def is_here():
        return os.geteuid() == 0 and find("postfix") and os.path.exists("/etc/postfix/master.cf")

    @staticmethod
    def version():
        command = [find("postconf"), "-d", "-h", "mail_version"]
        return subprocess.run(command, capture_output=True, text=True).stdout.strip()

    def end(self):
        subprocess.run(self.program("postfix", "stop"), check=True, stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL)
        self.used.end()
