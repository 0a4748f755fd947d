"""Disks whose power can be cut: file systems in image files, mounted by loop devices.

A cut is the file system's own shutdown without a flush of its log (EXT4_IOC_SHUTDOWN and
XFS_IOC_GOINGDOWN, which have the same number): from then on nothing more is written. What goes on is a
copy of the image as it was then, since a file system without a journal might still write when it is
unmounted.
"""

import fcntl
import os
import pathlib
import shutil
import struct
import subprocess
import time

SHUTDOWN = 0x8004587D  # _IOR('X', 125, __u32)
WITHOUT_FLUSH = 2
SIZE = 512 << 20

# name: the command that makes it, and the one that a machine runs on it after a power cut.
# The exit status 1 of e2fsck is "repaired".
FILE_SYSTEMS = {
    "ext4": (["mkfs.ext4", "-q", "-F"], None),
    "ext4, no journal": (["mkfs.ext4", "-q", "-F", "-O", "^has_journal"], ["e2fsck", "-f", "-y"]),
    "xfs": (["mkfs.xfs", "-q", "-f"], None),
}


class Unfit(Exception):
    """This machine has not what the test needs."""


def call(*words, good=(0,)):
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True)
    if done.returncode not in good:
        raise OSError(f"{' '.join(map(str, words))}: {done.stdout}{done.stderr}".strip())


class Disk:
    """One file system, mounted at `path` until it is closed."""

    def __init__(self, folder, name, kind):
        self.make, self.check = FILE_SYSTEMS[kind]
        for tool in filter(None, (self.make, self.check)):
            if shutil.which(tool[0]) is None:
                raise Unfit(f"{tool[0]} is not installed")
        self.image = pathlib.Path(folder, f"{name}.image")
        self.path = pathlib.Path(folder, name)
        self.path.mkdir()
        with open(self.image, "wb") as image:
            image.truncate(SIZE)
        call(*self.make, self.image)
        try:
            self.mount()
        except OSError as error:
            raise Unfit(f"{kind} can't be mounted here: {error}") from error

    def mount(self):
        call("mount", "-o", "loop", self.image, self.path)

    def cut(self):
        """The power goes."""
        folder = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.ioctl(folder, SHUTDOWN, struct.pack("I", WITHOUT_FLUSH))
        finally:
            os.close(folder)

    def come_back(self):
        """The power is there again. Whoever used the disk is gone by now."""
        kept = self.image.with_suffix(".kept")
        call("cp", "--sparse=always", self.image, kept)
        self.unmount()
        kept.replace(self.image)
        if self.check:
            call(*self.check, self.image, good=(0, 1))
        self.mount()

    def unmount(self):
        for _ in range(100):
            if subprocess.run(["umount", self.path], capture_output=True).returncode == 0:
                return
            time.sleep(0.1)
        raise OSError(f"{self.path} can't be unmounted: something still uses it")

    def is_mounted(self):
        # One that was shut down can't be asked itself.
        with open("/proc/mounts") as mounts:
            return any(line.split()[1] == str(self.path) for line in mounts)

    def close(self):
        if self.is_mounted():
            subprocess.run(["umount", "-l", self.path], check=False)
        self.image.unlink(missing_ok=True)
