"""A posta to be tested: where it keeps what, how it is started, and how it is killed outright."""

import os
import signal
import smtplib
import subprocess
import time

SETTINGS = """
hostname = "mail.crash.example"
spool = "{spool}"
run = "{run}"
drop_privileges = false
[[listen]]
address = "{host}:{port}"
tls = "none"
[domains]
"box.example" = {{ users = "*", mailbox = "{mail}/{{user}}/" }}
"far.example" = {{ relay = "{host}:{peer}", accept = "clients" }}
[smtpd]
max_sessions_per_client = 500
[queue]
first_retry = "1s"
longest_retry = "2s"
"""
# Addresses of 127.0.0.0/8 are all our own: tests that run side by side share no port.
PORT, PEER_PORT = 2525, 2526
PATIENCE = 60


class House:
    """`folder` survives a power cut, `spool` and `mail` lie on the disks that don't."""

    def __init__(self, programs, folder, spool, mail):
        self.programs, self.folder, self.spool, self.mail = programs, folder, spool, mail
        pid = os.getpid()
        self.host = f"127.{pid >> 16 & 127 | 128}.{pid >> 8 & 255}.{pid & 255 | 1}"
        self.address, self.peer_address = (self.host, PORT), (self.host, PEER_PORT)
        self.sender = "sender@box.example"
        self.log, self.posta = folder / "log", None
        settings = SETTINGS.format(
            spool=spool, run=folder / "run", mail=mail, host=self.host, port=PORT, peer=PEER_PORT
        )
        (folder / "posta.toml").write_text(settings)
        mail.mkdir()
        subprocess.run(self.command("postactl", "set-permissions"), check=True, capture_output=True)

    def command(self, program, *words):
        return [self.programs / program, "-c", self.folder / "posta.toml", *words]

    def start(self):
        """Returns when it greets."""
        with open(self.log, "ab") as log:
            # A process group of its own, so that all of it can be killed at once.
            self.posta = subprocess.Popen(
                self.command("posta"), stdin=subprocess.DEVNULL, stderr=log, start_new_session=True
            )
        end = time.monotonic() + PATIENCE
        while True:
            try:
                smtplib.SMTP(*self.address, timeout=PATIENCE).quit()
                return
            except (OSError, smtplib.SMTPException):
                if time.monotonic() > end or self.posta.poll() is not None:
                    raise SystemExit(f"posta does not answer; its log is {self.log}") from None
                time.sleep(0.05)

    def kill(self):
        """Every process of it, at once and without warning."""
        if self.posta is None:
            return
        group = self.posta.pid
        try:
            while True:
                os.killpg(group, signal.SIGKILL)
                self.posta.poll()
                time.sleep(0.02)
        except ProcessLookupError:
            self.posta = None

    def stop(self):
        """Politely; the exit status."""
        self.posta.terminate()
        try:
            return self.posta.wait(PATIENCE)
        finally:
            self.kill()

    def left(self):
        """The files of the queue. What is in `drop/` and is not whole lies there for a day."""
        places = [self.spool / place for place in ("new", "cur", "journal", "hold")]
        return [f"{folder}/{name}" for place in places for folder, _, names in os.walk(place) for name in names]
