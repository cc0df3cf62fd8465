"""Runs a program and writes what it took into a file: ``meter.py FILE PROGRAM ...``.

Linux counts what the process before ``exec`` held as the memory of the program after it. This one is small, and so
stands between a benchmark and what it measures.
"""

import json
import os
import subprocess
import sys
import time

began = time.perf_counter()
process = subprocess.Popen(sys.argv[2:])
while True:
    try:
        _, status, usage = os.wait4(process.pid, 0)
        break
    except KeyboardInterrupt:
        # The program was told as well, and ends in its own way.
        continue
process.returncode = os.waitstatus_to_exitcode(status)
figures = {
    "code": process.returncode,
    "wall_s": time.perf_counter() - began,
    "cpu_s": usage.ru_utime + usage.ru_stime,
    "peak_mb": 1e-6 * usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024),
}
with open(sys.argv[1], "w", encoding="utf-8") as file:
    json.dump(figures, file)
