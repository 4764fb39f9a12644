"""Other data than images: tables and text, compared by ``flatmin.compare``."""
