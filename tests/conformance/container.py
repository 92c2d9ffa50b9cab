"""Plays a container that writes its mirror as fast as it can, until its input closes.

container.py TARGET PRIVATE HOW: "take and make" takes whatever stands at a name away into PRIVATE and
puts a new file there; "append" writes into whatever stands there. Each writing has a number of its own,
which is printed.
"""

import os
import random
import select
import sys


def take_and_make(name: str, private: str, number: int, stamp: bytes, size: int) -> bool:
    try:
        os.rename(name, f"{private}/taken{number}")
    except OSError:
        pass
    made = f"{private}/made"
    with open(made, "wb") as file:
        file.write(stamp + b"." * size)
    try:
        os.link(made, name)
    except OSError:
        return False
    finally:
        os.unlink(made)
    return True


def append(name: str, stamp: bytes) -> bool:
    try:
        fd = os.open(name, os.O_WRONLY | os.O_APPEND)
    except OSError:
        return False
    os.write(fd, stamp)
    os.close(fd)
    return True


def main(target: str, private: str, how: str) -> None:
    chance = random.Random(1)
    number = 0
    print("begun", flush=True)
    written = []
    while not select.select([0], [], [], 0)[0]:
        name = f"{target}/f{chance.randrange(6)}"
        number += 1
        stamp = b"<stamp %d>" % number
        size = chance.choice((0, 0, 300, 300, 140_000))
        if append(name, stamp) if how == "append" else take_and_make(name, private, number, stamp, size):
            written.append(number)
    print(*written)


main(*sys.argv[1:])
