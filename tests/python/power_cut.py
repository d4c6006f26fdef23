"""Cuts the power of an ext4 file system: argv[1] is where it is mounted. Says when it is ready, waits for a line, cuts.

What is in the page cache or in a transaction that is not committed is lost, as if the machine had stopped.
"""

import fcntl
import os
import struct
import sys

EXT4_IOC_SHUTDOWN = 0x8004587D  # _IOR('X', 125, __u32)
NOLOGFLUSH = struct.pack("I", 2)

folder = os.open(sys.argv[1], os.O_RDONLY | os.O_DIRECTORY)
print("ready", flush=True)
sys.stdin.readline()
fcntl.ioctl(folder, EXT4_IOC_SHUTDOWN, NOLOGFLUSH)
print("cut", flush=True)
