"""Runs several commands one after another in this rank: importing torch is what takes time, so it is done once.

`torchrun --nproc-per-node N worker.py JOBS.json`, where JOBS.json is a list of lists of words.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from burnish.cli.entry import end_process
from burnish.cli.main import main

for words in json.loads(Path(sys.argv[1]).read_text()):
    code = main(words)
    if code:
        end_process(code)
end_process(0)
