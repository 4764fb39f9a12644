"""One network looked at: where it and its data come from, what is measured, and how it is shown."""
