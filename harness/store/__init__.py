"""Records in a database: one SQLite file by default, PostgreSQL by URL.

Writing is idempotent: the same measurement has the same key, and a later record of it takes the place of the
earlier one. ``docs/store.md`` is the guide.
"""

from harness.store.store import VARIABLE, Store, default_location
from harness.store.tables import VERSION

__all__ = ["VARIABLE", "VERSION", "Store", "default_location"]
