from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import gc
from gateway.garbage import NEW_OBJECTS, collect_seldom

class Node:
    pass

def circle():
    node = Node()
    node.itself = node

collect_seldom()
assert gc.get_freeze_count() > 1000, gc.get_freeze_count()
most = 0
for _ in range(3 * NEW_OBJECTS):
    circle()
    most = max(most, gc.get_count()[0])
assert most > NEW_OBJECTS // 2, most
left = sum(isinstance(one, Node) for one in gc.get_objects())
assert left <= NEW_OBJECTS, left
"""


def test_cycles_are_collected_seldom_and_still_collected():
    # In a process of its own: the collector is the whole process's.
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
