"""Getting the field's corpora: a typed catalogue, downloads that resume, archives unpacked safely, folders that are whole or not there."""

from data_prep.fetch.catalogue import CATALOGUE, corpus, listing
from data_prep.fetch.run import FetchSettings, fetch

__all__ = ["CATALOGUE", "FetchSettings", "corpus", "fetch", "listing"]
