"""burnish is imported first, as in a script: it loads torch_npu itself, with the settings that training wants."""

import burnish  # noqa: F401
