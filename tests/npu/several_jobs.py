"""Runs several commands one after another in this process, and tells which operators each sent to the device.

`several_jobs.py JOBS.json`, by itself or under torchrun, where JOBS.json is {name: words of a command}. The counts of a
job are left beside that file, in the folder of its name, one file a rank. Importing torch takes most of the time, so it
is done once.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from burnish.cli.entry import end_process
from burnish.cli.main import main
from npu.simulator.log import LAUNCHED

JOBS = Path(sys.argv[1])
for name, words in json.loads(JOBS.read_text()).items():
    LAUNCHED.clear()
    code = main(words)
    if code:
        end_process(code)
    folder = JOBS.parent / "launched" / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{os.environ.get('RANK', '0')}.json").write_text(json.dumps(LAUNCHED))
end_process(0)
