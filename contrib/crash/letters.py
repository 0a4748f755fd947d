"""Letters that can be told from each other and known to be whole; who sends, takes and finds them."""

import itertools
import random
import re
import smtplib
import socketserver
import subprocess
import threading
import time

# Of one block, of several, and of more than a page cache writes at once.
LINES = [1, 40, 40, 40, 600, 6000]
LINE = "the quick brown fox jumps over the lazy dog, again and again\n"
MARK = re.compile(r"^Subject: mark (\S+) of (\d+) lines$", re.M)


def body(mark, lines):
    return f"{LINE * lines}end of {mark}\n"


def letter(mark, lines):
    return f"Subject: mark {mark} of {lines} lines\n\n{body(mark, lines)}"


def found_in(text):
    """The mark of a copy, and whether the copy is whole; no mark if it has none."""
    text = text.decode(errors="replace").replace("\r\n", "\n")
    head = MARK.search(text)
    if head is None:
        return None, False
    return head[1], text.partition("\n\n")[2] == body(head[1], int(head[2]))


class Sender(threading.Thread):
    """Sends one letter after another until it is stopped; `acknowledged` are the marks of those that were taken."""

    def __init__(self, name, house, to):
        super().__init__(daemon=True)
        self.title, self.house, self.to = name, house, to
        self.acknowledged, self.stopped = [], threading.Event()

    def run(self):
        for count in itertools.count():
            if self.stopped.is_set():
                return
            mark = f"{self.title}-{count}"
            try:
                self.send(letter(mark, random.choice(LINES)))
                self.acknowledged.append(mark)
            except (OSError, smtplib.SMTPException, subprocess.SubprocessError):
                # That letter was not promised anything. Soon there will be somebody who listens.
                self.stopped.wait(0.02)


class BySmtp(Sender):
    """On one connection as long as that lasts."""

    connection = None

    def send(self, text):
        try:
            if self.connection is None:
                self.connection = smtplib.SMTP(*self.house.address, timeout=30)
            self.connection.sendmail(self.house.sender, [self.to], text)
        except (OSError, smtplib.SMTPException):
            self.connection = None
            raise


class ByCommand(Sender):
    """With the sendmail command, as the programs of a host do."""

    def send(self, text):
        command = self.house.command("sendmail", "-i", "-f", self.house.sender, self.to)
        subprocess.run(command, input=text.encode(), capture_output=True, check=True, timeout=60)


class Peer:
    """A next hop. It takes everything, or refuses every recipient for good."""

    def __init__(self, address, refuses=False):
        self.arrived, lock = [], threading.Lock()

        class Session(socketserver.StreamRequestHandler):
            def handle(session):
                session.say("220 peer.example ESMTP")
                for line in session.rfile:
                    verb = line[:4].upper()
                    if verb == b"DATA":
                        session.say("354 go ahead")
                        text = b"".join(iter(session.line_of_data, b".\r\n"))
                        with lock:
                            self.arrived.append(text)
                        session.say("250 taken")
                    elif verb == b"RCPT" and refuses:
                        session.say("550 5.1.1 nobody of that name")
                    else:
                        session.say("221 bye" if verb == b"QUIT" else "250 well")

            def line_of_data(session):
                line = session.rfile.readline()
                if not line:
                    raise ConnectionError("the client has gone")
                return line

            def say(session, text):
                session.wfile.write(text.encode() + b"\r\n")

        class Server(socketserver.ThreadingTCPServer):
            allow_reuse_address = daemon_threads = True
            # Where it is full, Linux lets a client believe that it is connected.
            request_queue_size = 200

            def handle_error(server, request, client):
                pass  # a client that goes in the middle is its own business

        self.server = Server(address, Session)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()


def in_maildir(folder):
    """The texts of all copies in `new/` and `cur/`."""
    texts = []
    for place in ("new", "cur"):
        for path in (folder / place).glob("*"):
            try:
                texts.append(path.read_bytes())
            except FileNotFoundError:
                pass  # replaced by the same copy while we looked
    return texts


def wait_for(what, patience, done):
    """Waits until `done` gives something true; gives whether it did."""
    end = time.monotonic() + patience
    while not done():
        if time.monotonic() > end:
            print(f"waited {patience} s in vain for {what}", flush=True)
            return False
        time.sleep(0.05)
    return True
