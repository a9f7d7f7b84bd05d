"""Commands in one process, one after the other, for what takes long to start; the first that fails ends it.

torchrun … tests/helpers/several.py '[["train", …], ["train", …]]' '[40001, 40002]'

The ranks meet at a port of its own for each: at the first one's they would find what the command before has left.
"""

import json
import os
import sys

from freemvmt.cli import main

os.environ["TORCHELASTIC_USE_AGENT_STORE"] = "False"
for words, port in zip(*map(json.loads, sys.argv[1:]), strict=True):
    os.environ["MASTER_PORT"] = str(port)
    if code := main(words):
        sys.exit(code)
