"""What a server's processes use: CPU time and memory, from /proc."""

import os
import re
import threading
import time

TICK = os.sysconf("SC_CLK_TCK")


def family(top):
    """A process and all that come from it."""
    parents = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/stat") as stat:
                parents[int(pid)] = int(stat.read().rpartition(")")[2].split()[1])
        except OSError:
            pass
    found, grown = {top}, True
    while grown:
        new = {pid for pid, parent in parents.items() if parent in found} - found
        grown = bool(new)
        found |= new
    return found


def cpu_seconds(top):
    """User and system time of a process tree, with children that have ended and were waited for."""
    user = system = 0
    for pid in family(top):
        try:
            with open(f"/proc/{pid}/stat") as stat:
                words = stat.read().rpartition(")")[2].split()
        except OSError:
            continue
        user += int(words[11]) + int(words[13])
        system += int(words[12]) + int(words[14])
    return user / TICK, system / TICK


def all_cpu_seconds():
    """What all processes of this machine and its kernel have used."""
    with open("/proc/stat") as stat:
        user, nice, system, _idle, _iowait, irq, softirq = map(int, stat.readline().split()[1:8])
    return (user + nice + system + irq + softirq) / TICK


def settle(top):
    """Waits until a process tree does nothing for a third of a second."""
    end, before = time.monotonic() + 30, None
    while time.monotonic() < end and (now := cpu_seconds(top)) != before:
        before = now
        time.sleep(0.3)


def memory(top):
    """Anonymous memory of a process tree, in bytes."""
    total = 0
    for pid in family(top):
        try:
            with open(f"/proc/{pid}/status") as status:
                found = re.search(r"^RssAnon:\s+(\d+) kB", status.read(), re.M)
                total += int(found.group(1)) * 1024 if found else 0
        except OSError:
            pass
    return total


class MemoryWatch:
    """Looks at a process tree's memory while it works."""

    def __init__(self, top):
        self.top, self.most, self.done = top, 0, threading.Event()
        self.thread = threading.Thread(target=self.look, daemon=True)
        self.thread.start()

    def look(self):
        while True:
            self.most = max(self.most, memory(self.top))
            if self.done.wait(0.05):
                return

    def end(self):
        """The most there was, in bytes."""
        self.done.set()
        self.thread.join()
        return self.most
