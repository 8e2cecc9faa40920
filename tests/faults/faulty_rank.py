"""One rank of a run with faults: `torchrun … faulty_rank.py JOB.json`; words and faults stand in JOB.json."""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import injections

from burnish.cli.main import main

job = json.loads(Path(sys.argv[1]).read_text())
for fault in job["faults"]:
    getattr(injections, fault.pop("name"))(**fault)
sys.exit(main(job["words"]))
