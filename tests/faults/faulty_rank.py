"""One rank of a run with faults: `torchrun … faulty_rank.py JOB.json`; words and faults by rank stand in JOB.json.

The faults are those of the first attempt: a rank that torchrun has started again has none.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import injections

from burnish.cli.entry import end_process
from burnish.cli.main import main

job = json.loads(Path(sys.argv[1]).read_text())
if os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0":
    for fault in job["faults"].get(os.environ["RANK"], ()):
        getattr(injections, fault.pop("name"))(**fault)
end_process(main(job["words"]))
