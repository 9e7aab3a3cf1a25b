"""The store: what may be written and asked. Records in, records and tables out; every write is one transaction."""

from __future__ import annotations

from contrafact.store.repository.answers import Answers
from contrafact.store.repository.audit import Audit
from contrafact.store.repository.batches import Batches
from contrafact.store.repository.chain import Chain
from contrafact.store.repository.images import Images
from contrafact.store.repository.panels import Panels
from contrafact.store.repository.people import People
from contrafact.store.repository.reviews import Reviews
from contrafact.store.repository.statements import Statements
from contrafact.store.repository.stimuli import Stimuli
from contrafact.store.repository.studies import Studies


class Store(Studies, Images, Stimuli, Reviews, Chain, People, Batches, Answers, Panels, Statements, Audit):
    """One database; made by ``open_store``. Every method raises UserError where the database is locked or away."""
