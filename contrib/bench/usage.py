"""What a server's processes use: CPU time and memory. Of a control group, where we may make one; else of the
processes that descend from its first one."""

import os
import re
import signal
import threading
import time

TICK = os.sysconf("SC_CLK_TCK")


def mounted(kind, option=""):
    """Where control groups of a kind are mounted."""
    with open("/proc/mounts") as mounts:
        for line in mounts:
            _, folder, found, options = line.split()[:4]
            if found == kind and (not option or option in options.split(",")):
                return folder
    return None


class Group:
    """The processes of a control group: what a server starts stays in it, whoever its parent becomes."""

    def __init__(self, name):
        self.top = None
        self.cpu_folder = f"{mounted('cgroup2')}/{name}"
        old = mounted("cgroup", "memory")
        self.memory_folder = f"{old}/{name}" if old else self.cpu_folder
        for folder in {self.cpu_folder, self.memory_folder}:
            os.mkdir(folder)

    @staticmethod
    def possible():
        folder = mounted("cgroup2")
        return folder is not None and os.access(folder, os.W_OK)

    def enter(self):
        """Puts this process into it."""
        for folder in {self.cpu_folder, self.memory_folder}:
            with open(f"{folder}/cgroup.procs", "w") as processes:
                processes.write(str(os.getpid()))

    def processes(self):
        with open(f"{self.cpu_folder}/cgroup.procs") as processes:
            return [int(line) for line in processes]

    def cpu(self):
        """User and system seconds so far."""
        with open(f"{self.cpu_folder}/cpu.stat") as stat:
            values = dict(line.split() for line in stat)
        return int(values["user_usec"]) / 1e6, int(values["system_usec"]) / 1e6

    def memory(self):
        """Anonymous memory in bytes."""
        try:
            with open(f"{self.memory_folder}/memory.stat") as stat:
                values = dict(line.split() for line in stat)
            return int(values.get("total_rss", values.get("anon")))
        except FileNotFoundError:
            return sum(map(anonymous, self.processes()))

    def end(self):
        """Ends whatever a server has left running."""
        for told in [signal.SIGTERM] * 20 + [signal.SIGKILL] * 20:
            left = self.processes()
            for pid in left:
                try:
                    os.kill(pid, told)
                except ProcessLookupError:
                    pass
            if not left:
                break
            time.sleep(0.1)
        for folder in {self.cpu_folder, self.memory_folder}:
            os.rmdir(folder)


class Tree:
    """A process and all that come from it. Who loses his parent gets lost."""

    def __init__(self):
        self.top = None

    def enter(self):
        pass

    def processes(self):
        parents = {}
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open(f"/proc/{pid}/stat") as stat:
                    parents[int(pid)] = int(stat.read().rpartition(")")[2].split()[1])
            except OSError:
                pass
        found, grown = {self.top}, True
        while grown:
            new = {pid for pid, parent in parents.items() if parent in found} - found
            grown = bool(new)
            found |= new
        return found

    def cpu(self):
        """User and system seconds, with children that have ended and were waited for."""
        user = system = 0
        for pid in self.processes():
            try:
                with open(f"/proc/{pid}/stat") as stat:
                    words = stat.read().rpartition(")")[2].split()
            except OSError:
                continue
            user += int(words[11]) + int(words[13])
            system += int(words[12]) + int(words[14])
        return user / TICK, system / TICK

    def memory(self):
        return sum(map(anonymous, self.processes()))

    def end(self):
        pass


def anonymous(pid):
    """Anonymous memory of a process, in bytes."""
    try:
        with open(f"/proc/{pid}/status") as status:
            found = re.search(r"^RssAnon:\s+(\d+) kB", status.read(), re.M)
            return int(found.group(1)) * 1024 if found else 0
    except OSError:
        return 0


def usage():
    """For a server that is about to be started; whoever starts it calls enter in the child, and sets top."""
    return Group(f"posta-bench-{os.getpid()}-{time.monotonic_ns()}") if Group.possible() else Tree()


def all_cpu_seconds():
    """What all processes of this machine and its kernel have used."""
    with open("/proc/stat") as stat:
        user, nice, system, _idle, _iowait, irq, softirq = map(int, stat.readline().split()[1:8])
    return (user + nice + system + irq + softirq) / TICK


def settle(used, longest=30):
    """Waits until a server does next to nothing for a third of a second."""
    end, before = time.monotonic() + longest, None
    while time.monotonic() < end:
        now = sum(used.cpu())
        if before is not None and now - before < 0.01:
            break
        before = now
        time.sleep(0.3)


class MemoryWatch:
    """Looks at a server's memory while it works."""

    def __init__(self, used):
        self.used, self.most, self.done = used, 0, threading.Event()
        self.thread = threading.Thread(target=self.look, daemon=True)
        self.thread.start()

    def look(self):
        while True:
            self.most = max(self.most, self.used.memory())
            if self.done.wait(0.05):
                return

    def end(self):
        """The most there was, in bytes."""
        self.done.set()
        self.thread.join()
        return self.most
