"""Where a framework is not installed, the examples of its door are not collected."""

import importlib.util

collect_ignore = [
    f"flatmin/integrations/{name}.py"
    for name in ("lightning", "transformers")
    if importlib.util.find_spec(name) is None
]
